/* linear_avxvnni.c: tiles for vpdpbusd on 256-bit registers (Alder Lake on, Zen 5): prefill only,
 * since AVX2 already decodes at the speed of memory. In, out, order of rounding: linear_scalar.c,
 * to the bit. The weights are made unsigned and the accumulator starts at act_row.offsets, as in
 * linear_avx512vnni.c.
 *
 * Tile: u8x16k4: four groups of 16 rows, each [n_in rounded up to ACT_BLOCK, / 4][16 rows][4 k] of
 * w + 128, int4 as well. */
#include "cpu/kernels.h"
#include "format/format.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,avxvnni")
#endif

#include "cpu/linear_avx2.h"

static size_t tile_bytes_avxvnni(int n_in)
{
    return TILE_ROWS * qp_round_up((size_t)n_in, ACT_BLOCK);
}

/* 32 weights of a row as w + 128. */
static inline __m256i unsigned_i8(const uint8_t *w)
{
    return _mm256_xor_si256(load_32(w), _mm256_set1_epi8(-128));
}

static inline __m256i unsigned_i4(const uint8_t *w)
{
    __m256i pair = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)w));
    __m256i nibbles = _mm256_or_si256(pair, _mm256_slli_epi16(pair, 4));
    return _mm256_add_epi8(_mm256_and_si256(nibbles, _mm256_set1_epi8(15)), _mm256_set1_epi8(120));
}

static void pack_block_avxvnni(uint8_t *to, const struct rows8 *rows, size_t at, bool is_i8)
{
    for (int k = 0; k < ACT_BLOCK; k += 32, to += 8 * GROUP_ROWS * 4) {
        __m256i v[8];
        if (is_i8) {
            UNROLL_8
            for (int i = 0; i < 8; i++)
                v[i] = unsigned_i8(rows->at[i] + at + k);
        } else {
            UNROLL_8
            for (int i = 0; i < 8; i++)
                v[i] = unsigned_i4(rows->at[i] + at + k / 2);
        }
        store_dwords(to, v);
    }
}

static void pack_avxvnni(void *tile, const struct matrix *w, int row, int n_rows)
{
    pack_groups(tile, w, row, n_rows, sizeof(uint8_t), pack_block_avxvnni);
}

/* ---- many tokens against a tile: 6 tokens x 16 rows ----
 * 12 integer accumulators, two vectors of weights and a token's four k; the float sums live in L1
 * and are touched once in 16 steps. */
enum {
    GEMM_TOKENS_AVXVNNI = 6,
    GEMM_K_AVXVNNI = 4096 // so much of six tokens stays in L1, and of a tile in L2
};

/* One token's activations from some block on, and where its results go. */
struct gemm_token_avxvnni {
    const int8_t *q;
    const float *scales;
    const int32_t *offsets;
    float *y;
};

/* By hand, because gcc 12 copies the accumulator of the intrinsic through memory. */
static inline __m256i dot_step_avxvnni(__m256i sum, __m256i u, __m256i s)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u), "x"(s));
    return sum;
}

// clang-format off
#define EACH_TOKEN_AVXVNNI(M) M(0) M(1) M(2) M(3) M(4) M(5)

#define START_AVXVNNI(t) \
    __m256i low##t = _mm256_set1_epi32(token[t].offsets[b]), high##t = low##t;
#define STEP_AVXVNNI(t) { \
    int32_t four; \
    memcpy(&four, token[t].q + k, sizeof(four)); \
    __m256i x = _mm256_set1_epi32(four); \
    low##t = dot_step_avxvnni(low##t, w0, x); \
    high##t = dot_step_avxvnni(high##t, w1, x); }
#define SCALE_AVXVNNI(t) \
    sums[t][0] = scale_dots(sums[t][0], token[t].scales[b], low##t); \
    sums[t][1] = scale_dots(sums[t][1], token[t].scales[b], high##t);
// clang-format on

/* sums[t] += scale_b * dot_b over n_blocks blocks, for 6 tokens and a group of rows. */
__attribute__((noinline)) static void gemm_blocks_avxvnni(__m256 sums[GEMM_TOKENS_AVXVNNI][2],
                                                          const uint8_t *group,
                                                          const struct gemm_token_avxvnni *token,
                                                          int n_blocks)
{
    for (int b = 0, k = 0; b < n_blocks; b++) {
        EACH_TOKEN_AVXVNNI(START_AVXVNNI)
        for (int end = k + ACT_BLOCK; k < end; k += 4, group += 4 * GROUP_ROWS) {
            __m256i w0 = _mm256_load_si256((const __m256i *)group);
            __m256i w1 = _mm256_load_si256((const __m256i *)(group + 32));
            EACH_TOKEN_AVXVNNI(STEP_AVXVNNI)
        }
        EACH_TOKEN_AVXVNNI(SCALE_AVXVNNI)
    }
}

/* One group of 16 rows of the tile. */
static void gemm_group_avxvnni(const struct gemm_token_avxvnni *token, const uint8_t *group,
                               const struct matrix *w, int row, int r, int n_rows, int n_blocks,
                               bool is_first, bool is_last)
{
    __m256 sums[GEMM_TOKENS_AVXVNNI][2];
    UNROLL_8
    for (int t = 0; t < GEMM_TOKENS_AVXVNNI; t++)
        take_sums(sums[t], token[t].y + r, is_first ? 0 : n_rows - r);
    gemm_blocks_avxvnni(sums, group, token, n_blocks);
    UNROLL_8
    for (int t = 0; t < GEMM_TOKENS_AVXVNNI; t++)
        give_sums(token[t].y + r, sums[t], w, row + r, n_rows - r, is_last);
}

static void gemm_avxvnni(float *y, size_t y_stride, const void *tile, const struct matrix *w,
                         int row, int n_rows, const int8_t *q, size_t q_stride, const float *scales,
                         const int32_t *offsets, int n_tokens)
{
    const size_t k_padded = qp_round_up((size_t)w->n_in, ACT_BLOCK);
    for (size_t k = 0; k < k_padded; k += GEMM_K_AVXVNNI) {
        const size_t n = k_padded - k < GEMM_K_AVXVNNI ? k_padded - k : GEMM_K_AVXVNNI;
        const uint8_t *part = (const uint8_t *)tile + k * GROUP_ROWS;
        for (int t = 0; t < n_tokens; t += GEMM_TOKENS_AVXVNNI) {
            struct gemm_token_avxvnni token[GEMM_TOKENS_AVXVNNI];
            for (int i = 0; i < GEMM_TOKENS_AVXVNNI; i++) {
                /* Past the last token the last one is repeated: the same sums, stored twice. */
                size_t at = (size_t)(t + i < n_tokens ? t + i : n_tokens - 1);
                size_t block = (at * k_padded + k) / ACT_BLOCK;
                token[i] = (struct gemm_token_avxvnni){ q + at * q_stride + k, scales + block,
                                                        offsets + block, y + at * y_stride };
            }
            for (int r = 0; r < n_rows; r += GROUP_ROWS)
                gemm_group_avxvnni(token, part + (size_t)r * k_padded, w, row, r, n_rows,
                                   (int)(n / ACT_BLOCK), k == 0, k + n == k_padded);
        }
    }
}

void qp_linear_kernels_avxvnni(struct kernels *k)
{
    k->tile_bytes = tile_bytes_avxvnni;
    k->pack = pack_avxvnni;
    k->gemm = gemm_avxvnni;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

void qp_linear_kernels_avxvnni(struct kernels *k)
{
    (void)k;
}

#endif
