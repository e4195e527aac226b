/* comm_mpi.c - ranks that talk through MPI; the only file that knows it.
 *
 * Every exchange is started without blocking and then looked at again and again, so that a rank that never comes is
 * noticed: whoever waits or works sends the others a sign of life now and then, and a rank that has sent none for
 * comm.patience_s is named. A rank that dies is noticed, and named, by mpirun, which ends the others.
 */
#include "train/comm.h"

#include <mpi.h>
#include <string.h>
#include <time.h>

enum { ALIVE_TAG = 7, NAME_BYTES = 64, PIECE_BYTES = 1 << 22, BUSY_LOOKS = 2000 };
static const double ALIVE_EVERY_S = 1, LOOK_EVERY_S = 0.0002;

typedef struct peer { /* another rank */
    char host[NAME_BYTES];
    double heard;       /* when it last said something */
    MPI_Request saying; /* our last sign of life to it, perhaps still on its way */
    int64_t said;
} peer;

typedef struct ranks {
    peer *peers; /* (size) */
    double said; /* when the others last heard of us */
    char *room;  /* of reduce */
} ranks;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static sca_status check(const comm *c, int code, const char *what)
{
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    if (code == MPI_SUCCESS) return SCA_OK;
    if (MPI_Error_string(code, text, &n) != MPI_SUCCESS) n = 0;
    return status_fail(SCA_ERR_COMM, "rank %d: %s failed in MPI: %.*s", c->rank, what, n, text);
}

/* The checker knows MPI_Wait, not that wait_for tests a request until it is done.
 * NOLINTBEGIN(clang-analyzer-optin.mpi.MPI-Checker) */

/* ---- signs of life -------------------------------------------------------------------------------------- */

static void hear(comm *c)
{
    ranks *r = c->impl;
    for (;;) {
        int there = 0;
        int64_t done;
        MPI_Status from;
        if (MPI_Iprobe(MPI_ANY_SOURCE, ALIVE_TAG, MPI_COMM_WORLD, &there, &from) != MPI_SUCCESS || !there) return;
        int source = from.MPI_SOURCE;
        if (MPI_Recv(&done, 1, MPI_INT64_T, source, ALIVE_TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            return;
        c->done[source] = done;
        r->peers[source].heard = now_s();
    }
}

static void say(comm *c)
{
    ranks *r = c->impl;
    double now = now_s();
    if (now - r->said < ALIVE_EVERY_S) return;
    r->said = now;
    for (int i = 0; i < c->size; i++) {
        peer *p = &r->peers[i];
        int sent = 1;
        if (i == c->rank) continue;
        if (p->saying != MPI_REQUEST_NULL && MPI_Test(&p->saying, &sent, MPI_STATUS_IGNORE) != MPI_SUCCESS)
            continue;
        if (!sent) continue; /* it has not listened yet: that is enough for now */
        p->said = c->done[c->rank];
        (void)MPI_Isend(&p->said, 1, MPI_INT64_T, i, ALIVE_TAG, MPI_COMM_WORLD, &p->saying);
    }
}

static void mpi_alive(comm *c, int64_t done)
{
    (void)done; /* is in c->done */
    hear(c);
    say(c);
}

/* Names the ranks that have been silent for too long. */
static sca_status look_for_lost(comm *c, double since, const char *what)
{
    ranks *r = c->impl;
    double now = now_s();
    str lost = { 0 };
    for (int i = 0; i < c->size; i++) {
        double heard = r->peers[i].heard > since ? r->peers[i].heard : since;
        if (i == c->rank || now - heard <= c->patience_s) continue;
        str_printf(&lost, "%srank %d on %s", lost.bytes ? ", " : "", i, r->peers[i].host);
    }
    sca_status status = SCA_OK;
    if (lost.bytes)
        status = status_fail(SCA_ERR_COMM, "rank %d waits for %s, but no sign of life came for %.0f s from %s",
                             c->rank, what, c->patience_s, str_text(&lost));
    str_free(&lost);
    return status;
}

static sca_status wait_for(comm *c, MPI_Request *request, const char *what)
{
    double since = now_s();
    struct timespec pause = { 0, (long)(LOOK_EVERY_S * 1e9) };
    for (int64_t looks = 0;; looks++) {
        int done = 0;
        TRY(check(c, MPI_Test(request, &done, MPI_STATUS_IGNORE), what));
        if (done) return SCA_OK;
        if (looks < BUSY_LOOKS) continue; /* an answer that comes at once shall not wait for a clock */
        hear(c);
        say(c);
        TRY(look_for_lost(c, since, what));
        nanosleep(&pause, NULL);
    }
}

/* ---- exchanges ------------------------------------------------------------------------------------------ */

static sca_status mpi_barrier(comm *c)
{
    MPI_Request request;
    TRY(check(c, MPI_Ibarrier(MPI_COMM_WORLD, &request), "a barrier"));
    return wait_for(c, &request, "a barrier");
}

static sca_status mpi_broadcast(comm *c, int root, void *data, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        int n = (int)(bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES);
        MPI_Request request;
        TRY(check(c, MPI_Ibcast((char *)data + at, n, MPI_BYTE, root, MPI_COMM_WORLD, &request), "a broadcast"));
        TRY(wait_for(c, &request, "a broadcast"));
    }
    return SCA_OK;
}

/* `bytes` fit a piece. */
static sca_status gather_piece(comm *c, int root, const void *mine, size_t bytes, void *all)
{
    MPI_Request request;
    int n = (int)bytes;
    TRY(check(c, MPI_Igather(mine, n, MPI_BYTE, all, n, MPI_BYTE, root, MPI_COMM_WORLD, &request), "a gathering"));
    return wait_for(c, &request, "a gathering");
}

static sca_status need_room(comm *c)
{
    ranks *r = c->impl;
    size_t bytes = (size_t)c->size * PIECE_BYTES;
    if (!r->room && !(r->room = mem_alloc(bytes))) return mem_fail(bytes, "an exchange between the ranks");
    return SCA_OK;
}

static sca_status mpi_gather(comm *c, int root, const void *mine, size_t bytes, void *all)
{
    if (bytes <= PIECE_BYTES) return gather_piece(c, root, mine, bytes, all);
    if (c->rank == root) TRY(need_room(c));
    const ranks *r = c->impl;
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        size_t n = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        TRY(gather_piece(c, root, (const char *)mine + at, n, r->room));
        for (int i = 0; c->rank == root && i < c->size; i++)
            memcpy((char *)all + (size_t)i * bytes + at, r->room + (size_t)i * n, n);
    }
    return SCA_OK;
}

