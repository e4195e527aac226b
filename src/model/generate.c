/* generate.c - greedy search, sampling and beam search over the key-value cache.
 * Source: transformers 4.36.2 generation/utils.py, beam_search.py as the official system calls them;
 * eval.md 2.2, 2.3. Keys and values are never copied between beams: an index per sequence says which cache row
 * holds each position. */
#include "model/model.h"

#include "base/rng.h"

#include <float.h>
#include <math.h>
#include <string.h>

typedef struct hypothesis { /* finished, or handed in at the end */
    int *tokens;            /* (max_tokens) */
    int n;
    float sum;    /* of log-probabilities */
    double score; /* sum / length^penalty */
    bool eos;
} hypothesis;

typedef struct beam {
    int *tokens;
    float sum;
    int row_source;
} beam;

typedef struct search {
    const pass *p;
    const lm *m;
    const generate_options *o;
    int64_t N, n, task, prefix, T, V; /* regions, beams of each, positions, vocabulary */
    int eos;
    int64_t stream;
    lm_cache cache;
    tensor h, ids, at, index, logits; /* (N*n,1,d) (N*n) (N*n) (N*n,T) (N*n,V) of the decode step */
    int32_t *rows, *rows_next;        /* (N*n,T): cache row of each position; -1: none yet */
    int32_t *next, *place;            /* (N*n): tokens to feed, and at which position */
    int steps;                        /* tokens generated so far */
    /* greedy and sampling */
    bool *done; /* (N) */
    /* beams */
    beam *beams, *beams_next; /* (N*n) */
    hypothesis *finished;     /* (N, n+1) */
    int *n_finished;          /* (N) */
    int *token_memory;
    float *top_value;
    int32_t *top_index;
} search;

/* ---- memory of a search on the host ------------------------------------------------------------------ */

static sca_status host_memory(search *s)
{
    size_t R = (size_t)(s->N * s->n), most = (size_t)s->o->max_tokens, K = 2 * (size_t)s->n;
    size_t tokens = (2 * R + (size_t)s->N * (size_t)(s->n + 1)) * most;
    s->rows = mem_zero(R * (size_t)s->T, sizeof *s->rows);
    s->rows_next = mem_zero(R * (size_t)s->T, sizeof *s->rows_next);
    s->next = mem_zero(R, sizeof *s->next);
    s->place = mem_zero(R, sizeof *s->place);
    s->done = mem_zero((size_t)s->N, sizeof *s->done);
    s->beams = mem_zero(R, sizeof *s->beams);
    s->beams_next = mem_zero(R, sizeof *s->beams_next);
    s->finished = mem_zero((size_t)s->N * (size_t)(s->n + 1), sizeof *s->finished);
    s->n_finished = mem_zero((size_t)s->N, sizeof *s->n_finished);
    s->token_memory = mem_zero(tokens, sizeof *s->token_memory);
    s->top_value = mem_zero(R * K, sizeof *s->top_value);
    s->top_index = mem_zero(R * K, sizeof *s->top_index);
    if (!s->rows || !s->rows_next || !s->next || !s->place || !s->done || !s->beams || !s->beams_next ||
        !s->finished || !s->n_finished || !s->token_memory || !s->top_value || !s->top_index)
        return mem_fail(tokens * sizeof *s->token_memory, "the hypotheses of a search");
    int *at = s->token_memory;
    for (size_t i = 0; i < R; i++, at += 2 * most) {
        s->beams[i].tokens = at;
        s->beams_next[i].tokens = at + most;
    }
    for (size_t i = 0; i < (size_t)s->N * (size_t)(s->n + 1); i++, at += most) s->finished[i].tokens = at;
    return SCA_OK;
}

static void host_free(search *s)
{
    mem_free(s->rows);
    mem_free(s->rows_next);
    mem_free(s->next);
    mem_free(s->place);
    mem_free(s->done);
    mem_free(s->beams);
    mem_free(s->beams_next);
    mem_free(s->finished);
    mem_free(s->n_finished);
    mem_free(s->token_memory);
    mem_free(s->top_value);
    mem_free(s->top_index);
}

/* ---- the language model's part ----------------------------------------------------------------------- */

