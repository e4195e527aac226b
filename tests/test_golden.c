/* test_golden.c - the models against vectors of the official implementation, on every device that runs here.
 *
 * SHARED/golden/README.md describes the files. Tensors: relative to the largest magnitude of the expected tensor.
 */
#include "check.h"

#include "data/data.h"
#include "model/inside.h"

#include <math.h>

#define GOLDEN SCA_SHARED "/golden/"
#define TENSOR_LIMIT 2e-5 /* README: 1e-5 expected, 1e-4 allowed */

static const char *device = "cpu";

/* ---- one model, one photo ---------------------------------------------------------------------------- */

typedef struct photo {
    model *m;
    scene *s;
    weights *expected;
    json_t *json;
    sca_prompt *prompts;
    float (*boxes)[4];
    int n;
} photo;

static bool have_shared(void)
{
    if (dir_exists(GOLDEN "models")) return true;
    check_skip("shared: the shared folder with the golden vectors is absent");
    return false;
}

static bool open_model(const char *dir, const char *settings, model **m)
{
    config *c = NULL;
    bool ok = check_that(config_open(NULL, &c) == SCA_OK, __FILE__, __LINE__, "settings: %s", sca_last_error());
    str path = { 0 }, where = { 0 };
    str_printf(&path, "model.path=%s", dir);
    str_printf(&where, "run.device=%s", device);
    ok = ok && config_set(c, str_text(&path)) == SCA_OK && config_set(c, str_text(&where)) == SCA_OK;
    if (ok && settings) ok = config_set(c, settings) == SCA_OK;
    ok = ok && model_open(c, m) == SCA_OK;
    check_that(ok, __FILE__, __LINE__, "%s: %s", dir, sca_last_error());
    str_free(&path);
    str_free(&where);
    config_close(c);
    return ok;
}

static bool encode_photo(model *m, const char *image, scene **s)
{
    sca_image rgb = { 0 };
    const model_config *c = model_sizes(m);
    int side = c->sam.image, w, h;
    float *pixels = mem_alloc((size_t)side * (size_t)side * 3 * sizeof *pixels);
    char *path = path_join(SCA_SHARED "/data", image);
    bool ok = pixels && path && image_read(path, NULL, &rgb) == SCA_OK &&
              image_pixels(&rgb, side, c->mean, c->std, pixels, &w, &h) == SCA_OK &&
              scene_open(m, pixels, w, h, rgb.width, rgb.height, s) == SCA_OK;
    check_that(ok, __FILE__, __LINE__, "%s: %s", image, sca_last_error());
    sca_image_free(&rgb);
    mem_free(pixels);
    mem_free(path);
    return ok;
}

static void photo_close(photo *p)
{
    scene_close(p->s);
    model_close(p->m);
    weights_close(p->expected);
    json_decref(p->json);
    mem_free(p->prompts);
    mem_free(p->boxes);
}

/* The scene of the expected image embedding (C,g,g): what follows the encoder needs no photo. */
static bool scene_from_embedding(photo *p)
{
    const model_config *c = &p->m->sizes;
    int64_t C = c->sam.channels, S = image_tokens(c), side = c->sam.image;
    json_t *reshaped = json_object_get(p->json, "reshaped_hw");
    float *blank = mem_zero((size_t)(side * side * 3), sizeof *blank),
          *order = mem_alloc((size_t)(S * C) * sizeof *order);
    const weight *w = weights_find(p->expected, "image_embeddings");
    float *want = w ? mem_alloc((size_t)w->count * sizeof *want) : NULL;
    bool ok = want && w->count == S * C && weight_read(w, DT_F32, want) == SCA_OK &&
              scene_open(p->m, blank, (int)json_integer_value(json_array_get(reshaped, 1)),
                         (int)json_integer_value(json_array_get(reshaped, 0)),
                         (int)json_integer_value(json_object_get(p->json, "width")),
                         (int)json_integer_value(json_object_get(p->json, "height")), &p->s) == SCA_OK;
    check_that(ok, __FILE__, __LINE__, "a scene from the expected embedding: %s", sca_last_error());
    for (int64_t i = 0; i < S * C && ok; i++) order[i] = want[i % C * S + i / C];
    if (ok) {
        dev_put_f32(p->m->d, p->s->embedding, order);
        op_add_fwd(p->m->d, p->s->base, p->s->embedding, tensor_expand(p->m->net.prompt.no_mask.v, 0, S));
        ok = dev_check(p->m->d) == SCA_OK;
    }
    mem_free(blank);
    mem_free(order);
    mem_free(want);
    return ok;
}

