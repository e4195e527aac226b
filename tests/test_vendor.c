/* test_vendor.c - the rows gemm=cublaslt and attention=cudnn on simt, through stand-ins for the host that take what the
 * libraries' documentation says: which products and attentions go there, which stay with our own kernels, what is said
 * when a library is missing or too old. The op cases themselves run in test_ops (simt-vendor). */
#include "check.h"

#include "cuda/vendor.h"
#include "sca.h"

#include <dlfcn.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1 /* NVIDIA's own library was not made to be looked at */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define STANDIN(name) SCA_BUILD "/libstandin_" name ".so"
#define GEMM "gemm=cublaslt,cublaslt=" STANDIN("cublaslt")
#define ATTENTION "attention=cudnn,cudnn=" STANDIN("cudnn")

typedef struct gemm_counts { /* standin_cublaslt.c */
    int64_t products, heuristics, objects;
} gemm_counts;
typedef struct attention_counts { /* standin_cudnn.c */
    int64_t attentions, plans, objects;
    size_t version;
    bool prerequisite_missing;
} attention_counts;

static gemm_counts *gemm;
static attention_counts *attention;

/* A stand-in is built where the library's header is; one that is there must load. */
static void *counts_of(const char *file)
{
    if (access(file, F_OK) != 0) {
        check_skip("vendor: the stand-in was not built, for want of the library's header");
        return NULL;
    }
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    void *counts = library ? dlsym(library, "standin") : NULL;
    CHECKF(counts, "%s: %s", file, dlerror());
    return counts;
}

static dev *open_device(const char *options)
{
    dev *d = NULL;
    CHECK_OK(dev_open("simt", options, &d));
    return d;
}

/* ---- products ------------------------------------------------------------------------------------------------ */

enum { M = 24, N = 40, K = 64 };

typedef struct product {
    const char *what, *options;
    dtype weight;
    linear_options o;
    int64_t shift; /* elements that x starts later */
    bool bias, residual, theirs;
} product;

static const product products[] = {
    { "plain", "act=f32", .weight = DT_F32, .theirs = true },
    { "bias and residual", "act=f32", .weight = DT_F32, .bias = true, .residual = true, .theirs = true },
    { "an ending of ours", "act=f32", .weight = DT_F32, .o = { ACT_GELU, false }, .bias = true, .theirs = true },
    { "ReLU and residual", "act=bf16", .weight = DT_BF16, .o = { ACT_RELU, false }, .residual = true,
      .theirs = true },
    { "16 bits and bias", "act=f16", .weight = DT_F16, .bias = true, .residual = true, .theirs = true },
    { "weights turned", "act=bf16", .weight = DT_BF16, .o = { ACT_NONE, true }, .theirs = true },
    { "two types", "act=f32", .weight = DT_BF16 },
    { "two types of 16 bits", "act=f16", .weight = DT_BF16, .bias = true },
    { "no algorithm", "act=bf16", .weight = DT_BF16, .shift = 1 },
};

static float value(int64_t i) { return (float)((i * 2654435761u >> 8) % 17) / 16 - 0.5f; }

static tensor filled(dev *d, arena *a, dtype type, int64_t rows, int64_t columns, int64_t seed)
{
    float host[N * K];
    tensor t = arena_tensor(a, type, 2, (int64_t[]){ rows, columns });
    for (int64_t i = 0; i < rows * columns; i++) host[i] = value(i * 3 + seed);
    dev_put_f32(d, t, host);
    return t;
}

static void run_product(const product *p, const char *options, float y[M * N])
{
    dev *d = open_device(options);
    arena a = { 0 };
    if (!d) return;
    CHECK_OK(arena_open(d, 1 << 20, &a));
    dtype act = d->kind->act;
    tensor x = filled(d, &a, act, M, K, 1), r = filled(d, &a, act, M, N, 2), out = filled(d, &a, act, M, N, 3);
    tensor w = p->o.in_out ? filled(d, &a, p->weight, K, N, 4) : filled(d, &a, p->weight, N, K, 4);
    tensor b = tensor_reshape1(filled(d, &a, DT_F32, 1, N, 5), N);
    if (p->shift) { /* rows as far apart as they were */
        x = tensor_reshape2(tensor_slice(tensor_reshape1(x, M * K), 0, 0, (M - 1) * K), M - 1, K);
        x.data = (char *)x.data + p->shift * (int64_t)dtype_bytes(act);
        out = tensor_slice(out, 0, 0, M - 1);
    }
    op_linear_fwd(d, out, x, w, p->bias ? b : TENSOR_NONE, p->residual ? r : TENSOR_NONE, p->o);
    memset(y, 0, M * N * sizeof *y);
    CHECK_OK(dev_get_f32(d, y, out));
    arena_close(&a);
    dev_close(d);
}

