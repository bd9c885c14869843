/* format_open.c: which format a file has.
 * In:  an open file.
 * Out: struct format, filled by the reader that recognises the file's first bytes. */
#include "format/format_reader.h"

static const struct format_reader format_readers[] = {
    { FORMAT_TFLITE, qp_tflite_matches, qp_tflite_read },
    { FORMAT_GGUF, qp_gguf_matches, qp_gguf_read },
    { FORMAT_LITERTLM, qp_litertlm_matches, qp_litertlm_read }, // before safetensors
    { FORMAT_SAFETENSORS, qp_safetensors_matches, qp_safetensors_read },
};

/* A page may begin with a byte order mark and white space. */
static bool begins_web_page(const uint8_t head[16])
{
    int i = memcmp(head, "\xef\xbb\xbf", 3) ? 0 : 3;
    while (i < 15 && head[i] && strchr(" \t\r\n", head[i]))
        i++;
    return head[i] == '<';
}

/* Say what a file is that people often try, and what to do with it. */
static quip_status refuse_file(const struct file *file, const uint8_t head[16], quip_error *error)
{
    if (!memcmp(head, "PK", 2) || !memcmp(head + 4, "PK", 2))
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "%s: begins as a ZIP archive, which is truncated or is neither a .task bundle "
            "nor a PyTorch checkpoint; convert a checkpoint with `quip convert`",
            file->name);
    if (!memcmp(head, "version https:/", 15))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: is a Git LFS pointer, not the file itself; run `git lfs pull`",
                       file->name);
    if (begins_web_page(head))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: is a web page, not a model file; download the file that the page links "
                       "to, after signing in if the page asks for it",
                       file->name);
    char bytes[8 * 3 + 1] = " (nothing)";
    for (size_t i = 0; i < 8 && i < file->size; i++)
        snprintf(bytes + 3 * i, 4, " %02x", head[i]);
    return qp_fail(
        error, QUIP_E_FORMAT,
        "%s: is not a model file: it begins with%s; expected TFLite weights (\"TFL3\" at "
        "byte 4), GGUF or safetensors",
        file->name, bytes);
}

/* Try the readers of this folder, then `last` (may be NULL). */
static quip_status read_header(struct format *f, const struct format_reader *last,
                               quip_error *error)
{
    uint8_t head[16] = { 0 };
    size_t n = f->file->size < sizeof head ? (size_t)f->file->size : sizeof head;
    quip_status status = qp_file_read(f->file, 0, head, n, error);
    if (status)
        return status;
    for (size_t i = 0; i <= QP_COUNT(format_readers); i++) {
        const struct format_reader *r = i < QP_COUNT(format_readers) ? &format_readers[i] : last;
        if (r && r->matches(head, f->file->size)) {
            f->kind = r->kind;
            status = r->read(f, error);
            return status ? status : qp_format_index(f, error);
        }
    }
    return refuse_file(f->file, head, error);
}

quip_status qp_format_open_with(struct format *f, struct file *file,
                                const struct format_reader *reader, quip_error *error)
{
    quip_status status = qp_format_begin(f, file, error);
    if (!status)
        status = read_header(f, reader, error);
    if (status)
        qp_format_close(f);
    return status;
}

quip_status qp_format_open(struct format *f, struct file *file, quip_error *error)
{
    return qp_format_open_with(f, file, NULL, error);
}
