/* train.c - sca train: a run of training, with a line that says how it goes, and a report at its end. */
#include "tool.h"

#include <signal.h>
#include <string.h>
#include <time.h>

/* ---- signals ----------------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t signalled; /* the signal that asked to end, 0: none */

static void on_signal(int number) { signalled = number; }

/* From now on they end the run between two steps, after saving. */
static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
}

static int stop(void *user)
{
    (void)user;
    return signalled != 0;
}

/* ---- how it goes -------------------------------------------------------------------------------------------------- */

typedef struct view {
    int64_t log_every;
    double step_s, regions, data_s; /* running means of a step: its seconds, regions, seconds of waiting for data */
    bool begun;
} view;

static void follow(view *v, const sca_step *s)
{
    double keep = v->begun ? 0.9 : 0; /* the last ten steps or so */
    v->begun = true;
    v->step_s = keep * v->step_s + (1 - keep) * s->seconds;
    v->regions = keep * v->regions + (1 - keep) * (double)s->regions;
    v->data_s = keep * v->data_s + (1 - keep) * s->data_seconds;
}

static void stepped(void *user, const sca_step *s)
{
    view *v = user;
    char line[256], left[32];
    follow(v, s);
    double second = v->step_s > 1e-9 ? v->step_s : 1e-9;
    put_seconds(left, sizeof left, (double)(s->steps - s->step) * v->step_s);
    snprintf(line, sizeof line,
             "step %lld/%lld  loss %.4f  rate %.3g  norm %.3g  %.3g regions/s  data %.0f %%  %s left%s",
             (long long)s->step, (long long)s->steps, s->loss, s->lr, s->grad_norm, v->regions / second,
             100 * v->data_s / second, left, s->skipped ? "  (skipped)" : "");
    bool last = s->step == s->steps;
    message_line(line, s->step == 1 || s->step % v->log_every == 0 || last, last);
}

/* ---- the run ------------------------------------------------------------------------------------------------------ */

static sca_status get_int(const sca_config *c, const char *key, int64_t *out)
{
    char *text = NULL;
    TRY(sca_config_get(c, key, &text));
    bool good = text_to_int(text, 0, INT64_MAX, out);
    sca_free(text);
    return good ? SCA_OK : status_fail(SCA_ERR_ARGUMENT, "%s is no number", key);
}

/* bf16 is how the frozen weights are kept; what is trained, and all arithmetic of the CPU, stays float32. */
static sca_status set_precision(sca_config *settings)
{
    char *precision = NULL;
    TRY(sca_config_get(settings, "train.precision", &precision));
    sca_status status = SCA_OK;
    if (strcmp(precision, "bf16") == 0) status = sca_config_set(settings, "run.precision=bf16");
    sca_free(precision);
    return status;
}

static sca_status say_done(const char *dir, bool complete, int64_t steps, int64_t skipped)
{
    output out = { 0 };
    str_printf(&out.text, "%s after %lld steps", complete ? "done" : "stopped", (long long)steps);
    if (skipped)
        str_printf(&out.text, ", %lld of them skipped since loss or gradient was not finite", (long long)skipped);
    str_put(&out.text, "; ");
    put_printable(&out.text, dir);
    str_put(&out.text, complete ? " holds the checkpoints, log.jsonl and report.html\n"
                                : " holds the checkpoint; the same command goes on from there\n");
    sca_status status = output_finish(&out);
    output_free(&out);
    return status;
}

static sca_status finish(const char *dir, bool complete, int64_t steps, int64_t skipped)
{
    int rank;
    sca_rank(&rank, NULL);
    if (rank > 0) return SCA_OK;
    if (complete) TRY(run_report_write(dir));
    return say_done(dir, complete, steps, skipped);
}

static sca_status train(sca_config *settings)
{
    sca_model *model = NULL;
    sca_trainer *trainer = NULL;
    char *dir = NULL;
    int rank, complete = 0;
    view v = { 0 };
    sca_train_hooks hooks = { &v, stepped, stop };
    sca_status status;
    sca_rank(&rank, NULL);
    if (rank > 0) { /* the first speaks for all */
        sca_progress_to(NULL, NULL);
        hooks.stepped = NULL;
    }
    TRY_GOTO(done, sca_config_get(settings, "train.output", &dir));
    if (!dir[0])
        TRY_GOTO(done, status_fail(SCA_ERR_ARGUMENT, "train.output is not set; name the folder of the run"));
    TRY_GOTO(done, get_int(settings, "train.log_every", &v.log_every));
    TRY_GOTO(done, default_resources(settings));
    TRY_GOTO(done, set_precision(settings));
    TRY_GOTO(done, sca_model_open(settings, &model));
    TRY_GOTO(done, sca_trainer_open(model, settings, &trainer));
    catch_signals();
    TRY_GOTO(done, sca_train(trainer, &hooks, &complete));
    status = finish(dir, complete != 0, sca_trainer_done(trainer), sca_trainer_skipped(trainer));
done:
    sca_trainer_close(trainer);
    sca_model_close(model);
    sca_free(dir);
    return status;
}

int run_train(const arguments *a)
{
    sca_config *settings = NULL;
    if (a->n_operands == 0)
        return fail_usage("train: expected a configuration file; `sca train --help` shows the settings");
    int result = arguments_config_file(a, &settings);
    if (result == DONE) {
        message_progress_of("evaluate ");
        sca_status status = ranks_join();
        if (status == SCA_OK) status = train(settings);
        if (status != SCA_OK) result = fail_now();
        sca_ranks_close(result != DONE);
    }
    sca_config_close(settings);
    return result == DONE && signalled ? 128 + signalled : result;
}
