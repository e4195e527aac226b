/* image_bwd.c - the backward of the two absorbed cross attentions of image.c. The probabilities are made again from the
 * inputs; the image tokens are read once, block by block.
 *
 * A task takes a chunk of one region's image tokens; what is summed over tokens goes to a part per task, and the parts
 * are added in order. */
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

enum {
    CHUNK = 2048, /* image tokens of a task: part of the result */
    TOKENS = 96,  /* of a step */
    PAD = 16
};

/* Hands out pieces of a thread's scratch; with base NULL it only counts. */
typedef struct cutter {
    float *base;
    int64_t used;
} cutter;

static float *cut(cutter *c, int64_t floats)
{
    int64_t from = c->used;
    c->used += round_up(floats, 16);
    return c->base ? c->base + from : NULL;
}

static const float *row(const tensor *t, int64_t n, int64_t i)
{
    return (const float *)t->data + n * t->stride[0] + i * t->stride[1];
}

/* panels[c / nr][at + i][c % nr] = row i of t, for `rows` rows; panels are `height` high */
static void to_panels(const cpu_kernels *k, const tensor *t, int64_t n, int64_t rows, int64_t at, int64_t height,
                      float *panels)
{
    int64_t nr = k->nr, C = t->dim[2];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t c = 0; c < C; c += nr) {
            float *dst = panels + c * height + (at + i) * nr;
            int64_t cols = min64(nr, C - c);
            memcpy(dst, row(t, n, i) + c, (size_t)cols * sizeof *dst);
            if (cols < nr) memset(dst + cols, 0, (size_t)(nr - cols) * sizeof *dst);
        }
}

/* y[n] (J,C) = the sum of the parts of region n */
typedef struct gather {
    const cpu *c;
    tensor y;
    const float *part;
    int64_t chunks, apart, ld;
} gather;

static void gather_task(void *context, int64_t task, int thread)
{
    const gather *g = context;
    int64_t J = g->y.dim[1], C = g->y.dim[2], n = task / J, j = task % J;
    float *y = (float *)g->y.data + n * g->y.stride[0] + j * g->y.stride[1];
    const float *part = g->part + n * g->chunks * g->apart + j * g->ld;
    (void)thread;
    memcpy(y, part, (size_t)C * sizeof *y);
    for (int64_t k = 1; k < g->chunks; k++) g->c->kernels->add(y, y, part + k * g->apart, C);
}

static void run_gather(const gather *g)
{
    if (tensor_given(g->y)) cpu_parallel(g->c, g->y.dim[0] * g->y.dim[1], gather_task, (void *)(uintptr_t)g);
}

/* ---- op_image_pool_bwd ------------------------------------------------------------------------------------- */

typedef struct pool {
    const cpu *c;
    tensor dx, da, dy, y, lse, x, pe, a, r;
    int64_t J, wide, ld, ldw, chunks; /* wide: J rounded to half panels */
    float *part;                      /* [N chunks][J][ld] */
} pool;

typedef struct pool_at {
    float *a_up, *dy_up; /* [wide / nr][C][lanes of the panel] */
    float *stack;        /* [C / nr][2 wide][nr]: dy, then a */
    float *lse, *delta;  /* [wide] */
    float *key;          /* [TOKENS][ld]: x + pe */
    float *weight;       /* [TOKENS][ldw]: probabilities, then the scores' gradients */
    float *out;          /* [TOKENS][ld] */
} pool_at;

static int64_t pool_cut(const pool *p, float *base, pool_at *t)
{
    int64_t nr = p->c->kernels->nr, C = p->x.dim[2];
    cutter c = { .base = base };
    t->a_up = cut(&c, p->wide * C);
    t->dy_up = cut(&c, p->wide * C);
    t->stack = cut(&c, 2 * p->wide * round_up(C, nr));
    t->lse = cut(&c, p->wide);
    t->delta = cut(&c, p->wide);
    t->key = cut(&c, TOKENS * p->ld);
    t->weight = cut(&c, TOKENS * p->ldw);
    t->out = cut(&c, TOKENS * p->ld);
    return c.used;
}

