/* cpu.c - the "cpu" device: options, memory, scratch, and its table of ops. */
#include "cpu/cpu.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <limits.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- which machine -------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Conversions of half precision; clang 14 does not know the feature by name. */
static bool has_f16c(void)
{
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool runs(const char *name)
{
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (strcmp(name, "avx2") == 0) return avx2;
    if (strcmp(name, "avx512") == 0)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return true;
}
static const cpu_kernels *const kernels_best_first[] = { &cpu_kernels_avx512, &cpu_kernels_avx2,
                                                         &cpu_kernels_generic };
#else
static bool runs(const char *name)
{
    (void)name;
    return true;
}
static const cpu_kernels *const kernels_best_first[] = { &cpu_kernels_generic };
#endif

/* `want` NULL: the best this machine runs. */
static sca_status choose_kernels(const char *want, const cpu_kernels **out)
{
    for (size_t i = 0; i < LENGTH(kernels_best_first); i++) {
        const cpu_kernels *k = kernels_best_first[i];
        if (want && strcmp(want, k->name) != 0) continue;
        if (runs(k->name)) {
            *out = k;
            return SCA_OK;
        }
        if (want)
            return status_fail(SCA_ERR_UNSUPPORTED, "device cpu: isa=%s, which this machine lacks; leave isa out",
                               want);
    }
    return status_fail(SCA_ERR_ARGUMENT, "device cpu: isa=%s, expected generic, avx2 or avx512", want);
}

static int machine_threads(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

/* ---- options ----------------------------------------------------------------------------------------------- */

enum { MOST_THREADS = 1024 };

static sca_status take_option(const char *text, cpu *c)
{
    int64_t n = 0;
    if (text_starts(text, "threads=")) {
        if (!text_to_int(text + 8, 0, MOST_THREADS, &n))
            return status_fail(SCA_ERR_ARGUMENT, "device cpu: '%s', expected threads=0 (all cores) to threads=%d",
                               text, MOST_THREADS);
        c->threads = n ? (int)n : machine_threads();
        return SCA_OK;
    }
    bool blas = strcmp(text, "gemm=blas") == 0;
    if (blas || strcmp(text, "gemm=own") == 0) {
        c->blas = blas;
        return blas ? cpu_blas_open() : SCA_OK;
    }
    if (text_starts(text, "isa=")) return choose_kernels(text + 4, &c->kernels);
    return status_fail(SCA_ERR_ARGUMENT,
                       "device cpu: unknown option '%s', expected threads=N, isa=NAME, gemm=own or gemm=blas",
                       text);
}

static sca_status take_options(const char *options, cpu *c)
{
    for (const char *p = options ? options : ""; *p;) {
        size_t n = strcspn(p, ",");
        char *one = text_copy(p, n);
        if (!one) return mem_fail(n + 1, "device options");
        sca_status status = n ? take_option(one, c) : SCA_OK;
        mem_free(one);
        TRY(status);
        p += n + (p[n] == ',');
    }
    return SCA_OK;
}

static const backend blas_backend; /* below */

/* ---- the device ---------------------------------------------------------------------------------------------- */

static sca_status cpu_open(dev *d, const char *options)
{
    sca_status status = SCA_OK;
    cpu *c = mem_zero(1, sizeof *c);
    if (!c) return mem_fail(sizeof *c, "the cpu device");
    c->threads = machine_threads();
    TRY_GOTO(fail, choose_kernels(NULL, &c->kernels));
    TRY_GOTO(fail, take_options(options, c));
    TRY_GOTO(fail, cpu_pool_open(c->threads, &c->pool));
    d->impl = c;
    if (c->blas) d->kind = &blas_backend;
    return SCA_OK;
fail:
    mem_free(c);
    return status;
}

static void cpu_close(dev *d)
{
    cpu *c = d->impl;
    if (!c) return;
    cpu_pool_close(c->pool);
    mem_free(c->scratch);
    mem_free(c);
    d->impl = NULL;
}

/* Large blocks ask for huge pages: the products touch many rows that lie far apart. Untouched pages stay unused. */
static void *block_alloc(size_t bytes)
{
    const size_t huge = (size_t)2 << 20;
    size_t alignment = bytes >= 2 * huge ? huge : 64;
    if (bytes > SIZE_MAX - alignment) return NULL;
    size_t whole = (bytes + alignment - 1) / alignment * alignment;
    void *p = mem_aligned(alignment, whole ? whole : alignment);
    if (p && alignment == huge) (void)madvise(p, whole, MADV_HUGEPAGE); /* only advice: a refusal costs nothing */
    return p;
}

static void *cpu_alloc(dev *d, size_t bytes)
{
    (void)d;
    return block_alloc(bytes);
}

static void cpu_release(dev *d, void *p, size_t bytes)
{
    (void)d;
    (void)bytes;
    mem_free(p);
}

static void cpu_put(dev *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    if (bytes) memcpy(dst, src, bytes);
}

static void cpu_sync(dev *d) { (void)d; }

/* ---- scratch ----------------------------------------------------------------------------------------------------
 */

bool cpu_scratch(dev *d, size_t thread_bytes, size_t shared_bytes)
{
    cpu *c = cpu_of(d);
    size_t part =
        (thread_bytes + 4095) / 4096 * 4096 + 64 * 5; /* the odd lines keep the parts off each other's sets */
    size_t threads = (size_t)c->threads, whole = part * threads + shared_bytes;
    c->thread_bytes = part;
    if (whole <= c->scratch_bytes) return true;
    mem_free(c->scratch);
    c->scratch = block_alloc(whole);
    c->scratch_bytes = c->scratch ? whole : 0;
    if (!c->scratch) {
        dev_fail(d, mem_fail(whole, "scratch of the cpu device"), "%s", status_message());
        return false;
    }
    return true;
}

void *cpu_scratch_of(const cpu *c, int thread) { return c->scratch + (size_t)thread * c->thread_bytes; }

void *cpu_scratch_shared(const cpu *c) { return c->scratch + (size_t)c->threads * c->thread_bytes; }

/* ---- views
 * ------------------------------------------------------------------------------------------------------- */

int64_t cpu_row_offset(const tensor *t, int64_t r)
{
    int64_t offset = 0;
    for (int i = t->ndim - 2; i >= 0; i--) {
        offset += r % t->dim[i] * t->stride[i];
        r /= t->dim[i];
    }
    return offset;
}

int64_t cpu_rows(const tensor *t)
{
    int64_t rows = 1;
    for (int i = 0; i + 1 < t->ndim; i++) rows *= t->dim[i];
    return rows;
}

bool cpu_rows_even(const tensor *t, int64_t *stride)
{
    int last = -1; /* the innermost leading axis with more than one row */
    int64_t rows = 1;
    *stride = t->ndim > 0 ? t->dim[t->ndim - 1] : 1;
    for (int i = t->ndim - 2; i >= 0; i--) {
        if (t->dim[i] == 1) continue;
        if (last < 0) {
            last = i;
            *stride = t->stride[i];
        } else if (t->stride[i] != *stride * rows) {
            return false;
        }
        rows *= t->dim[i];
    }
    return true;
}

/* ---- the table
 * ----------------------------------------------------------------------------------------------------- */

static const op_table cpu_ops = {
#define OP(name, parameters, arguments) .name = cpu_##name,
#include "ops/ops.def"
#undef OP
};

static const dev_row rows[] = { { "gemm=own", NULL }, { "gemm=blas", cpu_blas_state }, { NULL, NULL } };

/* clang-format off */
#define CPU_BACKEND(panels)                                                                                    \
    { .name = "cpu", .act = DT_F32, .host_memory = true, .open = cpu_open, .close = cpu_close,                 \
      .alloc = cpu_alloc, .release = cpu_release, .put = cpu_put, .get = cpu_put, .sync = cpu_sync,            \
      .panel_bytes = panels, .rows = rows, .ops = &cpu_ops }
/* clang-format on */
const backend cpu_backend = CPU_BACKEND(cpu_panel_bytes);
static const backend blas_backend = CPU_BACKEND(NULL); /* a BLAS takes rows */
