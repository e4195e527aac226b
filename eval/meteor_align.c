/* meteor_align.c - the aligner of METEOR 1.5, its search and its tie-breaking kept to the letter (metrics.md 6.4 to
 * 6.6): a cleaner search gives other alignments for one caption in ten. */
#include "eval/meteor_parts.h"

#include <string.h>

enum { BEAM = 40, STAGES = 4 };

typedef struct match {
    int32_t stage, r, r_length, t, t_length;
} match;

typedef struct path {
    int32_t m1, m2, chunks, distance, next, last; /* next: r position; last: end in t of the previous match or -1 */
    int32_t chosen;                               /* links: the match taken last, or -1 */
    size_t slot;                                  /* where its marks are */
} path;

typedef struct link {
    int32_t match, before;
} link;

/* The best paths so far, at most BEAM, in the order of a stable sort: later ones do not matter to the search. */
typedef struct paths {
    path p[BEAM];
    uint64_t *used; /* BEAM slots: words of t and of r that are taken, one bit each */
    size_t n, cap_used;
} paths;

/* Places of the words of a text: place[first[word]], ... by way of next; -1 ends. */
typedef struct places {
    int32_t *first;                        /* per phrase word */
    int32_t *next;                         /* per place */
    uint64_t seen[(METEOR_NONE + 1) / 64]; /* a bit per phrase word: small enough to stay near */
} places;

struct meteor_aligner {
    const meteor_words *w;
    meteor_text t, r;
    match *found, *match; /* in order of insertion; by r position */
    size_t n_found, cap_found, cap_match;
    size_t *list;                       /* r.n + 1: the matches of position j are list[j] to list[j + 1] - 1 */
    int32_t *cover_t, *cover_r, *fixed; /* matches that touch a word; the fixed match at an r position, or -1 */
    size_t cap_text;
    places in_t, in_r;
    paths both[2], *now, *then;
    link *links;
    size_t n_links, cap_links;
};

/* ---- room ---------------------------------------------------------------------------------- */

static sca_status room(void *array, size_t size, size_t wanted, size_t *cap)
{
    if (wanted <= *cap) return SCA_OK;
    size_t n = wanted + wanted / 2 + 16, bytes;
    if (!size_mul(n, size, &bytes)) return mem_fail(SIZE_MAX, "alignment");
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = mem_resize(old, bytes);
    if (!p) return mem_fail(bytes, "alignment");
    memcpy(array, &p, sizeof p);
    *cap = n;
    return SCA_OK;
}

static sca_status text_room(meteor_aligner *a)
{
    size_t longest = a->t.n > a->r.n ? a->t.n : a->r.n;
    if (longest > 30000) return status_fail(SCA_ERR_UNSUPPORTED, "a caption of %zu words, at most 30000", longest);
    if (longest + 1 <= a->cap_text) return SCA_OK;
    struct {
        void *array;
        size_t size;
    } arrays[] = {
        { &a->list, sizeof *a->list },           { &a->cover_t, sizeof *a->cover_t },
        { &a->cover_r, sizeof *a->cover_r },     { &a->fixed, sizeof *a->fixed },
        { &a->in_t.next, sizeof *a->in_t.next }, { &a->in_r.next, sizeof *a->in_r.next },
    };
    size_t cap = 0;
    for (size_t i = 0; i < LENGTH(arrays); i++) {
        cap = 0; /* all get the same room */
        TRY(room(arrays[i].array, arrays[i].size, longest + 1, &cap));
    }
    a->cap_text = cap;
    return SCA_OK;
}

/* ---- candidates ---------------------------------------------------------------------------- */

static sca_status candidate(meteor_aligner *a, int stage, size_t r, size_t r_length, size_t t, size_t t_length)
{
    TRY(room(&a->found, sizeof *a->found, a->n_found + 1, &a->cap_found));
    a->found[a->n_found++] = (match){ stage, (int32_t)r, (int32_t)r_length, (int32_t)t, (int32_t)t_length };
    for (size_t i = 0; i < t_length; i++) a->cover_t[t + i]++;
    for (size_t j = 0; j < r_length; j++) a->cover_r[r + j]++;
    return SCA_OK;
}

