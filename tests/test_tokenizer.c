/* test_tokenizer.c - tokenizers against what the official classes give, and against files that lie. */
#include "check.h"
#include "model/tokenizer_private.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define HERE SCA_SOURCE "/tests/golden/tokenizer/"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- golden cases
 * ------------------------------------------------------------------------------------------------ */

static bool same_ids(const json_t *expected, const int *ids, int n)
{
    if (json_array_size(expected) != (size_t)n) return false;
    for (int i = 0; i < n; i++)
        if (json_integer_value(json_array_get(expected, (size_t)i)) != ids[i]) return false;
    return true;
}

static void show_ids(const int *ids, int n)
{
    for (int i = 0; i < n && i < 40; i++) fprintf(stderr, " %d", ids[i]);
    fputc('\n', stderr);
}

static void check_ids(const tokenizer *t, const json_t *item, const char *key, bool train)
{
    const json_t *text = json_object_get(item, "text"), *expected = json_object_get(item, key);
    int *ids = NULL, n = 0;
    if (!expected) return;
    CHECK_OK(tokenizer_encode(t, json_string_value(text), json_string_length(text), train, &ids, &n));
    if (!CHECKF(same_ids(expected, ids, n), "%s of '%s' differ", key, json_string_value(text))) show_ids(ids, n);
    mem_free(ids);
}

/* Expected text as the library hands it over: a 0 becomes U+FFFD. */
static char *expected_text(const json_t *value)
{
    str s = { 0 };
    for (size_t i = 0; i < json_string_length(value); i++) {
        char c = json_string_value(value)[i];
        if (c)
            str_putc(&s, c);
        else
            str_put(&s, REPLACEMENT);
    }
    char *text = NULL;
    if (str_take(&s, &text) != SCA_OK) abort();
    return text;
}

static void check_text(const tokenizer *t, const json_t *item, const char *key, bool with_special)
{
    const json_t *list = json_object_get(item, "ids"), *expected = json_object_get(item, key);
    int n = (int)json_array_size(list);
    if (!expected) return;
    int *ids = mem_alloc((size_t)n * sizeof *ids + 1);
    for (int i = 0; i < n; i++) ids[i] = (int)json_integer_value(json_array_get(list, (size_t)i));
    char *text = NULL, *right = expected_text(expected);
    CHECK_OK(tokenizer_decode(t, ids, n, with_special, &text));
    if (text) {
        CHECKF(strcmp(text, right) == 0, "%s is '%s', expected '%s'", key, text, right);
        CHECK(utf8_valid(text, strlen(text)));
    }
    mem_free(text);
    mem_free(right);
    mem_free(ids);
}

static json_t *open_json(const char *path)
{
    json_t *root = NULL;
    CHECK_OK(json_open(path, &root));
    return root;
}

/* Golden files of tiny models. */
static void check_golden(const tokenizer *t, const char *path, bool decodes)
{
    json_t *root = open_json(path), *strings = json_object_get(root, "strings"), *random;
    random = json_object_get(root, "random_ids");
    CHECK(json_array_size(strings) == 200);
    for (size_t i = 0; i < json_array_size(strings); i++) {
        const json_t *item = json_array_get(strings, i);
        check_ids(t, item, "ids", false);
        check_ids(t, item, "train_ids", true);
        if (!decodes) continue;
        check_text(t, item, "decoded", false);
        check_text(t, item, "decoded_with_special", true);
    }
    for (size_t i = 0; decodes && i < json_array_size(random); i++)
        check_text(t, json_array_get(random, i), "decoded", false);
    if (root) CHECK(tokenizer_eos(t) == json_integer_value(json_object_get(root, "eos")));
    if (root) CHECK(tokenizer_bos(t) == json_integer_value(json_object_get(root, "bos")));
    json_decref(root);
}

static tokenizer *opened(const char *dir)
{
    tokenizer *t = NULL;
    CHECK_OK(tokenizer_open(dir, &t));
    return t;
}

static void golden_dir(const char *name, int size)
{
    char dir[1000], cases[1100];
    snprintf(dir, sizeof dir, HERE "%s", name);
    snprintf(cases, sizeof cases, "%s/cases.json", dir);
    tokenizer *t = opened(dir);
    if (!t) return;
    CHECK(tokenizer_size(t) == size);
    CHECK(strcmp(tokenizer_dir(t), dir) == 0);
    check_golden(t, cases, true);
    tokenizer_close(t);
}

static void golden_gpt2_tiny(void) { golden_dir("gpt2-tiny", 700); }
static void golden_llama_tiny(void) { golden_dir("llama-tiny", 600); }
static void golden_spm_nfkc(void) { golden_dir("spm-nfkc", 520); }

/* The files of a golden directory, chosen by a mask of bits 1 << FILE_*, in memory. */
static tokenizer_source loaded(const char *name, unsigned mask)
{
    tokenizer_source s = { 0 };
    for (int i = 0; i < FILE_COUNT; i++) {
        char path[1000], *data = NULL;
        snprintf(path, sizeof path, HERE "%s/%s", name, tokenizer_file_names[i]);
        s.names[i] = (char *)tokenizer_file_names[i];
        if (!(mask >> i & 1) || !file_exists(path)) continue;
        CHECK_OK(file_read(path, TOKENIZER_FILE_MOST, &data, &s.bytes[i]));
        s.data[i] = data;
    }
    return s;
}

static void unload(tokenizer_source *s)
{
    for (int i = 0; i < FILE_COUNT; i++) mem_free((char *)s->data[i]);
}

#define SMALL_FILES (1u << FILE_SPECIAL | 1u << FILE_CONFIG)

static void plain_files_give_the_same(void)
{
    static const unsigned masks[] = { 1u << FILE_VOCAB | 1u << FILE_MERGES | SMALL_FILES,
                                      1u << FILE_VOCAB | 1u << FILE_MERGES, 1u << FILE_JSON,
                                      1u << FILE_JSON | SMALL_FILES };
    for (size_t i = 0; i < LENGTH(masks); i++) {
        tokenizer_source s = loaded("gpt2-tiny", masks[i]);
        tokenizer *t = NULL;
        CHECK_OK(tokenizer_build(&s, &t));
        if (t) check_golden(t, HERE "gpt2-tiny/cases.json", true);
        tokenizer_close(t);
        unload(&s);
    }
}

