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
LATER(linear_fwd, (tensor y, tensor x, tensor w, tensor b, tensor r, linear_options o), (y, x, w, b, r, o))
LATER(pack, (tensor y, tensor w, bool in_out), (y, w, in_out))
LATER(matmul_fwd, (tensor y, tensor a, tensor b, matmul_options o), (y, a, b, o))
LATER(layernorm_fwd, (tensor y, tensor mean, tensor rstd, tensor x, tensor w, tensor b, float eps), (y, mean, rstd, x, w, b, eps))
LATER(rmsnorm_fwd, (tensor y, tensor rstd, tensor x, tensor w, float eps), (y, rstd, x, w, eps))
LATER(embedding_fwd, (tensor y, tensor table, tensor ids), (y, table, ids))
LATER(rope_fwd, (tensor y, tensor x, rope_options o), (y, x, o))
LATER(attention_fwd, (tensor y, tensor lse, tensor q, tensor k, tensor v, tensor index, attention_options o), (y, lse, q, k, v, index, o))
LATER(relpos_attention_fwd, (tensor y, tensor lse, tensor qkv, tensor pad, tensor rel_h, tensor rel_w, relpos_options o), (y, lse, qkv, pad, rel_h, rel_w, o))
LATER(image_pool_fwd, (tensor y, tensor lse, tensor x, tensor pe, tensor a), (y, lse, x, pe, a))
LATER(image_update_fwd, (tensor y, tensor x, tensor pe, tensor k, tensor kb, tensor v, tensor vb, tensor w, tensor b, image_update_options o), (y, x, pe, k, kb, v, vb, w, b, o))
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
