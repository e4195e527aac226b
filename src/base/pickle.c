/* pickle.c - Python's pickles read as plain data.
 *
 * The machine of pickle's opcodes, without the part that calls: a global is a name, a call is a record of the name
 * and its arguments. Every opcode makes at most one value, so memory stays within a constant times the input.
 * Nothing recurses, whatever the nesting. Values may be shared and lists may contain themselves, as in Python.
 */
#include "base/base.h"

#include <math.h>
#include <string.h>

enum { CHUNK_BYTES = 1 << 16, PROTOCOL_MOST = 5 };

/* ---- what the document owns -------------------------------------------------------------------------- */

typedef struct chunk {
    struct chunk *next;
    size_t used, cap;
    _Alignas(16) unsigned char data[];
} chunk;

struct pickle {
    chunk *chunks;
    pickle_value *root;
};

static void *take(pickle *p, size_t bytes)
{
    chunk *c = p->chunks;
    if (bytes > SIZE_MAX / 2) return NULL;
    bytes = (bytes + 15) & ~(size_t)15;
    if (!c || c->cap - c->used < bytes) {
        size_t cap = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        c = mem_alloc(sizeof *c + cap);
        if (!c) return NULL;
        *c = (chunk){ .next = p->chunks, .cap = cap };
        p->chunks = c;
    }
    void *at = c->data + c->used;
    c->used += bytes;
    return at;
}

/* ---- the machine ------------------------------------------------------------------------------------- */

typedef struct machine {
    pickle *p;
    const uint8_t *data;
    size_t bytes, at, opcode; /* opcode: where the current one begins */
    const char *name;
    const char *const *allowed;
    pickle_value **stack, **memo; /* memo: by index, NULL where nothing is kept */
    size_t *marks;                /* heights of the stack */
    size_t depth, stack_cap, n_marks, marks_cap, memo_cap, n_memo;
    size_t pairs; /* put into OrderedDicts; a list named twice must not make them grow beyond the input */
} machine;

static sca_status fail(const machine *m, const char *what)
{
    return status_fail(SCA_ERR_FORMAT, "%s: pickle, byte %zu: %s", m->name, m->opcode, what);
}

static sca_status no_memory(const machine *m, size_t bytes) { return mem_fail(bytes, m->name); }

/* Makes room for one more than `count` items of `size` bytes at *items. */
static sca_status grow(const machine *m, void *items, size_t count, size_t *cap, size_t size)
{
    if (count < *cap) return SCA_OK;
    void *old;
    memcpy(&old, items, sizeof old);
    size_t more = *cap ? 2 * *cap : 64;
    void *larger = mem_resize(old, more * size);
    if (!larger) return no_memory(m, more * size);
    memcpy(items, &larger, sizeof larger);
    *cap = more;
    return SCA_OK;
}

static sca_status push(machine *m, pickle_value *v)
{
    TRY(grow(m, &m->stack, m->depth, &m->stack_cap, sizeof *m->stack));
    m->stack[m->depth++] = v;
    return SCA_OK;
}

/* The lowest height that values may be popped to: a mark protects what is below. */
static size_t floor_of(const machine *m) { return m->n_marks ? m->marks[m->n_marks - 1] : 0; }

static sca_status pop(machine *m, pickle_value **out)
{
    if (m->depth <= floor_of(m)) return fail(m, "the stack is empty");
    *out = m->stack[--m->depth];
    return SCA_OK;
}

static sca_status top(const machine *m, pickle_value **out)
{
    if (m->depth <= floor_of(m)) return fail(m, "the stack is empty");
    *out = m->stack[m->depth - 1];
    return SCA_OK;
}

static sca_status push_mark(machine *m)
{
    TRY(grow(m, &m->marks, m->n_marks, &m->marks_cap, sizeof *m->marks));
    m->marks[m->n_marks++] = m->depth;
    return SCA_OK;
}

