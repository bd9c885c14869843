/* real.c: compares trained models with a reference: greedy continuations in float32, and perplexity
 * in int8. For two models it is in ../shared/data/real (its README.md). That of Qwen2.5-Coder is in
 * tests/data: llama.cpp (package xllamacpp 2026.10.11549, float32 keys and values, one thread) on
 * the weights that the Python package gguf 0.19 dequantizes to float32; and a window of English
 * (Newton's Opticks) and one of code (heapq.py of Python 3.11). scripts/fetch-model downloads the
 * models into the cache folder. $QUIP_MODELS names another folder. The last tests compare a GPU, if
 * there is one, with the CPU. */
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
#include "engine/engine.h"
#include "support/check.h"
#include "support/gpu.h"
#include "support/logits.h"
#include "support/shared.h"
#include "webgpu/webgpu_impl.h"

#define MAX_IDS 2048
#define N_GPU_GREEDY 8

static void find_checkpoint(char *path, size_t size, const char *name)
{
    const char *models = getenv("QUIP_MODELS"), *cache = getenv("XDG_CACHE_HOME");
    if (models)
        snprintf(path, size, "%s/%s", models, name);
    else if (cache && cache[0])
        snprintf(path, size, "%s/quip/models/%s", cache, name);
    else
        snprintf(path, size, "%s/.cache/quip/models/%s", getenv("HOME"), name);
    need_file(path);
}

/* Convert a model to `weights`; then delete the file at path. */
static void convert_to(char path[64], const char *name, const char *suffix,
                       enum convert_weights weights)
{
    char checkpoint[1024], file[64];
    quip_error error = { 0 };
    snprintf(file, sizeof file, "%s%s", name, suffix);
    find_checkpoint(checkpoint, sizeof checkpoint, file);
    snprintf(path, 64, "real-%s-%d.bin", name, (int)getpid());
    const struct convert_options options = { .weights = weights };
    check(qp_convert(checkpoint, path, &options, &error), &error);
}

static quip_model *open_model(const char *path, quip_backend backend)
{
    quip_model *model;
    quip_error error = { 0 };
    check(quip_model_open(&model, path, &(quip_model_options){ .backend = backend }, &error),
          &error);
    return model;
}

/* Convert a model and open it. The file is deleted at once; the mapping keeps it. */
static quip_model *convert(const char *name, const char *suffix, enum convert_weights weights)
{
    char path[64];
    convert_to(path, name, suffix, weights);
    quip_model *model = open_model(path, QUIP_BACKEND_AUTO);
    unlink(path);
    return model;
}

static cJSON *expectations(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "data/real/%s.json", name);
    need_shared(path);
    return read_json(shared_path(path));
}

/* ---- greedy continuations ---- */

static int likeliest(const float *logits, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static void check_prompt(quip_model *model, const cJSON *prompt)
{
    const char *name = cJSON_GetObjectItem(prompt, "name")->valuestring;
    const char *text = cJSON_GetObjectItem(prompt, "text")->valuestring;
    const cJSON *top_ids = cJSON_GetObjectItem(prompt, "top10_ids");
    const cJSON *top_logits = cJSON_GetObjectItem(prompt, "top10_logits");
    const cJSON *top_logprobs = cJSON_GetObjectItem(prompt, "top10_logprobs");
    int ids[MAX_IDS], greedy[64], encoded[MAX_IDS], n_encoded;
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info };
    quip_session *s;
    float worst = 0;
    quip_model_get_info(model, &info, NULL);
    const int n = json_ids(cJSON_GetObjectItem(prompt, "ids"), ids, MAX_IDS);
    const int n_greedy = json_ids(cJSON_GetObjectItem(prompt, "greedy_ids"), greedy, 64);

    const int n_bos = info.bos >= 0 && n > 0 && ids[0] == info.bos;
    check(quip_tokenize(model, text, strlen(text), true, encoded, MAX_IDS, &n_encoded, &error),
          &error);
    if (n_encoded != n - n_bos || memcmp(encoded, ids + n_bos, (size_t)n_encoded * sizeof *ids))
        fail_msg("%s: the ids of the prompt differ from the reference", name);

    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = 2048 }, &error),
          &error);
    check(quip_session_prefill(s, ids, n, &error), &error);
    for (int i = 0; i < cJSON_GetArraySize(top_ids); i++) {
        const float *logits = quip_session_logits(s);
        const int id = cJSON_GetArrayItem(top_ids, i)->valueint;
        float want, got = logits[id];
        if (top_logits) {
            want = (float)cJSON_GetArrayItem(top_logits, i)->valuedouble;
        } else { // log probabilities: compare with the likeliest token
            want = (float)(cJSON_GetArrayItem(top_logprobs, i)->valuedouble -
                           cJSON_GetArrayItem(top_logprobs, 0)->valuedouble);
            got -= logits[cJSON_GetArrayItem(top_ids, 0)->valueint];
        }
        worst = fmaxf(worst, fabsf(got - want));
    }
    printf("  %-12s %4d tokens, largest difference of the top logits %.2g\n", name, n,
           (double)worst);
    assert_true(worst < 1e-3f);
    for (int i = 0; i < n_greedy; i++) {
        const int best = likeliest(quip_session_logits(s), info.vocab_size);
        if (best != greedy[i])
            fail_msg("%s: greedy token %d is %d, expected %d", name, i, best, greedy[i]);
        check(quip_session_prefill(s, &best, 1, &error), &error);
    }
    quip_session_close(s);
}

