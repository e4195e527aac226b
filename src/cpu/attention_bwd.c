/* attention_bwd.c - the backward of op_attention_fwd.
 *
 * A task owns one key head of one sequence and goes through its query heads and their queries in order, nr queries side
 * by side in the lanes: s[key][query]. Keys and values are used as they lie; the gradients of keys and values are summed
 * in rows padded to whole panels. */
#include "base/rng.h"
#include "cpu/cpu.h"

#include <string.h>

enum { ROW_PAD = 16 };

typedef struct attention {
    const cpu *c;
    tensor dq, dk, dv, dy, y, lse, q, k, v;
    attention_options o;
    int64_t ld; /* of padded rows */
} attention;

typedef struct work {             /* of one thread */
    float *s, *ds;                /* [keys][nr]: probabilities; their gradients */
    float *mask;                  /* [keys][nr], with dropout */
    float *q, *dy, *q_up, *dy_up; /* nr queries: rows of ld; and [D][nr] */
    float *dq_up;                 /* [D][nr] */
    float *dk, *dv;               /* [keys][ld] */
    float lse[64], delta[64];
} work;

static size_t work_floats(const attention *a)
{
    int64_t nr = a->c->kernels->nr, keys = a->k.dim[1], D = a->q.dim[3];
    return (size_t)(3 * keys * nr + 2 * nr * a->ld + 3 * D * nr + 2 * keys * a->ld) + sizeof(work) / sizeof(float);
}

static work *work_open(const attention *a, float *scratch)
{
    int64_t nr = a->c->kernels->nr, keys = a->k.dim[1], D = a->q.dim[3];
    work *w = (work *)(void *)scratch;
    w->s = scratch + sizeof *w / sizeof *scratch;
    w->ds = w->s + keys * nr;
    w->mask = w->ds + keys * nr;
    w->q = w->mask + keys * nr;
    w->dy = w->q + nr * a->ld;
    w->q_up = w->dy + nr * a->ld;
    w->dy_up = w->q_up + D * nr;
    w->dq_up = w->dy_up + D * nr;
    w->dk = w->dq_up + D * nr;
    w->dv = w->dk + keys * a->ld;
    memset(w->dk, 0, (size_t)(2 * keys * a->ld) * sizeof *w->dk);
    return w;
}

static float *row(tensor t, int64_t b, int64_t i, int64_t h)
{
    return (float *)t.data + b * t.stride[0] + i * t.stride[1] + h * t.stride[2];
}

/* nr queries from t0 on, as rows and upright; the lanes beyond `count` are zero. */
static void load(const attention *a, tensor t, int64_t b, int64_t t0, int64_t h, int64_t count, float *rows,
                 float *up)
{
    int64_t nr = a->c->kernels->nr, D = a->q.dim[3];
    memset(rows, 0, (size_t)(nr * a->ld) * sizeof *rows);
    if (count < nr) memset(up, 0, (size_t)(D * nr) * sizeof *up);
    for (int64_t i = 0; i < count; i++) memcpy(rows + i * a->ld, row(t, b, t0 + i, h), (size_t)D * sizeof *rows);
    a->c->kernels->transpose(up, nr, rows, a->ld, count, D);
}

/* What each probability was multiplied by after the softmax. */
static void draw_mask(const attention *a, const work *w, int64_t b, int64_t h, int64_t t0, int64_t count,
                      int64_t keys)
{
    const dropout_options *o = &a->o.drop;
    int64_t nr = a->c->kernels->nr, width = round_up(a->k.dim[1], 4);
    int64_t first = ((o->first + b) * a->q.dim[2] + h) * a->q.dim[1] + t0;
    float keep = 1.0f / (1.0f - o->rate);
    uint32_t limit = rng_limit(o->rate);
    memset(w->mask, 0, (size_t)(keys * nr) * sizeof *w->mask);
    for (int64_t i = 0; i < count; i++)
        for (int64_t s = 0; s < keys; s += 4) {
            rng_block r = rng_philox(o->key, (uint64_t)((first + i) * width + s) / 4, 0);
            for (int64_t k = 0; k < 4 && s + k < keys; k++)
                w->mask[(s + k) * nr + i] = r.word[k] < limit ? 0.0f : keep;
        }
}

static void times(float *y, const float *mask, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] *= mask[i];
}

