/* test_evaluate.c - a model over data sets: the official trainer's prediction files, interrupted and shared-out runs, bad
 * input.
 *
 * Started with --run NAME BEAMS OUT [setting...] the program is one such run, perhaps one rank of several.
 */
#include "check.h"

#include "data/data.h"
#include "sca.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden/"
#define WORK SCA_BUILD "/evaluate-test"

static bool have_shared(void)
{
    if (dir_exists(GOLDEN "eval") && dir_exists(SCA_SHARED "/data/vg-mini")) return true;
    check_skip("shared: the shared folder with golden vectors and photos is absent");
    return false;
}

/* ---- one run ------------------------------------------------------------------------------- */

static sca_status set(sca_config *c, const char *format, ...)
{
    str s = { 0 };
    va_list args;
    va_start(args, format);
    str_vprintf(&s, format, args);
    va_end(args);
    sca_status status = sca_config_set(c, str_text(&s));
    str_free(&s);
    return status;
}

/* The set of 10 images (49 regions) that the official trainer went through. */
static sca_status settings(const char *name, int beams, const char *out, char **more, sca_config **c)
{
    TRY(sca_config_open(NULL, c));
    TRY(set(*c, "model.path=" GOLDEN "models/%s", name));
    TRY(set(*c, "data.eval=[{kind: visual_genome, annotations: %s, images: %s, split: test, name: vg}]",
            SCA_SHARED "/data/vg-mini/annotations", SCA_SHARED "/data/vg-mini"));
    TRY(set(*c, "eval.output=%s", out));
    TRY(set(*c, "eval.max_images=10"));
    TRY(set(*c, "generate.beams=%d", beams));
    for (; more && *more; more++) TRY(set(*c, "%s", *more));
    return SCA_OK;
}

static sca_status evaluate(const char *name, int beams, const char *out, char **more, json_t **scores)
{
    sca_config *c = NULL;
    sca_model *m = NULL;
    char *text = NULL;
    sca_status status;
    TRY_GOTO(done, settings(name, beams, out, more, &c));
    TRY_GOTO(done, sca_model_open(c, &m));
    TRY_GOTO(done, sca_evaluate(m, c, &text));
    if (scores && text) status = json_parse(text, strlen(text), "scores", scores);
done:
    sca_free(text);
    sca_model_close(m);
    sca_config_close(c);
    return status;
}

/* ---- files --------------------------------------------------------------------------------- */

static void wipe(const char *dir)
{
    char line[1024];
    snprintf(line, sizeof line, "rm -rf '%s'", dir);
    CHECK(system(line) == 0);
}

static char *read_all(const char *dir, const char *name)
{
    char *path = name ? path_join(dir, name) : text_copy(dir, strlen(dir)), *data = NULL;
    size_t bytes;
    CHECK_OK(file_read(path, 1 << 28, &data, &bytes));
    mem_free(path);
    return data ? data : text_copy("", 0);
}

static void same_file(const char *a, const char *b, const char *name)
{
    char *x = read_all(a, name), *y = read_all(b, name);
    CHECKF(x[0] && strcmp(x, y) == 0, "%s: %s and %s differ", name, a, b);
    mem_free(x);
    mem_free(y);
}

static void same_results(const char *a, const char *b)
{
    same_file(a, b, "vg/predictions.json");
    same_file(a, b, "vg/scored.json");
    same_file(a, b, "vg/details.json");
    same_file(a, b, "scores.json");
}

static bool has_parts(const char *dir)
{
    bool found = false;
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) found = found || (e->d_name[0] == '.' && strlen(e->d_name) > 2);
    if (d) closedir(d);
    return found;
}

/* ---- the official trainer's files ---------------------------------------------------------- */

