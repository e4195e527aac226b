/* spice_read.c - where SPICE comes from: a file of tuples, or a program. */
#include "eval/score_parts.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* ---- tuples -------------------------------------------------------------------------------- */

typedef struct tuple_file {
    const char *path;
    lexicon captions;
    spice_tuples *tuples; /* per caption */
    size_t cap_captions;
    spice_tuple *tuple; /* of all captions; parts are numbers into `parts` until the file is read */
    size_t *part;       /* three per tuple */
    size_t n, cap_tuple, cap_part;
    size_t *first; /* per caption, into tuple */
    size_t cap_first;
    texts parts;
} tuple_file;

static void tuple_file_free(tuple_file *f)
{
    lexicon_free(&f->captions);
    mem_free(f->tuples);
    mem_free(f->tuple);
    mem_free(f->part);
    mem_free(f->first);
    texts_free(&f->parts);
}

static sca_status room(void *array, size_t size, size_t wanted, size_t *cap)
{
    if (wanted <= *cap) return SCA_OK;
    size_t n = wanted * 2 + 64, bytes;
    if (!size_mul(n, size, &bytes)) return mem_fail(SIZE_MAX, "tuples");
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = mem_resize(old, bytes);
    if (!p) return mem_fail(bytes, "tuples");
    memcpy(array, &p, sizeof p);
    *cap = n;
    return SCA_OK;
}

static sca_status tuple_add(tuple_file *f, const json_t *t, int64_t index)
{
    size_t n = json_array_size(t);
    bool good = json_is_array(t) && n >= 1 && n <= 3;
    for (size_t k = 0; good && k < n; k++) good = json_is_string(json_array_get(t, k));
    if (!good)
        return status_fail(SCA_ERR_FORMAT, "element %lld: a tuple is not a list of one to three strings",
                           (long long)index);
    TRY(room(&f->tuple, sizeof *f->tuple, f->n + 1, &f->cap_tuple));
    TRY(room(&f->part, sizeof *f->part, 3 * (f->n + 1), &f->cap_part));
    f->tuple[f->n] = (spice_tuple){ { NULL }, (int)n };
    for (size_t k = 0; k < n; k++) {
        const char *text = json_string_value(json_array_get(t, k));
        f->part[3 * f->n + k] = f->parts.count;
        TRY(texts_add(&f->parts, text, strlen(text)));
    }
    f->n++;
    return SCA_OK;
}

static sca_status tuple_item(void *user, const char *key, int64_t index, json_t *item)
{
    tuple_file *f = user;
    const char *caption = json_string_value(json_object_get(item, "caption"));
    const json_t *list = json_object_get(item, "tuples");
    int32_t id;
    if (key || !caption || !json_is_array(list))
        return status_fail(SCA_ERR_FORMAT, "element %lld: expected an object with 'caption' and 'tuples'",
                           (long long)index);
    size_t before = f->captions.words.count;
    TRY(lexicon_add(&f->captions, caption, strlen(caption), &id));
    if (f->captions.words.count == before) return SCA_OK; /* the same caption again */
    TRY(room(&f->tuples, sizeof *f->tuples, before + 1, &f->cap_captions));
    TRY(room(&f->first, sizeof *f->first, before + 1, &f->cap_first));
    f->first[id] = f->n;
    f->tuples[id] = (spice_tuples){ NULL, json_array_size(list) };
    for (size_t i = 0; i < json_array_size(list); i++) TRY(tuple_add(f, json_array_get(list, i), index));
    return SCA_OK;
}

static sca_status tuple_file_read(tuple_file *f)
{
    TRY(score_each(f->path, tuple_item, f));
    for (size_t i = 0; i < f->n; i++)
        for (int k = 0; k < f->tuple[i].n; k++)
            f->tuple[i].part[k] = texts_get(&f->parts, f->part[3 * i + (size_t)k]);
    for (size_t i = 0; i < f->captions.words.count; i++) f->tuples[i].tuple = f->tuple + f->first[i];
    return SCA_OK;
}

/* The tuples of a caption, looked up as tokens, then as it was written. */
static bool caption_tuples(const tuple_file *f, const char *tokens, const char *raw, spice_tuples *out)
{
    int32_t id = lexicon_find(&f->captions, tokens, strlen(tokens));
    if (id < 0) id = lexicon_find(&f->captions, raw, strlen(raw));
    if (id >= 0) *out = f->tuples[id];
    return id >= 0;
}

sca_status spice_from_file(meteor *m, const char *path, const spice_texts *t, double *mean, double *per_item)
{
    tuple_file f = { .path = path };
    size_t n_refs = 0, missing = 0, captions = t->n;
    const char *first = NULL;
    for (size_t i = 0; i < t->n; i++) captions += t->tokens[i].n_refs;
    spice_item *items = mem_alloc(t->n * sizeof *items);
    spice_tuples *refs = mem_alloc(captions * sizeof *refs);
    sca_status status = items && refs ? tuple_file_read(&f) : mem_fail(captions * sizeof *refs, "SPICE");
    for (size_t i = 0; i < t->n && status == SCA_OK; i++) {
        const eval_item *a = &t->tokens[i], *b = &t->raw[i];
        items[i] = (spice_item){ { NULL, 0 }, refs + n_refs, a->n_refs };
        bool found = caption_tuples(&f, a->hyp, b->hyp, &items[i].hyp);
        if (!found && missing++ == 0) first = b->hyp;
        for (size_t k = 0; k < a->n_refs; k++) {
            found = caption_tuples(&f, a->refs[k], b->refs[k], &refs[n_refs++]);
            if (!found && missing++ == 0) first = b->refs[k];
        }
    }
    if (status == SCA_OK && missing)
        status = status_fail(SCA_ERR_FORMAT, "%s: no tuples for %zu of %zu captions, the first: '%.100s'", path,
                             missing, captions, first);
    if (status == SCA_OK) status = spice_score(m, items, t->n, mean, per_item);
    mem_free(items);
    mem_free(refs);
    tuple_file_free(&f);
    return status;
}

