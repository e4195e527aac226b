/* hdf5_write.c - a flat HDF5 file in the format that every version of the library reads (superblock 0, symbol table).
 *
 * Superblock, root group (object header, B-tree with one leaf, names, symbol nodes), an object header per array, then
 * the values. All sizes follow from the list of arrays, so that the file is written from front to back.
 * Source: "HDF5 File Format Specification Version 3.0", The HDF Group. */
#include "data/hdf5.h"

#include <stdlib.h>
#include <string.h>

enum {
    LEAF = 4,   /* half of the entries of a symbol node */
    INNER = 16, /* half of the children of a B-tree node */
    ARRAYS_MOST = 2 * LEAF * 2 * INNER,
    SUPERBLOCK = 96,
    ROOT = 16 + 24, /* header with one message */
    TREE = 24 + (2 * INNER + 1) * 8 + 2 * INNER * 8,
    NODE = 8 + 2 * LEAF * 40,
    HEAP = 32,
    ALIGN = 64 /* of values */
};
#define NOWHERE UINT64_MAX

struct hdf5_out {
    file_out *file;
    char *path;
    uint64_t left; /* bytes of values that are still to come, with the gaps */
    hdf5_array *arrays;
    uint64_t *bytes; /* (n) */
    size_t n, now;   /* now: the array that is being written */
    uint64_t in_array;
};

size_t hdf5_bytes(hdf5_type t)
{
    static const size_t bytes[] = { 1, 4, 8, 2, 4, 8, 0 };
    return bytes[t];
}

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

static void put_number(str *s, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) str_putc(s, (char)(value >> (8 * i)));
}

static void put_zeros(str *s, size_t n)
{
    while (n-- > 0) str_putc(s, 0);
}

/* ---- messages of an array's header --------------------------------------------------------------------------------- */

static size_t shape_bytes(const hdf5_array *a) { return 8 + 8 * (size_t)a->rank; }
static size_t header_bytes(const hdf5_array *a)
{
    return 16 + (8 + shape_bytes(a)) + (8 + 24) + (8 + 8) + (8 + 24);
}

static void put_message(str *s, int type, size_t bytes)
{
    put_number(s, (uint64_t)type, 2);
    put_number(s, bytes, 2);
    put_number(s, 0, 4);
}

static void put_type(str *s, hdf5_type type)
{
    size_t bytes = hdf5_bytes(type), from = s->bytes;
    bool real = type >= HDF5_F16;
    static const struct {
        uint8_t exponent_at, exponent_bits;
        uint32_t bias;
    } reals[] = { { 10, 5, 15 }, { 23, 8, 127 }, { 52, 11, 1023 } };
    put_message(s, 3, 24);
    put_number(s, real ? 0x11 : 0x10, 1);                    /* version 1, class */
    put_number(s, real ? 0x20 : type == HDF5_U8 ? 0 : 8, 1); /* a hidden leading 1; signed */
    put_number(s, real ? bytes * 8 - 1 : 0, 1);              /* place of the sign */
    put_number(s, 0, 1);
    put_number(s, bytes, 4);
    put_number(s, 0, 2);
    put_number(s, bytes * 8, 2);
    if (real) {
        put_number(s, reals[type - HDF5_F16].exponent_at, 1);
        put_number(s, reals[type - HDF5_F16].exponent_bits, 1);
        put_number(s, 0, 1);
        put_number(s, reals[type - HDF5_F16].exponent_at, 1);
        put_number(s, reals[type - HDF5_F16].bias, 4);
    }
    put_zeros(s, from + 8 + 24 - s->bytes);
}

static void put_header(str *s, const hdf5_array *a, uint64_t at, uint64_t bytes)
{
    put_number(s, 1, 2); /* version */
    put_number(s, 4, 2); /* messages */
    put_number(s, 1, 4); /* links to it */
    put_number(s, header_bytes(a) - 16, 8);
    put_message(s, 1, shape_bytes(a));
    put_number(s, 1, 1);
    put_number(s, (uint64_t)a->rank, 1);
    put_number(s, 0, 6);
    for (int i = 0; i < a->rank; i++) put_number(s, a->dim[i], 8);
    put_type(s, a->type);
    put_message(s, 5, 8);
    put_number(s, 0x00020202, 8); /* fill value: version 2, late, if set; undefined */
    put_message(s, 8, 24);
    put_number(s, 0x0103, 2); /* layout: version 3, in one piece */
    put_number(s, bytes ? at : NOWHERE, 8);
    put_number(s, bytes, 8);
    put_zeros(s, 6);
}

/* ---- the group ------------------------------------------------------------------------------------------------------- */

typedef struct plan { /* where things are; names sorted */
    const hdf5_array **sorted;
    size_t n, nodes, names_bytes;
    uint64_t tree, heap, names, node, headers, values;
    uint64_t *header_at, *value_at; /* (n) by given order */
    const hdf5_array *first;
} plan;

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const hdf5_array *const *)a)->name, (*(const hdf5_array *const *)b)->name);
}

