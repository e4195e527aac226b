/* str.c - growable text, strict numbers, names, UTF-8. Nothing here depends on the locale of the program. */
#include "base/base.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the C locale, whatever the program has set ------------------------------------------------------ */

static locale_t c_locale;

static void make_c_locale(void) { c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0); }

/* The old locale of this thread, for uselocale when done; 0 if there is no C locale to switch to. */
static locale_t enter_c_locale(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_c_locale);
    return c_locale ? uselocale(c_locale) : (locale_t)0;
}

static void leave_c_locale(locale_t old)
{
    if (old) uselocale(old);
}

/* ---- growable text ----------------------------------------------------------------------------------- */

/* Room for `more` bytes and the closing 0. */
static bool reserve(str *s, size_t more)
{
    if (s->failed) return false;
    size_t need;
    if (__builtin_add_overflow(s->bytes, more, &need) || __builtin_add_overflow(need, 1, &need)) {
        s->failed = true;
        return false;
    }
    if (need <= s->cap) return true;
    size_t cap = s->cap < 32 ? 64 : s->cap + s->cap / 2;
    if (cap < need) cap = need;
    char *data = mem_resize(s->data, cap);
    if (!data) {
        s->failed = true;
        return false;
    }
    s->data = data;
    s->cap = cap;
    return true;
}

void str_put_bytes(str *s, const void *data, size_t bytes)
{
    if (!reserve(s, bytes)) return;
    if (bytes > 0) memcpy(s->data + s->bytes, data, bytes);
    s->bytes += bytes;
    s->data[s->bytes] = 0;
}

void str_put(str *s, const char *text) { str_put_bytes(s, text, strlen(text)); }

void str_putc(str *s, char c) { str_put_bytes(s, &c, 1); }

void str_vprintf(str *s, const char *format, va_list args)
{
    if (s->failed) return;
    char small[256];
    va_list again;
    va_copy(again, args);
    locale_t old = enter_c_locale();
    int length = vsnprintf(small, sizeof small, format, args);
    if (length < 0) {
        s->failed = true;
    } else if ((size_t)length < sizeof small) {
        str_put_bytes(s, small, (size_t)length);
    } else if (reserve(s, (size_t)length)) {
        vsnprintf(s->data + s->bytes, (size_t)length + 1, format, again);
        s->bytes += (size_t)length;
    }
    leave_c_locale(old);
    va_end(again);
}

void str_printf(str *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    str_vprintf(s, format, args);
    va_end(args);
}

const char *str_text(const str *s) { return s->data ? s->data : ""; }

void str_clear(str *s)
{
    s->bytes = 0;
    s->failed = false;
    if (s->data) s->data[0] = 0;
}

sca_status str_take(str *s, char **out)
{
    *out = NULL;
    if (!s->failed && !s->data) str_put(s, ""); /* the taker owns some memory even when the text is empty */
    if (s->failed) {
        size_t bytes = s->bytes;
        str_free(s);
        return mem_fail(bytes, "text");
    }
    *out = s->data;
    *s = (str){ 0 };
    return SCA_OK;
}

void str_free(str *s)
{
    mem_free(s->data);
    *s = (str){ 0 };
}

/* ---- plain texts ------------------------------------------------------------------------------------- */

char *text_copy(const char *text, size_t bytes)
{
    char *copy = bytes < SIZE_MAX ? mem_alloc(bytes + 1) : NULL;
    if (!copy) return NULL;
    if (bytes > 0) memcpy(copy, text, bytes);
    copy[bytes] = 0;
    return copy;
}

bool text_ends(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);
    return n >= m && memcmp(text + n - m, suffix, m) == 0;
}

