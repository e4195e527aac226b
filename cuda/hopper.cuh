/* hopper.cuh - what only sm_90a has: barriers in shared memory that count bytes (mbarrier), the tensor copy engine (TMA),
 * products of a warpgroup (wgmma), registers that move between warpgroups.
 *
 * Each wrapper has its definition for the host (SIMT), in cuda/simt/hopper.cpp; compiled for another GPU they do not
 * exist, and a kernel that uses them is empty there (HAS_HOPPER).
 */
#ifndef HOPPER_CUH
#define HOPPER_CUH

#include "cuda/kernel.cuh"

#ifdef SIMT
#include "cuda/simt/hopper.h"
typedef simt_tensor_map tensor_map;
#define HAS_HOPPER 1
#else
#include <cuda.h> /* the type only: no library of the driver is linked */
typedef CUtensorMap tensor_map;
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define HAS_HOPPER 1
#endif
#endif

/* A matrix of 16-bit elements in global memory, rows `ld` elements apart, of which boxes of 64 columns and `box_rows` rows
 * (at most 256) are loaded; what lies outside of it is zero. False where the driver or the GPU cannot: p and rows must be
 * aligned to 16 bytes. The same question is answered from a table of the device. */
#define cuda_box_map CUDA_NAME(box_map)
bool cuda_box_map(dev *d, const void *p, dtype type, int64_t columns, int64_t rows, int64_t ld, int box_rows,
                  tensor_map *map);

#ifdef HAS_HOPPER

/* ---- mbarrier: a phase ends when `arrivals` came and all bytes that were announced have landed ------------------ */

typedef uint64_t barrier; /* in shared memory, 8-byte aligned */

static __device__ __forceinline__ void barrier_init(barrier *b, unsigned arrivals)
{
#ifdef SIMT
    simt_barrier_init(b, arrivals);
#else
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
#endif
}
/* After the inits, before the barrier of the block that lets others use them. */
static __device__ __forceinline__ void barrier_init_done(void)
{
#ifndef SIMT
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
#endif
}
static __device__ __forceinline__ void barrier_arrive(barrier *b)
{
#ifdef SIMT
    simt_barrier_arrive(b, 0);
#else
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
#endif
}
/* Arrives, and announces bytes that loads will bring in this phase. */
static __device__ __forceinline__ void barrier_expect(barrier *b, unsigned bytes)
{
#ifdef SIMT
    simt_barrier_arrive(b, bytes);
#else
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
                 : "memory");
#endif
}
/* Until the phase of that parity has ended: the first has 0; 1 on a new barrier does not wait. */
static __device__ __forceinline__ void barrier_wait(barrier *b, unsigned parity)
{
#ifdef SIMT
    simt_barrier_wait(b, parity);
#else
    uint32_t done;
    do {
        asm volatile("{\n\t.reg .pred p;\n\t"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n\t"
                     "selp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done)
                     : "r"(shared_address(b)), "r"(parity)
                     : "memory");
    } while (!done);
#endif
}

/* ---- the tensor copy engine ------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void box_prefetch(const tensor_map *map)
{
#ifdef SIMT
    (void)map;
#else
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
#endif
}
/* One thread brings the box at (column, row) to `shared` (1024-byte aligned), rows of 128 bytes whose eight chunks of 16
 * bytes are swizzled: chunk c of row r lies at c ^ (r % 8). Counts its bytes, all of the box, on `b`. */
static __device__ __forceinline__ void box_load(void *shared, const tensor_map *map, barrier *b, int column,
                                                int row)
{
#ifdef SIMT
    simt_box_load(shared, map, b, column, row);
#else
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
        "[%4];" ::"r"(shared_address(shared)),
        "l"(map), "r"(column), "r"(row), "r"(shared_address(b))
        : "memory");
#endif
}

/* ---- products of a warpgroup: four warps in a row, the first a multiple of 4 -------------------------------------- */

/* Names rows of 64 elements that box_load brought; + 2 k: from element 16 k of the rows on. Rows 8 apart lie 1024 bytes
 * apart; 1 << 62: swizzled in 128 bytes. */
