/* self_test.c: does a device compute what the CPU computes?
 * In:  a device that no session uses now.
 * Out: QUIP_OK, or QUIP_E_UNSUPPORTED with a sentence.
 *
 * A driver may compile a shader wrongly and report nothing, so the numbers are looked at. The lower
 * layers of the model run on the device and on the CPU: a few rows, a prompt of many, a short one
 * behind it, and then one token. Each gives logits, which must agree. So every kind of kernel that
 * the model's text needs has run once: products and attention of many rows, of some, of few and of
 * one, of every type of weights; attention in one part and in several; the output and the most
 * likely token. */
#include "engine/engine.h"
#include "engine/probe.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What runs, one after the other. A first token attends to itself alone, so that a lost key makes
 * logits NaN; the fourth to few. Then more rows than a GPU multiplies one by one, with more keys
 * than it reads at once; some; and one (FEW_ROWS, SOME_ROWS). */
enum {
    RUN_FEW,
    RUN_PROMPT,
    RUN_SHORT,
    RUN_TOKEN,
    N_RUNS
};

enum {
    TEST_ROWS = 148,  // of the longest prompt
    WHOLE_PROMPT = 24 // of models whose layers must all run
};

static const char *const run_names[N_RUNS] = { "a few tokens", "a prompt", "a short prompt",
                                               "a token" };

/* Eight layers have all kinds: with and without a window, with a convolution, with experts. But a
 * wrong attention hardly shows after them: a token's own embedding is most of the logits of Gemma,
 * and each layer adds roundings. So two layers run with embeddings that are a 16th; and one whose
 * scores are a 10th, which attends to all keys nearly alike, so that none can be lost. Eight layers
 * have no few rows: in some models the first tokens become so large that the CPU and a right GPU
 * round them to something else. */
static const struct test_stage {
    int n_layers;                     // behind those before the first attention
    float embed_factor, query_factor; // of embed_scale and query_scale
    int n[N_RUNS];                    // tokens
} stages[] = { { 8, 1, 1, { 0, TEST_ROWS, 12, 1 } },
               { 2, 1.0f / 16, 1, { 4, TEST_ROWS, 12, 1 } },
               { 1, 1.0f / 16, 1.0f / 10, { 0, TEST_ROWS, 0, 1 } } };

/* A difference is the root mean square of it, as a share of that of the CPU's logits.
 *
 * With float32 weights it is 1.2e-6 on lavapipe. With integers, the device rounds other numbers
 * than the CPU, and layers make that larger: to 0.006 to 0.1 in tiny models, 0.02 in SmolLM2 135M,
 * and 0.44 with random weights in the shape of Gemma 3 270M. So the CPU runs the model once more
 * with two numbers that are slightly different, and rounds others, too. The device may differ from
 * the first run ROUNDINGS times as much as the second run does; docs/notes/gpu.md has what right
 * kernels reach, and the faults that are found. */
#define MAX_FLOAT_DIFFERENCE 0.001
#define LEAST_DIFFERENCE 0.02
#define LEAST_OF_EXPERTS 0.35 // another one may be chosen: 0.17 and 0.29 were seen
#define MOST_DIFFERENCE 0.71
#define ROUNDINGS 5
#define EMBED_CHANGE (1.0f / 256)
#define QUERY_CHANGE (1.0f / 64)

struct self_test {
    struct device *device;
    const struct config *whole; // of the device
    quip_model model;           // what runs: fewer layers, other numbers
    int n[N_RUNS];
    struct probe probe;
    int step; // stage, run, and its logits or its most likely token
    bool is_begun;
    float *logits;      // [3, N_RUNS, vocab_size]: of the device, of the CPU, of the changed model
    double max[N_RUNS]; // difference
};

enum {
    STEPS = 2 * N_RUNS // of a stage
};

static float *logits_of(const struct self_test *t, int i, int run)
{
    return t->logits + (size_t)(i * N_RUNS + run) * (size_t)t->whole->vocab_size;
}

/* ---- what runs ---- */

/* The model has at most n layers behind those before the first attention. */
static void cut_layers(struct config *c, int n)
{
    for (int l = 0; l < c->n_layers && c->layers[l].mixer == MIXER_CONV; l++)
        n++;
    if (c->n_layers <= n)
        return;
    c->n_layers = n;
    while (c->last_kv_layer >= n ||
           (c->last_kv_layer > 0 && c->layers[c->last_kv_layer].kv_layer != c->last_kv_layer))
        c->last_kv_layer--;
}

