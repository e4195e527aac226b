/* vec.h - vectors of float for the kernels, one width per instruction set. Included by kernels_*.c only, each of
 * which is compiled with its own instruction set and defines ISA_AVX2, ISA_AVX512 or neither.
 *
 * Only what the compiler's vector extension lacks is written with intrinsics: multiply-adds must be fused exactly
 * where they are written (the build forbids contraction), and the 16-bit conversions. */
#ifndef CPU_VEC_H
#define CPU_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(ISA_AVX512) || defined(ISA_AVX2)
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline, unused))

#if defined(ISA_AVX512)
enum { VW = 16 };
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
#elif defined(ISA_AVX2)
enum { VW = 8 };
typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));
typedef uint32_t vu __attribute__((vector_size(32)));
#else
enum { VW = 4 };
typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));
typedef uint32_t vu __attribute__((vector_size(16)));
#endif

INLINE vf v_load(const float *p)
{
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}
INLINE void v_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

/* The first n < VW elements; the rest read as `fill`. */
INLINE vf v_load_part(const float *p, int64_t n, float fill)
{
    float t[VW];
    for (int64_t i = 0; i < VW; i++) t[i] = i < n ? p[i] : fill;
    return v_load(t);
}
INLINE void v_store_part(float *p, vf v, int64_t n)
{
    float t[VW];
    v_store(t, v);
    memcpy(p, t, (size_t)n * sizeof *p);
}

#if defined(ISA_AVX512)
INLINE vf v_set1(float x) { return (vf)_mm512_set1_ps(x); }
INLINE vi vi_set1(int32_t x) { return (vi)_mm512_set1_epi32(x); }
INLINE vf v_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
INLINE vf v_bf16(const uint16_t *p)
{
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16);
}
INLINE vf v_f16(const uint16_t *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)p)); }
#elif defined(ISA_AVX2)
INLINE vf v_set1(float x) { return (vf)_mm256_set1_ps(x); }
INLINE vi vi_set1(int32_t x) { return (vi)_mm256_set1_epi32(x); }
INLINE vf v_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
INLINE vf v_bf16(const uint16_t *p)
{
    return (vf)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p)), 16);
}
INLINE vf v_f16(const uint16_t *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const void *)p)); }
#else
INLINE vf v_set1(float x) { return (vf){ x, x, x, x }; }
INLINE vi vi_set1(int32_t x) { return (vi){ x, x, x, x }; }
INLINE vf v_fma(vf a, vf b, vf c) { return a * b + c; }
INLINE vf v_bf16(const uint16_t *p)
{
    return (vf){ bf16_to_f32(p[0]), bf16_to_f32(p[1]), bf16_to_f32(p[2]), bf16_to_f32(p[3]) };
}
INLINE vf v_f16(const uint16_t *p)
{
    return (vf){ f16_to_f32(p[0]), f16_to_f32(p[1]), f16_to_f32(p[2]), f16_to_f32(p[3]) };
}
#endif

/* where ? a : b, `where` being the result of a comparison */
INLINE vf v_select(vi where, vf a, vf b) { return (vf)((where & (vi)a) | (~where & (vi)b)); }
INLINE vf v_zero_where(vi where, vf a) { return (vf)(~where & (vi)a); }
/* Of a NaN and a number comes the second, as the machine has it: put what must stay a NaN there. */
#if defined(ISA_AVX512)
INLINE vf v_max(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf v_min(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vf v_sqrt(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
#elif defined(ISA_AVX2)
INLINE vf v_max(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf v_min(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vf v_sqrt(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
#else
INLINE vf v_max(vf a, vf b) { return v_select((vi)(a > b), a, b); }
INLINE vf v_min(vf a, vf b) { return v_select((vi)(a < b), a, b); }
INLINE vf v_sqrt(vf a) { return (vf){ sqrtf(a[0]), sqrtf(a[1]), sqrtf(a[2]), sqrtf(a[3]) }; }
#endif
INLINE vf v_abs(vf a) { return (vf)((vi)a & vi_set1(0x7fffffff)); }
/* The halves of the products of 64 bits */
INLINE void vu_multiply(vu a, uint32_t by, vu *high, vu *low)
{
#if defined(ISA_AVX2)
    __m256i x = (__m256i)a, times = _mm256_set1_epi32((int32_t)by), even = _mm256_mul_epu32(x, times),
            odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), times);
    *low = (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    *high = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
#else
    for (int i = 0; i < VW; i++) {
        uint64_t product = (uint64_t)a[i] * by;
        (*high)[i] = (uint32_t)(product >> 32);
        (*low)[i] = (uint32_t)product;
    }
#endif
}
/* to[4 i + k] = v[k][i] */
INLINE void v_interleave(float *to, const vf v[4])
{
#if defined(ISA_AVX2)
    __m256 a = _mm256_unpacklo_ps((__m256)v[0], (__m256)v[1]), b = _mm256_unpacklo_ps((__m256)v[2], (__m256)v[3]),
           c = _mm256_unpackhi_ps((__m256)v[0], (__m256)v[1]), e = _mm256_unpackhi_ps((__m256)v[2], (__m256)v[3]);
    __m256 row[4] = { _mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee), _mm256_shuffle_ps(c, e, 0x44),
                      _mm256_shuffle_ps(c, e, 0xee) }; /* rows i and i + 4 */
    for (int i = 0; i < 2; i++) {
        _mm256_storeu_ps(to + 8 * i, _mm256_permute2f128_ps(row[2 * i], row[2 * i + 1], 0x20));
        _mm256_storeu_ps(to + 16 + 8 * i, _mm256_permute2f128_ps(row[2 * i], row[2 * i + 1], 0x31));
    }
#else
    for (int i = 0; i < VW; i++)
        for (int k = 0; k < 4; k++) to[4 * i + k] = v[k][i];
#endif
}
/* Sums of the lanes, pairwise: the order is part of the result and never changes. */
INLINE float v_sum(vf v)
{
    float t[VW];
    v_store(t, v);
    for (int n = VW / 2; n >= 1; n /= 2)
        for (int i = 0; i < n; i++) t[i] += t[i + n];
    return t[0];
}
INLINE float v_hmax(vf v)
{
    float t[VW];
    v_store(t, v);
    float m = t[0];
    for (int i = 1; i < VW; i++) m = t[i] > m || t[i] != t[i] ? t[i] : m;
    return m;
}

#endif
