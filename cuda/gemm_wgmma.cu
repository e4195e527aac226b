/* gemm_wgmma.cu - y (M,N) = act(alpha a (M,K) b (N,K)^T + bias) + r on the tensor cores of sm_90a: 16-bit operands, F32
 * sums.
 *
 * A block stays on its multiprocessor and works off tiles (with K divided among blocks: parts of tiles). Its third
 * warpgroup is one thread that asks the tensor copy engine for boxes of 64 elements of K, swizzled in 128 bytes, round a
 * ring of 192 KB; mbarriers say when a stage is full and when it is empty. Two warpgroups multiply: wgmma reads both
 * operands from shared memory, so that no instruction moves them. 240 registers for who multiplies, 24 for who asks.
 *
 *   128x256  4 stages of 48 KB; each warpgroup has 64 of the rows. 85 FLOP per byte from the L2. For long sums.
 *   128x128  6 stages of 32 KB; the warpgroups take whole tiles in turn: while one is in the end of its tile (GELU is some
 *            40 instructions an element, at K = 1,280 about half as long as the product), the other one multiplies. 64
 *            FLOP per byte. For short sums, and for few tiles.
 *
 * 128 sums a thread in both. Shared memory: the ring, 8 areas of 4 KB, one per warp, through which results leave (gemm.cuh)
 * while the copy engine fills the ring for the next tile, and the mbarriers: 229,488 bytes. What lies outside of the
 * operands arrives as zero, so edges cost nothing in the loop.
 *
 * Per step of 64 a warpgroup of 128x256 reads 40 KB of shared memory for 512 cycles of wgmma (80 bytes a cycle; 128 would
 * be the limit), of 128x128 48 KB (96). Accuracy: products are exact, sums F32; error as in gemm_mma.cu.
 * Not done: clusters that share boxes (they would raise 85 to 131 FLOP per byte). Not timed: no GPU has run this yet.
 */
#include "cuda/gemm.cuh"
#include "cuda/hopper.cuh"

enum { STEP = 64, BM = 128, ROW = 128, THREADS = 384, RING = 192 << 10 };
enum { AREA = 4096, AREAS = 8 * AREA, MOST_STAGES = 6 };
enum { SHARED_BYTES = RING + AREAS + (2 * MOST_STAGES + 2) * 8 };

#ifdef HAS_HOPPER

/* ---- what a block works off ------------------------------------------------------------------------------------- */

struct wgmma_work {
    int row, column, split, k, end;
};

template <int BN> static __device__ __forceinline__ int count_tiles(const gemm_args &g)
{
    return (g.M + BM - 1) / BM * ((g.N + BN - 1) / BN);
}

template <int BN> static __device__ __forceinline__ wgmma_work work_of(const gemm_args &g, int item)
{
    int tiles = count_tiles<BN>(g), split = item / tiles;
    int2 at = gemm_tile(item % tiles, (g.M + BM - 1) / BM, (g.N + BN - 1) / BN);
    wgmma_work w = { at.x * BM, at.y * BN, split, 0, g.K };
    if (g.partial) {
        w.k = split * g.k_split;
        if (w.k + g.k_split < g.K) w.end = w.k + g.k_split;
    }
    return w;
}

template <int BN> struct wgmma_ring {
    static constexpr int A_BYTES = BM * ROW, STAGE = (BM + BN) * ROW, STAGES = RING / STAGE;
    char *stages;
    barrier *full, *empty; /* per stage */
    barrier *go;           /* per multiplying warpgroup that takes turns: the other one needs no more stages */
};

template <int BN>
static __device__ __forceinline__ void bring(const wgmma_ring<BN> &ring, const tensor_map *a, const tensor_map *b,
                                             const gemm_args &g, int items)
{
    constexpr int STAGES = wgmma_ring<BN>::STAGES, STAGE = wgmma_ring<BN>::STAGE;
    int stage = 0;
    unsigned turn = 1; /* nothing is waited for in the first */
    for (int item = (int)blockIdx.x; item < items; item += (int)gridDim.x) {
        wgmma_work w = work_of<BN>(g, item);
        for (int k = w.k; k < w.end; k += STEP) {
            char *to = ring.stages + stage * STAGE;
            barrier_wait(&ring.empty[stage], turn);
            barrier_expect(&ring.full[stage], STAGE);
            box_load(to, a, &ring.full[stage], k, w.row);
            box_load(to + wgmma_ring<BN>::A_BYTES, b, &ring.full[stage], k, w.column);
            if (++stage == STAGES) stage = 0, turn ^= 1;
        }
    }
}

/* ---- products ----------------------------------------------------------------------------------------------------- */

