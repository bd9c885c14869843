/* linear_amx.c: matrix products of many tokens with the matrix tiles of AMX (Sapphire Rapids on).
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * A tile register is 16 rows of 64 bytes. One instruction multiplies 16 tokens by 16 rows of
 * weights over 64 columns, which is one block of the activations, and adds to 256 int32. So each
 * block leaves the tiles at once: its sums are stored to L1, and scaled and added there as floats.
 *
 * Packed weights are those of linear_avx512vnni.c: w + 128, unsigned. A second instruction adds
 * -128 times the sum of the block's q, as a product with a constant tile. Tokens that do not fill a
 * tile go to the AVX-512 kernel, which reads the same packed weights. */
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

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
    AMX_TOKENS = 16, // rows of a tile register
    AMX_ROWS = 16    // its columns of int32
};

/* Tile registers; the instructions need literals. While the sums of one block are stored and
 * scaled, those of the next are computed in the other half. */
#define SUMS_0 0
#define SUMS_1 1
#define TOKENS_0 2
#define TOKENS_1 3
#define WEIGHTS_0 4
#define WEIGHTS_1 5
#define MINUS_128 6

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
        .row_bytes = { 64, 64, 64, 64, 64, 64, 64 },
        .rows = { 16, 16, 16, 16, 16, 16, 16 },
    };
    _Alignas(64) int8_t line[64];
    memset(line, -128, sizeof line);
    _tile_loadconfig(&config);
    _tile_loadd(MINUS_128, line, 0); // every row is this line
}

/* 16 tokens against a tile of packed weights. */
struct amx_product {
    const int8_t *q;
    size_t q_stride, n_blocks;
    const float *scales; // of token t: scales[t * n_blocks], ...
    const uint8_t *tile;
    const float *row_scales, *bias; // of the tile's rows, or NULL
    int n_rows;
};

/* Which integer sums: 16 rows of the tile from `row` on, one block. */
struct amx_step {
    int row;
    size_t block;
};

static inline struct amx_step step_after(struct amx_step at, const struct amx_product *p)
{
    if (++at.block < p->n_blocks)
        return at;
    return (struct amx_step){ at.row + AMX_ROWS, 0 };
}

