/* test_api.c - sca.h as a stranger's program uses it: results that agree with each other, models that do not know
 * of each other, sinks, prompts of every kind, and every allocation and read of the way failing in turn. */
#include "faults.h"

#include <math.h>
#include <pthread.h>

#define MODEL SCA_SOURCE "/docs/demo/model"
#define PHOTO SCA_SOURCE "/docs/demo/photo.jpg"

typedef struct stage { /* a model and an encoded photo */
    sca_model *model;
    sca_scene *scene;
    sca_image photo;
} stage;

static sca_status open_model(sca_model **out)
{
    sca_config *settings = NULL;
    sca_status status;
    *out = NULL;
    TRY_GOTO(done, sca_config_open(NULL, &settings));
    TRY_GOTO(done, sca_config_set(settings, "model.path=" MODEL));
    TRY_GOTO(done, sca_config_set(settings, "generate.beams=1"));
    TRY_GOTO(done, sca_config_set(settings, "run.threads=1"));
    status = sca_model_open(settings, out);
done:
    sca_config_close(settings);
    return status;
}

static sca_status stage_open(stage *s)
{
    *s = (stage){ 0 };
    TRY(open_model(&s->model));
    TRY(sca_image_read(PHOTO, &s->photo));
    return sca_encode(s->model, &s->photo, &s->scene);
}

static void stage_close(stage *s)
{
    sca_scene_close(s->scene);
    sca_image_free(&s->photo);
    sca_model_close(s->model);
}

static const float rider[4] = { 148, 145, 300, 552 };
static const sca_point points[] = { { 330, 350, 1 }, { 20, 20, 0 } };

/* ---- results ----------------------------------------------------------------------------------------- */

static void results_agree(void)
{
    stage s;
    CHECK_OK(stage_open(&s));
    sca_prompt prompts[] = { { .box_px = rider }, { .points = points, .n_points = 2 }, { 0 } };
    enum { N = 3 };
    sca_mask both[N] = { 0 }, masks[N] = { 0 };
    sca_text described[N] = { 0 }, texts[N] = { 0 };
    CHECK(sca_model_heads(s.model) == 1);
    CHECK_OK(sca_describe(s.scene, prompts, N, both, described));
    CHECK_OK(sca_segment(s.scene, prompts, N, masks));
    CHECK_OK(sca_caption(s.scene, prompts, N, texts));
    for (int i = 0; i < N && masks[i].on && texts[i].text && both[i].on; i++) {
        const sca_mask *m = &masks[i];
        CHECK(m->width == s.photo.width && m->height == s.photo.height && m->n_iou == 3);
        CHECK(memcmp(m->on, both[i].on, (size_t)m->width * (size_t)m->height) == 0);
        CHECK(memcmp(m->box_px, both[i].box_px, sizeof m->box_px) == 0);
        for (int k = 0; k < 3; k++) CHECK(m->iou[k] <= m->iou[m->best] && isfinite(m->iou[k]));
        CHECKF(strcmp(texts[i].text, described[i].text) == 0, "'%s' and '%s'", texts[i].text, described[i].text);
        CHECK(texts[i].n_tokens > 0 && texts[i].n_tokens <= 19 && texts[i].logprob < 0);
    }
    sca_mask_free(both, N);
    sca_mask_free(masks, N);
    sca_text_free(described, N);
    sca_text_free(texts, N);
    sca_text_free(texts, N); /* empty now: nothing happens */
    CHECK_OK(sca_describe(s.scene, NULL, 0, NULL, NULL));
    CHECK_FAILS(sca_describe(s.scene, prompts, -1, both, NULL), SCA_ERR_ARGUMENT, "-1");
    stage_close(&s);
}

static void captions_follow_settings(void)
{
    stage s;
    CHECK_OK(stage_open(&s));
    sca_prompt prompt = { .box_px = rider };
    sca_text text = { 0 };
    CHECK_OK(sca_model_set(s.model, "generate.max_tokens=2"));
    CHECK_OK(sca_caption(s.scene, &prompt, 1, &text));
    CHECK(text.n_tokens == 2);
    sca_text_free(&text, 1);
    CHECK_FAILS(sca_model_set(s.model, "generate.beams=0"), SCA_ERR_ARGUMENT, "beams");
    CHECK_FAILS(sca_model_set(s.model, "run.threads=2"), SCA_ERR_ARGUMENT, "run.threads");
    CHECK_FAILS(sca_model_set(s.model, "generate.beans=2"), SCA_ERR_ARGUMENT, "beans");
    stage_close(&s);
}

