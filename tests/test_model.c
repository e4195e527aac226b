/* test_model.c - whole models: what they weigh, what they refuse, what they write, and that memory goes as planned.
 */
#include "check.h"

#include "model/inside.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden/"
#define TINY GOLDEN "models/gpt2-tiny"

static bool have_shared(void)
{
    if (dir_exists(TINY)) return true;
    check_skip("shared: the shared folder with the golden models is absent");
    return false;
}

/* ---- helpers ----------------------------------------------------------------------------------------- */

/* Settings from assignments, NULL-terminated. */
static config *settings(const char *first, ...)
{
    config *c = NULL;
    CHECK_OK(config_open(NULL, &c));
    va_list args;
    va_start(args, first);
    for (const char *a = first; a && c; a = va_arg(args, const char *)) CHECK_OK(config_set(c, a));
    va_end(args);
    return c;
}

static char work[256]; /* a folder of this run, removed at the end */

static bool make_work(void)
{
    snprintf(work, sizeof work, "%s/test_model.XXXXXX", SCA_BUILD);
    return mkdtemp(work) != NULL;
}

static void remove_work(void)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", work);
    CHECK(system(command) == 0);
}

static char *in_work(const char *name) { return path_join(work, name); }

static void copy_file(const char *from_dir, const char *to_dir, const char *name)
{
    char *from = path_join(from_dir, name), *to = path_join(to_dir, name), *data = NULL;
    size_t bytes;
    CHECK_OK(file_read(from, (size_t)1 << 30, &data, &bytes));
    CHECK_OK(file_write(to, data, bytes));
    mem_free(data);
    mem_free(from);
    mem_free(to);
}

/* gpt2-tiny without its weights. */
static char *copy_model(const char *name)
{
    static const char *const files[] = {
        "config.json", "preprocessor_config.json", "generation_config.json", "vocab.json",
        "merges.txt",  "tokenizer_config.json",    "special_tokens_map.json"
    };
    char *dir = in_work(name);
    CHECK_OK(dir_make(dir));
    for (size_t i = 0; i < LENGTH(files); i++) copy_file(TINY, dir, files[i]);
    return dir;
}

typedef struct damage { /* what a copy of the weights does differently */
    const char *tensor;
    enum { LEAVE_OUT, WRONG_SHAPE, NOT_A_NUMBER, EXTRA } what;
} damage;

/* The weights of gpt2-tiny, with one tensor damaged. */
static void write_damaged(const char *dir, damage how)
{
    weights *w = NULL;
    CHECK_OK(weights_open(TINY, &w));
    size_t n = weights_count(w), k = 0;
    weight_entry *list = mem_zero(n + 1, sizeof *list);
    for (size_t i = 0; i < n; i++) {
        const weight *t = weights_at(w, i);
        bool hit = strcmp(t->name, how.tensor) == 0;
        if (hit && how.what == LEAVE_OUT) continue;
        list[k] = (weight_entry){ t->name, DT_F32, t->ndim, { 0 } };
        for (int d = 0; d < t->ndim; d++) list[k].dim[d] = t->dim[d];
        if (hit && how.what == WRONG_SHAPE) list[k] = (weight_entry){ t->name, DT_F32, 1, { t->count } };
        k++;
    }
    if (how.what == EXTRA) list[k++] = (weight_entry){ how.tensor, DT_F32, 1, { 1 } };
    char *path = path_join(dir, "model.safetensors");
    safetensors_out *out = NULL;
    CHECK_OK(safetensors_create(path, list, k, &out));
    for (size_t i = 0; i < k; i++) {
        const weight *t = weights_find(w, list[i].name);
        size_t count = t ? (size_t)t->count : 1;
        float *data = mem_zero(count, sizeof *data);
        if (t) CHECK_OK(weight_read(t, DT_F32, data));
        if (t && how.what == NOT_A_NUMBER && strcmp(t->name, how.tensor) == 0) data[count / 2] = NAN;
        CHECK_OK(safetensors_put(out, data, count * sizeof *data));
        mem_free(data);
    }
    CHECK_OK(safetensors_commit(out));
    mem_free(list);
    mem_free(path);
    weights_close(w);
}

