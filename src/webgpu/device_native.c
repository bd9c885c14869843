/* device_native.c: a GPU through wgpu-native, or Dawn: libraries with the interface of webgpu.h.
 * In:  the calls of device.h.
 * Out: calls of that library, which is loaded when a GPU is opened (native_library.c). */
#include "base/base.h"
#include "webgpu/device.h"
#include "webgpu/native_failure.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LAYOUTS 16

/* Their GPUs have one size of subgroups. Others choose one for each shader, so that no shader can
 * count on it. */
enum {
    VENDOR_NVIDIA = 0x10de,
    VENDOR_APPLE = 0x106b
};

/* ---- a GPU ---- */

/* Bindings with n_read and n_write buffers have one layout. */
struct layout {
    int n_read, n_write;
    void *group, *pipeline;
};

struct gpu {
    struct wgpu_functions f;
    struct gpu_info info;
    void *instance, *adapter, *device, *queue;
    struct layout layouts[LAYOUTS];
    int n_layouts;
    void *encoder, *pass, *pipeline; // of what is recorded; the pipeline that is set
    void *queries;                   // two times of each dispatch that is measured; NULL: none is
    int n_measured;
    uint64_t waited_ns; // by the last await_map

    struct native_failures failures;
};

struct gpu_buffer {
    void *buffer;
    size_t n_mapped; // bytes that were asked for
    bool is_awaited; // on_mapped will be called
    bool is_mapped;
    bool is_closed; // meanwhile: on_mapped frees it
};

static struct wgpu_text text_of(const char *text)
{
    return (struct wgpu_text){ text, strlen(text) };
}

quip_status qp_gpu_failure(const struct gpu *gpu, quip_error *error)
{
    return qp_wgpu_failure(&((struct gpu *)gpu)->failures, error);
}

bool qp_gpu_forgive(struct gpu *gpu)
{
    return qp_wgpu_forgive(&gpu->failures);
}

static bool has_failed(struct gpu *g)
{
    return qp_gpu_failure(g, NULL) != QUIP_OK;
}

/* ---- open and close ---- */

struct gpu_info qp_wgpu_describe(const struct wgpu_functions *f, void *adapter,
                                 struct wgpu_limits *limits)
{
    static const char *const apis[] = { "",      "null",   "WebGPU", "D3D11",    "D3D12",
                                        "Metal", "Vulkan", "OpenGL", "OpenGL ES" };
    struct wgpu_adapter_info info = { 0 };
    struct wgpu_limits own = { 0 };
    if (!limits)
        limits = &own;
    f->adapter_limits(adapter, limits);
    limits->next = NULL;
    struct gpu_info found = { .max_buffer = limits->buffer_size,
                              .max_binding = limits->storage_binding_size,
                              .max_groups = limits->workgroups,
                              .group_memory = limits->workgroup_storage,
                              .group_size = limits->workgroup_invocations };
    if (limits->workgroup_size[0] < found.group_size)
        found.group_size = limits->workgroup_size[0];
    if (f->adapter_info(adapter, &info) != WGPU_SUCCESS)
        return found;
    found.is_software = info.adapter_type == WGPU_ADAPTER_CPU;
    found.has_subgroups =
        found.is_software || info.vendor_id == VENDOR_NVIDIA || info.vendor_id == VENDOR_APPLE;
    snprintf(found.name, sizeof found.name, "%.*s (%s, %.*s)", (int)info.device.n, info.device.data,
             info.backend_type < QP_COUNT(apis) ? apis[info.backend_type] : "",
             (int)info.description.n, info.description.data);
    f->free_info(info);
    return found;
}

void *qp_wgpu_instance(const struct wgpu_functions *f)
{
    struct wgpu_instance_extras extras = { .chain.type = WGPU_INSTANCE_EXTRAS,
                                           .apis = WGPU_APIS,
                                           .flags = WGPU_FLAGS_DEFAULT };
    const struct wgpu_instance_descriptor instance = { .next = &extras.chain };
    return f->is_dawn ? qp_dawn_instance(f) : f->create_instance(&instance);
}

/* What a request gave. */
struct request_result {
    void *object;
    char why[200]; // there is none
};

static void on_object(uint32_t status, void *object, struct wgpu_text message, void *a, void *b)
{
    struct request_result *result = a;
    (void)b;
    if (status == WGPU_SUCCESS)
        result->object = object;
    else
        qp_wgpu_join_lines(result->why, sizeof result->why, message);
}

