/* relpos.h - what the two directions of attention over a map share: windows, positions, biases. */
#ifndef CPU_RELPOS_H
#define CPU_RELPOS_H

#include "cpu/cpu.h"

typedef struct relpos {
    const cpu *c;
    tensor y, lse, qkv, pad, rel_h, rel_w;
    relpos_options o;
    int64_t D, h, w;      /* of a window, or of the map */
    int64_t across, down; /* windows */
    int64_t queries, chunks, keys, ld;
} relpos;

typedef struct relpos_at { /* what one task works on */
    const relpos *a;
    int64_t b, head, y0, x0; /* the window's corner */
    int64_t h, w;            /* of its part inside the map: these are queries */
    int64_t first;           /* query */
    float *k, *v, *line;     /* line: (2s-1) x nr */
    float *bias_h, *bias_w;  /* [panels][h][nr], [panels][w][nr] */
    cpu_queries u;
} relpos_at;

/* Windows and sizes from the op's arguments; y, lse, queries, chunks and keys are left to the caller. */
relpos cpu_relpos(const cpu *c, tensor qkv, tensor pad, tensor rel_h, tensor rel_w, relpos_options o);
/* Task = (image, window, head), head fastest; no more than that is set. */
relpos_at cpu_relpos_at(const relpos *a, int64_t task);
/* The floats of q (part 0), k (1) or v (2) of a position of the window; NULL outside the map without `pad`. */
const float *cpu_relpos_part(const relpos_at *t, int64_t y, int64_t x, int64_t part);
/* Part 1 or 2 of the positions from .., rows of a->ld */
void cpu_relpos_gather(const relpos_at *t, int64_t part, int64_t from, int64_t keys, float *dst);
/* How many of the queries from i on lie in the same row of the window. */
int64_t cpu_relpos_run(const relpos_at *t, int64_t i);
void cpu_relpos_load(relpos_at *t); /* the queries into t->u */
/* The two biases of the panels' queries, into t->bias_h and t->bias_w */
void cpu_relpos_biases(const relpos_at *t);
/* How many lines of a table (2 size - 1, D) the queries of a panel meet, from line *least on. Query i and key `key` meet
 * at line where(i) - key + size - 1. */
int64_t cpu_relpos_lines(const relpos_at *t, int64_t panel, int64_t size, bool along_x, int64_t *least);
/* Where query i of the task is along one axis of its window. */
int64_t cpu_relpos_where(const relpos_at *t, int64_t i, bool along_x);

#endif
