/* trainer.c - one optimizer step, and the loop around it.
 *
 * A step: `accumulate` batches, each forward and backward with its share of the weight; sums over the ranks; the norm;
 * AdamW, group by group. All ranks then hold the same values, to the bit, since they add in the same order. */
#include "train/parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BAD_MOST = 20 };              /* steps in a row without a finite loss */
static const double PATIENCE_S = 25; /* a rank that stands still is named within half a minute */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool first_rank(const trainer *t) { return t->ranks->rank == 0; }

/* ---- batches -------------------------------------------------------------------------------------------- */

/* What loader and ranks add up in a step. */
enum { SUM_FAILED, SUM_STOP, SUM_SKIPS, SUM_LOSS, SUM_IMAGES, SUM_REGIONS, SUM_TOKENS, SUM_WAITED, SUMS };

training_input trainer_input(trainer *t, const loader_batch *b, int64_t number)
{
    for (int i = 0; i < b->images; i++) t->recognition[i] = b->recognition && b->recognition[i] != 0;
    return (training_input){ .images = b->images,
                             .regions = b->regions,
                             .pixels = b->pixels,
                             .embeddings = b->embeddings,
                             .stored = b->embeddings_f16 ? DT_F16 : DT_F32,
                             .boxes = (const double *)b->boxes,
                             .ids = b->ids,
                             .labels = b->labels,
                             .length = b->length,
                             .recognition = t->recognition,
                             .masks = b->masks,
                             .seed = (uint64_t)t->c->train_seed,
                             .step = t->at.step,
                             .batch = number };
}

static double weight_of(const trainer *t)
{
    return scaler_scale(&t->at.scale) / (double)(t->ranks->size * t->c->train_accumulate);
}

/* This rank's batches of the step. */
static sca_status add_gradients(trainer *t, double sums[SUMS])
{
    op_fill(t->d, t->gradients, 0);
    for (int64_t j = 0; j < t->c->train_accumulate; j++) {
        const loader_batch *b;
        training_result r;
        TRY(loader_next(t->data, &b));
        training_input in = trainer_input(t, b, j * t->ranks->size + t->ranks->rank);
        TRY(training_batch(t->parameters, &in, weight_of(t), &r));
        sums[SUM_LOSS] += r.loss;
        sums[SUM_IMAGES] += b->images;
        sums[SUM_REGIONS] += (double)b->images * b->regions;
        sums[SUM_TOKENS] += (double)b->targets;
        sums[SUM_WAITED] += b->waited_s;
    }
    return dev_check(t->d);
}

/* ---- sums over the ranks ----------------------------------------------------------------------------------- */

/* values: a range; where its memory is not the host's, through a copy. */
static sca_status with_host(trainer *t, tensor values, sca_status (*work)(comm *, tensor, void *))
{
    if (t->ranks->size == 1) return SCA_OK;
    size_t bytes = tensor_bytes(values);
    if (t->d->kind->host_memory) {
        TRY(dev_check(t->d));
        return work(t->ranks, values, values.data);
    }
    void *copy = mem_alloc(bytes);
    if (!copy) return mem_fail(bytes, "the gradients");
    sca_status status = dev_get(t->d, copy, values, bytes);
    if (status == SCA_OK) status = work(t->ranks, values, copy);
    if (status == SCA_OK) dev_put(t->d, values, copy, bytes);
    if (status == SCA_OK) status = dev_check(t->d);
    mem_free(copy);
    return status;
}

static sca_status sum_range(comm *ranks, tensor values, void *host)
{
    comm_type type = values.type == DT_F64 ? COMM_F64 : COMM_F32;
    return comm_reduce(ranks, type, COMM_SUM, host, (size_t)tensor_count(values));
}

static sca_status broadcast_range(comm *ranks, tensor values, void *host)
{
    return comm_broadcast(ranks, 0, host, tensor_bytes(values));
}

/* A rank that failed says so here, before the others wait for its gradients. */
static sca_status sum_facts(trainer *t, sca_status mine, double sums[SUMS])
{
    sums[SUM_FAILED] = mine != SCA_OK;
    sums[SUM_SKIPS] = (double)t->skips.bytes;
    sca_status status = t->ranks->failed ? mine : comm_reduce(t->ranks, COMM_F64, COMM_SUM, sums, SUMS);
    if (status != SCA_OK) return mine != SCA_OK ? mine : status;
    return sums[SUM_FAILED] > 0 ? comm_agree(t->ranks, mine) : SCA_OK;
}

