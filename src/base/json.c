/* json.c - JSON by jansson: small documents, members, writers. Large files: json_stream.c. */
#include "base/json_scan.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL_BYTES = 1 << 30 }; /* json_open: tokenizer.json of large vocabularies has tens of megabytes */

/* ---- memory ------------------------------------------------------------------------------------------ */

/* After some failed allocations jansson tells of a syntax error, after others it loses characters, and when the text of
 * a number cannot be kept an assertion of its own ends the program. Such a text grows in powers of two: when memory is
 * short these few small blocks come from a pool, the value read is refused all the same. */
enum { POOL_BYTES = 8192, POOL_LEAST = 16, POOL_MOST = 1024 };
/* NUMBER_BYTES: no finite double needs more; so its text stays below POOL_MOST */

static _Thread_local bool no_memory, loading;
static _Thread_local size_t pool_used;
static _Thread_local _Alignas(16) char pool[POOL_BYTES];

static void *counted_alloc(size_t bytes)
{
    void *p = mem_alloc(bytes);
    if (p) return p;
    no_memory = true;
    bool grows = loading && bytes >= POOL_LEAST && bytes <= POOL_MOST && (bytes & (bytes - 1)) == 0;
    if (!grows || bytes > POOL_BYTES - pool_used) return NULL;
    pool_used += bytes;
    return pool + pool_used - bytes;
}

static void counted_free(void *p)
{
    const char *at = p;
    if (at < pool || at >= pool + POOL_BYTES) mem_free(p);
}

/* A program that gave jansson its own allocator keeps it: what it allocated must go back there. */
static void take_allocator(void)
{
    json_malloc_t allocate;
    json_free_t release;
    json_get_alloc_funcs(&allocate, &release);
    if (allocate == malloc && release == free) json_set_alloc_funcs(counted_alloc, counted_free);
}

void json_prepare(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, take_allocator);
    no_memory = false;
    pool_used = 0;
}

/* ---- where values end -------------------------------------------------------------------------------- */

void scan_space(scan *s)
{
    while (s->at < s->bytes && scan_is_space(s->text[s->at])) s->at++;
}

char scan_peek(scan *s)
{
    scan_space(s);
    return s->at < s->bytes ? s->text[s->at] : 0;
}

static void locate(const scan *s, size_t at, size_t *line, size_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at && i < s->bytes; i++)
        if (s->text[i] == '\n')
            ++*line, *column = 1;
        else
            ++*column;
}

sca_status scan_fail(const scan *s, size_t at, const char *what)
{
    size_t line, column;
    locate(s, at, &line, &column);
    return status_fail(SCA_ERR_FORMAT, "%s: line %zu, column %zu (byte %zu): %s", s->name, line, column, at, what);
}

void scan_string(scan *s)
{
    for (s->at++; s->at < s->bytes && s->text[s->at] != '"'; s->at++)
        if (s->text[s->at] == '\\') s->at++;
    s->at = s->at < s->bytes ? s->at + 1 : s->bytes;
}

sca_status scan_value(scan *s, size_t around)
{
    size_t depth = 0;
    scan_space(s);
    while (s->at < s->bytes) {
        char c = s->text[s->at];
        if (c == '"') {
            scan_string(s);
        } else if (c == '[' || c == '{') {
            if (++depth + around > JSON_DEPTH) return scan_fail(s, s->at, "nested too deeply");
            s->at++;
        } else if (c == ']' || c == '}') {
            if (depth == 0) return SCA_OK;
            depth--;
            s->at++;
        } else if (depth == 0 && (c == ',' || c == ':' || scan_is_space(c))) {
            return SCA_OK;
        } else {
            size_t from = s->at++;
            while (s->at < s->bytes && s->text[s->at] && !strchr("\",:[]{} \t\r\n", s->text[s->at])) s->at++;
            if (s->at - from > NUMBER_BYTES) return scan_fail(s, from, "a number or word too long to be one");
            continue;
        }
        if (depth == 0) return SCA_OK;
    }
    return SCA_OK;
}

/* Names the key that came again: jansson stops behind it and says only where. */
static sca_status fail_again(const scan *s, size_t at)
{
    size_t end = at, from = at;
    while (end > 0 && s->text[end] != '"') end--;
    for (from = end; from > 0 && (s->text[from - 1] != '"' || (from > 1 && s->text[from - 2] == '\\'));) from--;
    char what[128];
    snprintf(what, sizeof what, "duplicate object key '%.*s'", (int)(end - from < 96 ? end - from : 96),
             s->text + from);
    return scan_fail(s, at, what);
}

