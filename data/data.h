/* data.h - samples on the host: images, masks, data sets.
 *
 * Layer: base only. Knows no tensor and no model: plain arrays with a shape and an element type.
 * Sources: spec model.md 1 (preprocessing), data.md.
 */
#ifndef DATA_H
#define DATA_H

#include "base/base.h"

/* ---- images (image.c) ---------------------------------------------------------------------------- */

#define IMAGE_MAX_PIXELS 200000000
#define IMAGE_MAX_SCANS 500 /* of a progressive JPEG */

/* JPEG (accurate integer DCT, smooth chroma upsampling, as Pillow's libjpeg-turbo decodes), PNG (8/16 bit, palette,
 * gray, alpha: as Pillow's convert("RGB") gives it, alpha dropped) and binary PPM, told by content.
 * `name` is for messages. Truncated or damaged data, more than the limits: an error. Options may be NULL. */
sca_status image_read(const char *path, const sca_image_options *o, sca_image *out);
sca_status image_decode(const void *bytes, size_t n, const char *name, const sca_image_options *o, sca_image *out);
/* Reads a PNG as one gray channel (height, width), for mask prompts; colour is converted as Pillow's convert("L"). */
sca_status image_read_gray(const char *path, int64_t max_pixels, int *width, int *height, uint8_t **gray);
sca_status image_alloc(int width, int height, sca_image *out);

/* Target size of an image whose longest side becomes `longest`: floor(side * longest / max + 0.5). */
void image_target(int width, int height, int longest, int *target_width, int *target_height);
/* Pillow's BILINEAR resize, bit for bit (model.md 1.2). */
sca_status image_resize(const sca_image *in, int width, int height, sca_image *out);
/* The model's input: resized to `size`, rescaled, normalised in float32, zero-padded on the right and bottom.
 * out: (size, size, 3) float32, caller's. *resized_width, *resized_height may be NULL. */
sca_status image_pixels(const sca_image *in, int size, const double mean[3], const double std[3], float *out,
                        int *resized_width, int *resized_height);

/* ---- masks (mask.c): COCO run lengths, exactly as pycocotools ----------------------------------------- */

/* Runs go down the columns and start with zeros. */
typedef struct mask_runs {
    int width, height;
    uint32_t *counts; /* owned; mask_runs_free */
    size_t count;
} mask_runs;
sca_status mask_encode(const uint8_t *on, int width, int height, mask_runs *out); /* on: (height, width), 0 or 1 */
sca_status mask_decode(const mask_runs *r, uint8_t *on);                          /* (height, width), caller's */
sca_status mask_runs_text(const mask_runs *r, char **counts);                     /* compressed string, mem_free */
sca_status mask_runs_parse(const char *counts, int width, int height, mask_runs *out); /* checks the total */
sca_status mask_from_polygons(const double *const *xy, const size_t *n_points, size_t parts, int width, int height,
                              mask_runs *out); /* union of the parts */
sca_status mask_from_box(const double xywh[4], int width, int height, mask_runs *out);
sca_status mask_union(const mask_runs *a, size_t n, mask_runs *out);
int64_t mask_area(const mask_runs *r);
void mask_box(const mask_runs *r, double xywh[4]);
double mask_iou(const mask_runs *a, const mask_runs *b, bool b_is_crowd);
void mask_runs_free(mask_runs *r);

/* Where a mask comes from, for messages. */
typedef struct mask_source {
    const char *path;
    int64_t id; /* of the annotation */
} mask_source;
/* Of a "segmentation" of COCO's format (shapes.c). */
sca_status mask_of_shape(const mask_source *from, const json_t *shape, int width, int height, mask_runs *out);
/* The pixels of a label map whose R + 256 G + 65536 B is id. */
sca_status mask_of_label(const char *map, int64_t id, int width, int height, mask_runs *out);

/* ---- data sets (dataset.c; one file per family of formats) ---------------------------------------------- */

