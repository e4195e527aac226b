/* twoway.c - SAM's two-way transformer, in the mask decoder and in the feature mixer.
 *
 * Source: segment_anything transformer.py / transformers modeling_sam.py SamTwoWayTransformer; model.md 4.
 * The attentions between tokens and image are in absorbed form (performance.md 3.6): the image-side projections are
 * moved to the few tokens, so no key, query, value or output of image size exists. With T tokens and H heads:
 *   token to image: scores (x + pe) . a, a[h,t] = Wk_h^T q[h,t] / sqrt(D); the key bias cancels in the softmax;
 *                   read-out y[h,t] = sum p x, then Wv_h y + bv
 *   image to token: scores (x + pe) . k'[h,t] + bq_h . k[h,t], k'[h,t] = Wq_h^T k[h,t]; mix of v'[h,t] = Wo_h
 * v[h,t]
 * The key bias of token to image has no gradient: it cancels.
 */
#include "nn/nn.h"

#include <math.h>
#include <stdio.h>

/* ---- parameters -------------------------------------------------------------------------------------- */

/* Token side projections are products over rows; image side ones are only ever read head by head. */
static void cross_bind(param_set *s, cross *m, int64_t C, int64_t M, bool token_queries, const char *prefix)
{
    param_kind tokens = PARAM_MATRIX, image = PARAM_ROWS;
    struct {
        const char *name;
        param *w, *b;
        int64_t N, K;
        param_kind kind;
    } row[] = {
        { "q_proj", &m->q_w, &m->q_b, M, C, token_queries ? tokens : image },
        { "k_proj", &m->k_w, &m->k_b, M, C, token_queries ? image : tokens },
        { "v_proj", &m->v_w, &m->v_b, M, C, token_queries ? image : tokens },
        { "out_proj", &m->out_w, &m->out_b, C, M, token_queries ? tokens : image },
    };
    for (size_t i = 0; i < LENGTH(row); i++) {
        param_add(s, row[i].w, row[i].kind, INIT_NORMAL, 2, (int64_t[]){ row[i].N, row[i].K }, "%s.%s.weight",
                  prefix, row[i].name);
        param_add(s, row[i].b, PARAM_SMALL, INIT_ZERO, 1, &row[i].N, "%s.%s.bias", prefix, row[i].name);
    }
}

static void block_bind(param_set *s, twoway_block *b, const char *prefix, int layer, twoway_options o)
{
    char name[160];
    str path = { 0 };
    int64_t C = o.C, M = C / o.downsample;
    str_printf(&path, "%s.layers.%d", prefix, layer);
    const char *at = str_text(&path);
    linear_bind(s, &b->q, true, C, C, "%s.self_attn.q_proj", at);
    linear_bind(s, &b->k, true, C, C, "%s.self_attn.k_proj", at);
    linear_bind(s, &b->v, true, C, C, "%s.self_attn.v_proj", at);
    linear_bind(s, &b->out, true, C, C, "%s.self_attn.out_proj", at);
    layernorm_bind(s, &b->norm1, C, o.eps, "%s.layer_norm1", at);
    snprintf(name, sizeof name, "%s.cross_attn_token_to_image", at);
    cross_bind(s, &b->t2i, C, M, true, name);
    layernorm_bind(s, &b->norm2, C, o.eps, "%s.layer_norm2", at);
    linear_bind(s, &b->mlp.up, true, o.mlp, C, "%s.mlp.lin1", at);
    linear_bind(s, &b->mlp.down, true, C, o.mlp, "%s.mlp.lin2", at);
    b->mlp.act = o.act;
    layernorm_bind(s, &b->norm3, C, o.eps, "%s.layer_norm3", at);
    layernorm_bind(s, &b->norm4, C, o.eps, "%s.layer_norm4", at);
    snprintf(name, sizeof name, "%s.cross_attn_image_to_token", at);
    cross_bind(s, &b->i2t, C, M, false, name);
    s->failed |= path.failed;
    str_free(&path);
}

