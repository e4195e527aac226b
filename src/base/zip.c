/* zip.c - reading zip archives from memory: .pth files, wheels, jars.
 *
 * The central directory decides; what the local headers repeat must agree with it, and no two entries may share
 * bytes.
 */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>
#define ZLIB_CONST /* its input may be const */
#include <zlib.h>

enum {
    END_BYTES = 22,
    LOCATOR_BYTES = 20,
    END64_BYTES = 56,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30,
    COMMENT_MOST = 65535,
    FLAG_ENCRYPTED = 1 | 1 << 6 | 1 << 13,
    FLAG_DESCRIPTOR = 1 << 3,
    DEFLATE_RATIO = 1032 /* a deflated byte gives at most this many */
};

#define ESCAPE32 UINT32_MAX /* the value is in the zip64 extra field */

struct zip {
    const uint8_t *data;
    size_t bytes;
    char *name;         /* for messages */
    zip_entry *entries; /* in the order of the directory */
    uint64_t *headers;  /* of each entry: offset of its local header */
    size_t *sorted;     /* indices, by name */
    size_t count;
    char *names; /* all names, each closed by 0 */
};

static uint32_t le16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t le32(const uint8_t *p) { return le16(p) | le16(p + 2) << 16; }
static uint64_t le64(const uint8_t *p) { return le32(p) | (uint64_t)le32(p + 4) << 32; }

static bool is_signature(const uint8_t *p, int a, int b)
{
    return p[0] == 'P' && p[1] == 'K' && p[2] == a && p[3] == b;
}

/* ---- where the directory is -------------------------------------------------------------------------- */

typedef struct directory {
    uint64_t offset, bytes, count;
    uint64_t limit; /* first byte of the records that close the archive */
} directory;

static sca_status find_end(const zip *z, size_t *out)
{
    size_t last = z->bytes < END_BYTES ? 0 : z->bytes - END_BYTES;
    size_t first = last > COMMENT_MOST ? last - COMMENT_MOST : 0;
    for (size_t at = last + 1; z->bytes >= END_BYTES && at-- > first;)
        if (is_signature(z->data + at, 5, 6) && at + END_BYTES + le16(z->data + at + 20) == z->bytes) {
            *out = at;
            return SCA_OK;
        }
    return status_fail(SCA_ERR_FORMAT, "%s: no end of a zip directory found; the file is cut or no zip archive",
                       z->name);
}

/* The zip64 records stand before the end record when a number does not fit there. */
static sca_status read_end64(const zip *z, size_t end, directory *d)
{
    const uint8_t *locator = z->data + end - LOCATOR_BYTES;
    uint64_t at = le64(locator + 8);
    if (le32(locator + 4) != 0 || at > end - LOCATOR_BYTES || end - LOCATOR_BYTES - at < END64_BYTES ||
        !is_signature(z->data + at, 6, 6))
        return status_fail(SCA_ERR_FORMAT, "%s: damaged zip64 directory end", z->name);
    const uint8_t *p = z->data + at;
    if (le32(p + 16) != 0 || le32(p + 20) != 0 || le64(p + 24) != le64(p + 32))
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: is one of several parts of a zip archive", z->name);
    *d = (directory){ .offset = le64(p + 48), .bytes = le64(p + 40), .count = le64(p + 32), .limit = at };
    return SCA_OK;
}

static sca_status find_directory(const zip *z, directory *d)
{
    size_t end = 0;
    TRY(find_end(z, &end));
    const uint8_t *p = z->data + end;
    if (end >= LOCATOR_BYTES && is_signature(p - LOCATOR_BYTES, 6, 7)) {
        TRY(read_end64(z, end, d));
    } else {
        if (le16(p + 4) != 0 || le16(p + 6) != 0 || le16(p + 8) != le16(p + 10))
            return status_fail(SCA_ERR_UNSUPPORTED, "%s: is one of several parts of a zip archive", z->name);
        *d = (directory){ .offset = le32(p + 16), .bytes = le32(p + 12), .count = le16(p + 10), .limit = end };
    }
    if (d->offset > d->limit || d->bytes > d->limit - d->offset || d->count > d->bytes / CENTRAL_BYTES)
        return status_fail(
            SCA_ERR_FORMAT, "%s: the zip directory (%llu entries in %llu bytes at %llu) does not fit", z->name,
            (unsigned long long)d->count, (unsigned long long)d->bytes, (unsigned long long)d->offset);
    return SCA_OK;
}

/* ---- entries ----------------------------------------------------------------------------------------- */

