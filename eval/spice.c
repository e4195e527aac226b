/* spice.c - SPICE behind the parser: tuples to graphs, graphs to F1 (metrics.md 8.2). */
#include "eval/spice_parts.h"

#include <string.h>

static sca_status grow(void *array, size_t size, size_t wanted, size_t *cap)
{
    if (wanted <= *cap) return SCA_OK;
    size_t n = wanted + wanted / 2 + 16, bytes;
    if (!size_mul(n, size, &bytes)) return mem_fail(SIZE_MAX, "scene graph");
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = mem_resize(old, bytes);
    if (!p) return mem_fail(bytes, "scene graph");
    memcpy(array, &p, sizeof p);
    *cap = n;
    return SCA_OK;
}

void spice_free(spice *s)
{
    lexicon_free(&s->known);
    mem_free(s->concepts);
    mem_free(s->lasting);
    mem_free(s->pool);
    str_free(&s->key);
    *s = (spice){ 0 };
}

void spice_graph_free(spice_graph *g)
{
    mem_free(g->node);
    mem_free(g->attribute);
    mem_free(g->edge);
    *g = (spice_graph){ 0 };
}

void spice_clear(spice *s, spice_graph *hyp, spice_graph *ref)
{
    s->n_pool = 0;
    hyp->n_nodes = hyp->n_attributes = hyp->n_edges = 0;
    ref->n_nodes = ref->n_attributes = ref->n_edges = 0;
}

/* ---- concepts: sets of words and of synsets ------------------------------------------------ */

/* Inserts x into the ascending list that begins at `first` and ends at s->n_lasting. */
static sca_status lasting_insert(spice *s, size_t first, uint32_t x)
{
    size_t k = s->n_lasting;
    while (k > first && s->lasting[k - 1] > x) k--;
    if (k > first && s->lasting[k - 1] == x) return SCA_OK;
    TRY(grow(&s->lasting, sizeof *s->lasting, s->n_lasting + 1, &s->cap_lasting));
    memmove(s->lasting + k + 1, s->lasting + k, (s->n_lasting - k) * sizeof *s->lasting);
    s->lasting[k] = x;
    s->n_lasting++;
    return SCA_OK;
}

/* The synsets of a word; blanks in it are written _. */
static sca_status word_synsets(spice *s, const char *word, size_t bytes, size_t first)
{
    uint32_t at, n;
    size_t before = s->words->n_synsets;
    str_clear(&s->key);
    for (size_t i = 0; i < bytes; i++) str_putc(&s->key, word[i] == ' ' ? '_' : word[i]);
    if (s->key.failed) return mem_fail(bytes, "scene graph");
    TRY(meteor_synsets(s->words, str_text(&s->key), &at, &n));
    for (uint32_t i = 0; i < n; i++) TRY(lasting_insert(s, first, s->words->synsets[at + i]));
    s->words->n_synsets = before; /* they have been copied */
    return SCA_OK;
}

static sca_status concept_make(spice *s, const char *text, concept *c)
{
    const char *split = s->printed ? "/" : "";
    int32_t id;
    *c = (concept){ .words = s->n_lasting };
    for (const char *p = text;;) {
        size_t bytes = strcspn(p, split);
        TRY(lexicon_add(&s->words->stems, p, bytes, &id)); /* any numbering of texts will do */
        TRY(lasting_insert(s, c->words, (uint32_t)id));
        if (!p[bytes]) break;
        p += bytes + 1;
    }
    c->n_words = (uint32_t)(s->n_lasting - c->words);
    c->synsets = s->n_lasting;
    for (const char *p = text;;) {
        size_t bytes = strcspn(p, split);
        TRY(word_synsets(s, p, bytes, c->synsets));
        if (!p[bytes]) break;
        p += bytes + 1;
    }
    c->n_synsets = (uint32_t)(s->n_lasting - c->synsets);
    return SCA_OK;
}

static sca_status pool_put(spice *s, const uint32_t *from, size_t n, size_t *at)
{
    TRY(grow(&s->pool, sizeof *s->pool, s->n_pool + n, &s->cap_pool));
    *at = s->n_pool;
    if (n) memcpy(s->pool + s->n_pool, from, n * sizeof *from);
    s->n_pool += n;
    return SCA_OK;
}

/* The concept of a text, copied into the pool. */
static sca_status concept_of(spice *s, const char *text, concept *c)
{
    int32_t id;
    TRY(lexicon_add(&s->known, text, strlen(text), &id));
    if ((size_t)id == s->n_concepts) {
        TRY(grow(&s->concepts, sizeof *s->concepts, s->n_concepts + 1, &s->cap_concepts));
        TRY(concept_make(s, text, &s->concepts[s->n_concepts]));
        s->n_concepts++;
    }
    concept known = s->concepts[id];
    *c = known;
    TRY(pool_put(s, s->lasting + known.words, known.n_words, &c->words));
    return pool_put(s, s->lasting + known.synsets, known.n_synsets, &c->synsets);
}

