/* zip.c: reads the list of entries of a ZIP archive.
 * In:  a file with local headers and data, central directory, ZIP64 end record and locator, end
 *      record, in this order (APPNOTE.TXT 4.3.6).
 * Out: name and position of every stored entry, checked against its local header. Folders (names
 *      that end in a slash) have no data and are left out. */
#include "format/zip.h"
#include "format/little_endian.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    END_BYTES = 22, // of the end record, without its comment
    MAX_COMMENT = 65535,
    LOCATOR_BYTES = 20, // of the ZIP64 locator, just before the end record
    END64_BYTES = 56,
    CENTRAL_BYTES = 46, // of an entry in the directory, without name, extra field and comment
    LOCAL_BYTES = 30,   // of the header before an entry's data, without name and extra field
};
static const uint32_t end_mark = 0x06054b50, locator_mark = 0x07064b50, end64_mark = 0x06064b50,
                      central_mark = 0x02014b50, local_mark = 0x04034b50;

/* The central directory, as described by the end record. */
struct zip_directory {
    uint64_t offset, n_bytes, n_entries;
    uint64_t end; // where the first end record begins
};

/* ---- the end of the file ---- */

/* Find the end record: the last 22 bytes, or 22 bytes and a comment that ends at the end of the
 * file. *at is UINT64_MAX if there is none. */
static quip_status find_end(const struct file *f, uint64_t *at, quip_error *error)
{
    enum {
        STEP = 4096
    };
    uint8_t buffer[STEP + END_BYTES];
    const uint64_t lowest =
        f->size > END_BYTES + MAX_COMMENT ? f->size - END_BYTES - MAX_COMMENT : 0;
    *at = UINT64_MAX;
    if (f->size < END_BYTES)
        return QUIP_OK;
    for (uint64_t high = f->size - END_BYTES + 1; high > lowest;) {
        const uint64_t low = high - lowest > STEP ? high - STEP : lowest;
        quip_status status =
            qp_file_read(f, low, buffer, (size_t)(high - low) + END_BYTES - 1, error);
        if (status)
            return status;
        for (uint64_t i = high; i-- > low;) {
            const uint8_t *p = buffer + (i - low);
            if (qp_le32(p) == end_mark && i + END_BYTES + qp_le16(p + 20) == f->size) {
                *at = i;
                return QUIP_OK;
            }
        }
        high = low;
    }
    return QUIP_OK;
}

bool qp_zip_matches(const struct file *file)
{
    uint64_t at;
    return !find_end(file, &at, NULL) && at != UINT64_MAX;
}

static quip_status many_disks(const struct file *f, quip_error *error)
{
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: is one part of a ZIP archive in several files; join them first", f->name);
}

/* Replace the numbers by those of the ZIP64 end record, if there is one. */
static quip_status read_end64(const struct file *f, uint64_t end, struct zip_directory *d,
                              quip_error *error)
{
    uint8_t locator[LOCATOR_BYTES], p[END64_BYTES];
    if (end < LOCATOR_BYTES)
        return QUIP_OK;
    quip_status status = qp_file_read(f, end - LOCATOR_BYTES, locator, sizeof locator, error);
    if (status || qp_le32(locator) != locator_mark)
        return status;
    const uint64_t at = qp_le64(locator + 8);
    if (end - LOCATOR_BYTES < END64_BYTES || at > end - LOCATOR_BYTES - END64_BYTES)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its ZIP64 end record is at byte %" PRIu64
                       ", expected before its locator at %" PRIu64,
                       f->name, at, end - LOCATOR_BYTES);
    status = qp_file_read(f, at, p, sizeof p, error);
    if (status)
        return status;
    if (qp_le32(p) != end64_mark)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: expected a ZIP64 end record at byte %" PRIu64
                       ", where its locator points",
                       f->name, at);
    if (qp_le32(p + 16) || qp_le32(p + 20) || qp_le64(p + 24) != qp_le64(p + 32))
        return many_disks(f, error);
    d->n_entries = qp_le64(p + 32);
    d->n_bytes = qp_le64(p + 40);
    d->offset = qp_le64(p + 48);
    d->end = at;
    return QUIP_OK;
}

