/* pytorch.c: fuzz target for a PyTorch checkpoint.
 * In:  the bytes of the file.
 * Out: no crash; every tensor that is listed can be read. */
#include "convert/convert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct file file;
    struct format f;
    qp_file_open_memory(&file, data, n, "fuzz");
    if (qp_format_open_with(&f, &file, &qp_pytorch_reader, NULL))
        return 0;
    for (int i = 0; i < f.n_tensors; i++) {
        const uint8_t *bytes;
        qp_format_tensor_bytes(&f, &f.tensors[i], &bytes, NULL);
    }
    qp_format_close(&f);
    return 0;
}
