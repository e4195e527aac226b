/* test_ref.c - the reference device against closed forms and sums done by hand: it defines every op, so nothing of ours
 * can vouch for it. */
#include "check.h"

#include "base/rng.h"
#include "ops/ops.h"

#include <math.h>

typedef struct ref_bench {
    dev *d;
    arena a;
} ref_bench;

static ref_bench ref_open(void)
{
    ref_bench r = { 0 };
    CHECK_OK(dev_open("ref", "", &r.d));
    CHECK_OK(arena_open(r.d, (size_t)4 << 20, &r.a));
    return r;
}

static void ref_close(ref_bench *r)
{
    CHECK_OK(dev_check(r->d));
    arena_close(&r->a);
    dev_close(r->d);
}

/* A tensor of given values (NULL: zeros). */
static tensor of(ref_bench *r, const double *v, int ndim, const int64_t *dim)
{
    tensor t = arena_tensor(&r->a, DT_F64, ndim, dim);
    for (int64_t i = 0; i < tensor_count(t); i++) ((double *)t.data)[i] = v ? v[i] : 0;
    return t;
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-12 * fmax(1, fabs(b)); }
#define DIM(...)                                                                                                   \
    (int)LENGTH(((int64_t[]){ __VA_ARGS__ })), (int64_t[]) { __VA_ARGS__ }
#define AT(t, i) (((const double *)(t).data)[i])

static void ref_pointwise(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ -1, 0, 2 }, DIM(3)), y = of(&r, NULL, DIM(3));
    op_activation_fwd(r.d, y, x, ACT_GELU);
    for (int i = 0; i < 3; i++) CHECK(near(AT(y, i), AT(x, i) * 0.5 * (1 + erf(AT(x, i) / sqrt(2)))));
    op_activation_fwd(r.d, y, x, ACT_GELU_TANH);
    CHECK(fabs(AT(y, 0) + 0.15880801) < 1e-7 && fabs(AT(y, 2) - 1.95459769) < 1e-7);
    op_activation_fwd(r.d, y, x, ACT_RELU);
    CHECK(AT(y, 0) == 0 && AT(y, 2) == 2);
    tensor a = of(&r, (double[]){ 1, -2 }, DIM(1, 2)), b = of(&r, (double[]){ 3, 5 }, DIM(1, 2)),
           c = of(&r, NULL, DIM(1, 2));
    op_silu_mul_fwd(r.d, c, a, b);
    CHECK(near(AT(c, 0), 3 / (1 + exp(-1))) && near(AT(c, 1), -10 / (1 + exp(2))));
    ref_close(&r);
}

static void ref_products(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 2, 3, 4, 5, 6 }, DIM(2, 3)),
           w = of(&r, (double[]){ 1, 0, -1, 2, 1, 0 }, DIM(2, 3));
    tensor b = of(&r, (double[]){ 10, 20 }, DIM(2)), y = of(&r, NULL, DIM(2, 2));
    op_linear_fwd(r.d, y, x, w, b, tensor_none(), (linear_options){ ACT_NONE, false });
    CHECK(AT(y, 0) == 8 && AT(y, 1) == 24 && AT(y, 2) == 8 && AT(y, 3) == 33);
    tensor t = of(&r, (double[]){ 1, 2, 0, 1, -1, 0 }, DIM(3, 2));
    op_linear_fwd(r.d, y, x, t, b, y, (linear_options){ ACT_NONE, true }); /* the same weight transposed, added */
    CHECK(AT(y, 0) == 16 && AT(y, 1) == 48 && AT(y, 2) == 16 && AT(y, 3) == 66);
    op_matmul_fwd(r.d, y, x, t, (matmul_options){ 0.5f, false });
    CHECK(AT(y, 0) == -1 && AT(y, 1) == 2 && AT(y, 2) == -1 && AT(y, 3) == 6.5);
    ref_close(&r);
}