static const word_facts *facts_of(const meteor_aligner *a, int32_t word) { return &a->w->facts[word]; }

static bool synonyms(const meteor_words *w, const word_facts *x, const word_facts *y)
{
    if (!(x->marks & y->marks)) return false;
    const uint32_t *p = w->synsets + x->synset, *p_end = p + x->n_synsets;
    const uint32_t *q = w->synsets + y->synset, *q_end = q + y->n_synsets;
    while (p < p_end && q < q_end) {
        if (*p == *q) return true;
        if (*p < *q)
            p++;
        else
            q++;
    }
    return false;
}

static sca_status single_words(meteor_aligner *a, int stage)
{
    for (size_t j = 0; j < a->r.n; j++) {
        int32_t r = a->r.id[j];
        const word_facts *x = facts_of(a, r);
        for (size_t i = 0; i < a->t.n; i++) {
            int32_t t = a->t.id[i];
            const word_facts *y = facts_of(a, t);
            bool matches = stage == 0   ? r == t
                           : stage == 1 ? r != t && x->stem == y->stem
                                        : r != t && synonyms(a->w, x, y);
            if (matches) TRY(candidate(a, stage, j, 1, i, 1));
        }
    }
    return SCA_OK;
}

static void places_fill(const meteor_aligner *a, places *p, meteor_text text)
{
    for (size_t i = text.n; i-- > 0;) {
        uint16_t word = facts_of(a, text.id[i])->phrase_word;
        if (word == METEOR_NONE) continue;
        p->next[i] = p->first[word];
        p->first[word] = (int32_t)i;
        p->seen[word / 64] |= (uint64_t)1 << word % 64;
    }
}

static void places_clear(const meteor_aligner *a, places *p, meteor_text text)
{
    for (size_t i = 0; i < text.n; i++) {
        uint16_t word = facts_of(a, text.id[i])->phrase_word;
        if (word == METEOR_NONE) continue;
        p->first[word] = -1;
        p->seen[word / 64] = 0;
    }
}

static bool phrase_at(const meteor_aligner *a, meteor_text text, size_t at, const uint16_t *word, size_t n)
{
    if (at + n > text.n) return false;
    for (size_t i = 1; i < n; i++)
        if (facts_of(a, text.id[at + i])->phrase_word != word[i]) return false;
    return true;
}

/* The matches of all entries of a node; its phrase A stands at `at` of one text, B is looked for in the other. */
static sca_status node_matches(meteor_aligner *a, uint32_t node, size_t at, size_t length, bool a_in_r)
{
    const meteor_data *d = a->w->data;
    const uint16_t *word = d->entry_ids + d->ids[node];
    const places *p = a_in_r ? &a->in_t : &a->in_r;
    meteor_text other = a_in_r ? a->t : a->r;
    for (size_t e = d->entry[node]; e < d->entry[node + 1]; word += d->entry_length[e++]) {
        if (!(p->seen[*word / 64] >> *word % 64 & 1)) continue;
        for (int32_t k = p->first[*word]; k >= 0; k = p->next[k]) {
            size_t n = d->entry_length[e], b = (size_t)k;
            if (!phrase_at(a, other, b, word, n)) continue;
            TRY(a_in_r ? candidate(a, 3, at, length, b, n) : candidate(a, 3, b, n, at, length));
        }
    }
    return SCA_OK;
}

/* The child of a node for a word, or 0. */
static uint32_t node_child(const meteor_data *d, uint32_t node, uint16_t word)
{
    size_t low = d->child[node], end = d->child[node + 1], high = end;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (d->node_word[middle] < word)
            low = middle + 1;
        else
            high = middle;
    }
    return low < end && d->node_word[low] == word ? (uint32_t)low : 0;
}

