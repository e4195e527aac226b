/* loss.c - rows of logits: log-softmax, the best, a sample, the loss. */
#include "cpu/cpu.h"

#include <math.h>
#include <string.h>

typedef struct logits {
    const cpu *c;
    tensor x, out, index, other; /* out: F; index: I32; other: lse, label or u */
    tensor lse, dloss;
    float smoothing;
    sample_options sample;
} logits;

static const float *row(const logits *p, int64_t r) { return (const float *)p->x.data + r * p->x.stride[0]; }

static double log_sum_exp(const cpu_kernels *k, const float *x, int64_t V)
{
    float most = k->max(x, V);
    if (most == -INFINITY) return -INFINITY;
    return (double)most + log(k->sum_exp(x, V, most));
}

static void log_softmax_task(void *context, int64_t r, int thread)
{
    const logits *p = context;
    const cpu_kernels *k = p->c->kernels;
    (void)thread;
    double lse = log_sum_exp(k, row(p, r), p->x.dim[1]);
    k->shift((float *)p->out.data + r * p->out.stride[0], row(p, r), p->x.dim[1], (float)lse);
}

void cpu_log_softmax_fwd(dev *d, tensor y, tensor x)
{
    logits p = { .c = cpu_of(d), .x = x, .out = y };
    cpu_parallel(p.c, x.dim[0], log_softmax_task, &p);
}

static void argmax_task(void *context, int64_t r, int thread)
{
    const logits *p = context;
    const float *x = row(p, r);
    int64_t V = p->x.dim[1], best = 0;
    (void)thread;
    float most = p->c->kernels->max(x, V);
    while (best < V && x[best] != most) best++;
    if (best == V) best = 0; /* nothing but NaN */
    ((int32_t *)p->index.data)[r] = (int32_t)best;
    if (tensor_given(p->out)) ((float *)p->out.data)[r] = x[best];
}

void cpu_argmax_fwd(dev *d, tensor index, tensor value, tensor x)
{
    logits p = { .c = cpu_of(d), .x = x, .out = value, .index = index };
    cpu_parallel(p.c, x.dim[0], argmax_task, &p);
}

/* NaN is smaller than every number. */
static bool above(float a, float b) { return a > b || (isnan(b) && !isnan(a)); }

/* The K best so far stay sorted in the outputs; most elements fail against the last of them at once. */
static void topk_task(void *context, int64_t r, int thread)
{
    const logits *p = context;
    const float *x = row(p, r);
    int64_t V = p->x.dim[1], K = p->out.dim[1], held = 0;
    float *value = (float *)p->out.data + r * p->out.stride[0];
    int32_t *index = (int32_t *)p->index.data + r * p->index.stride[0];
    (void)thread;
    for (int64_t i = 0; i < V; i++) {
        if (held == K && !above(x[i], value[K - 1])) continue;
        int64_t at = held < K ? held++ : K - 1;
        for (; at > 0 && above(x[i], value[at - 1]); at--) {
            value[at] = value[at - 1];
            index[at] = index[at - 1];
        }
        value[at] = x[i];
        index[at] = (int32_t)i;
    }
}

void cpu_topk_fwd(dev *d, tensor value, tensor index, tensor x)
{
    logits p = { .c = cpu_of(d), .x = x, .out = value, .index = index };
    cpu_parallel(p.c, x.dim[0], topk_task, &p);
}

/* ---- sampling ------------------------------------------------------------------------------------------------ */

/* The ids of a row as a heap, the best on top: only as many are taken as the cut needs. */
typedef struct ranking {
    const double *weight;
    int32_t *id;
    int64_t n;
} ranking;

static bool better(const ranking *r, int32_t a, int32_t b)
{
    return r->weight[a] > r->weight[b] || (r->weight[a] == r->weight[b] && a < b);
}

static void sink(ranking *r, int64_t at)
{
    int32_t id = r->id[at];
    for (int64_t below; (below = 2 * at + 1) < r->n; at = below) {
        if (below + 1 < r->n && better(r, r->id[below + 1], r->id[below])) below++;
        if (!better(r, r->id[below], id)) break;
        r->id[at] = r->id[below];
    }
    r->id[at] = id;
}

static ranking ranked(const double *weight, int64_t V, int32_t *id)
{
    ranking r = { weight, id, V };
    for (int64_t i = 0; i < V; i++) id[i] = (int32_t)i;
    for (int64_t i = V / 2 - 1; i >= 0; i--) sink(&r, i);
    return r;
}

