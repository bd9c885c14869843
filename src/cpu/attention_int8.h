/* attention_int8.h: attention over int8 keys and values. They are packed like tiles of weights, so
 * that the weights' gemm kernel multiplies them. */
#ifndef QP_ATTENTION_INT8_H
#define QP_ATTENTION_INT8_H

#include "cpu/kernels.h"

#define SPAN_BLOCKS (KV_SPAN / KV_BLOCK)

/* From one row of scores to the next: one cache line more, because rows a power of two apart would
 * share a few sets of the L1. */
#define SCORE_STRIDE (KV_SPAN + 16)

/* Keys and values of one kv head. Block b of KV_BLOCK positions, in slot b % n_blocks, is
 *   keys:   one tile, a row for each position, head_dim columns
 *   values: a tile for each 64 dimensions, a row for each dimension, KV_BLOCK columns. The
 *           tiles of n_blocks blocks follow each other, then come the next 64 dimensions. */
struct kv_tiles {
    const uint8_t *keys, *values;
    size_t key_bytes, value_bytes; // of a tile
    /* [n_blocks][KV_BLOCK]; key_scales are multiplied by the scale of the scores. */
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
    float s[ATTENTION_MAX_ROWS * SCORE_STRIDE];
    int8_t p[ATTENTION_MAX_ROWS * KV_SPAN];
    float value_scales[KV_SPAN]; // of the span's positions, in their order
    /* Of p: [n_rows, visible blocks]. */
    float scales[SPAN_BLOCKS * ATTENTION_MAX_ROWS];
    int32_t offsets[SPAN_BLOCKS * ATTENTION_MAX_ROWS];
    /* Some columns of these, for a product of fewer blocks. */
    float product_scales[SPAN_BLOCKS * ATTENTION_MAX_ROWS];
    int32_t product_offsets[SPAN_BLOCKS * ATTENTION_MAX_ROWS];
};

/* Positions of the blocks of a span that are visible to at least one row. */
struct visible {
    int begin, end;
};
struct visible qp_visible_blocks(const struct int8_attention *a, int span);

/* part = attention of the rows over one span, which is visible to at least one of them. */
void qp_attend_span(const struct kernels *k, const struct int8_attention *a, int span,
                    struct int8_attention_scratch *scratch, const struct attention_part *part);
/* The same in two steps, which threads can divide. First the scores of all rows with the keys of
 * some visible blocks: s[r * stride + (pos - blocks->begin)]. */
void qp_attend_scores(const struct kernels *k, const struct int8_attention *a,
                      const struct visible *blocks, float *s, size_t stride);
/* Then m, l and the dimensions [begin, end) of o of a span, all of whose scores are in
 * s[r * stride + pos]; `begin` is the first of a tile. */
void qp_attend_values(const struct kernels *k, const struct int8_attention *a, int span, int begin,
                      int end, const float *s, size_t stride,
                      struct int8_attention_scratch *scratch, const struct attention_part *part);
/* Add part to sum, rescaled to the larger maximum. The spans of a row are added in ascending order.
 */
void qp_attention_add(const struct kernels *k, const struct attention_part *sum,
                      const struct attention_part *part, int n_rows, int head_dim);

#endif
