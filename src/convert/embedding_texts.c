/* embedding_texts.c: how a checkpoint prepares a text.
 * In:  the post-processor of the tokenizer, sentence_bert_config.json and
 *      config_sentence_transformers.json; or the metadata of a GGUF file, or the post-processor of
 *      another tokenizer, which the caller gave.
 * Out: lines of the metadata `quip.embedding`: the tokens around every text, the longest text, the
 *      prompts. */
#include "convert/embedding_texts.h"
#include "convert/json.h"
#include "convert/tokenizer_import.h"

#include <stdlib.h>
#include <string.h>

struct text_source {
    const struct checkpoint *checkpoint;
    const struct hparams *hparams;
    const char *tokenizer; // path of another one; NULL: the checkpoint's own
    struct bytes *text;    // quip.embedding
    quip_error *error;
};

static quip_status fail_text_source(const struct text_source *s, const char *file, const char *what)
{
    return qp_fail(s->error, QUIP_E_UNSUPPORTED, "%s/%s: %s", s->checkpoint->sources.folder, file,
                   what);
}

static quip_status fail_lines(const struct text_source *s)
{
    return qp_fail_memory(s->error, "quip.embedding", s->text->n);
}

/* ---- tokens around every text ---- */

static bool put_ids(struct bytes *out, const char *key, const int *ids, int n)
{
    bool ok = n == 0 || qp_bytes_printf(out, "%s ", key);
    for (int i = 0; i < n; i++)
        ok = ok && qp_bytes_printf(out, i + 1 < n ? "%d," : "%d\n", ids[i]);
    return ok;
}

/* The tokenizer.json of a folder, or what it would say about a vocab.txt; NULL if there is neither.
 */
static quip_status read_folder_json(const struct text_source *s, const char *folder,
                                    const cJSON *config, cJSON **json)
{
    quip_status status = qp_json_in_folder(json, folder, "tokenizer.json", s->error);
    if (status || *json)
        return status;
    char *path = qp_path_join(folder, "vocab.txt");
    if (!path)
        return fail_lines(s);
    if (qp_path_exists(path))
        status = qp_json_read_vocab_txt(json, path, config, s->error);
    free(path);
    return status;
}

/* The same of another tokenizer than the checkpoint's own. */
static quip_status read_other_json(const struct text_source *s, cJSON **json)
{
    const char *path = s->tokenizer;
    const bool is_folder = qp_path_is_folder(path);
    cJSON *config = NULL;
    quip_status status = is_folder
                             ? qp_json_in_folder(&config, path, "tokenizer_config.json", s->error)
                             : qp_json_beside(&config, path, "tokenizer_config.json", s->error);
    if (!status && is_folder)
        status = read_folder_json(s, path, config, json);
    else if (!status && qp_path_is_json(path))
        status = qp_json_read(json, path, s->error);
    else if (!status && strcmp(qp_path_name(path), "vocab.txt") == 0)
        status = qp_json_read_vocab_txt(json, path, config, s->error);
    cJSON_Delete(config);
    return status;
}

static quip_status read_tokenizer_json(const struct text_source *s, cJSON **json)
{
    const struct checkpoint *c = s->checkpoint;
    return s->tokenizer ? read_other_json(s, json)
           : c->is_gguf ? qp_json_from_gguf(json, &c->shards[0].format, s->error)
                        : read_folder_json(s, c->sources.folder, c->tokenizer_config, json);
}

/* Whether a text ends with eos, where no tokenizer.json says it: a tokenizer.model, a GGUF file.
 * Older GGUF files of models that need it do not say it, so its absence means nothing. */
static quip_status read_adds_eos(const struct text_source *s, bool *adds_eos)
{
    const struct checkpoint *c = s->checkpoint;
    *adds_eos = qp_json_flag(c->tokenizer_config, "add_eos_token", false);
    if (!c->is_gguf)
        return QUIP_OK;
    const struct metadata *m =
        qp_format_find_metadata(&c->shards[0].format, "tokenizer.ggml.add_eos_token");
    *adds_eos = m && m->type == METADATA_INT && m->i != 0;
    return m ? QUIP_OK
             : qp_fail(s->error, QUIP_E_UNSUPPORTED,
                       "%s: is an embedding model, but does not say whether a text ends with the "
                       "token eos (tokenizer.ggml.add_eos_token); take a newer GGUF file, or give "
                       "the folder with the model's tokenizer.json as --tokenizer FOLDER",
                       c->path);
}

