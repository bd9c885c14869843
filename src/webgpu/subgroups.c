/* subgroups.c: how many threads of a GPU are a subgroup.
 * In:  a GPU. A page has asked already, because nothing waits there (engine/gpu.ts).
 * Out: the number that the variants of shaders with subgroups are made for (shaders.c). */
#include "webgpu/webgpu_impl.h"

enum {
    N_THREADS = 256 // of subgroup.wgsl
};

/* What all threads agree on, if it is a power of two from 8 to 64; otherwise 1. */
static int size_of(const uint32_t *found)
{
    const uint32_t size = found[0];
    for (int i = 1; i < N_THREADS; i++)
        if (found[i] != size)
            return 1;
    return size >= 8 && size <= 64 && (size & (size - 1)) == 0 ? (int)size : 1;
}

static quip_status ask(struct webgpu_device *d, const struct scratch *out,
                       struct gpu_buffer *readback)
{
    const uint32_t none = 0;
    const quip_status status = qp_webgpu_dispatch(d, &(struct call){ .shader = SHADER_SUBGROUP,
                                                                     .parameters = &none,
                                                                     .n_parameters = sizeof none,
                                                                     .bindings = { range_of(out) },
                                                                     .x = 1 });
    if (status)
        return status;
    qp_gpu_copy(d->gpu, readback, 0, out->buffer, 0, N_THREADS * sizeof(uint32_t));
    qp_webgpu_flush(d);
    qp_gpu_map(d->gpu, readback, N_THREADS * sizeof(uint32_t));
    const uint32_t *found = qp_gpu_mapped(d->gpu, readback, true);
    if (!found)
        return qp_webgpu_status(d);
    d->subgroup = size_of(found);
    qp_gpu_unmap(d->gpu, readback);
    return QUIP_OK;
}

quip_status qp_webgpu_find_subgroup(struct webgpu_device *d, quip_error *error)
{
    struct scratch out = { 0 };
    struct gpu_buffer *readback = NULL;
    const struct gpu_info *info = qp_gpu_info(d->gpu);
    d->subgroup = info->subgroup_size ? (int)info->subgroup_size : 1;
    if (info->subgroup_size || !info->has_subgroups)
        return QUIP_OK;
    quip_status status = qp_webgpu_alloc(d, &out, 1, N_THREADS, error);
    if (!status)
        status = qp_gpu_buffer_open(&readback, d->gpu, GPU_READBACK, N_THREADS * sizeof(uint32_t),
                                    error);
    if (!status) {
        status = ask(d, &out, readback);
        if (status && error)
            *error = d->base.error;
    }
    qp_webgpu_free(d, &out);
    qp_gpu_buffer_close(d->gpu, readback);
    return status;
}
