/* test_archive.c - pickles and zip archives: what Python and PyTorch write is read, everything else is refused. */
#include "check.h"
#include "faults.h"

#include <math.h>
#include <zlib.h>

/* ---- pickle: help ------------------------------------------------------------------------------------ */

static const char *const allowed[] = { "collections OrderedDict",
                                       "torch._utils _rebuild_tensor_v2",
                                       "torch FloatStorage",
                                       "torch HalfStorage",
                                       "torch BFloat16Storage",
                                       "_codecs encode",
                                       "__builtin__ frozenset",
                                       "builtins frozenset",
                                       "m C",
                                       NULL };

/* The document in the bytes, NULL with a message when refused. */
static pickle *open_bytes(const void *data, size_t bytes)
{
    pickle *p;
    size_t used = 0;
    if (pickle_open(data, bytes, "FILE", allowed, &p, &used) != SCA_OK) return NULL;
    CHECKF(used == bytes, "%zu of %zu bytes used", used, bytes);
    return p;
}

#define OPEN(literal) open_bytes(literal, sizeof(literal) - 1)

static void refused(const void *data, size_t bytes, const char *part)
{
    pickle *p;
    size_t used;
    sca_status status = pickle_open(data, bytes, "FILE", allowed, &p, &used);
    CHECKF(status == SCA_ERR_FORMAT && !p && strstr(sca_last_error(), part) &&
               text_starts(sca_last_error(), "FILE: "),
           "%s '%s', expected '%s'", sca_status_name(status), sca_last_error(), part);
    pickle_close(p);
}

#define REFUSED(literal, part) refused(literal, sizeof(literal) - 1, part)

static bool is_text(const pickle_value *v, const char *text)
{
    return v && v->type == PICKLE_TEXT && v->count == strlen(text) && strcmp(v->text, text) == 0;
}

static bool is_int(const pickle_value *v, int64_t value)
{
    return v && v->type == PICKLE_INT && v->integer == value;
}

static bool is_of(const pickle_value *v, pickle_type type, size_t count)
{
    return v && v->type == type && v->count == count;
}

static char *read_corpus(const char *name, size_t *bytes)
{
    char path[512], *data = NULL;
    snprintf(path, sizeof path, "%s/tests/corpus/%s", SCA_SOURCE, name);
    CHECK_OK(file_read(path, 1 << 20, &data, bytes));
    return data;
}

/* ---- pickle ------------------------------------------------------------------------------------------ */

/* The same dictionary as Python 3 writes it in every protocol. */
static void all_protocols(void)
{
    for (int protocol = 0; protocol <= 5; protocol++) {
        char name[64];
        size_t bytes;
        snprintf(name, sizeof name, "pickle/protocol%d", protocol);
        char *data = read_corpus(name, &bytes);
        pickle *p = data ? open_bytes(data, bytes) : NULL;
        mem_free(data); /* the document keeps nothing of it */
        CHECKF(p != NULL, "protocol %d: %s", protocol, sca_last_error());
        if (!p) continue;
        const pickle_value *d = pickle_root(p), *v;
        CHECK(d->type == PICKLE_DICT && d->count == 32);
        CHECK(is_int(pickle_get(d, "ref_id"), 7) && is_text(pickle_get(d, "sent"), "h\xc3\xa9 \xf0\x9f\x98\x80"));
        v = pickle_get(d, "tokens");
        CHECK(is_of(v, PICKLE_LIST, 2) && is_text(v->items[0], "a") && is_text(v->items[1], "b"));
        CHECK(pickle_get(d, "again") == v);
        v = pickle_get(d, "box");
        CHECK(is_of(v, PICKLE_LIST, 2) && v->items[0]->type == PICKLE_REAL && v->items[0]->real == 1.5 &&
              is_int(v->items[1], -2));
        v = pickle_get(d, "t");
        CHECK(is_of(v, PICKLE_TUPLE, 4) && is_int(v->items[3], 4) && is_of(pickle_get(d, "e"), PICKLE_TUPLE, 0));
        CHECK(pickle_get(d, "n")->type == PICKLE_NONE);
        CHECK(pickle_get(d, "y")->type == PICKLE_BOOL && pickle_get(d, "y")->integer == 1 &&
              pickle_get(d, "no")->integer == 0);
        CHECK(is_int(pickle_get(d, "big"), INT64_C(1) << 62) && is_int(pickle_get(d, "neg"), INT64_MIN));
        CHECK(is_int(pickle_get(d, "huge"), 70000) && is_int(pickle_get(d, "m"), -1) &&
              pickle_get(d, "huge")->real == 70000);
        v = pickle_get(d, "by");
        if (protocol >= 3) CHECK(is_of(v, PICKLE_BYTES, 2) && memcmp(v->text, "\xff\0", 3) == 0);
        if (protocol < 3) CHECK(is_of(v, PICKLE_CALL, 2) && strcmp(v->items[0]->text, "_codecs encode") == 0);
        v = pickle_get(d, "set");
        CHECK(protocol >= 4 ? is_of(v, PICKLE_SET, 1) : is_of(v, PICKLE_CALL, 2));
        CHECK(!pickle_get(d, "absent") && !pickle_get(v, "x") && !pickle_get(NULL, "x"));
        pickle_close(p);
    }
}

