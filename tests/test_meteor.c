/* test_meteor.c - METEOR against the numbers of the reference program.
 *
 * The words of the small cases come from tests/golden/metrics/meteor (an excerpt of the METEOR release's files);
 * the 432 items of the shared set need the whole data file, SCA_BUILD/resources/meteor-en.data
 * (tools/meteor_data.sh). */
#include "check.h"
#include "eval/meteor_parts.h"

#include <libstemmer.h>
#include <math.h>
#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden/metrics"
#define SMALL SCA_SOURCE "/tests/golden/metrics/meteor"
#define WORK SCA_BUILD "/work_meteor"
#define FULL SCA_BUILD "/resources/" METEOR_FILE

static json_t *cases;

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* The small files of the release in WORK, beside a table of `pairs` (NULL: none, [] an empty one); converted. */
static sca_status small_make(const json_t *pairs)
{
    static const char *const names[] = { "english.words", "english.prefixes", "english.synsets",
                                         "english.exceptions" };
    sca_status status = dir_make(WORK);
    for (size_t i = 0; i < LENGTH(names) && status == SCA_OK; i++) {
        char from[2000], to[2000], *text;
        size_t bytes;
        snprintf(from, sizeof from, "%s/%s", SMALL, names[i]);
        snprintf(to, sizeof to, "%s/%s", WORK, names[i]);
        status = file_read(from, 1 << 20, &text, &bytes);
        if (status != SCA_OK) break;
        status = file_write(to, text, bytes);
        mem_free(text);
    }
    unlink(WORK "/paraphrase-en.gz");
    if (status == SCA_OK && pairs) { /* the converter accepts plain text, too */
        str table = { 0 };
        for (size_t i = 0; i < json_array_size(pairs); i++)
            str_printf(&table, "0.5\n%s\n%s\n", json_string_value(json_array_get(json_array_get(pairs, i), 0)),
                       json_string_value(json_array_get(json_array_get(pairs, i), 1)));
        status = file_write(WORK "/paraphrase-en.gz", str_text(&table), table.bytes);
        str_free(&table);
    }
    return status == SCA_OK ? meteor_make(WORK, WORK "/" METEOR_FILE) : status;
}

typedef struct set {
    eval_item *items;
    size_t n;
} set;

static set set_open(const json_t *array, const char *hyp, const char *refs)
{
    set s = { calloc(json_array_size(array) + 1, sizeof *s.items), json_array_size(array) };
    for (size_t i = 0; i < s.n; i++) {
        const json_t *o = json_array_get(array, i), *list = json_object_get(o, refs);
        const char **text = calloc(json_array_size(list) + 1, sizeof *text);
        for (size_t k = 0; k < json_array_size(list); k++) text[k] = json_string_value(json_array_get(list, k));
        s.items[i] = (eval_item){ text_of(o, hyp), text, json_array_size(list) };
    }
    return s;
}

static void set_close(set *s)
{
    for (size_t i = 0; i < s->n; i++) free((void *)(uintptr_t)s->items[i].refs);
    free(s->items);
}

static void check_number(const char *id, double found, const json_t *expected)
{
    double want = json_number_value(expected);
    CHECKF(json_is_number(expected) && fabs(found - want) <= 1e-12, "%s: %.17g, expected %.17g", id, found, want);
}

/* Scores, and with a key for them statistics, of all items of an array. */
static void check_items(meteor *m, const char *id, const json_t *array, const set *s, const char *score,
                        const char *stats, const json_t *corpus)
{
    meteor_stats *found = calloc(s->n, sizeof *found);
    double *scores = calloc(s->n, sizeof *scores), whole = 0;
    for (int threads = 1; threads <= 3; threads += 2) {
        CHECK_OK(meteor_score(m, s->items, s->n, threads, &whole, scores, found));
        check_number(id, whole, corpus);
        for (size_t i = 0; i < s->n; i++) {
            const json_t *o = json_array_get(array, i), *list = json_object_get(o, stats);
            check_number(id, scores[i], json_object_get(o, score));
            for (size_t k = 0; k < METEOR_STATS; k++)
                CHECKF(found[i].n[k] == json_integer_value(json_array_get(list, k)),
                       "%s item %zu: statistic %zu is %d", id, i, k, found[i].n[k]);
        }
    }
    free(found);
    free(scores);
}

static void small_cases(void)
{
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(cases, "meteor_no_official_paraphrases"), i, c)
    {
        meteor *m = NULL;
        const json_t *items = json_object_get(c, "items");
        CHECK_OK(small_make(json_object_get(c, "paraphrases")));
        CHECK_OK(meteor_open(WORK "/" METEOR_FILE, &m));
        CHECK(meteor_has_phrases(m));
        set s = set_open(items, "hyp", "refs");
        check_items(m, text_of(c, "id"), items, &s, "score", "stats", json_object_get(c, "corpus_score"));
        set_close(&s);
        meteor_close(m);
    }
}

