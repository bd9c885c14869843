/* bundle.c: a model file, its tokenizer and how it is talked to -> a .task bundle.
 * In:  a weights-only model file; what the options leave out is taken from it.
 * Out: a ZIP archive of stored entries. The data of each begins at a multiple of 64 bytes, as
 *      kernels like their weights, and the first local header at byte 4, by which the original
 *      tells a bundle; an extra field in the local header fills the gaps.
 * The CRC of an entry is known when it has been copied: headers are written after their data. A
 * library would compress, or want the file in memory; this is the writer's half of a page. */
#include "convert/convert_impl.h"
#include "model/model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- ZIP ---- */

#define ENTRY_ALIGNMENT 64
#define COPY_BYTES ((size_t)1 << 20)
#define MAX_ENTRIES 8
#define ZIP64_FROM 0xffffffffu  // sizes and offsets from here on are in a ZIP64 field
#define DOS_DATE 0x21           // 1 January 1980: the same bytes every time
#define EXTRA_PADDING_ID 0xd935 // as Android's zipalign writes it
#define EXTRA_ZIP64_ID 1
enum {
    VERSION_STORED = 20,
    VERSION_ZIP64 = 45,
    LOCAL_BYTES = 30,
    EXTRA_HEAD_BYTES = 4
};

struct written_entry {
    const char *name;
    uint64_t header, n_bytes;
    uint32_t crc;
};
struct zip_writer {
    struct out_file *file;
    uint64_t at; // where the next header goes
    struct written_entry entries[MAX_ENTRIES];
    int n_entries;
    uint32_t crc_table[256];
    uint8_t *buffer; // [COPY_BYTES]
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

/* Little-endian numbers, appended. The buffers are small and reserved: appending cannot fail. */
static void put(struct bytes *b, uint64_t value, int n_bytes)
{
    uint8_t le[8];
    for (int i = 0; i < n_bytes; i++)
        le[i] = (uint8_t)(value >> 8 * i);
    qp_bytes_append(b, le, (size_t)n_bytes);
}

static uint32_t below_zip64(uint64_t value)
{
    return value < ZIP64_FROM ? (uint32_t)value : ZIP64_FROM;
}

/* What local and central headers share: version needed to name length. */
static void put_common(struct bytes *b, const struct written_entry *e, bool is_64)
{
    put(b, is_64 ? VERSION_ZIP64 : VERSION_STORED, 2);
    put(b, 0, 2); // flags
    put(b, 0, 2); // stored
    put(b, 0, 2); // time
    put(b, DOS_DATE, 2);
    put(b, e->crc, 4);
    put(b, below_zip64(e->n_bytes), 4); // stored and original size
    put(b, below_zip64(e->n_bytes), 4);
    put(b, strlen(e->name), 2);
}

/* Bytes of the extra field that brings the data of an entry at `header` to its place. */
static size_t extra_bytes(const struct written_entry *e, size_t zip64_bytes)
{
    const uint64_t least = e->header + LOCAL_BYTES + strlen(e->name) + zip64_bytes;
    size_t padding = (size_t)(0 - least) % ENTRY_ALIGNMENT;
    if (padding > 0 && padding < EXTRA_HEAD_BYTES)
        padding += ENTRY_ALIGNMENT;
    return zip64_bytes + padding;
}

static quip_status write_local(struct zip_writer *z, const struct written_entry *e, size_t n_extra,
                               quip_error *error)
{
    struct bytes b = { 0 };
    const bool is_64 = e->n_bytes >= ZIP64_FROM;
    size_t padding = n_extra;
    if (!qp_bytes_reserve(&b, LOCAL_BYTES + strlen(e->name) + n_extra))
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

/* Copy `from`, a whole file, as one entry. */
static quip_status add_entry(struct zip_writer *z, const char *name, const struct file *from,
                             const struct bundle_options *o, quip_error *error)
{
    struct written_entry *e = &z->entries[z->n_entries];
    *e = (struct written_entry){ .name = name, .header = z->at, .n_bytes = from->size };
    const size_t n_extra = extra_bytes(e, e->n_bytes >= ZIP64_FROM ? EXTRA_HEAD_BYTES + 16 : 0);
    const uint64_t data = e->header + LOCAL_BYTES + strlen(name) + n_extra;
    for (uint64_t done = 0; done < from->size;) {
        const uint64_t left = from->size - done;
        const size_t n = left < COPY_BYTES ? (size_t)left : COPY_BYTES;
        quip_status status;
        if ((status = qp_file_read(from, done, z->buffer, n, error)) ||
            (status = qp_out_file_write(z->file, data + done, z->buffer, n, error)))
            return status;
        e->crc = add_to_crc(z->crc_table, e->crc, z->buffer, n);
        done += n;
        if (o->on_progress && !o->on_progress(o->user_data, done, from->size, name))
            return qp_fail(error, QUIP_E_CANCELLED, "cancelled; nothing was written");
    }
    z->n_entries++;
    z->at = data + e->n_bytes;
    return write_local(z, e, n_extra, error);
}

static void put_central(struct bytes *b, const struct written_entry *e)
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

/* The list of entries, and where it is. */
static quip_status write_directory(struct zip_writer *z, quip_error *error)
{
    struct bytes b = { 0 };
    if (!qp_bytes_reserve(&b, 4096))
        return qp_fail_memory(error, "the list of entries", 4096);
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
    return status;
}

/* ---- METADATA: a LlmParameters proto without the model's sizes ---- */

static bool put_text(struct bytes *b, int number, const char *text)
{
    return !text || !*text || qp_proto_put_bytes(b, number, text, strlen(text));
}

/* PromptTemplate {1 text before everything, 2 prefix, 3 suffix}; an empty one is left out. */
static bool put_turn(struct bytes *b, int number, const char *first, const char *prefix,
                     const char *suffix)
{
    struct bytes turn = { 0 };
    bool ok = put_text(&turn, 1, first) && put_text(&turn, 2, prefix) && put_text(&turn, 3, suffix);
    ok = ok && (turn.n == 0 || qp_proto_put_bytes(b, number, turn.data, turn.n));
    qp_bytes_close(&turn);
    return ok;
}

static const char *text_or_empty(const char *text)
{
    return text ? text : "";
}

/* The older field, for readers that know no roles: one prefix and suffix around the user's text. */
static bool put_single_turn(struct bytes *b, const struct bundle_options *o)
{
    struct bytes suffix = { 0 };
    bool ok = qp_bytes_append_text(&suffix, text_or_empty(o->user.suffix)) &&
              qp_bytes_append_text(&suffix, text_or_empty(o->model.prefix)) &&
              qp_bytes_append(&suffix, "", 1);
    ok = ok && put_turn(b, 8, o->system_prompt, o->user.prefix, (const char *)suffix.data);
    qp_bytes_close(&suffix);
    return ok;
}

static bool put_metadata(struct bytes *b, const struct bundle_options *o)
{
    struct bytes turns = { 0 };
    bool ok = true;
    for (int i = 0; ok && i < o->n_stop_tokens; i++)
        ok = put_text(b, 5, o->stop_tokens[i]);
    ok = ok && put_text(b, 6, o->start_token) &&
         (!o->bytes_to_unicode || qp_proto_put_varint(b, 7, 1)) && put_single_turn(b, o) &&
         put_text(b, 11, o->user_role_token) && put_text(b, 12, o->system_role_token) &&
         put_text(b, 13, o->model_role_token) && put_text(b, 14, o->end_role_token) &&
         put_turn(&turns, 1, NULL, o->user.prefix, o->user.suffix) &&
         put_turn(&turns, 2, NULL, o->model.prefix, o->model.suffix) &&
         put_turn(&turns, 3, NULL, o->system.prefix, o->system.suffix) &&
         (turns.n == 0 || qp_proto_put_bytes(b, 17, turns.data, turns.n));
    qp_bytes_close(&turns);
    return ok;
}

/* ---- what the options leave out ---- */

/* A piece as text with a NUL, which lives in `texts`; NULL for no such piece or no memory. The
 * room is reserved, so that texts stay where they are. */
static const char *keep_piece(struct bytes *texts, const struct tokenizer *t, quip_token id)
{
    size_t n = 0;
    const char *piece = id < 0 ? NULL : qp_tokenizer_piece(t, id, &n);
    const size_t at = texts->n;
    if (!piece || texts->n + n + 1 > texts->capacity || !qp_bytes_append(texts, piece, n) ||
        !qp_bytes_append(texts, "", 1))
        return NULL;
    return (const char *)texts->data + at;
}

struct bundle_job {
    struct bundle_options o;
    quip_model *model; // NULL: not one that this build opens
    quip_error problem;
    struct bytes texts;
    const char *stops[MAX_STOP_IDS];
    struct zip_writer zip;
};

static bool has_turn(const struct bundle_turn *turn)
{
    return (turn->prefix && *turn->prefix) || (turn->suffix && *turn->suffix);
}

static quip_status fill_in(struct bundle_job *j, const char *model_path, quip_error *error)
{
    struct bundle_options *o = &j->o;
    const quip_model *m = j->model;
    if (!m && (!o->start_token || !o->n_stop_tokens || !o->tokenizer))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "tokenizer, start token and stop tokens must be given, because %s is not a "
                       "model that says them: %s",
                       model_path, j->problem.message);
    if (!m)
        return QUIP_OK;
    if (!qp_bytes_reserve(&j->texts, 65536))
        return qp_fail_memory(error, "the texts of a bundle", 65536);
    if (!o->start_token)
        o->start_token = keep_piece(&j->texts, m->tokenizer, m->config.bos);
    if (!o->n_stop_tokens) {
        o->stop_tokens = j->stops;
        for (int i = 0; i < m->config.n_stop_ids; i++)
            if ((j->stops[o->n_stop_tokens] =
                     keep_piece(&j->texts, m->tokenizer, m->config.stop_ids[i])))
                o->n_stop_tokens++;
    }
    if (!o->tokenizer && qp_tokenizer_is_byte_level(m->tokenizer))
        o->bytes_to_unicode = true;
    if (m->chat && !has_turn(&o->user) && !has_turn(&o->model) && !has_turn(&o->system)) {
        o->user = (struct bundle_turn){ m->chat->user.prefix, m->chat->user.suffix };
        o->model = (struct bundle_turn){ m->chat->model.prefix, m->chat->model.suffix };
        o->system = (struct bundle_turn){ m->chat->system.prefix, m->chat->system.suffix };
    }
    return QUIP_OK;
}

static quip_status check_texts(const struct bundle_job *j, const struct tokenizer *t,
                               quip_error *error)
{
    const struct bundle_options *o = &j->o;
    if (!o->n_stop_tokens)
        return qp_fail(error, QUIP_E_ARGUMENT, "stop_tokens must be non-empty.");
    if (o->system_prompt && *o->system_prompt && has_turn(&o->system))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "system_prompt and prompt_*_system are mutually exclusive.");
    const char *start = text_or_empty(o->start_token);
    if (*start && qp_tokenizer_find(t, start, strlen(start)) < 0)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "the start token \"%s\" is not a piece of the tokenizer", start);
    return QUIP_OK;
}

