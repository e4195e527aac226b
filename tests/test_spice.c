/* test_spice.c - SPICE behind the parser, and noun and verb recall. */
#include "check.h"
#include "eval/spice_parts.h"

#include <math.h>
#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden/metrics"
#define WORK SCA_BUILD "/work_spice"
#define FULL SCA_BUILD "/resources/" METEOR_FILE

/* A language of a few words: synonyms share a number. */
static meteor *small_open(void)
{
    static const char synsets[] =
        "before\n40\nbig\n20\ndog\n5\nguy\n2 3\nhound\n5 6\nin_front_of\n40\nlarge\n20 21\n"
        "man\n1 2\nperson\n3 9\nred\n10\nreddish\n10 11\nwear\n30\n";
    meteor *m = NULL;
    CHECK_OK(dir_make(WORK));
    unlink(WORK "/paraphrase-en.gz");
    CHECK_OK(file_write(WORK "/english.words", "the\n", 4));
    CHECK_OK(file_write(WORK "/english.prefixes", "", 0));
    CHECK_OK(file_write(WORK "/english.exceptions", "man\nmenfolk\n", 12));
    CHECK_OK(file_write(WORK "/english.synsets", synsets, sizeof synsets - 1));
    CHECK_OK(meteor_make(WORK, WORK "/" METEOR_FILE));
    CHECK_OK(meteor_open(WORK "/" METEOR_FILE, &m));
    return m;
}

/* "man; man,red; man,wear,hat" */
static spice_tuples tuples_of(const char *text, spice_tuple *room, char *copy)
{
    size_t n = 0;
    strcpy(copy, text);
    for (char *save = NULL, *t = strtok_r(copy, ";", &save); t; t = strtok_r(NULL, ";", &save), n++) {
        room[n] = (spice_tuple){ { NULL }, 0 };
        for (char *inner = NULL, *p = strtok_r(t, ",", &inner); p; p = strtok_r(NULL, ",", &inner))
            room[n].part[room[n].n++] = p;
    }
    return (spice_tuples){ room, n };
}

typedef struct graph_row {
    const char *hyp, *ref1, *ref2;
    size_t n_hyp, n_ref, n_true; /* tuples of the graphs; true ones of the hypothesis */
} graph_row;

static const graph_row graph_rows[] = {
    { "", "", "", 0, 0, 0 },
    { "man", "", "", 1, 0, 0 },
    { "man", "man", "", 1, 1, 1 },
    { "man", "guy", "", 1, 1, 1 }, /* a synset in common */
    { "man", "person", "", 1, 1, 0 },
    { "man", "guy", "person", 1, 1, 1 },               /* guy absorbs person */
    { "person", "man", "guy", 1, 1, 1 },               /* man and guy: one node, similar to person */
    { "man;guy;person", "dog", "", 1, 1, 0 },          /* a chain becomes one node */
    { "man;person;guy", "dog", "", 2, 1, 0 },          /* the order decides: guy joins the more similar one */
    { "menfolk", "man", "", 1, 1, 1 },                 /* irregular form */
    { "dogs", "hound", "", 1, 1, 1 },                  /* regular form */
    { "hat,red;hat,reddish", "hat,red", "", 2, 2, 2 }, /* attributes unite: node and attribute */
    { "hat,red;hat,big", "hat,large", "", 3, 2, 2 },
    { "hat,red", "dog,red", "", 2, 2, 0 },
    { "man,wear,hat", "guy,wear,hat", "", 3, 3, 3 },
    { "man,be wear,hat", "man,wear,hat", "man,wear,hat", 3, 3, 3 },
    { "man,in front of,dog", "man,before,dog", "", 3, 3, 3 }, /* blanks are written _ */
    { "dog,wear,man", "man,wear,dog", "", 3, 3, 2 },          /* nodes yes, relation no */
    { "man,wear,hat;man,in front of,hat", "man,wear,hat", "", 4, 3, 3 },
};

static void graphs(void)
{
    meteor *m = small_open();
    for (size_t i = 0; i < LENGTH(graph_rows) && m; i++) {
        const graph_row *row = &graph_rows[i];
        spice s = { .words = meteor_lend_words(m) };
        spice_graph hyp = { 0 }, ref = { 0 };
        spice_counts c = { 0 };
        spice_tuple room[3][8];
        char copy[3][200];
        spice_tuples h = tuples_of(row->hyp, room[0], copy[0]), refs[2];
        refs[0] = tuples_of(row->ref1, room[1], copy[1]), refs[1] = tuples_of(row->ref2, room[2], copy[2]);
        CHECK_OK(spice_add(&s, &hyp, h));
        CHECK_OK(spice_add(&s, &ref, refs[0]));
        CHECK_OK(spice_add(&s, &ref, refs[1]));
        CHECK_OK(spice_match(&s, &hyp, &ref, NULL, NULL, &c));
        CHECKF(c.hyp == row->n_hyp && c.ref == row->n_ref && c.true_hyp == row->n_true,
               "row %zu: %zu and %zu tuples, %zu true; expected %zu, %zu, %zu", i, c.hyp, c.ref, c.true_hyp,
               row->n_hyp, row->n_ref, row->n_true);
        double mean = -1, f = -1;
        spice_item item = { h, refs, 2 };
        CHECK_OK(spice_score(m, &item, 1, &mean, &f));
        double p = c.hyp ? (double)c.true_hyp / (double)c.hyp : 0,
               r = c.ref ? (double)c.true_hyp / (double)c.ref : 0;
        CHECK(mean == f && fabs(f - (p + r > 0 ? 2 * p * r / (p + r) : 0)) < 1e-12);
        spice_graph_free(&hyp);
        spice_graph_free(&ref);
        spice_free(&s);
    }
    meteor_close(m);
}