sca_status twoway_bind(param_set *s, twoway *m, const char *prefix, twoway_options o)
{
    *m = (twoway){ .layers = o.layers, .heads = o.heads, .C = o.C, .M = o.C / o.downsample };
    m->blocks = mem_zero((size_t)o.layers, sizeof *m->blocks);
    if (!m->blocks) return mem_fail((size_t)o.layers * sizeof *m->blocks, "the blocks of a two-way transformer");
    for (int i = 0; i < o.layers; i++) block_bind(s, &m->blocks[i], prefix, i, o);
    char name[160];
    snprintf(name, sizeof name, "%s.final_attn_token_to_image", prefix);
    cross_bind(s, &m->final_t2i, o.C, m->M, true, name);
    layernorm_bind(s, &m->norm_final, o.C, 1e-5f, "%s.layer_norm_final_attn",
                   prefix); /* quirk Q4: the framework's default */
    return SCA_OK;
}

void twoway_free(twoway *m)
{
    mem_free(m->blocks);
    m->blocks = NULL;
}

sca_status twoway_kept_open(twoway_kept *k, const twoway *m)
{
    *k = (twoway_kept){ .blocks = mem_zero((size_t)m->layers, sizeof *k->blocks) };
    if (!k->blocks) return mem_fail((size_t)m->layers * sizeof *k->blocks, "what a two-way transformer keeps");
    return SCA_OK;
}

void twoway_kept_free(twoway_kept *k)
{
    mem_free(k->blocks);
    k->blocks = NULL;
}

/* ---- views ------------------------------------------------------------------------------------------- */

typedef struct frame { /* sizes of one call */
    const pass *p;
    int64_t N, T, C, M, H, D;
    bool keep;
    tensor qe; /* without keep: room for tokens with positions */
} frame;

static frame frame_of(const pass *p, const twoway *m, tensor t, bool keep)
{
    return (frame){ .p = p,
                    .N = t.dim[0],
                    .T = t.dim[1],
                    .C = m->C,
                    .M = m->M,
                    .H = m->heads,
                    .D = m->M / m->heads,
                    .keep = keep,
                    .qe = tensor_none() };
}

/* (N,T,C) or (N,T,M) as rows. */
static tensor rows(tensor t) { return tensor_reshape2(t, t.dim[0] * t.dim[1], t.dim[2]); }
/* (N*T, M) -> (N,H,T,D) */
static tensor by_head(const frame *f, tensor t)
{
    return tensor_swap(tensor_reshape4(t, f->N, f->T, f->H, f->D), 1, 2);
}
/* (N,H,T,C) -> (N,J,C) */
static tensor flat(const frame *f, tensor t) { return tensor_reshape3(t, f->N, f->H * f->T, f->C); }

/* A weight read head by head: w (M,C) -> (1,H,D,C), w (C,M) -> (1,H,C,D), b (M) -> (1,H,D,1). Absent stays absent. */
static tensor head_rows(const frame *f, tensor w)
{
    return tensor_given(w) ? tensor_unsqueeze(tensor_split(w, 0, f->H), 0) : w;
}
static tensor head_columns(const frame *f, tensor w)
{
    return tensor_given(w) ? tensor_unsqueeze(tensor_swap(tensor_split(w, 1, f->H), 0, 1), 0) : w;
}
static tensor head_bias(const frame *f, tensor b)
{
    return tensor_given(b) ? tensor_unsqueeze(tensor_reshape3(b, f->H, f->D, 1), 0) : b;
}
/* The same for all regions: (1,H,a,b) -> (N,H,a,b), stride 0. */
static tensor for_all(const frame *f, tensor w) { return tensor_expand(w, 0, f->N); }

static matmul_options scaled(const frame *f) { return (matmul_options){ .alpha = 1.0f / sqrtf((float)f->D) }; }
static const matmul_options transposed = { .alpha = 1, .trans_b = true };

static tensor heads_4d(const frame *f, int64_t width) { return pass_4d(f->p, f->N, f->H, f->T, width); }

/* ---- forward ----------------------------------------------------------------------------------------- */

/* Where the next tokens go: in place of q, or to a tensor that backward finds again. */
static tensor next_tokens(const frame *f, tensor q)
{
    pass keep = pass_keeping(f->p);
    return f->keep ? pass_3d(&keep, f->N, f->T, f->C) : q;
}

static tensor next_rows(const frame *f, int64_t width)
{
    pass keep = pass_keeping(f->p);
    return pass_2d(f->keep ? &keep : f->p, f->N * f->T, width);
}

/* q + t */
static tensor with_positions(const frame *f, tensor q, tensor t)
{
    tensor qe = next_tokens(f, f->qe);
    op_add_fwd(f->p->d, qe, q, t);
    return qe;
}

