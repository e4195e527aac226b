/* nn.h - layer 3: parameters, their registry, and the modules that models are made of.
 *
 * A module is plain structs of parameters and functions over ops. Modules own nothing: values live in the model's
 * arenas. Functions write to tensors the caller gives; what they need in between comes from pass.temp and is
 * released before they return. Nothing here returns a status: the stream of the device is sticky
 * (architecture.md 3.9).
 *
 * Forward and backward are pairs x_fwd, x_bwd. A forward call that is given an x_kept fills it with what its backward
 * needs: inputs as they are (they must stay until then, so nothing works in place), the rest in pass.keep. Without one
 * (NULL) it is inference. x_bwd(dx, dy, k, r) gives dx = the gradient of the input + r, r absent or dx itself, and adds
 * to the gradients of those parameters that have one; an absent dx is not computed.
 */
#ifndef NN_H
#define NN_H

#include "ops/ops.h"

/* ---- parameters (param.c) ---------------------------------------------------------------------------- */

typedef struct param {
    tensor v, g;
} param; /* value; gradient, absent if frozen */

/* How a device may keep a parameter (types A, P, W: ops.def). */
typedef enum param_kind {
    PARAM_SMALL,        /* P: norms, biases, position tables, tokens                          */
    PARAM_ROWS,         /* W, rows: read by op_matmul or op_embedding                         */
    PARAM_MATRIX,       /* W, (N, K...), rows or panels: op_linear, op_conv, tied embeddings  */
    PARAM_MATRIX_IN_OUT /* W, (K, N...), rows or panels: GPT-2's Conv1D, op_conv_transpose    */
} param_kind;

typedef enum init_rule {
    INIT_ZERO,
    INIT_ONE,
    INIT_NORMAL,
    INIT_UNIT_NORMAL
} init_rule; /* NORMAL: initializer_range; UNIT: 1 */

typedef struct param_entry {
    char *name; /* official name */
    param *p;
    param_kind kind;
    init_rule init;
    int ndim;
    int64_t dim[4];
    const char *alias; /* name of the entry whose value this one shares (tied head), or NULL */
    bool trained;      /* in the published trainable set (model.md 10.1) */
} param_entry;

typedef struct param_set {
    param_entry *entries; /* in the order of binding */
    size_t n, cap;
    bool failed; /* out of memory: looked at once, by the owner */
} param_set;

/* Registers p under the name that `format` gives. Shapes are PyTorch's. The value is placed later, by the loader.
 */
void param_add(param_set *s, param *p, param_kind kind, init_rule init, int ndim, const int64_t *dim,
               const char *format, ...) PRINTF_LIKE(7, 8);
/* The latest entry shares the value of the entry `name` unless a file gives it another. */
void param_alias(param_set *s, const char *name);
const param_entry *param_find(const param_set *s, const char *name);
int64_t param_count(const param_entry *e);
void param_set_free(param_set *s);

/* ---- a pass over a model ----------------------------------------------------------------------------- */

typedef struct pass {
    dev *d;
    arena *temp; /* marks */
    arena *keep; /* training: what backward needs; NULL in inference */
} pass;

tensor pass_tensor(const pass *p, int ndim, const int64_t *dim); /* activation type, from temp */
tensor pass_2d(const pass *p, int64_t a, int64_t b);
tensor pass_3d(const pass *p, int64_t a, int64_t b, int64_t c);
tensor pass_4d(const pass *p, int64_t a, int64_t b, int64_t c, int64_t d);
tensor pass_stat(const pass *p, int64_t rows); /* (rows) F: F32, F64 on ref */
tensor pass_ids(const pass *p, int64_t rows);  /* (rows) I32 */
pass pass_keeping(const pass *p);              /* the same pass, whose tensors come from keep */

/* ---- layers (layers.c) ------------------------------------------------------------------------------- */

typedef struct linear {
    param w, b;
    bool in_out;
} linear; /* (N,K) or, in_out, (K,N); b (N), absent if not bound */
/* name + ".weight" and, with bias, ".bias" */
void linear_bind(param_set *s, linear *m, bool bias, int64_t N, int64_t K, const char *format, ...)
    PRINTF_LIKE(6, 7);
void linear_bind_in_out(param_set *s, linear *m, int64_t K, int64_t N, const char *format, ...) PRINTF_LIKE(5, 6);
/* y = act(x W^T + b) + r.  y,r (R,N)  x (R,K)  r may be absent or y */
void linear_fwd(const pass *p, const linear *m, tensor y, tensor x, activation act, tensor r);
/* Of a call without act: dx = dy W + r.  dx,x,r (R,K)  dy (R,N); x may be absent when the weight is frozen. */
void linear_bwd(const pass *p, const linear *m, tensor dx, tensor dy, tensor x, tensor r);
bool linear_trained(const linear *m); /* backward needs x */

