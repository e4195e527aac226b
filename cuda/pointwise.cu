/* pointwise.cu - element by element: activation, silu * u, add, threshold, copy, fill; any strides, up to 4 axes.
 *
 * A thread owns 8 elements of a row (16-byte accesses) when every row of every tensor is 16-byte aligned, else one;
 * neighbours own what lies beside it. Axes that lie behind one another in all tensors are joined first, so that most
 * calls are one long row. No shared memory; 20 to 40 registers. Bytes: each tensor once, so memory bounds all of them
 * (add in bf16: 6 bytes for one FLOP). Arithmetic in f32, one rounding at the store.
 * The element type is looked at while the kernel runs: a branch that every thread takes alike, once per 8 elements;
 * three types to the power of three tensors would be 27 kernels each.
 */
#include "cuda/kernel.cuh"

enum { THREADS = 256, MOST = 3 }; /* tensors of one op */

/* Where the pieces lie. Axis 3 is contiguous; its length counts pieces of `step` elements. */
struct walk {
    int64_t pieces, n; /* n: elements, of which the last piece of a flat walk may have fewer */
    int64_t dim[4], stride[MOST][4];
    void *data[MOST];
    dtype type[MOST];
};

template <bool flat, int step>
static __device__ __forceinline__ void find(const walk &w, int64_t piece, int64_t (&at)[MOST])
{
    if (flat) {
        for (int t = 0; t < MOST; t++) at[t] = piece * step;
        return;
    }
    int64_t i3 = piece % w.dim[3], row = piece / w.dim[3];
    int64_t i2 = row % w.dim[2], rest = row / w.dim[2];
    int64_t i1 = rest % w.dim[1], i0 = rest / w.dim[1];
    for (int t = 0; t < MOST; t++)
        at[t] = i0 * w.stride[t][0] + i1 * w.stride[t][1] + i2 * w.stride[t][2] + i3 * step;
}

/* What is computed of one element. */
enum work { DO_ACTIVATION, DO_SILU_MUL, DO_ADD, DO_CONVERT };

template <work what> static __device__ __forceinline__ float compute(float a, float b, activation act)
{
    if (what == DO_ACTIVATION) return activate(act, a);
    if (what == DO_SILU_MUL) return a / (1 + expf(-a)) * b;
    if (what == DO_ADD) return a + b;
    return a;
}

/* y = what(a, b): tensors 0, 1, 2 */
template <work what, bool flat, int step>
static __global__ void __launch_bounds__(THREADS) map(walk w, activation act)
{
    const bool two = what == DO_SILU_MUL || what == DO_ADD;
    int64_t jump = (int64_t)gridDim.x * THREADS;
    for (int64_t piece = (int64_t)blockIdx.x * THREADS + threadIdx.x; piece < w.pieces; piece += jump) {
        int64_t at[MOST];
        find<flat, step>(w, piece, at);
        if (step == 1 || (flat && at[0] + step > w.n)) { /* alone, or the last few */
            int64_t count = step == 1 ? 1 : w.n - at[0];
            for (int64_t i = 0; i < count; i++) {
                float a = load_any(w.data[1], w.type[1], at[1] + i);
                float b = two ? load_any(w.data[2], w.type[2], at[2] + i) : 0;
                store_any(w.data[0], w.type[0], at[0] + i, compute<what>(a, b, act));
            }
            continue;
        }
        float a[8], b[8] = { 0, 0, 0, 0, 0, 0, 0, 0 };
        load_any_8(w.data[1], w.type[1], at[1], a);
        if (two) load_any_8(w.data[2], w.type[2], at[2], b);
#pragma unroll
        for (int i = 0; i < 8; i++) a[i] = compute<what>(a[i], b[i], act);
        store_any_8(w.data[0], w.type[0], at[0], a);
    }
}

template <bool flat, int step> static __global__ void __launch_bounds__(THREADS) above(walk w, float limit)
{
    uint8_t *y = static_cast<uint8_t *>(w.data[0]);
    int64_t jump = (int64_t)gridDim.x * THREADS;
    for (int64_t piece = (int64_t)blockIdx.x * THREADS + threadIdx.x; piece < w.pieces; piece += jump) {
        int64_t at[MOST];
        find<flat, step>(w, piece, at);
        if (step == 1 || (flat && at[0] + step > w.n)) {
            int64_t count = step == 1 ? 1 : w.n - at[0];
            for (int64_t i = 0; i < count; i++) y[at[0] + i] = load_any(w.data[1], w.type[1], at[1] + i) > limit;
            continue;
        }
        float x[8];
        load_any_8(w.data[1], w.type[1], at[1], x);
        uint2 bits = make_uint2(0, 0);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            bits.x |= (unsigned)(x[i] > limit) << 8 * i;
            bits.y |= (unsigned)(x[i + 4] > limit) << 8 * i;
        }
        *reinterpret_cast<uint2 *>(y + at[0]) = bits;
    }
}

