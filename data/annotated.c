/* annotated.c - masks that come with annotations in COCO's format: polygons and run lengths, crowds included,
 * and label maps.
 *
 * Kept as the JSON text that they came in: a tenth of the memory of parsed polygons, looked at once per use. */
#include "data/dataset_parts.h"

#include <string.h>

sca_status rows_mask_keep(dataset *d, const json_t *shape, size_t *at)
{
    *at = ROWS_NO_FILE;
    if (!d->with_masks || (json_array_size(shape) == 0 && json_object_size(shape) == 0 && !json_is_string(shape)))
        return SCA_OK;
    char *text = json_dumps(shape, JSON_COMPACT | JSON_ENCODE_ANY);
    if (!text) return mem_fail(64, "a mask");
    *at = d->mask_text.bytes;
    str_put(&d->mask_text, text);
    str_putc(&d->mask_text, 0);
    mem_free(text);
    return d->mask_text.failed ? mem_fail(d->mask_text.bytes, "the masks of a data set") : SCA_OK;
}

sca_status rows_mask(dataset *d, const json_t *shape)
{
    return d->with_masks ? rows_mask_keep(d, shape, &d->mask_at[d->n_regions - 1]) : SCA_OK;
}

/* ---- label maps ------------------------------------------------------------------------------------------------- */

/* COCO keeps the label maps of X.json in the folder X: that folder. mem_free. */
static char *maps_folder(const dataset *d)
{
    const char *file = d->set.annotations;
    return text_copy(file, strlen(file) - (text_ends(file, ".json") ? strlen(".json") : 0));
}

sca_status rows_maps(dataset *d)
{
    char *folder = maps_folder(d);
    if (!folder) return mem_fail(strlen(d->set.annotations), "a path");
    d->with_masks = d->with_masks && dir_exists(folder);
    mem_free(folder);
    return SCA_OK;
}

static sca_status map_path(const dataset *d, const char *name, char **path)
{
    *path = NULL;
    if (!path_stays(name))
        return status_fail(SCA_ERR_FORMAT, "%s: the label map '%s' is outside of its folder", d->set.annotations,
                           name);
    char *folder = maps_folder(d);
    if (folder) *path = path_join(folder, name);
    mem_free(folder);
    return *path ? SCA_OK : mem_fail(strlen(name), "a path");
}

static sca_status from_map(const dataset *d, const sample_region *r, const char *name, int width, int height,
                           mask_runs *out)
{
    char *path;
    TRY(map_path(d, name, &path));
    sca_status status = mask_of_label(path, r->id, width, height, out);
    mem_free(path);
    return status;
}

static sca_status check_map(const dataset *d, const char *text)
{
    json_t *shape;
    char *path = NULL;
    TRY(json_parse(text, strlen(text), d->set.annotations, &shape));
    sca_status status = json_is_string(shape) ? map_path(d, json_string_value(shape), &path) : SCA_OK;
    json_decref(shape);
    if (status == SCA_OK && path && !file_exists(path))
        status =
            status_fail(SCA_ERR_IO, "%s: missing; where there is a folder of label maps, all of %s must be in it",
                        path, path_name(d->set.annotations));
    mem_free(path);
    return status;
}

sca_status dataset_check_masks(const dataset *d)
{
    const char *last = "";
    for (size_t i = 0; d->mask_at && i < d->n_regions; i++) {
        const char *text = d->mask_at[i] == ROWS_NO_FILE ? last : d->mask_text.data + d->mask_at[i];
        if (text[0] == '"' && strcmp(text, last) != 0) TRY(check_map(d, text)); /* segments share their map */
        last = text;
    }
    return SCA_OK;
}

/* ---- one mask --------------------------------------------------------------------------------------------------- */

sca_status rows_mask_runs(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                          mask_runs *out, bool *found)
{
    (void)index;
    const char *text = d->mask_text.data + d->mask_at[r->mask];
    const char *file = d->files[d->n_files - 1]; /* refcoco: the instances */
    json_t *shape;
    TRY(json_parse(text, strlen(text), file, &shape));
    const mask_source from = { file, r->id };
    sca_status status = json_is_string(shape) ? from_map(d, r, json_string_value(shape), width, height, out)
                                              : mask_of_shape(&from, shape, width, height, out);
    json_decref(shape);
    *found = status == SCA_OK;
    if (status != SCA_OK) mask_runs_free(out);
    return status;
}