/* The values above the last mark: *count of them, at m->stack[m->depth], already popped. */
static sca_status pop_mark(machine *m, pickle_value ***items, size_t *count)
{
    if (m->n_marks == 0) return fail(m, "no mark is set");
    size_t height = m->marks[--m->n_marks];
    *count = m->depth - height;
    m->depth = height;
    *items = m->stack + height;
    return SCA_OK;
}

static sca_status new_value(machine *m, pickle_type type, pickle_value **out)
{
    *out = take(m->p, sizeof **out);
    if (!*out) return no_memory(m, sizeof **out);
    **out = (pickle_value){ .type = type };
    return SCA_OK;
}

static sca_status push_new(machine *m, pickle_type type)
{
    pickle_value *v;
    TRY(new_value(m, type, &v));
    return push(m, v);
}

/* ---- items ------------------------------------------------------------------------------------------- */

/* The arrays hold the next power of two, from 4 on, so that the count tells when they are full. */
static sca_status add_items(machine *m, pickle_value *to, pickle_value **items, size_t count)
{
    size_t cap = to->count ? 4 : 0, need = to->count + count;
    while (cap && cap < to->count) cap *= 2;
    if (need > cap) {
        if (cap == 0) cap = 4;
        while (cap < need) cap *= 2;
        pickle_value **larger = take(m->p, cap * sizeof *larger);
        if (!larger) return no_memory(m, cap * sizeof *larger);
        if (to->count > 0) memcpy(larger, to->items, to->count * sizeof *larger);
        to->items = larger;
    }
    if (count > 0) memcpy(to->items + to->count, items, count * sizeof *items);
    to->count = need;
    return SCA_OK;
}

static sca_status push_of(machine *m, pickle_type type, pickle_value **items, size_t count)
{
    pickle_value *v;
    TRY(new_value(m, type, &v));
    if (type == PICKLE_DICT && count % 2 != 0) return fail(m, "a key has no value");
    TRY(add_items(m, v, items, count));
    return push(m, v);
}

static sca_status push_marked(machine *m, pickle_type type)
{
    pickle_value **items;
    size_t count;
    TRY(pop_mark(m, &items, &count));
    return push_of(m, type, items, count);
}

static sca_status push_tuple(machine *m, size_t count)
{
    if (m->depth - floor_of(m) < count) return fail(m, "the stack is empty");
    m->depth -= count;
    return push_of(m, PICKLE_TUPLE, m->stack + m->depth, count);
}

static sca_status add_marked(machine *m, pickle_type type)
{
    pickle_value **items, *to;
    size_t count;
    TRY(pop_mark(m, &items, &count));
    TRY(top(m, &to));
    if (to->type != type) return fail(m, "items are added to something that takes none");
    if (type == PICKLE_DICT && count % 2 != 0) return fail(m, "a key has no value");
    return add_items(m, to, items, count);
}

/* The `count` topmost values go into what is below them. */
static sca_status add_popped(machine *m, pickle_type type, size_t count)
{
    pickle_value *to;
    if (m->depth - floor_of(m) < count + 1) return fail(m, "the stack is empty");
    m->depth -= count;
    to = m->stack[m->depth - 1];
    if (to->type != type) return fail(m, "items are added to something that takes none");
    return add_items(m, to, m->stack + m->depth, count);
}

/* ---- arguments of opcodes ---------------------------------------------------------------------------- */

static sca_status need(machine *m, uint64_t bytes, const uint8_t **out)
{
    if (bytes > m->bytes - m->at) return fail(m, "the file ends inside a value");
    *out = m->data + m->at;
    m->at += (size_t)bytes;
    return SCA_OK;
}

/* Little-endian, 1 to 8 bytes. */
static sca_status number(machine *m, size_t bytes, uint64_t *out)
{
    const uint8_t *p;
    TRY(need(m, bytes, &p));
    *out = 0;
    for (size_t i = bytes; i-- > 0;) *out = *out << 8 | p[i];
    return SCA_OK;
}