// clang-format off
/* dots = the integer sums of a step */
#define MULTIPLY_STEP(at, dots, half)                                                              \
    _tile_zero(SUMS_##half);                                                                       \
    _tile_loadd(TOKENS_##half, p->q + (at).block * ACT_BLOCK, p->q_stride);                        \
    _tile_loadd(WEIGHTS_##half, p->tile + ((at).block * ACT_BLOCK * TILE_ROWS + 4 * (size_t)(at).row), \
                4 * TILE_ROWS);                                                                    \
    _tile_dpbssd(SUMS_##half, TOKENS_##half, MINUS_128);                                           \
    _tile_dpbsud(SUMS_##half, TOKENS_##half, WEIGHTS_##half);                                      \
    _tile_stored(SUMS_##half, dots, 64);

#define EACH_AMX_TOKEN(M)                                                                          \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define NAME_AMX_SUM(t) __m512 sum##t;
#define FETCH_AMX_Y(t) __builtin_prefetch(y + t * stride, 1);
#define ZERO_AMX_SUM(t) sum##t = _mm512_setzero_ps();
#define LOAD_AMX_SUM(t) sum##t = _mm512_maskz_loadu_ps(lanes, y + t * stride);
#define SCALE_DOTS(t)                                                                              \
    sum##t = mul_add_avx512(_mm512_set1_ps(scales[t * n_blocks]),                                  \
                            _mm512_cvtepi32_ps(_mm512_load_si512(dots + 16 * t)), sum##t);
#define TIMES_AMX_ROWS(t) sum##t = _mm512_mul_ps(sum##t, of_rows);
#define PLUS_AMX_ROWS(t) sum##t = _mm512_add_ps(sum##t, of_rows);
#define STORE_AMX_SUM(t) _mm512_mask_storeu_ps(y + t * stride, lanes, sum##t);
// clang-format on

/* y of 16 tokens and the rows of a tile. Each step is scaled while the next one is computed. */
__attribute__((noinline)) static void multiply_amx(const struct out_view *out,
                                                   const struct amx_product *p)
{
    _Alignas(64) int32_t buffers[2][AMX_TOKENS * AMX_ROWS];
    const size_t n_blocks = p->n_blocks, stride = out->stride;
    EACH_AMX_TOKEN(NAME_AMX_SUM)
    struct amx_step at = { 0, 0 };
    bool half = false;
    MULTIPLY_STEP(at, buffers[0], 0)
    for (int row = 0; row < p->n_rows; row += AMX_ROWS) {
        float *y = out->y + row;
        const __mmask16 lanes = lanes_below(p->n_rows - row);
        EACH_AMX_TOKEN(FETCH_AMX_Y)
        EACH_AMX_TOKEN(ZERO_AMX_SUM)
        if (!p->row_scales) {
            EACH_AMX_TOKEN(LOAD_AMX_SUM)
        }
        for (size_t b = 0; b < n_blocks; b++, half = !half) {
            const int32_t *dots = buffers[half];
            const float *scales = p->scales + b;
            at = step_after(at, p);
            if (at.row < p->n_rows && half) {
                MULTIPLY_STEP(at, buffers[0], 0)
            } else if (at.row < p->n_rows) {
                MULTIPLY_STEP(at, buffers[1], 1)
            }
            EACH_AMX_TOKEN(SCALE_DOTS)
        }
        if (p->row_scales) {
            const __m512 of_rows = _mm512_maskz_loadu_ps(lanes, p->row_scales + row);
            EACH_AMX_TOKEN(TIMES_AMX_ROWS)
        }
        if (p->bias) {
            const __m512 of_rows = _mm512_maskz_loadu_ps(lanes, p->bias + row);
            EACH_AMX_TOKEN(PLUS_AMX_ROWS)
        }
        EACH_AMX_TOKEN(STORE_AMX_SUM)
    }
}

/* The tokens [t, t + 16) against a tile. */
static void multiply_tokens(const struct out_view *out, const uint8_t *tile, const struct matrix *w,
                            const struct act_rows *x, int t, int row, int n_rows)
{
    const size_t n_blocks = qp_round_up((size_t)w->n_in, ACT_BLOCK) / ACT_BLOCK;
    const struct amx_product p = { .q = x->q + (size_t)t * x->q_stride,
                                   .q_stride = x->q_stride,
                                   .n_blocks = n_blocks,
                                   .scales = x->scales + (size_t)t * n_blocks,
                                   .tile = tile,
                                   .row_scales = w->scales ? w->scales + row : NULL,
                                   .bias = w->scales && w->bias ? w->bias + row : NULL,
                                   .n_rows = n_rows };
    multiply_amx(&(struct out_view){ out->y + (size_t)t * out->stride, out->stride }, &p);
}

/* The last tokens are multiplied with some of those before them, which are stored twice, unless the
 * sums start from y. */
static void gemm_amx(const struct out_view *out, const void *tile, const struct matrix *w,
                     const struct act_rows *x, int row, int n_rows)
{
    assert(qp_is_tile(tile, w, row, n_rows) && qp_is_act_rows(x, w->n_in));
    const int n_whole = x->n / AMX_TOKENS * AMX_TOKENS;
    if (n_whole > 0) {
        begin_tiles();
        for (int t = 0; t < n_whole; t += AMX_TOKENS)
            multiply_tokens(out, tile, w, x, t, row, n_rows);
        if (n_whole < x->n && w->scales)
            multiply_tokens(out, tile, w, x, x->n - AMX_TOKENS, row, n_rows);
        _tile_release();
        if (w->scales)
            return;
    }
    if (n_whole < x->n) {
        const size_t n_blocks = qp_round_up((size_t)w->n_in, ACT_BLOCK) / ACT_BLOCK;
        const size_t n = (size_t)n_whole;
        const struct act_rows rest = { x->q + n * x->q_stride, x->q_stride,
                                       x->scales + n * n_blocks, x->offsets + n * n_blocks,
                                       x->n - n_whole };
        const struct out_view to = { out->y + n * out->stride, out->stride };
        qp_gemm_avx512vnni(&to, tile, w, &rest, row, n_rows);
    }
}

void qp_linear_kernels_amx(struct kernels *k)
{
    k->gemm = gemm_amx;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
