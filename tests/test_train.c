/* test_train.c - training: schedule, groups, loss scale, logs, event files. */
#include "check.h"
#include "faults.h"

#include "train/parts.h"

#include <dirent.h>
#include <math.h>

#define HERE SCA_BUILD "/train-test"

static config *settings(void)
{
    config *c = NULL;
    CHECK_OK(config_open(NULL, &c));
    return c;
}

static void set(config *c, const char *assignment) { CHECK_OK(config_set(c, assignment)); }

/* ---- schedule --------------------------------------------------------------------------------------------- */

static void schedules(void)
{
    config *c = settings();
    set(c, "train.steps=1000");
    CHECK(c->train_warmup_steps == 200);
    CHECK(schedule_share(c, 0) == 0);
    CHECK(schedule_share(c, 50) == 0.25);
    CHECK(schedule_share(c, 200) == 1);
    CHECKF(fabs(schedule_share(c, 600) - 0.5) < 1e-15, "%g", schedule_share(c, 600));
    CHECKF(schedule_share(c, 1000) == 0, "%g", schedule_share(c, 1000));
    set(c, "train.schedule=linear");
    CHECK(schedule_share(c, 100) == 0.5 && schedule_share(c, 400) == 0.75 && schedule_share(c, 2000) == 0);
    set(c, "train.schedule=constant");
    CHECK(schedule_share(c, 100) == 0.5 && schedule_share(c, 999) == 1);
    set(c, "train.steps=10"); /* fewer than the warm-up */
    set(c, "train.schedule=cosine");
    CHECK(schedule_share(c, 9) == 9.0 / 200);
    set(c, "train.warmup_steps=0");
    CHECK(schedule_share(c, 0) == 1);
    set(c, "train.warmup_steps=10"); /* the warm-up ends with the run */
    CHECK(schedule_share(c, 10) == 1);
    config_close(c);
}

/* The rates of the official runs, step for step. */
static void golden_rates(void)
{
    static const char *const files[] = { "gpt2-tiny/adamw_1rank", "llama-tiny/adamw_2rank", "gpt2-tiny/adamw_lm" };
    if (!dir_exists(SCA_SHARED "/golden")) {
        check_skip("shared: golden vectors are absent");
        return;
    }
    for (size_t f = 0; f < LENGTH(files); f++) {
        char path[512], text[64];
        json_t *root = NULL, *step;
        size_t i;
        config *c = settings();
        snprintf(path, sizeof path, "%s/golden/train/%s.json", SCA_SHARED, files[f]);
        CHECK_OK(json_open(path, &root));
        const json_t *s = json_object_get(root, "settings");
        snprintf(text, sizeof text, "train.steps=%lld", json_integer_value(json_object_get(s, "steps")));
        set(c, text);
        snprintf(text, sizeof text, "train.warmup_steps=%lld", json_integer_value(json_object_get(s, "warmup")));
        set(c, text);
        CHECK(json_array_size(json_object_get(root, "steps")) == (size_t)c->train_steps);
        json_array_foreach(json_object_get(root, "steps"), i, step)
        {
            double lr = json_number_value(json_object_get(step, "lr")), ours = 1e-3 * schedule_share(c, (int64_t)i);
            CHECKF(fabs(ours - lr) <= 1e-15, "%s step %zu: %.17g, expected %.17g", files[f], i, ours, lr);
        }
        json_decref(root);
        config_close(c);
    }
}

/* ---- groups ------------------------------------------------------------------------------------------------ */