static void products_go_where_they_belong(void)
{
    for (size_t i = 0; i < LENGTH(products) && gemm; i++) {
        const product *p = &products[i];
        char options[512];
        float want[M * N], got[M * N];
        int64_t before = gemm->products, off = 0;
        snprintf(options, sizeof options, "%s,%s", p->options, GEMM);
        run_product(p, p->options, want);
        CHECKF(gemm->products == before, "%s: the library ran without having been asked for", p->what);
        run_product(p, options, got);
        CHECKF(gemm->products == before + p->theirs, "%s: %lld products by the library", p->what,
               (long long)(gemm->products - before));
        for (int k = 0; k < M * N; k++) off += !(fabsf(got[k] - want[k]) <= 0.01f + 0.01f * fabsf(want[k]));
        CHECKF(off == 0 && want[5] != 0, "%s: %lld numbers differ from our own kernel's", p->what, (long long)off);
    }
    if (gemm)
        CHECKF(gemm->objects == 0, "%lld objects of the library were not given back", (long long)gemm->objects);
}

/* The choice of an algorithm is made once for a shape; what the ending leaves as it is, NaN, stays NaN. */
static void algorithms_are_kept(void)
{
    if (!gemm) return;
    dev *d = open_device(GEMM);
    arena a = { 0 };
    float y[M * N], bad[K] = { NAN };
    if (!d) return;
    CHECK_OK(arena_open(d, 1 << 20, &a));
    tensor x = filled(d, &a, DT_F32, M, K, 1), w = filled(d, &a, DT_F32, N, K, 2),
           out = filled(d, &a, DT_F32, M, N, 3);
    dev_put_f32(d, tensor_slice(x, 0, 2, 1), bad);
    int64_t before = gemm->heuristics;
    for (int i = 0; i < 5; i++)
        op_linear_fwd(d, out, x, w, TENSOR_NONE, TENSOR_NONE, (linear_options){ ACT_RELU, false });
    CHECK_OK(dev_get_f32(d, y, out));
    CHECKF(gemm->heuristics == before + 1, "%lld choices", (long long)(gemm->heuristics - before));
    CHECK(isnan(y[2 * N]) && !isnan(y[N]));
    for (int64_t n = 1; n < 80; n++) { /* more shapes than are kept */
        op_linear_fwd(d, tensor_slice(out, 0, 0, 1 + n % 20), tensor_slice(x, 0, 0, 1 + n % 20),
                      tensor_slice(w, 0, 0, N), TENSOR_NONE, TENSOR_NONE,
                      (linear_options){ n % 2 ? ACT_RELU : ACT_NONE, false });
        tensor part = tensor_slice(w, 0, 0, 1 + n % 37), to = tensor_slice(out, 1, 0, 1 + n % 37);
        op_linear_fwd(d, to, x, part, TENSOR_NONE, TENSOR_NONE, (linear_options){ 0 });
    }
    CHECK_OK(dev_check(d));
    arena_close(&a);
    dev_close(d);
    CHECK(gemm->objects == 0);
}

/* ---- attentions ------------------------------------------------------------------------------------------------ */

enum { B = 2, T = 9, S = 21, H = 4, G = 2, D = 16 };

typedef struct attend_row {
    const char *what, *options;
    attention_options o;
    int64_t head; /* of D elements */
    bool lse, index, theirs;
} attend_row;