static int32_t take_best(ranking *r)
{
    int32_t best = r->id[0];
    r->id[0] = r->id[--r->n];
    if (r->n) sink(r, 0);
    return best;
}

/* Leaves 0 of the weights that top_k and top_p cut off; those that tie with the last of the top_k stay. */
static void cut(double *weight, int64_t V, sample_options o, int32_t *id)
{
    if (o.top_k > 0 && o.top_k < V) {
        ranking r = ranked(weight, V, id);
        int32_t last = 0;
        for (int k = 0; k < o.top_k; k++) last = take_best(&r);
        double least = weight[last];
        for (int64_t i = 0; i < V; i++)
            if (weight[i] < least) weight[i] = 0.0;
    }
    if (o.top_p >= 1.0f) return;
    double total = 0.0, sum = 0.0;
    for (int64_t i = 0; i < V; i++) total += weight[i];
    ranking r = ranked(weight, V, id);
    int32_t last = take_best(&r);
    for (sum = weight[last]; r.n && sum < (double)o.top_p * total; sum += weight[last]) last = take_best(&r);
    double least = weight[last];
    for (int64_t i = 0; i < V; i++)
        if (weight[i] < least || (weight[i] == least && i > last)) weight[i] = 0.0;
}

static void sample_task(void *context, int64_t r, int thread)
{
    const logits *p = context;
    const float *x = row(p, r);
    int64_t V = p->x.dim[1];
    double *weight = cpu_scratch_of(p->c, thread); /* exp of the scaled logits, relative to the best */
    double most = (double)p->c->kernels->max(x, V), total = 0.0, sum = 0.0;
    for (int64_t i = 0; i < V; i++) weight[i] = exp(((double)x[i] - most) / (double)p->sample.temperature);
    cut(weight, V, p->sample, (int32_t *)(weight + V));
    int32_t pick = 0;
    for (int64_t i = 0; i < V; i++) total += weight[i];
    double goal = (double)((const float *)p->other.data)[r] * total;
    for (int64_t i = 0; i < V && !(sum > goal); i++) {
        if (!(weight[i] > 0.0)) continue;
        pick = (int32_t)i; /* rounding may leave the sum short of u: then the last one */
        sum += weight[i];
    }
    ((int32_t *)p->index.data)[r] = pick;
}

void cpu_sample_fwd(dev *d, tensor index, tensor x, tensor u, sample_options o)
{
    logits p = { .c = cpu_of(d), .x = x, .index = index, .other = u, .sample = o };
    if (!cpu_scratch(d, (size_t)x.dim[1] * (sizeof(double) + sizeof(int32_t)), 0)) return;
    cpu_parallel(p.c, x.dim[0], sample_task, &p);
}

/* ---- cross entropy ---------------------------------------------------------------------------------------------
 */

static void cross_entropy_task(void *context, int64_t r, int thread)
{
    const logits *p = context;
    const cpu_kernels *k = p->c->kernels;
    const float *x = row(p, r);
    int64_t V = p->x.dim[1];
    int32_t label = ((const int32_t *)p->other.data)[r];
    double lse = log_sum_exp(k, x, V), e = (double)p->smoothing, loss = 0.0;
    (void)thread;
    if (label != -100) {
        loss = (1.0 - e) * (lse - (double)x[label]);
        if (e > 0.0) loss += e * (lse - k->sum(x, V) / (double)V);
    }
    ((float *)p->out.data)[r] = (float)loss;
    if (tensor_given(p->lse)) ((float *)p->lse.data)[r] = (float)lse;
}

void cpu_cross_entropy_fwd(dev *d, tensor loss, tensor lse, tensor x, tensor label, float smoothing)
{
    logits p = { .c = cpu_of(d), .x = x, .out = loss, .lse = lse, .other = label, .smoothing = smoothing };
    cpu_parallel(p.c, x.dim[0], cross_entropy_task, &p);
}

static void cross_entropy_back_task(void *context, int64_t r, int thread)
{
    const logits *p = context;
    int64_t V = p->x.dim[1];
    int32_t label = ((const int32_t *)p->other.data)[r];
    float *dx = (float *)p->out.data + r * p->out.stride[0], g = ((const float *)p->dloss.data)[r];
    (void)thread;
    if (label == -100) {
        memset(dx, 0, (size_t)V * sizeof *dx);
        return;
    }
    p->c->kernels->exp_of(dx, row(p, r), V, ((const float *)p->lse.data)[r], g,
                          (float)(-(double)g * (double)p->smoothing / (double)V));
    dx[label] = (float)((double)dx[label] - (double)g * (1.0 - (double)p->smoothing));
}

