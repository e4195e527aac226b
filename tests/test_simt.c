/* test_simt.c - the device simt finds what it says it finds: each mistake is made by a kernel of simt_wrong.cu, and the
 * same kernel without the mistake passes. */
#include "check.h"

#include "cuda/simt/runtime.h"
#include "simt_wrong.h"

#include <math.h>

#if defined(__SANITIZE_ADDRESS__)
#define INSTRUMENTED 0 /* the kernels carry AddressSanitizer's checks instead */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define INSTRUMENTED 0
#endif
#endif
#ifndef INSTRUMENTED
#define INSTRUMENTED 1
#endif

enum { THREADS = 96, INPUTS = 256 };

typedef struct bench {
    dev *d;
    arena a;
    tensor y, x;
} bench;

static bool open_bench(bench *b, const char *options)
{
    *b = (bench){ 0 };
    float values[INPUTS];
    for (int i = 0; i < INPUTS; i++) values[i] = (float)i;
    CHECK_OK(dev_open("simt", options, &b->d));
    if (!b->d) return false;
    CHECK_OK(arena_open(b->d, 1 << 16, &b->a));
    b->a.debug = true;
    b->x = arena_tensor(&b->a, DT_F32, 1, (int64_t[]){ INPUTS });
    b->y = arena_tensor(&b->a, DT_F32, 1, (int64_t[]){ THREADS });
    dev_put_f32(b->d, b->x, values);
    return true;
}

static void close_bench(bench *b)
{
    arena_close(&b->a);
    dev_close(b->d);
}

static sca_status run(bench *b, simt_mistake mistake, bool right, float y[THREADS])
{
    static const float host[INPUTS];
    const float *x = b->x.data;
    if (mistake == MISTAKE_READ && !right) x += INPUTS - THREADS; /* up to the last element, and one more */
    if (mistake == MISTAKE_READ && right) x += INPUTS - THREADS;
    float on_stack[THREADS] = { 0 };
    simt_wrong(b->d, mistake, right, b->y.data, x, mistake == MISTAKE_HOST ? on_stack : host);
    return dev_get_f32(b->d, y, b->y);
}

/* In several orders of the threads: a detector may not depend on luck. */
static void expect(simt_mistake mistake, const char *part)
{
    for (int seed = 0; seed < 8; seed++) {
        char options[32];
        bench b;
        float y[THREADS];
        snprintf(options, sizeof options, "seed=%d", seed);
        if (!open_bench(&b, options)) return;
        CHECK_OK(run(&b, mistake, true, y));
        sca_status s = run(&b, mistake, false, y);
        CHECKF(s == SCA_ERR_DEVICE && strstr(sca_last_error(), part), "seed %d: status %s, '%s' says '%s'", seed,
               sca_status_name(s), sca_last_error(), part);
        CHECK(strstr(sca_last_error(), "thread ") || strstr(sca_last_error(), "threads ") ||
              strstr(sca_last_error(), "lanes "));
        CHECK_OK(run(&b, mistake, true, y)); /* the next kernel starts afresh */
        close_bench(&b);
    }
}

static void races_are_found(void)
{
    if (!INSTRUMENTED) {
        check_skip("accesses: not seen under AddressSanitizer");
        return;
    }
    expect(MISTAKE_RACE, "race");
    expect(MISTAKE_WARP_RACE, "race");
    expect(MISTAKE_OVERWRITE, "race");
}

static void divergence_is_found(void)
{
    expect(MISTAKE_BARRIER, "divergent barrier: 50 of 96 threads wait at");
    expect(MISTAKE_WARP, "divergent warp: 16 of 32 lanes wait at");
}

static void bad_addresses_are_found(void)
{
    expect(MISTAKE_ALIGNMENT, "misaligned");
    if (!INSTRUMENTED) return;
    expect(MISTAKE_READ, "out of bounds: a read of 4 bytes");
    expect(MISTAKE_WRITE, "out of bounds: a write of 4 bytes");
    expect(MISTAKE_HOST, "outside of the device's memory");
}

static void early_and_late_boxes_are_found(void)
{
    expect(MISTAKE_BYTES, "misses 0 of 1 arrivals and 16 announced bytes");
    expect(MISTAKE_BOX, "race");
    expect(MISTAKE_STAGE, "race");
}

/* What nobody wrote, or what is still on its way, is not a number. */
static void early_reads_give_nan(void)
{
    static const simt_mistake mistakes[] = { MISTAKE_UNWRITTEN, MISTAKE_EARLY, MISTAKE_PRODUCT };
    for (size_t i = 0; i < LENGTH(mistakes); i++) {
        bench b;
        float y[THREADS];
        if (!open_bench(&b, "")) return;
        CHECK_OK(run(&b, mistakes[i], true, y));
        for (int k = 0; k < THREADS; k++) CHECK(!isnan(y[k]));
        CHECK_OK(run(&b, mistakes[i], false, y));
        for (int k = 0; k < THREADS; k++) CHECK(isnan(y[k]));
        close_bench(&b);
    }
}

static simt_counts counted(simt_mistake mistake, bool right)
{
    bench b;
    float y[THREADS];
    simt_counts c = { 0 };
    if (!open_bench(&b, "count")) return c;
    simt_counts_clear();
    CHECK_OK(run(&b, mistake, right, y));
    c = simt_counts_get();
    close_bench(&b);
    CHECK_OK(dev_open("simt", "seed=1", &b.d)); /* stops counting */
    dev_close(b.d);
    return c;
}

static void costs_are_counted(void)
{
    if (!INSTRUMENTED) return;
    simt_counts good = counted(MISTAKE_BANKS, true), bad = counted(MISTAKE_BANKS, false);
    CHECKF(good.shared_passes == good.shared_least && good.shared_least == 33, "%g passes, %g would do",
           good.shared_passes, good.shared_least);
    CHECKF(bad.shared_passes == 33 * 32, "%g passes", bad.shared_passes);
    good = counted(MISTAKE_STRIDE, true), bad = counted(MISTAKE_STRIDE, false);
    CHECKF(good.sectors <= good.sectors_least + 2, "%g sectors, %g would do", good.sectors, good.sectors_least);
    CHECKF(bad.sectors >= 32 + 4 && bad.sectors_least == 8, "%g sectors, %g would do", bad.sectors,
           bad.sectors_least);
}

static void bad_options_are_refused(void)
{
    dev *d = NULL;
    CHECK_FAILS(dev_open("simt", "speed=high", &d), SCA_ERR_ARGUMENT, "act=f32|bf16|f16");
}

int main(int argc, char **argv)
{
    RUN(races_are_found);
    RUN(divergence_is_found);
    RUN(bad_addresses_are_found);
    RUN(early_and_late_boxes_are_found);
    RUN(early_reads_give_nan);
    RUN(costs_are_counted);
    RUN(bad_options_are_refused);
    return check_done();
}
