/* store.c - kind store: an index, image files and embeddings that sca prepare wrote, read from a mapped file.
 *
 * Whatever is looked up by many threads lies in the file; what is read is checked when it is read. */
#include "data/store.h"

#include <string.h>

typedef struct places { /* n + 1 numbers that do not fall, and what they point into */
    const int64_t *first;
    int64_t n;
    const char *bytes;
    int64_t n_bytes;
} places;

typedef struct store {
    hdf5 *file;
    json_t *about;
    int64_t images, regions;
    const int64_t *image_id, *region_id;
    const int32_t *size, *decoded, *box;                                /* (n, 2) (n, 2) (R, 4) */
    places paths, image_regions, region_phrases, phrases, masks, files; /* files.first NULL: not packed */
    const uint8_t *embeddings;                                          /* NULL: none */
    embeddings_info embedding;
    const char *folder; /* of images */
} store;

/* ---- opening ------------------------------------------------------------------------------------------------------------ */

static sca_status get_numbers(const store *s, const char *name, int64_t n, const int64_t **out)
{
    const void *p;
    TRY(hdf5_get(s->file, name, HDF5_I64, 1, &n, &p));
    *out = p;
    return SCA_OK;
}

static sca_status get_table(const store *s, const char *name, int64_t rows, int64_t columns, const void **out)
{
    int64_t dim[2] = { rows, columns };
    return hdf5_get(s->file, name, HDF5_I32, 2, dim, out);
}

/* blob NULL: the numbers count `most` of something else. */
static sca_status get_places(const dataset *d, const char *name, int64_t n, const char *blob, int64_t most,
                             places *out)
{
    const store *s = d->own;
    const void *p = NULL;
    *out = (places){ .n = n, .n_bytes = blob ? -1 : most };
    TRY(get_numbers(s, name, n + 1, &out->first));
    if (blob) TRY(hdf5_get(s->file, blob, HDF5_U8, 1, &out->n_bytes, &p));
    out->bytes = p;
    bool rise = out->first[0] == 0 && (out->n_bytes < 0 || out->first[n] == out->n_bytes);
    for (int64_t i = 0; i < n && rise; i++) rise = out->first[i] <= out->first[i + 1];
    if (out->n_bytes < 0) out->n_bytes = out->first[n];
    if (rise) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT,
                       "%s: array '%s' does not rise from 0 to what it points into; the store is "
                       "damaged, make it anew with sca prepare",
                       d->set.annotations, name);
}

static sca_status open_index(dataset *d, store *s)
{
    int64_t n = -1;
    const void *p;
    TRY(hdf5_get(s->file, "image_id", HDF5_I64, 1, &n, &p));
    s->image_id = p;
    s->images = n;
    TRY(get_table(s, "image_size", n, 2, &p));
    s->size = p;
    TRY(get_table(s, "image_decoded", n, 2, &p));
    s->decoded = p;
    TRY(get_places(d, "image_path", n, "paths", 0, &s->paths));
    TRY(get_places(d, "image_regions", n, NULL, -1, &s->image_regions));
    int64_t R = s->regions = s->image_regions.n_bytes;
    TRY(get_numbers(s, "region_id", R, &s->region_id));
    TRY(get_table(s, "region_box", R, 4, &p));
    s->box = p;
    TRY(get_places(d, "region_phrases", R, NULL, -1, &s->region_phrases));
    TRY(get_places(d, "phrase_text", s->region_phrases.n_bytes, "phrases", 0, &s->phrases));
    TRY(get_places(d, "region_mask", R, "masks", 0, &s->masks));
    if (!hdf5_has(s->file, "file_bytes")) return SCA_OK;
    return get_places(d, "file_bytes", n, "files", 0, &s->files);
}

static sca_status open_embeddings(dataset *d, store *s)
{
    const char *file = d->set.annotations, *type = NULL;
    embeddings_info *e = &s->embedding;
    int64_t dim[3] = { s->images, -1, -1 }, grid = 0;
    const void *p;
    if (!hdf5_has(s->file, "embeddings")) return SCA_OK;
    TRY(json_need_text(s->about, "embeddings", file, &type));
    TRY(json_need_text(s->about, "encoder", file, &e->encoder));
    TRY(json_need_int(s->about, "grid", file, 1, 4096, &grid));
    e->f16 = strcmp(type, "f16") == 0;
    dim[1] = grid * grid;
    TRY(hdf5_get(s->file, "embeddings", e->f16 ? HDF5_F16 : HDF5_F32, 3, dim, &p));
    e->grid = (int)grid;
    if (dim[2] < 1 || dim[2] > 65536)
        return status_fail(SCA_ERR_FORMAT, "%s: embeddings with %lld channels, expected 1 to 65536", file,
                           (long long)dim[2]);
    e->channels = (int)dim[2];
    e->bytes = (size_t)(dim[1] * dim[2]) * (e->f16 ? 2 : 4);
    s->embeddings = p;
    return SCA_OK;
}