/* ---- real vocabularies
 * --------------------------------------------------------------------------------------------- */

static void check_real(const tokenizer *t, const char *path, bool decodes)
{
    json_t *root = open_json(path), *cases = json_object_get(root, "cases");
    CHECK(json_array_size(cases) == 410);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        const json_t *item = json_array_get(cases, i);
        check_ids(t, item, "ids", false);
        if (!decodes) continue;
        check_text(t, item, "decoded", true);
        check_text(t, item, "decoded_clean", false);
    }
    json_decref(root);
}

static bool shared_absent(void)
{
    if (dir_exists(SCA_SHARED "/golden/tokenizers")) return false;
    check_skip("shared: the folder is absent");
    return true;
}

static void real_gpt2(void)
{
    if (shared_absent()) return;
    double start = seconds();
    tokenizer *t = opened(SCA_SHARED "/golden/tokenizers/gpt2");
    if (!t) return;
    printf("opening GPT-2's vocabulary: %.0f ms\n", 1e3 * (seconds() - start));
    CHECK(tokenizer_size(t) == 50257 && tokenizer_eos(t) == 50256);
    const char *const *files = tokenizer_files(t);
    CHECK(strcmp(files[0], "vocab.json") == 0 && strcmp(files[1], "merges.txt") == 0 && !files[2]);
    check_real(t, SCA_SHARED "/golden/tokenizers/gpt2/cases.json", true);
    tokenizer_close(t);
}

static void real_mistral(void)
{
    if (shared_absent()) return;
    tokenizer *t = opened(SCA_SHARED "/golden/tokenizers/mistral");
    if (!t) return;
    CHECK(tokenizer_size(t) == 32000);
    check_real(t, SCA_SHARED "/golden/tokenizers/mistral/cases.json", true);
    tokenizer_close(t);
}

static void models_of_the_shared_folder_open(void)
{
    static const char *const names[] = { "models/gpt2-tiny-fresh",   "models/gpt2-wide",
                                         "models/llama-tiny-fresh",  "models/parts/gpt2-lm",
                                         "models/parts/gpt2-lm-hub", "models/parts/open_llama-lm" };
    if (shared_absent()) return;
    for (size_t i = 0; i < LENGTH(names); i++) {
        char dir[1000];
        snprintf(dir, sizeof dir, SCA_SHARED "/golden/%s", names[i]);
        tokenizer *t = opened(dir);
        bool llama = strstr(names[i], "llama") != NULL;
        if (t) check_golden(t, llama ? HERE "llama-tiny/cases.json" : HERE "gpt2-tiny/cases.json", true);
        tokenizer_close(t);
    }
}

/* ---- GGUF
 * ------------------------------------------------------------------------------------------------------------- */

typedef struct description { /* of an opened tokenizer, as a GGUF file would give it */
    tokenizer_gguf g;
    const char **tokens;
    size_t *bytes;
    float *scores;
    int32_t *types;
    char **merges;
} description;

static int32_t type_of_flags(unsigned flags)
{
    return flags & TOKEN_UNKNOWN   ? 2
           : flags & TOKEN_CONTROL ? 3
           : flags & TOKEN_USER    ? 4
           : flags & TOKEN_BYTE    ? 6
                                   : 1;
}

static description describe(const tokenizer *t, const char *kind, const char *pre)
{
    size_t n = (size_t)tokenizer_size(t);
    description d = { .tokens = mem_zero(n, sizeof *d.tokens),
                      .bytes = mem_zero(n, sizeof *d.bytes),
                      .scores = mem_zero(n, sizeof *d.scores),
                      .types = mem_zero(n, sizeof *d.types) };
    for (size_t i = 0; i < n; i++) {
        const vocab_token *k = &t->vocab.tokens[i];
        d.tokens[i] = vocab_text(&t->vocab, (int)i);
        d.bytes[i] = k->bytes;
        d.scores[i] = k->score;
        d.types[i] = type_of_flags(k->flags);
        if (strcmp(kind, "gpt2") == 0 && k->flags & TOKEN_SPECIAL) d.types[i] = 3;
    }
    d.g = (tokenizer_gguf){ .model = kind,
                            .pre = pre,
                            .tokens = d.tokens,
                            .token_bytes = d.bytes,
                            .scores = d.scores,
                            .types = d.types,
                            .n_tokens = n,
                            .bos = tokenizer_bos(t),
                            .eos = tokenizer_eos(t),
                            .unknown = t->unknown,
                            .pad = -1,
                            .add_bos = -1,
                            .name = "test.gguf" };
    return d;
}

/* The merges of a vocabulary in the order of their ranks. */
static void describe_merges(const tokenizer *t, description *d)
{
    size_t n = t->merges.used;
    d->merges = mem_zero(n, sizeof *d->merges);
    for (size_t i = 0; i < t->merges.n_slots; i++) {
        const pair_slot *s = &t->merges.slots[i];
        if (s->key == UINT64_MAX) continue;
        str line = { 0 };
        str_printf(&line, "%s %s", vocab_text(&t->vocab, (int)(s->key >> 32)),
                   vocab_text(&t->vocab, (int)(s->key & 0xffffffff)));
        CHECK_OK(str_take(&line, &d->merges[s->rank]));
    }
    d->g.merges = (const char *const *)d->merges;
    d->g.n_merges = n;
}

static void forget(description *d)
{
    for (size_t i = 0; i < d->g.n_merges; i++) mem_free(d->merges[i]);
    mem_free(d->merges);
    mem_free((void *)d->tokens);
    mem_free(d->bytes);
    mem_free(d->scores);
    mem_free(d->types);
}

