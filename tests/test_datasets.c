/* test_datasets.c - readers of data sets: real files of the shared folder, small ones made here, and bad ones. */
#include "data/data.h"
#include "faults.h"
#include "sets.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define COCO SCA_SHARED "/data/coco-mini"
#define GENOME SCA_SHARED "/data/vg-mini"

/* ---- files of the tests -------------------------------------------------------------------------------------- */

static char folder[] = SCA_BUILD "/datasets.XXXXXX";
static char written[64][600];
static size_t n_written;

static const char *in_folder(const char *name) { return made_path(folder, name); }

static void put_bytes(const char *name, const void *data, size_t bytes)
{
    const char *path = in_folder(name);
    CHECK_OK(file_write(path, data, bytes));
    size_t i = 0;
    while (i < n_written && strcmp(written[i], path) != 0) i++;
    if (i == n_written && n_written < LENGTH(written)) strcpy(written[n_written++], path);
}

static void put_file(const char *name, const char *text) { put_bytes(name, text, strlen(text)); }

static void clean(void)
{
    for (size_t i = 0; i < n_written; i++) unlink(written[i]);
    rmdir(in_folder("VG_100K_2"));
    rmdir(in_folder("train"));
    rmdir(in_folder("panoptic"));
    rmdir(in_folder("refs"));
    rmdir(folder);
}

static config_dataset made(const char *kind, const char *name) { return set_of(kind, in_folder(name), folder, ""); }

static dataset *open_made(const char *kind, const char *name)
{
    config_dataset set = made(kind, name);
    dataset *d = NULL;
    CHECK_OK(dataset_open(&set, &d));
    return d;
}

static sca_status open_and_close(const config_dataset *set)
{
    dataset *d;
    sca_status status = dataset_open(set, &d);
    dataset_close(d);
    return status;
}

static bool box_is(const sample_region *r, double x0, double y0, double x1, double y1)
{
    return r->box[0] == x0 && r->box[1] == y0 && r->box[2] == x1 && r->box[3] == y1;
}

static void check_counts(const dataset *d, int64_t images, int64_t regions, int64_t phrases, const char *what)
{
    const dataset_counts *c = dataset_counted(d);
    CHECKF(c->images == images && c->regions == regions && c->phrases == phrases,
           "%s: %lld images, %lld regions, %lld phrases", what, (long long)c->images, (long long)c->regions,
           (long long)c->phrases);
    CHECK(dataset_count(d) == images);
}

/* Every image is there, and the samples hold what the counts say. */
static void check_samples(const dataset *d, bool files)
{
    int64_t regions = 0, phrases = 0;
    for (int64_t i = 0; i < dataset_count(d); i++) {
        data_sample s;
        CHECK_OK(dataset_read(d, i, &s));
        if (files) CHECKF(file_exists(s.path), "%s is absent", s.path);
        regions += (int64_t)s.n_regions;
        for (size_t r = 0; r < s.n_regions; r++) phrases += (int64_t)s.regions[r].n_phrases;
        sample_free(&s);
    }
    CHECK(regions == dataset_counted(d)->regions && phrases == dataset_counted(d)->phrases);
}

/* ---- the shared folder ----------------------------------------------------------------------------------------- */

static void check_shared(const char *kind, const char *annotations, const char *images, const char *split,
                         int64_t n, int64_t regions, int64_t empty)
{
    config_dataset set = set_of(kind, annotations, images, split);
    dataset *d = NULL;
    CHECK_OK(dataset_open(&set, &d));
    if (!d) return;
    check_counts(d, n, regions, regions, annotations);
    CHECK(dataset_counted(d)->empty == empty && dataset_counted(d)->bad == 0);
    check_samples(d, true);
    dataset_close(d);
}

static void coco_mini(void)
{
    if (!dir_exists(COCO)) {
        check_skip("shared: coco-mini is absent");
        return;
    }
    check_shared("coco", COCO "/annotations/instances_train2017.json", COCO "/train2017", "", 126, 929, 2);
    check_shared("coco", COCO "/annotations/instances_val2017.json", COCO, "", 128, 898, 0);
    check_shared("coco_panoptic", COCO "/annotations/panoptic_train2017.json", COCO, "", 100, 1111, 0);
    check_shared("coco_panoptic", COCO "/annotations/panoptic_val2017.json", COCO, "", 100, 1078, 0);
}

static void vg_mini(void)
{
    if (!dir_exists(GENOME)) {
        check_skip("shared: vg-mini is absent");
        return;
    }
    check_shared("visual_genome", GENOME "/annotations", GENOME, "train", 110, 510, 0);
    check_shared("visual_genome", GENOME "/annotations", GENOME, "validation", 16, 51, 0);
    check_shared("visual_genome", GENOME "/annotations", GENOME, "", 128, 594, 0);
    check_shared("visual_genome", GENOME "/annotations", GENOME, "full", 254, 1155, 0);
    config_dataset set = set_of("visual_genome", GENOME "/annotations", GENOME, "train");
    dataset *d = NULL;
    data_sample s = { 0 };
    CHECK_OK(dataset_open(&set, &d));
    if (!d) return;
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(s.image_id == 9 && s.width == 640 && s.height == 480 && text_ends(s.path, "/VG_100K/9.jpg"));
    if (CHECKF(s.n_regions >= 2, "%zu regions", s.n_regions)) {
        CHECK(s.regions[0].id == 1 && box_is(&s.regions[0], 1, 187, 613, 473));
        CHECK(strcmp(s.regions[1].phrases[0], "pink plastic container with bread and almonds") == 0);
    }
    sample_free(&s);
    dataset_close(d);
}

