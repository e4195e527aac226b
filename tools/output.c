/* output.c - results on standard output or in a file, and never silently lost. */
#include "tool.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

sca_status output_probe(const char *path)
{
    struct stat info;
    /* What is there and no regular file is written in place; opening it twice could have effects. */
    if (stat(path, &info) == 0 && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) return SCA_OK;
    file_out *probe = NULL;
    TRY(file_out_open(path, &probe));
    file_out_abort(probe);
    return SCA_OK;
}

sca_status output_open(const char *path, output *out)
{
    *out = (output){ .path = path };
    return path ? output_probe(path) : SCA_OK;
}

static sca_status write_all(const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(STDOUT_FILENO, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            char buffer[128];
            return status_fail(SCA_ERR_IO, "standard output: cannot write: %s",
                               strerror_r(errno, buffer, sizeof buffer));
        }
        data += n;
        bytes -= (size_t)n;
    }
    return SCA_OK;
}

sca_status output_flush(output *o)
{
    if (o->text.failed) return mem_fail(o->text.bytes, "the output");
    if (o->path) return SCA_OK;
    sca_status status = write_all(str_text(&o->text), o->text.bytes);
    str_clear(&o->text);
    return status;
}

/* An empty write still shows that standard output is open, which a program of no output would never notice. */
sca_status output_finish(output *o)
{
    if (o->text.failed) return mem_fail(o->text.bytes, "the output");
    if (o->path) return file_write(o->path, str_text(&o->text), o->text.bytes);
    return output_flush(o);
}

void output_free(output *o) { str_free(&o->text); }

/* Terminals act on control characters and on marks that reverse text. */
static bool printable(int32_t code)
{
    return code >= 0x20 && !(code >= 0x7f && code < 0xa0) && code != 0x2028 && code != 0x2029 &&
           !(code >= 0x202a && code <= 0x202e) && !(code >= 0x2066 && code <= 0x2069);
}

void put_printable(str *s, const char *text)
{
    size_t bytes = strlen(text);
    for (size_t i = 0; i < bytes;) {
        size_t begin = i;
        int32_t code = utf8_next(text, bytes, &i);
        if (code >= 0 && printable(code))
            str_put_bytes(s, text + begin, i - begin);
        else
            str_put(s, code == '\n' || code == '\t' ? " " : "\xef\xbf\xbd");
    }
}

void put_count(str *s, int64_t n)
{
    if (n >= 1000) {
        put_count(s, n / 1000);
        str_printf(s, ",%03lld", (long long)(n % 1000));
    } else {
        str_printf(s, "%lld", (long long)n);
    }
}
