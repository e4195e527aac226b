/* api.c - sca.h over the layers below: where images, models and settings meet. */
#include "data/data.h"
#include "eval/eval.h"
#include "eval/evaluate.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct sca_model {
    model *inner;
    config *settings; /* for sca_model_set */
};

struct sca_scene {
    sca_model *m;
    scene *inner;
    int width, height;
};

/* ---- models -------------------------------------------------------------------------------------------- */

sca_status sca_model_open(const sca_config *c, sca_model **out)
{
    *out = NULL;
    sca_model *m = mem_zero(1, sizeof *m);
    if (!m) return mem_fail(sizeof *m, "a model");
    sca_status status = config_copy(c, &m->settings);
    if (status == SCA_OK) status = model_open(c, &m->inner);
    if (status == SCA_OK)
        *out = m;
    else
        sca_model_close(m);
    return status;
}

void sca_model_close(sca_model *m)
{
    if (!m) return;
    model_close(m->inner);
    config_close(m->settings);
    mem_free(m);
}

sca_status sca_model_set(sca_model *m, const char *assignment)
{
    if (!text_starts(assignment, "generate."))
        return status_fail(SCA_ERR_ARGUMENT,
                           "'%s' cannot be changed while the model is open, expected a setting of "
                           "'generate'; set it before sca_model_open",
                           assignment);
    TRY(config_set(m->settings, assignment));
    model_generation_from(m->settings, model_generation(m->inner));
    return SCA_OK;
}

int sca_model_heads(const sca_model *m) { return model_heads(m->inner); }

sca_status sca_model_save(const sca_model *m, const char *path) { return sca_model_export(m, path, NULL, 0); }

sca_status sca_model_export(const sca_model *m, const char *path, const char *type_name, int trained_only)
{
    static const struct {
        const char *name;
        dtype type;
    } known[] = { { "f32", DT_F32 }, { "f16", DT_F16 }, { "bf16", DT_BF16 } };
    dtype type = DT_NONE;
    for (size_t i = 0; type_name && i < LENGTH(known); i++)
        if (strcmp(type_name, known[i].name) == 0) type = known[i].type;
    if (type_name && type == DT_NONE)
        return status_fail(SCA_ERR_ARGUMENT, "the type '%s' is not known, expected f32, f16 or bf16", type_name);
    return model_export(m->inner, path, type, trained_only != 0);
}

static sca_status json_result(sca_status status, str *s, char **json)
{
    if (status == SCA_OK) status = str_take(s, json);
    str_free(s);
    return status;
}

sca_status sca_model_info(const sca_config *c, char **json)
{
    *json = NULL;
    str s = { 0 };
    return json_result(model_info(c, &s), &s, json);
}

sca_status sca_plan(const sca_config *c, int regions, char **json)
{
    *json = NULL;
    str s = { 0 };
    return json_result(model_plan(c, regions, &s), &s, json);
}

/* "cpu gemm=blas": which library does it, or why it cannot be had. */
static void put_variants(str *s)
{
    const char *between = "";
    for (const char *const *kind = dev_kinds(); *kind; kind++)
        for (const dev_row *row = dev_rows(*kind); row->name; row++) {
            char state[200] = "our own";
            if (row->state) row->state(state, sizeof state);
            str_printf(s, "%s\"%s %s\": \"%s\"", between, *kind, row->name, state);
            between = ", ";
        }
}

/* SCA_LIBRARIES: "name=version,name=version", from the build. */
sca_status sca_build_info(char **json)
{
    *json = NULL;
    str s = { 0 };
    str_printf(&s, "{\"version\": \"%s\", \"devices\": [", SCA_VERSION);
    for (const char *const *kind = dev_kinds(); *kind; kind++)
        str_printf(&s, "%s\"%s\"", kind == dev_kinds() ? "" : ", ", *kind);
    str_put(&s, "], \"variants\": {");
    put_variants(&s);
    str_put(&s, "}, \"libraries\": {");
    const char *at = SCA_LIBRARIES;
    for (int i = 0; *at; i++) {
        size_t name = strcspn(at, "="), version = strcspn(at + name + 1, ",");
        str_printf(&s, "%s\"%.*s\": \"%.*s\"", i ? ", " : "", (int)name, at, (int)version, at + name + 1);
        at += name + 1 + version;
        at += *at == ',';
    }
    str_put(&s, "}}");
    return json_result(SCA_OK, &s, json);
}