static void check_record(const json_t *want, const json_t *got, size_t i)
{
    static const char *const equal[] = { "_id", "split", "references", "candidates", "metadata" };
    for (size_t k = 0; k < LENGTH(equal); k++)
        CHECKF(json_equal(json_object_get(want, equal[k]), json_object_get(got, equal[k])),
               "record %zu: %s differs", i, equal[k]);
    const json_t *a = json_object_get(json_object_get(want, "logits"), "iou_scores");
    const json_t *b = json_object_get(json_object_get(got, "logits"), "iou_scores");
    CHECK(json_array_size(a) == 3 && json_array_size(b) == 3);
    for (size_t k = 0; k < 3; k++) {
        double x = json_number_value(json_array_get(a, k)), y = json_number_value(json_array_get(b, k));
        CHECKF(fabs(x - y) < 1e-4, "record %zu: score %g, expected %g", i, y, x);
    }
}

/* All but the digits of the scores. */
static void check_layout(const char *a, const char *b)
{
    char *x = read_all(a, NULL), *y = read_all(b, NULL);
    const char *p = x, *q = y;
    while (*p && *q) {
        size_t n = strcspn(p, "\n"), m = strcspn(q, "\n");
        bool number = p[strspn(p, " ")] == '-' || strchr("0123456789", p[strspn(p, " ")]);
        if (number && memchr(p, '.', n))
            CHECK(strspn(p, " ") == strspn(q, " ") && (p[n - 1] == ',') == (q[m - 1] == ','));
        else if (!CHECKF(n == m && memcmp(p, q, n) == 0, "'%.*s', expected '%.*s'", (int)m, q, (int)n, p))
            break;
        p += n + (p[n] != 0);
        q += m + (q[m] != 0);
    }
    CHECK(*p == 0 && *q == 0);
    mem_free(x);
    mem_free(y);
}

static void check_predictions(const char *name, int beams, const char *out)
{
    char expected[1024], written[1024];
    json_t *want = NULL, *got = NULL;
    snprintf(expected, sizeof expected, GOLDEN "eval/%s/infer-beams%d.json", name, beams);
    snprintf(written, sizeof written, "%s/vg/predictions.json", out);
    CHECK_OK(json_open(expected, &want));
    CHECK_OK(json_open(written, &got));
    CHECK(json_array_size(want) == 49 && json_array_size(got) == 49);
    for (size_t i = 0; i < json_array_size(want); i++)
        check_record(json_array_get(want, i), json_array_get(got, i), i);
    check_layout(expected, written);
    json_decref(want);
    json_decref(got);
}

static void check_loss(const char *name, const json_t *scores)
{
    char expected[512];
    json_t *want = NULL;
    snprintf(expected, sizeof expected, GOLDEN "eval/%s/loss.json", name);
    CHECK_OK(json_open(expected, &want));
    double loss = json_number_value(json_object_get(json_object_get(scores, "scores"), "loss"));
    double mean = json_number_value(json_object_get(want, "mean_over_images"));
    CHECKF(fabs(loss - mean) < 1e-5, "%s: loss %.7f, expected %.7f", name, loss, mean);
    json_decref(want);
}

static void check_scores(const json_t *set_scores)
{
    const json_t *values = json_object_get(set_scores, "scores");
    CHECK(json_integer_value(json_object_get(set_scores, "regions")) == 49);
    CHECK(json_integer_value(json_object_get(set_scores, "images")) == 10);
    CHECK(strcmp(json_string_value(json_object_get(set_scores, "protocol")),
                 "visual_genome test, first 10 images, all regions of each image") == 0);
    CHECK(json_number_value(json_object_get(values, "CIDEr-D")) > 0);
    CHECK(!json_object_get(values, "METEOR"));
}

static void check_details(const char *out)
{
    char path[1024];
    json_t *details = NULL;
    snprintf(path, sizeof path, "%s/vg/details.json", out);
    CHECK_OK(json_open(path, &details));
    CHECK(json_array_size(json_object_get(details, "gallery")) == 36);
    int64_t words = 0;
    const json_t *bins = json_object_get(json_object_get(details, "histograms"), "words");
    for (size_t i = 0; i < json_array_size(bins); i++) words += json_integer_value(json_array_get(bins, i));
    CHECK(words == 49);
    json_decref(details);
}

