/* comm.c - processes that work together: what does not depend on how they talk, and the case of one. */
#include "train/comm.h"

#include <stdio.h>
#include <string.h>

/* ---- one process --------------------------------------------------------------------------------------- */

static sca_status single_barrier(comm *c)
{
    (void)c;
    return SCA_OK;
}

static sca_status single_broadcast(comm *c, int root, void *data, size_t bytes)
{
    (void)c, (void)root, (void)data, (void)bytes;
    return SCA_OK;
}

static sca_status single_gather(comm *c, int root, const void *mine, size_t bytes, void *all)
{
    (void)c, (void)root;
    if (bytes && all != mine) memmove(all, mine, bytes);
    return SCA_OK;
}

static sca_status single_reduce(comm *c, comm_type type, comm_sum how, void *values, size_t count)
{
    (void)c, (void)type, (void)how, (void)values, (void)count;
    return SCA_OK;
}

static void single_alive(comm *c, int64_t done) { (void)c, (void)done; }

static sca_status single_heartbeat(comm *c, bool on)
{
    (void)c, (void)on;
    return SCA_OK;
}

static void single_close(comm *c, bool failed) { (void)c, (void)failed; }

static const comm_kind single_kind = { "single",      single_barrier, single_broadcast, single_gather,
                                       single_reduce, single_alive,   single_heartbeat, single_close };

/* ---- opening ------------------------------------------------------------------------------------------- */

bool comm_built(void)
{
#ifdef SCA_HAS_MPI
    return true;
#else
    return false;
#endif
}

/* Joins the other processes: rank, size and kind. */
static sca_status join(comm *c)
{
#ifdef SCA_HAS_MPI
    return comm_mpi_open(c);
#else
    (void)c;
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "started by mpirun, but this program was built without MPI; build it with "
                       "-D SCA_MPI=ON, or start it once");
#endif
}

sca_status comm_open(bool launched, comm **out)
{
    *out = NULL;
    comm *c = mem_zero(1, sizeof *c);
    if (!c) return mem_fail(sizeof *c, "the ranks");
    *c = (comm){ .size = 1, .kind = &single_kind, .patience_s = COMM_PATIENCE_S };
    sca_status status = launched ? join(c) : SCA_OK;
    if (status == SCA_OK && !(c->done = mem_zero((size_t)c->size, sizeof *c->done)))
        status = mem_fail((size_t)c->size * sizeof *c->done, "the ranks");
    if (status == SCA_OK)
        *out = c;
    else
        comm_close(c, true);
    return status;
}

void comm_close(comm *c, bool failed)
{
    if (!c) return;
    c->kind->close(c, failed || c->failed);
    mem_free(c->done);
    mem_free(c);
}

/* ---- calls ---------------------------------------------------------------------------------------------- */

static sca_status usable(const comm *c)
{
    return c->failed ? status_fail(SCA_ERR_COMM, "rank %d: an earlier exchange between the ranks failed", c->rank)
                     : SCA_OK;
}

static sca_status ended(comm *c, sca_status status)
{
    if (status != SCA_OK) c->failed = true;
    return status;
}

sca_status comm_barrier(comm *c)
{
    TRY(usable(c));
    return ended(c, c->kind->barrier(c));
}

sca_status comm_broadcast(comm *c, int root, void *data, size_t bytes)
{
    TRY(usable(c));
    return ended(c, c->kind->broadcast(c, root, data, bytes));
}

sca_status comm_gather(comm *c, int root, const void *mine, size_t bytes, void *all)
{
    TRY(usable(c));
    return ended(c, c->kind->gather(c, root, mine, bytes, all));
}

sca_status comm_reduce(comm *c, comm_type type, comm_sum how, void *values, size_t count)
{
    TRY(usable(c));
    return ended(c, c->kind->reduce(c, type, how, values, count));
}

void comm_alive(comm *c, int64_t done)
{
    comm_note(c, c->rank, done);
    if (!c->failed) c->kind->alive(c, done);
}

int64_t comm_done(const comm *c)
{
    int64_t sum = 0;
    for (int i = 0; i < c->size; i++) sum += comm_noted(c, i);
    return sum;
}

void comm_note(comm *c, int rank, int64_t done) { __atomic_store_n(&c->done[rank], done, __ATOMIC_RELAXED); }

int64_t comm_noted(const comm *c, int rank) { return __atomic_load_n(&c->done[rank], __ATOMIC_RELAXED); }

sca_status comm_stopped(const comm *c)
{
    return c->stop && c->stop(c->stop_user) ? status_fail(SCA_ERR_STATE, "stopped as asked") : SCA_OK;
}

sca_status comm_heartbeat(comm *c, bool on)
{
    TRY(usable(c));
    return c->kind->heartbeat(c, on);
}

typedef struct verdict { /* what a rank says about its part */
    int32_t status;
    char message[1020];
} verdict;

sca_status comm_agree(comm *c, sca_status mine)
{
    if (c->size == 1) return mine;
    verdict *all = mem_zero((size_t)c->size, sizeof *all), own = { .status = (int32_t)mine };
    if (!all) return mem_fail((size_t)c->size * sizeof *all, "the ranks' results");
    char *told = text_copy(status_message(), strlen(status_message()));
    if (mine != SCA_OK) snprintf(own.message, sizeof own.message, "%s", status_message());
    sca_status status = comm_gather(c, 0, &own, sizeof own, all);
    if (status == SCA_OK) status = comm_broadcast(c, 0, all, (size_t)c->size * sizeof *all);
    for (int i = 0; i < c->size && status == SCA_OK && mine == SCA_OK; i++)
        if (all[i].status != SCA_OK) status = status_fail(SCA_ERR_COMM, "rank %d: %s", i, all[i].message);
    if (mine != SCA_OK) status = status_set(mine, told ? told : own.message);
    mem_free(told);
    mem_free(all);
    return status;
}
