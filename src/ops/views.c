/* views.c - what every op asks of its tensors, whatever the op: well-formed views, outputs that overlap nothing. */
#include "ops/args.h"

#include <stdio.h>
#include <string.h>

/* Inputs that an output may be exactly: their names, separated by spaces. */
static const char *const in_place[OP_COUNT] = {
    [OP_linear_fwd] = "r",        [OP_layernorm_fwd] = "x",     [OP_rmsnorm_fwd] = "x",
    [OP_activation_fwd] = "x",    [OP_silu_mul_fwd] = "x",      [OP_add_fwd] = "a b",
    [OP_rope_fwd] = "x",          [OP_image_update_fwd] = "x",  [OP_log_softmax_fwd] = "x",
    [OP_linear_bwd] = "r",        [OP_layernorm_bwd] = "dy r",  [OP_rmsnorm_bwd] = "dy r",
    [OP_activation_bwd] = "dy",   [OP_silu_mul_bwd] = "dy x u", [OP_rope_bwd] = "dy",
    [OP_image_pool_bwd] = "r",    [OP_image_update_bwd] = "dy", [OP_dropout] = "x r",
    [OP_cross_entropy_bwd] = "x", [OP_mask_loss_bwd] = "x",
};

int op_outputs(op_id id)
{
    switch (id) {
    case OP_image_update_bwd: return 7;
    case OP_relpos_attention_bwd: return 4;
    case OP_layernorm_fwd:
    case OP_linear_bwd:
    case OP_layernorm_bwd:
    case OP_attention_bwd:
    case OP_conv_bwd:
    case OP_conv_transpose_bwd:
    case OP_mask_loss_fwd:
    case OP_adamw: return 3;
    case OP_rmsnorm_fwd:
    case OP_attention_fwd:
    case OP_relpos_attention_fwd:
    case OP_image_pool_fwd:
    case OP_argmax_fwd:
    case OP_topk_fwd:
    case OP_cross_entropy_fwd:
    case OP_matmul_bwd:
    case OP_rmsnorm_bwd:
    case OP_silu_mul_bwd:
    case OP_image_pool_bwd: return 2;
    default: return 1;
    }
}

static const char *bad_view(tensor t)
{
    if (t.ndim < 1 || t.ndim > 4) return "1 to 4 axes";
    if (!t.data) return "data";
    for (int i = 0; i < t.ndim; i++)
        if (t.dim[i] < 1) return "no empty axis";
    if (t.layout != LAYOUT_ROWS) return NULL;
    if (t.stride[t.ndim - 1] != 1 && t.dim[t.ndim - 1] > 1) return "a contiguous last axis";
    for (int i = 0; i < t.ndim; i++)
        if (t.stride[i] < 0) return "no negative stride";
    return NULL;
}

static bool repeats(tensor t)
{
    for (int i = 0; i < t.ndim && t.layout == LAYOUT_ROWS; i++)
        if (t.dim[i] > 1 && t.stride[i] == 0) return true;
    return false;
}

/* Bytes from the first element to the end of the last one. */
static int64_t extent(const dev *d, tensor t)
{
    int64_t size = (int64_t)dtype_bytes(t.type), last = 0;
    if (t.layout == LAYOUT_PANELS) {
        int64_t rows = t.dim[0], rest = tensor_count(t) / rows;
        if (!d->kind->panel_bytes) return 0;
        /* Which of the two is N is not written in the tensor: the smaller answer accuses nobody wrongly. */
        size_t one = d->kind->panel_bytes(t.type, rows, rest), other = d->kind->panel_bytes(t.type, rest, rows);
        return (int64_t)(one < other ? one : other);
    }
    for (int i = 0; i < t.ndim; i++) last += (t.dim[i] - 1) * t.stride[i];
    return (last + 1) * size;
}

/* With rows `pitch` bytes apart: the bytes of one row that t touches, or 0 if its axes do not fit that pitch. */
static int64_t width_in_pitch(tensor t, int64_t pitch)
{
    int64_t size = (int64_t)dtype_bytes(t.type), width = size;
    for (int i = 0; i < t.ndim; i++)
        if (t.dim[i] > 1 && t.stride[i] * size % pitch != 0) width += (t.dim[i] - 1) * t.stride[i] * size;
    return width <= pitch ? width : 0;
}

/* Columns of one buffer that are side by side interleave in memory without touching each other. */
static bool side_by_side(tensor a, tensor b)
{
    for (int i = 0; i < a.ndim; i++) {
        int64_t pitch = a.stride[i] * (int64_t)dtype_bytes(a.type);
        if (a.dim[i] < 2 || pitch <= 0) continue;
        int64_t a_width = width_in_pitch(a, pitch), b_width = width_in_pitch(b, pitch);
        if (!a_width || !b_width) continue;
        int64_t apart = ((const char *)b.data - (const char *)a.data) % pitch;
        if (apart < 0) apart += pitch;
        if (apart >= a_width && apart + b_width <= pitch) return true;
    }
    return false;
}

static bool overlap(const dev *d, tensor a, tensor b)
{
    uintptr_t a_from = (uintptr_t)a.data, b_from = (uintptr_t)b.data;
    if (a_from + (uintptr_t)extent(d, a) <= b_from || b_from + (uintptr_t)extent(d, b) <= a_from) return false;
    if (a.layout != LAYOUT_ROWS || b.layout != LAYOUT_ROWS) return true;
    return !side_by_side(a, b) && !side_by_side(b, a);
}

static bool same_view(tensor a, tensor b)
{
    if (a.data != b.data || a.type != b.type || a.layout != b.layout || !tensor_same_shape(a, b)) return false;
    for (int i = 0; i < a.ndim; i++)
        if (a.dim[i] > 1 && a.stride[i] != b.stride[i]) return false;
    return true;
}

static bool may_be(op_id id, const char *input)
{
    size_t n = strlen(input);
    for (const char *p = in_place[id]; p && *p; p += strcspn(p, " "), p += *p == ' ')
        if (strcspn(p, " ") == n && memcmp(p, input, n) == 0) return true;
    return false;
}

bool op_views_ok(const dev *d, op_id id, const op_arg *args, size_t n, char *why, size_t why_bytes)
{
    for (size_t i = 0; i < n; i++) {
        if (args[i].kind != ARG_TENSOR) continue;
        tensor t = *(const tensor *)args[i].value;
        const char *bad = tensor_given(t) ? bad_view(t) : NULL;
        if (!bad) continue;
        snprintf(why, why_bytes, "%s has %s", args[i].name, bad);
        return false;
    }
    size_t outputs = (size_t)op_outputs(id);
    for (size_t i = 0; i < outputs; i++) {
        tensor y = *(const tensor *)args[i].value;
        if (!tensor_given(y)) continue;
        if (repeats(y)) {
            snprintf(why, why_bytes, "%s repeats nothing (stride 0)", args[i].name);
            return false;
        }
        for (size_t j = i + 1; j < n; j++) {
            if (args[j].kind != ARG_TENSOR) continue;
            tensor x = *(const tensor *)args[j].value;
            if (!tensor_given(x) || !overlap(d, y, x)) continue;
            if (j >= outputs && may_be(id, args[j].name) && same_view(y, x)) continue;
            snprintf(why, why_bytes, "%s does not overlap %s", args[i].name, args[j].name);
            return false;
        }
    }
    return true;
}
