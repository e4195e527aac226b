/* twoway.cu - the two-way layers' image side in absorbed form (op_image_pool, op_image_update): every projection has
 * been moved to the few tokens, the image tokens x (S,C) are read once and, by the update, written once.
 *
 * Pool is attention with one head of C elements: attention_mma.cu and attention_f32.cu run it. Update is here:
 *     y = LN(x + vb + sum_h sum_t softmax_t((x + pe) . k[h,t] + kb[h,t]) v[h,t])
 *
 * update_mma (16-bit, at most 16 tokens a head, 128 columns in all, C at most 256): a block has one region's k and v in
 * shared memory, each head padded to 8 or 16 columns, so that a head is whole fragments and its softmax two shuffles.
 * A warp takes 16 image tokens at a time: their rows go from global memory straight into operand registers, 16 bytes a
 * lane; (x + pe) . k is taken as x . k + pe . k, exact in F32, where rounding x + pe to 16 bits would cost 2^-9 of each
 * score. Then 16 x 128 probabilities times v (128 x C) in C / 2 sums a thread, and LayerNorm over them in registers.
 * FLOPs per region: 3 units of 2 S C 128; bytes: 2 S C read (pe, k, v from the L2), 2 S C written: 2 MiB + 2 MiB.
 * Shared: 128 (2 C + 64) + 128 (2 C + 16) bytes, 140 KB. Rows of k have a pitch of 4 mod 8 chunks, so that the lanes
 * (g, t) of a quarter warp, which read 16 bytes at chunk t of row g, meet no bank twice.
 *
 * update_any (the exact path, and every other shape): a block takes 16 tokens; F32 on the ordinary cores.
 */
#include "cuda/attention.cuh"

struct update_args {
    const void *x, *pe, *k, *kb, *v;
    void *y;
    const float *vb, *w, *b;
    int64_t x_n, x_s, pe_s, k_n, k_j, kb_n, v_n, v_j, y_n, y_s;
    int N, S, C, J, H, T;
    float eps;
};

/* ---- any shape ------------------------------------------------------------------------------------------------------------ */

enum { FEW = 16, THREADS = 256 };

template <class E> __global__ void __launch_bounds__(THREADS) update_any(update_args g)
{
    DYNAMIC_SHARED(float, at); /* x + pe, then the sums: [FEW][C + 1]; scores: [FEW][J + 1] */
    int ld = g.C + 1, n = (int)blockIdx.y, s0 = (int)blockIdx.x * FEW, rows = g.S - s0 < FEW ? g.S - s0 : (int)FEW;
    float *p = at + FEW * ld;
    const E *x = (const E *)g.x + n * g.x_n, *pe = (const E *)g.pe, *k = (const E *)g.k + n * g.k_n;
    const E *kb = (const E *)g.kb + n * g.kb_n, *v = (const E *)g.v + n * g.v_n;
    for (int i = (int)threadIdx.x; i < rows * g.C; i += THREADS) {
        int s = i / g.C, c = i % g.C;
        at[s * ld + c] = to_f32(x[(s0 + s) * g.x_s + c]) + to_f32(pe[(s0 + s) * g.pe_s + c]);
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < FEW * g.J; i += THREADS) {
        int s = i % FEW, j = i / FEW;
        if (s >= rows) continue;
        float sum = 0;
        for (int c = 0; c < g.C; c++) sum = fmaf(at[s * ld + c], to_f32(k[j * g.k_j + c]), sum);
        p[s * (g.J + 1) + j] = sum + to_f32(kb[j]);
    }
    __syncthreads();
    for (int i = (int)threadIdx.x; i < rows * g.H; i += THREADS) {
        float *head = p + i / g.H * (g.J + 1) + i % g.H * g.T, most = head[0], sum = 0;
        for (int t = 1; t < g.T; t++) most = fmaxf(most, head[t]);
        for (int t = 0; t < g.T; t++) sum += head[t] = expf(head[t] - most);
        for (int t = 0; t < g.T; t++) head[t] /= sum;
    }
    __syncthreads();
    for (int c = (int)threadIdx.x; c < g.C; c += THREADS) {
        float sum[FEW];
#pragma unroll
        for (int s = 0; s < FEW; s++) sum[s] = s < rows ? to_f32(x[(s0 + s) * g.x_s + c]) + g.vb[c] : 0;
        for (int j = 0; j < g.J; j++) {
            float value = to_f32(v[j * g.v_j + c]);
#pragma unroll
            for (int s = 0; s < FEW; s++)
                if (s < rows) sum[s] = fmaf(p[s * (g.J + 1) + j], value, sum[s]);
        }
#pragma unroll
        for (int s = 0; s < FEW; s++)
            if (s < rows) at[s * ld + c] = sum[s];
    }
    __syncthreads();
    int lane = (int)threadIdx.x % 32;
    for (int s = (int)threadIdx.x / 32; s < rows; s += THREADS / 32) {
        float mean = 0, square = 0;
        for (int c = lane; c < g.C; c += 32) mean += at[s * ld + c];
        mean = warp_sum(mean) / (float)g.C;
        for (int c = lane; c < g.C; c += 32) square = fmaf(at[s * ld + c] - mean, at[s * ld + c] - mean, square);
        float rstd = 1 / sqrtf(warp_sum(square) / (float)g.C + g.eps);
        E *y = (E *)g.y + n * g.y_n + (s0 + s) * g.y_s;
        for (int c = lane; c < g.C; c += 32) y[c] = from_f32<E>((at[s * ld + c] - mean) * rstd * g.w[c] + g.b[c]);
    }
}