void *qp_wgpu_adapter(const struct wgpu_functions *f, void *instance)
{
    const struct wgpu_adapter_options options = { .next = f->is_dawn ? qp_dawn_toggles() : NULL,
                                                  .feature_level = WGPU_CORE,
                                                  .power_preference = WGPU_HIGH_PERFORMANCE };
    struct request_result result = { 0 };
    f->request_adapter(instance, &options,
                       (struct wgpu_request_callback){
                           .mode = WGPU_SPONTANEOUS, .callback = on_object, .a = &result });
    return result.object;
}

static uint32_t subgroup_feature(const struct wgpu_functions *f)
{
    return f->is_dawn ? WGPU_SUBGROUPS : WGPU_NATIVE_SUBGROUP;
}

static quip_status request_device(struct gpu *g, const struct wgpu_limits *limits,
                                  quip_error *error)
{
    uint32_t features[4], n_features = 0;
    if (g->info.has_timestamps)
        features[n_features++] = WGPU_TIMESTAMP_QUERY;
    if (g->info.has_subgroups)
        features[n_features++] = subgroup_feature(&g->f);
    if (g->info.has_matrices) {
        features[n_features++] = WGPU_SHADER_F16;
        features[n_features++] = WGPU_SUBGROUP_MATRIX;
    }
    const struct wgpu_device_descriptor descriptor = {
        .next = g->f.is_dawn ? qp_dawn_toggles() : NULL,
        .n_features = n_features,
        .features = features,
        .limits = limits,
        .lost = { .mode = WGPU_SPONTANEOUS, .callback = qp_wgpu_on_lost, .a = &g->failures },
        .error = { .callback = qp_wgpu_on_error, .a = &g->failures },
    };
    struct request_result result = { 0 };
    g->f.request_device(g->adapter, &descriptor,
                        (struct wgpu_request_callback){
                            .mode = WGPU_SPONTANEOUS, .callback = on_object, .a = &result });
    g->device = result.object;
    if (!g->device)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "the GPU %s cannot be opened%s%s", g->info.name,
                       result.why[0] ? ": " : "", result.why);
    g->queue = g->f.device_queue(g->device);
    return QUIP_OK;
}

/* Can it run the shaders? Every GPU that a browser can use has at least these limits. */
static quip_status check_limits(const struct gpu *g, const struct wgpu_limits *limits,
                                quip_error *error)
{
    const struct {
        const char *what;
        uint32_t found, least;
    } all[] = {
        { "threads in a workgroup", limits->workgroup_invocations, 256 },
        { "bytes of memory in a workgroup", limits->workgroup_storage, 16384 },
        { "workgroups in a dispatch", limits->workgroups, 65535 },
        { "buffers in a shader", limits->storage_buffers, GPU_MAX_BINDINGS },
    };
    for (size_t i = 0; i < QP_COUNT(all); i++)
        if (all[i].found < all[i].least)
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "the GPU %s allows %u %s, expected at least %u; use the cpu",
                           g->info.name, all[i].found, all[i].what, all[i].least);
    return QUIP_OK;
}

static quip_status open_native(struct gpu *g, quip_error *error)
{
    struct wgpu_limits limits = { 0 };
    g->instance = qp_wgpu_instance(&g->f);
    g->adapter = g->instance ? qp_wgpu_adapter(&g->f, g->instance) : NULL;
    if (!g->adapter)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "there is no GPU, or no driver for it that wgpu-native can use");
    g->info = qp_wgpu_describe(&g->f, g->adapter, &limits);
    g->info.has_timestamps = g->f.has_feature(g->adapter, WGPU_TIMESTAMP_QUERY) != 0;
    g->info.has_subgroups =
        g->info.has_subgroups && g->f.has_feature(g->adapter, subgroup_feature(&g->f)) != 0;
    g->info.has_matrices =
        g->info.has_subgroups && g->f.is_dawn && qp_dawn_has_matrices(&g->f, g->adapter);
    const quip_status status = check_limits(g, &limits, error);
    return status ? status : request_device(g, &limits, error);
}

