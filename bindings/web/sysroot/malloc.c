/* malloc.c: malloc for the builds with 64-bit memory, for which wasi-libc has no library.
 * In:  whole pages (qp_alloc_pages). Out: blocks aligned to 16.
 * A small block is a power of two and goes back to the list of its size; a large one has pages of
 * its own. As everywhere in these modules, one thread calls. */
#include "base/base.h"

#include <stdlib.h>
#include <string.h>

enum {
    SMALLEST = 32,
    CHUNK = 1 << 16, // of which blocks of one size are cut
    N_SIZES = 11,    // 32 bytes to half a chunk
};

/* Before what the caller has. */
struct block {
    size_t n_bytes;     // with this
    struct block *next; // while it is free
};

static struct block *free_blocks[N_SIZES];

/* The list of the smallest size that holds n bytes; N_SIZES when none does. */
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
    uint8_t *chunk = qp_alloc_pages(CHUNK);
    const size_t n_bytes = (size_t)SMALLEST << i;
    for (size_t at = 0; chunk && at < CHUNK; at += n_bytes) {
        struct block *b = (void *)(chunk + at);
        *b = (struct block){ n_bytes, free_blocks[i] };
        free_blocks[i] = b;
    }
}

void *malloc(size_t n)
{
    if (n > PTRDIFF_MAX)
        return NULL;
    const size_t n_bytes = n + sizeof(struct block);
    const int i = size_index(n_bytes);
    struct block *b;
    if (i == N_SIZES) {
        b = qp_alloc_pages(n_bytes);
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
    if (i == N_SIZES) {
        qp_free_pages(b, b->n_bytes);
        return;
    }
    b->next = free_blocks[i];
    free_blocks[i] = b;
}

void *calloc(size_t count, size_t size)
{
    if (size && count > PTRDIFF_MAX / size)
        return NULL;
    void *p = malloc(count * size);
    return p ? memset(p, 0, count * size) : NULL;
}

void *realloc(void *p, size_t n)
{
    if (!p)
        return malloc(n);
    const size_t has = ((struct block *)p)[-1].n_bytes - sizeof(struct block);
    if (n <= has && has / 4 <= n)
        return p;
    void *to = malloc(n);
    if (!to)
        return n <= has ? p : NULL;
    memcpy(to, p, n < has ? n : has);
    free(p);
    return to;
}