static void gguf_llama(const char *dir, const char *cases, bool real)
{
    tokenizer *t = opened(dir), *g = NULL;
    if (!t) return;
    description d = describe(t, "llama", "");
    CHECK_OK(tokenizer_from_gguf(&d.g, &g));
    forget(&d);
    if (g && real)
        check_real(g, cases, true);
    else if (g)
        check_golden(g, cases, false);
    if (g) CHECK(tokenizer_dir(g) == NULL && tokenizer_files(g)[0] == NULL);
    tokenizer_close(g);
    tokenizer_close(t);
}

static void gguf_scores_equal_the_library(void)
{
    gguf_llama(HERE "llama-tiny", HERE "llama-tiny/cases.json", false);
    if (shared_absent()) return;
    gguf_llama(SCA_SHARED "/golden/tokenizers/mistral", SCA_SHARED "/golden/tokenizers/mistral/cases.json", true);
}

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u, *state >> 8; }

/* Bytes that look like text now and then, as many different ways to be wrong as there are. */
static size_t random_text(uint32_t *state, char *text, size_t most)
{
    static const char *const parts[] = {
        " ",   "  ",   "the", " dog",          "'s",        "\xc3\xa9",     "\xe2\x96\x81", "\xf0\x9f\x98\x80",
        "12",  "</s>", "\n",  "<|endoftext|>", "e\xcc\x81", "\xe4\xb8\xad", "<0x0A>",       "a",
        "ing", ".",    "\t"
    };
    size_t n = 0, goal = next_random(state) % most;
    while (n + 16 < goal) {
        const char *part = parts[next_random(state) % LENGTH(parts)];
        memcpy(text + n, part, strlen(part));
        n += strlen(part);
    }
    return n;
}

static void same_on_random(const tokenizer *a, const tokenizer *b, int texts)
{
    uint32_t state = 7;
    char text[4000];
    for (int i = 0; i < texts; i++) {
        size_t bytes = random_text(&state, text, i % 10 ? 120 : sizeof text);
        int *x = NULL, *y = NULL, n = 0, m = 0;
        CHECK_OK(tokenizer_encode(a, text, bytes, false, &x, &n));
        CHECK_OK(tokenizer_encode(b, text, bytes, false, &y, &m));
        if (!CHECKF(n == m && (n == 0 || memcmp(x, y, (size_t)n * sizeof *x) == 0), "'%.*s' differs", (int)bytes,
                    text)) {
            show_ids(x, n);
            show_ids(y, m);
        }
        mem_free(x);
        mem_free(y);
    }
}

static void gguf_scores_on_random_text(void)
{
    tokenizer *t = opened(HERE "llama-tiny"), *g = NULL;
    if (!t) return;
    description d = describe(t, "llama", "");
    CHECK_OK(tokenizer_from_gguf(&d.g, &g));
    forget(&d);
    if (g) same_on_random(t, g, 300);
    tokenizer_close(g);
    tokenizer_close(t);
}

static void gguf_gpt2(void)
{
    tokenizer *t = opened(HERE "gpt2-tiny"), *g = NULL;
    if (!t) return;
    description d = describe(t, "gpt2", "gpt-2");
    describe_merges(t, &d);
    CHECK_OK(tokenizer_from_gguf(&d.g, &g));
    if (g) check_golden(g, HERE "gpt2-tiny/cases.json", true);
    if (g) same_on_random(t, g, 100);
    tokenizer_close(g);
    d.g.pre = "bert-bge";
    CHECK_FAILS(tokenizer_from_gguf(&d.g, &g), SCA_ERR_UNSUPPORTED, "bert-bge");
    d.g.pre = "";
    d.g.bos = 700;
    CHECK_FAILS(tokenizer_from_gguf(&d.g, &g), SCA_ERR_FORMAT, "BOS token is 700, expected 0 to 699");
    d.g.bos = -1;
    d.g.add_bos = 1;
    CHECK_FAILS(tokenizer_from_gguf(&d.g, &g), SCA_ERR_FORMAT, "names none");
    d.g.model = "t5";
    CHECK_FAILS(tokenizer_from_gguf(&d.g, &g), SCA_ERR_UNSUPPORTED, "'t5', expected gpt2 or llama");
    d.g.model = "llama";
    d.g.scores = NULL;
    CHECK_FAILS(tokenizer_from_gguf(&d.g, &g), SCA_ERR_FORMAT, "tokenizer.ggml.scores");
    d.g.scores = d.scores;
    d.types[5] = 9;
    CHECK_FAILS(tokenizer_from_gguf(&d.g, &g), SCA_ERR_FORMAT, "token 5 has type 9, expected 1 to 6");
    d.types[5] = 1;
    d.scores[5] = NAN;
    CHECK_FAILS(tokenizer_from_gguf(&d.g, &g), SCA_ERR_FORMAT, "score of token 5");
    d.tokens[6] = d.tokens[4];
    d.scores[5] = 0;
    CHECK_FAILS(tokenizer_from_gguf(&d.g, &g), SCA_ERR_FORMAT, "has the ids 4 and 6");
    forget(&d);
    tokenizer_close(t);
}

/* ---- files that lie
 * ------------------------------------------------------------------------------------------------ */

typedef struct files {
    const char *json, *vocab, *merges, *added, *special, *config;
} files;

static sca_status build_files(files f, tokenizer **out)
{
    const char *texts[FILE_COUNT] = {
        [FILE_JSON] = f.json,   [FILE_VOCAB] = f.vocab,     [FILE_MERGES] = f.merges,
        [FILE_ADDED] = f.added, [FILE_SPECIAL] = f.special, [FILE_CONFIG] = f.config
    };
    tokenizer_source s = { 0 };
    for (int i = 0; i < FILE_COUNT; i++) {
        s.names[i] = (char *)tokenizer_file_names[i];
        s.data[i] = texts[i];
        s.bytes[i] = texts[i] ? strlen(texts[i]) : 0;
    }
    return tokenizer_build(&s, out);
}

#define VOCAB "{\"a\": 0, \"b\": 1, \"ab\": 2, \"\\u0120\": 3}"
#define REFUSED(part, ...) CHECK_FAILS(build_files((files){ __VA_ARGS__ }, &t), SCA_ERR_FORMAT, part)
#define NOT_SUPPORTED(part, ...) CHECK_FAILS(build_files((files){ __VA_ARGS__ }, &t), SCA_ERR_UNSUPPORTED, part)

