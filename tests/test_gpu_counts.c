/* test_gpu_counts.c - what can be said of the speed of the GPU's kernels without a GPU: the arithmetic of the real models, op
 * by op as the model issues it, beside performance.md; launches of the real shapes on 132 multiprocessors; bank conflicts
 * and uncoalesced accesses of the kernels that matter. */
#include "check.h"

#include "cuda/simt/runtime.h"
#include "model/inside.h"
#include "op_run.h"
#include "ops/args.h"
#include "simt_wrong.h"

#include <math.h>
#include <string.h>

/* ---- arithmetic of the models ------------------------------------------------------------------------------------ */

typedef struct totals {
    double linear, attention, window, pool, update, conv; /* FLOPs; attention: all but windows */
    double mixer_pool, mixer_update;                      /* of these, the mixer's: most columns */
    double step, head;                 /* of a step of decoding, one row to a sequence: blocks, vocabulary */
    int64_t steps, columns, sequences; /* steps: products with the whole vocabulary */
} totals;
static totals sum;

/* The arguments as op_flops wants them. */
static void count_call(op_id op, const op_arg *args, size_t n)
{
    tensor t[OP_MAX_TENSORS] = { 0 };
    op_options o = { 0 };
    int tensors = 0;
    for (size_t i = 0; i < n; i++) {
        if (args[i].kind == ARG_TENSOR) t[tensors++] = *(const tensor *)args[i].value;
        if (args[i].kind == ARG_LINEAR) o.linear = *(const linear_options *)args[i].value;
        if (args[i].kind == ARG_RELPOS) o.relpos = *(const relpos_options *)args[i].value;
        if (args[i].kind == ARG_MATMUL) o.matmul = *(const matmul_options *)args[i].value;
        if (args[i].kind == ARG_CONV) o.conv = *(const conv_options *)args[i].value;
    }
    double flops = op_flops(op, t, &o);
    bool of_mixer = sum.columns && (op == OP_image_pool_fwd || op == OP_image_update_fwd) && t[0].ndim == 3 &&
                    (op == OP_image_pool_fwd ? t[0].dim[1] : t[3].dim[1]) == sum.columns;
    switch (op) {
    case OP_linear_fwd:
        sum.linear += flops;
        if (t[0].dim[0] != sum.sequences || t[1].dim[1] < 1280) break;
        *(t[0].dim[1] == 50257 ? &sum.head : &sum.step) += flops;
        sum.steps += t[0].dim[1] == 50257;
        break;
    case OP_relpos_attention_fwd: *(o.relpos.window ? &sum.window : &sum.attention) += flops; break;
    case OP_attention_fwd: sum.attention += flops; break;
    case OP_image_pool_fwd: *(of_mixer ? &sum.mixer_pool : &sum.pool) += flops; break;
    case OP_image_update_fwd: *(of_mixer ? &sum.mixer_update : &sum.update) += flops; break;
    case OP_conv_fwd:
    case OP_conv_transpose_fwd: sum.conv += flops; break;
    default: break;
    }
}