/* ---- writing one ---- */

/* The SentencePiece proto: of the file that the options name, or the model's own. `opened` is
 * closed by the caller in any case. */
static quip_status find_tokenizer(struct bundle_job *j, struct file *opened, struct file *spm,
                                  quip_error *error)
{
    const uint8_t *data;
    size_t n;
    quip_status status;
    if (j->o.tokenizer) {
        status = qp_file_open(opened, j->o.tokenizer, error);
        *spm = *opened;
        return status;
    }
    const struct metadata *own = qp_format_find_metadata(&j->model->format, "spm_vocab_model");
    if (!own)
        return qp_fail(error, QUIP_E_ARGUMENT, "the model file has no tokenizer; name one");
    if ((status = qp_format_bytes(&j->model->format, own, &data, &n, error)))
        return status;
    qp_file_open_memory(spm, data, n, BUNDLE_TOKENIZER);
    return QUIP_OK;
}

/* The tokenizer is one, and the texts suit it. */
static quip_status check_tokenizer(struct bundle_job *j, struct file *spm, quip_error *error)
{
    struct tokenizer *t = NULL;
    quip_status status = spm->data ? QUIP_OK : qp_file_load(spm, error);
    if (status)
        return status;
    if (j->model && !j->o.tokenizer) // opened already, with what goes beside the proto
        return check_texts(j, j->model->tokenizer, error);
    if ((status = qp_tokenizer_open(&t, spm->data, (size_t)spm->size, NULL, 0, error)))
        return qp_fail_in(error, status, spm->name);
    status = check_texts(j, t, error);
    qp_tokenizer_close(t);
    return status;
}

