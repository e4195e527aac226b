/* test_cli.c - the program: its contracts (architecture.md 3.18), on the small model of docs/demo. */
#include "cli.h"

#include "data/data.h"

#include <math.h>
#include <signal.h>

#define MODEL " --model " CLI_MODEL
#define CAPTION "caption " CLI_PHOTO MODEL

/* ---- wrong usage ------------------------------------------------------------------------------------- */

static void usage(void)
{
    static const struct {
        const char *line;
        int code;
        const char *out, *err;
    } rows[] = {
        { "", 2, "", "help" },
        { "capton", 2, "", "caption" },
        { "nonsense", 2, "", "unknown command nonsense" },
        { "frobnicate x.json", 2, "", "unknown command frobnicate" },
        { "--frobnicate", 2, "", "--frobnicate" },
        { "--version", 0, "sca 0.1.0\n", "" },
        { "--version more", 2, "", "more" },
        { "help", 0, "caption", "" },
        { "--help", 0, "tokenize", "" },
        { "-h", 0, "tokenize", "" },
        { "help caption", 0, "--box", "" },
        { "help help", 0, "caption", "" },
        { "help nothing", 2, "", "nothing" },
        { "help caption info", 2, "", "info" },
        { "caption --help", 0, "--max-tokens", "" },
        { "segment --help", 0, "--overlay", "" },
        { "export --help", 0, "--trained-only", "" },
        { "info --help", 0, "--plan", "" },
        { "tokenize --help", 0, "--decode", "" },
        { "caption --beams nonsense --help", 0, "--beams", "" },
        { "caption", 2, "", "--model" },
        { "caption x.jpg", 2, "", "--model" },
        { "caption" MODEL, 2, "", "IMAGE" },
        { "caption x.jpg --model", 2, "", "--model" },
        { "caption x.jpg --model --beams 3", 2, "", "--model" },
        { "caption x.jpg --sam random:vit_b", 2, "", "--lm" },
        { "caption x.jpg --lm random:gpt2", 2, "", "--sam" },
        { "caption x.jpg --sam random:vit_b" MODEL, 2, "", "--sam" },
        { CAPTION " --bems 3", 2, "", "--beams" },
        { CAPTION " -x", 2, "", "-x" },
        { CAPTION " --exif=1", 2, "", "--exif" },
        { CAPTION " --beams 0", 2, "", "--beams" },
        { CAPTION " --beams 65", 2, "", "--beams" },
        { CAPTION " --beams three", 2, "", "--beams" },
        { CAPTION " --beams 1e1", 2, "", "--beams" },
        { CAPTION " --beams 99999999999999999999999", 2, "", "--beams" },
        { CAPTION " --beams ''", 2, "", "--beams" },
        { CAPTION " --max-tokens 0", 2, "", "--max-tokens" },
        { CAPTION " --max-tokens -3", 2, "", "--max-tokens" },
        { CAPTION " --temperature nan", 2, "", "--temperature" },
        { CAPTION " --temperature -1", 2, "", "--temperature" },
        { CAPTION " --temperature inf", 2, "", "--temperature" },
        { CAPTION " --top-k -1", 2, "", "--top-k" },
        { CAPTION " --top-p 1.5", 2, "", "--top-p" },
        { CAPTION " --seed x", 2, "", "--seed" },
        { CAPTION " --threads -1", 2, "", "--threads" },
        { CAPTION " --threads 1000000", 2, "", "--threads" },
        { CAPTION " --device toaster", 2, "", "--device" },
        { CAPTION " --precision f64", 2, "", "--precision" },
        { CAPTION " --max-pixels 0", 2, "", "--max-pixels" },
        { CAPTION " --format xml", 2, "", "--format" },
        { CAPTION " --box", 2, "", "--box" },
        { CAPTION " --box 1,2,3", 2, "", "--box" },
        { CAPTION " --box 1,2,3,4,5", 2, "", "--box" },
        { CAPTION " --box 1,2,,4", 2, "", "--box" },
        { CAPTION " --box 1,2,nan,4", 2, "", "--box" },
        { CAPTION " --box 1,2,inf,4", 2, "", "--box" },
        { CAPTION " --box 1,2,1e39,4", 2, "", "--box" },
        { CAPTION " --box 1,2,3px,4", 2, "", "--box" },
        { CAPTION " --box 0x10,2,3,4", 2, "", "--box" },
        { CAPTION " --box ''", 2, "", "--box" },
        { CAPTION " --point 1", 2, "", "--point" },
        { CAPTION " --point 1,2,7", 2, "", "--point" },
        { CAPTION " --point 1,2,0.5", 2, "", "--point" },
        { CAPTION " --point 1,-inf", 2, "", "--point" },
        { CAPTION " --mask a.png --mask b.png", 2, "", "--mask" },
        { "export" MODEL, 2, "", "--to" },
        { "export --to x", 2, "", "--model" },
        { "export" MODEL " --to x --dtype f64", 2, "", "--dtype" },
        { "export more" MODEL " --to x", 2, "", "more" },
        { "info more", 2, "", "more" },
        { "info --plan", 2, "", "--model" },
        { "info --plan --regions 0" MODEL, 2, "", "--regions" },
        { "tokenize", 2, "", "--model" },
        { "tokenize more" MODEL, 2, "", "more" },
        { "tokenize --train --decode" MODEL, 2, "", "--decode" },
        { "caption x.jpg --model nowhere", 1, "", "nowhere" },
        { "tokenize --model nowhere", 1, "", "nowhere" },
        { "tokenize --learn 300", 2, "", "--to" },
        { "tokenize --learn x --to d", 2, "", "number" },
        { "tokenize --learn 10 --to d", 1, "", "10" },
        { "tokenize --learn 300 --to d --train", 2, "", "--train" },
        { "tokenize --to d" MODEL, 2, "", "--learn" },
        { "info --model nowhere", 1, "", "nowhere" },
    };
    for (size_t i = 0; i < LENGTH(rows); i++) cli_expect(rows[i].line, rows[i].code, rows[i].out, rows[i].err);

    /* Long and strange input is shortened and escaped in messages. */
    static char line[12000];
    snprintf(line, sizeof line, "caption \033[31m%0*d", 11000, 0);
    cli_expect(line, 2, "", "--model");
    snprintf(line, sizeof line, CAPTION " --beams \033[31m\n%0*d", 11000, 0);
    cli_expect(line, 2, "", "\\x1b[31m\\n000");
}