#define OP(name, parameters, arguments)                                                                            \
    static void count_##name(dev *d, OP_UNPACK parameters)                                                         \
    {                                                                                                              \
        const op_arg list[] = { ARGS arguments };                                                                  \
        (void)d;                                                                                                   \
        count_call(OP_##name, list, LENGTH(list));                                                                 \
    }
#include "ops/ops.def"
#undef OP
static const op_table counting = {
#define OP(name, parameters, arguments) .name = count_##name,
#include "ops/ops.def"
#undef OP
};

/* A model of that encoder with GPT-2 large, shapes alone, whose null device counts. */
static model *open_counting(const char *sam, config **c)
{
    char line[64];
    model *m = mem_zero(1, sizeof *m);
    snprintf(line, sizeof line, "model.sam=random:%s", sam);
    CHECK(m != NULL);
    CHECK_OK(config_open(NULL, c));
    CHECK_OK(config_set(*c, line));
    CHECK_OK(config_set(*c, "model.lm=random:gpt2-large"));
    CHECK_OK(config_set(*c, "generate.beams=1"));
    CHECK_OK(model_prepare(*c, m));
    *m->null->ops = counting;
    sum = (totals){ 0 };
    return m;
}

static void expect_near(const char *what, double found, double expected, double share)
{
    CHECKF(fabs(found - expected) <= share * expected, "%s: %g, expected %g", what, found, expected);
    printf("%-44s %10.2f (performance.md: %g)\n", what, found, expected);
}

/* Section 1.2: GF per image. What is told apart there as "rel-pos" is inside our kernels and not counted. */
static void encoders_do_what_was_counted(void)
{
    static const struct {
        const char *sam;
        double linear, window, global, other; /* qkv, proj, MLP; attentions; patches and neck */
        double neck;                          /* its convolution of 1 x 1, which is a product here */
    } row[] = { { "vit_b", 174.0 + 58.0 + 463.9, 19.7, 206.2, 4.8 + 6.4, 2 * 4096e-9 * 256 * 768 },
                { "vit_l", 618.5 + 206.2 + 1649.3, 65.8, 274.9, 6.4 + 7.0, 2 * 4096e-9 * 256 * 1024 },
                { "vit_h", 1288.5 + 429.5 + 3436.0, 115.1, 343.6, 8.1 + 7.5, 2 * 4096e-9 * 256 * 1280 } };
    for (size_t i = 0; i < LENGTH(row); i++) {
        config *c = NULL;
        size_t peak = 0;
        model *m = open_counting(row[i].sam, &c);
        CHECK_OK(encode_peak(m, &peak));
        printf("%s\n", row[i].sam);
        expect_near("products, GF", sum.linear * 1e-9 - row[i].neck, row[i].linear, 0.002);
        expect_near("window attention, GF", sum.window * 1e-9, row[i].window, 0.005);
        expect_near("global attention, GF", sum.attention * 1e-9, row[i].global, 0.005);
        expect_near("patches and neck, GF", sum.conv * 1e-9 + row[i].neck, row[i].other, 0.01);
        model_close(m);
        config_close(c);
    }
}

/* Sections 1.3, 1.4, 1.8: 16 regions with a box each, 15 tokens in the mixer and 7 in the decoder, of 8 heads; a step of
 * decoding reads every weight of GPT-2 large once. */
static void regions_do_what_was_counted(void)
{
    config *c = NULL;
    size_t peak = 0;
    model *m = open_counting("vit_b", &c);
    sum.columns = 8 * 15;
    sum.sequences = 16;
    CHECK_OK(boxes_peak(m, 16, &peak));
    const double unit = 2 * 4096.0 * 256 * 128;
    printf("16 regions\n");
    expect_near("mixer, image side, GF a region at 128 columns",
                (sum.mixer_pool + sum.mixer_update) / 16 * 128 / 120 * 1e-9, 13.4, 0.005);
    expect_near("its passes: units a region", (sum.mixer_pool + sum.mixer_update) / 16 / (unit * 120 / 128),
                12 * 4 + 2, 1e-9);
    expect_near("decoder, image side, GF a region", (sum.pool + sum.update) / 16 * 1e-9, 1.22,
                0.04); /* token side apart */
    /* the prompt gives the first token: its rows are not one to a sequence, but its last ones reach the vocabulary */
    double step = sum.step / (double)(sum.steps - 1) + sum.head / (double)sum.steps;
    expect_near("step of GPT-2 large, GF a sequence", step / 16 * 1e-9, 1.416 + 0.129, 0.002);
    expect_near("weights it reads, GB in 16 bits", step / 16 / 2 * 2 * 1e-9, 1.54,
                0.005); /* 2 FLOPs, 2 bytes each */
    model_close(m);
    config_close(c);
}

/* ---- launches of real shapes -------------------------------------------------------------------------------------- */

enum { MULTIPROCESSORS = 132, REGISTERS = 65536, SHARED_MEMORY = 228 << 10, MOST_THREADS = 2048, MOST_BLOCKS = 32 };

typedef struct work { /* a call that is recorded, not run: addresses are made up */
    dev *d;
    char *next;
} work;

static tensor made_up(work *w, dtype type, int ndim, int64_t a, int64_t b, int64_t c, int64_t e)
{
    tensor t = tensor_on(w->next, type, ndim, (const int64_t[]){ a, b, c, e });
    w->next += (tensor_bytes(t) + 255) / 256 * 256;
    return t;
}
#define ACTS(...) made_up(w, DT_BF16, __VA_ARGS__)
#define SMALL(...) made_up(w, DT_F32, __VA_ARGS__)

static void product(work *w, int64_t M, int64_t N, int64_t K, activation act, bool residual)
{
    tensor matrix = ACTS(2, N, K, 0, 0), y = ACTS(2, M, N, 0, 0);
    matrix.layout = LAYOUT_PANELS;
    op_linear_fwd(w->d, y, ACTS(2, M, K, 0, 0), matrix, SMALL(1, N, 0, 0, 0), residual ? y : TENSOR_NONE,
                  (linear_options){ act, false });
}

static void relpos(work *w, int64_t h, int64_t width, int64_t C, int heads, int window)
{
    int64_t high = 2 * (window ? window : h) - 1, wide = 2 * (window ? window : width) - 1, D = C / heads;
    op_relpos_attention_fwd(w->d, ACTS(4, 1, h, width, C), TENSOR_NONE, ACTS(4, 1, h, width, 3 * C),
                            SMALL(1, 3 * C, 0, 0, 0), SMALL(2, high, D, 0, 0), SMALL(2, wide, D, 0, 0),
                            (relpos_options){ 0.125f, heads, window });
}

static void call_window(work *w) { relpos(w, 64, 64, 768, 12, 14); }
static void call_global(work *w) { relpos(w, 64, 64, 768, 12, 0); }
static void call_global_h(work *w) { relpos(w, 64, 64, 1280, 16, 0); }
static void call_fc1(work *w) { product(w, 4096, 3072, 768, ACT_GELU, false); }
static void call_proj(work *w) { product(w, 4096, 768, 768, ACT_NONE, true); }
static void call_fc2_h(work *w) { product(w, 4096, 1280, 5120, ACT_NONE, true); }
static void call_step(work *w) { product(w, 16, 3840, 1280, ACT_NONE, false); }
static void call_head(work *w) { product(w, 16, 50257, 1280, ACT_NONE, false); }
static void layernorm(work *w, int64_t rows)
{
    tensor x = ACTS(2, rows, 768, 0, 0);
    op_layernorm_fwd(w->d, x, TENSOR_NONE, TENSOR_NONE, x, SMALL(1, 768, 0, 0, 0), SMALL(1, 768, 0, 0, 0), 1e-6f);
}
static void pool(work *w, int64_t N, int64_t S)
{
    tensor a = ACTS(3, N, 120, 256, 0);
    op_image_pool_fwd(w->d, ACTS(3, N, 120, 256, 0), TENSOR_NONE, ACTS(3, N, S, 256, 0), ACTS(2, S, 256, 0, 0), a);
}
static void update(work *w, int64_t N, int64_t S)
{
    tensor x = ACTS(3, N, S, 256, 0), k = ACTS(3, N, 120, 256, 0), v = ACTS(3, N, 120, 256, 0);
    op_image_update_fwd(w->d, x, x, ACTS(2, S, 256, 0, 0), k, ACTS(2, N, 120, 0, 0), v, SMALL(1, 256, 0, 0, 0),
                        SMALL(1, 256, 0, 0, 0), SMALL(1, 256, 0, 0, 0), (image_update_options){ 8, 1e-5f });
}
static void keys(work *w, int64_t n)
{
    tensor q = ACTS(4, n, 1, 20, 64), k = ACTS(4, n, 27, 20, 64), v = ACTS(4, n, 27, 20, 64);
    op_attention_fwd(w->d, ACTS(4, n, 1, 20, 64), TENSOR_NONE, q, k, v, TENSOR_NONE,
                     (attention_options){ .scale = 0.125f, .causal = true });
}

static void call_norm(work *w) { layernorm(w, 4096); }
static void call_pool(work *w) { pool(w, 16, 4096); }
static void call_update(work *w) { update(w, 16, 4096); }
static void call_keys(work *w) { keys(w, 16); }

/* kernel: of docs/results/kernels.md, whose registers count. warps: at least so many on a multiprocessor at a time;
 * efficiency: share of the places in all rounds that have a block. */
static const struct {
    const char *what, *kernel;
    void (*call)(work *w);
    double warps, efficiency;
} launches[] = {
    { "ViT-B window attention", "attention_mma<bf16, 64, 64, plain>", call_window, 8, 0.7 },
    { "ViT-B global attention", "attention_mma<bf16, 64, 64, row_block>", call_global, 8, 0.7 },
    { "ViT-H global attention", "attention_mma<bf16, 80, 64, row_block>", call_global_h, 8, 0.9 },
    { "ViT-B fc1", "gemm_wgmma<bf16, 128, true>", call_fc1, 8, 0.9 },
    { "ViT-B proj", "gemm_wgmma<bf16, 128, true>", call_proj, 8, 0.7 },
    { "ViT-H fc2", "gemm_wgmma<bf16, 128, true>", call_fc2_h, 8, 0.7 },
    { "GPT-2 large qkv, 16 sequences", "gemm_small<bf16, 2>", call_step, 8, 0.4 },
    { "GPT-2 large head, 16 sequences", "gemm_small<bf16, 2>", call_head, 8, 0.9 },
    { "ViT-B LayerNorm", "norm_held<bf16, 1, true>", call_norm, 32, 0.4 },
    { "mixer, tokens to image", "attention_mma<bf16, 256, 32, pool>", call_pool, 4, 0.9 },
    { "mixer, image to tokens", "update_mma<bf16, 256, 16>", call_update, 8, 0.9 },
    { "GPT-2 large keys, 16 sequences", "attention_rows<bf16, 1>", call_keys, 4, 0.05 },
};

/* Registers of a kernel on sm_90a and its fixed shared memory, as recorded; false: it is not in the record. */
static bool recorded_use(const char *text, const char *kernel, int *registers, int *shared)
{
    char start[128];
    snprintf(start, sizeof start, "| `%s` |", kernel);
    for (const char *at = strstr(text, start); at; at = strstr(at + 1, start)) {
        const char *cell = at + strlen(start);
        if (sscanf(cell, " %*[^|]| sm_90a | %d | %d", registers, shared) == 2) return true;
    }
    return false;
}

static double at_most(double a, double b) { return a < b ? a : b; }

static void check_launch(size_t i, const simt_launch_shape *l, int registers, int shared)
{
    double threads = l->threads, per_warp = ceil(registers * 32 / 256.0) * 256; /* handed out by 256 */
    double bytes = ceil((double)(l->shared_bytes + (size_t)shared + 1024) / 128) * 128;
    double fit = at_most(floor(REGISTERS / per_warp / (threads / 32)), floor(SHARED_MEMORY / bytes));
    fit = at_most(at_most(fit, floor(MOST_THREADS / threads)), MOST_BLOCKS);
    double rounds = l->blocks / (fit * MULTIPROCESSORS), share = rounds / ceil(rounds);
    printf("%-32s %-40s %6u blocks of %4u, %3d registers, %3.0f KiB: %2.0f a multiprocessor, %6.2f waves, %.2f\n",
           launches[i].what, launches[i].kernel, l->blocks, l->threads, registers, bytes / 1024, fit, rounds,
           share);
    CHECKF(fit >= 1 && fit * threads / 32 >= launches[i].warps, "%s: %g warps on a multiprocessor, expected %g",
           launches[i].what, fit * threads / 32, launches[i].warps);
    CHECKF(share >= launches[i].efficiency, "%s: %.3f of the places are used, expected %g", launches[i].what, share,
           launches[i].efficiency);
}

static void launches_fill_132_multiprocessors(void)
{
    char *text = NULL;
    size_t bytes;
    CHECK_OK(file_read(SCA_SOURCE "/docs/results/kernels.md", 1 << 24, &text, &bytes));
    for (size_t i = 0; text && i < LENGTH(launches); i++) {
        work w = { .next = (char *)(uintptr_t)((int64_t)1 << 32) };
        simt_recording *r = NULL;
        int registers = 0, shared = 0;
        CHECK_OK(dev_open("simt", "act=bf16,multiprocessors=132", &w.d));
        if (!w.d) break;
        CHECK(simt_record_begin() == cudaSuccess);
        launches[i].call(&w);
        CHECK(simt_record_end(&r) == cudaSuccess);
        CHECK_OK(dev_check(w.d));
        size_t base = strcspn(launches[i].kernel, "<");
        if (CHECK(r && simt_record_launches(r) > 0)) {
            simt_launch_shape l = simt_record_shape(r, 0);
            CHECKF(strncmp(l.kernel + 1, launches[i].kernel, base) == 0, "%s: launched %s", launches[i].what,
                   l.kernel);
            if (CHECKF(recorded_use(text, launches[i].kernel, &registers, &shared),
                       "%s is not in docs/results/kernels.md", launches[i].kernel))
                check_launch(i, &l, registers, shared);
        }
        simt_record_free(r);
        dev_close(w.d);
    }
    mem_free(text);
}

/* ---- bank conflicts and uncoalesced accesses ----------------------------------------------------------------------- */

#if defined(__SANITIZE_ADDRESS__)
#define COUNTED 0 /* the kernels carry AddressSanitizer's checks instead */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define COUNTED 0
#endif
#endif
#ifndef COUNTED
#define COUNTED 1
#endif

static void count_window(work *w) { relpos(w, 14, 28, 64, 1, 14); }
static void count_global(work *w) { relpos(w, 2, 64, 64, 1, 0); }
static void count_product(work *w) { product(w, 128, 128, 256, ACT_NONE, true); }
static void count_step(work *w) { product(w, 16, 64, 512, ACT_NONE, false); }
static void count_norm(work *w) { layernorm(w, 16); }
static void count_pool(work *w) { pool(w, 1, 512); }
static void count_update(work *w) { update(w, 1, 128); }
static void count_keys(work *w) { keys(w, 1); }

/* At most so many passes through the banks, and sectors, for one that would do. */
typedef struct limits {
    double passes, sectors;
} limits;

static const struct {
    const char *what;
    void (*call)(work *w);
    limits most;
} counted[] = {
    { "window attention", count_window, { 1.3, 2.0 } },
    { "global attention",
      count_global,
      { 1.1, 3.4 } }, /* two rows of a map: most of it are its tables of positions */
    { "product", count_product, { 1.0, 1.0 } },
    { "step of decoding", count_step, { 3.0, 1.0 } }, /* the sums of the warps, once a block */
    { "LayerNorm", count_norm, { 1.0, 1.7 } },
    { "tokens to image", count_pool, { 1.0, 1.5 } },
    { "image to tokens", count_update, { 1.0, 1.3 } },
    { "keys of a step", count_keys, { 1.0, 1.0 } },
};

static bool is_within(simt_counts c, limits most)
{
    return c.shared_passes <= most.passes * c.shared_least && c.sectors <= most.sectors * c.sectors_least;
}

static void hot_kernels_meet_few_conflicts(void)
{
    if (!COUNTED) {
        check_skip("accesses: not seen under AddressSanitizer");
        return;
    }
    for (size_t i = 0; i < LENGTH(counted); i++) {
        work w = { 0 };
        arena a = { 0 };
        CHECK_OK(dev_open("simt", "act=bf16,count", &w.d));
        if (!w.d) break;
        CHECK_OK(arena_open(w.d, 8 << 20, &a));
        w.next = arena_bytes(&a, 6 << 20);
        op_fill(w.d, tensor_on(w.next, DT_F32, 1, (const int64_t[]){ (6 << 20) / 4 }), 0);
        simt_counts_clear();
        counted[i].call(&w);
        CHECK_OK(dev_check(w.d));
        simt_counts c = simt_counts_get();
        printf("%-20s %9.0f passes, %.3f of the least; %9.0f sectors, %.3f of the least\n", counted[i].what,
               c.shared_passes, c.shared_least > 0 ? c.shared_passes / c.shared_least : 1, c.sectors,
               c.sectors / c.sectors_least);
        CHECKF(c.sectors_least > 0 && is_within(c, counted[i].most), "%s: more than %g or %g of the least",
               counted[i].what, counted[i].most.passes, counted[i].most.sectors);
        arena_close(&a);
        dev_close(w.d);
    }
}

/* The same limits refuse a kernel whose lanes share a bank, and one whose lanes lie apart. */
static void bad_kernels_do_not_pass(void)
{
    if (!COUNTED) return;
    static const simt_mistake mistakes[] = { MISTAKE_BANKS, MISTAKE_STRIDE };
    const limits most = { 3.0, 3.4 }; /* the widest of those above */
    for (size_t i = 0; i < 2 * LENGTH(mistakes); i++) {
        dev *d = NULL;
        arena a = { 0 };
        static const float host[256];
        bool right = i % 2 == 0;
        CHECK_OK(dev_open("simt", "count", &d));
        if (!d) return;
        CHECK_OK(arena_open(d, 1 << 16, &a));
        float *x = arena_bytes(&a, 4096), *y = arena_bytes(&a, 4096);
        op_fill(d, tensor_on(x, DT_F32, 1, (const int64_t[]){ 1024 }), 0);
        simt_counts_clear();
        simt_wrong(d, mistakes[i / 2], right, y, x, host);
        CHECK_OK(dev_check(d));
        CHECKF(is_within(simt_counts_get(), most) == right, "mistake %zu, %s", i / 2, right ? "right" : "wrong");
        arena_close(&a);
        dev_close(d);
    }
    dev *d = NULL;
    CHECK_OK(dev_open("simt", "seed=1", &d)); /* stops counting */
    dev_close(d);
}

int main(int argc, char **argv)
{
    RUN(encoders_do_what_was_counted);
    RUN(regions_do_what_was_counted);
    RUN(launches_fill_132_multiprocessors);
    RUN(hot_kernels_meet_few_conflicts);
    RUN(bad_kernels_do_not_pass);
    return check_done();
}