/* ---- COCO's formats -------------------------------------------------------------------------------------------- */

/* Annotations first and categories last; a crowd, an empty image, boxes that are cut, zero sides. */
static const char instances[] =
    "{\"annotations\": ["
    "{\"id\": 11, \"image_id\": 2, \"category_id\": 5, \"bbox\": [1.9, 2.9, 3.9, 4.9], \"iscrowd\": 0},"
    "{\"id\": 12, \"image_id\": 1, \"category_id\": 7, \"bbox\": [-0.5, -3.7, 10, 0], \"iscrowd\": 1,"
    " \"segmentation\": {\"counts\": [1, 2, 3], \"size\": [2, 3]}},"
    "{\"id\": 10, \"image_id\": 2, \"category_id\": 7, \"bbox\": [0, 0, 8, 9]}],"
    "\"images\": [{\"id\": 2, \"file_name\": \"b.jpg\", \"width\": 8, \"height\": 9},"
    "{\"id\": 3, \"file_name\": \"c.jpg\", \"width\": 8, \"height\": 9},"
    "{\"id\": 1, \"file_name\": \"sub/a.jpg\"}], \"licenses\": [],"
    "\"categories\": [{\"id\": 7, \"name\": \"dining table\"}, {\"id\": 5, \"name\": \"Person\"}]}";

static void coco(void)
{
    data_sample s;
    put_file("coco.json", instances);
    dataset *d = open_made("coco", "coco.json");
    if (!d) return;
    check_counts(d, 2, 3, 3, "coco");
    CHECK(dataset_counted(d)->empty == 1 && strcmp(dataset_name(d), "coco") == 0 && !dataset_recognition(d));
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(s.image_id == 2 && s.n_regions == 2 && text_ends(s.path, "/b.jpg") && s.width == 8 && s.height == 9);
    CHECK(s.regions[0].id == 11 && box_is(&s.regions[0], 1, 2, 4, 6));
    CHECK(strcmp(s.regions[0].phrases[0], "Person") == 0 && s.regions[0].n_phrases == 1);
    CHECK(s.regions[1].id == 10 && strcmp(s.regions[1].phrases[0], "dining table") == 0);
    sample_free(&s);
    CHECK_OK(dataset_read(d, 1, &s));
    CHECK(s.image_id == 1 && s.n_regions == 1 && text_ends(s.path, "/sub/a.jpg") && s.width == 0);
    CHECK(s.regions[0].id == 12 && box_is(&s.regions[0], 0, -3, 10, -3));
    sample_free(&s);
    CHECK_FAILS(dataset_read(d, 2, &s), SCA_ERR_ARGUMENT, "expected 0 to 1");
    CHECK_FAILS(dataset_read(d, -1, &s), SCA_ERR_ARGUMENT, "expected 0 to 1");
    dataset_close(d);
}

/* ---- masks: polygons, run lengths of a crowd, compressed ones, none, wrong ones ------------------------------------ */

static int64_t area_of(const dataset *d, const sample_region *r, bool *found)
{
    mask_runs runs;
    CHECK_OK(dataset_mask(d, 0, r, 6, 4, &runs, found));
    int64_t area = *found ? mask_area(&runs) : 0;
    mask_runs_free(&runs);
    return area;
}

static void masks(void)
{
    static const int64_t areas[] = { 6, 7, 24, 0 };
    put_file("masks.json",
             "{\"images\": [{\"id\": 1, \"file_name\": \"a.jpg\", \"width\": 6, \"height\": 4}], \"annotations\": ["
             "{\"id\": 1, \"image_id\": 1, \"category_id\": 1, \"bbox\": [1, 1, 3, 2], \"segmentation\":"
             " [[1, 1, 4, 1, 4, 3, 1, 3]]},"
             "{\"id\": 2, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 6, 4], \"iscrowd\": 1,"
             " \"segmentation\": {\"counts\": [3, 5, 14, 2], \"size\": [4, 6]}},"
             "{\"id\": 3, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 6, 4], \"segmentation\":"
             " {\"counts\": \"0h0\", \"size\": [4, 6]}},"
             "{\"id\": 4, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 6, 4], \"segmentation\": []},"
             "{\"id\": 5, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 6, 4], \"segmentation\": [[1, 2]]},"
             "{\"id\": 6, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 6, 4], \"segmentation\":"
             " {\"counts\": [99], \"size\": [4, 6]}}], \"categories\": [{\"id\": 1, \"name\": \"x\"}]}");
    config_dataset set = made("coco", "masks.json");
    dataset *d = NULL;
    data_sample s;
    mask_runs runs;
    bool found;
    CHECK_OK(dataset_open_masks(&set, &d));
    if (!d) return;
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(s.n_regions == 6);
    for (size_t i = 0; i < LENGTH(areas); i++) {
        int64_t area = area_of(d, &s.regions[i], &found);
        CHECKF(area == areas[i] && found == (areas[i] > 0), "mask %d: %d pixels", (int)i, (int)area);
    }
    CHECK_FAILS(dataset_mask(d, 0, &s.regions[4], 6, 4, &runs, &found), SCA_ERR_FORMAT, "annotation 5");
    CHECK_FAILS(dataset_mask(d, 0, &s.regions[5], 6, 4, &runs, &found), SCA_ERR_FORMAT, "annotation 6");
    sample_free(&s);
    dataset_close(d);

    CHECK_OK(dataset_open(&set, &d)); /* not asked for */
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(area_of(d, &s.regions[0], &found) == 0 && !found);
    sample_free(&s);
    dataset_close(d);
}

