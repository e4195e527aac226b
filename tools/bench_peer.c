/* bench_peer.c - a clock, medians, and the peer. */
#include "bench_peer.h"
#include "base/base.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

peer peer_start(const char *command)
{
    int to[2], from[2];
    peer p = { 0 };
    if (!command || pipe(to) != 0 || pipe(from) != 0) return p;
    p.process = fork();
    if (p.process == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        for (int i = 0; i < 2; i++) {
            close(to[i]);
            close(from[i]);
        }
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    p.to = fdopen(to[1], "w");
    p.from = fdopen(from[0], "r");
    return p;
}

double peer_ask(const peer *p, const char *what)
{
    char line[64];
    double answer;
    if (!p->to || fprintf(p->to, "%s\n", what) < 0 || fflush(p->to) != 0) return NAN;
    if (!fgets(line, sizeof line, p->from)) return NAN;
    line[strcspn(line, "\n")] = 0;
    return text_to_double(line, &answer) && answer > 0 ? answer : NAN;
}

void peer_stop(peer *p)
{
    if (p->to) fclose(p->to);
    if (p->from) fclose(p->from);
    if (p->process > 0) waitpid(p->process, NULL, 0);
}
