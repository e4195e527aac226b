/* simt.cpp - threads of a block as fibers: launch, schedule, meet. */
#include "cuda/simt/inside.h"

extern "C" {
#include "base/base.h"
}

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>

#ifdef WITH_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

enum { PAGE = 4096, STACK_BYTES = 256 * 1024 }; /* only the pages that are touched exist */

thread_local machine *simt_machine;
static thread_local char message[512];
static thread_local cudaError_t last_error;
static thread_local simt_settings settings = { 1, false };
static thread_local unsigned launches; /* each has an order of threads of its own */

const char *simt_message(void) { return message; }
void simt_set_message(const char *text) { snprintf(message, sizeof message, "%s", text); }

cudaError_t simt_last_error(void)
{
    cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

void simt_configure(const simt_settings *s)
{
    settings = *s;
    launches = 0;
}

/* ---- the switch: what a call must keep is pushed, the stack pointers are exchanged --------------------------------- */

extern "C" void simt_switch(void **from, void *to);
extern "C" void simt_enter(void);

#if defined(__x86_64__)
__asm__(".text\n.globl simt_switch\n.hidden simt_switch\n.type simt_switch, @function\n"
        "simt_switch:\n"
        "    push %rbp\n    push %rbx\n    push %r12\n    push %r13\n    push %r14\n    push %r15\n"
        "    mov %rsp, (%rdi)\n    mov %rsi, %rsp\n"
        "    pop %r15\n    pop %r14\n    pop %r13\n    pop %r12\n    pop %rbx\n    pop %rbp\n"
        "    ret\n"
        ".size simt_switch, . - simt_switch\n");

static void *first_sp(char *top)
{
    void **sp = reinterpret_cast<void **>(top); /* 16-byte aligned */
    *--sp = NULL;                               /* as if called: the return address is never used */
    *--sp = reinterpret_cast<void *>(simt_enter);
    for (int i = 0; i < 6; i++) *--sp = NULL;
    return sp;
}
#elif defined(__aarch64__)
__asm__(".text\n.globl simt_switch\n.hidden simt_switch\n.type simt_switch, %function\n"
        "simt_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n    stp x21, x22, [sp, #16]\n    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n    stp x27, x28, [sp, #64]\n    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n    str x9, [x0]\n    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n    ldp x21, x22, [sp, #16]\n    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n    ldp x27, x28, [sp, #64]\n    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n    ret\n"
        ".size simt_switch, . - simt_switch\n");

static void *first_sp(char *top)
{
    void **sp = reinterpret_cast<void **>(top - 160);
    for (int i = 0; i < 20; i++) sp[i] = NULL;
    sp[11] = reinterpret_cast<void *>(simt_enter); /* x30 */
    return sp;
}
#else
#error "the switch of fibers is written for x86-64 and AArch64; configure with -DSCA_SIMT=OFF"
#endif

/* ---- fibers ------------------------------------------------------------------------------------------------------ */

const simt_thread *simt_self(void)
{
    machine *m = simt_machine;
    return m->fibers[m->running].self;
}

static void to_fiber(machine *m, unsigned rank)
{
    fiber *f = &m->fibers[rank];
    m->running = rank;
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(&m->scheduler_fake, f->stack, STACK_BYTES - PAGE);
#endif
    simt_switch(&m->scheduler_sp, f->sp);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(m->scheduler_fake, NULL, NULL);
#endif
}

void simt_yield(machine *m)
{
    fiber *f = &m->fibers[m->running];
#ifdef WITH_ASAN
    __sanitizer_start_switch_fiber(f->done ? NULL : &f->fake_stack, m->scheduler_stack, m->scheduler_stack_bytes);
#endif
    simt_switch(&f->sp, m->scheduler_sp);
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(f->fake_stack, &m->scheduler_stack, &m->scheduler_stack_bytes);
#endif
}

static void leave(machine *m)
{
    m->fibers[m->running].done = true;
    m->done++;
    simt_yield(m);
}

extern "C" void simt_enter(void)
{
    machine *m = simt_machine;
#ifdef WITH_ASAN
    __sanitizer_finish_switch_fiber(NULL, &m->scheduler_stack, &m->scheduler_stack_bytes);
#endif
    m->body(m->context);
    leave(m);
    __builtin_unreachable();
}

void simt_say(const char *format, ...)
{
    if (simt_machine->failed) return; /* the first failure is told */
    simt_machine->failed = true;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
}

void simt_fail(const char *format, ...)
{
    char text[400];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const simt_thread *t = simt_self();
    simt_say("kernel %s, block (%u,%u,%u), thread %u: %s", simt_machine->name, t->block.x, t->block.y, t->block.z,
             t->rank, text);
    leave(simt_machine); /* the scheduler ends the block */
    __builtin_unreachable();
}

/* ---- the scheduler ------------------------------------------------------------------------------------------------- */

static unsigned draw(machine *m, unsigned below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned)((m->random >> 32) * below >> 32);
}

