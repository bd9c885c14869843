/* zip.c: fuzz target for the list of entries of a ZIP archive.
 * In:  the bytes of the file.
 * Out: every entry can be found and is inside the file. */
#include "format/zip.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct file file;
    struct zip z;
    qp_file_open_memory(&file, data, n, "fuzz");
    if (qp_zip_open(&z, &file, NULL))
        return 0;
    for (int i = 0; i < z.n_entries; i++) {
        uint64_t offset, n_bytes;
        if (!qp_zip_find(&z, z.entries[i].name, &offset, &n_bytes) || offset > n ||
            n_bytes > n - offset)
            abort();
    }
    qp_zip_close(&z);
    return 0;
}
