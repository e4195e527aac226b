/* mem.c - the one door to the allocator, and the failures that tests ask for. */
#include "base/base.h"
#include "base/fault.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

/* ---- faults ------------------------------------------------------------------------------------------ */

static atomic_int_fast64_t alloc_left, io_left; /* operations until the one that fails; 0 or less: none */
static atomic_bool fired;

static void arm(atomic_int_fast64_t *left, int64_t nth)
{
    if (nth > 0) atomic_store(&fired, false);
    atomic_store(left, nth);
}

/* Several threads may step past 0 together; only the one that took 1 away from 1 fails. */
static bool fault_now(atomic_int_fast64_t *left)
{
    if (atomic_load_explicit(left, memory_order_relaxed) <= 0) return false;
    if (atomic_fetch_sub(left, 1) != 1) return false;
    atomic_store(&fired, true);
    return true;
}

void fault_alloc(int64_t nth) { arm(&alloc_left, nth); }
void fault_io(int64_t nth) { arm(&io_left, nth); }
bool fault_fired(void) { return atomic_load(&fired); }
bool fault_io_now(void) { return fault_now(&io_left); }

/* ---- memory ------------------------------------------------------------------------------------------ */

void *mem_alloc(size_t bytes) { return fault_now(&alloc_left) ? NULL : malloc(bytes ? bytes : 1); }

void *mem_zero(size_t count, size_t size)
{
    size_t bytes;
    if (count == 0 || size == 0) count = size = 1;
    if (!size_mul(count, size, &bytes))
        return NULL; /* calloc checks too, but the sanitizer takes it for a mistake */
    return fault_now(&alloc_left) ? NULL : calloc(count, size);
}

void *mem_resize(void *p, size_t bytes) { return fault_now(&alloc_left) ? NULL : realloc(p, bytes ? bytes : 1); }

void *mem_aligned(size_t alignment, size_t bytes)
{
    void *p = NULL;
    if (alignment < sizeof(void *)) alignment = sizeof(void *);
    if (fault_now(&alloc_left) || posix_memalign(&p, alignment, bytes ? bytes : 1) != 0) return NULL;
    return p;
}

void mem_free(void *p) { free(p); }

void sca_free(void *text) { mem_free(text); }

#undef mem_fail
sca_status mem_fail(size_t bytes, const char *what)
{
    return status_fail(SCA_ERR_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
}

bool size_mul(size_t a, size_t b, size_t *out) { return !__builtin_mul_overflow(a, b, out); }
