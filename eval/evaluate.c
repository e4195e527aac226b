/* evaluate.c - runs a model over data sets, whole images shared out among the ranks, and goes on where a killed run
 * stopped. */
#include "eval/evaluate_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static const double SYNC_EVERY_S = 2;
static const double PATIENCE_S = 1800; /* some regions of a large model on a slow machine */

/* ---- what decides the results -------------------------------------------------------------- */

static uint64_t hash(uint64_t h, const void *data, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) h = (h ^ ((const uint8_t *)data)[i]) * 0x100000001B3u;
    return h;
}

typedef struct stamp {
    const char *dir;
    uint64_t sum; /* of the files in any order */
} stamp;

static sca_status stamp_file(stamp *s, const char *name, const char *path)
{
    struct stat info;
    if (stat(path, &info) < 0 || !S_ISREG(info.st_mode)) return SCA_OK;
    char facts[96];
    int n = snprintf(facts, sizeof facts, "%lld %lld.%09ld", (long long)info.st_size,
                     (long long)info.st_mtim.tv_sec, (long)info.st_mtim.tv_nsec);
    s->sum += hash(hash(0xCBF29CE484222325u, name, strlen(name)), facts, (size_t)n);
    return SCA_OK;
}

static sca_status stamp_one(void *user, const char *name)
{
    stamp *s = user;
    char *path = path_join(s->dir, name);
    if (!path) return mem_fail(strlen(name), "a file name");
    sca_status status = stamp_file(s, name, path);
    mem_free(path);
    return status;
}

/* Names, sizes and times of a file, or of the files of a folder; the path with its links followed. */
static sca_status put_stamp(str *key, const char *name, const char *path)
{
    stamp s = { .dir = path };
    if (!path[0]) return SCA_OK;
    TRY(dir_exists(path) ? dir_each(path, stamp_one, &s) : stamp_file(&s, path_name(path), path));
    char *real = realpath(path, NULL);
    str_printf(key, ", \"%s\": ", name);
    json_put_text(key, real ? real : path, strlen(real ? real : path));
    str_printf(key, ", \"%s stamp\": \"%016llx\"", name, (unsigned long long)s.sum);
    free(real);
    return SCA_OK;
}

static sca_status put_settings(const config *c, str *key)
{
    static const char *const settings[] = { "run.device",
                                            "run.variants",
                                            "run.precision",
                                            "run.exif",
                                            "model.variant",
                                            "model.mixer_layers",
                                            "model.caption_tokens",
                                            "model.caption_heads",
                                            "model.task_tokens",
                                            "model.projector",
                                            "model.projector_norm",
                                            "model.official_fp16",
                                            "train.seed",
                                            "train.label_smoothing",
                                            "eval.prompt",
                                            "eval.loss",
                                            "generate.beams",
                                            "generate.max_tokens",
                                            "generate.length_penalty",
                                            "generate.temperature",
                                            "generate.top_k",
                                            "generate.top_p",
                                            "generate.seed" };
    for (size_t i = 0; i < LENGTH(settings); i++) {
        str value = { 0 };
        sca_status status = config_get(c, settings[i], &value);
        if (status == SCA_OK) {
            str_printf(key, ", \"%s\": ", settings[i]);
            json_put_text(key, str_text(&value), value.bytes);
        }
        str_free(&value);
        TRY(status);
    }
    return SCA_OK;
}

