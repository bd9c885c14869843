/* attention_int8.h: attention whose keys and values are packed tiles, multiplied by the kernel of
 * the weights. */
#ifndef QP_ATTENTION_INT8_H
#define QP_ATTENTION_INT8_H

#include "cpu/kernels.h"

/* Positions whose softmax is made at once: [KV_SPAN s, KV_SPAN (s + 1)), whatever a task's rows
 * see, so that the sums do not depend on how the work is cut. */
#define KV_SPAN 512
#define SPAN_BLOCKS (KV_SPAN / KV_BLOCK)

/* Keys and values of one kv head. A block b of KV_BLOCK positions, at place b % n_blocks, is
 *   keys:   one tile, a row for each position, head_dim columns
 *   values: a tile for each 64 dimensions, a row for each dimension, KV_BLOCK columns; those of the
 *           next block of positions follow, after n_blocks of them come the next 64 dimensions. */
struct kv_tiles {
    const uint8_t *keys, *values;
    size_t key_bytes, value_bytes; // of a tile
    /* [n_blocks][KV_BLOCK]; those of keys have the scale of the scores in them. */
    const float *key_scales, *value_scales;
    int n_blocks;
};

/* Rows are queries that share one kv head. */
struct int8_attention {
    int head_dim, n_rows; // n_rows <= ATTENTION_MAX_ROWS
    float cap;
    struct kv_tiles kv;
    const int8_t *q; // [n_rows, head_dim in whole blocks], as gemm reads them
    const float *q_scales;
    const int32_t *q_offsets;
    const int *begin, *end; // [n_rows]; visible positions [begin, end), end > begin
    const float *const *bias;
};

/* Rows' softmax state: m = largest score, l = sum of p = exp(score - m), o = sum of p * value. */
struct attention_part {
    float *m, *l; // [n_rows]
    float *o;     // [n_rows, head_dim]
};

struct int8_attention_scratch {
    float s[ATTENTION_MAX_ROWS * KV_SPAN];
    int8_t p[ATTENTION_MAX_ROWS * KV_SPAN];
    float value_scales[KV_SPAN]; // of the positions in work, side by side
    /* For blocks whose values are one product, [row][blocks]; one such after the other. */
    float scales[SPAN_BLOCKS * ATTENTION_MAX_ROWS];
    int32_t offsets[SPAN_BLOCKS * ATTENTION_MAX_ROWS];
};

/* part = the rows over one span, which one of them sees. */
void qp_attend_span(const struct kernels *k, const struct int8_attention *a, int span,
                    struct int8_attention_scratch *scratch, const struct attention_part *part);
/* sum = sum and part, rescaled to the larger maximum; a row's spans are added in ascending order.
 */
void qp_attention_add(const struct kernels *k, const struct attention_part *sum,
                      const struct attention_part *part, int n_rows, int head_dim);

#endif
