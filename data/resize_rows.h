/* resize_rows.h - the sums of a resize, for one row at a time; private to data/. */
#ifndef DATA_RESIZE_ROWS_H
#define DATA_RESIZE_ROWS_H

#include <stddef.h>
#include <stdint.h>

#define WEIGHT_BITS 22 /* 8 bits of pixel and 2 of slack fill an int32 */

/* What each output position sums along one side: taps[i] weights from position first[i] on, which rises. */
typedef struct axis {
    int *first, *taps;
    int32_t *weights; /* (outputs, stride); 0 beyond the taps */
    size_t stride;    /* even */
} axis;

/* One output row from RGB pixels: `in` is the source row, of which `bytes` may be read (the rest of the picture). */
typedef void resize_across_fn(const uint8_t *in, size_t bytes, const axis *a, int width, uint8_t *out);
/* One output row, output position y, of n bytes from rows of n bytes each. */
typedef void resize_down_fn(const uint8_t *in, size_t n, const axis *a, int y, uint8_t *out);

resize_across_fn resize_across_any;
resize_down_fn resize_down_any;
#if defined(__x86_64__)
/* The same bytes by AVX2. */
resize_across_fn resize_across_avx2;
resize_down_fn resize_down_avx2;
#endif

#endif
