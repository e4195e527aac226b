/* weights.c - opens weight files of any format, finds tensors by name, converts their values. */
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { CHUNK = 1024 }; /* elements converted at a time; a multiple of QUANT_BLOCK */

/* ---- the list of tensors --------------------------------------------------------------------------------- */

sca_status weights_add(weights *w, const weight_file *file, const char *name, size_t name_bytes, weight_slot **out)
{
    if (name_bytes == 0 || memchr(name, 0, name_bytes))
        return status_fail(SCA_ERR_FORMAT, "%s: the name of a tensor is empty or contains a 0 byte",
                           file->view.path);
    if (w->n == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 256, bytes;
        if (!size_mul(cap, sizeof *w->slots, &bytes)) return mem_fail(SIZE_MAX, "tensor list");
        weight_slot *slots = mem_resize(w->slots, bytes);
        if (!slots) return mem_fail(bytes, "tensor list");
        w->slots = slots;
        w->cap = cap;
    }
    weight_slot *slot = &w->slots[w->n];
    *slot = (weight_slot){ .name = text_copy(name, name_bytes) };
    if (!slot->name) return mem_fail(name_bytes, "tensor name");
    slot->s.file = file;
    w->n++;
    *out = slot;
    return SCA_OK;
}

#undef slot_fail /* the function itself */
sca_status slot_fail(const weight_slot *slot, sca_status s, const char *format, ...)
{
    va_list args;
    str text = { 0 };
    va_start(args, format);
    str_vprintf(&text, format, args);
    va_end(args);
    s = status_fail(s, "%s: tensor '%.300s' %s", slot->s.file->view.path, slot->name, str_text(&text));
    str_free(&text);
    return s;
}

#define slot_fail(slot, s, ...) (slot_fail((slot), (s), __VA_ARGS__), status_same(s))

sca_status slot_shape(weight_slot *slot, int ndim, const int64_t *dim)
{
    int64_t count = 1;
    bool empty = false;
    if (ndim < 0 || ndim > (int)LENGTH(slot->w.dim))
        return slot_fail(slot, SCA_ERR_FORMAT, "has %d dimensions, expected at most %zu", ndim,
                         LENGTH(slot->w.dim));
    for (int i = 0; i < ndim; i++) {
        if (dim[i] < 0) return slot_fail(slot, SCA_ERR_FORMAT, "has a negative dimension, %lld", (long long)dim[i]);
        if (dim[i] == 0) empty = true;
        /* 16: the widest element and a margin, so that sizes in bytes never overflow */
        else if (__builtin_mul_overflow(count, dim[i], &count) || count > INT64_MAX / 16)
            return slot_fail(slot, SCA_ERR_FORMAT, "has a shape whose size overflows");
        slot->w.dim[i] = dim[i];
    }
    slot->w.ndim = ndim;
    slot->w.count = empty ? 0 : count;
    return SCA_OK;
}

static dtype element_type(element e)
{
    switch (e) {
    case EL_F32: return DT_F32;
    case EL_F64: return DT_F64;
    case EL_F16: return DT_F16;
    case EL_BF16: return DT_BF16;
    case EL_OTHER:
    case EL_Q8_0:
    case EL_Q4_0:
    case EL_Q4_1: break;
    }
    return DT_NONE;
}

size_t element_bytes(element e) { return dtype_bytes(element_type(e)); }

static size_t block_bytes(element e) { return e == EL_Q8_0 ? 34 : e == EL_Q4_0 ? 18 : e == EL_Q4_1 ? 20 : 0; }

size_t element_span(element e, size_t count)
{
    size_t block = block_bytes(e);
    return block ? count / QUANT_BLOCK * block : count * element_bytes(e);
}