/* ---- tensor cores ----------------------------------------------------------------------------------------------------------- */

enum { COLUMNS = 128, WARPS = 8, ROUNDS = 4 }; /* a block takes ROUNDS times WARPS * 16 tokens */

template <int CP> struct update_tile {
    enum { K_PITCH = 2 * CP + 64, V_PITCH = 2 * CP + 16, RUNS = CP / 32, NT = COLUMNS / 8, OT = CP / 8 };
};

/* k, v and kb of one region; heads padded to TP columns. */
template <class E, int CP, int TP>
static __device__ __forceinline__ void bring_tokens(char *ks, char *vs, float *bias, const update_args &g, int n)
{
    typedef update_tile<CP> U;
    for (int i = (int)threadIdx.x; i < COLUMNS * (CP / 8); i += WARPS * 32) {
        int j = i / (CP / 8), c = i % (CP / 8), h = j / TP, t = j % TP, from = h * g.T + t;
        bool there = h < g.H && t < g.T && 8 * c < g.C;
        const E *k = (const E *)g.k + n * g.k_n + from * g.k_j + 8 * c,
                *v = (const E *)g.v + n * g.v_n + from * g.v_j + 8 * c;
        copy_async_16(ks + j * U::K_PITCH + 16 * c, there ? k : (const E *)g.k, there ? 16 : 0);
        copy_async_16(vs + j * U::V_PITCH + 16 * c, there ? v : (const E *)g.v, there ? 16 : 0);
    }
    copy_async_commit();
    for (int j = (int)threadIdx.x; j < COLUMNS; j += WARPS * 32) {
        int h = j / TP, t = j % TP;
        bias[j] = h >= g.H ? 0 : t < g.T ? to_f32(((const E *)g.kb)[n * g.kb_n + h * g.T + t]) : -INFINITY;
    }
    copy_async_wait<0>();
    __syncthreads();
}

/* 16 bytes of the token's row at element c; zero outside. */
template <class E> static __device__ __forceinline__ uint4 load_row(const E *row, int c, int C, bool there)
{
    return there && c < C ? load_16(row + c) : make_uint4(0, 0, 0, 0);
}

/* Scores of 16 tokens against all columns: runs of 32 elements; lane (g, t) has elements 8 t .. 8 t + 7 of a run, of
 * rows g and g + 8 of x and pe and of row g of each k fragment: both operands take k in the same, unusual, order. */
