/* fuzz_config.c - settings from strangers, as a file and line by line as assignments; what is accepted reads back.
 */
#include "base/base.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static sca_status open_text(const void *data, size_t size, config **out)
{
    char path[64];
    int fd = memfd_create("yaml", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) __builtin_trap();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    sca_status status = config_open(path, out);
    close(fd);
    return status;
}

static void check_dump(const config *c)
{
    str first = { 0 }, second = { 0 };
    config *back, *copy;
    if (config_dump(c, &first) != SCA_OK || open_text(str_text(&first), first.bytes, &back) != SCA_OK)
        __builtin_trap();
    if (config_copy(back, &copy) != SCA_OK || config_dump(copy, &second) != SCA_OK) __builtin_trap();
    if (strcmp(str_text(&first), str_text(&second)) != 0) __builtin_trap();
    config_close(copy);
    config_close(back);
    str_free(&first);
    str_free(&second);
}

static void assign_lines(config *c, const uint8_t *data, size_t size)
{
    for (size_t start = 0, end; start < size; start = end + 1) {
        const uint8_t *newline = memchr(data + start, '\n', size - start);
        end = newline ? (size_t)(newline - data) : size;
        char *line = text_copy((const char *)data + start, end - start);
        str value = { 0 };
        if (line && config_set(c, line) == SCA_OK) {
            line[strcspn(line, "=")] = 0;
            if (config_get(c, line, &value) != SCA_OK) __builtin_trap();
        }
        str_free(&value);
        mem_free(line);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    config *c;
    if (open_text(data, size, &c) == SCA_OK) {
        check_dump(c);
        config_close(c);
    }
    if (config_open(NULL, &c) != SCA_OK) __builtin_trap();
    assign_lines(c, data, size);
    check_dump(c);
    config_close(c);
    return 0;
}
