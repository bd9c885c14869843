/* dtype_codes.c: number formats whose codes are indices of a table, ternary digits or signs.
 * In:  blocks of a GGUF file, at any alignment.
 * Out: floats with the same bits as in the Python package gguf (Q1_0: ggml-quants.c). */
#include "format/dtype_codes.h"
#include "format/dtype.h"
#include "format/little_endian.h"

#include <assert.h>

/* ---- indices of a table ---- */

/* Values of IQ4_NL and IQ4_XS: denser near zero, where weights are. */
static const int8_t iq4_values[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113 };

/* Twice the values of E2M1: OCP Microscaling Formats v1.0. */
static const int8_t e2m1_values[16] = { 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

/* 2 * n values: the low nibbles of n bytes, then the high ones. */
static void expand_nibbles(float *x, const uint8_t *nibbles, int n, float d, const int8_t *values)
{
    for (int j = 0; j < n; j++) {
        x[j] = d * (float)values[nibbles[j] & 15];
        x[j + n] = d * (float)values[nibbles[j] >> 4];
    }
}

/* { f16 d; nibbles[16] } */
void qp_expand_iq4_nl(float *x, const uint8_t *b, size_t n_blocks)
{
    assert(n_blocks == 0 || (x && b));
    for (size_t i = 0; i < n_blocks; i++, b += 18, x += 32)
        expand_nibbles(x, b + 2, 16, qp_half_value(b), iq4_values);
}

/* { f16 d; u16 high; low[4]; nibbles[128] }: 8 groups of 32. The scale of a group has four bits in
 * `low` and two in `high`, and is stored plus 32. */
void qp_expand_iq4_xs(float *x, const uint8_t *b, size_t n_blocks)
{
    assert(n_blocks == 0 || (x && b));
    for (size_t i = 0; i < n_blocks; i++, b += 136, x += 256) {
        const float d = qp_half_value(b);
        const int high = qp_le16(b + 2);
        for (int g = 0; g < 8; g++) {
            const int low = b[4 + g / 2] >> (g % 2 * 4) & 15;
            const int scale = (low | (high >> 2 * g & 3) << 4) - 32;
            expand_nibbles(x + 32 * g, b + 8 + 16 * g, 16, d * (float)scale, iq4_values);
        }
    }
}

/* { u8 e; nibbles[16] }: the scale is 2^(e - 127), halved because the values are doubled. */
void qp_expand_mxfp4(float *x, const uint8_t *b, size_t n_blocks)
{
    assert(n_blocks == 0 || (x && b));
    for (size_t i = 0; i < n_blocks; i++, b += 17, x += 32) {
        const uint32_t bits = b[0] < 2 ? 0x00200000u << b[0] : (uint32_t)(b[0] - 1) << 23;
        expand_nibbles(x, b + 1, 16, qp_float_of_bits(bits), e2m1_values);
    }
}

/* Half of an unsigned E4M3 number; its NaN is read as 0, as llama.cpp does. */
static float half_of_e4m3(uint8_t e4m3)
{
    const int exponent = e4m3 >> 3 & 15, fraction = e4m3 & 7;
    if (e4m3 == 0x7f)
        return 0;
    if (exponent == 0)
        return (float)fraction * 0x1p-10f;
    return (float)(8 + fraction) * qp_float_of_bits((uint32_t)(exponent - 11 + 127) << 23);
}

/* { e4m3 scales[4]; nibbles[32] }: 4 groups of 16. */
void qp_expand_nvfp4(float *x, const uint8_t *b, size_t n_blocks)
{
    assert(n_blocks == 0 || (x && b));
    for (size_t i = 0; i < n_blocks; i++, b += 36, x += 64)
        for (int g = 0; g < 4; g++)
            expand_nibbles(x + 16 * g, b + 4 + 8 * g, 8, half_of_e4m3(b[g]), e2m1_values);
}

/* ---- ternary digits and signs ---- */

/* One digit of each of n bytes, -1 to 1, times d. A byte is a fraction of 256 in base 3; `power`
 * (3^k, modulo 256) moves digit k to the front. */
static void expand_digits(float *x, const uint8_t *bytes, int n, int power, float d)
{
    for (int j = 0; j < n; j++) {
        const uint8_t fraction = (uint8_t)(bytes[j] * power);
        x[j] = d * (float)((fraction * 3 >> 8) - 1);
    }
}

/* { five digits each[48]; four digits each[4]; f16 d }: the first digits of the first 32 bytes,
 * then their second ones, and so on; then the same for 16 bytes and for 4. */
void qp_expand_tq1_0(float *x, const uint8_t *b, size_t n_blocks)
{
    static const int powers[5] = { 1, 3, 9, 27, 81 };
    assert(n_blocks == 0 || (x && b));
    for (size_t i = 0; i < n_blocks; i++, b += 54, x += 256) {
        const float d = qp_half_value(b + 52);
        for (int k = 0; k < 5; k++) {
            expand_digits(x + 32 * k, b, 32, powers[k], d);
            expand_digits(x + 160 + 16 * k, b + 32, 16, powers[k], d);
            if (k < 4)
                expand_digits(x + 240 + 4 * k, b + 48, 4, powers[k], d);
        }
    }
}

/* { two bits[64]; f16 d }: each value is stored plus 1. In each half, a byte has four values that
 * are 32 apart. */
void qp_expand_tq2_0(float *x, const uint8_t *b, size_t n_blocks)
{
    assert(n_blocks == 0 || (x && b));
    for (size_t i = 0; i < n_blocks; i++, b += 66, x += 256) {
        const float d = qp_half_value(b + 64);
        for (int j = 0; j < 256; j++)
            x[j] = d * (float)((b[j / 128 * 32 + j % 32] >> (j % 128 / 32 * 2) & 3) - 1);
    }
}

/* { f16 d; bits[16] }: d where the bit is set, else -d. */
void qp_expand_q1_0(float *x, const uint8_t *b, size_t n_blocks)
{
    assert(n_blocks == 0 || (x && b));
    for (size_t i = 0; i < n_blocks; i++, b += 18, x += 128) {
        const float d = qp_half_value(b);
        for (int j = 0; j < 128; j++)
            x[j] = b[2 + j / 8] >> j % 8 & 1 ? d : -d;
    }
}
