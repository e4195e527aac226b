/* test_score.c - prediction files in, scores out: formats, bad input, and the shared reference set. */
#include "check.h"
#include "eval/eval.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden/metrics"
#define SEVERAL SCA_SOURCE "/tests/golden/metrics/several_candidates.json"
#define WORK SCA_BUILD "/work_score"
#define RESOURCES SCA_BUILD "/resources"

static void put_file(const char *name, const char *text)
{
    char path[2000];
    snprintf(path, sizeof path, "%s/%s", WORK, name);
    CHECK_OK(dir_make(WORK));
    CHECK_OK(file_write(path, text, strlen(text)));
}

/* The object that score_run writes, or NULL. */
static json_t *score_json(score_options o, str *notes)
{
    str out = { 0 };
    json_t *value = NULL;
    o.format = SCORE_JSON;
    CHECK_OK(score_run(&o, &out, notes));
    if (out.bytes) CHECK_OK(json_parse(out.data, out.bytes, "scores", &value));
    str_free(&out);
    return value;
}

static void check_value(const json_t *object, const char *key, double want, double tolerance)
{
    const json_t *found = json_object_get(object, key);
    CHECKF(json_is_number(found) && fabs(json_number_value(found) - want) <= tolerance,
           "%s is %.17g, expected %.17g", key, json_number_value(found), want);
}

/* ---- small files --------------------------------------------------------------------------- */

static void several_candidates(void)
{
    str notes = { 0 };
    json_t *x = score_json((score_options){ .results = SEVERAL }, &notes);
    check_value(x, "regions", 16, 0);
    check_value(x, "BLEU-1", 0.24999999999798386, 1e-9);
    check_value(x, "BLEU-4", 0.17867678375860904, 1e-9);
    check_value(x, "ROUGE-L", 0.24110857169225666, 1e-9);
    check_value(x, "CIDEr-D", 0.964568944673588, 1e-9);
    CHECK(!json_object_get(x, "METEOR") && !json_object_get(x, "SPICE") && !json_object_get(x, "noun-recall"));
    CHECK(strcmp(json_string_value(json_object_get(x, "tokenizer")), "ptb-3.6.0") == 0);
    CHECK(strstr(str_text(&notes), "METEOR is left out") && strstr(str_text(&notes), "tools/meteor_data.sh"));
    CHECK(strstr(str_text(&notes), "SPICE is left out") && strstr(str_text(&notes), "recall are left out"));
    json_decref(x);
    str_free(&notes);
}

#define RECORD(id, hyp, ref)                                                                                       \
    "{\"_id\": " id ", \"split\": \"inference\", \"candidates\": [\"" hyp "\"], \"references\": [\"" ref "\"]}"

static const char two_records[] =
    "[" RECORD("7", "a dog", "a dog runs") ", " RECORD("\"x\"", "two cats", "two cats") "]";

static void lists_and_lines(void)
{
    str notes = { 0 };
    put_file("list.json", two_records);
    put_file("lines.jsonl",
             "\n" RECORD("7", "a dog", "a dog runs") "\r\n\n" RECORD("\"x\"", "two cats", "two cats"));
    const char *const files[] = { WORK "/list.json", WORK "/lines.jsonl" };
    for (size_t i = 0; i < 2; i++) {
        json_t *x = score_json((score_options){ .results = files[i], .per_item = true }, &notes);
        const json_t *items = json_object_get(x, "items");
        check_value(x, "regions", 2, 0);
        CHECK(json_integer_value(json_object_get(json_array_get(items, 0), "_id")) == 7);
        CHECK(strcmp(json_string_value(json_object_get(json_array_get(items, 1), "_id")), "x") == 0);
        check_value(json_array_get(items, 1), "rouge_l", 1, 1e-12);
        check_value(x, "exact-match", 0.5, 0);
        check_value(json_array_get(items, 0), "exact_match", 0, 0);
        check_value(json_array_get(items, 1), "exact_match", 1, 0);
        CHECK(strcmp(json_string_value(json_object_get(json_array_get(items, 0), "hyp_tokens")), "a dog") == 0);
        json_decref(x);
    }
    str_free(&notes);
}