/* The colours of the label map beside the file are the segments' ids. */
static void label_maps(void)
{
    put_file("panoptic.json",
             "{\"images\": [{\"id\": 1, \"file_name\": \"a.jpg\", \"width\": 2, \"height\": 2}], \"annotations\": ["
             "{\"image_id\": 1, \"file_name\": \"a.ppm\", \"segments_info\": ["
             "{\"id\": 66051, \"category_id\": 1, \"bbox\": [0.5, 0, 2, 1.9]},"
             "{\"id\": 7, \"category_id\": 2, \"bbox\": [0, 1, 1, 1], \"iscrowd\": 1}]}],"
             "\"categories\": [{\"id\": 1, \"name\": \"dog\"}, {\"id\": 2, \"name\": \"sky-other-merged\"}]}");
    mkdir(in_folder("panoptic"), 0777);
    put_bytes("panoptic/a.ppm", "P6 2 2 255\n\3\2\1\3\2\1\7\0\0\3\2\1", 23);
    config_dataset set = made("coco_panoptic", "panoptic.json");
    dataset *d = NULL;
    data_sample s;
    CHECK_OK(dataset_open_masks(&set, &d));
    if (!d) return;
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(s.n_regions == 2 && box_is(&s.regions[0], 0, 0, 2, 1) && strcmp(s.regions[0].phrases[0], "dog") == 0);
    CHECK(strcmp(s.regions[1].phrases[0], "sky-other-merged") == 0);
    for (size_t i = 0; i < 2; i++) {
        mask_runs runs;
        bool found;
        CHECK_OK(dataset_mask(d, 0, &s.regions[i], 2, 2, &runs, &found));
        CHECK(found && mask_area(&runs) == (i ? 1 : 3));
        mask_runs_free(&runs);
    }
    sample_free(&s);
    dataset_close(d);
}

static void sbu(void)
{
    data_sample s;
    put_file("sbu.json", "[{\"image\": \"1_2.jpg\", \"url\": \"http://x\", \"caption\": \"A sunny day .\"},"
                         "{\"image\": \"../x.jpg\", \"caption\": \"a\"}, {\"image\": \"b.jpg\"},"
                         "{\"image\": \"c.jpg\", \"caption\": \"c\"}]");
    dataset *d = open_made("sbu", "sbu.json");
    if (!d) return;
    check_counts(d, 2, 2, 2, "sbu");
    CHECK(dataset_counted(d)->by_reason[DATASET_PATH] == 1 && dataset_counted(d)->by_reason[DATASET_TYPE] == 1);
    CHECK_OK(dataset_read(d, 1, &s));
    CHECK(s.image_id == 3 && s.regions[0].id == 3 && strcmp(s.regions[0].phrases[0], "c") == 0);
    CHECK(box_is(&s.regions[0], 0, 0, INT32_MAX, INT32_MAX)); /* the whole photo, whatever its size */
    sample_free(&s);
    dataset_close(d);
}

static void captions(void)
{
    data_sample s;
    put_file("captions.json", "{\"images\": [{\"id\": 4, \"file_name\": \"d.jpg\", \"width\": 30, \"height\": 20},"
                              "{\"id\": 5, \"file_name\": \"e.jpg\"}],"
                              "\"annotations\": [{\"id\": 1, \"image_id\": 4, \"caption\": \"A dog. \"},"
                              "{\"id\": 2, \"image_id\": 4, \"caption\": \"a \\u00e9\"},"
                              "{\"id\": 3, \"image_id\": 5, \"caption\": \"x\"}]}");
    dataset *d = open_made("coco_caption", "captions.json");
    if (!d) return;
    check_counts(d, 1, 2, 2, "captions");
    CHECK(dataset_counted(d)->by_reason[DATASET_TYPE] == 1 && dataset_counted(d)->by_reason[DATASET_NO_IMAGE] == 1);
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(box_is(&s.regions[0], 0, 0, 30, 20) && box_is(&s.regions[1], 0, 0, 30, 20));
    CHECK(strcmp(s.regions[0].phrases[0], "A dog. ") == 0);
    CHECK(strcmp(s.regions[1].phrases[0], "a \xc3\xa9") == 0);
    sample_free(&s);
    dataset_close(d);
}

/* The files lie in VG_100K_2/ although the annotations do not say so. */
static void grit(void)
{
    data_sample s;
    mkdir(in_folder("VG_100K_2"), 0777);
    put_file("VG_100K_2/8.jpg", "");
    put_file("grit.json",
             "{\"images\": [{\"id\": 8, \"file_name\": \"8.jpg\", \"width\": 30, \"height\": 20}],"
             "\"annotations\": [{\"id\": 1, \"image_id\": 8, \"category_id\": 1, \"iscrowd\": 0, \"area\": 12,"
             "\"bbox\": [1, 2, 3, 4], \"caption\": \"a red car\"}],"
             "\"categories\": [{\"id\": 1, \"name\": \"object\"}]}");
    config_dataset set = made("grit", "grit.json");
    dataset *d = NULL;
    strcpy(set.name, "mine");
    strcpy(set.task, "recognition");
    CHECK_OK(dataset_open(&set, &d));
    if (!d) return;
    CHECK(strcmp(dataset_name(d), "mine") == 0 && dataset_recognition(d));
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(text_ends(s.path, "/VG_100K_2/8.jpg") && box_is(&s.regions[0], 1, 2, 4, 6));
    CHECK(strcmp(s.regions[0].phrases[0], "a red car") == 0);
    sample_free(&s);
    dataset_close(d);
}

