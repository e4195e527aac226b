/* safetensors.c - reads and writes safetensors files, as strictly as the official reader: the data has no holes, no
 * overlaps and no rest. */
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADER_MOST = 100000000 }; /* the official limit */

/* ---- reading --------------------------------------------------------------------------------------------- */

typedef struct kind {
    const char *name;
    size_t bytes;
    element element;
} kind;

static const kind kinds[] = {
    { "F32", 4, EL_F32 },    { "F16", 2, EL_F16 },       { "BF16", 2, EL_BF16 },     { "F64", 8, EL_F64 },
    { "BOOL", 1, EL_OTHER }, { "U8", 1, EL_OTHER },      { "I8", 1, EL_OTHER },      { "U16", 2, EL_OTHER },
    { "I16", 2, EL_OTHER },  { "U32", 4, EL_OTHER },     { "I32", 4, EL_OTHER },     { "U64", 8, EL_OTHER },
    { "I64", 8, EL_OTHER },  { "F8_E5M2", 1, EL_OTHER }, { "F8_E4M3", 1, EL_OTHER },
};

typedef struct range {
    uint64_t from, to;
    size_t slot;
} range;

static int compare_ranges(const void *a, const void *b)
{
    const range *x = a, *y = b;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    if (x->to != y->to) return x->to < y->to ? -1 : 1;
    return x->slot < y->slot ? -1 : 1;
}

static sca_status read_kind(const weight_slot *slot, const json_t *info, const kind **out)
{
    const json_t *name = json_object_get(info, "dtype");
    for (size_t i = 0; i < LENGTH(kinds); i++)
        if (json_is_string(name) && strcmp(json_string_value(name), kinds[i].name) == 0) {
            *out = &kinds[i];
            return SCA_OK;
        }
    return slot_fail(slot, SCA_ERR_FORMAT,
                     "has dtype '%.100s', expected F32, F16, BF16, F64, BOOL or an integer type",
                     json_is_string(name) ? json_string_value(name) : "(no text)");
}

static sca_status read_shape(weight_slot *slot, const json_t *info)
{
    int64_t dim[LENGTH(slot->w.dim)] = { 0 };
    const json_t *shape = json_object_get(info, "shape");
    if (!json_is_array(shape))
        return slot_fail(slot, SCA_ERR_FORMAT, "has no 'shape', expected a list of integers");
    size_t n = json_array_size(shape);
    if (n > LENGTH(dim))
        return slot_fail(slot, SCA_ERR_FORMAT, "has %zu dimensions, expected at most %zu", n, LENGTH(dim));
    for (size_t i = 0; i < n; i++) {
        const json_t *d = json_array_get(shape, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return slot_fail(slot, SCA_ERR_FORMAT, "has a shape with something else than integers from 0 on");
        dim[i] = json_integer_value(d);
    }
    return slot_shape(slot, (int)n, dim);
}

static sca_status read_range(const weight_slot *slot, const json_t *info, uint64_t data_bytes, size_t width,
                             range *out)
{
    const json_t *offsets = json_object_get(info, "data_offsets");
    const json_t *a = json_array_get(offsets, 0), *b = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(a) || !json_is_integer(b))
        return slot_fail(slot, SCA_ERR_FORMAT, "has no 'data_offsets', expected two integers");
    int64_t from = json_integer_value(a), to = json_integer_value(b), bytes = slot->w.count * (int64_t)width;
    if (from < 0 || to < from || (uint64_t)to > data_bytes)
        return slot_fail(
            slot, SCA_ERR_FORMAT,
            "lies at %lld to %lld, expected it within the %llu bytes of data; the file is cut or damaged",
            (long long)from, (long long)to, (unsigned long long)data_bytes);
    if (to - from != bytes)
        return slot_fail(slot, SCA_ERR_FORMAT, "has %lld bytes, expected %lld from its shape and dtype",
                         (long long)(to - from), (long long)bytes);
    out->from = (uint64_t)from;
    out->to = (uint64_t)to;
    return SCA_OK;
}

