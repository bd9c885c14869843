/* family_oddities.c: what checkpoints of the newer families look like in the wild: other names of
 * tensors and of models, keys that are missing or of an older version, tensors that are there
 * twice. Each becomes the model that the reference makes of it, or is refused with a sentence.
 * In:  fixtures of data/golden-2, with one change.
 * Out: the logits of the fixture, or the message. */
#include "convert/convert.h"
#include "model/model.h"
#include "support/check.h"
#include "support/golden2.h"
#include "support/shared.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FOLDER "test-oddities"

/* ---- changed fixtures ---- */

static char *text_of(const char *fixture, const char *file, size_t *n)
{
    char name[200];
    snprintf(name, sizeof name, "data/golden-2/%s/%s", fixture, file);
    need_shared(name);
    char *data = read_whole(shared_path(name), n);
    data = realloc(data, *n + 1);
    assert_non_null(data);
    data[*n] = 0;
    return data;
}

/* `text` with the first `from`, or all of them, replaced; frees `text`. */
static char *replaced(char *text, const char *from, const char *to, bool all)
{
    struct bytes out = { 0 };
    const char *p = text, *found = strstr(text, from);
    if (!found)
        fail_msg("nothing to replace: %s", from);
    for (; found; found = all ? strstr(p, from) : NULL) {
        assert_true(qp_bytes_append(&out, p, (size_t)(found - p)) &&
                    qp_bytes_append_text(&out, to));
        p = found + strlen(from);
    }
    assert_true(qp_bytes_append_text(&out, p) && qp_bytes_append(&out, "", 1));
    free(text);
    text = malloc(out.n);
    assert_non_null(text);
    memcpy(text, out.data, out.n);
    qp_bytes_close(&out);
    return text;
}

/* A folder with the fixture's tokenizer, its config.json with the edits of `config` ("from\tto",
 * NULL after the last), and its tensors, in whose names every `name` is replaced. */
static void make_folder(const char *fixture, const char *const *config, const char *name,
                        const char *new_name)
{
    static const char *const files[] = { "tokenizer.json", "tokenizer_config.json" };
    size_t n;
    assert_int_equal(system("rm -rf " FOLDER " && mkdir " FOLDER), 0);
    for (size_t i = 0; i < QP_COUNT(files); i++) {
        char path[100];
        char *data = text_of(fixture, files[i], &n);
        snprintf(path, sizeof path, FOLDER "/%s", files[i]);
        save_file(path, data, n);
        free(data);
    }
    char *json = text_of(fixture, "config.json", &n);
    for (; config && *config; config++) {
        char edit[300];
        snprintf(edit, sizeof edit, "%s", *config);
        char *to = strchr(edit, '\t');
        assert_non_null(to);
        *to = 0;
        json = replaced(json, edit, to + 1, false);
    }
    save_file(FOLDER "/config.json", json, strlen(json));
    free(json);

    char *data = text_of(fixture, "model.safetensors", &n);
    uint64_t n_header;
    memcpy(&n_header, data, sizeof n_header);
    struct bytes all = { 0 };
    char *header = calloc(1, n_header + 1);
    assert_non_null(header);
    memcpy(header, data + 8, n_header);
    if (name)
        header = replaced(header, name, new_name, true);
    const uint64_t n_new = strlen(header);
    assert_true(qp_bytes_append(&all, &n_new, 8) && qp_bytes_append(&all, header, n_new) &&
                qp_bytes_append(&all, data + 8 + n_header, n - 8 - n_header));
    save_file(FOLDER "/model.safetensors", all.data, all.n);
    qp_bytes_close(&all);
    free(header);
    free(data);
}

static quip_model *open_folder(void)
{
    const struct convert_options options = { .weights = CONVERT_F32 };
    quip_error error = { 0 };
    quip_model *model;
    check(qp_convert(FOLDER, FOLDER "/out.bin", &options, &error), &error);
    check(quip_model_open(&model, FOLDER "/out.bin", NULL, &error), &error);
    return model;
}

/* ---- right ---- */

