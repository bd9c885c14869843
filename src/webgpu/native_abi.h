/* native_abi.h: what device_native.c uses of the binary interface of webgpu.h, as wgpu-native 29
 * and Dawn have it (https://github.com/webgpu-native/webgpu-headers; wgpu.h of wgpu-native and
 * dawn.json of Dawn have what is theirs alone). Structs have all fields of theirs, in the same
 * order; objects are pointers. */
#ifndef QP_NATIVE_ABI_H
#define QP_NATIVE_ABI_H

#include "webgpu/device.h"

#define WGPU_MAJOR_VERSION 29

enum {
    WGPU_SUCCESS = 1,     // of every status
    WGPU_SPONTANEOUS = 3, // callback modes: at any time; while events are processed
    WGPU_PROCESS_EVENTS = 2,
    WGPU_WAIT_ONLY = 1,
    WGPU_HIGH_PERFORMANCE = 2,
    WGPU_CORE = 2,
    WGPU_SOURCE_WGSL = 2,
    WGPU_INSTANCE_EXTRAS = 0x30004,
    WGPU_API_VULKAN = 1, // OpenGL is the only one that is left out
    WGPU_API_METAL = 4,
    WGPU_API_D3D12 = 8,
    WGPU_FLAGS_DEFAULT = 1 << 24,
    WGPU_OUT_OF_MEMORY = 3,
    WGPU_ADAPTER_CPU = 3,
    WGPU_BINDING_UNIFORM = 2,
    WGPU_BINDING_STORAGE = 3,
    WGPU_BINDING_READ = 4,
    WGPU_STAGE_COMPUTE = 4,
    WGPU_MAP_READ = 1,
    WGPU_TIMESTAMP_QUERY = 9, // a feature
    WGPU_SHADER_F16 = 11,     // others
    WGPU_SUBGROUPS = 18,
    WGPU_NATIVE_SUBGROUP = 0x30021, // of wgpu-native
    WGPU_SUBGROUP_MATRIX = 0x50034, // of Dawn
    WGPU_DAWN_TOGGLES = 0x5000a,
    WGPU_TIMED_WAIT = 1,
    WGPU_QUERY_TIMESTAMP = 2,
    WGPU_USAGE_MAP_READ = 1,
    WGPU_USAGE_COPY_SRC = 4,
    WGPU_USAGE_COPY_DST = 8,
    WGPU_USAGE_UNIFORM = 64,
    WGPU_USAGE_STORAGE = 128,
    WGPU_USAGE_QUERY_RESOLVE = 512
};

struct wgpu_text {
    const char *data;
    size_t n;
};

struct wgpu_chain {
    struct wgpu_chain *next;
    uint32_t type;
};

struct wgpu_future {
    uint64_t id;
};

/* Of wgpu-native: which APIs of the system it looks for. */
struct wgpu_instance_extras {
    struct wgpu_chain chain;
    uint64_t apis, flags;
    uint32_t compilers[3];
    struct wgpu_text compiler_path;
    uint32_t d3d12[2];
    const uint8_t *budgets[2];
    void *display[3];
};
struct wgpu_instance_descriptor {
    struct wgpu_chain *next;
    size_t n_features;
    const uint32_t *features;
    const void *limits;
};

/* Of Dawn, in an instance, an adapter's options or a device: what it does and leaves out. */
struct wgpu_toggles {
    struct wgpu_chain chain;
    size_t n_enabled;
    const char *const *enabled;
    size_t n_disabled;
    const char *const *disabled;
};

struct wgpu_limits {
    struct wgpu_chain *next;
    uint32_t textures[4], bind_groups[2], bindings_per_group, dynamic_buffers[2];
    uint32_t sampled[2], storage_buffers, storage_textures, uniform_buffers;
    uint64_t uniform_binding_size, storage_binding_size;
    uint32_t uniform_align, storage_align, vertex_buffers;
    uint64_t buffer_size;
    uint32_t vertex[2], inter_stage, color[2];
    uint32_t workgroup_storage, workgroup_invocations, workgroup_size[3], workgroups;
    uint32_t immediate_size;
};

struct wgpu_adapter_info {
    struct wgpu_chain *next;
    struct wgpu_text vendor, architecture, device, description;
    uint32_t backend_type, adapter_type, vendor_id, device_id, subgroup_sizes[2];
};

struct wgpu_features {
    size_t n;
    const uint32_t *features;
};

/* Of wgpu-native. */
struct wgpu_enumerate_options {
    struct wgpu_chain *next;
    uint64_t apis;
};

struct wgpu_adapter_options {
    struct wgpu_chain *next;
    uint32_t feature_level, power_preference, force_fallback, backend_type;
    void *surface;
};

