/* conv.cu - convolutions, channels last, as matrix products.
 *
 * conv: y (B,OH,OW,O) = patches (B*OH*OW, C*KH*KW) x w (O, C*KH*KW)^T. A kernel gathers the patches into scratch, the
 *   product with its fused bias and activation does the rest; a 1x1 kernel over even rows needs no gathering.
 *   Gathering: a thread owns the KH*KW taps of one channel of one patch, neighbours own neighbouring channels, so reads
 *   are contiguous and each thread writes KH*KW elements in a row (three channels of an image: a thread owns one
 *   element, which makes writes contiguous). Bytes: the patches twice more than an implicit product would move: for
 *   ViT-B in bf16 6 MB at 1,024 x 1,024 pixels, 19 MB for the neck, some 10 microseconds on an H100.
 * conv_transpose (kernel = stride): x (B*H*W, C) x w (C, O*k*k) into scratch, bias fused, then a kernel moves
 *   (pixel, o, i, j) to its place: a thread reads the k*k elements of one (pixel, o) and neighbours write neighbours.
 * No shared memory; no arithmetic of its own.
 */
#include "cuda/kernel.cuh"

enum { THREADS = 256 };

struct patches {
    int64_t OH, OW, C, KH, KW;
    int stride, pad;
};

/* One thread, one element: for few channels. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    gather_elements(T *to, tensor x, patches p, int64_t first, int64_t count)
{
    int64_t K = p.C * p.KH * p.KW, jump = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count * K; i += jump) {
        int64_t k = i % K, patch = first + i / K, kw = k % p.KW, kh = k / p.KW % p.KH, c = k / p.KW / p.KH;
        int64_t ow = patch % p.OW, oh = patch / p.OW % p.OH, b = patch / p.OW / p.OH;
        int64_t h = oh * p.stride + kh - p.pad, w = ow * p.stride + kw - p.pad;
        bool inside = h >= 0 && h < x.dim[1] && w >= 0 && w < x.dim[2];
        const T *from = static_cast<const T *>(x.data);
        to[i] = inside ? from[b * x.stride[0] + h * x.stride[1] + w * x.stride[2] + c] : from_f32<T>(0);
    }
}

/* One thread, all taps of one channel. */
template <class T>
static __global__ void __launch_bounds__(THREADS)
    gather_channels(T *to, tensor x, patches p, int64_t first, int64_t count)
{
    int64_t jump = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < count * p.C; i += jump) {
        int64_t c = i % p.C, patch = first + i / p.C;
        int64_t ow = patch % p.OW, oh = patch / p.OW % p.OH, b = patch / p.OW / p.OH;
        const T *from = static_cast<const T *>(x.data) + b * x.stride[0] + c;
        T *out = to + i * p.KH * p.KW;
        for (int64_t kh = 0; kh < p.KH; kh++)
            for (int64_t kw = 0; kw < p.KW; kw++) {
                int64_t h = oh * p.stride + kh - p.pad, w = ow * p.stride + kw - p.pad;
                bool inside = h >= 0 && h < x.dim[1] && w >= 0 && w < x.dim[2];
                *out++ = inside ? from[h * x.stride[1] + w * x.stride[2]] : from_f32<T>(0);
            }
    }
}

/* (B,H,W,C) as (B*H*W, C) when its pixels lie evenly. */
static bool even_rows(const tensor *t, tensor *rows)
{
    int64_t stride = t->dim[2] > 1 ? t->stride[2] : t->dim[1] > 1 ? t->stride[1] : t->stride[0], count = 1;
    for (int i = 2; i >= 0; i--) {
        if (t->dim[i] > 1 && t->stride[i] != stride * count) return false;
        count *= t->dim[i];
    }
    *rows = *t;
    rows->ndim = 2;
    rows->dim[0] = count;
    rows->dim[1] = t->dim[3];
    rows->stride[0] = stride;
    rows->stride[1] = 1;
    return stride > 0;
}

static tensor matrix_on(void *data, dtype type, int64_t rows, int64_t columns)
{
    int64_t dim[2] = { rows, columns };
    return tensor_on(data, type, 2, dim);
}

static int64_t aligned_bytes(int64_t count, dtype type)
{
    return round_up(count * (int64_t)dtype_bytes(type), 256);
}

template <class T> static void launch_gather(dev *d, T *to, tensor x, patches p, int64_t count)
{
    int64_t items = count * p.C * (p.C < 8 ? p.KH * p.KW : 1), first = 0;
    unsigned grid = grid_for(d, items, THREADS);
    if (p.C < 8)
        LAUNCH(d, gather_elements<T>, grid, THREADS, 0, to, x, p, first, count);
    else
        LAUNCH(d, gather_channels<T>, grid, THREADS, 0, to, x, p, first, count);
}

