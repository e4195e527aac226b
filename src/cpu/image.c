/* image.c - the two cross attentions between image tokens and prompt tokens, in absorbed form: all projections of
 * the image side are folded into the few token vectors, and the image tokens are read once. */
#include "cpu/cpu.h"

#include <string.h>

/* ---- op_image_pool_fwd ------------------------------------------------------------------------------------ */

enum {
    POOL_KEYS = 96, /* image tokens of a block: their sums with the position code stay in the second-level cache */
    PAD = 16
};

typedef struct pool {
    const cpu *c;
    tensor y, lse, x, pe, a;
    int64_t queries, chunks, ld;
} pool;

static void pool_task(void *context, int64_t task, int thread)
{
    const pool *p = context;
    const cpu_kernels *k = p->c->kernels;
    int64_t n = task / p->chunks, j0 = task % p->chunks * p->queries, nr = k->nr;
    int64_t S = p->x.dim[1], C = p->x.dim[2], count = min64(p->queries, p->a.dim[1] - j0);
    if (count <= 0) return;
    float *key = cpu_scratch_of(p->c, thread), *value = key + POOL_KEYS * p->ld;
    const float *x = (const float *)p->x.data + n * p->x.stride[0], *pe = p->pe.data;
    const float *a = (const float *)p->a.data + n * p->a.stride[0] + j0 * p->a.stride[1];
    float *y = (float *)p->y.data + n * p->y.stride[0] + j0 * p->y.stride[1];
    cpu_queries u;
    cpu_queries_open(&u, k, count, C, value + POOL_KEYS * p->ld);
    cpu_queries_load(&u, 0, count, a, p->a.stride[1]);
    for (int64_t from = 0; from < S; from += POOL_KEYS) {
        int64_t keys = min64(POOL_KEYS, S - from), ahead = from + POOL_KEYS, part = ceil_div(POOL_KEYS, u.panels);
        for (int64_t s = 0; s < keys; s++) {
            const float *row = x + (from + s) * p->x.stride[1];
            k->add(key + s * p->ld, row, pe + (from + s) * p->pe.stride[0], C);
            memcpy(value + s * p->ld, row, (size_t)C * sizeof *row);
        }
        for (int64_t i = 0; i < u.panels; i++) {
            cpu_fetch(x, p->x.stride[1], ahead + i * part, ahead + (i + 1) * part, S, C);
            cpu_fetch(pe, p->pe.stride[0], ahead + i * part, ahead + (i + 1) * part, S, C);
            cpu_queries_dot(&u, i, keys, key, p->ld);
            k->scores(cpu_queries_lanes(&u, i), keys, u.s, 1.0f, NULL, NULL, u.top + i * nr);
            cpu_queries_take(&u, i, keys, value, p->ld);
        }
    }
    cpu_queries_close(&u);
    cpu_queries_store(&u, 0, count, y, p->y.stride[1]);
    if (!tensor_given(p->lse)) return;
    float *lse = (float *)p->lse.data + n * p->lse.stride[0] + j0;
    for (int64_t i = 0; i < count; i++) lse[i] = cpu_queries_lse(&u, i);
}

void cpu_image_pool_fwd(dev *d, tensor y, tensor lse, tensor x, tensor pe, tensor a)
{
    cpu *c = cpu_of(d);
    int64_t J = a.dim[1], C = x.dim[2], nr = c->kernels->nr, N = a.dim[0];
    pool p = { c, y, lse, x, pe, a, 0, 0, round_up(C, 16) + PAD };
    /* few regions: the tokens are divided too, though every part then reads the image */
    int64_t parts = N >= 2 * (int64_t)c->threads ? 1 : ceil_div(2 * (int64_t)c->threads, max64(N, 1));
    p.queries = min64(128, round_up(ceil_div(J, parts), nr));
    p.chunks = ceil_div(J, p.queries);
    size_t floats = (size_t)(2 * POOL_KEYS * p.ld) + cpu_queries_floats(c->kernels, p.queries, C, POOL_KEYS);
    if (!cpu_scratch(d, floats * sizeof(float), 0)) return;
    cpu_parallel(c, N * p.chunks, pool_task, &p);
}

/* ---- op_image_update_fwd ------------------------------------------------------------------------------------ */

enum {
    UPDATE_TOKENS = 96, /* image tokens of a step: a multiple of every panel width and tile height */
    UPDATE_CHUNK = 768, /* image tokens of a task, which copies k and v of its region first */
    UPDATE_MANY = 2112  /* the same where there are regions enough */
};

typedef struct update {
    const cpu *c;
    tensor y, x, pe, k, kb, v, vb, w, b;
    image_update_options o;
    int64_t J, C, ld, chunk, chunks;
} update;

typedef struct update_at {
    float *k;      /* [J][ld] */
    float *v;      /* [C/nr][J][nr] */
    float *sum;    /* [nr][ld]: x + pe */
    float *turned; /* [C][nr]: the same, transposed */
    float *p;      /* [J][UPDATE_TOKENS] */
    float *out;    /* [UPDATE_TOKENS][ld] */
    float *kb;     /* [J] */
} update_at;

static size_t update_floats(const update *p)
{
    int64_t nr = p->c->kernels->nr;
    return (size_t)(p->J * p->ld + round_up(p->C, nr) * p->J + nr * p->ld + p->C * nr + p->J * UPDATE_TOKENS +
                    UPDATE_TOKENS * p->ld + round_up(p->J, 16));
}

