/* lm.c - decoder-only language models: GPT-2 and LLaMA as rows of one set of choices.
 * Source: transformers 4.36.2 modeling_gpt2.py, modeling_llama.py; model.md 8. */
#include "base/rng.h"
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

sca_status lm_kept_open(lm_kept *k, const lm *m, bool recompute)
{
    size_t layers = (size_t)m->config->layers;
    *k = (lm_kept){ .recompute = recompute };
    k->blocks = mem_zero(layers, sizeof *k->blocks);
    k->inputs = mem_zero(layers, sizeof *k->inputs);
    if (k->blocks && k->inputs) return SCA_OK;
    lm_kept_free(k);
    return mem_fail(layers * sizeof *k->blocks, "what a language model keeps");
}

void lm_kept_free(lm_kept *k)
{
    mem_free(k->blocks);
    mem_free(k->inputs);
    k->blocks = NULL;
    k->inputs = NULL;
}

/* ---- forward ----------------------------------------------------------------------------------------- */

lm_cache lm_cache_new(const pass *p, const lm *m, int64_t rows, int64_t T)
{
    int64_t layers = m->config->layers, width = (int64_t)m->config->kv_heads * m->config->head;
    return (lm_cache){ pass_4d(p, layers, rows, T, width), pass_4d(p, layers, rows, T, width) };
}

typedef struct step { /* one call */
    const pass *p;
    const lm *m;
    int64_t B, T, first, R; /* R: rows that go through the products */
    const lm_rows *rows;    /* NULL: all, R is B*T */
    const lm_cache *cache;  /* NULL: whole sequences, which see themselves alone */
    int64_t row_step;
    tensor index;
    const uint64_t *dropout; /* NULL: none */
    tensor at;               /* (B), T 1: where each sequence stands, from `first` on; absent: there */
} step;

/* Where tensors live that backward needs: without k they are temporary. */
static pass keeping(const step *s, const void *k) { return k ? pass_keeping(s->p) : *s->p; }

/* The three places of dropout in a block, and the embeddings; each has numbers of its own. */
enum { DROP_ATTENTION, DROP_OUT, DROP_DOWN, DROP_SITES };

static dropout_options drop_at(const step *s, double rate, int layer, int site)
{
    if (!s->dropout || rate <= 0) return (dropout_options){ .rate = 0 };
    rng_block b = rng_philox(*s->dropout, (uint64_t)(layer * DROP_SITES + site), 1);
    return (dropout_options){ .rate = (float)rate, .key = (uint64_t)b.word[1] << 32 | b.word[0] };
}

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

static int64_t query_width(const lm_config *c) { return (int64_t)c->heads * c->head; }
static int64_t key_width(const lm_config *c) { return (int64_t)c->kv_heads * c->head; }

/* GPT-2: the three parts of one product. all (R, 3*H*D) */
static void split_qkv(tensor all, tensor part[3])
{
    for (int i = 0; i < 3; i++) part[i] = tensor_slice(all, 1, i * (all.dim[1] / 3), all.dim[1] / 3);
}

/* (B*T, n) -> (B,T,n), any row stride */
static tensor by_sequence(const step *s, tensor t) { return tensor_split(t, 0, s->B); }
/* (B*T, H*D) -> (B,T,H,D), any row stride */
static tensor by_head(const step *s, tensor t, int heads) { return tensor_split(by_sequence(s, t), 2, heads); }

static rope_options rope_at(const step *s)
{
    return (rope_options){ .first = tensor_given(s->at) ? 0 : s->first, .theta = s->m->config->rope_theta };
}

/* (R,n) -> (B*T,n): t itself where all rows are there */
static tensor spread(const step *s, tensor t)
{
    if (!s->rows) return t;
    tensor whole = pass_2d(s->p, s->B * s->T, t.dim[1]);
    op_embedding_fwd(s->p->d, whole, t, s->rows->spread);
    return whole;
}

