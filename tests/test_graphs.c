/* test_graphs.c - work that repeats (dev_repeat) on simt, whose kept launches go the way of CUDA graphs: what is started
 * as a whole gives what the ops give, and a key that does not say everything is found. */
#include "check.h"

#include "ops/ops.h"

#include <string.h>

enum { ROWS = 3, WIDTH = 8, PLACES = 5 };

typedef struct bench {
    dev *d;
    arena a;
    tensor x, y, sum, at; /* (ROWS,WIDTH) (ROWS,PLACES,WIDTH) (ROWS,WIDTH) (ROWS) */
    int bodies;           /* how often the ops were issued */
} bench;

static bool open_bench(bench *b, const char *options)
{
    *b = (bench){ 0 };
    CHECK_OK(dev_open("simt", options, &b->d));
    if (!b->d) return false;
    CHECK_OK(arena_open(b->d, 1 << 20, &b->a));
    b->x = arena_tensor(&b->a, DT_F32, 2, (int64_t[]){ ROWS, WIDTH });
    b->y = arena_tensor(&b->a, DT_F32, 3, (int64_t[]){ ROWS, PLACES, WIDTH });
    b->sum = arena_tensor(&b->a, DT_F32, 2, (int64_t[]){ ROWS, WIDTH });
    b->at = arena_tensor(&b->a, DT_I32, 1, (int64_t[]){ ROWS });
    op_fill(b->d, b->y, 0);
    op_fill(b->d, b->sum, 0);
    return true;
}

static void close_bench(bench *b)
{
    arena_close(&b->a);
    dev_close(b->d);
}

/* sum += x; y[.,at] = sum: the step'th row, at a place that only the device's memory says. */
static void step(bench *b, const char *what, int64_t key, int place, float value)
{
    float x[ROWS * WIDTH];
    int32_t at[ROWS] = { place, place, place };
    for (int i = 0; i < ROWS * WIDTH; i++) x[i] = value + (float)i;
    dev_put_f32(b->d, b->x, x);
    dev_put(b->d, b->at, at, sizeof at);
    if (!dev_repeat(b->d, what, &key, sizeof key)) return;
    b->bodies++;
    op_add_fwd(b->d, b->sum, b->sum, b->x);
    op_place(b->d, b->y, b->sum, b->at);
    dev_repeated(b->d);
}

static void repeats_give_what_the_ops_give(void)
{
    static const struct {
        const char *options;
        int bodies;
    } row[] = { { "graphs=off", PLACES }, { "graphs=on", 2 }, { "graphs=check", PLACES } };
    float want[ROWS * PLACES * WIDTH], got[ROWS * PLACES * WIDTH];
    for (size_t i = 0; i < LENGTH(row); i++) {
        bench b;
        if (!open_bench(&b, row[i].options)) return;
        for (int t = 0; t < PLACES; t++) step(&b, "step", 1, PLACES - 1 - t, (float)(t * t));
        CHECK_OK(dev_get_f32(b.d, i ? got : want, b.y));
        CHECKF(b.bodies == row[i].bodies, "%s: the ops were issued %d times, expected %d", row[i].options, b.bodies,
               row[i].bodies);
        if (i) CHECKF(memcmp(got, want, sizeof got) == 0, "%s: other numbers", row[i].options);
        if (!i) CHECK(want[(PLACES - 1) * WIDTH] == 0 && want[0] == 0 + 1 + 4 + 9 + 16);
        close_bench(&b);
    }
}

static void names_and_keys_tell_pieces_apart(void)
{
    bench b;
    if (!open_bench(&b, "")) return;
    for (int t = 0; t < 6; t++) step(&b, t % 2 ? "one" : "other", 1, 0, 1);
    CHECKF(b.bodies == 4, "%d times, expected 4", b.bodies); /* twice each */
    for (int t = 0; t < 3; t++) step(&b, "one", 2, 0, 1);
    CHECKF(b.bodies == 6, "%d times, expected 6", b.bodies);
    for (int t = 0; t < 40; t++) step(&b, "many", t, 0, 1); /* more than are kept: the oldest go */
    b.bodies = 0;
    step(&b, "one", 2, 0, 1);
    step(&b, "many", 39, 0, 1);
    step(&b, "many", 39, 0, 1);
    CHECKF(b.bodies == 2, "%d times, expected 2", b.bodies);
    float sum[ROWS * WIDTH];
    CHECK_OK(dev_get_f32(b.d, sum, b.sum));
    CHECK(sum[0] == 6 + 3 + 40 + 3);
    close_bench(&b);
}

