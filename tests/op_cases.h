/* op_cases.h - the cases of the ops as data: what is called, with which shapes, types, views and options.
 *
 * `tensors` has one word per tensor parameter of ops.def, in order:
 *
 *     -              absent
 *     @x             the parameter x itself (in place)
 *     [+]T3x17[/v]   a tensor: type, dims, views and values
 *
 *   +   an output that is added to: it starts from values, not from NaN
 *   T   A P F W as in ops.def, I int32, U uint8, f h g D: F32, F16, BF16, F64 on every device.
 *       W: the case runs once for F32, F16 and BF16
 *   /s  strided: inside a larger buffer, rows and columns to spare, not aligned
 *   /t  axes 1 and 2 swapped in memory       /r  repeats over axis 0 (stride 0)
 *   /p  (W) panels as well as rows           /b  values large enough to overflow a careless exponential
 *   /q  values on a coarse grid, so that equal ones occur
 *   /u  values in [0,1)                      /o  values in [-1,1]
 *   /n  some values are NaN, the first among them
 *   /e  rows of indices end early: -1 from somewhere on, never from the start
 *   /x  rows of four are boxes x1 y1 x2 y2, most of them within 0..100
 *
 * Inputs of a backward op that its forward op gives (y, lse, mean, rstd) are computed, not drawn (op_run.c).
 */
#ifndef OP_CASES_H
#define OP_CASES_H

#include "ops/ops.h"

typedef struct op_options { /* the parameters that are no tensors */
    linear_options linear;
    matmul_options matmul;
    rope_options rope;
    attention_options attention;
    relpos_options relpos;
    image_update_options update;
    conv_options conv;
    sample_options sample;
    dropout_options drop;
    adamw_options adamw;
    activation act;
    double value;
    float eps, limit, smoothing, scale;
    bool in_out, add;
} op_options;

typedef struct op_case {
    op_id op;
    const char *tensors;
    op_options o;
    const char *label; /* timed cases: what it is in a model */
    double loosen;     /* factor on the tolerance; 0: 1. Needs `why` */
    const char *why;
} op_case;

extern const op_case op_cases[], op_timed[];
extern const size_t n_op_cases, n_op_timed;

#define OP_MAX_TENSORS 16
/* One per op: how it is called, which parameters hold one row (sequence, region) of the batch on axis 0 (names,
 * separated by spaces), and how long its sums are and how much it computes, for tolerances and rates. */
typedef struct op_signature {
    const char *arguments;  /* "(y, x, w, b, r, o)" */
    const char *parameters; /* "(tensor y, ..., linear_options o)" */
    void (*call)(dev *d, const tensor *t, const op_options *o);
    const char *batch;
} op_signature;
extern const op_signature op_signatures[OP_COUNT];

/* The i-th tensor parameter's name, "" when there are fewer; whether only training calls the op. */
void op_parameter_name(op_id op, int i, char name[16]);
bool op_is_training(op_id op);
double op_sum_length(op_id op, const tensor *t, const op_options *o);
double op_flops(op_id op, const tensor *t, const op_options *o); /* 0: bound by memory */
void op_options_text(op_id op, const op_options *o, char *text, size_t bytes);

#endif