static size_t common(const uint32_t *a, size_t n_a, const uint32_t *b, size_t n_b)
{
    size_t count = 0;
    for (size_t i = 0, k = 0; i < n_a && k < n_b;) {
        count += a[i] == b[k];
        bool step_a = a[i] <= b[k], step_b = b[k] <= a[i];
        i += step_a, k += step_b;
    }
    return count;
}

static size_t common_words(const spice *s, const concept *a, const concept *b)
{
    return common(s->pool + a->words, a->n_words, s->pool + b->words, b->n_words);
}

static size_t common_synsets(const spice *s, const concept *a, const concept *b)
{
    return common(s->pool + a->synsets, a->n_synsets, s->pool + b->synsets, b->n_synsets);
}

static bool similar(const spice *s, const concept *a, const concept *b)
{
    return common_words(s, a, b) > 0 || common_synsets(s, a, b) > 0;
}

static bool equal(const spice *s, const concept *a, const concept *b)
{
    return a->n_words == b->n_words && a->n_synsets == b->n_synsets && common_words(s, a, b) == a->n_words &&
           common_synsets(s, a, b) == a->n_synsets;
}

/* 1 with a word in common, otherwise the share of common synsets. */
static double similarity(const spice *s, const concept *a, const concept *b)
{
    if (common_words(s, a, b)) return 1;
    size_t both = common_synsets(s, a, b), all = a->n_synsets + b->n_synsets - both;
    return all ? (double)both / (double)all : 0;
}

/* a and b united, a new list in the pool. */
static sca_status unite_lists(spice *s, size_t *a, uint32_t *n_a, size_t b, uint32_t n_b)
{
    size_t at = s->n_pool, i = *a, i_end = i + *n_a, k = b, k_end = b + n_b;
    TRY(grow(&s->pool, sizeof *s->pool, s->n_pool + *n_a + n_b, &s->cap_pool));
    const uint32_t *p = s->pool;
    while (i < i_end || k < k_end) {
        bool from_a = k == k_end || (i < i_end && p[i] <= p[k]);
        uint32_t x = from_a ? p[i] : p[k];
        i += i < i_end && p[i] == x;
        k += k < k_end && p[k] == x;
        s->pool[s->n_pool++] = x;
    }
    *a = at, *n_a = (uint32_t)(s->n_pool - at);
    return SCA_OK;
}

static sca_status unite(spice *s, concept *a, const concept *b)
{
    TRY(unite_lists(s, &a->words, &a->n_words, b->words, b->n_words));
    return unite_lists(s, &a->synsets, &a->n_synsets, b->synsets, b->n_synsets);
}

/* ---- tuples into a graph ------------------------------------------------------------------- */

/* The node for an object: an equal one, else the most similar one, which absorbs it (the first on ties), else new.
 */
static sca_status object_node(spice *s, spice_graph *g, const char *text, int32_t *node)
{
    concept c;
    double best = 0;
    TRY(concept_of(s, text, &c));
    for (size_t i = 0; i < g->n_nodes; i++)
        if (equal(s, &g->node[i], &c)) return *node = (int32_t)i, SCA_OK;
    for (size_t i = 0; i < g->n_nodes && !s->printed; i++) {
        double x = similarity(s, &g->node[i], &c);
        if (x > best) best = x, *node = (int32_t)i;
    }
    if (g->n_nodes > 0 && best > 0) return unite(s, &g->node[*node], &c);
    TRY(grow(&g->node, sizeof *g->node, g->n_nodes + 1, &g->cap_nodes));
    *node = (int32_t)g->n_nodes;
    g->node[g->n_nodes++] = c;
    return SCA_OK;
}

static sca_status add_attribute(spice *s, spice_graph *g, int32_t node, const char *text)
{
    concept c;
    TRY(concept_of(s, text, &c));
    for (size_t i = 0; i < g->n_attributes && !s->printed; i++)
        if (g->attribute[i].node == node && similar(s, &g->attribute[i].attribute, &c))
            return unite(s, &g->attribute[i].attribute, &c);
    TRY(grow(&g->attribute, sizeof *g->attribute, g->n_attributes + 1, &g->cap_attributes));
    g->attribute[g->n_attributes++] = (spice_attribute){ node, c };
    return SCA_OK;
}

static sca_status add_relation(spice *s, spice_graph *g, int32_t from, const char *text, int32_t to)
{
    concept c;
    if (!s->printed && text_starts(text, "be ")) text += 3;
    TRY(concept_of(s, text, &c));
    for (size_t i = 0; i < g->n_edges && !s->printed; i++) {
        spice_edge *e = &g->edge[i];
        if (e->from == from && e->to == to && similar(s, &e->relation, &c)) return unite(s, &e->relation, &c);
    }
    TRY(grow(&g->edge, sizeof *g->edge, g->n_edges + 1, &g->cap_edges));
    g->edge[g->n_edges++] = (spice_edge){ from, to, c };
    return SCA_OK;
}

