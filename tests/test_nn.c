/* test_nn.c - modules: the absorbed two-way transformer against the formulas of model.md 4 written out plainly, and
 * the language model's cache against the whole sequence at once; every module's backward against differences. All in
 * double. */
#include "check.h"

#include "base/rng.h"
#include "model/model.h"

#include <math.h>

/* ---- a module with random parameters on the reference device ----------------------------------------- */

typedef struct bench {
    dev *d;
    arena weights, temp, keep;
    param_set set;
    pass p;
} bench;

static void bench_open(bench *b)
{
    *b = (bench){ 0 };
    CHECK_OK(dev_open("ref", "", &b->d));
    CHECK_OK(arena_open(b->d, (size_t)64 << 20, &b->weights));
    CHECK_OK(arena_open(b->d, (size_t)64 << 20, &b->temp));
    CHECK_OK(arena_open(b->d, (size_t)64 << 20, &b->keep));
    b->p = (pass){ .d = b->d, .temp = &b->temp, .keep = &b->keep };
}

static void bench_close(bench *b)
{
    param_set_free(&b->set);
    arena_close(&b->keep);
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

/* Norm weights around 1, everything else around 0; gradients of 0. */
static void place_random(bench *b)
{
    for (size_t i = 0; i < b->set.n; i++) {
        param_entry *e = &b->set.entries[i];
        e->p->v = arena_tensor(&b->weights, DT_F64, e->ndim, e->dim);
        e->p->g = arena_tensor(&b->weights, DT_F64, e->ndim, e->dim);
        fill(e->p->v, e->name, 0.3, e->init == INIT_ONE ? 1 : 0);
        op_fill(b->d, e->p->g, 0);
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
    twoway_fwd(&b.p, &m, q, y, t, tensor_expand(tensor_unsqueeze(x, 0), 0, N), pe, NULL); /* the image repeats */
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
    twoway_fwd(&b.p, &m, q, y, t, y, pe, NULL); /* in place: other input, so other numbers, but no failure */
    CHECK_OK(dev_check(b.d));
    twoway_free(&m);
    bench_close(&b);
}

/* ---- language model: one token at a time equals all at once ------------------------------------------ */

enum { WORDS = 7 };

static lm_config small_lm(lm_family family, int layers)
{
    return (lm_config){ .family = family,
                        .width = 24,
                        .layers = layers,
                        .heads = 4,
                        .kv_heads = family == LM_LLAMA ? 2 : 4,
                        .head = 6,
                        .mlp = 20,
                        .vocab = 11,
                        .positions = 16,
                        .act = ACT_GELU_TANH,
                        .eps = 1e-5f,
                        .rope_theta = 10000 };
}

static void lm_cache_equals_whole(lm_family family)
{
    bench b;
    bench_open(&b);
    lm m;
    lm_config c = small_lm(family, 2);
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
    lm_cache three = lm_cache_new(&b.p, &m, 2, WORDS);
    tensor at = pass_ids(&b.p, 2), seen = arena_tensor(&b.temp, DT_I32, 2, (int64_t[]){ 2, WORDS });
    for (int t = 0; t < WORDS; t++) {
        tensor h = pass_3d(&b.p, 2, 1, 24);
        op_copy(b.d, h, tensor_slice(input, 1, t, 1));
        lm_fwd(&b.p, &m, h, t, &two, 2, tensor_slice(index, 1, 0, t + 1));
        tensor again = pass_3d(&b.p, 2, 1, 24); /* the position and the end of the keys from memory */
        op_copy(b.d, again, tensor_slice(input, 1, t, 1));
        for (int i = 0; i < 2 * WORDS; i++) rows[i] = i % WORDS <= t ? i / WORDS : -1;
        dev_put(b.d, seen, rows, sizeof rows);
        dev_put(b.d, at, (int32_t[]){ t, t }, 2 * sizeof(int32_t));
        lm_step(&b.p, &m, again, at, &three, seen);
        CHECK_OK(dev_check(b.d));
        for (int n = 0; n < 2; n++) {
            const double *want = (const double *)whole.data + (n * WORDS + t) * 24;
            double worst = distance((const double *)h.data + n * 24, want, 24);
            CHECKF(worst < 1e-10, "family %d, sequence %d, word %d: differs by %g", (int)family, n, t, worst);
            worst = distance((const double *)again.data + n * 24, want, 24);
            CHECKF(worst < 1e-10, "family %d, sequence %d, step %d: differs by %g", (int)family, n, t, worst);
        }
    }
    lm_free(&m);
    bench_close(&b);
}

static void gpt2_cache(void) { lm_cache_equals_whole(LM_GPT2); }
static void llama_cache(void) { lm_cache_equals_whole(LM_LLAMA); }

/* ---- backward against differences --------------------------------------------------------------------- */

/* A module between inputs and outputs; the loss is the sum of out * weight. */
typedef struct trial trial;
struct trial {
    bench b;
    const char *name;
    tensor in[3], din[3], out[2], weight[2];
    int n_in, n_out;
    void (*fwd)(trial *t); /* keeps */
    void (*bwd)(trial *t); /* din from weight, and the gradients */
    twoway two;
    twoway_kept two_kept;
    lm lm;
    lm_config lm_config;
    lm_kept lm_kept;
    lm_rows lm_rows;
    bool packed; /* only the first PACKED places of the sequences matter */
    sam_config sam;
    mask_decoder decoder;
    masks_kept masks_kept;
    ffn_kept iou_kept;
    sam_encoder encoder;
    encoder_kept encoder_kept;
    bool repeat;
};

static tensor trial_tensor(trial *t, const char *name, int ndim, const int64_t *dim)
{
    tensor v = arena_tensor(&t->b.weights, DT_F64, ndim, dim);
    fill(v, name, 1, 0);
    return v;
}

static void trial_in(trial *t, const char *name, int ndim, const int64_t *dim)
{
    t->din[t->n_in] = trial_tensor(t, "din", ndim, dim);
    t->in[t->n_in++] = trial_tensor(t, name, ndim, dim);
}

static void trial_out(trial *t, const char *name, int ndim, const int64_t *dim)
{
    t->weight[t->n_out] = trial_tensor(t, name, ndim, dim);
    t->out[t->n_out++] = trial_tensor(t, "out", ndim, dim);
}

/* The loss, and how large its parts are. */
static double trial_loss(trial *t, double *scale)
{
    double sum = 0;
    *scale = 0;
    t->fwd(t);
    CHECK_OK(dev_check(t->b.d));
    for (int k = 0; k < t->n_out; k++)
        for (int64_t i = 0; i < tensor_count(t->out[k]); i++) {
            double part = ((double *)t->out[k].data)[i] * ((double *)t->weight[k].data)[i];
            sum += part;
            *scale += fabs(part);
        }
    arena_release(&t->b.temp, 0);
    arena_release(&t->b.keep, 0);
    return sum;
}

/* The gradient g of v along a random direction. */
static void trial_direction(trial *t, const char *name, tensor v, tensor g)
{
    const double h = 1e-6;
    int64_t n = tensor_count(v);
    double *x = v.data, *old = mem_alloc((size_t)n * sizeof *old), *way = mem_alloc((size_t)n * sizeof *way);
    double want = 0, square = 0, scale;
    tensor direction = tensor_on(way, DT_F64, 1, &n);
    fill(direction, name, 1, 0);
    for (int64_t i = 0; i < n; i++) {
        old[i] = x[i];
        want += way[i] * ((double *)g.data)[i];
        square += ((double *)g.data)[i] * ((double *)g.data)[i];
    }
    for (int64_t i = 0; i < n; i++) x[i] = old[i] + h * way[i];
    double more = trial_loss(t, &scale);
    for (int64_t i = 0; i < n; i++) x[i] = old[i] - h * way[i];
    double less = trial_loss(t, &scale), got = (more - less) / (2 * h);
    memcpy(x, old, (size_t)n * sizeof *x);
    CHECKF(fabs(got - want) <= 1e-6 * sqrt(square) + 1e-9 * scale,
           "%s, %s: the difference is %.10g, the gradient %.10g", t->name, name, got, want);
    mem_free(old);
    mem_free(way);
}

static void trial_run(trial *t, const char *name)
{
    t->name = name;
    t->fwd(t);
    t->bwd(t);
    CHECK_OK(dev_check(t->b.d));
    arena_release(&t->b.temp, 0);
    arena_release(&t->b.keep, 0);
    for (int i = 0; i < t->n_in; i++) {
        char what[32];
        snprintf(what, sizeof what, "input %d", i);
        trial_direction(t, what, t->in[i], t->din[i]);
    }
    for (size_t i = 0; i < t->b.set.n; i++) {
        const param_entry *e = &t->b.set.entries[i];
        trial_direction(t, e->name, e->p->v, e->p->g);
    }
}

static tensor trial_image(trial *t) { return t->repeat ? tensor_expand(t->in[1], 0, N) : t->in[1]; }

static void twoway_trial_fwd(trial *t)
{
    twoway_fwd(&t->b.p, &t->two, t->out[0], t->out[1], t->in[0], trial_image(t), t->in[2], &t->two_kept);
}

static void twoway_trial_bwd(trial *t)
{
    tensor dx = pass_3d(&t->b.p, N, S, C);
    op_copy(t->b.d, dx, t->weight[1]);
    twoway_bwd(&t->b.p, &t->two, t->din[0], dx, t->weight[0], dx, &t->two_kept); /* in place */
    op_sum(t->b.d, t->din[1], dx, false);                                        /* a copy where nothing repeats */
}

static void twoway_gradients(bool repeat)
{
    trial t = { .fwd = twoway_trial_fwd, .bwd = twoway_trial_bwd, .repeat = repeat };
    bench_open(&t.b);
    twoway_options o = {
        .layers = LAYERS, .heads = HEADS, .C = C, .downsample = DOWN, .mlp = HIDDEN, .act = ACT_RELU, .eps = 1e-6f
    };
    CHECK_OK(twoway_bind(&t.b.set, &t.two, "t", o));
    CHECK_OK(twoway_kept_open(&t.two_kept, &t.two));
    place_random(&t.b);
    trial_in(&t, "tokens", 3, (int64_t[]){ N, T, C });
    trial_in(&t, "image", 3, (int64_t[]){ repeat ? 1 : N, S, C });
    trial_out(&t, "to tokens", 3, (int64_t[]){ N, T, C });
    trial_out(&t, "to image", 3, (int64_t[]){ N, S, C });
    t.in[2] = trial_tensor(&t, "positions", 2, (int64_t[]){ S, C });
    trial_run(&t, repeat ? "two-way transformer of one image" : "two-way transformer");
    twoway_kept_free(&t.two_kept);
    twoway_free(&t.two);
    bench_close(&t.b);
}

static void twoway_backward(void)
{
    twoway_gradients(false);
    twoway_gradients(true);
}

enum { PACKED = 11 }; /* 7 places of the first sequence, 4 of the second */

/* NULL when all matter */
static const lm_rows *lm_trial_rows(trial *t)
{
    static const int32_t place[PACKED] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 },
                         row[2 * WORDS] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 },
                         or_zero[2 * WORDS] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 11, 11 };
    if (!t->packed) return NULL;
    lm_rows *r = &t->lm_rows;
    *r = (lm_rows){ pass_ids(&t->b.p, PACKED), pass_ids(&t->b.p, 2 * WORDS), pass_ids(&t->b.p, 2 * WORDS) };
    dev_put(t->b.d, r->pack, place, sizeof place);
    dev_put(t->b.d, r->spread, row, sizeof row);
    dev_put(t->b.d, r->spread_or_zero, or_zero, sizeof or_zero);
    return r;
}

