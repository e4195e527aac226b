/* cublas.c - the row gemm=cublaslt: products by cuBLASLt.
 *
 * The library sees columns where we have rows: y (M,N) is its D (N x M), our weights (N,K) its A^T, our a (M,K) its B.
 * Only what gives our contract's numbers is left to it: sums and their reduction in F32 (no TF32), an F32 bias, a
 * residual. Its ReLU makes 0 of NaN, its GELU is the tanh form, and a bias of 16-bit results must have 16 bits: such
 * endings are ours (gemm_join), on sums that the library leaves in F32. Left to our own kernels: operands of two types,
 * rows that repeat (stride 0), batches with such an ending, products it has no algorithm for.
 */
#ifdef SCA_CUBLASLT
#include <cublasLt.h>
#endif

#include "cuda/vendor.h"

#include <stdio.h>
#include <string.h>

#ifdef SCA_CUBLASLT

enum { MOST_PLANS = 64, WORKSPACE = 32 << 20, MOST_ALIGN = 256 };

#define FUNCTIONS(F)                                                                                               \
    F(cublasLtCreate)                                                                                              \
    F(cublasLtDestroy)                                                                                             \
    F(cublasLtGetVersion)                                                                                          \
    F(cublasLtGetStatusString)                                                                                     \
    F(cublasLtMatmulDescCreate)                                                                                    \
    F(cublasLtMatmulDescDestroy)                                                                                   \
    F(cublasLtMatmulDescSetAttribute)                                                                              \
    F(cublasLtMatrixLayoutCreate)                                                                                  \
    F(cublasLtMatrixLayoutDestroy)                                                                                 \
    F(cublasLtMatrixLayoutSetAttribute)                                                                            \
    F(cublasLtMatmulPreferenceCreate)                                                                              \
    F(cublasLtMatmulPreferenceDestroy)                                                                             \
    F(cublasLtMatmulPreferenceSetAttribute)                                                                        \
    F(cublasLtMatmulAlgoGetHeuristic)                                                                              \
    F(cublasLtMatmul)

static const char *const names[] = { FUNCTIONS(VENDOR_NAME) };
#ifdef SIMT
static const char *const files[] = { NULL };
#else
static const char *const files[] = { "libcublasLt.so." VENDOR_TEXT(CUBLAS_VER_MAJOR), "libcublasLt.so", NULL };
#endif

typedef struct table { /* in the order of names */
    FUNCTIONS(VENDOR_ADDRESS)
} table;

/* What an algorithm is chosen for. No padding that is not zero: compared as bytes. */
typedef struct product {
    int64_t M, N, K, lda, ldb, ldy, ldr, batch, batch_a, batch_b, batch_y;
    int64_t type, out_type;                    /* dtype: of both operands, of y */
    int64_t b_cols, bias, residual, workspace; /* 0 or 1; bytes that may be used */
    int64_t align_a, align_b, align_y, align_r, align_bias;
} product;

typedef struct plan {
    product key;
    int64_t last; /* when it was asked for */
    bool refused; /* there is no algorithm */
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c, d; /* the library's: a is our b */
    cublasLtMatmulAlgo_t algo;
    size_t workspace;
} plan;

typedef struct cublas {
    table f;
    cublasLtHandle_t handle;
    plan plans[MOST_PLANS];
    int64_t clock;
} cublas;

static sca_status load(table *f, const char *file)
{
    void (*address[LENGTH(names)])(void);
    const vendor_library l = { "gemm=cublaslt", files, names, address, (int)LENGTH(names) };
    TRY(cuda_vendor_load(&l, file));
    memcpy(f, address, sizeof *f);
    return SCA_OK;
}

sca_status cuda_cublas_open(cuda *c, const char *file)
{
    table f;
    TRY(load(&f, file));
    cublas *l = mem_zero(1, sizeof *l);
    if (!l) return mem_fail(sizeof *l, "cuBLASLt's plans");
    l->f = f;
    cublasStatus_t s = f.cublasLtCreate(&l->handle);
    if (s == CUBLAS_STATUS_SUCCESS) {
        c->cublas = l;
        return SCA_OK;
    }
    mem_free(l);
    return status_fail(SCA_ERR_DEVICE, "device " KIND ": gemm=cublaslt: cublasLtCreate: %s",
                       f.cublasLtGetStatusString(s));
}