/* One image with its regions, in file order: the order of evaluation. Owned by whoever asked; sample_free. */
typedef struct sample_region {
    int64_t id;
    double box[4]; /* x0, y0, x1, y1 in pixels of the original image; whole numbers, not clamped to it */
    const char *const
        *phrases; /* at least one, raw; the first is the label of an evaluation                      */
    size_t n_phrases;
    int64_t mask; /* for dataset_mask; -1: none */
} sample_region;
typedef struct data_sample {
    int64_t image_id;
    char *path;        /* of the image; it may be missing or damaged: image_read tells */
    int width, height; /* as the annotations say, 0: they do not; what counts is the size of the decoded image */
    sample_region *regions;
    size_t n_regions;
    const char **phrases; /* what the regions point into */
    char *text;
} data_sample;
void sample_free(data_sample *s); /* accepts a zeroed one, and leaves one */

/* What was left out of a data set, and why. */
typedef enum dataset_reason {
    DATASET_TYPE,           /* a member is missing or of a wrong type or range     */
    DATASET_BOX,            /* not four numbers in range, or a negative side       */
    DATASET_PATH,           /* the file name is empty or leaves the images folder  */
    DATASET_REPEATED,       /* the id has been there before                        */
    DATASET_NO_IMAGE,       /* of an image that the file does not describe         */
    DATASET_NO_CATEGORY,    /* of a category that the file does not describe       */
    DATASET_NO_ANNOTATION,  /* a ref of an annotation that is not there            */
    DATASET_NO_DESCRIPTION, /* an image of the split without region descriptions   */
    DATASET_REASONS
} dataset_reason;
typedef struct dataset_bad {
    const char *file; /* name without folder                                     */
    const char *what; /* "image", "annotation", "region", "category", "ref"      */
    bool has_id;      /* else `id` is the position in its list, from 0           */
    int64_t id;
    dataset_reason reason;
} dataset_bad;
typedef struct dataset_counts {
    int64_t images, regions, phrases; /* what is read                                                          */
    int64_t empty;                    /* images left out by rule because they have no region (COCO's formats) */
    int64_t excluded;                 /* images left out by rule by their name (V3Det's six)                  */
    int64_t bad;                      /* records left out because they are wrong: dataset_bad_at              */
    int64_t by_reason[DATASET_REASONS];
} dataset_counts;

/* kind: visual_genome, grit, coco, coco_caption, coco_panoptic, objects365, v3det or refcoco (data.md 2).
 * annotations: the file; visual_genome: the folder of region_descriptions.json, image_data.json and
 * densecap_splits.json; refcoco: the folder of instances.json and refs(NAME).p, or that .p file if there are several.
 * images: the folder that file names are relative to, or the one above VG_100K/, val2017/, train2014/, train/, ...
 * split: visual_genome train, val, test or full (all images), default test; refcoco train, val, test, testA, ...,
 * default val where there is no testA; "validation" is "val"; the other kinds read the whole file.
 * task: caption (also if empty) or recognition. name: KIND-SPLIT if empty.
 *
 * Keeps an index in memory (40 bytes per region and the phrases) and no file open. Bad records are left out with a
 * warning; a file that breaks its format, and a set without any image, is an error. */
typedef struct dataset dataset;
sca_status dataset_open(const config_dataset *set, dataset **out);
/* The same, and keeps the masks that are annotated (COCO's formats, refcoco, store) or rendered (synthetic); those of
 * coco_panoptic are label maps, and without their folder there are none. */
sca_status dataset_open_masks(const config_dataset *set, dataset **out);
void dataset_close(dataset *d); /* accepts NULL */
/* Image number index, from 0 to dataset_count - 1. Decodes nothing. May be called from several threads at once. */
sca_status dataset_read(const dataset *d, int64_t index, data_sample *out);
/* The image of a sample that was read: from its file, a store, or rendered. */
sca_status dataset_image(const dataset *d, int64_t index, const data_sample *s, const sca_image_options *o,
                         sca_image *out);