/* ---- the graphs that SPICE printed for the shared set -------------------------------------- */

/* Tuples of length 1, then 2, then 3; expected: their truth values in that order. */
static spice_tuples printed_tuples(const json_t *list, spice_tuple *room, bool *expected)
{
    size_t n = 0, i;
    json_t *t;
    for (size_t length = 1; length <= 3; length++) json_array_foreach(list, i, t)
        {
            const json_t *parts = json_array_get(t, 0);
            if (json_array_size(parts) != length) continue;
            room[n] = (spice_tuple){ { NULL }, (int)length };
            for (size_t k = 0; k < length; k++) room[n].part[k] = json_string_value(json_array_get(parts, k));
            expected[n++] = json_is_true(json_array_get(t, 1));
        }
    return (spice_tuples){ room, n };
}

static void reference_set(void)
{
    enum { MOST = 4000 };
    json_t *list = NULL, *scores = NULL, *o;
    meteor *m = NULL;
    size_t i;
    if (!file_exists(GOLDEN "/spice_tuples.json")) {
        check_skip("shared: the reference tuples are absent");
        return;
    }
    if (!file_exists(FULL)) {
        check_skip("meteor: no " FULL "; run tools/meteor_data.sh");
        return;
    }
    CHECK_OK(json_open(GOLDEN "/spice_tuples.json", &list));
    CHECK_OK(json_open(GOLDEN "/expected.json", &scores));
    CHECK_OK(meteor_open(FULL, &m));
    static spice_tuple room[2][MOST];
    static bool expected[2][MOST], found[2][MOST];
    spice s = { .words = meteor_lend_words(m), .printed = true };
    spice_graph hyp = { 0 }, ref = { 0 };
    json_array_foreach(list, i, o)
    {
        const char *const keys[] = { "hyp", "ref" };
        spice_tuples t[2];
        spice_counts c = { 0 };
        size_t id = (size_t)json_integer_value(json_object_get(o, "_id"));
        if (json_array_size(json_object_get(o, "ref")) > MOST) continue;
        for (int k = 0; k < 2; k++) t[k] = printed_tuples(json_object_get(o, keys[k]), room[k], expected[k]);
        spice_clear(&s, &hyp, &ref);
        CHECK_OK(spice_add(&s, &hyp, t[0]));
        CHECK_OK(spice_add(&s, &ref, t[1]));
        CHECK_OK(spice_match(&s, &hyp, &ref, found[0], found[1], &c));
        CHECKF(c.hyp == t[0].n && c.ref == t[1].n, "item %zu: %zu of %zu, %zu of %zu tuples", id, c.hyp, t[0].n,
               c.ref, t[1].n);
        for (int k = 0; k < 2; k++)
            for (size_t j = 0; j < t[k].n; j++)
                CHECKF(found[k][j] == expected[k][j], "item %zu: %s tuple %zu (%s %s %s) is %d", id, keys[k], j,
                       t[k].tuple[j].part[0], t[k].n > 1 ? t[k].tuple[j].part[1] : "", t[k].tuple[j].part[2],
                       found[k][j]);
        const json_t *want = json_object_get(json_array_get(json_object_get(scores, "items"), id), "spice");
        CHECKF(fabs(spice_f1(&c) - json_number_value(want)) < 1e-9, "item %zu: %.12f, expected %.12f", id,
               spice_f1(&c), json_number_value(want));
    }
    spice_graph_free(&hyp);
    spice_graph_free(&ref);
    spice_free(&s);
    meteor_close(m);
    json_decref(list);
    json_decref(scores);
}

/* ---- recall -------------------------------------------------------------------------------- */

static const char *const recall_refs[] = { "a Dog runs", "two dogs run", "red" };
static const eval_item recall_items[] = { { "the Dog and a man runs", recall_refs, 2 },
                                          { "", recall_refs + 2, 1 } };

