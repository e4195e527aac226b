/* roi.c - RoIAlign: every cell of a box is a weighted sum of rows of the map. */
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

/* Source: torchvision roi_align_kernel.cpp, aligned, as many samples per cell as it has pixels. */
typedef struct axis {
    double start, cell;
    int64_t count, size; /* samples per cell; pixels of the map */
} axis;

typedef struct sample { /* two neighbours and the weight of each; both weights 0: outside */
    int64_t low, high;
    float at_low, at_high;
} sample;

typedef struct roi {
    const cpu *c;
    tensor y, x, boxes, index; /* y: (N,h,w,C), x: (B,H,W,C), or their gradients */
    float scale;
} roi;

enum { LANES = 64 }; /* channels of a task on the way back */

static axis axis_of(const roi *p, int64_t n, int first, int64_t cells, int64_t size)
{
    const float *box = (const float *)p->boxes.data + n * p->boxes.stride[0];
    double from = (double)box[first] * (double)p->scale, to = (double)box[first + 2] * (double)p->scale;
    axis a = { .start = from - 0.5, .cell = (to - from) / (double)cells, .size = size };
    a.count = a.cell > 0.0 ? (int64_t)ceil(a.cell) : 0;
    return a;
}

static sample sample_of(const axis *a, int64_t cell, int64_t i)
{
    double at = a->start + (double)cell * a->cell + ((double)i + 0.5) * a->cell / (double)a->count;
    if (at < -1.0 || at > (double)a->size) return (sample){ 0 };
    int64_t low = at > 0.0 ? (int64_t)at : 0;
    if (low >= a->size - 1) return (sample){ a->size - 1, a->size - 1, 1.0f, 0.0f };
    float part = at > 0.0 ? (float)(at - (double)low) : 0.0f;
    return (sample){ low, low + 1, 1.0f - part, part };
}

static int64_t map_of(const roi *p, int64_t n)
{
    return tensor_given(p->index) ? ((const int32_t *)p->index.data)[n] : 0;
}

static void add_scaled(float *y, float a, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n && a != 0.0f; i++) y[i] += a * x[i];
}

static void fwd_task(void *context, int64_t task, int thread)
{
    const roi *p = context;
    int64_t h = p->y.dim[1], w = p->y.dim[2], C = p->y.dim[3], n = task / h, i = task % h;
    axis v = axis_of(p, n, 1, h, p->x.dim[1]), u = axis_of(p, n, 0, w, p->x.dim[2]);
    const float *map = (const float *)p->x.data + map_of(p, n) * p->x.stride[0];
    (void)thread;
    for (int64_t j = 0; j < w; j++) {
        float *y = (float *)p->y.data + n * p->y.stride[0] + i * p->y.stride[1] + j * p->y.stride[2];
        float weight = 1.0f / (float)(v.count * u.count);
        memset(y, 0, (size_t)C * sizeof *y);
        for (int64_t k = 0; k < v.count * u.count; k++) {
            sample a = sample_of(&v, i, k / u.count), b = sample_of(&u, j, k % u.count);
            const float *low = map + a.low * p->x.stride[1], *high = map + a.high * p->x.stride[1];
            add_scaled(y, weight * a.at_low * b.at_low, low + b.low * p->x.stride[2], C);
            add_scaled(y, weight * a.at_low * b.at_high, low + b.high * p->x.stride[2], C);
            add_scaled(y, weight * a.at_high * b.at_low, high + b.low * p->x.stride[2], C);
            add_scaled(y, weight * a.at_high * b.at_high, high + b.high * p->x.stride[2], C);
        }
    }
}

void cpu_roi_align_fwd(dev *d, tensor y, tensor x, tensor boxes, tensor index, float scale)
{
    roi p = { .c = cpu_of(d), .y = y, .x = x, .boxes = boxes, .index = index, .scale = scale };
    cpu_parallel(p.c, y.dim[0] * y.dim[1], fwd_task, &p);
}

/* ---- backward: a task owns some channels of the whole gradient and goes through the boxes in order -------------- */

static void spread(const roi *p, int64_t n, int64_t c0, int64_t lanes)
{
    int64_t h = p->y.dim[1], w = p->y.dim[2];
    axis v = axis_of(p, n, 1, h, p->x.dim[1]), u = axis_of(p, n, 0, w, p->x.dim[2]);
    float *map = (float *)p->x.data + map_of(p, n) * p->x.stride[0] + c0;
    float weight = 1.0f / (float)(v.count * u.count);
    for (int64_t cell = 0; cell < h * w; cell++) {
        int64_t i = cell / w, j = cell % w;
        const float *dy =
            (const float *)p->y.data + n * p->y.stride[0] + i * p->y.stride[1] + j * p->y.stride[2] + c0;
        for (int64_t k = 0; k < v.count * u.count; k++) {
            sample a = sample_of(&v, i, k / u.count), b = sample_of(&u, j, k % u.count);
            float *low = map + a.low * p->x.stride[1], *high = map + a.high * p->x.stride[1];
            add_scaled(low + b.low * p->x.stride[2], weight * a.at_low * b.at_low, dy, lanes);
            add_scaled(low + b.high * p->x.stride[2], weight * a.at_low * b.at_high, dy, lanes);
            add_scaled(high + b.low * p->x.stride[2], weight * a.at_high * b.at_low, dy, lanes);
            add_scaled(high + b.high * p->x.stride[2], weight * a.at_high * b.at_high, dy, lanes);
        }
    }
}

static void bwd_task(void *context, int64_t task, int thread)
{
    const roi *p = context;
    int64_t c0 = task * LANES, lanes = min64(LANES, p->x.dim[3] - c0), N = p->y.dim[0];
    (void)thread;
    for (int64_t r = 0; r < cpu_rows(&p->x); r++)
        memset((float *)p->x.data + cpu_row_offset(&p->x, r) + c0, 0, (size_t)lanes * sizeof(float));
    for (int64_t n = 0; n < N; n++) spread(p, n, c0, lanes);
}

void cpu_roi_align_bwd(dev *d, tensor dx, tensor dy, tensor boxes, tensor index, float scale)
{
    roi p = { .c = cpu_of(d), .y = dy, .x = dx, .boxes = boxes, .index = index, .scale = scale };
    cpu_parallel(p.c, ceil_div(dx.dim[3], LANES), bwd_task, &p);
}
