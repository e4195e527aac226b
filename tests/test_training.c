/* test_training.c - training batches: gradients of whole models against the official implementation's and against
 * differences in double, and the contract of the training section of model.h.
 *
 * SHARED/golden/README.md describes the vectors. */
#include "check.h"

#include "base/rng.h"
#include "data/data.h"
#include "model/training.h"
#include "model/weights.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden/"
#define DEMO_MODEL SCA_SOURCE "/docs/demo/model"
#define SMALL_MODEL SCA_SOURCE "/docs/demo/small"

static const char *device = "ref";

/* ---- a model in training ------------------------------------------------------------------------------- */

typedef struct study {
    config *c;
    model *m;
    training *t;
    training_input in;
    float *pixels;
    double *boxes;
    int32_t *ids, *labels;
    uint8_t *masks;
} study;

static bool set_all(config *c, const char *const *settings)
{
    bool ok = true;
    for (int i = 0; settings && settings[i]; i++) ok = ok && config_set(c, settings[i]) == SCA_OK;
    return ok;
}

/* settings: NULL-terminated assignments */
static bool study_open(study *s, const char *dir, const char *const *settings)
{
    *s = (study){ 0 };
    str path = { 0 }, where = { 0 };
    str_printf(&path, "model.path=%s", dir);
    str_printf(&where, "run.device=%s", device);
    bool ok = config_open(NULL, &s->c) == SCA_OK &&
              set_all(s->c, (const char *[]){ str_text(&path), str_text(&where), NULL }) &&
              set_all(s->c, settings) && model_open(s->c, &s->m) == SCA_OK &&
              training_open(s->m, s->c, &s->t) == SCA_OK;
    check_that(ok, __FILE__, __LINE__, "%s on %s: %s", dir, device, sca_last_error());
    str_free(&path);
    str_free(&where);
    return ok;
}

static void study_close(study *s)
{
    training_close(s->t);
    model_close(s->m);
    config_close(s->c);
    mem_free(s->pixels);
    mem_free(s->boxes);
    mem_free(s->ids);
    mem_free(s->labels);
    mem_free(s->masks);
}

static bool have_shared(void)
{
    if (dir_exists(GOLDEN "models")) return true;
    check_skip("shared: the shared folder with the golden vectors is absent");
    return false;
}

/* The photo as image b of the input, and how its pixels map to the model's. */
static bool put_photo(study *s, int b, const char *path, double *sx, double *sy)
{
    const model_config *c = model_sizes(s->m);
    size_t side = (size_t)c->sam.image, count = side * side * 3;
    sca_image rgb = { 0 };
    int w = 0, h = 0;
    s->pixels = mem_resize(s->pixels, (size_t)(b + 1) * count * sizeof *s->pixels);
    bool ok = s->pixels && image_read(path, NULL, &rgb) == SCA_OK &&
              image_pixels(&rgb, c->sam.image, c->mean, c->std, s->pixels + (size_t)b * count, &w, &h) == SCA_OK;
    check_that(ok, __FILE__, __LINE__, "%s: %s", path, sca_last_error());
    if (ok) {
        *sx = (double)w / rgb.width;
        *sy = (double)h / rgb.height;
    }
    sca_image_free(&rgb);
    s->in.pixels = s->pixels;
    return ok;
}

static int32_t *read_ints(const weights *w, const char *name, int64_t count)
{
    const weight *t = weights_find(w, name);
    int32_t *out = mem_zero((size_t)count, sizeof *out);
    CHECKF(t && t->count == count, "%s: not %lld numbers", name, (long long)count);
    const stored *at = t ? t->hidden : NULL;
    for (int64_t i = 0; at && i < count; i++) {
        int64_t value;
        memcpy(&value, at->first + (size_t)i * sizeof value, sizeof value);
        out[i] = (int32_t)value;
    }
    return out;
}

/* ---- golden gradients ---------------------------------------------------------------------------------- */

