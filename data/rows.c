/* rows.c - the index of a data set: images in order, each with a chain of regions, and all texts in one block.
 *
 * Annotation files have gigabytes and tens of millions of regions: a region costs 40 bytes and its phrases here, and
 * a category's name is kept once.
 */
#include "data/dataset_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers by id ------------------------------------------------------------------------------------------ */

static size_t place_of(const id_map *m, int64_t id)
{
    uint64_t h = (uint64_t)id * 0x9e3779b97f4a7c15u;
    size_t at = (size_t)(h ^ (h >> 32)) & (m->cap - 1);
    while (m->values[at] != ID_NONE && m->keys[at] != id) at = (at + 1) & (m->cap - 1);
    return at;
}

uint32_t id_map_get(const id_map *m, int64_t id) { return m->cap ? m->values[place_of(m, id)] : ID_NONE; }

static sca_status map_grow(id_map *m)
{
    id_map wider = { .cap = m->cap ? 2 * m->cap : 64, .n = m->n };
    size_t bytes;
    if (!size_mul(wider.cap, sizeof *wider.keys, &bytes)) return mem_fail(SIZE_MAX, "an index of ids");
    wider.keys = mem_alloc(bytes);
    wider.values = mem_alloc(wider.cap * sizeof *wider.values);
    if (!wider.keys || !wider.values) {
        id_map_free(&wider);
        return mem_fail(bytes, "an index of ids");
    }
    memset(wider.values, 0xff, wider.cap * sizeof *wider.values);
    for (size_t i = 0; i < m->cap; i++) {
        if (m->values[i] == ID_NONE) continue;
        size_t at = place_of(&wider, m->keys[i]);
        wider.keys[at] = m->keys[i];
        wider.values[at] = m->values[i];
    }
    id_map_free(m);
    *m = wider;
    return SCA_OK;
}

sca_status id_map_add(id_map *m, int64_t id, uint32_t *value)
{
    if (m->n >= m->cap / 2) TRY(map_grow(m));
    size_t at = place_of(m, id);
    if (m->values[at] != ID_NONE) {
        *value = m->values[at];
        return SCA_OK;
    }
    m->keys[at] = id;
    m->values[at] = *value;
    m->n++;
    return SCA_OK;
}

void id_map_free(id_map *m)
{
    mem_free(m->keys);
    mem_free(m->values);
    *m = (id_map){ 0 };
}

/* ---- building ----------------------------------------------------------------------------------------------- */

/* Room for one more of `count` elements. */
static sca_status grow(void **items, size_t count, size_t *cap, size_t size, const char *what)
{
    size_t bytes;
    if (count < *cap) return SCA_OK;
    if (count >= ID_NONE - 1) return status_fail(SCA_ERR_UNSUPPORTED, "more than 4294967293 %s in one set", what);
    size_t wider = *cap ? *cap + *cap / 2 : 64;
    if (!size_mul(wider, size, &bytes)) return mem_fail(SIZE_MAX, what);
    void *p = mem_resize(*items, bytes);
    if (!p) return mem_fail(bytes, what);
    *items = p;
    *cap = wider;
    return SCA_OK;
}

sca_status rows_file(dataset *d, const char *path)
{
    ASSERT(d->n_files < DATASET_FILES);
    if (!(d->files[d->n_files] = text_copy(path, strlen(path)))) return mem_fail(strlen(path), "a path");
    d->file = d->n_files++;
    return SCA_OK;
}

sca_status rows_bad(dataset *d, const char *what, bool has_id, int64_t id, dataset_reason why)
{
    void *bad = d->bad;
    sca_status status = grow(&bad, (size_t)d->counts.bad, &d->bad_cap, sizeof *d->bad, "bad records");
    d->bad = bad;
    TRY(status);
    d->bad[d->counts.bad++] =
        (bad_row){ .id = id, .what = what, .file = (uint8_t)d->file, .reason = (uint8_t)why, .has_id = has_id };
    d->counts.by_reason[why]++;
    return SCA_OK;
}

sca_status rows_text(dataset *d, const char *text, size_t bytes, size_t *at)
{
    *at = d->text.bytes;
    str_put_bytes(&d->text, text, bytes);
    str_putc(&d->text, 0);
    return d->text.failed ? mem_fail(*at + bytes, "the texts of a data set") : SCA_OK;
}

