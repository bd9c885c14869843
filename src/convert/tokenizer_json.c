/* tokenizer_json.c: a Hugging Face tokenizer.json -> vocabulary.
 * In:  a model of type BPE, Unigram or WordPiece; json_pipeline.c reads the steps before and after
 * the model.
 * Out: a vocabulary. If SentencePiece can express it (Gemma, Llama 2), it is written as a proto
 * only, else with a blob. Everything else is an error, because ids that are nearly right are wrong.
 */
#include "convert/convert.h"
#include "convert/json.h"
#include "convert/tokenizer_import.h"

#include <stdlib.h>
#include <string.h>

struct json_tokenizer {
    const cJSON *json, *model, *config; // config may be NULL
    const char *path;                   // for messages
};

const char *qp_token_text(const cJSON *config, const char *key)
{
    const cJSON *item = qp_json_item(config, key);
    return cJSON_GetStringValue(cJSON_IsObject(item) ? qp_json_item(item, "content") : item);
}

/* ---- pieces ---- */

/* An id within the vocabulary, or -1. */
static int id_of(const cJSON *item, int n_pieces)
{
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < n_pieces) ||
        item->valuedouble != item->valueint)
        return -1;
    return item->valueint;
}

/* The text of an item of a Unigram vocabulary, a pair of text and score; NULL if it is not a pair.
 */
static const char *pair_text(const cJSON *pair)
{
    return cJSON_GetArraySize(pair) == 2 && cJSON_IsNumber(cJSON_GetArrayItem(pair, 1))
               ? cJSON_GetStringValue(cJSON_GetArrayItem(pair, 0))
               : NULL;
}

/* The largest id plus one. Gaps are rare and small; ids far above the number of pieces are an
 * error, which set_piece finds. */
static int count_pieces(const struct json_tokenizer *t)
{
    const cJSON *vocab = qp_json_item(t->model, "vocab"),
                *added = qp_json_item(t->json, "added_tokens");
    int n_listed = cJSON_GetArraySize(vocab) + cJSON_GetArraySize(added);
    int limit = 2 * n_listed + 1024, n = cJSON_IsArray(vocab) ? cJSON_GetArraySize(vocab) : 0;
    for (const cJSON *i = cJSON_IsObject(vocab) ? vocab->child : NULL; i; i = i->next)
        if (id_of(i, limit) >= n)
            n = id_of(i, limit) + 1;
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next)
        if (id_of(qp_json_item(i, "id"), limit) >= n)
            n = id_of(qp_json_item(i, "id"), limit) + 1;
    return n;
}

/* "<0x0A>" */
static bool is_byte_piece(const char *text)
{
    return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && text[5] == '>' &&
           strspn(text + 3, "0123456789ABCDEF") == 2;
}

static quip_status set_piece(struct vocabulary *v, const struct json_tokenizer *t, int id,
                             const char *text, float score, enum piece_type type, quip_error *error)
{
    if (id < 0)
        return qp_fail(error, QUIP_E_FORMAT, "%s: the id of piece \"%.60s\" is out of range",
                       t->path, text);
    // a piece that is an empty C string is the character U+0000
    return qp_vocabulary_set(v, id, text, *text ? strlen(text) : 1, score, type, error);
}

static quip_status read_vocab(struct vocabulary *v, const struct json_tokenizer *t, const char *unk,
                              quip_error *error)
{
    quip_status status = QUIP_OK;
    for (const cJSON *i = qp_json_item(t->model, "vocab")->child; i && !status; i = i->next) {
        int id = id_of(i, v->n_pieces);
        enum piece_type type = PIECE_NORMAL;
        if (v->options.byte_fallback && is_byte_piece(i->string))
            type = PIECE_BYTE;
        if (unk && strcmp(i->string, unk) == 0) {
            type = PIECE_UNKNOWN;
            v->options.unk_id = id;
        }
        status = set_piece(v, t, id, i->string, -(float)id, type, error);
    }
    return status;
}

