/* gemv_vbmi.c: products of one token and block-wise int4 with AVX-512 VBMI, for Zen 4 and Intel,
 * directly from the mapped file.
 * In, out, order of rounding: scalar/linear_scalar.c, to the bit.
 *
 * Zen 4 runs a 512-bit instruction in two halves on four pipes, two of which shuffle. This kernel
 * has a quarter fewer halves than that of gemv_avx512vnni.c. A quad of vectors is 512 weights:
 * - vpermb needs only the low bits of an index, so that the other nibble need not be cleared.
 * - The sum of eight products fits int16, so vpackssdw puts two vectors in one, and vpmaddwd
 *   multiplies and adds the two sums of a block of 16 weights.
 * - Eight rows are added together, because the float sum of a row is a chain of additions.
 * - The last 32 or 64 bytes of eight rows are one or two quads.
 *
 * Rows longer than L1 allows are read in stretches, eight rows each. What is prefetched goes to L2,
 * and on Intel to L1 when it is read soon (docs/notes/decode.md). */
#include "cpu/x86/x86.h"
#include "format/dtype.h"

#if defined(__x86_64__) && !defined(__ANDROID__) // its devices have neither

#include <assert.h>
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi"))),           \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi")
#endif

#include "cpu/x86/linear_avx512.h"

enum {
    VBMI_ROWS = 8,                           // that are summed together
    VBMI_QUAD = 256,                         // bytes
    VBMI_STRETCH = 4096,                     // bytes of a row before the next row
    VBMI_STRETCHES = 4,                      // whose activations are sorted once
    VBMI_PIECES = 3,                         // stretches to prefetch ahead
    VBMI_AHEAD = VBMI_PIECES * VBMI_STRETCH, // the same in bytes, in rows of one stretch
    VBMI_NEAR = 3072                         // bytes ahead that go to L1
};

/* Activations of a stretch. A pair is 128 of them: the even ones, for the low nibbles, and the odd
 * ones. Beside two pairs: 16 times the sum of the eight activations of each dword. Codes become
 * their values plus 16, and this is what the 16 adds. */
struct vbmi_acts {
    int8_t pairs[VBMI_STRETCH / 64][2][64];
    int16_t offsets[VBMI_STRETCH / 128][32];
};

/* Of eight rows, quad after quad: lane i of 128 bits has a part of a block of activations of each
 * of the four vectors; the other part is in the next lane. */
typedef __m512i vbmi_dots[VBMI_STRETCH / VBMI_QUAD][VBMI_ROWS];

static int vbmi_blocks(int n_bytes)
{
    return (2 * n_bytes + ACT_BLOCK - 1) / ACT_BLOCK;
}

/* The last bytes of a row's stretch of n, if they are multiplied together with those of the other
 * seven rows: 32, one block of activations, or 64. Else 0. */
static int vbmi_end_bytes(int n)
{
    const int n_end = n % VBMI_QUAD;
    return n_end == 32 || n_end == 64 ? n_end : 0;
}

/* Words to bytes; packs works by 128-bit lane. */
static inline __m512i vbmi_bytes(__m512i a, __m512i b)
{
    const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    return _mm512_permutexvar_epi64(order, _mm512_packs_epi16(a, b));
}

/* The activations of vbmi_end_bytes(n): each pair has them, and once more in its other half. */
static void vbmi_repeat_end(struct vbmi_acts *to, int n)
{
    const __m512i sixteen = _mm512_set1_epi8(16);
    int8_t(*pairs)[2][64] = to->pairs + n / VBMI_QUAD * 4;
    int16_t(*offsets)[32] = to->offsets + n / VBMI_QUAD * 2;
    __m512i sums = _mm512_setzero_si512();
    for (int i = 0; i < 2; i++) {
        __m512i v = _mm512_loadu_si512(pairs[0][i]);
        if (vbmi_end_bytes(n) == 32)
            v = _mm512_shuffle_i64x2(v, v, 0x44);
        sums = _mm512_dpbusd_epi32(sums, sixteen, v);
        for (int j = 0; j < 4; j++)
            _mm512_storeu_si512(pairs[j][i], v);
    }
    for (int j = 0; j < 2; j++)
        _mm512_storeu_si512(offsets[j], _mm512_packs_epi32(sums, sums));
}

