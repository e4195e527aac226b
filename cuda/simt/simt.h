/* simt.h - CUDA's language for the host's C++ compiler: the kernels of ../NAME.cu run here without a GPU.
 *
 * The threads of a block are fibers on one thread of the host; blocks run one after the other. Fibers change at
 * barriers only, and go on in an order drawn from a seed, so that a missing barrier shows. What is checked while a
 * kernel runs is in check.cpp.
 *
 * A kernel stays inside this subset: threadIdx, blockIdx, blockDim, gridDim; __syncthreads and its _or, _and, _count;
 * __syncwarp, shuffles, votes, __activemask; atomicAdd, Max, Min, CAS, Exch; SHARED and DYNAMIC_SHARED; LAUNCH; the
 * wrappers of kernel.cuh for everything written in PTX.
 */
#ifndef SIMT_H
#define SIMT_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "cuda/simt/runtime.h"

/* ---- words of the language ---------------------------------------------------------------------------------- */

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define SIMT_PLACE __FILE__, __LINE__

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct uint3 {
    unsigned x, y, z;
};
#define SIMT_VECTOR(type, name, align)                                                                             \
    struct alignas(align) name##2 { type x, y; };                                                                  \
    struct alignas(2 * align) name##4 { type x, y, z, w; };                                                        \
    inline name##2 make_##name##2(type x, type y)                                                                  \
    {                                                                                                              \
        name##2 v = { x, y };                                                                                      \
        return v;                                                                                                  \
    }                                                                                                              \
    inline name##4 make_##name##4(type x, type y, type z, type w)                                                  \
    {                                                                                                              \
        name##4 v = { x, y, z, w };                                                                                \
        return v;                                                                                                  \
    }
SIMT_VECTOR(float, float, 8)
SIMT_VECTOR(int, int, 8)
SIMT_VECTOR(unsigned, uint, 8)
SIMT_VECTOR(unsigned short, ushort, 4)

/* ---- threads ------------------------------------------------------------------------------------------------- */

enum { SIMT_WARP = 32, SIMT_NAMED_BARRIERS = 16, SIMT_BARRIERS = SIMT_NAMED_BARRIERS + 8 }; /* 8: warpgroups */

struct simt_thread { /* what a kernel may see of its own thread; lies on the fiber's stack */
    uint3 index, block;
    dim3 block_dim, grid_dim;
    unsigned rank, lane, warp; /* rank: of the thread in its block */
};
/* Constant as seen from one fiber. */
__attribute__((const)) const simt_thread *simt_self(void);
#define threadIdx (simt_self()->index)
#define blockIdx (simt_self()->block)
#define blockDim (simt_self()->block_dim)
#define gridDim (simt_self()->grid_dim)
#define warpSize 32

/* Runs body(context) on every thread of every block. The result is that of a launch: 0 or the error, whose text
 * simt_message() tells. `context` is copied bytes of the kernel's arguments. */
typedef void simt_body(const void *context);
cudaError_t simt_launch(const char *name, dim3 grid, dim3 block, size_t dynamic_bytes, simt_body *body,
                        const void *context, size_t context_bytes);

/* Runs it, or keeps it for later while launches are recorded (record.cpp). */
cudaError_t simt_submit(const char *name, dim3 grid, dim3 block, size_t dynamic_bytes, simt_body *body,
                        const void *context, size_t context_bytes);

/* The arguments are converted once, on the host, to what the kernel takes, as a launch does. */
template <class... P> struct simt_arguments;
template <> struct simt_arguments<> {
    template <class K, class... A> void call(K kernel, const A &...before) const { kernel(before...); }
};
template <class P, class... Rest> struct simt_arguments<P, Rest...> {
    P first;
    simt_arguments<Rest...> rest;
    simt_arguments(P first_, Rest... rest_) : first(first_), rest{ rest_... } {}
    template <class K, class... A> void call(K kernel, const A &...before) const
    {
        rest.call(kernel, before..., first);
    }
};
template <class... P> struct simt_call {
    void (*kernel)(P...);
    simt_arguments<P...> arguments;
    static void run(const void *context)
    {
        const simt_call *c = static_cast<const simt_call *>(context);
        c->arguments.call(c->kernel);
    }
};
template <class... P, class... A>
cudaError_t simt_start(const char *name, dim3 grid, dim3 block, size_t bytes, void (*kernel)(P...), A... arguments)
{
    simt_call<P...> call = { kernel, simt_arguments<P...>{ static_cast<P>(arguments)... } };
#if defined __has_builtin
#if __has_builtin(__builtin_clear_padding)
    __builtin_clear_padding(
        &call); /* recordings are compared by their bytes; clang 14 cannot, and has no such test */
#endif
#endif
    return simt_submit(name, grid, block, bytes, simt_call<P...>::run, &call, sizeof call);
}