static quip_status read_end(const struct file *f, struct zip_directory *d, quip_error *error)
{
    uint64_t at;
    uint8_t p[END_BYTES];
    quip_status status = find_end(f, &at, error);
    if (!status && at == UINT64_MAX)
        status =
            qp_fail(error, QUIP_E_FORMAT,
                    "%s: is not a ZIP archive, or is truncated: expected an end record", f->name);
    if (!status)
        status = qp_file_read(f, at, p, sizeof p, error);
    if (status)
        return status;
    *d = (struct zip_directory){ .n_entries = qp_le16(p + 10),
                                 .n_bytes = qp_le32(p + 12),
                                 .offset = qp_le32(p + 16),
                                 .end = at };
    if (qp_le16(p + 4) != qp_le16(p + 6) || qp_le16(p + 8) != qp_le16(p + 10))
        return many_disks(f, error);
    status = read_end64(f, at, d, error);
    if (status)
        return status;
    if (d->offset > d->end || d->n_bytes > d->end - d->offset)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its directory has %" PRIu64 " bytes at %" PRIu64
                       ", expected to end before the end record at %" PRIu64,
                       f->name, d->n_bytes, d->offset, d->end);
    if (d->n_entries > d->n_bytes / CENTRAL_BYTES || d->n_entries > INT32_MAX / 2)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its directory of %" PRIu64 " bytes is too short for %" PRIu64
                       " entries",
                       f->name, d->n_bytes, d->n_entries);
    return QUIP_OK;
}

/* ---- entries ---- */

/* One entry of the directory; its sizes may be in a ZIP64 extra field. */
struct zip_central {
    unsigned flags, method;
    uint64_t n_stored, n_bytes, local;
    size_t n_name, n_extra, n_comment;
};

/* Read the values that do not fit in 32 bits, in this order. False if one of them is missing. */
static bool read_zip64(struct zip_central *c, const uint8_t *extra)
{
    uint64_t *wanted[3];
    int n = 0;
    if (c->n_bytes == UINT32_MAX)
        wanted[n++] = &c->n_bytes;
    if (c->n_stored == UINT32_MAX)
        wanted[n++] = &c->n_stored;
    if (c->local == UINT32_MAX)
        wanted[n++] = &c->local;
    if (n == 0)
        return true;
    for (size_t at = 0; c->n_extra - at >= 4;) {
        const unsigned id = qp_le16(extra + at);
        const size_t n_field = qp_le16(extra + at + 2);
        at += 4;
        if (n_field > c->n_extra - at)
            return false;
        if (id == 1) {
            for (int i = 0; i < n; i++) {
                if (n_field < 8u * (size_t)(i + 1))
                    return false;
                *wanted[i] = qp_le64(extra + at + 8 * i);
            }
            return true;
        }
        at += n_field;
    }
    return false;
}

/* The data follows a local header, whose name and extra field may have other lengths than in the
 * directory. */
static quip_status locate_data(const struct file *f, const struct zip_directory *d,
                               const struct zip_central *c, struct zip_entry *e, quip_error *error)
{
    uint8_t p[LOCAL_BYTES];
    if (c->local > d->offset || d->offset - c->local < LOCAL_BYTES)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: the entry %s begins at byte %" PRIu64
                       ", expected before the directory at %" PRIu64,
                       f->name, e->name, c->local, d->offset);
    quip_status status = qp_file_read(f, c->local, p, sizeof p, error);
    if (status)
        return status;
    if (qp_le32(p) != local_mark)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: expected the header of entry %s at byte %" PRIu64
                       ", where the directory points",
                       f->name, e->name, c->local);
    e->offset = c->local + LOCAL_BYTES + qp_le16(p + 26) + qp_le16(p + 28);
    e->n_bytes = c->n_bytes;
    if (e->offset > d->offset || e->n_bytes > d->offset - e->offset)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: the entry %s has %" PRIu64 " bytes at %" PRIu64
                       ", expected to end before the directory at %" PRIu64,
                       f->name, e->name, e->n_bytes, e->offset, d->offset);
    return QUIP_OK;
}

static quip_status check_entry(const struct file *f, const struct zip_central *c, const char *name,
                               quip_error *error)
{
    if (c->n_name == 0 || strlen(name) != c->n_name)
        return qp_fail(error, QUIP_E_FORMAT, "%s: an entry has %s", f->name,
                       c->n_name ? "a zero byte in its name" : "no name");
    if (c->flags & 1)
        return qp_fail(error, QUIP_E_UNSUPPORTED, "%s: the entry %s is encrypted; decrypt it first",
                       f->name, name);
    if (c->method != 0 || c->n_stored != c->n_bytes)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: the entry %s is compressed (method %u), expected stored; make the "
                       "archive again with `zip -0`",
                       f->name, name, c->method);
    return QUIP_OK;
}