static size_t name_bytes(const char *name) { return round_up(strlen(name) + 1, 8); }

static void place(plan *p, const uint64_t *bytes)
{
    p->nodes = p->n ? (p->n + 2 * LEAF - 1) / (2 * LEAF) : 1;
    p->names_bytes = 8;
    for (size_t i = 0; i < p->n; i++) p->names_bytes += name_bytes(p->first[i].name);
    p->tree = SUPERBLOCK + ROOT;
    p->heap = p->tree + TREE;
    p->names = p->heap + HEAP;
    p->node = p->names + p->names_bytes;
    p->headers = p->node + p->nodes * NODE;
    uint64_t at = p->headers;
    for (size_t i = 0; i < p->n; i++) {
        p->header_at[i] = at;
        at += header_bytes(&p->first[i]);
    }
    p->values = round_up(at, ALIGN);
    for (size_t i = 0, next = p->values; i < p->n; i++) {
        p->value_at[i] = next;
        next = round_up(next + bytes[i], ALIGN);
    }
}

static void put_superblock(str *s, const plan *p, uint64_t end)
{
    str_put_bytes(s, "\x89HDF\r\n\x1a\n", 8);
    put_number(s, 0, 4);
    put_number(s, 0, 1);
    put_number(s, 8, 1); /* bytes of addresses and lengths */
    put_number(s, 8, 1);
    put_number(s, 0, 1);
    put_number(s, LEAF, 2);
    put_number(s, INNER, 2);
    put_number(s, 0, 4);
    put_number(s, 0, 8);
    put_number(s, NOWHERE, 8);
    put_number(s, end, 8);
    put_number(s, NOWHERE, 8);
    put_number(s, 0, 8); /* the root's entry */
    put_number(s, SUPERBLOCK, 8);
    put_number(s, 1, 8);
    put_number(s, p->tree, 8);
    put_number(s, p->heap, 8);
    put_number(s, 1, 2); /* the root's header: version, one message */
    put_number(s, 1, 2);
    put_number(s, 1, 4);
    put_number(s, 24, 8);
    put_message(s, 0x11, 16);
    put_number(s, p->tree, 8);
    put_number(s, p->heap, 8);
}

/* Name number i of the sorted ones, in the heap. */
static uint64_t name_at(const plan *p, size_t i)
{
    uint64_t at = 8;
    for (size_t k = 0; k < i; k++) at += name_bytes(p->sorted[k]->name);
    return at;
}

static void put_tree(str *s, const plan *p)
{
    size_t from = s->bytes;
    str_put(s, "TREE");
    put_number(s, 0, 2); /* of groups, leaves below */
    put_number(s, p->nodes, 2);
    put_number(s, NOWHERE, 8);
    put_number(s, NOWHERE, 8);
    put_number(s, 0, 8);
    for (size_t i = 0; i < p->nodes; i++) {
        size_t last = (i + 1) * 2 * LEAF < p->n ? (i + 1) * 2 * LEAF : p->n;
        put_number(s, p->node + i * NODE, 8);
        put_number(s, last ? name_at(p, last - 1) : 0, 8);
    }
    put_zeros(s, from + TREE - s->bytes);
}

static void put_names(str *s, const plan *p)
{
    str_put(s, "HEAP");
    put_number(s, 0, 4);
    put_number(s, p->names_bytes, 8);
    put_number(s, 1, 8); /* nothing free */
    put_number(s, p->names, 8);
    put_zeros(s, 8);
    for (size_t i = 0; i < p->n; i++) {
        const char *name = p->sorted[i]->name;
        str_put(s, name);
        put_zeros(s, name_bytes(name) - strlen(name));
    }
}

static void put_nodes(str *s, const plan *p)
{
    for (size_t i = 0; i < p->nodes; i++) {
        size_t from = s->bytes, first = i * 2 * LEAF, n = p->n - first < 2 * LEAF ? p->n - first : 2 * LEAF;
        str_put(s, "SNOD");
        put_number(s, 1, 2);
        put_number(s, n, 2);
        for (size_t k = first; k < first + n; k++) {
            put_number(s, name_at(p, k), 8);
            put_number(s, p->header_at[p->sorted[k] - p->first], 8);
            put_zeros(s, 24);
        }
        put_zeros(s, from + NODE - s->bytes);
    }
}

static void put_all(str *s, const plan *p, const uint64_t *bytes)
{
    uint64_t end = p->n ? p->value_at[p->n - 1] + bytes[p->n - 1] : p->values;
    put_superblock(s, p, end);
    put_tree(s, p);
    put_names(s, p);
    put_nodes(s, p);
    for (size_t i = 0; i < p->n; i++) put_header(s, &p->first[i], p->value_at[i], bytes[i]);
    put_zeros(s, p->values - s->bytes);
}

