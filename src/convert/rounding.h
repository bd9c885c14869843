/* rounding.h: int8 weights whose rounding errors cancel for known inputs (rounding.c). */
#ifndef QP_ROUNDING_H
#define QP_ROUNDING_H

#include <stdbool.h>
#include <stdint.h>

/* For qp_triangle_factor: the few inputs are not all that there are. 0.01 is too little: texts of
 * other kinds gain less (all-MiniLM-L6-v2). */
#define ROUNDING_DAMPING 0.1f
/* w [rows, cols] -> integers with one scale per row, as qp_quantize_i8 does it, but each weight
 * makes up for the errors of those before it: factor[k, j], j < k, is the part of weight j's error
 * that weight k makes up for (triangle.h, of the sums over the inputs). `factor` is [cols, cols];
 * `errors` is scratch memory of ROUNDING_ROWS * cols floats. False if a value is not a finite
 * number. */
#define ROUNDING_ROWS 16
bool qp_quantize_i8_for(const float *factor, const float *w, int64_t rows, int64_t cols, int8_t *q,
                        float *scales, float *errors);

#endif
