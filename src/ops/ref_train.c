/* ref_train.c - the definition of every backward op and of the optimiser: plain loops in double precision, as in ref.c. */
#include "ops/ref.h"

/* ---- products ---------------------------------------------------------------------------------------------- */

static void add_rows(tensor db, tensor dy)
{
    for (int64_t i = 0; i < dy.dim[0] && tensor_given(db); i++) add_scaled(row0(db), 1, row1(dy, i), dy.dim[1]);
}

/* dm (I,J) += alpha a^T b, a (R,I), b (R,J) */
static void add_product(tensor dm, double alpha, tensor a, tensor b)
{
    for (int64_t r = 0; r < a.dim[0]; r++)
        for (int64_t i = 0; i < a.dim[1]; i++) add_scaled(row1(dm, i), alpha * row1(a, r)[i], row1(b, r), b.dim[1]);
}

void ref_linear_bwd(dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x, tensor w, tensor r, bool in_out)
{
    int64_t R = dy.dim[0], N = dy.dim[1], K = tensor_given(dx) ? dx.dim[1] : 1;
    double *sum = scratch(d, K);
    if (!sum) return;
    for (int64_t i = 0; i < R && tensor_given(dx); i++) {
        tensor m = matrix(w);
        memset(sum, 0, (size_t)K * sizeof *sum);
        if (in_out)
            for (int64_t k = 0; k < K; k++) sum[k] = dot(row1(dy, i), row1(m, k), N);
        else
            for (int64_t n = 0; n < N; n++) add_scaled(sum, row1(dy, i)[n], row1(m, n), K);
        if (tensor_given(r)) add_scaled(sum, 1, row1(r, i), K);
        memcpy(row1(dx, i), sum, (size_t)K * sizeof *sum);
    }
    mem_free(sum);
    if (tensor_given(dw)) add_product(matrix(dw), 1, in_out ? x : dy, in_out ? dy : x);
    add_rows(db, dy);
}

static tensor part(tensor t, int64_t i, int64_t j)
{
    return tensor_at(tensor_at(t, t.dim[0] == 1 ? 0 : i), t.dim[1] == 1 ? 0 : j);
}

void ref_matmul_bwd(dev *d, tensor da, tensor db, tensor dy, tensor a, tensor b, matmul_options o, bool add)
{
    if (tensor_given(da)) ref_matmul_fwd(d, da, dy, b, (matmul_options){ .alpha = o.alpha, .trans_b = !o.trans_b });
    if (!tensor_given(db)) return;
    if (!add) ref_fill(d, db, 0);
    db = four_axes(db);
    dy = four_axes(dy);
    a = four_axes(a);
    for (int64_t i = 0; i < dy.dim[0]; i++)
        for (int64_t j = 0; j < dy.dim[1]; j++) {
            tensor y = part(dy, i, j), x = part(a, i, j);
            add_product(part(db, i, j), (double)o.alpha, o.trans_b ? y : x, o.trans_b ? x : y);
        }
}

void ref_sum(dev *d, tensor y, tensor x, bool add)
{
    if (!add) ref_fill(d, y, 0);
    y = four_axes(y);
    x = four_axes(x);
    for (int k = 0; k < 4; k++)
        if (y.dim[k] == 1) y.stride[k] = 0;
    for (int64_t i = 0; i < x.dim[0]; i++)
        for (int64_t j = 0; j < x.dim[1]; j++)
            for (int64_t k = 0; k < x.dim[2]; k++)
                for (int64_t l = 0; l < x.dim[3]; l++)
                    row3(y, i, j, k)[y.dim[3] == 1 ? 0 : l] += row3(x, i, j, k)[l];
}

/* ---- norms and elementwise --------------------------------------------------------------------------------- */

/* dx = rstd (g - mean(g) - h mean(g h)) + r with g = dy w and h = (x - mean) rstd; without `centred` mean(g) is left out.
 * dx may be dy or r. */
static void norm_row(double *dx, const double *dy, const double *x, const double *w, const double *r, int64_t C,
                     double mean, double rstd, bool centred)
{
    double sum = 0, along = 0;
    for (int64_t c = 0; c < C; c++) {
        sum += dy[c] * w[c];
        along += dy[c] * w[c] * (x[c] - mean) * rstd;
    }
    if (!centred) sum = 0;
    for (int64_t c = 0; c < C; c++) {
        double h = (x[c] - mean) * rstd;
        dx[c] = rstd * (dy[c] * w[c] - sum / (double)C - h * along / (double)C) + (r ? r[c] : 0);
    }
}