/* From q, for a stretch of n bytes of a row; the last quad is filled with zeros. */
static void vbmi_sort(struct vbmi_acts *to, const int8_t *q, int n)
{
    const int n_q = vbmi_blocks(n) * ACT_BLOCK;
    const __m512i sixteen = _mm512_set1_epi8(16), zero = _mm512_setzero_si512();
    __m512i before = zero;
    for (int j = 0; 128 * j < n_q || j % 4; j++) {
        const __m512i a = _mm512_maskz_loadu_epi8(bytes_below(n_q - 128 * j), q + 128 * j);
        const __m512i b =
            _mm512_maskz_loadu_epi8(bytes_below(n_q - 128 * j - 64), q + 128 * j + 64);
        const __m512i even = vbmi_bytes(_mm512_srai_epi16(_mm512_slli_epi16(a, 8), 8),
                                        _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
        const __m512i odd = vbmi_bytes(_mm512_srai_epi16(a, 8), _mm512_srai_epi16(b, 8));
        const __m512i sums =
            _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, sixteen, even), sixteen, odd);
        _mm512_storeu_si512(to->pairs[j][0], even);
        _mm512_storeu_si512(to->pairs[j][1], odd);
        if (j % 2)
            _mm512_storeu_si512(to->offsets[j / 2], _mm512_packs_epi32(before, sums));
        before = sums;
    }
    if (vbmi_end_bytes(n) > 0)
        vbmi_repeat_end(to, n);
}

/* 64 bytes of a row times a pair: 16 sums of eight products of the values plus 16. */
static inline __m512i vbmi_dot(__m512i u, const int8_t pair[2][64])
{
    const __m512i values =
        _mm512_add_epi8(_mm512_broadcast_i32x4(load_values(1)), _mm512_set1_epi8(16));
    __asm__("" : "+v"(u)); // or gcc 12 loads it twice
    const __m512i low = _mm512_permutexvar_epi8(u, values);
    const __m512i high = _mm512_permutexvar_epi8(_mm512_srli_epi16(u, 4), values);
    const __m512i dot =
        _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, _mm512_loadu_si512(pair[0]));
    return _mm512_dpbusd_epi32(dot, high, _mm512_loadu_si512(pair[1]));
}

/* The 16 multipliers of two vectors, times 4096: in lane i two of the first vector, then two of the
 * second, each in two words. A byte selects any eight bits of its qword. */
static inline __m512i vbmi_multipliers(int64_t nibbles)
{
    const __m512i first_bit =
        _mm512_setr_epi32(60, 0, 28, 32, 4, 8, 36, 40, 12, 16, 44, 48, 20, 24, 52, 56);
    const __m512i high_bytes =
        _mm512_or_si512(_mm512_slli_epi32(first_bit, 8), _mm512_slli_epi32(first_bit, 24));
    return _mm512_and_si512(_mm512_multishift_epi64_epi8(high_bytes, _mm512_set1_epi64(nibbles)),
                            _mm512_set1_epi16((short)0xf000));
}

/* Of two vectors: the sums of 16 products times the multipliers of vbmi_multipliers. */
static inline __m512i vbmi_multiply(__m512i a, __m512i b, const int16_t offsets[32],
                                    int64_t nibbles)
{
    const __m512i eights = _mm512_sub_epi16(_mm512_packs_epi32(a, b), _mm512_loadu_si512(offsets));
    return _mm512_madd_epi16(eights, vbmi_multipliers(nibbles));
}

/* The multipliers of n vectors, two at most, in the low bytes. */
static inline __attribute__((always_inline)) int64_t vbmi_nibbles(const uint8_t *multipliers, int n)
{
    int64_t both = 0;
    uint32_t one = 0;
    memcpy(n > 1 ? (void *)&both : &one, multipliers, n > 1 ? sizeof both : sizeof one);
    return n > 1 ? both : one;
}

