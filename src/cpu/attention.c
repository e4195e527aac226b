/* attention.c - attention as streaming softmax.
 *
 * The queries of a task stand side by side in the lanes of the vectors: scores come out as s[key][query], so the
 * maximum, the exponentials and the sums run down the keys without crossing lanes, keys and values are read as they
 * lie, and only the queries and the outputs are transposed, once. */
#include "base/rng.h"
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

/* ---- queries ------------------------------------------------------------------------------------------- */

size_t cpu_queries_floats(const cpu_kernels *k, int64_t count, int64_t D, int64_t keys)
{
    int64_t panels = ceil_div(count, k->nr);
    return (size_t)(panels * k->nr * (2 * D + 3) + keys * k->nr);
}

void cpu_queries_open(cpu_queries *u, const cpu_kernels *k, int64_t count, int64_t D, float *scratch)
{
    int64_t panels = ceil_div(count, k->nr), lanes = panels * k->nr;
    *u = (cpu_queries){ .kernels = k, .count = count, .panels = panels, .D = D };
    u->q = scratch;
    u->o = u->q + lanes * D;
    u->m = u->o + lanes * D;
    u->l = u->m + lanes;
    u->top = u->l + lanes;
    u->s = u->top + lanes;
    memset(u->o, 0, (size_t)(lanes * D) * sizeof(float));
    for (int64_t i = 0; i < lanes; i++) {
        u->m[i] = u->top[i] = -INFINITY;
        u->l[i] = 0.0f;
    }
    if (count < lanes) memset(u->q + (panels - 1) * D * k->nr, 0, (size_t)(D * k->nr) * sizeof(float));
}

void cpu_queries_load(cpu_queries *u, int64_t i, int64_t n, const float *q, int64_t ld)
{
    int64_t nr = u->kernels->nr;
    for (int64_t end = i + n, here; i < end; i += here, q += here * ld) {
        here = min64(end - i, nr - i % nr);
        u->kernels->transpose(u->q + i / nr * u->D * nr + i % nr, cpu_queries_lanes(u, i / nr), q, ld, here, u->D);
    }
}

void cpu_queries_dot(const cpu_queries *u, int64_t panel, int64_t keys, const float *k, int64_t ldk)
{
    int64_t nr = u->kernels->nr, lanes = cpu_queries_lanes(u, panel);
    cpu_tiles(u->kernels, lanes, keys, u->D, k, ldk, u->q + panel * u->D * nr, lanes, u->s, lanes, false);
}

void cpu_queries_take(const cpu_queries *u, int64_t panel, int64_t keys, const float *v, int64_t ldv)
{
    cpu_queries_expose(u, panel, keys);
    cpu_queries_add(u, panel, keys, v, ldv);
}

void cpu_queries_expose(const cpu_queries *u, int64_t panel, int64_t keys)
{
    int64_t at = panel * u->kernels->nr;
    u->kernels->expose(cpu_queries_lanes(u, panel), keys, u->s, u->D, u->o + at * u->D, u->m + at, u->top + at,
                       u->l + at);
}

void cpu_queries_add(const cpu_queries *u, int64_t panel, int64_t keys, const float *v, int64_t ldv)
{
    int64_t lanes = cpu_queries_lanes(u, panel);
    float *o = u->o + panel * u->kernels->nr * u->D;
    cpu_tiles_cols(u->kernels, lanes, u->D, keys, v, ldv, u->s, lanes, o, lanes, true);
}

void cpu_queries_close(cpu_queries *u)
{
    int64_t nr = u->kernels->nr;
    for (int64_t p = 0; p < u->panels; p++)
        u->kernels->close(cpu_queries_lanes(u, p), u->D, u->o + p * u->D * nr, u->m + p * nr, u->l + p * nr,
                          u->top + p * nr);
}

void cpu_queries_store(const cpu_queries *u, int64_t i, int64_t n, float *y, int64_t ld)
{
    int64_t nr = u->kernels->nr;
    for (int64_t end = i + n, here; i < end; i += here, y += here * ld) {
        here = min64(end - i, nr - i % nr);
        u->kernels->transpose(y, ld, u->o + i / nr * u->D * nr + i % nr, cpu_queries_lanes(u, i / nr), u->D, here);
    }
}

/* ---- op_attention_fwd ------------------------------------------------------------------------------------ */

enum {
    KEYS = 96,     /* keys of a block, counted from key 0: part of the result, so the same for every call */
    QUERIES = 256, /* queries of a task */
    ROW_PAD = 16   /* keeps the copied keys and values off each other's cache sets */
};

typedef struct attention {
    const cpu *c;
    tensor y, lse, q, k, v, index;
    attention_options o;
    int64_t queries, chunks, ld;
} attention;

/* Keys `from` .. of sequence b, head g: next to each other, *ld apart; copied to `copy` where they are scattered or
 * will be read many times. */
static const float *gather(const attention *a, tensor t, int64_t b, int64_t g, int64_t from, int64_t count,
                           bool often, float *copy, int64_t *ld)
{
    const float *base = (const float *)t.data + g * t.stride[2];
    const int32_t *rows = tensor_given(a->index) ? (const int32_t *)a->index.data + b * a->index.stride[0] : NULL;
    *ld = t.stride[1];
    if (!rows && !often) return base + b * t.stride[0] + from * t.stride[1];
    *ld = a->ld;
    for (int64_t s = 0; s < count; s++) {
        const float *src = base + (rows ? rows[from + s] : b) * t.stride[0] + (from + s) * t.stride[1];
        memcpy(copy + s * a->ld, src, (size_t)t.dim[3] * sizeof *copy);
    }
    return copy;
}

