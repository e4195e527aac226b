/* rng.h - Philox 4x32-10 counter generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011),
 * inline: the same numbers in C and CUDA. A number is a function of (key, counter): no state, any order, any rank.
 */
#ifndef RNG_H
#define RNG_H

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define RNG_INLINE static __host__ __device__ inline
#else
#define RNG_INLINE static inline
#endif

typedef struct rng_block {
    uint32_t word[4];
} rng_block;

RNG_INLINE rng_block rng_philox(uint64_t key, uint64_t counter_low, uint64_t counter_high)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    rng_block c;
    c.word[0] = (uint32_t)counter_low;
    c.word[1] = (uint32_t)(counter_low >> 32);
    c.word[2] = (uint32_t)counter_high;
    c.word[3] = (uint32_t)(counter_high >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c.word[0], b = (uint64_t)0xCD9E8D57u * c.word[2];
        uint32_t x = c.word[1], y = c.word[3];
        c.word[0] = (uint32_t)(b >> 32) ^ x ^ k0;
        c.word[1] = (uint32_t)b;
        c.word[2] = (uint32_t)(a >> 32) ^ y ^ k1;
        c.word[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return c;
}

/* In (0, 1), never 0 or 1: 24 bits and a half. */
RNG_INLINE float rng_unit(uint32_t word) { return ((float)(word >> 8) + 0.5f) * (1.0f / 16777216.0f); }

/* Dropout: whether number `index` of the stream `key` falls below `rate`; the same on every device. */
RNG_INLINE uint32_t rng_limit(float rate) { return (uint32_t)((double)rate * 4294967296.0); }
RNG_INLINE int rng_dropped(uint64_t key, uint64_t index, uint32_t limit)
{
    return rng_philox(key, index / 4, 0).word[index % 4] < limit;
}

/* Four standard normal numbers of one block (Box and Muller, 1958). */
RNG_INLINE void rng_normal(rng_block b, float out[4])
{
    for (int i = 0; i < 4; i += 2) {
        float r = sqrtf(-2.0f * logf(rng_unit(b.word[i]))), a = 6.28318530718f * rng_unit(b.word[i + 1]);
        out[i] = r * cosf(a);
        out[i + 1] = r * sinf(a);
    }
}

/* A key for a named stream: FNV-1a of the name, mixed with the seed. */
RNG_INLINE uint64_t rng_key(uint64_t seed, const char *name)
{
    uint64_t h = 0xCBF29CE484222325u ^ (seed * 0x9E3779B97F4A7C15u);
    for (; *name; name++) h = (h ^ (uint8_t)*name) * 0x100000001B3u;
    return h ^ (h >> 29);
}

#endif