/* ---- bad records ------------------------------------------------------------------------------------------- */

static sca_status note_skip(void *user, const loader_skip *s)
{
    trainer *t = user;
    if (t->skips_known) return SCA_OK;
    str *line = &t->skips;
    str_printf(line, "{\"step\":%lld,\"file\":", (long long)t->at.step);
    json_put_text(line, s->file, strlen(s->file));
    str_put(line, ",\"what\":");
    json_put_text(line, s->what, strlen(s->what));
    str_printf(line, ",\"%s\":%lld,\"reason\":", s->has_id ? "id" : "index", (long long)s->id);
    json_put_text(line, s->reason, strlen(s->reason));
    str_put(line, "}\n");
    return line->failed ? mem_fail(line->bytes, "the list of bad records") : SCA_OK;
}

/* All ranks' lines to the file, by rank. */
static sca_status write_skips(trainer *t)
{
    comm *ranks = t->ranks;
    int64_t most = (int64_t)t->skips.bytes;
    TRY(comm_reduce(ranks, COMM_I64, COMM_MAX, &most, 1));
    size_t bytes = (size_t)most + 1; /* ends with a 0 */
    char *mine = mem_zero(bytes, 1), *all = first_rank(t) ? mem_zero((size_t)ranks->size, bytes) : NULL;
    sca_status status = mine && (all || !first_rank(t)) ? SCA_OK : mem_fail(bytes, "the list of bad records");
    if (status == SCA_OK && t->skips.bytes) memcpy(mine, t->skips.data, t->skips.bytes);
    str_clear(&t->skips);
    status = comm_agree(ranks, status);
    if (status == SCA_OK) status = comm_gather(ranks, 0, mine, bytes, all);
    for (int i = 0; i < ranks->size && status == SCA_OK && t->skipped && all; i++) {
        const char *text = all + (size_t)i * bytes;
        status = file_log_put(t->skipped, text, strlen(text));
    }
    mem_free(mine);
    mem_free(all);
    return status;
}

/* ---- the update ------------------------------------------------------------------------------------------- */

/* Of the mean gradient, before clipping. */
static sca_status gradient_norm(trainer *t, double *grad_norm)
{
    double square = 0;
    op_sum_squares(t->d, t->square, t->gradients, false);
    TRY(dev_get(t->d, &square, t->square, sizeof square));
    *grad_norm = sqrt(square) / scaler_scale(&t->at.scale);
    return SCA_OK;
}

static sca_status update(trainer *t, double grad_norm)
{
    const config *c = t->c;
    double share = schedule_share(c, t->at.updates);
    for (size_t i = 0; i < t->n_groups; i++) {
        const group *g = &t->groups[i];
        adamw_options o = { .rate = g->peak * share,
                            .beta1 = c->train_beta1,
                            .beta2 = c->train_beta2,
                            .eps = c->train_eps,
                            .decay = g->decay,
                            .scale = clip_share(grad_norm, c->train_clip_norm) / scaler_scale(&t->at.scale),
                            .step = t->at.updates + 1 };
        op_adamw(t->d, tensor_slice(t->values, 0, g->first, g->count),
                 tensor_slice(t->moment1, 0, g->first, g->count), tensor_slice(t->moment2, 0, g->first, g->count),
                 tensor_slice(t->gradients, 0, g->first, g->count), o);
    }
    return dev_check(t->d);
}

/* ---- steps that lead nowhere --------------------------------------------------------------------------------- */

static bool all_finite(const void *values, dtype type, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(type == DT_F64 ? ((const double *)values)[i] : (double)((const float *)values)[i]))
            return false;
    return true;
}

/* An entry of the range that holds NaN or infinity, NULL if none does. Backward goes from the last module to the first, so
 * that gradients are looked through in that order. */
