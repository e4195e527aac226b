/* cuda.c - the devices "cuda" and "simt": options, memory, copies, launches, and the table of ops. */
#include "cuda/vendor.h"

#include "ops/args.h"

#include <stdio.h>
#include <string.h>

enum { STAGING_BYTES = 4 << 20, LEAST_ARCH = 80 };

static const backend bf16_backend, f16_backend; /* below */

/* What the runtime says of this machine. */
typedef struct gpu_found {
    cudaError_t error;
    int driver, runtime; /* 1000 major + 10 minor of CUDA; driver 0: there is none */
    int gpus, major, minor;
} gpu_found;

/* ---- the runtime, twice ------------------------------------------------------------------------------------- */

#ifdef SIMT
/* A machine like a small H100, or what the option pretend=... makes of it. */
static void look_for_gpu(cuda *c, gpu_found *g)
{
    *g = (gpu_found){ .error = c->pretended, .driver = c->pretended_driver, .runtime = 13000, .gpus = 1 };
    if (c->pretended == cudaErrorNoDevice) g->gpus = 0;
    g->major = c->arch ? c->arch / 10 : 9, g->minor = c->arch % 10;
    if (!c->multiprocessors) c->multiprocessors = 4;
    c->block_shared = 227 << 10;
    if (!c->memory_bytes) c->memory_bytes = (size_t)80 << 30;
}
static void forget_error(void) {}
static const char *error_name(cudaError_t e) { return e == cudaErrorUnknown ? "cudaErrorUnknown" : "an error"; }

static sca_status open_stream(cuda *c)
{
    (void)c;
    return SCA_OK;
}

static void close_stream(cuda *c) { (void)c; }
static cudaError_t memory_take(cuda *c, void **p, size_t bytes)
{
    return bytes > c->memory_bytes - c->taken_bytes ? cudaErrorMemoryAllocation : simt_malloc(p, bytes);
}
static void memory_give(void *p) { simt_free(p); }
static size_t memory_left(const cuda *c) { return c->memory_bytes - c->taken_bytes; }
static cudaError_t wait_stream(cuda *c)
{
    (void)c;
    return simt_wait();
}
static const char *error_text(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory"
           : e == cudaErrorUnknown        ? "unknown error"
                                          : simt_message();
}

static void cuda_put(dev *d, void *dst, const void *src, size_t bytes)
{
    if (cuda_may_wait(d, "copy to the GPU") && bytes) memcpy(dst, src, bytes);
}

static void cuda_get(dev *d, void *dst, const void *src, size_t bytes)
{
    if (cuda_may_wait(d, "copy from the GPU") && bytes) memcpy(dst, src, bytes);
}

static void cuda_fence(dev *d, void *p, size_t bytes, bool closed)
{
    (void)d;
    simt_fence(p, bytes, closed);
}

bool cuda_may_launch(dev *d, const void *kernel, const char *name, size_t dynamic_bytes)
{
    (void)kernel;
    (void)name;
    (void)dynamic_bytes;
    return d->status == SCA_OK;
}
#else
static const char *error_text(cudaError_t e) { return cudaGetErrorString(e); }

static void forget_error(void) { cudaGetLastError(); }
static const char *error_name(cudaError_t e) { return cudaGetErrorName(e); }

static void look_for_gpu(cuda *c, gpu_found *g)
{
    int shared = 0;
    size_t unused = 0;
    g->error = cudaGetDeviceCount(&g->gpus);
    cudaDriverGetVersion(&g->driver);
    cudaRuntimeGetVersion(&g->runtime);
    if (g->error != cudaSuccess || c->index >= g->gpus || (g->error = cudaSetDevice(c->index)) != cudaSuccess)
        return;
    cudaDeviceGetAttribute(&g->major, cudaDevAttrComputeCapabilityMajor, c->index);
    cudaDeviceGetAttribute(&g->minor, cudaDevAttrComputeCapabilityMinor, c->index);
    cudaDeviceGetAttribute(&c->multiprocessors, cudaDevAttrMultiProcessorCount, c->index);
    cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, c->index);
    c->block_shared = (size_t)shared;
    g->error = cudaMemGetInfo(&unused, &c->memory_bytes);
}

static sca_status open_stream(cuda *c)
{
    cudaError_t e = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    for (int i = 0; i < 2 && e == cudaSuccess; i++) {
        e = cudaMallocHost((void **)&c->staging[i], STAGING_BYTES);
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(&c->staged[i], cudaEventDisableTiming);
    }
    if (e == cudaSuccess) return SCA_OK;
    return status_fail(SCA_ERR_DEVICE, "device " KIND ": no stream: %s (%s)", error_text(e), error_name(e));
}

