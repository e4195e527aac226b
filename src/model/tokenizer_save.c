/* tokenizer_save.c - the files of a tokenizer, written into a folder: copies of those it was opened from, or, for one
 * from a GGUF file, files that say the same: tokenizer.json (GPT-2's family) or tokenizer.model (SentencePiece). */
#include "model/tokenizer_private.h"

#include <string.h>

typedef struct saver {
    const tokenizer *t;
    const char *dir;
    const char *files[FILE_COUNT + 1]; /* to write; NULL-terminated */
    bool plain;                        /* vocab.json and merges.txt say the same as tokenizer.json */
} saver;

static sca_status write_file(const saver *s, int which, const str *text)
{
    TRY(str_check(text, tokenizer_file_names[which]));
    char *path = path_join(s->dir, tokenizer_file_names[which]);
    if (!path) return mem_fail(strlen(s->dir), "a path");
    sca_status status = file_write(path, str_text(text), text->bytes);
    mem_free(path);
    return status;
}

/* Files of another tokenizer would be taken for this one's. */
static sca_status refuse_foreign(const saver *s)
{
    for (int i = 0; i < FILE_COUNT; i++) {
        bool own = false;
        for (const char *const *name = s->files; *name; name++) own |= strcmp(*name, tokenizer_file_names[i]) == 0;
        char *path = path_join(s->dir, tokenizer_file_names[i]);
        if (!path) return mem_fail(strlen(s->dir), "a path");
        bool foreign = !own && file_exists(path);
        mem_free(path);
        if (foreign)
            return status_fail(
                SCA_ERR_ARGUMENT,
                "%s: the folder already holds %s of another model, expected a new folder or one with "
                "the same kind of tokenizer; choose another folder",
                s->dir, tokenizer_file_names[i]);
    }
    return SCA_OK;
}

static sca_status copy_files(const saver *s)
{
    for (const char *const *name = s->files; *name; name++) {
        char *old = path_join(s->t->dir, *name), *new = path_join(s->dir, *name), *data = NULL;
        size_t bytes;
        sca_status status = old && new ? SCA_OK : mem_fail(strlen(s->dir), "a path");
        if (status == SCA_OK) status = file_read(old, TOKENIZER_FILE_MOST, &data, &bytes);
        if (status == SCA_OK) status = file_write(new, data, bytes);
        mem_free(data);
        mem_free(old);
        mem_free(new);
        TRY(status);
    }
    return SCA_OK;
}

/* ---- small pieces of JSON ----------------------------------------------------------------------------- */

static unsigned flags_of(const tokenizer *t, int id) { return t->vocab.tokens[id].flags; }

static void put_token(str *s, const tokenizer *t, int id)
{
    json_put_text(s, vocab_text(&t->vocab, id), t->vocab.tokens[id].bytes);
}

/* A token that is empty cannot be named, nor found in a text. */
static bool named(const tokenizer *t, int id) { return id >= 0 && t->vocab.tokens[id].bytes > 0; }

/* How an added token is found, behind its text. */
static void put_how(str *s, const tokenizer *t, const added_token *a)
{
    static const char *const word[] = { "false", "true" };
    str_printf(s, ", \"lstrip\": %s, \"normalized\": %s, \"rstrip\": %s, \"single_word\": %s, \"special\": %s}",
               word[a->left_strip], word[a->normalized], word[a->right_strip], word[a->single_word],
               word[(flags_of(t, a->id) & TOKEN_SPECIAL) != 0]);
}

typedef struct role {
    const char *name;
    int id;
} role;
enum { ROLES = 4 };

static void roles_of(const tokenizer *t, role out[ROLES])
{
    const role all[ROLES] = {
        { "bos_token", t->bos }, { "eos_token", t->eos }, { "pad_token", t->pad }, { "unk_token", t->unknown }
    };
    memcpy(out, all, sizeof all);
}

/* Special tokens without a role: the slow classes leave out only what they find in a list. */
static void put_extra(str *s, const tokenizer *t)
{
    bool any = false;
    str_put(s, "  \"additional_special_tokens\": [");
    for (int i = 0; i < t->n_added; i++) {
        int id = t->added[i].id;
        bool has_role = id == t->bos || id == t->eos || id == t->pad || id == t->unknown;
        if (has_role || !(flags_of(t, id) & TOKEN_SPECIAL)) continue;
        if (any) str_put(s, ", ");
        put_token(s, t, id);
        any = true;
    }
    str_put(s, "]");
}

