/* fake_gpu.c: see fake_gpu.h
 * In:  calls of device_native.c.
 * Out: callbacks; what was wrong with the calls.
 *
 * An object stays in memory until fake_gpu_reset, so that its use after release is noticed. */
#include "support/fake_gpu.h"

struct fake_gpu fake_gpu;

#if defined(__linux__) && defined(QUIP_WEBGPU)

#include "webgpu/native_abi.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ERROR_VALIDATION 2 // WGPUErrorType
#define ERROR_STATUS 3     // of requests and mappings
#define REASON_UNKNOWN 1   // of a lost device

/* These are not counted by alloc_fault.c. */
void *__real_calloc(size_t n, size_t size);
void __real_free(void *p);

enum kind {
    INSTANCE,
    ADAPTER,
    DEVICE,
    QUEUE,
    BUFFER,
    MODULE,
    GROUP_LAYOUT,
    PIPELINE_LAYOUT,
    PIPELINE,
    GROUP,
    ENCODER,
    PASS,
    COMMANDS,
    QUERIES
};

enum {
    MAX_COPIES = 8,  // to buffers that are mapped, in one submit
    MAX_BUFFERS = 12 // of bindings
};

struct object {
    struct object *older;
    enum kind kind;
    struct object *device;
    bool is_invalid; // the call that made it failed
    bool is_released, is_done;
    uint64_t size, usage;                      // of a buffer
    int n_entries;                             // of a layout, or bindings
    const struct object *buffers[MAX_BUFFERS]; // of bindings
    void *bytes;                               // what is mapped
    bool is_mapped;
    int n_polls_left;
    struct wgpu_map_callback map; // callback NULL: no mapping is asked for
    struct object *copied_to[MAX_COPIES];
    int n_copied_to;
    bool is_lost; // a device
    struct wgpu_lost_callback lost;
    struct wgpu_error_callback error;
};

static struct object *newest;

/* ---- objects ---- */

static void note_wrong(const char *what)
{
    if (!fake_gpu.wrong)
        fake_gpu.wrong = what;
}

static struct object *make(enum kind kind, struct object *device)
{
    struct object *o = __real_calloc(1, sizeof *o);
    *o = (struct object){ .older = newest, .kind = kind, .device = device };
    newest = o;
    fake_gpu.n_live++;
    fake_gpu.n_devices += kind == DEVICE;
    return o;
}

static struct object *use(void *object, enum kind kind)
{
    struct object *o = object;
    if (!o || o->kind != kind)
        note_wrong("an object of another kind, or none");
    else if (o->is_released)
        note_wrong("an object that was released");
    return o;
}

static void release(void *object, enum kind kind)
{
    struct object *o = use(object, kind);
    if (kind == DEVICE && o->is_lost && !fake_gpu.is_dawn)
        note_wrong("wgpuDeviceRelease after the GPU was lost");
    o->is_released = true;
    fake_gpu.n_live--;
    fake_gpu.n_devices -= kind == DEVICE;
}

/* ---- failures ---- */

static struct wgpu_text text(const char *string)
{
    return (struct wgpu_text){ string, strlen(string) };
}

/* What wgpu-native 29 says about a failure. */
static struct wgpu_text message_of(char message[200], enum fake_failure failure, const char *name)
{
    static const char *const whys[] = { [FAKE_REFUSED] = "Something is not valid",
                                        [FAKE_SHORT] = "Not enough memory left.",
                                        [FAKE_LOST] = "Parent device is lost" };
    snprintf(message, 200, "Validation Error\n\nCaused by:\n  In %s\n    %s\n", name,
             whys[failure]);
    return text(message);
}

/* Report a failure in one of two ways: with the types of webgpu.h, or as wgpu-native 29 does it. */
static void report(struct object *device, enum fake_failure failure, const char *name)
{
    void *const of = device;
    char message[200];
    if (failure == FAKE_LOST)
        device->is_lost = true;
    if (fake_gpu.is_typed && failure == FAKE_LOST) {
        device->lost.callback(&of, REASON_UNKNOWN, text("It fell off"), device->lost.a,
                              device->lost.b);
        return;
    }
    device->error.callback(
        &of, fake_gpu.is_typed && failure == FAKE_SHORT ? WGPU_OUT_OF_MEMORY : ERROR_VALIDATION,
        message_of(message, failure, name), device->error.a, device->error.b);
}