/* As RefCOCO's refs(...).p were written by Python 2: str and unicode, longs, escapes of repr(). */
static void python2(void)
{
    size_t bytes;
    char *data = read_corpus("pickle/python2", &bytes);
    pickle *p = data ? open_bytes(data, bytes) : NULL;
    mem_free(data);
    CHECKF(p != NULL, "%s", sca_last_error());
    if (!p) return;
    const pickle_value *d = pickle_root(p)->items[0];
    CHECK(is_text(pickle_get(d, "sent"), "it's \xc3\xa9 \n") && is_of(pickle_get(d, "raw"), PICKLE_BYTES, 1));
    CHECK(is_int(pickle_get(d, "id"), 12) && pickle_get(d, "f")->real == 1.5);
    CHECK(is_text(pickle_get(d, "u"), "\xf0\x9f\x98\x80 \\u\xc3\xa9"));
    pickle_close(p);
    p = OPEN("]q\1(U\3abcT\2\0\0\0\xff\xfe"
             "S\"q'\\\"\\\\\\r\\t\\a\\b\\f\\v\\0\\101\"\nI-5\r\nFnan\nF-inf\nL\x31L\ne.");
    CHECKF(p != NULL, "%s", sca_last_error());
    if (!p) return;
    pickle_value *const *v = pickle_root(p)->items;
    CHECK(is_text(v[0], "abc") && is_of(v[1], PICKLE_BYTES, 2));
    CHECK(v[2]->count == 12 && memcmp(v[2]->text, "q'\"\\\r\t\a\b\f\v\0A", 13) == 0);
    CHECK(is_int(v[3], -5) && isnan(v[4]->real) && v[5]->real == -(double)INFINITY && is_int(v[6], 1));
    pickle_close(p);
}

static void torch_objects(void)
{
    size_t bytes;
    char *data = read_corpus("pickle/torch", &bytes);
    pickle *p = data ? open_bytes(data, bytes) : NULL;
    mem_free(data);
    CHECKF(p != NULL, "%s", sca_last_error());
    if (!p) return;
    const pickle_value *v = pickle_get(pickle_root(p), "w");
    CHECK(is_of(v, PICKLE_CALL, 2) && strcmp(v->items[0]->text, "torch._utils _rebuild_tensor_v2") == 0);
    const pickle_value *args = v->items[1];
    CHECK(is_of(args, PICKLE_TUPLE, 6) && is_of(args->items[0], PICKLE_PERSID, 1) &&
          is_of(args->items[5], PICKLE_DICT, 0));
    const pickle_value *id = args->items[0]->items[0];
    CHECK(is_of(id, PICKLE_TUPLE, 5) && is_text(id->items[0], "storage") && is_int(id->items[4], 6));
    CHECK(id->items[1]->type == PICKLE_GLOBAL && strcmp(id->items[1]->text, "torch FloatStorage") == 0);
    pickle_close(p);
}

static void calls(void)
{
    pickle *p = OPEN("ccollections\nOrderedDict\n((l(I1\nI2\nla(I3\nI4\ntatR."); /* pairs as lists or tuples */
    CHECKF(p && is_of(pickle_root(p), PICKLE_DICT, 4) && is_int(pickle_root(p)->items[3], 4), "%s",
           sca_last_error());
    pickle_close(p);
    p = OPEN("(I1\nI2\nim\nC\n."); /* an instance of Python 2 */
    CHECKF(p && is_of(pickle_root(p), PICKLE_CALL, 2) && pickle_root(p)->items[1]->count == 2, "%s",
           sca_last_error());
    pickle_close(p);
    p = OPEN("(cm\nC\nI7\no}b.");
    CHECKF(p && is_of(pickle_root(p), PICKLE_CALL, 3) && is_int(pickle_root(p)->items[1]->items[0], 7) &&
               is_of(pickle_root(p)->items[2], PICKLE_DICT, 0),
           "%s", sca_last_error());
    pickle_close(p);
    p = OPEN("\x80\4\x8c\1m\x8c\1C\x93)\x81)b]b."); /* the second state replaces the first */
    CHECKF(p && is_of(pickle_root(p), PICKLE_CALL, 3) && pickle_root(p)->items[2]->type == PICKLE_LIST, "%s",
           sca_last_error());
    pickle_close(p);
    p = OPEN("\x80\4cm\nC\n)}\x92.");
    CHECKF(p && is_of(pickle_root(p), PICKLE_CALL, 2), "%s", sca_last_error());
    pickle_close(p);
    p = OPEN("Pname of it\n.");
    CHECKF(p && is_of(pickle_root(p), PICKLE_PERSID, 1) && is_text(pickle_root(p)->items[0], "name of it"), "%s",
           sca_last_error());
    pickle_close(p);
}

