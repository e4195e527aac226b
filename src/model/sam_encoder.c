/* sam_encoder.c - SAM's ViT image encoder: windows, relative positions, neck. Sizes from config.json.
 * Source: segment_anything image_encoder.py / transformers modeling_sam.py SamVisionEncoder; model.md 2. */
#include "model/model.h"

#include <math.h>

static void block_bind(param_set *s, encoder_block *b, const sam_config *c, int i)
{
    int64_t D = c->width, head = D / c->heads;
    b->window = c->global[i] ? 0 : c->window;
    int64_t side = b->window ? b->window : c->grid, table[2] = { 2 * side - 1, head };
    layernorm_bind(s, &b->norm1, D, c->encoder_eps, "vision_encoder.layers.%d.layer_norm1", i);
    if (c->rel_pos) {
        param_add(s, &b->rel_h, PARAM_SMALL, INIT_ZERO, 2, table, "vision_encoder.layers.%d.attn.rel_pos_h", i);
        param_add(s, &b->rel_w, PARAM_SMALL, INIT_ZERO, 2, table, "vision_encoder.layers.%d.attn.rel_pos_w", i);
    }
    linear_bind(s, &b->qkv, c->qkv_bias, 3 * D, D, "vision_encoder.layers.%d.attn.qkv", i);
    linear_bind(s, &b->proj, true, D, D, "vision_encoder.layers.%d.attn.proj", i);
    layernorm_bind(s, &b->norm2, D, c->encoder_eps, "vision_encoder.layers.%d.layer_norm2", i);
    linear_bind(s, &b->mlp.up, true, c->mlp, D, "vision_encoder.layers.%d.mlp.lin1", i);
    linear_bind(s, &b->mlp.down, true, D, c->mlp, "vision_encoder.layers.%d.mlp.lin2", i);
    b->mlp.act = c->encoder_act;
}

sca_status sam_encoder_bind(param_set *s, sam_encoder *m, const sam_config *c)
{
    *m = (sam_encoder){ .config = c };
    m->blocks = mem_zero((size_t)c->layers, sizeof *m->blocks);
    if (!m->blocks) return mem_fail((size_t)c->layers * sizeof *m->blocks, "the encoder's blocks");
    int64_t D = c->width, C = c->channels, g = c->grid, p = c->patch;
    if (c->abs_pos)
        param_add(s, &m->pos, PARAM_SMALL, INIT_ZERO, 4, (int64_t[]){ 1, g, g, D }, "vision_encoder.pos_embed");
    param_add(s, &m->patch_w, PARAM_MATRIX, INIT_NORMAL, 4, (int64_t[]){ D, 3, p, p },
              "vision_encoder.patch_embed.projection.weight");
    param_add(s, &m->patch_b, PARAM_SMALL, INIT_ZERO, 1, &D, "vision_encoder.patch_embed.projection.bias");
    for (int i = 0; i < c->layers; i++) block_bind(s, &m->blocks[i], c, i);
    param_add(s, &m->neck1, PARAM_MATRIX, INIT_NORMAL, 4, (int64_t[]){ C, D, 1, 1 },
              "vision_encoder.neck.conv1.weight");
    layernorm_bind(s, &m->neck_norm1, C, 1e-6f, "vision_encoder.neck.layer_norm1");
    param_add(s, &m->neck2, PARAM_MATRIX, INIT_NORMAL, 4, (int64_t[]){ C, C, 3, 3 },
              "vision_encoder.neck.conv2.weight");
    layernorm_bind(s, &m->neck_norm2, C, 1e-6f, "vision_encoder.neck.layer_norm2");
    return SCA_OK;
}

void sam_encoder_free(sam_encoder *m)
{
    mem_free(m->blocks);
    m->blocks = NULL;
}

sca_status sam_encoder_kept_open(encoder_kept *k, const sam_encoder *m, bool recompute)
{
    size_t layers = (size_t)m->config->layers;
    *k = (encoder_kept){ .recompute = recompute };
    k->blocks = mem_zero(layers, sizeof *k->blocks);
    k->inputs = mem_zero(layers, sizeof *k->inputs);
    if (k->blocks && k->inputs) return SCA_OK;
    sam_encoder_kept_free(k);
    return mem_fail(layers * sizeof *k->blocks, "what the encoder keeps");
}

void sam_encoder_kept_free(encoder_kept *k)
{
    mem_free(k->blocks);
    mem_free(k->inputs);
    k->blocks = NULL;
    k->inputs = NULL;
}

/* ---- forward ----------------------------------------------------------------------------------------- */