/* y = x bit by bit, or the same bits everywhere; U is a piece. */
template <class U, bool flat, bool fill> static __global__ void __launch_bounds__(THREADS) move(walk w, U bits)
{
    int64_t jump = (int64_t)gridDim.x * THREADS;
    for (int64_t piece = (int64_t)blockIdx.x * THREADS + threadIdx.x; piece < w.pieces; piece += jump) {
        int64_t at[MOST];
        find<flat, 1>(w, piece, at);
        static_cast<U *>(w.data[0])[at[0]] = fill ? bits : static_cast<const U *>(w.data[1])[at[1]];
    }
}

/* ---- where the pieces lie: on the host ------------------------------------------------------------------------------ */

static void put_axes(walk *w, int t, const tensor *x)
{
    int lead = 4 - x->ndim;
    for (int i = 0; i < 4; i++) w->stride[t][i] = i < lead ? 0 : x->stride[i - lead];
    w->data[t] = x->data;
    w->type[t] = x->type;
}

/* Joins axis i with the one before where every tensor allows it. */
static bool join(walk *w, int n, int i)
{
    for (int t = 0; t < n; t++)
        if (w->dim[i - 1] > 1 && w->stride[t][i - 1] != w->dim[i] * w->stride[t][i]) return false;
    w->dim[i] *= w->dim[i - 1];
    for (int k = i - 1; k > 0; k--) {
        w->dim[k] = w->dim[k - 1];
        for (int t = 0; t < n; t++) w->stride[t][k] = w->stride[t][k - 1];
    }
    w->dim[0] = 1;
    for (int t = 0; t < n; t++) w->stride[t][0] = 0;
    return true;
}

/* A walk over n tensors of one shape, in elements. */
static walk walk_of(int n, const tensor *const *x)
{
    walk w;
    memset(&w, 0, sizeof w);
    for (int i = 0; i < 4; i++) w.dim[i] = i < 4 - x[0]->ndim ? 1 : x[0]->dim[i - (4 - x[0]->ndim)];
    for (int t = 0; t < n; t++) {
        put_axes(&w, t, x[t]);
        w.stride[t][3] = 1;
    }
    for (int i = 3; i > 0; i--)
        for (int tries = 0; tries < 3 && join(&w, n, i); tries++) continue;
    w.n = w.pieces = w.dim[0] * w.dim[1] * w.dim[2] * w.dim[3];
    return w;
}

static bool is_flat(const walk *w) { return w->dim[0] * w->dim[1] * w->dim[2] == 1; }

/* Pieces of `step` elements, each `alignment` bytes or more apart in every tensor, when rows allow it. */
static bool widen(walk *w, int n, int step, const size_t *alignment)
{
    for (int t = 0; t < n; t++) {
        int64_t bytes = (int64_t)dtype_bytes(w->type[t]);
        if ((uintptr_t)w->data[t] % alignment[t]) return false;
        for (int i = 0; i < 3; i++)
            if (w->dim[i] > 1 && w->stride[t][i] * bytes % (int64_t)alignment[t]) return false;
    }
    if (!is_flat(w) && w->dim[3] % step) return false;
    w->dim[3] = ceil_div(w->dim[3], step);
    w->pieces = w->dim[0] * w->dim[1] * w->dim[2] * w->dim[3];
    return true;
}

/* ---- launchers -------------------------------------------------------------------------------------------------------- */

template <work what> static void launch_map(dev *d, int n, const tensor *const *x, activation act)
{
    static const size_t alignment[MOST] = { 16, 16, 16 };
    walk w = walk_of(n, x);
    bool wide = widen(&w, n, 8, alignment);
    unsigned grid = grid_for(d, w.pieces, THREADS);
    if (is_flat(&w) && wide)
        LAUNCH(d, (map<what, true, 8>), grid, THREADS, 0, w, act);
    else if (is_flat(&w))
        LAUNCH(d, (map<what, true, 1>), grid, THREADS, 0, w, act);
    else if (wide)
        LAUNCH(d, (map<what, false, 8>), grid, THREADS, 0, w, act);
    else
        LAUNCH(d, (map<what, false, 1>), grid, THREADS, 0, w, act);
}

