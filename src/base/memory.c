/* memory.c: sizes, pages, arenas and growing buffers.
 * In:  sizes, some of them computed from a file.
 * Out: zeroed memory; NULL or false if there is not enough.
 *
 * qp_alloc_pages gets address space from the system, which costs nothing until it is touched. So a
 * session can reserve memory for its whole context at once. */
#include "base.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif
#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif
#endif

#define ARENA_ALIGN 64 // a cache line, and the widest vector

/* ---- sizes ---- */

bool qp_mul_size(size_t a, size_t b, size_t *product)
{
    if (b && a > SIZE_MAX / b)
        return false;
    *product = a * b;
    return true;
}

bool qp_add_size(size_t a, size_t b, size_t *sum)
{
    if (a > SIZE_MAX - b)
        return false;
    *sum = a + b;
    return true;
}

/* ---- pages ---- */

#if defined(__unix__) || defined(__APPLE__)

void *qp_alloc_pages(size_t n_bytes)
{
    if (n_bytes > PTRDIFF_MAX)
        return NULL;
    void *p = mmap(NULL, n_bytes ? n_bytes : 1, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void qp_free_pages(void *p, size_t n_bytes)
{
    if (p)
        munmap(p, n_bytes ? n_bytes : 1);
}

#elif !defined(__wasm__) // no mmap: calloc, with the start of the block stored before the aligned
                         // address

void *qp_alloc_pages(size_t n_bytes)
{
    size_t total;
    if (!qp_add_size(n_bytes, ARENA_ALIGN + sizeof(void *), &total))
        return NULL;
    char *block = calloc(1, total);
    if (!block)
        return NULL;
    uintptr_t start = (uintptr_t)block + sizeof(void *);
    char *p =
        block + (((start + ARENA_ALIGN - 1) & ~(uintptr_t)(ARENA_ALIGN - 1)) - (uintptr_t)block);
    memcpy(p - sizeof block, &block, sizeof block);
    return p;
}

void qp_free_pages(void *p, size_t n_bytes)
{
    (void)n_bytes;
    char *block;
    if (!p)
        return;
    memcpy(&block, (char *)p - sizeof block, sizeof block);
    free(block);
}

#endif

void qp_want_large_pages(void *p, size_t n_bytes)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (p)
        madvise(p, n_bytes, MADV_HUGEPAGE); // may fail, which is fine
#else
    (void)p;
    (void)n_bytes;
#endif
}

void qp_want_no_readahead(const void *p, size_t n_bytes)
{
#if defined(__linux__) && defined(MADV_RANDOM)
    const uintptr_t page = 1 << 16; // a multiple of every system's
    const uintptr_t first = ((uintptr_t)p + page - 1) & ~(page - 1);
    const uintptr_t end = ((uintptr_t)p + n_bytes) & ~(page - 1);
    if (p && first < end)
        madvise((void *)first, end - first, MADV_RANDOM); // may fail, which is fine
#else
    (void)p;
    (void)n_bytes;
#endif
}

/* ---- arenas ---- */

quip_status qp_arena_open(struct arena *a, size_t size, const char *what, quip_error *error)
{
    *a = (struct arena){ 0 };
    a->base = qp_alloc_pages(size);
    if (!a->base)
        return qp_fail_memory(error, what, size);
    a->size = size;
    return QUIP_OK;
}

void qp_arena_close(struct arena *a)
{
    qp_free_pages(a->base, a->size);
    *a = (struct arena){ 0 };
}

void *qp_arena_alloc(struct arena *a, size_t n_bytes)
{
    assert(a->base == NULL || a->used <= a->size);
    size_t begin = a->used;
    // a total that overflows stays at SIZE_MAX, and no arena can be opened with that size
    if (n_bytes > SIZE_MAX - ARENA_ALIGN ||
        !qp_add_size(begin, qp_round_up(n_bytes, ARENA_ALIGN), &a->used))
        a->used = SIZE_MAX;
    if (!a->base)
        return NULL;
    assert(a->used <= a->size); // the same calls as while measuring
    return a->base + begin;
}

/* ---- growing bytes ---- */

bool qp_bytes_reserve(struct bytes *b, size_t n_more)
{
    assert(b->n <= b->capacity && (b->data || b->capacity == 0));
    size_t want;
    if (!qp_add_size(b->n, n_more, &want))
        return false;
    if (want <= b->capacity)
        return true;
    size_t capacity = b->capacity < 64 ? 64 : b->capacity;
    while (capacity < want)
        capacity = capacity > SIZE_MAX / 2 ? want : capacity * 2;
    uint8_t *data = realloc(b->data, capacity);
    if (!data)
        return false;
    b->data = data;
    b->capacity = capacity;
    return true;
}

bool qp_bytes_append(struct bytes *b, const void *data, size_t n)
{
    assert(data || n == 0);
    if (!qp_bytes_reserve(b, n))
        return false;
    if (n)
        memcpy(b->data + b->n, data, n);
    b->n += n;
    return true;
}

bool qp_bytes_append_text(struct bytes *b, const char *text)
{
    return qp_bytes_append(b, text, strlen(text));
}

bool qp_bytes_printf(struct bytes *b, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0 || n == INT_MAX || !qp_bytes_reserve(b, (size_t)n + 1)) // + 1: vsnprintf writes a NUL
        return false;
    va_start(args, format);
    vsnprintf((char *)b->data + b->n, (size_t)n + 1, format, args);
    va_end(args);
    b->n += (size_t)n;
    return true;
}

void qp_bytes_close(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){ 0 };
}
