/* rope.c: what config.json and GGUF say about rope becomes the frequencies and the amplitude that
 * transformers computes (modeling_rope_utils.py of 5.24.0); what is not understood is refused. */
#include "convert/hf_config.h"
#include "convert/json.h"
#include "convert/rope_scaling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/check.h"
#include "support/sample_checkpoint.h"

#define N 8 // frequencies of a head of 16

static struct hparams sample_hparams(const char *model_type)
{
    struct hparams h;
    qp_hparams_begin(&h, qp_source_of_checkpoint(model_type, false));
    h.raw.head_dim = h.raw.rope_dim = 2 * N;
    h.raw.n_heads = h.raw.n_kv_heads = 4;
    h.raw.n_layers = 2;
    h.raw.d_model = 64;
    h.raw.n_context_max = 512;
    return h;
}

static quip_status read_config(struct hparams *h, const char *model_type, const char *text,
                               quip_error *error)
{
    cJSON *json = cJSON_Parse(text);
    assert_non_null(json);
    *h = sample_hparams(model_type);
    const struct hf_reader reader = { .config = json, .aliases = h->source->aliases };
    const quip_status status = qp_rope_from_config(h, &reader, "config.json", error);
    cJSON_Delete(json);
    return status;
}

/* Frequency i of a set of divisors. */
static double frequency(const struct hparams *h, int set, int i)
{
    const struct raw_config *raw = &h->raw;
    const double divisor = raw->rope_divisors > set ? (double)h->rope_divisors[set][i]
                           : raw->rope_divisors > 0 ? (double)h->rope_divisors[0][i]
                                                    : 1;
    return pow(raw->traits.rope_theta, -2.0 * i / raw->rope_dim) / raw->rope_scaling / divisor;
}

static void check_frequencies(const char *name, const struct hparams *h, int set,
                              const double want[N])
{
    for (int i = 0; i < N; i++)
        if (fabs(frequency(h, set, i) / want[i] - 1) > 2e-6)
            fail_msg("%s: frequency %d is %.9g, expected %.9g", name, i, frequency(h, set, i),
                     want[i]);
}

/* Made with ROPE_INIT_FUNCTIONS[type](LlamaConfig(hidden_size=64, num_attention_heads=4,
 * max_position_embeddings=512, rope_parameters={..., "rope_theta": 10000.0}), "cpu", seq_len). */
static const struct formula {
    const char *rope;
    double want[2][N]; // of short texts, of texts longer than n_original
    double amplitude;
    int n_original; // 0: the length does not matter
} formulas[] = {
    { "{\"rope_type\": \"linear\", \"factor\": 4.0}",
      { { 0.25, 0.079056941, 0.025, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001,
          7.9056947e-05 } },
      1,
      0 },
    { "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
      "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 64}",
      { { 1.0, 0.24438459, 0.013042256, 0.0039528473, 0.00125, 0.00039528473, 0.00012500001,
          3.9528473e-05 } },
      1,
      0 },
    { "{\"rope_type\": \"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 128}",
      { { 1.0, 0.23717082, 0.049999997, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001,
          7.9056947e-05 } },
      1.138629436111989,
      0 },
    { "{\"rope_type\": \"yarn\", \"factor\": 40.0, \"original_max_position_embeddings\": 512, "
      "\"beta_fast\": 16.0, \"beta_slow\": 2.0, \"mscale\": 0.707, \"mscale_all_dim\": 1.5}",
      { { 1.0, 0.31622776, 0.067499995, 0.011067973, 0.00025000001, 7.9056947e-05, 2.4999999e-05,
          7.9056945e-06 } },
      0.8116769910542814,
      0 },
    { "{\"rope_type\": \"yarn\", \"factor\": 2.0, \"original_max_position_embeddings\": 256, "
      "\"attention_factor\": 0.75, \"truncate\": false}",
      { { 1.0, 0.27472413, 0.070265755, 0.016967556, 0.0049999999, 0.0015811389, 0.00050000002,
          0.00015811389 } },
      0.75,
      0 },
    { "{\"type\": \"yarn\", \"factor\": null, \"original_max_position_embeddings\": 128}",
      { { 1.0, 0.23717082, 0.049999997, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001,
          7.9056947e-05 } },
      1.138629436111989,
      0 },
    { "{\"rope_type\": \"longrope\", \"original_max_position_embeddings\": 96, "
      "\"short_factor\": [1.0, 1.1, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0], "
      "\"long_factor\": [1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 12.0, 16.0]}",
      { { 1.0, 0.28747976, 0.083333336, 0.02108185, 0.0049999999, 0.0012649111, 0.00033333333,
          7.9056947e-05 },
        { 0.66666669, 0.15811388, 0.033333335, 0.0079056947, 0.0016666667, 0.0003513642,
          8.3333332e-05, 1.9764237e-05 } },
      1.1690809980398145,
      96 },
    { "{\"type\": \"su\", \"original_max_position_embeddings\": 96, \"factor\": 8.0, "
      "\"short_factor\": [1, 1, 1, 1, 1, 1, 1, 1], \"long_factor\": [2, 2, 2, 2, 2, 2, 2, 2]}",
      { { 1.0, 0.31622776, 0.1, 0.031622779, 0.0099999998, 0.0031622779, 0.001, 0.00031622779 },
        { 0.5, 0.15811388, 0.050000001, 0.015811389, 0.0049999999, 0.0015811389, 0.00050000002,
          0.00015811389 } },
      1.206475635888512,
      96 },
    { "{\"rope_type\": \"dynamic\", \"factor\": 2.0}", // within 512 positions
      { { 1.0, 0.31622776, 0.1, 0.031622779, 0.0099999998, 0.0031622779, 0.001, 0.00031622779 } },
      1,
      0 },
};

