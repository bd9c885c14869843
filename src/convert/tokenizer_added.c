/* tokenizer_added.c: added tokens beside a SentencePiece model, which was trained before them.
 * In:  the model, and a tokenizer.json, a tokenizer_config.json or an added_tokens.json.
 * Out: more pieces, and a blob where pieces cannot say how a token is found in text. The ids are
 *      those of the files: an id without a token becomes an unused piece. */
#include "convert/json.h"
#include "convert/tokenizer_folder.h"
#include "convert/tokenizer_import.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- tokens of a tokenizer.json ---- */

static int id_of_item(const cJSON *item)
{
    const bool is_id = cJSON_IsNumber(item) && item->valuedouble == item->valueint;
    return is_id ? item->valueint : -1;
}

/* Whether piece `id` has this text. A byte piece has two spellings, as "<0x09>" and a tab; cJSON
 * cannot read U+0000. */
static bool has_piece(const struct tokenizer *t, int id, const char *text)
{
    size_t n;
    const char *piece = qp_tokenizer_piece(t, id, &n);
    if (!piece)
        return false;
    return (n == strlen(text) && memcmp(piece, text, n) == 0) || *text == 0 ||
           qp_tokenizer_piece_type(t, id) == PIECE_BYTE;
}

static bool is_listed_id(const cJSON *added, int id)
{
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next)
        if (id_of_item(qp_json_item(i, "id")) == id)
            return true;
    return false;
}

static bool has_vocabulary(const struct tokenizer *t, const cJSON *json)
{
    const cJSON *vocab = qp_json_item(qp_json_item(json, "model"), "vocab");
    const cJSON *added = qp_json_item(json, "added_tokens");
    const bool is_list = cJSON_IsArray(vocab);
    int index = 0;
    for (const cJSON *i = vocab ? vocab->child : NULL; i; i = i->next, index++) {
        const int id = is_list ? index : id_of_item(i);
        const char *text = is_list ? cJSON_GetStringValue(cJSON_GetArrayItem(i, 0)) : i->string;
        const bool is_added = id >= qp_tokenizer_n_tokens(t) && is_listed_id(added, id);
        if (!text || (!is_added && !has_piece(t, id, text)))
            return false;
    }
    return vocab != NULL;
}

/* Whether a piece of this type is found in text as a token with this flag is. SentencePiece finds
 * user-defined pieces everywhere, as Gemma's control tokens are. */
static bool is_type_of(enum piece_type type, bool is_special)
{
    return type == PIECE_CONTROL || type == PIECE_UNKNOWN || type == PIECE_USER_DEFINED ||
           (type == PIECE_BYTE && !is_special);
}

static bool has_search_flags(const cJSON *token)
{
    return qp_json_flag(token, "lstrip", false) || qp_json_flag(token, "rstrip", false) ||
           qp_json_flag(token, "single_word", false);
}

enum added_relation qp_relate_added(const struct tokenizer *spm, const cJSON *json)
{
    const cJSON *added = qp_json_item(json, "added_tokens");
    enum added_relation relation = ADDED_KNOWN;
    if (!has_vocabulary(spm, json))
        return ADDED_OTHER;
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next) {
        const int id = id_of_item(qp_json_item(i, "id"));
        const bool is_special = qp_json_flag(i, "special", false);
        if (id < 0 || has_search_flags(i))
            return ADDED_OTHER;
        if (id < qp_tokenizer_n_tokens(spm)) {
            if (!has_piece(spm, id, qp_json_text(i, "content")) ||
                !is_type_of(qp_tokenizer_piece_type(spm, id), is_special))
                return ADDED_OTHER;
        } else if (qp_tokenizer_has_dummy_prefix(spm) || qp_json_flag(i, "normalized", false)) {
            return ADDED_OTHER;
        } else {
            relation = ADDED_MORE;
        }
    }
    return relation;
}

/* ---- rows of the embedding ---- */

/* Gemma 3's tokenizer is that of its larger models, which have images. */
static bool is_rowless(const char *text)
{
    return strcmp(text, "<image_soft_token>") == 0;
}

static quip_status check_row(int id, const char *text, const char *path, int vocab_size,
                             quip_error *error)
{
    if (id < vocab_size || is_rowless(text))
        return QUIP_OK;
    return qp_fail(error, QUIP_E_FORMAT,
                   "%s: token %d, \"%.60s\", has no row in the embedding, which has %d; resize the "
                   "embedding of the model to its tokenizer",
                   path, id, text, vocab_size);
}

