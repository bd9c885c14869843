/* attention_amx.c: the products of attention with the matrix tiles of AMX.
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * linear_amx.c multiplies the same way, but its products have another shape: a tile of weights has
 * many columns, and all tokens pass it. Here up to 32 rows, queries or probabilities, are
 * multiplied by many tiles of few columns. So the tile registers are configured once for all tiles,
 * sums that are not complete stay in the result, and with one block of columns the rows stay in
 * registers.
 *
 * A step multiplies 16 or 32 rows by 32 rows of a tile over one block of columns. Up to four steps
 * leave their sums in L1, then those are scaled and added as floats. The sums of a step are stored
 * just before its registers are used again (docs/notes/prefill.md). */
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
    SET_ROWS = 16,            // of a tile register
    SET_SUMS = SET_ROWS * 16, // int32 in a tile register
    N_SETS = 2,               // of 16 rows that are multiplied together
    STEP_ROWS = 32,           // of the tile, likewise
    N_STEPS = 4               // whose sums are in L1 together
};

/* [step][2 * set + half of the tile's rows] */
typedef int32_t step_dots[N_STEPS][2 * N_SETS][SET_SUMS];

/* Tile registers; the instructions need literals. */
#define DOTS_00 0
#define DOTS_01 1
#define DOTS_10 2
#define DOTS_11 3
#define SET_0 4
#define SET_1 5
#define HALF_0 6
#define HALF_1 7

/* 16 or 32 rows of a product, and where their results begin. */
struct row_sets {
    int n_sets;
    const int8_t *q;
    const float *scales; // [rows, n_blocks]
    float *y;
    size_t q_stride, y_stride, n_blocks;
};

/* ---- integer sums ---- */

/* n steps, from one to the next `q_step` and `tile_step` bytes further. q_step is 0 if all of them
 * have the same rows. */
struct amx_steps {
    const int8_t *q;
    const uint8_t *tile;
    size_t q_stride, q_step, tile_step;
    int n;
};

// clang-format off
#define LOAD_SET(set) _tile_loadd(SET_##set, q + set * SET_ROWS * s->q_stride, s->q_stride);
#define STORE_DOTS(set, half, i) _tile_stored(DOTS_##set##half, dots[i][2 * set + half], 64);
/* What the register holds of the step before is stored first. */
#define MULTIPLY_DOTS(set, half)                                                                   \
    if (i > 0) {                                                                                   \
        STORE_DOTS(set, half, i - 1)                                                               \
    }                                                                                              \
    _tile_zero(DOTS_##set##half);                                                                  \
    _tile_dpbssd(DOTS_##set##half, SET_##set, HALF_##half);
// clang-format on

static inline __attribute__((always_inline)) void
multiply_steps_of(step_dots dots, const struct amx_steps *s, int n_sets, bool has_same_rows)
{
    const int8_t *q = s->q;
    const uint8_t *tile = s->tile;
    assert(s->n > 0 && s->n <= N_STEPS);
    for (int i = 0; i < s->n; i++, q += s->q_step, tile += s->tile_step) {
        if (i == 0 || !has_same_rows) {
            LOAD_SET(0)
            if (n_sets > 1) {
                LOAD_SET(1)
            }
        }
        _tile_loadd(HALF_0, tile, 64);
        _tile_loadd(HALF_1, tile + 16 * ACT_BLOCK, 64);
        MULTIPLY_DOTS(0, 0)
        MULTIPLY_DOTS(0, 1)
        if (n_sets > 1) {
            MULTIPLY_DOTS(1, 0)
            MULTIPLY_DOTS(1, 1)
        }
    }
    STORE_DOTS(0, 0, s->n - 1)
    STORE_DOTS(0, 1, s->n - 1)
    if (n_sets > 1) {
        STORE_DOTS(1, 0, s->n - 1)
        STORE_DOTS(1, 1, s->n - 1)
    }
}

static void multiply_steps(step_dots dots, const struct amx_steps *s, int n_sets)
{
    if (n_sets > 1 && s->q_step == 0)
        multiply_steps_of(dots, s, 2, true);
    else if (n_sets > 1)
        multiply_steps_of(dots, s, 2, false);
    else if (s->q_step == 0)
        multiply_steps_of(dots, s, 1, true);
    else
        multiply_steps_of(dots, s, 1, false);
}

/* ---- floats ---- */

/* The results of 16 rows and 16 rows of the tile. */
struct amx_result {
    float *y;
    size_t y_stride;
    const int32_t *dots;  // of the first step
    const float *scales;  // of the first row and step
    size_t scale_stride;  // to the next row
    const float *of_tile; // scales of the tile's rows if the sums become complete, or NULL
    bool is_first;        // the sums start from 0, not from y
};

// clang-format off
#define EACH_SET_ROW(M)                                                                            \
    M(0) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10) M(11) M(12) M(13) M(14) M(15)
#define SCALED_DOT(t) _mm512_mul_ps(_mm512_set1_ps(scales[t * stride]),                            \
                                    _mm512_cvtepi32_ps(_mm512_load_si512(dots + 16 * t)))
