/* standin_cublaslt.c - the few functions of cuBLASLt that cuda/cublas.c calls, on the host: a library for the device simt
 * which takes what the documentation says is taken, and nothing else. A call that breaks a rule fails; an algorithm is good
 * for the problem it was found for alone, and the workspace is overwritten. */
#include "core/core.h"

#include <cublasLt.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* What was done, for tests that look the library up a second time. */
typedef struct standin_counts {
    int64_t products, heuristics, objects; /* objects: alive */
} standin_counts;
EXPORT standin_counts standin;

typedef struct layout_object {
    int64_t type, rows, columns, ld, batch, stride;
} layout_object;
typedef struct desc_object {
    int64_t turn_a, turn_b, end, bias_type;
    const float *bias;
} desc_object;
typedef struct preference_object {
    uint64_t workspace;
    uint32_t align[4], reductions; /* a b c d */
} preference_object;

enum { WORKSPACE_ALIGN = 16, STEP_WORKSPACE = 4096 };

static cublasStatus_t make(void *out, size_t bytes, const void *from)
{
    void *object = calloc(1, bytes);
    if (!object) return CUBLAS_STATUS_ALLOC_FAILED;
    memcpy(object, from, bytes);
    memcpy(out, &object, sizeof object);
    standin.objects++;
    return CUBLAS_STATUS_SUCCESS;
}

static cublasStatus_t drop(void *object)
{
    if (!object) return CUBLAS_STATUS_INVALID_VALUE;
    free(object);
    standin.objects--;
    return CUBLAS_STATUS_SUCCESS;
}

EXPORT size_t cublasLtGetVersion(void) { return CUBLAS_VERSION; }
EXPORT const char *cublasLtGetStatusString(cublasStatus_t s)
{
    return s == CUBLAS_STATUS_NOT_SUPPORTED   ? "CUBLAS_STATUS_NOT_SUPPORTED"
           : s == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE"
                                              : "CUBLAS_STATUS_ALLOC_FAILED";
}

EXPORT cublasStatus_t cublasLtCreate(cublasLtHandle_t *h) { return make(h, 1, ""); }
EXPORT cublasStatus_t cublasLtDestroy(cublasLtHandle_t h) { return drop(h); }

/* ---- layouts: columns, ld at least the rows ------------------------------------------------------------------ */

static size_t bytes_of(int64_t type) { return type == CUDA_R_32F ? 4 : 2; }

EXPORT cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows,
                                                 uint64_t columns, int64_t ld)
{
    layout_object l = { type, (int64_t)rows, (int64_t)columns, ld, 1, 0 };
    bool known = type == CUDA_R_32F || type == CUDA_R_16F || type == CUDA_R_16BF;
    if (!known || l.rows < 1 || l.columns < 1 || ld < l.rows) return CUBLAS_STATUS_INVALID_VALUE;
    return make(out, sizeof l, &l);
}
EXPORT cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) { return drop(l); }

EXPORT cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t to,
                                                       cublasLtMatrixLayoutAttribute_t name, const void *value,
                                                       size_t bytes)
{
    layout_object *l = (layout_object *)(void *)to;
    int32_t count;
    if (name == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT && bytes == sizeof count) {
        memcpy(&count, value, sizeof count);
        l->batch = count;
        return count > 0 ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
    }
    if (name == CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET && bytes == sizeof l->stride) {
        memcpy(&l->stride, value, sizeof l->stride);
        return CUBLAS_STATUS_SUCCESS;
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

/* ---- what is multiplied -------------------------------------------------------------------------------------------- */

EXPORT cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute,
                                               cudaDataType_t scale)
{
    desc_object d = { CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, -1, NULL };
    if (compute != CUBLAS_COMPUTE_32F || scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    return make(out, sizeof d, &d);
}
EXPORT cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) { return drop(d); }

EXPORT cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t to, cublasLtMatmulDescAttributes_t name,
                                                     const void *value, size_t bytes)
{
    desc_object *d = (desc_object *)(void *)to;
    int32_t number = 0;
    if (name == CUBLASLT_MATMUL_DESC_BIAS_POINTER && bytes == sizeof d->bias) {
        memcpy(&d->bias, value, sizeof d->bias);
        return CUBLAS_STATUS_SUCCESS;
    }
    if (bytes != sizeof number) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&number, value, sizeof number);
    switch (name) {
    case CUBLASLT_MATMUL_DESC_TRANSA: d->turn_a = number; break;
    case CUBLASLT_MATMUL_DESC_TRANSB: d->turn_b = number; break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: d->end = number; break;
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE: d->bias_type = number; break;
    default: return CUBLAS_STATUS_INVALID_VALUE;
    }
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- what an algorithm may do -------------------------------------------------------------------------------------- */

