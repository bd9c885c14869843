/* flatbuffer.c: reads flatbuffers of a fixed schema.
 * In:  the bytes of a flatbuffer, from a file that may be hostile.
 * Out: positions and values of fields.
 *
 * A flatbuffer consists of tables of optional fields, which point forward to other tables. The
 * schemas are small and fixed, so these functions read them instead of generated code. Each one
 * checks its position. After the first error all of them return zero, so a reader can continue and
 * check once at the end. */
#include "format/flatbuffer.h"
#include "format/little_endian.h"

#include <assert.h>

bool qp_flat_check(struct flat *b, uint64_t at, uint64_t n, const char *what)
{
    if (!b->bad && (at > b->n || n > b->n - at))
        b->bad = what;
    return !b->bad;
}

/* Tables are 4-aligned and vtables 2-aligned in valid files. This is not checked: nothing needs it.
 */
struct flat_table qp_flat_table(struct flat *b, uint64_t at, const char *what)
{
    struct flat_table none = { 0 };
    if (!qp_flat_check(b, at, 4, what))
        return none;
    int64_t vtable = (int64_t)at - (int32_t)qp_le32(b->p + at);
    if (vtable < 0 || !qp_flat_check(b, (uint64_t)vtable, 4, what)) {
        b->bad = b->bad ? b->bad : what;
        return none;
    }
    struct flat_table t = { .at = (uint32_t)at,
                            .n = qp_le16(b->p + vtable + 2),
                            .vtable = (uint32_t)vtable,
                            .n_vtable = qp_le16(b->p + vtable) };
    bool ok = qp_flat_check(b, t.vtable, t.n_vtable, what) && qp_flat_check(b, at, t.n, what);
    return ok ? t : none;
}

uint32_t qp_flat_field(struct flat *b, const struct flat_table *t, int field, uint32_t n,
                       const char *what)
{
    uint32_t slot = 4 + 2 * (uint32_t)field;
    if (b->bad || slot + 2 > t->n_vtable)
        return 0;
    assert(t->vtable + t->n_vtable <= b->n && t->at + t->n <= b->n);
    uint32_t offset = qp_le16(b->p + t->vtable + slot);
    if (offset && (offset > t->n || n > t->n - offset)) {
        b->bad = what;
        return 0;
    }
    return offset ? t->at + offset : 0;
}

uint32_t qp_flat_u32(struct flat *b, const struct flat_table *t, int field, const char *what)
{
    uint32_t at = qp_flat_field(b, t, field, 4, what);
    return at ? qp_le32(b->p + at) : 0;
}

uint64_t qp_flat_u64(struct flat *b, const struct flat_table *t, int field, const char *what)
{
    uint32_t at = qp_flat_field(b, t, field, 8, what);
    return at ? qp_le64(b->p + at) : 0;
}

struct flat_vector qp_flat_vector(struct flat *b, const struct flat_table *t, int field,
                                  uint32_t item_bytes, const char *what)
{
    struct flat_vector none = { 0 };
    uint32_t at = qp_flat_field(b, t, field, 4, what);
    if (!at)
        return none;
    uint64_t begin = (uint64_t)at + qp_le32(b->p + at);
    if (!qp_flat_check(b, begin, 4, what))
        return none;
    uint32_t count = qp_le32(b->p + begin);
    if (!qp_flat_check(b, begin + 4, (uint64_t)count * item_bytes, what))
        return none;
    return (struct flat_vector){ (uint32_t)begin + 4, count };
}

struct flat_table qp_flat_item(struct flat *b, struct flat_vector v, uint32_t i, const char *what)
{
    if (b->bad || i >= v.count) {
        b->bad = b->bad ? b->bad : what;
        return (struct flat_table){ 0 };
    }
    uint32_t at = v.at + 4 * i;
    assert(at + 4 <= b->n);
    return qp_flat_table(b, (uint64_t)at + qp_le32(b->p + at), what);
}
