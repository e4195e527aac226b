/* dataset.c - data sets: the table of kinds, opening by configuration, and what a caller may ask. */
#include "data/dataset_parts.h"

#include <string.h>

static const char *const coco_folders[] = { "val2017", "train2017", "val2014", "train2014", NULL };
static const char *const genome_folders[] = { "VG_100K", "VG_100K_2", NULL };
static const char *const objects_folders[] = { "val", "train", NULL };
static const char *const refer_folders[] = { "train2014", "saiapr_tc-12", NULL };

static const char *const sbu_folders[] = { "images", NULL };

/* Kinds of files: annotations that name images in a folder. */
#define FILES(kind, split, opener, where, how)                                                                     \
    {                                                                                                              \
        .name = kind, .default_split = split, .open = opener, .read = rows_read, .folders = where, .rule = how,    \
        .annotations = true, .images = true                                                                        \
    }
static const dataset_kind kinds[] = {
    FILES("visual_genome", "test", genome_open, NULL, NULL),
    FILES("grit", "", coco_open, genome_folders, &coco_grit),
    FILES("coco", "", coco_open, coco_folders, &coco_instances),
    FILES("coco_caption", "", coco_open, coco_folders, &coco_captions),
    FILES("coco_panoptic", "", coco_open, coco_folders, &coco_segments),
    FILES("objects365", "", coco_open, objects_folders, &coco_instances),
    FILES("v3det", "", coco_open, NULL, &coco_v3det),
    FILES("refcoco", "", refcoco_open, refer_folders, NULL),
    FILES("sbu", "", sbu_open, sbu_folders, NULL),
    { .name = "text",
      .default_split = "",
      .open = text_open,
      .read = text_read,
      .close = text_close,
      .annotations = true,
      .texts = true },
    { .name = "store",
      .default_split = "",
      .open = store_open,
      .read = store_read,
      .close = store_close,
      .annotations = true,
      .own_task = true,
      .image = store_image,
      .mask = store_mask,
      .size = store_size,
      .embeddings = store_embeddings,
      .embedding = store_embedding },
    { .name = "synthetic",
      .default_split = "train",
      .open = synthetic_open,
      .read = synthetic_read,
      .close = synthetic_close,
      .image = synthetic_image,
      .mask = synthetic_mask,
      .size = synthetic_size },
};
#undef FILES

static const char *const reasons[DATASET_REASONS] = {
    [DATASET_TYPE] = "a member is missing or of a wrong type or range",
    [DATASET_BOX] = "the box is not four numbers in range, or has a negative side",
    [DATASET_PATH] = "the file name leaves the images folder",
    [DATASET_REPEATED] = "the id has been there before",
    [DATASET_NO_IMAGE] = "no such image is described",
    [DATASET_NO_CATEGORY] = "no such category is described",
    [DATASET_NO_ANNOTATION] = "its annotation is absent or wrong",
    [DATASET_NO_DESCRIPTION] = "no region descriptions are there",
};

/* ---- opening ------------------------------------------------------------------------------------------------ */

static const dataset_kind *find_kind(const char *name)
{
    for (size_t i = 0; i < LENGTH(kinds); i++)
        if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
    return NULL;
}

