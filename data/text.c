/* text.c - plain text, a phrase per line, for language models alone. The file stays mapped. */
#include "data/dataset_parts.h"

#include <string.h>

typedef struct lines {
    file_view file;
    size_t *first; /* (images + 1) where each line begins; lines that are left out lie in between */
    size_t cap;
} lines;

static size_t line_end(const lines *t, size_t at)
{
    const uint8_t *end = memchr(t->file.data + at, '\n', t->file.bytes - at);
    return end ? (size_t)(end - t->file.data) : t->file.bytes;
}

/* Without spaces around it. */
static size_t trimmed(const lines *t, size_t *at, size_t end)
{
    static const char space[] = " \t\r";
    while (*at < end && memchr(space, t->file.data[*at], sizeof space - 1)) ++*at;
    while (end > *at && memchr(space, t->file.data[end - 1], sizeof space - 1)) end--;
    return end - *at;
}

static sca_status keep_line(dataset *d, lines *t, size_t at)
{
    size_t n = (size_t)d->counts.images;
    if (n == t->cap) {
        size_t cap = n ? 2 * n : 1024, bytes;
        size_t *wider = size_mul(cap, sizeof *wider, &bytes) ? mem_resize(t->first, bytes) : NULL;
        if (!wider) return mem_fail(cap, "the lines of a text");
        t->first = wider;
        t->cap = cap;
    }
    t->first[n] = at;
    d->counts.images++;
    d->counts.regions++;
    d->counts.phrases++;
    return SCA_OK;
}

static sca_status take_line(dataset *d, lines *t, int64_t number, size_t at, size_t end)
{
    size_t bytes = trimmed(t, &at, end);
    const char *text = (const char *)t->file.data + at;
    if (bytes == 0) {
        d->counts.empty++;
        return SCA_OK;
    }
    if (!utf8_valid(text, bytes) || memchr(text, 0, bytes)) return rows_bad(d, "line", false, number, DATASET_TYPE);
    return keep_line(d, t, at);
}

sca_status text_open(dataset *d)
{
    lines *t = d->own = mem_zero(1, sizeof *t);
    if (!t) return mem_fail(sizeof *t, "a text");
    TRY(rows_file(d, d->set.annotations));
    TRY(file_map(d->set.annotations, &t->file));
    int64_t number = 0;
    for (size_t at = 0; at < t->file.bytes; number++) {
        size_t end = line_end(t, at);
        TRY(take_line(d, t, number, at, end));
        at = end + 1;
    }
    return SCA_OK;
}

sca_status text_read(const dataset *d, int64_t index, data_sample *out)
{
    const lines *t = d->own;
    size_t at = t->first[index], bytes = trimmed(t, &at, line_end(t, at));
    *out = (data_sample){ .image_id = index, .n_regions = 1 };
    out->path = text_copy(d->set.annotations, strlen(d->set.annotations));
    out->text = text_copy((const char *)t->file.data + at, bytes);
    out->phrases = mem_zero(1, sizeof *out->phrases);
    out->regions = mem_zero(1, sizeof *out->regions);
    if (!out->path || !out->text || !out->phrases || !out->regions) {
        sample_free(out);
        return mem_fail(bytes, "a line of text");
    }
    out->phrases[0] = out->text;
    out->regions[0] = (sample_region){ .id = index, .phrases = out->phrases, .n_phrases = 1, .mask = -1 };
    return SCA_OK;
}

void text_close(dataset *d)
{
    lines *t = d->own;
    if (!t) return;
    file_unmap(&t->file);
    mem_free(t->first);
    mem_free(t);
}
