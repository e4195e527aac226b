/* sbu.c - SBU captions: each photo is one region with its caption (data.md 2.7). */
#include "data/dataset_parts.h"

#include <string.h>

static sca_status take_record(void *user, const char *key, int64_t index, json_t *item)
{
    dataset *d = user;
    const char *file, *caption;
    size_t file_bytes, bytes;
    bool fresh;
    image_row *row;
    if (key) return status_fail(SCA_ERR_FORMAT, "an object, expected a list of records with image and caption");
    if (!member_text(item, "image", &file, &file_bytes) || !member_text(item, "caption", &caption, &bytes))
        return rows_bad(d, "record", false, index, DATASET_TYPE);
    if (!path_stays(file)) return rows_bad(d, "record", false, index, DATASET_PATH);
    TRY(rows_image(d, index, &fresh, &row));
    uint32_t image = (uint32_t)(row - d->images);
    TRY(rows_text(d, file, file_bytes, &row->file));
    /* The whole photo, whose size only the photo knows: boxes are clamped to it. */
    region_row region = { .id = index, .n = 1, .box = { 0, 0, INT32_MAX, INT32_MAX } };
    TRY(rows_text(d, caption, bytes, &region.text));
    TRY(rows_region(d, &region));
    rows_link(d, image, (uint32_t)(d->n_regions - 1));
    return SCA_OK;
}

static bool has_file(const image_row *row) { return row->file != ROWS_NO_FILE; }

sca_status sbu_open(dataset *d)
{
    TRY(rows_file(d, d->set.annotations));
    TRY(json_stream(d->set.annotations, take_record, d));
    return rows_keep(d, has_file);
}
