/* tokenizer.c - opens tokenizers, and the way of a text to ids and back. */
#include "model/tokenizer_private.h"

#include <limits.h>
#include <string.h>

#define TRAIN_IDS 18 /* data.md 5: model_max_length 20 less 2, special tokens of the tokenizer included */
#define TEXT_MOST ((size_t)INT_MAX / 16)

const char *const tokenizer_file_names[FILE_COUNT] = {
    [FILE_MODEL] = "tokenizer.model",
    [FILE_JSON] = "tokenizer.json",
    [FILE_VOCAB] = "vocab.json",
    [FILE_MERGES] = "merges.txt",
    [FILE_ADDED] = "added_tokens.json",
    [FILE_SPECIAL] = "special_tokens_map.json",
    [FILE_CONFIG] = "tokenizer_config.json",
};

/* ---- opening
 * -------------------------------------------------------------------------------------------------------- */

sca_status tokenizer_new(tokenizer **out)
{
    tokenizer *t = mem_zero(1, sizeof *t);
    if (!t) return mem_fail(sizeof *t, "a tokenizer");
    t->bos = t->eos = t->unknown = t->pad = t->model_unknown = -1;
    *out = t;
    return SCA_OK;
}

void tokenizer_close(tokenizer *t)
{
    if (!t) return;
    vocab_free(&t->vocab);
    pair_free(&t->merges);
    if (t->library) spm_close(t->library);
    mem_free(t->rules.unknown_surface);
    mem_free(t->added);
    pair_free(&t->raw.trie);
    pair_free(&t->normalized.trie);
    for (int i = 0; i < t->n_normal; i++) {
        mem_free(t->normal[i].from);
        mem_free(t->normal[i].to);
    }
    mem_free(t->normal);
    for (int i = 0; i < t->n_split; i++) split_free(&t->split[i]);
    mem_free(t->before.data);
    mem_free(t->after.data);
    mem_free(t->dir);
    mem_free(t);
}

static bool found_after_normaliser(const tokenizer *t, const added_token *a)
{
    if (!a->normalized) return false;
    return t->model == MODEL_SPM_SCORES || t->model == MODEL_BPE_BYTES || t->model == MODEL_BPE_CHARS;
}

sca_status tokenizer_finish(tokenizer *t, const char *file)
{
    TRY(vocab_check(&t->vocab, file));
    str normal = { 0 };
    sca_status status = SCA_OK;
    for (int i = 0; i < t->n_added; i++) {
        const added_token *a = &t->added[i];
        const char *text = vocab_text(&t->vocab, a->id);
        size_t bytes = t->vocab.tokens[a->id].bytes;
        if (!found_after_normaliser(t, a)) {
            TRY_GOTO(out, added_put(&t->raw, text, bytes, i));
            continue;
        }
        TRY_GOTO(out, normal_apply(t->normal, t->n_normal, text, bytes, &normal));
        TRY_GOTO(out, added_put(&t->normalized, str_text(&normal), normal.bytes, i));
    }
out:
    str_free(&normal);
    return status;
}

static sca_status read_merges(tokenizer *t, const char *text, size_t bytes, const char *file)
{
    char where[400];
    uint32_t rank = 0;
    if (!utf8_valid(text, bytes))
        return status_fail(SCA_ERR_FORMAT, "%s: is not UTF-8, expected lines of two tokens", file);
    for (size_t at = 0, line = 1; at < bytes; line++) {
        const char *begin = text + at, *newline = memchr(begin, '\n', bytes - at);
        size_t length = newline ? (size_t)(newline - begin) : bytes - at;
        at += length + 1;
        if (length > 0 && begin[length - 1] == '\r') length--;
        bool version = line == 1 && length >= 8 && memcmp(begin, "#version", 8) == 0;
        if (length == 0 || version) continue;
        snprintf(where, sizeof where, "%.300s:%zu", file, line);
        TRY(bpe_add_line(t, rank++, begin, length, where));
    }
    return SCA_OK;
}

