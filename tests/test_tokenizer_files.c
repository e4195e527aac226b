/* test_tokenizer_files.c - tokenizer files that lie, that are written, what tokenizer.json can say, and the fuzz corpus. */
#include "tokenizer_common.h"

#include "fuzz_tokenizer.c"

#include <dirent.h>

/* ---- files that lie ----------------------------------------------------------------------------------- */

#define VOCAB "{\"a\": 0, \"b\": 1, \"ab\": 2, \"\\u0120\": 3}"
#define REFUSED(part, ...) CHECK_FAILS(build_files((file_texts){ __VA_ARGS__ }, &t), SCA_ERR_FORMAT, part)
#define NOT_SUPPORTED(part, ...)                                                                                   \
    CHECK_FAILS(build_files((file_texts){ __VA_ARGS__ }, &t), SCA_ERR_UNSUPPORTED, part)

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
    mem_free((char *)s.data[FILE_MODEL]);
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

/* ---- files that are written --------------------------------------------------------------------------- */

static void same_file(const char *a, const char *b, const char *name)
{
    char *paths[2] = { path_join(a, name), path_join(b, name) }, *data[2] = { NULL, NULL };
    size_t bytes[2] = { 0, 0 };
    for (int i = 0; i < 2; i++) CHECK_OK(file_read(paths[i], TOKENIZER_FILE_MOST, &data[i], &bytes[i]));
    CHECKF(data[0] && data[1] && bytes[0] == bytes[1] && memcmp(data[0], data[1], bytes[0]) == 0, "%s differs",
           name);
    for (int i = 0; i < 2; i++) mem_free(data[i]), mem_free(paths[i]);
}

static void files_are_copied(void)
{
    static const char dir[] = SCA_BUILD "/tokenizer_copied";
    tokenizer *t = NULL, *other = NULL;
    CHECK_OK(tokenizer_open(HERE "gpt2-tiny", &t));
    CHECK_OK(tokenizer_open(HERE "llama-tiny", &other));
    clear_folder(dir);
    if (t && other) {
        CHECK_OK(tokenizer_save(t, dir));
        for (const char *const *name = tokenizer_files(t); *name; name++) same_file(HERE "gpt2-tiny", dir, *name);
        CHECK_FAILS(tokenizer_save(other, dir), SCA_ERR_ARGUMENT, "already holds tokenizer.json of another model");
        CHECK(tokenizer_save(t, "no/such/folder") == SCA_ERR_IO);
    }
    tokenizer_close(t);
    tokenizer_close(other);
}

/* What a GGUF file can say, but no other file. */
static void tokens_that_no_file_holds(void)
{
    static const char dir[] = SCA_BUILD "/tokenizer_unsaid";
    const char *tokens[] = { "<unk>", "a\0b", "a", "b" }, *merges[] = { "a b" };
    size_t bytes[] = { 5, 3, 1, 1 };
    float scores[4] = { 0 };
    int32_t types[] = { 2, 1, 1, 1 };
    tokenizer_gguf g = { "gpt2", "gpt-2", tokens, bytes, scores, types, 4, merges, 0, -1, -1, 0, -1, 0, "x.gguf" };
    tokenizer *t = NULL;
    clear_folder(dir);
    for (int i = 0; i < 2; i++) {
        CHECK_OK(tokenizer_from_gguf(&g, &t));
        if (t)
            CHECK_FAILS(tokenizer_save(t, dir), SCA_ERR_UNSUPPORTED, "token 1 of the GGUF file is a text with a 0");
        tokenizer_close(t);
        g.model = "llama";
    }
    bytes[1] = 0;
    CHECK_OK(tokenizer_from_gguf(&g, &t));
    if (t) CHECK_FAILS(tokenizer_save(t, dir), SCA_ERR_UNSUPPORTED, "token 1 of the GGUF file is empty");
    tokenizer_close(t);
    g.model = "gpt2"; /* there, an empty token is as good as any */
    tokenizer *again = NULL;
    CHECK_OK(tokenizer_from_gguf(&g, &t));
    if (t) CHECK_OK(tokenizer_save(t, dir));
    CHECK_OK(tokenizer_open(dir, &again));
    if (again) same_on_random(t, again, 10);
    tokenizer_close(again);
    tokenizer_close(t);
}

