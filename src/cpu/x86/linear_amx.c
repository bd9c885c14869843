/* linear_amx.c: matrix products of many tokens with the matrix tiles of AMX (Sapphire Rapids on).
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * A tile register is 16 rows of 64 bytes. One instruction multiplies 16 tokens by 16 rows of
 * weights over 64 columns, which is one block of the activations, and adds to 256 int32. So each
 * block leaves the tiles at once: its sums are stored to L1, and scaled and added there as floats.
 *
 * Two sets of 16 tokens and two of 16 rows are multiplied together, so that a register that was
 * loaded is used twice. A unit is three blocks of these: first all its products, then all its
 * floats. Mixed with each other, instruction by instruction, they are slower, whatever their order
 * (docs/notes/prefill.md). What a unit uses stays in L1.
 *
 * Packed weights have the order of linear_avx512vnni.c, but are signed. Tokens that do not fill a
 * tile register go to the AVX-512 kernel, which reads the same packed weights. */
#include "cpu/x86/x86.h"

#if defined(__x86_64__) && !defined(__ANDROID__) // whose devices have no AMX

#include <assert.h>
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8"))),    \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8")
#endif

#include "cpu/x86/amx_tiles.h"
#include "cpu/x86/linear_avx512.h"

enum {
    AMX_TOKENS = 16,                  // rows of a tile register
    AMX_ROWS = 16,                    // its columns of int32
    AMX_SUMS = AMX_TOKENS * AMX_ROWS, // in a tile register
    PAIR_ROWS = 2 * AMX_ROWS,         // of weights that are multiplied together
    N_AMX_SETS = 2,                   // of 16 tokens each, likewise
    UNIT_TOKENS = N_AMX_SETS * AMX_TOKENS,
    N_PAIRS = N_AMX_SETS * PAIR_ROWS / AMX_ROWS, // of a set of tokens and 16 rows
    GROUP_BLOCKS = 3,                            // whose sums are in L1 together
};

/* Tile registers; the instructions need literals. */
#define SUMS_00 0
#define SUMS_01 1
#define SUMS_10 2
#define SUMS_11 3
#define TOKENS_0 4
#define TOKENS_1 5
#define WEIGHTS_0 6
#define WEIGHTS_1 7

/* A tile of packed weights. */
struct amx_weights {
    const uint8_t *tile;
    const float *scales, *bias; // of the tile's rows, or NULL
    int n_rows;
    size_t n_blocks, q_stride, y_stride; // of the tokens
};

/* One or two sets of 16 tokens: set i is q[i], scales[i], ... */
struct amx_tokens {
    int n_sets;
    const int8_t *q[N_AMX_SETS];
    const float *scales[N_AMX_SETS];
    float *y[N_AMX_SETS];
};

/* Blocks that are multiplied and scaled together, and their scales of the tokens. */
struct amx_group {
    size_t first;
    int n_blocks; // <= GROUP_BLOCKS
    _Alignas(64) float scales[N_AMX_SETS][GROUP_BLOCKS][AMX_TOKENS];
};

typedef int32_t amx_dots[GROUP_BLOCKS][N_PAIRS][AMX_SUMS];

/* ---- integer sums ---- */