sca_status scan_load(const scan *s, size_t begin, json_t **out)
{
    json_error_t error;
    json_prepare();
    loading = true;
    *out = json_loadb(s->text + begin, s->at - begin, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL,
                      &error);
    loading = false;
    if (*out && !no_memory) return SCA_OK;
    json_decref(*out);
    *out = NULL;
    if (no_memory || error.text[0] == 0 || json_error_code(&error) == json_error_out_of_memory)
        return mem_fail(s->at - begin, s->name);
    size_t at = error.position > 0 ? (size_t)error.position - 1 : 0;
    if (json_error_code(&error) == json_error_duplicate_key) return fail_again(s, begin + at);
    return scan_fail(s, begin + at, error.text);
}

/* ---- small documents --------------------------------------------------------------------------------- */

sca_status json_parse(const char *text, size_t bytes, const char *name, json_t **out)
{
    *out = NULL;
    scan s = { .text = text, .name = name, .bytes = bytes };
    if (scan_peek(&s) == 0 && s.at == bytes) return scan_fail(&s, s.at, "is empty, expected a JSON value");
    size_t begin = s.at;
    TRY(scan_value(&s, 0));
    s.at = bytes; /* what follows the value is jansson's to refuse */
    return scan_load(&s, begin, out);
}

sca_status json_open(const char *path, json_t **out)
{
    char *text;
    size_t bytes;
    *out = NULL;
    TRY(file_read(path, SMALL_BYTES, &text, &bytes));
    sca_status status = json_parse(text, bytes, path, out);
    mem_free(text);
    return status;
}

typedef struct dump {
    file_out *file;
    sca_status status;
} dump;

static int put_dump(const char *text, size_t bytes, void *user)
{
    dump *d = user;
    if (d->status == SCA_OK) d->status = file_out_put(d->file, text, bytes);
    return d->status == SCA_OK ? 0 : -1;
}

sca_status json_save(const char *path, const json_t *value)
{
    dump d = { .status = SCA_OK };
    TRY(file_out_open(path, &d.file));
    json_prepare();
    size_t flags = JSON_INDENT(2) | JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY;
    bool dumped = json_dump_callback(value, put_dump, &d, flags) == 0 && !no_memory;
    if (!dumped && d.status == SCA_OK)
        d.status = no_memory ? mem_fail(0, path) : status_fail(SCA_ERR_ARGUMENT, "%s: no value to write", path);
    if (d.status == SCA_OK) d.status = file_out_put(d.file, "\n", 1);
    if (d.status == SCA_OK) return file_out_commit(d.file);
    file_out_abort(d.file);
    return d.status;
}

/* ---- members ----------------------------------------------------------------------------------------- */

/* "0", "'text'", "a list": what was found, for messages. */
static void put_found(str *s, const json_t *value)
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_OBJECT: str_put(s, "an object"); return;
    case JSON_ARRAY: str_put(s, "a list"); return;
    case JSON_STRING: str_printf(s, "'%.200s'", json_string_value(value)); return;
    case JSON_INTEGER: str_printf(s, "%lld", (long long)json_integer_value(value)); return;
    case JSON_REAL: str_printf(s, "%.17g", json_real_value(value)); return;
    case JSON_TRUE: str_put(s, "true"); return;
    case JSON_FALSE: str_put(s, "false"); return;
    case JSON_NULL: str_put(s, value ? "null" : "absent"); return;
    }
}

static sca_status member_fail(const json_t *value, const char *key, const char *file, const char *expected)
{
    str found = { 0 };
    put_found(&found, value);
    sca_status status =
        status_fail(SCA_ERR_FORMAT, "%s: '%s' is %s, expected %s", file, key, str_text(&found), expected);
    str_free(&found);
    return status;
}

/* The member, NULL when absent. */
static sca_status member(const json_t *object, const char *key, const char *file, const json_t **out)
{
    *out = NULL;
    if (!json_is_object(object)) return status_fail(SCA_ERR_FORMAT, "%s: expected an object with '%s'", file, key);
    *out = json_object_get(object, key);
    return SCA_OK;
}