/* The mask of a region of that image, filled at the image's size; *found false when it has none. mask_runs_free. */
sca_status dataset_mask(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                        mask_runs *out, bool *found);
/* Fails at the first file of masks that is missing. */
sca_status dataset_check_masks(const dataset *d);
/* The size of the decoded image, where it is known without decoding: a store, synthetic. */
bool dataset_size(const dataset *d, int64_t index, int *width, int *height);
bool dataset_pictures(const dataset *d); /* false: texts, without images and boxes */

/* Image embeddings that a store holds. */
typedef struct embeddings_info {
    int grid, channels;  /* each (grid * grid, channels)                         */
    bool f16;            /* IEEE half, else float                                 */
    size_t bytes;        /* of one image's                                        */
    const char *encoder; /* which one made them                                   */
} embeddings_info;
const embeddings_info *dataset_embeddings(const dataset *d); /* NULL: it has none */
sca_status dataset_embedding(const dataset *d, int64_t index, void *out);

int64_t dataset_count(const dataset *d);
const dataset_counts *dataset_counted(const dataset *d);
dataset_bad dataset_bad_at(const dataset *d, int64_t index); /* 0 to counts.bad - 1; texts live as long as d */
const char *dataset_reason_text(dataset_reason r);
const char *dataset_name(const dataset *d);
const char *dataset_kind_name(const dataset *d);
/* Path of an annotation file that was read, NULL behind the last; refcoco: the refs, then the instances. */
const char *dataset_file(const dataset *d, size_t index);
const char *dataset_split(const dataset *d); /* the one in use; "" if the kind has none and none was given */
bool dataset_recognition(const dataset *d);  /* the task */

/* ---- batches for training (loader.c; data.md 3 to 6) ------------------------------------------------------- */

/* The ids of a phrase as training sees them (data.md 5: cut, EOS at the end): *ids from mem_alloc, *n at least 1.
 * Called by several threads at once. */
typedef sca_status loader_tokenise(void *user, const char *text, size_t bytes, int **ids, int *n);

/* A record that is left out; each is told once, by the thread that calls loader_open or loader_next, in an order that
 * does not depend on the workers. Texts are borrowed during the call. */
typedef struct loader_skip {
    const char *file;   /* of annotations (its name), or the image (its path)                             */
    const char *what;   /* "image", "annotation", "region", "category", "ref", ...                        */
    bool has_id;        /* else `id` is the position in its list, from 0                                  */
    int64_t id;         /* of the image or region                                                         */
    const char *reason; /* for people                                                                     */
} loader_skip;
typedef sca_status loader_skip_fn(void *user, const loader_skip *s);

typedef struct loader_options {
    const config_dataset *sets; /* borrowed during loader_open */
    size_t n_sets;
    bool shuffle; /* false: file order, wrapping around, first regions and first phrase */
    int regions_per_image;
    bool jitter; /* flip and large-scale jitter */
    double jitter_scale[2];
    int workers; /* 0: loader_next does the work itself */
    double max_bad;
    uint64_t seed;
    int batch_images, rank, size, accumulate;
    int64_t start; /* loader_position of the run that is gone on with; 0: from the beginning */

    bool pixels, masks, tokens; /* what batches hold; text sets have tokens only */
    bool embeddings;     /* take image embeddings in place of pixels where every set is a store that has them */
    const char *encoder; /* which encoder those must be of, as prepared; NULL: any */
    int side, mask_side; /* of the model's image; of low-resolution masks */
    double mean[3], std[3];
    sca_image_options photo;
    loader_tokenise *tokenise; /* needed for tokens */
    void *tokeniser;
    int pad_id;              /* fills ids behind a phrase */
    loader_skip_fn *skipped; /* NULL: bad records are only counted */
    void *skipped_user;
} loader_options;

