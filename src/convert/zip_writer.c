/* zip_writer.c: files -> a ZIP archive of stored entries (APPNOTE.TXT 4.3.6; zip.c reads it).
 * In:  whole files, one after another.
 * Out: the archive. The data of each entry begins at a multiple of 64 bytes, which kernels need for
 *      weights; an extra field in the local header fills the gap.
 *
 * The CRC of an entry is known after it has been copied, so a header is written after its data. ZIP
 * libraries compress, or need the whole file in memory. */
#include "convert/zip_writer.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define ENTRY_ALIGNMENT 64
#define COPY_BYTES ((size_t)1 << 20)
#define ZIP64_FROM 0xffffffffu  // sizes and offsets from here on are in a ZIP64 field
#define DOS_DATE 0x21           // 1 January 1980: the same bytes every time
#define EXTRA_PADDING_ID 0xd935 // as Android's zipalign writes it
#define EXTRA_ZIP64_ID 1
enum {
    VERSION_STORED = 20,
    VERSION_ZIP64 = 45,
    HEADER_BYTES = 30, // of a local header, without name and extra field
    EXTRA_HEAD_BYTES = 4,
    CENTRAL_MAX_BYTES = 46 + EXTRA_HEAD_BYTES + 24, // an entry of the list, without its name
    TAIL_BYTES = 56 + 20 + 22,                      // both end records, and the locator
};

/* The reflected CRC-32 of ISO 3309, polynomial 0xedb88320. */
static void fill_crc_table(uint32_t table[256])
{
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
    }
}

static uint32_t add_to_crc(const uint32_t table[256], uint32_t crc, const uint8_t *p, size_t n)
{
    crc = ~crc;
    for (size_t i = 0; i < n; i++)
        crc = table[(crc ^ p[i]) & 255] ^ crc >> 8;
    return ~crc;
}

/* Append a little-endian number. The buffer has enough capacity. */
static void put(struct bytes *b, uint64_t value, int n_bytes)
{
    assert(n_bytes <= 8 && b->n + (size_t)n_bytes <= b->capacity);
    uint8_t le[8];
    for (int i = 0; i < n_bytes; i++)
        le[i] = (uint8_t)(value >> 8 * i);
    qp_bytes_append(b, le, (size_t)n_bytes);
}

static uint32_t below_zip64(uint64_t value)
{
    return value < ZIP64_FROM ? (uint32_t)value : ZIP64_FROM;
}

/* Append the common part of local and central headers: version needed to name length. */
static void put_common(struct bytes *b, const struct zip_written *e, bool is_64)
{
    put(b, is_64 ? VERSION_ZIP64 : VERSION_STORED, 2);
    put(b, 0, 2); // flags
    put(b, 0, 2); // stored
    put(b, 0, 2); // time
    put(b, DOS_DATE, 2);
    put(b, e->crc, 4);
    put(b, below_zip64(e->n_bytes), 4); // stored and original size
    put(b, below_zip64(e->n_bytes), 4);
    assert(strlen(e->name) <= UINT16_MAX);
    put(b, strlen(e->name), 2);
}

/* Bytes of the extra field that aligns the data of an entry. */
static size_t extra_bytes(const struct zip_written *e, size_t zip64_bytes)
{
    const uint64_t least = e->header + HEADER_BYTES + strlen(e->name) + zip64_bytes;
    size_t padding = (size_t)(0 - least) % ENTRY_ALIGNMENT;
    if (padding > 0 && padding < EXTRA_HEAD_BYTES)
        padding += ENTRY_ALIGNMENT;
    assert((least + padding) % ENTRY_ALIGNMENT == 0);
    return zip64_bytes + padding;
}

static quip_status write_local(struct zip_writer *z, const struct zip_written *e, size_t n_extra,
                               quip_error *error)
{
    struct bytes b = { 0 };
    const bool is_64 = e->n_bytes >= ZIP64_FROM;
    size_t padding = n_extra;
    if (!qp_bytes_reserve(&b, HEADER_BYTES + strlen(e->name) + n_extra))
        return qp_fail_memory(error, "an entry's header", n_extra);
    put(&b, 0x04034b50, 4);
    put_common(&b, e, is_64);
    put(&b, n_extra, 2);
    qp_bytes_append_text(&b, e->name);
    if (is_64) {
        put(&b, EXTRA_ZIP64_ID, 2);
        put(&b, 16, 2);
        put(&b, e->n_bytes, 8);
        put(&b, e->n_bytes, 8);
        padding -= EXTRA_HEAD_BYTES + 16;
    }
    if (padding) {
        put(&b, EXTRA_PADDING_ID, 2);
        put(&b, padding - EXTRA_HEAD_BYTES, 2);
        for (padding -= EXTRA_HEAD_BYTES; padding; padding--)
            put(&b, 0, 1);
    }
    quip_status status = qp_out_file_write(z->file, e->header, b.data, b.n, error);
    qp_bytes_close(&b);
    return status;
}

