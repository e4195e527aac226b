/* meteor.c - METEOR 1.5 with the English task's weights, as the jar of coco-caption reports it (metrics.md 6). */
#include "eval/meteor_parts.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

struct meteor {
    meteor_data data;
    meteor_words words;
};

sca_status meteor_open(const char *path, meteor **out)
{
    *out = NULL;
    meteor *m = mem_zero(1, sizeof *m);
    if (!m) return mem_fail(sizeof *m, "METEOR");
    sca_status status = meteor_data_open(path, &m->data);
    if (status == SCA_OK) status = meteor_words_open(&m->data, &m->words);
    if (status == SCA_OK)
        *out = m;
    else
        meteor_close(m);
    return status;
}

void meteor_close(meteor *m)
{
    if (!m) return;
    meteor_words_close(&m->words);
    meteor_data_close(&m->data);
    mem_free(m);
}

bool meteor_has_phrases(const meteor *m) { return m->data.has_phrases; }

meteor_words *meteor_lend_words(meteor *m) { return &m->words; }

/* ---- score of one record ------------------------------------------------------------------- */

double meteor_value(const meteor_stats *s)
{
    const double alpha = 0.85, beta = 0.2, gamma = 0.6, delta = 0.75;
    static const double weight[] = { 1.0, 0.6, 0.8, 0.6 };
    const int32_t *n = s->n;
    double t_length = delta * (n[0] - n[2]) + (1 - delta) * n[2];
    double r_length = delta * (n[1] - n[3]) + (1 - delta) * n[3];
    double t = 0, r = 0;
    for (int k = 0; k < 4; k++) {
        t += weight[k] * (delta * n[4 + 4 * k] + (1 - delta) * n[6 + 4 * k]);
        r += weight[k] * (delta * n[5 + 4 * k] + (1 - delta) * n[7 + 4 * k]);
    }
    double precision = t / t_length, recall = r / r_length;
    double mean = 1 / ((1 - alpha) / precision + alpha / recall);
    bool whole = n[21] == n[0] && n[22] == n[1] && n[20] == 1;
    double fragments = whole ? 0 : n[20] / ((n[21] + n[22]) / 2.0);
    double score = mean * (1 - gamma * pow(fragments, beta));
    return score > 0 ? score : 0; /* also when undefined */
}

/* ---- texts --------------------------------------------------------------------------------- */

/* All captions of all items as numbers of words: hypothesis, references, hypothesis, ... */
typedef struct numbered {
    int32_t *id;
    size_t n_ids, cap_ids;
    size_t *at;      /* per caption and one more */
    size_t n, *item; /* per item: its first caption */
} numbered;

static void numbered_free(numbered *x)
{
    mem_free(x->id);
    mem_free(x->at);
    mem_free(x->item);
}

static sca_status number_caption(meteor *m, const char *text, numbered *x)
{
    const char *line;
    TRY(meteor_normalise(&m->words, text, &line));
    for (const char *p = line; *(p += strspn(p, " \t\n\r\f"));) {
        size_t bytes = strcspn(p, " \t\n\r\f");
        if (x->n_ids == x->cap_ids) {
            size_t cap = x->cap_ids ? x->cap_ids * 2 : 4096;
            int32_t *id = mem_resize(x->id, cap * sizeof *id);
            if (!id) return mem_fail(cap * sizeof *id, "captions");
            x->id = id, x->cap_ids = cap;
        }
        TRY(meteor_word(&m->words, p, bytes, &x->id[x->n_ids++]));
        p += bytes;
    }
    x->at[++x->n] = x->n_ids;
    return SCA_OK;
}

/* What the Python wrapper does to a hypothesis: "|||" removed, then each double space made single. */
static sca_status clean_hypothesis(const char *text, str *out)
{
    str_clear(out);
    for (const char *p = text; *p;) {
        if (text_starts(p, "|||"))
            p += 3;
        else
            str_putc(out, *p++);
    }
    char *to = out->data;
    for (const char *p = to; p && *p; *to++ = *p++)
        if (p[0] == ' ' && p[1] == ' ') p++;
    if (to) *to = 0;
    return out->failed ? mem_fail(strlen(text), "caption") : SCA_OK;
}

static sca_status number_captions(meteor *m, const eval_item *items, size_t n, numbered *x)
{
    size_t captions = n;
    str clean = { 0 };
    sca_status status = SCA_OK;
    for (size_t i = 0; i < n; i++) captions += items[i].n_refs;
    x->at = mem_zero(captions + 1, sizeof *x->at);
    x->item = mem_alloc((n + 1) * sizeof *x->item);
    if (!x->at || !x->item) return mem_fail((captions + n + 2) * sizeof *x->at, "captions");
    for (size_t i = 0; i < n; i++) {
        x->item[i] = x->n;
        TRY_GOTO(done, clean_hypothesis(items[i].hyp, &clean));
        TRY_GOTO(done, number_caption(m, str_text(&clean), x));
        for (size_t k = 0; k < items[i].n_refs; k++) TRY_GOTO(done, number_caption(m, items[i].refs[k], x));
    }
    x->item[n] = x->n;
done:
    str_free(&clean);
    return status;
}

