/* mixer.c - the text feature mixer, the projection to the language model and the task tokens: the trained part.
 * Source: official modeling_sca_multitask_v2.py; model.md 6, 7. */
#include "model/model.h"

sca_status mixer_bind(param_set *s, mixer *m, const model_config *c)
{
    const sam_config *sam = &c->sam;
    int64_t C = sam->channels, d = c->lm.width;
    *m = (mixer){ .heads = c->caption_heads, .tokens = c->caption_tokens, .task_tokens = c->task_tokens };
    TRY(twoway_bind(s, &m->transformer, "mask_decoder.additional_transformer",
                    (twoway_options){ .layers = c->mixer_layers,
                                      .heads = sam->decoder_heads,
                                      .C = sam->channels,
                                      .downsample = sam->downsample,
                                      .mlp = sam->decoder_mlp,
                                      .act = sam->decoder_act,
                                      .eps = sam->decoder_eps }));
    param_add(s, &m->caption_tokens, PARAM_SMALL, INIT_NORMAL, 2, (int64_t[]){ (int64_t)m->heads * m->tokens, C },
              "mask_decoder.caption_tokens.weight");
    linear_bind(s, &m->project, true, d, C, "language_project");
    param_add(s, &m->task, PARAM_SMALL, INIT_NORMAL, 2, (int64_t[]){ 2 * (int64_t)m->task_tokens, d },
              "task_tokens.weight");
    return SCA_OK;
}

void mixer_free(mixer *m) { twoway_free(&m->transformer); }

void mixer_tokens_fwd(const pass *p, const mixer *m, tensor all, tensor q, tensor x, tensor pe)
{
    int64_t N = q.dim[0], T = q.dim[1], C = q.dim[2], n = (int64_t)m->heads * m->tokens;
    size_t mark = arena_mark(p->temp);
    tensor t = pass_3d(p, N, n + T, C);
    op_copy(p->d, tensor_slice(t, 1, 0, n), tensor_expand(tensor_unsqueeze(m->caption_tokens.v, 0), 0, N));
    op_copy(p->d, tensor_slice(t, 1, n, T), q);
    twoway_fwd(p, &m->transformer, all, x, t, x, pe);
    arena_release(p->temp, mark);
}

void mixer_fwd(const pass *p, const mixer *m, tensor out, tensor q, tensor x, tensor pe)
{
    int64_t n = (int64_t)m->heads * m->tokens;
    size_t mark = arena_mark(p->temp);
    tensor all = pass_3d(p, q.dim[0], n + q.dim[1], q.dim[2]);
    mixer_tokens_fwd(p, m, all, q, x, pe);
    op_copy(p->d, out, tensor_slice(all, 1, 0, n));
    arena_release(p->temp, mark);
}
