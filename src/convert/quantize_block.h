/* quantize_block.h: float rows -> block-wise int4 (quantize_block.c). */
#ifndef QP_QUANTIZE_BLOCK_H
#define QP_QUANTIZE_BLOCK_H

#include "base/base.h"

/* Block-wise int4 (model/matrix.h): cols / 2 bytes of codes and qp_multiplier_bytes(cols) of
 * multipliers for each row. `importance` [cols] are weights of the squared errors; NULL: all are
 * equal. False if a weight is not finite. */
bool qp_quantize_i4_block(const float *w, const float *importance, int64_t rows, int64_t cols,
                          uint8_t *codes, uint8_t *multipliers, float *scales);

#endif