/* The rest of the line, without its end. */
static sca_status line(machine *m, const char **text, size_t *bytes)
{
    const uint8_t *start = m->data + m->at;
    const uint8_t *end = memchr(start, '\n', m->bytes - m->at);
    if (!end) return fail(m, "the file ends inside a line");
    *text = (const char *)start;
    *bytes = (size_t)(end - start);
    m->at += *bytes + 1;
    return SCA_OK;
}

/* A line as short text. */
static sca_status short_line(machine *m, char out[64], size_t *length)
{
    const char *text;
    TRY(line(m, &text, length));
    if (*length > 0 && text[*length - 1] == '\r') --*length;
    if (*length >= 64 || memchr(text, 0, *length)) return fail(m, "no number");
    memcpy(out, text, *length);
    out[*length] = 0;
    return SCA_OK;
}

/* ---- numbers ----------------------------------------------------------------------------------------- */

static sca_status push_int(machine *m, pickle_type type, int64_t value)
{
    pickle_value *v;
    TRY(new_value(m, type, &v));
    v->integer = value;
    v->real = (double)value;
    return push(m, v);
}

static sca_status push_unsigned(machine *m, size_t bytes)
{
    uint64_t value;
    TRY(number(m, bytes, &value));
    return push_int(m, PICKLE_INT, (int64_t)value);
}

static sca_status push_int32(machine *m)
{
    uint64_t value;
    TRY(number(m, 4, &value));
    return push_int(m, PICKLE_INT, (int32_t)(uint32_t)value);
}

/* Two's complement of any length; what lies beyond 64 bits may only repeat the sign. */
static sca_status push_long(machine *m, size_t length_bytes)
{
    uint64_t length, value = 0;
    const uint8_t *p;
    TRY(number(m, length_bytes, &length));
    if (length > INT32_MAX) return fail(m, "a number of negative length");
    TRY(need(m, length, &p));
    uint8_t sign = length > 0 && (p[length - 1] & 0x80) ? 0xff : 0;
    for (size_t i = 8; i-- > 0;) value = value << 8 | (i < length ? p[i] : sign);
    for (size_t i = 8; i < length; i++)
        if (p[i] != sign) return fail(m, "an integer beyond 64 bits");
    if (length >= 8 && (value >> 63 != 0) != (sign != 0)) return fail(m, "an integer beyond 64 bits");
    return push_int(m, PICKLE_INT, (int64_t)value);
}

/* Decimal; "00" and "01" are how protocol 0 writes False and True, and a long ends in L. */
static sca_status push_decimal(machine *m, bool is_long)
{
    char text[64];
    size_t n;
    int64_t value;
    TRY(short_line(m, text, &n));
    bool yes = strcmp(text, "01") == 0;
    if (!is_long && (yes || strcmp(text, "00") == 0)) return push_int(m, PICKLE_BOOL, yes);
    if (is_long && n > 0 && text[n - 1] == 'L') text[n - 1] = 0;
    if (!text_to_int(text, INT64_MIN, INT64_MAX, &value)) return fail(m, "no integer of 64 bits");
    return push_int(m, PICKLE_INT, value);
}

static sca_status push_real(machine *m, double value)
{
    pickle_value *v;
    TRY(new_value(m, PICKLE_REAL, &v));
    v->real = value;
    return push(m, v);
}

static sca_status push_binary_real(machine *m)
{
    const uint8_t *p;
    uint64_t bits = 0;
    double value;
    TRY(need(m, 8, &p));
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
    memcpy(&value, &bits, sizeof value);
    return push_real(m, value);
}

static sca_status push_decimal_real(machine *m)
{
    char text[64];
    size_t n;
    double value;
    TRY(short_line(m, text, &n));
    const char *word = text + (text[0] == '-');
    if (strcmp(word, "inf") == 0)
        value = (double)INFINITY;
    else if (strcmp(word, "nan") == 0)
        value = (double)NAN;
    else if (!text_to_double(text, &value))
        return fail(m, "no number");
    return push_real(m, text[0] == '-' && word[0] == 'i' ? -value : value);
}