static void forget(cublas *l, plan *p)
{
    if (p->desc) l->f.cublasLtMatmulDescDestroy(p->desc);
    cublasLtMatrixLayout_t layouts[] = { p->a, p->b, p->c, p->d };
    for (size_t i = 0; i < LENGTH(layouts); i++)
        if (layouts[i]) l->f.cublasLtMatrixLayoutDestroy(layouts[i]);
    *p = (plan){ 0 };
}

void cuda_cublas_close(cuda *c)
{
    cublas *l = c->cublas;
    if (!l) return;
    for (int i = 0; i < MOST_PLANS; i++) forget(l, &l->plans[i]);
    l->f.cublasLtDestroy(l->handle);
    mem_free(l);
    c->cublas = NULL;
}

/* ---- what a product is to the library ------------------------------------------------------------------------ */

static cudaDataType_t type_of(int64_t type)
{
    return type == DT_F32 ? CUDA_R_32F : type == DT_BF16 ? CUDA_R_16BF : CUDA_R_16F;
}

static cublasStatus_t make_layout(const cublas *l, cublasLtMatrixLayout_t *out, int64_t type, int64_t rows,
                                  int64_t columns, int64_t ld, int64_t batch, int64_t stride)
{
    int32_t count = (int32_t)batch;
    cublasStatus_t s = l->f.cublasLtMatrixLayoutCreate(out, type_of(type), (uint64_t)rows, (uint64_t)columns, ld);
    if (s == CUBLAS_STATUS_SUCCESS && batch > 1)
        s = l->f.cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
    if (s == CUBLAS_STATUS_SUCCESS && batch > 1)
        s = l->f.cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                                  sizeof stride);
    return s;
}

static cublasStatus_t make_layouts(const cublas *l, plan *p)
{
    const product *k = &p->key;
    bool rows = !k->b_cols;
    cublasStatus_t s =
        make_layout(l, &p->a, k->type, rows ? k->K : k->N, rows ? k->N : k->K, k->ldb, k->batch, k->batch_b);
    if (s == CUBLAS_STATUS_SUCCESS) s = make_layout(l, &p->b, k->type, k->K, k->M, k->lda, k->batch, k->batch_a);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = make_layout(l, &p->c, k->out_type, k->N, k->M, k->residual ? k->ldr : k->ldy, k->batch, k->batch_y);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = make_layout(l, &p->d, k->out_type, k->N, k->M, k->ldy, k->batch, k->batch_y);
    return s;
}

static cublasStatus_t set_bias(const cublas *l, const plan *p, const float *bias)
{
    return l->f.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
}

static cublasStatus_t make_desc(const cublas *l, plan *p, const float *bias)
{
    cublasOperation_t turned = p->key.b_cols ? CUBLAS_OP_N : CUBLAS_OP_T;
    cublasLtEpilogue_t end = CUBLASLT_EPILOGUE_BIAS;
    int32_t type = CUDA_R_32F;
    cublasStatus_t s = l->f.cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = l->f.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &turned, sizeof turned);
    if (s != CUBLAS_STATUS_SUCCESS || !p->key.bias) return s;
    s = l->f.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &end, sizeof end);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = l->f.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &type, sizeof type);
    return s == CUBLAS_STATUS_SUCCESS ? set_bias(l, p, bias) : s; /* its alignment counts */
}

/* What the operands promise, and what the sums may go through: workspace in F32 alone. */
static cublasStatus_t set_preference(const cublas *l, const product *k, cublasLtMatmulPreference_t to)
{
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        int64_t value;
    } row[] = { { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, k->align_b },
                { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, k->align_a },
                { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, k->align_r },
                { CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, k->align_y },
                { CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE } };
    uint64_t bytes = (uint64_t)k->workspace;
    cublasStatus_t s = l->f.cublasLtMatmulPreferenceSetAttribute(to, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                                 &bytes, sizeof bytes);
    for (size_t i = 0; i < LENGTH(row) && s == CUBLAS_STATUS_SUCCESS; i++) {
        uint32_t value = (uint32_t)row[i].value;
        s = l->f.cublasLtMatmulPreferenceSetAttribute(to, row[i].name, &value, sizeof value);
    }
    return s;
}

