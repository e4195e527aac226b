/* checkpoint.c - RUN/checkpoint-N: a model directory (official names) and beside it the state of the trainer.
 *
 * trainer.safetensors holds AdamW's moments, "moment1.NAME" and "moment2.NAME"; trainer.json, written last, the counters
 * and the sizes of the other files: a directory where these fit is complete. It is filled under a name that begins with
 * a dot, then renamed.
 */
#include "train/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "checkpoint-"

static const char *const sized_files[] = { "model.safetensors", "trainer.safetensors" };

char *checkpoint_path(const char *dir, int64_t step)
{
    char name[64];
    snprintf(name, sizeof name, PREFIX "%lld", (long long)step);
    return path_join(dir, name);
}

/* The N of "checkpoint-N", -1 for other names. */
static int64_t number_of(const char *name)
{
    int64_t n = -1;
    if (!text_starts(name, PREFIX) || !text_to_int(name + strlen(PREFIX), 0, INT64_MAX, &n)) return -1;
    return n;
}

/* ".NAME.tmp" beside path. */
static char *hidden_beside(const char *path)
{
    str s = { 0 };
    char *out = NULL;
    const char *name = path_name(path);
    str_put_bytes(&s, path, (size_t)(name - path));
    str_printf(&s, ".%s.tmp", name);
    (void)str_take(&s, &out);
    str_free(&s);
    return out;
}

/* Removes a checkpoint so that it is never half there. */
static sca_status discard(const char *path)
{
    char *hidden = hidden_beside(path);
    if (!hidden) return mem_fail(strlen(path), "a file name");
    sca_status status = dir_remove(hidden);
    if (status == SCA_OK) status = dir_rename(path, hidden);
    if (status == SCA_OK) status = dir_remove(hidden);
    mem_free(hidden);
    return status;
}

/* ---- which are there ------------------------------------------------------------------------------------ */

typedef struct numbers {
    int64_t *of;
    size_t n, cap;
} numbers;

static sca_status add_number(void *user, const char *name)
{
    numbers *list = user;
    int64_t number = number_of(name);
    if (number < 0) return SCA_OK;
    if (list->n == list->cap) {
        size_t cap = list->cap * 2 + 16;
        int64_t *more = mem_resize(list->of, cap * sizeof *more);
        if (!more) return mem_fail(cap * sizeof *more, "a list of checkpoints");
        list->of = more;
        list->cap = cap;
    }
    list->of[list->n++] = number;
    return SCA_OK;
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (y > x) - (y < x);
}

/* Newest first; list->of: mem_free, also after a failure. */
static sca_status list_checkpoints(const char *dir, numbers *list)
{
    if (!dir_exists(dir)) return SCA_OK;
    TRY(dir_each(dir, add_number, list));
    if (list->n) qsort(list->of, list->n, sizeof *list->of, descending);
    return SCA_OK;
}

static sca_status file_bytes(const char *dir, const char *name, int64_t *bytes)
{
    file_view v = { 0 };
    char *path = path_join(dir, name);
    if (!path) return mem_fail(strlen(dir), "a file name");
    sca_status status = file_map(path, &v);
    *bytes = (int64_t)v.bytes;
    file_unmap(&v);
    mem_free(path);
    return status;
}

/* trainer.json, when all that it tells of is there. */
static sca_status open_facts(const char *dir, json_t **facts)
{
    *facts = NULL;
    char *path = path_join(dir, "trainer.json");
    if (!path) return mem_fail(strlen(dir), "a file name");
    sca_status status = json_open(path, facts);
    for (size_t i = 0; i < LENGTH(sized_files) && status == SCA_OK; i++) {
        int64_t expected = 0, found = 0;
        status = json_need_int(json_object_get(*facts, "files"), sized_files[i], path, 0, INT64_MAX, &expected);
        if (status == SCA_OK) status = file_bytes(dir, sized_files[i], &found);
        if (status == SCA_OK && found != expected)
            status = status_fail(SCA_ERR_FORMAT, "%s/%s: has %lld bytes, expected %lld", dir, sized_files[i],
                                 (long long)found, (long long)expected);
    }
    mem_free(path);
    if (status == SCA_OK) return SCA_OK;
    json_decref(*facts);
    *facts = NULL;
    return status;
}