quip_status qp_zip_writer_add(struct zip_writer *z, const char *name, const struct file *from,
                              convert_on_progress *on_progress, void *user, quip_error *error)
{
    assert(z->n_entries < ZIP_WRITER_ENTRIES);
    struct zip_written *e = &z->entries[z->n_entries];
    *e = (struct zip_written){ .name = name, .header = z->at, .n_bytes = from->size };
    const size_t n_extra = extra_bytes(e, e->n_bytes >= ZIP64_FROM ? EXTRA_HEAD_BYTES + 16 : 0);
    const uint64_t data = e->header + HEADER_BYTES + strlen(name) + n_extra;
    for (uint64_t done = 0; done < from->size;) {
        const uint64_t left = from->size - done;
        const size_t n = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
        quip_status status;
        if ((status = qp_file_read(from, done, z->buffer, n, error)) ||
            (status = qp_out_file_write(z->file, data + done, z->buffer, n, error)))
            return status;
        e->crc = add_to_crc(z->crc_table, e->crc, z->buffer, n);
        done += n;
        if (on_progress && !on_progress(user, done, from->size, name))
            return qp_fail(error, QUIP_E_CANCELLED, "cancelled; nothing was written");
    }
    z->n_entries++;
    z->at = data + e->n_bytes;
    return write_local(z, e, n_extra, error);
}

static void put_central(struct bytes *b, const struct zip_written *e)
{
    const bool big_size = e->n_bytes >= ZIP64_FROM, big_offset = e->header >= ZIP64_FROM;
    const int n_big = (big_size ? 16 : 0) + (big_offset ? 8 : 0);
    put(b, 0x02014b50, 4);
    put(b, VERSION_ZIP64, 2); // made by
    put_common(b, e, n_big > 0);
    put(b, n_big ? (uint64_t)n_big + EXTRA_HEAD_BYTES : 0, 2);
    put(b, 0, 2); // comment
    put(b, 0, 2); // disk
    put(b, 0, 2); // attributes
    put(b, 0, 4);
    put(b, below_zip64(e->header), 4);
    qp_bytes_append_text(b, e->name);
    if (n_big) {
        put(b, EXTRA_ZIP64_ID, 2);
        put(b, (uint64_t)n_big, 2);
    }
    for (int i = 0; big_size && i < 2; i++)
        put(b, e->n_bytes, 8);
    if (big_offset)
        put(b, e->header, 8);
}

quip_status qp_zip_writer_finish(struct zip_writer *z, quip_error *error)
{
    struct bytes b = { 0 };
    size_t capacity = TAIL_BYTES;
    for (int i = 0; i < z->n_entries; i++)
        capacity += CENTRAL_MAX_BYTES + strlen(z->entries[i].name);
    if (!qp_bytes_reserve(&b, capacity))
        return qp_fail_memory(error, "the list of entries", capacity);
    for (int i = 0; i < z->n_entries; i++)
        put_central(&b, &z->entries[i]);
    const uint64_t n = b.n, end = z->at + n;
    if (z->at >= ZIP64_FROM) {
        put(&b, 0x06064b50, 4);
        put(&b, 44, 8); // bytes that follow
        put(&b, VERSION_ZIP64, 2);
        put(&b, VERSION_ZIP64, 2);
        put(&b, 0, 8); // this disk, and the list's
        put(&b, (uint64_t)z->n_entries, 8);
        put(&b, (uint64_t)z->n_entries, 8);
        put(&b, n, 8);
        put(&b, z->at, 8);
        put(&b, 0x07064b50, 4);
        put(&b, 0, 4);
        put(&b, end, 8);
        put(&b, 1, 4);
    }
    put(&b, 0x06054b50, 4);
    put(&b, 0, 4);
    put(&b, (uint64_t)z->n_entries, 2);
    put(&b, (uint64_t)z->n_entries, 2);
    put(&b, n, 4);
    put(&b, below_zip64(z->at), 4);
    put(&b, 0, 2);
    quip_status status = qp_out_file_write(z->file, z->at, b.data, b.n, error);
    qp_bytes_close(&b);
    return status ? status : qp_out_file_commit(z->file, error);
}

/* ---- open, close ---- */

quip_status qp_zip_writer_open(struct zip_writer *z, const char *path, uint64_t begin,
                               quip_error *error)
{
    *z = (struct zip_writer){ .at = begin };
    fill_crc_table(z->crc_table);
    z->buffer = malloc(COPY_BYTES);
    if (!z->buffer)
        return qp_fail_memory(error, "a copy buffer", COPY_BYTES);
    return qp_out_file_open(&z->file, path, error);
}

void qp_zip_writer_close(struct zip_writer *z)
{
    qp_out_file_close(z->file);
    free(z->buffer);
}