/* Room for gradients (R,n) that are to be spread. */
static tensor spreadable(const step *s, int64_t n, tensor *with_zero)
{
    *with_zero = pass_2d(s->p, s->rows ? s->R + 1 : s->R, n);
    if (s->rows) op_fill(s->p->d, tensor_slice(*with_zero, 0, s->R, 1), 0);
    return tensor_slice(*with_zero, 0, 0, s->R);
}

static void spread_to(const step *s, tensor whole, tensor with_zero)
{
    op_embedding_fwd(s->p->d, whole, with_zero, s->rows->spread_or_zero);
}

/* Room for (B*T,n) that is to be packed into t (R,n): t itself where all rows are there. */
static tensor packable(const step *s, tensor t) { return s->rows ? pass_2d(s->p, s->B * s->T, t.dim[1]) : t; }

static void pack(const step *s, tensor t, tensor whole)
{
    if (s->rows) op_embedding_fwd(s->p->d, t, whole, s->rows->pack);
}

/* Queries and keys, whole sequences, in place. */
static void rotate(const step *s, const tensor whole[3])
{
    if (s->m->config->family == LM_GPT2) return;
    tensor q = by_head(s, whole[0], s->m->config->heads), k = by_head(s, whole[1], s->m->config->kv_heads);
    op_rope_fwd(s->p->d, q, q, s->at, rope_at(s));
    op_rope_fwd(s->p->d, k, k, s->at, rope_at(s));
}

/* q,k,v (R, ..) of normalised y */
static void project(const step *s, const lm_block *b, tensor y, tensor part[3], const pass *keep)
{
    const lm_config *c = s->m->config;
    if (c->family == LM_GPT2) {
        tensor all = pass_2d(keep, s->R, 3 * query_width(c));
        linear_fwd(s->p, &b->qkv, all, y, ACT_NONE, tensor_none());
        split_qkv(all, part);
        return;
    }
    const linear *m[3] = { &b->q, &b->k, &b->v };
    for (int i = 0; i < 3; i++) {
        part[i] = pass_2d(keep, s->R, i == 0 ? query_width(c) : key_width(c));
        linear_fwd(s->p, m[i], part[i], y, ACT_NONE, tensor_none());
    }
}

static attention_options attention_at(const step *s, int layer)
{
    const lm_config *c = s->m->config;
    return (attention_options){ .scale = 1.0f / sqrtf((float)c->head),
                                .causal = true,
                                .drop = drop_at(s, c->dropout_attn, layer, DROP_ATTENTION) };
}

/* Keys and values of one layer that this step sees, (rows,T,G,D): those of the cache, where the step's own are put, or
 * the step's own alone. */
static void seen(const step *s, int layer, tensor own_k, tensor own_v, tensor *k, tensor *v)
{
    int heads = s->m->config->kv_heads;
    if (!s->cache) {
        *k = by_head(s, own_k, heads);
        *v = by_head(s, own_v, heads);
        return;
    }
    tensor keys = tensor_at(s->cache->k, layer), values = tensor_at(s->cache->v, layer);
    if (tensor_given(s->at)) {
        op_place(s->p->d, tensor_slice(keys, 0, 0, s->B), own_k, s->at);
        op_place(s->p->d, tensor_slice(values, 0, 0, s->B), own_v, s->at);
    } else {
        op_copy(s->p->d, cache_target(s, keys), by_sequence(s, own_k));
        op_copy(s->p->d, cache_target(s, values), by_sequence(s, own_v));
    }
    *k = cache_source(s, keys);
    *v = cache_source(s, values);
}

/* y = x + dropout(m a); y may be x */
static void add_branch(const step *s, const linear *m, tensor y, tensor x, tensor a, dropout_options drop)
{
    const pass *p = s->p;
    if (drop.rate > 0) {
        size_t mark = arena_mark(p->temp);
        tensor branch = pass_2d(p, y.dim[0], y.dim[1]);
        linear_fwd(p, m, branch, a, ACT_NONE, tensor_none());
        op_dropout(p->d, y, branch, x, drop);
        arena_release(p->temp, mark);
        return;
    }
    if (y.data != x.data) op_copy(p->d, y, x);
    linear_fwd(p, m, y, a, ACT_NONE, y);
}

