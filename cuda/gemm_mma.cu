/* gemm_mma.cu - y (M,N) = act(alpha a (M,K) B (K,N) + bias) + r on the tensor cores, 16-bit operands, F32 sums.
 *
 * A block owns a tile of BM x BN outputs; its warps own WM x WN each, in registers (WM * WN / 32 sums a thread, 64 or
 * 128). K passes in steps of 32 through a ring of 4 stages in shared memory, filled by cp.async three steps ahead:
 * (BM + BN) * 64 bytes a stage, 32 to 96 KB in all. The rows of a stage are swizzled, so that ldmatrix meets no bank
 * twice. B comes as (N,K) rows or as (K,N), which ldmatrix transposes while it loads.
 *
 * The end (gemm.cuh): sums pass through shared memory to lanes that finish 8 columns in F32 registers, round once, and
 * store 16 bytes; rows that are not aligned to 16 bytes element by element. ALIGNED false: operands come that way, too.
 *
 * Bytes from L2 per tile: (BM + BN) * 2 K; FLOPs 2 BM BN K: 85 FLOP/byte for 128x256, 64 for 128x128, so that at 790
 * TFLOP/s 9.3 TB/s come from L2: why large tiles matter. Per step of 16 a warp of 64x64 needs 8 ldmatrix (4 KB of
 * shared memory) for 32 mma. Accuracy: products are exact, sums F32; the relative error grows like sqrt(K) 2^-24.
 *
 * Tiles, with reasons (threads, registers of sums, shared bytes):
 *   128x256  256 thr, 128, 96 KB  the large products: most FLOPs per byte of L2 and of shared memory
 *   128x128  256 thr,  64, 64 KB  two blocks share a multiprocessor: one's end hides behind the other's sums
 *    64x128  128 thr,  64, 48 KB  M of a few hundred (language model at one image)
 *    64x64   128 thr,  32, 32 KB  small or badly quantised shapes; every unaligned one
 */
#include "cuda/gemm.cuh"

enum { STEP = 32, STAGES = 4 };

/* ---- from global to shared memory ------------------------------------------------------------------------------ */

static __device__ __forceinline__ unsigned bytes_within(int from, int end)
{
    int n = end - from;
    return n <= 0 ? 0u : n >= 8 ? 16u : (unsigned)n * 2;
}

/* Eight elements of one row, `valid` bytes of them, the rest zero. */
template <bool ALIGNED> static __device__ __forceinline__ void bring(char *to, const uint16_t *from, unsigned valid)
{
    if (ALIGNED) {
        copy_async_16(to, from, (int)valid);
    } else {
        uint32_t word[4];
#pragma unroll
        for (unsigned i = 0; i < 4; i++) {
            uint32_t low = 4 * i < valid ? from[2 * i] : 0, high = 4 * i + 2 < valid ? from[2 * i + 1] : 0;
            word[i] = low | high << 16;
        }
        store_16(to, make_uint4(word[0], word[1], word[2], word[3]));
    }
}

/* ROWS rows of STEP elements of a matrix whose rows run along K. */
template <int ROWS, int THREADS, bool ALIGNED>
static __device__ __forceinline__ void bring_rows(char *stage, const uint16_t *p, int64_t ld, int row0, int rows,
                                                  int k0, int K)
{
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * 4; i += THREADS) {
        int r = i / 4, c = i % 4, k = k0 + 8 * c;
        unsigned valid = row0 + r < rows ? bytes_within(k, K) : 0;
        bring<ALIGNED>(stage + swizzle_64(r, c), valid ? p + (row0 + r) * ld + k : p, valid);
    }
}

/* STEP rows of COLUMNS elements of a matrix whose rows run along N. */
template <int COLUMNS, int THREADS, bool ALIGNED>
static __device__ __forceinline__ void bring_columns(char *stage, const uint16_t *p, int64_t ld, int n0, int N,
                                                     int k0, int K)
{
#pragma unroll
    for (int i = threadIdx.x; i < STEP * COLUMNS / 8; i += THREADS) {
        int r = i / (COLUMNS / 8), c = i % (COLUMNS / 8), n = n0 + 8 * c;
        unsigned valid = k0 + r < K ? bytes_within(n, N) : 0;
        bring<ALIGNED>(stage + swizzle_128(r, c, 2 * COLUMNS), valid ? p + (k0 + r) * ld + n : p, valid);
    }
}

