/* test_cpu.c - what the cpu device promises beyond its ops: the same bits whatever the threads and the company of a row,
 * every instruction set the machine has, options and failures in words. The ops themselves: test_ops. */
#include "check.h"

#include "base/base.h"
#include "ops/ops.h"

#include <math.h>

/* ---- helpers ----------------------------------------------------------------------------------------- */

static uint32_t seed;

static tensor filled(dtype type, int ndim, const int64_t *dim, float scale)
{
    tensor t = tensor_on(NULL, type, ndim, dim);
    int64_t count = tensor_count(t);
    t.data = mem_aligned(64, (size_t)count * dtype_bytes(type) + 64);
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        float x = (float)((int32_t)(seed >> 8) % 20001 - 10000) * 1e-4f * scale;
        dtype_convert(type, (char *)t.data + (size_t)i * dtype_bytes(type), DT_F32, &x, 1);
    }
    return t;
}
#define FILLED(type, scale, ...)                                                                                   \
    filled(type, (int)LENGTH(((int64_t[]){ __VA_ARGS__ })), (int64_t[]){ __VA_ARGS__ }, scale)

static tensor packed(dev *d, tensor w, bool in_out)
{
    tensor y = w;
    size_t bytes = d->kind->panel_bytes(w.type, w.dim[in_out ? 1 : 0], w.dim[in_out ? 0 : 1]);
    y.layout = LAYOUT_PANELS;
    y.data = mem_aligned(64, bytes + 64);
    op_pack(d, y, w, in_out);
    return y;
}

static dev *opened(const char *options)
{
    dev *d = NULL;
    CHECK_OK(dev_open("cpu", options, &d));
    return d;
}

/* The instruction sets of this machine. */
static const char *const isas[] = { "isa=generic", "isa=avx2", "isa=avx512" };
static bool have(const char *isa)
{
    dev *d = NULL;
    bool ok = dev_open("cpu", isa, &d) == SCA_OK;
    dev_close(d);
    return ok;
}

/* ---- one run of the ops that cut their work ---------------------------------------------------------- */

enum { OUTPUTS = 7 };
typedef struct results {
    tensor y[OUTPUTS];
} results;

static void free_all(tensor *t, size_t n)
{
    for (size_t i = 0; i < n; i++) mem_free(t[i].data);
}

/* Two images, regions, sequences or many rows; the same inputs every time. */
static results run_ops(dev *d)
{
    seed = 7;
    results r;
    tensor none = tensor_none();
    tensor x = FILLED(DT_F32, 1, 150, 500), w = FILLED(DT_BF16, 0.2f, 333, 500), b = FILLED(DT_F32, 1, 333);
    tensor p = packed(d, w, false), q = FILLED(DT_F32, 1, 2, 70, 4, 24), kv = FILLED(DT_F32, 1, 2, 130, 2, 24);
    tensor qkv = FILLED(DT_F32, 1, 1, 20, 18, 3 * 32), rel = FILLED(DT_F32, 0.3f, 13, 16),
           pad = FILLED(DT_F32, 1, 96);
    tensor image = FILLED(DT_F32, 1, 2, 1000, 48), pe = FILLED(DT_F32, 1, 1000, 48),
           a = FILLED(DT_F32, 0.3f, 2, 28, 48);
    tensor kb = FILLED(DT_F32, 1, 2, 28), v = FILLED(DT_F32, 1, 2, 28, 48), c = FILLED(DT_F32, 1, 48);
    r.y[0] = FILLED(DT_F32, 0, 150, 333);
    r.y[1] = FILLED(DT_F32, 0, 150, 333);
    r.y[2] = FILLED(DT_F32, 0, 2, 70, 4, 24);
    r.y[3] = FILLED(DT_F32, 0, 1, 20, 18, 32);
    r.y[4] = FILLED(DT_F32, 0, 2, 28, 48);
    r.y[5] = FILLED(DT_F32, 0, 2, 1000, 48);
    r.y[6] = FILLED(DT_F32, 0, 150, 500);
    op_linear_fwd(d, r.y[0], x, p, b, none, (linear_options){ ACT_GELU, false });
    op_linear_fwd(d, r.y[1], x, w, b, r.y[0], (linear_options){ ACT_NONE, false });
    op_attention_fwd(d, r.y[2], none, q, kv, kv, none, (attention_options){ .scale = 0.2f, .causal = true });
    op_relpos_attention_fwd(d, r.y[3], none, qkv, pad, rel, rel, (relpos_options){ 0.25f, 2, 7 });
    op_image_pool_fwd(d, r.y[4], none, image, pe, a);
    op_image_update_fwd(d, r.y[5], image, pe, a, kb, v, c, c, c, (image_update_options){ 4, 1e-5f });
    op_activation_fwd(d, r.y[6], x, ACT_GELU_TANH);
    CHECK_OK(dev_check(d));
    tensor inputs[] = { x, w, b, p, q, kv, qkv, rel, pad, image, pe, a, kb, v, c };
    free_all(inputs, LENGTH(inputs));
    return r;
}

