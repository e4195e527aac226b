/* norm.cu - y[r,:] = (x[r,:] - mean[r]) rstd[r] w + b, and y[r,:] = x[r,:] rstd[r] w.  y,x (R,C)  w,b (C)
 *
 * A row belongs to one warp when C <= 256, else to a block of 128 threads. Its elements are read once, 16 bytes at a
 * time, and stay in registers as f32 (8 to 64 a thread) through the mean, the sum of squared distances from it, and
 * the store; rows that are not 16-byte aligned or longer than 8192 are read again from the cache instead.
 * Shared memory: 128 bytes for the sums of the warps. Bytes: x and y once, w and b from L2; about 8 FLOPs an element,
 * so memory bounds it. Sums in f32 over values of one row, two passes: no cancellation of large means.
 */
#include "cuda/kernel.cuh"

enum { ROW_THREADS = 128 };

struct norm_job {
    tensor y, x;
    const float *w, *b;
    float *mean, *rstd; /* NULL: not wanted */
    int64_t R, C;
    float eps;
};

template <bool centred>
static __device__ __forceinline__ void store_statistics(const norm_job &j, int64_t row, float mean, float rstd)
{
    if (threadIdx.x != 0) return;
    if (centred && j.mean) j.mean[row] = mean;
    if (j.rstd) j.rstd[row] = rstd;
}

/* PIECES of 8 elements a thread, `blockDim.x` threads a row. */
template <class T, int PIECES, bool centred>
static __global__ void __launch_bounds__(ROW_THREADS) norm_held(norm_job j)
{
    SHARED(float, sums, [32]);
    int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= j.R) return; /* whole warps: several rows in a block have one warp each */
    const T *x = static_cast<const T *>(j.x.data) + row * j.x.stride[0];
    T *y = static_cast<T *>(j.y.data) + row * j.y.stride[0];
    float v[PIECES][8];
    float sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        int64_t c = ((int64_t)p * blockDim.x + threadIdx.x) * 8;
        if (c < j.C) {
            load_8(x + c, v[p]);
#pragma unroll
            for (int i = 0; i < 8; i++) sum += v[p][i];
        }
    }
    float mean = centred ? block_sum(sum, sums) / (float)j.C : 0;
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        int64_t c = ((int64_t)p * blockDim.x + threadIdx.x) * 8;
        if (c < j.C) {
#pragma unroll
            for (int i = 0; i < 8; i++) squares += (v[p][i] - mean) * (v[p][i] - mean);
        }
    }
    float rstd = 1 / sqrtf(block_sum(squares, sums) / (float)j.C + j.eps);
#pragma unroll
    for (int p = 0; p < PIECES; p++) {
        int64_t c = ((int64_t)p * blockDim.x + threadIdx.x) * 8;
        if (c < j.C) {
            float w[8], b[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
            load_8(j.w + c, w);
            if (centred) load_8(j.b + c, b);
#pragma unroll
            for (int i = 0; i < 8; i++) v[p][i] = (v[p][i] - mean) * rstd * w[i] + b[i];
            store_8(y + c, v[p]);
        }
    }
    store_statistics<centred>(j, row, mean, rstd);
}

/* Any alignment, any length. */
template <class T, bool centred> static __global__ void __launch_bounds__(ROW_THREADS) norm_again(norm_job j)
{
    SHARED(float, sums, [32]);
    int64_t row = blockIdx.x;
    const T *x = static_cast<const T *>(j.x.data) + row * j.x.stride[0];
    T *y = static_cast<T *>(j.y.data) + row * j.y.stride[0];
    float sum = 0, squares = 0;
    if (centred)
        for (int64_t c = threadIdx.x; c < j.C; c += ROW_THREADS) sum += to_f32(x[c]);
    float mean = centred ? block_sum(sum, sums) / (float)j.C : 0;
    for (int64_t c = threadIdx.x; c < j.C; c += ROW_THREADS) {
        float away = to_f32(x[c]) - mean;
        squares += away * away;
    }
    float rstd = 1 / sqrtf(block_sum(squares, sums) / (float)j.C + j.eps);
    for (int64_t c = threadIdx.x; c < j.C; c += ROW_THREADS) {
        float value = (to_f32(x[c]) - mean) * rstd * j.w[c];
        y[c] = from_f32<T>(centred ? value + j.b[c] : value);
    }
    store_statistics<centred>(j, row, mean, rstd);
}

template <class T, bool centred> static void launch_norm(dev *d, const norm_job &j, bool aligned)
{
    bool warps = j.C <= 256;
    dim3 block = warps ? dim3(32, ROW_THREADS / 32) : dim3(ROW_THREADS);
    unsigned grid = (unsigned)ceil_div(j.R, block.y);
    int64_t pieces = ceil_div(j.C, 8 * (int64_t)block.x);
    if (!aligned || pieces > 8)
        LAUNCH(d, (norm_again<T, centred>), (unsigned)j.R, ROW_THREADS, 0, j);
    else if (pieces <= 1)
        LAUNCH(d, (norm_held<T, 1, centred>), grid, block, 0, j);
    else if (pieces <= 2)
        LAUNCH(d, (norm_held<T, 2, centred>), grid, block, 0, j);
    else if (pieces <= 4)
        LAUNCH(d, (norm_held<T, 4, centred>), grid, block, 0, j);
    else
        LAUNCH(d, (norm_held<T, 8, centred>), grid, block, 0, j);
}

static float *floats(tensor t) { return tensor_given(t) ? static_cast<float *>(t.data) : NULL; }

extern "C" void CUDA_OP(layernorm_fwd)(dev *d, tensor y, tensor mean, tensor rstd, tensor x, tensor w, tensor b,
                                       float eps)
{
    norm_job j = { y, x, floats(w), floats(b), floats(mean), floats(rstd), x.dim[0], x.dim[1], eps };
    bool aligned = j.C % 8 == 0 && rows_aligned(&y) && rows_aligned(&x) && rows_aligned(&w) && rows_aligned(&b);
    WITH_TYPE(x.type, T, launch_norm<T, true>(d, j, aligned));
}

extern "C" void CUDA_OP(rmsnorm_fwd)(dev *d, tensor y, tensor rstd, tensor x, tensor w, float eps)
{
    norm_job j = { y, x, floats(w), NULL, NULL, floats(rstd), x.dim[0], x.dim[1], eps };
    bool aligned = j.C % 8 == 0 && rows_aligned(&y) && rows_aligned(&x) && rows_aligned(&w);
    WITH_TYPE(x.type, T, launch_norm<T, false>(d, j, aligned));
}
