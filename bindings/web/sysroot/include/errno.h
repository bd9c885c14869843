/* errno.h: the numbers of wasi-libc, with an errno of our own. That of Debian's wasi-libc cannot be
 * used in modules with threads, and there is none for 64-bit memory. Nothing sets it: strerror has
 * one sentence for every error. */
#ifndef QUIP_WEB_ERRNO_H
#define QUIP_WEB_ERRNO_H

#include_next <errno.h>

extern int web_errno; // system.c
#undef errno
#define errno web_errno

#endif
