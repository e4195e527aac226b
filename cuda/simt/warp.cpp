/* warp.cpp - what a warp does together, on the host: the last lane to come does the work of all. */
#include "cuda/simt/inside.h"

extern "C" {
#include "base/base.h"
#include "core/core.h"
}

float simt_from_half(uint16_t bits) { return f16_to_f32(bits); }
uint16_t simt_to_half(float x) { return f32_to_f16(x); }
uint16_t simt_to_bf16(float x) { return f32_to_bf16(x); }

/* ---- votes and shuffles ------------------------------------------------------------------------------------------- */

void simt_ballot(void *const *arguments, unsigned count)
{
    unsigned bits = 0;
    for (unsigned i = 0; i < count; i++)
        if (arguments[i] && static_cast<simt_vote *>(arguments[i])->in) bits |= 1u << i;
    for (unsigned i = 0; i < count; i++)
        if (arguments[i]) static_cast<simt_vote *>(arguments[i])->out = bits;
}

void simt_count(void *const *arguments, unsigned count)
{
    unsigned n = 0;
    for (unsigned i = 0; i < count; i++) n += arguments[i] && static_cast<simt_vote *>(arguments[i])->in;
    for (unsigned i = 0; i < count; i++)
        if (arguments[i]) static_cast<simt_vote *>(arguments[i])->out = n;
}

void simt_exchange(void *const *arguments, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        simt_shuffle *s = static_cast<simt_shuffle *>(arguments[i]);
        if (!s) continue;
        const simt_shuffle *from = s->from < count ? static_cast<const simt_shuffle *>(arguments[s->from]) : NULL;
        if (!from) simt_fail("shuffle: lane %u asks lane %u, which takes no part", i, s->from);
        s->out = from->in;
    }
}

/* ---- cp.async -------------------------------------------------------------------------------------------------------- */

void simt_copy_async(void *shared, const void *global, unsigned bytes, unsigned source_bytes)
{
    machine *m = simt_machine;
    fiber *f = &m->fibers[m->running];
    if (!f->copies) f->copies = static_cast<copy_async *>(mem_alloc(MOST_COPIES * sizeof *f->copies));
    if (!f->copies || f->n_copies == MOST_COPIES)
        simt_fail("more than %d copies of one thread are on their way", MOST_COPIES);
    simt_note(shared, bytes, bytes, SIMT_WRITE);
    if (source_bytes) simt_note(global, source_bytes, bytes, SIMT_READ);
    memset(shared, 0xff, bytes); /* what was there may be gone from now on; NaN of any type */
    copy_async c = { static_cast<char *>(shared), static_cast<const char *>(global), bytes, source_bytes,
                     f->group };
    f->copies[f->n_copies++] = c;
}

void simt_copy_commit(void) { simt_machine->fibers[simt_machine->running].group++; }

void simt_copy_wait(unsigned groups)
{
    machine *m = simt_machine;
    fiber *f = &m->fibers[m->running];
    unsigned kept = 0;
    for (unsigned i = 0; i < f->n_copies; i++) {
        copy_async c = f->copies[i];
        if (c.group + groups >= f->group) { /* still on its way, or not committed */
            f->copies[kept++] = c;
            continue;
        }
        simt_note(c.to, c.bytes, c.bytes, SIMT_WRITE);
        memcpy(c.to, c.from, c.source_bytes);
        memset(c.to + c.source_bytes, 0, c.bytes - c.source_bytes);
    }
    f->n_copies = kept;
}

/* ---- matrices ---------------------------------------------------------------------------------------------------------- */

/* Lane l holds, of matrix i, elements 2 (l % 4) and the next of row l / 4; transposed: of column l / 4. The rows are
 * noted as read by the lane that named them, in kernel.cuh. */
