/* tokenizer_normal.c - Unicode normal forms and text replacement, as tokenizer.json asks for them. */
#include "model/tokenizer_private.h"

#include <string.h>
#include <utf8proc.h>

static int combining_class(int32_t code) { return utf8proc_get_property(code)->combining_class; }

/* Orders the marks of each character by class, keeping equal ones in order. A merge sort by hand: utf8proc's own is
 * quadratic in the length of a run, which the text chooses. spare: as long as codes. */
static void sort_marks(int32_t *codes, int32_t *spare, size_t n)
{
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t low = 0; low < n; low += 2 * width) {
            size_t middle = low + width < n ? low + width : n, high = low + 2 * width < n ? low + 2 * width : n;
            size_t i = low, k = middle, to = low;
            while (i < middle || k < high) {
                bool left = k == high || (i < middle && combining_class(codes[i]) <= combining_class(codes[k]));
                spare[to++] = left ? codes[i++] : codes[k++];
            }
        }
        memcpy(codes, spare, n * sizeof *codes);
    }
}

static void sort_runs(int32_t *codes, int32_t *spare, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (combining_class(codes[i]) == 0) continue;
        size_t end = i;
        while (end < n && combining_class(codes[end]) != 0) end++;
        if (end - i > 1) sort_marks(codes + i, spare, end - i);
        i = end;
    }
}

static size_t decompose(const char *text, size_t bytes, utf8proc_option_t options, int32_t *codes, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes;) {
        int boundary = 0;
        int32_t code = utf8_next(text, bytes, &i);
        size_t left = cap > n ? cap - n : 0;
        utf8proc_ssize_t k =
            utf8proc_decompose_char(code, codes ? codes + n : NULL, (utf8proc_ssize_t)left, options, &boundary);
        if (k > 0) n += (size_t)k;
    }
    return n;
}

static bool all_ascii(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if ((unsigned char)text[i] >= 0x80) return false;
    return true;
}

static sca_status normal_form(normal_kind kind, const char *text, size_t bytes, str *out)
{
    if (all_ascii(text, bytes)) {
        str_put_bytes(out, text, bytes);
        return SCA_OK;
    }
    bool compat = kind == NORMAL_NFKC || kind == NORMAL_NFKD, compose = kind == NORMAL_NFC || kind == NORMAL_NFKC;
    utf8proc_option_t options = (utf8proc_option_t)(UTF8PROC_STABLE | (compat ? UTF8PROC_COMPAT : 0) |
                                                    (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE));
    size_t n = decompose(text, bytes, options, NULL, 0);
    int32_t *codes = mem_zero(2 * n + 1, sizeof *codes);
    if (!codes) return mem_fail((2 * n + 1) * sizeof *codes, "normalising a text");
    n = decompose(text, bytes, options, codes, n);
    sort_runs(codes, codes + n, n);
    if (compose) {
        utf8proc_ssize_t k = utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)n, options);
        n = k > 0 ? (size_t)k : 0;
    }
    for (size_t i = 0; i < n; i++) {
        char utf8[4];
        str_put_bytes(out, utf8, utf8_put(codes[i], utf8));
    }
    mem_free(codes);
    return SCA_OK;
}

static void replace_all(const char *from, const char *to, const char *text, size_t bytes, str *out)
{
    size_t start = 0, from_bytes = strlen(from);
    for (const char *hit; from_bytes > 0 && (hit = memmem(text + start, bytes - start, from, from_bytes));) {
        str_put_bytes(out, text + start, (size_t)(hit - text) - start);
        str_put(out, to);
        start = (size_t)(hit - text) + from_bytes;
    }
    str_put_bytes(out, text + start, bytes - start);
}

static sca_status apply_step(const normal_step *s, const char *text, size_t bytes, str *out)
{
    switch (s->kind) {
    case NORMAL_PREPEND:
        if (bytes > 0) str_put(out, s->to);
        str_put_bytes(out, text, bytes);
        return SCA_OK;
    case NORMAL_REPLACE: replace_all(s->from, s->to, text, bytes, out); return SCA_OK;
    default: return normal_form(s->kind, text, bytes, out);
    }
}

sca_status normal_apply(const normal_step *steps, int n, const char *text, size_t bytes, str *out)
{
    str previous = { 0 };
    sca_status status = SCA_OK;
    str_clear(out);
    str_put_bytes(out, text, bytes);
    for (int i = 0; i < n && status == SCA_OK; i++) {
        str swap = previous;
        previous = *out;
        *out = swap;
        str_clear(out);
        status = apply_step(&steps[i], str_text(&previous), previous.bytes, out);
        if (status == SCA_OK) status = str_check(out, "normalising a text");
    }
    str_free(&previous);
    return status == SCA_OK ? str_check(out, "normalising a text") : status;
}
