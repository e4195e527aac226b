/* ref.c - the definition of every op: plain loops in double precision. Clarity is the point; speed is not.
 *
 * Every float tensor is F64, the host's memory is the device's. Contracts hold when a function is entered (ops.c).
 */
#include "ops/ref.h"

/* ---- products ---------------------------------------------------------------------------------------------- */

void ref_linear_fwd(dev *d, tensor y, tensor x, tensor w, tensor b, tensor r, linear_options o)
{
    int64_t N = y.dim[1], K = x.dim[1];
    tensor m = matrix(w);
    double *sum = scratch(d, N);
    if (!sum) return;
    for (int64_t i = 0; i < y.dim[0]; i++) {
        const double *from = row1(x, i), *residual = tensor_given(r) ? row1(r, i) : NULL;
        memset(sum, 0, (size_t)N * sizeof *sum);
        if (o.in_out)
            for (int64_t k = 0; k < K; k++) add_scaled(sum, from[k], row1(m, k), N);
        else
            for (int64_t n = 0; n < N; n++) sum[n] = dot(from, row1(m, n), K);
        for (int64_t n = 0; n < N; n++) {
            double value = activate(o.act, sum[n] + (tensor_given(b) ? row0(b)[n] : 0));
            row1(y, i)[n] = value + (residual ? residual[n] : 0);
        }
    }
    mem_free(sum);
}

void ref_pack(dev *d, tensor y, tensor w, bool in_out)
{
    (void)d;
    (void)in_out;
    tensor from = matrix(w), to = matrix(y);
    for (int64_t i = 0; i < to.dim[0]; i++) memcpy(row1(to, i), row1(from, i), (size_t)to.dim[1] * sizeof(double));
}

static void product(tensor y, tensor a, tensor b, matmul_options o)
{
    int64_t M = y.dim[0], N = y.dim[1], K = a.dim[1];
    for (int64_t i = 0; i < M; i++) {
        double *to = row1(y, i);
        const double *from = row1(a, i);
        if (o.trans_b) {
            for (int64_t j = 0; j < N; j++) to[j] = (double)o.alpha * dot(from, row1(b, j), K);
            continue;
        }
        memset(to, 0, (size_t)N * sizeof *to);
        for (int64_t k = 0; k < K; k++) add_scaled(to, from[k], row1(b, k), N);
        for (int64_t j = 0; j < N; j++) to[j] *= (double)o.alpha;
    }
}

void ref_matmul_fwd(dev *d, tensor y, tensor a, tensor b, matmul_options o)
{
    (void)d;
    y = four_axes(y);
    a = four_axes(a);
    b = four_axes(b);
    for (int64_t i = 0; i < y.dim[0]; i++)
        for (int64_t j = 0; j < y.dim[1]; j++)
            product(tensor_at(tensor_at(y, i), j), tensor_at(tensor_at(a, i), j), tensor_at(tensor_at(b, i), j), o);
}

/* ---- norms and elementwise ------------------------------------------------------------------------------------
 */

moments ref_normalise(double *y, const double *x, const double *w, const double *b, int64_t C, double eps)
{
    double sum = 0, square = 0;
    for (int64_t c = 0; c < C; c++) sum += x[c];
    double mean = sum / (double)C;
    for (int64_t c = 0; c < C; c++) square += (x[c] - mean) * (x[c] - mean);
    double rstd = 1 / sqrt(square / (double)C + eps);
    for (int64_t c = 0; c < C; c++) y[c] = (x[c] - mean) * rstd * w[c] + b[c];
    return (moments){ mean, rstd };
}

void ref_layernorm_fwd(dev *d, tensor y, tensor mean, tensor rstd, tensor x, tensor w, tensor b, float eps)
{
    (void)d;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        moments m = ref_normalise(row1(y, i), row1(x, i), row0(w), row0(b), x.dim[1], (double)eps);
        put_stat(row0(mean), i, m.mean);
        put_stat(row0(rstd), i, m.rstd);
    }
}

void ref_rmsnorm_fwd(dev *d, tensor y, tensor rstd, tensor x, tensor w, float eps)
{
    (void)d;
    int64_t C = x.dim[1];
    for (int64_t i = 0; i < x.dim[0]; i++) {
        const double *from = row1(x, i);
        double scale = 1 / sqrt(dot(from, from, C) / (double)C + (double)eps);
        for (int64_t c = 0; c < C; c++) row1(y, i)[c] = from[c] * scale * row0(w)[c];
        put_stat(row0(rstd), i, scale);
    }
}

