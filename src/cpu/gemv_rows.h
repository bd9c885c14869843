/* gemv_rows.h: products of a few tokens and rows of weights, read directly from the mapped file.
 * In:  the matrix and the activations of the tokens.
 * Out: y, with the numbers of gemv and gemm_few (kernels.h).
 *
 * The rows are read one after another, like plain memory, and prefetched (docs/notes/decode.md). An
 * instruction set multiplies two blocks of a row at a time and leaves two partial sums of each.
 * They wait in cache until those of eight rows can be added up and scaled together. */
#ifndef QP_GEMV_ROWS_H
#define QP_GEMV_ROWS_H

#include "cpu/kernels.h"
#include "format/dtype.h"

#include <assert.h>
#include <string.h>

#define INLINE_ROWS static inline __attribute__((always_inline))

enum {
    GEMV_ROWS = 8,
    GEMV_BLOCKS = 256,       // partial sums that wait, all tokens together: 16384 weights of a row
    GEMV_AHEAD = 8192,       // bytes to prefetch ahead; 4096 is slower (docs/notes/decode.md)
    SORTED_BYTES = 64 * 1024 // activations to sort once; more are sorted again for every 8 rows
};

/* A row's products with pairs of blocks of activations: two partial sums of the first block, two of
 * the second. The 4 extra pairs keep the rows of an array of these from sharing sets in L1. */
typedef int32_t row_parts[GEMV_BLOCKS / 2 + 4][4];

/* What an instruction set provides for one type of weights. */
struct gemv_kernel {
    int block_bytes;   // of a block of weights
    int q_block_bytes; // of a block of activations, sorted
    bool is_plus_8;    // the products are those of the weights plus 8
    /* Store a block of q in the order that `dot` reads; NULL if that is its own order. */
    void (*sort)(int8_t *to, const int8_t *q);
    /* parts[4 t .. 4 t + 3] = two blocks of weights, or one, times those at q + t * q_stride, for n
     * tokens. */
    void (*dot)(int32_t *parts, const uint8_t *w, const uint8_t *multipliers, const int8_t *q,
                size_t q_stride, int n, bool is_pair);
};

/* What an instruction set provides in all; a constant where gemv_rows is inlined. */
struct gemv_level {
    struct gemv_kernel i8, i4, i4_block;
    /* sums[i] += scales[b] * (float)(the two partial sums of block b in
     * parts[i][first + b / 2 * step] + offsets[b] / 16), for n_blocks blocks; offsets may be NULL.
     */
    void (*add)(float sums[GEMV_ROWS], const row_parts *parts, int first, int step,
                const float *scales, const int32_t *offsets, int n_blocks);
    /* y[i] = sums[i] * w->scales[r + i] (+ bias[r + i]) for the first n rows. */
    void (*store)(float *y, const float sums[GEMV_ROWS], const struct matrix *w, int r, int n);
};

/* Cursor into one row: where the next pair of blocks is, and where its partial sums go. */
struct gemv_cursor {
    int32_t *parts;
    const uint8_t *w, *multipliers;
    const int8_t *q;
};

/* A stretch of columns of a few rows: rows [row, row + GEMV_ROWS), the last one `end` - 1; blocks
 * [block, block + n_blocks). */
struct gemv_stretch {
    int row, end;
    int block, n_blocks;
};

/* Activations of n tokens from some block on, in the order that `dot` reads. */
struct gemv_acts {
    const int8_t *q;
    size_t stride;
    int n;
    bool is_to_l2; // what is prefetched meanwhile
};

/* Prefetch to all caches, or to all but the first. */
INLINE_ROWS void fetch_line(const uint8_t *p, bool is_to_l2)
{
    if (is_to_l2)
        __builtin_prefetch(p, 0, 2);
    else
        __builtin_prefetch(p);
}

/* Multiply n pairs of blocks; prefetch what is `ahead` bytes further on. */
INLINE_ROWS void dot_pairs(struct gemv_cursor *at, const struct gemv_kernel *k,
                           const struct gemv_acts *x, int n, ptrdiff_t ahead)
{
    for (int i = 0; i < n; i++) {
        fetch_line(at->w + ahead, x->is_to_l2);
        if (k->block_bytes == ACT_BLOCK)
            fetch_line(at->w + ahead + 64, x->is_to_l2);
        k->dot(at->parts, at->w, at->multipliers, at->q, x->stride, x->n, true);
        at->parts += 4 * x->n;
        at->w += 2 * k->block_bytes;
        at->multipliers += 4;
        at->q += 2 * k->q_block_bytes;
    }
}

/* Multiply the last bytes of a row, fewer than two blocks have. */
INLINE_ROWS void dot_rest(const struct gemv_cursor *at, const struct gemv_kernel *k,
                          const struct gemv_acts *x, int n_bytes)
{
    uint8_t copy[2 * ACT_BLOCK] = { 0 };
    const uint8_t *w = n_bytes == k->block_bytes ? at->w : memcpy(copy, at->w, (size_t)n_bytes);
    if (n_bytes > k->block_bytes)
        k->dot(at->parts, w, at->multipliers, at->q, x->stride, x->n, true);
    else
        k->dot(at->parts, w, at->multipliers, at->q, x->stride, x->n, false);
}

/* Multiply a stretch. Past the last row the last one is multiplied again; its sums are not stored.
 */
