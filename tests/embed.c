/* embed.c (test): embeddings are those of the reference (../shared/data/golden-2), whatever else is
 * in the batch, on every instruction set, with any number of threads and on both backends; options
 * do what quip.h says; folders that are not understood are refused. */
#include "convert/convert.h"
#include "engine/engine.h"
#include "support/check.h"
#include "support/golden.h"
#include "support/gpu.h"
#include "support/models.h"
#include "support/reference_backend.h"
#include "support/shared.h"
#include "support/wrong_rows.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    MAX_WIDTH = 256,
    MAX_IDS = 80
};

/* ---- golden models ---- */

static const char *const folders[] = { "bert", "gemma3-embedding", "qwen3-embedding" };

static quip_model *open_golden_as(const char *folder, enum convert_weights weights)
{
    char name[256], path[80];
    quip_error error = { 0 };
    quip_model *model;
    snprintf(name, sizeof name, "data/golden-2/%s", folder);
    need_shared(name);
    snprintf(path, sizeof path, "embed-%s-%d.bin", folder, (int)getpid());
    const struct convert_options options = { .weights = weights };
    check(qp_convert(shared_path(name), path, &options, &error), &error);
    check(quip_model_open(&model, path, NULL, &error), &error);
    unlink(path);
    return model;
}

static int width_of_model(const quip_model *model)
{
    quip_model_info info = { .struct_size = sizeof info };
    assert_int_equal(quip_model_get_info(model, &info, NULL), QUIP_OK);
    assert_true(info.n_embedding > 0 && info.n_embedding <= MAX_WIDTH);
    return info.n_embedding;
}

static cJSON *read_expected(const char *folder)
{
    char name[256];
    snprintf(name, sizeof name, "data/golden-2/%s/expected.json", folder);
    need_shared(name);
    return read_json(shared_path(name));
}

static int read_ids(const cJSON *prompt, quip_token ids[MAX_IDS])
{
    int n = 0;
    const cJSON *id;
    cJSON_ArrayForEach(id, cJSON_GetObjectItem(prompt, "ids")) ids[n++] = id->valueint;
    assert_true(n <= MAX_IDS);
    return n;
}

/* The floats of a file that the prompt names. */
static float *read_wanted(const char *folder, const cJSON *prompt, const char *key, size_t n)
{
    char name[256];
    size_t n_bytes;
    snprintf(name, sizeof name, "data/golden-2/%s/%s", folder,
             cJSON_GetObjectItem(prompt, key)->valuestring);
    float *x = (float *)(void *)read_whole(shared_path(name), &n_bytes);
    assert_int_equal(n_bytes, n * sizeof *x);
    return x;
}

static float distance(const float *a, const float *b, int n)
{
    float most = 0;
    for (int i = 0; i < n; i++) {
        const float d = fabsf(a[i] - b[i]);
        most = d > most || isnan(d) ? d : most;
    }
    return most;
}

static float cosine(const float *a, const float *b, int n)
{
    double ab = 0, aa = 0, bb = 0;
    for (int i = 0; i < n; i++) {
        ab += (double)a[i] * (double)b[i];
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
    }
    return (float)(ab / sqrt(aa * bb));
}

static void embed_ids(quip_model *model, const quip_token *ids, int n,
                      const quip_embed_options *options, float *to)
{
    quip_error error = { 0 };
    const quip_embed_input input = { .tokens = ids, .n_tokens = n };
    check(quip_embed(model, &input, 1, options, to, MAX_WIDTH, &error), &error);
}

/* ---- the reference ---- */

static void check_prompt(quip_model *model, const char *folder, const cJSON *prompt,
                         float tolerance)
{
    quip_token ids[MAX_IDS];
    float got[MAX_WIDTH];
    const int n = read_ids(prompt, ids), width = width_of_model(model);
    float *want = read_wanted(folder, prompt, "embedding_file", (size_t)width);
    embed_ids(model, ids, n, NULL, got);
    const float d = distance(got, want, width);
    if (!(d <= tolerance))
        fail_msg("%s: \"%s\": the embedding is %g away from the reference, at most %g is allowed",
                 folder, prompt->string, (double)d, (double)tolerance);
    if (model->weights.n_dense == 0) { // otherwise the dense layers come before that
        free(want);
        want = read_wanted(folder, prompt, "pooled_file", (size_t)width);
        embed_ids(model, ids, n, &(quip_embed_options){ .no_normalize = true }, got);
        assert_true(distance(got, want, width) <= 10 * tolerance);
    }
    free(want);
}

static void check_golden(const char *folder, quip_backend id, const struct backend *backend)
{
    const cJSON *prompt;
    cJSON *expected = read_expected(folder);
    quip_model *model = open_golden_as(folder, CONVERT_F32);
    model->options.backend = id;
    model->backend = backend;
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
        check_prompt(model, folder, prompt, 2e-6f);
    quip_model_close(model);
    cJSON_Delete(expected);
}

static void test_golden(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(folders); i++)
        check_golden(folders[i], QUIP_BACKEND_CPU, NULL);
}

static void test_reference_backend(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(folders); i++)
        check_golden(folders[i], QUIP_BACKEND_CPU, &reference_backend);
}

