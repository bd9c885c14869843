/* device.h: a GPU, in the few calls that the backend needs.
 * In:  buffers, WGSL, dispatches.
 * Out: bytes that come back.
 *
 * The calls are those of WebGPU, and each one is implemented once for each host:
 * device_native.c calls a library that it loads when a model opens. A browser's WebGPU can serve
 * the same calls, because none of them waits for the GPU: what comes back is asked for (map) and is
 * there or not yet (mapped).
 *
 * Work is recorded and runs, in its order, after submit. A call that records does not fail: the
 * first failure of a GPU, such as a lost device, is kept, and qp_gpu_failure reports it. Handles
 * belong to one GPU; closing NULL does nothing. */
#ifndef QP_WEBGPU_DEVICE_H
#define QP_WEBGPU_DEVICE_H

#include "base/base.h"

struct gpu;
struct gpu_buffer;
struct gpu_pipeline;
struct gpu_bindings;

enum gpu_usage {
    GPU_STORAGE,  // read and written by shaders, and copied
    GPU_UNIFORM,  // parameters of dispatches
    GPU_READBACK, // copied to, and mapped
    GPU_QUERIES,  // what times are written to
};

struct gpu_info {
    char name[160];        // of the adapter, its kind of API and its driver
    char library[64];      // that serves these calls, with its version
    bool is_software;      // it computes on the CPU
    uint64_t max_buffer;   // bytes of a buffer
    uint64_t max_binding;  // bytes of a buffer that a shader can have bound
    uint32_t max_groups;   // workgroups of a dispatch in each dimension
    uint32_t group_memory; // bytes of a workgroup's own memory
    uint32_t group_size;   // its threads
    bool has_timestamps;
    bool has_subgroups;     // shaders may use them, and all have the same size
    bool has_matrices;      // subgroups can multiply matrices of binary16 numbers
    uint32_t subgroup_size; // what subgroups.c would find, where it cannot ask; 0: it asks
};

/* A part of a buffer. Offsets are multiples of GPU_ALIGN. */
#define GPU_ALIGN 256
struct gpu_range {
    struct gpu_buffer *buffer;
    uint64_t offset, n_bytes;
};

enum {
    GPU_MAX_BINDINGS = 8 // buffers of a dispatch, beside its parameters
};

/* What qp_gpu_open would open. It loads no driver where the system has no GPU, and then fails with
 * QUIP_E_UNSUPPORTED. Not in browsers. */
quip_status qp_gpu_find(struct gpu_info *info, quip_error *error);
/* The fastest adapter. QUIP_E_UNSUPPORTED if there is none, or no library for it. */
quip_status qp_gpu_open(struct gpu **gpu, quip_error *error);
void qp_gpu_close(struct gpu *gpu);
const struct gpu_info *qp_gpu_info(const struct gpu *gpu);

/* QUIP_OK, or what went wrong first: QUIP_E_DEVICE; QUIP_E_MEMORY if the GPU had no memory for
 * something other than a buffer. */
quip_status qp_gpu_failure(const struct gpu *gpu, quip_error *error);
/* Go on after a failure that was to be expected: a shader of a feature on trial was refused. False:
 * the GPU is lost. */
bool qp_gpu_forgive(struct gpu *gpu);

/* Zeroed memory of the GPU. n_bytes is a multiple of 4. After QUIP_E_MEMORY the call can be
 * repeated. Work that was submitted may still use a buffer that is closed. */
quip_status qp_gpu_buffer_open(struct gpu_buffer **buffer, struct gpu *gpu, enum gpu_usage usage,
                               uint64_t n_bytes, quip_error *error);
void qp_gpu_buffer_close(struct gpu *gpu, struct gpu_buffer *buffer);
/* Copy bytes to a buffer, before the work of the next submit and after that of the last. Offset and
 * n_bytes are multiples of 4. */
void qp_gpu_write(struct gpu *gpu, struct gpu_buffer *to, uint64_t offset, const void *from,
                  size_t n_bytes);

/* Compile the function `main`. Binding 0 are the parameters, the next n_read are read, and the
 * n_write after these are also written. NULL if that failed. */
struct gpu_pipeline *qp_gpu_pipeline_open(struct gpu *gpu, const char *wgsl, size_t n, int n_read,
                                          int n_write);
void qp_gpu_pipeline_close(struct gpu *gpu, struct gpu_pipeline *pipeline);
/* The parameters, of which n_bytes are visible from the offset of a dispatch on, and the buffers of
 * any pipeline with this n_read and n_write. */
struct gpu_bindings *qp_gpu_bindings_open(struct gpu *gpu, struct gpu_range parameters,
                                          const struct gpu_range *ranges, int n_read, int n_write);
void qp_gpu_bindings_close(struct gpu *gpu, struct gpu_bindings *bindings);

/* Record a dispatch of x * y * z workgroups, whose parameters begin at `offset`, a multiple of
 * GPU_ALIGN. Each one reads what those before it wrote. */
void qp_gpu_dispatch(struct gpu *gpu, struct gpu_pipeline *pipeline, struct gpu_bindings *bindings,
                     uint32_t offset, uint32_t x, uint32_t y, uint32_t z);
/* Record a copy between two buffers; all numbers are multiples of 4. */
void qp_gpu_copy(struct gpu *gpu, struct gpu_buffer *to, uint64_t to_offset,
                 struct gpu_buffer *from, uint64_t from_offset, uint64_t n_bytes);
/* Run what was recorded, or forget it. */
void qp_gpu_submit(struct gpu *gpu);
void qp_gpu_discard(struct gpu *gpu);

/* From now on, each dispatch is a pass of its own, whose time is measured; GPU_MAX_MEASURED of
 * them. QUIP_E_UNSUPPORTED if the GPU has no timestamps. */
#define GPU_MAX_MEASURED 2048
quip_status qp_gpu_measure(struct gpu *gpu, quip_error *error);
/* End that. Sets ns[i] to the nanoseconds of the i-th dispatch since then; all of them have been
 * submitted. Waits. Returns how many there were, at most `max`; 0 after a failure. */
int qp_gpu_measured(struct gpu *gpu, uint64_t *ns, int max);

/* Ask for the first n_bytes of a GPU_READBACK buffer, as the submitted work leaves them. */
void qp_gpu_map(struct gpu *gpu, struct gpu_buffer *buffer, size_t n_bytes);
/* They, until unmap; NULL if they are not there yet, or after a failure. With `wait`, wait. */
const void *qp_gpu_mapped(struct gpu *gpu, struct gpu_buffer *buffer, bool wait);
void qp_gpu_unmap(struct gpu *gpu, struct gpu_buffer *buffer);

#endif
