/* self_test.c: does a device compute what the CPU computes?
 * In:  a device of a model, as it was opened.
 * Out: QUIP_OK, or QUIP_E_UNSUPPORTED with a sentence.
 *
 * A driver may compile a shader wrongly and report nothing, so the numbers are looked at. The first
 * layers of the model run on the device and on the CPU: a prompt of many rows, a short one behind
 * it, and then one token. Each gives logits, which must agree. So every kind of kernel that the
 * model's text needs has run once: products of many rows, of some and of one, of every type of
 * weights; attention in one part and in several; the output and the most likely token. */
#include "engine/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEST_LAYERS = 8,       // all kinds are among them; after one, a wrong attention hardly shows
    TEST_PROMPT = 148,     // more than the keys of one part of attention on the GPU
    TEST_SHORT = 12,       // a GPU has kernels of their own for these (FEW_ROWS, SOME_ROWS)
    TEST_PROMPT_WHOLE = 24 // of models whose layers must all run
};

/* A difference is the root mean square of it, as a share of that of the CPU's logits.
 *
 * With float32 weights it is 1.2e-6 on lavapipe. With integers, the device rounds other numbers
 * than the CPU, and layers make that larger: to 0.006 to 0.1 in tiny models, 0.02 in SmolLM2 135M,
 * 0.11 in Qwen2.5 0.5B, and 0.44 with random weights in the shape of Gemma 3 270M. So the CPU runs
 * the model once more with two numbers that are slightly different, and rounds others, too. The
 * device may differ from the first run ROUNDINGS times as much as the second run does. Found are at
 * most 1.8 times; in SmolLM2 135M, 13 times if rotations have the wrong sign and 15 times if keys
 * are lost. */
#define MAX_FLOAT_DIFFERENCE 0.001
#define LEAST_DIFFERENCE 0.02
#define MOST_DIFFERENCE 0.71
#define ROUNDINGS 5
#define EMBED_CHANGE (1.0f / 256)
#define QUERY_CHANGE (1.0f / 64)

/* The model has at most n layers. */
static void cut_layers(struct config *c, int n)
{
    if (c->n_layers <= n)
        return;
    c->n_layers = n;
    while (c->last_kv_layer >= n ||
           (c->last_kv_layer > 0 && c->layers[c->last_kv_layer].kv_layer != c->last_kv_layer))
        c->last_kv_layer--;
}

/* ---- compare ---- */

/* What runs, one after the other; 0: not this. */
enum {
    N_RUNS = 3
};

static const char *const run_names[N_RUNS] = { "a prompt", "a short prompt", "a token" };

/* Logits after each run, [N_RUNS, vocab_size], and the tokens that follow. */
static quip_status run_test(struct device *d, const int n[N_RUNS], float *logits, quip_token *best,
                            quip_error *error)
{
    quip_token tokens[TEST_PROMPT + TEST_SHORT + 1];
    struct probe probe;
    const int n_all = n[0] + n[1] + n[2];
    for (int i = 0; i < n_all; i++)
        tokens[i] = qp_probe_token(d->config, i);
    quip_status status = qp_probe_open(&probe, d, n[0], n_all, error);
    for (int i = 0, at = 0; i < N_RUNS && !status; at += n[i++])
        if (n[i] > 0)
            status =
                qp_probe_run(&probe, tokens + at, n[i],
                             logits + (size_t)i * (size_t)d->config->vocab_size, &best[i], error);
    qp_probe_close(&probe);
    return status;
}

static quip_status run_test_on_cpu(const quip_model *m, const int n[N_RUNS], float *logits,
                                   quip_error *error)
{
    struct device *d;
    quip_token best[N_RUNS];
    const struct device_options options = qp_device_options(m);
    const struct backend *cpu = qp_backend(QUIP_BACKEND_CPU);
    quip_status status = cpu->open(&d, m, &options, error);
    if (status)
        return status;
    status = run_test(d, n, logits, best, error);
    cpu->close(d);
    return status;
}

/* Root mean square of the difference, of that of `want`; infinite if it is not a number. */
static double relative_difference(const float *want, const float *got, int n)
{
    double sum = 0, square = 0;
    for (int i = 0; i < n; i++) {
        const double d = (double)got[i] - (double)want[i];
        sum += d * d;
        square += (double)want[i] * (double)want[i];
    }
    const double found = sqrt(sum) / (sqrt(square) + 1e-30);
    return isnan(found) ? INFINITY : found;
}

