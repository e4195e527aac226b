/* torch.c - reads what torch.save writes: a zip archive, or the format before 1.6 (several pickles, then the
 * storages). Nothing in the file is executed: the pickle may only name the functions that build tensors. */
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REBUILD_TENSOR "torch._utils _rebuild_tensor_v2"
#define REBUILD_PARAMETER "torch._utils _rebuild_parameter"

typedef struct kind {
    const char *global; /* as the pickle names it */
    size_t bytes;
    element element;
} kind;

static const kind kinds[] = {
    { "torch FloatStorage", 4, EL_F32 },     { "torch HalfStorage", 2, EL_F16 },
    { "torch BFloat16Storage", 2, EL_BF16 }, { "torch DoubleStorage", 8, EL_F64 },
    { "torch LongStorage", 8, EL_OTHER },    { "torch IntStorage", 4, EL_OTHER },
    { "torch ShortStorage", 2, EL_OTHER },   { "torch CharStorage", 1, EL_OTHER },
    { "torch ByteStorage", 1, EL_OTHER },    { "torch BoolStorage", 1, EL_OTHER },
};

static const char *const allowed[] = { REBUILD_TENSOR,
                                       REBUILD_PARAMETER,
                                       "collections OrderedDict",
                                       "torch FloatStorage",
                                       "torch HalfStorage",
                                       "torch BFloat16Storage",
                                       "torch DoubleStorage",
                                       "torch LongStorage",
                                       "torch IntStorage",
                                       "torch ShortStorage",
                                       "torch CharStorage",
                                       "torch ByteStorage",
                                       "torch BoolStorage",
                                       NULL };

/* ---- one tensor of the pickle ---------------------------------------------------------------------------- */

typedef struct view { /* a tensor as the pickle describes it */
    const kind *kind;
    const char *key;       /* of the storage */
    int64_t numel, offset; /* of the storage; elements */
    const pickle_value *size, *stride;
} view;

static bool is_call(const pickle_value *v, const char *global, size_t least)
{
    return v->type == PICKLE_CALL && v->items[0]->type == PICKLE_GLOBAL && strcmp(v->items[0]->text, global) == 0 &&
           v->items[1]->type == PICKLE_TUPLE && v->items[1]->count >= least;
}

static const kind *find_kind(const pickle_value *v)
{
    for (size_t i = 0; v->type == PICKLE_GLOBAL && i < LENGTH(kinds); i++)
        if (strcmp(v->text, kinds[i].global) == 0) return &kinds[i];
    return NULL;
}

/* persistent id: ("storage", class, key, location, elements[, view of another storage]) */
static sca_status parse_storage(const weight_slot *slot, const pickle_value *v, view *out)
{
    const pickle_value *id = v->type == PICKLE_PERSID ? v->items[0] : NULL;
    if (!id || id->type != PICKLE_TUPLE || id->count < 5 || id->items[0]->type != PICKLE_TEXT ||
        strcmp(id->items[0]->text, "storage") != 0 || id->items[2]->type != PICKLE_TEXT ||
        id->items[4]->type != PICKLE_INT || id->items[4]->integer < 0)
        return slot_fail(slot, SCA_ERR_FORMAT,
                         "has no proper storage, expected ('storage', class, key, device, size)");
    if (id->count > 5 && id->items[5]->type != PICKLE_NONE)
        return slot_fail(slot, SCA_ERR_UNSUPPORTED,
                         "looks into a part of a storage as PyTorch before 0.4 wrote it; "
                         "save it again with a newer PyTorch");
    out->kind = find_kind(id->items[1]);
    if (!out->kind) return slot_fail(slot, SCA_ERR_FORMAT, "has a storage of an unknown class");
    out->key = id->items[2]->text;
    out->numel = id->items[4]->integer;
    return SCA_OK;
}

static bool is_integers(const pickle_value *v)
{
    if (v->type != PICKLE_TUPLE && v->type != PICKLE_LIST) return false;
    for (size_t i = 0; i < v->count; i++)
        if (v->items[i]->type != PICKLE_INT) return false;
    return true;
}