static sca_status find_newest(const char *dir, char **path)
{
    numbers list = { 0 };
    sca_status status = list_checkpoints(dir, &list);
    for (size_t i = 0; i < list.n && status == SCA_OK && !*path; i++) {
        json_t *facts = NULL;
        *path = checkpoint_path(dir, list.of[i]);
        if (!*path) {
            status = mem_fail(strlen(dir), "a file name");
        } else if (open_facts(*path, &facts) != SCA_OK) {
            log_warn("%s is not complete, the one before it is taken: %s", *path, status_message());
            mem_free(*path);
            *path = NULL;
        }
        json_decref(facts);
    }
    mem_free(list.of);
    return status;
}

sca_status checkpoint_find(const config *c, char **path)
{
    *path = NULL;
    if (strcmp(c->train_resume, "never") == 0) return SCA_OK;
    if (strcmp(c->train_resume, "auto") == 0) return *c->train_output ? find_newest(c->train_output, path) : SCA_OK;
    if (!dir_exists(c->train_resume))
        return status_fail(SCA_ERR_IO,
                           "train.resume: '%s' is no folder, expected auto, never or a checkpoint's folder",
                           c->train_resume);
    *path = text_copy(c->train_resume, strlen(c->train_resume));
    return *path ? SCA_OK : mem_fail(strlen(c->train_resume), "a file name");
}

/* ---- the trainer's ranges ---------------------------------------------------------------------------------- */

typedef struct range { /* one number per trained value, kept in trainer.safetensors */
    const char *name;
    tensor of;
} range;

/* The moments; and the values where model.safetensors, in float32, would round them. */
static size_t ranges_of(const trainer *t, range out[3])
{
    out[0] = (range){ "moment1", t->moment1 };
    out[1] = (range){ "moment2", t->moment2 };
    out[2] = (range){ "value", t->values };
    return t->values.type == DT_F64 ? 3 : 2;
}

static tensor part_of(tensor whole, const training_entry *e) { return tensor_slice(whole, 0, e->offset, e->count); }

static sca_status put_range(const trainer *t, tensor whole, void *room, safetensors_out *file)
{
    for (size_t i = 0; i < t->n; i++) {
        tensor part = part_of(whole, &t->entries[i]);
        TRY(dev_get(t->d, room, part, tensor_bytes(part)));
        TRY(safetensors_put(file, room, tensor_bytes(part)));
    }
    return SCA_OK;
}

/* Room for the largest parameter. */
static sca_status open_room(const trainer *t, void **room)
{
    int64_t most = 1;
    for (size_t i = 0; i < t->n; i++)
        if (t->entries[i].count > most) most = t->entries[i].count;
    size_t bytes = (size_t)most * dtype_bytes(t->values.type);
    *room = mem_alloc(bytes);
    return *room ? SCA_OK : mem_fail(bytes, "a parameter");
}

/* names: one text that all entries point into, because they must stay while the list does. */
static sca_status list_ranges(const trainer *t, const range *ranges, size_t n, weight_entry *list, str *names)
{
    for (int round = 0; round < 2; round++) {
        size_t at = 0;
        for (size_t r = 0; r < n; r++)
            for (size_t i = 0; i < t->n; i++) {
                size_t from = at;
                at += strlen(ranges[r].name) + strlen(t->entries[i].name) + 2;
                if (round == 0) {
                    str_printf(names, "%s.%s", ranges[r].name, t->entries[i].name);
                    str_putc(names, 0);
                } else {
                    list[r * t->n + i] = (weight_entry){ .name = names->data + from,
                                                         .type = ranges[r].of.type,
                                                         .ndim = 1,
                                                         .dim = { t->entries[i].count } };
                }
            }
        if (names->failed) return mem_fail(names->bytes, "the names of the moments");
    }
    return SCA_OK;
}

