/* gemm_avx512vnni.c: matrix products of many tokens with vpdpbusd on 512-bit registers.
 * In:  a tile of packed weights (linear_avx512vnni.c) and quantized activations.
 * Out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * A vector of weights, 16 rows of the same four columns, is multiplied by four columns of a token,
 * which are broadcast. There are three kernels. Which one is faster depends on the processor
 * (docs/notes/prefill.md).
 * - Three tokens, 64 rows: the integer and the float sums are all in registers.
 * - Six tokens, 64 rows: the float sums are in L1. The tile is read half as often.
 * - Six tokens, 32 rows: all sums are in registers, and the tile is read half as often. The
 *   activations are read twice as often. */
#include "cpu/gemm_token.h"
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

#include <assert.h>
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include "cpu/x86/linear_avx512.h"

enum {
    GEMM_TOKENS = 3,
    MORE_TOKENS = 6,
    QUARTERS = TILE_ROWS / 16,
    HALF_ROWS = TILE_ROWS / 2,
    QUARTER_BYTES = 16 * ACT_BLOCK, // of a block of columns
    GEMM_K = 4096 // columns of a tile, 256 KiB, that stay in L2 while all tokens pass
};

/* The rows of a tile, for all tokens. */
struct gemm_rows {
    const float *scales, *bias; // of the first row, or NULL
    __mmask16 lanes[QUARTERS];
    bool is_first; // sums start at 0, not at y
    bool is_last;  // sums are scaled
    size_t k_padded;
};

/* In assembly because gcc 12 copies the accumulator of the intrinsic through memory. */
static inline __m512i dot_step(__m512i sum, __m512i u, __m512i s)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(u), "v"(s));
    return sum;
}

static inline __m512 scale_step(__m512 sum, float scale, __m512i dot)
{
    return mul_add_avx512(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(dot), sum);
}

/* The accumulators are named variables, made by macros, because compilers keep an array of them in
 * memory. */
// clang-format off
#define EACH_TOKEN(M) M(0) M(1) M(2)
#define EACH_MORE(M) EACH_TOKEN(M) M(3) M(4) M(5)
#define EACH_QUARTER(M, t) M(t, 0) M(t, 1) M(t, 2) M(t, 3)
#define EACH_SUM(M) EACH_QUARTER(M, 0) EACH_QUARTER(M, 1) EACH_QUARTER(M, 2)
#define EACH_MORE_SUMS(M) EACH_SUM(M) EACH_QUARTER(M, 3) EACH_QUARTER(M, 4) EACH_QUARTER(M, 5)
#define EACH_HALF(M, t) M(t, 0) M(t, 1)
#define EACH_HALF_SUM(M) EACH_HALF(M, 0) EACH_HALF(M, 1) EACH_HALF(M, 2) EACH_HALF(M, 3) EACH_HALF(M, 4) EACH_HALF(M, 5)

