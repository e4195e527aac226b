/* attention_mma.cu - y = softmax(scale q k^T + positions) v on the tensor cores, 16-bit operands, F32 softmax and sums.
 *
 * A block owns one head of one unit and 16 queries per warp (8 warps, fewer for short sequences): q stays in shared
 * memory (registers up to D 80), keys and values stream through two stages of BK rows filled by cp.async while the
 * stage before is worked on. Scores never leave registers: running maximum and sum per row (in powers of two), the
 * probabilities are rounded to the 16-bit type and become the first operand of the second product as they lie.
 *
 * Positions (SAM's decomposed relative positions) are two products of the block's queries with the rows of the tables
 * that can meet them: rel_h gives bh[query][key row], rel_w gives bw[query][key column], F32 in shared memory; the
 * tables are F32, so each number is taken as a sum of two or three of 16 bits (22 or 24 bits of fraction). Where a key block is one row of
 * the map (width 64: ROW_BLOCK), bw is the same for every block and stays in registers, and bh is one number a row.
 * Windows need no partition: the addresses of their rows are computed; what lies outside the map is `pad`.
 *
 * Per block of BK keys and warp: 4 D BK / 16 * 16 FLOPs in D BK / 64 mma; 4 D BK bytes of shared memory by ldmatrix;
 * 16 BK exponentials. D 64, BK 64: 64 mma (128 cycles of the multiprocessor), 16 KB (128 cycles), 1,024 ex2 (64
 * cycles): bound by mma and shared memory alike. Global traffic: k and v of a head once per 128 queries, from the L2.
 *
 * Registers: 2 D (sums) + BK / 2 (scores) + D / 4 (q) a thread; shared: (128 + 4 BK) (2 D + 16) bytes + positions.
 * DP is D rounded up: 16, 32, 64, 80, 112 (for 100), 128, 256; BK 64, but 32 for 256, whose sums fill the registers.
 */
#include "cuda/attention.cuh"

template <class T, int DP, int BK> struct attention_tile { /* sizes only */
    enum {
        PITCH = 2 * DP + 16,
        CHUNKS = DP / 8,
        STEPS = DP / 16,
        NT = BK / 8,
        OT = DP / 8,
        STAGE = 2 * BK * PITCH
    };
};

/* ---- rows into shared memory ------------------------------------------------------------------------------------------ */

/* Chunk c (8 elements) of a row of D; from NULL: zeros. */
template <class T> static __device__ __forceinline__ void bring(char *to, const T *from, int c, int D, bool wide)
{
    int valid = from ? D - 8 * c : 0;
    if (valid > 8) valid = 8;
    if (valid <= 0) {
        store_16(to, make_uint4(0, 0, 0, 0));
    } else if (wide) {
        copy_async_16(to, from + 8 * c, 2 * valid);
    } else {
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t low = 2 * i < valid ? from[8 * c + 2 * i].bits : 0;
            uint32_t high = 2 * i + 1 < valid ? from[8 * c + 2 * i + 1].bits : 0;
            word[i] = low | high << 16;
        }
        store_16(to, make_uint4(word[0], word[1], word[2], word[3]));
    }
}

template <class T>
static __device__ __forceinline__ void bring_pad(char *to, const attention_args &g, const attention_place &p,
                                                 int which, int c)
{
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; i++)
        word[i] =
            pair_of<T>(attention_pad(g, p, which, 8 * c + 2 * i), attention_pad(g, p, which, 8 * c + 2 * i + 1));
    store_16(to, make_uint4(word[0], word[1], word[2], word[3]));
}