/* A picture without a file: smooth, asymmetric, of the model's size. */
static float *picture(int side)
{
    float *v = mem_alloc((size_t)side * (size_t)side * 3 * sizeof *v);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++)
                v[(y * side + x) * 3 + c] =
                    sinf((float)(x * (c + 1)) * 0.05f) + cosf((float)y * 0.03f * (float)(c + 2));
    return v;
}

static sca_status open_scene(model *m, scene **s)
{
    int side = model_sizes(m)->sam.image;
    float *pixels = picture(side);
    sca_status status =
        pixels ? scene_open(m, pixels, side, side * 3 / 4, side * 2, side * 3 / 2, s) : SCA_ERR_MEMORY;
    mem_free(pixels);
    return status;
}

static const float box_a[4] = { 30, 40, 200, 310 }, box_b[4] = { 100, 20, 400, 150 },
                   box_c[4] = { 5, 200, 90, 380 };
static const sca_point one_point[] = { { 120, 90, 1 } };
static const sca_prompt prompts[] = { { .box_px = box_a },
                                      { .box_px = box_b },
                                      { .points = one_point, .n_points = 1 },
                                      { .box_px = box_c, .points = one_point, .n_points = 1 } };
enum { PROMPTS = 4 };

static bool same_result(const region_result *a, const region_result *b, float limit)
{
    for (int i = 0; i < a->n_iou; i++)
        if (!(fabsf(a->iou[i] - b->iou[i]) <= limit)) return false;
    if (a->heads != b->heads || strcmp(a->text[0], b->text[0]) != 0) return false;
    return fabs(a->generated[0].logprob - b->generated[0].logprob) <= (double)limit * 10;
}

static sca_status describe_all(model *m, region_result *r)
{
    scene *s = NULL;
    describe_options o = { .masks = true, .captions = true };
    sca_status status = open_scene(m, &s);
    if (status == SCA_OK) status = scene_describe(s, prompts, PROMPTS, &o, r);
    scene_close(s);
    return status;
}

/* gpt2-tiny under one more setting. */
static void describe_under(const char *setting, region_result *r)
{
    config *c = settings("model.path=" TINY, setting, "generate.beams=2", NULL);
    model *m = NULL;
    CHECK_OK(model_open(c, &m));
    CHECK_OK(describe_all(m, r));
    model_close(m);
    config_close(c);
}

/* ---- counts (model.md 10.3) -------------------------------------------------------------------------- */

static int64_t number_after(const char *json, const char *key)
{
    const char *at = strstr(json, key);
    return at ? strtoll(at + strlen(key), NULL, 10) : -1;
}

static void parameter_counts(void)
{
    static const struct {
        const char *sam, *lm;
        int64_t total, trained;
    } row[] = {
        { "model.sam=random:vit_h", "model.lm=random:gpt2-large", 1434553520, 19432832 },
        { "model.sam=random:vit_h", "model.lm=random:open_llama_3b", 4087513520, 19949312 },
        { "model.sam=random:vit_h", "model.lm=random:gpt2", 784825520, 19295104 },
        { "model.sam=random:vit_l", "model.lm=random:gpt2-large", 1105805744, 19432832 },
        { "model.sam=random:vit_b", "model.lm=random:gpt2-large", 887198384, 19432832 },
        { "model.sam=random:vit_b", "model.lm=random:gpt2", 237470384, 19295104 },
    };
    for (size_t i = 0; i < LENGTH(row); i++) {
        config *c = settings(row[i].sam, row[i].lm, NULL);
        str json = { 0 };
        CHECK_OK(model_info(c, &json));
        int64_t total = number_after(str_text(&json), "\"total\": "),
                trained = number_after(str_text(&json), "\"trained\": 1");
        const char *at = strstr(str_text(&json), "\"total\": ");
        trained = at ? number_after(at, "\"trained\": ") : -1;
        CHECKF(total == row[i].total && trained == row[i].trained, "%s %s: %lld parameters, %lld trained",
               row[i].sam, row[i].lm, (long long)total, (long long)trained);
        str_free(&json);
        config_close(c);
    }
}

