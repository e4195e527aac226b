/* test_cli_sets.c - sca eval over data sets of every kind that captions are compared on, in one run: protocols that are
 * named and kept apart, published rows, and the masks of each kind. The photo is that of docs/demo, under other names. */
#define CLI_DIR SCA_BUILD "/cli-test-sets"
#include "cli.h"

#include "data/data.h"

#include <math.h>

#define RESULTS CLI_DIR "/results"
enum { WIDTH = 512, HEIGHT = 640 };

static void put(const char *name, const char *text)
{
    char path[600];
    snprintf(path, sizeof path, CLI_DIR "/%s", name);
    CHECK_OK(file_write(path, text, strlen(text)));
}

static void folders(void)
{
    static const char *const names[] = { "vg/VG_100K",   "vg/VG_100K_2", "vg/annotations", "coco/train2014",
                                         "coco/val2017", "refcoco",      "refcoco+",       "refcocog" };
    static const char *const photos[] = { "vg/VG_100K/1.jpg", "vg/VG_100K_2/2.jpg", "coco/train2014/a.jpg",
                                          "coco/val2017/000000000139.jpg" };
    char line[1200];
    CHECK(system("rm -rf " CLI_DIR) == 0);
    for (size_t i = 0; i < LENGTH(names); i++) {
        snprintf(line, sizeof line, CLI_DIR "/%s", names[i]);
        CHECK_OK(dir_make(line));
    }
    for (size_t i = 0; i < LENGTH(photos); i++) {
        snprintf(line, sizeof line, "cp " CLI_PHOTO " " CLI_DIR "/%s", photos[i]);
        CHECK(system(line) == 0);
    }
}

/* ---- Visual Genome in its three forms ------------------------------------------------------ */

#define PLACE "https://cs.stanford.edu/people/rak248/"
#define REGION(id, image, phrase, x, y, w, h)                                                                      \
    "{\"region_id\": " id ", \"image_id\": " image ", \"phrase\": \"" phrase "\", \"x\": " x ", \"y\": " y         \
    ", \"width\": " w ", \"height\": " h "}"
#define IMAGE(id, file) "{\"file_name\": \"" file "\", \"height\": 640, \"width\": 512, \"id\": " id "}"
#define BOX(id, image, box, caption)                                                                               \
    "{\"id\": " id ", \"image_id\": " image                                                                        \
    ", \"category_id\": 1, \"iscrowd\": 0, \"area\": 4000, \"bbox\": [" box "], \"caption\": \"" caption "\"}"

static void visual_genome(void)
{
    put("vg/annotations/densecap_splits.json", "{\"train\": [], \"val\": [], \"test\": [2, 1]}");
    put("vg/annotations/image_data.json",
        "[{\"image_id\": 1, \"width\": 512, \"height\": 640, \"url\": \"" PLACE
        "VG_100K/1.jpg\"}, {\"image_id\": 2, "
        "\"width\": 512, \"height\": 640, \"url\": \"" PLACE "VG_100K_2/2.jpg\"}]");
    put("vg/annotations/region_descriptions.json",
        "[{\"id\": 1, \"regions\": [" REGION(
            "10", "1", "A face", "100", "80", "300",
            "300") "]}, {\"id\": 2, "
                   "\"regions\": [" REGION("20", "2", "the hat", "10", "20", "90",
                                           "80") ", " REGION("21", "2", "an eye.", "200", "300", "50", "40") "]}]");
    put("vg/test.json",
        "{\"images\": [" IMAGE("1", "1.jpg") ", " IMAGE("2", "2.jpg") "], \"annotations\": [" BOX(
            "1", "1", "100, 80, 300, 300",
            "a face") ", " BOX("2", "2", "10, 20, 90, 80",
                               "the hat") ", " BOX("3", "2", "200, 300, 50, 40",
                                                   "an eye") ", " BOX("4", "2", "0, 0, 512, 640",
                                                                      "a woman") "], \"categories\": [{\"id\": 1, "
                                                                                 "\"name\": "
                                                                                 "\"object\"}]}");
    /* GLaMM's: an entry per caption, whose annotation has the entry's id; a photo may come twice. */
    put("vg/test_caption.json",
        "{\"info\": {}, \"images\": [" IMAGE("7", "VG_100K/1.jpg") ", " IMAGE("8", "2.jpg") ", " IMAGE(
            "9",
            "1.jpg") "], \"annotations\": [" BOX("9", "9", "0.0, 1.5, 500.0, 630.25",
                                                 "woman in a hat") ", " BOX("7", "7", "100.2, 80.9, 300.0, 300.0",
                                                                            "face of a woman") ", " BOX("8", "8",
                                                                                                        "10.0, "
                                                                                                        "20.0, "
                                                                                                        "90.0, "
                                                                                                        "80.0",
                                                                                                        "hat on "
                                                                                                        "the head") "]}");
}