quip_status qp_check_added_rows(const cJSON *json, const char *path, int vocab_size,
                                quip_error *error)
{
    const cJSON *added = qp_json_item(json, "added_tokens");
    const cJSON *vocab = qp_json_item(qp_json_item(json, "model"), "vocab");
    quip_status status = QUIP_OK;
    if (cJSON_IsArray(vocab) && cJSON_GetArraySize(vocab) > vocab_size)
        status = check_row(cJSON_GetArraySize(vocab) - 1, "the last", path, vocab_size, error);
    for (const cJSON *i = cJSON_IsObject(vocab) ? vocab->child : NULL; i && !status; i = i->next)
        status = check_row(id_of_item(i), i->string, path, vocab_size, error);
    for (const cJSON *i = added ? added->child : NULL; i && !status; i = i->next)
        status = check_row(id_of_item(qp_json_item(i, "id")), qp_json_text(i, "content"), path,
                           vocab_size, error);
    return status;
}

/* ---- more pieces ---- */

struct listed_token {
    const char *text;
    struct bpe_added added;
};
/* In the order of their ids. Texts are borrowed. */
struct token_list {
    struct listed_token *tokens;
    int n;
};

static int compare_listed(const void *a, const void *b)
{
    const int x = ((const struct listed_token *)a)->added.id;
    const int y = ((const struct listed_token *)b)->added.id;
    return (x > y) - (x < y);
}

/* SentencePiece would find a user-defined piece inside a word, too. */
static enum piece_type type_of_new(const struct bpe_added *a)
{
    return a->is_special ? PIECE_CONTROL : a->single_word ? PIECE_UNUSED : PIECE_USER_DEFINED;
}

/* Append the tokens of ids from n_pieces on, and unused pieces between them. */
static bool append_pieces(struct bytes *spm, int n_pieces, const struct token_list *list)
{
    bool ok = true;
    int next = n_pieces;
    for (int i = 0; i < list->n && ok; i++) {
        const struct listed_token *token = &list->tokens[i];
        for (; next < token->added.id && ok; next++) {
            char name[32];
            const int n = snprintf(name, sizeof name, "<unassigned%d>", next);
            ok = qp_spm_write_piece(spm, name, (size_t)n, 0, PIECE_UNUSED);
        }
        if (token->added.id < next)
            continue;
        ok = ok && qp_spm_write_piece(spm, token->text, strlen(token->text), 0,
                                      type_of_new(&token->added));
        next++;
    }
    return ok;
}

static void read_listed(struct listed_token *token, const cJSON *item, int id)
{
    *token = (struct listed_token){
        .text = qp_json_text(item, "content"),
        .added = { .id = id,
                   .is_special = qp_json_flag(item, "special", false),
                   .lstrip = qp_json_flag(item, "lstrip", false),
                   .rstrip = qp_json_flag(item, "rstrip", false),
                   .single_word = qp_json_flag(item, "single_word", false) },
    };
}

static quip_status open_list(struct token_list *list, const cJSON *items, quip_error *error)
{
    const size_t n = (size_t)cJSON_GetArraySize(items) + 1;
    *list = (struct token_list){ .tokens = calloc(n, sizeof *list->tokens) };
    return list->tokens ? QUIP_OK
                        : qp_fail_memory(error, "the added tokens", n * sizeof *list->tokens);
}

quip_status qp_append_added(struct bytes *spm, int n_pieces, const cJSON *json,
                            const struct tokenizer_request *r, quip_error *error)
{
    const cJSON *added = qp_json_item(json, "added_tokens");
    struct token_list list;
    quip_status status = qp_check_added_rows(json, r->path, r->vocab_size, error);
    if (status || (status = open_list(&list, added, error)))
        return status;
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next) {
        const int id = id_of_item(qp_json_item(i, "id"));
        if (id < r->vocab_size)
            read_listed(&list.tokens[list.n++], i, id);
    }
    qsort(list.tokens, (size_t)list.n, sizeof *list.tokens, compare_listed);
    if (!append_pieces(spm, n_pieces, &list))
        status = qp_fail_memory(error, "the added tokens", spm->n);
    free(list.tokens);
    return status;
}

/* ---- tokens of tokenizer_config.json or added_tokens.json ---- */

/* "512": an id as a name; -1 if it is not one. */
static int id_of_name(const char *name)
{
    char *end;
    const long id = strtol(name, &end, 10);
    return *name >= '0' && *name <= '9' && *end == 0 && id < 1 << 24 ? (int)id : -1;
}

static bool is_text_in(const cJSON *list, const char *text)
{
    for (const cJSON *i = list ? list->child : NULL; i; i = i->next) {
        const char *other =
            cJSON_GetStringValue(cJSON_IsObject(i) ? qp_json_item(i, "content") : i);
        if (other && strcmp(other, text) == 0)
            return true;
    }
    return false;
}