/* The task tokens stand first, so their keys are the same for all regions: they are computed once, in row 0. The
 * regions' own vectors follow in row r*n of region r. Leaves the logits of the last position in rows 0..N-1. */
static void feed_prefix(search *s, tensor task, tensor soft)
{
    const pass *p = s->p;
    size_t mark = arena_mark(p->temp);
    int64_t q = s->prefix - s->task, d = s->m->config->width;
    for (int64_t r = 0; r < s->N; r++)
        for (int64_t t = 0; t < s->T; t++)
            s->rows[r * s->T + t] = t < s->task ? 0 : t < s->prefix ? (int32_t)(r * s->n) : -1;
    dev_put(p->d, tensor_slice(s->index, 0, 0, s->N), s->rows, (size_t)(s->N * s->T) * sizeof *s->rows);
    if (s->task) {
        tensor h = pass_3d(p, 1, s->task, d);
        op_copy(p->d, h, tensor_unsqueeze(task, 0));
        lm_fwd(p, s->m, h, 0, &s->cache, 1, tensor_slice(tensor_slice(s->index, 0, 0, 1), 1, 0, s->task));
    }
    tensor h = pass_3d(p, s->N, q, d);
    op_copy(p->d, h, soft);
    lm_fwd(p, s->m, h, s->task, &s->cache, s->n, tensor_slice(tensor_slice(s->index, 0, 0, s->N), 1, 0, s->prefix));
    lm_logits(p, s->m, tensor_slice(s->logits, 0, 0, s->N), tensor_at(tensor_swap(h, 0, 1), q - 1));
    arena_release(p->temp, mark);
}

/* Feeds s->next at the position after the `steps` tokens so far; logits of all N*n sequences. Token, position and
 * cache rows of a step are in the device's memory, and the keys looked at are rounded up: so most steps are the same
 * ops on the same addresses, and a device may repeat the whole of them. */
static void feed_tokens(search *s)
{
    enum { KEYS = 64 };
    const pass *p = s->p;
    int64_t R = s->N * s->n, at = s->prefix + s->steps - 1, keys = (at + KEYS) / KEYS * KEYS;
    if (keys > s->T) keys = s->T;
    for (int64_t b = 0; b < R; b++) {
        s->rows[b * s->T + at] = (int32_t)b;
        s->place[b] = (int32_t)at;
    }
    dev_put(p->d, s->ids, s->next, (size_t)R * sizeof *s->next);
    dev_put(p->d, s->at, s->place, (size_t)R * sizeof *s->place);
    dev_put(p->d, s->index, s->rows, (size_t)(R * s->T) * sizeof *s->rows);
    tensor h = tensor_reshape2(s->h, R, s->m->config->width), index = tensor_slice(s->index, 1, 0, keys);
    const int64_t key[] = { (int64_t)(uintptr_t)s->ids.data,
                            (int64_t)(uintptr_t)s->at.data,
                            (int64_t)(uintptr_t)s->index.data,
                            (int64_t)(uintptr_t)s->h.data,
                            (int64_t)(uintptr_t)s->logits.data,
                            (int64_t)(uintptr_t)s->cache.k.data,
                            (int64_t)(uintptr_t)s->cache.v.data,
                            (int64_t)(uintptr_t)p->temp->base,
                            (int64_t)arena_mark(p->temp),
                            (int64_t)(uintptr_t)s->m->head.v.data,
                            R,
                            s->T,
                            keys };
    if (!dev_repeat(p->d, "decode step", key, sizeof key)) return;
    lm_embed(p, s->m, h, s->ids);
    lm_step(p, s->m, s->h, s->at, &s->cache, index);
    lm_logits(p, s->m, s->logits, h);
    dev_repeated(p->d);
}

/* ---- greedy search and sampling ---------------------------------------------------------------------- */

