/* words.c - lists of texts, and vocabularies: words and their numbers. */
#include "eval/words.h"

#include <string.h>

const char *texts_get(const texts *t, size_t i) { return t->pool.data + t->at[i]; }

sca_status texts_end(texts *t)
{
    size_t start = t->count ? t->at[t->count - 1] : 0;
    if (t->count && t->pool.data) start += strlen(t->pool.data + start) + 1;
    str_putc(&t->pool, '\0');
    if (t->pool.failed) { /* the list stays usable */
        t->pool.failed = false, t->pool.bytes = start;
        return mem_fail(start, "list of texts");
    }
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        size_t *at = mem_resize(t->at, cap * sizeof *at);
        if (!at) t->pool.bytes = start;
        if (!at) return mem_fail(cap * sizeof *at, "list of texts");
        t->at = at, t->cap = cap;
    }
    t->at[t->count++] = start;
    return SCA_OK;
}

sca_status texts_add(texts *t, const char *text, size_t bytes)
{
    str_put_bytes(&t->pool, text, bytes);
    return texts_end(t);
}

void texts_free(texts *t)
{
    str_free(&t->pool);
    mem_free(t->at);
    *t = (texts){ 0 };
}

/* ---- vocabulary ---------------------------------------------------------------------------- */

uint64_t words_hash(const char *text, size_t bytes)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < bytes; i++) h = (h ^ (uint8_t)text[i]) * 1099511628211u;
    return h ^ h >> 32;
}

static sca_status lexicon_grow(lexicon *v)
{
    size_t n = v->n_slots ? v->n_slots * 2 : 1024;
    lexicon_slot *slots = mem_zero(n, sizeof *slots);
    if (!slots) return mem_fail(n * sizeof *slots, "vocabulary");
    for (size_t i = 0; i < v->n_slots; i++) {
        if (!v->slots[i].id) continue;
        size_t k = v->slots[i].hash & (n - 1);
        while (slots[k].id) k = (k + 1) & (n - 1);
        slots[k] = v->slots[i];
    }
    mem_free(v->slots);
    v->slots = slots, v->n_slots = n;
    return SCA_OK;
}

/* The slot of a word, or the free one where it belongs. */
static size_t lexicon_slot_of(const lexicon *v, const char *text, size_t bytes, uint32_t hash)
{
    size_t k = hash & (v->n_slots - 1);
    for (; v->slots[k].id; k = (k + 1) & (v->n_slots - 1)) {
        if (v->slots[k].hash != hash) continue;
        const char *known = texts_get(&v->words, (size_t)v->slots[k].id - 1);
        if (strncmp(known, text, bytes) == 0 && known[bytes] == 0) break;
    }
    return k;
}

sca_status lexicon_add(lexicon *v, const char *text, size_t bytes, int32_t *id)
{
    if (v->words.count * 2 >= v->n_slots) TRY(lexicon_grow(v));
    uint32_t hash = (uint32_t)words_hash(text, bytes);
    lexicon_slot *slot = &v->slots[lexicon_slot_of(v, text, bytes, hash)];
    if (slot->id) return *id = slot->id - 1, SCA_OK;
    if (v->words.count == INT32_MAX) return status_fail(SCA_ERR_UNSUPPORTED, "vocabulary: too many words");
    TRY(texts_add(&v->words, text, bytes));
    *id = (int32_t)v->words.count - 1;
    *slot = (lexicon_slot){ hash, *id + 1 };
    return SCA_OK;
}

int32_t lexicon_find(const lexicon *v, const char *text, size_t bytes)
{
    if (!v->n_slots) return -1;
    return v->slots[lexicon_slot_of(v, text, bytes, (uint32_t)words_hash(text, bytes))].id - 1;
}

void lexicon_free(lexicon *v)
{
    texts_free(&v->words);
    mem_free(v->slots);
    *v = (lexicon){ 0 };
}

/* ---- splitting ----------------------------------------------------------------------------- */

/* The length of the white space character at p, as Python's str.split sees it; 0 when it is none. */
static size_t space_length(const char *p)
{
    unsigned char a = (unsigned char)p[0], b = (unsigned char)(a ? p[1] : 0), c = (unsigned char)(b ? p[2] : 0);
    if ((a >= 0x09 && a <= 0x0D) || (a >= 0x1C && a <= 0x20)) return 1;
    if (a == 0xC2) return b == 0x85 || b == 0xA0 ? 2 : 0;
    if (a == 0xE1) return b == 0x9A && c == 0x80 ? 3 : 0;
    if (a == 0xE2 && b == 0x80) return (c >= 0x80 && c <= 0x8A) || c == 0xA8 || c == 0xA9 || c == 0xAF ? 3 : 0;
    if (a == 0xE2) return b == 0x81 && c == 0x9F ? 3 : 0;
    return a == 0xE3 && b == 0x80 && c == 0x80 ? 3 : 0;
}

bool words_next(const char **at, size_t *bytes)
{
    const char *p = *at + *bytes;
    for (size_t n; (n = space_length(p)); p += n) continue;
    *at = p;
    while (*p && !space_length(p)) p++;
    *bytes = (size_t)(p - *at);
    return *bytes > 0;
}