static cublasStatus_t choose(const cublas *l, plan *p)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found = { 0 };
    int n = 0;
    cublasStatus_t s = l->f.cublasLtMatmulPreferenceCreate(&preference);
    if (s == CUBLAS_STATUS_SUCCESS) s = set_preference(l, &p->key, preference);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = l->f.cublasLtMatmulAlgoGetHeuristic(l->handle, p->desc, p->a, p->b, p->c, p->d, preference, 1, &found,
                                                &n);
    if (preference) l->f.cublasLtMatmulPreferenceDestroy(preference);
    if (s == CUBLAS_STATUS_SUCCESS && n == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (s == CUBLAS_STATUS_SUCCESS) s = found.state;
    p->algo = found.algo;
    p->workspace = found.workspaceSize;
    return s;
}

/* The plan of that key: known, or in the place of the one that was asked for longest ago. NULL: the stream has failed. */
static plan *plan_of(dev *d, cublas *l, const product *key, const float *bias)
{
    plan *oldest = l->plans;
    for (plan *p = l->plans; p < l->plans + MOST_PLANS; p++) {
        if (p->last && memcmp(&p->key, key, sizeof *key) == 0) {
            p->last = ++l->clock;
            return p;
        }
        if (p->last < oldest->last) oldest = p;
    }
    forget(l, oldest);
    oldest->key = *key;
    oldest->last = ++l->clock;
    cublasStatus_t s = make_layouts(l, oldest);
    if (s == CUBLAS_STATUS_SUCCESS) s = make_desc(l, oldest, bias);
    if (s == CUBLAS_STATUS_SUCCESS) s = choose(l, oldest);
    oldest->refused = s == CUBLAS_STATUS_NOT_SUPPORTED;
    if (s == CUBLAS_STATUS_SUCCESS || oldest->refused) return oldest;
    dev_fail(d, SCA_ERR_DEVICE, "device " KIND ": gemm=cublaslt: a product of %lld x %lld x %lld: %s",
             (long long)key->M, (long long)key->N, (long long)key->K, l->f.cublasLtGetStatusString(s));
    forget(l, oldest);
    return NULL;
}

/* ---- a job ------------------------------------------------------------------------------------------------------ */

/* The largest power of two, up to MOST_ALIGN, that divides the address and what is added to it between batches. */
static int64_t align_of(const void *p, dtype type, int64_t stride)
{
    uintptr_t bits = (uintptr_t)p | (uintptr_t)(stride * (int64_t)dtype_bytes(type)) | MOST_ALIGN;
    return (int64_t)(bits & (~bits + 1));
}

/* Distance of rows; with one row any will do, but it must hold one. */
static int64_t pitch(int64_t rows, int64_t width, int64_t ld) { return rows == 1 ? width : ld; }

static product product_of(const cuda_gemm_job *j, bool sums)
{
    product k = { .M = j->M, .N = j->N, .K = j->K, .batch = j->batch[1], .type = j->a_type };
    k.out_type = sums ? DT_F32 : j->a_type;
    k.lda = pitch(j->M, j->K, j->lda);
    k.ldb = j->b_cols ? pitch(j->K, j->N, j->ldb) : pitch(j->N, j->K, j->ldb);
    k.ldy = sums ? j->N : pitch(j->M, j->N, j->ldy);
    k.ldr = j->r ? pitch(j->M, j->N, j->ldr) : 0;
    k.batch_a = j->batch_a[1], k.batch_b = j->batch_b[1], k.batch_y = j->batch_y[1];
    k.b_cols = j->b_cols, k.bias = !sums && j->bias, k.residual = !sums && j->r;
    k.workspace = j->may_split ? WORKSPACE : 0;
    int64_t each = k.batch > 1;
    k.align_a = align_of(j->a, j->a_type, j->batch_a[0] | each * k.batch_a);
    k.align_b = align_of(j->b, j->b_type, j->batch_b[0] | each * k.batch_b);
    k.align_y = sums ? MOST_ALIGN : align_of(j->y, j->a_type, j->batch_y[0] | each * k.batch_y);
    k.align_r = k.residual ? align_of(j->r, j->a_type, j->batch_y[0] | each * k.batch_y) : k.align_y;
    k.align_bias = k.bias ? align_of(j->bias, DT_F32, 0) : 0;
    return k;
}

