/* lm.c - decoder-only language models: GPT-2 and LLaMA as rows of one set of choices.
 * Source: transformers 4.36.2 modeling_gpt2.py, modeling_llama.py; model.md 8. */
#include "model/model.h"

#include <math.h>

/* ---- parameters -------------------------------------------------------------------------------------- */

static void gpt2_bind(param_set *s, lm_block *b, const lm_config *c, int i)
{
    int64_t d = c->width;
    layernorm_bind(s, &b->norm1, d, c->eps, "language_model.transformer.h.%d.ln_1", i);
    linear_bind_in_out(s, &b->qkv, d, 3 * d, "language_model.transformer.h.%d.attn.c_attn", i);
    linear_bind_in_out(s, &b->out, d, d, "language_model.transformer.h.%d.attn.c_proj", i);
    layernorm_bind(s, &b->norm2, d, c->eps, "language_model.transformer.h.%d.ln_2", i);
    linear_bind_in_out(s, &b->up, d, c->mlp, "language_model.transformer.h.%d.mlp.c_fc", i);
    linear_bind_in_out(s, &b->down, c->mlp, d, "language_model.transformer.h.%d.mlp.c_proj", i);
}

static void llama_bind(param_set *s, lm_block *b, const lm_config *c, int i)
{
    int64_t d = c->width, queries = (int64_t)c->heads * c->head, keys = (int64_t)c->kv_heads * c->head;
    linear_bind(s, &b->q, false, queries, d, "language_model.model.layers.%d.self_attn.q_proj", i);
    linear_bind(s, &b->k, false, keys, d, "language_model.model.layers.%d.self_attn.k_proj", i);
    linear_bind(s, &b->v, false, keys, d, "language_model.model.layers.%d.self_attn.v_proj", i);
    linear_bind(s, &b->out, false, d, queries, "language_model.model.layers.%d.self_attn.o_proj", i);
    linear_bind(s, &b->gate, false, c->mlp, d, "language_model.model.layers.%d.mlp.gate_proj", i);
    linear_bind(s, &b->up, false, c->mlp, d, "language_model.model.layers.%d.mlp.up_proj", i);
    linear_bind(s, &b->down, false, d, c->mlp, "language_model.model.layers.%d.mlp.down_proj", i);
    rmsnorm_bind(s, &b->norm1, d, c->eps, "language_model.model.layers.%d.input_layernorm", i);
    rmsnorm_bind(s, &b->norm2, d, c->eps, "language_model.model.layers.%d.post_attention_layernorm", i);
}

sca_status lm_bind(param_set *s, lm *m, const lm_config *c)
{
    *m = (lm){ .config = c };
    m->blocks = mem_zero((size_t)c->layers, sizeof *m->blocks);
    if (!m->blocks) return mem_fail((size_t)c->layers * sizeof *m->blocks, "the language model's blocks");
    bool gpt2 = c->family == LM_GPT2;
    int64_t d = c->width, table[2] = { c->vocab, d };
    const char *embedding =
        gpt2 ? "language_model.transformer.wte.weight" : "language_model.model.embed_tokens.weight";
    /* A table that is the head too is kept as the head wants it. */
    param_add(s, &m->embedding, c->tied ? PARAM_MATRIX : PARAM_ROWS, INIT_NORMAL, 2, table, "%s", embedding);
    if (gpt2)
        param_add(s, &m->positions, PARAM_ROWS, INIT_NORMAL, 2, (int64_t[]){ c->positions, d },
                  "language_model.transformer.wpe.weight");
    for (int i = 0; i < c->layers; i++) (gpt2 ? gpt2_bind : llama_bind)(s, &m->blocks[i], c, i);
    if (gpt2)
        layernorm_bind(s, &m->norm_final, d, c->eps, "language_model.transformer.ln_f");
    else
        rmsnorm_bind(s, &m->norm_final, d, c->eps, "language_model.model.norm");
    param_add(s, &m->head, PARAM_MATRIX, INIT_NORMAL, 2, table, "language_model.lm_head.weight");
    if (c->tied) param_alias(s, embedding);
    return SCA_OK;
}

void lm_free(lm *m)
{
    mem_free(m->blocks);
    m->blocks = NULL;
}

/* ---- forward ----------------------------------------------------------------------------------------- */

lm_cache lm_cache_new(const pass *p, const lm *m, int64_t rows, int64_t T)
{
    int64_t layers = m->config->layers, width = (int64_t)m->config->kv_heads * m->config->head;
    return (lm_cache){ pass_4d(p, layers, rows, T, width), pass_4d(p, layers, rows, T, width) };
}

typedef struct step { /* one call of lm_fwd */
    const pass *p;
    const lm *m;
    int64_t B, T, first;
    const lm_cache *cache;
    int64_t row_step;
    tensor index;
} step;

/* Where the B sequences of this step write in one layer's cache (rows,T,G*D): (B,T,G*D). */
static tensor cache_target(const step *s, tensor cache)
{
    tensor rows = tensor_split(tensor_slice(cache, 0, 0, s->B * s->row_step), 0, s->B);
    return tensor_slice(tensor_at(tensor_swap(rows, 0, 1), 0), 1, s->first, s->T);
}

/* Everything this step may read of one layer's cache: (rows, first+T, G, D). */
static tensor cache_source(const step *s, tensor cache)
{
    return tensor_split(tensor_slice(cache, 1, 0, s->first + s->T), 2, s->m->config->kv_heads);
}