static sca_status entry_fail(const zip *z, const zip_entry *e, const char *what)
{
    return status_fail(SCA_ERR_FORMAT, "%s: entry '%s' %s", z->name, e->name, what);
}

/* Replaces the escaped numbers by those of the zip64 extra field; false if one is not there. */
static bool read_extra64(const uint8_t *extra, size_t bytes, uint64_t *numbers[3])
{
    bool needed = *numbers[0] == ESCAPE32 || *numbers[1] == ESCAPE32 || *numbers[2] == ESCAPE32;
    while (needed && bytes >= 4) {
        size_t n = le16(extra + 2);
        if (n > bytes - 4) return false;
        const uint8_t *p = extra + 4;
        if (le16(extra) == 1) {
            for (int i = 0; i < 3; i++) {
                if (*numbers[i] != ESCAPE32) continue;
                if (n < 8) return false;
                *numbers[i] = le64(p);
                p += 8;
                n -= 8;
            }
            return true;
        }
        extra += 4 + n;
        bytes -= 4 + n;
    }
    return !needed;
}

static bool safe_name(const char *name, size_t bytes)
{
    if (bytes == 0 || memchr(name, 0, bytes) || !utf8_valid(name, bytes) || name[0] == '/') return false;
    for (size_t i = 0; i < bytes;) {
        size_t n = 0;
        while (i + n < bytes && name[i + n] != '/') n++;
        if (n == 2 && name[i] == '.' && name[i + 1] == '.') return false;
        i += n + 1;
    }
    return true;
}

/* Checks the local header, and finds the data behind it. */
static sca_status read_local(const zip *z, zip_entry *e, uint64_t header, uint64_t limit)
{
    if (header > limit || limit - header < LOCAL_BYTES || !is_signature(z->data + header, 3, 4))
        return entry_fail(z, e, "has no local header");
    const uint8_t *p = z->data + header;
    size_t name_bytes = le16(p + 26), extra_bytes = le16(p + 28);
    uint64_t room = limit - header - LOCAL_BYTES;
    if (name_bytes + extra_bytes > room || e->bytes_packed > room - name_bytes - extra_bytes)
        return entry_fail(z, e, "reaches beyond the data of the archive");
    bool same = strlen(e->name) == name_bytes && memcmp(e->name, p + LOCAL_BYTES, name_bytes) == 0 &&
                (int)le16(p + 8) == e->method && (le16(p + 6) & FLAG_ENCRYPTED) == 0;
    if (!(le16(p + 6) & FLAG_DESCRIPTOR))
        same = same && le32(p + 14) == e->crc && (le32(p + 18) == ESCAPE32 || le32(p + 18) == e->bytes_packed) &&
               (le32(p + 22) == ESCAPE32 || le32(p + 22) == e->bytes);
    if (!same) return entry_fail(z, e, "has a local header that differs from the directory");
    e->offset = header + LOCAL_BYTES + name_bytes + extra_bytes;
    return SCA_OK;
}

/* The entry whose directory record is at p; *used is how long the record is. */
static sca_status read_entry(zip *z, const uint8_t *p, uint64_t left, const directory *d, char **names,
                             size_t *used)
{
    zip_entry *e = &z->entries[z->count];
    if (left < CENTRAL_BYTES || !is_signature(p, 1, 2))
        return status_fail(SCA_ERR_FORMAT, "%s: damaged zip directory at entry %zu", z->name, z->count);
    size_t name_bytes = le16(p + 28), extra_bytes = le16(p + 30);
    *used = CENTRAL_BYTES + name_bytes + extra_bytes + le16(p + 32);
    if (*used > left)
        return status_fail(SCA_ERR_FORMAT, "%s: the zip directory ends in entry %zu", z->name, z->count);
    const char *name = (const char *)p + CENTRAL_BYTES;
    if (!safe_name(name, name_bytes))
        return status_fail(SCA_ERR_FORMAT, "%s: entry %zu has the name '%.*s', expected a relative path in UTF-8",
                           z->name, z->count, (int)name_bytes, name);
    memcpy(*names, name, name_bytes);
    (*names)[name_bytes] = 0;
    uint64_t header = le32(p + 42);
    *e = (zip_entry){ .name = *names,
                      .bytes_packed = le32(p + 20),
                      .bytes = le32(p + 24),
                      .crc = le32(p + 16),
                      .method = (int)le16(p + 10) };
    *names += name_bytes + 1;
    if (le16(p + 8) & FLAG_ENCRYPTED) return entry_fail(z, e, "is encrypted");
    if (!read_extra64((const uint8_t *)name + name_bytes, extra_bytes,
                      (uint64_t *[3]){ &e->bytes, &e->bytes_packed, &header }))
        return entry_fail(z, e, "lacks its zip64 sizes");
    if (e->method == 0 && e->bytes != e->bytes_packed)
        return entry_fail(z, e, "is stored with two different sizes");
    TRY(read_local(z, e, header, d->offset));
    z->headers[z->count] = header;
    return SCA_OK;
}

