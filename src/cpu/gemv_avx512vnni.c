/* gemv_avx512vnni.c: matrix products of few tokens, straight from the file, on 512-bit registers.
 * In, out, order of rounding: linear_scalar.c, to the bit. Memory is the limit here, and what
 * matters is the order in which it is read (docs/performance.md).
 *
 * vpdpbusd and the weights' offset of 128: linear_avx512vnni.c. */
#include "cpu/kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include "cpu/linear_avx512.h"

/* ---- one token: row after row, as a plain read goes ----
 * Per 64 bytes of weights one or two vpdpbusd leave 16 partial sums. A tree of shuffles and adds
 * makes sums of them, four vectors of a row at a time ("quads") and then 16 rows at a time, so that
 * in the end a vector holds the same block of 16 rows. */
enum {
    ROWS = 16,
    I8_STRETCH = 16384, // bytes of each row before the next, so that most rows are read whole:
    I4_STRETCH = 8192,  // 4 KiB, which keeps the quads in L1, reads rows of 6 KiB at 3/4 the speed
    AHEAD = 4096,       // bytes that are fetched while reading
    FAR_AHEAD = 8192    // the same, of rows longer than AHEAD, whose sums take longer between reads
};

/* What to fetch while reading n bytes of row i of 16, from `at` on: what comes a fixed number of
 * bytes later in the order of reading. Near the end of a stretch that is in the next row, or after
 * the last row in the first one's next stretch. */
struct fetch {
    int n_near;             // of the n bytes: what they fetch is in the same stretch
    ptrdiff_t near, beyond; // how far away it is, for those and the others
};

static inline struct fetch fetch_ahead(const struct matrix *w, int i, int at, int n, int stretch)
{
    const ptrdiff_t row_bytes = (ptrdiff_t)w->row_bytes;
    const int ahead = row_bytes > AHEAD ? FAR_AHEAD : AHEAD;
    const bool is_last_stretch = at + n >= row_bytes;
    const ptrdiff_t to_next = i < ROWS - 1      ? row_bytes
                              : is_last_stretch ? row_bytes - at
                                                : stretch - (ROWS - 1) * row_bytes;
    return (struct fetch){ n - ahead, ahead, to_next - n + ahead };
}

static inline ptrdiff_t fetch_at(const struct fetch *f, int k)
{
    return k < f->n_near ? f->near : f->beyond;
}

/* In each 128-bit lane: four sums, of vectors a to d. */
static inline __m512i sum_quads(__m512i a, __m512i b, __m512i c, __m512i d)
{
    __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
}

/* 128-bit lanes (a0 + a1, a2 + a3, b0 + b1, b2 + b3) */
static inline __m512i sum_lane_pairs(__m512i a, __m512i b)
{
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
}

/* Lane i of v[g], of four sums, is row 4 g + i. Afterwards v[j] is sum j of all rows; 128-bit lane
 * i has rows i, 4 + i, 8 + i, 12 + i. */
static inline void transpose_sums(__m512i v[4])
{
    __m512i a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
    __m512i c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm512_unpacklo_epi64(a, c);
    v[1] = _mm512_unpackhi_epi64(a, c);
    v[2] = _mm512_unpacklo_epi64(b, d);
    v[3] = _mm512_unpackhi_epi64(b, d);
}

/* The rows of such a vector in order. */
static inline __m512 rows_in_order(__m512 v)
{
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_ps(order, v);
}

/* sum + scale * (dot + offset) */
static inline __m512 add_block(__m512 sum, __m512i dot, int32_t offset, float scale)
{
    __m512 exact = _mm512_cvtepi32_ps(_mm512_add_epi32(dot, _mm512_set1_epi32(offset)));
    return mul_add_avx512(_mm512_set1_ps(scale), exact, sum);
}

/* ---- int8: a vector is one block ---- */

static inline __m512i dot_i8(const uint8_t *w, ptrdiff_t ahead, const int8_t *q, __mmask64 w_mask,
                             __mmask64 q_mask)
{
    return _mm512_dpbusd_epi32(_mm512_setzero_si512(), load_i8(w, ahead, w_mask),
                               _mm512_maskz_loadu_epi8(q_mask, q));
}

