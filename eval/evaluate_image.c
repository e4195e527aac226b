/* evaluate_image.c - one image of a data set: prompts, masks, captions, the loss of the given captions.
 *
 * Random numbers are functions of seed, set, image and region, so that neither the order of the work nor who does it
 * changes anything. */
#include "base/rng.h"
#include "eval/evaluate_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct work { /* an image and its regions [first, first + n) */
    eval_set *e;
    const data_sample *in;
    scene *s;
    size_t image, first, n;
    int width, height;         /* as decoded */
    int corner[EVAL_CHUNK][4]; /* x1, y1, x2, y2, clamped to the image (data.md 4.3) */
    float box[EVAL_CHUNK][4];
    sca_point point[EVAL_CHUNK];
    sca_prompt prompt[EVAL_CHUNK];
    region_result result[EVAL_CHUNK];
} work;

/* ---- prompts (eval.md 3) ------------------------------------------------------------------- */

/* Two numbers in (0, 1) of one region. */
static void draw(const work *w, size_t i, double u[2])
{
    char name[320];
    snprintf(name, sizeof name, "prompt %s", w->e->name);
    rng_block b = rng_philox(rng_key((uint64_t)w->e->c->generate_seed, name), w->first + i, w->image);
    u[0] = (double)rng_unit(b.word[0]);
    u[1] = (double)rng_unit(b.word[1]);
}

static void centre_point(const work *w, size_t i, const double u[2], sca_point *out)
{
    const float *b = w->box[i];
    *out = (sca_point){ .x_px = (double)b[0] + u[0] * ((double)b[2] - (double)b[0]),
                        .y_px = (double)b[1] + u[1] * ((double)b[3] - (double)b[1]),
                        .label = 1 };
}

/* One of the inside pixels, each as likely; false when there is none. The official code scales (x, y) by (H'/H, W'/W),
 * so the point that is meant to be scaled by (W'/W, H'/H) is moved accordingly. */
static bool mask_point(const work *w, size_t i, const double u[2], sca_point *out)
{
    const uint8_t *on = w->result[i].mask;
    size_t pixels = (size_t)w->width * (size_t)w->height, inside = 0;
    for (size_t k = 0; k < pixels; k++) inside += on[k];
    if (inside == 0) return false;
    size_t wanted = (size_t)(u[0] * (double)inside), at = 0;
    if (wanted >= inside) wanted = inside - 1;
    for (size_t seen = 0;; at++) {
        if (!on[at]) continue;
        if (seen++ == wanted) break;
    }
    int side = model_sizes(w->e->m)->sam.image, valid_width, valid_height;
    image_target(w->width, w->height, side, &valid_width, &valid_height);
    double sx = (double)valid_width / w->width, sy = (double)valid_height / w->height;
    *out = (sca_point){ .x_px = (double)(at % (size_t)w->width) * sy / sx,
                        .y_px = (double)(at / (size_t)w->width) * sx / sy,
                        .label = 1 };
    return true;
}

static void clamp_box(work *w, size_t i)
{
    const double *box = w->in->regions[w->first + i].box;
    for (int k = 0; k < 4; k++) {
        double most = k % 2 ? w->height : w->width;
        w->corner[i][k] = (int)(box[k] < 0 ? 0 : box[k] > most ? most : box[k]);
        w->box[i][k] = (float)w->corner[i][k];
    }
}

static sca_status masks_of_boxes(work *w)
{
    describe_options o = { .masks = true, .recognition = dataset_recognition(w->e->data) };
    return scene_describe(w->s, w->prompt, (int)w->n, &o, w->result);
}

/* The prompts of the chunk, in w->prompt. */
static sca_status make_prompts(work *w)
{
    const char *kind = w->e->c->eval_prompt;
    bool in_box = strcmp(kind, "random_point_in_box") == 0, in_mask = strcmp(kind, "random_point_in_mask") == 0;
    for (size_t i = 0; i < w->n; i++) {
        clamp_box(w, i);
        w->prompt[i] = (sca_prompt){ .box_px = w->box[i] };
    }
    if (strcmp(kind, "box") == 0) return SCA_OK;
    sca_status status = in_mask ? masks_of_boxes(w) : SCA_OK;
    for (size_t i = 0; i < w->n && status == SCA_OK; i++) {
        double u[2], middle[2] = { 0.5, 0.5 };
        draw(w, i, u);
        if (!in_mask || !mask_point(w, i, u, &w->point[i])) centre_point(w, i, in_box ? u : middle, &w->point[i]);
        w->prompt[i] = (sca_prompt){ .points = &w->point[i], .n_points = 1 };
    }
    region_result_free(w->result, (int)w->n);
    return status;
}

/* ---- loss (model.md 9) --------------------------------------------------------------------- */

typedef struct token_sums { /* of a region: -log p of its tokens, of all ids at their places, how many tokens */
    double own, all;
    int n;
} token_sums;

