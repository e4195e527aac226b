/* conv_bwd.c - the backward of convolutions, as products whose A is made on the fly (conv.c). The weight's gradient comes
 * out transposed, taps by output channels, so that the few channels are the columns. */
#include "cpu/cpu.h"

#include <string.h>

typedef struct conv {
    tensor dx, dw, dy, x;
    conv_options o;
    int64_t KH, KW, k; /* k: of a transposed convolution */
} conv;

static const float *pixel(const tensor *t, int64_t b, int64_t h, int64_t w)
{
    return (const float *)t->data + b * t->stride[0] + h * t->stride[1] + w * t->stride[2];
}

static float *buffer(dev *d, int64_t floats)
{
    float *p = mem_aligned(64, (size_t)floats * sizeof *p);
    if (!p) dev_fail(d, mem_fail((size_t)floats * sizeof *p, "a convolution's backward"), "%s", status_message());
    return p;
}

/* Row n of the result belongs to a row of dx. */
static void to_dx(const gemm_job *j, int64_t m0, int64_t rows, int64_t n0, int64_t cols, const float *c,
                  int64_t ldc)
{
    const conv *p = j->context;
    for (int64_t i = 0; i < rows; i++)
        memcpy((float *)p->dx.data + cpu_row_offset(&p->dx, m0 + i) + n0, c + i * ldc, (size_t)cols * sizeof *c);
}

/* dw[n][m] += c[m][n] */
static void to_dw(const gemm_job *j, int64_t m0, int64_t rows, int64_t n0, int64_t cols, const float *c,
                  int64_t ldc)
{
    const conv *p = j->context;
    for (int64_t n = 0; n < cols; n++) {
        float *dw = (float *)p->dw.data + (n0 + n) * j->M + m0;
        for (int64_t i = 0; i < rows; i++) dw[i] += c[i * ldc + n];
    }
}

/* b as the K evenly spaced rows of a product's B; what is spaced unevenly is copied. */
static bool rows_as_b(dev *d, gemm_job *j, tensor b, float **copy)
{
    *copy = NULL;
    j->b_type = DT_F32;
    j->b_kind = GEMM_COLS;
    j->b = b.data;
    if (cpu_rows_even(&b, &j->ldb)) return true;
    *copy = buffer(d, tensor_count(b));
    if (!*copy) return false;
    cpu_copy(d, tensor_on(*copy, DT_F32, b.ndim, b.dim), b);
    j->b = *copy;
    j->ldb = b.dim[b.ndim - 1];
    return true;
}

/* dw += A b, A made by `fill` with context p */
static void weights(dev *d, const conv *p, gemm_job j, tensor b)
{
    float *copy;
    if (!rows_as_b(d, &j, b, &copy)) return;
    j.sink = to_dw;
    j.context = p;
    cpu_gemm(d, &j);
    mem_free(copy);
}

static void bias(dev *d, tensor db, tensor dy)
{
    if (tensor_given(db)) cpu_sum(d, tensor_reshape4(db, 1, 1, 1, db.dim[0]), dy, true);
}

/* ---- op_conv_bwd ------------------------------------------------------------------------------------------- */

/* Element (input pixel, tap O + o): the output that this pixel reached through this tap, or 0. */
static void outputs(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst, int64_t ld)
{
    const conv *p = j->context;
    int64_t H = p->dx.dim[1], W = p->dx.dim[2], O = p->dy.dim[3], s = p->o.stride;
    for (int64_t i = 0; i < rows; i++, dst += ld) {
        int64_t m = m0 + i, b = m / (H * W), h = m / W % H + p->o.pad, w = m % W + p->o.pad;
        for (int64_t k = 0, n; k < count; k += n) {
            int64_t tap = (k0 + k) / O, o = (k0 + k) % O, y = h - tap / p->KW, x = w - tap % p->KW;
            n = min64(O - o, count - k);
            bool reached =
                y >= 0 && x >= 0 && y % s == 0 && x % s == 0 && y / s < p->dy.dim[1] && x / s < p->dy.dim[2];
            if (reached)
                memcpy(dst + k, pixel(&p->dy, b, y / s, x / s) + o, (size_t)n * sizeof *dst);
            else
                memset(dst + k, 0, (size_t)n * sizeof *dst);
        }
    }
}

/* turned[tap O + o][c] = w[o][c][tap], from rows or panels of any type */
static void turn_weight(const cpu_kernels *k, tensor w, float *line, float *turned)
{
    int64_t O = w.dim[0], C = w.dim[1], taps = w.dim[2] * w.dim[3], K = C * taps;
    size_t size = dtype_bytes(w.type);
    if (w.layout == LAYOUT_ROWS) {
        for (int64_t o = 0; o < O; o++) {
            k->widen(line, w.type, (const char *)w.data + (size_t)(o * w.stride[0]) * size, K);
            for (int64_t i = 0; i < K; i++) turned[(i % taps * O + o) * C + i / taps] = line[i];
        }
        return;
    }
    for (int64_t o = 0; o < O; o += k->nr)
        for (int64_t i = 0; i < K; i++) {
            k->widen(line, w.type, (const char *)w.data + (size_t)(o * K + i * k->nr) * size, k->nr);
            for (int64_t n = 0; n < k->nr && o + n < O; n++)
                turned[(i % taps * O + o + n) * C + i / taps] = line[n];
        }
}