static sca_status find_bad(trainer *t, tensor range, bool from_end, const char **name)
{
    sca_status status = SCA_OK;
    *name = NULL;
    for (size_t k = 0; k < t->n && status == SCA_OK && !*name; k++) {
        const training_entry *e = &t->entries[from_end ? t->n - 1 - k : k];
        tensor part = tensor_slice(range, 0, e->offset, e->count);
        void *values = mem_alloc(tensor_bytes(part));
        status = values ? dev_get(t->d, values, part, tensor_bytes(part)) : mem_fail(tensor_bytes(part), e->name);
        if (status == SCA_OK && !all_finite(values, range.type, e->count)) *name = e->name;
        mem_free(values);
    }
    return status;
}

static sca_status note_first_bad(trainer *t, double loss, double grad_norm)
{
    const char *value, *gradient;
    TRY(find_bad(t, t->values, false, &value));
    TRY(find_bad(t, t->gradients, true, &gradient));
    t->bad_step = t->at.step + 1;
    snprintf(t->bad_what, sizeof t->bad_what, "loss %g, gradient norm %g, %s %s went first", loss, grad_norm,
             value ? "the parameter" : "the gradient of",
             value      ? value
             : gradient ? gradient
                        : "no single parameter");
    return SCA_OK;
}

static sca_status skip_update(trainer *t, double loss, double grad_norm)
{
    bool expected = isfinite(loss) && t->at.scale.scale > 1; /* f16 finds its scale this way */
    if (expected) return SCA_OK;
    if (t->bad == 0) TRY(note_first_bad(t, loss, grad_norm));
    if (t->bad == 0 && first_rank(t)) log_warn("step %lld is skipped: %s", (long long)t->bad_step, t->bad_what);
    if (++t->bad < BAD_MOST) return SCA_OK;
    return status_fail(
        SCA_ERR_STATE,
        "%d steps in a row had no finite loss, from step %lld on: %s; the last checkpoint is as it was, go on "
        "from it with a lower train.lr",
        BAD_MOST, (long long)t->bad_step, t->bad_what);
}

/* ---- one step ------------------------------------------------------------------------------------------------- */

static bool logged(const trainer *t, int64_t step)
{
    return step == 1 || step % t->c->train_log_every == 0 || step == t->c->train_steps;
}

static sca_status log_curves(const trainer *t, const trainer_step *s)
{
    double seconds = s->seconds > 1e-9 ? s->seconds : 1e-9;
    struct {
        const char *tag;
        double value;
    } const curve[] = { { "train/loss", s->loss },
                        { "train/learning_rate", s->lr },
                        { "train/gradient_norm", s->grad_norm },
                        { "train/regions_per_second", (double)s->regions / seconds },
                        { "train/share_waiting_for_data", s->data_seconds / seconds } };
    for (size_t i = 0; i < LENGTH(curve); i++) TRY(events_put(t->curves, s->step, curve[i].tag, curve[i].value));
    return SCA_OK;
}

static sca_status log_step(const trainer *t, const trainer_step *s)
{
    str line = { 0 };
    str_printf(&line, "{\"step\":%lld,\"loss\":", (long long)s->step);
    json_put_real(&line, s->loss);
    str_put(&line, ",\"lr\":");
    json_put_real(&line, s->lr);
    str_put(&line, ",\"grad_norm\":");
    json_put_real(&line, s->grad_norm);
    str_printf(&line, ",\"images\":%lld,\"regions\":%lld,\"tokens\":%lld,\"seconds\":", (long long)s->images,
               (long long)s->regions, (long long)s->tokens);
    json_put_real(&line, s->seconds);
    str_put(&line, ",\"data_seconds\":");
    json_put_real(&line, s->data_seconds);
    str_put(&line, "}\n");
    sca_status status =
        line.failed ? mem_fail(line.bytes, "a line of the log") : file_log_put(t->log, line.data, line.bytes);
    str_free(&line);
    return status == SCA_OK ? log_curves(t, s) : status;
}

static void describe(const trainer *t, const double sums[SUMS], double grad_norm, double began, trainer_step *out)
{
    double batches = (double)(t->ranks->size * t->c->train_accumulate);
    *out = (trainer_step){ .step = t->at.step + 1,
                           .loss = sums[SUM_LOSS] / batches,
                           .lr = t->c->train_lr * schedule_share(t->c, t->at.updates),
                           .grad_norm = grad_norm,
                           .images = (int64_t)sums[SUM_IMAGES],
                           .regions = (int64_t)sums[SUM_REGIONS],
                           .tokens = (int64_t)sums[SUM_TOKENS],
                           .seconds = now_s() - began,
                           .data_seconds = sums[SUM_WAITED] / t->ranks->size };
    out->skipped = !isfinite(out->loss) || !isfinite(grad_norm);
}

