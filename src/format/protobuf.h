/* protobuf.h: reads and writes the protobuf wire format (protobuf.c). */
#ifndef QP_PROTOBUF_H
#define QP_PROTOBUF_H

#include "base/base.h"

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_FIXED64 = 1,
    WIRE_BYTES = 2,
    WIRE_FIXED32 = 5 // 3 and 4, groups, are obsolete and not read
};
struct proto_reader {
    const uint8_t *p, *end;
    bool is_malformed; // stays set; set by any read past the end or overflow
};
struct proto_field {
    int number;
    int wire_type;       // enum wire_type
    uint64_t value;      // varint and fixed
    const uint8_t *data; // bytes
    size_t n;
};
void qp_proto_open(struct proto_reader *r, const void *data, size_t n);
/* Read the next field; false at the end or if it is malformed. */
bool qp_proto_next(struct proto_reader *r, struct proto_field *field);
/* Read one varint, an item of a packed field; false at the end or if it is malformed. */
bool qp_proto_varint(struct proto_reader *r, uint64_t *value);
float qp_proto_float(const struct proto_field *field); // of a fixed32

/* Append one field. False if there is not enough memory; `b` is then unchanged. */
bool qp_proto_put_varint(struct bytes *b, int number, uint64_t value);
bool qp_proto_put_float(struct bytes *b, int number, float value);
bool qp_proto_put_bytes(struct bytes *b, int number, const void *data, size_t n);

#endif