static void wake(machine *m, unsigned rank) { m->ready[m->n_ready++] = rank; }

/* Threads in simt_wait look again. */
static void wake_waiting(machine *m)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < m->n_waiting; i++) {
        fiber *f = &m->fibers[m->waiting[i]];
        if (f->ready(f->ready_context))
            wake(m, m->waiting[i]);
        else
            m->waiting[kept++] = m->waiting[i];
    }
    m->n_waiting = kept;
}

/* Threads wait, and nobody is left to come. */
static void tell_stuck(machine *m)
{
    for (unsigned i = 0; i < SIMT_BARRIERS; i++)
        if (m->barriers[i].arrived)
            return simt_say(
                "kernel %s, block (%u,%u,%u): divergent barrier: %u of %u threads wait at %s:%d, %u have "
                "returned and nobody else will come",
                m->name, m->block.x, m->block.y, m->block.z, m->barriers[i].arrived, m->barriers[i].expected,
                m->barriers[i].file, m->barriers[i].line, m->done);
    for (unsigned i = 0; i < m->warps * SIMT_WARP; i++)
        if (m->warp_meetings[i].arrived)
            return simt_say(
                "kernel %s, block (%u,%u,%u), warp %u: divergent warp: %u of %u lanes wait at %s:%d and "
                "nobody else will come",
                m->name, m->block.x, m->block.y, m->block.z, i / SIMT_WARP, m->warp_meetings[i].arrived,
                m->warp_meetings[i].expected, m->warp_meetings[i].file, m->warp_meetings[i].line);
    if (simt_tell_barriers(m)) return;
    simt_say("kernel %s, block (%u,%u,%u): %u threads wait for memory that nobody will write", m->name, m->block.x,
             m->block.y, m->block.z, m->n_waiting);
}

static void run_threads(machine *m)
{
    for (;;) {
        while (m->n_ready && !m->failed) {
            unsigned i = draw(m, m->n_ready), rank = m->ready[i];
            m->ready[i] = m->ready[--m->n_ready];
            to_fiber(m, rank);
        }
        if (m->failed || m->done == m->threads) return;
        wake_waiting(m);
        if (!m->n_ready) return tell_stuck(m);
    }
}

static void place_threads(machine *m)
{
    for (unsigned r = 0; r < m->threads; r++) {
        fiber *f = &m->fibers[r];
        dim3 b = m->block_dim;
        uint3 index = { r % b.x, r / b.x % b.y, r / b.x / b.y };
        simt_thread self = { index, m->block, b, m->grid, r, r % SIMT_WARP, r / SIMT_WARP };
#ifdef WITH_ASAN /* frames that were left behind; what fails for a fiber on the scheduler's stack leaves sp there */
        char *low = f->stack, *high = reinterpret_cast<char *>(f->self), *sp = static_cast<char *>(f->sp);
        if (sp > low && sp < high) low = sp;
        __asan_unpoison_memory_region(low, (size_t)(high - low));
#endif
        *f->self = self;
        f->sp = first_sp(reinterpret_cast<char *>(f->self));
        f->done = false;
        f->fake_stack = NULL;
        f->n_copies = f->group = 0;
        if (f->products) f->products->n = f->products->group = f->products->n_shadows = 0;
        m->ready[r] = r;
    }
    m->n_ready = m->threads;
    m->n_waiting = m->done = 0;
    m->n_mbarriers = 0;
}

