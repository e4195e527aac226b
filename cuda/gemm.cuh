/* gemm.cuh - what the kernels of the product share: arguments, the order of tiles, the end of a sum. */
#ifndef CUDA_GEMM_CUH
#define CUDA_GEMM_CUH

#include "cuda/kernel.cuh"

extern "C" {
#include "cuda/gemm.h"
}

struct gemm_args {
    const void *a, *b, *r;
    void *y;
    const float *bias;
    float *partial; /* (splits, M, N) F32 instead of y, or NULL */
    int64_t lda, ldb, ldy, ldr;
    int64_t batch_a[2], batch_b[2], batch_y[2];
    int M, N, K;
    int inner;   /* batches of the second axis; blockIdx.z = first * inner + second */
    int k_split; /* elements of K per split (a multiple of 64): split s is blockIdx.z */
    float alpha;
    int act;
    bool wide_y, wide_r; /* rows of y, of r: aligned to 16 bytes */
};

/* Tiles in groups of 8 rows of tiles, column by column: what runs at one time shares rows of a and b in the L2. */
static __device__ __forceinline__ int2 gemm_tile(int id, int tiles_m, int tiles_n)
{
    const int group = 8;
    int first = id / (group * tiles_n) * group, within = id % (group * tiles_n);
    int rows = tiles_m - first < group ? tiles_m - first : group;
    return make_int2(first + within % rows, within / rows);
}

static __device__ __forceinline__ int64_t gemm_batch(const int64_t stride[2], int z, int inner)
{
    return z / inner * stride[0] + z % inner * stride[1];
}

static __device__ __forceinline__ float gemm_end(const gemm_args &g, float sum, float bias)
{
    return activate((activation)g.act, g.alpha * sum + bias);
}

/* Byte offset of 16-byte chunk c of row r in shared memory, such that eight rows of one chunk lie in different banks:
 * rows of 64 bytes, and rows of a multiple of 128 bytes. */
static __device__ __forceinline__ int swizzle_64(int r, int c) { return r * 64 + ((c ^ (r >> 1 & 3)) << 4); }
static __device__ __forceinline__ int swizzle_128(int r, int c, int row_bytes)
{
    return r * row_bytes + ((c ^ (r & 7)) << 4);
}

/* ---- the end of a tile: 16 rows of a warp at a time --------------------------------------------------------- */

/* The sums of 16 rows, as fragments of mma have them, go through an `area` of the warp in shared memory, so that lanes
 * get 8 columns of a row each: accesses of 16 bytes, and code that stands once for all fragments
 * (written out for each of 128 sums it would be larger than the instruction cache). A slab is 8 COLUMNS8 columns wide,
 * 4 or 8; its area has 512 COLUMNS8 bytes. */

/* Byte of the lower or upper half (0, 1) of 8 columns: no two of what a warp stores or loads at once share a bank. */
template <int COLUMNS8> static __device__ __forceinline__ int gemm_place(int row, int column8, int half)
{
    if (COLUMNS8 == 8) return row * 256 + half * 128 + ((column8 ^ ((row & 3) * 2 + half)) << 4);
    return row * 128 + (((half * 4 + column8) ^ ((row & 3) | (row & 1) << 2)) << 4);
}

/* Lane l: sum[j][0], sum[j][1] row l / 4, columns 8 j + 2 (l % 4) and the next; sum[j][2], sum[j][3] row l / 4 + 8; those
 * from `first` on. `first` must be known when compiled. */
template <int NT, int COLUMNS8>
static __device__ __forceinline__ void gemm_put_sums(const float (&sum)[NT][4], int first, char *area, int lane)
{
#pragma unroll
    for (int j = 0; j < COLUMNS8; j++)
#pragma unroll
        for (int h = 0; h < 2; h++)
            store_pair(area + gemm_place<COLUMNS8>(lane / 4 + 8 * h, j, lane % 4 / 2) + lane % 2 * 8,
                       sum[first + j][2 * h], sum[first + j][2 * h + 1]);
}