/* ---- texts ------------------------------------------------------------------------------------------- */

/* Pushes text[0..bytes), which is copied. */
static sca_status push_text(machine *m, pickle_type type, const void *text, size_t bytes)
{
    pickle_value *v;
    TRY(new_value(m, type, &v));
    char *copy = take(m->p, bytes + 1);
    if (!copy) return no_memory(m, bytes);
    if (bytes > 0) memcpy(copy, text, bytes);
    copy[bytes] = 0;
    v->text = copy;
    v->count = bytes;
    return push(m, v);
}

static sca_status push_binary_text(machine *m, pickle_type type, size_t length_bytes)
{
    uint64_t length;
    const uint8_t *p;
    TRY(number(m, length_bytes, &length));
    TRY(need(m, length, &p));
    if (type == PICKLE_TEXT && !utf8_valid((const char *)p, (size_t)length))
        return fail(m, "a text is no valid UTF-8");
    return push_text(m, type, p, (size_t)length);
}

/* A str of Python 2 is bytes that mostly hold text. */
static pickle_type type_of_str(const char *text, size_t bytes)
{
    return utf8_valid(text, bytes) ? PICKLE_TEXT : PICKLE_BYTES;
}

static sca_status push_binary_str(machine *m, size_t length_bytes)
{
    uint64_t length;
    const uint8_t *p;
    TRY(number(m, length_bytes, &length));
    TRY(need(m, length, &p));
    return push_text(m, type_of_str((const char *)p, (size_t)length), p, (size_t)length);
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* `digits` hexadecimal digits at text[0..bytes); -1 if they are not there. */
static int64_t hex(const char *text, size_t bytes, size_t digits)
{
    int64_t value = 0;
    if (bytes < digits) return -1;
    for (size_t i = 0; i < digits; i++) {
        int d = hex_digit(text[i]);
        if (d < 0) return -1;
        value = value * 16 + d;
    }
    return value;
}

/* The byte of the escape after a backslash at text[0..bytes), as repr() writes it; *used bytes belong to it. */
static int unescape(const char *text, size_t bytes, size_t *used)
{
    static const char from[] = "\\'\"nrtabfv", to[] = "\\'\"\n\r\t\a\b\f\v";
    if (bytes == 0) return -1;
    const char *found = text[0] ? strchr(from, text[0]) : NULL;
    *used = 1;
    if (found) return (unsigned char)to[found - from];
    if (text[0] == 'x') {
        *used = 3;
        return (int)hex(text + 1, bytes - 1, 2);
    }
    if (text[0] < '0' || text[0] > '7') return -1;
    int value = 0;
    for (*used = 0; *used < 3 && *used < bytes && text[*used] >= '0' && text[*used] <= '7'; ++*used)
        value = value * 8 + text[*used] - '0';
    return value & 0xff;
}

/* A line that holds what repr() of Python 2 gives for a str: 'it''s' with escapes. */
static sca_status push_quoted_str(machine *m)
{
    const char *text;
    size_t n, count = 0;
    TRY(line(m, &text, &n));
    while (n > 0 && (text[n - 1] == '\r' || text[n - 1] == ' ')) n--;
    if (n < 2 || (text[0] != '\'' && text[0] != '"') || text[n - 1] != text[0])
        return fail(m, "a text without quotes");
    char *out = take(m->p, n);
    if (!out) return no_memory(m, n);
    for (size_t i = 1; i < n - 1;) {
        size_t used = 0;
        int c = (unsigned char)text[i++];
        if (c == '\\') {
            c = unescape(text + i, n - 1 - i, &used);
            if (c < 0) return fail(m, "an unknown escape in a text");
            i += used;
        }
        out[count++] = (char)c;
    }
    out[count] = 0; /* two quotes are gone: there is room */
    pickle_value *v;
    TRY(new_value(m, type_of_str(out, count), &v));
    v->text = out;
    v->count = count;
    return push(m, v);
}

/* The code point at text[*i] in Python's raw-unicode-escape: Latin-1, \uXXXX and \UXXXXXXXX; -1 when malformed.
 * `slashes`: backslashes right before it that are part of the text. */
static int64_t raw_next(const char *text, size_t n, size_t *i, size_t slashes)
{
    unsigned char c = (unsigned char)text[(*i)++];
    size_t digits = *i < n && text[*i] == 'u' ? 4 : *i < n && text[*i] == 'U' ? 8 : 0;
    if (c != '\\' || slashes % 2 != 0 || digits == 0) return c;
    int64_t code = hex(text + *i + 1, n - *i - 1, digits);
    *i += 1 + digits;
    return code;
}

static sca_status push_unicode_line(machine *m)
{
    const char *text;
    size_t n, count = 0, slashes = 0, i = 0;
    TRY(line(m, &text, &n));
    char *out = take(m->p, 2 * n + 1); /* one byte of Latin-1 becomes at most two */
    if (!out) return no_memory(m, n);
    while (i < n) {
        bool slash = text[i] == '\\';
        size_t begin = i;
        int64_t code = raw_next(text, n, &i, slashes);
        slashes = slash && i == begin + 1 ? slashes + 1 : 0;
        if (code >= 0xd800 && code < 0xdc00) { /* narrow builds of Python 2 wrote pairs of surrogates */
            int64_t low = i < n && text[i] == '\\' ? raw_next(text, n, &i, 0) : -1;
            code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : -1;
        }
        if (code < 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return fail(m, "a text is no valid Unicode");
        count += utf8_put((int32_t)code, out + count);
    }
    out[count] = 0;
    pickle_value *v;
    TRY(new_value(m, PICKLE_TEXT, &v));
    v->text = out;
    v->count = count;
    return push(m, v);
}

/* ---- globals and calls ------------------------------------------------------------------------------- */

static sca_status push_global(machine *m, const char *module, size_t module_bytes, const char *name,
                              size_t name_bytes)
{
    size_t bytes = module_bytes + 1 + name_bytes;
    char *text = take(m->p, bytes + 1);
    if (!text) return no_memory(m, bytes);
    memcpy(text, module, module_bytes);
    text[module_bytes] = ' ';
    memcpy(text + module_bytes + 1, name, name_bytes);
    text[bytes] = 0;
    bool known = false;
    for (const char *const *a = m->allowed; a && *a && !known; a++)
        known = strlen(*a) == bytes && memcmp(*a, text, bytes) == 0;
    if (!known)
        return status_fail(
            SCA_ERR_FORMAT,
            "%s: pickle, byte %zu: refers to the Python object '%s', which is not among those expected here",
            m->name, m->opcode, text);
    pickle_value *v;
    TRY(new_value(m, PICKLE_GLOBAL, &v));
    v->text = text;
    v->count = bytes;
    return push(m, v);
}

static sca_status push_global_lines(machine *m)
{
    const char *module, *name;
    size_t module_bytes, name_bytes;
    TRY(line(m, &module, &module_bytes));
    TRY(line(m, &name, &name_bytes));
    return push_global(m, module, module_bytes, name, name_bytes);
}

static sca_status push_stack_global(machine *m)
{
    pickle_value *name, *module;
    TRY(pop(m, &name));
    TRY(pop(m, &module));
    if (name->type != PICKLE_TEXT || module->type != PICKLE_TEXT) return fail(m, "the name of a global is no text");
    return push_global(m, module->text, module->count, name->text, name->count);
}

/* OrderedDict([(key, value), ...]) as Python 2 wrote it. */
static sca_status fill_dict(machine *m, pickle_value *dict, const pickle_value *args)
{
    if (args->count > 1 || (args->count == 1 && args->items[0]->type != PICKLE_LIST))
        return fail(m, "an OrderedDict of something else than pairs");
    m->pairs += args->count ? args->items[0]->count : 0;
    if (m->pairs > m->bytes) return fail(m, "more pairs than the file can hold");
    for (size_t i = 0; args->count == 1 && i < args->items[0]->count; i++) {
        const pickle_value *pair = args->items[0]->items[i];
        if ((pair->type != PICKLE_LIST && pair->type != PICKLE_TUPLE) || pair->count != 2)
            return fail(m, "an OrderedDict of something else than pairs");
        TRY(add_items(m, dict, pair->items, 2));
    }
    return SCA_OK;
}

static sca_status push_call(machine *m, pickle_value *global, pickle_value *args)
{
    pickle_value *v;
    if (global->type != PICKLE_GLOBAL) return fail(m, "calls something that has no name");
    if (args->type != PICKLE_TUPLE) return fail(m, "calls with something else than a tuple");
    bool dict = strcmp(global->text, "collections OrderedDict") == 0;
    TRY(new_value(m, dict ? PICKLE_DICT : PICKLE_CALL, &v));
    TRY(dict ? fill_dict(m, v, args) : add_items(m, v, (pickle_value *[]){ global, args }, 2));
    return push(m, v);
}

static sca_status push_reduce(machine *m)
{
    pickle_value *args, *global;
    TRY(pop(m, &args));
    TRY(pop(m, &global));
    return push_call(m, global, args);
}

static sca_status push_new_ex(machine *m)
{
    pickle_value *named;
    TRY(pop(m, &named));
    if (named->type != PICKLE_DICT || named->count > 0) return fail(m, "a call with named arguments");
    return push_reduce(m);
}

/* The oldest ways to make an instance: arguments above a mark, with the class above it too or in the opcode. */
static sca_status push_instance(machine *m, bool class_in_stack)
{
    pickle_value **items, *global, *args;
    size_t count, skipped = class_in_stack ? 1 : 0;
    if (!class_in_stack) TRY(push_global_lines(m));
    if (!class_in_stack) TRY(pop(m, &global));
    TRY(pop_mark(m, &items, &count));
    if (count < skipped) return fail(m, "the stack is empty");
    if (class_in_stack) global = items[0];
    TRY(push_of(m, PICKLE_TUPLE, items + skipped, count - skipped));
    TRY(pop(m, &args));
    return push_call(m, global, args);
}

/* State is kept with a call; attributes of a dict (torch's _metadata) are nobody's business. */
static sca_status build_state(machine *m)
{
    pickle_value *state, *v;
    TRY(pop(m, &state));
    TRY(top(m, &v));
    if (v->type == PICKLE_DICT) return SCA_OK;
    if (v->type != PICKLE_CALL) return fail(m, "gives a state to something that has none");
    if (v->count == 2) return add_items(m, v, &state, 1);
    v->items[2] = state;
    return SCA_OK;
}

static sca_status push_persid(machine *m, bool in_stack)
{
    pickle_value *id;
    const char *text;
    size_t n;
    if (!in_stack) {
        TRY(line(m, &text, &n));
        TRY(push_text(m, type_of_str(text, n), text, n));
    }
    TRY(pop(m, &id));
    return push_of(m, PICKLE_PERSID, &id, 1);
}

/* ---- memo -------------------------------------------------------------------------------------------- */

/* Picklers number from 0 or 1 on, so no number reaches the length of the input. */
static sca_status memo_put(machine *m, uint64_t index)
{
    pickle_value *v;
    TRY(top(m, &v));
    if (index > m->bytes) return fail(m, "a memo number beyond the length of the file");
    size_t i = (size_t)index;
    if (i >= m->memo_cap) {
        size_t cap = m->memo_cap ? m->memo_cap : 64;
        while (cap <= i) cap *= 2;
        pickle_value **memo = mem_resize(m->memo, cap * sizeof *memo);
        if (!memo) return no_memory(m, cap * sizeof *memo);
        memset(memo + m->memo_cap, 0, (cap - m->memo_cap) * sizeof *memo);
        m->memo = memo;
        m->memo_cap = cap;
    }
    m->n_memo += m->memo[i] == NULL;
    m->memo[i] = v;
    return SCA_OK;
}

static sca_status memo_get(machine *m, uint64_t index)
{
    if (index >= m->memo_cap || !m->memo[index]) return fail(m, "a memo number that was not put");
    return push(m, m->memo[index]);
}

/* bytes 0: a decimal line. */
static sca_status memo(machine *m, size_t bytes, sca_status (*act)(machine *, uint64_t))
{
    char text[64];
    size_t n;
    uint64_t index;
    int64_t value;
    if (bytes > 0) {
        TRY(number(m, bytes, &index));
        return act(m, index);
    }
    TRY(short_line(m, text, &n));
    if (!text_to_int(text, 0, INT64_MAX, &value)) return fail(m, "no memo number");
    return act(m, (uint64_t)value);
}

/* ---- opcodes ----------------------------------------------------------------------------------------- */

static sca_status read_protocol(machine *m)
{
    uint64_t protocol;
    TRY(number(m, 1, &protocol));
    return protocol <= PROTOCOL_MOST ? SCA_OK : fail(m, "a protocol newer than 5");
}

static sca_status skip_frame(machine *m)
{
    uint64_t length;
    TRY(number(m, 8, &length));
    return length <= m->bytes - m->at ? SCA_OK : fail(m, "a frame beyond the end of the file");
}

static sca_status pop_one(machine *m)
{
    pickle_value *v;
    /* Python lets a pop take a mark away when nothing is above it. */
    if (m->n_marks > 0 && m->depth == floor_of(m)) return m->n_marks--, SCA_OK;
    return pop(m, &v);
}

static sca_status pop_marked(machine *m)
{
    pickle_value **items;
    size_t count;
    return pop_mark(m, &items, &count);
}

static sca_status duplicate(machine *m)
{
    pickle_value *v;
    TRY(top(m, &v));
    return push(m, v);
}

static sca_status unknown_opcode(const machine *m, uint8_t opcode)
{
    return status_fail(SCA_ERR_FORMAT, "%s: pickle, byte %zu: opcode 0x%02x is not known", m->name, m->opcode,
                       opcode);
}

static sca_status step(machine *m, uint8_t opcode)
{
    switch (opcode) {
    case 0x80: return read_protocol(m);
    case 0x95: return skip_frame(m);
    case '(': return push_mark(m);
    case '0': return pop_one(m);
    case '1': return pop_marked(m);
    case '2': return duplicate(m);
    case 'N': return push_new(m, PICKLE_NONE);
    case 0x88: return push_int(m, PICKLE_BOOL, 1);
    case 0x89: return push_int(m, PICKLE_BOOL, 0);
    case 'I': return push_decimal(m, false);
    case 'L': return push_decimal(m, true);
    case 'J': return push_int32(m);
    case 'K': return push_unsigned(m, 1);
    case 'M': return push_unsigned(m, 2);
    case 0x8a: return push_long(m, 1);
    case 0x8b: return push_long(m, 4);
    case 'F': return push_decimal_real(m);
    case 'G': return push_binary_real(m);
    case 'S': return push_quoted_str(m);
    case 'T': return push_binary_str(m, 4);
    case 'U': return push_binary_str(m, 1);
    case 'V': return push_unicode_line(m);
    case 0x8c: return push_binary_text(m, PICKLE_TEXT, 1);
    case 'X': return push_binary_text(m, PICKLE_TEXT, 4);
    case 0x8d: return push_binary_text(m, PICKLE_TEXT, 8);
    case 'C': return push_binary_text(m, PICKLE_BYTES, 1);
    case 'B': return push_binary_text(m, PICKLE_BYTES, 4);
    case 0x8e:
    case 0x96: return push_binary_text(m, PICKLE_BYTES, 8);
    case ']': return push_new(m, PICKLE_LIST);
    case ')': return push_new(m, PICKLE_TUPLE);
    case '}': return push_new(m, PICKLE_DICT);
    case 0x8f: return push_new(m, PICKLE_SET);
    case 'l': return push_marked(m, PICKLE_LIST);
    case 't': return push_marked(m, PICKLE_TUPLE);
    case 'd': return push_marked(m, PICKLE_DICT);
    case 0x91: return push_marked(m, PICKLE_SET);
    case 0x85: return push_tuple(m, 1);
    case 0x86: return push_tuple(m, 2);
    case 0x87: return push_tuple(m, 3);
    case 'a': return add_popped(m, PICKLE_LIST, 1);
    case 's': return add_popped(m, PICKLE_DICT, 2);
    case 'e': return add_marked(m, PICKLE_LIST);
    case 'u': return add_marked(m, PICKLE_DICT);
    case 0x90: return add_marked(m, PICKLE_SET);
    case 'c': return push_global_lines(m);
    case 0x93: return push_stack_global(m);
    case 'R':
    case 0x81: return push_reduce(m);
    case 0x92: return push_new_ex(m);
    case 'i': return push_instance(m, false);
    case 'o': return push_instance(m, true);
    case 'b': return build_state(m);
    case 'P': return push_persid(m, false);
    case 'Q': return push_persid(m, true);
    case 'p': return memo(m, 0, memo_put);
    case 'q': return memo(m, 1, memo_put);
    case 'r': return memo(m, 4, memo_put);
    case 0x94: return memo_put(m, m->n_memo);
    case 'g': return memo(m, 0, memo_get);
    case 'h': return memo(m, 1, memo_get);
    case 'j': return memo(m, 4, memo_get);
    default: return unknown_opcode(m, opcode);
    }
}

static sca_status run(machine *m)
{
    TRY(grow(m, &m->stack, 0, &m->stack_cap, sizeof *m->stack)); /* never NULL: positions in it are computed */
    for (;;) {
        m->opcode = m->at;
        if (m->at == m->bytes) return fail(m, "the file ends before the pickle does");
        uint8_t opcode = m->data[m->at++];
        if (opcode == '.') break;
        TRY(step(m, opcode));
    }
    if (m->depth != 1 || m->n_marks != 0) return fail(m, "ends with something else than one value");
    m->p->root = m->stack[0];
    return SCA_OK;
}

/* ---- the document ------------------------------------------------------------------------------------ */

sca_status pickle_open(const void *data, size_t bytes, const char *name, const char *const *allowed, pickle **out,
                       size_t *used)
{
    *out = NULL;
    pickle *p = mem_zero(1, sizeof *p);
    if (!p) return mem_fail(sizeof *p, name);
    machine m = { .p = p, .data = data, .bytes = bytes, .name = name, .allowed = allowed };
    sca_status status = run(&m);
    mem_free(m.stack);
    mem_free(m.marks);
    mem_free(m.memo);
    if (used) *used = m.at;
    if (status != SCA_OK) {
        pickle_close(p);
        return status;
    }
    *out = p;
    return SCA_OK;
}

const pickle_value *pickle_root(const pickle *p) { return p->root; }

/* The latest of equal keys counts, as in Python. */
const pickle_value *pickle_get(const pickle_value *dict, const char *key)
{
    size_t n = strlen(key);
    if (!dict || dict->type != PICKLE_DICT) return NULL;
    for (size_t i = dict->count; i >= 2; i -= 2) {
        const pickle_value *k = dict->items[i - 2];
        if (k->type == PICKLE_TEXT && k->count == n && memcmp(k->text, key, n) == 0) return dict->items[i - 1];
    }
    return NULL;
}

void pickle_close(pickle *p)
{
    if (!p) return;
    for (chunk *c = p->chunks, *next; c; c = next) {
        next = c->next;
        mem_free(c);
    }
    mem_free(p);
}
