/* test_comm.c - ranks: alone, and several of them started by mpirun, also when one gives up, stalls or dies.
 *
 * Started with --rank WHAT the program is one of the ranks.
 */
#include "check.h"

#include "train/train.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* ---- what a rank does -------------------------------------------------------------------------------- */

static void sleep_s(double s)
{
    struct timespec t = { (time_t)s, (long)((s - floor(s)) * 1e9) };
    nanosleep(&t, NULL);
}

static void exchange(comm *c)
{
    enum { N = 1500000 }; /* more than a piece */
    float *values = mem_alloc(N * sizeof *values);
    int64_t *all = mem_alloc((size_t)c->size * 700000 * sizeof *all), *mine = mem_alloc(700000 * sizeof *mine);
    if (!values || !all || !mine) exit(9);
    for (int i = 0; i < N; i++) values[i] = (float)((i % 1000) * (c->rank + 1)) * 0.1f;
    CHECK_OK(comm_reduce(c, COMM_F32, COMM_SUM, values, N));
    for (int i = 0; i < N; i += 997) {
        float sum = 0;
        for (int r = 0; r < c->size; r++) {
            float part = (float)((i % 1000) * (r + 1)) * 0.1f;
            sum = r ? sum + part : part;
        }
        CHECKF(values[i] == sum, "value %d is %g, expected %g", i, (double)values[i], (double)sum);
    }
    double largest[2] = { c->rank, -c->rank };
    CHECK_OK(comm_reduce(c, COMM_F64, COMM_MAX, largest, 2));
    CHECK(largest[0] == c->size - 1 && largest[1] == 0);
    for (int i = 0; i < 700000; i++) mine[i] = (int64_t)c->rank << 40 | i;
    CHECK_OK(comm_gather(c, c->size - 1, mine, 700000 * sizeof *mine, c->rank == c->size - 1 ? all : NULL));
    for (int64_t i = 0; c->rank == c->size - 1 && i < (int64_t)c->size * 700000; i += 501)
        CHECK(all[i] == ((i / 700000) << 40 | i % 700000));
    char word[8] = "";
    if (c->rank == 0) memcpy(word, "hello", 6);
    CHECK_OK(comm_broadcast(c, 0, word, sizeof word));
    CHECK(strcmp(word, "hello") == 0);
    CHECK_OK(comm_barrier(c));
    mem_free(values);
    mem_free(all);
    mem_free(mine);
}

/* A rank may work for longer than the others' patience as long as it says so. */
static void slow(comm *c)
{
    c->patience_s = 2.5;
    for (int i = 0; c->rank == 1 && i < 40; i++) {
        comm_alive(c, i);
        sleep_s(0.1);
    }
    comm_alive(c, 40);
    CHECK_OK(comm_barrier(c));
    CHECK(comm_done(c) > 40);
}

/* Nor is one lost that works without a word, when a thread speaks for it. */
static void busy(comm *c)
{
    c->patience_s = 1.5;
    CHECK_OK(comm_heartbeat(c, true));
    if (c->rank == 1) sleep_s(4);
    CHECK_OK(comm_barrier(c));
    CHECK_OK(comm_heartbeat(c, false));
    CHECK_OK(comm_barrier(c));
}

/* A process that stands still is. */
static int stops(comm *c)
{
    c->patience_s = 1.5;
    CHECK_OK(comm_heartbeat(c, true));
    if (c->rank == 1) raise(SIGSTOP);
    sca_status status = comm_barrier(c);
    fprintf(stderr, "%s: %s\n", sca_status_name(status), sca_last_error());
    comm_close(c, true);
    return 1;
}

static void gives_up(comm *c)
{
    sca_status mine = SCA_OK;
    if (c->rank == 1) mine = status_fail(SCA_ERR_FORMAT, "photo.jpg: is broken");
    if (c->rank == 1)
        CHECK_FAILS(comm_agree(c, mine), SCA_ERR_FORMAT, "photo.jpg: is broken");
    else
        CHECK_FAILS(comm_agree(c, mine), SCA_ERR_COMM, "rank 1: photo.jpg: is broken");
    CHECK_OK(comm_agree(c, SCA_OK));
}

static int stalls(comm *c)
{
    c->patience_s = 1.5;
    if (c->rank == 1) sleep_s(60);
    sca_status status = comm_barrier(c);
    fprintf(stderr, "%s: %s\n", sca_status_name(status), sca_last_error());
    CHECK_FAILS(comm_barrier(c), SCA_ERR_COMM, "earlier");
    comm_close(c, false);
    return 1;
}