static sca_status build_plain(tokenizer *t, const tokenizer_source *s, const special_names *n)
{
    json_t *root = NULL;
    const char *file = s->names[FILE_VOCAB];
    sca_status status = SCA_OK;
    TRY_GOTO(out, json_parse(s->data[FILE_VOCAB], s->bytes[FILE_VOCAB], file, &root));
    t->model = MODEL_BPE_BYTES;
    t->decode = DECODE_BYTES;
    t->vocab.limit = (int64_t)json_object_size(root) + special_count(n);
    TRY_GOTO(out, tokenizer_read_vocab(t, root, file));
    TRY_GOTO(out, read_merges(t, s->data[FILE_MERGES], s->bytes[FILE_MERGES], s->names[FILE_MERGES]));
    bool prefix = false;
    if (n->config) TRY_GOTO(out, json_may_bool(n->config, "add_prefix_space", n->config_file, &prefix));
    if (prefix) TRY_GOTO(out, split_add(t, SPLIT_PREFIX, NULL, file));
    TRY_GOTO(out, split_add(t, SPLIT_ISOLATED, PATTERN_GPT2, file));
    TRY_GOTO(out, special_apply(t, n));
    TRY_GOTO(out, special_surround(t, n));
    TRY_GOTO(out, bpe_prepare(t));
    status = tokenizer_finish(t, file);
out:
    json_decref(root);
    return status;
}

static sca_status build_json(tokenizer *t, const tokenizer_source *s, const special_names *n)
{
    json_t *root = NULL;
    const char *file = s->names[FILE_JSON];
    sca_status status = SCA_OK;
    TRY_GOTO(out, json_parse(s->data[FILE_JSON], s->bytes[FILE_JSON], file, &root));
    TRY_GOTO(out, tokenizer_read_json(t, root, n, file));
    TRY_GOTO(out, special_apply(t, n));
    TRY_GOTO(out, bpe_prepare(t));
    status = tokenizer_finish(t, file);
out:
    json_decref(root);
    return status;
}

/* transformers' slow class with `legacy` false merges this into the model: normalizer_spec.add_dummy_prefix =
 * false. */
static const char no_dummy_prefix[4] = { 0x1a, 0x02, 0x18, 0x00 };

static sca_status read_without_prefix(tokenizer *t, const char *data, size_t bytes, const char *file)
{
    str merged = { 0 };
    str_put_bytes(&merged, data, bytes);
    str_put_bytes(&merged, no_dummy_prefix, sizeof no_dummy_prefix);
    sca_status status = str_check(&merged, "a SentencePiece model");
    if (status == SCA_OK) status = spm_read(t, (const uint8_t *)merged.data, merged.bytes, file);
    str_free(&merged);
    return status;
}

static sca_status build_model(tokenizer *t, const tokenizer_source *s, const special_names *n)
{
    const char *file = s->names[FILE_MODEL], *data = s->data[FILE_MODEL];
    size_t bytes = s->bytes[FILE_MODEL];
    bool legacy = true;
    t->model = MODEL_SPM_LIBRARY;
    if (n->config) TRY(json_may_bool(n->config, "legacy", n->config_file, &legacy));
    bool slow = strcmp(n->class_name, "LlamaTokenizer") == 0;
    TRY(slow && !legacy ? read_without_prefix(t, data, bytes, file)
                        : spm_read(t, (const uint8_t *)data, bytes, file));
    t->vocab.limit = t->vocab.size + special_count(n);
    TRY(special_apply(t, n));
    TRY(special_surround(t, n));
    return tokenizer_finish(t, file);
}

static sca_status refuse_class(const special_names *n, const char *expected)
{
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "%s: 'tokenizer_class' is '%.80s', expected %s, or a tokenizer.json beside it",
                       n->config_file, n->class_name, expected);
}

/* tokenizer.model before tokenizer.json before vocab.json with merges.txt. Other classes than the known ones read
 * the first and the last kind of files in their own ways, but tokenizer.json says all itself. */