EXPORT cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    preference_object p = { 0, { 256, 256, 256, 256 }, CUBLASLT_REDUCTION_SCHEME_MASK };
    return make(out, sizeof p, &p);
}
EXPORT cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t p) { return drop(p); }

EXPORT cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t to,
                                                           cublasLtMatmulPreferenceAttributes_t name,
                                                           const void *value, size_t bytes)
{
    preference_object *p = (preference_object *)(void *)to;
    uint32_t number = 0;
    if (name == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES && bytes == sizeof p->workspace) {
        memcpy(&p->workspace, value, sizeof p->workspace);
        return CUBLAS_STATUS_SUCCESS;
    }
    if (bytes != sizeof number) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&number, value, sizeof number);
    switch (name) {
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: p->align[0] = number; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: p->align[1] = number; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: p->align[2] = number; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: p->align[3] = number; break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: p->reductions = number; break;
    default: return CUBLAS_STATUS_INVALID_VALUE;
    }
    return CUBLAS_STATUS_SUCCESS;
}

/* ---- a problem ---------------------------------------------------------------------------------------------------------- */

typedef struct problem {
    desc_object desc; /* without the bias's address */
    layout_object a, b, c, d;
} problem;

static problem problem_of(cublasLtMatmulDesc_t desc, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                          cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d)
{
    problem p;
    memset(&p, 0, sizeof p);
    memcpy(&p.desc, desc, sizeof p.desc);
    memcpy(&p.a, a, sizeof p.a);
    memcpy(&p.b, b, sizeof p.b);
    memcpy(&p.c, c, sizeof p.c);
    memcpy(&p.d, d, sizeof p.d);
    p.desc.bias = NULL;
    return p;
}

static uint64_t hash_of(const problem *p)
{
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < sizeof *p; i++) h = (h ^ ((const unsigned char *)p)[i]) * 1099511628211u;
    return h;
}

static int64_t inner(const problem *p) { return p->desc.turn_a ? p->a.rows : p->a.columns; }

/* D = op(A) op(B) + C: shapes, batches, types that go together; a bias has the type of D. */
static bool consistent(const problem *p)
{
    int64_t m = p->desc.turn_a ? p->a.columns : p->a.rows, n = p->desc.turn_b ? p->b.rows : p->b.columns;
    int64_t k = p->desc.turn_b ? p->b.columns : p->b.rows, batch = p->d.batch;
    bool shapes = p->d.rows == m && p->d.columns == n && inner(p) == k && p->c.rows == m && p->c.columns == n;
    bool batches = p->a.batch == batch && p->b.batch == batch && p->c.batch == batch;
    bool apart = batch == 1 || p->d.stride >= (p->d.columns - 1) * p->d.ld + p->d.rows;
    bool interleaved = batch > 1 && p->d.stride >= p->d.rows && p->d.ld >= (batch - 1) * p->d.stride + p->d.rows;
    bool types =
        p->a.type == p->b.type && p->c.type == p->d.type && (p->d.type == p->a.type || p->d.type == CUDA_R_32F);
    bool end =
        p->desc.end == CUBLASLT_EPILOGUE_DEFAULT ||
        (p->desc.end == CUBLASLT_EPILOGUE_BIAS && (p->desc.bias_type == -1 || p->desc.bias_type == p->d.type));
    return shapes && batches && (apart || interleaved) && types && end;
}

EXPORT cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t desc,
                                                     cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                                     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                                     cublasLtMatmulPreference_t preference, int wanted,
                                                     cublasLtMatmulHeuristicResult_t found[], int *n)
{
    problem p = problem_of(desc, a, b, c, d);
    const preference_object *may = (const preference_object *)(const void *)preference;
    *n = 0;
    if (!h || wanted < 1 || !consistent(&p)) return CUBLAS_STATUS_INVALID_VALUE;
    if (may->reductions & (CUBLASLT_REDUCTION_SCHEME_INPLACE | CUBLASLT_REDUCTION_SCHEME_OUTPUT_TYPE))
        return CUBLAS_STATUS_INVALID_VALUE; /* sums of results: our contract does not allow them */
    standin.heuristics++;
    for (int i = 0; i < 4; i++) /* some must not be there, so that a caller's other way is tried */
        if (may->align[i] < 4) return CUBLAS_STATUS_NOT_SUPPORTED;
    uint64_t align = 0;
    for (int i = 3; i >= 0; i--) align = align << 16 | may->align[i];
    found[0] = (cublasLtMatmulHeuristicResult_t){ .state = CUBLAS_STATUS_SUCCESS };
    found[0].workspaceSize = may->workspace >= STEP_WORKSPACE ? STEP_WORKSPACE : 0;
    found[0].algo.data[0] = hash_of(&p);
    found[0].algo.data[1] = align;
    found[0].algo.data[2] = found[0].workspaceSize;
    *n = 1;
    return CUBLAS_STATUS_SUCCESS;
}

