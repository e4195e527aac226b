/* fuzz_image.c - libFuzzer target: any bytes as an image, in each orientation and through the resize. */
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

#include <zlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void decode(const uint8_t *data, size_t n, int exif)
{
    static const double mean[3] = { 0.485, 0.456, 0.406 }, std[3] = { 0.229, 0.224, 0.225 };
    float pixels[16 * 16 * 3];
    sca_image_options o = { .honour_exif = exif, .max_pixels = 20000 };
    sca_image image;
    if (image_decode(data, n, "input", &o, &image) != SCA_OK) {
        if (image.rgb || !status_message()[0]) abort(); /* a failure leaves nothing but words */
        return;
    }
    if ((int64_t)image.width * image.height > o.max_pixels) abort();
    if (image_pixels(&image, 16, mean, std, pixels, NULL, NULL) != SCA_OK) abort();
    sca_image_free(&image);
}

/* Corrects the checksums of a PNG, which would stop every mutation at the door. */
static void mend_png(uint8_t *data, size_t n)
{
    for (size_t at = 8; at + 12 <= n;) {
        size_t bytes =
            (size_t)data[at] << 24 | (size_t)data[at + 1] << 16 | (size_t)data[at + 2] << 8 | data[at + 3];
        if (bytes > n - at - 12) return;
        uLong crc = crc32(0, data + at + 4, (uInt)(bytes + 4));
        for (size_t i = 0; i < 4; i++) data[at + 8 + bytes + i] = (uint8_t)(crc >> (24 - 8 * i));
        at += bytes + 12;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    decode(data, n, 0);
    decode(data, n, 1);
    if (n < 8 || memcmp(data, "\x89PNG", 4) != 0) return 0;
    uint8_t *mended = malloc(n);
    if (!mended) return 0;
    memcpy(mended, data, n);
    mend_png(mended, n);
    decode(mended, n, 1);
    free(mended);
    return 0;
}