/* ---- shared memory --------------------------------------------------------------------------------------------- */

/* Memory of the block: the same address for every thread that comes with the same place and function. */
void *simt_shared(const char *function, int line, size_t bytes, size_t alignment);
void *simt_dynamic_shared(void);
#define SHARED(type, name, ...)                                                                                    \
    type(&name) __VA_ARGS__ = *reinterpret_cast<type(*) __VA_ARGS__>(                                              \
        simt_shared(__PRETTY_FUNCTION__, __LINE__, sizeof(type __VA_ARGS__), 128))
#define DYNAMIC_SHARED(type, name) type *const name = reinterpret_cast<type *>(simt_dynamic_shared())
inline unsigned __cvta_generic_to_shared_offset(const void *p)
{
    return (unsigned)((const char *)p - (const char *)simt_dynamic_shared());
}

/* ---- meetings: barriers, shuffles, votes ---------------------------------------------------------------------- */

/* The last thread to come does the work of all: arguments[i] is what thread or lane i brought, NULL for who is not
 * part of it. */
typedef void simt_work(void *const *arguments, unsigned count);
void simt_meet_block(int barrier, unsigned threads, simt_work *work, void *argument, const char *file, int line);
/* The same, but nobody's memory is ordered by it: for what a group of warps does together that is no barrier. */
void simt_gather(int barrier, unsigned threads, simt_work *work, void *argument, const char *file, int line);
void simt_meet_warp(unsigned mask, simt_work *work, void *argument, const char *file, int line);
unsigned simt_active_mask(void); /* the lanes of this warp that have not returned */
/* Waits, letting others run, until ready(context); a block in which nobody can go on is stopped with a message. */
void simt_wait(bool (*ready)(void *context), void *context, const char *what);
/* Orders memory as an mbarrier does: what this warp did before `release` is seen by who acquires after. */
typedef struct simt_order {
    uint32_t clock[32];
} simt_order;
void simt_release(simt_order *o);
void simt_acquire(const simt_order *o);

#define __syncthreads() simt_meet_block(0, 0, NULL, NULL, SIMT_PLACE)
#define __syncwarp(...) simt_meet_warp(simt_mask(__VA_ARGS__), NULL, NULL, SIMT_PLACE)
inline unsigned simt_mask(unsigned mask = 0xffffffffu) { return mask; }
#define __activemask() simt_active_mask()

struct simt_vote {
    int in;
    unsigned out;
};
void simt_ballot(void *const *arguments, unsigned count);
void simt_count(void *const *arguments, unsigned count);
inline unsigned simt_vote_warp(unsigned mask, int predicate, const char *file, int line)
{
    simt_vote v = { predicate, 0 };
    simt_meet_warp(mask, simt_ballot, &v, file, line);
    return v.out;
}
inline unsigned simt_vote_block(int predicate, const char *file, int line)
{
    simt_vote v = { predicate, 0 };
    simt_meet_block(0, 0, simt_count, &v, file, line);
    return v.out;
}
#define __ballot_sync(mask, predicate) simt_vote_warp(mask, predicate, SIMT_PLACE)
#define __any_sync(mask, predicate) (simt_vote_warp(mask, predicate, SIMT_PLACE) != 0)
#define __all_sync(mask, predicate) (simt_vote_warp(mask, !(predicate), SIMT_PLACE) == 0)
#define __syncthreads_count(predicate) ((int)simt_vote_block(predicate, SIMT_PLACE))
#define __syncthreads_or(predicate) ((int)(simt_vote_block(predicate, SIMT_PLACE) != 0))
#define __syncthreads_and(predicate) ((int)(simt_vote_block(!(predicate), SIMT_PLACE) == 0))

struct simt_shuffle {
    uint64_t in, out;
    unsigned from; /* lane; one that is not part of it gives nothing defined, and stops the kernel */
};
void simt_exchange(void *const *arguments, unsigned count);
template <class T> T simt_shuffle_from(unsigned mask, T value, unsigned from, const char *file, int line)
{
    static_assert(sizeof(T) <= 8, "a shuffle moves 8 bytes at most");
    simt_shuffle s = { 0, 0, from };
    memcpy(&s.in, &value, sizeof value);
    simt_meet_warp(mask, simt_exchange, &s, file, line);
    memcpy(&value, &s.out, sizeof value);
    return value;
}
inline unsigned simt_lane_up(unsigned delta, unsigned width)
{
    unsigned lane = simt_self()->lane;
    return lane % width >= delta ? lane - delta : lane;
}
inline unsigned simt_lane_down(unsigned delta, unsigned width)
{
    unsigned lane = simt_self()->lane;
    return lane % width + delta < width ? lane + delta : lane;
}
inline unsigned simt_lane_of(unsigned from, unsigned width)
{
    return simt_self()->lane / width * width + from % width;
}
inline unsigned simt_width(unsigned width = 32) { return width; }
#define __shfl_sync(mask, value, from, ...)                                                                        \
    simt_shuffle_from(mask, value, simt_lane_of((unsigned)(from), simt_width(__VA_ARGS__)), SIMT_PLACE)