/* y = x + out(attention(norm1 x)); y may be x without k */
static void attention(const step *s, const lm_block *b, int layer, tensor y, tensor x, lm_block_kept *k)
{
    const lm_config *c = s->m->config;
    const pass *p = s->p;
    pass keep = keeping(s, k);
    size_t mark = arena_mark(p->temp);
    tensor n = pass_2d(p, s->R, c->width), part[3], whole[3], keys, values, lse = tensor_none();
    norm_fwd(p, &b->norm1, n, x, k ? &k->norm1 : NULL);
    project(s, b, n, part, &keep);
    for (int i = 0; i < 3; i++) whole[i] = spread(s, part[i]);
    rotate(s, whole);
    seen(s, layer, whole[1], whole[2], &keys, &values);
    tensor mixed = pass_2d(&keep, s->R, query_width(c)), all_mixed = packable(s, mixed);
    if (k) {
        lse = tensor_reshape3(pass_stat(&keep, s->B * c->heads * s->T), s->B, c->heads, s->T);
        k->mixed = mixed;
        k->lse = lse;
        for (int i = 0; i < 3; i++) k->part[i] = part[i];
    }
    op_attention_fwd(p->d, by_head(s, all_mixed, c->heads), lse, by_head(s, whole[0], c->heads), keys, values,
                     s->index, attention_at(s, layer));
    pack(s, mixed, all_mixed);
    add_branch(s, &b->out, y, x, mixed, drop_at(s, c->dropout_resid, layer, DROP_OUT));
    arena_release(p->temp, mark);
}

/* y = x + MLP(norm2 x); y may be x without k */
static void feed_forward(const step *s, const lm_block *b, int layer, tensor y, tensor x, lm_block_kept *k)
{
    const lm_config *c = s->m->config;
    const pass *p = s->p;
    pass keep = keeping(s, k);
    int64_t R = s->R;
    size_t mark = arena_mark(p->temp);
    tensor n = pass_2d(p, R, c->width);
    dropout_options drop = drop_at(s, c->dropout_resid, layer, DROP_DOWN);
    norm_fwd(p, &b->norm2, n, x, k ? &k->norm2 : NULL);
    if (c->family == LM_GPT2) {
        mlp both = { b->up, b->down, c->act };
        tensor branch = drop.rate > 0 ? pass_2d(p, R, c->width) : y, r = drop.rate > 0 ? tensor_none() : y;
        if (drop.rate <= 0 && y.data != x.data) op_copy(p->d, y, x);
        mlp_kept inner;
        mlp_fwd(p, &both, branch, n, r, k ? &inner : NULL);
        if (k) k->h = inner.h;
        if (drop.rate > 0) op_dropout(p->d, y, branch, x, drop);
    } else {
        tensor gate = pass_2d(&keep, R, c->mlp), up = pass_2d(&keep, R, c->mlp);
        tensor both = k ? pass_2d(p, R, c->mlp) : gate;
        linear_fwd(p, &b->gate, gate, n, ACT_NONE, tensor_none());
        linear_fwd(p, &b->up, up, n, ACT_NONE, tensor_none());
        op_silu_mul_fwd(p->d, both, gate, up);
        add_branch(s, &b->down, y, x, both, drop);
        if (k) k->h = gate;
        if (k) k->up = up;
    }
    arena_release(p->temp, mark);
}

/* h + positions, in place */
static void add_positions(const step *s, tensor h)
{
    if (s->m->config->family != LM_GPT2) return;
    if (tensor_given(s->at)) {
        size_t mark = arena_mark(s->p->temp);
        tensor own = pass_2d(s->p, s->B, s->m->config->width), rows = tensor_reshape2(h, s->B, own.dim[1]);
        op_embedding_fwd(s->p->d, own, s->m->positions.v, s->at);
        op_add_fwd(s->p->d, rows, rows, own);
        arena_release(s->p->temp, mark);
        return;
    }
    tensor at = tensor_unsqueeze(tensor_slice(s->m->positions.v, 0, s->first, s->T), 0);
    op_add_fwd(s->p->d, h, h, tensor_expand(at, 0, s->B));
}