/* own: the copies in this repository, without a photo. id NULL: the case of an ablation variant. */
static bool photo_open(photo *p, const char *name, const char *id, bool own)
{
    *p = (photo){ 0 };
    str dir = { 0 }, json = { 0 }, tensors = { 0 };
    const char *forward = own ? SCA_SOURCE "/tests/golden/" : GOLDEN;
    if (own)
        str_put(&dir, SCA_SOURCE "/docs/demo/model");
    else if (!id)
        str_printf(&dir, GOLDEN "ablation/%s/model", name);
    else
        str_printf(&dir, GOLDEN "models/%s", name);
    if (id) {
        str_printf(&json, "%sforward/%s/%s.json", forward, name, id);
        str_printf(&tensors, "%sforward/%s/%s.safetensors", forward, name, id);
    } else {
        str_printf(&json, GOLDEN "ablation/%s/case.json", name);
        str_printf(&tensors, GOLDEN "ablation/%s/case.safetensors", name);
    }
    bool ok =
        json_open(str_text(&json), &p->json) == SCA_OK && weights_open(str_text(&tensors), &p->expected) == SCA_OK;
    check_that(ok, __FILE__, __LINE__, "%s: %s", str_text(&json), sca_last_error());
    ok = ok && open_model(str_text(&dir), NULL, &p->m);
    if (own)
        ok = ok && scene_from_embedding(p);
    else
        ok = ok && encode_photo(p->m, json_string_value(json_object_get(p->json, "image")), &p->s);
    json_t *boxes = json_object_get(p->json, "prompt_boxes_xyxy");
    p->n = (int)json_array_size(boxes);
    p->prompts = mem_zero((size_t)p->n, sizeof *p->prompts);
    p->boxes = mem_zero((size_t)p->n, sizeof *p->boxes);
    for (int i = 0; i < p->n; i++) {
        for (size_t k = 0; k < 4; k++)
            p->boxes[i][k] = (float)json_number_value(json_array_get(json_array_get(boxes, (size_t)i), k));
        p->prompts[i].box_px = p->boxes[i];
    }
    str_free(&dir);
    str_free(&json);
    str_free(&tensors);
    return ok;
}

/* ---- comparing tensors ------------------------------------------------------------------------------- */

/* Largest difference over the largest expected magnitude; got: count values in the expected order. */
static void compare(const char *name, const float *got, const float *want, int64_t count)
{
    double worst = 0, scale = 0;
    for (int64_t i = 0; i < count; i++) {
        double d = fabs((double)got[i] - (double)want[i]);
        if (!(d <= worst)) worst = d; /* NaN too */
        if (fabs((double)want[i]) > scale) scale = fabs((double)want[i]);
    }
    CHECKF(worst <= TENSOR_LIMIT * scale, "%s on %s: largest difference %.3g of %.3g, limit %.1g", name, device,
           worst, scale, TENSOR_LIMIT);
}

static float *expected(const weights *file, const char *name, int64_t count)
{
    const weight *w = weights_find(file, name);
    if (!w) return NULL;
    float *v = mem_alloc((size_t)w->count * sizeof *v);
    bool ok = v && w->count == count && weight_read(w, DT_F32, v) == SCA_OK;
    CHECKF(ok, "%s: %lld values, expected %lld: %s", name, (long long)w->count, (long long)count, sca_last_error());
    if (ok) return v;
    mem_free(v);
    return NULL;
}

static float *fetch(dev *d, tensor t)
{
    float *v = mem_alloc((size_t)tensor_count(t) * sizeof *v);
    CHECK_OK(dev_get_f32(d, v, t));
    return v;
}

