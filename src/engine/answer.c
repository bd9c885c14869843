/* answer.c: tokens -> text, piece by piece, until something ends the answer.
 * In:  tokens that the session draws.
 * Out: pieces of text.
 *
 * A drawn token is appended to the context at once, and runs only when the next one is requested:
 * nothing is computed past the end. Text is returned in whole characters, and held back while it
 * could still become a stop text.
 * The loop is a state machine: its whole state is in the session, so it can return QP_NOT_YET while
 * a device works, and goes on with the next call. */
#include "engine/engine.h"

#include <string.h>

static quip_status begin_answer(quip_session *s, quip_error *error)
{
    struct answer *a = &s->answer;
    quip_status status = qp_turn_begin_answer(s, error);
    if (status)
        return status;
    a->is_open = true;
    a->reason = QUIP_FINISH_NONE;
    a->detokenizer = (struct detokenizer){ .has_started = true };
    a->held.n = 0;
    a->n_shown = s->n;
    a->n_stop_tokens = 0;
    s->result.n_output_tokens = s->result.n_draft_tokens = s->result.n_draft_right = 0;
    s->result.decode_ns = s->result.first_token_ns = 0;
    s->result.finish_reason = QUIP_FINISH_NONE;
    return QUIP_OK;
}

void qp_answer_end(quip_session *s)
{
    qp_session_abandon(s);
    s->answer.is_open = false;
    s->answer.held.n = 0;
    atomic_store(&s->cancelled, false); // a late cancel does not end the next answer
}

void qp_answer_begin_input(quip_session *s)
{
    qp_answer_end(s);
    if (s->start_ns)
        return;
    s->result = (quip_result){ .seed = s->options.seed };
    s->start_ns = qp_now_ns();
}

static void finish(quip_session *s, quip_finish_reason reason)
{
    s->answer.reason = reason;
    s->result.finish_reason = reason;
}

/* ---- stop texts ---- */

/* The first position of a stop text in text[0, n), or n. */
static size_t find_stop(const quip_session *s, const char *text, size_t n)
{
    size_t first = n;
    for (int i = 0; i < s->texts.n_stops; i++) {
        const size_t n_stop = strlen(s->texts.stops[i]);
        for (size_t at = 0; at + n_stop <= n && at < first; at++)
            if (memcmp(text + at, s->texts.stops[i], n_stop) == 0)
                first = at;
    }
    return first;
}

/* Length of the longest end of text[0, n) that could still become a stop text. */
static size_t n_undecided(const quip_session *s, const char *text, size_t n)
{
    size_t longest = 0;
    for (int i = 0; i < s->texts.n_stops; i++) {
        size_t k = strlen(s->texts.stops[i]) - 1;
        for (k = k < n ? k : n; k > longest; k--)
            if (memcmp(text + n - k, s->texts.stops[i], k) == 0)
                longest = k;
    }
    return longest;
}

/* ---- tokens ---- */

static bool is_stop_id(const quip_session *s, quip_token id)
{
    const struct config *c = &s->model->config;
    for (int i = 0; i < c->n_stop_ids; i++)
        if (c->stop_ids[i] == id)
            return true;
    for (size_t i = 0; i < QP_COUNT(s->chat_stops); i++)
        if (s->chat && s->chat_stops[i] == id)
            return true;
    return false;
}

/* Why the answer ends before another token, or QUIP_FINISH_NONE. */
static quip_finish_reason check_end(quip_session *s)
{
    const int max = s->options.max_output_tokens;
    if (!s->step.is_running && atomic_exchange(&s->cancelled, false))
        return QUIP_FINISH_CANCELLED;
    if (max && s->result.n_output_tokens >= max)
        return QUIP_FINISH_LENGTH;
    return s->n >= s->options.n_context ? QUIP_FINISH_CONTEXT : QUIP_FINISH_NONE;
}