void ref_each_row(tensor y, tensor a, tensor b, row_fn *fn, const void *user)
{
    y = four_axes(y);
    a = four_axes(a);
    b = four_axes(b);
    for (int64_t i = 0; i < y.dim[0]; i++)
        for (int64_t j = 0; j < y.dim[1]; j++)
            for (int64_t k = 0; k < y.dim[2]; k++)
                fn(row3(y, i, j, k), row3(a, i, j, k), row3(b, i, j, k), y.dim[3], user);
}

static void activation_row(double *y, const double *a, const double *b, int64_t n, const void *user)
{
    (void)b;
    for (int64_t i = 0; i < n; i++) y[i] = activate(*(const activation *)user, a[i]);
}

void ref_activation_fwd(dev *d, tensor y, tensor x, activation act)
{
    (void)d;
    ref_each_row(y, x, x, activation_row, &act);
}

static void silu_mul_row(double *y, const double *a, const double *b, int64_t n, const void *user)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) y[i] = a[i] / (1 + exp(-a[i])) * b[i];
}

void ref_silu_mul_fwd(dev *d, tensor y, tensor x, tensor u)
{
    (void)d;
    ref_each_row(y, x, u, silu_mul_row, NULL);
}

static void add_row(double *y, const double *a, const double *b, int64_t n, const void *user)
{
    (void)user;
    for (int64_t i = 0; i < n; i++) y[i] = a[i] + b[i];
}

void ref_add_fwd(dev *d, tensor y, tensor a, tensor b)
{
    (void)d;
    ref_each_row(y, a, b, add_row, NULL);
}

static char *any_row(tensor t, int64_t i, int64_t j, int64_t k)
{
    int64_t offset = i * t.stride[0] + j * t.stride[1] + k * t.stride[2];
    return (char *)t.data + offset * (int64_t)dtype_bytes(t.type);
}

void ref_copy(dev *d, tensor y, tensor x)
{
    (void)d;
    y = four_axes(y);
    x = four_axes(x);
    for (int64_t i = 0; i < y.dim[0]; i++)
        for (int64_t j = 0; j < y.dim[1]; j++)
            for (int64_t k = 0; k < y.dim[2]; k++)
                dtype_convert(y.type, any_row(y, i, j, k), x.type, any_row(x, i, j, k), (size_t)y.dim[3]);
}

void ref_fill(dev *d, tensor y, double value)
{
    (void)d;
    char one[8];
    int32_t whole = y.type == DT_I32 ? (int32_t)value : 0;
    if (y.type == DT_I32)
        memcpy(one, &whole, sizeof whole);
    else
        dtype_convert(y.type, one, DT_F64, &value, 1);
    y = four_axes(y);
    size_t size = dtype_bytes(y.type);
    for (int64_t i = 0; i < y.dim[0]; i++)
        for (int64_t j = 0; j < y.dim[1]; j++)
            for (int64_t k = 0; k < y.dim[2]; k++)
                for (int64_t l = 0; l < y.dim[3]; l++) memcpy(any_row(y, i, j, k) + (size_t)l * size, one, size);
}

/* ---- tokens -------------------------------------------------------------------------------------------------- */

void ref_embedding_fwd(dev *d, tensor y, tensor table, tensor ids)
{
    (void)d;
    tensor m = matrix(table);
    for (int64_t i = 0; i < y.dim[0]; i++)
        memcpy(row1(y, i), row1(m, *ids1(ids, i)), (size_t)y.dim[1] * sizeof(double));
}

void ref_place(dev *d, tensor y, tensor x, tensor at)
{
    (void)d;
    for (int64_t b = 0; b < y.dim[0]; b++)
        memcpy(row2(y, b, *ids1(at, b)), row1(x, b), (size_t)x.dim[1] * sizeof(double));
}

