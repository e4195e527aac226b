/* sam_decoder.c - SAM's prompt encoder and mask decoder.
 * Source: segment_anything prompt_encoder.py, mask_decoder.py / transformers modeling_sam.py; model.md 3, 5. */
#include "model/model.h"

#include <stdio.h>

/* ---- prompt encoder ---------------------------------------------------------------------------------- */

sca_status prompt_encoder_bind(param_set *s, prompt_encoder *m, const sam_config *c)
{
    *m = (prompt_encoder){ .config = c };
    int64_t C = c->channels, M = c->mask_channels, quarter = M / 4, row[2] = { 1, C };
    int64_t gaussian[2] = { 2, c->pos_feats };
    param_add(s, &m->gaussian, PARAM_SMALL, INIT_UNIT_NORMAL, 2, gaussian,
              "shared_image_embedding.positional_embedding");
    param_add(s, &m->gaussian_alias, PARAM_SMALL, INIT_UNIT_NORMAL, 2, gaussian,
              "prompt_encoder.shared_embedding.positional_embedding");
    param_alias(s, "shared_image_embedding.positional_embedding");
    for (int i = 0; i < 4; i++)
        param_add(s, &m->point[i], PARAM_SMALL, INIT_NORMAL, 2, row, "prompt_encoder.point_embed.%d.weight", i);
    param_add(s, &m->not_a_point, PARAM_SMALL, INIT_NORMAL, 2, row, "prompt_encoder.not_a_point_embed.weight");
    param_add(s, &m->no_mask, PARAM_SMALL, INIT_NORMAL, 2, row, "prompt_encoder.no_mask_embed.weight");
    struct {
        const char *name;
        param *w, *b;
        int64_t out, in, k;
    } conv[] = {
        { "conv1", &m->conv1_w, &m->conv1_b, quarter, 1, 2 },
        { "conv2", &m->conv2_w, &m->conv2_b, M, quarter, 2 },
        { "conv3", &m->conv3_w, &m->conv3_b, C, M, 1 },
    };
    for (size_t i = 0; i < LENGTH(conv); i++) {
        param_add(s, conv[i].w, PARAM_MATRIX, INIT_NORMAL, 4,
                  (int64_t[]){ conv[i].out, conv[i].in, conv[i].k, conv[i].k },
                  "prompt_encoder.mask_embed.%s.weight", conv[i].name);
        param_add(s, conv[i].b, PARAM_SMALL, INIT_ZERO, 1, &conv[i].out, "prompt_encoder.mask_embed.%s.bias",
                  conv[i].name);
    }
    layernorm_bind(s, &m->norm1, quarter, c->prompt_eps, "prompt_encoder.mask_embed.layer_norm1");
    layernorm_bind(s, &m->norm2, M, c->prompt_eps, "prompt_encoder.mask_embed.layer_norm2");
    return SCA_OK;
}

/* y (R,C) = position code of R coordinates in [-1,1], given on the host. */
static void fourier(const pass *p, const prompt_encoder *m, tensor y, const float *xy)
{
    size_t mark = arena_mark(p->temp);
    tensor c = arena_tensor(p->temp, p->d->kind->act == DT_F64 ? DT_F64 : DT_F32, 2, (int64_t[]){ y.dim[0], 2 });
    dev_put_f32(p->d, c, xy);
    op_fourier_fwd(p->d, y, c, m->gaussian.v);
    arena_release(p->temp, mark);
}

/* Host scratch of a pass: a failed allocation fails the stream. */
static float *scratch(const pass *p, int64_t count)
{
    float *f = mem_alloc((size_t)count * sizeof *f);
    if (!f) dev_fail(p->d, SCA_ERR_MEMORY, "out of memory: %lld bytes for coordinates", (long long)count * 4);
    return f;
}

void prompt_dense_pe(const pass *p, const prompt_encoder *m, tensor pe)
{
    int g = m->config->grid;
    float *xy = scratch(p, (int64_t)2 * g * g);
    if (!xy) return;
    for (int r = 0; r < g; r++)
        for (int c = 0; c < g; c++) {
            float *at = xy + 2 * ((int64_t)r * g + c);
            at[0] = 2.0f * (((float)c + 0.5f) / (float)g) - 1.0f; /* in f32, as the official code */
            at[1] = 2.0f * (((float)r + 0.5f) / (float)g) - 1.0f;
        }
    fourier(p, m, pe, xy);
    mem_free(xy);
}