static bool golden_batch(study *s, const char *name)
{
    str path = { 0 };
    weights *w = NULL;
    double unused;
    str_printf(&path, GOLDEN "train/%s/batch.safetensors", name);
    bool ok = weights_open(str_text(&path), &w) == SCA_OK;
    check_that(ok, __FILE__, __LINE__, "%s: %s", str_text(&path), sca_last_error());
    const weight *boxes = ok ? weights_find(w, "input_boxes") : NULL,
                 *ids = ok ? weights_find(w, "input_ids") : NULL;
    ok = ok && boxes && ids && put_photo(s, 0, SCA_SHARED "/data/vg-mini/VG_100K/9.jpg", &unused, &unused) &&
         put_photo(s, 1, SCA_SHARED "/data/vg-mini/VG_100K/25.jpg", &unused, &unused);
    if (ok) {
        s->in.images = (int)boxes->dim[0];
        s->in.regions = (int)boxes->dim[1];
        s->in.length = (int)ids->dim[2];
        int64_t n = boxes->dim[0] * boxes->dim[1], L = ids->dim[2];
        s->in.boxes = s->boxes = mem_alloc((size_t)(4 * n) * sizeof *s->boxes);
        CHECK_OK(weight_read(boxes, DT_F64, s->boxes));
        s->in.ids = s->ids = read_ints(w, "input_ids", n * L);
        s->in.labels = s->labels = read_ints(w, "labels", n * (L + 1));
    }
    weights_close(w);
    str_free(&path);
    return ok;
}

static double *gradient_of(const study *s, const training_entry *e)
{
    tensor part = tensor_slice(training_gradients(s->t), 0, e->offset, e->count);
    double *out = mem_alloc((size_t)e->count * sizeof *out);
    void *raw = mem_alloc(tensor_bytes(part));
    CHECK_OK(dev_get(training_device(s->t), raw, part, tensor_bytes(part)));
    dtype_convert(DT_F64, out, part.type, raw, (size_t)e->count);
    mem_free(raw);
    return out;
}

static double length_of(const double *v, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += v[i] * v[i];
    return sqrt(sum);
}

static bool listed(const json_t *list, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item) if (strcmp(json_string_value(item), name) == 0) return true;
    return false;
}

#define GRADIENT_LIMIT 1e-4 /* README: 1e-3 allowed, relative to the tensor's norm */

/* Every step-th value of the gradient against the file's tensor. */
static void compare_gradient(const char *name, const double *got, int64_t count, int64_t step, double length_wanted,
                             const weights *file)
{
    const weight *w = weights_find(file, name);
    if (!w) return;
    double *want = mem_alloc((size_t)w->count * sizeof *want), sum = 0;
    CHECKF(w->count == (count + step - 1) / step, "%s: %lld values", name, (long long)w->count);
    CHECK_OK(weight_read(w, DT_F64, want));
    for (int64_t i = 0; i < w->count; i++) sum += (want[i] - got[i * step]) * (want[i] - got[i * step]);
    CHECKF(sqrt(sum) <= GRADIENT_LIMIT * length_wanted, "%s on %s: the gradient differs by %.3g of %.3g", name,
           device, sqrt(sum), length_wanted);
    mem_free(want);
}

static void compare_gradients(const study *s, const json_t *expected, const weights *file, int64_t step)
{
    const json_t *norms = json_object_get(expected, "norms"), *nothing = json_object_get(expected, "no_gradient");
    const json_t *zero =
        json_object_get(json_object_get(expected, "noise_rel_fp32_vs_fp64"), "zero_gradient_tensors");
    size_t n;
    double all = 0;
    const training_entry *e = training_entries(s->t, &n);
    CHECKF(n == json_object_size(norms) + json_array_size(nothing), "%zu trained parameters, expected %zu", n,
           json_object_size(norms) + json_array_size(nothing));
    for (size_t i = 0; i < n; i++) {
        double *g = gradient_of(s, &e[i]), length = length_of(g, e[i].count);
        const json_t *length_wanted = json_object_get(norms, e[i].name);
        double want = json_number_value(length_wanted);
        all += length * length;
        if (listed(nothing, e[i].name)) {
            CHECKF(length == 0, "%s: the loss does not reach it, but its gradient is %g", e[i].name, length);
        } else if (!listed(zero, e[i].name)) {
            CHECKF(length_wanted && fabs(length - want) <= GRADIENT_LIMIT * want,
                   "%s on %s: norm %.8g, expected %.8g", e[i].name, device, length, want);
            compare_gradient(e[i].name, g, e[i].count, step, want, file);
        }
        mem_free(g);
    }
    double want = json_number_value(json_object_get(expected, "grad_norm"));
    CHECKF(fabs(sqrt(all) - want) <= 1e-5 * want, "gradient norm %.8g, expected %.8g", sqrt(all), want);
}

