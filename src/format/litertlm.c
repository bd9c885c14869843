/* litertlm.c: reads the container of LiteRT-LM, a .litertlm file (its litertlm_header_schema.fbs).
 * In:  "LITERTLM", u32 major, minor and patch version, 4 bytes, u64 end of the header; from byte 32
 *      a flatbuffer with metadata and the list of sections; the sections.
 * Out: metadata entries. `system.KEY` and `section.N.KEY` have the values that the file gives,
 *      `section.N.TYPE` has the bytes of section N. There are no tensors: the weights are inside of
 *      a TFLite graph, which is a section. */
#include "format/flatbuffer.h"
#include "format/format_reader.h"
#include "format/little_endian.h"

#include <assert.h>

enum {
    LITERTLM_HEADER = 32, // bytes before the flatbuffer
    LITERTLM_MAX_FLATBUFFER = 1 << 20,
    LITERTLM_MAX_SECTIONS = 1 << 12,
    LITERTLM_MAX_KEY = 200
};

/* The file, and its flatbuffer. */
struct litertlm {
    struct format *f;
    struct flat flat;
    uint64_t header_end;
};

bool qp_litertlm_matches(const uint8_t head[16], uint64_t file_size)
{
    return file_size >= LITERTLM_HEADER && !memcmp(head, "LITERTLM", 8);
}

static quip_status litertlm_damaged(const struct litertlm *r, quip_error *error)
{
    return qp_fail(error, QUIP_E_FORMAT, "%s: the header is damaged: %s points outside of it",
                   r->f->file->name, r->flat.bad);
}

/* ---- entries ---- */

/* A name that is valid until close: `prefix`, then the text at `key` or `other`. */
static quip_status name_entry(struct litertlm *r, const char *prefix, struct flat_vector key,
                              const char *other, const char **name, size_t *n_name,
                              quip_error *error)
{
    const size_t n_prefix = strlen(prefix), n_key = other ? strlen(other) : key.count;
    if (n_key > LITERTLM_MAX_KEY)
        return qp_fail(error, QUIP_E_FORMAT, "%s: a name has %zu bytes; must be at most %d",
                       r->f->file->name, n_key, LITERTLM_MAX_KEY);
    char *text = qp_format_text(r->f, n_prefix + n_key);
    if (!text)
        return qp_fail_memory(error, "a name", n_prefix + n_key);
    memcpy(text, prefix, n_prefix);
    if (n_key)
        memcpy(text + n_prefix, other ? (const uint8_t *)other : r->flat.p + key.at, n_key);
    *name = text;
    *n_name = n_prefix + n_key;
    return QUIP_OK;
}

/* Values: schema.fbs, union VData, by number. Each is a table with one field. */
static const struct {
    uint8_t n_bytes, is_signed, is_float;
} value_kinds[] = {
    { 0 },       { 1, 0, 0 }, { 1, 1, 0 }, { 2, 0, 0 }, { 2, 1, 0 }, { 4, 0, 0 }, { 4, 1, 0 },
    { 4, 0, 1 }, { 1, 0, 0 }, { 0 },       { 8, 0, 0 }, { 8, 1, 0 }, { 8, 0, 1 },
};
enum {
    VALUE_STRING = 9,
    PAIR_KEY = 0,
    PAIR_TYPE = 1,
    PAIR_VALUE = 2
};

static void read_scalar(struct metadata *m, const uint8_t *p, int kind)
{
    const int n = value_kinds[kind].n_bytes;
    uint64_t bits = 0;
    for (int i = 0; i < n; i++)
        bits |= (uint64_t)p[i] << 8 * i;
    if (value_kinds[kind].is_float) {
        m->type = METADATA_FLOAT;
        m->f = n == 4 ? (double)qp_float_of_bits((uint32_t)bits) : qp_double_of_bits(bits);
        return;
    }
    if (value_kinds[kind].is_signed && n < 8 && bits >> (8 * n - 1))
        bits |= ~0ull << 8 * n;
    m->type = METADATA_INT;
    m->i = (int64_t)bits;
    m->f = (double)m->i;
}

