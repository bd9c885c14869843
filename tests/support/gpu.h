/* gpu.h: what the tests of the GPU backend share. */
#ifndef TEST_GPU_H
#define TEST_GPU_H

#include "quip.h"

#include <stdbool.h>

/* Is there a GPU? If not, the first call says why. */
bool has_gpu(void);
/* Model i of models.h on the GPU; NULL after a message if the backend does not run it. */
quip_model *open_on_gpu(int i);

#endif
