/* test_tokenizer.c - tokenizers against what the official classes give; limits, threads, failures. */
#include "tokenizer_common.h"

#include <math.h>
#include <pthread.h>

/* ---- golden cases ------------------------------------------------------------------------------------ */

static bool same_ids(const json_t *expected, const int *ids, int n)
{
    if (json_array_size(expected) != (size_t)n) return false;
    for (int i = 0; i < n; i++)
        if (json_integer_value(json_array_get(expected, (size_t)i)) != ids[i]) return false;
    return true;
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

/* ---- real vocabularies ------------------------------------------------------------------------------- */

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

/* ---- GGUF -------------------------------------------------------------------------------------------- */

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

/* Saved into a folder of its own and opened from there. */
static tokenizer *saved(const tokenizer *t, const char *name)
{
    char dir[1000];
    snprintf(dir, sizeof dir, SCA_BUILD "/tokenizer_saved_%s", name);
    clear_folder(dir);
    CHECK_OK(tokenizer_save(t, dir));
    tokenizer *again = opened(dir);
    if (again) {
        CHECK(tokenizer_size(again) == tokenizer_size(t));
        CHECK(tokenizer_bos(again) == tokenizer_bos(t) && tokenizer_eos(again) == tokenizer_eos(t));
        CHECK(again->unknown == t->unknown && again->pad == t->pad);
        same_on_random(t, again, 50);
        CHECK_OK(tokenizer_save(again, dir)); /* over itself: the same bytes */
    }
    return again;
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
    tokenizer *again = g ? saved(g, real ? "mistral" : "llama") : NULL;
    if (again && real)
        check_real(again, cases, true);
    else if (again)
        check_golden(again, cases, false);
    tokenizer_close(again);
    tokenizer_close(g);
    tokenizer_close(t);
}

static void gguf_scores_equal_the_library(void)
{
    gguf_llama(HERE "llama-tiny", HERE "llama-tiny/cases.json", false);
    if (shared_absent()) return;
    gguf_llama(SCA_SHARED "/golden/tokenizers/mistral", SCA_SHARED "/golden/tokenizers/mistral/cases.json", true);
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

/* Every way to split, with and without BOS, saved and opened again. */
static void gguf_gpt2_saved(void)
{
    static const char *const ways[] = { "gpt-2", "smollm", "llama-bpe", "qwen2", "mpt" };
    tokenizer *t = opened(HERE "gpt2-tiny");
    if (!t) return;
    description d = describe(t, "gpt2", "");
    describe_merges(t, &d);
    d.types[600] = 4; /* a user-defined token among the others */
    for (int i = 0; i < 2 * (int)LENGTH(ways); i++) {
        tokenizer *g = NULL;
        d.g.pre = ways[i / 2];
        d.g.add_bos = i % 2;
        d.g.unknown = i % 2 ? -1 : 5;
        CHECK_OK(tokenizer_from_gguf(&d.g, &g));
        char name[32];
        snprintf(name, sizeof name, "gpt2_%s_%d", d.g.pre, i % 2);
        tokenizer *again = g ? saved(g, name) : NULL;
        for (int id = 0; again && id < 700; id++) {
            char *a = NULL, *b = NULL;
            int ids[] = { 300, id, 11, 13 };
            CHECK_OK(tokenizer_decode(g, ids, 4, id % 2, &a));
            CHECK_OK(tokenizer_decode(again, ids, 4, id % 2, &b));
            CHECKF(a && b && strcmp(a, b) == 0, "%s: token %d is '%s' and '%s'", name, id, a ? a : "", b ? b : "");
            mem_free(a);
            mem_free(b);
        }
        tokenizer_close(again);
        tokenizer_close(g);
    }
    forget(&d);
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
    tokenizer *again = g ? saved(g, "gpt2") : NULL;
    if (again) check_golden(again, HERE "gpt2-tiny/cases.json", true);
    tokenizer_close(again);
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

/* ---- bytes, ids, limits ------------------------------------------------------------------------------ */

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
    t = built((file_texts){ .vocab = "{\"a\": 0}", .merges = "" });
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

/* ---- threads and injected failures ------------------------------------------------------------------- */

typedef struct thread_work {
    const tokenizer *t;
    pthread_t thread;
    int tokens, failed;
} thread_work;

/* The checks' counters are no business of threads. */
static void *work(void *user)
{
    thread_work *w = user;
    uint32_t state = 5;
    char text[4000], *back = NULL;
    for (int i = 0; i < 60; i++) {
        size_t bytes = random_text(&state, text, i % 10 ? 120 : sizeof text);
        int *ids = NULL, n = 0;
        w->failed += tokenizer_encode(w->t, text, bytes, i % 2, &ids, &n) != SCA_OK;
        w->failed += tokenizer_decode(w->t, ids, n, i % 3, &back) != SCA_OK;
        for (int k = 0; k < n; k++) w->tokens = w->tokens * 31 % 65521 + ids[k];
        mem_free(back);
        mem_free(ids);
    }
    return NULL;
}

static void threads_share_a_tokenizer(void)
{
    static const char *const dirs[] = { HERE "gpt2-tiny", HERE "llama-tiny", HERE "spm-nfkc" };
    for (size_t d = 0; d < LENGTH(dirs); d++) {
        tokenizer *t = opened(dirs[d]);
        thread_work w[4] = { 0 };
        if (!t) continue;
        for (size_t i = 0; i < LENGTH(w); i++) {
            w[i].t = t;
            CHECK(pthread_create(&w[i].thread, NULL, work, &w[i]) == 0);
        }
        for (size_t i = 0; i < LENGTH(w); i++) pthread_join(w[i].thread, NULL);
        for (size_t i = 0; i < LENGTH(w); i++) CHECK(w[i].failed == 0 && w[i].tokens == w[0].tokens);
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
    RUN(gguf_gpt2_saved);
    RUN(broken_text);
    RUN(ids_out_of_range);
    RUN(short_and_long_merges_agree);
    RUN(a_million_bytes);
    RUN(threads_share_a_tokenizer);
    RUN(failures_of_memory_and_files);
    RUN(public_doors);
    return check_done();
}
