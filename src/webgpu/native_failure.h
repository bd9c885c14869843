/* native_failure.h: what has gone wrong on a GPU of device_native.c.
 * The first failure counts. After it nothing is recorded, submitted or awaited any more: these
 * calls of wgpu-native 29 do not report a lost GPU, but end the process. */
#ifndef QP_NATIVE_FAILURE_H
#define QP_NATIVE_FAILURE_H

#include "webgpu/native_abi.h"

#include <pthread.h>

struct native_failures {
    pthread_mutex_t lock; // callbacks may come on other threads
    quip_error first;     // status QUIP_OK: none
    bool is_lost;         // the GPU; that may become known after another failure
    bool is_allocating;   // a buffer is being created,
    bool is_short;        // and there is no memory for it
    bool is_closing;
};

void qp_wgpu_failures_open(struct native_failures *f);
void qp_wgpu_failures_close(struct native_failures *f);

/* The callbacks of a device, whose `a` is a struct native_failures. */
void qp_wgpu_on_error(void *const *device, uint32_t type, struct wgpu_text message, void *a,
                      void *b);
void qp_wgpu_on_lost(void *const *device, uint32_t reason, struct wgpu_text message, void *a,
                     void *b);
/* A mapping failed. */
void qp_wgpu_fail_map(struct native_failures *f, struct wgpu_text message);

/* QUIP_OK, or the first failure. */
quip_status qp_wgpu_failure(struct native_failures *f, quip_error *error);
bool qp_wgpu_is_lost(struct native_failures *f);
/* Forget the first failure, unless the GPU is lost; returns whether it is not. */
bool qp_wgpu_forgive(struct native_failures *f);
/* The GPU is being closed: failures do not count any more. */
void qp_wgpu_failures_stop(struct native_failures *f);

/* Between these two calls a lack of memory does not count as a failure of the GPU. The second one
 * returns whether there was one. */
void qp_wgpu_begin_allocation(struct native_failures *f);
bool qp_wgpu_end_allocation(struct native_failures *f);

/* A message of wgpu-native in one line. */
void qp_wgpu_join_lines(char *to, size_t max, struct wgpu_text message);

#endif
