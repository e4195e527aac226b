/* ops.h - layer 2: the operations as functions and as a table, both expanded from ops.def. */
#ifndef OPS_H
#define OPS_H

#include "core/core.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum activation { ACT_NONE, ACT_RELU, ACT_GELU, ACT_GELU_TANH } activation;
typedef struct linear_options {
    activation act;
    bool in_out;
} linear_options;
typedef struct matmul_options {
    float alpha;
    bool trans_b;
} matmul_options;
typedef struct rope_options {
    int64_t first;
    float theta;
} rope_options;
typedef struct dropout_options {
    float rate; /* in [0,1); 0: nothing is dropped */
    uint64_t key;
    int64_t first; /* place of the first row (sequence) of the call in a larger whole */
} dropout_options;
typedef struct attention_options {
    float scale;
    bool causal;
    dropout_options drop;
} attention_options;
typedef struct relpos_options {
    float scale;
    int heads, window;
} relpos_options;
typedef struct image_update_options {
    int heads;
    float eps;
} image_update_options;
typedef struct conv_options {
    int stride, pad;
    activation act;
} conv_options;
typedef struct sample_options {
    float temperature;
    int top_k;
    float top_p;
} sample_options;
typedef struct adamw_options {
    double rate, beta1, beta2, eps, decay;
    double scale; /* of the gradient: clipping, averages over ranks */
    int64_t step; /* from 1 */
} adamw_options;

#define OP_UNPACK(...) __VA_ARGS__

/* op_NAME(dev *d, ...): returns at once if the stream has failed, checks the contract of ops.def, calls the device. */
#define OP(name, parameters, arguments) void op_##name(dev *d, OP_UNPACK parameters);
#include "ops.def"
#undef OP

typedef enum op_id {
#define OP(name, parameters, arguments) OP_##name,
#include "ops.def"
#undef OP
    OP_COUNT
} op_id;
const char *op_name(op_id id);
int op_outputs(op_id id); /* how many of the first parameters are outputs (views.c) */

typedef struct op_table {
#define OP(name, parameters, arguments) void (*name)(dev * d, OP_UNPACK parameters);
#include "ops.def"
#undef OP
} op_table;

/* The back ends; which of them exist is known in ops.c alone. */
extern const backend ref_backend, null_backend, cpu_backend, cuda_backend, simt_backend;

/* Prototypes and a table of one device's functions PREFIX_NAME: use in the device's own file.
 *   #define OP(name, parameters, arguments) void cpu_##name(dev *d, OP_UNPACK parameters);   (prototypes)
 *   #define OP(name, parameters, arguments) .name = cpu_##name,                              (table)   */

/* A device that wraps `inner` (trace.c): what is "names", "time", "nan", "sync" or "dump:DIR". Owns inner, also when
 * it fails. */
sca_status dev_trace(dev *inner, const char *what, dev **out);

#ifdef __cplusplus
}
#endif
#endif
