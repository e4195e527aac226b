/* tokenizer_json.c - reads tokenizer.json. What is not supported is refused by name. */
#include "model/tokenizer_private.h"

#include <string.h>

#define NESTED_MOST 8 /* sequences in sequences */

typedef struct reader {
    tokenizer *t;
    const char *file;
    const special_names *names;
    bool byte_level; /* a ByteLevel pre-tokenizer was seen */
} reader;

static sca_status refuse(const reader *r, const char *what, const char *found, const char *expected)
{
    return status_fail(SCA_ERR_UNSUPPORTED, "%s: the %s is '%.80s', expected %s", r->file, what, found, expected);
}

static sca_status type_of(const reader *r, const json_t *object, const char *what, const char **out)
{
    if (!json_is_object(object))
        return status_fail(SCA_ERR_FORMAT, "%s: the %s is no object, expected one with a 'type'", r->file, what);
    return json_need_text(object, "type", r->file, out);
}

typedef sca_status part_fn(reader *r, const json_t *object, int depth);

/* The parts of a "Sequence", one by one. */
static sca_status each_part(reader *r, const json_t *object, const char *key, const char *what, part_fn *fn,
                            int depth)
{
    const json_t *list = json_object_get(object, key);
    if (!json_is_array(list) || depth >= NESTED_MOST)
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' of the %s is no list or nested more than %d deep", r->file,
                           key, what, NESTED_MOST);
    for (size_t i = 0; i < json_array_size(list); i++) TRY(fn(r, json_array_get(list, i), depth + 1));
    return SCA_OK;
}

/* ---- normaliser
 * ---------------------------------------------------------------------------------------------------- */

static sca_status add_normal(reader *r, normal_kind kind, const char *from, const char *to)
{
    tokenizer *t = r->t;
    normal_step *steps = mem_resize(t->normal, (size_t)(t->n_normal + 1) * sizeof *steps);
    if (!steps) return mem_fail(sizeof *steps, "a normaliser");
    t->normal = steps;
    normal_step *s = &steps[t->n_normal++];
    *s = (normal_step){ .kind = kind };
    if (from) s->from = text_copy(from, strlen(from));
    if (to) s->to = text_copy(to, strlen(to));
    return (from && !s->from) || (to && !s->to) ? mem_fail(strlen(to), "a normaliser") : SCA_OK;
}

/* {"String": text}; patterns are not supported here. */
static sca_status plain_pattern(const reader *r, const json_t *object, const char *what, const char **out)
{
    const json_t *pattern = json_object_get(object, "pattern");
    if (json_object_get(pattern, "Regex")) return refuse(r, what, "a Replace by Regex", "a Replace by String");
    if (!json_is_object(pattern))
        return status_fail(SCA_ERR_FORMAT, "%s: 'pattern' of the %s is no object, expected {\"String\": ...}",
                           r->file, what);
    return json_need_text(pattern, "String", r->file, out);
}

static sca_status read_normalizer(reader *r, const json_t *object, int depth)
{
    static const char what[] = "normalizer";
    static const struct {
        const char *name;
        normal_kind kind;
    } forms[] = {
        { "NFC", NORMAL_NFC },
        { "NFD", NORMAL_NFD },
        { "NFKC", NORMAL_NFKC },
        { "NFKD", NORMAL_NFKD },
    };
    const char *type = NULL, *from = NULL, *to = NULL;
    TRY(type_of(r, object, what, &type));
    if (strcmp(type, "Sequence") == 0) return each_part(r, object, "normalizers", what, read_normalizer, depth);
    for (size_t i = 0; i < LENGTH(forms); i++)
        if (strcmp(type, forms[i].name) == 0) return add_normal(r, forms[i].kind, NULL, NULL);
    if (strcmp(type, "Prepend") == 0) {
        TRY(json_need_text(object, "prepend", r->file, &to));
        return add_normal(r, NORMAL_PREPEND, NULL, to);
    }
    if (strcmp(type, "Replace") == 0) {
        TRY(plain_pattern(r, object, what, &from));
        TRY(json_need_text(object, "content", r->file, &to));
        return add_normal(r, NORMAL_REPLACE, from, to);
    }
    return refuse(r, what, type, "Sequence, NFC, NFD, NFKC, NFKD, Prepend or Replace");
}