static void norm_parameters(tensor dw, tensor db, const double *dy, const double *x, int64_t C, double mean,
                            double rstd)
{
    for (int64_t c = 0; c < C && tensor_given(dw); c++) row0(dw)[c] += dy[c] * (x[c] - mean) * rstd;
    if (tensor_given(db)) add_scaled(row0(db), 1, dy, C);
}

void ref_layernorm_bwd(dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor mean, tensor rstd, tensor x,
                       tensor w, tensor r)
{
    (void)d;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        double m = row0(mean)[i], s = row0(rstd)[i];
        norm_parameters(dw, db, row1(dy, i), row1(x, i), x.dim[1], m, s);
        if (tensor_given(dx))
            norm_row(row1(dx, i), row1(dy, i), row1(x, i), row0(w), tensor_given(r) ? row1(r, i) : NULL, x.dim[1],
                     m, s, true);
    }
}

void ref_rmsnorm_bwd(dev *d, tensor dx, tensor dw, tensor dy, tensor rstd, tensor x, tensor w, tensor r)
{
    (void)d;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        norm_parameters(dw, tensor_none(), row1(dy, i), row1(x, i), x.dim[1], 0, row0(rstd)[i]);
        if (tensor_given(dx))
            norm_row(row1(dx, i), row1(dy, i), row1(x, i), row0(w), tensor_given(r) ? row1(r, i) : NULL, x.dim[1],
                     0, row0(rstd)[i], false);
    }
}

static double slope(activation act, double x)
{
    switch (act) {
    case ACT_RELU: return x > 0;
    case ACT_GELU: return 0.5 * erfc(-x / sqrt(2.0)) + x * exp(-0.5 * x * x) / sqrt(2 * PI);
    case ACT_GELU_TANH: {
        double t = tanh(sqrt(2 / PI) * (x + 0.044715 * x * x * x));
        return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * sqrt(2 / PI) * (1 + 3 * 0.044715 * x * x);
    }
    case ACT_NONE: break;
    }
    return 1;
}

static void activation_row(double *dx, const double *dy, const double *x, int64_t n, const void *user)
{
    for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * slope(*(const activation *)user, x[i]);
}

void ref_activation_bwd(dev *d, tensor dx, tensor dy, tensor x, activation act)
{
    (void)d;
    ref_each_row(dx, dy, x, activation_row, &act);
}

void ref_silu_mul_bwd(dev *d, tensor dx, tensor du, tensor dy, tensor x, tensor u)
{
    (void)d;
    for (int64_t i = 0; i < x.dim[0]; i++)
        for (int64_t c = 0; c < x.dim[1]; c++) {
            double v = row1(x, i)[c], g = row1(dy, i)[c], s = 1 / (1 + exp(-v));
            double to_x = g * row1(u, i)[c] * s * (1 + v * (1 - s)), to_u = g * v * s;
            if (tensor_given(dx)) row1(dx, i)[c] = to_x;
            if (tensor_given(du)) row1(du, i)[c] = to_u;
        }
}

void ref_dropout(dev *d, tensor y, tensor x, tensor r, dropout_options o)
{
    int64_t C = x.dim[1];
    double *row = scratch(d, C);
    if (!row) return;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        memcpy(row, row1(x, i), (size_t)C * sizeof *row);
        ref_drop_row(row, C, o.first + i, C, o);
        if (tensor_given(r)) add_scaled(row, 1, row1(r, i), C);
        memcpy(row1(y, i), row, (size_t)C * sizeof *row);
    }
    mem_free(row);
}

/* ---- tokens ------------------------------------------------------------------------------------------------ */

void ref_embedding_bwd(dev *d, tensor dtable, tensor dy, tensor ids)
{
    (void)d;
    for (int64_t i = 0; i < dy.dim[0]; i++) add_scaled(row1(dtable, *ids1(ids, i)), 1, row1(dy, i), dy.dim[1]);
}

