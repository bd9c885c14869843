/* alloc_fault.h: make the n-th allocation of the library fail.
 *
 *     for (int n = 0;; n++) {
 *         alloc_fault_set(n);
 *         quip_status status = thing_open(&thing, &error);
 *         if (!alloc_fault_clear())
 *             break; // nothing failed: every n was tried
 *         assert_int_equal(status, QUIP_E_MEMORY);
 *         assert_int_equal(alloc_fault_live(), before);
 *     }
 *
 * The linker turns malloc, calloc, realloc, free, mmap, munmap and pthread_create of what is linked
 * statically into the functions of alloc_fault.c (CMakeLists.txt), so it works under every
 * sanitizer. Allocations inside the C library are not counted. Where the linker cannot do that
 * nothing ever fails, and alloc_fault_is_here() is false. */
#ifndef ALLOC_FAULT_H
#define ALLOC_FAULT_H

#include <stdbool.h>

bool alloc_fault_is_here(void);
void alloc_fault_set(int n);  // the n-th allocation from now on fails, once; 0 is the next
bool alloc_fault_clear(void); // stop; was there a failure?
int alloc_fault_live(void);   // blocks and mappings that are not freed
int alloc_fault_made(void);   // calls that wanted memory so far, failed ones too
/* After n more threads none can be created; -1: any number. */
void alloc_fault_set_threads(int n);

#endif
