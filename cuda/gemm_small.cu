/* gemm_small.cu - y (M,N) = act(alpha a (M,K) b (N,K)^T + bias) + r for at most 32 rows of a: decoding.
 *
 * The weights b are read once and nothing else matters: 2 N K bytes, 0.36 ms for all of GPT-2 large at 4.3 TB/s. A
 * block owns 16 outputs n for every row; its 8 warps take every eighth run of 32 k. Weights are the first operand of
 * mma (16 rows of b), activations the second (8, 16 or 32 rows of a), both straight from global memory in registers:
 * lane (g, t) loads the 16 bytes at k = 8 t of rows g and g + 8 of its run, 64 contiguous bytes a row; a sum does not
 * care that the two mma of a run take k in the order 8t, 8t+1, 8t+2, 8t+3 | 8t+4 ... as long as both operands do. Four
 * runs are in flight per warp: 4 KB, 32 KB a block, which covers 800 ns at 4.3 TB/s over 132 multiprocessors. The
 * activations (at most 32 x K) come from the L1 and L2. The 8 partial sums are added in the order of the warps.
 */
#include "cuda/gemm.cuh"

enum { ROWS = 16, WARPS = 8, RUN = 32, FLIGHT = 4 };

template <class T> static __device__ __forceinline__ uint4 load_within(const T *row, int k, int K, bool inside)
{
    return inside && k < K ? load_16(row + k) : make_uint4(0, 0, 0, 0);
}

template <class T, int NB>
static __device__ __forceinline__ void multiply_run(float (&sum)[NB][4], const uint4 (&w)[2], const uint4 (&x)[NB])
{
    uint32_t first[4] = { w[0].x, w[1].x, w[0].y, w[1].y }, second[4] = { w[0].z, w[1].z, w[0].w, w[1].w };
#pragma unroll
    for (int i = 0; i < NB; i++) {
        uint32_t x1[2] = { x[i].x, x[i].y }, x2[2] = { x[i].z, x[i].w };
        multiply_16816<T>(sum[i], first, x1);
        multiply_16816<T>(sum[i], second, x2);
    }
}

/* NB: eights of rows of a */
template <class T, int NB> __global__ void __launch_bounds__(WARPS * 32) gemm_small(gemm_args g)
{
    SHARED(float, partial, [WARPS][8 * NB][ROWS + 1]);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, n0 = (int)blockIdx.x * ROWS;
    int row = lane / 4, part = lane % 4 * 8;
    const T *b = (const T *)g.b, *a = (const T *)g.a;
    float sum[NB][4] = {};
    for (int k0 = warp * RUN; k0 < g.K; k0 += WARPS * RUN * FLIGHT) {
        uint4 w[FLIGHT][2], x[FLIGHT][NB];
#pragma unroll
        for (int f = 0; f < FLIGHT; f++) {
            int k = k0 + f * WARPS * RUN + part;
#pragma unroll
            for (int h = 0; h < 2; h++) {
                int n = n0 + row + 8 * h;
                w[f][h] = load_within(b + n * g.ldb, k, g.K, n < g.N);
            }
#pragma unroll
            for (int i = 0; i < NB; i++) {
                int m = row + 8 * i;
                x[f][i] = load_within(a + m * g.lda, k, g.K, m < g.M);
            }
        }
#pragma unroll
        for (int f = 0; f < FLIGHT; f++) multiply_run<T, NB>(sum, w[f], x[f]);
    }
#pragma unroll
    for (int i = 0; i < NB; i++)
#pragma unroll
        for (int e = 0; e < 4; e++) partial[warp][8 * i + lane % 4 * 2 + (e & 1)][row + (e >> 1) * 8] = sum[i][e];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < 8 * NB * ROWS; i += WARPS * 32) {
        int m = i / ROWS, n = n0 + i % ROWS;
        if (m >= g.M || n >= g.N) continue;
        float v = 0;
#pragma unroll
        for (int w = 0; w < WARPS; w++) v += partial[w][m][i % ROWS];
        v = gemm_end(g, v, g.bias ? g.bias[n] : 0);
        if (g.r) v += to_f32(((const T *)g.r)[m * g.ldr + n]);
        ((T *)g.y)[m * g.ldy + n] = from_f32<T>(v);
    }
}

template <class T> static void start(dev *d, const gemm_args *g)
{
    dim3 grid((unsigned)((g->N + ROWS - 1) / ROWS)), block(WARPS * 32);
    if (g->M <= 8)
        LAUNCH(d, (gemm_small<T, 1>), grid, block, 0, *g);
    else if (g->M <= 16)
        LAUNCH(d, (gemm_small<T, 2>), grid, block, 0, *g);
    else
        LAUNCH(d, (gemm_small<T, 4>), grid, block, 0, *g);
}

void cuda_gemm_small_launch(dev *d, const gemm_args *g, dtype type)
{
    if (type == DT_BF16)
        start<bf16>(d, g);
    else
        start<f16>(d, g);
}