static void stack_and_memo(void)
{
    pickle *p = OPEN("]q\5(I1\n2h\5(I8\n1(0I9\n0e."); /* dup, get, pop, pop of marks */
    CHECKF(p && is_of(pickle_root(p), PICKLE_LIST, 3) && pickle_root(p)->items[2] == pickle_root(p), "%s",
           sca_last_error());
    pickle_close(p);
    p = OPEN("\x80\4\x95\6\0\0\0\0\0\0\0\x8f\x94(K\1\x90."); /* a frame, a set, memoize */
    CHECKF(p && is_of(pickle_root(p), PICKLE_SET, 1), "%s", sca_last_error());
    pickle_close(p);
    p = OPEN("}(S'k'\nI1\nS'k'\nI2\nuS'k'\nI3\ns."); /* the latest of equal keys counts */
    CHECKF(p && is_int(pickle_get(pickle_root(p), "k"), 3), "%s", sca_last_error());
    pickle_close(p);
    size_t used;
    CHECK_OK(pickle_open("I1\n.I2\n.", 8, "FILE", allowed, &p, &used));
    CHECK(used == 4 && is_int(pickle_root(p), 1));
    pickle_close(p);
    CHECK_OK(pickle_open("N.", 2, "FILE", NULL, &p, NULL));
    pickle_close(p);
    CHECK_FAILS(pickle_open("cm\nC\n.", 7, "FILE", NULL, &p, NULL), SCA_ERR_FORMAT, "'m C'");
}

static void integers(void)
{
    static const struct {
        const char *bytes;
        size_t count;
        int64_t value;
    } right[] = { { "\x8a\0.", 3, 0 },
                  { "\x8a\1\xff.", 4, -1 },
                  { "\x8a\2\xff\0.", 5, 255 },
                  { "\x8a\3\0\0\x80.", 6, -8388608 },
                  { "\x8a\x8\xff\xff\xff\xff\xff\xff\xff\x7f.", 11, INT64_MAX },
                  { "\x8a\x9\0\0\0\0\0\0\0\x40\0.", 12, INT64_C(1) << 62 },
                  { "\x8a\x9\0\0\0\0\0\0\0\x80\xff.", 12, INT64_MIN },
                  { "\x8b\1\0\0\0\5.", 7, 5 },
                  { "J\xff\xff\xff\xff.", 6, -1 },
                  { "M\xff\xff.", 4, 65535 },
                  { "K\xff.", 3, 255 } };
    for (size_t i = 0; i < LENGTH(right); i++) {
        pickle *p = open_bytes(right[i].bytes, right[i].count);
        CHECKF(p && is_int(pickle_root(p), right[i].value), "case %zu: %s", i, sca_last_error());
        pickle_close(p);
    }
    REFUSED("\x8a\x9\0\0\0\0\0\0\0\x80\0.", "beyond 64 bits");
    REFUSED("\x8a\x9\0\0\0\0\0\0\0\0\xff.", "beyond 64 bits");
    REFUSED("\x8a\xa\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", "beyond 64 bits");
    REFUSED("\x8b\xff\xff\xff\xff.", "negative length");
    REFUSED("I1.5\n.", "no integer");
    REFUSED("I\n.", "no integer");
    REFUSED("L99999999999999999999L\n.", "no integer of 64 bits");
    REFUSED("Fx\n.", "no number");
    REFUSED("F0x1p3\n.", "no number");
    REFUSED("I11111111111111111111111111111111111111111111111111111111111111111111111\n.", "no number");
}