/* A device tensor against the file's tensor of that name, where the file has it. */
static void compare_tensor(const photo *p, const char *name, tensor t)
{
    if (!weights_find(p->expected, name)) return;
    float *want = expected(p->expected, name, tensor_count(t)), *got = fetch(p->m->d, t);
    if (want && got) compare(name, got, want, tensor_count(t));
    mem_free(want);
    mem_free(got);
}

/* (S,C) on the device against (C,g,g) in the file, or against its sample: every 16th channel, 4th row and column.
 */
static void compare_map(const photo *p, const char *name, tensor t)
{
    int64_t C = t.dim[1], S = t.dim[0], g = p->m->sizes.sam.grid, at = 0;
    char sample[64];
    snprintf(sample, sizeof sample, "%s_sample", name);
    bool whole = weights_find(p->expected, name) != NULL;
    if (!whole && !weights_find(p->expected, sample)) return;
    int64_t cs = whole ? 1 : 16, gs = whole ? 1 : 4,
            count = (C + cs - 1) / cs * ((g + gs - 1) / gs) * ((g + gs - 1) / gs);
    float *want = expected(p->expected, whole ? name : sample, count), *got = fetch(p->m->d, t);
    float *order = mem_alloc((size_t)(S * C) * sizeof *order);
    for (int64_t c = 0; c < C; c += cs)
        for (int64_t y = 0; y < g; y += gs)
            for (int64_t x = 0; x < g; x += gs) order[at++] = got[(y * g + x) * C + c];
    if (want) compare(name, order, want, count);
    mem_free(want);
    mem_free(got);
    mem_free(order);
}

/* Rows of (S,C): all, or [::64, ::8] in a sample. */
static void compare_rows(const photo *p, const char *name, tensor t, int64_t row_step, int64_t col_step)
{
    char sample[64];
    snprintf(sample, sizeof sample, "%s_sample", name);
    if (weights_find(p->expected, name)) {
        compare_tensor(p, name, t);
        return;
    }
    if (!weights_find(p->expected, sample)) return;
    int64_t R = t.dim[0], C = t.dim[1], at = 0;
    float *got = fetch(p->m->d, t), *order = mem_alloc((size_t)(R * C) * sizeof *order);
    for (int64_t r = 0; r < R; r += row_step)
        for (int64_t c = 0; c < C; c += col_step) order[at++] = got[r * C + c];
    float *want = expected(p->expected, sample, at);
    if (want) compare(name, order, want, at);
    mem_free(want);
    mem_free(got);
    mem_free(order);
}

/* ---- module by module -------------------------------------------------------------------------------- */

static const size_t TEMP_BYTES = (size_t)1 << 30; /* reserved, touched only where used */

static void check_encoder(photo *p)
{
    model *m = p->m;
    if (!weights_find(p->expected, "patch_embed")) return; /* the first photo only; wide models keep samples */
    char name[32];
    const json_t *image = json_object_get(p->json, "image");
    sca_image rgb = { 0 };
    int side = m->sizes.sam.image;
    char *path = path_join(SCA_SHARED "/data", json_string_value(image));
    float *pixels = mem_alloc((size_t)side * (size_t)side * 3 * sizeof *pixels);
    CHECK_OK(image_read(path, NULL, &rgb));
    CHECK_OK(image_pixels(&rgb, side, m->sizes.mean, m->sizes.std, pixels, NULL, NULL));
    run r = real_run(m);
    tensor x4 = pass_4d(&r.p, 1, side, side, 3), x = pass_2d(&r.p, image_tokens(&m->sizes), m->sizes.sam.width);
    dev_put_f32(m->d, x4, pixels);
    sam_encoder_patches(&r.p, &m->net.encoder, x, x4, false);
    compare_tensor(p, "patch_embed", x);
    sam_encoder_patches(&r.p, &m->net.encoder, x, x4, true);
    for (int i = 0; i < m->sizes.sam.layers; i++) {
        sam_encoder_layer(&r.p, &m->net.encoder, i, x, x, NULL);
        snprintf(name, sizeof name, "encoder_block%d", i);
        compare_tensor(p, name, x);
    }
    arena_release(r.p.temp, 0);
    mem_free(pixels);
    mem_free(path);
    sca_image_free(&rgb);
}