static sca_status to_int(const json_t *v, const char *key, const char *file, int64_t least, int64_t most,
                         int64_t *out)
{
    char expected[96];
    double real = json_is_real(v) ? json_real_value(v) : 0.5;
    bool whole = real >= -9007199254740992.0 && real <= 9007199254740992.0 && real == floor(real); /* 1.0 is 1 */
    int64_t value = json_is_integer(v) ? (int64_t)json_integer_value(v) : whole ? (int64_t)real : 0;
    if ((json_is_integer(v) || whole) && value >= least && value <= most) {
        *out = value;
        return SCA_OK;
    }
    if (most == INT64_MAX)
        snprintf(expected, sizeof expected, "an integer from %lld on", (long long)least);
    else
        snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)least, (long long)most);
    return member_fail(v, key, file, least == INT64_MIN && most == INT64_MAX ? "an integer" : expected);
}

static sca_status to_real(const json_t *v, const char *key, const char *file, double *out)
{
    if (!json_is_number(v) || !isfinite(json_number_value(v))) return member_fail(v, key, file, "a finite number");
    *out = json_number_value(v);
    return SCA_OK;
}

static sca_status to_text(const json_t *v, const char *key, const char *file, const char **out)
{
    if (!json_is_string(v)) return member_fail(v, key, file, "a text");
    if (strlen(json_string_value(v)) != json_string_length(v))
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' contains a 0 character, expected plain text", file, key);
    *out = json_string_value(v);
    return SCA_OK;
}

sca_status json_need_int(const json_t *object, const char *key, const char *file, int64_t least, int64_t most,
                         int64_t *out)
{
    const json_t *v;
    TRY(member(object, key, file, &v));
    return to_int(v, key, file, least, most, out);
}

sca_status json_need_real(const json_t *object, const char *key, const char *file, double *out)
{
    const json_t *v;
    TRY(member(object, key, file, &v));
    return to_real(v, key, file, out);
}

sca_status json_need_text(const json_t *object, const char *key, const char *file, const char **out)
{
    const json_t *v;
    TRY(member(object, key, file, &v));
    return to_text(v, key, file, out);
}

sca_status json_may_int(const json_t *object, const char *key, const char *file, int64_t least, int64_t most,
                        int64_t *out)
{
    const json_t *v;
    TRY(member(object, key, file, &v));
    return !v || json_is_null(v) ? SCA_OK : to_int(v, key, file, least, most, out);
}

sca_status json_may_real(const json_t *object, const char *key, const char *file, double *out)
{
    const json_t *v;
    TRY(member(object, key, file, &v));
    return !v || json_is_null(v) ? SCA_OK : to_real(v, key, file, out);
}

sca_status json_may_bool(const json_t *object, const char *key, const char *file, bool *out)
{
    const json_t *v;
    TRY(member(object, key, file, &v));
    if (!v || json_is_null(v)) return SCA_OK;
    if (!json_is_boolean(v)) return member_fail(v, key, file, "true or false");
    *out = json_is_true(v);
    return SCA_OK;
}

sca_status json_may_text(const json_t *object, const char *key, const char *file, const char **out)
{
    const json_t *v;
    TRY(member(object, key, file, &v));
    return !v || json_is_null(v) ? SCA_OK : to_text(v, key, file, out);
}

/* ---- writers ----------------------------------------------------------------------------------------- */

void json_put_text(str *s, const char *text, size_t bytes)
{
    str_putc(s, '"');
    for (size_t i = 0; i < bytes;) {
        size_t begin = i;
        int32_t code = utf8_next(text, bytes, &i);
        if (code < 0)
            str_put(s, "\xef\xbf\xbd");
        else if (code == '"' || code == '\\')
            str_putc(s, '\\'), str_putc(s, (char)code);
        else if (code == '\n')
            str_put(s, "\\n");
        else if (code < 0x20 || code == 0x7f || code == 0x2028 ||
                 code == 0x2029) /* the last two end lines elsewhere */
            str_printf(s, "\\u%04x", (unsigned)code);
        else
            str_put_bytes(s, text + begin, i - begin);
    }
    str_putc(s, '"');
}

void json_put_real(str *s, double value)
{
    if (!isfinite(value)) {
        str_put(s, "null");
        return;
    }
    size_t start = s->bytes;
    for (int digits = 15; digits <= 17 && !s->failed; digits++) {
        double back;
        if (s->data) s->data[s->bytes = start] = 0;
        str_printf(s, "%.*g", digits, value);
        if (!s->failed && text_to_double(s->data + start, &back) && back == value) return;
    }
}
