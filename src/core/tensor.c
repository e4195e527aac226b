/* tensor.c - element types and views. */
#include "core/core.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- element types -------------------------------------------------------------------------------- */

size_t dtype_bytes(dtype t)
{
    switch (t) {
    case DT_F64: return 8;
    case DT_F32:
    case DT_I32: return 4;
    case DT_F16:
    case DT_BF16: return 2;
    case DT_U8: return 1;
    case DT_NONE: break;
    }
    return 0;
}

const char *dtype_name(dtype t)
{
    switch (t) {
    case DT_F32: return "f32";
    case DT_F64: return "f64";
    case DT_F16: return "f16";
    case DT_BF16: return "bf16";
    case DT_I32: return "i32";
    case DT_U8: return "u8";
    case DT_NONE: break;
    }
    return "none";
}

bool dtype_is_float(dtype t) { return t == DT_F32 || t == DT_F64 || t == DT_F16 || t == DT_BF16; }

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static float bits_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* value >> shift, rounded to nearest, ties to even; 1 <= shift <= 31 */
static uint32_t shift_round(uint32_t value, int shift)
{
    uint32_t kept = value >> shift, cut = value & ((1u << shift) - 1), half = 1u << (shift - 1);
    return kept + (cut > half || (cut == half && (kept & 1)));
}

uint16_t f32_to_f16(float x)
{
    uint32_t bits = float_bits(x), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000) return (uint16_t)(sign | 0x7E00 | (magnitude >> 13 & 0x1FF)); /* quiet NaN */
    int exponent = (int)(magnitude >> 23) - 127;
    if (exponent > 15) return (uint16_t)(sign | 0x7C00);
    /* A carry out of the fraction runs into the exponent, up to infinity: just what rounding means. */
    if (exponent >= -14) return (uint16_t)(sign | shift_round(magnitude - (112u << 23), 13));
    if (exponent < -25) return (uint16_t)sign;
    uint32_t fraction = (magnitude & 0x7FFFFF) | 0x800000;
    return (uint16_t)(sign | shift_round(fraction, -1 - exponent));
}

float f16_to_f32(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 31, fraction = x & 0x3FF;
    if (exponent == 31) return bits_float(sign | 0x7F800000 | fraction << 13);
    if (exponent) return bits_float(sign | (exponent + 112) << 23 | fraction << 13);
    float magnitude = (float)fraction * 0x1p-24f;
    return sign ? -magnitude : magnitude;
}

uint16_t f32_to_bf16(float x)
{
    uint32_t bits = float_bits(x);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)shift_round(bits, 16);
}

float bf16_to_f32(uint16_t x) { return bits_float((uint32_t)x << 16); }

static double load_double(dtype type, const void *data, size_t i)
{
    switch (type) {
    case DT_F64: return ((const double *)data)[i];
    case DT_F32: return (double)((const float *)data)[i];
    case DT_F16: return (double)f16_to_f32(((const uint16_t *)data)[i]);
    default: return (double)bf16_to_f32(((const uint16_t *)data)[i]);
    }
}

static float load_float(dtype type, const void *data, size_t i)
{
    switch (type) {
    case DT_F32: return ((const float *)data)[i];
    case DT_F16: return f16_to_f32(((const uint16_t *)data)[i]);
    case DT_BF16: return bf16_to_f32(((const uint16_t *)data)[i]);
    default: return (float)((const double *)data)[i];
    }
}

static void store_float(dtype type, void *data, size_t i, float x)
{
    if (type == DT_F32)
        ((float *)data)[i] = x;
    else if (type == DT_F16)
        ((uint16_t *)data)[i] = f32_to_f16(x);
    else
        ((uint16_t *)data)[i] = f32_to_bf16(x);
}

void dtype_convert(dtype to, void *dst, dtype from, const void *src, size_t count)
{
    ASSERT(to == from || (dtype_is_float(to) && dtype_is_float(from)));
    if (to == from) {
        if (count) memcpy(dst, src, count * dtype_bytes(to));
    } else if (to == DT_F64) {
        for (size_t i = 0; i < count; i++) ((double *)dst)[i] = load_double(from, src, i);
    } else {
        for (size_t i = 0; i < count; i++) store_float(to, dst, i, load_float(from, src, i));
    }
}

/* ---- views ------------------------------------------------------------------------------------------- */

tensor tensor_none(void) { return (tensor){ 0 }; }

tensor tensor_on(void *data, dtype type, int ndim, const int64_t *dim)
{
    ASSERT(ndim >= 1 && ndim <= 4);
    tensor t = { .data = data, .type = type, .ndim = ndim };
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        ASSERT(dim[i] >= 0);
        t.dim[i] = dim[i];
        t.stride[i] = stride;
        stride *= dim[i];
    }
    return t;
}

int64_t tensor_count(tensor t)
{
    int64_t count = t.ndim > 0;
    for (int i = 0; i < t.ndim; i++) count *= t.dim[i];
    return count;
}

size_t tensor_bytes(tensor t) { return (size_t)tensor_count(t) * dtype_bytes(t.type); }

