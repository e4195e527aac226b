/* test_nn.c - modules: the absorbed two-way transformer against the formulas of model.md 4 written out plainly, and
 * the language model's cache against the whole sequence at once; both in double. */
#include "check.h"

#include "base/rng.h"
#include "model/model.h"

#include <math.h>

/* ---- a module with random parameters on the reference device ----------------------------------------- */

typedef struct bench {
    dev *d;
    arena weights, temp;
    param_set set;
    pass p;
} bench;

static void bench_open(bench *b)
{
    *b = (bench){ 0 };
    CHECK_OK(dev_open("ref", "", &b->d));
    CHECK_OK(arena_open(b->d, (size_t)64 << 20, &b->weights));
    CHECK_OK(arena_open(b->d, (size_t)64 << 20, &b->temp));
    b->p = (pass){ b->d, &b->temp };
}

static void bench_close(bench *b)
{
    param_set_free(&b->set);
    arena_close(&b->temp);
    arena_close(&b->weights);
    dev_close(b->d);
}

static void fill(tensor t, const char *name, double scale, double offset)
{
    double *v = t.data;
    uint64_t key = rng_key(7, name);
    for (int64_t i = 0; i < tensor_count(t); i++) {
        float four[4];
        rng_normal(rng_philox(key, (uint64_t)i, 0), four);
        v[i] = offset + scale * (double)four[0];
    }
}

/* Norm weights around 1, everything else around 0. */
static void place_random(bench *b)
{
    for (size_t i = 0; i < b->set.n; i++) {
        param_entry *e = &b->set.entries[i];
        e->p->v = arena_tensor(&b->weights, DT_F64, e->ndim, e->dim);
        fill(e->p->v, e->name, 0.3, e->init == INIT_ONE ? 1 : 0);
    }
}

static const double *value(const bench *b, const char *prefix, const char *name)
{
    char full[200];
    snprintf(full, sizeof full, "%s.%s", prefix, name);
    const param_entry *e = param_find(&b->set, full);
    CHECKF(e != NULL, "%s is not registered", full);
    return e ? e->p->v.data : NULL;
}

/* ---- model.md 4, written out for one region; head sizes whose square roots are exact in f32 ---------- */

enum { C = 64, HEADS = 4, DOWN = 4, HIDDEN = 24, T = 5, S = 9, LAYERS = 3, N = 2 };

/* y (R,n) = x (R,k) W^T + b */
static void plain_linear(const double *W, const double *bias, const double *x, int R, int k, int n, double *y)
{
    for (int r = 0; r < R; r++)
        for (int i = 0; i < n; i++) {
            double sum = bias[i];
            for (int j = 0; j < k; j++) sum += W[i * k + j] * x[r * k + j];
            y[r * n + i] = sum;
        }
}

/* A(q,k,v) of model.md 4: out (Rq,C) */
static void plain_attention(const bench *b, const char *at, int m, const double *q, int Rq, const double *k,
                            const double *v, int Rk, double *out)
{
    double Q[S * C], K[S * C], V[S * C], mixed[S * C];
    int D = m / HEADS;
    plain_linear(value(b, at, "q_proj.weight"), value(b, at, "q_proj.bias"), q, Rq, C, m, Q);
    plain_linear(value(b, at, "k_proj.weight"), value(b, at, "k_proj.bias"), k, Rk, C, m, K);
    plain_linear(value(b, at, "v_proj.weight"), value(b, at, "v_proj.bias"), v, Rk, C, m, V);
    for (int r = 0; r < Rq; r++)
        for (int h = 0; h < HEADS; h++) {
            double p[S], sum = 0;
            for (int s = 0; s < Rk; s++) {
                double dot = 0;
                for (int d = 0; d < D; d++) dot += Q[r * m + h * D + d] * K[s * m + h * D + d];
                p[s] = exp(dot / sqrt(D));
                sum += p[s];
            }
            for (int d = 0; d < D; d++) {
                double y = 0;
                for (int s = 0; s < Rk; s++) y += p[s] / sum * V[s * m + h * D + d];
                mixed[r * m + h * D + d] = y;
            }
        }
    plain_linear(value(b, at, "out_proj.weight"), value(b, at, "out_proj.bias"), mixed, Rq, m, C, out);
}