/* In lane i: the sums of 32 weights of each of the four vectors of a quad, of which n are not zero.
 * Times 4096 they are below 2^31, because no weight is above 120. */
static inline __attribute__((always_inline)) __m512i
vbmi_quad(const __m512i v[4], int n, const int16_t offsets[2][32], const int64_t nibbles[2])
{
    const __m512i ab = vbmi_multiply(v[0], v[1], offsets[0], nibbles[0]);
    __m512i cd = _mm512_setzero_si512();
    if (n > 2)
        cd = vbmi_multiply(v[2], v[3], offsets[1], nibbles[1]);
    const __m512 x = _mm512_castsi512_ps(ab), y = _mm512_castsi512_ps(cd);
    const __m512i even = _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88));
    const __m512i odd = _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd));
    return _mm512_srai_epi32(_mm512_add_epi32(even, odd), 12);
}

/* Distances to what is prefetched. */
struct vbmi_ahead {
    ptrdiff_t l2;
    ptrdiff_t l1, l1_at_end; // before the last VBMI_NEAR bytes of a stretch, and there; 0: nothing
};

/* n vectors, of the last one the bytes of the mask. n is a constant where this is inlined. */
static inline __attribute__((always_inline)) void
vbmi_vectors(__m512i *to, const uint8_t *w, const uint8_t *multipliers,
             const int8_t pairs[4][2][64], const int16_t offsets[2][32], int n, __mmask64 last,
             struct vbmi_ahead ahead)
{
    __m512i v[4];
    UNROLL
    for (int i = 0; i < 4; i++, w += 64) {
        v[i] = _mm512_setzero_si512();
        if (i >= n)
            continue;
        _mm_prefetch((const char *)w + ahead.l2, _MM_HINT_T1);
        if (ahead.l1)
            _mm_prefetch((const char *)w + ahead.l1, _MM_HINT_T0);
        v[i] = vbmi_dot(i + 1 < n ? _mm512_loadu_si512(w) : _mm512_maskz_loadu_epi8(last, w),
                        pairs[i]);
    }
    const int64_t nibbles[2] = { vbmi_nibbles(multipliers, n),
                                 n > 2 ? vbmi_nibbles(multipliers + 8, n - 2) : 0 };
    *to = vbmi_quad(v, n, offsets, nibbles);
}

/* Bytes [0, n) of a row's stretch; `last` is the mask of the last bytes. */
static inline __attribute__((always_inline)) void vbmi_row(__m512i *to, const uint8_t *w,
                                                           const uint8_t *multipliers,
                                                           const struct vbmi_acts *acts, int n,
                                                           __mmask64 last, struct vbmi_ahead ahead)
{
    const __mmask64 all = ~(__mmask64)0;
    const int8_t(*pairs)[2][64] = acts->pairs;
    const int16_t(*offsets)[32] = acts->offsets;
    for (; n >= VBMI_QUAD; n -= VBMI_QUAD, w += VBMI_QUAD, pairs += 4, offsets += 2) {
        _mm_prefetch((const char *)multipliers + ahead.l2 / I4_BLOCK, _MM_HINT_T1);
        if (n <= VBMI_NEAR)
            ahead.l1 = ahead.l1_at_end;
        vbmi_vectors(to, w, multipliers, pairs, offsets, 4, all, ahead);
        multipliers += VBMI_QUAD / I4_BLOCK;
        to += VBMI_ROWS;
    }
    ahead.l1 = ahead.l1_at_end;
    switch ((n + 63) / 64) {
    case 1:
        vbmi_vectors(to, w, multipliers, pairs, offsets, 1, last, ahead);
        break;
    case 2:
        vbmi_vectors(to, w, multipliers, pairs, offsets, 2, last, ahead);
        break;
    case 3:
        vbmi_vectors(to, w, multipliers, pairs, offsets, 3, last, ahead);
        break;
    case 4:
        vbmi_vectors(to, w, multipliers, pairs, offsets, 4, last, ahead);
        break;
    default: // the row ends with a quad
        break;
    }
}

/* sums += n_blocks blocks of eight rows, and zeros up to a multiple of four: they change no sum,
 * because none is -0. */