static sca_status read_entries(zip *z, const directory *d)
{
    const uint8_t *p = z->data + d->offset;
    uint64_t left = d->bytes;
    char *names = z->names;
    for (z->count = 0; z->count < d->count; z->count++) {
        size_t used = 0;
        TRY(read_entry(z, p, left, d, &names, &used));
        p += used;
        left -= used;
    }
    return SCA_OK;
}

/* ---- order: overlaps and names ----------------------------------------------------------------------- */

static int by_header(const void *a, const void *b, void *user)
{
    const zip *z = user;
    uint64_t x = z->headers[*(const size_t *)a], y = z->headers[*(const size_t *)b];
    return (x > y) - (x < y);
}

static int by_name(const void *a, const void *b, void *user)
{
    const zip *z = user;
    return strcmp(z->entries[*(const size_t *)a].name, z->entries[*(const size_t *)b].name);
}

/* In place (heap sort): qsort_r may allocate behind the back of mem_alloc. */
static void sort(size_t *items, size_t count, int (*compare)(const void *, const void *, void *), void *user)
{
    for (size_t start = count / 2, end = count; end > 1;) {
        if (start > 0) {
            start--;
        } else {
            size_t top = items[--end];
            items[end] = items[0];
            items[0] = top;
        }
        for (size_t root = start, child; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && compare(&items[child], &items[child + 1], user) < 0) child++;
            if (compare(&items[root], &items[child], user) >= 0) break;
            size_t moved = items[root];
            items[root] = items[child];
            items[child] = moved;
        }
    }
}

static sca_status check_order(zip *z)
{
    for (size_t i = 0; i < z->count; i++) z->sorted[i] = i;
    sort(z->sorted, z->count, by_header, z);
    for (size_t i = 1; i < z->count; i++) {
        const zip_entry *before = &z->entries[z->sorted[i - 1]];
        if (z->headers[z->sorted[i]] < before->offset + before->bytes_packed)
            return entry_fail(z, &z->entries[z->sorted[i]], "overlaps another one");
    }
    sort(z->sorted, z->count, by_name, z);
    for (size_t i = 1; i < z->count; i++)
        if (strcmp(z->entries[z->sorted[i - 1]].name, z->entries[z->sorted[i]].name) == 0)
            return entry_fail(z, &z->entries[z->sorted[i]], "is there twice");
    return SCA_OK;
}

static sca_status open_at(zip *z, const char *name)
{
    directory d = { 0 };
    z->name = text_copy(name, strlen(name));
    if (!z->name) return mem_fail(strlen(name) + 1, "a file name");
    TRY(find_directory(z, &d));
    size_t count = (size_t)d.count;
    z->entries = mem_zero(count, sizeof *z->entries);
    z->headers = mem_zero(count, sizeof *z->headers);
    z->sorted = mem_zero(count, sizeof *z->sorted);
    z->names = mem_alloc((size_t)d.bytes); /* a record is longer than its name and a 0 */
    if (!z->entries || !z->headers || !z->sorted || !z->names) return mem_fail((size_t)d.bytes, name);
    TRY(read_entries(z, &d));
    return check_order(z);
}

/* ---- the archive ------------------------------------------------------------------------------------- */

sca_status zip_open(const void *data, size_t bytes, const char *name, zip **out)
{
    *out = NULL;
    zip *z = mem_zero(1, sizeof *z);
    if (!z) return mem_fail(sizeof *z, name);
    z->data = data;
    z->bytes = bytes;
    sca_status status = open_at(z, name);
    if (status != SCA_OK) {
        zip_close(z);
        return status;
    }
    *out = z;
    return SCA_OK;
}

size_t zip_count(const zip *z) { return z->count; }

const zip_entry *zip_at(const zip *z, size_t i) { return i < z->count ? &z->entries[i] : NULL; }