#define ZERO_ROW(t) __m512 sum##t = _mm512_setzero_ps();
#define LOAD_ROW(t) sum##t = _mm512_loadu_ps(r->y + t * y_stride);
#define ADD_DOT(t) sum##t = _mm512_add_ps(sum##t, SCALED_DOT(t));
#define TIMES_TILE(t) sum##t = _mm512_mul_ps(sum##t, of_tile);
#define STORE_ROW(t) _mm512_storeu_ps(r->y + t * y_stride, sum##t);
#define STORE_SINGLE(t)                                                                            \
    _mm512_storeu_ps(y + t * y_stride, _mm512_mul_ps(_mm512_add_ps(zero, SCALED_DOT(t)), of_tile));
// clang-format on

/* Not inlined, so that 16 sums have registers. */
__attribute__((noinline)) static void add_steps(const struct amx_result *r, int n)
{
    const size_t y_stride = r->y_stride, stride = r->scale_stride;
    const int32_t *dots = r->dots;
    const float *scales = r->scales;
    EACH_SET_ROW(ZERO_ROW)
    if (!r->is_first) {
        EACH_SET_ROW(LOAD_ROW)
    }
    for (int i = 0; i < n; i++, scales++, dots += 2 * N_SETS * SET_SUMS) {
        EACH_SET_ROW(ADD_DOT)
    }
    if (r->of_tile) {
        const __m512 of_tile = _mm512_loadu_ps(r->of_tile);
        EACH_SET_ROW(TIMES_TILE)
    }
    EACH_SET_ROW(STORE_ROW)
}

/* The same for sums of a single step. */
__attribute__((noinline)) static void scale_step_dots(float *y, size_t y_stride,
                                                      const int32_t *dots, const float *scales,
                                                      const float *of_rows)
{
    const __m512 of_tile = _mm512_loadu_ps(of_rows), zero = _mm512_setzero_ps();
    const size_t stride = 1;
    EACH_SET_ROW(STORE_SINGLE)
}

/* ---- tiles ---- */

/* n_rows rows of tiles that follow each other, of one block of columns: scores of 64 dimensions. */
static void multiply_narrow(const struct row_sets *x, const uint8_t *tiles, const float *of_tiles,
                            int n_rows)
{
    _Alignas(64) step_dots dots;
    struct amx_steps s = { .q = x->q, .q_stride = x->q_stride, .tile_step = STEP_ROWS * ACT_BLOCK };
    for (int row = 0; row < n_rows; row += N_STEPS * STEP_ROWS) {
        const int n = qp_min(n_rows - row, N_STEPS * STEP_ROWS);
        s.tile = tiles + (size_t)row * ACT_BLOCK;
        s.n = (n + STEP_ROWS - 1) / STEP_ROWS;
        multiply_steps(dots, &s, x->n_sets);
        for (int set = 0; set < x->n_sets; set++)
            for (int i = 0; i < n; i += 16)
                scale_step_dots(x->y + (size_t)(set * SET_ROWS) * x->y_stride + row + i,
                                x->y_stride, dots[i / STEP_ROWS][2 * set + i / 16 % 2],
                                x->scales + set * SET_ROWS, of_tiles + row + i);
    }
}

/* n_rows rows of one tile, with results from y on. of_tile may be NULL: then the sums start from
 * there, as in gemm. */
