/* tokenizer_split.c - cuts a text into words before BPE (the pre-tokenizers of tokenizer.json). */
#include "model/tokenizer_private.h"

#include <string.h>

#define MATCH_STEPS_MOST 10000000u /* of one search: no sound pattern comes near */
#define MATCH_HEAP_KIB 65536u      /* of the interpreter; the compiled form uses 32 KiB of stack and falls back */

static void *pcre_alloc(size_t bytes, void *user) { return (void)user, mem_alloc(bytes); }
static void pcre_free(void *p, void *user)
{
    (void)user;
    mem_free(p);
}

/* What is white space depends on the library; Unicode's property does not. */
static void translate(const char *pattern, str *out)
{
    for (const char *p = pattern; *p; p++) {
        if (*p == '\\' && (p[1] == 's' || p[1] == 'S')) {
            str_put(out, p[1] == 's' ? "\\p{White_Space}" : "\\P{White_Space}");
            p++;
            continue;
        }
        str_putc(out, *p);
        if (*p == '\\' && p[1]) str_putc(out, *++p);
    }
}

static sca_status pattern_compile(split_step *s, const char *pattern, const char *file)
{
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C;
    sca_status status = SCA_OK;
    str text = { 0 };
    pcre2_compile_context *context = NULL;
    pcre2_general_context *memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    translate(pattern, &text);
    TRY_GOTO(out, str_check(&text, "a split pattern"));
    if (memory) context = pcre2_compile_context_create(memory);
    if (!context) {
        status = mem_fail(sizeof(void *), "compiling a split pattern");
        goto out;
    }
    int error = 0;
    PCRE2_SIZE offset = 0;
    s->code = pcre2_compile((PCRE2_SPTR)str_text(&text), text.bytes, options, &error, &offset, context);
    if (!s->code) {
        PCRE2_UCHAR why[160] = "";
        pcre2_get_error_message(error, why, sizeof why);
        status = error == PCRE2_ERROR_HEAP_FAILED
                     ? mem_fail(text.bytes, "compiling a split pattern")
                     : status_fail(SCA_ERR_FORMAT,
                                   "%s: found the split pattern '%.200s', expected a regular expression: %s", file,
                                   pattern, (const char *)why);
        goto out;
    }
    s->jit = pcre2_jit_compile(s->code, PCRE2_JIT_COMPLETE) == 0; /* without it the interpreter does the same */
out:
    pcre2_compile_context_free(context);
    pcre2_general_context_free(memory);
    str_free(&text);
    return status;
}

static sca_status next_step(tokenizer *t, const char *file, split_step **out)
{
    if (t->n_split == SPLIT_STEPS_MOST)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: has more than %d pre-tokenizers, expected at most that many",
                           file, SPLIT_STEPS_MOST);
    *out = &t->split[t->n_split++];
    **out = (split_step){ 0 };
    return SCA_OK;
}

sca_status split_add(tokenizer *t, split_kind kind, const char *pattern_or_null, const char *file)
{
    split_step *s = NULL;
    TRY(next_step(t, file, &s));
    s->kind = kind;
    return pattern_or_null ? pattern_compile(s, pattern_or_null, file) : SCA_OK;
}

sca_status split_add_metaspace(tokenizer *t, const char *replacement, bool prepend, bool always, bool whole,
                               const char *file)
{
    split_step *s = NULL;
    TRY(next_step(t, file, &s));
    s->kind = SPLIT_METASPACE;
    s->prepend = prepend;
    s->prepend_always = always;
    s->whole = whole;
    s->replacement = text_copy(replacement, strlen(replacement));
    return s->replacement ? SCA_OK : mem_fail(strlen(replacement), "a pre-tokenizer");
}

void split_free(split_step *s)
{
    pcre2_code_free(s->code);
    mem_free(s->replacement);
    *s = (split_step){ 0 };
}

/* ---- matching ------------------------------------------------------------------------------------------------ */

static sca_status match_open(encoder *e, int step)
{
    pcre2_general_context *memory = pcre2_general_context_create(pcre_alloc, pcre_free, NULL);
    if (memory && !e->context) {
        e->context = pcre2_match_context_create(memory);
        if (e->context) {
            pcre2_set_match_limit(e->context, MATCH_STEPS_MOST);
            pcre2_set_heap_limit(e->context, MATCH_HEAP_KIB);
        }
    }
    if (memory) e->match[step] = pcre2_match_data_create(1, memory);
    pcre2_general_context_free(memory);
    return e->context && e->match[step] ? SCA_OK : mem_fail(sizeof(void *), "splitting a text");
}

