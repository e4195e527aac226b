/* later.c - ops of this device that are still being written: they fail with their name. A kernel file that lands
 * takes its line away; the file goes with the last one. */
#include "cuda/cuda.h"

#include "ops/args.h"

#define LATER(name, parameters, arguments)                                                                         \
    void CUDA_OP(name)(dev * d, OP_UNPACK parameters)                                                              \
    {                                                                                                              \
        const op_arg unused[] = { ARGS arguments };                                                                \
        (void)unused;                                                                                              \
        dev_fail(d, SCA_ERR_UNSUPPORTED, "op_%s is not on this device yet", #name);                                \
    }
/* clang-format off */
LATER(layernorm_fwd, (tensor y, tensor mean, tensor rstd, tensor x, tensor w, tensor b, float eps), (y, mean, rstd, x, w, b, eps))
LATER(rmsnorm_fwd, (tensor y, tensor rstd, tensor x, tensor w, float eps), (y, rstd, x, w, eps))
LATER(embedding_fwd, (tensor y, tensor table, tensor ids), (y, table, ids))
LATER(rope_fwd, (tensor y, tensor x, rope_options o), (y, x, o))
LATER(conv_fwd, (tensor y, tensor x, tensor w, tensor b, conv_options o), (y, x, w, b, o))
LATER(conv_transpose_fwd, (tensor y, tensor x, tensor w, tensor b), (y, x, w, b))
LATER(fourier_fwd, (tensor y, tensor c, tensor g), (y, c, g))
LATER(resize_fwd, (tensor y, tensor x), (y, x))
LATER(log_softmax_fwd, (tensor y, tensor x), (y, x))
LATER(argmax_fwd, (tensor index, tensor value, tensor x), (index, value, x))
LATER(topk_fwd, (tensor value, tensor index, tensor x), (value, index, x))
LATER(sample_fwd, (tensor index, tensor x, tensor u, sample_options o), (index, x, u, o))
LATER(cross_entropy_fwd, (tensor loss, tensor lse, tensor x, tensor label, float smoothing), (loss, lse, x, label, smoothing))
LATER(roi_align_fwd, (tensor y, tensor x, tensor boxes, tensor index, float scale), (y, x, boxes, index, scale))
/* clang-format on */