/* Wherever memory or a disk fails: a message, and no half-written file. */
static void saving_fails_cleanly(void)
{
    static const char dir[] = SCA_BUILD "/tokenizer_faults";
    const char *tokens[] = { "<unk>", "<s>", "a", "b", "ab" }, *merges[] = { "a b" };
    size_t bytes[] = { 5, 3, 1, 1, 2 };
    float scores[5] = { 0 };
    int32_t types[] = { 2, 3, 1, 1, 1 };
    tokenizer_gguf g = { "gpt2", "gpt-2", tokens, bytes, scores, types, 5, merges, 1, 1, -1, 0, -1, 1, "x.gguf" };
    for (int kind = 0; kind < 2; kind++) {
        clear_folder(dir);
        tokenizer *t = NULL;
        CHECK_OK(tokenizer_from_gguf(&g, &t));
        for (int io = 0; t && io < 2; io++) {
            bool fired = true;
            for (int64_t nth = 1; fired && nth < 1000; nth++) {
                if (io)
                    fault_io(nth);
                else
                    fault_alloc(nth);
                sca_status status = tokenizer_save(t, dir);
                fired = fault_fired();
                fault_io(0);
                fault_alloc(0);
                CHECKF((status != SCA_OK) == fired, "fault %d: %s", (int)nth, sca_status_name(status));
            }
        }
        tokenizer_close(t);
        g.model = "llama";
    }
}

/* ---- what tokenizer.json can say ---------------------------------------------------------------------- */

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

#define LETTERS                                                                                                    \
    "{\"1\": 0, \"2\": 1, \"12\": 2, \"a\": 3, \"\\u0120\": 4, \"\\u0120a\": 5, \"aa\": 6, \"aaaa\": 7, \"[X]\": " \
    "8}"
#define LETTERS_MODEL                                                                                              \
    "\"model\": {\"vocab\": " LETTERS ", \"merges\": [\"1 2\", \"\xc4\xa0 a\", \"a a\", [\"aa\", \"aa\"]]}"
#define AROUND(parts, rest)                                                                                        \
    "{" LETTERS_MODEL ", \"decoder\": {\"type\": \"ByteLevel\"}, \"pre_tokenizer\": " parts rest "}"

static void digits_and_splits(void)
{
    tokenizer *t =
        built((file_texts){ .json = AROUND("{\"type\": \"ByteLevel\", \"add_prefix_space\": false}", "") });
    if (t) expect_ids(t, "12 a", "2 5");
    tokenizer_close(t);
    t = built((file_texts){
        .json = AROUND(
            "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", \"individual_digits\": true},"
            "{\"type\": \"ByteLevel\", \"add_prefix_space\": false}]}",
            "") });
    if (t) expect_ids(t, "12 a12", "0 1 5 0 1");
    tokenizer_close(t);
    t = built((file_texts){
        .json =
            AROUND("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Isolated\", "
                   "\"invert\": false, \"pattern\": {\"Regex\": \"\\\\s+\"}}, {\"type\": \"ByteLevel\", "
                   "\"add_prefix_space\": false, \"use_regex\": false}]}",
                   "") });
    if (t) expect_ids(t, "12 a", "2 4 3");
    tokenizer_close(t);
    t = built((file_texts){
        .json =
            AROUND("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Removed\", "
                   "\"pattern\": {\"String\": \" \"}}, {\"type\": \"ByteLevel\", "
                   "\"add_prefix_space\": false, \"use_regex\": false}]}",
                   "") });
    if (t) expect_ids(t, "12 a", "2 3");
    tokenizer_close(t);
    t = built((file_texts){ .json = AROUND("{\"type\": \"ByteLevel\", \"add_prefix_space\": true}", "") });
    if (t) expect_ids(t, "a aa", "5 5 3");
    tokenizer_close(t);
}

/* Patterns that need more steps or more stack than sound ones. */
static void patterns_have_limits(void)
{
    static const char *const patterns[] = { "(?:a+)+[bc]", "(?:(a)|c)*[bd]", "(?:(a)|(c))*$" };
    const size_t bytes = 2000;
    char *text = mem_alloc(bytes);
    memset(text, 'a', bytes);
    for (size_t i = 0; i < LENGTH(patterns); i++) {
        str json = { 0 };
        str_printf(
            &json,
            AROUND("{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Split\", \"behavior\": \"Isolated\","
                   "\"pattern\": {\"Regex\": \"%s\"}}, {\"type\": \"ByteLevel\", \"use_regex\": false}]}",
                   ""),
            patterns[i]);
        tokenizer *t = built((file_texts){ .json = str_text(&json) });
        int *ids = NULL, n = 0;
        double start = seconds();
        sca_status status = t ? tokenizer_encode(t, text, bytes, false, &ids, &n) : SCA_OK;
        CHECKF(status == SCA_OK || strstr(sca_last_error(), "split pattern cannot be applied"), "%s: %s",
               patterns[i], sca_last_error());
        CHECKF(seconds() - start < 60, "%s took %.1f s", patterns[i], seconds() - start);
        printf("%s: %s, %.2f s\n", patterns[i], sca_status_name(status), seconds() - start);
        mem_free(ids);
        tokenizer_close(t);
        str_free(&json);
    }
    mem_free(text);
}

