/* test_trainer.c - training through sca.h: the official trajectories, resume to the bit, checkpoints, what goes wrong. */
#include "check.h"
#include "faults.h"

#include "model/model.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define HERE SCA_BUILD "/trainer-test"
#ifdef __SANITIZE_ADDRESS__
enum { SLOW = 1 }; /* the sanitizers look at the same code in fewer steps */
#else
enum { SLOW = 0 };
#endif
#define GOLDEN SCA_SHARED "/golden"

static bool have_golden(void)
{
    if (dir_exists(GOLDEN) && dir_exists(SCA_SHARED "/data/vg-mini")) return true;
    check_skip("shared: golden vectors are absent");
    return false;
}

/* ---- settings --------------------------------------------------------------------------------------------- */

static void set(sca_config *c, const char *format, ...) PRINTF_LIKE(2, 3);
static void set(sca_config *c, const char *format, ...)
{
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    CHECK_OK(sca_config_set(c, text));
}

/* The shipped tiny run, smaller, into the folder HERE/name, which begins empty. */
static sca_config *tiny(const char *name)
{
    sca_config *c = NULL;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", HERE, name);
    CHECK_OK(dir_remove(path));
    CHECK_OK(sca_config_open(SCA_SOURCE "/configs/tiny.yaml", &c));
    set(c, "model.path=%s/docs/demo/model", SCA_SOURCE);
    set(c, "data.train.0.annotations=count=6 size=64 shapes=3");
    set(c, "data.regions_per_image=2");
    set(c, "train.steps=6");
    set(c, "train.warmup_steps=2");
    set(c, "train.batch_images=1");
    set(c, "train.save_every=3");
    set(c, "train.eval_every=0");
    set(c, "train.output=%s", path);
    return c;
}

/* Opens, trains to the end, closes. steps: NULL, or room for all of them. */
static sca_status run(const sca_config *c, sca_step *steps)
{
    sca_model *m = NULL;
    sca_trainer *t = NULL;
    int complete = 0;
    sca_status status = sca_model_open(c, &m);
    if (status == SCA_OK) status = sca_trainer_open(m, c, &t);
    while (status == SCA_OK && steps && sca_trainer_done(t) < c->train_steps)
        status = sca_train_step(t, &steps[sca_trainer_done(t)]);
    if (status == SCA_OK) status = sca_train(t, NULL, &complete);
    CHECK(status != SCA_OK || complete);
    sca_trainer_close(t);
    sca_model_close(m);
    return status;
}

static bool same_files(const char *run_a, const char *run_b, const char *name)
{
    char a[512], b[512];
    file_view va = { 0 }, vb = { 0 };
    snprintf(a, sizeof a, "%s/%s/%s", HERE, run_a, name);
    snprintf(b, sizeof b, "%s/%s/%s", HERE, run_b, name);
    bool same = file_map(a, &va) == SCA_OK && file_map(b, &vb) == SCA_OK && va.bytes == vb.bytes &&
                memcmp(va.data, vb.data, va.bytes) == 0;
    file_unmap(&va);
    file_unmap(&vb);
    return CHECKF(same, "%s and %s differ", a, b);
}

static void same_checkpoints(const char *run_a, const char *run_b, int step)
{
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%d/model.safetensors", step);
    same_files(run_a, run_b, name);
    snprintf(name, sizeof name, "checkpoint-%d/trainer.safetensors", step);
    same_files(run_a, run_b, name);
    snprintf(name, sizeof name, "checkpoint-%d/trainer.json", step);
    same_files(run_a, run_b, name);
}

static bool there(const char *format, ...) PRINTF_LIKE(1, 2);
static bool there(const char *format, ...)
{
    char name[512], path[600];
    struct stat info;
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    snprintf(path, sizeof path, "%s/%s", HERE, name);
    return lstat(path, &info) == 0;
}

static bool link_is(const char *name, const char *expected)
{
    char path[512], where[256] = "";
    snprintf(path, sizeof path, "%s/%s", HERE, name);
    ssize_t n = readlink(path, where, sizeof where - 1);
    return CHECKF(n > 0 && strcmp(where, expected) == 0, "%s leads to '%s', expected '%s'", name, where, expected);
}

/* ---- the official trajectories ------------------------------------------------------------------------------ */

typedef struct trajectory {
    const char *model, *file;
    int every; /* of the final weights */
    bool lm;
} trajectory;

