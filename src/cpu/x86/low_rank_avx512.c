/* low_rank_avx512.c: products of low-rank matrices with vpdpbusd on 512-bit registers.
 * In, out, order of rounding: scalar/low_rank_scalar.c, to the bit. A vector is four columns of
 * sixteen rows, multiplied by four elements of x, which are broadcast. The weights must be
 * unsigned, hence plus 128, which act_rows.offsets subtracts. */
#include "cpu/low_rank.h"
#include "cpu/x86/x86.h"

#if defined(__x86_64__)

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include "cpu/x86/linear_avx512.h"

enum {
    BLOCK_STEPS = ACT_BLOCK / LOW_RANK_STEP,
    TILE_GROUPS = TILE_ROWS / LOW_RANK_ROWS,
    TOKENS_AT_ONCE = 32 // their sums are in L1 while a block of weights is in registers
};

static inline __m512i unsigned_step(const uint8_t *step)
{
    return _mm512_xor_si512(_mm512_load_si512(step), _mm512_set1_epi8(-128));
}

static inline __m512i low_rank_dot(__m512i dot, __m512i w, const int8_t *q)
{
    return _mm512_dpbusd_epi32(dot, w, broadcast_4(q));
}

/* sums[t] += scale * dot for one block of sixteen rows. n_steps is a constant where this is
 * inlined, so the weights are in registers. Two accumulators, because one would wait for itself. */
static inline __attribute__((always_inline)) void add_low_rank_block(__m512 *sums,
                                                                     const uint8_t *steps,
                                                                     const struct act_rows *x,
                                                                     int n_blocks, int n_steps)
{
    __m512i w[BLOCK_STEPS];
    UNROLL
    for (int j = 0; j < n_steps; j++)
        w[j] = unsigned_step(steps + j * LOW_RANK_STEP_BYTES);
    for (int t = 0; t < x->n; t++) {
        const int8_t *q = x->q + (size_t)t * x->q_stride;
        const size_t block = (size_t)t * (size_t)n_blocks;
        __m512i even = _mm512_set1_epi32(x->offsets[block]), odd = _mm512_setzero_si512();
        UNROLL
        for (int j = 0; j < n_steps; j += 2) {
            even = low_rank_dot(even, w[j], q + j * LOW_RANK_STEP);
            if (j + 1 < n_steps)
                odd = low_rank_dot(odd, w[j + 1], q + (j + 1) * LOW_RANK_STEP);
        }
        const __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
        sums[t] = _mm512_add_ps(sums[t], _mm512_mul_ps(_mm512_set1_ps(x->scales[block]), dot));
    }
}

/* The same for the last steps of a row, filled up to a block. */
static __attribute__((noinline)) void add_low_rank_part(__m512 *sums, const uint8_t *steps,
                                                        const struct act_rows *x, int n_blocks,
                                                        int n_steps)
{
    uint8_t whole[ACT_BLOCK * LOW_RANK_ROWS] __attribute__((aligned(64))) = { 0 };
    memcpy(whole, steps, (size_t)n_steps * LOW_RANK_STEP_BYTES);
    add_low_rank_block(sums, whole, x, n_blocks, BLOCK_STEPS);
}

/* The same for the last steps of a row; those of the usual ranks 8, 16 and 32 are not copied. */
static inline void add_low_rank_rest(__m512 *sums, const uint8_t *steps, const struct act_rows *x,
                                     int n_blocks, int n_steps)
{
    if (n_steps == 2)
        add_low_rank_block(sums, steps, x, n_blocks, 2);
    else if (n_steps == 4)
        add_low_rank_block(sums, steps, x, n_blocks, 4);
    else if (n_steps == 8)
        add_low_rank_block(sums, steps, x, n_blocks, 8);
    else
        add_low_rank_part(sums, steps, x, n_blocks, n_steps);
}

/* y += sum * scale for rows [begin, end) of the sixteen; y is that of row begin. */
static inline void add_low_rank_sum(float *y, __m512 sum, __m512 scales, int begin, int end)
{
    const __m512 add = _mm512_mul_ps(sum, scales);
    if (end - begin == LOW_RANK_ROWS) {
        _mm512_storeu_ps(y, _mm512_add_ps(_mm512_loadu_ps(y), add));
        return;
    }
    const __mmask16 wanted = (__mmask16)(0xffffu << begin);
    const __mmask16 mask = (__mmask16)(0xffffu >> (LOW_RANK_ROWS - (end - begin)));
    _mm512_mask_storeu_ps(
        y, mask,
        _mm512_add_ps(_mm512_maskz_loadu_ps(mask, y), _mm512_maskz_compress_ps(wanted, add)));
}