sca_status rows_image(dataset *d, int64_t id, bool *fresh, image_row **row)
{
    void *images = d->images;
    uint32_t at = (uint32_t)d->n_images;
    sca_status status = grow(&images, d->n_images, &d->images_cap, sizeof *d->images, "images");
    d->images = images;
    TRY(status);
    TRY(id_map_add(&d->by_id, id, &at));
    *row = &d->images[at];
    *fresh = at == d->n_images;
    if (!*fresh) return SCA_OK;
    **row = (image_row){ .id = id, .file = ROWS_NO_FILE, .first = ID_NONE, .last = ID_NONE };
    d->n_images++;
    return SCA_OK;
}

static sca_status grow_masks(dataset *d)
{
    void *masks = d->mask_at;
    sca_status status = grow(&masks, d->n_regions, &d->masks_cap, sizeof *d->mask_at, "masks");
    d->mask_at = masks;
    TRY(status);
    d->mask_at[d->n_regions] = ROWS_NO_FILE;
    return SCA_OK;
}

sca_status rows_region(dataset *d, const region_row *region)
{
    void *regions = d->regions;
    sca_status status = grow(&regions, d->n_regions, &d->regions_cap, sizeof *d->regions, "regions");
    d->regions = regions;
    TRY(status);
    if (d->with_masks) TRY(grow_masks(d));
    d->regions[d->n_regions++] = *region;
    return SCA_OK;
}

void rows_link(dataset *d, uint32_t image, uint32_t region)
{
    image_row *row = &d->images[image];
    d->regions[region].next = ID_NONE;
    if (row->first == ID_NONE)
        row->first = region;
    else
        d->regions[row->last].next = region;
    row->last = region;
    row->n++;
}

/* ---- regions of an image that repeat an id -------------------------------------------------------------------- */

typedef struct numbered {
    int64_t id;
    uint32_t region, order;
} numbered;