static sca_status write_ranges(const trainer *t, const char *path)
{
    range ranges[3];
    size_t n = ranges_of(t, ranges);
    str names = { 0 };
    void *room = NULL;
    safetensors_out *file = NULL;
    weight_entry *list = mem_zero(n * t->n, sizeof *list);
    sca_status status = list ? open_room(t, &room) : mem_fail(n * t->n * sizeof *list, "a list of tensors");
    if (status == SCA_OK) status = list_ranges(t, ranges, n, list, &names);
    if (status == SCA_OK) status = safetensors_create(path, list, n * t->n, &file);
    for (size_t r = 0; r < n && status == SCA_OK; r++) status = put_range(t, ranges[r].of, room, file);
    if (status == SCA_OK)
        status = safetensors_commit(file);
    else
        safetensors_abort(file);
    mem_free(room);
    mem_free(list);
    str_free(&names);
    return status;
}

static sca_status read_range(trainer *t, const weights *file, const char *path, const range *r, void *room)
{
    for (size_t i = 0; i < t->n; i++) {
        const training_entry *e = &t->entries[i];
        str name = { 0 };
        str_printf(&name, "%s.%s", r->name, e->name);
        const weight *w = weights_find(file, str_text(&name));
        sca_status status = SCA_OK;
        if (!w || w->count != e->count || !w->numeric)
            status =
                status_fail(SCA_ERR_FORMAT,
                            "%s: '%s' %s, expected %lld values; resume with the train.trainable it was made with",
                            path, str_text(&name), w ? "has another size" : "is missing", (long long)e->count);
        if (status == SCA_OK) status = weight_read(w, r->of.type, room);
        if (status == SCA_OK) dev_put(t->d, part_of(r->of, e), room, (size_t)e->count * dtype_bytes(r->of.type));
        str_free(&name);
        TRY(status);
    }
    return SCA_OK;
}

static sca_status read_ranges(trainer *t, const char *path)
{
    range ranges[3];
    size_t n = ranges_of(t, ranges);
    weights *file = NULL;
    void *room = NULL;
    TRY(weights_open(path, &file));
    sca_status status = open_room(t, &room);
    for (size_t r = 0; r < n && status == SCA_OK; r++) status = read_range(t, file, path, &ranges[r], room);
    if (status == SCA_OK && weights_count(file) != n * t->n)
        status = status_fail(SCA_ERR_FORMAT,
                             "%s: has %zu tensors, expected %zu; resume with the train.trainable it was made with",
                             path, weights_count(file), n * t->n);
    if (status == SCA_OK) status = dev_check(t->d);
    mem_free(room);
    weights_close(file);
    return status;
}

/* ---- facts: trainer.json ------------------------------------------------------------------------------------ */

static int64_t batches_per_step(const trainer *t) { return t->ranks->size * t->c->train_accumulate; }

static json_t *facts_of(const trainer *t)
{
    const run_state *at = &t->at;
    json_t *facts =
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "format", (json_int_t)1, "step", (json_int_t)at->step,
                  "updates", (json_int_t)at->updates, "position", (json_int_t)at->position, "batches_per_step",
                  (json_int_t)batches_per_step(t), "batch_images", (json_int_t)t->c->train_batch_images, "seed",
                  (json_int_t)t->c->train_seed);
    json_t *scale = json_pack("{s:f, s:I, s:I}", "scale", at->scale.scale, "clean", (json_int_t)at->scale.clean,
                              "spared", (json_int_t)at->scale.spared);
    if (!facts || !scale || json_object_set_new(facts, "loss_scale", scale) < 0) {
        json_decref(facts);
        return NULL;
    }
    return facts;
}