/* y (N,1,C) = code (N,1,C) + the embedding of the kind, or what replaces it. */
static void token_fwd(const pass *p, const prompt_encoder *m, tensor y, tensor code, int kind)
{
    if (kind == TOKEN_ZERO) {
        op_fill(p->d, y, 0);
        return;
    }
    tensor row = kind == TOKEN_PAD ? m->not_a_point.v : m->point[kind].v;
    tensor all = tensor_expand(tensor_unsqueeze(row, 0), 0, y.dim[0]);
    if (kind == TOKEN_PAD)
        op_copy(p->d, y, all);
    else
        op_add_fwd(p->d, y, code, all);
}

void prompt_sparse_fwd(const pass *p, const prompt_encoder *m, tensor sparse, const prompt_token *tokens)
{
    int64_t N = sparse.dim[0], n = sparse.dim[1], C = sparse.dim[2];
    float *xy = scratch(p, 2 * N * n);
    if (!xy) return;
    for (int64_t i = 0; i < N * n; i++) { /* float64 until the product with the Gaussian matrix (model.md 11) */
        xy[2 * i] = (float)(2 * ((tokens[i].x + 0.5) / m->config->image) - 1);
        xy[2 * i + 1] = (float)(2 * ((tokens[i].y + 0.5) / m->config->image) - 1);
    }
    size_t mark = arena_mark(p->temp);
    tensor code = pass_3d(p, N, n, C);
    fourier(p, m, tensor_reshape2(code, N * n, C), xy);
    mem_free(xy);
    for (int64_t i = 0; i < n; i++) { /* runs of regions whose i-th tokens are of one kind */
        for (int64_t from = 0, to; from < N; from = to) {
            int kind = tokens[from * n + i].kind;
            for (to = from + 1; to < N && tokens[to * n + i].kind == kind;) to++;
            tensor y = tensor_slice(tensor_slice(sparse, 0, from, to - from), 1, i, 1);
            token_fwd(p, m, y, tensor_slice(tensor_slice(code, 0, from, to - from), 1, i, 1), kind);
        }
    }
    arena_release(p->temp, mark);
}

void prompt_sparse_bwd(const pass *p, const prompt_encoder *m, tensor dsparse, const prompt_token *tokens)
{
    int64_t N = dsparse.dim[0], n = dsparse.dim[1];
    for (int64_t i = 0; i < N * n; i++) {
        int kind = tokens[i].kind;
        if (kind == TOKEN_ZERO) continue;
        tensor to = kind == TOKEN_PAD ? m->not_a_point.g : m->point[kind].g;
        if (tensor_given(to)) op_sum(p->d, to, tensor_slice(tensor_at(dsparse, i / n), 0, i % n, 1), true);
    }
}

/* y (N,h,w,O) = act(LN(conv)) */
static tensor shrink(const pass *p, tensor x, const param *w, const param *b, const norm *n, activation act)
{
    tensor y = pass_4d(p, x.dim[0], x.dim[1] / 2, x.dim[2] / 2, w->v.dim[0]);
    op_conv_fwd(p->d, y, x, w->v, b->v, (conv_options){ .stride = 2, .pad = 0, .act = ACT_NONE });
    tensor flat = tensor_reshape2(y, y.dim[0] * y.dim[1] * y.dim[2], y.dim[3]);
    norm_fwd(p, n, flat, flat, NULL);
    op_activation_fwd(p->d, flat, flat, act);
    return y;
}

void prompt_mask_fwd(const pass *p, const prompt_encoder *m, tensor dense, tensor mask)
{
    size_t mark = arena_mark(p->temp);
    activation act = m->config->prompt_act;
    tensor a = shrink(p, mask, &m->conv1_w, &m->conv1_b, &m->norm1, act);
    tensor b = shrink(p, a, &m->conv2_w, &m->conv2_b, &m->norm2, act);
    int64_t rows = b.dim[0] * b.dim[1] * b.dim[2];
    op_linear_fwd(p->d, tensor_reshape2(dense, rows, m->config->channels), tensor_reshape2(b, rows, b.dim[3]),
                  m->conv3_w.v, m->conv3_b.v, tensor_none(), (linear_options){ .act = ACT_NONE });
    arena_release(p->temp, mark);
}

/* ---- mask decoder ------------------------------------------------------------------------------------ */