/* Next token of each region and its log-probability. */
static sca_status pick(search *s, int32_t *token, float *logprob)
{
    const pass *p = s->p;
    const generate_options *o = s->o;
    size_t mark = arena_mark(p->temp);
    sca_status status = SCA_OK;
    tensor chosen = pass_ids(p, s->N), loss = pass_stat(p, s->N);
    tensor logits = tensor_slice(s->logits, 0, 0, s->N);
    if (o->temperature > 0) {
        tensor u = pass_stat(p, s->N);
        for (int64_t i = 0; i < s->N; i++)
            logprob[i] = rng_unit(
                rng_philox(rng_key(o->seed, "sample"), (uint64_t)(s->stream + i), (uint64_t)s->steps).word[0]);
        dev_put_f32(p->d, u, logprob);
        op_sample_fwd(
            p->d, chosen, logits, u,
            (sample_options){ .temperature = (float)o->temperature, .top_k = o->top_k, .top_p = (float)o->top_p });
    } else {
        op_argmax_fwd(p->d, chosen, tensor_none(), logits);
    }
    op_cross_entropy_fwd(p->d, loss, tensor_none(), logits, chosen, 0);
    TRY_GOTO(done, dev_get(p->d, token, chosen, (size_t)s->N * sizeof *token));
    TRY_GOTO(done, dev_get_f32(p->d, logprob, loss));
    for (int64_t i = 0; i < s->N; i++) logprob[i] = -logprob[i];
done:
    arena_release(p->temp, mark);
    return status;
}

static sca_status one_by_one(search *s, generated *out)
{
    int most = s->o->max_tokens;
    for (bool open = true; open && s->steps < most;) {
        if (s->steps) feed_tokens(s);
        TRY(pick(s, s->next, s->top_value));
        open = false;
        for (int64_t i = 0; i < s->N; i++) {
            if (s->done[i]) {
                s->next[i] = 0;
                continue;
            }
            out[i].tokens[out[i].n++] = s->next[i];
            out[i].logprob += (double)s->top_value[i];
            s->done[i] = s->next[i] == s->eos;
            open |= !s->done[i];
        }
        s->steps++;
    }
    for (int64_t i = 0; i < s->N; i++) out[i].score = out[i].logprob / pow(out[i].n, s->o->length_penalty);
    return SCA_OK;
}

/* ---- beam search ------------------------------------------------------------------------------------- */

typedef struct candidate {
    float score;
    int beam, token;
} candidate;

static double normalised(const search *s, float sum, int length)
{
    return (double)sum / pow(length, s->o->length_penalty);
}

static double worst(const hypothesis *h, int n)
{
    double least = DBL_MAX;
    for (int i = 0; i < n; i++)
        if (h[i].score < least) least = h[i].score;
    return least;
}

/* BeamHypotheses.add: at most n are kept, the worst (the first of equals) goes. */
static void finish(search *s, int64_t region, const beam *b, int n_tokens, float sum, int length, bool eos)
{
    hypothesis *h = s->finished + region * (s->n + 1);
    int count = s->n_finished[region];
    double score = normalised(s, sum, length);
    if (count == s->n && !(score > worst(h, count))) return;
    hypothesis spare = h[count]; /* keeps its token memory */
    memcpy(spare.tokens, b->tokens, (size_t)n_tokens * sizeof *spare.tokens);
    spare.n = n_tokens;
    spare.sum = sum;
    spare.score = score;
    spare.eos = eos;
    h[count++] = spare;
    if (count > s->n) {
        int drop = 0;
        for (int i = 1; i < count; i++)
            if (h[i].score < h[drop].score) drop = i;
        hypothesis dropped = h[drop];
        memmove(&h[drop], &h[drop + 1], (size_t)(count - 1 - drop) * sizeof *h);
        h[--count] = dropped;
    }
    s->n_finished[region] = count;
}

static bool before(const candidate *a, const candidate *b)
{
    if (a->score != b->score) return a->score > b->score;
    return a->beam != b->beam ? a->beam < b->beam : a->token < b->token;
}

/* The best 2n of a region's n lists, descending. list(b): the K best of beam b, all beams sharing row 0 at the
 * start. */
static int merge(const search *s, int64_t region, int K, candidate *best)
{
    int wanted = 2 * (int)s->n, count = 0;
    for (int b = 0; b < s->n; b++) {
        int64_t row = s->steps ? region * s->n + b : region;
        for (int k = 0; k < K; k++) {
            candidate c = { s->beams[region * s->n + b].sum + s->top_value[row * K + k], b,
                            s->top_index[row * K + k] };
            int at = count < wanted ? count++ : wanted;
            while (at > 0 && before(&c, &best[at - 1])) {
                if (at < wanted) best[at] = best[at - 1];
                at--;
            }
            if (at < wanted)
                best[at] = c;
            else
                break; /* the list is descending: the rest is no better */
        }
    }
    return count;
}

