/* store.h - what a store holds, for its writer and its reader; private to data/.
 *
 *   about            u8  (bytes)      JSON: format, kind, split, task, name, annotations, images, counts, encoder, exif
 *   bad              u8  (bytes)      the records that were left out: FILE \t WHAT \t ID or #POSITION \t REASON \n
 *   image_id         i64 (n)
 *   image_size       i32 (n, 2)       width, height as annotated; 0: not said
 *   image_decoded    i32 (n, 2)       width, height of the decoded image; 0: it cannot be decoded
 *   image_path       i64 (n + 1)      where paths begin
 *   paths            u8  (bytes)      relative to the folder of images
 *   image_regions    i64 (n + 1)      where an image's regions begin
 *   region_id        i64 (R)
 *   region_box       i32 (R, 4)       x, y, width, height
 *   region_phrases   i64 (R + 1)      where a region's phrases begin
 *   phrase_text      i64 (P + 1)      where phrases begin
 *   phrases          u8  (bytes)      UTF-8, not closed
 *   region_mask      i64 (R + 1)      where masks begin; an empty one: none
 *   masks            u8  (bytes)      COCO's compressed run lengths, of the decoded size
 *   file_bytes       i64 (n + 1)      where image files begin         (with --jpeg)
 *   files            u8  (bytes)      image files as they are
 *   embeddings       f16 or f32 (n, g * g, C)                         (with --embeddings)
 */
#ifndef DATA_STORE_H
#define DATA_STORE_H

#include "data/dataset_parts.h"
#include "data/hdf5.h"

#define STORE_FORMAT 1

typedef struct store_image_info {
    int32_t width, height; /* of the decoded image; 0: it cannot be decoded, */
    const uint8_t *data;   /* and this is why; else its embedding            */
    uint64_t bytes;
} store_image_info;
typedef struct store_source {
    const prepare_options *o;
    const dataset *d;
    int64_t n;
    store_image_info *images; /* (n) */
} store_source;
/* Writes the store (store_write.c). *table: counts for people. */
sca_status store_write(const store_source *from, str *table);

#endif