/* ---- scenes -------------------------------------------------------------------------------------------- */

static sca_status check_image(const sca_image *image)
{
    if (image && image->rgb && image->width > 0 && image->height > 0) return SCA_OK;
    return status_fail(SCA_ERR_ARGUMENT,
                       "the image is empty, expected at least one pixel; read one with sca_image_read");
}

sca_status sca_encode(sca_model *m, const sca_image *image, sca_scene **out)
{
    *out = NULL;
    TRY(check_image(image));
    const model_config *c = model_sizes(m->inner);
    int side = c->sam.image, width, height;
    size_t bytes = (size_t)side * (size_t)side * 3 * sizeof(float);
    sca_scene *s = mem_zero(1, sizeof *s);
    float *pixels = mem_alloc(bytes);
    sca_status status = s && pixels ? SCA_OK : mem_fail(bytes, "the model's image");
    if (status == SCA_OK) status = image_pixels(image, side, c->mean, c->std, pixels, &width, &height);
    if (status == SCA_OK)
        status = scene_open(m->inner, pixels, width, height, image->width, image->height, &s->inner);
    mem_free(pixels);
    if (status != SCA_OK) {
        mem_free(s);
        return status;
    }
    s->m = m;
    s->width = image->width;
    s->height = image->height;
    *out = s;
    return SCA_OK;
}

void sca_scene_close(sca_scene *s)
{
    if (!s) return;
    scene_close(s->inner);
    mem_free(s);
}

int sca_scene_mask_side(const sca_scene *s) { return scene_mask_side(s->inner); }

/* ---- regions ------------------------------------------------------------------------------------------- */

/* x1, y1, x2, y2 of the inside pixels, x2 and y2 exclusive; zeros when there are none. */
static void mask_bounds(const uint8_t *on, int width, int height, float box[4])
{
    int x1 = width, y1 = height, x2 = 0, y2 = 0;
    for (int y = 0; y < height; y++) {
        const uint8_t *row = on + (size_t)y * (size_t)width, *first = memchr(row, 1, (size_t)width);
        if (!first) continue;
        const uint8_t *last = memrchr(row, 1, (size_t)width);
        if (y1 == height) y1 = y;
        y2 = y + 1;
        if (first - row < x1) x1 = (int)(first - row);
        if (last - row + 1 > x2) x2 = (int)(last - row + 1);
    }
    bool empty = x2 == 0;
    box[0] = empty ? 0 : (float)x1;
    box[1] = empty ? 0 : (float)y1;
    box[2] = (float)x2;
    box[3] = (float)y2;
}

/* Hands over what `from` owns. */
static void take_mask(const sca_scene *s, region_result *from, sca_mask *to)
{
    *to = (sca_mask){ .width = s->width,
                      .height = s->height,
                      .on = from->mask,
                      .iou = from->iou,
                      .n_iou = from->n_iou,
                      .best = from->best };
    from->mask = NULL;
    from->iou = NULL;
    mask_bounds(to->on, to->width, to->height, to->box_px);
}

static void take_text(region_result *from, int head, sca_text *to)
{
    generated *g = &from->generated[head];
    *to =
        (sca_text){ .text = from->text[head], .tokens = g->tokens, .n_tokens = g->n, .logprob = (float)g->logprob };
    from->text[head] = NULL;
    g->tokens = NULL;
}

sca_status sca_describe(sca_scene *s, const sca_prompt *p, int n, sca_mask *masks, sca_text *captions)
{
    if (n < 0 || (n > 0 && !p))
        return status_fail(SCA_ERR_ARGUMENT, "%d prompts, expected 0 or more and a list of them", n);
    int heads = sca_model_heads(s->m);
    region_result *results = mem_zero((size_t)n, sizeof *results);
    if (n && !results) return mem_fail((size_t)n * sizeof *results, "results");
    describe_options o = { .masks = masks != NULL, .captions = captions != NULL };
    sca_status status = scene_describe(s->inner, p, n, &o, results);
    for (int i = 0; i < n && status == SCA_OK; i++) {
        if (masks) take_mask(s, &results[i], &masks[i]);
        for (int h = 0; h < heads && captions; h++) take_text(&results[i], h, &captions[i * heads + h]);
    }
    region_result_free(results, n);
    mem_free(results);
    return status;
}

