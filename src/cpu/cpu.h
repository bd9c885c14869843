/* cpu.h: the CPU backend, for engine/backends.c. */
#ifndef QP_CPU_H
#define QP_CPU_H

#include "engine/backend.h"

extern const struct backend qp_cpu_backend;

#endif
