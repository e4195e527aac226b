/* ops.c - the contracts of ops.def as code, the trampolines, and the list of devices. */
#include "ops/args.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- words of the contracts ----------------------------------------------------------------------------- */

#define NEED(condition)                                                                                            \
    do {                                                                                                           \
        if (!(condition)) return #condition;                                                                       \
    } while (0)

static bool rows(tensor t, int ndim) { return t.ndim == ndim && t.layout == LAYOUT_ROWS; }

static dtype small_type(const dev *d) { return d->kind->act == DT_F64 ? DT_F64 : DT_F32; }

/* A */
static bool is_act(const dev *d, tensor t, int ndim) { return t.type == d->kind->act && rows(t, ndim); }

/* P, and F: the same types */
static bool is_small(const dev *d, tensor t, int ndim) { return t.type == small_type(d) && rows(t, ndim); }

static bool is_stat(const dev *d, tensor t, int ndim) { return is_small(d, t, ndim); }

/* W */
static bool is_weight(const dev *d, tensor t)
{
    if (t.layout == LAYOUT_PANELS && !d->kind->panel_bytes) return false;
    if (d->kind->act == DT_F64) return t.type == DT_F64;
    return t.type == DT_F32 || t.type == DT_F16 || t.type == DT_BF16;
}

static bool is_weight_rows(const dev *d, tensor t) { return is_weight(d, t) && t.layout == LAYOUT_ROWS; }

static bool is_ids(tensor t, int ndim) { return t.type == DT_I32 && rows(t, ndim); }

static bool shape1(tensor t, int64_t a) { return t.ndim == 1 && t.dim[0] == a; }

static bool shape2(tensor t, int64_t a, int64_t b) { return t.ndim == 2 && t.dim[0] == a && t.dim[1] == b; }

static bool shape3(tensor t, int64_t a, int64_t b, int64_t c)
{
    return t.ndim == 3 && t.dim[0] == a && t.dim[1] == b && t.dim[2] == c;
}

static bool shape4(tensor t, int64_t a, int64_t b, int64_t c, int64_t e)
{
    return t.ndim == 4 && t.dim[0] == a && t.dim[1] == b && t.dim[2] == c && t.dim[3] == e;
}

/* (first, rest) once the axes after the first are joined, which rows can be only when those are contiguous */
static bool is_matrix(tensor w, int64_t first, int64_t rest)
{
    if (w.ndim < 2 || w.dim[0] != first || tensor_count(w) / w.dim[0] != rest) return false;
    int64_t stride = 1;
    for (int i = w.ndim - 1; i >= 1 && w.layout == LAYOUT_ROWS; i--) {
        if (w.dim[i] > 1 && w.stride[i] != stride) return false;
        stride *= w.dim[i];
    }
    return true;
}

static bool absent(tensor t) { return !tensor_given(t); }

static bool is_activation(activation a) { return a <= ACT_GELU_TANH; }

static bool is_dropout(dropout_options o) { return o.rate >= 0 && o.rate < 1 && o.first >= 0; }

/* Values can only be looked at where the host can; there an index out of range would leave the table. */
static bool ids_within(const dev *d, tensor t, int64_t least, int64_t limit, int64_t except)
{
    if (!d->kind->host_memory) return true;
    int64_t outer = t.ndim == 2 ? t.dim[0] : 1, inner = t.dim[t.ndim - 1];
    for (int64_t i = 0; i < outer; i++) {
        const int32_t *row = (const int32_t *)t.data + (t.ndim == 2 ? i * t.stride[0] : 0);
        for (int64_t j = 0; j < inner; j++)
            if ((row[j] < least || row[j] >= limit) && row[j] != except) return false;
    }
    return true;
}

/* Rows of keys: each sequence has at least one; only where they `may_end` there is -1. */
static bool keys_within(const dev *d, tensor index, int64_t limit, bool may_end)
{
    return ids_within(d, tensor_slice(index, 1, 0, 1), 0, limit, 0) &&
           ids_within(d, index, 0, limit, may_end ? -1 : 0);
}

/* ---- one check per op: NULL, or the condition that does not hold ------------------------------------------- */

static const char *check_linear_fwd(const dev *d, tensor y, tensor x, tensor w, tensor b, tensor r,
                                    linear_options o)
{
    NEED(is_act(d, y, 2) && is_act(d, x, 2) && is_weight(d, w));
    NEED(y.dim[0] == x.dim[0]);
    int64_t N = y.dim[1], K = x.dim[1];
    if (o.in_out)
        NEED(is_matrix(w, K, N));
    else
        NEED(is_matrix(w, N, K));
    NEED(absent(b) || (is_small(d, b, 1) && shape1(b, N)));
    NEED(absent(r) || (is_act(d, r, 2) && tensor_same_shape(r, y)));
    NEED(is_activation(o.act));
    return NULL;
}

