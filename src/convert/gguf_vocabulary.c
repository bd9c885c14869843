/* gguf_vocabulary.c: what the kinds of vocabularies in GGUF metadata have in common.
 * In:  the lists tokenizer.ggml.tokens, token_type and scores.
 * Out: pieces, one by one; a tokenizer.json for the kinds whose tokenizer is described by one.
 *
 * GGUF does not say how added tokens are found in text, which a tokenizer.json must say. */
#include "convert/gguf_vocabulary.h"

#include <string.h>

enum {
    MAX_GGUF_PIECES = 1 << 22
};

/* ---- pieces ---- */

/* An array with one item for each piece, or NULL. */
static const struct metadata *gguf_list(const struct format *g, const char *key, uint64_t n)
{
    const struct metadata *m = qp_format_find_metadata(g, key);
    return m && m->type == METADATA_ARRAY && m->n_items == n ? m : NULL;
}

quip_status qp_gguf_find_lists(struct format *g, bool needs_scores, struct gguf_lists *lists,
                               quip_error *error)
{
    const struct metadata *tokens = qp_format_find_metadata(g, "tokenizer.ggml.tokens");
    if (!tokens || tokens->type != METADATA_ARRAY || tokens->n_items == 0 ||
        tokens->n_items > MAX_GGUF_PIECES)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its metadata has no list tokenizer.ggml.tokens, or a list that is too "
                       "long",
                       g->file->name);
    lists->n = (int)tokens->n_items;
    lists->tokens = tokens;
    lists->types = gguf_list(g, "tokenizer.ggml.token_type", tokens->n_items);
    if (!lists->types)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: its metadata does not say which tokens are special "
                       "(tokenizer.ggml.token_type, one for each token); give the folder with "
                       "the model's tokenizer.json or tokenizer.model as --tokenizer FOLDER",
                       g->file->name);
    lists->scores = NULL;
    if (needs_scores && !(lists->scores = gguf_list(g, "tokenizer.ggml.scores", tokens->n_items)))
        return qp_fail(error, QUIP_E_FORMAT, "%s: its vocabulary has no scores", g->file->name);
    return QUIP_OK;
}

static quip_status fail_piece(const struct format *g, int id, quip_error *error)
{
    return qp_fail(error, QUIP_E_FORMAT, "%s: its vocabulary is damaged at piece %d", g->file->name,
                   id);
}

quip_status qp_gguf_next_piece(struct format *g, const struct gguf_lists *lists,
                               struct gguf_piece *p, quip_error *error)
{
    p->id = (int)p->tokens.index;
    if (!qp_metadata_next(g, lists->tokens, &p->tokens) || !p->tokens.text ||
        !qp_metadata_next(g, lists->types, &p->types) ||
        (lists->scores && !qp_metadata_next(g, lists->scores, &p->scores)))
        return fail_piece(g, p->id, error);
    p->text = p->tokens.text;
    p->n_text = p->tokens.n_text;
    p->type = p->types.i;
    p->score = p->scores.f;
    return QUIP_OK;
}

/* ---- tokenizer.json ---- */

quip_status qp_gguf_json_fail_memory(const struct gguf_json *j)
{
    return qp_fail_memory(j->error, "the vocabulary", 0);
}

quip_status qp_gguf_json_fail_added(const struct gguf_json *j, const struct gguf_piece *p)
{
    return qp_fail(j->error, QUIP_E_UNSUPPORTED,
                   "%s: its token %d, \"%.*s\", was added to the vocabulary, and the file does not "
                   "say how it is found in text; give the folder with the model's tokenizer.json "
                   "as --tokenizer FOLDER",
                   j->gguf->file->name, p->id, (int)(p->n_text < 60 ? p->n_text : 60), p->text);
}

quip_status qp_gguf_json_open(struct gguf_json *j, struct format *gguf, bool needs_scores,
                              const char *type, cJSON *vocab, quip_error *error)
{
    *j = (struct gguf_json){ .gguf = gguf, .error = error, .json = cJSON_CreateObject() };
    j->model = cJSON_AddObjectToObject(j->json, "model");
    j->added = cJSON_AddArrayToObject(j->json, "added_tokens");
    if (cJSON_AddItemToObject(j->model, "vocab", vocab))
        j->vocab = vocab;
    else
        cJSON_Delete(vocab);
    const quip_status status = qp_gguf_find_lists(gguf, needs_scores, &j->lists, error);
    if (!status && (!j->vocab || !j->added || !cJSON_AddStringToObject(j->model, "type", type)))
        return qp_gguf_json_fail_memory(j);
    return status;
}

bool qp_gguf_is_special(const struct gguf_piece *p)
{
    return p->type == PIECE_CONTROL || p->type == PIECE_UNKNOWN;
}

quip_status qp_gguf_json_next_piece(struct gguf_json *j, struct gguf_piece *p)
{
    const quip_status status = qp_gguf_next_piece(j->gguf, &j->lists, p, j->error);
    if (status)
        return status;
    if (p->n_text == 0 || memchr(p->text, 0, p->n_text))
        return fail_piece(j->gguf, p->id, j->error);
    if (p->type != PIECE_NORMAL && p->type != PIECE_UNUSED && !qp_gguf_is_special(p))
        return qp_gguf_json_fail_added(j, p);
    return QUIP_OK;
}

bool qp_gguf_json_add_special(struct gguf_json *j, int id, const char *text)
{
    cJSON *token = cJSON_CreateObject();
    return cJSON_AddItemToArray(j->added, token) && cJSON_AddNumberToObject(token, "id", id) &&
           cJSON_AddStringToObject(token, "content", text) &&
           cJSON_AddTrueToObject(token, "special");
}

quip_status qp_gguf_json_close(struct gguf_json *j, quip_status status, cJSON **json)
{
    if (status)
        cJSON_Delete(j->json);
    else
        *json = j->json;
    j->json = NULL;
    return status;
}
