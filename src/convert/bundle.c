/* bundle.c: a model file, its tokenizer and its prompt settings -> a .task bundle, and back.
 * In:  a weights-only model file, which provides everything that the options leave out.
 * Out: an archive (zip_writer.c) whose first local header is at byte 4, where MediaPipe expects it.
 */
#include "format/bundle.h"
#include "convert/checkpoint.h"
#include "convert/zip_writer.h"
#include "format/protobuf.h"
#include "format/zip.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    FIRST_HEADER = 4,     // where the first local header begins
    PIECE_BYTES = 1 << 24 // written between two calls of on_progress
};

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

/* The older field, for readers without roles: one prefix and suffix around the user's text. */
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

/* Copy a piece with a NUL into `texts`; NULL if there is no such piece or not enough memory. Its
 * capacity is reserved, so that earlier texts do not move. */
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
                       "tokenizer, start token and stop tokens must be given, because %s does not "
                       "open as a model that has them: %s",
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

/* Find the SentencePiece proto: in the file that the options name, or in the model. The caller
 * closes `opened`, also after a failure. */
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
        return qp_fail(error, QUIP_E_ARGUMENT, "the model file has no tokenizer; give one");
    if ((status = qp_format_bytes(&j->model->format, own, &data, &n, error)))
        return status;
    qp_file_open_memory(spm, data, n, BUNDLE_TOKENIZER);
    return QUIP_OK;
}

/* Check that the tokenizer opens and that it has the tokens. */
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

static quip_status add_part(struct bundle_job *j, const char *name, const struct file *from,
                            quip_error *error)
{
    return qp_zip_writer_add(&j->zip, name, from, j->o.on_progress, j->o.user_data, error);
}

static quip_status add_file(struct bundle_job *j, const char *name, const char *path,
                            quip_error *error)
{
    struct file f = { 0 };
    if (!path || !*path)
        return QUIP_OK;
    quip_status status = qp_file_open(&f, path, error);
    if (!status)
        status = add_part(j, name, &f, error);
    if (!status)
        status = qp_file_check(&f, error);
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
    if (!status)
        status = add_file(j, BUNDLE_MODEL, model_path, error);
    if (!status)
        status = add_part(j, BUNDLE_TOKENIZER, spm, error);
    if (!status)
        status = add_part(j, BUNDLE_METADATA, &metadata, error);
    for (size_t i = 0; !status && i < QP_COUNT(graphs); i++)
        status = add_file(j, graphs[i].name, graphs[i].path, error);
    qp_bytes_close(&text);
    return status ? status : qp_zip_writer_finish(&j->zip, error);
}

static quip_status write_bundle(struct bundle_job *j, const char *model_path,
                                const struct file *spm, const char *out, quip_error *error)
{
    quip_status status = qp_zip_writer_open(&j->zip, out, FIRST_HEADER, error);
    if (!status)
        status = write_entries(j, model_path, spm, error);
    qp_zip_writer_close(&j->zip);
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
                       "%s: is a bundle or another archive, expected a model file; write the parts "
                       "of a bundle with quip bundle %s --extract FOLDER",
                       path, path);
    if (!status && memcmp(head + 4, "TFL3", 4) != 0)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: is not a TFLite file; expected a model file made by quip convert",
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
    status = qp_path_is_same(model_path, out)
                 ? qp_fail(error, QUIP_E_ARGUMENT,
                           "%s: is the model file itself; write to another file", out)
                 : check_model(model_path, error);
    if (!status) {
        quip_model_open(&j->model, model_path, &(quip_model_options){ .backend = QUIP_BACKEND_CPU },
                        &j->problem);
        status = fill_in(j, model_path, error);
    }
    if (!status)
        status = find_tokenizer(j, &opened, &spm, error);
    if (!status)
        status = check_tokenizer(j, &spm, error);
    if (!status)
        status = write_bundle(j, model_path, &spm, out, error);
    qp_file_close(&opened);
    quip_model_close(j->model);
    qp_bytes_close(&j->texts);
    free(j);
    return status;
}

/* ---- and back ---- */

/* Whether a name can be a file name inside a folder, without a path. */
static bool is_plain_name(const char *name)
{
    return *name && *name != '.' && !strpbrk(name, "/\\:");
}

struct extraction {
    const struct file *from;
    const char *folder;
    convert_on_progress *on_progress; // may be NULL
    void *user;
};

/* Copy the entry's bytes in pieces. */
static quip_status copy_entry(const struct extraction *x, const struct zip_entry *entry,
                              struct out_file *to, quip_error *error)
{
    assert(x->from->data && entry->offset + entry->n_bytes <= x->from->size);
    for (uint64_t done = 0; done < entry->n_bytes;) {
        const uint64_t left = entry->n_bytes - done;
        const size_t n = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        const quip_status status =
            qp_out_file_write(to, done, x->from->data + entry->offset + done, n, error);
        if (status)
            return status;
        done += n;
        if (x->on_progress && !x->on_progress(x->user, done, entry->n_bytes, entry->name))
            return qp_fail(error, QUIP_E_CANCELLED, "cancelled; %s was not written", entry->name);
    }
    return QUIP_OK;
}

static quip_status extract_entry(const struct extraction *x, const struct zip_entry *entry,
                                 quip_error *error)
{
    struct out_file *to = NULL;
    if (!is_plain_name(entry->name))
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has an entry named \"%s\", expected a plain file name", x->from->name,
                       entry->name);
    char *path = qp_path_join(x->folder, entry->name);
    if (!path)
        return qp_fail_memory(error, "a path", strlen(x->folder));
    quip_status status = qp_out_file_open(&to, path, error);
    if (!status)
        status = qp_out_file_resize(to, entry->n_bytes, error); // checks the free space
    if (!status)
        status = copy_entry(x, entry, to, error);
    if (!status)
        status = qp_out_file_commit(to, error);
    qp_out_file_close(to);
    free(path);
    return status;
}

quip_status qp_bundle_extract(const char *path, const char *folder,
                              convert_on_progress *on_progress, void *user, quip_error *error)
{
    struct file f = { 0 };
    struct zip zip = { 0 };
    const struct extraction x = { &f, folder, on_progress, user };
    quip_status status = qp_file_open(&f, path, error);
    if (!status && !f.data)
        status = qp_file_load(&f, error);
    if (!status)
        status = qp_zip_open(&zip, &f, error);
    if (!status && mkdir(folder, 0777) && errno != EEXIST)
        status = qp_fail(error, QUIP_E_IO, "%s: cannot be created: %s", folder, strerror(errno));
    for (int i = 0; !status && i < zip.n_entries; i++)
        status = extract_entry(&x, &zip.entries[i], error);
    qp_zip_close(&zip);
    qp_file_close(&f);
    return status;
}
