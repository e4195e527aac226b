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

static void attend(const attention *a, cpu_queries *u, int64_t b, int64_t h, int64_t t0, float *copy)
{
    int64_t g = h / (a->q.dim[2] / a->k.dim[2]), row = ((a->o.drop.first + b) * a->q.dim[2] + h) * a->q.dim[1];
    int64_t Tk = a->k.dim[1], shift = Tk - a->q.dim[1], nr = u->kernels->nr, ldk, ldv;
    int64_t seen = a->o.causal ? min64(Tk, t0 + u->count + shift) : Tk;
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

/* ---- op_relpos_attention_fwd -------------------------------------------------------------------------------- */

enum {
    REL_KEYS = 192,       /* keys of a block of a large map */
    REL_KEYS_WHOLE = 256, /* a map of up to so many positions is one block */
    AHEAD = 8             /* positions: they lie too far apart for the machine to fetch them by itself */
};

typedef struct relpos {
    const cpu *c;
    tensor y, lse, qkv, pad, rel_h, rel_w;
    relpos_options o;
    int64_t D, h, w;      /* of a window, or of the map */
    int64_t across, down; /* windows */
    int64_t queries, chunks, keys, ld;
} relpos;

typedef struct relpos_at { /* what one task works on */
    const relpos *a;
    int64_t b, head, y0, x0; /* the window's corner */
    int64_t h, w;            /* of its part inside the map: these are queries */
    int64_t first;           /* query */
    float *k, *v, *line;     /* line: (2s-1) x nr */
    float *bias_h, *bias_w;  /* [panels][h][nr], [panels][w][nr] */
    cpu_queries u;
} relpos_at;

/* The floats of q (part 0), k (1) or v (2) of a position of the window; NULL outside the map without `pad`. */
static const float *relpos_part(const relpos_at *t, int64_t y, int64_t x, int64_t part)
{
    const relpos *a = t->a;
    int64_t inner = (part * a->o.heads + t->head) * a->D;
    if (y >= t->h || x >= t->w) return tensor_given(a->pad) ? (const float *)a->pad.data + inner : NULL;
    return (const float *)a->qkv.data + t->b * a->qkv.stride[0] + (t->y0 + y) * a->qkv.stride[1] +
           (t->x0 + x) * a->qkv.stride[2] + inner;
}

static void relpos_gather(const relpos_at *t, int64_t part, int64_t from, int64_t keys, float *dst)
{
    const relpos *a = t->a;
    size_t bytes = (size_t)a->D * sizeof(float);
    int64_t y = from / a->w, x = from % a->w;
    for (int64_t i = 0; i < keys; i++, dst += a->ld) {
        const float *src = relpos_part(t, y, x, part);
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
static int64_t relpos_where(const relpos_at *t, int64_t i, bool along_x)
{
    int64_t query = t->first + min64(i, t->u.count - 1);
    return along_x ? query % t->w : query / t->w;
}

/* bias[s][lane] = rel[at(lane) - s + size - 1] . q(lane), at(lane) being where the lane's query is along one axis
 */
static void relpos_bias(const relpos_at *t, int64_t panel, tensor rel, int64_t size, bool along_x, float *bias)
{
    const cpu_queries *u = &t->u;
    const cpu_kernels *k = u->kernels;
    int64_t nr = k->nr, lanes = cpu_queries_lanes(u, panel), least = size, most = 0;
    for (int64_t i = 0; i < lanes; i++) {
        least = min64(least, relpos_where(t, panel * nr + i, along_x));
        most = max64(most, relpos_where(t, panel * nr + i, along_x));
    }
    const float *lines = (const float *)rel.data + least * rel.stride[0], *q = u->q + panel * u->D * nr;
    cpu_tiles(k, lanes, most - least + size, u->D, lines, rel.stride[0], q, lanes, t->line, lanes, false);
    for (int64_t i = 0; i < lanes; i++) {
        const float *src = t->line + (relpos_where(t, panel * nr + i, along_x) - least + size - 1) * lanes + i;
        for (int64_t s = 0; s < size; s++) bias[s * lanes + i] = src[-s * lanes];
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
    int64_t nr = u->kernels->nr, total = a->h * a->w;
    for (int64_t p = 0; p < u->panels && tensor_given(a->rel_h); p++) {
        relpos_bias(t, p, a->rel_h, a->h, false, t->bias_h + p * a->h * nr);
        relpos_bias(t, p, a->rel_w, a->w, true, t->bias_w + p * a->w * nr);
    }
    for (int64_t from = 0; from < total; from += a->keys) {
        int64_t keys = min64(a->keys, total - from);
        relpos_gather(t, 1, from, keys, t->k);
        relpos_gather(t, 2, from, keys, t->v);
        for (int64_t p = 0; p < u->panels; p++) {
            cpu_queries_dot(u, p, keys, t->k, a->ld);
            relpos_scores(t, p, from, keys);
            cpu_queries_take(u, p, keys, t->v, a->ld);
        }
    }
}

/* How many of the queries from i on lie in the same row of the window. */
static int64_t relpos_run(const relpos_at *t, int64_t i)
{
    return min64(t->u.count - i, t->w - (t->first + i) % t->w);
}

static void relpos_load(relpos_at *t)
{
    for (int64_t i = 0, n; i < t->u.count; i += n) {
        n = relpos_run(t, i);
        cpu_queries_load(&t->u, i, n, relpos_part(t, (t->first + i) / t->w, (t->first + i) % t->w, 0),
                         t->a->qkv.stride[2]);
    }
}

static void relpos_store(const relpos_at *t)
{
    const relpos *a = t->a;
    for (int64_t i = 0, n; i < t->u.count; i += n) {
        n = relpos_run(t, i);
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

static void relpos_task(void *context, int64_t task, int thread)
{
    const relpos *a = context;
    const cpu_kernels *k = a->c->kernels;
    int64_t chunk = task % a->chunks, nr = k->nr, panels = ceil_div(a->queries, nr);
    task /= a->chunks;
    relpos_at t = { .a = a, .head = task % a->o.heads, .first = chunk * a->queries };
    task /= a->o.heads;
    t.x0 = task % a->across * a->w;
    t.y0 = task / a->across % a->down * a->h;
    t.b = task / a->across / a->down;
    t.h = min64(a->h, a->qkv.dim[1] - t.y0);
    t.w = min64(a->w, a->qkv.dim[2] - t.x0);
    int64_t count = min64(a->queries, t.h * t.w - t.first);
    if (count <= 0) return;
    t.k = cpu_scratch_of(a->c, thread);
    t.v = t.k + a->keys * a->ld;
    t.line = t.v + a->keys * a->ld;
    t.bias_h = t.line + 2 * max64(a->h, a->w) * nr;
    t.bias_w = t.bias_h + panels * a->h * nr;
    cpu_queries_open(&t.u, k, count, a->D, t.bias_w + panels * a->w * nr);
    relpos_load(&t);
    relpos_attend(&t);
    cpu_queries_close(&t.u);
    relpos_store(&t);
}

void cpu_relpos_attention_fwd(dev *d, tensor y, tensor lse, tensor qkv, tensor pad, tensor rel_h, tensor rel_w,
                              relpos_options o)
{
    relpos a = {
        .c = cpu_of(d), .y = y, .lse = lse, .qkv = qkv, .pad = pad, .rel_h = rel_h, .rel_w = rel_w, .o = o
    };
    a.D = y.dim[3] / o.heads;
    a.h = o.window ? o.window : qkv.dim[1];
    a.w = o.window ? o.window : qkv.dim[2];
    a.down = ceil_div(qkv.dim[1], a.h);
    a.across = ceil_div(qkv.dim[2], a.w);
    a.queries = min64(QUERIES, a.h * a.w);
    a.chunks = ceil_div(a.h * a.w, a.queries);
    a.keys = a.h * a.w <= REL_KEYS_WHOLE ? a.h * a.w : REL_KEYS;
    a.ld = round_up(a.D, 16) + ROW_PAD;
    if (!cpu_scratch(d, relpos_floats(&a) * sizeof(float), 0)) return;
    cpu_parallel(a.c, qkv.dim[0] * a.down * a.across * o.heads * a.chunks, relpos_task, &a);
}
