/* backends.c: the backends that are built in, and which of them runs a model.
 * In:  an enum quip_backend.
 * Out: a table of functions (backend.h). No other file outside of a backend names one. */
#include "cpu/cpu.h"
#include "engine/engine.h"
#ifdef QUIP_WEBGPU
#include "webgpu/webgpu.h"
#define GPU_BACKEND &qp_webgpu_backend
#else
#define GPU_BACKEND NULL
#endif

#include <assert.h>

/* By enum quip_backend; NULL: not built. */
static const struct backend *const backends[] = {
    [QUIP_BACKEND_AUTO] = &qp_cpu_backend,
    [QUIP_BACKEND_CPU] = &qp_cpu_backend,
    [QUIP_BACKEND_GPU] = GPU_BACKEND,
};

const struct backend *qp_backend(quip_backend backend)
{
    return backends[backend];
}

quip_status qp_backend_check(int32_t backend, quip_error *error)
{
    if (backend < 0 || backend >= (int32_t)QP_COUNT(backends))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "backend is %d; must be 0 (auto), 1 (cpu) or 2 (gpu)", (int)backend);
    if (!backends[backend])
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the gpu backend is not built into this library; use cpu or auto");
    return backends[backend]->check(error);
}

const struct backend *qp_backend_of(const quip_model *model)
{
    assert(model->options.backend >= 0 && model->options.backend < (int32_t)QP_COUNT(backends));
    return model->backend ? model->backend : backends[model->options.backend];
}

quip_status qp_backend_check_model(const quip_model *model, quip_error *error)
{
    const struct backend *b = qp_backend_of(model);
    return b->check_model ? b->check_model(model, error) : QUIP_OK;
}