static void check_decoder(photo *p)
{
    model *m = p->m;
    const model_config *c = &m->sizes;
    run r = real_run(m);
    compare_map(p, "image_embeddings", p->s->embedding);
    compare_map(p, "dense_pe", m->pe);
    for (int first = 0; first < p->n; first += REGIONS_AT_ONCE) {
        group g = { .N = p->n - first < REGIONS_AT_ONCE ? p->n - first : REGIONS_AT_ONCE, .n = 2 };
        if (first) break; /* the tensors of all prompts fit into the first group of every golden photo but one */
        for (int i = 0; i < g.N; i++) g.member[i] = first + i;
        decoded out;
        CHECK_OK(decode(&r, p->s, &g, p->prompts, m->pe, &out));
        mixer_input in = out.to_mixer;
        if (g.N == p->n) compare_tensor(p, "sam_tokens_out", in.fused);
        compare_rows(p, "sam_image_out_prompt0", tensor_at(in.x, 0), 64, 8);
        if (m->net.mixer.rule->roi) break; /* no mixer */
        tensor all = pass_3d(&r.p, g.N, mixer_token_count(&m->net.mixer, &in), c->sam.channels), y = in.x;
        if (m->net.mixer.rule->raw) in.x = tensor_expand(tensor_unsqueeze(p->s->base, 0), 0, g.N);
        mixer_tokens_fwd(&r.p, &m->net.mixer, all, y, &in, m->pe, NULL);
        if (g.N == p->n) compare_tensor(p, "mixer_tokens_out", all);
        compare_rows(p, "mixer_image_out_prompt0", tensor_at(y, 0), 64, 8);
    }
    CHECK_OK(dev_check(m->d));
    arena_release(r.p.temp, 0);
}

/* ---- regions: masks, scores, captions ---------------------------------------------------------------- */

static void check_masks(const photo *p, const region_result *results)
{
    json_t *masks = json_object_get(p->json, "masks");
    int w = p->s->width, h = p->s->height;
    for (int i = 0; i < (int)json_array_size(masks); i++) {
        json_t *want = json_array_get(masks, (size_t)i);
        int best = (int)json_integer_value(json_object_get(want, "best"));
        CHECKF(results[i].best == best, "prompt %d: best mask %d, expected %d", i, results[i].best, best);
        for (int k = 0; k < results[i].n_iou; k++) {
            double iou = json_number_value(json_array_get(json_object_get(want, "iou"), (size_t)k));
            CHECKF(fabs((double)results[i].iou[k] - iou) < 1e-4, "prompt %d: iou[%d] %.6f, expected %.6f", i, k,
                   (double)results[i].iou[k], iou);
        }
        json_t *rle = json_array_get(json_object_get(want, "masks"), (size_t)best);
        const char *counts = json_string_value(json_object_get(rle, "counts"));
        if (!counts) continue;
        mask_runs expect = { 0 }, got = { 0 };
        CHECK_OK(mask_runs_parse(counts, w, h, &expect));
        CHECK_OK(mask_encode(results[i].mask, w, h, &got));
        double overlap = mask_area(&expect) + mask_area(&got) ? mask_iou(&got, &expect, false) : 1;
        CHECKF(overlap >= 0.999, "prompt %d: mask overlap %.5f, expected at least 0.999", i, overlap);
        mask_runs_free(&expect);
        mask_runs_free(&got);
    }
}

static void check_texts(const photo *p, const char *key, const char *stable, const region_result *results)
{
    json_t *list = json_object_get(p->json, key);
    int heads = model_heads(p->m);
    for (int i = 0; i < p->n * heads; i++) { /* region-major, then head */
        json_t *want = json_array_get(list, (size_t)i), *ids = json_object_get(want, "tokens");
        const generated *g = &results[i / heads].generated[i % heads];
        const char *text = results[i / heads].text[i % heads];
        json_t *sure = json_array_get(json_object_get(p->json, stable), (size_t)i);
        if (sure && json_is_false(sure)) continue;
        bool same = g->n == (int)json_array_size(ids);
        for (int k = 0; same && k < g->n; k++)
            same = g->tokens[k] == json_integer_value(json_array_get(ids, (size_t)k));
        CHECKF(same, "%s prompt %d on %s: other tokens ('%s'), expected '%s'", key, i, device, text,
               json_string_value(json_object_get(want, "text")));
        CHECKF(strcmp(text, json_string_value(json_object_get(want, "text"))) == 0,
               "%s prompt %d: '%s', expected '%s'", key, i, text, json_string_value(json_object_get(want, "text")));
        double logprob = json_number_value(json_object_get(want, "logprob"));
        CHECKF(fabs(g->logprob - logprob) < 1e-3, "%s prompt %d: logprob %.6f, expected %.6f", key, i, g->logprob,
               logprob);
    }
}

