/* journal.c - files of JSON lines that grow with the steps, and go back with them. */
#include "train/parts.h"

#include <string.h>

/* The step of a line; FORMAT when it is not whole, or no line of ours. */
static sca_status step_of(const char *text, size_t bytes, const char *path, int64_t *step)
{
    json_t *line = NULL;
    TRY(json_parse(text, bytes, path, &line));
    sca_status status = json_need_int(line, "step", path, 0, INT64_MAX, step);
    json_decref(line);
    return status;
}

/* Bytes of the lines up to that step, and the largest step among them. They end at the first line that is not whole: a
 * killed run may leave half of one. */
static sca_status kept_bytes(const char *path, int64_t upto, int64_t *last, size_t *keep)
{
    file_view v;
    TRY(file_map(path, &v));
    const char *text = (const char *)v.data, *end;
    sca_status status = SCA_OK;
    while (status == SCA_OK && (end = memchr(text + *keep, '\n', v.bytes - *keep)) != NULL) {
        int64_t step = 0;
        status = step_of(text + *keep, (size_t)(end - text) - *keep, path, &step);
        if (status != SCA_OK || step > upto) break;
        if (step > *last) *last = step;
        *keep = (size_t)(end - text) + 1;
    }
    file_unmap(&v);
    return status == SCA_ERR_FORMAT ? SCA_OK : status;
}

sca_status journal_open(const char *dir, const char *name, int64_t upto, int64_t *last, file_log **out)
{
    size_t keep = 0;
    *out = NULL;
    *last = -1;
    char *path = path_join(dir, name);
    if (!path) return mem_fail(strlen(dir), "a file name");
    sca_status status = file_exists(path) ? kept_bytes(path, upto, last, &keep) : SCA_OK;
    if (status == SCA_OK) status = file_log_open(path, keep, out);
    mem_free(path);
    return status;
}

sca_status journal_put(file_log *f, json_t *object)
{
    str line = { 0 };
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(object);
    if (!text) return mem_fail(256, "a line of a log");
    str_put(&line, text);
    str_putc(&line, '\n');
    mem_free(text);
    sca_status status =
        line.failed ? mem_fail(line.bytes, "a line of a log") : file_log_put(f, line.data, line.bytes);
    str_free(&line);
    return status;
}