/* ---- items, spread over threads: every n-th block each, results go to their places -------- */

typedef struct job {
    meteor *m;
    const numbered *x;
    size_t n_items;
    meteor_stats *stats;
    int index, count;
    sca_status status;
    char message[STATUS_MESSAGE_BYTES];
} job;

static sca_status item_stats(meteor_aligner *a, const numbered *x, size_t item, meteor_stats *best)
{
    size_t hyp = x->item[item], end = x->item[item + 1];
    double best_score = -1;
    meteor_text t = { x->id + x->at[hyp], x->at[hyp + 1] - x->at[hyp] };
    for (size_t r = hyp + 1; r < end; r++) {
        meteor_stats s;
        TRY(meteor_align(a, t, (meteor_text){ x->id + x->at[r], x->at[r + 1] - x->at[r] }, &s));
        double score = meteor_value(&s);
        if (score > best_score) *best = s, best_score = score;
    }
    return SCA_OK;
}

static sca_status job_items(const job *j)
{
    enum { BLOCK = 64 };
    meteor_aligner *a;
    TRY(meteor_aligner_open(&j->m->words, &a));
    sca_status status = SCA_OK;
    size_t step = (size_t)j->count * BLOCK;
    for (size_t first = (size_t)j->index * BLOCK; first < j->n_items && status == SCA_OK; first += step)
        for (size_t i = first; i < first + BLOCK && i < j->n_items && status == SCA_OK; i++)
            status = item_stats(a, j->x, i, &j->stats[i]);
    meteor_aligner_close(a);
    return status;
}

static void *job_run(void *user)
{
    job *j = user;
    j->status = job_items(j);
    strncpy(j->message, j->status == SCA_OK ? "" : status_message(), sizeof j->message - 1);
    return NULL;
}

/* The first failure, in the order of the threads, is reported. */
static sca_status jobs_run(job *jobs, int n)
{
    enum { MOST = 64 };
    pthread_t thread[MOST];
    bool started[MOST] = { false };
    for (int i = 1; i < n; i++) started[i] = pthread_create(&thread[i], NULL, job_run, &jobs[i]) == 0;
    for (int i = 0; i < n; i++)
        if (!started[i]) job_run(&jobs[i]);
    for (int i = 1; i < n; i++)
        if (started[i]) pthread_join(thread[i], NULL);
    for (int i = 0; i < n; i++)
        if (jobs[i].status != SCA_OK) return status_set(jobs[i].status, jobs[i].message);
    return SCA_OK;
}

static sca_status all_stats(meteor *m, const numbered *x, size_t n, int threads, meteor_stats *stats)
{
    int count = threads < 1 ? 1 : threads > 64 ? 64 : threads;
    job *jobs = mem_zero((size_t)count, sizeof *jobs);
    if (!jobs) return mem_fail((size_t)count * sizeof *jobs, "METEOR");
    for (int i = 0; i < count; i++)
        jobs[i] = (job){ .m = m, .x = x, .n_items = n, .stats = stats, .index = i, .count = count };
    sca_status status = jobs_run(jobs, count);
    mem_free(jobs);
    return status;
}

/* An item that is matched as a whole adds nothing to the chunks of the sum. */
static void add_stats(meteor_stats *sum, const meteor_stats *s)
{
    bool whole = s->n[21] == s->n[0] && s->n[22] == s->n[1] && s->n[20] == 1;
    for (int k = 0; k < METEOR_STATS; k++)
        if (k != 20 || !whole) sum->n[k] += s->n[k];
}

sca_status meteor_score(meteor *m, const eval_item *items, size_t n, int threads, double *corpus, double *per_item,
                        meteor_stats *stats)
{
    numbered x = { 0 };
    meteor_stats sum = { { 0 } }, *all = stats;
    sca_status status = SCA_OK;
    if (!all) all = mem_zero(n, sizeof *all);
    if (!all) return mem_fail(n * sizeof *all, "METEOR");
    TRY_GOTO(done, number_captions(m, items, n, &x));
    TRY_GOTO(done, all_stats(m, &x, n, threads, all));
    for (size_t i = 0; i < n; i++) {
        if (per_item) per_item[i] = meteor_value(&all[i]);
        add_stats(&sum, &all[i]);
    }
    *corpus = meteor_value(&sum);
done:
    numbered_free(&x);
    if (!stats) mem_free(all);
    return status;
}