static void damaged_pickles(void)
{
    REFUSED("", "ends before the pickle does");
    REFUSED("N", "ends before the pickle does");
    REFUSED(".", "something else than one value");
    REFUSED("NN.", "something else than one value");
    REFUSED("(N.", "something else than one value");
    REFUSED("\x80\6N.", "a protocol newer than 5");
    REFUSED("\x82\1.", "opcode 0x82");
    REFUSED("\x97.", "opcode 0x97");
    REFUSED("\x95\xff\xff\xff\xff\xff\xff\xff\xff"
            "N.",
            "a frame beyond");
    REFUSED("0.", "the stack is empty");
    REFUSED("(a.", "the stack is empty");
    REFUSED("](Na.", "the stack is empty");
    REFUSED("2.", "the stack is empty");
    REFUSED("q\1.", "the stack is empty");
    REFUSED("t.", "no mark");
    REFUSED("e.", "no mark");
    REFUSED("(e.", "the stack is empty");
    REFUSED("N(Ne.", "takes none");
    REFUSED("NNa.", "takes none");
    REFUSED("]NNs.", "takes none");
    REFUSED("(Nd.", "a key has no value");
    REFUSED("}(Nu.", "a key has no value");
    REFUSED("h\1.", "was not put");
    REFUSED("g-1\n.", "no memo number");
    REFUSED("j\xff\xff\xff\xff.", "was not put");
    REFUSED("Nr\xff\xff\xff\xff.", "beyond the length of the file");
    REFUSED("Np99999999999999999999\n.", "no memo number");
    REFUSED("X\xff\xff\xff\xff"
            "a.",
            "ends inside a value");
    REFUSED("\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
            "a.",
            "ends inside a value");
    REFUSED("X\2\0\0\0\xff\xff.", "no valid UTF-8");
    REFUSED("S'abc", "ends inside a line");
    REFUSED("Sabc\n.", "without quotes");
    REFUSED("S'\n.", "without quotes");
    REFUSED("S'\\q'\n.", "unknown escape");
    REFUSED("S'\\x1'\n.", "unknown escape");
    REFUSED("S'\\'\n.", "unknown escape");
    REFUSED("V\\ud800\n.", "no valid Unicode");
    REFUSED("V\\ud800\\u0041\n.", "no valid Unicode");
    REFUSED("V\\u12\n.", "no valid Unicode");
    REFUSED("V\\U00110000\n.", "no valid Unicode");
    REFUSED("cos\nsystem\n(S'true'\ntR.",
            "refers to the Python object 'os system', which is not among those expected");
    REFUSED("\x80\4\x8c\2os\x8c\6system\x93.", "'os system'");
    REFUSED("\x80\4NN\x93.", "no text");
    REFUSED("(ios\nsystem\n.", "'os system'");
    REFUSED("cm\nC", "ends inside a line");
    REFUSED("N)R.", "calls something that has no name");
    REFUSED("cm\nC\n]R.", "something else than a tuple");
    REFUSED("cm\nC\n)}(NNu\x92.", "named arguments");
    REFUSED("(o.", "the stack is empty");
    REFUSED("NNb.", "a state to something that has none");
    REFUSED("ccollections\nOrderedDict\n(NtR.", "something else than pairs");
    REFUSED("ccollections\nOrderedDict\n((Nl(ltR.", "something else than pairs");
    REFUSED("ccollections\nOrderedDict\n((Nltl(tR.", "");
}

/* A hostile file can nest as deeply and name as often as it likes. */
static void hostile_pickles(void)
{
    str s = { 0 };
    pickle *p;
    for (int i = 0; i < 1000000; i++) str_putc(&s, '(');
    refused(s.data, s.bytes, "ends before");
    str_clear(&s);
    str_putc(&s, 'N');
    for (int i = 0; i < 1000000; i++) str_put(&s, "\x85");
    str_putc(&s, '.');
    p = open_bytes(s.data, s.bytes);
    CHECK(p != NULL);
    pickle_close(p);
    str_clear(&s); /* one long list of pairs made into an OrderedDict again and again */
    str_put(&s, "ccollections\nOrderedDict\nq\1](");
    for (int i = 0; i < 100000; i++) str_put(&s, "))\x86");
    str_put(&s, "e\x85q\2");
    for (int i = 0; i < 100000; i++) str_put(&s, "h\1h\2R0");
    str_put(&s, ".");
    refused(s.data, s.bytes, "more pairs than the file can hold");
    str_free(&s);
}

static sca_status pickle_work(void *user)
{
    const str *s = user;
    pickle *p;
    TRY(pickle_open(s->data, s->bytes, "FILE", allowed, &p, NULL));
    pickle_close(p);
    return SCA_OK;
}

static void pickle_faults(void)
{
    str s = { 0 };
    str_put(&s, "\x80\2]q\1(");
    for (int i = 0; i < 3000; i++) str_printf(&s, "(I%d\nX\3%c%c%cabcp%d\n", i, 0, 0, 0, i + 2);
    for (int i = 0; i < 3000; i++) str_putc(&s, 't');
    str_put(&s, "e.");
    CHECK(check_faults(fault_alloc, pickle_work, &s, "pickle") > 10);
    str_free(&s);
}

/* ---- zip: archives made here ------------------------------------------------------------------------- */

typedef struct part { /* one entry to write */
    const char *name, *text;
    bool deflate, descriptor, zip64;
} part;

static void put16(str *s, unsigned v) { str_put_bytes(s, (uint8_t[]){ v & 255, v >> 8 & 255 }, 2); }
static void put32(str *s, uint32_t v) { put16(s, v & 65535), put16(s, v >> 16); }
static void put64(str *s, uint64_t v) { put32(s, (uint32_t)v), put32(s, (uint32_t)(v >> 32)); }

static void put_packed(str *s, const part *p)
{
    z_stream z = { 0 };
    uint8_t out[65536];
    if (!p->deflate) {
        str_put(s, p->text);
        return;
    }
    deflateInit2(&z, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY);
    z.next_in = (z_const Bytef *)(uintptr_t)p->text;
    z.avail_in = (uInt)strlen(p->text);
    z.next_out = out;
    z.avail_out = sizeof out;
    deflate(&z, Z_FINISH);
    str_put_bytes(s, out, z.total_out);
    deflateEnd(&z);
}

/* An archive of the parts; offsets[i] is where the local header, records[i] where the directory record of part i
 * is. */
