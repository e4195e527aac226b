/* fuzz_mask.c - libFuzzer target: any bytes as compressed runs, as polygons and as pixels. */
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Whatever is accepted measures up to its pixels and survives a round trip. */
static void check(const mask_runs *r)
{
    size_t pixels = (size_t)r->width * (size_t)r->height;
    uint8_t *on = malloc(pixels);
    mask_runs again = { 0 };
    double box[4];
    int64_t area = 0;
    if (!on || mask_decode(r, on) != SCA_OK || mask_encode(on, r->width, r->height, &again) != SCA_OK) abort();
    for (size_t i = 0; i < pixels; i++) area += on[i];
    mask_box(r, box);
    if (area != mask_area(r) || area != mask_area(&again) || (double)area > box[2] * box[3]) abort();
    if (mask_iou(r, &again, false) != (area ? 1 : 0)) abort();
    free(on);
    mask_runs_free(&again);
}

static void as_text(const uint8_t *data, size_t n, int width, int height)
{
    char *text = text_copy((const char *)data, n);
    mask_runs r = { 0 };
    if (text && mask_runs_parse(text, width, height, &r) == SCA_OK) check(&r);
    mask_runs_free(&r);
    mem_free(text);
}

static void as_polygons(const uint8_t *data, size_t n, int width, int height)
{
    enum { MOST = 64 };
    double points[2 * MOST], small[2 * MOST];
    const double *parts[2] = { points, small };
    size_t count = n / (2 * sizeof *points) < MOST ? n / (2 * sizeof *points) : MOST;
    size_t counts[2] = { count, n / 2 < MOST ? n / 2 : MOST };
    memcpy(points, data, count * 2 * sizeof *points);
    for (size_t i = 0; i < 2 * counts[1]; i++) small[i] = data[i] * 0.3 - 20;
    for (size_t first = 0; first < 2; first++) {
        mask_runs r = { 0 };
        if (mask_from_polygons(parts + first, counts + first, 2 - first, width, height, &r) == SCA_OK) check(&r);
        mask_runs_free(&r);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2) return 0;
    int width = data[0] % 100, height = data[1] % 100;
    as_text(data + 2, n - 2, width, height);
    as_polygons(data + 2, n - 2, width, height);
    return 0;
}
