/* attention.cu - the ops attention_fwd and relpos_attention_fwd, and the kernel for few queries per sequence.
 *
 *   fewer than 16 queries per sequence        here: one warp per query (decoding, tokens of the two-way blocks);
 *   or dropout                                and whatever drops probabilities
 *   16-bit activations                        attention_mma.cu
 *   F32 activations                           attention_f32.cu, exact
 *   with attention=cudnn: what it takes       cudnn.c, before all of these
 *
 * A query's bits depend on its own keys and on how many queries its sequence has, never on other sequences.
 */
#include "cuda/attention.cuh"

#include "base/rng.h"

enum { WARPS = 4, FEW = 16 };

/* rng_dropped, but the word is chosen without an address, which would put the block into local memory. */
static __device__ __forceinline__ bool is_dropped(const attention_args &g, uint64_t index)
{
    rng_block b = rng_philox(g.drop_key, index / 4, 0);
    uint32_t low = index & 1 ? b.word[1] : b.word[0], high = index & 1 ? b.word[3] : b.word[2];
    return (index & 2 ? high : low) < g.drop_limit;
}

/* One warp per query: 8 lanes share a key (lane p of them the elements 8 p .. 8 p + 7, and 64 further on), 4 keys at
 * a time; every group of 8 lanes keeps its own running softmax, the four are joined at the end. Bytes of k and v
 * once per query: meant for some tens of keys. PARTS: runs of 64 elements in D. */
template <class T, int PARTS>
__global__ void __launch_bounds__(WARPS * 32, 1) attention_rows(attention_args g, int64_t queries)
{
    int64_t id = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
    if (id >= queries) return;
    int lane = (int)threadIdx.x % 32, i = (int)(id % g.Tq), d0 = lane % 8 * 8;
    attention_place p = {};
    p.h = (int)(id / g.Tq % g.H);
    p.b = (int)(id / g.Tq / g.H);
    float q[PARTS][8], o[PARTS][8], x[8], top = -INFINITY, total = 0;
    const T *from = (const T *)g.q + attention_offset(g.at_q, p, i, 0, p.b, p.h);
    auto load = [&](const T *row, bool wide, int d, float(&to)[8]) {
        if (wide && d + 8 <= g.D) {
            load_8(row + d, to);
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++) to[e] = d + e < g.D ? to_f32(row[d + e]) : 0;
        }
    };
#pragma unroll
    for (int n = 0; n < PARTS; n++) {
        load(from, g.at_q.wide, d0 + 64 * n, q[n]);
#pragma unroll
        for (int e = 0; e < 8; e++) o[n][e] = 0;
    }
    int keys = attention_keys(g, i);
    for (int j0 = 0; j0 < keys; j0 += 4) {
        int j = j0 + lane / 8;
        bool seen = j < keys && (!g.index || g.index[p.b * g.index_b + j] >= 0); /* the sequence may end before */
        if (!__any_sync(FULL_WARP, seen)) break;
        float s = 0;
        if (seen) {
            const T *k = attention_key(g, p, (const T *)g.k, g.at_k, j);
#pragma unroll
            for (int n = 0; n < PARTS; n++) {
                load(k, g.at_k.wide, d0 + 64 * n, x);
#pragma unroll
                for (int e = 0; e < 8; e++) s = fmaf(q[n][e], x[e], s);
            }
        }
#pragma unroll
        for (int bits = 1; bits < 8; bits *= 2) s += __shfl_xor_sync(FULL_WARP, s, bits);
        if (!seen) continue;
        s *= g.scale;
        float most = fmaxf(top, s), fade = expf(top - most), weight = expf(s - most);
        const T *v = attention_key(g, p, (const T *)g.v, g.at_v, j);
        top = most;
        total = total * fade + weight;
        if (g.drop_limit) {
            int64_t row = ((g.drop_first + p.b) * g.H + p.h) * g.Tq + i;
            if (is_dropped(g, (uint64_t)(row * ((g.Tk + 3) / 4 * 4) + j))) weight = 0;
        }
#pragma unroll
        for (int n = 0; n < PARTS; n++) {
            load(v, g.at_v.wide, d0 + 64 * n, x);
#pragma unroll
            for (int e = 0; e < 8; e++) o[n][e] = fmaf(weight, x[e], o[n][e] * fade);
        }
    }
    __syncwarp();
