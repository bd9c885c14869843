/* tokenizer_gguf.c: the vocabulary in GGUF metadata -> vocabulary.
 * In:  the metadata of a model of kind "llama" (SentencePiece BPE), "gpt2" (byte-level BPE),
 *      "gemma4" (BPE over text, with a list of merges), "bert" (WordPiece: wordpiece_gguf.c) or
 *      "t5" (unigram: unigram_gguf.c).
 * Out: a vocabulary. GGUF loses some properties of a SentencePiece model; they are restored here.
 */
#include "convert/convert.h"
#include "convert/gguf_vocabulary.h"
#include "convert/tokenizer_import.h"

#include <string.h>

/* The pre-tokenizers by llama.cpp's names, with what Hugging Face's tokenizer of the same models
 * does besides. llama.cpp itself never normalizes. */
struct gguf_pre {
    const char *name;
    enum pre_tokenizer pre;
    bool nfc, ignore_merges, adds_bos;
};
static const struct gguf_pre gguf_pres[] = {
    { "gpt-2", PRE_GPT2, false, false, false },
    { "phi-2", PRE_GPT2, false, false, false },
    { "olmo", PRE_GPT2, true, false, false }, // of GPT-NeoX
    { "mpt", PRE_GPT2, true, false, false },  // of GPT-NeoX
    { "smollm", PRE_DIGITS_GPT2, false, false, false },
    { "starcoder", PRE_DIGITS_GPT2, false, false, false },
    { "refact", PRE_DIGITS_GPT2, false, false, false }, // Granite too
    { "command-r", PRE_DIGITS_GPT2, true, false, false },
    { "falcon", PRE_FALCON, false, false, false },
    { "llama-bpe", PRE_LLAMA3, false, true, true },
    { "llama3", PRE_LLAMA3, false, true, true },
    { "llama-v3", PRE_LLAMA3, false, true, true },
    { "falcon3", PRE_LLAMA3, false, true, true },
    { "lfm2", PRE_LLAMA3, false, true, true },
    { "smaug-bpe", PRE_LLAMA3, false, false, false },
    { "dbrx", PRE_LLAMA3, false, false, false }, // OLMo 2, Phi-4, Granite 4
    { "qwen2", PRE_QWEN2, true, false, false },
    { "deepseek-r1-qwen", PRE_QWEN2, true, false, false },
    { "megrez", PRE_QWEN2, true, false, false },
    { "stablelm2", PRE_QWEN2, false, false, false },
    { "qwen35", PRE_QWEN35, true, false, false },
    { "gpt-4o", PRE_O200K, false, false, false }, // Phi-4-mini
    { "o200k", PRE_O200K, false, false, false },
    { "llama4", PRE_O200K, false, false, false },
    { "tekken", PRE_TEKKEN, false, true, true },
    { "deepseek-llm", PRE_DEEPSEEK_LLM, false, false, false },
    { "deepseek-coder", PRE_DEEPSEEK_CODER, false, false, false },
    { "deepseek-v3", PRE_DEEPSEEK3, false, false, false },
};

static const char space_mark[] = "\xe2\x96\x81"; // U+2581

static quip_status gguf_text(struct format *g, const char *key, char *text, size_t size,
                             quip_error *error)
{
    const struct metadata *m = qp_format_find_metadata(g, key);
    const uint8_t *data = NULL;
    size_t n = 0;
    quip_status status;
    if (m && m->type == METADATA_BYTES && (status = qp_format_bytes(g, m, &data, &n, error)))
        return status;
    snprintf(text, size, "%.*s", (int)(n < size ? n : size), (const char *)data);
    return QUIP_OK;
}

static int gguf_id(const struct format *g, const char *key)
{
    const struct metadata *m = qp_format_find_metadata(g, key);
    return m && m->type == METADATA_INT && m->i >= 0 && m->i <= INT32_MAX ? (int)m->i : -1;
}

static bool gguf_flag(const struct format *g, const char *key, bool fallback)
{
    const struct metadata *m = qp_format_find_metadata(g, key);
    return m && m->type == METADATA_INT ? m->i != 0 : fallback;
}

