/* genome.c - Visual Genome: region descriptions over the splits of densecap (data.md 2.1).
 *
 * The split gives the images and their order, image_data.json their folders, region_descriptions.json the regions.
 */
#include "data/dataset_parts.h"

#include <string.h>

#define ADDRESS "https://cs.stanford.edu/people/rak248/"

enum { NAMED = 0 }; /* `last` of an image without regions of which a bad record was named */

typedef struct loading {
    dataset *d;
    bool every;       /* all images that image_data.json describes */
    bool *has_record; /* of the images: region_descriptions.json has it */
} loading;

/* ---- the split ---------------------------------------------------------------------------------------------- */

static sca_status fail_split(const dataset *d, const char *path, json_t *splits)
{
    str list = { 0 };
    const char *key;
    json_t *value;
    json_object_foreach(splits, key, value) str_printf(&list, "'%s', ", key);
    sca_status status = list.failed ? mem_fail(list.bytes, "a message")
                                    : status_fail(SCA_ERR_ARGUMENT, "%s: no list '%s', expected one of %s'full'",
                                                  path, d->set.split, str_text(&list));
    str_free(&list);
    return status;
}

static sca_status add_ids(dataset *d, const json_t *ids)
{
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        bool fresh;
        image_row *row;
        if (!json_is_integer(id)) {
            TRY(rows_bad(d, "image", false, (int64_t)i, DATASET_TYPE));
            continue;
        }
        TRY(rows_image(d, json_integer_value(id), &fresh, &row));
        if (!fresh) TRY(rows_bad(d, "image", true, json_integer_value(id), DATASET_REPEATED));
    }
    return SCA_OK;
}

static sca_status read_split(loading *l, const char *path)
{
    json_t *splits;
    TRY(rows_file(l->d, path));
    TRY(json_open(path, &splits));
    const json_t *ids = json_object_get(splits, l->d->set.split);
    sca_status status = json_is_array(ids) ? add_ids(l->d, ids) : fail_split(l->d, path, splits);
    json_decref(splits);
    return status;
}

/* ---- images ------------------------------------------------------------------------------------------------- */

/* "https://.../VG_100K_2/1.jpg" -> "VG_100K_2/1.jpg"; NULL for any other address. */
static const char *file_of(const char *url)
{
    if (!text_starts(url, ADDRESS)) return NULL;
    const char *file = url + strlen(ADDRESS), *slash = strchr(file, '/');
    if (!slash || !path_is_plain(slash + 1)) return NULL;
    return text_starts(file, "VG_100K/") || text_starts(file, "VG_100K_2/") ? file : NULL;
}

/* A record that is there but bad; an image of the split is then not named again for lacking it. */
static sca_status bad_image(loading *l, int64_t id, dataset_reason why)
{
    uint32_t at = id_map_get(&l->d->by_id, id);
    if (at != ID_NONE && l->d->images[at].first == ID_NONE) l->d->images[at].last = NAMED;
    return rows_bad(l->d, "image", true, id, why);
}

static sca_status take_image(void *user, const char *key, int64_t index, json_t *item)
{
    loading *l = user;
    int64_t id = index;
    const char *url;
    size_t bytes;
    int32_t width, height;
    bool fresh;
    image_row *row;
    if (key) return status_fail(SCA_ERR_FORMAT, "an object, expected a list of images");
    if (!member_id(item, "image_id", &id)) return rows_bad(l->d, "image", false, id, DATASET_TYPE);
    if (!l->every && id_map_get(&l->d->by_id, id) == ID_NONE) return SCA_OK;
    if (!member_text(item, "url", &url, &bytes) || !member_size(item, &width, &height))
        return bad_image(l, id, DATASET_TYPE);
    const char *file = file_of(url);
    if (!file) return bad_image(l, id, DATASET_PATH);
    TRY(rows_image(l->d, id, &fresh, &row));
    if (row->file != ROWS_NO_FILE) return rows_bad(l->d, "image", true, id, DATASET_REPEATED);
    row->width = width;
    row->height = height;
    return rows_text(l->d, file, strlen(file), &row->file);
}

/* ---- regions ------------------------------------------------------------------------------------------------ */

