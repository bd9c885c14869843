/* chat_source.c: the chat templates of a checkpoint.
 * In:  chat_template.jinja and additional_chat_templates/, or tokenizer_config.json (a text or a
 *      list of named ones), or chat_template.json; tokenizer.chat_template of GGUF.
 * Out: Jinja sources, and the texts of special tokens, which templates print.
 *
 * A file of its own replaces all that the JSON files say, named templates too, as in transformers.
 */
#define _POSIX_C_SOURCE 200809L // glob
#include "convert/chat_source.h"
#include "convert/json.h"
#include "jinja/jinja.h"

#include <glob.h>
#include <stdlib.h>
#include <string.h>

void qp_chat_sources_close(struct chat_sources *chat)
{
    for (int i = 0; i < chat->n; i++)
        qp_bytes_close(&chat->list[i].source);
    qp_bytes_close(&chat->tokens);
    chat->n = 0;
}

const struct bytes *qp_chat_sources_own(const struct chat_sources *chat)
{
    for (int i = 0; i < chat->n; i++)
        if (!chat->list[i].name[0])
            return &chat->list[i].source;
    return NULL;
}

void qp_chat_sources_drop_own(struct chat_sources *chat)
{
    for (int i = 0; i < chat->n; i++)
        if (!chat->list[i].name[0]) {
            qp_bytes_close(&chat->list[i].source);
            chat->list[i] = chat->list[--chat->n];
            chat->list[chat->n].source = (struct bytes){ 0 };
            return;
        }
}

/* "default" is the first one. A second source of a name replaces the one before. */
static quip_status add_source(struct chat_sources *chat, const char *name, const void *text,
                              size_t n, quip_error *error)
{
    int i = 0;
    if (strcmp(name, "default") == 0)
        name = "";
    if (n > JINJA_MAX_SOURCE)
        n = JINJA_MAX_SOURCE + 1; // it will be refused
    while (i < chat->n && strcmp(chat->list[i].name, name) != 0)
        i++;
    if (i == MAX_CHAT_SOURCES || strlen(name) >= sizeof chat->list[i].name)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the checkpoint has more than %d chat templates, or one with a long name",
                       MAX_CHAT_SOURCES);
    struct chat_source *source = &chat->list[i];
    chat->n += i == chat->n;
    source->source.n = 0;
    memcpy(source->name, name, strlen(name) + 1);
    return qp_bytes_append(&source->source, text, n) && qp_bytes_append(&source->source, "", 1) &&
                   source->source.n--
               ? QUIP_OK
               : qp_fail_memory(error, "the chat template", n);
}

static quip_status add_file(struct chat_sources *chat, const char *name, const char *path,
                            quip_error *error)
{
    struct file file = { 0 };
    struct bytes text = { 0 };
    quip_status status = qp_file_open(&file, path, error);
    const size_t n = file.size > JINJA_MAX_SOURCE ? JINJA_MAX_SOURCE + 1 : (size_t)file.size;
    if (!status && !qp_bytes_reserve(&text, n + 1))
        status = qp_fail_memory(error, path, n);
    if (!status && n > 0 && file.size <= JINJA_MAX_SOURCE)
        status = qp_file_read(&file, 0, text.data, n, error);
    if (!status)
        status = add_source(chat, name, text.data, n, error);
    qp_bytes_close(&text);
    qp_file_close(&file);
    return status;
}