/* ---- pieces ---- */

enum gguf_model {
    GGUF_SPM,
    GGUF_BYTE_LEVEL,
    GGUF_GEMMA4
};

struct gguf_pieces {
    struct format *gguf;
    struct gguf_lists lists; // scores only of GGUF_SPM
    enum gguf_model model;
    bool is_gemma; // one before Gemma 4
    bool is_phi3;
};

/* Gemma's GGUF files mark most user-defined pieces and the unknown piece as CONTROL. Such pieces
 * would not be found in text. */
static enum piece_type gemma_type(const struct vocabulary *v, int id, enum piece_type type)
{
    if (id == v->options.unk_id)
        return PIECE_UNKNOWN;
    if (id == v->options.bos_id || id == v->options.eos_id || id == v->options.pad_id)
        return PIECE_CONTROL;
    return type == PIECE_CONTROL ? PIECE_USER_DEFINED : type;
}

/* User-defined runs of spaces are stored as spaces, but are searched after spaces have become
 * U+2581. */
static quip_status set_spaces(struct vocabulary *v, int id, size_t n, quip_error *error)
{
    char marks[3 * 64];
    if (n > 64)
        return qp_fail(error, QUIP_E_FORMAT, "piece %d is a run of %zu spaces", id, n);
    for (size_t i = 0; i < n; i++)
        memcpy(marks + 3 * i, space_mark, 3);
    return qp_vocabulary_set(v, id, marks, 3 * n, 0, PIECE_USER_DEFINED, error);
}

static bool text_is(const char *text, size_t n, const char *expected)
{
    return n == strlen(expected) && memcmp(text, expected, n) == 0;
}

static bool is_spaces(const char *text, size_t n)
{
    while (n > 0 && text[n - 1] == ' ')
        n--;
    return n == 0;
}

/* Phi-3's turns take the white space after them, which GGUF does not say. llama.cpp knows it for
 * the same tokens. */
static quip_status add_phi3_token(struct vocabulary *v, const struct gguf_piece *p,
                                  quip_error *error)
{
    const struct bpe_added added = {
        .id = p->id,
        .is_special = true,
        .rstrip = !text_is(p->text, p->n_text, "<unk>") && !text_is(p->text, p->n_text, "<s>") &&
                  !text_is(p->text, p->n_text, "<|endoftext|>"),
    };
    return qp_vocabulary_add(v, &added, error);
}

/* The score is set by the first merge that makes the piece. The unknown piece and the other
 * control pieces of Gemma 4 are found in text, except bos, eos and pad. */
static quip_status set_gemma4_piece(struct vocabulary *v, const struct gguf_piece *p,
                                    enum piece_type type, quip_error *error)
{
    return qp_vocabulary_set(v, p->id, p->text, p->n_text, 0, gemma_type(v, p->id, type), error);
}

static quip_status set_spm_piece(struct vocabulary *v, const struct gguf_pieces *all,
                                 const struct gguf_piece *p, enum piece_type type,
                                 quip_error *error)
{
    if (all->is_gemma)
        type = gemma_type(v, p->id, type);
    else if (p->id == v->options.unk_id && type == PIECE_CONTROL)
        type = PIECE_UNKNOWN;
    if (type == PIECE_USER_DEFINED && is_spaces(p->text, p->n_text))
        return set_spaces(v, p->id, p->n_text, error);
    if (all->is_phi3 && type == PIECE_CONTROL) {
        quip_status status = add_phi3_token(v, p, error);
        if (status)
            return status;
    }
    // only normal pieces have a score; GGUF has -1000 elsewhere
    const float score = type == PIECE_NORMAL ? (float)p->score : 0;
    return qp_vocabulary_set(v, p->id, p->text, p->n_text, score, type, error);
}

