/* gpu.c: the GPU backend computes what the CPU backend computes, within a tolerance, and refuses
 * the models that it does not run. Without a GPU, or without the library that finds one, there is
 * nothing to test: the tests say so and pass. */
#include "support/gpu.h"
#include "support/check.h"
#include "support/golden.h"
#include "support/golden2.h"
#include "support/logits.h"
#include "support/memory_stream.h"
#include "support/models.h"
#include "support/shared.h"
#include "support/tiny_adapter.h"
#include "support/tiny_model.h"

#include "engine/engine.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define N_TOKENS 150
#define N_DECODED 24 // of these, one by one: attention of the last ones is split

static quip_session *open_session(quip_model *model, const quip_session_options *options)
{
    quip_session *s;
    quip_error error = { 0 };
    check(quip_session_open(&s, model, options, &error), &error);
    return s;
}

/* ---- the same numbers ---- */

/* Greedy tokens are equal wherever the CPU's margin is clear: twice the tolerance, because the best
 * logit may be lower by it, and another one higher. Returns how many margins are. */
static int check_greedy(const float *want, const float *got, int n, int vocab_size, float tolerance)
{
    int n_clear = 0;
    for (int k = 0; k < n; k++) {
        const float *row = want + (size_t)k * (size_t)vocab_size;
        if (logits_margin(row, vocab_size) <= 2 * tolerance)
            continue;
        assert_int_equal(logits_best(got + (size_t)k * (size_t)vocab_size, vocab_size),
                         logits_best(row, vocab_size));
        n_clear++;
    }
    return n_clear;
}

/* The logits of the last N_DECODED tokens of the same text, one by one. */
static float *decode_logits(quip_model *model)
{
    const size_t vocab_size = (size_t)model->config.vocab_size;
    float *logits = malloc(N_DECODED * vocab_size * sizeof *logits);
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = N_TOKENS });
    quip_token tokens[N_TOKENS];
    quip_error error = { 0 };
    assert_non_null(logits);
    for (int k = 0; k < N_TOKENS; k++)
        tokens[k] = models_token(model, 1, k);
    check(quip_session_prefill(s, tokens, N_TOKENS - N_DECODED, &error), &error);
    for (int k = 0; k < N_DECODED; k++) {
        check(quip_session_prefill(s, tokens + N_TOKENS - N_DECODED + k, 1, &error), &error);
        const float *row = quip_session_logits(s);
        assert_non_null(row);
        memcpy(logits + (size_t)k * vocab_size, row, vocab_size * sizeof *row);
    }
    quip_session_close(s);
    return logits;
}

/* Model i of the tests, or one like it. Returns how many greedy tokens it compared. */
static int compare_with_cpu(const char *name, int i, quip_model *gpu, quip_model *cpu)
{
    const int vocab_size = cpu->config.vocab_size;
    const size_t n = (size_t)N_TOKENS * (size_t)vocab_size,
                 n_last = (size_t)N_DECODED * (size_t)vocab_size;
    float *want = models_logits(cpu, 1, N_TOKENS), *prefill = models_logits(gpu, 1, N_TOKENS),
          *decode = decode_logits(gpu), *last = want + n - n_last;
    const float tolerance = logits_tolerance(i, want, n);
    const float worst = logits_difference(want, prefill, n),
                other = logits_difference(last, decode, n_last);
    const int n_clear = check_greedy(want, prefill, N_TOKENS, vocab_size, tolerance) +
                        check_greedy(last, decode, N_DECODED, vocab_size, tolerance);
    printf(
        "  %-22s largest difference: prefill %.2g, decode %.2g of %.2g; %d greedy tokens of %d\n",
        name, (double)worst, (double)other, (double)tolerance, n_clear, N_TOKENS + N_DECODED);
    if (!(worst <= tolerance && other <= tolerance))
        fail_msg("%s: logits differ by %g and %g, at most %g is allowed", name, (double)worst,
                 (double)other, (double)tolerance);
    free(want);
    free(prefill);
    free(decode);
    return n_clear;
}

