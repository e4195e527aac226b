/* evaluate_files.c - part files: one line per region, appended as the work goes on, read back after an interruption.
 *
 * The first line is the key of the evaluation. A line begins with the numbers of the image and of the region in the
 * set, so that any number of ranks may have written any share of them. */
#include "eval/evaluate_parts.h"

#include <stdio.h>
#include <string.h>

#define PART_PREFIX ".part-"
#define PART_SUFFIX ".jsonl"
enum { REGIONS_MOST = 10000000 };

static void part_name(char name[64], int rank) { snprintf(name, 64, PART_PREFIX "%d" PART_SUFFIX, rank); }

/* ---- reading ------------------------------------------------------------------------------- */

typedef struct names {
    str text; /* each with its closing 0 */
    size_t n;
} names;

static sca_status add_part(void *user, const char *name)
{
    names *n = user;
    if (!text_starts(name, PART_PREFIX) || !text_ends(name, PART_SUFFIX)) return SCA_OK;
    str_put_bytes(&n->text, name, strlen(name) + 1);
    n->n++;
    return n->text.failed ? mem_fail(n->text.bytes, "names of files") : SCA_OK;
}

static sca_status line_numbers(const json_t *record, const char *file, int64_t *image, int64_t *region, int64_t *of)
{
    TRY(json_need_int(record, "image", file, 0, INT64_MAX / 2, image));
    TRY(json_need_int(record, "of", file, 0, REGIONS_MOST, of));
    return json_need_int(record, "region", file, 0, *of ? *of - 1 : 0, region);
}

static sca_status keep_line(eval_parts *p, const char *file, const json_t *record, eval_line line)
{
    int64_t image, region, of;
    TRY(line_numbers(record, file, &image, &region, &of));
    if ((size_t)image >= p->n_images) return SCA_OK; /* a smaller eval.max_images than before */
    eval_lines *to = &p->images[image];
    to->empty = of == 0;
    if (of && !to->of) {
        to->of = mem_zero((size_t)of, sizeof *to->of);
        if (!to->of) return mem_fail((size_t)of * sizeof *to->of, "regions");
        to->count = (size_t)of;
    }
    if (to->count != (size_t)of)
        return status_fail(SCA_ERR_FORMAT, "%s: image %lld has %lld regions, expected %zu; remove the file", file,
                           (long long)image, (long long)of, to->count);
    if (of && !to->of[region].text) to->of[region] = line;
    return SCA_OK;
}

/* *valid: the bytes up to the first line that is not whole; what was written last before a crash may be anything. */
static sca_status read_part(const eval_set *e, eval_parts *p, const file_view *file, size_t *valid)
{
    const char *at = (const char *)file->data, *end = at + file->bytes;
    *valid = 0;
    for (bool first = true; at < end; first = false) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (!stop) return SCA_OK;
        size_t bytes = (size_t)(stop - at);
        json_t *record;
        if (first && (bytes != strlen(e->key) || memcmp(at, e->key, bytes) != 0))
            return status_fail(
                SCA_ERR_STATE,
                "%s: holds the beginning of another evaluation (other settings, model or data); remove "
                "it, or choose another eval.output",
                file->path);
        if (json_parse(at, bytes, file->path, &record) != SCA_OK) return SCA_OK;
        sca_status status = first ? SCA_OK : keep_line(p, file->path, record, (eval_line){ at, bytes });
        json_decref(record);
        TRY(status);
        at = stop + 1;
        *valid = (size_t)(at - (const char *)file->data);
    }
    return SCA_OK;
}

sca_status eval_parts_read(const eval_set *e, eval_parts *out)
{
    char own[64];
    names n = { 0 };
    sca_status status;
    *out = (eval_parts){ .n_images = e->images };
    part_name(own, e->ranks->rank);
    TRY_GOTO(done, dir_each(e->dir, add_part, &n));
    out->images = mem_zero(e->images, sizeof *out->images);
    out->files = mem_zero(n.n, sizeof *out->files);
    if ((e->images && !out->images) || (n.n && !out->files)) {
        status = mem_fail(e->images * sizeof *out->images, "the list of images");
        goto done;
    }
    const char *name = str_text(&n.text);
    for (; out->n_files < n.n; name += strlen(name) + 1) {
        size_t valid;
        char *path = path_join(e->dir, name);
        file_view *file = &out->files[out->n_files];
        status = path ? file_map(path, file) : mem_fail(strlen(name), "a file name");
        mem_free(path);
        if (status != SCA_OK) goto done;
        out->n_files++;
        TRY_GOTO(done, read_part(e, out, file, &valid));
        if (strcmp(name, own) == 0) out->own_bytes = valid;
    }
done:
    str_free(&n.text);
    if (status != SCA_OK) eval_parts_free(out);
    return status;
}

void eval_parts_free(eval_parts *p)
{
    for (size_t i = 0; i < p->n_files; i++) file_unmap(&p->files[i]);
    for (size_t i = 0; p->images && i < p->n_images; i++) mem_free(p->images[i].of);
    mem_free(p->files);
    mem_free(p->images);
    *p = (eval_parts){ 0 };
}

size_t eval_parts_done(const eval_parts *p, size_t image)
{
    const eval_lines *l = &p->images[image];
    size_t n = 0;
    while (n < l->count && l->of[n].text) n++;
    return n == l->count ? n : n - n % EVAL_CHUNK;
}

bool eval_parts_complete(const eval_parts *p, size_t image)
{
    const eval_lines *l = &p->images[image];
    return l->empty || (l->count > 0 && eval_parts_done(p, image) == l->count);
}

/* ---- writing ------------------------------------------------------------------------------- */

sca_status eval_parts_open(const eval_set *e, const eval_parts *p, file_log **out)
{
    char name[64];
    *out = NULL;
    part_name(name, e->ranks->rank);
    char *path = path_join(e->dir, name);
    if (!path) return mem_fail(strlen(e->dir) + sizeof name, "a file name");
    sca_status status = file_log_open(path, p->own_bytes, out);
    mem_free(path);
    if (status == SCA_OK && p->own_bytes == 0) status = file_log_put(*out, e->key, strlen(e->key));
    if (status == SCA_OK && p->own_bytes == 0) status = file_log_put(*out, "\n", 1);
    if (status != SCA_OK) {
        file_log_close(*out);
        *out = NULL;
    }
    return status;
}

sca_status eval_parts_remove(const char *dir)
{
    names n = { 0 };
    sca_status status = dir_each(dir, add_part, &n);
    const char *name = str_text(&n.text);
    for (size_t i = 0; i < n.n && status == SCA_OK; i++, name += strlen(name) + 1) {
        char *path = path_join(dir, name);
        status = path ? file_remove(path) : mem_fail(strlen(name), "a file name");
        mem_free(path);
    }
    str_free(&n.text);
    return status;
}