/* Does this call fail? If it has a device, that is reported. */
static bool fails(struct object *device, const char *name)
{
    fake_gpu.n_calls++;
    const bool is_now = fake_gpu.fail_in > 0 && --fake_gpu.fail_in == 0;
    if (is_now)
        fake_gpu.failed = name;
    if (device && device->is_lost)
        report(device, FAKE_LOST, name);
    else if (device && is_now)
        report(device, fake_gpu.failure, name);
    return is_now || (device && device->is_lost);
}

/* An object of a device, not valid if the call fails or `is_invalid`. */
static struct object *make_checked(enum kind kind, void *device, const char *name, bool is_invalid)
{
    struct object *d = use(device, DEVICE);
    const bool has_failed = fails(d, name);
    if (is_invalid && !has_failed)
        report(d, FAKE_REFUSED, name);
    struct object *o = make(kind, d);
    o->is_invalid = has_failed || is_invalid;
    return o;
}

/* ---- opening ---- */

static void *create_instance(const struct wgpu_instance_descriptor *descriptor)
{
    (void)descriptor;
    return fails(NULL, "wgpuCreateInstance") ? NULL : make(INSTANCE, NULL);
}

static void answer(struct wgpu_request_callback callback, bool has_failed, enum kind kind)
{
    callback.callback(has_failed ? ERROR_STATUS : WGPU_SUCCESS,
                      has_failed ? NULL : make(kind, NULL),
                      has_failed ? text("Validation Error\n\nCaused by:\n  It is not there\n")
                                 : (struct wgpu_text){ 0 },
                      callback.a, callback.b);
}

static struct wgpu_future request_adapter(void *instance,
                                          const struct wgpu_adapter_options *options,
                                          struct wgpu_request_callback callback)
{
    (void)options;
    use(instance, INSTANCE);
    answer(callback, fails(NULL, "wgpuInstanceRequestAdapter"), ADAPTER);
    return (struct wgpu_future){ 0 };
}

static struct wgpu_future request_device(void *adapter,
                                         const struct wgpu_device_descriptor *descriptor,
                                         struct wgpu_request_callback callback)
{
    struct object *before = newest;
    use(adapter, ADAPTER);
    answer(callback, fails(NULL, "wgpuAdapterRequestDevice"), DEVICE);
    if (newest != before) {
        newest->lost = descriptor->lost;
        newest->error = descriptor->error;
    }
    return (struct wgpu_future){ 0 };
}

static uint32_t adapter_limits(void *adapter, struct wgpu_limits *limits)
{
    const struct fake_gpu *f = &fake_gpu;
    use(adapter, ADAPTER);
    limits->storage_binding_size = f->max_binding ? f->max_binding : (uint64_t)128 << 20;
    limits->buffer_size = f->max_buffer ? f->max_buffer : (uint64_t)1 << 31;
    limits->workgroup_storage = f->group_memory ? f->group_memory : 32768;
    limits->workgroup_invocations = f->group_threads ? f->group_threads : 1024;
    limits->workgroups = f->max_groups ? f->max_groups : 65535;
    limits->storage_buffers = f->n_bindings ? f->n_bindings : 8;
    return WGPU_SUCCESS;
}

static uint32_t adapter_info(void *adapter, struct wgpu_adapter_info *info)
{
    use(adapter, ADAPTER);
    info->device = text("fake");
    info->vendor_id = fake_gpu.is_dawn ? 0x10de : 0; // with subgroups of one size
    info->description = text("computes nothing");
    return WGPU_SUCCESS;
}

static uint32_t has_feature(void *adapter, uint32_t feature)
{
    use(adapter, ADAPTER);
    if (feature >> 16 == (fake_gpu.is_dawn ? 3 : 5))
        note_wrong("wgpuAdapterHasFeature of a feature of another library");
    return feature != WGPU_SUBGROUP_MATRIX || fake_gpu.has_matrices;
}

static void *device_queue(void *device)
{
    return make(QUEUE, use(device, DEVICE));
}