static void lm_trial_fwd(trial *t)
{
    int64_t d = t->lm_config.width, R = t->packed ? PACKED : 2 * WORDS;
    tensor h = pass_3d(&t->b.p, 2, WORDS, d), y = pass_2d(&t->b.p, R, d);
    tensor ids = pass_ids(&t->b.p, 4), text = pass_2d(&t->b.p, 4, d);
    dev_put(t->b.d, ids, (int32_t[]){ 3, 0, 3, 5 }, 4 * sizeof(int32_t));
    op_copy(t->b.d, h, t->in[0]);
    lm_embed(&t->b.p, &t->lm, text, ids);
    op_copy(t->b.d, tensor_slice(h, 1, 3, 2), tensor_reshape3(text, 2, 2, d));
    lm_whole_fwd(&t->b.p, &t->lm, y, h, lm_trial_rows(t), &t->lm_kept);
    lm_logits(&t->b.p, &t->lm, t->out[0], y);
    t->in[2] = y;
    t->in[1] = ids;
}

static void lm_trial_bwd(trial *t)
{
    int64_t d = t->lm_config.width;
    tensor dy = pass_2d(&t->b.p, t->in[2].dim[0], d), dtext = pass_2d(&t->b.p, 4, d),
           part = tensor_slice(t->din[0], 1, 3, 2);
    lm_logits_bwd(&t->b.p, &t->lm, dy, t->weight[0], t->in[2]);
    lm_whole_bwd(&t->b.p, &t->lm, t->din[0], dy, t->packed ? &t->lm_rows : NULL, &t->lm_kept);
    op_copy(t->b.d, tensor_reshape3(dtext, 2, 2, d), part);
    lm_embed_bwd(&t->b.p, &t->lm, dtext, t->in[1]);
    op_fill(t->b.d, part, 0); /* the input is overwritten there */
}