/* Keys j0 .. j0 + BK - 1: k, then v. */
template <class T, int DP, int BK>
static __device__ __forceinline__ void bring_keys(char *stage, const attention_args &g, const attention_place &p,
                                                  int j0)
{
    typedef attention_tile<T, DP, BK> S;
    for (int i = (int)threadIdx.x; i < BK * S::CHUNKS; i += (int)blockDim.x) {
        int r = i / S::CHUNKS, c = i % S::CHUNKS, j = j0 + r;
        char *to = stage + r * S::PITCH + 16 * c;
        const T *k = j < g.Tk ? attention_key(g, p, (const T *)g.k, g.at_k, j) : NULL;
        if (!k && j < g.Tk) {
            bring_pad<T>(to, g, p, PAD_K, c);
            bring_pad<T>(to + BK * S::PITCH, g, p, PAD_V, c);
        } else {
            const T *v = j < g.Tk ? attention_key(g, p, (const T *)g.v, g.at_v, j) : NULL;
            bring(to, k, c, g.D, g.at_k.wide);
            bring(to + BK * S::PITCH, v, c, g.D, g.at_v.wide);
        }
    }
}

template <class T, int DP>
static __device__ __forceinline__ void bring_queries(char *to, const attention_args &g, const attention_place &p,
                                                     int i0, int count)
{
    typedef attention_tile<T, DP, 16> S;
    for (int i = (int)threadIdx.x; i < count * S::CHUNKS; i += (int)blockDim.x) {
        int r = i / S::CHUNKS, c = i % S::CHUNKS, token = i0 + r;
        int row = attention_row(g, token), column = attention_column(g, token, row);
        const T *from = NULL;
        if (token < g.Tq && attention_inside(g, p, row, column))
            from = (const T *)g.q + attention_offset(g.at_q, p, row, column, p.b, p.h);
        bring(to + r * S::PITCH + 16 * c, from, c, g.D, g.at_q.wide);
    }
}

/* ---- the two products --------------------------------------------------------------------------------------------------- */

/* s += the warp's 16 queries times the first `live` of BK rows at `keys`; q as fragments, or from shared memory. */
template <class T, int DP, int BK, bool KEEP>
static __device__ __forceinline__ void scores(float (&s)[BK / 8][4], const uint32_t (&kept)[DP / 16][4],
                                              const char *q, const char *keys, int live, int lane)
{
    typedef attention_tile<T, DP, BK> S;
#pragma unroll
    for (int step = 0; step < S::STEPS; step++) {
        uint32_t a[4];
        if (KEEP) {
#pragma unroll
            for (int i = 0; i < 4; i++) a[i] = kept[step][i];
        } else {
            load_matrix_4(a, q + (lane & 15) * S::PITCH + 32 * step + (lane >> 4) * 16);
        }
#pragma unroll
        for (int j = 0; j < BK / 16; j++) {
            if (16 * j >= live) continue;
            uint32_t two[4];
            load_matrix_4(two, keys + (16 * j + (lane & 7) + (lane >> 4) * 8) * S::PITCH + 32 * step +
                                   (lane >> 3 & 1) * 16);
            uint32_t b0[2] = { two[0], two[1] }, b1[2] = { two[2], two[3] };
            multiply_16816<T>(s[2 * j], a, b0);
            multiply_16816<T>(s[2 * j + 1], a, b1);
        }
    }
}

/* o += probabilities times the rows at `values` */
template <class T, int DP, int BK>
static __device__ __forceinline__ void mix(float (&o)[DP / 8][4], const float (&s)[BK / 8][4], const char *values,
                                           int live, int lane)
{
    typedef attention_tile<T, DP, BK> S;
#pragma unroll
    for (int j = 0; j < BK / 16; j++) {
        if (16 * j >= live) continue;
        uint32_t a[4] = { pair_of<T>(s[2 * j][0], s[2 * j][1]), pair_of<T>(s[2 * j][2], s[2 * j][3]),
                          pair_of<T>(s[2 * j + 1][0], s[2 * j + 1][1]),
                          pair_of<T>(s[2 * j + 1][2], s[2 * j + 1][3]) };
#pragma unroll
        for (int i = 0; i < DP / 16; i++) {
            uint32_t two[4];
            load_matrix_4<true>(two, values + (16 * j + (lane & 15)) * S::PITCH + 32 * i + (lane >> 4) * 16);
            uint32_t b0[2] = { two[0], two[1] }, b1[2] = { two[2], two[3] };
            multiply_16816<T>(o[2 * i], a, b0);
            multiply_16816<T>(o[2 * i + 1], a, b1);
        }
    }
}