static void run_block(machine *m)
{
    for (size_t i = 0; i < m->shared_used; i += 4)
        memcpy(m->shared + i, "\xA0\x7F\xA0\x7F", 4); /* NaN of any type */
    simt_records_clear(m);
    place_threads(m);
    run_threads(m);
    if (m->counting) simt_count_flush(m);
}

/* ---- machines: made when needed, kept for the next launch ------------------------------------------------------------ */

static pthread_mutex_t free_lock = PTHREAD_MUTEX_INITIALIZER;
static machine *free_machines;

static machine *make_machine(void)
{
    machine *m = static_cast<machine *>(mem_zero(1, sizeof *m));
    if (!m) return NULL;
    size_t bytes = (size_t)MOST_THREADS * STACK_BYTES, shared = SHARED_BYTES + STATIC_SHARED_BYTES;
    m->records = static_cast<pair_record *>(mem_zero(shared / 2, sizeof *m->records));
    m->shared = static_cast<char *>(mem_aligned(1024, (shared + 1023) / 1024 * 1024));
    m->stacks = static_cast<char *>(
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    bool ok = m->records && m->shared && m->stacks != MAP_FAILED;
    for (int i = 0; ok && i < MOST_THREADS; i++) {
        char *low = m->stacks + (size_t)i * STACK_BYTES;
        ok = mprotect(low, PAGE, PROT_NONE) == 0;
        m->fibers[i].stack = low + PAGE;
        m->fibers[i].self =
            reinterpret_cast<simt_thread *>(low + STACK_BYTES - (sizeof(simt_thread) + 63) / 64 * 64);
    }
    if (ok) return m;
    if (m->stacks != MAP_FAILED) munmap(m->stacks, bytes);
    mem_free(m->shared);
    mem_free(m->records);
    mem_free(m);
    return NULL;
}

static machine *take_machine(void)
{
    pthread_mutex_lock(&free_lock);
    machine *m = free_machines;
    if (m) free_machines = m->next_free;
    pthread_mutex_unlock(&free_lock);
    return m ? m : make_machine();
}

static void give_machine(machine *m)
{
    pthread_mutex_lock(&free_lock);
    m->next_free = free_machines;
    free_machines = m;
    pthread_mutex_unlock(&free_lock);
}

/* ---- launch ---------------------------------------------------------------------------------------------------------- */

static const char *bad_launch(dim3 grid, dim3 block, size_t dynamic_bytes)
{
    unsigned long long threads = (unsigned long long)block.x * block.y * block.z;
    if (threads < 1 || threads > MOST_THREADS || block.z > 64) return "a block of 1 to 1024 threads was expected";
    if (grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
        return "a grid of 1 to 2^31-1 by 65535 by 65535 blocks was expected";
    if (dynamic_bytes > SHARED_BYTES) return "no block has that much shared memory";
    return NULL;
}

static void set_up(machine *m, const char *name, dim3 grid, dim3 block, size_t dynamic_bytes)
{
    m->name = name;
    m->grid = grid;
    m->block_dim = block;
    m->threads = block.x * block.y * block.z;
    m->warps = (m->threads + SIMT_WARP - 1) / SIMT_WARP;
    m->dynamic_bytes = dynamic_bytes;
    m->shared_used = (dynamic_bytes + 127) / 128 * 128;
    m->n_places = 0;
    m->random = (settings.seed + 0x9E3779B97F4A7C15ull * ++launches) | 1;
    for (int i = 0; i < 4; i++) draw(m, 1);
    m->failed = false;
    m->counting = settings.count;
    for (unsigned i = 0; i < SIMT_BARRIERS; i++) {
        meeting g = { 0, 0, 0, NULL, NULL, 0, m->block_arguments[i], m->block_here[i] };
        m->barriers[i] = g;
    }
    for (unsigned i = 0; i < MOST_WARPS * SIMT_WARP; i++) {
        meeting g = { 0, 0, 0, NULL, NULL, 0, m->warp_arguments[i], m->warp_here[i] };
        m->warp_meetings[i] = g;
    }
    simt_snapshot(m);
}

cudaError_t simt_launch(const char *name, dim3 grid, dim3 block, size_t dynamic_bytes, simt_body *body,
                        const void *context, size_t context_bytes)
{
    const char *why = bad_launch(grid, block, dynamic_bytes);
    if (why) {
        snprintf(message, sizeof message, "kernel %s: grid (%u,%u,%u), block (%u,%u,%u), %zu bytes shared: %s",
                 name, grid.x, grid.y, grid.z, block.x, block.y, block.z, dynamic_bytes, why);
        return last_error = cudaErrorLaunchFailure;
    }
    machine *m = take_machine();
    if (!m) return last_error = cudaErrorMemoryAllocation;
    set_up(m, name, grid, block, dynamic_bytes);
    m->body = body;
    m->context = static_cast<const char *>(context);
    m->context_bytes = context_bytes;
    simt_machine = m;
    if (m->counting) simt_count_begin(m);
    for (unsigned z = 0; z < grid.z && !m->failed; z++)
        for (unsigned y = 0; y < grid.y && !m->failed; y++)
            for (unsigned x = 0; x < grid.x && !m->failed; x++) {
                uint3 index = { x, y, z };
                m->block = index;
                run_block(m);
            }
    simt_machine = NULL;
    if (m->failed) last_error = cudaErrorLaunchFailure;
    cudaError_t result = m->failed ? cudaErrorLaunchFailure : cudaSuccess;
    give_machine(m);
    return result;
}

/* ---- shared memory ------------------------------------------------------------------------------------------------------ */

void *simt_dynamic_shared(void) { return simt_machine->shared; }

void *simt_shared(const char *function, int line, size_t bytes, size_t alignment)
{
    machine *m = simt_machine;
    for (int i = 0; i < m->n_places; i++)
        if (m->places[i].function == function && m->places[i].line == line) return m->shared + m->places[i].offset;
    size_t offset = (m->shared_used + alignment - 1) / alignment * alignment;
    size_t fixed = offset + bytes - (m->dynamic_bytes + 127) / 128 * 128;
    if (fixed > STATIC_SHARED_BYTES || offset + bytes > SHARED_BYTES || m->n_places == MOST_SHARED)
        simt_fail("%zu bytes of shared memory declared, at most 48 KB of it may be (DYNAMIC_SHARED for more)",
                  fixed);
    shared_place place = { function, line, offset, bytes };
    m->places[m->n_places++] = place;
    for (size_t i = m->shared_used; i < offset + bytes; i += 4) memcpy(m->shared + i, "\xA0\x7F\xA0\x7F", 4);
    m->shared_used = (offset + bytes + 3) / 4 * 4;
    return m->shared + offset;
}

/* ---- meetings --------------------------------------------------------------------------------------------------------------- */

/* Everyone in the meeting knows what all of them did before it. */
static void order_block(machine *m, const meeting *g)
{
    bool in[MOST_WARPS] = { false };
    uint32_t joined[MOST_WARPS] = { 0 };
    for (unsigned r = 0; r < m->threads; r++) in[r / SIMT_WARP] |= g->here[r];
    for (unsigned w = 0; w < m->warps; w++)
        for (unsigned v = 0; in[w] && v < MOST_WARPS; v++) /* also of warps that only earlier launches had */
            if (m->clock[w][v] > joined[v]) joined[v] = m->clock[w][v];
    for (unsigned w = 0; w < m->warps; w++)
        if (in[w]) joined[w]++;
    for (unsigned w = 0; w < m->warps; w++)
        if (in[w]) memcpy(m->clock[w], joined, sizeof joined);
}

static void arrive(meeting *g, unsigned place, simt_work *work, void *argument, const char *file, int line)
{
    if (g->arrived && (g->line != line || g->file != file || g->work != work))
        simt_fail("divergent barrier: this thread is at %s:%d while %u others wait at %s:%d", file, line,
                  g->arrived, g->file, g->line);
    g->work = work;
    g->file = file;
    g->line = line;
    g->arguments[place] = argument;
    g->here[place] = true;
    g->arrived++;
}

static void meet(int barrier, unsigned threads, simt_work *work, void *argument, const char *file, int line,
                 bool orders)
{
    machine *m = simt_machine;
    meeting *g = &m->barriers[barrier];
    unsigned rank = m->running;
    if (!g->arrived) {
        memset(g->here, 0, m->threads * sizeof *g->here);
        memset(g->arguments, 0, m->threads * sizeof *g->arguments);
        g->expected = threads ? threads : m->threads;
    }
    arrive(g, rank, work, argument, file, line);
    if (g->arrived < g->expected) return simt_yield(m);
    if (work) work(g->arguments, m->threads);
    if (orders) order_block(m, g);
    if (m->counting && barrier == 0) simt_sync_counts(m, true);
    g->arrived = 0;
    for (unsigned r = 0; r < m->threads; r++)
        if (g->here[r]) wake(m, r);
    simt_yield(m);
}

void simt_meet_block(int barrier, unsigned threads, simt_work *work, void *argument, const char *file, int line)
{
    meet(barrier, threads, work, argument, file, line, true);
}

void simt_gather(int barrier, unsigned threads, simt_work *work, void *argument, const char *file, int line)
{
    meet(barrier, threads, work, argument, file, line, false);
}

unsigned simt_active_mask(void)
{
    machine *m = simt_machine;
    unsigned first = m->running / SIMT_WARP * SIMT_WARP, mask = 0;
    for (unsigned i = 0; i < SIMT_WARP && first + i < m->threads; i++)
        if (!m->fibers[first + i].done) mask |= 1u << i;
    return mask;
}

void simt_meet_warp(unsigned mask, simt_work *work, void *argument, const char *file, int line)
{
    machine *m = simt_machine;
    unsigned warp = m->running / SIMT_WARP, first = warp * SIMT_WARP, lane = m->running % SIMT_WARP;
    unsigned there = m->threads - first;
    if (there < SIMT_WARP) mask &= (1u << there) - 1; /* a last warp that is not full */
    if (!(mask >> lane & 1)) simt_fail("%s:%d: lane %u is not in its own mask %08x", file, line, lane, mask);
    meeting *g = &m->warp_meetings[first + (unsigned)__builtin_ctz(mask)];
    if (!g->arrived) {
        memset(g->here, 0, SIMT_WARP * sizeof *g->here);
        memset(g->arguments, 0, SIMT_WARP * sizeof *g->arguments);
        g->mask = mask;
        g->expected = (unsigned)__builtin_popcount(mask);
    }
    if (g->mask != mask) simt_fail("%s:%d: mask %08x, others came with %08x", file, line, mask, g->mask);
    arrive(g, lane, work, argument, file, line);
    if (g->arrived < g->expected) return simt_yield(m);
    if (work) work(g->arguments, SIMT_WARP);
    m->clock[warp][warp]++;
    g->arrived = 0;
    for (unsigned i = 0; i < SIMT_WARP; i++)
        if (g->here[i]) wake(m, first + i);
    simt_yield(m);
}

void simt_wait(bool (*ready)(void *context), void *context, const char *what)
{
    (void)what;
    machine *m = simt_machine;
    if (ready(context)) return;
    fiber *f = &m->fibers[m->running];
    f->ready = ready;
    f->ready_context = context;
    m->waiting[m->n_waiting++] = m->running;
    simt_yield(m);
}

void simt_release(simt_order *o)
{
    machine *m = simt_machine;
    unsigned warp = m->running / SIMT_WARP;
    for (unsigned v = 0; v < MOST_WARPS; v++)
        if (m->clock[warp][v] > o->clock[v]) o->clock[v] = m->clock[warp][v];
    o->clock[warp] = ++m->clock[warp][warp];
}

void simt_acquire(const simt_order *o)
{
    machine *m = simt_machine;
    unsigned warp = m->running / SIMT_WARP;
    for (unsigned v = 0; v < MOST_WARPS; v++)
        if (o->clock[v] > m->clock[warp][v]) m->clock[warp][v] = o->clock[v];
}