/* additional_chat_templates/NAME.jinja */
static quip_status add_folder(struct chat_sources *chat, const char *folder, quip_error *error)
{
    char *pattern = qp_pattern_in(folder, "additional_chat_templates/*.jinja");
    glob_t found = { 0 };
    quip_status status = pattern ? QUIP_OK : qp_fail_memory(error, "a path", strlen(folder));
    if (!status && glob(pattern, 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc && !status; i++) {
            char name[64];
            const char *file = qp_path_name(found.gl_pathv[i]);
            snprintf(name, sizeof name, "%.*s", (int)(strlen(file) - strlen(".jinja")), file);
            status = add_file(chat, name, found.gl_pathv[i], error);
        }
    globfree(&found);
    free(pattern);
    return status;
}

/* A text, or a list of {"name", "template"}. */
static quip_status add_json(struct chat_sources *chat, const cJSON *item, quip_error *error)
{
    quip_status status = QUIP_OK;
    const cJSON *named;
    if (cJSON_IsString(item))
        return add_source(chat, "", item->valuestring, strlen(item->valuestring), error);
    const cJSON *list = cJSON_IsArray(item) ? item : NULL;
    cJSON_ArrayForEach(named, list)
    {
        const char *name = qp_json_text(named, "name"), *text = qp_json_text(named, "template");
        if (!status && text[0])
            status = add_source(chat, name, text, strlen(text), error);
    }
    return status;
}

static const char *const token_keys[] = { "bos_token", "eos_token", "unk_token", "pad_token",
                                          "sep_token", "cls_token", "mask_token" };

static bool put_token(struct bytes *out, const char *key, const char *text, size_t n)
{
    return n == 0 || (qp_bytes_printf(out, "%s\"%s\": ", out->n > 1 ? ", " : "", key) &&
                      qp_jinja_quote(out, text, n));
}

/* A token is a text, or an object with its text in "content". */
static const char *token_text(const cJSON *config, const char *key)
{
    const cJSON *item = qp_json_item(config, key);
    return cJSON_IsString(item) ? item->valuestring : qp_json_text(item, "content");
}

static quip_status add_json_files(struct chat_sources *chat, const struct checkpoint *c,
                                  quip_error *error)
{
    cJSON *processor = NULL;
    quip_status status =
        qp_json_in_folder(&processor, c->sources.folder, "chat_template.json", error);
    if (!status)
        status = add_json(chat, qp_json_item(processor, "chat_template"), error);
    if (!status)
        status = add_json(chat, qp_json_item(c->tokenizer_config, "chat_template"), error);
    cJSON_Delete(processor);
    return status;
}

static quip_status read_hf(struct chat_sources *chat, struct checkpoint *c, quip_error *error)
{
    const char *folder = c->sources.folder;
    char *own = qp_path_join(folder, "chat_template.jinja");
    cJSON *map = NULL;
    quip_status status = own ? QUIP_OK : qp_fail_memory(error, "a path", strlen(folder));
    if (!status && qp_path_exists(own))
        status = add_file(chat, "", own, error);
    else if (!status)
        status = add_json_files(chat, c, error);
    if (!status)
        status = add_folder(chat, folder, error);
    if (!status)
        status = qp_json_in_folder(&map, folder, "special_tokens_map.json", error);
    bool ok = qp_bytes_append(&chat->tokens, "{", 1);
    for (size_t i = 0; i < QP_COUNT(token_keys) && ok; i++) {
        const char *text = token_text(c->tokenizer_config, token_keys[i]);
        text = text[0] ? text : token_text(map, token_keys[i]);
        ok = put_token(&chat->tokens, token_keys[i], text, strlen(text));
    }
    ok = ok && qp_bytes_append(&chat->tokens, "}", 1);
    cJSON_Delete(map);
    free(own);
    return !status && !ok ? qp_fail_memory(error, "the special tokens", chat->tokens.n) : status;
}

static quip_status read_gguf(struct chat_sources *chat, struct format *g,
                             const struct tokenizer *tokenizer, quip_error *error)
{
    static const char key[] = "tokenizer.chat_template";
    static const char *const ids[] = { "bos", "eos", "unknown", "padding" };
    static const char *const keys[] = { "bos_token", "eos_token", "unk_token", "pad_token" };
    quip_status status = QUIP_OK;
    for (int i = 0; i < g->n_metadata && !status; i++) {
        const struct metadata *m = &g->metadata[i];
        const uint8_t *text;
        size_t n;
        const char end = strncmp(m->name, key, sizeof key - 1) == 0 ? m->name[sizeof key - 1] : 'x';
        if (m->type != METADATA_BYTES || (end && end != '.'))
            continue;
        if (!(status = qp_format_bytes(g, m, &text, &n, error)))
            status = add_source(chat, end ? m->name + sizeof key : "", text, n, error);
    }
    bool ok = qp_bytes_append(&chat->tokens, "{", 1);
    for (size_t i = 0; i < QP_COUNT(ids) && ok; i++) {
        char name[60];
        snprintf(name, sizeof name, "tokenizer.ggml.%s_token_id", ids[i]);
        const struct metadata *m = qp_format_find_metadata(g, name);
        size_t n = 0;
        const char *piece = m && m->type == METADATA_INT && m->i >= 0 && m->i < INT32_MAX
                                ? qp_tokenizer_piece(tokenizer, (quip_token)m->i, &n)
                                : NULL;
        ok = !piece || put_token(&chat->tokens, keys[i], piece, n);
    }
    ok = ok && qp_bytes_append(&chat->tokens, "}", 1);
    return !status && !ok ? qp_fail_memory(error, "the special tokens", chat->tokens.n) : status;
}

quip_status qp_chat_sources_read(struct chat_sources *chat, struct checkpoint *c,
                                 const struct tokenizer *tokenizer, quip_error *error)
{
    return c->is_gguf ? read_gguf(chat, &c->shards[0].format, tokenizer, error)
                      : read_hf(chat, c, error);
}