/* Up to 8 elements of a row; `wide`: it is aligned. */
template <class T> static __device__ __forceinline__ void gemm_add(float (&x)[8], const T *r, bool wide, int valid)
{
    float y[8];
    if (wide && valid >= 8)
        load_8(r, y);
    else
#pragma unroll
        for (int k = 0; k < 8; k++) y[k] = k < valid ? to_f32(r[k]) : 0;
#pragma unroll
    for (int k = 0; k < 8; k++) x[k] += y[k];
}
template <class T>
static __device__ __forceinline__ void gemm_leave(T *y, const float (&x)[8], bool wide, int valid)
{
    if (wide && valid >= 8)
        store_8(y, x);
    else
#pragma unroll
        for (int k = 0; k < 8; k++)
            if (k < valid) y[k] = from_f32<T>(x[k]);
}

/* A slab of 16 rows from `area` to y, or its sums to part `split` of g.partial. */
template <class T, int COLUMNS8>
static __device__ __forceinline__ void gemm_finish(const gemm_args &g, const char *area, int64_t batch_y, int split,
                                                   int row, int column, int lane)
{
    int n = column + lane % COLUMNS8 * 8, valid = g.N - n;
    if (valid <= 0) return;
#pragma unroll 1
    for (int i = lane / COLUMNS8; i < 16 && row + i < g.M; i += 32 / COLUMNS8) {
        float x[8];
        uint4 low = load_16(area + gemm_place<COLUMNS8>(i, lane % COLUMNS8, 0)),
              high = load_16(area + gemm_place<COLUMNS8>(i, lane % COLUMNS8, 1));
        x[0] = __uint_as_float(low.x), x[1] = __uint_as_float(low.y), x[2] = __uint_as_float(low.z),
        x[3] = __uint_as_float(low.w);
        x[4] = __uint_as_float(high.x), x[5] = __uint_as_float(high.y), x[6] = __uint_as_float(high.z),
        x[7] = __uint_as_float(high.w);
        int64_t m = row + i;
        if (g.partial) {
            gemm_leave(g.partial + ((int64_t)split * g.M + m) * g.N + n, x, g.N % 4 == 0, valid);
            continue;
        }
#pragma unroll
        for (int k = 0; k < 8; k++) x[k] = g.alpha * x[k] + (g.bias && k < valid ? g.bias[n + k] : 0);
        activate_8((activation)g.act, x);
        if (g.r) gemm_add(x, (const T *)g.r + batch_y + m * g.ldr + n, g.wide_r, valid);
        gemm_leave((T *)g.y + batch_y + m * g.ldy + n, x, g.wide_y, valid);
    }
}

/* ---- launchers, one per kernel file ------------------------------------------------------------------------- */

#define cuda_gemm_f32_launch CUDA_NAME(gemm_f32_launch)
#define cuda_gemm_mma_launch CUDA_NAME(gemm_mma_launch)
#define cuda_gemm_small_launch CUDA_NAME(gemm_small_launch)
#define cuda_gemm_join_launch CUDA_NAME(gemm_join_launch)
#define cuda_gemm_wgmma_launch CUDA_NAME(gemm_wgmma_launch)

/* F32 products of any two element types. */
void cuda_gemm_f32_launch(dev *d, const gemm_args *g, dtype a, dtype b, bool b_cols, bool wide_a, bool wide_b,
                          int batches);
/* Tensor cores: both operands of the 16-bit type. `aligned`: rows of both to 16 bytes. splits > 1: g->partial. */
void cuda_gemm_mma_launch(dev *d, const gemm_args *g, dtype type, bool b_cols, bool aligned, int tile, int splits,
                          int batches);
/* sm_90a: rows of both aligned to 16 bytes, b as rows, one batch; tile: one of TILE_WGMMA_*. False, and nothing was
 * launched, where the driver cannot describe the operands. */
bool cuda_gemm_wgmma_launch(dev *d, const gemm_args *g, dtype type, int tile, int splits);
/* y from g->partial. */
void cuda_gemm_join_launch(dev *d, const gemm_args *g, dtype type, int splits);
/* At most 32 rows of a, aligned operands, K a multiple of 8, b as rows. */
void cuda_gemm_small_launch(dev *d, const gemm_args *g, dtype type);

#endif