static sca_status make_key(eval_set *e)
{
    const config *c = e->c;
    const config_dataset *d = e->set;
    str key = { 0 };
    sca_status status;
    str_put(&key, "{\"evaluation\": 1, \"kind\": ");
    json_put_text(&key, d->kind, strlen(d->kind));
    str_put(&key, ", \"split\": ");
    json_put_text(&key, d->split, strlen(d->split));
    str_put(&key, ", \"task\": ");
    json_put_text(&key, d->task, strlen(d->task));
    str_put(&key, ", \"images\": ");
    json_put_text(&key, d->images, strlen(d->images));
    TRY_GOTO(done, put_stamp(&key, "annotations", d->annotations));
    TRY_GOTO(done, put_stamp(&key, "model", c->model_path));
    TRY_GOTO(done, put_stamp(&key, "sam", c->model_sam));
    TRY_GOTO(done, put_stamp(&key, "lm", c->model_lm));
    TRY_GOTO(done, put_stamp(&key, "config", c->model_config));
    TRY_GOTO(done, put_stamp(&key, "tokenizer", c->model_tokenizer));
    TRY_GOTO(done, put_settings(c, &key));
    str_put(&key, "}");
    status = str_take(&key, &e->key);
done:
    str_free(&key);
    return status;
}

/* ---- the sets ------------------------------------------------------------------------------ */

static sca_status check_settings(const model *m, const config *c)
{
    if (!c->eval_output[0])
        return status_fail(SCA_ERR_ARGUMENT, "eval.output is not set; name the folder for the results");
    if (c->n_data_eval == 0) return status_fail(SCA_ERR_ARGUMENT, "data.eval names no data set; give at least one");
    const model_config *sizes = model_sizes(m);
    bool own_heads = sizes->variant == VARIANT_MULTITASK_V2 || sizes->variant == VARIANT_SPLIT_MIXER;
    if (own_heads && sizes->caption_heads != 1 && sizes->caption_heads != sizes->sam.masks - 1)
        return status_fail(
            SCA_ERR_UNSUPPORTED,
            "this model gives %d captions of a region, expected one, or one for each of its %d masks: "
            "which of the captions is to be scored is not known",
            sizes->caption_heads, sizes->sam.masks - 1);
    if (c->eval_loss && !model_tokenizer(m))
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "eval.loss needs a model with a tokenizer, this one has none; turn eval.loss off");
    return SCA_OK;
}

static void set_close(eval_set *e)
{
    dataset_close(e->data);
    mem_free(e->dir);
    mem_free(e->key);
    *e = (eval_set){ 0 };
}

static sca_status check_set(const eval_set *sets, size_t i)
{
    const char *name = sets[i].name;
    if (!path_is_plain(name) || strcmp(name, "scores.json") == 0 || strcmp(name, "report.html") == 0)
        return status_fail(SCA_ERR_ARGUMENT, "data.eval.%zu.name is '%s', expected a plain name for a folder", i,
                           name);
    for (size_t k = 0; k < i; k++)
        if (strcmp(name, sets[k].name) == 0)
            return status_fail(
                SCA_ERR_ARGUMENT,
                "data.eval.%zu and data.eval.%zu are both called '%s'; give one of them another name", k, i, name);
    return SCA_OK;
}

/* Images that are not there shall be known now, not after hours. */
static sca_status check_images(const eval_set *e)
{
    size_t missing = 0;
    str first = { 0 };
    sca_status status = SCA_OK;
    for (size_t i = 0; i < e->images && status == SCA_OK; i++) {
        data_sample in = { 0 };
        int width, height;
        if (dataset_size(e->data, (int64_t)i, &width, &height)) continue; /* no file is needed */
        status = dataset_read(e->data, (int64_t)i, &in);
        if (status == SCA_OK && !file_exists(in.path) && missing++ == 0) str_put(&first, in.path);
        sample_free(&in);
    }
    if (status == SCA_OK && missing)
        status = status_fail(SCA_ERR_IO,
                             "%s: missing; so are %zu of %zu images of '%s' in all; every image is needed, see "
                             "data.eval images",
                             str_text(&first), missing, e->images, e->name);
    str_free(&first);
    return status;
}

static sca_status set_open(eval_set *e)
{
    TRY(dataset_open_masks(e->set, &e->data));
    TRY(dataset_check_masks(e->data));
    e->name = dataset_name(e->data);
    e->dir = path_join(e->c->eval_output, e->name);
    if (!e->dir) return mem_fail(strlen(e->name), "a file name");
    size_t all = (size_t)dataset_count(e->data), most = (size_t)e->c->eval_max_images;
    e->images = most && most < all ? most : all;
    return make_key(e);
}