/* ---- positions ------------------------------------------------------------------------------------------------------------ */

/* How many 16-bit numbers make an F32 one: the tables keep (nearly) all their bits. */
template <class T> struct parts_of {
    enum { COUNT = 2 };
};
template <> struct parts_of<bf16> {
    enum { COUNT = 3 };
};

/* BK rows of a table from `first` on, in parts: rows of `to`, BK rows further the next part. */
template <class T, int DP, int BK>
static __device__ __forceinline__ void bring_table(char *to, const float *rel, int64_t rel_ld, int first, int rows,
                                                   int D)
{
    typedef attention_tile<T, DP, BK> S;
    for (int i = (int)threadIdx.x; i < BK * S::CHUNKS; i += (int)blockDim.x) {
        int r = i / S::CHUNKS, c = i % S::CHUNKS;
        float x[8];
#pragma unroll
        for (int e = 0; e < 8; e++) x[e] = r < rows && 8 * c + e < D ? rel[(first + r) * rel_ld + 8 * c + e] : 0;
#pragma unroll
        for (int part = 0; part < parts_of<T>::COUNT; part++) {
            uint32_t word[4];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                word[e] = pair_of<T>(x[2 * e], x[2 * e + 1]);
                x[2 * e] -= low_of<T>(word[e]);
                x[2 * e + 1] -= high_of<T>(word[e]);
            }
            store_16(to + (part * BK + r) * S::PITCH + 16 * c, make_uint4(word[0], word[1], word[2], word[3]));
        }
    }
}

/* table[query][c] = log2(e) q . rel[x - c + side - 1] for the block's queries, x their row (or column); rows first .. first
 * + rows - 1 of rel can be met. `ring` has room for all parts of BK rows. */
template <class T, int DP, int BK, bool KEEP>
static __device__ __forceinline__ void positions(float *table, int ld, const float *rel, int64_t rel_ld, int first,
                                                 int rows, int side, bool by_column, const attention_args &g,
                                                 int i0, const uint32_t (&kept)[DP / 16][4], const char *q,
                                                 char *ring, bool active)
{
    typedef attention_tile<T, DP, BK> S;
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    for (int r0 = 0; r0 < rows; r0 += BK) {
        __syncthreads();
        bring_table<T, DP, BK>(ring, rel, rel_ld, first + r0, rows - r0, g.D);
        __syncthreads();
        if (!active) continue;
        float s[S::NT][4] = {};
#pragma unroll
        for (int part = 0; part < parts_of<T>::COUNT; part++)
            scores<T, DP, BK, KEEP>(s, kept, q, ring + part * BK * S::PITCH, rows - r0, lane);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int local = 16 * warp + lane / 4 + 8 * h, row = attention_row(g, i0 + local);
            int x = by_column ? attention_column(g, i0 + local, row) : row;
#pragma unroll
            for (int j = 0; j < S::NT; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int c = x + side - 1 - (first + r0 + 8 * j + lane % 4 * 2 + e);
                    if (c >= 0 && c < side) table[local * ld + c] = s[j][2 * h + e] * LOG2_E;
                }
        }
    }
}

/* What a part of the keys gives, for attention_join. */
template <class T, int DP>
static __device__ __forceinline__ void leave_partial(const attention_args &g, const attention_place &p,
                                                     const float (&o)[DP / 8][4], const float (&top)[2],
                                                     const float (&total)[2], int i0, int lane)
{
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int token = i0 + lane / 4 + 8 * h;
        float sum = total[h];
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        if (token >= g.Tq) continue;
        float *to = g.partial + (((int64_t)p.b * g.units + p.unit) * g.Tq + token) * (g.D + 2);
#pragma unroll
        for (int i = 0; i < DP / 8; i++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                if (8 * i + lane % 4 * 2 + e < g.D) to[8 * i + lane % 4 * 2 + e] = o[i][2 * h + e];
        if (lane % 4 == 0) to[g.D] = top[h], to[g.D + 1] = sum;
    }
}

