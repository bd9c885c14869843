/* prompts.c: the chat prompts of a file.
 * In:  a LlmParameters proto: that of a model file, or the METADATA of a bundle.
 * Out: m->prompts: the first token, what ends an answer, and the texts around turns. A second proto
 *      replaces what it has. */
#include "format/protobuf.h"
#include "model/llm_parameters.h"
#include "model/model.h"

#include <assert.h>
#include <string.h>

void qp_prompts_add_stop(struct prompts *p, int64_t id)
{
    for (int i = 0; i < p->n_stop_ids; i++)
        if (p->stop_ids[i] == id)
            return;
    if (id >= 0 && id <= INT32_MAX && p->n_stop_ids < MAX_STOP_IDS)
        p->stop_ids[p->n_stop_ids++] = (quip_token)id;
}

/* A stop token is a piece, or else a text that ends the answer wherever it occurs. */
static quip_status add_stop(quip_model *m, const char *text, size_t n)
{
    struct prompts *p = &m->prompts;
    const quip_token id = qp_tokenizer_find(m->tokenizer, text, n);
    if (id >= 0)
        qp_prompts_add_stop(p, id);
    else if (n > 0 && p->n_stop_texts < MAX_STOP_IDS && !memchr(text, 0, n)) {
        if (!qp_bytes_append(&p->stop_texts, text, n) || !qp_bytes_append(&p->stop_texts, "", 1))
            return QUIP_E_MEMORY;
        p->n_stop_texts++;
    }
    return QUIP_OK;
}

/* Packed varints, or a single one. */
static void add_stop_ids(struct prompts *p, const struct proto_field *field)
{
    struct proto_reader r;
    uint64_t id;
    if (field->wire_type == 0)
        qp_prompts_add_stop(p, (int64_t)field->value);
    if (field->wire_type != 2)
        return;
    qp_proto_open(&r, field->data, field->n);
    while (qp_proto_varint(&r, &id))
        qp_prompts_add_stop(p, (int64_t)id);
}

static bool has_normalization(const struct proto_field *field, uint64_t wanted)
{
    struct proto_reader r;
    uint64_t value;
    if (field->wire_type == 0)
        return field->value == wanted;
    qp_proto_open(&r, field->data, field->n);
    while (field->wire_type == 2 && qp_proto_varint(&r, &value))
        if (value == wanted)
            return true;
    return false;
}

/* ---- templates ---- */

static quip_status keep_text(quip_model *m, const void *text, size_t n, size_t *at)
{
    *at = m->chat_text.n;
    if (!qp_bytes_append(&m->chat_text, text, n) || !qp_bytes_append(&m->chat_text, "", 1))
        return QUIP_E_MEMORY;
    return QUIP_OK;
}

/* A PromptTemplate; its prefix and suffix go to at[0] and at[1]. */
static quip_status read_turn(quip_model *m, const struct proto_field *message, size_t at[2])
{
    struct proto_reader r;
    struct proto_field field;
    size_t *offsets[] = { [TEMPLATE_SESSION_PREFIX] = &m->prompts.first_text,
                          [TEMPLATE_PREFIX] = &at[0],
                          [TEMPLATE_SUFFIX] = &at[1] };
    quip_status status = QUIP_OK;
    qp_proto_open(&r, message->data, message->n);
    while (!status && qp_proto_next(&r, &field))
        if (field.wire_type == 2 && field.number >= TEMPLATE_SESSION_PREFIX &&
            field.number <= TEMPLATE_SUFFIX)
            status = keep_text(m, field.data, field.n, offsets[field.number]);
    return r.is_malformed ? QUIP_E_FORMAT : status;
}

/* PromptTemplates: those of user, model and system. */
static quip_status read_turns(quip_model *m, const struct proto_field *message,
                              struct turn_offsets *turns)
{
    struct proto_reader r;
    struct proto_field field;
    quip_status status = QUIP_OK;
    qp_proto_open(&r, message->data, message->n);
    while (!status && qp_proto_next(&r, &field))
        if (field.wire_type == 2 && field.number >= TEMPLATES_USER &&
            field.number <= TEMPLATES_SYSTEM)
            status = read_turn(m, &field, turns->at[field.number - TEMPLATES_USER]);
    return r.is_malformed ? QUIP_E_FORMAT : status;
}

static const char *text_at(const quip_model *m, size_t at)
{
    assert(at < m->chat_text.n);
    return (const char *)m->chat_text.data + at;
}

/* The older form: one prefix and one suffix around the user's text. The suffix ends the user's turn
 * up to its first line end, and what follows begins the answer. Without a line end, all of it
 * begins the answer. */
