/* relpos_bwd.c - the backward of attention over a map.
 *
 * A task owns one head of one window: its keys and values are gathered once, its queries come in chunks. For a block of
 * keys the probabilities of all queries of the chunk and the gradients of their scores stand side by side in rows, so
 * that the gradients of keys, values and queries are plain products. What several tasks add to (tables, pad) goes to a
 * part per task; the parts are added in order. */
#include "cpu/relpos.h"

#include <math.h>
#include <string.h>

enum {
    QUERIES = 256, /* of a chunk */
    KEYS = 96,     /* of a block */
    PAD = 16
};

typedef struct back {
    relpos a;
    tensor dqkv, dy;
    int64_t wide, ldw, apart; /* queries of a chunk in whole panels; a row of weights; floats of a part */
    float *part;
} back;

typedef struct back_at { /* what one task works on, besides its relpos_at */
    relpos_at t;
    cpu_queries dy; /* only its q is used: dy upright. t.u: q upright, o the queries' gradients, m lse, l delta */
    float *q_rows, *dy_rows; /* [D / nr][wide][nr] */
    float *dk, *dv;          /* [h w][ld] */
    float *weight;           /* [KEYS][ldw]: probabilities, then the scores' gradients */
    float *dbias_h, *dbias_w;
    float *drel_h, *drel_w, *dpad; /* the task's part: (2h-1)[ld], (2w-1)[ld], k and v [2][ld] */
} back_at;

/* Places everything in scratch; with base NULL it only counts. */
static int64_t place(const back *b, back_at *at, float *base)
{
    const relpos *a = &b->a;
    const cpu_kernels *k = a->c->kernels;
    int64_t nr = k->nr, all = a->h * a->w, panels = b->wide / nr, used = 0;
    int64_t D = round_up(a->D, nr), queries = (int64_t)cpu_queries_floats(k, a->queries, a->D, 0);
    float **place_of[] = { &at->t.k,     &at->t.v,     &at->dk,     &at->dv,       &at->q_rows,
                           &at->dy_rows, &at->weight,  &at->t.line, &at->t.bias_h, &at->t.bias_w,
                           &at->dbias_h, &at->dbias_w, &at->t.u.q,  &at->dy.q };
    int64_t floats[] = { all * a->ld,
                         all * a->ld,
                         all * a->ld,
                         all * a->ld,
                         D * b->wide,
                         D * b->wide,
                         KEYS * b->ldw,
                         2 * max64(a->h, a->w) * nr,
                         panels * a->h * nr,
                         panels * a->w * nr,
                         panels * a->h * nr,
                         panels * a->w * nr,
                         queries,
                         queries };
    for (size_t i = 0; i < LENGTH(floats); i++) {
        *place_of[i] = base ? base + used : NULL;
        used += round_up(floats[i], 16);
    }
    return used;
}

/* Where the gradient of part 0, 1 or 2 of a position inside the map goes. */
static float *gradient(const back *b, const back_at *at, int64_t y, int64_t x, int64_t part)
{
    return (float *)b->dqkv.data + at->t.b * b->dqkv.stride[0] + (at->t.y0 + y) * b->dqkv.stride[1] +
           (at->t.x0 + x) * b->dqkv.stride[2] + (part * b->a.o.heads + at->t.head) * b->a.D;
}

/* A row of y or dy of query i, this head. */
static const float *output_row(const back_at *b, tensor t, int64_t i)
{
    int64_t y = b->t.y0 + (b->t.first + i) / b->t.w, x = b->t.x0 + (b->t.first + i) % b->t.w;
    return (const float *)t.data + b->t.b * t.stride[0] + y * t.stride[1] + x * t.stride[2] + b->t.head * b->t.a->D;
}

static void to_panels(const back *b, const float *row, int64_t i, float *panels)
{
    int64_t nr = b->a.c->kernels->nr, D = b->a.D;
    for (int64_t d = 0; d < D; d += nr)
        memcpy(panels + d * b->wide + i * nr, row + d, (size_t)min64(nr, D - d) * sizeof *row);
}