/* proj_in, layers.0 .. layers.{n-3}, proj_out */
static void ffn_bind(param_set *s, ffn *m, int layers, int64_t in, int64_t hidden, int64_t out, const char *prefix)
{
    m->layers = layers;
    linear_bind(s, &m->layer[0], true, hidden, in, "%s.proj_in", prefix);
    for (int i = 1; i < layers - 1; i++)
        linear_bind(s, &m->layer[i], true, hidden, hidden, "%s.layers.%d", prefix, i - 1);
    linear_bind(s, &m->layer[layers - 1], true, out, hidden, "%s.proj_out", prefix);
}

static void ffn_fwd(const pass *p, const ffn *m, tensor y, tensor x, ffn_kept *k)
{
    pass to = k ? pass_keeping(p) : *p;
    size_t mark = arena_mark(p->temp);
    for (int i = 0; i < m->layers; i++) {
        bool last = i == m->layers - 1;
        tensor h = last ? y : pass_2d(&to, x.dim[0], m->layer[i].w.v.dim[0]);
        if (k) k->x[i] = x;
        linear_fwd(p, &m->layer[i], h, x, last ? ACT_NONE : ACT_RELU, tensor_none());
        x = h;
    }
    arena_release(p->temp, mark);
}

static void ffn_bwd(const pass *p, const ffn *m, tensor dx, tensor dy, const ffn_kept *k)
{
    size_t mark = arena_mark(p->temp);
    for (int i = m->layers - 1; i >= 0; i--) {
        tensor x = k->x[i], d = i ? pass_2d(p, x.dim[0], x.dim[1]) : dx;
        linear_bwd(p, &m->layer[i], d, dy, x, tensor_none());
        if (i) op_activation_bwd(p->d, d, d, x, ACT_RELU); /* x is what came out of it: the same sign */
        dy = d;
    }
    arena_release(p->temp, mark);
}

sca_status mask_decoder_bind(param_set *s, mask_decoder *m, const sam_config *c)
{
    *m = (mask_decoder){ .config = c };
    int64_t C = c->channels;
    m->hyper = mem_zero((size_t)c->masks, sizeof *m->hyper);
    if (!m->hyper) return mem_fail((size_t)c->masks * sizeof *m->hyper, "the mask heads");
    param_add(s, &m->iou_token, PARAM_SMALL, INIT_NORMAL, 2, (int64_t[]){ 1, C }, "mask_decoder.iou_token.weight");
    param_add(s, &m->mask_tokens, PARAM_SMALL, INIT_NORMAL, 2, (int64_t[]){ c->masks, C },
              "mask_decoder.mask_tokens.weight");
    TRY(twoway_bind(s, &m->transformer, "mask_decoder.transformer",
                    (twoway_options){ .layers = c->decoder_layers,
                                      .heads = c->decoder_heads,
                                      .C = c->channels,
                                      .downsample = c->downsample,
                                      .mlp = c->decoder_mlp,
                                      .act = c->decoder_act,
                                      .eps = c->decoder_eps }));
    int64_t half = C / 4, quarter = C / 8;
    param_add(s, &m->up1_w, PARAM_MATRIX_IN_OUT, INIT_NORMAL, 4, (int64_t[]){ C, half, 2, 2 },
              "mask_decoder.upscale_conv1.weight");
    param_add(s, &m->up1_b, PARAM_SMALL, INIT_ZERO, 1, &half, "mask_decoder.upscale_conv1.bias");
    param_add(s, &m->up2_w, PARAM_MATRIX_IN_OUT, INIT_NORMAL, 4, (int64_t[]){ half, quarter, 2, 2 },
              "mask_decoder.upscale_conv2.weight");
    param_add(s, &m->up2_b, PARAM_SMALL, INIT_ZERO, 1, &quarter, "mask_decoder.upscale_conv2.bias");
    layernorm_bind(s, &m->up_norm, half, 1e-6f, "mask_decoder.upscale_layer_norm");
    for (int i = 0; i < c->masks; i++) {
        char name[80];
        snprintf(name, sizeof name, "mask_decoder.output_hypernetworks_mlps.%d", i);
        ffn_bind(s, &m->hyper[i], 3, C, C, quarter, name);
    }
    ffn_bind(s, &m->iou, c->iou_depth, C, c->iou_hidden, c->masks, "mask_decoder.iou_prediction_head");
    return SCA_OK;
}

