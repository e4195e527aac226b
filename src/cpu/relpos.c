/* relpos.c - attention over a map with relative positions, as streaming softmax (attention.c). */
#include "cpu/relpos.h"

#include <string.h>

enum {
    QUERIES = 256,        /* of a task */
    ROW_PAD = 16,         /* keeps the copied keys and values off each other's cache sets */
    REL_KEYS = 192,       /* keys of a block of a large map */
    REL_KEYS_WHOLE = 256, /* a map of up to so many positions is one block */
    AHEAD = 8             /* positions: they lie too far apart for the machine to fetch them by itself */
};

/* The floats of q (part 0), k (1) or v (2) of a position of the window; NULL outside the map without `pad`. */
const float *cpu_relpos_part(const relpos_at *t, int64_t y, int64_t x, int64_t part)
{
    const relpos *a = t->a;
    int64_t inner = (part * a->o.heads + t->head) * a->D;
    if (y >= t->h || x >= t->w) return tensor_given(a->pad) ? (const float *)a->pad.data + inner : NULL;
    return (const float *)a->qkv.data + t->b * a->qkv.stride[0] + (t->y0 + y) * a->qkv.stride[1] +
           (t->x0 + x) * a->qkv.stride[2] + inner;
}

void cpu_relpos_gather(const relpos_at *t, int64_t part, int64_t from, int64_t keys, float *dst)
{
    const relpos *a = t->a;
    size_t bytes = (size_t)a->D * sizeof(float);
    int64_t y = from / a->w, x = from % a->w;
    for (int64_t i = 0; i < keys; i++, dst += a->ld) {
        const float *src = cpu_relpos_part(t, y, x, part);
        if (src) {
            for (int64_t d = 0; d < a->D; d += 16) __builtin_prefetch(src + AHEAD * a->qkv.stride[2] + d);
            memcpy(dst, src, bytes);
        } else {
            memset(dst, 0, bytes);
        }
        if (++x == a->w) {
            x = 0;
            y++;
        }
    }
}

/* Where query i of the task is along one axis of its window. */
int64_t cpu_relpos_where(const relpos_at *t, int64_t i, bool along_x)
{
    int64_t query = t->first + min64(i, t->u.count - 1);
    return along_x ? query % t->w : query / t->w;
}

int64_t cpu_relpos_lines(const relpos_at *t, int64_t panel, int64_t size, bool along_x, int64_t *least)
{
    int64_t nr = t->u.kernels->nr, lanes = cpu_queries_lanes(&t->u, panel), most = 0;
    *least = size;
    for (int64_t i = 0; i < lanes; i++) {
        *least = min64(*least, cpu_relpos_where(t, panel * nr + i, along_x));
        most = max64(most, cpu_relpos_where(t, panel * nr + i, along_x));
    }
    return most - *least + size;
}

/* bias[s][lane] = rel[at(lane) - s + size - 1] . q(lane), at(lane) being where the lane's query is along one axis
 */
static void relpos_bias(const relpos_at *t, int64_t panel, tensor rel, int64_t size, bool along_x, float *bias)
{
    const cpu_queries *u = &t->u;
    const cpu_kernels *k = u->kernels;
    int64_t nr = k->nr, lanes = cpu_queries_lanes(u, panel), least, count;
    count = cpu_relpos_lines(t, panel, size, along_x, &least);
    const float *lines = (const float *)rel.data + least * rel.stride[0], *q = u->q + panel * u->D * nr;
    cpu_tiles(k, lanes, count, u->D, lines, rel.stride[0], q, lanes, t->line, lanes, false);
    for (int64_t i = 0; i < lanes; i++) {
        const float *src = t->line + (cpu_relpos_where(t, panel * nr + i, along_x) - least + size - 1) * lanes + i;
        for (int64_t s = 0; s < size; s++) bias[s * lanes + i] = src[-s * lanes];
    }
}

void cpu_relpos_biases(const relpos_at *t)
{
    const relpos *a = t->a;
    int64_t nr = t->u.kernels->nr;
    for (int64_t p = 0; p < t->u.panels && tensor_given(a->rel_h); p++) {
        relpos_bias(t, p, a->rel_h, a->h, false, t->bias_h + p * a->h * nr);
        relpos_bias(t, p, a->rel_w, a->w, true, t->bias_w + p * a->w * nr);
    }
}

/* Scales the scores of keys from .. and adds the biases, one row of the map at a time. */
static void relpos_scores(const relpos_at *t, int64_t panel, int64_t from, int64_t keys)
{
    const relpos *a = t->a;
    const cpu_queries *u = &t->u;
    int64_t nr = u->kernels->nr, lanes = cpu_queries_lanes(u, panel);
    bool biased = tensor_given(a->rel_h);
    const float *bias_h = t->bias_h + panel * a->h * nr, *bias_w = t->bias_w + panel * a->w * nr;
    for (int64_t i = 0, n; i < keys; i += n) {
        int64_t y = (from + i) / a->w, x = (from + i) % a->w;
        n = min64(a->w - x, keys - i);
        u->kernels->scores(lanes, n, u->s + i * lanes, a->o.scale, biased ? bias_w + x * lanes : NULL,
                           biased ? bias_h + y * lanes : NULL, u->top + panel * nr);
    }
}

