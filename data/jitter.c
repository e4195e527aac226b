/* jitter.c - flip and large-scale jitter of a training image, its boxes and masks (data.md 4.1, quirks D1 to D3). */
#include "data/loader_parts.h"

#include <math.h>
#include <string.h>

void jitter_init(jitter *j, int width, int height, int side, double flip, double scale, double crop)
{
    double tall = side * scale / height, wide = side * scale / width, factor = tall < wide ? tall : wide;
    int new_width = (int)rint(width * factor), new_height = (int)rint(height * factor);
    *j = (jitter){ .from_width = width,
                   .from_height = height,
                   .flip = flip<0.5, .width = new_width> 0 ? new_width : 1,
                   .height = new_height > 0 ? new_height : 1,
                   .side = side };
    if (j->width > side) j->left = (int)rint((j->width - side) * crop);
    if (j->height > side) j->top = (int)rint((j->height - side) * crop);
}

/* ---- the image ------------------------------------------------------------------------------------------------------
 * PyTorch's bilinear interpolation without anti-aliasing, of doubles with the channels last: multiply-adds in the order
 * of its kernel. Flat parts of a picture come out within rounding of whole levels, which are then cut, so that any other
 * order shows. */

/* Output position i lies between source positions low and high. */
typedef struct between {
    int low, high;
    double weight; /* of high */
} between;

static between source_of(int i, int from, int to)
{
    double at = fma((double)from / to, i + 0.5, -0.5);
    if (at < 0) at = 0;
    int low = (int)at < from ? (int)at : from - 1;
    return (between){ low, low + (low < from - 1), at - low };
}

typedef struct jittering {
    const jitter *j;
    const sca_image *in;
    const double *mean, *std;
    double level[3][256]; /* of bytes, normalised */
    between *across;      /* (columns) */
    int columns, rows;
} jittering;

static void jitter_row(const jittering *w, int y, uint8_t *out)
{
    between b = source_of(y + w->j->top, w->in->height, w->j->height);
    size_t row = 3 * (size_t)w->in->width;
    const uint8_t *low = w->in->rgb + (size_t)b.low * row, *high = w->in->rgb + (size_t)b.high * row;
    for (int x = 0; x < w->columns; x++) {
        between a = w->across[x];
        double w00 = (1 - b.weight) * (1 - a.weight), w01 = (1 - b.weight) * a.weight;
        double w10 = b.weight * (1 - a.weight), w11 = b.weight * a.weight;
        for (int c = 0; c < 3; c++) {
            const double *level = w->level[c];
            double v = fma(w00, level[low[3 * a.low + c]], w01 * level[low[3 * a.high + c]]);
            v = fma(w11, level[high[3 * a.high + c]], fma(w10, level[high[3 * a.low + c]], v));
            out[3 * x + c] = (uint8_t)(int)((v * w->std[c] + w->mean[c]) * 255);
        }
    }
}

/* A 0 of the normalised image, as the last step makes bytes of it. */
static void fill_padding(const jittering *w, uint8_t *out)
{
    size_t side = (size_t)w->j->side;
    uint8_t pad[3];
    for (int c = 0; c < 3; c++) pad[c] = (uint8_t)(w->mean[c] * 255);
    for (size_t y = 0; y < side; y++)
        for (size_t x = y < (size_t)w->rows ? (size_t)w->columns : 0; x < side; x++)
            memcpy(out + 3 * (y * side + x), pad, 3);
}

static void fill_across(const jittering *w)
{
    const jitter *j = w->j;
    for (int x = 0; x < w->columns; x++) {
        between a = source_of(x + j->left, j->from_width, j->width);
        if (j->flip) a = (between){ j->from_width - 1 - a.low, j->from_width - 1 - a.high, a.weight };
        w->across[x] = a;
    }
}

sca_status jitter_image(const jitter *j, const sca_image *in, const double mean[3], const double std[3],
                        sca_image *out)
{
    jittering w = { .j = j, .in = in, .mean = mean, .std = std };
    w.columns = j->width < j->side ? j->width : j->side;
    w.rows = j->height < j->side ? j->height : j->side;
    TRY(image_alloc(j->side, j->side, out));
    w.across = mem_alloc((size_t)w.columns * sizeof *w.across);
    if (!w.across) {
        sca_image_free(out);
        return mem_fail((size_t)w.columns * sizeof *w.across, "a jittered image");
    }
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) w.level[c][v] = (v / 255.0 - mean[c]) / std[c];
    fill_across(&w);
    for (int y = 0; y < w.rows; y++) jitter_row(&w, y, out->rgb + 3 * (size_t)y * (size_t)j->side);
    fill_padding(&w, out->rgb);
    mem_free(w.across);
    return SCA_OK;
}

/* ---- boxes ---------------------------------------------------------------------------------------------------------- */

static void sort_two(double *a, double *b)
{
    if (*a <= *b) return;
    double kept = *a;
    *a = *b;
    *b = kept;
}

void jitter_box(const jitter *j, double box[4])
{
    double wide = (double)j->width / j->from_width, tall = (double)j->height / j->from_height;
    for (int k = 0; k < 4; k += 2) {
        if (j->flip) box[k] = j->from_width - box[k];
        box[k] = trunc(box[k] * wide) - j->left;
        box[k + 1] = trunc(box[k + 1] * tall) - j->top;
    }
    sort_two(&box[0], &box[2]);
    sort_two(&box[1], &box[3]);
}

/* ---- masks ---------------------------------------------------------------------------------------------------------- */

enum { SAMPLES = 4 }; /* of a mask's cell, along each side */

/* The photo's pixel below each sample of one side; -1: outside. */
static void fill_samples(int *at, int cells, int side, int from, int to, int offset, bool flip)
{
    for (int i = 0; i < cells * SAMPLES; i++) {
        double place = (i + 0.5) * side / ((double)cells * SAMPLES) + offset;
        int pixel = (int)(place * from / to);
        if (place >= to || pixel >= from) pixel = -1;
        at[i] = pixel >= 0 && flip ? from - 1 - pixel : pixel;
    }
}

static uint8_t covered(const uint8_t *on, int width, const int *across, const int *down)
{
    int inside = 0;
    for (int i = 0; i < SAMPLES; i++) {
        if (down[i] < 0) continue;
        const uint8_t *row = on + (size_t)down[i] * (size_t)width;
        for (int k = 0; k < SAMPLES; k++) inside += across[k] >= 0 && row[across[k]];
    }
    return 2 * inside >= SAMPLES * SAMPLES;
}

sca_status mask_frame(const uint8_t *on, int width, int height, const jitter *j, int side, int mask_side,
                      uint8_t *out)
{
    int to_width, to_height, n = mask_side * SAMPLES;
    int *across = mem_alloc(2 * (size_t)n * sizeof *across);
    if (!across) return mem_fail(2 * (size_t)n * sizeof *across, "a mask");
    int *down = across + n;
    image_target(width, height, side, &to_width, &to_height);
    if (j) to_width = j->width, to_height = j->height;
    fill_samples(across, mask_side, side, width, to_width, j ? j->left : 0, j && j->flip);
    fill_samples(down, mask_side, side, height, to_height, j ? j->top : 0, false);
    for (int y = 0; y < mask_side; y++)
        for (int x = 0; x < mask_side; x++)
            out[(size_t)y * (size_t)mask_side + (size_t)x] =
                covered(on, width, across + x * SAMPLES, down + y * SAMPLES);
    mem_free(across);
    return SCA_OK;
}
