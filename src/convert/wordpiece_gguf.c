/* wordpiece_gguf.c: BERT's vocabulary in GGUF metadata -> what a tokenizer.json would say.
 * In:  the metadata of a tokenizer of kind "bert". There a piece that begins a word begins with
 *      U+2581, and one that continues a word is written without its "##"; control tokens are as
 *      they are.
 * Out: the JSON of the same tokenizer.
 *
 * GGUF does not say how added tokens are found in text, so they are refused. Older files do not say
 * either whether text becomes lower case; then the vocabulary must not have capital letters. */
#include "convert/json.h"
#include "convert/tokenizer_import.h"

#include <stdlib.h>
#include <string.h>

/* Special tokens of BERT: the keys of their ids in the order in which llama.cpp looks for them, and
 * the id without such a key. */
enum special {
    SPECIAL_UNK,
    SPECIAL_CLS,
    SPECIAL_SEP,
    N_SPECIALS
};
static const struct {
    const char *keys[2];
    int fallback;
} special_keys[N_SPECIALS] = {
    [SPECIAL_UNK] = { { "tokenizer.ggml.unknown_token_id" }, 100 },
    [SPECIAL_CLS] = { { "tokenizer.ggml.bos_token_id", "tokenizer.ggml.cls_token_id" }, 101 },
    [SPECIAL_SEP] = { { "tokenizer.ggml.seperator_token_id", "tokenizer.ggml.separator_token_id" },
                      102 },
};

struct wordpiece_source {
    struct format *gguf;
    struct gguf_lists lists;
    quip_error *error;
    cJSON *json, *vocab, *added; // the last two are parts of the first
    int ids[N_SPECIALS];
    char specials[N_SPECIALS][64]; // their texts; "": not found yet
    char capital[64];              // a piece with a capital letter; "": none
};

static quip_status fail_json(const struct wordpiece_source *s)
{
    return qp_fail_memory(s->error, "the vocabulary", 0);
}

static int special_id(const struct format *g, enum special special)
{
    for (size_t i = 0; i < QP_COUNT(special_keys[special].keys); i++) {
        const char *key = special_keys[special].keys[i];
        const struct metadata *m = key ? qp_format_find_metadata(g, key) : NULL;
        if (m && m->type == METADATA_INT)
            return m->i >= 0 && m->i <= INT32_MAX ? (int)m->i : -1;
    }
    return special_keys[special].fallback;
}

/* ---- pieces ---- */

static bool add_control(struct wordpiece_source *s, int id, const char *text)
{
    for (int i = 0; i < N_SPECIALS; i++)
        if (s->ids[i] == id)
            snprintf(s->specials[i], sizeof s->specials[i], "%s", text);
    cJSON *token = cJSON_CreateObject();
    return cJSON_AddItemToArray(s->added, token) && cJSON_AddNumberToObject(token, "id", id) &&
           cJSON_AddStringToObject(token, "content", text) &&
           cJSON_AddTrueToObject(token, "special");
}

/* "\u2581word" is "word", and "ing" is "##ing"; U+2581 alone can only be "##\u2581". */
static quip_status add_piece(struct wordpiece_source *s, int id, const struct metadata_cursor *c,
                             enum piece_type type)
{
    static const char mark[] = "\xe2\x96\x81";
    const bool begins_word = c->n_text > 3 && memcmp(c->text, mark, 3) == 0;
    const bool is_control = type == PIECE_CONTROL || type == PIECE_UNKNOWN;
    const size_t skipped = begins_word && !is_control ? 3 : 0, n = c->n_text - skipped;
    char *text = malloc(n + 3);
    if (!text)
        return fail_json(s);
    const size_t n_mark = begins_word || is_control ? 0 : 2;
    memcpy(text, "##", n_mark);
    memcpy(text + n_mark, c->text + skipped, n);
    text[n_mark + n] = 0;
    for (size_t i = 0; i < n && !is_control && !s->capital[0]; i++)
        if (text[n_mark + i] >= 'A' && text[n_mark + i] <= 'Z')
            snprintf(s->capital, sizeof s->capital, "%s", text);
    const bool ok =
        cJSON_AddNumberToObject(s->vocab, text, id) && (!is_control || add_control(s, id, text));
    free(text);
    return ok ? QUIP_OK : fail_json(s);
}