static const char *check_pack(const dev *d, tensor y, tensor w, bool in_out)
{
    (void)in_out;
    NEED(d->kind->panel_bytes);
    NEED(is_weight(d, y) && y.layout == LAYOUT_PANELS && is_weight_rows(d, w));
    NEED(tensor_same_shape(y, w) && is_matrix(w, w.dim[0], tensor_count(w) / w.dim[0]));
    return NULL;
}

static const char *check_matmul_fwd(const dev *d, tensor y, tensor a, tensor b, matmul_options o)
{
    int n = y.ndim;
    NEED(n >= 2);
    NEED(is_act(d, y, n) && is_act(d, a, n) && (is_act(d, b, n) || is_weight_rows(d, b)) && b.ndim == n);
    for (int i = 0; i < n - 2; i++) NEED(a.dim[i] == y.dim[i] && b.dim[i] == y.dim[i]);
    int64_t M = y.dim[n - 2], N = y.dim[n - 1], K = a.dim[n - 1];
    NEED(a.dim[n - 2] == M);
    NEED(b.dim[o.trans_b ? n - 2 : n - 1] == N && b.dim[o.trans_b ? n - 1 : n - 2] == K);
    NEED(isfinite(o.alpha));
    return NULL;
}

static const char *check_layernorm_fwd(const dev *d, tensor y, tensor mean, tensor rstd, tensor x, tensor w,
                                       tensor b, float eps)
{
    NEED(is_act(d, y, 2) && is_act(d, x, 2) && tensor_same_shape(y, x));
    NEED(is_small(d, w, 1) && is_small(d, b, 1) && shape1(w, x.dim[1]) && shape1(b, x.dim[1]));
    NEED(absent(mean) || (is_stat(d, mean, 1) && shape1(mean, x.dim[0])));
    NEED(absent(rstd) || (is_stat(d, rstd, 1) && shape1(rstd, x.dim[0])));
    NEED(eps >= 0 && isfinite(eps));
    return NULL;
}

static const char *check_rmsnorm_fwd(const dev *d, tensor y, tensor rstd, tensor x, tensor w, float eps)
{
    NEED(is_act(d, y, 2) && is_act(d, x, 2) && tensor_same_shape(y, x));
    NEED(is_small(d, w, 1) && shape1(w, x.dim[1]));
    NEED(absent(rstd) || (is_stat(d, rstd, 1) && shape1(rstd, x.dim[0])));
    NEED(eps >= 0 && isfinite(eps));
    return NULL;
}

static const char *check_activation_fwd(const dev *d, tensor y, tensor x, activation act)
{
    NEED(is_act(d, y, y.ndim) && is_act(d, x, x.ndim) && tensor_same_shape(y, x));
    NEED(is_activation(act));
    return NULL;
}

static const char *check_silu_mul_fwd(const dev *d, tensor y, tensor x, tensor u)
{
    NEED(is_act(d, y, 2) && is_act(d, x, 2) && is_act(d, u, 2));
    NEED(tensor_same_shape(y, x) && tensor_same_shape(y, u));
    return NULL;
}

static const char *check_add_fwd(const dev *d, tensor y, tensor a, tensor b)
{
    NEED(is_act(d, y, y.ndim));
    NEED(is_act(d, a, a.ndim) || is_weight_rows(d, a));
    NEED(is_act(d, b, b.ndim) || is_weight_rows(d, b));
    NEED(tensor_same_shape(y, a) && tensor_same_shape(y, b));
    return NULL;
}

static const char *check_copy(const dev *d, tensor y, tensor x)
{
    (void)d;
    NEED(rows(y, y.ndim) && rows(x, x.ndim) && tensor_same_shape(y, x));
    NEED(y.type == x.type || (dtype_is_float(y.type) && dtype_is_float(x.type)));
    return NULL;
}

static const char *check_place(const dev *d, tensor y, tensor x, tensor at)
{
    NEED(is_act(d, y, 3) && is_act(d, x, 2) && is_ids(at, 1));
    NEED(x.dim[0] == y.dim[0] && x.dim[1] == y.dim[2] && shape1(at, y.dim[0]));
    NEED(ids_within(d, at, 0, y.dim[1], 0));
    return NULL;
}

static const char *check_fill(const dev *d, tensor y, double value)
{
    (void)d;
    NEED(rows(y, y.ndim));
    NEED(dtype_is_float(y.type) || (y.type == DT_I32 && value >= INT32_MIN && value <= INT32_MAX));
    return NULL;
}

