/* device_web.c: a GPU through the WebGPU of a browser.
 * In:  the calls of device.h, on the one thread that calls the library.
 * Out: calls of bindings/web/src/engine/gpu.ts, which has the objects of WebGPU.
 *
 * A handle is the number of an object there; 0 is none. The page has opened the GPU before a model
 * opens. Nothing waits here, whatever `wait` says: what comes back is there or not yet. */
#include "webgpu/device.h"

#include <assert.h>
#include <stdlib.h>

#if defined(__wasm__)
#define IMPORT(name) __attribute__((import_module("gpu"), import_name(name)))

enum limit {
    LIMIT_IS_SOFTWARE,
    LIMIT_BUFFER,
    LIMIT_BINDING,
    LIMIT_GROUPS,
    LIMIT_GROUP_MEMORY,
    LIMIT_SUBGROUP // threads; 1: no shader uses subgroups
};

IMPORT("limit") double web_gpu_limit(int limit);
/* Copy at most n bytes of a text without its NUL; returns how many. */
IMPORT("name") int web_gpu_name(char *to, size_t n); // 0: there is no GPU
IMPORT("failure") int web_gpu_failure(char *to, size_t n);
IMPORT("buffer") uint32_t web_gpu_buffer(int usage, double n_bytes);
IMPORT("write") void web_gpu_write(uint32_t to, double offset, const void *from, size_t n_bytes);
IMPORT("pipeline")
uint32_t web_gpu_pipeline(const char *wgsl, size_t n, int n_read, int n_write);
/* ranges: [1 + n_read + n_write] of buffer, offset and size */
IMPORT("bindings")
uint32_t web_gpu_bindings(const double (*ranges)[3], int n_read, int n_write);
IMPORT("dispatch")
void web_gpu_dispatch(uint32_t pipeline, uint32_t bindings, uint32_t offset, uint32_t x, uint32_t y,
                      uint32_t z);
IMPORT("copy")
void web_gpu_copy(uint32_t to, double to_offset, uint32_t from, double from_offset, double n_bytes);
IMPORT("submit") void web_gpu_submit(void);
IMPORT("discard") void web_gpu_discard(void);
IMPORT("map") void web_gpu_map(uint32_t buffer, size_t n_bytes);
/* Copy what was asked for, once it is there, and unmap. */
IMPORT("mapped") int web_gpu_mapped(uint32_t buffer, void *to, size_t n_bytes);
IMPORT("close") void web_gpu_close(uint32_t object);

struct gpu {
    struct gpu_info info;
};

struct gpu_buffer {
    uint32_t id;
    size_t n_mapped;
    bool is_mapped;
    void *copy; // of a GPU_READBACK buffer: the bytes that are mapped
};

static uint32_t id_of(const void *handle)
{
    return (uint32_t)(uintptr_t)handle;
}

/* ---- open, close ---- */

quip_status qp_gpu_open(struct gpu **gpu, quip_error *error)
{
    struct gpu *g = calloc(1, sizeof *g);
    *gpu = NULL;
    if (!g)
        return qp_fail_memory(error, "a GPU", sizeof *g);
    g->info = (struct gpu_info){ .is_software = web_gpu_limit(LIMIT_IS_SOFTWARE) != 0,
                                 .max_buffer = (uint64_t)web_gpu_limit(LIMIT_BUFFER),
                                 .max_binding = (uint64_t)web_gpu_limit(LIMIT_BINDING),
                                 .max_groups = (uint32_t)web_gpu_limit(LIMIT_GROUPS),
                                 .group_memory = (uint32_t)web_gpu_limit(LIMIT_GROUP_MEMORY),
                                 .group_size = 256,
                                 .subgroup_size = (uint32_t)web_gpu_limit(LIMIT_SUBGROUP) };
    if (web_gpu_name(g->info.name, sizeof g->info.name - 1) == 0) {
        free(g);
        return qp_fail(error, QUIP_E_UNSUPPORTED, "the page has not opened a GPU");
    }
    *gpu = g;
    return QUIP_OK;
}

void qp_gpu_close(struct gpu *g)
{
    if (g)
        qp_gpu_discard(g);
    free(g);
}

const struct gpu_info *qp_gpu_info(const struct gpu *g)
{
    return &g->info;
}

quip_status qp_gpu_failure(const struct gpu *g, quip_error *error)
{
    char text[300];
    const int n = web_gpu_failure(text, sizeof text);
    (void)g;
    return n > 0 ? qp_fail(error, QUIP_E_DEVICE, "%.*s", n, text) : QUIP_OK;
}

/* ---- buffers ---- */

