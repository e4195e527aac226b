/* gemm.cu - the ops linear, pack and matmul, and the choice of a kernel for a product.
 *
 *   operands of one 16-bit type, at most 32 rows, weights as rows     gemm_small.cu   weights stream once
 *   the same, more rows, aligned, on sm_90a                           gemm_wgmma.cu   tensor cores, by warpgroups
 *   operands of one 16-bit type                                       gemm_mma.cu     tensor cores
 *   everything else                                                   gemm_f32.cu     exact, one order for every M
 *   with gemm=cublaslt: what it takes                                 cublas.c        before all of these
 *
 * Bits: F32 results of a row do not depend on the other rows. The 16-bit paths sum in another order for at most 32
 * rows, where K is divided among blocks, and from one tensor core kernel to the other: results of a row are the same
 * within such a class of sizes.
 */
#include "cuda/gemm.cuh"

/* ---- what a tile costs --------------------------------------------------------------------------------------------- */

/* Cycles of one multiprocessor: tiles are worked off in rounds of `multiprocessors`; a tile does 1,024 multiply-adds a
 * cycle at best on sm_80, 2,048 on sm_90a, `rate` says which share of 1,024 is expected (fewer bytes per FLOP from shared
 * memory: more; mma.sync reaches some 60 % of what wgmma does). Values are estimates until measured. */
struct tile_row {
    int bm, bn;
    double rate;
    bool hidden; /* the end of a tile runs while another one is multiplied */
};
static const tile_row tile_rows[TILE_COUNT] = {
    { 64, 64, 0.55, false },  { 64, 128, 0.70, false }, { 128, 128, 0.85, false },
    { 128, 256, 1.0, false }, { 128, 128, 1.5, true },  { 128, 256, 1.6, false },
};
enum { MOST_SPLITS = 8 };

static double tile_cost(const cuda_gemm_job *j, int tile, int splits, int64_t batches, int multiprocessors)
{
    const tile_row *t = &tile_rows[tile];
    double tiles = (double)(ceil_div(j->M, t->bm) * ceil_div(j->N, t->bn) * batches * splits);
    double rounds = ceil(tiles / multiprocessors), steps = (double)ceil_div(ceil_div(j->K, splits), 32) * 32;
    bool gelu = j->act == ACT_GELU || j->act == ACT_GELU_TANH;
    double end = t->bm * t->bn * (gelu ? 0.3 : 0.06); /* some 40 or 8 instructions an element, 128 lanes a cycle */
    double cycles = rounds * t->bm * t->bn / (1024 * t->rate) * steps +
                    (t->hidden ? 1 : rounds) * (1000 + end); /* 1,000: filling the ring */
    /* partial sums are written and read through the L2 (about 2,500 bytes a cycle), and cost a second launch */
    if (splits > 1) cycles += (double)(j->M * j->N) * 8 * splits / 2500 + 4000;
    return cycles;
}

struct gemm_plan {
    int tile, splits;
};

/* The cheapest of the first `tiles` ones. */
static gemm_plan plan_of(const cuda_gemm_job *j, int tiles, int64_t batches, int multiprocessors)
{
    gemm_plan best = { 0, 1 };
    double least = 0;
    for (int tile = 0; tile < tiles; tile++)
        for (int splits = 1; splits <= (j->may_split && batches == 1 ? MOST_SPLITS : 1); splits *= 2) {
            if (splits > 1 && j->K / splits < 256) break;
            if (j->tile && tile != j->tile - 1) continue;
            double cost = tile_cost(j, tile, splits, batches, multiprocessors);
            if (least > 0 && cost >= least) continue;
            least = cost;
            best.tile = tile;
            best.splits = splits;
        }
    return best;
}

cuda_gemm_work cuda_gemm_plan(const cuda_gemm_job *j, int arch, int multiprocessors)
{
    gemm_plan plan = plan_of(j, arch == 90 ? TILE_COUNT : TILE_WGMMA, 1, multiprocessors);
    const tile_row *t = &tile_rows[plan.tile];
    double M = (double)j->M, N = (double)j->N, K = (double)j->K;
    cuda_gemm_work w;
    w.tile = plan.tile, w.splits = plan.splits;
    w.blocks = (double)(ceil_div(j->M, t->bm) * ceil_div(j->N, t->bn) * plan.splits);
    double rounds = ceil(w.blocks / multiprocessors) * multiprocessors;
    w.efficiency = M * N * plan.splits / (rounds * t->bm * t->bn);
    w.flops = 2 * M * N * K;
    w.bytes = 2 * (M * K + N * K + M * N * (j->r ? 2 : 1)) + (j->bias ? 4 * N : 0);
    return w;
}

/* ---- a job ------------------------------------------------------------------------------------------------------------ */

