/* tokenizer_gguf.c - tokenizers from what a GGUF file says of them. */
#include "model/tokenizer_private.h"

#include <math.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

static const char pattern_llama3[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                                     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                                     "\\s+(?!\\S)|\\s+";
static const char pattern_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                                    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|"
                                    "\\s+(?!\\S)|\\s+";

/* Names that GGUF files give to ways of splitting; a file without a name is an old GPT-2. */
static const struct {
    const char *name;
    bool digits; /* every digit stands alone */
    const char *pattern;
    bool ignore_merges;
} splits[] = {
    { "", false, PATTERN_GPT2, false },         { "gpt-2", false, PATTERN_GPT2, false },
    { "gpt2", false, PATTERN_GPT2, false }, /* N_GPT2 */
    { "mpt", false, PATTERN_GPT2, false },      { "olmo", false, PATTERN_GPT2, false },
    { "jais", false, PATTERN_GPT2, false },     { "phi-2", false, PATTERN_GPT2, false },
    { "smollm", true, PATTERN_GPT2, false },    { "starcoder", true, PATTERN_GPT2, false },
    { "refact", true, PATTERN_GPT2, false },    { "command-r", true, PATTERN_GPT2, false },
    { "codeshell", true, PATTERN_GPT2, false }, { "llama-bpe", false, pattern_llama3, true },
    { "llama3", false, pattern_llama3, true },  { "llama-v3", false, pattern_llama3, true },
    { "qwen2", false, pattern_qwen2, false },
};

#define N_GPT2 3

static sca_status split_by_name(tokenizer *t, const tokenizer_gguf *g)
{
    const char *pre = g->pre ? g->pre : "";
    for (size_t i = 0; i < LENGTH(splits); i++) {
        if (strcmp(pre, splits[i].name) != 0) continue;
        if (splits[i].digits) TRY(split_add(t, SPLIT_ISOLATED, PATTERN_DIGIT, g->name));
        t->split_pattern = splits[i].pattern;
        t->split_digits = splits[i].digits;
        t->ignore_merges = splits[i].ignore_merges;
        t->clean_up = i < N_GPT2; /* the rule of GPT-2's own class; later models switch it off */
        return split_add(t, SPLIT_ISOLATED, splits[i].pattern, g->name);
    }
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "%s: tokenizer.ggml.pre is '%.80s', expected gpt-2, smollm, llama-bpe, qwen2 "
                       "or another way of GPT-2's family",
                       g->name, pre);
}

static unsigned flags_of(const tokenizer_gguf *g, size_t id)
{
    switch (g->types ? g->types[id] : TYPE_NORMAL) {
    case TYPE_UNKNOWN: return TOKEN_UNKNOWN | TOKEN_SPECIAL;
    case TYPE_CONTROL: return TOKEN_CONTROL | TOKEN_SPECIAL;
    case TYPE_USER: return TOKEN_USER;
    case TYPE_UNUSED: return TOKEN_UNUSED;
    case TYPE_BYTE: return TOKEN_BYTE;
    default: return 0;
    }
}

static sca_status put_tokens(tokenizer *t, const tokenizer_gguf *g)
{
    if (g->n_tokens > INT32_MAX / 2)
        return status_fail(SCA_ERR_FORMAT, "%s: has %zu tokens, expected at most %d", g->name, g->n_tokens,
                           INT32_MAX / 2);
    t->vocab.limit = (int64_t)g->n_tokens;
    for (size_t i = 0; i < g->n_tokens; i++) {
        if (g->types && (g->types[i] < TYPE_NORMAL || g->types[i] > TYPE_BYTE))
            return status_fail(SCA_ERR_FORMAT, "%s: token %zu has type %d, expected 1 to 6", g->name, i,
                               g->types[i]);
        TRY(vocab_put(&t->vocab, (int64_t)i, g->tokens[i], g->token_bytes[i], g->name));
        vocab_token *k = &t->vocab.tokens[i];
        k->flags = (uint16_t)(k->flags | flags_of(g, i));
        if (!g->scores) continue;
        if (!isfinite(g->scores[i]))
            return status_fail(SCA_ERR_FORMAT, "%s: the score of token %zu is not finite", g->name, i);
        k->score = g->scores[i];
    }
    t->model_size = t->vocab.size;
    return vocab_check(&t->vocab, g->name);
}

/* Special tokens are cut out of any text, user-defined ones too: SentencePiece does that after it escaped spaces.
 */
