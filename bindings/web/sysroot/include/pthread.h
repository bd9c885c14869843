/* pthread.h: the part of POSIX threads that the library's thread pool uses (threads.c).
 * The module cannot start threads. The page starts workers, and pthread_create hands a function to
 * one that waits (web_threads.h). If none waits, it fails with EAGAIN, and the pool continues with
 * the threads that it has. In a module without threads it always fails. */
#ifndef QUIP_WEB_PTHREAD_H
#define QUIP_WEB_PTHREAD_H

#include <signal.h>

typedef struct web_thread *pthread_t;
typedef struct pthread_mutex {
    _Atomic int state; // 0 free, 1 locked, 2 locked and perhaps a thread waits
} pthread_mutex_t;
typedef struct pthread_cond {
    _Atomic int n_signals; // wraps around
} pthread_cond_t;

/* `attributes` is ignored. One thread at a time may create threads. */
int pthread_create(pthread_t *thread, const void *attributes, void *(*run)(void *), void *arg);
/* Wait until the function has returned. *result is NULL: what the function returned is lost. */
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