/* ---- buffers ---- */

static void *create_buffer(void *device, const struct wgpu_buffer_descriptor *descriptor)
{
    struct wgpu_limits limits = { 0 };
    struct object adapter = { .kind = ADAPTER };
    adapter_limits(&adapter, &limits);
    struct object *o = make_checked(BUFFER, device, "wgpuDeviceCreateBuffer",
                                    descriptor->size == 0 || descriptor->size > limits.buffer_size);
    o->size = descriptor->size;
    o->usage = descriptor->usage;
    return o;
}

static void check_range(const struct object *buffer, uint64_t offset, uint64_t n)
{
    if (offset % 4 || n % 4 || offset > buffer->size || n > buffer->size - offset)
        note_wrong("a range that is not in its buffer");
}

static void write_buffer(void *queue, void *buffer, uint64_t offset, const void *data, size_t n)
{
    struct object *q = use(queue, QUEUE), *b = use(buffer, BUFFER);
    (void)data;
    check_range(b, offset, n);
    fails(q->device, "wgpuQueueWriteBuffer");
}

static void end_map(struct object *b, uint32_t status, struct wgpu_text message)
{
    const struct wgpu_map_callback map = b->map;
    b->map.callback = NULL;
    b->is_mapped = status == WGPU_SUCCESS;
    map.callback(status, message, map.a, map.b);
}

static struct wgpu_future map(void *buffer, uint64_t mode, size_t offset, size_t n,
                              struct wgpu_map_callback callback)
{
    struct object *b = use(buffer, BUFFER);
    if (mode != WGPU_MAP_READ || !(b->usage & WGPU_USAGE_MAP_READ) || b->is_mapped ||
        b->map.callback)
        note_wrong("wgpuBufferMapAsync of such a buffer");
    check_range(b, offset, n);
    b->map = callback;
    b->n_polls_left = fake_gpu.n_not_yet;
    if (fails(b->device, "wgpuBufferMapAsync")) {
        char message[200];
        end_map(b, ERROR_STATUS, message_of(message, fake_gpu.failure, "wgpuBufferMapAsync"));
    }
    return (struct wgpu_future){ 0 };
}

static void poll(struct object *d, bool wait)
{
    if (wait && fake_gpu.wait_ns)
        nanosleep(&(struct timespec){ .tv_nsec = fake_gpu.wait_ns }, NULL);
    for (struct object *o = newest; o; o = o->older) {
        if (o->device != d || !o->map.callback)
            continue;
        if (wait || o->n_polls_left-- <= 0)
            end_map(o, WGPU_SUCCESS, text(""));
        else
            fake_gpu.n_polls++;
    }
}

static uint32_t device_poll(void *device, uint32_t wait, const uint64_t *submission)
{
    struct object *d = use(device, DEVICE);
    (void)submission;
    if (d->is_lost)
        note_wrong("wgpuDevicePoll after the GPU was lost");
    if (fails(d, "wgpuDevicePoll"))
        return 0;
    poll(d, wait);
    return 1;
}

/* Of Dawn. The wait is over when events are processed. */
static struct object *waits_for;

static struct wgpu_future on_done(void *queue, struct wgpu_map_callback callback)
{
    struct object *q = use(queue, QUEUE);
    if (!callback.callback)
        note_wrong("wgpuQueueOnSubmittedWorkDone without a callback");
    waits_for = q->device;
    return (struct wgpu_future){ 1 };
}

static uint32_t wait_any(void *instance, size_t n, struct wgpu_wait *waits, uint64_t ns)
{
    use(instance, INSTANCE);
    if (n != 1 || waits->future.id != 1 || ns != UINT64_MAX || !waits_for)
        note_wrong("wgpuInstanceWaitAny for nothing");
    else if (!fails(waits_for, "wgpuInstanceWaitAny"))
        poll(waits_for, true);
    waits_for = NULL;
    return WGPU_SUCCESS;
}

static void process_events(void *instance)
{
    use(instance, INSTANCE);
    for (struct object *o = newest; o; o = o->older) {
        if (o->kind == DEVICE && !o->is_released && !o->is_lost)
            poll(o, false);
        else if (o->map.callback && (o->device->is_released || o->device->is_lost))
            end_map(o, ERROR_STATUS, text("the device is gone"));
    }
}

