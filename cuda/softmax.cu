/* softmax.cu - log-softmax and cross-entropy of rows of logits.  x (R,V)
 *
 * y = x - lse;  loss = -(1-e) (x[label] - lse) - e (mean x - lse), lse = log sum exp x.
 * A block of 512 threads owns a row. One pass finds maximum and sum together (a running sum is rescaled when the
 * maximum grows); log-softmax reads the row once more, from L2. 16-byte accesses where rows are aligned. Shared memory:
 * 128 bytes. Bytes: x once or twice, y once: memory bounds it. Sums in f32 of at most 1 each, 512 partial ones.
 */
#include "cuda/kernel.cuh"

#include <float.h>

enum { THREADS = 512 };

struct running { /* sum of exp(x - most) over what was seen; and of x */
    float most, sum, all;
};

static __device__ __forceinline__ void see(running &r, float x)
{
    if (x > r.most) {
        r.sum = r.sum * expf(r.most - x) + 1;
        r.most = x;
    } else {
        r.sum += expf(x - r.most);
    }
    r.all += x;
}

/* The whole row's lse and mean, to every thread. */
template <class T, int step>
static __device__ __forceinline__ float row_lse(const T *x, int64_t V, float *shared, float *mean)
{
    running r = { -FLT_MAX, 0, 0 }; /* not infinite: a logit of -infinity must add exp(-infinity) = 0, not NaN */
    for (int64_t v = (int64_t)threadIdx.x * step; v < V; v += THREADS * step) {
        if (step == 1) {
            see(r, to_f32(x[v]));
        } else {
            float piece[8];
            load_8(x + v, piece);
            float most = piece[0];
#pragma unroll
            for (int i = 1; i < 8; i++) most = fmaxf(most, piece[i]);
            if (most > r.most) {
                r.sum *= expf(r.most - most);
                r.most = most;
            }
#pragma unroll
            for (int i = 0; i < 8; i++) {
                r.sum += expf(piece[i] - r.most);
                r.all += piece[i];
            }
        }
    }
    float most = block_max(r.most, shared);
    float sum = block_sum(r.sum * expf(r.most - most), shared);
    *mean = block_sum(r.all, shared) / (float)V;
    return most + logf(sum);
}

template <class T, int step> static __global__ void __launch_bounds__(THREADS) log_softmax(tensor y, tensor x)
{
    SHARED(float, shared, [32]);
    const T *from = static_cast<const T *>(x.data) + (int64_t)blockIdx.x * x.stride[0];
    float *to = static_cast<float *>(y.data) + (int64_t)blockIdx.x * y.stride[0], unused;
    int64_t V = x.dim[1];
    float lse = row_lse<T, step>(from, V, shared, &unused);
    for (int64_t v = (int64_t)threadIdx.x * step; v < V; v += THREADS * step) {
        if (step == 1) {
            to[v] = to_f32(from[v]) - lse;
        } else {
            float piece[8];
            load_8(from + v, piece);
#pragma unroll
            for (int i = 0; i < 8; i++) piece[i] -= lse;
            store_8(to + v, piece);
        }
    }
}

template <class T> static void launch_log_softmax(dev *d, tensor y, tensor x)
{
    if (x.dim[1] % 8 == 0 && rows_aligned(&x) && rows_aligned(&y))
        LAUNCH(d, (log_softmax<T, 8>), (unsigned)x.dim[0], THREADS, 0, y, x);
    else
        LAUNCH(d, (log_softmax<T, 1>), (unsigned)x.dim[0], THREADS, 0, y, x);
}

extern "C" void CUDA_OP(log_softmax_fwd)(dev *d, tensor y, tensor x)
{
    WITH_TYPE(x.type, T, launch_log_softmax<T>(d, y, x));
}

template <class T, int step>
static __global__ void __launch_bounds__(THREADS)
    cross_entropy(float *loss, float *lse_out, tensor x, const int32_t *label, float smoothing)
{
    SHARED(float, shared, [32]);
    int64_t row = blockIdx.x;
    const T *from = static_cast<const T *>(x.data) + row * x.stride[0];
    float mean, lse = row_lse<T, step>(from, x.dim[1], shared, &mean);
    if (threadIdx.x != 0) return;
    int32_t y = label[row];
    if (lse_out) lse_out[row] = lse;
    loss[row] = y == -100 ? 0 : -((1 - smoothing) * (to_f32(from[y]) - lse) + smoothing * (mean - lse));
}

template <class T>
static void launch_cross_entropy(dev *d, float *loss, float *lse, tensor x, const int32_t *label, float smoothing)
{
    if (x.dim[1] % 8 == 0 && rows_aligned(&x))
        LAUNCH(d, (cross_entropy<T, 8>), (unsigned)x.dim[0], THREADS, 0, loss, lse, x, label, smoothing);
    else
        LAUNCH(d, (cross_entropy<T, 1>), (unsigned)x.dim[0], THREADS, 0, loss, lse, x, label, smoothing);
}

extern "C" void CUDA_OP(cross_entropy_fwd)(dev *d, tensor loss, tensor lse, tensor x, tensor label, float smoothing)
{
    float *out = static_cast<float *>(loss.data), *sums = tensor_given(lse) ? static_cast<float *>(lse.data) : NULL;
    const int32_t *labels = static_cast<const int32_t *>(label.data);
    WITH_TYPE(x.type, T, launch_cross_entropy<T>(d, out, sums, x, labels, smoothing));
}
