/* tokenizer_folder.c: which files of a folder are its tokenizer.
 * In:  a folder with tokenizer.model, tokenizer.json or both, and tokens that only
 *      tokenizer_config.json or added_tokens.json has; or one with vocab.txt; or one of the files.
 * Out: the SentencePiece proto and the blob of a model file.
 *
 * Of two files, a SentencePiece model is copied unchanged if the tokenizer.json says the same about
 * every token. Otherwise the tokenizer.json counts, because the reference reads it. */
#include "convert/tokenizer_folder.h"
#include "convert/file_kind.h"
#include "convert/json.h"
#include "convert/tokenizer_import.h"

#include <stdlib.h>
#include <string.h>

static quip_status read_whole_file(const char *path, struct bytes *out, quip_error *error)
{
    struct file file = { 0 };
    quip_status status = qp_file_open(&file, path, error);
    if (!status && !qp_bytes_reserve(out, (size_t)file.size))
        status = qp_fail_memory(error, path, (size_t)file.size);
    if (!status && !(status = qp_file_read(&file, 0, out->data, (size_t)file.size, error)))
        out->n = (size_t)file.size;
    qp_file_close(&file);
    return status;
}

/* ---- one file ---- */

/* The tokens around every text, which the reference takes from a tokenizer.json if there is one. */
static quip_status read_frame(struct imported_tokenizer *t, const cJSON *json, const char *path,
                              quip_error *error)
{
    const cJSON *post = qp_json_item(json, "post_processor");
    t->has_json = true;
    t->has_frame = post != NULL;
    return !post || qp_json_frame(&t->frame, post) ? QUIP_OK : qp_refuse_post(post, path, error);
}

/* Import a parsed tokenizer.json. `config` is the tokenizer_config.json that belongs to it. */
static quip_status translate_json(struct imported_tokenizer *t, const struct tokenizer_request *r,
                                  const cJSON *json, const cJSON *config, const char *path,
                                  quip_error *error)
{
    quip_status status = qp_check_added_rows(json, path, r->vocab_size, error);
    if (!status)
        status = read_frame(t, json, path, error);
    t->is_copy = false;
    t->spm.n = t->bpe.n = 0;
    return status
               ? status
               : qp_tokenizer_from_json(json, config, path, r->vocab_size, &t->spm, &t->bpe, error);
}

static bool is_vocab_txt(const char *path)
{
    return strcmp(qp_path_name(path), "vocab.txt") == 0;
}

/* Import a tokenizer.json or a vocab.txt, with the special tokens of the tokenizer_config.json
 * beside it. */
static quip_status translate_file(struct imported_tokenizer *t, const struct tokenizer_request *r,
                                  const char *path, quip_error *error)
{
    cJSON *json = NULL, *config = NULL;
    quip_status status = QUIP_OK;
    if (r->is_foreign)
        status = qp_json_beside(&config, path, "tokenizer_config.json", error);
    const cJSON *specials = config ? config : r->config;
    if (!status)
        status = is_vocab_txt(path) ? qp_json_read_vocab_txt(&json, path, specials, error)
                                    : qp_json_read(&json, path, error);
    if (!status)
        status = translate_json(t, r, json, specials, path, error);
    cJSON_Delete(json);
    cJSON_Delete(config);
    return status;
}

static quip_status copy_model(struct imported_tokenizer *t, const char *path, quip_error *error)
{
    const enum file_kind kind = qp_path_kind(path);
    if (kind != FILE_OTHER)
        return qp_refuse_kind(path, kind, "a SentencePiece model", error);
    t->is_copy = true;
    return read_whole_file(path, &t->spm, error);
}

/* ---- a folder ---- */

struct tokenizer_paths {
    char *model, *json, *txt, *vocab, *tekken;
};

static quip_status find_paths(struct tokenizer_paths *p, const char *folder, quip_error *error)
{
    *p = (struct tokenizer_paths){ qp_path_join(folder, "tokenizer.model"),
                                   qp_path_join(folder, "tokenizer.json"),
                                   qp_path_join(folder, "vocab.txt"),
                                   qp_path_join(folder, "vocab.json"),
                                   qp_path_join(folder, "tekken.json") };
    return p->model && p->json && p->txt && p->vocab && p->tekken
               ? QUIP_OK
               : qp_fail_memory(error, "a path", strlen(folder));
}

static void free_paths(struct tokenizer_paths *p)
{
    free(p->model);
    free(p->json);
    free(p->txt);
    free(p->vocab);
    free(p->tekken);
}