#pragma unroll
    for (int bits = 8; bits < 32; bits *= 2) {
        float other = __shfl_xor_sync(FULL_WARP, top, bits), most = fmaxf(top, other);
        float mine = top > -INFINITY ? expf(top - most) : 0;
        top = most;
        total *= mine;
        total += __shfl_xor_sync(FULL_WARP, total, bits);
#pragma unroll
        for (int n = 0; n < PARTS; n++)
#pragma unroll
            for (int e = 0; e < 8; e++) {
                o[n][e] *= mine;
                o[n][e] += __shfl_xor_sync(FULL_WARP, o[n][e], bits);
            }
    }
    if (lane == 0 && g.lse) g.lse[p.b * g.lse_b + p.h * g.lse_h + i] = top + logf(total);
    if (lane >= 8) return;
    T *to = (T *)g.y + attention_offset(g.at_y, p, i, 0, p.b, p.h);
    float share = (g.drop_limit ? g.drop_scale : 1) / total;
#pragma unroll
    for (int n = 0; n < PARTS; n++) {
#pragma unroll
        for (int e = 0; e < 8; e++) o[n][e] *= share;
        int d = d0 + 64 * n;
        if (g.at_y.wide && d + 8 <= g.D) {
            store_8(to + d, o[n]);
        } else {
#pragma unroll
            for (int e = 0; e < 8; e++)
                if (d + e < g.D) to[d + e] = from_f32<T>(o[n][e]);
        }
    }
}

template <class T> static void start_rows(dev *d, const attention_args *g, int64_t B)
{
    int64_t queries = B * g->H * g->Tq;
    dim3 grid((unsigned)ceil_div(queries, WARPS)), block(WARPS * 32);
    if (g->D <= 64)
        LAUNCH(d, (attention_rows<T, 1>), grid, block, 0, *g, queries);
    else if (g->D <= 128)
        LAUNCH(d, (attention_rows<T, 2>), grid, block, 0, *g, queries);
    else
        LAUNCH(d, (attention_rows<T, 4>), grid, block, 0, *g, queries);
}

/* ---- the ops ------------------------------------------------------------------------------------------------------------ */

static bool is_wide(const void *p, dtype type, const int64_t *stride, const int64_t *dim, int n)
{
    bool wide = (uintptr_t)p % 16 == 0;
    for (int i = 0; i < n; i++) wide = wide && (dim[i] == 1 || stride[i] * (int64_t)dtype_bytes(type) % 16 == 0);
    return wide;
}

/* (B,T,H,D) */
static attention_side side_of(tensor t)
{
    attention_side s;
    s.b = t.stride[0], s.row = t.stride[1], s.h = t.stride[2], s.column = 0;
    s.wide = is_wide(t.data, t.type, t.stride, t.dim, 3);
    return s;
}

/* The head h of a map whose last axis is [..][H][D], `from` elements into it. */
static attention_side map_side(tensor t, int64_t from, int64_t D)
{
    attention_side s;
    s.b = t.stride[0], s.row = t.stride[1], s.column = t.stride[2], s.h = D;
    const char *start = (const char *)t.data + from * (int64_t)dtype_bytes(t.type);
    s.wide = is_wide(start, t.type, t.stride, t.dim, 3) && D * (int64_t)dtype_bytes(t.type) % 16 == 0;
    return s;
}

enum { MOST_HEAD = 256 };

static bool head_fits(dev *d, int64_t D)
{
    if (D <= MOST_HEAD) return true;
    dev_fail(d, SCA_ERR_UNSUPPORTED, "attention with heads of %lld elements: this device takes at most %d",
             (long long)D, MOST_HEAD);
    return false;
}

