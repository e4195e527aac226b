/* fuzz_tokenizer.c - tokenizer files from strangers, and texts through them.
 *
 * Input: one byte that says which files follow, then sections with a byte 0x1e between them: a text,
 * tokenizer_config.json, special_tokens_map.json, added_tokens.json, then vocab.json and merges.txt ('v'),
 * tokenizer.json ('j'), tokenizer.model ('m'; it reaches to the end), or the tokens of a GGUF file, one a line,
 * with its merges ('g': gpt2, 'l': llama). An empty section is an absent file. */
#include "model/tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#define SECTION 0x1e
#define LINES_MOST 4000

typedef struct section {
    const char *data;
    size_t bytes;
} section;

static section next_section(section *rest)
{
    section s = *rest;
    const char *end = rest->bytes ? memchr(rest->data, SECTION, rest->bytes) : NULL;
    if (!end) {
        *rest = (section){ 0 };
        return s;
    }
    s.bytes = (size_t)(end - s.data);
    rest->data = end + 1;
    rest->bytes -= s.bytes + 1;
    return s;
}

static void must(bool holds)
{
    if (!holds) abort();
}

static void use(const tokenizer *t, section text)
{
    int *ids = NULL, n = 0;
    for (int train = 0; train < 2; train++) {
        if (tokenizer_encode(t, text.bytes ? text.data : "", text.bytes, train, &ids, &n) != SCA_OK) continue;
        for (int i = 0; i < n; i++) must(ids[i] >= 0 && ids[i] < tokenizer_size(t));
        must(!train || (n <= 19 + (int)(t->before.n + t->after.n) && ids[n - 1] == tokenizer_eos(t)));
        for (int with = 0; with < 2; with++) {
            char *back = NULL;
            must(tokenizer_decode(t, ids, n, with, &back) == SCA_OK);
            must(utf8_valid(back, strlen(back)));
            mem_free(back);
        }
        mem_free(ids);
    }
    for (int id = -1; id <= tokenizer_size(t) && id < 300; id++) {
        char *back = NULL;
        sca_status status = tokenizer_decode(t, &id, 1, true, &back);
        must((status == SCA_OK) == (id >= 0 && id < tokenizer_size(t)));
        mem_free(back);
    }
}

static void from_files(uint8_t kind, section text, section rest)
{
    tokenizer_source s = { 0 };
    section parts[FILE_COUNT] = { 0 };
    parts[FILE_CONFIG] = next_section(&rest);
    parts[FILE_SPECIAL] = next_section(&rest);
    parts[FILE_ADDED] = next_section(&rest);
    if (kind == 'm')
        parts[FILE_MODEL] = rest;
    else if (kind == 'j')
        parts[FILE_JSON] = next_section(&rest);
    else
        parts[FILE_VOCAB] = next_section(&rest), parts[FILE_MERGES] = next_section(&rest);
    for (int i = 0; i < FILE_COUNT; i++) {
        bool needed = (kind == 'v' && (i == FILE_VOCAB || i == FILE_MERGES)) || (kind == 'm' && i == FILE_MODEL) ||
                      (kind == 'j' && i == FILE_JSON);
        s.names[i] = (char *)tokenizer_file_names[i];
        if (parts[i].bytes == 0 && !needed) continue;
        s.data[i] = parts[i].bytes ? parts[i].data : "";
        s.bytes[i] = parts[i].bytes;
    }
    tokenizer *t = NULL;
    if (tokenizer_build(&s, &t) == SCA_OK) use(t, text);
    tokenizer_close(t);
}

/* Lines of a section, 0-terminated; the caller frees lines[0] and the list. */
static size_t split_lines(section s, char **lines, size_t *lengths)
{
    size_t n = 0;
    char *copy = text_copy(s.bytes ? s.data : "", s.bytes);
    must(copy != NULL);
    for (char *p = copy, *end = copy + s.bytes; n < LINES_MOST && (n == 0 || p < end); n++) {
        char *newline = memchr(p, '\n', (size_t)(end - p));
        lines[n] = p;
        lengths[n] = (size_t)((newline ? newline : end) - p);
        p += lengths[n];
        *p++ = 0;
    }
    return n;
}

static void from_gguf(uint8_t kind, section text, section rest)
{
    char *tokens[LINES_MOST], *merges[LINES_MOST];
    size_t token_bytes[LINES_MOST], merge_bytes[LINES_MOST];
    static float scores[LINES_MOST];
    static int32_t types[LINES_MOST];
    section roles = next_section(&rest), list = next_section(&rest), pairs = next_section(&rest);
    size_t n = split_lines(list, tokens, token_bytes), m = split_lines(pairs, merges, merge_bytes);
    for (size_t i = 0; i < n; i++) {
        scores[i] = -(float)i;
        types[i] = i < roles.bytes ? roles.data[i] - '0' : token_bytes[i] == 6 && tokens[i][0] == '<' ? 6 : 1;
    }
    tokenizer_gguf g = { .model = kind == 'g' ? "gpt2" : "llama",
                         .pre = roles.bytes % 2 ? "smollm" : "llama-bpe",
                         .tokens = (const char *const *)tokens,
                         .token_bytes = token_bytes,
                         .scores = scores,
                         .types = roles.bytes ? types : NULL,
                         .n_tokens = n,
                         .merges = (const char *const *)merges,
                         .n_merges = pairs.bytes ? m : 0,
                         .bos = n > 1 ? 1 : -1,
                         .eos = n > 2 ? 2 : -1,
                         .unknown = 0,
                         .pad = -1,
                         .add_bos = -1,
                         .name = "fuzz.gguf" };
    tokenizer *t = NULL;
    if (tokenizer_from_gguf(&g, &t) == SCA_OK) use(t, text);
    tokenizer_close(t);
    mem_free(tokens[0]);
    mem_free(merges[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) return 0;
    section rest = { (const char *)data + 1, bytes - 1 }, text = next_section(&rest);
    if (data[0] == 'g' || data[0] == 'l')
        from_gguf(data[0], text, rest);
    else if (data[0] == 'v' || data[0] == 'j' || data[0] == 'm')
        from_files(data[0], text, rest);
    return 0;
}
