/* webgpu.h: the GPU backend, for engine/backends.c. It is built with QUIP_WEBGPU. */
#ifndef QP_WEBGPU_H
#define QP_WEBGPU_H

#include "engine/backend.h"

extern const struct backend qp_webgpu_backend;

#endif