void mask_decoder_free(mask_decoder *m)
{
    mem_free(m->hyper);
    m->hyper = NULL;
    twoway_free(&m->transformer);
}

void mask_decoder_tokens(const pass *p, const mask_decoder *m, tensor tokens, tensor sparse)
{
    int64_t N = tokens.dim[0], masks = m->config->masks;
    op_copy(p->d, tensor_slice(tokens, 1, 0, 1), tensor_expand(tensor_unsqueeze(m->iou_token.v, 0), 0, N));
    op_copy(p->d, tensor_slice(tokens, 1, 1, masks), tensor_expand(tensor_unsqueeze(m->mask_tokens.v, 0), 0, N));
    if (tensor_given(sparse)) op_copy(p->d, tensor_slice(tokens, 1, 1 + masks, sparse.dim[1]), sparse);
}

void mask_decoder_tokens_bwd(const pass *p, const mask_decoder *m, tensor dtokens)
{
    int64_t masks = m->config->masks;
    if (tensor_given(m->iou_token.g))
        op_sum(p->d, tensor_unsqueeze(m->iou_token.g, 0), tensor_slice(dtokens, 1, 0, 1), true);
    if (tensor_given(m->mask_tokens.g))
        op_sum(p->d, tensor_unsqueeze(m->mask_tokens.g, 0), tensor_slice(dtokens, 1, 1, masks), true);
}

/* Token i of all regions as rows (N,C). */
static tensor token_rows(tensor q, int64_t i) { return tensor_at(tensor_swap(q, 0, 1), i); }

void mask_decoder_iou(const pass *p, const mask_decoder *m, tensor iou, tensor q, ffn_kept *k)
{
    ffn_fwd(p, &m->iou, iou, token_rows(q, 0), k);
}

/* dq, at token i, += what comes through a head. */
static void head_bwd(const pass *p, const ffn *m, tensor dq, int64_t i, tensor dy, const ffn_kept *k)
{
    size_t mark = arena_mark(p->temp);
    tensor dx = pass_2d(p, dq.dim[0], dq.dim[2]), at = token_rows(dq, i);
    ffn_bwd(p, m, dx, dy, k);
    op_add_fwd(p->d, at, at, dx);
    arena_release(p->temp, mark);
}

void mask_decoder_iou_bwd(const pass *p, const mask_decoder *m, tensor dq, tensor diou, const ffn_kept *k)
{
    head_bwd(p, &m->iou, dq, 0, diou, k);
}

typedef struct upscale_kept {
    tensor x, a, h, u; /* (1,g,g,C); first map before GELU (2g*2g,C/4) and after (1,2g,2g,C/4); u before GELU */
    norm_kept norm;
} upscale_kept;

/* u (1,4g,4g,C/8) of one region's image tokens x (g*g,C). */
static void upscale(const pass *p, const mask_decoder *m, tensor u, tensor x, upscale_kept *k)
{
    int64_t g = m->config->grid, half = m->config->channels / 4, quarter = m->config->channels / 8;
    pass to = k ? pass_keeping(p) : *p;
    size_t mark = arena_mark(p->temp);
    tensor h = pass_4d(&to, 1, 2 * g, 2 * g, half), first = tensor_reshape2(h, 4 * g * g, half), y = first,
           a = first;
    tensor map = tensor_reshape4(x, 1, g, g, m->config->channels), last = u;
    if (k) {
        y = pass_2d(&to, 4 * g * g, half);
        a = pass_2d(&to, 4 * g * g, half);
        last = pass_4d(&to, 1, 4 * g, 4 * g, quarter);
        *k = (upscale_kept){ .x = map, .a = y, .h = tensor_reshape4(a, 1, 2 * g, 2 * g, half), .u = last };
    }
    op_conv_transpose_fwd(p->d, h, map, m->up1_w.v, m->up1_b.v);
    norm_fwd(p, &m->up_norm, y, first, k ? &k->norm : NULL);
    op_activation_fwd(p->d, a, y, ACT_GELU);
    op_conv_transpose_fwd(p->d, last, k ? k->h : h, m->up2_w.v, m->up2_b.v);
    op_activation_fwd(p->d, tensor_reshape2(u, 16 * g * g, quarter), tensor_reshape2(last, 16 * g * g, quarter),
                      ACT_GELU);
    arena_release(p->temp, mark);
}

