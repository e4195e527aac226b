/* json_value.c - JSON values that follow one another, read in one pass into the same memory.
 *
 * The elements of an annotation file have one shape, and most of the time that jansson takes goes into making and
 * freeing the same keys. Here what has the shape of the last element is overwritten in place. Whatever is unusual, and
 * whatever is wrong, is left to jansson, so that both ways accept the same texts and messages have one source. */
#include "base/json_scan.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { KEY_BYTES = 128 };

typedef struct filler {
    scan *s;
    str text; /* of the last string that had escapes */
    size_t depth;
    bool failed; /* out of memory */
} filler;

/* All of these return NULL when it is not theirs to say what is there; `old` is the caller's still. */
static json_t *fill(filler *f, json_t *old);

static char at_token(filler *f) { return scan_peek(f->s); }

static json_t *made(filler *f, json_t *value)
{
    f->failed = f->failed || !value;
    return value;
}

/* Someone keeps it: it stays as it is. */
static bool is_free(const json_t *old, json_type type)
{
    return old && json_typeof(old) == type && old->refcount == 1;
}

/* ---- numbers -------------------------------------------------------------------------------------------- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

typedef struct number {
    bool negative, real;
    uint64_t digits; /* without the point */
    int n_digits, exponent;
    size_t end;
} number;

static void take_digits(const scan *s, number *n, bool behind_point)
{
    for (; n->end < s->bytes && is_digit(s->text[n->end]); n->end++) {
        if (n->n_digits > 0 || s->text[n->end] != '0') n->n_digits++;
        if (n->n_digits <= 19) n->digits = n->digits * 10 + (uint64_t)(s->text[n->end] - '0');
        n->exponent -= behind_point;
    }
}

static char char_at(const scan *s, size_t at) { return at < s->bytes ? s->text[at] : 0; }

/* False: no number without an exponent. */
static bool take_number(const scan *s, number *n)
{
    *n = (number){ .end = s->at, .negative = char_at(s, s->at) == '-' };
    n->end += n->negative;
    size_t first = n->end;
    take_digits(s, n, false);
    if (n->end == first || (s->text[first] == '0' && n->end > first + 1)) return false;
    if (char_at(s, n->end) == '.') {
        size_t point = n->end++;
        take_digits(s, n, true);
        n->real = true;
        if (n->end == point + 1) return false;
    }
    return char_at(s, n->end) != 'e' && char_at(s, n->end) != 'E';
}

