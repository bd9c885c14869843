/* sampler.c (test): draws have the distribution that top_k, temperature and top_p leave, whatever
 * the logits are. */
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

static struct sampler open_sampler(float temperature, int top_k, float top_p, struct arena *a)
{
    struct sampler s = { .temperature = temperature, .top_k = top_k, .top_p = top_p };
    qp_sampler_take(&s, a, VOCAB); // measures
    assert_int_equal(qp_arena_open(a, a->used + 1, "a sampler", NULL), QUIP_OK);
    qp_sampler_take(&s, a, VOCAB);
    qp_sampler_seed(&s, 7);
    return s;
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

/* What each token's share of the draws should be: all in order, in double, by sorting. */
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
    static const struct {
        float temperature;
        int top_k;
        float top_p;
    } cases[] = { { 1, 0, 1 },        { 0.7f, 0, 1 },      { 1, 5, 1 },     { 1, 0, 0.6f },
                  { 1.5f, 12, 0.8f }, { 0.5f, 49, 0.99f }, { 2, 2, 0.01f }, { 1, 500, 0.5f } };
    float logits[VOCAB];
    double shares[VOCAB];
    some_logits(logits);
    for (size_t c = 0; c < QP_COUNT(cases); c++) {
        struct arena a = { 0 };
        struct sampler s = open_sampler(cases[c].temperature, cases[c].top_k, cases[c].top_p, &a);
        int counts[VOCAB] = { 0 };
        expected_shares(shares, logits, (double)cases[c].temperature,
                        cases[c].top_k > VOCAB ? 0 : cases[c].top_k, (double)cases[c].top_p);
        for (int i = 0; i < N_DRAWS; i++)
            counts[qp_sample(&s, logits, VOCAB)]++;
        for (int i = 0; i < VOCAB; i++) {
            const double want = shares[i] * N_DRAWS;
            if (fabs(counts[i] - want) > 5 * sqrt(want))
                fail_msg("case %zu: token %d drawn %d times, not %.1f", c, i, counts[i], want);
        }
        qp_arena_close(&a);
    }
}

/* The likeliest, and of equals the first, without a draw. */
static void test_greedy(void **state)
{
    (void)state;
    float logits[VOCAB];
    some_logits(logits);
    logits[31] = logits[17] = 9;
    struct arena a = { 0 };
    struct sampler zero = open_sampler(0, 0, 1, &a);
    assert_int_equal(qp_sample(&zero, logits, VOCAB), 17);
    qp_arena_close(&a);
    struct sampler one = open_sampler(1, 1, 1, &a);
    assert_int_equal(qp_sample(&one, logits, VOCAB), 17);
    qp_arena_close(&a);
}

/* Down to temperatures whose inverse is no float. */
static void test_almost_greedy(void **state)
{
    (void)state;
    static const float temperatures[] = { 1e-3f, 1e-20f, 1e-38f, 1e-42f };
    float logits[VOCAB];
    some_logits(logits);
    logits[33] = 9;
    for (size_t i = 0; i < QP_COUNT(temperatures); i++) {
        struct arena a = { 0 };
        struct sampler s = open_sampler(temperatures[i], 0, 0.9f, &a);
        for (int draw = 0; draw < 20; draw++)
            assert_int_equal(qp_sample(&s, logits, VOCAB), 33);
        qp_arena_close(&a);
    }
}

/* Logits of a damaged model: some token, the infinite one where there is one, never a NaN unless
 * there is nothing else. */
static void test_logits_that_are_not_finite(void **state)
{
    (void)state;
    static const int top_k[] = { 0, 3 };
    for (size_t i = 0; i < QP_COUNT(top_k); i++) {
        float logits[VOCAB];
        struct arena a = { 0 };
        struct sampler s = open_sampler(1, top_k[i], 0.9f, &a);
        some_logits(logits);
        logits[0] = logits[49] = NAN;
        logits[1] = -INFINITY;
        for (int draw = 0; draw < 1000; draw++) {
            const quip_token id = qp_sample(&s, logits, VOCAB);
            assert_true(id > 1 && id < 49);
        }
        logits[5] = INFINITY;
        assert_int_equal(qp_sample(&s, logits, VOCAB), 5);
        for (int j = 0; j < VOCAB; j++)
            logits[j] = NAN;
        assert_in_range(qp_sample(&s, logits, VOCAB), 0, VOCAB - 1);
        qp_arena_close(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_almost_greedy),
        cmocka_unit_test(test_logits_that_are_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
