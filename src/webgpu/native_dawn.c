/* native_dawn.c: what Dawn does in another way than wgpu-native.
 * In:  its functions.
 * Out: what device_native.c asks for.
 *
 * Dawn has experimental features only with toggles, which an instance, an adapter and a device get
 * each. Callbacks come when events are processed. */
#include "webgpu/native_abi.h"

struct wgpu_chain *qp_dawn_toggles(void)
{
    static const char *const enabled[] = {
        "allow_unsafe_apis", // for matrices of subgroups, as the next two
        "vulkan_enable_f16_on_nvidia", "use_vulkan_memory_model",
        "disable_robustness", // the shaders check their bounds themselves
    };
    static const char *const disabled[] = { "timestamp_quantization" };
    static struct wgpu_toggles toggles = { .chain.type = WGPU_DAWN_TOGGLES,
                                           .n_enabled = QP_COUNT(enabled),
                                           .enabled = enabled,
                                           .n_disabled = QP_COUNT(disabled),
                                           .disabled = disabled };
    return &toggles.chain;
}

void *qp_dawn_instance(const struct wgpu_functions *f)
{
    const uint32_t feature = WGPU_TIMED_WAIT;
    const struct wgpu_instance_descriptor descriptor = { .next = qp_dawn_toggles(),
                                                         .n_features = 1,
                                                         .features = &feature };
    return f->create_instance(&descriptor);
}

static void on_done(uint32_t status, struct wgpu_text message, void *a, void *b)
{
    (void)status, (void)message, (void)a, (void)b;
}

void qp_dawn_poll(const struct wgpu_functions *f, void *instance, void *queue, bool wait)
{
    if (wait) {
        struct wgpu_wait done = { .future = f->on_done(
                                      queue, (struct wgpu_map_callback){ .mode = WGPU_WAIT_ONLY,
                                                                         .callback = on_done }) };
        f->wait_any(instance, 1, &done, UINT64_MAX);
    }
    f->process_events(instance);
}

/* Which sizes they have is not asked: the struct with these differs between versions of Dawn. A
 * small product is tested instead (matrices.c). */
bool qp_dawn_has_matrices(const struct wgpu_functions *f, void *adapter)
{
    return f->has_feature(adapter, WGPU_SHADER_F16) &&
           f->has_feature(adapter, WGPU_SUBGROUP_MATRIX);
}