static void an_incomplete_key_is_found(void)
{
    bench b;
    if (!open_bench(&b, "graphs=check")) return;
    int64_t key = 7;
    for (int t = 0; t < 3; t++) {
        if (!dev_repeat(b.d, "short key", &key, sizeof key)) continue;
        op_fill(b.d, b.sum, t); /* an argument that the key does not hold */
        dev_repeated(b.d);
    }
    CHECK(dev_check(b.d) == SCA_ERR_STATE);
    CHECKF(strstr(sca_last_error(), "short key") != NULL, "'%s' names the work", sca_last_error());
    close_bench(&b);
}

static void the_host_stays_outside(void)
{
    bench b;
    if (!open_bench(&b, "")) return;
    float x[ROWS * WIDTH] = { 0 };
    int64_t key = 1;
    CHECK(dev_repeat(b.d, "put", &key, sizeof key));
    dev_put_f32(b.d, b.x, x);
    dev_repeated(b.d);
    CHECK(dev_check(b.d) == SCA_ERR_STATE);
    CHECKF(strstr(sca_last_error(), "copy to the GPU inside 'put'") != NULL, "%s", sca_last_error());
    CHECK(dev_repeat(b.d, "get", &key, sizeof key));
    CHECK(dev_get_f32(b.d, x, b.x) == SCA_ERR_STATE);
    dev_repeated(b.d);
    CHECK_OK(dev_check(b.d));
    close_bench(&b);
}

static void failures_are_not_kept(void)
{
    bench b;
    if (!open_bench(&b, "")) return;
    int64_t key = 1;
    for (int t = 0; t < 4; t++) {
        CHECK(dev_repeat(b.d, "wrong", &key, sizeof key));
        op_add_fwd(b.d, b.sum, b.sum, t == 1 || t == 3 ? b.y : b.x); /* shapes do not agree */
        dev_repeated(b.d);
        CHECK((dev_check(b.d) == SCA_OK) == (t % 2 == 0));
    }
    close_bench(&b);
}

/* The product's scratch grows after a piece was kept: the piece is made anew, at the new address. */
static void what_is_kept_goes_when_scratch_moves(void)
{
    bench b;
    if (!open_bench(&b, "act=bf16")) return;
    arena_release(&b.a, 0);
    int bodies = 0;
    for (int64_t N = 64; N <= 128; N *= 2) {
        tensor x = arena_tensor(&b.a, DT_BF16, 2, (int64_t[]){ 64, 1024 }),
               w = arena_tensor(&b.a, DT_BF16, 2, (int64_t[]){ N, 1024 }),
               y = arena_tensor(&b.a, DT_BF16, 2, (int64_t[]){ 64, N });
        op_fill(b.d, x, 1);
        op_fill(b.d, w, 0.5);
        for (int t = 0; t < 3; t++) {
            op_fill(b.d, y, -1);
            if (dev_repeat(b.d, "product", &N, sizeof N)) {
                bodies++;
                op_linear_fwd(b.d, y, x, w, TENSOR_NONE, TENSOR_NONE, (linear_options){ .act = ACT_NONE });
                dev_repeated(b.d);
            }
            float got[64 * 128];
            CHECK_OK(dev_get_f32(b.d, got, y));
            CHECKF(got[0] == 512 && got[64 * N - 1] == 512, "N %d, time %d: %g and %g", (int)N, t, (double)got[0],
                   (double)got[64 * N - 1]);
        }
    }
    CHECKF(bodies == 4, "%d times, expected 4", bodies);
    close_bench(&b);
}

int main(int argc, char **argv)
{
    bool simt = false;
    for (const char *const *k = dev_kinds(); *k; k++) simt |= strcmp(*k, "simt") == 0;
    if (!simt) {
        check_skip("device simt is not built in");
        return check_done();
    }
    RUN(repeats_give_what_the_ops_give);
    RUN(names_and_keys_tell_pieces_apart);
    RUN(an_incomplete_key_is_found);
    RUN(the_host_stays_outside);
    RUN(failures_are_not_kept);
    RUN(what_is_kept_goes_when_scratch_moves);
    return check_done();
}