static sca_status add_found_tokens(tokenizer *t, const char *file)
{
    for (int id = 0; id < t->model_size; id++) {
        unsigned flags = t->vocab.tokens[id].flags;
        if (!(flags & (TOKEN_SPECIAL | TOKEN_USER)) || t->vocab.tokens[id].bytes == 0) continue;
        added_token how = { .normalized = !(flags & TOKEN_SPECIAL) };
        TRY(tokenizer_add(t, id, vocab_text(&t->vocab, id), t->vocab.tokens[id].bytes, &how, 0, file));
    }
    return SCA_OK;
}

static sca_status set_role(tokenizer *t, const tokenizer_gguf *g, const char *role, int64_t id, int *out)
{
    *out = -1;
    if (id < 0) return SCA_OK;
    if (id >= t->vocab.size)
        return status_fail(SCA_ERR_FORMAT, "%s: the %s token is %lld, expected 0 to %d", g->name, role,
                           (long long)id, t->vocab.size - 1);
    *out = (int)id;
    t->vocab.tokens[id].flags |= TOKEN_SPECIAL;
    return SCA_OK;
}

static sca_status set_roles(tokenizer *t, const tokenizer_gguf *g)
{
    TRY(set_role(t, g, "BOS", g->bos, &t->bos));
    TRY(set_role(t, g, "EOS", g->eos, &t->eos));
    TRY(set_role(t, g, "unknown", g->unknown, &t->unknown));
    TRY(set_role(t, g, "padding", g->pad, &t->pad));
    return SCA_OK;
}

static sca_status build_gpt2(tokenizer *t, const tokenizer_gguf *g)
{
    char where[400];
    if (!g->merges)
        return status_fail(SCA_ERR_FORMAT, "%s: has no tokenizer.ggml.merges, expected them for a gpt2 tokenizer",
                           g->name);
    t->model = MODEL_BPE_BYTES;
    t->decode = DECODE_BYTES;
    TRY(split_by_name(t, g));
    for (size_t i = 0; i < g->n_merges; i++) {
        snprintf(where, sizeof where, "%.300s: merge %zu", g->name, i);
        TRY(bpe_add_line(t, (uint32_t)i, g->merges[i], strlen(g->merges[i]), where));
    }
    return bpe_prepare(t);
}

/* Without types, the names of the tokens tell. */
static void guess_types(tokenizer *t)
{
    for (int id = 0; id < t->vocab.size; id++) {
        const char *text = vocab_text(&t->vocab, id);
        vocab_token *k = &t->vocab.tokens[id];
        if (k->bytes == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>') k->flags |= TOKEN_BYTE;
    }
}

static sca_status build_llama(tokenizer *t, const tokenizer_gguf *g)
{
    if (!g->scores)
        return status_fail(SCA_ERR_FORMAT, "%s: has no tokenizer.ggml.scores, expected them for a llama tokenizer",
                           g->name);
    t->model = MODEL_SPM_SCORES;
    t->decode = DECODE_SPM_FAST;
    t->rules.dummy_prefix = true;
    if (!g->types) {
        guess_types(t);
        if (t->unknown >= 0) t->vocab.tokens[t->unknown].flags |= TOKEN_UNKNOWN;
    }
    for (int id = 0; id < t->vocab.size; id++)
        t->rules.byte_fallback |= (t->vocab.tokens[id].flags & TOKEN_BYTE) != 0;
    return spm_prepare(t, g->name);
}

static sca_status build(tokenizer *t, const tokenizer_gguf *g)
{
    TRY(put_tokens(t, g));
    TRY(set_roles(t, g));
    bool llama = strcmp(g->model, "llama") == 0;
    if (!llama && strcmp(g->model, "gpt2") != 0)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: tokenizer.ggml.model is '%.80s', expected gpt2 or llama",
                           g->name, g->model);
    TRY(llama ? build_llama(t, g) : build_gpt2(t, g));
    TRY(add_found_tokens(t, g->name));
    bool add_bos = g->add_bos < 0 ? llama : g->add_bos != 0;
    if (add_bos && t->bos < 0)
        return status_fail(SCA_ERR_FORMAT, "%s: asks for a BOS token but names none, expected its id", g->name);
    if (add_bos) TRY(int_list_put(&t->before, t->bos));
    return tokenizer_finish(t, g->name);
}

sca_status tokenizer_from_gguf(const tokenizer_gguf *g, tokenizer **out)
{
    tokenizer *t = NULL;
    *out = NULL;
    TRY(tokenizer_new(&t));
    sca_status status = build(t, g);
    if (status != SCA_OK)
        tokenizer_close(t);
    else
        *out = t;
    return status;
}
