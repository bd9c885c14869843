/* format.c: fuzz target for TFLite, GGUF and safetensors files.
 * In:  the bytes of the file; the last byte selects a mapping or a read_at source.
 * Out: every tensor and metadata entry can be read, and every tensor can be found by its name. */
#include "format/format.h"

#include <stdlib.h>
#include <string.h>

static bool fuzz_read_at(void *user, uint64_t offset, void *buffer, size_t n)
{
    memcpy(buffer, (const uint8_t *)user + offset, n);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct file file;
    struct format f;
    qp_file_open_memory(&file, data, n, "fuzz");
    quip_source source = { .user = (void *)data, .size = n, .read_at = fuzz_read_at };
    if (n && data[n - 1] & 1 && qp_file_open_source(&file, &source, NULL))
        return 0;
    if (!qp_format_open(&f, &file, NULL)) {
        for (int i = 0; i < f.n_tensors; i++) {
            const uint8_t *bytes;
            float x[256];
            qp_format_read_f32(&f, &f.tensors[i], 0, 256, x, NULL);
            qp_format_tensor_bytes(&f, &f.tensors[i], &bytes, NULL);
            if (qp_format_find(&f, f.tensors[i].name) != &f.tensors[i])
                abort();
        }
        for (int i = 0; i < f.n_metadata; i++) {
            const uint8_t *bytes;
            size_t n_bytes;
            struct metadata_cursor c = { 0 };
            qp_format_bytes(&f, &f.metadata[i], &bytes, &n_bytes, NULL);
            while (qp_metadata_next(&f, &f.metadata[i], &c)) {
            }
        }
        qp_format_close(&f);
    }
    qp_file_close(&file);
    return 0;
}