static const char *check_embedding_fwd(const dev *d, tensor y, tensor table, tensor ids)
{
    NEED(is_act(d, y, 2) && is_weight(d, table) && table.ndim == 2 && is_ids(ids, 1));
    NEED(y.dim[0] == ids.dim[0] && y.dim[1] == table.dim[1]);
    NEED(ids_within(d, ids, 0, table.dim[0], 0));
    return NULL;
}

static const char *check_rope_fwd(const dev *d, tensor y, tensor x, tensor at, rope_options o)
{
    NEED(is_act(d, y, 4) && is_act(d, x, 4) && tensor_same_shape(y, x));
    NEED(x.dim[3] % 2 == 0);
    NEED(absent(at) || (is_ids(at, 1) && shape1(at, x.dim[0]) && ids_within(d, at, 0, INT32_MAX, 0)));
    NEED(o.first >= 0 && o.theta > 0 && isfinite(o.theta));
    return NULL;
}

static const char *check_attention_fwd(const dev *d, tensor y, tensor lse, tensor q, tensor k, tensor v,
                                       tensor index, attention_options o)
{
    NEED(is_act(d, y, 4) && is_act(d, q, 4) && is_act(d, k, 4) && is_act(d, v, 4));
    NEED(tensor_same_shape(y, q) && tensor_same_shape(k, v) && k.dim[3] == q.dim[3]);
    NEED(q.dim[2] % k.dim[2] == 0);
    NEED(absent(lse) || (is_stat(d, lse, 3) && shape3(lse, q.dim[0], q.dim[2], q.dim[1])));
    if (absent(index))
        NEED(k.dim[0] == q.dim[0]);
    else
        NEED(is_ids(index, 2) && shape2(index, q.dim[0], k.dim[1]) &&
             keys_within(d, index, k.dim[0], q.dim[1] == 1));
    NEED(isfinite(o.scale) && is_dropout(o.drop) && (absent(index) || o.drop.rate == 0));
    NEED(!o.causal || k.dim[1] >= q.dim[1]);
    return NULL;
}

static const char *check_relpos_attention_fwd(const dev *d, tensor y, tensor lse, tensor qkv, tensor pad,
                                              tensor rel_h, tensor rel_w, relpos_options o)
{
    NEED(is_act(d, y, 4) && is_act(d, qkv, 4));
    int64_t B = y.dim[0], h = y.dim[1], w = y.dim[2], C = y.dim[3];
    NEED(o.heads >= 1 && C % o.heads == 0 && o.window >= 0 && isfinite(o.scale));
    NEED(shape4(qkv, B, h, w, 3 * C));
    NEED(absent(pad) || (is_small(d, pad, 1) && shape1(pad, 3 * C)));
    NEED(absent(rel_h) == absent(rel_w));
    int64_t side_h = o.window ? o.window : h, side_w = o.window ? o.window : w, D = C / o.heads;
    NEED(absent(rel_h) || (is_small(d, rel_h, 2) && shape2(rel_h, 2 * side_h - 1, D)));
    NEED(absent(rel_w) || (is_small(d, rel_w, 2) && shape2(rel_w, 2 * side_w - 1, D)));
    NEED(absent(lse) || (is_stat(d, lse, 4) && shape4(lse, B, o.heads, h, w)));
    return NULL;
}

static const char *check_image_pool_fwd(const dev *d, tensor y, tensor lse, tensor x, tensor pe, tensor a)
{
    NEED(is_act(d, y, 3) && is_act(d, x, 3) && is_act(d, pe, 2) && is_act(d, a, 3));
    NEED(tensor_same_shape(y, a) && x.dim[0] == y.dim[0] && x.dim[2] == y.dim[2]);
    NEED(shape2(pe, x.dim[1], x.dim[2]));
    NEED(absent(lse) || (is_stat(d, lse, 2) && shape2(lse, y.dim[0], y.dim[1])));
    return NULL;
}

static const char *check_image_update_fwd(const dev *d, tensor y, tensor x, tensor pe, tensor k, tensor kb,
                                          tensor v, tensor vb, tensor w, tensor b, image_update_options o)
{
    NEED(is_act(d, y, 3) && is_act(d, x, 3) && tensor_same_shape(y, x));
    int64_t N = y.dim[0], S = y.dim[1], C = y.dim[2];
    NEED(is_act(d, pe, 2) && shape2(pe, S, C));
    NEED(is_act(d, k, 3) && is_act(d, v, 3) && tensor_same_shape(k, v) && k.dim[0] == N && k.dim[2] == C);
    NEED(o.heads >= 1 && k.dim[1] % o.heads == 0);
    NEED(is_act(d, kb, 2) && shape2(kb, N, k.dim[1]));
    NEED(is_small(d, vb, 1) && is_small(d, w, 1) && is_small(d, b, 1));
    NEED(shape1(vb, C) && shape1(w, C) && shape1(b, C));
    NEED(o.eps >= 0 && isfinite(o.eps));
    return NULL;
}