/* A chunk's queries and gradients in every arrangement; lanes without a query have probability 0. */
static void load(const back *b, back_at *at)
{
    const relpos *a = &b->a;
    relpos_at *t = &at->t;
    int64_t nr = a->c->kernels->nr, D = a->D, count = t->u.count;
    memset(at->q_rows, 0, (size_t)(2 * round_up(D, nr) * b->wide) * sizeof(float)); /* dy_rows follow */
    cpu_relpos_load(t);
    for (int64_t i = 0, n; i < count; i += n) {
        n = cpu_relpos_run(t, i);
        cpu_queries_load(&at->dy, i, n, output_row(at, b->dy, i), b->dy.stride[2]);
    }
    for (int64_t i = 0; i < t->u.panels * nr; i++) t->u.m[i] = INFINITY;
    for (int64_t i = 0; i < count; i++) {
        int64_t y = (t->first + i) / t->w, x = (t->first + i) % t->w;
        const float *dy = output_row(at, b->dy, i), *out = output_row(at, a->y, i);
        double delta = 0.0;
        to_panels(b, cpu_relpos_part(t, y, x, 0), i, at->q_rows);
        to_panels(b, dy, i, at->dy_rows);
        for (int64_t d = 0; d < D; d++) delta += (double)(dy[d] * out[d]);
        t->u.l[i] = (float)delta;
        t->u.m[i] = ((const float *)a->lse.data)[t->b * a->lse.stride[0] + t->head * a->lse.stride[1] +
                                                 (t->y0 + y) * a->lse.stride[2] + t->x0 + x];
    }
    cpu_relpos_biases(t);
    memset(at->dbias_h, 0, (size_t)(t->u.panels * a->h * nr) * sizeof(float));
    memset(at->dbias_w, 0, (size_t)(t->u.panels * a->w * nr) * sizeof(float));
}

/* Probabilities of one panel, row of the map by row of the map, and the slopes of their scores (before scaling). */
static void slopes(const back *b, const back_at *at, int64_t p, int64_t from, int64_t keys)
{
    const relpos *a = &b->a;
    const cpu_kernels *k = a->c->kernels;
    const cpu_queries *u = &at->t.u;
    int64_t nr = k->nr, lanes = cpu_queries_lanes(u, p);
    float *s = at->weight + p * nr, *ds = s + b->wide;
    bool biased = tensor_given(a->rel_h);
    float *bias_h = at->t.bias_h + p * a->h * nr, *bias_w = at->t.bias_w + p * a->w * nr;
    cpu_tiles(k, lanes, keys, a->D, at->t.k + from * a->ld, a->ld, u->q + p * a->D * nr, lanes, s, b->ldw, false);
    cpu_tiles(k, lanes, keys, a->D, at->t.v + from * a->ld, a->ld, at->dy.q + p * a->D * nr, lanes, ds, b->ldw,
              false);
    for (int64_t i = 0, n; i < keys; i += n) {
        int64_t y = (from + i) / a->w, x = (from + i) % a->w;
        n = min64(a->w - x, keys - i);
        k->weigh(lanes, n, s + i * b->ldw, b->ldw, a->o.scale, biased ? bias_w + x * lanes : NULL,
                 biased ? bias_h + y * lanes : NULL, u->m + p * nr);
    }
    k->weigh_bwd(lanes, keys, s, ds, b->ldw, u->l + p * nr, 1.0f);
    for (int64_t i = 0, n; i < keys && biased; i += n) {
        int64_t y = (from + i) / a->w, x = (from + i) % a->w;
        n = min64(a->w - x, keys - i);
        k->add_down(at->dbias_h + (p * a->h + y) * nr, ds + i * b->ldw, b->ldw, n, lanes);
        for (int64_t j = 0; j < n; j++) {
            float *to = at->dbias_w + (p * a->w + x + j) * nr;
            k->add(to, to, ds + (i + j) * b->ldw, lanes);
        }
    }
}

