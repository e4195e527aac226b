/* test_smollm2.c - a real language model from a GGUF file: assembled with a small SAM, exported as a model directory,
 * opened from there. Token ids, logits, greedy and beam search as the reference library gives them for the same
 * weights, dequantised and rounded to F16. */
#include "check.h"
#include "model/inside.h"

#include <math.h>

#define SAM SCA_SHARED "/golden/models/parts/sam_tiny.pth"
#define CASES SCA_SHARED "/golden/smollm2/cases.json"
#define EXPORTED SCA_BUILD "/smollm2_exported"
#define GGUF_NAME "resources/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
enum { TOKENS_MOST = 32, NEW_TOKENS = 20, TOP = 10 };
static const size_t TEMP_BYTES = (size_t)256 << 20;
static const double MOST_OFF = 1e-4; /* of sums and means; twice that of single logits */

/* Where tools/fetch_smollm2.sh puts it, by the source or by the build; NULL: nowhere. */
static const char *gguf_file(void)
{
    static const char *const paths[] = { SCA_SOURCE "/" GGUF_NAME, SCA_BUILD "/../" GGUF_NAME };
    for (size_t i = 0; i < LENGTH(paths); i++)
        if (file_exists(paths[i])) return paths[i];
    return NULL;
}

static bool have_files(void)
{
    if (!file_exists(CASES))
        check_skip("shared: the golden values are absent");
    else if (!gguf_file())
        check_skip("smollm2: the model is absent, tools/fetch_smollm2.sh fetches it");
    else
        return true;
    return false;
}

static sca_status open_set(model **m, const char *const *assignments)
{
    config *c = NULL;
    sca_status status = config_open(NULL, &c);
    for (int i = 0; assignments[i] && status == SCA_OK; i++) status = config_set(c, assignments[i]);
    if (status == SCA_OK) status = model_open(c, m);
    config_close(c);
    return status;
}

/* GGUF file -> model directory -> model. */
static sca_status open_exported(model **out)
{
    str name = { 0 };
    model *fresh = NULL;
    *out = NULL;
    str_printf(&name, "model.lm=%s", gguf_file());
    sca_status status =
        open_set(&fresh, (const char *const[]){ "model.sam=" SAM, str_text(&name), "run.device=cpu", NULL });
    str_free(&name);
    if (status == SCA_OK) status = model_export(fresh, EXPORTED, DT_F16, false);
    model_close(fresh);
    TRY(status);
    TRY(open_set(out, (const char *const[]){ "model.path=" EXPORTED, "run.device=cpu", NULL }));
    return temp_reserve(*out, TEMP_BYTES, "the activations", HINT_ENCODE);
}

static void remove_exported(void)
{
    static const char *const names[] = { "model.safetensors",        "config.json",    "generation_config.json",
                                         "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
                                         "special_tokens_map.json" };
    for (size_t i = 0; i < LENGTH(names); i++) {
        char *path = path_join(EXPORTED, names[i]);
        CHECK_OK(file_remove(path));
        mem_free(path);
    }
}

/* ---- one text ------------------------------------------------------------------------------------------ */

static double number(const json_t *item, const char *key) { return json_number_value(json_object_get(item, key)); }
static int id_at(const json_t *list, size_t i) { return (int)json_integer_value(json_array_get(list, i)); }

static bool same_ids(const json_t *list, const int *ids, int n)
{
    bool same = json_array_size(list) == (size_t)n;
    for (int i = 0; same && i < n; i++) same = ids[i] == id_at(list, (size_t)i);
    return same;
}

/* Embeddings (1,n,d) of a text, in temp. */
static tensor embed(const run *r, const int *ids, int n)
{
    int64_t width = r->c->lm.width;
    tensor h = pass_3d(&r->p, 1, n, width), list = pass_ids(&r->p, n);
    dev_put(r->p.d, list, ids, (size_t)n * sizeof *ids);
    lm_embed(&r->p, &r->n->lm, tensor_reshape2(h, n, width), list);
    return h;
}

/* Logits (n,V) after each token. */
static sca_status all_logits(const run *r, const int *ids, int n, float *out)
{
    int32_t own[TOKENS_MOST] = { 0 };
    size_t mark = arena_mark(r->p.temp);
    tensor h = embed(r, ids, n), logits = pass_2d(&r->p, n, r->c->lm.vocab);
    tensor index = arena_tensor(r->p.temp, DT_I32, 2, (const int64_t[]){ 1, n });
    dev_put(r->p.d, index, own, (size_t)n * sizeof *own);
    lm_cache cache = lm_cache_new(&r->p, &r->n->lm, 1, n);
    lm_fwd(&r->p, &r->n->lm, h, 0, &cache, 1, index);
    lm_logits(&r->p, &r->n->lm, logits, tensor_reshape2(h, n, r->c->lm.width));
    sca_status status = dev_get_f32(r->p.d, out, logits);
    arena_release(r->p.temp, mark);
    return status;
}

