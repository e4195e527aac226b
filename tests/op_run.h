/* op_run.h - a case brought to a device: its words read, its numbers drawn, its tensors laid out, its results back. */
#ifndef OP_RUN_H
#define OP_RUN_H

#include "op_cases.h"

typedef struct op_spec { /* one word of op_case.tensors */
    char name[16];
    bool given, output, adds;
    int same_as; /* in place: index of that parameter, else -1 */
    char type;
    int ndim;
    int64_t dim[4];
    char views[8];
} op_spec;

typedef struct op_plan { /* a case, read */
    op_id op;
    op_options o;
    char text[512]; /* op, words, options: names the case and seeds its numbers */
    uint64_t seed;
    int n;
    op_spec spec[OP_MAX_TENSORS];
    double *values[OP_MAX_TENSORS]; /* inputs, logical order, unrounded; NULL where there are none */
    double loosen;
} op_plan;

/* What names a case: its op, words and options. */
void op_case_text(const op_case *c, char *out, size_t size);
/* Reads the words and draws the numbers; false, and a message on stderr, when the row does not fit the op. */
bool op_plan_read(const op_case *c, op_plan *p);
void op_plan_free(op_plan *p);
bool op_plan_has(const op_plan *p, char type, char view); /* a tensor of that type with that view (0: any) */

typedef struct op_instance { /* a plan on a device */
    dev *d;
    arena a;
    dtype weight;                 /* type of W */
    bool panels;                  /* W arrives packed */
    bool plain;                   /* views contiguous, nothing in place: how the reference runs */
    tensor t[OP_MAX_TENSORS];     /* what the op is given */
    tensor whole[OP_MAX_TENSORS]; /* the buffer that t lies in */
    void *before[OP_MAX_TENSORS]; /* its bytes before the call, on the host */
} op_instance;

/* Values are rounded to `round` first (DT_NONE: to the type they are stored in), so that two devices get the same. */
bool op_instance_open(op_instance *s, dev *d, const op_plan *p, dtype weight, bool panels, bool plain,
                      const dev *round);
void op_instance_close(op_instance *s);
/* The tensor t[i] as doubles in logical order, and the bytes of its buffer outside the view against `before`. */
double *op_instance_values(op_instance *s, int i);
double *op_instance_before(op_instance *s, int i); /* the same, before the call */
bool op_instance_kept(op_instance *s, const op_plan *p, int i, bool output);
dtype op_type(char letter, const dev *d, dtype weight);

#endif