static void add_row(const float *logits, int64_t V, int id, token_sums *t)
{
    double largest = (double)logits[0], sum = 0, total = 0;
    for (int64_t v = 1; v < V; v++)
        if ((double)logits[v] > largest) largest = (double)logits[v];
    for (int64_t v = 0; v < V; v++) {
        sum += exp((double)logits[v] - largest);
        total += (double)logits[v];
    }
    double log_sum = largest + log(sum);
    t->own += log_sum - (double)logits[id];
    t->all += (double)V * log_sum - total;
    t->n++;
}

/* Every head is taught the same label, and all count alike. */
static sca_status region_loss(work *w, size_t i, const int *ids, int L, token_sums *t)
{
    int64_t V = model_sizes(w->e->m)->lm.vocab, heads = w->result[i].heads, rows = heads * (L + 1);
    size_t bytes = (size_t)rows * (size_t)V * sizeof(float);
    *t = (token_sums){ 0 };
    for (int k = 0; k < L; k++)
        if (ids[k] < 0 || ids[k] >= V)
            return status_fail(SCA_ERR_FORMAT, "the tokenizer gives id %d, but the language model has %lld", ids[k],
                               (long long)V);
    float *logits = mem_alloc(bytes);
    if (!logits) return mem_fail(bytes, "logits");
    sca_status status = scene_logits(w->s, &w->prompt[i], 1, dataset_recognition(w->e->data), ids, L, logits);
    for (int64_t h = 0; h < heads && status == SCA_OK; h++)
        for (int k = 0; k < L; k++) add_row(logits + (h * (L + 1) + k) * V, V, ids[k], t);
    mem_free(logits);
    return status;
}

/* ---- records ------------------------------------------------------------------------------- */

static void put_string(str *s, const char *key, const char *text)
{
    str_printf(s, ", \"%s\": ", key);
    json_put_text(s, text, strlen(text));
}

/* The mask, and how well it covers the annotated one. */
static sca_status put_mask(const work *w, size_t i, str *s)
{
    mask_runs runs = { 0 }, truth = { 0 };
    char *counts = NULL;
    bool annotated;
    sca_status status;
    TRY_GOTO(done, mask_encode(w->result[i].mask, w->width, w->height, &runs));
    TRY_GOTO(done, mask_runs_text(&runs, &counts));
    put_string(s, "mask", counts);
    str_printf(s, ", \"size\": [%d, %d]", w->height, w->width);
    const sample_region *r = &w->in->regions[w->first + i];
    TRY_GOTO(done, dataset_mask(w->e->data, (int64_t)w->image, r, w->width, w->height, &truth, &annotated));
    if (annotated) {
        str_put(s, ", \"mask-iou\": ");
        json_put_real(s, mask_iou(&runs, &truth, false));
    }
done:
    mem_free(counts);
    mask_runs_free(&truth);
    mask_runs_free(&runs);
    return status;
}

/* What the official trainer calls the reference: the first phrase as far as training would see it. Then the loss. */
static sca_status put_label(work *w, size_t i, str *s)
{
    const tokenizer *t = model_tokenizer(w->e->m);
    const char *phrase = w->in->regions[w->first + i].phrases[0];
    int *ids = NULL, n;
    char *label = NULL;
    sca_status status = SCA_OK;
    token_sums sums;
    if (!t) {
        put_string(s, "label", phrase);
        return SCA_OK;
    }
    TRY_GOTO(done, tokenizer_encode(t, phrase, strlen(phrase), true, &ids, &n));
    TRY_GOTO(done, tokenizer_decode(t, ids, n, false, &label));
    put_string(s, "label", label);
    if (!w->e->c->eval_loss) goto done;
    TRY_GOTO(done, region_loss(w, i, ids, n, &sums));
    str_put(s, ", \"loss\": [");
    json_put_real(s, sums.own);
    str_put(s, ", ");
    json_put_real(s, sums.all);
    str_printf(s, ", %d]", sums.n);
done:
    mem_free(ids);
    mem_free(label);
    return status;
}

static sca_status put_region(work *w, size_t i, str *s)
{
    const sample_region *r = &w->in->regions[w->first + i];
    const region_result *out = &w->result[i];
    str_printf(s, "{\"image\": %zu, \"region\": %zu, \"of\": %zu", w->image, w->first + i, w->in->n_regions);
    str_printf(s, ", \"region_id\": %lld, \"image_id\": %lld", (long long)r->id, (long long)w->in->image_id);
    put_string(s, "file", w->in->path);
    const int *b = w->corner[i];
    str_printf(s, ", \"box\": [%d, %d, %d, %d]", b[0], b[1], b[2], b[3]);
    TRY(put_label(w, i, s));
    str_put(s, ", \"phrases\": [");
    for (size_t k = 0; k < r->n_phrases; k++) {
        if (k) str_put(s, ", ");
        json_put_text(s, r->phrases[k], strlen(r->phrases[k]));
    }
    str_put(s, "], \"candidates\": [");
    for (int h = 0; h < out->heads; h++) {
        if (h) str_put(s, ", ");
        json_put_text(s, out->text[h], strlen(out->text[h]));
    }
    str_put(s, "], \"iou\": [");
    for (int k = 0; k < out->n_iou; k++) {
        if (k) str_put(s, ", ");
        json_put_real(s, (double)out->iou[k]);
    }
    str_put(s, "]");
    TRY(put_mask(w, i, s));
    str_put(s, "}\n");
    return s->failed ? mem_fail(s->bytes, "records") : SCA_OK;
}

