/* golden2.c: tiny checkpoints of the newer families have the logits and the greedy continuations
 * of the reference implementation, in both layouts of config.json, as GGUF, and with an adapter.
 * Each detail of a family matters: without it, its golden fails. */
#include "support/golden2.h"
#include "model/model.h"
#include "support/reference_backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct fixture fixtures[] = {
    { .name = "qwen2", .has_gguf = true, .has_lora = true },
    { .name = "qwen2-untied" },
    { .name = "qwen3", .has_gguf = true },
    { .name = "llama3", .has_gguf = true, .has_lora = true },
    { .name = "llama-bias" },
    { .name = "mistral" },
    { .name = "smollm3" },
    { .name = "phi3", .has_long_factors = true, .n_short_context = 48 },
};

static void test_fixture(void **state)
{
    const struct fixture *f = *state;
    check_layouts(f);
    quip_model *model = open_fixture(f, LAYOUT_PUBLISHED);
    check_fixture(f, model);
    if (f->has_lora)
        check_fixture_lora(f, model);
    quip_model_close(model);
    check_fixture_int8(f);
    model = open_fixture(f, LAYOUT_V5);
    model->backend = &reference_backend;
    check_fixture(f, model);
    quip_model_close(model);
    if (f->has_gguf) {
        model = open_fixture_gguf(f);
        check_fixture_gguf(f, model);
        quip_model_close(model);
    }
}

/* ---- which details the goldens detect ---- */

static void no_rope(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].rope = ROPE_NONE;
}
static void rope_everywhere(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].rope = ROPE_GLOBAL;
}
static void no_divisors(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].divisors[0] = m->config.ropes[ROPE_GLOBAL].divisors[1] = NULL;
}
static void swapped_divisors(quip_model *m)
{
    struct rope *rope = &m->config.ropes[ROPE_GLOBAL];
    const float *first = rope->divisors[0];
    rope->divisors[0] = rope->divisors[1];
    rope->divisors[1] = first;
}
static void no_amplitude(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].amplitude = 1;
}
/* llama3 without interpolation: a frequency is divided by the whole factor, or not at all. */
static void no_smoothing(quip_model *m)
{
    static float divisors[8];
    const float *given = m->config.ropes[ROPE_GLOBAL].divisors[0];
    assert_int_equal(m->config.ropes[ROPE_GLOBAL].dim, 16);
    for (int i = 0; i < 8; i++)
        divisors[i] = given[i] > 1 && given[i] < 7.9f ? 1 : given[i];
    m->config.ropes[ROPE_GLOBAL].divisors[0] = divisors;
}
static void no_window(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].window = 0;
}
static void wider_window(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        if (m->config.layers[l].window)
            m->config.layers[l].window++;
}
static void window_everywhere(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].window = 8;
}
static void no_bias(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        for (int i = 0; i < N_MATRICES; i++)
            m->weights.layers[l].m[i].bias = NULL;
}
static void no_qk_norm(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].q_norm.scale = m->weights.layers[l].k_norm.scale = NULL;
}
static void swapped_gate_up(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++) {
        struct layer_weights *w = &m->weights.layers[l];
        const struct matrix gate = w->m[MATRIX_GATE];
        w->m[MATRIX_GATE] = w->m[MATRIX_UP];
        w->m[MATRIX_UP] = gate;
    }
}

static const struct detail {
    const char *fixture, *name;
    void (*leave_out)(quip_model *);
} details[] = {
    { "qwen2", "no biases of q, k and v", no_bias },
    { "qwen2", "no rope", no_rope },
    { "qwen2", "a window that is not used", window_everywhere },
    { "qwen2-untied", "no biases of q, k and v", no_bias },
    { "qwen2-untied", "no sliding window", no_window },
    { "qwen2-untied", "window one too wide", wider_window },
    { "qwen3", "no norms of q and k", no_qk_norm },
    { "llama3", "no rope scaling", no_divisors },
    { "llama3", "no smoothing of rope scaling", no_smoothing },
    { "llama-bias", "no biases", no_bias },
    { "mistral", "no sliding window", no_window },
    { "mistral", "window one too wide", wider_window },
    { "smollm3", "rope in every layer", rope_everywhere },
    { "phi3", "long factors instead of short ones", swapped_divisors },
    { "phi3", "no amplitude", no_amplitude },
    { "phi3", "no rope scaling", no_divisors },
    { "phi3", "gate and up swapped", swapped_gate_up },
    { "phi3", "no sliding window", no_window },
    { "phi3", "window one too wide", wider_window },
};

static const struct fixture *find_fixture(const char *name)
{
    for (size_t i = 0; i < QP_COUNT(fixtures); i++)
        if (strcmp(fixtures[i].name, name) == 0)
            return &fixtures[i];
    fail_msg("no fixture %s", name);
    return NULL;
}

static void test_every_detail_matters(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(details); i++) {
        const struct fixture *f = find_fixture(details[i].fixture);
        quip_model *model = open_fixture(f, LAYOUT_PUBLISHED);
        details[i].leave_out(model);
        const float worst = fixture_difference(f, model);
        printf("  %-14s %-36s %.4f\n", f->name, details[i].name, (double)worst);
        assert_true(worst > 9 * GOLDEN2_TOLERANCE);
        quip_model_close(model);
    }
}

int main(void)
{
    struct CMUnitTest tests[QP_COUNT(fixtures) + 1];
    for (size_t i = 0; i < QP_COUNT(fixtures); i++)
        tests[i] = (struct CMUnitTest){ .name = fixtures[i].name,
                                        .test_func = test_fixture,
                                        .initial_state = (void *)(uintptr_t)&fixtures[i] };
    tests[QP_COUNT(fixtures)] = (struct CMUnitTest)cmocka_unit_test(test_every_detail_matters);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
