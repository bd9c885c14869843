/* rounding.h: int8 weights whose rounding errors cancel for known inputs (rounding.c). */
#ifndef QP_ROUNDING_H
#define QP_ROUNDING_H

#include <stdbool.h>
#include <stdint.h>

/* On entry the lower triangle of h [n, n] has the sums of x[i] * x[j] over the inputs x of a
 * matrix. It becomes the factor for qp_quantize_i8_for: h[k, j], j < k, is the part of weight j's
 * error that weight k makes up for. The rest of h keeps no meaning. False if a sum is not a finite
 * number. */
bool qp_rounding_factor(float *h, int n);
/* w [rows, cols] -> integers with one scale per row, as qp_quantize_i8 does it, but each weight
 * makes up for the errors of those before it. `factor` is [cols, cols]; `errors` is scratch memory
 * of ROUNDING_ROWS * cols floats. False if a value is not a finite number. */
#define ROUNDING_ROWS 16
bool qp_quantize_i8_for(const float *factor, const float *w, int64_t rows, int64_t cols, int8_t *q,
                        float *scales, float *errors);

#endif
