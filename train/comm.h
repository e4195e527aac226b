/* comm.h - private to train/: what the ways to talk share. */
#ifndef COMM_H
#define COMM_H

#include "train/train.h"

/* Starts MPI and sets rank, size, kind and impl (comm_mpi.c, built where MPI was found). */
sca_status comm_mpi_open(comm *c);
/* comm.done is written by the thread of comm_heartbeat, too. */
void comm_note(comm *c, int rank, int64_t done);
int64_t comm_noted(const comm *c, int rank);

#endif