/* Query t sees keys up to t + shift. */
static void mask(const cpu_queries *u, int64_t lanes, int64_t first_query, int64_t from, int64_t keys,
                 int64_t shift)
{
    for (int64_t i = 0; i < lanes; i++)
        for (int64_t s = max64(0, first_query + i + shift + 1 - from); s < keys; s++)
            u->s[s * lanes + i] = -INFINITY;
}

/* Drops probabilities of the queries `first`.. over keys from..; `row` is that of query 0 in the stream of numbers. */
static void drop(const attention *a, const cpu_queries *u, int64_t lanes, int64_t row, int64_t first, int64_t from,
                 int64_t keys)
{
    const dropout_options *o = &a->o.drop;
    int64_t width = round_up(a->k.dim[1], 4), queries = min64(lanes, a->q.dim[1] - first);
    float keep = 1.0f / (1.0f - o->rate);
    uint32_t limit = rng_limit(o->rate);
    for (int64_t i = 0; i < queries; i++)
        for (int64_t s = 0; s < keys; s++) {
            bool gone = rng_dropped(o->key, (uint64_t)((row + first + i) * width + from + s), limit);
            u->s[s * lanes + i] *= gone ? 0.0f : keep;
        }
}

/* Keys that query `last` of sequence b sees: up to its own place, and to where the sequence ends. */
static int64_t keys_seen(const attention *a, int64_t b, int64_t last)
{
    int64_t Tk = a->k.dim[1], seen = a->o.causal ? min64(Tk, last + 1 + Tk - a->q.dim[1]) : Tk;
    const int32_t *rows = tensor_given(a->index) ? (const int32_t *)a->index.data + b * a->index.stride[0] : NULL;
    for (int64_t s = 0; rows && s < seen; s++)
        if (rows[s] < 0) return s;
    return seen;
}

static void attend(const attention *a, cpu_queries *u, int64_t b, int64_t h, int64_t t0, float *copy)
{
    int64_t g = h / (a->q.dim[2] / a->k.dim[2]), row = ((a->o.drop.first + b) * a->q.dim[2] + h) * a->q.dim[1];
    int64_t Tk = a->k.dim[1], shift = Tk - a->q.dim[1], nr = u->kernels->nr, ldk, ldv;
    int64_t seen = keys_seen(a, b, t0 + u->count - 1);
    bool often = u->panels > 2;
    for (int64_t from = 0; from < seen; from += KEYS) {
        int64_t keys = min64(KEYS, seen - from);
        const float *k = gather(a, a->k, b, g, from, keys, often, copy, &ldk);
        const float *v = gather(a, a->v, b, g, from, keys, often, copy + KEYS * a->ld, &ldv);
        for (int64_t p = 0; p < u->panels; p++) {
            int64_t first = t0 + p * nr, lanes = cpu_queries_lanes(u, p);
            cpu_queries_dot(u, p, keys, k, ldk);
            if (a->o.causal && from + keys - 1 > first + shift) mask(u, lanes, first, from, keys, shift);
            u->kernels->scores(lanes, keys, u->s, a->o.scale, NULL, NULL, u->top + p * nr);
            cpu_queries_expose(u, p, keys);
            if (a->o.drop.rate > 0.0f) drop(a, u, lanes, row, first, from, keys);
            cpu_queries_add(u, p, keys, v, ldv);
        }
    }
}

static void attention_task(void *context, int64_t task, int thread)
{
    const attention *a = context;
    int64_t H = a->q.dim[2], Tq = a->q.dim[1], D = a->q.dim[3];
    int64_t t0 = task % a->chunks * a->queries, h = task / a->chunks % H, b = task / a->chunks / H;
    int64_t count = min64(a->queries, Tq - t0);
    float *copy = cpu_scratch_of(a->c, thread);
    const float *q = (const float *)a->q.data + b * a->q.stride[0] + h * a->q.stride[2];
    float *y = (float *)a->y.data + b * a->y.stride[0] + h * a->y.stride[2];
    cpu_queries u;
    cpu_queries_open(&u, a->c->kernels, count, D, copy + 2 * KEYS * a->ld);
    cpu_queries_load(&u, 0, count, q + t0 * a->q.stride[1], a->q.stride[1]);
    attend(a, &u, b, h, t0, copy);
    cpu_queries_close(&u);
    cpu_queries_store(&u, 0, count, y + t0 * a->y.stride[1], a->y.stride[1]);
    if (!tensor_given(a->lse)) return;
    float *lse = (float *)a->lse.data + b * a->lse.stride[0] + h * a->lse.stride[1] + t0;
    for (int64_t i = 0; i < count; i++) lse[i] = cpu_queries_lse(&u, i);
}

void cpu_attention_fwd(dev *d, tensor y, tensor lse, tensor q, tensor k, tensor v, tensor index,
                       attention_options o)
{
    cpu *c = cpu_of(d);
    int64_t D = q.dim[3];
    attention a = { c, y, lse, q, k, v, index, o, 0, 0, round_up(D, 16) + ROW_PAD };
    a.queries = min64(QUERIES, q.dim[1]);
    a.chunks = ceil_div(q.dim[1], a.queries);
    size_t floats = (size_t)(2 * KEYS * a.ld) + cpu_queries_floats(c->kernels, a.queries, D, KEYS);
    if (!cpu_scratch(d, floats * sizeof(float), 0)) return;
    int64_t tasks = q.dim[0] * q.dim[2] * a.chunks;
    cpu_parallel(c, tasks, attention_task, &a);
}
