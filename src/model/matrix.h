/* matrix.h: a weight matrix where the file holds it, and the activation functions: the two things
 * that the model and the kernels both know. */
#ifndef QP_MATRIX_H
#define QP_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Row-major [n_out, n_in]; row r starts at data + r * row_bytes. */
struct matrix {
    int dtype; // enum dtype (format.h): DTYPE_I8, DTYPE_I4 or DTYPE_F32
    int n_out, n_in;
    size_t row_bytes;
    const void *data;
    const float *scales; // [n_out] for I8 and I4; NULL for F32
    const float *bias;   // [n_out] or NULL
    const float *zeros;  // [n_out] or NULL: w = (q - zero) * scale, in asymmetric files
    const char *name;    // of its tensor; NULL: none
};

static inline const void *qp_matrix_row(const struct matrix *w, int r)
{
    return (const char *)w->data + (size_t)r * w->row_bytes;
}

/* quantize.c: symmetric, one scale per row of w [rows, cols]. False when a value is not a finite
 * number. int4: cols is even; two to a byte, low nibble first, stored plus 8. */
bool qp_quantize_i8(const float *w, int64_t rows, int64_t cols, int8_t *q, float *scales);
bool qp_quantize_i4(const float *w, int64_t rows, int64_t cols, uint8_t *q, float *scales);
/* The original's other schemes, with 8 or 4 bits: w = (q - zero) * scale, the zero not rounded; and
 * w = q * scale with the scale of the root mean square. */
bool qp_quantize_asymmetric(const float *w, int64_t rows, int64_t cols, int bits, void *q,
                            float *scales, float *zeros);
bool qp_quantize_mse(const float *w, int64_t rows, int64_t cols, int bits, void *q, float *scales);

enum activation {
    ACT_GELU_TANH = 0,
    ACT_GELU_ERF = 1,
    ACT_SILU = 2,
    ACT_RELU = 3
};

#endif
