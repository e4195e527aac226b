/* sum.c - sums over axes and over everything. A task owns its outputs; longer sums are cut into pieces of a fixed length,
 * in float within a piece and in double over the pieces. */
#include "cpu/cpu.h"

#include <string.h>

enum {
    COLUMNS = 64, /* of a task */
    PIECE = 64    /* rows of a piece */
};

typedef struct sums {
    const cpu *c;
    tensor y, x; /* four axes */
    bool add;
    int64_t blocks; /* of columns */
} sums;

/* Index `of` of the axes before the last that y keeps, as an offset into t. */
static int64_t kept_offset(const sums *s, const tensor *t, int64_t of)
{
    int64_t offset = 0;
    for (int i = 2; i >= 0; i--) {
        offset += of % s->y.dim[i] * t->stride[i];
        of /= s->y.dim[i];
    }
    return offset;
}

static int64_t summed(const sums *s, int axis) { return s->y.dim[axis] == 1 ? s->x.dim[axis] : 1; }

/* The last axis is kept: a block of columns, added up over rows. */
static void columns_task(void *context, int64_t task, int thread)
{
    const sums *s = context;
    int64_t c0 = task % s->blocks * COLUMNS, cols = min64(COLUMNS, s->y.dim[3] - c0), of = task / s->blocks;
    const float *x = (const float *)s->x.data + kept_offset(s, &s->x, of) + c0;
    float *y = (float *)s->y.data + kept_offset(s, &s->y, of) + c0;
    double whole[COLUMNS] = { 0 };
    (void)thread;
    for (int64_t i = 0; i < summed(s, 0); i++)
        for (int64_t j = 0; j < summed(s, 1); j++)
            for (int64_t k = 0; k < summed(s, 2); k += PIECE) {
                float piece[COLUMNS] = { 0 };
                s->c->kernels->add_down(piece, x + i * s->x.stride[0] + j * s->x.stride[1] + k * s->x.stride[2],
                                        s->x.stride[2], min64(PIECE, summed(s, 2) - k), cols);
                for (int64_t c = 0; c < cols; c++) whole[c] += (double)piece[c];
            }
    for (int64_t c = 0; c < cols; c++) y[c] = (float)((s->add ? (double)y[c] : 0.0) + whole[c]);
}

/* The last axis is summed: one number. */
static void number_task(void *context, int64_t of, int thread)
{
    const sums *s = context;
    const float *x = (const float *)s->x.data + kept_offset(s, &s->x, of);
    float *y = (float *)s->y.data + kept_offset(s, &s->y, of);
    double whole = s->add ? (double)*y : 0.0;
    (void)thread;
    for (int64_t i = 0; i < summed(s, 0); i++)
        for (int64_t j = 0; j < summed(s, 1); j++)
            for (int64_t k = 0; k < summed(s, 2); k++)
                whole += s->c->kernels->sum(x + i * s->x.stride[0] + j * s->x.stride[1] + k * s->x.stride[2],
                                            s->x.dim[3]);
    *y = (float)whole;
}

void cpu_sum(dev *d, tensor y, tensor x, bool add)
{
    while (y.ndim < 4) {
        y = tensor_unsqueeze(y, 0);
        x = tensor_unsqueeze(x, 0);
    }
    sums s = { .c = cpu_of(d), .y = y, .x = x, .add = add, .blocks = ceil_div(y.dim[3], COLUMNS) };
    int64_t outer = y.dim[0] * y.dim[1] * y.dim[2];
    if (y.dim[3] == x.dim[3])
        cpu_parallel(s.c, outer * s.blocks, columns_task, &s);
    else
        cpu_parallel(s.c, outer, number_task, &s);
}

/* ---- op_sum_squares ---------------------------------------------------------------------------------------- */

enum { SQUARES = 65536 }; /* of a task, at most */

typedef struct squares {
    const cpu *c;
    tensor x;
    int64_t row, pieces, piece; /* elements that lie together; pieces of such a row, and their length */
    double *part;
} squares;

static void squares_task(void *context, int64_t task, int thread)
{
    const squares *s = context;
    int64_t from = task % s->pieces * s->piece, n = min64(s->piece, s->row - from), r = task / s->pieces;
    int64_t offset = s->row == tensor_count(s->x) ? 0 : cpu_row_offset(&s->x, r);
    const char *x = (const char *)s->x.data + (size_t)(offset + from) * dtype_bytes(s->x.type);
    float *wide = cpu_scratch_of(s->c, thread);
    if (s->x.type == DT_F32)
        wide = (float *)(uintptr_t)x;
    else
        s->c->kernels->widen(wide, s->x.type, x, n);
    s->part[task] = s->c->kernels->sum_squares(wide, n, 0.0f);
}

void cpu_sum_squares(dev *d, tensor y, tensor x, bool add)
{
    squares s = { .c = cpu_of(d), .x = x };
    int64_t count = tensor_count(x);
    s.row = tensor_contiguous(x) ? count : x.dim[x.ndim - 1];
    s.piece = min64(SQUARES, s.row);
    s.pieces = ceil_div(s.row, s.piece);
    int64_t tasks = count / s.row * s.pieces;
    if (!cpu_scratch(d, SQUARES * sizeof(float), (size_t)tasks * sizeof(double))) return;
    s.part = cpu_scratch_shared(s.c);
    cpu_parallel(s.c, tasks, squares_task, &s);
    double whole = add ? *(const double *)y.data : 0.0;
    for (int64_t i = 0; i < tasks; i++) whole += s.part[i];
    *(double *)y.data = whole;
}
