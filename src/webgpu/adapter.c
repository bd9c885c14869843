/* adapter.c: adapters on the GPU: the pairs of an adapter, as matrices of floats. */
#include "webgpu/webgpu_impl.h"

#include <stdlib.h>

void qp_webgpu_adapter_close(struct device_adapter *packed)
{
    if (!packed)
        return;
    struct webgpu_device *d = packed->device;
    for (int i = 0; packed->pairs && i < d->base.config->n_layers * N_MATRICES; i++) {
        qp_webgpu_free_slab(d, &packed->pairs[i].a);
        qp_webgpu_free_slab(d, &packed->pairs[i].b);
    }
    free(packed->pairs);
    free(packed);
}

static quip_status upload_pair(struct device_adapter *to, struct adapter *adapter, int l,
                               enum layer_matrix m, quip_error *error)
{
    const struct matrix *w = &adapter->model->weights.layers[l].m[m];
    const int rank = qp_adapter_pair(adapter, l, m)->rank;
    struct lora_slabs *pair = &to->pairs[l * N_MATRICES + (int)m];
    const size_t n_a = (size_t)rank * (size_t)w->n_in, n_b = (size_t)rank * (size_t)w->n_out;
    if (rank == 0)
        return QUIP_OK;
    float *a = malloc((n_a + n_b) * sizeof *a);
    if (!a)
        return qp_fail_memory(error, "a pair of an adapter", (n_a + n_b) * sizeof *a);
    quip_status status = qp_adapter_read(adapter, l, m, a, a + n_a, error);
    if (!status)
        status = qp_webgpu_upload_floats(to->device, &pair->a, a, rank, w->n_in, error);
    if (!status)
        status = qp_webgpu_upload_floats(to->device, &pair->b, a + n_a, w->n_out, rank, error);
    free(a);
    return status;
}

quip_status qp_webgpu_adapter_open(struct device_adapter **packed, struct device *device,
                                   struct adapter *adapter, quip_error *error)
{
    const int n = device->config->n_layers * N_MATRICES;
    struct device_adapter *to = calloc(1, sizeof *to);
    *packed = NULL;
    if (to)
        to->pairs = calloc((size_t)n, sizeof *to->pairs);
    if (!to || !to->pairs) {
        free(to);
        return qp_fail_memory(error, "an adapter", (size_t)n * sizeof *to->pairs);
    }
    to->device = webgpu_of(device);
    quip_status status = QUIP_OK;
    for (int i = 0; i < n && !status; i++)
        status =
            upload_pair(to, adapter, i / N_MATRICES, (enum layer_matrix)(i % N_MATRICES), error);
    qp_gpu_submit(to->device->gpu);
    if (status)
        qp_webgpu_adapter_close(to);
    else
        *packed = to;
    return status;
}
