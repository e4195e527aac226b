/* evaluate_parts.h - one data set under evaluation, between the parts of evaluate; private to eval/. */
#ifndef SCA_EVALUATE_PARTS_H
#define SCA_EVALUATE_PARTS_H

#include "data/data.h"
#include "eval/evaluate.h"

/* Regions that are written together: a constant, so that files do not depend on ranks or restarts. They are computed
 * together, too, as long as their masks take no more than EVAL_MASK_BYTES; all else that they need follows from the
 * model and the settings. */
enum { EVAL_CHUNK = 16, EVAL_MASK_BYTES = 512 << 20 };

typedef struct eval_set { /* one entry of data.eval; borrows the settings */
    const config *c;
    const config_dataset *set;
    model *m;
    comm *ranks;
    const char *name; /* the set's */
    char *dir;        /* folder of its files */
    char *key;        /* what decides the results: the first line of every part file */
    dataset *data;
    size_t images; /* of the set, at most eval.max_images */
} eval_set;

/* ---- part files (evaluate_files.c) --------------------------------------------------------- */

typedef struct eval_line { /* a region's record in a mapped part file */
    const char *text;      /* NULL: not done */
    size_t bytes;
} eval_line;

typedef struct eval_lines { /* of an image */
    eval_line *of;          /* (count) owned; NULL: nothing known yet */
    size_t count;
    bool empty; /* known to have no region */
} eval_lines;

typedef struct eval_parts { /* everything that has been written so far */
    file_view *files;
    size_t n_files;
    eval_lines *images; /* (n_images) */
    size_t n_images;
    size_t own_bytes; /* valid bytes of this rank's file */
} eval_parts;

/* Reads the part files in e->dir; an incomplete end is left out, a file of another evaluation refused. */
sca_status eval_parts_read(const eval_set *e, eval_parts *out);
void eval_parts_free(eval_parts *p);
/* Regions of the image that are done from its beginning, in whole chunks. */
size_t eval_parts_done(const eval_parts *p, size_t image);
bool eval_parts_complete(const eval_parts *p, size_t image);
/* This rank's file, ready to be appended to. */
sca_status eval_parts_open(const eval_set *e, const eval_parts *p, file_log **out);
sca_status eval_parts_remove(const char *dir);

/* ---- one image (evaluate_image.c) ---------------------------------------------------------- */

/* Evaluates the regions from `first` on and hands over the lines of each chunk. */
typedef sca_status eval_chunk_fn(void *user, const str *lines);
sca_status eval_image(eval_set *e, size_t image, size_t first, eval_chunk_fn *fn, void *user);

/* ---- results (evaluate_join.c) ------------------------------------------------------------- */

/* Writes predictions.json and scored.json from complete parts, scores them, and returns the set's entry in
 * scores.json (new reference). */
sca_status eval_join(const eval_set *e, const eval_parts *p, json_t **entry);

#endif
