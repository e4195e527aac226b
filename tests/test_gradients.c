/* test_gradients.c - every backward op against differences of its forward op, on the reference device in double
 * precision; what is its own backward, against its adjoint. */
#include "check.h"

#include "op_run.h"

#include <math.h>
#include <string.h>

#define STEP 1e-5
#define RELATIVE 1e-6

/* The forward call that is differentiated, tensors as in op_cases.h. The backward call follows from the names: d + input
 * is wanted, d + output is drawn, the rest is what the forward call had. */
typedef struct gradient_case {
    op_id backward;
    op_case forward;
} gradient_case;

#define DROP(rate_, key_)                                                                                          \
    {                                                                                                              \
        .rate = rate_, .key = key_                                                                                 \
    }

/* clang-format off */
static const gradient_case cases[] = {
    { OP_linear_bwd, { OP_linear_fwd, "A1x1 A1x1 W1x1 P1 -", .o.in_out = false } },
    { OP_linear_bwd, { OP_linear_fwd, "A3x5 A3x4 W5x4 P5 -", .o.in_out = false } },
    { OP_linear_bwd, { OP_linear_fwd, "A3x5 A3x4 W4x5 P5 -", .o = { .linear.in_out = true, .in_out = true } } },
    { OP_linear_bwd, { OP_linear_fwd, "A3x12 A3x4 W12x2x2 - -", .o.in_out = false } },
    { OP_matmul_bwd, { OP_matmul_fwd, "A3x5 A3x4 A4x5", .o.matmul = { .alpha = 0.5f } } },
    { OP_matmul_bwd, { OP_matmul_fwd, "A2x3x3x5/ts A2x3x3x4/s A2x3x5x4/t", .o.matmul = { .alpha = 2, .trans_b = true } } },
    { OP_matmul_bwd, { OP_matmul_fwd, "A3x2x4x5 A3x2x4x2/t W3x2x2x5/r", .o = { .matmul.alpha = 0.7f, .add = true } } },
    { OP_matmul_bwd, { OP_matmul_fwd, "A3x2x4x5 A3x2x4x2 W3x2x5x2/r", .o = { .matmul = { 1, true }, .add = true } } },
    { OP_layernorm_bwd, { OP_layernorm_fwd, "A1x2 F1 F1 A1x2 P2 P2", .o.eps = 1e-2f } },
    { OP_layernorm_bwd, { OP_layernorm_fwd, "A5x7 F5 F5 A5x7 P7 P7", .o.eps = 1e-5f } },
    { OP_rmsnorm_bwd, { OP_rmsnorm_fwd, "A1x1 F1 A1x1 P1", .o.eps = 1e-2f } },
    { OP_rmsnorm_bwd, { OP_rmsnorm_fwd, "A5x7 F5 A5x7 P7", .o.eps = 1e-5f } },
    { OP_activation_bwd, { OP_activation_fwd, "A3x17 A3x17", .o.act = ACT_NONE } },
    { OP_activation_bwd, { OP_activation_fwd, "A3x17 A3x17", .o.act = ACT_RELU } },
    { OP_activation_bwd, { OP_activation_fwd, "A2x3x4x5 A2x3x4x5", .o.act = ACT_GELU } },
    { OP_activation_bwd, { OP_activation_fwd, "A3x17 A3x17", .o.act = ACT_GELU_TANH } },
    { OP_silu_mul_bwd, { OP_silu_mul_fwd, "A3x7 A3x7 A3x7", .o.in_out = false } },
    { OP_embedding_bwd, { OP_embedding_fwd, "A9x3 W4x3 I9", .o.in_out = false } },
    { OP_rope_bwd, { OP_rope_fwd, "A2x3x2x6 A2x3x2x6 -", .o.rope = { .first = 4, .theta = 100 } } },
    { OP_attention_bwd, { OP_attention_fwd, "A1x1x1x1 F1x1x1 A1x1x1x1 A1x2x1x1 A1x2x1x1 -", .o.attention = { .scale = 1 } } },
    { OP_attention_bwd, { OP_attention_fwd, "A2x3x4x2 F2x4x3 A2x3x4x2 A2x5x2x2 A2x5x2x2 -", .o.attention = { .scale = 0.7f } } },
    { OP_attention_bwd, { OP_attention_fwd, "A2x3x4x2 F2x4x3 A2x3x4x2 A2x5x2x2 A2x5x2x2 -", .o.attention = { .scale = 0.7f, .causal = true } } },
    { OP_attention_bwd, { OP_attention_fwd, "A2x3x2x3 F2x2x3 A2x3x2x3 A2x3x2x3 A2x3x2x3 -", .o.attention = { .scale = 0.7f, .causal = true, .drop = DROP(0.4f, 77) } } },
    { OP_relpos_attention_bwd, { OP_relpos_attention_fwd, "A1x3x2x4 F1x2x3x2 A1x3x2x12 - P5x2 P3x2", .o.relpos = { .scale = 0.7f, .heads = 2 } } },
    { OP_relpos_attention_bwd, { OP_relpos_attention_fwd, "A2x3x4x2 F2x1x3x4 A2x3x4x6 P6 P3x2 P3x2", .o.relpos = { .scale = 0.7f, .heads = 1, .window = 2 } } },
    { OP_relpos_attention_bwd, { OP_relpos_attention_fwd, "A1x3x3x4 F1x2x3x3 A1x3x3x12 P12 - -", .o.relpos = { .scale = 0.7f, .heads = 2, .window = 2 } } },
    { OP_image_pool_bwd, { OP_image_pool_fwd, "A2x3x4 F2x3 A2x5x4 A5x4 A2x3x4", .o.in_out = false } },
    { OP_image_update_bwd, { OP_image_update_fwd, "A2x3x5 A2x3x5 A3x5 A2x4x5/o A2x4 A2x4x5 P5 P5 P5", .o.update = { .heads = 2, .eps = 1e-5f } } },
    { OP_conv_bwd, { OP_conv_fwd, "A2x3x4x3 A2x3x4x2 W3x2x1x1 P3", .o.conv = { .stride = 1 } } },
    { OP_conv_bwd, { OP_conv_fwd, "A1x4x3x2 A1x4x3x2 W2x2x3x3 P2", .o.conv = { .stride = 1, .pad = 1 } } },
    { OP_conv_bwd, { OP_conv_fwd, "A1x2x2x3 A1x5x4x2 W3x2x3x2 -", .o.conv = { .stride = 2 } } },
    { OP_conv_transpose_bwd, { OP_conv_transpose_fwd, "A2x4x6x3 A2x2x3x2 W2x3x2x2 P3", .o.in_out = false } },
    { OP_roi_align_bwd, { OP_roi_align_fwd, "A3x2x3x2 A2x5x6x2 F3x4/x I3", .o.scale = 0.06f } },
    { OP_roi_align_bwd, { OP_roi_align_fwd, "A2x3x2x3 A1x8x7x3 F2x4/x -", .o.scale = 0.1f } },
    { OP_cross_entropy_bwd, { OP_cross_entropy_fwd, "F9 F9 A9x5 I9", .o.smoothing = 0 } },
    { OP_cross_entropy_bwd, { OP_cross_entropy_fwd, "F9 F9 A9x5 I9", .o.smoothing = 0.1f } },
    { OP_mask_loss_bwd, { OP_mask_loss_fwd, "F3 F3 F3 A3x9 U3x9", .o.in_out = false } },
};
/* clang-format on */