static quip_status read_unigram(struct vocabulary *v, const struct json_tokenizer *t,
                                quip_error *error)
{
    int unk = id_of(qp_json_item(t->model, "unk_id"), v->n_pieces), id = 0;
    quip_status status = QUIP_OK;
    v->scores = calloc((size_t)v->n_pieces + 1, sizeof *v->scores);
    if (!v->scores)
        return qp_fail_memory(error, "the scores", (size_t)v->n_pieces * sizeof *v->scores);
    for (const cJSON *i = qp_json_item(t->model, "vocab")->child; i && !status; i = i->next, id++) {
        const char *text = pair_text(i);
        if (!text)
            return qp_fail(error, QUIP_E_FORMAT, "%s: piece %d is not a pair of text and score",
                           t->path, id);
        bool is_byte = v->options.byte_fallback && is_byte_piece(text);
        enum piece_type type = id == unk ? PIECE_UNKNOWN : is_byte ? PIECE_BYTE : PIECE_NORMAL;
        v->scores[id] = cJSON_GetArrayItem(i, 1)->valuedouble;
        status = set_piece(v, t, id, text, (float)v->scores[id], type, error);
    }
    v->options.unk_id = unk;
    return status;
}

static quip_status read_added_token(struct vocabulary *v, const struct json_tokenizer *t,
                                    const cJSON *item, quip_error *error)
{
    const char *text = qp_json_text(item, "content");
    struct bpe_added added = {
        .id = id_of(qp_json_item(item, "id"), v->n_pieces),
        .is_special = qp_json_flag(item, "special", false),
        .normalized = qp_json_flag(item, "normalized", false),
        .lstrip = qp_json_flag(item, "lstrip", false),
        .rstrip = qp_json_flag(item, "rstrip", false),
        .single_word = qp_json_flag(item, "single_word", false),
    };
    // SentencePiece finds all of these in text except bos, eos and pad (see mark_controls); a model
    // of Hugging Face does not have those outside of its vocabulary
    const bool is_new = added.id >= 0 && !v->pieces[added.id].type;
    enum piece_type type = !v->has_blob       ? PIECE_USER_DEFINED
                           : added.is_special ? PIECE_CONTROL
                           : is_new           ? PIECE_UNUSED
                                              : PIECE_USER_DEFINED;
    float score = added.id >= 0 && !v->options.is_bpe ? v->pieces[added.id].score : 0;
    if (is_new && type == PIECE_CONTROL && (!v->options.is_bpe || v->spec.max_word_chars > 0))
        score = OUTSIDE_SCORE;
    if (added.id >= 0 && added.id == v->options.unk_id) {
        type = PIECE_UNKNOWN;
        score = v->options.is_bpe ? -(float)added.id : score;
    }
    quip_status status = set_piece(v, t, added.id, text, score, type, error);
    return status || !v->has_blob ? status : qp_vocabulary_add(v, &added, error);
}

static int compare_added(const void *a, const void *b)
{
    quip_token x = ((const struct bpe_added *)a)->id, y = ((const struct bpe_added *)b)->id;
    return (x > y) - (x < y);
}

static quip_status read_added(struct vocabulary *v, const struct json_tokenizer *t,
                              quip_error *error)
{
    const cJSON *added = qp_json_item(t->json, "added_tokens");
    quip_status status = QUIP_OK;
    for (const cJSON *i = added ? added->child : NULL; i && !status; i = i->next)
        status = read_added_token(v, t, i, error);
    if (v->spec.n_added > 1)
        qsort(v->spec.added, (size_t)v->spec.n_added, sizeof *v->spec.added, compare_added);
    return status;
}

/* A merge is "left right" in older files, ["left", "right"] in newer ones. */
struct merge_text {
    const char *left, *right;
    size_t n_left, n_right;
};

static quip_status split_merge(struct merge_text *m, const struct json_tokenizer *t,
                               const cJSON *item, quip_error *error)
{
    *m = (struct merge_text){ .left = cJSON_GetStringValue(item) };
    if (m->left && *m->left) {
        const char *space = strchr(m->left + 1, ' ');
        m->right = space ? space + 1 : NULL;
        m->n_left = space ? (size_t)(space - m->left) : 0;
    } else if (cJSON_GetArraySize(item) == 2) {
        m->left = cJSON_GetStringValue(cJSON_GetArrayItem(item, 0));
        m->right = cJSON_GetStringValue(cJSON_GetArrayItem(item, 1));
        m->n_left = m->left ? strlen(m->left) : 0;
    }
    if (!m->left || !m->right)
        return qp_fail(error, QUIP_E_FORMAT, "%s: expected two pieces in each merge", t->path);
    m->n_right = strlen(m->right);
    return QUIP_OK;
}