/* The logits and greedy tokens of another implementation. */
static void compare_with_golden(int i, quip_model *gpu)
{
    char folder[64], name[256];
    const cJSON *prompt;
    snprintf(folder, sizeof folder, "%s", models_name(i));
    *strchr(folder, ' ') = 0;
    snprintf(name, sizeof name, "data/golden/%s/expected.json", folder);
    cJSON *expected = read_json(shared_path(name));
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
        check_golden_prompt(gpu, NULL, folder, prompt);
    cJSON_Delete(expected);
}

/* What an adapter adds, in decode and in prefill. */
static void compare_adapters(int i, quip_model *gpu, quip_model *cpu)
{
    enum {
        N = 40
    };
    static const struct tiny_adapter tiny = { .rank = 5, .alpha = 7 };
    quip_token tokens[N];
    quip_error error = { 0 };
    quip_model *models[2] = { cpu, gpu };
    const size_t vocab_size = (size_t)gpu->config.vocab_size;
    float *logits = malloc(4 * vocab_size * sizeof *logits);
    assert_non_null(logits);
    for (int k = 0; k < N; k++)
        tokens[k] = models_token(gpu, 3, k);
    for (int b = 0; b < 2; b++) {
        quip_adapter *adapter;
        quip_session *s = open_session(models[b], &(quip_session_options){ .n_context = N });
        check(tiny_adapter_write("gpu-adapter", models[b], &tiny, &error), &error);
        check(quip_adapter_open(&adapter, models[b], "gpu-adapter", &error), &error);
        tiny_adapter_remove("gpu-adapter");
        check(quip_session_set_adapter(s, adapter, 1.5f, &error), &error);
        for (int part = 0; part < 2; part++) { // many rows, then one
            check(quip_session_prefill(s, tokens + part * (N - 1), part ? 1 : N - 1, &error),
                  &error);
            memcpy(logits + (size_t)(2 * b + part) * vocab_size, quip_session_logits(s),
                   vocab_size * sizeof *logits);
        }
        quip_adapter_close(adapter);
        quip_session_close(s);
    }
    const float tolerance = logits_tolerance(i, logits, 2 * vocab_size);
    const float worst = logits_difference(logits, logits + 2 * vocab_size, 2 * vocab_size);
    printf("  %-22s largest difference with an adapter %.2g of %.2g\n", "", (double)worst,
           (double)tolerance);
    if (!(worst <= tolerance))
        fail_msg("%s: logits with an adapter differ by %g, at most %g is allowed", models_name(i),
                 (double)worst, (double)tolerance);
    free(logits);
}

/* Each model is opened once, because compiling its shaders takes longest. */
static void test_each_model(void **state)
{
    int n_clear = 0;
    (void)state;
    for (int i = 0; has_gpu() && i < models_count(); i++) {
        quip_model *gpu = open_on_gpu(i), *cpu = models_open(i, NULL);
        assert_non_null(gpu); // none is refused
        const int n = compare_with_cpu(models_name(i), i, gpu, cpu);
        assert_true(n > 0 || !models_is_float(i)); // no margin of two int8 models is clear
        n_clear += models_is_float(i) ? 0 : n;
        if (models_is_golden(i) && models_is_float(i))
            compare_with_golden(i, gpu);
        if (models_has_adapters(i))
            compare_adapters(i, gpu, cpu);
        quip_model_close(cpu);
        quip_model_close(gpu);
    }
    assert_true(n_clear > 0 || !has_gpu());
}

/* A wide feed-forward: its input is rounded by the product before it, or fits in no workgroup. A
 * wide model: the product behind attention has workgroups of 512 threads. */
