/* resize.c - Pillow's bilinear resize in fixed point, and the model's input (model.md 1).
 *
 * Two passes, each skipped when that side keeps its size; between them the picture is 8 bits deep.
 * Shrinking widens the triangle, so every source pixel counts.
 */
#include "data/codec.h"

#include <math.h>
#include <string.h>

#define WEIGHT_BITS 22 /* 8 bits of pixel and 2 of slack fill an int32 */

/* What each output position sums along one side: taps[i] weights from position first[i] on. */
typedef struct axis {
    int *first, *taps;
    int32_t *weights; /* (outputs, stride) */
    size_t stride;
} axis;

static void axis_free(axis *a)
{
    mem_free(a->first);
    mem_free(a->taps);
    mem_free(a->weights);
    *a = (axis){ 0 };
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

/* Weights of output i: normalised to 1, then rounded to fixed point. */
static void fill_weights(axis *a, int i, int from, double scale)
{
    double widen = scale > 1 ? scale : 1, narrow = 1 / widen, centre = (i + 0.5) * scale;
    double low = trunc(centre - widen + 0.5), high = trunc(centre + widen + 0.5);
    int first = low > 0 ? (int)low : 0, end = high < from ? (int)high : from;
    int32_t *weight = a->weights + (size_t)i * a->stride;
    double sum = 0;
    for (int j = 0; j < end - first; j++) sum += triangle((j + first - centre + 0.5) * narrow);
    for (int j = 0; j < end - first; j++) {
        double w = triangle((j + first - centre + 0.5) * narrow);
        if (sum != 0) w /= sum;
        weight[j] = (int32_t)(w * (1 << WEIGHT_BITS) + 0.5);
    }
    a->first[i] = first;
    a->taps[i] = end - first;
}

static sca_status axis_init(int from, int to, axis *a)
{
    double scale = (double)from / to, widen = scale > 1 ? scale : 1;
    size_t bytes;
    *a = (axis){ .stride = (size_t)ceil(widen) * 2 + 1 };
    if (!size_mul(a->stride * sizeof(int32_t), (size_t)to, &bytes)) return mem_fail(SIZE_MAX, "resize weights");
    a->first = mem_alloc((size_t)to * sizeof(int));
    a->taps = mem_alloc((size_t)to * sizeof(int));
    a->weights = mem_alloc(bytes);
    if (!a->first || !a->taps || !a->weights) {
        axis_free(a);
        return mem_fail(bytes, "resize weights");
    }
    for (int i = 0; i < to; i++) fill_weights(a, i, from, scale);
    return SCA_OK;
}

static uint8_t to_byte(int32_t sum)
{
    int32_t v = sum >> WEIGHT_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static void row_across(const uint8_t *in, const axis *a, int width, uint8_t *out)
{
    for (int x = 0; x < width; x++) {
        const uint8_t *p = in + 3 * (size_t)a->first[x];
        const int32_t *weight = a->weights + (size_t)x * a->stride;
        int32_t r = 1 << (WEIGHT_BITS - 1), g = r, b = r;
        for (int k = 0; k < a->taps[x]; k++, p += 3) {
            r += p[0] * weight[k];
            g += p[1] * weight[k];
            b += p[2] * weight[k];
        }
        out[3 * x] = to_byte(r);
        out[3 * x + 1] = to_byte(g);
        out[3 * x + 2] = to_byte(b);
    }
}

static sca_status across(const sca_image *in, int width, sca_image *out)
{
    axis a;
    TRY(image_alloc(width, in->height, out));
    sca_status status = axis_init(in->width, width, &a);
    if (status != SCA_OK) {
        sca_image_free(out);
        return status;
    }
    for (size_t y = 0; y < (size_t)in->height; y++)
        row_across(in->rgb + y * 3 * (size_t)in->width, &a, width, out->rgb + y * 3 * (size_t)width);
    axis_free(&a);
    return SCA_OK;
}

/* One output row; `sum` holds the accumulators of a row, so that each source row is read in one sweep. */
static void row_down(const sca_image *in, const axis *a, int y, int32_t *restrict sum, uint8_t *restrict out)
{
    size_t n = 3 * (size_t)in->width;
    const int32_t *weight = a->weights + (size_t)y * a->stride;
    for (size_t i = 0; i < n; i++) sum[i] = 1 << (WEIGHT_BITS - 1);
    for (int k = 0; k < a->taps[y]; k++) {
        const uint8_t *restrict p = in->rgb + (size_t)(a->first[y] + k) * n;
        int32_t w = weight[k];
        for (size_t i = 0; i < n; i++) sum[i] += p[i] * w;
    }
    for (size_t i = 0; i < n; i++) out[i] = to_byte(sum[i]);
}

static sca_status down(const sca_image *in, int height, sca_image *out)
{
    sca_status status;
    axis a = { 0 };
    size_t n = 3 * (size_t)in->width;
    int32_t *sum = NULL;
    TRY(image_alloc(in->width, height, out));
    TRY_GOTO(done, axis_init(in->height, height, &a));
    sum = mem_alloc(n * sizeof *sum);
    if (!sum) TRY_GOTO(done, mem_fail(n * sizeof *sum, "a row of sums"));
    for (int y = 0; y < height; y++) row_down(in, &a, y, sum, out->rgb + (size_t)y * n);
done:
    mem_free(sum);
    axis_free(&a);
    if (status != SCA_OK) sca_image_free(out);
    return status;
}

static sca_status copy(const sca_image *in, sca_image *out)
{
    TRY(image_alloc(in->width, in->height, out));
    memcpy(out->rgb, in->rgb, (size_t)in->width * (size_t)in->height * 3);
    return SCA_OK;
}

/* Pillow's order: rounding between the passes makes it visible. Only pictures that lose far more rows than columns
 * begin with the rows. */
static bool down_first(const sca_image *in, int width, int height)
{
    int64_t rows = (int64_t)in->height - height, columns = (int64_t)in->width - width;
    return rows > 0 && rows > 2 * columns;
}

sca_status image_resize(const sca_image *in, int width, int height, sca_image *out)
{
    sca_status status;
    *out = (sca_image){ 0 };
    if (!in->rgb || in->width < 1 || in->height < 1 || width < 1 || height < 1)
        return status_fail(SCA_ERR_ARGUMENT, "resize of %d x %d to %d x %d, expected at least 1 x 1", in->width,
                           in->height, width, height);
    bool new_width = width != in->width, new_height = height != in->height;
    if (!new_width && !new_height) return copy(in, out);
    if (!new_width) return down(in, height, out);
    if (!new_height) return across(in, width, out);
    sca_image between;
    if (down_first(in, width, height)) {
        TRY(down(in, height, &between));
        status = across(&between, width, out);
    } else {
        TRY(across(in, width, &between));
        status = down(&between, height, out);
    }
    sca_image_free(&between);
    return status;
}

void image_target(int width, int height, int longest, int *target_width, int *target_height)
{
    double scale = (double)longest / (width > height ? width : height);
    int w = (int)floor(width * scale + 0.5), h = (int)floor(height * scale + 0.5);
    *target_width = w > 0 ? w : 1; /* a strip thinner than half a target pixel keeps one */
    *target_height = h > 0 ? h : 1;
}

/* Normalised value of each byte and channel: rescaled in double, rounded to float, then float arithmetic. */
static void fill_levels(const double mean[3], const double std[3], float levels[3][256])
{
    for (int c = 0; c < 3; c++)
        for (int v = 0; v < 256; v++) {
            float x = (float)(v * (1.0 / 255));
            levels[c][v] = (x - (float)mean[c]) / (float)std[c];
        }
}

static void normalise(const sca_image *in, const float levels[3][256], int size, float *out)
{
    memset(out, 0, (size_t)size * (size_t)size * 3 * sizeof *out);
    for (size_t y = 0; y < (size_t)in->height; y++) {
        const uint8_t *p = in->rgb + y * 3 * (size_t)in->width;
        float *row = out + y * 3 * (size_t)size;
        for (size_t i = 0; i < 3 * (size_t)in->width; i += 3) {
            row[i] = levels[0][p[i]];
            row[i + 1] = levels[1][p[i + 1]];
            row[i + 2] = levels[2][p[i + 2]];
        }
    }
}

sca_status image_pixels(const sca_image *in, int size, const double mean[3], const double std[3], float *out,
                        int *resized_width, int *resized_height)
{
    if (!in->rgb || in->width < 1 || in->height < 1 || size < 1)
        return status_fail(SCA_ERR_ARGUMENT, "image of %d x %d for input size %d, expected at least 1 x 1",
                           in->width, in->height, size);
    int width, height;
    float levels[3][256];
    sca_image resized;
    image_target(in->width, in->height, size, &width, &height);
    TRY(image_resize(in, width, height, &resized));
    fill_levels(mean, std, levels);
    normalise(&resized, (const float(*)[256])levels, size, out);
    sca_image_free(&resized);
    if (resized_width) *resized_width = width;
    if (resized_height) *resized_height = height;
    return SCA_OK;
}