static void other_detection_sets(void)
{
    data_sample s;
    mkdir(in_folder("train"), 0777);
    put_file("train/b.jpg", "");
    put_file("objects.json", instances);
    dataset *d = open_made("objects365", "objects.json");
    if (!d) return;
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(text_ends(s.path, "/train/b.jpg"));
    sample_free(&s);
    dataset_close(d);

    put_file("v3det.json",
             "{\"images\": [{\"id\": 1, \"file_name\": \"images/Q494417/34_1125_10108827626_78b07f281b_c.jpg\"},"
             "{\"id\": 2, \"file_name\": \"images/a/b.jpg\"}],"
             "\"annotations\": [{\"id\": 1, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 2, \"image_id\": 2, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]}],"
             "\"categories\": [{\"id\": 1, \"name\": \"x\"}]}");
    d = open_made("v3det", "v3det.json");
    if (!d) return;
    check_counts(d, 1, 1, 1, "v3det");
    CHECK(dataset_counted(d)->excluded == 1 && dataset_counted(d)->bad == 0);
    dataset_close(d);
}

static char last_warning[2000];
static int n_warnings;
static void on_log(void *user, sca_level level, const char *message)
{
    (void)user;
    if (level != SCA_LOG_WARN) return;
    snprintf(last_warning, sizeof last_warning, "%s", message);
    n_warnings++;
}

static void bad_coco(void)
{
    static const int64_t expected[DATASET_REASONS] = {
        [DATASET_TYPE] = 9,     [DATASET_BOX] = 6,         [DATASET_PATH] = 4,
        [DATASET_REPEATED] = 2, [DATASET_NO_CATEGORY] = 1, [DATASET_NO_IMAGE] = 5
    };
    put_file("bad.json",
             "{\"images\": [{\"id\": 1, \"file_name\": \"a.jpg\"}, {\"id\": 1, \"file_name\": \"b.jpg\"},"
             "{\"id\": 2, \"file_name\": \"../a.jpg\"}, {\"id\": 3, \"file_name\": \"/etc/passwd\"},"
             "{\"id\": 4, \"file_name\": \"x/../../a.jpg\"}, {\"id\": 5, \"file_name\": \"\"},"
             "{\"id\": \"6\", \"file_name\": \"a.jpg\"}, {\"id\": 7, \"file_name\": 7}, 3, null,"
             "{\"id\": 8, \"file_name\": \"a.jpg\", \"width\": -3}, {\"id\": 9, \"file_name\": \"a\\u0000.jpg\"}],"
             "\"annotations\": ["
             "{\"id\": 1, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 2, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, -1, 1]},"
             "{\"id\": 3, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 1]},"
             "{\"id\": 4, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, \"1\", 1]},"
             "{\"id\": 5, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 1e300, 1, 1]},"
             "{\"id\": 6, \"image_id\": 1, \"category_id\": 1},"
             "{\"id\": 15, \"image_id\": 1, \"category_id\": 1, \"bbox\": [NaN, 0, 1, -Infinity]},"
             "{\"id\": 7, \"image_id\": 1, \"category_id\": 2, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 8, \"image_id\": 1, \"category_id\": null, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 9, \"image_id\": 1.5, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 10, \"image_id\": 2, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 11, \"image_id\": 7, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 12, \"image_id\": 8, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 13, \"image_id\": 99, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]},"
             "{\"id\": 14, \"image_id\": 9, \"category_id\": 1, \"bbox\": [0, 0, 1, 1]}],"
             "\"categories\": [{\"id\": 1, \"name\": \"dog\"}, {\"id\": 1, \"name\": \"cat\"}, "
             "{\"id\": 2, \"name\": 2}]}");
    sca_log_to(on_log, NULL, SCA_LOG_WARN);
    dataset *d = open_made("coco", "bad.json");
    sca_log_to(NULL, NULL, SCA_LOG_WARN);
    if (!d) return;
    check_counts(d, 1, 1, 1, "bad coco");
    const dataset_counts *c = dataset_counted(d);
    for (int r = 0; r < DATASET_REASONS; r++)
        CHECKF(c->by_reason[r] == expected[r], "%s: %lld, expected %lld", dataset_reason_text((dataset_reason)r),
               (long long)c->by_reason[r], (long long)expected[r]);
    CHECK(c->bad == 27 && n_warnings == 6);
    CHECKF(strstr(last_warning, "bad.json") && strstr(last_warning, "coco"), "warning: %s", last_warning);
    dataset_bad bad = dataset_bad_at(d, 0);
    CHECK(strcmp(bad.file, "bad.json") == 0 && strcmp(bad.what, "image") == 0 && bad.has_id && bad.id == 1);
    CHECK(bad.reason == DATASET_REPEATED);
    bad = dataset_bad_at(d, 5);
    CHECK(!bad.has_id && bad.id == 6 && bad.reason == DATASET_TYPE);
    dataset_close(d);
}

/* ---- Visual Genome ---------------------------------------------------------------------------------------------- */

#define ADDRESS "https://cs.stanford.edu/people/rak248/"

