/* unigram_gguf.c: XLM-RoBERTa's vocabulary in GGUF metadata -> what a tokenizer.json would say.
 * In:  the metadata of a tokenizer of kind "t5": pieces with scores, the charsmap of SentencePiece.
 * Out: the JSON of the same tokenizer: a unigram model over words between white space.
 *
 * Switches that another unigram tokenizer could have must be those of XLM-RoBERTa. */
#include "convert/gguf_vocabulary.h"
#include "convert/tokenizer_import.h"

#include <stdlib.h>
#include <string.h>

#define SYMBOL "\xe2\x96\x81" // U+2581

struct unigram_source {
    struct gguf_json base;
    int unk, bos, eos; // bos, eos: -1 if texts do not have it
    bool has_gap;      // an id without a piece was seen
};

static quip_status refuse(const struct unigram_source *s, const char *key, const char *what)
{
    return qp_fail(s->base.error, QUIP_E_UNSUPPORTED,
                   "%s: its unigram tokenizer %s tokenizer.ggml.%s; give the folder with the "
                   "model's tokenizer.json as --tokenizer FOLDER",
                   s->base.gguf->file->name, what, key);
}

/* ---- switches ---- */

static const struct metadata *find_key(const struct unigram_source *s, const char *name)
{
    char key[80];
    snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    const struct metadata *m = qp_format_find_metadata(s->base.gguf, key);
    return m && m->type == METADATA_INT ? m : NULL;
}

static int find_id(const struct unigram_source *s, const char *name)
{
    const struct metadata *m = find_key(s, name);
    return m && m->i >= 0 && m->i < s->base.lists.n ? (int)m->i : -1;
}

static quip_status read_switches(struct unigram_source *s)
{
    static const struct {
        const char *name;
        bool expected, may_lack;
    } switches[] = { { "add_space_prefix", true, false },
                     { "remove_extra_whitespaces", true, false },
                     { "escape_whitespaces", true, true },
                     { "treat_whitespace_as_suffix", false, true } };
    for (size_t i = 0; i < QP_COUNT(switches); i++) {
        const struct metadata *m = find_key(s, switches[i].name);
        if (m ? (m->i != 0) != switches[i].expected : !switches[i].may_lack)
            return refuse(s, switches[i].name, m ? "has another" : "has no");
    }
    const struct metadata *add_bos = find_key(s, "add_bos_token");
    const struct metadata *add_eos = find_key(s, "add_eos_token");
    if (!add_bos || !add_eos)
        return refuse(s, add_bos ? "add_eos_token" : "add_bos_token", "has no");
    s->unk = find_id(s, "unknown_token_id");
    s->bos = add_bos->i ? find_id(s, "bos_token_id") : -1;
    s->eos = add_eos->i ? find_id(s, "eos_token_id") : -1;
    if (s->unk < 0 || (add_bos->i && s->bos < 0) || (add_eos->i && s->eos < 0))
        return refuse(s, "unknown_token_id, bos_token_id or eos_token_id", "has no");
    return QUIP_OK;
}

/* ---- pieces ---- */

static quip_status add_piece(struct unigram_source *s, const struct gguf_piece *p)
{
    char *text = malloc(p->n_text + 1);
    if (!text)
        return qp_gguf_json_fail_memory(&s->base);
    memcpy(text, p->text, p->n_text);
    text[p->n_text] = 0;
    bool ok = true;
    if (!s->has_gap) {
        cJSON *pair = cJSON_CreateArray();
        ok = cJSON_AddItemToArray(s->base.vocab, pair) &&
             cJSON_AddItemToArray(pair, cJSON_CreateString(text)) &&
             cJSON_AddItemToArray(pair, cJSON_CreateNumber(p->score));
    }
    if (qp_gguf_is_special(p))
        ok = ok && qp_gguf_json_add_special(&s->base, p->id, text);
    free(text);
    return ok ? QUIP_OK : qp_gguf_json_fail_memory(&s->base);
}

/* Ids without a piece may follow the vocabulary, and special tokens these. */
static quip_status add_pieces(struct unigram_source *s)
{
    struct gguf_piece piece = { 0 };
    quip_status status = QUIP_OK;
    for (int i = 0; i < s->base.lists.n && !status; i++) {
        if ((status = qp_gguf_json_next_piece(&s->base, &piece)))
            return status;
        if (piece.type == PIECE_UNUSED)
            s->has_gap = true;
        else if (piece.type == PIECE_NORMAL && s->has_gap)
            status = qp_gguf_json_fail_added(&s->base, &piece);
        else
            status = add_piece(s, &piece);
    }
    return status;
}

/* ---- the other parts ---- */

