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

/* ---- launchers, one per kernel file ------------------------------------------------------------------------- */

/* Tiles of gemm_mma.cu, by preference; the host's choice is gemm_plan in gemm.cu. */
enum gemm_tile_id { TILE_64x64, TILE_64x128, TILE_128x128, TILE_128x256, TILE_COUNT };

#define cuda_gemm_f32_launch CUDA_NAME(gemm_f32_launch)
#define cuda_gemm_mma_launch CUDA_NAME(gemm_mma_launch)
#define cuda_gemm_small_launch CUDA_NAME(gemm_small_launch)

/* F32 products of any two element types. */
void cuda_gemm_f32_launch(dev *d, const gemm_args *g, dtype a, dtype b, bool b_cols, bool wide_a, bool wide_b,
                          int batches);
/* Tensor cores: both operands of the 16-bit type. `aligned`: rows of both to 16 bytes. splits > 1: g->partial. */
void cuda_gemm_mma_launch(dev *d, const gemm_args *g, dtype type, bool b_cols, bool aligned, int tile, int splits,
                          int batches);
/* At most 32 rows of a, aligned operands, K a multiple of 8, b as rows. */
void cuda_gemm_small_launch(dev *d, const gemm_args *g, dtype type);

#endif
