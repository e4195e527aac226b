/* op_cases.c - the cases of every op, and what is known of each op besides its contract. */
#include "op_cases.h"

#include <stdio.h>
#include <string.h>

/* ---- calls ---------------------------------------------------------------------------------------------- */

#define CALL(name, ...)                                                                                            \
    static void call_##name(dev *d, const tensor *t, const op_options *o)                                          \
    {                                                                                                              \
        (void)o;                                                                                                   \
        op_##name(d, __VA_ARGS__);                                                                                 \
    }
/* clang-format off */
CALL(linear_fwd, t[0], t[1], t[2], t[3], t[4], o->linear)
CALL(pack, t[0], t[1], o->in_out)
CALL(matmul_fwd, t[0], t[1], t[2], o->matmul)
CALL(layernorm_fwd, t[0], t[1], t[2], t[3], t[4], t[5], o->eps)
CALL(rmsnorm_fwd, t[0], t[1], t[2], t[3], o->eps)
CALL(activation_fwd, t[0], t[1], o->act)
CALL(silu_mul_fwd, t[0], t[1], t[2])
CALL(add_fwd, t[0], t[1], t[2])
CALL(copy, t[0], t[1])
CALL(fill, t[0], o->value)
CALL(embedding_fwd, t[0], t[1], t[2])
CALL(place, t[0], t[1], t[2])
CALL(rope_fwd, t[0], t[1], t[2], o->rope)
CALL(attention_fwd, t[0], t[1], t[2], t[3], t[4], t[5], o->attention)
CALL(relpos_attention_fwd, t[0], t[1], t[2], t[3], t[4], t[5], o->relpos)
CALL(image_pool_fwd, t[0], t[1], t[2], t[3], t[4])
CALL(image_update_fwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], o->update)
CALL(conv_fwd, t[0], t[1], t[2], t[3], o->conv)
CALL(conv_transpose_fwd, t[0], t[1], t[2], t[3])
CALL(fourier_fwd, t[0], t[1], t[2])
CALL(resize_fwd, t[0], t[1])
CALL(threshold_fwd, t[0], t[1], o->limit)
CALL(log_softmax_fwd, t[0], t[1])
CALL(argmax_fwd, t[0], t[1], t[2])
CALL(topk_fwd, t[0], t[1], t[2])
CALL(sample_fwd, t[0], t[1], t[2], o->sample)
CALL(cross_entropy_fwd, t[0], t[1], t[2], t[3], o->smoothing)
CALL(roi_align_fwd, t[0], t[1], t[2], t[3], o->scale)
CALL(linear_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], o->in_out)
CALL(matmul_bwd, t[0], t[1], t[2], t[3], t[4], o->matmul, o->add)
CALL(layernorm_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8])
CALL(rmsnorm_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6])
CALL(activation_bwd, t[0], t[1], t[2], o->act)
CALL(silu_mul_bwd, t[0], t[1], t[2], t[3], t[4])
CALL(sum, t[0], t[1], o->add)
CALL(embedding_bwd, t[0], t[1], t[2])
CALL(rope_bwd, t[0], t[1], o->rope)
CALL(attention_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], o->attention)
CALL(relpos_attention_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], o->relpos)
CALL(image_pool_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8])
CALL(image_update_bwd, t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], t[11], t[12], t[13], t[14], o->update)
CALL(conv_bwd, t[0], t[1], t[2], t[3], t[4], t[5], o->conv)
CALL(conv_transpose_bwd, t[0], t[1], t[2], t[3], t[4], t[5])
CALL(roi_align_bwd, t[0], t[1], t[2], t[3], o->scale)
CALL(dropout, t[0], t[1], t[2], o->drop)
CALL(cross_entropy_bwd, t[0], t[1], t[2], t[3], t[4], o->smoothing)
CALL(mask_loss_fwd, t[0], t[1], t[2], t[3], t[4])
CALL(mask_loss_bwd, t[0], t[1], t[2], t[3], t[4])
CALL(adamw, t[0], t[1], t[2], t[3], o->adamw)
CALL(sum_squares, t[0], t[1], o->add)
/* clang-format on */

/* Parameters cut with the batch. k and v of attention are cut only when no index says where to look (test_ops.c);
 * the second factor of a product only when there are more than two axes. */
#define BATCH_linear_fwd "y x r"
#define BATCH_pack ""
#define BATCH_matmul_fwd "y a b"
#define BATCH_layernorm_fwd "y mean rstd x"
#define BATCH_rmsnorm_fwd "y rstd x"
#define BATCH_activation_fwd "y x"
#define BATCH_silu_mul_fwd "y x u"
#define BATCH_add_fwd "y a b"
#define BATCH_copy "y x"
#define BATCH_fill "y"
#define BATCH_embedding_fwd "y ids"
#define BATCH_place "y x at"
#define BATCH_rope_fwd "y x at"
#define BATCH_attention_fwd "y lse q k v index"
#define BATCH_relpos_attention_fwd "y lse qkv"
#define BATCH_image_pool_fwd "y lse x a"
#define BATCH_image_update_fwd "y x k kb v"
#define BATCH_conv_fwd "y x"
#define BATCH_conv_transpose_fwd "y x"
#define BATCH_fourier_fwd "y c"
#define BATCH_resize_fwd "y x"
#define BATCH_threshold_fwd "y x"
#define BATCH_log_softmax_fwd "y x"
#define BATCH_argmax_fwd "index value x"
#define BATCH_topk_fwd "value index x"
#define BATCH_sample_fwd "index x u"
#define BATCH_cross_entropy_fwd "loss lse x label"
#define BATCH_roi_align_fwd "y boxes index"
#define BATCH_linear_bwd "dx dy x r"
#define BATCH_matmul_bwd "da db dy a b"
#define BATCH_layernorm_bwd "dx dy mean rstd x r"
#define BATCH_rmsnorm_bwd "dx dy rstd x r"
#define BATCH_activation_bwd "dx dy x"
#define BATCH_silu_mul_bwd "dx du dy x u"
#define BATCH_sum ""
#define BATCH_embedding_bwd ""
#define BATCH_rope_bwd "dx dy"
#define BATCH_attention_bwd "dq dk dv dy y lse q k v"
#define BATCH_relpos_attention_bwd "dqkv dy y lse qkv"
#define BATCH_image_pool_bwd "dx da dy y lse x a r"
#define BATCH_image_update_bwd "dx dk dkb dv dy x k kb v"
#define BATCH_conv_bwd "dx dy x"
#define BATCH_conv_transpose_bwd "dx dy x"
#define BATCH_roi_align_bwd ""
#define BATCH_dropout "y x r"
#define BATCH_cross_entropy_bwd "dx dloss lse x label"
#define BATCH_mask_loss_fwd "focal dice iou x target"
#define BATCH_mask_loss_bwd "dx dfocal ddice x target"
#define BATCH_adamw "p m v g"
#define BATCH_sum_squares ""