/* The hidden states of all tokens, by pooling one at a time. */
static void test_hidden(void **state)
{
    (void)state;
    quip_token ids[MAX_IDS];
    float got[MAX_WIDTH];
    const char *folder = "bert";
    cJSON *expected = read_expected(folder);
    const cJSON *prompt = cJSON_GetObjectItem(cJSON_GetObjectItem(expected, "prompts"), "main");
    quip_model *model = open_golden_as(folder, CONVERT_F32);
    const int n = read_ids(prompt, ids), width = width_of_model(model);
    float *want = read_wanted(folder, prompt, "hidden_file", (size_t)(n * width));
    const int32_t poolings[] = { QUIP_POOLING_FIRST, QUIP_POOLING_LAST };
    for (int i = 0; i < 2; i++) {
        embed_ids(model, ids, n,
                  &(quip_embed_options){ .pooling = poolings[i], .no_normalize = true }, got);
        assert_true(distance(got, want + (i ? (n - 1) * width : 0), width) <= 2e-5f);
    }
    free(want);
    quip_model_close(model);
    cJSON_Delete(expected);
}

static void check_int8(quip_model *model, size_t i)
{
    cJSON *expected = read_expected(folders[i]);
    const cJSON *prompt;
    const int width = width_of_model(model);
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
    {
        quip_token ids[MAX_IDS];
        float got[MAX_WIDTH];
        float *want = read_wanted(folders[i], prompt, "embedding_file", (size_t)width);
        embed_ids(model, ids, read_ids(prompt, ids), NULL, got);
        if (!(cosine(got, want, width) > 0.999f))
            fail_msg("%s: \"%s\": the cosine is %.5f", folders[i], prompt->string,
                     (double)cosine(got, want, width));
        free(want);
    }
    cJSON_Delete(expected);
}

static void test_int8(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(folders); i++) {
        quip_model *model = open_golden_as(folders[i], CONVERT_INT8);
        check_int8(model, i);
        quip_model_close(model);
    }
}

static void make_tokens(const quip_model *model, int seed, int n, quip_token *ids)
{
    for (int i = 0; i < n; i++)
        ids[i] = models_token(model, seed, i);
}

/* Attention in integers, of texts that fill blocks of keys and spans of blocks, is near that in
 * floats. */
static void test_int8_attention(void **state)
{
    (void)state;
    static quip_token ids[700];
    const int lengths[] = { 63, 64, 65, 127, 128, 300, 512, 513, 700 };
    for (size_t i = 0; i < QP_COUNT(folders); i++) {
        quip_model *exact = open_golden_as(folders[i], CONVERT_F32);
        quip_model *model = open_golden_as(folders[i], CONVERT_INT8);
        const int width = width_of_model(model);
        if (!model->weights.positions) // two spans
            model->config.n_context_max = exact->config.n_context_max = 700;
        const int max = model->config.n_context_max;
        for (size_t k = 0; k < QP_COUNT(lengths) && lengths[k] <= max; k++) {
            float want[MAX_WIDTH], got[MAX_WIDTH];
            const quip_embed_options options = { .n_tokens_max = lengths[k] };
            make_tokens(model, 7, lengths[k], ids);
            embed_ids(exact, ids, lengths[k], &options, want);
            embed_ids(model, ids, lengths[k], &options, got);
            if (!(cosine(got, want, width) > 0.999f))
                fail_msg("%s, %d tokens: the cosine is %.5f", folders[i], lengths[k],
                         (double)cosine(got, want, width));
        }
        quip_model_close(model);
        quip_model_close(exact);
    }
}

/* ---- each detail matters ---- */

/* The embedding of "main" after a change of the model, compared with the reference. */
static float changed_by(const char *folder, void (*change)(quip_model *m))
{
    quip_token ids[MAX_IDS];
    float got[MAX_WIDTH];
    cJSON *expected = read_expected(folder);
    const cJSON *prompt = cJSON_GetObjectItem(cJSON_GetObjectItem(expected, "prompts"), "main");
    quip_model *model = open_golden_as(folder, CONVERT_F32);
    const int width = width_of_model(model);
    float *want = read_wanted(folder, prompt, "embedding_file", (size_t)width);
    change(model);
    embed_ids(model, ids, read_ids(prompt, ids), NULL, got);
    const float d = distance(got, want, width);
    free(want);
    quip_model_close(model);
    cJSON_Delete(expected);
    return d;
}

static void make_causal(quip_model *m)
{
    m->config.is_bidirectional = false;
}

static void widen_windows(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].window += m->config.layers[l].window > 0;
}

static void double_windows(quip_model *m) // the whole window to each side
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].window =
            m->config.layers[l].window ? 2 * m->config.layers[l].window - 1 : 0;
}

static void use_other_gelu(quip_model *m)
{
    m->config.act = m->config.act == ACT_GELU_ERF ? ACT_GELU_TANH : ACT_GELU_ERF;
}

static void norm_branches(quip_model *m)
{
    m->config.norms_sum = false;
}

static void leave_out_rope(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].rope = ROPE_NONE;
}

static void leave_out_embed_scale(quip_model *m)
{
    m->config.embed_scale = 1;
}

static void use_plain_norms(quip_model *m)
{
    m->config.norm = NORM_RMS;
}

static void use_usual_query_scale(quip_model *m)
{
    m->config.query_scale = 1 / sqrtf((float)m->config.layers[0].head_dim);
}

