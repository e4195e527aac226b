/* tokenizer_table.c - the vocabulary, hash tables and text helpers of the tokenizers. */
#include "model/tokenizer_private.h"

#include <string.h>

/* ---- vocabulary ------------------------------------------------------------------------------------------ */

static uint32_t hash_bytes(const char *text, size_t bytes)
{
    uint32_t h = 2166136261u; /* FNV-1a: tokens are short */
    for (size_t i = 0; i < bytes; i++) h = (h ^ (unsigned char)text[i]) * 16777619u;
    return h ^ h >> 15;
}

const char *vocab_text(const vocab *v, int id) { return v->blob.data + v->tokens[id].offset; }

static size_t slot_of(const vocab *v, uint32_t hash, const char *text, size_t bytes)
{
    size_t mask = v->n_slots - 1, i = hash & mask;
    for (; v->slots[i] >= 0; i = (i + 1) & mask) {
        const vocab_token *k = &v->tokens[v->slots[i]];
        if (k->hash == hash && k->bytes == bytes && memcmp(v->blob.data + k->offset, text, bytes) == 0) break;
    }
    return i;
}

int vocab_find(const vocab *v, const char *text, size_t bytes)
{
    if (v->n_slots == 0 || bytes > v->longest) return -1;
    return v->slots[slot_of(v, hash_bytes(text, bytes), text, bytes)];
}

static sca_status grow_slots(vocab *v)
{
    size_t n = v->n_slots ? v->n_slots * 2 : 1024, bytes = n * sizeof *v->slots;
    int32_t *slots = mem_alloc(bytes);
    if (!slots) return mem_fail(bytes, "the vocabulary's index");
    memset(slots, 0xff, bytes);
    mem_free(v->slots);
    v->slots = slots;
    v->n_slots = n;
    for (int id = 0; id < v->size; id++) {
        if (!(v->tokens[id].flags & TOKEN_PRESENT)) continue;
        size_t i = v->tokens[id].hash & (n - 1);
        while (slots[i] >= 0) i = (i + 1) & (n - 1);
        slots[i] = id;
    }
    return SCA_OK;
}

static sca_status grow_tokens(vocab *v, int id)
{
    if (id >= v->cap) {
        int cap = v->cap < 512 ? 512 : v->cap;
        while (cap <= id) cap += cap / 2;
        vocab_token *tokens = mem_resize(v->tokens, (size_t)cap * sizeof *tokens);
        if (!tokens) return mem_fail((size_t)cap * sizeof *tokens, "the vocabulary");
        memset(tokens + v->cap, 0, (size_t)(cap - v->cap) * sizeof *tokens);
        v->tokens = tokens;
        v->cap = cap;
    }
    if (v->size <= id) v->size = id + 1;
    return SCA_OK;
}

sca_status vocab_put(vocab *v, int64_t id, const char *text, size_t bytes, const char *file)
{
    int shown = (int)(bytes < 80 ? bytes : 80);
    if (id < 0 || id >= v->limit)
        return status_fail(SCA_ERR_FORMAT, "%s: token '%.*s' has id %lld, expected 0 to %lld: ids have no holes",
                           file, shown, text, (long long)id, (long long)v->limit - 1);
    if (bytes > INT32_MAX / 4 || !utf8_valid(text, bytes))
        return status_fail(SCA_ERR_FORMAT, "%s: token %lld is '%.*s', expected valid UTF-8 of fewer than %d bytes",
                           file, (long long)id, shown, text, INT32_MAX / 4);
    int known = vocab_find(v, text, bytes);
    if (known >= 0)
        return status_fail(SCA_ERR_FORMAT, "%s: token '%.*s' has the ids %d and %lld, expected one", file, shown,
                           text, known, (long long)id);
    if (id < v->size && v->tokens[id].flags & TOKEN_PRESENT)
        return status_fail(SCA_ERR_FORMAT, "%s: id %lld belongs to '%.*s' and '%.*s', expected one token", file,
                           (long long)id, (int)(v->tokens[id].bytes < 80 ? v->tokens[id].bytes : 80),
                           vocab_text(v, (int)id), shown, text);
    if ((v->used + 1) * 2 > v->n_slots) TRY(grow_slots(v));
    TRY(grow_tokens(v, (int)id));
    size_t offset = v->blob.bytes;
    str_put_bytes(&v->blob, text, bytes);
    str_putc(&v->blob, 0);
    TRY(str_check(&v->blob, "the vocabulary's text"));
    uint32_t hash = hash_bytes(text, bytes);
    if (bytes > v->longest) v->longest = (uint32_t)bytes;
    v->slots[slot_of(v, hash, text, bytes)] = (int32_t)id;
    v->tokens[id] =
        (vocab_token){ .offset = offset, .bytes = (uint32_t)bytes, .hash = hash, .flags = TOKEN_PRESENT };
    v->used++;
    return SCA_OK;
}