/* The last panel may be a half one. */
static int64_t lanes_at(const pool *p, int64_t j) { return min64(p->c->kernels->nr, p->wide - j); }

/* Lanes without a query have probability 0. */
static void pool_load(const pool *p, const pool_at *t, int64_t n)
{
    const cpu_kernels *k = p->c->kernels;
    int64_t nr = k->nr, C = p->x.dim[2], J = p->J;
    const float *lse = (const float *)p->lse.data + n * p->lse.stride[0];
    memset(t->a_up, 0, (size_t)(p->wide * C) * sizeof(float));
    memset(t->dy_up, 0, (size_t)(p->wide * C) * sizeof(float));
    for (int64_t j = 0; j < J; j += nr) {
        int64_t lanes = lanes_at(p, j), here = min64(nr, J - j);
        k->transpose(t->a_up + j * C, lanes, row(&p->a, n, j), p->a.stride[1], here, C);
        k->transpose(t->dy_up + j * C, lanes, row(&p->dy, n, j), p->dy.stride[1], here, C);
    }
    memset(t->stack, 0, (size_t)(2 * p->wide * round_up(C, nr)) * sizeof(float));
    to_panels(k, &p->dy, n, J, 0, 2 * p->wide, t->stack);
    to_panels(k, &p->a, n, J, p->wide, 2 * p->wide, t->stack);
    memset(t->key, 0, (size_t)(TOKENS * p->ld) * sizeof(float));
    for (int64_t j = 0; j < p->wide; j++) {
        double delta = 0.0;
        for (int64_t c = 0; c < C && j < J; c++) delta += (double)(row(&p->dy, n, j)[c] * row(&p->y, n, j)[c]);
        t->delta[j] = (float)delta;
        t->lse[j] = j < J ? lse[j] : INFINITY;
    }
}

static void pool_step(const pool *p, const pool_at *t, int64_t n, int64_t s0, int64_t count, float *da)
{
    const cpu_kernels *k = p->c->kernels;
    int64_t nr = k->nr, C = p->x.dim[2], ldx = p->x.stride[1];
    const float *x = row(&p->x, n, s0);
    float *slopes = t->weight + p->wide;
    for (int64_t s = 0; s < count; s++)
        k->add(t->key + s * p->ld, x + s * ldx, (const float *)p->pe.data + (s0 + s) * p->pe.stride[0], C);
    int64_t part = ceil_div(TOKENS, ceil_div(p->wide, nr)), ahead = TOKENS;
    for (int64_t j = 0; j < p->wide; j += nr, ahead += part) {
        int64_t lanes = lanes_at(p, j);
        cpu_fetch(x, ldx, ahead, ahead + part, p->x.dim[1] - s0, C);
        cpu_fetch(p->pe.data, p->pe.stride[0], s0 + ahead, s0 + ahead + part, p->x.dim[1], C);
        cpu_tiles(k, lanes, count, C, t->key, p->ld, t->a_up + j * C, lanes, t->weight + j, p->ldw, false);
        cpu_tiles(k, lanes, count, C, x, ldx, t->dy_up + j * C, lanes, slopes + j, p->ldw, false);
        k->weigh(lanes, count, t->weight + j, p->ldw, 1.0f, NULL, NULL, t->lse + j);
        k->weigh_bwd(lanes, count, t->weight + j, slopes + j, p->ldw, t->delta + j, 1.0f);
    }
    for (int64_t c = 0; c < C && da; c += nr)
        cpu_tiles_cols(k, nr, p->J, count, slopes, p->ldw, t->key + c, p->ld, da + c, p->ld, true);
    if (!tensor_given(p->dx)) return;
    float *dx = (float *)p->dx.data + n * p->dx.stride[0] + s0 * p->dx.stride[1];
    const float *r = tensor_given(p->r) ? row(&p->r, n, s0) : NULL;
    for (int64_t c = 0; c < C; c += nr)
        cpu_tiles(k, nr, count, 2 * p->wide, t->weight, p->ldw, t->stack + c * 2 * p->wide, nr, t->out + c, p->ld,
                  false);
    for (int64_t s = 0; s < count; s++) {
        float *to = dx + s * p->dx.stride[1];
        if (r)
            k->add(to, t->out + s * p->ld, r + s * p->r.stride[1], C);
        else
            memcpy(to, t->out + s * p->ld, (size_t)C * sizeof *to);
    }
}