/* ---- the file ---------------------------------------------------------------------------------------------------------- */

static sca_status count_bytes(const hdf5_array *a, uint64_t *bytes)
{
    *bytes = hdf5_bytes(a->type);
    for (int i = 0; i < a->rank; i++)
        if (__builtin_mul_overflow(*bytes, a->dim[i], bytes) || *bytes > INT64_MAX / 4)
            return status_fail(SCA_ERR_UNSUPPORTED, "array '%s' is larger than a file can be", a->name);
    return SCA_OK;
}

static sca_status write_header(hdf5_out *f, const plan *p)
{
    str s = { 0 };
    put_all(&s, p, f->bytes);
    sca_status status =
        s.failed ? mem_fail(s.bytes, "the header of a file") : file_out_put(f->file, s.data, s.bytes);
    str_free(&s);
    return status;
}

static sca_status make_plan(hdf5_out *f, plan *p)
{
    *p = (plan){ .n = f->n, .first = f->arrays };
    p->sorted = mem_zero(f->n, sizeof *p->sorted);
    p->header_at = mem_zero(f->n, sizeof *p->header_at);
    p->value_at = mem_zero(f->n, sizeof *p->value_at);
    if (!p->sorted || !p->header_at || !p->value_at) return mem_fail(f->n * 24, "the plan of a file");
    for (size_t i = 0; i < f->n; i++) p->sorted[i] = &f->arrays[i];
    qsort(p->sorted, f->n, sizeof *p->sorted, by_name);
    for (size_t i = 0; i < f->n; i++) TRY(count_bytes(&f->arrays[i], &f->bytes[i]));
    place(p, f->bytes);
    return SCA_OK;
}

sca_status hdf5_create(const char *path, const hdf5_array *arrays, size_t n, hdf5_out **out)
{
    sca_status status;
    plan p = { 0 };
    *out = NULL;
    ASSERT(n <= ARRAYS_MOST);
    hdf5_out *f = mem_zero(1, sizeof *f);
    if (!f) return mem_fail(sizeof *f, "a file");
    f->n = n;
    f->path = text_copy(path, strlen(path));
    f->arrays = mem_alloc(n * sizeof *arrays);
    f->bytes = mem_zero(n, sizeof *f->bytes);
    if (!f->path || !f->arrays || !f->bytes) TRY_GOTO(fail, mem_fail(n * sizeof *arrays, "a file"));
    if (n) memcpy(f->arrays, arrays, n * sizeof *arrays);
    TRY_GOTO(fail, make_plan(f, &p));
    TRY_GOTO(fail, file_out_open(path, &f->file));
    TRY_GOTO(fail, write_header(f, &p));
    *out = f;
fail:
    mem_free(p.value_at);
    mem_free(p.header_at);
    mem_free(p.sorted);
    if (status != SCA_OK) hdf5_abort(f);
    return status;
}

/* The array is whole: fills up to where the next one that has values begins. */
static sca_status next_array(hdf5_out *f)
{
    static const char zeros[ALIGN];
    size_t gap = (size_t)(round_up(f->in_array, ALIGN) - f->in_array);
    f->in_array = 0;
    return ++f->now < f->n && gap ? file_out_put(f->file, zeros, gap) : SCA_OK;
}

sca_status hdf5_put(hdf5_out *f, const void *data, size_t bytes)
{
    const char *from = data;
    while (bytes > 0) {
        while (f->now < f->n && f->in_array == f->bytes[f->now]) TRY(next_array(f));
        if (f->now == f->n) return status_fail(SCA_ERR_STATE, "%s: more values than its arrays hold", f->path);
        uint64_t room = f->bytes[f->now] - f->in_array;
        size_t n = bytes < room ? bytes : (size_t)room;
        TRY(file_out_put(f->file, from, n));
        f->in_array += n;
        from += n;
        bytes -= n;
    }
    return SCA_OK;
}

static void release(hdf5_out *f)
{
    mem_free(f->bytes);
    mem_free(f->arrays);
    mem_free(f->path);
    mem_free(f);
}

sca_status hdf5_commit(hdf5_out *f)
{
    sca_status status = SCA_OK;
    while (status == SCA_OK && f->now < f->n && f->in_array == f->bytes[f->now]) status = next_array(f);
    if (status == SCA_OK && f->now < f->n)
        status = status_fail(SCA_ERR_STATE, "%s: values of '%s' are missing", f->path, f->arrays[f->now].name);
    if (status != SCA_OK) {
        hdf5_abort(f);
        return status;
    }
    status = file_out_commit(f->file);
    release(f);
    return status;
}

void hdf5_abort(hdf5_out *f)
{
    if (!f) return;
    file_out_abort(f->file);
    release(f);
}
