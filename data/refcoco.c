/* refcoco.c - RefCOCO, RefCOCO+, RefCOCOg, RefCLEF: refs(NAME).p and instances.json (data.md 2.6).
 *
 * The split selects images; of these all refs are regions, whatever their own split is, as in the official loader.
 */
#include "data/dataset_parts.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_KEYS = 64,  /* of one ref or sentence: more would make the search for a member slow */
    SPLITS_NAMED = 8 /* in a message */
};

typedef struct box_row {
    int32_t xywh[4];
    bool known;
    size_t mask; /* among the data set's, ROWS_NO_FILE: none */
} box_row;

typedef struct loading {
    dataset *d;
    char *folder, *refs_path, *instances_path;
    size_t refs_bytes;
    const pickle_value *refs;
    uint32_t *image_of; /* of the regions */
    uint32_t *box_at;   /* of the regions, in boxes */
    box_row *boxes;
    uint32_t n_boxes;
    id_map by_annotation; /* annotation id -> box */
    id_map by_ref;
} loading;

/* ---- the two files ------------------------------------------------------------------------------------------ */

static sca_status take_name(void *user, const char *name)
{
    loading *l = user;
    if (!text_starts(name, "refs(") || !text_ends(name, ").p")) return SCA_OK;
    if (l->refs_path)
        return status_fail(SCA_ERR_ARGUMENT, "%s: holds %s and %s; give one of these files as 'annotations'",
                           l->folder, path_name(l->refs_path), name);
    l->refs_path = path_join(l->folder, name);
    return l->refs_path ? SCA_OK : mem_fail(strlen(name), "a path");
}

static sca_status find_files(loading *l)
{
    const char *given = l->d->set.annotations;
    if (dir_exists(given)) {
        if (!(l->folder = text_copy(given, strlen(given)))) return mem_fail(strlen(given), "a path");
        TRY(dir_each(given, take_name, l));
        if (!l->refs_path)
            return status_fail(SCA_ERR_IO, "%s: no file refs(NAME).p, expected it beside instances.json", given);
    } else {
        size_t n = (size_t)(path_name(given) - given);
        l->folder = n ? text_copy(given, n) : text_copy(".", 1);
        l->refs_path = text_copy(given, strlen(given));
    }
    if (l->folder && l->refs_path) l->instances_path = path_join(l->folder, "instances.json");
    return l->instances_path ? SCA_OK : mem_fail(strlen(given), "a path");
}

/* ---- members of a ref --------------------------------------------------------------------------------------- */

static const pickle_value *member(const pickle_value *dict, const char *key, pickle_type type)
{
    if (dict->type != PICKLE_DICT || dict->count > (size_t)2 * MOST_KEYS) return NULL;
    const pickle_value *v = pickle_get(dict, key);
    return v && v->type == type ? v : NULL;
}

/* Python 2 wrote some texts as bytes. */
static const pickle_value *text_member(const pickle_value *dict, const char *key)
{
    const pickle_value *v = member(dict, key, PICKLE_TEXT);
    if (!v) v = member(dict, key, PICKLE_BYTES);
    return v && strlen(v->text) == v->count && utf8_valid(v->text, v->count) ? v : NULL;
}

static bool int_member(const pickle_value *dict, const char *key, int64_t *out)
{
    const pickle_value *v = member(dict, key, PICKLE_INT);
    if (v) *out = v->integer;
    return v != NULL;
}

static const char *split_of(const pickle_value *ref)
{
    const pickle_value *v = text_member(ref, "split");
    return v ? v->text : NULL;
}

/* ---- the split ---------------------------------------------------------------------------------------------- */

/* "testA" is every ref whose split has the letter A, "test" every one with "test" in it (data.md 2.6). */
static bool in_split(const char *split, const char *wanted)
{
    if (text_starts(wanted, "test") && strlen(wanted) == 5 && strchr("ABC", wanted[4]))
        return strchr(split, wanted[4]) != NULL;
    if (strcmp(wanted, "test") == 0) return strstr(split, "test") != NULL;
    return strcmp(split, wanted) == 0;
}

static sca_status fail_split(const loading *l, const char *problem)
{
    const char *seen[SPLITS_NAMED];
    size_t n = 0;
    str list = { 0 };
    for (size_t i = 0; i < l->refs->count && n < SPLITS_NAMED; i++) {
        const char *split = split_of(l->refs->items[i]);
        size_t k = 0;
        while (split && k < n && strcmp(seen[k], split) != 0) k++;
        if (!split || k < n) continue;
        str_printf(&list, "%s'%s'", n ? ", " : "", split);
        seen[n++] = split;
    }
    sca_status status = list.failed ? mem_fail(list.bytes, "a message")
                                    : status_fail(SCA_ERR_ARGUMENT, "%s: %s; its refs are of %s", l->refs_path,
                                                  problem, n ? str_text(&list) : "no split");
    str_free(&list);
    return status;
}

