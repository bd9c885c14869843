/* wordpiece_import.c: what BERT's tokenizers have that others do not.
 * In:  the normalizer and the model of a tokenizer.json; or a vocab.txt, the older form, with one
 *      piece a line.
 * Out: text steps; a vocab.txt becomes the JSON of the same tokenizer. */
#include "convert/json.h"
#include "convert/tokenizer_import.h"

#include <stdlib.h>
#include <string.h>

enum {
    DEFAULT_MAX_WORD_CHARS = 100 // max_input_chars_per_word
};

void qp_json_bert_steps(struct bpe_spec *spec, const cJSON *normalizer)
{
    const bool is_lower = qp_json_flag(normalizer, "lowercase", true);
    const bool strips = qp_json_flag(normalizer, "strip_accents", is_lower); // null: as lowercase
    const struct {
        bool is_on;
        enum text_step step;
    } steps[] = {
        { qp_json_flag(normalizer, "clean_text", true), STEP_BERT_CLEAN },
        { qp_json_flag(normalizer, "handle_chinese_chars", true), STEP_BERT_CHINESE },
        { strips, STEP_NFD },
        { strips, STEP_BERT_ACCENTS },
        { is_lower, STEP_LOWER_CASE },
    };
    for (size_t i = 0; i < QP_COUNT(steps); i++)
        if (steps[i].is_on && spec->n_steps < MAX_TEXT_STEPS - 1)
            spec->steps[spec->n_steps++] = (uint8_t)steps[i].step;
}

uint32_t qp_json_max_word_chars(const cJSON *model)
{
    if (!qp_json_has_type(model, "WordPiece"))
        return 0;
    const cJSON *max = qp_json_item(model, "max_input_chars_per_word");
    return cJSON_IsNumber(max) && max->valueint > 0 ? (uint32_t)max->valueint
                                                    : DEFAULT_MAX_WORD_CHARS;
}

/* ---- vocab.txt ---- */

/* Cut `text` into lines, each a piece whose id is its number. */
static bool add_lines(cJSON *vocab, char *text)
{
    int id = 0;
    for (char *line = text, *end; *line; line = end, id++) {
        size_t n = strcspn(line, "\n");
        end = line + n + (line[n] != 0);
        line[n] = 0;
        if (n > 0 && line[n - 1] == '\r')
            line[n - 1] = 0;
        if (!cJSON_AddNumberToObject(vocab, line, id))
            return false;
    }
    return true;
}

static bool add_special(cJSON *list, const cJSON *vocab, const char *text)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(vocab, text);
    if (!id)
        return true;
    cJSON *token = cJSON_CreateObject();
    return cJSON_AddItemToArray(list, token) &&
           cJSON_AddNumberToObject(token, "id", id->valueint) &&
           cJSON_AddStringToObject(token, "content", text) &&
           cJSON_AddTrueToObject(token, "special");
}

/* [text, id] of a special token, for a BertProcessing. */
static bool add_frame(cJSON *post, const char *key, const cJSON *vocab, const char *text)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(vocab, text);
    cJSON *pair = id ? cJSON_AddArrayToObject(post, key) : NULL;
    return !id || (pair && cJSON_AddItemToArray(pair, cJSON_CreateString(text)) &&
                   cJSON_AddItemToArray(pair, cJSON_CreateNumber(id->valueint)));
}

static const char *special_text(const cJSON *config, const char *key, const char *fallback)
{
    const char *text = qp_token_text(config, key);
    return text ? text : fallback;
}

static bool add_specials(cJSON *json, const cJSON *vocab, const cJSON *config)
{
    static const char *const names[][2] = { { "pad_token", "[PAD]" },
                                            { "unk_token", "[UNK]" },
                                            { "cls_token", "[CLS]" },
                                            { "sep_token", "[SEP]" },
                                            { "mask_token", "[MASK]" } };
    cJSON *list = cJSON_AddArrayToObject(json, "added_tokens");
    bool ok = list != NULL;
    for (size_t i = 0; i < QP_COUNT(names) && ok; i++)
        ok = add_special(list, vocab, special_text(config, names[i][0], names[i][1]));
    cJSON *post = cJSON_AddObjectToObject(json, "post_processor");
    return ok && cJSON_AddStringToObject(post, "type", "BertProcessing") &&
           add_frame(post, "cls", vocab, special_text(config, "cls_token", "[CLS]")) &&
           add_frame(post, "sep", vocab, special_text(config, "sep_token", "[SEP]"));
}

static bool add_normalizer(cJSON *json, const cJSON *config)
{
    cJSON *steps = cJSON_AddObjectToObject(json, "normalizer");
    const bool is_lower = qp_json_flag(config, "do_lower_case", true);
    return cJSON_AddStringToObject(steps, "type", "BertNormalizer") &&
           cJSON_AddBoolToObject(steps, "lowercase", is_lower) &&
           cJSON_AddBoolToObject(steps, "strip_accents",
                                 qp_json_flag(config, "strip_accents", is_lower)) &&
           cJSON_AddBoolToObject(steps, "handle_chinese_chars",
                                 qp_json_flag(config, "tokenize_chinese_chars", true));
}

/* A part of the JSON that has only a type. */
static cJSON *add_part(cJSON *json, const char *key, const char *type)
{
    cJSON *part = cJSON_AddObjectToObject(json, key);
    return cJSON_AddStringToObject(part, "type", type) ? part : NULL;
}

static bool fill_from_vocab_txt(cJSON *json, char *text, const cJSON *config)
{
    cJSON *model = add_part(json, "model", "WordPiece"), *decoder;
    cJSON *vocab = cJSON_AddObjectToObject(model, "vocab");
    return vocab && add_lines(vocab, text) &&
           cJSON_AddStringToObject(model, "continuing_subword_prefix", "##") &&
           cJSON_AddStringToObject(model, "unk_token",
                                   special_text(config, "unk_token", "[UNK]")) &&
           add_normalizer(json, config) && add_part(json, "pre_tokenizer", "BertPreTokenizer") &&
           (decoder = add_part(json, "decoder", "WordPiece")) &&
           cJSON_AddStringToObject(decoder, "prefix", "##") && add_specials(json, vocab, config);
}

cJSON *qp_json_from_vocab(char *text, const cJSON *config)
{
    cJSON *json = cJSON_CreateObject();
    if (json && fill_from_vocab_txt(json, text, config))
        return json;
    cJSON_Delete(json);
    return NULL;
}

quip_status qp_json_read_vocab_txt(cJSON **json, const char *path, const cJSON *config,
                                   quip_error *error)
{
    struct file file = { 0 };
    quip_status status = qp_file_open(&file, path, error);
    if (status)
        return status;
    const size_t n = (size_t)file.size;
    char *text = malloc(n + 1);
    if (!text)
        status = qp_fail_memory(error, "the vocabulary", n);
    else if (!(status = qp_file_read(&file, 0, text, n, error))) {
        text[n] = 0;
        if (memchr(text, 0, n))
            status = qp_fail(error, QUIP_E_FORMAT, "%s: is not a text", path);
        else if (!(*json = qp_json_from_vocab(text, config)))
            status = qp_fail_memory(error, "the vocabulary", n);
    }
    free(text);
    qp_file_close(&file);
    return status;
}
