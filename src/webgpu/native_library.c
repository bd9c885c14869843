/* native_library.c: loads wgpu-native, or Dawn.
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
static const struct function_name {
    size_t offset;
    const char *name;
} function_names[] = {
    FUNCTION(create_instance, "wgpuCreateInstance"),
    FUNCTION(request_adapter, "wgpuInstanceRequestAdapter"),
    FUNCTION(request_device, "wgpuAdapterRequestDevice"),
    FUNCTION(adapter_limits, "wgpuAdapterGetLimits"),
    FUNCTION(adapter_info, "wgpuAdapterGetInfo"),
    FUNCTION(adapter_features, "wgpuAdapterGetFeatures"),
    FUNCTION(device_queue, "wgpuDeviceGetQueue"),
    FUNCTION(create_buffer, "wgpuDeviceCreateBuffer"),
    FUNCTION(create_module, "wgpuDeviceCreateShaderModule"),
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
}, native_names[] = { // of wgpu-native
    FUNCTION(enumerate_adapters, "wgpuInstanceEnumerateAdapters"),
    FUNCTION(device_poll, "wgpuDevicePoll"),
    FUNCTION(create_trusted_module, "wgpuDeviceCreateShaderModuleTrusted"),
    FUNCTION(timestamp_period, "wgpuQueueGetTimestampPeriod"),
    FUNCTION(version, "wgpuGetVersion"),
}, dawn_names[] = {
    FUNCTION(process_events, "wgpuInstanceProcessEvents"),
    FUNCTION(wait_any, "wgpuInstanceWaitAny"),
    FUNCTION(on_done, "wgpuQueueOnSubmittedWorkDone"),
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

/* An instance that stays open keeps the drivers loaded; Dawn's loads them for its first adapter.
 * NVIDIA's cannot be loaded again and again: from the eighth time on, the twentieth with Dawn, its
 * thread-local variables have no memory left. */
static void keep_drivers(const struct wgpu_functions *f)
{
    static atomic_flag is_kept = ATOMIC_FLAG_INIT;
    static void *kept[2];
    if (atomic_flag_test_and_set(&is_kept))
        return;
    kept[0] = qp_wgpu_instance(f);
    if (kept[0] && f->is_dawn)
        kept[1] = qp_wgpu_adapter(f, kept[0]);
    (void)kept;
}

/* Find n functions of the library; the name of one that it does not have, or NULL. */
static const char *find_functions(struct wgpu_functions *f, void *library,
                                  const struct function_name *names, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        void *symbol = dlsym(library, names[i].name);
        if (!symbol)
            return names[i].name;
        memcpy((char *)f + names[i].offset, &symbol, sizeof symbol);
    }
    return NULL;
}

/* The library stays loaded: its threads may outlive a GPU. */
quip_status qp_wgpu_load(struct wgpu_functions *f, struct gpu_report *report, quip_error *error)
{
    void *library = open_library(report);
    if (!library)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the library of the gpu backend, wgpu-native, was not found; `scripts/setup "
                       "gpu` installs it, QUIP_GPU_LIBRARY names its file");
    f->is_dawn = dlsym(library, native_names[0].name) == NULL;
    const char *missing = find_functions(f, library, function_names, QP_COUNT(function_names));
    if (!missing && f->is_dawn)
        missing = find_functions(f, library, dawn_names, QP_COUNT(dawn_names));
    else if (!missing)
        missing = find_functions(f, library, native_names, QP_COUNT(native_names));
    if (missing)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the library of the gpu backend has no function %s; it must be "
                       "wgpu-native %d, or Dawn",
                       missing, WGPU_MAJOR_VERSION);
    const uint32_t version = f->is_dawn ? 0 : f->version();
    if (report && f->is_dawn)
        snprintf(report->library, sizeof report->library, "Dawn");
    else if (report)
        snprintf(report->library, sizeof report->library, "wgpu-native %u.%u.%u.%u", version >> 24,
                 version >> 16 & 255, version >> 8 & 255, version & 255);
    if (!f->is_dawn && version >> 24 != WGPU_MAJOR_VERSION)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the library of the gpu backend is wgpu-native %u.%u, expected %d",
                       version >> 24, version >> 16 & 255, WGPU_MAJOR_VERSION);
    keep_drivers(f);
    return QUIP_OK;
}
