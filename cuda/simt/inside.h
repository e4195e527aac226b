/* inside.h - what the files of the shim share: the block that runs, its threads, and what they wait for. */
#ifndef SIMT_INSIDE_H
#define SIMT_INSIDE_H

#include "cuda/simt/hopper.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN 1
#endif
#endif

enum {
    MOST_THREADS = 1024,
    MOST_WARPS = 32,
    SHARED_BYTES = 227 * 1024, /* what a block of sm_90 may have */
    STATIC_SHARED_BYTES = 48 * 1024,
    MOST_SHARED = 64,       /* SHARED declarations of one kernel */
    MOST_COPIES = 192,      /* cp.async of one thread on their way */
    MOST_ALLOCATIONS = 256, /* of the process */
    MOST_MBARRIERS = 64,    /* of a block */
    MOST_BOXES = 8,         /* on their way to one mbarrier */
    MOST_PRODUCTS = 64,     /* of a warpgroup, on their way */
    MOST_SHADOWS = 4,       /* sets of sums they go to */
};

/* ---- threads ------------------------------------------------------------------------------------------------ */

struct copy_async {
    char *to;
    const char *from;
    unsigned bytes, source_bytes, group;
};

struct product { /* wgmma: sum += a b */
    float *sum;
    uint64_t a, b;
    int n_tiles;
    bool bf16;
    unsigned group;
};

struct product_shadow { /* sums while products into them run */
    float *sum;
    int n;
    float value[128];
};

struct product_queue {
    product items[MOST_PRODUCTS];
    unsigned n, group, waits;
    product_shadow shadows[MOST_SHADOWS];
    unsigned n_shadows;
};

struct fiber {
    simt_thread *self; /* at the top of its stack */
    char *stack;       /* lowest byte it may use */
    void *sp;
    bool done;
    void *fake_stack; /* AddressSanitizer's */
    bool (*ready)(void *context);
    void *ready_context;
    copy_async *copies; /* MOST_COPIES, made at the first use */
    unsigned n_copies, group;
    product_queue *products; /* made at the first use */
};

/* ---- mbarriers ----------------------------------------------------------------------------------------------- */

struct box_copy {
    char *to;
    simt_tensor_map map;
    int column, row;
};

struct mbarrier {
    uint64_t *place;
    unsigned arrivals, missing, phase;
    int64_t bytes; /* announced and not yet there */
    box_copy boxes[MOST_BOXES];
    int n_boxes;
    simt_order next, done; /* what all did who came so far; who came in the phases that ended */
};

/* ---- meetings ------------------------------------------------------------------------------------------------ */

struct meeting {
    unsigned expected, arrived; /* arrived 0: nobody waits */
    unsigned mask;              /* of a warp */
    simt_work *work;
    const char *file;
    int line;
    void **arguments; /* by rank, or by lane; NULL for who is not part of it */
    bool *here;
};

/* ---- shared memory: who touched what ----------------------------------------------------------------------------- */

/* Of one pair of bytes. A clock is the touching warp's own; it moves on whenever the warp is ordered after itself. */
struct touch {
    uint32_t clock;
    uint16_t thread, atomic;
};
struct pair_record {
    touch write, read[2];
};

struct shared_place {
    const char *function;
    int line;
    size_t offset, bytes;
};

struct allocation {
    char *start;
    size_t bytes;
    unsigned char *fenced; /* one bit per byte, or NULL while nothing is */
};

/* ---- the block that runs, and all that outlives it ----------------------------------------------------------------- */

struct machine {
    fiber fibers[MOST_THREADS];
    char *stacks;
    unsigned threads, warps, done, running;
    unsigned ready[MOST_THREADS], n_ready;
    unsigned waiting[MOST_THREADS], n_waiting; /* simt_wait */
    void *scheduler_sp, *scheduler_fake;
    const void *scheduler_stack; /* as AddressSanitizer told */
    size_t scheduler_stack_bytes;

    meeting barriers[SIMT_BARRIERS];
    meeting warp_meetings[MOST_WARPS * SIMT_WARP]; /* by warp and lowest lane */
    void *block_arguments[SIMT_BARRIERS][MOST_THREADS], *warp_arguments[MOST_WARPS * SIMT_WARP][SIMT_WARP];
    bool block_here[SIMT_BARRIERS][MOST_THREADS], warp_here[MOST_WARPS * SIMT_WARP][SIMT_WARP];
    uint32_t clock[MOST_WARPS][MOST_WARPS]; /* clock[w][v]: what warp w knows of warp v */
    uint32_t next_clock;                    /* above every clock of the blocks before */

    mbarrier mbarriers[MOST_MBARRIERS];
    int n_mbarriers;

    char *shared; /* dynamic first, then SHARED */
    size_t dynamic_bytes, shared_used;
    shared_place places[MOST_SHARED];
    int n_places;
    pair_record *records; /* one per two bytes of shared */

    allocation allocations[MOST_ALLOCATIONS]; /* as of the launch's begin */
    int n_allocations;
    const allocation *last;

    const char *name; /* of the kernel */
    dim3 grid, block_dim;
    uint3 block;
    simt_body *body;
    const char *context;
    size_t context_bytes;
    uint64_t random;
    bool failed;

    bool counting;
    struct counter *counter; /* count.cpp */

    machine *next_free;
};

extern thread_local machine *simt_machine; /* whose kernel runs on this thread; NULL between launches */

void simt_yield(machine *m); /* gives the host thread back to the scheduler */
void simt_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void simt_records_clear(machine *m); /* a block begins */
void simt_snapshot(machine *m);      /* of the allocations */
bool simt_in_allocation(machine *m, const char *p, unsigned bytes, const char **why);
void simt_sync_counts(machine *m, bool block);

bool simt_tell_barriers(machine *m); /* says what the first one that is not at rest misses */

void simt_count_begin(machine *m);
void simt_count_access(machine *m, unsigned thread, const void *place, const char *p, unsigned bytes, bool shared);
void simt_count_flush(machine *m); /* the block has ended */

void simt_set_message(const char *text); /* of simt_message */

#endif
