/* tokenizer_special.c - special and added tokens: tokenizer_config.json, special_tokens_map.json,
 * added_tokens.json. */
#include "model/tokenizer_private.h"

#include <string.h>

static sca_status open_object(const tokenizer_source *s, int which, json_t **out, const char **file)
{
    *file = s->names[which];
    if (!s->data[which]) return SCA_OK;
    TRY(json_parse(s->data[which], s->bytes[which], *file, out));
    if (!json_is_object(*out)) return status_fail(SCA_ERR_FORMAT, "%s: holds no object, expected one", *file);
    return SCA_OK;
}

sca_status special_open(const tokenizer_source *s, special_names *out)
{
    *out = (special_names){ .class_name = "" };
    TRY(open_object(s, FILE_CONFIG, &out->config, &out->config_file));
    TRY(open_object(s, FILE_SPECIAL, &out->map, &out->map_file));
    TRY(open_object(s, FILE_ADDED, &out->added, &out->added_file));
    if (!out->config) return SCA_OK;
    return json_may_text(out->config, "tokenizer_class", out->config_file, &out->class_name);
}

void special_close(special_names *n)
{
    json_decref(n->config);
    json_decref(n->map);
    json_decref(n->added);
    *n = (special_names){ .class_name = "" };
}

static const char *const roles[] = { "bos_token", "eos_token", "unk_token", "sep_token",
                                     "pad_token", "cls_token", "mask_token" };
enum { ROLE_BOS, ROLE_EOS, ROLE_UNKNOWN, ROLE_PAD = 4 };

int64_t special_count(const special_names *n)
{
    size_t count = LENGTH(roles) + json_object_size(json_object_get(n->config, "added_tokens_decoder")) +
                   json_object_size(n->added) +
                   json_array_size(json_object_get(n->config, "additional_special_tokens")) +
                   json_array_size(json_object_get(n->map, "additional_special_tokens"));
    return (int64_t)count;
}

int special_prefix_space(const special_names *n)
{
    if (!text_starts(n->class_name, "GPT2Tokenizer")) return -1;
    return json_is_true(json_object_get(n->config, "add_prefix_space"));
}

sca_status tokenizer_add(tokenizer *t, int64_t id, const char *text, size_t bytes, const added_token *how,
                         unsigned flags, const char *file)
{
    if (bytes == 0) return status_fail(SCA_ERR_FORMAT, "%s: an added token is empty, expected a text", file);
    int known = vocab_find(&t->vocab, text, bytes);
    if (id < 0) id = known >= 0 ? known : t->vocab.size;
    if (known != id) TRY(vocab_put(&t->vocab, id, text, bytes, file));
    vocab_token *k = &t->vocab.tokens[id];
    bool again = k->flags & TOKEN_ADDED;
    k->flags = (uint16_t)(k->flags | flags | TOKEN_ADDED);
    if (again) return SCA_OK;
    if ((t->n_added & (t->n_added - 1)) == 0) { /* the room doubles at every power of two */
        size_t room = (size_t)(t->n_added ? 2 * t->n_added : 1) * sizeof *t->added;
        added_token *added = mem_resize(t->added, room);
        if (!added) return mem_fail(room, "added tokens");
        t->added = added;
    }
    t->added[t->n_added] = how ? *how : (added_token){ 0 };
    t->added[t->n_added++].id = (int)id;
    return SCA_OK;
}

/* A token as transformers writes it: its text, or an object with its text and how it is found. */
sca_status tokenizer_add_json(tokenizer *t, int64_t id, const json_t *value, const char *file)
{
    added_token how = { 0 };
    bool special = false;
    const char *text = NULL;
    TRY(json_need_text(value, "content", file, &text));
    TRY(json_may_bool(value, "special", file, &special));
    how.normalized = !special;
    TRY(json_may_bool(value, "lstrip", file, &how.left_strip));
    TRY(json_may_bool(value, "rstrip", file, &how.right_strip));
    TRY(json_may_bool(value, "single_word", file, &how.single_word));
    TRY(json_may_bool(value, "normalized", file, &how.normalized));
    return tokenizer_add(t, id, text, json_string_length(json_object_get(value, "content")), &how,
                         special ? TOKEN_SPECIAL : 0, file);
}

static sca_status add_decoder(tokenizer *t, const special_names *n)
{
    json_t *list = json_object_get(n->config, "added_tokens_decoder"), *value;
    const char *key;
    if (!list || json_is_null(list)) return SCA_OK;
    if (!json_is_object(list))
        return status_fail(SCA_ERR_FORMAT, "%s: 'added_tokens_decoder' is no object, expected {\"ID\": {...}, ...}",
                           n->config_file);
    json_object_foreach(list, key, value)
    {
        int64_t id = 0;
        if (!text_to_int(key, 0, INT32_MAX, &id) || !json_is_object(value))
            return status_fail(SCA_ERR_FORMAT,
                               "%s: 'added_tokens_decoder' holds '%.80s', expected an id with an object",
                               n->config_file, key);
        TRY(tokenizer_add_json(t, id, value, n->config_file));
    }
    return SCA_OK;
}

static sca_status add_plain(tokenizer *t, const special_names *n)
{
    const char *key;
    json_t *value;
    json_object_foreach(n->added, key, value)
    {
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return status_fail(SCA_ERR_FORMAT, "%s: '%.80s' has no id, expected an integer from 0 on",
                               n->added_file, key);
        added_token how = { .normalized = true };
        TRY(tokenizer_add(t, json_integer_value(value), key, strlen(key), &how, 0, n->added_file));
    }
    return SCA_OK;
}