static sca_status parse_tensor(const weight_slot *slot, const pickle_value *v, view *out)
{
    if (is_call(v, REBUILD_PARAMETER, 1)) v = v->items[1]->items[0];
    if (v->type == PICKLE_DICT)
        return slot_fail(slot, SCA_ERR_FORMAT,
                         "is a dictionary, expected a tensor: this is a training checkpoint; "
                         "save the model's state_dict alone");
    if (!is_call(v, REBUILD_TENSOR, 4))
        return slot_fail(slot, SCA_ERR_FORMAT, "is no tensor; expected a state_dict with nothing but tensors");
    pickle_value **args = v->items[1]->items;
    TRY(parse_storage(slot, args[0], out));
    if (args[1]->type != PICKLE_INT || args[1]->integer < 0 || !is_integers(args[2]) || !is_integers(args[3]) ||
        args[2]->count != args[3]->count)
        return slot_fail(slot, SCA_ERR_FORMAT,
                         "has an offset, a size or a stride that is no list of integers from 0 on");
    out->offset = args[1]->integer;
    out->size = args[2];
    out->stride = args[3];
    return SCA_OK;
}

/* Shape and strides; *last is the distance of the last element from the first, *rows whether they lie in order. */
static sca_status place_shape(weight_slot *slot, const view *v, int64_t *last, bool *rows)
{
    int64_t dim[LENGTH(slot->w.dim)] = { 0 }, next = 1;
    size_t n = v->size->count;
    if (n > LENGTH(dim))
        return slot_fail(slot, SCA_ERR_FORMAT, "has %zu dimensions, expected at most %zu", n, LENGTH(dim));
    for (size_t i = 0; i < n; i++) dim[i] = v->size->items[i]->integer;
    TRY(slot_shape(slot, (int)n, dim));
    *last = 0;
    *rows = true;
    for (size_t i = n; i-- > 0;) {
        int64_t stride = v->stride->items[i]->integer, reach;
        if (stride < 0) return slot_fail(slot, SCA_ERR_FORMAT, "has a negative stride");
        if (slot->w.count == 0) continue;
        if (__builtin_mul_overflow(dim[i] - 1, stride, &reach) || __builtin_add_overflow(*last, reach, last))
            return slot_fail(slot, SCA_ERR_FORMAT, "has strides that overflow");
        slot->s.stride[i] = stride;
        *rows = *rows && (dim[i] == 1 || stride == next);
        next *= dim[i];
    }
    return SCA_OK;
}

/* Places the tensor in its storage, which is `bytes` at `data`. */
static sca_status place_tensor(weight_slot *slot, const view *v, const uint8_t *data, uint64_t bytes)
{
    int64_t last, end, have = (int64_t)(bytes / v->kind->bytes);
    bool rows;
    if (bytes % v->kind->bytes != 0 || have != v->numel)
        return slot_fail(slot, SCA_ERR_FORMAT, "has a storage of %llu bytes, expected %lld elements of %zu bytes",
                         (unsigned long long)bytes, (long long)v->numel, v->kind->bytes);
    TRY(place_shape(slot, v, &last, &rows));
    if (__builtin_add_overflow(v->offset, last, &end) || (slot->w.count > 0 ? end >= have : v->offset > have))
        return slot_fail(slot, SCA_ERR_FORMAT, "reaches element %lld of a storage of %lld elements", (long long)end,
                         (long long)have);
    size_t span = slot->w.count > 0 ? ((size_t)last + 1) * v->kind->bytes : 0;
    slot_place(slot, v->kind->element, v->kind->global + strlen("torch "), rows ? ORDER_ROWS : ORDER_STRIDES,
               data + (size_t)v->offset * v->kind->bytes, span);
    return SCA_OK;
}

/* ---- the dictionary -------------------------------------------------------------------------------------- */

typedef sca_status tensor_fn(void *user, weights *w, weight_file *file, weight_slot *slot, const view *v);

