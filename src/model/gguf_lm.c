/* gguf_lm.c - what a GGUF file says of its language model: the configuration as Hugging Face has it. */
#include "model/gguf.h"
#include "model/model_classes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct source {
    const weights *w;
    const gguf *g;
    const char *path;
    json_t *out;
} source;

static const weight_file *gguf_of(const weights *w)
{
    for (const weight_file *f = w->files; f; f = f->next)
        if (f->gguf) return f;
    return NULL;
}

/* A tensor by the Hugging Face name, before or after weights_as_lm. */
static const weight *find_tensor(const weights *w, const char *name)
{
    char longer[128] = "language_model.";
    const weight *t = weights_find(w, name);
    strncat(longer, name, sizeof longer - strlen(longer) - 1);
    return t ? t : weights_find(w, longer);
}

static sca_status put(const source *s, const char *key, json_t *value)
{
    return json_object_set_new(s->out, key, value) == 0 ? SCA_OK : mem_fail(0, "configuration");
}

static sca_status put_int(const source *s, const char *from, const char *to)
{
    int64_t value;
    if (!gguf_int(gguf_find_own(s->g, from), &value) || value < 1)
        return status_fail(SCA_ERR_FORMAT, "%s: '%s.%s' is missing or no size", s->path, s->g->arch, from);
    return put(s, to, json_integer(value));
}

/* fallback below 0: the value must be there */
static sca_status put_real(const source *s, const char *from, const char *to, double fallback)
{
    double value = fallback;
    const gguf_value *v = gguf_find_own(s->g, from);
    if ((v && !gguf_real(v, &value)) || !isfinite(value) || value < 0)
        return status_fail(SCA_ERR_FORMAT, "%s: '%s.%s' is missing or no number from 0 on", s->path, s->g->arch,
                           from);
    /* A float's shortest decimal: 1e-5, not 9.99999974e-06. */
    char text[32];
    double rounded;
    for (int digits = 1; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (text_to_double(text, &rounded) && (float)rounded == (float)value) {
            value = rounded;
            break;
        }
    }
    return put(s, to, json_real(value));
}

static sca_status put_id(const source *s, const char *from, const char *to, int64_t vocab)
{
    int64_t id;
    if (!gguf_int(gguf_find(s->g, from), &id) || id < 0 || id >= vocab) return put(s, to, json_null());
    return put(s, to, json_integer(id));
}

static sca_status put_common(const source *s, const char *class, const char *embedding)
{
    const weight *t = find_tensor(s->w, embedding);
    if (!t || t->ndim != 2) return status_fail(SCA_ERR_FORMAT, "%s: has no matrix token_embd.weight", s->path);
    const char *type = t->type == DT_F32 ? "float32" : t->type == DT_BF16 ? "bfloat16" : "float16";
    TRY(put(s, "architectures", json_pack("[s]", class)));
    TRY(put(s, "model_type", json_string(s->g->arch)));
    TRY(put(s, "torch_dtype", json_string(type)));
    TRY(put(s, "vocab_size", json_integer(t->dim[0])));
    TRY(put_id(s, "tokenizer.ggml.bos_token_id", "bos_token_id", t->dim[0]));
    TRY(put_id(s, "tokenizer.ggml.eos_token_id", "eos_token_id", t->dim[0]));
    return put_id(s, "tokenizer.ggml.padding_token_id", "pad_token_id", t->dim[0]);
}

static sca_status put_gpt2(const source *s)
{
    TRY(put_common(s, "GPT2LMHeadModel", "transformer.wte.weight"));
    TRY(put_int(s, "embedding_length", "n_embd"));
    TRY(put_int(s, "block_count", "n_layer"));
    TRY(put_int(s, "attention.head_count", "n_head"));
    TRY(put_int(s, "context_length", "n_positions"));
    TRY(put_int(s, "feed_forward_length", "n_inner"));
    return put_real(s, "attention.layer_norm_epsilon", "layer_norm_epsilon", 1e-5);
}

/* Rotary positions over the whole head, unscaled. */
static sca_status check_rotary(const source *s)
{
    const char *text;
    size_t bytes;
    int64_t width = 0, heads = 0, part;
    gguf_int(gguf_find_own(s->g, "embedding_length"), &width);
    gguf_int(gguf_find_own(s->g, "attention.head_count"), &heads);
    if (gguf_text(gguf_find_own(s->g, "rope.scaling.type"), &text, &bytes) &&
        !(bytes == 4 && memcmp(text, "none", 4) == 0))
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: 'llama.rope.scaling.type' is '%.*s', only none is supported",
                           s->path, (int)(bytes < 100 ? bytes : 100), text);
    static const char *const sizes[] = { "rope.dimension_count", "attention.key_length", "attention.value_length" };
    for (size_t i = 0; i < LENGTH(sizes); i++)
        if (gguf_int(gguf_find_own(s->g, sizes[i]), &part) && heads > 0 && part != width / heads)
            return status_fail(SCA_ERR_UNSUPPORTED,
                               "%s: 'llama.%s' is %lld, only the head's size, %lld, is supported", s->path,
                               sizes[i], (long long)part, (long long)(width / heads));
    return SCA_OK;
}

static sca_status put_llama(const source *s)
{
    const char *kv =
        gguf_find_own(s->g, "attention.head_count_kv") ? "attention.head_count_kv" : "attention.head_count";
    TRY(put_common(s, "LlamaForCausalLM", "model.embed_tokens.weight"));
    TRY(put_int(s, "embedding_length", "hidden_size"));
    TRY(put_int(s, "block_count", "num_hidden_layers"));
    TRY(put_int(s, "attention.head_count", "num_attention_heads"));
    TRY(put_int(s, kv, "num_key_value_heads"));
    TRY(put_int(s, "context_length", "max_position_embeddings"));
    TRY(put_int(s, "feed_forward_length", "intermediate_size"));
    TRY(put_real(s, "attention.layer_norm_rms_epsilon", "rms_norm_eps", -1));
    TRY(put_real(s, "rope.freq_base", "rope_theta", 10000));
    TRY(put(s, "hidden_act", json_string("silu")));
    TRY(put(s, "tie_word_embeddings", json_boolean(!find_tensor(s->w, "lm_head.weight"))));
    return check_rotary(s);
}

sca_status weights_lm_config(const weights *w, json_t **out)
{
    const weight_file *f = gguf_of(w);
    *out = NULL;
    if (!f) return status_fail(SCA_ERR_STATE, "%s: is no GGUF file, so it holds no configuration", w->path);
    source s = { w, f->gguf, f->view.path, json_object() };
    sca_status status = s.out ? SCA_OK : mem_fail(0, "configuration");
    if (status == SCA_OK) status = strcmp(s.g->arch, "gpt2") == 0 ? put_gpt2(&s) : put_llama(&s);
    if (status == SCA_OK) status = json_sorted(s.out, out);
    json_decref(s.out);
    return status;
}
