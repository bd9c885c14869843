/* alloc_fault.c: replaces malloc, similar functions and pthread_create with versions that can fail.
 * In:  calls of the library, redirected by the linker's --wrap.
 * Out: the real result, or ENOMEM (EAGAIN for a thread) when the countdown ends. */
#include "support/alloc_fault.h"

#if defined(__linux__)

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__real_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int __real_munmap(void *p, size_t n);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);
void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset);
int __wrap_munmap(void *p, size_t n);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg);

static atomic_int countdown = -1; // allocations before the one that fails; negative: none fails
static atomic_int n_failed, n_live, n_made;
static atomic_int n_threads_left = -1; // how many may still be created; negative: any number

bool alloc_fault_is_here(void)
{
    return true;
}

void alloc_fault_set(int n)
{
    n_failed = 0;
    countdown = n;
}

bool alloc_fault_clear(void)
{
    countdown = -1;
    return n_failed > 0;
}

int alloc_fault_live(void)
{
    return n_live;
}

int alloc_fault_made(void)
{
    return n_made;
}

void alloc_fault_set_threads(int n)
{
    n_threads_left = n;
}

static bool fails(void)
{
    n_made++;
    if (countdown < 0 || atomic_fetch_sub(&countdown, 1) > 0)
        return false;
    n_failed++;
    errno = ENOMEM;
    return true;
}

void *__wrap_malloc(size_t n)
{
    void *p = fails() ? NULL : __real_malloc(n);
    n_live += p != NULL;
    return p;
}

void *__wrap_calloc(size_t n, size_t size)
{
    void *p = fails() ? NULL : __real_calloc(n, size);
    n_live += p != NULL;
    return p;
}

void *__wrap_realloc(void *p, size_t n)
{
    void *q = fails() ? NULL : __real_realloc(p, n);
    n_live += !p && q;
    return q;
}

void __wrap_free(void *p)
{
    n_live -= p != NULL;
    __real_free(p);
}

void *__wrap_mmap(void *at, size_t n, int protection, int flags, int fd, off_t offset)
{
    void *p = fails() ? MAP_FAILED : __real_mmap(at, n, protection, flags, fd, offset);
    n_live += p != MAP_FAILED;
    return p;
}

int __wrap_munmap(void *p, size_t n)
{
    n_live--;
    return __real_munmap(p, n);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *),
                          void *arg)
{
    if (n_threads_left >= 0 && atomic_fetch_sub(&n_threads_left, 1) <= 0) {
        n_threads_left = 0;
        return EAGAIN;
    }
    return __real_pthread_create(thread, attr, main, arg);
}

#else

bool alloc_fault_is_here(void)
{
    return false;
}

void alloc_fault_set(int n)
{
    (void)n;
}

bool alloc_fault_clear(void)
{
    return false;
}

int alloc_fault_live(void)
{
    return 0;
}

int alloc_fault_made(void)
{
    return 0;
}

void alloc_fault_set_threads(int n)
{
    (void)n;
}

#endif
