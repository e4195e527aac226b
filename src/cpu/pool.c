/* pool.c - parallel-for over tasks. Workers look for work for some microseconds before they sleep, because a model
 * is a long row of short ops. */
#include "cpu/cpu.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#if defined(__x86_64__)
#define RELAX() __builtin_ia32_pause()
#else
#define RELAX() ((void)0)
#endif

enum { SPINS = 2000 };

struct cpu_pool {
    int threads; /* the caller included */
    int started; /* workers */
    pthread_t *ids;
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    atomic_uint round;   /* a new value: there is work */
    atomic_int sleepers; /* workers that wait for `start` */
    atomic_int pending;  /* workers still in this round */
    atomic_bool stop;
    _Atomic int64_t next;
    int64_t tasks;
    cpu_task *fn;
    void *context;
    atomic_int names; /* hands out the workers' numbers */
};

static void drain(cpu_pool *p, int thread)
{
    for (;;) {
        int64_t i = atomic_fetch_add(&p->next, 1);
        if (i >= p->tasks) return;
        p->fn(p->context, i, thread);
    }
}

static void wait_for_round(cpu_pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->round) != seen) return;
        RELAX();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    while (atomic_load(&p->round) == seen) pthread_cond_wait(&p->start, &p->lock);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *work(void *context)
{
    cpu_pool *p = context;
    int thread = atomic_fetch_add(&p->names, 1);
    unsigned seen = 0;
    for (;;) {
        wait_for_round(p, seen);
        seen++; /* rounds follow each other: the next starts only when this one is over everywhere */
        if (atomic_load(&p->stop)) return NULL;
        drain(p, thread);
        if (atomic_fetch_sub(&p->pending, 1) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

static void new_round(cpu_pool *p)
{
    atomic_fetch_add(&p->round, 1);
    if (atomic_load(&p->sleepers) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
}

static void wait_for_workers(cpu_pool *p)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load(&p->pending) == 0) return;
        RELAX();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->pending) != 0) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

void cpu_parallel(const cpu *c, int64_t tasks, cpu_task *fn, void *context)
{
    cpu_pool *p = c->pool;
    if (p->started == 0 || tasks <= 1) {
        for (int64_t i = 0; i < tasks; i++) fn(context, i, 0);
        return;
    }
    p->fn = fn;
    p->context = context;
    p->tasks = tasks;
    atomic_store(&p->next, 0);
    atomic_store(&p->pending, p->started);
    new_round(p);
    drain(p, 0);
    wait_for_workers(p);
}

int64_t cpu_grain(const cpu *c, int64_t items, int64_t cost_of_item)
{
    const int64_t worth = 20000; /* elements: below it, waking a thread costs more than the work */
    int64_t least = ceil_div(worth, max64(cost_of_item, 1)), even = ceil_div(items, 4 * (int64_t)c->threads);
    return max64(1, max64(least, even));
}

sca_status cpu_pool_open(int threads, cpu_pool **out)
{
    cpu_pool *p = mem_zero(1, sizeof *p);
    *out = NULL;
    if (!p) return mem_fail(sizeof *p, "the thread pool");
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->done, NULL);
    p->threads = threads;
    atomic_store(&p->names, 1);
    p->ids = mem_zero((size_t)threads, sizeof *p->ids);
    if (!p->ids) {
        cpu_pool_close(p);
        return mem_fail((size_t)threads * sizeof(pthread_t), "the thread pool");
    }
    for (int i = 0; i + 1 < threads; i++) {
        if (pthread_create(&p->ids[i], NULL, work, p) != 0) {
            cpu_pool_close(p);
            return status_fail(SCA_ERR_DEVICE, "cannot start thread %d of %d; ask for fewer threads", i + 2,
                               threads);
        }
        p->started++;
    }
    *out = p;
    return SCA_OK;
}

void cpu_pool_close(cpu_pool *p)
{
    if (!p) return;
    atomic_store(&p->stop, true);
    new_round(p);
    for (int i = 0; i < p->started; i++) pthread_join(p->ids[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->start);
    pthread_mutex_destroy(&p->lock);
    mem_free(p->ids);
    mem_free(p);
}
