/* norm.c - LayerNorm and RMSNorm, one row after the other. */
#include "cpu/cpu.h"

#include <string.h>

typedef struct norm {
    const cpu *c;
    tensor y, mean, rstd, x, w, b;
    float eps;
    bool rms;
    int64_t grain;
} norm;

static float *stat(tensor t, int64_t r) { return tensor_given(t) ? (float *)t.data + r : NULL; }

static void norm_task(void *context, int64_t task, int thread)
{
    const norm *n = context;
    const cpu_kernels *k = n->c->kernels;
    int64_t C = n->x.dim[1], from = task * n->grain, to = min64(n->x.dim[0], from + n->grain);
    (void)thread;
    for (int64_t r = from; r < to; r++) {
        float *y = (float *)n->y.data + r * n->y.stride[0];
        const float *x = (const float *)n->x.data + r * n->x.stride[0];
        if (n->rms)
            k->rmsnorm(y, x, n->w.data, C, n->eps, stat(n->rstd, r));
        else
            k->layernorm(y, x, n->w.data, n->b.data, C, n->eps, stat(n->mean, r), stat(n->rstd, r));
    }
}

static void run(dev *d, norm n)
{
    n.c = cpu_of(d);
    n.grain = cpu_grain(n.c, n.x.dim[0], n.x.dim[1]);
    cpu_parallel(n.c, ceil_div(n.x.dim[0], n.grain), norm_task, &n);
}

void cpu_layernorm_fwd(dev *d, tensor y, tensor mean, tensor rstd, tensor x, tensor w, tensor b, float eps)
{
    run(d, (norm){ .y = y, .mean = mean, .rstd = rstd, .x = x, .w = w, .b = b, .eps = eps });
}

void cpu_rmsnorm_fwd(dev *d, tensor y, tensor rstd, tensor x, tensor w, float eps)
{
    run(d, (norm){ .y = y, .mean = tensor_none(), .rstd = rstd, .x = x, .w = w, .eps = eps, .rms = true });
}

/* ---- backward: rows are independent; the weights' gradients are summed per block of rows, then over the blocks ----- */

enum { BLOCK = 64 }; /* rows: part of the result */

typedef struct norm_back {
    const cpu *c;
    tensor dx, dw, db, dy, mean, rstd, x, w, r;
    float *part; /* [blocks][2][C], NULL when no weight is trained */
} norm_back;

static const float *row_of(tensor t, int64_t r)
{
    return tensor_given(t) ? (const float *)t.data + r * t.stride[0] : NULL;
}

static void back_task(void *context, int64_t task, int thread)
{
    const norm_back *n = context;
    const cpu_kernels *k = n->c->kernels;
    int64_t C = n->x.dim[1], to = min64(n->x.dim[0], (task + 1) * BLOCK);
    float *dw = n->part ? n->part + task * 2 * C : NULL, *db = dw ? dw + C : NULL;
    (void)thread;
    if (dw) memset(dw, 0, (size_t)(2 * C) * sizeof *dw);
    for (int64_t r = task * BLOCK; r < to; r++) {
        float mean = tensor_given(n->mean) ? *stat(n->mean, r) : 0.0f, rstd = *stat(n->rstd, r);
        if (dw) k->norm_weights(dw, db, row_of(n->dy, r), row_of(n->x, r), C, mean, rstd);
        if (tensor_given(n->dx))
            k->norm_bwd((float *)n->dx.data + r * n->dx.stride[0], row_of(n->dy, r), row_of(n->x, r), n->w.data,
                        row_of(n->r, r), C, mean, rstd, tensor_given(n->mean));
    }
}

void cpu_add_parts(tensor to, const float *part, int64_t parts, int64_t apart)
{
    float *y = to.data;
    for (int64_t i = 0; tensor_given(to) && i < to.dim[0]; i++) {
        double sum = (double)y[i];
        for (int64_t k = 0; k < parts; k++) sum += (double)part[k * apart + i];
        y[i] = (float)sum;
    }
}

static void run_back(dev *d, norm_back n)
{
    int64_t C = n.x.dim[1], blocks = ceil_div(n.x.dim[0], BLOCK);
    n.c = cpu_of(d);
    if (tensor_given(n.dw) || tensor_given(n.db)) {
        if (!cpu_scratch(d, 0, (size_t)(blocks * 2 * C) * sizeof(float))) return;
        n.part = cpu_scratch_shared(n.c);
    }
    cpu_parallel(n.c, blocks, back_task, &n);
    if (n.part) cpu_add_parts(n.dw, n.part, blocks, 2 * C);
    if (n.part) cpu_add_parts(n.db, n.part + C, blocks, 2 * C);
}

void cpu_layernorm_bwd(dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor mean, tensor rstd, tensor x,
                       tensor w, tensor r)
{
    run_back(d, (norm_back){ NULL, dx, dw, db, dy, mean, rstd, x, w, r, NULL });
}

void cpu_rmsnorm_bwd(dev *d, tensor dx, tensor dw, tensor dy, tensor rstd, tensor x, tensor w, tensor r)
{
    run_back(d, (norm_back){ NULL, dx, dw, tensor_none(), dy, tensor_none(), rstd, x, w, r, NULL });
}