static sca_status fail_kind(const char *name)
{
    const char *names[LENGTH(kinds)];
    str list = { 0 };
    for (size_t i = 0; i < LENGTH(kinds); i++) {
        names[i] = kinds[i].name;
        str_printf(&list, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = text_nearest(name, names, LENGTH(names));
    sca_status status =
        list.failed
            ? mem_fail(list.bytes, "a message")
            : status_fail(SCA_ERR_ARGUMENT, "data set: kind is '%s', expected one of %s%s%s%s", name,
                          str_text(&list), near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    str_free(&list);
    return status;
}

static sca_status check_set(const config_dataset *set)
{
    const dataset_kind *kind = find_kind(set->kind);
    if (!kind) return fail_kind(set->kind);
    if (kind->annotations && !set->annotations[0])
        return status_fail(SCA_ERR_ARGUMENT, "data set of kind %s: give 'annotations'", set->kind);
    if (kind->images && !set->images[0])
        return status_fail(SCA_ERR_ARGUMENT, "data set of kind %s: give 'images', a folder", set->kind);
    if (set->images[0] && !dir_exists(set->images))
        return status_fail(SCA_ERR_IO, "%s: no such folder; 'images' of a data set of kind %s must be one",
                           set->images, set->kind);
    if (set->task[0] && strcmp(set->task, "caption") != 0 && strcmp(set->task, "recognition") != 0)
        return status_fail(SCA_ERR_ARGUMENT, "data set of kind %s: task is '%s', expected caption or recognition",
                           set->kind, set->task);
    return SCA_OK;
}

void set_text(char *to, size_t size, const char *text)
{
    size_t n = strlen(text);
    if (n >= size) n = size - 1;
    memcpy(to, text, n);
    to[n] = 0;
}

static void fill_in(config_dataset *set, const dataset_kind *kind)
{
    if (!set->split[0]) set_text(set->split, sizeof set->split, kind->default_split);
    if (strcmp(set->split, "validation") == 0) set_text(set->split, sizeof set->split, "val");
    if (!set->task[0] && !kind->own_task) set_text(set->task, sizeof set->task, "caption");
}

/* Of a reader that chooses the split itself, the name is only known now. */
static void name_it(config_dataset *set)
{
    if (set->name[0]) return;
    set_text(set->name, sizeof set->name, set->kind);
    if (!set->split[0]) return;
    size_t n = strlen(set->name);
    set_text(set->name + n, sizeof set->name - n, "-");
    set_text(set->name + n + 1, sizeof set->name - n - 1, set->split);
}

/* What is there, and one line per reason why something is not, with the first record of it. */
static void tell(const dataset *d)
{
    const dataset_counts *c = &d->counts;
    bool said[DATASET_REASONS] = { false };
    log_info(
        "%s: %lld images, %lld regions, %lld phrases; left out by rule: %lld images without regions, %lld by name",
        dataset_name(d), (long long)c->images, (long long)c->regions, (long long)c->phrases, (long long)c->empty,
        (long long)c->excluded);
    for (int64_t i = 0; i < d->counts.bad; i++) {
        dataset_bad bad = dataset_bad_at(d, i);
        if (said[bad.reason]) continue;
        said[bad.reason] = true;
        log_warn("%s: %lld records left out because %s; the first: %s %s%lld of %s", dataset_name(d),
                 (long long)d->counts.by_reason[bad.reason], reasons[bad.reason], bad.what,
                 bad.has_id ? "" : "number ", (long long)bad.id, bad.file);
    }
}

/* Gives back what growing left over. */
static sca_status trim(void **items, size_t count, size_t size)
{
    if (count == 0) return SCA_OK;
    void *p = mem_resize(*items, count * size);
    if (!p) return mem_fail(count * size, "a data set");
    *items = p;
    return SCA_OK;
}

static sca_status trim_rows(dataset *d)
{
    void *images = d->images, *regions = d->regions;
    id_map_free(&d->by_id);
    sca_status status = trim(&images, d->n_images, sizeof *d->images);
    d->images = images;
    if (status == SCA_OK) status = trim(&regions, d->n_regions, sizeof *d->regions);
    d->regions = regions;
    return status;
}

static sca_status open_set(const config_dataset *set, bool masks, dataset **out)
{
    sca_status status;
    *out = NULL;
    TRY(check_set(set));
    dataset *d = mem_zero(1, sizeof *d);
    if (!d) return mem_fail(sizeof *d, "a data set");
    d->kind = find_kind(set->kind);
    d->set = *set;
    d->with_masks = masks;
    fill_in(&d->set, d->kind);
    TRY_GOTO(fail, d->kind->open(d));
    name_it(&d->set);
    TRY_GOTO(fail, trim_rows(d));
    tell(d);
    if (d->counts.images == 0) {
        status =
            status_fail(SCA_ERR_FORMAT,
                        "%s: no image can be used (%lld without regions, %lld bad records), expected annotations "
                        "of kind %s; check kind and split",
                        d->set.annotations, (long long)d->counts.empty, (long long)d->counts.bad, d->kind->name);
        goto fail;
    }
    *out = d;
    return SCA_OK;
fail:
    dataset_close(d);
    return status;
}

sca_status dataset_open(const config_dataset *set, dataset **out) { return open_set(set, false, out); }
sca_status dataset_open_masks(const config_dataset *set, dataset **out) { return open_set(set, true, out); }

void dataset_close(dataset *d)
{
    if (!d) return;
    if (d->kind->close) d->kind->close(d);
    for (size_t i = 0; i < d->n_files; i++) mem_free(d->files[i]);
    id_map_free(&d->by_id);
    mem_free(d->bad);
    str_free(&d->mask_text);
    mem_free(d->mask_at);
    mem_free(d->regions);
    mem_free(d->images);
    str_free(&d->text);
    mem_free(d);
}

/* ---- asking ------------------------------------------------------------------------------------------------- */

sca_status dataset_read(const dataset *d, int64_t index, data_sample *out)
{
    *out = (data_sample){ 0 };
    if (index < 0 || index >= d->counts.images)
        return status_fail(SCA_ERR_ARGUMENT, "%s: image %lld, expected 0 to %lld", dataset_name(d),
                           (long long)index, (long long)d->counts.images - 1);
    return d->kind->read(d, index, out);
}

sca_status dataset_image(const dataset *d, int64_t index, const data_sample *s, const sca_image_options *o,
                         sca_image *out)
{
    return d->kind->image ? d->kind->image(d, index, o, out) : image_read(s->path, o, out);
}

sca_status dataset_mask(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                        mask_runs *out, bool *found)
{
    *found = false;
    *out = (mask_runs){ 0 };
    if (r->mask < 0) return SCA_OK;
    return (d->kind->mask ? d->kind->mask : rows_mask_runs)(d, index, r, width, height, out, found);
}

bool dataset_size(const dataset *d, int64_t index, int *width, int *height)
{
    return d->kind->size && d->kind->size(d, index, width, height);
}

bool dataset_pictures(const dataset *d) { return !d->kind->texts; }

const embeddings_info *dataset_embeddings(const dataset *d)
{
    return d->kind->embeddings ? d->kind->embeddings(d) : NULL;
}

sca_status dataset_embedding(const dataset *d, int64_t index, void *out)
{
    ASSERT(dataset_embeddings(d));
    return d->kind->embedding(d, index, out);
}

void sample_free(data_sample *s)
{
    mem_free(s->path);
    mem_free(s->regions);
    mem_free(s->phrases);
    mem_free(s->text);
    *s = (data_sample){ 0 };
}

int64_t dataset_count(const dataset *d) { return d->counts.images; }
const dataset_counts *dataset_counted(const dataset *d) { return &d->counts; }
const char *dataset_reason_text(dataset_reason r) { return reasons[r]; }
const char *dataset_name(const dataset *d) { return d->set.name; }
const char *dataset_kind_name(const dataset *d) { return d->kind->name; }
const char *dataset_file(const dataset *d, size_t index) { return index < d->n_files ? d->files[index] : NULL; }
const char *dataset_split(const dataset *d) { return d->set.split; }
bool dataset_recognition(const dataset *d) { return strcmp(d->set.task, "recognition") == 0; }

dataset_bad dataset_bad_at(const dataset *d, int64_t index)
{
    const bad_row *b = &d->bad[index];
    return (dataset_bad){ .file = path_name(d->files[b->file]),
                          .what = b->what,
                          .has_id = b->has_id,
                          .id = b->id,
                          .reason = (dataset_reason)b->reason };
}
