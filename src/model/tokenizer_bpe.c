/* tokenizer_bpe.c - byte-pair encoding with ranked merges. */
#include "model/tokenizer_private.h"

#include <string.h>

#define SHORT_WORD 32 /* up to here, looking through all pairs beats the heap */

/* ---- GPT-2's alphabet: every byte is written as a visible character -------------------------------------------
 */

static bool stands_for_itself(int byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* The other 68 bytes take the code points from 256 on, in order. */
static int32_t code_of_byte(int byte)
{
    if (stands_for_itself(byte)) return byte;
    int below = 0;
    for (int b = 0; b < byte; b++) below += !stands_for_itself(b);
    return 256 + below;
}

/* -1: not in the alphabet. Closed form of the table above, so that threads share nothing. */
static int byte_of_code(int32_t code)
{
    if (code >= 0 && code < 256) return stands_for_itself((int)code) ? (int)code : -1;
    int k = (int)code - 256;
    if (k < 0 || k > 67) return -1;
    return k <= 32 ? k : k <= 66 ? k - 33 + 0x7f : 0xad;
}

void bpe_put_bytes(const tokenizer *t, int id, str *out)
{
    const char *text = vocab_text(&t->vocab, id);
    size_t bytes = t->vocab.tokens[id].bytes;
    for (size_t i = 0; i < bytes;)
        if (byte_of_code(utf8_next(text, bytes, &i)) < 0) {
            str_put_bytes(out, text, bytes); /* a token that is written in plain text */
            return;
        }
    for (size_t i = 0; i < bytes;) str_putc(out, (char)byte_of_code(utf8_next(text, bytes, &i)));
}

int bpe_write_byte(int byte, char out[8]) { return (int)utf8_put(code_of_byte(byte), out); }

int bpe_rank_of_byte(int byte)
{
    if (!stands_for_itself(byte)) return code_of_byte(byte) - 68; /* 188 bytes stand for themselves */
    int below = 0;
    for (int b = 0; b < byte; b++) below += stands_for_itself(b);
    return below;
}

sca_status bpe_prepare(tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        char text[8];
        int n = t->model == MODEL_BPE_BYTES ? bpe_write_byte(b, text)
                                            : snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        if (t->model == MODEL_BPE_CHARS && !t->rules.byte_fallback)
            t->byte_ids[b] = -1;
        else
            t->byte_ids[b] = vocab_find(&t->vocab, text, (size_t)n);
        if (t->byte_ids[b] < 0 || t->model != MODEL_BPE_CHARS) continue;
        t->vocab.tokens[t->byte_ids[b]].flags |= TOKEN_BYTE;
        t->vocab.tokens[t->byte_ids[b]].byte = (uint8_t)b;
    }
    return SCA_OK;
}

/* ---- merges
 * ------------------------------------------------------------------------------------------------------ */

static sca_status merge_unknown(const char *where, const char *text, size_t bytes)
{
    return status_fail(SCA_ERR_FORMAT, "%s: the merge names '%.*s', expected a token of the vocabulary", where,
                       (int)(bytes < 80 ? bytes : 80), text);
}

sca_status bpe_add_merge(tokenizer *t, uint32_t rank, const char *left, size_t left_bytes, const char *right,
                         size_t right_bytes, const char *where)
{
    int a = vocab_find(&t->vocab, left, left_bytes), b = vocab_find(&t->vocab, right, right_bytes);
    if (a < 0) return merge_unknown(where, left, left_bytes);
    if (b < 0) return merge_unknown(where, right, right_bytes);
    str joined = { 0 };
    str_put_bytes(&joined, left, left_bytes);
    str_put_bytes(&joined, right, right_bytes);
    sca_status status = str_check(&joined, "a merge");
    int both = status == SCA_OK ? vocab_find(&t->vocab, str_text(&joined), joined.bytes) : -1;
    if (status == SCA_OK)
        status = both < 0 ? merge_unknown(where, str_text(&joined), joined.bytes)
                          : pair_put(&t->merges, (uint32_t)a, (uint32_t)b, rank, (uint32_t)both);
    str_free(&joined);
    return status;
}