#define FETCH_SUM(t, r) __builtin_prefetch(token[t].y + 16 * r, 1);
#define ZERO_SUM(t, r) __m512 sum##t##r = _mm512_setzero_ps();
#define LOAD_SUM(t, r) sum##t##r = _mm512_maskz_loadu_ps(rows->lanes[r], token[t].y + 16 * r);
#define STORE_SUM(t, r) _mm512_mask_storeu_ps(token[t].y + 16 * r, rows->lanes[r], sum##t##r);
#define START_DOT(t, r) __m512i dot##t##r = _mm512_set1_epi32(token[t].offsets[b]);
#define STEP_DOT(t, r) dot##t##r = dot_step(dot##t##r, w##r, x##t);
#define STEP_TOKEN(t) __m512i x##t = broadcast_4(token[t].q + k); EACH_QUARTER(STEP_DOT, t)
#define STEP_HALF(t) __m512i x##t = broadcast_4(token[t].q + k); EACH_HALF(STEP_DOT, t)
#define LOAD_WEIGHTS(t, r) __m512i w##r = _mm512_load_si512(tile + r * QUARTER_BYTES);
#define FETCH_WEIGHTS(t, r) _mm_prefetch((const char *)tile + (QUARTERS + r) * QUARTER_BYTES, _MM_HINT_T0);
#define FETCH_TOKEN(t) _mm_prefetch((const char *)token[t].q + (b + 1) * ACT_BLOCK, _MM_HINT_T0);
#define FLIP_WEIGHTS(t, r) w##r = _mm512_xor_si512(w##r, _mm512_set1_epi8(-128));
#define SCALE_DOT(t, r) sum##t##r = scale_step(sum##t##r, token[t].scales[b], dot##t##r);
#define NEXT_SUM(t, r) scale_step(_mm512_load_ps(from + t * stride + 16 * r), token[t].scales[b], dot##t##r)
#define NEXT_IN_L1(t, r) _mm512_store_ps(sums[t][r], NEXT_SUM(t, r));
#define FINISH_SUM(t, r) \
    _mm512_mask_storeu_ps(token[t].y + 16 * r, rows->lanes[r], _mm512_mul_ps(NEXT_SUM(t, r), row##r));
#define LOAD_ROWS(t, r) __m512 row##r = _mm512_maskz_loadu_ps(rows->lanes[r], of_rows + 16 * r);
#define TIMES_ROWS(t, r) sum##t##r = _mm512_mul_ps(sum##t##r, row##r);
#define PLUS_ROWS(t, r) sum##t##r = _mm512_add_ps(sum##t##r, row##r);
// clang-format on

/* y of 3 tokens and 64 rows, over n_blocks blocks. y is prefetched first: the rows of two tokens
 * are far apart, often on different pages. */
static inline __attribute__((always_inline)) void
multiply_blocks(const struct gemm_token token[GEMM_TOKENS], const uint8_t *tile,
                const struct gemm_rows *rows, int n_blocks, bool is_signed)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K / ACT_BLOCK);
    EACH_SUM(FETCH_SUM)
    EACH_SUM(ZERO_SUM)
    if (!rows->is_first) {
        EACH_SUM(LOAD_SUM)
    }
    for (int b = 0, k = 0; b < n_blocks; b++, tile += (QUARTERS - 1) * QUARTER_BYTES) {
        EACH_SUM(START_DOT)
        for (int end = k + ACT_BLOCK; k < end; k += 4, tile += 64) {
            EACH_QUARTER(LOAD_WEIGHTS, )
            if (is_signed) {
                EACH_QUARTER(FLIP_WEIGHTS, )
            }
            EACH_TOKEN(STEP_TOKEN)
        }
        EACH_SUM(SCALE_DOT)
    }
    if (rows->is_last) {
        const float *of_rows = rows->scales;
        EACH_QUARTER(LOAD_ROWS, )
        EACH_SUM(TIMES_ROWS)
    }
    if (rows->is_last && rows->bias) {
        const float *of_rows = rows->bias;
        EACH_QUARTER(LOAD_ROWS, )
        EACH_SUM(PLUS_ROWS)
    }
    EACH_SUM(STORE_SUM)
}

/* Not inlined: gcc would keep pointers of the caller in vector registers that these need. */
__attribute__((noinline)) static void gemm_unsigned_blocks(const struct gemm_token *token,
                                                           const uint8_t *tile,
                                                           const struct gemm_rows *rows,
                                                           int n_blocks)
{
    multiply_blocks(token, tile, rows, n_blocks, false);
}

__attribute__((noinline)) static void gemm_signed_blocks(const struct gemm_token *token,
                                                         const uint8_t *tile,
                                                         const struct gemm_rows *rows, int n_blocks)
{
    multiply_blocks(token, tile, rows, n_blocks, true);
}

/* The first or second half of a tile's rows: 32 rows of every block of columns. `token` and `rows`
 * are those of the half. The columns of a block are unrolled, because a branch after each would
 * make it harder to predict which block is the last. */
