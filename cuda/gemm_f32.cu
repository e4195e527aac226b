/* gemm_f32.cu - y (M,N) = act(alpha a (M,K) B (K,N) + bias) + r in F32 on the ordinary cores, any element types.
 *
 * This is the exact path: golden vectors, and operands of different types (F32 activations with 16-bit weights). Every
 * output is one chain of fused multiply-adds over ascending k, whatever the tile, so a row's bits do not depend on
 * its company. Why not three TF32 products on the tensor cores: about 2.5 times the rate (165 against 67 TFLOP/s at
 * the datasheet), but sums that the hardware truncates and an order that depends on the tile; speed is the 16-bit
 * path's, bits are this one's.
 *
 * A block owns BM x BN outputs, a thread TM x TN of them; K passes in steps of 16 through two stages of shared memory,
 * transposed to [k][row] and converted to F32 on the way; the next step's numbers wait in registers meanwhile.
 * 128x128 with 8x8 per thread: 16 FMA per 4 loads of 16 bytes from shared memory, bound by FMA. 64x64 with 4x4 for
 * small or mixed products, 16x64 for a few rows, where the weights' bytes are the bound.
 */
#include "cuda/gemm.cuh"

enum { STEP = 16 };

/* ---- from global memory to registers to shared memory ----------------------------------------------------------- */

static __device__ __forceinline__ void load_4(const float *p, float (&x)[4])
{
    uint4 v = load_16(p);
    x[0] = __uint_as_float(v.x), x[1] = __uint_as_float(v.y), x[2] = __uint_as_float(v.z),
    x[3] = __uint_as_float(v.w);
}
template <class T> static __device__ __forceinline__ void load_4(const T *p, float (&x)[4])
{
    uint2 v = *(const uint2 *)p;
    x[0] = low_of<T>(v.x), x[1] = high_of<T>(v.x), x[2] = low_of<T>(v.y), x[3] = high_of<T>(v.y);
}

/* Four neighbours along the contiguous axis, zero beyond its end. */
template <class T>
static __device__ __forceinline__ void load_part(const T *p, int64_t ld, bool inside, int row, int at, int end,
                                                 bool wide, float (&x)[4])
{
    const T *from = p + row * ld + at;
    if (inside && wide && at + 4 <= end) {
        load_4(from, x);
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = inside && at + i < end ? to_f32(from[i]) : 0;
    }
}

/* The part of a STEP x SIZE stage that one thread carries: PARTS runs of four. */
template <int SIZE, int PARTS, int THREADS, class T>
static __device__ __forceinline__ void fetch(float (&part)[PARTS][4], const T *p, int64_t ld, bool columns,
                                             bool wide, int row0, int rows, int k0, int K)
{
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        int at = (int)threadIdx.x + i * THREADS;
        if (SIZE * STEP / 4 % THREADS != 0 && at >= SIZE * STEP / 4) break;
        if (columns) {
            int k = k0 + at / (SIZE / 4), n = row0 + at % (SIZE / 4) * 4;
            load_part(p, ld, k < K, k, n, rows, wide, part[i]);
        } else {
            int r = row0 + at / (STEP / 4), k = k0 + at % (STEP / 4) * 4;
            load_part(p, ld, r < rows, r, k, K, wide, part[i]);
        }
    }
}

template <int SIZE, int PARTS, int THREADS>
static __device__ __forceinline__ void place(float (*stage)[SIZE + 4], const float (&part)[PARTS][4], bool columns)
{
#pragma unroll
    for (int i = 0; i < PARTS; i++) {
        int at = (int)threadIdx.x + i * THREADS;
        if (SIZE * STEP / 4 % THREADS != 0 && at >= SIZE * STEP / 4) break;
        if (columns) {
            float *to = &stage[at / (SIZE / 4)][at % (SIZE / 4) * 4];
            store_16(to, make_uint4(__float_as_uint(part[i][0]), __float_as_uint(part[i][1]),
                                    __float_as_uint(part[i][2]), __float_as_uint(part[i][3])));
        } else {
#pragma unroll
            for (int e = 0; e < 4; e++) stage[at % (STEP / 4) * 4 + e][at / (STEP / 4)] = part[i][e];
        }
    }
}

/* ---- the product -------------------------------------------------------------------------------------------------- */

