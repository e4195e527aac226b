/* recall.c - noun and verb recall from a file of tags (metrics.md 7). */
#include "eval/words.h"

#include <math.h>
#include <string.h>

typedef enum word_class { NOUN, VERB, N_CLASSES } word_class;

typedef struct tagged {
    int32_t word;
    word_class class;
} tagged;
typedef struct document {
    size_t first, n;
} document; /* in tags.tokens: only nouns and verbs */

struct tags {
    char *path;
    lexicon words;
    tagged *tokens;
    size_t n_tokens, cap_tokens;
    document *documents;
    size_t n_documents, cap_documents;
    lexicon texts; /* of the headers; text i is document text_document[i] */
    size_t *text_document, cap_texts;
    float *vectors;      /* rows of `width` */
    int32_t *vector_row; /* per word: row, or -1 */
    size_t n_vectors, cap_vectors, width, cap_rows;
    bool open; /* a document has begun */
};

static sca_status grow(void *array, size_t size, size_t wanted, size_t *cap)
{
    if (wanted <= *cap) return SCA_OK;
    size_t n = wanted + wanted / 2 + 16, bytes;
    if (!size_mul(n, size, &bytes)) return mem_fail(SIZE_MAX, "tags");
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = mem_resize(old, bytes);
    if (!p) return mem_fail(bytes, "tags");
    memcpy(array, &p, sizeof p);
    *cap = n;
    return SCA_OK;
}

/* ---- reading ------------------------------------------------------------------------------- */

static sca_status document_begin(tags *t)
{
    TRY(grow(&t->documents, sizeof *t->documents, t->n_documents + 1, &t->cap_documents));
    t->documents[t->n_documents++] = (document){ t->n_tokens, 0 };
    t->open = true;
    return SCA_OK;
}

static sca_status header_line(tags *t, const char *text, size_t bytes, size_t line)
{
    int32_t id;
    if (t->open)
        return status_fail(SCA_ERR_FORMAT,
                           "%s line %zu: '# text' inside of a text; end the text before with an empty line",
                           t->path, line);
    size_t before = t->texts.words.count;
    TRY(lexicon_add(&t->texts, text, bytes, &id));
    if (t->texts.words.count > before) {
        TRY(grow(&t->text_document, sizeof *t->text_document, before + 1, &t->cap_texts));
        t->text_document[id] = t->n_documents;
    }
    return document_begin(t);
}

static sca_status token_line(tags *t, const char *text, size_t bytes, size_t line)
{
    const char *tab = memchr(text, '\t', bytes);
    if (!tab)
        return status_fail(SCA_ERR_FORMAT, "%s line %zu: '%.*s', expected a token, a tab and its tag", t->path,
                           line, bytes < 60 ? (int)bytes : 60, text);
    if (!t->open) TRY(document_begin(t));
    const char *tag = tab + 1;
    size_t n = bytes - (size_t)(tag - text);
    bool noun = (n == 4 && memcmp(tag, "NOUN", 4) == 0) || (n == 5 && memcmp(tag, "PROPN", 5) == 0);
    bool verb = n == 4 && memcmp(tag, "VERB", 4) == 0;
    if (!noun && !verb) return SCA_OK;
    TRY(grow(&t->tokens, sizeof *t->tokens, t->n_tokens + 1, &t->cap_tokens));
    tagged *token = &t->tokens[t->n_tokens];
    TRY(lexicon_add(&t->words, text, (size_t)(tab - text), &token->word));
    token->class = noun ? NOUN : VERB;
    t->n_tokens++;
    t->documents[t->n_documents - 1].n++;
    return SCA_OK;
}