/* What op_linear_fwd adds to: y begins as x. */
static void residual(const frame *f, tensor y, tensor x)
{
    if (f->keep) op_copy(f->p->d, y, x);
}

static tensor project(const frame *f, const param *w, const param *b, tensor x)
{
    tensor y = next_rows(f, f->M);
    op_linear_fwd(f->p->d, y, rows(x), w->v, b->v, tensor_none(), (linear_options){ .act = ACT_NONE });
    return y;
}

/* a (N,H,T,C): what the tokens ask the image tokens for. */
static tensor pool_queries(const frame *f, const cross *m, tensor query)
{
    tensor a = heads_4d(f, f->C);
    op_matmul_fwd(f->p->d, a, by_head(f, query), for_all(f, head_rows(f, m->k_w.v)), scaled(f));
    return a;
}

/* y (N,T,C) = q + attention of the tokens qe over the image; without k y is q. */
static void token_to_image(const frame *f, const cross *m, tensor y, tensor q, tensor qe, tensor x, tensor pe,
                           pool_kept *k)
{
    const pass *p = f->p;
    pass keep = pass_keeping(p);
    int64_t J = f->H * f->T;
    size_t mark = arena_mark(p->temp);
    tensor query = project(f, &m->q_w, &m->q_b, qe), mixed = next_rows(f, f->M);
    tensor pooled = pass_4d(k ? &keep : p, f->N, f->H, f->T, f->C), lse = tensor_none();
    if (k) {
        lse = tensor_reshape2(pass_stat(&keep, f->N * J), f->N, J);
        *k = (pool_kept){ qe, query, flat(f, pooled), lse, mixed, x };
    }
    tensor a = pool_queries(f, m, query);
    op_image_pool_fwd(p->d, flat(f, pooled), lse, x, pe, flat(f, a));
    op_matmul_fwd(p->d, by_head(f, mixed), pooled, for_all(f, head_rows(f, m->v_w.v)), transposed);
    op_add_fwd(p->d, mixed, mixed, tensor_expand(tensor_unsqueeze(m->v_b.v, 0), 0, f->N * f->T));
    residual(f, y, q);
    op_linear_fwd(p->d, rows(y), mixed, m->out_w.v, m->out_b.v, rows(y), (linear_options){ .act = ACT_NONE });
    arena_release(p->temp, mark);
}

typedef struct answers { /* what the tokens offer to the image tokens */
    tensor k, kb, v;     /* (N,H,T,C) (N,H,T,1) (N,H,T,C) */
} answers;

static answers update_answers(const frame *f, const cross *m, tensor key, tensor value)
{
    dev *d = f->p->d;
    answers a = { heads_4d(f, f->C), heads_4d(f, 1), heads_4d(f, f->C) };
    op_matmul_fwd(d, a.k, by_head(f, key), for_all(f, head_rows(f, m->q_w.v)), scaled(f));
    op_matmul_fwd(d, a.kb, by_head(f, key), for_all(f, head_bias(f, m->q_b.v)), scaled(f));
    op_matmul_fwd(d, a.v, by_head(f, value), for_all(f, head_columns(f, m->out_w.v)), transposed);
    return a;
}

/* y = LN(x + attention of the image over the tokens). */
static void image_to_token(const frame *f, const cross *m, const norm *n, tensor y, tensor x, tensor pe, tensor q,
                           tensor qe, update_kept *k)
{
    const pass *p = f->p;
    size_t mark = arena_mark(p->temp);
    tensor key = project(f, &m->k_w, &m->k_b, qe), value = project(f, &m->v_w, &m->v_b, q);
    if (k) *k = (update_kept){ q, qe, key, value, x };
    answers a = update_answers(f, m, key, value);
    op_image_update_fwd(p->d, y, x, pe, flat(f, a.k), tensor_reshape2(a.kb, f->N, f->H * f->T), flat(f, a.v),
                        m->out_b.v, n->w.v, n->b.v, (image_update_options){ .heads = (int)f->H, .eps = n->eps });
    arena_release(p->temp, mark);
}

static attention_options self_options(const frame *f)
{
    return (attention_options){ .scale = 1.0f / sqrtf((float)(f->C / f->H)), .causal = false };
}