/* ---- tokenizer_config.json, special_tokens_map.json --------------------------------------------------- */

/* SentencePiece finds its user-defined tokens itself; cut out beforehand, they would tear the text apart. */
static bool listed(const tokenizer *t, const added_token *a)
{
    return t->model != MODEL_SPM_SCORES || flags_of(t, a->id) & TOKEN_SPECIAL;
}

static void put_added_decoder(str *s, const tokenizer *t)
{
    bool any = false;
    str_put(s, "  \"added_tokens_decoder\": {");
    for (int i = 0; i < t->n_added; i++) {
        if (!listed(t, &t->added[i])) continue;
        str_printf(s, "%s\n    \"%d\": {\"content\": ", any ? "," : "", t->added[i].id);
        put_token(s, t, t->added[i].id);
        put_how(s, t, &t->added[i]);
        any = true;
    }
    str_put(s, any ? "\n  },\n" : "},\n");
}

/* Roles that nothing has are null: their classes would take a token of their own choice. */
static sca_status save_config(const saver *s)
{
    const tokenizer *t = s->t;
    bool llama = t->model == MODEL_SPM_SCORES, bos = t->before.n > 0;
    str text = { 0 };
    role roles[ROLES];
    roles_of(t, roles);
    str_printf(&text, "{\n  \"add_bos_token\": %s,\n", bos ? "true" : "false");
    str_put(&text,
            llama ? "  \"add_eos_token\": false,\n  \"legacy\": true,\n" : "  \"add_prefix_space\": false,\n");
    put_added_decoder(&text, t);
    put_extra(&text, t);
    str_printf(&text, ",\n  \"clean_up_tokenization_spaces\": %s,\n", t->clean_up ? "true" : "false");
    for (int i = 0; i < ROLES; i++) {
        str_printf(&text, "  \"%s\": ", roles[i].name);
        if (named(t, roles[i].id))
            put_token(&text, t, roles[i].id);
        else
            str_put(&text, "null");
        str_put(&text, ",\n");
    }
    /* GPT-2's own fast class refuses to put a BOS token in front. */
    const char *class = llama              ? "LlamaTokenizerFast"
                        : s->plain && !bos ? "GPT2Tokenizer"
                                           : "PreTrainedTokenizerFast";
    str_printf(&text, "  \"tokenizer_class\": \"%s\"\n}\n", class);
    sca_status status = write_file(s, FILE_CONFIG, &text);
    str_free(&text);
    return status;
}

static sca_status save_special(const saver *s)
{
    const tokenizer *t = s->t;
    str text = { 0 };
    role roles[ROLES];
    roles_of(t, roles);
    str_put(&text, "{\n");
    put_extra(&text, t);
    for (int i = 0; i < ROLES; i++) {
        if (!named(t, roles[i].id)) continue;
        str_printf(&text, ",\n  \"%s\": ", roles[i].name);
        put_token(&text, t, roles[i].id);
    }
    str_put(&text, "\n}\n");
    sca_status status = write_file(s, FILE_SPECIAL, &text);
    str_free(&text);
    return status;
}

/* ---- byte-level BPE ----------------------------------------------------------------------------------- */

typedef struct ranked {
    uint32_t rank;
    int left, right;
} ranked;

static int by_rank(const void *a, const void *b)
{
    uint32_t x = ((const ranked *)a)->rank, y = ((const ranked *)b)->rank;
    return x < y ? -1 : x > y;
}

static sca_status merges_in_order(const tokenizer *t, ranked **out)
{
    size_t n = 0;
    *out = mem_zero(t->merges.used + 1, sizeof **out);
    if (!*out) return mem_fail(t->merges.used * sizeof **out, "the merges of a tokenizer");
    for (size_t i = 0; i < t->merges.n_slots; i++) {
        const pair_slot *s = &t->merges.slots[i];
        if (s->key == UINT64_MAX) continue;
        (*out)[n++] = (ranked){ s->rank, (int)(s->key >> 32), (int)(s->key & UINT32_MAX) };
    }
    qsort(*out, n, sizeof **out, by_rank);
    return SCA_OK;
}

