/* config_text.c - settings as text: assignments, single values, the dump that reads back, the help. */
#include "base/config.h"

#include <stdio.h>
#include <string.h>

static const void *member(const config *c, size_t offset) { return (const char *)c + offset; }

/* The setting that key names or NULL, and what follows it ("0.weight" of "data.train.0.weight"), NULL when nothing
 * does. */
static const setting *find_setting(const char *key, const char **rest)
{
    for (size_t i = 0; i < config_n_settings; i++) {
        const setting *s = &config_settings[i];
        size_t n = strlen(s->key);
        if (strncmp(key, s->key, n) != 0 || (key[n] != 0 && key[n] != '.')) continue;
        *rest = key[n] ? key + n + 1 : NULL;
        return s;
    }
    return NULL;
}

static sca_status no_parts(const char *key, const setting *s)
{
    return status_fail(SCA_ERR_ARGUMENT, "'%s': %s has no parts", key, s->key);
}

/* ---- output ------------------------------------------------------------------------------------------ */

static void put_dataset(str *s, const config_dataset *d)
{
    const char *between = "";
    str_putc(s, '{');
    for (size_t i = 0; i < config_n_fields; i++) {
        const char *text = (const char *)d + config_fields[i].offset;
        if (*text == 0) continue;
        str_printf(s, "%s%s: ", between, config_fields[i].name);
        yaml_put_text(s, text);
        between = ", ";
    }
    if (d->weight != 0) {
        str_printf(s, "%sweight: ", between);
        yaml_put_real(s, d->weight);
    }
    str_putc(s, '}');
}

static void put_list(str *s, const config *c, const setting *set)
{
    const void *items = set->kind == KIND_REALS ? member(c, set->offset) : *(void *const *)member(c, set->offset);
    size_t count = set->kind == KIND_REALS ? set->count : *(const size_t *)member(c, set->count);
    char *const *keys = set->kind == KIND_RATES ? *(char *const *const *)member(c, set->keys) : NULL;
    str_putc(s, keys || set->kind == KIND_RATES ? '{' : '[');
    for (size_t i = 0; i < count; i++) {
        if (i > 0) str_put(s, ", ");
        if (keys) {
            yaml_put_text(s, keys[i]);
            str_put(s, ": ");
        }
        if (set->kind == KIND_NAMES)
            yaml_put_text(s, ((char *const *)items)[i]);
        else if (set->kind == KIND_DATASETS)
            put_dataset(s, (const config_dataset *)items + i);
        else
            yaml_put_real(s, ((const double *)items)[i]);
    }
    str_putc(s, set->kind == KIND_RATES ? '}' : ']');
}

/* The value as YAML on one line. */
static void put_value(str *s, const config *c, const setting *set)
{
    const void *at = member(c, set->offset);
    switch (set->kind) {
    case KIND_INT: str_printf(s, "%lld", (long long)*(const int64_t *)at); return;
    case KIND_REAL: yaml_put_real(s, *(const double *)at); return;
    case KIND_BOOL: str_put(s, *(const bool *)at ? "true" : "false"); return;
    case KIND_TEXT:
    case KIND_ENUM: yaml_put_text(s, at); return;
    case KIND_NAMES:
    case KIND_RATES:
    case KIND_REALS:
    case KIND_DATASETS: put_list(s, c, set); return;
    }
}

static void put_datasets(str *s, const config *c, const setting *set)
{
    const config_dataset *sets = *(config_dataset *const *)member(c, set->offset);
    size_t count = *(const size_t *)member(c, set->count);
    for (size_t i = 0; i < count; i++) {
        str_put(s, "\n    - ");
        put_dataset(s, &sets[i]);
    }
    if (count == 0) str_put(s, " []");
}