/* By `direction` times the angle of each position: -1 turns back. */
void ref_rotate(tensor y, tensor x, tensor at, rope_options o, double direction)
{
    int64_t half = x.dim[3] / 2;
    for (int64_t b = 0; b < x.dim[0]; b++)
        for (int64_t t = 0; t < x.dim[1]; t++)
            for (int64_t i = 0; i < half; i++) {
                int64_t place = (tensor_given(at) ? *ids1(at, b) : 0) + o.first + t;
                double angle = (double)place * pow((double)o.theta, -(double)i / (double)half);
                double c = cos(angle), s = direction * sin(angle);
                for (int64_t h = 0; h < x.dim[2]; h++) {
                    double *to = row3(y, b, t, h);
                    double first = row3(x, b, t, h)[i], second = row3(x, b, t, h)[i + half];
                    to[i] = first * c - second * s;
                    to[i + half] = second * c + first * s;
                }
            }
}

void ref_rope_fwd(dev *d, tensor y, tensor x, tensor at, rope_options o)
{
    (void)d;
    ref_rotate(y, x, at, o, 1);
}

/* ---- attention ------------------------------------------------------------------------------------------------
 */

void ref_attention_fwd(dev *d, tensor y, tensor lse, tensor q, tensor k, tensor v, tensor index,
                       attention_options o)
{
    int64_t Tq = q.dim[1], H = q.dim[2], D = q.dim[3], Tk = k.dim[1], group = H / k.dim[2];
    double *p = scratch(d, Tk);
    if (!p) return;
    for (int64_t b = 0; b < q.dim[0]; b++)
        for (int64_t t = 0; t < Tq; t++)
            for (int64_t h = 0; h < H; h++) {
                const int32_t *from = tensor_given(index) ? ids1(index, b) : NULL;
                int64_t keys = o.causal ? t + Tk - Tq + 1 : Tk;
                for (int64_t s = 0; from && s < keys; s++)
                    if (from[s] < 0) keys = s;
                for (int64_t s = 0; s < keys; s++)
                    p[s] = (double)o.scale * dot(row3(q, b, t, h), row3(k, from ? from[s] : b, s, h / group), D);
                double sum = softmax(p, keys);
                ref_drop_row(p, keys, ((o.drop.first + b) * H + h) * Tq + t, Tk, o.drop);
                double *to = row3(y, b, t, h);
                memset(to, 0, (size_t)D * sizeof *to);
                for (int64_t s = 0; s < keys; s++)
                    add_scaled(to, p[s], row3(v, from ? from[s] : b, s, h / group), D);
                if (tensor_given(lse)) row2(lse, b, h)[t] = sum;
            }
    mem_free(p);
}

const double *ref_window_part(const window *w, int part, int64_t head, int64_t ky, int64_t kx)
{
    int64_t offset = (part * w->heads + head) * w->D;
    if (window_has(w, ky, kx)) return row3(w->qkv, w->b, w->y0 + ky, w->x0 + kx) + offset;
    return (tensor_given(w->pad) ? row0(w->pad) : w->zeros) + offset;
}

void ref_window_scores(const window *w, int64_t head, int64_t qy, int64_t qx, double *s, double *bias)
{
    const double *q = ref_window_part(w, 0, head, qy, qx);
    double *bias_w = bias + w->side_h;
    bool relative = tensor_given(w->rel_h);
    for (int64_t i = 0; i < w->side_h; i++)
        bias[i] = relative ? dot(q, row1(w->rel_h, qy - i + w->side_h - 1), w->D) : 0;
    for (int64_t i = 0; i < w->side_w; i++)
        bias_w[i] = relative ? dot(q, row1(w->rel_w, qx - i + w->side_w - 1), w->D) : 0;
    for (int64_t ky = 0; ky < w->side_h; ky++)
        for (int64_t kx = 0; kx < w->side_w; kx++)
            *s++ = w->scale * dot(q, ref_window_part(w, 1, head, ky, kx), w->D) + bias[ky] + bias_w[kx];
}

/* Attention of the query at (qy, qx) of the window; p and bias as for ref_window_scores. Returns lse. */
static double window_query(const window *w, int64_t head, int64_t qy, int64_t qx, double *p, double *bias,
                           double *out)
{
    ref_window_scores(w, head, qy, qx, p, bias);
    double lse = softmax(p, w->side_h * w->side_w);
    memset(out, 0, (size_t)w->D * sizeof *out);
    for (int64_t ky = 0; ky < w->side_h; ky++)
        for (int64_t kx = 0; kx < w->side_w; kx++) add_scaled(out, *p++, ref_window_part(w, 2, head, ky, kx), w->D);
    return lse;
}

