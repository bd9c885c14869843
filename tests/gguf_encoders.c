/* gguf_encoders.c: the embedding models of data/golden-2, written as GGUF files in the layout of
 * llama.cpp's converter, make the embeddings of the reference; what such a file does not say, or
 * says otherwise, is refused.
 * In:  tensors, tokenizer and expected embeddings of a fixture.
 * Out: names, keys and vocabularies of llama.cpp (its conversion/bert.py and conversion/gemma.py).
 */
#include "convert/convert.h"
#include "format/format.h"
#include "model/model.h"
#include "support/check.h"
#include "support/gguf_names.h"
#include "support/gguf_tokenizer.h"
#include "support/reference_backend.h"
#include "support/sample_checkpoint.h"
#include "support/shared.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    MAX_WIDTH = 64,
    MAX_IDS = 80
};

/* A fixture's own part of the layout. */
struct encoder {
    const char *folder, *architecture;
    const char *post_norm; // what post_attention_layernorm is
    float norm_shift;      // added to the weights of norms
    float q_norm_factor;   // of its queries: llama.cpp scales them by 1 / sqrt(head_dim)
    void (*keys)(struct gguf *g, const char *folder);
};

/* ---- keys ---- */

static void put_sizes(struct gguf *g, const char *arch, const int sizes[6])
{
    static const char *const keys[] = {
        "block_count",          "embedding_length",        "feed_forward_length",
        "attention.head_count", "attention.head_count_kv", "context_length"
    };
    for (size_t i = 0; i < QP_COUNT(keys); i++) {
        char key[100];
        snprintf(key, sizeof key, "%s.%s", arch, keys[i]);
        gguf_u32(g, key, (uint32_t)sizes[i]);
    }
}

static void put_vocab_txt(struct gguf *g, const char *folder)
{
    char name[200];
    size_t n;
    snprintf(name, sizeof name, "data/golden-2/%s/vocab.txt", folder);
    char *text = read_whole(shared_path(name), &n);
    gguf_wordpiece(g, text);
    gguf_bool(g, "tokenizer.ggml.normalizer.lowercase", true);
    free(text);
}

static void bert_keys(struct gguf *g, const char *folder)
{
    put_sizes(g, "bert", (int[]){ 2, 40, 80, 5, 5, 128 });
    gguf_f32(g, "bert.attention.layer_norm_epsilon", 1e-12f);
    gguf_bool(g, "bert.attention.causal", false);
    gguf_u32(g, "bert.pooling_type", 1);
    gguf_u32(g, "tokenizer.ggml.token_type_count", 2);
    put_vocab_txt(g, folder);
}