static const attend_row attentions[] = {
    { "plain", "act=bf16", .o = { .scale = 0.25f }, .head = D, .lse = true, .theirs = true },
    { "without lse", "act=f16", .o = { .scale = 0.5f }, .head = D, .theirs = true },
    { "causal", "act=bf16", .o = { .scale = 0.25f, .causal = true }, .head = D },
    { "F32", "act=f32", .o = { .scale = 0.25f }, .head = D },
    { "rows not aligned", "act=bf16", .o = { .scale = 0.25f }, .head = D - 4 },
    { "keys by index", "act=bf16", .o = { .scale = 0.25f }, .head = D, .index = true },
};

static tensor filled4(dev *d, arena *a, int64_t n, int64_t t, int64_t h, int64_t e, int64_t seed)
{
    float host[B * S * H * D];
    tensor x = arena_tensor(a, d->kind->act, 4, (int64_t[]){ n, t, h, e });
    for (int64_t i = 0; i < n * t * h * e; i++) host[i] = 2 * value(i * 5 + seed);
    dev_put_f32(d, x, host);
    return x;
}

static void run_attention(const attend_row *p, const char *options, float *y, float *lse)
{
    dev *d = open_device(options);
    arena a = { 0 };
    if (!d) return;
    CHECK_OK(arena_open(d, 1 << 20, &a));
    tensor q = filled4(d, &a, B, T, H, p->head, 1), k = filled4(d, &a, B, S, G, p->head, 2);
    tensor v = filled4(d, &a, B, S, G, p->head, 3), out = filled4(d, &a, B, T, H, p->head, 4), index = TENSOR_NONE;
    tensor sums = arena_tensor(&a, DT_F32, 3, (int64_t[]){ B, H, T });
    int32_t rows[B * S];
    for (int i = 0; i < B * S; i++) rows[i] = (i / 3) % B;
    if (p->index) {
        index = arena_tensor(&a, DT_I32, 2, (int64_t[]){ B, S });
        dev_put(d, index, rows, sizeof rows);
    }
    op_fill(d, sums, 0);
    op_attention_fwd(d, out, p->lse ? sums : TENSOR_NONE, q, k, v, index, p->o);
    CHECK_OK(dev_get_f32(d, y, out));
    CHECK_OK(dev_get_f32(d, lse, sums));
    arena_close(&a);
    dev_close(d);
}

static void attentions_go_where_they_belong(void)
{
    for (size_t i = 0; i < LENGTH(attentions) && attention; i++) {
        const attend_row *p = &attentions[i];
        char options[512];
        float want[2][B * T * H * D] = { { 0 } }, got[2][B * T * H * D] = { { 0 } };
        int64_t before = attention->attentions, off = 0;
        snprintf(options, sizeof options, "%s,%s", p->options, ATTENTION);
        run_attention(p, p->options, want[0], want[1]);
        run_attention(p, options, got[0], got[1]);
        CHECKF(attention->attentions == before + p->theirs, "%s: %lld attentions by the library", p->what,
               (long long)(attention->attentions - before));
        for (int k = 0; k < B * T * H * D; k++)
            off += !(fabsf(got[0][k] - want[0][k]) <= 0.02f && fabsf(got[1][k] - want[1][k]) <= 1e-4f);
        CHECKF(off == 0 && want[0][5] != 0, "%s: %lld numbers differ from our own kernel's", p->what,
               (long long)off);
    }
    if (attention)
        CHECKF(attention->objects == 0, "%lld objects were not given back", (long long)attention->objects);
}

/* An engine that this machine cannot run: our own kernel does it. */
static void what_no_engine_runs_is_ours(void)
{
    float y[B * T * H * D], lse[B * T * H * D];
    if (!attention) return;
    int64_t before = attention->attentions;
    attention->prerequisite_missing = true;
    run_attention(&attentions[0], "act=bf16," ATTENTION, y, lse);
    attention->prerequisite_missing = false;
    CHECK(attention->attentions == before && attention->objects == 0);
}