static sca_status build_chosen(tokenizer *t, const tokenizer_source *s, const special_names *n)
{
    const char *name = n->class_name;
    bool llama = !*name || strcmp(name, "LlamaTokenizer") == 0 || strcmp(name, "LlamaTokenizerFast") == 0;
    bool gpt2 = !*name || text_starts(name, "GPT2Tokenizer") || text_starts(name, "CodeGenTokenizer");
    if (s->data[FILE_MODEL] && llama) return build_model(t, s, n);
    if (s->data[FILE_JSON]) return build_json(t, s, n);
    if (s->data[FILE_MODEL]) return refuse_class(n, "LlamaTokenizer");
    return gpt2 ? build_plain(t, s, n) : refuse_class(n, "GPT2Tokenizer");
}

sca_status tokenizer_build(const tokenizer_source *s, tokenizer **out)
{
    tokenizer *t = NULL;
    special_names names = { .class_name = "" };
    sca_status status = SCA_OK;
    *out = NULL;
    TRY_GOTO(out, special_open(s, &names));
    TRY_GOTO(out, tokenizer_new(&t));
    status = build_chosen(t, s, &names);
out:
    special_close(&names);
    if (status == SCA_OK)
        *out = t;
    else
        tokenizer_close(t);
    return status;
}

static sca_status source_names(const char *dir, tokenizer_source *s, bool present[FILE_COUNT])
{
    for (int i = 0; i < FILE_COUNT; i++) {
        s->names[i] = path_join(dir, tokenizer_file_names[i]);
        if (!s->names[i]) return mem_fail(strlen(dir), "a file name");
        present[i] = file_exists(s->names[i]);
    }
    bool plain = present[FILE_VOCAB] || present[FILE_MERGES];
    if (present[FILE_MODEL] || present[FILE_JSON]) return SCA_OK;
    if (!plain)
        return status_fail(SCA_ERR_IO,
                           "%s: holds no tokenizer, expected tokenizer.model, tokenizer.json, or vocab.json "
                           "with merges.txt",
                           dir);
    int missing = present[FILE_VOCAB] ? FILE_MERGES : FILE_VOCAB;
    if (!present[missing])
        return status_fail(SCA_ERR_IO, "%s: is missing, expected beside %s", s->names[missing],
                           tokenizer_file_names[present[FILE_VOCAB] ? FILE_VOCAB : FILE_MERGES]);
    return SCA_OK;
}

static sca_status source_read(tokenizer_source *s, const bool present[FILE_COUNT])
{
    for (int i = 0; i < FILE_COUNT; i++) {
        char *data = NULL;
        if (!present[i]) continue;
        TRY(file_read(s->names[i], TOKENIZER_FILE_MOST, &data, &s->bytes[i]));
        s->data[i] = data;
    }
    return SCA_OK;
}

static void source_free(tokenizer_source *s)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        mem_free((char *)s->data[i]);
        mem_free(s->names[i]);
    }
}

sca_status tokenizer_open(const char *dir, tokenizer **out)
{
    tokenizer_source s = { 0 };
    bool present[FILE_COUNT] = { 0 };
    tokenizer *t = NULL;
    sca_status status = SCA_OK;
    *out = NULL;
    TRY_GOTO(out, source_names(dir, &s, present));
    TRY_GOTO(out, source_read(&s, present));
    TRY_GOTO(out, tokenizer_build(&s, &t));
    t->dir = text_copy(dir, strlen(dir));
    if (!t->dir) {
        status = mem_fail(strlen(dir), "a tokenizer");
        goto out;
    }
    for (int i = 0, n = 0; i < FILE_COUNT; i++)
        if (present[i]) t->files[n++] = tokenizer_file_names[i];
    *out = t;
    t = NULL;
out:
    tokenizer_close(t);
    source_free(&s);
    return status;
}

int tokenizer_size(const tokenizer *t) { return t->vocab.size; }
int tokenizer_bos(const tokenizer *t) { return t->bos; }
int tokenizer_eos(const tokenizer *t) { return t->eos; }
const char *const *tokenizer_files(const tokenizer *t) { return t->files; }
const char *tokenizer_dir(const tokenizer *t) { return t->dir; }

/* ---- text to ids
 * ------------------------------------------------------------------------------------------------------ */