static void gemma_keys(struct gguf *g, const char *folder)
{
    (void)folder;
    put_sizes(g, "gemma-embedding", (int[]){ 4, 48, 96, 3, 1, 512 });
    gguf_u32(g, "gemma-embedding.attention.key_length", 16);
    gguf_u32(g, "gemma-embedding.attention.value_length", 16);
    gguf_f32(g, "gemma-embedding.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_u32(g, "gemma-embedding.attention.sliding_window", 10);
    gguf_u32(g, "gemma-embedding.attention.sliding_window_pattern", 3);
    gguf_f32(g, "gemma-embedding.rope.freq_base", 1e6f);
    gguf_f32(g, "gemma-embedding.rope.freq_base_swa", 1e4f);
    gguf_u32(g, "gemma-embedding.pooling_type", 1);
    gguf_u32(g, "gemma-embedding.dense_2_feat_in", 48);
    gguf_u32(g, "gemma-embedding.dense_2_feat_out", 72);
    gguf_u32(g, "gemma-embedding.dense_3_feat_in", 72);
    gguf_u32(g, "gemma-embedding.dense_3_feat_out", 48);
}

static void qwen_keys(struct gguf *g, const char *folder)
{
    (void)folder;
    put_sizes(g, "qwen3", (int[]){ 3, 40, 72, 4, 2, 512 });
    gguf_u32(g, "qwen3.attention.key_length", 16);
    gguf_u32(g, "qwen3.attention.value_length", 16);
    gguf_f32(g, "qwen3.attention.layer_norm_rms_epsilon", 1e-6f);
    gguf_f32(g, "qwen3.rope.freq_base", 1e6f);
    gguf_u32(g, "qwen3.pooling_type", 3);
}

static const struct encoder encoders[] = {
    { "bert", "bert", "", 0, 1, bert_keys },
    { "gemma3-embedding", "gemma-embedding", "post_attention_norm", 1, 0.89442719f, gemma_keys },
    { "qwen3-embedding", "qwen3", "ffn_norm", 0, 1, qwen_keys },
};
static const struct encoder *const bert = &encoders[0], *const gemma = &encoders[1];

/* ---- tensors ---- */

static void add_tensor(struct gguf *g, const struct encoder *e, const struct format *f,
                       const struct tensor *t, const char *hf)
{
    const struct gguf_name name = gguf_name_of(hf, e->post_norm);
    quip_error error = { 0 };
    const int rows = (int)t->dims[0], cols = t->n_dims == 2 ? (int)t->dims[1] : 0;
    const size_t n = (size_t)rows * (size_t)(cols ? cols : 1);
    if (!name.stem ||
        (g->options && g->options->skip_tensor && strcmp(name.whole, g->options->skip_tensor) == 0))
        return;
    float *x = calloc(n, sizeof *x);
    assert_non_null(x);
    check(qp_format_read_f32(f, t, 0, n, x, &error), &error);
    for (size_t i = 0; i < n && strstr(name.whole, "norm.weight"); i++)
        x[i] = (x[i] + e->norm_shift) * (strstr(name.whole, "attn_q_norm") ? e->q_norm_factor : 1);
    gguf_floats(g, name.whole, rows, cols, x);
    free(x);
}

/* All tensors of a safetensors file of the fixture. Those of a module are named after it. */
static void add_tensors(struct gguf *g, const struct encoder *e, const char *module)
{
    char name[200];
    struct file file = { 0 };
    struct format f = { 0 };
    quip_error error = { 0 };
    snprintf(name, sizeof name, "data/golden-2/%s/%s%smodel.safetensors", e->folder, module,
             *module ? "/" : "");
    check(qp_file_open(&file, shared_path(name), &error), &error);
    check(qp_format_open(&f, &file, &error), &error);
    for (int i = 0; i < f.n_tensors; i++) {
        snprintf(name, sizeof name, "%s.weight", module);
        add_tensor(g, e, &f, &f.tensors[i], *module ? name : f.tensors[i].name);
    }
    qp_format_close(&f);
    qp_file_close(&file);
}

/* in.gguf in the test's folder. */
static void write_encoder(const struct encoder *e, const struct gguf_options *options)
{
    struct gguf g = { .options = options };
    gguf_text(&g, "general.architecture", e->architecture);
    e->keys(&g, e->folder);
    add_tensors(&g, e, "");
    if (e == gemma) {
        add_tensors(&g, e, "2_Dense");
        add_tensors(&g, e, "3_Dense");
    }
    if (options && options->more) {
        g.options = NULL; // what is added replaces what is left out
        options->more(&g);
    }
    save_gguf(&g, in_folder("in.gguf"));
}

/* ---- the reference ---- */

/* Convert in.gguf. Without a tokenizer of its own it has that of the fixture. */
static quip_status convert(const struct encoder *e, const char *pooling, quip_model **model,
                           quip_error *error)
{
    char name[200], folder[500];
    snprintf(name, sizeof name, "data/golden-2/%s", e->folder);
    snprintf(folder, sizeof folder, "%s", shared_path(name));
    const struct convert_options options = { .weights = CONVERT_F32,
                                             .tokenizer = e == bert ? NULL : folder,
                                             .pooling = pooling };
    const quip_status status =
        qp_convert(in_folder("in.gguf"), in_folder("out.bin"), &options, error);
    return status || !model ? status : quip_model_open(model, in_folder("out.bin"), NULL, error);
}

static void embed(quip_model *model, const quip_embed_input *input, float to[MAX_WIDTH])
{
    quip_error error = { 0 };
    check(quip_embed(model, input, 1, NULL, to, MAX_WIDTH, &error), &error);
}

/* The largest difference from the reference of all prompts. */
static float worst_difference(const struct encoder *e, quip_model *model)
{
    char name[200];
    float worst = 0;
    snprintf(name, sizeof name, "data/golden-2/%s/expected.json", e->folder);
    cJSON *expected = read_json(shared_path(name));
    const cJSON *prompt;
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(expected, "prompts"))
    {
        int ids[MAX_IDS];
        float got[MAX_WIDTH];
        size_t n_bytes;
        const quip_embed_input input = {
            .tokens = ids,
            .n_tokens = json_ids(cJSON_GetObjectItem(prompt, "ids"), ids, MAX_IDS),
        };
        snprintf(name, sizeof name, "data/golden-2/%s/%s", e->folder,
                 cJSON_GetObjectItem(prompt, "embedding_file")->valuestring);
        float *want = (float *)(void *)read_whole(shared_path(name), &n_bytes);
        embed(model, &input, got);
        for (size_t i = 0; i < n_bytes / sizeof *want; i++)
            worst = fmaxf(worst, isnan(got[i]) ? 1 : fabsf(got[i] - want[i]));
        free(want);
    }
    cJSON_Delete(expected);
    return worst;
}