static inline __attribute__((always_inline)) void vbmi_add(__m128 sums[2], const vbmi_dots dots,
                                                           const float *scales, int n_blocks)
{
    const __m512i even_odd = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7);
    const __m512i turn =
        _mm512_setr_epi32(0, 8, 16, 24, 4, 12, 20, 28, 1, 9, 17, 25, 5, 13, 21, 29);
    const __m512i turn2 = _mm512_add_epi32(turn, _mm512_set1_epi32(2));
    const __m512i *v = dots[0];
    for (int b = 0; b < n_blocks; b += 8, v += VBMI_ROWS) {
        const __mmask16 left = lanes_below(qp_min(n_blocks - b, 8));
        const __m512 scale =
            _mm512_permutexvar_ps(even_odd, _mm512_maskz_loadu_ps(left, scales + b));
        const __m512 r01 = scaled(sum_lane_pairs(v[0], v[1]), scale),
                     r23 = scaled(sum_lane_pairs(v[2], v[3]), scale);
        const __m512 r45 = scaled(sum_lane_pairs(v[4], v[5]), scale),
                     r67 = scaled(sum_lane_pairs(v[6], v[7]), scale);
        sums[0] = add_lanes(sums[0], _mm512_permutex2var_ps(r01, turn, r23));
        sums[1] = add_lanes(sums[1], _mm512_permutex2var_ps(r45, turn, r67));
        if (n_blocks - b <= 4)
            return;
        sums[0] = add_lanes(sums[0], _mm512_permutex2var_ps(r01, turn2, r23));
        sums[1] = add_lanes(sums[1], _mm512_permutex2var_ps(r45, turn2, r67));
    }
}

/* The ends of eight rows. */
struct vbmi_ends {
    const uint8_t *w[VBMI_ROWS], *multipliers[VBMI_ROWS];
    struct vbmi_ahead ahead;
};

/* The end of row i. If it is half a vector, that of row i + 4 is in the other half. */
static inline __attribute__((always_inline)) __m512i vbmi_end_vector(const struct vbmi_ends *e,
                                                                     int i, bool is_half)
{
    if (!is_half)
        return _mm512_loadu_si512(e->w[i]);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const void *)e->w[i])),
                              _mm256_loadu_si256((const void *)e->w[i + 4]), 1);
}

/* The multipliers of that vector. */
static inline __attribute__((always_inline)) uint64_t vbmi_end_nibbles(const struct vbmi_ends *e,
                                                                       int i, bool is_half)
{
    uint16_t first, second;
    if (!is_half)
        return (uint64_t)vbmi_nibbles(e->multipliers[i], 1);
    memcpy(&first, e->multipliers[i], sizeof first);
    memcpy(&second, e->multipliers[i + 4], sizeof second);
    return first | (uint64_t)second << 16;
}

/* vbmi_quad of rows i to i + 3: a vector is a row, or two. */
static inline __attribute__((always_inline)) __m512i vbmi_end_quad(const struct vbmi_ends *e, int i,
                                                                   bool is_half,
                                                                   const struct vbmi_acts *acts,
                                                                   int quad)
{
    __m512i v[4];
    uint64_t bits[2] = { 0 };
    UNROLL
    for (int j = 0; j < 4; j++) {
        v[j] = vbmi_dot(vbmi_end_vector(e, i + j, is_half), acts->pairs[4 * quad + j]);
        bits[j / 2] |= vbmi_end_nibbles(e, i + j, is_half) << (j % 2 * 32);
    }
    const int64_t nibbles[2] = { (int64_t)bits[0], (int64_t)bits[1] };
    return vbmi_quad(v, 4, acts->offsets + 2 * quad, nibbles);
}

