/* regions.c - the regions of a command line: --box and --next begin one, points and a mask belong to it. */
#include "tool.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- numbers ------------------------------------------------------------------------------------------------ */

/* Reads up to `most` numbers between commas; returns how many, or -1 when one is none, too long or not finite. */
static int read_numbers(const char *text, double *out, int most)
{
    for (int n = 0;; n++) {
        size_t length = strcspn(text, ",");
        char number[64];
        if (n == most || length >= sizeof number) return -1;
        memcpy(number, text, length);
        number[length] = 0;
        /* The models compute in float: what overflows there is not finite either. */
        if (!text_to_double(number, &out[n]) || fabs(out[n]) > FLT_MAX) return -1;
        if (!text[length]) return n + 1;
        text += length + 1;
    }
}

static int read_box(const char *command, const char *value, double box[4])
{
    if (read_numbers(value, box, 4) == 4) return DONE;
    return fail_usage("%s: --box %s: expected four finite numbers x1,y1,x2,y2 in pixels", command, value);
}

static int read_point(const char *command, const char *value, sca_point *out)
{
    double numbers[3] = { 0, 0, 1 };
    int n = read_numbers(value, numbers, 3);
    double label = numbers[2];
    if (n < 2)
        return fail_usage("%s: --point %s: expected two finite numbers x,y and perhaps a label", command, value);
    if (label != 1 && label != 0 && label != -1 && label != -10)
        return fail_usage("%s: --point %s: label %g, expected 1 (inside) or 0 (outside)", command, value, label);
    *out = (sca_point){ .x_px = numbers[0], .y_px = numbers[1], .label = (int)label };
    return DONE;
}

/* ---- grammar ------------------------------------------------------------------------------------------------ */

static region *open_region(region_list *r, const sca_point *points)
{
    r->items[r->n] = (region){ .points = points };
    return &r->items[r->n++];
}

int regions_read(const arguments *a, region_list *out)
{
    *out = (region_list){ 0 };
    size_t count = (size_t)a->n_regions + 1;
    out->items = mem_zero(count, sizeof *out->items);
    out->points = mem_zero(count, sizeof *out->points);
    if (!out->items || !out->points) {
        (void)mem_fail(count * sizeof *out->items, "the regions");
        return fail_now();
    }
    sca_point *points = out->points; /* those of a region lie together, since regions are never reopened */
    region *open = NULL;
    for (int i = 0; i < a->n_regions; i++) {
        const argument *next = &a->regions[i];
        int result = DONE;
        if (next->id == OPTION_NEXT) {
            open = NULL;
            continue;
        }
        if (next->id == OPTION_BOX || !open) open = open_region(out, points);
        if (next->id == OPTION_BOX) {
            open->has_box = true;
            result = read_box(a->command, next->value, open->box);
        } else if (next->id == OPTION_POINT) {
            result = read_point(a->command, next->value, points++);
            open->n_points++;
        } else if (open->mask) {
            result = fail_usage("%s: --mask %s: region %d has a mask already; --next begins another region",
                                a->command, next->value, out->n);
        } else {
            open->mask = next->value;
        }
        if (result != DONE) return result;
    }
    return DONE;
}

void regions_free(region_list *r)
{
    mem_free(r->items);
    mem_free(r->points);
    *r = (region_list){ 0 };
}

/* ---- doubtful prompts ------------------------------------------------------------------------------------------
 */

static bool outside(double x, double y, int width, int height) { return x < 0 || y < 0 || x > width || y > height; }

void regions_warn(const region_list *r, const char *image, int width, int height)
{
    for (int i = 0; i < r->n; i++) {
        const region *g = &r->items[i];
        const double *b = g->box;
        if (g->has_box && (b[2] < b[0] || b[3] < b[1]))
            log_warn("%s: box %g,%g,%g,%g of region %d is inverted; it is used as given", image, b[0], b[1], b[2],
                     b[3], i + 1);
        if (g->has_box && (outside(b[0], b[1], width, height) || outside(b[2], b[3], width, height)))
            log_warn("%s: box %g,%g,%g,%g of region %d reaches outside the image of %d x %d; it is used as given",
                     image, b[0], b[1], b[2], b[3], i + 1, width, height);
        for (int k = 0; k < g->n_points; k++)
            if (g->points[k].label >= 0 && outside(g->points[k].x_px, g->points[k].y_px, width, height))
                log_warn("%s: point %g,%g of region %d is outside the image of %d x %d; it is used as given", image,
                         g->points[k].x_px, g->points[k].y_px, i + 1, width, height);
    }
}