void sam_encoder_patches(const pass *p, const sam_encoder *m, tensor x, tensor pixels, bool positions)
{
    const sam_config *c = m->config;
    int64_t g = c->grid, D = c->width;
    op_conv_fwd(p->d, tensor_reshape4(x, 1, g, g, D), pixels, m->patch_w.v, m->patch_b.v,
                (conv_options){ .stride = c->patch, .pad = 0, .act = ACT_NONE });
    if (positions && tensor_given(m->pos.v)) op_add_fwd(p->d, x, x, tensor_reshape2(m->pos.v, g * g, D));
}

static relpos_options attention_at(const sam_config *c, const encoder_block *b)
{
    return (relpos_options){ .scale = 1.0f / sqrtf((float)(c->width / c->heads)),
                             .heads = c->heads,
                             .window = b->window };
}

/* (S,n) -> (1,g,g,n) */
static tensor as_map(const sam_config *c, tensor t) { return tensor_reshape4(t, 1, c->grid, c->grid, t.dim[1]); }

/* y = x + proj(attention(LN1 x)); then y = y + MLP(LN2 y). With k the sum between them is another tensor. */
void sam_encoder_layer(const pass *p, const sam_encoder *m, int layer, tensor y, tensor x, encoder_block_kept *k)
{
    const sam_config *c = m->config;
    const encoder_block *b = &m->blocks[layer];
    int64_t S = (int64_t)c->grid * c->grid, D = c->width;
    pass to = k ? pass_keeping(p) : *p;
    tensor sum = k ? pass_2d(&to, S, D) : y, mixed = k ? pass_2d(&to, S, D) : y, lse = tensor_none();
    size_t mark = arena_mark(p->temp);
    tensor n = pass_2d(p, S, D);
    if (!k) mixed = n; /* the normalised tokens have been read when it is written */
    norm_fwd(p, &b->norm1, n, x, k ? &k->norm1 : NULL);
    size_t inner = arena_mark(p->temp);
    tensor qkv = pass_2d(&to, S, 3 * D);
    linear_fwd(p, &b->qkv, qkv, n, ACT_NONE, tensor_none());
    if (k) {
        lse = tensor_reshape4(pass_stat(&to, c->heads * S), 1, c->heads, c->grid, c->grid);
        k->qkv = qkv;
        k->mixed = mixed;
        k->lse = lse;
    }
    op_relpos_attention_fwd(p->d, as_map(c, mixed), lse, as_map(c, qkv), b->qkv.b.v, b->rel_h.v, b->rel_w.v,
                            attention_at(c, b));
    arena_release(p->temp, inner);
    if (sum.data != x.data) op_copy(p->d, sum, x);
    linear_fwd(p, &b->proj, sum, mixed, ACT_NONE, sum);
    norm_fwd(p, &b->norm2, n, sum, k ? &k->norm2 : NULL);
    if (y.data != sum.data) op_copy(p->d, y, sum);
    mlp_kept hidden;
    mlp_fwd(p, &b->mlp, y, n, y, k ? &hidden : NULL);
    if (k) k->h = hidden.h;
    arena_release(p->temp, mark);
}

static const conv_options neck_conv = { .stride = 1, .pad = 1, .act = ACT_NONE };

static void neck_fwd(const pass *p, const sam_encoder *m, tensor embedding, tensor x, encoder_kept *k)
{
    const sam_config *c = m->config;
    int64_t S = (int64_t)c->grid * c->grid, C = c->channels;
    pass to = k ? pass_keeping(p) : *p;
    size_t mark = arena_mark(p->temp);
    tensor y = pass_2d(&to, S, C), mid = k ? pass_2d(&to, S, C) : y, z = k ? pass_2d(&to, S, C) : embedding;
    if (k) k->out = x;
    if (k) k->mid = mid;
    op_linear_fwd(p->d, y, x, m->neck1.v, tensor_none(), tensor_none(), (linear_options){ .act = ACT_NONE });
    norm_fwd(p, &m->neck_norm1, mid, y, k ? &k->neck_norm1 : NULL);
    op_conv_fwd(p->d, as_map(c, z), as_map(c, mid), m->neck2.v, tensor_none(), neck_conv);
    norm_fwd(p, &m->neck_norm2, embedding, z, k ? &k->neck_norm2 : NULL);
    arena_release(p->temp, mark);
}

void sam_encoder_fwd(const pass *p, const sam_encoder *m, tensor embedding, tensor pixels, encoder_kept *k)
{
    const sam_config *c = m->config;
    pass to = k ? pass_keeping(p) : *p;
    size_t mark = arena_mark(p->temp);
    int64_t S = (int64_t)c->grid * c->grid;
    tensor x = pass_2d(&to, S, c->width);
    if (k) k->pixels = pixels;
    sam_encoder_patches(p, m, x, pixels, true);
    bool silent = p->d->kind->measures || p->keep; /* a plan, or one of many steps of training */
    for (int i = 0; i < c->layers; i++) {
        if (!silent) progress("encode the photo", i, c->layers);
        tensor y = k ? pass_2d(&to, S, c->width) : x;
        size_t keep = k ? arena_mark(p->keep) : 0;
        if (k) k->inputs[i] = x;
        sam_encoder_layer(p, m, i, y, x, k ? &k->blocks[i] : NULL);
        if (k && k->recompute) arena_release(p->keep, keep);
        x = y;
    }
    if (!silent) progress("encode the photo", c->layers, c->layers);
    neck_fwd(p, m, embedding, x, k);
    arena_release(p->temp, mark);
}