static quip_status add_file(struct bundle_job *j, const char *name, const char *path,
                            quip_error *error)
{
    struct file f = { 0 };
    if (!path || !*path)
        return QUIP_OK;
    quip_status status = qp_file_open(&f, path, error);
    if (!status)
        status = add_entry(&j->zip, name, &f, &j->o, error);
    qp_file_close(&f);
    return status;
}

static quip_status write_entries(struct bundle_job *j, const char *model_path,
                                 const struct file *spm, quip_error *error)
{
    const struct bundle_options *o = &j->o;
    const struct {
        const char *name, *path;
    } graphs[] = {
        { "TF_LITE_EMBEDDER", o->embedder },
        { "TF_LITE_PER_LAYER_EMBEDDER", o->per_layer_embedder },
        { "TF_LITE_VISION_ENCODER", o->vision_encoder },
        { "TF_LITE_VISION_ADAPTER", o->vision_adapter },
    };
    struct bytes text = { 0 };
    struct file metadata;
    quip_status status = QUIP_OK;
    if (!put_metadata(&text, o))
        status = qp_fail_memory(error, "the metadata", text.n);
    qp_file_open_memory(&metadata, text.data, text.n, BUNDLE_METADATA);
    j->zip.at = 4; // by which the original tells a bundle from other files
    if (!status)
        status = add_file(j, BUNDLE_MODEL, model_path, error);
    if (!status)
        status = add_entry(&j->zip, BUNDLE_TOKENIZER, spm, o, error);
    if (!status)
        status = add_entry(&j->zip, BUNDLE_METADATA, &metadata, o, error);
    for (size_t i = 0; !status && i < QP_COUNT(graphs); i++)
        status = add_file(j, graphs[i].name, graphs[i].path, error);
    qp_bytes_close(&text);
    return status ? status : write_directory(&j->zip, error);
}

