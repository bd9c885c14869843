/* zip.h: reads the list of entries of a ZIP archive (zip.c).
 * Reads entries that are stored without compression, so that their bytes can be used directly from
 * the mapped file, and ZIP64. A compressed or encrypted entry is an error that names it. */
#ifndef QP_ZIP_H
#define QP_ZIP_H

#include "base/base.h"

struct zip_entry {
    const char *name;         // as stored; contains no zero byte
    uint64_t offset, n_bytes; // of its data, which is inside the file
};
struct zip {
    struct zip_entry *entries; // sorted by name; all names differ
    int n_entries;
    uint8_t *directory; // owned; contains the names
};
/* Whether the file ends as a ZIP archive does. False if its end cannot be read. */
bool qp_zip_matches(const struct file *file);
/* Read the list of entries. It does not use the file afterwards. Checksums are not verified. */
quip_status qp_zip_open(struct zip *z, const struct file *file, quip_error *error);
void qp_zip_close(struct zip *z);
/* Where the data of an entry is, by exact name; false if there is no such entry. */
bool qp_zip_find(const struct zip *z, const char *name, uint64_t *offset, uint64_t *n_bytes);

#endif
