/* dtype.h: the number formats of tensors in files (dtype.c). */
#ifndef QP_DTYPE_H
#define QP_DTYPE_H

#include "base/base.h"

/* Number formats. Q*, IQ*, TQ* and *FP4 are the block formats of GGUF. I4: two values in a byte,
 * low nibble first, each stored plus 8. I4_BLOCK is the type of a matrix (model/matrix.h), not of a
 * tensor: its codes are an I4 tensor. */
enum dtype {
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I8,
    DTYPE_I4,
    DTYPE_I4_BLOCK,
    DTYPE_I32,
    DTYPE_F64,
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
    DTYPE_IQ4_NL,
    DTYPE_IQ4_XS,
    DTYPE_MXFP4,
    DTYPE_NVFP4,
    DTYPE_TQ1_0,
    DTYPE_TQ2_0,
    DTYPE_Q1_0,
    DTYPE_OTHER, // any format that this library does not read
    DTYPE_COUNT
};
const char *qp_dtype_name(enum dtype dtype);
/* Bytes of n elements. False if n is not a multiple of the type's block or too large, or if the
 * type has no known size. */
bool qp_dtype_bytes(enum dtype dtype, uint64_t n, uint64_t *n_bytes);

/* An IEEE 754 binary16 number, stored little-endian, as a float. Exact for every value. */
float qp_half_value(const uint8_t *p);
/* The binary16 number nearest to x; ties go to even. Infinite from 65520 on. */
uint16_t qp_half_bits(float x);

#endif
