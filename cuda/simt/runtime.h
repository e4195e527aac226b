/* runtime.h - the part of CUDA's runtime that cuda.c uses, for the host: memory is the host's, a launch is done when
 * it returns. Names are CUDA's, so that cuda.c is one source. */
#ifndef SIMT_RUNTIME_H
#define SIMT_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* cuda/cublas.c and cuda/cudnn.c know the toolkit's own names too. */
#ifndef __DRIVER_TYPES_H__
typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorLaunchFailure = 719,
    cudaErrorUnknown = 999
} cudaError_t;
#endif
typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;

cudaError_t simt_malloc(void **p, size_t bytes);
cudaError_t simt_free(void *p);
/* Bytes of an allocation that kernels must not touch, or may again. */
void simt_fence(void *p, size_t bytes, bool closed);
cudaError_t simt_last_error(void); /* and forgets it */
const char *simt_message(void);    /* of the last launch that failed on this thread */

/* What the launches of this thread do from now on. */
typedef struct simt_settings {
    unsigned seed; /* of the order of threads */
    bool count;    /* memory transactions are counted: slow */
} simt_settings;
void simt_configure(const simt_settings *s);

/* Of all launches of this thread since simt_counts_clear, when counted. Shared: passes through the 32 banks, and how
 * many would do; global: sectors of 32 bytes moved, and how many the bytes asked for need. */
typedef struct simt_counts {
    double launches, blocks, shared_passes, shared_least, sectors, sectors_least, syncs;
} simt_counts;
void simt_counts_clear(void);
simt_counts simt_counts_get(void);

/* Every launch of this thread of a kernel whose name holds `part` fails from now on; "": none. late: as a kernel that
 * crashes on a GPU does: the launch is fine, the next wait tells, and from then on everything fails. */
void simt_fail_kernel(const char *part, bool late);
cudaError_t simt_wait(void); /* the end of all launches of this thread: what a wait for the stream tells */

/* Launches of this thread are kept from begin to end instead of run; the recording is the caller's. */
typedef struct simt_recording simt_recording;
cudaError_t simt_record_begin(void);
cudaError_t simt_record_end(simt_recording **out); /* NULL when memory was out */
cudaError_t simt_record_run(const simt_recording *r);
size_t simt_record_launches(const simt_recording *r);
typedef struct simt_launch_shape { /* of one that was kept */
    const char *kernel;            /* as it is written where it is launched */
    unsigned blocks, threads;
    size_t shared_bytes; /* dynamic */
} simt_launch_shape;
simt_launch_shape simt_record_shape(const simt_recording *r, size_t launch);
/* The first kernel that is launched in another way in b than in a; NULL: none. */
const char *simt_record_differs(const simt_recording *a, const simt_recording *b);
void simt_record_free(simt_recording *r); /* accepts NULL */

#ifdef __cplusplus
}
#endif
#endif