void cpu_cross_entropy_bwd(dev *d, tensor dx, tensor dloss, tensor lse, tensor x, tensor label, float smoothing)
{
    logits p = {
        .c = cpu_of(d), .x = x, .out = dx, .lse = lse, .other = label, .dloss = dloss, .smoothing = smoothing
    };
    cpu_parallel(p.c, x.dim[0], cross_entropy_back_task, &p);
}

/* ---- masks: one row each -------------------------------------------------------------------------------------- */

typedef struct masks {
    tensor focal, dice, iou, x, target, dx; /* focal and dice: their gradients on the way back */
} masks;

/* Of one logit, seen from its target: p = sigmoid(z), q = 1 - p, cost = -log p */
typedef struct mask_logit {
    float p, q, cost;
} mask_logit;

static mask_logit look_at(float z)
{
    float e = expf(-fabsf(z)), big = 1.0f / (1.0f + e), small = e * big;
    float cost = log1pf(e) + (z < 0.0f ? -z : 0.0f);
    return z < 0.0f ? (mask_logit){ small, big, cost } : (mask_logit){ big, small, cost };
}

static void put(tensor t, int64_t r, double value)
{
    if (tensor_given(t)) ((float *)t.data)[r] = (float)value;
}

static void mask_loss_task(void *context, int64_t r, int thread)
{
    const masks *m = context;
    int64_t S = m->x.dim[1], common = 0, either = 0, on = 0;
    const float *x = (const float *)m->x.data + r * m->x.stride[0];
    const uint8_t *target = (const uint8_t *)m->target.data + r * m->target.stride[0];
    double focal = 0.0, both = 0.0, all = 0.0;
    (void)thread;
    for (int64_t s = 0; s < S; s++) {
        bool t = target[s] != 0, over = x[s] > 0.0f;
        mask_logit l = look_at(t ? x[s] : -x[s]);
        focal += (double)((t ? 0.25f : 0.75f) * l.q * l.q * l.cost);
        both += t ? (double)l.p : 0.0;
        all += (double)(t ? l.p : l.q);
        on += t;
        common += t && over;
        either += t || over;
    }
    put(m->focal, r, focal / (double)S);
    put(m->dice, r, 1.0 - (2.0 * both + 1.0) / (all + (double)on + 1.0));
    put(m->iou, r, either ? (double)common / (double)either : 1.0);
}

void cpu_mask_loss_fwd(dev *d, tensor focal, tensor dice, tensor iou, tensor x, tensor target)
{
    masks m = { focal, dice, iou, x, target, tensor_none() };
    cpu_parallel(cpu_of(d), x.dim[0], mask_loss_task, &m);
}

static void mask_loss_back_task(void *context, int64_t r, int thread)
{
    const masks *m = context;
    int64_t S = m->x.dim[1];
    const float *x = (const float *)m->x.data + r * m->x.stride[0];
    const uint8_t *target = (const uint8_t *)m->target.data + r * m->target.stride[0];
    float *dx = (float *)m->dx.data + r * m->dx.stride[0];
    double both = 1.0, all = 1.0; /* dice = 1 - both / all */
    (void)thread;
    float dfocal = ((const float *)m->focal.data)[r] / (float)S, ddice = ((const float *)m->dice.data)[r];
    if (dfocal == 0.0f && ddice == 0.0f) { /* of several masks one is trained */
        memset(dx, 0, (size_t)S * sizeof *dx);
        return;
    }
    for (int64_t s = 0; s < S && ddice != 0.0f; s++) {
        bool t = target[s] != 0;
        mask_logit l = look_at(t ? x[s] : -x[s]);
        both += t ? 2.0 * (double)l.p : 0.0;
        all += t ? 1.0 + (double)l.p : (double)l.q;
    }
    float outside = ddice * (float)(both / all / all), inside = outside - ddice * (float)(2.0 / all);
    for (int64_t s = 0; s < S; s++) {
        bool t = target[s] != 0;
        mask_logit l = look_at(t ? x[s] : -x[s]);
        float along = (t ? -0.25f : 0.75f) * l.q * l.q * (2.0f * l.p * l.cost + l.q);
        dx[s] = dfocal * along + (t ? inside : outside) * l.p * l.q;
    }
}

void cpu_mask_loss_bwd(dev *d, tensor dx, tensor dfocal, tensor ddice, tensor x, tensor target)
{
    masks m = { dfocal, ddice, tensor_none(), x, target, dx };
    cpu_parallel(cpu_of(d), x.dim[0], mask_loss_back_task, &m);
}
