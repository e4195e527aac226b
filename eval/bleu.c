/* bleu.c - corpus BLEU with the closest reference length and the constants of coco-caption (metrics.md 3). */
#include "eval/grams.h"

#include <math.h>

typedef struct bleu_counts {
    double hyp, ref, guess[GRAM_ORDERS], correct[GRAM_ORDERS];
} bleu_counts;

/* The reference length nearest to the hypothesis' length; the shorter one on ties. */
static size_t closest_length(const gram_caption *hyp, const gram_caption *refs, size_t n)
{
    size_t best = refs[0].words, h = hyp->words;
    for (size_t i = 1; i < n; i++) {
        size_t r = refs[i].words, far = r > h ? r - h : h - r, near = best > h ? best - h : h - best;
        if (far < near || (far == near && r < best)) best = r;
    }
    return best;
}

/* The count of each n-gram of the hypothesis, at most the largest in one reference. */
static void count_correct(const grams *g, const gram_caption *hyp, const gram_caption *refs, size_t n,
                          double *correct)
{
    for (size_t i = 0; i < hyp->n; i++) {
        gram h = g->all[hyp->first + i];
        int32_t most = 0;
        for (size_t r = 0; r < n && most < h.count; r++) {
            const gram *in = g->all + refs[r].first;
            size_t low = 0, high = refs[r].n;
            while (low < high) {
                size_t middle = (low + high) / 2;
                if (in[middle].id < h.id)
                    low = middle + 1;
                else
                    high = middle;
            }
            if (low < refs[r].n && in[low].id == h.id && in[low].count > most) most = in[low].count;
        }
        correct[g->order[h.id]] += most < h.count ? most : h.count;
    }
}

static bleu_counts item_counts(const grams *g, size_t item)
{
    const gram_caption *hyp = g->captions + g->item[item], *refs = hyp + 1;
    size_t n_refs = g->item[item + 1] - g->item[item] - 1;
    bleu_counts c = { .hyp = (double)hyp->words, .ref = (double)closest_length(hyp, refs, n_refs) };
    for (size_t k = 0; k < GRAM_ORDERS; k++) c.guess[k] = hyp->words > k ? (double)(hyp->words - k) : 0;
    count_correct(g, hyp, refs, n_refs, c.correct);
    return c;
}

static void counts_bleu(const bleu_counts *c, double out[GRAM_ORDERS])
{
    const double tiny = 1e-15, small = 1e-9;
    double product = 1, ratio = (c->hyp + tiny) / (c->ref + small);
    for (int k = 0; k < GRAM_ORDERS; k++) {
        product *= (c->correct[k] + tiny) / (c->guess[k] + small);
        out[k] = pow(product, 1.0 / (k + 1));
        if (ratio < 1) out[k] *= exp(1 - 1 / ratio);
    }
}

void bleu_score(const grams *g, double corpus[GRAM_ORDERS], double (*per_item)[GRAM_ORDERS])
{
    bleu_counts sum = { 0 };
    for (size_t i = 0; i < g->n_items; i++) {
        bleu_counts c = item_counts(g, i);
        if (per_item) counts_bleu(&c, per_item[i]);
        sum.hyp += c.hyp, sum.ref += c.ref;
        for (int k = 0; k < GRAM_ORDERS; k++) sum.guess[k] += c.guess[k], sum.correct[k] += c.correct[k];
    }
    counts_bleu(&sum, corpus);
}
