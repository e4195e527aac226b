/* image.cu - bilinear resizing, and RoIAlign.
 *
 * resize: align_corners false, no anti-aliasing.  y (N,h,w)  x (N,H,W)
 *   A thread owns one column of a band of 16 rows: its horizontal tap is found once, neighbours write neighbours.
 *   Bytes: y once; x comes from L1 and L2 (each pixel is used h/H w/W times): memory bounds it.
 *   Taps are exact: position ((2i+1) H - h) / 2h in integers, only the fraction is rounded.
 * roi_align: bilinear samples averaged per cell of a box, channels last.  y (N,h,w,C)  x (B,H,W,C)  boxes (N,4)
 *   A block owns one cell, a thread one or more channels; all threads walk the same samples, four rows of C each, so
 *   reads are contiguous. Coordinates in double, as the reference: a rounded position moves by whole pixels of far
 *   boxes. Bytes: x from L2, 4 reads for a sample; 8 FLOPs an element and sample.
 */
#include "cuda/kernel.cuh"

enum { THREADS = 128, BAND = 16 };

struct tap {
    int64_t low, high;
    float part; /* of high */
};

static __device__ __forceinline__ tap tap_of(int64_t i, int64_t to, int64_t from)
{
    int64_t place = (2 * i + 1) * from - to;
    if (place < 0) place = 0;
    int64_t low = place / (2 * to);
    float part = (float)(place - low * 2 * to) / (float)(2 * to);
    if (low > from - 1) low = from - 1;
    tap t = { low, low + 1 < from ? low + 1 : low, part };
    return t;
}

template <class T> static __global__ void __launch_bounds__(THREADS) resize(tensor y, tensor x)
{
    int64_t j = (int64_t)blockIdx.x * THREADS + threadIdx.x, n = blockIdx.z, first = (int64_t)blockIdx.y * BAND;
    if (j >= y.dim[2]) return;
    const T *map = static_cast<const T *>(x.data) + n * x.stride[0];
    T *to = static_cast<T *>(y.data) + n * y.stride[0] + j;
    tap h = tap_of(j, y.dim[2], x.dim[2]);
    for (int64_t i = first; i < first + BAND && i < y.dim[1]; i++) {
        tap v = tap_of(i, y.dim[1], x.dim[1]);
        const T *top = map + v.low * x.stride[1], *bottom = map + v.high * x.stride[1];
        float a = to_f32(top[h.low]), b = to_f32(bottom[h.low]);
        float above = a + (to_f32(top[h.high]) - a) * h.part, below = b + (to_f32(bottom[h.high]) - b) * h.part;
        to[i * y.stride[1]] = from_f32<T>(above + (below - above) * v.part);
    }
}

template <class T> static void launch_resize(dev *d, tensor y, tensor x)
{
    for (int64_t n = 0; n < y.dim[0]; n += 65535) { /* of the grid's third axis */
        int64_t count = y.dim[0] - n < 65535 ? y.dim[0] - n : 65535;
        tensor to = tensor_slice(y, 0, n, count), from = tensor_slice(x, 0, n, count);
        dim3 grid((unsigned)ceil_div(y.dim[2], THREADS), (unsigned)ceil_div(y.dim[1], BAND), (unsigned)count);
        LAUNCH(d, resize<T>, grid, THREADS, 0, to, from);
    }
}

extern "C" void CUDA_OP(resize_fwd)(dev *d, tensor y, tensor x) { WITH_TYPE(y.type, T, launch_resize<T>(d, y, x)); }

/* ---- roi_align ---------------------------------------------------------------------------------------------------- */

struct box_axis {
    double start, cell, step; /* step: between samples */
    int count;                /* samples along the axis in one cell */
};

static __device__ __forceinline__ box_axis axis_of(double from, double to, double scale, int64_t cells)
{
    box_axis a = { from * scale - 0.5, (to - from) * scale / (double)cells, 0, 0 };
    if (a.cell > 0) a.count = (int)ceil(a.cell);
    a.step = a.count ? a.cell / (double)a.count : 0;
    return a;
}

/* False where the sample lies outside of the map. */
static __device__ __forceinline__ bool sample_tap(const box_axis &a, int64_t cell, int sample, int64_t size, tap *t)
{
    double at = a.start + (double)cell * a.cell + ((double)sample + 0.5) * a.step;
    if (at < -1 || at > (double)size) return false;
    if (at < 0) at = 0;
    int64_t low = (int64_t)at;
    bool last = low >= size - 1;
    t->low = last ? size - 1 : low;
    t->high = last ? size - 1 : low + 1;
    t->part = last ? 0 : (float)(at - (double)low);
    return true;
}

template <class T>
static __device__ __forceinline__ float cell_sum(const T *map, const tensor &x, const box_axis &v,
                                                 const box_axis &h, int64_t i, int64_t j)
{
    float sum = 0;
    for (int k = 0; k < v.count; k++) {
        tap a, b;
        if (!sample_tap(v, i, k, x.dim[1], &a)) continue;
        for (int l = 0; l < h.count; l++) {
            if (!sample_tap(h, j, l, x.dim[2], &b)) continue;
            const T *top = map + a.low * x.stride[1], *bottom = map + a.high * x.stride[1];
            float above =
                to_f32(top[b.low * x.stride[2]]) * (1 - b.part) + to_f32(top[b.high * x.stride[2]]) * b.part;
            float below =
                to_f32(bottom[b.low * x.stride[2]]) * (1 - b.part) + to_f32(bottom[b.high * x.stride[2]]) * b.part;
            sum += above * (1 - a.part) + below * a.part;
        }
    }
    return sum;
}

template <class T>
static __global__ void __launch_bounds__(THREADS)
    roi_align(tensor y, tensor x, tensor boxes, const int32_t *index, float scale)
{
    SHARED(box_axis, axes, [2]); /* down, across */
    int64_t cell = blockIdx.x, j = cell % y.dim[2], i = cell / y.dim[2] % y.dim[1], n = cell / y.dim[2] / y.dim[1];
    if (threadIdx.x < 2) {
        const float *box = static_cast<const float *>(boxes.data) + n * boxes.stride[0] + (1 - threadIdx.x);
        axes[threadIdx.x] = axis_of(box[0], box[2], scale, threadIdx.x ? y.dim[2] : y.dim[1]);
    }
    __syncthreads();
    box_axis v = axes[0], h = axes[1];
    const T *map = static_cast<const T *>(x.data) + (index ? index[n] : 0) * x.stride[0];
    T *to = static_cast<T *>(y.data) + n * y.stride[0] + i * y.stride[1] + j * y.stride[2];
    float samples = (float)v.count * (float)h.count;
    for (int64_t c = threadIdx.x; c < y.dim[3]; c += THREADS) {
        float sum = cell_sum(map + c, x, v, h, i, j);
        to[c] = from_f32<T>(samples > 0 ? sum / samples : 0);
    }
}

template <class T>
static void launch_roi_align(dev *d, tensor y, tensor x, tensor boxes, const int32_t *index, float scale)
{
    LAUNCH(d, roi_align<T>, (unsigned)(y.dim[0] * y.dim[1] * y.dim[2]), THREADS, 0, y, x, boxes, index, scale);
}

extern "C" void CUDA_OP(roi_align_fwd)(dev *d, tensor y, tensor x, tensor boxes, tensor index, float scale)
{
    const int32_t *maps = tensor_given(index) ? static_cast<const int32_t *>(index.data) : NULL;
    WITH_TYPE(y.type, T, launch_roi_align<T>(d, y, x, boxes, maps, scale));
}