static void put_vocab(str *s, const tokenizer *t, const char *indent)
{
    str_put(s, "{");
    for (int id = 0; id < t->vocab.size; id++) {
        str_printf(s, "%s\n%s", id ? "," : "", indent);
        put_token(s, t, id);
        str_printf(s, ": %d", id);
    }
}

static void put_added_tokens(str *s, const tokenizer *t)
{
    str_put(s, "  \"added_tokens\": [");
    for (int i = 0; i < t->n_added; i++) {
        str_printf(s, "%s\n    {\"id\": %d, \"content\": ", i ? "," : "", t->added[i].id);
        put_token(s, t, t->added[i].id);
        put_how(s, t, &t->added[i]);
    }
    str_put(s, t->n_added ? "\n  ],\n" : "],\n");
}

#define BYTE_LEVEL(prefix, trim, regex)                                                                            \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": " prefix ", \"trim_offsets\": " trim                          \
    ", \"use_regex\": " regex "}"

static void put_pre_tokenizer(str *s, const tokenizer *t)
{
    bool gpt2 = strcmp(t->split_pattern, PATTERN_GPT2) == 0;
    str_put(s, "  \"pre_tokenizer\": ");
    if (!gpt2 || t->split_digits) str_put(s, "{\"type\": \"Sequence\", \"pretokenizers\": [");
    if (t->split_digits) str_put(s, "{\"type\": \"Digits\", \"individual_digits\": true}, ");
    if (gpt2) {
        str_put(s, BYTE_LEVEL("false", "true", "true"));
    } else {
        str_put(s, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        json_put_text(s, t->split_pattern, strlen(t->split_pattern));
        str_put(s, "}, \"behavior\": \"Isolated\", \"invert\": false}, " BYTE_LEVEL("false", "true", "false"));
    }
    str_put(s, !gpt2 || t->split_digits ? "]},\n" : ",\n");
}

static void put_post_processor(str *s, const tokenizer *t)
{
    str_put(s, "  \"post_processor\": ");
    if (t->before.n == 0) {
        str_put(s, BYTE_LEVEL("true", "false", "true") ",\n");
        return;
    }
    str bos = { 0 };
    put_token(&bos, t, t->bos);
    const char *b = str_text(&bos);
    str_put(s, "{\"type\": \"Sequence\", \"processors\": [" BYTE_LEVEL("true", "false", "true"));
    str_printf(
        s, ", {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": %s, \"type_id\": 0}}, ",
        b);
    str_put(s, "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [");
    str_printf(
        s, "{\"SpecialToken\": {\"id\": %s, \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}, ",
        b);
    str_printf(
        s, "{\"SpecialToken\": {\"id\": %s, \"type_id\": 1}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}], ",
        b);
    str_printf(s, "\"special_tokens\": {%s: {\"id\": %s, \"ids\": [%d], \"tokens\": [%s]}}}]},\n", b, b, t->bos, b);
    s->failed |= bos.failed;
    str_free(&bos);
}

static sca_status save_json(const saver *s, const ranked *merges)
{
    const tokenizer *t = s->t;
    str text = { 0 };
    str_put(&text, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    put_added_tokens(&text, t);
    str_put(&text, "  \"normalizer\": null,\n");
    put_pre_tokenizer(&text, t);
    put_post_processor(&text, t);
    str_put(&text, "  \"decoder\": " BYTE_LEVEL("true", "true", "true") ",\n");
    str_put(&text, "  \"model\": {\n    \"type\": \"BPE\",\n    \"dropout\": null,\n    \"unk_token\": null,\n"
                   "    \"continuing_subword_prefix\": null,\n    \"end_of_word_suffix\": null,\n"
                   "    \"fuse_unk\": false,\n    \"byte_fallback\": false,\n");
    if (t->ignore_merges) str_put(&text, "    \"ignore_merges\": true,\n"); /* older readers know no such key */
    str_put(&text, "    \"vocab\": ");
    put_vocab(&text, t, "      ");
    str_put(&text, "\n    },\n    \"merges\": [");
    for (size_t i = 0; i < t->merges.used; i++) {
        str line = { 0 };
        str_printf(&line, "%s %s", vocab_text(&t->vocab, merges[i].left), vocab_text(&t->vocab, merges[i].right));
        str_put(&text, i ? ",\n      " : "\n      ");
        json_put_text(&text, str_text(&line), line.bytes);
        text.failed |= line.failed;
        str_free(&line);
    }
    str_put(&text, t->merges.used ? "\n    ]\n  }\n}\n" : "]\n  }\n}\n");
    sca_status status = write_file(s, FILE_JSON, &text);
    str_free(&text);
    return status;
}

static sca_status save_plain(const saver *s, const ranked *merges)
{
    const vocab *v = &s->t->vocab;
    str text = { 0 };
    put_vocab(&text, s->t, "  ");
    str_put(&text, "\n}\n");
    sca_status status = write_file(s, FILE_VOCAB, &text);
    str_clear(&text);
    str_put(&text, "#version: 0.2\n");
    for (size_t i = 0; i < s->t->merges.used; i++)
        str_printf(&text, "%s %s\n", vocab_text(v, merges[i].left), vocab_text(v, merges[i].right));
    if (status == SCA_OK) status = write_file(s, FILE_MERGES, &text);
    str_free(&text);
    return status;
}

static sca_status save_bpe(const saver *s)
{
    ranked *merges = NULL;
    sca_status status = merges_in_order(s->t, &merges);
    if (status == SCA_OK) status = save_json(s, merges);
    if (status == SCA_OK && s->plain) status = save_plain(s, merges);
    mem_free(merges);
    if (status == SCA_OK) status = save_special(s);
    return status == SCA_OK ? save_config(s) : status;
}

/* ---- SentencePiece: a protocol buffer ----------------------------------------------------------------- */

enum { WIRE_INTEGER, WIRE_BYTES = 2, WIRE_WORD = 5 };

static void put_varint(str *s, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) str_putc(s, (char)(value | 0x80));
    str_putc(s, (char)value);
}

static void put_tag(str *s, unsigned field, unsigned wire) { put_varint(s, field << 3 | wire); }

static void put_integer(str *s, unsigned field, int64_t value)
{
    put_tag(s, field, WIRE_INTEGER);
    put_varint(s, (uint64_t)value); /* -1 takes ten bytes, as the format has it */
}

static void put_bytes(str *s, unsigned field, const void *data, size_t bytes)
{
    put_tag(s, field, WIRE_BYTES);
    put_varint(s, bytes);
    str_put_bytes(s, data, bytes);
}

static void put_message(str *s, unsigned field, str *message)
{
    put_bytes(s, field, str_text(message), message->bytes);
    s->failed |= message->failed;
    str_free(message);
}

static void put_piece(str *s, const tokenizer *t, int id)
{
    const vocab_token *k = &t->vocab.tokens[id];
    int type = k->flags & TOKEN_UNKNOWN   ? 2
               : k->flags & TOKEN_CONTROL ? 3
               : k->flags & TOKEN_USER    ? 4
               : k->flags & TOKEN_UNUSED  ? 5
               : k->flags & TOKEN_BYTE    ? 6
                                          : 1;
    uint32_t bits;
    str piece = { 0 };
    memcpy(&bits, &k->score, sizeof bits);
    put_bytes(&piece, 1, vocab_text(&t->vocab, id), k->bytes);
    put_tag(&piece, 2, WIRE_WORD);
    for (int i = 0; i < 4; i++) str_putc(&piece, (char)(bits >> 8 * i));
    if (type != 1) put_integer(&piece, 3, type);
    put_message(s, 1, &piece);
}

static void put_trainer(str *s, const tokenizer *t)
{
    const struct {
        unsigned id_field, name_field;
        int id;
    } roles[] = { { 40, 45, t->model_unknown }, { 41, 46, t->bos }, { 42, 47, t->eos }, { 43, 48, t->pad } };
    str spec = { 0 };
    put_integer(&spec, 3, 2); /* model_type: BPE */
    put_integer(&spec, 4, t->vocab.size);
    put_integer(&spec, 35, t->rules.byte_fallback);
    for (size_t i = 0; i < LENGTH(roles); i++) put_integer(&spec, roles[i].id_field, roles[i].id);
    for (size_t i = 0; i < LENGTH(roles); i++)
        if (roles[i].id >= 0)
            put_bytes(&spec, roles[i].name_field, vocab_text(&t->vocab, roles[i].id),
                      t->vocab.tokens[roles[i].id].bytes);
    put_message(s, 2, &spec);
}

static void put_normalizer(str *s, const tokenizer *t)
{
    static const char name[] = "identity";
    str spec = { 0 };
    put_bytes(&spec, 1, name, sizeof name - 1);
    put_integer(&spec, 3, t->rules.dummy_prefix);
    put_integer(&spec, 4, t->rules.remove_extra_spaces);
    put_integer(&spec, 5, 1); /* escape_whitespaces */
    put_message(s, 3, &spec);
}

static sca_status save_spm(const saver *s)
{
    str text = { 0 };
    for (int id = 0; id < s->t->vocab.size; id++) put_piece(&text, s->t, id);
    put_trainer(&text, s->t);
    put_normalizer(&text, s->t);
    sca_status status = write_file(s, FILE_MODEL, &text);
    str_free(&text);
    return status == SCA_OK ? save_config(s) : status;
}

/* ---- what can be said --------------------------------------------------------------------------------- */

static sca_status check_tokens(const tokenizer *t, const char *dir)
{
    bool pieces = t->model == MODEL_SPM_SCORES;
    for (int id = 0; id < t->vocab.size; id++) {
        const vocab_token *k = &t->vocab.tokens[id];
        bool deep = pieces && k->flags & (TOKEN_USER | TOKEN_UNUSED) && k->bytes > SPM_DEEP_PIECE_MOST;
        bool zero = memchr(vocab_text(&t->vocab, id), 0, k->bytes) != NULL;
        if (zero || deep || (pieces && k->bytes == 0))
            return status_fail(
                SCA_ERR_UNSUPPORTED,
                "%s: token %d of the GGUF file is %s, which no tokenizer file can hold; name a folder "
                "with model.tokenizer, or export a single .safetensors file",
                dir, id,
                zero   ? "a text with a 0 byte"
                : deep ? "too long"
                       : "empty");
    }
    return SCA_OK;
}

/* Lines of merges.txt end at any of these. */
static bool fits_lines(const tokenizer *t)
{
    for (size_t i = 0; i < t->merges.n_slots; i++) {
        const pair_slot *s = &t->merges.slots[i];
        if (s->key == UINT64_MAX) continue;
        if (strpbrk(vocab_text(&t->vocab, (int)s->id), "\r\n")) return false;
    }
    return true;
}

static void choose_files(saver *s)
{
    const tokenizer *t = s->t;
    int n = 0;
    if (t->dir) {
        for (; t->files[n]; n++) s->files[n] = t->files[n];
        return;
    }
    if (t->model == MODEL_SPM_SCORES) {
        s->files[n++] = tokenizer_file_names[FILE_MODEL];
    } else {
        s->plain = strcmp(t->split_pattern, PATTERN_GPT2) == 0 && !t->split_digits && fits_lines(t);
        s->files[n++] = tokenizer_file_names[FILE_JSON];
        if (s->plain) s->files[n++] = tokenizer_file_names[FILE_VOCAB];
        if (s->plain) s->files[n++] = tokenizer_file_names[FILE_MERGES];
        s->files[n++] = tokenizer_file_names[FILE_SPECIAL];
    }
    s->files[n++] = tokenizer_file_names[FILE_CONFIG];
}

sca_status tokenizer_save(const tokenizer *t, const char *dir)
{
    saver s = { .t = t, .dir = dir };
    if (!t->dir && t->model != MODEL_SPM_SCORES && !t->split_pattern)
        return status_fail(SCA_ERR_STATE, "%s: the tokenizer was built from memory and has no files", dir);
    choose_files(&s);
    TRY(refuse_foreign(&s));
    if (t->dir) return copy_files(&s);
    TRY(check_tokens(t, dir));
    return t->model == MODEL_SPM_SCORES ? save_spm(&s) : save_bpe(&s);
}