/* ---- backward ---------------------------------------------------------------------------------------- */

/* What a norm gave, made anew where the gradient of a weight needs it: into n. */
static tensor normed_again(const pass *p, const norm *m, const norm_kept *k, tensor n, bool wanted)
{
    if (!wanted) return tensor_none();
    norm_fwd(p, m, n, k->x, NULL);
    return n;
}

/* dy becomes the gradient at the block's input. */
static void layer_bwd(const pass *p, const sam_encoder *m, int layer, tensor dy, const encoder_block_kept *k)
{
    const sam_config *c = m->config;
    const encoder_block *b = &m->blocks[layer];
    int64_t S = dy.dim[0], D = c->width;
    size_t mark = arena_mark(p->temp);
    tensor n = pass_2d(p, S, D), dn = pass_2d(p, S, D), dqkv = pass_2d(p, S, 3 * D);
    mlp_kept hidden = { normed_again(p, &b->norm2, &k->norm2, n, linear_trained(&b->mlp.up)), k->h };
    mlp_bwd(p, &b->mlp, dn, dy, &hidden, tensor_none());
    norm_bwd(p, &b->norm2, dy, dn, &k->norm2, dy);
    linear_bwd(p, &b->proj, dn, dy, k->mixed, tensor_none());
    op_relpos_attention_bwd(p->d, as_map(c, dqkv), b->qkv.b.g, b->rel_h.g, b->rel_w.g, as_map(c, dn),
                            as_map(c, k->mixed), k->lse, as_map(c, k->qkv), b->qkv.b.v, b->rel_h.v, b->rel_w.v,
                            attention_at(c, b));
    linear_bwd(p, &b->qkv, dn, dqkv, normed_again(p, &b->norm1, &k->norm1, n, linear_trained(&b->qkv)),
               tensor_none());
    norm_bwd(p, &b->norm1, dy, dn, &k->norm1, dy);
    arena_release(p->temp, mark);
}

/* dx (S,D) at the neck's input */
static void neck_bwd(const pass *p, const sam_encoder *m, tensor dx, tensor dembedding, const encoder_kept *k)
{
    const sam_config *c = m->config;
    int64_t S = dx.dim[0], C = c->channels;
    size_t mark = arena_mark(p->temp);
    tensor dz = pass_2d(p, S, C), dy = pass_2d(p, S, C);
    norm_bwd(p, &m->neck_norm2, dz, dembedding, &k->neck_norm2, tensor_none());
    op_conv_bwd(p->d, as_map(c, dy), m->neck2.g, tensor_none(), as_map(c, dz), as_map(c, k->mid), m->neck2.v,
                neck_conv);
    norm_bwd(p, &m->neck_norm1, dy, dy, &k->neck_norm1, tensor_none());
    op_linear_bwd(p->d, dx, m->neck1.g, tensor_none(), dy, k->out, m->neck1.v, tensor_none(), false);
    arena_release(p->temp, mark);
}

void sam_encoder_bwd(const pass *p, const sam_encoder *m, tensor dembedding, encoder_kept *k)
{
    const sam_config *c = m->config;
    int64_t S = (int64_t)c->grid * c->grid, D = c->width;
    size_t mark = arena_mark(p->temp);
    tensor dx = pass_2d(p, S, D);
    neck_bwd(p, m, dx, dembedding, k);
    for (int i = c->layers - 1; i >= 0; i--) {
        size_t keep = arena_mark(p->keep), temp = arena_mark(p->temp);
        if (k->recompute) sam_encoder_layer(p, m, i, pass_2d(p, S, D), k->inputs[i], &k->blocks[i]);
        layer_bwd(p, m, i, dx, &k->blocks[i]);
        arena_release(p->keep, keep);
        arena_release(p->temp, temp);
    }
    if (tensor_given(m->pos.g)) op_sum(p->d, tensor_reshape2(m->pos.g, S, D), dx, true);
    op_conv_bwd(p->d, tensor_none(), m->patch_w.g, m->patch_b.g, as_map(c, dx), k->pixels, m->patch_w.v,
                (conv_options){ .stride = c->patch, .pad = 0, .act = ACT_NONE });
    arena_release(p->temp, mark);
}
