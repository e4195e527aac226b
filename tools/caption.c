/* caption.c - sca caption and sca segment: photos in; masks, captions and a picture out. */
#include "tool.h"

#include <limits.h>
#include <string.h>

enum format { TEXT, JSON, JSONL };

typedef struct job { /* one run of the program */
    const arguments *args;
    bool captions;
    enum format format;
    region_list regions;
    sca_image_options image;
    sca_model *model;
    output output;
    overlay *overlay; /* NULL: none asked for */
    int64_t records;  /* written so far */
} job;

typedef struct batch { /* some regions of one photo */
    int n, heads;
    sca_prompt *prompts; /* (n) */
    float *boxes;        /* (n, 4) */
    float *masks;        /* (n, side, side); NULL when no region has a mask */
    sca_mask *found;     /* (n) */
    sca_text *texts;     /* (n, heads); NULL: masks only */
} batch;

/* Masks are kept at the photo's size, so photos of hundreds of megapixels take fewer regions at once. */
enum { BATCH_MOST = 64 };
static const int64_t BATCH_MASK_BYTES = 512 << 20;

static int batch_size(int n, int width, int height)
{
    int64_t fit = BATCH_MASK_BYTES / ((int64_t)width * height);
    int64_t most = fit < 1 ? 1 : fit > BATCH_MOST ? BATCH_MOST : fit;
    return n < most ? n : (int)most;
}

static void batch_close(batch *b)
{
    if (b->found) sca_mask_free(b->found, b->n);
    if (b->texts) sca_text_free(b->texts, b->n * b->heads);
    mem_free(b->texts);
    mem_free(b->found);
    mem_free(b->masks);
    mem_free(b->boxes);
    mem_free(b->prompts);
    *b = (batch){ 0 };
}

static sca_status batch_alloc(batch *b, int n, int heads, size_t mask_floats)
{
    size_t count = (size_t)n;
    *b = (batch){ .n = n, .heads = heads };
    b->prompts = mem_zero(count, sizeof *b->prompts);
    b->boxes = mem_zero(count, 4 * sizeof *b->boxes);
    b->found = mem_zero(count, sizeof *b->found);
    if (heads > 0) b->texts = mem_zero(count * (size_t)heads, sizeof *b->texts);
    if (mask_floats > 0) b->masks = mem_zero(count, mask_floats * sizeof *b->masks);
    if (b->prompts && b->boxes && b->found && (b->texts || heads == 0) && (b->masks || mask_floats == 0))
        return SCA_OK;
    batch_close(b);
    return mem_fail(count * (sizeof *b->prompts + mask_floats * sizeof(float)), "the prompts");
}

static bool any_mask(const region *regions, int n)
{
    for (int i = 0; i < n; i++)
        if (regions[i].mask) return true;
    return false;
}

static sca_status fill_prompts(const sca_scene *scene, const region *regions, size_t mask_floats, batch *b)
{
    for (int i = 0; i < b->n; i++) {
        const region *r = &regions[i];
        b->prompts[i] = (sca_prompt){ .points = r->points, .n_points = r->n_points };
        if (r->has_box) {
            for (int k = 0; k < 4; k++) b->boxes[4 * i + k] = (float)r->box[k];
            b->prompts[i].box_px = b->boxes + 4 * i;
        }
        if (r->mask) {
            float *mask = b->masks + mask_floats * (size_t)i;
            TRY(sca_mask_prompt_read(scene, r->mask, mask));
            b->prompts[i].mask = mask;
        }
    }
    return SCA_OK;
}

/* Computes `n` regions into b, which the caller closes. */
static sca_status describe(const job *j, sca_scene *scene, const region *regions, int n, batch *b)
{
    size_t side = (size_t)sca_scene_mask_side(scene);
    size_t mask_floats = any_mask(regions, n) ? side * side : 0;
    TRY(batch_alloc(b, n, j->captions ? sca_model_heads(j->model) : 0, mask_floats));
    TRY(fill_prompts(scene, regions, mask_floats, b));
    return j->captions ? sca_describe(scene, b->prompts, n, b->found, b->texts)
                       : sca_segment(scene, b->prompts, n, b->found);
}

static sca_status put_record(job *j, const record *r)
{
    str *s = &j->output.text;
    if (j->format == TEXT) {
        if (j->records && r->number == 1) str_putc(s, '\n');
        record_put_text(r, s);
    } else {
        if (j->format == JSON) str_put(s, j->records ? ",\n" : "[\n");
        TRY(record_put_json(r, s));
        if (j->format == JSONL) str_putc(s, '\n');
    }
    j->records++;
    return j->overlay ? overlay_region(j->overlay, r) : SCA_OK;
}

static sca_status put_batch(job *j, const char *image, const region *regions, int first, const batch *b)
{
    for (int i = 0; i < b->n; i++) {
        record r = { .image = image, .number = first + i + 1, .region = &regions[i], .mask = &b->found[i] };
        r.texts = b->texts ? b->texts + i * b->heads : NULL;
        r.heads = b->heads;
        TRY(put_record(j, &r));
    }
    return SCA_OK;
}

