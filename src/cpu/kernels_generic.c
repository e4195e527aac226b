/* kernels_generic.c - the kernels on any machine, 4 floats at a time, no fused multiply-add. */
#include "base/rng.h"
#include "cpu/kernels.h"
#include "cpu/vec.h"

enum { MR = 2, NV = 4 };
#define TABLE cpu_kernels_generic
#define TABLE_NAME "generic"

#include "cpu/kernels_gemm.inc"
#include "cpu/kernels_math.inc"
#include "cpu/kernels_train.inc"
#include "cpu/kernels_table.inc"