cuda_gemm_job cuda_gemm_job_of(int64_t M, int64_t N, int64_t K)
{
    cuda_gemm_job j;
    memset(&j, 0, sizeof j);
    j.M = M, j.N = N, j.K = K;
    j.alpha = 1;
    j.batch[0] = j.batch[1] = 1;
    return j;
}

void cuda_gemm_weight(cuda_gemm_job *j, tensor w, bool in_out)
{
    j->b = w.data;
    j->b_type = w.type;
    j->b_cols = in_out && w.layout == LAYOUT_ROWS;
    j->ldb = w.layout == LAYOUT_PANELS ? cuda_panel_pitch(w.type, j->K) : w.stride[0];
}

static bool rows_wide(const void *p, dtype type, int64_t ld, const int64_t stride[2], const int64_t batch[2])
{
    int64_t bytes = (int64_t)dtype_bytes(type);
    if ((uintptr_t)p % 16 || ld * bytes % 16) return false;
    for (int i = 0; i < 2; i++)
        if (batch[i] > 1 && stride[i] * bytes % 16) return false;
    return true;
}

static gemm_args args_of(const cuda_gemm_job *j)
{
    gemm_args g;
    memset(&g, 0, sizeof g);
    g.a = j->a, g.b = j->b, g.r = j->r, g.y = j->y, g.bias = j->bias;
    g.lda = j->lda, g.ldb = j->ldb, g.ldy = j->ldy, g.ldr = j->ldr;
    for (int i = 0; i < 2; i++) {
        g.batch_a[i] = j->batch_a[i];
        g.batch_b[i] = j->batch_b[i];
        g.batch_y[i] = j->batch_y[i];
    }
    g.M = (int)j->M, g.N = (int)j->N, g.K = (int)j->K;
    g.inner = (int)j->batch[1];
    g.alpha = j->alpha;
    g.act = j->act;
    g.wide_y = rows_wide(j->y, j->a_type, j->ldy, j->batch_y, j->batch);
    g.wide_r = j->r && rows_wide(j->r, j->a_type, j->ldr, j->batch_y, j->batch);
    return g;
}

/* True when K needs no dividing, or there is room for the parts. */
static bool divide(dev *d, const cuda_gemm_job *j, gemm_args *g, gemm_plan *plan)
{
    g->partial = NULL;
    if (plan->splits > 1) {
        g->k_split = (int)round_up(ceil_div(j->K, plan->splits), 64);
        plan->splits = (int)ceil_div(j->K, g->k_split);
    }
    if (plan->splits <= 1) return true;
    g->partial = (float *)cuda_scratch(d, (size_t)(j->M * j->N) * (size_t)plan->splits * sizeof(float),
                                       "sums of a product whose terms are divided among blocks");
    return g->partial != NULL;
}

/* wgmma is sm_90a's own: later GPUs do not have it. */
static void start_mma(dev *d, const cuda_gemm_job *j, gemm_args *g, bool aligned, int batches)
{
    const cuda *c = cuda_of(d);
    bool hopper = c->arch == 90 && aligned && batches == 1 && !j->b_cols && j->K > 0;
    gemm_plan plan = plan_of(j, hopper ? TILE_COUNT : TILE_WGMMA, batches, c->multiprocessors);
    if (!divide(d, j, g, &plan)) return;
    if (plan.tile >= TILE_WGMMA) {
        if (cuda_gemm_wgmma_launch(d, g, j->a_type, plan.tile, plan.splits)) return;
        plan = plan_of(j, TILE_WGMMA, batches, c->multiprocessors);
        if (!divide(d, j, g, &plan)) return;
    }
    cuda_gemm_mma_launch(d, g, j->a_type, j->b_cols, aligned, plan.tile, plan.splits, batches);
}

/* The row gemm=cublaslt, where it is chosen and takes the product. */
static bool start_vendor(dev *d, const cuda_gemm_job *j)
{
    float *sums = NULL;
    if (j->tile || !cuda_cublas_gemm(d, j, &sums)) return false;
    if (!sums || d->status != SCA_OK) return true;
    gemm_args g = args_of(j);
    g.partial = sums;
    cuda_gemm_join_launch(d, &g, j->a_type, 1);
    return true;
}

enum { MOST_GRID_Z = 65535 };

