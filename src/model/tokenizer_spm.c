/* tokenizer_spm.c - SentencePiece: encoding with and without the library, and the two ways to decode. */
#include "model/tokenizer_private.h"

#include <string.h>

/* ---- with the library -----------------------------------------------------------------------------------------
 */

typedef struct sink {
    encoder *e;
    size_t skip; /* ids to leave out at the beginning */
} sink;

static int put_ids(void *user, const int *ids, size_t n)
{
    sink *s = user;
    for (size_t i = s->skip < n ? s->skip : n; i < n; i++)
        if (int_list_put(&s->e->ids, ids[i]) != SCA_OK) return 1;
    return 0;
}

static sca_status library_encode(sink *s, const char *text, size_t bytes)
{
    char why[300] = "";
    spm_result result = spm_encode(s->e->t->library, text, bytes, put_ids, s, why, sizeof why);
    if (result == SPM_MEMORY) return mem_fail(bytes, "tokenising a text");
    if (result != SPM_OK) return status_fail(SCA_ERR_FORMAT, "the SentencePiece library failed: %s", why);
    return SCA_OK;
}

static bool begins_with_space(const char *text, size_t bytes)
{
    return (bytes > 0 && text[0] == ' ') ||
           (bytes >= SPACE_SYMBOL_BYTES && memcmp(text, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) == 0);
}

/* transformers' way to keep the library from dropping leading spaces when `legacy` is false: the text follows the
 * unknown token's name, whose pieces are dropped again. */
static sca_status encode_behind_unknown(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    const char *name = vocab_text(&t->vocab, t->unknown);
    size_t name_bytes = t->vocab.tokens[t->unknown].bytes, before = e->ids.n;
    sink s = { e, 0 };
    TRY(library_encode(&s, name, name_bytes));
    s.skip = e->ids.n - before;
    e->ids.n = before;
    str *joined = &e->scratch[0];
    str_clear(joined);
    str_put_bytes(joined, name, name_bytes);
    str_put_bytes(joined, text, bytes);
    TRY(str_check(joined, "tokenising a text"));
    return library_encode(&s, joined->data, joined->bytes);
}

/* The very first segment gets its own leading space symbol, and with it the library's dummy prefix is not wanted.
 */
static sca_status encode_not_legacy(encoder *e, const char *text, size_t bytes)
{
    str s = { 0 };
    if (e->text_begins) str_put(&s, SPACE_SYMBOL);
    str_put_bytes(&s, text, bytes);
    sca_status status = str_check(&s, "tokenising a text");
    if (status == SCA_OK && begins_with_space(s.data, s.bytes))
        status = encode_behind_unknown(e, s.data, s.bytes);
    else if (status == SCA_OK)
        status = library_encode(&(sink){ e, 0 }, str_text(&s), s.bytes);
    str_free(&s);
    return status;
}

sca_status spm_encode_segment(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    if (bytes == 0) return SCA_OK;
    if (t->decode == DECODE_SPM_SLOW && !t->legacy && t->unknown >= 0) return encode_not_legacy(e, text, bytes);
    return library_encode(&(sink){ e, 0 }, text, bytes);
}

/* ---- without it: merges by score
 * --------------------------------------------------------------------------------- */

typedef struct piece {
    uint32_t start, bytes; /* in the text; bytes 0: merged into the one before */
    int32_t previous, next;
    bool fixed; /* a user-defined token */
} piece;
typedef struct offer {
    float score;
    uint32_t at, right, bytes; /* pieces and their joint length, to see whether the offer still stands */
} offer;

typedef struct scores_work {
    encoder *e;
    const char *text;
    size_t n_heap;
} scores_work;

static bool before(offer a, offer b) { return a.score != b.score ? a.score > b.score : a.at < b.at; }

