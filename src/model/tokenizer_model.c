/* tokenizer_model.c - reads and checks SentencePiece model files (protocol buffers).
 *
 * The library trusts what a model file says of its character map; everything it would follow blindly is checked
 * here before it sees the file. */
#include "model/tokenizer_private.h"

#include <math.h>
#include <string.h>

typedef struct proto {
    const uint8_t *data;
    size_t bytes, at;
    const char *file;
} proto;

typedef struct proto_field {
    uint32_t number;
    int wire;            /* 0 integer, 1 eight bytes, 2 bytes, 5 four bytes */
    uint64_t integer;    /* wire 0; the bits of wire 5 */
    const uint8_t *data; /* wire 2 */
    size_t bytes;
} proto_field;

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

static sca_status proto_bad(const proto *p, const char *what)
{
    return status_fail(SCA_ERR_FORMAT, "%s: found %s at byte %zu of %zu, expected a SentencePiece model", p->file,
                       what, p->at, p->bytes);
}

static sca_status proto_integer(proto *p, uint64_t *out)
{
    *out = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (p->at == p->bytes) return proto_bad(p, "the end inside a number");
        uint8_t byte = p->data[p->at++];
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return SCA_OK;
    }
    return proto_bad(p, "a number of more than ten bytes");
}

static sca_status proto_next(proto *p, proto_field *f)
{
    uint64_t tag = 0, length = 0;
    TRY(proto_integer(p, &tag));
    *f = (proto_field){ .number = (uint32_t)(tag >> 3), .wire = (int)(tag & 7) };
    if (tag >> 3 == 0 || tag > UINT32_MAX) return proto_bad(p, "a wrong field number");
    switch (f->wire) {
    case 0: return proto_integer(p, &f->integer);
    case 1: length = 8; break;
    case 2: TRY(proto_integer(p, &length)); break;
    case 5: length = 4; break;
    default: return proto_bad(p, "an unknown kind of field");
    }
    if (length > p->bytes - p->at) return proto_bad(p, "a field that is longer than the file");
    f->data = p->data + p->at;
    f->bytes = (size_t)length;
    p->at += f->bytes;
    for (int i = 0; f->wire == 5 && i < 4; i++) f->integer |= (uint64_t)f->data[i] << 8 * i;
    return SCA_OK;
}

static uint32_t read_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- the character map: a double-array trie, then 0-terminated replacements
 * --------------------------------------- */