static const char *const no_dropout[] = { "train.lm_dropout=false", NULL };
static const char *const everything[] = {
    "train.lm_dropout=false",
    "train.trainable=[vision_encoder, prompt_encoder, mask_decoder, language_project, task_tokens, language_model]",
    NULL
};
static const char *const everything_again[] = {
    "train.lm_dropout=false",
    "train.trainable=[vision_encoder, prompt_encoder, mask_decoder, language_project, task_tokens, language_model]",
    "train.checkpointing=all", NULL
};

static void golden_gradients(const char *name, const char *set, const char *const *settings)
{
    study s;
    str dir = { 0 }, one = { 0 }, full = { 0 };
    json_t *json = NULL;
    weights *file = NULL;
    bool all = strcmp(set, "all") == 0;
    str_printf(&dir, GOLDEN "models/%s-fresh", name);
    str_printf(&one, GOLDEN "train/%s/one_batch.json", name);
    str_printf(&full, GOLDEN "train/%s/%s.safetensors", name, all ? "grads_all_every7" : "grads");
    if (study_open(&s, str_text(&dir), settings) && golden_batch(&s, name)) {
        CHECK_OK(json_open(str_text(&one), &json));
        CHECK_OK(weights_open(str_text(&full), &file));
        json_t *expected = json_object_get(json, set);
        training_result got;
        CHECK_OK(training_batch(s.t, &s.in, 1, &got));
        double want = json_number_value(json_object_get(expected, "loss"));
        CHECKF(fabs(got.loss - want) < 1e-5, "loss %.8f, expected %.8f", got.loss, want);
        compare_gradients(&s, expected, file, all ? 7 : 1);
        training_result alone;
        CHECK_OK(training_loss(s.t, &s.in, &alone));
        CHECKF(fabs(alone.loss - got.loss) < 1e-6, "the loss alone is %.8f, with backward %.8f", alone.loss,
               got.loss);
    }
    json_decref(json);
    weights_close(file);
    study_close(&s);
    str_free(&dir);
    str_free(&one);
    str_free(&full);
}

static void gpt2_default(void) { golden_gradients("gpt2-tiny", "default", no_dropout); }
static void gpt2_all(void) { golden_gradients("gpt2-tiny", "all", everything); }
static void gpt2_all_recomputed(void) { golden_gradients("gpt2-tiny", "all", everything_again); }
static void llama_default(void) { golden_gradients("llama-tiny", "default", no_dropout); }

/* ---- variants ------------------------------------------------------------------------------------------ */

/* Captions of a case: the ids are the labels, padded with 0. */
static void case_texts(study *s, const json_t *json)
{
    const json_t *labels = json_object_get(json, "labels");
    size_t L = json_array_size(json_array_get(labels, 0)) - 1,
           n = json_array_size(json_object_get(json, "captions"));
    s->in.regions = (int)n;
    s->in.length = (int)L;
    s->in.ids = s->ids = mem_zero(n * L, sizeof *s->ids);
    s->in.labels = s->labels = mem_zero(n * (L + 1), sizeof *s->labels);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k <= L; k++) {
            int32_t label = (int32_t)json_integer_value(json_array_get(json_array_get(labels, i), k));
            s->labels[i * (L + 1) + k] = label;
            if (k) s->ids[i * L + k - 1] = label < 0 ? 0 : label;
        }
}

static bool case_batch(study *s, const json_t *json)
{
    double sx, sy;
    char *photo = path_join(SCA_SHARED "/data", json_string_value(json_object_get(json, "image")));
    bool ok = put_photo(s, 0, photo, &sx, &sy);
    mem_free(photo);
    if (!ok) return false;
    case_texts(s, json);
    const json_t *boxes = json_object_get(json, "prompt_boxes_xyxy");
    s->in.images = 1;
    s->in.boxes = s->boxes = mem_alloc((size_t)(4 * s->in.regions) * sizeof *s->boxes);
    for (int i = 0; i < 4 * s->in.regions; i++) {
        json_t *v = json_array_get(json_array_get(boxes, (size_t)i / 4), (size_t)i % 4);
        s->boxes[i] = (double)(float)json_number_value(v) * (i % 2 ? sy : sx);
    }
    return true;
}