/* transformers gives the normalizer of a BertTokenizer the switches of tokenizer_config.json. */
static quip_status check_case(const struct text_source *s, const cJSON *json)
{
    static const char *const keys[][2] = { { "do_lower_case", "lowercase" },
                                           { "strip_accents", "strip_accents" } };
    const cJSON *normalizer = qp_json_item(json, "normalizer");
    if (!qp_json_has_type(normalizer, "BertNormalizer") || s->tokenizer || s->checkpoint->is_gguf)
        return QUIP_OK;
    const bool is_lower = qp_json_flag(normalizer, "lowercase", true);
    for (size_t i = 0; i < QP_COUNT(keys); i++) {
        const bool is_on = qp_json_flag(normalizer, keys[i][1], is_lower);
        if (qp_json_flag(s->checkpoint->tokenizer_config, keys[i][0], is_on) != is_on)
            return qp_fail(
                s->error, QUIP_E_UNSUPPORTED,
                "%s/tokenizer_config.json: %s is %s, but in tokenizer.json it is %s; make "
                "them equal",
                s->checkpoint->sources.folder, keys[i][0], is_on ? "false" : "true",
                is_on ? "true" : "false");
    }
    return QUIP_OK;
}

static quip_status read_frame(struct text_source *s)
{
    cJSON *json = NULL;
    struct text_frame f = { 0 };
    const struct hparams *h = s->hparams;
    bool adds_eos = false;
    quip_status status = read_tokenizer_json(s, &json);
    const cJSON *post = qp_json_item(json, "post_processor");
    if (!status)
        status = check_case(s, json);
    if (!status && post && !qp_json_frame(&f, post))
        status = qp_refuse_post(post, s->tokenizer ? s->tokenizer : s->checkpoint->sources.folder,
                                s->error);
    if (!status && !json && !(status = read_adds_eos(s, &adds_eos))) {
        if (h->has_bos)
            f.begin[f.n_begin++] = h->bos;
        if (h->eos >= 0 && adds_eos)
            f.end[f.n_end++] = h->eos;
    }
    if (!status && (!put_ids(s->text, "text_begin", f.begin, f.n_begin) ||
                    !put_ids(s->text, "text_end", f.end, f.n_end)))
        status = fail_lines(s);
    cJSON_Delete(json);
    return status;
}

/* ---- length and prompts ---- */

static int json_count(const cJSON *object, const char *key)
{
    const cJSON *item = qp_json_item(object, key);
    return cJSON_IsNumber(item) && item->valuedouble >= 1 && item->valuedouble < 1 << 20
               ? item->valueint
               : 0;
}

/* Keys of sentence_bert_config.json that change how a text is read; null and {} do not. */
static quip_status check_switches(const struct text_source *s, const cJSON *json, const char *name)
{
    static const char *const keys[] = {
        "model_args",   "model_kwargs",    "tokenizer_args",    "processor_kwargs",
        "config_args",  "config_kwargs",   "processing_kwargs", "tokenizer_name_or_path",
        "query_length", "document_length", "query_expansion"
    };
    static const char *const harmless[] = {
        "attn_implementation", "device_map", "dtype",       "low_cpu_mem_usage",
        "padding_side",        "revision",   "torch_dtype", "trust_remote_code",
        "use_cache",           "use_fast"
    };
    const char *part = "", *task = qp_json_text(json, "transformer_task");
    const char *output = qp_json_text(json, "module_output_name");
    const char *what = *task && strcmp(task, "feature-extraction") != 0     ? "transformer_task"
                       : *output && strcmp(output, "token_embeddings") != 0 ? "module_output_name"
                                                                            : NULL;
    const cJSON *text = qp_json_item(qp_json_item(json, "modality_config"), "text");
    const char *state = qp_json_text(text, "method_output_name");
    if (*state && strcmp(state, "last_hidden_state") != 0)
        what = "modality_config";
    for (size_t i = 0; i < QP_COUNT(keys) && !what; i++) {
        const cJSON *value = qp_json_item(json, keys[i]);
        const cJSON *first = cJSON_IsObject(value) ? value->child : NULL;
        for (size_t k = 0; k < QP_COUNT(harmless) && first;)
            if (strcmp(first->string, harmless[k++]) == 0) {
                first = first->next;
                k = 0;
            }
        if (value && (first || !cJSON_IsObject(value))) {
            what = keys[i];
            part = first ? first->string : "";
        }
    }
    return what
               ? qp_fail(s->error, QUIP_E_UNSUPPORTED,
                         "%s/%s: its %s%s%.60s changes how texts are read, which is not supported; "
                         "remove it, if the model does not need it",
                         s->checkpoint->sources.folder, name, what, *part ? "." : "", part)
               : QUIP_OK;
}

/* The first of the names that sentence-transformers tries. */
static quip_status read_limits(const struct text_source *s, cJSON **json, char name[64])
{
    static const char *const kinds[] = { "bert",   "roberta",     "distilbert", "camembert",
                                         "albert", "xlm-roberta", "xlnet" };
    quip_status status = QUIP_OK;
    for (size_t i = 0; i < QP_COUNT(kinds) && !status && !*json; i++) {
        snprintf(name, 64, "sentence_%s_config.json", kinds[i]);
        status = qp_json_in_folder(json, s->checkpoint->sources.folder, name, s->error);
    }
    return status ? status : check_switches(s, *json, name);
}