sca_status sca_segment(sca_scene *s, const sca_prompt *p, int n, sca_mask *out)
{
    return sca_describe(s, p, n, out, NULL);
}

sca_status sca_caption(sca_scene *s, const sca_prompt *p, int n, sca_text *out)
{
    return sca_describe(s, p, n, NULL, out);
}

void sca_mask_free(sca_mask *m, int n)
{
    for (int i = 0; m && i < n; i++) {
        mem_free(m[i].on);
        mem_free(m[i].iou);
        m[i] = (sca_mask){ 0 };
    }
}

void sca_text_free(sca_text *t, int n)
{
    for (int i = 0; t && i < n; i++) {
        mem_free(t[i].text);
        mem_free(t[i].tokens);
        t[i] = (sca_text){ 0 };
    }
}

sca_status sca_mask_rle(const sca_mask *m, char **counts)
{
    *counts = NULL;
    mask_runs runs = { 0 };
    sca_status status = mask_encode(m->on, m->width, m->height, &runs);
    if (status == SCA_OK) status = mask_runs_text(&runs, counts);
    mask_runs_free(&runs);
    return status;
}

/* ---- mask prompts -------------------------------------------------------------------------------------- */

sca_status sca_mask_prompt(const sca_scene *s, const uint8_t *gray, int width, int height, float *out)
{
    if (width != s->width || height != s->height)
        return status_fail(SCA_ERR_ARGUMENT, "the mask is %d x %d, expected the image's size, %d x %d", width,
                           height, s->width, s->height);
    int side = sca_scene_mask_side(s), valid_width, valid_height;
    image_target(width, height, side, &valid_width, &valid_height);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) {
            bool inside = false;
            if (x < valid_width && y < valid_height) { /* centre to centre */
                int64_t from_x = (2 * (int64_t)x + 1) * width / (2 * (int64_t)valid_width);
                int64_t from_y = (2 * (int64_t)y + 1) * height / (2 * (int64_t)valid_height);
                inside = gray[from_y * width + from_x] >= 128;
            }
            out[(size_t)y * (size_t)side + (size_t)x] = inside ? 10.0f : -10.0f;
        }
    return SCA_OK;
}

static sca_status mask_from_tensor(const sca_scene *s, const char *path, float *out)
{
    weights *file;
    TRY(weights_open(path, &file));
    const weight *w = weights_find(file, "mask_input");
    int64_t side = sca_scene_mask_side(s);
    sca_status status;
    if (!w)
        status = status_fail(SCA_ERR_FORMAT, "%s: no tensor 'mask_input', expected one of (%lld,%lld)", path,
                             (long long)side, (long long)side);
    else if (w->count != side * side || w->ndim < 2 || w->dim[w->ndim - 1] != side || w->dim[w->ndim - 2] != side)
        status = status_fail(SCA_ERR_FORMAT, "%s: tensor 'mask_input' has %lld values, expected (%lld,%lld)", path,
                             (long long)w->count, (long long)side, (long long)side);
    else
        status = weight_read(w, DT_F32, out);
    for (int64_t i = 0; status == SCA_OK && i < side * side; i++)
        if (!(out[i] > -3e38f && out[i] < 3e38f))
            status = status_fail(SCA_ERR_FORMAT,
                                 "%s: tensor 'mask_input' holds NaN or infinity, expected finite logits", path);
    weights_close(file);
    return status;
}

sca_status sca_mask_prompt_read(const sca_scene *s, const char *path, float *out)
{
    if (text_ends(path, ".safetensors")) return mask_from_tensor(s, path, out);
    int width, height;
    uint8_t *gray;
    TRY(image_read_gray(path, (int64_t)s->width * s->height, &width, &height, &gray));
    sca_status status = sca_mask_prompt(s, gray, width, height, out);
    mem_free(gray);
    return status == SCA_OK ? status : status_context(status, "%s", path);
}

/* ---- evaluation ---------------------------------------------------------------------------------------- */

static comm *world; /* the processes started together, as MPI has it: one set per process; NULL: this one alone */

sca_status sca_ranks_open(void)
{
    if (world) return status_fail(SCA_ERR_STATE, "this process has joined the others already");
    return comm_open(true, &world);
}

void sca_rank(int *rank, int *size)
{
    if (rank) *rank = world ? world->rank : 0;
    if (size) *size = world ? world->size : 1;
}