static void official_predictions(void)
{
    static const char *const names[] = { "gpt2-tiny", "llama-tiny" };
    char *with_loss[] = { (char *)(uintptr_t) "eval.loss=true", NULL };
    if (!have_shared()) return;
    for (size_t i = 0; i < LENGTH(names); i++)
        for (int beams = 1; beams <= 3; beams += 2) {
            char out[512];
            json_t *scores = NULL;
            snprintf(out, sizeof out, WORK "/%s-%d", names[i], beams);
            wipe(out);
            CHECK_OK(evaluate(names[i], beams, out, beams == 3 ? with_loss : NULL, &scores));
            check_predictions(names[i], beams, out);
            const json_t *first = json_array_get(json_object_get(scores, "sets"), 0);
            check_scores(first);
            check_details(out);
            if (beams == 3) check_loss(names[i], first);
            snprintf(out + strlen(out), 8, "/vg");
            CHECK(!has_parts(out));
            json_decref(scores);
        }
}

/* ---- the other classes, with one to three captions of each region -------------------------- */

/* The photo and regions of a golden case as a set; the case is returned. */
static json_t *case_set(const char *name)
{
    char path[512];
    json_t *c = NULL, *box;
    str s = { 0 };
    size_t i;
    snprintf(path, sizeof path, GOLDEN "ablation/%s/case.json", name);
    CHECK_OK(json_open(path, &c));
    str_printf(&s, "{\"images\": [{\"id\": 9, \"file_name\": \"%s\"}], \"annotations\": [",
               json_string_value(json_object_get(c, "image")));
    json_array_foreach(json_object_get(c, "prompt_boxes_xyxy"), i, box)
    {
        double b[4];
        for (size_t k = 0; k < 4; k++) b[k] = json_number_value(json_array_get(box, k));
        const char *caption = json_string_value(json_array_get(json_object_get(c, "captions"), i));
        str_printf(&s, "%s{\"id\": %zu, \"image_id\": 9, \"bbox\": [%g, %g, %g, %g], \"caption\": ", i ? ", " : "",
                   i, b[0], b[1], b[2] - b[0], b[3] - b[1]);
        json_put_text(&s, caption, strlen(caption));
        str_putc(&s, '}');
    }
    str_put(&s, "]}");
    CHECK_OK(dir_make(WORK));
    CHECK_OK(file_write(WORK "/case.json", s.data, s.bytes));
    str_free(&s);
    return c;
}

/* The golden texts are by region, then head. */
static void check_heads(const char *name, const json_t *c)
{
    json_t *records = NULL, *record;
    size_t i, heads = (size_t)json_integer_value(json_object_get(c, "caption_heads"));
    CHECK_OK(json_open(WORK "/heads/case/predictions.json", &records));
    CHECK(json_array_size(records) == json_array_size(json_object_get(c, "captions")));
    json_array_foreach(records, i, record)
    {
        const json_t *candidates = json_object_get(record, "candidates");
        CHECKF(json_array_size(candidates) == heads, "%s: %zu captions of a region", name,
               json_array_size(candidates));
        for (size_t h = 0; h < heads; h++) {
            const json_t *golden = json_array_get(json_object_get(c, "greedy"), i * heads + h);
            const char *want = json_string_value(json_object_get(golden, "text"));
            const char *got = json_string_value(json_array_get(candidates, h));
            if (!json_is_true(json_array_get(json_object_get(c, "greedy_stable"), i * heads + h))) continue;
            CHECKF(want && got && strcmp(want, got) == 0, "%s: region %zu: '%s', expected '%s'", name, i, got,
                   want);
        }
    }
    json_decref(records);
}