static void make_zip(str *s, const part *parts, size_t count, bool end64, size_t *offsets, size_t *records)
{
    size_t packed[16], directory;
    for (size_t i = 0; i < count; i++) {
        const part *p = &parts[i];
        str data = { 0 };
        put_packed(&data, p);
        uint32_t crc = (uint32_t)crc32(0, (const Bytef *)p->text, (uInt)strlen(p->text));
        offsets[i] = s->bytes;
        packed[i] = data.bytes;
        str_put(s, "PK\3\4");
        put16(s, 45), put16(s, p->descriptor ? 8 : 0), put16(s, p->deflate ? 8 : 0), put32(s, 0);
        put32(s, p->descriptor ? 0 : crc);
        put32(s, p->descriptor ? 0 : p->zip64 ? UINT32_MAX : (uint32_t)data.bytes);
        put32(s, p->descriptor ? 0 : p->zip64 ? UINT32_MAX : (uint32_t)strlen(p->text));
        put16(s, (unsigned)strlen(p->name)), put16(s, 0);
        str_put(s, p->name);
        str_put_bytes(s, data.data, data.bytes);
        if (p->descriptor)
            str_put(s, "PK\7\10"), put32(s, crc), put32(s, (uint32_t)packed[i]),
                put32(s, (uint32_t)strlen(p->text));
        str_free(&data);
    }
    directory = s->bytes;
    for (size_t i = 0; i < count; i++) {
        const part *p = &parts[i];
        records[i] = s->bytes;
        str_put(s, "PK\1\2");
        put16(s, 45), put16(s, 45), put16(s, p->descriptor ? 8 : 0), put16(s, p->deflate ? 8 : 0), put32(s, 0);
        put32(s, (uint32_t)crc32(0, (const Bytef *)p->text, (uInt)strlen(p->text)));
        put32(s, p->zip64 ? UINT32_MAX : (uint32_t)packed[i]);
        put32(s, p->zip64 ? UINT32_MAX : (uint32_t)strlen(p->text));
        put16(s, (unsigned)strlen(p->name)), put16(s, p->zip64 ? 34 : 0), put16(s, 3), put16(s, 0), put16(s, 0),
            put32(s, 0);
        put32(s, p->zip64 ? UINT32_MAX : (uint32_t)offsets[i]);
        str_put(s, p->name);
        if (p->zip64) {
            put16(s, 7), put16(s, 2), put16(s, 0); /* another field first */
            put16(s, 1), put16(s, 24), put64(s, strlen(p->text)), put64(s, packed[i]), put64(s, offsets[i]);
        }
        str_put(s, "...");
    }
    size_t end = s->bytes;
    if (end64) {
        str_put(s, "PK\6\6");
        put64(s, 44), put16(s, 45), put16(s, 45), put32(s, 0), put32(s, 0), put64(s, count), put64(s, count);
        put64(s, end - directory), put64(s, directory);
        str_put(s, "PK\6\7");
        put32(s, 0), put64(s, end), put32(s, 1);
    }
    str_put(s, "PK\5\6");
    put32(s, 0);
    put16(s, end64 ? 65535 : (unsigned)count), put16(s, end64 ? 65535 : (unsigned)count);
    put32(s, end64 ? UINT32_MAX : (uint32_t)(end - directory)), put32(s, end64 ? UINT32_MAX : (uint32_t)directory);
    put16(s, 7);
    str_put(s, "comment");
}

static void check_entry(const zip *z, const part *p)
{
    const zip_entry *e = zip_find(z, p->name);
    uint8_t *copy = NULL;
    const uint8_t *view = NULL;
    size_t bytes = strlen(p->text);
    CHECKF(e && e->bytes == bytes && e->method == (p->deflate ? 8 : 0), "entry %s", p->name);
    if (!e) return;
    CHECK_OK(zip_read(z, e, bytes, &copy));
    CHECKF(copy && memcmp(copy, p->text, bytes) == 0, "entry %s", p->name);
    mem_free(copy);
    if (bytes > 0) CHECK_FAILS(zip_read(z, e, bytes - 1, &copy), SCA_ERR_FORMAT, "expected at most");
    if (p->deflate) {
        CHECK_FAILS(zip_view(z, e, &view), SCA_ERR_UNSUPPORTED, "compressed");
    } else {
        CHECK_OK(zip_view(z, e, &view));
        CHECK(view && memcmp(view, p->text, bytes) == 0);
    }
}

static const char *long_text(void)
{
    static char text[20001];
    for (size_t i = 0; i < sizeof text - 1; i++) text[i] = (char)('a' + i * i / 7 % 23);
    return text;
}

static void archives(void)
{
    for (int options = 0; options < 16; options++) {
        part parts[] = { { .name = "m/data.pkl", .text = "pickle" },
                         { .name = "a", .text = long_text() },
                         { .name = "dir/", .text = "" },
                         { .name = "m/\xc3\xa9", .text = "x" } };
        for (size_t i = 0; i < LENGTH(parts); i++) {
            parts[i].deflate = options & 1 && i % 2;
            parts[i].descriptor = options & 2 && i != 1;
            parts[i].zip64 = options & 4 && i < 2;
        }
        str s = { 0 };
        size_t offsets[4], records[4];
        zip *z;
        make_zip(&s, parts, LENGTH(parts), options & 8, offsets, records);
        CHECK_OK(zip_open(s.data, s.bytes, "FILE", &z));
        if (z) {
            CHECK(zip_count(z) == LENGTH(parts) && strcmp(zip_at(z, 0)->name, "m/data.pkl") == 0 && !zip_at(z, 4));
            for (size_t i = 0; i < LENGTH(parts); i++) check_entry(z, &parts[i]);
            CHECK(!zip_find(z, "b") && !zip_find(z, "") && !zip_find(z, "zzz"));
        }
        zip_close(z);
        str_free(&s);
    }
    zip_close(NULL);
}