void sca_ranks_close(int failed)
{
    comm_close(world, failed != 0);
    world = NULL;
}

sca_status sca_evaluate(sca_model *m, const sca_config *c, char **scores)
{
    str text = { 0 };
    comm *alone = NULL;
    *scores = NULL;
    if (!world) TRY(comm_open(false, &alone));
    comm *ranks = world ? world : alone;
    sca_status status = evaluate_run(m->inner, c, ranks, NULL, &text);
    if (status == SCA_OK && ranks->rank == 0) status = str_take(&text, scores);
    str_free(&text);
    comm_close(alone, false);
    return status;
}

/* ---- training ------------------------------------------------------------------------------------------ */

struct sca_trainer {
    trainer *inner;
    sca_model *m;
    config *c;   /* a copy: evaluations change it */
    comm *alone; /* NULL: among the world's */
    int64_t steps;
};

sca_status sca_trainer_open(sca_model *m, const sca_config *c, sca_trainer **out)
{
    *out = NULL;
    sca_trainer *t = mem_zero(1, sizeof *t);
    if (!t) return mem_fail(sizeof *t, "a trainer");
    t->m = m;
    t->steps = c->train_steps;
    sca_status status = config_copy(c, &t->c);
    if (status == SCA_OK && !world) status = comm_open(false, &t->alone);
    if (status == SCA_OK) status = trainer_open(m->inner, c, world ? world : t->alone, &t->inner);
    if (status == SCA_OK)
        *out = t;
    else
        sca_trainer_close(t);
    return status;
}

void sca_trainer_close(sca_trainer *t)
{
    if (!t) return;
    trainer_close(t->inner);
    comm_close(t->alone, false);
    config_close(t->c);
    mem_free(t);
}

static sca_step step_of(const sca_trainer *t, const trainer_step *s)
{
    return (sca_step){ .step = s->step,
                       .steps = t->steps,
                       .loss = s->loss,
                       .lr = s->lr,
                       .grad_norm = s->grad_norm,
                       .seconds = s->seconds,
                       .data_seconds = s->data_seconds,
                       .images = s->images,
                       .regions = s->regions,
                       .tokens = s->tokens,
                       .skipped = s->skipped };
}

sca_status sca_train_step(sca_trainer *t, sca_step *out)
{
    trainer_step s;
    TRY(trainer_next(t->inner, &s));
    *out = step_of(t, &s);
    return SCA_OK;
}

sca_status sca_trainer_save(sca_trainer *t, const char *dir) { return trainer_save(t->inner, dir); }

int64_t sca_trainer_done(const sca_trainer *t) { return trainer_done(t->inner); }
int64_t sca_trainer_skipped(const sca_trainer *t) { return trainer_skipped(t->inner); }

typedef struct hooks { /* between the trainer's hooks and the caller's */
    sca_trainer *t;
    const sca_train_hooks *outer;
    json_t *told; /* the sets of the last evaluation; NULL: none */
} hooks;

static void hook_stepped(void *user, const trainer_step *s)
{
    const hooks *h = user;
    sca_step out = step_of(h->t, s);
    if (h->outer->stepped) h->outer->stepped(h->outer->user, &out);
}

static bool hook_stop(void *user)
{
    const hooks *h = user;
    return h->outer->stop && h->outer->stop(h->outer->user) != 0;
}

/* The mean over the sets that have a loss. */
static double mean_loss(const json_t *sets)
{
    double sum = 0, n = 0;
    for (size_t i = 0; i < json_array_size(sets); i++) {
        const json_t *loss = json_object_get(json_object_get(json_array_get(sets, i), "scores"), "loss");
        if (!json_is_number(loss)) continue;
        sum += json_number_value(loss);
        n++;
    }
    return n > 0 ? sum / n : NAN;
}

static sca_status sets_of(const str *scores, json_t **sets, double *loss)
{
    json_t *root = NULL;
    TRY(json_parse(str_text(scores), scores->bytes, "scores.json", &root));
    *sets = json_incref(json_object_get(root, "sets"));
    *loss = mean_loss(*sets);
    json_decref(root);
    return SCA_OK;
}