static inline void fetch_steps(const uint8_t *steps, int n_steps)
{
    for (int j = 0; j < n_steps; j++)
        _mm_prefetch((const char *)steps + j * LOW_RANK_STEP_BYTES, _MM_HINT_T0);
}

/* Rows [begin, end) of the group, for up to TOKENS_AT_ONCE tokens; y is that of row begin. */
static inline void add_low_rank_group(const struct out_view *out, const uint8_t *group,
                                      const struct act_rows *tokens, int n_steps, int begin,
                                      int end)
{
    __m512 sums[TOKENS_AT_ONCE];
    struct act_rows x = *tokens; // from some block on
    const uint8_t *steps = group + LOW_RANK_SCALE_BYTES;
    const __m512 scales = _mm512_load_ps(qp_low_rank_scales(group));
    const int n_blocks = (n_steps + BLOCK_STEPS - 1) / BLOCK_STEPS;
    for (int t = 0; t < x.n; t++)
        sums[t] = _mm512_setzero_ps();
    for (; n_steps >= BLOCK_STEPS; n_steps -= BLOCK_STEPS) {
        fetch_steps(steps + LOW_RANK_AHEAD, BLOCK_STEPS);
        add_low_rank_block(sums, steps, &x, n_blocks, BLOCK_STEPS);
        steps += BLOCK_STEPS * LOW_RANK_STEP_BYTES;
        x.q += ACT_BLOCK;
        x.scales++;
        x.offsets++;
    }
    fetch_steps(steps + LOW_RANK_AHEAD, n_steps);
    if (n_steps)
        add_low_rank_rest(sums, steps, &x, n_blocks, n_steps);
    for (int t = 0; t < x.n; t++)
        add_low_rank_sum(out->y + (size_t)t * out->stride, sums[t], scales, begin, end);
}

/* The same for one token. */
static inline void add_low_rank_group_one(float *y, const uint8_t *group, const struct act_rows *x,
                                          int n_steps, int begin, int end)
{
    const uint8_t *steps = group + LOW_RANK_SCALE_BYTES;
    const int8_t *q = x->q;
    __m512 sum = _mm512_setzero_ps();
    for (int k = 0, b = 0; k < n_steps; b++) {
        const int stop = n_steps - k < BLOCK_STEPS ? n_steps : k + BLOCK_STEPS;
        __m512i even = _mm512_set1_epi32(x->offsets[b]), odd = _mm512_setzero_si512();
        for (; k + 2 <= stop; k += 2) {
            const uint8_t *p = steps + (size_t)k * LOW_RANK_STEP_BYTES;
            _mm_prefetch((const char *)p + LOW_RANK_AHEAD, _MM_HINT_T0);
            _mm_prefetch((const char *)p + LOW_RANK_AHEAD + 64, _MM_HINT_T0);
            even = low_rank_dot(even, unsigned_step(p), q + k * LOW_RANK_STEP);
            odd = low_rank_dot(odd, unsigned_step(p + LOW_RANK_STEP_BYTES),
                               q + (k + 1) * LOW_RANK_STEP);
        }
        for (; k < stop; k++)
            even = low_rank_dot(even, unsigned_step(steps + (size_t)k * LOW_RANK_STEP_BYTES),
                                q + k * LOW_RANK_STEP);
        const __m512 dot = _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
        sum = _mm512_add_ps(sum, _mm512_mul_ps(_mm512_set1_ps(x->scales[b]), dot));
    }
    add_low_rank_sum(y, sum, _mm512_load_ps(qp_low_rank_scales(group)), begin, end);
}