static void parameter_groups(void)
{
    const training_entry entries[] = { { "a.weight", 0, 5, true, -1 },
                                       { "b.weight", 16, 4, true, -1 },
                                       { "a.bias", 32, 3, false, -1 },
                                       { "lm.weight", 48, 2, true, 0 },
                                       { "lm.bias", 64, 1, false, 0 } };
    config *c = settings();
    group *g;
    size_t n;
    set(c, "train.lr=0.5");
    set(c, "train.weight_decay=0.25");
    set(c, "train.lr_overrides={lm: 0.125}");
    CHECK_OK(groups_make(c, entries, LENGTH(entries), &g, &n));
    CHECKF(n == 4, "%zu groups", n);
    if (n == 4) {
        CHECK(g[0].first == 0 && g[0].count == 20 && g[0].peak == 0.5 && g[0].decay == 0.25);
        CHECK(g[1].first == 32 && g[1].count == 3 && g[1].peak == 0.5 && g[1].decay == 0);
        CHECK(g[2].first == 48 && g[2].count == 2 && g[2].peak == 0.125 && g[2].decay == 0.25);
        CHECK(g[3].first == 64 && g[3].count == 1 && g[3].peak == 0.125 && g[3].decay == 0);
    }
    mem_free(g);
    set(c, "train.lr_overrides={lm: 0.125, vision: 0.1}");
    CHECK_FAILS(groups_make(c, entries, LENGTH(entries), &g, &n), SCA_ERR_ARGUMENT, "'vision'");
    set(c, "train.lr_overrides={}");
    fault_alloc(1);
    CHECK_FAILS(groups_make(c, entries, 3, &g, &n), SCA_ERR_MEMORY, "groups");
    fault_alloc(0);
    config_close(c);
}

static void clipping(void)
{
    CHECK(clip_share(0.5, 1) == 1);
    CHECK(clip_share(4, 1) == 1 / (4 + 1e-6));
    CHECK(clip_share(4, 2) == 1 / ((4 + 1e-6) / 2));
    CHECK(clip_share(1e9, 0) == 1);
}

/* ---- f16's loss scale --------------------------------------------------------------------------------------- */

static void loss_scale(void)
{
    scaler off = { 0 }, s = scaler_start();
    scaler_step(&off, true);
    CHECK(scaler_scale(&off) == 1 && scaler_scale(&s) == 65536);
    for (int i = 0; i < 999; i++) scaler_step(&s, false);
    CHECK(s.scale == 65536);
    scaler_step(&s, false);
    CHECK(s.scale == 131072); /* after 1000 without overflow */
    scaler_step(&s, true);
    CHECK(s.scale == 131072); /* the first one is spared */
    scaler_step(&s, true);
    CHECK(s.scale == 65536);
    scaler_step(&s, true);
    CHECK(s.scale == 32768); /* spared again only after the scale has grown */
    for (int i = 0; i < 1000; i++) scaler_step(&s, false);
    CHECK(s.scale == 65536);
    scaler_step(&s, true);
    CHECK(s.scale == 65536);
    for (int i = 0; i < 40; i++) scaler_step(&s, true);
    CHECK(s.scale == 1); /* never below */
}

/* ---- logs --------------------------------------------------------------------------------------------------- */

static bool file_is(const char *path, const char *expected)
{
    char *text = NULL;
    size_t bytes = 0;
    if (file_read(path, 1 << 20, &text, &bytes) != SCA_OK) return false;
    bool same = CHECKF(strcmp(text, expected) == 0, "%s holds '%s', expected '%s'", path, text, expected);
    mem_free(text);
    return same;
}

static void journals_go_back(void)
{
    file_log *f;
    int64_t last;
    CHECK_OK(dir_make(HERE));
    CHECK_OK(file_remove(HERE "/log.jsonl"));
    CHECK_OK(journal_open(HERE, "log.jsonl", 0, &last, &f));
    CHECK(last == -1);
    for (int i = 1; i <= 3; i++) CHECK_OK(journal_put(f, json_pack("{s:i, s:f}", "step", i * 10, "loss", 0.5)));
    file_log_close(f);
    CHECK_OK(journal_open(HERE, "log.jsonl", 25, &last, &f));
    CHECK(last == 20);
    CHECK_OK(file_log_put(f, "{\"step\": 21, \"lo", 16)); /* killed here */
    file_log_close(f);
    CHECK_OK(journal_open(HERE, "log.jsonl", 100, &last, &f));
    CHECK(last == 20);
    file_log_close(f);
    file_is(HERE "/log.jsonl", "{\"step\":10,\"loss\":0.5}\n{\"step\":20,\"loss\":0.5}\n");
    CHECK_OK(journal_open(HERE, "log.jsonl", 0, &last, &f));
    CHECK(last == -1);
    file_log_close(f);
    file_is(HERE "/log.jsonl", "");
}

