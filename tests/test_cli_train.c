/* test_cli_train.c - sca train and sca plot as a user's shell runs them: several ranks, signals, kills, full disks. */
#define CLI_DIR SCA_BUILD "/cli-train-test"
#include "cli.h"

#include "sets.h"
#include "train/train.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/resource.h>
#include <time.h>

#define GOLDEN SCA_SHARED "/golden"
#ifdef __SANITIZE_ADDRESS__
enum { SLOW = 1 }; /* the sanitizers look at the same code in fewer steps */
#else
enum { SLOW = 0 };
#endif

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void sleep_s(double s)
{
    struct timespec t = { (time_t)s, (long)((s - floor(s)) * 1e9) };
    nanosleep(&t, NULL);
}

/* ---- runs ------------------------------------------------------------------------------------------------------ */

static const char *in_dir(const char *name) { return made_path(CLI_DIR, name); }

/* tiny.yaml, smaller, into CLI_DIR/name: the words of the command line behind "sca". */
static void tiny_line(char line[4096], const char *name, const char *more)
{
    snprintf(line, 4096,
             "train %s/configs/tiny.yaml model.path=%s data.train.0.annotations=count=6 data.regions_per_image=2 "
             "train.steps=8 train.warmup_steps=2 train.batch_images=1 train.save_every=3 train.eval_every=0 "
             "train.output=%s/%s %s",
             SCA_SOURCE, CLI_MODEL, CLI_DIR, name, more);
}

static cli_result tiny_run(const char *name, const char *more)
{
    char line[4096];
    tiny_line(line, name, more);
    return cli_run(line);
}

static pid_t start(const char *line)
{
    char copy[8192], *argv[256] = { (char *)(uintptr_t) "sca" };
    int n = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word && n < 255; word = strtok(NULL, " ")) argv[n++] = word;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) cli_child(CLI_DIR "/stdout", CLI_DIR "/stderr", argv);
    return child;
}