/* Nouns of the first item: 1 of 2 exactly; verbs: 1 of 2; the second has none and counts as 0. */
static void check_recall(const char *text, bool fuzzy)
{
    tags *t = NULL;
    recall_scores x = { 0 };
    CHECK_OK(file_write(WORK "/tags", text, strlen(text)));
    CHECK_OK(tags_open(WORK "/tags", &t));
    if (!t) return;
    CHECK_OK(recall_score(t, recall_items, 2, &x));
    CHECKF(fabs(x.noun - 1 / (2 + 1e-8) / 2) < 1e-12 && fabs(x.verb - 1 / (2 + 1e-8) / 2) < 1e-12, "%.12f %.12f",
           x.noun, x.verb);
    CHECK(x.has_fuzzy == fuzzy);
    /* dogs: cosine with Dog 0.6, with man -0.8; run: no vector */
    if (fuzzy) CHECKF(fabs(x.noun_fuzzy - 1.6 / (2 + 1e-8) / 2) < 1e-7, "%.12f", x.noun_fuzzy);
    if (fuzzy) CHECKF(fabs(x.verb_fuzzy - 1 / (2 + 1e-8) / 2) < 1e-7, "%.12f", x.verb_fuzzy);
    tags_close(t);
}

#define HYP "the\tDET\nDog\tPROPN\nand\tCCONJ\na\tDET\nman\tNOUN\nruns\tVERB\n\n"
#define REF "a\tDET\nDog\tNOUN\nruns\tVERB\ntwo\tNUM\ndogs\tNOUN\nrun\tVERB\n\n"
#define VECTORS "# vector = Dog\t1 0\n# vector = dogs\t0.6 -0.8\n# vector = man\t0 2\n"

static void recall(void)
{
    CHECK_OK(dir_make(WORK));
    check_recall(HYP REF "\nred\tADJ\n", false);
    check_recall(VECTORS HYP REF "\r\nred\tADJ\r\n\r\n", true);
    check_recall("# text = red\nred\tADJ\n\n# text = a Dog runs two dogs run\n" REF "# text = \n\n" VECTORS
                 "# text = the Dog and a man runs\n" HYP,
                 true);
}

static void recall_errors(void)
{
    static const struct {
        const char *text, *message;
    } rows[] = {
        { "dog NOUN\n", "line 1: 'dog NOUN', expected a token" },
        { "dog\tNOUN\n", "1 texts, expected 4" },
        { "# text = x\n\n", "no text 'the Dog and a man runs'" },
        { "# text = x\nx\tX\n# text = y\n", "inside of a text" },
        { "# vector = x\t1 y\n", "'y', expected a number" },
        { "# vector = x\n", "without a tab" },
        { "# vector = x\t1 2\n# vector = y\t1\n", "a vector of 1 numbers, expected 2" },
    };
    CHECK_OK(dir_make(WORK));
    for (size_t i = 0; i < LENGTH(rows); i++) {
        tags *t = NULL;
        recall_scores x;
        CHECK_OK(file_write(WORK "/tags", rows[i].text, strlen(rows[i].text)));
        sca_status status = tags_open(WORK "/tags", &t);
        if (status == SCA_OK) status = recall_score(t, recall_items, 2, &x);
        CHECKF(status == SCA_ERR_FORMAT && strstr(status_message(), rows[i].message), "row %zu: '%s'", i,
               status_message());
        tags_close(t);
    }
}

/* ---- injected failures --------------------------------------------------------------------- */

static sca_status score_both(meteor *m)
{
    static const spice_tuple hyp[] = { { { "man", "red" }, 2 }, { { "man", "in front of", "dog" }, 3 } };
    static const spice_tuple ref[] = { { { "guy", "reddish" }, 2 }, { { "guy", "before", "hound" }, 3 } };
    const spice_tuples refs = { ref, 2 };
    const spice_item item = { { hyp, 2 }, &refs, 1 };
    double mean;
    tags *t = NULL;
    recall_scores x;
    sca_status status = spice_score(m, &item, 1, &mean, NULL);
    if (status == SCA_OK) status = tags_open(WORK "/tags", &t);
    if (status == SCA_OK) status = recall_score(t, recall_items, 2, &x);
    tags_close(t);
    return status;
}

static void failures(void)
{
    static const char text[] = "# text = red\nred\tADJ\n\n# text = a Dog runs two dogs run\n" REF
                               "# text = \n\n" VECTORS "# text = the Dog and a man runs\n" HYP;
    meteor *m = small_open();
    CHECK_OK(file_write(WORK "/tags", text, sizeof text - 1));
    for (int io = 0; io < 2; io++)
        for (int64_t n = 1; n < 5000; n++) {
            io ? fault_io(n) : fault_alloc(n);
            sca_status status = score_both(m), expected = io ? SCA_ERR_IO : SCA_ERR_MEMORY;
            bool hit = fault_fired();
            io ? fault_io(0) : fault_alloc(0);
            CHECKF(status == (hit ? expected : SCA_OK), "failure %d: %s", (int)n, sca_status_name(status));
            if (!hit) break;
        }
    meteor_close(m);
}

int main(int argc, char **argv)
{
    RUN(graphs);
    RUN(reference_set);
    RUN(recall);
    RUN(recall_errors);
    RUN(failures);
    return check_done();
}