/* TURNS: this warpgroup has every second item, with all of its rows. */
template <class T, int BN, bool TURNS>
static __device__ __forceinline__ void multiply(const wgmma_ring<BN> &ring, char *area, const gemm_args &g,
                                                int items, int group, int warp, int lane)
{
    constexpr int MT = TURNS ? 2 : 1, NT = BN / 8, STAGES = wgmma_ring<BN>::STAGES, STAGE = wgmma_ring<BN>::STAGE;
    int first_row = TURNS ? 0 : 64 * group, stage = 0;
    unsigned turn = 0;
    unsigned go = group == 0; /* parity; the first of group 0 needs not to wait */
    bool mine = !TURNS || group == 0;
    for (int item = (int)blockIdx.x; item < items; item += (int)gridDim.x) {
        wgmma_work w = work_of<BN>(g, item);
        int steps = (w.end - w.k + STEP - 1) / STEP;
        if (!mine) {
            mine = true;
            int passed = stage + steps;
            turn ^= (unsigned)(passed / STAGES) & 1;
            stage = passed % STAGES;
            continue;
        }
        mine = !TURNS;
        /* A phase of a stage is known by its parity alone: nobody may look before the stages of the item before are past. */
        if (TURNS) barrier_wait(&ring.go[group], go), go ^= 1;
        float sum[MT][NT][4] = {};
        int before = 0;
        for (int step = 0; step < steps; step++) {
            barrier_wait(&ring.full[stage], turn);
            const char *a = ring.stages + stage * STAGE, *b = a + wgmma_ring<BN>::A_BYTES;
            uint64_t of_a = operand_of(a + first_row * ROW), of_b = operand_of(b);
            product_fence();
#pragma unroll
            for (unsigned k = 0; k < STEP / 16; k++)
#pragma unroll
                for (unsigned i = 0; i < MT; i++)
                    multiply_64<T, NT>(sum[i], of_a + 2 * k + i * (64 * ROW >> 4), of_b + 2 * k);
            product_commit();
            product_wait<1>();
            if (step > 0 && lane == 0) barrier_arrive(&ring.empty[before]);
            before = stage;
            if (++stage == STAGES) stage = 0, turn ^= 1;
        }
        if (TURNS && lane == 0) barrier_arrive(&ring.go[1 - group]);
        product_wait<0>();
        if (lane == 0) barrier_arrive(&ring.empty[before]);
#pragma unroll
        for (int i = 0; i < MT; i++) product_settle<NT>(sum[i]);
        int row = w.row + first_row + 16 * warp;
#pragma unroll 1
        for (int s = 0; s < MT * NT / 8; s++) {
            int block = s / (NT / 8), first = s % (NT / 8) * 8;
#pragma unroll
            for (int i = 0; i < MT; i++)
#pragma unroll
                for (int j = 0; j < NT; j += 8)
                    if (i == block && j == first) gemm_put_sums<NT, 8>(sum[i], j, area, lane);
            __syncwarp();
            gemm_finish<T, 8>(g, area, 0, w.split, row + 64 * block, w.column + 8 * first, lane);
            __syncwarp();
        }
    }
}
#endif

/* ---- kernel ------------------------------------------------------------------------------------------------------- */

template <class T, int BN, bool TURNS>
__global__ void __launch_bounds__(THREADS, 1)
    gemm_wgmma(const __grid_constant__ tensor_map a, const __grid_constant__ tensor_map b, gemm_args g, int splits)
{
#ifdef HAS_HOPPER
    DYNAMIC_SHARED(char, shared);
    barrier *barriers = (barrier *)(shared + RING + AREAS);
    wgmma_ring<BN> ring = { shared, barriers, barriers + MOST_STAGES, barriers + 2 * MOST_STAGES };
    if (threadIdx.x == 0) {
        for (int i = 0; i < wgmma_ring<BN>::STAGES; i++) {
            barrier_init(&ring.full[i], 1);
            barrier_init(&ring.empty[i], TURNS ? 4 : 8); /* one of each warp that reads the stage */
        }
        barrier_init(&ring.go[0], 4);
        barrier_init(&ring.go[1], 4);
        barrier_init_done();
    }
    __syncthreads();
    int items = count_tiles<BN>(g) * splits;
    int lane = (int)threadIdx.x % 32, warp = __shfl_sync(FULL_WARP, (int)threadIdx.x / 32, 0);
    if (warp >= 8) {
        registers_give<24>();
        if (warp == 8 && lane == 0) {
            box_prefetch(&a);
            box_prefetch(&b);
            bring<BN>(ring, &a, &b, g, items);
        }
    } else {
        registers_take<240>();
        multiply<T, BN, TURNS>(ring, shared + RING + warp * AREA, g, items, warp / 4, warp % 4, lane);
    }
#endif
}