const zip_entry *zip_find(const zip *z, const char *name)
{
    size_t low = 0, high = z->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const zip_entry *e = &z->entries[z->sorted[middle]];
        int order = strcmp(e->name, name);
        if (order == 0) return e;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

static sca_status check_crc(const zip *z, const zip_entry *e, const uint8_t *data)
{
    uint32_t crc = (uint32_t)crc32_z(0, data, (z_size_t)e->bytes);
    return crc == e->crc ? SCA_OK : entry_fail(z, e, "is damaged: its checksum differs");
}

sca_status zip_view(const zip *z, const zip_entry *e, const uint8_t **data)
{
    *data = NULL;
    if (e->method != 0)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: entry '%s' is compressed, expected a stored one", z->name,
                           e->name);
    TRY(check_crc(z, e, z->data + e->offset));
    *data = z->data + e->offset;
    return SCA_OK;
}

static void *zlib_alloc(void *user, unsigned count, unsigned size)
{
    (void)user;
    return mem_zero(count, size);
}

static void zlib_free(void *user, void *p)
{
    (void)user;
    mem_free(p);
}

/* Feeds and drains zlib in pieces that its 32-bit counts can hold. */
static int inflate_all(z_stream *s, const uint8_t *in, uint64_t in_bytes, uint8_t *out, uint64_t out_bytes)
{
    const uint64_t piece = 1u << 30;
    uint8_t spare; /* room for a byte too many, so that zlib can reach its end mark when all is written */
    int r = Z_OK;
    while (r == Z_OK) {
        if (s->avail_in == 0) {
            s->next_in = in;
            s->avail_in = (uInt)(in_bytes < piece ? in_bytes : piece);
            in += s->avail_in;
            in_bytes -= s->avail_in;
        }
        if (s->avail_out == 0 && out_bytes == 0) {
            s->next_out = &spare;
            s->avail_out = 1;
            r = inflate(s, Z_NO_FLUSH);
            return r == Z_STREAM_END && s->avail_out == 1 && s->avail_in == 0 && in_bytes == 0 ? r : Z_DATA_ERROR;
        }
        if (s->avail_out == 0) {
            s->next_out = out;
            s->avail_out = (uInt)(out_bytes < piece ? out_bytes : piece);
            out += s->avail_out;
            out_bytes -= s->avail_out;
        }
        r = inflate(s, Z_NO_FLUSH);
    }
    if (r == Z_STREAM_END && (s->avail_out > 0 || out_bytes > 0 || s->avail_in > 0 || in_bytes > 0))
        return Z_DATA_ERROR;
    return r;
}

static sca_status inflate_entry(const zip *z, const zip_entry *e, uint8_t *out)
{
    z_stream s = { .zalloc = zlib_alloc, .zfree = zlib_free };
    if (inflateInit2(&s, -MAX_WBITS) != Z_OK) return mem_fail(0, "zlib");
    int r = inflate_all(&s, z->data + e->offset, e->bytes_packed, out, e->bytes);
    inflateEnd(&s);
    if (r == Z_MEM_ERROR) return mem_fail(0, "zlib");
    return r == Z_STREAM_END ? SCA_OK : entry_fail(z, e, "is damaged: it does not inflate to its size");
}

sca_status zip_read(const zip *z, const zip_entry *e, size_t limit, uint8_t **data)
{
    *data = NULL;
    if (e->method != 0 && e->method != 8)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: entry '%s' has compression method %d, expected 0 or 8",
                           z->name, e->name, e->method);
    if (e->bytes > limit)
        return status_fail(SCA_ERR_FORMAT, "%s: entry '%s' has %llu bytes, expected at most %zu", z->name, e->name,
                           (unsigned long long)e->bytes, limit);
    if (e->bytes / DEFLATE_RATIO > e->bytes_packed) return entry_fail(z, e, "cannot have the size it claims");
    uint8_t *out = mem_alloc((size_t)e->bytes);
    if (!out) return mem_fail((size_t)e->bytes, e->name);
    sca_status status = SCA_OK;
    if (e->method == 8)
        status = inflate_entry(z, e, out);
    else if (e->bytes > 0)
        memcpy(out, z->data + e->offset, (size_t)e->bytes);
    if (status == SCA_OK) status = check_crc(z, e, out);
    if (status != SCA_OK) {
        mem_free(out);
        return status;
    }
    *data = out;
    return SCA_OK;
}

void zip_close(zip *z)
{
    if (!z) return;
    mem_free(z->names);
    mem_free(z->sorted);
    mem_free(z->headers);
    mem_free(z->entries);
    mem_free(z->name);
    mem_free(z);
}