bool tensor_contiguous(tensor t)
{
    if (t.layout != LAYOUT_ROWS) return false;
    int64_t stride = 1;
    for (int i = t.ndim - 1; i >= 0; i--) {
        if (t.dim[i] != 1 && t.stride[i] != stride) return tensor_count(t) == 0;
        stride *= t.dim[i];
    }
    return true;
}

bool tensor_same_shape(tensor a, tensor b)
{
    if (a.ndim != b.ndim) return false;
    for (int i = 0; i < a.ndim; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return true;
}

tensor tensor_reshape(tensor t, int ndim, const int64_t *dim)
{
    ASSERT(tensor_contiguous(t));
    tensor r = tensor_on(t.data, t.type, ndim, dim);
    ASSERT(tensor_count(r) == tensor_count(t));
    return r;
}

tensor tensor_reshape1(tensor t, int64_t a) { return tensor_reshape(t, 1, &a); }

tensor tensor_reshape2(tensor t, int64_t a, int64_t b) { return tensor_reshape(t, 2, (int64_t[]){ a, b }); }

tensor tensor_reshape3(tensor t, int64_t a, int64_t b, int64_t c)
{
    return tensor_reshape(t, 3, (int64_t[]){ a, b, c });
}

tensor tensor_reshape4(tensor t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return tensor_reshape(t, 4, (int64_t[]){ a, b, c, d });
}

/* NULL plus an offset is undefined, and the tensors of a full arena have no data. */
static void *moved(tensor t, int64_t elements)
{
    return t.data ? (char *)t.data + elements * (int64_t)dtype_bytes(t.type) : NULL;
}

tensor tensor_slice(tensor t, int axis, int64_t from, int64_t count)
{
    ASSERT(t.layout == LAYOUT_ROWS && axis >= 0 && axis < t.ndim);
    ASSERT(from >= 0 && count >= 0 && from + count <= t.dim[axis]);
    t.data = moved(t, from * t.stride[axis]);
    t.dim[axis] = count;
    return t;
}

static tensor drop_axis(tensor t, int axis)
{
    for (int i = axis; i + 1 < t.ndim; i++) {
        t.dim[i] = t.dim[i + 1];
        t.stride[i] = t.stride[i + 1];
    }
    t.ndim--;
    t.dim[t.ndim] = t.stride[t.ndim] = 0;
    return t;
}

tensor tensor_at(tensor t, int64_t index)
{
    ASSERT(t.layout == LAYOUT_ROWS && t.ndim >= 2 && index >= 0 && index < t.dim[0]);
    t.data = moved(t, index * t.stride[0]);
    return drop_axis(t, 0);
}

tensor tensor_swap(tensor t, int axis_a, int axis_b)
{
    ASSERT(t.layout == LAYOUT_ROWS && axis_a >= 0 && axis_b >= 0);
    ASSERT(axis_a < t.ndim - 1 && axis_b < t.ndim - 1);
    int64_t dim = t.dim[axis_a], stride = t.stride[axis_a];
    t.dim[axis_a] = t.dim[axis_b];
    t.stride[axis_a] = t.stride[axis_b];
    t.dim[axis_b] = dim;
    t.stride[axis_b] = stride;
    return t;
}

/* Makes room for one axis at `axis`; its dim and stride are the caller's to fill. */
static tensor insert_axis(tensor t, int axis)
{
    ASSERT(t.layout == LAYOUT_ROWS && t.ndim < 4 && axis >= 0 && axis <= t.ndim);
    for (int i = t.ndim; i > axis; i--) {
        t.dim[i] = t.dim[i - 1];
        t.stride[i] = t.stride[i - 1];
    }
    t.ndim++;
    return t;
}

tensor tensor_split(tensor t, int axis, int64_t outer)
{
    ASSERT(axis >= 0 && axis < t.ndim && outer > 0 && t.dim[axis] % outer == 0);
    tensor r = insert_axis(t, axis);
    r.dim[axis] = outer;
    r.dim[axis + 1] = t.dim[axis] / outer;
    r.stride[axis] = t.stride[axis] * r.dim[axis + 1];
    return r;
}

tensor tensor_expand(tensor t, int axis, int64_t count)
{
    ASSERT(t.layout == LAYOUT_ROWS && axis >= 0 && axis < t.ndim - 1 && t.dim[axis] == 1);
    t.dim[axis] = count;
    t.stride[axis] = 0;
    return t;
}

tensor tensor_unsqueeze(tensor t, int axis)
{
    tensor r = insert_axis(t, axis);
    r.dim[axis] = 1;
    r.stride[axis] = axis < t.ndim ? t.stride[axis] * t.dim[axis] : 1;
    return r;
}

const char *tensor_text(tensor t, char text[96])
{
    if (!tensor_given(t)) return strcpy(text, "absent");
    size_t used = 0;
    for (int i = 0; i < t.ndim && i < 4; i++)
        used += (size_t)snprintf(text + used, 96 - used, "%c%" PRId64, i ? ',' : '(', t.dim[i]);
    snprintf(text + used, 96 - used, ") %s%s", dtype_name(t.type), t.layout == LAYOUT_PANELS ? " panels" : "");
    return text;
}