/* Bytes [0, n) of a row against q, which goes on with zeros to n_q. */
static inline __m512i quad_i8(const uint8_t *w, ptrdiff_t ahead, const int8_t *q, int n, int n_q)
{
    return sum_quads(dot_i8(w, ahead, q, bytes_below(n), bytes_below(n_q)),
                     dot_i8(w + 64, ahead, q + 64, bytes_below(n - 64), bytes_below(n_q - 64)),
                     dot_i8(w + 128, ahead, q + 128, bytes_below(n - 128), bytes_below(n_q - 128)),
                     dot_i8(w + 192, ahead, q + 192, bytes_below(n - 192), bytes_below(n_q - 192)));
}

static inline void row_quads_i8(__m512i quads[][ROWS], int row, const uint8_t *w, struct fetch f,
                                const int8_t *q, int n, int n_q)
{
    int k = 0, j = 0;
    for (; k + 256 <= n; k += 256)
        quads[j++][row] = quad_i8(w + k, fetch_at(&f, k), q + k, 256, 256);
    if (k < n)
        quads[j][row] = quad_i8(w + k, f.beyond, q + k, n - k, n_q - k);
}

/* sum += the blocks [0, n_blocks) of quads. */
static inline __m512 add_quads_i8(__m512 sum, const __m512i quads[][ROWS], const float *scales,
                                  const int32_t *offsets, int n_blocks)
{
    for (int b = 0; b < n_blocks; b += 4) {
        const __m512i *v = quads[b / 4];
        __m512i sums[4];
        UNROLL
        for (int g = 0; g < 4; g++)
            sums[g] = sum_lane_pairs(sum_lane_pairs(v[4 * g], v[4 * g + 1]),
                                     sum_lane_pairs(v[4 * g + 2], v[4 * g + 3]));
        transpose_sums(sums);
        sum = add_block(sum, sums[0], offsets[b], scales[b]);
        if (b + 1 < n_blocks)
            sum = add_block(sum, sums[1], offsets[b + 1], scales[b + 1]);
        if (b + 2 < n_blocks)
            sum = add_block(sum, sums[2], offsets[b + 2], scales[b + 2]);
        if (b + 3 < n_blocks)
            sum = add_block(sum, sums[3], offsets[b + 3], scales[b + 3]);
    }
    return sum;
}

static void gemv_i8_avx512(float *y, const struct matrix *w, const struct act_row *x, int begin,
                           int end)
{
    const int n_padded = (int)qp_round_up((size_t)w->n_in, ACT_BLOCK);
    __m512i quads[I8_STRETCH / 256][ROWS];
    for (int r = begin; r < end; r += ROWS) {
        __m512 sum = _mm512_setzero_ps();
        for (int k = 0; k < w->n_in; k += I8_STRETCH) {
            const int n = w->n_in - k < I8_STRETCH ? w->n_in - k : I8_STRETCH, b = k / ACT_BLOCK;
            const int n_q = n_padded - k < I8_STRETCH ? n_padded - k : I8_STRETCH;
            for (int i = 0; i < ROWS; i++) { // past the last row the last is repeated
                const uint8_t *row = qp_matrix_row(w, r + i < end ? r + i : end - 1);
                row_quads_i8(quads, i, row + k, fetch_ahead(w, i, k, n, I8_STRETCH), x->q + k, n,
                             n_q);
            }
            sum = add_quads_i8(sum, quads, x->scales + b, x->offsets + b, n_q / ACT_BLOCK);
        }
        store_rows(y + r, rows_in_order(sum), w, r, lanes_below(end - r));
    }
}

/* ---- int4: a vector is two blocks ----
 * Low nibbles are the even k, high ones the odd: the activations are put in that order first.
 *
 * Block-wise: codes become their values plus 16 by a shuffle. A lane's eight products, whose sum is
 * below 2^15, are of one block, so that its multiplier comes after: a vpmaddwd of the low words. */

/* Words to bytes; packs works by 128-bit lane. */
static inline __m512i pack_words(__m512i a, __m512i b)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return _mm512_permutexvar_epi64(order, _mm512_packs_epi16(a, b));
}

