/* schedule.c - what decides how far an update goes: rate, groups, clipping, loss scale. Source: spec training.md 1. */
#include "train/parts.h"

#include <math.h>
#include <string.h>

/* ---- rate ----------------------------------------------------------------------------------------------- */

double schedule_share(const config *c, int64_t done)
{
    const int64_t warmup = c->train_warmup_steps, steps = c->train_steps;
    if (done < warmup) return (double)done / (double)warmup;
    double rest = steps > warmup ? (double)(steps - warmup) : 1, at = (double)(done - warmup) / rest;
    if (strcmp(c->train_schedule, "constant") == 0) return 1;
    if (strcmp(c->train_schedule, "linear") == 0) return fmax(0, 1 - at);
    return fmax(0, 0.5 * (1 + cos(3.14159265358979323846 * at)));
}

/* ---- groups --------------------------------------------------------------------------------------------- */

static sca_status check_used(const config *c, const training_entry *entries, size_t n)
{
    for (size_t k = 0; k < c->n_train_lr_overrides; k++) {
        bool used = false;
        for (size_t i = 0; i < n; i++) used |= entries[i].rate == (int)k;
        if (!used)
            return status_fail(SCA_ERR_ARGUMENT,
                               "train.lr_overrides: no trained parameter has '%s' in its name; see train.trainable",
                               c->train_lr_overrides_key[k]);
    }
    return SCA_OK;
}

/* Adds a parameter to the last group if it continues that one. */
static void append(group *list, size_t *n, group next)
{
    group *last = *n ? &list[*n - 1] : NULL;
    if (last && last->peak == next.peak && last->decay == next.decay && last->first + last->count <= next.first)
        last->count = next.first + next.count - last->first;
    else
        list[(*n)++] = next;
}

sca_status groups_make(const config *c, const training_entry *entries, size_t n, group **out, size_t *n_out)
{
    *out = NULL;
    *n_out = 0;
    TRY(check_used(c, entries, n));
    group *list = mem_zero(n, sizeof *list);
    if (!list) return mem_fail(n * sizeof *list, "parameter groups");
    for (size_t i = 0; i < n; i++) {
        const training_entry *e = &entries[i];
        double peak = e->rate < 0 ? c->train_lr : c->train_lr_overrides[e->rate];
        append(list, n_out, (group){ e->offset, e->count, peak, e->decay ? c->train_weight_decay : 0 });
    }
    *out = list;
    return SCA_OK;
}

double clip_share(double length, double most) { return most > 0 ? 1 / fmax(1, (length + 1e-6) / most) : 1; }

/* ---- loss scale ----------------------------------------------------------------------------------------- */

enum { SCALE_FIRST = 1 << 16, SCALE_WINDOW = 1000, SCALE_SPARED = 1 };

scaler scaler_start(void) { return (scaler){ .scale = SCALE_FIRST, .spared = SCALE_SPARED }; }

double scaler_scale(const scaler *s) { return s->scale > 0 ? s->scale : 1; }

void scaler_step(scaler *s, bool overflow)
{
    if (s->scale <= 0) return;
    if (overflow) {
        if (s->spared > 0)
            s->spared--;
        else
            s->scale = fmax(1, s->scale / 2);
        s->clean = 0;
    } else if (++s->clean % SCALE_WINDOW == 0) {
        s->scale *= 2;
        s->spared = SCALE_SPARED;
    }
}