quip_status qp_gpu_open(struct gpu **gpu, quip_error *error)
{
    struct gpu *g = calloc(1, sizeof *g);
    *gpu = NULL;
    if (!g)
        return qp_fail_memory(error, "a GPU", sizeof *g);
    qp_wgpu_failures_open(&g->failures);
    quip_status status = qp_wgpu_load(&g->f, NULL, error);
    if (status) {
        qp_wgpu_failures_close(&g->failures);
        free(g);
        return status;
    }
    status = open_native(g, error);
    if (status)
        qp_gpu_close(g);
    else
        *gpu = g;
    return status;
}

static void poll(struct gpu *g, bool wait)
{
    if (g->f.is_dawn)
        qp_dawn_poll(&g->f, g->instance, g->queue, wait);
    else
        g->f.device_poll(g->device, wait, NULL);
}

/* wgpu-native 29 waits for a device that is released, and ends the process if it is lost: such a
 * device is not released. Dawn calls back for all mappings, at the latest behind that. */
void qp_gpu_close(struct gpu *g)
{
    if (!g)
        return;
    qp_wgpu_failures_stop(&g->failures);
    qp_gpu_discard(g);
    if (g->device && !qp_wgpu_is_lost(&g->failures))
        poll(g, true);
    if (g->queries)
        g->f.release_queries(g->queries);
    for (int i = 0; i < g->n_layouts; i++) {
        g->f.release_pipeline_layout(g->layouts[i].pipeline);
        g->f.release_group_layout(g->layouts[i].group);
    }
    if (g->queue)
        g->f.release_queue(g->queue);
    if (g->device && (g->f.is_dawn || !qp_wgpu_is_lost(&g->failures)))
        g->f.release_device(g->device);
    if (g->instance && g->f.is_dawn)
        qp_dawn_poll(&g->f, g->instance, NULL, false);
    if (g->adapter)
        g->f.release_adapter(g->adapter);
    if (g->instance)
        g->f.release_instance(g->instance);
    qp_wgpu_failures_close(&g->failures);
    free(g);
}

const struct gpu_info *qp_gpu_info(const struct gpu *g)
{
    return &g->info;
}

/* ---- buffers ---- */

static uint64_t usage_flags(enum gpu_usage usage)
{
    switch (usage) {
    case GPU_STORAGE:
        return WGPU_USAGE_STORAGE | WGPU_USAGE_COPY_SRC | WGPU_USAGE_COPY_DST;
    case GPU_UNIFORM:
        return WGPU_USAGE_UNIFORM | WGPU_USAGE_COPY_DST;
    case GPU_READBACK:
        return WGPU_USAGE_MAP_READ | WGPU_USAGE_COPY_DST;
    case GPU_QUERIES:
        return WGPU_USAGE_QUERY_RESOLVE | WGPU_USAGE_COPY_SRC;
    }
    return 0;
}

quip_status qp_gpu_buffer_open(struct gpu_buffer **buffer, struct gpu *g, enum gpu_usage usage,
                               uint64_t n_bytes, quip_error *error)
{
    const struct wgpu_buffer_descriptor descriptor = { .usage = usage_flags(usage),
                                                       .size = n_bytes };
    assert(n_bytes > 0 && n_bytes % 4 == 0);
    *buffer = NULL;
    if (n_bytes > g->info.max_buffer)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "a buffer needs %llu bytes; this GPU allows %llu",
                       (unsigned long long)n_bytes, (unsigned long long)g->info.max_buffer);
    quip_status status = qp_gpu_failure(g, error);
    if (status)
        return status;
    struct gpu_buffer *b = calloc(1, sizeof *b);
    if (!b)
        return qp_fail_memory(error, "a buffer", sizeof *b);
    qp_wgpu_begin_allocation(&g->failures);
    b->buffer = g->f.create_buffer(g->device, &descriptor);
    if (qp_wgpu_end_allocation(&g->failures))
        status = qp_fail_memory(error, "a buffer of the GPU", (size_t)n_bytes);
    else
        status = qp_gpu_failure(g, error);
    if (status)
        qp_gpu_buffer_close(g, b);
    else
        *buffer = b;
    return status;
}

/* No callback of wgpu-native comes from a GPU that was lost. */
void qp_gpu_buffer_close(struct gpu *g, struct gpu_buffer *buffer)
{
    if (!buffer)
        return;
    buffer->is_closed = buffer->is_awaited && (g->f.is_dawn || !qp_wgpu_is_lost(&g->failures));
    const bool is_freed_later = buffer->is_closed;
    g->f.release_buffer(buffer->buffer);
    if (!is_freed_later)
        free(buffer);
}