static void plain_files_that_lie(void)
{
    tokenizer *t = NULL;
    REFUSED("vocab.json: the vocabulary is no object", .vocab = "[1]", .merges = "");
    REFUSED("vocab.json", .vocab = "{\"a\": 0,", .merges = "");
    REFUSED("'a' has no integer id, expected 0 to", .vocab = "{\"a\": \"0\"}", .merges = "");
    REFUSED("has id 4294967296, expected 0 to", .vocab = "{\"a\": 4294967296}", .merges = "");
    REFUSED("has id -1", .vocab = "{\"a\": -1}", .merges = "");
    REFUSED("id 0 belongs to 'a' and 'b'", .vocab = "{\"a\": 0, \"b\": 0}", .merges = "");
    REFUSED("no token has id 1, expected every id from 0 to 2", .vocab = "{\"a\": 0, \"b\": 2}", .merges = "");
    REFUSED("holds no tokens", .vocab = "{}", .merges = "");
    REFUSED("merges.txt:2: the merge names 'c'", .vocab = VOCAB, .merges = "#version: 0.2\na c\n");
    REFUSED("merges.txt:3: the merge names 'ba'", .vocab = VOCAB, .merges = "#version: 0.2\na b\nb a\n");
    REFUSED("merges.txt:1: the merge is 'ab', expected two", .vocab = VOCAB, .merges = "ab\n");
    REFUSED("merges.txt:1: the merge is 'a b c'", .vocab = VOCAB, .merges = "a b c\n");
    REFUSED("merges.txt:1: the merge is 'a '", .vocab = VOCAB, .merges = "a \n");
    REFUSED("merges.txt: is not UTF-8", .vocab = VOCAB, .merges = "a \xff\n");
    REFUSED("vocab.json", .vocab = "{\"\xff\": 0}", .merges = "");
    REFUSED("tokenizer_config.json: holds no object", .vocab = VOCAB, .merges = "", .config = "[]");
    REFUSED("'tokenizer_class' is 5", .vocab = VOCAB, .merges = "", .config = "{\"tokenizer_class\": 5}");
    REFUSED("special_tokens_map.json: 'eos_token' is no text", .vocab = VOCAB, .merges = "",
            .special = "{\"eos_token\": 5}");
    REFUSED("an added token is empty", .vocab = VOCAB, .merges = "", .special = "{\"eos_token\": \"\"}");
    REFUSED("'additional_special_tokens' is no list", .vocab = VOCAB, .merges = "",
            .special = "{\"additional_special_tokens\": 5}");
    REFUSED("'added_tokens_decoder' holds '-1'", .vocab = VOCAB, .merges = "",
            .config = "{\"added_tokens_decoder\": {\"-1\": {\"content\": \"x\"}}}");
    REFUSED("'x' has id 900", .vocab = VOCAB, .merges = "",
            .config = "{\"added_tokens_decoder\": {\"900\": {\"content\": \"x\"}}}");
    REFUSED("id 1 belongs to 'b' and 'x'", .vocab = VOCAB, .merges = "", .added = "{\"x\": 1}");
    REFUSED("token 'a' has the ids 0 and 4", .vocab = VOCAB, .merges = "", .added = "{\"a\": 4}");
    REFUSED("'x' has no id", .vocab = VOCAB, .merges = "", .added = "{\"x\": null}");
    REFUSED("asks for BOS", .vocab = VOCAB, .merges = "", .config = "{\"add_bos_token\": true}");
    CHECK(t == NULL);
}

#define MODEL "\"model\": {\"type\": \"BPE\", \"vocab\": " VOCAB ", \"merges\": [\"a b\"]}"
#define BYTES                                                                                                      \
    "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, \"decoder\": {\"type\": "          \
    "\"ByteLevel\"}"
#define SPLIT(part)                                                                                                \
    "{" MODEL ", \"decoder\": {\"type\": \"ByteLevel\"}, \"pre_tokenizer\": {\"type\": \"Sequence\", "             \
    "\"pretokenizers\": [" part                                                                                    \
    ", {\"type\": \"ByteLevel\", \"use_regex\": false, \"add_prefix_space\": false}]}}"

static void json_files_that_lie(void)
{
    tokenizer *t = NULL;
    REFUSED("tokenizer.json: holds no object", .json = "5");
    REFUSED("'model' is no object", .json = "{}");
    NOT_SUPPORTED("the model is 'WordPiece', expected BPE", .json = "{\"model\": {\"type\": \"WordPiece\"}}");
    NOT_SUPPORTED("end_of_word_suffix", .json = "{\"model\": {\"end_of_word_suffix\": \"</w>\"}}");
    NOT_SUPPORTED("normalizer is 'Lowercase'",
                  .json = "{" MODEL ", " BYTES ", \"normalizer\": {\"type\": \"Lowercase\"}}");
    NOT_SUPPORTED("pre_tokenizer is 'BertPreTokenizer'", .json = SPLIT("{\"type\": \"BertPreTokenizer\"}"));
    NOT_SUPPORTED(
        "'MergedWithNext', expected Isolated or Removed",
        .json = SPLIT("{\"type\": \"Split\", \"behavior\": \"MergedWithNext\", \"pattern\": {\"Regex\": \"a\"}}"));
    REFUSED("split pattern '(a', expected a regular expression",
            .json = SPLIT("{\"type\": \"Split\", \"behavior\": \"Isolated\", \"pattern\": {\"Regex\": \"(a\"}}"));
    REFUSED("the pre_tokenizer is no object", .json = SPLIT("5"));
    NOT_SUPPORTED("post_processor is 'BertProcessing'",
                  .json = "{" MODEL ", " BYTES ", \"post_processor\": {\"type\": \"BertProcessing\"}}");
    NOT_SUPPORTED("decoder is 'WordPiece'", .json = "{" MODEL ", \"decoder\": {\"type\": \"WordPiece\"}}");
    NOT_SUPPORTED("the decoder is 'ByteLevel'", .json = "{" MODEL ", \"decoder\": {\"type\": \"ByteLevel\"}}");
    REFUSED("merge 0: is no pair", .json = "{\"model\": {\"vocab\": " VOCAB ", \"merges\": [5]}, " BYTES "}");
    REFUSED("merge 1: the merge names 'zz'", .json =
                                                 "{\"model\": {\"vocab\": " VOCAB
                                                 ", \"merges\": [[\"a\", \"b\"], [\"zz\", \"a\"]]}, " BYTES "}");
    REFUSED("'merges' of the model is no list", .json = "{\"model\": {\"vocab\": " VOCAB "}, " BYTES "}");
    REFUSED("unk_token is 'nope'",
            .json = "{\"model\": {\"unk_token\": \"nope\", \"vocab\": " VOCAB ", \"merges\": []}, " BYTES "}");
    REFUSED("'id' is 77", .json = "{" MODEL ", " BYTES ", \"added_tokens\": [{\"id\": 77, \"content\": \"x\"}]}");
    CHECK(t == NULL);
}