static void zip_refused(const str *s, const char *part_)
{
    zip *z;
    sca_status status = zip_open(s->data, s->bytes, "FILE", &z);
    CHECKF(status != SCA_OK && !z && strstr(sca_last_error(), part_) && text_starts(sca_last_error(), "FILE: "),
           "%s '%s', expected '%s'", sca_status_name(status), sca_last_error(), part_);
    zip_close(z);
}

/* Changes `count` bytes at `at`, expects a refusal, puts them back. */
static void spoiled(str *s, size_t at, const void *bytes, size_t count, const char *part_)
{
    char kept[16];
    memcpy(kept, s->data + at, count);
    memcpy(s->data + at, bytes, count);
    zip_refused(s, part_);
    memcpy(s->data + at, kept, count);
}

static void damaged_archives(void)
{
    const part parts[] = { { .name = "one", .text = "11111" }, { .name = "two", .text = "22222" } };
    str s = { 0 };
    size_t o[2], r[2];
    make_zip(&s, parts, 2, false, o, r);
    size_t end = s.bytes - 29;
    spoiled(&s, r[0], "X", 1, "damaged zip directory at entry 0");
    spoiled(&s, r[0] + 8, "\1", 1, "'one' is encrypted");
    spoiled(&s, r[0] + 20, "\6", 1, "'one' is stored with two different sizes");
    spoiled(&s, r[0] + 20, "\xff\xff\xff\x7f\xff\xff\xff\x7f", 8, "reaches beyond");
    spoiled(&s, r[0] + 20, "\xff\xff\xff\xff", 4, "'one' lacks its zip64 sizes");
    spoiled(&s, r[0] + 28, "\0\0", 2, "expected a relative path");
    spoiled(&s, r[0] + 28, "\xff\xff", 2, "the zip directory ends in entry 0");
    spoiled(&s, r[0] + 42, "\1", 1, "'one' has no local header");
    spoiled(&s, r[0] + 42, "\xff\xff\xff\x7f", 4, "'one' has no local header");
    spoiled(&s, r[0] + 46, "/", 1, "the name '/ne', expected a relative path");
    spoiled(&s, r[0] + 46, "\0", 1, "expected a relative path");
    spoiled(&s, r[0] + 46, "\xff", 1, "expected a relative path");
    spoiled(&s, r[0] + 46, "../", 3, "expected a relative path");
    spoiled(&s, r[0] + 46, "x", 1, "'xne' has a local header that differs");
    spoiled(&s, r[0] + 16, "x", 1, "differs from the directory");
    spoiled(&s, o[0] + 14, "x", 1, "differs from the directory");
    spoiled(&s, o[0] + 8, "\10", 1, "differs from the directory");
    spoiled(&s, o[0] + 6, "\1", 1, "differs from the directory");
    spoiled(&s, r[1] + 42, "\0", 1, "'two' has a local header that differs");
    spoiled(&s, end, "X", 1, "no end of a zip directory");
    spoiled(&s, end + 4, "\1", 1, "one of several parts");
    spoiled(&s, end + 8, "\3", 1, "one of several parts");
    spoiled(&s, end + 8, "\3\0\3", 3, "does not fit");
    spoiled(&s, end + 8, "\xff\xff\xff\xff", 4, "does not fit");
    spoiled(&s, end + 12, "\xff\xff\xff\xff", 4, "does not fit");
    spoiled(&s, end + 16, "\xff\xff\xff\xff", 4, "does not fit");
    spoiled(&s, end + 20, "\6", 1, "no end of a zip directory");
    for (size_t n = 0; n < s.bytes; n++) { /* cut anywhere */
        str cut = { .data = s.data, .bytes = n };
        zip_refused(&cut, "no end of a zip directory");
    }
    str_free(&s);
}

static void overlapping_and_doubled(void)
{
    str s = { 0 };
    size_t o[3], r[3];
    const part same[] = { { .name = "one", .text = "1" },
                          { .name = "two", .text = "2" },
                          { .name = "one", .text = "3" } };
    make_zip(&s, same, 3, false, o, r);
    zip_refused(&s, "'one' is there twice");
    str_clear(&s);
    /* One entry inside another, as archives that expand without end are built. */
    str inner = { 0 };
    const part one[] = { { .name = "in", .text = "x" } };
    make_zip(&inner, one, 1, false, o, r);
    inner.data[r[0]] = 0; /* as text it ends behind the local header and the data... */
    str_clear(&s);
    char text[64];
    memset(text, '-', sizeof text - 1), text[63] = 0;
    const part outer[] = { { .name = "out", .text = text }, { .name = "in", .text = "x" } };
    make_zip(&s, outer, 2, false, o, r);
    memcpy(s.data + o[0] + 33 + 4, inner.data, 33); /* ...which now lie inside the first entry */
    s.data[r[1] + 42] = (char)(o[0] + 33 + 4);
    zip_refused(&s, "'in' overlaps another one");
    str_free(&inner);
    str_free(&s);
}

