/* vendor.h - libraries of the GPU's maker behind slots of ours: gemm=cublaslt and attention=cudnn, chosen by name. C only.
 *
 * They are never linked: a library is opened when its row is asked for. What a row cannot do as the contract of ops.def
 * says is left to our own kernels. The device simt opens a stand-in for the host, which the options name.
 */
#ifndef CUDA_VENDOR_H
#define CUDA_VENDOR_H

#include "cuda/gemm.h"

/* Names are made so that both devices can be in one program (cuda.h). */
#define cuda_vendor_load CUDA_NAME(vendor_load)
#define cuda_cublas_open CUDA_NAME(cublas_open)
#define cuda_cublas_close CUDA_NAME(cublas_close)
#define cuda_cublas_state CUDA_NAME(cublas_state)
#define cuda_cudnn_open CUDA_NAME(cudnn_open)
#define cuda_cudnn_close CUDA_NAME(cudnn_close)
#define cuda_cudnn_state CUDA_NAME(cudnn_state)
#define cuda_cudnn_engines CUDA_NAME(cudnn_engines)

#ifdef SIMT
#define KIND "simt"
#else
#define KIND "cuda"
#endif

/* What a list of functions, F(name) F(name)..., gives: their names, the members for their addresses, and a version as text. */
#define VENDOR_NAME(name) #name,
#define VENDOR_ADDRESS(name) __typeof__(&name) name;
#define VENDOR_TEXT_OF(version) #version
#define VENDOR_TEXT(version) VENDOR_TEXT_OF(version)

/* A library and what is wanted of it. */
typedef struct vendor_library {
    const char *row;              /* "gemm=cublaslt" */
    const char *const *files;     /* looked for in this order, NULL-terminated; used when no file is named */
    const char *const *functions; /* n names, */
    void (**into)(void);          /* and where their addresses go */
    int n;
} vendor_library;

/* Opens `file`, or with NULL the first of l->files that is there, and finds the functions. The library stays loaded. */
sca_status cuda_vendor_load(const vendor_library *l, const char *file);

/* c->cublas, c->cudnn. file: of the library, or NULL: where the system keeps it. */
sca_status cuda_cublas_open(cuda *c, const char *file);
void cuda_cublas_close(cuda *c);
sca_status cuda_cudnn_open(cuda *c, const char *file);
void cuda_cudnn_close(cuda *c);

/* What `sca info` says of the row: the version of the library, or why there is none. */
void cuda_cublas_state(char *text, size_t bytes);
void cuda_cudnn_state(char *text, size_t bytes);

/* Builds the graph of op_attention_fwd on these shapes without a GPU and asks how many engines know it; for tests. */
sca_status cuda_cudnn_engines(const char *file, tensor y, tensor lse, tensor q, tensor k, tensor v,
                              int64_t *engines);

#endif
