/* device.c: the device that the sessions of a model share.
 * In:  a model, and the capacity that a session needs.
 * Out: its device, opened once; turns on it for one thread at a time.
 *
 * The device is opened with the first session and closed with the model. Threads do not survive a
 * fork: in a forked process the first session opens a new device, and the parent's stays untouched.
 */
#include "engine/engine.h"

#include <assert.h>
#include <stdlib.h>

/* Batches have this many rows at least, so that sessions with a small context fit in one. */
#define MIN_ROWS 32

/* A step cannot be cancelled, and its text comes when it is done. */
#define AHEAD_NS 32000000

struct device_options qp_device_options(const quip_model *model)
{
    return (struct device_options){ .n_threads = qp_options_n_threads(model),
                                    .is_background = model->options.background };
}

/* ---- open and close ---- */

static void close_device(struct device *d)
{
    if (!d || d->process != qp_process_id())
        return; // its threads belong to the process that was forked
    qp_turns_close(d->turns);
    free(d->rows);
    d->backend->close(d);
}

static quip_status test_device(struct device *d, const quip_model *m, quip_error *error)
{
#if defined(__ANDROID__) && !defined(QUIP_WEBGPU) // a small library, with the CPU alone
    (void)d, (void)m, (void)error;
    return QUIP_OK;
#else
    return qp_backend_of(m)->describe && !m->no_self_test && !m->embedding.pooling
               ? qp_device_self_test(d, m, error)
               : QUIP_OK;
#endif
}

static quip_status open_device(struct device **device, const quip_model *m, quip_error *error)
{
    const struct device_options options = qp_device_options(m);
    const struct backend *b = qp_backend_of(m);
    quip_status status = b->open(device, m, &options, error);
    if (status)
        return status;
    status = test_device(*device, m, error);
    if (status) {
        b->close(*device);
        return status;
    }
    (*device)->process = qp_process_id();
    (*device)->turns = qp_turns_open();
    (*device)->ahead_ns = AHEAD_NS;
    if ((*device)->turns)
        return QUIP_OK;
    (*device)->backend->close(*device);
    return qp_fail_memory(error, "a device", sizeof **device);
}

/* Two threads may open the first session at once: the device that comes second is closed again. */
static quip_status get_device(struct device **device, quip_model *m, quip_error *error)
{
    struct device *seen = atomic_load(&m->device), *opened;
    *device = seen;
    if (seen && seen->process == qp_process_id())
        return QUIP_OK;
    const quip_status status = open_device(&opened, m, error);
    if (status)
        return status;
    m->close_device = close_device;
    if (atomic_compare_exchange_strong(&m->device, &seen, opened)) {
        *device = opened;
        return QUIP_OK;
    }
    close_device(opened);
    *device = seen;
    return QUIP_OK;
}

void qp_device_drop(quip_model *m)
{
    close_device(atomic_exchange(&m->device, NULL));
}

/* Grow device->rows with the capacity. In a turn. */
static quip_status reserve(struct device *d, const struct capacity *capacity, quip_error *error)
{
    struct row *rows = NULL;
    if (capacity->n_rows > d->capacity.n_rows &&
        !(rows = calloc(2 * (size_t)capacity->n_rows, sizeof *rows)))
        return qp_fail_memory(error, "a batch", 2 * (size_t)capacity->n_rows * sizeof *rows);
    const quip_status status = d->backend->reserve(d, capacity, error);
    if (status) {
        free(rows);
        return status;
    }
    if (rows) {
        free(d->rows);
        d->rows = rows;
    }
    return QUIP_OK;
}

struct capacity qp_device_capacity(int n_context, int max_rank)
{
    const int n_rows = qp_min(n_context, PREFILL_CHUNK);
    return (struct capacity){ .n_rows = n_rows > MIN_ROWS ? n_rows : MIN_ROWS,
                              .n_context = n_context,
                              .max_rank = max_rank };
}

quip_status qp_device_open(struct device **device, quip_model *m, const struct capacity *capacity,
                           quip_error *error)
{
    quip_status status = get_device(device, m, error);
    if (status)
        return status;
    struct device *d = *device;
    qp_device_enter(d, TURN_SHORT);
    const struct capacity has = d->capacity;
    if (capacity->n_rows > has.n_rows || capacity->n_context > has.n_context ||
        capacity->max_rank > has.max_rank || capacity->n_texts > has.n_texts)
        status = reserve(d, capacity, error);
    qp_device_leave(d);
    return status;
}

/* ---- turns ---- */

void qp_device_enter(struct device *d, enum turn_kind kind)
{
    qp_turns_enter(d->turns, kind, true, NULL);
}

void qp_device_leave(struct device *d)
{
    qp_turns_leave(d->turns);
}

quip_status qp_device_fail(struct device *d, quip_status status, quip_error *error)
{
    if (status && status != QUIP_E_CANCELLED && status != QP_NOT_YET && error)
        *error = d->error;
    return status;
}