static int by_id(const void *a, const void *b)
{
    const numbered *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static bool ascending(const dataset *d, const image_row *row)
{
    for (uint32_t r = row->first; r != ID_NONE && d->regions[r].next != ID_NONE; r = d->regions[r].next)
        if (d->regions[r].id >= d->regions[d->regions[r].next].id) return false;
    return true;
}

/* Links the image's regions anew, without those that are marked. */
static void relink(dataset *d, image_row *row)
{
    uint32_t image = (uint32_t)(row - d->images), next = row->first;
    row->first = row->last = ID_NONE;
    row->n = 0;
    while (next != ID_NONE) {
        uint32_t r = next;
        next = d->regions[r].next;
        if (d->regions[r].n > 0) rows_link(d, image, r);
    }
}

/* The first one of an id stays. */
static sca_status drop_repeated(dataset *d, image_row *row, str *room)
{
    if (row->n < 2 || ascending(d, row)) return SCA_OK;
    str_clear(room);
    uint32_t order = 0;
    for (uint32_t r = row->first; r != ID_NONE; r = d->regions[r].next) {
        numbered one = { d->regions[r].id, r, order++ };
        str_put_bytes(room, &one, sizeof one);
    }
    if (room->failed) return mem_fail(room->bytes, "the ids of an image's regions");
    numbered *all = (void *)room->data;
    bool any = false;
    qsort(all, row->n, sizeof *all, by_id);
    for (uint32_t i = 1; i < row->n; i++) {
        if (all[i].id != all[i - 1].id) continue;
        d->regions[all[i].region].n = 0;
        any = true;
        TRY(rows_bad(d, "region", true, all[i].id, DATASET_REPEATED));
    }
    if (any) relink(d, row);
    return SCA_OK;
}

sca_status rows_keep(dataset *d, bool (*keep)(const image_row *row))
{
    size_t n = 0;
    str room = { 0 };
    sca_status status = SCA_OK;
    for (size_t i = 0; i < d->n_images && status == SCA_OK; i++) {
        if (!keep(&d->images[i])) continue;
        status = drop_repeated(d, &d->images[i], &room);
        d->images[n++] = d->images[i];
    }
    str_free(&room);
    TRY(status);
    d->n_images = n;
    d->counts.images = (int64_t)n;
    d->counts.regions = d->counts.phrases = 0;
    for (size_t i = 0; i < n; i++) {
        d->counts.regions += d->images[i].n;
        for (uint32_t r = d->images[i].first; r != ID_NONE; r = d->regions[r].next)
            d->counts.phrases += d->regions[r].n;
    }
    return SCA_OK;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

/* The file itself, or the one of that name in a folder of the kind; if there is none, where it should be. */
static sca_status find_image(const dataset *d, const char *file, char **path)
{
    *path = path_join(d->set.images, file);
    if (!*path) return mem_fail(strlen(file), "a path");
    if (file_exists(*path)) return SCA_OK;
    for (size_t i = 0; d->kind->folders && d->kind->folders[i]; i++) {
        str inner = { 0 };
        str_printf(&inner, "%s/%s/%s", d->set.images, d->kind->folders[i], file);
        if (!inner.failed && file_exists(str_text(&inner))) {
            mem_free(*path);
            return str_take(&inner, path);
        }
        bool failed = inner.failed;
        str_free(&inner);
        if (failed) return mem_fail(strlen(file), "a path");
    }
    return SCA_OK;
}

/* Bytes of n texts that follow each other. */
static size_t texts_bytes(const char *text, size_t n)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += strlen(text + bytes) + 1;
    return bytes;
}

static sca_status sample_alloc(const dataset *d, const image_row *row, data_sample *out)
{
    size_t phrases = 0, bytes = 0;
    for (uint32_t r = row->first; r != ID_NONE; r = d->regions[r].next) {
        phrases += d->regions[r].n;
        bytes += texts_bytes(d->text.data + d->regions[r].text, d->regions[r].n);
    }
    out->regions = mem_zero(row->n, sizeof *out->regions);
    out->phrases = mem_zero(phrases, sizeof *out->phrases);
    out->text = mem_alloc(bytes);
    if (out->regions && out->phrases && out->text) return SCA_OK;
    return mem_fail(bytes + phrases * sizeof *out->phrases + row->n * sizeof *out->regions,
                    "the regions of an image");
}

static int64_t mask_of(const dataset *d, uint32_t region)
{
    return d->mask_at && d->mask_at[region] != ROWS_NO_FILE ? (int64_t)region : -1;
}

static void fill_regions(const dataset *d, const image_row *row, data_sample *out)
{
    const char **phrase = out->phrases;
    char *text = out->text;
    for (uint32_t r = row->first; r != ID_NONE; r = d->regions[r].next) {
        const region_row *from = &d->regions[r];
        sample_region *to = &out->regions[out->n_regions++];
        const int32_t *b = from->box;
        *to = (sample_region){ .id = from->id,
                               .box = { b[0], b[1], (double)b[0] + b[2], (double)b[1] + b[3] },
                               .phrases = phrase,
                               .n_phrases = from->n,
                               .mask = mask_of(d, r) };
        size_t bytes = texts_bytes(d->text.data + from->text, from->n);
        memcpy(text, d->text.data + from->text, bytes);
        for (uint32_t i = 0; i < from->n; i++) {
            *phrase++ = text;
            text += strlen(text) + 1;
        }
    }
}

sca_status rows_read(const dataset *d, int64_t index, data_sample *out)
{
    const image_row *row = &d->images[index];
    sca_status status;
    *out = (data_sample){ .image_id = row->id, .width = row->width, .height = row->height };
    TRY_GOTO(fail, find_image(d, d->text.data + row->file, &out->path));
    TRY_GOTO(fail, sample_alloc(d, row, out));
    fill_regions(d, row, out);
    return SCA_OK;
fail:
    sample_free(out);
    return status;
}

/* ---- members of records ------------------------------------------------------------------------------------- */

bool member_id(const json_t *o, const char *key, int64_t *out)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_integer(v)) return false;
    *out = json_integer_value(v);
    return true;
}

bool member_text(const json_t *o, const char *key, const char **text, size_t *bytes)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_string(v)) return false;
    *text = json_string_value(v);
    *bytes = json_string_length(v);
    return strlen(*text) == *bytes;
}

static bool member_side(const json_t *o, const char *key, int32_t *out)
{
    const json_t *v = json_object_get(o, key);
    *out = 0;
    if (!v || json_is_null(v)) return true;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > INT32_MAX) return false;
    *out = (int32_t)json_integer_value(v);
    return true;
}

bool member_size(const json_t *o, int32_t *width, int32_t *height)
{
    return member_side(o, "width", width) && member_side(o, "height", height);
}

bool box_from(const double xywh[4], int32_t box[4])
{
    for (int i = 0; i < 4; i++) {
        if (!isfinite(xywh[i]) || fabs(xywh[i]) > INT32_MAX || (i >= 2 && xywh[i] < 0)) return false;
        box[i] = (int32_t)xywh[i];
    }
    return true;
}

bool member_box(const json_t *o, const char *key, int32_t box[4])
{
    const json_t *v = json_object_get(o, key);
    double xywh[4];
    if (json_array_size(v) != 4) return false;
    for (size_t i = 0; i < 4; i++) {
        const json_t *number = json_array_get(v, i);
        if (!json_is_number(number)) return false;
        xywh[i] = json_number_value(number);
    }
    return box_from(xywh, box);
}

bool path_stays(const char *name)
{
    for (const char *p = name;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.')) return false;
        p += n;
        if (*p == 0) return true;
    }
}