/* ---- RefCOCO: a pickle as Python's protocol 0 writes it ------------------------------------ */

static void put_ref(str *s, int id, int annotation, const char *split, const char *sentence)
{
    str_printf(
        s,
        "(dS'ref_id'\nI%d\nsS'ann_id'\nI%d\nsS'image_id'\nI5\nsS'split'\nS'%s'\nsS'sentences'\n(l(dS'sent'\nV%s\n"
        "sasa",
        id, annotation, split, sentence);
}

/* Ref 1 is of annotation 32, ref 2 of 31, and ref 32 of one without a mask. */
static void refcoco(const char *folder, const char *refs, const char *split)
{
    char name[200];
    str s = { 0 };
    str_put(&s, "(l");
    put_ref(&s, 1, 32, split, "right side");
    put_ref(&s, 2, 31, split, "left half of the picture");
    put_ref(&s, 32, 33, "train", "the face");
    str_put(&s, ".");
    snprintf(name, sizeof name, "%s/%s", folder, refs);
    put(name, str_text(&s));
    str_free(&s);
    snprintf(name, sizeof name, "%s/instances.json", folder);
    put(name,
        "{\"images\": [{\"id\": 5, \"file_name\": \"a.jpg\", \"width\": 512, \"height\": 640}], \"annotations\": ["
        "{\"id\": 31, \"image_id\": 5, \"bbox\": [0, 0, 256, 640], \"segmentation\": [[0, 0, 256, 0, 256, 640, 0, "
        "640]]}, {\"id\": 32, \"image_id\": 5, \"bbox\": [256, 0, 256, 640], \"segmentation\": {\"size\": [640, "
        "512], "
        "\"counts\": [163840, 163840]}}, {\"id\": 33, \"image_id\": 5, \"bbox\": [100, 80, 300, 300], "
        "\"segmentation\": []}]}");
}

/* ---- COCO's panoptic segments, with a label map -------------------------------------------- */

/* Left half: segment 70000, right half: 300. */
static void put_map(const char *name)
{
    str s = { 0 };
    str_printf(&s, "P6\n%d %d\n255\n", WIDTH, HEIGHT);
    for (int i = 0; i < WIDTH * HEIGHT; i++)
        str_put_bytes(&s, i % WIDTH < WIDTH / 2 ? "\x70\x11\x01" : "\x2c\x01\0", 3);
    CHECK_OK(file_write(name, s.data, s.bytes));
    str_free(&s);
}

static void panoptic(bool maps)
{
    put("coco/panoptic_val2017.json",
        "{\"images\": [{\"id\": 139, \"file_name\": \"000000000139.jpg\", \"width\": 512, \"height\": 640}], "
        "\"annotations\": [{\"image_id\": 139, \"file_name\": \"000000000139.png\", \"segments_info\": [{\"id\": "
        "300, "
        "\"category_id\": 2, \"bbox\": [256, 0, 256, 640], \"area\": 1, \"iscrowd\": 0}, {\"id\": 70000, "
        "\"category_id\": 1, \"bbox\": [0, 0, 256, 640], \"area\": 1, \"iscrowd\": 0}]}], \"categories\": "
        "[{\"id\": "
        "1, \"name\": \"person\"}, {\"id\": 2, \"name\": \"wall-other\"}]}");
    if (!maps) return;
    CHECK_OK(dir_make(CLI_DIR "/coco/panoptic_val2017"));
    put_map(CLI_DIR "/coco/panoptic_val2017/000000000139.png");
}

/* ---- looking at results -------------------------------------------------------------------- */

static double score_of(const json_t *set, const char *key)
{
    const json_t *v = json_object_get(json_object_get(set, "scores"), key);
    return v ? json_number_value(v) : -1;
}

/* Mean IoU of the predicted masks with halves of the photo, by region: +1 right, -1 left; others have no mask. */
static void check_halves(const char *name, const json_t *set, int64_t right, int64_t left)
{
    static const double half[2][8] = { { 0, 0, 256, 0, 256, 640, 0, 640 }, { 256, 0, 512, 0, 512, 640, 256, 640 } };
    char path[600];
    json_t *details = NULL, *item;
    double sum = 0;
    size_t i, corners = 4, n = 0;
    snprintf(path, sizeof path, RESULTS "/%s/details.json", name);
    CHECK_OK(json_open(path, &details));
    json_array_foreach(json_object_get(details, "gallery"), i, item)
    {
        int64_t id = json_integer_value(json_object_get(item, "region_id"));
        mask_runs runs = { 0 }, truth = { 0 };
        const double *xy = half[id == right];
        if (id != right && id != left) continue;
        CHECK_OK(mask_runs_parse(json_string_value(json_object_get(item, "mask")), WIDTH, HEIGHT, &runs));
        CHECK_OK(mask_from_polygons(&xy, &corners, 1, WIDTH, HEIGHT, &truth));
        sum += mask_iou(&runs, &truth, false);
        n++;
        mask_runs_free(&runs);
        mask_runs_free(&truth);
    }
    json_decref(details);
    double found = score_of(set, "mask-iou");
    CHECKF(n == 2 && sum > 0 && fabs(found - sum / 2) < 1e-12, "%s: mask IoU %.9f, expected %.9f of %zu", name,
           found, sum / 2, n);
}

