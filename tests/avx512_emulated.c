/* avx512_emulated.c - the kernels for AVX-512 on machines that lack it: the same source, its few instructions replaced
 * by pairs of AVX2's. Lanes, tiles, panels and tails are those of AVX-512, so that the tests see them everywhere. */
#if defined(__x86_64__)
#include "avx512_emulated.h"

#include <immintrin.h>

typedef struct halves {
    __m256 low, high;
} halves;
typedef union wide {
    __m512 v;
    __m512i i;
    halves h;
} wide;

#define EMULATED static inline __attribute__((always_inline, unused))
#define PAIR(one_half) ((wide){ .h = { one_half(low), one_half(high) } }.v)

EMULATED __m512 set1_ps(float x) { return (wide){ .h = { _mm256_set1_ps(x), _mm256_set1_ps(x) } }.v; }
EMULATED __m512i set1_epi32(int x)
{
    __m256 v = _mm256_castsi256_ps(_mm256_set1_epi32(x));
    return (wide){ .h = { v, v } }.i;
}
EMULATED __m512 fmadd_ps(__m512 a, __m512 b, __m512 c)
{
    wide x = { a }, y = { b }, z = { c };
#define HALF_OF(part) _mm256_fmadd_ps(x.h.part, y.h.part, z.h.part)
    return PAIR(HALF_OF);
#undef HALF_OF
}
EMULATED __m512 max_ps(__m512 a, __m512 b)
{
    wide x = { a }, y = { b };
#define HALF_OF(part) _mm256_max_ps(x.h.part, y.h.part)
    return PAIR(HALF_OF);
#undef HALF_OF
}
EMULATED __m512 min_ps(__m512 a, __m512 b)
{
    wide x = { a }, y = { b };
#define HALF_OF(part) _mm256_min_ps(x.h.part, y.h.part)
    return PAIR(HALF_OF);
#undef HALF_OF
}
EMULATED __m512 sqrt_ps(__m512 a)
{
    wide x = { a };
#define HALF_OF(part) _mm256_sqrt_ps(x.h.part)
    return PAIR(HALF_OF);
#undef HALF_OF
}
EMULATED __m512 cvtph_ps(__m256i v)
{
    return (wide){
        .h = { _mm256_cvtph_ps(_mm256_castsi256_si128(v)), _mm256_cvtph_ps(_mm256_extracti128_si256(v, 1)) }
    }.v;
}
EMULATED __m512i cvtepu16_epi32(__m256i v)
{
    __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(v));
    __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(v, 1));
    return (wide){ .h = { _mm256_castsi256_ps(low), _mm256_castsi256_ps(high) } }.i;
}
EMULATED __m512i slli_epi32(__m512i a, int by)
{
    wide x = { .i = a };
#define HALF_OF(part) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(x.h.part), by))
    return (wide){ .v = PAIR(HALF_OF) }.i;
#undef HALF_OF
}

#undef _mm512_slli_epi32
#define _mm512_set1_ps set1_ps
#define _mm512_set1_epi32 set1_epi32
#define _mm512_fmadd_ps fmadd_ps
#define _mm512_max_ps max_ps
#define _mm512_min_ps min_ps
#define _mm512_sqrt_ps sqrt_ps
#define _mm512_cvtph_ps cvtph_ps
#define _mm512_cvtepu16_epi32 cvtepu16_epi32
#define _mm512_slli_epi32 slli_epi32

#define cpu_kernels_avx512 avx512_emulated
#include "cpu/kernels_avx512.c"
#else
typedef int avx512_emulated_empty; /* a file must hold something */
#endif