static void lm_gradients(lm_family family, bool tied, bool drop, bool recompute, bool packed)
{
    trial t = { .fwd = lm_trial_fwd, .bwd = lm_trial_bwd, .packed = packed };
    bench_open(&t.b);
    t.lm_config = small_lm(family, 3);
    t.lm_config.dropout_embd = 0.1;
    t.lm_config.dropout_attn = 0.2;
    t.lm_config.dropout_resid = 0.3;
    t.lm_config.tied = tied;
    CHECK_OK(lm_bind(&t.b.set, &t.lm, &t.lm_config));
    CHECK_OK(lm_kept_open(&t.lm_kept, &t.lm, recompute));
    t.lm_kept.drop = drop;
    t.lm_kept.key = 99;
    place_random(&t.b);
    if (tied) { /* one value, one gradient */
        t.lm.head = t.lm.embedding;
        t.b.set.n--;
    }
    trial_in(&t, "input", 3, (int64_t[]){ 2, WORDS, 24 });
    trial_out(&t, "to logits", 2, (int64_t[]){ packed ? PACKED : 2 * WORDS, 11 });
    trial_run(&t, family == LM_LLAMA ? "LLaMA" : tied ? "GPT-2, tied" : drop ? "GPT-2 with dropout" : "GPT-2");
    if (tied) t.b.set.n++;
    lm_kept_free(&t.lm_kept);
    lm_free(&t.lm);
    bench_close(&t.b);
}

