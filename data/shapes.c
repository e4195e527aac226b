/* shapes.c - an annotated mask in each of its forms: COCO's polygons and run lengths, a label map. */
#include "data/data.h"

#include <string.h>

static sca_status wrong(const mask_source *from, const char *what)
{
    return status_fail(SCA_ERR_FORMAT,
                       "%s: annotation %lld: its segmentation is %s, expected polygons or run lengths", from->path,
                       (long long)from->id, what);
}

/* [[x, y, x, y, ...], ...] */
static sca_status from_polygons(const mask_source *from, const json_t *shape, int width, int height, mask_runs *out)
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
        if (json_array_size(part) < 6 || json_array_size(part) % 2) status = wrong(from, "no list of points");
        json_array_foreach(part, k, number)
        {
            if (!json_is_number(number)) status = wrong(from, "no list of numbers");
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
static sca_status from_counts(const mask_source *from, const json_t *counts, int width, int height, mask_runs *out)
{
    size_t n = json_array_size(counts);
    int64_t left = (int64_t)width * height;
    *out = (mask_runs){ .width = width, .height = height, .count = n, .counts = mem_zero(n, sizeof *out->counts) };
    if (n && !out->counts) return mem_fail(n * sizeof *out->counts, "run lengths");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(counts, i);
        int64_t run = json_is_integer(v) ? json_integer_value(v) : -1;
        if (run < 0 || run > left) return wrong(from, "no list of run lengths of its image");
        out->counts[i] = (uint32_t)run;
        left -= run;
    }
    return left == 0 ? SCA_OK : wrong(from, "of another size than its image");
}

sca_status mask_of_shape(const mask_source *from, const json_t *shape, int width, int height, mask_runs *out)
{
    if (json_is_array(shape)) return from_polygons(from, shape, width, height, out);
    const json_t *size = json_object_get(shape, "size"), *counts = json_object_get(shape, "counts");
    if (json_integer_value(json_array_get(size, 0)) != height ||
        json_integer_value(json_array_get(size, 1)) != width)
        return wrong(from, "of another size than its image");
    if (json_is_array(counts)) return from_counts(from, counts, width, height, out);
    if (!json_is_string(counts)) return wrong(from, "without counts");
    sca_status status = mask_runs_parse(json_string_value(counts), width, height, out);
    return status == SCA_OK ? status
                            : status_context(status, "%s: annotation %lld", from->path, (long long)from->id);
}

sca_status mask_of_label(const char *map, int64_t id, int width, int height, mask_runs *out)
{
    sca_image labels = { 0 };
    TRY(image_read(map, NULL, &labels));
    size_t pixels = (size_t)width * (size_t)height;
    sca_status status = SCA_OK;
    uint8_t *on = NULL;
    if (labels.width != width || labels.height != height)
        status = status_fail(SCA_ERR_FORMAT, "%s: the label map is %d x %d, its image %d x %d", map, labels.width,
                             labels.height, width, height);
    else if (!(on = mem_alloc(pixels)))
        status = mem_fail(pixels, "a mask");
    for (size_t i = 0; i < pixels && status == SCA_OK; i++) {
        const uint8_t *p = labels.rgb + 3 * i;
        on[i] = p[0] + 256 * (int64_t)p[1] + 65536 * (int64_t)p[2] == id;
    }
    if (status == SCA_OK) status = mask_encode(on, width, height, out);
    mem_free(on);
    sca_image_free(&labels);
    return status;
}