static void push(offer *heap, size_t i, offer o)
{
    for (; i > 0 && before(o, heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
    heap[i] = o;
}

static offer pop(offer *heap, size_t n)
{
    offer top = heap[0], moved = heap[n - 1];
    size_t i = 0, left = n - 1;
    for (size_t child; (child = 2 * i + 1) < left; i = child) {
        if (child + 1 < left && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moved)) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
    return top;
}

#define NOT_MERGED (TOKEN_CONTROL | TOKEN_UNKNOWN | TOKEN_BYTE | TOKEN_UNUSED)

static int mergeable(const tokenizer *t, const char *text, size_t bytes)
{
    int id = vocab_find(&t->vocab, text, bytes);
    return id >= 0 && id < t->model_size && !(t->vocab.tokens[id].flags & NOT_MERGED) ? id : -1;
}

static void offer_pair(scores_work *w, int32_t left, int32_t right)
{
    const piece *p = w->e->symbols;
    if (left < 0 || right < 0 || p[left].fixed || p[right].fixed) return;
    uint32_t bytes = p[left].bytes + p[right].bytes;
    int id = mergeable(w->e->t, w->text + p[left].start, bytes);
    if (id < 0) return;
    push(w->e->heap, w->n_heap++,
         (offer){ w->e->t->vocab.tokens[id].score, (uint32_t)left, (uint32_t)right, bytes });
}

static sca_status scores_reserve(encoder *e, size_t n)
{
    if (n <= e->n_symbols) return SCA_OK;
    void *pieces = mem_resize(e->symbols, n * sizeof(piece));
    if (!pieces) return mem_fail(n * sizeof(piece), "the symbols of a text");
    e->symbols = pieces;
    void *heap = mem_resize(e->heap, 3 * n * sizeof(offer));
    if (!heap) return mem_fail(3 * n * sizeof(offer), "the merges of a text");
    e->heap = heap;
    e->n_symbols = n;
    return SCA_OK;
}

/* The bytes of one character, or of the longest user-defined token. */
static size_t first_bytes(const tokenizer *t, const char *text, size_t bytes, size_t at, bool *fixed)
{
    size_t end = at;
    *fixed =
        t->normalized.first[(unsigned char)text[at]] && added_longest(&t->normalized, text, bytes, at, &end) >= 0;
    if (!*fixed) utf8_next(text, bytes, &end);
    return end - at;
}

static size_t cut_pieces(const tokenizer *t, piece *p, const char *text, size_t bytes)
{
    size_t n = 0;
    for (size_t at = 0; at < bytes; n++) {
        bool fixed = false;
        size_t length = first_bytes(t, text, bytes, at, &fixed);
        p[n] = (piece){ (uint32_t)at, (uint32_t)length, (int32_t)n - 1, (int32_t)n + 1, fixed };
        at += length;
    }
    if (n > 0) p[n - 1].next = -1;
    return n;
}

static void merge_all(scores_work *w, size_t n)
{
    piece *p = w->e->symbols;
    for (size_t i = 0; i + 1 < n; i++) offer_pair(w, (int32_t)i, (int32_t)i + 1);
    while (w->n_heap > 0) {
        offer top = pop(w->e->heap, w->n_heap--);
        piece *left = &p[top.at], *right = &p[top.right];
        if (left->bytes == 0 || right->bytes == 0 || left->bytes + right->bytes != top.bytes) continue;
        left->bytes = top.bytes;
        left->next = right->next;
        if (right->next >= 0) p[right->next].previous = (int32_t)top.at;
        right->bytes = 0;
        offer_pair(w, left->previous, (int32_t)top.at);
        offer_pair(w, (int32_t)top.at, left->next);
    }
}

static sca_status put_piece(encoder *e, const char *text, size_t bytes, bool *was_unknown)
{
    const tokenizer *t = e->t;
    int id = mergeable(t, text, bytes);
    if (id < 0 && t->rules.byte_fallback) {
        for (size_t i = 0; i < bytes; i++) TRY(int_list_put(&e->ids, t->byte_ids[(unsigned char)text[i]]));
        return SCA_OK;
    }
    bool unknown = id < 0, again = unknown && *was_unknown; /* neighbours become one unknown token */
    *was_unknown = unknown;
    return again ? SCA_OK : int_list_put(&e->ids, unknown ? t->model_unknown : id);
}

sca_status spm_encode_scores(encoder *e, const char *text, size_t bytes)
{
    str *s = &e->scratch[0];
    if (bytes == 0) return SCA_OK;
    str_clear(s);
    if (e->t->rules.dummy_prefix) str_put(s, SPACE_SYMBOL);
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == ' ')
            str_put(s, SPACE_SYMBOL);
        else
            str_putc(s, text[i]);
    }
    TRY(str_check(s, "tokenising a text"));
    TRY(scores_reserve(e, s->bytes));
    scores_work w = { e, s->data, 0 };
    size_t n = cut_pieces(e->t, e->symbols, s->data, s->bytes);
    merge_all(&w, n);
    const piece *p = e->symbols;
    bool was_unknown = false;
    for (size_t i = 0; i < n; i++)
        if (p[i].bytes > 0) TRY(put_piece(e, s->data + p[i].start, p[i].bytes, &was_unknown));
    return SCA_OK;
}

/* ---- decoding
 * ------------------------------------------------------------------------------------------------------ */

static void put_spaces(str *out, const char *text, size_t bytes)
{
    size_t start = 0;
    for (size_t i = 0; i + SPACE_SYMBOL_BYTES <= bytes; i++) {
        if (memcmp(text + i, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) != 0) continue;
        str_put_bytes(out, text + start, i - start);
        str_putc(out, ' ');
        start = i + SPACE_SYMBOL_BYTES;
        i = start - 1;
    }
    str_put_bytes(out, text + start, bytes - start);
}

/* Fast tokenizers: a run of byte tokens is text as a whole or not at all. */
static void flush_fast(str *run, str *out)
{
    if (run->bytes == 0) return;
    if (utf8_valid(run->data, run->bytes))
        str_put_bytes(out, run->data, run->bytes);
    else
        for (size_t i = 0; i < run->bytes; i++) str_put(out, REPLACEMENT);
    out->failed |= run->failed;
    str_clear(run);
}