extern "C" void CUDA_OP(conv_fwd)(dev *d, tensor y, tensor x, tensor w, tensor b, conv_options o)
{
    patches p = { y.dim[1], y.dim[2], w.dim[1], w.dim[2], w.dim[3], o.stride, o.pad };
    int64_t rows = y.dim[0] * y.dim[1] * y.dim[2], K = p.C * p.KH * p.KW;
    tensor from, to;
    bool direct = p.KH * p.KW == 1 && o.stride == 1 && o.pad == 0 && even_rows(&x, &from),
         even = even_rows(&y, &to);
    int64_t patch_bytes = direct ? 0 : aligned_bytes(rows * K, x.type);
    int64_t bytes = patch_bytes + (even ? 0 : aligned_bytes(rows * y.dim[3], y.type));
    char *scratch = bytes ? static_cast<char *>(cuda_scratch_of(d, 0, (size_t)bytes,
                                                                "the pieces of the image that a convolution sees"))
                          : NULL;
    if (bytes && !scratch) return;
    if (!direct) {
        from = matrix_on(scratch, x.type, rows, K);
        WITH_TYPE(x.type, T, launch_gather<T>(d, reinterpret_cast<T *>(scratch), x, p, rows));
    }
    if (!even) to = matrix_on(scratch + patch_bytes, y.type, rows, y.dim[3]);
    linear_options options = { o.act, false };
    CUDA_OP(linear_fwd)(d, to, from, w, b, tensor_none(), options);
    if (!even) CUDA_OP(copy)(d, y, tensor_reshape(to, 4, y.dim));
}

/* ---- transposed --------------------------------------------------------------------------------------------------------- */

/* bias (O) as the product wants it: (O*k*k) */
static __global__ void __launch_bounds__(THREADS)
    spread_bias(float *to, const float *b, int64_t count, int64_t taps)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count) to[i] = b[i / taps];
}

/* y[b, h k + i, w k + j, o] = from[(b,h,w), (o,i,j)] */
template <class T> static __global__ void __launch_bounds__(THREADS) spread(tensor y, const T *from, int64_t k)
{
    int64_t O = y.dim[3], W = y.dim[2] / k, H = y.dim[1] / k, count = y.dim[0] * H * W * O;
    int64_t jump = (int64_t)gridDim.x * THREADS;
    for (int64_t n = (int64_t)blockIdx.x * THREADS + threadIdx.x; n < count; n += jump) {
        int64_t o = n % O, pixel = n / O, w = pixel % W, h = pixel / W % H, b = pixel / W / H;
        const T *in = from + n * k * k;
        T *out = static_cast<T *>(y.data) + b * y.stride[0] + h * k * y.stride[1] + w * k * y.stride[2] + o;
        for (int64_t i = 0; i < k; i++)
            for (int64_t j = 0; j < k; j++) out[i * y.stride[1] + j * y.stride[2]] = *in++;
    }
}

template <class T> static void launch_spread(dev *d, tensor y, const T *from, int64_t k)
{
    LAUNCH(d, spread<T>, grid_for(d, tensor_count(y) / k / k, THREADS), THREADS, 0, y, from, k);
}

extern "C" void CUDA_OP(conv_transpose_fwd)(dev *d, tensor y, tensor x, tensor w, tensor b)
{
    int64_t k = w.dim[2], C = w.dim[0], wide = w.dim[1] * k * k, rows = x.dim[0] * x.dim[1] * x.dim[2];
    tensor from, bias = tensor_none();
    bool even = even_rows(&x, &from);
    int64_t out_bytes = aligned_bytes(rows * wide, y.type), in_bytes = even ? 0 : aligned_bytes(rows * C, x.type);
    int64_t bytes = out_bytes + in_bytes + aligned_bytes(wide, DT_F32);
    char *scratch =
        static_cast<char *>(cuda_scratch_of(d, 0, (size_t)bytes, "the result of a transposed convolution"));
    if (!scratch) return;
    if (!even) {
        from = matrix_on(scratch + out_bytes, x.type, rows, C);
        CUDA_OP(copy)(d, tensor_reshape(from, 4, x.dim), x);
    }
    if (tensor_given(b)) {
        float *to = reinterpret_cast<float *>(scratch + out_bytes + in_bytes);
        bias = tensor_on(to, DT_F32, 1, &wide);
        LAUNCH(d, spread_bias, (unsigned)ceil_div(wide, THREADS), THREADS, 0, to,
               static_cast<const float *>(b.data), wide, k * k);
    }
    linear_options options = { ACT_NONE, true };
    CUDA_OP(linear_fwd)(d, matrix_on(scratch, y.type, rows, wide), from, w, bias, tensor_none(), options);
    WITH_TYPE(y.type, T, launch_spread<T>(d, y, reinterpret_cast<const T *>(scratch), k));
}
