/* transform.c - one image made ready for training: its regions chosen, moved, cut and turned into ids (data.md 4.2). */
#include "data/loader_parts.h"

#include <math.h>
#include <string.h>

/* ---- what is left out ------------------------------------------------------------------------------------------- */

sca_status skip_put(skip_list *l, const skip_row *row, const char *path, const char *text)
{
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 16;
        skip_row *wider = mem_resize(l->rows, cap * sizeof *wider);
        if (!wider) return mem_fail(cap * sizeof *wider, "bad records");
        l->rows = wider;
        l->cap = cap;
    }
    skip_row *to = &l->rows[l->n];
    *to = *row;
    to->path = text_copy(path, strlen(path));
    to->text = text ? text_copy(text, strlen(text)) : NULL;
    l->n++;
    return to->path && (to->text || !text) ? SCA_OK : mem_fail(strlen(path), "bad records");
}

void skip_clear(skip_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        mem_free(l->rows[i].path);
        mem_free(l->rows[i].text);
    }
    l->n = 0;
}

void skip_free(skip_list *l)
{
    skip_clear(l);
    mem_free(l->rows);
    *l = (skip_list){ 0 };
}

/* ---- the work --------------------------------------------------------------------------------------------------- */

typedef struct work {
    const loader_options *o;
    const dataset *d;
    size_t set;
    int64_t image;
    data_sample sample;
    sca_image photo;
    int width, height; /* of the photo as it is */
    bool jittered;
    jitter j;
    draws phrases;
    uint32_t *order; /* (regions) */
    example *e;
    skip_list *skipped;
} work;

static bool in_pictures(const loader_options *o) { return o->pixels || o->masks || o->embeddings; }

/* Bad input is left out; that memory ran out is not the image's fault. */
static sca_status skip(work *w, int64_t region, skip_reason why, const char *text)
{
    skip_row row = { .set = w->set, .image = w->image, .region = region, .reason = why };
    row.id = region < 0 ? w->sample.image_id : w->sample.regions[region].id;
    return skip_put(w->skipped, &row, w->sample.path ? w->sample.path : dataset_name(w->d), text);
}

static bool is_bad_input(sca_status s) { return s == SCA_ERR_IO || s == SCA_ERR_FORMAT; }

/* *usable false: the image cannot be read. */
static sca_status read_photo(work *w, bool *usable)
{
    *usable = true;
    if (w->o->embeddings && dataset_size(w->d, w->image, &w->width, &w->height)) return SCA_OK;
    sca_status status = dataset_image(w->d, w->image, &w->sample, &w->o->photo, &w->photo);
    w->width = w->photo.width;
    w->height = w->photo.height;
    if (!is_bad_input(status)) return status;
    *usable = false;
    return skip(w, -1, SKIP_IMAGE, status_message());
}

static sca_status jitter_photo(work *w, uint64_t place)
{
    const loader_options *o = w->o;
    draws d = draws_at(o->seed, "jitter", place);
    double flip = draw_unit(&d), scale = draw_unit(&d), crop = draw_unit(&d);
    scale = o->jitter_scale[0] + scale * (o->jitter_scale[1] - o->jitter_scale[0]);
    jitter_init(&w->j, w->width, w->height, o->side, flip, scale, crop);
    w->jittered = true;
    if (!w->photo.rgb) return SCA_OK;
    sca_image made;
    TRY(jitter_image(&w->j, &w->photo, o->mean, o->std, &made));
    sca_image_free(&w->photo);
    w->photo = made;
    return SCA_OK;
}

/* ---- regions ---------------------------------------------------------------------------------------------------- */

static sca_status order_regions(work *w, uint64_t place)
{
    size_t n = w->sample.n_regions;
    w->order = mem_alloc(n * sizeof *w->order);
    if (!w->order) return mem_fail(n * sizeof *w->order, "the order of regions");
    for (size_t i = 0; i < n; i++) w->order[i] = (uint32_t)i;
    w->phrases = draws_at(w->o->seed, "phrases", place);
    if (!w->o->shuffle) return SCA_OK;
    draws d = draws_at(w->o->seed, "regions", place);
    draw_order(&d, w->order, n);
    return SCA_OK;
}

static void clamp_box(double box[4], int width, int height)
{
    for (int k = 0; k < 4; k++) {
        double most = k % 2 ? height : width;
        box[k] = box[k] < 0 ? 0 : box[k] > most ? most : box[k];
    }
}

static bool has_area(const double box[4]) { return box[2] - box[0] > 1e-5 && box[3] - box[1] > 1e-5; }

/* *kept false: nothing of it is in the picture; *bad: nor would be without jitter. */
static void place_box(const work *w, const double from[4], double box[4], bool *kept, bool *bad)
{
    const example *e = w->e;
    memcpy(box, from, 4 * sizeof *box);
    clamp_box(box, w->width, w->height);
    *bad = !has_area(box);
    if (w->jittered) {
        memcpy(box, from, 4 * sizeof *box);
        jitter_box(&w->j, box);
        clamp_box(box, e->original[1], e->original[0]);
    }
    *kept = has_area(box);
    double sx = (double)e->valid[1] / e->original[1], sy = (double)e->valid[0] / e->original[0];
    for (int k = 0; k < 4; k++) box[k] = (double)(float)box[k] * (k % 2 ? sy : sx);
}