static void every_class(void)
{
    static const char *const names[] = { "base_sca", "base_sca_multitask", "base_sca_direct_decoding",
                                         "base_sca_direct_decoding_v2", "base_sca_multitask_split_mixer" };
    static const char sets[] =
        "data.eval=[{kind: grit, annotations: " WORK "/case.json, images: " SCA_SHARED "/data, name: case}]";
    if (!have_shared() || !dir_exists(GOLDEN "ablation")) return;
    for (size_t i = 0; i < LENGTH(names); i++) {
        char model[512];
        char *more[] = { model, (char *)(uintptr_t)sets, (char *)(uintptr_t) "eval.loss=true",
                         (char *)(uintptr_t) "eval.max_images=0", NULL };
        json_t *c = case_set(names[i]), *scores = NULL;
        snprintf(model, sizeof model, "model.path=" GOLDEN "ablation/%s/model", names[i]);
        wipe(WORK "/heads");
        CHECK_OK(evaluate("", 1, WORK "/heads", more, &scores));
        check_heads(names[i], c);
        const json_t *first = json_array_get(json_object_get(scores, "sets"), 0);
        double loss = json_number_value(json_object_get(json_object_get(first, "scores"), "loss"));
        double want = json_number_value(json_object_get(c, "loss_fp64"));
        CHECKF(fabs(loss - want) < 1e-5, "%s: loss %.7f, expected %.7f", names[i], loss, want);
        json_decref(scores);
        json_decref(c);
    }
    char *two[] = { (char *)(uintptr_t) "model.path=" GOLDEN "ablation/base_sca_multitask_v2_heads2/model", NULL };
    CHECK_FAILS(evaluate("", 1, WORK "/heads", two, NULL), SCA_ERR_UNSUPPORTED, "2 captions of a region");
}

/* ---- interrupted, shared out --------------------------------------------------------------- */

static const char *self;

static int run_line_with(const char *before, const char *out, const char *more)
{
    char line[4096];
    snprintf(line, sizeof line, "%s %s --run gpt2-tiny 3 %s %s >%s.log 2>&1", before, self, out, more, out);
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_line(const char *before, const char *out) { return run_line_with(before, out, "eval.loss=true"); }

static int64_t lines_in(const char *path)
{
    int64_t n = 0;
    file_view v;
    if (!file_exists(path) || file_map(path, &v) != SCA_OK) return 0;
    for (size_t i = 0; i < v.bytes; i++) n += v.data[i] == '\n';
    file_unmap(&v);
    return n;
}

/* Starts a run and kills it as soon as it has written some regions. */
static void start_and_kill(const char *out, int64_t regions)
{
    char part[600];
    snprintf(part, sizeof part, "%s/vg/.part-0.jsonl", out);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        execl(self, self, "--run", "gpt2-tiny", "3", out, "eval.loss=true", (char *)NULL);
        _exit(127);
    }
    int status = 0;
    for (int i = 0; i < 60000 && lines_in(part) <= regions && waitpid(child, &status, WNOHANG) == 0; i++)
        nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    CHECKF(WIFSIGNALED(status), "the run ended before it was killed");
}

static void killed_run_goes_on(void)
{
    static const char whole[] = WORK "/whole", killed[] = WORK "/killed";
    file_log *f;
    if (!have_shared()) return;
    wipe(whole);
    wipe(killed);
    CHECK(run_line("", whole) == 0);
    start_and_kill(killed, 9);
    CHECK(has_parts(WORK "/killed/vg"));
    start_and_kill(killed, 21);
    /* What a crash may leave behind a complete line. */
    CHECK_OK(file_log_open(WORK "/killed/vg/.part-0.jsonl", SIZE_MAX, &f));
    CHECK_OK(file_log_put(f, "{\"image\": 9, \"reg", 17));
    file_log_close(f);
    CHECK(run_line("", killed) == 0);
    CHECK(!has_parts(WORK "/killed/vg"));
    same_results(whole, killed);
}

static const char *const mpirun =
    "ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
    "OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 mpirun -n";

