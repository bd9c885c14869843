/* golden.c: tiny checkpoints, converted to float32, have the logits and the greedy continuations of
 * the reference implementation (../shared/data/golden/README.md derives the tolerance). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "convert/convert.h"
#include "model/model.h"
#include "support/check.h"
#include "support/golden.h"
#include "support/shared.h"

/* Convert a checkpoint to float32 and open it. */
static quip_model *open_golden(const char *folder)
{
    char name[256], model_path[64];
    quip_error error = { 0 };
    quip_model *model;
    snprintf(name, sizeof name, "data/golden/%s", folder);
    need_shared(name);
    snprintf(model_path, sizeof model_path, "golden-%s-%d.bin", folder, (int)getpid());
    const struct convert_options options = { .weights = CONVERT_F32 };
    check(qp_convert(shared_path(name), model_path, &options, &error), &error);
    check(quip_model_open(&model, model_path, NULL, &error), &error);
    unlink(model_path);
    return model;
}

static void check_folder(const char *folder)
{
    char name[256];
    const cJSON *prompt;
    snprintf(name, sizeof name, "data/golden/%s/expected.json", folder);
    need_shared(name);
    cJSON *expected = read_json(shared_path(name));
    quip_model *model = open_golden(folder);
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
        check_golden_prompt(model, NULL, folder, prompt);
    quip_model_close(model);
    cJSON_Delete(expected);
}

static void test_gemma(void **state)
{
    (void)state;
    check_folder("gemma");
}

static void test_gemma2(void **state)
{
    (void)state;
    check_folder("gemma2");
}

static void test_gemma3(void **state)
{
    (void)state;
    check_folder("gemma3");
}

static void test_gemma3_linear(void **state)
{
    (void)state;
    check_folder("gemma3-linear");
}

static void test_smollm2(void **state)
{
    (void)state;
    check_folder("smollm2");
}

static void test_phi2(void **state)
{
    (void)state;
    check_folder("phi2");
}

static void test_falcon_rw(void **state)
{
    (void)state;
    check_folder("falcon-rw");
}

static void test_stablelm(void **state)
{
    (void)state;
    check_folder("stablelm");
}

/* ---- which details the goldens detect ---- */

static void plain_norm(quip_model *m)
{
    m->config.norm = NORM_RMS;
}
static void no_embed_scale(quip_model *m)
{
    m->config.embed_scale = 1;
}
static void other_gelu(quip_model *m)
{
    m->config.act = m->config.act == ACT_GELU_ERF ? ACT_GELU_TANH : ACT_GELU_ERF;
}
static void no_rope(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].rope = ROPE_NONE;
}
static void whole_rope(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].dim = m->config.head_dim;
}
static void no_attention_cap(quip_model *m)
{
    m->config.attention_cap = 0;
}
static void no_logits_cap(quip_model *m)
{
    m->config.logits_cap = 0;
}
static void head_dim_scale(quip_model *m)
{
    m->config.query_scale = 1 / sqrtf((float)m->config.head_dim);
}
/* A window wider than any prompt. The layers stay local, with their own base of rope. */
static void no_window(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        if (m->config.layers[l].window)
            m->config.layers[l].window = GOLDEN_MAX_IDS;
}
static void wider_window(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        if (m->config.layers[l].window)
            m->config.layers[l].window++;
}
static void global_rope(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].rope = ROPE_GLOBAL;
}
static void no_rope_scaling(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].scale = 1;
}
static void no_qk_norm(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].q_norm.scale = m->weights.layers[l].k_norm.scale = NULL;
}
static void no_post_norm(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].attn_post_norm.scale = m->weights.layers[l].ff_post_norm.scale = NULL;
}
static void no_alibi(quip_model *m)
{
    m->config.has_alibi = false;
}
static void sequential(quip_model *m)
{
    m->config.is_parallel = false;
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].ff_norm = m->weights.layers[l].attn_norm;
}
static void no_attention_bias(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++) {
        struct layer_weights *w = &m->weights.layers[l];
        for (int i = MATRIX_Q; i <= MATRIX_O; i++)
            w->m[i].bias = NULL;
    }
}
static void no_feed_forward_bias(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        for (int i = MATRIX_GATE; i <= MATRIX_DOWN; i++)
            m->weights.layers[l].m[i].bias = NULL;
}
static void no_head_bias(quip_model *m)
{
    m->weights.head.bias = NULL;
}
static void no_norm_bias(quip_model *m)
{
    static const float zeros[128];
    assert_true(m->config.d_model <= 128);
    m->weights.final_norm.bias = zeros;
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].attn_norm.bias = m->weights.layers[l].ff_norm.bias = zeros;
}
static void tied_head(quip_model *m)
{
    m->weights.head = m->weights.embed;
}