const op_signature op_signatures[OP_COUNT] = {
#define OP(name, parameters, arguments) [OP_##name] = { #arguments, #parameters, call_##name, BATCH_##name },
#include "ops/ops.def"
#undef OP
};

bool op_is_training(op_id op)
{
    static const bool training[OP_COUNT] = {
#define OP(name, parameters, arguments) [OP_##name] = false,
#define OP_TRAIN(name, parameters, arguments) [OP_##name] = true,
#include "ops/ops.def"
#undef OP
    };
    return training[op];
}

/* ---- lengths of sums and work ------------------------------------------------------------------------------ */

static double count(tensor t) { return (double)tensor_count(t); }

/* The axis that is summed over; two sums one after the other count as one of both lengths. */
double op_sum_length(op_id op, const tensor *t, const op_options *o)
{
    switch (op) {
    case OP_linear_fwd:
    case OP_matmul_fwd: return (double)t[1].dim[t[1].ndim - 1];
    case OP_layernorm_fwd: return (double)t[3].dim[1];
    case OP_rmsnorm_fwd: return (double)t[2].dim[1];
    case OP_attention_fwd: return (double)(t[3].dim[1] + t[3].dim[3]);
    case OP_relpos_attention_fwd: {
        int64_t keys = o->relpos.window ? o->relpos.window * o->relpos.window : t[0].dim[1] * t[0].dim[2];
        return (double)(keys + 3 * t[0].dim[3] / o->relpos.heads);
    }
    case OP_image_pool_fwd: return (double)(t[2].dim[1] + 2 * t[2].dim[2]);
    case OP_image_update_fwd: return (double)(t[3].dim[1] + 2 * t[1].dim[2]);
    case OP_conv_fwd: return (double)(t[2].dim[1] * t[2].dim[2] * t[2].dim[3]);
    case OP_conv_transpose_fwd: return (double)t[2].dim[0];
    case OP_log_softmax_fwd: return (double)t[1].dim[1];
    case OP_cross_entropy_fwd: return (double)t[2].dim[1];
    case OP_roi_align_fwd: return 64;
    case OP_linear_bwd: return (double)(t[3].dim[0] + t[3].dim[1]);
    case OP_matmul_bwd: return count(t[2]) / (double)t[2].dim[t[2].ndim - 1] + (double)t[2].dim[t[2].ndim - 1];
    case OP_layernorm_bwd: return (double)(t[6].dim[0] + 2 * t[6].dim[1]);
    case OP_rmsnorm_bwd: return (double)(t[4].dim[0] + 2 * t[4].dim[1]);
    case OP_sum: return count(t[1]) / count(t[0]);
    case OP_embedding_bwd: return (double)t[1].dim[0];
    case OP_attention_bwd: return (double)(t[6].dim[1] + t[7].dim[1] + 2 * t[6].dim[3]);
    case OP_relpos_attention_bwd: {
        int64_t keys = o->relpos.window ? o->relpos.window * o->relpos.window : t[4].dim[1] * t[4].dim[2];
        return (double)(t[4].dim[0] * t[4].dim[1] * t[4].dim[2] + keys + 4 * t[4].dim[3] / o->relpos.heads);
    }
    case OP_image_pool_bwd: return (double)(t[5].dim[1] + t[7].dim[1] + 3 * t[5].dim[2]);
    case OP_image_update_bwd: return count(t[7]) / (double)t[7].dim[2] + (double)(t[10].dim[1] + 4 * t[8].dim[2]);
    case OP_conv_bwd: return count(t[3]) / (double)t[3].dim[3] + count(t[5]) / (double)t[5].dim[1];
    case OP_conv_transpose_bwd: return count(t[3]) / (double)t[3].dim[3] + count(t[5]) / (double)t[5].dim[0];
    case OP_roi_align_bwd: return (double)t[1].dim[0] * 64;
    case OP_mask_loss_fwd:
    case OP_mask_loss_bwd: return (double)t[3].dim[1];
    case OP_sum_squares: return count(t[1]);
    default: return 1;
    }
}
/* Products of a backward op, those of its forward op counted anew included. */
double op_flops(op_id op, const tensor *t, const op_options *o)
{
    switch (op) {
    case OP_linear_fwd:
    case OP_matmul_fwd: return 2 * count(t[0]) * op_sum_length(op, t, o);
    case OP_attention_fwd: return 4 * count(t[0]) * (double)t[3].dim[1];
    case OP_relpos_attention_fwd: {
        double keys = o->relpos.window ? o->relpos.window * o->relpos.window : (double)(t[0].dim[1] * t[0].dim[2]);
        return 4 * count(t[0]) * keys;
    }
    case OP_image_pool_fwd: return 4 * count(t[0]) * (double)t[2].dim[1];
    case OP_image_update_fwd: return 4 * count(t[0]) * (double)t[3].dim[1];
    case OP_conv_fwd: return 2 * count(t[0]) * op_sum_length(op, t, o);
    case OP_conv_transpose_fwd: return 2 * count(t[0]) * (double)t[2].dim[0];
    case OP_linear_bwd: {
        double one = 2 * count(t[3]) * (double)(tensor_given(t[0]) ? t[0] : t[4]).dim[1];
        return one * (tensor_given(t[0]) + tensor_given(t[1]));
    }
    case OP_matmul_bwd: return 4 * count(t[2]) * (double)t[3].dim[t[3].ndim - 1];
    case OP_attention_bwd: return 10 * count(t[6]) * (double)t[7].dim[1];
    case OP_relpos_attention_bwd: {
        double keys = o->relpos.window ? o->relpos.window * o->relpos.window : (double)(t[4].dim[1] * t[4].dim[2]);
        return 10 * count(t[4]) * keys;
    }
    case OP_image_pool_bwd: return 10 * count(t[2]) * (double)t[5].dim[1];
    case OP_image_update_bwd: return 12 * count(t[7]) * (double)t[10].dim[1];
    case OP_conv_bwd: return 4 * count(t[3]) * count(t[5]) / (double)t[5].dim[0];
    case OP_conv_transpose_bwd: return 4 * count(t[3]) * (double)t[5].dim[0];
    default: return 0;
    }
}

