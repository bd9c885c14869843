/* malloc.c: malloc for the modules with 64-bit memory.
 * In:  whole pages (quip_memory_alloc). Out: blocks aligned to 16 bytes.
 *
 * A small block is a power of two and returns to the list of its size. A large block has pages of
 * its own, which are freed with it. One thread calls these functions (quip_web.h). */
#include "quip.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum {
    SMALLEST = 32,
    CHUNK = 1 << 16, // is cut into blocks of one size
    N_SIZES = 11,    // 32 bytes to half a chunk
};

/* Stands before the bytes that the caller gets. */
struct block {
    size_t n_bytes;     // including this header
    struct block *next; // in the list of free blocks
};
_Static_assert(sizeof(struct block) % 16 == 0, "keeps the caller's bytes aligned");

static struct block *free_blocks[N_SIZES];

/* The list of the smallest size that holds n bytes, or N_SIZES for a large block. */
static int size_index(size_t n_bytes)
{
    int i = 0;
    while (i < N_SIZES && (size_t)SMALLEST << i < n_bytes)
        i++;
    return i;
}

/* Cut a new chunk into blocks for list i. */
static void cut_chunk(int i)
{
    uint8_t *chunk = quip_memory_alloc(CHUNK);
    const size_t n_bytes = (size_t)SMALLEST << i;
    for (size_t at = 0; chunk && at < CHUNK; at += n_bytes) {
        struct block *b = (void *)(chunk + at);
        *b = (struct block){ n_bytes, free_blocks[i] };
        free_blocks[i] = b;
    }
}

void *malloc(size_t n)
{
    if (n > PTRDIFF_MAX - sizeof(struct block))
        return NULL;
    const size_t n_bytes = n + sizeof(struct block);
    const int i = size_index(n_bytes);
    struct block *b;
    if (i == N_SIZES) {
        b = quip_memory_alloc(n_bytes);
        if (b)
            b->n_bytes = n_bytes;
    } else {
        if (!free_blocks[i])
            cut_chunk(i);
        b = free_blocks[i];
        if (b)
            free_blocks[i] = b->next;
    }
    return b ? b + 1 : NULL;
}

void free(void *p)
{
    if (!p)
        return;
    struct block *b = (struct block *)p - 1;
    const int i = size_index(b->n_bytes);
    assert(i == N_SIZES || b->n_bytes == (size_t)SMALLEST << i);
    if (i == N_SIZES) {
        quip_memory_free(b, b->n_bytes);
        return;
    }
    b->next = free_blocks[i];
    free_blocks[i] = b;
}

void *calloc(size_t count, size_t size)
{
    size_t n;
    void *p = __builtin_mul_overflow(count, size, &n) ? NULL : malloc(n);
    if (p && size_index(n + sizeof(struct block)) < N_SIZES) // pages are zeroed already
        memset(p, 0, n);
    return p;
}

void *realloc(void *p, size_t n)
{
    if (!p)
        return malloc(n);
    const size_t capacity = ((struct block *)p)[-1].n_bytes - sizeof(struct block);
    if (n <= capacity && capacity / 4 <= n)
        return p;
    void *to = malloc(n);
    if (!to)
        return n <= capacity ? p : NULL;
    memcpy(to, p, n < capacity ? n : capacity);
    free(p);
    return to;
}