static quip_status read_length(struct text_source *s)
{
    cJSON *json = NULL;
    const struct checkpoint *c = s->checkpoint;
    char name[64];
    quip_status status = read_limits(s, &json, name);
    int n = json_count(json, "max_seq_length");
    if (n == 0)
        n = json_count(c->tokenizer_config, "model_max_length");
    if (s->hparams->raw.n_context_max > 0 && n > s->hparams->raw.n_context_max)
        n = s->hparams->raw.n_context_max;
    if (!status && qp_json_flag(json, "do_lower_case", false) &&
        !qp_json_flag(c->tokenizer_config, "do_lower_case", false))
        status =
            fail_text_source(s, name,
                             "do_lower_case is true for a tokenizer that does not do it, which is "
                             "not supported");
    if (!status && strcmp(qp_json_text(c->tokenizer_config, "truncation_side"), "left") == 0)
        status = fail_text_source(s, "tokenizer_config.json",
                                  "truncation_side is \"left\", which is not supported: longer "
                                  "texts are cut at their end");
    if (!status && n > 0 && !qp_bytes_printf(s->text, "n_tokens_max %d\n", n))
        status = fail_lines(s);
    cJSON_Delete(json);
    return status;
}

/* Append a text in which the line end, the backslash, and with is_name the space are escaped. */
static bool put_escaped(struct bytes *out, const char *text, bool is_name)
{
    bool ok = true;
    for (; *text && ok; text++)
        ok = *text == '\n'             ? qp_bytes_append(out, "\\n", 2)
             : *text == '\\'           ? qp_bytes_append(out, "\\\\", 2)
             : *text == ' ' && is_name ? qp_bytes_append(out, "\\s", 2)
                                       : qp_bytes_append(out, text, 1);
    return ok;
}

static bool put_prompt(struct bytes *out, const cJSON *prompt)
{
    return qp_bytes_append_text(out, "prompt ") && put_escaped(out, prompt->string, true) &&
           qp_bytes_append(out, " ", 1) && put_escaped(out, prompt->valuestring, false) &&
           qp_bytes_append(out, "\n", 1);
}

static quip_status put_prompts(struct text_source *s, const cJSON *json)
{
    const cJSON *prompts = qp_json_item(json, "prompts");
    const char *chosen = qp_json_text(json, "default_prompt_name");
    int n = 0;
    bool is_found = !*chosen;
    for (const cJSON *i = prompts ? prompts->child : NULL; i; i = i->next, n++) {
        if (!cJSON_IsString(i) || !*i->string || n == MAX_EMBED_PROMPTS)
            return fail_text_source(s, "config_sentence_transformers.json",
                                    "its prompts are not at most 64 texts with names");
        if (!put_prompt(s->text, i))
            return fail_lines(s);
        if (*chosen && strcmp(i->string, chosen) == 0) {
            is_found = true;
            if (!qp_bytes_printf(s->text, "default_prompt %d\n", n))
                return fail_lines(s);
        }
    }
    return is_found ? QUIP_OK
                    : fail_text_source(s, "config_sentence_transformers.json",
                                       "its default_prompt_name is not the name of a prompt");
}

static quip_status read_prompts(struct text_source *s)
{
    cJSON *json = NULL;
    quip_status status = qp_json_in_folder(&json, s->checkpoint->sources.folder,
                                           "config_sentence_transformers.json", s->error);
    if (!status && json)
        status = put_prompts(s, json);
    const char *kind = qp_json_text(json, "model_type");
    if (!status && *kind && strcmp(kind, "SentenceTransformer") != 0)
        status = qp_fail(s->error, QUIP_E_UNSUPPORTED,
                         "%s/config_sentence_transformers.json: model_type is \"%.40s\"; must be "
                         "SentenceTransformer",
                         s->checkpoint->sources.folder, kind);
    if (!status && qp_json_item(json, "truncate_dim"))
        status = fail_text_source(s, "config_sentence_transformers.json",
                                  "truncate_dim is not supported; remove it, and say quip embed "
                                  "--dimensions instead");
    cJSON_Delete(json);
    return status;
}

quip_status qp_embedding_texts_read(struct bytes *text, const struct checkpoint *c,
                                    const struct hparams *h, const char *tokenizer,
                                    quip_error *error)
{
    struct text_source s = {
        .checkpoint = c, .hparams = h, .tokenizer = tokenizer, .text = text, .error = error
    };
    quip_status status = read_frame(&s);
    if (!status && !c->is_gguf)
        status = read_length(&s);
    return status || c->is_gguf ? status : read_prompts(&s);
}