static void multiply_tile_rows(const struct row_sets *x, float *y, const uint8_t *tile,
                               const float *of_tile, int n_rows)
{
    _Alignas(64) step_dots dots;
    struct amx_steps s = { .q_stride = x->q_stride,
                           .q_step = ACT_BLOCK,
                           .tile_step = TILE_ROWS * ACT_BLOCK };
    for (int row = 0; row < n_rows; row += STEP_ROWS)
        for (size_t b = 0; b < x->n_blocks; b += N_STEPS) {
            s.q = x->q + b * ACT_BLOCK;
            s.tile = tile + b * TILE_ROWS * ACT_BLOCK + (size_t)row * ACT_BLOCK;
            s.n = x->n_blocks - b < N_STEPS ? (int)(x->n_blocks - b) : N_STEPS;
            multiply_steps(dots, &s, x->n_sets);
            struct amx_result r = { .y_stride = x->y_stride,
                                    .scale_stride = x->n_blocks,
                                    .is_first = of_tile && b == 0 };
            const bool is_last = of_tile && b + N_STEPS >= x->n_blocks;
            for (int set = 0; set < x->n_sets; set++)
                for (int i = row; i < qp_min(n_rows, row + STEP_ROWS); i += 16) {
                    r.y = y + (size_t)(set * SET_ROWS) * x->y_stride + i;
                    r.dots = dots[0][2 * set + i / 16 % 2];
                    r.scales = x->scales + (size_t)(set * SET_ROWS) * x->n_blocks + b;
                    r.of_tile = is_last ? of_tile + i : NULL;
                    add_steps(&r, s.n);
                }
        }
}

/* ---- all rows ---- */

/* Rows [t, x->n) with the AVX-512 kernel, which reads the same tiles. */
static void multiply_rest(const struct out_view *out, const struct tiles *tiles,
                          const struct matrix *w, const struct act_rows *x, int t)
{
    const size_t first = (size_t)t, n_blocks = qp_round_up((size_t)w->n_in, ACT_BLOCK) / ACT_BLOCK;
    const struct act_rows rest = { x->q + first * x->q_stride, x->q_stride,
                                   x->scales + first * n_blocks, x->offsets + first * n_blocks,
                                   x->n - t };
    for (int row = 0; row < w->n_out; row += TILE_ROWS) {
        const struct out_view to = { out->y + first * out->stride + row, out->stride };
        qp_gemm_signed_avx512(&to, qp_tile_at(tiles, row), w, &rest, row,
                              qp_min(w->n_out - row, TILE_ROWS));
    }
}

static void gemm_tiles_amx(const struct out_view *out, const struct tiles *tiles,
                           const struct matrix *w, const struct act_rows *x)
{
    assert(!w->bias && qp_is_act_rows(x, w->n_in));
    const size_t n_blocks = qp_round_up((size_t)w->n_in, ACT_BLOCK) / ACT_BLOCK;
    const bool is_narrow = n_blocks == 1 && tiles->stride == TILE_ROWS * ACT_BLOCK && w->scales;
    const int n = w->n_out % 16 == 0 ? x->n / SET_ROWS * SET_ROWS : 0;
    if (n > 0)
        begin_tiles();
    for (int t = 0; t < n; t += N_SETS * SET_ROWS) {
        const size_t first = (size_t)t;
        const struct row_sets sets = { .n_sets = qp_min((n - t) / SET_ROWS, N_SETS),
                                       .q = x->q + first * x->q_stride,
                                       .scales = x->scales + first * n_blocks,
                                       .y = out->y + first * out->stride,
                                       .q_stride = x->q_stride,
                                       .y_stride = out->stride,
                                       .n_blocks = n_blocks };
        if (is_narrow)
            multiply_narrow(&sets, tiles->first, w->scales, w->n_out);
        for (int row = 0; row < w->n_out && !is_narrow; row += TILE_ROWS)
            multiply_tile_rows(&sets, sets.y + row, qp_tile_at(tiles, row),
                               w->scales ? w->scales + row : NULL,
                               qp_min(w->n_out - row, TILE_ROWS));
    }
    if (n > 0)
        _tile_release();
    if (n < x->n)
        multiply_rest(out, tiles, w, x, n);
}

void qp_attention_kernels_amx(struct kernels *k)
{
    k->gemm_tiles = gemm_tiles_amx;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
