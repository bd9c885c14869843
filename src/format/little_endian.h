/* little_endian.h: little-endian numbers at any address, and the bits of floats. */
#ifndef QP_LITTLE_ENDIAN_H
#define QP_LITTLE_ENDIAN_H

#include <stdint.h>
#include <string.h>

static inline uint16_t qp_le16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t qp_le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t qp_le64(const uint8_t *p)
{
    return qp_le32(p) | (uint64_t)qp_le32(p + 4) << 32;
}

static inline void qp_put_le16(uint8_t *p, uint16_t value)
{
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void qp_put_le32(uint8_t *p, uint32_t value)
{
    qp_put_le16(p, (uint16_t)value);
    qp_put_le16(p + 2, (uint16_t)(value >> 16));
}

static inline void qp_put_le64(uint8_t *p, uint64_t value)
{
    qp_put_le32(p, (uint32_t)value);
    qp_put_le32(p + 4, (uint32_t)(value >> 32));
}

static inline float qp_float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline double qp_double_of_bits(uint64_t bits)
{
    double f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

#endif