/* ---- one step of 32 --------------------------------------------------------------------------------------------- */

template <class T, int MT, int NT, int BN, bool COLS>
static __device__ __forceinline__ void multiply(float (&sum)[MT][NT][4], const char *a, const char *b, int m0,
                                                int n0, int lane)
{
#pragma unroll
    for (int k = 0; k < STEP; k += 16) {
        uint32_t fa[MT][4], fb[NT][2], two[4];
#pragma unroll
        for (int i = 0; i < MT; i++)
            load_matrix_4(fa[i], a + swizzle_64(m0 + 16 * i + (lane & 15), k / 8 + (lane >> 4)));
#pragma unroll
        for (int j = 0; j < NT / 2; j++) {
            if (COLS)
                load_matrix_4<true>(two, b + swizzle_128(k + (lane & 15), (n0 + 16 * j) / 8 + (lane >> 4), 2 * BN));
            else
                load_matrix_4(two,
                              b + swizzle_64(n0 + 16 * j + (lane & 7) + (lane >> 4) * 8, k / 8 + (lane >> 3 & 1)));
            fb[2 * j][0] = two[0], fb[2 * j][1] = two[1];
            fb[2 * j + 1][0] = two[2], fb[2 * j + 1][1] = two[3];
        }
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < NT; j++) multiply_16816<T>(sum[i][j], fa[i], fb[j]);
    }
}

/* ---- kernels ------------------------------------------------------------------------------------------------------ */

/* Blocks that a multiprocessor should have room for: 512 threads of up to 128 registers, or one block of 128 sums. */
constexpr int blocks_of(int BM, int BN, int WM, int WN)
{
    return WM * WN / 32 > 64 ? 1 : 512 / (BM / WM * (BN / WN) * 32);
}

template <class T, int BM, int BN, int WM, int WN, bool COLS, bool ALIGNED>
__global__ void __launch_bounds__(BM / WM * (BN / WN) * 32, blocks_of(BM, BN, WM, WN)) gemm_mma(gemm_args g)
{
    constexpr int THREADS = BM / WM * (BN / WN) * 32, MT = WM / 16, NT = WN / 8;
    constexpr int A_BYTES = BM * STEP * 2, STAGE = (BM + BN) * STEP * 2;
    DYNAMIC_SHARED(char, shared);
    int2 at = gemm_tile((int)blockIdx.x, (g.M + BM - 1) / BM, (g.N + BN - 1) / BN);
    int row0 = at.x * BM, column0 = at.y * BN, z = g.partial ? 0 : (int)blockIdx.z;
    int k_begin = g.partial ? (int)blockIdx.z * g.k_split : 0;
    int K = g.partial && k_begin + g.k_split < g.K ? k_begin + g.k_split : g.K;
    const uint16_t *a = (const uint16_t *)g.a + gemm_batch(g.batch_a, z, g.inner);
    const uint16_t *b = (const uint16_t *)g.b + gemm_batch(g.batch_b, z, g.inner);
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int m0 = warp / (BN / WN) * WM, n0 = warp % (BN / WN) * WN;
    float sum[MT][NT][4] = {};

    int steps = (K - k_begin + STEP - 1) / STEP;
    auto fill = [&](int step) {
        if (step < steps) {
            char *stage = shared + step % STAGES * STAGE;
            int k = k_begin + step * STEP;
            bring_rows<BM, THREADS, ALIGNED>(stage, a, g.lda, row0, g.M, k, K);
            if (COLS)
                bring_columns<BN, THREADS, ALIGNED>(stage + A_BYTES, b, g.ldb, column0, g.N, k, K);
            else
                bring_rows<BN, THREADS, ALIGNED>(stage + A_BYTES, b, g.ldb, column0, g.N, k, K);
        }
        copy_async_commit();
    };
    for (int s = 0; s < STAGES - 1; s++) fill(s);
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        fill(step + STAGES - 1);
        const char *stage = shared + step % STAGES * STAGE;
        multiply<T, MT, NT, BN, COLS>(sum, stage, stage + A_BYTES, m0, n0, lane);
    }
    copy_async_wait<0>();
    __syncthreads(); /* the ring becomes the areas of the warps */
    constexpr int C = NT < 8 ? NT : 8;
    char *area = shared + warp * 512 * C;
    int64_t batch_y = gemm_batch(g.batch_y, z, g.inner);
