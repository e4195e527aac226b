/* data.h - samples on the host: images, masks, (with the data issue) datasets and loaders.
 *
 * Layer: base only. Knows no tensor and no model: plain arrays with a shape and an element type.
 * Sources: spec model.md 1 (preprocessing), data.md.
 */
#ifndef DATA_H
#define DATA_H

#include "base/base.h"

/* ---- images (image.c) ---------------------------------------------------------------------------- */

#define IMAGE_MAX_PIXELS 200000000
#define IMAGE_MAX_SCANS 500 /* of a progressive JPEG */

/* JPEG (accurate integer DCT, smooth chroma upsampling, as Pillow's libjpeg-turbo decodes), PNG (8/16 bit, palette,
 * gray, alpha: as Pillow's convert("RGB") gives it, alpha dropped) and binary PPM, told by content.
 * `name` is for messages. Truncated or damaged data, more than the limits: an error. Options may be NULL. */
sca_status image_read(const char *path, const sca_image_options *o, sca_image *out);
sca_status image_decode(const void *bytes, size_t n, const char *name, const sca_image_options *o, sca_image *out);
/* Reads a PNG as one gray channel (height, width), for mask prompts; colour is converted as Pillow's convert("L"). */
sca_status image_read_gray(const char *path, int64_t max_pixels, int *width, int *height, uint8_t **gray);
sca_status image_alloc(int width, int height, sca_image *out);

/* Target size of an image whose longest side becomes `longest`: floor(side * longest / max + 0.5). */
void image_target(int width, int height, int longest, int *target_width, int *target_height);
/* Pillow's BILINEAR resize, bit for bit (model.md 1.2). */
sca_status image_resize(const sca_image *in, int width, int height, sca_image *out);
/* The model's input: resized to `size`, rescaled, normalised in float32, zero-padded on the right and bottom.
 * out: (size, size, 3) float32, caller's. *resized_width, *resized_height may be NULL. */
sca_status image_pixels(const sca_image *in, int size, const double mean[3], const double std[3], float *out,
                        int *resized_width, int *resized_height);

/* ---- masks (mask.c): COCO run lengths, exactly as pycocotools ----------------------------------------- */

/* Runs go down the columns and start with zeros. */
typedef struct mask_runs {
    int width, height;
    uint32_t *counts; /* owned; mask_runs_free */
    size_t count;
} mask_runs;
sca_status mask_encode(const uint8_t *on, int width, int height, mask_runs *out); /* on: (height, width), 0 or 1 */
sca_status mask_decode(const mask_runs *r, uint8_t *on);                          /* (height, width), caller's */
sca_status mask_runs_text(const mask_runs *r, char **counts);                     /* compressed string, mem_free */
sca_status mask_runs_parse(const char *counts, int width, int height, mask_runs *out); /* checks the total */
sca_status mask_from_polygons(const double *const *xy, const size_t *n_points, size_t parts, int width, int height,
                              mask_runs *out); /* union of the parts */
sca_status mask_from_box(const double xywh[4], int width, int height, mask_runs *out);
sca_status mask_union(const mask_runs *a, size_t n, mask_runs *out);
int64_t mask_area(const mask_runs *r);
void mask_box(const mask_runs *r, double xywh[4]);
double mask_iou(const mask_runs *a, const mask_runs *b, bool b_is_crowd);
void mask_runs_free(mask_runs *r);

#endif