static void plain_norm(const bench *b, const char *at, const char *name, double eps, double *x, int R)
{
    char w[64], bias[64];
    snprintf(w, sizeof w, "%s.weight", name);
    snprintf(bias, sizeof bias, "%s.bias", name);
    for (int r = 0; r < R; r++) {
        double mean = 0, var = 0;
        for (int c = 0; c < C; c++) mean += x[r * C + c] / C;
        for (int c = 0; c < C; c++) var += (x[r * C + c] - mean) * (x[r * C + c] - mean) / C;
        for (int c = 0; c < C; c++)
            x[r * C + c] = (x[r * C + c] - mean) / sqrt(var + eps) * value(b, at, w)[c] + value(b, at, bias)[c];
    }
}

static void plus(double *y, const double *a, const double *b, int n)
{
    for (int i = 0; i < n; i++) y[i] = a[i] + b[i];
}

/* Q (T,C) and K (S,C) of one region, in place of the token copy and the image tokens. */
static void plain_twoway(const bench *b, const double *E, const double *R, double eps, double *Q, double *K)
{
    double qe[S * C], kr[S * C], out[S * C], hidden[T * HIDDEN];
    char at[80], sub[120];
    memcpy(Q, E, sizeof(double) * T * C);
    for (int i = 0; i < LAYERS; i++) {
        snprintf(at, sizeof at, "t.layers.%d", i);
        snprintf(sub, sizeof sub, "%s.self_attn", at);
        plus(qe, Q, E, T * C);
        plain_attention(b, sub, C, i ? qe : Q, T, i ? qe : Q, Q, T, out);
        if (i)
            plus(Q, Q, out, T * C);
        else
            memcpy(Q, out, sizeof(double) * T * C);
        plain_norm(b, at, "layer_norm1", eps, Q, T);
        snprintf(sub, sizeof sub, "%s.cross_attn_token_to_image", at);
        plus(qe, Q, E, T * C);
        plus(kr, K, R, S * C);
        plain_attention(b, sub, C / DOWN, qe, T, kr, K, S, out);
        plus(Q, Q, out, T * C);
        plain_norm(b, at, "layer_norm2", eps, Q, T);
        plain_linear(value(b, at, "mlp.lin1.weight"), value(b, at, "mlp.lin1.bias"), Q, T, C, HIDDEN, hidden);
        for (int k = 0; k < T * HIDDEN; k++) hidden[k] = hidden[k] > 0 ? hidden[k] : 0;
        plain_linear(value(b, at, "mlp.lin2.weight"), value(b, at, "mlp.lin2.bias"), hidden, T, HIDDEN, C, out);
        plus(Q, Q, out, T * C);
        plain_norm(b, at, "layer_norm3", eps, Q, T);
        snprintf(sub, sizeof sub, "%s.cross_attn_image_to_token", at);
        plus(qe, Q, E, T * C);
        plain_attention(b, sub, C / DOWN, kr, S, qe, Q, T, out);
        plus(K, K, out, S * C);
        plain_norm(b, at, "layer_norm4", eps, K, S);
    }
    plus(qe, Q, E, T * C);
    plus(kr, K, R, S * C);
    plain_attention(b, "t.final_attn_token_to_image", C / DOWN, qe, T, kr, K, S, out);
    plus(Q, Q, out, T * C);
    plain_norm(b, "t", "layer_norm_final_attn", (double)1e-5f, Q, T);
}

static double distance(const double *a, const double *b, int n)
{
    double worst = 0;
    for (int i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= worst)) worst = fabs(a[i] - b[i]);
    return worst;
}

static void twoway_is_its_formula(void)
{
    bench b;
    bench_open(&b);
    twoway m;
    twoway_options o = {
        .layers = LAYERS, .heads = HEADS, .C = C, .downsample = DOWN, .mlp = HIDDEN, .act = ACT_RELU, .eps = 1e-6f
    };
    CHECK_OK(twoway_bind(&b.set, &m, "t", o));
    place_random(&b);
    tensor t = pass_3d(&b.p, N, T, C), q = pass_3d(&b.p, N, T, C), x = pass_2d(&b.p, S, C),
           pe = pass_2d(&b.p, S, C);
    tensor y = pass_3d(&b.p, N, S, C);
    fill(t, "tokens", 1, 0);
    fill(x, "image", 1, 0);
    fill(pe, "positions", 1, 0);
    twoway_fwd(&b.p, &m, q, y, t, tensor_expand(tensor_unsqueeze(x, 0), 0, N), pe); /* the image repeats */
    CHECK_OK(dev_check(b.d));
    for (int n = 0; n < N; n++) {
        double Q[T * C], K[S * C];
        memcpy(K, x.data, sizeof K);
        plain_twoway(&b, (const double *)t.data + n * T * C, pe.data, (double)1e-6f, Q, K);
        CHECKF(distance(Q, (const double *)q.data + n * T * C, T * C) < 1e-9, "tokens of region %d differ by %g", n,
               distance(Q, (const double *)q.data + n * T * C, T * C));
        CHECKF(distance(K, (const double *)y.data + n * S * C, S * C) < 1e-9,
               "image tokens of region %d differ by %g", n, distance(K, (const double *)y.data + n * S * C, S * C));
    }
    twoway_fwd(&b.p, &m, q, y, t, y, pe); /* in place: other input, so other numbers, but no failure */
    CHECK_OK(dev_check(b.d));
    twoway_free(&m);
    bench_close(&b);
}