struct even_odd {
    int8_t even[I4_STRETCH], odd[I4_STRETCH]; // of two blocks each 64
    int32_t start[I4_STRETCH / 4];            // what the 16 of block-wise values adds, negative
};

/* From q [n_q], whole blocks; the rest of the last 128 becomes zero. */
static inline void split_even_odd(struct even_odd *to, const int8_t *q, int n_q)
{
    const __m512i sixteen = _mm512_set1_epi8(16);
    for (int k = 0; k < n_q; k += 128) {
        __m512i a = _mm512_loadu_si512(q + k);
        __m512i b = _mm512_maskz_loadu_epi8(bytes_below(n_q - k - 64), q + k + 64);
        __m512i even = pack_words(_mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8),
                                  _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
        __m512i odd = pack_words(_mm512_srai_epi16(a, 8), _mm512_srai_epi16(b, 8));
        __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), sixteen, even);
        sums = _mm512_dpbusd_epi32(sums, sixteen, odd);
        _mm512_storeu_si512(to->even + k / 2, even);
        _mm512_storeu_si512(to->odd + k / 2, odd);
        _mm512_storeu_si512(to->start + k / 8, _mm512_sub_epi32(_mm512_setzero_si512(), sums));
    }
}

/* The multipliers of 128 weights, each in the low words of its two lanes. */
static inline __m512i lane_multipliers(const uint8_t *multipliers)
{
    const __m512i to_bit_12 =
        _mm512_setr_epi32(12, 12, 8, 8, 4, 4, 0, 0, 28, 28, 24, 24, 20, 20, 16, 16);
    int32_t eight;
    memcpy(&eight, multipliers, sizeof eight);
    __m512i turned = _mm512_rolv_epi32(_mm512_set1_epi32(eight), to_bit_12);
    return _mm512_maskz_srai_epi16(0x55555555, turned, 12);
}

/* 64 bytes of a row, `at` bytes from the beginning of its stretch; multipliers NULL: plain int4. */
static inline __attribute__((always_inline)) __m512i dot_i4(const uint8_t *w, ptrdiff_t ahead,
                                                            const uint8_t *multipliers,
                                                            const struct even_odd *q, int at,
                                                            __mmask64 mask)
{
    if (multipliers && !mask) // past the row, where it has no multipliers
        return _mm512_setzero_si512();
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i values =
        _mm512_add_epi8(_mm512_broadcast_i32x4(load_values(1)), _mm512_set1_epi8(16));
    _mm_prefetch((const char *)w + at + ahead, _MM_HINT_T0);
    __m512i u = _mm512_maskz_loadu_epi8(mask, w + at);
    __m512i low = _mm512_and_si512(u, nibble);
    __m512i high = _mm512_and_si512(_mm512_srli_epi16(u, 4), nibble);
    __m512i dot = _mm512_setzero_si512();
    if (multipliers) {
        low = _mm512_shuffle_epi8(values, low);
        high = _mm512_shuffle_epi8(values, high);
        dot = _mm512_loadu_si512(q->start + at / 4);
    }
    dot = _mm512_dpbusd_epi32(dot, low, _mm512_loadu_si512(q->even + at));
    dot = _mm512_dpbusd_epi32(dot, high, _mm512_loadu_si512(q->odd + at));
    return multipliers ? _mm512_madd_epi16(dot, lane_multipliers(multipliers + at / 16)) : dot;
}

/* Bytes [at, at + n) of a row's stretch. What lies past the row counts as zero weights, nibble 0:
 * its q may be anything, or in block-wise rows is zero. */
static inline __attribute__((always_inline)) __m512i quad_i4(const uint8_t *w, ptrdiff_t ahead,
                                                             const uint8_t *multipliers,
                                                             const struct even_odd *q, int at,
                                                             int n)
{
    if (multipliers)
        _mm_prefetch((const char *)multipliers + (at + ahead) / 16, _MM_HINT_T0);
    return sum_quads(dot_i4(w, ahead, multipliers, q, at, bytes_below(n)),
                     dot_i4(w, ahead, multipliers, q, at + 64, bytes_below(n - 64)),
                     dot_i4(w, ahead, multipliers, q, at + 128, bytes_below(n - 128)),
                     dot_i4(w, ahead, multipliers, q, at + 192, bytes_below(n - 192)));
}