/* ---- pre-tokenizer
 * -------------------------------------------------------------------------------------------------- */

static sca_status read_byte_level(reader *r, const json_t *object)
{
    bool prefix = true, pattern = true;
    TRY(json_may_bool(object, "add_prefix_space", r->file, &prefix));
    TRY(json_may_bool(object, "use_regex", r->file, &pattern));
    int override = special_prefix_space(r->names);
    if (override >= 0) prefix = override;
    r->byte_level = true;
    if (prefix) TRY(split_add(r->t, SPLIT_PREFIX, NULL, r->file));
    return pattern ? split_add(r->t, SPLIT_ISOLATED, PATTERN_GPT2, r->file) : SCA_OK;
}

/* A pattern that means the text itself. */
static void quote(const char *text, str *out)
{
    for (const char *p = text; *p; p++) {
        bool plain = (unsigned char)*p >= 0x80 || (*p >= '0' && *p <= '9') ||
                     ((*p | 32) >= 'a' && (*p | 32) <= 'z') || *p == ' ';
        if ((unsigned char)*p < 32) {
            str_printf(out, "\\x{%x}", (unsigned)*p);
            continue;
        }
        if (!plain) str_putc(out, '\\');
        str_putc(out, *p);
    }
}

static sca_status read_split(reader *r, const json_t *object)
{
    static const char expected[] = "Isolated or Removed";
    const char *behavior = NULL, *text = NULL;
    bool invert = false;
    const json_t *pattern = json_object_get(object, "pattern");
    TRY(json_need_text(object, "behavior", r->file, &behavior));
    TRY(json_may_bool(object, "invert", r->file, &invert));
    bool isolated = strcmp(behavior, "Isolated") == 0, removed = strcmp(behavior, "Removed") == 0;
    if (!isolated && !removed) return refuse(r, "behavior of a Split", behavior, expected);
    split_kind kind = isolated ? SPLIT_ISOLATED : invert ? SPLIT_INVERTED : SPLIT_REMOVED;
    if (!json_is_object(pattern))
        return status_fail(SCA_ERR_FORMAT, "%s: 'pattern' of a Split is no object, expected {\"Regex\": ...}",
                           r->file);
    if (json_object_get(pattern, "Regex")) {
        TRY(json_need_text(pattern, "Regex", r->file, &text));
        return split_add(r->t, kind, text, r->file);
    }
    TRY(json_need_text(pattern, "String", r->file, &text));
    str quoted = { 0 };
    quote(text, &quoted);
    sca_status status = str_check(&quoted, "a split pattern");
    if (status == SCA_OK) status = split_add(r->t, kind, str_text(&quoted), r->file);
    str_free(&quoted);
    return status;
}

static sca_status read_metaspace(reader *r, const json_t *object)
{
    const char *replacement = SPACE_SYMBOL, *scheme = NULL;
    bool prefix = true, split = true;
    TRY(json_may_text(object, "replacement", r->file, &replacement));
    TRY(json_may_bool(object, "add_prefix_space", r->file, &prefix));
    TRY(json_may_text(object, "prepend_scheme", r->file, &scheme));
    TRY(json_may_bool(object, "split", r->file, &split));
    if (!scheme) scheme = prefix ? "always" : "never";
    bool always = strcmp(scheme, "always") == 0, first = strcmp(scheme, "first") == 0;
    if (!always && !first && strcmp(scheme, "never") != 0)
        return refuse(r, "prepend_scheme", scheme, "always, first or never");
    if (!*replacement) return refuse(r, "replacement of Metaspace", "", "one character");
    return split_add_metaspace(r->t, replacement, always || first, always, !split, r->file);
}