/* (N*T,C) -> (N,T,H,C/H) */
static tensor self_heads(const frame *f, tensor t) { return tensor_reshape4(t, f->N, f->T, f->H, f->C / f->H); }

/* y = out(attention(qe, qe, q)) + r, r absent or y */
static void self_attention(const frame *f, const twoway_block *b, tensor y, tensor q, tensor qe, tensor r,
                           self_kept *k)
{
    const pass *p = f->p;
    size_t mark = arena_mark(p->temp);
    tensor part[4], lse = tensor_none();
    for (int i = 0; i < 4; i++) part[i] = next_rows(f, f->C);
    if (k) {
        pass keep = pass_keeping(p);
        lse = tensor_reshape3(pass_stat(&keep, f->N * f->H * f->T), f->N, f->H, f->T);
        *k = (self_kept){ q, qe, { part[0], part[1], part[2], part[3] }, lse };
    }
    linear_fwd(p, &b->q, part[0], rows(qe), ACT_NONE, tensor_none());
    linear_fwd(p, &b->k, part[1], rows(qe), ACT_NONE, tensor_none());
    linear_fwd(p, &b->v, part[2], rows(q), ACT_NONE, tensor_none());
    op_attention_fwd(p->d, self_heads(f, part[3]), lse, self_heads(f, part[0]), self_heads(f, part[1]),
                     self_heads(f, part[2]), tensor_none(), self_options(f));
    linear_fwd(p, &b->out, rows(y), part[3], ACT_NONE, tensor_given(r) ? rows(r) : r);
    arena_release(p->temp, mark);
}

/* The tokens of block i before its first norm; without k in place of q. */
static tensor first_step(const frame *f, const twoway_block *b, int i, tensor q, tensor t, self_kept *k)
{
    tensor y = next_tokens(f, q);
    if (i == 0) { /* quirk Q2: no positions and no residual */
        self_attention(f, b, y, t, t, tensor_none(), k);
    } else {
        residual(f, y, q);
        self_attention(f, b, y, q, with_positions(f, q, t), y, k);
    }
    return y;
}

static tensor normed(const frame *f, const norm *m, tensor q, norm_kept *k)
{
    tensor y = next_tokens(f, q);
    norm_fwd(f->p, m, rows(y), rows(q), k);
    return y;
}

/* One block: the tokens afterwards; y the image tokens afterwards. */
static tensor block_fwd(const frame *f, const twoway_block *b, int i, tensor y, tensor q, tensor t, tensor x,
                        tensor pe, twoway_block_kept *k)
{
    tensor sum = first_step(f, b, i, q, t, k ? &k->self : NULL);
    q = normed(f, &b->norm1, sum, k ? &k->norm1 : NULL);
    sum = next_tokens(f, q);
    token_to_image(f, &b->t2i, sum, q, with_positions(f, q, t), x, pe, k ? &k->t2i : NULL);
    q = normed(f, &b->norm2, sum, k ? &k->norm2 : NULL);
    sum = next_tokens(f, q);
    residual(f, sum, q);
    mlp_fwd(f->p, &b->mlp, rows(sum), rows(q), rows(sum), k ? &k->mlp : NULL);
    q = normed(f, &b->norm3, sum, k ? &k->norm3 : NULL);
    image_to_token(f, &b->i2t, &b->norm4, y, x, pe, q, with_positions(f, q, t), k ? &k->i2t : NULL);
    return q;
}

void twoway_fwd(const pass *p, const twoway *m, tensor q, tensor y, tensor t, tensor x, tensor pe, twoway_kept *k)
{
    size_t mark = arena_mark(p->temp);
    frame f = frame_of(p, m, t, k != NULL);
    pass keep = pass_keeping(p);
    if (k)
        k->pe = pe;
    else
        f.qe = pass_3d(p, f.N, f.T, f.C);
    tensor at = q;
    for (int i = 0; i < m->layers; i++) {
        tensor to = k && i < m->layers - 1 ? pass_3d(&keep, f.N, x.dim[1], f.C) : y;
        at = block_fwd(&f, &m->blocks[i], i, to, at, t, x, pe, k ? &k->blocks[i] : NULL);
        x = to;
    }
    tensor sum = next_tokens(&f, q);
    token_to_image(&f, &m->final_t2i, sum, at, with_positions(&f, at, t), x, pe, k ? &k->final_t2i : NULL);
    norm_fwd(p, &m->norm_final, rows(q), rows(sum), k ? &k->norm_final : NULL);
    arena_release(p->temp, mark);
}