static void run_blocks(const step *s, tensor h)
{
    tensor rows = tensor_reshape2(h, s->B * s->T, s->m->config->width);
    add_positions(s, h);
    for (int i = 0; i < s->m->config->layers; i++) {
        attention(s, &s->m->blocks[i], i, rows, rows, NULL);
        feed_forward(s, &s->m->blocks[i], i, rows, rows, NULL);
    }
    norm_fwd(s->p, &s->m->norm_final, rows, rows, NULL);
}

void lm_fwd(const pass *p, const lm *m, tensor h, int64_t first, const lm_cache *cache, int64_t row_step,
            tensor index)
{
    step s = { .p = p,
               .m = m,
               .B = h.dim[0],
               .T = h.dim[1],
               .R = h.dim[0] * h.dim[1],
               .first = first,
               .cache = cache,
               .row_step = row_step,
               .index = index,
               .at = tensor_none() };
    run_blocks(&s, h);
}

void lm_step(const pass *p, const lm *m, tensor h, tensor at, const lm_cache *cache, tensor index)
{
    step s = { .p = p,
               .m = m,
               .B = h.dim[0],
               .T = 1,
               .R = h.dim[0],
               .first = index.dim[1] - 1,
               .cache = cache,
               .row_step = 1,
               .index = index,
               .at = at };
    run_blocks(&s, h);
}

void lm_embed(const pass *p, const lm *m, tensor y, tensor ids) { op_embedding_fwd(p->d, y, m->embedding.v, ids); }

void lm_logits(const pass *p, const lm *m, tensor logits, tensor h)
{
    op_linear_fwd(p->d, logits, h, m->head.v, tensor_none(), tensor_none(), (linear_options){ .act = ACT_NONE });
}

/* ---- whole sequences, and backward ------------------------------------------------------------------- */

static step whole_step(const pass *p, const lm *m, tensor h, const lm_rows *rows, const lm_kept *k)
{
    return (step){ .p = p,
                   .m = m,
                   .B = h.dim[0],
                   .T = h.dim[1],
                   .R = rows ? rows->pack.dim[0] : h.dim[0] * h.dim[1],
                   .rows = rows,
                   .index = tensor_none(),
                   .at = tensor_none(),
                   .dropout = k && k->drop ? &k->key : NULL };
}

/* y from x through block i; what lies between goes to keep. */
static void block_fwd(const step *s, int i, tensor y, tensor x, lm_block_kept *k)
{
    pass keep = keeping(s, k);
    tensor between = k ? pass_2d(&keep, x.dim[0], x.dim[1]) : y;
    attention(s, &s->m->blocks[i], i, between, x, k);
    feed_forward(s, &s->m->blocks[i], i, y, between, k);
}

void lm_whole_fwd(const pass *p, const lm *m, tensor y, tensor h, const lm_rows *rows, lm_kept *k)
{
    step s = whole_step(p, m, h, rows, k);
    int64_t R = s.R, d = m->config->width;
    tensor x = tensor_reshape2(h, s.B * s.T, d);
    pass keep = keeping(&s, k);
    dropout_options drop = drop_at(&s, m->config->dropout_embd, m->config->layers, 0);
    add_positions(&s, h);
    if (drop.rate > 0) op_dropout(p->d, x, x, tensor_none(), drop);
    if (rows) {
        tensor all = x;
        pack(&s, x = pass_2d(&keep, R, d), all);
    }
    for (int i = 0; i < m->config->layers; i++) {
        tensor next = k ? pass_2d(&keep, R, d) : x;
        size_t mark = k ? arena_mark(p->keep) : 0;
        if (k) k->inputs[i] = x;
        block_fwd(&s, i, next, x, k ? &k->blocks[i] : NULL);
        if (k && k->recompute) arena_release(p->keep, mark);
        x = next;
    }
    norm_fwd(p, &m->norm_final, y, x, k ? &k->norm_final : NULL);
}