/* ---- regions and records ----------------------------------------------------------------------------- */

static const json_t *at(const json_t *records, size_t i, const char *key)
{
    return json_object_get(json_array_get(records, i), key);
}

static bool same(const json_t *a, const char *expected)
{
    json_t *b = NULL;
    bool equal = json_parse(expected, strlen(expected), "expected", &b) == SCA_OK && json_equal(a, b);
    char *text = json_dumps(a, JSON_ENCODE_ANY);
    CHECKF(equal, "found %s, expected %s", text ? text : "nothing", expected);
    json_decref(b);
    sca_free(text);
    return equal;
}

static void grammar(void)
{
    static const struct {
        const char *options;
        const char *prompts;
    } rows[] = {
        { "", "[{\"box\": [0, 0, 512, 640]}]" },
        { "--box 1,2,30.5,40", "[{\"box\": [1, 2, 30.5, 40]}]" },
        { "--box=1,2,30,40 --box 5,6,70,80", "[{\"box\": [1, 2, 30, 40]}, {\"box\": [5, 6, 70, 80]}]" },
        { "--point 10,20 --point 30,40,0", "[{\"points\": [[10, 20], [30, 40]], \"labels\": [1, 0]}]" },
        { "--point 10,20 --next --point 30,40",
          "[{\"points\": [[10, 20]], \"labels\": [1]}, {\"points\": [[30, 40]], \"labels\": [1]}]" },
        { "--point 9,9 --box 1,2,30,40 --point 10,20,1 --box 5,6,70,80",
          "[{\"points\": [[9, 9]], \"labels\": [1]}, {\"box\": [1, 2, 30, 40], \"points\": [[10, 20]], \"labels\": "
          "[1]}, "
          "{\"box\": [5, 6, 70, 80]}]" },
        { "--next --box 1,2,30,40 --next --next --point 10,20.25 --next",
          "[{\"box\": [1, 2, 30, 40]}, {\"points\": [[10, 20.25]], \"labels\": [1]}]" },
        { "--box 1,2,30,40 --box 1,2,30,40 --mask " CLI_DIR "/mask.png",
          "[{\"box\": [1, 2, 30, 40]}, {\"box\": [1, 2, 30, 40], \"mask\": \"" CLI_DIR "/mask.png\"}]" },
        { "--mask " CLI_DIR "/mask.png --point 10,20",
          "[{\"points\": [[10, 20]], \"labels\": [1], \"mask\": \"" CLI_DIR "/mask.png\"}]" },
    };
    for (size_t i = 0; i < LENGTH(rows); i++) {
        char line[2000];
        snprintf(line, sizeof line, "segment " CLI_PHOTO MODEL " --format json %s", rows[i].options);
        json_t *records = cli_json(line), *prompts = json_array();
        for (size_t k = 0; k < json_array_size(records); k++)
            json_array_append(prompts, (json_t *)(uintptr_t)at(records, k, "prompt"));
        /* 1 and 1.0 are the same number here: compare as Python would. */
        json_t *expected = NULL;
        CHECK_OK(json_parse(rows[i].prompts, strlen(rows[i].prompts), "expected", &expected));
        char *found = json_dumps(prompts, 0), *wanted = json_dumps(expected, 0);
        CHECKF(found && wanted && strcmp(found, wanted) == 0, "%s: found %s, expected %s", rows[i].options, found,
               wanted);
        sca_free(found);
        sca_free(wanted);
        json_decref(expected);
        json_decref(prompts);
        json_decref(records);
    }
}