static void ids(void)
{
    str notes = { 0 };
    put_file(
        "ids.json",
        "[" RECORD("1", "old", "old") ", " RECORD("2", "b", "b") ", " RECORD(
            "1.0", "new", "new") ", {\"split\": \"inference\", \"candidates\": [\"c\"], \"references\": [\"c\"]}, "
                                 "{\"_id\": 9, \"split\": \"train\", \"candidates\": [], \"references\": 5}]");
    json_t *x = score_json((score_options){ .results = WORK "/ids.json", .per_item = true }, &notes);
    const json_t *items = json_object_get(x, "items");
    CHECK(json_array_size(items) == 3);
    CHECK(strcmp(json_string_value(json_object_get(json_array_get(items, 0), "hyp_tokens")), "new") == 0);
    CHECK(json_integer_value(json_object_get(json_array_get(items, 2), "_id")) == 3); /* its position in the file */
    CHECK(strstr(str_text(&notes), "1 records repeat an _id, the first 1;"));
    json_decref(x);
    str_free(&notes);
}

/* Case and punctuation do not count, any reference will do, and half a caption is none. */
static void exact_match(void)
{
    str notes = { 0 };
    put_file("exact.json",
             "[{\"_id\": 1, \"split\": \"inference\", \"candidates\": [\"A red ring.\"], "
             "\"references\": [\"a ring\", \"a red, ring\"]}, " RECORD("2", "a red", "a red ring") ", " RECORD(
                 "3", "", "a ring") ", " RECORD("4", "ring a", "a ring") "]");
    json_t *x = score_json((score_options){ .results = WORK "/exact.json" }, &notes);
    check_value(x, "exact-match", 0.25, 0);
    json_decref(x);
    str_free(&notes);
}

#define REFS                                                                                                       \
    "{\"info\": {}, \"images\": [{\"id\": 3}, {\"id\": 1}, {\"id\": 2}], \"annotations\": [{\"image_id\": 1, "     \
    "\"caption\": \"A dog.\"}, "                                                                                   \
    "{\"image_id\": 3, \"caption\": \"a cat\"}, {\"image_id\": 1, \"caption\": \"the dog\"}]}"

static void coco(void)
{
    str notes = { 0 };
    put_file("refs.json", REFS);
    put_file("coco.json", "[{\"image_id\": 1, \"caption\": \"a dog\"}, {\"image_id\": 3, \"caption\": \"a cat\"}]");
    json_t *x = score_json(
        (score_options){ .results = WORK "/coco.json", .references = WORK "/refs.json", .per_item = true }, &notes);
    const json_t *items = json_object_get(x, "items");
    CHECK(json_array_size(items) == 2 && json_integer_value(json_object_get(json_array_get(items, 0), "_id")) == 3);
    CHECK(!strstr(str_text(&notes), "no result"));
    const json_t *refs = json_object_get(json_array_get(items, 1), "ref_tokens");
    CHECK(json_array_size(refs) == 2 && strcmp(json_string_value(json_array_get(refs, 0)), "a dog") == 0);
    CHECK(strcmp(json_string_value(json_object_get(x, "tokenizer")), "ptb-3.4.1") == 0);
    json_decref(x);
    str_free(&notes);
}

static void missing_results(void)
{
    str notes = { 0 };
    put_file("refs.json", REFS);
    put_file("coco.json", "[{\"image_id\": 3, \"caption\": \"a cat\"}]");
    score_options o = { .results = WORK "/coco.json", .references = WORK "/refs.json" };
    json_t *x = score_json(o, &notes);
    check_value(x, "regions", 1, 0);
    CHECKF(strstr(str_text(&notes), "coco.json: 1 images of ") && strstr(str_text(&notes), "the first with id 1;"),
           "%s", str_text(&notes));
    json_decref(x);
    str_free(&notes);
}

static void text_and_markdown(void)
{
    str out = { 0 }, notes = { 0 };
    put_file("list.json", two_records);
    score_options o = { .results = WORK "/list.json", .partial = true, .per_item = true };
    CHECK_OK(score_run(&o, &out, &notes));
    CHECKF(text_starts(str_text(&out), "CIDEr-D ") && strstr(str_text(&out), "BLEU-1                 77.88\n") &&
               strstr(str_text(&out), "partial: 0 records skipped") && strstr(str_text(&out), "\n\"x\"  CIDEr-D "),
           "%s", str_text(&out));
    str_clear(&out);
    o.format = SCORE_MARKDOWN;
    CHECK_OK(score_run(&o, &out, &notes));
    CHECKF(
        text_starts(
            str_text(&out),
            "| CIDEr-D | BLEU-1 | BLEU-2 | BLEU-3 | BLEU-4 | ROUGE-L | exact-match | skipped (partial) |\n|---|"),
        "%s", str_text(&out));
    str_free(&out);
    str_free(&notes);
}

/* ---- SPICE and recall by way of files ------------------------------------------------------ */

