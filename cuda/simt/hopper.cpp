/* hopper.cpp - mbarrier, the tensor copy engine and products of a warpgroup, on the host. */
#include "cuda/simt/hopper.h"
#include "cuda/simt/inside.h"

extern "C" {
#include "base/base.h"
#include "core/core.h"
}

enum { WARPGROUP = 128, BOX_ROW = 128, CHUNK = 16 };

/* ---- addresses: bits 4 to 6 are exchanged with bits 7 to 9, as the hardware does with swizzled rows of 128 bytes ---- */

static size_t swizzled(size_t offset) { return offset ^ (offset >> 7 & 7) << 4; }

/* ---- mbarrier ------------------------------------------------------------------------------------------------ */

static mbarrier *barrier_at(uint64_t *place)
{
    machine *m = simt_machine;
    simt_note(place, 8, 8, SIMT_ATOMIC_ACCESS);
    for (int i = 0; i < m->n_mbarriers; i++)
        if (m->mbarriers[i].place == place) return &m->mbarriers[i];
    simt_fail("mbarrier: there is none at byte %zu of shared memory",
              (size_t)(reinterpret_cast<char *>(place) - m->shared));
}

void simt_barrier_init(uint64_t *place, unsigned arrivals)
{
    machine *m = simt_machine;
    simt_note(place, 8, 8, SIMT_WRITE); /* others may come after a barrier of the block only */
    if (m->n_mbarriers == MOST_MBARRIERS) simt_fail("more than %d mbarriers", MOST_MBARRIERS);
    mbarrier *b = &m->mbarriers[m->n_mbarriers++];
    memset(b, 0, sizeof *b);
    b->place = place;
    b->arrivals = b->missing = arrivals;
}

static void land(machine *m, const box_copy *box)
{
    size_t base = (size_t)(box->to - m->shared);
    for (int r = 0; r < box->map.box_rows; r++)
        for (int c = 0; c < BOX_ROW / CHUNK; c++) {
            char *to = m->shared + swizzled(base + (size_t)(r * BOX_ROW + c * CHUNK));
            int64_t row = box->row + r, column = box->column + 8 * c, n = box->map.columns - column;
            if (row >= box->map.rows || n < 0) n = 0;
            if (n > 8) n = 8;
            if (n) memcpy(to, box->map.base + row * box->map.pitch + 2 * column, (size_t)n * 2);
            memset(to + 2 * n, 0, CHUNK - (size_t)n * 2);
        }
}

/* All have arrived: the boxes land, and with the last announced byte the phase ends. */
static void settle(machine *m, mbarrier *b)
{
    if (b->missing) return;
    for (int i = 0; i < b->n_boxes; i++) {
        land(m, &b->boxes[i]);
        b->bytes -= b->boxes[i].map.box_rows * BOX_ROW;
    }
    b->n_boxes = 0;
    if (b->bytes) return;
    b->done = b->next;
    b->missing = b->arrivals;
    b->phase++;
}

void simt_barrier_arrive(uint64_t *place, unsigned bytes)
{
    mbarrier *b = barrier_at(place);
    settle(simt_machine, b);
    if (!b->missing) simt_fail("mbarrier: more than %u arrivals in one phase", b->arrivals);
    b->bytes += bytes;
    b->missing--;
    simt_release(&b->next);
}

struct barrier_wanted {
    mbarrier *b;
    unsigned parity;
};

static bool phase_ended(void *context)
{
    barrier_wanted *w = static_cast<barrier_wanted *>(context);
    settle(simt_machine, w->b);
    return (w->b->phase & 1) != w->parity;
}

void simt_barrier_wait(uint64_t *place, unsigned parity)
{
    barrier_wanted w = { barrier_at(place), parity };
    simt_wait(phase_ended, &w, "an mbarrier");
    simt_acquire(&w.b->done);
}