static void lm_backward(void)
{
    lm_gradients(LM_GPT2, false, true, false, false);
    lm_gradients(LM_GPT2, true, false, false, false);
    lm_gradients(LM_GPT2, false, true, true, true);
    lm_gradients(LM_LLAMA, false, false, false, true);
    lm_gradients(LM_LLAMA, false, false, true, false);
}

/* A SAM of the smallest sizes that still have windows that do not divide the map. */
static sam_config tiny_sam(void)
{
    return (sam_config){ .image = 20,
                         .patch = 4,
                         .grid = 5,
                         .width = 12,
                         .layers = 2,
                         .heads = 2,
                         .mlp = 14,
                         .window = 3,
                         .global = { false, true },
                         .qkv_bias = true,
                         .abs_pos = true,
                         .rel_pos = true,
                         .encoder_act = ACT_GELU,
                         .encoder_eps = 1e-6f,
                         .channels = 16,
                         .mask_channels = 8,
                         .prompt_act = ACT_GELU,
                         .prompt_eps = 1e-6f,
                         .pos_feats = 8,
                         .decoder_layers = 1,
                         .decoder_heads = 2,
                         .decoder_mlp = 12,
                         .downsample = 2,
                         .masks = 4,
                         .iou_depth = 3,
                         .iou_hidden = 10,
                         .decoder_act = ACT_RELU,
                         .decoder_eps = 1e-6f };
}