static void same_bits_with_any_threads(void)
{
    for (size_t i = 0; i < LENGTH(isas); i++) {
        if (!have(isas[i])) continue;
        char options[64];
        results first = { 0 };
        for (int threads = 1; threads <= 5; threads += 2) {
            snprintf(options, sizeof options, "%s,threads=%d", isas[i], threads);
            dev *d = opened(options);
            results r = run_ops(d);
            for (int k = 0; k < OUTPUTS && threads > 1; k++)
                CHECKF(memcmp(r.y[k].data, first.y[k].data, tensor_bytes(r.y[k])) == 0, "%s: output %d", options,
                       k);
            free_all(threads == 1 ? NULL : r.y, threads == 1 ? 0 : OUTPUTS);
            if (threads == 1) first = r;
            dev_close(d);
        }
        free_all(first.y, OUTPUTS);
    }
}

static void instruction_sets_agree(void)
{
    dev *d = opened("isa=generic");
    results plain = run_ops(d);
    dev_close(d);
    for (size_t i = 1; i < LENGTH(isas); i++) {
        if (!have(isas[i])) continue;
        d = opened(isas[i]);
        results r = run_ops(d);
        for (int k = 0; k < OUTPUTS; k++) {
            const float *a = plain.y[k].data, *b = r.y[k].data;
            float worst = 0;
            for (int64_t e = 0; e < tensor_count(r.y[k]); e++)
                worst = fmaxf(worst, fabsf(a[e] - b[e]) / (1 + fabsf(a[e])));
            CHECKF(worst < 2e-5f, "%s: output %d is off by %g", isas[i], k, (double)worst);
        }
        free_all(r.y, OUTPUTS);
        dev_close(d);
    }
    free_all(plain.y, OUTPUTS);
}

/* ---- the company of a row ---------------------------------------------------------------------------- */

static void rows_keep_to_themselves(const char *isa, dtype type, bool in_out)
{
    static const int64_t heights[] = { 1, 2, 7, 16, 24, 25, 48, 97, 200 };
    dev *d = opened(isa);
    tensor x = FILLED(DT_F32, 1, 200, 1500), all = FILLED(DT_F32, 0, 200, 210), some = FILLED(DT_F32, 0, 200, 210);
    tensor w = in_out ? FILLED(type, 1, 1500, 210) : FILLED(type, 1, 210, 1500), p = packed(d, w, in_out);
    linear_options o = { ACT_GELU, in_out };
    op_linear_fwd(d, all, x, w, tensor_none(), tensor_none(), o);
    for (size_t i = 0; i < LENGTH(heights); i++) {
        int64_t n = heights[i], from = 200 - n;
        tensor y = tensor_slice(some, 0, 0, n);
        op_linear_fwd(d, y, tensor_slice(x, 0, from, n), p, tensor_none(), tensor_none(), o);
        CHECK_OK(dev_check(d));
        CHECKF(memcmp(y.data, tensor_slice(all, 0, from, n).data, tensor_bytes(y)) == 0, "%s %s, %d rows", isa,
               dtype_name(type), (int)n);
    }
    tensor used[] = { x, all, some, w, p };
    free_all(used, LENGTH(used));
    dev_close(d);
}

static void rows_do_not_depend_on_their_company(void)
{
    static const dtype types[] = { DT_F32, DT_BF16, DT_F16 };
    for (size_t i = 0; i < LENGTH(isas); i++)
        for (size_t k = 0; k < LENGTH(types) && have(isas[i]); k++)
            rows_keep_to_themselves(isas[i], types[k], k & 1);
}

