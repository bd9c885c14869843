/* linear_avx2.h: what the matrix products on 256-bit registers share: eight rows of weights at a
 * time, and tiles of four groups of 16 rows. A file includes it after enabling AVX2. */
#ifndef QP_LINEAR_AVX2_H
#define QP_LINEAR_AVX2_H

#include "cpu/gemm_token.h"
#include "cpu/kernels.h"
#include "format/dtype.h"

#include <assert.h>
#include <immintrin.h>
#include <string.h>

/* ---- floats ---- */

/* a * b + c, rounded twice */
static inline __m256 mul_add_avx2(__m256 a, __m256 b, __m256 c)
{
    return _mm256_add_ps(_mm256_mul_ps(a, b), c);
}

/* The first n of 8 lanes: all when n is more, none when it is less. */
static inline __m256i mask_avx2(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

#define UNROLL_8 _Pragma("GCC unroll 8") // so that small arrays become registers

/* Eight rows from some k on: in the mapped file, or a copy of their last block filled with zeros.
 */
struct rows8 {
    const uint8_t *at[8];
};

struct tails8 {
    uint8_t bytes[8][ACT_BLOCK];
};

/* Rows [r, r + 8). Past the last row this is the last one again; its result is not stored. */
static inline struct rows8 rows8_at(const struct matrix *w, int r, int end)
{
    struct rows8 rows;
    for (int i = 0; i < 8; i++)
        rows.at[i] = qp_matrix_row(w, r + i < end ? r + i : end - 1);
    return rows;
}

static inline struct rows8 copy_tails(struct tails8 *tails, const struct rows8 *rows, size_t begin,
                                      size_t end)
{
    assert(begin < end && end - begin <= ACT_BLOCK);
    struct rows8 copies;
    memset(tails, 0, sizeof(*tails));
    for (int i = 0; i < 8; i++) {
        memcpy(tails->bytes[i], rows->at[i] + begin, end - begin);
        copies.at[i] = tails->bytes[i];
    }
    return copies;
}

static inline __m256i load_32(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static inline __m256 scale_dots(__m256 sum, float scale, __m256i dots)
{
    return mul_add_avx2(_mm256_set1_ps(scale), _mm256_cvtepi32_ps(dots), sum);
}

/* y[i] = sum[i] * scales[r + i] (+ bias[r + i]) for the first n of 8 rows. */
static inline void store_rows8(float *y, __m256 sum, const struct matrix *w, int r, int n)
{
    __m256i mask = mask_avx2(n);
    __m256 v = _mm256_mul_ps(sum, _mm256_maskload_ps(w->scales + r, mask));
    if (w->bias)
        v = _mm256_add_ps(v, _mm256_maskload_ps(w->bias + r, mask));
    _mm256_maskstore_ps(y, mask, v);
}

/* 32 nibbles in order, a byte each. */
static inline __m256i nibbles_of(const uint8_t *w)
{
    __m256i pair = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)w));
    pair = _mm256_or_si256(pair, _mm256_slli_epi16(pair, 4));
    return _mm256_and_si256(pair, _mm256_set1_epi8(15));
}

/* The values of a block's 16 codes, which are in the low 8 bytes. */
static inline __m128i values_of(const int8_t values[16], __m128i codes)
{
    __m128i pair = _mm_cvtepu8_epi16(codes);
    pair = _mm_and_si128(_mm_or_si128(pair, _mm_slli_epi16(pair, 4)), _mm_set1_epi8(15));
    return _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)values), pair);
}

/* The rows of block-wise int4's multipliers as a matrix. */
static inline struct matrix multiplier_matrix8(const struct matrix *w)
{
    return (struct matrix){ .row_bytes = qp_multiplier_bytes(w->n_in), .data = w->multipliers };
}

/* Load the sums of a group's 16 rows from y, where they are kept between two stretches of k: the
 * first n of them, zero for the others. y is always prefetched: the rows of two tokens are far
 * apart, often on different pages. */
static inline void load_sums(__m256 sums[2], const float *y, int n)
{
    __builtin_prefetch(y, 1);
    sums[0] = _mm256_maskload_ps(y, mask_avx2(n));
    sums[1] = _mm256_maskload_ps(y + 8, mask_avx2(n - 8));
}

/* Store the first n sums in y, scaled if this is the last stretch of k. */
static inline void store_sums(float *y, const __m256 sums[2], const struct matrix *w, int r, int n,
                              bool is_last)
{
    for (int i = 0; i < 2; i++, y += 8, r += 8, n -= 8) {
        if (is_last)
            store_rows8(y, sums[i], w, r, n);
        else
            _mm256_maskstore_ps(y, mask_avx2(n), sums[i]);
    }
}

/* ---- tiles ----
 * [4 groups][steps of k][16 rows][k of a step]. A step of a row is a dword: two int16 or four
 * bytes. */

enum {
    GROUP_ROWS = 16
};