static quip_status fail_without_tokenizer(const struct tokenizer_paths *p, const char *folder,
                                          quip_error *error)
{
    if (qp_path_exists(p->vocab) || qp_path_exists(p->tekken))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: has %s, but no tokenizer.json; make one with transformers: "
                       "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
                       folder, qp_path_exists(p->vocab) ? "a vocab.json" : "a tekken.json");
    return qp_fail(error, QUIP_E_IO,
                   "%s: has no tokenizer; expected tokenizer.model, tokenizer.json or vocab.txt; "
                   "if it is somewhere else, give its path with --tokenizer",
                   folder);
}

/* The model is open as `spm`; add what the tokenizer.json knows beyond it. */
static quip_status reconcile(struct imported_tokenizer *t, const struct tokenizer_request *r,
                             const struct tokenizer *spm, const char *json_path, quip_error *error)
{
    cJSON *json = NULL;
    quip_status status = qp_json_read(&json, json_path, error);
    if (status)
        return status;
    switch (spm ? qp_relate_added(spm, json) : ADDED_OTHER) {
    case ADDED_KNOWN:
        break;
    case ADDED_MORE:
        status = qp_append_added(&t->spm, qp_tokenizer_n_tokens(spm), json, r, error);
        break;
    case ADDED_OTHER:
        cJSON_Delete(json);
        return translate_file(t, r, json_path, error);
    }
    if (!status)
        status = read_frame(t, json, json_path, error);
    cJSON_Delete(json);
    return status;
}

/* There is no tokenizer.json: add the tokens of the other two files. */
static quip_status add_listed(struct imported_tokenizer *t, const struct tokenizer_request *r,
                              const struct tokenizer *spm, quip_error *error)
{
    cJSON *config = NULL, *list = NULL;
    quip_status status = QUIP_OK;
    if (r->is_foreign)
        status = qp_json_in_folder(&config, r->path, "tokenizer_config.json", error);
    if (!status)
        status = qp_json_in_folder(&list, r->path, "added_tokens.json", error);
    const struct added_files files = {
        .config = r->is_foreign ? config : r->config,
        .decoder = qp_json_item(r->is_foreign ? config : r->config, "added_tokens_decoder"),
        .list = list,
        .folder = r->path,
    };
    if (!status)
        status = qp_add_listed(&t->spm, &t->bpe, spm, &files, r, error);
    cJSON_Delete(config);
    cJSON_Delete(list);
    return status;
}

static quip_status load_model(struct imported_tokenizer *t, const struct tokenizer_request *r,
                              const struct tokenizer_paths *p, quip_error *error)
{
    struct tokenizer *spm = NULL;
    const bool has_json = qp_path_exists(p->json);
    if (has_json && qp_path_kind(p->model) != FILE_OTHER)
        return translate_file(t, r, p->json, error);
    quip_status status = copy_model(t, p->model, error);
    if (status)
        return status;
    // the proto moves when pieces are appended, so this tokenizer reads a copy
    struct bytes copy = { 0 };
    if (!qp_bytes_append(&copy, t->spm.data, t->spm.n))
        status = qp_fail_memory(error, p->model, t->spm.n);
    else
        status = qp_tokenizer_open(&spm, copy.data, copy.n, NULL, 0, error);
    if (has_json && status != QUIP_E_MEMORY)
        status = reconcile(t, r, spm, p->json, error);
    else
        status = status ? qp_fail_in(error, status, p->model) : add_listed(t, r, spm, error);
    qp_tokenizer_close(spm);
    qp_bytes_close(&copy);
    return status;
}

quip_status qp_import_tokenizer(struct imported_tokenizer *t, const struct tokenizer_request *r,
                                quip_error *error)
{
    struct tokenizer_paths p;
    if (!qp_path_is_folder(r->path))
        return qp_path_is_json(r->path) || is_vocab_txt(r->path)
                   ? translate_file(t, r, r->path, error)
                   : copy_model(t, r->path, error);
    quip_status status = find_paths(&p, r->path, error);
    if (!status && qp_path_exists(p.model))
        status = load_model(t, r, &p, error);
    else if (!status && qp_path_exists(p.json))
        status = translate_file(t, r, p.json, error);
    else if (!status && qp_path_exists(p.txt))
        status = translate_file(t, r, p.txt, error);
    else if (!status)
        status = fail_without_tokenizer(&p, r->path, error);
    free_paths(&p);
    return status;
}