static sca_status read_pre_tokenizer(reader *r, const json_t *object, int depth)
{
    static const char what[] = "pre_tokenizer";
    const char *type = NULL;
    TRY(type_of(r, object, what, &type));
    if (strcmp(type, "Sequence") == 0)
        return each_part(r, object, "pretokenizers", what, read_pre_tokenizer, depth);
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(r, object);
    if (strcmp(type, "Split") == 0) return read_split(r, object);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(r, object);
    if (strcmp(type, "Digits") == 0) {
        bool individual = false;
        TRY(json_may_bool(object, "individual_digits", r->file, &individual));
        return split_add(r->t, SPLIT_ISOLATED, individual ? PATTERN_DIGIT : PATTERN_DIGITS, r->file);
    }
    return refuse(r, what, type, "Sequence, ByteLevel, Digits, Split or Metaspace");
}

/* ---- post-processor
 * --------------------------------------------------------------------------------------------------- */

static sca_status template_token(reader *r, const json_t *object, const json_t *token, int_list *to)
{
    const char *name = NULL;
    TRY(json_need_text(token, "id", r->file, &name));
    const json_t *entry = json_object_get(json_object_get(object, "special_tokens"), name);
    const json_t *ids = json_object_get(entry, "ids");
    if (!json_is_array(ids))
        return status_fail(SCA_ERR_FORMAT, "%s: the post_processor names '%.80s' without ids, expected a list",
                           r->file, name);
    for (size_t i = 0; i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
        if (value < 0 || value >= r->t->vocab.size)
            return status_fail(SCA_ERR_FORMAT, "%s: '%.80s' of the post_processor has a wrong id, expected 0 to %d",
                               r->file, name, r->t->vocab.size - 1);
        TRY(int_list_put(to, (int)value));
    }
    return SCA_OK;
}

static sca_status read_template(reader *r, const json_t *object)
{
    const json_t *single = json_object_get(object, "single");
    bool behind = false;
    if (!json_is_array(single))
        return status_fail(SCA_ERR_FORMAT, "%s: 'single' of the post_processor is no list, expected one", r->file);
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *part = json_array_get(single, i), *token = json_object_get(part, "SpecialToken");
        if (token)
            TRY(template_token(r, object, token, behind ? &r->t->after : &r->t->before));
        else if (json_object_get(part, "Sequence") && !behind)
            behind = true;
        else
            return refuse(r, "post_processor", "a template with several texts", "one text and special tokens");
    }
    return SCA_OK;
}

static sca_status read_post_processor(reader *r, const json_t *object, int depth)
{
    static const char what[] = "post_processor";
    const char *type = NULL;
    TRY(type_of(r, object, what, &type));
    if (strcmp(type, "ByteLevel") == 0) return SCA_OK; /* moves offsets only */
    if (strcmp(type, "TemplateProcessing") == 0) return read_template(r, object);
    if (strcmp(type, "Sequence") == 0) return each_part(r, object, "processors", what, read_post_processor, depth);
    return refuse(r, what, type, "ByteLevel, TemplateProcessing or Sequence");
}

/* ---- decoder
 * ------------------------------------------------------------------------------------------------------------ */

static sca_status read_decoder_replace(reader *r, const json_t *object)
{
    const char *from = NULL, *to = NULL;
    TRY(plain_pattern(r, object, "decoder", &from));
    TRY(json_need_text(object, "content", r->file, &to));
    if (strcmp(from, SPACE_SYMBOL) != 0 || strcmp(to, " ") != 0)
        return refuse(r, "decoder", "a Replace of other texts", "one of U+2581 by a space");
    return SCA_OK;
}