static sca_status read_dict(weights *w, weight_file *file, const pickle_value *root, tensor_fn *fn, void *user)
{
    if (root->type != PICKLE_DICT)
        return status_fail(SCA_ERR_FORMAT, "%s: holds no dictionary, expected a state_dict of tensors by name",
                           file->view.path);
    for (size_t i = 0; i + 1 < root->count; i += 2) {
        const pickle_value *key = root->items[i];
        weight_slot *slot;
        view v;
        if (key->type != PICKLE_TEXT)
            return status_fail(SCA_ERR_FORMAT, "%s: entry %zu has a name that is no text", file->view.path, i / 2);
        TRY(weights_add(w, file, key->text, key->count, &slot));
        TRY(parse_tensor(slot, root->items[i + 1], &v));
        TRY(fn(user, w, file, slot, &v));
    }
    return SCA_OK;
}

/* ---- zip ------------------------------------------------------------------------------------------------- */

/* "NAME/data.pkl": the folder that everything is in. */
static sca_status find_pickle(const weight_file *file, const zip_entry **out)
{
    *out = NULL;
    for (size_t i = 0; i < zip_count(file->z); i++) {
        const zip_entry *e = zip_at(file->z, i);
        const char *slash = strchr(e->name, '/');
        if (!slash || strcmp(slash, "/data.pkl") != 0) continue;
        if (*out)
            return status_fail(SCA_ERR_FORMAT, "%s: has both %s and %s, expected one pickle", file->view.path,
                               (*out)->name, e->name);
        *out = e;
    }
    if (*out) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT,
                       "%s: is a zip archive without NAME/data.pkl, expected what torch.save writes",
                       file->view.path);
}

/* The entry NAME/rest, or NULL. */
static sca_status find_member(const weight_file *file, const zip_entry *pickle_entry, const char *rest,
                              const zip_entry **out)
{
    str name = { 0 };
    str_put_bytes(&name, pickle_entry->name, strlen(pickle_entry->name) - strlen("data.pkl"));
    str_put(&name, rest);
    sca_status status = name.failed ? mem_fail(name.bytes, "entry name") : SCA_OK;
    *out = status == SCA_OK ? zip_find(file->z, str_text(&name)) : NULL;
    str_free(&name);
    return status;
}

static sca_status check_byteorder(const weight_file *file, const zip_entry *pickle_entry)
{
    const zip_entry *e;
    uint8_t *text;
    TRY(find_member(file, pickle_entry, "byteorder", &e));
    if (!e) return SCA_OK;
    TRY(zip_read(file->z, e, 64, &text));
    bool little = e->bytes == 6 && memcmp(text, "little", 6) == 0;
    mem_free(text);
    if (little) return SCA_OK;
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "%s: was written in another byte order, expected 'little' in 'byteorder'; "
                       "save it again on a little-endian machine",
                       file->view.path);
}

static sca_status zip_tensor(void *user, weights *w, weight_file *file, weight_slot *slot, const view *v)
{
    const zip_entry *e;
    str rest = { 0 };
    (void)w;
    str_printf(&rest, "data/%s", v->key);
    sca_status status =
        rest.failed ? mem_fail(rest.bytes, "entry name") : find_member(file, user, str_text(&rest), &e);
    str_free(&rest);
    TRY(status);
    if (!e) return slot_fail(slot, SCA_ERR_FORMAT, "is in storage '%.100s', which the archive lacks", v->key);
    if (e->method != 0)
        return slot_fail(slot, SCA_ERR_UNSUPPORTED,
                         "is in the compressed entry '%.200s', expected a stored one; save "
                         "it again with torch.save",
                         e->name);
    TRY(place_tensor(slot, v, file->view.data + e->offset, e->bytes));
    slot->s.storage = &file->storages[e - zip_at(file->z, 0)];
    slot->s.mapped = slot->w.data;
    slot->w.data = NULL; /* nobody reads it before its checksum is known: weight_map */
    return SCA_OK;
}