/* Paraphrases whose phrase A stands in `text`, shorter ones first. */
static sca_status phrases(meteor_aligner *a, meteor_text text, bool a_in_r)
{
    const meteor_data *d = a->w->data;
    for (size_t at = 0; at < text.n; at++) {
        uint32_t node = 0;
        for (size_t k = at; k < text.n; k++) {
            uint16_t word = facts_of(a, text.id[k])->phrase_word;
            node = word == METEOR_NONE ? 0 : node_child(d, node, word);
            if (!node) break;
            if (d->entry[node] < d->entry[node + 1]) TRY(node_matches(a, node, at, k + 1 - at, a_in_r));
        }
    }
    return SCA_OK;
}

static sca_status paraphrases(meteor_aligner *a)
{
    if (!a->w->data->has_phrases) return SCA_OK;
    places_fill(a, &a->in_t, a->t);
    places_fill(a, &a->in_r, a->r);
    sca_status status = phrases(a, a->r, true);
    if (status == SCA_OK) status = phrases(a, a->t, false);
    places_clear(a, &a->in_t, a->t);
    places_clear(a, &a->in_r, a->r);
    return status;
}

/* Groups the candidates by r position, in order of insertion. */
static sca_status candidates_sort(meteor_aligner *a)
{
    TRY(room(&a->match, sizeof *a->match, a->n_found, &a->cap_match));
    memset(a->list, 0, (a->r.n + 1) * sizeof *a->list);
    for (size_t i = 0; i < a->n_found; i++) a->list[a->found[i].r]++;
    size_t sum = 0;
    for (size_t j = 0; j <= a->r.n; j++) {
        size_t n = a->list[j];
        a->list[j] = sum;
        sum += n;
    }
    for (size_t i = 0; i < a->n_found; i++) a->match[a->list[a->found[i].r]++] = a->found[i];
    for (size_t j = a->r.n; j > 0; j--) a->list[j] = a->list[j - 1];
    a->list[0] = 0;
    return SCA_OK;
}

static sca_status candidates_find(meteor_aligner *a)
{
    bool same = a->t.n == a->r.n && (a->t.n == 0 || memcmp(a->t.id, a->r.id, a->t.n * sizeof *a->t.id) == 0);
    a->n_found = 0;
    memset(a->cover_t, 0, a->t.n * sizeof *a->cover_t);
    memset(a->cover_r, 0, a->r.n * sizeof *a->cover_r);
    for (int stage = 0; stage < (same ? 1 : STAGES - 1); stage++) TRY(single_words(a, stage));
    if (!same) TRY(paraphrases(a));
    return candidates_sort(a);
}

/* ---- search -------------------------------------------------------------------------------- */

static size_t used_words(const meteor_aligner *a) { return (a->t.n + 63) / 64 + (a->r.n + 63) / 64; }
static size_t r_bit(const meteor_aligner *a, size_t j) { return (a->t.n + 63) / 64 * 64 + j; }

static bool bit_get(const uint64_t *bits, size_t i) { return bits[i / 64] >> (i % 64) & 1; }
static void bit_set(uint64_t *bits, size_t i) { bits[i / 64] |= (uint64_t)1 << (i % 64); }

static void mark(const meteor_aligner *a, uint64_t *used, const match *m)
{
    for (int32_t i = 0; i < m->t_length; i++) bit_set(used, (size_t)(m->t + i));
    for (int32_t j = 0; j < m->r_length; j++) bit_set(used, r_bit(a, (size_t)(m->r + j)));
}

static bool is_free(const meteor_aligner *a, const uint64_t *used, const match *m)
{
    for (int32_t i = 0; i < m->t_length; i++)
        if (bit_get(used, (size_t)(m->t + i))) return false;
    for (int32_t j = 0; j < m->r_length; j++)
        if (bit_get(used, r_bit(a, (size_t)(m->r + j)))) return false;
    return true;
}

static int32_t offset(const match *m) { return m->r > m->t ? m->r - m->t : m->t - m->r; }

/* Weights of the search: whole words for exact matches, half of them, rounded down, for the others. */
static void take(path *p, const match *m)
{
    p->m1 += m->stage == 0 ? m->t_length : m->t_length / 2;
    p->m2 += m->stage == 0 ? m->r_length : m->r_length / 2;
    if (p->last != -1 && m->t != p->last) p->chunks++;
    p->next = m->r + m->r_length;
    p->last = m->t + m->t_length;
}