static void test_wide_inputs(void **state)
{
    static const char path[] = "gpu-wide.bin";
    static const struct {
        const char *name;
        enum dtype dtype;
        int d_ff, d_model; // 0: as it is
    } cases[] = { { "rounded, int8", DTYPE_I8, 8512, 0 },
                  { "rounded, int4 in blocks", DTYPE_I4_BLOCK, 8512, 0 },
                  { "rounded, int4 per row", DTYPE_I4, 8512, 0 },
                  { "fits in no workgroup", DTYPE_I8, 33000, 0 },
                  { "many rows of o, int8", DTYPE_I8, 96, 1096 },
                  { "many rows of o, int4 in blocks", DTYPE_I4_BLOCK, 96, 1096 } };
    (void)state;
    for (size_t i = 0; has_gpu() && i < QP_COUNT(cases); i++) {
        struct tiny_model wide = tiny_with(tiny_llama, cases[i].dtype);
        quip_model *gpu, *cpu;
        quip_error error = { 0 };
        wide.d_ff = cases[i].d_ff;
        if (cases[i].d_model) {
            wide.d_model = cases[i].d_model;
            wide.n_heads = 16;
            wide.head_dim = 64;
        }
        check(tiny_model_write(path, &wide, &error), &error);
        check(quip_model_open(&gpu, path, &(quip_model_options){ .backend = QUIP_BACKEND_GPU },
                              &error),
              &error);
        check(quip_model_open(&cpu, path, &(quip_model_options){ .backend = QUIP_BACKEND_CPU },
                              &error),
              &error);
        compare_with_cpu(cases[i].name, models_named("llama int8"), gpu, cpu);
        quip_model_close(cpu);
        quip_model_close(gpu);
        unlink(path);
    }
}

/* The logits of another implementation, for the newer families. */
static void test_newer_goldens(void **state)
{
    static const char *const names[] = {
        "qwen2",   "qwen2-untied", "qwen3",        "llama3",         "llama-bias",
        "mistral", "smollm3",      "mistral-nemo", "phi3",           "phi4-mini",
        "olmo2",   "granite",      "stablelm2",    "stablelm2-bias", "falcon7b",
        "gpt2",    "gptneox",      "starcoder2",   "cohere",         "gemma4-dense",
        "lfm2",    "qwen3-moe",    "gemma4-e2b",   "qwen2-moe",      "gemma4-moe",
    };
    (void)state;
    if (!has_gpu() || access(shared_path("data/golden-2"), R_OK))
        return;
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        const bool is_phi = strncmp(names[i], "phi", 3) == 0;
        const struct fixture fixture = { .name = names[i],
                                         .has_long_factors = is_phi,
                                         .n_short_context = 48 };
        quip_model *model = open_fixture(&fixture, LAYOUT_PUBLISHED);
        quip_error error = { 0 };
        model->options.backend = QUIP_BACKEND_GPU;
        model->no_self_test = true;
        check(qp_backend_check_model(model, &error), &error); // none is refused
        const float worst = fixture_difference(&fixture, model);
        printf("  %-16s largest difference %.2g\n", names[i], (double)worst);
        if (!(worst <= GOLDEN2_TOLERANCE))
            fail_msg("%s: logits differ by %g, at most %g is allowed", names[i], (double)worst,
                     (double)GOLDEN2_TOLERANCE);
        quip_model_close(model);
    }
}

/* ---- the same bits ---- */

/* A token and draft tokens in one batch have the bits that each one has alone; and so have rows of
 * two sessions. */
