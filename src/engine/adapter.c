/* adapter.c: opened adapters.
 * In:  the files of an adapter and the model that it is for.
 * Out: the adapter as the backend packs it, shared by any number of sessions. The files are closed
 *      again. */
#include "engine/engine.h"

#include <assert.h>
#include <stdlib.h>

static quip_status pack_for_device(quip_adapter *a, quip_model *model, struct adapter *files,
                                   quip_error *error)
{
    struct device *d;
    const struct capacity none = { 0 };
    quip_status status = qp_device_open(&d, model, &none, error);
    if (status)
        return status;
    qp_device_enter(d, TURN_SHORT);
    status = d->backend->adapter_open(&a->packed, d, files, error);
    qp_device_leave(d);
    a->backend = d->backend;
    a->max_rank = files->max_rank;
    return status;
}

/* Pack the adapter and close its files. */
static quip_status pack(quip_adapter **adapter, quip_model *model, struct adapter *files,
                        quip_error *error)
{
    quip_adapter *a = calloc(1, sizeof *a);
    assert(files->max_rank > 0);
    const quip_status status = a ? pack_for_device(a, model, files, error)
                                 : qp_fail_memory(error, "an adapter", sizeof *a);
    qp_adapter_close(files);
    if (status) {
        free(a);
        return status;
    }
    a->n_references = 1;
    a->model = model;
    qp_model_retain(model);
    *adapter = a;
    return QUIP_OK;
}

quip_status qp_adapter_load(quip_adapter **adapter, quip_model *model, const char *path,
                            quip_error *error)
{
    struct adapter files;
    *adapter = NULL;
    const quip_status status = qp_adapter_open(&files, model, path, error);
    return status ? status : pack(adapter, model, &files, error);
}

quip_status qp_adapter_load_file(quip_adapter **adapter, quip_model *model, struct file *file,
                                 quip_error *error)
{
    struct adapter files;
    *adapter = NULL;
    const quip_status status = qp_adapter_open_file(&files, model, file, error);
    return status ? status : pack(adapter, model, &files, error);
}

void qp_adapter_retain(quip_adapter *adapter)
{
    if (adapter)
        atomic_fetch_add(&adapter->n_references, 1);
}

void qp_adapter_release(quip_adapter *adapter)
{
    if (!adapter || atomic_fetch_sub(&adapter->n_references, 1) != 1)
        return;
    adapter->backend->adapter_close(adapter->packed);
    qp_model_release(adapter->model);
    free(adapter);
}