/* Takes token c of its beam into slot `to` of the next beams. */
static void extend(search *s, int64_t region, int to, const candidate *c)
{
    const beam *from = &s->beams[region * s->n + c->beam];
    int64_t row = region * s->n + to, source = region * s->n + c->beam;
    beam *b = &s->beams_next[row];
    memcpy(b->tokens, from->tokens, (size_t)s->steps * sizeof *b->tokens);
    b->tokens[s->steps] = c->token;
    b->sum = c->score;
    s->next[row] = c->token;
    /* before the first token only row 0 of the region has been filled in */
    memcpy(s->rows_next + row * s->T, s->rows + (s->steps ? source : region) * s->T,
           (size_t)s->T * sizeof *s->rows);
}

/* One step of one region; eval.md 2.3, 2 to 4. */
static void advance(search *s, int64_t region, int K, candidate *best)
{
    int count = merge(s, region, K, best), kept = 0;
    for (int r = 0; r < count && kept < s->n; r++) {
        const candidate *c = &best[r];
        if (c->token != s->eos)
            extend(s, region, kept++, c);
        else if (r < s->n)
            finish(s, region, &s->beams[region * s->n + c->beam], s->steps, c->score, s->steps + 1, true);
    }
    for (; kept > 0 && kept < s->n; kept++) { /* a vocabulary smaller than the beams: the last one stands in */
        candidate none = best[0];
        none.score = -1e9f;
        extend(s, region, kept, &none);
    }
    const hypothesis *h = s->finished + region * (s->n + 1);
    s->done[region] =
        s->n_finished[region] == s->n && worst(h, (int)s->n) >= normalised(s, best[0].score, s->steps + 1);
}

/* What finished regions feed: anything, it is never looked at again. */
static void idle(search *s, int64_t region)
{
    for (int64_t row = region * s->n; row < (region + 1) * s->n; row++) {
        s->next[row] = 0;
        for (int64_t t = 0; t < s->T; t++) s->rows_next[row * s->T + t] = t < s->prefix + s->steps ? 0 : -1;
        s->beams_next[row].sum = 0;
    }
}

static sca_status best_tokens(search *s, int64_t rows, int K)
{
    const pass *p = s->p;
    size_t mark = arena_mark(p->temp);
    sca_status status = SCA_OK;
    dtype stat = p->d->kind->act == DT_F64 ? DT_F64 : DT_F32;
    tensor lp = arena_tensor(p->temp, stat, 2, (int64_t[]){ rows, s->V });
    tensor value = arena_tensor(p->temp, stat, 2, (int64_t[]){ rows, K });
    tensor index = arena_tensor(p->temp, DT_I32, 2, (int64_t[]){ rows, K });
    op_log_softmax_fwd(p->d, lp, tensor_slice(s->logits, 0, 0, rows));
    op_topk_fwd(p->d, value, index, lp);
    TRY_GOTO(done, dev_get_f32(p->d, s->top_value, value));
    TRY_GOTO(done, dev_get(p->d, s->top_index, index, (size_t)(rows * K) * sizeof *s->top_index));
done:
    arena_release(p->temp, mark);
    return status;
}

/* The winner: largest score, the latest of equals. */
static void take_best(search *s, int64_t region, generated *out)
{
    const hypothesis *h = s->finished + region * (s->n + 1), *best = h;
    for (int i = 1; i < s->n_finished[region]; i++)
        if (h[i].score >= best->score) best = &h[i];
    memcpy(out->tokens, best->tokens, (size_t)best->n * sizeof *out->tokens);
    out->n = best->n;
    if (best->eos && out->n < s->o->max_tokens) out->tokens[out->n++] = s->eos;
    out->logprob = (double)best->sum;
    out->score = best->score;
}