/* q,k,v (B*T, ..) of normalised y; q of LLaMA and k are rotated. */
static void project(const step *s, const lm_block *b, tensor y, tensor *q, tensor *k, tensor *v)
{
    const lm_config *c = s->m->config;
    int64_t R = s->B * s->T, queries = (int64_t)c->heads * c->head, keys = (int64_t)c->kv_heads * c->head;
    if (c->family == LM_GPT2) {
        tensor all = pass_2d(s->p, R, 3 * queries);
        linear_fwd(s->p, &b->qkv, all, y, ACT_NONE, tensor_none());
        *q = tensor_slice(all, 1, 0, queries);
        *k = tensor_slice(all, 1, queries, queries);
        *v = tensor_slice(all, 1, 2 * queries, queries);
        return;
    }
    *q = pass_2d(s->p, R, queries);
    *k = pass_2d(s->p, R, keys);
    *v = pass_2d(s->p, R, keys);
    linear_fwd(s->p, &b->q, *q, y, ACT_NONE, tensor_none());
    linear_fwd(s->p, &b->k, *k, y, ACT_NONE, tensor_none());
    linear_fwd(s->p, &b->v, *v, y, ACT_NONE, tensor_none());
    rope_options rope = { .first = s->first, .theta = c->rope_theta };
    tensor q4 = tensor_reshape4(*q, s->B, s->T, c->heads, c->head);
    tensor k4 = tensor_reshape4(*k, s->B, s->T, c->kv_heads, c->head);
    op_rope_fwd(s->p->d, q4, q4, rope);
    op_rope_fwd(s->p->d, k4, k4, rope);
}

/* (B*T, n) -> (B,T,n), any row stride */
static tensor by_sequence(const step *s, tensor t) { return tensor_split(t, 0, s->B); }

/* h = h + out(attention(norm1 h)) */
static void attention(const step *s, const lm_block *b, int layer, tensor h)
{
    const lm_config *c = s->m->config;
    const pass *p = s->p;
    size_t mark = arena_mark(p->temp);
    tensor y = pass_2d(p, s->B * s->T, c->width), q, k, v;
    norm_fwd(p, &b->norm1, y, h);
    project(s, b, y, &q, &k, &v);
    tensor keys = tensor_at(s->cache->k, layer), values = tensor_at(s->cache->v, layer);
    op_copy(p->d, cache_target(s, keys), by_sequence(s, k));
    op_copy(p->d, cache_target(s, values), by_sequence(s, v));
    tensor mixed = pass_2d(p, s->B * s->T, (int64_t)c->heads * c->head);
    op_attention_fwd(p->d, tensor_split(by_sequence(s, mixed), 2, c->heads), tensor_none(),
                     tensor_split(by_sequence(s, q), 2, c->heads), cache_source(s, keys), cache_source(s, values),
                     s->index, (attention_options){ .scale = 1.0f / sqrtf((float)c->head), .causal = true });
    linear_fwd(p, &b->out, h, mixed, ACT_NONE, h);
    arena_release(p->temp, mark);
}

/* h = h + MLP(norm2 h) */
static void feed_forward(const step *s, const lm_block *b, tensor h)
{
    const lm_config *c = s->m->config;
    const pass *p = s->p;
    size_t mark = arena_mark(p->temp);
    tensor y = pass_2d(p, s->B * s->T, c->width);
    norm_fwd(p, &b->norm2, y, h);
    if (c->family == LM_GPT2) {
        mlp both = { b->up, b->down, c->act };
        mlp_fwd(p, &both, h, y, h);
    } else {
        tensor gate = pass_2d(p, s->B * s->T, c->mlp), up = pass_2d(p, s->B * s->T, c->mlp);
        linear_fwd(p, &b->gate, gate, y, ACT_NONE, tensor_none());
        linear_fwd(p, &b->up, up, y, ACT_NONE, tensor_none());
        op_silu_mul_fwd(p->d, gate, gate, up);
        linear_fwd(p, &b->down, h, gate, ACT_NONE, h);
    }
    arena_release(p->temp, mark);
}

void lm_fwd(const pass *p, const lm *m, tensor h, int64_t first, const lm_cache *cache, int64_t row_step,
            tensor index)
{
    step s = { .p = p,
               .m = m,
               .B = h.dim[0],
               .T = h.dim[1],
               .first = first,
               .cache = cache,
               .row_step = row_step,
               .index = index };
    tensor rows = tensor_reshape2(h, s.B * s.T, m->config->width);
    if (m->config->family == LM_GPT2) {
        tensor at = tensor_unsqueeze(tensor_slice(m->positions.v, 0, first, s.T), 0);
        op_add_fwd(p->d, h, h, tensor_expand(at, 0, s.B));
    }
    for (int i = 0; i < m->config->layers; i++) {
        attention(&s, &m->blocks[i], i, rows);
        feed_forward(&s, &m->blocks[i], rows);
    }
    norm_fwd(p, &m->norm_final, rows, rows);
}

void lm_embed(const pass *p, const lm *m, tensor y, tensor ids) { op_embedding_fwd(p->d, y, m->embedding.v, ids); }

void lm_logits(const pass *p, const lm *m, tensor logits, tensor h)
{
    op_linear_fwd(p->d, logits, h, m->head.v, tensor_none(), tensor_none(), (linear_options){ .act = ACT_NONE });
}
