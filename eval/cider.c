/* cider.c - CIDEr-D and the original CIDEr; document frequencies from the scored file itself (metrics.md 5). */
#include "eval/grams.h"

#include <math.h>

typedef struct cider {
    const grams *g;
    double *idf;  /* per n-gram */
    double *norm; /* per caption and order */
    bool original;
} cider;

/* df: the number of items that have the n-gram in a reference. */
static sca_status count_documents(cider *c)
{
    const grams *g = c->g;
    size_t *last = mem_zero(g->n_ids, sizeof *last); /* item + 1 that counted it last */
    if (!last) return mem_fail(g->n_ids * sizeof *last, "document frequencies");
    for (size_t i = 0; i < g->n_items; i++)
        for (size_t r = g->item[i] + 1; r < g->item[i + 1]; r++)
            for (size_t k = 0; k < g->captions[r].n; k++) {
                int32_t id = g->all[g->captions[r].first + k].id;
                if (last[id] != i + 1) c->idf[id]++;
                last[id] = i + 1;
            }
    mem_free(last);
    double items = log((double)g->n_items);
    for (size_t id = 0; id < g->n_ids; id++) c->idf[id] = items - log(c->idf[id] > 1 ? c->idf[id] : 1);
    return SCA_OK;
}

static void weigh_captions(cider *c)
{
    const grams *g = c->g;
    for (size_t i = 0; i < g->n_captions; i++) {
        double *norm = c->norm + i * GRAM_ORDERS;
        for (size_t k = 0; k < g->captions[i].n; k++) {
            gram x = g->all[g->captions[i].first + k];
            double w = x.count * c->idf[x.id];
            norm[g->order[x.id]] += w * w;
        }
        for (int n = 0; n < GRAM_ORDERS; n++) norm[n] = sqrt(norm[n]);
    }
}

/* Adds the similarity of hypothesis h and reference r, per order. */
static void add_similarity(const cider *c, size_t h, size_t r, double sum[GRAM_ORDERS])
{
    const grams *g = c->g;
    const gram_caption *hyp = &g->captions[h], *ref = &g->captions[r];
    const gram *a = g->all + hyp->first, *b = g->all + ref->first, *a_end = a + hyp->n, *b_end = b + ref->n;
    double dot[GRAM_ORDERS] = { 0 }, factor = 1;
    while (a < a_end && b < b_end) {
        if (a->id == b->id) {
            double idf = c->idf[a->id], wa = a->count * idf, wb = b->count * idf;
            dot[g->order[a->id]] += (c->original || wa < wb ? wa : wb) * wb;
        }
        bool step_a = a->id <= b->id, step_b = b->id <= a->id;
        a += step_a, b += step_b;
    }
    if (!c->original) { /* lengths are counted in bigrams */
        double la = hyp->words ? (double)hyp->words - 1 : 0, lb = ref->words ? (double)ref->words - 1 : 0;
        factor = exp(-(la - lb) * (la - lb) / (2 * 6.0 * 6.0));
    }
    for (int n = 0; n < GRAM_ORDERS; n++) {
        double norm = c->norm[h * GRAM_ORDERS + (size_t)n] * c->norm[r * GRAM_ORDERS + (size_t)n];
        if (norm != 0) sum[n] += dot[n] / norm * factor;
    }
}

static double item_cider(const cider *c, size_t item)
{
    size_t hyp = c->g->item[item], end = c->g->item[item + 1];
    double sum[GRAM_ORDERS] = { 0 };
    for (size_t r = hyp + 1; r < end; r++) add_similarity(c, hyp, r, sum);
    double mean = (sum[0] + sum[1] + sum[2] + sum[3]) / GRAM_ORDERS;
    return 10 * mean / (double)(end - hyp - 1);
}

sca_status cider_score(const grams *g, bool original, double *mean, double *per_item)
{
    cider c = { g, mem_zero(g->n_ids, sizeof(double)), mem_zero(g->n_captions * GRAM_ORDERS, sizeof(double)),
                original };
    sca_status status = SCA_OK;
    if (!c.idf || !c.norm) status = mem_fail((g->n_ids + g->n_captions * GRAM_ORDERS) * sizeof(double), "CIDEr");
    if (status == SCA_OK) status = count_documents(&c);
    if (status == SCA_OK) {
        double sum = 0;
        weigh_captions(&c);
        for (size_t i = 0; i < g->n_items; i++) {
            double score = item_cider(&c, i);
            if (per_item) per_item[i] = score;
            sum += score;
        }
        *mean = g->n_items ? sum / (double)g->n_items : 0;
    }
    mem_free(c.idf);
    mem_free(c.norm);
    return status;
}