template <class E, int CP>
static __device__ __forceinline__ void update_scores(float (&s)[COLUMNS / 8][4], const update_args &g,
                                                     const char *ks, int n, int s0, int columns, int lane)
{
    typedef update_tile<CP> U;
    int low = s0 + lane / 4, high = low + 8;
    const E *x = (const E *)g.x + n * g.x_n, *pe = (const E *)g.pe;
    for (int run = 0; run < U::RUNS; run++) {
        int c = 32 * run + lane % 4 * 8;
        uint4 x0 = load_row(x + low * g.x_s, c, g.C, low < g.S),
              x1 = load_row(x + high * g.x_s, c, g.C, high < g.S);
        uint4 p0 = load_row(pe + low * g.pe_s, c, g.C, low < g.S),
              p1 = load_row(pe + high * g.pe_s, c, g.C, high < g.S);
        uint32_t xa[4] = { x0.x, x1.x, x0.y, x1.y }, xb[4] = { x0.z, x1.z, x0.w, x1.w };
        uint32_t pa[4] = { p0.x, p1.x, p0.y, p1.y }, pb[4] = { p0.z, p1.z, p0.w, p1.w };
#pragma unroll
        for (int j = 0; j < U::NT; j++) {
            if (8 * j >= columns) continue;
            uint4 k = load_16(ks + (8 * j + lane / 4) * U::K_PITCH + 2 * c);
            uint32_t ka[2] = { k.x, k.y }, kb[2] = { k.z, k.w };
            multiply_16816<E>(s[j], xa, ka);
            multiply_16816<E>(s[j], xb, kb);
            multiply_16816<E>(s[j], pa, ka);
            multiply_16816<E>(s[j], pb, kb);
        }
    }
}

/* The softmax of each head, TP / 8 fragments wide. */
template <int TP>
static __device__ __forceinline__ void update_softmax(float (&s)[COLUMNS / 8][4], const float *bias, int columns,
                                                      int lane)
{
    constexpr int PER = TP / 8;
#pragma unroll
    for (int h = 0; h < COLUMNS / TP; h++) {
        if (TP * h >= columns) continue;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = -INFINITY, sum = 0;
#pragma unroll
            for (int j = 0; j < PER; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    float *x = &s[PER * h + j][2 * half + e];
                    *x = (*x + bias[TP * h + 8 * j + lane % 4 * 2 + e]) * LOG2_E;
                    most = fmaxf(most, *x);
                }
            most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 1));
            most = fmaxf(most, __shfl_xor_sync(FULL_WARP, most, 2));
#pragma unroll
            for (int j = 0; j < PER; j++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    sum += s[PER * h + j][2 * half + e] = exp2f(s[PER * h + j][2 * half + e] - most);
            sum += __shfl_xor_sync(FULL_WARP, sum, 1);
            sum += __shfl_xor_sync(FULL_WARP, sum, 2);
#pragma unroll
            for (int j = 0; j < PER; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) s[PER * h + j][2 * half + e] /= sum;
        }
    }
}