/* The parts of ViT-H + GPT-2 large. */
static void parameter_parts(void)
{
    config *c = settings("model.sam=random:vit_h", "model.lm=random:gpt2-large", NULL);
    str json = { 0 };
    CHECK_OK(model_info(c, &json));
    static const struct {
        const char *key;
        int64_t count;
    } part[] = {
        { "\"image encoder\", \"parameters\": ", 637026048 }, { "\"prompt encoder\", \"parameters\": ", 6220 },
        { "\"mask decoder\", \"parameters\": ", 4058340 },    { "\"feature mixer\", \"parameters\": ", 19086464 },
        { "\"caption tokens\", \"parameters\": ", 2048 },     { "\"task tokens\", \"parameters\": ", 15360 },
        { "\"projection\", \"parameters\": ", 328960 },       { "\"language model\", \"parameters\": ", 774030080 },
    };
    for (size_t i = 0; i < LENGTH(part); i++)
        CHECKF(number_after(str_text(&json), part[i].key) == part[i].count, "%s%lld, expected %lld", part[i].key,
               (long long)number_after(str_text(&json), part[i].key), (long long)part[i].count);
    str_free(&json);
    config_close(c);
}

/* ---- refused weights --------------------------------------------------------------------------------- */

static void expect_refusal(damage how, sca_status status, const char *part)
{
    char *dir = copy_model("damaged");
    write_damaged(dir, how);
    config *c = settings(NULL);
    str path = { 0 };
    str_printf(&path, "model.path=%s", dir);
    CHECK_OK(config_set(c, str_text(&path)));
    model *m = NULL;
    if (status == SCA_OK)
        CHECK_OK(model_open(c, &m));
    else {
        CHECK_FAILS(model_open(c, &m), status, part);
        CHECK(strstr(sca_last_error(), how.tensor) && strstr(sca_last_error(), "model.safetensors"));
    }
    model_close(m);
    config_close(c);
    str_free(&path);
    mem_free(dir);
}

static void damaged_weights(void)
{
    if (!have_shared()) return;
    expect_refusal((damage){ "task_tokens.weight", LEAVE_OUT }, SCA_ERR_FORMAT, "missing");
    expect_refusal((damage){ "vision_encoder.layers.1.attn.qkv.weight", LEAVE_OUT }, SCA_ERR_FORMAT, "missing");
    expect_refusal((damage){ "language_model.transformer.h.0.attn.c_attn.weight", WRONG_SHAPE }, SCA_ERR_FORMAT,
                   "expected (48,144)");
    expect_refusal((damage){ "mask_decoder.iou_token.weight", NOT_A_NUMBER }, SCA_ERR_FORMAT, "NaN");
    expect_refusal((damage){ "vision_encoder.pos_embed", NOT_A_NUMBER }, SCA_ERR_FORMAT, "NaN");
    expect_refusal((damage){ "language_model.transformer.wte.weight", NOT_A_NUMBER }, SCA_ERR_FORMAT, "NaN");
    expect_refusal((damage){ "some.other.tensor", EXTRA }, SCA_OK, "");
}

static void no_model_named(void)
{
    config *c = settings(NULL);
    model *m = NULL;
    CHECK_FAILS(model_open(c, &m), SCA_ERR_ARGUMENT, "model.path");
    CHECK(m == NULL);
    config_close(c);
    c = settings("model.path=" SCA_SHARED "/nothing-here", NULL);
    CHECK(model_open(c, &m) != SCA_OK && m == NULL && strstr(sca_last_error(), "nothing-here"));
    config_close(c);
}

/* ---- devices, threads, memory ------------------------------------------------------------------------ */