static void test_few_rows_have_the_bits_of_one(void **state)
{
    enum {
        N_BEFORE = 255, // the keys of the rows behind are split
        N_ROWS = 4
    };
    static const char *const names[] = {
        "gemma3 mixed",         "gemma3 f32",   "llama int8", "llama int4",
        "llama int4 in blocks", "gemma4 mixed", "lfm2 int8",  "normed experts mixed",
    };
    (void)state;
    for (size_t i = 0; has_gpu() && i < QP_COUNT(names); i++) {
        quip_model *model = open_on_gpu(models_named(names[i]));
        const size_t vocab_size = (size_t)model->config.vocab_size;
        float *alone = malloc(2 * N_ROWS * vocab_size * sizeof *alone),
              *together = alone + N_ROWS * vocab_size;
        quip_session *s[3];
        quip_error error = { 0 };
        assert_non_null(alone);
        quip_token tokens[N_BEFORE + N_ROWS];
        for (int k = 0; k < N_BEFORE + N_ROWS; k++)
            tokens[k] = models_token(model, 5, k);
        for (int k = 0; k < 3; k++) {
            s[k] = open_session(model, &(quip_session_options){ .n_context = 400 });
            check(quip_session_prefill(s[k], tokens, N_BEFORE, &error), &error);
        }
        for (int k = 0; k < N_ROWS; k++) {
            check(quip_session_prefill(s[0], tokens + N_BEFORE + k, 1, &error), &error);
            memcpy(alone + (size_t)k * vocab_size, quip_session_logits(s[0]),
                   vocab_size * sizeof *alone);
        }
        struct device *d = s[1]->device; // two rows of one session, and two of the other
        const struct backend *b = d->backend;
        struct output outputs[N_ROWS];
        for (int k = 0; k < N_ROWS; k++) {
            struct sequence *sequence = s[1 + k / 2]->sequence;
            d->rows[k] = (struct row){ .sequence = sequence,
                                       .pos = N_BEFORE + k % 2,
                                       .visible_end = N_BEFORE + k % 2 + 1,
                                       .token = tokens[N_BEFORE + k % 2],
                                       .is_output = true };
            outputs[k] = (struct output){ sequence, k % 2 };
        }
        const struct rows rows = { d->rows, N_ROWS };
        qp_device_enter(d, TURN_SHORT);
        assert_int_equal(b->begin(d, 0), QUIP_OK);
        assert_int_equal(qp_forward(d, &rows, NULL, NULL), QUIP_OK);
        assert_int_equal(qp_forward_logits(d, outputs, N_ROWS, NULL), QUIP_OK);
        assert_int_equal(b->submit(d), QUIP_OK);
        assert_int_equal(b->poll(d, true), QUIP_OK);
        assert_int_equal(b->read(d, BUF_LOGITS, together, N_ROWS), QUIP_OK);
        qp_device_leave(d);
        for (int k = 0; k < N_ROWS; k++)
            assert_memory_equal(together + (size_t)k * vocab_size,
                                alone + (size_t)(k % 2) * vocab_size, vocab_size * sizeof *alone);
        for (int k = 0; k < 3; k++)
            quip_session_close(s[k]);
        free(alone);
        quip_model_close(model);
    }
}

/* Everything up to the end of the answer; without `wait` it asks again and again. */
static struct bytes collect(quip_session *s, bool wait)
{
    struct bytes text = { 0 };
    quip_piece piece = { .struct_size = sizeof piece };
    quip_error error = { 0 };
    while (!piece.finish_reason) {
        const quip_status status = qp_answer_next(s, wait, &piece, &error);
        if (status == QP_NOT_YET) {
            assert_false(wait);
            continue;
        }
        check(status, &error);
        assert_true(qp_bytes_append(&text, piece.text, piece.n_text));
    }
    return text;
}

/* The bits of the logits of a prompt, and of tokens one by one. */
static uint64_t hash_of_logits(quip_model *model)
{
    const size_t vocab_size = (size_t)model->config.vocab_size;
    float *prefill = models_logits(model, 1, N_TOKENS), *decode = decode_logits(model);
    const uint64_t hash = logits_hash(prefill, N_TOKENS * vocab_size) ^
                          logits_hash(decode, N_DECODED * vocab_size) << 1;
    free(prefill);
    free(decode);
    return hash;
}

/* An answer is the same with and without draft tokens, and whether the caller waits or asks. The
 * logits have the same bits each time that the model is opened. */
