/* device.h: the device that the sessions of a model share. */
#ifndef QP_DEVICE_H
#define QP_DEVICE_H

#include "base/turns.h"
#include "engine/forward.h"

/* ---- backends.c ---- */

/* The table of an enum quip_backend; NULL: it is not built. */
const struct backend *qp_backend(quip_backend backend);

/* Check whether `backend`, an enum quip_backend, can run models here. */
quip_status qp_backend_check(int32_t backend, quip_error *error);
/* Can the backend of this model run it? */
quip_status qp_backend_check_model(const quip_model *model, quip_error *error);
/* The backend that runs a model. */
const struct backend *qp_backend_of(const quip_model *model);

/* ---- auto.c ---- */

/* Choose the backend of a model that was opened for auto: m->options.backend and
 * m->backend_reason. */
void qp_auto_choose(quip_model *m);

/* ---- self_test.c ---- */

struct self_test;

/* Tokens that it runs, at most. */
#define SELF_TEST_CONTEXT 176

/* Compare a device that no session uses now with the CPU: QUIP_E_UNSUPPORTED if it computes
 * something else. */
quip_status qp_device_self_test(struct device *d, const quip_model *m, quip_error *error);

/* The same where nothing can wait. Until it is closed, nothing else runs on the device. */
quip_status qp_self_test_open(struct self_test **test, struct device *d, const quip_model *m,
                              quip_error *error);
void qp_self_test_close(struct self_test *t);
/* Without `wait` it may return QP_NOT_YET: call again. */
quip_status qp_self_test_run(struct self_test *t, bool wait, quip_error *error);
#if defined(__wasm__)
/* Of a page: compare the device of a session that has run nothing. May return QP_NOT_YET. */
quip_status qp_session_check(quip_session *s, quip_error *error);
#endif

/* ---- device.c ---- */

/* Close the device that the model has, before a session uses it. */
void qp_device_drop(quip_model *m);

/* How the model's options open its device. */
struct device_options qp_device_options(const quip_model *model);

/* What one session of n_context tokens needs, with adapters of at most max_rank. */
struct capacity qp_device_capacity(int n_context, int max_rank);

/* The model's device, with at least this capacity. It belongs to the model. */
quip_status qp_device_open(struct device **device, quip_model *m, const struct capacity *capacity,
                           quip_error *error);

/* Wait for a turn on the device; every call of its backend that is not on one sequence alone, and
 * every batch, is made in a turn. A thread that has a turn does not ask for another. */
void qp_device_enter(struct device *d, enum turn_kind kind);
void qp_device_leave(struct device *d);

/* Copy the sentence of an operation that failed; returns `status`. */
quip_status qp_device_fail(struct device *d, quip_status status, quip_error *error);

#endif
