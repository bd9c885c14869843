/* system.c: what the library asks a system for, in a module that has none: a clock and random
 * numbers from the page, no files, no environment. These stand before the C library's own
 * functions, which would import a file system. */
#include "../native/quip_web.h"

#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__wasm32__)
#include <wasi/api.h>
#endif

__attribute__((import_module("env"), import_name("now"))) double web_now(void);
__attribute__((import_module("env"), import_name("random"))) void web_random(void *to, size_t n);

#if defined(__wasm64__) // wasi-libc's, which is not there: its clocks are addresses
struct __clockid {
    int unused;
};
const struct __clockid _CLOCK_MONOTONIC = { 0 };
#endif

/* One clock, that of the page: milliseconds. */
int clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    const double ms = web_now();
    t->tv_sec = (time_t)(ms / 1000);
    t->tv_nsec = (long)((ms - (double)t->tv_sec * 1000) * 1e6);
    return 0;
}

time_t time(time_t *t)
{
    const time_t now = (time_t)(web_now() / 1000);
    return t ? *t = now : now;
}

/* Workers are the browser's to schedule. */
int sched_yield(void)
{
    return 0;
}

/* ---- files: the only one there is has random numbers in it ---- */

FILE *fopen(const char *restrict path, const char *restrict mode)
{
    (void)mode;
    static int random_device;
    if (!strcmp(path, "/dev/urandom"))
        return (FILE *)&random_device;
    return NULL;
}

size_t fread(void *restrict to, size_t size, size_t n, FILE *restrict in)
{
    (void)in;
    web_random(to, size * n);
    return n;
}

int fclose(FILE *in)
{
    (void)in;
    return 0;
}

int setvbuf(FILE *restrict in, char *restrict buffer, int mode, size_t n)
{
    (void)in, (void)buffer, (void)mode, (void)n;
    return 0;
}

int fseek(FILE *in, long offset, int from)
{
    (void)in, (void)offset, (void)from;
    return -1;
}

long ftell(FILE *in)
{
    (void)in;
    return -1;
}

char *strerror(int number)
{
    (void)number;
    return "the page has no files; hand the model's bytes over";
}

#if defined(__wasm32__)
/* Streams that vsnprintf's code mentions and never opens. */
__wasi_errno_t __wasi_fd_close(__wasi_fd_t fd)
{
    (void)fd;
    return __WASI_ERRNO_BADF;
}

__wasi_errno_t __wasi_fd_seek(__wasi_fd_t fd, __wasi_filedelta_t offset, __wasi_whence_t from,
                              __wasi_filesize_t *position)
{
    (void)fd, (void)offset, (void)from, (void)position;
    return __WASI_ERRNO_BADF;
}

__wasi_errno_t __wasi_fd_write(__wasi_fd_t fd, const __wasi_ciovec_t *pieces, size_t n_pieces,
                               __wasi_size_t *n)
{
    (void)fd, (void)pieces, (void)n_pieces, (void)n;
    return __WASI_ERRNO_BADF;
}
#endif

/* ---- process ---- */

char *getenv(const char *name)
{
    (void)name;
    return NULL;
}

_Noreturn void abort(void)
{
    __builtin_trap();
}

_Noreturn void __assert_fail(const char *what, const char *file, int line, const char *function)
{
    (void)what, (void)file, (void)line, (void)function;
    __builtin_trap();
}
