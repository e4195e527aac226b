/* cuda.h - the GPU device for the host's side: its state, launching, scratch. C and C++.
 *
 * The folder is compiled twice: by nvcc for the device "cuda", and as C++ by the host's compiler against cuda/simt for
 * the device "simt" (there SIMT is defined). CUDA_OP(layernorm_fwd) names the function of an op in both.
 */
#ifndef CUDA_H
#define CUDA_H

#ifdef SIMT
#include "cuda/simt/runtime.h"
#define CUDA_OP(name) simt_op_##name
#define CUDA_NAME(name) simt_##name
#else
#include <cuda_runtime_api.h>
#define CUDA_OP(name) cuda_op_##name
#define CUDA_NAME(name) cuda_##name
#endif

#include "ops/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Work that repeats is kept and started as a whole; GRAPHS_CHECK (simt): launched anew each time and compared with what was
 * kept, which shows a key that lacks something. */
typedef enum repeat_mode { GRAPHS_ON, GRAPHS_OFF, GRAPHS_CHECK } repeat_mode;

typedef struct cuda {
    cudaStream_t stream;
    int index;           /* which GPU */
    int arch;            /* 80, 90, ... */
    int multiprocessors; /* how many blocks make a wave is a multiple of this */
    size_t block_shared; /* bytes of shared memory that a block may ask for */
    size_t memory_bytes; /* of the GPU; simt: option memory=BYTES */
    size_t taken_bytes;  /* by this device: arenas and scratch */
    char *scratch[2];
    size_t scratch_bytes[2];
    char *staging[2]; /* pinned, STAGING_BYTES each */
    cudaEvent_t staged[2];
    void *maps; /* gemm_wgmma.cu: what tensor maps were made */
    int turn;   /* which staging buffer is next */
    repeat_mode graph_mode;
    struct cuda_graphs *graphs; /* graph.c; NULL until something repeats */
    cudaError_t pretended;      /* simt: what looking for a GPU gives, and */
    int pretended_driver;       /* the version of its driver */
    struct cublas *cublas;      /* cublas.c; NULL: gemm=own */
    struct cudnn *cudnn;        /* cudnn.c; NULL: attention=own */
} cuda;

/* Names are made so that both devices can be in one program. */
#define cuda_of CUDA_NAME(of)
#define cuda_may_launch CUDA_NAME(may_launch)
#define cuda_launched CUDA_NAME(launched)
#define cuda_scratch_of CUDA_NAME(scratch_of)
#define cuda_failed CUDA_NAME(failed)
#define cuda_repeat CUDA_NAME(repeat)
#define cuda_repeated CUDA_NAME(repeated)
#define cuda_may_wait CUDA_NAME(may_wait)
#define cuda_may_grow CUDA_NAME(may_grow)
#define cuda_graphs_drop CUDA_NAME(graphs_drop)
#define cuda_graphs_free CUDA_NAME(graphs_free)
#define cuda_cudnn_attention CUDA_NAME(cudnn_attention)

static inline cuda *cuda_of(const dev *d) { return (cuda *)d->impl; }

/* Device memory of at least that size, 256-byte aligned, until the next call for the same one; NULL and a failed stream
 * when it is out. 0: for an op that calls the product, 1: for the product itself. what: it is for, in the message. */
void *cuda_scratch_of(dev *d, int which, size_t bytes, const char *what);
static inline void *cuda_scratch(dev *d, size_t bytes, const char *what)
{
    return cuda_scratch_of(d, 1, bytes, what);
}
/* graph.c: backend.repeat and .repeated. */
bool cuda_repeat(dev *d, const char *what, const void *key, size_t bytes);
void cuda_repeated(dev *d);
/* Whether the stream may be waited for and copied to: not inside repeated work, where the stream fails. */
bool cuda_may_wait(dev *d, const char *what);
bool cuda_may_grow(dev *d);    /* the same for memory: not while launches are kept */
void cuda_graphs_drop(dev *d); /* what was kept: its addresses are no longer valid */
void cuda_graphs_free(cuda *c);
/* True when the stream has not failed; asks for the dynamic shared memory that the kernel will use. */
bool cuda_may_launch(dev *d, const void *kernel, const char *name, size_t dynamic_bytes);
/* An error of the runtime becomes the stream's failure. */
void cuda_failed(dev *d, cudaError_t e, const char *what);
/* cudnn.c: op_attention_fwd by cuDNN; false: nothing was done, it is not for it. */
bool cuda_cudnn_attention(dev *d, tensor y, tensor lse, tensor q, tensor k, tensor v, tensor index,
                          attention_options o);
/* After a launch: an error becomes the stream's failure and names the kernel. */
void cuda_launched(dev *d, const char *name);

#define OP(name, parameters, arguments) void CUDA_OP(name)(dev * d, OP_UNPACK parameters);
#define OP_TRAIN(name, parameters, arguments)
#include "ops/ops.def"
#undef OP

#ifdef __cplusplus
}
#endif
#endif