static bool blank(const char *text) { return text[strspn(text, " \t\r\n\f\v")] == 0; }

/* *kept false: the phrase is bad. */
static sca_status take_phrase(work *w, size_t region, const char *phrase, example_region *to, bool *kept)
{
    size_t bytes = strlen(phrase);
    *kept = true;
    if (!w->o->tokens) return SCA_OK;
    if (bytes > PHRASE_MOST || blank(phrase)) {
        *kept = false;
        return skip(w, (int64_t)region, bytes > PHRASE_MOST ? SKIP_PHRASE : SKIP_EMPTY, NULL);
    }
    return w->o->tokenise(w->o->tokeniser, phrase, bytes, &to->ids, &to->n_ids);
}

/* The mask at its place among those of the image; *kept false: it is wrong, or there is none. */
static sca_status take_mask(work *w, size_t region, uint8_t *to, bool *kept)
{
    const sample_region *r = &w->sample.regions[region];
    mask_runs runs = { 0 };
    uint8_t *on = NULL;
    bool found;
    *kept = true;
    sca_status status = dataset_mask(w->d, w->image, r, w->width, w->height, &runs, &found);
    if (is_bad_input(status)) {
        *kept = false;
        return skip(w, (int64_t)region, SKIP_MASK, status_message());
    }
    *kept = found;
    if (status != SCA_OK || !found) return status;
    size_t pixels = (size_t)w->width * (size_t)w->height;
    if (!(on = mem_alloc(pixels))) status = mem_fail(pixels, "a mask");
    if (status == SCA_OK) status = mask_decode(&runs, on);
    if (status == SCA_OK)
        status = mask_frame(on, w->width, w->height, w->jittered ? &w->j : NULL, w->o->side, w->o->mask_side, to);
    mem_free(on);
    mask_runs_free(&runs);
    return status;
}

static sca_status take_region(work *w, size_t region, uint8_t *masks)
{
    const sample_region *r = &w->sample.regions[region];
    example_region *to = &w->e->regions[w->e->n];
    size_t mask_bytes = (size_t)w->o->mask_side * (size_t)w->o->mask_side;
    bool kept, bad;
    *to = (example_region){ .id = r->id };
    size_t which = w->o->shuffle ? (size_t)draw_below(&w->phrases, r->n_phrases) : 0;
    if (in_pictures(w->o)) {
        place_box(w, r->box, to->box, &kept, &bad);
        if (bad) return skip(w, (int64_t)region, SKIP_BOX, NULL);
        if (!kept) return SCA_OK;
    }
    TRY(take_phrase(w, region, r->phrases[which], to, &kept));
    if (kept && masks) {
        sca_status status = take_mask(w, region, masks + (size_t)w->e->n * mask_bytes, &kept);
        if (status != SCA_OK || !kept) mem_free(to->ids);
        if (status != SCA_OK) return status;
    }
    w->e->n += kept;
    return SCA_OK;
}

/* ---- the image ---------------------------------------------------------------------------------------------------- */

static void fill_sizes(work *w)
{
    example *e = w->e;
    int width = w->jittered ? w->j.side : w->width, height = w->jittered ? w->j.side : w->height;
    e->original[0] = height;
    e->original[1] = width;
    image_target(width, height, w->o->side, &e->valid[1], &e->valid[0]);
}

static sca_status picture(work *w, uint64_t place, bool *usable)
{
    TRY(read_photo(w, usable));
    if (!*usable) return SCA_OK;
    if (w->o->jitter) TRY(jitter_photo(w, place));
    fill_sizes(w);
    return SCA_OK;
}

static sca_status fill(work *w, uint64_t place, const example_places *to)
{
    const loader_options *o = w->o;
    bool usable = true;
    if (in_pictures(o)) TRY(picture(w, place, &usable));
    if (!usable) return SCA_OK;
    TRY(order_regions(w, place));
    for (size_t i = 0; i < w->sample.n_regions && w->e->n < o->regions_per_image; i++)
        TRY(take_region(w, w->order[i], to->masks));
    if (w->e->n == 0) return SCA_OK;
    if (to->embedding) TRY(dataset_embedding(w->d, w->image, to->embedding));
    if (!to->pixels) return SCA_OK;
    return image_pixels(&w->photo, o->side, o->mean, o->std, to->pixels, NULL, NULL);
}

sca_status example_make(const loader_options *o, const dataset *d, size_t set, int64_t image, uint64_t place,
                        const example_places *to, example *e, skip_list *skipped)
{
    work w = { .o = o, .d = d, .set = set, .image = image, .e = e, .skipped = skipped };
    TRY(dataset_read(d, image, &w.sample));
    e->image_id = w.sample.image_id;
    e->recognition = dataset_recognition(d);
    sca_status status = fill(&w, place, to);
    mem_free(w.order);
    sca_image_free(&w.photo);
    sample_free(&w.sample);
    return status;
}

void example_clear(example *e)
{
    for (int i = 0; i < e->n; i++) mem_free(e->regions[i].ids);
    e->n = 0;
}