static void normaliser(void)
{
    meteor_data data;
    meteor_words words;
    size_t i;
    json_t *c;
    CHECK_OK(small_make(NULL));
    CHECK_OK(meteor_data_open(WORK "/" METEOR_FILE, &data));
    CHECK(!data.has_phrases);
    CHECK_OK(meteor_words_open(&data, &words));
    json_array_foreach(json_object_get(cases, "meteor_normalizer"), i, c)
    {
        const char *line = NULL, *want = text_of(c, "out");
        CHECK_OK(meteor_normalise(&words, text_of(c, "in"), &line));
        bool same = line && strlen(line) == strlen(want);
        for (size_t k = 0; same && want[k]; k++) /* the cases are written before lower-casing */
            same = want[k] == line[k] || (want[k] >= 'A' && want[k] <= 'Z' && want[k] + 32 == line[k]);
        CHECKF(same, "'%s' gives '%s', expected '%s'", text_of(c, "in"), line, want);
    }
    meteor_words_close(&words);
    meteor_data_close(&data);
}

static void stemmer(void)
{
    struct sb_stemmer *s = sb_stemmer_new("english", "UTF_8");
    const char *word;
    json_t *stem;
    json_object_foreach(json_object_get(cases, "stemmer"), word, stem)
    {
        const char *found = (const char *)sb_stemmer_stem(s, (const sb_symbol *)word, (int)strlen(word));
        CHECKF(strcmp(found, json_string_value(stem)) == 0, "%s: %s, expected %s", word, found,
               json_string_value(stem));
    }
    sb_stemmer_delete(s);
}

/* A thousand repeated words: many candidates per word, scored in moments. */
static void long_captions(void)
{
    str hyp = { 0 }, ref = { 0 };
    meteor *m = NULL;
    meteor_stats found = { { 0 } };
    double corpus = 0;
    for (int i = 0; i < 500; i++) str_put(&hyp, "a dog "), str_put(&ref, "the dog a ");
    const char *const refs[] = { str_text(&ref) };
    const eval_item item = { str_text(&hyp), refs, 1 };
    CHECK_OK(small_make(NULL));
    CHECK_OK(meteor_open(WORK "/" METEOR_FILE, &m));
    CHECK_OK(meteor_score(m, &item, 1, 1, &corpus, NULL, &found));
    CHECKF(found.n[0] == 1000 && found.n[1] == 1500 && found.n[21] == 1000 && found.n[22] == 1000, "%d %d %d %d",
           found.n[0], found.n[1], found.n[21], found.n[22]);
    CHECK(corpus > 0.3 && corpus < 1);
    meteor_close(m);
    str_free(&hyp);
    str_free(&ref);
}

/* ---- with the whole data file -------------------------------------------------------------- */

static void reference_set(void)
{
    json_t *expected = NULL;
    meteor *m = NULL;
    if (!file_exists(GOLDEN "/expected.json")) {
        check_skip("shared: the reference scores are absent");
        return;
    }
    if (!file_exists(FULL)) {
        check_skip("meteor: no " FULL "; run tools/meteor_data.sh");
        return;
    }
    CHECK_OK(json_open(GOLDEN "/expected.json", &expected));
    CHECK_OK(meteor_open(FULL, &m));
    const json_t *items = json_object_get(expected, "items");
    const json_t *corpus = json_object_get(json_object_get(expected, "corpus"), "sca");
    set s = set_open(items, "hyp_tokens", "ref_tokens");
    check_items(m, "reference set", items, &s, "meteor", "meteor_stats", json_object_get(corpus, "METEOR"));
    set_close(&s);
    meteor_close(m);
    json_decref(expected);
}

static void published(void)
{
    meteor *m = NULL;
    size_t i;
    json_t *c;
    if (!file_exists(FULL)) {
        check_skip("meteor: no " FULL "; run tools/meteor_data.sh");
        return;
    }
    CHECK_OK(meteor_open(FULL, &m));
    json_array_foreach(json_object_get(cases, "published_with_official_paraphrase_table"), i, c)
    {
        const json_t *hyps = json_object_get(c, "hyps"), *refs = json_object_get(c, "refs");
        const json_t *want = json_object_get(c, "METEOR_corpus");
        if (!want || !refs) continue;
        json_t *items = json_array();
        for (size_t k = 0; k < json_array_size(hyps); k++)
            json_array_append_new(
                items, json_pack("{sOsO}", "hyp", json_array_get(hyps, k), "refs", json_array_get(refs, k)));
        set s = set_open(items, "hyp", "refs");
        double corpus = 0;
        CHECK_OK(meteor_score(m, s.items, s.n, 1, &corpus, NULL, NULL));
        CHECKF(fabs(corpus - json_number_value(want)) < 5e-5, "%zu: %.9f, expected %.9f", i, corpus,
               json_number_value(want));
        set_close(&s);
        json_decref(items);
    }
    meteor_close(m);
}

