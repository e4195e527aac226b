/* twoway.c - SAM's two-way transformer, in the mask decoder and in the feature mixer.
 *
 * Source: segment_anything transformer.py / transformers modeling_sam.py SamTwoWayTransformer; model.md 4.
 * The attentions between tokens and image are in absorbed form (performance.md 3.6): the image-side projections are
 * moved to the few tokens, so no key, query, value or output of image size exists. With T tokens and H heads:
 *   token to image: scores (x + pe) . a, a[h,t] = Wk_h^T q[h,t] / sqrt(D); the key bias cancels in the softmax;
 *                   read-out y[h,t] = sum p x, then Wv_h y + bv
 *   image to token: scores (x + pe) . k'[h,t] + bq_h . k[h,t], k'[h,t] = Wq_h^T k[h,t]; mix of v'[h,t] = Wo_h
 * v[h,t]
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

/* ---- forward ----------------------------------------------------------------------------------------- */

typedef struct frame { /* sizes of one call */
    const pass *p;
    int64_t N, T, C, M, H, D;
} frame;

/* (N,T,C) or (N,T,M) as rows. */
static tensor rows(tensor t) { return tensor_reshape2(t, t.dim[0] * t.dim[1], t.dim[2]); }
/* (N*T, M) -> (N,H,T,D) */
static tensor by_head(const frame *f, tensor t)
{
    return tensor_swap(tensor_reshape4(t, f->N, f->T, f->H, f->D), 1, 2);
}
/* A weight read head by head, the same for all regions: (H, a, b) -> (N,H,a,b), stride 0. */
static tensor for_all(const frame *f, tensor w) { return tensor_expand(tensor_unsqueeze(w, 0), 0, f->N); }
/* w (M,C) -> (N,H,D,C) */
static tensor head_rows(const frame *f, tensor w) { return for_all(f, tensor_split(w, 0, f->H)); }
/* w (C,M) -> (N,H,C,D) */
static tensor head_columns(const frame *f, tensor w)
{
    return for_all(f, tensor_swap(tensor_split(w, 1, f->H), 0, 1));
}

static tensor project(const frame *f, const param *w, const param *b, tensor x)
{
    tensor y = pass_2d(f->p, f->N * f->T, f->M);
    op_linear_fwd(f->p->d, y, rows(x), w->v, b->v, tensor_none(), (linear_options){ .act = ACT_NONE });
    return y;
}

/* out (N,T,C) = out + attention of the tokens qe = q + e over the image. */
static void token_to_image(const frame *f, const cross *m, tensor q, tensor qe, tensor x, tensor pe)
{
    const pass *p = f->p;
    size_t mark = arena_mark(p->temp);
    tensor query = project(f, &m->q_w, &m->q_b, qe);
    tensor a = pass_4d(p, f->N, f->H, f->T, f->C), pooled = pass_4d(p, f->N, f->H, f->T, f->C);
    tensor mixed = pass_2d(p, f->N * f->T, f->M);
    matmul_options scaled = { .alpha = 1.0f / sqrtf((float)f->D) }, transposed = { .alpha = 1, .trans_b = true };
    op_matmul_fwd(p->d, a, by_head(f, query), head_rows(f, m->k_w.v), scaled);
    op_image_pool_fwd(p->d, tensor_reshape3(pooled, f->N, f->H * f->T, f->C), tensor_none(), x, pe,
                      tensor_reshape3(a, f->N, f->H * f->T, f->C));
    op_matmul_fwd(p->d, by_head(f, mixed), pooled, head_rows(f, m->v_w.v), transposed);
    op_add_fwd(p->d, mixed, mixed, tensor_expand(tensor_unsqueeze(m->v_b.v, 0), 0, f->N * f->T));
    op_linear_fwd(p->d, rows(q), mixed, m->out_w.v, m->out_b.v, rows(q), (linear_options){ .act = ACT_NONE });
    arena_release(p->temp, mark);
}

