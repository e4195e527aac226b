/* training.h - private to training.c and training_batch.c. */
#ifndef TRAINING_H
#define TRAINING_H

#include "model/inside.h"

typedef enum objective { OBJECTIVE_CAPTION, OBJECTIVE_MASK, OBJECTIVE_TEXT } objective;

struct training {
    model *m;
    objective objective;
    float smoothing;
    bool lm_dropout, recompute_lm, recompute_encoder;
    bool encoder, prompt, decoder, mixer; /* backward must reach so far: down to the encoder, ... */
    training_entry *entries;              /* (n) owned */
    size_t n;
    int64_t count;             /* of the ranges */
    tensor values, gradients;  /* (count) */
    arena memory, plan_memory; /* gradients, and their shapes on null */
    arena keep;
};

/* One batch, on the device or, to learn what it takes, on null. train: backward as well. */
sca_status training_run(const training *t, const run *r, const training_input *in, bool train, double scale,
                        training_result *out);
/* SCA_ERR_ARGUMENT says what does not fit the model. */
sca_status training_check(const training *t, const training_input *in);

#endif