/* As in MediaPipe's converter, the score is -id. */
static quip_status set_byte_level_piece(struct vocabulary *v, const struct gguf_piece *p,
                                        enum piece_type type, quip_error *error)
{
    if (type == PIECE_CONTROL || type == PIECE_USER_DEFINED) {
        struct bpe_added added = { .id = p->id, .is_special = type == PIECE_CONTROL };
        quip_status status = qp_vocabulary_add(v, &added, error);
        if (status)
            return status;
    }
    if (p->id == v->options.unk_id) // SentencePiece needs one, also if it is special (SmolLM2)
        type = PIECE_UNKNOWN;
    float score = type == PIECE_NORMAL || type == PIECE_UNKNOWN ? -(float)p->id : 0;
    return qp_vocabulary_set(v, p->id, p->text, p->n_text, score, type, error);
}

/* An empty piece, which some files have instead of an unused one, gets llama.cpp's name for it. */
static quip_status set_empty_piece(struct vocabulary *v, int id, quip_error *error)
{
    char name[24];
    const int n = snprintf(name, sizeof name, "[EMPTY_%d]", id);
    return qp_vocabulary_set(v, id, name, (size_t)n, 0, PIECE_UNUSED, error);
}

static quip_status read_piece(struct vocabulary *v, const struct gguf_pieces *all,
                              const struct gguf_piece *p, quip_error *error)
{
    enum piece_type type = PIECE_NORMAL;
    if (p->type >= PIECE_NORMAL && p->type <= PIECE_BYTE)
        type = (enum piece_type)p->type; // the same numbers as SentencePiece's
    if (type == PIECE_BYTE)
        v->options.byte_fallback = true;
    if (p->n_text == 0)
        return set_empty_piece(v, p->id, error);
    switch (all->model) {
    case GGUF_BYTE_LEVEL:
        return set_byte_level_piece(v, p, type, error);
    case GGUF_GEMMA4:
        return set_gemma4_piece(v, p, type, error);
    default:
        return set_spm_piece(v, all, p, type, error);
    }
}

static quip_status read_pieces(struct vocabulary *v, const struct gguf_pieces *p, quip_error *error)
{
    struct gguf_piece piece = { 0 };
    quip_status status = QUIP_OK;
    for (int i = 0; i < p->lists.n && !status; i++) {
        status = qp_gguf_next_piece(p->gguf, &p->lists, &piece, error);
        if (!status)
            status = read_piece(v, p, &piece, error);
    }
    return status;
}

/* ---- merges ---- */

/* Gemma 4: pieces that look like control tokens, and that merges cannot make, are found in text.
 * llama.cpp's converter marks only some of them. */
static void mark_unreachable(struct vocabulary *v)
{
    for (int id = 0; id < v->n_pieces; id++) {
        struct vocab_piece *p = &v->pieces[id];
        const char *text = (const char *)v->pool.data + p->offset;
        if (p->type == PIECE_NORMAL && p->score == 0 && p->n > 2 &&
            (memcmp(text, "<|", 2) == 0 || memcmp(text + p->n - 2, "|>", 2) == 0))
            p->type = PIECE_USER_DEFINED;
    }
}

/* Pieces without a merge come after all others. */
static void score_unmerged(struct vocabulary *v, int n_merges)
{
    for (int id = 0; id < v->n_pieces; id++)
        if (v->pieces[id].type == PIECE_NORMAL && v->pieces[id].score == 0)
            v->pieces[id].score = -(float)id - (float)n_merges - 1;
}

static quip_status read_merge(struct vocabulary *v, const struct gguf_pieces *p, int rank,
                              const struct metadata_cursor *c, quip_error *error)
{
    // "left right": pieces have no space of their own
    const char *space = c->n_text > 1 ? memchr(c->text + 1, ' ', c->n_text - 1) : NULL;
    if (!space)
        return qp_fail(error, QUIP_E_FORMAT, "%s: merge %d is not two pieces", p->gguf->file->name,
                       rank);
    const size_t n_left = (size_t)(space - c->text), n_right = c->n_text - n_left - 1;
    return p->model == GGUF_GEMMA4
               ? qp_vocabulary_score(v, c->text, n_left, space + 1, n_right, rank, error)
               : qp_vocabulary_merge(v, c->text, n_left, space + 1, n_right, error);
}

