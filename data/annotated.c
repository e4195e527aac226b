/* annotated.c - masks that come with annotations in COCO's format: polygons and run lengths, crowds included,
 * and label maps.
 *
 * Kept as the JSON text that they came in: a tenth of the memory of parsed polygons, looked at once per use. */
#include "data/dataset_parts.h"

#include <string.h>

sca_status rows_mask(dataset *d, const json_t *shape)
{
    if (!d->with_masks || (json_array_size(shape) == 0 && json_object_size(shape) == 0 && !json_is_string(shape)))
        return SCA_OK;
    char *text = json_dumps(shape, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) return mem_fail(64, "a mask");
    d->mask_at[d->n_regions - 1] = d->mask_text.bytes;
    str_put(&d->mask_text, text);
    str_putc(&d->mask_text, 0);
    mem_free(text);
    return d->mask_text.failed ? mem_fail(d->mask_text.bytes, "the masks of a data set") : SCA_OK;
}

/* COCO keeps the label maps of X.json in the folder X. */
static sca_status from_map(const dataset *d, const sample_region *r, const char *name, int width, int height,
                           mask_runs *out)
{
    const char *file = d->set.annotations;
    str path = { 0 };
    if (!path_stays(name))
        return status_fail(SCA_ERR_FORMAT, "%s: the label map '%s' is outside of its folder", file, name);
    str_put_bytes(&path, file, strlen(file) - (text_ends(file, ".json") ? 5 : 0));
    str_printf(&path, "/%s", name);
    sca_status status =
        path.failed ? mem_fail(path.bytes, "a path") : mask_of_label(str_text(&path), r->id, width, height, out);
    str_free(&path);
    return status;
}

sca_status rows_mask_runs(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                          mask_runs *out, bool *found)
{
    (void)index;
    const char *text = d->mask_text.data + d->mask_at[r->mask];
    json_t *shape;
    TRY(json_parse(text, strlen(text), d->set.annotations, &shape));
    const mask_source from = { d->set.annotations, r->id };
    sca_status status = json_is_string(shape) ? from_map(d, r, json_string_value(shape), width, height, out)
                                              : mask_of_shape(&from, shape, width, height, out);
    json_decref(shape);
    *found = status == SCA_OK;
    if (status != SCA_OK) mask_runs_free(out);
    return status;
}
