/* evaluate_masks.c - annotated masks of sets in COCO's format, for mask IoU (eval.md 5.9).
 *
 * Kept as the JSON text that they came in: a tenth of the memory of parsed polygons, looked at once per region. */
#include "eval/evaluate_parts.h"

#include <stdlib.h>
#include <string.h>

typedef struct mask_row {
    int64_t id;
    size_t at, bytes; /* in the pool */
} mask_row;

struct eval_masks {
    str pool;
    mask_row *rows; /* sorted by id */
    size_t n, cap;
    char *path;
};

/* ---- loading ---------------------------------------------------------------------------------------------------- */

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
    char *text = json_dumps(shape, JSON_COMPACT);
    if (!text) return mem_fail(64, "a mask");
    m->rows[m->n++] = (mask_row){ .id = id, .at = m->pool.bytes, .bytes = strlen(text) };
    str_put(&m->pool, text);
    mem_free(text);
    return m->pool.failed ? mem_fail(m->pool.bytes, "masks") : SCA_OK;
}

static sca_status take_annotation(void *user, const char *key, int64_t index, json_t *item)
{
    const json_t *id = json_object_get(item, "id"), *shape = json_object_get(item, "segmentation");
    if (!key || index < 0 || strcmp(key, "annotations") != 0 || !json_is_integer(id)) return SCA_OK;
    if (json_array_size(shape) == 0 && json_object_size(shape) == 0) return SCA_OK;
    return add_mask(user, json_integer_value(id), shape);
}

sca_status eval_masks_open(const config_dataset *set, eval_masks **out)
{
    static const char *const kinds[] = { "coco", "objects365", "v3det", "grit" };
    bool known = false;
    *out = NULL;
    for (size_t i = 0; i < LENGTH(kinds); i++) known = known || strcmp(set->kind, kinds[i]) == 0;
    if (!known) return SCA_OK;
    eval_masks *m = mem_zero(1, sizeof *m);
    if (!m) return mem_fail(sizeof *m, "masks");
    m->path = text_copy(set->annotations, strlen(set->annotations));
    sca_status status = m->path ? json_stream(set->annotations, take_annotation, m) : mem_fail(64, "a file name");
    if (status != SCA_OK) {
        eval_masks_close(m);
        return status;
    }
    if (m->n) qsort(m->rows, m->n, sizeof *m->rows, by_id);
    *out = m;
    return SCA_OK;
}

void eval_masks_close(eval_masks *m)
{
    if (!m) return;
    str_free(&m->pool);
    mem_free(m->rows);
    mem_free(m->path);
    mem_free(m);
}

/* ---- one mask --------------------------------------------------------------------------------------------------- */

static sca_status wrong(const eval_masks *m, int64_t id, const char *what)
{
    return status_fail(SCA_ERR_FORMAT,
                       "%s: annotation %lld: its segmentation is %s, expected polygons or run lengths", m->path,
                       (long long)id, what);
}

/* [[x, y, x, y, ...], ...] */
static sca_status from_polygons(const eval_masks *m, int64_t id, const json_t *shape, int width, int height,
                                mask_runs *out)
{
    size_t parts = json_array_size(shape), total = 0, at = 0, i, k;
    json_t *part, *number;
    json_array_foreach(shape, i, part) total += json_array_size(part);
    double *all = mem_zero(total, sizeof *all);
    const double **xy = mem_zero(parts, sizeof *xy);
    size_t *n = mem_zero(parts, sizeof *n);
    sca_status status = (total && !all) || !xy || !n ? mem_fail(total * sizeof *all, "polygons") : SCA_OK;
    for (i = 0; i < parts && status == SCA_OK; i++) {
        part = json_array_get(shape, i);
        xy[i] = all + at;
        n[i] = json_array_size(part) / 2;
        if (json_array_size(part) < 6 || json_array_size(part) % 2) status = wrong(m, id, "no list of points");
        json_array_foreach(part, k, number)
        {
            if (!json_is_number(number)) status = wrong(m, id, "no list of numbers");
            all[at++] = json_number_value(number);
        }
    }
    if (status == SCA_OK) status = mask_from_polygons(xy, n, parts, width, height, out);
    mem_free(n);
    mem_free(xy);
    mem_free(all);
    return status;
}

/* Run lengths that are written out. */
static sca_status from_counts(const eval_masks *m, int64_t id, const json_t *counts, int width, int height,
                              mask_runs *out)
{
    size_t n = json_array_size(counts);
    int64_t left = (int64_t)width * height;
    *out = (mask_runs){ .width = width, .height = height, .count = n, .counts = mem_zero(n, sizeof *out->counts) };
    if (n && !out->counts) return mem_fail(n * sizeof *out->counts, "run lengths");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(counts, i);
        int64_t run = json_is_integer(v) ? json_integer_value(v) : -1;
        if (run < 0 || run > left) return wrong(m, id, "no list of run lengths of its image");
        out->counts[i] = (uint32_t)run;
        left -= run;
    }
    return left == 0 ? SCA_OK : wrong(m, id, "of another size than its image");
}

static sca_status from_shape(const eval_masks *m, int64_t id, const json_t *shape, int width, int height,
                             mask_runs *out)
{
    if (json_is_array(shape)) return from_polygons(m, id, shape, width, height, out);
    const json_t *size = json_object_get(shape, "size"), *counts = json_object_get(shape, "counts");
    if (json_integer_value(json_array_get(size, 0)) != height ||
        json_integer_value(json_array_get(size, 1)) != width)
        return wrong(m, id, "of another size than its image");
    if (json_is_array(counts)) return from_counts(m, id, counts, width, height, out);
    if (!json_is_string(counts)) return wrong(m, id, "without counts");
    sca_status status = mask_runs_parse(json_string_value(counts), width, height, out);
    return status == SCA_OK ? status : status_context(status, "%s: annotation %lld", m->path, (long long)id);
}

sca_status eval_masks_find(const eval_masks *m, int64_t id, int width, int height, mask_runs *out, bool *found)
{
    size_t low = 0, high = m ? m->n : 0;
    json_t *shape;
    *found = false;
    *out = (mask_runs){ 0 };
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->rows[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    if (!m || low == m->n || m->rows[low].id != id) return SCA_OK;
    TRY(json_parse(m->pool.data + m->rows[low].at, m->rows[low].bytes, m->path, &shape));
    sca_status status = from_shape(m, id, shape, width, height, out);
    json_decref(shape);
    *found = status == SCA_OK;
    if (status != SCA_OK) mask_runs_free(out);
    return status;
}