static float difference_of(const struct encoder *e, const struct gguf_options *options)
{
    quip_error error = { 0 };
    quip_model *model;
    write_encoder(e, options);
    check(convert(e, NULL, &model, &error), &error);
    const float worst = worst_difference(e, model);
    quip_model_close(model);
    return worst;
}

static void test_reference(void **state)
{
    (void)state;
    need_shared("data/golden-2/bert");
    for (size_t i = 0; i < QP_COUNT(encoders); i++) {
        const float worst = difference_of(&encoders[i], NULL);
        if (!(worst <= 2e-6f)) // as data/golden-2/README.md derives it
            fail_msg("%s: %g away from the reference", encoders[i].folder, (double)worst);
    }
}

/* The tokens around a text are those of the file or of --tokenizer; EmbeddingGemma's fixture has
 * none behind it. */
static void test_texts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        quip_token ids[16];
        int n;
    } cases[QP_COUNT(encoders)] = {
        { "Hello, world!", { 2, 78, 18, 214, 28, 54, 93, 259, 25, 17, 1, 3 }, 12 },
        { "", { 2 }, 1 },
        { "", { 305 }, 1 },
    };
    need_shared("data/golden-2/bert");
    for (size_t i = 0; i < QP_COUNT(encoders); i++) {
        float a[MAX_WIDTH] = { 0 }, b[MAX_WIDTH] = { 0 };
        quip_error error = { 0 };
        quip_model *model;
        write_encoder(&encoders[i], NULL);
        check(convert(&encoders[i], NULL, &model, &error), &error);
        embed(model, &(quip_embed_input){ .text = cases[i].text, .n_text = strlen(cases[i].text) },
              a);
        embed(model, &(quip_embed_input){ .tokens = cases[i].ids, .n_tokens = cases[i].n }, b);
        assert_memory_equal(a, b, sizeof a);
        quip_model_close(model);
    }
}

/* ---- windows ---- */

#define GEMMA_PATTERN "gemma-embedding.attention.sliding_window_pattern"

static void list_windows(struct gguf *g)
{
    gguf_list(g, GEMMA_PATTERN, GGUF_TYPE_BOOL, 4);
    put_bytes(&g->metadata, (uint8_t[]){ 1, 1, 0, 1 }, 4);
}
static void say_all_slide(struct gguf *g)
{
    gguf_u32(g, GEMMA_PATTERN, 0);
}
static void say_window_12(struct gguf *g)
{
    gguf_u32(g, "gemma-embedding.attention.sliding_window", 12);
}
static void say_odd_window(struct gguf *g) // half of it counts: 5 to each side
{
    gguf_u32(g, "gemma-embedding.attention.sliding_window", 11);
}

static void test_windows(void **state)
{
    (void)state;
    static const struct {
        const char *skip;
        void (*more)(struct gguf *g);
        bool is_same;
    } cases[] = {
        { "," GEMMA_PATTERN ",", list_windows, true },
        { "," GEMMA_PATTERN ",", NULL, false }, // every sixth layer is global
        { "," GEMMA_PATTERN ",", say_all_slide, false },
        { ",gemma-embedding.attention.sliding_window,", say_window_12, false },
        { ",gemma-embedding.attention.sliding_window,", say_odd_window, true },
    };
    need_shared("data/golden-2/bert");
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        const float d = difference_of(
            gemma, &(struct gguf_options){ .skip = cases[i].skip, .more = cases[i].more });
        if (cases[i].is_same ? d > 2e-6f : d < 1e-3f)
            fail_msg("case %zu: %g away from the reference", i, (double)d);
    }
}