static quip_status read_merges(struct vocabulary *v, const struct gguf_pieces *p, quip_error *error)
{
    struct format *g = p->gguf;
    const struct metadata *merges = qp_format_find_metadata(g, "tokenizer.ggml.merges");
    if (!merges || merges->type != METADATA_ARRAY)
        return qp_fail(error, QUIP_E_FORMAT, "%s: its metadata has no tokenizer.ggml.merges",
                       g->file->name);
    struct metadata_cursor c = { 0 };
    quip_status status = qp_vocabulary_index(v, error);
    int rank = 0;
    while (!status && qp_metadata_next(g, merges, &c))
        status = read_merge(v, p, rank++, &c, error);
    if (!status && c.is_malformed)
        status = qp_fail(error, QUIP_E_FORMAT, "%s: tokenizer.ggml.merges is damaged at item %d",
                         g->file->name, rank);
    if (!status && p->model == GGUF_GEMMA4) {
        mark_unreachable(v);
        score_unmerged(v, rank);
    }
    return status;
}

static quip_status find_gguf_pre(struct format *g, const struct gguf_pre **pre, char name[40],
                                 quip_error *error)
{
    *pre = NULL;
    quip_status status = gguf_text(g, "tokenizer.ggml.pre", name, 40, error);
    for (size_t i = 0; i < QP_COUNT(gguf_pres) && !status; i++)
        if (strcmp(gguf_pres[i].name, name) == 0)
            *pre = &gguf_pres[i];
    return status;
}

static quip_status find_pre(struct vocabulary *v, struct format *g, quip_error *error)
{
    char name[40];
    const struct gguf_pre *pre;
    quip_status status = find_gguf_pre(g, &pre, name, error);
    if (status)
        return status;
    if (pre) {
        v->spec.pre = pre->pre;
        v->spec.nfc = pre->nfc;
        v->spec.ignore_merges = pre->ignore_merges;
        return QUIP_OK;
    }
    if (!*name || strcmp(name, "default") == 0)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: does not say how its tokenizer divides a text into words "
                       "(tokenizer.ggml.pre); give the folder with the model's tokenizer.json as "
                       "--tokenizer FOLDER, or take a newer GGUF file",
                       g->file->name);
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: its pre-tokenizer \"%s\" is not known; give the folder with the model's "
                   "tokenizer.json as --tokenizer FOLDER",
                   g->file->name, name);
}

static quip_status find_gguf_model(struct gguf_pieces *p, quip_error *error)
{
    static const char *const models[] = {
        [GGUF_SPM] = "llama", [GGUF_BYTE_LEVEL] = "gpt2", [GGUF_GEMMA4] = "gemma4"
    };
    struct format *g = p->gguf;
    char model[16], arch[16];
    quip_status status;
    if ((status = gguf_text(g, "tokenizer.ggml.model", model, sizeof model, error)) ||
        (status = gguf_text(g, "general.architecture", arch, sizeof arch, error)))
        return status;
    for (size_t i = 0; i < QP_COUNT(models); i++)
        if (strcmp(models[i], model) == 0) {
            p->model = (enum gguf_model)i;
            p->is_gemma = p->model == GGUF_SPM && strncmp(arch, "gemma", 5) == 0;
            p->is_phi3 = p->model == GGUF_SPM && strcmp(arch, "phi3") == 0;
            return QUIP_OK;
        }
    return qp_fail(
        error, QUIP_E_UNSUPPORTED,
        "%s: its tokenizer \"%s\" is not one of llama (SentencePiece), gpt2 (byte-level "
        "BPE), gemma4, bert (WordPiece) and t5 (unigram); give the folder with the model's "
        "tokenizer.json as --tokenizer FOLDER",
        g->file->name, model);
}

static quip_status find_gguf_pieces(struct gguf_pieces *p, quip_error *error)
{
    const quip_status status = find_gguf_model(p, error);
    return status ? status : qp_gguf_find_lists(p->gguf, p->model == GGUF_SPM, &p->lists, error);
}