static void variant_gradients(const char *name)
{
    study s;
    str dir = { 0 }, path = { 0 };
    json_t *json = NULL;
    str_printf(&dir, GOLDEN "ablation/%s/model", name);
    str_printf(&path, GOLDEN "ablation/%s/case.json", name);
    CHECK_OK(json_open(str_text(&path), &json));
    if (study_open(&s, str_text(&dir), no_dropout) && case_batch(&s, json)) {
        training_result got;
        size_t n;
        CHECK_OK(training_batch(s.t, &s.in, 1, &got));
        double want = json_number_value(json_object_get(json, "loss"));
        CHECKF(fabs(got.loss - want) < 1e-5, "%s on %s: loss %.8f, expected %.8f", name, device, got.loss, want);
        const json_t *norms = json_object_get(json, "grad_norms");
        const training_entry *e = training_entries(s.t, &n);
        double most = 0;
        const char *key;
        json_t *length_wanted;
        json_object_foreach((json_t *)(uintptr_t)norms, key, length_wanted) most =
            fmax(most, json_number_value(length_wanted));
        CHECKF(n == json_object_size(norms), "%s: %zu trained parameters, expected %zu", name, n,
               json_object_size(norms));
        for (size_t i = 0; i < n; i++) {
            double *g = gradient_of(&s, &e[i]), length = length_of(g, e[i].count);
            length_wanted = json_object_get(norms, e[i].name);
            /* Those that are zero, or nothing but rounding in float32, have no digits to compare. */
            CHECKF(length_wanted && fabs(length - json_number_value(length_wanted)) <=
                                        GRADIENT_LIMIT * json_number_value(length_wanted) + 1e-7 * most,
                   "%s, %s on %s: norm %.8g, expected %.8g", name, e[i].name, device, length,
                   json_number_value(length_wanted));
            mem_free(g);
        }
    }
    json_decref(json);
    study_close(&s);
    str_free(&dir);
    str_free(&path);
}

static const char *const variants[] = { "base_sca",
                                        "base_sca_multitask",
                                        "base_sca_direct_decoding",
                                        "base_sca_direct_decoding_v2",
                                        "base_sca_multitask_split_mixer",
                                        "base_sca_multitask_v2_heads2",
                                        "base_sca_multitask_roi_pool",
                                        "base_sca_multitask_roi_pool_mlp",
                                        "base_sca_multitask_roi_pool_prenorm" };

static void every_variant(void)
{
    for (size_t i = 0; i < LENGTH(variants); i++) variant_gradients(variants[i]);
}

/* Which parameters are trained and which of them decay, by the official trainer's own grouping. */
static void groups_of(const char *name, const json_t *common, const json_t *own)
{
    study s;
    str dir = { 0 };
    size_t n, trained = 0;
    const char *key;
    json_t *row;
    str_printf(&dir, GOLDEN "ablation/%s/model", name);
    if (study_open(&s, str_text(&dir), NULL)) {
        const training_entry *e = training_entries(s.t, &n);
        const json_t *const part[] = { common, own };
        for (size_t k = 0; k < LENGTH(part); k++)
            json_object_foreach((json_t *)(uintptr_t)part[k], key, row) trained +=
                json_string_value(json_array_get(row, 1))[0] == 'T';
        CHECKF(n == trained, "%s: %zu trained parameters, expected %zu", name, n, trained);
        for (size_t i = 0; i < n; i++) {
            row = json_object_get(own, e[i].name);
            if (!row) row = json_object_get(common, e[i].name);
            const char *official = row ? json_string_value(json_array_get(row, 1)) : "?";
            CHECKF(strcmp(official, e[i].decay ? "Td" : "T-") == 0, "%s, %s: group %s, decays %d", name, e[i].name,
                   official, e[i].decay);
        }
    }
    study_close(&s);
    str_free(&dir);
}