/* y = LN(x + attention of the image over the tokens). */
static void image_to_token(const frame *f, const cross *m, const norm *n, tensor y, tensor x, tensor pe, tensor q,
                           tensor qe)
{
    const pass *p = f->p;
    size_t mark = arena_mark(p->temp);
    int64_t J = f->H * f->T;
    tensor key = project(f, &m->k_w, &m->k_b, qe), value = project(f, &m->v_w, &m->v_b, q);
    tensor k = pass_4d(p, f->N, f->H, f->T, f->C), kb = pass_4d(p, f->N, f->H, f->T, 1);
    tensor v = pass_4d(p, f->N, f->H, f->T, f->C);
    matmul_options scaled = { .alpha = 1.0f / sqrtf((float)f->D) }, transposed = { .alpha = 1, .trans_b = true };
    op_matmul_fwd(p->d, k, by_head(f, key), head_rows(f, m->q_w.v), scaled);
    op_matmul_fwd(p->d, kb, by_head(f, key), for_all(f, tensor_reshape3(m->q_b.v, f->H, f->D, 1)), scaled);
    op_matmul_fwd(p->d, v, by_head(f, value), head_columns(f, m->out_w.v), transposed);
    op_image_update_fwd(p->d, y, x, pe, tensor_reshape3(k, f->N, J, f->C), tensor_reshape2(kb, f->N, J),
                        tensor_reshape3(v, f->N, J, f->C), m->out_b.v, n->w.v, n->b.v,
                        (image_update_options){ .heads = (int)f->H, .eps = n->eps });
    arena_release(p->temp, mark);
}

/* y = out(attention(qe, qe, q)) + r, r absent or y */
static void self_attention(const frame *f, const twoway_block *b, tensor y, tensor q, tensor qe, tensor r)
{
    const pass *p = f->p;
    size_t mark = arena_mark(p->temp);
    int64_t R = f->N * f->T, D = f->C / f->H;
    tensor part[4], head[4];
    for (int i = 0; i < 4; i++) {
        part[i] = pass_2d(p, R, f->C);
        head[i] = tensor_reshape4(part[i], f->N, f->T, f->H, D);
    }
    linear_fwd(p, &b->q, part[0], rows(qe), ACT_NONE, tensor_none());
    linear_fwd(p, &b->k, part[1], rows(qe), ACT_NONE, tensor_none());
    linear_fwd(p, &b->v, part[2], rows(q), ACT_NONE, tensor_none());
    op_attention_fwd(p->d, head[3], tensor_none(), head[0], head[1], head[2], tensor_none(),
                     (attention_options){ .scale = 1.0f / sqrtf((float)D), .causal = false });
    linear_fwd(p, &b->out, rows(y), part[3], ACT_NONE, tensor_given(r) ? rows(r) : r);
    arena_release(p->temp, mark);
}

void twoway_fwd(const pass *p, const twoway *m, tensor q, tensor y, tensor t, tensor x, tensor pe)
{
    size_t mark = arena_mark(p->temp);
    frame f = { .p = p, .N = t.dim[0], .T = t.dim[1], .C = m->C, .M = m->M, .H = m->heads, .D = m->M / m->heads };
    tensor qe = pass_3d(p, f.N, f.T, f.C); /* q + t, made anew before each attention */
    for (int i = 0; i < m->layers; i++) {
        const twoway_block *b = &m->blocks[i];
        if (i == 0) { /* quirk Q2: no positions and no residual */
            self_attention(&f, b, q, t, t, tensor_none());
        } else {
            op_add_fwd(p->d, qe, q, t);
            self_attention(&f, b, q, q, qe, q);
        }
        norm_fwd(p, &b->norm1, rows(q), rows(q));
        op_add_fwd(p->d, qe, q, t);
        token_to_image(&f, &b->t2i, q, qe, x, pe);
        norm_fwd(p, &b->norm2, rows(q), rows(q));
        mlp_fwd(p, &b->mlp, rows(q), rows(q), rows(q));
        norm_fwd(p, &b->norm3, rows(q), rows(q));
        op_add_fwd(p->d, qe, q, t);
        image_to_token(&f, &b->i2t, &b->norm4, y, x, pe, q, qe);
        x = y;
    }
    op_add_fwd(p->d, qe, q, t);
    token_to_image(&f, &m->final_t2i, q, qe, x, pe);
    norm_fwd(p, &m->norm_final, rows(q), rows(q));
    arena_release(p->temp, mark);
}
