/* kernel.cuh - what every kernel file shares: element types, 16-byte accesses, reductions, launching, and PTX.
 *
 * Each wrapper of PTX has its definition for the host (SIMT) in the same function.
 */
#ifndef KERNEL_CUH
#define KERNEL_CUH

#ifdef SIMT
#include "cuda/simt/simt.h"
#else
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#endif

extern "C" {
#include "cuda/cuda.h"
}

/* ---- launching -------------------------------------------------------------------------------------------------- */

/* LAUNCH(d, kernel<T>, grid, block, dynamic_bytes, arguments...); a kernel with several template arguments goes into
 * parentheses. A failure becomes the stream's and names the kernel. */
#ifdef SIMT
#define LAUNCH(d, kernel, grid, block, bytes, ...)                                                                 \
    do {                                                                                                           \
        if (cuda_may_launch(d, NULL, #kernel, bytes)) {                                                            \
            simt_start(#kernel, grid, block, bytes, kernel, __VA_ARGS__);                                          \
            cuda_launched(d, #kernel);                                                                             \
        }                                                                                                          \
    } while (0)
#else
#define SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#define DYNAMIC_SHARED(type, name)                                                                                 \
    extern __shared__ __align__(1024) unsigned char dynamic_shared[];                                              \
    type *const name = reinterpret_cast<type *>(dynamic_shared)
#define LAUNCH(d, kernel, grid, block, bytes, ...)                                                                 \
    do {                                                                                                           \
        if (cuda_may_launch(d, reinterpret_cast<const void *>(kernel), #kernel, bytes)) {                          \
            kernel<<<grid, block, bytes, cuda_of(d)->stream>>>(__VA_ARGS__);                                       \
            cuda_launched(d, #kernel);                                                                             \
        }                                                                                                          \
    } while (0)
#endif

/* Runs the statements with T standing for the element type. */
#define WITH_TYPE(type, T, ...)                                                                                    \
    switch (type) {                                                                                                \
    case DT_F32: {                                                                                                 \
        typedef float T;                                                                                           \
        __VA_ARGS__;                                                                                               \
        break;                                                                                                     \
    }                                                                                                              \
    case DT_BF16: {                                                                                                \
        typedef bf16 T;                                                                                            \
        __VA_ARGS__;                                                                                               \
        break;                                                                                                     \
    }                                                                                                              \
    case DT_F16: {                                                                                                 \
        typedef f16 T;                                                                                             \
        __VA_ARGS__;                                                                                               \
        break;                                                                                                     \
    }                                                                                                              \
    default: break;                                                                                                \
    }

static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/* Blocks for a grid-stride loop over `items` threads: a few waves, never more than there is work. */
static inline unsigned grid_for(const dev *d, int64_t items, int threads)
{
    int64_t most = (int64_t)cuda_of(d)->multiprocessors * 16, want = ceil_div(items, threads);
    return (unsigned)(want < most ? (want > 0 ? want : 1) : most);
}

/* ---- element types ------------------------------------------------------------------------------------------------ */

struct bf16 {
    uint16_t bits;
};
struct f16 {
    uint16_t bits;
};

static __device__ __forceinline__ float to_f32(float x) { return x; }
static __device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float((unsigned)x.bits << 16); }
static __device__ __forceinline__ float to_f32(f16 x)
{
#ifdef SIMT
    return simt_from_half(x.bits);
#else
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
#endif
}

/* Rounded to nearest even; what does not fit becomes infinite. */
template <class T> static __device__ __forceinline__ T from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float x)
{
    bf16 y;
#ifdef SIMT
    y.bits = simt_to_bf16(x);
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#endif
    return y;
}
template <> __device__ __forceinline__ f16 from_f32<f16>(float x)
{
    f16 y;
#ifdef SIMT
    y.bits = simt_to_half(x);
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
#endif
    return y;
}

/* Two of them in a register, `low` in the lower half. */
template <class T> static __device__ __forceinline__ uint32_t pair_of(float low, float high)
{
    return from_f32<T>(low).bits | (uint32_t)from_f32<T>(high).bits << 16;
}
#ifndef SIMT
template <> __device__ __forceinline__ uint32_t pair_of<bf16>(float low, float high)
{
    uint32_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
template <> __device__ __forceinline__ uint32_t pair_of<f16>(float low, float high)
{
    uint32_t y;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
    return y;
}
#endif
template <class T> static __device__ __forceinline__ float low_of(uint32_t pair)
{
    T x = { (uint16_t)pair };
    return to_f32(x);
}
template <class T> static __device__ __forceinline__ float high_of(uint32_t pair)
{
    T x = { (uint16_t)(pair >> 16) };
    return to_f32(x);
}

/* ---- accesses of 16 bytes ------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint4 load_16(const void *p) /* p: 16-byte aligned */
{
#ifdef SIMT
    uint4 x;
    simt_load(&x, p, 16);
    return x;
#else
    return *static_cast<const uint4 *>(p);
#endif
}

static __device__ __forceinline__ void store_16(void *p, uint4 x)
{
#ifdef SIMT
    simt_store(p, &x, 16);
#else
    *static_cast<uint4 *>(p) = x;
#endif
}

static __device__ __forceinline__ void store_pair(void *p, float x, float y) /* p: 8-byte aligned */
{
#ifdef SIMT
    float2 pair = make_float2(x, y);
    simt_store(p, &pair, 8);
#else
    *static_cast<float2 *>(p) = make_float2(x, y);
#endif
}

/* 8 elements as floats; p 16-byte aligned (f32: two accesses). */
static __device__ __forceinline__ void load_8(const float *p, float (&x)[8])
{
    uint4 a = load_16(p), b = load_16(p + 4);
    x[0] = __uint_as_float(a.x), x[1] = __uint_as_float(a.y), x[2] = __uint_as_float(a.z),
    x[3] = __uint_as_float(a.w);
    x[4] = __uint_as_float(b.x), x[5] = __uint_as_float(b.y), x[6] = __uint_as_float(b.z),
    x[7] = __uint_as_float(b.w);
}
template <class T> static __device__ __forceinline__ void load_8(const T *p, float (&x)[8])
{
    uint4 a = load_16(p);
    x[0] = low_of<T>(a.x), x[1] = high_of<T>(a.x), x[2] = low_of<T>(a.y), x[3] = high_of<T>(a.y);
    x[4] = low_of<T>(a.z), x[5] = high_of<T>(a.z), x[6] = low_of<T>(a.w), x[7] = high_of<T>(a.w);
}
static __device__ __forceinline__ void store_8(float *p, const float (&x)[8])
{
    store_16(
        p, make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]), __float_as_uint(x[2]), __float_as_uint(x[3])));
    store_16(p + 4, make_uint4(__float_as_uint(x[4]), __float_as_uint(x[5]), __float_as_uint(x[6]),
                               __float_as_uint(x[7])));
}
template <class T> static __device__ __forceinline__ void store_8(T *p, const float (&x)[8])
{
    store_16(p, make_uint4(pair_of<T>(x[0], x[1]), pair_of<T>(x[2], x[3]), pair_of<T>(x[4], x[5]),
                           pair_of<T>(x[6], x[7])));
}

/* An element, or 8, of a type known only when it runs: a branch that all threads take alike. */
static __device__ __forceinline__ float load_any(const void *p, dtype type, int64_t i)
{
    if (type == DT_F32) return static_cast<const float *>(p)[i];
    if (type == DT_BF16) return to_f32(static_cast<const bf16 *>(p)[i]);
    return to_f32(static_cast<const f16 *>(p)[i]);
}
static __device__ __forceinline__ void store_any(void *p, dtype type, int64_t i, float x)
{
    if (type == DT_F32)
        static_cast<float *>(p)[i] = x;
    else if (type == DT_BF16)
        static_cast<bf16 *>(p)[i] = from_f32<bf16>(x);
    else
        static_cast<f16 *>(p)[i] = from_f32<f16>(x);
}
static __device__ __forceinline__ void load_any_8(const void *p, dtype type, int64_t i, float (&x)[8])
{
    if (type == DT_F32)
        load_8(static_cast<const float *>(p) + i, x);
    else if (type == DT_BF16)
        load_8(static_cast<const bf16 *>(p) + i, x);
    else
        load_8(static_cast<const f16 *>(p) + i, x);
}
static __device__ __forceinline__ void store_any_8(void *p, dtype type, int64_t i, const float (&x)[8])
{
    if (type == DT_F32)
        store_8(static_cast<float *>(p) + i, x);
    else if (type == DT_BF16)
        store_8(static_cast<bf16 *>(p) + i, x);
    else
        store_8(static_cast<f16 *>(p) + i, x);
}

/* On the host: rows of t may be read 8 elements at a time (pointer and every stride). */
static inline bool rows_aligned(const tensor *t)
{
    bool ok = (uintptr_t)t->data % 16 == 0;
    for (int i = 0; i + 1 < t->ndim; i++)
        ok = ok && (t->dim[i] == 1 || t->stride[i] * (int64_t)dtype_bytes(t->type) % 16 == 0);
    return ok;
}

/* ---- arithmetic -------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float activate(activation act, float x)
{
    switch (act) {
    case ACT_RELU: return x < 0 ? 0 : x;
    case ACT_GELU: return 0.5f * x * erfcf(-0.70710678118654752f * x); /* erfc: no cancellation for x < 0 */
    case ACT_GELU_TANH: return 0.5f * x * (1 + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    default: return x;
    }
}

