/* grams.c - counts n-grams, numbered by a hash table of their words. */
#include "eval/grams.h"
#include "eval/words.h"

#include <stdlib.h>
#include <string.h>

/* An n-gram is its words; behind the last one stands NO_WORD. */
enum { NO_WORD = -1 };
typedef struct gram_slot {
    int32_t word[GRAM_ORDERS];
    int32_t id; /* plus 1; 0: free */
} gram_slot;

typedef struct counter {
    grams *g;
    lexicon words;
    gram_slot *slots;
    size_t n_slots;
    int32_t *id; /* the words of the caption at hand */
    size_t cap_id;
} counter;

static uint64_t key_hash(const int32_t *word, int order)
{
    uint64_t h = 0;
    for (int k = 0; k <= order; k++) h = (h ^ (uint32_t)word[k]) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
    return h;
}

static bool key_fits(const gram_slot *slot, const int32_t *word, int order)
{
    for (int k = 0; k < GRAM_ORDERS; k++)
        if (slot->word[k] != (k <= order ? word[k] : NO_WORD)) return false;
    return true;
}

/* Makes room for `more` further n-grams. */
static sca_status slots_room(counter *c, size_t more)
{
    size_t n = c->n_slots ? c->n_slots : 4096, wanted = 2 * (c->g->n_ids + more);
    while (n <= wanted) n *= 2;
    if (n == c->n_slots) return SCA_OK;
    gram_slot *slots = mem_zero(n, sizeof *slots);
    if (!slots) return mem_fail(n * sizeof *slots, "n-grams");
    for (size_t i = 0; i < c->n_slots; i++) {
        const gram_slot *old = &c->slots[i];
        int order = GRAM_ORDERS - 1;
        if (!old->id) continue;
        while (old->word[order] == NO_WORD) order--;
        size_t k = key_hash(old->word, order) & (n - 1);
        while (slots[k].id) k = (k + 1) & (n - 1);
        slots[k] = *old;
    }
    mem_free(c->slots);
    c->slots = slots, c->n_slots = n;
    return SCA_OK;
}

/* The number of the n-gram of order + 1 words; there is room for it. */
static sca_status gram_number(counter *c, const int32_t *word, int order, int32_t *id)
{
    grams *g = c->g;
    size_t k = key_hash(word, order) & (c->n_slots - 1);
    while (c->slots[k].id && !key_fits(&c->slots[k], word, order)) k = (k + 1) & (c->n_slots - 1);
    if (c->slots[k].id) return *id = c->slots[k].id - 1, SCA_OK;
    if (g->n_ids == g->cap_ids) {
        size_t cap = g->cap_ids ? g->cap_ids * 2 : 4096;
        uint8_t *orders = mem_resize(g->order, cap);
        if (!orders) return mem_fail(cap, "n-grams");
        g->order = orders, g->cap_ids = cap;
    }
    if (g->n_ids == INT32_MAX) return status_fail(SCA_ERR_UNSUPPORTED, "too many n-grams");
    g->order[g->n_ids] = (uint8_t)order;
    *id = (int32_t)g->n_ids++;
    for (int i = 0; i < GRAM_ORDERS; i++) c->slots[k].word[i] = i <= order ? word[i] : NO_WORD;
    c->slots[k].id = *id + 1;
    return SCA_OK;
}

static sca_status caption_words(counter *c, const char *text, size_t *n)
{
    size_t bytes = 0;
    for (*n = 0; words_next(&text, &bytes); ++*n) {
        if (*n == c->cap_id) {
            size_t cap = c->cap_id ? c->cap_id * 2 : 64;
            int32_t *id = mem_resize(c->id, cap * sizeof *id);
            if (!id) return mem_fail(cap * sizeof *id, "caption");
            c->id = id, c->cap_id = cap;
        }
        TRY(lexicon_add(&c->words, text, bytes, &c->id[*n]));
    }
    return SCA_OK;
}

