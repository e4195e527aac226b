/* test_cli_golden.c - the program against the official implementation (shared/golden): ids, captions,
 * log-probabilities, scores and masks of whole photos, every kind of prompt, and the tokenizers. */
#define CLI_DIR SCA_BUILD "/cli-golden"
#include "cli.h"

#include "data/data.h"

#include <math.h>

#define GOLDEN SCA_SHARED "/golden"

static bool absent(void)
{
    if (dir_exists(GOLDEN)) return false;
    check_skip("shared: the folder with golden vectors is absent");
    return true;
}

static json_t *open_json(const char *format, const char *model, const char *name)
{
    char path[1000];
    json_t *value = NULL;
    snprintf(path, sizeof path, format, model, name);
    CHECK_OK(json_open(path, &value));
    return value;
}

/* ---- one record against its golden values ------------------------------------------------------------ */

static double overlap(const char *a, const char *b, int width, int height)
{
    mask_runs x = { 0 }, y = { 0 };
    double iou = 0;
    if (mask_runs_parse(a, width, height, &x) == SCA_OK && mask_runs_parse(b, width, height, &y) == SCA_OK)
        iou = mask_area(&x) == 0 && mask_area(&y) == 0 ? 1 : mask_iou(&x, &y, false);
    mask_runs_free(&x);
    mask_runs_free(&y);
    return iou;
}

static void check_mask(const char *what, const json_t *record, const json_t *golden)
{
    const json_t *iou = json_object_get(record, "iou"), *expected = json_object_get(golden, "iou");
    size_t best = (size_t)json_integer_value(json_object_get(golden, "best"));
    for (size_t i = 0; i < 3; i++) {
        double found = json_number_value(json_array_get(iou, i)),
               right = json_number_value(json_array_get(expected, i));
        CHECKF(fabs(found - right) <= 1e-4, "%s: score %zu is %g, expected %g", what, i, found, right);
    }
    const json_t *mask = json_object_get(record, "mask"), *masks = json_object_get(golden, "masks");
    const json_t *right = json_array_get(masks, best);
    int height = (int)json_integer_value(json_array_get(json_object_get(right, "size"), 0));
    int width = (int)json_integer_value(json_array_get(json_object_get(right, "size"), 1));
    CHECKF(json_equal(json_object_get(mask, "size"), json_object_get(right, "size")), "%s: size of the mask", what);
    const char *found_counts = json_string_value(json_object_get(mask, "counts"));
    const char *right_counts = json_string_value(json_object_get(right, "counts"));
    double same = found_counts && right_counts ? overlap(found_counts, right_counts, width, height) : 0;
    CHECKF(same >= 0.999, "%s: intersection over union with the golden mask %g", what, same);
    const json_t *box = json_object_get(record, "box"), *right_box = json_object_get(golden, "best_box_xyxy");
    if (same == 1 && right_box) CHECKF(json_equal(box, right_box), "%s: box of the mask", what);
}

static void check_text(const char *what, const json_t *record, const json_t *golden)
{
    char *found = json_dumps(json_object_get(record, "tokens"), 0),
         *right = json_dumps(json_object_get(golden, "tokens"), 0);
    CHECKF(found && right && strcmp(found, right) == 0, "%s: tokens %s, expected %s", what, found, right);
    sca_free(found);
    sca_free(right);
    const char *text = json_string_value(json_object_get(record, "caption"));
    const char *right_text = json_string_value(json_object_get(golden, "text"));
    CHECKF(text && right_text && strcmp(text, right_text) == 0, "%s: '%s', expected '%s'", what, text, right_text);
    double logprob = json_number_value(json_object_get(record, "logprob"));
    double right_logprob = json_number_value(json_object_get(golden, "logprob"));
    CHECKF(fabs(logprob - right_logprob) <= 1e-3, "%s: log-probability %g, expected %g", what, logprob,
           right_logprob);
}

/* ---- photos with their boxes ------------------------------------------------------------------------- */

static void put_box(str *line, const json_t *box)
{
    for (size_t i = 0; i < 4; i++) {
        str_put(line, i ? "," : " --box ");
        json_put_real(line, json_number_value(json_array_get(box, i)));
    }
}

/* SCA_TEST_DEVICE sends the photos to another device than cpu (tools/gpu_check.sh). */
static const char *device = "cpu";

