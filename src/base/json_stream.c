/* json_stream.c - JSON files of any size, one element at a time. */
#include "base/json_scan.h"

#include <string.h>

typedef struct stream {
    scan s;
    json_item_fn *fn;
    void *user;
    json_t *item; /* the last one, whose memory the next one takes */
    file_view file;
    size_t behind; /* bytes that have been given back */
} stream;

/* A mapped file counts as memory of the program: what lies behind is given back. */
static void give_back(stream *t)
{
    enum { STEP = 4 << 20 };
    size_t whole = t->s.at / STEP * STEP;
    if (whole == t->behind) return;
    file_forget(&t->file, t->behind, whole - t->behind);
    t->behind = whole;
}

static sca_status read_value(stream *t, size_t around)
{
    bool done;
    TRY(json_refill(&t->s, around, &t->item, &done));
    if (done) return SCA_OK;
    size_t begin = t->s.at;
    TRY(scan_value(&t->s, around));
    if (t->s.at == begin) return scan_fail(&t->s, begin, "expected a value");
    return scan_load(&t->s, begin, &t->item);
}

/* Reads the value that follows and hands it over. */
static sca_status pass_value(stream *t, const char *key, int64_t index, size_t around)
{
    scan_space(&t->s);
    TRY(read_value(t, around));
    give_back(t);
    sca_status status = t->fn(t->user, key, index, t->item);
    return status == SCA_OK ? SCA_OK : status_context(status, "%s", t->s.name);
}

static sca_status pass_array(stream *t, const char *key, size_t around)
{
    scan *s = &t->s;
    s->at++;
    if (scan_peek(s) == ']') return s->at++, SCA_OK;
    for (int64_t index = 0;; index++) {
        TRY(pass_value(t, key, index, around));
        char c = scan_peek(s);
        if (c != ',' && c != ']') return scan_fail(s, s->at, "expected ',' or ']'");
        s->at++;
        if (c == ']') return SCA_OK;
    }
}

/* Reads "KEY": and adds the key to `seen`; *key is borrowed from there. */
static sca_status next_key(stream *t, json_t *seen, const char **key)
{
    scan *s = &t->s;
    json_t *text;
    if (scan_peek(s) != '"') return scan_fail(s, s->at, "expected a key in quotes");
    size_t begin = s->at;
    scan_string(s);
    TRY(scan_load(s, begin, &text));
    bool plain = strlen(json_string_value(text)) == json_string_length(text);
    bool fresh = plain && !json_object_get(seen, json_string_value(text));
    bool kept = fresh && json_object_set_new(seen, json_string_value(text), json_true()) == 0;
    if (kept) *key = json_object_iter_key(json_object_iter_at(seen, json_string_value(text)));
    json_decref(text);
    if (!plain) return scan_fail(s, begin, "a key contains a 0 character");
    if (!fresh) return scan_fail(s, begin, "this key is there twice");
    if (!kept) return mem_fail(s->at - begin, s->name);
    if (scan_peek(s) != ':') return scan_fail(s, s->at, "expected ':'");
    s->at++;
    return SCA_OK;
}

static sca_status pass_members(stream *t, json_t *seen)
{
    scan *s = &t->s;
    s->at++;
    if (scan_peek(s) == '}') return s->at++, SCA_OK;
    for (;;) {
        const char *key = NULL;
        TRY(next_key(t, seen, &key));
        TRY(scan_peek(s) == '[' ? pass_array(t, key, 2) : pass_value(t, key, -1, 1));
        char c = scan_peek(s);
        if (c != ',' && c != '}') return scan_fail(s, s->at, "expected ',' or '}'");
        s->at++;
        if (c == '}') return SCA_OK;
    }
}

static sca_status pass_object(stream *t)
{
    json_prepare();
    json_t *seen = json_object();
    if (!seen) return mem_fail(0, t->s.name);
    sca_status status = pass_members(t, seen);
    json_decref(seen);
    return status;
}

sca_status json_stream(const char *path, json_item_fn *fn, void *user)
{
    stream t = { .fn = fn, .user = user };
    TRY(file_map(path, &t.file));
    t.s = (scan){ .text = (const char *)t.file.data, .name = path, .bytes = t.file.bytes };
    char c = scan_peek(&t.s);
    sca_status status = c == '['   ? pass_array(&t, NULL, 1)
                        : c == '{' ? pass_object(&t)
                                   : scan_fail(&t.s, t.s.at, "expected a list or an object");
    if (status == SCA_OK) {
        scan_space(&t.s);
        if (t.s.at < t.s.bytes) status = scan_fail(&t.s, t.s.at, "expected the end of the file");
    }
    json_decref(t.item);
    file_unmap(&t.file);
    return status;
}
