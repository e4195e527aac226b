/* conv.c - convolutions as products: the patches of a block of output pixels become the rows of A, made on the fly.
 */
#include "cpu/cpu.h"

#include <string.h>

typedef struct conv {
    tensor y, x, b;
    conv_options o;
    int64_t KH, KW, k; /* k: of a transposed convolution */
} conv;

static const float *pixel(const tensor *x, int64_t b, int64_t h, int64_t w)
{
    return (const float *)x->data + b * x->stride[0] + h * x->stride[1] + w * x->stride[2];
}

/* Elements k0 .. of the patches of output pixels m0 ..; k = (c KH + kh) KW + kw as in the weight. */
static void patches(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst, int64_t ld)
{
    const conv *p = j->context;
    int64_t OW = p->y.dim[2], OH = p->y.dim[1], H = p->x.dim[1], W = p->x.dim[2], taps = p->KH * p->KW;
    for (int64_t i = 0; i < rows; i++, dst += ld) {
        int64_t m = m0 + i, b = m / (OH * OW), h0 = m / OW % OH * p->o.stride - p->o.pad;
        int64_t w0 = m % OW * p->o.stride - p->o.pad;
        /* per tap, so that the bounds are looked at once per pixel and not once per channel */
        for (int64_t tap = 0; tap < taps; tap++) {
            int64_t h = h0 + tap / p->KW, w = w0 + tap % p->KW;
            int64_t c = k0 <= tap ? 0 : ceil_div(k0 - tap, taps);
            if (h < 0 || h >= H || w < 0 || w >= W) {
                for (int64_t k = c * taps + tap - k0; k < count; k += taps) dst[k] = 0.0f;
                continue;
            }
            const float *src = pixel(&p->x, b, h, w);
            for (int64_t k = c * taps + tap - k0; k < count; k += taps) dst[k] = src[c++];
        }
    }
}

/* Writes finished rows where the pixels of y are not evenly spaced. */
static void scattered(const gemm_job *j, int64_t m0, int64_t rows, int64_t n0, int64_t cols, const float *c,
                      int64_t ldc)
{
    const conv *p = j->context;
    for (int64_t i = 0; i < rows; i++)
        j->kernels->finish(1, cols, c + i * ldc, (float *)p->y.data + cpu_row_offset(&p->y, m0 + i) + n0, 0,
                           j->bias ? j->bias + n0 : NULL, NULL, 0, 1.0f, j->act);
}

void cpu_conv_fwd(dev *d, tensor y, tensor x, tensor w, tensor b, conv_options o)
{
    conv p = { y, x, b, o, w.dim[2], w.dim[3], 0 };
    gemm_job j = cpu_gemm_job(cpu_rows(&y), w.dim[0], w.dim[1] * w.dim[2] * w.dim[3]);
    cpu_gemm_weight(&j, w, false);
    bool point = p.KH == 1 && p.KW == 1 && o.stride == 1 && o.pad == 0;
    if (point && cpu_rows_even(&x, &j.lda))
        j.a = x.data;
    else
        j.fill = patches;
    if (cpu_rows_even(&y, &j.ldy))
        j.y = y.data;
    else
        j.sink = scattered;
    j.bias = tensor_given(b) ? b.data : NULL;
    j.act = o.act;
    j.context = &p;
    cpu_gemm(d, &j);
}

/* ---- transposed, kernel = stride: every input pixel makes its own k x k patch ----------------------------------
 */

static void input_pixels(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst,
                         int64_t ld)
{
    const conv *p = j->context;
    for (int64_t i = 0; i < rows; i++)
        memcpy(dst + i * ld, (const float *)p->x.data + cpu_row_offset(&p->x, m0 + i) + k0,
               (size_t)count * sizeof *dst);
}

enum { MOST_COLUMNS = 64 };

/* Column n = (o k + i) k + j of input pixel (b,h,w) belongs to y[b, h k + i, w k + j, o]. */
static void output_patches(const gemm_job *j, int64_t m0, int64_t rows, int64_t n0, int64_t cols, const float *c,
                           int64_t ldc)
{
    const conv *p = j->context;
    int64_t H = p->x.dim[1], W = p->x.dim[2], k = p->k, to[MOST_COLUMNS];
    float bias[MOST_COLUMNS];
    const tensor *y = &p->y;
    ASSERT(cols <= MOST_COLUMNS);
    for (int64_t n = 0; n < cols; n++) {
        int64_t o = (n0 + n) / (k * k), dy = (n0 + n) / k % k, dx = (n0 + n) % k;
        to[n] = dy * y->stride[1] + dx * y->stride[2] + o;
        bias[n] = j->bias ? j->bias[o] : 0.0f;
    }
    for (int64_t i = 0; i < rows; i++, c += ldc) {
        int64_t m = m0 + i;
        float *corner =
            (float *)y->data + m / (H * W) * y->stride[0] + m / W % H * k * y->stride[1] + m % W * k * y->stride[2];
        for (int64_t n = 0; n < cols; n++) corner[to[n]] = c[n] + bias[n];
    }
}

void cpu_conv_transpose_fwd(dev *d, tensor y, tensor x, tensor w, tensor b)
{
    conv p = { .y = y, .x = x, .b = b, .k = w.dim[2] };
    gemm_job j = cpu_gemm_job(cpu_rows(&x), w.dim[1] * w.dim[2] * w.dim[3], w.dim[0]);
    cpu_gemm_weight(&j, w, true);
    if (cpu_rows_even(&x, &j.lda))
        j.a = x.data;
    else
        j.fill = input_pixels;
    j.sink = output_patches;
    j.bias = tensor_given(b) ? b.data : NULL;
    j.context = &p;
    cpu_gemm(d, &j);
}
