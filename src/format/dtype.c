/* dtype.c: the number formats of tensors in files, and their values as floats.
 * In:  blocks of a file, at any alignment.
 * Out: floats with the same bits as in ggml-quants.c and the Python package gguf: the same products
 *      and sums, each rounded to float, in the same order.
 *
 * The block formats of GGUF have 32 to 256 values with one or more scales. Formats whose codes are
 * not integers are in dtype_codes.c. */
#include "format/dtype_codes.h"
#include "format/format.h"
#include "format/little_endian.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>

#define QK 32    // values of a Q?_0 or Q?_1 block
#define QK_K 256 // values of a Q?_K super-block

/* ---- one function for each format: n_blocks blocks at b -> x ---- */

/* Zero and subnormals are the fraction times 2^-24. */
float qp_half_value(const uint8_t *p)
{
    uint32_t h = qp_le16(p);
    uint32_t sign = (h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 0)
        return (sign ? -1.0f : 1.0f) * ((float)fraction * 0x1p-24f);
    if (exponent == 31) // infinity and NaN
        return qp_float_of_bits(sign | 0x7f800000 | fraction << 13);
    return qp_float_of_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13);
}

uint16_t qp_half_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    const uint32_t sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) // not a number
        return (uint16_t)(sign | 0x7e00u);
    if (size >= 0x477ff000u) // 65520
        return (uint16_t)(sign | 0x7c00u);
    if (size < 0x38800000u) { // below 2^-14: adding 0.5 rounds to multiples of 2^-24
        const float rounded = qp_float_of_bits(size) + 0.5f;
        memcpy(&bits, &rounded, sizeof bits);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    return (uint16_t)(sign | ((size - 0x38000000u + 0xfffu + (size >> 13 & 1)) >> 13));
}

static void expand_f32(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++)
        x[i] = qp_float_of_bits(qp_le32(b + 4 * i));
}

static void expand_f16(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++)
        x[i] = qp_half_value(b + 2 * i);
}

static void expand_bf16(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++)
        x[i] = qp_float_of_bits((uint32_t)qp_le16(b + 2 * i) << 16);
}

static void expand_i8(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++)
        x[i] = (int8_t)b[i];
}

static void expand_i4(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++) {
        x[2 * i] = (float)((b[i] & 15) - 8);
        x[2 * i + 1] = (float)((b[i] >> 4) - 8);
    }
}

static void expand_i32(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++)
        x[i] = (float)(int32_t)qp_le32(b + 4 * i);
}

/* A value that no float can hold becomes infinite. */
static void expand_f64(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++) {
        const uint64_t bits = qp_le64(b + 8 * i);
        double value;
        memcpy(&value, &bits, sizeof value);
        const bool fits = value >= -(double)FLT_MAX && value <= (double)FLT_MAX;
        x[i] = fits || value != value ? (float)value : value > 0 ? INFINITY : -INFINITY;
    }
}

/* { f16 d; nibbles[16] }: value j in the low nibble of byte j, value 16 + j in the high one. */
static void expand_q4_0(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 18, x += QK) {
        float d = qp_half_value(b);
        for (int j = 0; j < QK / 2; j++) {
            x[j] = (float)((b[2 + j] & 15) - 8) * d;
            x[j + QK / 2] = (float)((b[2 + j] >> 4) - 8) * d;
        }
    }
}

/* { f16 d, m; nibbles[16] } */
static void expand_q4_1(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 20, x += QK) {
        float d = qp_half_value(b), m = qp_half_value(b + 2);
        for (int j = 0; j < QK / 2; j++) {
            x[j] = (float)(b[4 + j] & 15) * d + m;
            x[j + QK / 2] = (float)(b[4 + j] >> 4) * d + m;
        }
    }
}

/* Five bits: a nibble, with bit j of `high` above it. */
static int q5(uint8_t nibble, uint32_t high, int j)
{
    return nibble | (int)(high >> j & 1) << 4;
}

/* { f16 d; u32 high; nibbles[16] } */
static void expand_q5_0(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 22, x += QK) {
        float d = qp_half_value(b);
        uint32_t high = qp_le32(b + 2);
        for (int j = 0; j < QK / 2; j++) {
            x[j] = (float)(q5(b[6 + j] & 15, high, j) - 16) * d;
            x[j + QK / 2] = (float)(q5(b[6 + j] >> 4, high, j + 16) - 16) * d;
        }
    }
}

/* { f16 d, m; u32 high; nibbles[16] } */
static void expand_q5_1(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 24, x += QK) {
        float d = qp_half_value(b), m = qp_half_value(b + 2);
        uint32_t high = qp_le32(b + 4);
        for (int j = 0; j < QK / 2; j++) {
            x[j] = (float)q5(b[8 + j] & 15, high, j) * d + m;
            x[j + QK / 2] = (float)q5(b[8 + j] >> 4, high, j + 16) * d + m;
        }
    }
}