static void decay_groups(void)
{
    json_t *json = NULL;
    CHECK_OK(json_open(GOLDEN "ablation/names.json", &json));
    for (size_t i = 0; i < LENGTH(variants); i++)
        groups_of(variants[i], json_object_get(json, "common"), json_object_get(json, variants[i]));
    json_decref(json);
}

/* ---- the contract, on the model of this repository ------------------------------------------------------- */

/* Regions and captions from a seed: random embeddings, boxes, ids and masks that fit the model. */
static void made_batch(study *s, int images, int regions, int length)
{
    const model_config *c = model_sizes(s->m);
    size_t S = (size_t)c->sam.grid * (size_t)c->sam.grid, C = (size_t)c->sam.channels,
           side = 4 * (size_t)c->sam.grid;
    size_t n = (size_t)images * (size_t)regions, L = (size_t)length;
    s->pixels = mem_alloc((size_t)images * S * C * sizeof *s->pixels);
    s->boxes = mem_alloc(4 * n * sizeof *s->boxes);
    s->ids = mem_alloc(n * L * sizeof *s->ids);
    s->labels = mem_alloc(n * (L + 1) * sizeof *s->labels);
    s->masks = mem_alloc(n * side * side);
    for (size_t i = 0; i < (size_t)images * S * C; i++) {
        float four[4];
        rng_normal(rng_philox(3, i, 0), four);
        s->pixels[i] = four[0];
    }
    for (size_t i = 0; i < n; i++) {
        double x = 10 * (double)(i % 7), y = 12 * (double)(i % 5);
        memcpy(s->boxes + 4 * i, (double[]){ x, y, x + 90, y + 70 }, 4 * sizeof(double));
        for (size_t k = 0; k <= L; k++) {
            int32_t id = (int32_t)(rng_philox(4, i * 100 + k, 0).word[0] % (uint32_t)c->lm.vocab);
            s->labels[i * (L + 1) + k] = k == 0 || (i % 2 && k + 2 > L) ? -100 : id;
            if (k) s->ids[i * L + k - 1] = id;
        }
        for (size_t k = 0; k < side * side; k++)
            s->masks[i * side * side + k] = (k / side / 9 + k % side / (7 + i)) % 2 == 0;
    }
    s->in = (training_input){ .images = images,
                              .regions = regions,
                              .embeddings = s->pixels,
                              .stored = DT_F32,
                              .boxes = s->boxes,
                              .ids = s->ids,
                              .labels = s->labels,
                              .length = length,
                              .masks = s->masks,
                              .seed = 5,
                              .step = 1 };
}

/* Pictures in place of embeddings. */
static void made_pixels(study *s)
{
    size_t side = (size_t)model_sizes(s->m)->sam.image, n = (size_t)s->in.images * side * side * 3;
    mem_free(s->pixels);
    s->in.embeddings = NULL;
    s->in.pixels = s->pixels = mem_alloc(n * sizeof *s->pixels);
    for (size_t i = 0; i < n; i++)
        s->pixels[i] = (float)sin((double)(i % (7 * side)) / 11) + (float)cos((double)(i / side) / 5);
}

/* All trained values move a little along a random direction; on ref, whose memory is the host's. */
static void follows_differences(const char *path, const char *const *settings, bool pictures, const char *what)
{
    const double h = 1e-8; /* of each of many values */
    study s;
    device = "ref";
    if (study_open(&s, path, settings)) {
        made_batch(&s, 2, pictures ? 1 : 3, 6);
        if (pictures) made_pixels(&s);
        training_result got, more, less;
        double *v = training_values(s.t).data, *g = training_gradients(s.t).data, want = 0;
        size_t n;
        const training_entry *e = training_entries(s.t, &n);
        CHECK_OK(training_batch(s.t, &s.in, 0.5, &got));
        for (int sign = 1; sign >= -1; sign--) { /* there, back, and to the other side */
            for (size_t k = 0; k < n; k++)
                for (int64_t i = e[k].offset; i < e[k].offset + e[k].count; i++) {
                    float way[4];
                    rng_normal(rng_philox(11, (uint64_t)i, 0), way);
                    if (sign == 1) want += 2 * g[i] * (double)way[0];
                    v[i] += (sign == 1 ? h : -h) * (double)way[0];
                }
            if (sign != 0) CHECK_OK(training_loss(s.t, &s.in, sign == 1 ? &more : &less));
        }
        double slope = (more.loss - less.loss) / (2 * h);
        CHECKF(fabs(slope - want) <= 1e-5 * fabs(want), "%s: the loss changes by %.10g, its gradient says %.10g",
               what, slope, want);
        CHECKF(fabs(got.loss - 0.5 * (more.loss + less.loss)) < 1e-9 * fabs(got.loss),
               "%s: loss %.10g, beside it %.10g", what, got.loss, more.loss);
    }
    study_close(&s);
}