bool text_starts(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

static bool digit(char c) { return c >= '0' && c <= '9'; }

/* [+-] digits [. digits] [e [+-] digits] with at least one digit before the exponent: no hexadecimal, inf or nan.
 */
static bool is_decimal(const char *p)
{
    size_t digits = 0;
    if (*p == '+' || *p == '-') p++;
    for (; digit(*p); p++) digits++;
    if (*p == '.')
        for (p++; digit(*p); p++) digits++;
    if (digits == 0) return false;
    if (*p == 'e' || *p == 'E') {
        p++;
        if (*p == '+' || *p == '-') p++;
        if (!digit(*p)) return false;
        while (digit(*p)) p++;
    }
    return *p == 0;
}

bool text_to_double(const char *text, double *out)
{
    if (!is_decimal(text)) return false;
    locale_t old = enter_c_locale();
    double value = strtod(text, NULL);
    leave_c_locale(old);
    if (!isfinite(value)) return false;
    *out = value;
    return true;
}

bool text_to_int(const char *text, int64_t least, int64_t most, int64_t *out)
{
    bool negative = *text == '-';
    const char *p = text + (*text == '+' || *text == '-');
    int64_t value = 0;
    if (!digit(*p)) return false;
    for (; digit(*p); p++) {
        int d = negative ? -(*p - '0') : *p - '0';
        if (__builtin_mul_overflow(value, (int64_t)10, &value) || __builtin_add_overflow(value, d, &value))
            return false;
    }
    if (*p != 0 || value < least || value > most) return false;
    *out = value;
    return true;
}

/* ---- nearest name ------------------------------------------------------------------------------------ */

enum { NAME_MOST = 128 }; /* nobody mistypes longer names; also the bound of the rows below */

static size_t least_of(size_t a, size_t b) { return a < b ? a : b; }

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b. */
static size_t edit_distance(const char *a, size_t n, const char *b, size_t m)
{
    size_t row[3][NAME_MOST + 1], *before = row[0], *above = row[1], *now = row[2];
    for (size_t j = 0; j <= m; j++) above[j] = j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = least_of(above[j], now[j - 1]) + 1;
            best = least_of(best, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = least_of(best, before[j - 2] + 1);
            now[j] = best;
        }
        size_t *old = before;
        before = above;
        above = now;
        now = old;
    }
    return above[m];
}

const char *text_nearest(const char *name, const char *const *names, size_t count)
{
    const char *nearest = NULL;
    size_t n = strlen(name), best = (n + 1) / 3 + 1; /* distances from here on are chance */
    if (n == 0 || n > NAME_MOST) return NULL;
    for (size_t i = 0; i < count; i++) {
        size_t m = strlen(names[i]);
        if (m > NAME_MOST) continue;
        size_t distance = edit_distance(name, n, names[i], m);
        if (distance < best && distance < (n > m ? n : m)) {
            best = distance;
            nearest = names[i];
        }
    }
    return nearest;
}

/* ---- paths ------------------------------------------------------------------------------------------- */

char *path_join(const char *dir, const char *name)
{
    size_t n = strlen(dir), m = strlen(name), slash = n > 0 && dir[n - 1] != '/';
    char *path = mem_alloc(n + slash + m + 1);
    if (!path) return NULL;
    memcpy(path, dir, n);
    if (slash) path[n] = '/';
    memcpy(path + n + slash, name, m + 1);
    return path;
}

const char *path_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool path_is_plain(const char *name)
{
    return name[0] != 0 && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* ---- UTF-8 ------------------------------------------------------------------------------------------- */

int32_t utf8_next(const char *text, size_t bytes, size_t *i)
{
    const unsigned char *p = (const unsigned char *)text + *i;
    size_t left = bytes - *i, length = p[0] < 0x80   ? 1
                                       : p[0] < 0xc2 ? 0
                                       : p[0] < 0xe0 ? 2
                                       : p[0] < 0xf0 ? 3
                                       : p[0] < 0xf5 ? 4
                                                     : 0;
    if (length == 1) return (*i)++, p[0];
    int32_t code = length == 0 ? 0 : p[0] & (0x7f >> length);
    bool right = length > 0 && length <= left;
    for (size_t k = 1; right && k < length; k++) {
        right = (p[k] & 0xc0) == 0x80;
        code = code << 6 | (p[k] & 0x3f);
    }
    /* Longer than needed, half of a surrogate pair, or beyond the last code point. */
    if (right && ((length == 3 && code < 0x800) || (length == 4 && (code < 0x10000 || code > 0x10ffff)) ||
                  (code >= 0xd800 && code < 0xe000)))
        right = false;
    *i += right ? length : 1;
    return right ? code : -1;
}

size_t utf8_put(int32_t code, char out[4])
{
    unsigned c = (unsigned)code;
    if (c < 0x80) return out[0] = (char)c, 1;
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t k = length; k-- > 1; c >>= 6) out[k] = (char)(0x80 | (c & 0x3f));
    static const unsigned char lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    out[0] = (char)(lead[length] | c);
    return length;
}

bool utf8_valid(const char *text, size_t bytes)
{
    for (size_t i = 0; i < bytes;)
        if (utf8_next(text, bytes, &i) < 0) return false;
    return true;
}

void str_put_utf8(str *s, const char *text, size_t bytes)
{
    size_t start = 0, i = 0;
    while (i < bytes) {
        size_t begin = i;
        if (utf8_next(text, bytes, &i) >= 0) continue;
        str_put_bytes(s, text + start, begin - start);
        str_put(s, "\xef\xbf\xbd");
        start = i;
    }
    str_put_bytes(s, text + start, bytes - start);
}