/* What a norm gave, made anew where the gradient of a weight needs it. */
static tensor normed_again(const step *s, const norm *m, const norm_kept *k, bool wanted)
{
    if (!wanted) return tensor_none();
    tensor n = pass_2d(s->p, k->x.dim[0], k->x.dim[1]);
    norm_fwd(s->p, m, n, k->x, NULL);
    return n;
}

/* dy becomes the gradient at norm2's input. */
static void feed_forward_bwd(const step *s, const lm_block *b, int layer, tensor dy, const lm_block_kept *k)
{
    const lm_config *c = s->m->config;
    const pass *p = s->p;
    int64_t R = s->R;
    size_t mark = arena_mark(p->temp);
    dropout_options drop = drop_at(s, c->dropout_resid, layer, DROP_DOWN);
    tensor dn = pass_2d(p, R, c->width), branch = dy;
    tensor n = normed_again(s, &b->norm2, &k->norm2, linear_trained(&b->up) || linear_trained(&b->gate));
    if (drop.rate > 0) op_dropout(p->d, branch = pass_2d(p, R, c->width), dy, tensor_none(), drop);
    if (c->family == LM_GPT2) {
        mlp both = { b->up, b->down, c->act };
        mlp_bwd(p, &both, dn, branch, &(mlp_kept){ n, k->h }, tensor_none());
    } else {
        tensor dgate = pass_2d(p, R, c->mlp), dup = pass_2d(p, R, c->mlp), a = tensor_none();
        if (linear_trained(&b->down)) op_silu_mul_fwd(p->d, a = pass_2d(p, R, c->mlp), k->h, k->up); /* made anew */
        linear_bwd(p, &b->down, dgate, branch, a, tensor_none());
        op_silu_mul_bwd(p->d, dgate, dup, dgate, k->h, k->up);
        linear_bwd(p, &b->up, dn, dup, n, tensor_none());
        linear_bwd(p, &b->gate, dn, dgate, n, dn);
    }
    norm_bwd(p, &b->norm2, dy, dn, &k->norm2, dy);
    arena_release(p->temp, mark);
}

/* dn (R,d) from the gradients of q, k, v, whole sequences: whole[3], of GPT-2 parts of `all`. */
static void project_bwd(const step *s, const lm_block *b, tensor dn, tensor all, tensor whole[3], tensor n)
{
    const lm_config *c = s->m->config;
    if (c->family == LM_GPT2) {
        tensor rows = s->rows ? pass_2d(s->p, s->R, all.dim[1]) : all;
        pack(s, rows, all);
        linear_bwd(s->p, &b->qkv, dn, rows, n, tensor_none());
        return;
    }
    tensor q4 = by_head(s, whole[0], c->heads), k4 = by_head(s, whole[1], c->kv_heads);
    op_rope_bwd(s->p->d, q4, q4, rope_at(s));
    op_rope_bwd(s->p->d, k4, k4, rope_at(s));
    const linear *m[3] = { &b->q, &b->k, &b->v };
    for (int i = 0; i < 3; i++) {
        tensor rows = s->rows ? pass_2d(s->p, s->R, whole[i].dim[1]) : whole[i];
        pack(s, rows, whole[i]);
        linear_bwd(s->p, m[i], dn, rows, n, i ? dn : tensor_none());
    }
}

/* The gradients at query, key and value, whole sequences, from dmixed (B*T,H*D). */
static void mixing_bwd(const step *s, int layer, tensor dwhole[3], tensor dmixed, const lm_block_kept *k)
{
    const lm_config *c = s->m->config;
    tensor whole[3], mixed = spread(s, k->mixed);
    for (int i = 0; i < 3; i++) whole[i] = spread(s, k->part[i]);
    if (s->rows) rotate(s, whole);
    op_attention_bwd(s->p->d, by_head(s, dwhole[0], c->heads), by_head(s, dwhole[1], c->kv_heads),
                     by_head(s, dwhole[2], c->kv_heads), by_head(s, dmixed, c->heads), by_head(s, mixed, c->heads),
                     k->lse, by_head(s, whole[0], c->heads), by_head(s, whole[1], c->kv_heads),
                     by_head(s, whole[2], c->kv_heads), attention_at(s, layer));
}