/* One branch for all; the loops inside are unrolled. */
static __device__ __forceinline__ void activate_8(activation act, float (&x)[8])
{
    switch (act) {
    case ACT_RELU:
#pragma unroll
        for (int k = 0; k < 8; k++) x[k] = activate(ACT_RELU, x[k]);
        break;
    case ACT_GELU:
#pragma unroll
        for (int k = 0; k < 8; k++) x[k] = activate(ACT_GELU, x[k]);
        break;
    case ACT_GELU_TANH:
#pragma unroll
        for (int k = 0; k < 8; k++) x[k] = activate(ACT_GELU_TANH, x[k]);
        break;
    default: break;
    }
}

/* ---- reductions: in a fixed order, the same for every thread that asks ---------------------------------------------------- */

#define FULL_WARP 0xffffffffu

static __device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) x += __shfl_xor_sync(FULL_WARP, x, bits);
    return x;
}
static __device__ __forceinline__ float warp_max(float x)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) x = fmaxf(x, __shfl_xor_sync(FULL_WARP, x, bits));
    return x;
}

/* Of all threads of a block of whole warps; `shared` has 32 floats and is free again afterwards. Every thread comes. */
static __device__ __forceinline__ float block_sum(float x, float *shared)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    x = warp_sum(x);
    if (warps == 1) return x;
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = warp_sum(lane < warps ? shared[lane] : 0);
    __syncthreads();
    return x;
}
static __device__ __forceinline__ float block_max(float x, float *shared)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32;
    x = warp_max(x);
    if (warps == 1) return x;
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = warp_max(lane < warps ? shared[lane] : -INFINITY);
    __syncthreads();
    return x;
}

