/* tokenize.c - sca tokenize: JSON Lines through a tokenizer. */
#include "tool.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct reader { /* lines of standard input, any length up to LINE_MOST */
    str text;
    size_t at; /* where the next line begins */
    int64_t line;
    bool ended;
} reader;

enum { LINE_MOST = 64 << 20, READ_BYTES = 1 << 16 };

static sca_status read_more(reader *r)
{
    char buffer[READ_BYTES];
    ssize_t n;
    do n = read(STDIN_FILENO, buffer, sizeof buffer);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        char text[128];
        return status_fail(SCA_ERR_IO, "standard input: cannot read: %s", strerror_r(errno, text, sizeof text));
    }
    r->ended = n == 0;
    str_put_bytes(&r->text, buffer, (size_t)n);
    return r->text.failed ? mem_fail(r->text.bytes, "a line of standard input") : SCA_OK;
}

/* Drops the lines that have been handed out. */
static void forget(reader *r)
{
    size_t left = r->text.bytes - r->at;
    if (r->at == 0) return;
    memmove(r->text.data, r->text.data + r->at, left + 1);
    r->text.bytes = left;
    r->at = 0;
}

/* The next line without its newline, valid until the next call; *line NULL at the end. */
static sca_status next_line(reader *r, const char **line, size_t *bytes)
{
    size_t searched = 0;
    *line = NULL;
    for (;;) {
        const char *from = str_text(&r->text) + r->at;
        size_t left = r->text.bytes - r->at;
        const char *end = left > searched ? memchr(from + searched, '\n', left - searched) : NULL;
        if (end || (r->ended && left > 0)) {
            *bytes = end ? (size_t)(end - from) : left;
            *line = from;
            r->at += *bytes + (end != NULL);
            r->line++;
            return SCA_OK;
        }
        if (r->ended) return SCA_OK;
        if (left > LINE_MOST)
            return status_fail(SCA_ERR_FORMAT, "standard input, line %lld: longer than %d bytes",
                               (long long)r->line + 1, LINE_MOST);
        searched = left;
        forget(r);
        TRY(read_more(r));
    }
}

static sca_status encode(const sca_tokenizer *t, const json_t *item, const char *name, bool train, str *out)
{
    const json_t *text = json_object_get(item, "text");
    int *ids = NULL, n = 0;
    char *decoded = NULL;
    size_t bytes;
    sca_status status;
    if (!json_is_string(text))
        return status_fail(SCA_ERR_FORMAT, "%s: expected an object whose 'text' is a string", name);
    TRY_GOTO(done, sca_tokenizer_encode(t, json_string_value(text), json_string_length(text), train, &ids, &n));
    TRY_GOTO(done, sca_tokenizer_decode_bytes(t, ids, n, 1, &decoded, &bytes));
    str_put(out, "{\"ids\": [");
    for (int i = 0; i < n; i++) str_printf(out, "%s%d", i ? ", " : "", ids[i]);
    str_put(out, "], \"decoded\": ");
    json_put_text(out, decoded, bytes);
    str_put(out, "}\n");
done:
    sca_free(decoded);
    sca_free(ids);
    return status;
}

static sca_status read_ids(const json_t *item, const char *name, int **ids, int *n)
{
    const json_t *list = json_object_get(item, "ids");
    *ids = NULL;
    if (!json_is_array(list) || json_array_size(list) > INT_MAX)
        return status_fail(SCA_ERR_FORMAT, "%s: expected an object whose 'ids' is a list of integers", name);
    *n = (int)json_array_size(list);
    *ids = mem_zero((size_t)*n + 1, sizeof **ids);
    if (!*ids) return mem_fail((size_t)*n * sizeof **ids, "token ids");
    for (int i = 0; i < *n; i++) {
        const json_t *id = json_array_get(list, (size_t)i);
        json_int_t value = json_integer_value(id);
        if (!json_is_integer(id) || value < 0 || value > INT_MAX)
            return status_fail(SCA_ERR_FORMAT, "%s: 'ids' holds something that is no token id at index %d", name,
                               i);
        (*ids)[i] = (int)value;
    }
    return SCA_OK;
}

static sca_status decode(const sca_tokenizer *t, const json_t *item, const char *name, str *out)
{
    int *ids = NULL, n = 0;
    char *text = NULL;
    size_t bytes;
    sca_status status;
    TRY_GOTO(done, read_ids(item, name, &ids, &n));
    TRY_GOTO(done, sca_tokenizer_decode_bytes(t, ids, n, 0, &text, &bytes));
    str_put(out, "{\"text\": ");
    json_put_text(out, text, bytes);
    str_put(out, "}\n");
done:
    sca_free(text);
    mem_free(ids);
    return status;
}

