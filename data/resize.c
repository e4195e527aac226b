/* resize.c - Pillow's bilinear resize in fixed point, and the model's input (model.md 1).
 *
 * Two passes, each skipped when that side keeps its size; between them the picture is 8 bits deep.
 * Shrinking widens the triangle, so every source pixel counts.
 */
#include "data/codec.h"
#include "data/resize_rows.h"

#include <math.h>
#include <string.h>

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
    *a = (axis){ .stride = (size_t)ceil(widen) * 2 + 2 };
    if (!size_mul(a->stride * sizeof(int32_t), (size_t)to, &bytes)) return mem_fail(SIZE_MAX, "resize weights");
    a->first = mem_alloc((size_t)to * sizeof(int));
    a->taps = mem_alloc((size_t)to * sizeof(int));
    a->weights = mem_zero((size_t)to, a->stride * sizeof(int32_t));
    if (!a->first || !a->taps || !a->weights) {
        axis_free(a);
        return mem_fail(bytes, "resize weights");
    }
    for (int i = 0; i < to; i++) fill_weights(a, i, from, scale);
    return SCA_OK;
}

static bool has_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

#if defined(__x86_64__)
#define CHOOSE(name) (has_avx2() ? name##_avx2 : name##_any)
#else
#define CHOOSE(name) name##_any
#endif

static sca_status across(const sca_image *in, int width, sca_image *out)
{
    axis a;
    TRY(image_alloc(width, in->height, out));
    sca_status status = axis_init(in->width, width, &a);
    if (status != SCA_OK) {
        sca_image_free(out);
        return status;
    }
    resize_across_fn *row = CHOOSE(resize_across);
    size_t pitch = 3 * (size_t)in->width, height = (size_t)in->height;
    for (size_t y = 0; y < height; y++)
        row(in->rgb + y * pitch, (height - y) * pitch, &a, width, out->rgb + y * 3 * (size_t)width);
    axis_free(&a);
    return SCA_OK;
}

static sca_status down(const sca_image *in, int height, sca_image *out)
{
    axis a;
    size_t n = 3 * (size_t)in->width;
    TRY(image_alloc(in->width, height, out));
    sca_status status = axis_init(in->height, height, &a);
    if (status != SCA_OK) {
        sca_image_free(out);
        return status;
    }
    resize_down_fn *row = CHOOSE(resize_down);
    for (int y = 0; y < height; y++) row(in->rgb, n, &a, y, out->rgb + (size_t)y * n);
    axis_free(&a);
    return SCA_OK;
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
    size_t pitch = 3 * (size_t)size, used = 3 * (size_t)in->width, height = (size_t)in->height;
    for (size_t y = 0; y < height; y++) {
        const uint8_t *p = in->rgb + y * used;
        float *row = out + y * pitch;
        for (size_t i = 0; i < used; i += 3) {
            row[i] = levels[0][p[i]];
            row[i + 1] = levels[1][p[i + 1]];
            row[i + 2] = levels[2][p[i + 2]];
        }
        memset(row + used, 0, (pitch - used) * sizeof *row);
    }
    memset(out + height * pitch, 0, ((size_t)size - height) * pitch * sizeof *out);
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