sca_status bpe_add_line(tokenizer *t, uint32_t rank, const char *line, size_t bytes, const char *where)
{
    const char *space = memchr(line, ' ', bytes);
    size_t left = space ? (size_t)(space - line) : 0;
    if (!space || left == 0 || left + 1 == bytes || memchr(space + 1, ' ', bytes - left - 1))
        return status_fail(SCA_ERR_FORMAT,
                           "%s: the merge is '%.*s', expected two tokens with one space between them", where,
                           (int)(bytes < 80 ? bytes : 80), line);
    return bpe_add_merge(t, rank, line, left, space + 1, bytes - left - 1, where);
}

void bpe_merge_short(const pair_table *merges, int_list *word)
{
    int *id = word->data;
    const pair_slot *slot[SHORT_WORD] = { 0 };
    size_t n = word->n;
    for (size_t i = 0; i + 1 < n; i++) slot[i] = pair_find(merges, (uint32_t)id[i], (uint32_t)id[i + 1]);
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (slot[i] && (best == n || slot[i]->rank < slot[best]->rank)) best = i;
        if (best == n) break;
        id[best] = (int)slot[best]->id;
        n--;
        for (size_t i = best + 1; i < n; i++) id[i] = id[i + 1], slot[i] = slot[i + 1];
        if (best > 0) slot[best - 1] = pair_find(merges, (uint32_t)id[best - 1], (uint32_t)id[best]);
        slot[best] = best + 1 < n ? pair_find(merges, (uint32_t)id[best], (uint32_t)id[best + 1]) : NULL;
    }
    word->n = n;
}

/* ---- long words: a heap of candidate pairs over a linked list of symbols
 * ------------------------------------------- */

typedef struct symbol {
    int id; /* -1: merged into the one before */
    int32_t previous, next;
} symbol;
typedef struct candidate {
    uint32_t rank, at; /* smallest rank first, then leftmost */
    int id;            /* what the pair becomes */
} candidate;

static bool before(candidate a, candidate b) { return a.rank != b.rank ? a.rank < b.rank : a.at < b.at; }

static void sift_down(candidate *heap, size_t n, size_t i)
{
    candidate moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moved)) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

