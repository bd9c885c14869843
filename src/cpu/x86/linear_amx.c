/* linear_amx.c: matrix products of many tokens with the matrix tiles of AMX (Sapphire Rapids on).
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * A tile register is 16 rows of 64 bytes. One instruction multiplies 16 tokens by 16 rows of
 * weights over 64 columns, which is one block of the activations, and adds to 256 int32. So each
 * block leaves the tiles at once: its sums are stored to L1, and scaled and added there as floats.
 *
 * Two sets of 16 tokens and two of 16 rows are multiplied together, so that a register that was
 * loaded is used twice. The four sums are stored while those of earlier blocks are scaled.
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

#include "cpu/x86/linear_avx512.h"

enum {
    AMX_TOKENS = 16,                             // rows of a tile register
    AMX_ROWS = 16,                               // its columns of int32
    AMX_SUMS = AMX_TOKENS * AMX_ROWS,            // in a tile register
    PAIR_ROWS = 2 * AMX_ROWS,                    // of weights that are multiplied together
    N_AMX_SETS = 2,                              // of 16 tokens each, likewise
    N_PAIRS = N_AMX_SETS * PAIR_ROWS / AMX_ROWS, // of a set of tokens and 16 rows
    GROUP_BLOCKS = 2,                            // whose sums are scaled one after the other
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

/* What ldtilecfg reads: Intel's manual, volume 1, table 18-2. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

static void begin_tiles(void)
{
    static const _Alignas(64) struct tile_config config = {
        .palette = 1,
        .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
        .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
    };
    _tile_loadconfig(&config);
}

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

/* Integer sums of these tokens, 32 rows of the tile from `row` on and n_blocks blocks. */
struct amx_unit {
    const struct amx_tokens *tokens;
    int row;
    size_t first_block;
    int n_blocks; // <= GROUP_BLOCKS; 0 for nothing
};

typedef int32_t amx_dots[GROUP_BLOCKS][N_PAIRS][AMX_SUMS];

/* What scaling keeps in L1. */
struct amx_floats {
    float sums[N_PAIRS][AMX_SUMS]; // of a unit's rows and tokens, between two units
    float scales[N_AMX_SETS][GROUP_BLOCKS][AMX_TOKENS]; // of a unit's blocks
};

