/* evaluate_masks.c - annotated masks of data sets, for mask IoU (eval.md 5.9): those of COCO's format and its relatives,
 * of RefCOCO's refs by way of their annotations, of panoptic segments from the label maps where they are there.
 *
 * Kept as the JSON text that they came in: a tenth of the memory of parsed polygons, looked at once per region. */
#include "eval/evaluate_parts.h"

#include <stdlib.h>
#include <string.h>

typedef struct mask_row {
    int64_t id;       /* of the annotation; of the image, where there are label maps */
    size_t at, bytes; /* in the pool: the segmentation, or the name of the label map  */
} mask_row;

typedef struct ref_row {
    int64_t id, annotation;
    size_t order;
} ref_row;

struct eval_masks {
    const char *kind;
    str pool;
    mask_row *rows; /* sorted by id */
    size_t n, cap;
    ref_row *refs; /* sorted by id; NULL: regions are annotations */
    size_t n_refs;
    char *path, *maps; /* of the annotations; folder of the label maps or NULL */
};

/* ---- loading ------------------------------------------------------------------------------- */

static int by_id(const void *a, const void *b)
{
    const mask_row *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static sca_status add_mask(eval_masks *m, int64_t id, const json_t *shape)
{
    if (m->n == m->cap) {
        size_t cap = m->cap ? 2 * m->cap : 256;
        mask_row *wider = mem_resize(m->rows, cap * sizeof *wider);
        if (!wider) return mem_fail(cap * sizeof *wider, "masks");
        m->rows = wider;
        m->cap = cap;
    }
    char *text = json_dumps(shape, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) return mem_fail(64, "a mask");
    m->rows[m->n++] = (mask_row){ .id = id, .at = m->pool.bytes, .bytes = strlen(text) };
    str_put(&m->pool, text);
    mem_free(text);
    return m->pool.failed ? mem_fail(m->pool.bytes, "masks") : SCA_OK;
}

static sca_status take_annotation(void *user, const char *key, int64_t index, json_t *item)
{
    eval_masks *m = user;
    const json_t *id = json_object_get(item, m->maps ? "image_id" : "id");
    const json_t *shape = json_object_get(item, m->maps ? "file_name" : "segmentation");
    if (!key || index < 0 || strcmp(key, "annotations") != 0 || !json_is_integer(id)) return SCA_OK;
    bool there = m->maps ? path_is_plain(json_string_value(shape) ? json_string_value(shape) : "")
                         : json_array_size(shape) || json_object_size(shape);
    return there ? add_mask(m, json_integer_value(id), shape) : SCA_OK;
}

/* ---- RefCOCO: a region is a ref, its mask that of the annotation which the ref names ------- */

static int by_ref(const void *a, const void *b)
{
    const ref_row *x = a, *y = b;
    if (x->id != y->id) return x->id < y->id ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

static sca_status take_refs(eval_masks *m, const pickle_value *list)
{
    if (list->type != PICKLE_LIST) return SCA_OK;
    m->refs = mem_zero(list->count, sizeof *m->refs);
    if (list->count && !m->refs) return mem_fail(list->count * sizeof *m->refs, "refs");
    for (size_t i = 0; i < list->count; i++) {
        const pickle_value *id = pickle_get(list->items[i], "ref_id"),
                           *annotation = pickle_get(list->items[i], "ann_id");
        if (!id || id->type != PICKLE_INT || !annotation || annotation->type != PICKLE_INT) continue;
        m->refs[m->n_refs++] = (ref_row){ id->integer, annotation->integer, i };
    }
    if (m->n_refs) qsort(m->refs, m->n_refs, sizeof *m->refs, by_ref);
    return SCA_OK;
}

static sca_status read_refs(eval_masks *m, const char *path)
{
    static const char *const none[] = { NULL };
    file_view view;
    pickle *p = NULL;
    size_t used;
    TRY(file_map(path, &view));
    sca_status status = pickle_open(view.data, view.bytes, path, none, &p, &used);
    if (status == SCA_OK) status = take_refs(m, pickle_root(p));
    pickle_close(p);
    file_unmap(&view);
    return status;
}

/* ---- panoptic segments --------------------------------------------------------------------- */

/* The label maps of X.json are in the folder X beside it. Without them there is no mask. */
static sca_status find_maps(eval_masks *m)
{
    size_t n = strlen(m->path);
    if (!text_ends(m->path, ".json")) return SCA_OK;
    char *folder = text_copy(m->path, n - strlen(".json"));
    if (!folder) return mem_fail(n, "a file name");
    if (dir_exists(folder))
        m->maps = folder;
    else
        mem_free(folder);
    return SCA_OK;
}

/* A map that is absent shall be known now, not after hours. */
static sca_status check_maps(const eval_masks *m)
{
    for (size_t i = 0; m->maps && i < m->n; i++) {
        json_t *name = NULL;
        TRY(json_parse(m->pool.data + m->rows[i].at, m->rows[i].bytes, m->path, &name));
        char *path = path_join(m->maps, json_string_value(name));
        bool there = path && file_exists(path);
        sca_status status = !path   ? mem_fail(64, "a file name")
                            : there ? SCA_OK
                                    : status_fail(SCA_ERR_IO,
                                                  "%s: missing; where there is a folder of label maps, all of %s "
                                                  "must be in it",
                                                  path, path_name(m->path));
        mem_free(path);
        json_decref(name);
        TRY(status);
    }
    return SCA_OK;
}

/* ---- opening ------------------------------------------------------------------------------- */

static sca_status load(eval_masks *m, const dataset *d)
{
    bool refer = strcmp(m->kind, "refcoco") == 0, panoptic = strcmp(m->kind, "coco_panoptic") == 0;
    const char *file = dataset_file(d, refer ? 1 : 0);
    m->path = text_copy(file, strlen(file));
    if (!m->path) return mem_fail(strlen(file), "a file name");
    if (panoptic) TRY(find_maps(m));
    if (panoptic && !m->maps) return SCA_OK;
    if (refer) TRY(read_refs(m, dataset_file(d, 0)));
    TRY(json_stream(m->path, take_annotation, m));
    if (m->n) qsort(m->rows, m->n, sizeof *m->rows, by_id);
    return check_maps(m);
}

sca_status eval_masks_open(const dataset *d, eval_masks **out)
{
    static const char *const kinds[] = { "coco", "coco_panoptic", "objects365", "v3det", "grit", "refcoco" };
    const char *kind = NULL;
    *out = NULL;
    for (size_t i = 0; i < LENGTH(kinds); i++)
        if (strcmp(dataset_kind_name(d), kinds[i]) == 0) kind = kinds[i];
    if (!kind) return SCA_OK;
    eval_masks *m = mem_zero(1, sizeof *m);
    if (!m) return mem_fail(sizeof *m, "masks");
    m->kind = kind;
    sca_status status = load(m, d);
    if (status == SCA_OK)
        *out = m;
    else
        eval_masks_close(m);
    return status;
}

void eval_masks_close(eval_masks *m)
{
    if (!m) return;
    str_free(&m->pool);
    mem_free(m->rows);
    mem_free(m->refs);
    mem_free(m->path);
    mem_free(m->maps);
    mem_free(m);
}

/* ---- one mask ------------------------------------------------------------------------------ */

/* The first of the n rows, sorted by the id that each begins with, that has this id; NULL: none. */
static const void *first_of(const void *rows, size_t n, size_t bytes, int64_t id)
{
    size_t low = 0, high = n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (*(const int64_t *)((const char *)rows + middle * bytes) < id)
            low = middle + 1;
        else
            high = middle;
    }
    const void *row = low < n ? (const char *)rows + low * bytes : NULL;
    return row && *(const int64_t *)row == id ? row : NULL;
}

static sca_status from_map(const eval_masks *m, const json_t *name, int64_t segment, int width, int height,
                           mask_runs *out)
{
    char *path = path_join(m->maps, json_string_value(name));
    if (!path) return mem_fail(64, "a file name");
    sca_status status = mask_of_label(path, segment, width, height, out);
    mem_free(path);
    return status;
}

sca_status eval_masks_find(const eval_masks *m, int64_t image, int64_t region, int width, int height,
                           mask_runs *out, bool *found)
{
    int64_t id = m && m->maps ? image : region;
    json_t *shape;
    *found = false;
    *out = (mask_runs){ 0 };
    const ref_row *ref = m && m->refs ? first_of(m->refs, m->n_refs, sizeof *ref, region) : NULL;
    if (!m || (m->refs && !ref)) return SCA_OK;
    if (ref) id = ref->annotation; /* the first ref of an id counts, as for the data set */
    const mask_row *row = first_of(m->rows, m->n, sizeof *row, id);
    if (!row) return SCA_OK;
    TRY(json_parse(m->pool.data + row->at, row->bytes, m->path, &shape));
    mask_source from = { m->path, id };
    sca_status status =
        m->maps ? from_map(m, shape, region, width, height, out) : mask_of_shape(&from, shape, width, height, out);
    json_decref(shape);
    *found = status == SCA_OK;
    if (status != SCA_OK) mask_runs_free(out);
    return status;
}