/* As `sca eval` does, with loss, on the first train.eval_images images of each set. */
static sca_status hook_evaluate(void *user, int64_t step, const char *dir, json_t **sets, double *loss)
{
    hooks *h = user;
    config *c = h->t->c;
    comm *ranks = world ? world : h->t->alone;
    str scores = { 0 };
    (void)step;
    if (strlen(dir) >= sizeof c->eval_output)
        return status_fail(SCA_ERR_ARGUMENT, "train.output: the name is too long, expected a shorter one");
    memcpy(c->eval_output, dir, strlen(dir) + 1);
    c->eval_max_images = c->train_eval_images;
    c->eval_loss = true;
    for (size_t i = 0; i < c->n_data_eval; i++) c->eval_loss &= strcmp(c->data_eval[i].task, "recognition") != 0;
    ranks->stop = hook_stop;
    ranks->stop_user = user;
    sca_status status = evaluate_run(h->t->m->inner, c, ranks, h->told, &scores);
    ranks->stop = NULL;
    if (status == SCA_OK && ranks->rank == 0) status = sets_of(&scores, sets, loss);
    if (status == SCA_OK && ranks->rank == 0) {
        json_decref(h->told);
        h->told = json_incref(*sets);
    }
    str_free(&scores);
    return status;
}

/* Of masks and texts: their loss, for there is no caption to be judged. */
static sca_status hook_validate(void *user, int64_t step, const char *dir, json_t **sets, double *loss)
{
    const hooks *h = user;
    (void)step;
    (void)dir;
    return trainer_validate(h->t->inner, sets, loss);
}

sca_status sca_train(sca_trainer *t, const sca_train_hooks *outer, int *complete)
{
    static const sca_train_hooks none;
    hooks h = { t, outer ? outer : &none, NULL };
    bool captions = strcmp(t->c->train_objective, "caption") == 0;
    trainer_hooks inner = { &h, hook_stepped, hook_stop, captions ? hook_evaluate : hook_validate };
    bool all = false;
    sca_status status = trainer_run(t->inner, &inner, &all);
    json_decref(h.told);
    if (complete) *complete = all;
    return status;
}

/* ---- scores -------------------------------------------------------------------------------------------- */

static sca_status score_format_of(const char *name, score_format *out)
{
    static const char *const names[] = { "text", "json", "markdown" };
    *out = SCORE_TEXT;
    for (size_t i = 0; name && i < LENGTH(names); i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (score_format)i;
            return SCA_OK;
        }
    if (!name) return SCA_OK;
    return status_fail(SCA_ERR_ARGUMENT, "the format '%s' is not known, expected text, json or markdown", name);
}

sca_status sca_score(const sca_score_options *o, char **scores, char **notes)
{
    str out = { 0 }, said = { 0 };
    score_options inner = { .results = o->results,
                            .references = o->references,
                            .split = o->split,
                            .tokenizer = o->tokenizer,
                            .resources = o->resources,
                            .tags = o->tags,
                            .spice_tuples = o->spice_tuples,
                            .spice_command = o->spice_command,
                            .per_item = o->per_item != 0,
                            .partial = o->partial != 0,
                            .threads = o->threads };
    *scores = *notes = NULL;
    TRY(score_format_of(o->format, &inner.format));
    sca_status status = o->results ? score_run(&inner, &out, &said)
                                   : status_fail(SCA_ERR_ARGUMENT, "no file of predictions is named");
    if (status == SCA_OK) status = str_take(&said, notes);
    if (status == SCA_OK) status = str_take(&out, scores);
    if (status != SCA_OK) {
        mem_free(*notes);
        *notes = NULL;
    }
    str_free(&out);
    str_free(&said);
    return status;
}

/* ---- prepared files ------------------------------------------------------------------------------------ */

/* What turns photos into image embeddings of the stored type. */
typedef struct embedder {
    model *m;
    float *pixels, *values; /* (S, S, 3) (g * g, C) */
    size_t count;
    bool f16;
} embedder;

static sca_status embed(void *user, const sca_image *photo, void *out)
{
    embedder *e = user;
    const model_config *c = model_sizes(e->m);
    scene *s;
    int width, height;
    TRY(image_pixels(photo, c->sam.image, c->mean, c->std, e->pixels, &width, &height));
    TRY(scene_open(e->m, e->pixels, width, height, photo->width, photo->height, &s));
    sca_status status = scene_embedding(s, e->f16 ? e->values : out);
    uint16_t *halves = out;
    for (size_t i = 0; i < e->count && e->f16 && status == SCA_OK; i++) halves[i] = f32_to_f16(e->values[i]);
    scene_close(s);
    return status;
}

