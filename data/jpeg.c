/* jpeg.c - JPEG through libjpeg(-turbo): accurate integer DCT and smooth chroma, the decoder's own defaults, which
 * Pillow uses too.
 *
 * libjpeg reports failures through callbacks that must not return. They record the status and jump back to
 * guarded(), whose frame holds nothing that changes; everything else lives in the jpeg_reader of its caller.
 * libjpeg takes its working memory from malloc itself (its library has no door for that); its failure arrives as an
 * error code.
 */
#include "data/codec.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

typedef struct jpeg_reader {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf stop;
    const image_source *source;
    sca_image *out;
    uint8_t *cmyk; /* one row; NULL for gray and RGB */
    int *orientation;
    sca_status status;
    bool warned;
} jpeg_reader;

static jpeg_reader *reader_of(j_common_ptr info) { return info->client_data; }

static _Noreturn void stop_with(jpeg_reader *r, sca_status status)
{
    r->status = status;
    longjmp(r->stop, 1);
}

static void on_error(j_common_ptr info)
{
    jpeg_reader *r = reader_of(info);
    char text[JMSG_LENGTH_MAX];
    r->errors.format_message(info, text);
    if (r->errors.msg_code == JERR_OUT_OF_MEMORY)
        stop_with(r, status_fail(SCA_ERR_MEMORY, "%s: out of memory for the JPEG decoder", r->source->name));
    stop_with(r, status_fail(SCA_ERR_FORMAT, "%s: damaged or unsupported JPEG: %s; fetch or convert the file again",
                             r->source->name, text));
}

/* Oddities that leave every pixel intact, found in many photographs. */
static bool is_harmless(int warning)
{
    return warning == JWRN_EXTRANEOUS_DATA || warning == JWRN_ADOBE_XFORM || warning == JWRN_JFIF_MAJOR ||
           warning == JWRN_BOGUS_PROGRESSION;
}

/* A warning means that libjpeg goes on with made-up pixels; only the harmless ones are let through. */
static void on_message(j_common_ptr info, int level)
{
    jpeg_reader *r = reader_of(info);
    if (level >= 0) return;
    if (!is_harmless(r->errors.msg_code)) on_error(info);
    if (r->warned) return;
    char text[JMSG_LENGTH_MAX];
    r->errors.format_message(info, text);
    log_warn("%s: %s", r->source->name, text);
    r->warned = true;
}

static void on_output(j_common_ptr info) { (void)info; }

/* Each scan of a progressive file is a pass over the whole picture that a few bytes can ask for. */
static void on_progress(j_common_ptr info)
{
    jpeg_reader *r = reader_of(info);
    if (r->info.input_scan_number > IMAGE_MAX_SCANS)
        stop_with(r, status_fail(SCA_ERR_FORMAT, "%s: JPEG of more than %d scans; save it again", r->source->name,
                                 IMAGE_MAX_SCANS));
}

/* As Pillow reads CMYK: inverted (Adobe's convention), then multiplied by black, rounded. */
static void cmyk_to_rgb(const uint8_t *cmyk, int width, uint8_t *rgb)
{
    for (int x = 0; x < width; x++) {
        unsigned black = cmyk[4 * x + 3];
        for (int c = 0; c < 3; c++) {
            unsigned ink = 255u - cmyk[4 * x + c], t = ink * black + 128;
            rgb[3 * x + c] = (uint8_t)(black - ((t + (t >> 8)) >> 8));
        }
    }
}

static sca_status find_orientation(jpeg_reader *r)
{
    for (jpeg_saved_marker_ptr m = r->info.marker_list; m; m = m->next)
        if (m->marker == JPEG_APP0 + 1 && m->data_length >= 6 && memcmp(m->data, "Exif\0", 6) == 0)
            return exif_orientation(m->data, m->data_length, r->orientation);
    return SCA_OK;
}

static sca_status choose_output(jpeg_reader *r)
{
    struct jpeg_decompress_struct *info = &r->info;
    if (info->num_components != 1 && info->num_components != 3 && info->num_components != 4)
        return status_fail(SCA_ERR_FORMAT, "%s: JPEG of %d components, expected 1, 3 or 4; convert it",
                           r->source->name, info->num_components);
    info->out_color_space = info->num_components == 4 ? JCS_CMYK : JCS_RGB;
    if (info->num_components != 4) return SCA_OK;
    size_t bytes = 4 * (size_t)info->image_width;
    r->cmyk = mem_alloc(bytes);
    return r->cmyk ? SCA_OK : mem_fail(bytes, "a row of a JPEG");
}

static void read_rows(jpeg_reader *r)
{
    size_t pitch = 3 * (size_t)r->out->width;
    while (r->info.output_scanline < r->info.output_height) {
        uint8_t *rgb = r->out->rgb + r->info.output_scanline * pitch;
        JSAMPROW row = r->cmyk ? r->cmyk : rgb;
        jpeg_read_scanlines(&r->info, &row, 1);
        if (r->cmyk) cmyk_to_rgb(r->cmyk, r->out->width, rgb);
    }
}

static sca_status decode(jpeg_reader *r)
{
    jpeg_create_decompress(&r->info);
    r->info.progress = &r->progress;
    jpeg_mem_src(&r->info, r->source->bytes, r->source->n);
    if (r->source->want_orientation) jpeg_save_markers(&r->info, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&r->info, TRUE);
    TRY(image_claim(r->source, r->info.image_width, r->info.image_height, r->out));
    if (r->source->want_orientation) TRY(find_orientation(r));
    TRY(choose_output(r));
    jpeg_start_decompress(&r->info);
    read_rows(r);
    jpeg_finish_decompress(&r->info); /* reads on to the end marker: its absence is damage too */
    return SCA_OK;
}

static sca_status guarded(jpeg_reader *r)
{
    if (setjmp(r->stop)) return r->status;
    return decode(r);
}

sca_status image_read_jpeg(const image_source *s, sca_image *out, int *orientation)
{
    jpeg_reader r = { .source = s, .out = out, .orientation = orientation };
    *out = (sca_image){ 0 };
    r.info.err = jpeg_std_error(&r.errors);
    r.errors.error_exit = on_error;
    r.errors.emit_message = on_message;
    r.errors.output_message = on_output;
    r.progress.progress_monitor = on_progress;
    r.info.client_data = &r;
    sca_status status = guarded(&r);
    jpeg_destroy_decompress(&r.info);
    mem_free(r.cmyk);
    if (status != SCA_OK) sca_image_free(out);
    return status;
}