static quip_status add_pieces(struct wordpiece_source *s)
{
    struct metadata_cursor tokens = { 0 }, types = { 0 };
    const char *path = s->gguf->file->name;
    quip_status status = QUIP_OK;
    for (int id = 0; (uint64_t)id < s->lists.tokens->n_items && !status; id++) {
        if (!qp_metadata_next(s->gguf, s->lists.tokens, &tokens) || !tokens.text ||
            tokens.n_text == 0 || memchr(tokens.text, 0, tokens.n_text) ||
            !qp_metadata_next(s->gguf, s->lists.types, &types))
            return qp_fail(s->error, QUIP_E_FORMAT, "%s: its vocabulary is damaged at piece %d",
                           path, id);
        if (types.i == PIECE_UNUSED) // fills up the rows of the embedding
            continue;
        if (types.i != PIECE_NORMAL && types.i != PIECE_CONTROL && types.i != PIECE_UNKNOWN)
            return qp_fail(s->error, QUIP_E_UNSUPPORTED,
                           "%s: its token %d, \"%.*s\", was added to the vocabulary, and the file "
                           "does not say how it is found in text; give the folder with the model's "
                           "tokenizer.json as --tokenizer FOLDER",
                           path, id, (int)(tokens.n_text < 60 ? tokens.n_text : 60), tokens.text);
        status = add_piece(s, id, &tokens, (enum piece_type)types.i);
    }
    for (int i = 0; i < N_SPECIALS && !status; i++)
        if (!s->specials[i][0])
            status = qp_fail(s->error, QUIP_E_FORMAT,
                             "%s: its token %d is not a special token; expected by %s", path,
                             s->ids[i], special_keys[i].keys[0]);
    return status;
}

/* ---- the other parts ---- */

/* Whether text becomes lower case, and accents are stripped: a switch, or the vocabulary. */
static quip_status add_normalizer(struct wordpiece_source *s)
{
    const struct metadata *lower =
        qp_format_find_metadata(s->gguf, "tokenizer.ggml.normalizer.lowercase");
    const struct metadata *strip =
        qp_format_find_metadata(s->gguf, "tokenizer.ggml.normalizer.strip_accents");
    if (!lower && s->capital[0])
        return qp_fail(s->error, QUIP_E_UNSUPPORTED,
                       "%s: does not say whether text becomes lower case "
                       "(tokenizer.ggml.normalizer.lowercase), and its vocabulary has pieces such "
                       "as \"%s\"; take a newer GGUF file, or give the folder with the model's "
                       "tokenizer.json as --tokenizer FOLDER",
                       s->gguf->file->name, s->capital);
    const bool is_lower = !lower || (lower->type == METADATA_INT && lower->i != 0);
    cJSON *steps = cJSON_AddObjectToObject(s->json, "normalizer");
    const bool ok = cJSON_AddStringToObject(steps, "type", "BertNormalizer") &&
                    cJSON_AddBoolToObject(steps, "lowercase", is_lower) &&
                    (!strip || cJSON_AddBoolToObject(steps, "strip_accents",
                                                     strip->type == METADATA_INT && strip->i != 0));
    return ok ? QUIP_OK : fail_json(s);
}

static bool add_frame(struct wordpiece_source *s, cJSON *post, const char *key,
                      enum special special)
{
    cJSON *pair = cJSON_AddArrayToObject(post, key);
    return pair && cJSON_AddItemToArray(pair, cJSON_CreateString(s->specials[special])) &&
           cJSON_AddItemToArray(pair, cJSON_CreateNumber(s->ids[special]));
}

/* llama.cpp has other switches for the tokens around a text, but not for this kind. */
static bool add_others(struct wordpiece_source *s, cJSON *model)
{
    cJSON *post = cJSON_AddObjectToObject(s->json, "post_processor");
    cJSON *pre = cJSON_AddObjectToObject(s->json, "pre_tokenizer");
    cJSON *decoder = cJSON_AddObjectToObject(s->json, "decoder");
    return cJSON_AddStringToObject(model, "continuing_subword_prefix", "##") &&
           cJSON_AddStringToObject(model, "unk_token", s->specials[SPECIAL_UNK]) &&
           cJSON_AddStringToObject(post, "type", "BertProcessing") &&
           add_frame(s, post, "cls", SPECIAL_CLS) && add_frame(s, post, "sep", SPECIAL_SEP) &&
           cJSON_AddStringToObject(pre, "type", "BertPreTokenizer") &&
           cJSON_AddStringToObject(decoder, "type", "WordPiece") &&
           cJSON_AddStringToObject(decoder, "prefix", "##");
}

quip_status qp_json_from_gguf_wordpiece(cJSON **json, struct format *gguf, quip_error *error)
{
    struct wordpiece_source s = { .gguf = gguf, .error = error, .json = cJSON_CreateObject() };
    cJSON *model = cJSON_AddObjectToObject(s.json, "model");
    s.vocab = cJSON_AddObjectToObject(model, "vocab");
    s.added = cJSON_AddArrayToObject(s.json, "added_tokens");
    quip_status status = qp_gguf_find_lists(gguf, &s.lists, error);
    for (int i = 0; i < N_SPECIALS; i++)
        s.ids[i] = special_id(gguf, (enum special)i);
    if (!status && (!s.vocab || !s.added || !cJSON_AddStringToObject(model, "type", "WordPiece")))
        status = fail_json(&s);
    if (!status)
        status = add_pieces(&s);
    if (!status)
        status = add_normalizer(&s);
    if (!status && !add_others(&s, model))
        status = fail_json(&s);
    if (status)
        cJSON_Delete(s.json);
    else
        *json = s.json;
    return status;
}
