/* sampler.c (test): draws have the distribution that top_k, temperature and top_p define, for all
 * kinds of logits. */
#include "sampler/sampler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    VOCAB = 50,
    N_DRAWS = 20000
};

static float plain_sum_exp(const float *x, float max, float factor, int n)
{
    float sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] == x[i] ? expf((x[i] - max) * factor) : 0;
    return sum;
}

/* Draw number `index` with seed 7. */
static quip_token sample(const struct sampling *sampling, uint64_t index, const uint32_t *allowed,
                         const float logits[VOCAB])
{
    struct candidate candidates[VOCAB];
    float copy[VOCAB];
    const struct sampler sampler = { .candidates = candidates, .sum_exp = plain_sum_exp };
    const struct draw draw = {
        .sampling = sampling, .seed = 7, .index = index, .allowed = allowed
    };
    memcpy(copy, logits, sizeof copy);
    return qp_sample(&sampler, &draw, copy, VOCAB);
}

static void some_logits(float logits[VOCAB])
{
    uint32_t seed = 3;
    for (int i = 0; i < VOCAB; i++) {
        seed = seed * 1664525u + 1013904223u;
        logits[i] = (float)(seed >> 16) / 65536 * 6 - 3;
    }
    logits[20] = logits[10]; // a tie
}

