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
    [VARIANT_ROI_POOL] = { .task = true, .roi = true },
};

/* RoIAlign of the official code: cells of a box along each side, and patches of a pixel whatever the patch size. */
enum { ROI_CELLS = 6 };
#define ROI_SCALE (1.0f / 16)

/* ---- parameters -------------------------------------------------------------------------------------- */

/* Names as nn.Sequential makes them: GELU counts, and a norm with its linear layer is a sequence of its own. */
static void projector_bind(param_set *s, projector *m, const model_config *c)
{
    int64_t d = c->lm.width;
    *m = (projector){ .layers = 1 };
    if (c->variant != VARIANT_ROI_POOL) {
        linear_bind(s, &m->layer[0], true, d, c->sam.channels, "language_project");
        return;
    }
    m->layers = c->projector_mlp ? PROJECTOR_LAYERS_MOST : 1;
    m->norm_place = c->projector_norm;
    for (int i = 0; i < m->layers; i++) {
        int64_t in = i ? d : c->sam.channels;
        bool pre = m->norm_place == PROJECTOR_PRE_NORM;
        if (m->norm_place == 0) {
            linear_bind(s, &m->layer[i], true, d, in, "language_project.%d", 2 * i);
            continue;
        }
        linear_bind(s, &m->layer[i], true, d, in, "language_project.%d.%d", 2 * i, pre ? 1 : 0);
        layernorm_bind(s, &m->norm[i], pre ? in : d, 1e-5f, "language_project.%d.%d", 2 * i, pre ? 0 : 1);
    }
}

static sca_status transformer_bind(param_set *s, mixer *m, const model_config *c)
{
    const sam_config *sam = &c->sam;
    TRY(twoway_bind(s, &m->transformer, "mask_decoder.additional_transformer",
                    (twoway_options){ .layers = c->mixer_layers,
                                      .heads = sam->decoder_heads,
                                      .C = sam->channels,
                                      .downsample = sam->downsample,
                                      .mlp = sam->decoder_mlp,
                                      .act = sam->decoder_act,
                                      .eps = sam->decoder_eps }));
    int64_t rows = (int64_t)(m->rule->per_mask ? sam->masks : m->heads) * m->tokens;
    if (!m->rule->masks_ask)
        param_add(s, &m->caption_tokens, PARAM_SMALL, INIT_NORMAL, 2, (int64_t[]){ rows, sam->channels },
                  "mask_decoder.caption_tokens.weight");
    return SCA_OK;
}

sca_status mixer_bind(param_set *s, mixer *m, const model_config *c)
{
    const mixer_rule *rule = &rules[c->variant];
    *m = (mixer){ .rule = rule,
                  .heads = c->caption_heads,
                  .tokens = c->caption_tokens,
                  .masks = c->sam.masks,
                  .grid = c->sam.grid };
    if (rule->per_mask) m->heads = c->sam.masks - 1;
    if (rule->masks_ask) m->heads = m->tokens = 1; /* quirk Q16: of all mask tokens, the first one is kept */
    if (rule->roi) m->heads = 1;
    if (rule->roi) m->tokens = ROI_CELLS * ROI_CELLS;
    m->task_tokens = rule->task ? c->task_tokens : 0;
    if (!rule->roi) TRY(transformer_bind(s, m, c));
    projector_bind(s, &m->project, c);
    if (rule->task)
        param_add(s, &m->task, PARAM_SMALL, INIT_NORMAL, 2, (int64_t[]){ 2 * (int64_t)m->task_tokens, c->lm.width },
                  "task_tokens.weight");
    return SCA_OK;
}

void mixer_free(mixer *m) { twoway_free(&m->transformer); }

/* ---- projection -------------------------------------------------------------------------------------- */

void projector_fwd(const pass *p, const projector *m, tensor y, tensor x, projector_kept *k)
{
    pass to = k ? pass_keeping(p) : *p;
    size_t mark = arena_mark(p->temp);
    int64_t R = x.dim[0], d = y.dim[1];
    for (int i = 0; i < m->layers; i++) {
        bool last = i == m->layers - 1, pre = m->norm_place == PROJECTOR_PRE_NORM;
        bool post = m->norm_place == PROJECTOR_POST_NORM;
        norm_kept *nk = k ? &k->norm[i] : NULL;
        if (pre) {
            tensor n = pass_2d(&to, R, x.dim[1]);
            norm_fwd(p, &m->norm[i], n, x, nk);
            x = n;
        }
        if (k) k->x[i] = x;
        tensor h = last && !post ? y : pass_2d(&to, R, d), z = h;
        linear_fwd(p, &m->layer[i], h, x, ACT_NONE, tensor_none());
        if (post) norm_fwd(p, &m->norm[i], z = last ? y : pass_2d(&to, R, d), h, nk);
        if (last) break;
        if (k) k->h[i] = z;
        op_activation_fwd(p->d, x = pass_2d(&to, R, d), z, ACT_GELU);
    }
    arena_release(p->temp, mark);
}

void projector_bwd(const pass *p, const projector *m, tensor dx, tensor dy, const projector_kept *k)
{
    size_t mark = arena_mark(p->temp);
    for (int i = m->layers - 1; i >= 0; i--) {
        bool pre = m->norm_place == PROJECTOR_PRE_NORM, post = m->norm_place == PROJECTOR_POST_NORM;
        tensor to = i ? pass_2d(p, dy.dim[0], k->x[i].dim[1]) : dx, dh = dy;
        if (i < m->layers - 1) op_activation_bwd(p->d, dy, dy, k->h[i], ACT_GELU); /* dy is our own by now */
        if (post) norm_bwd(p, &m->norm[i], dh = pass_2d(p, dy.dim[0], dy.dim[1]), dy, &k->norm[i], tensor_none());
        linear_bwd(p, &m->layer[i], to, dh, k->x[i], tensor_none());
        if (pre) norm_bwd(p, &m->norm[i], to, to, &k->norm[i], tensor_none());
        dy = to;
    }
    arena_release(p->temp, mark);
}

/* ---- mixing ------------------------------------------------------------------------------------------ */

/* A row of C channels per cell of the box, of the map (S,C). */
static tensor cells(tensor t, int64_t N) { return tensor_reshape4(t, N, ROI_CELLS, ROI_CELLS, t.dim[t.ndim - 1]); }
static tensor square(const mixer *m, tensor t) { return tensor_reshape4(t, 1, m->grid, m->grid, t.dim[1]); }

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
    if (m->rule->roi) {
        op_roi_align_fwd(p->d, cells(out, out.dim[0]), square(m, in->embedding), in->boxes, tensor_none(),
                         ROI_SCALE);
        return;
    }
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
    if (m->rule->roi) {
        if (tensor_given(din->embedding))
            op_roi_align_bwd(p->d, square(m, din->embedding), cells(dout, dout.dim[0]), in->boxes, tensor_none(),
                             ROI_SCALE);
        return;
    }
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
