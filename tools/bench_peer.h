/* bench_peer.h - what the measuring programs share: a clock, medians, and another program that times the same thing
 * when asked. */
#ifndef BENCH_PEER_H
#define BENCH_PEER_H

#include <stdio.h>
#include <sys/types.h>

double now_s(void);
double median(double *v, int n); /* sorts v; n > 0 */

/* A shell command that reads a name per line and answers with a number per line, "nan" for what it does not know. */
typedef struct peer {
    FILE *to, *from; /* NULL: none */
    pid_t process;
} peer;
peer peer_start(const char *command); /* NULL: no peer, which answers NAN */
/* A number above 0, or NAN when the peer does not do this. */
double peer_ask(const peer *p, const char *what);
void peer_stop(peer *p);

#endif