static quip_status read_single_turn(quip_model *m, const struct proto_field *message,
                                    struct turn_offsets *turns)
{
    size_t at[2] = { 0 };
    quip_status status = read_turn(m, message, at);
    if (status)
        return status;
    const char *prefix = text_at(m, at[0]), *suffix = text_at(m, at[1]);
    const char *end = strchr(suffix, '\n');
    const bool has_end_marker = strstr(prefix, "<start_of_turn>") || strstr(prefix, "<ctrl99>");
    turns->at[0][0] = at[0];
    turns->at[1][0] = at[1];
    if (!end)
        return QUIP_OK;
    const size_t n_end = (size_t)(end + 1 - suffix);
    turns->at[1][0] = at[1] + n_end;
    if (!qp_bytes_reserve(&m->chat_text, n_end + 1)) // or the text would move while it is copied
        return QUIP_E_MEMORY;
    status = keep_text(m, text_at(m, at[1]), n_end, &turns->at[0][1]);
    if (has_end_marker)
        turns->at[1][1] = turns->at[0][1];
    return status;
}

const struct chat_template *qp_prompts_chat(quip_model *m)
{
    const struct prompts *p = &m->prompts;
    struct chat_template *chat = &m->own_chat;
    assert(m->chat_text.n > 0); // it has the empty text
    struct turn_text *texts[3] = { &chat->user, &chat->model, &chat->system };
    bool is_empty = p->first_text == 0;
    for (int i = 0; i < 3; i++) {
        const size_t *at = p->turns.at[i];
        *texts[i] = (struct turn_text){ text_at(m, at[0]), text_at(m, at[1]) };
        is_empty = is_empty && !*texts[i]->prefix && !*texts[i]->suffix;
    }
    chat->name = "file";
    chat->default_system = p->first_text ? text_at(m, p->first_text) : NULL;
    return is_empty ? NULL : chat;
}

/* ---- all of it ---- */

static quip_status read_prompts(quip_model *m, const void *data, size_t n)
{
    struct prompts *p = &m->prompts;
    struct proto_reader r;
    struct proto_field field;
    struct turn_offsets turns = { 0 }, single = { 0 };
    bool has_turns = false, has_single = false, has_stops = false;
    quip_status status = QUIP_OK;
    if (m->chat_text.n == 0 && !qp_bytes_append(&m->chat_text, "", 1)) // offset 0: the empty text
        return QUIP_E_MEMORY;
    qp_proto_open(&r, data, n);
    while (!status && qp_proto_next(&r, &field)) {
        const bool is_stop = field.number == LLM_STOP_TOKENS || field.number == LLM_STOP_TOKEN_IDS;
        if (is_stop && !has_stops) { // they replace those of another proto
            p->n_stop_ids = p->n_stop_texts = 0;
            p->stop_texts.n = 0;
            has_stops = true;
        }
        if (field.number == LLM_START_TOKEN_ID && field.wire_type == 0)
            p->bos = field.value > INT32_MAX ? -1 : (int)field.value;
        else if (field.number == LLM_START_TOKEN && field.wire_type == 2)
            p->bos = qp_tokenizer_find(m->tokenizer, (const char *)field.data, field.n);
        else if (field.number == LLM_STOP_TOKENS && field.wire_type == 2)
            status = add_stop(m, (const char *)field.data, field.n);
        else if (field.number == LLM_STOP_TOKEN_IDS)
            add_stop_ids(p, &field);
        else if (field.number == LLM_NORMALIZATIONS &&
                 has_normalization(&field, NORMALIZATION_GPT2))
            p->spells_bytes = true;
        else if (field.number == LLM_PROMPT_TEMPLATE && field.wire_type == 2) {
            status = read_single_turn(m, &field, &single);
            has_single = true;
        } else if (field.number == LLM_PROMPT_TEMPLATES && field.wire_type == 2) {
            status = read_turns(m, &field, &turns);
            has_turns = true;
        }
    }
    if (has_turns || has_single)
        p->turns = has_turns ? turns : single;
    return r.is_malformed ? QUIP_E_FORMAT : status;
}

quip_status qp_prompts_read(quip_model *m, const void *data, size_t n, const char *where,
                            quip_error *error)
{
    const quip_status status = read_prompts(m, data, n);
    if (status == QUIP_E_MEMORY)
        return qp_fail_memory(error, where, n);
    if (status)
        return qp_fail(error, status, "%s: its %s (%zu bytes) is damaged", m->file.name, where, n);
    return QUIP_OK;
}
