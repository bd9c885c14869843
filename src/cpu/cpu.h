/* cpu.h: the CPU backend, for the list of backends in engine/device.c. */
#ifndef QP_CPU_H
#define QP_CPU_H

#include "engine/backend.h"

extern const struct backend qp_cpu_backend;

#endif