/* 64 rows of rank up to 16: their weights are in registers while all tokens pass. */
static inline __attribute__((always_inline)) void add_low_rank_tile(const struct out_view *out,
                                                                    const uint8_t *groups,
                                                                    const struct act_rows *x,
                                                                    int n_steps)
{
    float *y = out->y;
    const size_t group_bytes = LOW_RANK_SCALE_BYTES + (size_t)n_steps * LOW_RANK_STEP_BYTES;
    __m512i w[TILE_GROUPS][4];
    __m512 scales[TILE_GROUPS];
    UNROLL
    for (int g = 0; g < TILE_GROUPS; g++) {
        const uint8_t *group = groups + (size_t)g * group_bytes;
        scales[g] = _mm512_load_ps(qp_low_rank_scales(group));
        UNROLL
        for (int j = 0; j < n_steps; j++)
            w[g][j] = unsigned_step(group + LOW_RANK_SCALE_BYTES + j * LOW_RANK_STEP_BYTES);
    }
    for (int t = 0; t < x->n; t++, y += out->stride) {
        const int8_t *q = x->q + (size_t)t * x->q_stride;
        const __m512 scale = _mm512_set1_ps(x->scales[t]);
        __m512i dot[TILE_GROUPS];
        UNROLL
        for (int g = 0; g < TILE_GROUPS; g++)
            dot[g] = _mm512_set1_epi32(x->offsets[t]);
        UNROLL
        for (int j = 0; j < n_steps; j++) {
            UNROLL
            for (int g = 0; g < TILE_GROUPS; g++)
                dot[g] = low_rank_dot(dot[g], w[g][j], q + j * LOW_RANK_STEP);
        }
        UNROLL
        for (int g = 0; g < TILE_GROUPS; g++) {
            const __m512 sum = _mm512_add_ps(_mm512_setzero_ps(),
                                             _mm512_mul_ps(scale, _mm512_cvtepi32_ps(dot[g])));
            add_low_rank_sum(y + g * LOW_RANK_ROWS, sum, scales[g], 0, LOW_RANK_ROWS);
        }
    }
}

/* Group by group, for one token or up to TOKENS_AT_ONCE; is_one is a constant where this is
 * inlined.
 */
static inline __attribute__((always_inline)) void
add_low_rank_groups(const struct out_view *out, const struct low_rank *w, const struct act_rows *x,
                    int begin, int end, bool is_one)
{
    const int n_steps = qp_low_rank_steps(w);
    const size_t group_bytes = qp_low_rank_group_bytes(w);
    const uint8_t *group = qp_low_rank_group(w, begin);
    for (int r = begin / LOW_RANK_ROWS * LOW_RANK_ROWS; r < end;
         r += LOW_RANK_ROWS, group += group_bytes) {
        const int first = r < begin ? begin - r : 0;
        const int last = end - r < LOW_RANK_ROWS ? end - r : LOW_RANK_ROWS;
        const struct out_view to = { out->y + (r + first - begin), out->stride };
        if (is_one)
            add_low_rank_group_one(to.y, group, x, n_steps, first, last);
        else
            add_low_rank_group(&to, group, x, n_steps, first, last);
    }
}

static void add_low_rank_avx512(const struct out_view *out, const struct low_rank *w,
                                const struct act_rows *x, int begin, int end)
{
    assert(begin >= 0 && begin < end && end <= w->n_out && (uintptr_t)w->groups % 64 == 0);
    assert(qp_is_act_rows(x, w->n_in));
    if (x->n == 1) {
        add_low_rank_groups(out, w, x, begin, end, true);
        return;
    }
    const int n_steps = qp_low_rank_steps(w), n_blocks = (n_steps + BLOCK_STEPS - 1) / BLOCK_STEPS;
    const bool is_tile = n_steps == 4 && begin % LOW_RANK_ROWS == 0 && end - begin == TILE_ROWS;
    for (int t = 0; t < x->n; t += TOKENS_AT_ONCE) {
        const size_t block = (size_t)t * (size_t)n_blocks;
        const struct act_rows some = { .q = x->q + (size_t)t * x->q_stride,
                                       .q_stride = x->q_stride,
                                       .scales = x->scales + block,
                                       .offsets = x->offsets + block,
                                       .n = qp_min(x->n - t, TOKENS_AT_ONCE) };
        const struct out_view to = { out->y + (size_t)t * out->stride, out->stride };
        if (is_tile)
            add_low_rank_tile(&to, qp_low_rank_group(w, begin), &some, 4);
        else
            add_low_rank_groups(&to, w, &some, begin, end, false);
    }
}

void qp_low_rank_kernels_avx512(struct kernels *k)
{
    k->add_low_rank = add_low_rank_avx512;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
