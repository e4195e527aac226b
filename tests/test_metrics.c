/* test_metrics.c - tokens, BLEU, ROUGE-L and CIDEr against the reference programs' numbers. */
#include "check.h"
#include "eval/eval.h"

#include <math.h>

#define CASES SCA_SOURCE "/tests/golden/metrics/cases.json"
#define GOLDEN SCA_SHARED "/golden/metrics"

static json_t *cases;

static bool near(double x, double expected) { return fabs(x - expected) <= 1e-9; }

/* ---- tokeniser ----------------------------------------------------------------------------- */

static const char **text_array(const json_t *array)
{
    const char **text = malloc((json_array_size(array) + 1) * sizeof *text);
    for (size_t i = 0; i < json_array_size(array); i++) text[i] = json_string_value(json_array_get(array, i));
    return text;
}

static void check_lines(const char *id, const texts *lines, const json_t *expected)
{
    if (!CHECKF(lines->count == json_array_size(expected), "%s: %zu lines, expected %zu", id, lines->count,
                json_array_size(expected)))
        return;
    for (size_t i = 0; i < lines->count; i++) {
        const char *want = json_string_value(json_array_get(expected, i));
        CHECKF(strcmp(texts_get(lines, i), want) == 0, "%s line %zu: '%s', expected '%s'", id, i,
               texts_get(lines, i), want);
    }
}

/* The captions of a case as one stream, as the driver of the reference joins them. */
static void check_case_lines(ptb *p, const json_t *c, const json_t *expected, bool filter)
{
    str joined = { 0 };
    texts lines = { 0 };
    const json_t *captions = json_object_get(c, "captions");
    for (size_t i = 0; i < json_array_size(captions); i++) {
        if (i) str_putc(&joined, '\n');
        str_put(&joined, json_string_value(json_array_get(captions, i)));
    }
    CHECK_OK(ptb_lines(p, str_text(&joined), joined.bytes, filter, &lines));
    check_lines(json_string_value(json_object_get(c, "id")), &lines, expected);
    texts_free(&lines);
    str_free(&joined);
}

static void tokenizer_cases(void)
{
    static const struct {
        ptb_version version;
        const char *raw, *filtered;
    } rows[] = {
        { PTB_3_4_1, "lines_before_filter", "lines" },
        { PTB_3_6_0, "lines_before_filter_3_6_0", "lines_3_6_0" },
    };
    for (size_t r = 0; r < LENGTH(rows); r++) {
        ptb *p = NULL;
        CHECK_OK(ptb_open(rows[r].version, &p));
        size_t i;
        json_t *c;
        json_array_foreach(json_object_get(cases, "tokenizer"), i, c)
        {
            const json_t *raw = json_object_get(c, rows[r].raw), *filtered = json_object_get(c, rows[r].filtered);
            if (!raw) raw = json_object_get(c, rows[0].raw);
            if (!filtered) filtered = json_object_get(c, rows[0].filtered);
            check_case_lines(p, c, raw, false);
            check_case_lines(p, c, filtered, true);
        }
        ptb_close(p);
    }
}

static void tokenizer_captions(void)
{
    static const char *const captions[] = { "a\rb\xE2\x80\xA8"
                                            "c\x0B"
                                            "d\xC2\x85"
                                            "e",
                                            "",
                                            NULL,
                                            "plan b.",
                                            "The end",
                                            "\n\n",
                                            "" };
    static const char *const expected[] = { "a b c d e", "", "", "plan b", "the end", "", "" };
    ptb *p = NULL;
    texts lines = { 0 };
    CHECK_OK(ptb_open(PTB_3_6_0, &p));
    CHECK_OK(ptb_captions(p, captions, LENGTH(captions), &lines));
    CHECK(lines.count == LENGTH(captions));
    for (size_t i = 0; i < lines.count; i++)
        CHECKF(strcmp(texts_get(&lines, i), expected[i]) == 0, "%zu: '%s'", i, texts_get(&lines, i));
    CHECK_OK(ptb_captions(p, captions, 0, &lines));
    CHECK(lines.count == LENGTH(captions));
    texts_free(&lines);
    ptb_close(p);
}