void cuda_gemm(dev *d, const cuda_gemm_job *j)
{
    int64_t batches = j->batch[0] * j->batch[1];
    if (!j->M || !j->N || !batches) return;
    if (j->M > INT32_MAX / 2 || j->N > INT32_MAX / 2 || j->K > INT32_MAX / 2 || j->batch[1] > MOST_GRID_Z) {
        dev_fail(d, SCA_ERR_UNSUPPORTED,
                 "a product of %lld x %lld x %lld, %lld times, is too large for this device", (long long)j->M,
                 (long long)j->N, (long long)j->K, (long long)batches);
        return;
    }
    if (batches > MOST_GRID_Z) { /* one by one along the first axis */
        cuda_gemm_job one = *j;
        one.batch[0] = 1;
        int64_t bytes = (int64_t)dtype_bytes(j->a_type);
        for (int64_t i = 0; i < j->batch[0]; i++) {
            one.a = (const char *)j->a + i * j->batch_a[0] * bytes;
            one.b = (const char *)j->b + i * j->batch_b[0] * (int64_t)dtype_bytes(j->b_type);
            one.y = (char *)j->y + i * j->batch_y[0] * bytes;
            one.r = j->r ? (const char *)j->r + i * j->batch_y[0] * bytes : NULL;
            cuda_gemm(d, &one);
        }
        return;
    }
    if (start_vendor(d, j)) return;
    gemm_args g = args_of(j);
    bool wide_a = rows_wide(j->a, j->a_type, j->lda, j->batch_a, j->batch);
    bool wide_b = rows_wide(j->b, j->b_type, j->ldb, j->batch_b, j->batch);
    if (j->a_type == DT_F32 || j->a_type != j->b_type)
        cuda_gemm_f32_launch(d, &g, j->a_type, j->b_type, j->b_cols, wide_a, wide_b, (int)batches);
    else if (j->M <= 32 && batches == 1 && wide_a && wide_b && !j->b_cols && j->K % 8 == 0 && !j->tile)
        cuda_gemm_small_launch(d, &g, j->a_type);
    else
        start_mma(d, j, &g, wide_a && wide_b, (int)batches);
}

/* ---- the ops ------------------------------------------------------------------------------------------------------------ */

extern "C" void CUDA_OP(linear_fwd)(dev *d, tensor y, tensor x, tensor w, tensor b, tensor r, linear_options o)
{
    cuda_gemm_job j = cuda_gemm_job_of(y.dim[0], y.dim[1], x.dim[1]);
    j.a = x.data, j.a_type = x.type, j.lda = x.stride[0];
    j.y = y.data, j.ldy = y.stride[0];
    if (tensor_given(b)) j.bias = (const float *)b.data;
    if (tensor_given(r)) j.r = r.data, j.ldr = r.stride[0];
    j.act = o.act;
    j.may_split = true;
    cuda_gemm_weight(&j, w, o.in_out);
    cuda_gemm(d, &j);
}

extern "C" void CUDA_OP(matmul_fwd)(dev *d, tensor y, tensor a, tensor b, matmul_options o)
{
    int n = y.ndim;
    cuda_gemm_job j = cuda_gemm_job_of(y.dim[n - 2], y.dim[n - 1], a.dim[n - 1]);
    j.a = a.data, j.a_type = a.type, j.lda = a.stride[n - 2];
    j.b = b.data, j.b_type = b.type, j.ldb = b.stride[n - 2], j.b_cols = !o.trans_b;
    j.y = y.data, j.ldy = y.stride[n - 2];
    j.alpha = o.alpha;
    for (int i = 0; i < n - 2; i++) {
        int at = 4 - n + i; /* the last leading axis is the second batch axis */
        j.batch[at] = y.dim[i];
        j.batch_a[at] = a.stride[i], j.batch_b[at] = b.stride[i], j.batch_y[at] = y.stride[i];
    }
    cuda_gemm(d, &j);
}

/* y[n][k] = w[n][k], or w[k][n] with in_out; a block turns a tile of 32 x 32 in shared memory. */
static __global__ void __launch_bounds__(256) pack(void *y, const void *w, dtype to, dtype from, int64_t N,
                                                   int64_t K, int64_t pitch, int64_t ldw, bool in_out)
{
    SHARED(float, tile, [32][33]);
    int x = (int)threadIdx.x % 32, y0 = (int)threadIdx.x / 32;
    int64_t tiles_k = (pitch + 31) / 32, n0 = blockIdx.x / tiles_k * 32, k0 = blockIdx.x % tiles_k * 32;
    for (int i = y0; i < 32; i += 8) {
        int64_t n = n0 + (in_out ? x : i), k = k0 + (in_out ? i : x);
        float v = n < N && k < K ? load_any(w, from, in_out ? k * ldw + n : n * ldw + k) : 0;
        tile[in_out ? x : i][in_out ? i : x] = v;
    }
    __syncthreads();
    for (int i = y0; i < 32; i += 8)
        if (n0 + i < N && k0 + x < pitch) store_any(y, to, (n0 + i) * pitch + k0 + x, tile[i][x]);
}

extern "C" void CUDA_OP(pack)(dev *d, tensor y, tensor w, bool in_out)
{
    int64_t first = w.dim[0], rest = tensor_count(w) / first, N = in_out ? rest : first, K = in_out ? first : rest;
    int64_t pitch = cuda_panel_pitch(y.type, K);
    dim3 grid((unsigned)(ceil_div(N, 32) * ceil_div(pitch, 32)));
    LAUNCH(d, pack, grid, dim3(256), 0, y.data, w.data, y.type, w.type, N, K, pitch, w.stride[0], in_out);
}