/* How a callback is called; `callback` has the type of its function. */
struct wgpu_request_callback {
    struct wgpu_chain *next;
    uint32_t mode;
    void (*callback)(uint32_t status, void *object, struct wgpu_text message, void *a, void *b);
    void *a, *b;
};
struct wgpu_map_callback {
    struct wgpu_chain *next;
    uint32_t mode;
    void (*callback)(uint32_t status, struct wgpu_text message, void *a, void *b);
    void *a, *b;
};
struct wgpu_lost_callback {
    struct wgpu_chain *next;
    uint32_t mode;
    void (*callback)(void *const *device, uint32_t reason, struct wgpu_text message, void *a,
                     void *b);
    void *a, *b;
};
struct wgpu_error_callback {
    struct wgpu_chain *next;
    void (*callback)(void *const *device, uint32_t type, struct wgpu_text message, void *a,
                     void *b);
    void *a, *b;
};

struct wgpu_wait {
    struct wgpu_future future;
    uint32_t is_done;
};

struct wgpu_device_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
    size_t n_features;
    const uint32_t *features;
    const struct wgpu_limits *limits;
    struct wgpu_chain *queue_next;
    struct wgpu_text queue_label;
    struct wgpu_lost_callback lost;
    struct wgpu_error_callback error;
};

struct wgpu_buffer_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
    uint64_t usage, size;
    uint32_t is_mapped;
};

struct wgpu_wgsl {
    struct wgpu_chain chain;
    struct wgpu_text code;
};
struct wgpu_module_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
};

struct wgpu_layout_entry {
    struct wgpu_chain *next;
    uint32_t binding;
    uint64_t visibility;
    uint32_t array_size;
    struct {
        struct wgpu_chain *next;
        uint32_t type, has_dynamic_offset;
        uint64_t min_size;
    } buffer;
    struct {
        struct wgpu_chain *next;
        uint32_t type;
    } sampler;
    struct {
        struct wgpu_chain *next;
        uint32_t sample_type, dimension, is_multisampled;
    } texture, storage_texture;
};
struct wgpu_group_layout_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
    size_t n_entries;
    const struct wgpu_layout_entry *entries;
};
struct wgpu_pipeline_layout_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
    size_t n_layouts;
    void *const *layouts;
    uint32_t immediate_size;
};
struct wgpu_pipeline_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
    void *layout;
    struct {
        struct wgpu_chain *next;
        void *module;
        struct wgpu_text entry_point;
        size_t n_constants;
        const void *constants;
    } compute;
};

struct wgpu_group_entry {
    struct wgpu_chain *next;
    uint32_t binding;
    void *buffer;
    uint64_t offset, size;
    void *sampler, *texture_view;
};
struct wgpu_group_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
    void *layout;
    size_t n_entries;
    const struct wgpu_group_entry *entries;
};

struct wgpu_query_set_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
    uint32_t type, n;
};
struct wgpu_timestamps {
    struct wgpu_chain *next;
    void *queries;
    uint32_t begin, end; // queries of a pass
};
struct wgpu_pass_descriptor {
    struct wgpu_chain *next;
    struct wgpu_text label;
    const struct wgpu_timestamps *timestamps;
};

/* As the C compiler lays out those of wgpu.h. */
#if UINTPTR_MAX > 0xffffffffu
static_assert(sizeof(struct wgpu_instance_extras) == 112, "binary interface");
static_assert(sizeof(struct wgpu_limits) == 152, "binary interface");
static_assert(sizeof(struct wgpu_adapter_info) == 96, "binary interface");
static_assert(sizeof(struct wgpu_device_descriptor) == 144, "binary interface");
static_assert(sizeof(struct wgpu_buffer_descriptor) == 48, "binary interface");
static_assert(sizeof(struct wgpu_layout_entry) == 120, "binary interface");
static_assert(sizeof(struct wgpu_pipeline_descriptor) == 80, "binary interface");
static_assert(sizeof(struct wgpu_group_entry) == 56, "binary interface");
static_assert(sizeof(struct wgpu_query_set_descriptor) == 32, "binary interface");
static_assert(sizeof(struct wgpu_timestamps) == 24, "binary interface");
static_assert(sizeof(struct wgpu_pass_descriptor) == 32, "binary interface");
#endif

/* ---- its functions (native_library.c) ---- */