static void captions_follow_differences(void)
{
    follows_differences(DEMO_MODEL, (const char *[]){ "train.lm_dropout=false", NULL }, false, "captions");
}
static void masks_follow_differences(void)
{
    follows_differences(
        DEMO_MODEL,
        (const char *[]){ "train.objective=mask", "train.trainable=[prompt_encoder, mask_decoder]", NULL }, false,
        "masks");
}
static void embeddings_follow_differences(void)
{
    follows_differences(SMALL_MODEL, (const char *[]){ "train.objective=mask", "train.restore=3", NULL }, true,
                        "restored embeddings");
}
static bool near(float x, double wanted) { return fabs((double)x - wanted) < 1e-6; }

/* What an embedding shall say of a picture. */
static void looks_of_a_picture(void)
{
    enum { SIDE = 32, GRID = 4, ROWS = GRID * GRID, LOOKS = 21 };
    static float pixels[SIDE * SIDE * 3], looks[ROWS * LOOKS];
    CHECK(restore_channels() == LOOKS);
    for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++)
            for (int c = 0; c < 3; c++) /* left: upright stripes; right: plain, another colour in the lower half */
                pixels[(y * SIDE + x) * 3 + c] = x < SIDE / 2       ? (float)(x / 2 % 2)
                                                 : y < SIDE / 2 + 4 ? (float)c
                                                                    : -1;
    restore_targets(looks, pixels, SIDE, GRID);
    const float *stripes = looks + GRID * LOOKS, *plain = looks + 3 * LOOKS,
                *border = looks + (2 * GRID + 3) * LOOKS;
    for (int i = 0; i < 12; i++) {
        CHECK(near(stripes[i], 0.5) && near(plain[i], i % 3));
        CHECK(near(border[i], i < 6 ? i % 3 : -1)); /* the border lies between its upper and its lower quarters */
    }
    for (int i = 12; i < LOOKS; i++) CHECK(near(plain[i], 0));
    CHECK(stripes[12] > 2.9F && stripes[16] < 0.01F);         /* edges from left to right */
    CHECK(border[16] + border[17] > 2 && border[12] < 0.01F); /* from above to below: between two bins */
}
static void text_follows_differences(void)
{
    follows_differences(DEMO_MODEL, (const char *[]){ "train.objective=text", "train.lm_dropout=false", NULL },
                        false, "text");
}

static double total(const study *s)
{
    size_t n;
    const training_entry *e = training_entries(s->t, &n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double *g = gradient_of(s, &e[i]);
        for (int64_t k = 0; k < e[i].count; k++) sum += g[k] * cos((double)(k + (int64_t)i));
        mem_free(g);
    }
    return sum;
}

/* Gradients add up by their weights; dropout is a function of seed, step and batch; without targets nothing happens. */
static void batches_add_up(void)
{
    study s;
    device = "cpu";
    if (study_open(&s, DEMO_MODEL, NULL)) {
        made_batch(&s, 1, 4, 5);
        training_result first, again, other, none;
        CHECK_OK(training_batch(s.t, &s.in, 1, &first));
        double one = total(&s);
        CHECK_OK(training_batch(s.t, &s.in, 0.25, &again));
        CHECKF(fabs(total(&s) - 1.25 * one) <= 1e-5 * fabs(one), "%g after %g", total(&s), one);
        CHECK(again.loss == first.loss && first.targets == again.targets && first.targets > 0);
        s.in.batch = 1;
        CHECK_OK(training_batch(s.t, &s.in, 0, &other));
        CHECK(other.loss != first.loss);
        CHECK_OK(training_loss(s.t, &s.in, &again));
        s.in.batch = 2;
        CHECK_OK(training_loss(s.t, &s.in, &other));
        CHECK(again.loss == other.loss);
        double before = total(&s);
        for (int i = 0; i < 4 * 6; i++) s.labels[i] = -100;
        CHECK_OK(training_batch(s.t, &s.in, 1, &none));
        CHECK(none.targets == 0 && none.loss == 0 && total(&s) == before);
    }
    study_close(&s);
}

