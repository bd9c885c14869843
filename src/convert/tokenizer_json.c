/* tokenizer_json.c: a Hugging Face tokenizer.json -> vocabulary.
 * Two kinds are understood: byte-level BPE whose pre-tokenizer is one of those with a number, and
 * BPE over whole text with U+2581 for spaces, which is SentencePiece in other clothes (Gemma,
 * Llama 2). Anything else is refused by name, since nearly right ids are wrong ids.
 * fuzz target: FUZZ_TOKENIZER_JSON */
#include "convert/convert_impl.h"

#include <stdlib.h>
#include <string.h>

struct json_tokenizer {
    const cJSON *json, *model, *config; // config may be NULL
    const char *path;                   // for messages
};

/* NULL when absent or null. */
static const cJSON *item_of(const cJSON *object, const char *key)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNull(item) ? NULL : item;
}

static const char *text_of(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(item_of(object, key));
    return text ? text : "";
}

static bool has_type(const cJSON *object, const char *type)
{
    return strcmp(text_of(object, "type"), type) == 0;
}

static bool flag_of(const cJSON *object, const char *key, bool otherwise)
{
    const cJSON *item = item_of(object, key);
    return item ? cJSON_IsTrue(item) : otherwise;
}

const char *qp_token_text(const cJSON *config, const char *key)
{
    const cJSON *item = item_of(config, key);
    return cJSON_GetStringValue(cJSON_IsObject(item) ? item_of(item, "content") : item);
}

/* ---- recognising the parts ---- */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define AFTER_NUMBERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const struct {
    const char *regex;
    enum pre_tokenizer pre;
} split_regexes[] = {
    { CONTRACTIONS "\\p{N}{1,3}" AFTER_NUMBERS, PRE_LLAMA3 },
    { CONTRACTIONS "\\p{N}" AFTER_NUMBERS, PRE_QWEN2 },
};

static enum pre_tokenizer find_split(const cJSON *split)
{
    const char *regex = text_of(item_of(split, "pattern"), "Regex");
    if (!has_type(split, "Split") || strcmp(text_of(split, "behavior"), "Isolated") != 0 ||
        flag_of(split, "invert", false))
        return PRE_NONE;
    for (size_t i = 0; i < QP_COUNT(split_regexes); i++)
        if (strcmp(split_regexes[i].regex, regex) == 0)
            return split_regexes[i].pre;
    return PRE_NONE;
}

/* The pre-tokenizer of byte-level BPE, or PRE_NONE: ByteLevel alone, after Digits, or after a
 * Split by one of the known expressions. */
static enum pre_tokenizer find_pre_tokenizer(const cJSON *pre, bool *add_prefix_space)
{
    const cJSON *first = pre, *last = pre;
    if (has_type(pre, "Sequence")) {
        const cJSON *list = item_of(pre, "pretokenizers");
        int n = cJSON_GetArraySize(list);
        if (n < 1 || n > 2)
            return PRE_NONE;
        first = cJSON_GetArrayItem(list, 0);
        last = cJSON_GetArrayItem(list, n - 1);
    }
    if (!has_type(last, "ByteLevel"))
        return PRE_NONE;
    bool has_regex = flag_of(last, "use_regex", true);
    *add_prefix_space = flag_of(last, "add_prefix_space", true);
    if (first == last)
        return has_regex ? PRE_GPT2 : PRE_NONE;
    if (has_type(first, "Digits") && flag_of(first, "individual_digits", false) && has_regex)
        return PRE_DIGITS_GPT2;
    return has_regex ? PRE_NONE : find_split(first);
}

/* Normalizers that SentencePiece's flags express: " " -> U+2581, with or without one in front. */
static bool find_spm_normalizer(const cJSON *normalizer, bool *add_dummy_prefix)
{
    const cJSON *replace = normalizer;
    *add_dummy_prefix = false;
    if (has_type(normalizer, "Sequence")) {
        const cJSON *list = item_of(normalizer, "normalizers");
        const cJSON *prepend = cJSON_GetArrayItem(list, 0);
        if (cJSON_GetArraySize(list) != 2 || !has_type(prepend, "Prepend") ||
            strcmp(text_of(prepend, "prepend"), "\xe2\x96\x81") != 0)
            return false;
        *add_dummy_prefix = true;
        replace = cJSON_GetArrayItem(list, 1);
    }
    return has_type(replace, "Replace") &&
           strcmp(text_of(item_of(replace, "pattern"), "String"), " ") == 0 &&
           strcmp(text_of(replace, "content"), "\xe2\x96\x81") == 0;
}

/* A split on spaces finds nothing once the normalizer has replaced them. */
static bool is_idle_pre_tokenizer(const cJSON *pre)
{
    return !pre ||
           (has_type(pre, "Split") && strcmp(text_of(item_of(pre, "pattern"), "String"), " ") == 0);
}