static int compare_gram(const void *a, const void *b)
{
    int32_t p = ((const gram *)a)->id, q = ((const gram *)b)->id;
    return (p > q) - (p < q);
}

/* Sorts by id and joins equal ones; few elements are the rule. */
static size_t grams_join(gram *g, size_t n)
{
    if (n > 64)
        qsort(g, n, sizeof *g, compare_gram);
    else
        for (size_t i = 1; i < n; i++) {
            gram x = g[i];
            size_t k = i;
            for (; k > 0 && g[k - 1].id > x.id; k--) g[k] = g[k - 1];
            g[k] = x;
        }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (kept && g[kept - 1].id == g[i].id)
            g[kept - 1].count += g[i].count;
        else
            g[kept++] = g[i];
    return kept;
}

static sca_status caption_count(counter *c, const char *text)
{
    grams *g = c->g;
    size_t n;
    TRY(caption_words(c, text, &n));
    if (!g->all || g->n_all + n * GRAM_ORDERS > g->cap_all) { /* captions without words need a place too */
        size_t cap =
            g->cap_all * 2 > g->n_all + n * GRAM_ORDERS ? g->cap_all * 2 : g->n_all + n * GRAM_ORDERS + 4096;
        gram *all = mem_resize(g->all, cap * sizeof *all);
        if (!all) return mem_fail(cap * sizeof *all, "n-grams");
        g->all = all, g->cap_all = cap;
    }
    gram_caption *caption = &g->captions[g->n_captions++];
    *caption = (gram_caption){ g->n_all, 0, n };
    gram *out = g->all + g->n_all;
    size_t used = 0;
    TRY(slots_room(c, n * GRAM_ORDERS));
    for (size_t i = 0; i < n;
         i++) /* the table is larger than caches: all slots are asked for before they are needed */
        for (int order = 0; order < GRAM_ORDERS && i + (size_t)order < n; order++)
            __builtin_prefetch(&c->slots[key_hash(c->id + i, order) & (c->n_slots - 1)]);
    for (size_t i = 0; i < n; i++)
        for (int order = 0; order < GRAM_ORDERS && i + (size_t)order < n; order++) {
            int32_t id = 0;
            TRY(gram_number(c, c->id + i, order, &id));
            out[used++] = (gram){ id, 1 };
        }
    caption->n = grams_join(out, used);
    g->n_all += caption->n;
    return SCA_OK;
}

static sca_status grams_count(counter *c, const eval_item *items, size_t n)
{
    grams *g = c->g;
    size_t captions = n;
    for (size_t i = 0; i < n; i++) captions += items[i].n_refs;
    g->item = mem_alloc((n + 1) * sizeof *g->item);
    g->captions = mem_alloc(captions * sizeof *g->captions);
    if (!g->item || !g->captions) return mem_fail(captions * sizeof *g->captions, "captions");
    for (size_t i = 0; i < n; i++) {
        g->item[i] = g->n_captions;
        TRY(caption_count(c, items[i].hyp));
        for (size_t k = 0; k < items[i].n_refs; k++) TRY(caption_count(c, items[i].refs[k]));
    }
    g->item[n] = g->n_captions;
    g->n_items = n;
    return SCA_OK;
}

sca_status grams_open(const eval_item *items, size_t n, grams **out)
{
    *out = NULL;
    grams *g = mem_zero(1, sizeof *g);
    if (!g) return mem_fail(sizeof *g, "n-grams");
    counter c = { .g = g };
    sca_status status = grams_count(&c, items, n);
    lexicon_free(&c.words);
    mem_free(c.slots);
    mem_free(c.id);
    if (status == SCA_OK)
        *out = g;
    else
        grams_close(g);
    return status;
}

void grams_close(grams *g)
{
    if (!g) return;
    mem_free(g->item);
    mem_free(g->captions);
    mem_free(g->all);
    mem_free(g->order);
    mem_free(g);
}