static float load(const void *from, int64_t type, int64_t at)
{
    float x;
    dtype t = type == CUDA_R_32F ? DT_F32 : type == CUDA_R_16F ? DT_F16 : DT_BF16;
    dtype_convert(DT_F32, &x, t, (const char *)from + at * (int64_t)bytes_of(type), 1);
    return x;
}

static void store(void *to, int64_t type, int64_t at, float x)
{
    dtype t = type == CUDA_R_32F ? DT_F32 : type == CUDA_R_16F ? DT_F16 : DT_BF16;
    dtype_convert(t, (char *)to + at * (int64_t)bytes_of(type), DT_F32, &x, 1);
}

static bool aligned(const void *const operand[4], uint64_t align)
{
    for (int i = 0; i < 4; i++) {
        uint64_t bytes = align >> 16 * i & 0xffff;
        if (bytes == 0 || (uintptr_t)operand[i] % bytes) return false;
    }
    return true;
}

static void multiply(const problem *p, float alpha, const void *a, const void *b, float beta, const void *c,
                     void *d, const float *bias, int64_t batch)
{
    int64_t a0 = batch * p->a.stride, b0 = batch * p->b.stride, c0 = batch * p->c.stride, d0 = batch * p->d.stride;
    for (int64_t n = 0; n < p->d.columns; n++)
        for (int64_t m = 0; m < p->d.rows; m++) {
            double sum = 0;
            for (int64_t k = 0; k < inner(p); k++)
                sum += (double)load(a, p->a.type, a0 + (p->desc.turn_a ? m * p->a.ld + k : k * p->a.ld + m)) *
                       (double)load(b, p->b.type, b0 + (p->desc.turn_b ? k * p->b.ld + n : n * p->b.ld + k));
            float x = alpha * (float)sum;
            if (beta != 0) x += beta * load(c, p->c.type, c0 + n * p->c.ld + m);
            if (p->desc.end == CUBLASLT_EPILOGUE_BIAS) x += bias[m];
            store(d, p->d.type, d0 + n * p->d.ld + m, x);
        }
}

EXPORT cublasStatus_t cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t desc, const void *alpha,
                                     const void *a, cublasLtMatrixLayout_t a_layout, const void *b,
                                     cublasLtMatrixLayout_t b_layout, const void *beta, const void *c,
                                     cublasLtMatrixLayout_t c_layout, void *d, cublasLtMatrixLayout_t d_layout,
                                     const cublasLtMatmulAlgo_t *algo, void *workspace, size_t bytes,
                                     cudaStream_t stream)
{
    (void)stream;
    problem p = problem_of(desc, a_layout, b_layout, c_layout, d_layout);
    const float *bias = ((const desc_object *)(const void *)desc)->bias;
    float by[2];
    if (!h || !algo || !consistent(&p) || algo->data[0] != hash_of(&p)) return CUBLAS_STATUS_INVALID_VALUE;
    if (!aligned((const void *const[4]){ a, b, c, d }, algo->data[1])) return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes < algo->data[2] || (bytes && (!workspace || (uintptr_t)workspace % WORKSPACE_ALIGN)))
        return CUBLAS_STATUS_INVALID_VALUE;
    if ((p.desc.end == CUBLASLT_EPILOGUE_BIAS) != (bias != NULL) || d == a || d == b)
        return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(&by[0], alpha, sizeof by[0]);
    memcpy(&by[1], beta, sizeof by[1]);
    if (by[1] != 0 && c == d && p.c.ld != p.d.ld) return CUBLAS_STATUS_INVALID_VALUE;
    if (bytes) memset(workspace, 0xff, bytes); /* numbers that are none */
    for (int64_t i = 0; i < p.d.batch; i++) multiply(&p, by[0], a, b, by[1], c, d, bias, i);
    standin.products++;
    return CUBLAS_STATUS_SUCCESS;
}