void simt_load_matrices(void *const *arguments, unsigned count)
{
    for (unsigned l = 0; l < count; l++) {
        simt_ldmatrix *mine = static_cast<simt_ldmatrix *>(arguments[l]);
        if (!mine) simt_fail("ldmatrix: lane %u takes no part", l);
        for (int i = 0; i < mine->matrices; i++) {
            uint16_t pair[2];
            for (unsigned k = 0; k < 2; k++) {
                unsigned row = mine->transposed ? l % 4 * 2 + k : l / 4,
                         column = mine->transposed ? l / 4 : l % 4 * 2 + k;
                const simt_ldmatrix *owner = static_cast<const simt_ldmatrix *>(arguments[8 * i + (int)row]);
                memcpy(&pair[k], static_cast<const char *>(owner->row) + 2 * column, 2);
            }
            memcpy(&mine->out[i], pair, 4);
        }
    }
}

static float half_of(uint32_t word, int high, bool bf16)
{
    uint16_t bits = (uint16_t)(high ? word >> 16 : word);
    return bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

/* Fragments of mma.sync m16n8k16: group g = lane / 4, pair t = lane % 4.
 * a[0] (g, 2t..) a[1] (g + 8, 2t..) a[2] (g, 2t + 8..) a[3] (g + 8, 2t + 8..)   b[0] (2t.., g) b[1] (2t + 8.., g)
 * c[0..1] (g, 2t..) c[2..3] (g + 8, 2t..). Sums are made in double and rounded once, to nearest: the hardware's own
 * order and truncation are not defined. */
void simt_mma_16816(void *const *arguments, unsigned count)
{
    float a[16][16], b[16][8];
    for (unsigned l = 0; l < count; l++) {
        const simt_mma *m = static_cast<const simt_mma *>(arguments[l]);
        if (!m) simt_fail("mma: lane %u takes no part", l);
        for (unsigned i = 0; i < 4; i++)
            for (unsigned k = 0; k < 2; k++)
                a[l / 4 + 8 * (i & 1)][l % 4 * 2 + k + 8 * (i >> 1)] = half_of(m->a[i], (int)k, m->bf16);
        for (unsigned i = 0; i < 2; i++)
            for (unsigned k = 0; k < 2; k++) b[l % 4 * 2 + k + 8 * i][l / 4] = half_of(m->b[i], (int)k, m->bf16);
    }
    for (unsigned l = 0; l < count; l++) {
        const simt_mma *m = static_cast<const simt_mma *>(arguments[l]);
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = l / 4 + 8 * (i >> 1), column = l % 4 * 2 + (i & 1);
            double sum = (double)m->c[i];
            for (int k = 0; k < 16; k++) sum += (double)a[row][k] * (double)b[k][column];
            m->c[i] = (float)sum;
        }
    }
}

static float tf32_of(uint32_t bits)
{
    float x;
    bits &= 0xffffe000u; /* the hardware looks at 10 bits of fraction */
    memcpy(&x, &bits, 4);
    return x;
}

/* m16n8k8: a[0] (g, t) a[1] (g + 8, t) a[2] (g, t + 4) a[3] (g + 8, t + 4)   b[0] (t, g) b[1] (t + 4, g); c as above */
void simt_mma_1688(void *const *arguments, unsigned count)
{
    float a[16][8], b[8][8];
    for (unsigned l = 0; l < count; l++) {
        const simt_mma_tf32 *m = static_cast<const simt_mma_tf32 *>(arguments[l]);
        if (!m) simt_fail("mma: lane %u takes no part", l);
        for (unsigned i = 0; i < 4; i++) a[l / 4 + 8 * (i & 1)][l % 4 + 4 * (i >> 1)] = tf32_of(m->a[i]);
        for (unsigned i = 0; i < 2; i++) b[l % 4 + 4 * i][l / 4] = tf32_of(m->b[i]);
    }
    for (unsigned l = 0; l < count; l++) {
        const simt_mma_tf32 *m = static_cast<const simt_mma_tf32 *>(arguments[l]);
        for (unsigned i = 0; i < 4; i++) {
            unsigned row = l / 4 + 8 * (i >> 1), column = l % 4 * 2 + (i & 1);
            double sum = (double)m->c[i];
            for (int k = 0; k < 8; k++) sum += (double)a[row][k] * (double)b[k][column];
            m->c[i] = (float)sum;
        }
    }
}