void ref_rope_bwd(dev *d, tensor dx, tensor dy, rope_options o)
{
    (void)d;
    ref_rotate(dx, dy, tensor_none(), o, -1);
}

/* ---- attention --------------------------------------------------------------------------------------------- */

static void zero(dev *d, tensor t)
{
    if (tensor_given(t)) ref_fill(d, t, 0);
}

static double *maybe3(tensor t, int64_t i, int64_t j, int64_t k)
{
    return tensor_given(t) ? row3(t, i, j, k) : NULL;
}

static void maybe_add(double *to, double a, const double *from, int64_t n)
{
    if (to) add_scaled(to, a, from, n);
}

/* With p = softmax(s), p' = p after dropout and y = sum p' v: dp' = dy v, dp = dp' scaled as p was, ds = p (dp - dy y). */
void ref_attention_bwd(dev *d, tensor dq, tensor dk, tensor dv, tensor dy, tensor y, tensor lse, tensor q, tensor k,
                       tensor v, attention_options o)
{
    int64_t Tq = q.dim[1], H = q.dim[2], D = q.dim[3], Tk = k.dim[1], group = H / k.dim[2];
    double *p = scratch(d, 2 * Tk), *dropped = p + Tk;
    if (!p) return;
    zero(d, dq);
    zero(d, dk);
    zero(d, dv);
    for (int64_t b = 0; b < q.dim[0]; b++)
        for (int64_t t = 0; t < Tq; t++)
            for (int64_t h = 0; h < H; h++) {
                int64_t keys = o.causal ? t + Tk - Tq + 1 : Tk;
                const double *query = row3(q, b, t, h), *g = row3(dy, b, t, h);
                double along = dot(g, row3(y, b, t, h), D);
                for (int64_t s = 0; s < keys; s++) {
                    p[s] = exp((double)o.scale * dot(query, row3(k, b, s, h / group), D) - row2(lse, b, h)[t]);
                    dropped[s] = 1;
                }
                ref_drop_row(dropped, keys, ((o.drop.first + b) * H + h) * Tq + t, Tk, o.drop);
                for (int64_t s = 0; s < keys; s++) {
                    double dp = dropped[s] * dot(g, row3(v, b, s, h / group), D);
                    double ds = p[s] * (dp - along) * (double)o.scale;
                    maybe_add(maybe3(dv, b, s, h / group), p[s] * dropped[s], g, D);
                    maybe_add(maybe3(dq, b, t, h), ds, row3(k, b, s, h / group), D);
                    maybe_add(maybe3(dk, b, s, h / group), ds, query, D);
                }
            }
    mem_free(p);
}

/* ---- attention over a map ---------------------------------------------------------------------------------- */

typedef struct window_grads {
    tensor dqkv, dpad, drel_h, drel_w, dy, y, lse;
    double *s, *bias;
} window_grads;

/* Where the gradient of part 0, 1, 2 of one head at (ky, kx) goes; NULL: nowhere. */
static double *window_grad(const window *w, const window_grads *g, int part_, int64_t head, int64_t ky, int64_t kx)
{
    int64_t offset = (part_ * w->heads + head) * w->D;
    if (window_has(w, ky, kx))
        return tensor_given(g->dqkv) ? row3(g->dqkv, w->b, w->y0 + ky, w->x0 + kx) + offset : NULL;
    return tensor_given(g->dpad) ? row0(g->dpad) + offset : NULL;
}

/* One score's gradient ds: to query, key and the tables. */
static void window_score(const window *w, const window_grads *g, int64_t head, int64_t qy, int64_t qx, int64_t ky,
                         int64_t kx, double ds)
{
    const double *query = ref_window_part(w, 0, head, qy, qx);
    double *dquery = window_grad(w, g, 0, head, qy, qx);
    maybe_add(dquery, w->scale * ds, ref_window_part(w, 1, head, ky, kx), w->D);
    maybe_add(window_grad(w, g, 1, head, ky, kx), w->scale * ds, query, w->D);
    if (!tensor_given(w->rel_h)) return;
    int64_t at_h = qy - ky + w->side_h - 1, at_w = qx - kx + w->side_w - 1;
    maybe_add(dquery, ds, row1(w->rel_h, at_h), w->D);
    maybe_add(dquery, ds, row1(w->rel_w, at_w), w->D);
    if (tensor_given(g->drel_h)) add_scaled(row1(g->drel_h, at_h), ds, query, w->D);
    if (tensor_given(g->drel_w)) add_scaled(row1(g->drel_w, at_w), ds, query, w->D);
}

