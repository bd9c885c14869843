/* draft.c: draft tokens: guesses of the tokens that follow the context.
 * In:  the context, a draft model if the session has one, and how earlier draft tokens did.
 * Out: draft tokens behind the context. They run together with its last token.
 *
 * There are two sources. If the last few tokens occurred before, the tokens that followed them then
 * may follow now: prompt lookup decoding (Saxena 2023). Summaries, edits and code repeat
 * themselves, other text does not. So the number of draft tokens follows their success, and
 * proposing pauses after failures. Where the context has no proposal, the draft model may have one
 * (draft_model.c). The answer never depends on either: draft tokens give the same logits as tokens
 * that run one by one (docs/design.md, law 5). */
#include "engine/engine.h"

#include <assert.h>
#include <string.h>

enum {
    MATCH = 3, // last tokens that must have occurred before
    FIRST_DRAFT = 3,
    MAX_PAUSE = 64 // tokens between two tries while draft tokens keep failing
};

/* Propose what followed the last tokens of context[0, n) before; returns how many. */
static int look_up(struct draft_lookup *d, const quip_token *context, int n, quip_token *draft,
                   int max)
{
    const int n_max = qp_min(d->n_next ? d->n_next : FIRST_DRAFT, max);
    assert(n >= 0 && max >= 0);
    if (d->pause > 0) {
        d->pause--;
        return 0;
    }
    for (int at = n - MATCH - 1; at >= 0 && n_max > 0; at--) {
        if (memcmp(context + at, context + n - MATCH, MATCH * sizeof *context))
            continue;
        const int n_found = qp_min(n - at - MATCH, n_max);
        memcpy(draft, context + at + MATCH, (size_t)n_found * sizeof *draft);
        return n_found;
    }
    return 0;
}

static void lookup_result(struct draft_lookup *d, int n, int n_right)
{
    if (n_right == 0) {
        const int longer = d->next_pause ? d->next_pause * 2 : 1;
        d->pause = d->next_pause = qp_min(longer, MAX_PAUSE);
        d->n_next = FIRST_DRAFT;
        return;
    }
    d->n_next = qp_min(n_right == n ? 2 * n + 1 : n_right + 1, MAX_DRAFT);
    d->next_pause = 0;
}

quip_status qp_draft_propose(quip_session *s, int max, bool wait, int *n, quip_error *error)
{
    struct draft *d = &s->draft;
    assert(max >= 0 && max <= MAX_DRAFT);
    quip_status status = QUIP_OK;
    *n = look_up(&d->lookup, s->context, s->n, s->context + s->n, max);
    d->is_model = *n == 0 && d->model;
    if (d->is_model)
        status = qp_draft_model_propose(s, max, wait, n, error);
    d->begin = s->n;
    d->n = *n;
    return status;
}

void qp_draft_result(quip_session *s, int n_right)
{
    struct draft *d = &s->draft;
    assert(n_right >= 0 && n_right <= d->n);
    s->result.n_draft_tokens += d->n;
    s->result.n_draft_right += n_right;
    if (d->is_model)
        qp_draft_model_result(d->model, d->n, n_right);
    else
        lookup_result(&d->lookup, d->n, n_right);
}