/* ---- refusals ---- */

static void say_causal(struct gguf *g)
{
    gguf_bool(g, "bert.attention.causal", true);
}
static void say_rank(struct gguf *g)
{
    gguf_u32(g, "bert.pooling_type", 4);
}
static void say_labels(struct gguf *g)
{
    gguf_u32(g, "bert.classifier.output_labels", 3);
}
static void say_scale(struct gguf *g)
{
    gguf_f32(g, "gemma-embedding.attention.scale", 0.5f);
}
static void say_wrong_size(struct gguf *g)
{
    gguf_u32(g, "gemma-embedding.dense_3_feat_out", 40);
}
static void say_rwkv(struct gguf *g)
{
    gguf_text(g, "tokenizer.ggml.model", "rwkv");
}
static void say_window(struct gguf *g)
{
    gguf_u32(g, "bert.attention.sliding_window", 8);
}
static void say_rotary_scaling(struct gguf *g)
{
    gguf_f32(g, "bert.rope.scaling.log_multiplier", 1);
}
static void add_dense_bias(struct gguf *g)
{
    gguf_zeros(g, "dense_2.bias", 72, 0, 0, 72 * sizeof(float));
}

static void test_refusals(void **state)
{
    static const struct {
        const struct encoder *encoder;
        const char *skip, *skip_tensor;
        void (*more)(struct gguf *g);
        const char *message;
    } cases[] = {
        { &encoders[0], ",bert.attention.causal,", NULL, NULL, "bert.attention.causal is false" },
        { &encoders[0], ",bert.attention.causal,", NULL, say_causal, "attention.causal is false" },
        { &encoders[0], ",bert.pooling_type,", NULL, NULL, "pooling_type in its metadata, or say" },
        { &encoders[0], ",bert.pooling_type,", NULL, say_rank, "is a reranker" },
        { &encoders[0], ",bert.attention.layer_norm_epsilon,", NULL, NULL, "layer_norm_epsilon" },
        { &encoders[0], NULL, NULL, say_labels, "bert.classifier.output_labels" },
        { &encoders[0], NULL, NULL, say_window, "sliding windows" },
        { &encoders[0], NULL, NULL, say_rotary_scaling, "bert.rope.scaling.log_multiplier" },
        { &encoders[0], ",tokenizer.ggml.model,", NULL, say_rwkv, "as --tokenizer FOLDER" },
        { &encoders[0], NULL, "token_types.weight", NULL, "missing: token_types.weight" },
        { &encoders[0], NULL, "position_embd.weight", NULL, "missing: position_embd.weight" },
        { &encoders[1], NULL, "dense_3.weight", NULL, "has no dense_3.weight" },
        { &encoders[1], NULL, "dense_2.weight", NULL, "has no dense_2.weight" },
        { &encoders[1], NULL, NULL, add_dense_bias, "not known: dense_2.bias" },
        { &encoders[1], NULL, NULL, say_scale, "gemma-embedding.attention.scale" },
        { &encoders[1], ",gemma-embedding.dense_3_feat_out,", NULL, say_wrong_size,
          "the sizes of dense_3.weight" },
        { &encoders[1], ",gemma-embedding.attention.sliding_window,", NULL, NULL,
          "attention.sliding_window" },
    };
    (void)state;
    need_shared("data/golden-2/bert");
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        quip_error error = { 0 };
        write_encoder(cases[i].encoder, &(struct gguf_options){ .skip = cases[i].skip,
                                                                .skip_tensor = cases[i].skip_tensor,
                                                                .more = cases[i].more });
        if (!convert(cases[i].encoder, NULL, NULL, &error) ||
            !strstr(error.message, cases[i].message))
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, error.message, cases[i].message);
    }
}

/* Who says the pooling decides: without dense layers, or where the file does not say it. */
static void test_said_pooling(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *model;
    need_shared("data/golden-2/bert");
    write_encoder(bert, &(struct gguf_options){ .skip = ",bert.pooling_type," });
    check(convert(bert, "mean", &model, &error), &error);
    assert_true(worst_difference(bert, model) <= 2e-6f);
    quip_model_close(model);
    check(convert(bert, "first", &model, &error), &error);
    assert_true(worst_difference(bert, model) > 1e-2f);
    quip_model_close(model);
    struct encoder no_dense = *gemma; // write_encoder adds them to `gemma` only
    write_encoder(&no_dense, NULL);
    assert_int_equal(convert(&no_dense, NULL, NULL, &error), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "or say --pooling mean"));
    check(convert(&no_dense, "mean", &model, &error), &error);
    assert_int_equal(model->weights.n_dense, 0);
    quip_model_close(model);
}

