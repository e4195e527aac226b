/* pointwise_bwd.c - the backward of what works element by element, dropout, look-ups, and the optimiser. */
#include "base/rng.h"
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

/* ---- rows of up to five operands ---------------------------------------------------------------------------- */

typedef struct rows rows;
typedef void row_fn(const rows *w, int64_t r, float *const *t);
struct rows {
    const cpu *c;
    tensor t[5]; /* the same leading axes; any may be absent */
    int count;
    row_fn *fn;
    int64_t n, rows, grain;
    activation act;
    dropout_options drop;
};

static void rows_task(void *context, int64_t task, int thread)
{
    const rows *w = context;
    int64_t from = task * w->grain, to = min64(w->rows, from + w->grain);
    (void)thread;
    for (int64_t r = from; r < to; r++) {
        float *t[5] = { 0 };
        for (int i = 0; i < w->count; i++)
            if (tensor_given(w->t[i])) t[i] = (float *)w->t[i].data + cpu_row_offset(&w->t[i], r);
        w->fn(w, r, t);
    }
}

/* `like`: an operand that is there */
static void run_rows(dev *d, rows w, int like, int64_t cost)
{
    w.c = cpu_of(d);
    w.n = w.t[like].dim[w.t[like].ndim - 1];
    w.rows = cpu_rows(&w.t[like]);
    w.grain = cpu_grain(w.c, w.rows, w.n * cost);
    cpu_parallel(w.c, ceil_div(w.rows, w.grain), rows_task, &w);
}

static void activation_row(const rows *w, int64_t r, float *const *t)
{
    (void)r;
    w->c->kernels->activate_bwd(t[0], t[1], t[2], w->n, w->act);
}

/* One long row is as good as many: contiguous tensors are cut evenly. */
static tensor even(tensor t, int64_t n) { return tensor_reshape2(t, tensor_count(t) / n, n); }

void cpu_activation_bwd(dev *d, tensor dx, tensor dy, tensor x, activation act)
{
    const int64_t n = 4096;
    if (tensor_contiguous(dx) && tensor_contiguous(dy) && tensor_contiguous(x) && tensor_count(x) % n == 0) {
        dx = even(dx, n);
        dy = even(dy, n);
        x = even(x, n);
    }
    run_rows(d, (rows){ .t = { dx, dy, x }, .count = 3, .fn = activation_row, .act = act }, 0, 6);
}

static void silu_mul_row(const rows *w, int64_t r, float *const *t)
{
    (void)r;
    w->c->kernels->silu_mul_bwd(t[0], t[1], t[2], t[3], t[4], w->n);
}

void cpu_silu_mul_bwd(dev *d, tensor dx, tensor du, tensor dy, tensor x, tensor u)
{
    run_rows(d, (rows){ .t = { dx, du, dy, x, u }, .count = 5, .fn = silu_mul_row }, 2, 6);
}

static void drop_row(const rows *w, int64_t r, float *const *t)
{
    const dropout_options *o = &w->drop;
    w->c->kernels->drop(t[0], t[1], t[2], w->n, o->key, (uint64_t)((o->first + r) * ceil_div(w->n, 4)),
                        rng_limit(o->rate), 1.0f / (1.0f - o->rate));
}

void cpu_dropout(dev *d, tensor y, tensor x, tensor r, dropout_options o)
{
    run_rows(d, (rows){ .t = { y, x, r }, .count = 3, .fn = drop_row, .drop = o }, 0, 8);
}

/* ---- look-ups ------------------------------------------------------------------------------------------------ */

enum { COLUMNS = 128 };

typedef struct look_up {
    const cpu *c;
    tensor dtable, dy, ids;
} look_up;

static void look_up_task(void *context, int64_t task, int thread)
{
    const look_up *p = context;
    int64_t c0 = task * COLUMNS, n = min64(COLUMNS, p->dy.dim[1] - c0);
    const int32_t *ids = p->ids.data;
    (void)thread;
    for (int64_t r = 0; r < p->dy.dim[0]; r++) {
        float *to = (float *)p->dtable.data + ids[r] * p->dtable.stride[0] + c0;
        p->c->kernels->add(to, to, (const float *)p->dy.data + r * p->dy.stride[0] + c0, n);
    }
}

void cpu_embedding_bwd(dev *d, tensor dtable, tensor dy, tensor ids)
{
    look_up p = { cpu_of(d), dtable, dy, ids };
    cpu_parallel(p.c, ceil_div(dy.dim[1], COLUMNS), look_up_task, &p);
}

/* ---- AdamW --------------------------------------------------------------------------------------------------- */

enum { NUMBERS = 16384 }; /* of a task */

typedef struct optimiser {
    const cpu *c;
    tensor p, m, v, g;
    adamw_terms step;
} optimiser;

static void adamw_task(void *context, int64_t task, int thread)
{
    const optimiser *o = context;
    int64_t from = task * NUMBERS, n = min64(NUMBERS, o->p.dim[0] - from);
    (void)thread;
    o->c->kernels->adamw((float *)o->p.data + from, (float *)o->m.data + from, (float *)o->v.data + from,
                         (const float *)o->g.data + from, n, &o->step);
}

void cpu_adamw(dev *d, tensor p, tensor m, tensor v, tensor g, adamw_options o)
{
    double c1 = 1.0 - pow(o.beta1, (double)o.step), c2 = 1.0 - pow(o.beta2, (double)o.step);
    optimiser w = { .c = cpu_of(d), .p = p, .m = m, .v = v, .g = g };
    w.step = (adamw_terms){ .scale = (float)o.scale,
                            .beta1 = (float)o.beta1,
                            .rest1 = (float)(1.0 - o.beta1),
                            .beta2 = (float)o.beta2,
                            .rest2 = (float)(1.0 - o.beta2),
                            .shrink = (float)(1.0 - o.rate * o.decay),
                            .rate = (float)(o.rate / c1),
                            .root = (float)(1.0 / sqrt(c2)),
                            .eps = (float)o.eps };
    cpu_parallel(w.c, ceil_div(p.dim[0], NUMBERS), adamw_task, &w);
}