static void test_formulas(void **state)
{
    (void)state;
    static const char *const layouts[] = { "{\"rope_theta\": 10000.0, \"rope_scaling\": %s}",
                                           "{\"rope_theta\": 10000.0, \"rope_parameters\": %s}" };
    for (size_t i = 0; i < QP_COUNT(formulas); i++)
        for (size_t k = 0; k < QP_COUNT(layouts); k++) {
            const struct formula *f = &formulas[i];
            char text[1000];
            struct hparams h;
            quip_error error = { 0 };
            snprintf(text, sizeof text, layouts[k], f->rope);
            check(read_config(&h, "llama", text, &error), &error);
            check_frequencies(f->rope, &h, 0, f->want[0]);
            if (f->n_original)
                check_frequencies(f->rope, &h, 1, f->want[1]);
            assert_int_equal(h.raw.n_context_original, f->n_original);
            assert_true(fabs(h.raw.rope_amplitude - f->amplitude) < 1e-6);
        }
}

/* Which of two descriptions counts, and what no description can say. */
static void test_config(void **state)
{
    (void)state;
    static const struct {
        const char *model_type, *text;
        double theta, scaling; // 0: it is refused
        const char *message;
    } cases[] = {
        { "llama", "{}", 1e4, 1, NULL },
        { "llama", "{\"rope_scaling\": null, \"rope_theta\": 5e5}", 5e5, 1, NULL },
        { "llama", "{\"rope_scaling\": {}, \"rope_parameters\": {\"rope_theta\": 7e4}}", 7e4, 1,
          NULL },
        { "llama",
          "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4}, \"rope_parameters\": "
          "{\"rope_type\": \"default\", \"rope_theta\": 10000}}",
          1e4, 4, NULL },
        { "llama",
          "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4}, \"rope_parameters\": "
          "{\"rope_type\": \"default\", \"rope_theta\": 500000}}",
          0, 0, "rope_scaling stands beside rope_parameters, whose rope_theta is 500000" },
        { "llama",
          "{\"rope_theta\": 500000, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2}, "
          "\"rope_parameters\": {\"rope_theta\": 500000}}",
          5e5, 2, NULL },
        { "gemma3_text",
          "{\"rope_theta\": 1e6, \"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}}",
          1e6, 8, NULL },
        { "llama", "{\"rope_scaling\": {\"rope_type\": \"linear\"}}", 0, 0,
          "the scaling factor of its rope is 0" },
        { "llama", "{\"rope_scaling\": {\"type\": \"mrope\"}}", 0, 0,
          "rope type \"mrope\" is not supported" },
        { "llama", "{\"rope_scaling\": {\"type\": \"yarn\", \"factor\": \"four\"}}", 0, 0,
          "factor of rope is not a number" },
        { "llama", "{\"rope_scaling\": {\"type\": \"llama3\", \"factor\": 8}}", 0, 0,
          "low_freq_factor and high_freq_factor" },
        { "llama",
          "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1], \"long_factor\": "
          "[1]}}",
          0, 0, "rope has 1 short factors, expected 8" },
        { "llama",
          "{\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1,1,1,1,1,1,1,0]}}", 0, 0,
          "short factor 7 of rope is 0" },
        { "llama", "{\"partial_rotary_factor\": 0.5}", 0, 0, "rotates whole heads" },
        { "gemma3_text",
          "{\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 1e6}, "
          "\"sliding_attention\": "
          "{\"rope_type\": \"linear\", \"factor\": 2}}}",
          0, 0, "rope scaling of sliding-window layers" },
        { "gemma3_text",
          "{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 2}, "
          "\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 5e5}}}",
          5e5, 2, NULL },
        { "gemma3_text", "{\"rope_parameters\": {\"rope_theta\": 5e5}}", 0, 0,
          "has one rope for all layers" },
        { "olmo3", "{}", 5e5, 1, NULL },
        { "qwen2", "{}", 1e4, 1, NULL },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct hparams h;
        quip_error error = { 0 };
        const quip_status status = read_config(&h, cases[i].model_type, cases[i].text, &error);
        if (cases[i].message) {
            assert_true(status == QUIP_E_FORMAT || status == QUIP_E_UNSUPPORTED);
            if (!strstr(error.message, cases[i].message))
                fail_msg("%s: \"%s\" is not in \"%s\"", cases[i].text, cases[i].message,
                         error.message);
            continue;
        }
        check(status, &error);
        assert_true(h.raw.traits.rope_theta == cases[i].theta);
        assert_true(h.raw.rope_scaling == cases[i].scaling);
    }
}