static void put_genome(void)
{
    put_file("densecap_splits.json",
             "{\"train\": [1], \"val\": [], \"test\": [5, 2, 2, \"x\", 3, 4, 6, 7, 8], \"odd\": 1}");
    put_file("image_data.json",
             "[{\"image_id\": 1, \"url\": \"" ADDRESS "VG_100K/1.jpg\", \"width\": 9, \"height\": 8},"
             "{\"image_id\": 2, \"url\": \"" ADDRESS "VG_100K_2/2.jpg\", \"width\": 9, \"height\": 8},"
             "{\"image_id\": 2, \"url\": \"" ADDRESS "VG_100K/2.jpg\"}, {\"image_id\": null},"
             "{\"image_id\": 3, \"url\": \"" ADDRESS "../3.jpg\"},"
             "{\"image_id\": 5, \"url\": \"" ADDRESS "VG_100K/5.jpg\", \"width\": null},"
             "{\"image_id\": 5, \"url\": 5},"
             "{\"image_id\": 6, \"url\": \"" ADDRESS "VG_100K/6.jpg\"},"
             "{\"image_id\": 7, \"url\": \"" ADDRESS "VG_100K/7.jpg\"},"
             "{\"image_id\": 8, \"url\": \"" ADDRESS "VG_100K/../8.jpg\"}]");
    put_file(
        "region_descriptions.json",
        "[{\"id\": 1, \"regions\": [{\"region_id\": 1, \"phrase\": \"p\", \"x\": 1, \"y\": 1, \"width\": 1, "
        "\"height\": 1}]},"
        "{\"id\": 2, \"regions\": [{\"region_id\": 21, \"phrase\": \" Two \", \"x\": 1, \"y\": 2, \"width\": 3, "
        "\"height\": 4}, {\"region_id\": 22, \"phrase\": \"\", \"x\": 0, \"y\": 0, \"width\": 0, \"height\": 0},"
        "{\"region_id\": 23, \"phrase\": \"a\", \"x\": 0, \"y\": 0, \"width\": -1, \"height\": 0},"
        "{\"region_id\": 24, \"phrase\": 3, \"x\": 0, \"y\": 0, \"width\": 1, \"height\": 1}, 7]},"
        "{\"id\": 5, \"regions\": []}, {\"id\": 2, \"regions\": []}, {\"id\": 7, \"regions\": {}},"
        "{\"regions\": []}, {\"id\": 5}, {\"id\": 3, \"regions\": []}]");
}

static void genome(void)
{
    data_sample s;
    put_genome();
    config_dataset set = set_of("visual_genome", folder, folder, "");
    dataset *d = NULL;
    CHECK_OK(dataset_open(&set, &d));
    if (!d) return;
    check_counts(d, 2, 2, 2, "genome");
    CHECK(strcmp(dataset_name(d), "visual_genome-test") == 0 && strcmp(dataset_split(d), "test") == 0);
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(s.image_id == 5 && s.n_regions == 0 && text_ends(s.path, "/VG_100K/5.jpg") && s.width == 0);
    sample_free(&s);
    CHECK_OK(dataset_read(d, 1, &s));
    CHECK(s.image_id == 2 && s.n_regions == 2 && text_ends(s.path, "/VG_100K_2/2.jpg"));
    CHECK(s.regions[0].id == 21 && box_is(&s.regions[0], 1, 2, 4, 6));
    CHECK(strcmp(s.regions[0].phrases[0], " Two ") == 0 && strcmp(s.regions[1].phrases[0], "") == 0);
    sample_free(&s);
    const dataset_counts *c = dataset_counted(d);
    CHECK(c->by_reason[DATASET_REPEATED] == 3); /* 2 in every file */
    CHECK(c->by_reason[DATASET_TYPE] == 8);     /* "x", null, 24, the number 7, image 7, no id, 5 in two files */
    CHECK(c->by_reason[DATASET_PATH] == 2);     /* 3, 8 */
    CHECK(c->by_reason[DATASET_BOX] == 1);      /* 23 */
    CHECK(c->by_reason[DATASET_NO_IMAGE] == 1); /* 4 */
    CHECK(c->by_reason[DATASET_NO_DESCRIPTION] == 1); /* 6 */
    CHECKF(c->bad == 16, "%lld bad", (long long)c->bad);
    dataset_close(d);

    strcpy(set.split, "dev");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_ARGUMENT, "no list 'dev', expected one of 'train', 'val', 'test'");
    strcpy(set.split, "odd");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_ARGUMENT, "no list 'odd'");
    strcpy(set.split, "val");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_FORMAT, "no image can be used");
}

/* ---- RefCOCO: protocol 2, written as bytes ------------------------------------------------------------------- */

static void pickle_int(str *s, int64_t v)
{
    str_putc(s, 'J');
    for (int i = 0; i < 4; i++) str_putc(s, (char)((uint64_t)v >> (8 * i)));
}

static void pickle_text(str *s, char op, const char *text)
{
    size_t n = strlen(text);
    str_putc(s, op);
    for (int i = 0; i < (op == 'X' ? 4 : 1); i++) str_putc(s, (char)(n >> (8 * i)));
    str_put(s, text);
}

static void pickle_ref(str *s, int64_t id, int64_t annotation, int64_t image, const char *split,
                       const char *const *sents)
{
    const struct {
        const char *key;
        int64_t value;
    } ints[] = { { "ref_id", id }, { "ann_id", annotation }, { "image_id", image }, { "category_id", 1 } };
    str_put(s, "}(");
    for (size_t i = 0; i < LENGTH(ints); i++) {
        pickle_text(s, 'U', ints[i].key);
        pickle_int(s, ints[i].value);
    }
    pickle_text(s, 'X', "split");
    pickle_text(s, 'U', split);
    pickle_text(s, 'U', "sentences");
    str_put(s, "](");
    for (size_t i = 0; sents[i]; i++) {
        str_put(s, "}(");
        pickle_text(s, 'U', "sent");
        pickle_text(s, 'X', sents[i]);
        pickle_text(s, 'U', "sent_id");
        pickle_int(s, (int64_t)i);
        str_putc(s, 'u');
    }
    str_put(s, "eu");
}

