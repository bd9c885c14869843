/* experts.c (test): a mixture of experts: which experts a token uses, what damaged routers do, and
 * what is refused. The numbers are in golden2.c, backend.c and batch.c. */
#include "support/check.h"
#include "support/models.h"
#include "support/shared.h"
#include "support/tiny_model.h"

#include "cpu/cpu_impl.h"
#include "engine/engine.h"

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define N_TOKENS 20

static char path[64];

static int make_model(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const struct tiny_model tiny = tiny_with(tiny_experts, DTYPE_F32);
    snprintf(path, sizeof path, "tiny-experts-%d.bin", (int)getpid());
    check(tiny_model_write(path, &tiny, &error), &error);
    return 0;
}

static int remove_model(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

static quip_model *open_model(void)
{
    quip_model *m;
    quip_error error = { 0 };
    check(quip_model_open(&m, path, NULL, &error), &error);
    return m;
}

/* Run tokens of a text, and return the session. */
static quip_session *run(quip_model *m, int n)
{
    quip_session *s;
    quip_token tokens[N_TOKENS];
    quip_error error = { 0 };
    const quip_session_options options = { .n_context = 64, .n_threads = 2 };
    assert_true(n <= N_TOKENS);
    for (int i = 0; i < n; i++)
        tokens[i] = (i * 71 + 9) % TINY_VOCAB;
    check(quip_session_open(&s, m, &options, &error), &error);
    check(quip_session_prefill(s, tokens, n, &error), &error);
    return s;
}

static struct expert_memory *experts_of(quip_session *s)
{
    return &cpu_of(s->device)->experts;
}

/* Replace the router of every layer by n_experts rows of this value. */
static float *set_router(quip_model *m, float value)
{
    const struct config *c = &m->config;
    const size_t n = (size_t)c->experts.n * (size_t)c->d_model;
    float *router = malloc(n * sizeof *router);
    assert_non_null(router);
    for (size_t i = 0; i < n; i++)
        router[i] = value;
    for (int l = 0; l < c->n_layers; l++)
        if (m->weights.layers[l].router)
            m->weights.layers[l].router = router;
    return router;
}

/* ---- the choice ---- */

static void test_equal_scores_choose_the_lowest_numbers(void **state)
{
    (void)state;
    quip_model *m = open_model();
    float *router = set_router(m, 0);
    quip_session *s = run(m, 1);
    const struct expert_memory *e = experts_of(s);
    for (int i = 0; i < m->config.experts.n_used; i++) {
        assert_int_equal(e->chosen[i], i);
        assert_true(e->weights[i] == 1.0f / (float)m->config.experts.n);
    }
    quip_session_close(s);
    quip_model_close(m);
    free(router);
}

/* The last token of a text chooses the same experts in a prefill and in decode, in ascending order,
 * each once. */
static void test_choices_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    quip_model *m = open_model();
    const int n_used = m->config.experts.n_used;
    quip_error error = { 0 };
    for (int n = 2; n <= N_TOKENS; n++) {
        int chosen[8];
        float weights[8];
        quip_session *t = run(m, n - 1);
        const quip_token last = ((n - 1) * 71 + 9) % TINY_VOCAB;
        check(quip_session_prefill(t, &last, 1, &error), &error);
        assert_non_null(quip_session_logits(t));
        memcpy(chosen, experts_of(t)->chosen, (size_t)n_used * sizeof *chosen);
        memcpy(weights, experts_of(t)->weights, (size_t)n_used * sizeof *weights);
        for (int i = 1; i < n_used; i++)
            assert_true(chosen[i - 1] < chosen[i] && chosen[i] < m->config.experts.n);
        quip_session *s = run(m, n); // after the decode step of the other
        assert_memory_equal(experts_of(s)->chosen, chosen, (size_t)n_used * sizeof *chosen);
        assert_memory_equal(experts_of(s)->weights, weights, (size_t)n_used * sizeof *weights);
        quip_session_close(s);
        quip_session_close(t);
    }
    quip_model_close(m);
}

