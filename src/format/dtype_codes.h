/* dtype_codes.h: number formats whose codes are not integers (dtype_codes.c).
 * Each function expands n_blocks blocks at b to x. */
#ifndef QP_DTYPE_CODES_H
#define QP_DTYPE_CODES_H

#include <stddef.h>
#include <stdint.h>

void qp_expand_iq4_nl(float *x, const uint8_t *b, size_t n_blocks);
void qp_expand_iq4_xs(float *x, const uint8_t *b, size_t n_blocks);
void qp_expand_mxfp4(float *x, const uint8_t *b, size_t n_blocks);
void qp_expand_nvfp4(float *x, const uint8_t *b, size_t n_blocks);
void qp_expand_tq1_0(float *x, const uint8_t *b, size_t n_blocks);
void qp_expand_tq2_0(float *x, const uint8_t *b, size_t n_blocks);
void qp_expand_q1_0(float *x, const uint8_t *b, size_t n_blocks);

#endif
