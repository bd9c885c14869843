/* turns.c: texts of roles -> tokens of the context, spelled as the model's template spells them.
 * When the role changes from `last` to `next`, suffix(last) + prefix(next) stands between. Special
 * pieces are recognised in the template's own text and, so that users can write whole prompts, in
 * text of QUIP_ROLE_NONE; a user's words never become special tokens. */
#include "engine/engine.h"

#include <string.h>

static const struct turn_text *turn_of(const struct chat_template *chat, quip_role role)
{
    static const struct turn_text none = { "", "" };
    switch (role) {
    case QUIP_ROLE_USER:
        return &chat->user;
    case QUIP_ROLE_MODEL:
        return &chat->model;
    case QUIP_ROLE_SYSTEM:
        return &chat->system;
    default:
        return &none;
    }
}

/* Where a template's text stops being markers. What follows ("user\n") is encoded together with the
 * words after it, because a tokenizer may join them. */
static size_t markers_end(const char *text)
{
    const char *end = strrchr(text, '>');
    return end ? (size_t)(end - text) + 1 : 0;
}

static quip_status encode(const quip_session *s, const struct bytes *text, size_t begin, size_t end,
                          bool with_special, struct tokens *out, quip_error *error)
{
    if (begin == end)
        return QUIP_OK;
    return qp_tokenizer_encode(s->model->tokenizer, (const char *)text->data + begin, end - begin,
                               with_special, out, error);
}

/* Append the ids of one text of `role`, and of the template's text before it when the role is new.
 */
static quip_status compose(const quip_session *s, quip_role last, quip_role role,
                           const char *before, size_t n_before, const char *text, size_t n,
                           struct tokens *out, quip_error *error)
{
    struct bytes all = { 0 };
    bool ok = true;
    if (s->chat && role != QUIP_ROLE_NONE && role != last)
        ok = qp_bytes_append_text(&all, turn_of(s->chat, last)->suffix) &&
             qp_bytes_append_text(&all, turn_of(s->chat, role)->prefix);
    ok = ok && qp_bytes_append(&all, "", 1); // for strrchr
    quip_status status = QUIP_OK;
    if (ok) {
        const size_t markers = markers_end((const char *)all.data);
        all.n--;
        ok = qp_bytes_append(&all, before, n_before) && qp_bytes_append(&all, text, n);
        if (ok && !(status = encode(s, &all, 0, markers, true, out, error)))
            status = encode(s, &all, markers, all.n, role == QUIP_ROLE_NONE, out, error);
    }
    if (!ok)
        status = qp_fail_memory(error, "a prompt", n);
    qp_bytes_close(&all);
    return status;
}

/* Before the first text: bos, and the system prompt where the template wants it. */
static quip_status begin_context(quip_session *s, quip_role role, quip_role *last,
                                 struct tokens *out, quip_error *error)
{
    const quip_token bos = s->model->config.bos;
    if (bos >= 0 && !qp_tokens_append(out, bos))
        return qp_fail_memory(error, "a prompt", sizeof bos);
    if (!s->chat || role == QUIP_ROLE_NONE || role == QUIP_ROLE_SYSTEM)
        return QUIP_OK;
    const char *system = s->options.system ? s->options.system : s->chat->default_system;
    if (!system || !system[0])
        return QUIP_OK;
    if (s->chat->system_joiner) {
        s->system.n = 0;
        return qp_bytes_append_text(&s->system, system)
                   ? QUIP_OK
                   : qp_fail_memory(error, "the system prompt", strlen(system));
    }
    quip_status status =
        compose(s, QUIP_ROLE_NONE, QUIP_ROLE_SYSTEM, "", 0, system, strlen(system), out, error);
    *last = QUIP_ROLE_SYSTEM;
    return status;
}

/* The ids that one text adds. A system text of a template without system role waits in s->system.
 */
static quip_status turn_tokens(quip_session *s, quip_role role, const char *text, size_t n,
                               struct tokens *out, quip_error *error)
{
    quip_role last = s->role;
    quip_status status;
    if (!s->has_begun && (status = begin_context(s, role, &last, out, error)))
        return status;
    if (s->chat && s->chat->system_joiner && role == QUIP_ROLE_SYSTEM)
        return qp_bytes_append(&s->system, text, n) ? QUIP_OK
                                                    : qp_fail_memory(error, "the system prompt", n);
    const size_t n_system = role == QUIP_ROLE_USER ? s->system.n : 0;
    if (n_system && !qp_bytes_append_text(&s->system, s->chat->system_joiner))
        return qp_fail_memory(error, "the system prompt", n_system);
    status = compose(s, last, role, (const char *)s->system.data, n_system ? s->system.n : 0, text,
                     n, out, error);
    if (n_system)
        s->system.n = n_system; // without the joiner, until the turn is in
    return status;
}

/* Append tokens and run them. */
static quip_status run_tokens(quip_session *s, const struct tokens *tokens, quip_role role,
                              quip_error *error)
{
    const uint64_t start_ns = qp_now_ns();
    quip_status status = qp_session_push(s, tokens->ids, tokens->n, role, error);
    if (!status && tokens->n)
        status = qp_session_feed(s, error);
    s->result.n_prompt_tokens += tokens->n;
    s->result.prefill_ns += qp_now_ns() - start_ns;
    return status;
}

static bool is_white(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

quip_status qp_turn_append(quip_session *s, quip_role role, const char *text, size_t n,
                           quip_error *error)
{
    struct tokens tokens = { 0 };
    const struct place before = qp_session_place(s);
    const bool is_waiting = s->chat && s->chat->system_joiner && role == QUIP_ROLE_SYSTEM;
    if (!s->chat)
        role = QUIP_ROLE_NONE;
    if (s->chat && s->chat->trim && role != s->role && role != QUIP_ROLE_NONE) {
        for (; n && is_white(text[0]); text++)
            n--;
        while (n && is_white(text[n - 1]))
            n--;
    }
    quip_status status = turn_tokens(s, role, text, n, &tokens, error);
    if (!status)
        status = run_tokens(s, &tokens, role, error);
    qp_tokens_close(&tokens);
    if (status) {
        qp_session_return(s, &before);
        return status;
    }
    s->has_begun = true;
    if (!is_waiting)
        s->role = role;
    if (role == QUIP_ROLE_USER)
        s->system.n = 0;
    return QUIP_OK;
}

quip_status qp_turn_begin_answer(quip_session *s, quip_error *error)
{
    struct tokens tokens = { 0 };
    quip_status status = QUIP_OK;
    const bool with_template = s->chat && s->role != QUIP_ROLE_NONE;
    if (with_template && s->role != QUIP_ROLE_MODEL)
        status = compose(s, s->role, QUIP_ROLE_MODEL, "", 0, "", 0, &tokens, error);
    else if (s->n == 0 && s->model->config.bos >= 0 &&
             !qp_tokens_append(&tokens, s->model->config.bos))
        status = qp_fail_memory(error, "a prompt", sizeof(quip_token));
    if (!status && s->n + tokens.n == 0)
        status = qp_fail(error, QUIP_E_ARGUMENT,
                         "there is nothing to continue: append a text or tokens first");
    if (!status)
        status = qp_session_push(s, tokens.ids, tokens.n,
                                 with_template ? QUIP_ROLE_MODEL : QUIP_ROLE_NONE, error);
    qp_tokens_close(&tokens);
    if (status)
        return status;
    s->result.n_prompt_tokens += tokens.n;
    s->has_begun = true;
    if (with_template)
        s->role = QUIP_ROLE_MODEL;
    return QUIP_OK;
}