static bool is_normal(const struct vocabulary *v, const char *text, size_t n)
{
    const int id = qp_vocabulary_find(v, text, n);
    return id >= 0 && v->pieces[id].type == PIECE_NORMAL;
}

/* The ways to divide the normal pieces into two of them. */
static int64_t count_splits(const struct vocabulary *v)
{
    int64_t n_splits = 0;
    for (int id = 0; id < v->n_pieces; id++) {
        const struct vocab_piece *p = &v->pieces[id];
        const char *text = (const char *)v->pool.data + p->offset;
        for (size_t i = 1; i < p->n && p->type == PIECE_NORMAL; i++)
            if (((uint8_t)text[i] & 0xc0) != 0x80)
                n_splits += is_normal(v, text, i) && is_normal(v, text + i, p->n - i);
    }
    return n_splits;
}

/* SentencePiece merges by the score of the result, for any split. So the score of a piece is the
 * rank of its first merge. Pieces without a merge come after all others. *n_splits is increased if
 * the merge is one of three normal pieces. */
static quip_status score_by_merge(struct vocabulary *v, const struct json_tokenizer *t,
                                  const struct merge_text *m, int rank, struct bytes *joined,
                                  int64_t *n_splits, quip_error *error)
{
    joined->n = 0;
    if (!qp_bytes_append(joined, m->left, m->n_left) ||
        !qp_bytes_append(joined, m->right, m->n_right))
        return qp_fail_memory(error, "a merge", m->n_left + m->n_right);
    int id = qp_vocabulary_find(v, (const char *)joined->data, joined->n);
    if (id < 0)
        return qp_fail(error, QUIP_E_FORMAT, "%s: merge %d makes \"%.*s\", which is not a piece",
                       t->path, rank, (int)(joined->n < 60 ? joined->n : 60),
                       (const char *)joined->data);
    struct vocab_piece *p = &v->pieces[id];
    if (p->type != PIECE_NORMAL)
        return QUIP_OK;
    *n_splits += is_normal(v, m->left, m->n_left) && is_normal(v, m->right, m->n_right);
    if (p->score < -(float)rank)
        p->score = -(float)rank;
    return QUIP_OK;
}

static quip_status read_merges_json(struct vocabulary *v, const struct json_tokenizer *t,
                                    quip_error *error)
{
    const cJSON *merges = qp_json_item(t->model, "merges");
    struct bytes joined = { 0 };
    struct merge_text m;
    const int n_merges = cJSON_GetArraySize(merges);
    int64_t n_splits = 0;
    int rank = 0;
    quip_status status = qp_vocabulary_index(v, error);
    if (!v->has_blob)
        for (int id = 0; id < v->n_pieces; id++)
            if (v->pieces[id].type == PIECE_NORMAL)
                v->pieces[id].score -= (float)n_merges;
    for (const cJSON *i = merges ? merges->child : NULL; i && !status; i = i->next, rank++) {
        status = split_merge(&m, t, i, error);
        if (!status && v->has_blob)
            status = qp_vocabulary_merge(v, m.left, m.n_left, m.right, m.n_right, error);
        else if (!status)
            status = score_by_merge(v, t, &m, rank, &joined, &n_splits, error);
    }
    if (!status && !v->has_blob && n_splits != count_splits(v))
        v->is_own_bpe = true;
    qp_bytes_close(&joined);
    return status;
}

/* ---- what the reference does otherwise ---- */

/* Whether a token is one letter of byte-level BPE that spells another byte than its own, such as
 * U+0120 for a space. As a special token it would not be found in text, where it still is a piece.
 */
static bool is_byte_letter(const char *text)
{
    return (uint8_t)text[0] >= 0xc2 && (uint8_t)text[0] <= 0xc5 && text[1] && !text[2];
}

