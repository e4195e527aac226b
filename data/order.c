/* order.c - which image comes when: random numbers by place, and the list that several sets are mixed into. */
#include "data/loader_parts.h"

#include <string.h>

/* ---- draws ---------------------------------------------------------------------------------------------------- */

draws draws_at(uint64_t seed, const char *purpose, uint64_t place)
{
    return (draws){ .key = rng_key(seed, purpose), .place = place };
}

/* 64 bits: half a block. */
static uint64_t draw(draws *d)
{
    if (d->count % 2 == 0) d->block = rng_philox(d->key, d->count / 2, d->place);
    const uint32_t *w = &d->block.word[d->count++ % 2 * 2];
    return (uint64_t)w[0] << 32 | w[1];
}

uint64_t draw_below(draws *d, uint64_t n) { return (uint64_t)(((uint128)draw(d) * n) >> 64); }

double draw_unit(draws *d) { return (double)(draw(d) >> 11) * 0x1p-53; }

void draw_order(draws *d, uint32_t *items, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t other = (size_t)draw_below(d, i);
        uint32_t kept = items[i - 1];
        items[i - 1] = items[other];
        items[other] = kept;
    }
}

/* ---- NumPy's generator ------------------------------------------------------------------------------------------ */

static uint32_t hash_mix(uint32_t value, uint32_t *constant, uint32_t factor)
{
    value ^= *constant;
    *constant *= factor;
    value *= *constant;
    return value ^ value >> 16;
}

/* SeedSequence: the seed is spread over a pool of four words, from which the state is drawn. */
static void seed_pool(uint64_t seed, uint32_t pool[4])
{
    uint32_t constant = 0x43b0d7e5u, words[4] = { (uint32_t)seed, (uint32_t)(seed >> 32), 0, 0 };
    for (int i = 0; i < 4; i++) pool[i] = hash_mix(words[i], &constant, 0x931e8875u);
    for (int from = 0; from < 4; from++)
        for (int to = 0; to < 4; to++) {
            if (from == to) continue;
            uint32_t mixed = 0xca01f9ddu * pool[to] - 0x4973f715u * hash_mix(pool[from], &constant, 0x931e8875u);
            pool[to] = mixed ^ mixed >> 16;
        }
}

static void pcg64_step(pcg64 *g)
{
    const uint128 factor = (uint128)0x2360ed051fc65da4u << 64 | 0x4385df649fccf645u;
    g->state = g->state * factor + g->step;
}

void pcg64_init(pcg64 *g, uint64_t seed)
{
    uint32_t pool[4], constant = 0x8b51f9ddu;
    uint64_t words[4];
    seed_pool(seed, pool);
    for (int i = 0; i < 4; i++) {
        uint64_t low = hash_mix(pool[2 * i % 4], &constant, 0x58f38dedu);
        words[i] = (uint64_t)hash_mix(pool[(2 * i + 1) % 4], &constant, 0x58f38dedu) << 32 | low;
    }
    g->step = ((uint128)words[2] << 64 | words[3]) << 1 | 1;
    g->state = 0;
    pcg64_step(g);
    g->state += (uint128)words[0] << 64 | words[1];
    pcg64_step(g);
}

double pcg64_unit(pcg64 *g)
{
    pcg64_step(g);
    uint64_t folded = (uint64_t)(g->state >> 64) ^ (uint64_t)g->state;
    unsigned turn = (unsigned)(g->state >> 122);
    uint64_t word = folded >> turn | folded << (-turn & 63);
    return (double)(word >> 11) * 0x1p-53;
}

/* ---- the mixture ------------------------------------------------------------------------------------------------- */

static sca_status check_weights(const double *weights, size_t sets, bool *weighted)
{
    size_t given = 0;
    for (size_t i = 0; i < sets; i++) given += weights[i] > 0;
    if (given != 0 && given != sets)
        return status_fail(SCA_ERR_ARGUMENT,
                           "data.train: %zu of %zu sets have a weight; give one to all of them, or to none (they "
                           "then take turns)",
                           given, sets);
    *weighted = given > 0 && sets > 1;
    return SCA_OK;
}