static void use_one_rope_base(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].theta = m->config.ropes[ROPE_LOCAL].theta;
}

static void leave_out_windows(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].window = 0;
}

static void leave_out_qk_norms(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].q_norm.scale = m->weights.layers[l].k_norm.scale = NULL;
}

static void leave_out_biases(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        for (int i = 0; i < N_MATRICES; i++)
            m->weights.layers[l].m[i].bias = NULL;
}

static void leave_out_norm_biases(quip_model *m)
{
    m->weights.embed_norm.bias = NULL;
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].attn_post_norm.bias = m->weights.layers[l].ff_post_norm.bias = NULL;
}

static void leave_out_positions(quip_model *m)
{
    m->weights.positions = NULL;
}

/* The converter adds the vector of the first token type to that of each position: undo that, and
 * add the vector of `type`, if there is one. */
static void change_token_type(quip_model *m, int type)
{
    enum {
        WIDTH = 40
    };
    static float positions[MAX_IDS * WIDTH];
    quip_error error = { 0 };
    struct file file;
    struct format format;
    assert_int_equal(m->config.d_model, WIDTH);
    check(qp_file_open(&file, shared_path("data/golden-2/bert/model.safetensors"), &error), &error);
    check(qp_format_open(&format, &file, &error), &error);
    const struct tensor *types = qp_format_find(&format, "embeddings.token_type_embeddings.weight");
    assert_true(types && types->dtype == DTYPE_F32 && types->dims[1] == WIDTH);
    const float *vectors = (const float *)(const void *)(file.data + types->offset);
    for (int i = 0; i < MAX_IDS * WIDTH; i++)
        positions[i] = m->weights.positions[i] - vectors[i % WIDTH] +
                       (type < 0 ? 0 : vectors[type * WIDTH + i % WIDTH]);
    m->weights.positions = positions;
    qp_format_close(&format);
    qp_file_close(&file);
}

static void leave_out_token_type(quip_model *m)
{
    change_token_type(m, -1);
}

static void use_second_token_type(quip_model *m)
{
    change_token_type(m, 1);
}

static void test_details(void **state)
{
    static const struct {
        const char *folder, *what;
        void (*change)(quip_model *m);
        float least;
    } cases[] = {
        { "bert", "causal", make_causal, 1e-2f },
        { "bert", "other gelu", use_other_gelu, 1e-5f },
        { "bert", "norm before the sum", norm_branches, 1e-2f },
        { "bert", "no token type", leave_out_token_type, 1e-2f },
        { "bert", "the second token type", use_second_token_type, 1e-2f },
        { "bert", "no positions", leave_out_positions, 1e-2f },
        { "bert", "no biases", leave_out_biases, 1e-2f },
        { "bert", "no biases of norms", leave_out_norm_biases, 1e-2f },
        { "gemma3-embedding", "causal", make_causal, 1e-2f },
        { "gemma3-embedding", "window + 1", widen_windows, 1e-3f },
        { "gemma3-embedding", "whole window to each side", double_windows, 1e-2f },
        { "gemma3-embedding", "other gelu", use_other_gelu, 5e-6f },
        { "gemma3-embedding", "no windows", leave_out_windows, 1e-2f },
        { "gemma3-embedding", "no rope", leave_out_rope, 1e-2f },
        { "gemma3-embedding", "one base of rope", use_one_rope_base, 1e-3f },
        { "gemma3-embedding", "no embedding scale", leave_out_embed_scale, 1e-2f },
        { "gemma3-embedding", "norm weight without + 1", use_plain_norms, 1e-2f },
        { "gemma3-embedding", "1/sqrt(head_dim) as scale", use_usual_query_scale, 1e-3f },
        { "gemma3-embedding", "no norms of q and k", leave_out_qk_norms, 1e-2f },
        { "gemma3-embedding", "adjacent pairs turn", take_halves_for_pairs, 1e-2f },
        { "qwen3-embedding", "no rope", leave_out_rope, 1e-2f },
        { "qwen3-embedding", "no norms of q and k", leave_out_qk_norms, 1e-2f },
        { "qwen3-embedding", "adjacent pairs turn", take_halves_for_pairs, 1e-2f },
    };
    (void)state;
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        const float d = changed_by(cases[i].folder, cases[i].change);
        if (!(d > cases[i].least))
            fail_msg("%s: %s: changes the embedding by %g only", cases[i].folder, cases[i].what,
                     (double)d);
    }
}

/* ---- one answer everywhere ---- */

/* A batch of texts of many lengths gives the bits of each text alone. */
static void check_batch(quip_model *model)
{
    enum {
        N = 150
    };
    static quip_token ids[N][130];
    static float together[N][MAX_WIDTH], alone[MAX_WIDTH];
    quip_embed_input inputs[N];
    quip_error error = { 0 };
    const int width = width_of_model(model);
    for (int i = 0; i < N; i++) {
        const int n = 1 + (i * 37) % (i % 5 ? 12 : 125);
        make_tokens(model, i, n, ids[i]);
        inputs[i] = (quip_embed_input){ .tokens = ids[i], .n_tokens = n };
    }
    float *packed = malloc((size_t)N * (size_t)width * sizeof *packed);
    assert_non_null(packed);
    check(quip_embed(model, inputs, N, NULL, packed, (size_t)N * (size_t)width, &error), &error);
    for (int i = 0; i < N; i++) {
        memcpy(together[i], packed + (size_t)i * (size_t)width, (size_t)width * sizeof(float));
        embed_ids(model, ids[i], inputs[i].n_tokens, NULL, alone);
        assert_memory_equal(alone, together[i], (size_t)width * sizeof(float));
    }
    free(packed);
}