/* ---- nomic-bert ---- */

enum {
    NOMIC_WIDTH = 32,
    NOMIC_FF = 48
};

/* The embedding of nomic_ids by transformers 5.24 (NomicBertModel, eager, mean of the hidden states
 * in float64), with the weights of put_nomic. llama.cpp (xllamacpp 2026.10) is 8e-8 away. */
static const float nomic_embedding[NOMIC_WIDTH] = {
    -0.013339333f, 0.073074075f,  -0.019895103f, 0.1771579f,   0.13011398f,   -0.12597399f,
    0.33298548f,   0.10798048f,   0.065555119f,  0.12967656f,  -0.089002608f, -0.011621207f,
    0.26151674f,   -0.03885834f,  0.014909315f,  -0.20883449f, -0.21495303f,  -0.012303329f,
    -0.096732269f, -0.021976823f, 0.096788198f,  -0.10445589f, -0.29213826f,  0.038202775f,
    -0.06874744f,  -0.027762789f, -0.033969223f, -0.17926043f, 0.4767309f,    0.16585155f,
    0.0098382054f, -0.45554102f
};
static const quip_token nomic_ids[] = { 2, 5, 9, 13, 17, 21, 25, 29, 4, 8, 12, 3 };

/* Values from -0.5 to 0.5, by the number of the tensor. */
static void put_nomic(struct gguf *g, int seed, const char *name, int rows, int cols)
{
    static float values[3 * NOMIC_WIDTH * NOMIC_WIDTH];
    const int n = rows * (cols ? cols : 1);
    assert_true(n <= (int)QP_COUNT(values));
    for (int i = 0; i < n; i++) {
        uint32_t x = (uint32_t)seed * 1000003u + (uint32_t)i;
        x = (x ^ x >> 16) * 0x7feb352du;
        x = (x ^ x >> 15) * 0x846ca68bu;
        x ^= x >> 16;
        values[i] = (float)(x >> 8) / (float)(1 << 24) - 0.5f;
        values[i] += strstr(name, "norm.weight") ? 1.0f : 0.0f;
    }
    if (!(g->options && g->options->skip_tensor && strcmp(name, g->options->skip_tensor) == 0))
        gguf_floats(g, name, rows, cols, values);
}

static void put_nomic_tensors(struct gguf *g)
{
    static const struct {
        const char *name;
        int rows, cols;
    } tensors[] = {
        { "attn_qkv.weight", 3 * NOMIC_WIDTH, NOMIC_WIDTH },
        { "attn_output.weight", NOMIC_WIDTH, NOMIC_WIDTH },
        { "attn_output_norm.weight", NOMIC_WIDTH, 0 },
        { "attn_output_norm.bias", NOMIC_WIDTH, 0 },
        { "ffn_up.weight", NOMIC_FF, NOMIC_WIDTH },
        { "ffn_gate.weight", NOMIC_FF, NOMIC_WIDTH },
        { "ffn_down.weight", NOMIC_WIDTH, NOMIC_FF },
        { "layer_output_norm.weight", NOMIC_WIDTH, 0 },
        { "layer_output_norm.bias", NOMIC_WIDTH, 0 },
    };
    int seed = 5;
    put_nomic(g, 1, "token_embd.weight", 30, NOMIC_WIDTH);
    put_nomic(g, 2, "token_types.weight", 2, NOMIC_WIDTH);
    put_nomic(g, 3, "token_embd_norm.weight", NOMIC_WIDTH, 0);
    put_nomic(g, 4, "token_embd_norm.bias", NOMIC_WIDTH, 0);
    for (int l = 0; l < 2; l++)
        for (size_t i = 0; i < QP_COUNT(tensors); i++) {
            char name[80];
            snprintf(name, sizeof name, "blk.%d.%s", l, tensors[i].name);
            put_nomic(g, seed++, name, tensors[i].rows, tensors[i].cols);
        }
}

