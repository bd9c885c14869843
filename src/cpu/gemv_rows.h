/* gemv_rows.h: few tokens times rows of weights, straight from the file, in the order of a plain
 * read: row after row, what comes next fetched ahead (docs/performance.md).
 * In:  the matrix and the tokens' activations. Out: y, as gemv and gemm_few promise (kernels.h).
 * An instruction set gives the products of two blocks of a row, in two parts each. These wait in
 * cache until those of eight rows are added up and scaled together. */
#ifndef QP_GEMV_ROWS_H
#define QP_GEMV_ROWS_H

#include "cpu/kernels.h"
#include "format/dtype.h"

#include <string.h>

#define INLINE_ROWS static inline __attribute__((always_inline))

enum {
    GEMV_ROWS = 8,
    GEMV_BLOCKS = 256,       // whose parts wait, of all tokens: a row of 16384 for one, read whole
    GEMV_AHEAD = 8192,       // bytes that are fetched while reading; 4096: docs/performance.md
    SORTED_BYTES = 64 * 1024 // of activations, sorted once; of more, again for each eight rows
};

/* A row's products with pairs of blocks of activations: two parts of the first, two of the second.
 * (Without the rest the rows of such an array would have the same places in L1.) */
typedef int32_t row_parts[GEMV_BLOCKS / 2 + 4][4];

/* What an instruction set gives for a type of weights. */
struct gemv_kernel {
    int block_bytes;   // of a block of weights
    int q_block_bytes; // of a block of activations, sorted
    bool is_plus_8;    // the products are those of the weights plus 8
    /* Puts a block of q in the order that `dot` wants; NULL: as it lies. */
    void (*sort)(int8_t *to, const int8_t *q);
    /* parts[4 t .. 4 t + 3] = two blocks of weights, or one, times those at q + t * q_stride, for n
     * tokens. */
    void (*dot)(int32_t *parts, const uint8_t *w, const uint8_t *multipliers, const int8_t *q,
                size_t q_stride, int n, bool is_pair);
};

/* What it gives in all; a constant where gemv_rows is inlined. */
struct gemv_level {
    struct gemv_kernel i8, i4, i4_block;
    /* sums[i] += scales[b] * (float)(the two parts of block b in parts[i][first + b / 2 * step] +
     * offsets[b] / 16), for n_blocks blocks; offsets may be NULL. */
    void (*add)(float sums[GEMV_ROWS], const row_parts *parts, int first, int step,
                const float *scales, const int32_t *offsets, int n_blocks);
    /* y[i] = sums[i] * w->scales[r + i] (+ bias[r + i]) for the first n rows. */
    void (*store)(float *y, const float sums[GEMV_ROWS], const struct matrix *w, int r, int n);
};

/* On the way along a row. */
struct gemv_place {
    int32_t *parts;
    const uint8_t *w, *multipliers;
    const int8_t *q;
};

/* n pairs of blocks, fetching what lies `ahead` bytes further. */
INLINE_ROWS void dot_pairs(struct gemv_place *at, const struct gemv_kernel *k, size_t q_stride,
                           int n_tokens, int n, ptrdiff_t ahead)
{
    for (int i = 0; i < n; i++) {
        __builtin_prefetch(at->w + ahead);
        if (k->block_bytes == ACT_BLOCK)
            __builtin_prefetch(at->w + ahead + 64);
        k->dot(at->parts, at->w, at->multipliers, at->q, q_stride, n_tokens, true);
        at->parts += 4 * n_tokens;
        at->w += 2 * k->block_bytes;
        at->multipliers += 4;
        at->q += 2 * k->q_block_bytes;
    }
}

/* The last bytes of a row, fewer than two blocks have. */
INLINE_ROWS void dot_rest(const struct gemv_place *at, const struct gemv_kernel *k, size_t q_stride,
                          int n_tokens, int n_bytes)
{
    uint8_t copy[2 * ACT_BLOCK] = { 0 };
    const uint8_t *w = n_bytes == k->block_bytes ? at->w : memcpy(copy, at->w, (size_t)n_bytes);
    if (n_bytes > k->block_bytes)
        k->dot(at->parts, w, at->multipliers, at->q, q_stride, n_tokens, true);
    else
        k->dot(at->parts, w, at->multipliers, at->q, q_stride, n_tokens, false);
}