/* A quoted value in markup may run over the border of captions; each keeps its part. */
static void tokenizer_borders(void)
{
    static const char *const captions[] = { "a <b c='x ", "y z'> dog.", "end" };
    static const char *const expected[] = { ("a <b\xC2\xA0" /* two pieces, or the c would belong to the escape */
                                             "c='x"),
                                            "y\xC2\xA0z'> dog", "end" };
    ptb *p = NULL;
    texts lines = { 0 };
    CHECK_OK(ptb_open(PTB_3_6_0, &p));
    CHECK_OK(ptb_captions(p, captions, LENGTH(captions), &lines));
    for (size_t i = 0; i < lines.count; i++)
        CHECKF(strcmp(texts_get(&lines, i), expected[i]) == 0, "%zu: '%s'", i, texts_get(&lines, i));
    texts_free(&lines);
    ptb_close(p);
}

/* No input is refused; time grows with the length only, also where tokens could reach far. */
static void tokenizer_hostile(void)
{
    static const char *const pieces[] = { "<a ",      "a@",      "www.a.", "&", "a-", "' ",
                                          "\xFF\xC0", "http://", "1 ",     "-", "a'" };
    ptb *p = NULL;
    CHECK_OK(ptb_open(PTB_3_4_1, &p));
    for (size_t i = 0; i < LENGTH(pieces); i++) {
        str text = { 0 };
        texts lines = { 0 };
        for (int k = 0; k < 100000; k++) str_put(&text, pieces[i]);
        const char *captions[] = { text.data };
        CHECK_OK(ptb_captions(p, captions, 1, &lines));
        CHECK(lines.count == 1);
        texts_free(&lines);
        str_free(&text);
    }
    ptb_close(p);
}

/* ---- BLEU, ROUGE-L, CIDEr ------------------------------------------------------------------ */

typedef struct set {
    eval_item *items;
    size_t n;
} set;

/* Items from objects with "hyp_tokens" and "ref_tokens". */
static set set_open(const json_t *array)
{
    set s = { calloc(json_array_size(array) + 1, sizeof *s.items), json_array_size(array) };
    for (size_t i = 0; i < s.n; i++) {
        const json_t *o = json_array_get(array, i), *refs = json_object_get(o, "ref_tokens");
        s.items[i] = (eval_item){ json_string_value(json_object_get(o, "hyp_tokens")), text_array(refs),
                                  json_array_size(refs) };
    }
    return s;
}

static void set_close(set *s)
{
    for (size_t i = 0; i < s->n; i++) free((void *)(uintptr_t)s->items[i].refs);
    free(s->items);
}

typedef struct scores {
    double bleu[4], rouge, cider, original, (*bleus)[4], *rouges, *ciders, *originals;
} scores;

static scores scores_open(const set *s)
{
    scores x = { 0 };
    grams *g = NULL;
    x.bleus = calloc(s->n, sizeof *x.bleus);
    x.rouges = calloc(s->n, sizeof(double));
    x.ciders = calloc(s->n, sizeof(double));
    x.originals = calloc(s->n, sizeof(double));
    CHECK_OK(grams_open(s->items, s->n, &g));
    bleu_score(g, x.bleu, x.bleus);
    CHECK_OK(rouge_score(s->items, s->n, &x.rouge, x.rouges));
    CHECK_OK(cider_score(g, false, &x.cider, x.ciders));
    CHECK_OK(cider_score(g, true, &x.original, x.originals));
    grams_close(g);
    return x;
}

static void scores_close(scores *x)
{
    free(x->bleus);
    free(x->rouges);
    free(x->ciders);
    free(x->originals);
}