/* The store's own answer where the settings say nothing; another split than was asked for is an error. */
static sca_status take_settings(dataset *d, const store *s)
{
    const char *file = d->set.annotations, *split = "", *task = "", *name = "";
    TRY(json_may_text(s->about, "split", file, &split));
    TRY(json_may_text(s->about, "task", file, &task));
    TRY(json_may_text(s->about, "name", file, &name));
    if (d->set.split[0] && strcmp(d->set.split, split) != 0)
        return status_fail(SCA_ERR_ARGUMENT, "%s: the split is '%s', but the store holds '%s'", file, d->set.split,
                           split);
    set_text(d->set.split, sizeof d->set.split, split);
    if (!d->set.task[0]) set_text(d->set.task, sizeof d->set.task, task);
    if (!d->set.name[0]) set_text(d->set.name, sizeof d->set.name, name);
    return SCA_OK;
}

static sca_status read_about(dataset *d, store *s)
{
    const char *file = d->set.annotations;
    int64_t n = -1, format = 0;
    const void *text;
    TRY(hdf5_get(s->file, "about", HDF5_U8, 1, &n, &text));
    TRY(json_parse(text, (size_t)n, file, &s->about));
    TRY(json_need_int(s->about, "format", file, STORE_FORMAT, STORE_FORMAT, &format));
    TRY(json_may_int(s->about, "empty", file, 0, INT64_MAX, &d->counts.empty));
    TRY(json_may_int(s->about, "excluded", file, 0, INT64_MAX, &d->counts.excluded));
    s->folder = d->set.images[0] ? d->set.images : "";
    if (!d->set.images[0]) TRY(json_may_text(s->about, "images", file, &s->folder));
    return take_settings(d, s);
}

/* ---- records that were left out ----------------------------------------------------------------------------------------- */

static const char *const whats[] = {
    "image", "annotation", "region", "category", "ref", "segment", "record", "line"
};

static sca_status bad_file(dataset *d, const char *name)
{
    for (size_t i = 0; i < d->n_files; i++)
        if (strcmp(d->files[i], name) == 0) {
            d->file = i;
            return SCA_OK;
        }
    if (d->n_files == DATASET_FILES) return SCA_OK; /* of the last one, then */
    return rows_file(d, name);
}

/* FILE \t WHAT \t ID \t REASON */
static sca_status take_bad(dataset *d, char *line)
{
    char *field[4] = { line };
    int64_t id, reason;
    size_t what = 0;
    for (int i = 1; i < 4; i++) {
        field[i] = strchr(field[i - 1], '\t');
        if (!field[i]) return status_fail(SCA_ERR_FORMAT, "%s: array 'bad' is malformed", d->set.annotations);
        *field[i]++ = 0;
    }
    while (what < LENGTH(whats) - 1 && strcmp(whats[what], field[1]) != 0) what++;
    bool has_id = field[2][0] != '#';
    if (!text_to_int(field[2] + !has_id, INT64_MIN, INT64_MAX, &id) ||
        !text_to_int(field[3], 0, DATASET_REASONS - 1, &reason))
        return status_fail(SCA_ERR_FORMAT, "%s: array 'bad' is malformed", d->set.annotations);
    TRY(bad_file(d, field[0]));
    return rows_bad(d, whats[what], has_id, id, (dataset_reason)reason);
}

static sca_status read_bad(dataset *d, const store *s)
{
    int64_t n = -1;
    const void *p;
    TRY(hdf5_get(s->file, "bad", HDF5_U8, 1, &n, &p));
    sca_status status = SCA_OK;
    for (int64_t at = 0; at < n && status == SCA_OK;) {
        const char *line = (const char *)p + at, *end = memchr(line, '\n', (size_t)(n - at));
        size_t bytes = end ? (size_t)(end - line) : (size_t)(n - at);
        char *copy = text_copy(line, bytes);
        status = copy ? take_bad(d, copy) : mem_fail(bytes, "bad records");
        mem_free(copy);
        at += (int64_t)bytes + 1;
    }
    return status;
}

sca_status store_open(dataset *d)
{
    store *s = d->own = mem_zero(1, sizeof *s);
    if (!s) return mem_fail(sizeof *s, "a store");
    TRY(hdf5_open(d->set.annotations, &s->file));
    TRY(read_about(d, s));
    TRY(open_index(d, s));
    TRY(open_embeddings(d, s));
    TRY(read_bad(d, s));
    d->counts.images = s->images;
    d->counts.regions = s->regions;
    d->counts.phrases = s->phrases.n;
    return SCA_OK;
}

void store_close(dataset *d)
{
    store *s = d->own;
    if (!s) return;
    json_decref(s->about);
    hdf5_close(s->file);
    mem_free(s);
}

/* ---- reading -------------------------------------------------------------------------------------------------------------- */

static size_t bytes_of(const places *p, int64_t i) { return (size_t)(p->first[i + 1] - p->first[i]); }

static sca_status damaged(const dataset *d, const char *what, int64_t id)
{
    return status_fail(SCA_ERR_FORMAT, "%s: %s %lld is damaged; make the store anew with sca prepare",
                       d->set.annotations, what, (long long)id);
}