void ref_each_window(window first, int64_t h, int64_t w, window_fn *fn, const void *user)
{
    for (first.b = 0; first.b < first.qkv.dim[0]; first.b++)
        for (first.y0 = 0; first.y0 < h; first.y0 += first.side_h)
            for (first.x0 = 0; first.x0 < w; first.x0 += first.side_w) fn(&first, user);
}

typedef struct window_out {
    tensor y, lse;
    double *p, *bias;
} window_out;

static void window_all(const window *w, const void *user)
{
    const window_out *o = user;
    for (int64_t head = 0; head < w->heads; head++)
        for (int64_t qy = 0; qy < w->side_h && w->y0 + qy < o->y.dim[1]; qy++)
            for (int64_t qx = 0; qx < w->side_w && w->x0 + qx < o->y.dim[2]; qx++) {
                double *out = row3(o->y, w->b, w->y0 + qy, w->x0 + qx) + head * w->D;
                double sum = window_query(w, head, qy, qx, o->p, o->bias, out);
                if (tensor_given(o->lse)) row3(o->lse, w->b, head, w->y0 + qy)[w->x0 + qx] = sum;
            }
}

window ref_window_first(tensor y, tensor qkv, tensor pad, tensor rel_h, tensor rel_w, relpos_options o,
                        const double *zeros)
{
    return (window){ .qkv = qkv,
                     .pad = pad,
                     .rel_h = rel_h,
                     .rel_w = rel_w,
                     .side_h = o.window ? o.window : y.dim[1],
                     .side_w = o.window ? o.window : y.dim[2],
                     .heads = o.heads,
                     .D = y.dim[3] / o.heads,
                     .scale = (double)o.scale,
                     .zeros = zeros };
}

void ref_relpos_attention_fwd(dev *d, tensor y, tensor lse, tensor qkv, tensor pad, tensor rel_h, tensor rel_w,
                              relpos_options o)
{
    int64_t h = y.dim[1], w = y.dim[2], C = y.dim[3];
    int64_t side_h = o.window ? o.window : h, side_w = o.window ? o.window : w;
    double *p = scratch(d, side_h * side_w + side_h + side_w + 3 * C);
    if (!p) return;
    double *bias = p + side_h * side_w, *zeros = bias + side_h + side_w;
    memset(zeros, 0, (size_t)(3 * C) * sizeof *zeros);
    window first = ref_window_first(y, qkv, pad, rel_h, rel_w, o, zeros);
    ref_each_window(first, h, w, window_all, &(window_out){ y, lse, p, bias });
    mem_free(p);
}

void ref_image_pool_fwd(dev *d, tensor y, tensor lse, tensor x, tensor pe, tensor a)
{
    int64_t S = x.dim[1], C = x.dim[2];
    double *p = scratch(d, S);
    if (!p) return;
    for (int64_t n = 0; n < y.dim[0]; n++)
        for (int64_t j = 0; j < y.dim[1]; j++) {
            const double *key = row2(a, n, j);
            for (int64_t s = 0; s < S; s++) p[s] = dot(row2(x, n, s), key, C) + dot(row1(pe, s), key, C);
            double sum = softmax(p, S);
            if (tensor_given(lse)) row1(lse, n)[j] = sum;
            double *to = row2(y, n, j);
            memset(to, 0, (size_t)C * sizeof *to);
            for (int64_t s = 0; s < S; s++) add_scaled(to, p[s], row2(x, n, s), C);
        }
    mem_free(p);
}

void ref_image_update_fwd(dev *d, tensor y, tensor x, tensor pe, tensor k, tensor kb, tensor v, tensor vb, tensor w,
                          tensor b, image_update_options o)
{
    int64_t S = x.dim[1], C = x.dim[2], J = k.dim[1], T = J / o.heads;
    double *p = scratch(d, J + 2 * C);
    if (!p) return;
    double *at = p + J, *sum = at + C;
    for (int64_t n = 0; n < y.dim[0]; n++)
        for (int64_t s = 0; s < S; s++) {
            const double *from = row2(x, n, s);
            for (int64_t c = 0; c < C; c++) {
                at[c] = from[c] + row1(pe, s)[c];
                sum[c] = from[c] + row0(vb)[c];
            }
            for (int64_t j = 0; j < J; j++) p[j] = dot(at, row2(k, n, j), C) + row1(kb, n)[j];
            for (int64_t h = 0; h < o.heads; h++) softmax(p + h * T, T);
            for (int64_t j = 0; j < J; j++) add_scaled(sum, p[j], row2(v, n, j), C);
            ref_normalise(row2(y, n, s), sum, row0(w), row0(b), C, (double)o.eps);
        }
    mem_free(p);
}