static void write_nomic(const struct gguf_options *options)
{
    struct gguf g = { .options = options };
    gguf_text(&g, "general.architecture", "nomic-bert");
    put_sizes(&g, "nomic-bert", (int[]){ 2, NOMIC_WIDTH, NOMIC_FF, 4, 4, 64 });
    gguf_f32(&g, "nomic-bert.attention.layer_norm_epsilon", 1e-12f);
    gguf_bool(&g, "nomic-bert.attention.causal", false);
    gguf_f32(&g, "nomic-bert.rope.freq_base", 1000);
    gguf_u32(&g, "nomic-bert.pooling_type", 1);
    gguf_u32(&g, "tokenizer.ggml.token_type_count", 2);
    gguf_wordpiece(&g, "[PAD]\n[UNK]\n[CLS]\n[SEP]\na\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\nm\nn\no\n"
                       "p\nq\nr\ns\nt\nu\nv\nw\nx\ny\nz\n");
    put_nomic_tensors(&g);
    if (options && options->more) {
        g.options = NULL;
        options->more(&g);
    }
    save_gguf(&g, in_folder("in.gguf"));
}

static quip_status convert_nomic(enum convert_weights weights, quip_model **model,
                                 quip_error *error)
{
    const struct convert_options options = { .weights = weights };
    const quip_status status =
        qp_convert(in_folder("in.gguf"), in_folder("out.bin"), &options, error);
    return status ? status : quip_model_open(model, in_folder("out.bin"), NULL, error);
}

static float nomic_difference(enum convert_weights weights, const struct backend *backend)
{
    quip_error error = { 0 };
    quip_model *model;
    float got[MAX_WIDTH], worst = 0;
    check(convert_nomic(weights, &model, &error), &error);
    model->backend = backend;
    embed(model, &(quip_embed_input){ .tokens = nomic_ids, .n_tokens = (int)QP_COUNT(nomic_ids) },
          got);
    for (int i = 0; i < NOMIC_WIDTH; i++)
        worst = fmaxf(worst, isnan(got[i]) ? 1 : fabsf(got[i] - nomic_embedding[i]));
    quip_model_close(model);
    return worst;
}

static void say_other_base(struct gguf *g)
{
    gguf_f32(g, "nomic-bert.rope.freq_base", 10000);
}
static void say_experts(struct gguf *g)
{
    gguf_u32(g, "nomic-bert.moe_every_n_layers", 2);
}

static void test_nomic(void **state)
{
    (void)state;
    quip_error error = { 0 };
    quip_model *model;
    write_nomic(NULL);
    assert_true(nomic_difference(CONVERT_F32, NULL) <= 2e-6f);
    assert_true(nomic_difference(CONVERT_F32, &reference_backend) <= 2e-6f);
    assert_true(nomic_difference(CONVERT_INT8, NULL) <= 0.02f);
    write_nomic(
        &(struct gguf_options){ .skip = ",nomic-bert.rope.freq_base,", .more = say_other_base });
    assert_true(nomic_difference(CONVERT_F32, NULL) > 1e-3f);
    write_nomic(&(struct gguf_options){ .more = say_experts });
    assert_int_not_equal(convert_nomic(CONVERT_F32, &model, &error), QUIP_OK);
    assert_non_null(strstr(error.message, "moe_every_n_layers"));
    write_nomic(&(struct gguf_options){ .skip_tensor = "token_types.weight" });
    assert_int_not_equal(convert_nomic(CONVERT_F32, &model, &error), QUIP_OK);
    assert_non_null(strstr(error.message, "missing: token_types.weight"));
}

/* Without a key the base of rope is that of llama.cpp, not that of the family. */
static void test_rope_base(void **state)
{
    (void)state;
    const struct encoder *qwen = &encoders[2];
    const struct gguf_options options = { .skip = ",qwen3.rope.freq_base," };
    quip_error error = { 0 };
    quip_model *model;
    need_shared("data/golden-2/qwen3-embedding");
    write_encoder(qwen, &options);
    check(convert(qwen, NULL, &model, &error), &error);
    assert_true(model->config.ropes[ROPE_GLOBAL].theta == 1e4f);
    quip_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reference, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_texts, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_windows, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_refusals, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_said_pooling, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_rope_base, make_sample_folder, drop_sample_folder),
        cmocka_unit_test_setup_teardown(test_nomic, make_sample_folder, drop_sample_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