/* Refs of images 30 (train, val), 20 (testA, and one of train), 10 (testB), and bad ones of image 20. */
static void put_refs(const char *name)
{
    static const char *const one[] = { "left man", NULL }, *const two[] = { "Man on  left ", "the \xc3\xa9", NULL },
                             *const zero[] = { NULL };
    str s = { 0 };
    str_put(&s, "\x80\x02](");
    pickle_ref(&s, 1, 101, 30, "train", one);
    pickle_ref(&s, 2, 102, 20, "testA", two);
    pickle_ref(&s, 3, 103, 10, "testB", one);
    pickle_ref(&s, 4, 104, 30, "val", one);
    pickle_ref(&s, 5, 105, 20, "train", one);
    pickle_ref(&s, 2, 105, 20, "train", one);  /* the id is there */
    pickle_ref(&s, 6, 106, 20, "train", zero); /* nothing said    */
    pickle_ref(&s, 7, 999, 20, "train", one);  /* no annotation   */
    pickle_ref(&s, 8, 108, 20, "train", one);  /* a bad box       */
    pickle_int(&s, 3);                         /* no ref at all   */
    str_put(&s, "e.");
    put_bytes(name, s.data, s.bytes);
    str_free(&s);
}

static void put_refcoco(void)
{
    mkdir(in_folder("refs"), 0777);
    put_refs("refs/refs(unc).p");
    put_file(
        "refs/instances.json",
        "{\"images\": [{\"id\": 30, \"file_name\": \"c.jpg\", \"width\": 5, \"height\": 6},"
        "{\"id\": 20, \"file_name\": \"b.jpg\"}, {\"id\": 10, \"file_name\": \"a.jpg\"},"
        "{\"id\": 77, \"file_name\": \"../z.jpg\"}],"
        "\"annotations\": [{\"id\": 101, \"bbox\": [1.5, 2.5, 3.5, 4.5]}, {\"id\": 102, \"bbox\": [1, 1, 2, 2]},"
        "{\"id\": 103, \"bbox\": [0, 0, 1, 1]}, {\"id\": 104, \"bbox\": [4, 4, 1, 1]},"
        "{\"id\": 105, \"bbox\": [5, 5, 1, 1]}, {\"id\": 108, \"bbox\": [5, 5, 1, -1]},"
        "{\"id\": 1, \"bbox\": 3}]}");
}

static dataset *open_refs(const char *split)
{
    config_dataset set = set_of("refcoco", in_folder("refs"), folder, split);
    dataset *d = NULL;
    CHECK_OK(dataset_open(&set, &d));
    return d;
}

static void refcoco(void)
{
    data_sample s;
    put_refcoco();
    dataset *d = open_refs("testA");
    if (!d) return;
    check_counts(d, 1, 2, 3, "refcoco testA");
    CHECK(strcmp(dataset_name(d), "refcoco-testA") == 0);
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(s.image_id == 20 && s.n_regions == 2 && s.regions[0].id == 2 && s.regions[0].n_phrases == 2);
    CHECK(strcmp(s.regions[0].phrases[0], "Man on  left ") == 0);
    CHECK(strcmp(s.regions[0].phrases[1], "the \xc3\xa9") == 0 && s.regions[1].id == 5);
    sample_free(&s);
    const dataset_counts *c = dataset_counted(d);
    CHECK(c->by_reason[DATASET_REPEATED] == 1 && c->by_reason[DATASET_TYPE] == 2);
    CHECK(c->by_reason[DATASET_BOX] == 1 && c->by_reason[DATASET_NO_ANNOTATION] == 2);
    CHECK(strcmp(dataset_bad_at(d, 0).file, "refs(unc).p") == 0);
    CHECK(strcmp(dataset_bad_at(d, c->bad - 1).file, "refs(unc).p") == 0);
    dataset_close(d);

    d = open_refs("test"); /* both, in ascending order of images */
    if (!d) return;
    check_counts(d, 2, 3, 4, "refcoco test");
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(s.image_id == 10);
    sample_free(&s);
    dataset_close(d);

    d = open_refs("validation"); /* all refs of the image, of train too */
    if (!d) return;
    check_counts(d, 1, 2, 2, "refcoco val");
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK(s.width == 5 && s.height == 6 && text_ends(s.path, "/c.jpg"));
    CHECK(s.regions[0].id == 1 && box_is(&s.regions[0], 1, 2, 4, 6) && s.regions[1].id == 4);
    sample_free(&s);
    dataset_close(d);
}

static void refcoco_refused(void)
{
    put_refcoco();
    config_dataset set = set_of("refcoco", in_folder("refs"), folder, "");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_ARGUMENT, "give 'split', testA or testB");
    strcpy(set.split, "testC");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_ARGUMENT,
                "no ref of split 'testC'; its refs are of 'train', 'testA', 'testB', 'val'");
    put_refs("refs/refs(google).p");
    strcpy(set.split, "testB");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_ARGUMENT, "give one of these files as 'annotations'");
    snprintf(set.annotations, sizeof set.annotations, "%s", in_folder("refs/refs(google).p"));
    CHECK_OK(open_and_close(&set));
    put_file("refs/refs(google).p", "\x80\x02}.");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_FORMAT, "expected a list of refs");
    put_file("refs/refs(google).p", "cos\nsystem\n(S'true'\ntR.");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_FORMAT, "os system");
    unlink(in_folder("refs/refs(google).p"));
}