/* Joins the parts of one query in their order; a warp per query. */
template <class T> __global__ void __launch_bounds__(128) attention_join(attention_args g, int64_t queries)
{
    int64_t id = (int64_t)blockIdx.x * 4 + threadIdx.x / 32;
    if (id >= queries) return;
    int lane = (int)threadIdx.x % 32, token = (int)(id % g.Tq), b = (int)(id / g.Tq);
    int64_t step = (int64_t)g.Tq * (g.D + 2);
    const float *from = g.partial + (int64_t)b * g.units * step + (int64_t)token * (g.D + 2);
    float top = -INFINITY, total = 0;
    for (int u = 0; u < g.units; u++) top = fmaxf(top, from[u * step + g.D]);
    for (int u = 0; u < g.units; u++) total += from[u * step + g.D + 1] * exp2f(from[u * step + g.D] - top);
    T *to = (T *)g.y + b * g.at_y.b + token * g.at_y.row;
    for (int d = lane; d < g.D; d += 32) {
        float sum = 0;
        for (int u = 0; u < g.units; u++) sum += from[u * step + d] * exp2f(from[u * step + g.D] - top);
        to[d] = from_f32<T>(sum / total);
    }
    if (g.lse && lane == 0) g.lse[b * g.lse_b + token] = top * LN_2 + logf(total);
}

/* ---- the kernel ---------------------------------------------------------------------------------------------------------------- */

/* Leading dimensions of the position tables: rows of a warp's fragment fall into different banks. */
static __host__ __device__ inline int table_ld(int side) { return (side + 31) / 32 * 32 + 8; }

enum attention_mode { PLAIN, ROW_BLOCK, POOL };