static void bad_prompts(void)
{
    if (!have_shared()) return;
    config *c = settings("model.path=" TINY, "run.threads=1", "generate.beams=1", NULL);
    model *m = NULL;
    scene *s = NULL;
    CHECK_OK(model_open(c, &m));
    CHECK_OK(open_scene(m, &s));
    float nan_box[4] = { 0, NAN, 3, 4 };
    sca_point strange = { 1, 2, 7 };
    sca_prompt bad[] = { { .box_px = nan_box }, { .points = &strange, .n_points = 1 } };
    region_result r = { 0 };
    describe_options o = { .masks = true, .captions = true };
    CHECK_FAILS(scene_describe(s, &bad[0], 1, &o, &r), SCA_ERR_ARGUMENT, "finite");
    CHECK_FAILS(scene_describe(s, &bad[1], 1, &o, &r), SCA_ERR_ARGUMENT, "label 7");
    model_generation(m)->max_tokens = 10000;
    CHECK_FAILS(scene_describe(s, prompts, 1, &o, &r), SCA_ERR_ARGUMENT, "positions");
    region_result_free(&r, 1);
    model_generation(m)->max_tokens = 5;
    model_generation(m)->temperature = 1;
    model_generation(m)->beams = 2;
    CHECK_FAILS(scene_describe(s, prompts, 1, &o, &r), SCA_ERR_ARGUMENT, "beams");
    region_result_free(&r, 1);
    scene_close(s);
    model_close(m);
    config_close(c);
}

/* The same regions alone, together, with one thread and with several; on cpu and on ref. */
static void alone_and_together(void)
{
    if (!have_shared()) return;
    static const char *const devices[] = { "run.device=cpu", "run.device=ref" };
    region_result first[PROMPTS] = { { 0 } };
    for (size_t d = 0; d < LENGTH(devices); d++) {
        config *c = settings("model.path=" TINY, devices[d], "generate.beams=3", NULL);
        model *m = NULL;
        scene *s = NULL;
        region_result all[PROMPTS] = { { 0 } };
        describe_options o = { .masks = true, .captions = true };
        CHECK_OK(model_open(c, &m));
        CHECK_OK(open_scene(m, &s));
        CHECK_OK(scene_describe(s, prompts, PROMPTS, &o, all));
        for (int i = 0; i < PROMPTS; i++) {
            region_result one = { 0 };
            CHECK_OK(scene_describe(s, &prompts[i], 1, &o, &one));
            CHECKF(same_result(&all[i], &one, 1e-5f), "region %d alone differs on %s: '%s' and '%s'", i, devices[d],
                   all[i].text[0], one.text[0]);
            CHECK(memcmp(all[i].mask, one.mask, (size_t)s->width * (size_t)s->height) == 0);
            if (d) CHECKF(same_result(&first[i], &all[i], 1e-4f), "region %d differs between cpu and ref", i);
            region_result_free(&one, 1);
        }
        if (d == 0)
            memcpy(first, all, sizeof first);
        else
            region_result_free(all, PROMPTS);
        scene_close(s);
        model_close(m);
        config_close(c);
    }
    region_result_free(first, PROMPTS);
}

static void threads_do_not_matter(void)
{
    if (!have_shared()) return;
    region_result r[2][PROMPTS] = { { { 0 } } };
    describe_under("run.threads=1", r[0]);
    describe_under("run.threads=3", r[1]);
    for (int i = 0; i < PROMPTS; i++)
        CHECKF(same_result(&r[0][i], &r[1][i], 0), "region %d depends on the threads", i);
    region_result_free(r[0], PROMPTS);
    region_result_free(r[1], PROMPTS);
}

/* The null device foretells the temporary memory to the byte. */
static void plan_is_exact(void)
{
    if (!have_shared()) return;
    config *c = settings("model.path=" TINY, "generate.beams=2", "generate.max_tokens=7", NULL);
    model *m = NULL;
    scene *s = NULL;
    CHECK_OK(model_open(c, &m));
    size_t encode, describe;
    CHECK_OK(encode_peak(m, &encode));
    CHECK_OK(boxes_peak(m, 2, &describe));
    m->temp.peak = 0;
    CHECK_OK(open_scene(m, &s));
    CHECKF(m->temp.peak == encode, "encoding took %zu bytes, planned %zu", m->temp.peak, encode);
    region_result r[2] = { { 0 } };
    describe_options o = { .masks = true, .captions = true };
    s->width = s->height = s->valid_width = s->valid_height = m->sizes.sam.image; /* as the plan assumes */
    CHECK_OK(temp_reserve(m, describe, "the activations", HINT_ENCODE));
    m->temp.peak = 0;
    model_generation(m)->max_tokens = 7;
    m->sizes.lm.eos = -1; /* nothing ends early, as on null */
    CHECK_OK(scene_describe(s, prompts, 2, &o, r));
    CHECKF(m->temp.peak == describe, "describing took %zu bytes, planned %zu", m->temp.peak, describe);
    region_result_free(r, 2);
    scene_close(s);
    model_close(m);
    config_close(c);
}

