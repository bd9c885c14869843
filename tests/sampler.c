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
        { 1, 0, 1 },        { 0.7f, 0, 1 },      { 1, 5, 1 },     { 1, 0, 0.6f },
        { 1.5f, 12, 0.8f }, { 0.5f, 49, 0.99f }, { 2, 2, 0.01f }, { 1, 500, 0.5f },
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
    assert_int_equal(sample(&(struct sampling){ 0, 0, 1 }, 0, NULL, logits), 17);
    assert_int_equal(sample(&(struct sampling){ 1, 1, 1 }, 0, NULL, logits), 17);
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
        const struct sampling sampling = { temperatures[i], 0, 0.9f };
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
        const struct sampling sampling = { 1, top_k[i], 0.9f };
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
    static const struct sampling cases[] = {
        { 0, 0, 1 }, { 1, 0, 1 }, { 1, 2, 1 }, { 1, 0, 0.5f }
    };
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
        cmocka_unit_test(test_shares),        cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_almost_greedy), cmocka_unit_test(test_logits_that_are_not_finite),
        cmocka_unit_test(test_mask),          cmocka_unit_test(test_philox),
        cmocka_unit_test(test_uniform),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
