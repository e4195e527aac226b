/* blas.c - the variant gemm=blas of the cpu device: op_linear_fwd of f32 weights by a BLAS. It is called with one thread
 * on slices of the output, so that there is one pool; 16-bit weights and what a BLAS cannot fuse stay with gemm.c.
 * A BLAS sums in an order of its own, which may depend on how many rows it is given: this variant alone does not promise
 * that a row gives the same bits in any company. */
#include "cpu/cpu.h"

#include <stdio.h>

#ifdef SCA_BLAS

#include <cblas.h>
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* Loaded when it is asked for: a BLAS takes threads and tens of megabytes as soon as it is there. */
static struct {
    void (*sgemm)(enum CBLAS_ORDER, enum CBLAS_TRANSPOSE, enum CBLAS_TRANSPOSE, blasint, blasint, blasint, float,
                  const float *, blasint, const float *, blasint, float, float *, blasint);
    void (*set_threads)(int);
} blas;
static pthread_once_t loaded = PTHREAD_ONCE_INIT;

static void load(void)
{
    void *library = dlopen(SCA_BLAS, RTLD_NOW | RTLD_LOCAL);
    void *sgemm = library ? dlsym(library, "cblas_sgemm") : NULL;
    void *threads = library ? dlsym(library, "openblas_set_num_threads") : NULL;
    if (!sgemm || !threads) return;
    memcpy(&blas.sgemm, &sgemm, sizeof sgemm); /* a function behind a pointer to data: POSIX's own way */
    memcpy(&blas.set_threads, &threads, sizeof threads);
    blas.set_threads(1);
}

sca_status cpu_blas_open(void)
{
    pthread_once(&loaded, load);
    if (blas.sgemm) return SCA_OK;
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "device cpu: gemm=blas needs %s, which cannot be loaded; install libopenblas0, or "
                       "leave gemm=blas out",
                       SCA_BLAS);
}

void cpu_blas_state(char *text, size_t bytes)
{
    bool there = cpu_blas_open() == SCA_OK;
    snprintf(text, bytes, "%s%s", there ? "" : "library not found, looked for ", SCA_BLAS);
}

enum { SLICE = 128 }; /* outputs of one call: wide enough for the library's own blocks */

static void blas_slice(void *context, int64_t task, int thread)
{
    const gemm_job *j = context;
    (void)thread;
    int64_t n0 = task * SLICE, n = min64(SLICE, j->N - n0);
    const float *b = j->b;
    bool rows = j->b_kind == GEMM_ROWS;
    for (int64_t m = 0; m < j->M && j->r && j->r != j->y; m++)
        memcpy(j->y + m * j->ldy + n0, j->r + m * j->ldr + n0, (size_t)n * sizeof *j->y);
    blas.sgemm(CblasRowMajor, CblasNoTrans, rows ? CblasTrans : CblasNoTrans, (blasint)j->M, (blasint)n,
               (blasint)j->K, 1, j->a, (blasint)j->lda, rows ? b + n0 * j->ldb : b + n0, (blasint)j->ldb,
               j->r ? 1 : 0, j->y + n0, (blasint)j->ldy);
    for (int64_t m = 0; m < j->M; m++) {
        float *y = j->y + m * j->ldy + n0;
        for (int64_t i = 0; i < n && j->bias; i++) y[i] += j->bias[n0 + i];
        if (j->act != ACT_NONE) j->kernels->activate(y, y, n, j->act);
    }
}

bool cpu_blas_gemm(dev *d, const gemm_job *job)
{
    gemm_job j = *job;
    if (j.b_type != DT_F32 || j.b_kind == GEMM_PANELS || j.b_kind == GEMM_TURNED || j.fill ||
        (j.r && j.act != ACT_NONE))
        return false;
    if (j.M > INT32_MAX || j.K > INT32_MAX || j.ldb > INT32_MAX || j.ldy > INT32_MAX || j.lda > INT32_MAX)
        return false;
    j.kernels = cpu_of(d)->kernels;
    cpu_parallel(cpu_of(d), ceil_div(j.N, SLICE), blas_slice, &j);
    return true;
}

#else

sca_status cpu_blas_open(void)
{
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "device cpu: gemm=blas is not built in; install libopenblas-dev and build "
                       "again, or leave it out");
}

void cpu_blas_state(char *text, size_t bytes) { snprintf(text, bytes, "not built: no OpenBLAS was found"); }

bool cpu_blas_gemm(dev *d, const gemm_job *job)
{
    (void)d;
    (void)job;
    return false;
}

#endif