static sca_status write_facts(const trainer *t, const char *dir)
{
    json_t *facts = facts_of(t), *files = json_object();
    char *path = path_join(dir, "trainer.json");
    sca_status status = facts && files && path ? SCA_OK : mem_fail(1024, "a checkpoint");
    for (size_t i = 0; i < LENGTH(sized_files) && status == SCA_OK; i++) {
        int64_t bytes = 0;
        status = file_bytes(dir, sized_files[i], &bytes);
        if (status == SCA_OK && json_object_set_new(files, sized_files[i], json_integer(bytes)) < 0)
            status = mem_fail(64, "a checkpoint");
    }
    if (status == SCA_OK && json_object_set(facts, "files", files) < 0) status = mem_fail(64, "a checkpoint");
    if (status == SCA_OK) status = json_save(path, facts);
    json_decref(facts);
    json_decref(files);
    mem_free(path);
    return status;
}

static sca_status take_facts(trainer *t, const json_t *facts, const char *file)
{
    int64_t format = 0, batches = 0, images = 0, most = INT64_MAX;
    const json_t *scale = json_object_get(facts, "loss_scale");
    run_state s = { 0 };
    TRY(json_need_int(facts, "format", file, 1, 1, &format));
    TRY(json_need_int(facts, "step", file, 0, most, &s.step));
    TRY(json_need_int(facts, "updates", file, 0, s.step, &s.updates));
    TRY(json_need_int(facts, "position", file, 0, most, &s.position));
    TRY(json_need_int(facts, "batches_per_step", file, 1, most, &batches));
    TRY(json_need_int(facts, "batch_images", file, 1, most, &images));
    TRY(json_need_real(scale, "scale", file, &s.scale.scale));
    TRY(json_need_int(scale, "clean", file, 0, most, &s.scale.clean));
    TRY(json_need_int(scale, "spared", file, 0, 1, &s.scale.spared));
    if (batches != batches_per_step(t) || images != t->c->train_batch_images)
        return status_fail(
            SCA_ERR_ARGUMENT,
            "%s: the run had ranks x train.accumulate = %lld and train.batch_images = %lld, here they are "
            "%lld and %lld; go on with what it had",
            file, (long long)batches, (long long)images, (long long)batches_per_step(t),
            (long long)t->c->train_batch_images);
    if ((s.scale.scale > 0) == (t->at.scale.scale > 0)) t->at.scale = s.scale; /* else the precision is another */
    t->at.step = s.step;
    t->at.updates = s.updates;
    t->at.position = s.position;
    return SCA_OK;
}

/* ---- whole checkpoints -------------------------------------------------------------------------------------- */

sca_status checkpoint_read(trainer *t, const char *path)
{
    json_t *facts = NULL;
    char *ranges = path_join(path, "trainer.safetensors"), *file = path_join(path, "trainer.json");
    sca_status status = ranges && file ? open_facts(path, &facts) : mem_fail(strlen(path), "a file name");
    if (status == SCA_OK) status = take_facts(t, facts, file);
    if (status == SCA_OK) status = training_load(t->parameters, path);
    if (status == SCA_OK) status = read_ranges(t, ranges);
    json_decref(facts);
    mem_free(ranges);
    mem_free(file);
    return status;
}

static sca_status fill(trainer *t, const char *dir)
{
    char *ranges = path_join(dir, "trainer.safetensors");
    if (!ranges) return mem_fail(strlen(dir), "a file name");
    sca_status status = dir_make(dir);
    if (status == SCA_OK) status = model_export(t->m, dir, DT_NONE, false);
    if (status == SCA_OK) status = write_ranges(t, ranges);
    if (status == SCA_OK) status = write_facts(t, dir);
    mem_free(ranges);
    return status;
}

sca_status checkpoint_write(trainer *t, const char *path)
{
    if (dir_exists(path) || file_exists(path))
        return status_fail(SCA_ERR_ARGUMENT, "%s: is there already, expected a name for a new folder", path);
    if (path_name(path)[0] == 0) return status_fail(SCA_ERR_ARGUMENT, "'%s': names no folder", path);
    char *hidden = hidden_beside(path);
    if (!hidden) return mem_fail(strlen(path), "a file name");
    sca_status status = dir_remove(hidden);
    if (status == SCA_OK) status = fill(t, hidden);
    if (status == SCA_OK) status = dir_rename(hidden, path);
    if (status != SCA_OK) {
        char *why = text_copy(status_message(), strlen(status_message()));
        (void)dir_remove(hidden); /* makes room where a disk is full */
        status = status_set(status, why ? why : "out of memory");
        mem_free(why);
    }
    mem_free(hidden);
    return status;
}