static void close_stream(cuda *c)
{
    for (int i = 0; i < 2; i++) {
        if (c->staged[i]) cudaEventDestroy(c->staged[i]);
        if (c->staging[i]) cudaFreeHost(c->staging[i]);
    }
    if (c->stream) cudaStreamDestroy(c->stream);
}

static cudaError_t memory_take(cuda *c, void **p, size_t bytes)
{
    (void)c;
    return cudaMalloc(p, bytes);
}
static void memory_give(void *p) { cudaFree(p); }
static size_t memory_left(const cuda *c)
{
    size_t left = 0, whole = 0;
    (void)c;
    cudaGetLastError(); /* told by who asks */
    cudaMemGetInfo(&left, &whole);
    return left;
}
static cudaError_t wait_stream(cuda *c) { return cudaStreamSynchronize(c->stream); }

/* Through pinned memory, two pieces in turn: the caller's bytes are free when this returns, the copies run on. */
static void cuda_put(dev *d, void *dst, const void *src, size_t bytes)
{
    cuda *c = cuda_of(d);
    if (!cuda_may_wait(d, "copy to the GPU")) return;
    for (size_t at = 0; at < bytes;) {
        size_t n = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        int i = c->turn ^= 1;
        cudaError_t e = cudaEventSynchronize(c->staged[i]);
        if (e == cudaSuccess) {
            memcpy(c->staging[i], (const char *)src + at, n);
            e = cudaMemcpyAsync((char *)dst + at, c->staging[i], n, cudaMemcpyHostToDevice, c->stream);
        }
        if (e == cudaSuccess) e = cudaEventRecord(c->staged[i], c->stream);
        if (e != cudaSuccess) {
            cuda_failed(d, e, "copy to the GPU");
            return;
        }
        at += n;
    }
}

static void cuda_get(dev *d, void *dst, const void *src, size_t bytes)
{
    cuda *c = cuda_of(d);
    if (!cuda_may_wait(d, "copy from the GPU")) return;
    for (size_t at = 0; at < bytes;) {
        size_t n = bytes - at < STAGING_BYTES ? bytes - at : STAGING_BYTES;
        int i = c->turn ^= 1;
        cudaError_t e = cudaEventSynchronize(c->staged[i]);
        if (e == cudaSuccess)
            e = cudaMemcpyAsync(c->staging[i], (const char *)src + at, n, cudaMemcpyDeviceToHost, c->stream);
        if (e == cudaSuccess) e = cudaStreamSynchronize(c->stream);
        if (e != cudaSuccess) {
            cuda_failed(d, e, "copy from the GPU");
            return;
        }
        memcpy((char *)dst + at, c->staging[i], n);
        at += n;
    }
}

bool cuda_may_launch(dev *d, const void *kernel, const char *name, size_t dynamic_bytes)
{
    if (d->status != SCA_OK) return false;
    if (dynamic_bytes <= 48 << 10) return true;
    if (dynamic_bytes > cuda_of(d)->block_shared) {
        dev_fail(d, SCA_ERR_UNSUPPORTED,
                 "device cuda: kernel %s needs %zu bytes of shared memory, this GPU has %zu", name, dynamic_bytes,
                 cuda_of(d)->block_shared);
        return false;
    }
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)dynamic_bytes);
    if (e != cudaSuccess) cuda_failed(d, e, name);
    return e == cudaSuccess;
}
#endif

/* ---- the GPU: found, and good enough? ---------------------------------------------------------------------------- */

/* Why no GPU can be used; both versions are named. */
static sca_status no_gpu(const gpu_found *g)
{
    forget_error(); /* the next call is not to blame */
    if (g->error == cudaErrorInsufficientDriver && g->driver == 0)
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "device " KIND ": no NVIDIA driver is installed; install one, or use --device cpu");
    if (g->error == cudaErrorInsufficientDriver)
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "device " KIND
                           ": the driver knows CUDA %d.%d, this build needs %d.%d; install a newer driver, or use "
                           "--device cpu",
                           g->driver / 1000, g->driver % 1000 / 10, g->runtime / 1000, g->runtime % 1000 / 10);
    if (g->error == cudaErrorNoDevice)
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "device " KIND ": no GPU is visible (the driver knows CUDA %d.%d); use --device cpu",
                           g->driver / 1000, g->driver % 1000 / 10);
    return status_fail(SCA_ERR_DEVICE, "device " KIND ": %s (%s)", error_text(g->error), error_name(g->error));
}