static bool four_numbers(const json_t *item, double xywh[4])
{
    static const char *const keys[] = { "x", "y", "width", "height" };
    for (size_t i = 0; i < 4; i++) {
        const json_t *v = json_object_get(item, keys[i]);
        if (!json_is_number(v)) return false;
        xywh[i] = json_number_value(v);
    }
    return true;
}

static sca_status add_region(dataset *d, uint32_t image, size_t index, const json_t *item)
{
    region_row region = { .id = (int64_t)index, .n = 1 };
    const char *phrase;
    size_t bytes;
    double xywh[4];
    bool has_id = member_id(item, "region_id", &region.id);
    if (!has_id || !member_text(item, "phrase", &phrase, &bytes))
        return rows_bad(d, "region", has_id, region.id, DATASET_TYPE);
    if (!four_numbers(item, xywh) || !box_from(xywh, region.box))
        return rows_bad(d, "region", true, region.id, DATASET_BOX);
    TRY(rows_text(d, phrase, bytes, &region.text));
    TRY(rows_region(d, &region));
    rows_link(d, image, (uint32_t)(d->n_regions - 1));
    return SCA_OK;
}

static sca_status take_descriptions(void *user, const char *key, int64_t index, json_t *item)
{
    loading *l = user;
    int64_t id = index;
    const json_t *regions = json_object_get(item, "regions");
    if (key) return status_fail(SCA_ERR_FORMAT, "an object, expected a list of images with regions");
    bool has_id = member_id(item, "id", &id);
    uint32_t image = has_id ? id_map_get(&l->d->by_id, id) : ID_NONE;
    if (!has_id) return rows_bad(l->d, "image", false, id, DATASET_TYPE);
    if (image == ID_NONE) return SCA_OK; /* of another split */
    if (!json_is_array(regions)) return bad_image(l, id, DATASET_TYPE);
    if (l->has_record[image]) return rows_bad(l->d, "image", true, id, DATASET_REPEATED);
    l->has_record[image] = true;
    for (size_t i = 0; i < json_array_size(regions); i++)
        TRY(add_region(l->d, image, i, json_array_get(regions, i)));
    return SCA_OK;
}

/* ---- together ----------------------------------------------------------------------------------------------- */

static bool has_file(const image_row *row) { return row->file != ROWS_NO_FILE; }

/* Images of the split that one of the two files does not have. */
static sca_status leave_out(loading *l)
{
    for (size_t i = 0; i < l->d->n_images; i++) {
        image_row *row = &l->d->images[i];
        if (has_file(row) && l->has_record[i]) continue;
        dataset_reason why = has_file(row) ? DATASET_NO_DESCRIPTION : DATASET_NO_IMAGE;
        row->file = ROWS_NO_FILE;
        l->d->file = l->d->n_files - (why == DATASET_NO_IMAGE ? 2 : 1);
        if (row->last != NAMED) TRY(rows_bad(l->d, "image", true, row->id, why));
    }
    l->d->file = l->d->n_files - 1;
    return rows_keep(l->d, has_file);
}

static sca_status load(loading *l, const char *splits, const char *images, const char *descriptions)
{
    if (!l->every) TRY(read_split(l, splits));
    TRY(rows_file(l->d, images));
    TRY(json_stream(images, take_image, l));
    l->has_record = mem_zero(l->d->n_images + 1, sizeof *l->has_record);
    if (!l->has_record) return mem_fail(l->d->n_images, "an index of images");
    TRY(rows_file(l->d, descriptions));
    TRY(json_stream(descriptions, take_descriptions, l));
    return leave_out(l);
}

sca_status genome_open(dataset *d)
{
    loading l = { .d = d, .every = strcmp(d->set.split, "full") == 0 };
    char *splits = path_join(d->set.annotations, "densecap_splits.json");
    char *images = path_join(d->set.annotations, "image_data.json");
    char *descriptions = path_join(d->set.annotations, "region_descriptions.json");
    sca_status status = splits && images && descriptions ? load(&l, splits, images, descriptions)
                                                         : mem_fail(strlen(d->set.annotations), "a path");
    mem_free(l.has_record);
    mem_free(descriptions);
    mem_free(images);
    mem_free(splits);
    return status;
}