__attribute__((noinline)) static void gemm_half_blocks(const struct gemm_token *token,
                                                       const uint8_t *tile,
                                                       const struct gemm_rows *rows, int n_blocks)
{
    assert(n_blocks > 0 && n_blocks <= GEMM_K / ACT_BLOCK);
    EACH_HALF_SUM(FETCH_SUM)
    EACH_HALF_SUM(ZERO_SUM)
    if (!rows->is_first) {
        EACH_HALF_SUM(LOAD_SUM)
    }
    for (int b = 0, k = 0; b < n_blocks; b++, tile += (QUARTERS - 1) * QUARTER_BYTES) {
        EACH_HALF_SUM(START_DOT)
        UNROLL
        for (int i = 0; i < ACT_BLOCK / 4; i++, k += 4, tile += 64) {
            EACH_HALF(LOAD_WEIGHTS, )
            EACH_MORE(STEP_HALF)
        }
        EACH_HALF_SUM(SCALE_DOT)
    }
    if (rows->is_last) {
        const float *of_rows = rows->scales;
        EACH_HALF(LOAD_ROWS, )
        EACH_HALF_SUM(TIMES_ROWS)
    }
    if (rows->is_last && rows->bias) {
        const float *of_rows = rows->bias;
        EACH_HALF(LOAD_ROWS, )
        EACH_HALF_SUM(PLUS_ROWS)
    }
    EACH_HALF_SUM(STORE_SUM)
}

/* Float sums of six tokens in L1. */
typedef float more_sums[MORE_TOKENS][QUARTERS][16];

static void load_more_sums(more_sums sums, const struct gemm_token *token,
                           const struct gemm_rows *rows)
{
    for (int t = 0; t < MORE_TOKENS; t++)
        for (int r = 0; r < QUARTERS; r++)
            _mm512_store_ps(sums[t][r], _mm512_maskz_loadu_ps(rows->lanes[r], token[t].y + 16 * r));
}

/* The sums of a tile's 16 rows from 16 * r on, scaled if they are complete. */
static void store_more_sums(more_sums sums, const struct gemm_token *token,
                            const struct gemm_rows *rows, int r)
{
    const __mmask16 lanes = rows->lanes[r];
    const bool has_bias = rows->is_last && rows->bias;
    __m512 scale = _mm512_set1_ps(1.0f), bias = _mm512_setzero_ps();
    if (rows->is_last)
        scale = _mm512_maskz_loadu_ps(lanes, rows->scales + 16 * r);
    if (has_bias)
        bias = _mm512_maskz_loadu_ps(lanes, rows->bias + 16 * r);
    for (int t = 0; t < MORE_TOKENS; t++) {
        __m512 sum = _mm512_mul_ps(_mm512_load_ps(sums[t][r]), scale);
        if (has_bias)
            sum = _mm512_add_ps(sum, bias);
        _mm512_mask_storeu_ps(token[t].y + 16 * r, lanes, sum);
    }
}

/* The products of six tokens and 64 rows over one block. */
struct more_block {
    const struct gemm_token *token;
    const uint8_t *tile;
    int b;             // index of the block
    const float *from; // sums over the blocks before, of token t at from + t * stride
    size_t stride;     // 0 if all start at 0
};

/* The new sums are stored to `sums`, or scaled to y if `sums` is NULL. Weights and activations of
 * the next block are prefetched from L2. */
static inline __attribute__((always_inline)) void add_block(more_sums sums,
                                                            const struct more_block *block,
                                                            const struct gemm_rows *rows,
                                                            bool is_signed)
{
    const struct gemm_token *token = block->token;
    const uint8_t *tile = block->tile;
    const float *from = block->from;
    const size_t stride = block->stride;
    const int b = block->b;
    EACH_MORE(FETCH_TOKEN)
    EACH_MORE_SUMS(START_DOT)
    for (int k = b * ACT_BLOCK, end = k + ACT_BLOCK; k < end; k += 4, tile += 64) {
        EACH_QUARTER(LOAD_WEIGHTS, )
        if (is_signed) {
            EACH_QUARTER(FLIP_WEIGHTS, )
        }
        EACH_MORE(STEP_TOKEN)
        EACH_QUARTER(FETCH_WEIGHTS, )
    }
    if (sums) {
        EACH_MORE_SUMS(NEXT_IN_L1)
    } else {
        const float *of_rows = rows->scales;
        EACH_QUARTER(LOAD_ROWS, )
        EACH_MORE_SUMS(FINISH_SUM)
    }
}