static quip_status recognise(struct vocabulary *v, const struct json_tokenizer *t,
                             quip_error *error)
{
    const cJSON *normalizer = item_of(t->json, "normalizer");
    const cJSON *pre = item_of(t->json, "pre_tokenizer");
    v->spec.nfc = has_type(normalizer, "NFC");
    v->spec.ignore_merges = flag_of(t->model, "ignore_merges", false);
    v->spec.pre = find_pre_tokenizer(pre, &v->spec.add_prefix_space);
    v->is_byte_level = v->spec.pre != PRE_NONE && (!normalizer || v->spec.nfc);
    if (*text_of(t->model, "continuing_subword_prefix") || *text_of(t->model, "end_of_word_suffix"))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: pieces with a subword prefix or word suffix are not supported",
                       t->path);
    if (v->is_byte_level)
        return QUIP_OK;
    v->options.escape_whitespaces = true;
    v->options.byte_fallback = flag_of(t->model, "byte_fallback", false);
    if (find_spm_normalizer(normalizer, &v->options.add_dummy_prefix) && is_idle_pre_tokenizer(pre))
        return QUIP_OK;
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: its normalizer \"%.40s\" and pre-tokenizer \"%.40s\" are neither a known "
                   "byte-level BPE nor SentencePiece's",
                   t->path, text_of(normalizer, "type"), text_of(pre, "type"));
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

/* One more than the largest id. Gaps are rare and small: ids far beyond the number of pieces are
 * an error, found when they do not fit. */
static int count_pieces(const struct json_tokenizer *t)
{
    const cJSON *vocab = item_of(t->model, "vocab"), *added = item_of(t->json, "added_tokens");
    int n_listed = cJSON_GetArraySize(vocab) + cJSON_GetArraySize(added);
    int limit = 2 * n_listed + 1024, n = 0;
    for (const cJSON *i = vocab ? vocab->child : NULL; i; i = i->next)
        if (id_of(i, limit) >= n)
            n = id_of(i, limit) + 1;
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next)
        if (id_of(item_of(i, "id"), limit) >= n)
            n = id_of(item_of(i, "id"), limit) + 1;
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
    // the only text that JSON writes and a C string shows empty is that of U+0000
    return qp_vocabulary_set(v, id, text, *text ? strlen(text) : 1, score, type, error);
}

static quip_status read_vocab(struct vocabulary *v, const struct json_tokenizer *t, const char *unk,
                              quip_error *error)
{
    quip_status status = QUIP_OK;
    for (const cJSON *i = item_of(t->model, "vocab")->child; i && !status; i = i->next) {
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

static quip_status read_added_token(struct vocabulary *v, const struct json_tokenizer *t,
                                    const cJSON *item, quip_error *error)
{
    const char *text = text_of(item, "content");
    struct bpe_added added = {
        .id = id_of(item_of(item, "id"), v->n_pieces),
        .is_special = flag_of(item, "special", false),
        .normalized = flag_of(item, "normalized", false),
        .lstrip = flag_of(item, "lstrip", false),
        .rstrip = flag_of(item, "rstrip", false),
        .single_word = flag_of(item, "single_word", false),
    };
    if (!v->is_byte_level &&
        (added.normalized || added.lstrip || added.rstrip || added.single_word))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: added token \"%.60s\" has flags that SentencePiece cannot express",
                       t->path, text);
    // SentencePiece finds all of these in text but bos, eos and pad (see mark_controls).
    bool is_control = v->is_byte_level && added.is_special;
    enum piece_type type = is_control ? PIECE_CONTROL : PIECE_USER_DEFINED;
    float score = 0;
    if (added.id >= 0 && added.id == v->options.unk_id) {
        type = PIECE_UNKNOWN;
        score = -(float)added.id;
    }
    quip_status status = set_piece(v, t, added.id, text, score, type, error);
    return status || !v->is_byte_level ? status : qp_vocabulary_add(v, &added, error);
}

static int compare_added(const void *a, const void *b)
{
    quip_token x = ((const struct bpe_added *)a)->id, y = ((const struct bpe_added *)b)->id;
    return (x > y) - (x < y);
}

static quip_status read_added(struct vocabulary *v, const struct json_tokenizer *t,
                              quip_error *error)
{
    const cJSON *added = item_of(t->json, "added_tokens");
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
        return qp_fail(error, QUIP_E_FORMAT, "%s: a merge is not two pieces", t->path);
    m->n_right = strlen(m->right);
    return QUIP_OK;
}

/* SentencePiece merges by the score of what comes out, in any split: the rank of a piece's first
 * merge becomes its score. Pieces that no merge makes come after all of them. */
static quip_status score_by_merge(struct vocabulary *v, const struct json_tokenizer *t,
                                  const struct merge_text *m, int rank, struct bytes *joined,
                                  quip_error *error)
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
    if (v->pieces[id].type == PIECE_NORMAL && v->pieces[id].score < -(float)rank)
        v->pieces[id].score = -(float)rank;
    return QUIP_OK;
}