static void plan_without_allocating(void)
{
    config *c = settings("model.sam=random:vit_h", "model.lm=random:gpt2-large", "generate.beams=1", NULL);
    str json = { 0 };
    CHECK_OK(model_plan(c, 16, &json));
    int64_t total = number_after(str_text(&json), "\"total_bytes\": ");
    int64_t weights_bytes = 4 * (int64_t)1434553520;
    CHECKF(total > weights_bytes && total < weights_bytes + 3 * ((int64_t)1 << 29), "%s", str_text(&json));
    str_clear(&json);
    CHECK_FAILS(model_plan(c, 0, &json), SCA_ERR_ARGUMENT, "regions");
    str_free(&json);
    config_close(c);
}

/* bf16 weights: close to f32, and half the size. */
static void bf16_storage(void)
{
    if (!have_shared()) return;
    region_result r[2][PROMPTS] = { { { 0 } } };
    describe_under("run.precision=f32", r[0]);
    describe_under("run.precision=bf16", r[1]);
    for (int i = 0; i < PROMPTS; i++)
        for (int k = 0; k < r[0][i].n_iou; k++)
            CHECKF(fabsf(r[0][i].iou[k] - r[1][i].iou[k]) < 0.05f, "region %d: iou %f in f32, %f with bf16 weights",
                   i, (double)r[0][i].iou[k], (double)r[1][i].iou[k]);
    region_result_free(r[0], PROMPTS);
    region_result_free(r[1], PROMPTS);
}

/* ---- export ------------------------------------------------------------------------------------------ */

static void export_and_load(void)
{
    if (!have_shared()) return;
    static const char *const from[] = { "model.path=" TINY, "model.path=" GOLDEN "models/llama-tiny",
                                        "model.path=" GOLDEN "models/gpt2-tiny-legacy" };
    for (size_t k = 0; k < LENGTH(from); k++) {
        region_result before[PROMPTS] = { { 0 } }, after[PROMPTS] = { { 0 } };
        char name[32];
        snprintf(name, sizeof name, "exported%zu", k);
        char *dir = in_work(name);
        str path = { 0 };
        str_printf(&path, "model.path=%s", dir);
        config *c = settings(from[k], "generate.beams=2", NULL);
        model *m = NULL;
        CHECK_OK(model_open(c, &m));
        CHECK_OK(describe_all(m, before));
        CHECK_OK(model_export(m, dir, DT_NONE, false));
        model_close(m);
        config_close(c);
        c = settings(str_text(&path), "generate.beams=2", NULL);
        CHECK_OK(model_open(c, &m));
        CHECK_OK(describe_all(m, after));
        for (int i = 0; i < PROMPTS && m; i++)
            CHECKF(same_result(&before[i], &after[i], 0), "%s: region %d", from[k], i);
        weights *w = NULL;
        CHECK_OK(weights_open(dir, &w));
        CHECK(weights_find(w, "language_model.lm_head.weight") != NULL);
        weights_close(w);
        model_close(m);
        config_close(c);
        region_result_free(before, PROMPTS);
        region_result_free(after, PROMPTS);
        str_free(&path);
        mem_free(dir);
    }
}

/* The official writer's names and shapes (its .bin form holds all of them), so that its reader finds every tensor. The
 * second name of the Gaussian matrix may be absent; the tied head may not. */