/* One pair of key and value. Kinds of values that are not known are left out. */
static quip_status read_pair(struct litertlm *r, const char *prefix, struct flat_table pair,
                             quip_error *error)
{
    struct flat *b = &r->flat;
    struct metadata m = { 0 };
    size_t n_name;
    const struct flat_vector key = qp_flat_vector(b, &pair, PAIR_KEY, 1, "a key");
    const uint32_t type = qp_flat_field(b, &pair, PAIR_TYPE, 1, "the type of a value");
    const uint32_t at = qp_flat_field(b, &pair, PAIR_VALUE, 4, "a value");
    const int kind = type ? b->p[type] : 0;
    if (b->bad)
        return litertlm_damaged(r, error);
    if (!at || kind == 0 || kind >= (int)QP_COUNT(value_kinds))
        return QUIP_OK;
    const struct flat_table value = qp_flat_table(b, (uint64_t)at + qp_le32(b->p + at), "a value");
    if (kind == VALUE_STRING) {
        const struct flat_vector text = qp_flat_vector(b, &value, 0, 1, "a text");
        m.type = METADATA_BYTES;
        m.offset = LITERTLM_HEADER + text.at;
        m.n_bytes = text.count;
    } else {
        static const uint8_t zeros[8]; // a field that is absent has its default
        const uint32_t number = qp_flat_field(b, &value, 0, value_kinds[kind].n_bytes, "a number");
        read_scalar(&m, number ? b->p + number : zeros, kind);
    }
    if (b->bad)
        return litertlm_damaged(r, error);
    quip_status status = name_entry(r, prefix, key, NULL, &m.name, &n_name, error);
    return status ? status : qp_format_add_metadata(r->f, &m, n_name, error);
}

static quip_status read_pairs(struct litertlm *r, const char *prefix, struct flat_vector pairs,
                              quip_error *error)
{
    quip_status status = QUIP_OK;
    for (uint32_t i = 0; i < pairs.count && !status; i++)
        status = read_pair(r, prefix, qp_flat_item(&r->flat, pairs, i, "a pair"), error);
    return status;
}

/* ---- sections ---- */

enum {
    SECTION_ITEMS,
    SECTION_BEGIN,
    SECTION_END,
    SECTION_TYPE
};

/* schema.fbs, enum AnySectionDataType */
static const char *section_type(int type)
{
    static const char *const names[] = {
        "NONE",
        "GenericBinaryData",
        "Deprecated",
        "TFLiteModel",
        "SP_Tokenizer",
        "LlmMetadataProto",
        "HF_Tokenizer_Zlib",
        "TFLiteWeights",
        "ExecutorMetadataProto",
    };
    return type < (int)QP_COUNT(names) ? names[type] : "unknown";
}

static quip_status read_section(struct litertlm *r, uint32_t index, struct flat_table section,
                                quip_error *error)
{
    struct flat *b = &r->flat;
    char prefix[24];
    struct metadata m = { .type = METADATA_BYTES };
    size_t n_name;
    const struct flat_vector items = qp_flat_vector(b, &section, SECTION_ITEMS, 4, "a section");
    const uint64_t begin = qp_flat_u64(b, &section, SECTION_BEGIN, "a section");
    const uint64_t end = qp_flat_u64(b, &section, SECTION_END, "a section");
    const uint32_t type = qp_flat_field(b, &section, SECTION_TYPE, 1, "a section");
    if (b->bad)
        return litertlm_damaged(r, error);
    if (begin > end || begin < r->header_end || end > r->f->file->size)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: section %u is at [%" PRIu64 ", %" PRIu64
                       "), expected a part of [%" PRIu64 ", %" PRIu64 "); is the file truncated?",
                       r->f->file->name, (unsigned)index, begin, end, r->header_end,
                       r->f->file->size);
    m.offset = begin;
    m.n_bytes = end - begin;
    snprintf(prefix, sizeof prefix, "section.%u.", (unsigned)index);
    quip_status status = name_entry(r, prefix, (struct flat_vector){ 0 },
                                    section_type(type ? b->p[type] : 0), &m.name, &n_name, error);
    if (!status)
        status = qp_format_add_metadata(r->f, &m, n_name, error);
    return status ? status : read_pairs(r, prefix, items, error);
}

