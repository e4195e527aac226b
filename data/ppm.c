/* ppm.c - binary PPM (P6) and its gray sibling PGM (P5), scaled to 8 bits as Pillow scales them. */
#include "data/codec.h"

#include <math.h>
#include <string.h>

typedef struct ppm_header {
    int64_t width, height, most;
    size_t at; /* of the first sample */
} ppm_header;

static bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static void skip_space(const image_source *s, size_t *at)
{
    while (*at < s->n && (is_space(s->bytes[*at]) || s->bytes[*at] == '#')) {
        if (s->bytes[*at] == '#')
            while (*at < s->n && s->bytes[*at] != '\n' && s->bytes[*at] != '\r') ++*at;
        else
            ++*at;
    }
}

static sca_status header_number(const image_source *s, const char *what, int64_t most, size_t *at, int64_t *out)
{
    skip_space(s, at);
    size_t start = *at;
    int64_t value = 0;
    for (; *at < s->n && s->bytes[*at] >= '0' && s->bytes[*at] <= '9' && value <= most; ++*at)
        value = 10 * value + (s->bytes[*at] - '0');
    if (*at == start || value < 1 || value > most || *at == s->n || !is_space(s->bytes[*at]))
        return status_fail(SCA_ERR_FORMAT, "%s: PPM header: the %s is damaged or not from 1 to %lld", s->name, what,
                           (long long)most);
    *out = value;
    return SCA_OK;
}

static sca_status read_header(const image_source *s, ppm_header *h)
{
    h->at = 2;
    TRY(header_number(s, "width", INT32_MAX, &h->at, &h->width));
    TRY(header_number(s, "height", INT32_MAX, &h->at, &h->height));
    TRY(header_number(s, "largest value", 65535, &h->at, &h->most));
    h->at++; /* exactly one white-space character */
    return SCA_OK;
}

/* Pillow scales colour to 0..255, but 16-bit gray to 0..65535, which convert("RGB") then clips at 255. */
static uint8_t scaled(unsigned level, double most, double scale)
{
    double value = rint(level / most * scale);
    return (uint8_t)(value < 255 ? value : 255);
}

static unsigned sample_at(const uint8_t *p, size_t i, bool wide)
{
    return wide ? (unsigned)p[2 * i] << 8 | p[2 * i + 1] : p[i];
}

static void unpack(const uint8_t *p, const ppm_header *h, bool gray, sca_image *out)
{
    bool wide = h->most > 255;
    double scale = wide && gray ? 65535 : 255;
    size_t pixels = (size_t)out->width * (size_t)out->height;
    if (!gray && h->most == 255) {
        memcpy(out->rgb, p, 3 * pixels);
        return;
    }
    if (!gray)
        for (size_t i = 0; i < 3 * pixels; i++) out->rgb[i] = scaled(sample_at(p, i, wide), (double)h->most, scale);
    else
        for (size_t i = 0; i < pixels; i++)
            memset(out->rgb + 3 * i, scaled(sample_at(p, i, wide), (double)h->most, scale), 3);
}

sca_status image_read_ppm(const image_source *s, sca_image *out)
{
    ppm_header h;
    bool gray = s->bytes[1] == '5';
    TRY(read_header(s, &h));
    TRY(image_claim(s, h.width, h.height, out));
    /* cannot overflow: image_claim has allocated three bytes a pixel, of which there are at most 2^62 */
    size_t need = (size_t)h.width * (size_t)h.height * (gray ? 1 : 3) * (h.most > 255 ? 2 : 1);
    if (s->n - h.at < need) {
        sca_image_free(out);
        return status_fail(SCA_ERR_FORMAT, "%s: truncated: %zu bytes of pixels, expected %zu; fetch the file again",
                           s->name, s->n - h.at, need);
    }
    unpack(s->bytes + h.at, &h, gray, out);
    return SCA_OK;
}
