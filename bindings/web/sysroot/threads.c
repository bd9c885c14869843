/* threads.c: pthread.h on WebAssembly's atomics.
 * In:  workers that wait in quip_web_thread_run. Out: threads, mutexes, conditions.
 * A mutex is Drepper's ("Futexes are tricky", 2011): three states, no system call unless somebody
 * waits. A condition counts its signals: who waits for the count to change misses none. */
#include "../native/quip_web.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <unistd.h>

enum {
    MAX_WORKERS = 64
};

enum thread_state {
    NO_WORKER, // nobody waits here
    IDLE,      // a worker waits for something to run
    RUNNING,
};

static struct web_thread {
    _Atomic int state; // enum thread_state
    void *(*run)(void *);
    void *arg;
} threads[MAX_WORKERS];

#if defined(__wasm_atomics__)

/* A call of its own: Node 20's baseline compiler loses the local variables of whoever waits. */
__attribute__((noinline)) static void wait_while(_Atomic int *word, int value)
{
    __builtin_wasm_memory_atomic_wait32((int *)word, value, -1);
}

static void wake(_Atomic int *word, unsigned n_waiters)
{
    __builtin_wasm_memory_atomic_notify((int *)word, n_waiters);
}

#else // one thread: nobody to wait for

static void wait_while(_Atomic int *word, int value)
{
    (void)word, (void)value;
}

static void wake(_Atomic int *word, unsigned n_waiters)
{
    (void)word, (void)n_waiters;
}

#endif

/* ---- threads ---- */

/* A worker's life: wait, run, wait again; it ends with its worker. */
void quip_web_thread_run(uint32_t index)
{
    if (index >= MAX_WORKERS)
        return;
    struct web_thread *t = &threads[index];
    for (;;) {
        atomic_store(&t->state, IDLE);
        wake(&t->state, UINT32_MAX);
        while (atomic_load(&t->state) == IDLE)
            wait_while(&t->state, IDLE);
        t->run(t->arg);
    }
}

int32_t quip_web_threads_idle(void)
{
    int n = 0;
    for (int i = 0; i < MAX_WORKERS; i++)
        n += atomic_load(&threads[i].state) == IDLE;
    return n;
}

int pthread_create(pthread_t *thread, const void *attributes, void *(*run)(void *), void *arg)
{
    (void)attributes;
    for (struct web_thread *t = threads; t < threads + MAX_WORKERS; t++) {
        if (atomic_load(&t->state) != IDLE)
            continue;
        t->run = run;
        t->arg = arg;
        atomic_store(&t->state, RUNNING);
        wake(&t->state, 1);
        *thread = t;
        return 0;
    }
    return EAGAIN;
}

int pthread_join(pthread_t t, void **result)
{
    if (result)
        *result = NULL;
    while (atomic_load(&t->state) == RUNNING)
        wait_while(&t->state, RUNNING);
    return 0;
}

/* How many processors: the caller's thread and the workers that are free. */
long sysconf(int name)
{
    (void)name;
    return 1 + quip_web_threads_idle();
}

/* ---- locks ---- */

int pthread_mutex_lock(pthread_mutex_t *m)
{
    int seen = 0;
    if (atomic_compare_exchange_strong(&m->state, &seen, 1))
        return 0;
    while (atomic_exchange(&m->state, 2) != 0)
        wait_while(&m->state, 2);
    return 0;
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    if (atomic_exchange(&m->state, 0) == 2)
        wake(&m->state, 1);
    return 0;
}

int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *m)
{
    const int seen = atomic_load(&cond->n_signals);
    pthread_mutex_unlock(m);
    wait_while(&cond->n_signals, seen);
    return pthread_mutex_lock(m);
}

int pthread_cond_signal(pthread_cond_t *cond)
{
    atomic_fetch_add(&cond->n_signals, 1);
    wake(&cond->n_signals, 1);
    return 0;
}

int pthread_cond_broadcast(pthread_cond_t *cond)
{
    atomic_fetch_add(&cond->n_signals, 1);
    wake(&cond->n_signals, UINT32_MAX);
    return 0;
}