static void start(dev *d, attention_args *g, dtype type, int64_t B)
{
    if (type == DT_F32)
        cuda_attention_f32_launch(d, g, B);
    else
        cuda_attention_mma_launch(d, g, type, B);
}

extern "C" void CUDA_OP(attention_fwd)(dev *d, tensor y, tensor lse, tensor q, tensor k, tensor v, tensor index,
                                       attention_options o)
{
    attention_args g;
    memset(&g, 0, sizeof g);
    if (!head_fits(d, q.dim[3]) || cuda_cudnn_attention(d, y, lse, q, k, v, index, o)) return;
    g.q = q.data, g.k = k.data, g.v = v.data, g.y = y.data;
    g.at_q = side_of(q), g.at_k = side_of(k), g.at_v = side_of(v), g.at_y = side_of(y);
    if (tensor_given(lse))
        g.lse = (float *)lse.data, g.lse_b = lse.stride[0], g.lse_h = lse.stride[1], g.lse_row = 1;
    if (tensor_given(index)) g.index = (const int32_t *)index.data, g.index_b = index.stride[0];
    g.Tq = (int)q.dim[1], g.Tk = (int)k.dim[1], g.H = (int)q.dim[2], g.D = (int)q.dim[3];
    g.group = (int)(q.dim[2] / k.dim[2]);
    g.units = g.units_x = g.width = 1;
    g.scale = o.scale;
    g.causal = o.causal;
    if (o.drop.rate > 0) {
        g.drop_limit = rng_limit(o.drop.rate), g.drop_key = o.drop.key, g.drop_first = o.drop.first;
        g.drop_scale = 1 / (1 - o.drop.rate);
    }
    if (g.Tq < FEW || g.drop_limit)
        WITH_TYPE(q.type, T, start_rows<T>(d, &g, q.dim[0]))
    else
        start(d, &g, q.type, q.dim[0]);
}

extern "C" void CUDA_OP(relpos_attention_fwd)(dev *d, tensor y, tensor lse, tensor qkv, tensor pad, tensor rel_h,
                                              tensor rel_w, relpos_options o)
{
    attention_args g;
    memset(&g, 0, sizeof g);
    int64_t C = y.dim[3], D = C / o.heads, bytes = (int64_t)dtype_bytes(y.type);
    if (!head_fits(d, D)) return;
    g.q = qkv.data, g.k = (const char *)qkv.data + C * bytes, g.v = (const char *)qkv.data + 2 * C * bytes;
    g.y = y.data;
    g.at_q = map_side(qkv, 0, D), g.at_k = map_side(qkv, C, D), g.at_v = map_side(qkv, 2 * C, D);
    g.at_y = map_side(y, 0, D);
    if (tensor_given(lse)) {
        g.lse = (float *)lse.data;
        g.lse_b = lse.stride[0], g.lse_h = lse.stride[1], g.lse_row = lse.stride[2];
    }
    if (tensor_given(pad)) g.pad = (const float *)pad.data;
    if (tensor_given(rel_h)) {
        g.rel_h = (const float *)rel_h.data, g.rel_h_ld = rel_h.stride[0];
        g.rel_w = (const float *)rel_w.data, g.rel_w_ld = rel_w.stride[0];
    }
    g.H = o.heads, g.group = 1, g.D = (int)D;
    g.map_h = (int)y.dim[1], g.map_w = (int)y.dim[2], g.window = o.window;
    g.side_h = o.window ? o.window : g.map_h, g.side_w = o.window ? o.window : g.map_w;
    g.width = g.side_w;
    g.width_magic =
        g.width == 1 ? 0 : (unsigned)((((uint64_t)1 << 32) + (unsigned)g.width - 1) / (unsigned)g.width);
    g.Tq = g.Tk = g.side_h * g.side_w;
    g.units_x = o.window ? (g.map_w + o.window - 1) / o.window : 1;
    g.units = o.window ? g.units_x * ((g.map_h + o.window - 1) / o.window) : 1;
    g.scale = o.scale;
    start(d, &g, y.type, y.dim[0]);
}