/* Sets with testA have no split that stands for all. */
static sca_status choose_split(loading *l)
{
    char *split = l->d->set.split;
    if (split[0]) return SCA_OK;
    for (size_t i = 0; i < l->refs->count; i++) {
        const char *own = split_of(l->refs->items[i]);
        if (own && strcmp(own, "testA") == 0) return fail_split(l, "give 'split', testA or testB");
    }
    memcpy(split, "val", sizeof "val");
    return SCA_OK;
}

static int by_id(const void *a, const void *b)
{
    int64_t x = ((const image_row *)a)->id, y = ((const image_row *)b)->id;
    return (x > y) - (x < y);
}

/* The images of the refs of the split, in ascending order. */
static sca_status select_images(loading *l)
{
    dataset *d = l->d;
    for (size_t i = 0; i < l->refs->count; i++) {
        const pickle_value *ref = l->refs->items[i];
        const char *split = split_of(ref);
        int64_t id;
        bool fresh;
        image_row *row;
        if (split && in_split(split, d->set.split) && int_member(ref, "image_id", &id))
            TRY(rows_image(d, id, &fresh, &row));
    }
    if (d->n_images == 0) {
        char problem[100];
        snprintf(problem, sizeof problem, "no ref of split '%s'", d->set.split);
        return fail_split(l, problem);
    }
    qsort(d->images, d->n_images, sizeof *d->images, by_id);
    id_map_free(&d->by_id);
    for (uint32_t i = 0; i < d->n_images; i++) {
        uint32_t value = i;
        TRY(id_map_add(&d->by_id, d->images[i].id, &value));
    }
    return SCA_OK;
}

/* ---- refs --------------------------------------------------------------------------------------------------- */

/* Values of a pickle may be shared, so that a small file could stand for endless text. */
static sca_status add_sentences(loading *l, const pickle_value *sentences, region_row *region)
{
    region->text = l->d->text.bytes;
    for (size_t i = 0; i < sentences->count; i++) {
        const pickle_value *sent = text_member(sentences->items[i], "sent");
        size_t at;
        if (!sent) continue;
        TRY(rows_text(l->d, sent->text, sent->count, &at));
        region->n++;
        if (l->d->text.bytes > l->refs_bytes)
            return status_fail(SCA_ERR_FORMAT, "%s: the sentences are longer than the file, expected each once",
                               l->refs_path);
    }
    return SCA_OK;
}

static sca_status add_ref(loading *l, size_t index)
{
    const pickle_value *ref = l->refs->items[index], *sentences = member(ref, "sentences", PICKLE_LIST);
    dataset *d = l->d;
    region_row region = { .id = (int64_t)index };
    int64_t image_id, annotation;
    uint32_t one = 0, box = l->n_boxes;
    bool has_id = int_member(ref, "ref_id", &region.id);
    if (!has_id || !int_member(ref, "image_id", &image_id) || !int_member(ref, "ann_id", &annotation) ||
        !sentences || !split_of(ref))
        return rows_bad(d, "ref", has_id, region.id, DATASET_TYPE);
    uint32_t image = id_map_get(&d->by_id, image_id);
    if (image == ID_NONE) return SCA_OK;
    size_t before = l->by_ref.n;
    TRY(id_map_add(&l->by_ref, region.id, &one));
    if (l->by_ref.n == before) return rows_bad(d, "ref", true, region.id, DATASET_REPEATED);
    TRY(add_sentences(l, sentences, &region));
    if (region.n == 0) return rows_bad(d, "ref", true, region.id, DATASET_TYPE);
    TRY(id_map_add(&l->by_annotation, annotation, &box));
    if (box == l->n_boxes) l->n_boxes++;
    l->image_of[d->n_regions] = image;
    l->box_at[d->n_regions] = box;
    return rows_region(d, &region);
}

static sca_status read_refs(loading *l)
{
    size_t n = l->refs->count;
    TRY(choose_split(l));
    TRY(select_images(l));
    l->image_of = mem_zero(n, sizeof *l->image_of);
    l->box_at = mem_zero(n, sizeof *l->box_at);
    l->boxes = mem_zero(n, sizeof *l->boxes);
    if (!l->image_of || !l->box_at || !l->boxes) return mem_fail(n * sizeof *l->boxes, "refs");
    for (size_t i = 0; i < n; i++) TRY(add_ref(l, i));
    return SCA_OK;
}

