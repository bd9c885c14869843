/* draft.c: draft tokens, proposed from the context itself.
 * In:  the context, and how earlier draft tokens did.
 * Out: guesses of the tokens that follow the context.
 *
 * If the last few tokens occurred before, the tokens that followed them then may follow now: prompt
 * lookup decoding (Saxena 2023). Summaries, edits and code repeat themselves, other text does not.
 * So the number of draft tokens follows their success, and proposing pauses after failures. The
 * answer never depends on it: draft tokens run together with the token before them, and give the
 * same logits as one by one (docs/design.md, law 5). */
#include "engine/engine.h"

#include <assert.h>
#include <string.h>

enum {
    MATCH = 3, // last tokens that must have occurred before
    FIRST_DRAFT = 3,
    MAX_PAUSE = 64 // tokens between two tries while draft tokens keep failing
};

int qp_draft_propose(struct draft *d, const quip_token *context, int n, quip_token *draft, int max)
{
    assert(n >= 0 && max >= 0 && max <= MAX_DRAFT);
    const int n_max = qp_min(d->n_next ? d->n_next : FIRST_DRAFT, max);
    if (d->pause > 0) {
        d->pause--;
        return 0;
    }
    for (int at = n - MATCH - 1; at >= 0 && n_max > 0; at--) {
        if (memcmp(context + at, context + n - MATCH, MATCH * sizeof *context))
            continue;
        d->begin = n;
        d->n = qp_min(n - at - MATCH, n_max);
        memcpy(draft, context + at + MATCH, (size_t)d->n * sizeof *draft);
        return d->n;
    }
    return 0;
}

void qp_draft_result(struct draft *d, int n_right)
{
    assert(n_right >= 0 && n_right <= d->n);
    if (n_right == 0) {
        const int longer = d->next_pause ? d->next_pause * 2 : 1;
        d->pause = d->next_pause = qp_min(longer, MAX_PAUSE);
        d->n_next = FIRST_DRAFT;
        return;
    }
    d->n_next = qp_min(n_right == d->n ? 2 * d->n + 1 : n_right + 1, MAX_DRAFT);
    d->next_pause = 0;
}
