/* comm_mpi.c - ranks that talk through MPI; the only file that knows it.
 *
 * Every exchange is started without blocking and then looked at again and again, so that a rank that never comes is
 * noticed: whoever waits or works sends the others a sign of life now and then, and a rank that has sent none for
 * comm.patience_s is named. A rank that dies is noticed, and named, by mpirun, which ends the others.
 *
 * Work that cannot stop to say so leaves that to a thread (comm_heartbeat). MPI is then called by two threads, never
 * by both at once: `lock`.
 */
#include "train/comm.h"

#include <mpi.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

enum { ALIVE_TAG = 7, NAME_BYTES = 64, PIECE_BYTES = 1 << 22, SMALL_BYTES = 1 << 14, BUSY_LOOKS = 2000 };
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
    char *room;  /* of reduce and gather: (size) pieces, and one */
    pthread_mutex_t lock;
    pthread_cond_t end;
    pthread_t heart;
    bool threads; /* MPI may be called by several threads, one at a time */
    bool beating, ended;
    bool warned; /* of a silent rank */
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
        comm_note(c, source, done);
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
        p->said = comm_noted(c, c->rank);
        (void)MPI_Isend(&p->said, 1, MPI_INT64_T, i, ALIVE_TAG, MPI_COMM_WORLD, &p->saying);
    }
}

static void mpi_alive(comm *c, int64_t done)
{
    ranks *r = c->impl;
    (void)done; /* is noted */
    pthread_mutex_lock(&r->lock);
    hear(c);
    say(c);
    pthread_mutex_unlock(&r->lock);
}

/* The ranks that have been silent for too long; where nobody listened meanwhile, silence begins with `since`. */
static void list_lost(const comm *c, double since, str *lost)
{
    const ranks *r = c->impl;
    double now = now_s();
    for (int i = 0; i < c->size; i++) {
        double heard = r->peers[i].heard > since || r->beating ? r->peers[i].heard : since;
        if (i == c->rank || now - heard <= c->patience_s) continue;
        str_printf(lost, "%srank %d on %s", lost->bytes ? ", " : "", i, r->peers[i].host);
    }
}

static sca_status look_for_lost(const comm *c, double since, const char *what)
{
    str lost = { 0 };
    list_lost(c, since, &lost);
    sca_status status = SCA_OK;
    if (lost.bytes)
        status = status_fail(SCA_ERR_COMM, "rank %d waits for %s, but no sign of life came for %.0f s from %s",
                             c->rank, what, c->patience_s, str_text(&lost));
    str_free(&lost);
    return status;
}

/* One look at an exchange; *done when it has ended. */
static sca_status look(comm *c, MPI_Request *request, double since, bool patient, const char *what, int *done)
{
    ranks *r = c->impl;
    pthread_mutex_lock(&r->lock);
    sca_status status = check(c, MPI_Test(request, done, MPI_STATUS_IGNORE), what);
    if (status == SCA_OK && !*done && patient) {
        hear(c);
        say(c);
        status = look_for_lost(c, since, what);
    }
    pthread_mutex_unlock(&r->lock);
    return status;
}

/* started: what the call that began the exchange gave. An answer that comes at once shall not wait for a clock. */
static sca_status wait_for(comm *c, int started, MPI_Request *request, const char *what)
{
    double since = now_s();
    struct timespec pause = { 0, (long)(LOOK_EVERY_S * 1e9) };
    TRY(check(c, started, what));
    for (int64_t looks = 0;; looks++) {
        int done = 0;
        TRY(look(c, request, since, looks >= BUSY_LOOKS, what, &done));
        if (done) return SCA_OK;
        if (looks >= BUSY_LOOKS) nanosleep(&pause, NULL);
    }
}

/* Begins an exchange: START(MPI_Ibarrier(..., &request)) */
#define START(call)                                                                                                \
    do {                                                                                                           \
        pthread_mutex_lock(&r->lock);                                                                              \
        started = (call);                                                                                          \
        pthread_mutex_unlock(&r->lock);                                                                            \
    } while (0)

/* ---- the thread that says that we live ------------------------------------------------------------------- */

static void warn_of_lost(comm *c)
{
    ranks *r = c->impl;
    str lost = { 0 };
    list_lost(c, 0, &lost);
    if (lost.bytes && !r->warned)
        log_warn("rank %d: no sign of life came for %.0f s from %s", c->rank, c->patience_s, str_text(&lost));
    r->warned = lost.bytes > 0;
    str_free(&lost);
}