/* "WORD<tab>NUMBER NUMBER ..." */
static sca_status vector_line(tags *t, const char *text, size_t bytes, size_t line)
{
    const char *tab = memchr(text, '\t', bytes), *end = text + bytes;
    int32_t word;
    size_t n = 0, start = t->n_vectors * t->width;
    if (!tab)
        return status_fail(SCA_ERR_FORMAT, "%s line %zu: a vector without a tab behind its word", t->path, line);
    for (const char *p = tab + 1; p < end;) {
        const char *stop = memchr(p, ' ', (size_t)(end - p));
        size_t length = (size_t)((stop ? stop : end) - p);
        char number[64] = { 0 };
        double x;
        if (length == 0) { /* several blanks */
            p++;
            continue;
        }
        if (length < sizeof number) memcpy(number, p, length);
        if (!text_to_double(number, &x))
            return status_fail(SCA_ERR_FORMAT, "%s line %zu: '%.*s', expected a number", t->path, line,
                               length < 40 ? (int)length : 40, p);
        TRY(grow(&t->vectors, sizeof *t->vectors, start + n + 1, &t->cap_vectors));
        t->vectors[start + n++] = (float)x;
        p += length;
    }
    if (t->n_vectors == 0) t->width = n;
    if (n == 0 || n != t->width)
        return status_fail(SCA_ERR_FORMAT, "%s line %zu: a vector of %zu numbers, expected %zu", t->path, line, n,
                           t->width ? t->width : 1);
    TRY(lexicon_add(&t->words, text, (size_t)(tab - text), &word));
    size_t cap = t->cap_rows;
    TRY(grow(&t->vector_row, sizeof *t->vector_row, (size_t)word + 1, &t->cap_rows));
    for (; cap < t->cap_rows; cap++) t->vector_row[cap] = -1;
    t->vector_row[word] = (int32_t)t->n_vectors++;
    return SCA_OK;
}

static sca_status tag_line(tags *t, const char *text, size_t bytes, size_t line)
{
    static const char header[] = "# text = ", vector[] = "# vector = ";
    if (bytes >= sizeof header - 1 && memcmp(text, header, sizeof header - 1) == 0)
        return header_line(t, text + sizeof header - 1, bytes - (sizeof header - 1), line);
    if (bytes >= sizeof vector - 1 && memcmp(text, vector, sizeof vector - 1) == 0)
        return vector_line(t, text + sizeof vector - 1, bytes - (sizeof vector - 1), line);
    if (bytes > 0) return token_line(t, text, bytes, line);
    if (!t->open) TRY(document_begin(t)); /* a text without tokens */
    t->open = false;
    return SCA_OK;
}

static sca_status tags_read(tags *t, const file_view *v)
{
    const char *p = (const char *)v->data, *end = p + v->bytes;
    for (size_t line = 1; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t bytes = (size_t)((stop ? stop : end) - p), cut = bytes && p[bytes - 1] == '\r';
        if (memchr(p, 0, bytes)) return status_fail(SCA_ERR_FORMAT, "%s line %zu: a 0 byte", t->path, line);
        TRY(tag_line(t, p, bytes - cut, line));
        p += bytes + 1;
    }
    return SCA_OK;
}

sca_status tags_open(const char *path, tags **out)
{
    file_view v = { 0 };
    *out = NULL;
    tags *t = mem_zero(1, sizeof *t);
    if (!t) return mem_fail(sizeof *t, "tags");
    sca_status status = SCA_OK;
    t->path = text_copy(path, strlen(path));
    if (!t->path) TRY_GOTO(done, mem_fail(strlen(path), "tags"));
    TRY_GOTO(done, file_map(path, &v));
    TRY_GOTO(done, tags_read(t, &v));
    *out = t;
    t = NULL;
done:
    file_unmap(&v);
    tags_close(t);
    return status;
}

void tags_close(tags *t)
{
    if (!t) return;
    mem_free(t->path);
    lexicon_free(&t->words);
    lexicon_free(&t->texts);
    mem_free(t->tokens);
    mem_free(t->documents);
    mem_free(t->text_document);
    mem_free(t->vectors);
    mem_free(t->vector_row);
    mem_free(t);
}

/* ---- the documents of an item -------------------------------------------------------------- */

static sca_status find_text(const tags *t, str *text, document *out)
{
    for (size_t i = 0; i < text->bytes; i++)
        if (text->data[i] == '\n' || text->data[i] == '\r') text->data[i] = ' ';
    if (text->failed) return mem_fail(text->bytes, "caption");
    int32_t id = lexicon_find(&t->texts, str_text(text), text->bytes);
    if (id < 0)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: no text '%.200s'; tag every candidate, and the references of each item "
                           "joined by spaces",
                           t->path, str_text(text));
    *out = t->documents[t->text_document[id]];
    return SCA_OK;
}