static sca_status match_failed(int rc)
{
    PCRE2_UCHAR why[160] = "";
    if (rc == PCRE2_ERROR_NOMEMORY) return mem_fail(0, "splitting a text");
    pcre2_get_error_message(rc, why, sizeof why);
    return status_fail(SCA_ERR_FORMAT,
                       "the tokenizer's split pattern cannot be applied: %s; expected a pattern that "
                       "needs fewer steps",
                       (const char *)why);
}

/* The next non-empty match at or after `from`; *start == *end: none. */
static sca_status match_next(encoder *e, int step, const char *text, size_t bytes, size_t from, size_t *start,
                             size_t *end)
{
    const split_step *s = &e->t->split[step];
    if (!e->match[step]) TRY(match_open(e, step));
    uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
    pcre2_match_data *data = e->match[step];
    int rc = pcre2_match(s->code, (PCRE2_SPTR)text, bytes, from, options, data, e->context);
    if (s->jit && rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(s->code, (PCRE2_SPTR)text, bytes, from, options | PCRE2_NO_JIT, data, e->context);
    *start = *end = bytes;
    if (rc == PCRE2_ERROR_NOMATCH) return SCA_OK;
    if (rc < 0) return match_failed(rc);
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(data);
    if (at[0] < from || at[1] <= at[0]) /* \K can do that */
        return status_fail(SCA_ERR_FORMAT,
                           "the tokenizer's split pattern matches backwards, expected no \\K in it");
    *start = at[0];
    *end = at[1];
    return SCA_OK;
}

static sca_status run_pattern(encoder *e, int step, const char *text, size_t bytes)
{
    split_kind kind = e->t->split[step].kind;
    for (size_t at = 0; at < bytes;) {
        size_t start = 0, end = 0;
        TRY(match_next(e, step, text, bytes, at, &start, &end));
        if (start > at && kind != SPLIT_INVERTED) TRY(split_run(e, step + 1, text + at, start - at));
        if (end > start && kind != SPLIT_REMOVED) TRY(split_run(e, step + 1, text + start, end - start));
        at = end;
    }
    return SCA_OK;
}

static sca_status run_prefix(encoder *e, int step, const char *text, size_t bytes)
{
    if (bytes == 0 || text[0] == ' ') return split_run(e, step + 1, text, bytes);
    str *s = &e->scratch[step];
    str_clear(s);
    str_putc(s, ' ');
    str_put_bytes(s, text, bytes);
    TRY(str_check(s, "splitting a text"));
    return split_run(e, step + 1, s->data, s->bytes);
}

static sca_status run_metaspace(encoder *e, int step, const char *text, size_t bytes)
{
    const split_step *m = &e->t->split[step];
    size_t length = strlen(m->replacement);
    str *s = &e->scratch[step];
    str_clear(s);
    bool there = (bytes > 0 && text[0] == ' ') || (bytes >= length && memcmp(text, m->replacement, length) == 0);
    if (m->prepend && !there && (m->prepend_always || e->text_begins)) str_put(s, m->replacement);
    for (size_t i = 0; i < bytes; i++) {
        if (text[i] == ' ')
            str_put(s, m->replacement);
        else
            str_putc(s, text[i]);
    }
    TRY(str_check(s, "splitting a text"));
    size_t start = 0;
    for (size_t i = 1; i < s->bytes && !m->whole; i++) {
        if (s->bytes - i < length || memcmp(s->data + i, m->replacement, length) != 0) continue;
        TRY(split_run(e, step + 1, s->data + start, i - start));
        start = i;
    }
    return s->bytes > start ? split_run(e, step + 1, s->data + start, s->bytes - start) : SCA_OK;
}

sca_status split_run(encoder *e, int step, const char *text, size_t bytes)
{
    if (step == e->t->n_split) return model_encode(e, text, bytes);
    switch (e->t->split[step].kind) {
    case SPLIT_PREFIX: return run_prefix(e, step, text, bytes);
    case SPLIT_METASPACE: return run_metaspace(e, step, text, bytes);
    default: return run_pattern(e, step, text, bytes);
    }
}
