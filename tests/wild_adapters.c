/* wild_adapters.c (test): configurations and names of PEFT adapters as people have them; the scale
 * of a module is the one that PEFT computes, or the adapter is refused in a sentence. */
#include "format/pattern.h"
#include "format/peft.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* ---- regular expressions ---- */

/* What Python's re.fullmatch says; -1: not supported here. */
static void test_patterns(void **state)
{
    (void)state;
    static const struct {
        const char *pattern, *text;
        int matches;
    } cases[] = {
        { "", "", 1 },
        { "", "a", 0 },
        { "a", "a", 1 },
        { "a|b", "b", 1 },
        { "a|b|", "", 1 },
        { "(a|b)c", "bc", 1 },
        { "(?:ab)*", "abab", 1 },
        { "(?:ab)*", "aba", 0 },
        { "a{2}", "aa", 1 },
        { "a{2}", "aaa", 0 },
        { "a{2,}", "aaaaa", 1 },
        { "a{,2}", "", 1 },
        { "a{1,3}b", "aaab", 1 },
        { "a{0}b", "b", 1 },
        { "a+?b??", "aa", 1 },
        { "(a*)*b", "aaaaaaaaaaaaaaaaaaaaaaaac", 0 },
        { "[a-c]+", "abc", 1 },
        { "[^a-c]+", "abc", 0 },
        { "[]a]", "]", 1 },
        { "[a-]", "-", 1 },
        { "[\\d.]+", "1.5", 1 },
        { "\\d+\\.\\w+", "12.q_proj", 1 },
        { "\\D", "1", 0 },
        { "^a$", "a", 1 },
        { "a^b", "ab", 0 },
        { ".*\\.q_proj", "layers.0.q_proj", 1 },
        { "layers.0", "layers_0", 1 },
        { "a.b", "a\nb", 0 },
        { "(?i)a", "A", -1 },
        { "(?=a)", "", -1 },
        { "\\bq", "q", -1 },
        { "(a)\\1", "aa", -1 },
        { "*a", "a", -1 },
        { "(a", "a", -1 },
        { "a)", "a", -1 },
        { "[a", "a", -1 },
        { "a{1000}", "a", -1 },
        { "((((((((((((((((((a))))))))))))))))))", "a", -1 },
    };
    static struct pattern p;
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        const char *text = cases[i].text;
        const bool is_read = qp_pattern_compile(&p, cases[i].pattern, strlen(cases[i].pattern));
        const int matches = !is_read ? -1 : qp_pattern_matches(&p, text, strlen(text));
        if (matches != cases[i].matches)
            fail_msg("\"%s\" and \"%s\": %d, expected %d", cases[i].pattern, text, matches,
                     cases[i].matches);
    }
}

static void test_long_patterns(void **state)
{
    (void)state;
    static struct pattern p;
    char text[2000];
    memset(text, 'a', sizeof text);
    assert_true(qp_pattern_compile(&p, text, MAX_PATTERN_STEPS - 1));
    assert_true(qp_pattern_matches(&p, text, MAX_PATTERN_STEPS - 1));
    assert_false(qp_pattern_compile(&p, text, MAX_PATTERN_STEPS));
    text[MAX_PATTERN_STEPS] = '|'; // an alternative where no step is left
    assert_false(qp_pattern_compile(&p, text, MAX_PATTERN_STEPS + 1));
    assert_false(qp_pattern_compile(&p, "((a{9}){9}){9}", 14));
    for (size_t i = 0; i < sizeof text; i += 2)
        text[i] = '|';
    assert_false(qp_pattern_compile(&p, text, sizeof text));
    memset(text, '(', sizeof text);
    assert_false(qp_pattern_compile(&p, text, sizeof text));
}

/* ---- configurations ---- */

static quip_status read_config(struct peft_config *c, const char *text, quip_error *error)
{
    *error = (quip_error){ 0 };
    return qp_peft_read(c, text, strlen(text), "adapter_config.json", error);
}