/* Read the entry at *at of the directory and advance *at. The name is moved over its own header, to
 * make space for a NUL after it. */
static quip_status add_entry(struct zip *z, const struct file *f, const struct zip_directory *d,
                             uint64_t *at, quip_error *error)
{
    uint8_t *p = z->directory + *at;
    const uint64_t left = d->n_bytes - *at;
    if (left < CENTRAL_BYTES || qp_le32(p) != central_mark)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: expected the header of entry %d of its directory at byte %" PRIu64,
                       f->name, z->n_entries, d->offset + *at);
    struct zip_central c = { .flags = qp_le16(p + 8),
                             .method = qp_le16(p + 10),
                             .n_stored = qp_le32(p + 20),
                             .n_bytes = qp_le32(p + 24),
                             .n_name = qp_le16(p + 28),
                             .n_extra = qp_le16(p + 30),
                             .n_comment = qp_le16(p + 32),
                             .local = qp_le32(p + 42) };
    const size_t n_all = CENTRAL_BYTES + c.n_name + c.n_extra + c.n_comment;
    if (left < n_all || !read_zip64(&c, p + CENTRAL_BYTES + c.n_name))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: entry %d of its directory, at byte %" PRIu64
                       ", is truncated or has no ZIP64 sizes",
                       f->name, z->n_entries, d->offset + *at);
    *at += n_all;

    assert(*at <= d->n_bytes);
    memmove(p, p + CENTRAL_BYTES, c.n_name);
    p[c.n_name] = 0;
    const char *name = (const char *)p;
    if (c.n_name && p[c.n_name - 1] == '/' && c.n_bytes == 0)
        return QUIP_OK;
    quip_status status = check_entry(f, &c, name, error);
    if (status)
        return status;
    struct zip_entry *e = &z->entries[z->n_entries];
    e->name = name;
    status = locate_data(f, d, &c, e, error);
    if (!status)
        z->n_entries++;
    return status;
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct zip_entry *)a)->name, ((const struct zip_entry *)b)->name);
}

static quip_status read_entries(struct zip *z, const struct file *f, quip_error *error)
{
    struct zip_directory d;
    quip_status status = read_end(f, &d, error);
    if (status)
        return status;
    z->entries = calloc((size_t)d.n_entries + 1, sizeof *z->entries); // calloc(0) may return NULL
    z->directory = malloc((size_t)d.n_bytes + 1);
    if (!z->entries || !z->directory)
        return qp_fail_memory(error, "the directory of a ZIP archive", (size_t)d.n_bytes);
    status = qp_file_read(f, d.offset, z->directory, (size_t)d.n_bytes, error);
    uint64_t at = 0;
    for (uint64_t i = 0; i < d.n_entries && !status; i++)
        status = add_entry(z, f, &d, &at, error);
    if (status)
        return status;
    qsort(z->entries, (size_t)z->n_entries, sizeof *z->entries, compare_entries);
    for (int i = 1; i < z->n_entries; i++)
        if (!compare_entries(&z->entries[i - 1], &z->entries[i]))
            return qp_fail(error, QUIP_E_FORMAT, "%s: has two entries named %s", f->name,
                           z->entries[i].name);
    return QUIP_OK;
}

/* ---- open, find, close ---- */

quip_status qp_zip_open(struct zip *z, const struct file *file, quip_error *error)
{
    *z = (struct zip){ 0 };
    quip_status status = read_entries(z, file, error);
    if (status)
        qp_zip_close(z);
    return status;
}

void qp_zip_close(struct zip *z)
{
    free(z->entries);
    free(z->directory);
    *z = (struct zip){ 0 };
}

bool qp_zip_find(const struct zip *z, const char *name, uint64_t *offset, uint64_t *n_bytes)
{
    const struct zip_entry key = { .name = name };
    const struct zip_entry *found =
        z->n_entries ? bsearch(&key, z->entries, (size_t)z->n_entries, sizeof key, compare_entries)
                     : NULL;
    if (!found)
        return false;
    *offset = found->offset;
    *n_bytes = found->n_bytes;
    return true;
}
