/* gemm.h - the matrix product that other files build on: linear layers, batched products, convolutions. C and C++. */
#ifndef CUDA_GEMM_H
#define CUDA_GEMM_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Tiles of gemm_mma.cu, then those of gemm_wgmma.cu; the host's choice is plan_of in gemm.cu. */
enum gemm_tile_id {
    TILE_64x64,
    TILE_64x128,
    TILE_128x128,
    TILE_128x256,
    TILE_WGMMA_128x128,
    TILE_WGMMA_128x256,
    TILE_COUNT,
    TILE_WGMMA = TILE_WGMMA_128x128 /* the first of them */
};

/* y[m][n] = act(alpha sum_k a[m][k] B[k][n] + bias[n]) + r[m][n], for every batch. Sums are kept in F32. */
typedef struct cuda_gemm_job {
    int64_t M, N, K;
    const void *a; /* (M,K), rows lda apart; a_type is also the type of y and r */
    const void *b; /* (N,K), rows ldb apart; with b_cols (K,N) */
    void *y;
    const void *r;     /* NULL, or (M,N); may be y */
    const float *bias; /* NULL, or (N) */
    int64_t lda, ldb, ldy, ldr;
    dtype a_type, b_type;
    bool b_cols;
    float alpha;
    activation act;
    int64_t batch[2], batch_a[2], batch_b[2], batch_y[2]; /* counts, and elements from one to the next; r: as y */
    bool may_split; /* may use cuda_scratch, to divide K among blocks where M and N give too few of them */
    int tile;       /* 0: chosen by a model of the cost; 1 + one of gemm_tile_id, for tests and timing */
} cuda_gemm_job;

/* Names are made so that both devices can be in one program (cuda.h). */
#define cuda_gemm CUDA_NAME(gemm)
#define cuda_gemm_job_of CUDA_NAME(gemm_job_of)
#define cuda_gemm_weight CUDA_NAME(gemm_weight)
#define cuda_cublas_gemm CUDA_NAME(cublas_gemm)

/* A job with alpha 1, one batch and nothing optional. */
cuda_gemm_job cuda_gemm_job_of(int64_t M, int64_t N, int64_t K);
/* Describes the weight w of op_linear_fwd and its relatives, rows or panels. */
void cuda_gemm_weight(cuda_gemm_job *j, tensor w, bool in_out);
void cuda_gemm(dev *d, const cuda_gemm_job *j);
/* cublas.c: the product by cuBLASLt; false: nothing was done, it is not for it. *sums: NULL, or the sums of a b alone,
 * (M,N), whose ending is to do. */
bool cuda_cublas_gemm(dev *d, const cuda_gemm_job *j, float **sums);

/* What a 16-bit product of more than 32 rows would be on such a GPU: aligned operands, the weight as rows. */
typedef struct cuda_gemm_work {
    int tile, splits;
    double blocks; /* tiles, times the parts that K is divided into */
    double
        efficiency; /* share of the arithmetic of all rounds that is wanted: edges and the last round cost the rest */
    double flops, bytes; /* bytes: each operand once */
} cuda_gemm_work;
#define cuda_gemm_plan CUDA_NAME(gemm_plan)
cuda_gemm_work cuda_gemm_plan(const cuda_gemm_job *j, int arch, int multiprocessors);

/* Panels are rows (N,K), K contiguous, zero-filled to a multiple of 16 bytes. */
static inline int64_t cuda_panel_pitch(dtype type, int64_t K)
{
    int64_t step = type == DT_F32 ? 4 : 8;
    return (K + step - 1) / step * step;
}
static inline size_t cuda_panel_bytes(dtype type, int64_t N, int64_t K)
{
    return (size_t)(N * cuda_panel_pitch(type, K)) * (type == DT_F32 ? 4 : 2);
}

#ifdef __cplusplus
}
#endif
#endif