static const char *device_name(void)
{
    const char *other = getenv("SCA_TEST_DEVICE");
    return other && *other ? other : device;
}

static void check_photo(const char *model, const char *model_dir, const char *photo, int beams)
{
    json_t *golden = open_json(GOLDEN "/forward/%s/%s.json", model, photo);
    const json_t *boxes = json_object_get(golden, "prompt_boxes_xyxy"), *masks = json_object_get(golden, "masks");
    const json_t *texts = json_object_get(golden, beams == 1 ? "greedy" : "beam3");
    const char *image = json_string_value(json_object_get(golden, "image"));
    if (!image) return;
    str line = { 0 };
    str_printf(&line, "caption " SCA_SHARED "/data/%s --model %s --beams %d --format json --device %s", image,
               model_dir, beams, device_name());
    for (size_t i = 0; i < json_array_size(boxes); i++) put_box(&line, json_array_get(boxes, i));
    json_t *records = cli_json(str_text(&line));
    CHECKF(json_array_size(records) == json_array_size(boxes), "%s: %zu records", str_text(&line),
           json_array_size(records));
    for (size_t i = 0; i < json_array_size(records); i++) {
        char what[200];
        snprintf(what, sizeof what, "%s, photo %s, %d beams, device %s, region %zu", model_dir, photo, beams,
                 device_name(), i);
        const json_t *record = json_array_get(records, i);
        check_mask(what, record, json_array_get(masks, i));
        check_text(what, record, json_array_get(texts, i));
    }
    json_decref(records);
    json_decref(golden);
    str_free(&line);
}

static void photos(void)
{
    static const struct {
        const char *model, *dir, *photo;
        int beams;
    } rows[] = {
        { "gpt2-tiny", GOLDEN "/models/gpt2-tiny", "9", 1 },
        { "gpt2-tiny", GOLDEN "/models/gpt2-tiny", "9", 3 },
        { "gpt2-tiny", GOLDEN "/models/gpt2-tiny", "2299", 1 },
        { "gpt2-tiny", GOLDEN "/models/gpt2-tiny", "11813", 3 },
        { "gpt2-tiny", GOLDEN "/models/gpt2-tiny-bin", "11813", 1 },
        { "gpt2-tiny", GOLDEN "/models/gpt2-tiny-legacy", "11813", 1 },
        { "llama-tiny", GOLDEN "/models/llama-tiny", "9", 1 },
        { "llama-tiny", GOLDEN "/models/llama-tiny", "9", 3 },
        { "llama-tiny", GOLDEN "/models/llama-tiny", "11813", 1 },
        { "llama-tiny", GOLDEN "/models/llama-tiny", "11813", 3 },
        { "gpt2-tiny", CLI_MODEL, "2299", 3 },
        { "gpt2-wide", GOLDEN "/models/gpt2-wide", "11813", 3 },
    };
    if (absent()) return;
    for (size_t i = 0; i < LENGTH(rows); i++) {
        bool wide = strcmp(rows[i].model, "gpt2-wide") == 0; /* minutes on simt */
        if (wide && strcmp(device_name(), "simt") == 0) continue;
        check_photo(rows[i].model, rows[i].dir, rows[i].photo, rows[i].beams);
    }
}

/* Of three photos, the first goes op by op, the work of the second is kept, the third (the first again) is that work
 * started as a whole: with nothing left of the second in it. "check" also holds what is kept to what is done anew. */
static void repeated_work_is_the_same(void)
{
#ifdef HAVE_SIMT
    if (absent()) return;
#ifndef NDEBUG
    check_skip("slow: photos on simt, in the release build only");
    return;
#endif
    static const char *const modes[] = { "on", "check" };
    const char *first = SCA_SHARED "/data/vg-mini/VG_100K/11813.jpg",
               *second = SCA_SHARED "/data/vg-mini/VG_100K/9.jpg";
    for (size_t m = 0; m < LENGTH(modes); m++) {
        str line = { 0 };
        str_printf(&line,
                   "caption %s %s %s --model " GOLDEN
                   "/models/gpt2-tiny --device simt --variants graphs=%s --format json --box 0,386,168,466",
                   first, second, first, modes[m]);
        json_t *records = cli_json(str_text(&line)), *tokens[3];
        CHECKF(json_array_size(records) == 3, "%s: %zu records", modes[m], json_array_size(records));
        for (size_t i = 0; i < 3; i++) tokens[i] = json_object_get(json_array_get(records, i), "tokens");
        CHECKF(json_equal(tokens[0], tokens[2]), "graphs=%s: other tokens", modes[m]);
        CHECKF(!json_equal(tokens[0], tokens[1]), "graphs=%s: what a photo shows does not matter", modes[m]);
        json_decref(records);
        str_free(&line);
    }
#else
    check_skip("simt: not built in");
#endif
}