static const char *check_conv_fwd(const dev *d, tensor y, tensor x, tensor w, tensor b, conv_options o)
{
    NEED(is_act(d, y, 4) && is_act(d, x, 4) && is_weight(d, w) && w.ndim == 4);
    NEED(o.stride >= 1 && o.pad >= 0 && is_activation(o.act));
    int64_t H = x.dim[1] + 2 * o.pad - w.dim[2], W = x.dim[2] + 2 * o.pad - w.dim[3];
    NEED(H >= 0 && W >= 0);
    NEED(shape4(y, x.dim[0], H / o.stride + 1, W / o.stride + 1, w.dim[0]));
    NEED(x.dim[3] == w.dim[1] && is_matrix(w, w.dim[0], w.dim[1] * w.dim[2] * w.dim[3]));
    NEED(absent(b) || (is_small(d, b, 1) && shape1(b, w.dim[0])));
    return NULL;
}

static const char *check_conv_transpose_fwd(const dev *d, tensor y, tensor x, tensor w, tensor b)
{
    NEED(is_act(d, y, 4) && is_act(d, x, 4) && is_weight(d, w) && w.ndim == 4);
    NEED(w.dim[2] == w.dim[3] && x.dim[3] == w.dim[0]);
    NEED(shape4(y, x.dim[0], x.dim[1] * w.dim[2], x.dim[2] * w.dim[2], w.dim[1]));
    NEED(is_matrix(w, w.dim[0], w.dim[1] * w.dim[2] * w.dim[3]));
    NEED(absent(b) || (is_small(d, b, 1) && shape1(b, w.dim[1])));
    return NULL;
}

static const char *check_fourier_fwd(const dev *d, tensor y, tensor c, tensor g)
{
    NEED(is_act(d, y, 2) && is_stat(d, c, 2) && is_small(d, g, 2));
    NEED(g.dim[0] == 2 && shape2(c, y.dim[0], 2) && y.dim[1] == 2 * g.dim[1]);
    return NULL;
}

static const char *check_resize_fwd(const dev *d, tensor y, tensor x)
{
    NEED(is_act(d, y, 3) && is_act(d, x, 3) && y.dim[0] == x.dim[0]);
    return NULL;
}

/* As for ids_within: cells beyond this would take for ever. */
static bool boxes_within(const dev *d, tensor boxes, float scale)
{
    if (!d->kind->host_memory) return true;
    for (int64_t i = 0; i < boxes.dim[0]; i++)
        for (int64_t j = 0; j < 4; j++) {
            const void *row = (const char *)boxes.data + (size_t)(i * boxes.stride[0]) * dtype_bytes(boxes.type);
            double at = boxes.type == DT_F64 ? ((const double *)row)[j] : (double)((const float *)row)[j];
            if (!(fabs(at * (double)scale) <= 16384)) return false;
        }
    return true;
}

static const char *check_roi(const dev *d, tensor y, tensor x, tensor boxes, tensor index, float scale)
{
    NEED(is_act(d, y, 4) && is_act(d, x, 4) && y.dim[3] == x.dim[3]);
    NEED(is_stat(d, boxes, 2) && shape2(boxes, y.dim[0], 4));
    if (absent(index))
        NEED(x.dim[0] == 1);
    else
        NEED(is_ids(index, 1) && shape1(index, y.dim[0]) && ids_within(d, index, 0, x.dim[0], 0));
    NEED(scale > 0 && boxes_within(d, boxes, scale));
    return NULL;
}

static const char *check_roi_align_fwd(const dev *d, tensor y, tensor x, tensor boxes, tensor index, float scale)
{
    return check_roi(d, y, x, boxes, index, scale);
}

static const char *check_threshold_fwd(const dev *d, tensor y, tensor x, float t)
{
    NEED(y.type == DT_U8 && rows(y, y.ndim) && is_act(d, x, x.ndim) && tensor_same_shape(y, x));
    NEED(!isnan(t));
    return NULL;
}

static const char *check_log_softmax_fwd(const dev *d, tensor y, tensor x)
{
    NEED(is_stat(d, y, 2) && is_act(d, x, 2) && tensor_same_shape(y, x));
    return NULL;
}

static const char *check_argmax_fwd(const dev *d, tensor index, tensor value, tensor x)
{
    NEED((is_act(d, x, 2) || is_stat(d, x, 2)) && x.dim[1] <= INT32_MAX);
    NEED(is_ids(index, 1) && shape1(index, x.dim[0]));
    NEED(absent(value) || (is_stat(d, value, 1) && shape1(value, x.dim[0])));
    return NULL;
}

