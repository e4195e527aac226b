/* test_smollm2.c - a real language model from a GGUF file: token ids and logits as the reference library gives them
 * for the same weights, dequantised and rounded to F16. */
#include "check.h"
#include "model/model_classes.h"

#include <math.h>

#define GGUF_FILE SCA_SOURCE "/resources/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
#define CASES SCA_SHARED "/golden/smollm2/cases.json"
enum { TEMP_BYTES = 64 << 20, CASES_CHECKED = 8, TOKENS_MOST = 16 };

typedef struct loaded {
    weights *w;
    tokenizer *t;
    lm_config sizes;
    dev *d;
    arena memory, temp;
    param_set params;
    lm m;
} loaded;

/* Values rounded to F16, as the reference has them. */
static sca_status place_value(loaded *l, const param_entry *e)
{
    const weight *t = weights_find(l->w, e->name);
    if (!t && e->alias) {
        e->p->v = param_find(&l->params, e->alias)->p->v;
        return SCA_OK;
    }
    if (!t || t->count != param_count(e))
        return status_fail(SCA_ERR_FORMAT, "'%s' is missing or misshapen", e->name);
    uint16_t *half = mem_alloc((size_t)t->count * 2);
    if (!half) return mem_fail((size_t)t->count * 2, e->name);
    sca_status status = weight_read(t, DT_F16, half);
    weight_drop(t);
    if (status == SCA_OK) {
        e->p->v = arena_tensor(&l->memory, DT_F32, e->ndim, e->dim);
        if (e->p->v.data) dtype_convert(DT_F32, e->p->v.data, DT_F16, half, (size_t)t->count);
        status = dev_check(l->d);
    }
    mem_free(half);
    return status;
}

static sca_status load(loaded *l)
{
    json_t *json;
    size_t bytes = 0;
    TRY(weights_open(GGUF_FILE, &l->w));
    TRY(weights_as_lm(l->w));
    TRY(weights_tokenizer(l->w, &l->t));
    TRY(weights_lm_config(l->w, &json));
    sca_status status = lm_config_parse(json, GGUF_FILE, &l->sizes);
    json_decref(json);
    TRY(status);
    TRY(lm_bind(&l->params, &l->m, &l->sizes));
    for (size_t i = 0; i < l->params.n; i++) bytes += (size_t)param_count(&l->params.entries[i]) * 4 + 256;
    TRY(dev_open("cpu", "", &l->d));
    TRY(arena_open(l->d, bytes, &l->memory));
    TRY(arena_open(l->d, TEMP_BYTES, &l->temp));
    for (size_t i = 0; i < l->params.n; i++) TRY(place_value(l, &l->params.entries[i]));
    return SCA_OK;
}

static void unload(loaded *l)
{
    lm_free(&l->m);
    param_set_free(&l->params);
    arena_close(&l->temp);
    arena_close(&l->memory);
    dev_close(l->d);
    tokenizer_close(l->t);
    weights_close(l->w);
}

/* Logits (n,V) after each token. */
static sca_status all_logits(loaded *l, const int *ids, int n, float *out)
{
    const pass p = { l->d, &l->temp };
    size_t mark = arena_mark(&l->temp);
    int32_t own[TOKENS_MOST] = { 0 };
    int64_t width = l->sizes.width;
    tensor h = pass_3d(&p, 1, n, width), list = pass_ids(&p, n), logits = pass_2d(&p, n, l->sizes.vocab);
    tensor index = arena_tensor(&l->temp, DT_I32, 2, (const int64_t[]){ 1, n });
    dev_put(l->d, list, ids, (size_t)n * sizeof *ids);
    dev_put(l->d, index, own, (size_t)n * sizeof *own);
    lm_embed(&p, &l->m, tensor_reshape2(h, n, width), list);
    lm_cache cache = lm_cache_new(&p, &l->m, 1, n);
    lm_fwd(&p, &l->m, h, 0, &cache, 1, index);
    lm_logits(&p, &l->m, logits, tensor_reshape2(h, n, width));
    sca_status status = dev_get_f32(l->d, out, logits);
    arena_release(&l->temp, mark);
    return status;
}

static void check_text(loaded *l, const json_t *item, float *logits)
{
    const char *text = json_string_value(json_object_get(item, "text"));
    const json_t *ids = json_object_get(item, "ids");
    int *got = NULL, n = 0;
    CHECK_OK(tokenizer_encode(l->t, text, strlen(text), false, &got, &n));
    bool same = n == (int)json_array_size(ids) && n <= TOKENS_MOST;
    for (int i = 0; same && i < n; i++) same = got[i] == (int)json_integer_value(json_array_get(ids, (size_t)i));
    if (CHECKF(same, "'%s' has other ids", text) && CHECK(all_logits(l, got, n, logits) == SCA_OK)) {
        int64_t vocab = l->sizes.vocab;
        double sum = 0, squares = 0, worst = 0;
        for (int64_t i = 0; i < (int64_t)n * vocab; i++) sum += logits[i], squares += (double)logits[i] * logits[i];
        for (size_t i = 0; i < 10; i++) {
            int id = (int)json_integer_value(json_array_get(json_object_get(item, "top_ids"), i));
            double expected = json_number_value(json_array_get(json_object_get(item, "top_logits"), i));
            worst = fmax(worst, fabs(logits[(n - 1) * vocab + id] - expected));
        }
        CHECKF(worst < 2e-4, "'%s': a logit differs by %g", text, worst);
        double square_sum = json_number_value(json_object_get(item, "logits_sq"));
        CHECKF(fabs(squares / square_sum - 1) < 1e-5, "'%s': %.9g, expected %.9g", text, squares, square_sum);
        CHECK(fabs(sum - json_number_value(json_object_get(item, "logits_sum"))) < 2e-4 * (double)(n * vocab));
    }
    mem_free(got);
}

static void logits_of_texts(void)
{
    loaded l = { 0 };
    json_t *root = NULL;
    if (!file_exists(CASES)) {
        check_skip("shared: the golden values are absent");
        return;
    }
    if (!file_exists(GGUF_FILE)) {
        check_skip("smollm2: run tools/fetch_smollm2.sh");
        return;
    }
    CHECK_OK(json_open(CASES, &root));
    sca_status status = load(&l);
    float *logits = calloc((size_t)TOKENS_MOST << 16, sizeof *logits);
    const json_t *items = json_object_get(root, "cases");
    if (CHECKF(status == SCA_OK, "%s", sca_last_error()))
        for (size_t i = 0; i < CASES_CHECKED && i < json_array_size(items); i++)
            check_text(&l, json_array_get(items, i), logits);
    free(logits);
    unload(&l);
    json_decref(root);
}

int main(int argc, char **argv)
{
    RUN(logits_of_texts);
    return check_done();
}