INLINE_ROWS void dot_rows(row_parts parts[GEMV_ROWS], const struct gemv_kernel *k,
                          const struct matrix *w, const struct gemv_stretch *s,
                          const struct gemv_acts *x)
{
    const int row_bytes = (int)w->row_bytes, begin = s->block * k->block_bytes;
    const int n_bytes = qp_min(s->n_blocks * k->block_bytes, row_bytes - begin);
    const int pair_bytes = 2 * k->block_bytes, n_pairs = n_bytes / pair_bytes;
    /* Unless the stretch is the whole row, what follows its end is not what is read next. */
    const int n_far = n_bytes == row_bytes ? 0 : GEMV_AHEAD / pair_bytes;
    const int n_near = n_pairs > n_far ? n_pairs - n_far : 0;
    for (int i = 0; i < GEMV_ROWS; i++) {
        const int row = s->row + i < s->end ? s->row + i : s->end - 1;
        const uint8_t *data = (const uint8_t *)qp_matrix_row(w, row) + begin;
        struct gemv_cursor at = {
            .parts = parts[i][0],
            .w = data,
            .multipliers = data, // most types do not read them
            .q = x->q,
        };
        if (w->multipliers)
            at.multipliers = qp_matrix_multipliers(w, row) + 2 * s->block;
        int next = row_bytes;   // from here to the same stretch of the next row
        if (i == GEMV_ROWS - 1) // to the next stretch of the first row, or the row after the last
            next = begin + n_bytes < row_bytes ? n_bytes - i * row_bytes : row_bytes - begin;
        dot_pairs(&at, k, x, n_near, GEMV_AHEAD);
        dot_pairs(&at, k, x, n_pairs - n_near, GEMV_AHEAD + next - n_bytes);
        if (n_bytes % pair_bytes) {
            fetch_line(at.w + GEMV_AHEAD + next - n_bytes, x->is_to_l2);
            dot_rest(&at, k, x, n_bytes % pair_bytes);
        }
    }
}

/* Blocks [b, b + n) of n_tokens tokens, sorted, token after token. */
INLINE_ROWS void sort_tokens(int8_t *to, const struct gemv_kernel *k, const struct act_rows *x,
                             int b, int n, int n_tokens)
{
    for (int t = 0; t < n_tokens; t++)
        for (int i = b; i < b + n; i++, to += k->q_block_bytes)
            k->sort(to, x->q + (size_t)t * x->q_stride + (size_t)i * ACT_BLOCK);
}

INLINE_ROWS void gemv_some(const struct out_view *out, const struct matrix *w,
                           const struct act_rows *x, int n_tokens, int begin, int end,
                           const struct gemv_level *level, const struct gemv_kernel *k,
                           bool is_to_l2)
{
    _Alignas(64) row_parts parts[GEMV_ROWS];
    _Alignas(64) int8_t sorted[SORTED_BYTES];
    const int n_blocks = (w->n_in + ACT_BLOCK - 1) / ACT_BLOCK;
    const int stretch = GEMV_BLOCKS / n_tokens / 2 * 2;
    const bool is_sorted_once = n_tokens * n_blocks <= SORTED_BYTES / k->q_block_bytes;
    if (k->sort && is_sorted_once)
        sort_tokens(sorted, k, x, 0, n_blocks, n_tokens);
    for (int r = begin; r < end; r += GEMV_ROWS) {
        _Alignas(32) float sums[FEW_TOKENS][GEMV_ROWS];
        memset(sums, 0, (size_t)n_tokens * sizeof *sums);
        for (int b = 0; b < n_blocks; b += stretch) {
            const int n = n_blocks - b < stretch ? n_blocks - b : stretch;
            struct gemv_acts acts = { (k->sort ? sorted : x->q) + (ptrdiff_t)b * k->q_block_bytes,
                                      k->sort ? (size_t)n_blocks * (size_t)k->q_block_bytes
                                              : x->q_stride,
                                      n_tokens, is_to_l2 };
            if (k->sort && !is_sorted_once) {
                sort_tokens(sorted, k, x, b, n, n_tokens);
                acts.q = sorted;
                acts.stride = (size_t)n * (size_t)k->q_block_bytes;
            }
            dot_rows(parts, k, w, &(struct gemv_stretch){ r, end, b, n }, &acts);
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

/* One token has code of its own, because the loops over tokens cost time. */
INLINE_ROWS void gemv_kernel_rows(const struct out_view *out, const struct matrix *w,
                                  const struct act_rows *x, int begin, int end,
                                  const struct gemv_level *level, const struct gemv_kernel *k,
                                  bool is_to_l2)
{
    if (x->n == 1)
        gemv_some(out, w, x, 1, begin, end, level, k, is_to_l2);
    else
        gemv_some(out, w, x, x->n, begin, end, level, k, is_to_l2);
}

/* out->y[t * out->stride + r] for rows [begin, end) and 1 to FEW_TOKENS tokens. With is_to_l2 the
 * weights are prefetched to L2 and not to L1, for a processor whose L1 the activations need. */
INLINE_ROWS void gemv_rows(const struct out_view *out, const struct matrix *w,
                           const struct act_rows *x, int begin, int end,
                           const struct gemv_level *level, bool is_to_l2)
{
    assert(w->dtype != DTYPE_F32 && w->scales && qp_has_rows(w, begin, end));
    assert(qp_is_act_rows(x, w->n_in) && x->n <= FEW_TOKENS);
    assert(w->dtype != DTYPE_I4_BLOCK || w->multipliers);
    if (w->dtype == DTYPE_I8)
        gemv_kernel_rows(out, w, x, begin, end, level, &level->i8, is_to_l2);
    else if (w->dtype == DTYPE_I4)
        gemv_kernel_rows(out, w, x, begin, end, level, &level->i4, is_to_l2);
    else
        gemv_kernel_rows(out, w, x, begin, end, level, &level->i4_block, is_to_l2);
}

#endif