sca_status model_encode(encoder *e, const char *text, size_t bytes)
{
    if (e->learner) return bpe_learner_word(e->learner, text, bytes);
    switch (e->t->model) {
    case MODEL_SPM_LIBRARY: return spm_encode_segment(e, text, bytes);
    case MODEL_SPM_SCORES: return spm_encode_scores(e, text, bytes);
    default: return bpe_encode(e, text, bytes);
    }
}

/* The text between two added tokens, after the normaliser. */
static sca_status encode_normal(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    bool bpe = t->model == MODEL_BPE_BYTES || t->model == MODEL_BPE_CHARS;
    bool begins = e->text_begins;
    added_match m;
    size_t from = 0;
    while (bpe && added_next(t, &t->normalized, text, bytes, from, &m)) {
        e->text_begins = begins && from == 0;
        if (m.start > from) TRY(split_run(e, 0, text + from, m.start - from));
        TRY(int_list_put(&e->ids, t->added[m.index].id));
        from = m.end;
    }
    e->text_begins = begins && from == 0;
    return from < bytes ? split_run(e, 0, text + from, bytes - from) : SCA_OK;
}

static sca_status encode_segment(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    if (t->n_normal == 0) return encode_normal(e, text, bytes);
    TRY(normal_apply(t->normal, t->n_normal, text, bytes, &e->normal));
    return encode_normal(e, str_text(&e->normal), e->normal.bytes);
}

static sca_status encode_text(encoder *e, const char *text, size_t bytes)
{
    const tokenizer *t = e->t;
    added_match m;
    size_t from = 0;
    while (added_next(t, &t->raw, text, bytes, from, &m)) {
        e->text_begins = from == 0;
        if (m.start > from) TRY(encode_segment(e, text + from, m.start - from));
        TRY(int_list_put(&e->ids, t->added[m.index].id));
        from = m.end;
    }
    e->text_begins = from == 0;
    return from < bytes ? encode_segment(e, text + from, bytes - from) : SCA_OK;
}

void encoder_free(encoder *e)
{
    for (int i = 0; i < SPLIT_STEPS_MOST; i++) {
        str_free(&e->scratch[i]);
        pcre2_match_data_free(e->match[i]);
    }
    pcre2_match_context_free(e->context);
    str_free(&e->clean);
    str_free(&e->normal);
    mem_free(e->ids.data);
    mem_free(e->word.data);
    mem_free(e->symbols);
    mem_free(e->heap);
}

/* The ids of the text alone into the finished list, with what stands around them. */
static sca_status surround(const tokenizer *t, const int_list *inner, bool train, int **ids, int *n)
{
    size_t around = t->before.n + t->after.n, count = inner->n, total;
    size_t room = around < TRAIN_IDS ? TRAIN_IDS - around : 0;
    if (train && count > room) count = room;
    total = t->before.n + count + t->after.n + train;
    if (total > INT_MAX) return status_fail(SCA_ERR_ARGUMENT, "the text has more than %d tokens", INT_MAX);
    int *all = mem_alloc((total + 1) * sizeof *all), *to = all;
    if (!all) return mem_fail((total + 1) * sizeof *all, "token ids");
    for (size_t i = 0; i < t->before.n; i++) *to++ = t->before.data[i];
    for (size_t i = 0; i < count; i++) *to++ = inner->data[i];
    for (size_t i = 0; i < t->after.n; i++) *to++ = t->after.data[i];
    if (train) *to++ = t->eos;
    *ids = all;
    *n = (int)total;
    return SCA_OK;
}

sca_status tokenizer_encode(const tokenizer *t, const char *text, size_t bytes, bool train, int **ids, int *n)
{
    encoder e = { .t = t };
    sca_status status = SCA_OK;
    *ids = NULL;
    *n = 0;
    if (bytes > TEXT_MOST)
        return status_fail(SCA_ERR_ARGUMENT, "the text has %zu bytes, expected at most %zu; cut it", bytes,
                           TEXT_MOST);
    if (train && t->eos < 0)
        return status_fail(SCA_ERR_STATE,
                           "%s: has no EOS token, expected one for training; name eos_token in its files",
                           t->dir ? t->dir : "the tokenizer");
    if (!utf8_valid(text, bytes)) {
        put_lossy(&e.clean, text, bytes);
        TRY_GOTO(out, str_check(&e.clean, "a text"));
        text = e.clean.data;
        bytes = e.clean.bytes;
    }
    TRY_GOTO(out, encode_text(&e, text, bytes));
    status = surround(t, &e.ids, train, ids, n);
out:
    encoder_free(&e);
    return status;
}