static sca_status read_entry(weights *w, weight_file *file, const char *name, const json_t *info,
                             const uint8_t *data, size_t data_bytes, range *out)
{
    weight_slot *slot;
    const kind *k;
    TRY(weights_add(w, file, name, strlen(name), &slot));
    if (!json_is_object(info))
        return slot_fail(slot, SCA_ERR_FORMAT, "is no object, expected dtype, shape and data_offsets");
    TRY(read_kind(slot, info, &k));
    TRY(read_shape(slot, info));
    TRY(read_range(slot, info, data_bytes, k->bytes, out));
    out->slot = w->n - 1;
    slot_place(slot, k->element, k->name, ORDER_ROWS, data + out->from, out->to - out->from);
    return SCA_OK;
}

static sca_status check_ranges(const weights *w, const weight_file *file, range *ranges, size_t n,
                               uint64_t data_bytes)
{
    uint64_t end = 0;
    qsort(ranges, n, sizeof *ranges, compare_ranges);
    for (size_t i = 0; i < n; end = ranges[i].to, i++)
        if (ranges[i].from != end)
            return slot_fail(&w->slots[ranges[i].slot], SCA_ERR_FORMAT,
                             "begins at %llu, expected %llu: %s; the file is damaged",
                             (unsigned long long)ranges[i].from, (unsigned long long)end,
                             ranges[i].from < end ? "it overlaps the one before" : "there is a hole");
    if (end != data_bytes)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: has %llu bytes of data, expected %llu from its header; the file is damaged",
                           file->view.path, (unsigned long long)data_bytes, (unsigned long long)end);
    return SCA_OK;
}

static sca_status check_metadata(const weight_file *file, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return status_fail(SCA_ERR_FORMAT, "%s: '__metadata__' is no object, expected texts", file->view.path);
    json_object_foreach(metadata, key, value) if (!json_is_string(value)) return status_fail(
        SCA_ERR_FORMAT, "%s: '__metadata__' holds '%.100s', which is no text", file->view.path, key);
    return SCA_OK;
}

static sca_status read_header(weights *w, weight_file *file, json_t *header, const uint8_t *data, size_t data_bytes)
{
    sca_status status = SCA_OK;
    const char *name;
    json_t *info;
    size_t n = 0;
    if (!json_is_object(header))
        return status_fail(SCA_ERR_FORMAT, "%s: the header is no object, expected tensors by name",
                           file->view.path);
    range *ranges = mem_zero(json_object_size(header) + 1, sizeof *ranges);
    if (!ranges) return mem_fail(json_object_size(header) * sizeof *ranges, "tensor list");
    json_object_foreach(header, name, info)
    {
        if (strcmp(name, "__metadata__") == 0)
            TRY_GOTO(done, check_metadata(file, info));
        else
            TRY_GOTO(done, read_entry(w, file, name, info, data, data_bytes, &ranges[n++]));
    }
    status = check_ranges(w, file, ranges, n, data_bytes);
done:
    mem_free(ranges);
    return status;
}

sca_status safetensors_read(weights *w, weight_file *file)
{
    const uint8_t *data = file->view.data;
    uint64_t bytes = file->view.bytes, header_bytes = 0;
    json_t *header;
    if (bytes < 8)
        return status_fail(SCA_ERR_FORMAT, "%s: has %llu bytes, too few for a safetensors file; it is cut",
                           file->view.path, (unsigned long long)bytes);
    for (int i = 7; i >= 0; i--) header_bytes = header_bytes << 8 | data[i];
    if (header_bytes > HEADER_MOST || header_bytes > bytes - 8)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: says that its header has %llu bytes, expected at most %llu; the file is cut or no "
                           "safetensors file",
                           file->view.path, (unsigned long long)header_bytes,
                           (unsigned long long)(bytes - 8 < HEADER_MOST ? bytes - 8 : HEADER_MOST));
    if (header_bytes == 0 || data[8] != '{')
        return status_fail(SCA_ERR_FORMAT, "%s: the header does not begin with '{': no safetensors file",
                           file->view.path);
    TRY(json_parse((const char *)data + 8, header_bytes, file->view.path, &header));
    sca_status status = read_header(w, file, header, data + 8 + header_bytes, bytes - 8 - header_bytes);
    json_decref(header);
    return status;
}

/* ---- writing --------------------------------------------------------------------------------------------- */

struct safetensors_out {
    file_out *file;
    char *path;
    uint64_t written, expected;
};