/* ---- images
 * ------------------------------------------------------------------------------------------------------ */

/* Input pixel under tap (i, j) of output pixel (oh, ow); NULL where it lies in the padding. */
static const double *conv_pixel(tensor x, int64_t n, int64_t h, int64_t w)
{
    if (h < 0 || h >= x.dim[1] || w < 0 || w >= x.dim[2]) return NULL;
    return row3(x, n, h, w);
}

static double conv_sum(tensor x, tensor w, int64_t n, int64_t oh, int64_t ow, int64_t o, conv_options c)
{
    int64_t C = w.dim[1], KH = w.dim[2], KW = w.dim[3];
    const double *weight = row1(matrix(w), o);
    double sum = 0;
    for (int64_t i = 0; i < KH; i++)
        for (int64_t j = 0; j < KW; j++) {
            const double *from = conv_pixel(x, n, oh * c.stride + i - c.pad, ow * c.stride + j - c.pad);
            for (int64_t k = 0; from && k < C; k++) sum += from[k] * weight[(k * KH + i) * KW + j];
        }
    return sum;
}

void ref_conv_fwd(dev *d, tensor y, tensor x, tensor w, tensor b, conv_options o)
{
    (void)d;
    for (int64_t n = 0; n < y.dim[0]; n++)
        for (int64_t oh = 0; oh < y.dim[1]; oh++)
            for (int64_t ow = 0; ow < y.dim[2]; ow++)
                for (int64_t c = 0; c < y.dim[3]; c++) {
                    double sum = conv_sum(x, w, n, oh, ow, c, o) + (tensor_given(b) ? row0(b)[c] : 0);
                    row3(y, n, oh, ow)[c] = activate(o.act, sum);
                }
}

void ref_conv_transpose_fwd(dev *d, tensor y, tensor x, tensor w, tensor b)
{
    (void)d;
    int64_t C = w.dim[0], O = w.dim[1], k = w.dim[2];
    tensor m = matrix(w); /* (C, O*k*k) */
    for (int64_t n = 0; n < y.dim[0]; n++)
        for (int64_t oh = 0; oh < y.dim[1]; oh++)
            for (int64_t ow = 0; ow < y.dim[2]; ow++)
                for (int64_t o = 0; o < O; o++) {
                    const double *from = row3(x, n, oh / k, ow / k);
                    int64_t at = (o * k + oh % k) * k + ow % k;
                    double sum = tensor_given(b) ? row0(b)[o] : 0;
                    for (int64_t c = 0; c < C; c++) sum += from[c] * row1(m, c)[at];
                    row3(y, n, oh, ow)[o] = sum;
                }
}

void ref_fourier_fwd(dev *d, tensor y, tensor c, tensor g)
{
    (void)d;
    int64_t F = g.dim[1];
    for (int64_t i = 0; i < y.dim[0]; i++)
        for (int64_t f = 0; f < F; f++) {
            double angle = 2 * PI * (row1(c, i)[0] * row1(g, 0)[f] + row1(c, i)[1] * row1(g, 1)[f]);
            row1(y, i)[f] = sin(angle);
            row1(y, i)[F + f] = cos(angle);
        }
}

static tap bilinear_tap(int64_t i, int64_t to, int64_t from)
{
    double at = ((double)i + 0.5) * (double)from / (double)to - 0.5;
    if (at < 0) at = 0;
    int64_t low = (int64_t)at;
    if (low > from - 1) low = from - 1;
    return (tap){ low, low + 1 < from ? low + 1 : low, at - (double)low };
}

void ref_resize_fwd(dev *d, tensor y, tensor x)
{
    (void)d;
    for (int64_t n = 0; n < y.dim[0]; n++)
        for (int64_t i = 0; i < y.dim[1]; i++)
            for (int64_t j = 0; j < y.dim[2]; j++) {
                tap v = bilinear_tap(i, y.dim[1], x.dim[1]), h = bilinear_tap(j, y.dim[2], x.dim[2]);
                const double *top = row2(x, n, v.low), *bottom = row2(x, n, v.high);
                double above = top[h.low] + (top[h.high] - top[h.low]) * h.part;
                double below = bottom[h.low] + (bottom[h.high] - bottom[h.low]) * h.part;
                row2(y, n, i)[j] = above + (below - above) * v.part;
            }
}