// clang-format off
#define LOAD_TOKENS(set)                                                                           \
    _tile_loadd(TOKENS_##set, now->tokens->q[set] + block * ACT_BLOCK, w->q_stride);
#define LOAD_ROWS_OF(half)                                                                         \
    _tile_loadd(WEIGHTS_##half,                                                                    \
                w->tile + (block * TILE_ROWS + (size_t)(now->row + half * AMX_ROWS)) * ACT_BLOCK, 64);
#define MULTIPLY_PAIR(set, half)                                                                   \
    _tile_zero(SUMS_##set##half);                                                                  \
    _tile_dpbssd(SUMS_##set##half, TOKENS_##set, WEIGHTS_##half);
#define STORE_PAIR(set, half) _tile_stored(SUMS_##set##half, now_dots[i][2 * set + half], 64);
#define AFTER_0 STORE_PAIR(0, 0)
#define AFTER_1 STORE_PAIR(0, 1)
#define AFTER_2 if (now->tokens->n_sets > 1) { STORE_PAIR(1, 0) }
#define AFTER_3 if (now->tokens->n_sets > 1) { STORE_PAIR(1, 1) }

#define EACH_AMX_TOKEN(M)                                                                          \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define NAME_AMX_SUM(t) __m512 sum##t;
#define ZERO_AMX_SUM(t) sum##t = _mm512_setzero_ps();
#define LOAD_AMX_SUM(t) sum##t = _mm512_load_ps(floats->sums[pair] + 16 * t);
#define KEEP_AMX_SUM(t) _mm512_store_ps(floats->sums[pair] + 16 * t, sum##t);
#define LOAD_AMX_Y(t) sum##t = _mm512_maskz_loadu_ps(lanes, y + t * w->y_stride);
#define FETCH_AMX_Y(t) __builtin_prefetch(y + t * w->y_stride, 1);
#define TIMES_AMX_ROWS(t) sum##t = _mm512_mul_ps(sum##t, of_rows);
#define PLUS_AMX_ROWS(t) sum##t = _mm512_add_ps(sum##t, of_rows);
#define STORE_AMX_Y(t) _mm512_mask_storeu_ps(y + t * w->y_stride, lanes, sum##t);
#define SCALE_DOTS(t)                                                                              \
    sum##t = mul_add_avx512(_mm512_set1_ps(scales[t]),                                             \
                            _mm512_cvtepi32_ps(_mm512_load_si512(dots + 16 * t)), sum##t);
/* Scale block n % GROUP_BLOCKS of a pair of `old`, then store a product of `now`, which is ready. */
#define AMX_STEP(n)                                                                                \
    {                                                                                              \
        const int pair = (4 * i + n) / GROUP_BLOCKS, b = n % GROUP_BLOCKS;                         \
        if (pair < n_pairs && b < old->n_blocks) {                                                 \
            const int32_t *dots = old_dots[b][pair];                                               \
            const float *scales = floats->scales[pair / 2][b];                                     \
            if (b == 0) {                                                                          \
                BEGIN_PAIR                                                                         \
            }                                                                                      \
            EACH_AMX_TOKEN(SCALE_DOTS)                                                             \
            if (b == old->n_blocks - 1) {                                                          \
                END_PAIR                                                                           \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    if (i < now->n_blocks) {                                                                       \
        AFTER_##n                                                                                  \
    }
#define BEGIN_PAIR                                                                                 \
    if (old->first_block > 0) {                                                                    \
        EACH_AMX_TOKEN(LOAD_AMX_SUM)                                                               \
    } else if (w->scales) {                                                                        \
        const float *y = y_of_amx_pair(w, old, pair);                                                  \
        EACH_AMX_TOKEN(FETCH_AMX_Y)                                                                \
        EACH_AMX_TOKEN(ZERO_AMX_SUM)                                                               \
    } else {                                                                                       \
        const float *y = y_of_amx_pair(w, old, pair);                                                  \
        const __mmask16 lanes = lanes_of_amx_pair(w, old, pair);                                       \
        EACH_AMX_TOKEN(LOAD_AMX_Y)                                                                 \
    }
#define END_PAIR                                                                                   \
    if (old->first_block + (size_t)old->n_blocks < w->n_blocks) {                                  \
        EACH_AMX_TOKEN(KEEP_AMX_SUM)                                                               \
    } else {                                                                                       \
        float *y = y_of_amx_pair(w, old, pair);                                                        \
        const __mmask16 lanes = lanes_of_amx_pair(w, old, pair);                                       \
        const int row = row_of_amx_pair(old, pair);                                                    \
        if (w->scales) {                                                                           \
            const __m512 of_rows = _mm512_maskz_loadu_ps(lanes, w->scales + row);                  \
            EACH_AMX_TOKEN(TIMES_AMX_ROWS)                                                         \
        }                                                                                          \
        if (w->bias) {                                                                             \
            const __m512 of_rows = _mm512_maskz_loadu_ps(lanes, w->bias + row);                    \
            EACH_AMX_TOKEN(PLUS_AMX_ROWS)                                                          \
        }                                                                                          \
        EACH_AMX_TOKEN(STORE_AMX_Y)                                                                \
    }
// clang-format on

static inline int row_of_amx_pair(const struct amx_unit *u, int pair)
{
    return u->row + pair % 2 * AMX_ROWS;
}

static inline __mmask16 lanes_of_amx_pair(const struct amx_weights *w, const struct amx_unit *u,
                                          int pair)
{
    return lanes_below(w->n_rows - row_of_amx_pair(u, pair));
}

static inline float *y_of_amx_pair(const struct amx_weights *w, const struct amx_unit *u, int pair)
{
    const int row = row_of_amx_pair(u, pair);
    return u->tokens->y[pair / 2] + (row < w->n_rows ? row : 0);
}

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
    const __m512d low = _mm512_castps_pd(_mm512_unpacklo_ps(v0, v1));
    const __m512d high = _mm512_castps_pd(_mm512_unpacklo_ps(v2, v3));
    _mm512_store_ps(to[0], _mm512_castpd_ps(_mm512_unpacklo_pd(low, high)));
    _mm512_store_ps(to[1], _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
}

/* The integer sums of `now`, while those of `old` are scaled and added. */
__attribute__((noinline)) static void run_unit(const struct amx_weights *w,
                                               const struct amx_unit *now, amx_dots now_dots,
                                               const struct amx_unit *old, amx_dots old_dots,
                                               struct amx_floats *floats)
{
    const int n_pairs = old->n_blocks ? 2 * old->tokens->n_sets : 0;
    assert(now->n_blocks <= GROUP_BLOCKS && old->n_blocks <= GROUP_BLOCKS);
    EACH_AMX_TOKEN(NAME_AMX_SUM)
    EACH_AMX_TOKEN(ZERO_AMX_SUM)
    for (int set = 0; set < n_pairs / 2; set++)
        gather_scales(floats->scales[set], old->tokens->scales[set] + old->first_block, w->n_blocks,
                      old->n_blocks);
    for (int i = 0; i < GROUP_BLOCKS; i++) {
        const size_t block = now->first_block + (size_t)i;
        if (i < now->n_blocks) {
            LOAD_TOKENS(0)
            LOAD_ROWS_OF(0)
            MULTIPLY_PAIR(0, 0)
            LOAD_ROWS_OF(1)
            MULTIPLY_PAIR(0, 1)
            if (now->tokens->n_sets > 1) {
                LOAD_TOKENS(1)
                MULTIPLY_PAIR(1, 0)
                MULTIPLY_PAIR(1, 1)
            }
        }
        AMX_STEP(0)
        AMX_STEP(1)
        AMX_STEP(2)
        AMX_STEP(3)
    }
}

/* Buffers of a product, and the unit whose sums are not scaled yet. */
struct amx_run {
    _Alignas(64) amx_dots dots[2];
    _Alignas(64) struct amx_floats floats;
    struct amx_unit old;
    bool half;
};

static void next_unit(struct amx_run *r, const struct amx_weights *w, const struct amx_unit *now)
{
    run_unit(w, now, r->dots[r->half], &r->old, r->dots[!r->half], &r->floats);
    r->old = *now;
    r->half = !r->half;
}

/* All rows and blocks of the tile. */
static void multiply_amx(struct amx_run *r, const struct amx_weights *w,
                         const struct amx_tokens *tokens)
{
    for (int row = 0; row < w->n_rows; row += PAIR_ROWS)
        for (size_t b = 0; b < w->n_blocks; b += GROUP_BLOCKS) {
            const size_t left = w->n_blocks - b;
            next_unit(r, w,
                      &(struct amx_unit){ tokens, row, b,
                                          left < GROUP_BLOCKS ? (int)left : GROUP_BLOCKS });
        }
}

static void set_tokens(struct amx_tokens *to, int set, const struct out_view *out,
                       const struct act_rows *x, const struct amx_weights *w, int t)
{
    const size_t token = (size_t)t, at = token * w->n_blocks;
    to->q[set] = x->q + token * x->q_stride;
    to->scales[set] = x->scales + at;
    to->y[set] = out->y + token * out->stride;
}

/* The tokens [0, n), n >= 16. The last set ends with the last token, so that some tokens may be
 * computed and stored twice. */
static void multiply_sets(const struct out_view *out, const struct amx_weights *w,
                          const struct act_rows *x, int n)
{
    struct amx_run r;
    struct amx_tokens tokens[2]; // of now and of old
    const struct amx_unit none = { 0 };
    int i = 0;
    r.old = none;
    r.half = false;
    begin_tiles();
    for (int t = 0; t < n; t += N_AMX_SETS * AMX_TOKENS, i = !i) {
        tokens[i].n_sets = n - t > AMX_TOKENS ? 2 : 1;
        for (int set = 0; set < tokens[i].n_sets; set++)
            set_tokens(&tokens[i], set, out, x, w, qp_min(t + set * AMX_TOKENS, n - AMX_TOKENS));
        multiply_amx(&r, w, &tokens[i]);
    }
    next_unit(&r, w, &none);
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
    k->pack = qp_pack_signed_avx512;
    k->gemm = gemm_amx;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