static void test_batch(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(folders); i++)
        for (int weights = 0; weights < 2; weights++) {
            quip_model *model = open_golden_as(folders[i], weights ? CONVERT_INT8 : CONVERT_F32);
            check_batch(model);
            quip_model_close(model);
        }
}

/* Files from before weights had a rest open as they did. */
static void test_without_rest(void **state)
{
    (void)state;
    char path[80];
    quip_error error = { 0 };
    quip_model *model;
    const char *folder = "data/golden-2/qwen3-embedding";
    need_shared(folder);
    snprintf(path, sizeof path, "embed-original-%d.bin", (int)getpid());
    const struct convert_options options = { .weights = CONVERT_INT8, .is_original = true };
    check(qp_convert(shared_path(folder), path, &options, &error), &error);
    check(quip_model_open(&model, path, NULL, &error), &error);
    unlink(path);
    assert_true(!model->weights.has_rest && !model->weights.embed.rest);
    check_batch(model);
    quip_model_close(model);
    model = open_golden_as("qwen3-embedding", CONVERT_INT8);
    assert_true(model->weights.has_rest && model->weights.embed.rest);
    quip_model_close(model);
    model = open_golden_as("bert", CONVERT_INT8);
    assert_true(!model->weights.has_rest);
    quip_model_close(model);
}

/* The GPU's embeddings are the reference's, too, and those of a batch have the bits of each alone.
 */
static void test_gpu(void **state)
{
    (void)state;
    for (size_t i = 0; has_gpu() && i < QP_COUNT(folders); i++) {
        check_golden(folders[i], QUIP_BACKEND_GPU, NULL);
        quip_model *model = open_golden_as(folders[i], CONVERT_INT8);
        model->options.backend = QUIP_BACKEND_GPU;
        check_int8(model, i);
        check_batch(model);
        quip_model_close(model);
    }
}

static void test_same_on_every_isa(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(folders); i++)
        for (int weights = 0; weights < 2; weights++) {
            float first[MAX_WIDTH], got[MAX_WIDTH];
            quip_token ids[100];
            for (int level = 0; models_set_level(level); level++) {
                quip_model *model =
                    open_golden_as(folders[i], weights ? CONVERT_INT8 : CONVERT_F32);
                const size_t n_bytes = (size_t)width_of_model(model) * sizeof(float);
                make_tokens(model, 5, 100, ids);
                for (int n_threads = 1; n_threads < 4; n_threads += 2) {
                    embed_ids(model, ids, 100, &(quip_embed_options){ .n_threads = n_threads },
                              got);
                    if (level == 0 && n_threads == 1)
                        memcpy(first, got, n_bytes);
                    assert_memory_equal(got, first, n_bytes);
                }
                quip_model_close(model);
            }
            models_reset_level();
        }
}

/* ---- options ---- */

#define assert_refused(call, expected, word)                                                       \
    do {                                                                                           \
        quip_error refused = { 0 };                                                                \
        quip_error *error = &refused;                                                              \
        assert_int_equal(call, expected);                                                          \
        if (!strstr(refused.message, word))                                                        \
            fail_msg("\"%s\" is not in \"%s\"", word, refused.message);                            \
    } while (0)

static quip_status embed_text(quip_model *model, const char *text,
                              const quip_embed_options *options, float *to, quip_error *error)
{
    const quip_embed_input input = { .text = text, .n_text = strlen(text) };
    return quip_embed(model, &input, 1, options, to, MAX_WIDTH, error);
}

static void test_texts(void **state)
{
    (void)state;
    quip_error error = { 0 };
    float a[MAX_WIDTH], b[MAX_WIDTH];
    quip_model *model = open_golden_as("bert", CONVERT_F32);
    const size_t n_bytes = (size_t)width_of_model(model) * sizeof(float);
    // a text is [CLS], its tokens, [SEP]
    check(embed_text(model, "Hello, world!", NULL, a, &error), &error);
    const quip_token ids[] = { 2, 78, 18, 214, 28, 54, 93, 259, 25, 17, 1, 3 };
    embed_ids(model, ids, QP_COUNT(ids), NULL, b);
    assert_memory_equal(a, b, n_bytes);
    // it is cut behind its first tokens; [SEP] stays
    const quip_embed_options five = { .n_tokens_max = 5 };
    check(embed_text(model, "Hello, world!", &five, a, &error), &error);
    const quip_token cut[] = { 2, 78, 18, 214, 3 };
    embed_ids(model, cut, QP_COUNT(cut), NULL, b);
    assert_memory_equal(a, b, n_bytes);
    check(embed_text(model, "", NULL, a, &error), &error);
    // a prefix is a part of the text
    check(embed_text(model, "world!", &(quip_embed_options){ .prefix = "Hello, " }, a, &error),
          &error);
    embed_ids(model, ids, QP_COUNT(ids), NULL, b);
    assert_memory_equal(a, b, n_bytes);
    // the first dimensions, normalised again
    check(embed_text(model, "a", NULL, a, &error), &error);
    check(embed_text(model, "a", &(quip_embed_options){ .n_dimensions = 8 }, b, &error), &error);
    assert_true(fabsf(cosine(b, b, 8) - 1) < 1e-6f && fabsf(cosine(a, b, 8) - 1) < 1e-6f);
    double length = 0;
    for (int i = 0; i < 8; i++)
        length += (double)b[i] * (double)b[i];
    assert_true(fabs(length - 1) < 1e-6);
    quip_model_close(model);
}