static sca_status all_batches(job *j, const char *path, sca_scene *scene, const region *list, int n, int size)
{
    for (int first = 0; first < n; first += size) {
        batch b = { 0 };
        sca_status status = describe(j, scene, list + first, n - first < size ? n - first : size, &b);
        if (status == SCA_OK) status = put_batch(j, path, list + first, first, &b);
        batch_close(&b);
        TRY(status);
    }
    return SCA_OK;
}

static sca_status describe_photo(job *j, const char *path, const sca_image *photo, sca_scene *scene)
{
    region whole = { .has_box = true, .box = { 0, 0, photo->width, photo->height } };
    const region *list = j->regions.n ? j->regions.items : &whole;
    int n = j->regions.n ? j->regions.n : 1, size = batch_size(n, photo->width, photo->height);
    regions_warn(&j->regions, path, photo->width, photo->height);
    if (j->overlay) TRY(overlay_photo(j->overlay, photo));
    sca_status status = all_batches(j, path, scene, list, n, size);
    if (j->overlay && status == SCA_OK) status = overlay_labels(j->overlay);
    if (j->overlay && status != SCA_OK) overlay_drop(j->overlay);
    return status;
}

/* One photo; when it fails nothing of it is left in the output. */
static sca_status one_photo(job *j, const char *path)
{
    sca_image photo = { 0 };
    sca_scene *scene = NULL;
    size_t bytes = j->output.text.bytes;
    int64_t records = j->records;
    sca_status status;
    TRY_GOTO(done, sca_image_read_with(path, &j->image, &photo));
    TRY_GOTO(done, sca_encode(j->model, &photo, &scene));
    TRY_GOTO(done, describe_photo(j, path, &photo, scene));
done:
    if (status != SCA_OK && j->output.text.data) {
        j->output.text.bytes = bytes;
        j->output.text.data[bytes] = 0;
        j->records = records;
    }
    if (status != SCA_OK && !strstr(sca_last_error(), path)) (void)status_context(status, "%s", path);
    sca_scene_close(scene);
    sca_image_free(&photo);
    return status;
}

/* All photos: one that fails is reported and the others are done. Results that cannot be written end the run. */
static int all_photos(job *j)
{
    int result = DONE, good = 0;
    for (int i = 0; i < j->args->n_operands; i++) {
        if (one_photo(j, j->args->operands[i]) == SCA_OK)
            good++;
        else
            result = fail_now();
        if (output_flush(&j->output) != SCA_OK) return fail_now();
    }
    if (good == 0) return result; /* the files asked for stay as they were */
    if (j->format == JSON) str_put(&j->output.text, j->records ? "\n]\n" : "[]\n");
    if (output_finish(&j->output) != SCA_OK) return fail_now();
    if (j->overlay && overlay_save(j->overlay, j->args->value[OPTION_OVERLAY]) != SCA_OK) return fail_now();
    return result;
}

static int read_format(const arguments *a, enum format *out)
{
    static const char *const names[] = { "text", "json", "jsonl" };
    const char *wanted = a->value[OPTION_FORMAT];
    *out = TEXT;
    if (!wanted) return DONE;
    for (size_t i = 0; i < LENGTH(names); i++)
        if (strcmp(wanted, names[i]) == 0) {
            *out = (enum format)i;
            return DONE;
        }
    return fail_usage("%s: --format %s: expected text, json or jsonl", a->command, wanted);
}

/* What photos may be like, from the settings, where their types and ranges have been checked. */
static sca_status image_options(const sca_config *settings, sca_image_options *out)
{
    char *exif = NULL, *most = NULL;
    sca_status status;
    TRY_GOTO(done, sca_config_get(settings, "run.exif", &exif));
    TRY_GOTO(done, sca_config_get(settings, "run.max_pixels", &most));
    out->honour_exif = strcmp(exif, "true") == 0;
    if (!text_to_int(most, 1, INT64_MAX, &out->max_pixels))
        status = status_fail(SCA_ERR_ARGUMENT, "run.max_pixels is %s, expected a positive integer", most);
done:
    sca_free(exif);
    sca_free(most);
    return status;
}

static int open_and_run(job *j, const sca_config *settings)
{
    const char *picture = j->args->value[OPTION_OVERLAY];
    if (output_open(j->args->value[OPTION_OUT], &j->output)) return fail_now();
    if (picture && (output_probe(picture) || overlay_open(&j->overlay))) return fail_now();
    if (image_options(settings, &j->image) || sca_model_open(settings, &j->model)) return fail_now();
    return all_photos(j);
}

static int run(const arguments *a, bool captions)
{
    job j = { .args = a, .captions = captions };
    sca_config *settings = NULL;
    int result = arguments_need_model(a);
    if (result == DONE && a->n_operands == 0) result = fail_usage("%s: needs an IMAGE", a->command);
    if (result == DONE) result = read_format(a, &j.format);
    if (result == DONE) result = regions_read(a, &j.regions);
    if (result == DONE) result = arguments_config(a, &settings);
    if (result == DONE) result = open_and_run(&j, settings);
    overlay_close(j.overlay);
    output_free(&j.output);
    sca_model_close(j.model);
    sca_config_close(settings);
    regions_free(&j.regions);
    return result;
}

int run_caption(const arguments *a) { return run(a, true); }

int run_segment(const arguments *a) { return run(a, false); }
