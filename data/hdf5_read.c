/* hdf5_read.c - the arrays of a flat HDF5 file, in the format of hdf5_write.c and of the library's default.
 *
 * The file is mapped and never trusted: every address is checked against its size before it is followed. */
#include "data/hdf5.h"

#include <string.h>

enum { DEPTH = 8, ARRAYS_MOST = 4096, STEPS_MOST = 100000, NAME_MOST = 1024 };
#define NOWHERE UINT64_MAX

typedef struct entry {
    hdf5_array array;
    uint64_t at, bytes;
    void *copy; /* of values that lie at an odd place, as the library may put them; else NULL */
} entry;

struct hdf5 {
    file_view file;
    entry *entries;
    size_t n, cap;
    uint64_t copied;
    int steps; /* nodes and messages read: a file may lead in circles */
};

/* ---- bytes that may not be there --------------------------------------------------------------------------------------- */

static sca_status wrong(const hdf5 *f, uint64_t at, const char *expected)
{
    return status_fail(SCA_ERR_FORMAT, "%s: at byte %llu: expected %s; the file is damaged or no store",
                       f->file.path, (unsigned long long)at, expected);
}

static bool within(const hdf5 *f, uint64_t at, uint64_t bytes)
{
    return at <= f->file.bytes && bytes <= f->file.bytes - at;
}

static uint64_t number(const hdf5 *f, uint64_t at, int bytes)
{
    uint64_t v = 0;
    for (int i = 0; i < bytes; i++) v |= (uint64_t)f->file.data[at + (uint64_t)i] << (8 * i);
    return v;
}

static sca_status step(hdf5 *f, uint64_t at)
{
    return ++f->steps <= STEPS_MOST ? SCA_OK : wrong(f, at, "fewer than 100000 nodes and messages");
}

static bool is(const hdf5 *f, uint64_t at, const char *text, size_t bytes)
{
    return within(f, at, bytes) && memcmp(f->file.data + at, text, bytes) == 0;
}

/* ---- an array's header --------------------------------------------------------------------------------------------------- */

typedef struct header { /* what its messages said so far */
    entry e;
    bool shape, type, place;
} header;

static void read_shape(const hdf5 *f, uint64_t at, uint64_t bytes, header *h)
{
    uint64_t version = bytes >= 4 ? number(f, at, 1) : 0, rank = bytes >= 4 ? number(f, at + 1, 1) : 0;
    uint64_t first = version == 1 ? 8 : 4;
    if ((version != 1 && version != 2) || rank < 1 || rank > HDF5_RANK || bytes < first + 8 * rank) return;
    if (version == 2 && number(f, at + 3, 1) != 1) return; /* simple */
    h->e.array.rank = (int)rank;
    for (uint64_t i = 0; i < rank; i++) h->e.array.dim[i] = number(f, at + first + 8 * i, 8);
    h->shape = true;
}

static hdf5_type whole_type(uint64_t size, bool with_sign)
{
    if (size == 1 && !with_sign) return HDF5_U8;
    return size == 4 && with_sign ? HDF5_I32 : size == 8 && with_sign ? HDF5_I64 : HDF5_OTHER;
}

static hdf5_type real_type(const hdf5 *f, uint64_t at, uint64_t size)
{
    static const struct {
        uint64_t size, exponent_at, exponent_bits, bias;
        hdf5_type type;
    } known[] = { { 2, 10, 5, 15, HDF5_F16 }, { 4, 23, 8, 127, HDF5_F32 }, { 8, 52, 11, 1023, HDF5_F64 } };
    for (size_t i = 0; i < LENGTH(known); i++)
        if (size == known[i].size && number(f, at + 12, 1) == known[i].exponent_at &&
            number(f, at + 13, 1) == known[i].exponent_bits && number(f, at + 16, 4) == known[i].bias)
            return known[i].type;
    return HDF5_OTHER;
}

static void read_type(const hdf5 *f, uint64_t at, uint64_t bytes, header *h)
{
    if (bytes < 12) return;
    uint64_t kind = number(f, at, 1) & 15, bits = number(f, at + 1, 1), size = number(f, at + 4, 4);
    bool plain = (bits & 1) == 0 && number(f, at + 8, 2) == 0 && number(f, at + 10, 2) == size * 8;
    h->e.array.type = HDF5_OTHER;
    if (plain && kind == 0) h->e.array.type = whole_type(size, bits & 8);
    if (plain && kind == 1 && bytes >= 20) h->e.array.type = real_type(f, at, size);
    h->type = true;
}