/* Sentences shared by many refs: a short file for a lot of text. */
static void refcoco_bomb(void)
{
    str s = { 0 };
    put_refcoco();
    str_put(&s, "\x80\x02](}(");
    pickle_text(&s, 'U', "sent");
    pickle_text(&s, 'X', "0123456789012345678901234567890123456789012345678901234567890123456789");
    str_put(&s, "uq\x01"
                "](");
    for (int i = 0; i < 1000; i++) str_put(&s, "h\x01");
    str_put(&s, "eq\x02");
    for (int i = 0; i < 1000; i++) {
        str_put(&s, "}(");
        pickle_text(&s, 'U', "sentences"), str_put(&s, "h\x02");
        pickle_text(&s, 'U', "split"), pickle_text(&s, 'U', "val");
        pickle_text(&s, 'U', "ref_id"), pickle_int(&s, i);
        pickle_text(&s, 'U', "ann_id"), pickle_int(&s, 101);
        pickle_text(&s, 'U', "image_id"), pickle_int(&s, 30);
        str_putc(&s, 'u');
    }
    str_put(&s, "e.");
    put_bytes("refs/refs(unc).p", s.data, s.bytes);
    str_free(&s);
    config_dataset set = set_of("refcoco", in_folder("refs"), folder, "val");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_FORMAT, "longer than the file");
}

/* ---- refused ---------------------------------------------------------------------------------------------------- */

static void check_refused(const char *kind, const char *text, sca_status status, const char *part)
{
    put_file("refused.json", text);
    config_dataset set = made(kind, "refused.json");
    CHECK_FAILS(open_and_close(&set), status, part);
}

static void refused(void)
{
    check_refused("coco", "", SCA_ERR_FORMAT, "refused.json");
    check_refused("coco", "{}", SCA_ERR_FORMAT, "no image can be used");
    check_refused("coco", "{\"images\": [], \"annotations\": [], \"categories\": []}", SCA_ERR_FORMAT, "no image");
    check_refused("coco", "[{\"id\": 1}]", SCA_ERR_FORMAT, "a list, expected an object");
    check_refused("coco", "{\"images\": {}}", SCA_ERR_FORMAT, "'images' is no list");
    check_refused("coco", "{\"images\": [{\"id\": 1", SCA_ERR_FORMAT, "refused.json");
    check_refused("coco", "{\"images\": [{\"id\": 1, \"file_name\": \"\xff\"}]}", SCA_ERR_FORMAT, "refused.json");
    check_refused("cocoa", "{}", SCA_ERR_ARGUMENT, "did you mean 'coco'?");
    config_dataset set = made("coco", "coco.json");
    strcpy(set.task, "segment");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_ARGUMENT, "expected caption or recognition");
    set = made("coco", "coco.json");
    strcat(set.images, "/nowhere");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_IO, "/nowhere: no such folder");
    set = made("coco", "absent.json");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_IO, "absent.json");
    set.images[0] = 0;
    CHECK_FAILS(open_and_close(&set), SCA_ERR_ARGUMENT, "give 'images'");
    set.annotations[0] = 0;
    CHECK_FAILS(open_and_close(&set), SCA_ERR_ARGUMENT, "give 'annotations'");
    set = set_of("visual_genome", folder, folder, "test");
    put_genome();
    put_file("region_descriptions.json", "{}");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_FORMAT, "no image can be used");
    put_file("region_descriptions.json", "{\"a\": [1]}");
    CHECK_FAILS(open_and_close(&set), SCA_ERR_FORMAT, "region_descriptions.json: an object, expected a list");
    sample_free(&(data_sample){ 0 });
    dataset_close(NULL);
}

/* ---- faults and threads ------------------------------------------------------------------------------------------ */

static sca_status open_and_read(void *user)
{
    dataset *d;
    data_sample s;
    TRY(dataset_open(user, &d));
    sca_status status = SCA_OK;
    for (int64_t i = 0; status == SCA_OK && i < dataset_count(d); i++) {
        status = dataset_read(d, i, &s);
        sample_free(&s);
    }
    dataset_close(d);
    return status;
}

static void faults(void)
{
    put_file("coco.json", instances);
    put_genome();
    put_refcoco();
    config_dataset sets[] = { made("coco", "coco.json"), set_of("visual_genome", folder, folder, ""),
                              set_of("refcoco", in_folder("refs"), folder, "testA") };
    for (size_t i = 0; i < LENGTH(sets); i++) {
        CHECK(check_faults(fault_alloc, open_and_read, &sets[i], sets[i].kind) > 10);
        CHECK(check_faults(fault_io, open_and_read, &sets[i], sets[i].kind) > 0);
    }
}

static void *read_all(void *user)
{
    for (int round = 0; round < 200; round++)
        for (int64_t i = 0; i < dataset_count(user); i++) {
            data_sample s;
            if (dataset_read(user, i, &s) != SCA_OK || s.n_regions == 0) return user;
            sample_free(&s);
        }
    return NULL;
}

static void threads(void)
{
    pthread_t t[4];
    put_file("coco.json", instances);
    dataset *d = open_made("coco", "coco.json");
    if (!d) return;
    for (size_t i = 0; i < LENGTH(t); i++) CHECK(pthread_create(&t[i], NULL, read_all, d) == 0);
    for (size_t i = 0; i < LENGTH(t); i++) {
        void *failed = d;
        CHECK(pthread_join(t[i], &failed) == 0 && !failed);
    }
    dataset_close(d);
}