void qp_gpu_write(struct gpu *g, struct gpu_buffer *to, uint64_t offset, const void *from,
                  size_t n_bytes)
{
    assert(offset % 4 == 0 && n_bytes % 4 == 0);
    if (n_bytes > 0)
        g->f.write_buffer(g->queue, to->buffer, offset, from, n_bytes);
}

/* ---- pipelines and bindings ---- */

static const struct layout *find_layout(struct gpu *g, int n_read, int n_write)
{
    struct wgpu_layout_entry entries[1 + GPU_MAX_BINDINGS] = { 0 };
    for (int i = 0; i < g->n_layouts; i++)
        if (g->layouts[i].n_read == n_read && g->layouts[i].n_write == n_write)
            return &g->layouts[i];
    assert(g->n_layouts < LAYOUTS && n_read + n_write <= GPU_MAX_BINDINGS);
    for (int i = 0; i <= n_read + n_write; i++) {
        entries[i].binding = (uint32_t)i;
        entries[i].visibility = WGPU_STAGE_COMPUTE;
        entries[i].buffer.type = i == 0        ? WGPU_BINDING_UNIFORM
                                 : i <= n_read ? WGPU_BINDING_READ
                                               : WGPU_BINDING_STORAGE;
        entries[i].buffer.has_dynamic_offset = i == 0;
    }
    const struct wgpu_group_layout_descriptor group = { .n_entries = 1 + (size_t)(n_read + n_write),
                                                        .entries = entries };
    struct layout *layout = &g->layouts[g->n_layouts++];
    *layout = (struct layout){ .n_read = n_read, .n_write = n_write };
    layout->group = g->f.create_group_layout(g->device, &group);
    const struct wgpu_pipeline_layout_descriptor pipeline = { .n_layouts = 1,
                                                              .layouts = &layout->group };
    layout->pipeline = g->f.create_pipeline_layout(g->device, &pipeline);
    return layout;
}

/* The shaders check their bounds themselves, and their loops end. */
static void *create_module(struct gpu *g, const char *wgsl, size_t n)
{
    struct wgpu_wgsl source = { .chain = { NULL, WGPU_SOURCE_WGSL }, .code = { wgsl, n } };
    const struct wgpu_module_descriptor descriptor = { .next = &source.chain };
    struct bytes text = { 0 };
    if (!g->f.is_dawn)
        return g->f.create_trusted_module(g->device, &descriptor, 0);
    // Dawn wants features named before a shader; wgpu-native does not know these lines
    const bool ok =
        (!g->info.has_subgroups || qp_bytes_append_text(&text, "enable subgroups;\n")) &&
        (!g->info.has_matrices ||
         qp_bytes_append_text(&text, "enable f16, chromium_experimental_subgroup_matrix;\n")) &&
        qp_bytes_append(&text, wgsl, n);
    if (ok)
        source.code = (struct wgpu_text){ (const char *)text.data, text.n };
    void *module = g->f.create_module(g->device, &descriptor);
    qp_bytes_close(&text);
    return module;
}

struct gpu_pipeline *qp_gpu_pipeline_open(struct gpu *g, const char *wgsl, size_t n, int n_read,
                                          int n_write)
{
    const struct layout *layout = find_layout(g, n_read, n_write);
    void *module = create_module(g, wgsl, n);
    const struct wgpu_pipeline_descriptor descriptor = {
        .layout = layout->pipeline,
        .compute = { .module = module, .entry_point = text_of("main") },
    };
    void *pipeline = has_failed(g) ? NULL : g->f.create_pipeline(g->device, &descriptor);
    g->f.release_module(module);
    if (pipeline && has_failed(g)) {
        g->f.release_pipeline(pipeline);
        pipeline = NULL;
    }
    return pipeline;
}

void qp_gpu_pipeline_close(struct gpu *g, struct gpu_pipeline *pipeline)
{
    if (pipeline)
        g->f.release_pipeline(pipeline);
}

