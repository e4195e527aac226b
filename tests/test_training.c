/* test_training.c - training batches: gradients of whole models against the official implementation's and against
 * differences in double, and the contract of the training section of model.h.
 *
 * SHARED/golden/README.md describes the vectors. */
#include "check.h"

#include "data/data.h"
#include "model/training.h"
#include "model/weights.h"

#include <math.h>
#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden/"
#define DEMO_MODEL SCA_SOURCE "/docs/demo/model"

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

int main(int argc, char **argv)
{
    if (have_shared()) {
        device = "ref";
        RUN(gpt2_default);
        RUN(gpt2_all);
        RUN(gpt2_all_recomputed);
        RUN(llama_default);
        RUN(every_variant);
        RUN(decay_groups);
    }
    return check_done();
}
