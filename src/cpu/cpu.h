/* cpu.h - the host device: threads, scratch memory, and the product that the other files share. */
#ifndef CPU_H
#define CPU_H

#include "cpu/kernels.h"

typedef struct cpu_pool cpu_pool;

typedef struct cpu {
    const cpu_kernels *kernels;
    cpu_pool *pool;
    int threads;
    bool blas;            /* the variant gemm=blas */
    char *scratch;        /* one part per thread, then the shared part */
    size_t scratch_bytes; /* of the whole block */
    size_t thread_bytes;  /* of one thread's part, as last asked for */
} cpu;

static inline cpu *cpu_of(const dev *d) { return d->impl; }

/* ---- threads (pool.c) ---------------------------------------------------------------------------------- */

/* Does task 0 .. tasks-1, each once, on any thread and in any order. Tasks write different outputs and no task adds
 * to another's sum: results then do not depend on the number of threads. `thread` picks the scratch part. */
typedef void cpu_task(void *context, int64_t task, int thread);
sca_status cpu_pool_open(int threads, cpu_pool **out);
void cpu_pool_close(cpu_pool *p); /* accepts NULL */
void cpu_parallel(const cpu *c, int64_t tasks, cpu_task *fn, void *context);
/* How many items a task should take so that there are a few tasks per thread and none is tiny. */
int64_t cpu_grain(const cpu *c, int64_t items, int64_t cost_of_item);

/* ---- scratch (cpu.c) ------------------------------------------------------------------------------------- */

/* Gives every thread `thread_bytes` and all of them `shared_bytes`; what was there before is lost. False, and a
 * failed stream, when memory is out. */
bool cpu_scratch(dev *d, size_t thread_bytes, size_t shared_bytes);
void *cpu_scratch_of(const cpu *c, int thread); /* 64-byte aligned */
void *cpu_scratch_shared(const cpu *c);

/* ---- views ------------------------------------------------------------------------------------------------ */