static sca_config *golden_settings(const trajectory *g, const json_t *s)
{
    sca_config *c = NULL;
    CHECK_OK(sca_config_open(NULL, &c));
    set(c, "model.path=%s/models/%s-fresh", GOLDEN, g->model);
    set(c,
        "data.train=[{kind: visual_genome, annotations: %s/data/vg-mini/annotations, images: %s/data/vg-mini, "
        "split: train}]",
        SCA_SHARED, SCA_SHARED);
    set(c, "data.shuffle=false");
    set(c, "data.regions_per_image=%lld", json_integer_value(json_object_get(s, "regions_per_image")));
    set(c, "train.steps=%lld", json_integer_value(json_object_get(s, "steps")));
    set(c, "train.warmup_steps=%lld", json_integer_value(json_object_get(s, "warmup")));
    set(c, "train.lr=%.17g", json_number_value(json_object_get(s, "lr")));
    set(c, "train.weight_decay=%.17g", json_number_value(json_object_get(s, "weight_decay")));
    set(c, "train.batch_images=2");
    set(c, "train.lm_dropout=false");
    if (g->lm) {
        set(c, "train.trainable=[mask_decoder.additional_transformer, mask_decoder.caption_tokens, task_tokens, "
               "language_project, language_model]");
        set(c, "train.lr_overrides={language_model: 1.0e-4}");
    }
    return c;
}

static double relative(double x, double y) { return fabs(x - y) / fabs(y); }

/* The trained weights of a checkpoint against every n-th official one; noise is what float32 leaves there. */
static void check_weights(const trajectory *g, const char *ours)
{
    char path[512];
    weights *a = NULL, *b = NULL;
    double worst = 0;
    const char *where = "";
    snprintf(path, sizeof path, "%s/train/%s/%s_final%s.safetensors", GOLDEN, g->model, g->file,
             g->every > 1 ? "_every11" : "");
    CHECK_OK(weights_open(ours, &a));
    CHECK_OK(weights_open(path, &b));
    for (size_t i = 0; a && b && i < weights_count(b); i++) {
        const weight *official = weights_at(b, i), *own = weights_find(a, official->name);
        if (!CHECKF(own && (own->count + g->every - 1) / g->every == official->count, "%s", official->name))
            continue;
        float *x = mem_alloc((size_t)own->count * 4), *y = mem_alloc((size_t)official->count * 4);
        CHECK_OK(weight_read(own, DT_F32, x));
        CHECK_OK(weight_read(official, DT_F32, y));
        for (int64_t k = 0; k < official->count; k++) {
            double d = fabs((double)x[k * g->every] - (double)y[k]);
            if (d > worst) where = official->name;
            worst = d > worst ? d : worst;
        }
        mem_free(x);
        mem_free(y);
    }
    CHECKF(worst < 1e-4, "%s %s: final weights differ by %.2g in %s", g->model, g->file, worst, where);
    printf("%s %s: final weights within %.2g\n", g->model, g->file, worst);
    weights_close(a);
    weights_close(b);
}

static void check_step(const trajectory *g, const sca_step *s, const json_t *o, double worst[2])
{
    double loss = relative(s->loss, json_number_value(json_object_get(o, "loss")));
    double norm_error = relative(s->grad_norm, json_number_value(json_object_get(o, "grad_norm")));
    double lr = json_number_value(json_object_get(o, "lr"));
    worst[0] = fmax(worst[0], loss);
    worst[1] = fmax(worst[1], norm_error);
    CHECKF(s->step == json_integer_value(json_object_get(o, "step")) && fabs(s->lr - lr) < 1e-15 &&
               s->tokens == json_integer_value(json_array_get(json_object_get(o, "tokens"), 0)) &&
               s->regions == json_integer_value(json_array_get(json_object_get(o, "regions"), 0)) && s->images == 2,
           "%s %s step %lld: rate %g, %lld tokens, %lld regions", g->model, g->file, (long long)s->step, s->lr,
           (long long)s->tokens, (long long)s->regions);
    CHECKF(loss < 1e-4 && norm_error < 1e-3, "%s %s step %lld: loss %.9g, norm %.9g", g->model, g->file,
           (long long)s->step, s->loss, s->grad_norm);
}

