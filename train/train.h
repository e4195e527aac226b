/* train.h - layer 5: training and what its processes share.
 *
 * Knows model, data and what is below; not eval.
 */
#ifndef TRAIN_H
#define TRAIN_H

#include "base/base.h"

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
    void (*close)(comm *c, bool failed);
} comm_kind;

struct comm {
    int rank, size;
    const comm_kind *kind;
    double patience_s; /* a rank without a sign of life for so long is taken for lost */
    bool failed;
    int64_t *done; /* (size) what each rank last said with comm_alive */
    void *impl;    /* of the kind */
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
/* What is known of all ranks' work. */
int64_t comm_done(const comm *c);

#endif
