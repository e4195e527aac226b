/* store_write.c - the arrays of a store, each written in one pass over the data set: memory stays small, whatever the
 * number of regions. */
#include "data/store.h"
#include "data/loader_parts.h"

#include <stdio.h>
#include <string.h>

typedef enum where { /* the arrays, in the order of the file; AT_*: numbers that say where things begin */
                     ABOUT,
                     BAD,
                     IMAGE_ID,
                     IMAGE_SIZE,
                     IMAGE_DECODED,
                     AT_PATHS,
                     PATHS,
                     AT_REGIONS,
                     REGION_ID,
                     REGION_BOX,
                     AT_PHRASES,
                     AT_TEXT,
                     TEXT,
                     AT_MASKS,
                     MASKS,
                     EMBEDDINGS, /* only what follows may be absent */
                     AT_FILES,
                     FILES
} where;
enum { ARRAYS = FILES + 1, BUFFER = 1 << 16 };

typedef struct tally {
    int64_t regions, phrases, text, paths, masks, with_mask, files;
    int64_t unreadable, no_area, bad_masks, blank;
    char first_unreadable[300];
} tally;

typedef struct writing {
    const store_source *from;
    hdf5_out *out;
    str about, bad;
    tally all;
    where now;
    int64_t at; /* what the next AT_* number says */
    str buffer; /* values that are not written yet */
} writing;

/* ---- one image ------------------------------------------------------------------------------------------------------------- */

static bool readable(const writing *w, int64_t i) { return w->from->images[i].width > 0; }

/* The path below the folder of images. */
static const char *inner_path(const writing *w, const data_sample *s)
{
    const char *folder = w->from->o->set.images, *path = s->path;
    size_t n = strlen(folder);
    if (n && strncmp(path, folder, n) == 0 && path[n] == '/') path += n;
    while (*path == '/') path++;
    return path;
}

/* The compressed run lengths of a region's mask; *counts NULL: it has none, or a bad one (*bad). mem_free. */
static sca_status mask_text(const writing *w, int64_t image, const sample_region *r, char **counts, bool *bad)
{
    const store_image_info *info = &w->from->images[image];
    mask_runs runs = { 0 };
    bool found;
    *counts = NULL;
    *bad = false;
    if (r->mask < 0 || !readable(w, image)) return SCA_OK;
    sca_status status = dataset_mask(w->from->d, image, r, info->width, info->height, &runs, &found);
    if (status == SCA_ERR_FORMAT || status == SCA_ERR_IO) {
        *bad = true;
        return SCA_OK;
    }
    if (status == SCA_OK && found) status = mask_runs_text(&runs, counts);
    mask_runs_free(&runs);
    return status;
}

/* The bytes of an image's file; of a rendered scene, a PPM. */
static sca_status with_file(writing *w, int64_t image, const data_sample *s,
                            sca_status (*use)(writing *w, const void *data, size_t bytes))
{
    int width, height;
    file_view v;
    if (!readable(w, image)) return SCA_OK;
    if (!dataset_size(w->from->d, image, &width, &height)) {
        TRY(file_map(s->path, &v));
        sca_status status = use(w, v.data, v.bytes);
        file_unmap(&v);
        return status;
    }
    sca_image picture;
    str ppm = { 0 };
    TRY(dataset_image(w->from->d, image, s, NULL, &picture));
    str_printf(&ppm, "P6 %d %d 255\n", picture.width, picture.height);
    str_put_bytes(&ppm, picture.rgb, 3 * (size_t)picture.width * (size_t)picture.height);
    sca_image_free(&picture);
    sca_status status = ppm.failed ? mem_fail(ppm.bytes, "a picture") : use(w, ppm.data, ppm.bytes);
    str_free(&ppm);
    return status;
}

/* ---- counting ---------------------------------------------------------------------------------------------------------------- */

static sca_status count_file(writing *w, const void *data, size_t bytes)
{
    (void)data;
    w->all.files += (int64_t)bytes;
    return SCA_OK;
}

/* What training leaves out of an image that can be read. */
static void count_region(writing *w, const store_image_info *info, const sample_region *r)
{
    double x0 = r->box[0] > 0 ? r->box[0] : 0, x1 = r->box[2] < info->width ? r->box[2] : info->width;
    double y0 = r->box[1] > 0 ? r->box[1] : 0, y1 = r->box[3] < info->height ? r->box[3] : info->height;
    w->all.no_area += x1 - x0 < 1 || y1 - y0 < 1;
    for (size_t i = 0; i < r->n_phrases; i++) {
        const char *text = r->phrases[i];
        w->all.blank += text[strspn(text, " \t\r\n\f\v")] == 0 || strlen(text) > PHRASE_MOST;
    }
}