/* { f16 d; i8 q[32] } */
static void expand_q8_0(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 34, x += QK) {
        float d = qp_half_value(b);
        for (int j = 0; j < QK; j++)
            x[j] = (float)(int8_t)b[2 + j] * d;
    }
}

/* { scales[16]: low nibble scale, high nibble minimum; two bits[64]; f16 d, dmin }
 * 16 groups of 16 values. One byte of the bits has four values that are 32 apart. */
static void expand_q2_k(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 84, x += QK_K) {
        float d = qp_half_value(b + 80), dmin = qp_half_value(b + 82);
        for (int j = 0; j < QK_K; j++) {
            const uint8_t *bits = b + 16 + j / 128 * 32 + j % 32;
            uint8_t scale = b[j / 16];
            float dl = d * (float)(scale & 15), ml = dmin * (float)(scale >> 4);
            x[j] = dl * (float)(*bits >> (j % 128 / 32 * 2) & 3) - ml;
        }
    }
}

/* Scale j of 16: six bits, stored plus 32. The low nibbles are in s[0..7], the upper two bits in
 * s[8..11]. */
static int q3_k_scale(const uint8_t *s, int j)
{
    int low = s[j % 8] >> (j / 8 * 4) & 15;
    int high = s[8 + j % 4] >> (j / 4 * 2) & 3;
    return (low | high << 4) - 32;
}

/* { third bits[32]; two bits[64]; scales[12]; f16 d }: a third bit of zero means -4. */
static void expand_q3_k(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 110, x += QK_K) {
        float d = qp_half_value(b + 108);
        for (int j = 0; j < QK_K; j++) {
            int low = b[32 + j / 128 * 32 + j % 32] >> (j % 128 / 32 * 2) & 3;
            int high = b[j % 32] >> (j / 32) & 1;
            float dl = d * (float)q3_k_scale(b + 96, j / 16);
            x[j] = dl * (float)(low - (high ? 0 : 4));
        }
    }
}

/* Scale and minimum j of 8, six bits each. The first four are in the low bits of s[0..3] and
 * s[4..7]. The last four have their nibbles in s[8..11] and their upper two bits in the upper bits
 * of s[0..7]. */
static void k_scale_min(const uint8_t *s, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
        *min = s[j + 4] >> 4 | s[j] >> 6 << 4;
    }
}

/* { f16 d, dmin; scales[12]; nibbles[128] }: 8 groups of 32; one byte has two values that are 32
 * apart. */
static void expand_q4_k(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 144, x += QK_K) {
        float d = qp_half_value(b), dmin = qp_half_value(b + 2);
        for (int g = 0; g < 8; g++) {
            int scale, min;
            k_scale_min(b + 4, g, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *nibbles = b + 16 + g / 2 * 32;
            for (int j = 0; j < 32; j++)
                x[g * 32 + j] = dl * (float)(nibbles[j] >> (g % 2 * 4) & 15) - ml;
        }
    }
}

/* { f16 d, dmin; scales[12]; fifth bits[32]; nibbles[128] }: bit g of byte j is group g's. */
static void expand_q5_k(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 176, x += QK_K) {
        float d = qp_half_value(b), dmin = qp_half_value(b + 2);
        for (int g = 0; g < 8; g++) {
            int scale, min;
            k_scale_min(b + 4, g, &scale, &min);
            float dl = d * (float)scale, ml = dmin * (float)min;
            const uint8_t *nibbles = b + 48 + g / 2 * 32;
            for (int j = 0; j < 32; j++) {
                int q = q5(nibbles[j] >> (g % 2 * 4) & 15, b[16 + j], g);
                x[g * 32 + j] = dl * (float)q - ml;
            }
        }
    }
}

/* { low nibbles[128]; upper two bits[64]; i8 scales[16]; f16 d }: 16 groups of 16, stored plus 32.
 * In each half of 128 a nibble byte holds values 64 apart, a byte of upper bits values 32 apart. */
static void expand_q6_k(float *x, const uint8_t *b, size_t n_blocks)
{
    for (size_t i = 0; i < n_blocks; i++, b += 210, x += QK_K) {
        float d = qp_half_value(b + 208);
        for (int j = 0; j < QK_K; j++) {
            int half = j / 128, k = j % 128;
            int low = b[half * 64 + k % 64] >> (k / 64 * 4) & 15;
            int high = b[128 + half * 32 + k % 32] >> (k / 32 * 2) & 3;
            float dl = d * (float)(int8_t)b[192 + j / 16];
            x[j] = dl * (float)((low | high << 4) - 32);
        }
    }
}

/* ---- the table ---- */

