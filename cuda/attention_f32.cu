/* attention_f32.cu - y = softmax(scale q k^T + positions) v in F32 on the ordinary cores: golden vectors.
 *
 * A block of 256 threads owns one head of one unit and 64 queries; keys come in blocks of BK through shared memory.
 * Thread (ty, tx) of 16 x 16 keeps 4 queries: 4 x BK/16 scores, and of the result 4 x DP/16 sums. q and k lie [d][row],
 * v [row][d], the probabilities [key][query], so that every inner step is fused multiply-adds on a few loads from
 * shared memory without conflicts. Running softmax as in attention_mma.cu, exact exponentials. Bound by FMA: 4 D FLOPs
 * per score, about 30 TFLOP/s expected; 7 ms for the four global layers of ViT-B, beside 14 ms for its products.
 * Positions are dot products of the block's queries with rows of the tables, in F32, one per query and map row or column.
 */
#include "cuda/attention.cuh"

enum { BQ = 64, THREADS = 256, LD = BQ + 4 };

template <int DP, int BK> struct f32_tile { /* floats of shared memory */
    enum { Q = DP * LD, K = DP * (BK + 4), V = BK * (DP + 4), P = BK * LD, ALL = Q + K + V + P };
};

/* Tables of the block's queries: table[query][c] = q . rel[x - c + side - 1]. */
static __device__ void positions(float *table, int side, const float *rel, int64_t rel_ld, bool by_column,
                                 const attention_args &g, int i0, const float *q)
{
    for (int i = (int)threadIdx.x; i < BQ * side; i += THREADS) {
        int local = i % BQ, c = i / BQ, row = attention_row(g, i0 + local);
        if (i0 + local >= g.Tq) continue;
        int x = by_column ? attention_column(g, i0 + local, row) : row;
        const float *r = rel + (x - c + side - 1) * rel_ld;
        float s = 0;
        for (int d = 0; d < g.D; d++) s = fmaf(q[d * LD + local], r[d], s);
        table[local * (side + 1) + c] = s;
    }
}

template <int DP, int BK>
static __device__ __forceinline__ void bring_keys(float *k, float *v, const attention_args &g,
                                                  const attention_place &p, int j0)
{
    for (int i = (int)threadIdx.x; i < BK * DP; i += THREADS) {
        int r = i / DP, d = i % DP, j = j0 + r;
        float x = 0, y = 0;
        if (j < g.Tk && d < g.D) {
            const float *from = attention_key(g, p, (const float *)g.k, g.at_k, j);
            x = from ? from[d] : attention_pad(g, p, PAD_K, d);
            from = attention_key(g, p, (const float *)g.v, g.at_v, j);
            y = from ? from[d] : attention_pad(g, p, PAD_V, d);
            if (g.pool) {
                float image = x;
                x += y;
                y = image;
            }
        }
        k[d * (BK + 4) + r] = x;
        v[r * (DP + 4) + d] = y;
    }
}