void op_options_text(op_id op, const op_options *o, char *text, size_t bytes)
{
    text[0] = 0;
    switch (op) {
    case OP_linear_bwd: snprintf(text, bytes, "in_out %d", o->in_out); break;
    case OP_matmul_bwd:
        snprintf(text, bytes, "alpha %g trans_b %d add %d", (double)o->matmul.alpha, o->matmul.trans_b, o->add);
        break;
    case OP_sum:
    case OP_sum_squares: snprintf(text, bytes, "add %d", o->add); break;
    case OP_roi_align_fwd:
    case OP_roi_align_bwd: snprintf(text, bytes, "scale %g", (double)o->scale); break;
    case OP_dropout:
        snprintf(text, bytes, "rate %g key %llu first %d", (double)o->drop.rate, (unsigned long long)o->drop.key,
                 (int)o->drop.first);
        break;
    case OP_adamw:
        snprintf(text, bytes, "rate %g decay %g scale %g step %d", o->adamw.rate, o->adamw.decay, o->adamw.scale,
                 (int)o->adamw.step);
        break;
    case OP_linear_fwd: snprintf(text, bytes, "act %d in_out %d", o->linear.act, o->linear.in_out); break;
    case OP_pack: snprintf(text, bytes, "in_out %d", o->in_out); break;
    case OP_matmul_fwd:
        snprintf(text, bytes, "alpha %g trans_b %d", (double)o->matmul.alpha, o->matmul.trans_b);
        break;
    case OP_layernorm_fwd:
    case OP_rmsnorm_fwd: snprintf(text, bytes, "eps %g", (double)o->eps); break;
    case OP_activation_bwd:
    case OP_activation_fwd: snprintf(text, bytes, "act %d", o->act); break;
    case OP_fill: snprintf(text, bytes, "value %g", o->value); break;
    case OP_rope_bwd:
    case OP_rope_fwd: snprintf(text, bytes, "first %d theta %g", (int)o->rope.first, (double)o->rope.theta); break;
    case OP_attention_bwd:
    case OP_attention_fwd:
        snprintf(text, bytes, "scale %g causal %d", (double)o->attention.scale, o->attention.causal);
        if (o->attention.drop.rate > 0)
            snprintf(text + strlen(text), bytes - strlen(text), " drop %g", (double)o->attention.drop.rate);
        break;
    case OP_relpos_attention_bwd:
    case OP_relpos_attention_fwd:
        snprintf(text, bytes, "scale %g heads %d window %d", (double)o->relpos.scale, o->relpos.heads,
                 o->relpos.window);
        break;
    case OP_image_update_bwd:
    case OP_image_update_fwd:
        snprintf(text, bytes, "heads %d eps %g", o->update.heads, (double)o->update.eps);
        break;
    case OP_conv_bwd:
    case OP_conv_fwd:
        snprintf(text, bytes, "stride %d pad %d act %d", o->conv.stride, o->conv.pad, o->conv.act);
        break;
    case OP_threshold_fwd: snprintf(text, bytes, "t %g", (double)o->limit); break;
    case OP_sample_fwd:
        snprintf(text, bytes, "temperature %g top_k %d top_p %g", (double)o->sample.temperature, o->sample.top_k,
                 (double)o->sample.top_p);
        break;
    case OP_cross_entropy_bwd:
    case OP_cross_entropy_fwd: snprintf(text, bytes, "smoothing %g", (double)o->smoothing); break;
    default: break;
    }
}

/* ---- the cases ------------------------------------------------------------------------------------------------ */

#define NO_OPTIONS .o = { .eps = 0 }
#define LINEAR(act_, in_out_) .o = { .linear = { .act = act_, .in_out = in_out_ } }
#define MATMUL(alpha_, trans_b_) .o = { .matmul = { .alpha = alpha_, .trans_b = trans_b_ } }
#define ATTENTION(scale_, causal_) .o = { .attention = { .scale = scale_, .causal = causal_ } }
#define RELPOS(scale_, heads_, window_) .o = { .relpos = { .scale = scale_, .heads = heads_, .window = window_ } }
#define UPDATE(heads_) .o = { .update = { .heads = heads_, .eps = 1e-6f } }
#define CONV(stride_, pad_, act_) .o = { .conv = { .stride = stride_, .pad = pad_, .act = act_ } }
#define SAMPLE(temperature_, top_k_, top_p_)                                                                       \
    .o = { .sample = { .temperature = temperature_, .top_k = top_k_, .top_p = top_p_ } }
#define DROP(rate_, key_, first_)                                                                                  \
    {                                                                                                              \
        .rate = rate_, .key = key_, .first = first_                                                                \
    }
#define ADAMW(rate_, decay_, scale_, step_)                                                                        \
    .o = { .adamw = { .rate = rate_,                                                                               \
                      .beta1 = 0.9,                                                                                \
                      .beta2 = 0.999,                                                                              \
                      .eps = 1e-8,                                                                                 \
                      .decay = decay_,                                                                             \
                      .scale = scale_,                                                                             \
                      .step = step_ } }
#define ROPE(first_, theta_) .o = { .rope = { .first = first_, .theta = theta_ } }