static dev *ref;

static double next_number(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(*state >> 11) * 0x1p-52 - 1;
}

static int find_parameter(op_id op, const char *name)
{
    char own[16];
    for (int i = 0;; i++) {
        op_parameter_name(op, i, own);
        if (!own[0]) return -1;
        if (strcmp(own, name) == 0) return i;
    }
}

/* Numbers of its own in the shape of t, in the same order; what repeats over axis 0 is one. */
static tensor fresh(arena *a, tensor t, bool repeats, uint64_t *state)
{
    if (repeats) t.dim[0] = 1;
    tensor y = arena_tensor(a, DT_F64, t.ndim, t.dim);
    for (int64_t i = 0; i < tensor_count(y); i++) ((double *)y.data)[i] = state ? next_number(state) : 0;
    return y;
}

static double *number(tensor t, int64_t index)
{
    double *p = t.data;
    for (int i = t.ndim - 1; i >= 0; i--) {
        p += index % t.dim[i] * t.stride[i];
        index /= t.dim[i];
    }
    return p;
}

typedef struct probe { /* one case at work */
    op_id backward;
    op_plan p;
    op_instance s;
    arena a;
    tensor t[OP_MAX_TENSORS];   /* of the backward call */
    tensor out[OP_MAX_TENSORS]; /* gradients of the forward outputs, by forward parameter */
} probe;