/* What is exported are the trained values, and they come back bit for bit; the rest stays as it was. */
static void checkpoints(void)
{
    study s, fresh;
    char dir[512];
    snprintf(dir, sizeof dir, "%s/test_training.XXXXXX", SCA_BUILD);
    device = "cpu";
    CHECK(mkdtemp(dir) != NULL);
    if (study_open(&s, DEMO_MODEL, NULL)) {
        tensor v = training_values(s.t);
        size_t n, bytes = tensor_bytes(v);
        float *mine = mem_alloc(bytes), *theirs = mem_alloc(bytes);
        const training_entry *e = training_entries(s.t, &n);
        CHECK_OK(dev_get(training_device(s.t), mine, v, bytes));
        for (size_t i = 0; i < n; i++)
            for (int64_t k = 0; k < e[i].count; k++) mine[e[i].offset + k] += 1e-3f * (float)(k % 5);
        dev_put(training_device(s.t), v, mine, bytes);
        CHECK_OK(model_export(s.m, dir, DT_NONE, false));
        if (study_open(&fresh, dir, NULL)) {
            CHECK_OK(dev_get(training_device(fresh.t), theirs, training_values(fresh.t), bytes));
            CHECK(memcmp(mine, theirs, bytes) == 0);
        }
        study_close(&fresh);
        if (study_open(&fresh, DEMO_MODEL, NULL)) {
            CHECK_OK(training_load(fresh.t, dir));
            CHECK_OK(dev_get(training_device(fresh.t), theirs, training_values(fresh.t), bytes));
            CHECK(memcmp(mine, theirs, bytes) == 0);
            CHECK_FAILS(training_load(fresh.t, DEMO_MODEL "/config.json"), SCA_ERR_FORMAT, "config.json");
        }
        study_close(&fresh);
        mem_free(mine);
        mem_free(theirs);
    }
    study_close(&s);
    CHECK_OK(dir_remove(dir));
}

static bool fails_to_open(const char *setting, const char *part)
{
    config *c = NULL;
    model *m = NULL;
    training *t = NULL;
    CHECK_OK(config_open(NULL, &c));
    CHECK(set_all(c, (const char *[]){ "model.path=" DEMO_MODEL, setting, NULL }));
    CHECK_OK(model_open(c, &m));
    CHECK_FAILS(training_open(m, c, &t), SCA_ERR_ARGUMENT, part);
    bool failed = t == NULL;
    training_close(t);
    model_close(m);
    config_close(c);
    return failed;
}

static void bad_settings(void)
{
    CHECK(fails_to_open("train.trainable=[mask_decoder.nothing]", "mask_decoder.nothing"));
    CHECK(fails_to_open("train.lr_overrides={mask_decoder: 1, additional: 2}", "mask_decoder"));
    CHECK(fails_to_open("train.restore=1", "train.restore is 1 with train.objective caption"));
    study s;
    device = "cpu";
    training *t = NULL;
    if (study_open(&s, DEMO_MODEL, (const char *[]){ "train.lr_overrides={language_project: 1.0e-6}", NULL })) {
        CHECK_FAILS(training_open(s.m, s.c, &t), SCA_ERR_STATE, "trained");
        size_t n;
        const training_entry *e = training_entries(s.t, &n);
        for (size_t i = 1; i < n; i++) { /* one run of the range for each kind */
            CHECK(e[i].offset >= e[i - 1].offset + e[i - 1].count);
            CHECK(e[i].rate > e[i - 1].rate || (e[i].rate == e[i - 1].rate && e[i].decay <= e[i - 1].decay));
        }
        CHECK(e[n - 1].rate == 0 && strcmp(e[n - 1].name, "language_project.bias") == 0);
    }
    study_close(&s);
}

