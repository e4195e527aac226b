/* made.h - zip archives as torch.save writes them, for tests and fuzzing. */
#ifndef MADE_H
#define MADE_H

#include "base/base.h"

#include <string.h>
#include <zlib.h>

static inline void put_le(str *s, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) str_putc(s, (char)(value >> (8 * i)));
}

typedef struct member { /* one stored entry */
    const char *name;
    const void *data;
    size_t bytes;
} member;

static inline void put_record(str *s, str *directory, const member *m)
{
    size_t at = s->bytes;
    uint32_t crc = (uint32_t)crc32_z(0, m->data, m->bytes);
    for (int central = 0; central < 2; central++) {
        str *to = central ? directory : s;
        str_put_bytes(to, central ? "PK\001\002" : "PK\003\004", 4);
        if (central) put_le(to, 20, 2);
        put_le(to, 20, 2), put_le(to, 0, 2), put_le(to, 0, 2), put_le(to, 0, 4);
        put_le(to, crc, 4), put_le(to, m->bytes, 4), put_le(to, m->bytes, 4);
        put_le(to, strlen(m->name), 2), put_le(to, 0, 2);
        if (central) put_le(to, 0, 2), put_le(to, 0, 2), put_le(to, 0, 2), put_le(to, 0, 4), put_le(to, at, 4);
        str_put(to, m->name);
    }
    str_put_bytes(s, m->data, m->bytes);
}

static inline str zip_of(const member *members, size_t n)
{
    str s = { 0 }, directory = { 0 };
    for (size_t i = 0; i < n; i++) put_record(&s, &directory, &members[i]);
    size_t at = s.bytes;
    str_put_bytes(&s, directory.data, directory.bytes);
    str_put_bytes(&s, "PK\005\006\0\0\0\0", 8);
    put_le(&s, n, 2), put_le(&s, n, 2), put_le(&s, directory.bytes, 4), put_le(&s, at, 4), put_le(&s, 0, 2);
    str_free(&directory);
    return s;
}

#endif
