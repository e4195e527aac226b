/* yaml.c - libyaml's events made into a tree, and scalars written so that they read back. */
#include "base/yaml.h"

#include <string.h>
#include <yaml.h>

enum { ANCHORS_MOST = 256 };

typedef struct builder {
    yaml_parser_t parser;
    yaml_event_t event; /* the current one; deleted when the next is fetched */
    bool has_event;
    const char *name;
    yaml_tree *tree;
    struct {
        char *name;
        yaml_value *value;
    } anchors[ANCHORS_MOST];
    size_t n_anchors;
} builder;

static sca_status fail_at(const builder *b, size_t line, const char *what)
{
    return status_fail(SCA_ERR_FORMAT, "%s: line %zu: %s", b->name, line + 1, what);
}

static sca_status next_event(builder *b)
{
    if (b->has_event) yaml_event_delete(&b->event);
    b->has_event = yaml_parser_parse(&b->parser, &b->event) == 1;
    if (b->has_event) return SCA_OK;
    if (b->parser.error == YAML_MEMORY_ERROR) return mem_fail(0, b->name);
    size_t line = b->parser.error == YAML_READER_ERROR ? b->parser.mark.line : b->parser.problem_mark.line;
    return fail_at(b, line, b->parser.problem ? b->parser.problem : "is no YAML");
}

static sca_status new_value(builder *b, yaml_type type, yaml_value **out)
{
    yaml_value *v = *out = mem_zero(1, sizeof *v);
    if (!v) return mem_fail(sizeof *v, b->name);
    v->type = type;
    v->line = b->event.start_mark.line + 1;
    v->next = b->tree->owned;
    b->tree->owned = v;
    return SCA_OK;
}

/* Takes key over, also when it fails. */
static sca_status add_item(builder *b, yaml_value *to, char *key, size_t line, yaml_value *value)
{
    if (to->count == to->cap) {
        size_t cap = to->cap ? 2 * to->cap : 4;
        yaml_item *items = mem_resize(to->items, cap * sizeof *items);
        if (!items) {
            mem_free(key);
            return mem_fail(cap * sizeof *items, b->name);
        }
        to->items = items;
        to->cap = cap;
    }
    to->items[to->count++] = (yaml_item){ .key = key, .line = line, .value = value };
    return SCA_OK;
}

/* A copy of the current scalar event. */
static sca_status take_scalar(builder *b, char **out)
{
    const char *text = (const char *)b->event.data.scalar.value;
    size_t bytes = b->event.data.scalar.length;
    if (b->event.data.scalar.tag) return fail_at(b, b->event.start_mark.line, "tags (!...) are not understood");
    if (memchr(text, 0, bytes)) return fail_at(b, b->event.start_mark.line, "a text contains a 0 character");
    *out = text_copy(text, bytes);
    return *out ? SCA_OK : mem_fail(bytes, b->name);
}

static sca_status build(builder *b, size_t depth, yaml_value **out);

static sca_status build_scalar(builder *b, yaml_value **out)
{
    TRY(new_value(b, YAML_SCALAR, out));
    (*out)->plain = b->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return take_scalar(b, &(*out)->text);
}

static sca_status build_list(builder *b, size_t depth, yaml_value **out)
{
    if (b->event.data.sequence_start.tag)
        return fail_at(b, b->event.start_mark.line, "tags (!...) are not understood");
    TRY(new_value(b, YAML_LIST, out));
    for (;;) {
        yaml_value *value;
        TRY(next_event(b));
        if (b->event.type == YAML_SEQUENCE_END_EVENT) return SCA_OK;
        size_t line = b->event.start_mark.line + 1;
        TRY(build(b, depth + 1, &value));
        TRY(add_item(b, *out, NULL, line, value));
    }
}

static sca_status take_key(builder *b, const yaml_value *map, char **key)
{
    size_t line = b->event.start_mark.line;
    if (b->event.type != YAML_SCALAR_EVENT) return fail_at(b, line, "expected a plain key");
    TRY(take_scalar(b, key));
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->items[i].key, *key) == 0) {
            sca_status status =
                status_fail(SCA_ERR_FORMAT, "%s: line %zu: key '%s' is there twice", b->name, line + 1, *key);
            mem_free(*key);
            return status;
        }
    return SCA_OK;
}

static sca_status build_map(builder *b, size_t depth, yaml_value **out)
{
    if (b->event.data.mapping_start.tag)
        return fail_at(b, b->event.start_mark.line, "tags (!...) are not understood");
    TRY(new_value(b, YAML_MAP, out));
    for (;;) {
        yaml_value *value;
        char *key;
        TRY(next_event(b));
        if (b->event.type == YAML_MAPPING_END_EVENT) return SCA_OK;
        if ((*out)->count == 1000) return fail_at(b, b->event.start_mark.line, "more than 1000 keys");
        size_t line = b->event.start_mark.line + 1;
        TRY(take_key(b, *out, &key));
        sca_status status = next_event(b);
        if (status == SCA_OK) status = build(b, depth + 1, &value);
        if (status != SCA_OK) {
            mem_free(key);
            return status;
        }
        TRY(add_item(b, *out, key, line, value));
    }
}

static sca_status find_alias(builder *b, yaml_value **out)
{
    const char *name = (const char *)b->event.data.alias.anchor;
    for (size_t i = b->n_anchors; i-- > 0;) /* the latest of that name */
        if (strcmp(b->anchors[i].name, name) == 0) {
            *out = b->anchors[i].value;
            return SCA_OK;
        }
    return status_fail(SCA_ERR_FORMAT, "%s: line %zu: no finished value is called '&%s' above", b->name,
                       b->event.start_mark.line + 1, name);
}