static inline __attribute__((always_inline)) void row_quads_i4(__m512i quads[][ROWS], int row,
                                                               const uint8_t *w, struct fetch f,
                                                               const uint8_t *multipliers,
                                                               const struct even_odd *q, int n)
{
    int k = 0, j = 0;
    for (; k + 256 <= n; k += 256)
        quads[j++][row] = quad_i4(w, fetch_at(&f, k), multipliers, q, k, 256);
    if (k < n)
        quads[j][row] = quad_i4(w, f.beyond, multipliers, q, k, n - k);
}

/* A quad is 8 blocks: of each of its sums, 128-bit lanes 0 and 1 are one block, 2 and 3 the next.
 * Nibbles as they lie are the weights plus 8, which offsets / 16 takes away; NULL: nothing to. */
static inline __attribute__((always_inline)) __m512
add_quads_i4(__m512 sum, const __m512i quads[][ROWS], const float *scales, const int32_t *offsets,
             int n_blocks)
{
    for (int b = 0; b < n_blocks; b += 8) {
        const __m512i *v = quads[b / 8];
        __m512i first[4], second[4];
        UNROLL
        for (int g = 0; g < 4; g++) {
            __m512i r01 = sum_lane_pairs(v[4 * g], v[4 * g + 1]);
            __m512i r23 = sum_lane_pairs(v[4 * g + 2], v[4 * g + 3]);
            first[g] = _mm512_shuffle_i32x4(r01, r23, 0x88);
            second[g] = _mm512_shuffle_i32x4(r01, r23, 0xdd);
        }
        transpose_sums(first);
        transpose_sums(second);
        UNROLL
        for (int j = 0; j < 4; j++) {
            const int at = b + 2 * j;
            if (at < n_blocks)
                sum = add_block(sum, first[j], offsets ? offsets[at] / 16 : 0, scales[at]);
            if (at + 1 < n_blocks)
                sum = add_block(sum, second[j], offsets ? offsets[at + 1] / 16 : 0, scales[at + 1]);
        }
    }
    return sum;
}

/* is_block is a constant where this is inlined. */
static inline __attribute__((always_inline)) void gemv_i4_rows(float *y, const struct matrix *w,
                                                               const struct act_row *x, int begin,
                                                               int end, bool is_block)
{
    const int n_padded = (int)qp_round_up((size_t)w->n_in, ACT_BLOCK);
    struct even_odd q;
    __m512i quads[I4_STRETCH / 256][ROWS];
    memset(&q, 0, sizeof q);
    for (int r = begin; r < end; r += ROWS) {
        __m512 sum = _mm512_setzero_ps();
        for (int k = 0; k < w->n_in; k += 2 * I4_STRETCH) {
            const int n = w->n_in - k < 2 * I4_STRETCH ? w->n_in - k : 2 * I4_STRETCH,
                      b = k / ACT_BLOCK;
            const int n_q = n_padded - k < 2 * I4_STRETCH ? n_padded - k : 2 * I4_STRETCH;
            if (r == begin || w->n_in > 2 * I4_STRETCH)
                split_even_odd(&q, x->q + k, n_q);
            for (int i = 0; i < ROWS; i++) { // past the last row the last is repeated
                const int at = r + i < end ? r + i : end - 1;
                const uint8_t *row = qp_matrix_row(w, at);
                const uint8_t *multipliers =
                    is_block ? qp_matrix_multipliers(w, at) + k / (2 * I4_BLOCK) : NULL;
                row_quads_i4(quads, i, row + k / 2, fetch_ahead(w, i, k / 2, n / 2, I4_STRETCH),
                             multipliers, &q, n / 2);
            }
            sum = add_quads_i4(sum, quads, x->scales + b, is_block ? NULL : x->offsets + b,
                               n_q / ACT_BLOCK);
        }
        store_rows(y + r, rows_in_order(sum), w, r, lanes_below(end - r));
    }
}

static void gemv_i4_avx512(float *y, const struct matrix *w, const struct act_row *x, int begin,
                           int end)
{
    gemv_i4_rows(y, w, x, begin, end, false);
}