typedef struct norm {
    param w, b;
    float eps;
} norm; /* (C); b absent: RMSNorm */
void layernorm_bind(param_set *s, norm *m, int64_t C, float eps, const char *format, ...) PRINTF_LIKE(5, 6);
void rmsnorm_bind(param_set *s, norm *m, int64_t C, float eps, const char *format, ...) PRINTF_LIKE(5, 6);
typedef struct norm_kept {
    tensor x, mean, rstd; /* (R,C) (R) (R); RMSNorm has no mean */
} norm_kept;
void norm_fwd(const pass *p, const norm *m, tensor y, tensor x, norm_kept *k); /* (R,C), in place without k */
void norm_bwd(const pass *p, const norm *m, tensor dx, tensor dy, const norm_kept *k, tensor r); /* dx may be dy */

typedef struct mlp {
    linear up, down;
    activation act;
} mlp;
typedef struct mlp_kept {
    tensor x, h; /* (R,K), (R,hidden) before the activation */
} mlp_kept;
/* y = down(act(up x)) + r.  y,r (R,C)  x (R,K); r absent or y */
void mlp_fwd(const pass *p, const mlp *m, tensor y, tensor x, tensor r, mlp_kept *k);
void mlp_bwd(const pass *p, const mlp *m, tensor dx, tensor dy, const mlp_kept *k, tensor r); /* dx, dy differ */

/* ---- SAM's two-way transformer (twoway.c): in the mask decoder and in the mixer; model.md 4 ---------- */

typedef struct cross { /* attention with inner width M = C / downsample, H heads of D = M / H */
    param q_w, k_w, v_w, out_w, q_b, k_b, v_b, out_b; /* (M,C) (M,C) (M,C) (C,M) and biases */
} cross;

typedef struct twoway_block {
    linear q, k, v, out; /* self attention, inner width C */
    cross t2i, i2t;      /* token to image, image to token */
    mlp mlp;
    norm norm1, norm2, norm3, norm4;
} twoway_block;

typedef struct twoway {
    int layers, heads, C, M;
    twoway_block *blocks; /* owned: twoway_free */
    cross final_t2i;
    norm norm_final;
} twoway;

typedef struct twoway_options {
    int layers, heads, C, downsample, mlp;
    activation act;
    float eps;
} twoway_options;
/* prefix: "mask_decoder.transformer" */
sca_status twoway_bind(param_set *s, twoway *m, const char *prefix, twoway_options o);
void twoway_free(twoway *m);

typedef struct self_kept { /* tokens among themselves */
    tensor q, qe;          /* (N,T,C) */
    tensor part[4], lse;   /* query, key, value, mixed (N*T,C); (N,H,T) */
} self_kept;
typedef struct pool_kept {                /* token to image; M inner width, J = H*T */
    tensor qe, query, pooled, lse, mixed; /* (N,T,C) (N*T,M) (N,J,C) (N,J) (N*T,M) */
    tensor x;                             /* (N,S,C) */
} pool_kept;
typedef struct update_kept {  /* image to token */
    tensor q, qe, key, value; /* (N,T,C) (N,T,C) (N*T,M) (N*T,M) */
    tensor x;                 /* (N,S,C) */
} update_kept;
typedef struct twoway_block_kept {
    self_kept self;
    norm_kept norm1, norm2, norm3;
    pool_kept t2i;
    mlp_kept mlp;
    update_kept i2t;
} twoway_block_kept;
typedef struct twoway_kept {
    twoway_block_kept *blocks; /* (layers) owned: twoway_kept_open, _free */
    pool_kept final_t2i;
    norm_kept norm_final;
    tensor pe;
} twoway_kept;
sca_status twoway_kept_open(twoway_kept *k, const twoway *m);
void twoway_kept_free(twoway_kept *k); /* accepts a zeroed one */

/* q,t (N,T,C): t the input tokens, re-added as positions in every block; q the tokens afterwards (q must not be t).
 * x (N,S,C): image tokens, may repeat over N (stride 0).  pe (S,C)
 * y (N,S,C): the image tokens afterwards; y may be x when x does not repeat, and there is no k. */
void twoway_fwd(const pass *p, const twoway *m, tensor q, tensor y, tensor t, tensor x, tensor pe, twoway_kept *k);
/* dt (N,T,C) and dx (N,S,C), absent if not wanted, from dq (N,T,C) and dy (N,S,C), absent: 0. dx may be dy; without dx,
 * dy is overwritten. */
void twoway_bwd(const pass *p, const twoway *m, tensor dt, tensor dx, tensor dq, tensor dy, const twoway_kept *k);

#endif