void slot_place(weight_slot *slot, element kind, const char *kind_name, arrangement how, const uint8_t *first,
                size_t span)
{
    size_t size = element_bytes(kind);
    slot->s.kind = kind;
    slot->s.kind_name = kind_name;
    slot->s.order = how;
    slot->s.first = first;
    slot->s.span = span;
    slot->w.type = element_type(kind);
    slot->w.numeric = kind != EL_OTHER;
    if (how == ORDER_ROWS && size > 0 && (uintptr_t)first % size == 0) slot->w.data = first;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const weight *const *)a)->name, (*(const weight *const *)b)->name);
}

sca_status weights_sort(weights *w)
{
    mem_free(w->by_name);
    w->by_name = mem_zero(w->n + 1, sizeof *w->by_name);
    if (!w->by_name) return mem_fail(w->n * sizeof *w->by_name, "tensor names");
    for (size_t i = 0; i < w->n; i++) {
        weight_slot *slot = &w->slots[i];
        slot->w.name = slot->name;
        slot->w.file = slot->s.file->view.path;
        slot->w.hidden = &slot->s;
        w->by_name[i] = &slot->w;
    }
    qsort(w->by_name, w->n, sizeof *w->by_name, compare_names);
    for (size_t i = 1; i < w->n; i++) {
        const weight *a = w->by_name[i - 1], *b = w->by_name[i];
        if (strcmp(a->name, b->name) != 0) continue;
        if (a->file != b->file)
            return status_fail(SCA_ERR_FORMAT, "%s: tensor '%.300s' is in %s too, expected it once", a->file,
                               a->name, b->file);
        return status_fail(SCA_ERR_FORMAT, "%s: tensor '%.300s' appears twice, expected it once", a->file, a->name);
    }
    return SCA_OK;
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static void describe_start(const uint8_t *data, size_t bytes, char text[64])
{
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < bytes && i < 8; i++)
        used += (size_t)snprintf(text + used, 64 - used, "%s%02x", i ? " " : "", data[i]);
    if (bytes == 0) snprintf(text, 64, "an empty file");
}

static sca_status read_file(weights *w, weight_file *f)
{
    const uint8_t *data = f->view.data;
    size_t bytes = f->view.bytes;
    char start[64];
    if (bytes >= 4 && memcmp(data, "GGUF", 4) == 0) return gguf_read(w, f);
    if (bytes >= 4 && memcmp(data, "PK\003\004", 4) == 0) return torch_read_zip(w, f);
    if (torch_is_legacy(data, bytes)) return torch_read_legacy(w, f);
    if (bytes >= 9 && data[8] == '{') return safetensors_read(w, f);
    if (bytes >= 19 && memcmp(data, "version https://git", 19) == 0)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: is a Git LFS pointer, not the weights; fetch the file itself (git lfs pull)",
                           f->view.path);
    if (text_ends(f->view.path, ".safetensors")) return safetensors_read(w, f);
    describe_start(data, bytes, start);
    return status_fail(SCA_ERR_FORMAT,
                       "%s: begins with %s, expected a safetensors, PyTorch (zip or pickle) or GGUF file",
                       f->view.path, start);
}

static sca_status file_new(weights *w, weight_file **out)
{
    weight_file *f = mem_zero(1, sizeof *f);
    if (!f) return mem_fail(sizeof *f, "weight file");
    f->next = w->files;
    w->files = f;
    *out = f;
    return SCA_OK;
}

static sca_status open_file(weights *w, const char *path, weight_file **out)
{
    TRY(file_new(w, out));
    TRY(file_map(path, &(*out)->view));
    return read_file(w, *out);
}

/* The shard of that name, opened at its first mention. */
static sca_status open_shard(weights *w, const char *dir, const char *index, const char *shard,
                             const weight_file **out)
{
    weight_file *f = NULL;
    if (!path_is_plain(shard))
        return status_fail(SCA_ERR_FORMAT, "%s: shard '%.200s' is no plain file name of the same folder", index,
                           shard);
    for (f = w->files; f; f = f->next)
        if (strcmp(path_name(f->view.path), shard) == 0) break;
    if (!f) {
        char *path = path_join(dir, shard);
        if (!path) return mem_fail(strlen(dir) + strlen(shard), "shard path");
        sca_status status = open_file(w, path, &f);
        mem_free(path);
        TRY(status);
    }
    *out = f;
    return SCA_OK;
}