static void key_block(const back *b, const back_at *at, int64_t from, int64_t keys)
{
    const relpos *a = &b->a;
    const cpu_kernels *k = a->c->kernels;
    const cpu_queries *u = &at->t.u;
    int64_t nr = k->nr, last = u->panels - 1, lanes = last * nr + cpu_queries_lanes(u, last);
    float *ds = at->weight + b->wide;
    for (int64_t p = 0; p < u->panels; p++) slopes(b, at, p, from, keys);
    for (int64_t d = 0; d < a->D; d += nr) {
        cpu_tiles(k, nr, keys, lanes, at->weight, b->ldw, at->dy_rows + d * b->wide, nr, at->dv + from * a->ld + d,
                  a->ld, true);
        cpu_tiles(k, nr, keys, lanes, ds, b->ldw, at->q_rows + d * b->wide, nr, at->dk + from * a->ld + d, a->ld,
                  true);
    }
    for (int64_t p = 0; p < u->panels; p++) {
        int64_t n = cpu_queries_lanes(u, p);
        cpu_tiles_cols(k, n, a->D, keys, at->t.k + from * a->ld, a->ld, ds + p * nr, b->ldw, u->o + p * a->D * nr,
                       n, true);
    }
}

/* From the biases' gradients of one panel to a table's part and to the queries. */
static void table(const back *b, const back_at *at, int64_t p, tensor rel, int64_t size, bool along_x,
                  const float *dbias, float *drel)
{
    const relpos *a = &b->a;
    const cpu_kernels *k = a->c->kernels;
    const cpu_queries *u = &at->t.u;
    int64_t nr = k->nr, lanes = cpu_queries_lanes(u, p), least, count;
    float *line = at->t.line;
    count = cpu_relpos_lines(&at->t, p, size, along_x, &least);
    memset(line, 0, (size_t)(count * lanes) * sizeof *line);
    for (int64_t i = 0; i < lanes; i++) {
        float *to = line + (cpu_relpos_where(&at->t, p * nr + i, along_x) - least + size - 1) * lanes + i;
        for (int64_t s = 0; s < size; s++) to[-s * lanes] = dbias[s * nr + i];
    }
    const float *rows = (const float *)rel.data + least * rel.stride[0];
    cpu_tiles_cols(k, lanes, a->D, count, rows, rel.stride[0], line, lanes, u->o + p * a->D * nr, lanes, true);
    for (int64_t d = 0; d < a->D; d += nr)
        cpu_tiles(k, nr, count, lanes, line, lanes, at->q_rows + d * b->wide + p * nr * nr, nr,
                  drel + least * a->ld + d, a->ld, true);
}

static void chunk(const back *b, back_at *at)
{
    const relpos *a = &b->a;
    relpos_at *t = &at->t;
    int64_t nr = a->c->kernels->nr, total = a->h * a->w;
    for (int64_t from = 0; from < total; from += KEYS) key_block(b, at, from, min64(KEYS, total - from));
    for (int64_t p = 0; p < t->u.panels; p++) {
        int64_t n = a->D * cpu_queries_lanes(&t->u, p);
        float *dq = t->u.o + p * a->D * nr;
        for (int64_t i = 0; i < n; i++) dq[i] *= a->o.scale;
        if (!tensor_given(a->rel_h)) continue;
        table(b, at, p, a->rel_h, a->h, false, at->dbias_h + p * a->h * nr, at->drel_h);
        table(b, at, p, a->rel_w, a->w, true, at->dbias_w + p * a->w * nr, at->drel_w);
    }
    for (int64_t i = 0, n; i < t->u.count && tensor_given(b->dqkv); i += n) {
        n = cpu_relpos_run(t, i);
        cpu_queries_store(&t->u, i, n, gradient(b, at, (t->first + i) / t->w, (t->first + i) % t->w, 0),
                          b->dqkv.stride[2]);
    }
}