static void ranks_give_the_same(void)
{
    static const char whole[] = WORK "/whole";
    char before[512];
    if (!have_shared()) return;
    if (system("command -v mpirun >/dev/null 2>&1") != 0) {
        check_skip("mpi: no mpirun");
        return;
    }
    if (!file_exists(WORK "/whole/scores.json")) CHECK(run_line("", whole) == 0);
    for (int n = 2; n <= 4; n += 2) {
        char out[512];
        snprintf(out, sizeof out, WORK "/ranks-%d", n);
        wipe(out);
        snprintf(before, sizeof before, "%s %d", mpirun, n);
        int code = run_line(before, out);
        CHECKF(code == 0, "%d ranks: %d, see %s.log", n, code, out);
        same_results(whole, out);
    }
    /* Random numbers do not depend on who draws them. */
    static const char chance[] = "generate.beams=1 generate.temperature=1 eval.prompt=random_point_in_mask";
    wipe(WORK "/chance");
    wipe(WORK "/chance-2");
    CHECK(run_line_with("", WORK "/chance", chance) == 0);
    snprintf(before, sizeof before, "%s 2", mpirun);
    CHECK(run_line_with(before, WORK "/chance-2", chance) == 0);
    same_results(WORK "/chance", WORK "/chance-2");
    /* A run of one that is killed, continued by two. */
    wipe(WORK "/mixed");
    start_and_kill(WORK "/mixed", 15);
    snprintf(before, sizeof before, "%s 2", mpirun);
    CHECK(run_line(before, WORK "/mixed") == 0);
    same_results(whole, WORK "/mixed");
}

/* ---- prompts, sampling, other sets --------------------------------------------------------- */

static void point_prompts(void)
{
    static const char *const prompts[] = { "center_point_in_box", "random_point_in_box", "random_point_in_mask" };
    if (!have_shared()) return;
    for (size_t i = 0; i < LENGTH(prompts); i++) {
        char prompt[64];
        char *more[] = { prompt, (char *)(uintptr_t) "eval.max_images=2",
                         (char *)(uintptr_t) "generate.temperature=1", (char *)(uintptr_t) "generate.beams=1",
                         NULL };
        json_t *scores = NULL;
        snprintf(prompt, sizeof prompt, "eval.prompt=%s", prompts[i]);
        wipe(WORK "/points");
        wipe(WORK "/points-again");
        CHECK_OK(evaluate("gpt2-tiny", 1, WORK "/points", more, &scores));
        CHECK_OK(evaluate("gpt2-tiny", 1, WORK "/points-again", more, NULL));
        same_results(WORK "/points", WORK "/points-again");
        const json_t *first = json_array_get(json_object_get(scores, "sets"), 0);
        const char *protocol = json_string_value(json_object_get(first, "protocol"));
        CHECKF(protocol && strstr(protocol, prompts[i]), "%s", protocol ? protocol : "no protocol");
        json_decref(scores);
    }
}

static void several_sets(void)
{
    char sets[2048];
    char *more[] = { sets, (char *)(uintptr_t) "eval.max_images=2", NULL };
    json_t *scores = NULL;
    if (!have_shared() || !dir_exists(SCA_SHARED "/data/coco-mini")) return;
    snprintf(sets, sizeof sets,
             "data.eval=[{kind: coco, annotations: %s, images: %s, task: recognition}, {kind: visual_genome, "
             "annotations: %s, images: %s}]",
             SCA_SHARED "/data/coco-mini/annotations/instances_val2017.json", SCA_SHARED "/data/coco-mini",
             SCA_SHARED "/data/vg-mini/annotations", SCA_SHARED "/data/vg-mini");
    wipe(WORK "/several");
    CHECK_OK(evaluate("llama-tiny", 1, WORK "/several", more, &scores));
    const json_t *list = json_object_get(scores, "sets");
    CHECK(json_array_size(list) == 2);
    CHECK(file_exists(WORK "/several/coco/scored.json"));
    CHECK(file_exists(WORK "/several/visual_genome-test/predictions.json"));
    json_decref(scores);
}

/* ---- recognition --------------------------------------------------------------------------- */