bool simt_tell_barriers(machine *m)
{
    for (int i = 0; i < m->n_mbarriers; i++) {
        mbarrier *b = &m->mbarriers[i];
        if (b->missing == b->arrivals && !b->bytes && !b->n_boxes) continue;
        simt_say(
            "kernel %s, block (%u,%u,%u): %u threads wait; the mbarrier at byte %zu of shared memory misses %u "
            "of %u arrivals and %lld announced bytes",
            m->name, m->block.x, m->block.y, m->block.z, m->n_waiting,
            (size_t)(reinterpret_cast<char *>(b->place) - m->shared), b->missing, b->arrivals, (long long)b->bytes);
        return true;
    }
    return false;
}

/* ---- the copy engine ------------------------------------------------------------------------------------------ */

void simt_box_load(void *shared, const simt_tensor_map *map, uint64_t *place, int column, int row)
{
    machine *m = simt_machine;
    mbarrier *b = barrier_at(place);
    char *to = static_cast<char *>(shared);
    if ((to - m->shared) % 1024)
        simt_fail("a box of swizzled rows at byte %td of shared memory: not a multiple of 1024", to - m->shared);
    if (b->n_boxes == MOST_BOXES) simt_fail("more than %d boxes on their way to one mbarrier", MOST_BOXES);
    for (int r = 0; r < map->box_rows; r++) {
        simt_note(to + r * BOX_ROW, BOX_ROW, CHUNK, SIMT_WRITE);
        int64_t n = map->columns - column;
        if (row + r >= map->rows || n <= 0) continue;
        simt_note(map->base + (row + r) * map->pitch + 2 * column, n < 64 ? (unsigned)n * 2 : (unsigned)BOX_ROW,
                  CHUNK, SIMT_READ);
    }
    memset(to, 0xff, (size_t)map->box_rows * BOX_ROW); /* NaN of any type until it lands */
    box_copy box = { to, *map, column, row };
    b->boxes[b->n_boxes++] = box;
    simt_release(&b->next);
}

/* ---- products of a warpgroup ------------------------------------------------------------------------------------- */

static product_shadow *shadow_of(product_queue *q, float *sum)
{
    for (unsigned i = 0; i < q->n_shadows; i++)
        if (q->shadows[i].sum == sum) return &q->shadows[i];
    return NULL;
}

void simt_product_issue(float *sum, int n_tiles, uint64_t a, uint64_t b, bool bf16)
{
    fiber *f = &simt_machine->fibers[simt_machine->running];
    if (!f->products) f->products = static_cast<product_queue *>(mem_zero(1, sizeof *f->products));
    product_queue *q = f->products;
    if (!q || q->n == MOST_PRODUCTS) simt_fail("more than %d products are on their way", MOST_PRODUCTS);
    if (!shadow_of(q, sum)) {
        if (q->n_shadows == MOST_SHADOWS) simt_fail("products into more than %d sets of sums", MOST_SHADOWS);
        product_shadow *s = &q->shadows[q->n_shadows++];
        s->sum = sum;
        s->n = 4 * n_tiles;
        memcpy(s->value, sum, (size_t)n_tiles * 4 * sizeof *sum);
        memset(sum, 0xff, (size_t)n_tiles * 4 * sizeof *sum); /* NaN until it was waited for */
    }
    product p = { sum, a, b, n_tiles, bf16, q->group };
    q->items[q->n++] = p;
}

void simt_product_commit(void)
{
    product_queue *q = simt_machine->fibers[simt_machine->running].products;
    if (q) q->group++;
}

static unsigned due(const product_queue *q)
{
    unsigned n = 0;
    while (n < q->n && q->items[n].group + q->waits < q->group) n++;
    return n;
}

/* 16 elements of each row that the descriptor names; the reads are those of one warp. */
static void read_operand(machine *m, uint64_t descriptor, int first, int rows, bool bf16, float (*to)[16])
{
    size_t start = (size_t)(descriptor & 0x3fff) << 4, apart = (size_t)(descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) || start % 1024 >= BOX_ROW)
        simt_fail("wgmma: descriptor %llx, rows swizzled in 128 bytes from a multiple of 1024 were expected",
                  (unsigned long long)descriptor);
    for (int r = first; r < first + rows; r++)
        for (size_t c = 0; c < 2; c++) {
            size_t at = start + (size_t)(r / 8) * apart + (size_t)(r % 8) * BOX_ROW + c * CHUNK;
            const char *p = m->shared + swizzled(at);
            uint16_t bits[8];
            simt_note(p, CHUNK, CHUNK, SIMT_READ);
            memcpy(bits, p, CHUNK);
            for (size_t k = 0; k < 8; k++) to[r][8 * c + k] = bf16 ? bf16_to_f32(bits[k]) : f16_to_f32(bits[k]);
        }
}