static void exported_names_are_official(void)
{
    if (!have_shared()) return;
    config *c = settings("model.path=" TINY, NULL);
    model *m = NULL;
    weights *official = NULL, *ours = NULL;
    char *dir = in_work("names");
    CHECK_OK(model_open(c, &m));
    CHECK_OK(model_export(m, dir, DT_NONE, false));
    CHECK_OK(weights_open(GOLDEN "models/gpt2-tiny-bin", &official));
    CHECK_OK(weights_open(dir, &ours));
    for (size_t i = 0; official && ours && i < weights_count(official); i++) {
        const weight *want = weights_at(official, i), *got = weights_find(ours, want->name);
        if (strcmp(want->name, "prompt_encoder.shared_embedding.positional_embedding") == 0) continue;
        CHECKF(got && got->count == want->count && got->ndim == want->ndim &&
                   memcmp(got->dim, want->dim, (size_t)want->ndim * sizeof *want->dim) == 0,
               "'%s' is missing from the export or has another shape", want->name);
    }
    for (size_t i = 0; official && ours && i < weights_count(ours); i++)
        CHECKF(weights_find(official, weights_at(ours, i)->name), "'%s' is no official name",
               weights_at(ours, i)->name);
    weights_close(official);
    weights_close(ours);
    model_close(m);
    config_close(c);
    mem_free(dir);
}

/* A folder with another model's tokenizer: its files would be read instead of the exported ones. */
static void export_over_another(void)
{
    if (!have_shared()) return;
    config *c = settings("model.path=" TINY, NULL);
    model *m = NULL;
    char *dir = in_work("foreign");
    CHECK_OK(dir_make(dir));
    copy_file(GOLDEN "models/llama-tiny", dir, "tokenizer.model");
    CHECK_OK(model_open(c, &m));
    CHECK_FAILS(model_export(m, dir, DT_NONE, false), SCA_ERR_ARGUMENT, "tokenizer.model");
    model_close(m);
    config_close(c);
    mem_free(dir);
}

static void export_trained_part(void)
{
    if (!have_shared()) return;
    config *c = settings("model.path=" TINY, NULL);
    model *m = NULL;
    char *file = in_work("trained.safetensors");
    CHECK_OK(model_open(c, &m));
    CHECK_OK(model_export(m, file, DT_F16, true));
    weights *w = NULL;
    CHECK_OK(weights_open(file, &w));
    CHECK(weights_find(w, "task_tokens.weight") && weights_find(w, "language_project.bias"));
    CHECK(!weights_find(w, "vision_encoder.pos_embed"));
    for (size_t i = 0; w && i < weights_count(w); i++) CHECK(weights_at(w, i)->type == DT_F16);
    CHECK_FAILS(model_export(m, file, DT_U8, false), SCA_ERR_ARGUMENT, "f16");
    CHECK(model_export(m, "/dev/full/x.safetensors", DT_NONE, false) != SCA_OK);
    weights_close(w);
    model_close(m);
    config_close(c);
    mem_free(file);
}

/* SAM and language model assembled are the model up to the mixer. */
static void assembled(void)
{
    if (!have_shared()) return;
    config *c =
        settings("model.sam=" GOLDEN "models/parts/sam_tiny.pth", "model.lm=" GOLDEN "models/parts/gpt2-lm-hub",
                 "model.mixer_layers=3", "generate.beams=1", NULL);
    config *whole = settings("model.path=" TINY, "generate.beams=1", NULL);
    model *a = NULL, *b = NULL;
    region_result ra[PROMPTS] = { { 0 } }, rb[PROMPTS] = { { 0 } };
    CHECK_OK(model_open(c, &a));
    CHECK_OK(model_open(whole, &b));
    CHECK_OK(describe_all(a, ra));
    CHECK_OK(describe_all(b, rb));
    for (int i = 0; i < PROMPTS && ra[i].iou && rb[i].iou; i++)
        for (int k = 0; k < 3; k++) CHECKF(ra[i].iou[k] == rb[i].iou[k], "region %d iou %d", i, k);
    region_result_free(ra, PROMPTS);
    region_result_free(rb, PROMPTS);
    model_close(a);
    model_close(b);
    config_close(c);
    config_close(whole);
}

/* ---- injected failures ------------------------------------------------------------------------------- */

/* One whole use; the n-th allocation or file operation fails. */
static sca_status use(const config *c, region_result *r)
{
    model *m = NULL;
    sca_status status = model_open(c, &m);
    if (status == SCA_OK) status = describe_all(m, r);
    model_close(m);
    return status;
}

