/* wordpiece_gguf.c: BERT's vocabulary in GGUF metadata -> what a tokenizer.json would say.
 * In:  the metadata of a tokenizer of kind "bert". There a piece that begins a word begins with
 *      U+2581, and one that continues a word is written without its "##"; control tokens are as
 *      they are.
 * Out: the JSON of the same tokenizer.
 *
 * Older files do not say whether text becomes lower case. Then the vocabulary must not have capital
 * letters. */
#include "convert/gguf_vocabulary.h"
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
    struct gguf_json base;
    int ids[N_SPECIALS];
    char specials[N_SPECIALS][64]; // their texts; "": not found yet
    char capital[64];              // a piece with a capital letter; "": none
};

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
    return qp_gguf_json_add_special(&s->base, id, text);
}

/* "\u2581word" is "word", and "ing" is "##ing"; U+2581 alone can only be "##\u2581". */
static quip_status add_piece(struct wordpiece_source *s, const struct gguf_piece *p)
{
    static const char mark[] = "\xe2\x96\x81";
    const bool begins_word = p->n_text > 3 && memcmp(p->text, mark, 3) == 0;
    const bool is_control = qp_gguf_is_special(p);
    const size_t skipped = begins_word && !is_control ? 3 : 0, n = p->n_text - skipped;
    char *text = malloc(n + 3);
    if (!text)
        return qp_gguf_json_fail_memory(&s->base);
    const size_t n_mark = begins_word || is_control ? 0 : 2;
    memcpy(text, "##", n_mark);
    memcpy(text + n_mark, p->text + skipped, n);
    text[n_mark + n] = 0;
    for (size_t i = 0; i < n && !is_control && !s->capital[0]; i++)
        if (text[n_mark + i] >= 'A' && text[n_mark + i] <= 'Z')
            snprintf(s->capital, sizeof s->capital, "%s", text);
    const bool ok = cJSON_AddNumberToObject(s->base.vocab, text, p->id) &&
                    (!is_control || add_control(s, p->id, text));
    free(text);
    return ok ? QUIP_OK : qp_gguf_json_fail_memory(&s->base);
}

static quip_status add_pieces(struct wordpiece_source *s)
{
    struct gguf_piece piece = { 0 };
    quip_status status = QUIP_OK;
    for (int i = 0; i < s->base.lists.n && !status; i++) {
        status = qp_gguf_json_next_piece(&s->base, &piece);
        if (!status && piece.type != PIECE_UNUSED) // which fills up the rows of the embedding
            status = add_piece(s, &piece);
    }
    return status;
}

static quip_status check_specials(const struct wordpiece_source *s)
{
    for (int i = 0; i < N_SPECIALS; i++)
        if (!s->specials[i][0])
            return qp_fail(s->base.error, QUIP_E_FORMAT,
                           "%s: its token %d is not a special token; expected by %s",
                           s->base.gguf->file->name, s->ids[i], special_keys[i].keys[0]);
    return QUIP_OK;
}

/* ---- the other parts ---- */

/* Whether text becomes lower case, and accents are stripped: a switch, or the vocabulary. */
static quip_status add_normalizer(struct wordpiece_source *s)
{
    const struct metadata *lower =
        qp_format_find_metadata(s->base.gguf, "tokenizer.ggml.normalizer.lowercase");
    const struct metadata *strip =
        qp_format_find_metadata(s->base.gguf, "tokenizer.ggml.normalizer.strip_accents");
    if (!lower && s->capital[0])
        return qp_fail(s->base.error, QUIP_E_UNSUPPORTED,
                       "%s: does not say whether text becomes lower case "
                       "(tokenizer.ggml.normalizer.lowercase), and its vocabulary has pieces such "
                       "as \"%s\"; take a newer GGUF file, or give the folder with the model's "
                       "tokenizer.json as --tokenizer FOLDER",
                       s->base.gguf->file->name, s->capital);
    const bool is_lower = !lower || (lower->type == METADATA_INT && lower->i != 0);
    cJSON *steps = cJSON_AddObjectToObject(s->base.json, "normalizer");
    const bool ok = cJSON_AddStringToObject(steps, "type", "BertNormalizer") &&
                    cJSON_AddBoolToObject(steps, "lowercase", is_lower) &&
                    (!strip || cJSON_AddBoolToObject(steps, "strip_accents",
                                                     strip->type == METADATA_INT && strip->i != 0));
    return ok ? QUIP_OK : qp_gguf_json_fail_memory(&s->base);
}

static bool add_frame(struct wordpiece_source *s, cJSON *post, const char *key,
                      enum special special)
{
    cJSON *pair = cJSON_AddArrayToObject(post, key);
    return pair && cJSON_AddItemToArray(pair, cJSON_CreateString(s->specials[special])) &&
           cJSON_AddItemToArray(pair, cJSON_CreateNumber(s->ids[special]));
}

/* llama.cpp has other switches for the tokens around a text, but not for this kind. */
static bool add_others(struct wordpiece_source *s)
{
    cJSON *post = cJSON_AddObjectToObject(s->base.json, "post_processor");
    cJSON *pre = cJSON_AddObjectToObject(s->base.json, "pre_tokenizer");
    cJSON *decoder = cJSON_AddObjectToObject(s->base.json, "decoder");
    return cJSON_AddStringToObject(s->base.model, "continuing_subword_prefix", "##") &&
           cJSON_AddStringToObject(s->base.model, "unk_token", s->specials[SPECIAL_UNK]) &&
           cJSON_AddStringToObject(post, "type", "BertProcessing") &&
           add_frame(s, post, "cls", SPECIAL_CLS) && add_frame(s, post, "sep", SPECIAL_SEP) &&
           cJSON_AddStringToObject(pre, "type", "BertPreTokenizer") &&
           cJSON_AddStringToObject(decoder, "type", "WordPiece") &&
           cJSON_AddStringToObject(decoder, "prefix", "##");
}

quip_status qp_json_from_gguf_wordpiece(cJSON **json, struct format *gguf, quip_error *error)
{
    struct wordpiece_source s = { .capital = "" };
    quip_status status =
        qp_gguf_json_open(&s.base, gguf, false, "WordPiece", cJSON_CreateObject(), error);
    for (int i = 0; i < N_SPECIALS; i++)
        s.ids[i] = special_id(gguf, (enum special)i);
    if (!status)
        status = add_pieces(&s);
    if (!status)
        status = check_specials(&s);
    if (!status)
        status = add_normalizer(&s);
    if (!status && !add_others(&s))
        status = qp_gguf_json_fail_memory(&s.base);
    return qp_gguf_json_close(&s.base, status, json);
}
