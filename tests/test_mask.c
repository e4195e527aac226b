/* test_mask.c - COCO run lengths: equal to pycocotools, and what foreign texts may do. */
#include "check.h"
#include "data/data.h"

#include <math.h>

#define GOLDEN SCA_SOURCE "/tests/golden/rle/cases.json"
#define SHARED SCA_SHARED "/golden/rle/cases.json"

static double real_of(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
static int int_of(const json_t *o, const char *key) { return (int)json_integer_value(json_object_get(o, key)); }
static int at(const json_t *a, size_t i) { return (int)json_integer_value(json_array_get(a, i)); }
static const char *counts_of(const json_t *rle) { return json_string_value(json_object_get(rle, "counts")); }

static void check_text(const mask_runs *r, const json_t *rle, const char *what)
{
    char *text = NULL;
    const json_t *size = json_object_get(rle, "size");
    CHECK(r->height == at(size, 0) && r->width == at(size, 1));
    CHECK_OK(mask_runs_text(r, &text));
    CHECKF(text && strcmp(text, counts_of(rle)) == 0, "%s: %s, expected %s", what, text, counts_of(rle));
    mem_free(text);
}

static mask_runs parse(const json_t *rle)
{
    mask_runs r = { 0 };
    const json_t *size = json_object_get(rle, "size");
    CHECK_OK(mask_runs_parse(counts_of(rle), at(size, 1), at(size, 0), &r));
    return r;
}

static void check_measures(const mask_runs *r, const json_t *c)
{
    double box[4];
    const json_t *expected = json_object_get(c, "bbox");
    mask_box(r, box);
    CHECK(mask_area(r) == int_of(c, "area"));
    for (size_t i = 0; i < 4; i++) CHECK(box[i] == json_number_value(json_array_get(expected, i)));
}

/* Text to runs to pixels and back again. */
static void check_round_trip(const json_t *rle)
{
    mask_runs r = parse(rle), again = { 0 };
    uint8_t *on = mem_alloc((size_t)r.width * (size_t)r.height);
    CHECK_OK(mask_decode(&r, on));
    CHECK_OK(mask_encode(on, r.width, r.height, &again));
    check_text(&again, rle, "round trip");
    mem_free(on);
    mask_runs_free(&r);
    mask_runs_free(&again);
}

static double *numbers_of(const json_t *array, size_t *count)
{
    *count = json_array_size(array);
    double *numbers = mem_alloc(*count * sizeof *numbers);
    for (size_t i = 0; i < *count; i++) numbers[i] = json_number_value(json_array_get(array, i));
    return numbers;
}

static void check_polygons(const json_t *c)
{
    enum { MOST = 16 };
    double *xy[MOST] = { 0 };
    size_t points[MOST], parts = json_array_size(json_object_get(c, "polygons"));
    int width = int_of(c, "width"), height = int_of(c, "height");
    mask_runs r = { 0 };
    CHECK(parts <= MOST);
    for (size_t i = 0; i < parts; i++) {
        xy[i] = numbers_of(json_array_get(json_object_get(c, "polygons"), i), &points[i]);
        points[i] /= 2;
        CHECK_OK(mask_from_polygons((const double *const *)&xy[i], &points[i], 1, width, height, &r));
        check_text(&r, json_array_get(json_object_get(c, "parts"), i), "polygon");
        mask_runs_free(&r);
    }
    CHECK_OK(mask_from_polygons((const double *const *)xy, points, parts, width, height, &r));
    check_text(&r, json_object_get(c, "merged"), "polygons");
    check_measures(&r, c);
    mask_runs_free(&r);
    for (size_t i = 0; i < parts; i++) mem_free(xy[i]);
    check_round_trip(json_object_get(c, "merged"));
}

static void check_box(const json_t *c)
{
    size_t n;
    mask_runs r = { 0 };
    double *box = numbers_of(json_object_get(c, "box_xywh"), &n);
    CHECK_OK(mask_from_box(box, int_of(c, "width"), int_of(c, "height"), &r));
    check_text(&r, json_object_get(c, "rle"), "box");
    mask_runs_free(&r);
    mem_free(box);
}

static void check_dense(const json_t *c)
{
    const json_t *rows = json_object_get(c, "rows");
    const json_t *counts = json_object_get(json_object_get(c, "uncompressed"), "counts");
    size_t height = json_array_size(rows), width = json_string_length(json_array_get(rows, 0));
    uint8_t *on = mem_alloc(width * height), *decoded = mem_alloc(width * height);
    mask_runs r = { 0 };
    for (size_t i = 0; i < width * height; i++)
        on[i] = json_string_value(json_array_get(rows, i / width))[i % width] == '1';
    CHECK_OK(mask_encode(on, (int)width, (int)height, &r));
    CHECK(r.count == json_array_size(counts));
    for (size_t i = 0; i < r.count; i++) CHECK(r.counts[i] == (uint32_t)at(counts, i));
    check_text(&r, json_object_get(c, "compressed"), "dense");
    check_measures(&r, c);
    CHECK_OK(mask_decode(&r, decoded));
    CHECK(memcmp(on, decoded, width * height) == 0);
    mask_runs_free(&r);
    mem_free(on);
    mem_free(decoded);
}

static void check_pair(const json_t *c)
{
    mask_runs pair[2] = { parse(json_object_get(c, "a")), parse(json_object_get(c, "b")) }, both = { 0 };
    CHECK(mask_iou(&pair[0], &pair[1], false) == real_of(c, "iou"));
    CHECK(mask_iou(&pair[0], &pair[1], true) == real_of(c, "iou_b_is_crowd"));
    CHECK_OK(mask_union(pair, 2, &both));
    check_text(&both, json_object_get(c, "union"), "union");
    mask_runs_free(&both);
    mask_runs_free(&pair[0]);
    mask_runs_free(&pair[1]);
    check_round_trip(json_object_get(c, "a"));
}

static void check_each(const json_t *doc, const char *key, void (*check)(const json_t *))
{
    const json_t *cases = json_object_get(doc, key);
    CHECK(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++) check(json_array_get(cases, i));
}

static void check_file(const char *path)
{
    json_t *doc = NULL;
    CHECK_OK(json_open(path, &doc));
    check_each(doc, "polygons", check_polygons);
    check_each(doc, "boxes", check_box);
    check_each(doc, "dense", check_dense);
    check_each(doc, "pairs", check_pair);
    json_decref(doc);
}

static void golden_cases(void) { check_file(GOLDEN); }

static void shared_cases(void)
{
    if (file_exists(SHARED))
        check_file(SHARED);
    else
        check_skip("shared: the shared folder is absent");
}

/* ---- properties -------------------------------------------------------------------------------------- */

static uint32_t draw(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* Sizes around the width of the strips that encoding turns. */
static void random_pixels_survive(void)
{
    static const int sizes[][2] = {
        { 1, 1 }, { 1, 200 }, { 200, 1 }, { 63, 5 }, { 64, 7 }, { 65, 3 }, { 129, 129 }
    };
    uint32_t state = 1;
    for (size_t i = 0; i < 5 * LENGTH(sizes); i++) {
        int width = sizes[i % LENGTH(sizes)][0], height = sizes[i % LENGTH(sizes)][1];
        size_t n = (size_t)width * (size_t)height, level = i / LENGTH(sizes);
        uint8_t *on = mem_alloc(n), *decoded = mem_alloc(n);
        char *text = NULL;
        mask_runs r = { 0 }, again = { 0 };
        int64_t area = 0;
        for (size_t j = 0; j < n; j++) area += on[j] = draw(&state) >> 30 < level; /* none to all */
        CHECK_OK(mask_encode(on, width, height, &r));
        CHECK_OK(mask_runs_text(&r, &text));
        CHECK_OK(mask_runs_parse(text, width, height, &again));
        CHECK_OK(mask_decode(&again, decoded));
        CHECK(mask_area(&again) == area && memcmp(on, decoded, n) == 0);
        mask_runs_free(&r);
        mask_runs_free(&again);
        mem_free(text);
        mem_free(on);
        mem_free(decoded);
    }
}

static void empty_runs_do_no_harm(void)
{
    uint32_t counts[] = { 2, 0, 3, 4, 0, 0, 0, 1, 2 }, plain[] = { 0, 12 };
    mask_runs a = { 3, 4, counts, LENGTH(counts) }, b = { 3, 4, plain, 2 }, pair[2] = { a, b }, both = { 0 };
    uint8_t on[12];
    double box[4];
    CHECK_OK(mask_decode(&a, on));
    CHECK(mask_area(&a) == 5);
    mask_box(&a, box);
    CHECK(box[0] == 1 && box[1] == 0 && box[2] == 2 && box[3] == 4);
    CHECK(mask_iou(&a, &b, false) == 5.0 / 12 && mask_iou(&a, &b, true) == 1);
    CHECK_OK(mask_union(pair, 2, &both));
    CHECK(mask_area(&both) == 12 && both.count == 2 && both.counts[0] == 0);
    mask_runs_free(&both);
}

static void polygons_beyond_the_picture(void)
{
    static const double around[] = { -9e7, -9e7, -9e7, 9e7, 9e7, 9e7, 9e7, -9e7 }, point[] = { 3, 3 };
    static const double wild[] = { 0, 0, 5, 1e300, 5, 5 }, none[] = { 0, 0, (double)NAN, 1, 5, 5 };
    const double *xy = around;
    size_t n = 4;
    mask_runs r = { 0 };
    CHECK_OK(mask_from_polygons(&xy, &n, 1, 20, 10, &r));
    CHECK(mask_area(&r) == 200);
    mask_runs_free(&r);
    xy = point;
    n = 1;
    CHECK_OK(mask_from_polygons(&xy, &n, 1, 20, 10, &r));
    CHECK(mask_area(&r) == 0 && r.count == 1);
    mask_runs_free(&r);
    CHECK_OK(mask_from_polygons(NULL, NULL, 0, 20, 10, &r));
    CHECK(mask_area(&r) == 0 && r.counts[0] == 200);
    mask_runs_free(&r);
    n = 3;
    xy = wild;
    CHECK_FAILS(mask_from_polygons(&xy, &n, 1, 20, 10, &r), SCA_ERR_FORMAT, "coordinate 3");
    xy = none;
    CHECK_FAILS(mask_from_polygons(&xy, &n, 1, 20, 10, &r), SCA_ERR_FORMAT, "coordinate 2");
    CHECK_FAILS(mask_from_box((const double[4]){ 0, 0, INFINITY, 1 }, 20, 10, &r), SCA_ERR_FORMAT, "coordinate");
    CHECK(!r.counts);
}

static void wrong_texts_are_refused(void)
{
    static const struct {
        const char *text, *message;
        int width, height;
    } cases[] = { { "", "cover 0 pixels", 4, 4 },
                  { "P8", "cover 256", 16, 17 },
                  { "P", "damaged text at byte 0", 16, 16 },
                  { "P8 ", "damaged text at byte 2", 16, 16 },
                  { "P8\x80", "damaged text", 16, 16 },
                  { "ooooooooooo0", "damaged text", 16, 16 },
                  { "O", "run 0 is -1", 16, 16 },
                  { "ooooooo", "damaged text", 16, 16 },
                  { "P8", "mask of 0 x 16", 0, 16 },
                  { "P8", "mask of 16 x -1", 16, -1 },
                  { "P8", "mask of 2147483647", 2147483647, 2147483647 } };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        mask_runs r = { 0 };
        sca_status expected =
            cases[i].width < 1 || cases[i].height < 1 || cases[i].width > 99 ? SCA_ERR_ARGUMENT : SCA_ERR_FORMAT;
        CHECK_FAILS(mask_runs_parse(cases[i].text, cases[i].width, cases[i].height, &r), expected,
                    cases[i].message);
        CHECK(!r.counts && r.count == 0);
    }
}

/* Every text of up to three characters, and longer random ones: refused, or a mask of the right size. */
static void any_text_is_safe(void)
{
    uint32_t state = 7;
    for (int i = 0; i < 200000; i++) {
        char text[12] = { 0 };
        size_t n = 1 + draw(&state) % (sizeof text - 1);
        for (size_t j = 0; j < n; j++) text[j] = (char)(40 + (draw(&state) >> 8) % 80);
        mask_runs r = { 0 };
        uint8_t on[64];
        if (mask_runs_parse(text, 8, 8, &r) == SCA_OK) {
            CHECK_OK(mask_decode(&r, on));
            mask_runs_free(&r);
        }
        CHECK(!r.counts);
    }
}

static void mismatched_masks(void)
{
    uint32_t counts[] = { 12 };
    mask_runs pair[2] = { { 3, 4, counts, 1 }, { 4, 3, counts, 1 } }, r = { 0 };
    uint8_t on[20];
    CHECK(mask_iou(&pair[0], &pair[1], false) == -1);
    CHECK(mask_iou(&pair[0], &pair[0], false) == 0);
    CHECK_FAILS(mask_union(pair, 2, &r), SCA_ERR_ARGUMENT, "3 x 4 and 4 x 3");
    CHECK_FAILS(mask_union(pair, 0, &r), SCA_ERR_ARGUMENT, "no masks");
    pair[0].height = 5;
    CHECK_FAILS(mask_decode(&pair[0], on), SCA_ERR_FORMAT, "cover 12 pixels");
    CHECK_FAILS(mask_union(pair, 1, &r), SCA_ERR_FORMAT, "cover 12 pixels");
}

static sca_status whole_path(void)
{
    static const double one[] = { 1, 1, 9, 1, 5, 9 }, two[] = { 4, 4, 15, 4, 15, 15, 4, 15 };
    static const double *const xy[] = { one, two };
    static const size_t n[] = { 3, 4 };
    static uint8_t on[400];
    sca_status status;
    mask_runs r = { 0 }, again = { 0 }, third = { 0 };
    char *text = NULL;
    TRY_GOTO(done, mask_from_polygons(xy, n, 2, 20, 20, &r));
    TRY_GOTO(done, mask_runs_text(&r, &text));
    TRY_GOTO(done, mask_runs_parse(text, 20, 20, &again));
    TRY_GOTO(done, mask_decode(&again, on));
    TRY_GOTO(done, mask_encode(on, 20, 20, &third));
done:
    mem_free(text);
    mask_runs_free(&r);
    mask_runs_free(&again);
    mask_runs_free(&third);
    return status;
}

static void failing_memory(void)
{
    for (int64_t n = 1;; n++) {
        fault_alloc(n);
        sca_status status = whole_path();
        bool fired = fault_fired();
        fault_alloc(0);
        if (!fired) {
            CHECK(status == SCA_OK && n > 5);
            return;
        }
        CHECKF(status == SCA_ERR_MEMORY, "failure %lld: %s", (long long)n, sca_last_error());
    }
}

int main(int argc, char **argv)
{
    RUN(golden_cases);
    RUN(shared_cases);
    RUN(random_pixels_survive);
    RUN(empty_runs_do_no_harm);
    RUN(polygons_beyond_the_picture);
    RUN(wrong_texts_are_refused);
    RUN(any_text_is_safe);
    RUN(mismatched_masks);
    RUN(failing_memory);
    return check_done();
}