static void ref_norms(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 2, 3, 6 }, DIM(1, 4)), y = of(&r, NULL, DIM(1, 4)),
           one = of(&r, (double[]){ 1, 1, 1, 1 }, DIM(4));
    tensor zero = of(&r, NULL, DIM(4)), mean = of(&r, NULL, DIM(1)), rstd = of(&r, NULL, DIM(1));
    op_layernorm_fwd(r.d, y, mean, rstd, x, one, zero, 0);
    CHECK(near(AT(mean, 0), 3) && near(AT(rstd, 0), 1 / sqrt(3.5)) && near(AT(y, 3), 3 / sqrt(3.5)));
    op_rmsnorm_fwd(r.d, y, rstd, x, one, 0);
    CHECK(near(AT(rstd, 0), 1 / sqrt(12.5)) && near(AT(y, 0), 1 / sqrt(12.5)));
    ref_close(&r);
}

static void ref_attention(void)
{
    ref_bench r = ref_open();
    tensor q = of(&r, (double[]){ 1, 2 }, DIM(1, 1, 1, 2)), k = of(&r, (double[]){ 1, 0, 0, 1 }, DIM(1, 2, 1, 2));
    tensor v = of(&r, (double[]){ 10, 0, 0, 20 }, DIM(1, 2, 1, 2)), y = of(&r, NULL, DIM(1, 1, 1, 2)),
           lse = of(&r, NULL, DIM(1, 1, 1));
    op_attention_fwd(r.d, y, lse, q, k, v, tensor_none(), (attention_options){ .scale = 0.5f, .causal = false });
    double p = 1 / (1 + exp(0.5));
    CHECK(near(AT(y, 0), 10 * p) && near(AT(y, 1), 20 * (1 - p)) && near(AT(lse, 0), log(exp(0.5) + exp(1))));
    tensor q2 = of(&r, (double[]){ 1, 2, 3, 4 }, DIM(1, 2, 1, 2)), y2 = of(&r, NULL, DIM(1, 2, 1, 2));
    op_attention_fwd(r.d, y2, tensor_none(), q2, k, v, tensor_none(),
                     (attention_options){ .scale = 1, .causal = true });
    CHECK(near(AT(y2, 0), 10) && near(AT(y2, 1), 0)); /* the first query sees one key */
    int64_t map[4] = { 1, 2, 2, 6 };
    double qkv[24];
    for (int i = 0; i < 24; i++) qkv[i] = sin(i);
    tensor all = of(&r, qkv, 4, map), out = of(&r, NULL, DIM(1, 2, 2, 2)), plain = of(&r, NULL, DIM(1, 4, 1, 2));
    tensor flat = tensor_reshape3(all, 1, 4, 6), none = tensor_none();
    tensor zero = of(&r, NULL, DIM(3, 2));
    op_relpos_attention_fwd(r.d, out, none, all, none, zero, zero, (relpos_options){ 0.7f, 1, 0 });
    op_attention_fwd(r.d, plain, none, tensor_split(tensor_slice(flat, 2, 0, 2), 2, 1),
                     tensor_split(tensor_slice(flat, 2, 2, 2), 2, 1),
                     tensor_split(tensor_slice(flat, 2, 4, 2), 2, 1), none,
                     (attention_options){ .scale = 0.7f, .causal = false });
    for (int i = 0; i < 8; i++) CHECK(near(AT(out, i), AT(plain, i))); /* tables of zeros change nothing */
    ref_close(&r);
}

