/* args.h - the arguments of one call of an op as a list, expanded from ops.def: for messages, checks and traces. */
#ifndef OPS_ARGS_H
#define OPS_ARGS_H

#include "ops/ops.h"

typedef enum arg_kind {
    ARG_TENSOR,
    ARG_BOOL,
    ARG_FLOAT,
    ARG_DOUBLE,
    ARG_ACTIVATION,
    ARG_LINEAR,
    ARG_MATMUL,
    ARG_ROPE,
    ARG_ATTENTION,
    ARG_RELPOS,
    ARG_IMAGE_UPDATE,
    ARG_CONV,
    ARG_SAMPLE,
    ARG_DROPOUT,
    ARG_ADAMW
} arg_kind;

typedef struct op_arg {
    const char *name;
    arg_kind kind;
    const void *value; /* points at the argument itself */
} op_arg;

/* clang-format off */
#define ARG(x)                                                                                                 \
    { #x, _Generic((x), tensor: ARG_TENSOR, bool: ARG_BOOL, float: ARG_FLOAT, double: ARG_DOUBLE,              \
                   activation: ARG_ACTIVATION, linear_options: ARG_LINEAR, matmul_options: ARG_MATMUL,         \
                   rope_options: ARG_ROPE, attention_options: ARG_ATTENTION, relpos_options: ARG_RELPOS,       \
                   image_update_options: ARG_IMAGE_UPDATE, conv_options: ARG_CONV, sample_options: ARG_SAMPLE, \
                   dropout_options: ARG_DROPOUT, adamw_options: ARG_ADAMW),                                    \
      &(x) }

/* ARGS(a, b, c) = ARG(a), ARG(b), ARG(c) for 1 to 16 arguments */
#define ARGS_1(a) ARG(a)
#define ARGS_2(a, ...) ARG(a), ARGS_1(__VA_ARGS__)
#define ARGS_3(a, ...) ARG(a), ARGS_2(__VA_ARGS__)
#define ARGS_4(a, ...) ARG(a), ARGS_3(__VA_ARGS__)
#define ARGS_5(a, ...) ARG(a), ARGS_4(__VA_ARGS__)
#define ARGS_6(a, ...) ARG(a), ARGS_5(__VA_ARGS__)
#define ARGS_7(a, ...) ARG(a), ARGS_6(__VA_ARGS__)
#define ARGS_8(a, ...) ARG(a), ARGS_7(__VA_ARGS__)
#define ARGS_9(a, ...) ARG(a), ARGS_8(__VA_ARGS__)
#define ARGS_10(a, ...) ARG(a), ARGS_9(__VA_ARGS__)
#define ARGS_11(a, ...) ARG(a), ARGS_10(__VA_ARGS__)
#define ARGS_12(a, ...) ARG(a), ARGS_11(__VA_ARGS__)
#define ARGS_13(a, ...) ARG(a), ARGS_12(__VA_ARGS__)
#define ARGS_14(a, ...) ARG(a), ARGS_13(__VA_ARGS__)
#define ARGS_15(a, ...) ARG(a), ARGS_14(__VA_ARGS__)
#define ARGS_16(a, ...) ARG(a), ARGS_15(__VA_ARGS__)
#define ARGS_PICK(a1, a2, a3, a4, a5, a6, a7, a8, a9, a10, a11, a12, a13, a14, a15, a16, macro, ...) macro
#define ARGS(...)                                                                                              \
    ARGS_PICK(__VA_ARGS__, ARGS_16, ARGS_15, ARGS_14, ARGS_13, ARGS_12, ARGS_11, ARGS_10, ARGS_9, ARGS_8,      \
              ARGS_7, ARGS_6, ARGS_5, ARGS_4, ARGS_3, ARGS_2, ARGS_1, )(__VA_ARGS__)
/* clang-format on */

/* "y (2,3) f32, x (2,4) f32, ..., o {act gelu}" into text, cut to `bytes`. */
void op_args_text(const op_arg *args, size_t n, char *text, size_t bytes);

/* Every tensor a well-formed view; no output repeats, or overlaps anything but an input it may be (views.c).
 * false: `why` says what should hold. */
bool op_views_ok(const dev *d, op_id id, const op_arg *args, size_t n, char *why, size_t why_bytes);

/* For devices without options: accepts "" and "threads=N" (one thread computes the same), refuses the rest. */
sca_status op_no_options(const char *device, const char *options);

#endif
