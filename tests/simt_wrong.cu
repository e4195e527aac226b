/* simt_wrong.cu - kernels that are wrong on purpose, one for each thing the device simt finds, and their right twins. */
#include "cuda/hopper.cuh"

extern "C" {
#include "simt_wrong.h"
}

enum { THREADS = 96, BOX_BYTES = 16384 };

/* Each thread passes a number to its neighbour through shared memory. */
template <bool barrier> static __global__ void neighbour(float *y, const float *x)
{
    SHARED(float, row, [THREADS]);
    row[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncthreads();
    y[threadIdx.x] = row[(threadIdx.x + 1) % THREADS];
}

/* The same within a warp. */
template <bool barrier> static __global__ void lane_neighbour(float *y, const float *x)
{
    SHARED(float, row, [THREADS]);
    row[threadIdx.x] = x[threadIdx.x];
    if (barrier) __syncwarp();
    y[threadIdx.x] = row[threadIdx.x / 32 * 32 + (threadIdx.x + 1) % 32];
}

/* A second turn overwrites what slow threads still read. */
template <bool barrier> static __global__ void two_turns(float *y, const float *x)
{
    SHARED(float, row, [THREADS]);
    float sum = 0;
    for (int turn = 0; turn < 2; turn++) {
        row[threadIdx.x] = x[threadIdx.x] + (float)turn;
        __syncthreads();
        sum += row[(threadIdx.x + 40) % THREADS];
        if (barrier) __syncthreads();
    }
    y[threadIdx.x] = sum;
}

template <bool all> static __global__ void half_a_barrier(float *y)
{
    if (all || threadIdx.x < 50) __syncthreads();
    y[threadIdx.x] = 1;
}

template <bool all> static __global__ void half_a_warp(float *y)
{
    float sum = 1;
    if (all || threadIdx.x % 32 < 16) sum = warp_sum(1);
    y[threadIdx.x] = sum;
}

/* 16 bytes from an address that is a multiple of 4. */
template <int skip> static __global__ void crooked(float *y, const float *x)
{
    float piece[8];
    load_8(x + 8 * (threadIdx.x % 4) + skip, piece);
    y[threadIdx.x] = piece[0];
}

template <int extra> static __global__ void too_far(float *y, const float *x)
{
    y[threadIdx.x] = x[threadIdx.x + extra];
}

template <int extra> static __global__ void writes_too_far(float *y) { y[threadIdx.x + extra] = 1; }

template <bool global> static __global__ void host_pointer(float *y, const float *x, const float *host)
{
    y[threadIdx.x] = global ? x[threadIdx.x] : host[threadIdx.x];
}

/* A value of shared memory that nobody wrote. */
template <bool wrote> static __global__ void unwritten(float *y)
{
    SHARED(float, row, [THREADS]);
    if (wrote) row[threadIdx.x] = 2;
    y[threadIdx.x] = row[threadIdx.x];
}

/* cp.async without waiting for it. */
template <bool wait> static __global__ void early(float *y, const float *x)
{
    SHARED(float, row, [4 * THREADS]);
    copy_async_16(row + 4 * threadIdx.x, x + threadIdx.x % 8 * 4);
    copy_async_commit();
    if (wait) copy_async_wait<0>();
    y[threadIdx.x] = row[4 * threadIdx.x];
}

/* Rows of 32 floats: column by column they share a bank, with one float between rows they do not. */
template <int pitch> static __global__ void columns(float *y)
{
    SHARED(float, tile, [32 * 33]);
    for (int i = 0; i < 32; i++) tile[threadIdx.x * pitch + i] = (float)i;
    __syncwarp();
    y[threadIdx.x] = tile[threadIdx.x * pitch];
}

template <int apart> static __global__ void strided(float *y, const float *x)
{
    y[threadIdx.x] = x[threadIdx.x * apart];
}

/* A box comes through the copy engine, a warpgroup multiplies it by itself, and another box takes its place. */
template <simt_mistake mistake, bool right> static __global__ void boxed(float *y, tensor_map map)
{
    DYNAMIC_SHARED(char, shared);
    barrier *b = reinterpret_cast<barrier *>(shared + BOX_BYTES);
    if (threadIdx.x == 0) {
        barrier_init(b, 1);
        barrier_init_done();
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        barrier_expect(b, mistake == MISTAKE_BYTES && !right ? BOX_BYTES + 16 : BOX_BYTES);
        box_load(shared, &map, b, 0, 0);
    }
    if (mistake != MISTAKE_BOX || right) barrier_wait(b, 0);
    float sum[16][4] = {};
    product_fence();
    multiply_64<bf16, 16>(sum, operand_of(shared), operand_of(shared));
    product_commit();
    if (mistake == MISTAKE_STAGE && !right && threadIdx.x == 0) box_load(shared, &map, b, 0, 0);
    if (mistake != MISTAKE_PRODUCT || right) product_wait<0>();
    if (threadIdx.x < THREADS) y[threadIdx.x] = sum[0][0];
    product_wait<0>();
    __syncthreads();
    if (mistake == MISTAKE_STAGE && right && threadIdx.x == 0) box_load(shared, &map, b, 0, 0);
}

template <simt_mistake mistake> static void start_boxed(dev *d, bool right, float *y, const float *x)
{
    tensor_map map;
    if (!cuda_box_map(d, x, DT_BF16, 64, 8, 64, BOX_BYTES / 128, &map)) return;
    if (right)
        LAUNCH(d, (boxed<mistake, true>), 1, 128, BOX_BYTES + 8, y, map);
    else
        LAUNCH(d, (boxed<mistake, false>), 1, 128, BOX_BYTES + 8, y, map);
}

#define EITHER(right, kernel, yes, no, ...)                                                                        \
    do {                                                                                                           \
        if (right)                                                                                                 \
            LAUNCH(d, kernel<yes>, 2, THREADS, 0, __VA_ARGS__);                                                    \
        else                                                                                                       \
            LAUNCH(d, kernel<no>, 2, THREADS, 0, __VA_ARGS__);                                                     \
    } while (0)

extern "C" void simt_wrong(dev *d, simt_mistake mistake, bool right, float *y, const float *x, const float *host)
{
    switch (mistake) {
    case MISTAKE_RACE: EITHER(right, neighbour, true, false, y, x); break;
    case MISTAKE_WARP_RACE: EITHER(right, lane_neighbour, true, false, y, x); break;
    case MISTAKE_OVERWRITE: EITHER(right, two_turns, true, false, y, x); break;
    case MISTAKE_BARRIER: EITHER(right, half_a_barrier, true, false, y); break;
    case MISTAKE_WARP: EITHER(right, half_a_warp, true, false, y); break;
    case MISTAKE_ALIGNMENT: EITHER(right, crooked, 0, 1, y, x); break;
    case MISTAKE_READ: EITHER(right, too_far, 0, 1, y, x); break;
    case MISTAKE_WRITE: EITHER(right, writes_too_far, 0, 1, y); break;
    case MISTAKE_HOST: EITHER(right, host_pointer, true, false, y, x, host); break;
    case MISTAKE_UNWRITTEN: EITHER(right, unwritten, true, false, y); break;
    case MISTAKE_EARLY: EITHER(right, early, true, false, y, x); break;
    case MISTAKE_BOX: start_boxed<MISTAKE_BOX>(d, right, y, x); break;
    case MISTAKE_BYTES: start_boxed<MISTAKE_BYTES>(d, right, y, x); break;
    case MISTAKE_PRODUCT: start_boxed<MISTAKE_PRODUCT>(d, right, y, x); break;
    case MISTAKE_STAGE: start_boxed<MISTAKE_STAGE>(d, right, y, x); break;
    case MISTAKE_BANKS:
        if (right)
            LAUNCH(d, columns<33>, 1, 32, 0, y);
        else
            LAUNCH(d, columns<32>, 1, 32, 0, y);
        break;
    case MISTAKE_STRIDE:
        if (right)
            LAUNCH(d, strided<1>, 1, 32, 0, y, x);
        else
            LAUNCH(d, strided<8>, 1, 32, 0, y, x);
        break;
    }
}
