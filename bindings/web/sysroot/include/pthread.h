/* pthread.h: as much of POSIX threads as the library's pool asks for, on WebAssembly's atomics
 * (threads.c). Threads are not made here: the page starts workers, each of which waits in
 * quip_web_thread_run for a function to run (quip_web.h). A build without threads has none to give:
 * pthread_create fails with EAGAIN, and the pool goes on with the caller's thread alone. */
#ifndef QUIP_WEB_PTHREAD_H
#define QUIP_WEB_PTHREAD_H

#include <signal.h>

typedef struct web_thread *pthread_t;
typedef struct pthread_mutex {
    _Atomic int state; // 0 free, 1 held, 2 held and waited for
} pthread_mutex_t;
typedef struct pthread_cond {
    _Atomic int n_signals; // wraps around
} pthread_cond_t;

int pthread_create(pthread_t *thread, const void *attributes, void *(*run)(void *), void *arg);
int pthread_join(pthread_t thread, void **result);

int pthread_mutex_lock(pthread_mutex_t *mutex);
int pthread_mutex_unlock(pthread_mutex_t *mutex);
int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int pthread_cond_signal(pthread_cond_t *cond);
int pthread_cond_broadcast(pthread_cond_t *cond);

static inline int pthread_mutex_init(pthread_mutex_t *mutex, const void *attributes)
{
    (void)attributes;
    return mutex->state = 0;
}
static inline int pthread_mutex_destroy(pthread_mutex_t *mutex)
{
    return mutex->state = 0;
}
static inline int pthread_cond_init(pthread_cond_t *cond, const void *attributes)
{
    (void)attributes;
    return cond->n_signals = 0;
}
static inline int pthread_cond_destroy(pthread_cond_t *cond)
{
    return cond->n_signals = 0;
}
static inline int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    (void)how, (void)set, (void)old;
    return 0;
}

#endif