static void read_place(const hdf5 *f, uint64_t at, uint64_t bytes, header *h)
{
    if (bytes < 18 || number(f, at, 1) != 3 || number(f, at + 1, 1) != 1) return;
    h->e.at = number(f, at + 2, 8);
    h->e.bytes = number(f, at + 10, 8);
    h->place = true;
}

static sca_status read_messages(hdf5 *f, uint64_t at, uint64_t bytes, int depth, header *h)
{
    uint64_t end = at + bytes;
    if (!within(f, at, bytes) || depth > DEPTH) return wrong(f, at, "a header within the file");
    while (end - at >= 8) {
        uint64_t type = number(f, at, 2), size = number(f, at + 2, 2), data = at + 8;
        TRY(step(f, at));
        if (size > end - data) return wrong(f, at, "a message within its header");
        switch (type) {
        case 0x01: read_shape(f, data, size, h); break;
        case 0x03: read_type(f, data, size, h); break;
        case 0x08: read_place(f, data, size, h); break;
        case 0x10:
            if (size < 16) return wrong(f, data, "the place of more messages");
            TRY(read_messages(f, number(f, data, 8), number(f, data + 8, 8), depth + 1, h));
            break;
        default: break;
        }
        at = data + size;
    }
    return SCA_OK;
}

/* ---- the group ---------------------------------------------------------------------------------------------------------- */

typedef struct names { /* the heap */
    uint64_t at, bytes;
} names;

static sca_status keep(hdf5 *f, const entry *e)
{
    if (f->n == ARRAYS_MOST) return wrong(f, e->at, "at most 4096 arrays");
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 32;
        entry *wider = mem_resize(f->entries, cap * sizeof *wider);
        if (!wider) return mem_fail(cap * sizeof *wider, "the arrays of a file");
        f->entries = wider;
        f->cap = cap;
    }
    f->entries[f->n++] = *e;
    return SCA_OK;
}

/* Together no more than the file: its arrays might all claim the same bytes. */
static sca_status copy_values(hdf5 *f, entry *e)
{
    f->copied += e->bytes;
    if (f->copied > f->file.bytes) return wrong(f, e->at, "arrays that do not overlap");
    e->copy = mem_alloc(e->bytes);
    if (!e->copy) return mem_fail(e->bytes, "an array");
    memcpy(e->copy, f->file.data + e->at, e->bytes);
    return SCA_OK;
}

/* Its values fill what its shape says, within the file; what is not stored so is left out. */
static sca_status check_array(hdf5 *f, header *h)
{
    uint64_t bytes = hdf5_bytes(h->e.array.type);
    if (!h->shape || !h->type || !h->place || h->e.array.type == HDF5_OTHER) return SCA_OK;
    for (int i = 0; i < h->e.array.rank; i++)
        if (__builtin_mul_overflow(bytes, h->e.array.dim[i], &bytes))
            return wrong(f, h->e.at, "an array that fits into the file");
    if (bytes == 0) h->e.at = 0;
    if (bytes && (bytes != h->e.bytes || !within(f, h->e.at, bytes)))
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' has %llu bytes at %llu, expected %llu within the file",
                           f->file.path, h->e.array.name, (unsigned long long)h->e.bytes,
                           (unsigned long long)h->e.at, (unsigned long long)bytes);
    h->e.bytes = bytes;
    if (h->e.at % hdf5_bytes(h->e.array.type)) TRY(copy_values(f, &h->e));
    sca_status status = keep(f, &h->e);
    if (status != SCA_OK) mem_free(h->e.copy);
    return status;
}

static sca_status read_object(hdf5 *f, const names *heap, uint64_t name, uint64_t at)
{
    header h = { .e.array.type = HDF5_OTHER };
    uint64_t room = name < heap->bytes ? heap->bytes - name : 0;
    TRY(step(f, at));
    if (!memchr(f->file.data + heap->at + (room ? name : 0), 0, room < NAME_MOST ? room : NAME_MOST))
        return wrong(f, heap->at, "the name of an array");
    h.e.array.name = (const char *)f->file.data + heap->at + name;
    if (!within(f, at, 16) || number(f, at, 1) != 1) return wrong(f, at, "an object header of version 1");
    TRY(read_messages(f, at + 16, number(f, at + 8, 4), 0, &h));
    return check_array(f, &h);
}

