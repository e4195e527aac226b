/* position.cu - rotary positions and SAM's Fourier code.
 *
 * rope: the pair (i, i + D/2) of each head turns by a = (at[b] + first + t) theta^(-2i/D).  y,x (B,T,H,D)
 *   A block owns one token; a thread owns one i, finds sine and cosine once and turns all H heads with them, so that
 *   neighbours read neighbours. Bytes: x and y once; 6 FLOPs a pair: memory bounds it.
 * fourier: p = 2 pi (c g), y[r,:] = [sin p, cos p].  y (R,2F)  c (R,2)  g (2,F)
 *   A thread owns one (r,f). Bytes: y once.
 * Angles are made in double: in f32 an angle of 2048 turns is off by 1e-4. It is some twenty operations for each
 * token and i. No shared memory.
 */
#include "cuda/kernel.cuh"

enum { THREADS = 128 };

template <class T>
static __global__ void __launch_bounds__(THREADS) turn(tensor y, tensor x, tensor at, int64_t first, double log2_theta)
{
    int64_t t = blockIdx.x, b = blockIdx.y, H = x.dim[2], half = x.dim[3] / 2;
    if (at.data) first += static_cast<const int32_t *>(at.data)[b * at.stride[0]];
    const T *from = static_cast<const T *>(x.data) + b * x.stride[0] + t * x.stride[1];
    T *to = static_cast<T *>(y.data) + b * y.stride[0] + t * y.stride[1];
    for (int64_t i = threadIdx.x; i < half; i += THREADS) {
        double angle = (double)(first + t) * exp2(-(double)i / (double)half * log2_theta), s, c;
        sincos(angle, &s, &c);
        float sine = (float)s, cosine = (float)c;
        for (int64_t h = 0; h < H; h++) {
            const T *in = from + h * x.stride[2] + i;
            T *out = to + h * y.stride[2] + i;
            float low = to_f32(in[0]), high = to_f32(in[half]);
            out[0] = from_f32<T>(low * cosine - high * sine);
            out[half] = from_f32<T>(high * cosine + low * sine);
        }
    }
}

template <class T> static void launch_turn(dev *d, tensor y, tensor x, tensor at, rope_options o)
{
    dim3 grid((unsigned)x.dim[1], (unsigned)x.dim[0]);
    LAUNCH(d, turn<T>, grid, THREADS, 0, y, x, at, o.first, log2((double)o.theta));
}

extern "C" void CUDA_OP(rope_fwd)(dev *d, tensor y, tensor x, tensor at, rope_options o)
{
    WITH_TYPE(x.type, T, launch_turn<T>(d, y, x, at, o));
}

template <class T> static __global__ void __launch_bounds__(THREADS) code(tensor y, tensor c, tensor g)
{
    int64_t F = g.dim[1], f = (int64_t)blockIdx.y * THREADS + threadIdx.x;
    if (f >= F) return;
    const float *at = static_cast<const float *>(c.data) + (int64_t)blockIdx.x * c.stride[0];
    const float *to = static_cast<const float *>(g.data) + f;
    double turns = (double)at[0] * (double)to[0] + (double)at[1] * (double)to[g.stride[0]];
    float s, cosine;
    sincospif(2 * (float)(turns - rint(turns)), &s, &cosine);
    T *out = static_cast<T *>(y.data) + (int64_t)blockIdx.x * y.stride[0];
    out[f] = from_f32<T>(s);
    out[F + f] = from_f32<T>(cosine);
}

template <class T> static void launch_code(dev *d, tensor y, tensor c, tensor g)
{
    dim3 grid((unsigned)y.dim[0], (unsigned)ceil_div(g.dim[1], THREADS));
    LAUNCH(d, code<T>, grid, THREADS, 0, y, c, g);
}

extern "C" void CUDA_OP(fourier_fwd)(dev *d, tensor y, tensor c, tensor g)
{
    WITH_TYPE(y.type, T, launch_code<T>(d, y, c, g));
}