static const void *mapped_range(void *buffer, size_t offset, size_t n)
{
    struct object *b = use(buffer, BUFFER);
    if (b->device->is_lost || !b->is_mapped)
        note_wrong("wgpuBufferGetConstMappedRange of a buffer that is not mapped");
    check_range(b, offset, n);
    if (!b->bytes)
        b->bytes = __real_calloc(1, (size_t)b->size);
    if (fake_gpu.answer)
        fake_gpu.answer(b->bytes, n);
    return b->bytes;
}

static void unmap(void *buffer)
{
    struct object *b = use(buffer, BUFFER);
    b->is_mapped = false;
    if (b->map.callback)
        end_map(b, ERROR_STATUS, text(""));
}

static void release_buffer(void *buffer)
{
    struct object *b = buffer;
    release(buffer, BUFFER);
    b->is_mapped = false;
    __real_free(b->bytes);
    b->bytes = NULL;
}

/* ---- pipelines and bindings ---- */

static bool contains(struct wgpu_text code, const char *words)
{
    const size_t n = strlen(words);
    for (size_t i = 0; i + n <= code.n; i++)
        if (memcmp(code.data + i, words, n) == 0)
            return true;
    return false;
}

static void *create_module(void *device, const struct wgpu_module_descriptor *descriptor)
{
    const struct wgpu_text code = ((const struct wgpu_wgsl *)(const void *)descriptor->next)->code;
    const bool has_matrices = contains(code, "subgroupMatrixLoad");
    fake_gpu.n_matrix_modules += has_matrices;
    fake_gpu.n_attend_modules += has_matrices && contains(code, "fn times_values");
    fake_gpu.n_tile_modules += contains(code, "fn float_dots");
    if (contains(code, "enable ") != fake_gpu.is_dawn || (has_matrices && !fake_gpu.has_matrices))
        note_wrong("a shader for another library, or another GPU");
    return make_checked(MODULE, device, "wgpuDeviceCreateShaderModule", false);
}

static void *create_trusted_module(void *device, const struct wgpu_module_descriptor *descriptor,
                                   uint64_t runtime_checks)
{
    (void)runtime_checks;
    return create_module(device, descriptor);
}

static void *create_group_layout(void *device,
                                 const struct wgpu_group_layout_descriptor *descriptor)
{
    struct object *o = make_checked(GROUP_LAYOUT, device, "wgpuDeviceCreateBindGroupLayout", false);
    o->n_entries = (int)descriptor->n_entries;
    return o;
}

static void *create_pipeline_layout(void *device,
                                    const struct wgpu_pipeline_layout_descriptor *descriptor)
{
    return make_checked(PIPELINE_LAYOUT, device, "wgpuDeviceCreatePipelineLayout",
                        use(descriptor->layouts[0], GROUP_LAYOUT)->is_invalid);
}

static void *create_pipeline(void *device, const struct wgpu_pipeline_descriptor *descriptor)
{
    return make_checked(PIPELINE, device, "wgpuDeviceCreateComputePipeline",
                        use(descriptor->layout, PIPELINE_LAYOUT)->is_invalid ||
                            use(descriptor->compute.module, MODULE)->is_invalid);
}

static void *create_group(void *device, const struct wgpu_group_descriptor *descriptor)
{
    const struct object *layout = use(descriptor->layout, GROUP_LAYOUT);
    const struct object *buffers[MAX_BUFFERS];
    bool is_invalid = layout->is_invalid || layout->n_entries != (int)descriptor->n_entries;
    assert(descriptor->n_entries <= MAX_BUFFERS);
    for (size_t i = 0; i < descriptor->n_entries; i++) {
        const struct wgpu_group_entry *e = &descriptor->entries[i];
        const struct object *b = use(e->buffer, BUFFER);
        check_range(b, e->offset, e->size);
        if (e->offset % GPU_ALIGN || (fake_gpu.max_binding && e->size > fake_gpu.max_binding))
            note_wrong("a binding that is not aligned, or too large");
        is_invalid = is_invalid || b->is_invalid;
        buffers[i] = b;
    }
    struct object *group = make_checked(GROUP, device, "wgpuDeviceCreateBindGroup", is_invalid);
    group->n_entries = (int)descriptor->n_entries;
    memcpy(group->buffers, buffers, descriptor->n_entries * sizeof *buffers);
    return group;
}

