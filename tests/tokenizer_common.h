/* tokenizer_common.h - what the tokenizer's tests share. */
#ifndef TOKENIZER_COMMON_H
#define TOKENIZER_COMMON_H

#include "check.h"
#include "model/tokenizer_private.h"

#include <string.h>
#include <time.h>

#define HERE SCA_SOURCE "/tests/golden/tokenizer/"

static inline double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void show_ids(const int *ids, int n)
{
    for (int i = 0; i < n && i < 40; i++) fprintf(stderr, " %d", ids[i]);
    fputc('\n', stderr);
}

/* The files of a golden directory, chosen by a mask of bits 1 << FILE_*, in memory. */
static inline tokenizer_source loaded(const char *name, unsigned mask)
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

static inline void unload(tokenizer_source *s)
{
    for (int i = 0; i < FILE_COUNT; i++) mem_free((char *)s->data[i]);
}

/* An existing folder without tokenizer files, whatever an earlier run left there. */
static inline void clear_folder(const char *dir)
{
    CHECK_OK(dir_make(dir));
    for (int i = 0; i < FILE_COUNT; i++) {
        char *path = path_join(dir, tokenizer_file_names[i]);
        CHECK_OK(file_remove(path));
        mem_free(path);
    }
}

static inline uint32_t next_random(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u, *state >> 8;
}

/* Bytes that look like text now and then, as many different ways to be wrong as there are. */
static inline size_t random_text(uint32_t *state, char *text, size_t most)
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

static inline void same_on_random(const tokenizer *a, const tokenizer *b, int texts)
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

typedef struct file_texts {
    const char *json, *vocab, *merges, *added, *special, *config;
} file_texts;

static inline sca_status build_files(file_texts f, tokenizer **out)
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

static inline tokenizer *built(file_texts f)
{
    tokenizer *t = NULL;
    CHECK_OK(build_files(f, &t));
    return t;
}

static inline void expect_text(const tokenizer *t, const int *ids, int n, bool with_special, const char *expected)
{
    char *text = NULL;
    CHECK_OK(tokenizer_decode(t, ids, n, with_special, &text));
    CHECKF(text && strcmp(text, expected) == 0, "text is '%s', expected '%s'", text ? text : "", expected);
    mem_free(text);
}

#endif