/* The weights of an expert that no token of the text uses do not matter: not even NaNs. */
static void test_idle_experts_are_not_used(void **state)
{
    (void)state;
    quip_model *m = open_model();
    const struct config *c = &m->config;
    const int last = c->n_layers - 1;
    struct matrix *down = &m->weights.layers[last].m[MATRIX_EXPERT_DOWN];
    const size_t n_floats = (size_t)down->n_out * (size_t)down->n_in;
    quip_session *s = run(m, 1); // the last layer ran last
    float before[TINY_VOCAB], *spoiled = malloc(n_floats * sizeof *spoiled);
    bool is_used[MAX_EXPERTS] = { false };
    assert_non_null(spoiled);
    memcpy(before, quip_session_logits(s), sizeof before);
    for (int i = 0; i < c->experts.n_used; i++)
        is_used[experts_of(s)->chosen[i]] = true;
    quip_session_close(s);
    memcpy(spoiled, down->data, n_floats * sizeof *spoiled);
    for (int e = 0; e < c->experts.n; e++)
        for (size_t i = 0; !is_used[e] && i < (size_t)c->d_model * (size_t)down->n_in; i++)
            spoiled[(size_t)e * (size_t)c->d_model * (size_t)down->n_in + i] = NAN;
    down->data = spoiled;
    s = run(m, 1);
    assert_memory_equal(quip_session_logits(s), before, sizeof before);
    quip_session_close(s);
    quip_model_close(m);
    free(spoiled);
}

/* ---- damaged routers ---- */

/* Whatever the router has, the choice is one, and the logits are the same on every level. */
static void test_routers_without_numbers(void **state)
{
    (void)state;
    const float values[] = { NAN, INFINITY, -INFINITY, 3e38f, -3e38f };
    for (size_t i = 0; i < QP_COUNT(values); i++) {
        float first[TINY_VOCAB];
        for (int level = 0; models_set_level(level); level++) {
            quip_model *m = open_model();
            float *router = set_router(m, values[i]);
            router[m->config.d_model + 3] = 0.5f; // of expert 1
            quip_session *s = run(m, N_TOKENS);
            const float *logits = quip_session_logits(s);
            assert_non_null(logits);
            for (int k = 0; k < TINY_VOCAB; k++)
                assert_true(isfinite(logits[k]));
            if (level == 0)
                memcpy(first, logits, sizeof first);
            assert_memory_equal(first, logits, sizeof first);
            quip_session_close(s);
            quip_model_close(m);
            free(router);
        }
    }
    models_reset_level();
}

/* ---- what is refused ---- */

static void test_wrong_configs(void **state)
{
    (void)state;
    static const struct {
        const char *config, *message;
    } wrong[] = {
        { "n_experts_used 12\n", "a token uses 12 of 11 experts" },
        { "n_experts_used 0\n", "a token uses 0 of 11 experts" },
        { "n_experts 0\n", "of 0 experts" },
        { "n_experts 2000\n", "its number of experts is 2000" },
        { "n_experts 12\n", "ff_layer.router" },
        { "d_ff_expert 0\n", "experts of width 0" },
        { "d_ff_expert 133\n", "ff_layer.experts.ffn_layer1_gate.w" },
        { "ff_types EDE\n", "gives 3 feed-forward types for 4 layers" },
        { "ff_types EDEX\n", "that of layer 3 is X" },
        { "ff_types EEEE\n", "ff_layer.router" },
        { "is_gated 0\n", "gated" },
        { "has_shared_gate 1\nd_ffs 70,70,0,0\n", "shared_gate" },
        { "layer_types CGGG\n", "convolutions, but their width is 0" },
        { "layer_types CGGG\nconv_width 17\n", "its convolution width is 17" },
        { "layer_types CGGG\nconv_width 3\n", "conv.b.w" },
    };
    quip_error error = { 0 };
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        char other[80];
        quip_model *m;
        struct tiny_model tiny = tiny_experts;
        tiny.config = wrong[i].config;
        snprintf(other, sizeof other, "%s.wrong", path);
        check(tiny_model_write(other, &tiny, &error), &error);
        const quip_status status = quip_model_open(&m, other, NULL, &error);
        if (status != QUIP_E_FORMAT || !strstr(error.message, wrong[i].message))
            fail_msg("%s: %s", wrong[i].config, status ? error.message : "was opened");
        unlink(other);
    }
}