/* The anchor of the current event, NULL if none; to be freed. */
static sca_status take_anchor(builder *b, char **out)
{
    const yaml_event_t *e = &b->event;
    const yaml_char_t *anchor = e->type == YAML_SCALAR_EVENT           ? e->data.scalar.anchor
                                : e->type == YAML_SEQUENCE_START_EVENT ? e->data.sequence_start.anchor
                                : e->type == YAML_MAPPING_START_EVENT  ? e->data.mapping_start.anchor
                                                                       : NULL;
    *out = NULL;
    if (!anchor) return SCA_OK;
    if (b->n_anchors == ANCHORS_MOST) return fail_at(b, e->start_mark.line, "too many anchors");
    *out = text_copy((const char *)anchor, strlen((const char *)anchor));
    return *out ? SCA_OK : mem_fail(0, b->name);
}

/* The value that begins with the current event. An anchor counts once its value is complete, so no value contains
 * itself. */
static sca_status build(builder *b, size_t depth, yaml_value **out)
{
    char *anchor;
    size_t line = b->event.start_mark.line;
    if (depth > YAML_DEPTH) return fail_at(b, line, "nested too deeply");
    TRY(take_anchor(b, &anchor));
    sca_status status;
    switch (b->event.type) {
    case YAML_SCALAR_EVENT: status = build_scalar(b, out); break;
    case YAML_SEQUENCE_START_EVENT: status = build_list(b, depth, out); break;
    case YAML_MAPPING_START_EVENT: status = build_map(b, depth, out); break;
    case YAML_ALIAS_EVENT: status = find_alias(b, out); break;
    default: status = fail_at(b, line, "expected a value"); break;
    }
    if (!anchor) return status;
    /* What was nested may have used the room for the last one. */
    if (status == SCA_OK && b->n_anchors == ANCHORS_MOST) status = fail_at(b, line, "too many anchors");
    if (status != SCA_OK) {
        mem_free(anchor);
        return status;
    }
    b->anchors[b->n_anchors].name = anchor;
    b->anchors[b->n_anchors++].value = *out;
    return SCA_OK;
}

static sca_status build_stream(builder *b)
{
    TRY(next_event(b)); /* stream start */
    TRY(next_event(b));
    if (b->event.type == YAML_STREAM_END_EVENT) return SCA_OK;
    TRY(next_event(b)); /* past the document's start */
    TRY(build(b, 1, &b->tree->root));
    TRY(next_event(b)); /* the document's end */
    TRY(next_event(b));
    if (b->event.type == YAML_STREAM_END_EVENT) return SCA_OK;
    return fail_at(b, b->event.start_mark.line, "expected one document only");
}

sca_status yaml_tree_read(const char *text, size_t bytes, const char *name, yaml_tree *out)
{
    *out = (yaml_tree){ 0 };
    builder *b = mem_zero(1, sizeof *b);
    if (!b) return mem_fail(sizeof *b, name);
    b->name = name;
    b->tree = out;
    sca_status status;
    if (yaml_parser_initialize(&b->parser)) {
        /* Given by name, a byte order mark cannot turn the text into UTF-16. */
        yaml_parser_set_encoding(&b->parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&b->parser, (const unsigned char *)text, bytes);
        status = build_stream(b);
        if (b->has_event) yaml_event_delete(&b->event);
        yaml_parser_delete(&b->parser);
    } else {
        status = mem_fail(0, name);
    }
    for (size_t i = 0; i < b->n_anchors; i++) mem_free(b->anchors[i].name);
    mem_free(b);
    return status;
}

void yaml_tree_free(yaml_tree *t)
{
    for (yaml_value *v = t->owned, *next; v; v = next) {
        next = v->next;
        for (size_t i = 0; i < v->count; i++) mem_free(v->items[i].key);
        mem_free(v->items);
        mem_free(v->text);
        mem_free(v);
    }
    *t = (yaml_tree){ 0 };
}

/* ---- writing ----------------------------------------------------------------------------------------- */

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Words and paths that no YAML reader takes for a number, a truth value or null. */
static bool is_plain(const char *text)
{
    static const char *const words[] = { "null", "true", "false", "yes", "no", "on", "off", "y", "n" };
    if (!is_letter(text[0]) && text[0] != '/') return false;
    for (const char *p = text; *p; p++)
        if (!is_letter(*p) && (*p < '0' || *p > '9') && !strchr("_-./", *p)) return false;
    for (size_t i = 0; i < LENGTH(words); i++)
        if (strcasecmp(text, words[i]) == 0) return false;
    return true;
}

/* Code points that a YAML stream may not or should not contain as they are. */
static bool must_escape(int32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 || code == 0xfeff ||
           code == 0xfffe || code == 0xffff;
}

void yaml_put_text(str *s, const char *text)
{
    if (is_plain(text)) {
        str_put(s, text);
        return;
    }
    str_putc(s, '"');
    size_t bytes = strlen(text);
    for (size_t i = 0; i < bytes;) {
        size_t begin = i;
        int32_t code = utf8_next(text, bytes, &i);
        if (code < 0)
            str_put(s, "\xef\xbf\xbd");
        else if (code == '"' || code == '\\')
            str_printf(s, "\\%c", (char)code);
        else if (must_escape(code))
            str_printf(s, "\\u%04X", (unsigned)code);
        else
            str_put_bytes(s, text + begin, i - begin);
    }
    str_putc(s, '"');
}

void yaml_put_real(str *s, double value)
{
    str digits = { 0 };
    json_put_real(&digits, value);
    size_t mantissa = strcspn(str_text(&digits), "e");
    str_put_bytes(s, str_text(&digits), mantissa);
    if (!memchr(str_text(&digits), '.', mantissa)) str_put(s, ".0");
    str_put(s, str_text(&digits) + mantissa);
    s->failed |= digits.failed;
    str_free(&digits);
}
