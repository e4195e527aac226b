/* product_bwd.c - the backward of products: products with a transpose. */
#include "cpu/cpu.h"

#include <string.h>

/* ---- op_linear_bwd ----------------------------------------------------------------------------------------- */

static void linear_dx(dev *d, tensor dx, tensor dy, tensor w, tensor r, bool in_out)
{
    gemm_job j = cpu_gemm_job(dx.dim[0], dx.dim[1], dy.dim[1]);
    cpu_gemm_weight_turned(&j, w, in_out);
    j.a = dy.data;
    j.lda = dy.stride[0];
    j.y = dx.data;
    j.ldy = dx.stride[0];
    if (tensor_given(r)) {
        j.r = r.data;
        j.ldr = r.stride[0];
    }
    if (!cpu_of(d)->blas || !cpu_blas_gemm(d, &j)) cpu_gemm(d, &j);
}

/* dm (I,J) += a^T b, a (R,I), b (R,J) */
static void add_product(dev *d, tensor dm, tensor a, tensor b)
{
    gemm_turned turned = { a.data, a.stride[0] };
    gemm_job j = cpu_gemm_job(a.dim[1], b.dim[1], a.dim[0]);
    j.fill = cpu_gemm_fill_turned;
    j.context = &turned;
    j.b = b.data;
    j.b_type = DT_F32;
    j.b_kind = GEMM_COLS;
    j.ldb = b.stride[0];
    j.y = dm.data;
    j.r = j.y;
    j.ldy = j.ldr = dm.stride[0];
    cpu_gemm(d, &j);
}

void cpu_linear_bwd(dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x, tensor w, tensor r, bool in_out)
{
    if (tensor_given(dx)) linear_dx(d, dx, dy, w, r, in_out);
    if (tensor_given(dw)) add_product(d, dw, in_out ? x : dy, in_out ? dy : x);
    if (tensor_given(db)) cpu_sum(d, tensor_unsqueeze(db, 0), dy, true);
}

/* ---- op_matmul_bwd ----------------------------------------------------------------------------------------- */

enum { BLOCK = 512 }; /* rows of db of a task: 32 KiB of sums */

/* db[i][n] = alpha sum_m u[m][i] v[m][n], over the whole batch where db has 1 */
typedef struct turned {
    const cpu *c;
    tensor db, u, v; /* four axes; strides of db are 0 where it sums */
    float alpha;
    bool add;
    int64_t panels, blocks;
} turned;

static tensor four_axes(tensor t)
{
    while (t.ndim < 4) t = tensor_unsqueeze(t, 0);
    return t;
}

static float *at(tensor t, int64_t i, int64_t j) { return (float *)t.data + i * t.stride[0] + j * t.stride[1]; }

static void turned_task(void *context, int64_t task, int thread)
{
    const turned *t = context;
    const cpu_kernels *k = t->c->kernels;
    int64_t nr = k->nr, M = t->u.dim[2], i0 = task % t->blocks * BLOCK, rows = min64(BLOCK, t->db.dim[2] - i0);
    task /= t->blocks;
    int64_t n0 = task % t->panels * nr, cols = min64(nr, t->db.dim[3] - n0), of = task / t->panels;
    int64_t p0 = of / t->db.dim[1], q0 = of % t->db.dim[1];
    bool all_p = t->db.dim[0] == 1, all_q = t->db.dim[1] == 1, first = true;
    float *sums = cpu_scratch_of(t->c, thread), *panel = sums + BLOCK * nr;
    if (cols < nr) memset(panel, 0, (size_t)(M * nr) * sizeof *panel);
    for (int64_t p = all_p ? 0 : p0; p < (all_p ? t->u.dim[0] : p0 + 1); p++)
        for (int64_t q = all_q ? 0 : q0; q < (all_q ? t->u.dim[1] : q0 + 1); q++) {
            const float *v = at(t->v, p, q) + n0;
            for (int64_t m = 0; m < M; m++)
                memcpy(panel + m * nr, v + m * t->v.stride[2], (size_t)cols * sizeof *v);
            cpu_tiles_cols(k, nr, rows, M, at(t->u, p, q) + i0, t->u.stride[2], panel, nr, sums, nr, !first);
            first = false;
        }
    float *y = at(t->db, p0, q0) + i0 * t->db.stride[2] + n0;
    k->finish(rows, cols, sums, y, t->db.stride[2], NULL, t->add ? y : NULL, t->db.stride[2], t->alpha, ACT_NONE);
}

void cpu_matmul_bwd(dev *d, tensor da, tensor db, tensor dy, tensor a, tensor b, matmul_options o, bool add)
{
    if (tensor_given(da)) cpu_matmul_fwd(d, da, dy, b, (matmul_options){ .alpha = o.alpha, .trans_b = !o.trans_b });
    if (!tensor_given(db)) return;
    turned t = { .c = cpu_of(d), .db = four_axes(db), .alpha = o.alpha, .add = add };
    t.u = four_axes(o.trans_b ? dy : a);
    t.v = four_axes(o.trans_b ? a : dy);
    int64_t nr = t.c->kernels->nr;
    t.panels = ceil_div(t.db.dim[3], nr);
    t.blocks = ceil_div(t.db.dim[2], BLOCK);
    if (!cpu_scratch(d, (size_t)((BLOCK + t.u.dim[2]) * nr) * sizeof(float), 0)) return;
    cpu_parallel(t.c, t.db.dim[0] * t.db.dim[1] * t.panels * t.blocks, turned_task, &t);
}
