/* linear_avxvnni.c: tiles for vpdpbusd on 256-bit registers (Alder Lake on, Zen 5). Prefill only:
 * AVX2 already decodes at the speed of memory.
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * The weights are made unsigned, and the accumulator starts at act_rows.offsets, as in
 * linear_avx512vnni.c.
 *
 * Tile, layout u8x16k4: four groups of 16 rows, each [n_in rounded up to ACT_BLOCK, / 4][16 rows][4
 * k] of w + 128, also for int4. */
#include "cpu/x86/x86.h"
#include "format/dtype.h"

#if defined(__x86_64__)

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,avxvnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,avxvnni")
#endif

#include "cpu/x86/linear_avx2.h"

static size_t tile_bytes_avxvnni(int n_in)
{
    return TILE_ROWS * qp_round_up((size_t)n_in, ACT_BLOCK);
}

/* 32 weights of eight rows at a time, as w + 128. */
static void pack_block_i8_avxvnni(uint8_t *to, const struct rows8 *rows, size_t at)
{
    for (int k = 0; k < ACT_BLOCK; k += 32, to += 8 * GROUP_ROWS * 4) {
        __m256i v[8];
        UNROLL_8
        for (int i = 0; i < 8; i++)
            v[i] = _mm256_xor_si256(load_32(rows->at[i] + at + k), _mm256_set1_epi8(-128));
        store_dwords(to, v);
    }
}

static void pack_block_i4_avxvnni(uint8_t *to, const struct rows8 *rows, size_t at)
{
    for (int k = 0; k < ACT_BLOCK; k += 32, to += 8 * GROUP_ROWS * 4) {
        __m256i v[8];
        UNROLL_8
        for (int i = 0; i < 8; i++)
            v[i] = _mm256_add_epi8(nibbles_of(rows->at[i] + at + k / 2), _mm256_set1_epi8(120));
        store_dwords(to, v);
    }
}

static void pack_block_i4_block_avxvnni(uint8_t *to, const struct rows8 *rows, size_t at,
                                        const struct rows8 *multipliers, size_t b)
{
    for (int k = 0; k < ACT_BLOCK; k += 32, to += 8 * GROUP_ROWS * 4) {
        __m256i v[8];
        UNROLL_8
        for (int i = 0; i < 8; i++) {
            __m128i codes = _mm_loadu_si128((const __m128i *)(rows->at[i] + at + k / 2));
            const uint8_t *m = multipliers->at[i] + 2 * b;
            __m256i values =
                _mm256_set_m128i(values_of(qp_i4_block_values[qp_block_multiplier(m, k + 16)],
                                           _mm_srli_si128(codes, 8)),
                                 values_of(qp_i4_block_values[qp_block_multiplier(m, k)], codes));
            v[i] = _mm256_xor_si256(values, _mm256_set1_epi8(-128));
        }
        store_dwords(to, v);
    }
}

static void pack_avxvnni(void *tile, const struct matrix *w, int row, int n_rows)
{
    assert(w->dtype != DTYPE_F32 && qp_is_tile(tile, w, row, n_rows));
    if (w->dtype == DTYPE_I4_BLOCK)
        pack_groups_i4_block(tile, w, row, n_rows, sizeof(uint8_t), pack_block_i4_block_avxvnni);
    else
        pack_groups(tile, w, row, n_rows, sizeof(uint8_t),
                    w->dtype == DTYPE_I8 ? pack_block_i8_avxvnni : pack_block_i4_avxvnni);
}

/* ---- many tokens against a tile ---- */

/* In assembly because gcc 12 copies the accumulator of the intrinsic through memory. */
static inline __m256i dot_step_avxvnni(__m256i sum, __m256i u, __m256i s)
{
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(u), "x"(s));
    return sum;
}

// clang-format off
#define START_AVXVNNI(t) \
    __m256i low##t = _mm256_set1_epi32(token[t].offsets[b]), high##t = low##t;
#define STEP_AVXVNNI(t) { \
    __m256i x = broadcast_4_avx2(token[t].q + k); \
    low##t = dot_step_avxvnni(low##t, w0, x); \
    high##t = dot_step_avxvnni(high##t, w1, x); }
#define SCALE_AVXVNNI(t) \
    sums[t][0] = scale_dots(sums[t][0], token[t].scales[b], low##t); \
    sums[t][1] = scale_dots(sums[t][1], token[t].scales[b], high##t);
// clang-format on

/* Registers: 12 integer accumulators, two vectors of weights, four k of a token. The float sums are
 * in L1 and used once in 16 steps. */
__attribute__((noinline)) static void gemm_blocks_avxvnni(__m256 sums[GROUP_TOKENS][2],
                                                          const uint8_t *group,
                                                          const struct gemm_token *token,
                                                          int n_blocks)
{
    assert(n_blocks > 0 && n_blocks <= GROUP_K / ACT_BLOCK);
    for (int b = 0, k = 0; b < n_blocks; b++) {
        EACH_GROUP_TOKEN(START_AVXVNNI)
        for (int end = k + ACT_BLOCK; k < end; k += 4, group += 4 * GROUP_ROWS) {
            __m256i w0 = load_32(group), w1 = load_32(group + 32);
            EACH_GROUP_TOKEN(STEP_AVXVNNI)
        }
        EACH_GROUP_TOKEN(SCALE_AVXVNNI)
    }
}

static void gemm_avxvnni(const struct out_view *out, const void *tile, const struct matrix *w,
                         const struct act_rows *x, int row, int n_rows)
{
    assert(qp_is_tile(tile, w, row, n_rows) && qp_is_act_rows(x, w->n_in));
    gemm_groups(out, tile, w, x, row, n_rows, gemm_blocks_avxvnni);
}

void qp_linear_kernels_avxvnni(struct kernels *k)
{
    k->tile_bytes = tile_bytes_avxvnni;
    k->tile_order = (struct tile_order){ GROUP_ROWS, 4, GROUP_ROWS, 4, 1, 128 };
    k->pack = pack_avxvnni;
    k->gemm = gemm_avxvnni;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