template <class T, int DP, int BK, attention_mode MODE>
__global__ void __launch_bounds__(256, 1) attention_mma(attention_args g)
{
    typedef attention_tile<T, DP, BK> S;
    constexpr bool KEEP = DP <= 80;
    DYNAMIC_SHARED(char, shared);
    attention_place p = attention_place_of(g, blockIdx.x);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, BQ = (int)blockDim.x / 2, i0 = p.tile * BQ;
    char *q = shared + 16 * warp * S::PITCH, *ring = shared + BQ * S::PITCH;
    float *bh = (float *)(ring + 2 * S::STAGE), *bw = bh + BQ * table_ld(g.side_h);
    int ld_h = table_ld(g.side_h), ld_w = table_ld(g.side_w);
    bool active = i0 + 16 * warp < g.Tq;

    bring_queries<T, DP>(shared, g, p, i0, BQ);
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    uint32_t kept[S::STEPS][4];
    if (KEEP) {
#pragma unroll
        for (int step = 0; step < S::STEPS; step++)
            load_matrix_4(kept[step], q + (lane & 15) * S::PITCH + 32 * step + (lane >> 4) * 16);
    }
    if (MODE != POOL && g.rel_h) {
        int last = i0 + BQ < g.Tq ? i0 + BQ : g.Tq, first = attention_row(g, i0);
        int rows = attention_row(g, last - 1) - first + g.side_h;
        positions<T, DP, BK, KEEP>(bh, ld_h, g.rel_h, g.rel_h_ld, first, rows, g.side_h, false, g, i0, kept, q,
                                   ring, active);
        positions<T, DP, BK, KEEP>(bw, ld_w, g.rel_w, g.rel_w_ld, 0, 2 * g.side_w - 1, g.side_w, true, g, i0, kept,
                                   q, ring, active);
        __syncthreads();
    }
    float bias[MODE == ROW_BLOCK ? S::NT : 1][4];
    if (MODE == ROW_BLOCK) {
#pragma unroll
        for (int j = 0; j < S::NT; j++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                bias[j][e] = bw[(16 * warp + lane / 4 + (e >> 1) * 8) * ld_w + 8 * j + lane % 4 * 2 + (e & 1)];
    }

    float o[S::OT][4] = {}, top[2] = { -INFINITY, -INFINITY }, total[2] = { 0, 0 };
    int end = attention_keys(g, i0 + BQ - 1 < g.Tq ? i0 + BQ - 1 : g.Tq - 1),
        begin = MODE == POOL ? p.unit * g.chunk : 0;
    if (MODE == POOL && begin + g.chunk < end) end = begin + g.chunk;
    int blocks = (end - begin + BK - 1) / BK;
    bring_keys<T, DP, BK>(ring, g, p, begin);
    copy_async_commit();
    for (int block = 0; block < blocks; block++) {
        copy_async_wait<0>();
        __syncthreads();
        if (block + 1 < blocks) {
            bring_keys<T, DP, BK>(ring + (block + 1) % 2 * S::STAGE, g, p, begin + (block + 1) * BK);
            copy_async_commit();
        }
        if (!active) continue;
        const char *keys = ring + block % 2 * S::STAGE;
        int j0 = begin + block * BK, live = end - j0;
        float s[S::NT][4] = {};
        scores<T, DP, BK, KEEP>(s, kept, q, keys, live, lane);
        if (MODE == POOL) scores<T, DP, BK, KEEP>(s, kept, q, keys + BK * S::PITCH, live, lane);
#pragma unroll
        for (int h = 0; h < 2; h++) {
            int local = 16 * warp + lane / 4 + 8 * h;
            int seen = MODE == POOL ? live : attention_keys(g, i0 + local) - j0;
            float most = top[h], row_bias = MODE == ROW_BLOCK ? bh[local * ld_h + block] : 0;
#pragma unroll
            for (int j = 0; j < S::NT; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int c = 8 * j + lane % 4 * 2 + e;
                    float x = s[j][2 * h + e] * (g.scale * LOG2_E);
                    if (MODE == ROW_BLOCK) {
                        x += bias[MODE == ROW_BLOCK ? j : 0][2 * h + e] + row_bias;
                    } else if (MODE == PLAIN && g.rel_h && c < seen) {
                        int row = attention_row(g, j0 + c);
                        x += bh[local * ld_h + row] + bw[local * ld_w + attention_column(g, j0 + c, row)];
                    }
                    if (c >= seen) x = -INFINITY;
                    s[j][2 * h + e] = x;
                    most = fmaxf(most, x);
                }
            most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 1));
            most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 2));
            float fade = exp2f(top[h] - most), sum = 0;
            top[h] = most;
#pragma unroll
            for (int j = 0; j < S::NT; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    s[j][2 * h + e] = exp2f(s[j][2 * h + e] - most);
                    sum += s[j][2 * h + e];
                }
            total[h] = total[h] * fade + sum;
#pragma unroll
            for (int i = 0; i < S::OT; i++) {
                o[i][2 * h] *= fade;
                o[i][2 * h + 1] *= fade;
            }
        }
        mix<T, DP, BK>(o, s, MODE == POOL ? keys : keys + BK * S::PITCH, live, lane);
    }
    if (!active) return;
    if (MODE == POOL) {
        leave_partial<T, DP>(g, p, o, top, total, i0 + 16 * warp, lane);
        return;
    }

    /* Sums leave through the warp's own rows of q. */
    __syncwarp();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        int local = lane / 4 + 8 * h, token = i0 + 16 * warp + local;
        float sum = total[h];
        sum += __shfl_xor_sync(FULL_WARP, sum, 1);
        sum += __shfl_xor_sync(FULL_WARP, sum, 2);
        float share = 1 / sum;
