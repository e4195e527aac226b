/* resize_rows.c - the sums of a resize for any machine. */
#include "data/resize_rows.h"

static uint8_t to_byte(int32_t sum)
{
    int32_t v = sum >> WEIGHT_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

void resize_across_any(const uint8_t *in, size_t bytes, const axis *a, int width, uint8_t *out)
{
    (void)bytes;
    for (int x = 0; x < width; x++) {
        const uint8_t *p = in + 3 * (size_t)a->first[x];
        const int32_t *weight = a->weights + (size_t)x * a->stride;
        int32_t r = 1 << (WEIGHT_BITS - 1), g = r, b = r;
        for (int k = 0; k < a->taps[x]; k++, p += 3) {
            r += p[0] * weight[k];
            g += p[1] * weight[k];
            b += p[2] * weight[k];
        }
        out[3 * x] = to_byte(r);
        out[3 * x + 1] = to_byte(g);
        out[3 * x + 2] = to_byte(b);
    }
}

/* Sums of as many columns as registers hold: each source row is then read in one sweep. */
void resize_down_any(const uint8_t *in, size_t n, const axis *a, int y, uint8_t *out)
{
    enum { COLUMNS = 64 };
    const int32_t *weight = a->weights + (size_t)y * a->stride;
    const uint8_t *first = in + (size_t)a->first[y] * n;
    for (size_t from = 0; from < n; from += COLUMNS) {
        int32_t sum[COLUMNS];
        size_t m = n - from < COLUMNS ? n - from : COLUMNS;
        for (size_t i = 0; i < m; i++) sum[i] = 1 << (WEIGHT_BITS - 1);
        for (int k = 0; k < a->taps[y]; k++) {
            const uint8_t *p = first + (size_t)k * n + from;
            for (size_t i = 0; i < m; i++) sum[i] += p[i] * weight[k];
        }
        for (size_t i = 0; i < m; i++) out[from + i] = to_byte(sum[i]);
    }
}
