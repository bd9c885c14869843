/* protobuf.c (test): the wire format is read and written as protobuf's documentation defines it. */
#include "format/protobuf.h"
#include "support/alloc_fault.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_round_trip(void **state)
{
    (void)state;
    struct bytes b = { 0 };
    assert_true(qp_proto_put_varint(&b, 1, 150));
    assert_true(qp_proto_put_varint(&b, 536870911, UINT64_MAX));
    assert_true(qp_proto_put_float(&b, 3, -1.5f));
    assert_true(qp_proto_put_bytes(&b, 4, "testing", 7));
    assert_true(qp_proto_put_bytes(&b, 5, NULL, 0));
    assert_memory_equal(b.data, "\x08\x96\x01", 3); // the example of protobuf's documentation

    struct proto_reader r;
    struct proto_field f;
    qp_proto_open(&r, b.data, b.n);
    assert_true(qp_proto_next(&r, &f) && f.number == 1 && f.wire_type == 0 && f.value == 150);
    assert_true(qp_proto_next(&r, &f) && f.number == 536870911 && f.value == UINT64_MAX);
    assert_true(qp_proto_next(&r, &f) && f.number == 3 && qp_proto_float(&f) == -1.5f);
    assert_true(qp_proto_next(&r, &f) && f.n == 7 && !memcmp(f.data, "testing", 7));
    assert_true(qp_proto_next(&r, &f) && f.number == 5 && f.n == 0);
    assert_false(qp_proto_next(&r, &f) || r.is_malformed);

    for (size_t n = 0; n < b.n; n++) { // cut anywhere: fewer fields, and no read past the end
        qp_proto_open(&r, b.data, n);
        while (qp_proto_next(&r, &f)) {
        }
    }
    qp_bytes_close(&b);
    qp_proto_open(&r, NULL, 0);
    assert_false(qp_proto_next(&r, &f) || r.is_malformed);
}

static void test_malformed(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
    } malformed[] = {
        { "\x08", 1 },                                              // no value
        { "\x08\x80", 2 },                                          // half a varint
        { "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11 },     // past 64 bits
        { "\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", 12 }, // 11 bytes
        { "\x00\x01", 2 },                                          // field 0
        { "\x80\x80\x80\x80\x10\x00", 6 },                          // a tag past 32 bits
        { "\x0a\x02x", 3 },                                     // two bytes announced, one present
        { "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11 }, // 2^64 bytes
        { "\x0d\x01\x02\x03", 4 },                              // fixed32
        { "\x09\x01\x02\x03\x04\x05\x06\x07", 8 },              // fixed64
        { "\x0b", 1 },                                          // a group
        { "\x0e", 1 },                                          // wire type 6
    };
    for (size_t i = 0; i < QP_COUNT(malformed); i++) {
        struct proto_reader r;
        struct proto_field f;
        qp_proto_open(&r, malformed[i].bytes, malformed[i].n);
        assert_false(qp_proto_next(&r, &f));
        assert_true(r.is_malformed);
        assert_false(qp_proto_next(&r, &f)); // also the second time
    }
}

static void test_packed(void **state)
{
    (void)state;
    struct proto_reader r;
    uint64_t value;
    qp_proto_open(&r, "\x01\x80\x01", 3);
    assert_true(qp_proto_varint(&r, &value) && value == 1);
    assert_true(qp_proto_varint(&r, &value) && value == 128);
    assert_false(qp_proto_varint(&r, &value) || r.is_malformed);
}

/* A field is appended completely or not at all. */
static void test_faults(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    char text[200] = { 0 };
    struct bytes b = { 0 };
    assert_true(qp_proto_put_varint(&b, 1, 1));
    alloc_fault_set(0);
    assert_false(qp_proto_put_bytes(&b, 2, text, sizeof text));
    assert_true(alloc_fault_clear());
    assert_int_equal(b.n, 2);
    qp_bytes_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_faults),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
