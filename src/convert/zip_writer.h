/* zip_writer.h: writes a ZIP archive (zip_writer.c). */
#ifndef QP_ZIP_WRITER_H
#define QP_ZIP_WRITER_H

#include "convert/convert.h"

#define ZIP_WRITER_ENTRIES 8

struct zip_written {
    const char *name; // borrowed
    uint64_t header, n_bytes;
    uint32_t crc;
};
struct zip_writer {
    struct out_file *file;
    uint64_t at; // where the next header goes
    struct zip_written entries[ZIP_WRITER_ENTRIES];
    int n_entries;
    uint32_t crc_table[256];
    uint8_t *buffer;
};
/* An archive at `path`, which appears when it is finished. Its first header is at byte `begin`. The
 * caller closes it, also after a failure. */
quip_status qp_zip_writer_open(struct zip_writer *z, const char *path, uint64_t begin,
                               quip_error *error);
/* Copy the whole file `from` as one entry. The name must outlive the writer. on_progress may be
 * NULL. */
quip_status qp_zip_writer_add(struct zip_writer *z, const char *name, const struct file *from,
                              convert_on_progress *on_progress, void *user, quip_error *error);
/* Write the list of entries and the end records. */
quip_status qp_zip_writer_finish(struct zip_writer *z, quip_error *error);
void qp_zip_writer_close(struct zip_writer *z); // all-zero is fine

#endif