/* x + vb + sums, LayerNorm over the row, which four lanes share; then y. */
template <class E, int CP>
static __device__ __forceinline__ void update_end(float (&o)[CP / 8][4], const update_args &g, int n, int s0,
                                                  int lane)
{
    typedef update_tile<CP> U;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int token = s0 + lane / 4 + 8 * half;
        bool there = token < g.S;
        const E *x = (const E *)g.x + n * g.x_n + token * g.x_s;
        float mean = 0, square = 0;
#pragma unroll
        for (int i = 0; i < U::OT; i++) {
            int c = 8 * i + lane % 4 * 2;
            if (c >= g.C) continue;
            uint32_t pair = there ? *(const uint32_t *)(x + c) : 0;
            o[i][2 * half] += low_of<E>(pair) + g.vb[c];
            o[i][2 * half + 1] += high_of<E>(pair) + g.vb[c + 1];
            mean += o[i][2 * half] + o[i][2 * half + 1];
        }
        mean += __shfl_xor_sync(FULL_WARP, mean, 1);
        mean += __shfl_xor_sync(FULL_WARP, mean, 2);
        mean /= (float)g.C;
#pragma unroll
        for (int i = 0; i < U::OT; i++) {
            if (8 * i + lane % 4 * 2 >= g.C) continue;
            float a = o[i][2 * half] - mean, b = o[i][2 * half + 1] - mean;
            square += a * a + b * b;
        }
        square += __shfl_xor_sync(FULL_WARP, square, 1);
        square += __shfl_xor_sync(FULL_WARP, square, 2);
        float rstd = 1 / sqrtf(square / (float)g.C + g.eps);
        E *y = (E *)g.y + n * g.y_n + token * g.y_s;
#pragma unroll
        for (int i = 0; i < U::OT; i++) {
            int c = 8 * i + lane % 4 * 2;
            if (c >= g.C || !there) continue;
            *(uint32_t *)(y + c) = pair_of<E>((o[i][2 * half] - mean) * rstd * g.w[c] + g.b[c],
                                              (o[i][2 * half + 1] - mean) * rstd * g.w[c + 1] + g.b[c + 1]);
        }
    }
}

template <class E, int CP, int TP> __global__ void __launch_bounds__(WARPS * 32, 1) update_mma(update_args g)
{
    typedef update_tile<CP> U;
    DYNAMIC_SHARED(char, ks);
    char *vs = ks + COLUMNS * U::K_PITCH;
    float *bias = (float *)(vs + COLUMNS * U::V_PITCH);
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, n = (int)blockIdx.y, columns = g.H * TP;
    bring_tokens<E, CP, TP>(ks, vs, bias, g, n);
    for (int round = 0; round < ROUNDS; round++) {
        int s0 = (((int)blockIdx.x * ROUNDS + round) * WARPS + warp) * 16;
        if (s0 >= g.S) break;
        float s[U::NT][4] = {}, o[U::OT][4] = {};
        update_scores<E, CP>(s, g, ks, n, s0, columns, lane);
        update_softmax<TP>(s, bias, columns, lane);
#pragma unroll
        for (int j = 0; j < COLUMNS / 16; j++) {
            if (16 * j >= columns) continue;
            uint32_t a[4] = { pair_of<E>(s[2 * j][0], s[2 * j][1]), pair_of<E>(s[2 * j][2], s[2 * j][3]),
                              pair_of<E>(s[2 * j + 1][0], s[2 * j + 1][1]),
                              pair_of<E>(s[2 * j + 1][2], s[2 * j + 1][3]) };
#pragma unroll
            for (int i = 0; i < CP / 16; i++) {
                uint32_t two[4];
                load_matrix_4<true>(two, vs + (16 * j + (lane & 15)) * U::V_PITCH + 32 * i + (lane >> 4) * 16);
                uint32_t b0[2] = { two[0], two[1] }, b1[2] = { two[2], two[3] };
                multiply_16816<E>(o[2 * i], a, b0);
                multiply_16816<E>(o[2 * i + 1], a, b1);
            }
        }
        update_end<E, CP>(o, g, n, s0, lane);
    }
}

/* ---- launching ---------------------------------------------------------------------------------------------------------------- */

template <class E, int CP, int TP> static void start_mma(dev *d, const update_args *g)
{
    typedef update_tile<CP> U;
    size_t bytes = (size_t)COLUMNS * (U::K_PITCH + U::V_PITCH + sizeof(float));
    dim3 grid((unsigned)ceil_div(g->S, 16 * WARPS * ROUNDS), (unsigned)g->N);
    LAUNCH(d, (update_mma<E, CP, TP>), grid, dim3(WARPS * 32), bytes, *g);
}