static sca_status fill_path(const dataset *d, const store *s, int64_t index, data_sample *out)
{
    size_t bytes = bytes_of(&s->paths, index);
    char *name = text_copy(s->paths.bytes + s->paths.first[index], bytes);
    if (!name) return mem_fail(bytes, "a path");
    bool fine = strlen(name) == bytes && path_stays(name);
    if (fine) out->path = s->folder[0] ? path_join(s->folder, name) : text_copy(name, bytes);
    mem_free(name);
    if (!fine) return damaged(d, "the path of image", s->image_id[index]);
    return out->path ? SCA_OK : mem_fail(bytes, "a path");
}

static sca_status fill_region(const dataset *d, const store *s, int64_t r, sample_region *to, const char ***phrase,
                              char **text)
{
    const int32_t *b = s->box + 4 * r;
    *to = (sample_region){ .id = s->region_id[r],
                           .box = { b[0], b[1], (double)b[0] + b[2], (double)b[1] + b[3] },
                           .phrases = *phrase,
                           .n_phrases = bytes_of(&s->region_phrases, r),
                           .mask = bytes_of(&s->masks, r) ? r : -1 };
    if (b[2] < 0 || b[3] < 0 || to->n_phrases == 0) return damaged(d, "region", to->id);
    for (size_t i = 0; i < to->n_phrases; i++) {
        int64_t p = s->region_phrases.first[r] + (int64_t)i;
        size_t bytes = bytes_of(&s->phrases, p);
        const char *from = s->phrases.bytes + s->phrases.first[p];
        if (!utf8_valid(from, bytes) || memchr(from, 0, bytes)) return damaged(d, "a phrase of region", to->id);
        memcpy(*text, from, bytes);
        (*text)[bytes] = 0;
        *(*phrase)++ = *text;
        *text += bytes + 1;
    }
    return SCA_OK;
}

static sca_status fill_regions(const dataset *d, const store *s, int64_t index, data_sample *out)
{
    int64_t from = s->image_regions.first[index], to = s->image_regions.first[index + 1];
    int64_t phrases = s->region_phrases.first[to] - s->region_phrases.first[from];
    const int64_t *text_at = s->phrases.first;
    size_t bytes =
        (size_t)(text_at[s->region_phrases.first[to]] - text_at[s->region_phrases.first[from]] + phrases);
    out->regions = mem_zero((size_t)(to - from), sizeof *out->regions);
    out->phrases = mem_zero((size_t)phrases, sizeof *out->phrases);
    out->text = mem_alloc(bytes);
    if (!out->regions || !out->phrases || !out->text) return mem_fail(bytes, "the regions of an image");
    const char **phrase = out->phrases;
    char *text = out->text;
    for (int64_t r = from; r < to; r++) TRY(fill_region(d, s, r, &out->regions[out->n_regions++], &phrase, &text));
    return SCA_OK;
}

sca_status store_read(const dataset *d, int64_t index, data_sample *out)
{
    const store *s = d->own;
    *out = (data_sample){ .image_id = s->image_id[index] };
    const int32_t *size = s->size + 2 * index;
    if (size[0] > 0 && size[1] > 0) {
        out->width = size[0];
        out->height = size[1];
    }
    sca_status status = fill_path(d, s, index, out);
    if (status == SCA_OK) status = fill_regions(d, s, index, out);
    if (status != SCA_OK) sample_free(out);
    return status;
}

bool store_size(const dataset *d, int64_t index, int *width, int *height)
{
    const store *s = d->own;
    *width = s->decoded[2 * index];
    *height = s->decoded[2 * index + 1];
    return *width > 0 && *height > 0;
}

sca_status store_image(const dataset *d, int64_t index, const sca_image_options *o, sca_image *out)
{
    const store *s = d->own;
    data_sample path = { 0 };
    TRY(fill_path(d, s, index, &path));
    sca_status status;
    if (!s->files.first)
        status = image_read(path.path, o, out);
    else if (bytes_of(&s->files, index) == 0)
        status = status_fail(SCA_ERR_FORMAT, "%s: it could not be read when the store was prepared", path.path);
    else
        status =
            image_decode(s->files.bytes + s->files.first[index], bytes_of(&s->files, index), path.path, o, out);
    sample_free(&path);
    return status;
}

sca_status store_mask(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                      mask_runs *out, bool *found)
{
    const store *s = d->own;
    (void)index;
    size_t bytes = bytes_of(&s->masks, r->mask);
    char *counts = text_copy(s->masks.bytes + s->masks.first[r->mask], bytes);
    if (!counts) return mem_fail(bytes, "a mask");
    sca_status status = mask_runs_parse(counts, width, height, out);
    mem_free(counts);
    *found = status == SCA_OK;
    return status == SCA_OK ? SCA_OK
                            : status_context(status, "%s: region %lld", d->set.annotations, (long long)r->id);
}

const embeddings_info *store_embeddings(const dataset *d)
{
    const store *s = d->own;
    return s->embeddings ? &s->embedding : NULL;
}

sca_status store_embedding(const dataset *d, int64_t index, void *out)
{
    const store *s = d->own;
    memcpy(out, s->embeddings + (size_t)index * s->embedding.bytes, s->embedding.bytes);
    return SCA_OK;
}