static sca_status sets_open(eval_set *sets, model *m, const config *c, comm *ranks)
{
    for (size_t i = 0; i < c->n_data_eval; i++) {
        sets[i] = (eval_set){ .c = c, .set = &c->data_eval[i], .m = m, .ranks = ranks };
        sca_status status = set_open(&sets[i]);
        if (status == SCA_OK) status = check_set(sets, i);
        if (status == SCA_OK && ranks->rank == 0) status = check_images(&sets[i]);
        if (status == SCA_OK) status = dir_make(sets[i].dir);
        TRY(status);
    }
    return SCA_OK;
}

/* ---- the work of one rank ------------------------------------------------------------------ */

typedef struct progress_state {
    eval_set *e;
    file_log *log;
    double synced;
    size_t done, todo; /* images: of this rank, of all */
} progress_state;

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void show(const eval_set *e, int64_t done, int64_t total)
{
    char what[320];
    snprintf(what, sizeof what, "evaluate %s", e->name);
    if (e->ranks->rank == 0) progress(what, done, total);
}

static void tell(const progress_state *s)
{
    comm_alive(s->e->ranks, (int64_t)s->done);
    int64_t done = comm_done(s->e->ranks), todo = (int64_t)s->todo;
    show(s->e, done < todo ? done : todo, todo);
}

static sca_status keep_chunk(void *user, const str *lines)
{
    progress_state *s = user;
    TRY(file_log_put(s->log, str_text(lines), lines->bytes));
    if (now_s() - s->synced > SYNC_EVERY_S) {
        TRY(file_log_sync(s->log));
        s->synced = now_s();
    }
    tell(s);
    return comm_stopped(s->e->ranks);
}

/* Of the images that are not done, every size-th is ours. */
static sca_status work_share(eval_set *e, const eval_parts *p)
{
    progress_state s = { .e = e, .synced = now_s() };
    sca_status status = SCA_OK;
    size_t turn = 0, size = (size_t)e->ranks->size, rank = (size_t)e->ranks->rank;
    for (size_t i = 0; i < e->images; i++) s.todo += !eval_parts_complete(p, i);
    if (s.todo == 0) return SCA_OK;
    TRY(eval_parts_open(e, p, &s.log));
    tell(&s);
    for (size_t i = 0; i < e->images && status == SCA_OK; i++) {
        if (eval_parts_complete(p, i) || turn++ % size != rank) continue;
        status = eval_image(e, i, eval_parts_done(p, i), keep_chunk, &s);
        s.done++;
        if (status == SCA_OK) tell(&s);
    }
    if (status == SCA_OK) status = file_log_sync(s.log);
    file_log_close(s.log);
    return status;
}

static bool noted(const json_t *entries, const json_t *note)
{
    for (size_t i = 0; i < json_array_size(entries); i++) {
        const json_t *notes = json_object_get(json_array_get(entries, i), "notes");
        for (size_t k = 0; k < json_array_size(notes); k++)
            if (json_equal(json_array_get(notes, k), note)) return true;
    }
    return false;
}

/* What is missing from the scores is said once, not for every set and every evaluation. */
static void tell_notes(const json_t *told, const json_t *entries, const json_t *entry)
{
    size_t i;
    json_t *note;
    json_array_foreach(json_object_get(entry, "notes"), i, note)
    {
        if (!noted(told, note) && !noted(entries, note)) log_warn("%s", json_string_value(note));
    }
}