sca_status config_dump(const config *c, str *yaml)
{
    const char *section = "";
    for (size_t i = 0; i < config_n_settings; i++) {
        const setting *s = &config_settings[i];
        if (strcmp(s->section, section) != 0) str_printf(yaml, "%s:\n", section = s->section);
        str_printf(yaml, "  %s:", s->name);
        if (s->kind == KIND_DATASETS) {
            put_datasets(yaml, c, s);
        } else {
            str_putc(yaml, ' ');
            put_value(yaml, c, s);
        }
        str_putc(yaml, '\n');
    }
    return yaml->failed ? mem_fail(yaml->bytes, "the settings as text") : SCA_OK;
}

static void put_type(str *s, const setting *set)
{
    switch (set->kind) {
    case KIND_INT:
        str_printf(s, "integer from %lld to %lld", (long long)set->least_int, (long long)set->most_int);
        return;
    case KIND_REAL: str_printf(s, "number from %.9g to %.9g", set->least, set->most); return;
    case KIND_BOOL: str_put(s, "true or false"); return;
    case KIND_TEXT: str_put(s, "text"); return;
    case KIND_ENUM: str_put(s, set->choices); return;
    case KIND_NAMES: str_put(s, "list of names"); return;
    case KIND_RATES: str_put(s, "map of names to numbers"); return;
    case KIND_REALS: str_printf(s, "list of %zu numbers", set->count); return;
    case KIND_DATASETS: str_put(s, "list of data sets"); return;
    }
}

void config_help(str *text)
{
    str_put(text, "include\n    file name or list of them, relative to the including file; read before it\n");
    for (size_t i = 0; i < config_n_settings; i++) {
        const setting *s = &config_settings[i];
        str_printf(text, "%s=%s\n    %s\n    ", s->key, s->value, s->help);
        put_type(text, s);
        str_putc(text, '\n');
    }
}

/* ---- parts of lists ---------------------------------------------------------------------------------- */

/* Lists change by way of their text: as a tree their parts are found and replaced alike, whatever the kind, and the
 * result passes the same checks as a file. */
static sca_status read_tree(const config *c, const setting *s, yaml_tree *tree)
{
    str text = { 0 };
    *tree = (yaml_tree){ 0 };
    put_value(&text, c, s);
    sca_status status =
        text.failed ? mem_fail(text.bytes, s->key) : yaml_tree_read(str_text(&text), text.bytes, s->key, tree);
    str_free(&text);
    return status;
}

static yaml_value *tree_value(yaml_tree *tree, yaml_type type)
{
    yaml_value *v = mem_zero(1, sizeof *v);
    if (!v) return NULL;
    v->type = type;
    v->plain = true;
    v->next = tree->owned;
    tree->owned = v;
    return v;
}

/* One more item with an empty value; NULL when out of memory. */
static yaml_item *add_item(yaml_tree *tree, yaml_value *to, const char *key, yaml_type type)
{
    yaml_item *items = mem_resize(to->items, (to->count + 1) * sizeof *items);
    if (!items) return NULL;
    to->items = items;
    items[to->count] = (yaml_item){ .value = tree_value(tree, type) };
    if (!items[to->count].value) return NULL;
    if (key && !(items[to->count].key = text_copy(key, strlen(key)))) return NULL;
    return &items[to->count++];
}

/* Item `part` (part_bytes long) of v. With grow it is made when it is the next one of a list or a new key of a map.
 */
static sca_status find_item(yaml_tree *tree, yaml_value *v, const char *key, const char *part, bool grow,
                            yaml_type type, yaml_item **out)
{
    size_t i = 0;
    int64_t index = -1;
    if (v->type == YAML_LIST) {
        if (!text_to_int(part, 0, (int64_t)v->count - !grow, &index))
            return status_fail(SCA_ERR_ARGUMENT, "'%s': no item '%s'; the list has %zu, counted from 0", key, part,
                               v->count);
        i = (size_t)index;
    } else {
        while (i < v->count && strcmp(v->items[i].key, part) != 0) i++;
    }
    if (i == v->count && !grow) return status_fail(SCA_ERR_ARGUMENT, "'%s': '%s' is not set", key, part);
    *out = i < v->count ? &v->items[i] : add_item(tree, v, v->type == YAML_MAP ? part : NULL, type);
    return *out ? SCA_OK : mem_fail(sizeof **out, key);
}

