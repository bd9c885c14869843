/* alloc_fault.h: makes the n-th allocation of the library fail.
 *
 *     for (int n = 0;; n++) {
 *         alloc_fault_set(n);
 *         quip_status status = thing_open(&thing, &error);
 *         if (!alloc_fault_clear())
 *             break; // no allocation failed: every n was tried
 *         assert_int_equal(status, QUIP_E_MEMORY);
 *         assert_int_equal(alloc_fault_live(), before);
 *     }
 *
 * The linker replaces malloc, calloc, realloc, free, mmap, munmap and pthread_create in statically
 * linked code by the functions of alloc_fault.c (CMakeLists.txt), so it works with every sanitizer.
 * Allocations inside the C library are not counted. Where the linker cannot do that, no allocation
 * ever fails and alloc_fault_is_here() is false. */
#ifndef ALLOC_FAULT_H
#define ALLOC_FAULT_H

#include <stdbool.h>

bool alloc_fault_is_here(void);
void alloc_fault_set(int n);  // the n-th allocation from now fails, once; 0 is the next
bool alloc_fault_clear(void); // stop; true if an allocation failed
int alloc_fault_live(void);   // blocks and mappings that are not freed
int alloc_fault_made(void);   // allocations so far, including failed ones
/* Only n more threads can be created; -1 is any number. */
void alloc_fault_set_threads(int n);

#endif