/* The gradients of keys and values to where they came from: the map, or the pad. */
static void store_keys(const back *b, const back_at *at)
{
    const relpos *a = &b->a;
    const cpu_kernels *k = a->c->kernels;
    for (int64_t s = 0; s < a->h * a->w; s++) {
        int64_t y = s / a->w, x = s % a->w;
        float *dk = at->dk + s * a->ld, *dv = at->dv + s * a->ld;
        if (y >= at->t.h || x >= at->t.w) {
            k->add_scaled(at->dpad, a->o.scale, dk, a->D);
            k->add(at->dpad + a->ld, at->dpad + a->ld, dv, a->D);
        } else if (tensor_given(b->dqkv)) {
            float *to = gradient(b, at, y, x, 1);
            for (int64_t d = 0; d < a->D; d++) to[d] = a->o.scale * dk[d];
            memcpy(gradient(b, at, y, x, 2), dv, (size_t)a->D * sizeof *dv);
        }
    }
}

static void back_task(void *context, int64_t task, int thread)
{
    const back *b = context;
    const relpos *a = &b->a;
    const cpu_kernels *k = a->c->kernels;
    back_at at = { .t = cpu_relpos_at(a, task) };
    place(b, &at, cpu_scratch_of(a->c, thread));
    float *u = at.t.u.q, *dy = at.dy.q;
    at.drel_h = b->part + task * b->apart;
    at.drel_w = at.drel_h + (2 * a->h - 1) * a->ld;
    at.dpad = at.drel_w + (2 * a->w - 1) * a->ld;
    memset(at.drel_h, 0, (size_t)b->apart * sizeof(float));
    memset(at.dk, 0, (size_t)(a->h * a->w * a->ld) * sizeof(float));
    memset(at.dv, 0, (size_t)(a->h * a->w * a->ld) * sizeof(float));
    cpu_relpos_gather(&at.t, 1, 0, a->h * a->w, at.t.k);
    cpu_relpos_gather(&at.t, 2, 0, a->h * a->w, at.t.v);
    for (at.t.first = 0; at.t.first < at.t.h * at.t.w; at.t.first += a->queries) {
        int64_t count = min64(a->queries, at.t.h * at.t.w - at.t.first);
        cpu_queries_open(&at.t.u, k, count, a->D, u);
        cpu_queries_open(&at.dy, k, count, a->D, dy);
        load(b, &at);
        chunk(b, &at);
    }
    store_keys(b, &at);
}

/* Row by row of a table: the parts of all tasks. */
static void add_table(const back *b, tensor to, const float *part, int64_t tasks)
{
    for (int64_t i = 0; tensor_given(to) && i < to.dim[0]; i++)
        cpu_add_parts(tensor_at(to, i), part + i * b->a.ld, tasks, b->apart);
}

void cpu_relpos_attention_bwd(dev *d, tensor dqkv, tensor dpad, tensor drel_h, tensor drel_w, tensor dy, tensor y,
                              tensor lse, tensor qkv, tensor pad, tensor rel_h, tensor rel_w, relpos_options o)
{
    back b = { .a = cpu_relpos(cpu_of(d), qkv, pad, rel_h, rel_w, o) };
    relpos *a = &b.a;
    int64_t nr = a->c->kernels->nr, windows = qkv.dim[0] * a->down * a->across, heads = o.heads;
    a->y = y;
    a->lse = lse;
    a->queries = min64(QUERIES, a->h * a->w);
    b.dqkv = dqkv;
    b.dy = dy;
    b.wide = round_up(a->queries, nr);
    b.ldw = 2 * b.wide + PAD;
    b.apart = (2 * a->h + 2 * a->w) * a->ld;
    int64_t floats = place(&b, &(back_at){ .t = { .a = a } }, NULL);
    if (!cpu_scratch(d, (size_t)floats * sizeof(float), (size_t)(windows * heads * b.apart) * sizeof(float)))
        return;
    b.part = cpu_scratch_shared(a->c);
    cpu_parallel(a->c, windows * heads, back_task, &b);
    add_table(&b, drel_h, b.part, windows * heads);
    add_table(&b, drel_w, b.part + (2 * a->h - 1) * a->ld, windows * heads);
    for (int64_t i = 0; i < 2 * heads && tensor_given(dpad); i++) /* k and v of each head */
        cpu_add_parts(tensor_slice(dpad, 0, (heads + i) * a->D, a->D),
                      b.part + i % heads * b.apart + (2 * a->h + 2 * a->w - 2 + i / heads) * a->ld, windows,
                      heads * b.apart);
}