static void relpos_attend(relpos_at *t)
{
    const relpos *a = t->a;
    cpu_queries *u = &t->u;
    int64_t total = a->h * a->w;
    cpu_relpos_biases(t);
    for (int64_t from = 0; from < total; from += a->keys) {
        int64_t keys = min64(a->keys, total - from);
        cpu_relpos_gather(t, 1, from, keys, t->k);
        cpu_relpos_gather(t, 2, from, keys, t->v);
        for (int64_t p = 0; p < u->panels; p++) {
            cpu_queries_dot(u, p, keys, t->k, a->ld);
            relpos_scores(t, p, from, keys);
            cpu_queries_take(u, p, keys, t->v, a->ld);
        }
    }
}

/* How many of the queries from i on lie in the same row of the window. */
int64_t cpu_relpos_run(const relpos_at *t, int64_t i)
{
    return min64(t->u.count - i, t->w - (t->first + i) % t->w);
}

void cpu_relpos_load(relpos_at *t)
{
    for (int64_t i = 0, n; i < t->u.count; i += n) {
        n = cpu_relpos_run(t, i);
        cpu_queries_load(&t->u, i, n, cpu_relpos_part(t, (t->first + i) / t->w, (t->first + i) % t->w, 0),
                         t->a->qkv.stride[2]);
    }
}

static void relpos_store(const relpos_at *t)
{
    const relpos *a = t->a;
    for (int64_t i = 0, n; i < t->u.count; i += n) {
        n = cpu_relpos_run(t, i);
        int64_t y = t->y0 + (t->first + i) / t->w, x = t->x0 + (t->first + i) % t->w;
        float *to = (float *)a->y.data + t->b * a->y.stride[0] + y * a->y.stride[1] + x * a->y.stride[2];
        cpu_queries_store(&t->u, i, n, to + t->head * a->D, a->y.stride[2]);
        if (!tensor_given(a->lse)) continue;
        float *lse = (float *)a->lse.data + t->b * a->lse.stride[0] + t->head * a->lse.stride[1];
        for (int64_t k = 0; k < n; k++) lse[y * a->lse.stride[2] + x + k] = cpu_queries_lse(&t->u, i + k);
    }
}

static size_t relpos_floats(const relpos *a)
{
    int64_t nr = a->c->kernels->nr, panels = ceil_div(a->queries, nr);
    return (size_t)(2 * a->keys * a->ld + (2 * max64(a->h, a->w) + panels * (a->h + a->w)) * nr) +
           cpu_queries_floats(a->c->kernels, a->queries, a->D, a->keys);
}

relpos_at cpu_relpos_at(const relpos *a, int64_t task)
{
    relpos_at t = { .a = a, .head = task % a->o.heads };
    task /= a->o.heads;
    t.x0 = task % a->across * a->w;
    t.y0 = task / a->across % a->down * a->h;
    t.b = task / a->across / a->down;
    t.h = min64(a->h, a->qkv.dim[1] - t.y0);
    t.w = min64(a->w, a->qkv.dim[2] - t.x0);
    return t;
}

static void relpos_task(void *context, int64_t task, int thread)
{
    const relpos *a = context;
    const cpu_kernels *k = a->c->kernels;
    int64_t nr = k->nr, panels = ceil_div(a->queries, nr);
    relpos_at t = cpu_relpos_at(a, task / a->chunks);
    t.first = task % a->chunks * a->queries;
    int64_t count = min64(a->queries, t.h * t.w - t.first);
    if (count <= 0) return;
    t.k = cpu_scratch_of(a->c, thread);
    t.v = t.k + a->keys * a->ld;
    t.line = t.v + a->keys * a->ld;
    t.bias_h = t.line + 2 * max64(a->h, a->w) * nr;
    t.bias_w = t.bias_h + panels * a->h * nr;
    cpu_queries_open(&t.u, k, count, a->D, t.bias_w + panels * a->w * nr);
    cpu_relpos_load(&t);
    relpos_attend(&t);
    cpu_queries_close(&t.u);
    relpos_store(&t);
}

relpos cpu_relpos(const cpu *c, tensor qkv, tensor pad, tensor rel_h, tensor rel_w, relpos_options o)
{
    relpos a = { .c = c, .qkv = qkv, .pad = pad, .rel_h = rel_h, .rel_w = rel_w, .o = o };
    a.D = qkv.dim[3] / 3 / o.heads;
    a.h = o.window ? o.window : qkv.dim[1];
    a.w = o.window ? o.window : qkv.dim[2];
    a.down = ceil_div(qkv.dim[1], a.h);
    a.across = ceil_div(qkv.dim[2], a.w);
    a.ld = round_up(a.D, 16) + ROW_PAD;
    return a;
}

void cpu_relpos_attention_fwd(dev *d, tensor y, tensor lse, tensor qkv, tensor pad, tensor rel_h, tensor rel_w,
                              relpos_options o)
{
    relpos a = cpu_relpos(cpu_of(d), qkv, pad, rel_h, rel_w, o);
    a.y = y;
    a.lse = lse;
    a.queries = min64(QUERIES, a.h * a.w);
    a.chunks = ceil_div(a.h * a.w, a.queries);
    a.keys = a.h * a.w <= REL_KEYS_WHOLE ? a.h * a.w : REL_KEYS;
    if (!cpu_scratch(d, relpos_floats(&a) * sizeof(float), 0)) return;
    cpu_parallel(a.c, qkv.dim[0] * a.down * a.across * o.heads * a.chunks, relpos_task, &a);
}
