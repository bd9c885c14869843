/* draft.c: guesses of the next tokens, from the context itself.
 * Where the last few tokens have stood before, what followed then may follow now: prompt look-up
 * (Saxena 2023). Summaries, edits and code repeat themselves, free text does not, so the number of
 * guesses follows their success and guessing pauses where it fails. The answer never depends on any
 * of it: guesses are run together with the token before them, and law 5 makes their logits those
 * of running them one by one (docs/design.md). */
#include "engine/engine.h"

#include <string.h>

enum {
    MATCH = 3, // tokens that must have stood before
    FIRST_GUESS = 3,
    MOST_PAUSE = 64 // tokens between two tries where guesses keep failing
};

int qp_draft_guess(struct draft *d, const quip_token *context, int n, quip_token *guess, int max)
{
    const int wanted = d->n_next ? d->n_next : FIRST_GUESS, most = wanted < max ? wanted : max;
    if (d->pause > 0) {
        d->pause--;
        return 0;
    }
    for (int at = n - MATCH - 1; at >= 0 && most > 0; at--) {
        if (memcmp(context + at, context + n - MATCH, MATCH * sizeof *context))
            continue;
        const int n_known = n - at - MATCH;
        d->begin = n;
        d->n = n_known < most ? n_known : most;
        memcpy(guess, context + at + MATCH, (size_t)d->n * sizeof *guess);
        return d->n;
    }
    return 0;
}

void qp_draft_result(struct draft *d, int n_right)
{
    if (n_right == 0) {
        const int longer = d->next_pause ? d->next_pause * 2 : 1;
        d->pause = d->next_pause = longer < MOST_PAUSE ? longer : MOST_PAUSE;
        d->n_next = FIRST_GUESS;
        return;
    }
    const int next = n_right == d->n ? 2 * d->n + 1 : n_right + 1;
    d->n_next = next < MAX_GUESS ? next : MAX_GUESS;
    d->next_pause = 0;
}
