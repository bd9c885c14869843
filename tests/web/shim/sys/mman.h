/* sys/mman.h: mmap by malloc. WebAssembly cannot protect pages; tests still find writes beside a
 * buffer by the pattern around it. */
#ifndef QUIP_TEST_WEB_MMAN_H
#define QUIP_TEST_WEB_MMAN_H

#include <stdlib.h>

#define PROT_NONE 0
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_PRIVATE 2
#define MAP_ANONYMOUS 32
#define MAP_FAILED ((void *)-1)

static inline void *mmap(void *at, size_t n, int protection, int flags, int fd, long offset)
{
    (void)at, (void)protection, (void)flags, (void)fd, (void)offset;
    void *p = aligned_alloc(65536, (n + 65535) & ~(size_t)65535);
    return p ? p : MAP_FAILED;
}

static inline int munmap(void *p, size_t n)
{
    (void)n;
    free(p);
    return 0;
}

static inline int mprotect(void *p, size_t n, int protection)
{
    (void)p, (void)n, (void)protection;
    return 0;
}

#endif