static void follow(const trajectory *g)
{
    char path[512];
    json_t *root = NULL, *o;
    size_t i;
    sca_model *m = NULL;
    sca_trainer *t = NULL;
    double worst[2] = { 0 };
    snprintf(path, sizeof path, "%s/train/%s/%s.json", GOLDEN, g->model, g->file);
    CHECK_OK(json_open(path, &root));
    sca_config *c = golden_settings(g, json_object_get(root, "settings"));
    CHECK_OK(sca_model_open(c, &m));
    CHECK_OK(sca_trainer_open(m, c, &t));
    json_array_foreach(json_object_get(root, "steps"), i, o)
    {
        sca_step s = { 0 };
        if (!t || !check_that(sca_train_step(t, &s) == SCA_OK, __FILE__, __LINE__, "%s", sca_last_error())) break;
        check_step(g, &s, o, worst);
        if (SLOW && i == 3) break;
    }
    printf("%s %s: loss within %.2g, gradient norm within %.2g (relative)\n", g->model, g->file, worst[0],
           worst[1]);
    CHECK_OK(dir_make(HERE));
    CHECK_OK(dir_remove(HERE "/golden"));
    if (t) CHECK_OK(sca_trainer_save(t, HERE "/golden"));
    sca_trainer_close(t);
    sca_model_close(m);
    if (!SLOW) check_weights(g, HERE "/golden");
    sca_config_close(c);
    json_decref(root);
}

static void official_trajectories(void)
{
    static const trajectory all[] = { { "gpt2-tiny", "adamw_1rank", 1, false },
                                      { "llama-tiny", "adamw_1rank", 1, false },
                                      { "gpt2-tiny", "adamw_lm", 11, true },
                                      { "llama-tiny", "adamw_lm", 11, true } };
    if (!have_golden()) return;
    for (size_t i = 0; i < LENGTH(all); i += SLOW ? 2 : 1) follow(&all[i]);
}

/* ---- resume ------------------------------------------------------------------------------------------------- */

/* With everything that draws random numbers: order, jitter, dropout. */
static sca_config *random_run(const char *name)
{
    sca_config *c = tiny(name);
    set(c, "data.augment=lsj");
    set(c, "train.lm_dropout=true");
    set(c, "train.accumulate=2");
    return c;
}

/* Stops the trainer after so many steps. */
typedef struct stopper {
    int64_t after, seen;
} stopper;
static void count_step(void *user, const sca_step *s) { ((stopper *)user)->seen = s->step; }
static int enough(void *user) { return ((stopper *)user)->seen + 1 >= ((stopper *)user)->after; }

static void stop_after(const sca_config *c, int64_t steps)
{
    sca_model *m = NULL;
    sca_trainer *t = NULL;
    stopper s = { .after = steps };
    sca_train_hooks hooks = { &s, count_step, enough };
    int complete = 1;
    CHECK_OK(sca_model_open(c, &m));
    CHECK_OK(sca_trainer_open(m, c, &t));
    if (t) s.seen = sca_trainer_done(t);
    if (t) CHECK_OK(sca_train(t, &hooks, &complete));
    if (t) CHECKF(!complete && sca_trainer_done(t) == steps, "%lld steps", (long long)sca_trainer_done(t));
    sca_trainer_close(t);
    sca_model_close(m);
}

static void resume_is_exact(void)
{
    sca_config *whole = random_run("whole"), *parts = random_run("parts");
    CHECK_OK(run(whole, NULL));
    stop_after(parts, 2);
    CHECK(there("parts/checkpoint-2") && link_is("parts/last", "checkpoint-2"));
    stop_after(parts, 5);
    CHECK(there("parts/checkpoint-3"));
    CHECK_OK(run(parts, NULL));
    same_checkpoints("whole", "parts", 6);
    CHECK_OK(run(parts, NULL)); /* all is done: nothing happens */
    link_is("parts/last", "checkpoint-6");
    sca_config_close(whole);
    sca_config_close(parts);
}

/* Any number of loader threads gives the same run. */
static void workers_do_not_matter(void)
{
    sca_config *one = random_run("one"), *many = random_run("many");
    set(one, "data.workers=0");
    set(many, "data.workers=5");
    CHECK_OK(run(one, NULL));
    CHECK_OK(run(many, NULL));
    same_files("one", "many", "checkpoint-6/model.safetensors");
    sca_config_close(one);
    sca_config_close(many);
}

/* The log of a run that went back is that of one that did not. */
static int64_t lines_of(const char *name)
{
    char path[512], *text = NULL;
    size_t bytes = 0;
    int64_t n = 0;
    snprintf(path, sizeof path, "%s/%s", HERE, name);
    CHECK_OK(file_read(path, 1 << 20, &text, &bytes));
    for (size_t i = 0; i < bytes; i++) n += text[i] == '\n';
    mem_free(text);
    return n;
}

