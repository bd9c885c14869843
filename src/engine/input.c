/* input.c: what a caller appends to a session, at once or in steps, and how that is undone.
 * In:  a text with its role, or tokens without one; both were checked.
 * Out: tokens of the context. Tokens that were appended at once have run.
 *
 * Each input begins a new state to which qp_input_undo returns. */
#include "engine/engine.h"

#include <assert.h>

static void begin_input(quip_session *s)
{
    qp_answer_begin_input(s);
    qp_talk_begin_input(s);
    s->undo = qp_session_mark(s);
    s->has_begun_step = false;
}

/* Append tokens that belong to no role, without running them. */
static quip_status push_tokens(quip_session *s, const quip_token *tokens, int n, quip_error *error)
{
    const quip_status status = qp_session_push(s, tokens, n, QUIP_ROLE_NONE, error);
    if (status)
        return status;
    s->has_begun = true;
    s->role = QUIP_ROLE_NONE;
    s->result.n_prompt_tokens += n;
    return QUIP_OK;
}

/* ---- at once ---- */

quip_status qp_input_text(quip_session *s, quip_role role, const char *text, size_t n,
                          quip_error *error)
{
    begin_input(s);
    return qp_turn_append(s, role, text, n, error);
}

/* The input that began at start_ns has run, or failed. */
static quip_status end_tokens(quip_session *s, uint64_t start_ns, quip_status status)
{
    if (status)
        qp_session_return(s, &s->undo);
    else
        s->result.prefill_ns += qp_now_ns() - start_ns;
    return status;
}

quip_status qp_input_tokens(quip_session *s, const quip_token *tokens, int n, quip_error *error)
{
    begin_input(s);
    const uint64_t start_ns = qp_now_ns();
    quip_status status = push_tokens(s, tokens, n, error);
    if (!status && n > 0)
        status = qp_session_run(s, s->options.n_context, error);
    return end_tokens(s, start_ns, status);
}

quip_status qp_input_tokens_logits(quip_session *s, const quip_token *tokens, int n,
                                   quip_on_logits *on_logits, void *user, quip_error *error)
{
    begin_input(s);
    const uint64_t start_ns = qp_now_ns();
    // earlier tokens that have not run are not reported
    quip_status status = qp_session_run(s, s->options.n_context, error);
    if (!status)
        status = push_tokens(s, tokens, n, error);
    if (!status && n > 0)
        status = qp_session_run_logits(s, on_logits, user, error);
    return end_tokens(s, start_ns, status);
}

/* ---- in steps ---- */

/* The tokens of a step are in the context, unless `status` is a failure. */
static quip_status end_begin(quip_session *s, quip_status status, int *n_left)
{
    assert(s->sequence->pos <= s->n); // appending dropped the draft tokens
    s->has_begun_step = !status;
    *n_left = status ? 0 : s->n - s->sequence->pos;
    return status;
}

quip_status qp_input_begin_text(quip_session *s, quip_role role, const char *text, size_t n,
                                int *n_left, quip_error *error)
{
    begin_input(s);
    return end_begin(s, qp_turn_push(s, role, text, n, error), n_left);
}

quip_status qp_input_begin_tokens(quip_session *s, const quip_token *tokens, int n, int *n_left,
                                  quip_error *error)
{
    begin_input(s);
    return end_begin(s, push_tokens(s, tokens, n, error), n_left);
}

quip_status qp_input_run(quip_session *s, int max_tokens, int *n_left, quip_error *error)
{
    const bool has_work = s->step.is_running || s->sequence->pos < s->n;
    const quip_status status = has_work ? qp_turn_run(s, max_tokens, error) : QUIP_OK;
    if (status == QP_NOT_YET)
        return status;
    if (status && s->has_begun_step)
        qp_session_return(s, &s->undo);
    *n_left = qp_max(s->n - s->sequence->pos, 0);
    if (status || *n_left == 0)
        s->has_begun_step = false;
    return status;
}

/* ---- back ---- */

void qp_input_undo(quip_session *s)
{
    qp_answer_end(s);
    qp_session_return(s, &s->undo);
    s->has_begun_step = false;
    if (!s->result.n_prompt_tokens) // nothing of the turn is left
        s->start_ns = 0;
}

void qp_input_rewind(quip_session *s, int position)
{
    assert(position >= 0 && position <= s->n);
    qp_answer_end(s);
    qp_session_rewind(s, position);
    s->undo = qp_session_mark(s);
    s->has_begun_step = false;
}