static void ref_image_attention(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 5, 3, 7 }, DIM(1, 2, 2)), pe = of(&r, NULL, DIM(2, 2)),
           a = of(&r, NULL, DIM(1, 1, 2));
    tensor y = of(&r, NULL, DIM(1, 1, 2)), z = of(&r, NULL, DIM(1, 2, 2)), kb = of(&r, NULL, DIM(1, 1));
    op_image_pool_fwd(r.d, y, tensor_none(), x, pe, a);
    CHECK(near(AT(y, 0), 2) && near(AT(y, 1), 6)); /* equal scores: the mean */
    tensor v = of(&r, (double[]){ 1, 2 }, DIM(1, 1, 2)), vb = of(&r, (double[]){ 0, 1 }, DIM(2)),
           one = of(&r, (double[]){ 1, 1 }, DIM(2));
    tensor zero = of(&r, NULL, DIM(2));
    op_image_update_fwd(r.d, z, x, pe, a, kb, v, vb, one, zero, (image_update_options){ 1, 0 });
    CHECK(near(AT(z, 0), -1) &&
          near(AT(z, 1), 1)); /* one token: x + v + vb, then normalised: two values become -1, 1 */
    ref_close(&r);
}

static void ref_images(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 2, 3, 4 }, DIM(1, 2, 2, 1)),
           w = of(&r, (double[]){ 1, 10, 100, 1000 }, DIM(1, 1, 2, 2));
    tensor y = of(&r, NULL, DIM(1, 1, 1, 1)), padded = of(&r, NULL, DIM(1, 3, 3, 1)),
           up = of(&r, NULL, DIM(1, 4, 4, 1));
    op_conv_fwd(r.d, y, x, w, tensor_none(), (conv_options){ 1, 0, ACT_NONE });
    CHECK(AT(y, 0) == 4321);
    op_conv_fwd(r.d, padded, x, w, tensor_none(), (conv_options){ 1, 1, ACT_NONE });
    CHECK(AT(padded, 0) == 1000 && AT(padded, 8) == 4 && AT(padded, 1) == 2100);
    op_conv_transpose_fwd(r.d, up, x, w, tensor_none());
    CHECK(AT(up, 0) == 1 && AT(up, 1) == 10 && AT(up, 4) == 100 && AT(up, 15) == 4000);
    tensor line = of(&r, (double[]){ 0, 1 }, DIM(1, 1, 2)), wide = of(&r, NULL, DIM(1, 1, 4));
    op_resize_fwd(r.d, wide, line);
    CHECK(near(AT(wide, 0), 0) && near(AT(wide, 1), 0.25) && near(AT(wide, 2), 0.75) && near(AT(wide, 3), 1));
    tensor c = of(&r, (double[]){ 0.5, -1 }, DIM(1, 2)), g = of(&r, (double[]){ 0.25, 0.125 }, DIM(2, 1)),
           code = of(&r, NULL, DIM(1, 2));
    op_fourier_fwd(r.d, code, c, g);
    CHECK(fabs(AT(code, 0)) < 1e-12 && near(AT(code, 1), 1)); /* 0.5*0.25 - 0.125 = 0 */
    ref_close(&r);
}

static void ref_loss(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 2, 3, 0, 0, 0 }, DIM(2, 3)), y = of(&r, NULL, DIM(2, 3)),
           loss = of(&r, NULL, DIM(2));
    op_log_softmax_fwd(r.d, y, x);
    CHECK(near(exp(AT(y, 0)) + exp(AT(y, 1)) + exp(AT(y, 2)), 1) && near(AT(y, 4), -log(3)));
    tensor label = arena_tensor(&r.a, DT_I32, 1, (int64_t[]){ 2 });
    memcpy(label.data, (int32_t[]){ 2, -100 }, 8);
    op_cross_entropy_fwd(r.d, loss, tensor_none(), x, label, 0.25f);
    double smooth = -0.75 * AT(y, 2) - 0.25 / 3 * (AT(y, 0) + AT(y, 1) + AT(y, 2));
    CHECK(near(AT(loss, 0), smooth) && AT(loss, 1) == 0);
    ref_close(&r);
}