static uint32_t unit_offset(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

static bool is_text_at(const uint8_t *texts, size_t n_texts, uint32_t at)
{
    at &= 0x7fffffff;
    return at < n_texts && (texts[at] & 0xc0) != 0x80;
}

/* Whatever unit the library stands on, its next step must stay inside the array: it tests no bounds. */
static bool map_is_sound(const uint8_t *map, size_t bytes)
{
    if (bytes < 5) return false;
    size_t trie_bytes = read_u32(map);
    if (trie_bytes == 0 || trie_bytes % 1024 != 0 || trie_bytes >= bytes - 4) return false;
    const uint8_t *trie = map + 4, *texts = trie + trie_bytes;
    size_t n = trie_bytes / 4, n_texts = bytes - 4 - trie_bytes;
    if (texts[n_texts - 1] != 0 || !utf8_valid((const char *)texts, n_texts)) return false;
    for (size_t i = 0; i < n; i++) {
        uint32_t unit = read_u32(trie + 4 * i);
        if (unit >> 31 && i != 0) continue; /* a value: no step leads on from it */
        size_t next = i ^ unit_offset(unit);
        if ((next | 0xff) >= n) return false;
        if (unit & 1u << 8 && !is_text_at(texts, n_texts, read_u32(trie + 4 * next))) return false;
    }
    return true;
}

/* ---- messages of the file
 * ------------------------------------------------------------------------------------------ */

static sca_status read_normalizer(tokenizer *t, const proto_field *whole, const char *file)
{
    proto p = { whole->data, whole->bytes, 0, file };
    while (p.at < p.bytes) {
        proto_field f;
        TRY(proto_next(&p, &f));
        if (f.number == 2 && f.wire == 2 && f.bytes > 0 && !map_is_sound(f.data, f.bytes))
            return status_fail(SCA_ERR_FORMAT,
                               "%s: the normaliser's character map of %zu bytes is damaged, expected a "
                               "trie followed by texts",
                               file, f.bytes);
        if (f.number == 3 && f.wire == 0) t->rules.dummy_prefix = f.integer != 0;
        if (f.number == 4 && f.wire == 0) t->rules.remove_extra_spaces = f.integer != 0;
        if (f.number == 5 && f.wire == 0 && f.integer == 0)
            return status_fail(SCA_ERR_UNSUPPORTED, "%s: escape_whitespaces is false, expected true", file);
    }
    return SCA_OK;
}

static sca_status read_denormalizer(const proto_field *whole, const char *file)
{
    proto p = { whole->data, whole->bytes, 0, file };
    while (p.at < p.bytes) {
        proto_field f;
        TRY(proto_next(&p, &f));
        if (f.number == 2 && f.wire == 2 && f.bytes > 0)
            return status_fail(SCA_ERR_UNSUPPORTED, "%s: has a denormaliser, expected none", file);
    }
    return SCA_OK;
}

static sca_status set_surface(tokenizer *t, const proto_field *f, const char *file)
{
    if (!utf8_valid((const char *)f->data, f->bytes) || memchr(f->data, 0, f->bytes))
        return status_fail(SCA_ERR_FORMAT, "%s: unk_surface is not UTF-8", file);
    char *text = text_copy((const char *)f->data, f->bytes);
    if (!text) return mem_fail(f->bytes, "a tokenizer");
    mem_free(t->rules.unknown_surface);
    t->rules.unknown_surface = text;
    return SCA_OK;
}

static sca_status read_trainer(tokenizer *t, const proto_field *whole, uint64_t *model_type, const char *file)
{
    static const char *const kinds[] = { "unigram", "BPE", "word", "char" };
    proto p = { whole->data, whole->bytes, 0, file };
    while (p.at < p.bytes) {
        proto_field f;
        TRY(proto_next(&p, &f));
        if (f.number == 3 && f.wire == 0) {
            if (f.integer < 1 || f.integer > LENGTH(kinds))
                return status_fail(SCA_ERR_FORMAT, "%s: model_type is %llu, expected 1 to 4", file,
                                   (unsigned long long)f.integer);
            *model_type = f.integer;
        }
        if (f.number == 24 && f.wire == 0 && f.integer)
            return status_fail(SCA_ERR_UNSUPPORTED, "%s: treat_whitespace_as_suffix is true, expected false", file);
        if (f.number == 35 && f.wire == 0) t->rules.byte_fallback = f.integer != 0;
        if (f.number == 44 && f.wire == 2) TRY(set_surface(t, &f, file));
    }
    return SCA_OK;
}

static sca_status read_piece(tokenizer *t, const proto_field *whole, const char *file)
{
    static const unsigned flags[] = { 0, 0, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };
    proto p = { whole->data, whole->bytes, 0, file };
    uint64_t type = PIECE_NORMAL, bits = 0;
    const uint8_t *text = NULL;
    size_t bytes = 0;
    while (p.at < p.bytes) {
        proto_field f;
        TRY(proto_next(&p, &f));
        if (f.number == 1 && f.wire == 2) text = f.data, bytes = f.bytes;
        if (f.number == 2 && f.wire == 5) bits = f.integer;
        if (f.number == 3 && f.wire == 0) type = f.integer;
    }
    int id = t->vocab.size;
    if (bytes == 0 || memchr(text, 0, bytes))
        return status_fail(SCA_ERR_FORMAT, "%s: piece %d is empty or has a 0 in it, expected a text", file, id);
    if (type < PIECE_NORMAL || type > PIECE_BYTE)
        return status_fail(SCA_ERR_FORMAT, "%s: piece %d has type %llu, expected 1 to 6", file, id,
                           (unsigned long long)type);
    if ((type == PIECE_USER || type == PIECE_UNUSED) && bytes > SPM_DEEP_PIECE_MOST)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: piece %d is user-defined or unused and has %zu bytes, expected at most %d", file,
                           id, bytes, SPM_DEEP_PIECE_MOST);
    uint32_t word = (uint32_t)bits;
    float score = 0;
    memcpy(&score, &word, sizeof score);
    if (!isfinite(score)) return status_fail(SCA_ERR_FORMAT, "%s: the score of piece %d is not finite", file, id);
    TRY(vocab_put(&t->vocab, id, (const char *)text, bytes, file));
    t->vocab.tokens[id].flags |= (uint16_t)flags[type];
    t->vocab.tokens[id].score = score;
    return SCA_OK;
}