template <class E> static void start_16bit(dev *d, const update_args *g)
{
    if (g->C <= 64)
        g->T <= 8 ? start_mma<E, 64, 8>(d, g) : start_mma<E, 64, 16>(d, g);
    else
        g->T <= 8 ? start_mma<E, 256, 8>(d, g) : start_mma<E, 256, 16>(d, g);
}

template <class E> static void start_any(dev *d, const update_args *g)
{
    dim3 grid((unsigned)ceil_div(g->S, FEW), (unsigned)g->N);
    LAUNCH(d, (update_any<E>), grid, dim3(THREADS), (size_t)FEW * (size_t)(g->C + g->J + 2) * sizeof(float), *g);
}

extern "C" void CUDA_OP(image_update_fwd)(dev *d, tensor y, tensor x, tensor pe, tensor k, tensor kb, tensor v,
                                          tensor vb, tensor w, tensor b, image_update_options o)
{
    update_args g;
    memset(&g, 0, sizeof g);
    g.x = x.data, g.pe = pe.data, g.k = k.data, g.kb = kb.data, g.v = v.data, g.y = y.data;
    g.vb = (const float *)vb.data, g.w = (const float *)w.data, g.b = (const float *)b.data;
    g.x_n = x.stride[0], g.x_s = x.stride[1], g.pe_s = pe.stride[0], g.y_n = y.stride[0], g.y_s = y.stride[1];
    g.k_n = k.stride[0], g.k_j = k.stride[1], g.kb_n = kb.stride[0], g.v_n = v.stride[0], g.v_j = v.stride[1];
    g.N = (int)x.dim[0], g.S = (int)x.dim[1], g.C = (int)x.dim[2], g.J = (int)k.dim[1];
    g.H = o.heads, g.T = g.J / o.heads;
    g.eps = o.eps;
    bool wide = g.C % 8 == 0 && rows_aligned(&x) && rows_aligned(&pe) && rows_aligned(&k) && rows_aligned(&v) &&
                rows_aligned(&y);
    bool fits = g.C <= 256 && g.T <= 16 && g.H * (g.T <= 8 ? 8 : 16) <= COLUMNS;
    if (x.type == DT_F32 || !wide || !fits)
        WITH_TYPE(x.type, E, start_any<E>(d, &g))
    else if (x.type == DT_BF16)
        start_16bit<bf16>(d, &g);
    else
        start_16bit<f16>(d, &g);
}

extern "C" void CUDA_OP(image_pool_fwd)(dev *d, tensor y, tensor lse, tensor x, tensor pe, tensor a)
{
    attention_args g;
    memset(&g, 0, sizeof g);
    if (x.dim[2] > 256) {
        dev_fail(d, SCA_ERR_UNSUPPORTED, "op_image_pool_fwd of %lld channels: this device takes at most 256",
                 (long long)x.dim[2]);
        return;
    }
    g.q = a.data, g.k = x.data, g.v = pe.data, g.y = y.data;
    g.at_q.b = a.stride[0], g.at_q.row = a.stride[1], g.at_q.wide = rows_aligned(&a);
    g.at_k.b = x.stride[0], g.at_k.row = x.stride[1], g.at_k.wide = rows_aligned(&x);
    g.at_v.row = pe.stride[0], g.at_v.wide = rows_aligned(&pe);
    g.at_y.b = y.stride[0], g.at_y.row = y.stride[1], g.at_y.wide = rows_aligned(&y);
    if (tensor_given(lse)) g.lse = (float *)lse.data, g.lse_b = lse.stride[0], g.lse_row = 1;
    g.Tq = (int)a.dim[1], g.Tk = (int)x.dim[1], g.H = g.group = 1, g.D = (int)x.dim[2];
    g.units = g.units_x = g.width = 1;
    g.scale = 1;
    g.pool = true;
    if (x.type == DT_F32)
        cuda_attention_f32_launch(d, &g, x.dim[0]);
    else
        cuda_attention_mma_launch(d, &g, x.type, x.dim[0]);
}