/* ---- copies that arrive later (sm_80) ----------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t shared_address(const void *p)
{
#ifdef SIMT
    return __cvta_generic_to_shared_offset(p);
#else
    return (uint32_t)__cvta_generic_to_shared(p);
#endif
}

/* 16 bytes, both addresses 16-byte aligned; `bytes` of them are read (0: none, the pointer is not followed), the rest
 * is zero. */
static __device__ __forceinline__ void copy_async_16(void *shared, const void *global, int bytes = 16)
{
#ifdef SIMT
    simt_copy_async(shared, global, 16, (unsigned)bytes);
#else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(bytes)
                 : "memory");
#endif
}
/* 4 bytes, 4-byte aligned: for rows that are not 16-byte aligned. */
static __device__ __forceinline__ void copy_async_4(void *shared, const void *global, int bytes = 4)
{
#ifdef SIMT
    simt_copy_async(shared, global, 4, (unsigned)bytes);
#else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(bytes)
                 : "memory");
#endif
}
static __device__ __forceinline__ void copy_async_commit(void)
{
#ifdef SIMT
    simt_copy_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/* Until at most the last N groups of this thread are on their way; then a barrier, for what others copied. */
template <int N> static __device__ __forceinline__ void copy_async_wait(void)
{
#ifdef SIMT
    simt_copy_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* ---- tensor cores (sm_80) ------------------------------------------------------------------------------------------------------- */

/* Four 8x8 matrices of 16-bit elements; lanes 8 i .. 8 i + 7 give the addresses of the 8 rows (16 bytes each, aligned)
 * of matrix i. Lane l gets elements 2 (l % 4), + 1 of row l / 4 of each; `transposed`: of column l / 4. */
template <bool transposed = false>
static __device__ __forceinline__ void load_matrix_4(uint32_t (&x)[4], const void *row)
{
#ifdef SIMT
    simt_note(row, 16, 16, SIMT_READ);
    simt_ldmatrix m = { row, { 0, 0, 0, 0 }, 4, transposed };
    simt_meet_warp(FULL_WARP, simt_load_matrices, &m, SIMT_PLACE);
    for (int i = 0; i < 4; i++) x[i] = m.out[i];
#else
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(shared_address(row))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                     : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                     : "r"(shared_address(row))
                     : "memory");
#endif
}
template <bool transposed = false>
static __device__ __forceinline__ void load_matrix_2(uint32_t (&x)[2], const void *row) /* lanes 0 to 15 count */
{
#ifdef SIMT
    if (simt_self()->lane < 16) simt_note(row, 16, 16, SIMT_READ);
    simt_ldmatrix m = { row, { 0, 0, 0, 0 }, 2, transposed };
    simt_meet_warp(FULL_WARP, simt_load_matrices, &m, SIMT_PLACE);
    for (int i = 0; i < 2; i++) x[i] = m.out[i];
#else
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                     : "=r"(x[0]), "=r"(x[1])
                     : "r"(shared_address(row))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                     : "=r"(x[0]), "=r"(x[1])
                     : "r"(shared_address(row))
                     : "memory");
#endif
}

