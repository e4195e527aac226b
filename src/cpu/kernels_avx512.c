/* kernels_avx512.c - the kernels with AVX-512: 12 x 32 tiles fill 24 of the 32 registers. */
#if defined(__x86_64__)
#define ISA_AVX512
#include "base/rng.h"
#include "cpu/kernels.h"
#include "cpu/vec.h"

enum { MR = 12, NV = 2 };
#define TABLE cpu_kernels_avx512
#define TABLE_NAME "avx512"

#include "cpu/kernels_gemm.inc"
#include "cpu/kernels_math.inc"
#include "cpu/kernels_train.inc"
#include "cpu/kernels_table.inc"
#else
typedef int kernels_avx512_empty; /* a file must hold something */
#endif