static __device__ __forceinline__ uint64_t operand_of(const void *shared)
{
    return (shared_address(shared) & 0x3ffff) >> 4 | 1ull << 16 | (uint64_t)(1024 >> 4) << 32 | 1ull << 62;
}
/* Before the first product, and after registers of sums were written by other means. */
static __device__ __forceinline__ void product_fence(void)
{
#ifndef SIMT
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
static __device__ __forceinline__ void product_commit(void)
{
#ifdef SIMT
    simt_product_commit();
#else
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
/* Until at most N groups of this warpgroup run. */
template <int N> static __device__ __forceinline__ void product_wait(void)
{
#ifdef SIMT
    simt_product_wait(N, SIMT_PLACE);
#else
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
#endif
}
/* After the wait for all: no read of the sums may be moved before it. */
template <int NT> static __device__ __forceinline__ void product_settle(float (&c)[NT][4])
{
#ifdef SIMT
    (void)c;
#else
#pragma unroll
    for (int j = 0; j < NT; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) asm volatile("" : "+f"(c[j][e])::"memory");
#endif
}

/* c += a b, a (64,16) and b (8 NT,16) both by rows along K; runs on after the call. Warp w of the group has rows 16 w to
 * 16 w + 15; lane l has of columns 8 j .. 8 j + 7: c[j][0], c[j][1] row l / 4, columns 2 (l % 4) and the next; c[j][2],
 * c[j][3] row l / 4 + 8. */
template <class T, int NT>
static __device__ __forceinline__ void multiply_64(float (&c)[NT][4], uint64_t a, uint64_t b);

#ifdef SIMT
#define PRODUCT(T, NT, columns, word, names, operands)                                                             \
    template <> __device__ __forceinline__ void multiply_64<T, NT>(float(&c)[NT][4], uint64_t a, uint64_t b)       \
    {                                                                                                              \
        simt_product_issue(&c[0][0], NT, a, b, sizeof(#word) == sizeof "bf16");                                    \
    }
#else
#define PRODUCT(T, NT, columns, word, names, operands)                                                             \
    template <> __device__ __forceinline__ void multiply_64<T, NT>(float(&c)[NT][4], uint64_t a, uint64_t b)       \
    {                                                                                                              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32." #word "." #word " {" names            \
                     "}, " operands ", 1, 1, 1, 0, 0;"                                                             \
                     : SUMS_##NT                                                                                   \
                     : "l"(a), "l"(b));                                                                            \
    }
#define TEN(d) "%" #d "0,%" #d "1,%" #d "2,%" #d "3,%" #d "4,%" #d "5,%" #d "6,%" #d "7,%" #d "8,%" #d "9"
#define FOUR(j) "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
#define SUMS_8(j) FOUR(j), FOUR(j + 1), FOUR(j + 2), FOUR(j + 3), FOUR(j + 4), FOUR(j + 5), FOUR(j + 6), FOUR(j + 7)
#define SUMS_16 SUMS_8(0), SUMS_8(8)
#define SUMS_32 SUMS_8(0), SUMS_8(8), SUMS_8(16), SUMS_8(24)
#define NAMES_64 TEN() "," TEN(1) "," TEN(2) "," TEN(3) "," TEN(4) "," TEN(5) ",%60,%61,%62,%63"
#define NAMES_128                                                                                                  \
    TEN()                                                                                                          \
    "," TEN(1) "," TEN(2) "," TEN(3) "," TEN(4) "," TEN(5) "," TEN(6) "," TEN(7) "," TEN(8) "," TEN(9) "," TEN(    \
        10) "," TEN(11) ",%120,%121,%122,%123,%124,%125,%126,%127"
#endif
PRODUCT(bf16, 16, 128, bf16, NAMES_64, "%64, %65")
PRODUCT(f16, 16, 128, f16, NAMES_64, "%64, %65")
PRODUCT(bf16, 32, 256, bf16, NAMES_128, "%128, %129")
PRODUCT(f16, 32, 256, f16, NAMES_128, "%128, %129")

/* ---- registers: a warpgroup gives some up, others take them; N is what each thread has then ------------------------- */

template <int N> static __device__ __forceinline__ void registers_give(void)
{
#ifndef SIMT
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
#endif
}
template <int N> static __device__ __forceinline__ void registers_take(void)
{
#ifndef SIMT
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
#endif
}

#endif
#endif