static void model_files_that_lie(void)
{
    tokenizer_source s = loaded("llama-tiny", 1u << FILE_MODEL);
    tokenizer *t = NULL;
    size_t whole = s.bytes[FILE_MODEL];
    for (size_t cut = 0; cut < whole; cut += cut < 200 ? 1 : 97) {
        s.bytes[FILE_MODEL] = cut;
        CHECKF(tokenizer_build(&s, &t) != SCA_OK, "%zu of %zu bytes were accepted", cut, whole);
    }
    s.bytes[FILE_MODEL] = whole;
    for (size_t i = 0; i < whole; i += 41) { /* flipped bits: refused or harmless */
        ((char *)s.data[FILE_MODEL])[i] ^= (char)(1 << i % 8);
        if (tokenizer_build(&s, &t) == SCA_OK) tokenizer_close(t);
        ((char *)s.data[FILE_MODEL])[i] ^= (char)(1 << i % 8);
    }
    s.data[FILE_MODEL] = "\x12\x02\x18\x01\x0a\x07\x0a\x05<unk>"; /* a unigram model */
    CHECK_FAILS((s.bytes[FILE_MODEL] = 13, tokenizer_build(&s, &t)), SCA_ERR_UNSUPPORTED,
                "kind unigram, expected BPE");
}

static void damaged_character_map(void)
{
    tokenizer_source s = loaded("spm-nfkc", 1u << FILE_MODEL);
    char *data = (char *)s.data[FILE_MODEL];
    tokenizer *t = NULL;
    uint32_t state = 3;
    for (int i = 0; i < 300; i++) { /* in the map, which takes most of the file */
        size_t at = 10000 + next_random(&state) % (s.bytes[FILE_MODEL] - 12000);
        char old = data[at];
        data[at] = (char)next_random(&state);
        if (tokenizer_build(&s, &t) == SCA_OK) same_on_random(t, t, 2);
        tokenizer_close(t);
        data[at] = old;
    }
    unload(&s);
}

static void folders_without_tokenizers(void)
{
    tokenizer *t = NULL;
    CHECK_FAILS(tokenizer_open(SCA_SOURCE "/tests", &t), SCA_ERR_IO,
                "holds no tokenizer, expected tokenizer.model");
    CHECK_FAILS(tokenizer_open("no/such/folder", &t), SCA_ERR_IO, "no/such/folder");
    CHECK_OK(dir_make(SCA_BUILD "/tokenizer_half"));
    CHECK_OK(file_write(SCA_BUILD "/tokenizer_half/vocab.json", "{}", 2));
    CHECK_FAILS(tokenizer_open(SCA_BUILD "/tokenizer_half", &t), SCA_ERR_IO, "merges.txt: is missing");
}

/* ---- what tokenizer.json can say
 * ---------------------------------------------------------------------------------------- */

static void expect_ids(const tokenizer *t, const char *text, const char *expected)
{
    int *ids = NULL, n = 0;
    str s = { 0 };
    CHECK_OK(tokenizer_encode(t, text, strlen(text), false, &ids, &n));
    for (int i = 0; i < n; i++) str_printf(&s, i ? " %d" : "%d", ids[i]);
    CHECKF(strcmp(str_text(&s), expected) == 0, "'%s' is %s, expected %s", text, str_text(&s), expected);
    str_free(&s);
    mem_free(ids);
}

static void expect_text(const tokenizer *t, const int *ids, int n, bool with_special, const char *expected)
{
    char *text = NULL;
    CHECK_OK(tokenizer_decode(t, ids, n, with_special, &text));
    CHECKF(text && strcmp(text, expected) == 0, "text is '%s', expected '%s'", text ? text : "", expected);
    mem_free(text);
}

static tokenizer *built(files f)
{
    tokenizer *t = NULL;
    CHECK_OK(build_files(f, &t));
    return t;
}

#define LETTERS                                                                                                    \
    "{\"1\": 0, \"2\": 1, \"12\": 2, \"a\": 3, \"\\u0120\": 4, \"\\u0120a\": 5, \"aa\": 6, \"aaaa\": 7, \"[X]\": " \
    "8}"
#define LETTERS_MODEL                                                                                              \
    "\"model\": {\"vocab\": " LETTERS ", \"merges\": [\"1 2\", \"\xc4\xa0 a\", \"a a\", [\"aa\", \"aa\"]]}"
#define AROUND(parts, rest)                                                                                        \
    "{" LETTERS_MODEL ", \"decoder\": {\"type\": \"ByteLevel\"}, \"pre_tokenizer\": " parts rest "}"