/* As NumPy's choice: the first whose share of the sum lies above u. */
static size_t choose(const double *shares, size_t sets, double u)
{
    size_t i = 0;
    while (i + 1 < sets && shares[i] <= u) i++;
    return i;
}

static void fill_shares(const double *weights, size_t sets, double *shares)
{
    double sum = 0, total = 0;
    for (size_t i = 0; i < sets; i++) sum += weights[i];
    for (size_t i = 0; i < sets; i++) shares[i] = total += weights[i] / sum;
    for (size_t i = 0; i < sets; i++) shares[i] /= total;
}

static sca_status put_drawn(mixture *m, size_t *cap, int64_t image)
{
    if ((size_t)m->count == *cap) {
        size_t wider = *cap ? 2 * *cap : 4096, bytes;
        uint32_t *p = size_mul(wider, sizeof *p, &bytes) ? mem_resize(m->drawn, bytes) : NULL;
        if (!p) return mem_fail(wider, "the list of images");
        m->drawn = p;
        *cap = wider;
    }
    if (m->count >= UINT32_MAX)
        return status_fail(SCA_ERR_UNSUPPORTED, "data.train: the weights make a list of more than 4294967295 "
                                                "images; leave out the set with the smallest weight");
    m->drawn[m->count++] = (uint32_t)image;
    return SCA_OK;
}

/* Each draw gives the next image of a set, until the last set has been through once. */
static sca_status draw_list(mixture *m, const double *shares, uint64_t seed, int64_t *next)
{
    size_t cap = 0, left = m->sets;
    pcg64 g;
    bool *through = mem_zero(m->sets, sizeof *through);
    if (!through) return mem_fail(m->sets, "a mixture");
    sca_status status = SCA_OK;
    for (pcg64_init(&g, seed); left > 0 && status == SCA_OK;) {
        size_t set = choose(shares, m->sets, pcg64_unit(&g));
        status = put_drawn(m, &cap, m->first[set] + next[set]);
        if (++next[set] < m->first[set + 1] - m->first[set]) continue;
        next[set] = 0;
        left -= !through[set];
        through[set] = true;
    }
    mem_free(through);
    return status;
}

static sca_status mix_by_weight(mixture *m, const double *weights, uint64_t seed)
{
    double *shares = mem_alloc(m->sets * sizeof *shares);
    int64_t *next = mem_zero(m->sets, sizeof *next);
    sca_status status = shares && next ? SCA_OK : mem_fail(m->sets * sizeof *next, "a mixture");
    if (status == SCA_OK) {
        fill_shares(weights, m->sets, shares);
        status = draw_list(m, shares, seed, next);
    }
    mem_free(next);
    mem_free(shares);
    return status;
}

sca_status mixture_init(const int64_t *images, const double *weights, size_t sets, uint64_t seed, mixture *out)
{
    bool weighted;
    int64_t longest = 0;
    *out = (mixture){ .sets = sets };
    TRY(check_weights(weights, sets, &weighted));
    out->first = mem_zero(sets + 1, sizeof *out->first);
    if (!out->first) return mem_fail((sets + 1) * sizeof *out->first, "a mixture");
    for (size_t i = 0; i < sets; i++) {
        out->first[i + 1] = out->first[i] + images[i];
        if (images[i] > longest) longest = images[i];
    }
    out->count = weighted ? 0 : longest * (int64_t)sets;
    sca_status status = SCA_OK;
    if (out->first[sets] > UINT32_MAX || out->count > UINT32_MAX)
        status = status_fail(SCA_ERR_UNSUPPORTED, "data.train: more than 4294967295 images");
    else if (weighted)
        status = mix_by_weight(out, weights, seed);
    if (status != SCA_OK) mixture_free(out);
    return status;
}

void mixture_free(mixture *m)
{
    mem_free(m->first);
    mem_free(m->drawn);
    *m = (mixture){ 0 };
}

void mixture_at(const mixture *m, int64_t place, size_t *set, int64_t *image)
{
    if (m->drawn) {
        int64_t number = m->drawn[place];
        for (*set = 0; number >= m->first[*set + 1];) ++*set;
        *image = number - m->first[*set];
        return;
    }
    *set = (size_t)place % m->sets;
    *image = place / (int64_t)m->sets % (m->first[*set + 1] - m->first[*set]);
}