/* Checkpoints that mean the fixture. */
static const struct same {
    const char *fixture, *what, *config[4];
    const char *name, *new_name; // in the names of tensors
} same[] = {
    { "gpt2", "with the prefix of GPT2LMHeadModel", { NULL }, "\"h.", "\"transformer.h." },
    { "gpt2", "no n_inner", { "  \"n_inner\": null,\n\t" }, NULL, NULL },
    { "gpt2", "not said to be tied", { "\"tie_word_embeddings\"\t\"x\"" }, NULL, NULL },
    { "gptneox", "without the prefix gpt_neox", { NULL }, "\"gpt_neox.", "\"" },
    { "gptneox",
      "keys that older Pythias lack",
      { "\"use_parallel_residual\"\t\"x\"", "\"attention_bias\"\t\"y\"", "\"rotary_pct\"\t\"z\"" },
      NULL,
      NULL },
    { "gptneox",
      "keys that transformers ignores",
      { "\"rotary_pct\"\t\"partial_rotary_factor\": 0.5, \"rope_theta\": 77, \"rotary_pct\"" },
      NULL,
      NULL },
    { "stablelm2-bias",
      "keys of stablelm_epoch",
      { "{\t{\"rope_pct\": 0.5, \"norm_eps\": 0.5, " },
      NULL,
      NULL },
    { "gpt2", "two names that agree", { "{\t{\"num_hidden_layers\": 2, " }, NULL, NULL },
    { "granite", "muP keys as whole numbers", { "12.0\t12", "8.0\t8" }, NULL, NULL },
    { "stablelm2-bias",
      "stablelm_epoch",
      { "\"stablelm\"\t\"stablelm_epoch\"", "\"partial_rotary_factor\"\t\"rope_pct\"",
        "\"layer_norm_eps\"\t\"norm_eps\"" },
      NULL,
      NULL },
    { "falcon7b",
      "RefinedWebModel",
      { "\"falcon\"\t\"RefinedWebModel\"", "\"num_attention_heads\"\t\"n_head\"",
        "\"num_hidden_layers\"\t\"n_layer\"" },
      NULL,
      NULL },
    { "falcon7b",
      "a num_kv_heads that has no meaning",
      { "{\t{\"num_kv_heads\": 7, " },
      NULL,
      NULL },
    { "falcon7b",
      "a num_key_value_heads that has no meaning",
      { "{\t{\"num_key_value_heads\": 3, " },
      NULL,
      NULL },
    { "starcoder2",
      "no use_bias, not said to be tied",
      { "\"use_bias\"\t\"x\"", "\"tie_word_embeddings\"\t\"y\"" },
      NULL,
      NULL },
    { "cohere", "not said to be tied", { "\"tie_word_embeddings\"\t\"x\"" }, NULL, NULL },
    { "cohere",
      "no logit_scale, no layer_norm_eps",
      { "\"logit_scale\"\t\"x\"", "\"layer_norm_eps\"\t\"y\"" },
      NULL,
      NULL },
    { "olmo2", "inside of another model", { NULL }, "\"model.", "\"model.language_model." },
    { "gemma4-dense",
      "images that attend to both sides",
      { "\"use_bidirectional_attention\": null\t\"use_bidirectional_attention\": \"vision\"" },
      NULL,
      NULL },
    { "gemma4-dense",
      "a cap of scores that has no meaning",
      { "{\t{\"attn_logit_softcapping\": 0.5, " },
      NULL,
      NULL },
    { "llama-bias", "the activation under another name", { "\"silu\"\t\"swish\"" }, NULL, NULL },
    { "qwen2-moe",
      "layers that are said to be global",
      { "{\t{\"layer_types\": [\"full_attention\", \"full_attention\"], " },
      NULL,
      NULL },
};

static void test_the_same_model(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(same); i++) {
        const struct fixture fixture = { .name = same[i].fixture };
        make_folder(same[i].fixture, same[i].config, same[i].name, same[i].new_name);
        quip_model *model = open_folder();
        const float worst = fixture_difference(&fixture, model);
        printf("  %-14s %-44s %.2g\n", same[i].fixture, same[i].what, (double)worst);
        assert_true(worst <= GOLDEN2_TOLERANCE);
        quip_model_close(model);
    }
}

/* ---- what a key means ---- */

static quip_model *open_with(const char *fixture, const char *edit)
{
    const char *const edits[] = { edit, NULL };
    make_folder(fixture, edits, NULL, NULL);
    return open_folder();
}

