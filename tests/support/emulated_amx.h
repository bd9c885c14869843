/* emulated_amx.h: the kernels of AMX with tile registers in memory, to test their bits. */
#ifndef EMULATED_AMX_H
#define EMULATED_AMX_H

#include "cpu/kernels.h"

/* The AMX kernels of the table; nothing on other processors than x86-64. */
void emulated_amx_kernels(struct kernels *k);

#endif