static bool append_base64(struct bytes *out, const uint8_t *data, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bool ok = true;
    for (size_t i = 0; i < n && ok; i += 3) {
        const uint32_t bits = (uint32_t)data[i] << 16 | (i + 1 < n ? data[i + 1] : 0u) << 8 |
                              (i + 2 < n ? data[i + 2] : 0u);
        const char group[4] = { digits[bits >> 18], digits[bits >> 12 & 63],
                                i + 1 < n ? digits[bits >> 6 & 63] : '=',
                                i + 2 < n ? digits[bits & 63] : '=' };
        ok = qp_bytes_append(out, group, sizeof group);
    }
    return ok;
}

static quip_status add_charsmap(struct unigram_source *s)
{
    const struct metadata *m =
        qp_format_find_metadata(s->base.gguf, "tokenizer.ggml.precompiled_charsmap");
    struct metadata_cursor c = { 0 };
    struct bytes map = { 0 }, text = { 0 };
    if (!m)
        return QUIP_OK;
    bool ok = true;
    while (ok && m->type == METADATA_ARRAY && qp_metadata_next(s->base.gguf, m, &c))
        ok = qp_bytes_append(&map, &(uint8_t){ (uint8_t)c.i }, 1);
    cJSON *steps = cJSON_AddObjectToObject(s->base.json, "normalizer");
    ok = ok && append_base64(&text, map.data, map.n) && qp_bytes_append(&text, "", 1) &&
         cJSON_AddStringToObject(steps, "type", "Precompiled") &&
         cJSON_AddStringToObject(steps, "precompiled_charsmap", (const char *)text.data);
    qp_bytes_close(&map);
    qp_bytes_close(&text);
    return ok ? QUIP_OK : qp_gguf_json_fail_memory(&s->base);
}

static bool add_metaspace(cJSON *part)
{
    return cJSON_AddStringToObject(part, "type", "Metaspace") &&
           cJSON_AddStringToObject(part, "replacement", SYMBOL) &&
           cJSON_AddStringToObject(part, "prepend_scheme", "always");
}

/* A special token of the template of a text. */
static bool add_around(cJSON *single, cJSON *tokens, const char *name, int id)
{
    cJSON *item = cJSON_CreateObject();
    if (!cJSON_AddItemToArray(single, item))
        return false;
    cJSON *special = cJSON_AddObjectToObject(item, "SpecialToken");
    cJSON *token = cJSON_AddObjectToObject(tokens, name);
    cJSON *ids = cJSON_AddArrayToObject(token, "ids");
    return cJSON_AddStringToObject(special, "id", name) &&
           cJSON_AddItemToArray(ids, cJSON_CreateNumber(id));
}

static bool add_template(struct unigram_source *s)
{
    cJSON *post = cJSON_AddObjectToObject(s->base.json, "post_processor");
    cJSON *tokens = cJSON_AddObjectToObject(post, "special_tokens");
    cJSON *single = cJSON_AddArrayToObject(post, "single"), *text = cJSON_CreateObject();
    if (s->bos >= 0 && !add_around(single, tokens, "bos", s->bos))
        text = NULL;
    return cJSON_AddItemToArray(single, text) && cJSON_AddObjectToObject(text, "Sequence") &&
           (s->eos < 0 || add_around(single, tokens, "eos", s->eos)) &&
           cJSON_AddStringToObject(post, "type", "TemplateProcessing");
}

static bool add_others(struct unigram_source *s)
{
    cJSON *pre = cJSON_AddObjectToObject(s->base.json, "pre_tokenizer");
    cJSON *steps = cJSON_AddArrayToObject(pre, "pretokenizers");
    cJSON *white = cJSON_CreateObject(), *metaspace = cJSON_CreateObject();
    const bool ok = cJSON_AddItemToArray(steps, white) && cJSON_AddItemToArray(steps, metaspace);
    return ok && cJSON_AddStringToObject(pre, "type", "Sequence") &&
           cJSON_AddStringToObject(white, "type", "WhitespaceSplit") && add_metaspace(metaspace) &&
           add_metaspace(cJSON_AddObjectToObject(s->base.json, "decoder")) &&
           cJSON_AddNumberToObject(s->base.model, "unk_id", s->unk) && add_template(s);
}

quip_status qp_json_from_gguf_unigram(cJSON **json, struct format *gguf, quip_error *error)
{
    struct unigram_source s = { .unk = -1 };
    quip_status status =
        qp_gguf_json_open(&s.base, gguf, true, "Unigram", cJSON_CreateArray(), error);
    if (!status)
        status = read_switches(&s);
    if (!status)
        status = add_pieces(&s);
    if (!status)
        status = add_charsmap(&s);
    if (!status && !add_others(&s))
        status = qp_gguf_json_fail_memory(&s.base);
    return qp_gguf_json_close(&s.base, status, json);
}