struct wgpu_functions {
    bool is_dawn; // and has not those of wgpu-native alone; otherwise the other way round
    void *(*create_instance)(const struct wgpu_instance_descriptor *descriptor);
    struct wgpu_future (*request_adapter)(void *instance,
                                          const struct wgpu_adapter_options *options,
                                          struct wgpu_request_callback callback);
    struct wgpu_future (*request_device)(void *adapter,
                                         const struct wgpu_device_descriptor *descriptor,
                                         struct wgpu_request_callback callback);
    uint32_t (*adapter_limits)(void *adapter, struct wgpu_limits *limits);
    uint32_t (*adapter_info)(void *adapter, struct wgpu_adapter_info *info);
    void (*adapter_features)(void *adapter, struct wgpu_features *features);
    size_t (*enumerate_adapters)(void *instance, const struct wgpu_enumerate_options *options,
                                 void **adapters);
    void *(*device_queue)(void *device);
    uint32_t (*device_poll)(void *device, uint32_t wait, const uint64_t *submission);
    void *(*create_buffer)(void *device, const struct wgpu_buffer_descriptor *descriptor);
    void *(*create_module)(void *device, const struct wgpu_module_descriptor *descriptor);
    void *(*create_trusted_module)(void *device, const struct wgpu_module_descriptor *descriptor,
                                   uint64_t runtime_checks);
    void *(*create_group_layout)(void *device,
                                 const struct wgpu_group_layout_descriptor *descriptor);
    void *(*create_pipeline_layout)(void *device,
                                    const struct wgpu_pipeline_layout_descriptor *descriptor);
    void *(*create_pipeline)(void *device, const struct wgpu_pipeline_descriptor *descriptor);
    void *(*create_group)(void *device, const struct wgpu_group_descriptor *descriptor);
    void *(*create_encoder)(void *device, const void *descriptor);
    void *(*begin_pass)(void *encoder, const struct wgpu_pass_descriptor *descriptor);
    void (*set_pipeline)(void *pass, void *pipeline);
    void (*set_group)(void *pass, uint32_t index, void *group, size_t n_offsets,
                      const uint32_t *offsets);
    void (*dispatch)(void *pass, uint32_t x, uint32_t y, uint32_t z);
    void (*end_pass)(void *pass);
    void (*copy)(void *encoder, void *from, uint64_t from_offset, void *to, uint64_t to_offset,
                 uint64_t n_bytes);
    void *(*finish)(void *encoder, const void *descriptor);
    void (*submit)(void *queue, size_t n, void *const *commands);
    void (*write_buffer)(void *queue, void *buffer, uint64_t offset, const void *data, size_t n);
    struct wgpu_future (*map)(void *buffer, uint64_t mode, size_t offset, size_t n,
                              struct wgpu_map_callback callback);
    const void *(*mapped_range)(void *buffer, size_t offset, size_t n);
    void (*unmap)(void *buffer);
    uint32_t (*has_feature)(void *adapter, uint32_t feature);
    void *(*create_queries)(void *device, const struct wgpu_query_set_descriptor *descriptor);
    void (*resolve)(void *encoder, void *queries, uint32_t first, uint32_t n, void *buffer,
                    uint64_t offset);
    float (*timestamp_period)(void *queue); // nanoseconds
    uint32_t (*version)(void);
    void (*process_events)(void *instance);
    uint32_t (*wait_any)(void *instance, size_t n, struct wgpu_wait *waits, uint64_t ns);
    struct wgpu_future (*on_done)(void *queue, struct wgpu_map_callback callback);
    void (*release_instance)(void *), (*release_adapter)(void *), (*release_device)(void *),
        (*release_queue)(void *), (*release_buffer)(void *), (*release_module)(void *),
        (*release_group_layout)(void *), (*release_pipeline_layout)(void *),
        (*release_pipeline)(void *), (*release_group)(void *), (*release_encoder)(void *),
        (*release_pass)(void *), (*release_commands)(void *), (*release_queries)(void *),
        (*free_info)(struct wgpu_adapter_info), (*free_features)(struct wgpu_features);
};

/* Load the library: the file that QUIP_GPU_LIBRARY names, or libwgpu_native where the system finds
 * libraries, or in the folder of `scripts/setup gpu`. `report`, unless it is NULL, lists these
 * places and gets the version. */
struct gpu_report;
quip_status qp_wgpu_load(struct wgpu_functions *f, struct gpu_report *report, quip_error *error);

/* ---- native_dawn.c: what Dawn does in another way ---- */

/* An instance, and the toggles for an adapter's options and a device. */
void *qp_dawn_instance(const struct wgpu_functions *f);
struct wgpu_chain *qp_dawn_toggles(void);
/* Call the callbacks of what is done; with `wait`, of all that was submitted. */
void qp_dawn_poll(const struct wgpu_functions *f, void *instance, void *queue, bool wait);
/* Can subgroups multiply matrices of binary16 numbers? */
bool qp_dawn_has_matrices(const struct wgpu_functions *f, void *adapter);

/* ---- device_native.c ---- */

#define WGPU_APIS (WGPU_API_VULKAN | WGPU_API_METAL | WGPU_API_D3D12)

/* An instance of the library; NULL: it cannot be made. */
void *qp_wgpu_instance(const struct wgpu_functions *f);
/* The adapter that a model runs on; NULL: there is none. */
void *qp_wgpu_adapter(const struct wgpu_functions *f, void *instance);
/* What it is; `limits`, unless it is NULL, gets its limits. */
struct gpu_info qp_wgpu_describe(const struct wgpu_functions *f, void *adapter,
                                 struct wgpu_limits *limits);

#endif