// clang-format off
#define LOAD_TOKENS(set) _tile_loadd(TOKENS_##set, tokens->q[set] + block * ACT_BLOCK, w->q_stride);
#define LOAD_ROWS_OF(half) _tile_loadd(WEIGHTS_##half, weights + half * AMX_ROWS * ACT_BLOCK, 64);
#define STORE_PAIR(set, half, b) _tile_stored(SUMS_##set##half, dots[b][2 * set + half], 64);
/* What the register holds of the block before is stored first. */
#define MULTIPLY_PAIR(set, half)                                                                   \
    if (b > 0) {                                                                                   \
        STORE_PAIR(set, half, b - 1)                                                               \
    }                                                                                              \
    _tile_zero(SUMS_##set##half);                                                                  \
    _tile_dpbssd(SUMS_##set##half, TOKENS_##set, WEIGHTS_##half);
// clang-format on

static inline __attribute__((always_inline)) void
multiply_group(amx_dots dots, const struct amx_weights *w, const struct amx_tokens *tokens, int row,
               const struct amx_group *group, int n_sets)
{
    const int n = group->n_blocks;
    const size_t step = TILE_ROWS * ACT_BLOCK; // to the next block of the tile
    const uint8_t *weights = w->tile + group->first * step + (size_t)row * ACT_BLOCK;
    size_t block = group->first;
    assert(n > 0 && n <= GROUP_BLOCKS);
    for (int b = 0; b < n; b++, block++, weights += step) {
        LOAD_TOKENS(0)
        LOAD_ROWS_OF(0)
        LOAD_ROWS_OF(1)
        if (n_sets > 1) {
            LOAD_TOKENS(1)
        }
        MULTIPLY_PAIR(0, 0)
        MULTIPLY_PAIR(0, 1)
        if (n_sets > 1) {
            MULTIPLY_PAIR(1, 0)
            MULTIPLY_PAIR(1, 1)
        }
    }
    STORE_PAIR(0, 0, n - 1)
    STORE_PAIR(0, 1, n - 1)
    if (n_sets > 1) {
        STORE_PAIR(1, 0, n - 1)
        STORE_PAIR(1, 1, n - 1)
    }
}

/* dots[b] for the blocks of the group, 16 or 32 tokens, and 32 rows of the tile from `row` on. */
static void multiply_unit(amx_dots dots, const struct amx_weights *w,
                          const struct amx_tokens *tokens, int row, const struct amx_group *group)
{
    if (tokens->n_sets > 1)
        multiply_group(dots, w, tokens, row, group, 2);
    else
        multiply_group(dots, w, tokens, row, group, 1);
}

/* ---- floats ---- */

/* Scales of tokens 0, 4, 8 and 12 from `from` on, those of a token in 128-bit lane 0, 1, 2 and 3.
 */
static inline __m512 scales_of_tokens(const float *from, size_t stride, __mmask8 blocks)
{
    __m512 v = _mm512_castps128_ps512(_mm_maskz_loadu_ps(blocks, from));
    v = _mm512_insertf32x4(v, _mm_maskz_loadu_ps(blocks, from + 4 * stride), 1);
    v = _mm512_insertf32x4(v, _mm_maskz_loadu_ps(blocks, from + 8 * stride), 2);
    return _mm512_insertf32x4(v, _mm_maskz_loadu_ps(blocks, from + 12 * stride), 3);
}

/* The scales of n blocks of 16 tokens, from[t * stride + b], side by side for each block: a stride
 * is often a multiple of many cache lines, so that those of 16 tokens crowd a few sets of the L1.
 */
static inline void gather_scales(float to[GROUP_BLOCKS][AMX_TOKENS], const float *from,
                                 size_t stride, int n)
{
    const __mmask8 blocks = (__mmask8)((1u << n) - 1);
    const __m512 v0 = scales_of_tokens(from, stride, blocks);
    const __m512 v1 = scales_of_tokens(from + stride, stride, blocks);
    const __m512 v2 = scales_of_tokens(from + 2 * stride, stride, blocks);
    const __m512 v3 = scales_of_tokens(from + 3 * stride, stride, blocks);
    const __m512d first = _mm512_castps_pd(_mm512_unpacklo_ps(v0, v1)); // two blocks
    const __m512d second = _mm512_castps_pd(_mm512_unpacklo_ps(v2, v3));
    const __m512d third = _mm512_castps_pd(_mm512_unpackhi_ps(v0, v1)); // the third block
    const __m512d fourth = _mm512_castps_pd(_mm512_unpackhi_ps(v2, v3));
    _mm512_store_ps(to[0], _mm512_castpd_ps(_mm512_unpacklo_pd(first, second)));
    _mm512_store_ps(to[1], _mm512_castpd_ps(_mm512_unpackhi_pd(first, second)));
    _mm512_store_ps(to[2], _mm512_castpd_ps(_mm512_unpacklo_pd(third, fourth)));
}

// clang-format off
#define EACH_AMX_TOKEN(M)                                                                          \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define ZERO_AMX_SUM(t) __m512 sum##t = _mm512_setzero_ps();
#define LOAD_AMX_SUM(t) sum##t = _mm512_load_ps(sums + 16 * t);
#define KEEP_AMX_SUM(t) _mm512_store_ps(sums + 16 * t, sum##t);
#define LOAD_AMX_Y(t) sum##t = _mm512_maskz_loadu_ps(lanes, y + t * w->y_stride);
#define FETCH_AMX_Y(t) __builtin_prefetch(y + t * w->y_stride, 1);
#define TIMES_AMX_ROWS(t) sum##t = _mm512_mul_ps(sum##t, of_rows);
#define PLUS_AMX_ROWS(t) sum##t = _mm512_add_ps(sum##t, of_rows);
#define STORE_AMX_Y(t) _mm512_mask_storeu_ps(y + t * w->y_stride, lanes, sum##t);
#define SCALE_DOTS(t)                                                                              \
    sum##t = mul_add_avx512(_mm512_set1_ps(scales[t]),                                             \
                            _mm512_cvtepi32_ps(_mm512_load_si512(dots + 16 * t)), sum##t);
// clang-format on

/* Add the group's blocks to the sums of a set of tokens, whose results begin at y, and 16 rows from
 * `row` on. dots is theirs of the first block. The last group scales them by the rows. */
__attribute__((noinline)) static void scale_pair(float *sums, const int32_t *dots, float *y,
                                                 const struct amx_weights *w, int row,
                                                 const struct amx_group *group, int set)
{
    const __mmask16 lanes = lanes_below(w->n_rows - row);
    const bool is_last = group->first + (size_t)group->n_blocks == w->n_blocks;
    y += row < w->n_rows ? row : 0;
    EACH_AMX_TOKEN(ZERO_AMX_SUM)
    if (group->first > 0) {
        EACH_AMX_TOKEN(LOAD_AMX_SUM)
    } else if (!w->scales) {
        EACH_AMX_TOKEN(LOAD_AMX_Y)
    }
    if (is_last && w->scales) {
        EACH_AMX_TOKEN(FETCH_AMX_Y)
    }
    for (int b = 0; b < group->n_blocks; b++, dots += N_PAIRS * AMX_SUMS) {
        const float *scales = group->scales[set][b];
        EACH_AMX_TOKEN(SCALE_DOTS)
    }
    if (!is_last) {
        EACH_AMX_TOKEN(KEEP_AMX_SUM)
        return;
    }
    if (w->scales) {
        const __m512 of_rows = _mm512_maskz_loadu_ps(lanes, w->scales + row);
        EACH_AMX_TOKEN(TIMES_AMX_ROWS)
    }
    if (w->bias) {
        const __m512 of_rows = _mm512_maskz_loadu_ps(lanes, w->bias + row);
        EACH_AMX_TOKEN(PLUS_AMX_ROWS)
    }
    EACH_AMX_TOKEN(STORE_AMX_Y)
}

/* ---- all tokens ---- */

/* Up to 32 of n >= 16 tokens, from t on. The last set ends with the last token, so that some tokens
 * may be computed and stored twice. */
static struct amx_tokens tokens_at(const struct out_view *out, const struct act_rows *x,
                                   const struct amx_weights *w, int t, int n)
{
    struct amx_tokens tokens = { .n_sets = n - t > AMX_TOKENS ? 2 : 1 };
    for (int set = 0; set < tokens.n_sets; set++) {
        const size_t first = (size_t)qp_min(t + set * AMX_TOKENS, n - AMX_TOKENS);
        tokens.q[set] = x->q + first * x->q_stride;
        tokens.scales[set] = x->scales + first * w->n_blocks;
        tokens.y[set] = out->y + first * out->stride;
    }
    return tokens;
}

/* What stays in L1. */
struct amx_memory {
    _Alignas(64) amx_dots dots; // of a unit
    _Alignas(64) float sums[TILE_ROWS / PAIR_ROWS][N_PAIRS][AMX_SUMS];
};

/* All rows and blocks of the tile. */
static void multiply_tokens(struct amx_memory *m, const struct amx_weights *w,
                            const struct amx_tokens *tokens)
{
    struct amx_group group = { 0 };
    size_t n_groups = (w->n_blocks + GROUP_BLOCKS - 1) / GROUP_BLOCKS;
    for (; n_groups > 0; n_groups--, group.first += (size_t)group.n_blocks) {
        group.n_blocks = (int)((w->n_blocks - group.first + n_groups - 1) / n_groups);
        for (int set = 0; set < tokens->n_sets; set++)
            gather_scales(group.scales[set], tokens->scales[set] + group.first, w->n_blocks,
                          group.n_blocks);
        for (int row = 0; row < w->n_rows; row += PAIR_ROWS) {
            multiply_unit(m->dots, w, tokens, row, &group);
            for (int pair = 0; pair < 2 * tokens->n_sets; pair++)
                scale_pair(m->sums[row / PAIR_ROWS][pair], m->dots[0][pair], tokens->y[pair / 2], w,
                           row + pair % 2 * AMX_ROWS, &group, pair / 2);
        }
    }
}

/* The tokens [0, n), n >= 16. */
static void multiply_sets(const struct out_view *out, const struct amx_weights *w,
                          const struct act_rows *x, int n)
{
    struct amx_memory m;
    begin_tiles();
    for (int t = 0; t < n; t += UNIT_TOKENS) {
        const struct amx_tokens tokens = tokens_at(out, x, w, t, n);
        multiply_tokens(&m, w, &tokens);
    }
    _tile_release();
}

/* Sums that start from y cannot be computed twice, so tokens that do not fill a tile register go to
 * AVX-512. */
static void gemm_amx(const struct out_view *out, const void *tile, const struct matrix *w,
                     const struct act_rows *x, int row, int n_rows)
{
    assert(qp_is_tile(tile, w, row, n_rows) && qp_is_act_rows(x, w->n_in));
    const size_t n_blocks = qp_round_up((size_t)w->n_in, ACT_BLOCK) / ACT_BLOCK;
    const struct amx_weights weights = { .tile = tile,
                                         .scales = w->scales ? w->scales + row : NULL,
                                         .bias = w->scales && w->bias ? w->bias + row : NULL,
                                         .n_rows = n_rows,
                                         .n_blocks = n_blocks,
                                         .q_stride = x->q_stride,
                                         .y_stride = out->stride };
    const int n = x->n < AMX_TOKENS ? 0 : w->scales ? x->n : x->n / AMX_TOKENS * AMX_TOKENS;
    if (n > 0)
        multiply_sets(out, &weights, x, n);
    if (n < x->n) {
        const size_t first = (size_t)n;
        const struct act_rows rest = { x->q + first * x->q_stride, x->q_stride,
                                       x->scales + first * n_blocks, x->offsets + first * n_blocks,
                                       x->n - n };
        const struct out_view to = { out->y + first * out->stride, out->stride };
        qp_gemm_signed_avx512(&to, tile, w, &rest, row, n_rows);
    }
}

void qp_linear_kernels_amx(struct kernels *k)
{
    k->tile_order.flip = 0;
    k->task_tokens = 4 * UNIT_TOKENS; // 144 would leave half a unit
    k->pack = qp_pack_signed_avx512;
    k->gemm = gemm_amx;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
