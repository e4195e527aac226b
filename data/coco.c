/* coco.c - COCO's format and its relatives: instances, captions, panoptic segments, GRiT, Objects365, V3Det.
 *
 * One pass over the file, whatever the order of its members: annotations are kept with the ids of their image and
 * category, and linked to them at the end.
 */
#include "data/dataset_parts.h"

#include <string.h>

/* Their addresses had expired when the official set was made (data.md 2.5). */
static const char *const v3det_absent[] = { "images/n11708857/9_80_2421297739_7c2a68f404_c.jpg",
                                            "images/n11794139/10_47_5109432138_4201649ce4_c.jpg",
                                            "images/a00012462/11_256_9645439415_6f50f1599f_c.jpg",
                                            "images/Q494417/34_1125_10108827626_78b07f281b_c.jpg",
                                            "images/Q3216816/10_1372_8165953126_129e378cc2_c.jpg",
                                            "images/a00006662/34_145_18056000502_e12645da0a_c.jpg",
                                            NULL };

const coco_rule coco_instances = { 0 };
const coco_rule coco_captions = { .captions = true, .whole = true };
const coco_rule coco_segments = { .segments = true };
const coco_rule coco_grit = { .captions = true };
const coco_rule coco_v3det = { .excluded = v3det_absent };

typedef struct category {
    int64_t id;
    size_t text; /* in the data set's texts; ROWS_NO_FILE: only mentioned so far */
} category;

/* The region that is row i: until it is linked its `next` is the category. */
typedef struct loading {
    dataset *d;
    const coco_rule *rule;
    int64_t *image_ids; /* of the regions */
    size_t ids_cap;
    category *categories;
    size_t n_categories, categories_cap;
    id_map by_id; /* category id -> category */
    id_map excluded;
} loading;

/* ---- images and categories ---------------------------------------------------------------------------------- */

static bool is_excluded(const coco_rule *rule, const char *name)
{
    for (size_t i = 0; rule->excluded && rule->excluded[i]; i++)
        if (strcmp(rule->excluded[i], name) == 0) return true;
    return false;
}

static sca_status exclude(loading *l, int64_t id)
{
    uint32_t one = 1;
    l->d->counts.excluded++;
    return id_map_add(&l->excluded, id, &one);
}

static sca_status add_image(loading *l, int64_t index, const json_t *item)
{
    int64_t id = index;
    const char *name;
    size_t bytes;
    int32_t width, height;
    bool fresh, has_id = member_id(item, "id", &id);
    image_row *row;
    if (!has_id || !member_text(item, "file_name", &name, &bytes) || !member_size(item, &width, &height))
        return rows_bad(l->d, "image", has_id, id, DATASET_TYPE);
    if (is_excluded(l->rule, name)) return exclude(l, id);
    if (!path_stays(name)) return rows_bad(l->d, "image", true, id, DATASET_PATH);
    if (l->rule->whole && (width == 0 || height == 0)) return rows_bad(l->d, "image", true, id, DATASET_TYPE);
    TRY(rows_image(l->d, id, &fresh, &row));
    if (!fresh) return rows_bad(l->d, "image", true, id, DATASET_REPEATED);
    row->width = width;
    row->height = height;
    return rows_text(l->d, name, bytes, &row->file);
}

/* The place of a category, made when it is first mentioned. */
static sca_status category_at(loading *l, int64_t id, uint32_t *at)
{
    if (l->n_categories == l->categories_cap) {
        size_t cap = l->categories_cap ? 2 * l->categories_cap : 64;
        category *wider = mem_resize(l->categories, cap * sizeof *wider);
        if (!wider) return mem_fail(cap * sizeof *wider, "categories");
        l->categories = wider;
        l->categories_cap = cap;
    }
    *at = (uint32_t)l->n_categories;
    TRY(id_map_add(&l->by_id, id, at));
    if (*at == l->n_categories) l->categories[l->n_categories++] = (category){ .id = id, .text = ROWS_NO_FILE };
    return SCA_OK;
}

static sca_status add_category(loading *l, int64_t index, const json_t *item)
{
    int64_t id = index;
    const char *name;
    size_t bytes;
    uint32_t at;
    bool has_id = member_id(item, "id", &id);
    if (!has_id || !member_text(item, "name", &name, &bytes))
        return rows_bad(l->d, "category", has_id, id, DATASET_TYPE);
    TRY(category_at(l, id, &at));
    if (l->categories[at].text != ROWS_NO_FILE) return rows_bad(l->d, "category", true, id, DATASET_REPEATED);
    return rows_text(l->d, name, bytes, &l->categories[at].text);
}

/* ---- annotations -------------------------------------------------------------------------------------------- */