static bool takes(const cuda_gemm_job *j, bool sums)
{
    if (j->a_type != j->b_type || j->K == 0 || (sums && (!j->may_split || j->batch[0] * j->batch[1] > 1)))
        return false;
    product k = product_of(j, sums);
    return k.lda >= k.K && k.ldb >= (k.b_cols ? k.N : k.K) && k.ldy >= k.N && (!k.residual || k.ldr >= k.N);
}

static void run(dev *d, const cublas *l, const plan *p, const cuda_gemm_job *j, float alpha, void *y,
                void *workspace)
{
    const float beta = p->key.residual ? 1 : 0;
    int64_t bytes = (int64_t)dtype_bytes(j->a_type);
    cublasStatus_t s = p->key.bias ? set_bias(l, p, j->bias) : CUBLAS_STATUS_SUCCESS;
    for (int64_t i = 0; i < j->batch[0] && s == CUBLAS_STATUS_SUCCESS; i++) {
        char *to = (char *)y + i * j->batch_y[0] * bytes;
        const char *add = p->key.residual ? (const char *)j->r + i * j->batch_y[0] * bytes : to;
        s = l->f.cublasLtMatmul(l->handle, p->desc, &alpha, (const char *)j->b + i * j->batch_b[0] * bytes, p->a,
                                (const char *)j->a + i * j->batch_a[0] * bytes, p->b, &beta, add, p->c, to, p->d,
                                &p->algo, workspace, p->workspace, cuda_of(d)->stream);
    }
    if (s != CUBLAS_STATUS_SUCCESS)
        dev_fail(d, SCA_ERR_DEVICE, "device " KIND ": gemm=cublaslt: cublasLtMatmul of %lld x %lld x %lld: %s",
                 (long long)j->M, (long long)j->N, (long long)j->K, l->f.cublasLtGetStatusString(s));
}

bool cuda_cublas_gemm(dev *d, const cuda_gemm_job *j, float **sums)
{
    cublas *l = cuda_of(d)->cublas;
    bool ours = j->act != ACT_NONE || (j->bias && j->a_type != DT_F32);
    *sums = NULL;
    if (!l || !takes(j, ours)) return false;
    product key = product_of(j, ours);
    const plan *p = plan_of(d, l, &key, j->bias);
    if (!p || p->refused) return !p;
    size_t own = ours ? ((size_t)(j->M * j->N) * sizeof(float) + MOST_ALIGN - 1) / MOST_ALIGN * MOST_ALIGN : 0;
    char *scratch = own + p->workspace
                        ? cuda_scratch(d, own + p->workspace, "sums and workspace of a product by cuBLASLt")
                        : NULL;
    if (d->status != SCA_OK) return true;
    if (ours) *sums = (float *)(void *)scratch;
    run(d, l, p, j, ours ? 1 : j->alpha, ours ? scratch : j->y, p->workspace ? scratch + own : NULL);
    return true;
}

void cuda_cublas_state(char *text, size_t bytes)
{
    table f;
#ifdef SIMT
    snprintf(text, bytes, "a stand-in for the host, named with cublaslt=FILE");
    (void)f;
    (void)load;
#else
    if (load(&f, NULL) != SCA_OK) {
        snprintf(text, bytes, "library not found, looked for %s, %s", files[0], files[1]);
        return;
    }
    size_t v = f.cublasLtGetVersion();
    snprintf(text, bytes, "cuBLASLt %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
#endif
}

#else /* ---- built without its header ---------------------------------------------------------------------------- */

sca_status cuda_cublas_open(cuda *c, const char *file)
{
    (void)c;
    (void)file;
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "device " KIND ": gemm=cublaslt is not built in: cublasLt.h was not found; install the CUDA "
                       "toolkit's libcublas-dev and build again, or leave it out");
}
void cuda_cublas_close(cuda *c) { (void)c; }
bool cuda_cublas_gemm(dev *d, const cuda_gemm_job *j, float **sums)
{
    (void)d;
    (void)j;
    *sums = NULL;
    return false;
}
void cuda_cublas_state(char *text, size_t bytes) { snprintf(text, bytes, "not built: cublasLt.h was not found"); }
#endif