static void pool_task(void *context, int64_t task, int thread)
{
    const pool *p = context;
    int64_t n = task / p->chunks, from = task % p->chunks * CHUNK, to = min64(p->x.dim[1], from + CHUNK);
    float *da = p->part ? p->part + task * p->J * p->ld : NULL;
    pool_at t;
    pool_cut(p, cpu_scratch_of(p->c, thread), &t);
    pool_load(p, &t, n);
    if (da) memset(da, 0, (size_t)(p->J * p->ld) * sizeof *da);
    for (; from < to; from += TOKENS) pool_step(p, &t, n, from, min64(TOKENS, to - from), da);
}

void cpu_image_pool_bwd(dev *d, tensor dx, tensor da, tensor dy, tensor y, tensor lse, tensor x, tensor pe,
                        tensor a, tensor r)
{
    pool p = { .c = cpu_of(d), .dx = dx, .da = da, .dy = dy, .y = y, .lse = lse, .x = x, .pe = pe, .a = a, .r = r };
    int64_t nr = p.c->kernels->nr, N = a.dim[0];
    p.J = a.dim[1];
    p.wide = round_up(p.J, nr / 2);
    p.ld = round_up(x.dim[2], nr) + PAD;
    p.ldw = 2 * p.wide + PAD;
    p.chunks = ceil_div(x.dim[1], CHUNK);
    int64_t parts = tensor_given(da) ? N * p.chunks * p.J * p.ld : 0;
    if (!cpu_scratch(d, (size_t)pool_cut(&p, NULL, &(pool_at){ 0 }) * sizeof(float), (size_t)parts * sizeof(float)))
        return;
    if (parts) p.part = cpu_scratch_shared(p.c);
    cpu_parallel(p.c, N * p.chunks, pool_task, &p);
    run_gather(&(gather){ p.c, da, p.part, p.chunks, p.J * p.ld, p.ld });
}

/* ---- op_image_update_bwd ----------------------------------------------------------------------------------- */

typedef struct update {
    const cpu *c;
    tensor dx, dk, dkb, dv, dvb, dw, db, dy, x, pe, k, kb, v, vb, w;
    image_update_options o;
    int64_t J, C, ld, chunks, apart;
    float *part; /* [N chunks] of update_part */
} update;

typedef struct update_part { /* sums over the tokens of a task */
    float *dk, *dv;          /* [J][ld] */
    float *dkb;              /* [J] */
    float *dw, *db, *dvb;    /* [C] */
} update_part;

typedef struct update_at {
    float *k, *v;               /* [J][ld] */
    float *k_panels, *v_panels; /* [C / nr][J][nr] */
    float *kb;                  /* [J] */
    float *at, *z, *dz;         /* [TOKENS][ld]: x + pe, the sum before the norm, its gradient */
    float *up;                  /* [C][nr] */
    float *p, *ds;              /* [J][TOKENS] */
    float *unused;              /* [C] */
} update_at;

static int64_t update_cut(const update *p, float *base, update_at *t)
{
    int64_t nr = p->c->kernels->nr;
    cutter c = { .base = base };
    t->k = cut(&c, p->J * p->ld);
    t->v = cut(&c, p->J * p->ld);
    t->k_panels = cut(&c, p->J * round_up(p->C, nr));
    t->v_panels = cut(&c, p->J * round_up(p->C, nr));
    t->kb = cut(&c, p->J);
    t->at = cut(&c, TOKENS * p->ld);
    t->z = cut(&c, TOKENS * p->ld);
    t->dz = cut(&c, TOKENS * p->ld);
    t->up = cut(&c, p->C * nr);
    t->p = cut(&c, p->J * TOKENS);
    t->ds = cut(&c, p->J * TOKENS);
    t->unused = cut(&c, p->C);
    return c.used;
}

static int64_t part_cut(const update *p, float *base, update_part *t)
{
    cutter c = { .base = base };
    t->dk = cut(&c, p->J * p->ld);
    t->dv = cut(&c, p->J * p->ld);
    t->dkb = cut(&c, p->J);
    t->dw = cut(&c, p->C);
    t->db = cut(&c, p->C);
    t->dvb = cut(&c, p->C);
    return c.used;
}