static const char *check_topk_fwd(const dev *d, tensor value, tensor index, tensor x)
{
    NEED((is_act(d, x, 2) || is_stat(d, x, 2)) && x.dim[1] <= INT32_MAX);
    NEED(is_stat(d, value, 2) && is_ids(index, 2) && tensor_same_shape(value, index));
    NEED(value.dim[0] == x.dim[0] && value.dim[1] <= x.dim[1]);
    return NULL;
}

static const char *check_sample_fwd(const dev *d, tensor index, tensor x, tensor u, sample_options o)
{
    NEED(is_act(d, x, 2) && x.dim[1] <= INT32_MAX && is_ids(index, 1) && is_stat(d, u, 1));
    NEED(shape1(index, x.dim[0]) && shape1(u, x.dim[0]));
    NEED(o.temperature > 0 && isfinite(o.temperature) && o.top_k >= 0 && o.top_p > 0 && o.top_p <= 1);
    return NULL;
}

static const char *check_cross_entropy_fwd(const dev *d, tensor loss, tensor lse, tensor x, tensor label,
                                           float smoothing)
{
    NEED(is_act(d, x, 2) && is_stat(d, loss, 1) && is_ids(label, 1));
    NEED(shape1(loss, x.dim[0]) && shape1(label, x.dim[0]));
    NEED(absent(lse) || (is_stat(d, lse, 1) && shape1(lse, x.dim[0])));
    NEED(ids_within(d, label, 0, x.dim[1], -100));
    NEED(smoothing >= 0 && smoothing <= 1);
    return NULL;
}

/* ---- training: a wanted gradient has its input's shape, and what it is made from is there ------------------- */

/* r: absent, or as dx when that is wanted */
static bool is_added(const dev *d, tensor r, tensor dx)
{
    return absent(r) || absent(dx) || (is_act(d, r, dx.ndim) && tensor_same_shape(r, dx));
}

/* The gradient of a small parameter of n numbers, if wanted */
static bool is_grad1(const dev *d, tensor g, int64_t n) { return absent(g) || (is_small(d, g, 1) && shape1(g, n)); }

/* An activation gradient, if wanted, of the shape of x */
static bool is_grad_of(const dev *d, tensor g, tensor x)
{
    return absent(g) || (is_act(d, g, x.ndim) && tensor_same_shape(g, x));
}

static const char *check_linear_bwd(const dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x, tensor w,
                                    tensor r, bool in_out)
{
    NEED(is_act(d, dy, 2));
    int64_t R = dy.dim[0], N = dy.dim[1];
    if (tensor_given(dx)) {
        int64_t K = dx.dim[1];
        NEED(is_act(d, dx, 2) && dx.dim[0] == R && is_weight(d, w));
        NEED(in_out ? is_matrix(w, K, N) : is_matrix(w, N, K));
    }
    if (tensor_given(dw)) {
        int64_t K = x.dim[1];
        NEED(is_act(d, x, 2) && x.dim[0] == R && is_small(d, dw, dw.ndim));
        NEED(in_out ? is_matrix(dw, K, N) : is_matrix(dw, N, K));
    }
    NEED(is_grad1(d, db, N));
    NEED(is_added(d, r, dx));
    return NULL;
}

static const char *check_matmul_bwd(const dev *d, tensor da, tensor db, tensor dy, tensor a, tensor b,
                                    matmul_options o, bool add)
{
    int n = dy.ndim;
    NEED(n >= 2 && is_act(d, dy, n) && isfinite(o.alpha));
    int64_t M = dy.dim[n - 2], N = dy.dim[n - 1];
    if (tensor_given(da)) {
        NEED(is_act(d, da, n) && (is_act(d, b, n) || is_weight_rows(d, b)) && b.ndim == n);
        for (int i = 0; i < n - 2; i++) NEED(da.dim[i] == dy.dim[i] && b.dim[i] == dy.dim[i]);
        NEED(da.dim[n - 2] == M && b.dim[o.trans_b ? n - 2 : n - 1] == N);
        NEED(b.dim[o.trans_b ? n - 1 : n - 2] == da.dim[n - 1]);
    }
    if (tensor_given(db)) {
        NEED(add ? is_small(d, db, n) : is_act(d, db, n));
        NEED(is_act(d, a, n) && a.dim[n - 2] == M);
        for (int i = 0; i < n - 2; i++) NEED(a.dim[i] == dy.dim[i] && (db.dim[i] == dy.dim[i] || db.dim[i] == 1));
        NEED(db.dim[o.trans_b ? n - 2 : n - 1] == N && db.dim[o.trans_b ? n - 1 : n - 2] == a.dim[n - 1]);
    }
    return NULL;
}