/* dx (g*g,C) from du, which is overwritten. */
static void upscale_bwd(const pass *p, const mask_decoder *m, tensor dx, tensor du, const upscale_kept *k)
{
    int64_t g = m->config->grid, half = m->config->channels / 4, quarter = m->config->channels / 8;
    size_t mark = arena_mark(p->temp);
    tensor rows = tensor_reshape2(du, 16 * g * g, quarter), dh = pass_4d(p, 1, 2 * g, 2 * g, half);
    tensor first = tensor_reshape2(dh, 4 * g * g, half);
    op_activation_bwd(p->d, rows, rows, tensor_reshape2(k->u, 16 * g * g, quarter), ACT_GELU);
    op_conv_transpose_bwd(p->d, dh, m->up2_w.g, m->up2_b.g, du, k->h, m->up2_w.v);
    op_activation_bwd(p->d, first, first, k->a, ACT_GELU);
    norm_bwd(p, &m->up_norm, first, first, &k->norm, tensor_none());
    op_conv_transpose_bwd(p->d, tensor_reshape4(dx, 1, g, g, m->config->channels), m->up1_w.g, m->up1_b.g, dh, k->x,
                          m->up1_w.v);
    arena_release(p->temp, mark);
}

sca_status masks_kept_open(masks_kept *k, const mask_decoder *m)
{
    size_t masks = (size_t)m->config->masks;
    *k = (masks_kept){ .heads = mem_zero(masks, sizeof *k->heads) };
    return k->heads ? SCA_OK : mem_fail(masks * sizeof *k->heads, "what the mask heads keep");
}

void masks_kept_free(masks_kept *k)
{
    mem_free(k->heads);
    k->heads = NULL;
}

static const matmul_options dot = { .alpha = 1, .trans_b = true };

void mask_decoder_masks(const pass *p, const mask_decoder *m, tensor logits, tensor q, tensor x, masks_kept *k)
{
    int64_t N = q.dim[0], masks = m->config->masks, g = m->config->grid, quarter = m->config->channels / 8;
    pass to = k ? pass_keeping(p) : *p;
    size_t mark = arena_mark(p->temp);
    tensor hyper = pass_3d(&to, N, masks, quarter), u = pass_4d(p, 1, 4 * g, 4 * g, quarter);
    if (k) k->hyper = hyper;
    if (k) k->x = x;
    for (int64_t i = 0; i < masks; i++)
        ffn_fwd(p, &m->hyper[i], token_rows(hyper, i), token_rows(q, 1 + i), k ? &k->heads[i] : NULL);
    for (int64_t n = 0; n < N; n++) { /* one region at a time: the maps are sixteen times its image tokens */
        upscale(p, m, u, tensor_at(x, n), NULL);
        op_matmul_fwd(p->d, tensor_reshape2(tensor_at(logits, n), masks, 16 * g * g), tensor_at(hyper, n),
                      tensor_reshape2(u, 16 * g * g, quarter), dot);
    }
    arena_release(p->temp, mark);
}

void mask_decoder_masks_bwd(const pass *p, const mask_decoder *m, tensor dq, tensor dx, tensor dlogits,
                            const masks_kept *k)
{
    int64_t N = dq.dim[0], masks = m->config->masks, g = m->config->grid, quarter = m->config->channels / 8;
    size_t mark = arena_mark(p->temp);
    tensor dhyper = pass_3d(p, N, masks, quarter), u = pass_4d(p, 1, 4 * g, 4 * g, quarter);
    tensor du = pass_4d(p, 1, 4 * g, 4 * g, quarter), rows = tensor_reshape2(du, 16 * g * g, quarter);
    for (int64_t n = 0; n < N; n++) { /* the maps again, region by region */
        upscale_kept again;
        size_t keep = arena_mark(p->keep);
        upscale(p, m, u, tensor_at(k->x, n), &again);
        op_matmul_bwd(p->d, tensor_at(dhyper, n), rows, tensor_reshape2(tensor_at(dlogits, n), masks, 16 * g * g),
                      tensor_at(k->hyper, n), tensor_reshape2(u, 16 * g * g, quarter), dot, false);
        upscale_bwd(p, m, tensor_at(dx, n), du, &again);
        arena_release(p->keep, keep);
    }
    for (int64_t i = 0; i < masks; i++) head_bwd(p, &m->hyper[i], dq, 1 + i, token_rows(dhyper, i), &k->heads[i]);
    arena_release(p->temp, mark);
}