static sca_status beam_search(search *s, generated *out)
{
    int most = s->o->max_tokens, K = 2 * s->n < s->V ? 2 * (int)s->n : (int)s->V;
    candidate *best = mem_zero(2 * (size_t)s->n, sizeof *best);
    if (!best) return mem_fail(2 * (size_t)s->n * sizeof *best, "candidates");
    for (int64_t i = 0; i < s->N * s->n; i++) s->beams[i].sum = i % s->n ? -1e9f : 0;
    sca_status status = SCA_OK;
    for (bool open = true; open && s->steps < most;) {
        if (s->steps) feed_tokens(s);
        TRY_GOTO(done, best_tokens(s, s->steps ? s->N * s->n : s->N, K));
        open = false;
        for (int64_t i = 0; i < s->N; i++) {
            if (!s->done[i]) advance(s, i, K, best);
            if (s->done[i]) idle(s, i);
            open |= !s->done[i];
        }
        beam *b = s->beams;
        s->beams = s->beams_next;
        s->beams_next = b;
        int32_t *rows = s->rows;
        s->rows = s->rows_next;
        s->rows_next = rows;
        s->steps++;
    }
    for (int64_t i = 0; i < s->N; i++) {
        for (int b = 0; b < s->n && !s->done[i]; b++)
            finish(s, i, &s->beams[i * s->n + b], s->steps, s->beams[i * s->n + b].sum, s->steps, false);
        take_best(s, i, &out[i]);
    }
done:
    mem_free(best);
    return status;
}

/* ---- entry ------------------------------------------------------------------------------------------- */

static sca_status check_options(const lm *m, const generate_options *o, int64_t prefix)
{
    if (o->beams < 1 || o->beams > 64)
        return status_fail(SCA_ERR_ARGUMENT, "generate.beams is %d, expected 1 to 64", o->beams);
    if (o->temperature > 0 && o->beams > 1)
        return status_fail(
            SCA_ERR_ARGUMENT,
            "generate.temperature is %g and generate.beams is %d: sampling and beam search exclude each "
            "other; set beams to 1 or the temperature to 0",
            o->temperature, o->beams);
    if (o->max_tokens < 1 || prefix + o->max_tokens > m->config->positions)
        return status_fail(
            SCA_ERR_ARGUMENT,
            "generate.max_tokens is %d, but the language model has %d positions and %lld of them are "
            "taken by the prefix; choose 1 to %lld",
            o->max_tokens, m->config->positions, (long long)prefix, (long long)(m->config->positions - prefix));
    return SCA_OK;
}

sca_status generate(const pass *p, const lm *m, tensor task, tensor soft, const generate_options *o,
                    int64_t first_stream, generated *out)
{
    int64_t t = tensor_given(task) ? task.dim[0] : 0, prefix = t + soft.dim[1];
    TRY(check_options(m, o, prefix));
    search s = { .p = p,
                 .m = m,
                 .o = o,
                 .N = soft.dim[0],
                 .n = o->beams,
                 .task = t,
                 .prefix = prefix,
                 .T = prefix + o->max_tokens - 1,
                 .V = m->config->vocab,
                 .stream = first_stream };
    /* The null device measures the longest run: nothing ends early there. */
    s.eos = p->d->kind->measures ? -2 : m->config->eos;
    size_t mark = arena_mark(p->temp);
    sca_status status;
    TRY_GOTO(done, host_memory(&s));
    int64_t R = s.N * s.n;
    for (int64_t i = 0; i < s.N; i++) {
        out[i] = (generated){ .tokens = mem_zero((size_t)o->max_tokens, sizeof *out->tokens) };
        if (!out[i].tokens) {
            status = mem_fail((size_t)o->max_tokens * sizeof *out->tokens, "tokens");
            goto done;
        }
    }
    s.cache = lm_cache_new(p, m, R, s.T);
    s.h = pass_3d(p, R, 1, m->config->width);
    s.ids = pass_ids(p, R);
    s.at = pass_ids(p, R);
    s.index = arena_tensor(p->temp, DT_I32, 2, (int64_t[]){ R, s.T });
    s.logits = pass_2d(p, R, s.V);
    feed_prefix(&s, task, soft);
    TRY_GOTO(done, s.n == 1 ? one_by_one(&s, out) : beam_search(&s, out));
    status = dev_check(p->d);
done:
    arena_release(p->temp, mark);
    host_free(&s);
    return status;
}