static bool better(const path *p, const path *q)
{
    int32_t x = p->m1 + p->m2, y = q->m1 + q->m2;
    if (x != y) return x > y;
    return p->chunks != q->chunks ? p->chunks < q->chunks : p->distance < q->distance;
}

/* Puts a copy of p where it belongs, with a copy of the marks `used`: returned, or NULL when BEAM others are as good. */
static uint64_t *paths_put(const meteor_aligner *a, paths *s, const path *p, const uint64_t *used)
{
    size_t words = used_words(a), slot = s->n, k = s->n;
    if (s->n == BEAM) {
        if (!better(p, &s->p[BEAM - 1])) return NULL;
        slot = s->p[BEAM - 1].slot;
        k = BEAM - 1;
    } else
        s->n++;
    for (; k > 0 && better(p, &s->p[k - 1]); k--) s->p[k] = s->p[k - 1];
    s->p[k] = *p;
    s->p[k].slot = slot;
    return memcpy(s->used + slot * words, used, words * sizeof *used);
}

/* Successors of a path at a word of r that is free: one per match that fits, then the path that skips the word. */
static sca_status branch(meteor_aligner *a, path *p, const uint64_t *used, size_t cur)
{
    for (size_t k = a->list[cur]; k < a->list[cur + 1]; k++) {
        const match *m = &a->match[k];
        if (!is_free(a, used, m)) continue;
        path q = *p;
        take(&q, m);
        q.chosen = (int32_t)a->n_links;
        TRY(room(&a->links, sizeof *a->links, a->n_links + 1, &a->cap_links));
        uint64_t *marks = paths_put(a, a->then, &q, used);
        if (marks) {
            a->links[a->n_links++] = (link){ (int32_t)k, p->chosen };
            mark(a, marks, m);
        }
        p->distance += offset(m); /* the parent pays, not the copy */
    }
    if (p->last != -1) p->chunks++;
    p->last = -1;
    p->next++;
    return paths_put(a, a->then, p, used), SCA_OK;
}

static sca_status extend(meteor_aligner *a, path *p, const uint64_t *used, size_t cur)
{
    if (cur == a->r.n) {
        if (p->last != -1) p->chunks++;
        return paths_put(a, a->then, p, used), SCA_OK;
    }
    if (!bit_get(used, r_bit(a, cur))) return branch(a, p, used, cur);
    if ((int32_t)cur >= p->next) {
        int32_t fixed = a->fixed[p->next];
        if (fixed < 0) return SCA_OK;
        take(p, &a->match[fixed]);
        p->distance += offset(&a->match[fixed]);
    }
    return paths_put(a, a->then, p, used), SCA_OK;
}

/* Matches that are alone in their list and on all their words are taken before the search. */
static sca_status start(meteor_aligner *a)
{
    size_t words = used_words(a);
    TRY(room(&a->now->used, sizeof *a->now->used, BEAM * words, &a->now->cap_used));
    TRY(room(&a->then->used, sizeof *a->then->used, BEAM * words, &a->then->cap_used));
    memset(a->now->used, 0, words * sizeof *a->now->used);
    a->now->p[0] = (path){ .last = -1, .chosen = -1 };
    a->now->n = 1;
    a->n_links = 0;
    for (size_t j = 0; j < a->r.n; j++) {
        const match *m = &a->match[a->list[j]];
        bool alone = a->list[j + 1] - a->list[j] == 1;
        for (int32_t i = 0; alone && i < m->t_length; i++) alone = a->cover_t[m->t + i] == 1;
        for (int32_t i = 0; alone && i < m->r_length; i++) alone = a->cover_r[m->r + i] == 1;
        a->fixed[j] = alone ? (int32_t)a->list[j] : -1;
        if (alone) mark(a, a->now->used, m);
    }
    return SCA_OK;
}