static void check_kept(const photo *p, const region_result *r)
{
    const model_config *c = &p->m->sizes;
    const mixer *mix = &p->m->net.mixer;
    int64_t C = c->sam.channels, q = mix->heads * mix->tokens, d = c->lm.width, side = 4 * c->sam.grid;
    int64_t rows = mix->heads * (mix->task_tokens + mix->tokens);
    float *mixed = expected(p->expected, "mixer_output", p->n * q * C);
    float *prefix = expected(p->expected, "lm_prefix", p->n * rows * d);
    for (int i = 0; i < p->n && mixed; i++) compare("mixer_output", r[i].mixed, mixed + i * q * C, q * C);
    for (int i = 0; i < p->n && prefix; i++) compare("lm_prefix", r[i].prefix, prefix + i * rows * d, rows * d);
    mem_free(mixed);
    mem_free(prefix);
    bool whole = weights_find(p->expected, "low_res_masks_first3") != NULL;
    int64_t step = whole ? 1 : 4, small = side / step;
    float *low =
        expected(p->expected, whole ? "low_res_masks_first3" : "low_res_masks_first3_sample", 9 * small * small);
    float *order = mem_alloc((size_t)(3 * small * small) * sizeof *order);
    for (int i = 0; i < 3 && i < p->n && low; i++) {
        int64_t at = 0;
        for (int64_t k = 0; k < 3; k++)
            for (int64_t y = 0; y < side; y += step)
                for (int64_t x = 0; x < side; x += step) order[at++] = r[i].logits[(k * side + y) * side + x];
        compare("low_res_masks", order, low + i * 3 * small * small, at);
    }
    mem_free(order);
    mem_free(low);
}

static void check_single(const photo *p)
{
    region_result r = { 0 };
    describe_options o = { .single = true, .keep = true };
    CHECK_OK(scene_describe(p->s, p->prompts, 1, &o, &r));
    const weight *w = weights_find(p->expected, "iou_single");
    float *iou = w ? expected(p->expected, "iou_single", w->count) : NULL;
    if (iou && r.iou)
        CHECKF(fabsf(iou[0] - r.iou[0]) < 1e-4f, "single iou %f, expected %f", (double)r.iou[0], (double)iou[0]);
    if (weights_find(p->expected, "low_res_masks_single_first1") && r.logits) {
        int64_t side = 4 * p->m->sizes.sam.grid;
        float *low = expected(p->expected, "low_res_masks_single_first1", side * side);
        if (low) compare("low_res_masks_single", r.logits, low, side * side);
        mem_free(low);
    }
    mem_free(iou);
    region_result_free(&r, 1);
}