/* The golden model with the rows of its two tasks exchanged. */
static void swap_tasks(const char *dir)
{
    char line[1200];
    char *data = NULL;
    size_t bytes;
    uint64_t head;
    json_t *index = NULL;
    snprintf(line, sizeof line, "mkdir -p '%s' && cp '" GOLDEN "models/gpt2-tiny/'* '%s' && chmod u+w '%s'/*", dir,
             dir, dir);
    CHECK(system(line) == 0);
    snprintf(line, sizeof line, "%s/model.safetensors", dir);
    CHECK_OK(file_read(line, 1 << 28, &data, &bytes));
    memcpy(&head, data, sizeof head);
    CHECK_OK(json_parse(data + 8, head, "head", &index));
    const json_t *place = json_object_get(json_object_get(index, "task_tokens.weight"), "data_offsets");
    size_t from = (size_t)json_integer_value(json_array_get(place, 0)),
           half = ((size_t)json_integer_value(json_array_get(place, 1)) - from) / 2;
    char *at = data + 8 + head + from, *other = mem_alloc(half);
    CHECK(half > 0 && at + 2 * half <= data + bytes);
    memcpy(other, at, half);
    memcpy(at, at + half, half);
    memcpy(at + half, other, half);
    CHECK_OK(file_write(line, data, bytes));
    json_decref(index);
    mem_free(other);
    mem_free(data);
}

/* A task is nothing but its rows: captions and loss of the exchanged model under recognition are the golden ones. */
static void recognition(void)
{
    char *more[] = { (char *)(uintptr_t) "model.path=" WORK "/swapped",
                     (char *)(uintptr_t) "data.eval.0.task=recognition", (char *)(uintptr_t) "eval.loss=true",
                     NULL };
    json_t *scores = NULL;
    if (!have_shared()) return;
    wipe(WORK "/swapped");
    wipe(WORK "/recognition");
    swap_tasks(WORK "/swapped");
    CHECK_OK(evaluate("", 3, WORK "/recognition", more, &scores));
    check_predictions("gpt2-tiny", 3, WORK "/recognition");
    const json_t *first = json_array_get(json_object_get(scores, "sets"), 0);
    check_loss("gpt2-tiny", first);
    CHECK(strstr(json_string_value(json_object_get(first, "protocol")), ", task recognition"));
    json_decref(scores);
}

/* ---- bad input ----------------------------------------------------------------------------- */

static void bad_input(void)
{
    char *wrong_kind[] = { (char *)(uintptr_t) "data.eval=[{kind: pictures, annotations: x, images: y}]", NULL };
    char *no_images[] = { (char *)(uintptr_t) "data.eval.0.images=" WORK "/photos", NULL };
    char *no_sets[] = { (char *)(uintptr_t) "data.eval=[]", NULL };
    char *no_output[] = { (char *)(uintptr_t) "eval.output=", NULL };
    char *in_file[] = { (char *)(uintptr_t) "eval.output=" WORK "/file", NULL };
    char *bad_name[] = { (char *)(uintptr_t) "data.eval.0.name=../up", NULL };
    if (!have_shared()) return;
    wipe(WORK "/bad");
    CHECK_OK(dir_make(WORK));
    CHECK_OK(file_write(WORK "/file", "x", 1));
    CHECK_OK(dir_make(WORK "/photos/VG_100K"));
    CHECK_FAILS(evaluate("gpt2-tiny", 1, WORK "/bad", wrong_kind, NULL), SCA_ERR_ARGUMENT, "pictures");
    CHECK_FAILS(evaluate("gpt2-tiny", 1, WORK "/bad", no_images, NULL), SCA_ERR_IO, "10 of 10 images");
    CHECK_FAILS(evaluate("gpt2-tiny", 1, WORK "/bad", no_sets, NULL), SCA_ERR_ARGUMENT, "data.eval");
    CHECK_FAILS(evaluate("gpt2-tiny", 1, WORK "/bad", no_output, NULL), SCA_ERR_ARGUMENT, "eval.output");
    CHECK_FAILS(evaluate("gpt2-tiny", 1, WORK "/bad", in_file, NULL), SCA_ERR_IO, "file");
    CHECK_FAILS(evaluate("gpt2-tiny", 1, WORK "/bad", bad_name, NULL), SCA_ERR_ARGUMENT, "../up");
    CHECK(!dir_exists(WORK "/up"));
}