/* ---- the image ----------------------------------------------------------------------------- */

/* Regions [w->first, w->first + w->n). */
static sca_status run_batch(work *w, str *lines)
{
    sca_status status;
    describe_options o = { .masks = true, .captions = true, .recognition = dataset_recognition(w->e->data) };
    TRY_GOTO(done, make_prompts(w));
    model_streams(w->e->m, ((int64_t)w->image << 24) + (int64_t)w->first * model_sizes(w->e->m)->caption_heads);
    TRY_GOTO(done, scene_describe(w->s, w->prompt, (int)w->n, &o, w->result));
    for (size_t i = 0; i < w->n; i++) TRY_GOTO(done, put_region(w, i, lines));
done:
    region_result_free(w->result, (int)w->n);
    return status;
}

/* Regions [from, to), in batches whose masks are not too large. */
static sca_status run_chunk(work *w, size_t from, size_t to, eval_chunk_fn *fn, void *user)
{
    int64_t fit = EVAL_MASK_BYTES / ((int64_t)w->width * w->height);
    size_t most = fit < 1 ? 1 : fit > EVAL_CHUNK ? EVAL_CHUNK : (size_t)fit;
    str lines = { 0 };
    sca_status status = SCA_OK;
    for (w->first = from; w->first < to && status == SCA_OK; w->first += most) {
        w->n = to - w->first < most ? to - w->first : most;
        status = run_batch(w, &lines);
    }
    if (status == SCA_OK) status = fn(user, &lines);
    str_free(&lines);
    return status;
}

static sca_status open_scene(work *w)
{
    const config *c = w->e->c;
    const model_config *sizes = model_sizes(w->e->m);
    int side = sizes->sam.image, width, height;
    size_t bytes = (size_t)side * (size_t)side * 3 * sizeof(float);
    sca_image photo = { 0 };
    sca_image_options how = { .honour_exif = c->run_exif, .max_pixels = c->run_max_pixels };
    TRY(dataset_image(w->e->data, (int64_t)w->image, w->in, &how, &photo));
    w->width = photo.width;
    w->height = photo.height;
    float *pixels = mem_alloc(bytes);
    sca_status status = pixels ? SCA_OK : mem_fail(bytes, "the model's image");
    if (status == SCA_OK) status = image_pixels(&photo, side, sizes->mean, sizes->std, pixels, &width, &height);
    if (status == SCA_OK) status = scene_open(w->e->m, pixels, width, height, photo.width, photo.height, &w->s);
    mem_free(pixels);
    sca_image_free(&photo);
    return status;
}

static sca_status empty_image(const work *w, eval_chunk_fn *fn, void *user)
{
    str line = { 0 };
    str_printf(&line, "{\"image\": %zu, \"region\": 0, \"of\": 0}\n", w->image);
    sca_status status = line.failed ? mem_fail(64, "records") : fn(user, &line);
    str_free(&line);
    return status;
}

static sca_status all_chunks(work *w, size_t first, eval_chunk_fn *fn, void *user)
{
    size_t count = w->in->n_regions;
    if (count == 0) return empty_image(w, fn, user);
    TRY(open_scene(w));
    sca_status status = SCA_OK;
    for (size_t from = first; from < count && status == SCA_OK; from += EVAL_CHUNK)
        status = run_chunk(w, from, count - from < EVAL_CHUNK ? count : from + EVAL_CHUNK, fn, user);
    return status;
}

sca_status eval_image(eval_set *e, size_t image, size_t first, eval_chunk_fn *fn, void *user)
{
    data_sample in = { 0 };
    work *w = mem_zero(1, sizeof *w);
    if (!w) return mem_fail(sizeof *w, "an image's regions");
    sca_status status = dataset_read(e->data, (int64_t)image, &in);
    if (status == SCA_OK) {
        *w = (work){ .e = e, .in = &in, .image = image };
        status = all_chunks(w, first, fn, user);
        if (status != SCA_OK && !strstr(status_message(), in.path)) status = status_context(status, "%s", in.path);
    }
    scene_close(w->s);
    mem_free(w);
    sample_free(&in);
    return status;
}