/* An added_tokens.json has only ids. Its special tokens are those that tokenizer_config.json names.
 */
static bool is_named_special(const cJSON *config, const char *text)
{
    static const char *const names[] = { "bos_token", "eos_token", "unk_token", "pad_token",
                                         "sep_token", "cls_token", "mask_token" };
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        const char *token = qp_token_text(config, names[i]);
        if (token && strcmp(token, text) == 0)
            return true;
    }
    return is_text_in(qp_json_item(config, "additional_special_tokens"), text) ||
           is_text_in(qp_json_item(config, "extra_special_tokens"), text);
}

static quip_status check_listed(const struct token_list *list, const struct tokenizer *t,
                                const struct added_files *files, int vocab_size, quip_error *error)
{
    quip_status status = QUIP_OK;
    for (int i = 0; i < list->n && !status; i++) {
        const struct listed_token *token = &list->tokens[i];
        const int id = token->added.id;
        size_t n = 0;
        const char *piece = qp_tokenizer_piece(t, id, &n);
        if (id < 0 || !*token->text || (i > 0 && id == token[-1].added.id))
            status = qp_fail(error, QUIP_E_FORMAT, "%s: added token \"%.60s\" has no id of its own",
                             files->folder, token->text);
        else if (piece && !has_piece(t, id, token->text))
            status = qp_fail(error, QUIP_E_FORMAT,
                             "%s: token %d is \"%.60s\" among the added tokens, but \"%.*s\" in "
                             "tokenizer.model; a tokenizer.json is needed to decide",
                             files->folder, id, token->text, (int)(n < 60 ? n : 60), piece);
        else
            status = check_row(id, token->text, files->folder, vocab_size, error);
    }
    return status;
}

/* Whether pieces alone say how the tokens are found in text. */
static bool needs_blob(const struct token_list *list, const struct tokenizer *t)
{
    for (int i = 0; i < list->n; i++) {
        const struct bpe_added *a = &list->tokens[i].added;
        const bool is_new = a->id >= qp_tokenizer_n_tokens(t);
        if (a->lstrip || a->rstrip || a->single_word ||
            (is_new && qp_tokenizer_has_dummy_prefix(t)) ||
            (!is_new && !is_type_of(qp_tokenizer_piece_type(t, a->id), a->is_special)))
            return true;
    }
    return false;
}

/* Older versions of transformers put the dummy prefix before every section ("legacy"). */
static bool write_blob(struct bytes *bpe, const struct token_list *list, const cJSON *config)
{
    struct bpe_spec spec = { .is_spm = true,
                             .prefix = qp_json_flag(config, "legacy", true) ? PREFIX_ALWAYS
                                                                            : PREFIX_FIRST };
    spec.added = calloc((size_t)list->n + 1, sizeof *spec.added);
    if (!spec.added)
        return false;
    for (int i = 0; i < list->n; i++)
        spec.added[spec.n_added++] = list->tokens[i].added;
    const bool ok = qp_bpe_blob_write(&spec, bpe);
    free(spec.added);
    return ok;
}

static void fill_list(struct token_list *list, const struct added_files *files)
{
    const cJSON *items = files->decoder ? files->decoder : files->list;
    for (const cJSON *i = items ? items->child : NULL; i; i = i->next) {
        struct listed_token *token = &list->tokens[list->n++];
        if (files->decoder)
            read_listed(token, i, id_of_name(i->string));
        else
            *token = (struct listed_token){
                .text = i->string,
                .added = { .id = id_of_item(i),
                           .is_special = is_named_special(files->config, i->string) },
            };
    }
    qsort(list->tokens, (size_t)list->n, sizeof *list->tokens, compare_listed);
}

quip_status qp_add_listed(struct bytes *spm, struct bytes *bpe, const struct tokenizer *tokenizer,
                          const struct added_files *files, const struct tokenizer_request *r,
                          quip_error *error)
{
    struct token_list list;
    const cJSON *items = files->decoder ? files->decoder : files->list;
    assert(tokenizer);
    if (!cJSON_IsObject(items))
        return QUIP_OK;
    quip_status status = open_list(&list, items, error);
    if (status)
        return status;
    fill_list(&list, files);
    status = check_listed(&list, tokenizer, files, r->vocab_size, error);
    while (list.n > 0 && list.tokens[list.n - 1].added.id >= r->vocab_size)
        list.n--;
    if (!status && (!append_pieces(spm, qp_tokenizer_n_tokens(tokenizer), &list) ||
                    (needs_blob(&list, tokenizer) && !write_blob(bpe, &list, files->config))))
        status = qp_fail_memory(error, "the added tokens", spm->n);
    free(list.tokens);
    return status;
}