/* Phi-3 has the length beside the description, where it counts; it rotates a part of each head. */
static void test_phi3(void **state)
{
    (void)state;
    struct hparams h;
    quip_error error = { 0 };
    check(read_config(&h, "phi3",
                      "{\"original_max_position_embeddings\": 32, \"partial_rotary_factor\": 0.5, "
                      "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1, 1, 2], "
                      "\"long_factor\": [1, 1, 1, 3], \"original_max_position_embeddings\": 64}}",
                      &error),
          &error);
    assert_int_equal(h.raw.rope_dim, N);
    assert_int_equal(h.raw.rope_divisors, 2);
    assert_int_equal(h.raw.n_context_original, 32);
    assert_true(h.rope_divisors[0][3] == 2 && h.rope_divisors[1][3] == 3);
    assert_true(fabs(h.raw.rope_amplitude - sqrt(1 + log(16) / log(32))) < 1e-9);
    check(read_config(&h, "phi3",
                      "{\"partial_rotary_factor\": 0.5, "
                      "\"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 1, 1, 2], "
                      "\"long_factor\": [1, 1, 1, 3], \"original_max_position_embeddings\": 64}}",
                      &error),
          &error);
    assert_int_equal(h.raw.n_context_original, 4096); // of Phi3Config
}

/* ---- GGUF ---- */

static void none(struct gguf *g)
{
    (void)g;
}
static void linear(struct gguf *g)
{
    gguf_text(g, "llama.rope.scaling.type", "linear");
    gguf_f32(g, "llama.rope.scaling.factor", 4);
}
static void factor_alone(struct gguf *g)
{
    gguf_f32(g, "llama.rope.scaling.factor", 4);
}
static void old_factor(struct gguf *g)
{
    gguf_f32(g, "llama.rope.scale_linear", 4);
}
static void no_scaling(struct gguf *g)
{
    gguf_text(g, "llama.rope.scaling.type", "none");
    gguf_f32(g, "llama.rope.scaling.factor", 4);
}
static void yarn(struct gguf *g)
{
    gguf_text(g, "llama.rope.scaling.type", "yarn");
    gguf_f32(g, "llama.rope.scaling.factor", 4);
    gguf_u32(g, "llama.rope.scaling.original_context_length", 128);
}
static void yarn_attn_factor(struct gguf *g)
{
    yarn(g);
    gguf_f32(g, "llama.rope.scaling.attn_factor", 0.5f);
}
static void yarn_mixed(struct gguf *g)
{
    yarn(g);
    gguf_f32(g, "llama.rope.scaling.yarn_ext_factor", 0.5f);
}
static void yarn_whole_amplitude(struct gguf *g)
{
    yarn(g);
    gguf_f32(g, "llama.rope.scaling.yarn_attn_factor", 0.5f);
}
static void local_base(struct gguf *g)
{
    gguf_f32(g, "llama.rope.freq_base_swa", 777);
}
static void sections(struct gguf *g)
{
    gguf_list(g, "llama.rope.dimension_sections", GGUF_TYPE_I32, 4);
    for (int i = 0; i < 4; i++)
        put_u32(&g->metadata, 2);
}
static void clamp(struct gguf *g)
{
    gguf_f32(g, "llama.attention.clamp_kqv", 8);
}
static void unknown_type(struct gguf *g)
{
    gguf_text(g, "llama.rope.scaling.type", "magic");
}
static void freqs(struct gguf *g)
{
    const float divisors[HEAD_DIM / 2] = { 1, 2, 4, 8 };
    gguf_zeros(g, "rope_freqs.weight", HEAD_DIM / 2, 0, 0, sizeof divisors);
    memcpy(g->data.data + g->data.n - 32, divisors, sizeof divisors);
}
static void zero_freqs(struct gguf *g)
{
    gguf_zeros(g, "rope_freqs.weight", HEAD_DIM / 2, 0, 0, HEAD_DIM / 2 * 4);
}
static void long_freqs(struct gguf *g)
{
    gguf_zeros(g, "rope_freqs.weight", HEAD_DIM, 0, 0, HEAD_DIM * 4);
}
static void freqs_and_factor(struct gguf *g)
{
    factor_alone(g);
    freqs(g);
}