/* ---- the whole ---- */

static quip_status open_litertlm(struct litertlm *r, quip_error *error)
{
    const uint8_t *head;
    const struct file *file = r->f->file;
    quip_status status = qp_format_view(r->f, 0, LITERTLM_HEADER, &head, error);
    if (status)
        return status;
    const uint32_t version = qp_le32(head + 8);
    r->header_end = qp_le64(head + 24);
    if (version != 1)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: is LiteRT-LM version %u; expected 1",
                       file->name, (unsigned)version);
    if (r->header_end < LITERTLM_HEADER + 8 || r->header_end > file->size ||
        r->header_end - LITERTLM_HEADER > LITERTLM_MAX_FLATBUFFER)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its header ends at byte %" PRIu64
                       "; must be in the file, and the header "
                       "at most %d bytes; is the file truncated?",
                       file->name, r->header_end, LITERTLM_MAX_FLATBUFFER);
    r->flat.n = (uint32_t)(r->header_end - LITERTLM_HEADER);
    return qp_format_view(r->f, LITERTLM_HEADER, r->flat.n, &r->flat.p, error);
}

quip_status qp_litertlm_read(struct format *f, quip_error *error)
{
    struct litertlm r = { .f = f };
    struct flat *b = &r.flat;
    quip_status status = open_litertlm(&r, error);
    if (status)
        return status;
    const struct flat_table root = qp_flat_table(b, qp_le32(b->p), "the metadata");
    const uint32_t system_at = qp_flat_field(b, &root, 0, 4, "the system metadata");
    const uint32_t list_at = qp_flat_field(b, &root, 1, 4, "the list of sections");
    struct flat_vector entries = { 0 }, sections = { 0 };
    if (system_at) {
        const struct flat_table system = qp_flat_table(
            b, (uint64_t)system_at + qp_le32(b->p + system_at), "the system metadata");
        entries = qp_flat_vector(b, &system, 0, 4, "the system metadata");
    }
    if (list_at) {
        const struct flat_table list =
            qp_flat_table(b, (uint64_t)list_at + qp_le32(b->p + list_at), "the list of sections");
        sections = qp_flat_vector(b, &list, 0, 4, "the list of sections");
    }
    if (b->bad)
        return litertlm_damaged(&r, error);
    if (sections.count > LITERTLM_MAX_SECTIONS)
        return qp_fail(error, QUIP_E_FORMAT, "%s: has %u sections; must be at most %d",
                       f->file->name, (unsigned)sections.count, LITERTLM_MAX_SECTIONS);
    status = read_pairs(&r, "system.", entries, error);
    for (uint32_t i = 0; i < sections.count && !status; i++)
        status = read_section(&r, i, qp_flat_item(b, sections, i, "a section"), error);
    return status;
}

const struct metadata *qp_litertlm_section(const struct format *f, const char *type)
{
    const size_t n_type = strlen(type);
    assert(f->kind == FORMAT_LITERTLM);
    for (int i = 0; i < f->n_metadata; i++) {
        const struct metadata *m = &f->metadata[i];
        const size_t n = strlen(m->name);
        const char *digits = m->name + 8; // after "section."
        if (m->type == METADATA_BYTES && n > n_type + 9 && strncmp(m->name, "section.", 8) == 0 &&
            digits[strspn(digits, "0123456789")] == '.' &&
            strcmp(digits + strspn(digits, "0123456789") + 1, type) == 0)
            return m;
    }
    return NULL;
}

quip_status qp_litertlm_refuse(const struct format *f, quip_error *error)
{
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: is a LiteRT-LM file, whose weights are inside of a TFLite graph; take the "
                   "model's .task or .bin file of MediaPipe, or convert its safetensors or GGUF "
                   "files with quip convert",
                   f->file->name);
}