static sca_status count_image(writing *w, int64_t image, const data_sample *s)
{
    const store_image_info *info = &w->from->images[image];
    tally *t = &w->all;
    if (!readable(w, image) && t->unreadable++ == 0)
        snprintf(t->first_unreadable, sizeof t->first_unreadable, "%.*s", (int)info->bytes,
                 (const char *)info->data);
    t->paths += (int64_t)strlen(inner_path(w, s));
    for (size_t r = 0; r < s->n_regions; r++) {
        char *counts;
        bool bad;
        t->regions++;
        t->phrases += (int64_t)s->regions[r].n_phrases;
        for (size_t i = 0; i < s->regions[r].n_phrases; i++) t->text += (int64_t)strlen(s->regions[r].phrases[i]);
        if (readable(w, image)) count_region(w, info, &s->regions[r]);
        TRY(mask_text(w, image, &s->regions[r], &counts, &bad));
        t->masks += counts ? (int64_t)strlen(counts) : 0;
        t->with_mask += counts != NULL;
        t->bad_masks += bad;
        mem_free(counts);
    }
    return w->from->o->pack ? with_file(w, image, s, count_file) : SCA_OK;
}

/* ---- values -------------------------------------------------------------------------------------------------------------------- */

static sca_status flush(writing *w)
{
    if (w->buffer.failed) return mem_fail(w->buffer.bytes, "values");
    sca_status status = hdf5_put(w->out, w->buffer.data, w->buffer.bytes);
    str_clear(&w->buffer);
    return status;
}

static sca_status put(writing *w, const void *data, size_t bytes)
{
    if (bytes > BUFFER) {
        TRY(flush(w));
        return hdf5_put(w->out, data, bytes);
    }
    str_put_bytes(&w->buffer, data, bytes);
    return w->buffer.bytes > BUFFER || w->buffer.failed ? flush(w) : SCA_OK;
}

/* The number where something begins, and then where the next one will. */
static sca_status put_place(writing *w, size_t bytes)
{
    w->at += (int64_t)bytes;
    return put(w, &w->at, sizeof w->at);
}

static sca_status put_masks(writing *w, int64_t image, const sample_region *r)
{
    char *counts;
    bool bad;
    TRY(mask_text(w, image, r, &counts, &bad));
    size_t bytes = counts ? strlen(counts) : 0;
    sca_status status = w->now == MASKS ? put(w, counts ? counts : "", bytes) : put_place(w, bytes);
    mem_free(counts);
    return status;
}

static sca_status put_region(writing *w, int64_t image, const sample_region *r)
{
    int32_t box[4] = { (int32_t)r->box[0], (int32_t)r->box[1], (int32_t)(r->box[2] - r->box[0]),
                       (int32_t)(r->box[3] - r->box[1]) };
    switch (w->now) {
    case REGION_ID: return put(w, &r->id, sizeof r->id);
    case REGION_BOX: return put(w, box, sizeof box);
    case AT_PHRASES: return put_place(w, r->n_phrases);
    case AT_TEXT:
        for (size_t i = 0; i < r->n_phrases; i++) TRY(put_place(w, strlen(r->phrases[i])));
        return SCA_OK;
    case TEXT:
        for (size_t i = 0; i < r->n_phrases; i++) TRY(put(w, r->phrases[i], strlen(r->phrases[i])));
        return SCA_OK;
    default: return put_masks(w, image, r);
    }
}

static sca_status put_file(writing *w, const void *data, size_t bytes)
{
    return w->now == FILES ? put(w, data, bytes) : put_place(w, bytes);
}

static sca_status put_embedding(writing *w, const store_image_info *info)
{
    static const char zeros[4096];
    if (info->width > 0) return put(w, info->data, (size_t)info->bytes);
    for (size_t left = w->from->o->embedding.bytes, n; left > 0; left -= n) {
        n = left < sizeof zeros ? left : sizeof zeros;
        TRY(put(w, zeros, n));
    }
    return SCA_OK;
}