static void test_keys(void **state)
{
    (void)state;
    quip_model *m = open_with("granite", "\"logits_scaling\"\t\"x\"");
    assert_true(m->config.logits_scale == 1);
    quip_model_close(m);
    m = open_with("granite", "\"attention_multiplier\"\t\"x\""); // the scale is 1, not 1/sqrt(head)
    assert_true(m->config.query_scale == 1);
    quip_model_close(m);
    m = open_with("gpt2", "\"gelu_new\"\t\"relu\"");
    assert_int_equal(m->config.act, ACT_RELU);
    quip_model_close(m);
    m = open_with("gptneox", "\"gelu\"\t\"gelu_fast\"");
    assert_int_equal(m->config.act, ACT_GELU_TANH);
    quip_model_close(m);
    m = open_with("starcoder2", "\"sliding_window\": 8\t\"sliding_window\": null");
    assert_int_equal(m->config.layers[0].window, 0);
    quip_model_close(m);
    m = open_with("cohere", "{\t{\"model_max_length\": 4096, "); // longer than it says elsewhere
    assert_int_equal(m->config.n_context_max, 4096);
    quip_model_close(m);
    m = open_with("granite", "\"rope_scaling\": null\t\"rope_scaling\": {\"type\": \"linear\", "
                             "\"factor\": 4.0}");
    assert_true(m->config.ropes[ROPE_GLOBAL].scale == 4);
    quip_model_close(m);
    m = open_with("qwen3", "\"rope_theta\": 1000000.0\t\"x\": 0"); // Qwen3Config has this one
    assert_true(m->config.ropes[ROPE_GLOBAL].theta == 1e4f);
    quip_model_close(m);
    m = open_with("../golden/gemma2", "\"query_pre_attn_scalar\"\t\"x\"");
    assert_true(m->config.query_scale == 1.0f / 16); // of a scalar of 256
    quip_model_close(m);
    m = open_with("../golden/gemma", "{\t{\"attn_logit_softcapping\": 5.0, ");
    assert_true(m->config.attention_cap == 0); // Gemma 1 has no such key
    quip_model_close(m);
    m = open_with("starcoder2", "\"gelu_pytorch_tanh\"\t\"gelu_python_tanh\"");
    assert_int_equal(m->config.act, ACT_GELU_TANH);
    quip_model_close(m);
}

/* A session of a model with embeddings of positions has no more positions than these. */
static void test_positions(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_session *s = NULL;
    const quip_token tokens[129] = { 5 };
    make_folder("gpt2", NULL, NULL, NULL);
    quip_model *m = open_folder();
    quip_session_options options = { .n_context = 129 };
    assert_int_equal(quip_session_open(&s, m, &options, &error), QUIP_E_ARGUMENT);
    assert_non_null(strstr(error.message, "must be 0 to 128, because the model has embeddings of "
                                          "128 positions"));
    check(quip_session_open(&s, m, NULL, &error), &error); // the default is no more
    check(quip_session_prefill(s, tokens, 128, &error), &error);
    assert_int_equal(quip_session_prefill(s, tokens, 1, &error), QUIP_E_CONTEXT_FULL);
    quip_session_close(s);
    quip_model_close(m);
}

/* ---- refused ---- */

#define OLMO3_TYPES                                                                                \
    "{\t{\"layer_types\": [\"sliding_attention\", \"full_attention\", \"full_attention\"], "