/* sums += the last block of eight rows, or the last two. */
static inline __attribute__((always_inline)) void
vbmi_add_ends(__m128 sums[2], const struct vbmi_ends *e, bool is_half, const struct vbmi_acts *acts,
              int quad, const float *scales)
{
    UNROLL
    for (int i = 0; i < VBMI_ROWS; i++) {
        _mm_prefetch((const char *)e->w[i] + e->ahead.l2, _MM_HINT_T1);
        if (e->ahead.l1_at_end)
            _mm_prefetch((const char *)e->w[i] + e->ahead.l1_at_end, _MM_HINT_T0);
    }
    const __m512i a = vbmi_end_quad(e, 0, is_half, acts, quad);
    if (is_half) {
        const __m512 v = scaled(sum_lane_pairs(a, a), _mm512_set1_ps(scales[0]));
        sums[0] = _mm_add_ps(sums[0], _mm512_castps512_ps128(v));
        sums[1] = _mm_add_ps(sums[1], _mm512_extractf32x4_ps(v, 1));
        return;
    }
    const __m512 scale =
        _mm512_mask_blend_ps(0xf0f0, _mm512_set1_ps(scales[0]), _mm512_set1_ps(scales[1]));
    const __m512 v = scaled(sum_lane_pairs(a, vbmi_end_quad(e, 4, is_half, acts, quad)), scale);
    sums[0] = _mm_add_ps(sums[0], _mm512_castps512_ps128(v));
    sums[0] = _mm_add_ps(sums[0], _mm512_extractf32x4_ps(v, 1));
    sums[1] = _mm_add_ps(sums[1], _mm512_extractf32x4_ps(v, 2));
    sums[1] = _mm_add_ps(sums[1], _mm512_extractf32x4_ps(v, 3));
}

/* From bytes [k, k + n) of row i of eight to what is read VBMI_PIECES stretches later. */
static ptrdiff_t vbmi_distance(int row_bytes, int i, int k, int n)
{
    if (n == row_bytes)
        return VBMI_AHEAD;
    if (i + VBMI_PIECES < VBMI_ROWS)
        return VBMI_PIECES * (ptrdiff_t)row_bytes;
    if (k + n < row_bytes) // the next stretch of the first rows
        return n - (VBMI_ROWS - VBMI_PIECES) * (ptrdiff_t)row_bytes;
    return VBMI_PIECES * (ptrdiff_t)row_bytes - k; // the first stretch of the rows after these
}

/* Eight rows of a matrix. Past the last row are copies of it. */
struct vbmi_eight {
    const struct matrix *w;
    int row, n; // n <= 8 are not copies
};

/* sum += bytes [k, k + n) of eight rows. Where is_whole, these are whole rows. */
static inline __attribute__((always_inline)) void
vbmi_stretch(__m128 sum[2], const struct vbmi_eight *rows, const struct vbmi_acts *acts,
             const float *scales, int k, int n, bool is_whole, bool is_to_l1)
{
    const struct matrix *w = rows->w;
    const int n_bytes = is_whole ? n : w->n_in / 2, n_end = vbmi_end_bytes(n), quad = n / VBMI_QUAD;
    const int n_blocks = vbmi_blocks(n - n_end);
    const __mmask64 last = bytes_below((n - 1) % 64 + 1);
    const size_t multiplier_bytes = qp_multiplier_bytes(w->n_in);
    const uint8_t *from = (const uint8_t *)qp_matrix_row(w, rows->row) + k;
    const uint8_t *multipliers = qp_matrix_multipliers(w, rows->row) + k / I4_BLOCK;
    struct vbmi_ahead ahead = { VBMI_AHEAD, is_to_l1 ? VBMI_NEAR : 0, is_to_l1 ? VBMI_NEAR : 0 };
    struct vbmi_ends ends;
    vbmi_dots dots;
    for (int i = 0; i < VBMI_ROWS; i++) {
        if (!is_whole) {
            ahead.l2 = vbmi_distance(n_bytes, i, k, n);
            ahead.l1_at_end = is_to_l1 ? VBMI_NEAR - n + n_bytes : 0;
        }
        vbmi_row(&dots[0][i], from, multipliers, acts, n - n_end, last, ahead);
        ends.w[i] = from + (n - n_end);
        ends.multipliers[i] = multipliers + (n - n_end) / I4_BLOCK;
        if (i + 1 < rows->n) {
            from += w->row_bytes;
            multipliers += multiplier_bytes;
        }
    }
    ends.ahead = ahead;
    vbmi_add(sum, (const __m512i(*)[VBMI_ROWS])dots, scales, n_blocks);
    if (n_end == 32)
        vbmi_add_ends(sum, &ends, true, acts, quad, scales + n_blocks);
    else if (n_end == 64)
        vbmi_add_ends(sum, &ends, false, acts, quad, scales + n_blocks);
}

