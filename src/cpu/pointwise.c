/* pointwise.c - element by element, copies, look-ups and position codes. */
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

/* ---- rows of up to three operands ------------------------------------------------------------------------- */

typedef struct rows rows;
typedef void row_fn(const rows *w, int64_t r, float *y, const float *a, const float *b, float *scratch);
struct rows {
    const cpu *c;
    tensor y, a, b; /* b may be absent; same leading axes */
    row_fn *fn;
    int64_t n, grain;
    activation act;
};

static const void *row_of(const tensor *t, int64_t r)
{
    return (const char *)t->data + (size_t)cpu_row_offset(t, r) * dtype_bytes(t->type);
}

static void rows_task(void *context, int64_t task, int thread)
{
    const rows *w = context;
    int64_t from = task * w->grain, to = min64(cpu_rows(&w->y), from + w->grain);
    float *scratch = cpu_scratch_of(w->c, thread);
    for (int64_t r = from; r < to; r++)
        w->fn(w, r, (float *)w->y.data + cpu_row_offset(&w->y, r), row_of(&w->a, r),
              tensor_given(w->b) ? row_of(&w->b, r) : NULL, scratch);
}

/* Contiguous operands are cut into rows of a size that suits the threads. */
static tensor recut(tensor t, int64_t n) { return tensor_reshape2(t, tensor_count(t) / n, n); }

static void run_rows(dev *d, rows w, int64_t cost)
{
    w.c = cpu_of(d);
    int64_t count = tensor_count(w.y), n = 4096;
    if (count == 0) return;
    if (w.y.ndim == 0) w.y = tensor_reshape1(w.y, 1), w.a = tensor_reshape1(w.a, 1);
    bool flat = tensor_contiguous(w.y) && tensor_contiguous(w.a) && (!tensor_given(w.b) || tensor_contiguous(w.b));
    if (flat && count % n == 0 && w.y.dim[w.y.ndim - 1] < n) {
        w.y = recut(w.y, n);
        w.a = recut(w.a, n);
        if (tensor_given(w.b)) w.b = recut(w.b, n);
    }
    w.n = w.y.dim[w.y.ndim - 1];
    w.grain = cpu_grain(w.c, cpu_rows(&w.y), w.n * cost);
    if (!cpu_scratch(d, (size_t)(2 * w.n) * sizeof(float), 0)) return;
    cpu_parallel(w.c, ceil_div(cpu_rows(&w.y), w.grain), rows_task, &w);
}

static void activation_row(const rows *w, int64_t r, float *y, const float *a, const float *b, float *scratch)
{
    (void)r;
    (void)b;
    (void)scratch;
    w->c->kernels->activate(y, a, w->n, w->act);
}

void cpu_activation_fwd(dev *d, tensor y, tensor x, activation act)
{
    run_rows(d, (rows){ .y = y, .a = x, .b = tensor_none(), .fn = activation_row, .act = act }, 4);
}

static void silu_mul_row(const rows *w, int64_t r, float *y, const float *a, const float *b, float *scratch)
{
    (void)r;
    (void)scratch;
    w->c->kernels->silu_mul(y, a, b, w->n);
}

void cpu_silu_mul_fwd(dev *d, tensor y, tensor x, tensor u)
{
    run_rows(d, (rows){ .y = y, .a = x, .b = u, .fn = silu_mul_row }, 4);
}

static void add_row(const rows *w, int64_t r, float *y, const float *a, const float *b, float *scratch)
{
    const cpu_kernels *k = w->c->kernels;
    (void)r;
    if (w->a.type != DT_F32) {
        k->widen(scratch, w->a.type, a, w->n);
        a = scratch;
    }
    if (w->b.type != DT_F32) {
        k->widen(scratch + w->n, w->b.type, b, w->n);
        b = scratch + w->n;
    }
    k->add(y, a, b, w->n);
}

void cpu_add_fwd(dev *d, tensor y, tensor a, tensor b)
{
    run_rows(d, (rows){ .y = y, .a = a, .b = b, .fn = add_row }, 1);
}

/* ---- copy, fill ---------------------------------------------------------------------------------------------- */

typedef struct copying {
    tensor y, x;
    int64_t grain;
} copying;

static void copy_task(void *context, int64_t task, int thread)
{
    const copying *p = context;
    int64_t n = p->y.dim[p->y.ndim - 1], from = task * p->grain, to = min64(cpu_rows(&p->y), from + p->grain);
    size_t size = dtype_bytes(p->y.type);
    (void)thread;
    for (int64_t r = from; r < to; r++) {
        char *y = (char *)p->y.data + (size_t)cpu_row_offset(&p->y, r) * size;
        const void *x = row_of(&p->x, r);
        if (p->x.type == p->y.type)
            memcpy(y, x, (size_t)n * size);
        else
            dtype_convert(p->y.type, y, p->x.type, x, (size_t)n);
    }
}