static void half_written_is_cleaned(void)
{
    sca_config *c = tiny("clean");
    stop_after(c, 4);
    CHECK_OK(dir_make(HERE "/clean/.checkpoint-5.tmp"));
    CHECK_OK(file_write(HERE "/clean/.checkpoint-5.tmp/model.safetensors", "x", 1));
    CHECK_OK(dir_make(HERE "/clean/checkpoint-5")); /* never finished, as after a crash of the disk */
    CHECK_OK(file_write(HERE "/clean/checkpoint-5/trainer.json", "{}", 2));
    char *text = NULL;
    size_t bytes;
    str log = { 0 };
    CHECK_OK(file_read(HERE "/clean/log.jsonl", 1 << 20, &text, &bytes));
    str_put(&log, text);
    str_put(&log, "{\"step\":5,\"loss\":1}\n{\"step\":6,\"lo");
    CHECK_OK(file_write(HERE "/clean/log.jsonl", log.data, log.bytes));
    stop_after(c, 5);
    CHECK(!there("clean/.checkpoint-5.tmp") && there("clean/checkpoint-5/model.safetensors"));
    CHECKF(lines_of("clean/log.jsonl") == 5, "%lld lines", (long long)lines_of("clean/log.jsonl"));
    mem_free(text);
    str_free(&log);
    sca_config_close(c);
}

static void kept_by_count(void)
{
    sca_config *c = tiny("keep");
    set(c, "train.save_every=1");
    set(c, "train.keep=2");
    CHECK_OK(run(c, NULL));
    CHECK(there("keep/checkpoint-6") && there("keep/checkpoint-5") && !there("keep/checkpoint-4"));
    link_is("keep/last", "checkpoint-6");
    CHECK(!there("keep/best"));
    set(c, "train.resume=never"); /* what was there gives way */
    set(c, "train.steps=1");
    CHECK_OK(run(c, NULL));
    CHECK(there("keep/checkpoint-1") && !there("keep/checkpoint-6"));
    link_is("keep/last", "checkpoint-1");
    sca_config_close(c);
}

/* What does not fit a checkpoint is told. */
static void wrong_resumes(void)
{
    sca_config *c = tiny("wrong");
    set(c, "train.steps=1");
    CHECK_OK(run(c, NULL));
    set(c, "train.steps=2");
    set(c, "train.batch_images=2");
    CHECK_FAILS(run(c, NULL), SCA_ERR_ARGUMENT, "train.batch_images = 1, here they are 1 and 2");
    set(c, "train.batch_images=1");
    set(c, "train.trainable=[language_project]");
    CHECK_FAILS(run(c, NULL), SCA_ERR_FORMAT, "train.trainable");
    set(c, "train.trainable=[]");
    set(c, "train.resume=%s/nothing", HERE);
    CHECK_FAILS(run(c, NULL), SCA_ERR_IO, "nothing");
    CHECK_OK(dir_make(HERE "/empty"));
    set(c, "train.resume=%s/empty", HERE);
    CHECK_FAILS(run(c, NULL), SCA_ERR_IO, "trainer.json");
    set(c, "train.output=%s/elsewhere", HERE);
    set(c, "train.resume=%s/wrong/checkpoint-1", HERE);
    CHECK_OK(dir_remove(HERE "/elsewhere"));
    CHECK_OK(run(c, NULL));
    CHECK(there("elsewhere/checkpoint-2"));
    set(c, "train.precision=f16");
    CHECK_FAILS(run(c, NULL), SCA_ERR_UNSUPPORTED, "f16");
    set(c, "train.precision=f32");
    set(c, "data.train=[]");
    CHECK_FAILS(run(c, NULL), SCA_ERR_ARGUMENT, "data.train");
    sca_config_close(c);
}

/* ---- learning ------------------------------------------------------------------------------------------------ */

static void one_batch_is_learned(void)
{
    enum { STEPS = SLOW ? 12 : 150 };
    static sca_step steps[STEPS];
    sca_config *c = tiny("overfit");
    set(c, "train.output=");
    set(c, "data.train.0.annotations=count=1 size=64 shapes=3");
    set(c, "data.shuffle=false");
    set(c, "train.label_smoothing=0");
    set(c, "train.trainable=[mask_decoder.additional_transformer, mask_decoder.caption_tokens, task_tokens, "
           "language_project, language_model]");
    set(c, "train.lr=3.0e-3");
    set(c, "train.steps=%d", STEPS);
    CHECK_OK(run(c, steps));
    CHECKF(steps[STEPS - 1].loss < (SLOW ? steps[0].loss - 0.5 : 0.05) && steps[0].loss > 1, "from %g to %g",
           steps[0].loss, steps[STEPS - 1].loss);
    sca_config_close(c);
}

/* The evaluation before the first step, of the image that this step trains on, has the loss of this step; the one
 * after all steps has less. */