static const json_t *set_of(const json_t *root, size_t i, const char *protocol, int64_t regions)
{
    const json_t *set = json_array_get(json_object_get(root, "sets"), i);
    const char *text = json_string_value(json_object_get(set, "protocol"));
    CHECKF(text && strcmp(text, protocol) == 0, "set %zu: '%s', expected '%s'", i, text ? text : "", protocol);
    CHECKF(json_integer_value(json_object_get(set, "regions")) == regions, "%s: not %lld regions", protocol,
           (long long)regions);
    return set;
}

/* The rows of the table below the heading of a set. */
static char *rows_below(const char *page, const char *heading)
{
    const char *at = strstr(page, heading), *end = at ? strstr(at, "<tr class=\"group\">") : NULL;
    if (at && !end) end = strstr(at, "</table>");
    return at && end ? text_copy(at, (size_t)(end - at)) : text_copy("", 0);
}

static void check_rows(const char *page, const char *heading, const char *has, const char *has_not)
{
    char *rows = rows_below(page, heading);
    CHECKF(rows[0], "no heading '%s'", heading);
    CHECKF(strstr(rows, "this model"), "%s: no row of ours", heading);
    CHECKF(strstr(rows, has), "%s: no '%s' in %s", heading, has, rows);
    CHECKF(!has_not || !strstr(rows, has_not), "%s: '%s' in %s", heading, has_not, rows);
    mem_free(rows);
}

static const char settings[] =
    "model: {path: " CLI_MODEL "}\n"
    "data:\n  eval:\n"
    "    - {kind: visual_genome, annotations: " CLI_DIR "/vg/annotations, images: " CLI_DIR "/vg, name: densecap}\n"
    "    - {kind: grit, annotations: " CLI_DIR "/vg/test.json, images: " CLI_DIR "/vg, name: grit}\n"
    "    - {kind: grit, annotations: " CLI_DIR "/vg/test_caption.json, images: " CLI_DIR "/vg, name: glamm}\n"
    "    - {kind: refcoco, annotations: " CLI_DIR "/refcoco, images: " CLI_DIR
    "/coco, split: testA, name: refcoco}\n"
    "    - {kind: refcoco, annotations: " CLI_DIR "/refcoco+, images: " CLI_DIR "/coco, split: testA, name: plus}\n"
    "    - {kind: refcoco, annotations: '" CLI_DIR "/refcocog/refs(google).p', images: " CLI_DIR "/coco, name: g}\n"
    "    - {kind: coco_panoptic, annotations: " CLI_DIR "/coco/panoptic_val2017.json, images: " CLI_DIR
    "/coco, task: recognition, name: panoptic}\n"
    "eval: {output: " RESULTS "}\n"
    "generate: {beams: 1, max_tokens: 6}\n";

static void make_all(void)
{
    folders();
    visual_genome();
    refcoco("refcoco", "refs(unc).p", "testA");
    refcoco("refcoco+", "refs(unc).p", "testA");
    refcoco("refcocog", "refs(google).p", "val");
    panoptic(true);
    put("eval.yaml", settings);
}

/* ---- tests --------------------------------------------------------------------------------- */

static void all_protocols_in_one_table(void)
{
    json_t *root = NULL;
    make_all();
    cli_expect("eval " CLI_DIR "/eval.yaml", 0, "glamm: grit test_caption.json, one region per image; 3 regions",
               "left out");
    CHECK_OK(json_open(RESULTS "/scores.json", &root));
    set_of(root, 0, "visual_genome test, all regions of each image", 3);
    set_of(root, 1, "grit test.json, all regions of each image", 4);
    set_of(root, 2, "grit test_caption.json, one region per image", 3);
    check_halves("refcoco", set_of(root, 3, "refcoco refcoco/refs(unc).p testA, all regions of each image", 3), 1,
                 2);
    check_halves("plus", set_of(root, 4, "refcoco refcoco+/refs(unc).p testA, all regions of each image", 3), 1, 2);
    check_halves("g", set_of(root, 5, "refcoco refcocog/refs(google).p val, all regions of each image", 3), 1, 2);
    check_halves(
        "panoptic",
        set_of(root, 6, "coco_panoptic panoptic_val2017.json, all regions of each image, task recognition", 2), 300,
        70000);
    CHECK(score_of(json_array_get(json_object_get(root, "sets"), 0), "mask-iou") < 0);
    json_decref(root);
}