static void window_query_bwd(const window *w, const window_grads *g, int64_t head, int64_t qy, int64_t qx)
{
    int64_t y = w->y0 + qy, x = w->x0 + qx;
    const double *dy = row3(g->dy, w->b, y, x) + head * w->D, *out = row3(g->y, w->b, y, x) + head * w->D;
    double along = dot(dy, out, w->D), lse = row3(g->lse, w->b, head, y)[x];
    const double *s = g->s;
    ref_window_scores(w, head, qy, qx, g->s, g->bias);
    for (int64_t ky = 0; ky < w->side_h; ky++)
        for (int64_t kx = 0; kx < w->side_w; kx++) {
            double p = exp(*s++ - lse), dp = dot(dy, ref_window_part(w, 2, head, ky, kx), w->D);
            maybe_add(window_grad(w, g, 2, head, ky, kx), p, dy, w->D);
            window_score(w, g, head, qy, qx, ky, kx, p * (dp - along));
        }
}

static void window_bwd(const window *w, const void *user)
{
    const window_grads *g = user;
    for (int64_t head = 0; head < w->heads; head++)
        for (int64_t qy = 0; qy < w->side_h && w->y0 + qy < g->y.dim[1]; qy++)
            for (int64_t qx = 0; qx < w->side_w && w->x0 + qx < g->y.dim[2]; qx++)
                window_query_bwd(w, g, head, qy, qx);
}

void ref_relpos_attention_bwd(dev *d, tensor dqkv, tensor dpad, tensor drel_h, tensor drel_w, tensor dy, tensor y,
                              tensor lse, tensor qkv, tensor pad, tensor rel_h, tensor rel_w, relpos_options o)
{
    int64_t h = y.dim[1], w = y.dim[2], C = y.dim[3];
    int64_t side_h = o.window ? o.window : h, side_w = o.window ? o.window : w;
    double *s = scratch(d, side_h * side_w + side_h + side_w + 3 * C);
    if (!s) return;
    double *bias = s + side_h * side_w, *zeros = bias + side_h + side_w;
    memset(zeros, 0, (size_t)(3 * C) * sizeof *zeros);
    zero(d, dqkv);
    window first = ref_window_first(y, qkv, pad, rel_h, rel_w, o, zeros);
    ref_each_window(first, h, w, window_bwd, &(window_grads){ dqkv, dpad, drel_h, drel_w, dy, y, lse, s, bias });
    mem_free(s);
}

/* ---- image tokens ------------------------------------------------------------------------------------------ */

void ref_image_pool_bwd(dev *d, tensor dx, tensor da, tensor dy, tensor y, tensor lse, tensor x, tensor pe,
                        tensor a, tensor r)
{
    int64_t S = x.dim[1], C = x.dim[2];
    if (tensor_given(r) && tensor_given(dx) && r.data != dx.data) ref_copy(d, dx, r);
    if (!tensor_given(r)) zero(d, dx);
    zero(d, da);
    for (int64_t n = 0; n < y.dim[0]; n++)
        for (int64_t j = 0; j < y.dim[1]; j++) {
            const double *key = row2(a, n, j), *g = row2(dy, n, j);
            double along = dot(g, row2(y, n, j), C);
            for (int64_t s = 0; s < S; s++) {
                const double *from = row2(x, n, s);
                double p = exp(dot(from, key, C) + dot(row1(pe, s), key, C) - row1(lse, n)[j]);
                double ds = p * (dot(g, from, C) - along);
                if (tensor_given(da)) {
                    add_scaled(row2(da, n, j), ds, from, C);
                    add_scaled(row2(da, n, j), ds, row1(pe, s), C);
                }
                if (tensor_given(dx)) {
                    add_scaled(row2(dx, n, s), p, g, C);
                    add_scaled(row2(dx, n, s), ds, key, C);
                }
            }
        }
}

/* Of one image token: what op_image_update_fwd went through. */
typedef struct update_token {
    double *at, *z, *p, *dz, *y; /* x + pe, the sum before the norm, probabilities, the sum's gradient, nothing */
} update_token;