static void test_scales(void **state)
{
    (void)state;
    static const struct {
        const char *config, *tensor;
        int rank;
        double scale;
    } cases[] = {
#define Q7 "base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight"
#define Q17 "base_model.model.model.layers.17.self_attn.q_proj.lora_B.default.weight"
        { "{}", Q7, 8, 1 },
        { "{\"lora_alpha\": 32}", Q7, 8, 4 },
        { "{\"lora_alpha\": 32, \"use_rslora\": true}", Q7, 16, 8 },
        { "{\"alpha_pattern\": {\"q_proj\": 16}}", Q7, 8, 2 },
        { "{\"alpha_pattern\": {\"self_attn.q_proj\": 16}}", Q7, 8, 2 },
        { "{\"alpha_pattern\": {\"k_proj\": 16}}", Q7, 8, 1 },
        { "{\"alpha_pattern\": {\"_proj\": 16}}", Q7, 8, 1 },
        // anchored at the whole name of the module
        { "{\"alpha_pattern\": {\"^model.layers.7.self_attn.q_proj\": 16}}", Q7, 8, 2 },
        { "{\"alpha_pattern\": {\"^layers.7.self_attn.q_proj\": 16}}", Q7, 8, 1 },
        { "{\"alpha_pattern\": {\"layers.7.self_attn.q_proj\": 16}}", Q17, 8, 1 },
        { "{\"alpha_pattern\": {\"layers\\\\.\\\\d+\\\\.self_attn\\\\.(q|v)_proj$\": 16}}", Q17, 8,
          2 },
        { "{\"alpha_pattern\": {\".*\\\\.1[0-9]\\\\..*\": 16}}", Q17, 8, 2 },
        { "{\"alpha_pattern\": {\".*\\\\.1[0-9]\\\\..*\": 16}}", Q7, 8, 1 },
        // the first that matches
        { "{\"alpha_pattern\": {\".*7.*\": 24, \"q_proj\": 16}}", Q7, 8, 3 },
        { "\xef\xbb\xbf{\"lora_alpha\": 16, \"r\": 8, \"init_lora_weights\": \"gaussian\"}", Q7, 8,
          2 },
        { "{\"init_lora_weights\": false, \"layers_to_transform\": [1], \"x\": NaN}", Q7, 8, 1 },
        { "{\"fan_in_fan_out\": true, \"inference_mode\": true, \"peft_version\": \"0.21\"}", Q7, 8,
          1 },
        { "{\"loftq_config\": {\"loftq_bits\": 4}, \"velora_config\": {\"a\": 1}}", Q7, 8, 1 },
        { "{\"use_later\": false, \"later_config\": {}, \"megatron_core\": \"x\"}", Q7, 8, 1 },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct peft_config c;
        quip_error error;
        if (read_config(&c, cases[i].config, &error))
            fail_msg("%s: %s", cases[i].config, error.message);
        const double scale = qp_peft_scale(&c, cases[i].tensor, cases[i].rank);
        if (fabs(scale - cases[i].scale) > 1e-12)
            fail_msg("%s: %g, expected %g", cases[i].config, scale, cases[i].scale);
    }
}