static void ref_choices(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 3, 3, 2, log(0.5), log(0.3), log(0.15), log(0.05) }, DIM(2, 4)),
           value = of(&r, NULL, DIM(2, 2));
    tensor index = arena_tensor(&r.a, DT_I32, 2, (int64_t[]){ 2, 2 }),
           best = arena_tensor(&r.a, DT_I32, 1, (int64_t[]){ 2 });
    const int32_t *i = index.data, *b = best.data;
    op_topk_fwd(r.d, value, index, x);
    CHECK(i[0] == 1 && i[1] == 2 && AT(value, 1) == 3 && i[2] == 0 && i[3] == 1);
    op_argmax_fwd(r.d, best, tensor_none(), x);
    CHECK(b[0] == 1 && b[1] == 0);
    tensor u = of(&r, (double[]){ 0, 0.6 }, DIM(2));
    op_sample_fwd(r.d, best, x, u, (sample_options){ 1, 0, 1 });
    CHECK(b[1] == 1); /* 0.5 <= 0.6 < 0.8 */
    op_sample_fwd(r.d, best, x, u, (sample_options){ 1, 1, 1 });
    CHECK(b[1] == 0); /* only the best is left */
    op_sample_fwd(r.d, best, x, u, (sample_options){ 1, 0, 0.45f });
    CHECK(b[1] == 0); /* the best alone reaches 0.45 */
    tensor q = of(&r, (double[]){ 1, 2, 3, 4 }, DIM(1, 1, 1, 4)), y = of(&r, NULL, DIM(1, 1, 1, 4));
    op_rope_fwd(r.d, y, q, TENSOR_NONE, (rope_options){ 2, 100 });
    CHECK(near(AT(y, 0), cos(2) - 3 * sin(2)) && near(AT(y, 3), 4 * cos(0.2) + 2 * sin(0.2)));
    tensor table = of(&r, (double[]){ 1, 2, 3, 4 }, DIM(2, 2)), rows = of(&r, NULL, DIM(2, 2)),
           ids = arena_tensor(&r.a, DT_I32, 1, (int64_t[]){ 2 });
    memcpy(ids.data, (int32_t[]){ 1, 0 }, 8);
    op_embedding_fwd(r.d, rows, table, ids);
    CHECK(AT(rows, 0) == 3 && AT(rows, 3) == 2);
    ref_close(&r);
}

static void ref_optimiser(void)
{
    ref_bench r = ref_open();
    tensor p = of(&r, (double[]){ 1 }, DIM(1)), m = of(&r, NULL, DIM(1)), v = of(&r, NULL, DIM(1));
    tensor g = of(&r, (double[]){ 0.25 }, DIM(1)), sum = of(&r, (double[]){ 5 }, DIM(1));
    adamw_options o = {
        .rate = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .decay = 0.01, .scale = 2, .step = 1
    };
    op_adamw(r.d, p, m, v, g, o); /* the first step goes by the sign: the moments are those of one gradient */
    CHECK(near(AT(m, 0), 0.05) && near(AT(v, 0), 0.0025) && near(AT(p, 0), 0.999 - 0.1 * 0.5 / (0.5 + 1e-8)));
    double before = AT(p, 0), m2 = 0.9 * 0.05 - 0.1 * 0.5, v2 = 0.99 * 0.0025 + 0.01 * 0.25;
    o.step = 2;
    o.scale = -2;
    op_adamw(r.d, p, m, v, g, o);
    CHECK(near(AT(p, 0), before * 0.999 - 0.1 * (m2 / 0.19) / (sqrt(v2 / 0.0199) + 1e-8)));
    tensor x = of(&r, (double[]){ 1, -2, 3, 4 }, DIM(2, 2));
    op_sum_squares(r.d, sum, x, true);
    CHECK(AT(sum, 0) == 35);
    op_sum_squares(r.d, sum, x, false);
    CHECK(AT(sum, 0) == 30);
    ((double *)x.data)[2] = INFINITY;
    op_sum_squares(r.d, sum, x, false);
    CHECK(!isfinite(AT(sum, 0)));
    ref_close(&r);
}