static const char *kind_of(dtype t)
{
    switch (t) {
    case DT_F32: return "F32";
    case DT_F16: return "F16";
    case DT_BF16: return "BF16";
    case DT_F64: return "F64";
    default: return NULL;
    }
}

static sca_status put_entry(str *header, const char *path, const weight_entry *e, uint64_t *offset)
{
    uint64_t bytes = dtype_bytes(e->type);
    if (!kind_of(e->type) || e->ndim < 0 || e->ndim > (int)LENGTH(e->dim))
        return status_fail(SCA_ERR_ARGUMENT,
                           "%s: '%s' is %s with %d dimensions, expected f32, f16, bf16 or f64 and up to %zu", path,
                           e->name, dtype_name(e->type), e->ndim, LENGTH(e->dim));
    json_put_text(header, e->name, strlen(e->name));
    str_printf(header, ":{\"dtype\":\"%s\",\"shape\":[", kind_of(e->type));
    for (int i = 0; i < e->ndim; i++) {
        str_printf(header, "%s%lld", i ? "," : "", (long long)e->dim[i]);
        if (e->dim[i] < 0 || __builtin_mul_overflow(bytes, (uint64_t)e->dim[i], &bytes) || bytes > INT64_MAX / 2)
            return status_fail(SCA_ERR_ARGUMENT, "%s: '%s' has a shape whose size overflows", path, e->name);
    }
    str_printf(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)*offset,
               (unsigned long long)(*offset + bytes));
    if (*offset + bytes > INT64_MAX) return status_fail(SCA_ERR_ARGUMENT, "%s: the sizes overflow", path);
    *offset += bytes;
    return SCA_OK;
}

static sca_status put_header(safetensors_out *f, const weight_entry *entries, size_t n)
{
    sca_status status = SCA_OK;
    uint8_t length[8];
    str header = { 0 };
    str_put(&header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n; i++) {
        str_putc(&header, ',');
        TRY_GOTO(done, put_entry(&header, f->path, &entries[i], &f->expected));
    }
    str_putc(&header, '}');
    while (header.bytes % 8 != 0 && !header.failed) str_putc(&header, ' '); /* aligns the data */
    if (header.failed) TRY_GOTO(done, mem_fail(header.bytes, "safetensors header"));
    if (header.bytes > HEADER_MOST)
        TRY_GOTO(done, status_fail(SCA_ERR_ARGUMENT, "%s: too many tensors for one file", f->path));
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header.bytes >> (8 * i));
    TRY_GOTO(done, file_out_put(f->file, length, sizeof length));
    TRY_GOTO(done, file_out_put(f->file, header.data, header.bytes));
done:
    str_free(&header);
    return status;
}

sca_status safetensors_create(const char *path, const weight_entry *entries, size_t n, safetensors_out **out)
{
    sca_status status;
    *out = NULL;
    safetensors_out *f = mem_zero(1, sizeof *f);
    if (!f) return mem_fail(sizeof *f, "weight writer");
    f->path = text_copy(path, strlen(path));
    if (!f->path) TRY_GOTO(fail, mem_fail(strlen(path), "path"));
    TRY_GOTO(fail, file_out_open(path, &f->file));
    TRY_GOTO(fail, put_header(f, entries, n));
    *out = f;
    return SCA_OK;
fail:
    safetensors_abort(f);
    return status;
}

sca_status safetensors_put(safetensors_out *f, const void *data, size_t bytes)
{
    if (bytes > f->expected - f->written)
        return status_fail(SCA_ERR_ARGUMENT, "%s: more data than the %llu bytes that its entries have", f->path,
                           (unsigned long long)f->expected);
    TRY(file_out_put(f->file, data, bytes));
    f->written += bytes;
    return SCA_OK;
}

sca_status safetensors_commit(safetensors_out *f)
{
    sca_status status;
    if (f->written != f->expected) {
        status = status_fail(SCA_ERR_STATE, "%s: %llu bytes of data were given, expected %llu", f->path,
                             (unsigned long long)f->written, (unsigned long long)f->expected);
    } else {
        status = file_out_commit(f->file);
        f->file = NULL;
    }
    safetensors_abort(f);
    return status;
}

void safetensors_abort(safetensors_out *f)
{
    if (!f) return;
    file_out_abort(f->file);
    mem_free(f->path);
    mem_free(f);
}