static void check_record(const json_t *record, bool caption)
{
    static const char *const names[] = { "image", "prompt", "caption", "tokens", "logprob", "iou", "mask", "box" };
    size_t field = 0;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)record, name, value)
    {
        if (!caption && field == 2) field = 5;
        CHECKF(field < LENGTH(names) && strcmp(name, names[field]) == 0, "field %s where %s belongs", name,
               field < LENGTH(names) ? names[field] : "nothing");
        field++;
    }
    CHECK(field == LENGTH(names));
    CHECK(json_array_size(json_object_get(record, "iou")) == 3);
    const json_t *mask = json_object_get(record, "mask"), *size = json_object_get(mask, "size");
    int height = (int)json_integer_value(json_array_get(size, 0)),
        width = (int)json_integer_value(json_array_get(size, 1));
    CHECKF(height == 640 && width == 512, "mask of %d x %d", height, width);
    mask_runs runs = { 0 };
    const char *counts = json_string_value(json_object_get(mask, "counts"));
    CHECK_OK(mask_runs_parse(counts ? counts : "", width, height, &runs));
    double box[4];
    mask_box(&runs, box);
    for (size_t i = 0; i < 4; i++) {
        const json_t *edge = json_array_get(json_object_get(record, "box"), i);
        double expected = i < 2 ? box[i] : box[i - 2] + box[i];
        CHECKF(json_is_integer(edge) && (double)json_integer_value(edge) == expected, "edge %zu of the box", i);
    }
    mask_runs_free(&runs);
}