void spm_decode_fast(const tokenizer *t, const int *ids, size_t n, str *out)
{
    str run = { 0 }, text = { 0 };
    for (size_t i = 0; i < n; i++) {
        const vocab_token *k = &t->vocab.tokens[ids[i]];
        if (k->flags & TOKEN_BYTE) {
            str_putc(&run, (char)k->byte);
            continue;
        }
        flush_fast(&run, &text);
        put_spaces(&text, vocab_text(&t->vocab, ids[i]), k->bytes);
    }
    flush_fast(&run, &text);
    size_t drop = !t->keeps_first_space && text.bytes > 0 && text.data[0] == ' ';
    str_put_bytes(out, str_text(&text) + drop, text.bytes - drop);
    out->failed |= text.failed || run.failed;
    str_free(&run);
    str_free(&text);
}

/* The library: each byte that is no part of a character becomes U+FFFD. */
static void flush_bytes(str *run, str *out)
{
    str_put_utf8(out, str_text(run), run->bytes);
    out->failed |= run->failed;
    str_clear(run);
}

typedef struct run_state {
    str text, bytes;
    bool at_start, consumed; /* whether a leading space may still be dropped; whether one was */
} run_state;

static void put_run_piece(const tokenizer *t, run_state *s, const char *text, size_t bytes)
{
    int id = vocab_find(&t->vocab, text, bytes);
    unsigned flags = id >= 0 && id < t->model_size ? t->vocab.tokens[id].flags : 0;
    if (flags & TOKEN_BYTE) {
        str_putc(&s->bytes, (char)t->vocab.tokens[id].byte);
        return;
    }
    flush_bytes(&s->bytes, &s->text);
    if (s->consumed || s->text.bytes > 0) s->at_start = false;
    s->consumed = false;
    if (flags & TOKEN_CONTROL) return;
    if (id < 0) { /* what the strip of the first token left */
        str_put_bytes(&s->text, text, bytes);
        return;
    }
    if (flags & TOKEN_UNKNOWN) {
        str_put(&s->text, t->rules.unknown_surface);
        return;
    }
    bool drops = s->at_start && (t->rules.dummy_prefix || t->rules.remove_extra_spaces) &&
                 bytes >= SPACE_SYMBOL_BYTES && memcmp(text, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) == 0;
    size_t skip = drops ? SPACE_SYMBOL_BYTES : 0;
    s->consumed = drops && !t->rules.remove_extra_spaces;
    put_spaces(&s->text, text + skip, bytes - skip);
}

static void end_run(run_state *s, str *out)
{
    flush_bytes(&s->bytes, &s->text);
    str_put_bytes(out, str_text(&s->text), s->text.bytes);
    out->failed |= s->text.failed;
    str_clear(&s->text);
    s->at_start = true;
    s->consumed = false;
}

/* transformers' LlamaTokenizer.convert_tokens_to_string. */
static void tokens_to_string(const tokenizer *t, const int *ids, size_t n, str *out)
{
    run_state s = { .at_start = true };
    bool after_special = false;
    for (size_t i = 0; i < n; i++) {
        const vocab_token *k = &t->vocab.tokens[ids[i]];
        const char *text = vocab_text(&t->vocab, ids[i]);
        size_t bytes = k->bytes;
        if (!(k->flags & TOKEN_SPECIAL)) {
            bool strip =
                i == 0 && bytes >= SPACE_SYMBOL_BYTES && memcmp(text, SPACE_SYMBOL, SPACE_SYMBOL_BYTES) == 0;
            if (strip) text += SPACE_SYMBOL_BYTES, bytes -= SPACE_SYMBOL_BYTES;
            put_run_piece(t, &s, text, bytes);
            after_special = false;
            continue;
        }
        if (!after_special && i != 0 && t->legacy) str_putc(out, ' ');
        end_run(&s, out);
        str_put_bytes(out, text, bytes);
        after_special = true;
    }
    end_run(&s, out);
    str_free(&s.text);
    str_free(&s.bytes);
}

/* Added tokens that are not special stand apart, with spaces around them. */
static bool stands_apart(const tokenizer *t, int id)
{
    unsigned flags = t->vocab.tokens[id].flags;
    if (!(flags & TOKEN_ADDED)) return false;
    return !(flags & TOKEN_SPECIAL) || (flags & TOKEN_EXTRA && id >= t->model_size);
}

void spm_decode_slow(const tokenizer *t, const int *ids, size_t n, str *out)
{
    bool any = false;
    for (size_t i = 0, start = 0; i <= n; i++) {
        if (i < n && !stands_apart(t, ids[i])) continue;
        str part = { 0 };
        if (i > start) tokens_to_string(t, ids + start, i - start, &part);
        if (part.bytes > 0) {
            if (any) str_putc(out, ' ');
            str_put_bytes(out, part.data, part.bytes);
            any = true;
        }
        out->failed |= part.failed;
        str_free(&part);
        if (i < n) {
            if (any) str_putc(out, ' ');
            str_put_bytes(out, vocab_text(&t->vocab, ids[i]), t->vocab.tokens[ids[i]].bytes);
            any = true;
        }
        start = i + 1;
    }
}