static inline __attribute__((always_inline)) void
vbmi_rows(float sums[VBMI_ROWS], const struct vbmi_eight *rows, const struct act_rows *x,
          struct vbmi_acts acts[VBMI_STRETCHES], bool is_to_l1)
{
    const int n_bytes = rows->w->n_in / 2;
    const bool is_sorted = n_bytes <= VBMI_STRETCHES * VBMI_STRETCH;
    __m128 sum[2] = { _mm_setzero_ps(), _mm_setzero_ps() };
    if (n_bytes <= VBMI_STRETCH)
        vbmi_stretch(sum, rows, acts, x->scales, 0, n_bytes, true, is_to_l1);
    for (int k = 0; k < n_bytes && n_bytes > VBMI_STRETCH; k += VBMI_STRETCH) {
        const int n = qp_min(n_bytes - k, VBMI_STRETCH);
        struct vbmi_acts *a = acts + (is_sorted ? k / VBMI_STRETCH : 0);
        if (!is_sorted)
            vbmi_sort(a, x->q + 2 * k, n);
        vbmi_stretch(sum, rows, a, x->scales + 2 * k / ACT_BLOCK, k, n, false, is_to_l1);
    }
    _mm_storeu_ps(sums, sum[0]);
    _mm_storeu_ps(sums + 4, sum[1]);
}

static inline __attribute__((always_inline)) void gemv_i4_block(float *y, const struct matrix *w,
                                                                const struct act_rows *x, int begin,
                                                                int end, bool is_to_l1)
{
    assert(w->dtype == DTYPE_I4_BLOCK && w->n_in % 2 == 0 && w->scales && w->multipliers);
    assert(qp_has_rows(w, begin, end) && x->n == 1 && qp_is_act_rows(x, w->n_in));
    _Alignas(64) struct vbmi_acts acts[VBMI_STRETCHES];
    float sums[2 * VBMI_ROWS] = { 0 };
    for (int s = 0; s < VBMI_STRETCHES && s * VBMI_STRETCH < w->n_in / 2; s++) {
        const int n = qp_min(w->n_in / 2 - s * VBMI_STRETCH, VBMI_STRETCH);
        vbmi_sort(acts + s, x->q + 2 * s * VBMI_STRETCH, n);
    }
    for (int r = begin; r < end; r += 2 * VBMI_ROWS) {
        for (int i = 0; i < 2 * VBMI_ROWS && r + i < end; i += VBMI_ROWS) {
            const struct vbmi_eight rows = { w, r + i, qp_min(end - r - i, VBMI_ROWS) };
            vbmi_rows(sums + i, &rows, x, acts, is_to_l1);
        }
        _mm_prefetch((const char *)(w->scales + r + 4 * VBMI_ROWS), _MM_HINT_T0);
        __builtin_prefetch(y + r + 4 * VBMI_ROWS, 1);
        store_rows(y + r, _mm512_loadu_ps(sums), w, r, lanes_below(end - r));
    }
}

static void gemv_i4_block_zen4(float *y, const struct matrix *w, const struct act_rows *x,
                               int begin, int end)
{
    gemv_i4_block(y, w, x, begin, end, false);
}

static void gemv_i4_block_intel(float *y, const struct matrix *w, const struct act_rows *x,
                                int begin, int end)
{
    gemv_i4_block(y, w, x, begin, end, true);
}

void qp_gemv_kernels_zen4(struct kernels *k)
{
    k->gemv_i4_block = gemv_i4_block_zen4;
}

void qp_gemv_kernels_intel_vbmi(struct kernels *k)
{
    k->gemv_i4_block = gemv_i4_block_intel;
}

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