static void test_answers(void **state)
{
    static const float temperatures[] = { 0, 0.9f };
    static const char prompt[] = "the hen the hen the hen";
    uint64_t hashes[QP_COUNT(temperatures)];
    (void)state;
    for (size_t t = 0; has_gpu() && t < QP_COUNT(temperatures); t++) {
        quip_model *model = open_on_gpu(2);
        struct bytes texts[2];
        for (int k = 0; k < 2; k++) {
            quip_error error = { 0 };
            const quip_session_options options = { .n_context = 200,
                                                   .max_output_tokens = 60,
                                                   .temperature = temperatures[t],
                                                   .greedy = temperatures[t] == 0,
                                                   .no_speculation = k == 1,
                                                   .seed = 3,
                                                   .has_seed = true };
            quip_session *s = open_session(model, &options);
            check(quip_session_append(s, QUIP_ROLE_USER, prompt, strlen(prompt), &error), &error);
            texts[k] = collect(s, k == 0);
            quip_result result = { .struct_size = sizeof result };
            check(quip_session_get_result(s, &result, &error), &error);
            assert_int_equal(result.backend, QUIP_BACKEND_GPU);
            quip_session_close(s);
        }
        assert_true(texts[0].n > 0 && texts[0].n == texts[1].n);
        assert_memory_equal(texts[0].data, texts[1].data, texts[0].n);
        qp_bytes_close(&texts[0]);
        qp_bytes_close(&texts[1]);
        hashes[t] = hash_of_logits(model);
        assert_int_equal(hashes[t], hashes[0]);
        quip_model_close(model);
    }
}

/* Run a token behind n others: its logits, and how many dispatches it and they need. */
static int run_token(quip_model *model, int n, float *logits)
{
    quip_session *s = open_session(model, &(quip_session_options){ .n_context = 200 });
    struct kernel_time kernels[32];
    quip_token tokens[128];
    quip_error error = { 0 };
    int n_dispatches = 0;
    for (int k = 0; k < 128; k++)
        tokens[k] = models_token(model, 5, k);
    check(quip_session_prefill(s, tokens, n, &error), &error);
    assert_int_equal(qp_session_profile(s, NULL, 0), 0);
    check(quip_session_prefill(s, tokens, 1, &error), &error);
    const float *row = quip_session_logits(s);
    assert_non_null(row);
    memcpy(logits, row, (size_t)model->config.vocab_size * sizeof *logits);
    const int n_kernels = qp_session_profile(s, kernels, 32);
    assert_in_range(n_kernels, 0, 31);
    for (int k = 0; k < n_kernels; k++)
        n_dispatches += kernels[k].n;
    quip_session_close(s);
    return n_dispatches;
}

/* A token costs at most 6 dispatches a layer, and with few keys 5. Parallel blocks, too, whose
 * logits are compared as well. */
static void test_dispatches_of_a_token(void **state)
{
    static const struct {
        const char *residual;
        const struct tiny_model *model;
        enum dtype dtype;
    } cases[] = {
        { "sequential", &tiny_gemma3, DTYPE_F32 }, { "sequential", &tiny_gemma3, DTYPE_I8 },
        { "sequential", &tiny_llama, DTYPE_F32 },  { "sequential", &tiny_llama, DTYPE_I8 },
        { "parallel", &tiny_llama, DTYPE_F32 },    { "parallel_norms", &tiny_llama, DTYPE_F32 },
    };
    static const int prompts[] = { 10, 100 }; // keys in one part, and in two
    (void)state;
    for (size_t i = 0; has_gpu() && i < QP_COUNT(cases); i++) {
        struct tiny_model tiny = tiny_with(*cases[i].model, cases[i].dtype);
        const int like = models_named(cases[i].dtype == DTYPE_F32 ? "llama f32" : "llama int8");
        quip_model *models[2];
        quip_error error = { 0 };
        char config[64];
        snprintf(config, sizeof config, "residual %s\n", cases[i].residual);
        tiny.config = config;
        check(tiny_model_write("gpu-dispatches.bin", &tiny, &error), &error);
        for (int b = 0; b < 2; b++) {
            const quip_model_options options = { .backend =
                                                     b ? QUIP_BACKEND_CPU : QUIP_BACKEND_GPU };
            check(quip_model_open(&models[b], "gpu-dispatches.bin", &options, &error), &error);
        }
        for (size_t k = 0; k < QP_COUNT(prompts); k++) {
            float logits[2][TINY_VOCAB];
            const int n = run_token(models[0], prompts[k], logits[0]),
                      n_layers = models[0]->config.n_layers;
            run_token(models[1], prompts[k], logits[1]);
            printf("  %s, %d keys: %d dispatches, %d layers\n", cases[i].residual, prompts[k] + 1,
                   n, n_layers);
            // and the embedding, the last add, the logits
            assert_in_range(n, 1, (k == 0 ? 5 : 6) * n_layers + 3);
            assert_true(logits_difference(logits[0], logits[1], TINY_VOCAB) <=
                        logits_tolerance(like, logits[1], TINY_VOCAB));
        }
        quip_model_close(models[0]);
        quip_model_close(models[1]);
        unlink("gpu-dispatches.bin");
    }
}