/* Logits of the annotated captions by teacher forcing. */
static void check_logits(const photo *p)
{
    json_t *captions = json_object_get(p->json, "caption_ids");
    int R = (int)json_array_size(captions), L = 0, V = p->m->sizes.lm.vocab;
    for (int i = 0; i < R; i++) {
        int n = (int)json_array_size(json_array_get(captions, (size_t)i));
        if (n > L) L = n;
    }
    const weight *w = weights_find(p->expected, "logits");
    if (!w || R == 0) return;
    int rows = w->dim[0] < R ? (int)w->dim[0] : R;
    int *ids = mem_zero((size_t)(R * L), sizeof *ids);
    int eos = p->m->sizes.lm.family == LM_GPT2 ? p->m->sizes.lm.eos : p->m->sizes.lm.pad;
    for (int i = 0; i < R; i++)
        for (int k = 0; k < L; k++) {
            json_t *id = json_array_get(json_array_get(captions, (size_t)i), (size_t)k);
            ids[i * L + k] = id ? (int)json_integer_value(id) : eos;
        }
    float *got = mem_alloc((size_t)rows * (size_t)(L + 1) * (size_t)V * sizeof *got);
    float *want = expected(p->expected, "logits", w->count);
    CHECK_OK(scene_logits(p->s, p->prompts, rows, false, ids, L, got));
    bool fits = want && w->count == (int64_t)rows * (L + 1) * V;
    CHECKF(fits, "logits: %lld values, expected %lld", (long long)w->count, (long long)rows * (L + 1) * V);
    for (int i = 0; i < rows && fits; i++) { /* what follows a caption's end is masked there, and means nothing */
        int64_t at = (int64_t)i * (L + 1) * V,
                n = (int64_t)json_array_size(json_array_get(captions, (size_t)i)) + 1;
        compare("logits", got + at, want + at, n * V);
    }
    mem_free(ids);
    mem_free(got);
    mem_free(want);
}

static void check_regions(photo *p)
{
    region_result *r = mem_zero((size_t)p->n, sizeof *r);
    describe_options o = { .masks = true, .captions = true, .keep = true };
    model_generation(p->m)->beams = 1;
    CHECK_OK(scene_describe(p->s, p->prompts, p->n, &o, r));
    if (r[0].generated) {
        check_masks(p, r);
        check_kept(p, r);
        check_texts(p, "greedy", "greedy_stable", r);
    }
    region_result_free(r, p->n);
    model_generation(p->m)->beams = 3;
    o = (describe_options){ .captions = true };
    CHECK_OK(scene_describe(p->s, p->prompts, p->n, &o, r));
    if (r[0].generated) check_texts(p, "beam3", "beam3_stable", r);
    region_result_free(r, p->n);
    mem_free(r);
}

static void check_copy(const char *name, const char *id, bool own)
{
    photo p;
    if (photo_open(&p, name, id, own)) {
        CHECK_OK(temp_reserve(p.m, TEMP_BYTES, "the activations", HINT_ENCODE));
        if (!own) check_encoder(&p);
        check_decoder(&p);
        check_regions(&p);
        check_single(&p);
        check_logits(&p);
    }
    photo_close(&p);
}

static void check_photo(const char *name, const char *id)
{
    if (have_shared()) check_copy(name, id, false);
}

/* ---- variants (model.md 12): ablation/NAME/case.json ------------------------------------------------- */

static void check_variant(const char *name)
{
    if (!have_shared()) return;
    photo p;
    if (photo_open(&p, name, NULL, false)) {
        CHECK_OK(temp_reserve(p.m, TEMP_BYTES, "the activations", HINT_ENCODE));
        check_decoder(&p);
        check_regions(&p);
    }
    photo_close(&p);
}

static void variant_base(void) { check_variant("base_sca"); }
static void variant_multitask(void) { check_variant("base_sca_multitask"); }
static void variant_direct(void) { check_variant("base_sca_direct_decoding"); }
static void variant_direct_v2(void) { check_variant("base_sca_direct_decoding_v2"); }
static void variant_split_mixer(void) { check_variant("base_sca_multitask_split_mixer"); }
static void variant_two_heads(void) { check_variant("base_sca_multitask_v2_heads2"); }

static void variant_roi_pool(void) { check_variant("base_sca_multitask_roi_pool"); }
static void variant_roi_pool_mlp(void) { check_variant("base_sca_multitask_roi_pool_mlp"); }
static void variant_roi_pool_norm(void) { check_variant("base_sca_multitask_roi_pool_prenorm"); }

static void own_copy(void) { check_copy("gpt2-tiny", "11813", true); }
static void gpt2_tiny_first(void) { check_photo("gpt2-tiny", "9"); }
static void gpt2_tiny_second(void) { check_photo("gpt2-tiny", "2299"); }
static void gpt2_tiny_third(void) { check_photo("gpt2-tiny", "11813"); }
static void llama_tiny_first(void) { check_photo("llama-tiny", "9"); }
static void llama_tiny_second(void) { check_photo("llama-tiny", "11813"); }
static void gpt2_wide_first(void) { check_photo("gpt2-wide", "9"); }
static void gpt2_wide_second(void) { check_photo("gpt2-wide", "11813"); }

