/* check.cpp - what a kernel may touch: its stack, its shared memory without races, its device's memory within bounds.
 *
 * The kernels are compiled with the compiler's instrumentation for thread sanitizers (-fsanitize=thread), but linked
 * without that library: every load and store calls a function of this file first. Under AddressSanitizer the kernels
 * carry its instrumentation instead, and only the accesses of the wrappers in kernel.cuh are seen here.
 */
#include "cuda/simt/inside.h"

extern "C" {
#include "base/base.h"
}

#include <link.h>
#include <pthread.h>

/* ---- memory of the device ---------------------------------------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static allocation allocations[MOST_ALLOCATIONS];
static int n_allocations;

cudaError_t simt_malloc(void **p, size_t bytes)
{
    *p = NULL;
    size_t whole = (bytes + 255) / 256 * 256;
    char *start = whole >= bytes ? static_cast<char *>(mem_aligned(256, whole ? whole : 256)) : NULL;
    if (!start) return cudaErrorMemoryAllocation;
    pthread_mutex_lock(&lock);
    bool room = n_allocations < MOST_ALLOCATIONS;
    allocation a = { start, bytes, NULL };
    if (room) allocations[n_allocations++] = a;
    pthread_mutex_unlock(&lock);
    if (!room) {
        mem_free(start);
        return cudaErrorMemoryAllocation;
    }
    *p = start;
    return cudaSuccess;
}

cudaError_t simt_free(void *p)
{
    if (!p) return cudaSuccess;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_allocations; i++)
        if (allocations[i].start == p) {
            mem_free(allocations[i].fenced);
            allocations[i] = allocations[--n_allocations];
            break;
        }
    pthread_mutex_unlock(&lock);
    mem_free(p);
    return cudaSuccess;
}

static void fence(allocation *a, size_t from, size_t bytes, bool closed)
{
    if (!a->fenced) a->fenced = static_cast<unsigned char *>(mem_zero(a->bytes / 8 + 1, 1));
    if (!a->fenced) return; /* less is checked */
    for (size_t i = from; i < from + bytes;) {
        if (i % 8 == 0 && from + bytes - i >= 8) { /* whole bytes of the map at once */
            size_t n = (from + bytes - i) / 8;
            memset(a->fenced + i / 8, closed ? 0xff : 0, n);
            i += 8 * n;
            continue;
        }
        unsigned char bit = (unsigned char)(1u << i % 8);
        if (closed)
            a->fenced[i / 8] |= bit;
        else
            a->fenced[i / 8] &= (unsigned char)~bit;
        i++;
    }
}

void simt_fence(void *p, size_t bytes, bool closed)
{
    char *start = static_cast<char *>(p);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < n_allocations; i++) {
        allocation *a = &allocations[i];
        if (start >= a->start && start < a->start + a->bytes) {
            size_t from = (size_t)(start - a->start), left = a->bytes - from;
            fence(a, from, bytes < left ? bytes : left, closed);
        }
    }
    pthread_mutex_unlock(&lock);
}

void simt_snapshot(machine *m)
{
    pthread_mutex_lock(&lock);
    memcpy(m->allocations, allocations, (size_t)n_allocations * sizeof *allocations);
    m->n_allocations = n_allocations;
    pthread_mutex_unlock(&lock);
    m->last = m->allocations;
}

static bool fenced(const allocation *a, size_t from, unsigned bytes)
{
    for (size_t i = from; i < from + bytes; i++)
        if (a->fenced[i / 8] >> i % 8 & 1) return true;
    return false;
}

static bool holds(const allocation *a, const char *p, unsigned bytes)
{
    size_t from = (size_t)(p - a->start);
    return p >= a->start && from < a->bytes && bytes <= a->bytes - from;
}

/* ---- what is constant: the data of the program and its libraries ---------------------------------------------------- */

struct image_search {
    uintptr_t p;
    bool found;
};

static int look_in_image(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    image_search *s = static_cast<image_search *>(context);
    for (int i = 0; i < info->dlpi_phnum; i++) {
        uintptr_t start = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
        bool loaded = info->dlpi_phdr[i].p_type == PT_LOAD;
        if (loaded && s->p >= start && s->p < start + info->dlpi_phdr[i].p_memsz) s->found = true;
    }
    return s->found;
}

static bool in_image(const char *p)
{
    image_search s = { reinterpret_cast<uintptr_t>(p), false };
    dl_iterate_phdr(look_in_image, &s);
    return s.found;
}

/* ---- global memory ----------------------------------------------------------------------------------------------------- */

static void check_global(machine *m, const char *p, unsigned bytes, simt_access kind)
{
    const char *verb = kind == SIMT_READ ? "read" : "write";
    if (!m->n_allocations || !holds(m->last, p, bytes)) {
        const allocation *a = NULL;
        for (int i = 0; i < m->n_allocations && !a; i++)
            if (holds(&m->allocations[i], p, bytes)) a = &m->allocations[i];
        if (!a && kind == SIMT_READ && in_image(p)) return;
        if (!a)
            simt_fail("out of bounds: a %s of %u bytes at %p, outside of the device's memory", verb, bytes,
                      static_cast<const void *>(p));
        m->last = a;
    }
    if (m->last->fenced && fenced(m->last, (size_t)(p - m->last->start), bytes))
        simt_fail("out of bounds: a %s of %u bytes at byte %zu of an arena, where no tensor is", verb, bytes,
                  (size_t)(p - m->last->start));
}

/* ---- shared memory: races ------------------------------------------------------------------------------------------------ */