static sca_status keep_region(loading *l, const region_row *region, int64_t image, const json_t *shape)
{
    size_t n = l->d->n_regions;
    if (n == l->ids_cap) {
        size_t cap = n ? n + n / 2 : 64, bytes;
        int64_t *wider = size_mul(cap, sizeof *wider, &bytes) ? mem_resize(l->image_ids, bytes) : NULL;
        if (!wider) return mem_fail(cap, "the image ids of annotations");
        l->image_ids = wider;
        l->ids_cap = cap;
    }
    TRY(rows_region(l->d, region));
    l->image_ids[n] = image;
    return l->rule->whole ? SCA_OK : rows_mask(l->d, shape);
}

/* A segment or an annotation; `what` and index name it when it has no id. */
static sca_status add_region(loading *l, const char *what, int64_t index, const json_t *item, int64_t image,
                             const json_t *shape)
{
    region_row region = { .id = index, .n = 1 };
    int64_t category_id = 0;
    const char *phrase = NULL;
    size_t bytes = 0;
    bool has_id = member_id(item, "id", &region.id);
    bool has_phrase = l->rule->captions ? member_text(item, "caption", &phrase, &bytes)
                                        : member_id(item, "category_id", &category_id);
    if (!has_id || !has_phrase) return rows_bad(l->d, what, has_id, region.id, DATASET_TYPE);
    if (!l->rule->whole && !member_box(item, "bbox", region.box))
        return rows_bad(l->d, what, true, region.id, DATASET_BOX);
    if (l->rule->captions)
        TRY(rows_text(l->d, phrase, bytes, &region.text));
    else
        TRY(category_at(l, category_id, &region.next));
    return keep_region(l, &region, image, shape);
}

static sca_status add_annotation(loading *l, int64_t index, const json_t *item)
{
    int64_t image, id = index;
    const json_t *segments = json_object_get(item, "segments_info");
    bool has_id = member_id(item, "id", &id);
    if (!member_id(item, "image_id", &image) || (l->rule->segments && !json_is_array(segments)))
        return rows_bad(l->d, "annotation", has_id, id, DATASET_TYPE);
    if (!l->rule->segments)
        return add_region(l, "annotation", index, item, image, json_object_get(item, "segmentation"));
    for (size_t i = 0; i < json_array_size(segments); i++)
        TRY(add_region(l, "segment", (int64_t)i, json_array_get(segments, i), image,
                       json_object_get(item, "file_name")));
    return SCA_OK;
}

static sca_status take_item(void *user, const char *key, int64_t index, json_t *item)
{
    static const struct {
        const char *key;
        sca_status (*add)(loading *l, int64_t index, const json_t *item);
    } members[] = { { "images", add_image }, { "annotations", add_annotation }, { "categories", add_category } };
    if (!key)
        return status_fail(SCA_ERR_FORMAT, "a list, expected an object with images, annotations and categories; "
                                           "give the annotations of the kind that is named");
    for (size_t i = 0; i < LENGTH(members); i++) {
        if (strcmp(key, members[i].key) != 0) continue;
        if (index < 0) return status_fail(SCA_ERR_FORMAT, "'%s' is no list, expected a list of objects", key);
        return members[i].add(user, index, item);
    }
    return SCA_OK;
}

/* ---- linking ------------------------------------------------------------------------------------------------ */

static sca_status link_region(loading *l, uint32_t i)
{
    region_row *region = &l->d->regions[i];
    const char *what = l->rule->segments ? "segment" : "annotation";
    uint32_t image = id_map_get(&l->d->by_id, l->image_ids[i]);
    if (image == ID_NONE) {
        if (id_map_get(&l->excluded, l->image_ids[i]) != ID_NONE) return SCA_OK;
        return rows_bad(l->d, what, true, region->id, DATASET_NO_IMAGE);
    }
    if (!l->rule->captions) {
        region->text = l->categories[region->next].text;
        if (region->text == ROWS_NO_FILE) return rows_bad(l->d, what, true, region->id, DATASET_NO_CATEGORY);
    }
    if (l->rule->whole) {
        region->box[2] = l->d->images[image].width;
        region->box[3] = l->d->images[image].height;
    }
    rows_link(l->d, image, i);
    return SCA_OK;
}

static bool has_regions(const image_row *row) { return row->n > 0; }

static sca_status load(loading *l)
{
    dataset *d = l->d;
    TRY(rows_file(d, d->set.annotations));
    if (l->rule->segments) TRY(rows_maps(d));
    TRY(json_stream(d->set.annotations, take_item, l));
    for (size_t i = 0; i < d->n_regions; i++) TRY(link_region(l, (uint32_t)i));
    size_t described = d->n_images;
    TRY(rows_keep(d, has_regions));
    d->counts.empty = (int64_t)(described - d->n_images);
    return SCA_OK;
}

sca_status coco_open(dataset *d)
{
    loading l = { .d = d, .rule = d->kind->rule };
    sca_status status = load(&l);
    id_map_free(&l.excluded);
    id_map_free(&l.by_id);
    mem_free(l.categories);
    mem_free(l.image_ids);
    return status;
}