/* The largest difference of a logit of the main prompt from the reference, after leave_out(). */
static float worst_without(const char *folder, void (*leave_out)(quip_model *))
{
    char name[256];
    quip_error error = { 0 };
    quip_session *s;
    quip_model *model = open_golden(folder);
    leave_out(model);
    snprintf(name, sizeof name, "data/golden/%s/expected.json", folder);
    cJSON *expected = read_json(shared_path(name));
    const cJSON *prompt = cJSON_GetObjectItem(expected, "prompts")->child;
    while (strcmp(cJSON_GetObjectItem(prompt, "logits_file")->valuestring, "logits.f32") != 0)
        prompt = prompt->next;
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = 64 }, &error), &error);
    const float worst = golden_difference(model, s, folder, prompt);
    quip_session_close(s);
    quip_model_close(model);
    cJSON_Delete(expected);
    return worst;
}

/* A golden detects every detail of every architecture: without the detail, that golden fails. */
static void test_every_detail_matters(void **state)
{
    (void)state;
    static const struct {
        const char *folder, *name;
        void (*leave_out)(quip_model *);
    } details[] = {
        { "gemma", "norm weight without + 1", plain_norm },
        { "gemma", "no embedding scale", no_embed_scale },
        { "gemma", "other form of GELU", other_gelu },
        { "gemma", "no rope", no_rope },
        { "gemma2", "no cap on scores", no_attention_cap },
        { "gemma2", "no cap on logits", no_logits_cap },
        { "gemma2", "no sliding window", no_window },
        { "gemma2", "window one too wide", wider_window },
        { "gemma2", "1/sqrt(head_dim) as scale", head_dim_scale },
        { "gemma2", "no post norms", no_post_norm },
        { "gemma3", "no sliding window", no_window },
        { "gemma3", "window one too wide", wider_window },
        { "gemma3", "no q/k norm", no_qk_norm },
        { "gemma3", "no post norms", no_post_norm },
        { "gemma3", "global base of rope everywhere", global_rope },
        { "gemma3-linear", "no rope scaling", no_rope_scaling },
        { "gemma3-linear", "1/sqrt(head_dim) as scale", head_dim_scale },
        { "phi2", "rope on the whole head", whole_rope },
        { "phi2", "attention before feed-forward", sequential },
        { "phi2", "no biases of attention", no_attention_bias },
        { "phi2", "no biases of feed-forward", no_feed_forward_bias },
        { "phi2", "no bias of the head", no_head_bias },
        { "phi2", "no biases of norms", no_norm_bias },
        { "phi2", "embedding as head", tied_head },
        { "phi2", "other form of GELU", other_gelu },
        { "falcon-rw", "no ALiBi", no_alibi },
        { "falcon-rw", "no biases of attention", no_attention_bias },
        { "falcon-rw", "no biases of feed-forward", no_feed_forward_bias },
        { "falcon-rw", "no biases of norms", no_norm_bias },
        { "falcon-rw", "other form of GELU", other_gelu },
        { "stablelm", "rope on the whole head", whole_rope },
        { "stablelm", "no biases of norms", no_norm_bias },
        { "stablelm", "embedding as head", tied_head },
        { "smollm2", "no rope", no_rope },
    };
    for (size_t i = 0; i < QP_COUNT(details); i++) {
        const float worst = worst_without(details[i].folder, details[i].leave_out);
        printf("  %-14s %-32s %.4f\n", details[i].folder, details[i].name, (double)worst);
        assert_true(worst > 9 * GOLDEN_TOLERANCE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gemma),
        cmocka_unit_test(test_gemma2),
        cmocka_unit_test(test_gemma3),
        cmocka_unit_test(test_gemma3_linear),
        cmocka_unit_test(test_phi2),
        cmocka_unit_test(test_falcon_rw),
        cmocka_unit_test(test_stablelm),
        cmocka_unit_test(test_smollm2),
        cmocka_unit_test(test_every_detail_matters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