static bool is_field(const char *name)
{
    for (size_t i = 0; i < config_n_fields; i++)
        if (strcmp(name, config_fields[i].name) == 0) return true;
    return strcmp(name, "weight") == 0;
}

/* Follows `rest` ("0", "0.weight", a name) from the tree's root. Names of rates may contain points. */
static sca_status find_part(yaml_tree *tree, const setting *s, const char *key, const char *rest, bool grow,
                            yaml_item **out)
{
    char index[24];
    const char *point = s->kind == KIND_DATASETS ? strchr(rest, '.') : NULL;
    if (!point) return find_item(tree, tree->root, key, rest, grow, YAML_SCALAR, out);
    snprintf(index, sizeof index, "%.*s", (int)(point - rest < 20 ? point - rest : 20), rest);
    TRY(find_item(tree, tree->root, key, index, grow, YAML_MAP, out));
    /* A member that was not given is there, but empty. */
    return find_item(tree, (*out)->value, key, point + 1, grow || is_field(point + 1), YAML_SCALAR, out);
}

static void put_tree(str *s, const yaml_value *v, bool inside)
{
    if (v->type == YAML_SCALAR) {
        if (v->plain || !inside)
            str_put(s, v->text ? v->text : "");
        else
            yaml_put_text(s, v->text);
        return;
    }
    str_putc(s, v->type == YAML_LIST ? '[' : '{');
    for (size_t i = 0; i < v->count; i++) {
        if (i > 0) str_put(s, ", ");
        if (v->items[i].key) str_printf(s, "%s: ", v->items[i].key);
        put_tree(s, v->items[i].value, true);
    }
    str_putc(s, v->type == YAML_LIST ? ']' : '}');
}

/* ---- assignments ------------------------------------------------------------------------------------- */

/* Scalars are taken as they are: no quotes, no comments, so that any path can be given. */
static sca_status set_scalar(config *c, const setting *s, const char *text)
{
    char *copy = text_copy(text, strlen(text));
    if (!copy) return mem_fail(strlen(text) + 1, s->key);
    yaml_value v = { .type = YAML_SCALAR, .plain = true, .text = copy };
    sca_status status = config_put(c, s, &v);
    mem_free(copy);
    return status;
}

static sca_status set_list(config *c, const setting *s, const char *text)
{
    yaml_tree tree;
    yaml_value nothing = { .type = YAML_SCALAR, .plain = true, .text = (char[]){ "" } };
    sca_status status = yaml_tree_read(text, strlen(text), s->key, &tree);
    if (status == SCA_OK) status = config_put(c, s, tree.root ? tree.root : &nothing);
    yaml_tree_free(&tree);
    return status;
}

/* Sets one part; `given` is YAML for a whole data set, a scalar as it is otherwise. */
static sca_status set_part(config *c, const setting *s, const char *key, const char *rest, const char *given)
{
    yaml_item *item;
    yaml_tree tree, part = { 0 };
    sca_status status;
    TRY_GOTO(done, read_tree(c, s, &tree));
    TRY_GOTO(done, find_part(&tree, s, key, rest, true, &item));
    if (s->kind == KIND_DATASETS && !strchr(rest, '.')) {
        TRY_GOTO(done, yaml_tree_read(given, strlen(given), key, &part));
        item->value = part.root ? part.root : tree_value(&tree, YAML_MAP);
    } else {
        item->value = tree_value(&tree, YAML_SCALAR);
        if (item->value) item->value->text = text_copy(given, strlen(given));
    }
    if (!item->value || (item->value->type == YAML_SCALAR && !item->value->text))
        status = mem_fail(strlen(given), key);
    else
        status = config_put(c, s, tree.root);
done:
    yaml_tree_free(&part);
    yaml_tree_free(&tree);
    return status;
}