struct gpu_bindings *qp_gpu_bindings_open(struct gpu *g, struct gpu_range parameters,
                                          const struct gpu_range *ranges, int n_read, int n_write)
{
    struct wgpu_group_entry entries[1 + GPU_MAX_BINDINGS] = { 0 };
    const int n = n_read + n_write;
    for (int i = 0; i <= n; i++) {
        const struct gpu_range *r = i == 0 ? &parameters : &ranges[i - 1];
        entries[i] = (struct wgpu_group_entry){ .binding = (uint32_t)i,
                                                .buffer = r->buffer->buffer,
                                                .offset = r->offset,
                                                .size = r->n_bytes };
    }
    const struct wgpu_group_descriptor descriptor = { .layout =
                                                          find_layout(g, n_read, n_write)->group,
                                                      .n_entries = 1 + (size_t)n,
                                                      .entries = entries };
    void *group = g->f.create_group(g->device, &descriptor);
    if (has_failed(g)) {
        g->f.release_group(group);
        group = NULL;
    }
    return group;
}

void qp_gpu_bindings_close(struct gpu *g, struct gpu_bindings *bindings)
{
    if (bindings)
        g->f.release_group(bindings);
}

/* ---- recording ---- */

static void end_pass(struct gpu *g)
{
    if (!g->pass)
        return;
    g->f.end_pass(g->pass);
    g->f.release_pass(g->pass);
    g->pass = g->pipeline = NULL;
}

/* A pass for one dispatch: the next one, too, calls this first. */
static void begin_measured_pass(struct gpu *g)
{
    const uint32_t begin = 2 * (uint32_t)g->n_measured;
    const struct wgpu_timestamps timestamps = { .queries = g->queries,
                                                .begin = begin,
                                                .end = begin + 1 };
    const struct wgpu_pass_descriptor descriptor = { .timestamps = &timestamps };
    end_pass(g);
    if (g->n_measured == GPU_MAX_MEASURED)
        return;
    g->pass = g->f.begin_pass(g->encoder, &descriptor);
    g->n_measured++;
}

void qp_gpu_dispatch(struct gpu *g, struct gpu_pipeline *pipeline, struct gpu_bindings *bindings,
                     uint32_t offset, uint32_t x, uint32_t y, uint32_t z)
{
    if (!g->encoder)
        g->encoder = g->f.create_encoder(g->device, NULL);
    if (g->queries)
        begin_measured_pass(g);
    if (!g->pass)
        g->pass = g->f.begin_pass(g->encoder, NULL);
    if (g->pipeline != pipeline)
        g->f.set_pipeline(g->pass, pipeline);
    g->pipeline = pipeline;
    g->f.set_group(g->pass, 0, bindings, 1, &offset);
    g->f.dispatch(g->pass, x, y, z);
}

void qp_gpu_copy(struct gpu *g, struct gpu_buffer *to, uint64_t to_offset, struct gpu_buffer *from,
                 uint64_t from_offset, uint64_t n_bytes)
{
    end_pass(g);
    if (!g->encoder)
        g->encoder = g->f.create_encoder(g->device, NULL);
    g->f.copy(g->encoder, from->buffer, from_offset, to->buffer, to_offset, n_bytes);
}

void qp_gpu_submit(struct gpu *g)
{
    void *commands = NULL;
    end_pass(g);
    if (g->encoder) {
        commands = g->f.finish(g->encoder, NULL);
        g->f.release_encoder(g->encoder);
        g->encoder = NULL;
    }
    if (!has_failed(g))
        g->f.submit(g->queue, commands ? 1 : 0, &commands); // none: what was written is copied
    if (commands)
        g->f.release_commands(commands);
}

void qp_gpu_discard(struct gpu *g)
{
    end_pass(g);
    if (g->encoder)
        g->f.release_encoder(g->encoder);
    g->encoder = NULL;
}

/* ---- mapping ---- */

static void on_mapped(uint32_t status, struct wgpu_text message, void *a, void *b)
{
    struct gpu_buffer *buffer = a;
    struct gpu *g = b;
    buffer->is_awaited = false;
    buffer->is_mapped = status == WGPU_SUCCESS;
    if (buffer->is_closed)
        free(buffer);
    else if (status != WGPU_SUCCESS)
        qp_wgpu_fail_map(&g->failures, message);
}

void qp_gpu_map(struct gpu *g, struct gpu_buffer *buffer, size_t n_bytes)
{
    if (has_failed(g))
        return;
    assert(!buffer->is_mapped && !buffer->is_awaited);
    buffer->n_mapped = n_bytes;
    buffer->is_awaited = true;
    g->f.map(buffer->buffer, WGPU_MAP_READ, 0, n_bytes,
             (struct wgpu_map_callback){
                 .mode = WGPU_PROCESS_EVENTS, .callback = on_mapped, .a = buffer, .b = g });
}