/* Of data.* and train.* settings; the rest is zero. Borrows c. */
void loader_options_from(const config *c, loader_options *o);

/* One rank's share of a step is `accumulate` of these. Never empty: images >= 1, regions >= 1. All arrays are the
 * loader's and live until the next call of loader_next or loader_close; what was not asked for is NULL. */
typedef struct loader_batch {
    int images, regions,
        length;             /* B, m, L: after the collator's cut; L is the longest text before it, at least 1 */
    const float *pixels;    /* (B, side, side, 3) normalised, padded with 0 on the right and bottom            */
    const void *embeddings; /* (B, grid * grid, channels) float, or 16-bit float where embeddings_f16           */
    bool embeddings_f16;
    int grid, channels;
    const int (*valid)[2];      /* (B) height, width of the image within side x side                              */
    const int (*original)[2];   /* (B) height, width it had before: of the photo, or of the jittered image        */
    const double (*boxes)[4];   /* (B, m) x0, y0, x1, y1 in the model's frame                                     */
    const int32_t *ids;         /* (B, m, L) pad_id behind the text                                               */
    const int32_t *labels;      /* (B, m, L + 1) -100 first, and on padding                                       */
    const int32_t *lengths;     /* (B, m) ids of the text, EOS included: the attention mask                       */
    const uint8_t *recognition; /* (B) the image's set has the task recognition                                   */
    const uint8_t *masks;       /* (B, m, mask_side, mask_side) 0 or 1, in the model's frame                      */
    const int64_t *image_ids;   /* (B)    */
    const int64_t *region_ids;  /* (B, m) */
    int64_t targets;            /* labels that are not -100 */
    double waited_s;            /* that loader_next waited for this one */
} loader_batch;

/* Every image once per epoch in a new random order (or file order), over the list that data.md 3 makes of the sets.
 * Micro-batch j of rank r in step s is number (s * accumulate + j) * size + r of one sequence: what a step holds
 * depends on size * accumulate alone, and nothing on the workers. Images that cannot be used are left out of their
 * batch; a batch of which nothing is left takes other images in its place. Fails when more than max_bad of all records
 * (images and regions) are bad. */
typedef struct loader loader;
sca_status loader_open(const loader_options *o, loader **out);
sca_status loader_next(loader *l, const loader_batch **out);
/* Micro-batches of all ranks that are behind: a multiple of size * accumulate at the end of a step. */
int64_t loader_position(const loader *l);
int64_t loader_images(const loader *l); /* of one epoch */
void loader_close(loader *l);           /* accepts NULL */

/* ---- stores (store.c, prepare.c) -------------------------------------------------------------------------------- */

typedef struct prepare_options {
    config_dataset set; /* what is prepared */
    const char *to;     /* the store */
    bool pack;          /* the image files, too */
    sca_image_options photo;
    int threads;
    int rank, size;
    /* A barrier that carries a failure, when there are several ranks (comm_agree). */
    sca_status (*agree)(void *user, sca_status mine);
    void *ranks;
    /* Image embeddings of embedding.bytes each; NULL: none. Called by one thread. */
    sca_status (*embed)(void *user, const sca_image *photo, void *out);
    void *embedder;
    embeddings_info embedding;
} prepare_options;

/* Decodes every image once and writes index, masks (label maps apart), files and embeddings to a store (kind `store`),
 * with which training makes the same batches. Work that was interrupted goes on from the part files beside `to` (TO.part-RANK), which are
 * removed at the end. *table: counts for people, at rank 0; else "". Called by every rank. */
sca_status prepare_store(const prepare_options *o, str *table);

/* ---- texts alone (phrases.c) ------------------------------------------------------------------------------------- */

/* Writes all phrases of a set to the file `to`, JSON Lines {"text": PHRASE} in the order of images and regions: what a
 * vocabulary is learnt from. *table: counts for people. By one rank. */
sca_status prepare_phrases(const config_dataset *set, const char *to, str *table);

#endif
