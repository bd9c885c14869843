/* protobuf.c: fuzz target for the protobuf wire format.
 * In:  the bytes of a message.
 * Out: no crash; byte fields are read as messages, too, four levels deep. */
#include "format/protobuf.h"

static void fuzz_message(const uint8_t *data, size_t n, int depth)
{
    struct proto_reader r;
    struct proto_field field;
    qp_proto_open(&r, data, n);
    while (qp_proto_next(&r, &field))
        if (field.wire_type == WIRE_BYTES && depth < 4)
            fuzz_message(field.data, field.n, depth + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    fuzz_message(data, n, 0);
    return 0;
}