static inline int64_t min64(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t max64(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
/* Rows that will be read after some work, while it is done: rows from..to of `last`, ld floats apart, C long. */
static inline void cpu_fetch(const float *rows, int64_t ld, int64_t from, int64_t to, int64_t last, int64_t C)
{
    for (int64_t i = from; i < min64(to, last); i++)
        for (int64_t c = 0; c < C; c += 16) __builtin_prefetch(rows + i * ld + c, 0, 2);
}
/* Elements from the start to row r, a row being one run of the last axis. */
int64_t cpu_row_offset(const tensor *t, int64_t r);
int64_t cpu_rows(const tensor *t); /* runs of the last axis */
/* True when rows are at a constant distance *stride, as in a contiguous tensor or a slice of the last axis. */
bool cpu_rows_even(const tensor *t, int64_t *stride);

/* ---- products (gemm.c) -------------------------------------------------------------------------------------- */

/* B as panels, as (N,K), as (K,N); TURNED: the transpose of a weight in panels, whose N is this K and K this N */
typedef enum gemm_b { GEMM_PANELS, GEMM_ROWS, GEMM_COLS, GEMM_TURNED } gemm_b;

/* y[m][n] = act(alpha sum_k a[m][k] B[k][n] + bias[n]) + r[m][n]; a, bias, y, r in f32. */
typedef struct gemm_job gemm_job;
struct gemm_job {
    int64_t M, N, K;
    const float *a; /* rows lda apart, or NULL and `fill` makes them */
    int64_t lda;
    const void *b;
    dtype b_type;
    gemm_b b_kind;
    int64_t ldb; /* GEMM_ROWS, GEMM_COLS */
    float *y;
    int64_t ldy;
    const float *bias, *r; /* may be NULL; r may be y */
    int64_t ldr;
    float alpha;
    activation act;
    /* Several products at once: batch b uses a + batch_a[b], ... computed from strides of up to 2 leading axes. */
    int64_t batch[2], batch_a[2], batch_b[2], batch_y[2];
    /* Other sources of A and other homes of the result; `context` goes to both. */
    void (*fill)(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst, int64_t ld);
    /* c: rows x kernels.nr, the columns n0 .. n0+cols-1, without alpha, bias and act */
    void (*sink)(const gemm_job *j, int64_t m0, int64_t rows, int64_t n0, int64_t cols, const float *c,
                 int64_t ldc);
    const void *context;
    const cpu_kernels *kernels; /* set by cpu_gemm */
};
/* A job with alpha 1, one batch and nothing optional. */
gemm_job cpu_gemm_job(int64_t M, int64_t N, int64_t K);
/* Describes the weight w of op_linear_fwd and its relatives. */
void cpu_gemm_weight(gemm_job *j, tensor w, bool in_out);
/* The same weight, transposed: what its backward multiplies by. */
void cpu_gemm_weight_turned(gemm_job *j, tensor w, bool in_out);
/* A fill for A = source^T: element (m, k) is a[k lda + m] of the float rows in gemm_job.context (a gemm_turned). */
typedef struct gemm_turned {
    const float *a;
    int64_t lda;
} gemm_turned;
void cpu_gemm_fill_turned(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst,
                          int64_t ld);
void cpu_gemm(dev *d, const gemm_job *job);
/* blas.c. Loads the library; refused when it is not built in or not there. */
sca_status cpu_blas_open(void);
void cpu_blas_state(char *text, size_t bytes); /* of dev_row */
/* False when gemm.c has to do it. */
bool cpu_blas_gemm(dev *d, const gemm_job *job);
size_t cpu_panel_bytes(dtype type, int64_t N, int64_t K);

/* One tile product of any height, `lanes` (nr or nr/2) wide: rows are cut into nearly equal tiles. */
void cpu_tiles(const cpu_kernels *k, int64_t lanes, int64_t rows, int64_t K, const float *a, int64_t lda,
               const float *b, int64_t ldb, float *c, int64_t ldc, bool add);
void cpu_tiles_cols(const cpu_kernels *k, int64_t lanes, int64_t rows, int64_t K, const float *a, int64_t lda,
                    const float *b, int64_t ldb, float *c, int64_t ldc, bool add);

/* to[i] += part[i] + part[apart + i] + ..., in that order; nothing when `to` is absent */
void cpu_add_parts(tensor to, const float *part, int64_t parts, int64_t apart);

/* ---- queries of one head, side by side (attention.c) ------------------------------------------------------ */

/* Streaming softmax: load the queries, then step over blocks of keys and values in ascending order, then store. The
 * result of a query depends on its keys and their blocks alone. */
typedef struct cpu_queries {
    const cpu_kernels *kernels;
    int64_t count, panels, D;
    float *q, *o;       /* [panels][D][lanes of the panel] */
    float *m, *l, *top; /* [panels][nr] */
    float *s;           /* [keys][lanes], scores of one panel */
} cpu_queries;
/* All panels have nr lanes, but the last has half of them where that is enough. */
static inline int64_t cpu_queries_lanes(const cpu_queries *u, int64_t panel)
{
    int64_t nr = u->kernels->nr;
    return u->count - panel * nr <= nr / 2 ? nr / 2 : nr;
}
size_t cpu_queries_floats(const cpu_kernels *k, int64_t count, int64_t D, int64_t keys);
void cpu_queries_open(cpu_queries *u, const cpu_kernels *k, int64_t count, int64_t D, float *scratch);
/* Queries i .. i+n-1 from rows of q, ld apart; the lanes left over are zero. */
void cpu_queries_load(cpu_queries *u, int64_t i, int64_t n, const float *q, int64_t ld);
/* u->s of one panel: k q for `keys` rows of k */
void cpu_queries_dot(const cpu_queries *u, int64_t panel, int64_t keys, const float *k, int64_t ldk);
/* Takes u->s, scaled and biased as `scores` of kernels.h does, and the rows of v into the panel's sums. */
void cpu_queries_take(const cpu_queries *u, int64_t panel, int64_t keys, const float *v, int64_t ldv);
/* Its two halves: u->s becomes exponentials, counted in the sums; u->s times the rows of v are added up. */
void cpu_queries_expose(const cpu_queries *u, int64_t panel, int64_t keys);
void cpu_queries_add(const cpu_queries *u, int64_t panel, int64_t keys, const float *v, int64_t ldv);
void cpu_queries_close(cpu_queries *u); /* now o holds the outputs and top the logarithms of the sums */
/* Queries i .. i+n-1 into rows of y, ld apart. */
void cpu_queries_store(const cpu_queries *u, int64_t i, int64_t n, float *y, int64_t ld);
static inline float cpu_queries_lse(const cpu_queries *u, int64_t i) { return u->top[i]; }

/* ---- the ops --------------------------------------------------------------------------------------------------
 */

#define OP(name, parameters, arguments) void cpu_##name(dev *d, OP_UNPACK parameters);
#include "ops/ops.def"
#undef OP

#endif