static void test_refusals(void **state)
{
    (void)state;
    float x[MAX_WIDTH];
    quip_session *session;
    quip_model *model = open_golden_as("bert", CONVERT_F32);
    quip_embed_options o = { 0 };
    quip_token ids[200] = { 2 };
    quip_embed_input input = { .tokens = ids, .n_tokens = 129 };
    assert_refused(quip_session_open(&session, model, NULL, error), QUIP_E_UNSUPPORTED,
                   "is an embedding model");
    assert_refused(quip_embed(NULL, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT, "model is NULL");
    assert_refused(quip_embed(model, NULL, 1, &o, x, 40, error), QUIP_E_ARGUMENT, "inputs is NULL");
    assert_refused(quip_embed(model, &input, 1, &o, NULL, 40, error), QUIP_E_ARGUMENT,
                   "embeddings is NULL");
    assert_refused(quip_embed(model, &input, -1, &o, x, 40, error), QUIP_E_ARGUMENT, "n is -1");
    assert_refused(quip_embed(model, &input, 1, &o, x, 39, error), QUIP_E_ARGUMENT, "capacity");
    assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_CONTEXT_FULL,
                   "has 129 tokens; must be at most 128");
    input.n_tokens = 0;
    assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT, "0 tokens");
    input.n_tokens = 2;
    ids[1] = 400;
    assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT,
                   "token 1 is 400");
    o.prompt = "query";
    assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT,
                   "no prompt \"query\"");
    o.prefix = "";
    assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT, "both");
    o = (quip_embed_options){ .pooling = 4 };
    assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT, "pooling is 4");
    o = (quip_embed_options){ .n_dimensions = 41 };
    assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT, "n_dimensions");
    o = (quip_embed_options){ .n_tokens_max = 2 };
    assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT, "at least 3");
    o = (quip_embed_options){ .n_tokens_max = 4, .no_truncation = true };
    assert_refused(embed_text(model, "Hello, world!", &o, x, error), QUIP_E_CONTEXT_FULL,
                   "text 0 has 12 tokens");
    for (size_t i = 0; i < QP_COUNT(o.reserved); i++) {
        o = (quip_embed_options){ 0 };
        o.reserved[i] = 1;
        assert_refused(quip_embed(model, &input, 1, &o, x, 40, error), QUIP_E_ARGUMENT, "reserved");
    }
    assert_int_equal(quip_embed(model, NULL, 0, NULL, NULL, 0, NULL), QUIP_OK);
    assert_null(quip_model_prompt_name(model, 0));
    assert_null(quip_model_prompt_name(NULL, 0));
    quip_model_close(model);
}

/* A model that generates text makes embeddings only on request. */
static void test_language_model(void **state)
{
    (void)state;
    if (models_count() == 0)
        skip();
    float a[1024], b[1024];
    quip_model *model = models_open(0, NULL);
    quip_model_info info = { .struct_size = sizeof info };
    assert_int_equal(quip_model_get_info(model, &info, NULL), QUIP_OK);
    assert_true(!info.is_embedding && info.n_embedding == info.d_model && info.d_model <= 1024);
    quip_token ids[40];
    make_tokens(model, 1, 40, ids);
    quip_embed_input input = { .tokens = ids, .n_tokens = 40 };
    assert_refused(quip_embed(model, &input, 1, NULL, a, 1024, error), QUIP_E_UNSUPPORTED,
                   "is not an embedding model");
    const quip_embed_options last = { .pooling = QUIP_POOLING_LAST },
                             first = { .pooling = QUIP_POOLING_FIRST };
    quip_error error = { 0 };
    check(quip_embed(model, &input, 1, &last, a, 1024, &error), &error);
    // it is causal: the first token does not see those behind it
    check(quip_embed(model, &input, 1, &first, a, 1024, &error), &error);
    input.n_tokens = 1;
    check(quip_embed(model, &input, 1, &last, b, 1024, &error), &error);
    assert_memory_equal(a, b, (size_t)info.d_model * sizeof *a);
    quip_model_close(model);
}

/* ---- folders ---- */

static char folder_path[64];