static void run_forward(probe *b) { op_signatures[b->p.op].call(ref, b->s.t, &b->p.o); }

/* The loss whose gradient the backward op is given: sum of d out * out. */
static double loss(probe *b)
{
    double sum = 0;
    run_forward(b);
    for (int i = 0; i < b->p.n; i++)
        for (int64_t k = 0; tensor_given(b->out[i]) && k < tensor_count(b->out[i]); k++)
            sum += *number(b->out[i], k) * *number(b->s.t[i], k);
    return sum;
}

static void arrange(probe *b)
{
    char name[16];
    uint64_t state = b->p.seed;
    for (int i = 0;; i++) {
        op_parameter_name(b->backward, i, name);
        if (!name[0]) return;
        int same = find_parameter(b->p.op, name), of = name[0] == 'd' ? find_parameter(b->p.op, name + 1) : -1;
        b->t[i] = same >= 0 ? b->s.t[same] : TENSOR_NONE; /* r: absent */
        if (same >= 0 || of < 0 || !b->p.spec[of].given) continue;
        bool wanted = i < op_outputs(b->backward);
        b->t[i] = fresh(&b->a, b->s.t[of], strchr(b->p.spec[of].views, 'r') != NULL, wanted ? NULL : &state);
        if (!wanted) b->out[of] = b->t[i];
    }
}

/* Moves one input number, and with it all that repeat it, by STEP both ways. */
static double difference(probe *b, int of, int64_t index)
{
    double *x = number(b->s.t[of], index), before = *x;
    *x = before + STEP;
    double above = loss(b);
    *x = before - STEP;
    double below = loss(b);
    *x = before;
    return (above - below) / (2 * STEP);
}

static void compare(probe *b, int i)
{
    char name[16];
    op_parameter_name(b->backward, i, name);
    int of = find_parameter(b->p.op, name + 1);
    int64_t n = tensor_count(b->t[i]), wrong = 0, at = 0;
    double most = 0, got = 0, want = 0;
    for (int64_t k = 0; k < n; k++) most = fmax(most, fabs(*number(b->t[i], k)));
    for (int64_t k = 0; k < n; k++) {
        double slope = difference(b, of, k), own = *number(b->t[i], k);
        if (fabs(own - slope) <= RELATIVE * most + 1e-8 || wrong++) continue;
        at = k;
        got = own;
        want = slope;
    }
    CHECKF(wrong == 0, "%s of %s: %s: %lld of %lld wrong, the first at %lld: %.9g, differences give %.9g",
           op_name(b->backward), b->p.text, name, (long long)wrong, (long long)n, (long long)at, got, want);
    CHECKF(most > 0, "%s of %s: %s is zero everywhere", op_name(b->backward), b->p.text, name);
}

static void run_case(const gradient_case *c)
{
    probe b = { .backward = c->backward };
    if (!CHECK(op_plan_read(&c->forward, &b.p))) return;
    CHECK_OK(arena_open(ref, (size_t)1 << 20, &b.a));
    if (CHECK(op_instance_open(&b.s, ref, &b.p, DT_F32, false, false, ref))) {
        run_forward(&b);
        arrange(&b);
        op_signatures[c->backward].call(ref, b.t, &b.p.o);
        sca_status status = dev_check(ref);
        if (CHECKF(status == SCA_OK, "%s of %s: %s", op_name(c->backward), b.p.text, sca_last_error()))
            for (int i = 0; i < op_outputs(c->backward); i++)
                if (tensor_given(b.t[i])) compare(&b, i);
        CHECK_OK(dev_check(ref));
    }
    op_instance_close(&b.s);
    arena_close(&b.a);
    op_plan_free(&b.p);
}

