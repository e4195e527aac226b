/* fuzz_image.c - libFuzzer target: any bytes as an image, in each orientation and through the resize. */
#include "data/data.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const double mean[3] = { 0.485, 0.456, 0.406 }, std[3] = { 0.229, 0.224, 0.225 };
    float pixels[16 * 16 * 3];
    for (int exif = 0; exif < 2; exif++) {
        sca_image_options o = { .honour_exif = exif, .max_pixels = 20000 };
        sca_image image;
        sca_status status = image_decode(data, n, "input", &o, &image);
        if (status != SCA_OK) {
            if (image.rgb || !status_message()[0]) abort(); /* a failure leaves nothing but words */
            continue;
        }
        if ((int64_t)image.width * image.height > o.max_pixels) abort();
        if (image_pixels(&image, 16, mean, std, pixels, NULL, NULL) != SCA_OK) abort();
        sca_image_free(&image);
    }
    return 0;
}
