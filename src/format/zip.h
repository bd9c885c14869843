/* zip.h: reads the list of entries of a ZIP archive (zip.c).
 * Only what holds models: entries stored without compression, whose bytes are used where they lie.
 * ZIP64 is read. A compressed or encrypted entry is an error that names it. */
#ifndef QP_ZIP_H
#define QP_ZIP_H

#include "base/base.h"

struct zip_entry {
    const char *name;         // as stored, without a zero byte in it
    uint64_t offset, n_bytes; // its data, which lies inside the file
};
struct zip {
    struct zip_entry *entries; // sorted by name, no two alike
    int n_entries;
    uint8_t *directory; // owned: holds the names
};
/* Whether the file's last bytes are those of a ZIP archive. False when they cannot be read. */
bool qp_zip_matches(const struct file *file);
/* Read the list of entries; the file is not needed for it afterwards. Check sums are not
 * computed. */
quip_status qp_zip_open(struct zip *z, const struct file *file, quip_error *error);
void qp_zip_close(struct zip *z);
/* Where an entry's data lies, by exact name; false when there is none. */
bool qp_zip_find(const struct zip *z, const char *name, uint64_t *offset, uint64_t *n_bytes);

#endif
