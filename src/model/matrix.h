/* matrix.h: what the model and the kernels both know: a weight matrix as the file holds it, how
 * floats become integers, and the activation functions. */
#ifndef QP_MATRIX_H
#define QP_MATRIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Block-wise int4: each weight is a 4-bit code, each I4_BLOCK of a row's weights share a 4-bit
 * multiplier, each row a float scale. Code times multiplier is an int8, so that a row is a row of
 * int8 as well, exactly: w = qp_i4_block_values[multiplier][code] * scale. The codes' values are
 * denser near zero, as weights are (Dettmers and Zettlemoyer 2023; IQ4_NL of llama.cpp). */
#define I4_BLOCK 16

/* [nibble of the multiplier][code]; row 1 has the values of the codes themselves. */
extern const int8_t qp_i4_block_values[16][16];

/* What rounding leaves of an int8 weight is counted in these parts of a step. A weight that makes
 * up for the errors of others may be two steps away. */
#define REST_STEPS 64

/* Row-major [n_out, n_in]; row r starts at data + r * row_bytes. */
struct matrix {
    int dtype; // enum dtype (format.h): DTYPE_I8, DTYPE_I4, DTYPE_I4_BLOCK or DTYPE_F32
    int n_out, n_in;
    size_t row_bytes;
    const void *data;
    const float *scales;        // [n_out]; NULL for F32
    const uint8_t *multipliers; // of I4_BLOCK: qp_multiplier_bytes(n_in) for each row
    const float *bias;          // [n_out] or NULL
    const float *zeros;         // [n_out] or NULL: w = (q - zero) * scale; asymmetric files
    const int8_t *rest;         // of I8: [n_out, n_in] or NULL: w = (q + rest / REST_STEPS) * scale
    const char *name;           // of its tensor, or NULL
};

static inline const void *qp_matrix_row(const struct matrix *w, int r)
{
    return (const char *)w->data + (size_t)r * w->row_bytes;
}

/* Bytes of all rows, with their scales and multipliers. */
uint64_t qp_matrix_bytes(const struct matrix *w);
/* Rows [row, row + n_rows) as a matrix of their own. */
struct matrix qp_matrix_part(const struct matrix *w, int row, int n_rows);

/* Bytes of a row's multipliers: two's complement, two in a byte, low nibble first; whole groups of
 * eight, so that a kernel can read those of 128 weights at once. */
static inline size_t qp_multiplier_bytes(int n_in)
{
    return ((size_t)n_in + 8 * I4_BLOCK - 1) / (8 * I4_BLOCK) * 4;
}

static inline const uint8_t *qp_matrix_multipliers(const struct matrix *w, int r)
{
    return w->multipliers + (size_t)r * qp_multiplier_bytes(w->n_in);
}

/* The nibble that is the multiplier of weights [i, i + I4_BLOCK) of a row; i is a multiple of
 * I4_BLOCK. */
static inline int qp_block_multiplier(const uint8_t *multipliers, int i)
{
    const int block = i / I4_BLOCK;
    return multipliers[block / 2] >> (block % 2 * 4) & 15;
}

/* ---- quantize.c: w [rows, cols] -> integers, with one scale per row ----
 * False when a value is not a finite number. Int4 needs an even number of columns; it is two in a
 * byte, low nibble first, plus 8. */

bool qp_quantize_i8(const float *w, int64_t rows, int64_t cols, int8_t *q, float *scales);
bool qp_quantize_i4(const float *w, int64_t rows, int64_t cols, uint8_t *q, float *scales);
/* MediaPipe's other schemes, with 8 or 4 bits. Asymmetric: w = (q - zero) * scale, where the zero
 * is not rounded. MSE: w = q * scale, where the scale depends on the root mean square. */
bool qp_quantize_asymmetric(const float *w, int64_t rows, int64_t cols, int bits, void *q,
                            float *scales, float *zeros);
bool qp_quantize_mse(const float *w, int64_t rows, int64_t cols, int bits, void *q, float *scales);
/* max|w| of n values, or -1 when one is not a finite number. */
float qp_row_bound(const float *w, int64_t n);

/* Multiply each block of 64 numbers of a row by the orthonormal Hadamard matrix; what is left at
 * the end by smaller ones. A product of two mixed rows is that of the rows themselves. If no number
 * of a block stands out, rounding to integers costs less (QuaRot: Ashkboos et al. 2024). */
#define MIX_BLOCK 64
void qp_mix_row(float *x, int n);

enum activation {
    ACT_GELU_TANH = 0,
    ACT_GELU_ERF = 1,
    ACT_SILU = 2,
    ACT_RELU = 3
};

#endif
