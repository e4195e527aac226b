/* rouge.c - ROUGE-L of coco-caption: best precision and best recall over the references (metrics.md 4). */
#include "eval/words.h"

#include <string.h>

typedef struct tokens {
    int32_t *id;
    size_t n, cap;
} tokens;

typedef struct rouge {
    lexicon words;
    tokens hyp, ref;
    uint32_t *row; /* of the longest common subsequence */
    size_t cap_row;
} rouge;

/* Split at every single space: an empty text is one empty token. */
static sca_status split(rouge *s, const char *text, tokens *t)
{
    t->n = 0;
    for (const char *p = text;;) {
        size_t bytes = strcspn(p, " ");
        if (t->n == t->cap) {
            size_t cap = t->cap ? t->cap * 2 : 64;
            int32_t *id = mem_resize(t->id, cap * sizeof *id);
            if (!id) return mem_fail(cap * sizeof *id, "caption");
            t->id = id, t->cap = cap;
        }
        TRY(lexicon_add(&s->words, p, bytes, &t->id[t->n++]));
        if (!p[bytes]) return SCA_OK;
        p += bytes + 1;
    }
}

/* Length of the longest common subsequence of s->hyp and s->ref. */
static sca_status common(rouge *s, double *length)
{
    const tokens *a = &s->hyp, *b = &s->ref;
    if (b->n + 1 > s->cap_row) {
        uint32_t *row = mem_resize(s->row, (b->n + 1) * sizeof *row);
        if (!row) return mem_fail((b->n + 1) * sizeof *row, "ROUGE-L");
        s->row = row, s->cap_row = b->n + 1;
    }
    memset(s->row, 0, (b->n + 1) * sizeof *s->row);
    for (size_t i = 0; i < a->n; i++) {
        uint32_t diagonal = 0;
        for (size_t k = 1; k <= b->n; k++) {
            uint32_t above = s->row[k], left = s->row[k - 1];
            s->row[k] = a->id[i] == b->id[k - 1] ? diagonal + 1 : above > left ? above : left;
            diagonal = above;
        }
    }
    *length = s->row[b->n];
    return SCA_OK;
}

static sca_status item_rouge(rouge *s, const eval_item *item, double *score)
{
    const double beta2 = 1.2 * 1.2;
    double precision = 0, recall = 0;
    TRY(split(s, item->hyp, &s->hyp));
    for (size_t r = 0; r < item->n_refs; r++) {
        double length = 0;
        TRY(split(s, item->refs[r], &s->ref));
        TRY(common(s, &length));
        double p = length / (double)s->hyp.n, q = length / (double)s->ref.n;
        if (p > precision) precision = p;
        if (q > recall) recall = q;
    }
    *score = precision > 0 && recall > 0 ? (1 + beta2) * precision * recall / (recall + beta2 * precision) : 0;
    return SCA_OK;
}

sca_status rouge_score(const eval_item *items, size_t n, double *mean, double *per_item)
{
    rouge s = { 0 };
    sca_status status = SCA_OK;
    double sum = 0;
    for (size_t i = 0; i < n && status == SCA_OK; i++) {
        double score = 0;
        status = item_rouge(&s, &items[i], &score);
        if (per_item) per_item[i] = score;
        sum += score;
    }
    *mean = n ? sum / (double)n : 0;
    lexicon_free(&s.words);
    mem_free(s.hyp.id);
    mem_free(s.ref.id);
    mem_free(s.row);
    return status;
}
