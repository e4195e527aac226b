/* png.c - PNG through libpng, with the colours of Pillow's open().convert("RGB").
 *
 * Pillow drops transparency, ignores gamma and colour profiles, keeps the high byte of 16-bit colour, and clips
 * 16-bit gray at 255 (it does not scale it). As in jpeg.c, libpng's failures jump back to guarded().
 */
#include "data/codec.h"

#include <setjmp.h>
#include <string.h>

#include <png.h>

typedef struct png_reader {
    png_structp png;
    png_infop info;
    jmp_buf stop;
    const image_source *source;
    size_t at; /* next byte of the source */
    sca_image *out;
    int *orientation;
    bool out_of_memory;
} png_reader;

static _Noreturn void on_error(png_structp png, png_const_charp text)
{
    png_reader *r = png_get_error_ptr(png);
    if (r->out_of_memory)
        status_fail(SCA_ERR_MEMORY, "%s: out of memory for the PNG decoder", r->source->name);
    else
        status_fail(SCA_ERR_FORMAT, "%s: damaged PNG: %s; fetch the file again", r->source->name, text);
    longjmp(r->stop, 1);
}

/* Warnings about pixel data are damage that libpng would paint over; the others concern what is not used here. */
static void on_warning(png_structp png, png_const_charp text)
{
    png_reader *r = png_get_error_ptr(png);
    if (strncmp(text, "IDAT", 4) == 0) on_error(png, text);
    log_debug("%s: %s", r->source->name, text);
}

static png_voidp on_alloc(png_structp png, png_alloc_size_t bytes)
{
    png_reader *r = png_get_mem_ptr(png);
    void *p = mem_alloc(bytes);
    if (!p) r->out_of_memory = true;
    return p;
}

static void on_free(png_structp png, png_voidp p)
{
    (void)png;
    mem_free(p);
}

static void on_read(png_structp png, png_bytep to, size_t bytes)
{
    png_reader *r = png_get_io_ptr(png);
    if (bytes > r->source->n - r->at) on_error(png, "the data ends early");
    memcpy(to, r->source->bytes + r->at, bytes);
    r->at += bytes;
}

static sca_status find_orientation(png_reader *r)
{
    png_bytep tiff = NULL;
    png_uint_32 n = 0;
    if (!png_get_eXIf_1(r->png, r->info, &n, &tiff)) return SCA_OK;
    uint8_t *exif = mem_alloc((size_t)n + 6);
    if (!exif) return mem_fail((size_t)n + 6, "EXIF data");
    memcpy(exif, "Exif\0", 6); /* the PNG chunk leaves out the header that JPEG has */
    memcpy(exif + 6, tiff, n);
    sca_status status = exif_orientation(exif, (size_t)n + 6, r->orientation);
    mem_free(exif);
    return status;
}

static bool is_wide_gray(const png_reader *r)
{
    return png_get_color_type(r->png, r->info) == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(r->png, r->info) == 16;
}

static void choose_output(png_reader *r, bool wide_gray)
{
    if (!wide_gray) {
        png_set_expand(r->png);
        png_set_strip_16(r->png);
        png_set_strip_alpha(r->png);
        png_set_gray_to_rgb(r->png);
    }
}

/* Rows of 16-bit gray lie in the front of each RGB row: from the right, so that no pixel overwrites one to come. */
static void spread_wide_gray(sca_image *out)
{
    for (int y = 0; y < out->height; y++) {
        uint8_t *row = out->rgb + (size_t)y * 3 * (size_t)out->width;
        for (size_t x = (size_t)out->width; x-- > 0;) memset(row + 3 * x, row[2 * x] ? 255 : row[2 * x + 1], 3);
    }
}

static void read_rows(png_reader *r, int passes)
{
    size_t pitch = 3 * (size_t)r->out->width;
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < r->out->height; y++) png_read_row(r->png, r->out->rgb + (size_t)y * pitch, NULL);
}

static void set_up(png_reader *r)
{
    png_set_read_fn(r->png, r, on_read);
    png_set_user_limits(r->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX); /* image_claim has the last word */
    png_set_crc_action(r->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    /* profiles and texts are skipped, not inflated */
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    if (r->source->want_orientation)
        png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_AS_DEFAULT, (png_const_bytep) "eXIf", 1);
}

static sca_status decode(png_reader *r)
{
    set_up(r);
    png_read_info(r->png, r->info);
    TRY(image_claim(r->source, png_get_image_width(r->png, r->info), png_get_image_height(r->png, r->info),
                    r->out));
    bool wide_gray = is_wide_gray(r);
    choose_output(r, wide_gray);
    int passes = png_set_interlace_handling(r->png);
    png_read_update_info(r->png, r->info);
    if (png_get_rowbytes(r->png, r->info) != (size_t)r->out->width * (wide_gray ? 2 : 3))
        png_error(r->png, "unexpected size of a row");
    read_rows(r, passes);
    png_read_end(r->png, r->info);
    if (wide_gray) spread_wide_gray(r->out);
    return r->source->want_orientation ? find_orientation(r) : SCA_OK;
}

static sca_status guarded(png_reader *r)
{
    if (setjmp(r->stop)) return r->out_of_memory ? SCA_ERR_MEMORY : SCA_ERR_FORMAT;
    r->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, r, on_error, on_warning, r, on_alloc, on_free);
    if (r->png) r->info = png_create_info_struct(r->png);
    if (!r->info) return mem_fail(0, "the PNG decoder");
    return decode(r);
}

sca_status image_read_png(const image_source *s, sca_image *out, int *orientation)
{
    png_reader r = { .source = s, .out = out, .orientation = orientation };
    *out = (sca_image){ 0 };
    sca_status status = guarded(&r);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    if (status == SCA_OK && r.out_of_memory) /* libpng went on without some chunk: not what the file says */
        status = status_fail(SCA_ERR_MEMORY, "%s: out of memory for the PNG decoder", s->name);
    if (status != SCA_OK) sca_image_free(out);
    return status;
}