/* ---- perplexity ---- */

struct score {
    const int *ids;
    int n, vocab_size;
    double nll;
};

static bool score_row(void *user, int position, const float *logits)
{
    struct score *c = user;
    if (position + 1 >= c->n)
        return true;
    double sum = 0;
    const float max = logits[likeliest(logits, c->vocab_size)];
    for (int i = 0; i < c->vocab_size; i++)
        sum += exp((double)(logits[i] - max));
    c->nll += log(sum) + (double)max - (double)logits[c->ids[position + 1]];
    return true;
}

/* The sum of the negative log likelihoods of a window; adds their number to *n_scored. */
static double window_nll(quip_model *model, const cJSON *window, int *n_scored)
{
    int ids[MAX_IDS];
    quip_error error = { 0 };
    quip_session *s;
    quip_model_info info = { .struct_size = sizeof info };
    quip_model_get_info(model, &info, NULL);
    struct score c = { ids, json_ids(window, ids, MAX_IDS), info.vocab_size, 0 };
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = c.n }, &error),
          &error);
    check(quip_session_prefill_logits(s, ids, c.n, score_row, &c, &error), &error);
    quip_session_close(s);
    *n_scored += c.n - 1;
    return c.nll;
}

static double mean_nll_of(quip_model *model, const cJSON *window)
{
    int n = 0;
    const double nll = window_nll(model, window, &n);
    return nll / n;
}

static double mean_nll(quip_model *model, const cJSON *windows)
{
    int n_scored = 0;
    double nll = 0;
    const cJSON *window;
    cJSON_ArrayForEach(window, windows) nll += window_nll(model, window, &n_scored);
    return nll / n_scored;
}

static void check_model(const char *name)
{
    const cJSON *prompt;
    cJSON *expected = expectations(name);
    const cJSON *perplexity = cJSON_GetObjectItem(expected, "perplexity");
    const cJSON *results = cJSON_GetObjectItem(perplexity, "results");
    const cJSON *windows = cJSON_GetObjectItem(perplexity, "windows");
    const cJSON *f32 = cJSON_GetObjectItem(results, "f32");
    const double want = cJSON_GetObjectItem(f32, "mean_nll")->valuedouble;

    quip_model *model = convert(name, ".gguf", CONVERT_F32);
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
        check_prompt(model, prompt);
    const double float_nll = mean_nll(model, windows);
    printf("  %s f32: mean NLL %.6f, reference %.6f\n", name, float_nll, want);
    assert_true(fabs(float_nll - want) < 1e-4);
    quip_model_close(model);

    model = convert(name, ".gguf", CONVERT_INT8);
    const double int8_nll = mean_nll(model, windows);
    printf("  %s int8: perplexity %.3f, reference f32 %.3f, %+.2f %%\n", name, exp(int8_nll),
           exp(want), 100 * (exp(int8_nll - want) - 1));
    assert_true(exp(int8_nll - want) < 1.01);
    quip_model_close(model);
    cJSON_Delete(expected);
}

