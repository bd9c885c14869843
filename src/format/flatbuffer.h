/* flatbuffer.h: reads flatbuffers of a fixed schema (flatbuffer.c). */
#ifndef QP_FLATBUFFER_H
#define QP_FLATBUFFER_H

#include "base/base.h"

struct flat {
    const uint8_t *p;
    uint32_t n;      // bytes of the header; positions are below it
    const char *bad; // the first error
};

/* A table of n bytes at `at`. Its vtable says where its fields are: u16 n_vtable, n_table, and the
 * position of each field in the table. */
struct flat_table {
    uint32_t at, n;
    uint32_t vtable, n_vtable;
};

struct flat_vector {
    uint32_t at, count; // of the first item
};

bool qp_flat_check(struct flat *b, uint64_t at, uint64_t n, const char *what);
struct flat_table qp_flat_table(struct flat *b, uint64_t at, const char *what);
/* The position of field number `field`, which has n bytes; 0 if it is absent. */
uint32_t qp_flat_field(struct flat *b, const struct flat_table *t, int field, uint32_t n,
                       const char *what);
/* The field's value; 0 if it is absent. */
uint32_t qp_flat_u32(struct flat *b, const struct flat_table *t, int field, const char *what);
uint64_t qp_flat_u64(struct flat *b, const struct flat_table *t, int field, const char *what);
/* A vector field; empty if it is absent. A string is a vector of bytes. */
struct flat_vector qp_flat_vector(struct flat *b, const struct flat_table *t, int field,
                                  uint32_t item_bytes, const char *what);
/* Table number i of a vector of tables. */
struct flat_table qp_flat_item(struct flat *b, struct flat_vector v, uint32_t i, const char *what);

#endif