/* The expected share of each token: computed in double, from all logits, sorted. */
static void expected_shares(double shares[VOCAB], const float logits[VOCAB], double temperature,
                            int top_k, double top_p)
{
    int order[VOCAB];
    double total = 0, kept = 0, weights[VOCAB];
    for (int i = 0; i < VOCAB; i++) {
        int at = i;
        for (; at > 0 && logits[order[at - 1]] < logits[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
        shares[i] = 0;
    }
    const int k = top_k ? top_k : VOCAB;
    for (int i = 0; i < k; i++)
        total += weights[i] = exp((logits[order[i]] - logits[order[0]]) / temperature);
    int n = 0;
    while (n < k && kept < top_p * total)
        kept += weights[n++];
    for (int i = 0; i < n; i++)
        shares[order[i]] = weights[i] / kept;
}

static void test_shares(void **state)
{
    (void)state;
    static const struct sampling cases[] = {
        { .temperature = 1, .top_k = 0, .top_p = 1 },
        { .temperature = 0.7f, .top_k = 0, .top_p = 1 },
        { .temperature = 1, .top_k = 5, .top_p = 1 },
        { .temperature = 1, .top_k = 0, .top_p = 0.6f },
        { .temperature = 1.5f, .top_k = 12, .top_p = 0.8f },
        { .temperature = 0.5f, .top_k = 49, .top_p = 0.99f },
        { .temperature = 2, .top_k = 2, .top_p = 0.01f },
        { .temperature = 1, .top_k = 500, .top_p = 0.5f },
    };
    float logits[VOCAB];
    double shares[VOCAB];
    some_logits(logits);
    for (size_t c = 0; c < QP_COUNT(cases); c++) {
        int counts[VOCAB] = { 0 };
        expected_shares(shares, logits, (double)cases[c].temperature,
                        cases[c].top_k > VOCAB ? 0 : cases[c].top_k, (double)cases[c].top_p);
        for (int i = 0; i < N_DRAWS; i++)
            counts[sample(&cases[c], (uint64_t)i, NULL, logits)]++;
        for (int i = 0; i < VOCAB; i++) {
            const double want = shares[i] * N_DRAWS;
            if (fabs(counts[i] - want) > 5 * sqrt(want))
                fail_msg("case %zu: token %d was drawn %d times, expected %.1f", c, i, counts[i],
                         want);
        }
    }
}

/* The likeliest token, and the first of equal ones, without a draw. */
static void test_greedy(void **state)
{
    (void)state;
    float logits[VOCAB];
    some_logits(logits);
    logits[31] = logits[17] = 9;
    assert_int_equal(
        sample(&(struct sampling){ .temperature = 0, .top_k = 0, .top_p = 1 }, 0, NULL, logits),
        17);
    assert_int_equal(
        sample(&(struct sampling){ .temperature = 1, .top_k = 1, .top_p = 1 }, 0, NULL, logits),
        17);
}

/* Down to temperatures whose inverse is not a finite float. */
static void test_almost_greedy(void **state)
{
    (void)state;
    static const float temperatures[] = { 1e-3f, 1e-20f, 1e-38f, 1e-42f };
    float logits[VOCAB];
    some_logits(logits);
    logits[33] = 9;
    for (size_t i = 0; i < QP_COUNT(temperatures); i++) {
        const struct sampling sampling = { .temperature = temperatures[i],
                                           .top_k = 0,
                                           .top_p = 0.9f };
        for (uint64_t draw = 0; draw < 20; draw++)
            assert_int_equal(sample(&sampling, draw, NULL, logits), 33);
    }
}

/* Logits of a damaged model: the infinite one if there is one, else any token, but a NaN only if
 * all are NaN. */
static void test_logits_that_are_not_finite(void **state)
{
    (void)state;
    static const int top_k[] = { 0, 3 };
    for (size_t i = 0; i < QP_COUNT(top_k); i++) {
        float logits[VOCAB];
        const struct sampling sampling = { .temperature = 1, .top_k = top_k[i], .top_p = 0.9f };
        some_logits(logits);
        logits[0] = logits[49] = NAN;
        logits[1] = -INFINITY;
        for (uint64_t draw = 0; draw < 1000; draw++) {
            const quip_token id = sample(&sampling, draw, NULL, logits);
            assert_true(id > 1 && id < 49);
        }
        logits[5] = INFINITY;
        assert_int_equal(sample(&sampling, 0, NULL, logits), 5);
        for (int j = 0; j < VOCAB; j++)
            logits[j] = NAN;
        assert_in_range(sample(&sampling, 0, NULL, logits), 0, VOCAB - 1);
    }
}

/* Only allowed tokens are drawn, with their relative shares, also if the logits of all allowed
 * tokens are NaN. */
static void test_mask(void **state)
{
    (void)state;
    const uint32_t allowed[] = { 1u << 3 | 1u << 9 | 1u << 31, 1u << (40 - 32) };
    static const struct sampling cases[] = { { .temperature = 0, .top_k = 0, .top_p = 1 },
                                             { .temperature = 1, .top_k = 0, .top_p = 1 },
                                             { .temperature = 1, .top_k = 2, .top_p = 1 },
                                             { .temperature = 1, .top_k = 0, .top_p = 0.5f } };
    float logits[VOCAB];
    some_logits(logits);
    logits[20] = 9; // not allowed
    for (size_t c = 0; c < QP_COUNT(cases); c++) {
        int counts[VOCAB] = { 0 };
        for (uint64_t draw = 0; draw < 2000; draw++)
            counts[sample(&cases[c], draw, allowed, logits)]++;
        assert_int_equal(counts[3] + counts[9] + counts[31] + counts[40], 2000);
        if (cases[c].temperature > 0 && cases[c].top_p == 1 && !cases[c].top_k) {
            const double ratio = exp((double)logits[9] - (double)logits[3]) * counts[3];
            assert_true(fabs(counts[9] - ratio) < 6 * sqrt(ratio) + 6);
        }
    }
    logits[3] = logits[9] = logits[31] = -INFINITY;
    logits[40] = NAN;
    for (size_t c = 0; c < QP_COUNT(cases); c++)
        assert_int_equal(sample(&cases[c], 0, allowed, logits), 3);
}

/* ---- penalties ---- */

enum {
    N_CONTEXT = 200
};

/* What the header says, token by token over the whole vocabulary, in double. */
static void plain_penalties(double to[VOCAB], const float logits[VOCAB], const struct sampling *o,
                            const quip_token *context, int n)
{
    const int begin = n > o->window ? n - o->window : 0;
    for (int id = 0; id < VOCAB; id++) {
        int count = 0, longest = 0;
        bool is_ngram = false;
        to[id] = (double)logits[id];
        for (int i = 0; i < o->n_bias; i++)
            to[id] += o->bias[i].token == id ? (double)o->bias[i].bias : 0;
        bool is_end = false;
        for (int i = 0; i < o->n_ends; i++)
            is_end = is_end || o->ends[i] == id;
        for (int at = is_end ? n : begin; at < n; at++) {
            int match = 0;
            if (context[at] != id)
                continue;
            count++;
            for (bool is_broken = false; !is_broken && at - 1 - match >= begin; match++) {
                for (int i = 0; i < o->n_dry_breakers; i++)
                    is_broken = is_broken || context[n - 1 - match] == o->dry_breakers[i];
                if (is_broken || context[at - 1 - match] != context[n - 1 - match])
                    break;
            }
            longest = match > longest ? match : longest;
            int same = 0;
            while (same < o->no_repeat_ngram - 1 && at - 1 - same >= begin &&
                   context[at - 1 - same] == context[n - 1 - same])
                same++;
            is_ngram = is_ngram || (o->no_repeat_ngram > 0 && same == o->no_repeat_ngram - 1);
        }
        if (count > 0) {
            to[id] = to[id] > 0 ? to[id] / (double)o->repeat : to[id] * (double)o->repeat;
            to[id] -= count * (double)o->frequency + (double)o->presence;
        }
        longest = longest > 64 ? 64 : longest;
        if (o->dry_multiplier > 0 && longest > 0 && longest >= o->dry_allowed_length)
            to[id] -= (double)o->dry_multiplier *
                      pow((double)o->dry_base, longest - o->dry_allowed_length);
        if (is_ngram)
            to[id] = -INFINITY;
    }
}

static void test_penalties(void **state)
{
    (void)state;
    static const quip_token breakers[] = { 4, 9 };
    static const quip_token ends[] = { 1, 3, 1 };
    static const quip_logit_bias bias[] = { { 7, 2.5f }, { 8, -INFINITY }, { 7, 1 } };
#define DRY .dry_base = 1.75f, .dry_allowed_length = 2
    static const struct sampling cases[] = {
        { .window = 64, .repeat = 1.3f },
        { .window = 5, .repeat = 1, .presence = 0.5f, .frequency = 0.25f },
        { DRY, .window = INT32_MAX, .repeat = 1, .dry_multiplier = 0.8f },
        { .window = 90,
          .repeat = 1,
          .dry_multiplier = 0.8f,
          .dry_base = 1.2f,
          .dry_breakers = breakers,
          .n_dry_breakers = 2,
          .dry_allowed_length = 1 },
        { .window = INT32_MAX, .repeat = 1, .no_repeat_ngram = 3 },
        { .window = 100, .repeat = 1, .no_repeat_ngram = 1 },
        { .window = 0, .bias = bias, .n_bias = 3 },
        { DRY, .window = 33, .repeat = 1.1f, .presence = 0.1f, .frequency = 0.2f,
          .dry_multiplier = 0.5f, .no_repeat_ngram = 4, .bias = bias, .n_bias = 3 },
        { DRY, .window = 64, .repeat = 1.2f, .presence = 0.1f, .dry_multiplier = 0.5f,
          .no_repeat_ngram = 2, .ends = ends, .n_ends = 3 },
    };
    for (unsigned seed = 0; seed < 200; seed++) {
        quip_token context[N_CONTEXT];
        const unsigned n_kinds = 2 + seed % 11, period = 1 + seed % 17;
        uint32_t random = seed;
        for (unsigned i = 0; i < N_CONTEXT; i++) { // words of few kinds, often repeated
            random = random * 1664525u + 1013904223u;
            const bool is_new = i < period || (random >> 8) % 30 == 0;
            context[i] = is_new ? (quip_token)((random >> 16) % n_kinds) : context[i - period];
        }
        for (size_t c = 0; c < QP_COUNT(cases); c++) {
            const int n = (int)(seed * 7 % (N_CONTEXT + 1));
            struct candidate scratch[VOCAB];
            float logits[VOCAB], found[VOCAB];
            double want[VOCAB];
            memset(scratch, 0x5a, sizeof scratch);
            some_logits(logits);
            memcpy(found, logits, sizeof found);
            qp_penalize(&cases[c], context, n, scratch, found, VOCAB);
            plain_penalties(want, logits, &cases[c], context, n);
            for (int i = 0; i < VOCAB; i++)
                if (isinf(want[i])
                        ? found[i] != want[i]
                        : !(fabs((double)found[i] - want[i]) <= 1e-6 * fmax(10, fabs(want[i]))))
                    fail_msg("case %zu, seed %u: token %d has logit %g, expected %g", c, seed, i,
                             (double)found[i], want[i]);
        }
    }
}

/* ---- a part of the logits ---- */

static bool is_listed(const quip_token *list, int n, quip_token id)
{
    for (int i = 0; i < n; i++)
        if (list[i] == id)
            return true;
    return false;
}

/* What a draw depends on: the tokens of `list`, and the best of the others by brute force. A token
 * that is not allowed counts as -inf, and so does a NaN. */
static int list_known(struct candidate *known, const struct draw *draw, const float *logits,
                      const quip_token *list, int n_list)
{
    const int n_best = qp_sample_n_best(draw->sampling, VOCAB);
    int n = 0;
    for (int i = 0; i < n_list; i++)
        known[n++] = (struct candidate){ logits[list[i]], list[i] };
    bool used[VOCAB] = { 0 };
    for (int k = 0; k < n_best; k++) {
        struct candidate best = { 0, -1 };
        for (int i = 0; i < VOCAB; i++) {
            const bool is_allowed = !draw->allowed || draw->allowed[i / 32] >> (i % 32) & 1;
            const float logit = is_allowed && logits[i] == logits[i] ? logits[i] : -INFINITY;
            if (used[i] || is_listed(list, n_list, i))
                continue;
            if (best.id < 0 || logit > best.logit)
                best = (struct candidate){ logit, i };
        }
        if (best.id < 0)
            break;
        used[best.id] = true;
        known[n++] = best;
    }
    return n;
}

/* With ties, infinities, NaNs, tokens with a low id that are never among the best. */
static void unusual_logits(float logits[VOCAB], uint32_t seed)
{
    for (int i = 0; i < VOCAB; i++) {
        seed = seed * 1664525u + 1013904223u;
        logits[i] = (float)(seed >> 24 & 15) / 4 - 2;
        if (seed >> 28 == 3)
            logits[i] = seed & 1 << 20 ? -INFINITY : NAN;
    }
}

/* A draw behind up to 40 tokens, and its list: the window of its penalties, then the biased tokens.
 */
static struct draw unusual_draw(unsigned seed, const struct sampling *o, quip_token context[40],
                                quip_token list[44], int *n_window)
{
    static const uint32_t masks[][2] = { { 0xf0f0cc11, 0x3333 }, { 1 << 9, 0 } };
    const int n = (int)(seed % 41);
    *n_window = n < o->window ? n : o->window;
    for (unsigned i = 0; i < 40; i++)
        context[i] = (quip_token)((i * i + seed / 3) % 13);
    for (int i = 0; i < *n_window; i++)
        list[i] = context[n - *n_window + i];
    for (int i = 0; i < o->n_bias; i++)
        list[*n_window + i] = o->bias[i].token;
    return (struct draw){ .sampling = o,
                          .seed = seed,
                          .index = (uint64_t)n,
                          .context = context,
                          .allowed = seed % 5 < 2 ? masks[seed % 5] : NULL };
}

/* The same token from a part of the logits as from all of them. */
static void test_known_logits(void **state)
{
    static const quip_token ends[] = { 1, 3 };
    static const quip_logit_bias bias[] = { { 7, 2.5f }, { 8, -INFINITY }, { 7, 1 } };
    static const struct sampling cases[] = {
        { .temperature = 0, .window = 20, .repeat = 1.5f, .ends = ends, .n_ends = 2 },
        { .temperature = 1, .top_k = 1, .repeat = 1, .bias = bias, .n_bias = 3 },
        { .temperature = 0.5f,
          .top_k = 12,
          .top_p = 0.95f,
          .min_p = 0.05f,
          .window = 30,
          .repeat = 1.1f,
          .ends = ends,
          .n_ends = 2 },
        { .temperature = 2, .top_k = 49, .repeat = 1 },
        { .temperature = 1,
          .top_k = 5,
          .top_p = 0.5f,
          .window = INT32_MAX,
          .repeat = 0.7f,
          .presence = -0.4f,
          .frequency = 0.2f },
        { .temperature = 0.8f,
          .top_k = 20,
          .min_p = 0.2f,
          .window = INT32_MAX,
          .repeat = 1,
          .no_repeat_ngram = 2,
          .bias = bias,
          .n_bias = 3 },
        { .temperature = 1,
          .top_k = 9,
          .window = 64,
          .repeat = 1.2f,
          .dry_multiplier = 0.8f,
          .dry_base = 1.75f,
          .dry_allowed_length = 1 },
    };
    (void)state;
    for (unsigned seed = 0; seed < 600; seed++) {
        const struct sampling *o = &cases[seed % QP_COUNT(cases)];
        quip_token context[40], list[44];
        struct candidate known[44 + VOCAB], scratch[VOCAB];
        float logits[VOCAB], copy[VOCAB];
        int n_window;
        struct draw draw = unusual_draw(seed, o, context, list, &n_window);
        unusual_logits(logits, seed);
        const struct sampler sampler = { scratch, plain_sum_exp };
        struct known_logits k = { .at = known, .window = list, .n_window = n_window };
        k.n = list_known(known, &draw, logits, list, n_window + o->n_bias);
        memcpy(copy, logits, sizeof copy);
        const quip_token want = qp_sample(&sampler, &draw, copy, VOCAB);
        memset(copy, 0x5a, sizeof copy);
        draw.context = NULL;
        const quip_token got = qp_sample_known(&sampler, &draw, &k, copy, VOCAB);
        if (got != want)
            fail_msg("seed %u: token %d, expected %d", seed, got, want);
    }
}

/* The tokens that are not in `list` and have logits of at least `least`, then those in it. */
static void list_likely(struct known_logits *k, const struct draw *draw, const float *logits,
                        const quip_token *list, int n_list, float least)
{
    k->max = -INFINITY;
    k->least = -INFINITY;
    for (int i = 0; i < VOCAB; i++) {
        const float logit = logits[i] == logits[i] ? logits[i] : -INFINITY;
        if (is_listed(list, n_list, i) ||
            (draw->allowed && !(draw->allowed[i / 32] >> (i % 32) & 1)))
            continue;
        k->max = logit > k->max ? logit : k->max;
        if (logit >= least)
            k->at[k->n++] = (struct candidate){ logit, i };
        else
            k->least = least;
    }
    k->n_best = k->n;
    for (int i = 0; i < VOCAB && k->max > -INFINITY; i++)
        if (!is_listed(list, n_list, i) && logits[i] == logits[i] &&
            (!draw->allowed || draw->allowed[i / 32] >> (i % 32) & 1))
            k->sum += exp((double)(logits[i] - k->max) / (double)draw->sampling->temperature);
    for (int i = 0; i < n_list; i++)
        k->at[k->n++] = (struct candidate){ logits[list[i]], list[i] };
}

/* The same token from a part of the logits and a sum of weights, or none if they do not decide. */
static void test_bounded_logits(void **state)
{
    static const quip_token ends[] = { 1, 3 };
    static const quip_logit_bias bias[] = { { 7, 2.5f }, { 8, -INFINITY }, { 7, 1 } };
    static const struct sampling cases[] = {
        { .temperature = 1, .repeat = 1 },
        { .temperature = 0.3f, .repeat = 1, .bias = bias, .n_bias = 3 },
        { .temperature = 0.5f,
          .top_p = 0.8f,
          .window = 30,
          .repeat = 1.1f,
          .ends = ends,
          .n_ends = 2 },
        { .temperature = 0.7f, .top_p = 0.9f, .min_p = 0.1f, .repeat = 1 },
        { .temperature = 2, .min_p = 0.3f, .window = INT32_MAX, .repeat = 0.7f, .presence = -0.4f },
        { .temperature = 1e-3f, .top_p = 0.99f, .window = 64, .repeat = 1, .no_repeat_ngram = 2 },
        { .temperature = 4, .top_k = 80, .top_p = 0.5f, .repeat = 1 },
    };
    int n_decided = 0, n_all = 0;
    (void)state;
    for (unsigned seed = 0; seed < 40000; seed++) {
        const struct sampling *o = &cases[seed % QP_COUNT(cases)];
        quip_token context[40], list[44];
        struct candidate known[44 + VOCAB], scratch[VOCAB];
        float logits[VOCAB], copy[VOCAB];
        int n_window;
        struct draw draw = unusual_draw(seed, o, context, list, &n_window);
        unusual_logits(logits, seed);
        const struct sampler sampler = { scratch, plain_sum_exp };
        struct known_logits k = { .at = known, .window = list, .n_window = n_window };
        list_likely(&k, &draw, logits, list, n_window + o->n_bias,
                    (float)(seed / 7 % 16) / 4 - 2.1f);
        k.sum *= 1 + SUM_ERROR * ((int)(seed % 3) - 1);
        memcpy(copy, logits, sizeof copy);
        const quip_token want = qp_sample(&sampler, &draw, copy, VOCAB);
        draw.context = NULL;
        const quip_token got = qp_sample_bounded(&sampler, &draw, &k, copy, VOCAB);
        if (got >= 0 && got != want)
            fail_msg("seed %u: token %d, expected %d", seed, got, want);
        n_all++;
        n_decided += got >= 0;
    }
    assert_in_range(n_decided, n_all / 2, n_all * 19 / 20);
}

/* As transformers 5.24 computes them: RepetitionPenaltyLogitsProcessor(1.5) on [3, 3, 0], and
 * NoRepeatNGramLogitsProcessor(2) on [1, 2, 1]. */
static void test_penalties_of_transformers(void **state)
{
    (void)state;
    static const quip_token repeated[] = { 3, 3, 0 }, ngram[] = { 1, 2, 1 };
    struct candidate scratch[4];
    float logits[] = { -2, 1, 0.5f, 3 };
    const struct sampling repeat = { .window = 64, .repeat = 1.5f };
    qp_penalize(&repeat, repeated, 3, scratch, logits, 4);
    assert_true(logits[0] == -3 && logits[1] == 1 && logits[2] == 0.5f && logits[3] == 2);
    const struct sampling twice = { .window = 64, .repeat = 1, .no_repeat_ngram = 2 };
    qp_penalize(&twice, ngram, 3, scratch, logits, 4);
    assert_true(logits[0] == -3 && logits[1] == 1 && logits[2] == -INFINITY && logits[3] == 2);
}

/* Tokens less likely than min_p of the best never come; the others keep their shares. */
static void test_min_p(void **state)
{
    (void)state;
    float logits[VOCAB];
    for (int i = 0; i < VOCAB; i++)
        logits[i] = -0.2f * (float)i; // shares of the best: exp(-0.1 i) at temperature 2
    const struct sampling sampling = { .temperature = 2, .min_p = 0.5f }; // keeps 0 to 6
    int counts[VOCAB] = { 0 };
    for (int i = 0; i < N_DRAWS; i++)
        counts[sample(&sampling, (uint64_t)i, NULL, logits)]++;
    double total = 0;
    for (int i = 0; i < 7; i++)
        total += exp(-0.1 * i);
    for (int i = 0; i < VOCAB; i++) {
        const double want = i < 7 ? exp(-0.1 * i) / total * N_DRAWS : 0;
        assert_true(fabs(counts[i] - want) <= 5 * sqrt(want));
    }
}

/* ---- random numbers ---- */

/* The block of zeros is a known answer of Random123 1.14, the library of the authors (kat_vectors).
 */
static void test_philox(void **state)
{
    (void)state;
    static const uint32_t zeros[] = { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 };
    uint32_t block[4], again[4];
    qp_random_block(0, 0, block);
    assert_memory_equal(block, zeros, sizeof zeros);
    qp_random_block(0, 1, again);
    assert_memory_not_equal(block, again, sizeof block);
    qp_random_block((uint64_t)1 << 32, 0, again);
    assert_memory_not_equal(block, again, sizeof block);
    qp_random_block(0, (uint64_t)1 << 32, again);
    assert_memory_not_equal(block, again, sizeof block);
}

static void test_uniform(void **state)
{
    (void)state;
    int counts[16] = { 0 };
    for (uint64_t i = 0; i < 16000; i++) {
        const double x = qp_random_uniform(i / 100, i % 100);
        assert_true(x >= 0 && x < 1);
        counts[(int)(x * 16)]++;
    }
    for (int i = 0; i < 16; i++)
        assert_in_range(counts[i], 1000 - 180, 1000 + 180);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_almost_greedy),
        cmocka_unit_test(test_logits_that_are_not_finite),
        cmocka_unit_test(test_mask),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_penalties_of_transformers),
        cmocka_unit_test(test_known_logits),
        cmocka_unit_test(test_bounded_logits),
        cmocka_unit_test(test_min_p),
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
