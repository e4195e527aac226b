/* resize_avx2.c - the sums of a resize by AVX2: products and sums of whole numbers, so the bytes are those of
 * resize_rows.c. Compiled for any x86-64; resize.c asks the machine before it calls. */
#include "data/resize_rows.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <string.h>

#define AVX2 __attribute__((target("avx2")))

/* Sums of two neighbouring pixels from two-pixel sums: r g b - | r g b - */
AVX2 static inline __m128i pixel_sum(const uint8_t *p, const int32_t *weight, int taps)
{
    const __m256i spread = _mm256_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1, /**/
                                            3, -1, -1, -1, 4, -1, -1, -1, 5, -1, -1, -1, -1, -1, -1, -1);
    const __m256i which = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    __m256i sum = _mm256_setzero_si256();
    for (int k = 0; k < taps; k += 2, p += 6) {
        int64_t bytes, pair;
        memcpy(&bytes, p, sizeof bytes);
        memcpy(&pair, weight + k, sizeof pair);
        __m256i pixels = _mm256_shuffle_epi8(_mm256_set1_epi64x(bytes), spread);
        __m256i weights = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(_mm_cvtsi64_si128(pair)), which);
        sum = _mm256_add_epi32(sum, _mm256_mullo_epi32(pixels, weights));
    }
    __m128i both = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    return _mm_srai_epi32(_mm_add_epi32(both, _mm_set1_epi32(1 << (WEIGHT_BITS - 1))), WEIGHT_BITS);
}

/* How many of the first outputs read nothing beyond `bytes`: the last step takes eight bytes for its six. Places rise. */
static int safe_outputs(const axis *a, int width, size_t bytes)
{
    while (width > 0 && 3 * ((size_t)a->first[width - 1] + a->stride) + 2 > bytes) width--;
    return width;
}

AVX2 void resize_across_avx2(const uint8_t *in, size_t bytes, const axis *a, int width, uint8_t *out)
{
    const __m128i close = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    int safe = safe_outputs(a, width, bytes) & ~3, x = 0;
    for (; x < safe; x += 4) {
        __m128i s[4];
        for (int i = 0; i < 4; i++)
            s[i] = pixel_sum(in + 3 * (size_t)a->first[x + i], a->weights + (size_t)(x + i) * a->stride,
                             a->taps[x + i]);
        __m128i four = _mm_packus_epi16(_mm_packs_epi32(s[0], s[1]), _mm_packs_epi32(s[2], s[3]));
        four = _mm_shuffle_epi8(four, close);
        int32_t last = _mm_extract_epi32(four, 2);
        _mm_storel_epi64((__m128i *)(void *)(out + 3 * x), four);
        memcpy(out + 3 * x + 8, &last, sizeof last);
    }
    axis rest = { a->first + x, a->taps + x, a->weights + (size_t)x * a->stride, a->stride };
    resize_across_any(in, bytes, &rest, width - x, out + 3 * x);
}

/* 32 columns from column `from` on. */
AVX2 static inline void down_32(const uint8_t *first, size_t n, const int32_t *weight, int taps, uint8_t *out)
{
    const __m256i half = _mm256_set1_epi32(1 << (WEIGHT_BITS - 1));
    __m256i s0 = half, s1 = half, s2 = half, s3 = half;
    for (int k = 0; k < taps; k++, first += n) {
        __m256i w = _mm256_set1_epi32(weight[k]);
        const __m128i *p = (const __m128i *)(const void *)first;
        s0 = _mm256_add_epi32(s0, _mm256_mullo_epi32(w, _mm256_cvtepu8_epi32(_mm_loadl_epi64(p))));
        s1 = _mm256_add_epi32(s1, _mm256_mullo_epi32(w, _mm256_cvtepu8_epi32(_mm_loadl_epi64(
                                                            (const __m128i *)(const void *)(first + 8)))));
        s2 = _mm256_add_epi32(s2, _mm256_mullo_epi32(w, _mm256_cvtepu8_epi32(_mm_loadl_epi64(p + 1))));
        s3 = _mm256_add_epi32(s3, _mm256_mullo_epi32(w, _mm256_cvtepu8_epi32(_mm_loadl_epi64(
                                                            (const __m128i *)(const void *)(first + 24)))));
    }
    __m256i low = _mm256_packs_epi32(_mm256_srai_epi32(s0, WEIGHT_BITS), _mm256_srai_epi32(s1, WEIGHT_BITS));
    __m256i high = _mm256_packs_epi32(_mm256_srai_epi32(s2, WEIGHT_BITS), _mm256_srai_epi32(s3, WEIGHT_BITS));
    /* packing works within each half of a register: its fours come out as 0 2 4 6 1 3 5 7 */
    __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
    _mm256_storeu_si256((__m256i *)(void *)out, bytes);
}

AVX2 void resize_down_avx2(const uint8_t *in, size_t n, const axis *a, int y, uint8_t *out)
{
    const int32_t *weight = a->weights + (size_t)y * a->stride;
    const uint8_t *first = in + (size_t)a->first[y] * n;
    size_t i = 0;
    for (; i + 32 <= n; i += 32) down_32(first + i, n, weight, a->taps[y], out + i);
    for (; i < n; i++) {
        int32_t sum = 1 << (WEIGHT_BITS - 1);
        for (int k = 0; k < a->taps[y]; k++) sum += first[(size_t)k * n + i] * weight[k];
        int32_t v = sum >> WEIGHT_BITS;
        out[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
}
#endif
