/* sysroot_names.h: compile bindings/web/sysroot beside the C library of the host.
 * Its functions get names of their own: sys_strlen. Its mutexes wait through the host's futex. The
 * CMake target test_sysroot_functions includes this file ahead of each source. */
#ifndef QUIP_TEST_WEB_SYSROOT_NAMES_H
#define QUIP_TEST_WEB_SYSROOT_NAMES_H

#include <stddef.h>
#include <stdint.h>

/* string.c */
#define memcpy sys_memcpy
#define memmove sys_memmove
#define memset sys_memset
#define memcmp sys_memcmp
#define memchr sys_memchr
#define strlen sys_strlen
#define strcpy sys_strcpy
#define strcmp sys_strcmp
#define strncmp sys_strncmp
#define strchr sys_strchr
#define strstr sys_strstr
#define bsearch sys_bsearch
#define qsort sys_qsort
#define lrintf sys_lrintf
#define __multi3 sys_multi3
/* malloc.c, and the pages that it divides */
#define malloc sys_malloc
#define calloc sys_calloc
#define realloc sys_realloc
#define free sys_free
#define quip_memory_alloc sys_memory_alloc
#define quip_memory_free sys_memory_free
/* printf.c */
#define snprintf sys_snprintf
#define vsnprintf sys_vsnprintf
/* system.c */
#define clock_gettime sys_clock_gettime
#define time sys_time
#define sched_yield sys_sched_yield
#define fopen sys_fopen
#define fread sys_fread
#define fclose sys_fclose
#define setvbuf sys_setvbuf
#define fseek sys_fseek
#define ftell sys_ftell
#define strerror sys_strerror
#define getenv sys_getenv
#define abort sys_abort
/* threads.c and pthread.h */
#define sysconf sys_sysconf
#define pthread_t sys_pthread_t
#define pthread_mutex_t sys_pthread_mutex_t
#define pthread_cond_t sys_pthread_cond_t
#define pthread_create sys_pthread_create
#define pthread_join sys_pthread_join
#define pthread_mutex_init sys_pthread_mutex_init
#define pthread_mutex_destroy sys_pthread_mutex_destroy
#define pthread_mutex_lock sys_pthread_mutex_lock
#define pthread_mutex_unlock sys_pthread_mutex_unlock
#define pthread_cond_init sys_pthread_cond_init
#define pthread_cond_destroy sys_pthread_cond_destroy
#define pthread_cond_wait sys_pthread_cond_wait
#define pthread_cond_signal sys_pthread_cond_signal
#define pthread_cond_broadcast sys_pthread_cond_broadcast
#define pthread_sigmask sys_pthread_sigmask

#define __wasm_atomics__ 1
#define __builtin_wasm_memory_atomic_wait32 test_futex_wait
#define __builtin_wasm_memory_atomic_notify test_futex_wake
int test_futex_wait(int *word, int value, int64_t timeout_ns);
unsigned test_futex_wake(int *word, unsigned n_waiters);

#endif
