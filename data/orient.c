/* orient.c - the EXIF orientation: finding it (libexif) and turning the picture upright. */
#include "data/codec.h"

#include <string.h>

#include <libexif/exif-data.h>

/* libexif's allocation callbacks know no context, and it goes on without what it could not allocate. */
static _Thread_local bool exif_out_of_memory;

static void *exif_alloc(ExifLong bytes)
{
    void *p = mem_zero(1, bytes);
    if (!p) exif_out_of_memory = true;
    return p;
}

static void *exif_resize(void *old, ExifLong bytes)
{
    void *p = mem_resize(old, bytes);
    if (!p) exif_out_of_memory = true;
    return p;
}

static void exif_free(void *p) { mem_free(p); }

static void look_up(ExifData *exif, int *orientation)
{
    ExifEntry *e = exif_content_get_entry(exif->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
    if (!e || !e->data || e->components < 1) return;
    ExifByteOrder order = exif_data_get_byte_order(exif);
    ExifLong value = 0;
    if (e->format == EXIF_FORMAT_SHORT && e->size >= 2) value = exif_get_short(e->data, order);
    if (e->format == EXIF_FORMAT_LONG && e->size >= 4) value = exif_get_long(e->data, order);
    if (value >= 1 && value <= 8) *orientation = (int)value;
}

sca_status exif_orientation(const uint8_t *bytes, size_t n, int *orientation)
{
    exif_out_of_memory = false;
    ExifMem *mem = exif_mem_new(exif_alloc, exif_resize, exif_free);
    ExifData *exif = mem ? exif_data_new_mem(mem) : NULL;
    if (exif && !exif_out_of_memory) {
        exif_data_unset_option(exif, EXIF_DATA_OPTION_FOLLOW_SPECIFICATION); /* as found, nothing added */
        exif_data_load_data(exif, bytes, (unsigned)(n < UINT32_MAX ? n : UINT32_MAX));
        if (!exif_out_of_memory) look_up(exif, orientation);
    }
    if (exif) exif_data_unref(exif);
    if (mem) exif_mem_unref(mem);
    if (!exif || exif_out_of_memory) return mem_fail(n, "EXIF data");
    return SCA_OK;
}

/* The upright pixel (x, y) is the stored pixel at `origin` + x * `right` + y * `down`, in pixels. */
typedef struct walk {
    ptrdiff_t origin, right, down;
} walk;

static walk walk_of(int orientation, ptrdiff_t width, ptrdiff_t height)
{
    bool last_column = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    bool last_row = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    ptrdiff_t x_step = last_column ? -1 : 1, y_step = last_row ? -width : width;
    walk w = { (last_column ? width - 1 : 0) + (last_row ? (height - 1) * width : 0), x_step, y_step };
    if (orientation >= 5) {
        w.right = y_step;
        w.down = x_step;
    }
    return w;
}

#define TILE 32 /* reads that run down columns stay within the cache */

static void copy_tile(const uint8_t *from, const walk *w, int x0, int y0, sca_image *to)
{
    int x1 = x0 + TILE < to->width ? x0 + TILE : to->width, y1 = y0 + TILE < to->height ? y0 + TILE : to->height;
    for (int y = y0; y < y1; y++) {
        ptrdiff_t i = w->origin + x0 * w->right + y * w->down;
        uint8_t *q = to->rgb + 3 * ((size_t)y * (size_t)to->width + (size_t)x0);
        for (int x = x0; x < x1; x++, q += 3, i += w->right) {
            q[0] = from[3 * i];
            q[1] = from[3 * i + 1];
            q[2] = from[3 * i + 2];
        }
    }
}

sca_status image_orient(sca_image *image, int orientation)
{
    if (orientation < 2 || orientation > 8) return SCA_OK;
    bool turned = orientation >= 5;
    sca_image upright;
    TRY(image_alloc(turned ? image->height : image->width, turned ? image->width : image->height, &upright));
    walk w = walk_of(orientation, image->width, image->height);
    for (int y = 0; y < upright.height; y += TILE)
        for (int x = 0; x < upright.width; x += TILE) copy_tile(image->rgb, &w, x, y, &upright);
    mem_free(image->rgb);
    *image = upright;
    return SCA_OK;
}