static void sift_up(candidate *heap, size_t i, candidate moved)
{
    for (; i > 0 && before(moved, heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = moved;
}

/* Each merge takes one pair out and puts at most two in, so that 3 n candidates are the most there can be. */
static sca_status reserve(encoder *e, size_t n)
{
    if (n > e->n_symbols) {
        void *symbols = mem_resize(e->symbols, n * sizeof(symbol));
        if (!symbols) return mem_fail(n * sizeof(symbol), "the symbols of a word");
        e->symbols = symbols;
        e->n_symbols = n;
    }
    if (3 * n > e->n_heap) {
        void *heap = mem_resize(e->heap, 3 * n * sizeof(candidate));
        if (!heap) return mem_fail(3 * n * sizeof(candidate), "the merges of a word");
        e->heap = heap;
        e->n_heap = 3 * n;
    }
    return SCA_OK;
}

static void push_pair(encoder *e, size_t *n_heap, int32_t left)
{
    const symbol *s = e->symbols;
    if (left < 0 || s[left].next < 0) return;
    const pair_slot *p = pair_find(&e->t->merges, (uint32_t)s[left].id, (uint32_t)s[s[left].next].id);
    if (p) sift_up(e->heap, (*n_heap)++, (candidate){ p->rank, (uint32_t)left, (int)p->id });
}

static bool still_there(const encoder *e, candidate c)
{
    const symbol *s = e->symbols, *left = &s[c.at];
    if (left->id < 0 || left->next < 0) return false;
    const pair_slot *p = pair_find(&e->t->merges, (uint32_t)left->id, (uint32_t)s[left->next].id);
    return p && (int)p->id == c.id;
}

sca_status bpe_merge_long(encoder *e)
{
    size_t n = e->word.n, n_heap = 0;
    TRY(reserve(e, n));
    symbol *s = e->symbols;
    candidate *heap = e->heap;
    for (size_t i = 0; i < n; i++)
        s[i] = (symbol){ e->word.data[i], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1 };
    for (size_t i = 0; i + 1 < n; i++) push_pair(e, &n_heap, (int32_t)i);
    while (n_heap > 0) {
        candidate top = heap[0];
        heap[0] = heap[--n_heap];
        if (n_heap > 0) sift_down(heap, n_heap, 0);
        if (!still_there(e, top)) continue;
        symbol *left = &s[top.at], *right = &s[left->next];
        left->id = top.id;
        right->id = -1;
        left->next = right->next;
        if (left->next >= 0) s[left->next].previous = (int32_t)top.at;
        push_pair(e, &n_heap, left->previous);
        push_pair(e, &n_heap, (int32_t)top.at);
    }
    e->word.n = 0;
    for (size_t i = 0; i < n; i++)
        if (s[i].id >= 0) e->word.data[e->word.n++] = s[i].id;
    return SCA_OK;
}

/* ---- words
 * ------------------------------------------------------------------------------------------------------------ */

static sca_status put_unknown(encoder *e, bool *was_unknown)
{
    int id = e->t->model_unknown;
    if (id < 0 || (*was_unknown && e->t->fuse_unknown)) return SCA_OK;
    *was_unknown = true;
    return int_list_put(&e->word, id);
}

static sca_status symbols_of_bytes(encoder *e, const char *text, size_t bytes)
{
    bool unknown = false;
    for (size_t i = 0; i < bytes; i++) {
        int id = e->t->byte_ids[(unsigned char)text[i]];
        if (id < 0) {
            TRY(put_unknown(e, &unknown));
            continue;
        }
        TRY(int_list_put(&e->word, id));
        unknown = false;
    }
    return SCA_OK;
}

static sca_status symbols_of_chars(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    bool unknown = false;
    for (size_t i = 0, start = 0; i < bytes; start = i) {
        utf8_next(text, bytes, &i);
        int id = vocab_find(&t->vocab, text + start, i - start);
        bool all = id < 0;
        for (size_t k = start; k < i && all; k++) all = t->byte_ids[(unsigned char)text[k]] >= 0;
        if (id < 0 && !all) {
            TRY(put_unknown(e, &unknown));
            continue;
        }
        if (id >= 0) TRY(int_list_put(&e->word, id));
        for (size_t k = start; k < i && id < 0; k++)
            TRY(int_list_put(&e->word, t->byte_ids[(unsigned char)text[k]]));
        unknown = false;
    }
    return SCA_OK;
}

/* The token that is the whole word, or -1. */
static int whole_word(const tokenizer *t, const char *text, size_t bytes)
{
    char written[512];
    size_t n = 0;
    if (t->model == MODEL_BPE_CHARS) return vocab_find(&t->vocab, text, bytes);
    for (size_t i = 0; i < bytes; i++) {
        if (n + 4 > sizeof written) return -1;
        n += utf8_put(code_of_byte((unsigned char)text[i]), written + n);
    }
    return vocab_find(&t->vocab, written, n);
}

sca_status bpe_encode(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    int whole = t->ignore_merges ? whole_word(t, text, bytes) : -1;
    if (whole >= 0) return int_list_put(&e->ids, whole);
    e->word.n = 0;
    TRY(t->model == MODEL_BPE_BYTES ? symbols_of_bytes(e, text, bytes) : symbols_of_chars(e, text, bytes));
    if (e->word.n > SHORT_WORD)
        TRY(bpe_merge_long(e));
    else if (e->word.n > 1)
        bpe_merge_short(&t->merges, &e->word);
    for (size_t i = 0; i < e->word.n; i++) TRY(int_list_put(&e->ids, e->word.data[i]));
    return SCA_OK;
}