/* ---- tensor maps: made by the driver, kept in a table of the device ------------------------------------------------ */

struct map_key {
    const void *p;
    int64_t columns, rows, ld;
    int type, box_rows;
};
struct map_entry {
    tensor_map map;
    map_key key;
    bool known;
};
enum { MAPS = 1024 }; /* a model of 36 layers has some 150 weights, and as many activations */

#ifdef SIMT
static bool encode(const map_key *k, tensor_map *map)
{
    simt_tensor_map m = { static_cast<const char *>(k->p), k->columns, k->rows, k->ld * 2, k->box_rows };
    *map = m;
    return (uintptr_t)k->p % 16 == 0 && k->ld * 2 % 16 == 0 && k->ld >= k->columns && k->box_rows <= 256;
}
#else
typedef CUresult encode_tiled(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                              const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                              CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

static encode_tiled *find_encode(void)
{
    void *found = NULL;
    cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    cudaError_t e =
        cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result);
#else
    cudaError_t e = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
    if (e != cudaSuccess) cudaGetLastError(); /* the other kernels will do */
    return e == cudaSuccess && result == cudaDriverEntryPointSuccess ? (encode_tiled *)found : NULL;
}

static bool encode(const map_key *k, tensor_map *map)
{
    encode_tiled *call = find_encode();
    if (!call || k->ld < k->columns) return false;
    cuuint64_t size[2] = { (cuuint64_t)k->columns, (cuuint64_t)k->rows }, pitch[1] = { (cuuint64_t)k->ld * 2 };
    cuuint32_t box[2] = { STEP, (cuuint32_t)k->box_rows }, one[2] = { 1, 1 };
    CUtensorMapDataType type =
        k->type == DT_BF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    return call(map, type, 2, (void *)k->p, size, pitch, box, one, CU_TENSOR_MAP_INTERLEAVE_NONE,
                CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}
#endif

static bool same_key(const map_key *a, const map_key *b)
{
    return a->p == b->p && a->columns == b->columns && a->rows == b->rows && a->ld == b->ld && a->type == b->type &&
           a->box_rows == b->box_rows;
}

bool cuda_box_map(dev *d, const void *p, dtype type, int64_t columns, int64_t rows, int64_t ld, int box_rows,
                  tensor_map *map)
{
    cuda *c = cuda_of(d);
    map_key key = { p, columns, rows, ld, type, box_rows };
    if (!c->maps && (c->maps = mem_aligned(alignof(map_entry), MAPS * sizeof(map_entry))))
        memset(c->maps, 0, MAPS * sizeof(map_entry));
    if (!c->maps) return encode(&key, map); /* slower */
    uint64_t hash =
        ((uint64_t)(uintptr_t)p >> 4 ^ (uint64_t)rows << 20 ^ (uint64_t)columns << 40 ^ (uint64_t)box_rows) *
        0x9E3779B97F4A7C15ull;
    map_entry *e = (map_entry *)c->maps + (hash >> 32) % MAPS;
    if (!e->known || !same_key(&e->key, &key)) {
        e->known = encode(&key, &e->map); /* what it says depends on the key alone, so it never ages */
        e->key = key;
    }
    *map = e->map;
    return e->known;
}

/* ---- launching ------------------------------------------------------------------------------------------------------ */

template <class T, int BN, bool TURNS>
static void start(dev *d, const tensor_map *a, const tensor_map *b, const gemm_args *g, int splits)
{
    int64_t items = ceil_div(g->M, BM) * ceil_div(g->N, BN) * splits, blocks = cuda_of(d)->multiprocessors;
    dim3 grid((unsigned)(items < blocks ? items : blocks)), block(THREADS);
    LAUNCH(d, (gemm_wgmma<T, BN, TURNS>), grid, block, SHARED_BYTES, *a, *b, *g, splits);
}

bool cuda_gemm_wgmma_launch(dev *d, const gemm_args *g, dtype type, int tile, int splits)
{
    tensor_map a, b;
    bool wide = tile == TILE_WGMMA_128x256;
    if (!cuda_box_map(d, g->a, type, g->K, g->M, g->lda, BM, &a)) return false;
    if (!cuda_box_map(d, g->b, type, g->K, g->N, g->ldb, wide ? 256 : 128, &b)) return false;
    if (type == DT_BF16 && wide)
        start<bf16, 256, false>(d, &a, &b, g, splits);
    else if (type == DT_BF16)
        start<bf16, 128, true>(d, &a, &b, g, splits);
    else if (wide)
        start<f16, 256, false>(d, &a, &b, g, splits);
    else
        start<f16, 128, true>(d, &a, &b, g, splits);
    if (splits > 1) cuda_gemm_join_launch(d, g, type, splits);
    return true;
}
