/* test_demo.c - the model that tools/repro_small.sh made, on the scene of the demo that no training has seen: masks are
 * those of the renderer, and so is what the captions say of the regions themselves, that is up to "left of". What a region
 * lies beside is beyond this model (docs/results/small.md). */
#define CLI_DIR SCA_BUILD "/cli-demo"
#include "cli.h"

#include "data/data.h"

#define MODEL SCA_SOURCE "/docs/demo/small"
#define SCENE SCA_SOURCE "/docs/demo/scene.png"
enum { SCENE_INDEX = 81, REGIONS = 4 };

typedef struct truth {
    dataset *d;
    data_sample s;
} truth;

static bool truth_open(truth *t)
{
    config_dataset set = { .kind = "synthetic",
                           .annotations = "count=82 seed=1 size=384 shapes=4",
                           .split = "test" };
    *t = (truth){ 0 };
    CHECK_OK(dataset_open_masks(&set, &t->d));
    if (!t->d) return false;
    CHECK_OK(dataset_read(t->d, SCENE_INDEX, &t->s));
    CHECK(t->s.n_regions == REGIONS);
    return t->s.n_regions == REGIONS;
}

static void truth_close(truth *t)
{
    sample_free(&t->s);
    dataset_close(t->d);
}

/* The picture is the scene, as it is rendered now. */
static void picture(void)
{
    truth t;
    sca_image file = { 0 }, scene = { 0 };
    if (truth_open(&t)) {
        CHECK_OK(image_read(SCENE, NULL, &file));
        CHECK_OK(dataset_image(t.d, SCENE_INDEX, &t.s, NULL, &scene));
        CHECK(file.width == scene.width && file.height == scene.height && file.rgb && scene.rgb &&
              memcmp(file.rgb, scene.rgb, 3 * (size_t)scene.width * (size_t)scene.height) == 0);
        sca_image_free(&scene);
        sca_image_free(&file);
    }
    truth_close(&t);
}

static double overlap(const truth *t, const sample_region *r, const json_t *record)
{
    mask_runs right = { 0 }, found = { 0 };
    bool there = false;
    double iou = 0;
    const char *counts = json_string_value(json_object_get(json_object_get(record, "mask"), "counts"));
    CHECK_OK(dataset_mask(t->d, SCENE_INDEX, r, t->s.width, t->s.height, &right, &there));
    CHECK_OK(mask_runs_parse(counts ? counts : "", t->s.width, t->s.height, &found));
    if (there && found.counts) iou = mask_iou(&found, &right, false);
    mask_runs_free(&right);
    mask_runs_free(&found);
    return iou;
}

static json_t *caption_regions(const truth *t)
{
    char line[1024];
    json_t *records = NULL;
    int n = snprintf(line, sizeof line, "caption " SCENE " --model " MODEL " --beams 3 --format json");
    for (size_t i = 0; i < REGIONS; i++) {
        const double *b = t->s.regions[i].box;
        n += snprintf(line + n, sizeof line - (size_t)n, " --box %g,%g,%g,%g", b[0], b[1], b[2], b[3]);
    }
    cli_result r = cli_run(line);
    CHECKF(r.code == 0, "%s", r.err);
    CHECK_OK(json_parse(r.out, strlen(r.out), "the results", &records));
    cli_free(&r);
    return records;
}

/* Bytes of a description without its relation. */
static size_t own_part(const char *text)
{
    static const char *const relations[] = { " left of ", " right of ",    " above ",
                                             " below ",   " in front of ", " behind " };
    for (size_t i = 0; i < LENGTH(relations); i++) {
        const char *at = strstr(text, relations[i]);
        if (at) return (size_t)(at - text);
    }
    return strlen(text);
}

static void masks_and_captions(void)
{
    truth t;
    if (truth_open(&t)) {
        json_t *records = caption_regions(&t);
        size_t right = 0;
        double sum = 0;
        CHECK(json_array_size(records) == REGIONS);
        for (size_t i = 0; i < REGIONS; i++) {
            const json_t *record = json_array_get(records, i);
            const char *caption = json_string_value(json_object_get(record, "caption"));
            double iou = overlap(&t, &t.s.regions[i], record);
            CHECKF(iou > 0.5, "region %zu: mask IoU %g", i, iou);
            sum += iou;
            const char *wanted = t.s.regions[i].phrases[0];
            size_t n = own_part(wanted);
            right += caption && own_part(caption) == n && memcmp(caption, wanted, n) == 0;
        }
        CHECKF(right == REGIONS, "%zu of %d captions are right", right, REGIONS);
        CHECKF(sum / REGIONS > 0.75, "mean mask IoU %g", sum / REGIONS);
        json_decref(records);
    }
    truth_close(&t);
}

int main(int argc, char **argv)
{
    cli_start();
    RUN(picture);
    RUN(masks_and_captions);
    return check_done();
}