static sca_status take_gpu(cuda *c)
{
    gpu_found g = { 0 };
    look_for_gpu(c, &g);
    if (g.error != cudaSuccess) return no_gpu(&g);
    if (c->index >= g.gpus)
        return status_fail(SCA_ERR_ARGUMENT, "device " KIND ": index=%d, expected 0 to %d", c->index, g.gpus - 1);
    c->arch = 10 * g.major + g.minor;
    if (c->arch >= LEAST_ARCH) return SCA_OK;
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "device " KIND
                       ": GPU %d has compute capability %d.%d, this build needs %d.%d or later; use --device cpu",
                       c->index, g.major, g.minor, LEAST_ARCH / 10, LEAST_ARCH % 10);
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

void cuda_failed(dev *d, cudaError_t e, const char *what)
{
    sca_status s = e == cudaErrorMemoryAllocation ? SCA_ERR_MEMORY : SCA_ERR_DEVICE;
    dev_fail(d, s, "device " KIND ": %s: %s", what, error_text(e));
}

void cuda_launched(dev *d, const char *name)
{
#ifdef SIMT
    cudaError_t e = simt_last_error();
#else
    cudaError_t e = cudaGetLastError();
#endif
    if (e != cudaSuccess) cuda_failed(d, e, name);
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Which rows are chosen besides our own, and where their libraries lie; NULL: where the system keeps them. */
typedef struct vendor_choice {
    bool cublaslt, cudnn;
    char *cublaslt_file, *cudnn_file;
} vendor_choice;

static sca_status take_file(char **to, const char *file)
{
    mem_free(*to);
    *to = text_copy(file, strlen(file));
    return *to ? SCA_OK : mem_fail(strlen(file) + 1, "device options");
}

static sca_status open_vendors(cuda *c, const vendor_choice *v)
{
#ifdef SIMT
    if ((v->cublaslt && !v->cublaslt_file) || (v->cudnn && !v->cudnn_file))
        return status_fail(
            SCA_ERR_ARGUMENT,
            "device simt: gemm=cublaslt and attention=cudnn run on a stand-in for the host; name it with "
            "cublaslt=FILE and cudnn=FILE");
    if (v->cublaslt || v->cudnn) c->graph_mode = GRAPHS_OFF; /* what runs outside of launches cannot be kept */
#endif
    if (v->cublaslt) TRY(cuda_cublas_open(c, v->cublaslt_file));
    if (v->cudnn) TRY(cuda_cudnn_open(c, v->cudnn_file));
    return SCA_OK;
}

#ifdef SIMT
/* A machine that the real device would not take. */
static sca_status take_pretence(cuda *c, const char *what)
{
    static const struct {
        const char *what;
        cudaError_t error;
        int driver, arch;
    } row[] = { { "no-driver", cudaErrorInsufficientDriver, 0, 90 },
                { "old-driver", cudaErrorInsufficientDriver, 11040, 90 },
                { "no-gpu", cudaErrorNoDevice, 13000, 90 },
                { "broken", cudaErrorUnknown, 13000, 90 },
                { "sm_75", cudaSuccess, 13000, 75 } };
    for (size_t i = 0; i < LENGTH(row); i++)
        if (strcmp(what, row[i].what) == 0) {
            c->pretended = row[i].error;
            c->pretended_driver = row[i].driver;
            c->arch = row[i].arch;
            return SCA_OK;
        }
    return status_fail(SCA_ERR_ARGUMENT,
                       "device simt: pretend=%s, expected no-driver, old-driver, no-gpu, broken or sm_75", what);
}
#endif

static sca_status take_option(dev *d, cuda *c, vendor_choice *v, const char *text)
{
    int64_t n = 0;
    if (text_starts(text, "threads=")) return SCA_OK; /* of the host: none are used */
    if (text_starts(text, "index=") && text_to_int(text + 6, 0, 255, &n)) {
        c->index = (int)n;
        return SCA_OK;
    }
    if (strcmp(text, "gemm=own") == 0 || strcmp(text, "gemm=cublaslt") == 0) {
        v->cublaslt = text[5] == 'c';
        return SCA_OK;
    }
    if (strcmp(text, "attention=own") == 0 || strcmp(text, "attention=cudnn") == 0) {
        v->cudnn = text[10] == 'c';
        return SCA_OK;
    }
    if (text_starts(text, "cublaslt=") && text[9]) return take_file(&v->cublaslt_file, text + 9);
    if (text_starts(text, "cudnn=") && text[6]) return take_file(&v->cudnn_file, text + 6);
    if (strcmp(text, "act=f32") == 0) return SCA_OK;
    if (strcmp(text, "act=bf16") == 0 || strcmp(text, "act=f16") == 0) {
        d->kind = text[4] == 'b' ? &bf16_backend : &f16_backend;
        return SCA_OK;
    }
    if (strcmp(text, "graphs=on") == 0 || strcmp(text, "graphs=off") == 0) {
        c->graph_mode = text[8] == 'n' ? GRAPHS_ON : GRAPHS_OFF;
        return SCA_OK;
    }
#ifdef SIMT
    if (strcmp(text, "graphs=check") == 0) {
        c->graph_mode = GRAPHS_CHECK;
        return SCA_OK;
    }
    if (text_starts(text, "memory=") && text_to_int(text + 7, 1, INT64_MAX, &n)) {
        c->memory_bytes = (size_t)n;
        return SCA_OK;
    }
    if (text_starts(text, "fail=") && text[5]) {
        simt_fail_kernel(text + 5, false);
        return SCA_OK;
    }
    if (text_starts(text, "crash=") && text[6]) {
        simt_fail_kernel(text + 6, true);
        return SCA_OK;
    }
    if (text_starts(text, "multiprocessors=") && text_to_int(text + 16, 1, 1024, &n)) {
        c->multiprocessors = (int)n;
        return SCA_OK;
    }
    if (text_starts(text, "pretend=")) return take_pretence(c, text + 8);
    if (text_starts(text, "seed=") && text_to_int(text + 5, 0, INT32_MAX, &n)) {
        simt_configure(&(simt_settings){ .seed = (unsigned)n });
        return SCA_OK;
    }
    if (strcmp(text, "count") == 0) {
        simt_configure(&(simt_settings){ .seed = 1, .count = true });
        return SCA_OK;
    }
    return status_fail(SCA_ERR_ARGUMENT,
                       "device simt: unknown option '%s', expected act=f32|bf16|f16, graphs=on|off|check, "
                       "gemm=own|cublaslt, attention=own|cudnn, cublaslt=FILE, cudnn=FILE, memory=BYTES, "
                       "multiprocessors=N, fail=KERNEL, "
                       "crash=KERNEL, "
                       "pretend=no-driver|old-driver|no-gpu|broken|sm_75, seed=N or count",
                       text);
#else
    return status_fail(SCA_ERR_ARGUMENT,
                       "device cuda: unknown option '%s', expected index=N, act=f32|bf16|f16, graphs=on|off, "
                       "gemm=own|cublaslt, attention=own|cudnn, cublaslt=FILE or cudnn=FILE",
                       text);
#endif
}

static sca_status take_options(dev *d, cuda *c, vendor_choice *v, const char *options)
{
    for (const char *p = options; *p;) {
        size_t n = strcspn(p, ",");
        char *one = text_copy(p, n);
        if (!one) return mem_fail(n + 1, "device options");
        sca_status status = n ? take_option(d, c, v, one) : SCA_OK;
        mem_free(one);
        TRY(status);
        p += n + (p[n] == ',');
    }
    return SCA_OK;
}

/* ---- the device ------------------------------------------------------------------------------------------------------ */

static sca_status cuda_open(dev *d, const char *options)
{
    sca_status status = SCA_OK;
    vendor_choice v = { 0 };
    cuda *c = mem_zero(1, sizeof *c);
    if (!c) return mem_fail(sizeof *c, "the " KIND " device");
#ifdef SIMT
    simt_fail_kernel("", false); /* of a device before */
#endif
    TRY_GOTO(done, take_options(d, c, &v, options));
    TRY_GOTO(done, take_gpu(c));
    TRY_GOTO(done, open_stream(c));
    TRY_GOTO(done, open_vendors(c, &v));
    d->impl = c;
done:
    mem_free(v.cublaslt_file);
    mem_free(v.cudnn_file);
    if (status == SCA_OK) return SCA_OK;
    cuda_cublas_close(c);
    cuda_cudnn_close(c);
    close_stream(c);
    mem_free(c);
    return status;
}

static void cuda_close(dev *d)
{
    cuda *c = cuda_of(d);
    if (!c) return;
    wait_stream(c);
    cuda_graphs_free(c);
    cuda_cublas_close(c);
    cuda_cudnn_close(c);
    for (int i = 0; i < 2; i++) memory_give(c->scratch[i]);
    close_stream(c);
    mem_free(c->maps);
    mem_free(c);
    d->impl = NULL;
}

static double mib(size_t bytes) { return (double)bytes / (1 << 20); }

static void *cuda_alloc(dev *d, size_t bytes)
{
    cuda *c = cuda_of(d);
    void *p = NULL;
    if (memory_take(c, &p, bytes) == cudaSuccess) {
        c->taken_bytes += bytes;
        return p;
    }
    dev_fail(d, SCA_ERR_MEMORY, "device " KIND ": out of memory: %.1f MiB wanted, %.1f of %.1f MiB are free",
             mib(bytes), mib(memory_left(c)), mib(c->memory_bytes));
    return NULL;
}

static void cuda_release(dev *d, void *p, size_t bytes)
{
    wait_stream(cuda_of(d)); /* kernels may still use it; an error shows at the next sync */
    memory_give(p);
    cuda_of(d)->taken_bytes -= bytes;
}

static void cuda_sync(dev *d)
{
    if (!cuda_may_wait(d, "wait")) return;
    cudaError_t e = wait_stream(cuda_of(d));
    if (e != cudaSuccess) cuda_failed(d, e, "waiting for the stream");
}

void *cuda_scratch_of(dev *d, int which, size_t bytes, const char *what)
{
    cuda *c = cuda_of(d);
    if (d->status != SCA_OK) return NULL;
    if (bytes <= c->scratch_bytes[which]) return c->scratch[which];
    if (!cuda_may_grow(d)) return NULL;
    cuda_graphs_drop(d);
    wait_stream(c);
    memory_give(c->scratch[which]);
    c->taken_bytes -= c->scratch_bytes[which];
    c->scratch[which] = NULL;
    c->scratch_bytes[which] = 0;
    void *p = NULL;
    if (memory_take(c, &p, bytes) != cudaSuccess) {
        dev_fail(
            d, SCA_ERR_MEMORY,
            "device " KIND ": out of memory: %.1f MiB wanted, %.1f of %.1f MiB are free; it was for %s; the model "
            "and its activations hold %.1f MiB; lower it with --precision bf16, a smaller model or fewer --beams",
            mib(bytes), mib(memory_left(c)), mib(c->memory_bytes), what, mib(c->taken_bytes));
        return NULL;
    }
    c->taken_bytes += bytes;
    c->scratch[which] = p;
    c->scratch_bytes[which] = bytes;
    return p;
}

/* ---- the table ---------------------------------------------------------------------------------------------------------- */

/* Not here: what only training calls. */
#define OP(name, parameters, arguments)
#define OP_TRAIN(name, parameters, arguments)                                                                      \
    static void refuse_##name(dev *d, OP_UNPACK parameters)                                                        \
    {                                                                                                              \
        const op_arg unused[] = { ARGS arguments };                                                                \
        (void)unused;                                                                                              \
        dev_fail(d, SCA_ERR_UNSUPPORTED, "device " KIND ": op_%s is for training, this device infers; use cpu",    \
                 #name);                                                                                           \
    }
#include "ops/ops.def"
#undef OP

static const op_table ops = {
#define OP(name, parameters, arguments) .name = CUDA_OP(name),
#define OP_TRAIN(name, parameters, arguments) .name = refuse_##name,
#include "ops/ops.def"
#undef OP
};

static const dev_row rows[] = { { "gemm=own", NULL },
                                { "gemm=cublaslt", cuda_cublas_state },
                                { "attention=own", NULL },
                                { "attention=cudnn", cuda_cudnn_state },
                                { NULL, NULL } };

#ifdef SIMT
#define FENCE cuda_fence
#else
#define FENCE NULL
#endif
/* clang-format off */
#define CUDA_BACKEND(type)                                                                                     \
    { .name = KIND, .act = type, .open = cuda_open, .close = cuda_close, .alloc = cuda_alloc,                  \
      .release = cuda_release, .put = cuda_put, .get = cuda_get, .sync = cuda_sync, .fence = FENCE,         \
      .panel_bytes = cuda_panel_bytes, .repeat = cuda_repeat, .repeated = cuda_repeated, .rows = rows, .ops = &ops }
/* clang-format on */
const backend CUDA_NAME(backend) = CUDA_BACKEND(DT_F32);
static const backend bf16_backend = CUDA_BACKEND(DT_BF16);
static const backend f16_backend = CUDA_BACKEND(DT_F16);