static sca_status make_storages(weight_file *file)
{
    size_t n = zip_count(file->z);
    file->storages = mem_zero(n + 1, sizeof *file->storages);
    if (!file->storages) return mem_fail((n + 1) * sizeof *file->storages, "storages");
    for (size_t i = 0; i < n; i++) {
        file->storages[i].z = file->z;
        file->storages[i].entry = zip_at(file->z, i);
        atomic_init(&file->storages[i].verified, false);
    }
    return SCA_OK;
}

sca_status torch_read_zip(weights *w, weight_file *file)
{
    const zip_entry *e;
    uint8_t *text = NULL;
    pickle *p = NULL;
    size_t used;
    sca_status status;
    TRY(zip_open(file->view.data, file->view.bytes, file->view.path, &file->z));
    TRY(find_pickle(file, &e));
    TRY(check_byteorder(file, e));
    TRY(make_storages(file));
    TRY(zip_read(file->z, e, file->view.bytes, &text));
    TRY_GOTO(done, pickle_open(text, e->bytes, file->view.path, allowed, &p, &used));
    TRY_GOTO(done, read_dict(w, file, pickle_root(p), zip_tensor, (void *)e));
done:
    pickle_close(p);
    mem_free(text);
    return status;
}

/* ---- the format before 1.6 ------------------------------------------------------------------------------- */