static void classes_are_known(void)
{
    tokenizer *t = NULL;
    NOT_SUPPORTED("'tokenizer_class' is 'Qwen2Tokenizer', expected GPT2Tokenizer", .vocab = VOCAB, .merges = "",
                  .config = "{\"tokenizer_class\": \"Qwen2Tokenizer\"}");
    tokenizer_source s = loaded("llama-tiny", 1u << FILE_MODEL);
    static const char t5[] = "{\"tokenizer_class\": \"T5Tokenizer\"}";
    s.data[FILE_CONFIG] = t5;
    s.bytes[FILE_CONFIG] = sizeof t5 - 1;
    CHECK_FAILS(tokenizer_build(&s, &t), SCA_ERR_UNSUPPORTED, "'T5Tokenizer', expected LlamaTokenizer");
    s.data[FILE_CONFIG] = NULL;
    unload(&s);
}

/* LlamaTokenizer with `legacy` false: no space appears behind special tokens. */
static void llama_without_legacy(void)
{
    static const char text[] = "{\"tokenizer_class\": \"LlamaTokenizer\", \"legacy\": false}";
    tokenizer_source s = loaded("llama-tiny", 1u << FILE_MODEL);
    tokenizer *t = NULL;
    s.data[FILE_CONFIG] = text;
    s.bytes[FILE_CONFIG] = sizeof text - 1;
    CHECK_OK(tokenizer_build(&s, &t));
    if (t) {
        expect_ids(t, "a</s>b", "1 263 2 572");
        expect_ids(t, "</s>b", "1 2 572");
        expect_ids(t, "a-b-c", "1 263 586 572 586 573");
        expect_ids(t, " a", "1 558 263");
        expect_ids(t, "", "1");
        expect_text(t, (int[]){ 1, 263, 2, 572 }, 4, true, "<s> a</s>b");
        expect_text(t, (int[]){ 1, 263, 2, 572 }, 4, false, "ab");
    }
    tokenizer_close(t);
    s.data[FILE_CONFIG] = NULL;
    unload(&s);
}

static void added_tokens_strip_and_stand_alone(void)
{
    tokenizer *t = built((file_texts){
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
    tokenizer *t = built(
        (file_texts){ .json = AROUND("{\"type\": \"ByteLevel\", \"add_prefix_space\": false}",
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
    tokenizer *t = built((file_texts){ .json = str_text(&text) });
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

static void long_pieces_are_refused(void)
{
    str piece = { 0 }, file = { 0 };
    tokenizer *t = NULL;
    for (int i = 0; i < 600; i++) str_putc(&piece, 'a');
    str_put(&file, "\x0a\x09\x0a\x05<unk>\x18\x02\x0a\xdd\x04\x0a\xd8\x04");
    str_put_bytes(&file, piece.data, piece.bytes);
    str_put(&file, "\x18\x04\x12\x02\x18\x02");
    tokenizer_source s = { 0 };
    for (int i = 0; i < FILE_COUNT; i++) s.names[i] = (char *)tokenizer_file_names[i];
    s.data[FILE_MODEL] = file.data;
    s.bytes[FILE_MODEL] = file.bytes;
    CHECK_FAILS(tokenizer_build(&s, &t), SCA_ERR_FORMAT, "has 600 bytes, expected at most 512");
    str_free(&piece);
    str_free(&file);
}

static void fuzz_corpus(void)
{
    static const char dir[] = SCA_SOURCE "/tests/corpus/tokenizer";
    DIR *d = opendir(dir);
    int n = 0;
    CHECK(d != NULL);
    for (struct dirent *entry; d && (entry = readdir(d));) {
        char path[1200], *data = NULL;
        size_t bytes = 0;
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%.255s", dir, entry->d_name);
        CHECK_OK(file_read(path, TOKENIZER_FILE_MOST, &data, &bytes));
        if (data) LLVMFuzzerTestOneInput((const uint8_t *)data, bytes);
        mem_free(data);
        n++;
    }
    if (d) closedir(d);
    CHECK(n >= 10);
}

int main(int argc, char **argv)
{
    RUN(plain_files_that_lie);
    RUN(json_files_that_lie);
    RUN(model_files_that_lie);
    RUN(damaged_character_map);
    RUN(folders_without_tokenizers);
    RUN(long_pieces_are_refused);
    RUN(files_are_copied);
    RUN(tokens_that_no_file_holds);
    RUN(saving_fails_cleanly);
    RUN(digits_and_splits);
    RUN(patterns_have_limits);
    RUN(classes_are_known);
    RUN(llama_without_legacy);
    RUN(added_tokens_strip_and_stand_alone);
    RUN(templates_surround);
    RUN(characters_with_byte_fallback);
    RUN(normal_forms);
    RUN(fuzz_corpus);
    return check_done();
}