static void conv_dx(dev *d, const conv *p, tensor w)
{
    const cpu_kernels *k = cpu_of(d)->kernels;
    int64_t O = w.dim[0], C = w.dim[1], taps = p->KH * p->KW;
    float *turned = buffer(d, O * C * taps + max64(C * taps, k->nr));
    if (!turned) return;
    turn_weight(k, w, turned + O * C * taps, turned);
    gemm_job j = cpu_gemm_job(cpu_rows(&p->dx), C, O * taps);
    j.b = turned;
    j.b_type = DT_F32;
    j.b_kind = GEMM_COLS;
    j.ldb = C;
    j.fill = outputs;
    j.sink = to_dx;
    j.context = p;
    cpu_gemm(d, &j);
    mem_free(turned);
}

/* Element (c taps + tap, output pixel): the input under that tap. */
static void inputs(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst, int64_t ld)
{
    const conv *p = j->context;
    int64_t OH = p->dy.dim[1], OW = p->dy.dim[2], H = p->x.dim[1], W = p->x.dim[2], taps = p->KH * p->KW;
    for (int64_t k = 0; k < count; k++) {
        int64_t at = k0 + k, b = at / (OH * OW);
        int64_t h0 = at / OW % OH * p->o.stride - p->o.pad, w0 = at % OW * p->o.stride - p->o.pad;
        for (int64_t tap = 0; tap < taps; tap++) {
            int64_t h = h0 + tap / p->KW, w = w0 + tap % p->KW, c = m0 <= tap ? 0 : ceil_div(m0 - tap, taps);
            bool inside = h >= 0 && h < H && w >= 0 && w < W;
            const float *src = inside ? pixel(&p->x, b, h, w) : NULL;
            for (int64_t i = c * taps + tap - m0; i < rows; i += taps, c++) dst[i * ld + k] = src ? src[c] : 0.0f;
        }
    }
}

void cpu_conv_bwd(dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x, tensor w, conv_options o)
{
    conv p = { .dx = dx, .dw = dw, .dy = dy, .x = x, .o = o, .KH = w.dim[2], .KW = w.dim[3] };
    if (tensor_given(dx)) conv_dx(d, &p, w);
    if (tensor_given(dw)) {
        gemm_job j = cpu_gemm_job(w.dim[1] * p.KH * p.KW, w.dim[0], cpu_rows(&dy));
        j.fill = inputs;
        weights(d, &p, j, dy);
    }
    bias(d, db, dy);
}

/* ---- op_conv_transpose_bwd --------------------------------------------------------------------------------- */

/* Element (input pixel, (o k + i) k + j): the number of its patch of dy. */
static void patches(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst, int64_t ld)
{
    const conv *p = j->context;
    int64_t H = p->x.dim[1], W = p->x.dim[2], k = p->k;
    for (int64_t i = 0; i < rows; i++, dst += ld) {
        int64_t m = m0 + i, b = m / (H * W), h = m / W % H * k, w = m % W * k;
        for (int64_t n = 0; n < count; n++) {
            int64_t at = k0 + n;
            dst[n] = pixel(&p->dy, b, h + at / k % k, w + at % k)[at / (k * k)];
        }
    }
}

/* The same, transposed. */
static void patches_turned(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst,
                           int64_t ld)
{
    const conv *p = j->context;
    int64_t H = p->x.dim[1], W = p->x.dim[2], k = p->k;
    for (int64_t n = 0; n < count; n++) {
        int64_t at = k0 + n, b = at / (H * W), h = at / W % H * k, w = at % W * k;
        for (int64_t i = 0; i < rows; i++) {
            int64_t m = m0 + i;
            dst[i * ld + n] = pixel(&p->dy, b, h + m / k % k, w + m % k)[m / (k * k)];
        }
    }
}

void cpu_conv_transpose_bwd(dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x, tensor w)
{
    conv p = { .dx = dx, .dw = dw, .dy = dy, .x = x, .k = w.dim[2] };
    int64_t C = w.dim[0], columns = w.dim[1] * p.k * p.k;
    if (tensor_given(dx)) {
        gemm_job j = cpu_gemm_job(cpu_rows(&x), C, columns);
        cpu_gemm_weight_turned(&j, w, true);
        j.fill = patches;
        j.sink = to_dx;
        j.context = &p;
        cpu_gemm(d, &j);
    }
    if (tensor_given(dw)) {
        gemm_job j = cpu_gemm_job(columns, C, cpu_rows(&x));
        j.fill = patches_turned;
        weights(d, &p, j, x);
    }
    bias(d, db, dy);
}