static sca_status learn(sca_vocabulary *v, const json_t *item, const char *name)
{
    const json_t *text = json_object_get(item, "text");
    if (!json_is_string(text))
        return status_fail(SCA_ERR_FORMAT, "%s: expected an object whose 'text' is a string", name);
    return sca_vocabulary_add(v, json_string_value(text), json_string_length(text));
}

typedef struct job { /* what is done with each line: one of the two */
    const arguments *a;
    const sca_tokenizer *t;
    sca_vocabulary *v;
} job;

static sca_status one_line(const job *j, const reader *r, const char *line, size_t bytes, str *out)
{
    const arguments *a = j->a;
    const sca_tokenizer *t = j->t;
    char name[64];
    json_t *item = NULL;
    str one = { 0 };
    str_printf(&one, "standard input, line %lld", (long long)r->line);
    memcpy(name, str_text(&one), one.bytes < sizeof name ? one.bytes + 1 : 1);
    str_free(&one);
    TRY(json_parse(line, bytes, name, &item));
    sca_status status = j->v                      ? learn(j->v, item, name)
                        : a->value[OPTION_DECODE] ? decode(t, item, name, out)
                                                  : encode(t, item, name, a->value[OPTION_TRAIN] != NULL, out);
    json_decref(item);
    if (status != SCA_OK && !text_starts(sca_last_error(), name)) return status_context(status, "%s", name);
    return status;
}

static bool blank(const char *line, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
    return true;
}

/* The lines before one that fails have been written. */
static sca_status all_lines(const job *j)
{
    reader in = { 0 };
    output out = { 0 };
    const char *line;
    size_t bytes;
    sca_status status;
    for (;;) {
        TRY_GOTO(done, next_line(&in, &line, &bytes));
        if (!line) break;
        if (blank(line, bytes)) continue;
        TRY_GOTO(done, one_line(j, &in, line, bytes, &out.text));
        if (out.text.bytes > READ_BYTES || memchr(in.text.data + in.at, '\n', in.text.bytes - in.at) == NULL)
            TRY_GOTO(done, output_flush(&out));
    }
done:
    if (status == SCA_OK) {
        status = output_finish(&out);
    } else {
        str message = { 0 }; /* what was wrong first is what is reported */
        str_put(&message, sca_last_error());
        if (output_flush(&out) == SCA_OK) (void)status_set(status, str_text(&message));
        str_free(&message);
    }
    output_free(&out);
    str_free(&in.text);
    return status;
}

static int run_learn(const arguments *a)
{
    const char *dir = a->value[OPTION_VOCABULARY];
    char *end = NULL;
    long size = strtol(a->value[OPTION_LEARN], &end, 10);
    int tokens = 0;
    sca_vocabulary *v = NULL;
    if (!dir) return fail_usage("tokenize: --learn needs --to DIR");
    if (a->value[OPTION_MODEL] || a->value[OPTION_TRAIN] || a->value[OPTION_DECODE])
        return fail_usage("tokenize: --learn makes a vocabulary; --model, --train and --decode use one");
    if (end == a->value[OPTION_LEARN] || *end || size < 0 || size > INT_MAX)
        return fail_usage("tokenize: --learn %s: expected a number of tokens", a->value[OPTION_LEARN]);
    sca_status status = sca_vocabulary_open((int)size, &v);
    if (status == SCA_OK) status = all_lines(&(job){ .a = a, .v = v });
    if (status == SCA_OK) status = sca_vocabulary_save(v, dir, &tokens);
    if (status == SCA_OK && tokens < size) {
        str text = { 0 };
        str_printf(&text, "%s: %d tokens, for no further pair is there twice", dir, tokens);
        message_note(str_text(&text));
        str_free(&text);
    }
    sca_vocabulary_close(v);
    return status == SCA_OK ? DONE : fail_now();
}

int run_tokenize(const arguments *a)
{
    const char *dir = a->value[OPTION_MODEL];
    sca_tokenizer *t = NULL;
    sca_config *settings = NULL; /* only to check --threads and --device as everywhere */
    if (a->n_operands)
        return fail_usage("tokenize: takes no operand, found %s; lines come from standard input", a->operands[0]);
    if (a->value[OPTION_LEARN]) return run_learn(a);
    if (a->value[OPTION_VOCABULARY]) return fail_usage("tokenize: --to DIR is where --learn N writes a vocabulary");
    if (!dir) return fail_usage("tokenize: needs --model DIR");
    if (a->value[OPTION_TRAIN] && a->value[OPTION_DECODE])
        return fail_usage("tokenize: --train and --decode exclude each other");
    int result = arguments_config(a, &settings);
    sca_config_close(settings);
    if (result != DONE) return result;
    sca_status status = sca_tokenizer_open(dir, &t);
    if (status == SCA_OK) status = all_lines(&(job){ .a = a, .t = t });
    sca_tokenizer_close(t);
    return status == SCA_OK ? DONE : fail_now();
}