static moments update_token_fwd(const update_token *u, tensor x, tensor pe, tensor k, tensor kb, tensor v,
                                tensor vb, tensor w, int64_t n, int64_t s, image_update_options o)
{
    int64_t C = x.dim[2], J = k.dim[1], T = J / o.heads;
    for (int64_t c = 0; c < C; c++) {
        u->at[c] = row2(x, n, s)[c] + row1(pe, s)[c];
        u->z[c] = row2(x, n, s)[c] + row0(vb)[c];
    }
    for (int64_t j = 0; j < J; j++) u->p[j] = dot(u->at, row2(k, n, j), C) + row1(kb, n)[j];
    for (int64_t h = 0; h < o.heads; h++) softmax(u->p + h * T, T);
    for (int64_t j = 0; j < J; j++) add_scaled(u->z, u->p[j], row2(v, n, j), C);
    return ref_normalise(u->y, u->z, row0(w), row0(w), C, (double)o.eps);
}

void ref_image_update_bwd(dev *d, tensor dx, tensor dk, tensor dkb, tensor dv, tensor dvb, tensor dw, tensor db,
                          tensor dy, tensor x, tensor pe, tensor k, tensor kb, tensor v, tensor vb, tensor w,
                          image_update_options o)
{
    int64_t S = x.dim[1], C = x.dim[2], J = k.dim[1], T = J / o.heads;
    double *at = scratch(d, 4 * C + J);
    if (!at) return;
    update_token u = { at, at + C, at + 4 * C, at + 2 * C, at + 3 * C };
    zero(d, dk);
    zero(d, dkb);
    zero(d, dv);
    for (int64_t n = 0; n < dy.dim[0]; n++)
        for (int64_t s = 0; s < S; s++) {
            const double *g = row2(dy, n, s);
            moments m = update_token_fwd(&u, x, pe, k, kb, v, vb, w, n, s, o);
            norm_parameters(dw, db, g, u.z, C, m.mean, m.rstd);
            norm_row(u.dz, g, u.z, row0(w), NULL, C, m.mean, m.rstd, true);
            if (tensor_given(dvb)) add_scaled(row0(dvb), 1, u.dz, C);
            if (tensor_given(dx)) memcpy(row2(dx, n, s), u.dz, (size_t)C * sizeof *u.dz);
            for (int64_t h = 0; h < o.heads; h++) {
                double along = 0;
                for (int64_t j = h * T; j < (h + 1) * T; j++) along += u.p[j] * dot(u.dz, row2(v, n, j), C);
                for (int64_t j = h * T; j < (h + 1) * T; j++) {
                    double ds = u.p[j] * (dot(u.dz, row2(v, n, j), C) - along);
                    if (tensor_given(dv)) add_scaled(row2(dv, n, j), u.p[j], u.dz, C);
                    if (tensor_given(dk)) add_scaled(row2(dk, n, j), ds, u.at, C);
                    if (tensor_given(dkb)) row1(dkb, n)[j] += ds;
                    if (tensor_given(dx)) add_scaled(row2(dx, n, s), ds, row2(k, n, j), C);
                }
            }
        }
    mem_free(at);
}

/* ---- images ------------------------------------------------------------------------------------------------ */

static void add_pixels(tensor db, tensor dy)
{
    for (int64_t n = 0; n < dy.dim[0]; n++)
        for (int64_t h = 0; h < dy.dim[1]; h++) add_rows(db, tensor_at(tensor_at(dy, n), h));
}

/* One output number's gradient g, through all taps. */
static void conv_number(tensor dx, tensor dw, tensor x, tensor w, int64_t n, int64_t oh, int64_t ow, int64_t o,
                        double g, conv_options c)
{
    int64_t KH = w.dim[2], KW = w.dim[3];
    for (int64_t i = 0; i < KH; i++)
        for (int64_t j = 0; j < KW; j++) {
            int64_t h = oh * c.stride + i - c.pad, v = ow * c.stride + j - c.pad;
            if (h < 0 || h >= x.dim[1] || v < 0 || v >= x.dim[2]) continue;
            const double *from = row3(x, n, h, v), *weight = row1(matrix(w), o);
            double *to_x = maybe3(dx, n, h, v), *to_w = tensor_given(dw) ? row1(matrix(dw), o) : NULL;
            for (int64_t k = 0; k < w.dim[1]; k++) {
                int64_t at = (k * KH + i) * KW + j;
                if (to_x) to_x[k] += g * weight[at];
                if (to_w) to_w[at] += g * from[k];
            }
        }
}