static void digits_and_splits(void)
{
    tokenizer *t = built((files){ .json = AROUND("{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", "") });
    if (t) expect_ids(t, "12 a", "2 5");
    tokenizer_close(t);
    t = built((files){
        .json = AROUND(
            "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true},"
            "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}",
            "") });
    if (t) expect_ids(t, "12 a12", "0 1 5 0 1");
    tokenizer_close(t);
    t = built((files){
        .json =
            AROUND("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Isolated\", "
                   "\"invert\": false, \"pattern\": {\"Regex\": \"\\\\s+\"}}, {\"type\": \"ByteLevel\", "
                   "\"add_prefix_space\": false, \"use_regex\": false}]}",
                   "") });
    if (t) expect_ids(t, "12 a", "2 4 3");
    tokenizer_close(t);
    t = built((files){
        .json =
            AROUND("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Removed\", "
                   "\"pattern\": {\"String\": \" \"}}, {\"type\": \"ByteLevel\", "
                   "\"add_prefix_space\": false, \"use_regex\": false}]}",
                   "") });
    if (t) expect_ids(t, "12 a", "2 3");
    tokenizer_close(t);
    t = built((files){ .json = AROUND("{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", "") });
    if (t) expect_ids(t, "a aa", "5 5 3");
    tokenizer_close(t);
}

static void added_tokens_strip_and_stand_alone(void)
{
    tokenizer *t = built((files){
        .json = AROUND(
            "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
            ", \"added_tokens\": [{\"id\": 8, \"content\": \"[X]\", \"lstrip\": true, \"rstrip\": true, "
            "\"special\": true},"
            "{\"id\": 9, \"content\": \"word\", \"single_word\": true}, {\"id\": 10, \"content\": \"[XY]\"}]") });
    if (!t) return;
    expect_ids(t, "a [X] a", "3 8 3");
    expect_ids(t, "a[XY]a", "3 10 3");
    expect_ids(t, "word", "9");
    expect_ids(t, "aword", "3");
    expect_ids(t, "a word.", "3 4 9");
    expect_text(t, (int[]){ 3, 8, 9 }, 3, false, "aword");
    expect_text(t, (int[]){ 3, 8, 9 }, 3, true, "a[X]word");
    tokenizer_close(t);
}

static void templates_surround(void)
{
    tokenizer *t =
        built((files){ .json = AROUND("{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
                                      ", \"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": "
                                      "[{\"SpecialToken\": {\"id\": \"[X]\"}},"
                                      "{\"Sequence\": {\"id\": \"A\"}}, {\"SpecialToken\": {\"id\": \"[X]\"}}], "
                                      "\"special_tokens\": {\"[X]\": {\"id\": \"[X]\", \"ids\": [8]}}}"),
                       .special = "{\"eos_token\": \"[X]\"}" });
    if (!t) return;
    expect_ids(t, "a", "8 3 8");
    int *ids = NULL, n = 0;
    CHECK_OK(tokenizer_encode(t, "1212121212121212121212121212121212121212", 40, true, &ids, &n));
    CHECK(n == 19 && ids[0] == 8 && ids[1] == 2 && ids[16] == 2 && ids[17] == 8 && ids[18] == 8);
    mem_free(ids);
    tokenizer_close(t);
}

/* A LLaMA vocabulary as tokenizer.json has it. */
static void characters_with_byte_fallback(void)
{
    str text = { 0 };
    str_put(
        &text,
        "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", \"prepend\": "
        "\"\xe2\x96\x81\"}, "
        "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"\xe2\x96\x81\"}]}, \"decoder\": "
        "{\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": {\"String\": "
        "\"\xe2\x96\x81\"}, \"content\": \" \"},"
        "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}, {\"type\": \"Strip\", \"content\": \" \", \"start\": "
        "1, \"stop\": 0}]},"
        "\"added_tokens\": [{\"id\": 0, \"content\": \"<unk>\", \"special\": true, \"normalized\": false}], "
        "\"model\": {\"type\": \"BPE\","
        "\"unk_token\": \"<unk>\", \"fuse_unk\": true, \"byte_fallback\": true, \"merges\": [\"\xe2\x96\x81 a\"], "
        "\"vocab\": {\"<unk>\": 0");
    for (int b = 0; b < 256; b++) str_printf(&text, ", \"<0x%02X>\": %d", (unsigned)b, b + 1);
    str_put(&text, ", \"\xe2\x96\x81\": 257, \"a\": 258, \"\xe2\x96\x81"
                   "a\": 259}}}");
    tokenizer *t = built((files){ .json = str_text(&text) });
    str_free(&text);
    if (!t) return;
    expect_ids(t, "a a\xc3\xa9", "259 259 196 170");
    expect_ids(t, "<unk>a", "0 259");
    expect_text(t, (int[]){ 259, 259, 196, 170 }, 4, false, "a a\xc3\xa9");
    expect_text(t, (int[]){ 259, 196, 0 }, 3, true, "a\xef\xbf\xbd<unk>");
    tokenizer_close(t);
}

static void normal_forms(void)
{
    static const struct {
        normal_kind kind;
        const char *from, *to;
    } cases[] = {
        { NORMAL_NFC, "e\xcc\x81", "\xc3\xa9" },
        { NORMAL_NFD, "\xc3\xa9", "e\xcc\x81" },
        { NORMAL_NFC, "a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81" }, /* marks change places */
        { NORMAL_NFD, "a\xcc\x81\xcc\xa3", "a\xcc\xa3\xcc\x81" },
        { NORMAL_NFKC, "\xef\xac\x81\xc2\xbd",
          "fi1\xe2\x81\x84"
          "2" },
        { NORMAL_NFKD, "\xef\xac\x81", "fi" },
        { NORMAL_NFC, "\xe1\x84\x80\xe1\x85\xa1\xe1\x86\xa8", "\xea\xb0\x81" }, /* Hangul */
    };
    str out = { 0 };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        normal_step step = { .kind = cases[i].kind };
        CHECK_OK(normal_apply(&step, 1, cases[i].from, strlen(cases[i].from), &out));
        CHECKF(strcmp(str_text(&out), cases[i].to) == 0, "case %zu is '%s'", i, str_text(&out));
    }
    str marks = { 0 };
    str_putc(&marks, 'a');
    for (int i = 0; i < 100000; i++) str_put(&marks, i % 2 ? "\xcc\x81" : "\xcc\xa3");
    double start = seconds();
    CHECK_OK(normal_apply(&(normal_step){ .kind = NORMAL_NFC }, 1, marks.data, marks.bytes, &out));
    CHECKF(seconds() - start < 5, "100,000 marks took %.1f s", seconds() - start);
    str_free(&marks);
    str_free(&out);
}

