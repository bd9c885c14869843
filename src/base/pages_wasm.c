/* pages_wasm.c: qp_alloc_pages and qp_free_pages in WebAssembly, where memory only grows.
 * In:  sizes.
 * Out: zeroed spans of whole 64 KiB pages; new ones cost nothing until they are touched.
 *
 * Freed spans are kept in a list ordered by address, with neighbours joined, and are reused before
 * the memory grows. So the memory depends on how many sessions are open at once, not on how many
 * have been opened. A free span stores its length in its first bytes, so nothing here allocates.
 * Like malloc in this build, both functions may be called only by the thread that makes the
 * library's calls. */
#include "base.h"

#include <assert.h>

#if defined(__wasm__)

#include <stdlib.h>
#include <string.h>

#define WASM_PAGE ((size_t)1 << 16)

struct free_span {
    struct free_span *next; // at a higher address
    size_t n_pages;
};

static struct free_span *free_spans;

static uint8_t *span_end(const struct free_span *s)
{
    return (uint8_t *)s + s->n_pages * WASM_PAGE;
}

/* Remove n pages from the end of the first span that is large enough; NULL if none is. */
static void *remove_pages(size_t n_pages)
{
    for (struct free_span **at = &free_spans; *at; at = &(*at)->next) {
        struct free_span *s = *at;
        if (s->n_pages < n_pages)
            continue;
        s->n_pages -= n_pages;
        void *p = span_end(s);
        if (s->n_pages == 0)
            *at = s->next;
        return memset(p, 0, n_pages * WASM_PAGE);
    }
    return NULL;
}

void *qp_alloc_pages(size_t n_bytes)
{
    const size_t n_pages = n_bytes / WASM_PAGE + (n_bytes % WASM_PAGE || !n_bytes);
    void *p = remove_pages(n_pages);
    if (p)
        return p;
    static bool has_malloc_begun; // the first malloc claims all memory that exists then
    if (!has_malloc_begun) {
        has_malloc_begun = true; // before malloc, which may call this function
        free((void *volatile){ malloc(1) });
    }
    const size_t before = __builtin_wasm_memory_grow(0, n_pages);
    return before == SIZE_MAX ? NULL : (void *)(before * WASM_PAGE);
}

void qp_free_pages(void *p, size_t n_bytes)
{
    if (!p)
        return;
    assert((uintptr_t)p % WASM_PAGE == 0);
    struct free_span *s = p, *before = NULL, *after = free_spans;
    for (; after && after < s; after = after->next)
        before = after;
    *s = (struct free_span){ after, n_bytes / WASM_PAGE + (n_bytes % WASM_PAGE || !n_bytes) };
    if (after && span_end(s) == (uint8_t *)after) {
        s->n_pages += after->n_pages;
        s->next = after->next;
    }
    if (!before) {
        free_spans = s;
    } else if (span_end(before) == (uint8_t *)s) {
        before->n_pages += s->n_pages;
        before->next = s->next;
    } else {
        before->next = s;
    }
}

#endif
