/* f32_blocks.h: the order in which a product with float weights reads weights and tokens, for all
 * instruction sets (gemm_lanes.h). */
#ifndef QP_F32_BLOCKS_H
#define QP_F32_BLOCKS_H

#include "cpu/kernels.h"

/* The largest number of weight rows that an instruction set takes at a time, and the number for one
 * token alone. */
#define F32_MAX_ROWS 4

/* A few weight rows times tokens: y[t * y_stride + r], r in [0, n_rows), of tokens x[t * x_stride].
 */
struct f32_strip {
    const float *w[F32_MAX_ROWS]; // past n_rows the last row is repeated
    float bias[F32_MAX_ROWS];
    int n_rows, n_in;
    const float *x;
    size_t x_stride;
    int n_tokens;
    float *y;
    size_t y_stride;
};

struct f32_steps {
    void (*many)(const struct f32_strip *s);  // n_rows weight rows at most
    void (*alone)(const struct f32_strip *s); // F32_MAX_ROWS weight rows at most, one token
    int n_rows;
    int n_tokens; // that `many` takes at a time
};

/* The contract of gemm_f32. */
void qp_multiply_f32(const struct out_view *out, const struct matrix *w, const struct f32_rows *x,
                     int begin, int end, const struct f32_steps *steps);

#endif
