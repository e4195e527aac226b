/* hopper.h - for cuda/hopper.cuh: barriers, the copy engine and products of a warpgroup on the host.
 *
 * What is asynchronous lands as late as it may: a box when somebody waits for its barrier, a product when the warpgroup
 * waits for it. Until then the destination is NaN, so what was not waited for shows; and what was released too early has
 * been overwritten by NaN when it is read.
 */
#ifndef SIMT_HOPPER_H
#define SIMT_HOPPER_H

#include "cuda/simt/simt.h"

struct simt_tensor_map { /* of 16-bit elements */
    const char *base;
    int64_t columns, rows, pitch; /* pitch: bytes from row to row */
    int box_rows;                 /* boxes are 64 columns wide */
};

void simt_barrier_init(uint64_t *barrier, unsigned arrivals);
void simt_barrier_arrive(uint64_t *barrier, unsigned bytes); /* bytes: announced for this phase */
void simt_barrier_wait(uint64_t *barrier, unsigned parity);
void simt_box_load(void *shared, const simt_tensor_map *map, uint64_t *barrier, int column, int row);

/* 64 x 8 n_tiles sums, of which this thread has sum[4 n_tiles]. */
void simt_product_issue(float *sum, int n_tiles, uint64_t a, uint64_t b, bool bf16);
void simt_product_commit(void);
void simt_product_wait(unsigned groups, const char *file, int line);

#endif
