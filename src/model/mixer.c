/* mixer.c - the text feature mixer, the projection to the language model and the task tokens: the trained part, in all
 * published variants. Source: official modeling_sca*.py; model.md 6, 7, 12. */
#include "model/model.h"

static const mixer_rule rules[] = {
    [VARIANT_BASE] = { .per_mask = true },
    [VARIANT_MULTITASK] = { .task = true, .per_mask = true },
    [VARIANT_MULTITASK_V2] = { .task = true, .fused = true },
    [VARIANT_DIRECT] = { .masks_ask = true },
    [VARIANT_DIRECT_V2] = { .task = true, .fused = true, .masks_ask = true },
    [VARIANT_SPLIT_MIXER] = { .task = true, .raw = true },
};

sca_status mixer_bind(param_set *s, mixer *m, const model_config *c)
{
    const sam_config *sam = &c->sam;
    int64_t C = sam->channels, d = c->lm.width;
    if ((size_t)c->variant >= LENGTH(rules))
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "the architecture %s is not supported yet, expected %s or one of its "
                           "variants with a feature mixer",
                           variant_name(c->variant), variant_name(VARIANT_MULTITASK_V2));
    const mixer_rule *rule = &rules[c->variant];
    *m = (mixer){ .rule = rule, .heads = c->caption_heads, .tokens = c->caption_tokens, .masks = sam->masks };
    if (rule->per_mask) m->heads = sam->masks - 1;
    if (rule->masks_ask) m->heads = m->tokens = 1; /* quirk Q16: of all mask tokens, the first one is kept */
    m->task_tokens = rule->task ? c->task_tokens : 0;
    TRY(twoway_bind(s, &m->transformer, "mask_decoder.additional_transformer",
                    (twoway_options){ .layers = c->mixer_layers,
                                      .heads = sam->decoder_heads,
                                      .C = sam->channels,
                                      .downsample = sam->downsample,
                                      .mlp = sam->decoder_mlp,
                                      .act = sam->decoder_act,
                                      .eps = sam->decoder_eps }));
    int64_t rows = (int64_t)(rule->per_mask ? sam->masks : m->heads) * m->tokens;
    if (!rule->masks_ask)
        param_add(s, &m->caption_tokens, PARAM_SMALL, INIT_NORMAL, 2, (int64_t[]){ rows, C },
                  "mask_decoder.caption_tokens.weight");
    linear_bind(s, &m->project, true, d, C, "language_project");
    if (rule->task)
        param_add(s, &m->task, PARAM_SMALL, INIT_NORMAL, 2, (int64_t[]){ 2 * (int64_t)m->task_tokens, d },
                  "task_tokens.weight");
    return SCA_OK;
}

void mixer_free(mixer *m) { twoway_free(&m->transformer); }

/* What asks: learned caption tokens (n,C), the same for all regions, or SAM's mask tokens (N,n,C) of multimask_output. */
static tensor queries(const mixer *m, const mixer_input *in)
{
    if (m->rule->masks_ask) return tensor_slice(in->fused, 1, 2, m->masks - 1);
    tensor rows = m->caption_tokens.v;
    if (m->rule->per_mask) rows = tensor_slice(rows, 0, m->tokens, (int64_t)m->heads * m->tokens);
    return tensor_expand(tensor_unsqueeze(rows, 0), 0, in->fused.dim[0]);
}

/* The tokens of the region that stand behind the queries; absent without a prompt where only the prompt counts. */
static tensor companions(const mixer *m, const mixer_input *in)
{
    return m->rule->raw ? in->sparse : m->rule->fused ? in->fused : in->tokens;
}

int64_t mixer_token_count(const mixer *m, const mixer_input *in)
{
    tensor others = companions(m, in);
    return queries(m, in).dim[1] + (tensor_given(others) ? others.dim[1] : 0);
}

void mixer_tokens_fwd(const pass *p, const mixer *m, tensor all, tensor y, const mixer_input *in, tensor pe,
                      twoway_kept *k)
{
    tensor first = queries(m, in), others = companions(m, in);
    int64_t N = all.dim[0], n = first.dim[1];
    pass to = k ? pass_keeping(p) : *p;
    size_t mark = arena_mark(p->temp);
    tensor t = pass_3d(&to, N, all.dim[1], all.dim[2]);
    op_copy(p->d, tensor_slice(t, 1, 0, n), first);
    if (tensor_given(others)) op_copy(p->d, tensor_slice(t, 1, n, others.dim[1]), others);
    twoway_fwd(p, &m->transformer, all, y, t, in->x, pe, k);
    arena_release(p->temp, mark);
}

void mixer_fwd(const pass *p, const mixer *m, tensor out, tensor y, const mixer_input *in, tensor pe,
               twoway_kept *k)
{
    size_t mark = arena_mark(p->temp);
    tensor all = pass_3d(p, out.dim[0], mixer_token_count(m, in), out.dim[2]);
    mixer_tokens_fwd(p, m, all, y, in, pe, k);
    op_copy(p->d, out, tensor_slice(all, 1, 0, out.dim[1]));
    arena_release(p->temp, mark);
}

/* The learned caption tokens that asked, or NULL: their gradient from dt (N,n,C). */
static void queries_bwd(const pass *p, const mixer *m, tensor dt)
{
    tensor rows = m->caption_tokens.g;
    if (m->rule->masks_ask || !tensor_given(rows)) return;
    if (m->rule->per_mask) rows = tensor_slice(rows, 0, m->tokens, (int64_t)m->heads * m->tokens);
    op_sum(p->d, tensor_unsqueeze(rows, 0), dt, true);
}

void mixer_bwd(const pass *p, const mixer *m, const mixer_input *din, tensor dout, const mixer_input *in,
               const twoway_kept *k)
{
    int64_t N = dout.dim[0], n = queries(m, in).dim[1], count = mixer_token_count(m, in), kept = dout.dim[1];
    size_t mark = arena_mark(p->temp);
    tensor all = pass_3d(p, N, count, dout.dim[2]), dt = pass_3d(p, N, count, dout.dim[2]);
    op_copy(p->d, tensor_slice(all, 1, 0, kept), dout);
    if (count > kept) op_fill(p->d, tensor_slice(all, 1, kept, count - kept), 0);
    twoway_bwd(p, &m->transformer, dt, din->x, all, tensor_none(), k);
    queries_bwd(p, m, tensor_slice(dt, 1, 0, n));
    const tensor part[] = { din->tokens, din->fused, din->sparse };
    const bool stands[] = { !m->rule->raw && !m->rule->fused, m->rule->fused, m->rule->raw };
    for (size_t i = 0; i < LENGTH(part); i++) {
        if (!tensor_given(part[i])) continue;
        if (stands[i])
            op_copy(p->d, part[i], tensor_slice(dt, 1, n, count - n));
        else
            op_fill(p->d, part[i], 0);
    }
    if (m->rule->masks_ask && tensor_given(din->fused)) {
        tensor asked = tensor_slice(din->fused, 1, 2, n);
        op_add_fwd(p->d, asked, asked, tensor_slice(dt, 1, 0, n));
    }
    arena_release(p->temp, mark);
}