static sca_status open_refs(loading *l)
{
    static const char *const none[] = { NULL };
    file_view view;
    pickle *p = NULL;
    size_t used;
    sca_status status;
    TRY(rows_file(l->d, l->refs_path));
    TRY(file_map(l->refs_path, &view));
    l->refs_bytes = view.bytes;
    TRY_GOTO(done, pickle_open(view.data, view.bytes, l->refs_path, none, &p, &used));
    l->refs = pickle_root(p);
    if (l->refs->type == PICKLE_LIST)
        status = read_refs(l);
    else
        status = status_fail(SCA_ERR_FORMAT, "%s: no list, expected a list of refs", l->refs_path);
    l->refs = NULL;
    pickle_close(p);
done:
    file_unmap(&view);
    return status;
}

/* ---- instances ---------------------------------------------------------------------------------------------- */

static sca_status take_image(loading *l, int64_t index, const json_t *item)
{
    int64_t id = index;
    const char *name;
    size_t bytes;
    int32_t width, height;
    if (!member_id(item, "id", &id)) return rows_bad(l->d, "image", false, id, DATASET_TYPE);
    uint32_t at = id_map_get(&l->d->by_id, id);
    if (at == ID_NONE) return SCA_OK;
    if (!member_text(item, "file_name", &name, &bytes) || !member_size(item, &width, &height))
        return rows_bad(l->d, "image", true, id, DATASET_TYPE);
    if (!path_stays(name)) return rows_bad(l->d, "image", true, id, DATASET_PATH);
    image_row *row = &l->d->images[at];
    if (row->file != ROWS_NO_FILE) return rows_bad(l->d, "image", true, id, DATASET_REPEATED);
    row->width = width;
    row->height = height;
    return rows_text(l->d, name, bytes, &row->file);
}

static sca_status take_annotation(loading *l, int64_t index, const json_t *item)
{
    int64_t id = index;
    int32_t xywh[4];
    if (!member_id(item, "id", &id)) return rows_bad(l->d, "annotation", false, id, DATASET_TYPE);
    uint32_t at = id_map_get(&l->by_annotation, id);
    if (at == ID_NONE) return SCA_OK;
    box_row *box = &l->boxes[at];
    if (box->known) return rows_bad(l->d, "annotation", true, id, DATASET_REPEATED);
    if (!member_box(item, "bbox", xywh)) return rows_bad(l->d, "annotation", true, id, DATASET_BOX);
    memcpy(box->xywh, xywh, sizeof xywh);
    box->known = true;
    return rows_mask_keep(l->d, json_object_get(item, "segmentation"), &box->mask);
}

static sca_status take_item(void *user, const char *key, int64_t index, json_t *item)
{
    bool image = key && strcmp(key, "images") == 0, annotation = key && strcmp(key, "annotations") == 0;
    if (!key) return status_fail(SCA_ERR_FORMAT, "a list, expected an object with images and annotations");
    if (!image && !annotation) return SCA_OK;
    if (index < 0) return status_fail(SCA_ERR_FORMAT, "'%s' is no list, expected a list of objects", key);
    return image ? take_image(user, index, item) : take_annotation(user, index, item);
}

/* ---- together ----------------------------------------------------------------------------------------------- */

static bool has_regions(const image_row *row) { return row->n > 0; }

static sca_status link_regions(loading *l)
{
    dataset *d = l->d;
    d->file = 0; /* the refs */
    for (uint32_t i = 0; i < d->n_regions; i++) {
        region_row *region = &d->regions[i];
        const box_row *box = &l->boxes[l->box_at[i]];
        bool described = d->images[l->image_of[i]].file != ROWS_NO_FILE;
        if (!described || !box->known) {
            dataset_reason why = described ? DATASET_NO_ANNOTATION : DATASET_NO_IMAGE;
            TRY(rows_bad(d, "ref", true, region->id, why));
            continue;
        }
        memcpy(region->box, box->xywh, sizeof region->box);
        if (d->with_masks) d->mask_at[i] = box->mask;
        rows_link(d, l->image_of[i], i);
    }
    TRY(rows_keep(d, has_regions));
    return SCA_OK;
}

static sca_status load(loading *l)
{
    TRY(find_files(l));
    TRY(open_refs(l));
    TRY(rows_file(l->d, l->instances_path));
    TRY(json_stream(l->instances_path, take_item, l));
    return link_regions(l);
}

sca_status refcoco_open(dataset *d)
{
    loading l = { .d = d };
    sca_status status = load(&l);
    id_map_free(&l.by_ref);
    id_map_free(&l.by_annotation);
    mem_free(l.boxes);
    mem_free(l.box_at);
    mem_free(l.image_of);
    mem_free(l.instances_path);
    mem_free(l.refs_path);
    mem_free(l.folder);
    return status;
}