/* The library itself, where it is installed: it needs no GPU to take a graph and say how many engines know it. */
static void the_library_takes_the_graph(void)
{
    static const struct {
        const char *what;
        int64_t dim[6]; /* B Tq Tk H G D */
        bool fused, lse;
    } row[] = { { "an encoder of SAM, q k v from one product", { 1, 4096, 4096, 12, 12, 64 }, true, false },
                { "heads of 80", { 1, 4096, 4096, 16, 16, 80 }, true, true },
                { "the mixer", { 16, 77, 77, 8, 8, 32 }, false, false },
                { "grouped heads", { 4, 64, 96, 9, 3, 64 }, false, true } };
    if (SANITIZED) {
        check_skip("cuDNN: not under AddressSanitizer");
        return;
    }
    for (size_t i = 0; i < LENGTH(row); i++) {
        const int64_t *n = row[i].dim;
        int64_t engines = 0, width = n[3] * n[5], lse[3] = { n[0], n[3], n[1] };
        char *base = (char *)(uintptr_t)(1 << 20); /* nothing is read */
        tensor q = tensor_on(base, DT_BF16, 4, (int64_t[]){ n[0], n[1], n[3], n[5] }), y = q;
        tensor k = tensor_on(base + (1 << 16), DT_BF16, 4, (int64_t[]){ n[0], n[2], n[4], n[5] }), v = k;
        if (row[i].fused)
            q.stride[1] = k.stride[1] = v.stride[1] = 3 * width,
            q.stride[0] = k.stride[0] = v.stride[0] = 3 * width * n[1];
        tensor sums = row[i].lse ? tensor_on(base, DT_F32, 3, lse) : TENSOR_NONE;
        sca_status s = cuda_cudnn_engines("libcudnn.so.9", y, sums, q, k, v, &engines);
        if (s == SCA_ERR_UNSUPPORTED) {
            check_skip(sca_last_error());
            return;
        }
        CHECK_OK(s);
        CHECKF(engines > 0, "%s: no engine knows it", row[i].what);
    }
}

/* ---- faults -------------------------------------------------------------------------------------------------------- */

static void expect_refusal(const char *options, sca_status status, const char *part, const char *other)
{
    dev *d = NULL;
    CHECK_FAILS(dev_open("simt", options, &d), status, part);
    CHECKF(strstr(sca_last_error(), other) != NULL, "'%s' names '%s'", sca_last_error(), other);
    CHECK(d == NULL);
}

static void missing_libraries_are_named(void)
{
    expect_refusal("gemm=mkl", SCA_ERR_ARGUMENT, "gemm=own|cublaslt", "attention=own|cudnn");
    expect_refusal("gemm=cublaslt", SCA_ERR_ARGUMENT, "stand-in", "cublaslt=FILE");
    if (!gemm || !attention) return;
    expect_refusal("gemm=cublaslt,cublaslt=/nowhere/lib.so", SCA_ERR_UNSUPPORTED, "/nowhere/lib.so",
                   "leave gemm=cublaslt out");
    expect_refusal("attention=cudnn,cudnn=/nowhere/lib.so", SCA_ERR_UNSUPPORTED, "library not found", "cudnn=FILE");
    expect_refusal("gemm=cublaslt,cublaslt=" STANDIN("cudnn"), SCA_ERR_UNSUPPORTED, "no function cublasLtCreate",
                   "gemm=cublaslt");
    attention->version = 91200;
    expect_refusal(ATTENTION, SCA_ERR_UNSUPPORTED, "found cuDNN 9.12.0", "expected 9.13.1");
    attention->version = 92000;
    dev_close(open_device("gemm=own,attention=own"));
}

static void the_build_lists_its_rows(void)
{
    char *json = NULL;
    CHECK_OK(sca_build_info(&json));
    static const char *const rows[] = { "\"simt gemm=cublaslt\": \"", "\"simt attention=cudnn\": \"",
                                        "\"cpu gemm=blas\": \"", "\"cpu gemm=own\": \"our own\"" };
    for (size_t i = 0; json && i < LENGTH(rows); i++)
        CHECKF(strstr(json, rows[i]) != NULL, "%s lists %s", json, rows[i]);
    sca_free(json);
}

int main(int argc, char **argv)
{
    gemm = counts_of(STANDIN("cublaslt"));
    attention = counts_of(STANDIN("cudnn"));
    RUN(products_go_where_they_belong);
    RUN(algorithms_are_kept);
    RUN(attentions_go_where_they_belong);
    RUN(what_no_engine_runs_is_ours);
    RUN(the_library_takes_the_graph);
    RUN(missing_libraries_are_named);
    RUN(the_build_lists_its_rows);
    return check_done();
}