/* Many images and regions, so that every table grows; regions of an image lie apart. */
static void large(void)
{
    enum { IMAGES = 3000, REGIONS = 20000 };
    str s = { 0 };
    data_sample x = { 0 };
    str_put(&s, "{\"images\": [");
    for (int i = 0; i < IMAGES; i++)
        str_printf(&s, "%s{\"id\": %lld, \"file_name\": \"%d.jpg\"}", i ? "," : "", (i - 7LL) * 4294967296, i);
    str_put(&s, "], \"annotations\": [");
    for (int i = 0; i < REGIONS; i++)
        str_printf(&s, "%s{\"id\": %d, \"image_id\": %lld, \"category_id\": %d, \"bbox\": [%d, 0, 1, 1]}",
                   i ? "," : "", i, (i % IMAGES - 7LL) * 4294967296, i % 500, i);
    str_put(&s, "], \"categories\": [");
    for (int i = 0; i < 500; i++) str_printf(&s, "%s{\"id\": %d, \"name\": \"c%d\"}", i ? "," : "", i, i);
    str_put(&s, "]}");
    put_bytes("large.json", s.data, s.bytes);
    str_free(&s);
    dataset *d = open_made("coco", "large.json");
    if (!d) return;
    check_counts(d, IMAGES, REGIONS, REGIONS, "large");
    CHECK_OK(dataset_read(d, 1234, &x));
    CHECK(x.image_id == (1234 - 7LL) * 4294967296 && x.n_regions == 7 && text_ends(x.path, "/1234.jpg"));
    for (size_t r = 0; r < x.n_regions; r++) {
        char name[20];
        int64_t id = 1234 + (int64_t)r * IMAGES;
        snprintf(name, sizeof name, "c%d", (int)(id % 500));
        CHECK(x.regions[r].id == id && strcmp(x.regions[r].phrases[0], name) == 0);
        CHECK(box_is(&x.regions[r], (double)id, 0, (double)id + 1, 1));
    }
    sample_free(&x);
    dataset_close(d);
}

/* ---- annotation files of any size ------------------------------------------------------------------------------- */

#if defined __SANITIZE_ADDRESS__
enum { SANITIZED = 1 };
#else
enum { SANITIZED = 0 };
#endif

static double megabytes_of(const char *row)
{
    char line[256];
    double kb = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, row, strlen(row)) == 0) kb = strtod(line + strlen(row) + 1, NULL);
    if (f) fclose(f);
    return kb / 1024;
}

/* Like Objects365's: images, boxes with 17 digits, members nobody reads; about `bytes` long. */
static bool put_objects(const char *path, size_t bytes)
{
    FILE *f = fopen(path, "w");
    size_t images = bytes / 3200, n = 0;
    if (!CHECK(f != NULL)) return false;
    fprintf(f, "{\"images\":[");
    for (size_t i = 0; i < images; i++)
        fprintf(f,
                "%s{\"height\":512,\"id\":%zu,\"license\":5,\"width\":769,\"file_name\":\"images/v1/patch8/"
                "objects365_v1_%08zu.jpg\",\"url\":\"\"}",
                i ? "," : "", i, i);
    fprintf(f, "],\"annotations\":[");
    for (size_t i = 0; i < images; i++)
        for (int k = 0; k < 14; k++, n++)
            fprintf(f,
                    "%s{\"id\":%zu,\"iscrowd\":0,\"isfake\":0,\"area\":%.13f,\"isreflected\":0,\"bbox\":[%.17g,%."
                    "17g,%.17g,%.17g],\"image_id\":%zu,\"category_id\":%zu}",
                    n ? "," : "", n, 1791.2549 + (double)n, 0.1 + (double)(n % 700), 1.0 / 3 + (double)(n % 400),
                    48.1, 37.7, i, n % 365);
    fprintf(f, "],\"categories\":[");
    for (int i = 0; i < 365; i++) fprintf(f, "%s{\"name\":\"thing %d\",\"id\":%d}", i ? "," : "", i, i);
    fprintf(f, "]}");
    return CHECK(fclose(f) == 0);
}

/* Reads it in a process of its own: what it needed at most, above what it holds at the end. */
static void read_objects(const char *path, double bound)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dataset *d = NULL;
        struct timespec from, to;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
        config_dataset set = set_of("objects365", path, folder, "");
        sca_status status = dataset_open(&set, &d);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
        double held = megabytes_of("VmRSS:"), peak = megabytes_of("VmHWM:"),
               s = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
        printf("%lld regions: %.2f s of CPU time, index %.0f MB, peak %.0f MB above it\n",
               status == SCA_OK ? (long long)dataset_counted(d)->regions : -1LL, s, held, peak - held);
        fflush(NULL);
        _exit(status != SCA_OK ? 1 : peak - held > bound ? 2 : 0);
    }
    int code = -1;
    CHECK(child > 0 && waitpid(child, &code, 0) == child);
    CHECKF(code == 0, "exit %d: 1 means that it was not read, 2 that it needed more than %g MB", code >> 8, bound);
}

/* Here 60 MB below a bound that the file itself would break; any size by SCA_TEST_ANNOTATIONS_MB. */
static void memory_is_bounded(void)
{
    const char *size = getenv("SCA_TEST_ANNOTATIONS_MB");
    double mb = size ? strtod(size, NULL) : 60;
    if (SANITIZED) {
        check_skip("memory: the sanitizer keeps what is freed");
        return;
    }
    if (put_objects(in_folder("objects.json"), (size_t)(mb * 1e6)))
        read_objects(in_folder("objects.json"), size ? 300 : 40);
    unlink(in_folder("objects.json"));
}

int main(int argc, char **argv)
{
    if (!mkdtemp(folder)) return 1;
    RUN(coco_mini);
    RUN(vg_mini);
    RUN(coco);
    RUN(masks);
    RUN(label_maps);
    RUN(sbu);
    RUN(captions);
    RUN(grit);
    RUN(other_detection_sets);
    RUN(bad_coco);
    RUN(genome);
    RUN(refcoco);
    RUN(refcoco_refused);
    RUN(refcoco_bomb);
    RUN(refused);
    RUN(faults);
    RUN(threads);
    RUN(large);
    RUN(memory_is_bounded);
    clean();
    return check_done();
}