/* As many tokens as the stage says, if the model has the positions. */
static void choose_tokens(struct self_test *t, const struct test_stage *stage, bool is_whole)
{
    const int max = t->whole->n_context_max ? t->whole->n_context_max : SELF_TEST_CONTEXT;
    int *n = t->n;
    memcpy(n, stage->n, sizeof t->n);
    if (is_whole)
        n[RUN_SHORT] = 0;
    if (max < 2 * (n[RUN_FEW] + n[RUN_SHORT] + 1))
        n[RUN_FEW] = n[RUN_SHORT] = 0;
    n[RUN_PROMPT] = qp_min(is_whole ? WHOLE_PROMPT : n[RUN_PROMPT],
                           qp_max(1, max - n[RUN_FEW] - n[RUN_SHORT] - 1));
}

static int n_tokens(const struct self_test *t)
{
    int n = 0;
    for (int i = 0; i < N_RUNS; i++)
        n += t->n[i];
    return n;
}

static void tokens_of(const struct self_test *t, int run, quip_token *tokens)
{
    int at = 0;
    for (int i = 0; i < run; i++)
        at += t->n[i];
    for (int i = 0; i < t->n[run]; i++)
        tokens[i] = qp_probe_token(t->whole, at + i);
}

/* ---- on the CPU ---- */

static quip_status run_on_cpu(struct self_test *t, int to, quip_error *error)
{
    const struct backend *cpu = qp_backend(QUIP_BACKEND_CPU);
    const struct device_options options = qp_device_options(&t->model);
    struct probe probe = { 0 };
    struct device *d;
    quip_status status = cpu->open(&d, &t->model, &options, error);
    if (status)
        return status;
    status = qp_probe_open(&probe, d, TEST_ROWS, n_tokens(t), error);
    for (int i = 0; i < N_RUNS && !status; i++) {
        quip_token tokens[TEST_ROWS];
        tokens_of(t, i, tokens);
        if (t->n[i] > 0)
            status = qp_probe_run(&probe, tokens, t->n[i], logits_of(t, to, i), NULL, error);
    }
    qp_probe_close(&probe);
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

/* How much the logits of the device may differ: `found` is what the changed model's do after this
 * run, `most` after any. */
static double limit_of(const struct config *c, double found, double most)
{
    const double least = c->experts.n > 0 ? LEAST_OF_EXPERTS : LEAST_DIFFERENCE,
                 max = ROUNDINGS * (found > most / 2 ? found : most / 2);
    return max < least ? least : max > MOST_DIFFERENCE ? MOST_DIFFERENCE : max;
}

/* What the CPU computes, and how much the device may differ from it. */
static quip_status run_reference(struct self_test *t, quip_error *error)
{
    struct config *c = &t->model.config;
    const struct config same = *c;
    double found[N_RUNS] = { 0 }, most = 0;
    quip_status status = run_on_cpu(t, 1, error);
    for (int i = 0; i < N_RUNS; i++)
        t->max[i] = MAX_FLOAT_DIFFERENCE;
    if (status || !t->model.weights.has_integer)
        return status;
    c->embed_scale *= 1 + EMBED_CHANGE;
    c->query_scale *= 1 + QUERY_CHANGE;
    status = run_on_cpu(t, 2, error);
    *c = same;
    for (int i = 0; i < N_RUNS && !status; i++) {
        if (t->n[i] > 0)
            found[i] = relative_difference(logits_of(t, 1, i), logits_of(t, 2, i), c->vocab_size);
        most = found[i] > most ? found[i] : most;
    }
    for (int i = 0; i < N_RUNS; i++)
        t->max[i] = limit_of(c, found[i], most);
    return status;
}

/* ---- on the device ---- */

static quip_status open_stage(struct self_test *t, const struct test_stage *stage,
                              quip_error *error)
{
    struct config *c = &t->model.config;
    // the layers of a per-layer embedding are adjacent: all of them run, and then some without it
    const bool is_whole = t->whole->d_ple > 0 && stage == stages;
    *c = *t->whole;
    if (!is_whole) {
        cut_layers(c, stage->n_layers);
        c->d_ple = 0;
    }
    c->embed_scale *= stage->embed_factor;
    c->query_scale *= stage->query_factor;
    choose_tokens(t, stage, is_whole);
    t->device->config = c;
    return qp_probe_open(&t->probe, t->device, TEST_ROWS, n_tokens(t), error);
}

static void close_stage(struct self_test *t)
{
    qp_probe_close(&t->probe);
    t->device->config = t->whole;
}

static quip_status compare_run(const struct self_test *t, int run, quip_error *error)
{
    const struct config *c = &t->model.config;
    const double found =
        relative_difference(logits_of(t, 1, run), logits_of(t, 0, run), c->vocab_size);
    return found <= t->max[run]
               ? QUIP_OK
               : qp_fail(error, QUIP_E_UNSUPPORTED,
                         "the gpu or its driver computes wrongly: after %d layers, logits of %s "
                         "differ from the CPU's by %.2g of their size, at most %.2g is allowed; "
                         "use the cpu",
                         c->n_layers, run_names[run], found, t->max[run]);
}

static quip_status check_best(const struct self_test *t, int run, quip_token best,
                              quip_error *error)
{
    const int vocab_size = t->whole->vocab_size;
    const float *logits = logits_of(t, 0, run);
    if (best < 0 || best >= vocab_size)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "the gpu or its driver computes wrongly: it drew token %d, ids of this "
                       "model are 0 to %d; use the cpu",
                       (int)best, vocab_size - 1);
    for (int i = 0; i < vocab_size; i++)
        if (logits[i] > logits[best])
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "the gpu or its driver computes wrongly: it drew token %d, and token "
                           "%d is more likely; use the cpu",
                           (int)best, i);
    return QUIP_OK;
}