static int be_rank(const char *what)
{
    comm *c;
    check_case = what;
    CHECK_OK(comm_open(true, &c));
    if (check_failed) return 1;
    printf("rank %d of %d\n", c->rank, c->size);
    fflush(stdout);
    if (strcmp(what, "exchange") == 0) exchange(c);
    if (strcmp(what, "slow") == 0) slow(c);
    if (strcmp(what, "gives_up") == 0) gives_up(c);
    if (strcmp(what, "busy") == 0) busy(c);
    if (strcmp(what, "stalls") == 0) return stalls(c);
    if (strcmp(what, "stops") == 0) return stops(c);
    if (strcmp(what, "dies") == 0 && c->rank == 1) raise(SIGKILL);
    if (strcmp(what, "dies") == 0) CHECK_OK(comm_barrier(c));
    comm_close(c, check_failed > 0);
    return check_failed > 0;
}

/* ---- starting ranks ---------------------------------------------------------------------------------- */

static const char *self;

static bool have_mpi(void)
{
    if (!comm_built()) {
        check_skip("mpi: built without it");
        return false;
    }
    if (system("command -v mpirun >/dev/null 2>&1") != 0) {
        check_skip("mpi: no mpirun");
        return false;
    }
    return true;
}

/* Exit status of mpirun; what the ranks printed in text. */
static int run_ranks(int n, const char *what, char *text, size_t bytes)
{
    char line[4096];
    snprintf(line, sizeof line,
             "ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
             "OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 mpirun -n %d %s --rank %s 2>&1",
             n, self, what);
    FILE *f = popen(line, "r");
    if (!f) return -1;
    size_t got = fread(text, 1, bytes - 1, f);
    text[got] = 0;
    while (fread(line, 1, sizeof line, f) > 0) {
    }
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check_ranks(int n, const char *what)
{
    char text[16384];
    int code = run_ranks(n, what, text, sizeof text);
    CHECKF(code == 0 && strstr(text, "rank 0 of"), "%d ranks, %s: %d\n%s", n, what, code, text);
}

static void ranks_exchange(void)
{
    if (!have_mpi()) return;
    check_ranks(1, "exchange");
    check_ranks(3, "exchange");
    check_ranks(4, "exchange");
    check_ranks(2, "gives_up");
}

static void working_rank_is_waited_for(void)
{
    if (!have_mpi()) return;
    check_ranks(2, "slow");
    check_ranks(2, "busy");
}

static void lost_ranks_are_named(void)
{
    char text[16384];
    if (!have_mpi()) return;
    int code = run_ranks(2, "stalls", text, sizeof text);
    CHECKF(code != 0 && strstr(text, "no sign of life came for 2 s from rank 1 on"), "stall: %d\n%s", code, text);
    code = run_ranks(2, "stops", text, sizeof text);
    CHECKF(code != 0 && strstr(text, "no sign of life came for 2 s from rank 1 on"), "stop: %d\n%s", code, text);
    code = run_ranks(2, "dies", text, sizeof text);
    CHECKF(code != 0 && strstr(text, "rank 1"), "death: %d\n%s", code, text);
}

/* ---- one process ------------------------------------------------------------------------------------- */

static void one_process(void)
{
    comm *c;
    CHECK_OK(comm_open(false, &c));
    CHECK(c->rank == 0 && c->size == 1);
    double v[2] = { 1, 2 }, w[2] = { 0 };
    CHECK_OK(comm_reduce(c, COMM_F64, COMM_SUM, v, 2));
    CHECK_OK(comm_gather(c, 0, v, sizeof v, w));
    CHECK(v[0] == 1 && w[1] == 2);
    CHECK_OK(comm_broadcast(c, 0, v, sizeof v));
    CHECK_OK(comm_barrier(c));
    CHECK_OK(comm_heartbeat(c, true));
    comm_alive(c, 5);
    CHECK(comm_done(c) == 5);
    CHECK_OK(comm_agree(c, SCA_OK));
    CHECK_FAILS(comm_agree(c, status_fail(SCA_ERR_IO, "x: no")), SCA_ERR_IO, "x: no");
    comm_close(c, false);
    comm_close(NULL, false);
    fault_alloc(1);
    CHECK_FAILS(comm_open(false, &c), SCA_ERR_MEMORY, "ranks");
    fault_alloc(2);
    CHECK_FAILS(comm_open(false, &c), SCA_ERR_MEMORY, "ranks");
    fault_alloc(0);
}

static void without_mpi(void)
{
    comm *c;
    if (!comm_built()) CHECK_FAILS(comm_open(true, &c), SCA_ERR_UNSUPPORTED, "SCA_MPI");
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc == 3 && strcmp(argv[1], "--rank") == 0) return be_rank(argv[2]);
    RUN(one_process);
    RUN(without_mpi);
    RUN(ranks_exchange);
    RUN(working_rank_is_waited_for);
    RUN(lost_ranks_are_named);
    return check_done();
}
