/* arena.c - bump allocation on one device.
 *
 * A debug arena lays each piece out as [header 64][data][guard, at least 64, up to alignment]; the header holds
 * where the next one begins, so that all guards can be walked. Only memory the host can touch is guarded.
 */
#include "core/core.h"

#include <string.h>

#define GUARD_BYTES 64u
#define GUARD_FILL 0xC5
#define RELEASED_FILL 0xDD
#define HEADER_MAGIC 0x5CA0A7E4A0DEB06Eull

typedef struct guard_header {
    uint64_t magic;
    size_t bytes, next; /* of the data; offset of the header after this piece */
} guard_header;

/* What a CUDA device wants for its widest loads; the same everywhere, so that a plan holds to the byte. */
enum { ALIGNMENT = 256 };

static bool guarded(const arena *a) { return a->debug && a->d->kind->host_memory; }

static void fence(arena *a, size_t from, size_t to, bool closed)
{
    if (a->debug && a->d->kind->fence) a->d->kind->fence(a->d, a->base + from, to - from, closed);
}

sca_status arena_open(dev *d, size_t cap, arena *out)
{
    *out = (arena){ 0 };
    if (d->kind->measures) cap = ARENA_MEASURED_BYTES;
    const size_t alignment = ALIGNMENT;
    if (cap > SIZE_MAX - alignment) return mem_fail(cap, "an arena");
    cap = (cap + alignment - 1) / alignment * alignment;
    char *base = cap ? d->kind->alloc(d, cap) : NULL;
    if (cap && !base) {
        if (d->status != SCA_OK) return dev_check(d);
        return mem_fail(cap, "an arena");
    }
    *out = (arena){ .d = d, .base = base, .cap = cap };
    return SCA_OK;
}

void arena_close(arena *a)
{
    if (a->base) a->d->kind->release(a->d, a->base, a->cap);
    *a = (arena){ 0 };
}

size_t arena_mark(const arena *a) { return a->used; }

void arena_release(arena *a, size_t mark)
{
    ASSERT(mark <= a->used);
    if (guarded(a)) {
        ASSERT(arena_guards_intact(a));
        memset(a->base + mark, RELEASED_FILL, a->used - mark);
    }
    fence(a, mark, a->used, true);
    a->used = mark;
}

static void guard_piece(arena *a, size_t start, size_t data, size_t bytes, size_t next)
{
    guard_header header = { HEADER_MAGIC, bytes, next };
    memset(a->base + start, GUARD_FILL, data - start);
    memcpy(a->base + start, &header, sizeof header);
    memset(a->base + data + bytes, GUARD_FILL, next - data - bytes);
}

void *arena_bytes(arena *a, size_t bytes)
{
    if (a->d->status != SCA_OK) return NULL;
    const size_t alignment = ALIGNMENT;
    bool fenced = a->debug && a->d->kind->fence;
    size_t head = guarded(a) || fenced ? GUARD_BYTES : 0;
    size_t left = a->cap - a->used, extra = 2 * head;
    size_t padded = ((bytes ? bytes : 1) + extra + alignment - 1) / alignment * alignment;
    if (bytes > left || padded > left) {
        dev_fail(a->d, SCA_ERR_MEMORY, "arena full: %zu bytes wanted, %zu of %zu left", bytes, left, a->cap);
        return NULL;
    }
    size_t start = a->used, data = start + head;
    fence(a, start, start + padded, true);
    fence(a, data, data + bytes, false);
    if (guarded(a)) {
        guard_piece(a, start, data, bytes, start + padded);
        memset(a->base + data, 0xFF, bytes); /* a NaN of every float type, -1 of the integers */
    }
    a->used += padded;
    if (a->used > a->peak) a->peak = a->used;
    return a->base + data;
}

/* A signalling NaN of the type where it has one, so that a read before a write shows. */
static void fill_nan(dtype type, void *data, size_t count)
{
    static const uint64_t nan64 = 0x7FF4000000000000ull;
    static const uint32_t nan32 = 0x7FA00000u;
    static const uint16_t nan16 = 0x7D00u, nanb16 = 0x7FA0u;
    const void *pattern = type == DT_F64   ? (const void *)&nan64
                          : type == DT_F32 ? (const void *)&nan32
                          : type == DT_F16 ? (const void *)&nan16
                                           : (const void *)&nanb16;
    size_t size = dtype_bytes(type);
    for (size_t i = 0; i < count; i++) memcpy((char *)data + i * size, pattern, size);
}

tensor arena_tensor(arena *a, dtype type, int ndim, const int64_t *dim)
{
    size_t bytes = dtype_bytes(type);
    bool fits = true;
    for (int i = 0; i < ndim; i++) {
        ASSERT(dim[i] >= 0);
        fits = fits && size_mul(bytes, (size_t)dim[i], &bytes) && bytes <= INT64_MAX;
    }
    if (!fits) { /* strides could not be counted either */
        dev_fail(a->d, SCA_ERR_MEMORY, "arena full: a tensor of more bytes than can be counted was wanted");
        return (tensor){ .type = type, .ndim = 1 };
    }
    void *data = arena_bytes(a, bytes);
    tensor t = tensor_on(data, type, ndim, dim);
    if (data && guarded(a) && dtype_is_float(type)) fill_nan(type, data, (size_t)tensor_count(t));
    return t;
}

bool arena_guards_intact(const arena *a)
{
    if (!guarded(a)) return true;
    for (size_t at = 0; at < a->used;) {
        guard_header header;
        memcpy(&header, a->base + at, sizeof header);
        if (header.magic != HEADER_MAGIC || header.next <= at || header.next > a->used) return false;
        if (header.bytes > header.next - at - 2 * GUARD_BYTES) return false;
        for (size_t i = at + sizeof header; i < at + GUARD_BYTES; i++)
            if ((unsigned char)a->base[i] != GUARD_FILL) return false;
        for (size_t i = at + GUARD_BYTES + header.bytes; i < header.next; i++)
            if ((unsigned char)a->base[i] != GUARD_FILL) return false;
        at = header.next;
    }
    return true;
}