static void check_number(const char *id, const char *what, double found, const json_t *expected)
{
    double want = json_number_value(expected);
    CHECKF(json_is_number(expected) && near(found, want), "%s %s: %.17g, expected %.17g", id, what, found, want);
}

static void check_four(const char *id, const double *found, const json_t *expected)
{
    for (size_t k = 0; k < 4; k++) check_number(id, "BLEU", found[k], json_array_get(expected, k));
}

static void caption_cases(void)
{
    size_t i;
    json_t *c;
    json_array_foreach(json_object_get(cases, "caption_scores"), i, c)
    {
        const char *id = json_string_value(json_object_get(c, "id"));
        set s = set_open(json_object_get(c, "items"));
        scores x = scores_open(&s);
        check_four(id, x.bleu, json_object_get(c, "bleu"));
        check_number(id, "ROUGE-L", x.rouge, json_object_get(c, "rouge_l"));
        check_number(id, "CIDEr-D", x.cider, json_object_get(c, "cider_d"));
        check_number(id, "CIDEr", x.original, json_object_get(c, "cider_original"));
        for (size_t k = 0; k < s.n; k++) {
            check_four(id, x.bleus[k], json_array_get(json_object_get(c, "bleu_per_item"), k));
            check_number(id, "ROUGE-L", x.rouges[k], json_array_get(json_object_get(c, "rouge_l_per_item"), k));
            check_number(id, "CIDEr-D", x.ciders[k], json_array_get(json_object_get(c, "cider_d_per_item"), k));
            check_number(id, "CIDEr", x.originals[k],
                         json_array_get(json_object_get(c, "cider_original_per_item"), k));
        }
        scores_close(&x);
        set_close(&s);
    }
}

/* ---- the shared reference set: 432 items --------------------------------------------------- */

/* Tokens of the captions file by our tokeniser, compared and scored. */
static void check_profile(const char *profile, const json_t *expected, const json_t *records, ptb_version version)
{
    const json_t *items = json_object_get(expected, "items"), *corpus;
    corpus = json_object_get(json_object_get(expected, "corpus"), profile);
    size_t n = json_array_size(items);
    json_t *tokens = json_array();
    const char **hyps = calloc(n, sizeof *hyps), **refs = calloc(n * 8, sizeof *refs);
    size_t n_refs = 0, r = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(records, i), *list = json_object_get(o, "references");
        hyps[i] = json_string_value(json_array_get(json_object_get(o, "candidates"), 0));
        for (size_t k = 0; k < json_array_size(list); k++)
            refs[n_refs++] = json_string_value(json_array_get(list, k));
    }
    ptb *p = NULL;
    texts hyp_lines = { 0 }, ref_lines = { 0 };
    CHECK_OK(ptb_open(version, &p));
    CHECK_OK(ptb_captions(p, refs, n_refs, &ref_lines));
    CHECK_OK(ptb_captions(p, hyps, n, &hyp_lines));
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(items, i), *other = json_object_get(o, profile), *hyp, *list;
        hyp = json_object_get(other, "hyp_tokens");
        list = json_object_get(other, "ref_tokens");
        if (!hyp) hyp = json_object_get(o, "hyp_tokens");
        if (!list) list = json_object_get(o, "ref_tokens");
        CHECKF(strcmp(texts_get(&hyp_lines, i), json_string_value(hyp)) == 0, "%s %zu: '%s', expected '%s'",
               profile, i, texts_get(&hyp_lines, i), json_string_value(hyp));
        for (size_t k = 0; k < json_array_size(list); k++, r++)
            CHECKF(strcmp(texts_get(&ref_lines, r), json_string_value(json_array_get(list, k))) == 0,
                   "%s %zu: '%s', expected '%s'", profile, i, texts_get(&ref_lines, r),
                   json_string_value(json_array_get(list, k)));
        json_array_append_new(tokens, json_pack("{sOsO}", "hyp_tokens", hyp, "ref_tokens", list));
    }
    set s = set_open(tokens);
    scores x = scores_open(&s);
    static const char *const bleu[] = { "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4" };
    for (size_t k = 0; k < 4; k++) check_number(profile, bleu[k], x.bleu[k], json_object_get(corpus, bleu[k]));
    check_number(profile, "ROUGE-L", x.rouge, json_object_get(corpus, "ROUGE-L"));
    check_number(profile, "CIDEr-D", x.cider, json_object_get(corpus, "CIDEr-D"));
    check_number(profile, "CIDEr", x.original, json_object_get(corpus, "CIDEr-original"));
    for (size_t i = 0; i < n; i++) {
        const json_t *o = json_array_get(items, i), *other = json_object_get(o, profile), *cider, *rouge, *four;
        cider = json_object_get(other, "cider_d");
        rouge = json_object_get(other, "rouge_l");
        four = json_object_get(other, "bleu");
        check_number(profile, "item CIDEr-D", x.ciders[i], cider ? cider : json_object_get(o, "cider_d"));
        check_number(profile, "item ROUGE-L", x.rouges[i], rouge ? rouge : json_object_get(o, "rouge_l"));
        check_four(profile, x.bleus[i], four ? four : json_object_get(o, "bleu"));
    }
    scores_close(&x);
    set_close(&s);
    texts_free(&hyp_lines);
    texts_free(&ref_lines);
    ptb_close(p);
    free(hyps);
    free(refs);
    json_decref(tokens);
}