/* One division of two numbers that are exact rounds once, as strtod does. */
static bool quick_real(const number *n, double *out)
{
    static const double powers[] = { 1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                     1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    if (n->n_digits > 19 || n->digits > (uint64_t)1 << 53 || -n->exponent >= (int)LENGTH(powers)) return false;
    double value = (double)n->digits / powers[-n->exponent];
    *out = n->negative ? -value : value;
    return true;
}

/* Of more digits, in the 64 bits of the x87: that quotient lies within half of its last bit of the true one, so rounding
 * it to 53 bits is right unless it lies next to the middle between two of them. */
static bool wide_real(const number *n, double *out)
{
#if LDBL_MANT_DIG == 64
    static const long double powers[] = { 1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,  1e7L,  1e8L,  1e9L,
                                          1e10L, 1e11L, 1e12L, 1e13L, 1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L,
                                          1e20L, 1e21L, 1e22L, 1e23L, 1e24L, 1e25L, 1e26L, 1e27L };
    uint64_t bits;
    if (n->n_digits > 19 || -n->exponent >= (int)LENGTH(powers)) return false;
    long double value = (long double)n->digits / powers[-n->exponent];
    memcpy(&bits, &value, sizeof bits);
    bits &= 0x7ff;
    if (bits >= 0x3ff && bits <= 0x401) return false;
    *out = n->negative ? -(double)value : (double)value;
    return true;
#else
    (void)n, (void)out;
    return false;
#endif
}

static bool slow_real(const scan *s, const number *n, double *out)
{
    char text[64];
    size_t bytes = n->end - s->at;
    if (bytes >= sizeof text) return false;
    memcpy(text, s->text + s->at, bytes);
    text[bytes] = 0;
    return text_to_double(text, out);
}

static json_t *fill_number(filler *f, json_t *old)
{
    number n;
    double real;
    if (!take_number(f->s, &n)) return NULL;
    if (!n.real) {
        if (n.n_digits > 18) return NULL;
        int64_t whole = n.negative ? -(int64_t)n.digits : (int64_t)n.digits;
        f->s->at = n.end;
        if (!is_free(old, JSON_INTEGER)) return made(f, json_integer(whole));
        json_integer_set(old, whole);
        return old;
    }
    if (!quick_real(&n, &real) && !wide_real(&n, &real) && !slow_real(f->s, &n, &real)) return NULL;
    f->s->at = n.end;
    if (!is_free(old, JSON_REAL)) return made(f, json_real(real));
    json_real_set(old, real);
    return old;
}

/* ---- words ------------------------------------------------------------------------------------------------ */

static bool ends_word(const scan *s, size_t at) { return at >= s->bytes || strchr(",]} \t\r\n", s->text[at]); }

static json_t *fill_word(filler *f)
{
    static const struct {
        const char *word;
        json_type type;
    } words[] = { { "null", JSON_NULL }, { "true", JSON_TRUE },     { "false", JSON_FALSE },
                  { "NaN", JSON_NULL },  { "Infinity", JSON_NULL }, { "-Infinity", JSON_NULL } };
    scan *s = f->s;
    for (size_t i = 0; i < LENGTH(words); i++) {
        size_t n = strlen(words[i].word);
        if (s->bytes - s->at < n || memcmp(s->text + s->at, words[i].word, n) != 0 || !ends_word(s, s->at + n))
            continue;
        s->at += n;
        return words[i].type == JSON_TRUE ? json_true() : words[i].type == JSON_FALSE ? json_false() : json_null();
    }
    return NULL;
}

/* ---- texts ------------------------------------------------------------------------------------------------- */

static uint64_t bytes_equal(uint64_t word,
                            uint8_t c) /* the top bit of each byte that is c; of some behind it, too */
{
    uint64_t x = word ^ (UINT64_MAX / 255 * c);
    return (x - UINT64_MAX / 255) & ~x & UINT64_MAX / 255 * 0x80;
}

/* Where the plain part of a text ends: a quote, an escape, a control character or the end. *ascii: no byte above 127 */
static size_t plain_end(const scan *s, size_t at, bool *ascii)
{
    for (; s->bytes - at >= 8; at += 8) {
        uint64_t word, high = UINT64_MAX / 255 * 0x80;
        memcpy(&word, s->text + at, sizeof word);
        if (bytes_equal(word, '"') | bytes_equal(word, '\\') | ((word - UINT64_MAX / 255 * 0x20) & ~word & high))
            break;
        if (word & high) *ascii = false;
    }
    for (; at < s->bytes; at++) {
        uint8_t c = (uint8_t)s->text[at];
        if (c == '"' || c == '\\' || c < 0x20) break;
        if (c > 127) *ascii = false;
    }
    return at;
}

static int hex4(const scan *s, size_t at)
{
    int value = 0;
    for (size_t i = at; i < at + 4; i++) {
        char c = char_at(s, i);
        int digit = is_digit(c)            ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* \uXXXX, or two of them that are one character. */
static bool take_code(filler *f, size_t *at)
{
    char out[4];
    int code = hex4(f->s, *at + 2), low;
    *at += 6;
    if (code >= 0xd800 && code < 0xdc00) {
        if (char_at(f->s, *at) != '\\' || char_at(f->s, *at + 1) != 'u') return false;
        low = hex4(f->s, *at + 2);
        *at += 6;
        if (low < 0xdc00 || low > 0xdfff) return false;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    } else if (code < 0 || (code >= 0xdc00 && code <= 0xdfff)) {
        return false;
    }
    str_put_bytes(&f->text, out, utf8_put(code, out));
    return true;
}

static bool take_escape(filler *f, size_t *at)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char c = char_at(f->s, *at + 1);
    if (c == 'u') return take_code(f, at);
    const char *name = c ? strchr(names, c) : NULL;
    if (!name) return false;
    str_putc(&f->text, values[name - names]);
    *at += 2;
    return true;
}

/* The text in quotes at s->at: in the file itself or, with escapes, in f->text. */
static bool take_text(filler *f, const char **text, size_t *bytes)
{
    scan *s = f->s;
    bool ascii = true;
    size_t from = s->at + 1, end = plain_end(s, from, &ascii);
    *text = s->text + from;
    *bytes = end - from;
    if (char_at(s, end) == '\\') {
        str_clear(&f->text);
        while (char_at(s, end) == '\\') {
            str_put_bytes(&f->text, s->text + from, end - from);
            if (!take_escape(f, &end)) return false;
            from = end;
            end = plain_end(s, from, &ascii);
        }
        str_put_bytes(&f->text, s->text + from, end - from);
        f->failed = f->failed || f->text.failed;
        *text = str_text(&f->text);
        *bytes = f->text.bytes;
    }
    if (char_at(s, end) != '"' || f->failed || (!ascii && !utf8_valid(*text, *bytes))) return false;
    s->at = end + 1;
    return true;
}

static json_t *fill_text(filler *f, json_t *old)
{
    const char *text;
    size_t bytes;
    if (!take_text(f, &text, &bytes)) return NULL;
    if (!is_free(old, JSON_STRING)) return made(f, json_stringn_nocheck(text, bytes));
    if (json_string_length(old) == bytes && memcmp(json_string_value(old), text, bytes) == 0) return old;
    if (json_string_setn_nocheck(old, text, bytes) == 0) return old;
    f->failed = true;
    return NULL;
}

/* ---- lists and objects ---------------------------------------------------------------------------------------- */

static bool fill_item(filler *f, json_t *list, size_t i)
{
    json_t *old = json_array_get(list, i), *item = fill(f, old);
    if (!item) return false;
    if (item == old) return true;
    int failed = i < json_array_size(list) ? json_array_set_new(list, i, item) : json_array_append_new(list, item);
    f->failed = f->failed || failed;
    return !failed;
}

static bool fill_items(filler *f, json_t *list)
{
    size_t n = 0;
    f->s->at++;
    if (at_token(f) == ']')
        f->s->at++;
    else
        for (char c = ','; c != ']';) {
            if (!fill_item(f, list, n++)) return false;
            c = at_token(f);
            if (c != ',' && c != ']') return false;
            f->s->at++;
        }
    while (json_array_size(list) > n) json_array_remove(list, json_array_size(list) - 1);
    return true;
}

static json_t *fill_list(filler *f, json_t *old)
{
    json_t *list = is_free(old, JSON_ARRAY) ? old : made(f, json_array());
    if (!list || fill_items(f, list)) return list;
    if (list != old) json_decref(list);
    return NULL;
}

/* Reads "KEY": ; the text lives until the next one is read. */
static bool take_key(filler *f, const char **key, size_t *bytes)
{
    if (at_token(f) != '"' || !take_text(f, key, bytes) || at_token(f) != ':') return false;
    f->s->at++;
    return true;
}

/* The next member has the key of `iter`. */
static bool is_key(filler *f, void *iter)
{
    const char *key, *known = json_object_iter_key(iter);
    size_t bytes;
    return take_key(f, &key, &bytes) && strlen(known) == bytes && memcmp(known, key, bytes) == 0;
}

/* Overwrites the members of an object; false: it has other keys, or another order of them. */
static bool refill_object(filler *f, json_t *object)
{
    void *iter = json_object_iter(object);
    f->s->at++;
    if (!iter) return at_token(f) == '}' && f->s->at++;
    for (; iter; iter = json_object_iter_next(object, iter)) {
        if (!is_key(f, iter)) return false;
        json_t *old = json_object_iter_value(iter), *value = fill(f, old);
        if (!value || (value != old && json_object_iter_set_new(object, iter, value) != 0)) return false;
        if (at_token(f) != (json_object_iter_next(object, iter) ? ',' : '}')) return false;
        f->s->at++;
    }
    return true;
}

static bool add_member(filler *f, json_t *object)
{
    char name[KEY_BYTES];
    const char *key;
    size_t bytes;
    if (!take_key(f, &key, &bytes) || bytes >= sizeof name || memchr(key, 0, bytes)) return false;
    memcpy(name, key, bytes);
    name[bytes] = 0;
    if (json_object_get(object, name)) return false;
    json_t *value = fill(f, NULL);
    if (!value) return false;
    int failed = json_object_set_new_nocheck(object, name, value);
    f->failed = f->failed || failed;
    return !failed;
}

static bool add_members(filler *f, json_t *object)
{
    f->s->at++;
    if (at_token(f) == '}') return f->s->at++;
    for (char c = ','; c != '}';) {
        if (!add_member(f, object)) return false;
        c = at_token(f);
        if (c != ',' && c != '}') return false;
        f->s->at++;
    }
    return true;
}

static json_t *fill_object(filler *f, json_t *old)
{
    size_t begin = f->s->at;
    if (is_free(old, JSON_OBJECT)) {
        if (refill_object(f, old)) return old;
        if (f->failed) return NULL;
        f->s->at = begin;
    }
    json_t *object = made(f, json_object());
    if (!object || add_members(f, object)) return object;
    json_decref(object);
    return NULL;
}

static json_t *fill(filler *f, json_t *old)
{
    char c = at_token(f);
    if (c == '"') return fill_text(f, old);
    if (is_digit(c) || (c == '-' && char_at(f->s, f->s->at + 1) != 'I')) return fill_number(f, old);
    if (c != '[' && c != '{') return fill_word(f);
    if (++f->depth > JSON_DEPTH) return NULL;
    json_t *value = c == '[' ? fill_list(f, old) : fill_object(f, old);
    f->depth--;
    return value;
}

sca_status json_refill(scan *s, size_t around, json_t **value, bool *done)
{
    filler f = { .s = s, .depth = around };
    size_t begin = s->at;
    json_prepare();
    json_t *now = fill(&f, *value);
    str_free(&f.text);
    *done = now != NULL;
    if (now != *value || !now) { /* what failed half way is of no use as a shape */
        json_decref(*value);
        *value = now;
    }
    if (now) return SCA_OK;
    s->at = begin;
    return f.failed ? mem_fail(0, s->name) : SCA_OK;
}