static sca_status journal_work(void *user)
{
    file_log *f = NULL;
    int64_t last;
    (void)user;
    TRY(journal_open(HERE, "faults.jsonl", 5, &last, &f));
    sca_status status = journal_put(f, json_pack("{s:i}", "step", 9));
    file_log_close(f);
    return status;
}

static void journal_faults(void)
{
    CHECK_OK(dir_make(HERE));
    CHECK_OK(file_remove(HERE "/faults.jsonl"));
    CHECK(check_faults(fault_io, journal_work, NULL, "a journal") >= 2);
    CHECK(check_faults(fault_alloc, journal_work, NULL, "a journal") >= 3);
}

static uint64_t little(const char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)(uint8_t)p[i] << (8 * i);
    return v;
}

static uint32_t masked(const char *data, size_t bytes)
{
    uint32_t crc = crc32c(data, bytes);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

/* The one event file in DIR/events. */
static char *read_events(size_t *bytes)
{
    char path[1024] = "", *data = NULL;
    DIR *d = opendir(HERE "/events");
    for (struct dirent *e; d && (e = readdir(d));)
        if (strstr(e->d_name, "tfevents")) snprintf(path, sizeof path, "%s/events/%s", HERE, e->d_name);
    if (d) closedir(d);
    CHECK_OK(file_read(path, 1 << 20, &data, bytes));
    return data;
}

/* Records as TensorBoard reads them: two heads, then the scalars. */
static void event_files(void)
{
    events *e;
    size_t bytes = 0;
    CHECK(crc32c("123456789", 9) == 0xE3069283u); /* RFC 3720's check value */
    CHECK_OK(dir_remove(HERE "/events"));
    CHECK_OK(dir_make(HERE "/events"));
    CHECK_OK(events_open(HERE "/events", 6, &e));
    CHECK_OK(events_put(e, 300, "train/loss", 2.5));
    CHECK_OK(events_sync(e));
    events_close(e);
    char *data = read_events(&bytes);
    size_t at = 0, records = 0;
    static const char version[] = "\x1a\x0d"
                                  "brain.Event:2",
                      start[] = "\x10\x07\x3a\x02\x08\x01";
    static const char scalar[] = "\x10\xac\x02\x2a\x13\x0a\x11\x0a\x0a"
                                 "train/loss"
                                 "\x15\x00\x00\x20\x40";
    const struct {
        const char *data;
        size_t bytes;
    } expected[] = { { version, 15 }, { start, 6 }, { scalar, sizeof scalar - 1 } };
    while (data && at + 16 <= bytes) {
        size_t n = little(data + at, 8);
        CHECK(little(data + at + 8, 4) == masked(data + at, 8));
        if (!CHECK(at + 16 + n <= bytes)) break;
        const char *body = data + at + 12;
        CHECK(little(body + n, 4) == masked(body, n));
        CHECK(n > 9 && body[0] == 9); /* the time, a double */
        size_t tail = records < LENGTH(expected) ? expected[records].bytes : 0;
        CHECKF(tail && n >= 9 + tail && memcmp(body + n - tail, expected[records].data, tail) == 0, "record %zu",
               records);
        records++;
        at += 16 + n;
    }
    CHECKF(records == 3 && at == bytes, "%zu records, %zu of %zu bytes", records, at, bytes);
    mem_free(data);
}

/* ---- shipped configurations --------------------------------------------------------------------------------- */

typedef struct shipped {
    char (*names)[128];
    int n;
} shipped;

static sca_status add_name(void *user, const char *name)
{
    shipped *s = user;
    if (text_ends(name, ".yaml") && s->n < 500) snprintf(s->names[s->n++], 128, "%s", name);
    return SCA_OK;
}

static int by_text(const void *a, const void *b) { return strcmp(a, b); }

/* Where a second stage begins: the first one has a file, and saves that step. */
static void check_start(const char *name, const config *c)
{
    char run[256], path[512];
    long long step = 0;
    config *first = NULL;
    if (sscanf(c->model_path, "runs/%200[^/]/checkpoint-%lld", run, &step) != 2) {
        CHECKF(strcmp(name, "tiny.yaml") == 0, "%s begins with %s", name, c->model_path);
        return;
    }
    snprintf(path, sizeof path, "%s/configs/%s.yaml", SCA_SOURCE, run);
    CHECK_OK(config_open(path, &first));
    if (first)
        CHECKF(step <= first->train_steps && step % first->train_save_every == 0, "%s: %s", name, c->model_path);
    if (first)
        CHECKF(step > first->train_steps - first->train_keep * first->train_save_every, "%s: not kept", name);
    config_close(first);
}

/* The comment tells what a file reproduces: numbers that the table of the same run has too are checked where it says so.
 */
static void check_file(const char *name, const char *path)
{
    char *text = NULL, output[300];
    size_t bytes;
    config *c = NULL;
    CHECK_OK(config_open(path, &c));
    CHECK_OK(file_read(path, 1 << 16, &text, &bytes));
    if (!c || !text) return;
    CHECKF(text[0] == '#' && strstr(text, "\n# "), "%s: begins with no comment", name);
    if (!text_starts(name, "eval_")) {
        snprintf(output, sizeof output, "runs/%.*s", (int)(strlen(name) - strlen(".yaml")), name);
        CHECKF(strcmp(c->train_output, output) == 0, "%s: train.output is %s", name, c->train_output);
        CHECKF(c->n_data_train > 0 && c->n_data_eval > 0, "%s: no data", name);
        CHECKF((*c->model_sam && *c->model_lm) != (*c->model_path != 0), "%s: no model", name);
        CHECKF(strstr(text, "CIDEr-D 1") || strstr(text, "No published number") || strstr(text, "CIDEr-D 45.2") ||
                   strstr(text, "CIDEr-D 82.5") || strstr(text, "No number of its own") ||
                   strstr(text, "has the number") || strcmp(name, "tiny.yaml") == 0,
               "%s: says nothing of a number", name);
        if (*c->model_path) check_start(name, c);
    }
    mem_free(text);
    config_close(c);
}

static void shipped_configurations(void)
{
    shipped s = { .names = mem_zero(500, 128) };
    CHECK_OK(dir_each(SCA_SOURCE "/configs", add_name, &s));
    qsort(s.names, (size_t)s.n, 128, by_text);
    CHECKF(s.n == 94, "%d configurations", s.n);
    for (int i = 0; i < s.n; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/configs/%s", SCA_SOURCE, s.names[i]);
        check_file(s.names[i], path);
    }
    mem_free(s.names);
}

/* What the tables say of a few of them, in numbers. */
static void published_settings(void)
{
    static const struct {
        const char *name;
        int64_t steps, batch;
        double lr;
        bool jitter, gpt2;
    } expected[] = { { "finetune_vg_gpt2_large", 200000, 32, 4e-4, true, true },
                     { "finetune_vg_llama_3b", 200000, 32, 4e-4, true, false },
                     { "pretrain_gpt2_large", 100000, 32, 1e-4, false, true },
                     { "finetune_vg_gpt2_large_pretrained", 100000, 32, 4e-4, true, false },
                     { "pretrain_o365_gpt2_large_1e-4_b64_single", 200000, 64, 1e-4, false, true },
                     { "finetune_vg_gpt2_large_o365_lsj_4e-4_b40", 100000, 40, 4e-4, true, false },
                     { "ablation_depth_24", 200000, 8, 1e-4, false, true },
                     { "ablation_batch_llama_3b_8e-4_b64", 200000, 64, 8e-4, true, false },
                     { "ablation_lm_lr_gpt2_large_frozen_mixer_5e-5", 200000, 8, 5e-5, false, true },
                     { "ablation_weak_none", 100000, 8, 1e-4, false, true } };
    for (size_t i = 0; i < LENGTH(expected); i++) {
        char path[512];
        config *c = NULL;
        snprintf(path, sizeof path, "%s/configs/%s.yaml", SCA_SOURCE, expected[i].name);
        CHECK_OK(config_open(path, &c));
        if (!c) continue;
        CHECKF(c->train_steps == expected[i].steps &&
                   c->train_batch_images * c->train_accumulate == expected[i].batch &&
                   c->train_lr == expected[i].lr && (strcmp(c->data_augment, "lsj") == 0) == expected[i].jitter &&
                   (strcmp(c->model_lm, "models/gpt2-large") == 0) == expected[i].gpt2 &&
                   c->train_warmup_steps == 200 && strcmp(c->train_precision, "f16") == 0 &&
                   c->data_regions_per_image == 16 && c->train_label_smoothing == 0.1,
               "%s differs from the table", expected[i].name);
        config_close(c);
    }
}

/* ---- a step without a finite loss --------------------------------------------------------------------------- */

static sca_status open_tiny(config **c, model **m, comm **ranks, trainer **t)
{
    static const char *const settings[] = {
        "model.path=" SCA_SOURCE "/docs/demo/model",
        "data.train.0.annotations=count=6 size=64 shapes=3",
        "data.regions_per_image=2",
        "train.steps=4",
        "train.batch_images=1",
        "train.eval_every=0",
        "train.log_every=1",
        "train.output=" SCA_BUILD "/train-skip",
    };
    TRY(dir_remove(SCA_BUILD "/train-skip"));
    TRY(config_open(SCA_SOURCE "/configs/tiny.yaml", c));
    for (size_t i = 0; i < LENGTH(settings); i++) TRY(config_set(*c, settings[i]));
    TRY(model_open(*c, m));
    TRY(comm_open(false, ranks));
    return trainer_open(*m, *c, *ranks, t);
}

static void bad_step_is_skipped_and_counted(void)
{
    config *c = NULL;
    model *m = NULL;
    comm *ranks = NULL;
    trainer *t = NULL;
    trainer_step s;
    char *log = NULL;
    size_t bytes = 0;
    CHECK_OK(open_tiny(&c, &m, &ranks, &t));
    if (t) {
        float *values = t->values.data, was;
        size_t size = tensor_bytes(t->values);
        void *before = mem_alloc(size);
        CHECK(before && t->values.type == DT_F32);
        CHECK_OK(trainer_next(t, &s));
        CHECK(!s.skipped);
        was = values[0];
        values[0] = NAN;
        memcpy(before, values, size);
        CHECK_OK(trainer_next(t, &s));
        CHECK(s.skipped && memcmp(before, values, size) == 0);
        values[0] = was;
        CHECK_OK(trainer_next(t, &s));
        CHECK(!s.skipped && trainer_done(t) == 3 && trainer_skipped(t) == 1 && memcmp(before, values, size) != 0);
        mem_free(before);
    }
    trainer_close(t);
    model_close(m);
    comm_close(ranks, false);
    config_close(c);
    CHECK_OK(file_read(SCA_BUILD "/train-skip/log.jsonl", 1 << 16, &log, &bytes));
    const char *second = log ? strchr(log, '\n') : NULL, *third = second ? strchr(second + 1, '\n') : NULL;
    const char *null = second ? strstr(second, "\"loss\":null") : NULL;
    CHECKF(third && null && null < third && !strstr(third, "null") && strstr(log, "\"loss\":null") == null, "%s",
           log ? log : "");
    mem_free(log);
}

int main(int argc, char **argv)
{
    RUN(bad_step_is_skipped_and_counted);
    RUN(schedules);
    RUN(golden_rates);
    RUN(parameter_groups);
    RUN(clipping);
    RUN(loss_scale);
    RUN(journals_go_back);
    RUN(journal_faults);
    RUN(event_files);
    RUN(shipped_configurations);
    RUN(published_settings);
    return check_done();
}