static void write_in_folder(const char *name, const char *text)
{
    char path[160];
    snprintf(path, sizeof path, "%s/%s", folder_path, name);
    *strrchr(path, '/') = 0;
    (void)mkdir(path, 0777);
    path[strlen(path)] = '/';
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fwrite(text, 1, strlen(text), f) == strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void run(const char *format, const char *a, const char *b)
{
    char command[2000];
    snprintf(command, sizeof command, format, a, b);
    assert_int_equal(system(command), 0);
}

/* A copy of the BERT folder that may be changed. */
static int copy_folder(void **state)
{
    (void)state;
    snprintf(folder_path, sizeof folder_path, "embed-folder-%d", (int)getpid());
    if (access(shared_path("data/golden-2/bert"), R_OK) == 0)
        run("cp -r '%s' %s && chmod -R u+w embed-folder-*", shared_path("data/golden-2/bert"),
            folder_path);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    run("rm -rf %s%s", folder_path, "");
    return 0;
}

static quip_status convert_folder(const char *pooling, quip_model **model, quip_error *error)
{
    char path[80];
    snprintf(path, sizeof path, "%s.bin", folder_path);
    const struct convert_options options = { .weights = CONVERT_F32, .pooling = pooling };
    quip_status status = qp_convert(folder_path, path, &options, error);
    if (!status && model)
        status = quip_model_open(model, path, NULL, error);
    unlink(path);
    return status;
}

#define MODULE(type, path)                                                                         \
    "{\"type\": \"sentence_transformers.models." type "\", \"path\": \"" path "\"}"
#define TRANSFORMER MODULE("Transformer", "")
#define POOLING MODULE("Pooling", "1_Pooling")

static void test_wrong_folders(void **state)
{
    static const struct {
        const char *file, *text, *message;
    } cases[] = {
        { "1_Pooling/config.json",
          "{\"pooling_mode_mean_tokens\": true, \"pooling_mode_cls_token\": true}",
          "a combination" },
        { "1_Pooling/config.json", "{\"pooling_mode\": [\"mean\", \"cls\"]}", "a combination" },
        { "1_Pooling/config.json", "{\"pooling_mode_weightedmean_tokens\": true}", "weightedmean" },
        { "1_Pooling/config.json", "{\"pooling_mode\": \"max\"}", "max" },
        { "1_Pooling/config.json", "{}", "not said" },
        { "modules.json", "[" TRANSFORMER ", " POOLING ", " MODULE("LayerNorm", "2_LayerNorm") "]",
          "LayerNorm" },
        { "modules.json", "[" TRANSFORMER ", " MODULE("CNN", "1_CNN") ", " POOLING "]", "CNN" },
        { "modules.json", "[" TRANSFORMER "]", "has no pooling" },
        { "modules.json", "[" MODULE("Transformer", "0_Transformer") "]", "0_Transformer" },
        { "modules.json", "[" TRANSFORMER ", " MODULE("Pooling", "../1") "]", "leaves the folder" },
        { "modules.json", "{}", "is not a list" },
        { "modules.json", "[" TRANSFORMER ", " POOLING ", " MODULE("Dense", "2_Dense") "]",
          "2_Dense" },
        { "modules.json",
          "[" TRANSFORMER ", " POOLING ", {\"type\": \"own_code.Normalize\", \"path\": \"2\"}]",
          "own_code.Normalize" },
        { "modules.json", "[{\"type\": \"custom_st.Transformer\", \"path\": \"\"}, " POOLING "]",
          "custom_st.Transformer" },
        { "modules.json",
          "[" TRANSFORMER ", " POOLING
          ", {\"type\": \"sentence_transformers.models.Normalize\", \"path\": \"2\", \"name\": "
          "\"2\"}, {\"type\": \"sentence_transformers.models.Normalize\", \"path\": \"3\", "
          "\"name\": \"2\"}]",
          "the name \"2\"" },
        { "2_Normalize/config.json", "{\"module_input_name\": \"token_embeddings\"}",
          "something else than the embedding" },
        { "2_Normalize/config.json", "{\"module_input_name\": \"sentence_embedding\"}", NULL },
        { "1_Pooling/config.json", "{\"pooling_mode_cls_token\": true, \"include_prompt\": false}",
          "include_prompt is" },
        { "1_Pooling/config.json", "{\"pooling_mode_lasttoken\": true, \"include_prompt\": false}",
          NULL },
        { "sentence_bert_config.json", "{\"do_lower_case\": true}", NULL }, // the tokenizer does
        { "sentence_bert_config.json", "{\"transformer_task\": \"fill-mask\"}",
          "transformer_task changes" },
        { "sentence_bert_config.json", "{\"module_output_name\": \"sentence_embedding\"}",
          "module_output_name changes" },
        { "sentence_bert_config.json",
          "{\"modality_config\": {\"text\": {\"method_output_name\": \"pooler_output\"}}}",
          "modality_config changes" },
        { "sentence_bert_config.json", "{\"tokenizer_args\": {\"model_max_length\": 8}}",
          "tokenizer_args.model_max_length changes" },
        { "sentence_roberta_config.json", "{\"config_args\": {\"hidden_act\": \"relu\"}}",
          "sentence_roberta_config.json: its config_args.hidden_act changes" },
        { "sentence_bert_config.json", "{\"processing_kwargs\": {\"text\": {\"max_length\": 7}}}",
          "processing_kwargs.text changes" },
        { "sentence_bert_config.json", "{\"document_length\": 7}", "document_length changes" },
        { "sentence_bert_config.json",
          "{\"model_args\": {\"trust_remote_code\": true, \"dtype\": \"float32\"}, "
          "\"config_args\": "
          "{}, \"processing_kwargs\": null, \"transformer_task\": \"feature-extraction\"}",
          NULL },
        { "config_sentence_transformers.json", "{\"model_type\": \"SparseEncoder\"}",
          "SparseEncoder" },
        { "config_sentence_transformers.json", "{\"model_type\": \"SentenceTransformer\"}", NULL },
        { "config_sentence_transformers.json", "{\"default_prompt_name\": \"x\"}",
          "default_prompt_name" },
        { "config_sentence_transformers.json", "{\"truncate_dim\": 8}", "truncate_dim" },
        { "config_sentence_transformers.json", "{\"truncate_dim\": null}", NULL },
        { "tokenizer_config.json", "{\"truncation_side\": \"left\"}", "truncation_side" },
        { "tokenizer_config.json", "{\"truncation_side\": \"right\"}", NULL },
        { "tokenizer_config.json", "{\"do_lower_case\": false}", "do_lower_case is false, but" },
        { "tokenizer_config.json", "{\"strip_accents\": false}", "strip_accents is false, but" },
        { "tokenizer_config.json", "{\"strip_accents\": null}", NULL },
    };
    (void)state;
    need_shared("data/golden-2/bert");
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_error error = { 0 };
        remove_folder(NULL);
        copy_folder(NULL);
        write_in_folder(cases[i].file, cases[i].text);
        const quip_status status = convert_folder(NULL, NULL, &error);
        if (!status != !cases[i].message ||
            (cases[i].message && !strstr(error.message, cases[i].message)))
            fail_msg("%s %s: \"%s\"", cases[i].file, cases[i].text, error.message);
    }
}