/* What the files say of a role: NULL nothing, a JSON null: there is none. */
static const json_t *role_value(const special_names *n, const char *role, const char **file)
{
    const json_t *first = json_object_get(n->config, role), *second = json_object_get(n->map, role);
    bool config_rules = json_object_get(n->config, "added_tokens_decoder") != NULL;
    *file = n->config_file;
    if (first && !json_is_null(first) && (config_rules || !second || json_is_null(second))) return first;
    if (!second) return first;
    *file = n->map_file;
    return second;
}

static sca_status add_special(tokenizer *t, const json_t *value, unsigned flags, const char *role, const char *file,
                              int *id)
{
    const json_t *content = json_is_object(value) ? json_object_get(value, "content") : value;
    if (!json_is_string(content))
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' is no text, expected the text of a token", file, role);
    const char *text = json_string_value(content);
    size_t bytes = json_string_length(content);
    added_token how = { 0 };
    if (json_is_object(value)) {
        TRY(json_may_bool(value, "lstrip", file, &how.left_strip));
        TRY(json_may_bool(value, "rstrip", file, &how.right_strip));
        TRY(json_may_bool(value, "single_word", file, &how.single_word));
        TRY(json_may_bool(value, "normalized", file, &how.normalized));
    }
    TRY(tokenizer_add(t, -1, text, bytes, &how, flags | TOKEN_SPECIAL, file));
    *id = vocab_find(&t->vocab, text, bytes);
    return SCA_OK;
}

static sca_status add_default(tokenizer *t, const char *text, const char *file, int *id)
{
    *id = vocab_find(&t->vocab, text, strlen(text));
    return *id < 0 ? SCA_OK : tokenizer_add(t, *id, text, strlen(text), NULL, TOKEN_SPECIAL, file);
}

static bool uses_gpt2_defaults(const tokenizer *t, const special_names *n)
{
    return t->model == MODEL_BPE_BYTES && (!*n->class_name || text_starts(n->class_name, "GPT2Tokenizer") ||
                                           text_starts(n->class_name, "CodeGenTokenizer"));
}

static sca_status add_roles(tokenizer *t, const special_names *n)
{
    static const char *const llama[] = { "<s>", "</s>", "<unk>" };
    int ids[LENGTH(roles)];
    for (size_t i = 0; i < LENGTH(roles); i++) {
        const char *file = NULL;
        const json_t *value = role_value(n, roles[i], &file);
        ids[i] = -1;
        if (value && !json_is_null(value)) TRY(add_special(t, value, 0, roles[i], file, &ids[i]));
        if (value || i > ROLE_UNKNOWN) continue;
        if (uses_gpt2_defaults(t, n))
            TRY(add_default(t, "<|endoftext|>", n->config_file, &ids[i]));
        else if (t->model == MODEL_SPM_LIBRARY)
            TRY(add_default(t, llama[i], n->config_file, &ids[i]));
    }
    t->bos = ids[ROLE_BOS];
    t->eos = ids[ROLE_EOS];
    t->unknown = ids[ROLE_UNKNOWN];
    t->pad = ids[ROLE_PAD];
    return SCA_OK;
}

static sca_status add_extra(tokenizer *t, const special_names *n)
{
    static const char role[] = "additional_special_tokens";
    const char *file = NULL;
    const json_t *list = role_value(n, role, &file);
    if (!list || json_is_null(list)) return SCA_OK;
    if (!json_is_array(list))
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' is no list, expected a list of tokens", file, role);
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value)
    {
        int id = -1;
        TRY(add_special(t, value, TOKEN_EXTRA, role, file, &id));
    }
    return SCA_OK;
}

sca_status special_surround(tokenizer *t, const special_names *n)
{
    bool add_bos = t->model == MODEL_SPM_LIBRARY, add_eos = false;
    if (n->config) {
        TRY(json_may_bool(n->config, "add_bos_token", n->config_file, &add_bos));
        TRY(json_may_bool(n->config, "add_eos_token", n->config_file, &add_eos));
    }
    if (t->model != MODEL_SPM_LIBRARY) add_eos = false; /* GPT-2's classes know no such setting */
    if ((add_bos && t->bos < 0) || (add_eos && t->eos < 0))
        return status_fail(SCA_ERR_FORMAT,
                           "%s: asks for %s around texts, but the tokenizer has none; expected its name",
                           n->config_file ? n->config_file : "tokenizer", add_bos && t->bos < 0 ? "BOS" : "EOS");
    if (add_bos) TRY(int_list_put(&t->before, t->bos));
    if (add_eos) TRY(int_list_put(&t->after, t->eos));
    return SCA_OK;
}

sca_status special_apply(tokenizer *t, const special_names *n)
{
    bool library = t->model == MODEL_SPM_LIBRARY;
    t->model_size = t->vocab.size;
    TRY(add_decoder(t, n));
    TRY(add_plain(t, n));
    TRY(add_roles(t, n));
    TRY(add_extra(t, n));
    t->legacy = true;
    t->clean_up = !library && !text_starts(n->class_name, "Llama");
    if (library) t->decode = strcmp(n->class_name, "LlamaTokenizer") == 0 ? DECODE_SPM_SLOW : DECODE_SPM_FAST;
    if (!n->config) return SCA_OK;
    TRY(json_may_bool(n->config, "legacy", n->config_file, &t->legacy));
    TRY(json_may_bool(n->config, "clean_up_tokenization_spaces", n->config_file, &t->clean_up));
    return SCA_OK;
}
