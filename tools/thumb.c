/* thumb.c - small pictures of photos with a region marked, for pages that hold everything themselves. */
#include "tool.h"

#include <string.h>
#include <turbojpeg.h>

enum { QUALITY = 78 };

typedef struct thumb {
    int width, height;
    uint8_t *rgb;  /* (height, width, 3) owned */
    double scale;  /* of the photo */
    uint8_t *mask; /* (photo height, photo width) owned; NULL: none */
} thumb;

/* ---- masks ------------------------------------------------------------------------------------------------------ */

/* The next run length of a compressed string: groups of 5 bits from 48 on, the sixth says that more follow, the sign
 * goes on upwards; from the third run on it is the difference to the one before the last. */
static bool next_run(const char **at, int64_t *value)
{
    int64_t x = 0;
    for (int shift = 0;; shift += 5) {
        int c = **at - 48;
        if (c < 0 || c > 63 || shift > 30) return false;
        (*at)++;
        x |= (int64_t)(c & 31) << shift;
        if (c & 32) continue;
        if (c & 16) x -= (int64_t)1 << (shift + 5);
        *value = x;
        return true;
    }
}

/* Runs go down the columns. False when the text is no mask of this size. */
static bool fill_mask(const char *text, uint8_t *mask, int width, int height)
{
    int64_t pixels = (int64_t)width * height, at = 0, run[2] = { 0, 0 }, n;
    for (int i = 0; *text; i++) {
        if (!next_run(&text, &n)) return false;
        if (i > 2) n += run[i % 2];
        run[i % 2] = n;
        if (n < 0 || n > pixels - at) return false;
        for (; i % 2 && n > 0; n--, at++) mask[(at % height) * width + at / height] = 1;
        at += n;
    }
    return at == pixels;
}

/* ---- pixels ----------------------------------------------------------------------------------------------------- */

/* Each small pixel is the mean of those it covers, tinted by the share of the mask. */
static void shrink_pixel(const sca_image *photo, const thumb *t, int x, int y, uint8_t out[3])
{
    static const double tint[3] = { 255, 40, 90 };
    int x0 = (int)((int64_t)x * photo->width / t->width), x1 = (int)((int64_t)(x + 1) * photo->width / t->width);
    int y0 = (int)((int64_t)y * photo->height / t->height),
        y1 = (int)((int64_t)(y + 1) * photo->height / t->height);
    double sum[3] = { 0 }, inside = 0, n = 0;
    if (x1 <= x0) x1 = x0 + 1;
    if (y1 <= y0) y1 = y0 + 1;
    for (int v = y0; v < y1; v++)
        for (int u = x0; u < x1; u++, n++) {
            size_t at = (size_t)v * (size_t)photo->width + (size_t)u;
            for (int k = 0; k < 3; k++) sum[k] += photo->rgb[3 * at + (size_t)k];
            if (t->mask) inside += t->mask[at];
        }
    double share = 0.5 * inside / n;
    for (int k = 0; k < 3; k++) out[k] = (uint8_t)(sum[k] / n * (1 - share) + tint[k] * share + 0.5);
}

static void put_dot(thumb *t, int x, int y)
{
    static const uint8_t colour[3] = { 255, 235, 0 };
    if (x < 0 || y < 0 || x >= t->width || y >= t->height) return;
    memcpy(t->rgb + 3 * ((size_t)y * (size_t)t->width + (size_t)x), colour, 3);
}

static void draw_box(thumb *t, const double box[4])
{
    int x0 = (int)(box[0] * t->scale), y0 = (int)(box[1] * t->scale);
    int x1 = (int)(box[2] * t->scale) - 1, y1 = (int)(box[3] * t->scale) - 1;
    for (int i = 0; i < 2; i++) {
        for (int x = x0; x <= x1; x++) put_dot(t, x, y0 + i), put_dot(t, x, y1 - i);
        for (int y = y0; y <= y1; y++) put_dot(t, x0 + i, y), put_dot(t, x1 - i, y);
    }
}

static sca_status shrink(const sca_image *photo, const char *mask, int side, thumb *t)
{
    int longest = photo->width > photo->height ? photo->width : photo->height;
    size_t pixels = (size_t)photo->width * (size_t)photo->height;
    t->scale = longest > side ? (double)side / longest : 1;
    t->width = (int)(photo->width * t->scale + 0.5);
    t->height = (int)(photo->height * t->scale + 0.5);
    if (t->width < 1) t->width = 1;
    if (t->height < 1) t->height = 1;
    t->rgb = mem_alloc(3 * (size_t)t->width * (size_t)t->height);
    if (mask) t->mask = mem_zero(pixels, 1);
    if (!t->rgb || (mask && !t->mask)) return mem_fail(pixels, "a small picture");
    if (mask && !fill_mask(mask, t->mask, photo->width, photo->height))
        return status_fail(SCA_ERR_FORMAT, "the mask is none of a photo of %d x %d", photo->width, photo->height);
    for (int y = 0; y < t->height; y++)
        for (int x = 0; x < t->width; x++)
            shrink_pixel(photo, t, x, y, t->rgb + 3 * ((size_t)y * (size_t)t->width + (size_t)x));
    return SCA_OK;
}

/* ---- encoding --------------------------------------------------------------------------------------------------- */

static void put_base64(str *s, const uint8_t *data, size_t bytes)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < bytes; i += 3) {
        size_t n = bytes - i < 3 ? bytes - i : 3;
        uint32_t bits = (uint32_t)data[i] << 16;
        if (n > 1) bits |= (uint32_t)data[i + 1] << 8;
        if (n > 2) bits |= data[i + 2];
        for (size_t k = 0; k < 4; k++) str_putc(s, k <= n ? letters[bits >> (18 - 6 * k) & 63] : '=');
    }
}

static sca_status put_jpeg(const thumb *t, str *base64)
{
    tjhandle encoder = tjInitCompress();
    unsigned char *data = NULL;
    unsigned long bytes = 0;
    sca_status status = SCA_OK;
    if (!encoder || tjCompress2(encoder, t->rgb, t->width, 0, t->height, TJPF_RGB, &data, &bytes, TJSAMP_420,
                                QUALITY, TJFLAG_ACCURATEDCT) < 0)
        status = status_fail(SCA_ERR_MEMORY, "a small picture cannot be encoded: %s", tjGetErrorStr2(encoder));
    else
        put_base64(base64, data, bytes);
    tjFree(data);
    if (encoder) tjDestroy(encoder);
    return status == SCA_OK && base64->failed ? mem_fail(base64->bytes, "a small picture") : status;
}

sca_status thumb_put(const char *photo, const char *mask, const double box[4], int side, str *base64)
{
    sca_image image = { 0 };
    thumb t = { 0 };
    sca_status status;
    TRY_GOTO(done, sca_image_read(photo, &image));
    TRY_GOTO(done, shrink(&image, mask, side, &t));
    draw_box(&t, box);
    status = put_jpeg(&t, base64);
done:
    mem_free(t.rgb);
    mem_free(t.mask);
    sca_image_free(&image);
    return status;
}