#ifdef HAVE_SIMT
static void expect_failure(const char *more, const char *message)
{
    str line = { 0 };
    str_printf(&line,
               "caption " SCA_SHARED "/data/vg-mini/VG_100K/11813.jpg --model " GOLDEN
               "/models/gpt2-tiny --device simt --out " CLI_DIR "/failed.json %s",
               more);
    cli_expect(str_text(&line), 1, "", message);
    CHECKF(!file_exists(CLI_DIR "/failed.json") && !cli_leftovers(CLI_DIR), "%s: nothing is left", more);
    str_free(&line);
}
#endif

/* A GPU without room, and one that fails: what for, what to change, which kernel; and no half-written results. */
static void gpu_failures_say_why(void)
{
#ifdef HAVE_SIMT
    if (absent()) return;
    expect_failure("--variants memory=4096", "it was for the weights, ");
    expect_failure("--variants memory=4096", "of 0.0 MiB are free");
    expect_failure("--variants memory=4096", "--precision bf16");
    expect_failure("--variants memory=2900000", "it was for the activations of the image encoder, ");
    expect_failure("--variants memory=2900000", "a smaller image encoder");
    expect_failure(
        "--variants memory=8000000 --beams 64 --box 1,1,90,90 --box 5,5,99,99 --box 1,1,9,9 --box 3,3,50,50",
        "MiB) of 256 captions");
    expect_failure("--variants fail=norm_held", "kernel (norm_held<");
#else
    check_skip("simt: not built in");
#endif
}

/* The GPU's kernels, on the host; half a minute for a photo. */
static void photos_on_simt(void)
{
#ifdef HAVE_SIMT
    if (absent()) return;
    device = "simt";
    check_photo("llama-tiny", GOLDEN "/models/llama-tiny", "11813", 1);
#ifdef NDEBUG /* one is enough under the sanitizers */
    check_photo("gpt2-tiny", GOLDEN "/models/gpt2-tiny", "9", 3);
#endif
    device = "cpu";
#else
    check_skip("simt: not built in");
#endif
}

/* ---- other prompts ----------------------------------------------------------------------------------- */

/* Region r of a case: lists of boxes, points and labels hold one entry per region. */
static void put_prompt(str *line, const json_t *prompt, size_t r, const char *model)
{
    const json_t *box = json_array_get(json_object_get(prompt, "boxes"), r);
    const json_t *points = json_array_get(json_object_get(prompt, "points"), r);
    const json_t *labels = json_array_get(json_object_get(prompt, "labels"), r);
    str_put(line, " --next");
    if (box) put_box(line, box);
    for (size_t i = 0; i < json_array_size(points); i++) {
        str_put(line, " --point ");
        json_put_real(line, json_number_value(json_array_get(json_array_get(points, i), 0)));
        str_putc(line, ',');
        json_put_real(line, json_number_value(json_array_get(json_array_get(points, i), 1)));
        str_printf(line, ",%d", (int)json_integer_value(json_array_get(labels, i)));
    }
    if (json_object_get(prompt, "mask"))
        str_printf(line, " --mask " GOLDEN "/forward/%s/prompts.safetensors", model);
}

static void check_prompts(const char *model, const char *image, const char *name, const json_t *one, int beams)
{
    const json_t *prompt = json_object_get(one, "prompt"), *results = json_object_get(one, "results");
    const json_t *texts = json_object_get(one, beams == 1 ? "greedy" : "beam3");
    str line = { 0 };
    str_printf(&line, "%s " SCA_SHARED "/data/%s --model " GOLDEN "/models/%s --format json",
               texts ? "caption" : "segment", image, model);
    if (texts) str_printf(&line, " --beams %d", beams);
    for (size_t r = 0; r < json_array_size(results); r++) put_prompt(&line, prompt, r, model);
    json_t *records = cli_json(str_text(&line));
    CHECKF(json_array_size(records) == json_array_size(results), "%s: %zu records", name, json_array_size(records));
    for (size_t r = 0; r < json_array_size(records); r++) {
        char what[200];
        snprintf(what, sizeof what, "%s, %s, %d beams, region %zu", model, name, beams, r);
        check_mask(what, json_array_get(records, r), json_array_get(results, r));
        if (texts) check_text(what, json_array_get(records, r), json_array_get(texts, r));
    }
    json_decref(records);
    str_free(&line);
}

