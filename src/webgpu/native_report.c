/* native_report.c: which GPUs wgpu-native finds.
 * In:  the library.
 * Out: its version, the places where it was looked for, and the adapters. */
#include "base/gpu_report.h"
#include "webgpu/native_abi.h"

#include <stdlib.h>
#include <string.h>

/* Numbers of enum WGPUFeatureName, and of enum WGPUNativeFeature of wgpu-native. */
static const struct {
    uint32_t number;
    const char *name;
} known_features[] = {
    { 0x09, "timestamp-query" },       { 0x0b, "shader-f16" },        { 0x12, "subgroups" },
    { 0x30021, "native subgroups" },   { 0x30026, "shader-int64" },   { 0x3002b, "pipeline cache" },
    { 0x3003b, "cooperative matrix" }, { 0x50034, "subgroup matrix" }
};

static void list_features(const struct wgpu_functions *f, void *adapter, struct gpu_adapter *to)
{
    struct wgpu_features found = { 0 };
    f->adapter_features(adapter, &found);
    for (size_t k = 0; k < QP_COUNT(known_features); k++)
        for (size_t i = 0; i < found.n && to->n_features < GPU_MAX_FEATURES; i++)
            if (found.features[i] == known_features[k].number)
                to->features[to->n_features++] = known_features[k].name;
    f->free_features(found);
}

static void list_adapters(const struct wgpu_functions *f, void *instance, struct gpu_report *r)
{
    const struct wgpu_enumerate_options options = { .apis = WGPU_APIS };
    const size_t n = f->is_dawn ? 1 : f->enumerate_adapters(instance, &options, NULL);
    void **adapters = calloc(n + 1, sizeof *adapters), *chosen = qp_wgpu_adapter(f, instance);
    struct gpu_info info = { 0 };
    bool is_seen = false;
    if (chosen)
        info = qp_wgpu_describe(f, chosen, NULL);
    if (adapters && f->is_dawn) // which does not list them
        adapters[0] = qp_wgpu_adapter(f, instance);
    else if (adapters)
        f->enumerate_adapters(instance, &options, adapters);
    for (size_t i = 0; i < n && adapters && adapters[i]; i++) {
        if (r->n_adapters < GPU_MAX_ADAPTERS) {
            struct gpu_adapter *a = &r->adapters[r->n_adapters++];
            const struct gpu_info own = qp_wgpu_describe(f, adapters[i], NULL);
            *a = (struct gpu_adapter){ .is_software = own.is_software,
                                       .max_buffer = own.max_buffer,
                                       .max_binding = own.max_binding,
                                       .max_groups = own.max_groups,
                                       .group_memory = own.group_memory };
            memcpy(a->name, own.name, sizeof a->name);
            a->is_chosen = chosen && !is_seen && strcmp(own.name, info.name) == 0;
            is_seen = is_seen || a->is_chosen;
            list_features(f, adapters[i], a);
        }
        f->release_adapter(adapters[i]);
    }
    if (chosen)
        f->release_adapter(chosen);
    free(adapters);
}

/* Without one, loading a driver costs 0.1 s and finds at best one that computes on the CPU. */
static bool has_hardware(void)
{
#if defined(__linux__) && !defined(__ANDROID__)
    static const char *const nodes[] = { "/dev/dri", "/dev/nvidiactl", "/dev/dxg", "/dev/mali0",
                                         "/dev/kgsl-3d0" };
    for (size_t i = 0; i < QP_COUNT(nodes); i++)
        if (qp_path_exists(nodes[i]))
            return true;
    return getenv("QUIP_AUTO_SOFTWARE") != NULL;
#else
    return true;
#endif
}

quip_status qp_gpu_find(struct gpu_info *info, quip_error *error)
{
    struct wgpu_functions f = { 0 };
    struct gpu_report report = { 0 };
    if (!has_hardware())
        return qp_fail(error, QUIP_E_UNSUPPORTED, "the system has no GPU");
    const quip_status status = qp_wgpu_load(&f, &report, error);
    if (status)
        return status;
    void *instance = qp_wgpu_instance(&f);
    void *adapter = instance ? qp_wgpu_adapter(&f, instance) : NULL;
    if (adapter) {
        *info = qp_wgpu_describe(&f, adapter, NULL);
        snprintf(info->library, sizeof info->library, "%s", report.library);
        f.release_adapter(adapter);
    }
    if (instance)
        f.release_instance(instance);
    return adapter ? QUIP_OK
                   : qp_fail(error, QUIP_E_UNSUPPORTED,
                             "there is no GPU, or no driver for it that wgpu-native can use");
}

void qp_gpu_report(struct gpu_report *report)
{
    struct wgpu_functions f = { 0 };
    *report = (struct gpu_report){ 0 };
    if (qp_wgpu_load(&f, report, NULL))
        return;
    void *instance = qp_wgpu_instance(&f);
    if (!instance)
        return;
    list_adapters(&f, instance, report);
    f.release_instance(instance);
}