static void spice_and_tags(void)
{
    str notes = { 0 };
    put_file("list.json", two_records);
    put_file("spice.sh",
             "#!/bin/sh\necho noise\n[ $2 = -out ] && grep -q '\"test\": \"two cats\"' \"$1\" || exit 3\n"
             "echo '[{\"image_id\": 1, \"scores\": {\"All\": {\"f\": 0.5}}}, "
             "{\"image_id\": 0, \"scores\": {\"All\": {\"f\": null}}}]' > \"$3\"\n");
    put_file(
        "tags",
        "a\tDET\ndog\tNOUN\n\na\tDET\ndog\tNOUN\nruns\tVERB\n\ntwo\tNUM\ncats\tNOUN\n\ntwo\tNUM\ncats\tNOUN\n\n");
    score_options o = { .results = WORK "/list.json",
                        .spice_command = "sh " WORK "/spice.sh",
                        .tags = WORK "/tags",
                        .per_item = true };
    json_t *x = score_json(o, &notes);
    check_value(x, "SPICE", 0.25, 1e-12);
    check_value(json_array_get(json_object_get(x, "items"), 1), "spice", 0.5, 0);
    check_value(x, "noun-recall", 1, 1e-7);
    check_value(x, "verb-recall", 0, 0);
    CHECK(!json_object_get(x, "noun-recall-fuzzy") && strstr(str_text(&notes), "no word vectors"));
    json_decref(x);
    str out = { 0 };
    o.spice_command = "exit 4;";
    CHECK_FAILS(score_run(&o, &out, &notes), SCA_ERR_IO, "exit status 4");
    CHECK(out.bytes == 0);
    str_free(&out);
    str_free(&notes);
}

static void spice_tuples_file(void)
{
    str notes = { 0 }, out = { 0 };
    if (!file_exists(RESOURCES "/" METEOR_FILE)) {
        check_skip("meteor: no " RESOURCES "/" METEOR_FILE "; run tools/meteor_data.sh");
        return;
    }
    put_file("list.json", two_records);
    put_file("tuples.jsonl",
             "{\"caption\": \"a dog\", \"tuples\": [[\"dog\"]]}\n{\"caption\": \"a dog runs\", \"tuples\": "
             "[[\"dog\"], [\"dog\", \"run\"]]}\n{\"caption\": \"two cats\", \"tuples\": [[\"cat\"]]}\n");
    score_options o = { .results = WORK "/list.json",
                        .spice_tuples = WORK "/tuples.jsonl",
                        .resources = RESOURCES };
    json_t *x = score_json(o, &notes);
    check_value(x, "SPICE", (2.0 / 3 + 1) / 2, 1e-12);
    json_decref(x);
    put_file("tuples.jsonl", "{\"caption\": \"a dog\", \"tuples\": [[\"dog\"]]}\n");
    CHECK_FAILS(score_run(&o, &out, &notes), SCA_ERR_FORMAT,
                "no tuples for 3 of 4 captions, the first: 'a dog runs'");
    o.partial = true;
    CHECK_OK(score_run(&o, &out, &notes));
    CHECK(strstr(str_text(&notes), "SPICE is left out: "));
    put_file("tuples.jsonl", "{\"caption\": \"a dog\", \"tuples\": [[\"dog\", 1]]}\n");
    o.partial = false;
    CHECK_FAILS(score_run(&o, &out, &notes), SCA_ERR_FORMAT, "one to three strings");
    str_free(&out);
    str_free(&notes);
}

/* ---- bad input ----------------------------------------------------------------------------- */

#define SCORED(n) "\"logits\": {\"iou_scores\": [" n "]}"

typedef struct bad_row {
    const char *results;
    bool coco;
    const char *message;
    int skipped; /* with partial; -1: an error then, too */
} bad_row;