static quip_status open_gguf_vocabulary(struct vocabulary *v, const struct gguf_pieces *p,
                                        quip_error *error)
{
    struct format *g = p->gguf;
    quip_status status = qp_vocabulary_open(v, p->lists.n, error);
    if (status)
        return status;
    const bool is_text = p->model != GGUF_BYTE_LEVEL;
    v->has_blob = !is_text || p->is_phi3;
    v->spec.is_spm = p->is_phi3;
    v->spec.prefix = p->is_phi3 ? PREFIX_ALWAYS : PREFIX_NEVER;
    v->options.unk_id = gguf_id(g, "tokenizer.ggml.unknown_token_id");
    v->options.bos_id = gguf_id(g, "tokenizer.ggml.bos_token_id");
    v->options.eos_id = gguf_id(g, "tokenizer.ggml.eos_token_id");
    v->options.pad_id = gguf_id(g, "tokenizer.ggml.padding_token_id");
    v->options.escape_whitespaces = is_text;
    v->options.add_dummy_prefix = is_text && gguf_flag(g, "tokenizer.ggml.add_space_prefix",
                                                       p->model == GGUF_SPM && !p->is_gemma);
    v->options.remove_extra_whitespaces =
        is_text && gguf_flag(g, "tokenizer.ggml.remove_extra_whitespaces", false);
    return QUIP_OK;
}

quip_status qp_json_from_gguf(cJSON **json, struct format *gguf, quip_error *error)
{
    char model[16];
    const quip_status status = gguf_text(gguf, "tokenizer.ggml.model", model, sizeof model, error);
    return status                       ? status
           : strcmp(model, "bert") == 0 ? qp_json_from_gguf_wordpiece(json, gguf, error)
           : strcmp(model, "t5") == 0   ? qp_json_from_gguf_unigram(json, gguf, error)
                                        : QUIP_OK;
}

quip_status qp_import_tokenizer_gguf(struct format *gguf, struct bytes *spm, struct bytes *bpe,
                                     quip_error *error)
{
    cJSON *json = NULL;
    const quip_status wrong = qp_json_from_gguf(&json, gguf, error);
    if (wrong || json) {
        const quip_status status =
            wrong ? wrong
                  : qp_tokenizer_from_json(json, NULL, gguf->file->name, 0, spm, bpe, error);
        cJSON_Delete(json);
        return status;
    }
    struct vocabulary v = { 0 };
    struct gguf_pieces pieces = { .gguf = gguf };
    quip_status status = find_gguf_pieces(&pieces, error);
    if (!status)
        status = open_gguf_vocabulary(&v, &pieces, error);
    if (!status)
        status = read_pieces(&v, &pieces, error);
    if (!status && pieces.model == GGUF_BYTE_LEVEL)
        status = find_pre(&v, gguf, error);
    if (!status && pieces.model != GGUF_SPM)
        status = read_merges(&v, &pieces, error);
    if (!status)
        status = qp_vocabulary_write(&v, 0, spm, bpe, error);
    qp_vocabulary_close(&v);
    return status;
}

quip_status qp_gguf_adds_bos(struct format *gguf, bool *adds_bos, quip_error *error)
{
    char name[40], model[16];
    const struct gguf_pre *pre;
    quip_status status;
    if ((status = gguf_text(gguf, "tokenizer.ggml.model", model, sizeof model, error)) ||
        (status = find_gguf_pre(gguf, &pre, name, error)))
        return status;
    *adds_bos = strcmp(model, "llama") == 0;
    if (strcmp(model, "gpt2") == 0)
        *adds_bos = pre && pre->adds_bos;
    *adds_bos = gguf_flag(gguf, "tokenizer.ggml.add_bos_token", *adds_bos);
    if (strcmp(model, "gemma4") == 0) // files say false, too; the model needs it
        *adds_bos = true;
    if (strcmp(model, "bert") == 0 || strcmp(model, "t5") == 0) // of embeddings: embedding_texts.c
        *adds_bos = false;
    return QUIP_OK;
}