static const char *check_layernorm_bwd(const dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor mean,
                                       tensor rstd, tensor x, tensor w, tensor r)
{
    NEED(is_act(d, dy, 2) && is_act(d, x, 2) && tensor_same_shape(dy, x) && is_grad_of(d, dx, x));
    NEED(is_stat(d, mean, 1) && is_stat(d, rstd, 1) && shape1(mean, x.dim[0]) && shape1(rstd, x.dim[0]));
    NEED(is_small(d, w, 1) && shape1(w, x.dim[1]));
    NEED(is_grad1(d, dw, x.dim[1]) && is_grad1(d, db, x.dim[1]));
    NEED(is_added(d, r, dx));
    return NULL;
}

static const char *check_rmsnorm_bwd(const dev *d, tensor dx, tensor dw, tensor dy, tensor rstd, tensor x, tensor w,
                                     tensor r)
{
    NEED(is_act(d, dy, 2) && is_act(d, x, 2) && tensor_same_shape(dy, x) && is_grad_of(d, dx, x));
    NEED(is_stat(d, rstd, 1) && shape1(rstd, x.dim[0]));
    NEED(is_small(d, w, 1) && shape1(w, x.dim[1]));
    NEED(is_grad1(d, dw, x.dim[1]));
    NEED(is_added(d, r, dx));
    return NULL;
}

static const char *check_activation_bwd(const dev *d, tensor dx, tensor dy, tensor x, activation act)
{
    NEED(is_act(d, dx, dx.ndim) && is_act(d, dy, dy.ndim) && is_act(d, x, x.ndim));
    NEED(tensor_same_shape(dx, dy) && tensor_same_shape(dx, x));
    NEED(is_activation(act));
    return NULL;
}

static const char *check_silu_mul_bwd(const dev *d, tensor dx, tensor du, tensor dy, tensor x, tensor u)
{
    NEED(is_act(d, dy, 2) && is_act(d, x, 2) && is_act(d, u, 2));
    NEED(tensor_same_shape(dy, x) && tensor_same_shape(dy, u));
    NEED(is_grad_of(d, dx, x) && is_grad_of(d, du, x));
    return NULL;
}

static const char *check_sum(const dev *d, tensor y, tensor x, bool add)
{
    NEED(is_act(d, x, x.ndim) && y.ndim == x.ndim);
    NEED(add ? is_small(d, y, y.ndim) : is_act(d, y, y.ndim));
    for (int i = 0; i < x.ndim; i++) NEED(y.dim[i] == x.dim[i] || y.dim[i] == 1);
    return NULL;
}

static const char *check_embedding_bwd(const dev *d, tensor dtable, tensor dy, tensor ids)
{
    NEED(is_act(d, dy, 2) && is_small(d, dtable, 2) && is_ids(ids, 1));
    NEED(dy.dim[0] == ids.dim[0] && dy.dim[1] == dtable.dim[1]);
    NEED(ids_within(d, ids, 0, dtable.dim[0], 0));
    return NULL;
}

static const char *check_rope_bwd(const dev *d, tensor dx, tensor dy, rope_options o)
{
    return check_rope_fwd(d, dx, dy, tensor_none(), o);
}

static const char *check_attention_bwd(const dev *d, tensor dq, tensor dk, tensor dv, tensor dy, tensor y,
                                       tensor lse, tensor q, tensor k, tensor v, attention_options o)
{
    NEED(is_act(d, dy, 4) && tensor_same_shape(dy, y) && tensor_given(lse));
    const char *why = check_attention_fwd(d, y, lse, q, k, v, tensor_none(), o);
    if (why) return why;
    NEED(is_grad_of(d, dq, q) && is_grad_of(d, dk, k) && is_grad_of(d, dv, k));
    return NULL;
}

static const char *check_relpos_attention_bwd(const dev *d, tensor dqkv, tensor dpad, tensor drel_h, tensor drel_w,
                                              tensor dy, tensor y, tensor lse, tensor qkv, tensor pad, tensor rel_h,
                                              tensor rel_w, relpos_options o)
{
    NEED(is_act(d, dy, 4) && tensor_same_shape(dy, y) && tensor_given(lse));
    const char *why = check_relpos_attention_fwd(d, y, lse, qkv, pad, rel_h, rel_w, o);
    if (why) return why;
    NEED(is_grad_of(d, dqkv, qkv) && is_grad1(d, dpad, qkv.dim[3]));
    NEED(absent(drel_h) || (is_small(d, drel_h, 2) && tensor_same_shape(drel_h, rel_h)));
    NEED(absent(drel_w) || (is_small(d, drel_w, 2) && tensor_same_shape(drel_w, rel_w)));
    return NULL;
}