static sca_status spm_defaults(tokenizer *t)
{
    static const char surface[] = " \xe2\x81\x87 ";
    t->rules.dummy_prefix = t->rules.remove_extra_spaces = true;
    mem_free(t->rules.unknown_surface);
    t->rules.unknown_surface = text_copy(surface, sizeof surface - 1);
    return t->rules.unknown_surface ? SCA_OK : mem_fail(sizeof surface, "a tokenizer");
}

static sca_status open_library(tokenizer *t, const proto *p)
{
    char why[300] = "";
    spm_result result = spm_open(p->data, p->bytes, &t->library, why, sizeof why);
    if (result == SPM_MEMORY) return mem_fail(p->bytes, "a SentencePiece model");
    if (result != SPM_OK)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: the SentencePiece library refuses it: %s; expected a complete model", p->file, why);
    return SCA_OK;
}

sca_status spm_read(tokenizer *t, const uint8_t *data, size_t bytes, const char *file)
{
    static const char *const kinds[] = { "", "unigram", "BPE", "word", "char" };
    proto p = { data, bytes, 0, file };
    uint64_t model_type = 1; /* what the format takes when nothing is said */
    TRY(spm_defaults(t));
    t->vocab.limit = (int64_t)(bytes / 4); /* no piece takes fewer bytes */
    while (p.at < p.bytes) {
        proto_field f;
        TRY(proto_next(&p, &f));
        if (f.wire != 2) continue;
        if (f.number == 1) TRY(read_piece(t, &f, file));
        if (f.number == 2) TRY(read_trainer(t, &f, &model_type, file));
        if (f.number == 3) TRY(read_normalizer(t, &f, file));
        if (f.number == 5) TRY(read_denormalizer(&f, file));
    }
    TRY(vocab_check(&t->vocab, file));
    if (model_type != 2)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: is a model of kind %s, expected BPE", file, kinds[model_type]);
    TRY(spm_prepare(t, file));
    return open_library(t, &p);
}

static int byte_of_piece(const char *text, size_t bytes)
{
    static const char digits[] = "0123456789ABCDEF";
    if (bytes != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const char *high = memchr(digits, text[3], 16), *low = memchr(digits, text[4], 16);
    return high && low ? (int)((high - digits) * 16 + (low - digits)) : -1;
}

sca_status spm_prepare(tokenizer *t, const char *file)
{
    int n_unknown = 0, n_bytes = 0;
    memset(t->byte_ids, 0xff, sizeof t->byte_ids);
    t->model_unknown = -1;
    for (int id = 0; id < t->vocab.size; id++) {
        vocab_token *k = &t->vocab.tokens[id];
        if (k->flags & TOKEN_UNKNOWN) t->model_unknown = id, n_unknown++;
        if (!(k->flags & TOKEN_BYTE)) continue;
        int byte = byte_of_piece(vocab_text(&t->vocab, id), k->bytes);
        if (byte < 0)
            return status_fail(SCA_ERR_FORMAT, "%s: byte token %d is '%.40s', expected <0x00> to <0xFF>", file, id,
                               vocab_text(&t->vocab, id));
        k->byte = (uint8_t)byte;
        t->byte_ids[byte] = id;
        n_bytes++;
    }
    if (n_unknown != 1)
        return status_fail(SCA_ERR_FORMAT, "%s: has %d tokens of the kind unknown, expected 1", file, n_unknown);
    if (n_bytes != (t->rules.byte_fallback ? 256 : 0))
        return status_fail(SCA_ERR_FORMAT, "%s: has %d byte tokens, expected %s", file, n_bytes,
                           t->rules.byte_fallback ? "256 (byte fallback)" : "0 (no byte fallback)");
    return SCA_OK;
}