static void records(void)
{
    json_t *all = cli_json(CAPTION " --box 148,145,300,552 --next --point 330,350 --format json");
    CHECK(json_array_size(all) == 2);
    for (size_t i = 0; i < json_array_size(all); i++) check_record(json_array_get(all, i), true);
    same(at(all, 0, "image"), "\"" CLI_PHOTO "\"");

    /* Greedy is the default, duplicates: the last one wins; threads and order of options change nothing. */
    static const char *const alike[] = {
        "caption --format jsonl --format json --beams 3 --box 148,145,300,552 --next --threads 1 --point "
        "330,350" MODEL " --beams 1 -- " CLI_PHOTO,
        "caption --device cpu --max-tokens 19 " CLI_PHOTO MODEL
        " --box 148,145,300,552 --next --point 330,350 --format json",
    };
    for (size_t i = 0; i < LENGTH(alike); i++) {
        json_t *again = cli_json(alike[i]);
        CHECKF(json_equal(all, again), "another result from sca %s", alike[i]);
        json_decref(again);
    }
    /* A region gives what it gives alone. */
    json_t *alone = cli_json("caption " CLI_PHOTO MODEL " --point 330,350 --format json");
    CHECK(json_equal(at(alone, 0, "tokens"), at(all, 1, "tokens")));
    CHECK(json_equal(at(alone, 0, "box"), at(all, 1, "box")));
    json_decref(alone);

    json_t *masks =
        cli_json("segment " CLI_PHOTO MODEL " --box 148,145,300,552 --next --point 330,350 --format json");
    for (size_t i = 0; i < json_array_size(masks); i++) check_record(json_array_get(masks, i), false);
    CHECK(json_equal(at(masks, 0, "mask"), at(all, 0, "mask")));
    json_decref(masks);

    json_t *one = cli_json(CAPTION " --max-tokens 2 --format json");
    CHECK(json_array_size(at(one, 0, "tokens")) <= 2);
    json_decref(one);

    json_t *sampled = cli_json(CAPTION " --temperature 1.5 --top-k 50 --top-p 0.95 --seed 7 --format json");
    json_t *repeated = cli_json(CAPTION " --temperature 1.5 --top-k 50 --top-p 0.95 --seed 7 --format json");
    CHECK(json_equal(sampled, repeated));
    json_decref(sampled);
    json_decref(repeated);
    json_decref(all);
}

static void many_regions(void)
{
    static char line[16000];
    size_t n = (size_t)snprintf(line, sizeof line, CAPTION " --format jsonl --max-tokens 3");
    for (int i = 0; i < 200; i++)
        n += (size_t)snprintf(line + n, sizeof line - n, " --box %d,%d,%d,%d", i, i, i + 100, i + 50);
    cli_result r = cli_run(line);
    int lines = 0;
    for (const char *p = r.out; *p; p++) lines += *p == '\n';
    CHECKF(r.code == 0 && lines == 200, "exit status %d, %d lines, %s", r.code, lines, r.err);
    cli_free(&r);
}

/* ---- several photos, warnings ------------------------------------------------------------------------ */

static void several_photos(void)
{
    cli_result r =
        cli_run("caption " CLI_PHOTO " missing.jpg " CLI_PHOTO MODEL " --box 1,2,300,400 --format jsonl");
    int lines = 0;
    for (const char *p = r.out; *p; p++) lines += *p == '\n';
    CHECKF(r.code == 1 && lines == 2 && strstr(r.err, "missing.jpg"), "%d, %d lines, %s", r.code, lines, r.err);
    cli_free(&r);
    r = cli_run("caption missing.jpg " CLI_PHOTO MODEL " --format json");
    json_t *all = NULL;
    CHECK(r.code == 1);
    CHECK_OK(json_parse(r.out, strlen(r.out), "output", &all));
    CHECK(json_array_size(all) == 1);
    json_decref(all);
    cli_free(&r);
    cli_expect("caption missing.jpg" MODEL " --out " CLI_DIR "/none.json --format json", 1, "", "missing.jpg");
    CHECK(!file_exists(CLI_DIR "/none.json"));
}