/* Functions for a single block, because gcc would keep copies of the sums on the stack from one
 * block to the next. */
__attribute__((noinline)) static void add_unsigned_block(more_sums sums,
                                                         const struct more_block *block)
{
    add_block(sums, block, NULL, false);
}

__attribute__((noinline)) static void add_signed_block(more_sums sums,
                                                       const struct more_block *block)
{
    add_block(sums, block, NULL, true);
}

__attribute__((noinline)) static void finish_unsigned_block(const struct more_block *block,
                                                            const struct gemm_rows *rows)
{
    add_block(NULL, block, rows, false);
}

__attribute__((noinline)) static void finish_signed_block(const struct more_block *block,
                                                          const struct gemm_rows *rows)
{
    add_block(NULL, block, rows, true);
}

/* Complete sums without a bias go from the last block to y. */
static inline __attribute__((always_inline)) void
gemm_more_blocks(const struct gemm_token token[MORE_TOKENS], const uint8_t *tile,
                 const struct gemm_rows *rows, int n_blocks, bool is_signed)
{
    static const _Alignas(64) float zeros[QUARTERS * 16];
    _Alignas(64) more_sums sums;
    struct more_block block = { token, tile, 0, zeros, 0 };
    const bool is_finished = rows->is_last && !rows->bias;
    const int n_added = is_finished ? n_blocks - 1 : n_blocks;
    assert(n_blocks > 0 && n_blocks <= GEMM_K / ACT_BLOCK);
    if (!rows->is_first) {
        load_more_sums(sums, token, rows);
        block.from = sums[0][0];
        block.stride = QUARTERS * 16;
    }
    for (; block.b < n_added; block.b++, block.tile += QUARTERS * QUARTER_BYTES) {
        if (is_signed)
            add_signed_block(sums, &block);
        else
            add_unsigned_block(sums, &block);
        block.from = sums[0][0];
        block.stride = QUARTERS * 16;
    }
    if (is_finished && is_signed)
        finish_signed_block(&block, rows);
    else if (is_finished)
        finish_unsigned_block(&block, rows);
    else
        for (int r = 0; r < QUARTERS; r++)
            store_more_sums(sums, token, rows, r);
}

/* The kernel for most of the tokens. Up to three that are left use GEMM_THREE. */
enum gemm_shape {
    GEMM_THREE,
    GEMM_SIX,
    GEMM_HALVES
};

/* n_k columns of the tile, from column k on, and tokens from t0 on. */
static inline __attribute__((always_inline)) void
gemm_columns(const struct out_view *out, const uint8_t *tile, const struct act_rows *x,
             const struct gemm_rows *rows, size_t k, size_t n_k, int t0, bool is_six,
             bool is_signed)
{
    const int n_blocks = (int)(n_k / ACT_BLOCK);
    struct gemm_token token[MORE_TOKENS], next = gemm_token_at(out, x, t0, k, rows->k_padded);
    for (int t = t0, n; t < x->n; t += n) {
        n = is_six && x->n - t > GEMM_TOKENS ? MORE_TOKENS : GEMM_TOKENS;
        for (int i = 0; i < n; i++) {
            token[i] = next;
            if (t + i + 1 < x->n) // gemm_token_at, without its multiplications
                next_gemm_token(&next, out, x, rows->k_padded);
        }
        if (n == MORE_TOKENS)
            gemm_more_blocks(token, tile, rows, n_blocks, is_signed);
        else if (is_signed)
            gemm_signed_blocks(token, tile, rows, n_blocks);
        else
            gemm_unsigned_blocks(token, tile, rows, n_blocks);
    }
}