static void gemv_i4_block_avx512(float *y, const struct matrix *w, const struct act_row *x,
                                 int begin, int end)
{
    gemv_i4_rows(y, w, x, begin, end, true);
}

/* ---- two to eight tokens: 16 rows at a time, turned so that a lane is a row ----
 * 16 rows of 64 weights become 16 vectors of the same four k, in registers; each token's four k are
 * broadcast against them. */

/* Several tokens' activations, and where their sums go. */
struct few_tokens {
    const int8_t *q;
    size_t q_stride;
    const float *scales;
    const int32_t *offsets;
    int n_blocks;
};

static inline __m512i dot_columns(const __m512i v[16], const int8_t *q, int32_t offset)
{
    __m512i even = _mm512_set1_epi32(offset), odd = _mm512_setzero_si512();
    UNROLL
    for (int j = 0; j < 16; j += 2) {
        int32_t four[2];
        memcpy(four, q + 4 * j, sizeof four);
        even = _mm512_dpbusd_epi32(even, v[j], _mm512_set1_epi32(four[0]));
        odd = _mm512_dpbusd_epi32(odd, v[j + 1], _mm512_set1_epi32(four[1]));
    }
    return _mm512_add_epi32(even, odd);
}

/* n_tokens is a constant where this is inlined, so that the sums are registers. */
static inline __attribute__((always_inline)) void few_rows(float *y, size_t y_stride,
                                                           const struct matrix *w,
                                                           const struct few_tokens *x, int r,
                                                           int end, int n_tokens)
{
    const struct rows16 rows = take_rows(w, r, end), multipliers = take_multipliers(w, r, end);
    __m512 sums[FEW_TOKENS];
    UNROLL
    for (int t = 0; t < n_tokens; t++)
        sums[t] = _mm512_setzero_ps();
    for (int k = 0, b = 0; k < w->n_in; k += ACT_BLOCK, b++) {
        __m512i v[16];
        load_rows(v, w, &rows, &multipliers, k);
        transpose_16x16(v);
        UNROLL
        for (int t = 0; t < n_tokens; t++) {
            const int at = t * x->n_blocks + b;
            __m512i dot = dot_columns(v, x->q + (size_t)t * x->q_stride + k, x->offsets[at]);
            sums[t] =
                mul_add_avx512(_mm512_set1_ps(x->scales[at]), _mm512_cvtepi32_ps(dot), sums[t]);
        }
    }
    UNROLL
    for (int t = 0; t < n_tokens; t++)
        store_rows(y + (size_t)t * y_stride + r, sums[t], w, r, lanes_below(end - r));
}

static void gemm_few_avx512(float *y, size_t y_stride, const struct matrix *w, int begin, int end,
                            const int8_t *q, size_t q_stride, const float *scales,
                            const int32_t *offsets, int n_tokens)
{
    const int n_blocks = (int)(qp_round_up((size_t)w->n_in, ACT_BLOCK) / ACT_BLOCK);
    const struct few_tokens x = { q, q_stride, scales, offsets, n_blocks };
    for (int r = begin; r < end; r += 16)
        switch (n_tokens) {
        case 1:
            few_rows(y, y_stride, w, &x, r, end, 1);
            break;
        case 2:
            few_rows(y, y_stride, w, &x, r, end, 2);
            break;
        case 3:
            few_rows(y, y_stride, w, &x, r, end, 3);
            break;
        case 4:
            few_rows(y, y_stride, w, &x, r, end, 4);
            break;
        case 5:
            few_rows(y, y_stride, w, &x, r, end, 5);
            break;
        case 6:
            few_rows(y, y_stride, w, &x, r, end, 6);
            break;
        case 7:
            few_rows(y, y_stride, w, &x, r, end, 7);
            break;
        default:
            few_rows(y, y_stride, w, &x, r, end, 8);
            break;
        }
}

void qp_gemv_kernels_avx512vnni(struct kernels *k)
{
    k->gemv_i8 = gemv_i8_avx512;
    k->gemv_i4 = gemv_i4_avx512;
    k->gemv_i4_block = gemv_i4_block_avx512;
    k->gemm_few = gemm_few_avx512;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else

void qp_gemv_kernels_avx512vnni(struct kernels *k)
{
    (void)k;
}

#endif
