/* threads.c - short-lived threads for work that no device does: values of fresh weights, checks of files. */
#include "base.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { THREADS_MOST = 64 };

typedef struct each {
    _Atomic int64_t next;
    int64_t tasks;
    void (*fn)(void *context, int64_t task);
    void *context;
} each;

static void *drain(void *p)
{
    each *e = p;
    for (int64_t i; (i = atomic_fetch_add(&e->next, 1)) < e->tasks;) e->fn(e->context, i);
    return NULL;
}

void threads_each(int64_t tasks, void (*fn)(void *context, int64_t task), void *context)
{
    pthread_t thread[THREADS_MOST];
    each e = { .tasks = tasks, .fn = fn, .context = context };
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1, started = 0;
    while (started < THREADS_MOST && started + 1 < cores && started + 1 < tasks &&
           pthread_create(&thread[started], NULL, drain, &e) == 0)
        started++;
    drain(&e);
    for (int i = 0; i < started; i++) pthread_join(thread[i], NULL);
}