template <class TA, class TB, int BM, int BN, int TM, int TN>
__global__ void __launch_bounds__(BM / TM * (BN / TN)) gemm_f32(gemm_args g, bool columns, bool wide_a, bool wide_b)
{
    constexpr int THREADS = BM / TM * (BN / TN);
    constexpr int PARTS_A = (BM * STEP / 4 + THREADS - 1) / THREADS,
                  PARTS_B = (BN * STEP / 4 + THREADS - 1) / THREADS;
    SHARED(float, stage_a, [2][STEP][BM + 4]);
    SHARED(float, stage_b, [2][STEP][BN + 4]);
    int2 at = gemm_tile((int)blockIdx.x, (g.M + BM - 1) / BM, (g.N + BN - 1) / BN);
    int row0 = at.x * BM, column0 = at.y * BN, z = (int)blockIdx.z;
    const TA *a = (const TA *)g.a + gemm_batch(g.batch_a, z, g.inner);
    const TB *b = (const TB *)g.b + gemm_batch(g.batch_b, z, g.inner);
    int tx = (int)threadIdx.x % (BN / TN), ty = (int)threadIdx.x / (BN / TN);
    float sum[TM][TN] = {}, part_a[PARTS_A][4], part_b[PARTS_B][4];

    int steps = (g.K + STEP - 1) / STEP;
    fetch<BM, PARTS_A, THREADS>(part_a, a, g.lda, false, wide_a, row0, g.M, 0, g.K);
    fetch<BN, PARTS_B, THREADS>(part_b, b, g.ldb, columns, wide_b, column0, g.N, 0, g.K);
    for (int step = 0; step < steps; step++) {
        place<BM, PARTS_A, THREADS>(stage_a[step & 1], part_a, false);
        place<BN, PARTS_B, THREADS>(stage_b[step & 1], part_b, columns);
        __syncthreads();
        if (step + 1 < steps) {
            fetch<BM, PARTS_A, THREADS>(part_a, a, g.lda, false, wide_a, row0, g.M, (step + 1) * STEP, g.K);
            fetch<BN, PARTS_B, THREADS>(part_b, b, g.ldb, columns, wide_b, column0, g.N, (step + 1) * STEP, g.K);
        }
#pragma unroll(TM == 8 ? STEP : 4)
        for (int k = 0; k < STEP; k++) {
            float x[TM], y[TN];
#pragma unroll
            for (int i = 0; i < TM; i += 4)
                load_4(&stage_a[step & 1][k][ty * 4 + i * (BM / TM)], *(float(*)[4]) & x[i]);
#pragma unroll
            for (int j = 0; j < TN; j += 4)
                load_4(&stage_b[step & 1][k][tx * 4 + j * (BN / TN)], *(float(*)[4]) & y[j]);
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
        }
    }
    const TA *r = g.r ? (const TA *)g.r + gemm_batch(g.batch_y, z, g.inner) : NULL;
    TA *to = (TA *)g.y + gemm_batch(g.batch_y, z, g.inner);
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int m = row0 + ty * 4 + i / 4 * 4 * (BM / TM) + i % 4,
                n = column0 + tx * 4 + j / 4 * 4 * (BN / TN) + j % 4;
            if (m >= g.M || n >= g.N) continue;
            float v = gemm_end(g, sum[i][j], g.bias ? g.bias[n] : 0);
            if (r) v += to_f32(r[m * g.ldr + n]);
            to[m * g.ldy + n] = from_f32<TA>(v);
        }
}

/* ---- launching ------------------------------------------------------------------------------------------------------ */

template <class TA, class TB, int BM, int BN, int TM, int TN>
static void start(dev *d, const gemm_args *g, bool b_cols, bool wide_a, bool wide_b, int batches)
{
    dim3 grid((unsigned)((g->M + BM - 1) / BM * ((g->N + BN - 1) / BN)), 1, (unsigned)batches);
    LAUNCH(d, (gemm_f32<TA, TB, BM, BN, TM, TN>), grid, dim3(BM / TM * (BN / TN)), 0, *g, b_cols, wide_a, wide_b);
}

template <class TA, class TB>
static void start_types(dev *d, const gemm_args *g, bool b_cols, bool wide_a, bool wide_b, int batches)
{
    if (g->M <= 16)
        start<TA, TB, 16, 64, 4, 4>(d, g, b_cols, wide_a, wide_b, batches);
    else
        start<TA, TB, 64, 64, 4, 4>(d, g, b_cols, wide_a, wide_b, batches);
}

void cuda_gemm_f32_launch(dev *d, const gemm_args *g, dtype a, dtype b, bool b_cols, bool wide_a, bool wide_b,
                          int batches)
{
    int64_t large = (int64_t)((g->M + 127) / 128) * ((g->N + 127) / 128) * batches;
    if (a == DT_F32 && b == DT_F32 && large >= cuda_of(d)->multiprocessors)
        start<float, float, 128, 128, 8, 8>(d, g, b_cols, wide_a, wide_b, batches);
    else
        WITH_TYPE(a, TA, WITH_TYPE(b, TB, start_types<TA, TB>(d, g, b_cols, wide_a, wide_b, batches)));
}