/* The image's values of the array that is being written. */
static sca_status put_image(writing *w, int64_t image, const data_sample *s)
{
    const store_image_info *info = &w->from->images[image];
    const char *path = inner_path(w, s);
    int32_t size[2] = { s->width, s->height }, decoded[2] = { info->width, info->height };
    switch (w->now) {
    case IMAGE_ID: return put(w, &s->image_id, sizeof s->image_id);
    case IMAGE_SIZE: return put(w, size, sizeof size);
    case IMAGE_DECODED: return put(w, decoded, sizeof decoded);
    case AT_PATHS: return put_place(w, strlen(path));
    case PATHS: return put(w, path, strlen(path));
    case AT_REGIONS: return put_place(w, s->n_regions);
    case EMBEDDINGS: return put_embedding(w, info);
    case AT_FILES: return readable(w, image) ? with_file(w, image, s, put_file) : put_place(w, 0);
    case FILES: return with_file(w, image, s, put_file);
    default:
        for (size_t r = 0; r < s->n_regions; r++) TRY(put_region(w, image, &s->regions[r]));
        return SCA_OK;
    }
}

typedef sca_status image_fn(writing *w, int64_t image, const data_sample *s);

static sca_status for_all(writing *w, image_fn *fn)
{
    for (int64_t i = 0; i < w->from->n; i++) {
        data_sample s;
        TRY(dataset_read(w->from->d, i, &s));
        sca_status status = fn(w, i, &s);
        sample_free(&s);
        TRY(status);
    }
    return SCA_OK;
}

static sca_status put_array(writing *w, where which)
{
    static const int64_t first = 0;
    bool places = which == AT_PATHS || which == AT_REGIONS || which == AT_PHRASES || which == AT_TEXT ||
                  which == AT_MASKS || which == AT_FILES;
    w->now = which;
    w->at = 0;
    if (which == ABOUT) return put(w, str_text(&w->about), w->about.bytes);
    if (which == BAD) return put(w, str_text(&w->bad), w->bad.bytes);
    if (places) TRY(put(w, &first, sizeof first));
    return for_all(w, put_image);
}

/* ---- what is said of the set ---------------------------------------------------------------------------------------------------- */

static void put_word(str *s, const char *key, const char *text)
{
    str_printf(s, ", \"%s\": ", key);
    json_put_text(s, text, strlen(text));
}

static void put_about(writing *w)
{
    const prepare_options *o = w->from->o;
    const dataset *d = w->from->d;
    const dataset_counts *c = dataset_counted(d);
    str *s = &w->about;
    str_printf(s, "{\"format\": %d", STORE_FORMAT);
    put_word(s, "kind", o->set.kind);
    put_word(s, "split", dataset_split(d));
    put_word(s, "task", dataset_recognition(d) ? "recognition" : "caption");
    put_word(s, "name", dataset_name(d));
    put_word(s, "annotations", o->set.annotations);
    put_word(s, "images", o->set.images);
    str_printf(s, ", \"empty\": %lld, \"excluded\": %lld, \"exif\": %s", (long long)c->empty,
               (long long)c->excluded, o->photo.honour_exif ? "true" : "false");
    if (o->embed) {
        put_word(s, "embeddings", o->embedding.f16 ? "f16" : "f32");
        put_word(s, "encoder", o->embedding.encoder);
        str_printf(s, ", \"grid\": %d", o->embedding.grid);
    }
    str_put(s, "}\n");
    for (int64_t i = 0; i < c->bad; i++) {
        dataset_bad b = dataset_bad_at(d, i);
        for (const char *p = b.file; *p; p++) str_putc(&w->bad, (unsigned char)*p < 32 ? '?' : *p);
        str_printf(&w->bad, "\t%s\t%s%lld\t%d\n", b.what, b.has_id ? "" : "#", (long long)b.id, (int)b.reason);
    }
}

/* ---- the file --------------------------------------------------------------------------------------------------------------------- */