static update_at update_open(const update *p, int64_t n, float *scratch)
{
    int64_t nr = p->c->kernels->nr, panels = ceil_div(p->C, nr);
    update_at t = { .k = scratch };
    t.v = t.k + p->J * p->ld;
    t.sum = t.v + panels * nr * p->J;
    t.turned = t.sum + nr * p->ld;
    t.p = t.turned + p->C * nr;
    t.out = t.p + p->J * UPDATE_TOKENS;
    t.kb = t.out + UPDATE_TOKENS * p->ld;
    const float *k = (const float *)p->k.data + n * p->k.stride[0],
                *v = (const float *)p->v.data + n * p->v.stride[0];
    const float *kb = (const float *)p->kb.data + n * p->kb.stride[0];
    memcpy(t.kb, kb, (size_t)p->J * sizeof *kb);
    for (int64_t j = 0; j < p->J; j++) {
        memcpy(t.k + j * p->ld, k + j * p->k.stride[1], (size_t)p->C * sizeof *k);
        for (int64_t i = 0; i < panels; i++) {
            float *dst = t.v + (i * p->J + j) * nr;
            int64_t cols = min64(nr, p->C - i * nr);
            memcpy(dst, v + j * p->v.stride[1] + i * nr, (size_t)cols * sizeof *v);
            if (cols < nr) memset(dst + cols, 0, (size_t)(nr - cols) * sizeof *v);
        }
    }
    return t;
}

/* t->p[j][s] = softmax over the tokens of each head, for image tokens s0 .. s0+count-1 */
static void update_weights(const update *p, const update_at *t, const float *x, int64_t s0, int64_t count)
{
    const cpu_kernels *k = p->c->kernels;
    int64_t nr = k->nr, T = p->J / p->o.heads;
    for (int64_t from = 0; from < count; from += nr) {
        int64_t rows = min64(nr, count - from);
        for (int64_t s = 0; s < rows; s++)
            k->add(t->sum + s * p->ld, x + (from + s) * p->x.stride[1],
                   (const float *)p->pe.data + (s0 + from + s) * p->pe.stride[0], p->C);
        cpu_fetch(x, p->x.stride[1], from + nr, from + 2 * nr, p->x.dim[1] - s0, p->C);
        cpu_fetch(p->pe.data, p->pe.stride[0], s0 + from + nr, s0 + from + 2 * nr, p->x.dim[1], p->C);
        if (rows < nr) memset(t->turned, 0, (size_t)(p->C * nr) * sizeof(float));
        k->transpose(t->turned, nr, t->sum, p->ld, rows, p->C);
        float *to = t->p + from;
        cpu_tiles(k, nr, p->J, p->C, t->k, p->ld, t->turned, nr, to, UPDATE_TOKENS, false);
        for (int64_t h = 0; h < p->o.heads; h++)
            k->softmax_down(T, to + h * T * UPDATE_TOKENS, UPDATE_TOKENS, t->kb + h * T);
    }
}

static void update_step(const update *p, const update_at *t, int64_t n, int64_t s0, int64_t count)
{
    const cpu_kernels *k = p->c->kernels;
    int64_t nr = k->nr, C = p->C;
    const float *x = (const float *)p->x.data + n * p->x.stride[0] + s0 * p->x.stride[1];
    float *y = (float *)p->y.data + n * p->y.stride[0] + s0 * p->y.stride[1];
    update_weights(p, t, x, s0, count);
    for (int64_t s = 0; s < count; s++) k->add(t->out + s * p->ld, x + s * p->x.stride[1], p->vb.data, C);
    for (int64_t c = 0; c < C; c += nr) /* the last panel may run into the padding of the rows */
        cpu_tiles_cols(k, nr, count, p->J, t->p, UPDATE_TOKENS, t->v + c * p->J, nr, t->out + c, p->ld, true);
    for (int64_t s = 0; s < count; s++)
        k->layernorm(y + s * p->y.stride[1], t->out + s * p->ld, p->w.data, p->b.data, C, p->o.eps, NULL, NULL);
}

static void update_task(void *context, int64_t task, int thread)
{
    const update *p = context;
    int64_t n = task / p->chunks, from = task % p->chunks * p->chunk, S = p->x.dim[1];
    int64_t to = min64(S, from + p->chunk);
    update_at t = update_open(p, n, cpu_scratch_of(p->c, thread));
    for (; from < to; from += UPDATE_TOKENS) update_step(p, &t, n, from, min64(UPDATE_TOKENS, to - from));
}

void cpu_image_update_fwd(dev *d, tensor y, tensor x, tensor pe, tensor k, tensor kb, tensor v, tensor vb, tensor w,
                          tensor b, image_update_options o)
{
    update p = { cpu_of(d), y, x, pe, k, kb, v, vb, w, b, o, k.dim[1], x.dim[2], 0, UPDATE_MANY, 0 };
    if (y.dim[0] * ceil_div(x.dim[1], p.chunk) < 8 * (int64_t)p.c->threads) p.chunk = UPDATE_CHUNK;
    p.chunks = ceil_div(x.dim[1], p.chunk);
    p.ld = round_up(p.C, 32) + PAD;
    if (!cpu_scratch(d, update_floats(&p) * sizeof(float), 0)) return;
    cpu_parallel(p.c, y.dim[0] * p.chunks, update_task, &p);
}