static void *create_queries(void *device, const struct wgpu_query_set_descriptor *descriptor)
{
    (void)descriptor;
    return make_checked(QUERIES, device, "wgpuDeviceCreateQuerySet", false);
}

/* ---- recording ---- */

static void *create_encoder(void *device, const void *descriptor)
{
    (void)descriptor;
    return make_checked(ENCODER, device, "wgpuDeviceCreateCommandEncoder", false);
}

static void *begin_pass(void *encoder, const struct wgpu_pass_descriptor *descriptor)
{
    struct object *e = use(encoder, ENCODER);
    (void)descriptor;
    struct object *pass = make(PASS, e->device);
    pass->is_invalid = e->is_invalid;
    return pass;
}

static void set_pipeline(void *pass, void *pipeline)
{
    use(pass, PASS);
    if (use(pipeline, PIPELINE)->is_invalid)
        note_wrong("a pipeline that was not made");
}

static void set_group(void *pass, uint32_t index, void *group, size_t n_offsets,
                      const uint32_t *offsets)
{
    use(pass, PASS);
    const struct object *g = use(group, GROUP);
    if (g->is_invalid)
        note_wrong("bindings that were not made");
    for (int i = 0; i < g->n_entries; i++) // a browser refuses that
        if (g->buffers[i]->is_released)
            note_wrong("bindings of a buffer that was released");
    if (index != 0 || n_offsets != 1 || offsets[0] % GPU_ALIGN)
        note_wrong("an offset that is not aligned");
}

static void dispatch(void *pass, uint32_t x, uint32_t y, uint32_t z)
{
    const uint32_t max = fake_gpu.max_groups ? fake_gpu.max_groups : 65535;
    use(pass, PASS);
    if (x < 1 || y < 1 || z < 1 || x > max || y > max || z > max)
        note_wrong("a number of workgroups that is not allowed");
}

static void end_pass(void *pass)
{
    struct object *p = use(pass, PASS);
    if (p->is_done)
        note_wrong("the end of a pass that has ended");
    p->is_done = true;
}

static void copy(void *encoder, void *from, uint64_t from_offset, void *to, uint64_t to_offset,
                 uint64_t n_bytes)
{
    struct object *e = use(encoder, ENCODER), *t = use(to, BUFFER);
    check_range(use(from, BUFFER), from_offset, n_bytes);
    check_range(t, to_offset, n_bytes);
    if (!(t->usage & WGPU_USAGE_MAP_READ))
        return;
    if (e->n_copied_to == MAX_COPIES)
        note_wrong("more copies than this file can keep");
    else
        e->copied_to[e->n_copied_to++] = t;
}

static void resolve(void *encoder, void *queries, uint32_t first, uint32_t n, void *buffer,
                    uint64_t offset)
{
    use(encoder, ENCODER);
    use(queries, QUERIES);
    check_range(use(buffer, BUFFER), offset + 8 * (uint64_t)first, 8 * (uint64_t)n);
}

static void *finish(void *encoder, const void *descriptor)
{
    struct object *e = use(encoder, ENCODER);
    (void)descriptor;
    struct object *commands =
        make_checked(COMMANDS, e->device, "wgpuCommandEncoderFinish", e->is_invalid);
    memcpy(commands->copied_to, e->copied_to, sizeof e->copied_to);
    commands->n_copied_to = e->n_copied_to;
    return commands;
}

static void submit(void *queue, size_t n, void *const *all)
{
    struct object *q = use(queue, QUEUE);
    if (q->device->is_lost)
        note_wrong("wgpuQueueSubmit after the GPU was lost");
    for (size_t i = 0; i < n; i++) {
        const struct object *commands = use(all[i], COMMANDS);
        if (commands->is_invalid)
            note_wrong("wgpuQueueSubmit of commands that were not made");
        for (int c = 0; c < commands->n_copied_to; c++)
            if (commands->copied_to[c]->is_mapped || commands->copied_to[c]->map.callback)
                note_wrong("wgpuQueueSubmit of a copy to a buffer that is mapped");
    }
    fails(q->device, "wgpuQueueSubmit");
}