#pragma unroll 1
    for (int s = 0; s < MT * NT / C; s++) {
        int block = s / (NT / C), first = s % (NT / C) * C;
#pragma unroll
        for (int i = 0; i < MT; i++)
#pragma unroll
            for (int j = 0; j < NT; j += C)
                if (i == block && j == first) gemm_put_sums<NT, C>(sum[i], j, area, lane);
        __syncwarp();
        gemm_finish<T, C>(g, area, batch_y, (int)blockIdx.z, row0 + m0 + 16 * block, column0 + n0 + 8 * first,
                          lane);
        __syncwarp();
    }
}

/* y = act(alpha sum of the splits + bias) + r; the splits are added in their order. */
template <class T> __global__ void __launch_bounds__(256) gemm_join(gemm_args g, int splits)
{
    int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x, count = (int64_t)g.M * g.N;
    if (i >= count) return;
    int64_t m = i / g.N;
    int n = (int)(i - m * g.N);
    float sum = 0;
    for (int s = 0; s < splits; s++) sum += g.partial[s * count + i];
    sum = gemm_end(g, sum, g.bias ? g.bias[n] : 0);
    if (g.r) sum += to_f32(((const T *)g.r)[m * g.ldr + n]);
    ((T *)g.y)[m * g.ldy + n] = from_f32<T>(sum);
}

void cuda_gemm_join_launch(dev *d, const gemm_args *g, dtype type, int splits)
{
    dim3 grid((unsigned)ceil_div((int64_t)g->M * g->N, 256)), block(256);
    WITH_TYPE(type, T, LAUNCH(d, (gemm_join<T>), grid, block, 0, *g, splits))
}

/* ---- launching ------------------------------------------------------------------------------------------------------ */

template <class T, int BM, int BN, int WM, int WN, bool COLS, bool ALIGNED>
static void start(dev *d, const gemm_args *g, int splits, int batches)
{
    unsigned tiles = (unsigned)((g->M + BM - 1) / BM * ((g->N + BN - 1) / BN));
    size_t ring = (size_t)STAGES * (BM + BN) * STEP * 2; /* more than the areas of the end, 4 KB a warp */
    dim3 grid(tiles, 1, (unsigned)(splits > 1 ? splits : batches)), block(BM / WM * (BN / WN) * 32);
    LAUNCH(d, (gemm_mma<T, BM, BN, WM, WN, COLS, ALIGNED>), grid, block, ring, *g);
}

/* (K,N) operands are activations of small products: weights that matter are packed to (N,K). */
template <class T, bool COLS>
static void start_tile(dev *d, const gemm_args *g, bool aligned, int tile, int splits, int batches)
{
    if (!aligned)
        start<T, 64, 64, 32, 32, COLS, false>(d, g, splits, batches);
    else if (tile == TILE_64x64 || (COLS && tile == TILE_64x128))
        start<T, 64, 64, 32, 32, COLS, true>(d, g, splits, batches);
    else if (tile == TILE_128x128 || COLS)
        start<T, 128, 128, 64, 32, COLS, true>(d, g, splits, batches);
    else if constexpr (!COLS) {
        if (tile == TILE_64x128)
            start<T, 64, 128, 32, 64, COLS, true>(d, g, splits, batches);
        else
            start<T, 128, 256, 64, 64, COLS, true>(d, g, splits, batches);
    }
}

void cuda_gemm_mma_launch(dev *d, const gemm_args *g, dtype type, bool b_cols, bool aligned, int tile, int splits,
                          int batches)
{
    if (type == DT_BF16 && b_cols)
        start_tile<bf16, true>(d, g, aligned, tile, splits, batches);
    else if (type == DT_BF16)
        start_tile<bf16, false>(d, g, aligned, tile, splits, batches);
    else if (b_cols)
        start_tile<f16, true>(d, g, aligned, tile, splits, batches);
    else
        start_tile<f16, false>(d, g, aligned, tile, splits, batches);
    if (splits > 1) cuda_gemm_join_launch(d, g, type, splits);
}
