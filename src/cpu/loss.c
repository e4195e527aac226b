/* loss.c - rows of logits: log-softmax, the best, a sample, the loss. */
#include "cpu/cpu.h"

#include <math.h>
#include <stdlib.h>

typedef struct logits {
    const cpu *c;
    tensor x, out, index, other; /* out: F; index: I32; other: lse, label or u */
    tensor lse;
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
    while (best + 1 < V && x[best] != most) best++;
    ((int32_t *)p->index.data)[r] = (int32_t)best;
    if (tensor_given(p->out)) ((float *)p->out.data)[r] = x[best];
}

void cpu_argmax_fwd(dev *d, tensor index, tensor value, tensor x)
{
    logits p = { .c = cpu_of(d), .x = x, .out = value, .index = index };
    cpu_parallel(p.c, x.dim[0], argmax_task, &p);
}

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
        if (held == K && !(x[i] > value[K - 1])) continue;
        int64_t at = held < K ? held++ : K - 1;
        for (; at > 0 && x[i] > value[at - 1]; at--) {
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

typedef struct choice {
    double weight; /* exp of the scaled logit, relative to the best */
    int32_t index;
} choice;

static int best_first(const void *a, const void *b)
{
    const choice *x = a, *y = b;
    if (x->weight != y->weight) return x->weight > y->weight ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int index_first(const void *a, const void *b)
{
    return ((const choice *)a)->index < ((const choice *)b)->index ? -1 : 1;
}

/* How many of the best ones stay: those that tie with the last of the top_k too. */
static int64_t cut(choice *c, int64_t V, sample_options o)
{
    int64_t keep = o.top_k > 0 ? min64(o.top_k, V) : V;
    if (keep == V && o.top_p >= 1.0f) return V;
    qsort(c, (size_t)V, sizeof *c, best_first);
    while (keep < V && c[keep].weight == c[keep - 1].weight) keep++;
    if (o.top_p < 1.0f) {
        double total = 0.0, sum = 0.0;
        for (int64_t i = 0; i < keep; i++) total += c[i].weight;
        int64_t n = 0;
        while (n < keep && sum < (double)o.top_p * total) sum += c[n++].weight;
        keep = max64(n, 1);
    }
    qsort(c, (size_t)keep, sizeof *c, index_first);
    return keep;
}

static void sample_task(void *context, int64_t r, int thread)
{
    const logits *p = context;
    const float *x = row(p, r);
    int64_t V = p->x.dim[1];
    choice *c = cpu_scratch_of(p->c, thread);
    double most = (double)p->c->kernels->max(x, V), total = 0.0, sum = 0.0;
    for (int64_t i = 0; i < V; i++)
        c[i] = (choice){ exp(((double)x[i] - most) / (double)p->sample.temperature), (int32_t)i };
    int64_t keep = cut(c, V, p->sample);
    int32_t pick = 0;
    for (int64_t i = 0; i < keep; i++) total += c[i].weight;
    double goal = (double)((const float *)p->other.data)[r] * total;
    for (int64_t i = 0; i < keep && !(sum > goal); i++) {
        if (!(c[i].weight > 0.0)) continue;
        pick = c[i].index; /* rounding may leave the sum short of u: then the last one */
        sum += c[i].weight;
    }
    ((int32_t *)p->index.data)[r] = pick;
}

void cpu_sample_fwd(dev *d, tensor index, tensor x, tensor u, sample_options o)
{
    logits p = { .c = cpu_of(d), .x = x, .index = index, .other = u, .sample = o };
    if (!cpu_scratch(d, (size_t)x.dim[1] * sizeof(choice), 0)) return;
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