static const bad_row bad_rows[] = {
    { "", false, "bad.json", -1 },
    { "[]", false, "nothing to score among 0 records", -1 },
    { "[{\"x\": 1}]", false, "neither 'candidates'", -1 },
    { "[1]", false, "neither 'candidates'", -1 },
    { "[" RECORD("1", "a", "a") ", {\"_id\": 2", false, "bad.json", -1 },
    { RECORD("1", "a", "a") "\n{\"candidates\": ", false, "line 2", -1 },
    { "[" RECORD("1", "a", "a") ", {\"_id\": 5, \"split\": \"inference\", \"candidates\": [\"a\"]}]", false,
      "record 1 (_id 5): 'references' is missing", 1 },
    { "[" RECORD("1", "a", "a") ", {\"split\": \"inference\", \"candidates\": [], \"references\": [\"a\"]}]", false,
      "record 1: 'candidates' is missing, empty", 1 },
    { "[" RECORD("1", "a", "a") ", {\"split\": \"inference\", \"candidates\": [1], \"references\": [\"a\"]}]",
      false, "no list of strings", 1 },
    { "[" RECORD("1", "a", "a") ", " RECORD("[1]", "a", "a") "]", false, "'_id' is neither", 1 },
    { "[{\"_id\": 1, \"split\": \"test\", \"candidates\": [\"a\"], \"references\": [\"a\"]}]", false,
      "none of 1 records can be scored; the split asked for is 'inference'", -1 },
    { "[" RECORD("1", "a", "a") ", {\"_id\": 2, \"split\": \"inference\", \"candidates\": [\"a\", \"b\"], "
                                "\"references\": [\"a\"], " SCORED("1, 2") "}]",
      false, "record 1 (_id 2) has several candidates, but record 0 (_id 1)", 1 },
    { "[{\"image_id\": 1, \"caption\": \"a\"}]", false, "--references", -1 },
    { "[" RECORD("1", "a", "a") "]", true, "holds its own references", -1 },
    { "[{\"image_id\": 1, \"caption\": \"a\"}, {\"image_id\": 9, \"caption\": \"a\"}, {\"image_id\": 8, "
      "\"caption\": \"a\"}]",
      true, "2 results for images that are not in", 2 },
    { "[{\"image_id\": 1, \"caption\": \"a\"}, {\"image_id\": 1, \"caption\": \"b\"}]", true,
      "1 second results for the same image, the first for id 1", 1 },
    { "[{\"image_id\": 1, \"caption\": \"a\"}, {\"image_id\": 2, \"caption\": \"b\"}]", true, "without a caption",
      1 },
    { "[{\"image_id\": 1, \"caption\": \"a\"}, {\"image_id\": 2}]", true,
      "1 of 2 records cannot be scored, the first is record 1: expected 'image_id' and 'caption'", 1 },
    { "[{\"candidates\": []}, " RECORD("1", "a",
                                       "a") ", {\"_id\": \"x\", \"split\": \"inference\", \"candidates\": "
                                            "[\"b\"], \"references\": [\"b\", 3]}, {\"_id\": 9, \"split\": "
                                            "\"inference\", \"candidates\": \"b\"}, "
                                            "{\"_id\": 10, \"split\": \"inference\", \"references\": [\"b\"]}]",
      false, "3 of 5 records cannot be scored, the first is record 2 (_id 'x'): 'references' is missing", 3 },
};

static void bad_input(void)
{
    put_file("refs.json", REFS);
    for (size_t i = 0; i < LENGTH(bad_rows); i++) {
        const bad_row *row = &bad_rows[i];
        str out = { 0 }, notes = { 0 };
        put_file("bad.json", row->results);
        score_options o = { .results = WORK "/bad.json",
                            .references = row->coco ? WORK "/refs.json" : NULL,
                            .format = SCORE_JSON };
        sca_status status = score_run(&o, &out, &notes);
        CHECKF(status != SCA_OK && strstr(status_message(), row->message) && out.bytes == 0,
               "row %zu: %s '%s', expected '%s'", i, sca_status_name(status), status_message(), row->message);
        o.partial = true;
        status = score_run(&o, &out, &notes);
        json_t *x = NULL;
        if (status == SCA_OK) CHECK_OK(json_parse(out.data, out.bytes, "scores", &x));
        CHECKF((status == SCA_OK) == (row->skipped >= 0), "row %zu, partial: %s", i, status_message());
        if (x) check_value(x, "skipped", row->skipped, 0);
        if (x) CHECK(json_is_true(json_object_get(x, "partial")));
        json_decref(x);
        str_free(&out);
        str_free(&notes);
    }
}

static sca_status small_run(void)
{
    score_options o = { .results = WORK "/coco.json",
                        .references = WORK "/refs.json",
                        .per_item = true,
                        .tags = WORK "/tags",
                        .format = SCORE_JSON };
    str out = { 0 }, notes = { 0 };
    sca_status status = score_run(&o, &out, &notes);
    if (status == SCA_OK) {
        o = (score_options){ .results = WORK "/lines.jsonl", .per_item = true };
        status = score_run(&o, &out, &notes);
    }
    str_free(&out);
    str_free(&notes);
    return status;
}

