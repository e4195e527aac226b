/* loader_parts.h - the parts of the loader of training batches; private to data/. */
#ifndef DATA_LOADER_PARTS_H
#define DATA_LOADER_PARTS_H

#include "base/rng.h"
#include "data/data.h"

/* ---- random numbers (order.c): functions of seed, purpose and place; no state that a restart could lose ---- */

typedef struct draws {
    uint64_t key, place, count;
    rng_block block;
} draws;
draws draws_at(uint64_t seed, const char *purpose, uint64_t place);
uint64_t draw_below(draws *d, uint64_t n); /* 0 to n - 1 */
double draw_unit(draws *d);                /* in [0, 1), 53 bits */
void draw_order(draws *d, uint32_t *items, size_t n);

/* ---- the list of images (order.c; data.md 3) ---- */

/* Images of several sets, numbered one set after the other, in the order of the list: read by turns, or by weight. */
typedef struct mixture {
    int64_t *first; /* (sets + 1) number of a set's first image; the last: all images */
    size_t sets;
    uint32_t *drawn; /* by weight: the list; else NULL */
    int64_t count;   /* length of the list */
} mixture;
/* weights 0: not given; all or none are. */
sca_status mixture_init(const int64_t *images, const double *weights, size_t sets, uint64_t seed, mixture *out);
void mixture_free(mixture *m);
/* Which image of which set is at `place` of the list. */
void mixture_at(const mixture *m, int64_t place, size_t *set, int64_t *image);
/* NumPy's default_rng(seed).random(): PCG64 seeded by SeedSequence. */
__extension__ typedef unsigned __int128 uint128;
typedef struct pcg64 {
    uint128 state, step;
} pcg64;
void pcg64_init(pcg64 *g, uint64_t seed);
double pcg64_unit(pcg64 *g);

/* ---- large-scale jitter (jitter.c; data.md 4.1) ---- */

typedef struct jitter {
    int from_width, from_height; /* of the photo                       */
    bool flip;
    int width, height; /* that it is resized to              */
    int left, top;     /* corner of the crop in that         */
    int side;          /* of the result, filled up with 0    */
} jitter;
/* flip, crop: uniform in [0, 1); scale as drawn. */
void jitter_init(jitter *j, int width, int height, int side, double flip, double scale, double crop);
sca_status jitter_image(const jitter *j, const sca_image *in, const double mean[3], const double std[3],
                        sca_image *out);
void jitter_box(const jitter *j, double box[4]); /* whole numbers */

/* ---- masks in the model's frame (jitter.c) ---- */

/* on: (height, width) of the photo; out: (mask_side, mask_side). j NULL: no jitter. A cell is 1 where the mask covers
 * half of it. */
sca_status mask_frame(const uint8_t *on, int width, int height, const jitter *j, int side, int mask_side,
                      uint8_t *out);

/* ---- one image (transform.c; data.md 4.2) ---- */

typedef enum skip_reason {
    SKIP_IMAGE,  /* cannot be read: the text is the message */
    SKIP_BOX,    /* no area within the image                */
    SKIP_EMPTY,  /* the phrase is empty                     */
    SKIP_PHRASE, /* the phrase is huge                      */
    SKIP_MASK,   /* its mask is wrong: the text is the message */
    SKIP_REASONS
} skip_reason;
typedef struct skip_row {
    size_t set;
    int64_t image, region; /* numbers; region -1: the image itself */
    int64_t id;
    skip_reason reason;
    char *path, *text; /* NULL: none */
} skip_row;
typedef struct skip_list {
    skip_row *rows;
    size_t n, cap;
} skip_list;
sca_status skip_put(skip_list *l, const skip_row *row, const char *path, const char *text);
void skip_clear(skip_list *l); /* keeps the memory */
void skip_free(skip_list *l);

typedef struct example_region {
    int64_t id;
    double box[4]; /* in the model's frame */
    int *ids;      /* owned */
    int n_ids;
} example_region;
typedef struct example { /* an image that is ready for a batch */
    int64_t image_id;
    bool recognition;
    int valid[2], original[2]; /* height, width */
    example_region *regions;   /* (o->regions_per_image) */
    int n;
} example;

typedef struct example_places { /* where an image's arrays go; NULL: not wanted */
    float *pixels;
    void *embedding;
    uint8_t *masks; /* (regions_per_image, mask_side, mask_side) */
} example_places;

enum { PHRASE_MOST = 65536 }; /* bytes; a longer one is bad */

/* e->n 0: nothing can be used. place: of the image in the whole sequence. */
sca_status example_make(const loader_options *o, const dataset *d, size_t set, int64_t image, uint64_t place,
                        const example_places *to, example *e, skip_list *skipped);
void example_clear(example *e); /* keeps the memory */

/* ---- a batch (collate.c; data.md 6) ---- */

typedef struct batch_store { /* the arrays that a loader_batch points into */
    loader_batch view;
    example *examples; /* (batch_images) */
    float *pixels;
    uint8_t *embeddings, *masks, *recognition;
    int (*valid)[2], (*original)[2];
    double (*boxes)[4];
    int32_t *ids, *labels, *lengths;
    size_t ids_cap, labels_cap;
    int64_t *image_ids, *region_ids;
    skip_list skipped;
    const embeddings_info *embedding; /* NULL: pixels */
} batch_store;
sca_status batch_store_init(const loader_options *o, const dataset *first, batch_store *b);
void batch_store_free(const loader_options *o, batch_store *b);
/* Of the first n examples, each with at least one region; `view` is filled. */
sca_status collate(const loader_options *o, batch_store *b, int n);

#endif