/* -log of the probability that the row gives to an id. */
static double surprise(const float *row, int64_t vocab, int id)
{
    double most = row[0], sum = 0;
    for (int64_t i = 1; i < vocab; i++) most = fmax(most, row[i]);
    for (int64_t i = 0; i < vocab; i++) sum += exp(row[i] - most);
    return most + log(sum) - row[id];
}

static double check_logits(const json_t *item, const float *logits, const int *ids, int n, int64_t vocab)
{
    const char *text = json_string_value(json_object_get(item, "text"));
    const float *last = logits + (n - 1) * vocab;
    double sum = 0, squares = 0, nll = 0, worst = 0;
    for (int64_t i = 0; i < n * vocab; i++) sum += logits[i], squares += (double)logits[i] * logits[i];
    for (int i = 1; i < n; i++) nll += surprise(logits + (i - 1) * vocab, vocab, ids[i]) / (n - 1);
    for (size_t k = 0; k < TOP; k++) {
        int id = id_at(json_object_get(item, "top_ids"), k), above = 0;
        for (int64_t i = 0; i < vocab; i++) above += last[i] > last[id];
        CHECKF(above == (int)k, "'%s': token %d has rank %d, expected %zu", text, id, above, k);
        double want = json_number_value(json_array_get(json_object_get(item, "top_logits"), k));
        worst = fmax(worst, fabs(last[id] - want));
    }
    CHECKF(worst < 2 * MOST_OFF, "'%s': a logit differs by %g", text, worst);
    double off = fabs(sum - number(item, "logits_sum")) / (double)(n * vocab);
    CHECKF(off < MOST_OFF, "'%s': the logits differ by %g on average", text, off);
    double ratio = squares / number(item, "logits_sq") - 1;
    CHECKF(fabs(ratio) < 1e-5, "'%s': the squares of the logits differ by the factor 1%+g", text, ratio);
    CHECKF(fabs(nll - number(item, "nll")) < MOST_OFF, "'%s': nll %.9g, expected %.9g", text, nll,
           number(item, "nll"));
    return worst;
}

static void check_generated(const run *r, const json_t *item, const int *ids, int n, int beams)
{
    const char *key = beams > 1 ? "beam3" : "greedy";
    generate_options o = { .beams = beams, .max_tokens = NEW_TOKENS, .length_penalty = 1 };
    generated g = { 0 };
    size_t mark = arena_mark(r->p.temp);
    CHECK_OK(generate(&r->p, &r->n->lm, (tensor){ 0 }, embed(r, ids, n), &o, 0, &g));
    arena_release(r->p.temp, mark);
    bool same = same_ids(json_object_get(item, key), g.tokens, g.n);
    if (!CHECKF(same, "%s of '%s':", key, json_string_value(json_object_get(item, "text"))))
        for (int i = 0; i < g.n; i++) fprintf(stderr, " %d", g.tokens[i]);
    double want = number(item, "beam3_score");
    if (beams > 1) CHECKF(fabs(g.score - want) < MOST_OFF, "score %.9g, expected %.9g", g.score, want);
    mem_free(g.tokens);
}

static void check_text(model *m, const json_t *item, float *logits, double *worst)
{
    const json_t *text = json_object_get(item, "text");
    run r = real_run(m);
    int *ids = NULL, n = 0;
    CHECK_OK(tokenizer_encode(m->tokenizer, json_string_value(text), json_string_length(text), false, &ids, &n));
    bool same = same_ids(json_object_get(item, "ids"), ids, n) && n <= TOKENS_MOST;
    if (CHECKF(same, "'%s' has other ids", json_string_value(text))) {
        CHECK_OK(all_logits(&r, ids, n, logits));
        *worst = fmax(*worst, check_logits(item, logits, ids, n, m->sizes.lm.vocab));
        check_generated(&r, item, ids, n, 1);
        check_generated(&r, item, ids, n, 3);
    }
    mem_free(ids);
}

static void exported_and_opened(void)
{
    json_t *root = NULL;
    model *m = NULL;
    double worst = 0;
    if (!have_files()) return;
    CHECK_OK(json_open(CASES, &root));
    CHECK_OK(open_exported(&m));
    const json_t *items = json_object_get(root, "cases");
    CHECK(json_array_size(items) == 20);
    float *logits = m ? mem_zero((size_t)TOKENS_MOST * (size_t)m->sizes.lm.vocab, sizeof *logits) : NULL;
    for (size_t i = 0; logits && i < json_array_size(items); i++)
        check_text(m, json_array_get(items, i), logits, &worst);
    printf("largest difference of a logit: %.2g\n", worst);
    mem_free(logits);
    model_close(m);
    json_decref(root);
    remove_exported();
}

int main(int argc, char **argv)
{
    RUN(exported_and_opened);
    return check_done();
}
