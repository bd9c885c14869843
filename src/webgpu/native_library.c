/* native_library.c: loads wgpu-native.
 * In:  the environment, which says where it is.
 * Out: its functions; or a sentence that says why there are none. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE // dlopen with -std=c11
#endif
#include "base/gpu_report.h"
#include "webgpu/native_abi.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FUNCTION(field, name)                                                                      \
    {                                                                                              \
        offsetof(struct wgpu_functions, field), name                                               \
    }
static const struct {
    size_t offset;
    const char *name;
} function_names[] = {
    FUNCTION(create_instance, "wgpuCreateInstance"),
    FUNCTION(request_adapter, "wgpuInstanceRequestAdapter"),
    FUNCTION(request_device, "wgpuAdapterRequestDevice"),
    FUNCTION(adapter_limits, "wgpuAdapterGetLimits"),
    FUNCTION(adapter_info, "wgpuAdapterGetInfo"),
    FUNCTION(adapter_features, "wgpuAdapterGetFeatures"),
    FUNCTION(enumerate_adapters, "wgpuInstanceEnumerateAdapters"),
    FUNCTION(device_queue, "wgpuDeviceGetQueue"),
    FUNCTION(device_poll, "wgpuDevicePoll"),
    FUNCTION(create_buffer, "wgpuDeviceCreateBuffer"),
    FUNCTION(create_module, "wgpuDeviceCreateShaderModuleTrusted"),
    FUNCTION(create_group_layout, "wgpuDeviceCreateBindGroupLayout"),
    FUNCTION(create_pipeline_layout, "wgpuDeviceCreatePipelineLayout"),
    FUNCTION(create_pipeline, "wgpuDeviceCreateComputePipeline"),
    FUNCTION(create_group, "wgpuDeviceCreateBindGroup"),
    FUNCTION(create_encoder, "wgpuDeviceCreateCommandEncoder"),
    FUNCTION(begin_pass, "wgpuCommandEncoderBeginComputePass"),
    FUNCTION(set_pipeline, "wgpuComputePassEncoderSetPipeline"),
    FUNCTION(set_group, "wgpuComputePassEncoderSetBindGroup"),
    FUNCTION(dispatch, "wgpuComputePassEncoderDispatchWorkgroups"),
    FUNCTION(end_pass, "wgpuComputePassEncoderEnd"),
    FUNCTION(copy, "wgpuCommandEncoderCopyBufferToBuffer"),
    FUNCTION(finish, "wgpuCommandEncoderFinish"),
    FUNCTION(submit, "wgpuQueueSubmit"),
    FUNCTION(write_buffer, "wgpuQueueWriteBuffer"),
    FUNCTION(map, "wgpuBufferMapAsync"),
    FUNCTION(mapped_range, "wgpuBufferGetConstMappedRange"),
    FUNCTION(unmap, "wgpuBufferUnmap"),
    FUNCTION(has_feature, "wgpuAdapterHasFeature"),
    FUNCTION(create_queries, "wgpuDeviceCreateQuerySet"),
    FUNCTION(resolve, "wgpuCommandEncoderResolveQuerySet"),
    FUNCTION(timestamp_period, "wgpuQueueGetTimestampPeriod"),
    FUNCTION(version, "wgpuGetVersion"),
    FUNCTION(release_instance, "wgpuInstanceRelease"),
    FUNCTION(release_adapter, "wgpuAdapterRelease"),
    FUNCTION(release_device, "wgpuDeviceRelease"),
    FUNCTION(release_queue, "wgpuQueueRelease"),
    FUNCTION(release_buffer, "wgpuBufferRelease"),
    FUNCTION(release_module, "wgpuShaderModuleRelease"),
    FUNCTION(release_group_layout, "wgpuBindGroupLayoutRelease"),
    FUNCTION(release_pipeline_layout, "wgpuPipelineLayoutRelease"),
    FUNCTION(release_pipeline, "wgpuComputePipelineRelease"),
    FUNCTION(release_group, "wgpuBindGroupRelease"),
    FUNCTION(release_encoder, "wgpuCommandEncoderRelease"),
    FUNCTION(release_pass, "wgpuComputePassEncoderRelease"),
    FUNCTION(release_commands, "wgpuCommandBufferRelease"),
    FUNCTION(release_queries, "wgpuQuerySetRelease"),
    FUNCTION(free_info, "wgpuAdapterInfoFreeMembers"),
    FUNCTION(free_features, "wgpuSupportedFeaturesFreeMembers"),
};

/* Load a file, and note in the report what came of it. */
static void *try_library(const char *name, struct gpu_report *report)
{
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    const char *problem = library ? NULL : dlerror();
    if (report && report->n_attempts < GPU_MAX_ATTEMPTS) {
        struct gpu_attempt *attempt = &report->attempts[report->n_attempts++];
        snprintf(attempt->name, sizeof attempt->name, "%s", name);
        const size_t n = strlen(name); // the loader's sentence begins with the name
        if (problem && strncmp(problem, name, n) == 0 && strncmp(problem + n, ": ", 2) == 0)
            problem += n + 2;
        snprintf(attempt->problem, sizeof attempt->problem, "%s", problem ? problem : "");
    }
    return library;
}

static void *open_library(struct gpu_report *report)
{
    static const char *const names[] = { "libwgpu_native.so", "libwgpu_native.dylib" };
    const char *path = getenv("QUIP_GPU_LIBRARY"), *cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    char in_cache[1024];
    void *library = NULL;
    if (path)
        return try_library(path, report);
    for (size_t i = 0; i < QP_COUNT(names) && !library; i++) {
        library = try_library(names[i], report);
        if (library || (!cache && !home))
            continue;
        snprintf(in_cache, sizeof in_cache, "%s%s/quip/gpu/%s", cache ? cache : home,
                 cache ? "" : "/.cache", names[i]);
        library = try_library(in_cache, report);
    }
    return library;
}

/* An instance that stays open keeps the drivers loaded. NVIDIA's cannot be loaded again and again:
 * from the eighth time on its thread-local variables have no memory left. */
static void keep_drivers(const struct wgpu_functions *f)
{
    static atomic_flag is_kept = ATOMIC_FLAG_INIT;
    static void *kept;
    if (!atomic_flag_test_and_set(&is_kept))
        kept = qp_wgpu_instance(f);
    (void)kept;
}

/* The library stays loaded: its threads may outlive a GPU. */
quip_status qp_wgpu_load(struct wgpu_functions *f, struct gpu_report *report, quip_error *error)
{
    void *library = open_library(report);
    if (!library)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the library of the gpu backend, wgpu-native, was not found; `scripts/setup "
                       "gpu` installs it, QUIP_GPU_LIBRARY names its file");
    for (size_t i = 0; i < QP_COUNT(function_names); i++) {
        void *symbol = dlsym(library, function_names[i].name);
        if (!symbol)
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "the library of the gpu backend has no function %s; it must be "
                           "wgpu-native %d",
                           function_names[i].name, WGPU_MAJOR_VERSION);
        memcpy((char *)f + function_names[i].offset, &symbol, sizeof symbol);
    }
    const uint32_t version = f->version();
    if (report)
        snprintf(report->library, sizeof report->library, "wgpu-native %u.%u.%u.%u", version >> 24,
                 version >> 16 & 255, version >> 8 & 255, version & 255);
    if (version >> 24 != WGPU_MAJOR_VERSION)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the library of the gpu backend is wgpu-native %u.%u, expected %d",
                       version >> 24, version >> 16 & 255, WGPU_MAJOR_VERSION);
    keep_drivers(f);
    return QUIP_OK;
}
