/* system.c: the functions of an operating system that the library calls.
 * In:  a clock and random numbers, imported from the page.
 * Out: time, and functions for files and the environment that find nothing.
 *
 * They come before those of wasi-libc in the link, which would import a file system. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__wasm__)
#define WEB_IMPORT(name) __attribute__((import_module("env"), import_name(name)))
#else // a native test defines them
#define WEB_IMPORT(name)
#endif

WEB_IMPORT("now") double web_now(void); // milliseconds; never decreases
WEB_IMPORT("random") void web_random(void *to, size_t n);

/* ---- time ---- */

#if defined(__wasm64__) // wasi-libc identifies a clock by an address, in a library that is missing
struct __clockid {
    int unused;
};
const struct __clockid _CLOCK_MONOTONIC = { 0 };
#endif

/* Every clock is the clock of the page. */
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
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return t ? *t = now.tv_sec : now.tv_sec;
}

/* The browser schedules workers. */
int sched_yield(void)
{
    return 0;
}

/* ---- files: /dev/urandom is the only one ---- */

FILE *fopen(const char *restrict path, const char *restrict mode)
{
    (void)mode;
    static int random_device;
    return strcmp(path, "/dev/urandom") ? NULL : (FILE *)&random_device;
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

int web_errno;

/* The library calls it only after a file function failed. */
char *strerror(int number)
{
    (void)number;
    return "a page has no files; pass the bytes of the model";
}

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

#if defined(__wasm__) // the assert.h of a native host declares another type
_Noreturn void __assert_fail(const char *what, const char *file, int line, const char *function);
_Noreturn void __assert_fail(const char *what, const char *file, int line, const char *function)
{
    (void)what, (void)file, (void)line, (void)function;
    __builtin_trap();
}
#endif
