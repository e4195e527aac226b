/* simt_wrong.h - one call for each mistake that the device simt must find (test_simt.c). */
#ifndef SIMT_WRONG_H
#define SIMT_WRONG_H

#include "core/core.h"

typedef enum simt_mistake {
    MISTAKE_RACE,
    MISTAKE_WARP_RACE,
    MISTAKE_OVERWRITE,
    MISTAKE_BARRIER,
    MISTAKE_WARP,
    MISTAKE_ALIGNMENT,
    MISTAKE_READ,
    MISTAKE_WRITE,
    MISTAKE_HOST,
    MISTAKE_UNWRITTEN,
    MISTAKE_EARLY,
    MISTAKE_BOX,     /* of the copy engine: not waited for */
    MISTAKE_BYTES,   /* too many were announced */
    MISTAKE_PRODUCT, /* of a warpgroup: not waited for */
    MISTAKE_STAGE,   /* overwritten while it is multiplied */
    MISTAKE_BANKS,
    MISTAKE_STRIDE
} simt_mistake;

/* Runs the wrong kernel, or its right twin. y and x: 96 and 256 floats on the device. */
void simt_wrong(dev *d, simt_mistake mistake, bool right, float *y, const float *x, const float *host);
#endif