/* From the summed gradients to new values. */
static sca_status finish_step(trainer *t, const double sums[SUMS], double began, trainer_step *out)
{
    double grad_norm = 0;
    TRY(with_host(t, t->gradients, sum_range));
    TRY(gradient_norm(t, &grad_norm));
    describe(t, sums, grad_norm, began, out);
    if (out->skipped) {
        TRY(skip_update(t, out->loss, grad_norm));
    } else {
        TRY(update(t, grad_norm));
        t->bad = 0;
        t->at.updates++;
    }
    out->seconds = now_s() - began;
    scaler_step(&t->at.scale, out->skipped);
    t->at.position = loader_position(t->data);
    t->at.step++;
    return SCA_OK;
}

static sca_status step(trainer *t, bool stop, trainer_step *out)
{
    double began = now_s(), sums[SUMS] = { 0 };
    if (t->at.step >= t->c->train_steps)
        return status_fail(SCA_ERR_STATE, "all %lld steps of train.steps are done", (long long)t->c->train_steps);
    sca_status status = add_gradients(t, sums);
    sums[SUM_STOP] = stop;
    TRY(sum_facts(t, status, sums));
    t->stop = sums[SUM_STOP] > 0;
    if (sums[SUM_SKIPS] > 0) TRY(write_skips(t));
    status = finish_step(t, sums, began, out);
    if (status == SCA_OK && t->log && logged(t, out->step)) status = log_step(t, out);
    return status;
}

sca_status trainer_next(trainer *t, trainer_step *out) { return step(t, false, out); }

int64_t trainer_done(const trainer *t) { return t->at.step; }
int64_t trainer_skipped(const trainer *t) { return t->at.step - t->at.updates; }
const char *trainer_dir(const trainer *t) { return t->dir; }

/* ---- evaluation, checkpoints --------------------------------------------------------------------------------- */

static sca_status curves_of(const trainer *t, const json_t *sets, double loss)
{
    size_t i;
    json_t *set, *value;
    const char *key;
    if (isfinite(loss)) TRY(events_put(t->curves, t->at.step, "eval/loss", loss));
    json_array_foreach((json_t *)(uintptr_t)sets, i, set)
    {
        const char *name = json_string_value(json_object_get(set, "name"));
        json_object_foreach(json_object_get(set, "scores"), key, value)
        {
            char tag[512];
            snprintf(tag, sizeof tag, "eval/%s/%s", name ? name : "", key);
            if (json_is_number(value)) TRY(events_put(t->curves, t->at.step, tag, json_number_value(value)));
        }
    }
    return SCA_OK;
}

static sca_status log_evaluation(trainer *t, json_t *sets, double loss, double seconds)
{
    sca_status status = curves_of(t, sets, loss);
    json_t *line = json_pack("{s:I, s:o, s:f, s:O}", "step", (json_int_t)t->at.step, "loss",
                             isfinite(loss) ? json_real(loss) : json_null(), "seconds", seconds, "sets", sets);
    if (status == SCA_OK)
        status = journal_put(t->evaluated, line);
    else
        json_decref(line);
    if (status == SCA_OK) status = file_log_sync(t->evaluated);
    char *path = checkpoint_path(t->dir, t->at.step);
    if (status == SCA_OK && !path) status = mem_fail(64, "a file name");
    if (status == SCA_OK && dir_exists(path)) status = checkpoint_links(t, t->at.step);
    mem_free(path);
    return status;
}

static bool evaluation_due(const trainer *t, const trainer_hooks *h)
{
    int64_t every = t->c->train_eval_every;
    if (!h->evaluate || !t->dir || every == 0 || t->c->n_data_eval == 0) return false;
    return t->at.step % every == 0 && t->last_evaluated < t->at.step;
}