static sca_status read_decoder_strip(reader *r, const json_t *object)
{
    const char *content = NULL;
    int64_t start = 0, stop = 0;
    TRY(json_need_text(object, "content", r->file, &content));
    TRY(json_need_int(object, "start", r->file, 0, INT32_MAX, &start));
    TRY(json_need_int(object, "stop", r->file, 0, INT32_MAX, &stop));
    if (strcmp(content, " ") != 0 || start > 1 || stop != 0)
        return refuse(r, "decoder", "a Strip of more than one space in front", "one space in front at most");
    r->t->keeps_first_space = start == 0;
    return SCA_OK;
}

static sca_status read_decoder(reader *r, const json_t *object, int depth)
{
    static const char what[] = "decoder";
    const char *type = NULL;
    TRY(type_of(r, object, what, &type));
    if (strcmp(type, "ByteLevel") == 0) {
        r->t->decode = DECODE_BYTES;
        return SCA_OK;
    }
    r->t->decode = DECODE_SPM_FAST;
    if (strcmp(type, "Metaspace") == 0) {
        bool prefix = true;
        TRY(json_may_bool(object, "add_prefix_space", r->file, &prefix));
        r->t->keeps_first_space = !prefix;
        return SCA_OK;
    }
    if (strcmp(type, "Sequence") == 0) {
        r->t->keeps_first_space = true;
        return each_part(r, object, "decoders", what, read_decoder, depth);
    }
    if (strcmp(type, "Replace") == 0) return read_decoder_replace(r, object);
    if (strcmp(type, "Strip") == 0) return read_decoder_strip(r, object);
    if (strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0) return SCA_OK;
    return refuse(r, what, type, "ByteLevel, Metaspace, or a Sequence of Replace, ByteFallback, Fuse and Strip");
}

/* ---- model
 * ----------------------------------------------------------------------------------------------------------------
 */

sca_status tokenizer_read_vocab(tokenizer *t, const json_t *object, const char *file)
{
    const char *key;
    json_t *value;
    if (!json_is_object(object))
        return status_fail(SCA_ERR_FORMAT, "%s: the vocabulary is no object, expected {\"token\": id, ...}", file);
    json_object_foreach((json_t *)object, key, value)
    {
        size_t bytes = strlen(key);
        if (!json_is_integer(value))
            return status_fail(SCA_ERR_FORMAT, "%s: token '%.80s' has no integer id, expected 0 to %lld", file, key,
                               (long long)t->vocab.limit - 1);
        TRY(vocab_put(&t->vocab, json_integer_value(value), key, bytes, file));
    }
    return SCA_OK;
}

static sca_status read_merge(reader *r, uint32_t rank, const json_t *item)
{
    char where[400];
    snprintf(where, sizeof where, "%.300s: merge %u", r->file, rank);
    if (json_is_string(item))
        return bpe_add_line(r->t, rank, json_string_value(item), json_string_length(item), where);
    const json_t *left = json_array_get(item, 0), *right = json_array_get(item, 1);
    if (json_array_size(item) != 2 || !json_is_string(left) || !json_is_string(right))
        return status_fail(SCA_ERR_FORMAT,
                           "%s: is no pair of texts, expected \"left right\" or [\"left\", \"right\"]", where);
    return bpe_add_merge(r->t, rank, json_string_value(left), json_string_length(left), json_string_value(right),
                         json_string_length(right), where);
}

static sca_status check_model(const reader *r, const json_t *bpe)
{
    const char *type = "BPE", *prefix = "", *suffix = "";
    double dropout = 0;
    if (!json_is_object(bpe))
        return status_fail(SCA_ERR_FORMAT, "%s: 'model' is no object, expected a BPE model", r->file);
    TRY(json_may_text(bpe, "type", r->file, &type));
    if (strcmp(type, "BPE") != 0) return refuse(r, "model", type, "BPE");
    TRY(json_may_text(bpe, "continuing_subword_prefix", r->file, &prefix));
    TRY(json_may_text(bpe, "end_of_word_suffix", r->file, &suffix));
    if (*prefix) return refuse(r, "continuing_subword_prefix", prefix, "none");
    if (*suffix) return refuse(r, "end_of_word_suffix", suffix, "none");
    TRY(json_may_real(bpe, "dropout", r->file, &dropout));
    if (dropout != 0) return refuse(r, "dropout", "not 0", "none");
    return SCA_OK;
}