/* ---- ids to text
 * ------------------------------------------------------------------------------------------------------ */

static sca_status kept_ids(const tokenizer *t, const int *ids, int n, bool with_special, int_list *out)
{
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab.size)
            return status_fail(SCA_ERR_ARGUMENT, "token %d is %d, expected 0 to %d", i, ids[i], t->vocab.size - 1);
        if (!with_special && t->vocab.tokens[ids[i]].flags & TOKEN_SPECIAL) continue;
        TRY(int_list_put(out, ids[i]));
    }
    return SCA_OK;
}

static void decode_bytes(const tokenizer *t, const int_list *ids, str *out)
{
    str raw = { 0 };
    for (size_t i = 0; i < ids->n; i++) bpe_put_bytes(t, ids->data[i], &raw);
    put_lossy(out, str_text(&raw), raw.bytes);
    out->failed |= raw.failed;
    str_free(&raw);
}

/* In place; to is no longer than from. */
static void replace_in(str *s, const char *from, const char *to)
{
    size_t n_from = strlen(from), n_to = strlen(to), read = 0, write = 0;
    while (read < s->bytes) {
        if (s->bytes - read >= n_from && memcmp(s->data + read, from, n_from) == 0) {
            memcpy(s->data + write, to, n_to);
            write += n_to;
            read += n_from;
        } else {
            s->data[write++] = s->data[read++];
        }
    }
    s->bytes = write;
    if (s->data) s->data[write] = 0;
}

/* transformers' clean_up_tokenization, in its order. */
static void clean_up(str *s)
{
    static const char *const pairs[][2] = {
        { " .", "." },     { " ?", "?" },   { " !", "!" },   { " ,", "," },     { " ' ", "'" },
        { " n't", "n't" }, { " 'm", "'m" }, { " 's", "'s" }, { " 've", "'ve" }, { " 're", "'re" },
    };
    for (size_t i = 0; i < LENGTH(pairs); i++) replace_in(s, pairs[i][0], pairs[i][1]);
}

/* A 0 byte would end the text early: it becomes U+FFFD. */
static sca_status take_without_zeros(str *s, char **text)
{
    str out = { 0 };
    if (s->bytes == 0 || !memchr(s->data, 0, s->bytes)) return str_take(s, text);
    for (size_t i = 0; i < s->bytes; i++) {
        if (s->data[i])
            str_putc(&out, s->data[i]);
        else
            str_put(&out, REPLACEMENT);
    }
    sca_status status = str_take(&out, text);
    str_free(&out);
    return status;
}

static sca_status decode(const tokenizer *t, const int *ids, int n, bool with_special, str *s)
{
    int_list kept = { 0 };
    sca_status status = SCA_OK;
    TRY_GOTO(out, kept_ids(t, ids, n, with_special, &kept));
    switch (t->decode) {
    case DECODE_BYTES: decode_bytes(t, &kept, s); break;
    case DECODE_SPM_FAST: spm_decode_fast(t, kept.data, kept.n, s); break;
    case DECODE_SPM_SLOW: spm_decode_slow(t, kept.data, kept.n, s); break;
    }
    TRY_GOTO(out, str_check(s, "decoding token ids"));
    if (t->clean_up) clean_up(s);
out:
    mem_free(kept.data);
    return status;
}

sca_status tokenizer_decode(const tokenizer *t, const int *ids, int n, bool with_special, char **text)
{
    str s = { 0 };
    *text = NULL;
    sca_status status = decode(t, ids, n, with_special, &s);
    if (status == SCA_OK) status = take_without_zeros(&s, text);
    str_free(&s);
    return status;
}