/* 8 rows of 8 dwords: store dword j of every row in step j of a group. */
static inline void store_dwords(uint8_t *to, const __m256i v[8])
{
    __m256i t[8], u[8];
    UNROLL_8
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL_8
    for (int i = 0; i < 8; i += 4) {
        u[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    UNROLL_8
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2x128_si256(u[i], u[4 + i], 0x20);
        t[4 + i] = _mm256_permute2x128_si256(u[i], u[4 + i], 0x31);
    }
    UNROLL_8
    for (int i = 0; i < 8; i++)
        _mm256_store_si256((__m256i *)(to + i * GROUP_ROWS * 4), t[i]);
}

/* Store one block of 8 rows, from byte `at` of each row on, in a group. */
typedef void (*pack_block_function)(uint8_t *to, const struct rows8 *rows, size_t at);

/* A tile with weight_bytes for each weight. */
static inline void pack_groups(void *tile, const struct matrix *w, int row, int n_rows,
                               size_t weight_bytes, pack_block_function pack_block)
{
    const bool is_i8 = w->dtype == DTYPE_I8;
    const size_t row_bytes = is_i8 ? (size_t)w->n_in : (size_t)w->n_in / 2;
    const size_t block_bytes = is_i8 ? ACT_BLOCK : ACT_BLOCK / 2;
    const size_t group_block_bytes = GROUP_ROWS * ACT_BLOCK * weight_bytes;
    const size_t n_blocks = (row_bytes + block_bytes - 1) / block_bytes;
    for (int r = 0; r < TILE_ROWS; r += 8) {
        struct rows8 rows = rows8_at(w, row + r, row + n_rows);
        uint8_t *to = (uint8_t *)tile + (size_t)(r / GROUP_ROWS) * n_blocks * group_block_bytes +
                      r % GROUP_ROWS * 4;
        size_t at = 0;
        for (; at + block_bytes <= row_bytes; at += block_bytes, to += group_block_bytes)
            pack_block(to, &rows, at);
        if (at < row_bytes) {
            struct tails8 tails;
            rows = copy_tails(&tails, &rows, at, row_bytes);
            pack_block(to, &rows, 0);
        }
    }
}

/* The same for block-wise int4; b is the index of the block of activations. */
typedef void (*pack_i4_block_function)(uint8_t *to, const struct rows8 *rows, size_t at,
                                       const struct rows8 *multipliers, size_t b);

static inline void pack_groups_i4_block(void *tile, const struct matrix *w, int row, int n_rows,
                                        size_t weight_bytes, pack_i4_block_function pack_block)
{
    const struct matrix m = multiplier_matrix8(w);
    const size_t n_in = (size_t)w->n_in, group_block_bytes = GROUP_ROWS * ACT_BLOCK * weight_bytes;
    for (int r = 0; r < TILE_ROWS; r += 8) {
        struct rows8 rows = rows8_at(w, row + r, row + n_rows);
        const struct rows8 multipliers = rows8_at(&m, row + r, row + n_rows);
        uint8_t *to =
            (uint8_t *)tile +
            (size_t)(r / GROUP_ROWS) * qp_round_up(n_in, ACT_BLOCK) * GROUP_ROWS * weight_bytes +
            r % GROUP_ROWS * 4;
        size_t k = 0, b = 0;
        for (; k + ACT_BLOCK <= n_in; k += ACT_BLOCK, b++, to += group_block_bytes)
            pack_block(to, &rows, k / 2, &multipliers, b);
        if (k < n_in) {
            struct tails8 tails;
            rows = copy_tails(&tails, &rows, k / 2, n_in / 2);
            pack_block(to, &rows, 0, &multipliers, b);
        }
    }
}

/* ---- many tokens against a tile of bytes: 6 tokens x 16 rows ---- */

enum {
    GROUP_TOKENS = 6,
    GROUP_K = 4096 // columns of six tokens that stay in L1, and of a tile in L2
};
#define EACH_GROUP_TOKEN(M) M(0) M(1) M(2) M(3) M(4) M(5)

static inline __m256i broadcast_4_avx2(const int8_t *q)
{
    int32_t four;
    memcpy(&four, q, sizeof(four));
    return _mm256_set1_epi32(four);
}

/* sums[t] += scale_b * dot_b over n_blocks blocks, for 6 tokens and a group of rows. */
typedef void (*gemm_blocks_function)(__m256 sums[GROUP_TOKENS][2], const uint8_t *group,
                                     const struct gemm_token *token, int n_blocks);

static inline void gemm_groups(const struct out_view *out, const void *tile, const struct matrix *w,
                               const struct act_rows *x, int row, int n_rows,
                               gemm_blocks_function gemm_blocks)
{
    const size_t k_padded = qp_round_up((size_t)w->n_in, ACT_BLOCK);
    for (size_t k = 0; k < k_padded; k += GROUP_K) {
        const size_t n = k_padded - k < GROUP_K ? k_padded - k : GROUP_K;
        for (int t = 0; t < x->n; t += GROUP_TOKENS) {
            struct gemm_token token[GROUP_TOKENS];
            for (int i = 0; i < GROUP_TOKENS; i++)
                token[i] = gemm_token_at(out, x, t + i, k, k_padded);
            for (int r = 0; r < n_rows; r += GROUP_ROWS) {
                const uint8_t *group =
                    (const uint8_t *)tile + (size_t)r * k_padded + k * GROUP_ROWS;
                __m256 sums[GROUP_TOKENS][2];
                UNROLL_8
                for (int i = 0; i < GROUP_TOKENS; i++)
                    load_sums(sums[i], token[i].y + r, k == 0 && w->scales ? 0 : n_rows - r);
                gemm_blocks(sums, group, token, (int)(n / ACT_BLOCK));
                UNROLL_8
                for (int i = 0; i < GROUP_TOKENS; i++)
                    store_sums(token[i].y + r, sums[i], w, row + r, n_rows - r,
                               k + n == k_padded && w->scales);
            }
        }
    }
}

#endif