/* A token decoded alone has the bits it has among its prefix. */
static void a_decoded_token_is_the_token_of_the_prefix(void)
{
    for (size_t i = 0; i < LENGTH(isas); i++) {
        if (!have(isas[i])) continue;
        dev *d = opened(isas[i]);
        attention_options o = { .scale = 0.2f, .causal = true };
        tensor q = FILLED(DT_F32, 1, 2, 120, 4, 20), kv = FILLED(DT_F32, 1, 2, 120, 4, 20);
        tensor all = FILLED(DT_F32, 0, 2, 120, 4, 20), one = FILLED(DT_F32, 0, 2, 1, 4, 20);
        op_attention_fwd(d, all, tensor_none(), q, kv, kv, tensor_none(), o);
        for (int64_t t = 0; t < 120; t += 17) {
            tensor seen = tensor_slice(kv, 1, 0, t + 1);
            op_attention_fwd(d, one, tensor_none(), tensor_slice(q, 1, t, 1), seen, seen, tensor_none(), o);
            CHECK_OK(dev_check(d));
            for (int64_t b = 0; b < 2; b++)
                CHECKF(memcmp(tensor_at(one, b).data, tensor_slice(tensor_at(all, b), 0, t, 1).data, 80 * 4) == 0,
                       "%s, token %d", isas[i], (int)t);
        }
        tensor used[] = { q, kv, all, one };
        free_all(used, LENGTH(used));
        dev_close(d);
    }
}

/* ---- options, failures ------------------------------------------------------------------------------- */

static void options_are_checked(void)
{
    dev *d = NULL;
    CHECK_FAILS(dev_open("cpu", "threads=x", &d), SCA_ERR_ARGUMENT, "threads=0");
    CHECK_FAILS(dev_open("cpu", "threads=-1", &d), SCA_ERR_ARGUMENT, "threads=-1");
    CHECK_FAILS(dev_open("cpu", "threads=100000", &d), SCA_ERR_ARGUMENT, "threads=1024");
    CHECK_FAILS(dev_open("cpu", "isa=mmx", &d), SCA_ERR_ARGUMENT, "avx2");
    CHECK_FAILS(dev_open("cpu", "speed=9", &d), SCA_ERR_ARGUMENT, "unknown option 'speed=9'");
    CHECK_FAILS(dev_open("cpu", "gemm=mkl", &d), SCA_ERR_ARGUMENT, "gemm=blas");
    CHECK(!d);
    /* Where no BLAS is built in or installed, the message says what to do. */
    if (dev_open("cpu", "gemm=blas", &d) != SCA_OK) CHECK(!d && strstr(sca_last_error(), "libopenblas"));
    dev_close(d);
    dev_close(opened("gemm=own"));
    dev_close(opened(""));
    dev_close(opened("threads=3,,isa=generic,"));
}

/* Wherever memory runs out, opening fails in words and an op fails the stream; nothing leaks and nothing crashes. */
static void memory_may_run_out(void)
{
    bool fired = true;
    seed = 3;
    tensor x = FILLED(DT_F32, 1, 64, 300), w = FILLED(DT_F32, 1, 300, 300), y = FILLED(DT_F32, 0, 64, 300);
    for (int64_t n = 1; fired; n++) {
        dev *d = NULL;
        fault_alloc(n);
        sca_status status = dev_open("cpu", "threads=2", &d);
        if (status == SCA_OK) {
            op_linear_fwd(d, y, x, w, tensor_none(), tensor_none(), (linear_options){ ACT_NONE, false });
            status = dev_check(d);
        }
        fired = fault_fired();
        fault_alloc(0);
        CHECKF(status == (fired ? SCA_ERR_MEMORY : SCA_OK), "allocation %d: %s", (int)n, sca_status_name(status));
        dev_close(d);
    }
    tensor used[] = { x, w, y };
    free_all(used, LENGTH(used));
}

int main(int argc, char **argv)
{
    RUN(same_bits_with_any_threads);
    RUN(instruction_sets_agree);
    RUN(rows_do_not_depend_on_their_company);
    RUN(a_decoded_token_is_the_token_of_the_prefix);
    RUN(options_are_checked);
    RUN(memory_may_run_out);
    return check_done();
}