static float timestamp_period(void *queue)
{
    use(queue, QUEUE);
    return 1;
}

/* ---- release ---- */

static uint32_t version(void)
{
    return (uint32_t)WGPU_MAJOR_VERSION << 24;
}

static void free_info(struct wgpu_adapter_info info)
{
    (void)info;
}

#define RELEASE(name, kind)                                                                        \
    static void release_##name(void *object)                                                       \
    {                                                                                              \
        release(object, kind);                                                                     \
    }
RELEASE(instance, INSTANCE)
RELEASE(adapter, ADAPTER)
RELEASE(device, DEVICE)
RELEASE(queue, QUEUE)
RELEASE(module, MODULE)
RELEASE(group_layout, GROUP_LAYOUT)
RELEASE(pipeline_layout, PIPELINE_LAYOUT)
RELEASE(pipeline, PIPELINE)
RELEASE(group, GROUP)
RELEASE(encoder, ENCODER)
RELEASE(pass, PASS)
RELEASE(commands, COMMANDS)
RELEASE(queries, QUERIES)

static const struct wgpu_functions fake_functions = {
    .create_instance = create_instance,
    .request_adapter = request_adapter,
    .request_device = request_device,
    .adapter_limits = adapter_limits,
    .adapter_info = adapter_info,
    .device_queue = device_queue,
    .device_poll = device_poll,
    .create_buffer = create_buffer,
    .create_module = create_module,
    .create_trusted_module = create_trusted_module,
    .create_group_layout = create_group_layout,
    .create_pipeline_layout = create_pipeline_layout,
    .create_pipeline = create_pipeline,
    .create_group = create_group,
    .create_encoder = create_encoder,
    .begin_pass = begin_pass,
    .set_pipeline = set_pipeline,
    .set_group = set_group,
    .dispatch = dispatch,
    .end_pass = end_pass,
    .copy = copy,
    .finish = finish,
    .submit = submit,
    .write_buffer = write_buffer,
    .map = map,
    .mapped_range = mapped_range,
    .unmap = unmap,
    .has_feature = has_feature,
    .create_queries = create_queries,
    .resolve = resolve,
    .timestamp_period = timestamp_period,
    .process_events = process_events,
    .wait_any = wait_any,
    .on_done = on_done,
    .version = version,
    .release_instance = release_instance,
    .release_adapter = release_adapter,
    .release_device = release_device,
    .release_queue = release_queue,
    .release_buffer = release_buffer,
    .release_module = release_module,
    .release_group_layout = release_group_layout,
    .release_pipeline_layout = release_pipeline_layout,
    .release_pipeline = release_pipeline,
    .release_group = release_group,
    .release_encoder = release_encoder,
    .release_pass = release_pass,
    .release_commands = release_commands,
    .release_queries = release_queries,
    .free_info = free_info,
};

/* ---- the place of the library ---- */

quip_status __real_qp_wgpu_load(struct wgpu_functions *f, struct gpu_report *report,
                                quip_error *error);
quip_status __wrap_qp_wgpu_load(struct wgpu_functions *f, struct gpu_report *report,
                                quip_error *error);

quip_status __wrap_qp_wgpu_load(struct wgpu_functions *f, struct gpu_report *report,
                                quip_error *error)
{
    if (!fake_gpu.is_on)
        return __real_qp_wgpu_load(f, report, error);
    *f = fake_functions;
    f->is_dawn = fake_gpu.is_dawn;
    return QUIP_OK;
}

bool fake_gpu_is_here(void)
{
    return true;
}

void fake_gpu_reset(void)
{
    while (newest) {
        struct object *o = newest;
        newest = o->older;
        __real_free(o->bytes);
        __real_free(o);
    }
    fake_gpu = (struct fake_gpu){ 0 };
}

#else

bool fake_gpu_is_here(void)
{
    return false;
}

void fake_gpu_reset(void) {}

#endif