/* ---- bad input, injected failures ---------------------------------------------------------- */

static void broken_files(void)
{
    char *text = NULL;
    size_t bytes = 0;
    meteor_data data;
    const json_t *c = json_array_get(json_object_get(cases, "meteor_no_official_paraphrases"), 2);
    CHECK_OK(small_make(json_object_get(c, "paraphrases")));
    CHECK_OK(file_read(WORK "/" METEOR_FILE, 1 << 24, &text, &bytes));
    for (size_t at = 0; at < bytes; at += 1 + at / 16) {
        if (at >= 8 && at < 12) continue; /* the flag: with or without phrases */
        text[at] ^= 0x55;
        CHECK_OK(file_write(WORK "/broken", text, bytes));
        text[at] ^= 0x55;
        CHECK_FAILS(meteor_data_open(WORK "/broken", &data), SCA_ERR_FORMAT, "tools/meteor_data.sh");
    }
    for (size_t n = 0; n < bytes; n = n * 2 + 1) {
        CHECK_OK(file_write(WORK "/broken", text, n));
        CHECK_FAILS(meteor_data_open(WORK "/broken", &data), SCA_ERR_FORMAT, "broken");
    }
    mem_free(text);
    CHECK_OK(file_write(WORK "/paraphrase-en.gz", "\x1F\x8B\x08", 3));
    CHECK_FAILS(meteor_make(WORK, WORK "/x"), SCA_ERR_FORMAT, "damaged or cut off");
    CHECK_OK(file_write(WORK "/paraphrase-en.gz", "0.1\na b\n", 8));
    CHECK_FAILS(meteor_make(WORK, WORK "/x"), SCA_ERR_FORMAT, "expected three per entry");
    CHECK_OK(file_write(WORK "/paraphrase-en.gz", "0.1\na b c d e f g h\nx\n", 22));
    CHECK_FAILS(meteor_make(WORK, WORK "/x"), SCA_ERR_FORMAT, "a phrase of 8 words");
    unlink(WORK "/paraphrase-en.gz");
    unlink(WORK "/english.words");
    CHECK_FAILS(meteor_make(WORK, WORK "/x"), SCA_ERR_IO, "english.words");
}

static sca_status make_and_score(void)
{
    static const char *const refs[] = { "two cats sit beside it", "several dogs" };
    const eval_item items[] = { { "a couple of cats next to it ... p.m.", refs, 2 }, { "", refs + 1, 1 } };
    meteor *m = NULL;
    double corpus;
    sca_status status = meteor_make(WORK, WORK "/" METEOR_FILE);
    if (status == SCA_OK) status = meteor_open(WORK "/" METEOR_FILE, &m);
    if (status == SCA_OK) status = meteor_score(m, items, 2, 1, &corpus, NULL, NULL);
    meteor_close(m);
    return status;
}

static void failures(void)
{
    const json_t *c = json_array_get(json_object_get(cases, "meteor_no_official_paraphrases"), 2);
    CHECK_OK(small_make(json_object_get(c, "paraphrases")));
    int fired = 0;
    for (int64_t n = 1;; n++) {
        fault_alloc(n);
        sca_status status = make_and_score();
        bool hit = fault_fired();
        fault_alloc(0);
        CHECKF(status == (hit ? SCA_ERR_MEMORY : SCA_OK), "allocation %d: %s", (int)n, sca_status_name(status));
        if (!hit) break;
        fired++;
    }
    for (int64_t n = 1;; n++) {
        fault_io(n);
        sca_status status = make_and_score();
        bool hit = fault_fired();
        fault_io(0);
        CHECKF(status == (hit ? SCA_ERR_IO : SCA_OK), "access %d: %s", (int)n, sca_status_name(status));
        if (!hit) break;
        fired++;
    }
    CHECKF(fired > 40, "only %d failures", fired);
}

int main(int argc, char **argv)
{
    if (!CHECKF(json_open(SCA_SOURCE "/tests/golden/metrics/cases.json", &cases) == SCA_OK, "%s", status_message()))
        return check_done();
    RUN(small_cases);
    RUN(long_captions);
    RUN(normaliser);
    RUN(stemmer);
    RUN(reference_set);
    RUN(published);
    RUN(broken_files);
    RUN(failures);
    json_decref(cases);
    return check_done();
}
