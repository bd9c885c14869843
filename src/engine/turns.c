/* turns.c: texts of roles -> tokens of the context, as the chat template marks turns.
 * In:  texts, each with a role.
 * Out: tokens, appended to the context.
 *
 * When the role changes from `last` to `next`, suffix(last) + prefix(next) is inserted. Control
 * tokens are recognized in the template's own text and, so that users can write whole prompts, in
 * text of QUIP_ROLE_NONE. The text of any other role never becomes control tokens, nor those other
 * tokens that mark turns: in Gemma's vocabulary "<end_of_turn>" is user-defined, as a tag of HTML
 * is, and would be found in any text. */
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

/* Is the next text at the start of a text, as SentencePiece defines it: the first of all, or after
 * a control token? */
static bool is_text_start(const quip_session *s, const struct tokens *out)
{
    if (out->n + s->n == 0)
        return true;
    quip_token last = out->n ? out->ids[out->n - 1] : s->context[s->n - 1];
    return qp_tokenizer_is_control(s->model->tokenizer, last);
}

static quip_status encode(const quip_session *s, const struct bytes *text, size_t begin, size_t end,
                          bool with_special, struct tokens *out, quip_error *error)
{
    const struct tokenizer *t = s->model->tokenizer;
    if (begin == end)
        return QUIP_OK;
    const char *from = (const char *)text->data + begin;
    return is_text_start(s, out)
               ? qp_tokenizer_encode(t, from, end - begin, with_special, out, error)
               : qp_tokenizer_encode_more(t, from, end - begin, with_special, out, error);
}

/* ---- tokens that mark turns ---- */

static bool spells(const char *text, const char *piece, size_t n)
{
    for (; text && *text; text++)
        if (strncmp(text, piece, n) == 0)
            return true;
    return false;
}

/* Does the template of the session write this token, or does it end an answer? White space and
 * single characters do not mark turns. */
static bool marks_turns(const quip_session *s, quip_token id)
{
    size_t n = 0;
    const char *piece = qp_tokenizer_piece(s->model->tokenizer, id, &n);
    const struct chat_template *chat = s->chat;
    if (n < 2 || memchr(piece, 0, n) || strchr(" \t\r\n\xe2", piece[0]))
        return false;
    for (int i = 0; i < s->n_ends; i++)
        if (s->ends[i] == id)
            return true;
    if (s->talk.jinja)
        return qp_jinja_spells(s->talk.jinja, piece, n);
    for (int role = QUIP_ROLE_USER; chat && role <= QUIP_ROLE_SYSTEM; role++)
        if (spells(turn_of(chat, role)->prefix, piece, n) ||
            spells(turn_of(chat, role)->suffix, piece, n))
            return true;
    return false;
}

/* An answer may consist of the tokens that its template writes, such as "<think>". */
size_t qp_turn_division(const quip_session *s, quip_role role, bool with_control, const char *text,
                        size_t n)
{
    const struct tokenizer *t = s->model->tokenizer;
    for (size_t i = 0, length; i < n; i += length) {
        quip_token id = -1;
        length = qp_tokenizer_piece_at(t, text + i, n - i, &id);
        if (length > 1 &&
            (qp_tokenizer_is_control(t, id) ? with_control
                                            : role != QUIP_ROLE_MODEL && marks_turns(s, id))) {
            size_t last = length - 1; // its last character begins here
            while (last > 0 && ((uint8_t)text[i + last] & 0xc0) == 0x80)
                last--;
            if (last > 0)
                return i + last;
        }
        length = length > 0 ? length : 1;
    }
    return n;
}

/* Encode the template's text before `begin` and the text of a role behind it. */
static quip_status encode_role(const quip_session *s, quip_role role, const struct bytes *all,
                               size_t template_begin, size_t begin, struct tokens *out,
                               quip_error *error)
{
    const char *text = (const char *)all->data;
    quip_status status = QUIP_OK;
    if (role == QUIP_ROLE_NONE)
        return encode(s, all, template_begin, all->n, true, out, error);
    for (size_t at = template_begin, end; at < all->n && !status; at = begin = end) {
        end = begin + qp_turn_division(s, role, false, text + begin, all->n - begin);
        status = encode(s, all, at, end, false, out, error);
    }
    return status;
}

/* ---- turns ---- */

/* The template's text between texts of these roles; with is_prompt the model continues. */
static bool put_between(const struct chat_template *chat, quip_role last, quip_role role,
                        bool is_prompt, struct bytes *out)
{
    const char *prefix = turn_of(chat, role)->prefix;
    if (is_prompt && chat->answer_prefix)
        prefix = chat->answer_prefix;
    return qp_bytes_append_text(out, turn_of(chat, last)->suffix) &&
           qp_bytes_append_text(out, prefix);
}

/* Append the ids of one text of `role` to `out`, after those of the template's text if the role is
 * new. A NULL text is the model's answer, which follows. The template's text up to its last control
 * token is tokenized alone. The rest of it ("user\n") is tokenized together with the words that
 * follow, because a tokenizer may join them. */
static quip_status compose(const quip_session *s, quip_role last, quip_role role,
                           const struct bytes *before, const char *text, size_t n,
                           struct tokens *out, quip_error *error)
{
    struct bytes all = { 0 };
    bool ok = true;
    if (s->chat && role != QUIP_ROLE_NONE && role != last)
        ok = put_between(s->chat, last, role, !text, &all);
    const size_t markers =
        ok ? qp_tokenizer_special_end(s->model->tokenizer, (const char *)all.data, all.n) : 0;
    const size_t begin = all.n;
    ok = ok && (!before || qp_bytes_append(&all, before->data, before->n)) &&
         qp_bytes_append(&all, text ? text : "", n);
    quip_status status = QUIP_OK;
    if (!ok)
        status = qp_fail_memory(error, "a prompt", n);
    else if (!(status = encode(s, &all, 0, markers, true, out, error)))
        status = encode_role(s, role, &all, markers, begin, out, error);
    qp_bytes_close(&all);
    return status;
}