void simt_records_clear(machine *m)
{
    /* Clocks above all earlier ones make the records of earlier blocks harmless. */
    if (m->next_clock > 0xf0000000u) {
        memset(m->records, 0, (SHARED_BYTES + STATIC_SHARED_BYTES) / 2 * sizeof *m->records);
        m->next_clock = 0;
    }
    uint32_t most = m->next_clock;
    for (unsigned w = 0; w < MOST_WARPS; w++)
        if (m->clock[w][w] > most) most = m->clock[w][w];
    m->next_clock = most + 1;
    for (unsigned w = 0; w < MOST_WARPS; w++)
        for (unsigned v = 0; v < MOST_WARPS; v++) m->clock[w][v] = m->next_clock;
}

static bool ordered(const machine *m, const touch *t, unsigned rank)
{
    return t->thread == rank || t->clock < m->clock[rank / SIMT_WARP][t->thread / SIMT_WARP];
}

static void race(machine *m, size_t offset, const touch *t, const char *before, const char *now)
{
    const char *where = offset < m->dynamic_bytes ? "dynamic shared memory" : "SHARED memory";
    size_t base = 0;
    for (int i = 0; i < m->n_places; i++)
        if (offset >= m->places[i].offset) base = m->places[i].offset;
    simt_fail("race: it %s byte %zu of %s%s, which thread %u %s with no barrier between", now, offset - base, where,
              base ? " (of one declaration)" : "", t->thread, before);
}

static void check_shared(machine *m, const char *p, unsigned bytes, simt_access kind)
{
    size_t offset = (size_t)(p - m->shared);
    unsigned rank = m->running;
    if (offset + bytes > m->shared_used)
        simt_fail("out of bounds: %u bytes at byte %zu of shared memory, %zu are in use", bytes, offset,
                  m->shared_used);
    touch now = { m->clock[rank / SIMT_WARP][rank / SIMT_WARP], (uint16_t)rank, kind == SIMT_ATOMIC_ACCESS };
    for (size_t i = offset / 2; i <= (offset + bytes - 1) / 2; i++) {
        pair_record *r = &m->records[i];
        if (!ordered(m, &r->write, rank) && !(now.atomic && r->write.atomic))
            race(m, offset, &r->write, "wrote", kind == SIMT_READ ? "reads" : "writes");
        if (kind == SIMT_READ) {
            touch *slot = r->read[0].thread == rank || ordered(m, &r->read[0], rank) ? &r->read[0] : &r->read[1];
            *slot = now;
            continue;
        }
        for (int k = 0; k < 2; k++)
            if (!ordered(m, &r->read[k], rank)) race(m, offset, &r->read[k], "read", "writes");
        r->write = now;
    }
}

/* ---- every access -------------------------------------------------------------------------------------------------------- */

static inline void check(const void *address, unsigned bytes, unsigned alignment, simt_access kind,
                         const void *place)
{
    machine *m = simt_machine;
    if (!m) return; /* a launcher, on the host */
    const char *p = static_cast<const char *>(address);
    fiber *f = &m->fibers[m->running];
    if ((size_t)(p - f->stack) < (size_t)(reinterpret_cast<char *>(f->self + 1) - f->stack)) return;
    if ((size_t)(p - m->context) < m->context_bytes) return;
    if (reinterpret_cast<uintptr_t>(p) % alignment)
        simt_fail("misaligned: an access of %u bytes at %p", bytes, address);
    bool shared = (size_t)(p - m->shared) < SHARED_BYTES + STATIC_SHARED_BYTES;
    if (shared)
        check_shared(m, p, bytes, kind);
    else
        check_global(m, p, bytes, kind);
    if (m->counting) simt_count_access(m, m->running, place, p, bytes, shared);
}

void simt_note(const void *p, unsigned bytes, unsigned alignment, simt_access kind)
{
    check(p, bytes, alignment, kind, __builtin_return_address(0));
}

void simt_note_at(const void *p, unsigned bytes, unsigned alignment, simt_access kind, const void *place)
{
    check(p, bytes, alignment, kind, place);
}

void simt_load(void *to, const void *p, unsigned bytes)
{
    simt_note_at(p, bytes, bytes, SIMT_READ, __builtin_return_address(0));
    memcpy(to, p, bytes);
}

void simt_store(void *p, const void *from, unsigned bytes)
{
    simt_note_at(p, bytes, bytes, SIMT_WRITE, __builtin_return_address(0));
    memcpy(p, from, bytes);
}

void simt_note_atomic(void *p, unsigned bytes)
{
    check(p, bytes, bytes, SIMT_ATOMIC_ACCESS, __builtin_return_address(0));
}

/* ---- the compiler's calls --------------------------------------------------------------------------------------------------- */

#ifndef WITH_ASAN
#define SIMT_CALLS(n)                                                                                              \
    extern "C" void __tsan_read##n(void *p) { check(p, n, n, SIMT_READ, __builtin_return_address(0)); }            \
    extern "C" void __tsan_write##n(void *p) { check(p, n, n, SIMT_WRITE, __builtin_return_address(0)); }          \
    extern "C" void __tsan_unaligned_read##n(void *p) { __tsan_read##n(p); }                                       \
    extern "C" void __tsan_unaligned_write##n(void *p) { __tsan_write##n(p); }
SIMT_CALLS(1)
SIMT_CALLS(2)
SIMT_CALLS(4)
SIMT_CALLS(8)
SIMT_CALLS(16)

extern "C" void __tsan_read_range(void *p, size_t n)
{
    check(p, (unsigned)n, 1, SIMT_READ, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void *p, size_t n)
{
    check(p, (unsigned)n, 1, SIMT_WRITE, __builtin_return_address(0));
}
extern "C" void __tsan_func_entry(void *) {}
extern "C" void __tsan_func_exit(void) {}
extern "C" void __tsan_init(void) {}
#endif
