/* tokenizer_added.c - finds added tokens (special ones and others) in a text. */
#include "model/tokenizer_private.h"

sca_status added_put(added_set *s, const char *text, size_t bytes, int index)
{
    uint32_t node = 0;
    for (size_t i = 0; i < bytes; i++) {
        unsigned char byte = (unsigned char)text[i];
        const pair_slot *edge = pair_find(&s->trie, node, byte);
        uint32_t next = edge ? edge->id : s->n_nodes + 1, ends = edge ? edge->rank : 0;
        if (i + 1 == bytes) ends = (uint32_t)index + 1;
        TRY(pair_put(&s->trie, node, byte, ends, next));
        if (!edge) s->n_nodes++;
        node = next;
    }
    if (bytes > 0) s->first[(unsigned char)text[0]] = true;
    return SCA_OK;
}

int added_longest(const added_set *s, const char *text, size_t bytes, size_t at, size_t *end)
{
    int found = -1;
    uint32_t node = 0;
    for (size_t i = at; i < bytes; i++) {
        const pair_slot *edge = pair_find(&s->trie, node, (unsigned char)text[i]);
        if (!edge) break;
        node = edge->id;
        if (edge->rank > 0) {
            found = (int)edge->rank - 1;
            *end = i + 1;
        }
    }
    return found;
}

/* The code point that ends at text[end]. */
static int32_t code_before(const char *text, size_t end)
{
    size_t i = end - 1;
    while (i > 0 && ((unsigned char)text[i] & 0xc0) == 0x80) i--;
    return utf8_next(text, end, &i);
}

static bool is_word(int32_t c)
{
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= 0x80 && !is_white_space(c));
}

static size_t strip_left(const char *text, size_t start, size_t least)
{
    while (start > least && is_white_space(code_before(text, start))) {
        do start--;
        while (start > least && ((unsigned char)text[start] & 0xc0) == 0x80);
    }
    return start;
}

static size_t strip_right(const char *text, size_t bytes, size_t end)
{
    for (size_t next = end; next < bytes; end = next)
        if (!is_white_space(utf8_next(text, bytes, &next))) break;
    return end;
}

bool added_next(const tokenizer *t, const added_set *s, const char *text, size_t bytes, size_t from,
                added_match *out)
{
    if (s->n_nodes == 0) return false;
    for (size_t at = from; at < bytes; at++) {
        if (!s->first[(unsigned char)text[at]]) continue;
        size_t end = at;
        int index = added_longest(s, text, bytes, at, &end);
        if (index < 0) continue;
        const added_token *a = &t->added[index];
        if (a->single_word) {
            size_t next = end;
            bool glued = (at > 0 && is_word(code_before(text, at))) ||
                         (end < bytes && is_word(utf8_next(text, bytes, &next)));
            if (glued) {
                at = end - 1; /* the library looks on behind the whole word, too */
                continue;
            }
        }
        out->start = a->left_strip ? strip_left(text, at, from) : at;
        out->end = a->right_strip ? strip_right(text, bytes, end) : end;
        out->index = index;
        return true;
    }
    return false;
}