/* ---- language model: one token at a time equals all at once ------------------------------------------ */

enum { WORDS = 7 };

static void lm_cache_equals_whole(lm_family family)
{
    bench b;
    bench_open(&b);
    lm m;
    lm_config c = { .family = family,
                    .width = 24,
                    .layers = 2,
                    .heads = 4,
                    .kv_heads = family == LM_LLAMA ? 2 : 4,
                    .head = 6,
                    .mlp = 20,
                    .vocab = 11,
                    .positions = 16,
                    .act = ACT_GELU_TANH,
                    .eps = 1e-5f,
                    .rope_theta = 10000,
                    .tied = false };
    CHECK_OK(lm_bind(&b.set, &m, &c));
    place_random(&b);
    tensor input = pass_3d(&b.p, 2, WORDS, 24), whole = pass_3d(&b.p, 2, WORDS, 24);
    fill(input, "input", 1, 0);
    op_copy(b.d, whole, input);
    tensor index = arena_tensor(&b.temp, DT_I32, 2, (int64_t[]){ 2, WORDS });
    int32_t rows[2 * WORDS];
    for (int i = 0; i < 2 * WORDS; i++) rows[i] = i / WORDS * 2; /* cache rows 0 and 2 */
    dev_put(b.d, index, rows, sizeof rows);
    lm_cache one = lm_cache_new(&b.p, &m, 4, WORDS), two = lm_cache_new(&b.p, &m, 4, WORDS);
    lm_fwd(&b.p, &m, whole, 0, &one, 2, index);
    for (int t = 0; t < WORDS; t++) {
        tensor h = pass_3d(&b.p, 2, 1, 24);
        op_copy(b.d, h, tensor_slice(input, 1, t, 1));
        lm_fwd(&b.p, &m, h, t, &two, 2, tensor_slice(index, 1, 0, t + 1));
        CHECK_OK(dev_check(b.d));
        for (int n = 0; n < 2; n++) {
            double worst =
                distance((const double *)h.data + n * 24, (const double *)whole.data + (n * WORDS + t) * 24, 24);
            CHECKF(worst < 1e-10, "family %d, sequence %d, word %d: differs by %g", (int)family, n, t, worst);
        }
    }
    lm_free(&m);
    bench_close(&b);
}

static void gpt2_cache(void) { lm_cache_equals_whole(LM_GPT2); }
static void llama_cache(void) { lm_cache_equals_whole(LM_LLAMA); }

/* ---- the registry ------------------------------------------------------------------------------------ */

static void registry(void)
{
    param_set s = { 0 };
    linear a, b;
    linear_bind(&s, &a, true, 3, 2, "part.%d", 1);
    linear_bind_in_out(&s, &b, 4, 5, "part.%d", 2);
    param tied;
    param_add(&s, &tied, PARAM_MATRIX, INIT_NORMAL, 2, (int64_t[]){ 3, 2 }, "head");
    param_alias(&s, "part.1.weight");
    CHECK(s.n == 5 && !s.failed);
    CHECK(param_find(&s, "part.1.bias") && param_count(param_find(&s, "part.2.weight")) == 20);
    CHECK(param_find(&s, "part.2.weight")->kind == PARAM_MATRIX_IN_OUT && param_find(&s, "nothing") == NULL);
    CHECK(strcmp(param_find(&s, "head")->alias, "part.1.weight") == 0);
    param_set_free(&s);
}

int main(int argc, char **argv)
{
    RUN(registry);
    RUN(twoway_is_its_formula);
    RUN(gpt2_cache);
    RUN(llama_cache);
    return check_done();
}