static sca_status embedder_init(const sca_prepare_options *o, embedder *e, prepare_options *to, char key[17])
{
    bool f16 = strcmp(o->embeddings, "f16") == 0;
    if (!f16 && strcmp(o->embeddings, "f32") != 0)
        return status_fail(SCA_ERR_ARGUMENT, "embeddings are '%s', expected f16 or f32", o->embeddings);
    if (!o->model) return status_fail(SCA_ERR_ARGUMENT, "embeddings need a model");
    const model_config *c = model_sizes(o->model->inner);
    int grid = c->sam.image / c->sam.patch;
    size_t side = (size_t)c->sam.image, count = (size_t)grid * (size_t)grid * (size_t)c->sam.channels;
    TRY(model_encoder_key(o->model->inner, key));
    *e = (embedder){ .m = o->model->inner, .count = count, .f16 = f16 };
    e->pixels = mem_alloc(side * side * 3 * sizeof *e->pixels);
    e->values = mem_alloc(count * sizeof *e->values);
    if (!e->pixels || !e->values) return mem_fail(side * side * 3 * sizeof *e->pixels, "the model's image");
    to->embed = embed;
    to->embedder = e;
    to->embedding = (embeddings_info){
        .grid = grid, .channels = (int)c->sam.channels, .f16 = f16, .bytes = count * (f16 ? 2 : 4), .encoder = key
    };
    return SCA_OK;
}

static sca_status agree_ranks(void *user, sca_status mine) { return comm_agree(user, mine); }

static sca_status set_text(char *to, size_t size, const char *text, const char *what)
{
    size_t n = text ? strlen(text) : 0;
    if (n >= size)
        return status_fail(SCA_ERR_ARGUMENT, "%s has %zu bytes, expected at most %zu", what, n, size - 1);
    if (text) memcpy(to, text, n + 1);
    return SCA_OK;
}

static sca_status fill_prepare(const sca_prepare_options *o, prepare_options *to)
{
    const config *c = o->config;
    config_dataset *set = &to->set;
    *to = (prepare_options){ .to = o->to, .pack = o->pack != 0, .threads = 1, .size = 1 };
    TRY(set_text(set->kind, sizeof set->kind, o->kind, "the kind"));
    TRY(set_text(set->annotations, sizeof set->annotations, o->annotations, "annotations"));
    TRY(set_text(set->images, sizeof set->images, o->images, "images"));
    TRY(set_text(set->split, sizeof set->split, o->split ? o->split : "train", "the split"));
    TRY(set_text(set->task, sizeof set->task, o->task, "the task"));
    if (c) to->photo = (sca_image_options){ .honour_exif = c->run_exif, .max_pixels = c->run_max_pixels };
    if (c) to->threads = c->run_threads > 0 ? (int)c->run_threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (!world) return SCA_OK;
    to->rank = world->rank;
    to->size = world->size;
    to->ranks = world;
    to->agree = agree_ranks;
    return SCA_OK;
}

static sca_status prepare_set(const sca_prepare_options *o)
{
    prepare_options to;
    embedder e = { 0 };
    char key[17];
    str table = { 0 };
    TRY(fill_prepare(o, &to));
    if (o->phrases && (o->embeddings || o->pack))
        return status_fail(SCA_ERR_ARGUMENT, "phrases alone have neither image files nor embeddings");
    sca_status status = o->embeddings ? embedder_init(o, &e, &to, key) : SCA_OK;
    if (status == SCA_OK && !o->phrases) status = prepare_store(&to, &table);
    if (status == SCA_OK && o->phrases) {
        if (to.rank == 0) status = prepare_phrases(&to.set, o->to, &table);
        if (to.agree) status = to.agree(to.ranks, status);
    }
    if (status == SCA_OK && o->table) status = str_take(&table, o->table);
    mem_free(e.values);
    mem_free(e.pixels);
    str_free(&table);
    return status;
}

sca_status sca_prepare(const sca_prepare_options *o)
{
    if (o->table) *o->table = NULL;
    if (!o->kind || !o->to || (!o->annotations && strcmp(o->kind, "synthetic") != 0))
        return status_fail(SCA_ERR_ARGUMENT, "kind, annotations and to are needed to prepare a file");
    return strcmp(o->kind, "meteor") == 0 ? meteor_make(o->annotations, o->to) : prepare_set(o);
}