static sca_status evaluate(trainer *t, const trainer_hooks *h)
{
    char name[64];
    double loss = NAN, began = now_s();
    json_t *sets = NULL;
    snprintf(name, sizeof name, "eval/step-%lld", (long long)t->at.step);
    char *dir = path_join(t->dir, name);
    if (!dir) return mem_fail(64, "a file name");
    sca_status status = h->evaluate(h->user, t->at.step, dir, &sets, &loss);
    mem_free(dir);
    if (status == SCA_OK && first_rank(t)) status = log_evaluation(t, sets, loss, now_s() - began);
    json_decref(sets);
    TRY(comm_agree(t->ranks, status));
    t->last_evaluated = t->at.step;
    return SCA_OK;
}

sca_status trainer_save(trainer *t, const char *path)
{
    sca_status status = SCA_OK;
    if (first_rank(t)) {
        status = t->log ? file_log_sync(t->log) : SCA_OK;
        if (status == SCA_OK && t->skipped) status = file_log_sync(t->skipped);
        if (status == SCA_OK && t->curves) status = events_sync(t->curves);
        if (status == SCA_OK) status = checkpoint_write(t, path);
    }
    return comm_agree(t->ranks, status);
}

/* RUN/checkpoint-N for where we are, if it is not there. */
static sca_status save_here(trainer *t)
{
    if (!t->dir || t->at.step == 0) return SCA_OK;
    char *path = checkpoint_path(t->dir, t->at.step);
    int64_t there = path && first_rank(t) && dir_exists(path);
    sca_status status = comm_agree(t->ranks, path ? SCA_OK : mem_fail(64, "a file name"));
    if (status == SCA_OK) status = comm_broadcast(t->ranks, 0, &there, sizeof there);
    if (status == SCA_OK && !there) {
        status = trainer_save(t, path);
        if (status == SCA_OK && first_rank(t)) status = checkpoint_links(t, t->at.step);
        status = comm_agree(t->ranks, status);
    }
    mem_free(path);
    return status;
}

/* ---- the loop ---------------------------------------------------------------------------------------------- */

static bool asked(const trainer_hooks *h) { return h->stop && h->stop(h->user); }

/* An evaluation that ended because some rank was asked to stop is no failure. */
static sca_status evaluate_or_stop(trainer *t, const trainer_hooks *h)
{
    sca_status status = evaluate(t, h);
    if (status == SCA_OK || t->ranks->failed) return status;
    int64_t stop = asked(h);
    char *why = text_copy(status_message(), strlen(status_message()));
    if (comm_reduce(t->ranks, COMM_I64, COMM_MAX, &stop, 1) == SCA_OK && stop) {
        t->stop = true;
        status = SCA_OK;
    } else {
        status = status_set(status, why ? why : "out of memory");
    }
    mem_free(why);
    return status;
}

