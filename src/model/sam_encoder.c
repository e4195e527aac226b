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

void sam_encoder_patches(const pass *p, const sam_encoder *m, tensor x, tensor pixels, bool positions)
{
    const sam_config *c = m->config;
    int64_t g = c->grid, D = c->width;
    op_conv_fwd(p->d, tensor_reshape4(x, 1, g, g, D), pixels, m->patch_w.v, m->patch_b.v,
                (conv_options){ .stride = c->patch, .pad = 0, .act = ACT_NONE });
    if (positions && tensor_given(m->pos.v)) op_add_fwd(p->d, x, x, tensor_reshape2(m->pos.v, g * g, D));
}

/* x = x + proj(attention(LN1 x)); x = x + MLP(LN2 x) */
void sam_encoder_layer(const pass *p, const sam_encoder *m, int layer, tensor x)
{
    const sam_config *c = m->config;
    const encoder_block *b = &m->blocks[layer];
    int64_t g = c->grid, S = g * g, D = c->width;
    relpos_options o = { .scale = 1.0f / sqrtf((float)(D / c->heads)), .heads = c->heads, .window = b->window };
    size_t mark = arena_mark(p->temp);
    tensor y = pass_2d(p, S, D);
    norm_fwd(p, &b->norm1, y, x);
    size_t inner = arena_mark(p->temp);
    tensor qkv = pass_2d(p, S, 3 * D);
    linear_fwd(p, &b->qkv, qkv, y, ACT_NONE, tensor_none());
    op_relpos_attention_fwd(p->d, tensor_reshape4(y, 1, g, g, D), tensor_none(),
                            tensor_reshape4(qkv, 1, g, g, 3 * D), b->qkv.b.v, b->rel_h.v, b->rel_w.v, o);
    arena_release(p->temp, inner);
    linear_fwd(p, &b->proj, x, y, ACT_NONE, x);
    norm_fwd(p, &b->norm2, y, x);
    mlp_fwd(p, &b->mlp, x, y, x);
    arena_release(p->temp, mark);
}

void sam_encoder_neck(const pass *p, const sam_encoder *m, tensor embedding, tensor x)
{
    int64_t g = m->config->grid, C = m->config->channels;
    size_t mark = arena_mark(p->temp);
    tensor y = pass_2d(p, g * g, C);
    op_linear_fwd(p->d, y, x, m->neck1.v, tensor_none(), tensor_none(), (linear_options){ .act = ACT_NONE });
    norm_fwd(p, &m->neck_norm1, y, y);
    op_conv_fwd(p->d, tensor_reshape4(embedding, 1, g, g, C), tensor_reshape4(y, 1, g, g, C), m->neck2.v,
                tensor_none(), (conv_options){ .stride = 1, .pad = 1, .act = ACT_NONE });
    norm_fwd(p, &m->neck_norm2, embedding, embedding);
    arena_release(p->temp, mark);
}

void sam_encoder_fwd(const pass *p, const sam_encoder *m, tensor embedding, tensor pixels)
{
    const sam_config *c = m->config;
    size_t mark = arena_mark(p->temp);
    tensor x = pass_2d(p, (int64_t)c->grid * c->grid, c->width);
    sam_encoder_patches(p, m, x, pixels, true);
    bool planned = !p->temp->base; /* on the null device: no work to report */
    for (int i = 0; i < c->layers; i++) {
        if (!planned) progress("encode the photo", i, c->layers);
        sam_encoder_layer(p, m, i, x);
    }
    if (!planned) progress("encode the photo", c->layers, c->layers);
    sam_encoder_neck(p, m, embedding, x);
    arena_release(p->temp, mark);
}