static void test_prompts(void **state)
{
    (void)state;
    need_shared("data/golden-2/bert");
    quip_error error = { 0 };
    quip_model *model;
    float a[MAX_WIDTH], b[MAX_WIDTH];
    write_in_folder(
        "config_sentence_transformers.json",
        "{\"prompts\": {\"query\": \"Hello,\\n\", \"a b\": \"\\\\n \", \"none\": \"\"}, "
        "\"default_prompt_name\": \"query\"}");
    write_in_folder("sentence_bert_config.json", "{\"max_seq_length\": 6}");
    check(convert_folder(NULL, &model, &error), &error);
    assert_string_equal(quip_model_prompt_name(model, 0), "query");
    assert_string_equal(quip_model_prompt_name(model, 1), "a b");
    assert_string_equal(model->embedding.prompts[1].text, "\\n ");
    assert_string_equal(quip_model_prompt_name(model, 2), "none");
    assert_null(quip_model_prompt_name(model, 3));
    assert_null(quip_model_prompt_name(model, -1));
    const size_t n_bytes = (size_t)width_of_model(model) * sizeof(float);
    check(embed_text(model, "world!", NULL, a, &error), &error);
    check(embed_text(model, "world!", &(quip_embed_options){ .prefix = "Hello,\n" }, b, &error),
          &error);
    assert_memory_equal(a, b, n_bytes);
    check(embed_text(model, "world!", &(quip_embed_options){ .prefix = "" }, a, &error), &error);
    check(embed_text(model, "world!", &(quip_embed_options){ .prompt = "none" }, b, &error),
          &error);
    assert_memory_equal(a, b, n_bytes);
    // 6 tokens at most
    const quip_token cut[] = { 2, 93, 259, 25, 17, 3 };
    embed_ids(model, cut, QP_COUNT(cut), NULL, b);
    check(embed_text(model, "world! world!", &(quip_embed_options){ .prefix = "" }, a, &error),
          &error);
    assert_memory_equal(a, b, n_bytes);
    quip_model_close(model);
}

/* A dense layer of one row of zeros and its config; the layer would be the whole embedding. */
static void write_dense(const char *config)
{
    char header[160], path[160];
    const uint64_t n = (uint64_t)snprintf(header, sizeof header,
                                          "{\"linear.weight\": {\"dtype\": \"F32\", \"shape\": [1, "
                                          "40], \"data_offsets\": [0, 160]}}");
    const float zeros[40] = { 0 };
    write_in_folder("2_Dense/config.json", config);
    snprintf(path, sizeof path, "%s/2_Dense/model.safetensors", folder_path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_true(fwrite(&n, sizeof n, 1, f) == 1 && fwrite(header, (size_t)n, 1, f) == 1 &&
                fwrite(zeros, sizeof zeros, 1, f) == 1);
    assert_int_equal(fclose(f), 0);
}

static void test_dense_configs(void **state)
{
#define SIZES "\"in_features\": 40, \"out_features\": 1, \"bias\": false"
    static const struct {
        const char *config, *message;
    } cases[] = {
        { "{" SIZES ", \"activation_function\": \"torch.nn.modules.activation.Tanh\"}", NULL },
        { "{" SIZES ", \"activation_function\": \"torch.nn.modules.linear.Identity\", "
          "\"use_residual\": false, \"module_input_name\": \"sentence_embedding\"}",
          NULL },
        { "{" SIZES ", \"activation_function\": \"torch.nn.modules.linear.Identity\", "
          "\"use_residual\": true}",
          "use_residual is true" },
        { "{" SIZES ", \"activation_function\": \"torch.nn.modules.activation.ReLU\"}",
          "must be PyTorch's Tanh" },
        { "{" SIZES ", \"activation_function\": \"own.Identity\"}", "must be PyTorch's Tanh" },
        { "{" SIZES "}", "must be PyTorch's Tanh" },
        { "{" SIZES ", \"activation_function\": \"torch.nn.Tanh\", \"module_input_name\": "
          "\"token_embeddings\"}",
          "token_embeddings is not supported" },
    };
    (void)state;
    need_shared("data/golden-2/bert");
    write_in_folder("modules.json",
                    "[" TRANSFORMER ", " POOLING ", " MODULE("Dense", "2_Dense") "]");
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_error error = { 0 };
        write_dense(cases[i].config);
        const quip_status status = convert_folder(NULL, NULL, &error);
        if (!status != !cases[i].message ||
            (cases[i].message && !strstr(error.message, cases[i].message)))
            fail_msg("%s: \"%s\"", cases[i].config, error.message);
    }
}