/* clang-format off */
const op_case op_cases[] = {
    /* y x w b r */
    { OP_linear_fwd, "A1x1 A1x1 W1x1/p P1 -", LINEAR(ACT_NONE, false) },
    { OP_linear_fwd, "A1x1 A1x1 W1x1/p - A1x1", LINEAR(ACT_NONE, true) },
    { OP_linear_fwd, "A3x17 A3x129 W17x129/p P17 -", LINEAR(ACT_GELU, false) },
    { OP_linear_fwd, "A17x3 A17x1 W3x1/p - -", LINEAR(ACT_NONE, false) },
    { OP_linear_fwd, "A129x17 A129x3 W3x17/p P17 -", LINEAR(ACT_GELU_TANH, true) },
    { OP_linear_fwd, "A129x129 A129x129 W129x129/p P129 A129x129", LINEAR(ACT_NONE, false) },
    { OP_linear_fwd, "@r A17x129 W33x129/p P33 A17x33", LINEAR(ACT_NONE, false) },
    { OP_linear_fwd, "@r A17x129/s W129x33/p - A17x33/s", LINEAR(ACT_NONE, true) },
    { OP_linear_fwd, "A17x33/s A17x129/s W33x129/ps P33/s A17x33/s", LINEAR(ACT_RELU, false) },
    { OP_linear_fwd, "A17x33/s A17x129/s W129x33/ps P33/s -", LINEAR(ACT_RELU, true) },
    { OP_linear_fwd, "A5x24 A5x12 W24x3x2x2/p P24 -", LINEAR(ACT_NONE, false) },
    { OP_linear_fwd, "A5x24 A5x7 W7x6x2x2/p - -", LINEAR(ACT_NONE, true) },
    { OP_linear_fwd, "A1x257 A1x300 W257x300/p P257 -", LINEAR(ACT_NONE, false) },
    { OP_linear_fwd, "A2x257 A2x300 W300x257/p P257 -", LINEAR(ACT_NONE, true) },
    { OP_linear_fwd, "A196x96 A196x64 W96x64/p P96 -", LINEAR(ACT_GELU, false) },
    { OP_linear_fwd, "A16x512 A16x256 W512x256/p P512 -", LINEAR(ACT_RELU, false) },
    { OP_linear_fwd, "A48x700 A48x640 W640x700/p P700 -", LINEAR(ACT_GELU_TANH, true) },
    { OP_linear_fwd, "A7x2100 A7x320 W2100x320/p - -", LINEAR(ACT_NONE, false) },
    { OP_linear_fwd, "A65x64 A65x1100 W64x1100/p P64 A65x64", LINEAR(ACT_NONE, false) },
    { OP_linear_fwd, "A300x40 A300x5 W40x5/p P40 -", LINEAR(ACT_NONE, false) },

    /* y w; run through op_linear_fwd with a unit matrix */
    { OP_pack, "W1x1 W1x1", .o.in_out = false },
    { OP_pack, "W17x129 W17x129", .o.in_out = false },
    { OP_pack, "W129x17 W129x17", .o.in_out = true },
    { OP_pack, "W33x64 W33x64/s", .o.in_out = false },
    { OP_pack, "W64x100 W64x100/s", .o.in_out = true },
    { OP_pack, "W24x3x2x2 W24x3x2x2", .o.in_out = false },
    { OP_pack, "W6x5x2x2 W6x5x2x2", .o.in_out = true },

    /* y a b */
    { OP_matmul_fwd, "A1x1 A1x1 A1x1", MATMUL(1, false) },
    { OP_matmul_fwd, "A3x17 A3x129 A129x17", MATMUL(0.5f, false) },
    { OP_matmul_fwd, "A3x17 A3x129 A17x129", MATMUL(-2, true) },
    { OP_matmul_fwd, "A129x3 A129x1 A1x3", MATMUL(1, false) },
    { OP_matmul_fwd, "A17x33 A17x20 W20x33", MATMUL(1, false) },
    { OP_matmul_fwd, "A17x33 A17x20 W33x20", MATMUL(1, true) },
    { OP_matmul_fwd, "A3x17x5 A3x17x7 A3x7x5", MATMUL(1, false) },
    { OP_matmul_fwd, "A3x17x5/s A3x17x7/s A3x5x7/s", MATMUL(0.25f, true) },
    { OP_matmul_fwd, "A4x7x9 A4x7x16 W4x9x16/r", MATMUL(1, true) },
    { OP_matmul_fwd, "A4x7x9 A4x7x16 A4x16x9/r", MATMUL(1, false) },
    { OP_matmul_fwd, "A2x3x7x9 A2x3x7x5 A2x3x5x9", MATMUL(1, false) },
    { OP_matmul_fwd, "A2x3x7x9/ts A2x3x7x5/ts A2x3x9x5/ts", MATMUL(0.7f, true) },
    { OP_matmul_fwd, "A2x8x15x64/t A2x8x15x16/t W2x8x16x64/r", MATMUL(0.25f, false) },
    { OP_matmul_fwd, "A2x4x1024 A2x4x32 A2x1024x32", MATMUL(1, true) },
    { OP_matmul_fwd, "A2x4x300 A2x4x32 A2x32x300", MATMUL(1, false) },

    /* y mean rstd x w b */
    { OP_layernorm_fwd, "A1x1 F1 F1 A1x1 P1 P1", .o.eps = 1e-5f },
    { OP_layernorm_fwd, "A1x3 - - A1x3 P3 P3", .o.eps = 1e-6f },
    { OP_layernorm_fwd, "A17x129 F17 F17 A17x129 P129 P129", .o.eps = 1e-5f },
    { OP_layernorm_fwd, "A129x17/s F129/s - A129x17/s P17/s P17/s", .o.eps = 1e-6f },
    { OP_layernorm_fwd, "@x - F129 A129x64 P64 P64", .o.eps = 1e-5f },
    { OP_layernorm_fwd, "@x - - A17x40/s P40 P40", .o.eps = 1e-5f },
    { OP_layernorm_fwd, "A33x768 - - A33x768/b P768 P768", .o.eps = 1e-6f },
    { OP_layernorm_fwd, "A7x1280 F7 F7 A7x1280 P1280 P1280", .o.eps = 1e-6f },

    /* y rstd x w */
    { OP_rmsnorm_fwd, "A1x1 F1 A1x1 P1", .o.eps = 1e-6f },
    { OP_rmsnorm_fwd, "A17x129 - A17x129 P129", .o.eps = 1e-6f },
    { OP_rmsnorm_fwd, "A129x17/s F129/s A129x17/s P17/s", .o.eps = 1e-5f },
    { OP_rmsnorm_fwd, "@x F3 A3x100 P100", .o.eps = 1e-6f },
    { OP_rmsnorm_fwd, "@x - A17x40/s P40", .o.eps = 1e-6f },
    { OP_rmsnorm_fwd, "A5x3200 - A5x3200 P3200", .o.eps = 1e-6f },

    /* y x */
    { OP_activation_fwd, "A1 A1", .o.act = ACT_GELU },
    { OP_activation_fwd, "A17x129 A17x129/b", .o.act = ACT_GELU },
    { OP_activation_fwd, "A17x129/s A17x129/s", .o.act = ACT_GELU },
    { OP_activation_fwd, "A3x17x129 A3x17x129/b", .o.act = ACT_GELU_TANH },
    { OP_activation_fwd, "A2x3x17x5/ts A2x3x17x5/s", .o.act = ACT_GELU_TANH },
    { OP_activation_fwd, "@x A129x17", .o.act = ACT_RELU },
    { OP_activation_fwd, "A129x17 A129x17/s", .o.act = ACT_RELU },
    { OP_activation_fwd, "A7x3 A7x3", .o.act = ACT_NONE },
    { OP_activation_fwd, "@x A1x40000", .o.act = ACT_GELU },

    /* y x u */
    { OP_silu_mul_fwd, "A1x1 A1x1 A1x1", NO_OPTIONS },
    { OP_silu_mul_fwd, "A17x129 A17x129/b A17x129", NO_OPTIONS },
    { OP_silu_mul_fwd, "A17x129/s A17x129/s A17x129/s", NO_OPTIONS },
    { OP_silu_mul_fwd, "@x A129x17/s A129x17", NO_OPTIONS },
    { OP_silu_mul_fwd, "@x A5x8640 A5x8640", NO_OPTIONS },

    /* y a b */
    { OP_add_fwd, "A1 A1 A1", NO_OPTIONS },
    { OP_add_fwd, "A17x129 A17x129 A17x129", NO_OPTIONS },
    { OP_add_fwd, "A17x129/s A17x129/s W17x129/r", NO_OPTIONS },
    { OP_add_fwd, "A17x129 P17x129/r A17x129", NO_OPTIONS },
    { OP_add_fwd, "A3x17x5 A3x17x5 A3x17x5/r", NO_OPTIONS },
    { OP_add_fwd, "A2x3x17x5/ts A2x3x17x5/t A2x3x17x5/rs", NO_OPTIONS },
    { OP_add_fwd, "@a A129x17 W129x17", NO_OPTIONS },
    { OP_add_fwd, "@b A129x17 A129x17/s", NO_OPTIONS },
    { OP_add_fwd, "@a A3x64x64 P3x64x64/r", NO_OPTIONS },

    /* y x */
    { OP_copy, "A1 A1", NO_OPTIONS },
    { OP_copy, "A17x129 A17x129/s", NO_OPTIONS },
    { OP_copy, "A3x17x5/s A3x17x5/r", NO_OPTIONS },
    { OP_copy, "A2x3x17x5 A2x3x17x5/t", NO_OPTIONS },
    { OP_copy, "A2x3x17x5/ts A2x3x17x5/s", NO_OPTIONS },
    { OP_copy, "A17x33 W17x33", NO_OPTIONS },
    { OP_copy, "W17x33 A17x33", NO_OPTIONS },
    { OP_copy, "f17x33 h17x33", NO_OPTIONS },
    { OP_copy, "f17x33 g17x33/s", NO_OPTIONS },
    { OP_copy, "h17x33 g17x33", NO_OPTIONS },
    { OP_copy, "g17x33/s h17x33", NO_OPTIONS },
    { OP_copy, "g129 f129/b", NO_OPTIONS },
    { OP_copy, "h129 f129", NO_OPTIONS },
    { OP_copy, "I3x17/s I3x17", NO_OPTIONS },
    { OP_copy, "U3x17 U3x17/s", NO_OPTIONS },

    /* y */
    { OP_fill, "A1", .o.value = 0 },
    { OP_fill, "A3x17x5/s", .o.value = -1.25 },
    { OP_fill, "h2x3x17x5/t", .o.value = 0.1 },
    { OP_fill, "g129", .o.value = 0.1 },
    { OP_fill, "F17x129", .o.value = 1e-7 },
    { OP_fill, "I17x3/s", .o.value = -100 },

    /* y table ids */
    { OP_embedding_fwd, "A1x1 W1x1/p I1", NO_OPTIONS },
    { OP_embedding_fwd, "A17x129 W33x129/p I17", NO_OPTIONS },
    { OP_embedding_fwd, "A129x17/s W3x17/ps I129/s", NO_OPTIONS },
    { OP_embedding_fwd, "A19x768 W100x768/p I19", NO_OPTIONS },

    /* y x at */
    { OP_place, "+A1x1x1 A1x1 I1", NO_OPTIONS },
    { OP_place, "+A3x17x5 A3x5 I3", NO_OPTIONS },
    { OP_place, "+A5x9x129/s A5x129/s I5/s", NO_OPTIONS },
    { OP_place, "+A16x33x768 A16x768 I16", NO_OPTIONS },

    /* y x at */
    { OP_rope_fwd, "A1x1x1x2 A1x1x1x2 -", ROPE(0, 10000) },
    { OP_rope_fwd, "A3x17x5x6 A3x17x5x6 -", ROPE(3, 10000) },
    { OP_rope_fwd, "A3x17x5x10/s A3x17x5x10/s -", ROPE(0, 500000) },
    { OP_rope_fwd, "@x A2x9x4x100 -", ROPE(129, 10000) },
    { OP_rope_fwd, "@x A2x1x3x64/s -", ROPE(27, 10000) },
    { OP_rope_fwd, "@x A5x1x3x64/s I5", ROPE(0, 10000) },
    { OP_rope_fwd, "A3x4x2x6 A3x4x2x6 I3/s", ROPE(2, 10000) },

    /* y lse q k v index */
    { OP_attention_fwd, "A1x1x1x1 F1x1x1 A1x1x1x1 A1x1x1x1 A1x1x1x1 -", ATTENTION(1, false) },
    { OP_attention_fwd, "A1x3x1x4 - A1x3x1x4 A1x17x1x4 A1x17x1x4 -", ATTENTION(0.5f, false) },
    { OP_attention_fwd, "A3x17x2x6 F3x2x17 A3x17x2x6 A3x17x2x6 A3x17x2x6 -", ATTENTION(0.41f, true) },
    { OP_attention_fwd, "A2x3x4x8 F2x4x3 A2x3x4x8 A2x17x4x8 A2x17x4x8 -", ATTENTION(0.35f, true) },
    { OP_attention_fwd, "A2x129x3x12 - A2x129x3x12 A2x129x3x12 A2x129x3x12 -", ATTENTION(0.29f, false) },
    { OP_attention_fwd, "A2x15x8x16 - A2x15x8x16 A2x15x8x16 A2x15x8x16 -", ATTENTION(0.25f, false) },
    { OP_attention_fwd, "A2x15x8x32/s - A2x15x8x32/s A2x15x8x32/s A2x15x8x32/s -", ATTENTION(0.18f, false) },
    { OP_attention_fwd, "A2x19x4x64/t F2x4x19/s A2x19x4x64/t A2x27x4x64/ts A2x27x4x64/ts -", ATTENTION(0.125f, true) },
    { OP_attention_fwd, "A1x33x2x80 F1x2x33 A1x33x2x80 A1x33x2x80 A1x33x2x80 -", ATTENTION(0.11f, false) },
    { OP_attention_fwd, "A2x5x4x100 - A2x5x4x100 A2x9x2x100 A2x9x2x100 -", ATTENTION(0.1f, true) },
    { OP_attention_fwd, "A2x7x6x128 F2x6x7 A2x7x6x128 A2x7x1x128 A2x7x1x128 -", ATTENTION(0.088f, true) },
    { OP_attention_fwd, "A3x1x9x64 F3x9x1 A3x1x9x64 A3x33x3x64/s A3x33x3x64/s -", ATTENTION(0.125f, true) },
    { OP_attention_fwd, "A6x1x4x16 F6x4x1 A6x1x4x16 A6x20x4x16 A6x20x4x16 I6x20", ATTENTION(0.25f, true) },
    { OP_attention_fwd, "A6x1x4x64 - A6x1x4x64 A2x20x2x64/s A2x20x2x64/s I6x20/s", ATTENTION(0.125f, true) },
    { OP_attention_fwd, "A6x1x4x16 F6x4x1 A6x1x4x16 A6x20x4x16 A6x20x4x16 I6x20/e", ATTENTION(0.25f, true) },
    { OP_attention_fwd, "A5x1x4x64 - A5x1x4x64 A2x133x2x64/s A2x133x2x64/s I5x133/se", ATTENTION(0.125f, true) },
    { OP_attention_fwd, "A3x1x2x129 F3x2x1 A3x1x2x129 A3x70x2x129 A3x70x2x129 I3x70/e", ATTENTION(0.09f, false) },
    { OP_attention_fwd, "A3x5x2x8 - A3x5x2x8 A4x9x2x8/t A4x9x2x8/t I3x9", ATTENTION(0.35f, true) },
    { OP_attention_fwd, "A2x5x2x16 F2x2x5 A2x5x2x16/b A2x17x2x16/b A2x17x2x16 -", ATTENTION(0.25f, false) },
    { OP_attention_fwd, "A1x300x2x32 F1x2x300 A1x300x2x32 A1x300x2x32 A1x300x2x32 -", ATTENTION(0.18f, true) },
    { OP_attention_fwd, "A1x7x8x16 - A1x7x8x16 A1x1024x8x16 A1x1024x8x16 -", ATTENTION(0.25f, false) },
    { OP_attention_fwd, "A1x257x2x16 - A1x257x2x16 A1x7x2x16 A1x7x2x16 -", ATTENTION(0.25f, false) },

    /* y lse qkv pad rel_h rel_w */
    { OP_relpos_attention_fwd, "A1x1x1x1 F1x1x1x1 A1x1x1x3 P3/q P1x1 P1x1", RELPOS(1, 1, 0) },
    { OP_relpos_attention_fwd, "A1x1x1x4 - A1x1x1x12 P12/q P3x2 P3x2", RELPOS(0.7f, 2, 2) },
    { OP_relpos_attention_fwd, "A2x3x5x12 F2x2x3x5 A2x3x5x36 - P5x6 P9x6", RELPOS(0.41f, 2, 0) },
    { OP_relpos_attention_fwd, "A2x3x5x12 - A2x3x5x36 - - -", RELPOS(0.41f, 2, 0) },
    { OP_relpos_attention_fwd, "A2x7x9x16 F2x2x7x9 A2x7x9x48 P48/q P7x8 P7x8", RELPOS(0.35f, 2, 4) },
    { OP_relpos_attention_fwd, "A1x7x9x16/s F1x2x7x9/s A1x7x9x48/s P48/q P7x8/s P7x8/s", RELPOS(0.35f, 2, 4) },
    { OP_relpos_attention_fwd, "A2x7x9x16 - A2x7x9x48 - P7x8 P7x8", RELPOS(0.35f, 2, 4) },
    { OP_relpos_attention_fwd, "A2x7x9x8 - A2x7x9x24 P24/q - -", RELPOS(0.5f, 2, 3) },
    { OP_relpos_attention_fwd, "A1x8x8x24 F1x2x8x8 A1x8x8x72 P72/q P7x12 P7x12", RELPOS(0.29f, 2, 4) },
    { OP_relpos_attention_fwd, "A1x20x20x64 - A1x20x20x192 P192/q P27x64 P27x64", RELPOS(0.125f, 1, 14) },
    { OP_relpos_attention_fwd, "A1x16x16x160 F1x2x16x16 A1x16x16x480 P480/q P27x80 P27x80", RELPOS(0.11f, 2, 14) },
    { OP_relpos_attention_fwd, "A1x16x20x64 F1x2x16x20 A1x16x20x192 P192/q P31x32 P39x32", RELPOS(0.18f, 2, 0) },
    { OP_relpos_attention_fwd, "A1x20x20x64 - A1x20x20x192 - P39x64 P39x64", RELPOS(0.125f, 1, 0) },
    /* maps as wide as SAM's: a block of 64 keys is a row of them */
    { OP_relpos_attention_fwd, "A1x3x64x64 F1x1x3x64 A1x3x64x192 P192/q P5x64 P127x64", RELPOS(0.125f, 1, 0) },
    { OP_relpos_attention_fwd, "A1x2x64x160 - A1x2x64x480 - P3x80 P127x80", RELPOS(0.11f, 2, 0) },
    { OP_relpos_attention_fwd, "A1x9x9x80 - A1x9x9x240/b P240/q P17x80 P17x80", RELPOS(0.11f, 1, 0),
      .loosen = 4, .why = "scores of hundreds: their rounding passes through the exponential" },

    /* y lse x pe a */
    { OP_image_pool_fwd, "A1x1x1 F1x1 A1x1x1 A1x1 A1x1x1", NO_OPTIONS },
    { OP_image_pool_fwd, "A3x17x12 F3x17 A3x129x12 A129x12 A3x17x12/o", NO_OPTIONS },
    { OP_image_pool_fwd, "A3x17x12/s - A3x129x12/rs A129x12/s A3x17x12/os", NO_OPTIONS },
    { OP_image_pool_fwd, "A2x56x32 - A2x256x32/r A256x32 A2x56x32/o", NO_OPTIONS },
    { OP_image_pool_fwd, "A2x120x64 F2x120 A2x400x64 A400x64 A2x120x64/o", NO_OPTIONS },
    { OP_image_pool_fwd, "A1x5x256 - A1x70x256 A70x256 A1x5x256/o", NO_OPTIONS },

    /* y x pe k kb v vb w b */
    { OP_image_update_fwd, "A1x1x2 A1x1x2 A1x2 A1x1x2 A1x1 A1x1x2 P2 P2 P2", UPDATE(1) },
    { OP_image_update_fwd, "A3x129x12 A3x129x12 A129x12 A3x18x12/o A3x18 A3x18x12 P12 P12 P12", UPDATE(2) },
    { OP_image_update_fwd, "A3x129x12/s A3x129x12/rs A129x12/s A3x15x12/os A3x15/s A3x15x12/s P12 P12 P12", UPDATE(3) },
    { OP_image_update_fwd, "@x A2x33x32 A33x32 A2x56x32/o A2x56 A2x56x32 P32 P32 P32", UPDATE(8) },
    { OP_image_update_fwd, "@x A1x17x64/s A17x64 A1x120x64/o A1x120 A1x120x64 P64 P64 P64", UPDATE(8) },
    { OP_image_update_fwd, "A1x70x256 A1x70x256 A70x256 A1x40x256/o A1x40 A1x40x256 P256 P256 P256", UPDATE(8) },

    /* y x w b */
    { OP_conv_fwd, "A1x1x1x1 A1x1x1x1 W1x1x1x1/p P1", CONV(1, 0, ACT_NONE) },
    { OP_conv_fwd, "A2x5x7x3 A2x5x7x5 W3x5x1x1/p -", CONV(1, 0, ACT_NONE) },
    { OP_conv_fwd, "A2x5x7x17 A2x5x7x6 W17x6x3x3/p P17", CONV(1, 1, ACT_GELU) },
    { OP_conv_fwd, "A1x4x3x5 A1x9x7x2 W5x2x3x2/p P5", CONV(2, 0, ACT_RELU) },
    { OP_conv_fwd, "A1x3x3x33/s A1x9x9x3/s W33x3x3x3/p P33", CONV(3, 0, ACT_NONE) },
    { OP_conv_fwd, "A1x5x4x8/s A1x10x8x1/s W8x1x2x2/p P8", CONV(2, 0, ACT_NONE) },
    { OP_conv_fwd, "A1x4x4x64 A1x64x64x3 W64x3x16x16/p P64", CONV(16, 0, ACT_NONE) },
    { OP_conv_fwd, "A1x20x20x32 A1x20x20x32 W32x32x3x3/p -", CONV(1, 1, ACT_NONE) },
    { OP_conv_fwd, "A2x16x16x40 A2x16x16x64 W40x64x1x1/p -", CONV(1, 0, ACT_NONE) },
    { OP_conv_fwd, "A1x3x3x2 A1x4x5x3 W2x3x4x4/p P2", CONV(2, 2, ACT_NONE) },

    /* y x w b */
    { OP_conv_transpose_fwd, "A1x1x1x1 A1x1x1x1 W1x1x1x1/p P1", NO_OPTIONS },
    { OP_conv_transpose_fwd, "A2x6x10x3 A2x3x5x17 W17x3x2x2/p P3", NO_OPTIONS },
    { OP_conv_transpose_fwd, "A2x9x15x4/s A2x3x5x6/s W6x4x3x3/p -", NO_OPTIONS },
    { OP_conv_transpose_fwd, "A1x32x32x16 A1x16x16x64 W64x16x2x2/p P16", NO_OPTIONS },

    /* y c g */
    { OP_fourier_fwd, "A1x2 F1x2/o P2x1", NO_OPTIONS },
    { OP_fourier_fwd, "A17x34/s F17x2/os P2x17/s", NO_OPTIONS },
    { OP_fourier_fwd, "A129x256 F129x2/o P2x128", NO_OPTIONS },

    /* y x */
    { OP_resize_fwd, "A1x1x1 A1x1x1", NO_OPTIONS },
    { OP_resize_fwd, "A3x17x5 A3x1x1", NO_OPTIONS },
    { OP_resize_fwd, "A2x7x9 A2x7x9", NO_OPTIONS },
    { OP_resize_fwd, "A2x64x64 A2x16x16", NO_OPTIONS },
    { OP_resize_fwd, "A2x5x3 A2x17x129", NO_OPTIONS },
    { OP_resize_fwd, "A2x33x50/s A2x16x21/s", NO_OPTIONS },

    /* y x */
    { OP_threshold_fwd, "U1 A1", .o.limit = 0 },
    { OP_threshold_fwd, "U3x17x5/s A3x17x5/s", .o.limit = 0.3f },
    { OP_threshold_fwd, "U17x129 A17x129/q", .o.limit = 0.5f },
    { OP_threshold_fwd, "U2x3x4x100 A2x3x4x100/q", .o.limit = 0 },

    /* y x */
    { OP_log_softmax_fwd, "F1x1 A1x1", NO_OPTIONS },
    { OP_log_softmax_fwd, "F17x129 A17x129/b", NO_OPTIONS },
    { OP_log_softmax_fwd, "F3x17/s A3x17/s", NO_OPTIONS },
    { OP_log_softmax_fwd, "F5x3000 A5x3000", NO_OPTIONS },

    /* index value x */
    { OP_argmax_fwd, "I1 F1 A1x1", NO_OPTIONS },
    { OP_argmax_fwd, "I17 F17 A17x129/q", NO_OPTIONS },
    { OP_argmax_fwd, "I17/s - A17x3/sq", NO_OPTIONS },
    { OP_argmax_fwd, "I5 F5 F5x3000", NO_OPTIONS },
    { OP_argmax_fwd, "I5 F5 A5x129/qn", NO_OPTIONS },
    { OP_argmax_fwd, "I1 - A1x1/n", NO_OPTIONS },

    /* value index x */
    { OP_topk_fwd, "F1x1 I1x1 A1x1", NO_OPTIONS },
    { OP_topk_fwd, "F17x6 I17x6 A17x129/q", NO_OPTIONS },
    { OP_topk_fwd, "F3x17/s I3x17/s A3x17/sq", NO_OPTIONS },
    { OP_topk_fwd, "F5x8 I5x8 F5x3000", NO_OPTIONS },
    { OP_topk_fwd, "F2x128 I2x128 F2x1000", NO_OPTIONS },
    { OP_topk_fwd, "F5x9 I5x9 A5x129/qn", NO_OPTIONS },
    { OP_topk_fwd, "F3x100 I3x100 A3x160/n", NO_OPTIONS },

    /* index x u */
    { OP_sample_fwd, "I1 A1x1 F1/u", SAMPLE(1, 0, 1) },
    { OP_sample_fwd, "I129 A129x17 F129/u", SAMPLE(1, 0, 1) },
    { OP_sample_fwd, "I129 A129x17 F129/u", SAMPLE(0.7f, 5, 1) },
    { OP_sample_fwd, "I129/s A129x33/s F129/us", SAMPLE(1.3f, 0, 0.8f) },
    { OP_sample_fwd, "I129 A129x33 F129/u", SAMPLE(0.9f, 20, 0.6f) },
    { OP_sample_fwd, "I17 A17x33/q F17/u", SAMPLE(1, 4, 1) },
    { OP_sample_fwd, "I17 A17x1000/b F17/u", SAMPLE(1, 100, 0.95f) },

    /* loss lse x label */
    { OP_cross_entropy_fwd, "F1 F1 A1x1 I1", .o.smoothing = 0 },
    { OP_cross_entropy_fwd, "F17 F17 A17x129/b I17", .o.smoothing = 0 },
    { OP_cross_entropy_fwd, "F17/s - A17x129/s I17/s", .o.smoothing = 0.1f },
    { OP_cross_entropy_fwd, "F5 F5 A5x3000 I5", .o.smoothing = 0.1f },

    /* y x boxes index */
    { OP_roi_align_fwd, "A1x1x1x1 A1x1x1x1 F1x4/x -", .o.scale = 0.0625f },
    { OP_roi_align_fwd, "A5x6x6x17 A1x16x12x17 F5x4/x -", .o.scale = 0.15f },
    { OP_roi_align_fwd, "A7x3x2x8/s A3x9x14x8/s F7x4/xs I7", .o.scale = 0.25f },
    { OP_roi_align_fwd, "A2x1x4x33 A2x100x100x33 F2x4/x I2/s", .o.scale = 1 },

#include "op_cases_train.inc"
};
const size_t n_op_cases = LENGTH(op_cases);