/* ---- backward ---------------------------------------------------------------------------------------- */

/* All of these take dq, the gradient at the tokens, and make it the gradient at the tokens before; what goes to the
 * positions is added to dt. */

static void add_to(const frame *f, tensor y, tensor x) { op_add_fwd(f->p->d, y, y, x); }

static void project_bwd(const frame *f, const param *w, const param *b, tensor dx, tensor dy, tensor x)
{
    op_linear_bwd(f->p->d, rows(dx), w->g, b->g, dy, rows(x), w->v, tensor_none(), false);
}

/* dx (N,S,C), absent if not wanted: the gradient at the image tokens; r as for dx, what came there from elsewhere. */
static void token_to_image_bwd(const frame *f, const cross *m, tensor dq, tensor dt, tensor dx, tensor r, tensor pe,
                               const pool_kept *k)
{
    const pass *p = f->p;
    size_t mark = arena_mark(p->temp);
    tensor dmixed = pass_2d(p, f->N * f->T, f->M), dquery = pass_2d(p, f->N * f->T, f->M);
    tensor dpooled = heads_4d(f, f->C), da = heads_4d(f, f->C), dqe = pass_3d(p, f->N, f->T, f->C);
    tensor pooled = tensor_reshape4(k->pooled, f->N, f->H, f->T, f->C), v_b = m->v_b.g;
    op_linear_bwd(p->d, dmixed, m->out_w.g, m->out_b.g, rows(dq), k->mixed, m->out_w.v, tensor_none(), false);
    if (tensor_given(v_b)) op_sum(p->d, tensor_unsqueeze(v_b, 0), dmixed, true);
    op_matmul_bwd(p->d, dpooled, head_rows(f, m->v_w.g), by_head(f, dmixed), pooled,
                  for_all(f, head_rows(f, m->v_w.v)), transposed, true);
    tensor a = pool_queries(f, m, k->query);
    op_image_pool_bwd(p->d, dx, flat(f, da), flat(f, dpooled), k->pooled, k->lse, k->x, pe, flat(f, a), r);
    op_matmul_bwd(p->d, by_head(f, dquery), head_rows(f, m->k_w.g), da, by_head(f, k->query),
                  for_all(f, head_rows(f, m->k_w.v)), scaled(f), true);
    project_bwd(f, &m->q_w, &m->q_b, dqe, dquery, k->qe);
    add_to(f, dq, dqe);
    add_to(f, dt, dqe);
    arena_release(p->temp, mark);
}

/* dx as dy, or absent. */
static void image_to_token_bwd(const frame *f, const cross *m, const norm *n, tensor dq, tensor dt, tensor dx,
                               tensor dy, tensor pe, const update_kept *k)
{
    const pass *p = f->p;
    size_t mark = arena_mark(p->temp);
    int64_t R = f->N * f->T, J = f->H * f->T;
    answers a = update_answers(f, m, k->key, k->value);
    answers da = { heads_4d(f, f->C), heads_4d(f, 1), heads_4d(f, f->C) };
    tensor dkey = pass_2d(p, R, f->M), dbias = pass_2d(p, R, f->M), dvalue = pass_2d(p, R, f->M);
    tensor dqe = pass_3d(p, f->N, f->T, f->C);
    op_image_update_bwd(p->d, dx, flat(f, da.k), tensor_reshape2(da.kb, f->N, J), flat(f, da.v), m->out_b.g, n->w.g,
                        n->b.g, dy, k->x, pe, flat(f, a.k), tensor_reshape2(a.kb, f->N, J), flat(f, a.v),
                        m->out_b.v, n->w.v, (image_update_options){ .heads = (int)f->H, .eps = n->eps });
    op_matmul_bwd(p->d, by_head(f, dvalue), head_columns(f, m->out_w.g), da.v, by_head(f, k->value),
                  for_all(f, head_columns(f, m->out_w.v)), transposed, true);
    op_matmul_bwd(p->d, by_head(f, dkey), head_rows(f, m->q_w.g), da.k, by_head(f, k->key),
                  for_all(f, head_rows(f, m->q_w.v)), scaled(f), true);
    op_matmul_bwd(p->d, by_head(f, dbias), head_bias(f, m->q_b.g), da.kb, by_head(f, k->key),
                  for_all(f, head_bias(f, m->q_b.v)), scaled(f), true);
    add_to(f, dkey, dbias);
    project_bwd(f, &m->v_w, &m->v_b, dqe, dvalue, k->q);
    add_to(f, dq, dqe);
    project_bwd(f, &m->k_w, &m->k_b, dqe, dkey, k->qe);
    add_to(f, dq, dqe);
    add_to(f, dt, dqe);
    arena_release(p->temp, mark);
}

