/* codec.h - what the image readers share; internal to data/.
 *
 * Every reader gets the whole file in memory, checks the size its header claims before it allocates, and leaves
 * *out empty when it fails.
 */
#ifndef CODEC_H
#define CODEC_H

#include "data/data.h"

typedef struct image_source {
    const uint8_t *bytes;
    size_t n;
    const char *name; /* for messages */
    int64_t max_pixels;
    bool want_orientation; /* look for the EXIF orientation; readers leave *orientation alone otherwise */
} image_source;

#define IMAGE_PPM_MAGIC(bytes) ((bytes)[0] == 'P' && ((bytes)[1] == '5' || (bytes)[1] == '6'))

/* *orientation: 1 to 8 as EXIF numbers them; unchanged when the file does not say. */
sca_status image_read_jpeg(const image_source *s, sca_image *out, int *orientation); /* jpeg.c */
sca_status image_read_png(const image_source *s, sca_image *out, int *orientation);  /* png.c */
sca_status image_read_ppm(const image_source *s, sca_image *out);                    /* ppm.c */

/* Refuses a size outside 1 x 1 to max_pixels pixels (SCA_ERR_FORMAT), then allocates; pixels are not initialised.
 */
sca_status image_claim(const image_source *s, int64_t width, int64_t height, sca_image *out); /* image.c */

/* The orientation in an EXIF block ("Exif\0\0", then TIFF). Malformed blocks say nothing, as in every viewer. */
sca_status exif_orientation(const uint8_t *exif, size_t n, int *orientation); /* orient.c */
/* Turns the image upright in place of its old pixels; orientation 1 does nothing. */
sca_status image_orient(sca_image *image, int orientation);

#endif