sca_status vocab_check(const vocab *v, const char *file)
{
    for (int id = 0; id < v->size; id++)
        if (!(v->tokens[id].flags & TOKEN_PRESENT))
            return status_fail(SCA_ERR_FORMAT, "%s: no token has id %d, expected every id from 0 to %d", file, id,
                               v->size - 1);
    if (v->size == 0) return status_fail(SCA_ERR_FORMAT, "%s: holds no tokens, expected at least one", file);
    return SCA_OK;
}

void vocab_free(vocab *v)
{
    mem_free(v->tokens);
    mem_free(v->slots);
    str_free(&v->blob);
    *v = (vocab){ 0 };
}

/* ---- pairs ------------------------------------------------------------------------------------------------- */

#define PAIR_EMPTY UINT64_MAX /* ids are below 2^31, so that no pair has this key */

static size_t pair_slot_of(const pair_table *t, uint64_t key)
{
    size_t mask = t->n_slots - 1, i = (size_t)((key * 0x9e3779b97f4a7c15u) >> 32) & mask;
    while (t->slots[i].key != PAIR_EMPTY && t->slots[i].key != key) i = (i + 1) & mask;
    return i;
}

static sca_status pair_grow(pair_table *t)
{
    pair_table big = { .n_slots = t->n_slots ? t->n_slots * 2 : 256, .used = t->used };
    size_t bytes = big.n_slots * sizeof *big.slots;
    big.slots = mem_alloc(bytes);
    if (!big.slots) return mem_fail(bytes, "the merge table");
    memset(big.slots, 0xff, bytes);
    for (size_t i = 0; i < t->n_slots; i++)
        if (t->slots[i].key != PAIR_EMPTY) big.slots[pair_slot_of(&big, t->slots[i].key)] = t->slots[i];
    mem_free(t->slots);
    *t = big;
    return SCA_OK;
}

sca_status pair_put(pair_table *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t id)
{
    if ((t->used + 1) * 2 > t->n_slots) TRY(pair_grow(t));
    pair_slot *s = &t->slots[pair_slot_of(t, (uint64_t)left << 32 | right)];
    if (s->key == PAIR_EMPTY) t->used++;
    *s = (pair_slot){ (uint64_t)left << 32 | right, rank, id };
    return SCA_OK;
}

const pair_slot *pair_find(const pair_table *t, uint32_t left, uint32_t right)
{
    if (t->n_slots == 0) return NULL;
    const pair_slot *s = &t->slots[pair_slot_of(t, (uint64_t)left << 32 | right)];
    return s->key == PAIR_EMPTY ? NULL : s;
}

void pair_free(pair_table *t)
{
    mem_free(t->slots);
    *t = (pair_table){ 0 };
}

/* ---- small things ------------------------------------------------------------------------------------------- */

sca_status int_list_put(int_list *l, int id)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        int *data = mem_resize(l->data, cap * sizeof *data);
        if (!data) return mem_fail(cap * sizeof *data, "token ids");
        l->data = data;
        l->cap = cap;
    }
    l->data[l->n++] = id;
    return SCA_OK;
}

/* Bytes of the longest beginning of a character at p, when p holds no whole one; at least 1. */
static size_t broken_bytes(const unsigned char *p, size_t left)
{
    if (p[0] < 0xc2 || p[0] > 0xf4) return 1;
    size_t length = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4, i = 1;
    unsigned least = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned most = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    for (; i < length && i < left && p[i] >= least && p[i] <= most; i++) least = 0x80, most = 0xbf;
    return i;
}

void put_lossy(str *s, const char *text, size_t bytes)
{
    size_t start = 0, i = 0;
    while (i < bytes) {
        size_t begin = i;
        if (utf8_next(text, bytes, &i) >= 0) continue;
        str_put_bytes(s, text + start, begin - start);
        str_put(s, REPLACEMENT);
        start = i = begin + broken_bytes((const unsigned char *)text + begin, bytes - begin);
    }
    str_put_bytes(s, text + start, bytes - start);
}

bool is_white_space(int32_t c)
{
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

sca_status str_check(const str *s, const char *what) { return s->failed ? mem_fail(s->bytes, what) : SCA_OK; }