sca_status spice_add(spice *s, spice_graph *g, spice_tuples tuples)
{
    for (size_t i = 0; i < tuples.n; i++) {
        const spice_tuple *t = &tuples.tuple[i];
        int32_t first = 0, last = 0;
        TRY(object_node(s, g, t->part[0], &first));
        if (t->n == 2) TRY(add_attribute(s, g, first, t->part[1]));
        if (t->n != 3) continue;
        TRY(object_node(s, g, t->part[2], &last));
        TRY(add_relation(s, g, first, t->part[1], last));
    }
    return SCA_OK;
}

/* ---- matching ------------------------------------------------------------------------------ */

/* near[i * ref nodes + k]: node i of hyp is similar to node k of ref. */
static void match_nodes(const spice *s, const spice_graph *hyp, const spice_graph *ref, bool *near)
{
    for (size_t i = 0; i < hyp->n_nodes; i++)
        for (size_t k = 0; k < ref->n_nodes; k++)
            near[i * ref->n_nodes + k] = similar(s, &hyp->node[i], &ref->node[k]);
}

static void match_all(const spice *s, const spice_graph *hyp, const spice_graph *ref, const bool *near, bool *a,
                      bool *b)
{
    size_t width = ref->n_nodes;
    for (size_t i = 0; i < hyp->n_nodes; i++)
        for (size_t k = 0; k < width; k++)
            if (near[i * width + k]) a[i] = b[k] = true;
    a += hyp->n_nodes, b += ref->n_nodes;
    for (size_t i = 0; i < hyp->n_attributes; i++)
        for (size_t k = 0; k < ref->n_attributes; k++) {
            const spice_attribute *x = &hyp->attribute[i], *y = &ref->attribute[k];
            if (near[(size_t)x->node * width + (size_t)y->node] && similar(s, &x->attribute, &y->attribute))
                a[i] = b[k] = true;
        }
    a += hyp->n_attributes, b += ref->n_attributes;
    for (size_t i = 0; i < hyp->n_edges; i++)
        for (size_t k = 0; k < ref->n_edges; k++) {
            const spice_edge *x = &hyp->edge[i], *y = &ref->edge[k];
            if (near[(size_t)x->from * width + (size_t)y->from] && near[(size_t)x->to * width + (size_t)y->to] &&
                similar(s, &x->relation, &y->relation))
                a[i] = b[k] = true;
        }
}

static size_t tuples_of(const spice_graph *g) { return g->n_nodes + g->n_attributes + g->n_edges; }

sca_status spice_match(spice *s, const spice_graph *hyp, const spice_graph *ref, bool *truth_hyp, bool *truth_ref,
                       spice_counts *out)
{
    *out = (spice_counts){ .hyp = tuples_of(hyp), .ref = tuples_of(ref) };
    size_t nodes = hyp->n_nodes * ref->n_nodes;
    bool *room = mem_zero(nodes + out->hyp + out->ref + 1, sizeof *room), *a = room + nodes, *b = a + out->hyp;
    if (!room) return mem_fail(nodes + out->hyp + out->ref, "scene graph");
    match_nodes(s, hyp, ref, room);
    match_all(s, hyp, ref, room, a, b);
    for (size_t i = 0; i < out->hyp; i++) out->true_hyp += a[i];
    for (size_t i = 0; i < out->ref; i++) out->true_ref += b[i];
    if (truth_hyp && out->hyp) memcpy(truth_hyp, a, out->hyp * sizeof *a);
    if (truth_ref && out->ref) memcpy(truth_ref, b, out->ref * sizeof *b);
    mem_free(room);
    return SCA_OK;
}

double spice_f1(const spice_counts *c)
{
    if (c->true_hyp == 0) return 0;
    double precision = (double)c->true_hyp / (double)c->hyp, recall = (double)c->true_hyp / (double)c->ref;
    return 2 * precision * recall / (precision + recall);
}

sca_status spice_score(meteor *m, const spice_item *items, size_t n, double *mean, double *per_item)
{
    spice s = { .words = meteor_lend_words(m) };
    spice_graph hyp = { 0 }, ref = { 0 };
    sca_status status = SCA_OK;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        spice_counts counts;
        spice_clear(&s, &hyp, &ref);
        TRY_GOTO(done, spice_add(&s, &hyp, items[i].hyp));
        for (size_t k = 0; k < items[i].n_refs; k++) TRY_GOTO(done, spice_add(&s, &ref, items[i].refs[k]));
        TRY_GOTO(done, spice_match(&s, &hyp, &ref, NULL, NULL, &counts));
        double f = spice_f1(&counts);
        if (per_item) per_item[i] = f;
        sum += f;
    }
    *mean = n ? sum / (double)n : 0;
done:
    spice_graph_free(&hyp);
    spice_graph_free(&ref);
    spice_free(&s);
    return status;
}