static sca_status read_node(hdf5 *f, const names *heap, uint64_t at)
{
    if (!is(f, at, "SNOD", 4) || !within(f, at, 8)) return wrong(f, at, "a symbol node");
    TRY(step(f, at));
    uint64_t n = number(f, at + 6, 2);
    if (!within(f, at + 8, n * 40)) return wrong(f, at, "a symbol node within the file");
    for (uint64_t i = 0; i < n; i++) {
        uint64_t symbol = at + 8 + i * 40;
        if (number(f, symbol + 16, 4) != 0) continue; /* a group or a link */
        TRY(read_object(f, heap, number(f, symbol, 8), number(f, symbol + 8, 8)));
    }
    return SCA_OK;
}

static sca_status read_tree(hdf5 *f, const names *heap, uint64_t at, int above)
{
    if (!is(f, at, "TREE\0", 5) || !within(f, at, 24)) return wrong(f, at, "a node of a group's tree");
    TRY(step(f, at));
    int level = (int)number(f, at + 5, 1);
    uint64_t n = number(f, at + 6, 2);
    if (level >= above || !within(f, at + 24, n * 16 + 8)) return wrong(f, at, "a node of a group's tree");
    for (uint64_t i = 0; i < n; i++) {
        uint64_t child = number(f, at + 24 + i * 16 + 8, 8);
        TRY(level ? read_tree(f, heap, child, level) : read_node(f, heap, child));
    }
    return SCA_OK;
}

static sca_status read_file(hdf5 *f)
{
    names heap;
    if (!is(f, 0, "\x89HDF\r\n\x1a\n", 8))
        return status_fail(SCA_ERR_FORMAT, "%s: no HDF5 file, expected a store that sca prepare wrote",
                           f->file.path);
    if (!within(f, 0, 96) || number(f, 8, 1) != 0 || number(f, 13, 2) != 0x0808 || number(f, 24, 8) != 0)
        return wrong(f, 8, "a superblock of version 0 with addresses of 8 bytes");
    if (number(f, 72, 4) != 1) return wrong(f, 72, "a root group with a symbol table");
    uint64_t tree = number(f, 80, 8), at = number(f, 88, 8);
    if (!is(f, at, "HEAP", 4) || !within(f, at, 32)) return wrong(f, at, "the names of the root group");
    heap.bytes = number(f, at + 8, 8);
    heap.at = number(f, at + 24, 8);
    if (!within(f, heap.at, heap.bytes)) return wrong(f, at, "the names of the root group");
    return read_tree(f, &heap, tree, DEPTH);
}

/* ---- asking -------------------------------------------------------------------------------------------------------------- */

sca_status hdf5_open(const char *path, hdf5 **out)
{
    *out = NULL;
    hdf5 *f = mem_zero(1, sizeof *f);
    if (!f) return mem_fail(sizeof *f, "a file");
    sca_status status = file_map(path, &f->file);
    if (status == SCA_OK) status = read_file(f);
    if (status != SCA_OK) {
        hdf5_close(f);
        return status;
    }
    *out = f;
    return SCA_OK;
}

void hdf5_close(hdf5 *f)
{
    if (!f) return;
    for (size_t i = 0; i < f->n; i++) mem_free(f->entries[i].copy);
    file_unmap(&f->file);
    mem_free(f->entries);
    mem_free(f);
}

static const entry *find(const hdf5 *f, const char *name)
{
    for (size_t i = 0; i < f->n; i++)
        if (strcmp(f->entries[i].array.name, name) == 0) return &f->entries[i];
    return NULL;
}

bool hdf5_has(const hdf5 *f, const char *name) { return find(f, name) != NULL; }

sca_status hdf5_get(const hdf5 *f, const char *name, hdf5_type type, int rank, int64_t *dim, const void **values)
{
    static const char *const types[] = { "u8", "i32", "i64", "f16", "f32", "f64", "another type" };
    static const uint64_t nothing[1];
    const entry *e = find(f, name);
    if (!e)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: no array '%s' in one piece, expected one of %s; make the store anew "
                           "with sca prepare",
                           f->file.path, name, types[type]);
    bool fits = e->array.type == type && e->array.rank == rank;
    for (int i = 0; i < rank && fits; i++) {
        fits = e->array.dim[i] <= INT64_MAX && (dim[i] < 0 || e->array.dim[i] == (uint64_t)dim[i]);
        dim[i] = (int64_t)e->array.dim[i];
    }
    if (!fits)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: array '%s' is of %s with %d dimensions, the first %llu long; expected "
                           "%s with %d, as the other arrays say",
                           f->file.path, name, types[e->array.type], e->array.rank,
                           (unsigned long long)e->array.dim[0], types[type], rank);
    *values = e->copy ? e->copy : e->bytes ? (const void *)(f->file.data + e->at) : nothing;
    return SCA_OK;
}