#pragma unroll
        for (int i = 0; i < S::OT; i++)
            *(uint32_t *)(q + local * S::PITCH + (8 * i + lane % 4 * 2) * 2) =
                pair_of<T>(o[i][2 * h] * share, o[i][2 * h + 1] * share);
        int row = attention_row(g, token), column = attention_column(g, token, row);
        if (g.lse && lane % 4 == 0 && token < g.Tq && attention_inside(g, p, row, column))
            g.lse[p.b * g.lse_b + p.h * g.lse_h + (p.row0 + row) * g.lse_row + p.column0 + column] =
                top[h] * LN_2 + logf(sum);
    }
    __syncwarp();
    for (int i = lane; i < 16 * S::CHUNKS; i += 32) {
        int local = i / S::CHUNKS, c = i % S::CHUNKS, token = i0 + 16 * warp + local;
        int row = attention_row(g, token), column = attention_column(g, token, row), valid = g.D - 8 * c;
        if (token >= g.Tq || valid <= 0 || !attention_inside(g, p, row, column)) continue;
        T *to = (T *)g.y + attention_offset(g.at_y, p, row, column, p.b, p.h) + 8 * c;
        const T *from = (const T *)(q + local * S::PITCH) + 8 * c;
        if (g.at_y.wide && valid >= 8) {
            store_16(to, load_16(from));
        } else {
            for (int e = 0; e < 8 && e < valid; e++) to[e] = from[e];
        }
    }
}

/* ---- launching ---------------------------------------------------------------------------------------------------------------- */

template <class T, int DP, int BK, attention_mode MODE> static void start(dev *d, attention_args *g, int64_t B)
{
    typedef attention_tile<T, DP, BK> S;
    int warps = g->Tq >= 128 ? 8 : (g->Tq + 15) / 16, BQ = 16 * warps;
    g->tiles = (g->Tq + BQ - 1) / BQ;
    size_t bytes = (size_t)BQ * S::PITCH + 2 * (size_t)S::STAGE;
    if (g->rel_h) bytes += (size_t)(BQ * (table_ld(g->side_h) + table_ld(g->side_w))) * sizeof(float);
    dim3 grid((unsigned)(B * g->H * g->units * g->tiles));
    LAUNCH(d, (attention_mma<T, DP, BK, MODE>), grid, dim3((unsigned)(32 * warps)), bytes, *g);
}

/* The image's keys in parts of 512, so that few regions fill the GPU; the parts do not depend on their number. */
template <class T> static void start_pool(dev *d, attention_args *g, int64_t B)
{
    g->chunk = 512;
    g->units = (g->Tk + g->chunk - 1) / g->chunk;
    int64_t queries = B * g->Tq;
    g->partial = (float *)cuda_scratch(d, (size_t)(queries * g->units * (g->D + 2)) * sizeof(float),
                                       "partial results of the attention to the image");
    if (!g->partial) return;
    if (g->D <= 64)
        start<T, 64, 32, POOL>(d, g, B);
    else
        start<T, 256, 32, POOL>(d, g, B);
    LAUNCH(d, (attention_join<T>), dim3((unsigned)ceil_div(queries, 4)), dim3(128), 0, *g, queries);
}

template <class T> static void start_size(dev *d, attention_args *g, int64_t B)
{
    bool row_block = g->rel_h && !g->window && g->side_w == 64; /* SAM's map: a block of 64 keys is one row */
    if (g->pool)
        start_pool<T>(d, g, B);
    else if (g->D <= 16)
        start<T, 16, 64, PLAIN>(d, g, B);
    else if (g->D <= 32)
        start<T, 32, 64, PLAIN>(d, g, B);
    else if (g->D <= 64 && row_block)
        start<T, 64, 64, ROW_BLOCK>(d, g, B);
    else if (g->D <= 64)
        start<T, 64, 64, PLAIN>(d, g, B);
    else if (g->D <= 80 && row_block)
        start<T, 80, 64, ROW_BLOCK>(d, g, B);
    else if (g->D <= 80)
        start<T, 80, 64, PLAIN>(d, g, B);
    else if (g->D <= 112)
        start<T, 112, 64, PLAIN>(d, g, B);
    else if (g->D <= 128)
        start<T, 128, 64, PLAIN>(d, g, B);
    else
        start<T, 256, 32, PLAIN>(d, g, B);
}

void cuda_attention_mma_launch(dev *d, attention_args *g, dtype type, int64_t B)
{
    if (type == DT_BF16)
        start_size<bf16>(d, g, B);
    else
        start_size<f16>(d, g, B);
}