void ref_conv_bwd(dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x, tensor w, conv_options o)
{
    zero(d, dx);
    for (int64_t n = 0; n < dy.dim[0]; n++)
        for (int64_t oh = 0; oh < dy.dim[1]; oh++)
            for (int64_t ow = 0; ow < dy.dim[2]; ow++)
                for (int64_t c = 0; c < dy.dim[3]; c++)
                    conv_number(dx, dw, x, w, n, oh, ow, c, row3(dy, n, oh, ow)[c], o);
    add_pixels(db, dy);
}

void ref_conv_transpose_bwd(dev *d, tensor dx, tensor dw, tensor db, tensor dy, tensor x, tensor w)
{
    int64_t O = w.dim[1], k = w.dim[2];
    zero(d, dx);
    for (int64_t n = 0; n < dy.dim[0]; n++)
        for (int64_t oh = 0; oh < dy.dim[1]; oh++)
            for (int64_t ow = 0; ow < dy.dim[2]; ow++)
                for (int64_t o = 0; o < O; o++) {
                    double g = row3(dy, n, oh, ow)[o];
                    int64_t at = (o * k + oh % k) * k + ow % k;
                    for (int64_t c = 0; c < w.dim[0]; c++) {
                        if (tensor_given(dx)) row3(dx, n, oh / k, ow / k)[c] += g * row1(matrix(w), c)[at];
                        if (tensor_given(dw)) row1(matrix(dw), c)[at] += g * row3(x, n, oh / k, ow / k)[c];
                    }
                }
    add_pixels(db, dy);
}

static void roi_spread(tensor dmap, const double *g, tap v, tap h, double weight)
{
    int64_t C = dmap.dim[2];
    add_scaled(row2(dmap, v.low, h.low), weight * (1 - v.part) * (1 - h.part), g, C);
    add_scaled(row2(dmap, v.low, h.high), weight * (1 - v.part) * h.part, g, C);
    add_scaled(row2(dmap, v.high, h.low), weight * v.part * (1 - h.part), g, C);
    add_scaled(row2(dmap, v.high, h.high), weight * v.part * h.part, g, C);
}

void ref_roi_align_bwd(dev *d, tensor dx, tensor dy, tensor boxes, tensor index, float scale)
{
    zero(d, dx);
    for (int64_t n = 0; n < dy.dim[0]; n++) {
        const double *box = row1(boxes, n);
        tensor map = tensor_at(dx, tensor_given(index) ? *ids1(index, n) : 0);
        roi_axis v = ref_roi_axis(box[1], box[3], (double)scale, dy.dim[1]),
                 h = ref_roi_axis(box[0], box[2], (double)scale, dy.dim[2]);
        for (int64_t i = 0; i < dy.dim[1]; i++)
            for (int64_t j = 0; j < dy.dim[2]; j++) {
                double weight = 1 / (double)(v.count * h.count);
                tap a, b;
                for (int64_t k = 0; k < v.count * h.count; k++)
                    if (ref_roi_tap(&v, i, k / h.count, map.dim[0], &a) &&
                        ref_roi_tap(&h, j, k % h.count, map.dim[1], &b))
                        roi_spread(map, row3(dy, n, i, j), a, b, weight);
            }
    }
}

/* ---- losses ------------------------------------------------------------------------------------------------ */

void ref_cross_entropy_bwd(dev *d, tensor dx, tensor dloss, tensor lse, tensor x, tensor label, float smoothing)
{
    (void)d;
    int64_t V = x.dim[1];
    double e = (double)smoothing;
    for (int64_t i = 0; i < x.dim[0]; i++) {
        int32_t y = *ids1(label, i);
        for (int64_t v = 0; v < V; v++) {
            double p = exp(row1(x, i)[v] - row0(lse)[i]);
            double g = p - (v == y ? 1 - e : 0) - e / (double)V;
            row1(dx, i)[v] = y == -100 ? 0 : row0(dloss)[i] * g;
        }
    }
}