/* Before the first text: bos, and the system prompt, if the template has a place for one. */
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
        compose(s, QUIP_ROLE_NONE, QUIP_ROLE_SYSTEM, NULL, system, strlen(system), out, error);
    *last = QUIP_ROLE_SYSTEM;
    return status;
}

static bool is_white(char c)
{
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

static quip_status broken_template(const quip_session *s, quip_error *error)
{
    return qp_fail(
        error, QUIP_E_UNSUPPORTED,
        "%s: its chat template is not supported (%s); name another with chat_template, or "
        "none with no_template",
        s->model->file.name, s->model->jinja_problem);
}

/* If the template has no system role, a system text waits in s->system for the user's turn. */
quip_status qp_turn_tokens(quip_session *s, quip_role role, const char *text, size_t n,
                           struct tokens *out, quip_error *error)
{
    if (s->talk.is_broken && role != QUIP_ROLE_NONE)
        return broken_template(s, error);
    if (s->talk.jinja && role != QUIP_ROLE_NONE)
        return qp_talk_tokens(s, role, text, n, out, error);
    if (s->chat && s->chat->trim && role != s->role && role != QUIP_ROLE_NONE) {
        for (; n && is_white(text[0]); text++)
            n--;
        while (n && is_white(text[n - 1]))
            n--;
    }
    quip_role last = s->role;
    quip_status status;
    if (!s->has_begun && (status = begin_context(s, role, &last, out, error)))
        return status;
    if (s->chat && s->chat->system_joiner && role == QUIP_ROLE_SYSTEM)
        return qp_bytes_append(&s->system, text, n) ? QUIP_OK
                                                    : qp_fail_memory(error, "the system prompt", n);
    struct bytes before = { 0 };
    bool ok = true;
    if (role == QUIP_ROLE_USER && s->system.n > 0)
        ok = qp_bytes_append_text(&before, s->chat->system.prefix) &&
             qp_bytes_append(&before, s->system.data, s->system.n) &&
             qp_bytes_append_text(&before, s->chat->system_joiner);
    status = ok ? compose(s, last, role, &before, text, n, out, error)
                : qp_fail_memory(error, "the system prompt", s->system.n);
    qp_bytes_close(&before);
    return status;
}

quip_status qp_turn_push(quip_session *s, quip_role role, const char *text, size_t n,
                         quip_error *error)
{
    struct tokens tokens = { 0 };
    const struct mark before = qp_session_mark(s);
    const bool is_waiting = s->chat && s->chat->system_joiner && role == QUIP_ROLE_SYSTEM;
    if (!qp_session_has_roles(s))
        role = QUIP_ROLE_NONE;
    if (s->talk.jinja && role != QUIP_ROLE_NONE)
        return qp_talk_push(s, role, text ? text : "", n, error);
    quip_status status = qp_turn_tokens(s, role, text ? text : "", n, &tokens, error);
    if (!status)
        status = qp_session_push(s, tokens.ids, tokens.n, role, error);
    s->result.n_prompt_tokens += tokens.n;
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

quip_status qp_turn_run(quip_session *s, int max, quip_error *error)
{
    const uint64_t start_ns = qp_session_began_ns(s);
    const quip_status status = qp_session_run(s, max, error);
    if (status == QP_NOT_YET)
        s->pending_ns = start_ns;
    else
        s->result.prefill_ns += qp_now_ns() - start_ns;
    return status;
}

quip_status qp_turn_append(quip_session *s, quip_role role, const char *text, size_t n,
                           quip_error *error)
{
    const struct mark before = qp_session_mark(s);
    quip_status status = qp_turn_push(s, role, text, n, error);
    if (!status && s->n > before.n)
        status = qp_turn_run(s, s->options.n_context, error);
    if (status)
        qp_session_return(s, &before);
    return status;
}

quip_status qp_turn_begin_answer(quip_session *s, quip_error *error)
{
    struct tokens tokens = { 0 };
    quip_status status = QUIP_OK;
    quip_role last = s->role;
    const bool with_template = s->chat && last != QUIP_ROLE_NONE;
    if (s->talk.jinja && last != QUIP_ROLE_NONE)
        return qp_talk_begin_answer(s, error);
    if (with_template && last != QUIP_ROLE_MODEL)
        status = compose(s, last, QUIP_ROLE_MODEL, NULL, NULL, 0, &tokens, error);
    else if (s->n == 0)
        status = begin_context(s, QUIP_ROLE_NONE, &last, &tokens, error);
    if (!status && s->n + tokens.n == 0)
        status = qp_fail(error, QUIP_E_ARGUMENT,
                         "there is nothing to continue: append a text or tokens first");
    if (!status)
        status = qp_session_push(s, tokens.ids, tokens.n,
                                 with_template ? QUIP_ROLE_MODEL : QUIP_ROLE_NONE, error);
    if (!status)
        s->result.n_prompt_tokens += tokens.n;
    qp_tokens_close(&tokens);
    if (status)
        return status;
    s->has_begun = true;
    if (with_template)
        s->role = QUIP_ROLE_MODEL;
    return QUIP_OK;
}