/* Products of 16-bit numbers are exact in F32; a sum of 16 is made in F64 and rounded once, as in simt_mma_16816. */
static void multiply(machine *m, product_queue *const queues[WARPGROUP], unsigned i)
{
    static thread_local float a[64][16], b[256][16], columns[16][256];
    const product *p = &queues[0]->items[i];
    int n = 8 * p->n_tiles;
    unsigned running = m->running, base = running / WARPGROUP * WARPGROUP;
    bool counting = m->counting;
    m->counting = false;
    for (int w = 0; w < 4; w++) {
        m->running = base + (unsigned)w * SIMT_WARP;
        read_operand(m, p->a, 16 * w, 16, p->bf16, a);
        read_operand(m, p->b, 0, n, p->bf16, b);
    }
    m->running = running;
    m->counting = counting;
    for (int k = 0; k < 16; k++)
        for (int c = 0; c < n; c++) columns[k][c] = b[c][k];
    product_shadow *shadows[WARPGROUP];
    for (int t = 0; t < WARPGROUP; t++) shadows[t] = shadow_of(queues[t], queues[t]->items[i].sum);
    for (int r = 0; r < 64; r++) {
        double sum[256] = { 0 };
        for (int k = 0; k < 16; k++)
            for (int c = 0; c < n; c++) sum[c] += (double)(a[r][k] * columns[k][c]);
        for (int c = 0; c < n; c++) {
            int lane = r % 8 * 4 + c % 8 / 2;
            float *x = &shadows[r / 16 * SIMT_WARP + lane]->value[c / 8 * 4 + r % 16 / 8 * 2 + c % 2];
            *x = (float)((double)*x + sum[c]);
        }
    }
}

static void run_products(void *const *arguments, unsigned count)
{
    machine *m = simt_machine;
    product_queue *queues[WARPGROUP] = { NULL };
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++)
        if (arguments[i]) queues[n++ % WARPGROUP] = static_cast<product_queue *>(arguments[i]);
    unsigned todo = due(queues[0]);
    for (unsigned t = 1; t < WARPGROUP; t++) {
        bool same = due(queues[t]) == todo;
        for (unsigned i = 0; same && i < todo; i++) {
            const product *p = &queues[t]->items[i], *q = &queues[0]->items[i];
            same = p->a == q->a && p->b == q->b && p->n_tiles == q->n_tiles && p->bf16 == q->bf16;
        }
        if (!same) simt_fail("wgmma: the threads of a warpgroup do not agree on its products");
    }
    for (unsigned i = 0; i < todo; i++) multiply(m, queues, i);
}

static void give_back(product_queue *q, unsigned done)
{
    q->n -= done;
    memmove(q->items, q->items + done, q->n * sizeof *q->items);
    for (unsigned i = 0; i < q->n_shadows;) {
        product_shadow *s = &q->shadows[i];
        bool busy = false;
        for (unsigned k = 0; k < q->n; k++) busy |= q->items[k].sum == s->sum;
        if (busy) {
            i++;
            continue;
        }
        memcpy(s->sum, s->value, (size_t)s->n * sizeof *s->sum);
        *s = q->shadows[--q->n_shadows];
    }
}

void simt_product_wait(unsigned groups, const char *file, int line)
{
    machine *m = simt_machine;
    product_queue *q = m->fibers[m->running].products;
    if (!q) simt_fail("wgmma: waits, but nothing was multiplied");
    q->waits = groups;
    unsigned done = due(q);
    simt_gather(SIMT_NAMED_BARRIERS + (int)m->running / WARPGROUP, WARPGROUP, run_products, q, file, line);
    give_back(q, done);
}