static void test_smollm2(void **state)
{
    (void)state;
    check_model("smollm2-135m");
}

static void test_gemma3(void **state)
{
    (void)state;
    check_model("gemma3-270m");
}

/* The reference has no perplexity: int8 is compared with float32. */
static void test_qwen2_5_coder(void **state)
{
    (void)state;
    const char *name = "qwen2.5-coder-0.5b";
    const cJSON *prompt, *window;
    double float_nll[2], int8_nll;
    int i = 0;
    quip_model *model = convert(name, ".gguf", CONVERT_F32);
    cJSON *expected = read_json(QUIP_SOURCE_DIR "/tests/data/qwen2.5-coder-0.5b.json");
    cJSON *windows = cJSON_GetObjectItem(expected, "windows");
    assert_int_equal(cJSON_GetArraySize(windows), 2);
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
        check_prompt(model, prompt);
    cJSON_ArrayForEach(window, windows) float_nll[i++] = mean_nll_of(model, window);
    quip_model_close(model);
    model = convert(name, ".gguf", CONVERT_INT8);
    i = 0;
    cJSON_ArrayForEach(window, windows)
    {
        int8_nll = mean_nll_of(model, window);
        printf("  %s int8: perplexity %.3f, f32 %.3f, %+.2f %%\n", name, exp(int8_nll),
               exp(float_nll[i]), 100 * (exp(int8_nll - float_nll[i]) - 1));
        assert_true(exp(int8_nll - float_nll[i]) < 1.01);
        i++;
    }
    quip_model_close(model);
    cJSON_Delete(expected);
}

/* The first numbers of what sentence-transformers 6.2 computes with torch 2.15. */
static void test_minilm(void **state)
{
    enum {
        WIDTH = 384
    };
    static const struct {
        const char *text;
        float first[4];
    } cases[] = {
        { "A cat sits outside", { 0.1325569f, 0.0078309f, 0.0505833f, 0.0413122f } },
        { "The new film is great", { -0.0804223f, -0.0433970f, 0.0101490f, -0.0660663f } },
        { "Why is the sky blue?", { 0.0100770f, -0.0017391f, 0.0501802f, 0.0470251f } },
        { "\xc3\x9c"
          "berm\xc3\xa4\xc3\x9fig na\xc3\xafve Texte, \xe4\xb8\x96\xe7\x95\x8c!",
          { -0.0175407f, 0.1448847f, 0.0775336f, -0.0552400f } },
        { "def main():\n    return 0", { 0.0409148f, 0.0263084f, -0.0555721f, 0.0063046f } },
    };
    (void)state;
    quip_error error = { 0 };
    quip_model *f32 = convert("all-minilm-l6-v2", "", CONVERT_F32);
    quip_model *int8 = convert("all-minilm-l6-v2", "", CONVERT_INT8);
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        const quip_embed_input input = { .text = cases[i].text, .n_text = strlen(cases[i].text) };
        float x[WIDTH], y[WIDTH];
        double cosine = 0;
        check(quip_embed(f32, &input, 1, NULL, x, WIDTH, &error), &error);
        check(quip_embed(int8, &input, 1, NULL, y, WIDTH, &error), &error);
        for (int k = 0; k < 4; k++)
            assert_true(fabsf(x[k] - cases[i].first[k]) < 2e-6f);
        for (int k = 0; k < WIDTH; k++)
            cosine += (double)x[k] * (double)y[k];
        printf("  all-minilm-l6-v2 int8: cosine %.5f\n", cosine);
        assert_true(cosine > 0.999);
    }
    quip_model_close(f32);
    quip_model_close(int8);
}

/* ---- on the GPU ---- */

static quip_session *open_session(quip_model *model, int n_context)
{
    quip_session *s;
    quip_error error = { 0 };
    check(quip_session_open(&s, model, &(quip_session_options){ .n_context = n_context }, &error),
          &error);
    return s;
}

/* What a logit may differ by, and did on lavapipe: with float32 weights 1e-3, as from the
 * reference, and 5.1e-5; with int8 weights 0.5 of the root mean square of the CPU's logits, as in
 * logits.c, and 0.30. The CPU rounds keys and values to int8, the GPU to binary16. */