/* The same in halves, for the first n tokens. A half of 1024 columns stays in L1 meanwhile. */
static void gemm_halves(const struct out_view *out, const uint8_t *tile, const struct act_rows *x,
                        const struct gemm_rows *rows, size_t k, size_t n_k, int n)
{
    struct gemm_token token[MORE_TOKENS];
    for (int r = 0; r < QUARTERS && rows->lanes[r]; r += QUARTERS / 2) {
        struct gemm_rows half = *rows;
        half.scales = rows->scales ? rows->scales + 16 * r : NULL;
        half.bias = rows->bias ? rows->bias + 16 * r : NULL;
        half.lanes[0] = rows->lanes[r];
        half.lanes[1] = rows->lanes[r + 1];
        struct gemm_token next = gemm_token_at(out, x, 0, k, rows->k_padded);
        next.y += 16 * r;
        for (int t = 0; t < n; t += MORE_TOKENS) {
            for (int i = 0; i < MORE_TOKENS; i++) {
                token[i] = next;
                if (t + i + 1 < x->n) // gemm_token_at, without its multiplications
                    next_gemm_token(&next, out, x, rows->k_padded);
            }
            gemm_half_blocks(token, tile + r * QUARTER_BYTES, &half, (int)(n_k / ACT_BLOCK));
        }
    }
}

static inline __attribute__((always_inline)) void
gemm_tokens(const struct out_view *out, const void *tile, const struct matrix *w,
            const struct act_rows *x, int row, int n_rows, enum gemm_shape shape, bool is_signed)
{
    assert(qp_is_tile(tile, w, row, n_rows) && qp_is_act_rows(x, w->n_in));
    const size_t k_padded = qp_round_up((size_t)w->n_in, ACT_BLOCK);
    const int n_last = x->n % MORE_TOKENS <= GEMM_TOKENS ? x->n % MORE_TOKENS : 0;
    const int n_halves = shape == GEMM_HALVES ? x->n - n_last : 0;
    struct gemm_rows rows = { .scales = w->scales ? w->scales + row : NULL,
                              .bias = w->bias ? w->bias + row : NULL,
                              .k_padded = k_padded };
    for (int i = 0; i < QUARTERS; i++)
        rows.lanes[i] = lanes_below(n_rows - 16 * i);
    for (size_t k = 0; k < k_padded; k += GEMM_K) {
        const size_t n_k = k_padded - k < GEMM_K ? k_padded - k : GEMM_K;
        const uint8_t *columns = (const uint8_t *)tile + k * TILE_ROWS;
        rows.is_first = k == 0 && w->scales;
        rows.is_last = k + n_k == k_padded && w->scales;
        if (n_halves > 0)
            gemm_halves(out, columns, x, &rows, k, n_k, n_halves);
        gemm_columns(out, columns, x, &rows, k, n_k, n_halves, shape == GEMM_SIX, is_signed);
    }
}

void qp_gemm_avx512vnni(const struct out_view *out, const void *tile, const struct matrix *w,
                        const struct act_rows *x, int row, int n_rows)
{
    gemm_tokens(out, tile, w, x, row, n_rows, GEMM_HALVES, false);
}

#if !defined(__ANDROID__) // its devices have none of these
void qp_gemm_zen4(const struct out_view *out, const void *tile, const struct matrix *w,
                  const struct act_rows *x, int row, int n_rows)
{
    gemm_tokens(out, tile, w, x, row, n_rows, GEMM_THREE, false);
}

void qp_gemm_intel_avx512(const struct out_view *out, const void *tile, const struct matrix *w,
                          const struct act_rows *x, int row, int n_rows)
{
    gemm_tokens(out, tile, w, x, row, n_rows, GEMM_SIX, false);
}

void qp_gemm_signed_avx512(const struct out_view *out, const void *tile, const struct matrix *w,
                           const struct act_rows *x, int row, int n_rows)
{
    gemm_tokens(out, tile, w, x, row, n_rows, GEMM_SIX, true);
}
#endif

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