/* ---- the run directory -------------------------------------------------------------------------------------- */

static sca_status clean_one(void *user, const char *name)
{
    const trainer *t = user;
    bool half = name[0] == '.' && text_ends(name, ".tmp");
    if (!half && number_of(name) <= t->at.step) return SCA_OK;
    char *path = path_join(t->dir, name);
    if (!path) return mem_fail(strlen(name), "a file name");
    log_debug("%s is removed: %s", path, half ? "half-written" : "of a later step");
    sca_status status = half ? dir_remove(path) : discard(path);
    mem_free(path);
    return status;
}

sca_status checkpoint_clean(const trainer *t) { return dir_each(t->dir, clean_one, (void *)(uintptr_t)t); }

typedef struct best { /* the lowest loss among the kept checkpoints */
    const numbers *kept;
    double loss;
    int64_t step; /* -1: none */
} best;

static void consider(best *b, const json_t *line)
{
    int64_t step = json_integer_value(json_object_get(line, "step"));
    const json_t *loss = json_object_get(line, "loss");
    if (!json_is_number(loss) || (b->step >= 0 && json_number_value(loss) >= b->loss)) return;
    for (size_t i = 0; i < b->kept->n; i++)
        if (b->kept->of[i] == step) {
            b->step = step;
            b->loss = json_number_value(loss);
        }
}

/* Reads eval.jsonl, which is ours and whole. */
static sca_status find_best(const trainer *t, best *b)
{
    file_view v = { 0 };
    char *path = path_join(t->dir, "eval.jsonl");
    if (!path) return mem_fail(strlen(t->dir), "a file name");
    sca_status status = file_map(path, &v);
    const char *text = (const char *)v.data;
    for (size_t at = 0; at < v.bytes && status == SCA_OK;) {
        const char *end = memchr(text + at, '\n', v.bytes - at);
        json_t *line = NULL;
        if (!end) break;
        size_t bytes = (size_t)(end - text) - at;
        status = json_parse(text + at, bytes, path, &line);
        if (status == SCA_OK) consider(b, line);
        json_decref(line);
        at += bytes + 1;
    }
    file_unmap(&v);
    mem_free(path);
    return status;
}

static sca_status link_to(const trainer *t, const char *name, int64_t step)
{
    char *path = path_join(t->dir, name), target[64];
    if (!path) return mem_fail(strlen(name), "a file name");
    snprintf(target, sizeof target, PREFIX "%lld", (long long)step);
    sca_status status = step < 0 ? dir_remove(path) : link_write(path, target);
    mem_free(path);
    return status;
}

static sca_status remove_oldest(const trainer *t, numbers *list)
{
    for (; list->n > (size_t)t->c->train_keep; list->n--) {
        char *path = checkpoint_path(t->dir, list->of[list->n - 1]);
        if (!path) return mem_fail(64, "a file name");
        sca_status status = discard(path);
        mem_free(path);
        TRY(status);
    }
    return SCA_OK;
}

/* The links first, so that none of them ever leads nowhere. */
sca_status checkpoint_links(const trainer *t, int64_t step)
{
    numbers list = { 0 };
    sca_status status = list_checkpoints(t->dir, &list);
    numbers kept = list;
    if (kept.n > (size_t)t->c->train_keep) kept.n = (size_t)t->c->train_keep;
    best b = { .kept = &kept, .step = -1 };
    if (status == SCA_OK) status = link_to(t, "last", step);
    if (status == SCA_OK) status = find_best(t, &b);
    if (status == SCA_OK) status = link_to(t, "best", b.step);
    if (status == SCA_OK) status = remove_oldest(t, &list);
    mem_free(list.of);
    return status;
}