static void doubtful_prompts(void)
{
    cli_expect(CAPTION " --box 300,400,100,50", 0, CLI_PHOTO, "inverted");
    cli_expect(CAPTION " --box -20,-10,600,50", 0, CLI_PHOTO, "outside");
    cli_expect(CAPTION " --box -1e30,-1e30,1e30,1e30", 0, CLI_PHOTO, "outside");
    cli_expect(CAPTION " --point 5000,5", 0, CLI_PHOTO, "outside");
    cli_expect(CAPTION " --box 10,10,10,10", 0, CLI_PHOTO, "");
}

/* ---- files that are written -------------------------------------------------------------------------- */

static bool is_png(const char *path, int width, int height)
{
    sca_image picture = { 0 };
    CHECK_OK(sca_image_read(path, &picture));
    bool right = picture.width == width && picture.height == height;
    CHECKF(right, "%s is %d x %d", path, picture.width, picture.height);
    sca_image_free(&picture);
    return right;
}

static void files(void)
{
    unlink(CLI_DIR "/o.json");
    unlink(CLI_DIR "/o.png");
    cli_expect(CAPTION " --box 148,145,300,552 --format json --out " CLI_DIR "/o.json --overlay " CLI_DIR "/o.png",
               0, "", "");
    json_t *from_file = NULL, *from_stdout = cli_json(CAPTION " --box 148,145,300,552 --format json");
    CHECK_OK(json_open(CLI_DIR "/o.json", &from_file));
    CHECK(json_equal(from_file, from_stdout));
    json_decref(from_file);
    json_decref(from_stdout);
    is_png(CLI_DIR "/o.png", 512, 640);
    cli_expect("caption " CLI_PHOTO " " CLI_PHOTO MODEL " --overlay " CLI_DIR "/o.png", 0, CLI_PHOTO, "");
    is_png(CLI_DIR "/o.png", 512, 1280);
    cli_expect("segment " CLI_PHOTO MODEL " --point 5,5 --overlay " CLI_DIR "/o.png", 0, CLI_PHOTO, "");
    cli_expect(CAPTION " --out /dev/stdout", 0, CLI_PHOTO, "");

    /* Nothing is promised that cannot be written, and what was there stays. */
    cli_expect(CAPTION " --out " CLI_DIR "/no/o.json", 1, "", CLI_DIR "/no/o.json");
    cli_expect(CAPTION " --out " CLI_DIR, 1, "", CLI_DIR);
    cli_expect(CAPTION " --overlay " CLI_DIR "/no/o.png", 1, "", CLI_DIR "/no/o.png");
    cli_expect(CAPTION " --out ''", 1, "", "names no file");
    cli_expect(CAPTION " --out /dev/full", 1, "", "/dev/full");
    cli_expect(CAPTION " --overlay /dev/full", 1, "", "/dev/full");
    CHECK(!cli_leftovers(CLI_DIR));
}

static void standard_output(void)
{
    static const char *const lines[] = { CAPTION,
                                         CAPTION " --format json",
                                         CAPTION " --format jsonl",
                                         "--version",
                                         "help",
                                         "caption --help",
                                         "info",
                                         "info" MODEL };
    for (size_t i = 0; i < LENGTH(lines); i++) {
        cli_stdout = "/dev/full";
        cli_expect(lines[i], 1, "", "standard output");
        cli_close_stdout = true;
        cli_expect(lines[i], 1, "", "standard output");
    }
    /* With standard output closed, no file that is opened may take its place. */
    cli_close_stdout = true;
    cli_expect(CAPTION " --format json --out " CLI_DIR "/closed.json", 0, "", "");
    json_t *value = NULL;
    CHECK_OK(json_open(CLI_DIR "/closed.json", &value));
    json_decref(value);
    /* A closed pipe. */
    CHECK(system("'" CLI_SCA "' help 2>'" CLI_DIR "/stderr' | true") == 0);
}