/* ---- adapters ---- */

/* An adapter with one pair of matrices [4, 1] and [1, 4], which is enough to be refused by name. */
static void write_adapter(const char *folder, const char *module)
{
    char header[400], file[128];
    struct bytes all = { 0 };
    const float zeros[8] = { 0 };
    const int n = snprintf(header, sizeof header,
                           "{\"base_model.model.model.layers.0.%s.lora_A.weight\":{\"dtype\":"
                           "\"F32\",\"shape\":[1,4],\"data_offsets\":[0,16]},\"base_model.model."
                           "model.layers.0.%s.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[4,1],"
                           "\"data_offsets\":[16,32]}}",
                           module, module);
    const uint64_t n_header = (uint64_t)n;
    mkdir(folder, 0777);
    assert_true(qp_bytes_append(&all, &n_header, 8) && qp_bytes_append(&all, header, (size_t)n) &&
                qp_bytes_append(&all, zeros, sizeof zeros));
    snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
    save_file(file, all.data, all.n);
    snprintf(file, sizeof file, "%s/adapter_config.json", folder);
    const char *json = "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1}";
    save_file(file, json, strlen(json));
    qp_bytes_close(&all);
}

static void test_adapters_of_experts(void **state)
{
    (void)state;
    static const char *const modules[] = { "mlp.experts.3.gate_proj", "mlp.experts.down_proj",
                                           "mlp.gate" };
    quip_model *m = open_model();
    quip_error error = { 0 };
    char folder[80], file[128];
    snprintf(folder, sizeof folder, "experts-adapter-%d", (int)getpid());
    for (size_t i = 0; i < QP_COUNT(modules); i++) {
        quip_adapter *adapter;
        write_adapter(folder, modules[i]);
        assert_int_equal(quip_adapter_open(&adapter, m, folder, &error), QUIP_E_UNSUPPORTED);
        assert_non_null(strstr(error.message, "is for experts or their router"));
        snprintf(file, sizeof file, "%s/adapter_model.safetensors", folder);
        unlink(file);
        snprintf(file, sizeof file, "%s/adapter_config.json", folder);
        unlink(file);
        rmdir(folder);
    }
    quip_model_close(m);
}

static void test_info(void **state)
{
    (void)state;
    quip_model *m = open_model();
    quip_model_info info = { .struct_size = sizeof info };
    quip_error error = { 0 };
    check(quip_model_get_info(m, &info, &error), &error);
    assert_int_equal(info.n_experts, 11);
    assert_int_equal(info.n_experts_used, 3);
    const uint64_t idle = (uint64_t)3 * 134 * 66 * (11 - 3) * 3; // 3 layers, 3 matrices
    assert_int_equal(info.n_parameters - info.n_active_parameters, idle);
    quip_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_equal_scores_choose_the_lowest_numbers),
        cmocka_unit_test(test_choices_do_not_depend_on_the_batch),
        cmocka_unit_test(test_idle_experts_are_not_used),
        cmocka_unit_test(test_routers_without_numbers),
        cmocka_unit_test(test_wrong_configs),
        cmocka_unit_test(test_adapters_of_experts),
        cmocka_unit_test(test_info),
    };
    return cmocka_run_group_tests(tests, make_model, remove_model);
}
