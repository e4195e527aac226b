/* norm.c - LayerNorm and RMSNorm, one row after the other. */
#include "cpu/cpu.h"

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