static const char *check_image_pool_bwd(const dev *d, tensor dx, tensor da, tensor dy, tensor y, tensor lse,
                                        tensor x, tensor pe, tensor a, tensor r)
{
    NEED(is_act(d, dy, 3) && tensor_same_shape(dy, y) && tensor_given(lse));
    const char *why = check_image_pool_fwd(d, y, lse, x, pe, a);
    if (why) return why;
    NEED(is_grad_of(d, dx, x) && is_grad_of(d, da, a));
    NEED(is_added(d, r, dx));
    return NULL;
}

static const char *check_image_update_bwd(const dev *d, tensor dx, tensor dk, tensor dkb, tensor dv, tensor dvb,
                                          tensor dw, tensor db, tensor dy, tensor x, tensor pe, tensor k, tensor kb,
                                          tensor v, tensor vb, tensor w, image_update_options o)
{
    const char *why = check_image_update_fwd(d, dy, x, pe, k, kb, v, vb, w, w, o);
    if (why) return why;
    NEED(is_grad_of(d, dx, x) && is_grad_of(d, dk, k) && is_grad_of(d, dkb, kb) && is_grad_of(d, dv, v));
    NEED(is_grad1(d, dvb, x.dim[2]) && is_grad1(d, dw, x.dim[2]) && is_grad1(d, db, x.dim[2]));
    return NULL;
}

static const char *check_conv_bwd(const dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x, tensor w,
                                  conv_options o)
{
    const char *why = check_conv_fwd(d, dy, x, w, tensor_none(), o);
    if (why) return why;
    NEED(o.act == ACT_NONE);
    NEED(is_grad_of(d, dx, x) && is_grad1(d, db, w.dim[0]));
    NEED(absent(dw) || (is_small(d, dw, 4) && tensor_same_shape(dw, w) && tensor_contiguous(dw)));
    return NULL;
}

static const char *check_conv_transpose_bwd(const dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x,
                                            tensor w)
{
    const char *why = check_conv_transpose_fwd(d, dy, x, w, tensor_none());
    if (why) return why;
    NEED(is_grad_of(d, dx, x) && is_grad1(d, db, w.dim[1]));
    NEED(absent(dw) || (is_small(d, dw, 4) && tensor_same_shape(dw, w) && tensor_contiguous(dw)));
    return NULL;
}

static const char *check_roi_align_bwd(const dev *d, tensor dx, tensor dy, tensor boxes, tensor index, float scale)
{
    return check_roi(d, dy, dx, boxes, index, scale);
}

static const char *check_dropout(const dev *d, tensor y, tensor x, tensor r, dropout_options o)
{
    NEED(is_act(d, y, 2) && is_act(d, x, 2) && tensor_same_shape(y, x));
    NEED(is_added(d, r, y));
    NEED(is_dropout(o));
    return NULL;
}

static const char *check_cross_entropy_bwd(const dev *d, tensor dx, tensor dloss, tensor lse, tensor x,
                                           tensor label, float smoothing)
{
    NEED(is_act(d, dx, 2) && tensor_same_shape(dx, x) && tensor_given(lse));
    return check_cross_entropy_fwd(d, dloss, lse, x, label, smoothing);
}

static bool is_stat_of(const dev *d, tensor t, int64_t rows_)
{
    return absent(t) || (is_stat(d, t, 1) && shape1(t, rows_));
}

static const char *check_mask_loss_fwd(const dev *d, tensor focal, tensor dice, tensor iou, tensor x, tensor target)
{
    NEED(is_act(d, x, 2) && target.type == DT_U8 && rows(target, 2) && tensor_same_shape(target, x));
    NEED(is_stat_of(d, focal, x.dim[0]) && is_stat_of(d, dice, x.dim[0]) && is_stat_of(d, iou, x.dim[0]));
    return NULL;
}

static const char *check_mask_loss_bwd(const dev *d, tensor dx, tensor dfocal, tensor ddice, tensor x,
                                       tensor target)
{
    NEED(is_act(d, dx, 2) && tensor_same_shape(dx, x) && tensor_given(dfocal) && tensor_given(ddice));
    return check_mask_loss_fwd(d, dfocal, ddice, tensor_none(), x, target);
}

