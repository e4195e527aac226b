/* count.cpp - what the accesses of a warp cost: passes through the banks of shared memory, sectors of global memory.
 *
 * The n-th execution of one instruction by the lanes of a warp counts as one access of the warp. The first blocks of
 * each launch are looked at.
 */
#include "cuda/simt/inside.h"

extern "C" {
#include "base/base.h"
}

#include <stdlib.h>

enum { BLOCKS_LOOKED_AT = 2, MOST_ENTRIES = 1 << 20, SECTOR = 32, BANKS = 32 };

struct entry {
    const void *place;
    const char *p;
    uint32_t sequence;
    uint16_t thread;
    uint8_t bytes, shared;
};

struct counter {
    unsigned blocks, n;
    entry entries[MOST_ENTRIES];
};

static thread_local simt_counts counts;

void simt_counts_clear(void) { memset(&counts, 0, sizeof counts); }

simt_counts simt_counts_get(void) { return counts; }

void simt_count_begin(machine *m)
{
    if (!m->counter) m->counter = static_cast<counter *>(mem_alloc(sizeof *m->counter));
    if (!m->counter) {
        m->counting = false;
        return;
    }
    m->counter->blocks = m->counter->n = 0;
    counts.launches++;
}

void simt_count_access(machine *m, unsigned thread, const void *place, const char *p, unsigned bytes, bool shared)
{
    counter *c = m->counter;
    if (c->blocks >= BLOCKS_LOOKED_AT || c->n == MOST_ENTRIES) return;
    entry e = { place, p, c->n, (uint16_t)thread, (uint8_t)bytes, shared };
    c->entries[c->n++] = e;
}

void simt_sync_counts(machine *m, bool block)
{
    (void)m;
    counts.syncs += block;
}

/* Lanes that are served together: 128 bytes a pass. */
static unsigned passes_of(const entry *e, unsigned n)
{
    unsigned most = 1;
    for (unsigned bank = 0; bank < BANKS; bank++) {
        uintptr_t words[4 * SIMT_WARP];
        unsigned different = 0;
        for (unsigned i = 0; i < n; i++)
            for (unsigned b = 0; b < e[i].bytes; b += 4) {
                uintptr_t word = (reinterpret_cast<uintptr_t>(e[i].p) + b) / 4;
                if (word % BANKS != bank) continue;
                bool known = false;
                for (unsigned k = 0; k < different; k++) known |= words[k] == word;
                if (!known) words[different++] = word;
            }
        if (different > most) most = different;
    }
    return most;
}

static void count_shared(const entry *e, unsigned n)
{
    unsigned together = e->bytes >= 16 ? 8 : e->bytes == 8 ? 16 : 32;
    for (unsigned i = 0; i < n;) { /* entries are in the order of lanes */
        unsigned k = i;
        while (k < n && e[k].thread / together == e[i].thread / together) k++;
        counts.shared_passes += passes_of(e + i, k - i);
        counts.shared_least++;
        i = k;
    }
}

static void count_global(const entry *e, unsigned n)
{
    uintptr_t sectors[2 * SIMT_WARP];
    unsigned different = 0, bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        uintptr_t first = reinterpret_cast<uintptr_t>(e[i].p) / SECTOR,
                  last = (reinterpret_cast<uintptr_t>(e[i].p) + e[i].bytes - 1) / SECTOR;
        bytes += e[i].bytes;
        for (uintptr_t s = first; s <= last; s++) {
            bool known = false;
            for (unsigned k = 0; k < different; k++) known |= sectors[k] == s;
            if (!known) sectors[different++] = s;
        }
    }
    unsigned least = (bytes + SECTOR - 1) / SECTOR;
    counts.sectors += different;
    counts.sectors_least += least < different ? least : different;
}

static int by_lane(const void *a, const void *b)
{
    const entry *x = static_cast<const entry *>(a), *y = static_cast<const entry *>(b);
    if (x->place != y->place) return x->place < y->place ? -1 : 1;
    if (x->thread != y->thread) return x->thread < y->thread ? -1 : 1;
    return x->sequence < y->sequence ? -1 : 1;
}

static int by_execution(const void *a, const void *b)
{
    const entry *x = static_cast<const entry *>(a), *y = static_cast<const entry *>(b);
    if (x->place != y->place) return x->place < y->place ? -1 : 1;
    if (x->thread / SIMT_WARP != y->thread / SIMT_WARP) return x->thread < y->thread ? -1 : 1;
    if (x->sequence != y->sequence) return x->sequence < y->sequence ? -1 : 1;
    return x->thread < y->thread ? -1 : 1;
}

static bool same_access(const entry *x, const entry *y)
{
    return x->place == y->place && x->thread / SIMT_WARP == y->thread / SIMT_WARP && x->sequence == y->sequence &&
           x->shared == y->shared && x->bytes == y->bytes;
}

void simt_count_flush(machine *m)
{
    counter *c = m->counter;
    if (c->blocks++ >= BLOCKS_LOOKED_AT) return;
    counts.blocks++;
    qsort(c->entries, c->n, sizeof *c->entries, by_lane);
    uint32_t execution = 0;
    for (unsigned i = 0; i < c->n; i++) { /* `sequence` becomes the how-manieth time of this lane at this place */
        bool again = i > 0 && c->entries[i].place == c->entries[i - 1].place &&
                     c->entries[i].thread == c->entries[i - 1].thread;
        execution = again ? execution + 1 : 0;
        c->entries[i].sequence = execution;
    }
    qsort(c->entries, c->n, sizeof *c->entries, by_execution);
    for (unsigned i = 0; i < c->n;) {
        unsigned k = i;
        while (k < c->n && same_access(&c->entries[i], &c->entries[k])) k++;
        if (c->entries[i].shared)
            count_shared(c->entries + i, k - i);
        else
            count_global(c->entries + i, k - i);
        i = k;
    }
    c->n = 0;
}