quip_status qp_gpu_buffer_open(struct gpu_buffer **buffer, struct gpu *g, enum gpu_usage usage,
                               uint64_t n_bytes, quip_error *error)
{
    assert(n_bytes > 0 && n_bytes % 4 == 0);
    *buffer = NULL;
    if (n_bytes > g->info.max_buffer)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "a buffer needs %llu bytes; this GPU allows %llu",
                       (unsigned long long)n_bytes, (unsigned long long)g->info.max_buffer);
    struct gpu_buffer *b = calloc(1, sizeof *b);
    if (b && usage == GPU_READBACK && !(b->copy = malloc((size_t)n_bytes))) {
        free(b);
        b = NULL;
    }
    if (!b)
        return qp_fail_memory(error, "a buffer", (size_t)n_bytes);
    b->id = web_gpu_buffer((int)usage, (double)n_bytes);
    *buffer = b;
    return qp_gpu_failure(g, error);
}

void qp_gpu_buffer_close(struct gpu *g, struct gpu_buffer *buffer)
{
    (void)g;
    if (!buffer)
        return;
    web_gpu_close(buffer->id);
    free(buffer->copy);
    free(buffer);
}

void qp_gpu_write(struct gpu *g, struct gpu_buffer *to, uint64_t offset, const void *from,
                  size_t n_bytes)
{
    (void)g;
    assert(offset % 4 == 0 && n_bytes % 4 == 0);
    if (n_bytes > 0)
        web_gpu_write(to->id, (double)offset, from, n_bytes);
}

/* ---- pipelines and bindings ---- */

struct gpu_pipeline *qp_gpu_pipeline_open(struct gpu *g, const char *wgsl, size_t n, int n_read,
                                          int n_write)
{
    if (qp_gpu_failure(g, NULL))
        return NULL;
    return (struct gpu_pipeline *)(uintptr_t)web_gpu_pipeline(wgsl, n, n_read, n_write);
}

void qp_gpu_pipeline_close(struct gpu *g, struct gpu_pipeline *pipeline)
{
    (void)g;
    if (pipeline)
        web_gpu_close(id_of(pipeline));
}

struct gpu_bindings *qp_gpu_bindings_open(struct gpu *g, struct gpu_range parameters,
                                          const struct gpu_range *ranges, int n_read, int n_write)
{
    double all[1 + GPU_MAX_BINDINGS][3];
    assert(n_read + n_write <= GPU_MAX_BINDINGS);
    for (int i = 0; i <= n_read + n_write; i++) {
        const struct gpu_range *r = i == 0 ? &parameters : &ranges[i - 1];
        all[i][0] = r->buffer->id;
        all[i][1] = (double)r->offset;
        all[i][2] = (double)r->n_bytes;
    }
    if (qp_gpu_failure(g, NULL))
        return NULL;
    return (struct gpu_bindings *)(uintptr_t)web_gpu_bindings(all, n_read, n_write);
}

void qp_gpu_bindings_close(struct gpu *g, struct gpu_bindings *bindings)
{
    (void)g;
    if (bindings)
        web_gpu_close(id_of(bindings));
}

/* ---- recording ---- */

void qp_gpu_dispatch(struct gpu *g, struct gpu_pipeline *pipeline, struct gpu_bindings *bindings,
                     uint32_t offset, uint32_t x, uint32_t y, uint32_t z)
{
    (void)g;
    web_gpu_dispatch(id_of(pipeline), id_of(bindings), offset, x, y, z);
}

void qp_gpu_copy(struct gpu *g, struct gpu_buffer *to, uint64_t to_offset, struct gpu_buffer *from,
                 uint64_t from_offset, uint64_t n_bytes)
{
    (void)g;
    web_gpu_copy(to->id, (double)to_offset, from->id, (double)from_offset, (double)n_bytes);
}

void qp_gpu_submit(struct gpu *g)
{
    (void)g;
    web_gpu_submit();
}

void qp_gpu_discard(struct gpu *g)
{
    (void)g;
    web_gpu_discard();
}

/* ---- measuring: quip bench does it, natively ---- */

quip_status qp_gpu_measure(struct gpu *g, quip_error *error)
{
    (void)g;
    return qp_fail(error, QUIP_E_UNSUPPORTED, "a page does not measure dispatches");
}

int qp_gpu_measured(struct gpu *g, uint64_t *ns, int max)
{
    (void)g, (void)ns, (void)max;
    return 0;
}

/* ---- mapping ---- */

void qp_gpu_map(struct gpu *g, struct gpu_buffer *buffer, size_t n_bytes)
{
    (void)g;
    buffer->is_mapped = false;
    buffer->n_mapped = n_bytes;
    web_gpu_map(buffer->id, n_bytes);
}

const void *qp_gpu_mapped(struct gpu *g, struct gpu_buffer *buffer, bool wait)
{
    (void)g, (void)wait;
    if (!buffer->is_mapped)
        buffer->is_mapped = web_gpu_mapped(buffer->id, buffer->copy, buffer->n_mapped) != 0;
    return buffer->is_mapped ? buffer->copy : NULL;
}

void qp_gpu_unmap(struct gpu *g, struct gpu_buffer *buffer)
{
    (void)g;
    buffer->is_mapped = false;
}
#endif