static void failures(void)
{
    put_file("refs.json", REFS);
    put_file("coco.json", "[{\"image_id\": 1, \"caption\": \"a dog\"}, {\"image_id\": 3, \"caption\": \"a cat\"}]");
    put_file("lines.jsonl", RECORD("7", "a dog", "a dog runs") "\n" RECORD("\"x\"", "two cats", "two cats"));
    put_file("tags", "a\tDET\n\n\n\n\n");
    for (int io = 0; io < 2; io++)
        for (int64_t n = 1; n < 100000; n += 1 + n / 64) {
            io ? fault_io(n) : fault_alloc(n);
            sca_status status = small_run(), expected = io ? SCA_ERR_IO : SCA_ERR_MEMORY;
            bool hit = fault_fired();
            io ? fault_io(0) : fault_alloc(0);
            CHECKF(status == (hit ? expected : SCA_OK), "%s %d: %s %s", io ? "access" : "allocation", (int)n,
                   sca_status_name(status), status == SCA_OK ? "" : status_message());
            if (!hit) break;
        }
}

/* ---- the shared reference set -------------------------------------------------------------- */

static void check_corpus(const json_t *found, const json_t *want, bool whole)
{
    static const char *const keys[] = { "regions", "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D" };
    for (size_t i = 0; i < LENGTH(keys); i++)
        check_value(found, keys[i], json_number_value(json_object_get(want, keys[i])), 1e-9);
    if (whole) check_value(found, "METEOR", json_number_value(json_object_get(want, "METEOR")), 1e-9);
}

static void check_items(const json_t *found, const json_t *want, const char *profile, bool whole)
{
    static const char *const keys[] = { "hyp_tokens", "ref_tokens", "meteor_stats" };
    static const char *const numbers[] = { "rouge_l", "cider_d", "meteor" };
    CHECK(json_array_size(found) == json_array_size(want));
    for (size_t i = 0; i < json_array_size(want); i++) {
        const json_t *a = json_array_get(found, i), *b = json_array_get(want, i),
                     *other = json_object_get(b, profile);
        for (size_t k = 0; k < LENGTH(keys) - !whole; k++) {
            const json_t *value = json_object_get(other, keys[k]);
            if (!value) value = json_object_get(b, keys[k]);
            CHECKF(json_equal(json_object_get(a, keys[k]), value), "item %zu: %s differ", i, keys[k]);
        }
        for (size_t k = 0; k < LENGTH(numbers) - !whole; k++) {
            const json_t *value = json_object_get(other, numbers[k]);
            if (!value) value = json_object_get(b, numbers[k]);
            check_value(a, numbers[k], json_number_value(value), 1e-9);
        }
    }
}

static void reference_set(void)
{
    json_t *expected = NULL;
    str notes = { 0 };
    bool whole = file_exists(RESOURCES "/" METEOR_FILE);
    if (!file_exists(GOLDEN "/expected.json")) {
        check_skip("shared: the reference scores are absent");
        return;
    }
    if (!whole) check_skip("meteor: no " RESOURCES "/" METEOR_FILE "; run tools/meteor_data.sh");
    CHECK_OK(json_open(GOLDEN "/expected.json", &expected));
    const json_t *corpus = json_object_get(expected, "corpus"), *items = json_object_get(expected, "items");
    score_options o = {
        .results = GOLDEN "/captions.json", .resources = RESOURCES, .per_item = true, .threads = 2
    };
    json_t *x = score_json(o, &notes);
    check_corpus(x, json_object_get(corpus, "sca"), whole);
    check_items(json_object_get(x, "items"), items, "sca", whole);
    json_decref(x);
    o.results = GOLDEN "/coco_results.json", o.references = GOLDEN "/coco_captions.json";
    x = score_json(o, &notes);
    check_corpus(x, json_object_get(corpus, "coco"), whole);
    check_items(json_object_get(x, "items"), items, "coco", whole);
    CHECK(json_integer_value(json_object_get(json_array_get(json_object_get(x, "items"), 0), "_id")) == 100);
    json_decref(x);
    o.results = GOLDEN "/several_candidates.json", o.references = NULL;
    x = score_json(o, &notes);
    check_corpus(x, json_object_get(corpus, "sca, several_candidates.json"), whole);
    json_decref(x);
    json_decref(expected);
    str_free(&notes);
}

int main(int argc, char **argv)
{
    RUN(several_candidates);
    RUN(lists_and_lines);
    RUN(exact_match);
    RUN(ids);
    RUN(coco);
    RUN(missing_results);
    RUN(text_and_markdown);
    RUN(spice_and_tags);
    RUN(spice_tuples_file);
    RUN(bad_input);
    RUN(failures);
    RUN(reference_set);
    return check_done();
}