static void ref_masks(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 0, 0, 50, -50, -1, -1, 1, 1 }, DIM(4, 2)), focal = of(&r, NULL, DIM(4));
    tensor dice = of(&r, NULL, DIM(4)), iou = of(&r, NULL, DIM(4)),
           target = arena_tensor(&r.a, DT_U8, 2, (int64_t[]){ 4, 2 });
    memcpy(target.data, (uint8_t[]){ 1, 0, 1, 0, 0, 0, 1, 0 }, 8);
    op_mask_loss_fwd(r.d, focal, dice, iou, x, target);
    CHECK(near(AT(focal, 0), 0.5 * (0.25 + 0.75) * 0.25 * log(2)) && near(AT(dice, 0), 1 - 2.0 / 3));
    CHECK(AT(focal, 1) < 1e-40 && fabs(AT(dice, 1)) < 1e-12);
    CHECK(AT(iou, 0) == 0 && AT(iou, 1) == 1 && AT(iou, 2) == 1 && AT(iou, 3) == 0.5);
    ref_close(&r);
}

static void ref_boxes(void)
{
    ref_bench r = ref_open();
    double ramp[16];
    for (int i = 0; i < 16; i++) ramp[i] = i % 4;
    tensor map = of(&r, ramp, DIM(1, 4, 4, 1)), y = of(&r, NULL, DIM(2, 1, 2, 1)), none = tensor_none();
    tensor boxes = of(&r, (double[]){ 0, 0, 64, 64, 64, 64, 0, 0 }, DIM(2, 4)); /* the second is inside out */
    op_roi_align_fwd(r.d, y, map, boxes, none, 0.0625f);
    CHECK(near(AT(y, 0), 0.5) && near(AT(y, 1), 2.5) && AT(y, 2) == 0 && AT(y, 3) == 0);
    ref_close(&r);
}

/* The numbers behind dropout are those of the generator, counted as ops.def says. */
static void ref_dropout_counts(void)
{
    ref_bench r = ref_open();
    double ones[15];
    for (int i = 0; i < 15; i++) ones[i] = 1;
    tensor x = of(&r, ones, DIM(3, 5)), y = of(&r, NULL, DIM(3, 5));
    dropout_options o = { .rate = 0.5f, .key = 0x1234, .first = 7 };
    op_dropout(r.d, y, x, tensor_none(), o);
    for (uint64_t i = 0; i < 3; i++)
        for (uint64_t c = 0; c < 5; c++) {
            uint64_t index = (7 + i) * 8 + c;
            bool gone = rng_philox(0x1234, index / 4, 0).word[index % 4] < 0x80000000u;
            CHECK(AT(y, i * 5 + c) == (gone ? 0 : 2));
        }
    /* One key, so that the probability is 1 and the output shows what was dropped: (b, h, t) counts rows of ceil4(1). */
    tensor q = of(&r, NULL, DIM(3, 1, 5, 1)), v = of(&r, ones, DIM(3, 1, 5, 1)),
           out = of(&r, NULL, DIM(3, 1, 5, 1));
    op_attention_fwd(r.d, out, tensor_none(), q, q, v, tensor_none(), (attention_options){ .scale = 1, .drop = o });
    for (uint64_t i = 0; i < 3; i++)
        for (uint64_t h = 0; h < 5; h++) {
            bool gone = rng_philox(0x1234, (7 + i) * 5 + h, 0).word[0] < 0x80000000u;
            CHECK(AT(out, i * 5 + h) == (gone ? 0 : 2));
        }
    ref_close(&r);
}

int main(int argc, char **argv)
{
    RUN(ref_pointwise);
    RUN(ref_products);
    RUN(ref_norms);
    RUN(ref_attention);
    RUN(ref_image_attention);
    RUN(ref_images);
    RUN(ref_loss);
    RUN(ref_choices);
    RUN(ref_optimiser);
    RUN(ref_masks);
    RUN(ref_boxes);
    RUN(ref_dropout_counts);
    return check_done();
}