/* ---- images and masks -------------------------------------------------------------------------------- */

static void images_from_memory(void)
{
    char *bytes = NULL;
    size_t n = 0;
    sca_image a = { 0 }, b = { 0 };
    CHECK_OK(file_read(PHOTO, 1 << 30, &bytes, &n));
    CHECK_OK(sca_image_decode(bytes, n, &a));
    CHECK_OK(sca_image_read(PHOTO, &b));
    CHECK(a.width == b.width && a.height == b.height &&
          memcmp(a.rgb, b.rgb, 3 * (size_t)a.width * (size_t)a.height) == 0);
    sca_image_free(&a);
    CHECK(sca_image_decode(bytes, n / 2, &a) != SCA_OK && sca_last_error()[0]);
    sca_image_options small = { .max_pixels = 1000 };
    CHECK(sca_image_read_with(PHOTO, &small, &a) != SCA_OK);
    CHECK(strstr(sca_last_error(), "1000") != NULL);
    sca_image_free(&a);
    sca_image_free(&b);
    mem_free(bytes);
}

static void masks_as_prompts(void)
{
    stage s;
    CHECK_OK(stage_open(&s));
    int side = sca_scene_mask_side(s.scene), width = s.photo.width, height = s.photo.height;
    CHECK(side == 64);
    float *logits = mem_alloc((size_t)side * (size_t)side * sizeof *logits);
    uint8_t *gray = mem_zero((size_t)width * (size_t)height, 1);
    for (int y = height / 2; y < height; y++) memset(gray + (size_t)y * (size_t)width, 255, (size_t)width);
    CHECK_OK(sca_mask_prompt(s.scene, gray, width, height, logits));
    /* The photo is 512 x 640: scaled to 51 x 64, the rest is padding. */
    CHECK(logits[0] == -10 && logits[63 * 64] == 10 && logits[31 * 64] == -10 && logits[32 * 64] == 10);
    CHECK(logits[63 * 64 + 50] == 10 && logits[63 * 64 + 51] == -10);
    CHECK_FAILS(sca_mask_prompt(s.scene, gray, width - 1, height, logits), SCA_ERR_ARGUMENT, "511 x 640");
    CHECK(sca_mask_prompt_read(s.scene, "no/such.png", logits) != SCA_OK);

    sca_prompt with = { .box_px = rider, .mask = logits }, without = { .box_px = rider };
    sca_mask a = { 0 }, b = { 0 };
    CHECK_OK(sca_mask_prompt(s.scene, gray, width, height, logits));
    CHECK_OK(sca_segment(s.scene, &with, 1, &a));
    CHECK_OK(sca_segment(s.scene, &without, 1, &b));
    CHECK(a.on && b.on && memcmp(a.on, b.on, (size_t)width * (size_t)height) != 0);
    char *counts = NULL;
    CHECK_OK(sca_mask_rle(&a, &counts));
    CHECK(counts && counts[0]);
    sca_free(counts);
    sca_mask_free(&a, 1);
    sca_mask_free(&b, 1);
    mem_free(gray);
    mem_free(logits);
    stage_close(&s);
}

static void bad_images(void)
{
    stage s;
    sca_scene *scene = NULL;
    sca_image empty = { 0 };
    CHECK_OK(stage_open(&s));
    CHECK_FAILS(sca_encode(s.model, &empty, &scene), SCA_ERR_ARGUMENT, "empty");
    CHECK(scene == NULL);
    uint8_t pixel[3] = { 10, 20, 30 };
    sca_image one = { .width = 1, .height = 1, .rgb = pixel };
    sca_prompt prompt = { 0 };
    sca_mask mask = { 0 };
    sca_text text = { 0 };
    CHECK_OK(sca_encode(s.model, &one, &scene));
    CHECK_OK(sca_describe(scene, &prompt, 1, &mask, &text));
    CHECK(mask.width == 1 && mask.height == 1 && text.text);
    sca_mask_free(&mask, 1);
    sca_text_free(&text, 1);
    sca_scene_close(scene);
    stage_close(&s);
}

/* ---- tokenizers -------------------------------------------------------------------------------------- */