/* ---- input that is wrong or hostile ------------------------------------------------------------------ */

/* The first `bytes` bytes of the demo's photo, and what then follows, as a file. */
static void write_part(const char *path, size_t bytes, const char *more)
{
    char *data = NULL;
    size_t all;
    CHECK_OK(file_read(CLI_PHOTO, 1 << 30, &data, &all));
    str s = { 0 };
    str_put_bytes(&s, data, bytes < all ? bytes : all);
    str_put(&s, more);
    CHECK_OK(file_write(path, str_text(&s), s.bytes));
    str_free(&s);
    mem_free(data);
}

static void bad_photos(void)
{
    write_part(CLI_DIR "/empty.jpg", 0, "");
    write_part(CLI_DIR "/short.jpg", 3000, "");
    write_part(CLI_DIR "/text.jpg", 0, "no picture at all");
    write_part(CLI_DIR "/bomb.ppm", 0, "P6 100000 100000 255\n");
    unlink(CLI_DIR "/pipe.jpg");
    CHECK(mkfifo(CLI_DIR "/pipe.jpg", 0600) == 0);
    static const char *const names[] = { CLI_DIR "/empty.jpg",
                                         CLI_DIR "/short.jpg",
                                         CLI_DIR "/text.jpg",
                                         CLI_DIR "/bomb.ppm",
                                         CLI_DIR "/pipe.jpg",
                                         CLI_DIR "/missing.jpg",
                                         CLI_DIR,
                                         "/dev/zero",
                                         "/dev/null" };
    for (size_t i = 0; i < LENGTH(names); i++) {
        char line[2000];
        snprintf(line, sizeof line, "segment %s" MODEL, names[i]);
        cli_expect(line, 1, "", names[i]);
    }
    cli_expect("segment" MODEL " ''", 1, "", "cannot open");
    cli_expect("segment " CLI_PHOTO MODEL " --max-pixels 1000", 1, "", CLI_PHOTO);
    cli_expect("segment " CLI_PHOTO MODEL " --mask " CLI_DIR "/missing.png", 1, "", "missing.png");
    cli_expect("segment " CLI_PHOTO MODEL " --mask " CLI_DIR "/text.jpg", 1, "", "text.jpg");
    cli_expect("segment " CLI_PHOTO MODEL " --mask " CLI_DIR "/small.png", 1, "", "small.png");
    unlink(CLI_DIR "/pipe.jpg");
}

/* ---- tokenize ---------------------------------------------------------------------------------------- */

static void tokens(void)
{
    static const struct {
        const char *options, *input;
        int code;
        const char *out, *err;
    } rows[] = {
        { "", "{\"text\": \"\"}\n", 0, "{\"ids\": [], \"decoded\": \"\"}\n", "" },
        { "", "", 0, "", "" },
        { "--decode", "{\"ids\": [64, 368, 417, 699]}", 0, "{\"text\": \"a green grass\"}\n", "" },
        { "--train", "{\"text\": \"\"}\n", 0, "{\"ids\": [699], ", "" },
        { "", "{\"text\": 5}\n", 1, "", "line 1" },
        { "", "{\"text\": \"\"}\n\n{\"tex\": \"a\"}\n", 1, "{\"ids\": []", "line 3" },
        { "", "nonsense\n", 1, "", "line 1" },
        { "", "{\"text\": \"\xff\"}\n", 1, "", "line 1" },
        { "--decode", "{\"ids\": [700000]}\n", 1, "", "line 1" },
        { "--decode", "{\"ids\": [-1]}\n", 1, "", "line 1" },
        { "--decode", "{\"ids\": [1.5]}\n", 1, "", "line 1" },
        { "--decode", "{\"ids\": 3}\n", 1, "", "line 1" },
        { "--decode", "[]\n", 1, "", "line 1" },
    };
    for (size_t i = 0; i < LENGTH(rows); i++) {
        char line[2000];
        CHECK_OK(file_write(CLI_DIR "/in.jsonl", rows[i].input, strlen(rows[i].input)));
        cli_stdin = CLI_DIR "/in.jsonl";
        snprintf(line, sizeof line, "tokenize" MODEL " %s", rows[i].options);
        cli_expect(line, rows[i].code, rows[i].out, rows[i].err);
    }
}