/* ---- bytes, ids, limits
 * ------------------------------------------------------------------------------------------------- */

static void broken_text(void)
{
    static const char *const cases[][2] = {
        { "\xff", REPLACEMENT },
        { "\xe2\x82", REPLACEMENT },
        { "\xe2\x82"
          "A",
          REPLACEMENT "A" },
        { "\xe2\x28\xa1", REPLACEMENT "(" REPLACEMENT },
        { "\xf0\x9f\x98", REPLACEMENT },
        { "\xed\xa0\x80", REPLACEMENT REPLACEMENT REPLACEMENT },
        { "\xc0\xaf", REPLACEMENT REPLACEMENT },
        { "\xf0\x80\x80", REPLACEMENT REPLACEMENT REPLACEMENT },
        { "a\x80z", "a" REPLACEMENT "z" },
        { "\xf4\x90\x80\x80", REPLACEMENT REPLACEMENT REPLACEMENT REPLACEMENT },
    };
    tokenizer *t[] = { opened(HERE "gpt2-tiny"), opened(HERE "llama-tiny"), opened(HERE "spm-nfkc") };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        str s = { 0 };
        put_lossy(&s, cases[i][0], strlen(cases[i][0]));
        CHECKF(strcmp(str_text(&s), cases[i][1]) == 0, "case %zu is '%s'", i, str_text(&s));
        str_free(&s);
        for (size_t k = 0; k < LENGTH(t) && t[k]; k++) {
            int *a = NULL, *b = NULL, n = 0, m = 0;
            CHECK_OK(tokenizer_encode(t[k], cases[i][0], strlen(cases[i][0]), false, &a, &n));
            CHECK_OK(tokenizer_encode(t[k], cases[i][1], strlen(cases[i][1]), false, &b, &m));
            CHECK(n == m && memcmp(a, b, (size_t)n * sizeof *a) == 0);
            mem_free(a);
            mem_free(b);
        }
    }
    for (size_t k = 0; k < LENGTH(t); k++) tokenizer_close(t[k]);
}

static void ids_out_of_range(void)
{
    tokenizer *t = opened(HERE "gpt2-tiny");
    char *text = NULL;
    if (!t) return;
    CHECK_FAILS(tokenizer_decode(t, (int[]){ 1, 700 }, 2, true, &text), SCA_ERR_ARGUMENT,
                "token 1 is 700, expected 0 to 699");
    CHECK_FAILS(tokenizer_decode(t, (int[]){ -1 }, 1, true, &text), SCA_ERR_ARGUMENT, "token 0 is -1");
    expect_text(t, NULL, 0, true, "");
    int *ids = NULL, n = 0;
    CHECK_OK(tokenizer_encode(t, "a\0b", 3, false, &ids, &n)); /* zeros are bytes like others on the way in */
    CHECK(n == 3);
    expect_text(t, ids, n, true, "a" REPLACEMENT "b");
    mem_free(ids);
    tokenizer_close(t);
    t = built((files){ .vocab = VOCAB, .merges = "" });
    if (t) CHECK_FAILS(tokenizer_encode(t, "a", 1, true, &ids, &n), SCA_ERR_STATE, "has no EOS token");
    tokenizer_close(t);
}

static void short_and_long_merges_agree(void)
{
    tokenizer *t = opened(HERE "gpt2-tiny");
    uint32_t state = 11;
    encoder e = { .t = t };
    for (int round = 0; t && round < 3000; round++) {
        int_list word = { 0 };
        size_t n = 2 + next_random(&state) % 30;
        e.word.n = 0;
        for (size_t i = 0; i < n; i++) {
            int id = t->byte_ids[(unsigned char)"etaoinsh dw"[next_random(&state) % 11]];
            CHECK_OK(int_list_put(&word, id));
            CHECK_OK(int_list_put(&e.word, id));
        }
        bpe_merge_short(&t->merges, &word);
        CHECK_OK(bpe_merge_long(&e));
        CHECK(word.n == e.word.n && memcmp(word.data, e.word.data, word.n * sizeof *word.data) == 0);
        mem_free(word.data);
    }
    mem_free(e.word.data);
    mem_free(e.symbols);
    mem_free(e.heap);
    tokenizer_close(t);
}

static double time_of(const tokenizer *t, const char *text, size_t bytes)
{
    int *ids = NULL, n = 0;
    double start = seconds();
    CHECK_OK(tokenizer_encode(t, text, bytes, false, &ids, &n));
    mem_free(ids);
    return seconds() - start;
}

static void a_million_bytes(void)
{
    static const char *const dirs[] = { HERE "gpt2-tiny", HERE "llama-tiny", HERE "spm-nfkc", "llama scores" };
    static const char *const fills[] = { "a",  " ",         "the dog is on the grass. ", "\xc3\xa9", "</s>", "\n",
                                         "12", "abcdefghij" };
    const size_t bytes = 1000000;
    char *text = mem_alloc(bytes);
    for (size_t d = 0; d < LENGTH(dirs); d++) {
        tokenizer *t = opened(d == 3 ? dirs[1] : dirs[d]), *g = NULL;
        if (!t) continue;
        if (d == 3) {
            description of = describe(t, "llama", "");
            CHECK_OK(tokenizer_from_gguf(&of.g, &g));
            forget(&of);
        }
        for (size_t f = 0; f < LENGTH(fills); f++) {
            size_t length = strlen(fills[f]);
            for (size_t i = 0; i < bytes; i++) text[i] = fills[f][i % length];
            double took = time_of(g ? g : t, text, bytes);
            CHECKF(took < 20, "%s on 1 MB of '%s' took %.1f s", dirs[d], fills[f], took);
            printf("%s, 1 MB of '%s': %.0f ms\n", path_name(dirs[d]), f == 5 ? "\\n" : fills[f], 1e3 * took);
        }
        tokenizer_close(g);
        tokenizer_close(t);
    }
    mem_free(text);
}