static void tokenizers(void)
{
    sca_tokenizer *t = NULL;
    int *ids = NULL, n = 0;
    char *text = NULL;
    size_t bytes = 0;
    CHECK_OK(sca_tokenizer_open(MODEL, &t));
    CHECK_OK(sca_tokenizer_encode(t, "a\0b", 3, 0, &ids, &n));
    CHECK_OK(sca_tokenizer_decode_bytes(t, ids, n, 1, &text, &bytes));
    CHECKF(bytes == 3 && text && memcmp(text, "a\0b", 3) == 0, "%zu bytes", bytes);
    sca_free(text);
    CHECK_OK(sca_tokenizer_decode(t, ids, n, 1, &text));
    CHECKF(text && strcmp(text, "a\xef\xbf\xbd"
                                "b") == 0,
           "'%s'", text);
    sca_free(text);
    sca_free(ids);
    sca_tokenizer_close(t);
    CHECK(sca_tokenizer_open("no/such/folder", &t) != SCA_OK && strstr(sca_last_error(), "no/such/folder"));
}

/* ---- two models at once ------------------------------------------------------------------------------ */

static void *describe_alone(void *user)
{
    char **caption = user;
    stage s;
    sca_prompt prompt = { .box_px = rider };
    sca_text text = { 0 };
    if (stage_open(&s) == SCA_OK && sca_caption(s.scene, &prompt, 1, &text) == SCA_OK) {
        *caption = text.text;
        text.text = NULL;
    }
    sca_text_free(&text, 1);
    stage_close(&s);
    return NULL;
}

static void models_are_independent(void)
{
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    char *captions[THREADS] = { 0 };
    for (int i = 0; i < THREADS; i++) CHECK(pthread_create(&threads[i], NULL, describe_alone, &captions[i]) == 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < THREADS; i++) {
        CHECKF(captions[i] && strcmp(captions[i], captions[0]) == 0, "'%s' and '%s'", captions[i], captions[0]);
        if (i) sca_free(captions[i]);
    }
    sca_free(captions[0]);
}

/* ---- tables ------------------------------------------------------------------------------------------ */

static void tables_are_json(void)
{
    sca_config *settings = NULL;
    char *text = NULL;
    json_t *value = NULL;
    CHECK_OK(sca_config_open(NULL, &settings));
    CHECK_OK(sca_config_set(settings, "model.path=" MODEL));
    for (int i = 0; i < 3; i++) {
        CHECK_OK(i == 0   ? sca_build_info(&text)
                 : i == 1 ? sca_model_info(settings, &text)
                          : sca_plan(settings, 16, &text));
        CHECK_OK(json_parse(text, strlen(text), "table", &value));
        if (i == 0) CHECK(json_array_size(json_object_get(value, "devices")) >= 2);
        if (i == 1) CHECK(json_integer_value(json_object_get(value, "total")) > 600000);
        if (i == 2) CHECK(json_integer_value(json_object_get(value, "total_bytes")) > 0);
        json_decref(value);
        sca_free(text);
    }
    sca_config_close(settings);
}

/* ---- what fails -------------------------------------------------------------------------------------- */

static sca_status once(void *user)
{
    sca_model *model = user;
    sca_image photo = { 0 };
    sca_scene *scene = NULL;
    sca_prompt prompts[] = { { .box_px = rider }, { .points = points, .n_points = 2 } };
    sca_mask masks[2] = { 0 };
    sca_text texts[2] = { 0 };
    char *counts = NULL;
    sca_status status;
    TRY_GOTO(done, sca_image_read(PHOTO, &photo));
    TRY_GOTO(done, sca_encode(model, &photo, &scene));
    TRY_GOTO(done, sca_describe(scene, prompts, 2, masks, texts));
    status = sca_mask_rle(&masks[1], &counts);
done:
    sca_free(counts);
    sca_mask_free(masks, 2);
    sca_text_free(texts, 2);
    sca_scene_close(scene);
    sca_image_free(&photo);
    return status;
}

static void faults(void)
{
    sca_model *model = NULL;
    CHECK_OK(open_model(&model));
    CHECK(check_faults(fault_alloc, once, model, "an allocation on the way from photo to caption") > 10);
    CHECK(check_faults(fault_io, once, model, "a file operation on the way from photo to caption") > 0);
    /* After all that the model still works. */
    CHECK_OK(once(model));
    sca_model_close(model);
}

int main(int argc, char **argv)
{
    RUN(results_agree);
    RUN(captions_follow_settings);
    RUN(images_from_memory);
    RUN(masks_as_prompts);
    RUN(bad_images);
    RUN(tokenizers);
    RUN(models_are_independent);
    RUN(tables_are_json);
    RUN(faults);
    return check_done();
}