static sca_status item_documents(const tags *t, const eval_item *items, size_t i, document *hyp, document *ref)
{
    if (t->texts.words.count == 0) {
        *hyp = t->documents[2 * i], *ref = t->documents[2 * i + 1];
        return SCA_OK;
    }
    str text = { 0 };
    str_put(&text, items[i].hyp);
    sca_status status = find_text(t, &text, hyp);
    str_clear(&text);
    for (size_t k = 0; k < items[i].n_refs; k++) {
        if (k) str_putc(&text, ' ');
        str_put(&text, items[i].refs[k]);
    }
    if (status == SCA_OK) status = find_text(t, &text, ref);
    str_free(&text);
    return status;
}

/* ---- recall -------------------------------------------------------------------------------- */

static bool first_of_class(const tags *t, document d, size_t i, word_class class)
{
    const tagged *token = t->tokens + d.first;
    if (token[i].class != class) return false;
    for (size_t k = 0; k < i; k++)
        if (token[k].class == class && token[k].word == token[i].word) return false;
    return true;
}

static const float *vector_of(const tags *t, int32_t word)
{
    if ((size_t)word >= t->cap_rows || t->vector_row[word] < 0) return NULL;
    return t->vectors + (size_t)t->vector_row[word] * t->width;
}

/* Cosine of the words' vectors; 1 for the same word, 0 where a vector is absent or zero. */
static double word_similarity(const tags *t, int32_t a, int32_t b)
{
    if (a == b) return 1;
    const float *x = vector_of(t, a), *y = vector_of(t, b);
    float dot = 0, xx = 0, yy = 0;
    for (size_t i = 0; x && y && i < t->width; i++) dot += x[i] * y[i], xx += x[i] * x[i], yy += y[i] * y[i];
    return xx > 0 && yy > 0 ? (double)(dot / (sqrtf(xx) * sqrtf(yy))) : 0;
}

/* The best similarity of a word to the words of a class, 0 when there are none; *found: it is among them. */
static double best_similarity(const tags *t, int32_t word, document d, word_class class, bool *found)
{
    double best = 0;
    bool any = false;
    *found = false;
    for (size_t i = 0; i < d.n; i++) {
        const tagged *token = &t->tokens[d.first + i];
        if (token->class != class) continue;
        double x = word_similarity(t, word, token->word);
        if (!any || x > best) best = x;
        any = true;
        *found |= token->word == word;
    }
    return best;
}

static void item_recall(const tags *t, document hyp, document ref, word_class class, double *exact, double *fuzzy)
{
    double words = 0, hits = 0, near = 0;
    for (size_t i = 0; i < ref.n; i++) {
        bool found;
        if (!first_of_class(t, ref, i, class)) continue;
        words++;
        near += best_similarity(t, t->tokens[ref.first + i].word, hyp, class, &found);
        hits += found;
    }
    *exact += hits / (words + 1e-8);
    *fuzzy += near / (words + 1e-8);
}

sca_status recall_score(const tags *t, const eval_item *items, size_t n, recall_scores *out)
{
    double exact[N_CLASSES] = { 0 }, fuzzy[N_CLASSES] = { 0 };
    if (t->texts.words.count == 0 && t->n_documents != 2 * n)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: %zu texts, expected %zu: candidate and joined references of %zu items", t->path,
                           t->n_documents, 2 * n, n);
    for (size_t i = 0; i < n; i++) {
        document hyp, ref;
        TRY(item_documents(t, items, i, &hyp, &ref));
        for (int class = 0; class < N_CLASSES; class ++)
            item_recall(t, hyp, ref, (word_class) class, &exact[class], &fuzzy[class]);
    }
    double count = n ? (double)n : 1;
    *out = (recall_scores){ exact[NOUN] / count, exact[VERB] / count, fuzzy[NOUN] / count, fuzzy[VERB] / count,
                            t->n_vectors > 0 };
    return SCA_OK;
}