/* ---- other prompts ----------------------------------------------------------------------------------- */

typedef struct prompt_store {
    sca_prompt p[8];
    sca_point points[8][8];
    float box[8][4];
    int n;
} prompt_store;

/* The prompts of one case; `mask` is the shared mask input. */
static void read_prompts(const json_t *prompt, const float *mask, prompt_store *s)
{
    json_t *points = json_object_get(prompt, "points"), *labels = json_object_get(prompt, "labels"),
           *boxes = json_object_get(prompt, "boxes");
    if (!boxes) boxes = json_object_get(prompt, "box");
    *s = (prompt_store){ .n = points ? (int)json_array_size(points) : boxes ? (int)json_array_size(boxes) : 1 };
    for (int i = 0; i < s->n; i++) {
        json_t *list = json_array_get(points, (size_t)i);
        for (size_t k = 0; k < json_array_size(list); k++) {
            json_t *xy = json_array_get(list, k), *label = json_array_get(json_array_get(labels, (size_t)i), k);
            s->points[i][k] =
                (sca_point){ json_number_value(json_array_get(xy, 0)), json_number_value(json_array_get(xy, 1)),
                             label ? (int)json_integer_value(label) : 1 };
            s->p[i].n_points++;
        }
        s->p[i].points = s->points[i];
        json_t *box = json_array_get(boxes, (size_t)i);
        for (size_t k = 0; k < json_array_size(box); k++)
            s->box[i][k] = (float)json_number_value(json_array_get(box, k));
        if (json_array_size(box) == 4) s->p[i].box_px = s->box[i];
        s->p[i].mask = mask;
    }
}

static void prompt_case(photo *p, const char *name, const json_t *one, const float *mask)
{
    prompt_store store;
    json_t *prompt = json_object_get(one, "prompt");
    read_prompts(prompt, strstr(name, "mask") ? mask : NULL, &store);
    region_result r[8] = { { 0 } };
    describe_options o = { .masks = true, .captions = true, .keep = true };
    model_generation(p->m)->beams = 1;
    CHECK_OK(scene_describe(p->s, store.p, store.n, &o, r));
    const model_config *c = &p->m->sizes;
    int64_t n = c->caption_tokens * (int64_t)c->sam.channels;
    str key = { 0 };
    str_printf(&key, "%s.mixer_output", name);
    float *mixed = expected(p->expected, str_text(&key), store.n * n);
    for (int i = 0; i < store.n && mixed && r[i].mixed; i++) compare(str_text(&key), r[i].mixed, mixed + i * n, n);
    mem_free(mixed);
    str_clear(&key);
    str_printf(&key, "%s.iou", name);
    float *iou = expected(p->expected, str_text(&key), store.n * 3);
    for (int i = 0; i < store.n && iou && r[i].iou; i++) compare(str_text(&key), r[i].iou, iou + i * 3, 3);
    mem_free(iou);
    str_free(&key);
    json_t *results = json_object_get(one, "results");
    for (int i = 0; i < store.n && r[i].text; i++) {
        json_t *greedy = json_object_get(json_array_get(results, (size_t)i), "greedy");
        const char *text = json_string_value(json_object_get(greedy, "text"));
        if (text) CHECKF(strcmp(text, r[i].text[0]) == 0, "%s: '%s', expected '%s'", name, r[i].text[0], text);
    }
    region_result_free(r, store.n);
}

/* The mask prompt: in the file, or by the formula that the file's JSON states. */
static float *mask_input(const photo *p, int64_t side)
{
    if (weights_find(p->expected, "mask_input")) return expected(p->expected, "mask_input", side * side);
    const char *formula = json_string_value(json_object_get(p->json, "mask_input_formula"));
    CHECK(formula && strstr(formula, "6 - 40*hypot((x-0.4g)/g, (y-0.45g)/g) + 0.5*sin(x/5)"));
    float *v = mem_alloc((size_t)(side * side) * sizeof *v);
    double g = (double)side;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            v[y * side + x] = (float)(6 - 40 * hypot((x - 0.4 * g) / g, (y - 0.45 * g) / g) + 0.5 * sin(x / 5.0));
    return v;
}