static void update_load(const update *p, const update_at *t, int64_t n)
{
    const cpu_kernels *k = p->c->kernels;
    memset(t->at, 0, (size_t)(3 * round_up(TOKENS * p->ld, 16)) * sizeof(float)); /* z and dz follow */
    for (int64_t j = 0; j < p->J; j++) {
        memcpy(t->k + j * p->ld, row(&p->k, n, j), (size_t)p->C * sizeof(float));
        memcpy(t->v + j * p->ld, row(&p->v, n, j), (size_t)p->C * sizeof(float));
    }
    to_panels(k, &p->k, n, p->J, 0, p->J, t->k_panels);
    to_panels(k, &p->v, n, p->J, 0, p->J, t->v_panels);
    memcpy(t->kb, (const float *)p->kb.data + n * p->kb.stride[0], (size_t)p->J * sizeof(float));
}

/* to[j][s] = rows[j] . tokens[s], then fn for the tokens of each head: down the rows, nr image tokens at once */
static void scores(const update *p, const update_at *t, const float *rows, const float *tokens, int64_t count,
                   float *to, bool back)
{
    const cpu_kernels *k = p->c->kernels;
    int64_t nr = k->nr, T = p->J / p->o.heads;
    for (int64_t from = 0; from < count; from += nr) {
        int64_t here = min64(nr, count - from);
        if (here < nr) memset(t->up, 0, (size_t)(p->C * nr) * sizeof(float));
        k->transpose(t->up, nr, tokens + from * p->ld, p->ld, here, p->C);
        cpu_tiles(k, nr, p->J, p->C, rows, p->ld, t->up, nr, to + from, TOKENS, false);
        for (int64_t h = 0; h < p->o.heads; h++) {
            float *head = to + h * T * TOKENS + from;
            if (back)
                k->softmax_down_bwd(T, t->p + h * T * TOKENS + from, head, TOKENS);
            else
                k->softmax_down(T, head, TOKENS, t->kb + h * T);
        }
    }
}

/* rows[s] += sum_j weight[j][s] panels[j] */
static void mix(const update *p, const float *weight, const float *panels, int64_t count, float *rows)
{
    const cpu_kernels *k = p->c->kernels;
    for (int64_t c = 0; c < p->C; c += k->nr) /* the last panel may run into the padding of the rows */
        cpu_tiles_cols(k, k->nr, count, p->J, weight, TOKENS, panels + c * p->J, k->nr, rows + c, p->ld, true);
}

/* sums[j] += sum_s weight[j][s] rows[s] */
static void collect(const update *p, const float *weight, const float *rows, int64_t count, float *sums)
{
    const cpu_kernels *k = p->c->kernels;
    for (int64_t c = 0; c < p->C; c += k->nr)
        cpu_tiles(k, k->nr, p->J, count, weight, TOKENS, rows + c, p->ld, sums + c, p->ld, true);
}

/* Through the norm, row by row: dz from dy, and what the norm's weights and vb get. */
static void norm_rows(const update *p, const update_at *t, const update_part *sums, const float *dy, int64_t count)
{
    const cpu_kernels *k = p->c->kernels;
    for (int64_t s = 0; s < count; s++) {
        float mean, rstd, *z = t->z + s * p->ld, *dz = t->dz + s * p->ld;
        const float *g = dy + s * p->dy.stride[1];
        k->layernorm(t->unused, z, p->w.data, p->w.data, p->C, p->o.eps, &mean, &rstd);
        k->norm_weights(sums->dw, sums->db, g, z, p->C, mean, rstd);
        k->norm_bwd(dz, g, z, p->w.data, NULL, p->C, mean, rstd, true);
        k->add(sums->dvb, sums->dvb, dz, p->C);
    }
}