static void backward_ops_give_the_slope_of_their_forward_ops(void)
{
    for (size_t i = 0; i < LENGTH(cases); i++) run_case(&cases[i]);
}

static void every_backward_op_has_a_gradient_case(void)
{
    for (int op = 0; op < OP_COUNT; op++) {
        const char *name = op_name((op_id)op), *end = strstr(name, "_bwd");
        size_t n = 0;
        for (size_t i = 0; i < LENGTH(cases); i++) n += (int)cases[i].backward == op;
        CHECKF((end != NULL) == (n > 0), "%s has %zu gradient cases", name, n);
    }
}

/* ---- ops that are their own backward, or that of a repeated view --------------------------------------------- */

static double inner(tensor a, tensor b)
{
    double sum = 0;
    for (int64_t i = 0; i < tensor_count(a); i++) sum += *number(a, i) * *number(b, i);
    return sum;
}

/* <drop x, g> = <x, drop g>; about `rate` of the numbers are gone, the others grow; a part is dropped as in the whole. */
static void dropout_is_its_own_backward(void)
{
    arena a;
    uint64_t state = 5;
    dropout_options o = { .rate = 0.3f, .key = 99, .first = 1000 };
    CHECK_OK(arena_open(ref, (size_t)4 << 20, &a));
    int64_t dim[2] = { 200, 203 };
    tensor like = arena_tensor(&a, DT_F64, 2, dim), x = fresh(&a, like, false, &state),
           g = fresh(&a, like, false, &state);
    tensor y = fresh(&a, like, false, NULL), dx = fresh(&a, like, false, NULL), tail = fresh(&a, like, false, NULL);
    op_dropout(ref, y, x, TENSOR_NONE, o);
    op_dropout(ref, dx, g, TENSOR_NONE, o);
    o.first += 150;
    op_dropout(ref, tensor_slice(tail, 0, 150, 50), tensor_slice(x, 0, 150, 50), TENSOR_NONE, o);
    CHECK_OK(dev_check(ref));
    CHECK(fabs(inner(y, g) - inner(x, dx)) < 1e-9);
    int64_t gone = 0, other = 0, scaled = 0;
    for (int64_t i = 0; i < tensor_count(y); i++) {
        gone += *number(y, i) == 0;
        scaled += fabs(*number(y, i) - *number(x, i) / (1 - (double)0.3f)) < 1e-12;
        other += i >= 150 * dim[1] && *number(y, i) != *number(tail, i);
    }
    CHECKF(llabs(gone - 12180) < 500, "%lld of 40600 gone", (long long)gone);
    CHECK(gone + scaled == tensor_count(y) && other == 0);
    arena_close(&a);
}

static void sums_are_the_adjoint_of_repeating(void)
{
    arena a;
    uint64_t state = 7;
    CHECK_OK(arena_open(ref, (size_t)1 << 20, &a));
    for (int axes = 0; axes < 16; axes++) {
        int64_t dim[4] = { 2, 3, 4, 5 }, small[4];
        for (int i = 0; i < 4; i++) small[i] = axes >> i & 1 ? 1 : dim[i];
        tensor x = fresh(&a, arena_tensor(&a, DT_F64, 4, dim), false, &state);
        tensor y = fresh(&a, arena_tensor(&a, DT_F64, 4, small), false, NULL);
        tensor g = fresh(&a, y, false, &state), repeated = g;
        for (int i = 0; i < 4; i++)
            if (small[i] == 1) repeated.stride[i] = 0;
        memcpy(repeated.dim, dim, sizeof dim);
        op_sum(ref, y, x, false);
        CHECK_OK(dev_check(ref));
        CHECK(fabs(inner(y, g) - inner(x, repeated)) < 1e-12);
        op_sum(ref, y, x, true);
        CHECK(fabs(inner(y, g) - 2 * inner(x, repeated)) < 1e-12);
    }
    arena_close(&a);
}

int main(int argc, char **argv)
{
    CHECK_OK(dev_open("ref", "", &ref));
    RUN(every_backward_op_has_a_gradient_case);
    RUN(backward_ops_give_the_slope_of_their_forward_ops);
    RUN(dropout_is_its_own_backward);
    RUN(sums_are_the_adjoint_of_repeating);
    dev_close(ref);
    return check_done();
}
