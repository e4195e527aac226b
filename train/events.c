/* events.c - TensorBoard's event files: records of protocol buffers with checksums, as far as scalars need them.
 *
 * Record: length (8 bytes), masked CRC-32C of the length, data, masked CRC-32C of the data; all little-endian.
 * Messages (tensorflow/core/util/event.proto, summary.proto): Event { double wall_time = 1; int64 step = 2;
 * string file_version = 3; Summary summary = 5; SessionLog session_log = 7 }, Summary { repeated Value value = 1 },
 * Value { string tag = 1; float simple_value = 2 }, SessionLog { status = 1 }.
 */
#include "train/parts.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

struct events {
    file_log *file;
};

/* ---- checksum ------------------------------------------------------------------------------------------- */

uint32_t crc32c(const void *data, size_t bytes)
{
    const uint8_t *p = data;
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < bytes; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
    }
    return ~crc;
}

static uint32_t masked(const void *data, size_t bytes)
{
    uint32_t crc = crc32c(data, bytes);
    return (crc >> 15 | crc << 17) + 0xA282EAD8u;
}

/* ---- protocol buffers ------------------------------------------------------------------------------------ */

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

static void put_little(str *s, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) str_putc(s, (char)(value >> (8 * i) & 255));
}

static void put_varint(str *s, uint64_t value)
{
    for (; value >= 128; value >>= 7) str_putc(s, (char)((value & 127) | 128));
    str_putc(s, (char)value);
}

static void put_key(str *s, unsigned field, unsigned wire) { put_varint(s, field << 3 | wire); }

static void put_bytes(str *s, unsigned field, const char *data, size_t bytes)
{
    put_key(s, field, WIRE_BYTES);
    put_varint(s, bytes);
    str_put_bytes(s, data, bytes);
}

static void put_event_head(str *s, int64_t step)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    uint64_t bits;
    memcpy(&bits, &seconds, sizeof bits);
    put_key(s, 1, WIRE_64);
    put_little(s, bits, 8);
    put_key(s, 2, WIRE_VARINT);
    put_varint(s, (uint64_t)step);
}

/* ---- records --------------------------------------------------------------------------------------------- */

static sca_status put_record(events *e, const str *data)
{
    str record = { 0 };
    put_little(&record, data->bytes, 8);
    put_little(&record, masked(record.data, record.bytes), 4);
    str_put_bytes(&record, str_text(data), data->bytes);
    put_little(&record, masked(str_text(data), data->bytes), 4);
    sca_status status = record.failed || data->failed ? mem_fail(data->bytes, "an event")
                                                      : file_log_put(e->file, record.data, record.bytes);
    str_free(&record);
    return status;
}

static sca_status put_start(events *e, int64_t step)
{
    static const char version[] = "brain.Event:2", start[] = { 1 << 3 | WIRE_VARINT, 1 };
    str event = { 0 };
    put_event_head(&event, 0);
    put_bytes(&event, 3, version, sizeof version - 1);
    sca_status status = put_record(e, &event);
    str_clear(&event);
    put_event_head(&event, step + 1); /* what other files say of this step and later ones no longer holds */
    put_bytes(&event, 7, start, sizeof start);
    if (status == SCA_OK) status = put_record(e, &event);
    str_free(&event);
    return status;
}

sca_status events_open(const char *dir, int64_t step, events **out)
{
    char name[64];
    struct timespec now;
    *out = NULL;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(name, sizeof name, "events.out.tfevents.%010lld.%09ld.sca", (long long)now.tv_sec, (long)now.tv_nsec);
    events *e = mem_zero(1, sizeof *e);
    char *path = path_join(dir, name);
    sca_status status = e && path ? file_log_open(path, 0, &e->file) : mem_fail(sizeof *e, "an event file");
    if (status == SCA_OK) status = put_start(e, step);
    mem_free(path);
    if (status == SCA_OK)
        *out = e;
    else
        events_close(e);
    return status;
}

sca_status events_put(events *e, int64_t step, const char *tag, double value)
{
    str item = { 0 }, summary = { 0 }, event = { 0 };
    float number = (float)value;
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    put_bytes(&item, 1, tag, strlen(tag));
    put_key(&item, 2, WIRE_32);
    put_little(&item, bits, 4);
    put_bytes(&summary, 1, str_text(&item), item.bytes);
    put_event_head(&event, step);
    put_bytes(&event, 5, str_text(&summary), summary.bytes);
    bool failed = item.failed || summary.failed;
    sca_status status = failed ? mem_fail(64, "an event") : put_record(e, &event);
    str_free(&item);
    str_free(&summary);
    str_free(&event);
    return status;
}

sca_status events_sync(events *e) { return file_log_sync(e->file); }

void events_close(events *e)
{
    if (!e) return;
    file_log_close(e->file);
    mem_free(e);
}