static const char *check_adamw(const dev *d, tensor p, tensor m, tensor v, tensor g, adamw_options o)
{
    NEED(is_small(d, p, 1) && is_small(d, m, 1) && is_small(d, v, 1) && is_small(d, g, 1));
    NEED(tensor_same_shape(p, m) && tensor_same_shape(p, v) && tensor_same_shape(p, g));
    NEED(o.rate >= 0 && o.decay >= 0 && o.eps >= 0 && isfinite(o.rate) && isfinite(o.decay) && isfinite(o.scale));
    NEED(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1 && o.step >= 1);
    return NULL;
}

static const char *check_sum_squares(const dev *d, tensor y, tensor x, bool add)
{
    (void)add;
    NEED(y.type == DT_F64 && rows(y, 1) && shape1(y, 1));
    NEED(is_act(d, x, x.ndim) || is_stat(d, x, x.ndim) || is_weight_rows(d, x));
    return NULL;
}

/* ---- trampolines ------------------------------------------------------------------------------------------ */

static void refuse(dev *d, op_id id, const char *condition, const op_arg *args, size_t n)
{
    char text[360];
    op_args_text(args, n, text, sizeof text);
    dev_fail(d, SCA_ERR_ARGUMENT, "op_%s: expected %s; found %s", op_name(id), condition, text);
}

#define OP(name, parameters, arguments)                                                                            \
    void op_##name(dev *d, OP_UNPACK parameters)                                                                   \
    {                                                                                                              \
        if (d->status != SCA_OK) return;                                                                           \
        const op_arg args[] = { ARGS arguments };                                                                  \
        char why[96];                                                                                              \
        const char *condition = why;                                                                               \
        if (op_views_ok(d, OP_##name, args, LENGTH(args), why, sizeof why))                                        \
            condition = check_##name(d, OP_UNPACK arguments);                                                      \
        if (condition)                                                                                             \
            refuse(d, OP_##name, condition, args, LENGTH(args));                                                   \
        else                                                                                                       \
            d->ops->name(d, OP_UNPACK arguments);                                                                  \
    }
#include "ops.def"
#undef OP

const char *op_name(op_id id)
{
    static const char *const names[] = {
#define OP(name, parameters, arguments) #name,
#include "ops.def"
#undef OP
    };
    return (size_t)id < LENGTH(names) ? names[id] : "unknown";
}

/* ---- devices ------------------------------------------------------------------------------------------------ */

static const backend *const backends[] = {
    &cpu_backend,  &ref_backend, &null_backend,
#ifdef SCA_CUDA
    &cuda_backend,
#endif
#ifdef SCA_SIMT
    &simt_backend,
#endif
};

const char *const *dev_kinds(void)
{
    static const char *const names[LENGTH(backends) + 1] = {
        "cpu",  "ref", "null",
#ifdef SCA_CUDA
        "cuda",
#endif
#ifdef SCA_SIMT
        "simt",
#endif
    };
    return names;
}

static const backend *find_backend(const char *kind)
{
    for (size_t i = 0; i < LENGTH(backends); i++)
        if (strcmp(backends[i]->name, kind) == 0) return backends[i];
    return NULL;
}

const dev_row *dev_rows(const char *kind)
{
    static const dev_row none = { 0 };
    const backend *b = find_backend(kind);
    return b && b->rows ? b->rows : &none;
}

static sca_status refuse_kind(const char *kind)
{
    str list = { 0 };
    for (size_t i = 0; i < LENGTH(backends); i++) str_printf(&list, "%s%s", i ? ", " : "", backends[i]->name);
    sca_status s = status_fail(SCA_ERR_DEVICE, "no device '%s': built in are %s", kind, str_text(&list));
    str_free(&list);
    return s;
}

sca_status dev_open(const char *kind, const char *options, dev **out)
{
    *out = NULL;
    const backend *b = find_backend(kind);
    if (!b) return refuse_kind(kind);
    dev *d = mem_zero(1, sizeof *d);
    op_table *ops = mem_alloc(sizeof *ops);
    sca_status status = SCA_OK;
    if (!d || !ops) status = mem_fail(sizeof *d + sizeof *ops, "a device");
    if (status == SCA_OK) {
        *ops = *b->ops;
        *d = (dev){ .kind = b, .ops = ops };
        status = b->open(d, options ? options : "");
    }
    if (status != SCA_OK) {
        mem_free(ops);
        mem_free(d);
        return status;
    }
    *out = d;
    return SCA_OK;
}

void dev_close(dev *d)
{
    if (!d) return;
    d->kind->close(d);
    mem_free(d->ops);
    mem_free(d);
}

sca_status op_no_options(const char *device, const char *options)
{
    if (!*options) return SCA_OK;
    if (text_starts(options, "threads=") && !strchr(options, ',')) return SCA_OK;
    return status_fail(SCA_ERR_ARGUMENT, "device %s: no options are known, found '%s'; leave them out", device,
                       options);
}
