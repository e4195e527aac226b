/* train.h - layer 5: training and what its processes share.
 *
 * Knows model, data and what is below; not eval.
 */
#ifndef TRAIN_H
#define TRAIN_H

#include "model/model.h"

/* ---- processes that work together (comm.c, comm_mpi.c) ------------------------------------------------- */

/* One program, started once or `size` times by mpirun. Every call below is made by all ranks, in the same order, by
 * one thread; a call that one of them does not join ends with SCA_ERR_COMM and names who is missing. After a failure
 * only comm_close may follow. Results are bytes: they depend on the ranks' order, never on who came first. */
typedef enum comm_sum { COMM_SUM, COMM_MAX } comm_sum;
typedef enum comm_type { COMM_F32, COMM_F64, COMM_I64 } comm_type;

typedef struct comm comm;
typedef struct comm_kind { /* a way to talk: a row per way, as with devices */
    const char *name;      /* "single" "mpi" */
    sca_status (*barrier)(comm *c);
    sca_status (*broadcast)(comm *c, int root, void *data, size_t bytes);
    sca_status (*gather)(comm *c, int root, const void *mine, size_t bytes, void *all);
    sca_status (*reduce)(comm *c, comm_type type, comm_sum how, void *values, size_t count);
    void (*alive)(comm *c, int64_t done);
    sca_status (*heartbeat)(comm *c, bool on);
    void (*close)(comm *c, bool failed);
} comm_kind;

struct comm {
    int rank, size;
    const comm_kind *kind;
    double patience_s; /* a rank without a sign of life for so long is taken for lost */
    bool failed;
    int64_t *done;            /* (size) what each rank last said with comm_alive */
    bool (*stop)(void *user); /* NULL, or whether long work shall be given up: comm_stopped */
    void *stop_user;
    void *impl; /* of the kind */
};

enum { COMM_PATIENCE_S = 600 };

/* launched: mpirun started this process (whoever asks reads the environment). Without a launcher: one rank. */
sca_status comm_open(bool launched, comm **out);
/* failed: the work was given up; ends without waiting for the others, who are then ended by the launcher. NULL: fine. */
void comm_close(comm *c, bool failed);
bool comm_built(void); /* comm_open can join several processes */

/* Returns when all ranks have come here. */
sca_status comm_barrier(comm *c);
/* data of `root` to all. */
sca_status comm_broadcast(comm *c, int root, void *data, size_t bytes);
/* all (size * bytes) at root, by rank; elsewhere it may be NULL. */
sca_status comm_gather(comm *c, int root, const void *mine, size_t bytes, void *all);
/* values of all ranks added (or the largest of them), element by element, in the order of the ranks; everywhere. */
sca_status comm_reduce(comm *c, comm_type type, comm_sum how, void *values, size_t count);
/* A barrier that also carries a failure: where `mine` is one, it comes back; elsewhere SCA_ERR_COMM with the message of
 * the first rank that failed, "rank 2: ...". */
sca_status comm_agree(comm *c, sca_status mine);
/* A sign of life during long work, with how much is done: cheap, sent to the others at most once a second. */
void comm_alive(comm *c, int64_t done);
/* From now on a thread gives the signs of life, for work that cannot: then a rank is lost when its process is dead,
 * stopped or cut off. Every rank does so. A rank that falls silent is named in the log at once, and ends the next
 * exchange. Ends with comm_close, or when it is turned off. */
sca_status comm_heartbeat(comm *c, bool on);
/* SCA_ERR_STATE when this rank was asked to give its work up; the others learn of it as of a failure. */
sca_status comm_stopped(const comm *c);
/* What is known of all ranks' work. */
int64_t comm_done(const comm *c);

/* ---- training (trainer.c, checkpoint.c) ------------------------------------------------------------------ */

typedef struct trainer trainer;

typedef struct trainer_step { /* what one step did, over all ranks */
    int64_t step;             /* from 1 */
    double loss;              /* before the update: the mean over ranks and accumulated batches */
    double lr, grad_norm;     /* rate of this update; global L2 norm before clipping */
    int64_t images, regions, tokens;
    double seconds, data_seconds; /* the second: waiting for data, of the first */
    bool skipped;                 /* loss or gradient was not finite: nothing was updated */
} trainer_step;

typedef struct trainer_hooks { /* what happens around the steps; members may be NULL */
    void *user;
    void (*stepped)(void *user, const trainer_step *s);
    /* True: save, and come back. Asked between steps; may be asked by evaluations too. */
    bool (*stop)(void *user);
    /* Evaluates the model as it is after `step` steps, on all ranks, with files below dir. At rank 0: *sets a new
     * reference to a list of results, *loss the mean loss, NAN if there is none. */
    sca_status (*evaluate)(void *user, int64_t step, const char *dir, json_t **sets, double *loss);
} trainer_hooks;

/* Trains m as the settings say. With train.output there is a run directory: the logs are opened there, and train.resume
 * is followed; without, steps leave no files. Called by all ranks, as everything here. Borrows m and ranks. */
sca_status trainer_open(model *m, const config *c, comm *ranks, trainer **out);
/* The next optimizer step, logged. Twenty steps in a row without a finite loss: SCA_ERR_STATE. */
sca_status trainer_next(trainer *t, trainer_step *out);
int64_t trainer_done(const trainer *t);    /* steps */
int64_t trainer_skipped(const trainer *t); /* of these, without a finite loss or gradient: nothing was updated */
const char *trainer_dir(const trainer *t); /* run directory; NULL: none */
/* The rest of the steps, with checkpoints and evaluations. *complete: false when stopped. */
sca_status trainer_run(trainer *t, const trainer_hooks *h, bool *complete);
/* The loss that train.objective minimises, without dropout, on the first train.eval_images images of each set of
 * data.eval: means over all targets (mask: regions; else tokens). *loss: their mean over the sets. *sets, a new reference
 * at every rank: per set its name, what it holds, and "scores" ("loss"; of masks also "focal", "dice",
 * "best-mask-iou" of the chosen mask at the decoder's resolution and, with train.restore, "restore"). Fits
 * trainer_hooks.evaluate. */
sca_status trainer_validate(trainer *t, json_t **sets, double *loss);
/* A checkpoint: a model directory with the trainer's state. It appears whole; `path` must not be there. */
sca_status trainer_save(trainer *t, const char *path);
void trainer_close(trainer *t); /* before the model and the ranks; accepts NULL */

#endif