static void end64_damaged(void)
{
    const part parts[] = { { .name = "one", .text = "1", .zip64 = true } };
    str s = { 0 };
    size_t o[1], r[1];
    make_zip(&s, parts, 1, true, o, r);
    size_t locator = s.bytes - 29 - 20, end64 = locator - 56;
    spoiled(&s, locator + 8, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "damaged zip64 directory end");
    spoiled(&s, locator + 4, "\1", 1, "damaged zip64 directory end");
    spoiled(&s, end64, "X", 1, "damaged zip64 directory end");
    spoiled(&s, end64 + 24, "\2", 1, "one of several parts");
    spoiled(&s, end64 + 40, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "does not fit");
    spoiled(&s, end64 + 48, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "does not fit");
    spoiled(&s, r[0] + 46 + 3 + 6 + 2, "\x10", 1, "lacks its zip64 sizes");
    spoiled(&s, r[0] + 46 + 3 + 6, "\2", 1, "lacks its zip64 sizes");
    spoiled(&s, r[0] + 46 + 3 + 6 + 4 + 16, "\xff\xff\xff\xff\xff\xff\xff\xff", 8, "has no local header");
    str_free(&s);
}

static void damaged_entries(void)
{
    part parts[] = { { .name = "stored", .text = "stored text" },
                     { .name = "packed", .text = long_text(), .deflate = true } };
    str s = { 0 };
    size_t o[2], r[2];
    uint8_t *copy;
    const uint8_t *view;
    zip *z;
    make_zip(&s, parts, 2, false, o, r);
    s.data[o[0] + 30 + 6] ^= 1;
    CHECK_OK(zip_open(s.data, s.bytes, "FILE", &z));
    CHECK_FAILS(zip_view(z, zip_at(z, 0), &view), SCA_ERR_FORMAT, "'stored' is damaged");
    CHECK_FAILS(zip_read(z, zip_at(z, 0), 1000, &copy), SCA_ERR_FORMAT, "'stored' is damaged");
    const zip_entry *e = zip_at(z, 1);
    for (uint64_t i = 0; i < e->bytes_packed; i += e->bytes_packed / 97 + 1) {
        s.data[e->offset + i] ^= 0x10;
        CHECK_FAILS(zip_read(z, e, 1 << 20, &copy), SCA_ERR_FORMAT, "'packed' is damaged");
        s.data[e->offset + i] ^= 0x10;
    }
    zip_close(z);
    /* A size that is one too small or too large, or beyond what deflate can do. */
    for (int delta = -1; delta <= 1; delta += 2) {
        for (int at = 0; at < 2; at++)
            s.data[(at ? r[1] + 24 : o[1] + 22)] = (char)(s.data[(at ? r[1] + 24 : o[1] + 22)] + delta);
        CHECK_OK(zip_open(s.data, s.bytes, "FILE", &z));
        CHECK_FAILS(zip_read(z, zip_at(z, 1), 1 << 20, &copy), SCA_ERR_FORMAT, "does not inflate to its size");
        zip_close(z);
        for (int at = 0; at < 2; at++)
            s.data[(at ? r[1] + 24 : o[1] + 22)] = (char)(s.data[(at ? r[1] + 24 : o[1] + 22)] - delta);
    }
    s.data[o[1] + 25] = s.data[r[1] + 27] = 0x7f;
    CHECK_OK(zip_open(s.data, s.bytes, "FILE", &z));
    CHECK_FAILS(zip_read(z, zip_at(z, 1), SIZE_MAX, &copy), SCA_ERR_FORMAT, "cannot have the size it claims");
    zip_close(z);
    s.data[o[1] + 25] = s.data[r[1] + 27] = 0;
    s.data[o[1] + 8] = s.data[r[1] + 10] = 12;
    CHECK_OK(zip_open(s.data, s.bytes, "FILE", &z));
    CHECK_FAILS(zip_read(z, zip_at(z, 1), SIZE_MAX, &copy), SCA_ERR_UNSUPPORTED, "compression method 12");
    zip_close(z);
    str_free(&s);
}

static void many_entries(void)
{
    str s = { 0 };
    size_t o[16], r[16];
    part parts[16] = { { 0 } };
    char names[16][8];
    zip *z;
    for (size_t n = 0; n <= 16; n++) { /* every count and order that sorting and searching may meet */
        for (size_t i = 0; i < n; i++) {
            snprintf(names[i], sizeof names[i], "%zu", (i * 37 + 5) % 101);
            parts[i] = (part){ .name = names[i], .text = names[i] };
        }
        str_clear(&s);
        make_zip(&s, parts, n, false, o, r);
        CHECK_OK(zip_open(s.data, s.bytes, "FILE", &z));
        for (size_t i = 0; z && i < n; i++) check_entry(z, &parts[i]);
        zip_close(z);
    }
    str_free(&s);
}