extern "C" void CUDA_OP(activation_fwd)(dev *d, tensor y, tensor x, activation act)
{
    const tensor *all[] = { &y, &x };
    launch_map<DO_ACTIVATION>(d, 2, all, act);
}

extern "C" void CUDA_OP(silu_mul_fwd)(dev *d, tensor y, tensor x, tensor u)
{
    const tensor *all[] = { &y, &x, &u };
    launch_map<DO_SILU_MUL>(d, 3, all, ACT_NONE);
}

extern "C" void CUDA_OP(add_fwd)(dev *d, tensor y, tensor a, tensor b)
{
    const tensor *all[] = { &y, &a, &b };
    launch_map<DO_ADD>(d, 3, all, ACT_NONE);
}

extern "C" void CUDA_OP(threshold_fwd)(dev *d, tensor y, tensor x, float t)
{
    static const size_t alignment[MOST] = { 8, 16, 16 };
    const tensor *all[] = { &y, &x };
    walk w = walk_of(2, all);
    bool wide = widen(&w, 2, 8, alignment);
    unsigned grid = grid_for(d, w.pieces, THREADS);
    if (is_flat(&w) && wide)
        LAUNCH(d, (above<true, 8>), grid, THREADS, 0, w, t);
    else if (is_flat(&w))
        LAUNCH(d, (above<true, 1>), grid, THREADS, 0, w, t);
    else if (wide)
        LAUNCH(d, (above<false, 8>), grid, THREADS, 0, w, t);
    else
        LAUNCH(d, (above<false, 1>), grid, THREADS, 0, w, t);
}

/* Pieces of sizeof(U) bytes: the strides are made to count them. */
template <class U, bool fill> static void launch_move(dev *d, walk w, int n, U bits)
{
    int64_t step = (int64_t)(sizeof(U) / dtype_bytes(w.type[0]));
    for (int t = 0; t < n; t++)
        for (int i = 0; i < 3; i++)
            w.stride[t][i] /= step; /* of an axis of 1 it may be no multiple, and is not used */
    unsigned grid = grid_for(d, w.pieces, THREADS);
    if (is_flat(&w))
        LAUNCH(d, (move<U, true, fill>), grid, THREADS, 0, w, bits);
    else
        LAUNCH(d, (move<U, false, fill>), grid, THREADS, 0, w, bits);
}

/* 16 bytes at a time where all rows allow it; the last few of a flat walk alone would need another kernel. */
static bool widen_move(walk *w, int n)
{
    static const size_t alignment[MOST] = { 16, 16, 16 };
    int step = (int)(16 / dtype_bytes(w->type[0]));
    return w->dim[3] % step == 0 && widen(w, n, step, alignment);
}

extern "C" void CUDA_OP(copy)(dev *d, tensor y, tensor x)
{
    const tensor *all[] = { &y, &x };
    if (y.type != x.type) return launch_map<DO_CONVERT>(d, 2, all, ACT_NONE);
    walk w = walk_of(2, all);
    if (widen_move(&w, 2)) return launch_move<uint4, false>(d, w, 2, make_uint4(0, 0, 0, 0));
    switch (dtype_bytes(y.type)) {
    case 1: launch_move<uint8_t, false>(d, w, 2, 0); break;
    case 2: launch_move<uint16_t, false>(d, w, 2, 0); break;
    case 4: launch_move<uint32_t, false>(d, w, 2, 0); break;
    default: dev_fail(d, SCA_ERR_UNSUPPORTED, "op_copy: %s on a GPU", dtype_name(y.type));
    }
}

extern "C" void CUDA_OP(fill)(dev *d, tensor y, double value)
{
    const tensor *all[] = { &y };
    uint32_t bits = 0;
    if (y.type == DT_I32)
        bits = (uint32_t)(int32_t)value;
    else
        dtype_convert(y.type, &bits, DT_F64, &value, 1);
    walk w = walk_of(1, all);
    bool narrow = dtype_bytes(y.type) == 2;
    uint32_t word = narrow ? bits | bits << 16 : bits;
    if (dtype_bytes(y.type) > 4)
        dev_fail(d, SCA_ERR_UNSUPPORTED, "op_fill: %s on a GPU", dtype_name(y.type));
    else if (widen_move(&w, 1))
        launch_move<uint4, true>(d, w, 1, make_uint4(word, word, word, word));
    else if (narrow)
        launch_move<uint16_t, true>(d, w, 1, (uint16_t)bits);
    else
        launch_move<uint32_t, true>(d, w, 1, word);
}
