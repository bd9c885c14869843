/* models.c (test): model files of every family, in the current folder. */
#include "support/models.h"
#include "support/check.h"
#include "support/logits.h"
#include "support/shared.h"
#include "support/tiny_model.h"

#include "convert/convert.h"
#include "model/model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct test_model {
    char name[64], path[96];
    bool is_float, is_golden, has_adapters;
};

static struct test_model models[48];
static int n_models;

static struct test_model *add_model(const char *name)
{
    assert_true(n_models < (int)QP_COUNT(models));
    struct test_model *m = &models[n_models];
    *m = (struct test_model){ 0 };
    snprintf(m->name, sizeof m->name, "%s", name);
    snprintf(m->path, sizeof m->path, "models-%d-%d.bin", (int)getpid(), n_models++);
    return m;
}

static void make_tiny(void)
{
    const struct {
        const char *name;
        struct tiny_model model;
    } tiny[] = {
        { "gemma3 mixed", tiny_gemma3 },
        { "gemma3 f32", tiny_with(tiny_gemma3, DTYPE_F32) },
        { "llama int8", tiny_llama },
        { "llama int4", tiny_with(tiny_llama, DTYPE_I4) },
        { "llama f32", tiny_with(tiny_llama, DTYPE_F32) },
        { "llama int4 in blocks", tiny_with(tiny_llama, DTYPE_I4_BLOCK) },
        { "lfm2 int8", tiny_lfm2 },
        { "lfm2 f32", tiny_with(tiny_lfm2, DTYPE_F32) },
        { "experts int8", tiny_experts },
        { "experts f32", tiny_with(tiny_experts, DTYPE_F32) },
        { "experts int4 in blocks", tiny_with(tiny_experts, DTYPE_I4_BLOCK) },
        { "shared experts int8", tiny_shared_experts },
        { "shared experts f32", tiny_with(tiny_shared_experts, DTYPE_F32) },
        { "normed experts mixed", tiny_normed_experts },
        { "normed experts f32", tiny_with(tiny_normed_experts, DTYPE_F32) },
        { "gemma4 mixed", tiny_gemma4 },
        { "gemma4 f32", tiny_with(tiny_gemma4, DTYPE_F32) },
        { "gemma4 int4 in blocks", tiny_with(tiny_gemma4, DTYPE_I4_BLOCK) },
    };
    quip_error error = { 0 };
    for (size_t i = 0; i < QP_COUNT(tiny); i++) {
        struct test_model *m = add_model(tiny[i].name);
        m->is_float = tiny[i].model.attention == DTYPE_F32;
        m->has_adapters = true;
        check(tiny_model_write(m->path, &tiny[i].model, &error), &error);
    }
}

static void make_golden(const char *folder, enum convert_weights weights, bool has_adapters)
{
    char name[128];
    quip_error error = { 0 };
    const struct convert_options options = { .weights = weights };
    snprintf(name, sizeof name, "%s %s", folder, weights == CONVERT_F32 ? "f32" : "int8");
    struct test_model *m = add_model(name);
    m->is_float = weights == CONVERT_F32;
    m->is_golden = true;
    m->has_adapters = has_adapters;
    snprintf(name, sizeof name, "data/golden/%s", folder);
    check(qp_convert(shared_path(name), m->path, &options, &error), &error);
}

int models_make(void **state)
{
    static const struct {
        const char *folder;
        bool has_adapters;
    } golden[] = {
        { "gemma", true },   { "gemma2", true }, { "gemma3", true },     { "gemma3-linear", true },
        { "smollm2", true }, { "phi2", false },  { "falcon-rw", false }, { "stablelm", false },
    };
    (void)state;
    n_models = 0;
    make_tiny();
    if (access(shared_path("data/golden"), R_OK)) {
        print_message("skipped: %s is missing\n", shared_path("data/golden"));
        return 0;
    }
    for (size_t i = 0; i < QP_COUNT(golden); i++) {
        make_golden(golden[i].folder, CONVERT_F32, golden[i].has_adapters);
        make_golden(golden[i].folder, CONVERT_INT8, golden[i].has_adapters);
    }
    return 0;
}

int models_remove(void **state)
{
    (void)state;
    for (int i = 0; i < n_models; i++)
        unlink(models[i].path);
    return 0;
}

int models_count(void)
{
    return n_models;
}

const char *models_name(int i)
{
    return models[i].name;
}

int models_named(const char *name)
{
    for (int i = 0; i < n_models; i++)
        if (strcmp(models[i].name, name) == 0)
            return i;
    return -1;
}

bool models_is_float(int i)
{
    return models[i].is_float;
}

bool models_is_golden(int i)
{
    return models[i].is_golden;
}

bool models_has_adapters(int i)
{
    return models[i].has_adapters;
}

quip_model *models_open(int i, const quip_model_options *options)
{
    quip_model *model;
    quip_error error = { 0 };
    check(quip_model_open(&model, models[i].path, options, &error), &error);
    return model;
}

quip_token models_token(const quip_model *model, int seed, int k)
{
    return (k * 7919 + k * k * 13 + seed * 101 + k * seed * 7) % model->config.vocab_size;
}

float *models_logits(quip_model *model, int seed, int n)
{
    quip_session *s;
    quip_error error = { 0 };
    float *rows = calloc((size_t)n * (size_t)model->config.vocab_size, sizeof *rows);
    quip_token *tokens = malloc((size_t)n * sizeof *tokens);
    assert_true(rows && tokens);
    for (int k = 0; k < n; k++)
        tokens[k] = models_token(model, seed, k);
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = n }, &error), &error);
    logits_prefill(s, tokens, n, n, rows);
    quip_session_close(s);
    free(tokens);
    return rows;
}

/* ---- levels of the processor ---- */

static char given_level[32];
static bool has_given_level, is_level_known;

const char *models_set_level(int i)
{
    const char *given = getenv("QUIP_CPU");
    const struct cpu_level *level;
    if (!is_level_known && given) {
        has_given_level = true;
        snprintf(given_level, sizeof given_level, "%s", given);
    }
    is_level_known = true;
    unsigned features = 0;
    for (int n = 0; (level = qp_cpu_level(n)); n++) {
        setenv("QUIP_CPU", level->name, 1);
        const unsigned has = qp_cpu_features(); // 0: another processor's
        if (n > 0 && (has == 0 || has == features))
            continue;
        features = has;
        if (i-- == 0)
            return level->name;
    }
    models_reset_level();
    return NULL;
}

void models_reset_level(void)
{
    if (has_given_level)
        setenv("QUIP_CPU", given_level, 1);
    else
        unsetenv("QUIP_CPU");
}
