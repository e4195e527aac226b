/* training.h - private to training.c and training_batch.c. */
#ifndef TRAINING_H
#define TRAINING_H

#include "model/inside.h"

typedef enum objective { OBJECTIVE_CAPTION, OBJECTIVE_MASK, OBJECTIVE_TEXT } objective;

struct training {
    model *m;
    objective objective;
    float smoothing;
    double restore; /* weight of restore_loss, objective mask */
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

/* Numbers of a tensor on the host, (count); on null 0. */
sca_status training_read(dev *d, tensor t, double *out);

/* What the first restore_channels() channels of an embedding shall be, to (grid*grid, channels): of each patch the mean
 * colours of its quarters and a histogram of the directions of its edges. pixels (side,side,3) normalised. */
int restore_channels(void);
void restore_targets(float *to, const float *pixels, int64_t side, int64_t grid);
/* loss: mean squared error of these channels of embedding (grid*grid,C); gradient (grid*grid, channels): that of scale *
 * loss, or absent. On null pixels are not read. */
sca_status restore_loss(const pass *p, tensor embedding, const float *pixels, int64_t side, int64_t grid,
                        double scale, tensor gradient, double *loss);

#endif
