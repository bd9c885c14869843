/* protobuf.c: reads and writes the protobuf wire format, field by field.
 * In:  a message, or the fields of one.
 * Out: number, type and value of each field, or a message. The caller skips unknown fields.
 *
 * Quip uses two messages: MediaPipe's LlmParameters and SentencePiece's ModelProto. A generated
 * parser would be larger than the rest of this folder. */
#include "format/protobuf.h"
#include "format/little_endian.h"

#include <assert.h>

/* ---- reading ---- */

void qp_proto_open(struct proto_reader *r, const void *data, size_t n)
{
    static const uint8_t nothing[1] = { 0 };
    const uint8_t *p = data ? data : nothing;
    *r = (struct proto_reader){ .p = p, .end = p + (data ? n : 0) };
}

bool qp_proto_varint(struct proto_reader *r, uint64_t *value)
{
    *value = 0;
    if (r->is_malformed || r->p == r->end)
        return false;
    for (int shift = 0; shift < 70 && r->p < r->end; shift += 7) {
        uint8_t byte = *r->p++;
        if (shift == 63 && byte > 1)
            break; // more than 64 bits
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128)
            return true;
    }
    r->is_malformed = true;
    return false;
}

static bool read_fixed(struct proto_reader *r, struct proto_field *field, size_t n)
{
    assert(r->p <= r->end && (n == 4 || n == 8));
    if (n > (size_t)(r->end - r->p))
        return false;
    field->value = n == 8 ? qp_le64(r->p) : qp_le32(r->p);
    r->p += n;
    return true;
}

static bool read_length_delimited(struct proto_reader *r, struct proto_field *field)
{
    uint64_t n;
    if (!qp_proto_varint(r, &n) || n > (uint64_t)(r->end - r->p))
        return false;
    field->data = r->p;
    field->n = (size_t)n;
    r->p += n;
    return true;
}

bool qp_proto_next(struct proto_reader *r, struct proto_field *field)
{
    *field = (struct proto_field){ 0 };
    uint64_t tag;
    if (!qp_proto_varint(r, &tag))
        return false;
    field->number = (int)(tag >> 3 & 0x1fffffff);
    field->wire_type = (int)(tag & 7);
    bool ok = tag <= UINT32_MAX && field->number > 0;
    if (ok)
        switch (field->wire_type) {
        case WIRE_VARINT:
            ok = qp_proto_varint(r, &field->value);
            break;
        case WIRE_FIXED64:
            ok = read_fixed(r, field, 8);
            break;
        case WIRE_BYTES:
            ok = read_length_delimited(r, field);
            break;
        case WIRE_FIXED32:
            ok = read_fixed(r, field, 4);
            break;
        default:
            ok = false;
        }
    r->is_malformed = !ok;
    return ok;
}

float qp_proto_float(const struct proto_field *field)
{
    return qp_float_of_bits((uint32_t)field->value);
}

/* ---- writing ---- */

static bool put_raw_varint(struct bytes *b, uint64_t value)
{
    uint8_t out[10];
    size_t n = 0;
    for (; value >= 128; value >>= 7)
        out[n++] = (uint8_t)(value | 128);
    out[n++] = (uint8_t)value;
    return qp_bytes_append(b, out, n);
}

static bool put_tag(struct bytes *b, int number, int wire_type)
{
    assert(number > 0 && number < 1 << 29);
    return put_raw_varint(b, (uint64_t)number << 3 | (uint64_t)wire_type);
}

/* Remove a field of which only a part could be appended. */
static bool undo_unless(struct bytes *b, size_t n, bool ok)
{
    if (!ok)
        b->n = n;
    return ok;
}

bool qp_proto_put_varint(struct bytes *b, int number, uint64_t value)
{
    size_t n = b->n;
    return undo_unless(b, n, put_tag(b, number, WIRE_VARINT) && put_raw_varint(b, value));
}

bool qp_proto_put_float(struct bytes *b, int number, float value)
{
    uint32_t bits;
    uint8_t out[4];
    memcpy(&bits, &value, sizeof bits);
    qp_put_le32(out, bits);
    size_t n = b->n;
    return undo_unless(b, n, put_tag(b, number, WIRE_FIXED32) && qp_bytes_append(b, out, 4));
}

bool qp_proto_put_bytes(struct bytes *b, int number, const void *data, size_t n_data)
{
    size_t n = b->n;
    return undo_unless(b, n,
                       put_tag(b, number, WIRE_BYTES) && put_raw_varint(b, n_data) &&
                           qp_bytes_append(b, data, n_data));
}
