/* fuzz_json.c - both ways to read JSON: whatever the bytes, they end in a value or a message, and agree. */
#include "base/base.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static sca_status count_item(void *user, const char *key, int64_t index, json_t *item)
{
    (void)key;
    *(int64_t *)user += index >= -1 && item ? 1 : 0;
    return SCA_OK;
}

/* json_stream reads files: this one lives in memory. */
static sca_status stream_bytes(const uint8_t *data, size_t size, int64_t *items)
{
    char path[64];
    int fd = memfd_create("json", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) __builtin_trap();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    sca_status status = json_stream(path, count_item, items);
    close(fd);
    return status;
}

static void check_text(const uint8_t *data, size_t size)
{
    str text = { 0 };
    json_t *back;
    json_put_text(&text, (const char *)data, size);
    if (json_parse(str_text(&text), text.bytes, "text", &back) != SCA_OK) __builtin_trap();
    if (utf8_valid((const char *)data, size) && json_string_length(back) != size) __builtin_trap();
    json_decref(back);
    str_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *value;
    int64_t items = 0;
    sca_status whole = json_parse((const char *)data, size, "fuzz", &value);
    bool streams = whole == SCA_OK && (json_is_array(value) || json_is_object(value));
    /* Streams read NaN and infinite numbers, too. */
    bool words = size > 0 && (memmem(data, size, "NaN", 3) || memmem(data, size, "Infinity", 8));
    if (size > 0 && !words && (stream_bytes(data, size, &items) == SCA_OK) != streams) __builtin_trap();
    if (streams && json_is_array(value) && items != (int64_t)json_array_size(value)) __builtin_trap();
    json_decref(value);
    check_text(data, size);
    return 0;
}