static void update_step(const update *p, const update_at *t, const update_part *sums, int64_t n, int64_t s0,
                        int64_t count)
{
    const cpu_kernels *k = p->c->kernels;
    for (int64_t s = 0; s < count; s++) {
        const float *x = row(&p->x, n, s0 + s);
        k->add(t->at + s * p->ld, x, (const float *)p->pe.data + (s0 + s) * p->pe.stride[0], p->C);
        k->add(t->z + s * p->ld, x, p->vb.data, p->C);
    }
    scores(p, t, t->k, t->at, count, t->p, false);
    cpu_fetch(row(&p->dy, n, s0), p->dy.stride[1], 0, count, count, p->C);
    mix(p, t->p, t->v_panels, count, t->z);
    norm_rows(p, t, sums, row(&p->dy, n, s0), count);
    scores(p, t, t->v, t->dz, count, t->ds, true);
    cpu_fetch(row(&p->x, n, s0), p->x.stride[1], TOKENS, 2 * TOKENS, p->x.dim[1] - s0, p->C);
    cpu_fetch(p->pe.data, p->pe.stride[0], s0 + TOKENS, s0 + 2 * TOKENS, p->x.dim[1], p->C);
    if (tensor_given(p->dk)) collect(p, t->ds, t->at, count, sums->dk);
    if (tensor_given(p->dv)) collect(p, t->p, t->dz, count, sums->dv);
    for (int64_t j = 0; j < p->J && tensor_given(p->dkb); j++)
        sums->dkb[j] += (float)k->sum(t->ds + j * TOKENS, count);
    if (!tensor_given(p->dx)) return;
    mix(p, t->ds, t->k_panels, count, t->dz);
    for (int64_t s = 0; s < count; s++)
        memcpy((float *)p->dx.data + n * p->dx.stride[0] + (s0 + s) * p->dx.stride[1], t->dz + s * p->ld,
               (size_t)p->C * sizeof(float));
}

static void update_task(void *context, int64_t task, int thread)
{
    const update *p = context;
    int64_t n = task / p->chunks, from = task % p->chunks * CHUNK, to = min64(p->x.dim[1], from + CHUNK);
    update_at t;
    update_part sums;
    update_cut(p, cpu_scratch_of(p->c, thread), &t);
    part_cut(p, p->part + task * p->apart, &sums);
    memset(sums.dk, 0, (size_t)p->apart * sizeof(float));
    update_load(p, &t, n);
    for (; from < to; from += TOKENS) update_step(p, &t, &sums, n, from, min64(TOKENS, to - from));
}

void cpu_image_update_bwd(dev *d, tensor dx, tensor dk, tensor dkb, tensor dv, tensor dvb, tensor dw, tensor db,
                          tensor dy, tensor x, tensor pe, tensor k, tensor kb, tensor v, tensor vb, tensor w,
                          image_update_options o)
{
    update p = { cpu_of(d), dx, dk, dkb, dv, dvb, dw, db, dy, x, pe, k, kb, v, vb, w, o, 0, 0, 0, 0, 0, NULL };
    int64_t N = dy.dim[0];
    p.J = k.dim[1];
    p.C = x.dim[2];
    p.ld = round_up(p.C, 32) + PAD;
    p.chunks = ceil_div(x.dim[1], CHUNK);
    p.apart = part_cut(&p, NULL, &(update_part){ 0 });
    int64_t floats = update_cut(&p, NULL, &(update_at){ 0 }), tasks = N * p.chunks;
    if (!cpu_scratch(d, (size_t)floats * sizeof(float), (size_t)(tasks * p.apart) * sizeof(float))) return;
    p.part = cpu_scratch_shared(p.c);
    cpu_parallel(p.c, tasks, update_task, &p);
    update_part sums;
    part_cut(&p, p.part, &sums);
    run_gather(&(gather){ p.c, dk, sums.dk, p.chunks, p.apart, p.ld });
    run_gather(&(gather){ p.c, dv, sums.dv, p.chunks, p.apart, p.ld });
    if (tensor_given(dkb)) run_gather(&(gather){ p.c, tensor_unsqueeze(dkb, 1), sums.dkb, p.chunks, p.apart, 0 });
    cpu_add_parts(dvb, sums.dvb, tasks, p.apart);
    cpu_add_parts(dw, sums.dw, tasks, p.apart);
    cpu_add_parts(db, sums.db, tasks, p.apart);
}