sca_status tokenizer_decode_bytes(const tokenizer *t, const int *ids, int n, bool with_special, char **text,
                                  size_t *bytes)
{
    str s = { 0 };
    *text = NULL;
    *bytes = 0;
    sca_status status = decode(t, ids, n, with_special, &s);
    size_t found = s.bytes;
    if (status == SCA_OK) status = str_take(&s, text);
    if (status == SCA_OK) *bytes = found;
    str_free(&s);
    return status;
}

/* ---- the public header
 * ------------------------------------------------------------------------------------------------- */

static const tokenizer *inside(const sca_tokenizer *t) { return (const tokenizer *)(const void *)t; }

SCA_API sca_status sca_tokenizer_open(const char *dir, sca_tokenizer **out)
{
    tokenizer *t = NULL;
    if (!dir || !out)
        return status_fail(SCA_ERR_ARGUMENT, "sca_tokenizer_open: found NULL, expected a folder and a place");
    *out = NULL;
    TRY(tokenizer_open(dir, &t));
    *out = (sca_tokenizer *)(void *)t;
    return SCA_OK;
}

SCA_API sca_status sca_tokenizer_encode(const sca_tokenizer *t, const char *text, size_t bytes, int train,
                                        int **ids, int *n)
{
    if (!t || (!text && bytes > 0) || !ids || !n)
        return status_fail(SCA_ERR_ARGUMENT,
                           "sca_tokenizer_encode: found NULL, expected a tokenizer, a text and places");
    return tokenizer_encode(inside(t), text ? text : "", bytes, train != 0, ids, n);
}

SCA_API sca_status sca_tokenizer_decode(const sca_tokenizer *t, const int *ids, int n, int with_special,
                                        char **text)
{
    if (!t || (!ids && n > 0) || n < 0 || !text)
        return status_fail(SCA_ERR_ARGUMENT,
                           "sca_tokenizer_decode: found NULL or %d ids, expected a tokenizer and ids", n);
    return tokenizer_decode(inside(t), ids, n, with_special != 0, text);
}

SCA_API sca_status sca_tokenizer_decode_bytes(const sca_tokenizer *t, const int *ids, int n, int with_special,
                                              char **text, size_t *bytes)
{
    if (!t || (!ids && n > 0) || n < 0 || !text || !bytes)
        return status_fail(SCA_ERR_ARGUMENT,
                           "sca_tokenizer_decode_bytes: found NULL or %d ids, expected a tokenizer, ids and places",
                           n);
    return tokenizer_decode_bytes(inside(t), ids, n, with_special != 0, text, bytes);
}

static bpe_learner *learner(sca_vocabulary *v) { return (bpe_learner *)(void *)v; }

SCA_API sca_status sca_vocabulary_open(int size, sca_vocabulary **out)
{
    bpe_learner *l = NULL;
    if (!out) return status_fail(SCA_ERR_ARGUMENT, "sca_vocabulary_open: found NULL, expected a place");
    *out = NULL;
    TRY(bpe_learner_open(size, &l));
    *out = (sca_vocabulary *)(void *)l;
    return SCA_OK;
}

SCA_API sca_status sca_vocabulary_add(sca_vocabulary *v, const char *text, size_t bytes)
{
    if (!v || (!text && bytes > 0))
        return status_fail(SCA_ERR_ARGUMENT, "sca_vocabulary_add: found NULL, expected a vocabulary and a text");
    return bytes ? bpe_learner_add(learner(v), text, bytes) : SCA_OK;
}

SCA_API sca_status sca_vocabulary_save(sca_vocabulary *v, const char *dir, int *size)
{
    if (!v || !dir || !size)
        return status_fail(SCA_ERR_ARGUMENT,
                           "sca_vocabulary_save: found NULL, expected a vocabulary, a folder and a place");
    return bpe_learner_save(learner(v), dir, size);
}

SCA_API void sca_vocabulary_close(sca_vocabulary *v) { bpe_learner_close(learner(v)); }

SCA_API void sca_tokenizer_close(sca_tokenizer *t) { tokenizer_close((tokenizer *)(void *)t); }