static void reference_set(void)
{
    json_t *expected = NULL, *records = NULL;
    if (!file_exists(GOLDEN "/expected.json")) {
        check_skip("shared: the reference scores are absent");
        return;
    }
    CHECK_OK(json_open(GOLDEN "/expected.json", &expected));
    CHECK_OK(json_open(GOLDEN "/captions.json", &records));
    check_profile("sca", expected, records, PTB_3_6_0);
    check_profile("coco", expected, records, PTB_3_4_1);
    json_decref(expected);
    json_decref(records);
}

/* ---- injected failures --------------------------------------------------------------------- */

static sca_status score_all(const eval_item *items, size_t n)
{
    static const char *const captions[] = { "a dog", "can't stop" };
    double four[4], x;
    grams *g = NULL;
    ptb *p = NULL;
    texts lines = { 0 };
    sca_status status = SCA_OK;
    TRY_GOTO(done, ptb_open(PTB_3_6_0, &p));
    TRY_GOTO(done, ptb_captions(p, captions, 2, &lines));
    TRY_GOTO(done, grams_open(items, n, &g));
    bleu_score(g, four, NULL);
    TRY_GOTO(done, rouge_score(items, n, &x, NULL));
    TRY_GOTO(done, cider_score(g, false, &x, NULL));
done:
    grams_close(g);
    texts_free(&lines);
    ptb_close(p);
    return status;
}

static void memory_failures(void)
{
    static const char *const refs[] = { "a dog runs in the park", "the dog", "" };
    const eval_item items[] = { { "a dog runs", refs, 3 }, { "", refs + 1, 1 } };
    int failures = 0;
    for (int64_t n = 1;; n += 1 + n / 40) {
        fault_alloc(n);
        sca_status status = score_all(items, 2);
        bool fired = fault_fired();
        fault_alloc(0);
        CHECKF(status == (fired ? SCA_ERR_MEMORY : SCA_OK), "allocation %d: %s", (int)n, sca_status_name(status));
        if (!fired) break;
        failures++;
    }
    CHECKF(failures > 20, "only %d failures", failures);
}

int main(int argc, char **argv)
{
    if (!CHECKF(json_open(CASES, &cases) == SCA_OK, "%s", status_message())) return check_done();
    RUN(tokenizer_cases);
    RUN(tokenizer_captions);
    RUN(tokenizer_borders);
    RUN(tokenizer_hostile);
    RUN(caption_cases);
    RUN(reference_set);
    RUN(memory_failures);
    json_decref(cases);
    return check_done();
}