static quip_status check_added(const struct vocabulary *v, const struct json_tokenizer *t,
                               quip_error *error)
{
    const cJSON *added = qp_json_item(t->json, "added_tokens");
    bool has_unknown = v->options.unk_id < 0 || (v->has_blob && !v->spec.is_text);
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next) {
        const char *text = qp_json_text(i, "content");
        const int id = id_of(qp_json_item(i, "id"), v->n_pieces);
        const int found = qp_vocabulary_find(v, text, *text ? strlen(text) : 1);
        has_unknown |= id == v->options.unk_id;
        if (found != id)
            return qp_fail(
                error, QUIP_E_FORMAT,
                "%s: the added token \"%.60s\" has the ids %d and %d; remove one of them", t->path,
                text, found, id);
        if (v->has_blob && !v->spec.is_text && qp_json_flag(i, "special", false) &&
            is_byte_letter(text) && qp_json_item(qp_json_item(t->model, "vocab"), text))
            return qp_fail(
                error, QUIP_E_UNSUPPORTED,
                "%s: its special token %d, \"%.60s\", is a letter that pieces of text are "
                "spelled with, which is not supported",
                t->path, id, text);
    }
    return has_unknown ? QUIP_OK
                       : qp_fail(error, QUIP_E_UNSUPPORTED,
                                 "%s: its unknown token, %d, is not among the added_tokens; add it "
                                 "there with \"special\": true",
                                 t->path, v->options.unk_id);
}

static quip_status check_json_model(const struct json_tokenizer *t, bool is_unigram,
                                    quip_error *error)
{
    const cJSON *dropout = qp_json_item(t->model, "dropout");
    if (cJSON_IsNumber(dropout) && dropout->valuedouble != 0)
        return qp_fail(
            error, QUIP_E_UNSUPPORTED,
            "%s: its model has dropout %g, with which a text has other tokens each time; "
            "write null for it",
            t->path, dropout->valuedouble);
    if (is_unigram && !qp_json_item(t->model, "unk_id"))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: its model has no unk_id, so that there is text that has no tokens; "
                       "write the id of its unknown token",
                       t->path);
    return QUIP_OK;
}

/* Tokenizers of these classes are built again, with the add_prefix_space of tokenizer_config.json,
 * by default false. Of others, some versions change a pre_tokenizer that is ByteLevel alone. */
static quip_status check_prefix_space(const struct vocabulary *v, const struct json_tokenizer *t,
                                      quip_error *error)
{
    static const char *const names[] = { "GPT2Tokenizer", "Qwen2Tokenizer", "GPTNeoXTokenizer",
                                         "CodeGenTokenizer", "RobertaTokenizer" };
    const char *owner = qp_json_text(t->config, "tokenizer_class");
    const bool has = v->spec.add_prefix_space,
               is_list = qp_json_has_type(qp_json_item(t->json, "pre_tokenizer"), "Sequence");
    bool is_own = false;
    if (!v->has_blob || v->spec.is_text || !t->config)
        return QUIP_OK;
    for (size_t i = 0; i < QP_COUNT(names); i++)
        is_own |= strncmp(owner, names[i], strlen(names[i])) == 0;
    if (qp_json_flag(t->config, "add_prefix_space", is_own ? false : has) == has ||
        (is_list && !is_own))
        return QUIP_OK;
    return qp_fail(
        error, QUIP_E_UNSUPPORTED,
        "%s: add_prefix_space is %s in its pre_tokenizer, and %s in "
        "tokenizer_config.json; make them equal, because a tokenizer_class such as %.40s "
        "follows the latter",
        t->path, has ? "true" : "false", has ? "not" : "true", is_own ? owner : "GPT2Tokenizer");
}

/* ---- the whole ---- */

/* The id of the piece with this text, or with the other if there is none; -1 without either. */
static int named_id(const struct vocabulary *v, const char *text, const char *fallback)
{
    if (!text)
        text = fallback;
    for (int id = 0; text && id < v->n_pieces; id++) { // no index yet; few look-ups
        const struct vocab_piece *p = &v->pieces[id];
        if (p->n == strlen(text) && memcmp(v->pool.data + p->offset, text, p->n) == 0)
            return id;
    }
    return -1;
}

/* Find bos, eos and pad by the config, or by their usual names. They are control pieces, which
 * SentencePiece never finds in text. */
static void mark_controls(struct vocabulary *v, const struct json_tokenizer *t)
{
    bool is_spm = !v->has_blob, has_bos = named_id(v, NULL, "<bos>") >= 0;
    const char *bos = !is_spm ? NULL : has_bos ? "<bos>" : "<s>";
    const char *eos = !is_spm ? NULL : has_bos ? "<eos>" : "</s>";
    int ids[] = {
        v->options.bos_id = named_id(v, qp_token_text(t->config, "bos_token"), bos),
        v->options.eos_id = named_id(v, qp_token_text(t->config, "eos_token"), eos),
        v->options.pad_id =
            named_id(v, qp_token_text(t->config, "pad_token"), is_spm ? "<pad>" : NULL),
    };
    for (size_t i = 0; i < QP_COUNT(ids) && is_spm; i++)
        if (ids[i] >= 0 && ids[i] != v->options.unk_id)
            v->pieces[ids[i]].type = PIECE_CONTROL;
}