static void count_length_notes(void *user, const char *sentence)
{
    *(int *)user += strstr(sentence, "its similarity is \"dot\"") != NULL;
}

/* A model whose embeddings are compared with their length. */
static void test_not_normalized(void **state)
{
    (void)state;
    need_shared("data/golden-2/bert");
    int n = 0;
    quip_error error = { 0 };
    const struct convert_options options = { .on_note = count_length_notes, .user = &n };
    static const char *const names[] = { "dot", "cosine" };
    for (int i = 0; i < 3; i++) {
        char text[60], path[80];
        snprintf(text, sizeof text, "{\"similarity_fn_name\": \"%s\"}", names[i % 2]);
        snprintf(path, sizeof path, "%s.bin", folder_path);
        write_in_folder("config_sentence_transformers.json", text);
        write_in_folder("modules.json", i < 2 ? "[" TRANSFORMER ", " POOLING "]"
                                              : "[" TRANSFORMER ", " POOLING
                                                ", " MODULE("Normalize", "2_Normalize") "]");
        check(qp_convert(folder_path, path, &options, &error), &error);
        unlink(path);
        assert_int_equal(n, 1);
    }
}

/* sentence-transformers tries seven names for the file that has the longest text. */
static void test_limit_of_roberta(void **state)
{
    (void)state;
    need_shared("data/golden-2/bert");
    quip_error error = { 0 };
    quip_model *model;
    write_in_folder("sentence_roberta_config.json", "{\"max_seq_length\": 6}");
    check(convert_folder(NULL, &model, &error), &error);
    assert_int_equal(model->embedding.n_tokens_max, 6);
    quip_model_close(model);
}

/* Without modules.json the pooling must be said; a vocab.txt serves as well as a tokenizer.json. */
static void test_bare_folder(void **state)
{
    (void)state;
    need_shared("data/golden-2/bert");
    quip_error error = { 0 };
    quip_model *model;
    float a[MAX_WIDTH], b[MAX_WIDTH];
    run("rm %s/modules.json %s/tokenizer.json", folder_path, folder_path);
    assert_int_equal(convert_folder(NULL, NULL, &error), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "bidirectional"));
    assert_int_equal(convert_folder("max", NULL, &error), QUIP_E_ARGUMENT);
    check(convert_folder("mean", &model, &error), &error);
    check(embed_text(model, "Hello, world!", NULL, a, &error), &error);
    const quip_token ids[] = { 2, 78, 18, 214, 28, 54, 93, 259, 25, 17, 1, 3 };
    embed_ids(model, ids, QP_COUNT(ids), NULL, b);
    assert_memory_equal(a, b, (size_t)width_of_model(model) * sizeof(float));
    quip_model_close(model);
}

/* Qwen3-Embedding-8B says that its head is not its embedding, and has no head. */
static void test_untied_without_head(void **state)
{
    (void)state;
    const char *folder = "data/golden-2/qwen3-embedding";
    need_shared(folder);
    quip_error error = { 0 };
    quip_model *model;
    float a[MAX_WIDTH], b[MAX_WIDTH];
    const quip_token ids[] = { 2, 78, 18, 214, 28 };
    run("rm -rf %s && cp -r '%s' embed-folder-untied", folder_path, shared_path(folder));
    run("mv embed-folder-untied %s && chmod -R u+w %s", folder_path, folder_path);
    run("sed -i 's/\"tie_word_embeddings\": true/\"tie_word_embeddings\": false/' %s/config.json%s",
        folder_path, "");
    check(convert_folder(NULL, &model, &error), &error);
    embed_ids(model, ids, QP_COUNT(ids), NULL, a);
    quip_model_close(model);
    model = open_golden_as("qwen3-embedding", CONVERT_F32);
    embed_ids(model, ids, QP_COUNT(ids), NULL, b);
    assert_memory_equal(a, b, (size_t)width_of_model(model) * sizeof *a);
    quip_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_reference_backend),
        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_int8),
        cmocka_unit_test(test_int8_attention),
        cmocka_unit_test(test_details),
        cmocka_unit_test(test_batch),
        cmocka_unit_test(test_without_rest),
        cmocka_unit_test(test_gpu),
        cmocka_unit_test(test_same_on_every_isa),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_language_model),
        cmocka_unit_test_setup_teardown(test_wrong_folders, copy_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_prompts, copy_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_dense_configs, copy_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_not_normalized, copy_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_limit_of_roberta, copy_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_bare_folder, copy_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_untied_without_head, copy_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, models_make, models_remove);
}