/* The sizes of the models: one ViT-B image, 16 regions, GPT-2 large. */
const op_case op_timed[] = {
    { OP_linear_fwd, "A4096x2304 A4096x768 W2304x768/p P2304 -", LINEAR(ACT_NONE, false), "ViT-B qkv" },
    { OP_linear_fwd, "@r A4096x768 W768x768/p P768 A4096x768", LINEAR(ACT_NONE, false), "ViT-B proj" },
    { OP_linear_fwd, "A4096x3072 A4096x768 W3072x768/p P3072 -", LINEAR(ACT_GELU, false), "ViT-B fc1" },
    { OP_linear_fwd, "@r A4096x3072 W768x3072/p P768 A4096x768", LINEAR(ACT_NONE, false), "ViT-B fc2" },
    { OP_linear_fwd, "A4096x5120 A4096x1280 W5120x1280/p P5120 -", LINEAR(ACT_GELU, false), "ViT-H fc1" },
    { OP_linear_fwd, "@r A4096x5120 W1280x5120/p P1280 A4096x1280", LINEAR(ACT_NONE, false), "ViT-H fc2" },
    { OP_linear_fwd, "A240x2048 A240x256 W2048x256/p P2048 -", LINEAR(ACT_RELU, false), "mixer mlp, 16 regions" },
    { OP_linear_fwd, "A1x3840 A1x1280 W1280x3840/p P3840 -", LINEAR(ACT_NONE, true), "GPT-2 large qkv, 1 token" },
    { OP_linear_fwd, "A16x3840 A16x1280 W1280x3840/p P3840 -", LINEAR(ACT_NONE, true), "GPT-2 large qkv, 16 tokens" },
    { OP_linear_fwd, "A1x50257 A1x1280 W50257x1280/p - -", LINEAR(ACT_NONE, false), "GPT-2 large head, 1 token" },
    { OP_linear_fwd, "A16x50257 A16x1280 W50257x1280/p - -", LINEAR(ACT_NONE, false), "GPT-2 large head, 16 tokens" },
    { OP_matmul_fwd, "A1x4x65536 A1x4x32 A1x65536x32", MATMUL(1, true), "masks of one region" },
    { OP_layernorm_fwd, "A4096x768 - - A4096x768 P768 P768", .o.eps = 1e-6f, .label = "ViT-B norm" },
    { OP_rmsnorm_fwd, "A256x3200 - A256x3200 P3200", .o.eps = 1e-6f, .label = "LLaMA 3B norm" },
    { OP_activation_fwd, "A4096x3072 A4096x3072", .o.act = ACT_GELU, .label = "ViT-B gelu" },
    { OP_silu_mul_fwd, "A256x8640 A256x8640 A256x8640", .label = "LLaMA 3B gate" },
    { OP_add_fwd, "A16x4096x256 A16x4096x256/r A16x4096x256", .label = "position code, 16 regions" },
    { OP_copy, "A16x4096x256 A16x4096x256", .label = "image tokens, 16 regions" },
    { OP_fill, "A16x4096x256", .o.value = 0, .label = "image tokens, 16 regions" },
    { OP_embedding_fwd, "A304x1280 W50257x1280 I304", .label = "GPT-2 large tokens" },
    { OP_rope_fwd, "@x A16x27x32x100 -", ROPE(0, 10000), "LLaMA 3B prompt" },
    { OP_attention_fwd, "A16x15x8x32 - A16x15x8x32 A16x15x8x32 A16x15x8x32 -", ATTENTION(0.18f, false), "mixer tokens" },
    { OP_attention_fwd, "A16x8x20x64 - A16x8x20x64 A16x8x20x64 A16x8x20x64 -", ATTENTION(0.125f, true), "GPT-2 large prompt" },
    { OP_attention_fwd, "A16x1x20x64 - A16x1x20x64 A16x27x20x64 A16x27x20x64 -", ATTENTION(0.125f, true), "GPT-2 large step" },
    { OP_relpos_attention_fwd, "A1x64x64x768 - A1x64x64x2304 P2304 P27x64 P27x64", RELPOS(0.125f, 12, 14), "ViT-B window" },
    { OP_relpos_attention_fwd, "A1x64x64x768 - A1x64x64x2304 - P127x64 P127x64", RELPOS(0.125f, 12, 0), "ViT-B global" },
    { OP_image_pool_fwd, "A16x120x256 - A16x4096x256 A4096x256 A16x120x256/o", .label = "mixer, 16 regions" },
    { OP_image_update_fwd, "@x A16x4096x256 A4096x256 A16x120x256/o A16x120 A16x120x256 P256 P256 P256", UPDATE(8), "mixer, 16 regions" },
    { OP_conv_fwd, "A1x64x64x768 A1x1024x1024x3 W768x3x16x16/p P768", CONV(16, 0, ACT_NONE), "ViT-B patches" },
    { OP_conv_fwd, "A1x64x64x256 A1x64x64x256 W256x256x3x3/p -", CONV(1, 1, ACT_NONE), "neck" },
    { OP_conv_transpose_fwd, "A1x128x128x64 A1x64x64x256 W256x64x2x2/p P64", .label = "mask decoder" },
    { OP_fourier_fwd, "A4096x256 F4096x2/o P2x128", .label = "dense position code" },
    { OP_resize_fwd, "A3x1024x1024 A3x256x256", .label = "masks of one region" },
    { OP_threshold_fwd, "U1x1024x1024 A1x1024x1024", .o.limit = 0, .label = "one mask" },
    { OP_log_softmax_fwd, "F48x50257 A48x50257", .label = "48 beams" },
    { OP_argmax_fwd, "I16 F16 A16x50257", .label = "16 tokens" },
    { OP_topk_fwd, "F48x6 I48x6 F48x50257", .label = "48 beams" },
    { OP_sample_fwd, "I16 A16x50257 F16/u", SAMPLE(1, 50, 0.9f), "16 tokens" },
    { OP_cross_entropy_fwd, "F304 F304 A304x50257 I304", .o.smoothing = 0.1f, .label = "16 captions" },
    { OP_roi_align_fwd, "A16x6x6x256 A1x64x64x256 F16x4/x -", .o.scale = 0.6f, .label = "16 regions" },

#include "op_timed_train.inc"
};
const size_t n_op_timed = LENGTH(op_timed);
/* clang-format on */