static void check_prompts_of(const char *model_name)
{
    if (!have_shared()) return;
    photo p;
    if (photo_open(&p, model_name, "prompts", false)) {
        const char *name;
        json_t *one;
        int64_t side = 4 * p.m->sizes.sam.grid;
        float *mask = mask_input(&p, side);
        json_object_foreach(json_object_get(p.json, "cases"), name, one) prompt_case(&p, name, one, mask);
        mem_free(mask);
    }
    photo_close(&p);
}

static void prompts_gpt2_tiny(void) { check_prompts_of("gpt2-tiny"); }
static void prompts_llama_tiny(void) { check_prompts_of("llama-tiny"); }
static void prompts_gpt2_wide(void) { check_prompts_of("gpt2-wide"); }

/* ---- the forms a model directory can have: the same captions from each ---------------------------------- */

static void check_form(const char *name)
{
    photo p, q;
    bool both = photo_open(&p, "gpt2-tiny", "11813", false);
    both = photo_open(&q, "gpt2-tiny", "11813", false) && both;
    str dir = { 0 };
    str_printf(&dir, GOLDEN "models/%s", name);
    scene_close(q.s);
    model_close(q.m);
    q.s = NULL;
    q.m = NULL;
    if (both && open_model(str_text(&dir), NULL, &q.m) &&
        encode_photo(q.m, json_string_value(json_object_get(q.json, "image")), &q.s)) {
        region_result a[8] = { { 0 } }, b[8] = { { 0 } };
        describe_options o = { .captions = true };
        CHECK_OK(scene_describe(p.s, p.prompts, p.n, &o, a));
        CHECK_OK(scene_describe(q.s, q.prompts, q.n, &o, b));
        bool rounded = strstr(name, "16") != NULL; /* half precision: other weights, so only close */
        for (int i = 0; i < p.n && a[i].text && b[i].text; i++)
            CHECKF(rounded ? fabsf(a[i].iou[0] - b[i].iou[0]) < 0.05f : strcmp(a[i].text[0], b[i].text[0]) == 0,
                   "%s, prompt %d: '%s' (%f), expected '%s' (%f)", name, i, b[i].text[0], (double)b[i].iou[0],
                   a[i].text[0], (double)a[i].iou[0]);
        region_result_free(a, p.n);
        region_result_free(b, q.n);
    }
    str_free(&dir);
    photo_close(&p);
    photo_close(&q);
}

static void every_form(void)
{
    if (!have_shared()) return;
    static const char *const forms[] = { "gpt2-tiny-bin", "gpt2-tiny-legacy", "gpt2-tiny-f16", "gpt2-tiny-bf16" };
    for (size_t i = 0; i < LENGTH(forms); i++) check_form(forms[i]);
}

/* Everything, on cpu and on ref; the wide model is too slow on ref (naive loops in double). */
int main(int argc, char **argv)
{
    static const char *const devices[] = { "cpu", "ref" };
    for (size_t i = 0; i < LENGTH(devices); i++) {
        device = devices[i];
        RUN(own_copy);
        RUN(gpt2_tiny_first);
        RUN(gpt2_tiny_second);
        RUN(gpt2_tiny_third);
        RUN(llama_tiny_first);
        RUN(llama_tiny_second);
        RUN(prompts_gpt2_tiny);
        RUN(prompts_llama_tiny);
        RUN(variant_base);
        RUN(variant_multitask);
        RUN(variant_direct);
        RUN(variant_direct_v2);
        RUN(variant_split_mixer);
        RUN(variant_two_heads);
        RUN(variant_roi_pool);
        RUN(variant_roi_pool_mlp);
        RUN(variant_roi_pool_norm);
        if (strcmp(device, "ref") == 0) continue;
        RUN(every_form);
        RUN(gpt2_wide_first);
        RUN(gpt2_wide_second);
        RUN(prompts_gpt2_wide);
    }
    return check_done();
}