void cpu_copy(dev *d, tensor y, tensor x)
{
    copying p = { y, x, 0 };
    if (tensor_count(y) == 0) return;
    if (y.ndim == 0) p = (copying){ tensor_reshape1(y, 1), tensor_reshape1(x, 1), 0 };
    p.grain = cpu_grain(cpu_of(d), cpu_rows(&p.y), p.y.dim[p.y.ndim - 1]);
    cpu_parallel(cpu_of(d), ceil_div(cpu_rows(&p.y), p.grain), copy_task, &p);
}

void cpu_place(dev *d, tensor y, tensor x, tensor at)
{
    const int32_t *t = at.data;
    (void)d;
    for (int64_t b = 0; b < y.dim[0]; b++)
        memcpy((float *)y.data + b * y.stride[0] + t[b * at.stride[0]] * y.stride[1],
               (const float *)x.data + b * x.stride[0], (size_t)y.dim[2] * sizeof(float));
}

/* One element of y's type that stands for `value`. */
static void element(dtype type, double value, unsigned char out[8])
{
    int32_t i = (int32_t)value;
    uint8_t u = (uint8_t)value;
    if (type == DT_I32)
        memcpy(out, &i, sizeof i);
    else if (type == DT_U8)
        memcpy(out, &u, sizeof u);
    else
        dtype_convert(type, out, DT_F64, &value, 1);
}

void cpu_fill(dev *d, tensor y, double value)
{
    unsigned char one[8];
    size_t size = dtype_bytes(y.type);
    int64_t n = y.ndim ? y.dim[y.ndim - 1] : 1, count = tensor_count(y) ? cpu_rows(&y) : 0;
    (void)d;
    element(y.type, value, one);
    for (int64_t r = 0; r < count; r++) {
        char *p = (char *)y.data + (size_t)cpu_row_offset(&y, r) * size;
        size_t bytes = (size_t)n * size, done = size;
        memcpy(p, one, size);
        for (; done < bytes; done *= 2) memcpy(p + done, p, done < bytes - done ? done : bytes - done);
    }
}

/* ---- look-ups and positions ------------------------------------------------------------------------------------
 */

typedef struct look_up {
    const cpu *c;
    tensor y, table, ids;
    int64_t grain;
} look_up;

static void look_up_row(const look_up *p, float *to, int64_t id)
{
    const cpu_kernels *k = p->c->kernels;
    const tensor *table = &p->table;
    int64_t C = p->y.dim[1], nr = k->nr;
    size_t size = dtype_bytes(table->type);
    const char *from = table->data;
    if (table->layout == LAYOUT_ROWS) {
        k->widen(to, table->type, from + (size_t)(id * table->stride[0]) * size, C);
        return;
    }
    from += (size_t)(id / nr * C * nr + id % nr) * size;
    for (int64_t c = 0; c < C; c++) dtype_convert(DT_F32, to + c, table->type, from + (size_t)(c * nr) * size, 1);
}

static void look_up_task(void *context, int64_t task, int thread)
{
    const look_up *p = context;
    int64_t from = task * p->grain, to = min64(p->y.dim[0], from + p->grain);
    const int32_t *ids = p->ids.data;
    (void)thread;
    for (int64_t r = from; r < to; r++) look_up_row(p, (float *)p->y.data + r * p->y.stride[0], ids[r]);
}

void cpu_embedding_fwd(dev *d, tensor y, tensor table, tensor ids)
{
    look_up p = { cpu_of(d), y, table, ids, cpu_grain(cpu_of(d), y.dim[0], y.dim[1]) };
    cpu_parallel(p.c, ceil_div(y.dim[0], p.grain), look_up_task, &p);
}

typedef struct rope {
    tensor y, x;
    const float *cosine, *sine; /* (T, D/2), or (B*T, D/2) where each sequence has its own place */
    bool own;
} rope;

static void rope_task(void *context, int64_t task, int thread)
{
    const rope *p = context;
    int64_t T = p->x.dim[1], H = p->x.dim[2], half = p->x.dim[3] / 2, b = task / T, t = task % T;
    const float *c = p->cosine + (p->own ? task : t) * half, *s = p->sine + (p->own ? task : t) * half;
    (void)thread;
    for (int64_t h = 0; h < H; h++) {
        float *y = (float *)p->y.data + b * p->y.stride[0] + t * p->y.stride[1] + h * p->y.stride[2];
        const float *x = (const float *)p->x.data + b * p->x.stride[0] + t * p->x.stride[1] + h * p->x.stride[2];
        for (int64_t i = 0; i < half; i++) {
            float u = x[i], v = x[i + half];
            y[i] = u * c[i] - v * s[i];
            y[i + half] = v * c[i] + u * s[i];
        }
    }
}

