/* bundle.c: a .task bundle, MediaPipe's later container: a ZIP archive of stored entries.
 * In:  a file.
 * Out: the model, its tokenizer and its metadata as parts of that file.
 *
 * A bundle may have other entries (encoders for images and sound), which text does not need. */
#include "format/bundle.h"
#include "format/zip.h"

#include <assert.h>
#include <string.h>

bool qp_bundle_matches(const struct file *file)
{
    static const uint8_t entry[4] = { 'P', 'K', 3, 4 };
    uint8_t head[8];
    return file->size >= sizeof head && !qp_file_read(file, 0, head, sizeof head, NULL) &&
           (!memcmp(head, entry, 4) || !memcmp(head + 4, entry, 4));
}

static quip_status find_part(struct file *part, const struct zip *zip, const struct file *file,
                             const char *name, quip_error *error)
{
    uint64_t offset, n;
    if (!qp_zip_find(zip, name, &offset, &n))
        return qp_fail(
            error, QUIP_E_FORMAT,
            "%s: is a ZIP archive without an entry %s; expected a .task bundle, with %s, %s and %s",
            file->name, name, BUNDLE_MODEL, BUNDLE_TOKENIZER, BUNDLE_METADATA);
    qp_file_open_part(part, file, offset, n);
    return QUIP_OK;
}

quip_status qp_bundle_open(struct bundle *b, const struct file *file, quip_error *error)
{
    assert(file->is_open);
    struct zip zip;
    quip_status status = qp_zip_open(&zip, file, error);
    *b = (struct bundle){ 0 };
    if (status)
        return status;
    if ((status = find_part(&b->model, &zip, file, BUNDLE_MODEL, error)) ||
        (status = find_part(&b->tokenizer, &zip, file, BUNDLE_TOKENIZER, error)) ||
        (status = find_part(&b->metadata, &zip, file, BUNDLE_METADATA, error)) ||
        (status = qp_file_load(&b->tokenizer, error)) ||
        (status = qp_file_load(&b->metadata, error)))
        qp_bundle_close(b);
    qp_zip_close(&zip);
    return status;
}

void qp_bundle_close(struct bundle *b)
{
    qp_file_close(&b->model);
    qp_file_close(&b->tokenizer);
    qp_file_close(&b->metadata);
}
