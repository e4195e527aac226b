/* gguf_lm.c - what a GGUF file says of its language model: the configuration as Hugging Face has it, the tokenizer.
 */
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

/* ---- the tokenizer ---------------------------------------------------------------------------------------------
 */

typedef struct texts { /* a list of texts, each copied with a closing 0 */
    char *bytes;
    const char **at;
    size_t *length;
    size_t n;
} texts;

static void texts_free(texts *t)
{
    mem_free(t->bytes);
    mem_free(t->at);
    mem_free(t->length);
}

/* An absent list is empty. */
static sca_status read_texts(const gguf *g, const char *path, const char *key, texts *out)
{
    const gguf_value *v = gguf_find(g, key);
    if (!v) return SCA_OK;
    if (!v->array || v->type != GGUF_STRING || v->count > INT32_MAX)
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' is no list of texts", path, key);
    size_t total = 1;
    const uint8_t *p = v->data;
    out->n = (size_t)v->count;
    for (size_t i = 0; i < out->n; i++, p += 8 + gguf_le64(p)) total += (size_t)gguf_le64(p) + 1;
    out->bytes = mem_alloc(total);
    out->at = mem_zero(out->n + 1, sizeof *out->at);
    out->length = mem_zero(out->n + 1, sizeof *out->length);
    if (!out->bytes || !out->at || !out->length) return mem_fail(total, key);
    char *to = out->bytes;
    p = v->data;
    for (size_t i = 0; i < out->n; i++, p += 8 + out->length[i - 1]) {
        out->length[i] = (size_t)gguf_le64(p);
        out->at[i] = to;
        memcpy(to, p + 8, out->length[i]);
        to[out->length[i]] = 0;
        to += out->length[i] + 1;
    }
    return SCA_OK;
}

/* A list of n 4-byte numbers, copied for their alignment; absent: NULL. */
static sca_status read_numbers(const gguf *g, const char *path, const char *key, gguf_type type, size_t n,
                               void **out)
{
    const gguf_value *v = gguf_find(g, key);
    *out = NULL;
    if (!v) return SCA_OK;
    if (!v->array || v->type != type || v->count != n)
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' is no list of %zu numbers, one for each token", path, key, n);
    *out = mem_alloc(4 * n);
    if (!*out) return mem_fail(4 * n, key);
    memcpy(*out, v->data, 4 * n);
    return SCA_OK;
}

static int64_t read_id(const gguf *g, const char *key)
{
    int64_t id;
    return gguf_int(gguf_find(g, key), &id) && id >= 0 && id <= INT32_MAX ? id : -1;
}

/* A short text, or "". */
static void read_word(const gguf *g, const char *key, char out[64])
{
    const char *text = "";
    size_t bytes = 0;
    gguf_text(gguf_find(g, key), &text, &bytes);
    if (bytes > 63) bytes = 63;
    memcpy(out, text, bytes);
    out[bytes] = 0;
}

sca_status weights_tokenizer(const weights *w, tokenizer **out)
{
    const weight_file *f = gguf_of(w);
    texts tokens = { 0 }, merges = { 0 };
    void *scores = NULL, *types = NULL;
    char kind[64], pre[64];
    bool add_bos;
    sca_status status;
    *out = NULL;
    if (!f) return status_fail(SCA_ERR_STATE, "%s: is no GGUF file, so it holds no tokenizer", w->path);
    const gguf *g = f->gguf;
    const char *path = f->view.path;
    TRY_GOTO(done, read_texts(g, path, "tokenizer.ggml.tokens", &tokens));
    TRY_GOTO(done, read_texts(g, path, "tokenizer.ggml.merges", &merges));
    TRY_GOTO(done, read_numbers(g, path, "tokenizer.ggml.scores", GGUF_F32, tokens.n, &scores));
    TRY_GOTO(done, read_numbers(g, path, "tokenizer.ggml.token_type", GGUF_I32, tokens.n, &types));
    read_word(g, "tokenizer.ggml.model", kind);
    read_word(g, "tokenizer.ggml.pre", pre);
    if (kind[0] == 0 || tokens.n == 0)
        TRY_GOTO(done,
                 status_fail(SCA_ERR_FORMAT, "%s: holds no tokenizer; name its folder in model.tokenizer", path));
    tokenizer_gguf t = {
        .model = kind,
        .pre = pre,
        .tokens = tokens.at,
        .token_bytes = tokens.length,
        .scores = scores,
        .types = types,
        .n_tokens = tokens.n,
        .merges = merges.at,
        .n_merges = merges.n,
        .bos = read_id(g, "tokenizer.ggml.bos_token_id"),
        .eos = read_id(g, "tokenizer.ggml.eos_token_id"),
        .unknown = read_id(g, "tokenizer.ggml.unknown_token_id"),
        .pad = read_id(g, "tokenizer.ggml.padding_token_id"),
        .add_bos = gguf_bool(gguf_find(g, "tokenizer.ggml.add_bos_token"), &add_bos) ? add_bos : -1,
        .name = path,
    };
    status = tokenizer_from_gguf(&t, out);
done:
    texts_free(&tokens);
    texts_free(&merges);
    mem_free(scores);
    mem_free(types);
    return status;
}
