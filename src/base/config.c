/* config.c - the settings of config.def: checked, stored, read from YAML files.
 *
 * A setting is a row of a table that config.def expands to; its value is a member of the struct at an offset. Lists
 * and maps are replaced as a whole by a file, and item by item by an assignment ("data.train.0.weight=3").
 */
#include "base/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { FILE_MOST = 1 << 20, INCLUDES_MOST = 64, ITEMS_MOST = 10000, SETS_MOST = 256, NAME_BYTES = 256 };

/* ---- the table --------------------------------------------------------------------------------------- */

#define ROW(k, s, n, v, h) .kind = (k), .key = #s "." #n, .section = #s, .name = #n, .value = (v), .help = (h)
#define AT(s, n) offsetof(config, s##_##n)
#define CFG_INT(s, n, v, lo, hi, h)                                                                                \
    { ROW(KIND_INT, s, n, #v, h), .offset = AT(s, n), .least_int = (lo), .most_int = (hi) },
#define CFG_REAL(s, n, v, lo, hi, h)                                                                               \
    { ROW(KIND_REAL, s, n, #v, h), .offset = AT(s, n), .least = (lo), .most = (hi) },
#define CFG_BOOL(s, n, v, h) { ROW(KIND_BOOL, s, n, #v, h), .offset = AT(s, n) },
#define CFG_TEXT(s, n, v, h) { ROW(KIND_TEXT, s, n, v, h), .offset = AT(s, n) },
#define CFG_ENUM(s, n, v, c, h) { ROW(KIND_ENUM, s, n, v, h), .offset = AT(s, n), .choices = (c) },
#define CFG_NAMES(s, n, h)                                                                                         \
    { ROW(KIND_NAMES, s, n, "[]", h), .offset = AT(s, n), .count = offsetof(config, n_##s##_##n) },
#define CFG_RATES(s, n, h)                                                                                         \
    { ROW(KIND_RATES, s, n, "{}", h), .offset = AT(s, n), .count = offsetof(config, n_##s##_##n),                  \
      .keys = offsetof(config, s##_##n##_key) },
#define CFG_REALS(s, n, v, c, h) { ROW(KIND_REALS, s, n, v, h), .offset = AT(s, n), .count = (c) },
#define CFG_DATASETS(s, n, h)                                                                                      \
    { ROW(KIND_DATASETS, s, n, "[]", h), .offset = AT(s, n), .count = offsetof(config, n_##s##_##n) },

const setting config_settings[] = {
#include "config.def"
};

enum { N_SETTINGS = LENGTH(config_settings) };
const size_t config_n_settings = N_SETTINGS;

static void *member(config *c, size_t offset) { return (char *)c + offset; }
static const void *member_of(const config *c, size_t offset) { return (const char *)c + offset; }

/* ---- data sets: members by name ---------------------------------------------------------------------- */

#define FIELD(n)                                                                                                   \
    {                                                                                                              \
#n, offsetof(config_dataset, n), sizeof((config_dataset *)0)->n                                            \
    }
const config_field config_fields[] = { FIELD(kind),  FIELD(annotations), FIELD(images),
                                       FIELD(split), FIELD(task),        FIELD(name) };
const size_t config_n_fields = LENGTH(config_fields);
static const char *const field_names[] = { "kind", "annotations", "images", "split", "task", "name", "weight" };

/* ---- failures ---------------------------------------------------------------------------------------- */

static sca_status unknown(const char *what, const char *name, const char *const *names, size_t count)
{
    const char *nearest = text_nearest(name, names, count);
    if (nearest) return status_fail(SCA_ERR_ARGUMENT, "unknown %s '%s'; did you mean '%s'?", what, name, nearest);
    str list = { 0 };
    for (size_t i = 0; i < count; i++) str_printf(&list, "%s%s", i ? ", " : "", names[i]);
    sca_status status =
        status_fail(SCA_ERR_ARGUMENT, "unknown %s '%s', expected one of %s", what, name, str_text(&list));
    str_free(&list);
    return status;
}

/* key may be missing its section: "beams" is near to "generate.beams". */
sca_status config_unknown_key(const char *key)
{
    const char *names[N_SETTINGS];
    for (size_t i = 0; i < N_SETTINGS; i++) {
        names[i] = config_settings[i].key;
        if (strcmp(strchr(names[i], '.') + 1, key) == 0 || text_ends(key, strchr(names[i], '.')))
            return status_fail(SCA_ERR_ARGUMENT, "unknown setting '%s'; did you mean '%s'?", key, names[i]);
    }
    const char *nearest = text_nearest(key, names, N_SETTINGS);
    if (nearest) return status_fail(SCA_ERR_ARGUMENT, "unknown setting '%s'; did you mean '%s'?", key, nearest);
    return status_fail(SCA_ERR_ARGUMENT, "unknown setting '%s'; 'sca train --help' lists all", key);
}

/* "train.lr is 'x', expected a number" */
static sca_status wrong(const char *key, const yaml_value *v, const char *expected)
{
    switch (v->type) {
    case YAML_LIST: return status_fail(SCA_ERR_ARGUMENT, "%s is a list, expected %s", key, expected);
    case YAML_MAP: return status_fail(SCA_ERR_ARGUMENT, "%s is a map, expected %s", key, expected);
    case YAML_SCALAR: break;
    }
    return status_fail(SCA_ERR_ARGUMENT, "%s is '%s', expected %s", key, v->text, expected);
}

/* ---- values ------------------------------------------------------------------------------------------ */

static bool is_null(const yaml_value *v)
{
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
    for (size_t i = 0; v->type == YAML_SCALAR && v->plain && i < LENGTH(nulls); i++)
        if (strcmp(v->text, nulls[i]) == 0) return true;
    return false;
}

static sca_status read_int(const char *key, const yaml_value *v, int64_t least, int64_t most, int64_t *out)
{
    char expected[96];
    snprintf(expected, sizeof expected, "an integer from %lld to %lld", (long long)least, (long long)most);
    bool right = v->type == YAML_SCALAR && v->plain && text_to_int(v->text, least, most, out);
    return right ? SCA_OK : wrong(key, v, expected);
}

static sca_status read_real(const char *key, const yaml_value *v, double least, double most, double *out)
{
    char expected[96];
    double value;
    if (v->type == YAML_SCALAR && v->plain && text_to_double(v->text, &value) && value >= least && value <= most) {
        *out = value;
        return SCA_OK;
    }
    str range = { 0 };
    str_printf(&range, "a number from %.9g to %.9g", least, most);
    snprintf(expected, sizeof expected, "%s", most > 1e300 ? "a finite number" : str_text(&range));
    str_free(&range);
    return wrong(key, v, expected);
}

static sca_status read_bool(const char *key, const yaml_value *v, bool *out)
{
    static const char *const words[] = { "false", "true", "False", "True", "FALSE", "TRUE" };
    for (size_t i = 0; v->type == YAML_SCALAR && v->plain && i < LENGTH(words); i++)
        if (strcmp(v->text, words[i]) == 0) {
            *out = i % 2 == 1;
            return SCA_OK;
        }
    return wrong(key, v, "true or false");
}

/* Into out[bytes]; the rest of it becomes 0, so that equal settings are equal bytes. */
static sca_status read_text(const char *key, const yaml_value *v, size_t bytes, char *out)
{
    if (v->type != YAML_SCALAR) return wrong(key, v, "a text");
    size_t n = is_null(v) ? 0 : strlen(v->text);
    if (n >= bytes)
        return status_fail(SCA_ERR_ARGUMENT, "%s is '%.100s...', %zu bytes long, expected at most %zu", key,
                           v->text, n, bytes - 1);
    memset(out, 0, bytes);
    memcpy(out, v->text, n);
    return SCA_OK;
}

static sca_status read_enum(const setting *s, const yaml_value *v, char out[32])
{
    const char *names[16];
    char choices[256];
    size_t count = 0;
    snprintf(choices, sizeof choices, "%s", s->choices);
    for (char *p = choices, *next; p && count < LENGTH(names); p = next) {
        next = strchr(p, '|');
        if (next) *next++ = 0;
        names[count++] = p;
    }
    if (v->type != YAML_SCALAR) return wrong(s->key, v, s->choices);
    for (size_t i = 0; i < count; i++)
        if (strcmp(v->text, names[i]) == 0) {
            memset(out, 0, 32);
            memcpy(out, names[i], strlen(names[i]));
            return SCA_OK;
        }
    return wrong(s->key, v, s->choices);
}

/* ---- lists of names and rates ------------------------------------------------------------------------ */

static void free_names(char **names, size_t count)
{
    for (size_t i = 0; names && i < count; i++) mem_free(names[i]);
    mem_free(names);
}

/* A name is a short word of one line. */
static sca_status read_name(const char *key, const char *text, char **out)
{
    size_t n = strlen(text);
    *out = NULL;
    if (n == 0 || n >= NAME_BYTES)
        return status_fail(SCA_ERR_ARGUMENT, "%s: '%.100s' has %zu bytes, expected a name of 1 to %d", key, text, n,
                           NAME_BYTES - 1);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return status_fail(SCA_ERR_ARGUMENT, "%s: '%s' contains a control character", key, text);
    *out = text_copy(text, n);
    return *out ? SCA_OK : mem_fail(n + 1, key);
}

/* Room for count items, all zero. */
static sca_status need_items(const char *key, size_t count, size_t most, size_t size, void *out)
{
    void *items = NULL;
    if (count > most)
        return status_fail(SCA_ERR_ARGUMENT, "%s has %zu items, expected at most %zu", key, count, most);
    if (count > 0 && !(items = mem_zero(count, size))) return mem_fail(count * size, key);
    memcpy(out, &items, sizeof items);
    return SCA_OK;
}

static sca_status set_names(config *c, const setting *s, const yaml_value *v)
{
    char **names = NULL;
    size_t count = v->type == YAML_LIST ? v->count : 0;
    if (v->type != YAML_LIST && !is_null(v)) return wrong(s->key, v, "a list of names");
    TRY(need_items(s->key, count, ITEMS_MOST, sizeof *names, &names));
    sca_status status = SCA_OK;
    for (size_t i = 0; status == SCA_OK && i < count; i++) {
        const yaml_value *item = v->items[i].value;
        status = item->type == YAML_SCALAR ? read_name(s->key, item->text, &names[i])
                                           : wrong(s->key, item, "a list of names");
    }
    if (status != SCA_OK) {
        free_names(names, count);
        return status;
    }
    free_names(*(char ***)member(c, s->offset), *(size_t *)member(c, s->count));
    *(char ***)member(c, s->offset) = names;
    *(size_t *)member(c, s->count) = count;
    return SCA_OK;
}

static const char *const RATES_EXPECTED = "a map of names to numbers";

static sca_status read_rate(const setting *s, const char *name, const yaml_value *v, double *out)
{
    char key[NAME_BYTES + 64];
    snprintf(key, sizeof key, "%s.%s", s->key, name);
    return read_real(key, v, 0, 1000, out);
}

static sca_status set_rates(config *c, const setting *s, const yaml_value *v)
{
    char **names = NULL;
    double *rates = NULL;
    size_t count = v->type == YAML_MAP ? v->count : 0;
    if (v->type != YAML_MAP && !is_null(v)) return wrong(s->key, v, RATES_EXPECTED);
    sca_status status = need_items(s->key, count, ITEMS_MOST, sizeof *names, &names);
    if (status == SCA_OK) status = need_items(s->key, count, ITEMS_MOST, sizeof *rates, &rates);
    for (size_t i = 0; status == SCA_OK && i < count; i++) {
        status = read_name(s->key, v->items[i].key, &names[i]);
        if (status == SCA_OK) status = read_rate(s, names[i], v->items[i].value, &rates[i]);
    }
    if (status != SCA_OK) {
        free_names(names, count);
        mem_free(rates);
        return status;
    }
    free_names(*(char ***)member(c, s->keys), *(size_t *)member(c, s->count));
    mem_free(*(double **)member(c, s->offset));
    *(char ***)member(c, s->keys) = names;
    *(double **)member(c, s->offset) = rates;
    *(size_t *)member(c, s->count) = count;
    return SCA_OK;
}

static sca_status set_reals(config *c, const setting *s, const yaml_value *v)
{
    char expected[64];
    double values[8];
    ASSERT(s->count <= LENGTH(values));
    snprintf(expected, sizeof expected, "a list of %zu numbers", s->count);
    if (v->type != YAML_LIST) return wrong(s->key, v, expected);
    if (v->count != s->count)
        return status_fail(SCA_ERR_ARGUMENT, "%s has %zu items, expected %s", s->key, v->count, expected);
    for (size_t i = 0; i < s->count; i++)
        TRY(read_real(s->key, v->items[i].value, -INFINITY, INFINITY, &values[i]));
    memcpy(member(c, s->offset), values, s->count * sizeof values[0]);
    return SCA_OK;
}

/* ---- data sets --------------------------------------------------------------------------------------- */

static sca_status set_field(config_dataset *d, const char *where, const char *name, const yaml_value *v)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", where, name);
    for (size_t i = 0; i < LENGTH(config_fields); i++)
        if (strcmp(config_fields[i].name, name) == 0)
            return read_text(key, v, config_fields[i].bytes, (char *)d + config_fields[i].offset);
    if (strcmp(name, "weight") == 0) {
        double weight;
        TRY(read_real(key, v, 0, 1e9, &weight));
        if (weight == 0) return wrong(key, v, "a number above 0; leave out the set that shall not be used");
        d->weight = weight;
        return SCA_OK;
    }
    sca_status status = unknown("key", name, field_names, LENGTH(field_names));
    return status_context(status, "%s", where);
}

static sca_status read_dataset(const char *where, const yaml_value *v, config_dataset *d)
{
    *d = (config_dataset){ 0 };
    if (v->type != YAML_MAP) return wrong(where, v, "a map with kind, annotations, images, ...");
    for (size_t i = 0; i < v->count; i++) TRY(set_field(d, where, v->items[i].key, v->items[i].value));
    return SCA_OK;
}

static sca_status set_datasets(config *c, const setting *s, const yaml_value *v)
{
    config_dataset *sets = NULL;
    size_t count = v->type == YAML_LIST ? v->count : 0;
    if (v->type != YAML_LIST && !is_null(v)) return wrong(s->key, v, "a list of data sets");
    TRY(need_items(s->key, count, SETS_MOST, sizeof *sets, &sets));
    for (size_t i = 0; i < count; i++) {
        char where[64];
        snprintf(where, sizeof where, "%s.%zu", s->key, i);
        sca_status status = read_dataset(where, v->items[i].value, &sets[i]);
        if (status == SCA_OK) continue;
        mem_free(sets);
        return status;
    }
    mem_free(*(config_dataset **)member(c, s->offset));
    *(config_dataset **)member(c, s->offset) = sets;
    *(size_t *)member(c, s->count) = count;
    return SCA_OK;
}

sca_status config_put(config *c, const setting *s, const yaml_value *v)
{
    void *at = member(c, s->offset);
    switch (s->kind) {
    case KIND_INT: return read_int(s->key, v, s->least_int, s->most_int, at);
    case KIND_REAL: return read_real(s->key, v, s->least, s->most, at);
    case KIND_BOOL: return read_bool(s->key, v, at);
    case KIND_TEXT: return read_text(s->key, v, CONFIG_TEXT, at);
    case KIND_ENUM: return read_enum(s, v, at);
    case KIND_NAMES: return set_names(c, s, v);
    case KIND_RATES: return set_rates(c, s, v);
    case KIND_REALS: return set_reals(c, s, v);
    case KIND_DATASETS: return set_datasets(c, s, v);
    }
    return SCA_OK;
}

/* ---- files ------------------------------------------------------------------------------------------- */

typedef struct source { /* a file being read, and those that include it */
    const struct source *by;
    dev_t device;
    ino_t inode;
} source;

static sca_status read_file(config *c, const char *path, const source *by, int *files);

static sca_status include_one(config *c, const char *path, const yaml_value *v, const source *from, int *files)
{
    if (v->type != YAML_SCALAR || v->text[0] == 0)
        return status_fail(SCA_ERR_FORMAT, "%s: line %zu: include expects a file name or a list of them", path,
                           v->line);
    if (++*files > INCLUDES_MOST)
        return status_fail(SCA_ERR_FORMAT, "%s: line %zu: more than %d files are included", path, v->line,
                           INCLUDES_MOST);
    char *dir = text_copy(path, (size_t)(path_name(path) - path));
    char *name = dir && v->text[0] != '/' ? path_join(dir, v->text) : text_copy(v->text, strlen(v->text));
    sca_status status =
        dir && name ? read_file(c, name, from, files) : mem_fail(strlen(v->text) + 1, "a file name");
    mem_free(dir);
    mem_free(name);
    return status == SCA_OK ? SCA_OK : status_context(status, "%s: line %zu", path, v->line);
}

static sca_status include_all(config *c, const char *path, const yaml_value *v, const source *from, int *files)
{
    if (v->type != YAML_LIST) return include_one(c, path, v, from, files);
    for (size_t i = 0; i < v->count; i++) TRY(include_one(c, path, v->items[i].value, from, files));
    return SCA_OK;
}

static bool is_section(const char *name)
{
    for (size_t i = 0; i < N_SETTINGS; i++)
        if (strcmp(config_settings[i].section, name) == 0) return true;
    return false;
}

static sca_status unknown_section(const char *name)
{
    const char *names[N_SETTINGS + 1] = { "include" };
    size_t count = 1;
    for (size_t i = 0; i < N_SETTINGS; i++)
        if (i == 0 || strcmp(config_settings[i].section, config_settings[i - 1].section) != 0)
            names[count++] = config_settings[i].section;
    return unknown("section", name, names, count);
}

static sca_status set_key(config *c, const char *section, const char *name, const yaml_value *v)
{
    char key[NAME_BYTES];
    int length = snprintf(key, sizeof key, "%s.%s", section, name);
    for (size_t i = 0; i < N_SETTINGS; i++)
        if (length < (int)sizeof key && strcmp(config_settings[i].key, key) == 0)
            return config_put(c, &config_settings[i], v);
    return config_unknown_key(key);
}

static sca_status set_section(config *c, const char *path, const yaml_item *section)
{
    const yaml_value *v = section->value;
    sca_status status = SCA_OK;
    size_t line = section->line;
    if (!is_section(section->key))
        status = unknown_section(section->key);
    else if (v->type != YAML_MAP && !is_null(v))
        status = wrong(section->key, v, "a map of settings");
    for (size_t i = 0; status == SCA_OK && i < v->count; i++) {
        line = v->items[i].line;
        status = set_key(c, section->key, v->items[i].key, v->items[i].value);
    }
    if (status == SCA_ERR_ARGUMENT) status = SCA_ERR_FORMAT; /* the file is wrong, not the call */
    return status == SCA_OK ? SCA_OK : status_context(status, "%s: line %zu", path, line);
}

/* Includes come first, wherever the key stands. */
static sca_status apply(config *c, const char *path, const yaml_value *root, const source *from, int *files)
{
    if (!root || is_null(root)) return SCA_OK;
    if (root->type != YAML_MAP)
        return status_fail(SCA_ERR_FORMAT, "%s: expected sections like 'train:' with settings", path);
    for (size_t i = 0; i < root->count; i++)
        if (strcmp(root->items[i].key, "include") == 0)
            TRY(include_all(c, path, root->items[i].value, from, files));
    for (size_t i = 0; i < root->count; i++)
        if (strcmp(root->items[i].key, "include") != 0) TRY(set_section(c, path, &root->items[i]));
    return SCA_OK;
}

static sca_status read_file(config *c, const char *path, const source *by, int *files)
{
    char *text;
    size_t bytes;
    struct stat info;
    TRY(file_read(path, FILE_MOST, &text, &bytes));
    yaml_tree tree = { 0 };
    source from = { .by = by };
    sca_status status = SCA_OK;
    if (stat(path, &info) == 0) from.device = info.st_dev, from.inode = info.st_ino;
    for (const source *s = by; s; s = s->by)
        if (s->device == from.device && s->inode == from.inode) {
            status = status_fail(SCA_ERR_FORMAT, "%s: includes itself", path);
            goto done;
        }
    TRY_GOTO(done, yaml_tree_read(text, bytes, path, &tree));
    TRY_GOTO(done, apply(c, path, tree.root, &from, files));
done:
    yaml_tree_free(&tree);
    mem_free(text);
    return status;
}

/* ---- open, copy, close ------------------------------------------------------------------------------- */

/* Defaults are read by the same rules as everything else. */
static sca_status set_default(config *c, const setting *s)
{
    if (s->kind == KIND_NAMES || s->kind == KIND_RATES || s->kind == KIND_DATASETS) return SCA_OK; /* empty */
    if (s->kind != KIND_REALS) {
        yaml_value v = { .type = YAML_SCALAR, .plain = true };
        char text[CONFIG_TEXT];
        snprintf(text, sizeof text, "%s", s->value);
        v.text = text;
        return config_put(c, s, &v);
    }
    yaml_tree tree;
    sca_status status = yaml_tree_read(s->value, strlen(s->value), s->key, &tree);
    if (status == SCA_OK) status = config_put(c, s, tree.root);
    yaml_tree_free(&tree);
    return status;
}

sca_status config_open(const char *yaml_or_null, config **out)
{
    int files = 0;
    *out = NULL;
    config *c = mem_zero(1, sizeof *c);
    if (!c) return mem_fail(sizeof *c, "settings");
    sca_status status = SCA_OK;
    for (size_t i = 0; status == SCA_OK && i < N_SETTINGS; i++) status = set_default(c, &config_settings[i]);
    if (status == SCA_OK && yaml_or_null) status = read_file(c, yaml_or_null, NULL, &files);
    if (status != SCA_OK) {
        config_close(c);
        return status;
    }
    *out = c;
    return SCA_OK;
}

static sca_status copy_names(config *to, const config *from, size_t offset, size_t count)
{
    char *const *names = *(char *const *const *)member_of(from, offset);
    char **copies = NULL;
    TRY(need_items("settings", count, ITEMS_MOST, sizeof *copies, &copies));
    *(char ***)member(to, offset) = copies;
    for (size_t i = 0; i < count; i++)
        if (!(copies[i] = text_copy(names[i], strlen(names[i])))) return mem_fail(strlen(names[i]), "settings");
    return SCA_OK;
}

static sca_status copy_items(config *to, const config *from, const setting *s, size_t size)
{
    size_t count = *(const size_t *)member_of(from, s->count);
    void *items = NULL;
    TRY(need_items(s->key, count, ITEMS_MOST, size, &items));
    if (count > 0) memcpy(items, *(void *const *)member_of(from, s->offset), count * size);
    *(void **)member(to, s->offset) = items;
    return SCA_OK;
}

/* Replaces the pointers of `to`, a plain copy of `from`, by copies of what they point to. */
static sca_status copy_lists(config *to, const config *from)
{
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const setting *s = &config_settings[i];
        size_t count = s->count && s->kind != KIND_REALS ? *(const size_t *)member_of(from, s->count) : 0;
        if (s->kind == KIND_NAMES) TRY(copy_names(to, from, s->offset, count));
        if (s->kind == KIND_RATES) TRY(copy_names(to, from, s->keys, count));
        if (s->kind == KIND_RATES) TRY(copy_items(to, from, s, sizeof(double)));
        if (s->kind == KIND_DATASETS) TRY(copy_items(to, from, s, sizeof(config_dataset)));
    }
    return SCA_OK;
}

sca_status config_copy(const config *c, config **out)
{
    *out = NULL;
    config *to = mem_alloc(sizeof *to);
    if (!to) return mem_fail(sizeof *to, "settings");
    *to = *c;
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const setting *s = &config_settings[i];
        bool listed = s->kind == KIND_NAMES || s->kind == KIND_RATES || s->kind == KIND_DATASETS;
        if (listed) memset(member(to, s->offset), 0, sizeof(void *));
        if (s->kind == KIND_RATES) memset(member(to, s->keys), 0, sizeof(void *));
    }
    sca_status status = copy_lists(to, c);
    if (status != SCA_OK) {
        config_close(to);
        return status;
    }
    *out = to;
    return SCA_OK;
}

void config_close(config *c)
{
    if (!c) return;
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const setting *s = &config_settings[i];
        if (s->kind == KIND_NAMES) free_names(*(char ***)member(c, s->offset), *(size_t *)member(c, s->count));
        if (s->kind == KIND_RATES) free_names(*(char ***)member(c, s->keys), *(size_t *)member(c, s->count));
        if (s->kind == KIND_RATES || s->kind == KIND_DATASETS) mem_free(*(void **)member(c, s->offset));
    }
    mem_free(c);
}