/* Wait for a mapping. A thread that waits in a driver can be woken half a millisecond late, and
 * most waits are as long as the one before. So near that time this one asks all the time; until
 * then it sleeps for a part of the time so far. */
static void await_map(struct gpu *g, const struct gpu_buffer *buffer)
{
    const uint64_t start = qp_now_ns(), last = g->waited_ns, shortest = 200000;
    const bool asks = !g->info.is_software && last >= shortest;
    uint64_t ns = 0;
    while (asks && ns < 3 * last && buffer->is_awaited && !has_failed(g)) {
        if (ns < last / 8 * 7)
            nanosleep(&(struct timespec){ .tv_nsec = (long)(ns / 32 % 1000000000) }, NULL);
        poll(g, false);
        ns = qp_now_ns() - start;
    }
    if (buffer->is_awaited && !has_failed(g))
        poll(g, true);
    g->waited_ns = qp_now_ns() - start;
}

const void *qp_gpu_mapped(struct gpu *g, struct gpu_buffer *buffer, bool wait)
{
    if (!buffer->is_mapped && !has_failed(g)) {
        if (wait)
            await_map(g, buffer);
        else
            poll(g, false);
    }
    if (has_failed(g))
        return NULL;
    if (!buffer->is_mapped && wait)
        qp_wgpu_fail_map(&g->failures, text_of("it waited in vain"));
    return buffer->is_mapped ? g->f.mapped_range(buffer->buffer, 0, buffer->n_mapped) : NULL;
}

void qp_gpu_unmap(struct gpu *g, struct gpu_buffer *buffer)
{
    if (buffer->is_mapped)
        g->f.unmap(buffer->buffer);
    buffer->is_mapped = false;
}

/* ---- measuring ---- */

quip_status qp_gpu_measure(struct gpu *g, quip_error *error)
{
    const struct wgpu_query_set_descriptor descriptor = { .type = WGPU_QUERY_TIMESTAMP,
                                                          .n = 2 * GPU_MAX_MEASURED };
    if (!g->info.has_timestamps)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "the GPU %s has no timestamps", g->info.name);
    if (!g->queries)
        g->queries = g->f.create_queries(g->device, &descriptor);
    g->n_measured = 0;
    return qp_gpu_failure(g, error);
}

/* The times of all queries that were written. */
static const uint64_t *fetch_times(struct gpu *g, struct gpu_buffer *times,
                                   struct gpu_buffer *readback)
{
    const size_t n_bytes = 2 * (size_t)g->n_measured * sizeof(uint64_t);
    end_pass(g);
    if (!g->encoder)
        g->encoder = g->f.create_encoder(g->device, NULL);
    g->f.resolve(g->encoder, g->queries, 0, 2 * (uint32_t)g->n_measured, times->buffer, 0);
    qp_gpu_copy(g, readback, 0, times, 0, n_bytes);
    qp_gpu_submit(g);
    qp_gpu_map(g, readback, n_bytes);
    return qp_gpu_mapped(g, readback, true);
}

int qp_gpu_measured(struct gpu *g, uint64_t *ns, int max)
{
    const int n = g->n_measured < max ? g->n_measured : max;
    const uint64_t n_bytes = 2 * sizeof(uint64_t) * GPU_MAX_MEASURED;
    struct gpu_buffer *times = NULL, *readback = NULL;
    const uint64_t *found = NULL;
    if (n > 0 && qp_gpu_buffer_open(&times, g, GPU_QUERIES, n_bytes, NULL) == QUIP_OK &&
        qp_gpu_buffer_open(&readback, g, GPU_READBACK, n_bytes, NULL) == QUIP_OK)
        found = fetch_times(g, times, readback);
    const double period = g->f.is_dawn ? 1 : (double)g->f.timestamp_period(g->queue);
    for (int i = 0; i < n && found; i++)
        ns[i] = (uint64_t)((double)(found[2 * i + 1] - found[2 * i]) * period);
    if (found)
        qp_gpu_unmap(g, readback);
    qp_gpu_buffer_close(g, times);
    qp_gpu_buffer_close(g, readback);
    if (g->queries)
        g->f.release_queries(g->queries);
    g->queries = NULL;
    return found ? n : 0;
}
