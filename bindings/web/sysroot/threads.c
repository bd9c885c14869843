/* threads.c: pthread.h on the atomic operations of WebAssembly.
 * In:  workers that wait in quip_web_thread_run (web_threads.h).
 * Out: threads, mutexes and condition variables.
 *
 * The mutex is mutex2 of Drepper, "Futexes are tricky" (2011): unlocking wakes no thread unless
 * one may wait. A condition variable counts its signals: a thread waits for the count to change,
 * so it misses no signal that came after it unlocked the mutex. */
#include <web_threads.h>

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <unistd.h>

enum thread_state {
    NO_WORKER, // no worker has this index
    IDLE,      // a worker waits for a function
    RUNNING,
};

static struct web_thread {
    _Atomic int state; // enum thread_state
    void *(*run)(void *);
    void *arg;
} threads[WEB_MAX_WORKERS];

#if defined(__wasm_atomics__)

/* Not inlined: the baseline compiler of Node 20 loses the local variables of a function that
 * waits. */
__attribute__((noinline)) static void wait_while(_Atomic int *word, int value)
{
    __builtin_wasm_memory_atomic_wait32((int *)word, value, -1);
}

static void wake(_Atomic int *word, unsigned n_waiters)
{
    __builtin_wasm_memory_atomic_notify((int *)word, n_waiters);
}

#else // one thread: nothing to wait for

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

void quip_web_thread_run(uint32_t index)
{
    if (index >= WEB_MAX_WORKERS)
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
    for (int i = 0; i < WEB_MAX_WORKERS; i++)
        n += atomic_load(&threads[i].state) == IDLE;
    return n;
}

int pthread_create(pthread_t *thread, const void *attributes, void *(*run)(void *), void *arg)
{
    (void)attributes;
    for (struct web_thread *t = threads; t < threads + WEB_MAX_WORKERS; t++) {
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
    assert(t >= threads && t < threads + WEB_MAX_WORKERS);
    if (result)
        *result = NULL;
    while (atomic_load(&t->state) == RUNNING)
        wait_while(&t->state, RUNNING);
    return 0;
}

/* The number of processors, the only thing that the library asks for: this thread and the workers
 * that wait. */
long sysconf(int name)
{
    return name == _SC_NPROCESSORS_ONLN ? 1 + quip_web_threads_idle() : -1;
}

/* ---- locks ---- */

int pthread_mutex_lock(pthread_mutex_t *m)
{
    int expected = 0;
    if (atomic_compare_exchange_strong(&m->state, &expected, 1))
        return 0;
    while (atomic_exchange(&m->state, 2) != 0)
        wait_while(&m->state, 2);
    return 0;
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    const int state = atomic_exchange(&m->state, 0);
    assert(state != 0);
    if (state == 2)
        wake(&m->state, 1);
    return 0;
}

int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *m)
{
    const int n_signals = atomic_load(&cond->n_signals);
    pthread_mutex_unlock(m);
    wait_while(&cond->n_signals, n_signals);
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