/* Afterwards a->now->p[0] is the alignment. */
static sca_status search(meteor_aligner *a)
{
    size_t words = used_words(a);
    TRY(start(a));
    for (size_t cur = 0; cur <= a->r.n; cur++) {
        a->then->n = 0;
        for (size_t k = 0; k < a->now->n; k++)
            TRY(extend(a, &a->now->p[k], a->now->used + a->now->p[k].slot * words, cur));
        if (a->then->n == 0) paths_put(a, a->then, &a->now->p[0], a->now->used + a->now->p[0].slot * words);
        paths *swap = a->now;
        a->now = a->then;
        a->then = swap;
    }
    return SCA_OK;
}

/* ---- statistics ---------------------------------------------------------------------------- */

static int32_t function_words(const meteor_aligner *a, meteor_text text, int32_t at, int32_t n)
{
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++) count += facts_of(a, text.id[at + i])->function;
    return count;
}

static void count_match(const meteor_aligner *a, const match *m, meteor_stats *s)
{
    int32_t t = function_words(a, a->t, m->t, m->t_length), r = function_words(a, a->r, m->r, m->r_length);
    int32_t *stage = s->n + 4 + 4 * m->stage;
    stage[0] += m->t_length - t;
    stage[1] += m->r_length - r;
    stage[2] += t;
    stage[3] += r;
    s->n[21] += m->t_length;
    s->n[22] += m->r_length;
}

/* a->fixed becomes the whole alignment: the match at each r position. */
static void count_alignment(meteor_aligner *a, meteor_stats *s)
{
    for (int32_t l = a->now->p[0].chosen; l >= 0; l = a->links[l].before) {
        int32_t k = a->links[l].match;
        a->fixed[a->match[k].r] = k;
    }
    int32_t last = -1;
    for (size_t j = 0; j < a->r.n;) {
        const match *m = a->fixed[j] < 0 ? NULL : &a->match[a->fixed[j]];
        if (last != -1 && (!m || m->t != last)) s->n[20]++;
        last = m ? m->t + m->t_length : -1;
        if (m) count_match(a, m, s);
        j += m ? (size_t)m->r_length : 1;
    }
    if (last != -1) s->n[20]++;
}

sca_status meteor_align(meteor_aligner *a, meteor_text t, meteor_text r, meteor_stats *out)
{
    *out = (meteor_stats){ { 0 } };
    a->t = t, a->r = r;
    TRY(text_room(a));
    out->n[0] = (int32_t)t.n, out->n[1] = (int32_t)r.n;
    out->n[2] = function_words(a, t, 0, (int32_t)t.n);
    out->n[3] = function_words(a, r, 0, (int32_t)r.n);
    TRY(candidates_find(a));
    if (a->n_found == 0) return SCA_OK;
    TRY(search(a));
    count_alignment(a, out);
    return SCA_OK;
}

/* ---- open and close ------------------------------------------------------------------------ */

sca_status meteor_aligner_open(const meteor_words *w, meteor_aligner **out)
{
    *out = NULL;
    meteor_aligner *a = mem_zero(1, sizeof *a);
    if (!a) return mem_fail(sizeof *a, "aligner");
    size_t bytes = (w->data->list[LIST_PHRASE].n + 1) * sizeof(int32_t);
    a->w = w;
    a->now = &a->both[0], a->then = &a->both[1];
    a->in_t.first = mem_alloc(bytes);
    a->in_r.first = mem_alloc(bytes);
    if (!a->in_t.first || !a->in_r.first) {
        meteor_aligner_close(a);
        return mem_fail(bytes, "aligner");
    }
    memset(a->in_t.first, -1, bytes);
    memset(a->in_r.first, -1, bytes);
    *out = a;
    return SCA_OK;
}

void meteor_aligner_close(meteor_aligner *a)
{
    if (!a) return;
    mem_free(a->found), mem_free(a->match), mem_free(a->list);
    mem_free(a->cover_t), mem_free(a->cover_r), mem_free(a->fixed);
    mem_free(a->in_t.first), mem_free(a->in_t.next), mem_free(a->in_r.first), mem_free(a->in_r.next);
    mem_free(a->both[0].used), mem_free(a->both[1].used);
    mem_free(a->links);
    mem_free(a);
}