/* c += a b, a (16,16) by rows, b (16,8) by columns, c (16,8) in f32; with g = lane / 4, t = lane % 4:
 * a[0] row g, columns 2t,2t+1   a[1] row g+8   a[2] row g, columns 2t+8,2t+9   a[3] row g+8, columns 2t+8,2t+9
 * b[0] rows 2t,2t+1, column g   b[1] rows 2t+8,2t+9   c[0],c[1] row g, columns 2t,2t+1   c[2],c[3] row g+8 */
template <class T>
static __device__ __forceinline__ void multiply_16816(float (&c)[4], const uint32_t (&a)[4],
                                                      const uint32_t (&b)[2]);
template <>
__device__ __forceinline__ void multiply_16816<bf16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
#ifdef SIMT
    simt_mma m = { a, b, c, true };
    simt_meet_warp(FULL_WARP, simt_mma_16816, &m, SIMT_PLACE);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
template <>
__device__ __forceinline__ void multiply_16816<f16>(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
#ifdef SIMT
    simt_mma m = { a, b, c, false };
    simt_meet_warp(FULL_WARP, simt_mma_16816, &m, SIMT_PLACE);
#else
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
/* c += a b, a (16,8), b (8,8) in tf32 (10 bits of fraction are looked at): a[0] (g,t) a[1] (g+8,t) a[2] (g,t+4)
 * a[3] (g+8,t+4)   b[0] (t,g) b[1] (t+4,g)   c as above */
static __device__ __forceinline__ void multiply_1688(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
#ifdef SIMT
    simt_mma_tf32 m = { a, b, c };
    simt_meet_warp(FULL_WARP, simt_mma_1688, &m, SIMT_PLACE);
#else
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

#endif