static sca_status check_promise(const weights *w, const char *index, const char *name, const char *shard)
{
    const weight *t = weights_find(w, name);
    if (t && strcmp(path_name(t->file), shard) == 0) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT,
                       "%s: says that tensor '%.300s' is in %.200s, found it %s; fetch the shards again", index,
                       name, shard, t ? path_name(t->file) : "in no shard");
}

static sca_status read_index(weights *w, const char *dir, const char *index, json_t *root)
{
    const char *name;
    json_t *shard, *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return status_fail(SCA_ERR_FORMAT, "%s: found no 'weight_map', expected an object of tensor: shard", index);
    json_object_foreach(map, name, shard)
    {
        const weight_file *f;
        const char *text;
        TRY(json_need_text(map, name, index, &text));
        TRY(open_shard(w, dir, index, text, &f));
    }
    TRY(weights_sort(w));
    json_object_foreach(map, name, shard) TRY(check_promise(w, index, name, json_string_value(shard)));
    return SCA_OK;
}

static sca_status open_index(weights *w, const char *dir, const char *path)
{
    json_t *root = NULL;
    TRY(json_open(path, &root));
    sca_status status = read_index(w, dir, path, root);
    json_decref(root);
    return status;
}

/* Opens dir/name if it exists. */
static sca_status try_member(weights *w, const char *dir, const char *name, bool *found)
{
    sca_status status = SCA_OK;
    weight_file *f;
    char *path = path_join(dir, name);
    if (!path) return mem_fail(strlen(dir) + strlen(name), "path");
    *found = file_exists(path);
    if (*found) status = text_ends(name, ".json") ? open_index(w, dir, path) : open_file(w, path, &f);
    mem_free(path);
    return status;
}