/* Every failure is told in words of its own, or does no harm: what only makes things faster (compiled patterns) may be
 * done without, but then the results are those of an undisturbed run. */
static void failing(void (*inject)(int64_t), const config *c, int64_t step)
{
    region_result whole[PROMPTS] = { { 0 } };
    CHECK_OK(use(c, whole));
    bool fired = true;
    for (int64_t n = 1; fired; n += 1 + n / step) {
        region_result r[PROMPTS] = { { 0 } };
        (void)status_set(SCA_OK, "");
        inject(n);
        sca_status status = use(c, r);
        fired = fault_fired();
        inject(0);
        if (!fired) CHECK_OK(status);
        if (status != SCA_OK) CHECKF(*sca_last_error(), "failure %lld has no message", (long long)n);
        for (int i = 0; i < PROMPTS && status == SCA_OK; i++)
            CHECKF(same_result(&whole[i], &r[i], 0), "failure %lld changed region %d", (long long)n, i);
        region_result_free(r, PROMPTS);
    }
    region_result_free(whole, PROMPTS);
}

static void failed_allocations(void)
{
    if (!have_shared()) return;
    config *c = settings("model.path=" TINY, "run.threads=2", "generate.beams=2", "generate.max_tokens=3", NULL);
    failing(fault_alloc, c, 12);
    config_close(c);
}

static void failed_reads(void)
{
    if (!have_shared()) return;
    config *c = settings("model.path=" TINY, "run.threads=1", "generate.beams=1", "generate.max_tokens=2", NULL);
    failing(fault_io, c, 1000000);
    config_close(c);
}

/* ---- trace ------------------------------------------------------------------------------------------- */

static int lines, ops_named;
static void count_lines(void *user, sca_level level, const char *message)
{
    (void)user;
    (void)level;
    lines++;
    ops_named += strstr(message, "op_relpos_attention_fwd") != NULL;
}

static void traced(void)
{
    if (!have_shared()) return;
    char *dir = in_work("dump");
    str dump = { 0 };
    str_printf(&dump, "run.trace=dump:%s", dir);
    const char *const what[] = { "run.trace=names", "run.trace=time", "run.trace=nan", str_text(&dump),
                                 "run.trace=sync" };
    for (size_t i = 0; i < LENGTH(what); i++) {
        config *c = settings("model.path=" TINY, "generate.beams=1", "generate.max_tokens=2", what[i], NULL);
        lines = ops_named = 0;
        sca_log_to(count_lines, NULL, SCA_LOG_INFO);
        region_result r[PROMPTS] = { { 0 } };
        CHECK_OK(use(c, r));
        region_result_free(r, PROMPTS);
        sca_log_to(NULL, NULL, SCA_LOG_INFO);
        if (i < 2) CHECKF(ops_named >= 1 && lines > 10, "%s: %d lines, %d of attention", what[i], lines, ops_named);
        config_close(c);
    }
    char *index = path_join(dir, "index.txt");
    CHECK(file_exists(index));
    config *c = settings("model.path=" TINY, "run.trace=nonsense", NULL);
    model *m = NULL;
    CHECK_FAILS(model_open(c, &m), SCA_ERR_ARGUMENT, "nonsense");
    config_close(c);
    mem_free(index);
    mem_free(dir);
    str_free(&dump);
}

int main(int argc, char **argv)
{
    CHECK(make_work());
    RUN(parameter_counts);
    RUN(parameter_parts);
    RUN(plan_without_allocating);
    RUN(no_model_named);
    RUN(damaged_weights);
    RUN(bad_prompts);
    RUN(alone_and_together);
    RUN(threads_do_not_matter);
    RUN(plan_is_exact);
    RUN(bf16_storage);
    RUN(export_and_load);
    RUN(exported_names_are_official);
    RUN(export_over_another);
    RUN(export_trained_part);
    RUN(assembled);
    RUN(traced);
    RUN(failed_allocations);
    RUN(failed_reads);
    remove_work();
    return check_done();
}
