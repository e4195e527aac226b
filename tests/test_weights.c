/* test_weights.c - weight files: the golden models in every form, hand-made hostile files, quantisation, faults. */
#include "check.h"
#include "model/weights.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODELS SCA_SHARED "/golden/models/"

static bool shared_there(void)
{
    if (dir_exists(MODELS)) return true;
    check_skip("shared: the golden models are absent");
    return false;
}

/* ---- golden models --------------------------------------------------------------------------------------- */

/* Whether both hold the same values to `tolerance`, relative to the larger of 1 and the value. */
static bool same_values(const weight *a, const weight *b, double tolerance)
{
    bool same = a->count == b->count && a->ndim == b->ndim;
    for (int i = 0; same && i < a->ndim; i++) same = a->dim[i] == b->dim[i];
    double *x = malloc((size_t)a->count * 8 + 8), *y = malloc((size_t)a->count * 8 + 8);
    same = same && weight_read(a, DT_F64, x) == SCA_OK && weight_read(b, DT_F64, y) == SCA_OK;
    for (int64_t i = 0; same && i < a->count; i++) same = fabs(x[i] - y[i]) <= tolerance * fmax(1, fabs(x[i]));
    free(x);
    free(y);
    return same;
}

/* Every tensor of `a` is in `b` with equal values. */
static void check_subset(const weights *a, const weights *b, double tolerance, const char *what)
{
    for (size_t i = 0; i < weights_count(a); i++) {
        const weight *x = weights_at(a, i), *y = weights_find(b, x->name);
        CHECKF(y && same_values(x, y, tolerance), "%s: '%s' %s", what, x->name, y ? "differs" : "is missing");
        weight_drop(x);
    }
}

static void golden_forms(void)
{
    static const struct {
        const char *name;
        double tolerance;
        size_t more; /* tensors that safetensors leaves out */
    } forms[] = { { "gpt2-tiny", 0, 0 },
                  { "gpt2-tiny-bin", 0, 2 },
                  { "gpt2-tiny-legacy", 0, 2 },
                  { "gpt2-tiny-f16", 0x1p-11, 0 },
                  { "gpt2-tiny-bf16", 0x1p-8, 0 } };
    weights *first, *w;
    if (!shared_there()) return;
    CHECK_OK(weights_open(MODELS "gpt2-tiny", &first));
    CHECKF(weights_count(first) == 364, "%zu tensors", weights_count(first));
    for (size_t i = 0; i < LENGTH(forms); i++) {
        char path[512];
        snprintf(path, sizeof path, MODELS "%s", forms[i].name);
        CHECK_OK(weights_open(path, &w));
        if (!w) continue;
        CHECKF(weights_count(w) == weights_count(first) + forms[i].more, "%s: %zu", path, weights_count(w));
        check_subset(first, w, forms[i].tolerance, forms[i].name);
        weights_close(w);
    }
    weights_close(first);
}

static void golden_tied(void)
{
    weights *w;
    if (!shared_there()) return;
    CHECK_OK(weights_open(MODELS "gpt2-tiny-bin/pytorch_model.bin", &w));
    const weight *head = weights_find(w, "language_model.lm_head.weight");
    const weight *embedding = weights_find(w, "language_model.transformer.wte.weight");
    CHECK(head && embedding && head->data && head->data == embedding->data);
    CHECK_OK(weight_verify(head));
    weights_close(w);
}

static void golden_shards(void)
{
    weights *w, *fresh, *one;
    if (!shared_there()) return;
    CHECK_OK(weights_open(MODELS "llama-tiny", &w));
    CHECK(weights_find(w, "language_model.lm_head.weight") != NULL);
    CHECK_OK(weights_open(MODELS "gpt2-tiny-fresh", &fresh));
    CHECK_OK(weights_open(MODELS "gpt2-tiny", &one));
    CHECKF(weights_count(fresh) == 366, "%zu", weights_count(fresh));
    const weight *a = weights_find(fresh, "vision_encoder.pos_embed"),
                 *b = weights_find(one, "vision_encoder.pos_embed");
    CHECK(a && b && same_values(a, b, 0));
    weights_close(w);
    weights_close(fresh);
    weights_close(one);
}

static void golden_sam(void)
{
    weights *pth, *hf, *whole;
    if (!shared_there()) return;
    CHECK_OK(weights_open(MODELS "parts/sam_tiny.pth", &pth));
    CHECK_OK(weights_open(MODELS "parts/sam-tiny-hf", &hf));
    CHECK_OK(weights_open(MODELS "gpt2-tiny", &whole));
    CHECK_OK(weights_as_sam(pth));
    CHECK_OK(weights_as_sam(hf));
    CHECKF(weights_count(pth) == weights_count(hf) + 1, "%zu and %zu", weights_count(pth), weights_count(hf));
    check_subset(hf, pth, 0, "pth");
    check_subset(hf, whole, 0, "model");
    weights_close(pth);
    weights_close(hf);
    weights_close(whole);
}

static void golden_lm(void)
{
    static const char *const pairs[][2] = { { "parts/gpt2-lm", "gpt2-tiny" },
                                            { "parts/gpt2-lm-hub", "gpt2-tiny" },
                                            { "parts/open_llama-lm", "llama-tiny" } };
    if (!shared_there()) return;
    for (size_t i = 0; i < LENGTH(pairs); i++) {
        char part[512], whole[512];
        weights *a, *b;
        snprintf(part, sizeof part, MODELS "%s", pairs[i][0]);
        snprintf(whole, sizeof whole, MODELS "%s", pairs[i][1]);
        CHECK_OK(weights_open(part, &a));
        CHECK_OK(weights_open(whole, &b));
        CHECK_OK(weights_as_lm(a));
        size_t n = 0;
        for (size_t k = 0; k < weights_count(b); k++) n += text_starts(weights_at(b, k)->name, "language_model.");
        CHECKF(weights_count(a) == n, "%s: %zu and %zu", part, weights_count(a), n);
        check_subset(a, b, 0, pairs[i][0]);
        weights_close(a);
        weights_close(b);
    }
}

int main(int argc, char **argv)
{
    RUN(golden_forms);
    RUN(golden_tied);
    RUN(golden_shards);
    RUN(golden_sam);
    RUN(golden_lm);
    return check_done();
}