/* `way` -1 turns the other way. */
static void rotate(dev *d, tensor y, tensor x, tensor at, rope_options o, float way)
{
    cpu *c = cpu_of(d);
    bool own = tensor_given(at);
    int64_t T = x.dim[1], half = x.dim[3] / 2, places = own ? x.dim[0] * T : T;
    if (!cpu_scratch(d, 0, (size_t)(2 * places * half) * sizeof(float))) return;
    float *cosine = cpu_scratch_shared(c), *sine = cosine + places * half;
    for (int64_t i = 0; i < half; i++) {
        double turn = pow((double)o.theta, -2.0 * (double)i / (double)(2 * half));
        for (int64_t r = 0; r < places; r++) {
            int64_t place = o.first + r % T + (own ? ((const int32_t *)at.data)[r / T * at.stride[0]] : 0);
            cosine[r * half + i] = (float)cos((double)place * turn);
            sine[r * half + i] = way * (float)sin((double)place * turn);
        }
    }
    rope p = { y, x, cosine, sine, own };
    cpu_parallel(c, x.dim[0] * T, rope_task, &p);
}

void cpu_rope_fwd(dev *d, tensor y, tensor x, tensor at, rope_options o) { rotate(d, y, x, at, o, 1.0f); }

void cpu_rope_bwd(dev *d, tensor dx, tensor dy, rope_options o) { rotate(d, dx, dy, tensor_none(), o, -1.0f); }

typedef struct fourier {
    tensor y, c, g;
} fourier;

static void fourier_task(void *context, int64_t r, int thread)
{
    const double turn = 6.283185307179586;
    const fourier *p = context;
    int64_t F = p->g.dim[1];
    const float *gx = p->g.data, *gy = gx + p->g.stride[0];
    const float *at = (const float *)p->c.data + r * p->c.stride[0];
    float *row = (float *)p->y.data + r * p->y.stride[0];
    (void)thread;
    for (int64_t f = 0; f < F; f++) {
        double angle = turn * ((double)at[0] * (double)gx[f] + (double)at[1] * (double)gy[f]);
        row[f] = (float)sin(angle);
        row[F + f] = (float)cos(angle);
    }
}

void cpu_fourier_fwd(dev *d, tensor y, tensor c, tensor g)
{
    fourier p = { y, c, g };
    cpu_parallel(cpu_of(d), y.dim[0], fourier_task, &p);
}

/* ---- masks
 * ---------------------------------------------------------------------------------------------------------- */

typedef struct resize {
    tensor y, x;
    const int64_t *left; /* per column of y: left neighbour and the weight of the right one */
    const float *weight;
} resize;

/* Source position of output i, half-pixel centres, clamped at the first pixel as PyTorch does. */
static int64_t resize_at(int64_t i, int64_t out, int64_t in, float *weight)
{
    double at = ((double)i + 0.5) * ((double)in / (double)out) - 0.5;
    if (at < 0.0) at = 0.0;
    int64_t low = min64((int64_t)at, in - 1);
    *weight = low + 1 < in ? (float)(at - (double)low) : 0.0f;
    return low;
}

static void resize_task(void *context, int64_t task, int thread)
{
    const resize *p = context;
    int64_t h = p->y.dim[1], w = p->y.dim[2], H = p->x.dim[1], W = p->x.dim[2], n = task / h, i = task % h;
    float v;
    int64_t top = resize_at(i, h, H, &v), below = min64(top + 1, H - 1);
    const float *x = (const float *)p->x.data + n * p->x.stride[0];
    const float *a = x + top * p->x.stride[1], *b = x + below * p->x.stride[1];
    float *y = (float *)p->y.data + n * p->y.stride[0] + i * p->y.stride[1];
    (void)thread;
    for (int64_t j = 0; j < w; j++) {
        int64_t l = p->left[j], r = min64(l + 1, W - 1);
        float u = p->weight[j];
        float upper = a[l] + u * (a[r] - a[l]), lower = b[l] + u * (b[r] - b[l]);
        y[j] = upper + v * (lower - upper);
    }
}

void cpu_resize_fwd(dev *d, tensor y, tensor x)
{
    cpu *c = cpu_of(d);
    int64_t w = y.dim[2];
    if (!cpu_scratch(d, 0, (size_t)w * (sizeof(int64_t) + sizeof(float)))) return;
    int64_t *left = cpu_scratch_shared(c);
    float *weight = (float *)(left + w);
    for (int64_t j = 0; j < w; j++) left[j] = resize_at(j, w, x.dim[2], &weight[j]);
    resize p = { y, x, left, weight };
    cpu_parallel(c, y.dim[0] * y.dim[1], resize_task, &p);
}

void cpu_threshold_fwd(dev *d, tensor y, tensor x, float t)
{
    int64_t n = y.ndim ? y.dim[y.ndim - 1] : 1, count = tensor_count(y) ? cpu_rows(&y) : 0;
    (void)d;
    for (int64_t r = 0; r < count; r++) {
        uint8_t *to = (uint8_t *)y.data + cpu_row_offset(&y, r);
        const float *from = row_of(&x, r);
        for (int64_t i = 0; i < n; i++) to[i] = from[i] > t;
    }
}
