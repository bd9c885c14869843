/* penalties.c: logits that depend on the tokens before.
 * In:  logits, the context, the options.
 * Out: the logits, changed only for tokens that a bias names or that the window contains: there is
 *      no pass over the vocabulary.
 *
 * The steps and their order are those of transformers and llama.cpp: logit bias, repetition penalty
 * (Keskar et al. 2019, CTRL), frequency and presence penalty (OpenAI's API), DRY (p-e-w,
 * text-generation-webui #5677), n-grams that may not repeat. Unlike there, tokens that end an
 * answer are not penalized. */
#include "sampler/sampler.h"

#include "base/math.h"

#include <assert.h>
#include <math.h>

enum {
    MAX_MATCH = 64 // a longer repetition counts as this long
};

/* The last tokens of a context: [n], the newest last. `scratch` has an entry for each token of the
 * vocabulary; those of the tokens in the window are 0 between two steps. */
struct window {
    const quip_token *tokens;
    int n;
    struct candidate *scratch;
    float *logits;
    int vocab_size;
};

static void clear_scratch(const struct window *w)
{
    for (int i = 0; i < w->n; i++) {
        assert(w->tokens[i] >= 0 && w->tokens[i] < w->vocab_size);
        w->scratch[w->tokens[i]].id = 0;
    }
}

static void add_bias(const struct sampling *o, float *logits, int vocab_size)
{
    for (int i = 0; i < o->n_bias; i++)
        if (o->bias[i].token >= 0 && o->bias[i].token < vocab_size)
            logits[o->bias[i].token] += o->bias[i].bias;
}

/* Each token of the window once: its logit is divided by `repeat`, or multiplied if it is not
 * positive; then reduced by `frequency` for each occurrence, and by `presence`. */
static void penalize_tokens(const struct window *w, const struct sampling *o)
{
    for (int i = 0; i < w->n; i++)
        w->scratch[w->tokens[i]].id++;
    for (int i = 0; i < w->n; i++) {
        const quip_token id = w->tokens[i];
        const int count = w->scratch[id].id;
        if (count == 0)
            continue; // done
        const float logit = w->logits[id];
        w->logits[id] = (logit > 0 ? logit / o->repeat : logit * o->repeat) -
                        ((float)count * o->frequency + o->presence);
        w->scratch[id].id = 0;
    }
}

/* How many tokens before position `end` are those at the end of the window; at most `max`. */
static int match_length(const struct window *w, int end, int max)
{
    int n = 0;
    while (n < max && n < end && w->tokens[end - 1 - n] == w->tokens[w->n - 1 - n])
        n++;
    return n;
}

static bool is_breaker(const struct sampling *o, quip_token id)
{
    for (int i = 0; i < o->n_dry_breakers; i++)
        if (o->dry_breakers[i] == id)
            return true;
    return false;
}

/* A token that would lengthen a repetition of n >= dry_allowed_length tokens loses
 * dry_multiplier * dry_base^(n - dry_allowed_length); n is that of the longest repetition. None
 * reaches across a breaker. */
static void penalize_repetitions(const struct window *w, const struct sampling *o)
{
    int max = 0;
    while (max < w->n && max < MAX_MATCH && !is_breaker(o, w->tokens[w->n - 1 - max]))
        max++;
    if (max < o->dry_allowed_length)
        return;
    for (int end = 1; end < w->n; end++) {
        int *longest = &w->scratch[w->tokens[end]].id;
        if (w->tokens[end - 1] == w->tokens[w->n - 1])
            *longest = qp_max(*longest, match_length(w, end, max));
    }
    for (int i = 0; i < w->n; i++) {
        int *longest = &w->scratch[w->tokens[i]].id;
        if (*longest > 0 && *longest >= o->dry_allowed_length)
            w->logits[w->tokens[i]] -=
                (float)(o->dry_multiplier * qp_pow(o->dry_base, *longest - o->dry_allowed_length));
        *longest = 0;
    }
}

/* A token that would repeat n tokens of the window in a row gets probability 0. */
static void forbid_ngrams(const struct window *w, int n)
{
    for (int end = n - 1; end < w->n; end++)
        if (match_length(w, end, n - 1) == n - 1)
            w->logits[w->tokens[end]] = -INFINITY;
}

static void penalize(const struct window *w, const struct sampling *o)
{
    if (o->repeat != 1 || o->presence != 0 || o->frequency != 0)
        penalize_tokens(w, o);
    if (o->dry_multiplier > 0)
        penalize_repetitions(w, o);
    if (o->no_repeat_ngram > 0)
        forbid_ngrams(w, o->no_repeat_ngram);
}

/* What ends an answer is in the window where the template put it, and would make every answer
 * longer than the one before. */
static void penalize_all_but_ends(const struct window *w, const struct sampling *o)
{
    float kept[MAX_ENDS];
    assert(o->n_ends >= 0 && o->n_ends <= MAX_ENDS);
    for (int i = 0; i < o->n_ends; i++)
        kept[i] = w->logits[o->ends[i]];
    penalize(w, o);
    for (int i = 0; i < o->n_ends; i++)
        w->logits[o->ends[i]] = kept[i];
}

void qp_penalize(const struct sampling *o, const quip_token *context, int n,
                 struct candidate *scratch, float *logits, int vocab_size)
{
    assert(n >= 0 && vocab_size > 0);
    add_bias(o, logits, vocab_size);
    const int n_window = o->window < n ? o->window : n;
    if (n_window == 0)
        return;
    const struct window w = { .tokens = context + (n - n_window),
                              .n = n_window,
                              .scratch = scratch,
                              .logits = logits,
                              .vocab_size = vocab_size };
    clear_scratch(&w);
    penalize_all_but_ends(&w, o);
}
