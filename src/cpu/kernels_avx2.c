/* kernels_avx2.c - the kernels with AVX2, FMA and F16C: 6 x 16 tiles fill 12 of the 16 registers. */
#if defined(__x86_64__)
#define ISA_AVX2
#include "base/rng.h"
#include "cpu/kernels.h"
#include "cpu/vec.h"

enum { MR = 6, NV = 2 };
#define TABLE cpu_kernels_avx2
#define TABLE_NAME "avx2"

#include "cpu/kernels_gemm.inc"
#include "cpu/kernels_math.inc"
#include "cpu/kernels_train.inc"
#include "cpu/kernels_table.inc"
#else
typedef int kernels_avx2_empty; /* a file must hold something */
#endif