sca_status trainer_run(trainer *t, const trainer_hooks *h, bool *complete)
{
    *complete = false;
    t->stop = false;
    for (;;) {
        if (evaluation_due(t, h)) TRY(evaluate_or_stop(t, h));
        if (t->stop || t->at.step >= t->c->train_steps) break;
        trainer_step s;
        TRY(step(t, asked(h), &s));
        if (h->stepped) h->stepped(h->user, &s);
        if (t->stop || t->at.step % t->c->train_save_every == 0) TRY(save_here(t));
        if (t->stop) break;
    }
    TRY(save_here(t));
    *complete = t->at.step >= t->c->train_steps;
    return SCA_OK;
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

static bool is_objective(const config *c, const char *name) { return strcmp(c->train_objective, name) == 0; }
bool trainer_objective(const trainer *t, const char *name) { return is_objective(t->c, name); }

static sca_status check_settings(const model *m, const config *c)
{
    bool half = strcmp(c->train_precision, "f16") == 0;
    if (c->n_data_train == 0)
        return status_fail(SCA_ERR_ARGUMENT, "data.train names no data set; give at least one");
    if (half && strcmp(c->run_device, "cuda") != 0 && strcmp(c->run_device, "simt") != 0)
        return status_fail(
            SCA_ERR_UNSUPPORTED,
            "train.precision f16 is for the devices cuda and simt, run.device is %s; set f32 or bf16",
            c->run_device);
    if (!is_objective(c, "mask") && !model_tokenizer(m))
        return status_fail(SCA_ERR_ARGUMENT,
                           "the model has no tokenizer to train on texts with; set model.tokenizer");
    return SCA_OK;
}

static sca_status open_ranges(trainer *t)
{
    int64_t count = tensor_count(t->values);
    size_t bytes = (size_t)count * dtype_bytes(t->values.type);
    TRY(arena_open(t->d, 2 * bytes + 8192, &t->memory));
    t->moment1 = arena_tensor(&t->memory, t->values.type, 1, &count);
    t->moment2 = arena_tensor(&t->memory, t->values.type, 1, &count);
    t->square = arena_tensor(&t->memory, DT_F64, 1, (int64_t[]){ 1 });
    op_fill(t->d, t->moment1, 0);
    op_fill(t->d, t->moment2, 0);
    return dev_check(t->d);
}

static sca_status open_parameters(trainer *t)
{
    TRY(training_open(t->m, t->c, &t->parameters));
    t->entries = training_entries(t->parameters, &t->n);
    t->d = training_device(t->parameters);
    t->values = training_values(t->parameters);
    t->gradients = training_gradients(t->parameters);
    TRY(groups_make(t->c, t->entries, t->n, &t->groups, &t->n_groups));
    if (strcmp(t->c->train_precision, "f16") == 0) t->at.scale = scaler_start();
    return open_ranges(t);
}

static sca_status write_settings(const trainer *t)
{
    str text = { 0 };
    char *path = path_join(t->dir, "config.yaml");
    sca_status status = path ? config_dump(t->c, &text) : mem_fail(64, "a file name");
    if (status == SCA_OK) status = file_write(path, str_text(&text), text.bytes);
    mem_free(path);
    str_free(&text);
    return status;
}

/* Opening the logs also says that the directory is ours: another process that trains there is told. */
static sca_status open_logs(trainer *t)
{
    int64_t step = t->at.step, last;
    TRY(journal_open(t->dir, "log.jsonl", step, &last, &t->log));
    TRY(checkpoint_clean(t));
    TRY(journal_open(t->dir, "eval.jsonl", step, &t->last_evaluated, &t->evaluated));
    TRY(journal_open(t->dir, "skipped.jsonl", step, &last, &t->skipped));
    t->skips_known = last >= 0;
    TRY(events_open(t->dir, step, &t->curves));
    return write_settings(t);
}

static sca_status open_run(trainer *t)
{
    char *from = NULL;
    sca_status status = checkpoint_find(t->c, &from);
    if (status == SCA_OK && from) status = checkpoint_read(t, from);
    if (status == SCA_OK && from) log_info("going on from %s, step %lld", from, (long long)t->at.step);
    mem_free(from);
    if (status == SCA_OK && t->dir) status = dir_make(t->dir);
    if (status == SCA_OK && t->dir) status = open_logs(t);
    return status;
}

/* Rank 0 has read what there is; the others get it from there. */
static sca_status share_state(trainer *t)
{
    TRY(comm_broadcast(t->ranks, 0, &t->at, sizeof t->at));
    TRY(comm_broadcast(t->ranks, 0, &t->last_evaluated, sizeof t->last_evaluated));
    TRY(with_host(t, t->values, broadcast_range));
    TRY(with_host(t, t->moment1, broadcast_range));
    return with_host(t, t->moment2, broadcast_range);
}

static sca_status tokenise(void *user, const char *text, size_t bytes, int **ids, int *n)
{
    const trainer *t = user;
    return tokenizer_encode(model_tokenizer(t->m), text, bytes, true, ids, n);
}

/* A text is no caption: it is cut where the language model ends, not to a caption's 18 tokens. */
static sca_status tokenise_text(void *user, const char *text, size_t bytes, int **ids, int *n)
{
    const trainer *t = user;
    const tokenizer *k = model_tokenizer(t->m);
    int *wider, most = (int)model_sizes(t->m)->lm.positions;
    TRY(tokenizer_encode(k, text, bytes, false, ids, n));
    if (*n > most - 1) *n = most - 1;
    if (tokenizer_eos(k) < 0) return SCA_OK;
    wider = mem_resize(*ids, ((size_t)*n + 1) * sizeof *wider);
    if (!wider) {
        mem_free(*ids);
        *ids = NULL;
        return mem_fail(((size_t)*n + 1) * sizeof *wider, "token ids");
    }
    *ids = wider;
    wider[(*n)++] = tokenizer_eos(k);
    return SCA_OK;
}

static bool trains_encoder(const trainer *t)
{
    for (size_t i = 0; i < t->n; i++)
        if (text_starts(t->entries[i].name, "vision_encoder.")) return true;
    return false;
}

void trainer_loader(trainer *t, loader_options *o)
{
    const model_config *m = model_sizes(t->m);
    loader_options_from(t->c, o);
    o->rank = t->ranks->rank;
    o->size = t->ranks->size;
    o->start = t->at.position;
    o->pixels = !is_objective(t->c, "text");
    o->masks = is_objective(t->c, "mask");
    o->tokens = !o->masks;
    o->embeddings = o->pixels && !o->jitter && !trains_encoder(t);
    o->side = m->sam.image;
    o->mask_side = 4 * m->sam.grid;
    memcpy(o->mean, m->mean, sizeof o->mean);
    memcpy(o->std, m->std, sizeof o->std);
    o->tokenise = is_objective(t->c, "text") ? tokenise_text : tokenise;
    o->tokeniser = t;
    o->pad_id = m->lm.pad >= 0 && m->lm.pad < m->lm.vocab ? m->lm.pad : m->lm.eos >= 0 ? m->lm.eos : 0;
    o->skipped = note_skip;
    o->skipped_user = t;
}

/* Every rank reads the annotations, and so finds the same bad records in them; rank 0 writes them down, once in a run. */
static sca_status open_data(trainer *t)
{
    loader_options o;
    char encoder[17];
    trainer_loader(t, &o);
    for (size_t i = 0; i < o.n_sets && o.embeddings && !o.encoder; i++) {
        if (strcmp(o.sets[i].kind, "store") != 0) continue;
        TRY(model_encoder_key(t->m, encoder)); /* embeddings must be those of this model */
        o.encoder = encoder;
    }
    t->skips_known |= !first_rank(t);
    TRY(loader_open(&o, &t->data));
    t->skips_known = false;
    return SCA_OK;
}

static sca_status open_all(trainer *t)
{
    sca_status status = open_parameters(t);
    t->recognition = mem_zero((size_t)t->c->train_batch_images, sizeof *t->recognition);
    if (status == SCA_OK && !t->recognition) status = mem_fail((size_t)t->c->train_batch_images, "a batch");
    if (status == SCA_OK && first_rank(t)) status = open_run(t);
    TRY(comm_agree(t->ranks, status));
    TRY(share_state(t));
    TRY(comm_agree(t->ranks, open_data(t)));
    return write_skips(t);
}

sca_status trainer_open(model *m, const config *c, comm *ranks, trainer **out)
{
    *out = NULL;
    trainer *t = mem_zero(1, sizeof *t);
    if (!t) return mem_fail(sizeof *t, "a trainer");
    t->m = m;
    t->ranks = ranks;
    t->last_evaluated = -1;
    ranks->patience_s = PATIENCE_S;
    sca_status status = check_settings(m, c);
    if (status == SCA_OK) status = config_copy(c, &t->c);
    if (status == SCA_OK && *c->train_output && !(t->dir = text_copy(c->train_output, strlen(c->train_output))))
        status = mem_fail(strlen(c->train_output), "a file name");
    status = comm_agree(ranks, status);
    if (status == SCA_OK) status = comm_heartbeat(ranks, true);
    if (status == SCA_OK) status = open_all(t);
    if (status == SCA_OK)
        *out = t;
    else
        trainer_close(t);
    return status;
}

void trainer_close(trainer *t)
{
    if (!t) return;
    if (!t->ranks->failed) (void)comm_heartbeat(t->ranks, false);
    loader_close(t->data);
    events_close(t->curves);
    file_log_close(t->skipped);
    file_log_close(t->evaluated);
    file_log_close(t->log);
    arena_close(&t->memory);
    training_close(t->parameters);
    mem_free(t->groups);
    mem_free(t->recognition);
    mem_free(t->dir);
    str_free(&t->skips);
    config_close(t->c);
    mem_free(t);
}