/* ---- step by step ---- */

static int run_of(const struct self_test *t)
{
    return t->step / 2 % N_RUNS;
}

/* The CPU runs while the device does. */
static quip_status begin_test_step(struct self_test *t, quip_error *error)
{
    const int run = run_of(t);
    const bool is_first = t->step % STEPS == 0, draws = t->step % 2 == 1;
    quip_token tokens[TEST_ROWS];
    quip_status status = is_first ? open_stage(t, &stages[t->step / STEPS], error) : QUIP_OK;
    tokens_of(t, run, tokens);
    if (!status && t->n[run] > 0)
        status = qp_probe_begin(&t->probe, tokens, draws ? 0 : t->n[run], draws, error);
    if (!status && is_first)
        status = run_reference(t, error);
    t->is_begun = !status;
    return status;
}

static quip_status end_test_step(struct self_test *t, bool wait, quip_error *error)
{
    const int run = run_of(t);
    const bool draws = t->step % 2 == 1;
    quip_token best = -1;
    quip_status status = QUIP_OK;
    if (t->n[run] > 0)
        status = qp_probe_end(&t->probe, wait, logits_of(t, 0, run), draws ? &best : NULL, error);
    if (!status && t->n[run] > 0)
        status = draws ? check_best(t, run, best, error) : compare_run(t, run, error);
    if (status)
        return status;
    t->is_begun = false;
    if (++t->step % STEPS == 0)
        close_stage(t);
    return QUIP_OK;
}

quip_status qp_self_test_open(struct self_test **test, struct device *d, const quip_model *m,
                              quip_error *error)
{
    const size_t n = 3 * N_RUNS * (size_t)d->config->vocab_size;
    struct self_test *t = calloc(1, sizeof *t);
    *test = t;
    if (!t || !(t->logits = malloc(n * sizeof *t->logits))) {
        free(t);
        *test = NULL;
        return qp_fail_memory(error, "a self-test", n * sizeof *t->logits);
    }
    t->device = d;
    t->whole = d->config;
    memcpy(&t->model, m, sizeof t->model);
    return QUIP_OK;
}

void qp_self_test_close(struct self_test *t)
{
    if (!t)
        return;
    close_stage(t);
    free(t->logits);
    free(t);
}

quip_status qp_self_test_run(struct self_test *t, bool wait, quip_error *error)
{
    quip_status status = QUIP_OK;
    while (!status && t->step < (int)QP_COUNT(stages) * STEPS)
        status = t->is_begun ? end_test_step(t, wait, error) : begin_test_step(t, error);
    return status;
}

quip_status qp_device_self_test(struct device *d, const quip_model *m, quip_error *error)
{
    struct self_test *t;
    quip_status status = qp_self_test_open(&t, d, m, error);
    if (!status)
        status = qp_self_test_run(t, true, error);
    qp_self_test_close(t);
    return status;
}

#if defined(__wasm__)
quip_status qp_session_check(quip_session *s, quip_error *error)
{
    static struct self_test *test; // that is running; one worker makes all calls
    const struct capacity capacity = qp_device_capacity(SELF_TEST_CONTEXT, 0);
    struct device *d;
    quip_status status = qp_device_open(&d, s->model, &capacity, error);
    if (!status && !test)
        status = qp_self_test_open(&test, d, s->model, error);
    if (!status)
        status = qp_self_test_run(test, false, error);
    if (status == QP_NOT_YET)
        return status;
    qp_self_test_close(test);
    test = NULL;
    return status;
}
#endif