/* Leaves p' (after dropout) in w->s and the scores' gradients, scaled, in w->ds. */
static void gradients(const attention *a, work *w, int64_t b, int64_t h, int64_t t0, int64_t count, int64_t keys)
{
    const cpu_kernels *k = a->c->kernels;
    int64_t nr = k->nr, D = a->q.dim[3], g = h / (a->q.dim[2] / a->k.dim[2]), shift = a->k.dim[1] - a->q.dim[1];
    const float *lse = (const float *)a->lse.data + b * a->lse.stride[0] + h * a->lse.stride[1] + t0;
    for (int64_t i = 0; i < nr; i++) {
        const float *dy = w->dy + i * a->ld, *y = row(a->y, b, t0 + min64(i, count - 1), h);
        double delta = 0.0;
        for (int64_t d = 0; d < D; d++) delta += (double)(dy[d] * y[d]);
        w->delta[i] = (float)delta;
        w->lse[i] = lse[min64(i, count - 1)];
    }
    cpu_tiles(k, nr, keys, D, row(a->k, b, 0, g), a->k.stride[1], w->q_up, nr, w->s, nr, false);
    cpu_tiles(k, nr, keys, D, row(a->v, b, 0, g), a->v.stride[1], w->dy_up, nr, w->ds, nr, false);
    k->weigh(nr, keys, w->s, nr, a->o.scale, NULL, NULL, w->lse);
    for (int64_t i = 0; i < nr; i++) /* lanes without a query, keys that are not seen */
        for (int64_t s = i < count ? (a->o.causal ? t0 + i + shift + 1 : keys) : 0; s < keys; s++)
            w->s[s * nr + i] = 0.0f;
    bool dropped = a->o.drop.rate > 0.0f;
    if (dropped) {
        draw_mask(a, w, b, h, t0, count, keys);
        times(w->ds, w->mask, keys * nr);
    }
    k->weigh_bwd(nr, keys, w->s, w->ds, nr, w->delta, a->o.scale);
    if (dropped) times(w->s, w->mask, keys * nr);
}

static void queries(const attention *a, work *w, int64_t b, int64_t h, int64_t t0)
{
    const cpu_kernels *k = a->c->kernels;
    int64_t nr = k->nr, D = a->q.dim[3], Tk = a->k.dim[1], g = h / (a->q.dim[2] / a->k.dim[2]);
    int64_t count = min64(nr, a->q.dim[1] - t0);
    int64_t keys = a->o.causal ? min64(Tk, t0 + count + Tk - a->q.dim[1]) : Tk;
    load(a, a->q, b, t0, h, count, w->q, w->q_up);
    load(a, a->dy, b, t0, h, count, w->dy, w->dy_up);
    gradients(a, w, b, h, t0, count, keys);
    for (int64_t d = 0; d < D; d += nr) {
        if (tensor_given(a->dv)) cpu_tiles(k, nr, keys, nr, w->s, nr, w->dy + d, a->ld, w->dv + d, a->ld, true);
        if (tensor_given(a->dk)) cpu_tiles(k, nr, keys, nr, w->ds, nr, w->q + d, a->ld, w->dk + d, a->ld, true);
    }
    if (!tensor_given(a->dq)) return;
    cpu_tiles_cols(k, nr, D, keys, row(a->k, b, 0, g), a->k.stride[1], w->ds, nr, w->dq_up, nr, false);
    k->transpose(row(a->dq, b, t0, h), a->dq.stride[1], w->dq_up, nr, D, count);
}

static void store(const attention *a, tensor t, int64_t b, int64_t g, const float *rows)
{
    for (int64_t s = 0; s < a->k.dim[1] && tensor_given(t); s++)
        memcpy(row(t, b, s, g), rows + s * a->ld, (size_t)a->q.dim[3] * sizeof *rows);
}

static void task_of_head(void *context, int64_t task, int thread)
{
    const attention *a = context;
    int64_t G = a->k.dim[2], group = a->q.dim[2] / G, b = task / G, g = task % G;
    work *w = work_open(a, cpu_scratch_of(a->c, thread));
    for (int64_t h = g * group; h < (g + 1) * group; h++)
        for (int64_t t0 = 0; t0 < a->q.dim[1]; t0 += a->c->kernels->nr) queries(a, w, b, h, t0);
    store(a, a->dk, b, g, w->dk);
    store(a, a->dv, b, g, w->dv);
}

void cpu_attention_bwd(dev *d, tensor dq, tensor dk, tensor dv, tensor dy, tensor y, tensor lse, tensor q, tensor k,
                       tensor v, attention_options o)
{
    attention a = { cpu_of(d), dq, dk, dv, dy, y, lse, q, k, v, o, 0 };
    a.ld = round_up(q.dim[3], a.c->kernels->nr) + ROW_PAD;
    if (!cpu_scratch(d, work_floats(&a) * sizeof(float), 0)) return;
    cpu_parallel(a.c, q.dim[0] * k.dim[2], task_of_head, &a);
}
