/* ref.h - what the files of the reference device share: access to rows, sums, the softmax. */
#ifndef OPS_REF_H
#define OPS_REF_H

#include "base/rng.h"
#include "ops/args.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846

/* ---- access: the last axis is contiguous, so a pointer to a row is all that is needed ------------------------ */

static inline double *row0(tensor t) { return t.data; }

static inline double *row1(tensor t, int64_t i) { return (double *)t.data + i * t.stride[0]; }

static inline double *row2(tensor t, int64_t i, int64_t j)
{
    return (double *)t.data + i * t.stride[0] + j * t.stride[1];
}

static inline double *row3(tensor t, int64_t i, int64_t j, int64_t k)
{
    return (double *)t.data + i * t.stride[0] + j * t.stride[1] + k * t.stride[2];
}

static inline int32_t *ids1(tensor t, int64_t i) { return (int32_t *)t.data + i * t.stride[0]; }

/* Statistics that are not wanted go nowhere. */
static inline void put_stat(double *row, int64_t i, double value)
{
    if (row) row[i] = value;
}

/* The same view with leading axes of 1, up to 4. */
static inline tensor four_axes(tensor t)
{
    while (t.ndim < 4) t = tensor_unsqueeze(t, 0);
    return t;
}

/* (dim0, rest); panels of this device are contiguous rows */
static inline tensor matrix(tensor w)
{
    int64_t rest = tensor_count(w) / w.dim[0];
    tensor m = tensor_on(w.data, w.type, 2, (int64_t[]){ w.dim[0], rest });
    if (w.layout == LAYOUT_ROWS) m.stride[0] = w.stride[0];
    return m;
}

/* Four sums, so that the additions need not wait for each other. */
static inline double dot(const double *a, const double *b, int64_t n)
{
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    int64_t i = 0;
    for (; i + 4 <= n; i += 4) {
        s0 += a[i] * b[i];
        s1 += a[i + 1] * b[i + 1];
        s2 += a[i + 2] * b[i + 2];
        s3 += a[i + 3] * b[i + 3];
    }
    for (; i < n; i++) s0 += a[i] * b[i];
    return (s0 + s1) + (s2 + s3);
}

/* y += a x */
static inline void add_scaled(double *y, double a, const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) y[i] += a * x[i];
}

static inline double *scratch(dev *d, int64_t count)
{
    double *p = mem_alloc((size_t)count * sizeof *p);
    if (!p) dev_fail(d, SCA_ERR_MEMORY, "out of memory: %lld numbers for the reference device", (long long)count);
    return p;
}

static inline double activate(activation act, double x)
{
    switch (act) {
    case ACT_RELU: return x > 0 ? x : 0;
    case ACT_GELU: return 0.5 * x * erfc(-x / sqrt(2.0));
    case ACT_GELU_TANH: return 0.5 * x * (1 + tanh(sqrt(2 / PI) * (x + 0.044715 * x * x * x)));
    case ACT_NONE: break;
    }
    return x;
}

/* s = softmax(s); returns the log of the sum of exponentials */
static inline double softmax(double *s, int64_t n)
{
    double most = s[0], sum = 0;
    for (int64_t i = 1; i < n; i++) most = s[i] > most ? s[i] : most;
    for (int64_t i = 0; i < n; i++) sum += s[i] = exp(s[i] - most);
    for (int64_t i = 0; i < n; i++) s[i] /= sum;
    return most + log(sum);
}

static inline double log_sum_exp(const double *x, int64_t n)
{
    double most = x[0], sum = 0;
    for (int64_t i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    for (int64_t i = 0; i < n; i++) sum += exp(x[i] - most);
    return most + log(sum);
}

/* Calls fn for every row of up to three tensors of one shape. */
typedef void row_fn(double *y, const double *a, const double *b, int64_t n, const void *user);
void ref_each_row(tensor y, tensor a, tensor b, row_fn *fn, const void *user);

/* y = (x - mean) rstd w + b; returns mean and rstd */
typedef struct moments {
    double mean, rstd;
} moments;
moments ref_normalise(double *y, const double *x, const double *w, const double *b, int64_t C, double eps);

/* Row `row` of probabilities, `keys` of `width` given: dropped and scaled as op_dropout says. */
static inline void ref_drop_row(double *p, int64_t keys, int64_t row, int64_t width, dropout_options o)
{
    if (o.rate == 0) return;
    uint32_t limit = rng_limit(o.rate);
    for (int64_t s = 0; s < keys; s++) {
        bool gone = rng_dropped(o.key, (uint64_t)(row * ((width + 3) / 4 * 4) + s), limit);
        p[s] = gone ? 0 : p[s] / (1 - (double)o.rate);
    }
}

void ref_rotate(tensor y, tensor x, tensor at, rope_options o, double direction);

/* One window of op_relpos_attention_fwd: the map from (y0, x0), side_h x side_w positions, some perhaps outside. */
typedef struct window {
    tensor qkv, pad, rel_h, rel_w;
    int64_t b, y0, x0, side_h, side_w, heads, D;
    double scale;
    const double *zeros; /* (3*H*D), for an absent pad */
} window;
/* The first window of a map like y (B,h,w,C); zeros: (3*C). */
window ref_window_first(tensor y, tensor qkv, tensor pad, tensor rel_h, tensor rel_w, relpos_options o,
                        const double *zeros);
static inline bool window_has(const window *w, int64_t ky, int64_t kx)
{
    return w->y0 + ky < w->qkv.dim[1] && w->x0 + kx < w->qkv.dim[2];
}
/* Part 0, 1, 2: the query, key, value of one head at position (ky, kx) of the window. */
const double *ref_window_part(const window *w, int part, int64_t head, int64_t ky, int64_t kx);
/* s[ky side_w + kx]: scores of the query at (qy, qx); bias holds side_h + side_w numbers */
void ref_window_scores(const window *w, int64_t head, int64_t qy, int64_t qx, double *s, double *bias);
/* Calls fn for every window. */
typedef void window_fn(const window *w, const void *user);
void ref_each_window(window first, int64_t h, int64_t w, window_fn *fn, const void *user);

/* Where output position i of `to` falls on an axis of `from` pixels. Source: torch upsample, align_corners false. */
typedef struct tap {
    int64_t low, high;
    double part; /* of high */
} tap;

/* The samples of one box on one axis: cell i has `count`, sample j of it lies at `start + i cell + (j + 0.5) cell / count`. */
typedef struct roi_axis {
    double start, cell;
    int64_t count;
} roi_axis;
roi_axis ref_roi_axis(double from, double to, double scale, int64_t cells);
/* False where the sample lies too far outside to count. */
bool ref_roi_tap(const roi_axis *a, int64_t cell, int64_t sample, int64_t size, tap *out);

#define OP(name, parameters, arguments) void ref_##name(dev *d, OP_UNPACK parameters);
#include "ops/ops.def"
#undef OP

#endif
