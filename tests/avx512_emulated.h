/* avx512_emulated.h - see avx512_emulated.c; needs a machine with AVX2. */
#ifndef AVX512_EMULATED_H
#define AVX512_EMULATED_H

#include "cpu/kernels.h"

#if defined(__x86_64__)
extern const cpu_kernels avx512_emulated;
#endif

#endif