static void shipped_settings(void)
{
    static const char *const names[] = { "published", "vg", "glamm", "prompts" };
    for (size_t i = 0; i < LENGTH(names); i++) {
        char path[512];
        sca_config *c = NULL;
        char *value = NULL;
        snprintf(path, sizeof path, SCA_SOURCE "/configs/eval_%s.yaml", names[i]);
        CHECK_OK(sca_config_open(path, &c));
        CHECK_OK(sca_config_get(c, "eval.output", &value));
        CHECK(value && text_starts(value, "runs/"));
        sca_free(value);
        sca_config_close(c);
    }
}

static void other_settings_are_not_mixed(void)
{
    char *more[] = { (char *)(uintptr_t) "eval.max_images=1", NULL };
    if (!have_shared()) return;
    wipe(WORK "/other");
    CHECK_OK(dir_make(WORK "/other/vg"));
    CHECK_OK(file_write(WORK "/other/vg/.part-3.jsonl", "{\"evaluation\": 1}\n", 18));
    CHECK_FAILS(evaluate("gpt2-tiny", 1, WORK "/other", more, NULL), SCA_ERR_STATE, "another evaluation");
    CHECK_OK(file_remove(WORK "/other/vg/.part-3.jsonl"));
    CHECK_OK(evaluate("gpt2-tiny", 1, WORK "/other", more, NULL));
}

/* ---- failures ------------------------------------------------------------------------------ */

/* Every file operation of a run fails once, then every some-th allocation; each time the work goes on in what the failed
 * run left behind. In the end the files are those of a run without failures. */
static void failures_spoil_nothing(void)
{
    char *more[] = { (char *)(uintptr_t) "eval.max_images=2", NULL };
    sca_config *c = NULL;
    sca_model *m = NULL;
    char *text = NULL;
    if (!have_shared()) return;
    wipe(WORK "/sound");
    wipe(WORK "/faulty");
    CHECK_OK(evaluate("gpt2-tiny", 1, WORK "/sound", more, NULL));
    CHECK_OK(settings("gpt2-tiny", 1, WORK "/faulty", more, &c));
    CHECK_OK(sca_model_open(c, &m));
    for (int kind = 0; kind < 2; kind++) {
        bool fired = true;
        int64_t failed = 0;
        for (int64_t n = 1; fired && n < 10000000; n += kind == 0 ? 1 : 1 + n / 6) {
            if (kind == 1) wipe(WORK "/faulty");
            (kind ? fault_alloc : fault_io)(n);
            sca_status status = sca_evaluate(m, c, &text);
            fired = fault_fired();
            (kind ? fault_alloc : fault_io)(0);
            CHECKF(fired || status == SCA_OK, "without a fault: %s", sca_last_error());
            CHECK(status == SCA_OK || sca_last_error()[0]);
            failed += status != SCA_OK;
            sca_free(text);
            text = NULL;
        }
        CHECKF(failed > 10, "only %lld faults of kind %d", (long long)failed, kind);
    }
    wipe(WORK "/faulty/scores.json");
    CHECK_OK(sca_evaluate(m, c, &text));
    sca_free(text);
    same_results(WORK "/sound", WORK "/faulty");
    sca_model_close(m);
    sca_config_close(c);
}

/* ---- a rank -------------------------------------------------------------------------------- */

static int be_run(char **argv)
{
    const char *ranks = getenv("OMPI_COMM_WORLD_SIZE");
    sca_status status = ranks ? sca_ranks_open() : SCA_OK;
    if (status == SCA_OK) status = evaluate(argv[2], atoi(argv[3]), argv[4], argv + 5, NULL);
    if (status != SCA_OK) fprintf(stderr, "%s: %s\n", sca_status_name(status), sca_last_error());
    sca_ranks_close(status != SCA_OK);
    return status != SCA_OK;
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc >= 5 && strcmp(argv[1], "--run") == 0) return be_run(argv);
    CHECK_OK(dir_make(WORK));
    RUN(official_predictions);
    RUN(every_class);
    RUN(killed_run_goes_on);
    RUN(ranks_give_the_same);
    RUN(point_prompts);
    RUN(several_sets);
    RUN(recognition);
    RUN(bad_input);
    RUN(shipped_settings);
    RUN(other_settings_are_not_mixed);
    RUN(failures_spoil_nothing);
    return check_done();
}