static void test_refused_configs(void **state)
{
    (void)state;
    static const struct {
        const char *config, *message;
    } cases[] = {
        { "{\"init_lora_weights\": \"pissa\"}", "init_lora_weights that change" },
        { "{\"init_lora_weights\": \"pissa_niter_16\"}", "init_lora_weights that change" },
        { "{\"init_lora_weights\": \"olora\"}", "init_lora_weights that change" },
        { "{\"init_lora_weights\": \"OLoRA\"}", "init_lora_weights that change" },
        { "{\"init_lora_weights\": \"loftq\"}", "init_lora_weights that change" },
        { "{\"init_lora_weights\": \"corda\"}", "init_lora_weights that change" },
        { "{\"init_lora_weights\": \"lora_ga\"}", "init_lora_weights that change" },
        { "{\"init_lora_weights\": \"a later one\"}", "init_lora_weights that change" },
        { "{\"use_dora\": true}", "DoRA" },
        { "{\"bias\": \"lora_only\"}", "trained biases" },
        { "{\"lora_bias\": true}", "biases of its own" },
        { "{\"modules_to_save\": [\"lm_head\"]}", "whole modules" },
        { "{\"peft_type\": \"IA3\"}", "another method than LoRA" },
        { "{\"peft_type\": \"PREFIX_TUNING\"}", "another method than LoRA" },
        { "{\"peft_type\": \"LOHA\"}", "another method than LoRA" },
        { "{\"trainable_token_indices\": [1]}", "trained embeddings" },
        { "{\"target_parameters\": [\"x\"]}", "parameters that are not a matrix" },
        { "{\"alora_invocation_tokens\": [1]}", "activated LoRA" },
        { "{\"arrow_config\": {\"top_k\": 3}}", "a router" },
        { "{\"kasa_config\": {\"beta\": 1}}", "KaSA" },
        { "{\"layer_replication\": [[0, 1]]}", "layers that repeat" },
        { "{\"monteclora_config\": {\"num_samples\": 8}}", "MonteCLoRA" },
        { "{\"use_later\": true}", "does not know (use_later)" },
        { "{\"later_config\": {\"a\": 1}}", "does not know (later_config)" },
        { "{\"alpha_pattern\": {\"(?i)q\": 1}}", "regular expression \"(?i)q\"" },
        { "{\"alpha_pattern\": {\"q\": \"x\"}}", "does not map names to numbers" },
        { "{\"r\": 0}", "must be 1 to" },
        { "version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct peft_config c;
        quip_error error;
        assert_int_not_equal(read_config(&c, cases[i].config, &error), QUIP_OK);
        if (!strstr(error.message, cases[i].message))
            fail_msg("\"%s\" is not in \"%s\"", cases[i].message, error.message);
    }
}

/* What check_target_module_exists of PEFT says about the module of a tensor. */
static void test_modules(void **state)
{
    (void)state;
    static const struct {
        const char *config, *key; // NULL: PEFT loads the tensor
    } cases[] = {
        { "{\"target_modules\": [\"v_proj\", \"q_proj\"]}", NULL },
        { "{\"target_modules\": [\"self_attn.q_proj\"]}", NULL },
        { "{\"target_modules\": [\"model.layers.7.self_attn.q_proj\"]}", NULL },
        { "{\"target_modules\": [\"proj\"]}", "target_modules" },
        { "{\"target_modules\": [\"v_proj\"]}", "target_modules" },
        { "{\"target_modules\": []}", "target_modules" },
        { "{\"target_modules\": null}", NULL },
        { "{\"target_modules\": \"all-linear\"}", NULL },
        { "{\"target_modules\": \".*_proj\"}", NULL },
        { "{\"target_modules\": \".*\\\\.[0-6]\\\\..*_proj\"}", "target_modules" },
        { "{\"target_modules\": \"(?!x).*\"}", NULL }, // cannot be read; the tensors are there
        { "{\"exclude_modules\": [\"q_proj\"]}", "exclude_modules" },
        { "{\"exclude_modules\": [\"k_proj\"], \"target_modules\": [\"q_proj\"]}", NULL },
        { "{\"exclude_modules\": \"model.*\"}", "exclude_modules" },
        { "{\"target_modules\": [\"q_proj\"], \"layers_to_transform\": 7}", NULL },
        { "{\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1, 7]}", NULL },
        { "{\"target_modules\": [\"q_proj\"], \"layers_to_transform\": []}", NULL },
        { "{\"target_modules\": [\"q_proj\"], \"layers_to_transform\": 0}", "layers_to_transform" },
        { "{\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1, 17]}",
          "layers_to_transform" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        struct adapter_files f = { .file = { .name = "adapter_model.safetensors" } };
        quip_error error = { 0 };
        if (read_config(&f.config, cases[i].config, &error))
            fail_msg("%s: %s", cases[i].config, error.message);
        const quip_status status = qp_peft_check_pair(&f, Q7, 8, &error);
        if (!status != !cases[i].key || (cases[i].key && !strstr(error.message, cases[i].key)))
            fail_msg("%s: \"%s\", expected %s", cases[i].config, error.message,
                     cases[i].key ? cases[i].key : "no error");
    }
}

/* ---- names ---- */

static void test_named_adapters(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int n_module, side; // -1: not a LoRA weight
    } cases[] = {
        { "x.q_proj.lora_A.weight", 8, 0 },
        { "x.q_proj.lora_B.weight", 8, 1 },
        { "x.q_proj.lora_A.default.weight", 8, 0 },
        { "x.q_proj.lora_B.my-task.weight", 8, 1 },
        { "x.q_proj.lora_B.bias", 0, -1 },
        { "x.q_proj.lora_A..weight", 0, -1 },
        { "x.q_proj.lora_A.a.b.weight", 0, -1 },
        { ".lora_A.weight", 0, -1 },
        { "x.lora_embedding_A", 0, -1 },
        { "lm_head.base_layer.weight", 0, -1 },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        size_t n = 0;
        bool is_b = false;
        const bool is_lora = qp_peft_side(cases[i].name, &n, &is_b);
        assert_int_equal(is_lora ? is_b : -1, cases[i].side);
        if (is_lora)
            assert_int_equal(n, cases[i].n_module);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),       cmocka_unit_test(test_long_patterns),
        cmocka_unit_test(test_scales),         cmocka_unit_test(test_refused_configs),
        cmocka_unit_test(test_named_adapters), cmocka_unit_test(test_modules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