static sca_status open_dir(weights *w, const char *dir)
{
    /* The order in which the official loader looks. */
    static const char *const names[] = { "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                         "pytorch_model.bin.index.json" };
    bool found = false;
    for (size_t i = 0; i < LENGTH(names) && !found; i++) TRY(try_member(w, dir, names[i], &found));
    if (found) return SCA_OK;
    return status_fail(SCA_ERR_IO,
                       "%s: no weights here, expected model.safetensors, model.safetensors.index.json, "
                       "pytorch_model.bin or pytorch_model.bin.index.json",
                       dir);
}

sca_status weights_open(const char *path, weights **out)
{
    sca_status status;
    weight_file *f;
    *out = NULL;
    weights *w = mem_zero(1, sizeof *w);
    if (!w) return mem_fail(sizeof *w, "weights");
    w->path = text_copy(path, strlen(path));
    if (!w->path) TRY_GOTO(fail, mem_fail(strlen(path), "path"));
    if (dir_exists(path))
        TRY_GOTO(fail, open_dir(w, path));
    else
        TRY_GOTO(fail, open_file(w, path, &f));
    TRY_GOTO(fail, weights_sort(w));
    *out = w;
    return SCA_OK;
fail:
    weights_close(w);
    return status;
}

sca_status weights_parse(const void *data, size_t bytes, const char *name, weights **out)
{
    sca_status status;
    weight_file *f;
    *out = NULL;
    weights *w = mem_zero(1, sizeof *w);
    if (!w) return mem_fail(sizeof *w, "weights");
    TRY_GOTO(fail, file_new(w, &f));
    f->borrowed = true;
    f->view = (file_view){ .data = data, .bytes = bytes, .path = text_copy(name, strlen(name)) };
    w->path = text_copy(name, strlen(name));
    if (!w->path || !f->view.path) TRY_GOTO(fail, mem_fail(strlen(name), "path"));
    TRY_GOTO(fail, read_file(w, f));
    TRY_GOTO(fail, weights_sort(w));
    *out = w;
    return SCA_OK;
fail:
    weights_close(w);
    return status;
}

static void file_free(weight_file *f)
{
    gguf_free(f->gguf);
    mem_free(f->storages);
    zip_close(f->z);
    if (f->borrowed)
        mem_free(f->view.path);
    else
        file_unmap(&f->view);
    mem_free(f);
}

void weights_close(weights *w)
{
    if (!w) return;
    for (size_t i = 0; i < w->n; i++) mem_free(w->slots[i].name);
    for (weight_file *f = w->files, *next; f; f = next) {
        next = f->next;
        file_free(f);
    }
    mem_free(w->by_name);
    mem_free(w->slots);
    mem_free(w->path);
    mem_free(w);
}

/* ---- finding --------------------------------------------------------------------------------------------- */

size_t weights_count(const weights *w) { return w->n; }

const weight *weights_at(const weights *w, size_t i) { return &w->slots[i].w; }

const weight *weights_find(const weights *w, const char *name)
{
    size_t low = 0, high = w->by_name ? w->n : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int c = strcmp(w->by_name[middle]->name, name);
        if (c == 0) return w->by_name[middle];
        if (c < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- values ---------------------------------------------------------------------------------------------- */

static float half_at(const uint8_t *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return f16_to_f32(h);
}

static void dequantise(element e, const uint8_t *block, float out[QUANT_BLOCK])
{
    float scale = half_at(block);
    if (e == EL_Q8_0) {
        for (int i = 0; i < QUANT_BLOCK; i++) out[i] = (float)(int8_t)block[2 + i] * scale;
        return;
    }
    const uint8_t *q = block + (e == EL_Q4_1 ? 4 : 2);
    float least = e == EL_Q4_1 ? half_at(block + 2) : 0;
    int zero = e == EL_Q4_1 ? 0 : 8;
    for (int i = 0; i < QUANT_BLOCK / 2; i++) { /* low nibbles are the first half */
        float low = (float)((q[i] & 15) - zero) * scale, high = (float)((q[i] >> 4) - zero) * scale;
        out[i] = e == EL_Q4_1 ? low + least : low;
        out[i + QUANT_BLOCK / 2] = e == EL_Q4_1 ? high + least : high;
    }
}

static void read_quantised(element e, const uint8_t *src, size_t count, dtype to, uint8_t *out)
{
    float values[CHUNK];
    while (count > 0) {
        size_t n = count < CHUNK ? count : CHUNK;
        for (size_t i = 0; i < n; i += QUANT_BLOCK, src += block_bytes(e)) dequantise(e, src, values + i);
        dtype_convert(to, out, DT_F32, values, n);
        out += n * dtype_bytes(to);
        count -= n;
    }
}

/* `count` elements that lie one after the other, at any alignment. */
static void read_run(element e, const uint8_t *src, size_t count, dtype to, uint8_t *out)
{
    double aligned[CHUNK];
    size_t size = element_bytes(e);
    if (size == 0) {
        read_quantised(e, src, count, to, out);
        return;
    }
    if ((uintptr_t)src % size == 0) {
        dtype_convert(to, out, element_type(e), src, count);
        return;
    }
    while (count > 0) {
        size_t n = count < CHUNK ? count : CHUNK;
        memcpy(aligned, src, n * size);
        dtype_convert(to, out, element_type(e), aligned, n);
        src += n * size;
        out += n * dtype_bytes(to);
        count -= n;
    }
}

static void read_strides(const weight *t, const stored *s, dtype to, uint8_t *out)
{
    double values[CHUNK];
    size_t size = element_bytes(s->kind), filled = 0;
    int64_t at[8] = { 0 }, offset = 0;
    for (int64_t i = 0; i < t->count; i++) {
        memcpy((uint8_t *)values + filled * size, s->first + (size_t)offset * size, size);
        if (++filled == CHUNK || i + 1 == t->count) {
            dtype_convert(to, out, element_type(s->kind), values, filled);
            out += filled * dtype_bytes(to);
            filled = 0;
        }
        for (int axis = t->ndim - 1; axis >= 0; axis--) {
            offset += s->stride[axis];
            if (++at[axis] < t->dim[axis]) break;
            offset -= s->stride[axis] * t->dim[axis];
            at[axis] = 0;
        }
    }
}

static void read_rotary(const weight *t, const stored *s, dtype to, uint8_t *out)
{
    int64_t rows = t->dim[0], head = rows / s->heads, half = head / 2;
    size_t width = (size_t)(t->ndim > 1 ? t->dim[1] : 1), row = element_span(s->kind, width);
    for (int64_t r = 0; r < rows; r++) {
        int64_t in_head = r % head, target = r - in_head + in_head % 2 * half + in_head / 2;
        read_run(s->kind, s->first + (size_t)r * row, width, to, out + (size_t)target * width * dtype_bytes(to));
    }
}

static sca_status read_transposed(const weight *t, const stored *s, dtype to, uint8_t *out)
{
    size_t rows = (size_t)t->dim[1], width = (size_t)t->dim[0], size = dtype_bytes(to);
    size_t bytes = element_span(s->kind, width);
    uint8_t *row = mem_alloc(width * size);
    if (!row) return mem_fail(width * size, t->name);
    for (size_t r = 0; r < rows; r++) {
        read_run(s->kind, s->first + r * bytes, width, to, row);
        for (size_t i = 0; i < width; i++) memcpy(out + (i * rows + r) * size, row + i * size, size);
    }
    mem_free(row);
    return SCA_OK;
}

static sca_status check_storage(const stored *s)
{
    const uint8_t *data;
    if (!s->storage || atomic_load_explicit(&s->storage->verified, memory_order_acquire)) return SCA_OK;
    TRY(zip_view(s->storage->z, s->storage->entry, &data));
    atomic_store_explicit(&s->storage->verified, true, memory_order_release);
    return SCA_OK;
}

sca_status weight_map(const weight *t)
{
    const stored *s = t->hidden;
    TRY(check_storage(s));
    if (s->mapped) ((weight *)t)->data = s->mapped; /* the list is ours, only callers may not write to it */
    return SCA_OK;
}

sca_status weight_read(const weight *t, dtype to, void *out)
{
    const stored *s = t->hidden;
    if (!t->numeric)
        return status_fail(SCA_ERR_FORMAT, "%s: tensor '%.300s' has elements of type %s, expected floating point",
                           t->file, t->name, s->kind_name);
    if (!dtype_is_float(to))
        return status_fail(SCA_ERR_ARGUMENT,
                           "%s: tensor '%.300s' was asked for as %s, expected f32, f64, f16 or bf16", t->file,
                           t->name, dtype_name(to));
    TRY(check_storage(s));
    if (t->count == 0) return SCA_OK;
    switch (s->order) {
    case ORDER_ROWS: read_run(s->kind, s->first, (size_t)t->count, to, out); break;
    case ORDER_STRIDES: read_strides(t, s, to, out); break;
    case ORDER_ROTARY: read_rotary(t, s, to, out); break;
    case ORDER_TRANSPOSED: return read_transposed(t, s, to, out);
    }
    return SCA_OK;
}

void weight_drop(const weight *t)
{
    const stored *s = t->hidden;
    if (s->file->borrowed || s->span == 0) return;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), from = (uintptr_t)s->first / page * page;
    uintptr_t to = (uintptr_t)s->first + s->span;
    /* Whole pages, neighbours' edges included: they come back from the file when they are wanted. */
    madvise((void *)from, to - from, MADV_DONTNEED);
}