/* 148.8: densecap; 20.5, 21.7, 15.3: METEOR of RefCOCO, RefCOCO+ testA and RefCOCOg, published for GPT-2 large. */
static void published_rows_stand_with_their_protocol(void)
{
    char *page = cli_read(RESULTS "/report.html");
    check_rows(page, "visual_genome test, all regions of each image; 2 images, 3 regions", "<td>148.8</td>",
               "20.5");
    check_rows(page, "grit test.json, all regions of each image; 2 images, 4 regions", "No published row", "148.8");
    check_rows(page, "grit test_caption.json, one region per image; 3 images, 3 regions", "No published row",
               "148.8");
    check_rows(page, "refcoco refcoco/refs(unc).p testA", "<td>20.5</td>", "21.7");
    check_rows(page, "refcoco refcoco+/refs(unc).p testA", "<td>21.7</td>", "20.5");
    check_rows(page, "refcoco refcocog/refs(google).p val", "<td>15.3</td>", "21.7");
    check_rows(page, "coco_panoptic panoptic_val2017.json", "No published row", NULL);
    mem_free(page);
}

static void glamm_regions_keep_their_captions(void)
{
    static const char *const wanted[] = { "face of a woman", "hat on the head", "woman in a hat" };
    json_t *scored = NULL;
    CHECK_OK(json_open(RESULTS "/glamm/scored.json", &scored));
    for (size_t i = 0; i < LENGTH(wanted); i++) {
        const json_t *record = json_array_get(scored, i), *facts = json_object_get(record, "metadata");
        const char *reference = json_string_value(json_array_get(json_object_get(record, "references"), 0));
        CHECKF(reference && strcmp(reference, wanted[i]) == 0, "%s", reference ? reference : "none");
        int64_t id = json_integer_value(json_object_get(facts, "metadata_image_id"));
        CHECK(id == (int64_t)(7 + i) && id == json_integer_value(json_object_get(facts, "metadata_region_id")));
    }
    json_decref(scored);
}

static void label_maps(void)
{
    static const char only[] = "eval " CLI_DIR "/panoptic.yaml";
    json_t *root = NULL;
    folders();
    put("panoptic.yaml",
        "model: {path: " CLI_MODEL "}\ndata:\n  eval:\n    - {kind: coco_panoptic, annotations: " CLI_DIR
        "/coco/panoptic_val2017.json, images: " CLI_DIR "/coco}\neval: {output: " RESULTS
        "}\ngenerate: {max_tokens: 4}\n");
    panoptic(false);
    cli_expect(only, 0, "coco_panoptic panoptic_val2017.json, all regions of each image; 2 regions", "left out");
    CHECK_OK(json_open(RESULTS "/scores.json", &root));
    CHECK(score_of(json_array_get(json_object_get(root, "sets"), 0), "mask-iou") < 0);
    json_decref(root);
    CHECK_OK(dir_make(CLI_DIR "/coco/panoptic_val2017"));
    cli_expect(only, 1, "", "000000000139.png: missing");
    put("coco/panoptic_val2017/000000000139.png", "P6\n1 1\n255\nabc");
    cli_expect(only, 1, "", "the label map is 1 x 1, its image 512 x 640");
}

/* Rendered scenes have no file: their source is what they were made of. */
static void rendered_scenes(void)
{
    json_t *root = NULL;
    folders();
    put("world.yaml",
        "model: {path: " CLI_MODEL "}\ndata:\n  eval:\n    - {kind: synthetic, annotations: "
        "count=2 size=96 shapes=2, split: val}\neval: {output: " RESULTS "}\ngenerate: {max_tokens: 4}\n");
    cli_expect("eval " CLI_DIR "/world.yaml", 0,
               "synthetic-val: synthetic count=2 size=96 shapes=2 val, all regions of each image", "left out");
    CHECK_OK(json_open(RESULTS "/scores.json", &root));
    double iou = score_of(json_array_get(json_object_get(root, "sets"), 0), "mask-iou");
    CHECKF(iou >= 0 && iou <= 1, "mask-iou %g", iou);
    json_decref(root);
    char *page = cli_read(RESULTS "/report.html");
    CHECK(strstr(page, "data:image/jpeg;base64,") && !strstr(page, "class=\"none\""));
    mem_free(page);
}

int main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    cli_start();
    RUN(all_protocols_in_one_table);
    RUN(published_rows_stand_with_their_protocol);
    RUN(glamm_regions_keep_their_captions);
    RUN(label_maps);
    RUN(rendered_scenes);
    return check_done();
}