/* ---- sequences ---- */

/* The CPU keeps other numbers than the GPU: what one of them exported, the other one refuses. */
static void check_cpu_streams(const char *name, quip_session *on_gpu, struct memory_stream *of_gpu)
{
    quip_model *model =
        models_open(models_named(name), &(quip_model_options){ .backend = QUIP_BACKEND_CPU });
    const quip_session_options options = { .n_context = on_gpu->sequence->n_context };
    quip_session *s = open_session(model, &options), *t = open_session(on_gpu->model, &options);
    struct memory_stream of_cpu = { 0 };
    const quip_token token = 5;
    quip_error error = { 0 };
    of_gpu->at = 0;
    assert_int_equal(s->device->backend->sequence_import(
                         s->sequence, &(struct stream){ memory_stream_read, of_gpu }, &error),
                     QUIP_E_FORMAT);
    assert_string_equal(error.message, "the KV cache is of another model, or of another backend");
    check(quip_session_prefill(s, &token, 1, &error), &error);
    assert_non_null(quip_session_logits(s)); // of an empty session
    check(s->device->backend->sequence_export(
              s->sequence, &(struct stream){ memory_stream_write, &of_cpu }, &error),
          &error);
    assert_int_equal(t->device->backend->sequence_import(
                         t->sequence, &(struct stream){ memory_stream_read, &of_cpu }, &error),
                     QUIP_E_FORMAT);
    assert_string_equal(error.message, "the KV cache is of another model, or of another backend");
    assert_int_equal(t->sequence->pos, 0);
    qp_bytes_close(&of_cpu.bytes);
    quip_session_close(s);
    quip_session_close(t);
    quip_model_close(model);
}