/* Get one token, or finish. The call began at start_ns. */
static quip_status step(quip_session *s, uint64_t start_ns, bool wait, quip_error *error)
{
    struct answer *a = &s->answer;
    const int max = s->options.max_output_tokens;
    const quip_finish_reason reason = check_end(s);
    if (reason) {
        finish(s, reason);
        return QUIP_OK;
    }
    const int n_more = max ? max - s->result.n_output_tokens - 1 : s->options.n_context;
    quip_token id;
    quip_status status = qp_session_draw(s, n_more, wait, &id, error);
    if (s->result.n_output_tokens == 0 && status != QP_NOT_YET) // the template's text before it
        s->result.prefill_ns += qp_now_ns() - start_ns;
    if (status == QUIP_E_CANCELLED) {
        finish(s, QUIP_FINISH_CANCELLED);
        return QUIP_OK;
    }
    if (status)
        return status;
    const bool is_stop = is_stop_id(s, id);
    if (!is_stop && !qp_detokenize(s->model->tokenizer, &a->detokenizer, id, &a->held))
        return qp_fail_memory(error, "the answer's text", a->held.n); // the next call gets it again
    s->result.n_output_tokens++;
    if (s->result.n_output_tokens == 1)
        s->result.first_token_ns = qp_now_ns() - s->start_ns;
    if (is_stop) {
        s->context[s->n] = id; // beyond the context, for quip_piece.tokens alone
        a->n_stop_tokens = 1;
        finish(s, QUIP_FINISH_STOP);
        return QUIP_OK;
    }
    qp_session_accept(s, id);
    return QUIP_OK;
}

/* How many bytes of the held text may be returned now. */
static size_t n_ready(quip_session *s)
{
    struct answer *a = &s->answer;
    const char *text = (const char *)a->held.data;
    const size_t stop = find_stop(s, text, a->held.n);
    if (stop < a->held.n) {
        a->held.n = stop;
        finish(s, QUIP_FINISH_STOP);
    }
    return a->reason ? a->held.n : a->held.n - n_undecided(s, text, a->held.n);
}

/* Move the first n bytes of the held text to the piece. */
static quip_status return_text(struct answer *a, size_t n, quip_piece *piece, quip_error *error)
{
    a->piece.n = 0;
    if (!qp_bytes_append(&a->piece, a->held.data, n))
        return qp_fail_memory(error, "the answer's text", n);
    memmove(a->held.data, a->held.data + n, a->held.n - n);
    a->held.n -= n;
    piece->text = (const char *)a->piece.data;
    piece->n_text = n;
    return QUIP_OK;
}

/* Return the tokens that were drawn since the last piece. */
static void return_tokens(quip_session *s, quip_piece *piece)
{
    struct answer *a = &s->answer;
    piece->tokens = s->context + a->n_shown;
    piece->n_tokens = s->n + a->n_stop_tokens - a->n_shown;
    a->n_shown = s->n;
    a->n_stop_tokens = 0;
}

quip_status qp_answer_next(quip_session *s, bool wait, quip_piece *piece, quip_error *error)
{
    struct answer *a = &s->answer;
    size_t n = 0;
    quip_status status;
    *piece = (quip_piece){ .text = "", .tokens = s->context };
    if (!s->start_ns)
        s->start_ns = qp_now_ns();
    if (!a->is_open && (status = begin_answer(s, error)))
        return status;

    const bool is_first = s->result.n_output_tokens == 0;
    const uint64_t start_ns = qp_session_began_ns(s);
    while (!a->reason && n == 0) {
        if ((status = step(s, start_ns, wait, error))) {
            s->pending_ns = status == QP_NOT_YET ? start_ns : 0;
            return status;
        }
        if (a->reason && a->reason != QUIP_FINISH_STOP &&
            !qp_detokenize_end(s->model->tokenizer, &a->detokenizer, &a->held))
            return qp_fail_memory(error, "the answer's text", a->held.n);
        n = n_ready(s);
    }
    if (!is_first)
        s->result.decode_ns += qp_now_ns() - start_ns;
    if (a->held.n && n == 0 && a->reason)
        n = a->held.n;
    if (n && (status = return_text(a, n, piece, error)))
        return status;
    return_tokens(s, piece);
    if (n)
        return QUIP_OK;
    piece->finish_reason = a->reason;
    s->start_ns = 0;
    qp_answer_end(s);
    return QUIP_OK;
}

quip_status qp_answer_generate(quip_session *s, quip_on_text *on_text, void *user,
                               quip_error *error)
{
    quip_piece piece = { 0 };
    while (!piece.finish_reason) {
        const quip_status status = qp_answer_next(s, true, &piece, error);
        if (status && !s->answer.is_open) // no capacity for the template's text before the answer
            qp_session_return(s, &s->undo);
        if (status)
            return status;
        if (piece.n_text && on_text && !on_text(user, piece.text, piece.n_text)) {
            qp_answer_end(s);
            s->result.finish_reason = QUIP_FINISH_CALLBACK;
            s->start_ns = 0;
            return QUIP_OK;
        }
    }
    return QUIP_OK;
}