static const struct refused {
    const char *fixture, *config[3];
    const char *name, *new_name, *message;
} refused[] = {
    { "gpt2",
      { "inverse_layer_idx\": false\tinverse_layer_idx\": true" },
      NULL,
      NULL,
      "scale_attn_by_inverse_layer_idx is true" },
    { "gpt2",
      { "\"scale_attn_weights\": true\t\"scale_attn_weights\": false" },
      NULL,
      NULL,
      "scale_attn_weights is false" },
    { "gpt2",
      { "cross_attention\": false\tcross_attention\": true" },
      NULL,
      NULL,
      "add_cross_attention is true" },
    { "gpt2",
      { "\"gelu_new\"\t\"quick_gelu\"" },
      NULL,
      NULL,
      "activation_function is \"quick_gelu\"" },
    { "gpt2",
      { "\"vocab_size\": 320\t\"vocab_size\": 384" },
      NULL,
      NULL,
      "wte.weight is [320, 48], not [384, 48]" },
    { "gpt2",
      { "\"n_positions\": 128\t\"n_positions\": 256" },
      NULL,
      NULL,
      "wpe.weight is [128, 48], not [256, 48]" },
    { "gpt2", { NULL }, "0.attn.bias", "0.attn.cias", "not known: h.0.attn.cias" },
    { "falcon7b",
      { "\"parallel_attn\": true\t\"parallel_attn\": false",
        "decoder_architecture\": false\tdecoder_architecture\": true" },
      NULL,
      NULL,
      "parallel_attn is false" },
    { "falcon7b",
      { "in_parallel_attn\": null\tin_parallel_attn\": 3" },
      NULL,
      NULL,
      "num_ln_in_parallel_attn must be 1 without" },
    { "falcon7b",
      { "{\t{\"apply_residual_connection_post_layernorm\": true, " },
      NULL,
      NULL,
      "apply_residual_connection_post_layernorm is true" },
    { "falcon7b",
      { "\"multi_query\": true\t\"multi_query\": false" },
      NULL,
      NULL,
      "query_key_value.weight is [72, 56], not [168, 56]" },
    { "falcon7b",
      { "\"alibi\": false\t\"alibi\": \"no\"" },
      NULL,
      NULL,
      "alibi is not true or false" },
    { "cohere",
      { "\"use_qk_norm\": true\t\"use_qk_norm\": false" },
      NULL,
      NULL,
      "not known: model.layers.0.self_attn.k_norm.weight" },
    { "cohere",
      { "\"logit_scale\": 0.0625\t\"logit_scale\": 0" },
      NULL,
      NULL,
      "logit_scale is out of range" },
    { "granite",
      { "\"residual_multiplier\": 0.22\t\"residual_multiplier\": -1" },
      NULL,
      NULL,
      "residual_multiplier is out of range" },
    { "stablelm2",
      { NULL },
      "k_layernorm.norms.0",
      "k_layernorm.norms.9",
      "missing: model.layers.0.self_attn.k_norm.weight" },
    { "stablelm2",
      { NULL },
      "q_layernorm.norms.2",
      "q_layernorm.norms.9",
      "missing: model.layers.0.self_attn.q_layernorm.norms.2.weight" },
    { "stablelm2",
      { "\"qk_layernorm\": true\t\"qk_layernorm\": false" },
      NULL,
      NULL,
      "not known: model.layers.0.self_attn.k_layernorm.norms.0.weight" },
    { "gptneox",
      { "\"use_parallel_residual\": true\t\"use_parallel_residual\": \"false\"" },
      NULL,
      NULL,
      "use_parallel_residual is not true or false" },
    { "olmo2", { "\"olmo2\"\t\"olmo3\"" }, NULL, NULL, "has no layer_types" },
    { "olmo2",
      { "\"olmo2\"\t\"olmo3\"", OLMO3_TYPES, "500000.0\t10000.0" },
      NULL,
      NULL,
      "which transformers 4 uses in all layers" },
    { "olmo2",
      { "\"olmo2\"\t\"olmo3\"", OLMO3_TYPES,
        "{\t{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"yarn\", \"factor\": 4.0, "
        "\"rope_theta\": 1e4, \"truncate\": false}, \"sliding_attention\": {\"rope_theta\": "
        "1e4}}, " },
      NULL,
      NULL,
      "truncate is false" },
    { "olmo2",
      { "\"olmo2\"\t\"olmo3\"", OLMO3_TYPES,
        "\"rope_scaling\": null\t\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}" },
      NULL,
      NULL,
      "rope_scaling has no rope_type" },
    { "gpt2",
      { "{\t{\"num_attention_heads\": 2, " },
      NULL,
      NULL,
      "n_head and num_attention_heads mean the same, but differ" },
    { "lfm2", { "{\t{\"hidden_act\": \"gelu\", " }, NULL, NULL, "transformers ignores it" },
    { "lfm2", { "{\t{\"theta\": 300.0, " }, NULL, NULL, "write it as rope_theta" },
    { "llama-bias",
      { "{\t{\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", "
        "\"factor\": 4.0}}, " },
      NULL,
      NULL,
      "rope_parameters has one rope for each type of layer" },
    { "llama-bias",
      { "\"rope_scaling\": null\t\"rope_scaling\": {\"full_attention\": {\"factor\": 4.0}}" },
      NULL,
      NULL,
      "rope_scaling has one rope for each type of layer" },
    { "gemma4-dense",
      { "\"full_attention\": {\n\t\"all\": {", "\"sliding_attention\": {\n\t\"more\": {" },
      NULL,
      NULL,
      "rope_parameters has one rope for all layers" },
    { "gemma4-dense",
      { "{\t{\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4.0}, " },
      NULL,
      NULL,
      "rope_scaling stands beside a rope_parameters that scales too" },
    { "gemma4-dense", { "\"head_dim\": 12\t\"head_dim\": 11" }, NULL, NULL, "must be even" },
    { "gptneox",
      { "\"rotary_pct\": 0.25\t\"rotary_pct\": 0.05" },
      NULL,
      NULL,
      "so that no dimension of its heads" },
    { "starcoder2",
      { "{\t{\"layer_types\": [\"full_attention\", \"sliding_attention\"], " },
      NULL,
      NULL,
      "must be \"sliding_attention\" in all layers" },
    { "qwen2-moe",
      { "{\t{\"layer_types\": [\"full_attention\", \"sliding_attention\"], " },
      NULL,
      NULL,
      "must be \"full_attention\" in all layers" },
};

static void test_refused(void **state)
{
    (void)state;
    const struct convert_options options = { .weights = CONVERT_F32 };
    for (size_t i = 0; i < QP_COUNT(refused); i++) {
        quip_error error = { 0 };
        make_folder(refused[i].fixture, refused[i].config, refused[i].name, refused[i].new_name);
        if (!qp_convert(FOLDER, FOLDER "/out.bin", &options, &error))
            fail_msg("%s is not refused: %s", refused[i].fixture, refused[i].message);
        if (!strstr(error.message, refused[i].message))
            fail_msg("\"%s\" does not have \"%s\"", error.message, refused[i].message);
        assert_int_equal(access(FOLDER "/out.bin", F_OK), -1);
    }
}

static int drop_folder(void **state)
{
    (void)state;
    return system("rm -rf " FOLDER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_same_model),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, drop_folder);
}
