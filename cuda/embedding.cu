/* embedding.cu - rows looked up by ids, and rows put in their place.
 *
 * embedding: y[r,:] = table[ids[r],:].  y (R,C)  table (V,C) of any stored type  ids (R)
 *
 * A block owns a row; a thread moves 8 elements when both rows are 16-byte aligned, else one. No shared memory.
 * place: y[b,at[b],:] = x[b,:].  y (B,T,C)  x (B,C)  at (B)   the same
 * Bytes: the rows looked up, once read and once written; nothing is computed.
 */
#include "cuda/kernel.cuh"

#include "cuda/gemm.h"

enum { THREADS = 128 };

template <class T, int step>
static __global__ void __launch_bounds__(THREADS) look_up(tensor y, tensor table, const int32_t *ids)
{
    int64_t from = (int64_t)ids[blockIdx.x] * table.stride[0], C = y.dim[1];
    T *to = static_cast<T *>(y.data) + (int64_t)blockIdx.x * y.stride[0];
    for (int64_t c = (int64_t)threadIdx.x * step; c < C; c += THREADS * step) {
        if (step == 1) {
            to[c] = from_f32<T>(load_any(table.data, table.type, from + c));
        } else {
            float x[8];
            load_any_8(table.data, table.type, from + c, x);
            store_8(to + c, x);
        }
    }
}

template <class T> static void launch_look_up(dev *d, tensor y, tensor table, const int32_t *ids)
{
    if (y.dim[1] % 8 == 0 && rows_aligned(&y) && rows_aligned(&table))
        LAUNCH(d, (look_up<T, 8>), (unsigned)y.dim[0], THREADS, 0, y, table, ids);
    else
        LAUNCH(d, (look_up<T, 1>), (unsigned)y.dim[0], THREADS, 0, y, table, ids);
}

extern "C" void CUDA_OP(embedding_fwd)(dev *d, tensor y, tensor table, tensor ids)
{
    const int32_t *rows = static_cast<const int32_t *>(ids.data);
    if (table.layout == LAYOUT_PANELS)
        table.stride[0] = cuda_panel_pitch(table.type, table.dim[1]); /* rows, padded */
    WITH_TYPE(y.type, T, launch_look_up<T>(d, y, table, rows));
}

template <class T, int step>
static __global__ void __launch_bounds__(THREADS) put_row(tensor y, tensor x, const int32_t *at, int64_t at_step)
{
    int64_t b = blockIdx.x, C = x.dim[1];
    const T *from = static_cast<const T *>(x.data) + b * x.stride[0];
    T *to = static_cast<T *>(y.data) + b * y.stride[0] + at[b * at_step] * y.stride[1];
    for (int64_t c = (int64_t)threadIdx.x * step; c < C; c += THREADS * step) {
        if (step == 1)
            to[c] = from[c];
        else
            store_16(to + c, load_16(from + c));
    }
}

template <class T> static void launch_put_row(dev *d, tensor y, tensor x, tensor at)
{
    const int32_t *rows = static_cast<const int32_t *>(at.data);
    constexpr int wide = 16 / sizeof(T);
    if (x.dim[1] % wide == 0 && rows_aligned(&y) && rows_aligned(&x))
        LAUNCH(d, (put_row<T, wide>), (unsigned)y.dim[0], THREADS, 0, y, x, rows, at.stride[0]);
    else
        LAUNCH(d, (put_row<T, 1>), (unsigned)y.dim[0], THREADS, 0, y, x, rows, at.stride[0]);
}

extern "C" void CUDA_OP(place)(dev *d, tensor y, tensor x, tensor at)
{
    WITH_TYPE(y.type, T, launch_put_row<T>(d, y, x, at));
}