/* ---- threads and injected failures
 * ----------------------------------------------------------------------------------------- */

static void *work(void *t)
{
    same_on_random(t, t, 40);
    return NULL;
}

static void threads_share_a_tokenizer(void)
{
    static const char *const dirs[] = { HERE "gpt2-tiny", HERE "llama-tiny", HERE "spm-nfkc" };
    for (size_t d = 0; d < LENGTH(dirs); d++) {
        tokenizer *t = opened(dirs[d]);
        pthread_t threads[4];
        if (!t) continue;
        for (size_t i = 0; i < LENGTH(threads); i++) CHECK(pthread_create(&threads[i], NULL, work, t) == 0);
        for (size_t i = 0; i < LENGTH(threads); i++) pthread_join(threads[i], NULL);
        tokenizer_close(t);
    }
}

static sca_status whole_round(const char *dir)
{
    static const char text[] =
        "the dog's 12 \xf0\x9f\x98\x80 \xff </s><|endoftext|> aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    tokenizer *t = NULL;
    int *ids = NULL, n = 0;
    char *back = NULL;
    TRY(tokenizer_open(dir, &t));
    sca_status status = tokenizer_encode(t, text, sizeof text - 1, true, &ids, &n);
    if (status == SCA_OK) mem_free(ids), status = tokenizer_encode(t, text, sizeof text - 1, false, &ids, &n);
    if (status == SCA_OK) status = tokenizer_decode(t, ids, n, true, &back);
    mem_free(back);
    mem_free(ids);
    tokenizer_close(t);
    return status;
}

static void fail_each(const char *dir, bool memory)
{
    const int step = memory ? 7 : 1; /* thousands of allocations are those of the JSON reader */
    for (int64_t nth = 1; nth < 200000; nth += nth < 150 ? 1 : step * (1 + nth / 100)) {
        if (memory)
            fault_alloc(nth);
        else
            fault_io(nth);
        sca_status status = whole_round(dir);
        bool fired = fault_fired();
        fault_alloc(0);
        fault_io(0);
        if (!fired) break;
        if (memory)
            CHECKF(status == SCA_ERR_MEMORY || status == SCA_OK, "allocation %lld: %s", (long long)nth,
                   sca_last_error());
        else
            CHECKF(status == SCA_ERR_IO, "file operation %lld: %s", (long long)nth, sca_status_name(status));
    }
}

/* The end of the work allocates least: count back from the last allocation as well. */
static void fail_last(const char *dir)
{
    int64_t low = 1, high = 1 << 22;
    while (low < high) { /* the number of allocations of one round, plus one */
        int64_t middle = low + (high - low) / 2;
        fault_alloc(middle);
        if (whole_round(dir) == SCA_OK && !fault_fired())
            high = middle;
        else
            low = middle + 1;
        fault_alloc(0);
    }
    for (int64_t nth = low > 120 ? low - 120 : 1; nth < low; nth++) {
        fault_alloc(nth);
        sca_status status = whole_round(dir);
        CHECKF(status == SCA_ERR_MEMORY || status == SCA_OK, "allocation %lld: %s", (long long)nth,
               sca_last_error());
        fault_alloc(0);
    }
}

static void failures_of_memory_and_files(void)
{
    static const char *const dirs[] = { HERE "gpt2-tiny", HERE "llama-tiny", HERE "spm-nfkc" };
    for (size_t i = 0; i < LENGTH(dirs); i++) {
        fail_each(dirs[i], true);
        fail_each(dirs[i], false);
        fail_last(dirs[i]);
    }
    CHECK_OK(whole_round(dirs[0]));
}

static void public_doors(void)
{
    sca_tokenizer *t = NULL;
    int *ids = NULL, n = 0;
    char *text = NULL;
    CHECK_FAILS(sca_tokenizer_open(NULL, &t), SCA_ERR_ARGUMENT, "found NULL");
    CHECK_FAILS(sca_tokenizer_encode(NULL, "a", 1, 0, &ids, &n), SCA_ERR_ARGUMENT, "found NULL");
    CHECK_FAILS(sca_tokenizer_decode(NULL, NULL, 0, 0, &text), SCA_ERR_ARGUMENT, "found NULL");
    CHECK_OK(sca_tokenizer_open(HERE "llama-tiny", &t));
    if (!t) return;
    CHECK_OK(sca_tokenizer_encode(t, "a dog", 5, 1, &ids, &n));
    CHECK(n > 2 && ids[0] == 1 && ids[n - 1] == 2);
    CHECK_OK(sca_tokenizer_decode(t, ids, n, 0, &text));
    CHECK(text && strcmp(text, "a dog") == 0);
    sca_free(text);
    sca_free(ids);
    sca_tokenizer_close(t);
    sca_tokenizer_close(NULL);
}

int main(int argc, char **argv)
{
    RUN(golden_gpt2_tiny);
    RUN(golden_llama_tiny);
    RUN(golden_spm_nfkc);
    RUN(plain_files_give_the_same);
    RUN(real_gpt2);
    RUN(real_mistral);
    RUN(models_of_the_shared_folder_open);
    RUN(gguf_scores_equal_the_library);
    RUN(gguf_scores_on_random_text);
    RUN(gguf_gpt2);
    RUN(plain_files_that_lie);
    RUN(json_files_that_lie);
    RUN(model_files_that_lie);
    RUN(damaged_character_map);
    RUN(folders_without_tokenizers);
    RUN(digits_and_splits);
    RUN(added_tokens_strip_and_stand_alone);
    RUN(templates_surround);
    RUN(characters_with_byte_fallback);
    RUN(normal_forms);
    RUN(broken_text);
    RUN(ids_out_of_range);
    RUN(short_and_long_merges_agree);
    RUN(a_million_bytes);
    RUN(threads_share_a_tokenizer);
    RUN(failures_of_memory_and_files);
    RUN(public_doors);
    return check_done();
}