/* Blocks [b, b + n) of the rows from r on; past the last row the last is repeated. */
INLINE_ROWS void dot_rows(row_parts parts[GEMV_ROWS], const struct gemv_kernel *k,
                          const struct matrix *w, int r, int end, int b, int n, const int8_t *q,
                          size_t q_stride, int n_tokens)
{
    const int row_bytes = (int)w->row_bytes, begin = b * k->block_bytes;
    const int n_bytes =
        n * k->block_bytes < row_bytes - begin ? n * k->block_bytes : row_bytes - begin;
    const int pair_bytes = 2 * k->block_bytes, n_pairs = n_bytes / pair_bytes;
    /* Near the end of a stretch what comes next lies elsewhere, unless it is the whole row. */
    const int n_far = n_bytes == row_bytes ? 0 : GEMV_AHEAD / pair_bytes;
    const int n_near = n_pairs > n_far ? n_pairs - n_far : 0;
    for (int i = 0; i < GEMV_ROWS; i++) {
        const int row = r + i < end ? r + i : end - 1;
        const uint8_t *data = (const uint8_t *)qp_matrix_row(w, row) + begin;
        struct gemv_place at = {
            .parts = parts[i][0],
            .w = data,
            .multipliers = data, // of most types nobody reads them
            .q = q,
        };
        if (w->multipliers)
            at.multipliers = qp_matrix_multipliers(w, row) + 2 * b;
        int next = row_bytes;   // from here the same stretch of the next row
        if (i == GEMV_ROWS - 1) // the next one of the first row, or the row after the last
            next = begin + n_bytes < row_bytes ? n_bytes - i * row_bytes : row_bytes - begin;
        dot_pairs(&at, k, q_stride, n_tokens, n_near, GEMV_AHEAD);
        dot_pairs(&at, k, q_stride, n_tokens, n_pairs - n_near, GEMV_AHEAD + next - n_bytes);
        if (n_bytes % pair_bytes)
            dot_rest(&at, k, q_stride, n_tokens, n_bytes % pair_bytes);
    }
}

/* Blocks [b, b + n) of all tokens, one after the other. */
INLINE_ROWS void sort_tokens(int8_t *to, const struct gemv_kernel *k, const struct act_rows *x,
                             int b, int n, int n_tokens)
{
    for (int t = 0; t < n_tokens; t++)
        for (int i = b; i < b + n; i++, to += k->q_block_bytes)
            k->sort(to, x->q + (size_t)t * x->q_stride + (size_t)i * ACT_BLOCK);
}

INLINE_ROWS void gemv_some(const struct out_view *out, const struct matrix *w,
                           const struct act_rows *x, int n_tokens, int begin, int end,
                           const struct gemv_level *level, const struct gemv_kernel *k)
{
    const int n_blocks = (w->n_in + ACT_BLOCK - 1) / ACT_BLOCK;
    _Alignas(64) row_parts parts[GEMV_ROWS];
    _Alignas(64) int8_t sorted[SORTED_BYTES];
    const int stretch = GEMV_BLOCKS / n_tokens / 2 * 2;
    const bool is_sorted_once = n_tokens * n_blocks <= SORTED_BYTES / k->q_block_bytes;
    if (k->sort && is_sorted_once)
        sort_tokens(sorted, k, x, 0, n_blocks, n_tokens);
    for (int r = begin; r < end; r += GEMV_ROWS) {
        _Alignas(32) float sums[FEW_TOKENS][GEMV_ROWS];
        memset(sums, 0, (size_t)n_tokens * sizeof *sums);
        for (int b = 0; b < n_blocks; b += stretch) {
            const int n = n_blocks - b < stretch ? n_blocks - b : stretch;
            const int8_t *q = (k->sort ? sorted : x->q) + (ptrdiff_t)b * k->q_block_bytes;
            size_t q_stride = k->sort ? (size_t)n_blocks * (size_t)k->q_block_bytes : x->q_stride;
            if (k->sort && !is_sorted_once) {
                sort_tokens(sorted, k, x, b, n, n_tokens);
                q = sorted;
                q_stride = (size_t)n * (size_t)k->q_block_bytes;
            }
            dot_rows(parts, k, w, r, end, b, n, q, q_stride, n_tokens);
            for (int t = 0; t < n_tokens; t++) {
                const int at = t * n_blocks + b;
                level->add(sums[t], (const row_parts *)parts, t, n_tokens, x->scales + at,
                           k->is_plus_8 ? x->offsets + at : NULL, n);
            }
        }
        for (int t = 0; t < n_tokens; t++)
            level->store(out->y + (size_t)t * out->stride + r, sums[t], w, r, end - r);
    }
}

/* The loops over tokens cost something where there is one. */
INLINE_ROWS void gemv_kernel_rows(const struct out_view *out, const struct matrix *w,
                                  const struct act_rows *x, int begin, int end,
                                  const struct gemv_level *level, const struct gemv_kernel *k)
{
    if (x->n == 1)
        gemv_some(out, w, x, 1, begin, end, level, k);
    else
        gemv_some(out, w, x, x->n, begin, end, level, k);
}

INLINE_ROWS void gemv_rows(const struct out_view *out, const struct matrix *w,
                           const struct act_rows *x, int begin, int end,
                           const struct gemv_level *level)
{
    if (w->dtype == DTYPE_I8)
        gemv_kernel_rows(out, w, x, begin, end, level, &level->i8);
    else if (w->dtype == DTYPE_I4)
        gemv_kernel_rows(out, w, x, begin, end, level, &level->i4);
    else
        gemv_kernel_rows(out, w, x, begin, end, level, &level->i4_block);
}

#endif