/* The first pickle: the integer 0x1950a86a20f9469cfc6c. */
static const uint8_t magic[] = { 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.' };

enum { MAGIC_BYTES = 2 + sizeof magic, PROTOCOL = 1001 };

bool torch_is_legacy(const uint8_t *data, size_t bytes)
{
    return bytes >= MAGIC_BYTES && data[0] == 0x80 && memcmp(data + 2, magic, sizeof magic) == 0;
}

typedef struct legacy_storage {
    const char *key;
    const kind *kind; /* NULL until a tensor names it */
    const uint8_t *data;
    uint64_t bytes;
} legacy_storage;

typedef struct legacy {
    legacy_storage *list;    /* in file order */
    legacy_storage **by_key; /* sorted */
    size_t n;
} legacy;

static int compare_keys(const void *a, const void *b)
{
    return strcmp((*(legacy_storage *const *)a)->key, (*(legacy_storage *const *)b)->key);
}

static legacy_storage *find_storage(const legacy *l, const char *key)
{
    legacy_storage wanted = { .key = key }, *pointer = &wanted;
    legacy_storage **found = bsearch(&pointer, l->by_key, l->n, sizeof *l->by_key, compare_keys);
    return found ? *found : NULL;
}

static sca_status list_storages(legacy *l, const weight_file *file, const pickle_value *keys)
{
    const char *path = file->view.path;
    if (keys->type != PICKLE_LIST) return status_fail(SCA_ERR_FORMAT, "%s: has no list of storages", path);
    l->n = keys->count;
    l->list = mem_zero(l->n + 1, sizeof *l->list);
    l->by_key = mem_zero(l->n + 1, sizeof *l->by_key);
    if (!l->list || !l->by_key) return mem_fail(l->n * sizeof *l->list, "storages");
    for (size_t i = 0; i < l->n; i++) {
        if (keys->items[i]->type != PICKLE_TEXT)
            return status_fail(SCA_ERR_FORMAT, "%s: storage %zu has a key that is no text", path, i);
        l->list[i].key = keys->items[i]->text;
        l->by_key[i] = &l->list[i];
    }
    qsort(l->by_key, l->n, sizeof *l->by_key, compare_keys);
    for (size_t i = 1; i < l->n; i++)
        if (strcmp(l->by_key[i - 1]->key, l->by_key[i]->key) == 0)
            return status_fail(SCA_ERR_FORMAT, "%s: lists storage '%.100s' twice", path, l->by_key[i]->key);
    return SCA_OK;
}

/* First pass over the tensors: their classes say how wide the elements of each storage are. */
static sca_status note_kind(void *user, weights *w, weight_file *file, weight_slot *slot, const view *v)
{
    legacy_storage *s = find_storage(user, v->key);
    (void)file;
    if (!s) return slot_fail(slot, SCA_ERR_FORMAT, "is in storage '%.100s', which the file lacks", v->key);
    if (s->kind && s->kind != v->kind)
        return slot_fail(slot, SCA_ERR_FORMAT, "takes storage '%.100s' for another class than the tensors before",
                         v->key);
    s->kind = v->kind;
    mem_free(slot->name);
    w->n--; /* it is added again when the storages are known */
    return SCA_OK;
}

static sca_status legacy_tensor(void *user, weights *w, weight_file *file, weight_slot *slot, const view *v)
{
    const legacy_storage *s = find_storage(user, v->key);
    (void)w;
    (void)file;
    return place_tensor(slot, v, s->data, s->bytes);
}

/* The storages follow each other: a 64-bit count, then the elements. */
static sca_status find_storages(legacy *l, const weight_file *file, size_t at)
{
    const char *path = file->view.path;
    for (size_t i = 0; i < l->n; i++) {
        legacy_storage *s = &l->list[i];
        uint64_t count = 0, left = file->view.bytes - at;
        if (!s->kind) return status_fail(SCA_ERR_FORMAT, "%s: storage '%.100s' belongs to no tensor", path, s->key);
        for (int b = 7; left >= 8 && b >= 0; b--) count = count << 8 | file->view.data[at + (size_t)b];
        if (left < 8 || count > (left - 8) / s->kind->bytes)
            return status_fail(SCA_ERR_FORMAT,
                               "%s: ends within storage '%.100s' (%zu of %zu); the file is cut: fetch it again",
                               path, s->key, i + 1, l->n);
        s->data = file->view.data + at + 8;
        s->bytes = count * s->kind->bytes;
        at += 8 + s->bytes;
    }
    if (at != file->view.bytes)
        return status_fail(SCA_ERR_FORMAT, "%s: has %zu bytes after the last storage; the file is damaged", path,
                           file->view.bytes - at);
    return SCA_OK;
}

static sca_status check_header(const weight_file *file, size_t *at)
{
    static const char *const none[] = { NULL };
    const char *path = file->view.path;
    pickle *p;
    size_t used;
    *at = MAGIC_BYTES;
    TRY(pickle_open(file->view.data + *at, file->view.bytes - *at, path, none, &p, &used));
    bool known = pickle_root(p)->type == PICKLE_INT && pickle_root(p)->integer == PROTOCOL;
    pickle_close(p);
    *at += used;
    if (!known) return status_fail(SCA_ERR_UNSUPPORTED, "%s: has an unknown version, expected %d", path, PROTOCOL);
    TRY(pickle_open(file->view.data + *at, file->view.bytes - *at, path, none, &p, &used));
    const pickle_value *little = pickle_get(pickle_root(p), "little_endian");
    bool right = little && little->type == PICKLE_BOOL && little->integer;
    pickle_close(p);
    *at += used;
    if (right) return SCA_OK;
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "%s: was written on a big-endian machine, expected little_endian; save it "
                       "again on a little-endian machine",
                       path);
}

sca_status torch_read_legacy(weights *w, weight_file *file)
{
    const uint8_t *data = file->view.data;
    const char *path = file->view.path;
    pickle *object = NULL, *keys = NULL;
    legacy l = { 0 };
    size_t at, used, bytes = file->view.bytes;
    sca_status status;
    TRY(check_header(file, &at));
    TRY_GOTO(done, pickle_open(data + at, bytes - at, path, allowed, &object, &used));
    at += used;
    TRY_GOTO(done, pickle_open(data + at, bytes - at, path, allowed, &keys, &used));
    at += used;
    TRY_GOTO(done, list_storages(&l, file, pickle_root(keys)));
    TRY_GOTO(done, read_dict(w, file, pickle_root(object), note_kind, &l));
    TRY_GOTO(done, find_storages(&l, file, at));
    TRY_GOTO(done, read_dict(w, file, pickle_root(object), legacy_tensor, &l));
done:
    mem_free(l.list);
    mem_free(l.by_key);
    pickle_close(keys);
    pickle_close(object);
    return status;
}