/* A clone, and a session that imported another's keys, continue with the same bits. */
static void test_copies(void **state)
{
    enum {
        N_BEFORE = 70
    };
    static const char *const names[] = { "gemma3 mixed", "gemma3 f32", "llama int8", "lfm2 int8" };
    (void)state;
    for (size_t i = 0; has_gpu() && i < QP_COUNT(names); i++) {
        quip_model *model = open_on_gpu(models_named(names[i]));
        const quip_session_options options = { .n_context = 100 };
        quip_session *s = open_session(model, &options), *t = open_session(model, &options), *clone;
        struct memory_stream stream = { 0 };
        quip_token tokens[N_BEFORE];
        quip_error error = { 0 };
        for (int k = 0; k < N_BEFORE; k++)
            tokens[k] = models_token(model, 5, k);
        check(quip_session_prefill(s, tokens, N_BEFORE, &error), &error);
        check(quip_session_clone(&clone, s, &error), &error);
        const struct backend *b = s->device->backend;
        check(b->sequence_export(s->sequence, &(struct stream){ memory_stream_write, &stream },
                                 &error),
              &error);
        check(b->sequence_import(t->sequence, &(struct stream){ memory_stream_read, &stream },
                                 &error),
              &error);
        assert_int_equal(stream.at, stream.bytes.n);
        memcpy(t->context, tokens, sizeof tokens);
        t->n = N_BEFORE;
        t->has_begun = true;
        quip_session *const all[] = { s, t, clone };
        float *logits = malloc((size_t)model->config.vocab_size * sizeof *logits);
        assert_non_null(logits);
        for (size_t k = 0; k < QP_COUNT(all); k++) {
            check(quip_session_prefill(all[k], tokens, 2, &error), &error);
            const float *now = quip_session_logits(all[k]);
            const size_t n_bytes = (size_t)model->config.vocab_size * sizeof *now;
            if (k == 0)
                memcpy(logits, now, n_bytes);
            assert_memory_equal(logits, now, n_bytes);
        }
        check_cpu_streams(names[i], s, &stream);
        stream.bytes.n -= 5; // an import that fails leaves an empty sequence
        stream.at = 0;
        check(quip_session_rewind(t, 0, &error), &error);
        assert_int_equal(b->sequence_import(
                             t->sequence, &(struct stream){ memory_stream_read, &stream }, &error),
                         QUIP_E_IO);
        assert_int_equal(t->sequence->pos, 0);
        for (size_t k = 0; k < QP_COUNT(all); k++)
            quip_session_close(all[k]);
        qp_bytes_close(&stream.bytes);
        free(logits);
        quip_model_close(model);
    }
}

static void test_many_sessions(void **state)
{
    (void)state;
    if (!has_gpu())
        return;
    quip_model *model = open_on_gpu(4), *other = open_on_gpu(2), *cpu = models_open(4, NULL);
    quip_error error = { 0 };
    for (int i = 0; i < 100; i++) { // of two models on the GPU, and of one on the CPU
        quip_session *s = open_session(i % 3 == 0   ? model
                                       : i % 3 == 1 ? other
                                                    : cpu,
                                       &(quip_session_options){ .n_context = 40 + i % 7 });
        const quip_token token = 5;
        check(quip_session_prefill(s, &token, 1, &error), &error);
        assert_non_null(quip_session_logits(s));
        quip_session_close(s);
    }
    quip_model_close(model);
    quip_model_close(other);
    quip_model_close(cpu);
}

/* ---- what it does not run ---- */

static void test_refused_models(void **state)
{
    quip_model *model;
    quip_error error = { 0 };
    (void)state;
    if (!has_gpu())
        return;
    struct tiny_model tiny = tiny_llama;
    tiny.config = "mixes_inputs 1\nresidual parallel\n";
    check(tiny_model_write("gpu-refused.bin", &tiny, &error), &error);
    const quip_status status = quip_model_open(
        &model, "gpu-refused.bin", &(quip_model_options){ .backend = QUIP_BACKEND_GPU }, &error);
    assert_int_equal(status, QUIP_E_UNSUPPORTED);
    assert_null(model);
    assert_non_null(strstr(error.message, "mixed inputs in a model of this kind"));
    const int fd = open("gpu-refused.bin", O_RDONLY);
    assert_int_equal(quip_model_open_fd(&model, fd, 0, 0,
                                        &(quip_model_options){ .backend = QUIP_BACKEND_GPU },
                                        &error),
                     QUIP_E_UNSUPPORTED);
    close(fd);
    check(quip_model_open(&model, "gpu-refused.bin", NULL, &error), &error);
    quip_model_info info = { .struct_size = sizeof info };
    check(quip_model_get_info(model, &info, &error), &error);
    assert_int_equal(info.backend, QUIP_BACKEND_CPU);
    quip_model_close(model);
    unlink("gpu-refused.bin");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_model),
        cmocka_unit_test(test_wide_inputs),
        cmocka_unit_test(test_newer_goldens),
        cmocka_unit_test(test_few_rows_have_the_bits_of_one),
        cmocka_unit_test(test_dispatches_of_a_token),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_many_sessions),
        cmocka_unit_test(test_refused_models),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, models_make, models_remove);
}