/* dy becomes the gradient at norm1's input. */
static void attention_bwd(const step *s, const lm_block *b, int layer, tensor dy, const lm_block_kept *k)
{
    const lm_config *c = s->m->config;
    const pass *p = s->p;
    int64_t places = s->B * s->T;
    size_t mark = arena_mark(p->temp);
    dropout_options drop = drop_at(s, c->dropout_resid, layer, DROP_OUT);
    tensor dn = pass_2d(p, s->R, c->width), branch = dy, all = tensor_none(), dwhole[3], with_zero;
    tensor rows = spreadable(s, query_width(c), &with_zero), dmixed = packable(s, rows);
    if (drop.rate > 0) op_dropout(p->d, branch = dn, dy, tensor_none(), drop);
    linear_bwd(p, &b->out, rows, branch, k->mixed, tensor_none());
    if (s->rows) spread_to(s, dmixed, with_zero);
    if (c->family == LM_GPT2) {
        split_qkv(all = pass_2d(p, places, 3 * query_width(c)), dwhole);
    } else {
        for (int i = 0; i < 3; i++) dwhole[i] = pass_2d(p, places, i == 0 ? query_width(c) : key_width(c));
    }
    mixing_bwd(s, layer, dwhole, dmixed, k);
    bool trained =
        linear_trained(&b->qkv) || linear_trained(&b->q) || linear_trained(&b->k) || linear_trained(&b->v);
    project_bwd(s, b, dn, all, dwhole, normed_again(s, &b->norm1, &k->norm1, trained));
    norm_bwd(p, &b->norm1, dy, dn, &k->norm1, dy);
    arena_release(p->temp, mark);
}

void lm_whole_bwd(const pass *p, const lm *m, tensor dh, tensor dy, const lm_rows *rows, lm_kept *k)
{
    step s = whole_step(p, m, dh, rows, k);
    int64_t R = s.R, d = m->config->width;
    size_t mark = arena_mark(p->temp);
    tensor whole = tensor_reshape2(dh, s.B * s.T, d), with_zero, dx = rows ? spreadable(&s, d, &with_zero) : whole;
    dropout_options drop = drop_at(&s, m->config->dropout_embd, m->config->layers, 0);
    norm_bwd(p, &m->norm_final, dx, dy, &k->norm_final, tensor_none());
    for (int i = m->config->layers - 1; i >= 0; i--) {
        size_t temp = arena_mark(p->temp), keep = arena_mark(p->keep);
        if (k->recompute) block_fwd(&s, i, pass_2d(p, R, d), k->inputs[i], &k->blocks[i]);
        feed_forward_bwd(&s, &m->blocks[i], i, dx, &k->blocks[i]);
        attention_bwd(&s, &m->blocks[i], i, dx, &k->blocks[i]);
        arena_release(p->keep, keep);
        arena_release(p->temp, temp);
    }
    if (rows) spread_to(&s, whole, with_zero);
    if (drop.rate > 0) op_dropout(p->d, whole, whole, tensor_none(), drop);
    if (tensor_given(m->positions.g)) {
        tensor at = tensor_unsqueeze(tensor_slice(m->positions.g, 0, 0, s.T), 0);
        op_sum(p->d, at, dh, true);
    }
    arena_release(p->temp, mark);
}

void lm_embed_bwd(const pass *p, const lm *m, tensor dy, tensor ids)
{
    if (tensor_given(m->embedding.g)) op_embedding_bwd(p->d, m->embedding.g, dy, ids);
}

void lm_logits_bwd(const pass *p, const lm *m, tensor dh, tensor dlogits, tensor h)
{
    op_linear_bwd(p->d, dh, m->head.g, tensor_none(), dlogits, h, m->head.v, tensor_none(), false);
}
