/* web_threads.h: the worker's side of pthread.h: how a worker of the page becomes a thread.
 * The page starts workers. Each one instantiates the module on the same memory, calls
 * quip_web_thread_enter with a stack and then quip_web_thread_run, which does not return. */
#ifndef QUIP_WEB_THREADS_H
#define QUIP_WEB_THREADS_H

#include "quip.h"

enum web_limit {
    WEB_MAX_WORKERS = 64,
    WEB_STACK_BYTES = 65536, // of a worker, including its thread-local variables
};

/* Use the WEB_STACK_BYTES at `stack`, which the page allocated by quip_memory_alloc, as the stack
 * of this worker. Only in modules with threads. */
QUIP_API void quip_web_thread_enter(void *stack);

/* Wait for functions and run them, one after the other. `index` is a number of the worker's own
 * below WEB_MAX_WORKERS. Does not return. */
QUIP_API void quip_web_thread_run(uint32_t index);

/* The number of workers that wait for a function. */
QUIP_API int32_t quip_web_threads_idle(void);

#endif