static void masks_and_texts_are_evaluated(void)
{
    static const char *const objectives[] = { "mask", "text" };
    for (size_t i = 0; i < LENGTH(objectives); i++) {
        enum { STEPS = 4 };
        sca_step steps[STEPS];
        double before = 0, after = 0;
        sca_config *c = tiny("evaluated");
        set(c, "train.objective=%s", objectives[i]);
        set(c, "data.train.0.annotations=count=1 size=64 shapes=3");
        set(c, "data.eval.0.annotations=count=1 size=64 shapes=3");
        set(c, "data.eval.0.split=train");
        set(c, "data.regions_per_image=10");
        set(c, "train.warmup_steps=0");
        set(c, "train.steps=%d", STEPS);
        set(c, "train.eval_every=%d", STEPS);
        CHECK_OK(run(c, NULL));
        char *lines = NULL, *second;
        size_t bytes;
        CHECK_OK(file_read(HERE "/evaluated/eval.jsonl", 1 << 20, &lines, &bytes));
        CHECKF(lines && (second = strchr(lines, '\n')) && sscanf(lines, "{\"step\":0,\"loss\":%lf", &before) == 1 &&
                   sscanf(second, "\n{\"step\":4,\"loss\":%lf", &after) == 1,
               "%s", lines ? lines : "");
        CHECK(lines && (strstr(lines, "best-mask-iou") != NULL) == (i == 0));
        set(c, "train.output=");
        CHECK_OK(run(c, steps));
        CHECKF(fabs(before - steps[0].loss) <= 1e-12 * before && after < before && after > 0,
               "%s: loss %.17g before and %.17g after, %.17g in the first step", objectives[i], before, after,
               steps[0].loss);
        mem_free(lines);
        sca_config_close(c);
    }
}

/* ---- steps without a finite loss ------------------------------------------------------------------------------ */

static void loss_that_is_not_finite(void)
{
    static sca_step steps[60];
    sca_config *c = tiny("nan");
    memset(steps, 0, sizeof steps);
    set(c, "train.steps=60");
    set(c, "train.warmup_steps=0");
    set(c, "train.schedule=constant");
    set(c, "train.lr=1000");
    set(c, "train.eps=0");
    set(c, "train.weight_decay=1000"); /* a million times too much at each step */
    set(c, "train.save_every=1");
    CHECK_FAILS(run(c, NULL), SCA_ERR_STATE, "20 steps in a row");
    CHECKF(strstr(sca_last_error(), "went first"), "%s", sca_last_error());
    CHECKF(strstr(sca_last_error(), "mask_decoder.") || strstr(sca_last_error(), "language_project") ||
               strstr(sca_last_error(), "task_tokens"),
           "names no tensor: %s", sca_last_error());
    printf("%s\n", sca_last_error());
    sca_config_close(c);
}

/* ---- failures ------------------------------------------------------------------------------------------------- */

/* Every file operation fails once: then there is no checkpoint, nor half of one, and a message. (That a folder cannot be
 * made is forgiven where it is there.) */
static void failed_saves_leave_nothing(void)
{
    sca_model *m = NULL;
    sca_trainer *t = NULL;
    sca_config *c = tiny("faults");
    int failed = 0;
    CHECK_OK(sca_model_open(c, &m));
    CHECK_OK(sca_trainer_open(m, c, &t));
    for (int64_t n = 1; t; n++) {
        fault_io(n);
        sca_status status = sca_trainer_save(t, HERE "/faults/saved");
        bool fired = fault_fired();
        fault_io(0);
        if (!fired) break;
        failed += status != SCA_OK;
        CHECKF(status == SCA_OK || sca_last_error()[0], "fault %lld has no message", (long long)n);
        /* The very last operation, after the rename, makes it last: the folder may be there. */
        CHECKF(!there("faults/.saved.tmp") && (!there("faults/saved") || there("faults/saved/trainer.json")),
               "fault %lld leaves half a checkpoint", (long long)n);
        CHECK_OK(dir_remove(HERE "/faults/saved"));
    }
    CHECKF(failed > 30, "%d", failed);
    CHECK(there("faults/saved/trainer.json"));
    sca_trainer_close(t);
    sca_model_close(m);
    sca_config_close(c);
}

int main(int argc, char **argv)
{
    if (dir_make(HERE) != SCA_OK) return 1;
    RUN(official_trajectories);
    RUN(resume_is_exact);
    RUN(workers_do_not_matter);
    RUN(half_written_is_cleaned);
    RUN(kept_by_count);
    RUN(wrong_resumes);
    RUN(one_batch_is_learned);
    RUN(masks_and_texts_are_evaluated);
    RUN(loss_that_is_not_finite);
    RUN(failed_saves_leave_nothing);
    return check_done();
}
