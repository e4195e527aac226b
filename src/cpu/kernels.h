/* kernels.h - what is written once per instruction set: everything that touches many elements in a row. The files
 * of the ops cut the work, these functions do it. All floats are contiguous along a row unless a stride is given.
 */
#ifndef CPU_KERNELS_H
#define CPU_KERNELS_H

#include "ops/ops.h"

/* One step of AdamW in the machine's terms: m = beta1 m + rest1 g', v = beta2 v + rest2 g'^2, g' = scale g,
 * p = shrink p - rate m / (root sqrt(v) + eps) */
typedef struct adamw_terms {
    float scale, beta1, rest1, beta2, rest2, shrink, rate, root, eps;
} adamw_terms;

typedef struct cpu_kernels {
    const char *name; /* "generic" "avx2" "avx512" */
    int mr, nr;       /* a tile is up to mr rows of nr columns; nr is also the width of a weight panel */

    /* Tile products, n < nr, 1 <= rows <= mr. Each output is one chain of multiply-adds over ascending k.
     *   tile:      c[i ldc + n] (+)= sum_k a[i lda + k] b[k ldb + n]
     *   tile_cols: c[i ldc + n] (+)= sum_k a[k lda + i] b[k ldb + n]
     * `add` continues the chains from what c holds. */
    void (*tile)(int rows, int64_t K, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                 int64_t ldc, bool add);
    void (*tile_cols)(int rows, int64_t K, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                      int64_t ldc, bool add);
    /* The same for n < nr/2 and up to 2 mr rows. */
    void (*tile_half)(int rows, int64_t K, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                      int64_t ldc, bool add);
    void (*tile_cols_half)(int rows, int64_t K, const float *a, int64_t lda, const float *b, int64_t ldb, float *c,
                           int64_t ldc, bool add);
    /* `tile` over a panel, ldb nr, that comes from memory and is fetched ahead */
    void (*tile_f32)(int rows, int64_t K, const float *a, int64_t lda, const float *b, float *c, int64_t ldc,
                     bool add);
    void (*tile_bf16)(int rows, int64_t K, const float *a, int64_t lda, const uint16_t *b, float *c, int64_t ldc,
                      bool add);
    void (*tile_f16)(int rows, int64_t K, const float *a, int64_t lda, const uint16_t *b, float *c, int64_t ldc,
                     bool add);
    /* c[i nr + n] (+)= sum_k a[(k / nr) apart + i nr + k % nr] b[k nr + n]: a is part of a panel, whose rows are K */
    void (*tile_turned)(int rows, int64_t K, const float *a, int64_t apart, const float *b, float *c, bool add);
    /* One row against 1 to 4 panels [K][nr] that follow each other: c[panel][nr] = the same chains as `tile` makes */
    void (*row)(int panels, int64_t K, const float *a, const void *b, dtype type, float *c);
    /* y[i ldy + n] = act(alpha c[i nr + n] + bias[n]) + r[i ldr + n] for n < cols <= nr; bias and r may be NULL */
    void (*finish)(int64_t rows, int64_t cols, const float *c, float *y, int64_t ldy, const float *bias,
                   const float *r, int64_t ldr, float alpha, activation act);

    void (*transpose)(float *dst, int64_t ldd, const float *src, int64_t lds, int64_t rows, int64_t cols);
    void (*widen)(float *dst, dtype type, const void *src, int64_t n); /* F32, F16, BF16 to float */
    void (*add)(float *y, const float *a, const float *b, int64_t n);
    void (*activate)(float *y, const float *x, int64_t n, activation act);
    void (*silu_mul)(float *y, const float *x, const float *u, int64_t n);
    void (*layernorm)(float *y, const float *x, const float *w, const float *b, int64_t n, float eps, float *mean,
                      float *rstd);
    void (*rmsnorm)(float *y, const float *x, const float *w, int64_t n, float eps, float *rstd);

    float (*max)(const float *x, int64_t n);
    double (*sum)(const float *x, int64_t n);
    double (*sum_exp)(const float *x, int64_t n, float shift);    /* sum of exp(x - shift) */
    void (*shift)(float *y, const float *x, int64_t n, float by); /* y = x - by */

    /* Attention keeps lanes (nr or nr/2) queries side by side: s[key][lanes], o[D][lanes], m, l, top[lanes].
     *   scores: s = scale s + along[key][lanes] + across[lanes], either may be NULL; top = max(top, s)
     *   expose: s = exp(s - top); l and o, which were relative to m, become relative to top, l takes the new terms;
     *           m = top. */
    void (*scores)(int64_t lanes, int64_t keys, float *s, float scale, const float *along, const float *across,
                   float *top);
    void (*expose)(int64_t lanes, int64_t keys, float *s, int64_t D, float *o, float *m, const float *top,
                   float *l);
    /* o /= l, lse = m + log l */
    void (*close)(int64_t lanes, int64_t D, float *o, const float *m, const float *l, float *lse);
    /* Softmax down the rows of s[t ld + n], n < nr, after kb[t] is added */
    void (*softmax_down)(int64_t T, float *s, int64_t ld, const float *kb);

    /* ---- training (kernels_train.inc) ---- */

    void (*add_scaled)(float *y, float a, const float *x, int64_t n); /* y += a x */
    /* sum[i] += x[r ld + i] for r < rows, in that order */
    void (*add_down)(float *sum, const float *x, int64_t ld, int64_t rows, int64_t n);
    double (*sum_squares)(const float *x, int64_t n, float mean); /* of x - mean */
    void (*activate_bwd)(float *dx, const float *dy, const float *x, int64_t n, activation act);
    /* dx or du may be NULL, or an input */
    void (*silu_mul_bwd)(float *dx, float *du, const float *dy, const float *x, const float *u, int64_t n);
    /* One row; r may be NULL; dx may be dy or r. LayerNorm: centred */
    void (*norm_bwd)(float *dx, const float *dy, const float *x, const float *w, const float *r, int64_t n,
                     float mean, float rstd, bool centred);
    void (*norm_weights)(float *dw, float *db, const float *dy, const float *x, int64_t n, float mean,
                         float rstd); /* +=; may be NULL */
    void (*exp_of)(float *y, const float *x, int64_t n, float shift, float times,
                   float plus); /* times e^(x-shift) + plus */
    /* Dropout of a row whose numbers start with Philox block `block`; r may be NULL */
    void (*drop)(float *y, const float *x, const float *r, int64_t n, uint64_t key, uint64_t block, uint32_t limit,
                 float keep);
    void (*adamw)(float *p, float *m, float *v, const float *g, int64_t n, const adamw_terms *s);
    /* Rows of s and dp, ld apart: s = exp(scale s + along[key][lanes] + across[lanes] - lse[lanes]), along and across
     * may be NULL; dp = scale p (dp - delta[lanes]) */
    void (*weigh)(int64_t lanes, int64_t keys, float *s, int64_t ld, float scale, const float *along,
                  const float *across, const float *lse);
    void (*weigh_bwd)(int64_t lanes, int64_t keys, const float *p, float *dp, int64_t ld, const float *delta,
                      float scale);
    /* Of softmax_down: dp = p (dp - sum_t p dp), nr lanes */
    void (*softmax_down_bwd)(int64_t T, const float *p, float *dp, int64_t ld);
} cpu_kernels;

extern const cpu_kernels cpu_kernels_generic;
#if defined(__x86_64__)
extern const cpu_kernels cpu_kernels_avx2, cpu_kernels_avx512;
#endif

#endif
