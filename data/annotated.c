/* annotated.c - masks that come with annotations in COCO's format: polygons and run lengths, crowds included.
 *
 * Kept as the JSON text that they came in: a tenth of the memory of parsed polygons, looked at once per use. */
#include "data/dataset_parts.h"

#include <string.h>

sca_status rows_mask(dataset *d, const json_t *shape)
{
    if (!d->with_masks || (json_array_size(shape) == 0 && json_object_size(shape) == 0)) return SCA_OK;
    char *text = json_dumps(shape, JSON_COMPACT);
    if (!text) return mem_fail(64, "a mask");
    d->mask_at[d->n_regions - 1] = d->mask_text.bytes;
    str_put(&d->mask_text, text);
    str_putc(&d->mask_text, 0);
    mem_free(text);
    return d->mask_text.failed ? mem_fail(d->mask_text.bytes, "the masks of a data set") : SCA_OK;
}

static sca_status wrong(const dataset *d, int64_t id, const char *what)
{
    return status_fail(SCA_ERR_FORMAT,
                       "%s: annotation %lld: its segmentation is %s, expected polygons or run lengths",
                       d->set.annotations, (long long)id, what);
}

/* The numbers of all parts in one block. */
typedef struct polygons {
    double *all;
    const double **xy;
    size_t *points, parts;
} polygons;

static sca_status read_part(const dataset *d, int64_t id, const json_t *part, double *to)
{
    size_t n = json_array_size(part);
    if (n < 6 || n % 2) return wrong(d, id, "no list of points");
    for (size_t i = 0; i < n; i++) {
        const json_t *number = json_array_get(part, i);
        if (!json_is_number(number)) return wrong(d, id, "no list of numbers");
        to[i] = json_number_value(number);
    }
    return SCA_OK;
}

/* [[x, y, x, y, ...], ...] */
static sca_status from_polygons(const dataset *d, int64_t id, const json_t *shape, int width, int height,
                                mask_runs *out)
{
    size_t total = 0, at = 0;
    polygons p = { .parts = json_array_size(shape) };
    for (size_t i = 0; i < p.parts; i++) total += json_array_size(json_array_get(shape, i));
    p.all = mem_zero(total, sizeof *p.all);
    p.xy = mem_zero(p.parts, sizeof *p.xy);
    p.points = mem_zero(p.parts, sizeof *p.points);
    sca_status status = p.all && p.xy && p.points ? SCA_OK : mem_fail(total * sizeof *p.all, "polygons");
    for (size_t i = 0; i < p.parts && status == SCA_OK; i++) {
        const json_t *part = json_array_get(shape, i);
        p.xy[i] = p.all + at;
        p.points[i] = json_array_size(part) / 2;
        status = read_part(d, id, part, p.all + at);
        at += json_array_size(part);
    }
    if (status == SCA_OK) status = mask_from_polygons(p.xy, p.points, p.parts, width, height, out);
    mem_free(p.points);
    mem_free(p.xy);
    mem_free(p.all);
    return status;
}

/* Run lengths that are written out. */
static sca_status from_counts(const dataset *d, int64_t id, const json_t *counts, int width, int height,
                              mask_runs *out)
{
    size_t n = json_array_size(counts);
    int64_t left = (int64_t)width * height;
    *out = (mask_runs){ .width = width, .height = height, .count = n, .counts = mem_zero(n, sizeof *out->counts) };
    if (!out->counts) return mem_fail(n * sizeof *out->counts, "run lengths");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(counts, i);
        int64_t run = json_is_integer(v) ? json_integer_value(v) : -1;
        if (run < 0 || run > left) return wrong(d, id, "no list of run lengths of its image");
        out->counts[i] = (uint32_t)run;
        left -= run;
    }
    return left == 0 ? SCA_OK : wrong(d, id, "of another size than its image");
}

static sca_status from_shape(const dataset *d, int64_t id, const json_t *shape, int width, int height,
                             mask_runs *out)
{
    if (json_is_array(shape)) return from_polygons(d, id, shape, width, height, out);
    const json_t *size = json_object_get(shape, "size"), *counts = json_object_get(shape, "counts");
    if (json_integer_value(json_array_get(size, 0)) != height ||
        json_integer_value(json_array_get(size, 1)) != width)
        return wrong(d, id, "of another size than its image");
    if (json_is_array(counts)) return from_counts(d, id, counts, width, height, out);
    if (!json_is_string(counts)) return wrong(d, id, "without counts");
    sca_status status = mask_runs_parse(json_string_value(counts), width, height, out);
    return status == SCA_OK ? status
                            : status_context(status, "%s: annotation %lld", d->set.annotations, (long long)id);
}

sca_status rows_mask_runs(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                          mask_runs *out, bool *found)
{
    (void)index;
    const char *text = d->mask_text.data + d->mask_at[r->mask];
    json_t *shape;
    TRY(json_parse(text, strlen(text), d->set.annotations, &shape));
    sca_status status = from_shape(d, r->id, shape, width, height, out);
    json_decref(shape);
    *found = status == SCA_OK;
    if (status != SCA_OK) mask_runs_free(out);
    return status;
}
