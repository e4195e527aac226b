/* parts.h - private to train/: what a run is made of. */
#ifndef PARTS_H
#define PARTS_H

#include "data/data.h"
#include "train/train.h"

/* ---- learning rate, groups, clipping, loss scale (schedule.c); training.md 1 --------------------------- */

/* Share of the peak rate that the update after `done` updates uses: 0 at first with a warm-up. */
double schedule_share(const config *c, int64_t done);

/* A stretch of the trained range that one AdamW launch updates. */
typedef struct group {
    int64_t first, count; /* values */
    double peak, decay;   /* rate at the top of the schedule, weight decay */
} group;
/* Neighbours that are treated alike come together, with the zeros between them. A key of train.lr_overrides that names
 * no parameter is an error. *out: mem_free. */
sca_status groups_make(const config *c, const training_entry *entries, size_t n, group **out, size_t *n_out);

/* What gradients of this length (L2 norm) are multiplied with; most 0: 1. */
double clip_share(double length, double most);

/* f16's dynamic loss scale, as DeepSpeed has it. Zero-initialised it is off: the scale is 1. */
typedef struct scaler {
    double scale;   /* 0: off */
    int64_t clean;  /* steps without overflow since the last change */
    int64_t spared; /* overflows that may yet pass without halving */
} scaler;
scaler scaler_start(void);
double scaler_scale(const scaler *s);
void scaler_step(scaler *s, bool overflow);

/* ---- logs (journal.c, events.c) ------------------------------------------------------------------------- */

/* A file of JSON lines, each with a member `step`, in the run directory: opened with the lines up to step `upto`,
 * what a killed run wrote after that is cut off. *last: the largest step kept, -1: none. */
sca_status journal_open(const char *dir, const char *name, int64_t upto, int64_t *last, file_log **out);
/* One line, whole. Takes the object, also when it fails. */
sca_status journal_put(file_log *f, json_t *object);

/* TensorBoard's event file: a new one for each start, in which steps above `step` take the place of older ones. */
typedef struct events events;
sca_status events_open(const char *dir, int64_t step, events **out);
sca_status events_put(events *e, int64_t step, const char *tag, double value);
sca_status events_sync(events *e);
void events_close(events *e);                    /* accepts NULL */
uint32_t crc32c(const void *data, size_t bytes); /* Castagnoli's */

/* ---- a run ------------------------------------------------------------------------------------------------ */

typedef struct run_state { /* where a run stands: what a checkpoint keeps beside the ranges */
    int64_t step;          /* done, those that were skipped included */
    int64_t updates;       /* done: the place in the schedule, and AdamW's step */
    int64_t position;      /* of the loader */
    scaler scale;
} run_state;

struct trainer {
    model *m;
    config *c; /* a copy */
    comm *ranks;
    training *parameters;
    const training_entry *entries; /* (n) */
    size_t n;
    dev *d;
    arena memory;
    tensor values, gradients, moment1, moment2; /* (count) */
    tensor square;                              /* (1) F64 */
    group *groups;
    size_t n_groups;
    loader *data;
    bool *recognition; /* (batch_images) */
    run_state at;
    bool stop; /* some rank was asked to */
    /* steps without a finite loss, in a row, and what was found at the first of them */
    int bad;
    int64_t bad_step;
    char bad_what[512];
    /* the run directory; files at rank 0 only */
    char *dir;
    file_log *log, *evaluated, *skipped;
    events *curves;
    int64_t last_evaluated; /* -1: none */
    str skips;              /* lines for skipped.jsonl that are not written yet */
    bool skips_known;       /* the lines of opening are in the file, or not ours to tell */
};

/* ---- batches (trainer.c) ---------------------------------------------------------------------------------- */

/* Loader settings of data.train for what is trained; validate.c puts other sets in their place. */
void trainer_loader(trainer *t, loader_options *o);
/* number: of the batch among those of the step. Borrows from both. */
training_input trainer_input(trainer *t, const loader_batch *b, int64_t number);
bool trainer_objective(const trainer *t, const char *name);

enum { VALIDATED_REGIONS = 100 }; /* of an image, at most */

/* ---- checkpoints (checkpoint.c) --------------------------------------------------------------------------- */

/* The checkpoint that train.resume means, at rank 0; NULL: none, from the start. mem_free. */
sca_status checkpoint_find(const config *c, char **path);
/* Everything of the trainer from it: state, values and moments. */
sca_status checkpoint_read(trainer *t, const char *path);
/* trainer_save's part of rank 0. */
sca_status checkpoint_write(trainer *t, const char *path);
/* Removes what a killed run left half-written, and checkpoints of later steps than the one gone on from. */
sca_status checkpoint_clean(const trainer *t);
/* Once checkpoint-`step` is there: RUN/last, RUN/best, and no more than train.keep of them. */
sca_status checkpoint_links(const trainer *t, int64_t step);
/* RUN/checkpoint-STEP; mem_free, NULL when out of memory. */
char *checkpoint_path(const char *dir, int64_t step);

#endif