/* One set: open, look what is there, work, join. Every rank comes to the same meetings, also when it failed. */
static sca_status run_set(eval_set *e, const json_t *told, json_t *entries)
{
    eval_parts p = { 0 };
    json_t *entry = NULL;
    sca_status status;
    e->ranks->patience_s = PATIENCE_S;
    TRY_GOTO(done, comm_agree(e->ranks, eval_parts_read(e, &p))); /* nobody writes before all have read */
    TRY_GOTO(done, comm_agree(e->ranks, work_share(e, &p)));
    show(e, 1, 1);
    eval_parts_free(&p);
    /* Scoring says nothing while it runs, and foreign commands may take hours; that rank 0 dies is seen by mpirun. */
    e->ranks->patience_s = e->ranks->rank == 0 ? PATIENCE_S : INFINITY;
    if (e->ranks->rank == 0) {
        status = eval_parts_read(e, &p);
        if (status == SCA_OK) status = eval_join(e, &p, &entry);
        if (status == SCA_OK) tell_notes(told, entries, entry);
        if (status == SCA_OK && json_array_append_new(entries, entry) < 0) status = mem_fail(64, "scores");
    }
    status = comm_agree(e->ranks, status);
done:
    eval_parts_free(&p);
    comm_alive(e->ranks, 0);
    return status;
}

/* ---- everything ---------------------------------------------------------------------------- */

static sca_status scores_head(const model *m, const config *c, json_t **out, json_t **entries)
{
    json_t *root = json_object(), *list = json_array();
    json_t *generate = json_pack("{s:I, s:I, s:f, s:f}", "beams", (json_int_t)c->generate_beams, "max_tokens",
                                 (json_int_t)c->generate_max_tokens, "length_penalty", c->generate_length_penalty,
                                 "temperature", c->generate_temperature);
    *out = root;
    *entries = list;
    if (!root || !list || !generate) {
        json_decref(list);
        json_decref(generate);
        return mem_fail(64, "scores");
    }
    json_object_set_new(root, "model", json_string(c->model_path[0] ? c->model_path : "assembled from parts"));
    json_object_set_new(root, "variant", json_string(variant_name(model_sizes(m)->variant)));
    json_object_set_new(root, "language_model",
                        json_string(model_sizes(m)->lm.family == LM_GPT2 ? "gpt2" : "llama"));
    json_object_set_new(root, "prompt", json_string(c->eval_prompt));
    json_object_set_new(root, "generate", generate);
    return json_object_set_new(root, "sets", list) == 0 ? SCA_OK : mem_fail(64, "scores");
}

/* At rank 0, when all sets are done: scores.json; then the part files have served. */
static sca_status finish(const eval_set *sets, const config *c, const json_t *root, str *scores)
{
    char *path = path_join(c->eval_output, "scores.json");
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    sca_status status = path && text ? json_save(path, root) : mem_fail(4096, "scores");
    if (status == SCA_OK) str_put(scores, text);
    for (size_t i = 0; i < c->n_data_eval && status == SCA_OK; i++) status = eval_parts_remove(sets[i].dir);
    mem_free(text);
    mem_free(path);
    return status;
}

static sca_status run_sets(eval_set *sets, model *m, const config *c, comm *ranks, const json_t *told, str *scores)
{
    json_t *root = NULL, *entries = NULL;
    sca_status status = sets_open(sets, m, c, ranks);
    if (status == SCA_OK) status = scores_head(m, c, &root, &entries);
    status = comm_agree(ranks, status);
    for (size_t i = 0; i < c->n_data_eval && status == SCA_OK; i++) status = run_set(&sets[i], told, entries);
    if (status == SCA_OK) {
        if (ranks->rank == 0) status = finish(sets, c, root, scores);
        status = comm_agree(ranks, status);
    }
    json_decref(root);
    return status;
}

sca_status evaluate_run(model *m, const config *c, comm *ranks, const json_t *told, str *scores)
{
    TRY(check_settings(m, c));
    eval_set *sets = mem_zero(c->n_data_eval, sizeof *sets);
    if (!sets) return mem_fail(c->n_data_eval * sizeof *sets, "data sets");
    generate_options before = *model_generation(m);
    double patience = ranks->patience_s;
    model_generation_from(c, model_generation(m));
    sca_status status = run_sets(sets, m, c, ranks, told, scores);
    *model_generation(m) = before;
    ranks->patience_s = patience;
    for (size_t i = 0; i < c->n_data_eval; i++) set_close(&sets[i]);
    mem_free(sets);
    return status;
}