static quip_status read_gguf(struct hparams *h, void (*more)(struct gguf *g), quip_error *error)
{
    struct checkpoint c;
    write_gguf_as(&sample_llama_tied, &(struct gguf_options){ .more = more });
    check(qp_checkpoint_open(&c, in_folder("in.gguf"), &(struct convert_options){ 0 }, error),
          error);
    const quip_status status = qp_hparams_from_gguf(h, &c, error);
    qp_checkpoint_close(&c);
    return status;
}

static void test_gguf(void **state)
{
    (void)state;
    static const struct {
        void (*more)(struct gguf *g);
        double scaling, amplitude, local_theta;
        int n_divisors;
    } cases[] = {
        { none, 1, 1, 0, 0 },
        { linear, 4, 1, 0, 0 },
        { factor_alone, 4, 1, 0, 0 },
        { old_factor, 4, 1, 0, 0 },
        { no_scaling, 1, 1, 0, 0 },
        { yarn, 1, 1.138629436111989, 0, 1 },
        { yarn_attn_factor, 1, 0.5 * 1.138629436111989, 0, 1 },
        { local_base, 1, 1, 777, 0 },
        { freqs, 1, 1, 0, 1 },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct hparams h;
        quip_error error = { 0 };
        check(read_gguf(&h, cases[i].more, &error), &error);
        assert_true(h.raw.rope_scaling == cases[i].scaling);
        assert_true(fabs(h.raw.rope_amplitude - cases[i].amplitude) < 1e-6);
        assert_true(h.raw.traits.rope_local_theta == cases[i].local_theta);
        assert_int_equal(h.raw.rope_divisors, cases[i].n_divisors);
        if (cases[i].more == freqs)
            assert_true(h.rope_divisors[0][0] == 1 && h.rope_divisors[0][3] == 8);
    }
}

static void test_refused_gguf(void **state)
{
    (void)state;
    static const struct {
        void (*more)(struct gguf *g);
        const char *message;
    } cases[] = {
        { sections, "llama.rope.dimension_sections" },
        { clamp, "llama.attention.clamp_kqv" },
        { unknown_type, "rope scaling \"magic\"" },
        { yarn_mixed, "yarn_ext_factor is 0.5" },
        { yarn_whole_amplitude, "yarn_attn_factor is 0.5" },
        { zero_freqs, "rope_freqs.weight: value 0 is 0" },
        { long_freqs, "rope_freqs.weight has 8 values, expected 4" },
        { freqs_and_factor, "rope_freqs.weight and another scaling" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct hparams h;
        quip_error error = { 0 };
        assert_true(read_gguf(&h, cases[i].more, &error) != 0);
        if (!strstr(error.message, cases[i].message))
            fail_msg("\"%s\" is not in \"%s\"", cases[i].message, error.message);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_config),
        cmocka_unit_test(test_phi3),
        cmocka_unit_test_setup_teardown(test_gguf, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_refused_gguf, make_sample_folder, drop_sample_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