template <int DP, int BK> __global__ void __launch_bounds__(THREADS) attention_f32(attention_args g)
{
    constexpr int KEYS = BK / 16, SUMS = DP / 16;
    DYNAMIC_SHARED(float, q);
    float *k = q + f32_tile<DP, BK>::Q, *v = k + f32_tile<DP, BK>::K, *weights = v + f32_tile<DP, BK>::V;
    float *bh = weights + f32_tile<DP, BK>::P, *bw = bh + BQ * (g.side_h + 1);
    attention_place p = attention_place_of(g, blockIdx.x);
    int tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16, i0 = p.tile * BQ;
    for (int i = (int)threadIdx.x; i < BQ * DP; i += THREADS) {
        int r = i / DP, d = i % DP, row = attention_row(g, i0 + r), column = attention_column(g, i0 + r, row);
        bool there = i0 + r < g.Tq && d < g.D && attention_inside(g, p, row, column);
        q[d * LD + r] = there ? ((const float *)g.q)[attention_offset(g.at_q, p, row, column, p.b, p.h) + d] : 0;
    }
    __syncthreads();
    if (g.rel_h) {
        positions(bh, g.side_h, g.rel_h, g.rel_h_ld, false, g, i0, q);
        positions(bw, g.side_w, g.rel_w, g.rel_w_ld, true, g, i0, q);
    }
    float o[4][SUMS] = {}, top[4], total[4];
#pragma unroll
    for (int i = 0; i < 4; i++) top[i] = -INFINITY, total[i] = 0;
    int end = attention_keys(g, i0 + BQ - 1 < g.Tq ? i0 + BQ - 1 : g.Tq - 1);
    for (int j0 = 0; j0 < end; j0 += BK) {
        __syncthreads();
        bring_keys<DP, BK>(k, v, g, p, j0);
        __syncthreads();
        float s[4][KEYS] = {};
#pragma unroll 8
        for (int d = 0; d < DP; d++) {
            float x[4], y[KEYS];
#pragma unroll
            for (int i = 0; i < 4; i++) x[i] = q[d * LD + 4 * ty + i];
#pragma unroll
            for (int j = 0; j < KEYS; j++) y[j] = k[d * (BK + 4) + tx + 16 * j];
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < KEYS; j++) s[i][j] = fmaf(x[i], y[j], s[i][j]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int local = 4 * ty + i, seen = attention_keys(g, i0 + local) - j0;
            float most = top[i];
#pragma unroll
            for (int j = 0; j < KEYS; j++) {
                int c = tx + 16 * j;
                s[i][j] *= g.scale;
                if (g.rel_h && c < seen && i0 + local < g.Tq) {
                    int row = attention_row(g, j0 + c);
                    s[i][j] += bh[local * (g.side_h + 1) + row] +
                               bw[local * (g.side_w + 1) + attention_column(g, j0 + c, row)];
                }
                if (c >= seen) s[i][j] = -INFINITY;
                most = fmaxf(most, s[i][j]);
            }
#pragma unroll
            for (int bits = 1; bits < 16; bits *= 2) most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, bits));
            float fade = expf(top[i] - most);
            top[i] = most;
            total[i] *= fade;
#pragma unroll
            for (int c = 0; c < SUMS; c++) o[i][c] *= fade;
#pragma unroll
            for (int j = 0; j < KEYS; j++) {
                float weight = expf(s[i][j] - most);
                total[i] += weight;
                weights[(tx + 16 * j) * LD + local] = weight;
            }
        }
        __syncwarp(); /* a warp reads the probabilities of its own queries only */
#pragma unroll 4
        for (int j = 0; j < BK; j++) {
            float x[4];
#pragma unroll
            for (int i = 0; i < 4; i++) x[i] = weights[j * LD + 4 * ty + i];
#pragma unroll
            for (int c = 0; c < SUMS; c++) {
                float y = v[j * (DP + 4) + tx + 16 * c];
#pragma unroll
                for (int i = 0; i < 4; i++) o[i][c] = fmaf(x[i], y, o[i][c]);
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float sum = total[i];
#pragma unroll
        for (int bits = 1; bits < 16; bits *= 2) sum += __shfl_xor_sync(FULL_WARP, sum, bits);
        int token = i0 + 4 * ty + i, row = attention_row(g, token), column = attention_column(g, token, row);
        if (token >= g.Tq || !attention_inside(g, p, row, column)) continue;
        float *to = (float *)g.y + attention_offset(g.at_y, p, row, column, p.b, p.h), share = 1 / sum;
#pragma unroll
        for (int c = 0; c < SUMS; c++)
            if (tx + 16 * c < g.D) to[tx + 16 * c] = o[i][c] * share;
        if (g.lse && tx == 0)
            g.lse[p.b * g.lse_b + p.h * g.lse_h + (p.row0 + row) * g.lse_row + p.column0 + column] =
                top[i] + logf(sum);
    }
}

template <int DP, int BK> static void start(dev *d, attention_args *g, int64_t B)
{
    g->tiles = (g->Tq + BQ - 1) / BQ;
    size_t floats = f32_tile<DP, BK>::ALL;
    if (g->rel_h) floats += (size_t)(BQ * (g->side_h + g->side_w + 2));
    dim3 grid((unsigned)(B * g->H * g->units * g->tiles));
    LAUNCH(d, (attention_f32<DP, BK>), grid, dim3(THREADS), floats * sizeof(float), *g);
}

void cuda_attention_f32_launch(dev *d, attention_args *g, int64_t B)
{
    if (g->D <= 16)
        start<16, 64>(d, g, B);
    else if (g->D <= 32)
        start<32, 64>(d, g, B);
    else if (g->D <= 64)
        start<64, 64>(d, g, B);
    else if (g->D <= 80)
        start<80, 64>(d, g, B);
    else if (g->D <= 128)
        start<128, 64>(d, g, B);
    else
        start<256, 32>(d, g, B);
}