/* Exit status, or 1000 + signal. */
static int finish(pid_t child)
{
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static bool same_file(const char *a, const char *b)
{
    file_view va = { 0 }, vb = { 0 };
    bool same = file_map(a, &va) == SCA_OK && file_map(b, &vb) == SCA_OK && va.bytes == vb.bytes &&
                memcmp(va.data, vb.data, va.bytes) == 0;
    file_unmap(&va);
    file_unmap(&vb);
    return CHECKF(same, "%s and %s differ", a, b);
}

/* Weights, moments and counters of two finished runs. */
static void same_ends(const char *run_a, const char *run_b)
{
    static const char *const files[] = { "model.safetensors", "trainer.safetensors", "trainer.json" };
    for (size_t i = 0; i < LENGTH(files); i++) {
        char a[512], b[512];
        snprintf(a, sizeof a, "%s/%s/last/%s", CLI_DIR, run_a, files[i]);
        snprintf(b, sizeof b, "%s/%s/last/%s", CLI_DIR, run_b, files[i]);
        same_file(a, b);
    }
}

typedef struct line_of { /* a line of log.jsonl */
    double loss, lr, grad_norm;
    int64_t step, images, regions, tokens;
} line_of;

/* Reads the log, and checks that a line has these members and no other. */
static int read_log(const char *name, line_of *out, int most)
{
    static const char *const keys[] = { "step",    "loss",   "lr",      "grad_norm",   "images",
                                        "regions", "tokens", "seconds", "data_seconds" };
    char path[512], *text = NULL;
    size_t bytes = 0;
    int n = 0;
    snprintf(path, sizeof path, "%s/%s/log.jsonl", CLI_DIR, name);
    CHECK_OK(file_read(path, 1 << 24, &text, &bytes));
    for (char *line = text ? strtok(text, "\n") : NULL; line && n < most; line = strtok(NULL, "\n"), n++) {
        json_t *o = NULL;
        CHECK_OK(json_parse(line, strlen(line), path, &o));
        CHECKF(json_object_size(o) == LENGTH(keys), "%s", line);
        for (size_t i = 0; i < LENGTH(keys); i++) CHECKF(json_is_number(json_object_get(o, keys[i])), "%s", line);
        out[n] = (line_of){ .loss = json_number_value(json_object_get(o, "loss")),
                            .lr = json_number_value(json_object_get(o, "lr")),
                            .grad_norm = json_number_value(json_object_get(o, "grad_norm")),
                            .step = json_integer_value(json_object_get(o, "step")),
                            .images = json_integer_value(json_object_get(o, "images")),
                            .regions = json_integer_value(json_object_get(o, "regions")),
                            .tokens = json_integer_value(json_object_get(o, "tokens")) };
        json_decref(o);
    }
    mem_free(text);
    return n;
}

/* ---- one process ------------------------------------------------------------------------------------------------- */

static void usage(void)
{
    cli_expect("train", 2, "", "configuration file");
    cli_expect("plot", 2, "", "folder of a training run");
    cli_expect("train --help", 0, "train.warmup_steps", "");
    cli_expect("plot --help", 0, "--to", "");
    cli_expect("train " CLI_DIR "/nothing.yaml", 1, "", "nothing.yaml");
    cli_expect("train " SCA_SOURCE "/configs/tiny.yaml train.output=", 1, "", "train.output");
    cli_expect("train " SCA_SOURCE "/configs/tiny.yaml train.stepz=1", 1, "", "train.steps");
    cli_expect("plot " CLI_DIR "/nothing", 1, "", "nothing");
}

static bool page_has(const char *path, const char *part)
{
    char *text = NULL;
    size_t bytes;
    CHECK_OK(file_read(path, 8 << 20, &text, &bytes));
    bool has = CHECKF(text && strstr(text, part), "%s does not hold '%s'", path, part);
    mem_free(text);
    return has;
}

/* tiny.yaml itself, with evaluations: what a run leaves behind. */
static void the_tiny_run(void)
{
    static line_of log[40];
    char best[64] = "", line[4096];
    json_t *first = NULL;
    CHECK_OK(dir_remove(in_dir("tiny")));
    snprintf(line, sizeof line, "train %s/configs/tiny.yaml model.path=%s train.output=%s/tiny", SCA_SOURCE,
             CLI_MODEL, CLI_DIR);
    cli_result r = cli_run(line);
    CHECKF(r.code == 0 && strstr(r.out, "done after 20 steps") && strstr(r.err, "step 20/20"), "%d: %s%s", r.code,
           r.out, r.err);
    const char *absent = strstr(r.err, "SPICE is left out"); /* said once, though there are three evaluations */
    CHECKF(absent && !strstr(absent + 1, "SPICE is left out"), "%s", r.err);
    cli_free(&r);
    CHECK(read_log("tiny", log, 40) == 20);
    CHECK(log[0].step == 1 && log[0].lr == 0 && log[5].lr == 1e-3 && log[19].step == 20);
    CHECKF(log[19].loss < log[0].loss - 0.1, "from %g to %g", log[0].loss, log[19].loss);
    CHECK(log[0].images == 2 && log[0].regions > 0 && log[0].regions <= 8 && log[0].tokens > log[0].regions);
    printf("tiny: loss %.4f to %.4f\n", log[0].loss, log[19].loss);
    CHECK(dir_exists(in_dir("tiny/checkpoint-10")) && dir_exists(in_dir("tiny/last")));
    CHECK(readlink(in_dir("tiny/best"), best, sizeof best - 1) > 0 && text_starts(best, "checkpoint-"));
    CHECK_OK(json_open(in_dir("tiny/eval/step-0/scores.json"), &first));
    json_decref(first);
    char *evals = cli_read(in_dir("tiny/eval.jsonl"));
    CHECKF(strstr(evals, "{\"step\":0,\"loss\":") && strstr(evals, "\n{\"step\":10,") &&
               strstr(evals, "\n{\"step\":20,"),
           "%s", evals);
    mem_free(evals);
    page_has(in_dir("tiny/report.html"), "<svg");
    page_has(in_dir("tiny/config.yaml"), "warmup_steps: 5");
    CHECK(!cli_leftovers(in_dir("tiny")) && !cli_leftovers(in_dir("tiny/checkpoint-20")));
    snprintf(line, sizeof line, "info --model %s/tiny/last", CLI_DIR); /* a model like any other */
    cli_expect(line, 0, "ScaMultitaskV2Model", "");
}

/* Weak supervision by category names, then descriptions: real files, end to end. */
static void coco_then_genome(void)
{
    static line_of log[16];
    char words[4096];
    const char *data = SCA_SHARED "/data";
    if (!dir_exists(SCA_SHARED "/data/coco-mini")) {
        check_skip("shared: the data packs are absent");
        return;
    }
    CHECK_OK(dir_remove(in_dir("coco")));
    CHECK_OK(dir_remove(in_dir("genome")));
    snprintf(words, sizeof words,
             "train.steps=10 train.batch_images=2 data.regions_per_image=4 data.augment=lsj data.train.0.kind=coco "
             "data.train.0.annotations=%s/coco-mini/annotations/instances_train2017.json "
             "data.train.0.images=%s/coco-mini data.train.0.split=",
             data, data);
    cli_result r = tiny_run("coco", words);
    CHECKF(r.code == 0, "%d: %s", r.code, r.err);
    cli_free(&r);
    CHECK(read_log("coco", log, 16) == 10);
    CHECKF(log[8].loss + log[9].loss < log[0].loss + log[1].loss, "from %g to %g", log[0].loss, log[9].loss);
    snprintf(
        words, sizeof words,
        "train.steps=10 train.batch_images=2 data.regions_per_image=4 model.path=%s/coco/last "
        "data.train.0.kind=visual_genome data.train.0.annotations=%s/vg-mini/annotations "
        "data.train.0.images=%s/vg-mini train.eval_every=10 train.eval_images=2 data.eval.0.kind=visual_genome "
        "data.eval.0.annotations=%s/vg-mini/annotations data.eval.0.images=%s/vg-mini data.eval.0.split=test",
        CLI_DIR, data, data, data, data);
    r = tiny_run("genome", words);
    CHECKF(r.code == 0, "%d: %s", r.code, r.err);
    cli_free(&r);
    CHECK(read_log("genome", log, 16) == 10);
    page_has(in_dir("genome/report.html"), "data:image/jpeg");
}

static void plots(void)
{
    char line[2048];
    snprintf(line, sizeof line, "plot %s/tiny", CLI_DIR);
    cli_expect(line, 0, "", "");
    page_has(in_dir("tiny/plot.svg"), "</svg>");
    snprintf(line, sizeof line, "plot %s/tiny %s/tiny --to %s/two.png", CLI_DIR, CLI_DIR, CLI_DIR);
    cli_expect(line, 0, "", "");
    sca_image picture = { 0 };
    CHECK_OK(sca_image_read(in_dir("two.png"), &picture));
    size_t dark = 0;
    for (size_t i = 0; picture.rgb && i < (size_t)picture.width * (size_t)picture.height; i++)
        dark += picture.rgb[3 * i + 1] < 128;
    CHECKF(picture.width == 920 && picture.height > 800 && dark > 3000, "%d x %d, %zu dark", picture.width,
           picture.height, dark);
    sca_image_free(&picture);
    snprintf(line, sizeof line, "plot %s/tiny --to %s/two.jpg", CLI_DIR, CLI_DIR);
    cli_expect(line, 1, "", ".svg or .png");
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

/* The run that nothing happened to: "whole". */
static void whole_run(void)
{
    if (dir_exists(in_dir("whole/checkpoint-8"))) return;
    CHECK_OK(dir_remove(in_dir("whole")));
    cli_result r = tiny_run("whole", "");
    CHECKF(r.code == 0, "%d: %s", r.code, r.err);
    cli_free(&r);
}

static void wait_for_line(const char *log, double most)
{
    for (double began = now_s(); now_s() - began < most; sleep_s(0.005)) {
        file_view v = { 0 };
        bool found = file_exists(log) && file_map(log, &v) == SCA_OK && v.bytes > 0;
        file_unmap(&v);
        if (found) return;
    }
}

static void ends_at(int number, int code)
{
    char line[4096];
    CHECK_OK(dir_remove(in_dir("signal")));
    tiny_line(line, "signal", "train.steps=100000");
    pid_t child = start(line);
    wait_for_line(in_dir("signal/log.jsonl"), 60);
    kill(child, number);
    double began = now_s();
    int found = finish(child);
    CHECKF(found == code && now_s() - began < 10, "signal %d: %d after %.1f s", number, found, now_s() - began);
    CHECK(dir_exists(in_dir("signal/last")) && !cli_leftovers(in_dir("signal")));
}

static void signals_save(void)
{
    ends_at(SIGTERM, 143);
    ends_at(SIGINT, 130);
}

/* Killed at twenty instants, the run ends as if nothing had happened. */
static void kills_are_survived(void)
{
    char line[4096];
    unsigned seed = 12345;
    int code;
    whole_run();
    CHECK_OK(dir_remove(in_dir("killed")));
    tiny_line(line, "killed", "train.save_every=1");
    double began = now_s();
    pid_t child = start(line);
    finish(child);
    double length = now_s() - began; /* of a run that is left alone */
    CHECK_OK(dir_remove(in_dir("killed")));
    for (int i = 0; i < (SLOW ? 2 : 20); i++) {
        seed = seed * 1103515245u + 12345u;
        child = start(line);
        sleep_s(length * (double)(seed >> 16 & 1023) / 1024);
        kill(child, SIGKILL);
        code = finish(child);
        CHECKF(code == 0 || code == 1000 + SIGKILL, "kill %d: %d", i, code);
        if (code == 0) CHECK_OK(dir_remove(in_dir("killed"))); /* it was done: from the beginning */
    }
    CHECK(finish(start(line)) == 0);
    same_ends("whole", "killed");
    CHECK(!cli_leftovers(in_dir("killed")));
    static line_of a[16], b[16];
    CHECK(read_log("whole", a, 16) == 8 && read_log("killed", b, 16) == 8);
    for (int i = 0; i < 8; i++) CHECKF(a[i].loss == b[i].loss && a[i].step == i + 1, "step %d", i + 1);
}

/* A disk without room for a checkpoint: the one before stays, and goes on. */
static void full_disk(void)
{
    char line[4096];
    struct rlimit before, small;
    CHECK_OK(dir_remove(in_dir("full")));
    whole_run();
    cli_result r = tiny_run("full", "train.steps=8 train.save_every=3 train.log_every=1");
    cli_free(&r);
    CHECK_OK(dir_remove(in_dir("full/checkpoint-8")));
    CHECK_OK(dir_remove(in_dir("full/checkpoint-6")));
    getrlimit(RLIMIT_FSIZE, &before);
    small = (struct rlimit){ 100000, before.rlim_max };
    setrlimit(RLIMIT_FSIZE, &small);
    tiny_line(line, "full", "");
    r = cli_run(line);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECKF(r.code == 1 && strstr(r.err, "cannot write"), "%d: %s", r.code, r.err);
    cli_free(&r);
    CHECK(dir_exists(in_dir("full/checkpoint-3")) && !dir_exists(in_dir("full/checkpoint-6")) &&
          !cli_leftovers(in_dir("full")));
    r = tiny_run("full", "");
    CHECKF(r.code == 0, "%d: %s", r.code, r.err);
    cli_free(&r);
    same_ends("whole", "full");
}

static void one_writer_at_a_time(void)
{
    char line[4096];
    CHECK_OK(dir_remove(in_dir("busy")));
    tiny_line(line, "busy", "train.steps=100000");
    pid_t child = start(line);
    wait_for_line(in_dir("busy/log.jsonl"), 60);
    cli_result r = tiny_run("busy", "train.steps=100000");
    CHECKF(r.code == 1 && strstr(r.err, "another process"), "%d: %s", r.code, r.err);
    cli_free(&r);
    kill(child, SIGTERM);
    CHECK(finish(child) == 143);
}

/* ---- bad data ---------------------------------------------------------------------------------------------------- */

static void bad_records_are_listed(void)
{
    static const char file[] =
        "{\"images\": [{\"id\": 1, \"file_name\": \"photo.jpg\", \"width\": 1, \"height\": 1},"
        "{\"id\": 2, \"file_name\": \"gone.jpg\", \"width\": 1, \"height\": 1}],"
        "\"annotations\": [{\"id\": 5, \"image_id\": 1, \"category_id\": 1, \"bbox\": [10, 10, 200, 100]},"
        "{\"id\": 6, \"image_id\": 1, \"category_id\": 1, \"bbox\": [10, 10, -3, 100]},"
        "{\"id\": 7, \"image_id\": 2, \"category_id\": 1, \"bbox\": [10, 10, 20, 100]}],"
        "\"categories\": [{\"id\": 1, \"name\": \"dog\"}]}";
    char more[2048];
    CHECK_OK(file_write(in_dir("bad.json"), file, strlen(file)));
    CHECK_OK(dir_remove(in_dir("bad")));
    snprintf(more, sizeof more,
             "data.train.0.kind=coco data.train.0.annotations=%s/bad.json data.train.0.images=%s/docs/demo "
             "data.train.0.split= data.max_bad=0.9 train.steps=2",
             CLI_DIR, SCA_SOURCE);
    cli_result r = tiny_run("bad", more);
    CHECKF(r.code == 0, "%d: %s", r.code, r.err);
    cli_free(&r);
    char *skipped = cli_read(in_dir("bad/skipped.jsonl"));
    CHECKF(strstr(skipped, "bad.json") && strstr(skipped, "\"id\":6") && strstr(skipped, "gone.jpg"), "%s",
           skipped);
    mem_free(skipped);
    CHECK_OK(dir_remove(in_dir("bad")));
    snprintf(more + strlen(more), sizeof more - strlen(more), " data.max_bad=0.01");
    r = tiny_run("bad", more);
    CHECKF(r.code == 1 && strstr(r.err, "max_bad"), "%d: %s", r.code, r.err);
    cli_free(&r);
}

/* ---- ranks ------------------------------------------------------------------------------------------------------- */

static bool have_mpi(void)
{
    if (!comm_built() || system("command -v mpirun >/dev/null 2>&1") != 0) {
        check_skip("mpi: not built in, or no mpirun");
        return false;
    }
    return true;
}

static const char mpi_words[] =
    "ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
    "OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1";

static int run_ranks(int n, const char *words)
{
    char line[8192];
    snprintf(line, sizeof line, "%s mpirun -n %d %s %s >%s/ranks.txt 2>&1", mpi_words, n, CLI_SCA, words, CLI_DIR);
    int status = system(line);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check_ranks(int n, const char *words)
{
    int code = run_ranks(n, words);
    char *text = cli_read(in_dir("ranks.txt"));
    CHECKF(code == 0, "%d ranks: %d, %s", n, code, text);
    mem_free(text);
}

/* The official two-rank run, followed by two ranks. */
static void official_two_ranks(void)
{
    static line_of log[128];
    const int steps = SLOW ? 4 : 100; /* the first ones, of the warm-up, do not depend on how many follow */
    char words[4096];
    json_t *root = NULL, *o;
    size_t i;
    double worst[2] = { 0 };
    if (!dir_exists(GOLDEN)) {
        check_skip("shared: golden vectors are absent");
        return;
    }
    if (!have_mpi()) return;
    CHECK_OK(json_open(GOLDEN "/train/gpt2-tiny/adamw_2rank.json", &root));
    CHECK_OK(file_write(in_dir("none.yaml"), "run: {device: cpu}\n", 19));
    CHECK_OK(dir_remove(in_dir("two")));
    snprintf(
        words, sizeof words,
        "train %s/none.yaml model.path=%s/models/gpt2-tiny-fresh 'data.train=[{kind: visual_genome, annotations: "
        "%s/data/vg-mini/annotations, images: %s/data/vg-mini, split: train}]' data.shuffle=false "
        "data.regions_per_image=8 train.steps=%d train.warmup_steps=20 train.lr=1.0e-3 train.lm_dropout=false "
        "train.log_every=1 train.save_every=1000 --threads 1 train.output=%s/two",
        CLI_DIR, GOLDEN, SCA_SHARED, SCA_SHARED, steps, CLI_DIR);
    check_ranks(2, words);
    CHECK(read_log("two", log, 128) == steps);
    json_array_foreach(json_object_get(root, "steps"), i, o)
    {
        if (i == (size_t)steps) break;
        double loss = json_number_value(json_object_get(o, "loss"));
        double grad_norm = json_number_value(json_object_get(o, "grad_norm"));
        worst[0] = fmax(worst[0], fabs(log[i].loss - loss) / loss);
        worst[1] = fmax(worst[1], fabs(log[i].grad_norm - grad_norm) / grad_norm);
    }
    CHECKF(worst[0] < 1e-4 && worst[1] < 1e-3, "loss %g, gradient norm %g", worst[0], worst[1]);
    printf("two ranks: loss within %.2g, gradient norm within %.2g\n", worst[0], worst[1]);
    json_decref(root);
}

/* The same batches shared out otherwise; the second half of a run on another number of ranks. */
static void ranks_agree(void)
{
    static line_of one[16], other[16];
    char words[4096];
    if (!have_mpi()) return;
    CHECK_OK(dir_remove(in_dir("r1")));
    tiny_line(words, "r1", "train.accumulate=4 train.steps=4 --threads 1");
    CHECK(finish(start(words)) == 0);
    CHECK(read_log("r1", one, 16) == 4);
    for (int n = 2; n <= 4; n *= 2) {
        char more[128], name[16];
        snprintf(name, sizeof name, "r%d", n);
        snprintf(more, sizeof more, "train.accumulate=%d train.steps=3 --threads 1", 4 / n);
        CHECK_OK(dir_remove(in_dir(name)));
        tiny_line(words, name, more);
        check_ranks(n, words);
        CHECK(read_log(name, other, 16) == 3);
        tiny_line(words, name, "train.accumulate=4 train.steps=4 --threads 1"); /* the last step alone */
        CHECK(finish(start(words)) == 0);
        CHECK(read_log(name, other, 16) == 4);
        for (int i = 0; i < 4; i++)
            CHECKF(fabs(one[i].loss - other[i].loss) < 1e-5 * one[i].loss &&
                       fabs(one[i].grad_norm - other[i].grad_norm) < 1e-4 * one[i].grad_norm &&
                       one[i].tokens == other[i].tokens && one[i].images == 4,
                   "%d ranks, step %d: loss %.9g and %.9g", n, i + 1, one[i].loss, other[i].loss);
    }
}

/* A process of sca, not of mpirun, that trains into CLI_DIR/name; 0: none. */
/* A store that two ranks prepare is the one of one rank, and training from it is training from the set itself. */
static void stores_train_alike(void)
{
    static line_of log[2][16];
    char words[2048], more[1024];
    if (!have_mpi()) return;
    for (int n = 1; n <= 2; n++) {
        snprintf(words, sizeof words,
                 "prepare synthetic --annotations count=6 --embeddings f32 --model %s --to %s/%d.h5", CLI_MODEL,
                 CLI_DIR, n);
        check_ranks(n, words);
    }
    CHECK(same_file(in_dir("1.h5"), in_dir("2.h5")));
    CHECK_OK(dir_remove(in_dir("raw")));
    CHECK_OK(dir_remove(in_dir("store")));
    snprintf(more, sizeof more, "data.train.0.kind=store data.train.0.annotations=%s/2.h5", CLI_DIR);
    cli_result raw = tiny_run("raw", ""), stored = tiny_run("store", more);
    CHECKF(raw.code == 0 && stored.code == 0, "%d, %d: %s%s", raw.code, stored.code, raw.err, stored.err);
    cli_free(&raw);
    cli_free(&stored);
    int lines = read_log("raw", log[0], 16);
    CHECK(lines == 8 && read_log("store", log[1], 16) == lines);
    CHECK(memcmp(log[0], log[1], sizeof log[0]) == 0);
}

static pid_t find_rank(const char *name)
{
    char path[512], words[8192], output[512];
    pid_t found = 0;
    DIR *d = opendir("/proc");
    snprintf(output, sizeof output, "train.output=%s/%s", CLI_DIR, name);
    for (struct dirent *e; d && (e = readdir(d)) != NULL;) {
        snprintf(path, sizeof path, "/proc/%s/cmdline", e->d_name);
        int fd = e->d_name[0] >= '1' && e->d_name[0] <= '9' ? open(path, O_RDONLY) : -1;
        ssize_t n = fd >= 0 ? read(fd, words, sizeof words - 1) : 0;
        if (fd >= 0) close(fd);
        words[n > 0 ? n : 0] = 0;
        if (strcmp(words, CLI_SCA) == 0 && memmem(words, (size_t)n, output, strlen(output)))
            found = atoi(e->d_name);
    }
    if (d) closedir(d);
    return found;
}

static void lost_rank_is_named(void)
{
    char words[4096], line[8192];
    if (!have_mpi()) return;
    CHECK_OK(dir_remove(in_dir("lost")));
    tiny_line(words, "lost", "train.steps=100000 train.save_every=2 --threads 1");
    snprintf(line, sizeof line, "%s mpirun -n 2 %s %s >%s/ranks.txt 2>&1", mpi_words, CLI_SCA, words, CLI_DIR);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(127);
    }
    for (double began = now_s(); !dir_exists(in_dir("lost/last")) && now_s() - began < 60;) sleep_s(0.02);
    pid_t rank = find_rank("lost");
    if (CHECK(rank > 0)) kill(rank, SIGSTOP);
    double began = now_s();
    int code = finish(child);
    char *text = cli_read(in_dir("ranks.txt"));
    CHECKF(code != 0 && now_s() - began < 60 && strstr(text, "no sign of life came for 25 s from rank"),
           "%d after %.0f s: %s", code, now_s() - began, text);
    CHECK(dir_exists(in_dir("lost/last")));
    mem_free(text);
}

int main(int argc, char **argv)
{
    cli_start();
    RUN(usage);
    RUN(the_tiny_run);
    RUN(coco_then_genome);
    RUN(plots);
    RUN(signals_save);
    RUN(kills_are_survived);
    RUN(full_disk);
    RUN(one_writer_at_a_time);
    RUN(bad_records_are_listed);
    RUN(official_two_ranks);
    RUN(ranks_agree);
    RUN(stores_train_alike);
    RUN(lost_rank_is_named);
    return check_done();
}
