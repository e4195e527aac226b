/* image.c - images as callers see them: reading by content, limits, gray pictures, memory. */
#include "data/codec.h"

#include <limits.h>
#include <string.h>

/* Room for metadata beside the largest raw form of an image, four 16-bit samples for each pixel. */
#define FILE_SLACK ((int64_t)64 << 20)
#define FILE_BYTES_PER_PIXEL 8

sca_status image_alloc(int width, int height, sca_image *out)
{
    *out = (sca_image){ 0 };
    if (width < 1 || height < 1)
        return status_fail(SCA_ERR_ARGUMENT, "image size %d x %d, expected at least 1 x 1", width, height);
    size_t bytes;
    if (!size_mul((size_t)width, (size_t)height, &bytes) || !size_mul(bytes, 3, &bytes))
        return mem_fail(SIZE_MAX, "an image");
    uint8_t *rgb = mem_alloc(bytes);
    if (!rgb) return mem_fail(bytes, "an image");
    *out = (sca_image){ width, height, rgb };
    return SCA_OK;
}

void sca_image_free(sca_image *image)
{
    if (!image) return;
    mem_free(image->rgb);
    *image = (sca_image){ 0 };
}

sca_status image_claim(const image_source *s, int64_t width, int64_t height, sca_image *out)
{
    if (width < 1 || height < 1 || width > INT_MAX || height > INT_MAX)
        return status_fail(SCA_ERR_FORMAT, "%s: image size %lld x %lld, expected 1 to %d on each side", s->name,
                           (long long)width, (long long)height, INT_MAX);
    if (width > s->max_pixels / height)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: image of %lld x %lld pixels, expected at most %lld pixels; raise the limit if "
                           "the file is trusted",
                           s->name, (long long)width, (long long)height, (long long)s->max_pixels);
    sca_status status = image_alloc((int)width, (int)height, out);
    return status == SCA_OK ? SCA_OK : status_context(status, "%s", s->name);
}

static sca_status limit_of(const sca_image_options *o, int64_t *max_pixels)
{
    *max_pixels = o && o->max_pixels ? o->max_pixels : IMAGE_MAX_PIXELS;
    if (*max_pixels < 0)
        return status_fail(SCA_ERR_ARGUMENT, "max_pixels is %lld, expected 0 (the default) or more",
                           (long long)*max_pixels);
    return SCA_OK;
}

static sca_status read_by_content(const image_source *s, sca_image *out, int *orientation)
{
    static const uint8_t jpeg[] = { 0xff, 0xd8, 0xff }, png[] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    if (s->n == 0) return status_fail(SCA_ERR_FORMAT, "%s: empty, expected a JPEG, PNG or PPM image", s->name);
    if (s->n >= sizeof jpeg && memcmp(s->bytes, jpeg, sizeof jpeg) == 0)
        return image_read_jpeg(s, out, orientation);
    if (s->n >= sizeof png && memcmp(s->bytes, png, sizeof png) == 0) return image_read_png(s, out, orientation);
    if (s->n >= 3 && IMAGE_PPM_MAGIC(s->bytes)) return image_read_ppm(s, out);

    unsigned first[4] = { 0 };
    for (size_t i = 0; i < LENGTH(first) && i < s->n; i++) first[i] = s->bytes[i];
    return status_fail(SCA_ERR_FORMAT,
                       "%s: unknown kind of file (first bytes %02x %02x %02x %02x), expected JPEG, PNG or binary "
                       "PPM; convert it",
                       s->name, first[0], first[1], first[2], first[3]);
}

sca_status image_decode(const void *bytes, size_t n, const char *name, const sca_image_options *o, sca_image *out)
{
    *out = (sca_image){ 0 };
    int64_t max_pixels;
    TRY(limit_of(o, &max_pixels));
    image_source s = { bytes, bytes ? n : 0, name, max_pixels, o && o->honour_exif };
    int orientation = 1;
    sca_status status = read_by_content(&s, out, &orientation);
    if (status == SCA_OK && (status = image_orient(out, orientation)) != SCA_OK) status_context(status, "%s", name);
    if (status != SCA_OK) sca_image_free(out);
    return status;
}

/* A file no larger than an image within the limit can need. */
static size_t file_limit(int64_t max_pixels)
{
    if (max_pixels > (INT64_MAX - FILE_SLACK) / FILE_BYTES_PER_PIXEL) return SIZE_MAX / 2;
    return (size_t)(max_pixels * FILE_BYTES_PER_PIXEL + FILE_SLACK);
}

sca_status image_read(const char *path, const sca_image_options *o, sca_image *out)
{
    *out = (sca_image){ 0 };
    int64_t max_pixels;
    TRY(limit_of(o, &max_pixels));
    char *bytes = NULL;
    size_t n = 0;
    TRY(file_read(path, file_limit(max_pixels), &bytes, &n));
    sca_status status = image_decode(bytes, n, path, o, out);
    mem_free(bytes);
    return status;
}

/* Pillow's convert("L"): ITU-R 601 luma in 16-bit fixed point, rounded. */
static void to_gray(const uint8_t *rgb, size_t pixels, uint8_t *gray)
{
    for (size_t i = 0; i < pixels; i++)
        gray[i] =
            (uint8_t)((rgb[3 * i] * 19595u + rgb[3 * i + 1] * 38470u + rgb[3 * i + 2] * 7471u + 0x8000u) >> 16);
}

sca_status image_read_gray(const char *path, int64_t max_pixels, int *width, int *height, uint8_t **gray)
{
    *gray = NULL;
    sca_image image;
    TRY(image_read(path, &(sca_image_options){ .max_pixels = max_pixels }, &image));
    size_t pixels = (size_t)image.width * (size_t)image.height;
    to_gray(image.rgb, pixels, image.rgb); /* pixel i is read before byte i is written: i <= 3 i */
    uint8_t *smaller = mem_resize(image.rgb, pixels);
    *width = image.width;
    *height = image.height;
    *gray = smaller ? smaller : image.rgb;
    return SCA_OK;
}

/* ---- the public names ------------------------------------------------------------------------------ */

sca_status sca_image_read_with(const char *path, const sca_image_options *o, sca_image *out)
{
    if (!path || !out) return status_fail(SCA_ERR_ARGUMENT, "sca_image_read: path or out is NULL");
    return image_read(path, o, out);
}

sca_status sca_image_read(const char *path, sca_image *out) { return sca_image_read_with(path, NULL, out); }

sca_status sca_image_decode(const void *bytes, size_t n, sca_image *out)
{
    if ((!bytes && n) || !out) return status_fail(SCA_ERR_ARGUMENT, "sca_image_decode: bytes or out is NULL");
    return image_decode(bytes, n, "image data", NULL, out);
}