roi_axis ref_roi_axis(double from, double to, double scale, int64_t cells)
{
    roi_axis a = { .start = from * scale - 0.5 };
    a.cell = (to - from) * scale / (double)cells;
    a.count = a.cell > 0 ? (int64_t)ceil(a.cell) : 0;
    return a;
}

bool ref_roi_tap(const roi_axis *a, int64_t cell, int64_t sample, int64_t size, tap *out)
{
    double at = a->start + (double)cell * a->cell + ((double)sample + 0.5) * a->cell / (double)a->count;
    if (at < -1 || at > (double)size) return false;
    if (at < 0) at = 0;
    int64_t low = (int64_t)at;
    *out = low >= size - 1 ? (tap){ size - 1, size - 1, 0 } : (tap){ low, low + 1, at - (double)low };
    return true;
}

/* One sample of a map, weighted, added to the sums of all channels. */
static void roi_sample(double *to, tensor map, tap v, tap h, double weight)
{
    int64_t C = map.dim[2];
    add_scaled(to, weight * (1 - v.part) * (1 - h.part), row2(map, v.low, h.low), C);
    add_scaled(to, weight * (1 - v.part) * h.part, row2(map, v.low, h.high), C);
    add_scaled(to, weight * v.part * (1 - h.part), row2(map, v.high, h.low), C);
    add_scaled(to, weight * v.part * h.part, row2(map, v.high, h.high), C);
}

/* Source: torchvision roi_align_kernel.cpp and roi_align_common.h. */
void ref_roi_align_fwd(dev *d, tensor y, tensor x, tensor boxes, tensor index, float scale)
{
    (void)d;
    for (int64_t n = 0; n < y.dim[0]; n++) {
        const double *box = row1(boxes, n);
        tensor map = tensor_at(x, tensor_given(index) ? *ids1(index, n) : 0);
        roi_axis v = ref_roi_axis(box[1], box[3], (double)scale, y.dim[1]),
                 h = ref_roi_axis(box[0], box[2], (double)scale, y.dim[2]);
        for (int64_t i = 0; i < y.dim[1]; i++)
            for (int64_t j = 0; j < y.dim[2]; j++) {
                double *to = row3(y, n, i, j), weight = 1 / (double)(v.count * h.count);
                memset(to, 0, (size_t)y.dim[3] * sizeof *to);
                tap a, b;
                for (int64_t k = 0; k < v.count * h.count; k++)
                    if (ref_roi_tap(&v, i, k / h.count, map.dim[0], &a) &&
                        ref_roi_tap(&h, j, k % h.count, map.dim[1], &b))
                        roi_sample(to, map, a, b, weight);
            }
    }
}

void ref_threshold_fwd(dev *d, tensor y, tensor x, float t)
{
    (void)d;
    y = four_axes(y);
    x = four_axes(x);
    for (int64_t i = 0; i < y.dim[0]; i++)
        for (int64_t j = 0; j < y.dim[1]; j++)
            for (int64_t k = 0; k < y.dim[2]; k++)
                for (int64_t l = 0; l < y.dim[3]; l++) any_row(y, i, j, k)[l] = row3(x, i, j, k)[l] > (double)t;
}

/* ---- the vocabulary
 * ------------------------------------------------------------------------------------------------ */

void ref_log_softmax_fwd(dev *d, tensor y, tensor x)
{
    (void)d;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        double sum = log_sum_exp(row1(x, i), x.dim[1]);
        for (int64_t v = 0; v < x.dim[1]; v++) row1(y, i)[v] = row1(x, i)[v] - sum;
    }
}

/* NaN is smaller than every number. */
static bool above(double a, double b) { return a > b || (isnan(b) && !isnan(a)); }

void ref_argmax_fwd(dev *d, tensor index, tensor value, tensor x)
{
    (void)d;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        const double *from = row1(x, i);
        int64_t best = 0;
        for (int64_t v = 1; v < x.dim[1]; v++)
            if (above(from[v], from[best])) best = v;
        *ids1(index, i) = (int32_t)best;
        put_stat(row0(value), i, from[best]);
    }
}

