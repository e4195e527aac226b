/* dataset_parts.h - the kinds of data sets and the index that most of them build; private to data/.
 *
 * A new kind is a file with its functions and a row in the table of dataset.c.
 */
#ifndef DATA_DATASET_PARTS_H
#define DATA_DATASET_PARTS_H

#include "data/data.h"

typedef struct dataset_kind {
    const char *name, *default_split;
    sca_status (*open)(dataset *d); /* fills the index, or sets d->own and counts.images */
    sca_status (*read)(const dataset *d, int64_t index, data_sample *out); /* thread-safe     */
    void (*close)(dataset *d);  /* releases d->own; NULL: nothing to do              */
    const char *const *folders; /* of `images` that may hold the files, NULL at end  */
    const void *rule;           /* what tells rows with the same functions apart     */
    bool annotations, images;   /* must be given                                     */
    bool texts;                 /* no images at all                                  */
    bool own_task;              /* the file says which, where the settings do not    */
    /* Thread-safe; NULL: the file at the sample's path, the masks of the index, no size, no embeddings. */
    sca_status (*image)(const dataset *d, int64_t index, const sca_image_options *o, sca_image *out);
    sca_status (*mask)(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                       mask_runs *out, bool *found);
    bool (*size)(const dataset *d, int64_t index, int *width, int *height);
    const embeddings_info *(*embeddings)(const dataset *d);
    sca_status (*embedding)(const dataset *d, int64_t index, void *out);
} dataset_kind;

/* ---- numbers by id (rows.c) ---- */

typedef struct id_map { /* zero-initialise; id_map_free */
    int64_t *keys;
    uint32_t *values; /* ID_NONE: a free place */
    size_t cap, n;
} id_map;
#define ID_NONE UINT32_MAX
/* The value of an id, ID_NONE if it is not there. */
uint32_t id_map_get(const id_map *m, int64_t id);
/* Puts the value unless the id is there; *value becomes the one that is there now. */
sca_status id_map_add(id_map *m, int64_t id, uint32_t *value);
void id_map_free(id_map *m);

/* ---- the index (rows.c) ---- */

#define ROWS_NO_FILE SIZE_MAX

typedef struct image_row {
    int64_t id;
    size_t file; /* relative path, in d->text; ROWS_NO_FILE: an image of which only the id is known */
    int32_t width, height;
    uint32_t first, last, n; /* chain of regions */
} image_row;

typedef struct region_row {
    int64_t id;
    size_t text;    /* n phrases one after the other in d->text, each closed by 0 */
    int32_t box[4]; /* x, y, width, height */
    uint32_t next, n;
} region_row;

typedef struct bad_row {
    int64_t id;
    const char *what; /* a literal */
    uint8_t file, reason;
    bool has_id;
} bad_row;

enum { DATASET_FILES = 4 };

struct dataset {
    const dataset_kind *kind;
    config_dataset set; /* defaults filled in */
    dataset_counts counts;
    void *own; /* of a kind that builds no index */

    str text;
    image_row *images;
    region_row *regions;
    size_t n_images, images_cap, n_regions, regions_cap;
    id_map by_id; /* image id -> image; while opening */

    bool with_masks;
    str mask_text;   /* annotated masks as JSON, each closed by 0 */
    size_t *mask_at; /* (regions_cap) of regions, in mask_text; ROWS_NO_FILE: none */
    size_t masks_cap;

    char *files[DATASET_FILES]; /* paths, for bad records */
    size_t n_files, file;       /* file: the one that bad records are of */
    bad_row *bad;
    size_t bad_cap;
};

/* Names the file that the next bad records are of. */
sca_status rows_file(dataset *d, const char *path);
sca_status rows_bad(dataset *d, const char *what, bool has_id, int64_t id, dataset_reason why);
sca_status rows_text(dataset *d, const char *text, size_t bytes, size_t *at);
/* *fresh: false if the id is there already, and then nothing is added. */
sca_status rows_image(dataset *d, int64_t id, bool *fresh, image_row **row);
/* Appended, of no image yet. */
sca_status rows_region(dataset *d, const region_row *region);
void rows_link(dataset *d, uint32_t image, uint32_t region); /* the last one of the image from now on */
/* Keeps the images for which keep says so, in order, without regions that repeat an id of the same image; counts what
 * is left. */
sca_status rows_keep(dataset *d, bool (*keep)(const image_row *row));
/* The annotated mask of the region that was appended last, where masks are kept: polygons or run lengths. */
sca_status rows_mask(dataset *d, const json_t *shape);
/* Of a region that is not there yet: its place for mask_at. */
sca_status rows_mask_keep(dataset *d, const json_t *shape, size_t *at);
sca_status rows_maps(dataset *d); /* masks are label maps: without their folder there are none */
sca_status rows_mask_runs(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                          mask_runs *out, bool *found);
sca_status rows_read(const dataset *d, int64_t index, data_sample *out);

/* ---- members of JSON records (rows.c): false if missing or wrong ---- */

bool member_id(const json_t *o, const char *key, int64_t *out);
bool member_text(const json_t *o, const char *key, const char **text, size_t *bytes); /* no 0 within, not empty */
bool member_size(const json_t *o, int32_t *width, int32_t *height);                   /* absent or null: 0 */
bool box_from(const double xywh[4], int32_t box[4]); /* cut toward zero (data.md 1) */
bool member_box(const json_t *o, const char *key, int32_t box[4]);
bool path_stays(const char *name); /* relative, and no component is "..", "." or empty */

/* ---- the formats ---- */

/* Cut to what fits, the 0 included. */
void set_text(char *to, size_t size, const char *text);

sca_status coco_open(dataset *d);
sca_status genome_open(dataset *d);
sca_status refcoco_open(dataset *d);
sca_status sbu_open(dataset *d);

sca_status text_open(dataset *d);
sca_status text_read(const dataset *d, int64_t index, data_sample *out);
void text_close(dataset *d);

sca_status store_open(dataset *d);
sca_status store_read(const dataset *d, int64_t index, data_sample *out);
sca_status store_image(const dataset *d, int64_t index, const sca_image_options *o, sca_image *out);
sca_status store_mask(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                      mask_runs *out, bool *found);
bool store_size(const dataset *d, int64_t index, int *width, int *height);
const embeddings_info *store_embeddings(const dataset *d);
sca_status store_embedding(const dataset *d, int64_t index, void *out);
void store_close(dataset *d);

sca_status synthetic_open(dataset *d);
sca_status synthetic_read(const dataset *d, int64_t index, data_sample *out);
sca_status synthetic_image(const dataset *d, int64_t index, const sca_image_options *o, sca_image *out);
sca_status synthetic_mask(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                          mask_runs *out, bool *found);
bool synthetic_size(const dataset *d, int64_t index, int *width, int *height);
void synthetic_close(dataset *d);

typedef struct coco_rule {
    bool captions; /* the phrase is the annotation's caption, else the category's name */
    bool whole;    /* the region is the whole image                                    */
    bool segments; /* an annotation is a list of segments                              */
    const char *const *excluded;
} coco_rule;
extern const coco_rule coco_instances, coco_captions, coco_segments, coco_grit, coco_v3det;

#endif