static const struct {
    const char *name;
    int block, block_bytes; // values and bytes of the smallest unit
    void (*expand)(float *x, const uint8_t *b, size_t n_blocks);
} dtypes[DTYPE_COUNT] = {
    [DTYPE_F32] = { "F32", 1, 4, expand_f32 },
    [DTYPE_F16] = { "F16", 1, 2, expand_f16 },
    [DTYPE_BF16] = { "BF16", 1, 2, expand_bf16 },
    [DTYPE_I8] = { "I8", 1, 1, expand_i8 },
    [DTYPE_I4] = { "I4", 2, 1, expand_i4 },
    [DTYPE_I4_BLOCK] = { "I4_BLOCK", 2, 1, expand_i4 },
    [DTYPE_I32] = { "I32", 1, 4, expand_i32 },
    [DTYPE_F64] = { "F64", 1, 8, expand_f64 },
    [DTYPE_Q4_0] = { "Q4_0", QK, 18, expand_q4_0 },
    [DTYPE_Q4_1] = { "Q4_1", QK, 20, expand_q4_1 },
    [DTYPE_Q5_0] = { "Q5_0", QK, 22, expand_q5_0 },
    [DTYPE_Q5_1] = { "Q5_1", QK, 24, expand_q5_1 },
    [DTYPE_Q8_0] = { "Q8_0", QK, 34, expand_q8_0 },
    [DTYPE_Q2_K] = { "Q2_K", QK_K, 84, expand_q2_k },
    [DTYPE_Q3_K] = { "Q3_K", QK_K, 110, expand_q3_k },
    [DTYPE_Q4_K] = { "Q4_K", QK_K, 144, expand_q4_k },
    [DTYPE_Q5_K] = { "Q5_K", QK_K, 176, expand_q5_k },
    [DTYPE_Q6_K] = { "Q6_K", QK_K, 210, expand_q6_k },
    [DTYPE_IQ4_NL] = { "IQ4_NL", QK, 18, qp_expand_iq4_nl },
    [DTYPE_IQ4_XS] = { "IQ4_XS", QK_K, 136, qp_expand_iq4_xs },
    [DTYPE_MXFP4] = { "MXFP4", QK, 17, qp_expand_mxfp4 },
    [DTYPE_NVFP4] = { "NVFP4", 64, 36, qp_expand_nvfp4 },
    [DTYPE_TQ1_0] = { "TQ1_0", QK_K, 54, qp_expand_tq1_0 },
    [DTYPE_TQ2_0] = { "TQ2_0", QK_K, 66, qp_expand_tq2_0 },
    [DTYPE_Q1_0] = { "Q1_0", 128, 18, qp_expand_q1_0 },
    [DTYPE_OTHER] = { "other", 1, 0, NULL },
};

const char *qp_dtype_name(enum dtype dtype)
{
    return (unsigned)dtype < DTYPE_COUNT ? dtypes[dtype].name : "other";
}

bool qp_dtype_bytes(enum dtype dtype, uint64_t n, uint64_t *n_bytes)
{
    if ((unsigned)dtype >= DTYPE_OTHER)
        return false;
    uint64_t block = (uint64_t)dtypes[dtype].block, bytes = (uint64_t)dtypes[dtype].block_bytes;
    if (n % block || n / block > INT64_MAX / bytes)
        return false;
    *n_bytes = n / block * bytes;
    return true;
}

/* ---- reading ---- */

/* Stack buffer to expand a file that is not mapped; holds whole blocks of every type. */
#define EXPAND_BYTES 8192

quip_status qp_format_read_f32(const struct format *f, const struct tensor *t, uint64_t begin,
                               size_t n, float *to, quip_error *error)
{
    assert(to || n == 0);
    if ((unsigned)t->dtype >= DTYPE_OTHER)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: %s has a number format that this version cannot read%s%s",
                       f->file->name, t->name, t->type_name ? ": " : "",
                       t->type_name ? t->type_name : "");
    uint64_t offset, n_bytes;
    if (!qp_dtype_bytes(t->dtype, begin, &offset) || !qp_dtype_bytes(t->dtype, n, &n_bytes) ||
        offset > t->n_bytes || n_bytes > t->n_bytes - offset)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: %s: values [%" PRIu64 ", %" PRIu64 ") are not whole blocks inside it",
                       f->file->name, t->name, begin, begin + n);

    size_t block = (size_t)dtypes[t->dtype].block, bytes = (size_t)dtypes[t->dtype].block_bytes;
    size_t n_blocks = n / block;
    offset += t->offset;
    assert(n_blocks * bytes == n_bytes && bytes <= EXPAND_BYTES);
    if (f->file->data) {
        dtypes[t->dtype].expand(to, f->file->data + offset, n_blocks);
        return QUIP_OK;
    }
    uint8_t buffer[EXPAND_BYTES];
    while (n_blocks) {
        size_t k = sizeof buffer / bytes < n_blocks ? sizeof buffer / bytes : n_blocks;
        quip_status status = qp_file_read(f->file, offset, buffer, k * bytes, error);
        if (status)
            return status;
        dtypes[t->dtype].expand(to, buffer, k);
        to += k * block;
        offset += k * bytes;
        n_blocks -= k;
    }
    return QUIP_OK;
}