/* ---- a program: SPICE 1.0 and whatever takes the same arguments ---------------------------- */

static sca_status write_input(const char *path, const spice_texts *t)
{
    str s = { 0 };
    str_putc(&s, '[');
    for (size_t i = 0; i < t->n; i++) {
        const eval_item *item = &t->tokens[i];
        str_printf(&s, "%s{\"image_id\": %zu, \"test\": ", i ? ",\n" : "", i);
        json_put_text(&s, item->hyp, strlen(item->hyp));
        str_put(&s, ", \"refs\": [");
        for (size_t k = 0; k < item->n_refs; k++) {
            if (k) str_put(&s, ", ");
            json_put_text(&s, item->refs[k], strlen(item->refs[k]));
        }
        str_put(&s, "]}");
    }
    str_put(&s, "]\n");
    sca_status status = s.failed ? mem_fail(s.bytes, "input of SPICE") : file_write(path, s.data, s.bytes);
    str_free(&s);
    return status;
}

/* Through the shell, "COMMAND" INPUT -out OUTPUT; its standard output goes to standard error. */
static sca_status run_command(const char *command, const char *input, const char *output)
{
    str line = { 0 };
    str_printf(&line, "%s \"$@\"", command);
    if (line.failed) return mem_fail(line.bytes, "command");
    const char *const args[] = { "sh", "-c", str_text(&line), "sh", input, "-out", output, NULL };
    posix_spawn_file_actions_t actions;
    pid_t child;
    int state = 0, code = posix_spawn_file_actions_init(&actions);
    if (code == 0) {
        code = posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        if (code == 0)
            code = posix_spawn(&child, "/bin/sh", &actions, NULL, (char *const *)(uintptr_t)args, environ);
        posix_spawn_file_actions_destroy(&actions);
    }
    str_free(&line);
    if (code)
        return status_fail(SCA_ERR_IO, "cannot start the SPICE command '%.200s': %s", command, strerror(code));
    while (waitpid(child, &state, 0) < 0)
        if (errno != EINTR) return status_fail(SCA_ERR_IO, "the SPICE command is lost: %s", strerror(errno));
    if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return SCA_OK;
    return status_fail(SCA_ERR_IO, "the SPICE command '%.200s' failed with %s %d", command,
                       WIFEXITED(state) ? "exit status" : "signal",
                       WIFEXITED(state) ? WEXITSTATUS(state) : WTERMSIG(state));
}

typedef struct output_reader {
    double *score; /* NAN: not seen */
    size_t n, seen;
} output_reader;

static sca_status output_item(void *user, const char *key, int64_t index, json_t *item)
{
    output_reader *r = user;
    const json_t *id = json_object_get(item, "image_id");
    const json_t *all = json_object_get(json_object_get(item, "scores"), "All"), *f = json_object_get(all, "f");
    int64_t i = json_integer_value(id);
    bool good = !key && json_is_integer(id) && i >= 0 && (size_t)i < r->n && (json_is_number(f) || json_is_null(f));
    if (!good)
        return status_fail(SCA_ERR_FORMAT, "element %lld: expected 'image_id' of the input and scores.All.f",
                           (long long)index);
    r->seen += r->score[i] < 0;
    r->score[i] = json_is_number(f) ? json_number_value(f) : 0;
    return SCA_OK;
}

static sca_status read_output(const char *path, size_t n, double *mean, double *per_item)
{
    output_reader r = { mem_alloc(n * sizeof(double)), n, 0 };
    if (!r.score) return mem_fail(n * sizeof(double), "SPICE");
    for (size_t i = 0; i < n; i++) r.score[i] = -1;
    sca_status status = json_stream(path, output_item, &r);
    if (status == SCA_OK && r.seen != n)
        status = status_fail(SCA_ERR_FORMAT, "%s: SPICE scores of %zu items, expected %zu", path, r.seen, n);
    double sum = 0;
    for (size_t i = 0; i < n && status == SCA_OK; i++) {
        sum += r.score[i];
        if (per_item) per_item[i] = r.score[i];
    }
    *mean = n ? sum / (double)n : 0;
    mem_free(r.score);
    return status;
}

sca_status spice_from_command(const char *command, const spice_texts *t, double *mean, double *per_item)
{
    char dir[] = P_tmpdir "/sca-spice-XXXXXX";
    sca_status status = SCA_OK;
    if (!mkdtemp(dir)) return status_fail(SCA_ERR_IO, "%s: cannot make a folder: %s", dir, strerror(errno));
    char *input = path_join(dir, "input.json"), *output = path_join(dir, "output.json");
    if (!input || !output) TRY_GOTO(done, mem_fail(sizeof dir, "path"));
    TRY_GOTO(done, write_input(input, t));
    TRY_GOTO(done, run_command(command, input, output));
    TRY_GOTO(done, read_output(output, t->n, mean, per_item));
done:
    if (input) unlink(input);
    if (output) unlink(output);
    rmdir(dir);
    mem_free(input);
    mem_free(output);
    return status;
}