static size_t list_arrays(const writing *w, hdf5_array *a, where *which)
{
    const tally *t = &w->all;
    const prepare_options *o = w->from->o;
    uint64_t n = (uint64_t)w->from->n, R = (uint64_t)t->regions, P = (uint64_t)t->phrases, grid = 0;
    if (o->embed) grid = (uint64_t)o->embedding.grid * (uint64_t)o->embedding.grid;
    const hdf5_array all[ARRAYS] = {
        [ABOUT] = { "about", HDF5_U8, 1, { w->about.bytes } },
        [BAD] = { "bad", HDF5_U8, 1, { w->bad.bytes } },
        [IMAGE_ID] = { "image_id", HDF5_I64, 1, { n } },
        [IMAGE_SIZE] = { "image_size", HDF5_I32, 2, { n, 2 } },
        [IMAGE_DECODED] = { "image_decoded", HDF5_I32, 2, { n, 2 } },
        [AT_PATHS] = { "image_path", HDF5_I64, 1, { n + 1 } },
        [PATHS] = { "paths", HDF5_U8, 1, { (uint64_t)t->paths } },
        [AT_REGIONS] = { "image_regions", HDF5_I64, 1, { n + 1 } },
        [REGION_ID] = { "region_id", HDF5_I64, 1, { R } },
        [REGION_BOX] = { "region_box", HDF5_I32, 2, { R, 4 } },
        [AT_PHRASES] = { "region_phrases", HDF5_I64, 1, { R + 1 } },
        [AT_TEXT] = { "phrase_text", HDF5_I64, 1, { P + 1 } },
        [TEXT] = { "phrases", HDF5_U8, 1, { (uint64_t)t->text } },
        [AT_MASKS] = { "region_mask", HDF5_I64, 1, { R + 1 } },
        [MASKS] = { "masks", HDF5_U8, 1, { (uint64_t)t->masks } },
        [EMBEDDINGS] = { "embeddings",
                         o->embedding.f16 ? HDF5_F16 : HDF5_F32,
                         3,
                         { n, grid, (uint64_t)o->embedding.channels } },
        [AT_FILES] = { "file_bytes", HDF5_I64, 1, { n + 1 } },
        [FILES] = { "files", HDF5_U8, 1, { (uint64_t)t->files } },
    };
    size_t count = 0;
    for (int i = 0; i < ARRAYS; i++) {
        if ((i == EMBEDDINGS && !o->embed) || (i >= AT_FILES && !o->pack)) continue;
        which[count] = (where)i;
        a[count++] = all[i];
    }
    return count;
}

static sca_status write_arrays(writing *w)
{
    hdf5_array arrays[ARRAYS];
    where which[ARRAYS];
    size_t n = list_arrays(w, arrays, which);
    TRY(hdf5_create(w->from->o->to, arrays, n, &w->out));
    sca_status status = SCA_OK;
    for (size_t i = 0; i < n && status == SCA_OK; i++) {
        status = put_array(w, which[i]);
        if (status == SCA_OK) status = flush(w);
    }
    if (status == SCA_OK) return hdf5_commit(w->out);
    hdf5_abort(w->out);
    return status;
}

/* ---- the table ---------------------------------------------------------------------------------------------------------------------- */

static void put_row(str *s, const char *what, int64_t n, const char *note)
{
    str_printf(s, "%-44s %14lld%s%s\n", what, (long long)n, note[0] ? "  " : "", note);
}

static void put_table(const writing *w, str *s)
{
    const tally *t = &w->all;
    const dataset_counts *c = dataset_counted(w->from->d);
    put_row(s, "images", w->from->n, "");
    put_row(s, "regions", t->regions, "");
    put_row(s, "phrases", t->phrases, "");
    put_row(s, "masks", t->with_mask, "");
    put_row(s, "left out by rule: images without regions", c->empty, "");
    put_row(s, "left out by rule: images by name", c->excluded, "");
    for (int r = 0; r < DATASET_REASONS; r++)
        if (c->by_reason[r]) put_row(s, "bad records", c->by_reason[r], dataset_reason_text((dataset_reason)r));
    put_row(s, "images that cannot be read", t->unreadable, t->first_unreadable);
    put_row(s, "regions without area within their image", t->no_area, "");
    put_row(s, "phrases that are empty or too long", t->blank, "");
    put_row(s, "masks that are wrong", t->bad_masks, "");
    if (w->from->o->pack) put_row(s, "bytes of image files", t->files, "");
    if (w->from->o->embed)
        put_row(s, "bytes of image embeddings", w->from->n * (int64_t)w->from->o->embedding.bytes, "");
}

sca_status store_write(const store_source *from, str *table)
{
    writing w = { .from = from };
    put_about(&w);
    sca_status status =
        w.about.failed || w.bad.failed ? mem_fail(w.bad.bytes, "bad records") : for_all(&w, count_image);
    if (status == SCA_OK) status = write_arrays(&w);
    if (status == SCA_OK) put_table(&w, table);
    if (status == SCA_OK && table->failed) status = mem_fail(table->bytes, "a table");
    str_free(&w.buffer);
    str_free(&w.bad);
    str_free(&w.about);
    return status;
}