#define __shfl_xor_sync(mask, value, bits, ...)                                                                    \
    simt_shuffle_from(mask, value, simt_self()->lane ^ (unsigned)(bits), SIMT_PLACE)
#define __shfl_up_sync(mask, value, delta, ...)                                                                    \
    simt_shuffle_from(mask, value, simt_lane_up((unsigned)(delta), simt_width(__VA_ARGS__)), SIMT_PLACE)
#define __shfl_down_sync(mask, value, delta, ...)                                                                  \
    simt_shuffle_from(mask, value, simt_lane_down((unsigned)(delta), simt_width(__VA_ARGS__)), SIMT_PLACE)

/* ---- atomics: a fiber is never interrupted ---------------------------------------------------------------------- */

void simt_note_atomic(void *p, unsigned bytes);
#define SIMT_ATOMIC(name, expression)                                                                              \
    template <class T> __attribute__((no_sanitize("thread"))) T name(T *p, T value)                                \
    {                                                                                                              \
        simt_note_atomic(p, sizeof(T));                                                                            \
        T old = *p;                                                                                                \
        *p = expression;                                                                                           \
        return old;                                                                                                \
    }
SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicMax, old > value ? old : value)
SIMT_ATOMIC(atomicMin, old < value ? old : value)
SIMT_ATOMIC(atomicExch, value)
SIMT_ATOMIC(atomicOr, old | value)
template <class T> __attribute__((no_sanitize("thread"))) T atomicCAS(T *p, T compare, T value)
{
    simt_note_atomic(p, sizeof(T));
    T old = *p;
    if (old == compare) *p = value;
    return old;
}
inline void __threadfence(void) {}
inline void __threadfence_block(void) {}

/* ---- for wrappers of kernel.cuh and for host definitions -------------------------------------------------------- */

enum simt_access { SIMT_READ, SIMT_WRITE, SIMT_ATOMIC_ACCESS };
/* Checks an access of the calling thread as if it had been made by the kernel: bounds, alignment to `alignment`, races. */
void simt_note(const void *p, unsigned bytes, unsigned alignment, simt_access kind);
void simt_note_at(const void *p, unsigned bytes, unsigned alignment, simt_access kind, const void *place);
/* One access of up to 16 bytes, aligned to its size. */
void simt_load(void *to, const void *p, unsigned bytes);
void simt_store(void *p, const void *from, unsigned bytes);
/* Stops the kernel; the text is that of the launch's error. */
void simt_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* cp.async: the copy arrives when it is waited for, not before. source_bytes < bytes: the rest is zero. */
void simt_copy_async(void *shared, const void *global, unsigned bytes, unsigned source_bytes);
void simt_copy_commit(void);
void simt_copy_wait(unsigned groups); /* until at most the last `groups` groups are on their way */

float simt_from_half(uint16_t bits);
uint16_t simt_to_half(float x);
uint16_t simt_to_bf16(float x);

struct simt_ldmatrix {
    const void *row; /* 16 bytes; lanes 8 i to 8 i + 7 name the rows of matrix i */
    uint32_t out[4];
    int matrices;
    bool transposed;
};
void simt_load_matrices(void *const *arguments, unsigned count);
struct simt_mma { /* m16n8k16, row by column: d = a b + c */
    const uint32_t *a, *b;
    float *c;
    bool bf16;
};
void simt_mma_16816(void *const *arguments, unsigned count);
struct simt_mma_tf32 { /* m16n8k8 */
    const uint32_t *a, *b;
    float *c;
};
void simt_mma_1688(void *const *arguments, unsigned count);

/* ---- functions of the device ------------------------------------------------------------------------------------- */

inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline void sincospif(float x, float *s, float *c)
{
    double angle = 3.14159265358979323846 * (double)x;
    *s = (float)sin(angle);
    *c = (float)cos(angle);
}
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __int_as_float(int x)
{
    float y;
    memcpy(&y, &x, 4);
    return y;
}
inline int __float_as_int(float x)
{
    int y;
    memcpy(&y, &x, 4);
    return y;
}
inline float __uint_as_float(unsigned x) { return __int_as_float((int)x); }
inline unsigned __float_as_uint(float x) { return (unsigned)__float_as_int(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __brev(unsigned x)
{
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1) << (31 - i);
    return y;
}
template <class T> T min(T a, T b) { return b < a ? b : a; }
template <class T> T max(T a, T b) { return a < b ? b : a; }
template <class T> T __ldg(const T *p) { return *p; }

#endif
