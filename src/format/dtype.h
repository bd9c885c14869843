/* dtype.h: the number formats of tensors in files (dtype.c). */
#ifndef QP_DTYPE_H
#define QP_DTYPE_H

#include "base/base.h"

/* Number formats. Block formats are those of GGUF. I4: two to a byte, low nibble first, stored
 * plus 8. I4_BLOCK is not a tensor's type but a matrix's (model/matrix.h): its codes are an I4
 * tensor. */
enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I8,
    DTYPE_I4,
    DTYPE_I4_BLOCK,
    DTYPE_I32,
    DTYPE_Q4_0,
    DTYPE_Q4_1,
    DTYPE_Q5_0,
    DTYPE_Q5_1,
    DTYPE_Q8_0,
    DTYPE_Q2_K,
    DTYPE_Q3_K,
    DTYPE_Q4_K,
    DTYPE_Q5_K,
    DTYPE_Q6_K,
    DTYPE_OTHER, // present in the file, not readable here
    DTYPE_COUNT
};
const char *qp_dtype_name(enum dtype dtype);
/* Bytes of n elements; n must be a multiple of the type's block. False when it is not, or too
 * large. */
bool qp_dtype_bytes(enum dtype dtype, uint64_t n, uint64_t *n_bytes);

/* The two bytes of an IEEE 754 binary16 number, little endian, as a float: every value of it. */
float qp_half_value(const uint8_t *p);
/* The nearest binary16 number to x, of two equally near the even one; infinite from 65520 on. */
uint16_t qp_half_bits(float x);

#endif