static sca_status assign(config *c, const char *key, const char *given)
{
    const char *rest;
    const setting *s = find_setting(key, &rest);
    if (!s) return config_unknown_key(key);
    if (rest && s->kind < KIND_NAMES) return no_parts(key, s);
    if (rest) return set_part(c, s, key, rest, given);
    return s->kind >= KIND_NAMES ? set_list(c, s, given) : set_scalar(c, s, given);
}

sca_status config_set(config *c, const char *assignment)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment)
        return status_fail(SCA_ERR_ARGUMENT, "'%s': expected section.key=value", assignment);
    if (!utf8_valid(assignment, strlen(assignment)))
        return status_fail(SCA_ERR_ARGUMENT, "'%s': is not valid UTF-8", assignment);
    char *key = text_copy(assignment, (size_t)(equals - assignment));
    if (!key) return mem_fail(strlen(assignment), "a setting");
    sca_status status = assign(c, key, equals + 1);
    mem_free(key);
    return status == SCA_ERR_FORMAT ? SCA_ERR_ARGUMENT : status; /* no file is wrong here */
}

sca_status config_get(const config *c, const char *key, str *out)
{
    const char *rest;
    const setting *s = find_setting(key, &rest);
    yaml_item *item;
    yaml_tree tree = { 0 };
    sca_status status;
    if (!s) return config_unknown_key(key);
    if (rest && s->kind < KIND_NAMES) return no_parts(key, s);
    if (!rest) {
        if (s->kind == KIND_TEXT || s->kind == KIND_ENUM)
            str_put(out, member(c, s->offset)); /* as config_set takes it */
        else
            put_value(out, c, s);
        return out->failed ? mem_fail(out->bytes, key) : SCA_OK;
    }
    TRY_GOTO(done, read_tree(c, s, &tree));
    TRY_GOTO(done, find_part(&tree, s, key, rest, false, &item));
    put_tree(out, item->value, false);
    if (out->failed) status = mem_fail(out->bytes, key);
done:
    yaml_tree_free(&tree);
    return status;
}

/* ---- the public side --------------------------------------------------------------------------------- */

sca_status sca_config_open(const char *yaml_or_null, sca_config **out)
{
    if (!out) return status_fail(SCA_ERR_ARGUMENT, "sca_config_open: out is NULL");
    return config_open(yaml_or_null, out);
}

sca_status sca_config_set(sca_config *c, const char *assignment)
{
    if (!c || !assignment) return status_fail(SCA_ERR_ARGUMENT, "sca_config_set: an argument is NULL");
    return config_set(c, assignment);
}

sca_status sca_config_get(const sca_config *c, const char *key, char **value)
{
    str text = { 0 };
    if (!c || !key || !value) return status_fail(SCA_ERR_ARGUMENT, "sca_config_get: an argument is NULL");
    *value = NULL;
    sca_status status = config_get(c, key, &text);
    if (status == SCA_OK) return str_take(&text, value);
    str_free(&text);
    return status;
}

sca_status sca_config_write(const sca_config *c, const char *path)
{
    str yaml = { 0 };
    if (!c || !path) return status_fail(SCA_ERR_ARGUMENT, "sca_config_write: an argument is NULL");
    sca_status status = config_dump(c, &yaml);
    if (status == SCA_OK) status = file_write(path, str_text(&yaml), yaml.bytes);
    str_free(&yaml);
    return status;
}

sca_status sca_config_help(char **text)
{
    str help = { 0 };
    if (!text) return status_fail(SCA_ERR_ARGUMENT, "sca_config_help: text is NULL");
    config_help(&help);
    return str_take(&help, text);
}

void sca_config_close(sca_config *c) { config_close(c); }