static sca_status zip_work(void *user)
{
    const str *s = user;
    zip *z;
    uint8_t *copy;
    TRY(zip_open(s->data, s->bytes, "FILE", &z));
    sca_status status = SCA_OK;
    for (size_t i = 0; status == SCA_OK && i < zip_count(z); i++) {
        status = zip_read(z, zip_at(z, i), 1 << 20, &copy);
        mem_free(copy);
    }
    zip_close(z);
    return status;
}

static void zip_faults(void)
{
    const part parts[] = { { .name = "a", .text = "1" }, { .name = "b", .text = long_text(), .deflate = true } };
    str s = { 0 };
    size_t o[2], r[2];
    make_zip(&s, parts, 2, true, o, r);
    CHECK(check_faults(fault_alloc, zip_work, &s, "zip") >= 9);
    str_free(&s);
}

/* ---- checkpoints as PyTorch wrote them --------------------------------------------------------------- */

static void check_checkpoint(const char *name, const char *prefix, size_t tensors)
{
    char path[512], entry[128];
    file_view v;
    zip *z = NULL;
    pickle *p = NULL;
    const uint8_t *data;
    snprintf(path, sizeof path, "%s/golden/models/%s", SCA_SHARED, name);
    CHECK_OK(file_map(path, &v));
    CHECK_OK(zip_open(v.data, v.bytes, path, &z));
    snprintf(entry, sizeof entry, "%s/data.pkl", prefix);
    const zip_entry *e = z ? zip_find(z, entry) : NULL;
    CHECKF(e != NULL, "%s: no %s", path, entry);
    if (e) CHECK_OK(zip_view(z, e, &data));
    if (e) CHECK_OK(pickle_open(data, (size_t)e->bytes, path, allowed, &p, NULL));
    const pickle_value *d = p ? pickle_root(p) : NULL;
    CHECKF(d && d->type == PICKLE_DICT && d->count == 2 * tensors, "%s: %zu tensors", path, d ? d->count / 2 : 0);
    for (size_t i = 1; d && i < d->count; i += 2) {
        const pickle_value *id = d->items[i]->items[1]->items[0]->items[0];
        snprintf(entry, sizeof entry, "%s/data/%s", prefix, id->items[2]->text);
        e = zip_find(z, entry);
        CHECKF(e && e->bytes == 4 * (uint64_t)id->items[4]->integer && zip_view(z, e, &data) == SCA_OK, "%s: %s",
               path, entry);
    }
    pickle_close(p);
    zip_close(z);
    file_unmap(&v);
}

static void golden_checkpoints(void)
{
    if (!dir_exists(SCA_SHARED "/golden/models")) {
        check_skip("shared: ../shared is absent");
        return;
    }
    check_checkpoint("gpt2-tiny-bin/pytorch_model.bin", "pytorch_model", 366);
    check_checkpoint("parts/sam_tiny.pth", "sam_tiny", 202);
    check_checkpoint("gpt2-tiny-fresh/pytorch_model-00001-of-00004.bin", "pytorch_model-00001-of-00004", 64);
}

/* The format before zip: a magic number and a version, then the pickles one after the other. */
static void golden_legacy(void)
{
    char path[512];
    file_view v;
    snprintf(path, sizeof path, "%s/golden/models/gpt2-tiny-legacy/pytorch_model.bin", SCA_SHARED);
    if (!file_exists(path)) {
        check_skip("shared: ../shared is absent");
        return;
    }
    CHECK_OK(file_map(path, &v));
    size_t at = 15, used;         /* behind the magic number, which is beyond 64 bits */
    for (int i = 0; i < 4; i++) { /* the version, the machine, the state, the names of the storages */
        pickle *p = NULL;
        CHECK_OK(pickle_open(v.data + at, v.bytes - at, path, allowed, &p, &used));
        if (!p) break;
        const pickle_value *root = pickle_root(p);
        CHECK(i != 0 || is_int(root, 1001));
        CHECK(i == 0 || i == 3 || (root->type == PICKLE_DICT && root->count >= 6));
        CHECK(i != 3 || (root->type == PICKLE_LIST && root->items[0]->type == PICKLE_TEXT));
        at += used;
        pickle_close(p);
    }
    file_unmap(&v);
}

int main(int argc, char **argv)
{
    RUN(all_protocols);
    RUN(python2);
    RUN(torch_objects);
    RUN(calls);
    RUN(stack_and_memo);
    RUN(integers);
    RUN(damaged_pickles);
    RUN(hostile_pickles);
    RUN(pickle_faults);
    RUN(archives);
    RUN(damaged_archives);
    RUN(overlapping_and_doubled);
    RUN(end64_damaged);
    RUN(damaged_entries);
    RUN(many_entries);
    RUN(zip_faults);
    RUN(golden_checkpoints);
    RUN(golden_legacy);
    return check_done();
}