static void *beat(void *user)
{
    comm *c = user;
    ranks *r = c->impl;
    pthread_mutex_lock(&r->lock);
    while (!r->ended) {
        struct timespec next;
        hear(c);
        say(c);
        warn_of_lost(c);
        clock_gettime(CLOCK_REALTIME, &next);
        next.tv_sec += 1;
        pthread_cond_timedwait(&r->end, &r->lock, &next);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static void listen_from_now(comm *c)
{
    ranks *r = c->impl;
    for (int i = 0; i < c->size; i++) r->peers[i].heard = now_s();
}

static sca_status mpi_heartbeat(comm *c, bool on)
{
    ranks *r = c->impl;
    if (on == r->beating) return SCA_OK;
    if (on && !r->threads)
        return status_fail(SCA_ERR_UNSUPPORTED, "rank %d: this MPI cannot be called by two threads", c->rank);
    pthread_mutex_lock(&r->lock);
    listen_from_now(c);
    r->ended = !on;
    r->beating = on;
    pthread_cond_signal(&r->end);
    pthread_mutex_unlock(&r->lock);
    if (!on) {
        pthread_join(r->heart, NULL);
    } else if (pthread_create(&r->heart, NULL, beat, c) != 0) {
        r->beating = false;
        return mem_fail(1 << 16, "a thread");
    }
    return SCA_OK;
}

/* ---- exchanges ------------------------------------------------------------------------------------------ */

static sca_status mpi_barrier(comm *c)
{
    ranks *r = c->impl;
    MPI_Request request;
    int started;
    START(MPI_Ibarrier(MPI_COMM_WORLD, &request));
    return wait_for(c, started, &request, "a barrier");
}

static sca_status mpi_broadcast(comm *c, int root, void *data, size_t bytes)
{
    ranks *r = c->impl;
    for (size_t at = 0; at < bytes; at += PIECE_BYTES) {
        int n = (int)(bytes - at < PIECE_BYTES ? bytes - at : PIECE_BYTES), started;
        MPI_Request request;
        START(MPI_Ibcast((char *)data + at, n, MPI_BYTE, root, MPI_COMM_WORLD, &request));
        TRY(wait_for(c, started, &request, "a broadcast"));
    }
    return SCA_OK;
}

/* `bytes` fit a piece. */
static sca_status gather_piece(comm *c, int root, const void *mine, size_t bytes, void *all)
{
    ranks *r = c->impl;
    MPI_Request request;
    int n = (int)bytes, started;
    START(MPI_Igather(mine, n, MPI_BYTE, all, n, MPI_BYTE, root, MPI_COMM_WORLD, &request));
    return wait_for(c, started, &request, "a gathering");
}

static sca_status need_room(comm *c)
{
    ranks *r = c->impl;
    size_t bytes = ((size_t)c->size + 1) * PIECE_BYTES;
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

/* The values of all ranks everywhere, then everyone adds them: one exchange for what is small. */
static sca_status reduce_small(comm *c, comm_type type, comm_sum how, void *values, size_t count)
{
    ranks *r = c->impl;
    MPI_Request request;
    size_t bytes = count * (type == COMM_F32 ? 4 : 8);
    int n = (int)bytes, started;
    START(MPI_Iallgather(values, n, MPI_BYTE, r->room, n, MPI_BYTE, MPI_COMM_WORLD, &request));
    TRY(wait_for(c, started, &request, "a sum"));
    for (int i = 1; i < c->size; i++) combine(type, how, r->room, r->room + (size_t)i * bytes, count);
    memcpy(values, r->room, bytes);
    return SCA_OK;
}

/* Every rank adds its share, `count` of the size * count values, in the order of the ranks, and gives it to all:
 * however many they are, each sends and receives twice the values. */
static sca_status reduce_shares(comm *c, comm_type type, comm_sum how, void *values, size_t count)
{
    ranks *r = c->impl;
    MPI_Request request;
    size_t bytes = count * (type == COMM_F32 ? 4 : 8);
    int n = (int)bytes, started;
    START(MPI_Ialltoall(values, n, MPI_BYTE, r->room, n, MPI_BYTE, MPI_COMM_WORLD, &request));
    TRY(wait_for(c, started, &request, "a sum"));
    for (int i = 1; i < c->size; i++) combine(type, how, r->room, r->room + (size_t)i * bytes, count);
    START(MPI_Iallgather(r->room, n, MPI_BYTE, values, n, MPI_BYTE, MPI_COMM_WORLD, &request));
    return wait_for(c, started, &request, "a sum");
}

/* Always in the order of the ranks: MPI's own reduction may choose another order for another size. */
static sca_status mpi_reduce(comm *c, comm_type type, comm_sum how, void *values, size_t count)
{
    TRY(need_room(c));
    size_t width = type == COMM_F32 ? 4 : 8, size = (size_t)c->size, most = PIECE_BYTES / width;
    for (size_t at = 0; at < count;) {
        size_t rest = count - at, n = rest / size < most ? rest / size : most;
        bool small = n * width < SMALL_BYTES;
        if (small) n = rest < most ? rest : most;
        char *from = (char *)values + at * width;
        TRY(small ? reduce_small(c, type, how, from, n) : reduce_shares(c, type, how, from, n));
        at += small ? n : n * size;
    }
    return SCA_OK;
}

/* ---- beginning and end ---------------------------------------------------------------------------------- */

static void mpi_close(comm *c, bool failed)
{
    ranks *r = c->impl;
    if (!r) return;
    (void)mpi_heartbeat(c, false);
    /* Who gave up must not wait for the others; that it ends without MPI's farewell tells the launcher. */
    if (!failed && mpi_barrier(c) == SCA_OK) {
        hear(c);
        MPI_Finalize();
    }
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->end);
    mem_free(r->peers);
    mem_free(r->room);
    mem_free(r);
    c->impl = NULL;
}

static const comm_kind mpi_kind = { "mpi",      mpi_barrier, mpi_broadcast, mpi_gather,
                                    mpi_reduce, mpi_alive,   mpi_heartbeat, mpi_close };

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
    int started = 0, ended = 0, level = MPI_THREAD_SINGLE;
    TRY(check(c, MPI_Initialized(&started), "starting"));
    TRY(check(c, MPI_Finalized(&ended), "starting"));
    if (ended) return status_fail(SCA_ERR_STATE, "MPI has ended in this process; join the ranks only once");
    if (!started) TRY(check(c, MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level), "starting"));
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
    r->threads = level >= MPI_THREAD_SERIALIZED;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->end, NULL);
    c->impl = r;
    c->kind = &mpi_kind;
    return exchange_hosts(c);
}
/* NOLINTEND(clang-analyzer-optin.mpi.MPI-Checker) */
