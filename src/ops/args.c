/* args.c - the arguments of a call as text. */
#include "ops/args.h"

#include <stdio.h>

static const char *activation_name(activation act)
{
    static const char *const names[] = { "none", "relu", "gelu", "gelu_tanh" };
    return (size_t)act < LENGTH(names) ? names[act] : "unknown";
}

static const char *yes_no(bool value) { return value ? "yes" : "no"; }

static void value_text(const op_arg *arg, char *text, size_t bytes)
{
    char shape[96];
    switch (arg->kind) {
    case ARG_TENSOR: snprintf(text, bytes, "%s", tensor_text(*(const tensor *)arg->value, shape)); break;
    case ARG_BOOL: snprintf(text, bytes, "%s", yes_no(*(const bool *)arg->value)); break;
    case ARG_FLOAT: snprintf(text, bytes, "%g", (double)*(const float *)arg->value); break;
    case ARG_DOUBLE: snprintf(text, bytes, "%g", *(const double *)arg->value); break;
    case ARG_ACTIVATION: snprintf(text, bytes, "%s", activation_name(*(const activation *)arg->value)); break;
    case ARG_LINEAR: {
        const linear_options *o = arg->value;
        snprintf(text, bytes, "{act %s, in_out %s}", activation_name(o->act), yes_no(o->in_out));
        break;
    }
    case ARG_MATMUL: {
        const matmul_options *o = arg->value;
        snprintf(text, bytes, "{alpha %g, trans_b %s}", (double)o->alpha, yes_no(o->trans_b));
        break;
    }
    case ARG_ROPE: {
        const rope_options *o = arg->value;
        snprintf(text, bytes, "{first %lld, theta %g}", (long long)o->first, (double)o->theta);
        break;
    }
    case ARG_ATTENTION: {
        const attention_options *o = arg->value;
        snprintf(text, bytes, "{scale %g, causal %s, drop %g}", (double)o->scale, yes_no(o->causal),
                 (double)o->drop.rate);
        break;
    }
    case ARG_RELPOS: {
        const relpos_options *o = arg->value;
        snprintf(text, bytes, "{scale %g, heads %d, window %d}", (double)o->scale, o->heads, o->window);
        break;
    }
    case ARG_IMAGE_UPDATE: {
        const image_update_options *o = arg->value;
        snprintf(text, bytes, "{heads %d, eps %g}", o->heads, (double)o->eps);
        break;
    }
    case ARG_CONV: {
        const conv_options *o = arg->value;
        snprintf(text, bytes, "{stride %d, pad %d, act %s}", o->stride, o->pad, activation_name(o->act));
        break;
    }
    case ARG_SAMPLE: {
        const sample_options *o = arg->value;
        snprintf(text, bytes, "{temperature %g, top_k %d, top_p %g}", (double)o->temperature, o->top_k,
                 (double)o->top_p);
        break;
    }
    case ARG_DROPOUT: {
        const dropout_options *o = arg->value;
        snprintf(text, bytes, "{rate %g, key %016llx, first %lld}", (double)o->rate, (unsigned long long)o->key,
                 (long long)o->first);
        break;
    }
    case ARG_ADAMW: {
        const adamw_options *o = arg->value;
        snprintf(text, bytes, "{rate %g, beta1 %g, beta2 %g, eps %g, decay %g, scale %g, step %lld}", o->rate,
                 o->beta1, o->beta2, o->eps, o->decay, o->scale, (long long)o->step);
        break;
    }
    }
}

void op_args_text(const op_arg *args, size_t n, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < n && used < bytes; i++) {
        char value[128];
        value_text(&args[i], value, sizeof value);
        used += (size_t)snprintf(text + used, bytes - used, "%s%s %s", i ? ", " : "", args[i].name, value);
    }
}