#define COMBINE(type)                                                                                              \
    do {                                                                                                           \
        type *to_ = to;                                                                                            \
        const type *from_ = from;                                                                                  \
        for (size_t i = 0; i < n; i++)                                                                             \
            to_[i] = how == COMM_SUM ? to_[i] + from_[i] : from_[i] > to_[i] ? from_[i] : to_[i];                  \
    } while (0)

static void combine(comm_type type, comm_sum how, void *to, const void *from, size_t n)
{
    switch (type) {
    case COMM_F32: COMBINE(float); break;
    case COMM_F64: COMBINE(double); break;
    case COMM_I64: COMBINE(int64_t); break;
    }
}

/* Rank 0 adds in the order of the ranks: MPI's own reduction may choose another order for another size. */
static sca_status mpi_reduce(comm *c, comm_type type, comm_sum how, void *values, size_t count)
{
    size_t size = type == COMM_F32 ? 4 : 8, bytes = count * size;
    if (c->rank == 0) TRY(need_room(c));
    const ranks *r = c->impl;
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        size_t n = bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES;
        char *piece = (char *)values + at;
        TRY(gather_piece(c, 0, piece, n, r->room));
        for (int i = 1; c->rank == 0 && i < c->size; i++)
            combine(type, how, r->room, r->room + (size_t)i * n, n / size);
        if (c->rank == 0) memcpy(piece, r->room, n);
        TRY(mpi_broadcast(c, 0, piece, n));
    }
    return SCA_OK;
}

/* ---- beginning and end ---------------------------------------------------------------------------------- */

static void mpi_close(comm *c, bool failed)
{
    ranks *r = c->impl;
    if (!r) return;
    /* Who gave up must not wait for the others; that it ends without MPI's farewell tells the launcher. */
    if (!failed && mpi_barrier(c) == SCA_OK) {
        hear(c);
        MPI_Finalize();
    }
    mem_free(r->peers);
    mem_free(r->room);
    mem_free(r);
    c->impl = NULL;
}

static const comm_kind mpi_kind = {
    "mpi", mpi_barrier, mpi_broadcast, mpi_gather, mpi_reduce, mpi_alive, mpi_close
};

static sca_status exchange_hosts(comm *c)
{
    char name[MPI_MAX_PROCESSOR_NAME] = "", own[NAME_BYTES] = "";
    int n = 0;
    char *all = mem_zero((size_t)c->size, NAME_BYTES);
    ranks *r = c->impl;
    if (!all) return mem_fail((size_t)c->size * NAME_BYTES, "the ranks' names");
    (void)MPI_Get_processor_name(name, &n);
    memcpy(own, name, (size_t)n < sizeof own - 1 ? (size_t)n : sizeof own - 1);
    sca_status status =
        check(c, MPI_Allgather(own, NAME_BYTES, MPI_BYTE, all, NAME_BYTES, MPI_BYTE, MPI_COMM_WORLD),
              "meeting the others");
    for (int i = 0; i < c->size; i++) {
        memcpy(r->peers[i].host, all + (size_t)i * NAME_BYTES, NAME_BYTES);
        r->peers[i].saying = MPI_REQUEST_NULL;
        r->peers[i].heard = now_s();
    }
    mem_free(all);
    return status;
}

sca_status comm_mpi_open(comm *c)
{
    int started = 0, ended = 0, level;
    TRY(check(c, MPI_Initialized(&started), "starting"));
    TRY(check(c, MPI_Finalized(&ended), "starting"));
    if (ended) return status_fail(SCA_ERR_STATE, "MPI has ended in this process; join the ranks only once");
    if (!started) TRY(check(c, MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level), "starting"));
    TRY(check(c, MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "starting"));
    TRY(check(c, MPI_Comm_rank(MPI_COMM_WORLD, &c->rank), "starting"));
    TRY(check(c, MPI_Comm_size(MPI_COMM_WORLD, &c->size), "starting"));
    ranks *r = mem_zero(1, sizeof *r);
    peer *peers = mem_zero((size_t)c->size, sizeof *peers);
    if (!r || !peers) {
        mem_free(r);
        mem_free(peers);
        return mem_fail((size_t)c->size * sizeof *peers, "the ranks");
    }
    r->peers = peers;
    c->impl = r;
    c->kind = &mpi_kind;
    return exchange_hosts(c);
}
/* NOLINTEND(clang-analyzer-optin.mpi.MPI-Checker) */