static quip_status write_zip(struct bundle_job *j, const char *model_path, const struct file *spm,
                             const char *out, quip_error *error)
{
    quip_status status;
    fill_crc_table(j->zip.crc_table);
    j->zip.buffer = malloc(COPY_BYTES);
    if (!j->zip.buffer)
        return qp_fail_memory(error, "a copy buffer", COPY_BYTES);
    status = qp_out_file_open(&j->zip.file, out, error);
    if (!status)
        status = write_entries(j, model_path, spm, error);
    if (!status)
        status = qp_out_file_commit(j->zip.file, error);
    qp_out_file_close(j->zip.file);
    free(j->zip.buffer);
    return status;
}

static quip_status check_model(const char *path, quip_error *error)
{
    struct file f = { 0 };
    uint8_t head[8] = { 0 };
    quip_status status = qp_file_open(&f, path, error);
    if (!status && f.size >= sizeof head)
        status = qp_file_read(&f, 0, head, sizeof head, error);
    const bool is_archive = !status && qp_zip_matches(&f);
    qp_file_close(&f);
    if (is_archive)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: is a bundle or another archive; a bundle is made of a model file, and "
                       "quip bundle %s --extract FOLDER writes the parts of one",
                       path, path);
    if (!status && memcmp(head + 4, "TFL3", 4) != 0)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: is no TFLite file; bundles hold a model file made by quip convert",
                       path);
    return status;
}

quip_status qp_bundle_write(const char *model_path, const char *out,
                            const struct bundle_options *options, quip_error *error)
{
    struct bundle_job *j = calloc(1, sizeof *j);
    struct file opened = { 0 }, spm = { 0 };
    quip_status status;
    if (!j)
        return qp_fail_memory(error, "a bundle", sizeof *j);
    if (options)
        j->o = *options;
    status = check_model(model_path, error);
    if (!status) {
        quip_model_open(&j->model, model_path, NULL, &j->problem);
        status = fill_in(j, model_path, error);
    }
    if (!status)
        status = find_tokenizer(j, &opened, &spm, error);
    if (!status)
        status = check_tokenizer(j, &spm, error);
    if (!status)
        status = write_zip(j, model_path, &spm, out, error);
    qp_file_close(&opened);
    quip_model_close(j->model);
    qp_bytes_close(&j->texts);
    free(j);
    return status;
}

/* ---- and back ---- */

/* Names become names of files: nothing that leads elsewhere. */
static bool is_plain_name(const char *name)
{
    return *name && *name != '.' && !strpbrk(name, "/\\:");
}

static quip_status extract_entry(const struct file *from, const struct zip_entry *entry,
                                 const char *folder, quip_error *error)
{
    struct out_file *to = NULL;
    if (!is_plain_name(entry->name))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has an entry named \"%s\"; a bundle's are plain names", from->name,
                       entry->name);
    char *path = qp_path_join(folder, entry->name);
    if (!path)
        return qp_fail_memory(error, "a path", strlen(folder));
    quip_status status = qp_out_file_open(&to, path, error);
    if (!status)
        status =
            qp_out_file_write(to, 0, from->data + entry->offset, (size_t)entry->n_bytes, error);
    if (!status)
        status = qp_out_file_commit(to, error);
    qp_out_file_close(to);
    free(path);
    return status;
}

quip_status qp_bundle_extract(const char *path, const char *folder, quip_error *error)
{
    struct file f = { 0 };
    struct zip zip = { 0 };
    quip_status status = qp_file_open(&f, path, error);
    if (!status && !f.data)
        status = qp_file_load(&f, error);
    if (!status)
        status = qp_zip_open(&zip, &f, error);
    if (!status && mkdir(folder, 0777) && errno != EEXIST)
        status = qp_fail(error, QUIP_E_IO, "%s: cannot be made: %s", folder, strerror(errno));
    for (int i = 0; !status && i < zip.n_entries; i++)
        status = extract_entry(&f, &zip.entries[i], folder, error);
    qp_zip_close(&zip);
    qp_file_close(&f);
    return status;
}