static void bad_batches(void)
{
    study s;
    device = "cpu";
    if (study_open(&s, DEMO_MODEL, NULL)) {
        training_result r;
        made_batch(&s, 1, 2, 4);
        const training_input good = s.in;
        s.ids[3] = model_sizes(s.m)->lm.vocab;
        CHECK_FAILS(training_batch(s.t, &s.in, 1, &r), SCA_ERR_ARGUMENT, "token id");
        s.ids[3] = 0;
        s.labels[2] = -1;
        CHECK_FAILS(training_batch(s.t, &s.in, 1, &r), SCA_ERR_ARGUMENT, "label -1");
        s.labels[2] = 0;
        s.boxes[5] = NAN;
        CHECK_FAILS(training_batch(s.t, &s.in, 1, &r), SCA_ERR_ARGUMENT, "box 1");
        s.boxes[5] = 0;
        s.in.regions = 0;
        CHECK_FAILS(training_batch(s.t, &s.in, 1, &r), SCA_ERR_ARGUMENT, "0 regions");
        s.in = good;
        s.in.embeddings = NULL;
        CHECK_FAILS(training_batch(s.t, &s.in, 1, &r), SCA_ERR_ARGUMENT, "pixels");
        s.in = good;
        s.in.boxes = NULL;
        CHECK_FAILS(training_batch(s.t, &s.in, 1, &r), SCA_ERR_ARGUMENT, "boxes");
        s.in = good;
        s.in.length = 100;
        s.in.ids = s.labels = mem_resize(s.labels, 2 * 101 * sizeof *s.labels);
        for (int i = 0; i < 2 * 101; i++) s.labels[i] = 1;
        s.in.labels = s.labels;
        CHECK_FAILS(training_batch(s.t, &s.in, 1, &r), SCA_ERR_ARGUMENT, "positions");
        CHECK(total(&s) == 0);
    }
    study_close(&s);
}

/* ---- memory of the published shape --------------------------------------------------------------------- */

/* 1 image x 16 regions, ViT-B embedding at hand, GPT-2 large, 12 mixer layers: the official step takes 12.9 GB. */
static void planned(const char *precision, double most)
{
    config *c = NULL;
    str json = { 0 };
    CHECK_OK(config_open(NULL, &c));
    CHECK(set_all(c, (const char *[]){ "model.sam=random:vit_b", "model.lm=random:gpt2-large", precision, NULL }));
    double box = 0;
    training_input shape = { .images = 1,
                             .regions = 16,
                             .embeddings = &box,
                             .stored = DT_F32,
                             .boxes = &box,
                             .ids = (int32_t *)&box,
                             .labels = (int32_t *)&box,
                             .length = 20 };
    CHECK_OK(training_plan(c, &shape, &json));
    const char *at = json.data ? strstr(str_text(&json), "\"total_bytes\": ") : NULL;
    double bytes = at ? strtod(at + strlen("\"total_bytes\": "), NULL) : 0;
    CHECKF(bytes > 1e9 && bytes <= most, "%s: %.3g bytes, at most %.3g: %s", precision, bytes, most,
           str_text(&json));
    str_free(&json);
    config_close(c);
}

static void memory_of_the_published_shape(void)
{
    planned("run.precision=f32", 12.9e9 / 2);
    planned("run.precision=bf16", 12.9e9 / 3);
}

int main(int argc, char **argv)
{
    RUN(captions_follow_differences);
    RUN(masks_follow_differences);
    RUN(embeddings_follow_differences);
    RUN(looks_of_a_picture);
    RUN(text_follows_differences);
    RUN(batches_add_up);
    RUN(checkpoints);
    RUN(bad_settings);
    RUN(bad_batches);
    RUN(memory_of_the_published_shape);
    if (!have_shared()) return check_done();
    RUN(decay_groups);
    static const char *const devices[] = { "ref", "cpu" };
    for (size_t i = 0; i < LENGTH(devices); i++) {
        device = devices[i];
        RUN(gpt2_default);
        RUN(llama_default);
        RUN(every_variant);
    }
    device = "ref";
    RUN(gpt2_all);
    RUN(gpt2_all_recomputed);
    return check_done();
}