/* ---- export, info ------------------------------------------------------------------------------------ */

static void exported(void)
{
    CHECK(system("rm -rf '" CLI_DIR "/out'") == 0);
    cli_expect("export" MODEL " --to " CLI_DIR "/out", 0, CLI_DIR "/out", "");
    json_t *a = cli_json(CAPTION " --box 148,145,300,552 --format json");
    json_t *b = cli_json("caption " CLI_PHOTO " --model " CLI_DIR "/out --box 148,145,300,552 --format json");
    CHECK(json_equal(a, b));
    json_decref(a);
    json_decref(b);
    cli_expect("export" MODEL " --to " CLI_DIR "/out/half.safetensors --dtype bf16", 0, "half.safetensors", "");
    cli_expect("export" MODEL " --to " CLI_DIR "/out/part.safetensors --trained-only", 0, "trained part", "");
    struct stat whole, half, part;
    CHECK(stat(CLI_DIR "/out/model.safetensors", &whole) == 0 &&
          stat(CLI_DIR "/out/half.safetensors", &half) == 0 && stat(CLI_DIR "/out/part.safetensors", &part) == 0);
    CHECK(10 * half.st_size < 6 * whole.st_size && part.st_size < whole.st_size);
    cli_expect("export" MODEL " --to /proc/nowhere", 1, "", "/proc/nowhere");
}

static void information(void)
{
    static const struct {
        const char *line, *parts[8];
    } rows[] = {
        { "info", { "sca 0.1.0", "devices: ", "cpu", "ref" } },
        { "info" MODEL, { "ScaMultitaskV2Model", "total", "trained share" } },
        { "info" MODEL " --plan --regions 4", { "4 regions", "MiB", "total" } },
        { "info --sam random:vit_h --lm random:gpt2-large",
          { "637,026,048", "774,030,080", "1,434,553,520", "19,432,832", "1.355 %" } },
        { "info --sam random:vit_b --lm random:gpt2", { "89,670,912", "237,470,384", "19,295,104" } },
        { "info --sam random:vit_h --lm random:open_llama_3b --plan",
          { "4,087,513,520", "19,949,312", "0.488 %", "MiB" } },
    };
    for (size_t i = 0; i < LENGTH(rows); i++)
        for (size_t k = 0; k < LENGTH(rows[i].parts) && rows[i].parts[k]; k++)
            if (!cli_expect(rows[i].line, 0, rows[i].parts[k], "")) break;
}

/* A gray PNG of the demo's photo size, and a small one, made with the program's own library. */
static void make_masks(void)
{
    static const unsigned char small[] = {
        /* 1 x 1, gray, 255 */
        0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00,
        0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x3a, 0x7e, 0x9b, 0x55, 0x00,
        0x00, 0x00, 0x0a, 0x49, 0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0xf8, 0x0f, 0x00, 0x01, 0x01, 0x01, 0x00,
        0xb1, 0x38, 0xf6, 0x14, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82
    };
    CHECK_OK(file_write(CLI_DIR "/small.png", small, sizeof small));
    cli_expect("segment " CLI_PHOTO MODEL " --box 1,1,9,9 --overlay " CLI_DIR "/mask.png", 0, "", "");
}

int main(int argc, char **argv)
{
    cli_start();
    make_masks();
    RUN(usage);
    RUN(grammar);
    RUN(records);
    RUN(many_regions);
    RUN(several_photos);
    RUN(doubtful_prompts);
    RUN(files);
    RUN(standard_output);
    RUN(bad_photos);
    RUN(tokens);
    RUN(exported);
    RUN(information);
    return check_done();
}