static bool is_unigram(const struct json_tokenizer *t)
{
    return qp_json_has_type(t->model, "Unigram");
}

static bool is_bpe(const struct json_tokenizer *t) // older files do not say it
{
    return qp_json_has_type(t->model, "BPE") ||
           (*qp_json_text(t->model, "type") == 0 && qp_json_item(t->model, "merges"));
}

static quip_status fill(struct vocabulary *v, const struct json_tokenizer *t, quip_error *error)
{
    quip_status status;
    const char *unk = cJSON_GetStringValue(qp_json_item(t->model, "unk_token"));
    if (!unk)
        unk = qp_token_text(t->config, "unk_token");
    v->options.is_bpe = !is_unigram(t);
    if ((status = check_json_model(t, is_unigram(t), error)) ||
        (status = qp_json_pipeline(v, t->json, t->path, error)) ||
        (status = check_prefix_space(v, t, error)) ||
        (status = is_unigram(t) ? read_unigram(v, t, error) : read_vocab(v, t, unk, error)) ||
        (status = read_added(v, t, error)))
        return status;
    if (v->spec.max_word_chars > 0 && v->options.unk_id < 0)
        return qp_fail(error, QUIP_E_FORMAT, "%s: its unknown token \"%.40s\" is not a piece",
                       t->path, unk ? unk : "");
    mark_controls(v, t);
    status = read_merges_json(v, t, error);
    return status ? status : check_added(v, t, error);
}

quip_status qp_tokenizer_from_json(const cJSON *json, const cJSON *config, const char *path,
                                   int limit, struct bytes *spm, struct bytes *bpe,
                                   quip_error *error)
{
    struct json_tokenizer t = { json, qp_json_item(json, "model"), config, path };
    const cJSON *vocab = qp_json_item(t.model, "vocab");
    const bool is_wordpiece = qp_json_has_type(t.model, "WordPiece");
    if (!((is_bpe(&t) || is_wordpiece) && cJSON_IsObject(vocab)) &&
        !(is_unigram(&t) && cJSON_IsArray(vocab)))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: its model is \"%.40s\"; must be \"BPE\", \"Unigram\" or "
                       "\"WordPiece\" with a vocabulary",
                       path, qp_json_text(t.model, "type"));
    struct vocabulary v = { 0 };
    quip_status status = QUIP_OK;
    bool is_own_bpe;
    do {
        is_own_bpe = v.is_own_bpe;
        qp_vocabulary_close(&v);
        if (!(status = qp_vocabulary_open(&v, count_pieces(&t), error))) {
            v.is_own_bpe = is_own_bpe;
            status = fill(&v, &t, error);
        }
    } while (!status && v.is_own_bpe && !is_own_bpe);
    if (!status)
        status = qp_vocabulary_write(&v, limit, spm, bpe, error);
    qp_vocabulary_close(&v);
    return status;
}

/* Read tokenizer_config.json in the same folder, if it exists. */
static quip_status read_neighbour(cJSON **config, const char *path, quip_error *error)
{
    size_t n_folder = (size_t)(qp_path_name(path) - path);
    const char name[] = "tokenizer_config.json";
    char *neighbour = malloc(n_folder + sizeof name);
    if (!neighbour)
        return qp_fail_memory(error, "a path", n_folder + sizeof name);
    memcpy(neighbour, path, n_folder);
    memcpy(neighbour + n_folder, name, sizeof name);
    quip_status status =
        qp_path_exists(neighbour) ? qp_json_read(config, neighbour, error) : QUIP_OK;
    free(neighbour);
    return status;
}

quip_status qp_import_tokenizer_json(const char *path, struct bytes *spm, struct bytes *bpe,
                                     quip_error *error)
{
    cJSON *json = NULL, *config = NULL;
    quip_status status = qp_json_read(&json, path, error);
    if (!status)
        status = read_neighbour(&config, path, error);
    if (!status)
        status = qp_tokenizer_from_json(json, config, path, 0, spm, bpe, error);
    cJSON_Delete(json);
    cJSON_Delete(config);
    return status;
}