static sca_status read_model(reader *r, const json_t *bpe)
{
    tokenizer *t = r->t;
    const char *unknown = NULL;
    const json_t *merges = json_object_get(bpe, "merges");
    TRY(json_may_bool(bpe, "fuse_unk", r->file, &t->fuse_unknown));
    TRY(json_may_bool(bpe, "byte_fallback", r->file, &t->rules.byte_fallback));
    TRY(json_may_bool(bpe, "ignore_merges", r->file, &t->ignore_merges));
    TRY(json_may_text(bpe, "unk_token", r->file, &unknown));
    TRY(tokenizer_read_vocab(t, json_object_get(bpe, "vocab"), r->file));
    if (unknown && *unknown) {
        t->model_unknown = vocab_find(&t->vocab, unknown, strlen(unknown));
        if (t->model_unknown < 0)
            return status_fail(SCA_ERR_FORMAT, "%s: unk_token is '%.80s', expected a token of the vocabulary",
                               r->file, unknown);
    }
    if (!json_is_array(merges))
        return status_fail(SCA_ERR_FORMAT, "%s: 'merges' of the model is no list, expected one", r->file);
    for (size_t i = 0; i < json_array_size(merges); i++) TRY(read_merge(r, (uint32_t)i, json_array_get(merges, i)));
    return SCA_OK;
}

static sca_status read_added(reader *r, const json_t *list)
{
    if (!list || json_is_null(list)) return SCA_OK;
    if (!json_is_array(list))
        return status_fail(SCA_ERR_FORMAT, "%s: 'added_tokens' is no list, expected one", r->file);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        int64_t id = 0;
        if (!json_is_object(item))
            return status_fail(SCA_ERR_FORMAT, "%s: added token %zu is no object, expected one", r->file, i);
        TRY(json_need_int(item, "id", r->file, 0, r->t->vocab.limit - 1, &id));
        TRY(tokenizer_add_json(r->t, id, item, r->file));
    }
    return SCA_OK;
}

static sca_status optional(reader *r, const json_t *root, const char *key, part_fn *fn)
{
    const json_t *part = json_object_get(root, key);
    return part && !json_is_null(part) ? fn(r, part, 0) : SCA_OK;
}

sca_status tokenizer_read_json(tokenizer *t, const json_t *root, const special_names *n, const char *file)
{
    reader r = { t, file, n, false };
    if (!json_is_object(root)) return status_fail(SCA_ERR_FORMAT, "%s: holds no object, expected one", file);
    const json_t *bpe = json_object_get(root, "model"), *added = json_object_get(root, "added_tokens");
    TRY(check_model(&r, bpe));
    t->vocab.limit =
        (int64_t)(json_object_size(json_object_get(bpe, "vocab")) + json_array_size(added)) + special_count(n);
    TRY(optional(&r, root, "normalizer", read_normalizer));
    TRY(optional(&r, root, "pre_tokenizer", read_pre_tokenizer));
    t->decode = DECODE_SPM_FAST;
    t->keeps_first_space = true;
    TRY(optional(&r, root, "decoder", read_decoder));
    t->model = r.byte_level ? MODEL_BPE_BYTES : MODEL_BPE_CHARS;
    if (r.byte_level != (t->decode == DECODE_BYTES))
        return refuse(&r, "decoder", r.byte_level ? "not ByteLevel" : "ByteLevel",
                      "the same kind as the pre_tokenizer");
    TRY(read_model(&r, bpe));
    TRY(read_added(&r, added));
    return optional(&r, root, "post_processor", read_post_processor);
}