static quip_status compare_devices(const struct config *c, const int n[N_RUNS], const float *want,
                                   const float *got, const quip_token *best, double max,
                                   quip_error *error)
{
    for (int i = 0; i < N_RUNS; i++) {
        const float *row = got + (size_t)i * (size_t)c->vocab_size;
        if (n[i] == 0)
            continue;
        const double found =
            relative_difference(want + (size_t)i * (size_t)c->vocab_size, row, c->vocab_size);
        if (!(found <= max))
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "the gpu or its driver computes wrongly: after %d layers, logits of %s "
                           "differ from the CPU's by %.2g of their size, at most %.2g is allowed; "
                           "use the cpu",
                           c->n_layers, run_names[i], found, max);
        if (best[i] < 0 || best[i] >= c->vocab_size)
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "the gpu or its driver computes wrongly: it drew token %d, ids of this "
                           "model are 0 to %d; use the cpu",
                           (int)best[i], c->vocab_size - 1);
        for (int t = 0; t < c->vocab_size; t++)
            if (row[t] > row[best[i]])
                return qp_fail(
                    error, QUIP_E_UNSUPPORTED,
                    "the gpu or its driver computes wrongly: it drew token %d, and token "
                    "%d is more likely; use the cpu",
                    (int)best[i], t);
    }
    return QUIP_OK;
}

/* How much logits of the device may differ from `want`, those of the CPU. */
static quip_status measure_limit(const quip_model *m, const int n[N_RUNS], const float *want,
                                 double *max, quip_error *error)
{
    const size_t vocab_size = (size_t)m->config.vocab_size;
    quip_model *other;
    float *logits;
    quip_status status = QUIP_OK;
    double found = 0;
    *max = MAX_FLOAT_DIFFERENCE;
    if (!m->weights.has_integer)
        return QUIP_OK;
    other = malloc(sizeof *other);
    logits = malloc(N_RUNS * vocab_size * sizeof *logits);
    if (!other || !logits) {
        status = qp_fail_memory(error, "a self-test", N_RUNS * vocab_size * sizeof *logits);
    } else {
        memcpy(other, m, sizeof *other);
        other->config.embed_scale *= 1 + EMBED_CHANGE;
        other->config.query_scale *= 1 + QUERY_CHANGE;
        status = run_test_on_cpu(other, n, logits, error);
    }
    for (size_t i = 0; i < N_RUNS && !status; i++) {
        const double one = n[i] > 0 ? relative_difference(want + i * vocab_size,
                                                          logits + i * vocab_size, (int)vocab_size)
                                    : 0;
        found = one > found ? one : found;
    }
    *max = ROUNDINGS * found;
    if (*max < LEAST_DIFFERENCE)
        *max = LEAST_DIFFERENCE;
    if (*max > MOST_DIFFERENCE)
        *max = MOST_DIFFERENCE;
    free(other);
    free(logits);
    return status;
}

quip_status qp_device_self_test(struct device *d, const quip_model *m, quip_error *error)
{
    const struct config *whole = d->config;
    const bool is_cut = whole->d_ple == 0; // the layers of a per-layer embedding are adjacent
    const size_t vocab_size = (size_t)whole->vocab_size;
    const int max = whole->n_context_max ? whole->n_context_max - 1 : TEST_PROMPT + TEST_SHORT;
    const int n_prompt = qp_max(1, qp_min(is_cut ? TEST_PROMPT : TEST_PROMPT_WHOLE, max));
    const int n[N_RUNS] = { n_prompt, max >= TEST_PROMPT + TEST_SHORT && is_cut ? TEST_SHORT : 0,
                            1 };
    quip_model *part = malloc(sizeof *part);
    float *logits = malloc(2 * N_RUNS * vocab_size * sizeof *logits);
    quip_token best[N_RUNS] = { -1, -1, -1 };
    double max_difference = 0;
    quip_status status = QUIP_OK;
    if (!part || !logits) {
        status = qp_fail_memory(error, "a self-test", 2 * N_RUNS * vocab_size * sizeof *logits);
    } else {
        memcpy(part, m, sizeof *part);
        if (is_cut)
            cut_layers(&part->config, TEST_LAYERS);
        d->config = &part->config;
        status = run_test(d, n, logits, best, error);
        if (!status)
            status = run_test_on_cpu(part, n, logits + N_RUNS * vocab_size, error);
        if (!status)
            status = measure_limit(part, n, logits + N_RUNS * vocab_size, &max_difference, error);
        if (!status)
            status = compare_devices(&part->config, n, logits + N_RUNS * vocab_size, logits, best,
                                     max_difference, error);
        d->config = whole;
    }
    free(part);
    free(logits);
    return status;
}