static float gpu_tolerance(enum convert_weights weights, const float *logits, int n)
{
    return weights == CONVERT_F32 ? 1e-3f : 0.5f * logits_rms(logits, (size_t)n);
}

/* A prompt, and the tokens that the CPU likes best after it: the logits of the GPU are near those
 * of the CPU, and the best token is the same where the CPU's margin is clear (check_greedy in
 * gpu.c). Returns how many such tokens there were. */
static int compare_with_cpu(quip_session *gpu, quip_session *cpu, const cJSON *prompt,
                            enum convert_weights weights)
{
    const int vocab_size = cpu->model->config.vocab_size;
    int ids[MAX_IDS], n = json_ids(cJSON_GetObjectItem(prompt, "ids"), ids, MAX_IDS), n_clear = 0;
    quip_error error = { 0 };
    for (int i = 0; i < N_GPU_GREEDY; i++) {
        check(quip_session_prefill(cpu, ids, n, &error), &error);
        check(quip_session_prefill(gpu, ids, n, &error), &error);
        const float *want = quip_session_logits(cpu), *got = quip_session_logits(gpu);
        assert_true(want && got);
        const float tolerance = gpu_tolerance(weights, want, vocab_size),
                    difference = logits_difference(want, got, (size_t)vocab_size);
        printf("  token %d: the logits differ by %.2g of %.2g, margin %.2g\n", i,
               (double)difference, (double)tolerance, (double)logits_margin(want, vocab_size));
        assert_true(difference <= tolerance);
        ids[0] = logits_best(want, vocab_size);
        n = 1;
        if (logits_margin(want, vocab_size) <= 2 * tolerance)
            continue;
        assert_int_equal(logits_best(got, vocab_size), ids[0]);
        n_clear++;
    }
    return n_clear;
}

static void check_gpu(const char *name, enum convert_weights weights)
{
    if (!has_gpu())
        skip();
    cJSON *expected = expectations(name);
    char path[64];
    convert_to(path, name, ".gguf", weights);
    quip_model *gpu = open_model(path, QUIP_BACKEND_GPU), *cpu = open_model(path, QUIP_BACKEND_CPU);
    unlink(path);
    gpu->no_self_test = weights == CONVERT_F32; // it takes longer than the test
    const cJSON *prompt = cJSON_GetObjectItem(expected, "prompts")->child;
    while (prompt && strcmp(cJSON_GetObjectItem(prompt, "name")->valuestring, "code") != 0)
        prompt = prompt->next;
    assert_non_null(prompt);
    quip_session *s = open_session(gpu, 64), *t = open_session(cpu, 64);
    const struct webgpu_device *d = webgpu_of(s->device); // which binds parts of large matrices
    const uint64_t n_bytes = gpu->weights.embed.row_bytes * (uint64_t)gpu->config.vocab_size;
    printf("  the embedding is in %d buffers\n", d->embed.n_slabs);
    assert_int_equal(d->embed.n_slabs > 1, n_bytes > qp_gpu_info(d->gpu)->max_binding);
    const int n_clear = compare_with_cpu(s, t, prompt, weights);
    printf("  %s %s: %d greedy tokens of %d are compared\n", name, gpu->weights_name, n_clear,
           N_GPU_GREEDY);
    assert_true(n_clear > N_GPU_GREEDY / 2 || weights != CONVERT_F32);
    quip_session_close(s);
    quip_session_close(t);
    quip_model_close(gpu);
    quip_model_close(cpu);
    cJSON_Delete(expected);
}

static void test_smollm2_gpu(void **state)
{
    (void)state;
    check_gpu("smollm2-135m", CONVERT_F32);
    check_gpu("smollm2-135m", CONVERT_INT8);
}

static void test_gemma3_gpu(void **state)
{
    (void)state;
    check_gpu("gemma3-270m", CONVERT_F32);
    check_gpu("gemma3-270m", CONVERT_INT8);
}

int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smollm2),       cmocka_unit_test(test_gemma3),
        cmocka_unit_test(test_qwen2_5_coder), cmocka_unit_test(test_minilm),
        cmocka_unit_test(test_smollm2_gpu),   cmocka_unit_test(test_gemma3_gpu)
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