static quip_status read_merges_json(struct vocabulary *v, const struct json_tokenizer *t,
                                    quip_error *error)
{
    const cJSON *merges = item_of(t->model, "merges");
    struct bytes joined = { 0 };
    struct merge_text m;
    const int n_merges = cJSON_GetArraySize(merges);
    int rank = 0;
    quip_status status = qp_vocabulary_index(v, error);
    if (!v->is_byte_level)
        for (int id = 0; id < v->n_pieces; id++)
            if (v->pieces[id].type == PIECE_NORMAL)
                v->pieces[id].score -= (float)n_merges;
    for (const cJSON *i = merges ? merges->child : NULL; i && !status; i = i->next, rank++) {
        status = split_merge(&m, t, i, error);
        if (!status && v->is_byte_level)
            status = qp_vocabulary_merge(v, m.left, m.n_left, m.right, m.n_right, error);
        else if (!status)
            status = score_by_merge(v, t, &m, rank, &joined, error);
    }
    qp_bytes_close(&joined);
    return status;
}

/* ---- the whole ---- */

bool qp_json_puts_bos(const cJSON *json)
{
    const cJSON *post = item_of(json, "post_processor");
    const cJSON *list = item_of(post, "processors");
    for (const cJSON *i = list ? list->child : post; i; i = list ? i->next : NULL) {
        const cJSON *single = item_of(i, "single");
        if (has_type(i, "TemplateProcessing") && single && single->child)
            return item_of(single->child, "SpecialToken") != NULL;
    }
    return false;
}

/* The id of the piece with this text, or with the other if there is none; -1 without either. */
static int named_id(const struct vocabulary *v, const char *text, const char *otherwise)
{
    if (!text)
        text = otherwise;
    for (int id = 0; text && id < v->n_pieces; id++) { // no index yet; few look-ups
        const struct vocab_piece *p = &v->pieces[id];
        if (p->n == strlen(text) && memcmp(v->pool.data + p->offset, text, p->n) == 0)
            return id;
    }
    return -1;
}

/* Find bos, eos and pad: by the config, or by the names they have in all vocabularies of the
 * kind. SentencePiece never finds these in text: they are its control pieces. */
static void mark_controls(struct vocabulary *v, const struct json_tokenizer *t)
{
    bool is_spm = !v->is_byte_level, has_bos = named_id(v, NULL, "<bos>") >= 0;
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

static quip_status fill(struct vocabulary *v, const struct json_tokenizer *t, quip_error *error)
{
    quip_status status;
    const char *unk = cJSON_GetStringValue(item_of(t->model, "unk_token"));
    if (!unk)
        unk = qp_token_text(t->config, "unk_token");
    if ((status = recognise(v, t, error)) || (status = read_vocab(v, t, unk, error)) ||
        (status = read_added(v, t, error)))
        return status;
    mark_controls(v, t);
    return read_merges_json(v, t, error);
}

quip_status qp_tokenizer_from_json(const cJSON *json, const cJSON *config, const char *path,
                                   int limit, struct bytes *spm, struct bytes *bpe,
                                   quip_error *error)
{
    struct json_tokenizer t = { json, item_of(json, "model"), config, path };
    if (!cJSON_IsObject(item_of(t.model, "vocab")) ||
        !(has_type(t.model, "BPE") ||
          (*text_of(t.model, "type") == 0 && item_of(t.model, "merges"))))
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: its model is \"%.40s\"; supported is \"BPE\"", path,
                       text_of(t.model, "type"));
    struct vocabulary v = { 0 };
    quip_status status = qp_vocabulary_open(&v, count_pieces(&t), error);
    if (!status)
        status = fill(&v, &t, error);
    if (!status)
        status = qp_vocabulary_write(&v, limit, spm, bpe, error);
    qp_vocabulary_close(&v);
    return status;
}

/* tokenizer_config.json in the same folder, if it is there. */
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

#ifdef FUZZ_TOKENIZER_JSON

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    cJSON *json = cJSON_ParseWithLength((const char *)data, n);
    struct bytes spm = { 0 }, bpe = { 0 };
    struct tokenizer *tokenizer = NULL;
    if (json && !qp_tokenizer_from_json(json, json, "fuzz", 0, &spm, &bpe, NULL))
        qp_tokenizer_open(&tokenizer, spm.data, spm.n, bpe.n ? bpe.data : NULL, bpe.n, NULL);
    qp_tokenizer_close(tokenizer);
    qp_bytes_close(&spm);
    qp_bytes_close(&bpe);
    cJSON_Delete(json);
    return 0;
}

#endif