static void heads_trial_fwd(trial *t)
{
    mask_decoder_masks(&t->b.p, &t->decoder, t->out[0], t->in[0], t->in[1], &t->masks_kept);
    mask_decoder_iou(&t->b.p, &t->decoder, t->out[1], t->in[0], &t->iou_kept);
}

static void heads_trial_bwd(trial *t)
{
    op_fill(t->b.d, t->din[0], 0);
    mask_decoder_masks_bwd(&t->b.p, &t->decoder, t->din[0], t->din[1], t->weight[0], &t->masks_kept);
    mask_decoder_iou_bwd(&t->b.p, &t->decoder, t->din[0], t->weight[1], &t->iou_kept);
}

static void heads_backward(void)
{
    trial t = { .fwd = heads_trial_fwd, .bwd = heads_trial_bwd, .sam = tiny_sam() };
    bench_open(&t.b);
    CHECK_OK(mask_decoder_bind(&t.b.set, &t.decoder, &t.sam));
    CHECK_OK(masks_kept_open(&t.masks_kept, &t.decoder));
    place_random(&t.b);
    trial_in(&t, "tokens", 3, (int64_t[]){ N, 7, 16 });
    trial_in(&t, "image", 3, (int64_t[]){ N, 25, 16 });
    trial_out(&t, "to masks", 4, (int64_t[]){ N, 4, 20, 20 });
    trial_out(&t, "to scores", 2, (int64_t[]){ N, 4 });
    trial_run(&t, "mask heads");
    masks_kept_free(&t.masks_kept);
    mask_decoder_free(&t.decoder);
    bench_close(&t.b);
}

static void encoder_trial_fwd(trial *t)
{
    sam_encoder_fwd(&t->b.p, &t->encoder, t->out[0], t->in[0], &t->encoder_kept);
}

static void encoder_trial_bwd(trial *t) { sam_encoder_bwd(&t->b.p, &t->encoder, t->weight[0], &t->encoder_kept); }

static void encoder_gradients(bool recompute)
{
    trial t = { .fwd = encoder_trial_fwd, .bwd = encoder_trial_bwd, .sam = tiny_sam() };
    bench_open(&t.b);
    CHECK_OK(sam_encoder_bind(&t.b.set, &t.encoder, &t.sam));
    CHECK_OK(sam_encoder_kept_open(&t.encoder_kept, &t.encoder, recompute));
    place_random(&t.b);
    t.in[0] = trial_tensor(&t, "pixels", 4, (int64_t[]){ 1, 20, 20, 3 });
    trial_out(&t, "to embedding", 2, (int64_t[]){ 25, 16 });
    trial_run(&t, recompute ? "encoder, recomputed" : "encoder");
    sam_encoder_kept_free(&t.encoder_kept);
    sam_encoder_free(&t.encoder);
    bench_close(&t.b);
}

static void encoder_backward(void)
{
    encoder_gradients(false);
    encoder_gradients(true);
}

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
    RUN(twoway_backward);
    RUN(lm_backward);
    RUN(heads_backward);
    RUN(encoder_backward);
    return check_done();
}