/* The index of the best value that comes after (last_value, last) in the order: larger first, then lower index. */
static int64_t next_best(const double *x, int64_t n, int64_t last)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        bool after = last < 0 || above(x[last], x[i]) || (!above(x[i], x[last]) && i > last);
        if (after && (best < 0 || above(x[i], x[best]))) best = i;
    }
    return best;
}

void ref_topk_fwd(dev *d, tensor value, tensor index, tensor x)
{
    (void)d;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        int64_t last = -1;
        for (int64_t k = 0; k < value.dim[1]; k++) {
            last = next_best(row1(x, i), x.dim[1], last);
            ids1(index, i)[k] = (int32_t)last;
            row1(value, i)[k] = row1(x, i)[last];
        }
    }
}

/* Weights of the tokens that remain after top_k and top_p, 0 for the others. Source: transformers
 * generation/logits_process.py, TopKLogitsWarper (values equal to the k-th best stay) and TopPLogitsWarper. */
static void warp(double *p, const double *x, int64_t V, sample_options o)
{
    int64_t last = -1;
    for (int k = 0; k < o.top_k && k < V; k++) last = next_best(x, V, last);
    for (int64_t v = 0; v < V; v++) p[v] = last < 0 || x[v] >= x[last] ? x[v] / (double)o.temperature : -INFINITY;
    softmax(p, V);
    if (o.top_p >= 1) return;
    double reached = 0;
    int64_t least = -1;
    while (reached < (double)o.top_p) {
        int64_t next = next_best(p, V, least);
        if (next < 0) break;
        least = next;
        reached += p[next];
    }
    for (int64_t v = 0; v < V; v++)
        if (p[v] < p[least] || (p[v] == p[least] && v > least)) p[v] = 0;
}

void ref_sample_fwd(dev *d, tensor index, tensor x, tensor u, sample_options o)
{
    int64_t V = x.dim[1];
    double *p = scratch(d, V);
    if (!p) return;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        double total = 0, reached = 0;
        int64_t pick = 0;
        warp(p, row1(x, i), V, o);
        for (int64_t v = 0; v < V; v++) total += p[v];
        for (int64_t v = 0; v < V; v++) {
            if (!(p[v] > 0)) continue;
            pick = v; /* rounding may leave the sum short of u: then the last one */
            reached += p[v];
            if (reached > row0(u)[i] * total) break;
        }
        *ids1(index, i) = (int32_t)pick;
    }
    mem_free(p);
}

void ref_cross_entropy_fwd(dev *d, tensor loss, tensor lse, tensor x, tensor label, float smoothing)
{
    (void)d;
    int64_t V = x.dim[1];
    for (int64_t i = 0; i < x.dim[0]; i++) {
        const double *from = row1(x, i);
        double sum = log_sum_exp(from, V), all = 0;
        int32_t y = *ids1(label, i);
        put_stat(row0(lse), i, sum);
        for (int64_t v = 0; v < V; v++) all += from[v] - sum;
        double own =
            y == -100 ? 0 : (1 - (double)smoothing) * (from[y] - sum) + (double)smoothing / (double)V * all;
        row0(loss)[i] = -own;
    }
}

/* ---- the device
 * ------------------------------------------------------------------------------------------------------- */

static const op_table ref_ops = {
#define OP(name, parameters, arguments) .name = ref_##name,
#include "ops.def"
#undef OP
};

static sca_status ref_open(dev *d, const char *options)
{
    (void)d;
    return op_no_options("ref", options);
}

static void ref_close(dev *d) { (void)d; }

static void *ref_alloc(dev *d, size_t bytes)
{
    (void)d;
    return mem_aligned(64, bytes);
}

static void ref_release(dev *d, void *p, size_t bytes)
{
    (void)d;
    (void)bytes;
    mem_free(p);
}

static void ref_copy_bytes(dev *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    memcpy(dst, src, bytes);
}

static void ref_sync(dev *d) { (void)d; }

/* Plain rows, so that programs that pack run here as well. */
static size_t ref_panel_bytes(dtype type, int64_t N, int64_t K) { return (size_t)(N * K) * dtype_bytes(type); }

const backend ref_backend = {
    .name = "ref",
    .act = DT_F64,
    .host_memory = true,
    .open = ref_open,
    .close = ref_close,
    .alloc = ref_alloc,
    .release = ref_release,
    .put = ref_copy_bytes,
    .get = ref_copy_bytes,
    .sync = ref_sync,
    .panel_bytes = ref_panel_bytes,
    .ops = &ref_ops,
};