static const uint8_t *bytes1(tensor t, int64_t i) { return (const uint8_t *)t.data + i * t.stride[0]; }

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

/* -log sigmoid(x) */
static double minus_log_sigmoid(double x) { return x < 0 ? log1p(exp(x)) - x : log1p(exp(-x)); }

void ref_mask_loss_fwd(dev *d, tensor focal, tensor dice, tensor iou, tensor x, tensor target)
{
    (void)d;
    int64_t S = x.dim[1];
    for (int64_t i = 0; i < x.dim[0]; i++) {
        double sum = 0, both = 0, all = 0, common = 0, either = 0;
        for (int64_t s = 0; s < S; s++) {
            bool t = bytes1(target, i)[s] != 0, on = row1(x, i)[s] > 0;
            double z = t ? row1(x, i)[s] : -row1(x, i)[s], p = sigmoid(row1(x, i)[s]);
            sum += (t ? 0.25 : 0.75) * pow(sigmoid(-z), 2) * minus_log_sigmoid(z);
            both += t ? p : 0;
            all += p + t;
            common += t && on;
            either += t || on;
        }
        put_stat(row0(focal), i, sum / (double)S);
        put_stat(row0(dice), i, 1 - (2 * both + 1) / (all + 1));
        put_stat(row0(iou), i, either > 0 ? common / either : 1);
    }
}

void ref_mask_loss_bwd(dev *d, tensor dx, tensor dfocal, tensor ddice, tensor x, tensor target)
{
    (void)d;
    int64_t S = x.dim[1];
    for (int64_t i = 0; i < x.dim[0]; i++) {
        double both = 1, all = 1; /* dice = 1 - 2 (both - 1/2) / all */
        for (int64_t s = 0; s < S; s++) {
            bool t = bytes1(target, i)[s] != 0;
            double p = sigmoid(row1(x, i)[s]);
            both += t ? 2 * p : 0;
            all += p + t;
        }
        for (int64_t s = 0; s < S; s++) {
            bool t = bytes1(target, i)[s] != 0;
            double z = t ? row1(x, i)[s] : -row1(x, i)[s], p = sigmoid(z), q = sigmoid(-z);
            /* d/dz of q^2 (-log p) = -q^2 (2 p (-log p) + q) */
            double along = -(t ? 0.25 : 0.75) * q * q * (2 * p * minus_log_sigmoid(z) + q) / (double)S;
            double of_p = (both / all - (t ? 2 : 0)) / all; /* d dice / d sigmoid(x) */
            row1(dx, i)[s] = row0(dfocal)[i] * (t ? along : -along) + row0(ddice)[i] * of_p * p * q;
        }
    }
}

/* ---- the optimiser ----------------------------------------------------------------------------------------- */

/* Source: torch.optim.AdamW, _single_tensor_adamw. */
void ref_adamw(dev *d, tensor p, tensor m, tensor v, tensor g, adamw_options o)
{
    (void)d;
    double c1 = 1 - pow(o.beta1, (double)o.step), c2 = 1 - pow(o.beta2, (double)o.step);
    for (int64_t i = 0; i < p.dim[0]; i++) {
        double grad = o.scale * row0(g)[i];
        row0(m)[i] = o.beta1 * row0(m)[i] + (1 - o.beta1) * grad;
        row0(v)[i] = o.beta2 * row0(v)[i] + (1 - o.beta2) * grad * grad;
        double step = row0(m)[i] / c1 / (sqrt(row0(v)[i] / c2) + o.eps);
        row0(p)[i] = row0(p)[i] * (1 - o.rate * o.decay) - o.rate * step;
    }
}

void ref_sum_squares(dev *d, tensor y, tensor x, bool add)
{
    (void)d;
    double sum = add ? row0(y)[0] : 0;
    x = four_axes(x);
    for (int64_t i = 0; i < x.dim[0]; i++)
        for (int64_t j = 0; j < x.dim[1]; j++)
            for (int64_t k = 0; k < x.dim[2]; k++) sum += dot(row3(x, i, j, k), row3(x, i, j, k), x.dim[3]);
    row0(y)[0] = sum;
}