static void prompts(void)
{
    static const char *const models[] = { "gpt2-tiny", "llama-tiny" };
    if (absent()) return;
    for (size_t i = 0; i < LENGTH(models); i++) {
        json_t *golden = open_json(GOLDEN "/forward/%s/%s.json", models[i], "prompts"), *one;
        const char *image = json_string_value(json_object_get(golden, "image")), *name;
        json_object_foreach(json_object_get(golden, "cases"), name, one)
        {
            if (strcmp(name, "none") == 0) continue; /* without a prompt the program takes the whole photo */
            check_prompts(models[i], image, name, one, i == 0 ? 3 : 1);
        }
        json_decref(golden);
    }
}

/* ---- tokenizers -------------------------------------------------------------------------------------- */

/* Runs `sca tokenize OPTIONS` on one line per item of `list` and compares `key` of each answer with `expected` of
 * the item. */
static void check_tokens(const char *dir, const char *options, const json_t *list, const char *give,
                         const char *take, const char *key, const char *expected)
{
    str input = { 0 };
    size_t i;
    json_t *item;
    json_array_foreach((json_t *)(uintptr_t)list, i, item)
    {
        char *value = json_dumps(json_object_get(item, take), JSON_ENCODE_ANY | JSON_COMPACT);
        str_printf(&input, "{\"%s\": %s}\n", give, value ? value : "null");
        sca_free(value);
    }
    char line[1000];
    CHECK_OK(file_write(CLI_DIR "/golden.jsonl", str_text(&input), input.bytes));
    str_free(&input);
    cli_stdin = CLI_DIR "/golden.jsonl";
    snprintf(line, sizeof line, "tokenize --model " GOLDEN "/%s %s", dir, options);
    cli_result r = cli_run(line);
    CHECKF(r.code == 0, "%s: exit status %d, %s", line, r.code, r.err);
    const char *at = r.out;
    json_array_foreach((json_t *)(uintptr_t)list, i, item)
    {
        size_t bytes = strcspn(at, "\n");
        json_t *answer = NULL;
        if (json_parse(at, bytes, "output", &answer) != SCA_OK) break;
        const json_t *found = json_object_get(answer, key), *right = json_object_get(item, expected);
        CHECKF(json_equal(found, right), "%s, line %zu: %.*s", line, i + 1, (int)bytes, at);
        json_decref(answer);
        at += bytes + (at[bytes] == '\n');
    }
    CHECKF(i == json_array_size(list) && *at == 0, "%s: %zu answers to %zu lines", line, i, json_array_size(list));
    cli_free(&r);
}

static void tokenizers(void)
{
    static const char *const names[] = { "gpt2-tiny", "llama-tiny", "spm-nfkc" };
    if (absent()) return;
    for (size_t i = 0; i < LENGTH(names); i++) {
        json_t *golden = open_json(GOLDEN "/%s/%s.json", "tokenizer", names[i]);
        const char *dir = json_string_value(json_object_get(golden, "tokenizer"));
        const json_t *strings = json_object_get(golden, "strings"), *random = json_object_get(golden, "random_ids");
        check_tokens(dir, "", strings, "text", "text", "ids", "ids");
        check_tokens(dir, "", strings, "text", "text", "decoded", "decoded_with_special");
        check_tokens(dir, "--train", strings, "text", "text", "ids", "train_ids");
        check_tokens(dir, "--decode", random, "ids", "ids", "text", "decoded");
        json_decref(golden);
    }
}

int main(int argc, char **argv)
{
    cli_start();
    RUN(photos);
    RUN(gpu_failures_say_why);
    RUN(repeated_work_is_the_same);
    RUN(photos_on_simt);
    RUN(prompts);
    RUN(tokenizers);
    return check_done();
}