/* first: dq ends as 0, everything goes to dt. */
static void self_attention_bwd(const frame *f, const twoway_block *b, bool first, tensor dq, tensor dt,
                               const self_kept *k)
{
    const pass *p = f->p;
    size_t mark = arena_mark(p->temp);
    tensor dpart[4], dqe = pass_3d(p, f->N, f->T, f->C), dv = pass_3d(p, f->N, f->T, f->C);
    for (int i = 0; i < 4; i++) dpart[i] = pass_2d(p, f->N * f->T, f->C);
    linear_bwd(p, &b->out, dpart[3], rows(dq), k->part[3], tensor_none());
    op_attention_bwd(p->d, self_heads(f, dpart[0]), self_heads(f, dpart[1]), self_heads(f, dpart[2]),
                     self_heads(f, dpart[3]), self_heads(f, k->part[3]), k->lse, self_heads(f, k->part[0]),
                     self_heads(f, k->part[1]), self_heads(f, k->part[2]), self_options(f));
    linear_bwd(p, &b->q, rows(dqe), dpart[0], rows(k->qe), tensor_none());
    linear_bwd(p, &b->k, rows(dqe), dpart[1], rows(k->qe), rows(dqe));
    linear_bwd(p, &b->v, rows(dv), dpart[2], rows(k->q), tensor_none());
    add_to(f, dt, dqe);
    if (first) {
        add_to(f, dt, dv);
        op_fill(p->d, dq, 0);
    } else {
        add_to(f, dq, dqe);
        add_to(f, dq, dv);
    }
    arena_release(p->temp, mark);
}

/* to: where the gradient at the block's own image tokens goes, dx or absent; dx: that of those it made. */
static void block_bwd(const frame *f, const twoway_block *b, bool first, tensor dq, tensor dt, tensor to, tensor dx,
                      tensor pe, const twoway_block_kept *k)
{
    size_t mark = arena_mark(f->p->temp);
    tensor between = pass_3d(f->p, f->N, f->T, f->C);
    image_to_token_bwd(f, &b->i2t, &b->norm4, dq, dt, to, dx, pe, &k->i2t);
    norm_bwd(f->p, &b->norm3, rows(dq), rows(dq), &k->norm3, tensor_none());
    mlp_bwd(f->p, &b->mlp, rows(between), rows(dq), &k->mlp, rows(dq));
    norm_bwd(f->p, &b->norm2, rows(dq), rows(between), &k->norm2, tensor_none());
    token_to_image_bwd(f, &b->t2i, dq, dt, to, to, pe, &k->t2i);
    norm_bwd(f->p, &b->norm1, rows(dq), rows(dq), &k->norm1, tensor_none());
    self_attention_bwd(f, b, first, dq, dt, &k->self);
    arena_release(f->p->temp, mark);
}

void twoway_bwd(const pass *p, const twoway *m, tensor dt, tensor dx, tensor dq, tensor dy, const twoway_kept *k)
{
    size_t mark = arena_mark(p->temp);
    frame f = frame_of(p, m, dq, false);
    tensor at = pass_3d(p, f.N, f.T, f.C), image = dx;
    if (!tensor_given(dx)) image = tensor_given(dy) ? dy : pass_3d(p, f.N, k->final_t2i.x.dim[1], f.C);
    op_fill(p->d, dt, 0);
    norm_bwd(p, &m->norm_final, rows(at), rows(dq), &k->norm_final, tensor_none());
    token_to_image_bwd(&f, &m->final_t2i, at, dt, image, dy, k->pe, &k->final_t2i);
    for (int i = m->layers - 1; i >= 0; i--)
        block_bwd(&f, &m->blocks[i], i == 0, at, dt, i == 0 ? dx : image, image, k->pe, &k->blocks[i]);
    arena_release(p->temp, mark);
}
