/* shapes.c: models of every family in shapes that no published model has. Checkpoints in every
 * type, layout of config.json and division into files become the same model file. It runs with all
 * kinds of weights, gives the same logits for a whole prompt and token by token, and those of the
 * reference backend. */
#include "convert/convert.h"
#include "convert/plan.h"
#include "model/families_convert.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/reference_backend.h"
#include "support/shared.h"
#include "support/tensors.h"
#include "support/tokenizers.h"

#define FOLDER "test-shapes"
#define N_TOKENS 37

struct shape {
    const char *model_type; // of config.json
    bool is_tied;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size;
    const char *more; // of config.json: the keys of a variant, which override the others
};

#define ALIBI "\"alibi\": true, \"bias\": true, \"multi_query\": false, \"parallel_attn\": false, "
#define MULTIPLIERS                                                                                \
    "\"embedding_multiplier\": 3.5, \"attention_multiplier\": 0.4, "                               \
    "\"residual_multiplier\": 0.7, \"logits_scaling\": 1.6, "

/* Odd numbers of heads; heads and feed-forwards that do not fill a block; vocabularies that do not
 * fill a tile; keys for every head, for groups of heads, and for all heads together. */
static const struct shape shapes[] = {
    { "llama", true, 2, 42, 70, 3, 1, 14, 301, NULL },
    { "llama", false, 1, 66, 34, 5, 5, 6, 263, NULL },
    { "llama", false, 2, 130, 98, 9, 3, 50, 277, NULL },
    { "gemma", true, 2, 38, 66, 5, 1, 12, 299, NULL },
    { "gemma2", true, 3, 50, 90, 6, 3, 18, 265, NULL },
    { "gemma3_text", true, 4, 36, 74, 7, 7, 10, 259, NULL },
    { "phi", false, 2, 90, 130, 3, 3, 30, 301, NULL },
    { "phi", false, 1, 70, 66, 7, 7, 10, 273, NULL },
    { "falcon", true, 2, 66, 134, 3, 3, 22, 287, ALIBI },
    { "falcon", false, 1, 110, 70, 5, 5, 22, 261, ALIBI },
    { "falcon", true, 2, 66, 134, 3, 1, 22, 287, NULL },
    { "falcon", true, 2, 80, 66, 5, 1, 16, 269, "\"alibi\": true, \"bias\": true, " },
    { "falcon", false, 1, 84, 70, 6, 2, 14, 261, "\"new_decoder_architecture\": true, " },
    { "falcon", false, 2, 84, 70, 6, 3, 14, 261,
      "\"new_decoder_architecture\": true, \"num_ln_in_parallel_attn\": 1, \"bias\": true, " },
    { "stablelm", false, 2, 84, 94, 7, 7, 12, 305, NULL },
    { "stablelm", false, 1, 120, 58, 6, 2, 20, 263, NULL },
    { "stablelm", false, 2, 60, 58, 6, 3, 10, 263,
      "\"qk_layernorm\": true, \"use_parallel_residual\": true, " },
    { "stablelm", true, 2, 60, 58, 3, 1, 20, 263,
      "\"qk_layernorm\": true, \"use_qkv_bias\": true, " },
    { "qwen2", true, 2, 54, 70, 3, 1, 18, 285, NULL },
    { "qwen2", false, 1, 70, 94, 5, 5, 14, 263, NULL },
    { "qwen3", true, 2, 46, 62, 6, 3, 22, 293, NULL },
    { "smollm3", true, 5, 42, 58, 3, 1, 14, 261, NULL },
    { "phi3", false, 2, 90, 130, 9, 3, 10, 271, NULL },
    { "phi3", true, 1, 66, 74, 3, 3, 30, 303, NULL },
    { "mistral", false, 2, 58, 66, 4, 2, 26, 267, NULL },
    { "olmo2", false, 2, 60, 70, 5, 1, 12, 301, NULL },
    { "olmo2", true, 1, 42, 34, 7, 7, 6, 263, "\"attention_bias\": true, " },
    { "granite", true, 2, 42, 70, 3, 1, 14, 301, MULTIPLIERS },
    { "granite", false, 2, 66, 34, 6, 2, 10, 265,
      MULTIPLIERS "\"attention_bias\": true, \"mlp_bias\": true, " },
    { "gpt2", true, 2, 66, 134, 3, 3, 22, 287, NULL },
    { "gpt2", false, 1, 42, 58, 7, 7, 6, 261, NULL },
    { "gpt_neox", false, 2, 84, 94, 7, 7, 12, 305, NULL },
    { "gpt_neox", true, 2, 60, 58, 3, 3, 20, 263,
      "\"use_parallel_residual\": false, \"attention_bias\": false, " },
    { "starcoder2", true, 2, 42, 70, 6, 3, 14, 301, NULL },
    { "starcoder2", false, 2, 66, 34, 5, 1, 12, 263,
      "\"use_bias\": false, \"sliding_window\": 5, " },
    { "cohere", true, 2, 42, 70, 6, 2, 14, 301, "\"use_qk_norm\": true, \"logit_scale\": 0.4, " },
    { "cohere", true, 1, 66, 34, 5, 5, 6, 263, NULL },
};

/* How a checkpoint is stored. */
struct storage {
    const char *dtype; // safetensors' name
    int n_shards;
    bool is_v5; // config.json as transformers 5 writes it
};

/* ---- config.json ---- */

static void write_bytes(const char *name, const void *data, size_t n)
{
    char path[200];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    save_file(path, data, n);
}

/* The differences between the layouts: rope, and which layers are local. */
static const char *rope_lines(const struct family *family, bool is_v5)
{
    const bool is_local = family->traits.rope_local_theta > 0,
               is_partial = family->rope_fraction > 0;
    if (!is_v5)
        return is_local     ? "\"rope_theta\": 50000, \"rope_local_base_freq\": 2000, "
                              "\"sliding_window_pattern\": 2, "
                              "\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 4}, "
               : is_partial ? "\"rope_theta\": 50000, \"partial_rotary_factor\": 0.4, "
                              "\"rotary_emb_base\": 50000, \"rotary_pct\": 0.4, " // GPT-NeoX
                            : "\"rope_theta\": 50000, ";
    return is_local ? "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", "
                      "\"rope_theta\": 50000, \"factor\": 4}, \"sliding_attention\": "
                      "{\"rope_type\": \"default\", \"rope_theta\": 2000}}, "
           : is_partial
               ? "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 50000, "
                 "\"partial_rotary_factor\": 0.4}, "
               : "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 50000}, ";
}

static void write_config(const struct shape *s, const struct family *family, bool is_v5)
{
    struct bytes text = { 0 };
    const bool has_windows = family->traits.local_per_global > 0;
    bool ok = qp_bytes_printf(
        &text,
        "{%s\"model_type\": \"%s\", \"num_hidden_layers\": %d, \"hidden_size\": %d, "
        "\"intermediate_size\": %d, \"ffn_hidden_size\": %d, \"num_attention_heads\": %d, "
        "\"num_key_value_heads\": %d, \"num_kv_heads\": %d, \"head_dim\": %d, "
        "\"vocab_size\": %d, \"n_positions\": 71, \"tie_word_embeddings\": %s, %s",
        s->more ? s->more : "", s->model_type, s->n_layers, s->d_model, s->d_ff, s->d_ff,
        s->n_heads, s->n_kv_heads, s->n_kv_heads, s->head_dim, s->vocab_size,
        s->is_tied ? "true" : "false", rope_lines(family, is_v5));
    if (has_windows && is_v5) {
        ok = ok && qp_bytes_append_text(&text, "\"layer_types\": [");
        for (int l = 0; l < s->n_layers; l++)
            ok = ok && qp_bytes_printf(&text, "%s\"%s_attention\"", l ? ", " : "",
                                       (l + 1) % 2 ? "sliding" : "full");
        ok = ok && qp_bytes_append_text(&text, "], ");
    }
    ok = ok && qp_bytes_append_text(&text, "\"sliding_window\": 8, \"eos_token_id\": 2}");
    assert_true(ok);
    write_bytes("config.json", text.data, text.n);
    qp_bytes_close(&text);
}

/* ---- tensors ---- */

/* What the converter reads of the config. */
static void read_hparams(struct hparams *h)
{
    static const char none[] = "\2\0\0\0\0\0\0\0{}";
    struct checkpoint c;
    quip_error error = { 0 };
    unlink(FOLDER "/model.safetensors.index.json");
    write_bytes("model.safetensors", none, sizeof none - 1);
    if (qp_checkpoint_open(&c, FOLDER, &(struct convert_options){ 0 }, &error) ||
        qp_hparams_from_hf(h, &c, &error))
        fail_msg("%s", error.message);
    qp_checkpoint_close(&c);
}

static int64_t size_in(const struct hparams *h, enum extent extent)
{
    const struct raw_config *c = &h->raw;
    const int64_t sizes[] = { [EXTENT_NONE] = 1,
                              [EXTENT_MODEL] = c->d_model,
                              [EXTENT_FF] = c->d_ff,
                              [EXTENT_VOCAB] = c->vocab_size,
                              [EXTENT_HEAD] = c->head_dim,
                              [EXTENT_Q] = (int64_t)c->n_heads * c->head_dim,
                              [EXTENT_KV] = (int64_t)c->n_kv_heads * c->head_dim,
                              [EXTENT_POSITIONS] = c->n_context_max };
    return sizes[extent];
}

struct shard_out {
    struct bytes header, data;
};

/* Eight bits and a sign, which every type represents exactly. */
static void put_number(struct bytes *to, uint32_t *seed, const char *dtype)
{
    *seed = *seed * 1664525u + 1013904223u;
    const int k = (int)(*seed >> 24) - 128;
    const float w = (float)k / 512;
    uint32_t bits;
    memcpy(&bits, &w, sizeof bits);
    uint16_t half = (uint16_t)(bits >> 16); // BF16
    if (strcmp(dtype, "F16") == 0)
        half = (uint16_t)((bits >> 16 & 0x8000) |
                          (k ? ((bits >> 23 & 255) - 112) << 10 | (bits >> 13 & 1023) : 0));
    assert_true(strcmp(dtype, "F32") == 0 ? qp_bytes_append(to, &bits, 4)
                                          : qp_bytes_append(to, &half, 2));
}

/* One tensor; head -1: of all heads. */
static void put_tensor(struct shard_out *out, const struct hparams *h, const struct tensor_row *row,
                       int layer, int head, const char *dtype)
{
    char name[200], shape[64];
    uint32_t seed = 7;
    const struct row_map map = qp_plan_module_map(h, row);
    const int64_t rows = head < 0 ? qp_row_map_rows(&map, size_in(h, row->rows)) : h->raw.head_dim;
    const int64_t cols = size_in(h, row->cols);
    const bool is_turned = h->source->has_conv1d && qp_tensor_row_is_layered(row);
    const size_t begin = out->data.n;
    snprintf(name, sizeof name, row->hf, layer, head);
    snprintf(shape, sizeof shape, row->cols == EXTENT_NONE ? "[%d]" : "[%d,%d]",
             (int)(is_turned && row->cols != EXTENT_NONE ? cols : rows),
             (int)(is_turned ? rows : cols));
    for (const char *c = name; *c; c++)
        seed = seed * 31 + (uint8_t)*c;
    for (int64_t i = 0; i < rows * cols; i++)
        put_number(&out->data, &seed, dtype);
    assert_true(qp_bytes_printf(&out->header,
                                "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,"
                                "%zu]}",
                                out->header.n ? "," : "", name, dtype, shape, begin, out->data.n));
}

/* Does the checkpoint have this name? Several parts of one tensor are there once, and so is the
 * embedding of a tied model. Alternatives that the family itself does not use are not there. */
static bool is_source(int i, const struct hparams *h)
{
    static const enum part others[] = { PART_K, PART_V, BLOCK_K, BLOCK_V, BLOCK_UP };
    const struct tensor_row *row = &qp_tensor_rows[i];
    const unsigned has = qp_tensor_conditions(&h->raw.traits, h->biases, h->is_tied);
    const bool has_two_norms = h->raw.traits.residual == RESIDUAL_PARALLEL_NORMS;
    const bool has_head_norms = strcmp(h->source->hf_names[0], "stablelm") == 0;
    for (size_t k = 0; k < QP_COUNT(others); k++)
        if (row->part == others[k])
            return false;
    if (!qp_tensor_row_applies(i, h->source->namings, has) ||
        (h->source->has_two_embeddings && (row->needs & IF_TIED)))
        return false;
    if (h->source->has_falcon_switches && strstr(row->hf, "%d.ln_"))
        return has_two_norms;
    if (h->source->has_falcon_switches && strstr(row->hf, "layernorm"))
        return !has_two_norms;
    if (row->needs & IF_QK_NORM_WIDE)
        return qp_tensor_row_is_of_head(row, false) == has_head_norms;
    return !qp_tensor_row_is_alternative(i, h->source->namings, has);
}

static void put_row(struct shard_out *out, const struct hparams *h, const struct storage *storage,
                    const struct tensor_row *row, int *n)
{
    const int n_layers = qp_tensor_row_is_layered(row) ? h->raw.n_layers : 1;
    const bool is_of_head = qp_tensor_row_is_of_head(row, false);
    const int n_heads = is_of_head ? (int)size_in(h, row->rows) / h->raw.head_dim : 1;
    for (int l = 0; l < n_layers; l++)
        for (int head = 0; head < n_heads; head++)
            put_tensor(&out[(*n)++ % storage->n_shards], h, row, l, is_of_head ? head : -1,
                       storage->dtype);
}

static void write_shards(const struct hparams *h, const struct storage *storage)
{
    struct shard_out out[4] = { { { 0 }, { 0 } } };
    struct bytes index = { 0 };
    char name[64];
    int n = 0;
    for (int i = 0; i < qp_n_tensor_rows; i++)
        if (is_source(i, h))
            put_row(out, h, storage, &qp_tensor_rows[i], &n);
    unlink(FOLDER "/model.safetensors.index.json");
    unlink(FOLDER "/model.safetensors"); // it would come before an index
    for (int i = 0; i < storage->n_shards; i++) {
        struct bytes all = { 0 };
        uint64_t n_header = out[i].header.n + 2;
        assert_true(qp_bytes_append(&all, &n_header, 8) && qp_bytes_append(&all, "{", 1) &&
                    qp_bytes_append(&all, out[i].header.data, out[i].header.n) &&
                    qp_bytes_append(&all, "}", 1) &&
                    qp_bytes_append(&all, out[i].data.data, out[i].data.n));
        snprintf(name, sizeof name, "model-%d-of-%d.safetensors", i, storage->n_shards);
        write_bytes(storage->n_shards == 1 ? "model.safetensors" : name, all.data, all.n);
        assert_true(qp_bytes_printf(&index, "%s\"%d\": \"%s\"", i ? ", " : "", i, name));
        qp_bytes_close(&all);
        qp_bytes_close(&out[i].header);
        qp_bytes_close(&out[i].data);
    }
    if (storage->n_shards > 1) {
        struct bytes text = { 0 };
        assert_true(qp_bytes_printf(&text, "{\"weight_map\": {%.*s}}", (int)index.n,
                                    (const char *)index.data));
        write_bytes("model.safetensors.index.json", text.data, text.n);
        qp_bytes_close(&text);
    }
    qp_bytes_close(&index);
}

static void convert_shape(const struct shape *s, const struct storage *storage,
                          enum convert_weights weights, const char *out)
{
    const struct convert_options options = { .weights = weights };
    const struct family *family = qp_family(qp_source_of_checkpoint(s->model_type, false)->family);
    struct hparams h;
    quip_error error = { 0 };
    write_config(s, family, storage->is_v5);
    read_hparams(&h);
    write_shards(&h, storage);
    if (qp_convert(FOLDER, out, &options, &error))
        fail_msg("%s %s: %s", s->model_type, storage->dtype, error.message);
}

/* ---- tests ---- */

static int make_folder(void **state)
{
    (void)state;
    mkdir(FOLDER, 0777);
    save_byte_tokenizer(FOLDER "/tokenizer.model");
    return 0;
}

static int drop_folder(void **state)
{
    (void)state;
    return system("rm -r " FOLDER);
}

static void test_every_storage_is_one_model(void **state)
{
    (void)state;
    static const struct storage storages[] = {
        { "F32", 1, true },
        { "F16", 1, false },
        { "BF16", 3, false },
        { "F16", 4, true },
    };
    for (size_t i = 0; i < QP_COUNT(shapes); i++) {
        convert_shape(&shapes[i], &(struct storage){ "F32", 1, false }, CONVERT_INT8,
                      FOLDER "/a.bin");
        size_t n_a, n_b;
        char *a = read_whole(FOLDER "/a.bin", &n_a);
        for (size_t j = 0; j < QP_COUNT(storages); j++) {
            convert_shape(&shapes[i], &storages[j], CONVERT_INT8, FOLDER "/b.bin");
            char *b = read_whole(FOLDER "/b.bin", &n_b);
            assert_int_equal(n_a, n_b);
            assert_memory_equal(a, b, n_a);
            free(b);
        }
        free(a);
    }
}

static void check_status(quip_status status, const quip_error *error)
{
    if (status)
        fail_msg("%s: %s", quip_status_name(status), error->message);
}

/* The logits after these tokens, `step` at a time. */
static float *logits_after(quip_model *model, const quip_token *tokens, int n, int step,
                           int vocab_size)
{
    quip_error error = { 0 };
    quip_session *s;
    float *logits = calloc((size_t)vocab_size, sizeof *logits);
    assert_non_null(logits);
    check_status(quip_session_open(&s, model, &(quip_session_options){ .n_context = 64 }, &error),
                 &error);
    for (int i = 0; i < n; i += step)
        check_status(quip_session_prefill(s, tokens + i, n - i < step ? n - i : step, &error),
                     &error);
    memcpy(logits, quip_session_logits(s), (size_t)vocab_size * sizeof *logits);
    quip_session_close(s);
    return logits;
}

static void check_model(const struct shape *shape, const char *path)
{
    quip_error error = { 0 };
    quip_model *model;
    quip_session *s;
    quip_result result = { .struct_size = sizeof result };
    quip_token tokens[N_TOKENS];
    check_status(quip_model_open(&model, path, NULL, &error), &error);
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = i * 73 % shape->vocab_size;
    float *whole = logits_after(model, tokens, N_TOKENS, N_TOKENS, shape->vocab_size);
    float *single = logits_after(model, tokens, N_TOKENS, 1, shape->vocab_size);
    for (int i = 0; i < shape->vocab_size; i++)
        assert_true(isfinite(whole[i]));
    assert_memory_equal(whole, single, (size_t)shape->vocab_size * sizeof *whole);
    quip_session_options options = { .n_context = 64, .max_output_tokens = 12 };
    check_status(quip_session_open(&s, model, &options, &error), &error);
    check_status(quip_session_generate(s, "odd shapes", 10, NULL, NULL, &result, &error), &error);
    assert_true(result.n_output_tokens > 0);
    quip_session_close(s);
    quip_model_close(model);
    free(whole);
    free(single);
}

static void test_every_shape_runs(void **state)
{
    (void)state;
    static const struct storage storage = { "F16", 2, true };
    for (size_t i = 0; i < QP_COUNT(shapes); i++)
        for (int w = CONVERT_INT8; w <= CONVERT_F32; w++) {
            convert_shape(&shapes[i], &storage, (enum convert_weights)w, FOLDER "/a.bin");
            check_model(&shapes[i], FOLDER "/a.bin");
        }
}

/* The root of the mean square of x - y; of x if y is NULL. */
static float rms_of(const float *x, const float *y, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += pow((double)x[i] - (y ? (double)y[i] : 0), 2);
    return (float)sqrt(sum / n);
}

/* Logits after N_TOKENS tokens on a backend; NULL: the CPU's. */
static float *logits_on(const struct backend *backend, const char *path, int vocab_size)
{
    quip_error error = { 0 };
    quip_model *model;
    quip_token tokens[N_TOKENS];
    check_status(quip_model_open(&model, path, NULL, &error), &error);
    if (backend)
        model->backend = backend;
    for (int i = 0; i < N_TOKENS; i++)
        tokens[i] = i * 73 % vocab_size;
    float *logits = logits_after(model, tokens, N_TOKENS, N_TOKENS, vocab_size);
    quip_model_close(model);
    return logits;
}

/* Float weights: up to rounding. Int8: the logits of the float weights are near. */
static void test_reference_backend(void **state)
{
    (void)state;
    static const struct storage storage = { "F32", 1, true };
    for (size_t i = 0; i < QP_COUNT(shapes); i++) {
        const int n = shapes[i].vocab_size;
        convert_shape(&shapes[i], &storage, CONVERT_F32, FOLDER "/a.bin");
        convert_shape(&shapes[i], &storage, CONVERT_INT8, FOLDER "/b.bin");
        float *f32 = logits_on(NULL, FOLDER "/a.bin", n),
              *int8 = logits_on(NULL, FOLDER "/b.bin", n);
        float *reference = logits_on(&reference_backend, FOLDER "/a.bin", n);
        const float spread = rms_of(f32, NULL, n);
        const float off = rms_of(f32, reference, n) / spread,
                    off_int8 = rms_of(int8, f32, n) / spread;
        printf("  %-12s %2zu  reference %.1e  int8 %.3f\n", shapes[i].model_type, i, (double)off,
               (double)off_int8);
        assert_true(off < 2e-5f);
        assert_true(off_int8 < 0.05f);
        free(f32);
        free(int8);
        free(reference);
    }
}

/* Int4 has two values per byte: a matrix with rows of odd length is refused, and named. */
static void test_odd_rows(void **state)
{
    (void)state;
    static const struct shape odd = { "llama", true, 1, 42, 71, 3, 1, 14, 301, NULL };
    const struct convert_options options = { .weights = CONVERT_INT8, .feed_forward_bits = 4 };
    const struct family *family = qp_family(qp_source_of_checkpoint(odd.model_type, false)->family);
    struct hparams h;
    quip_error error = { 0 };
    write_config(&odd, family, false);
    read_hparams(&h);
    write_shards(&h, &(struct storage){ "F32", 1, false });
    assert_int_equal(qp_convert(FOLDER, FOLDER "/a.bin", &options, &error), QUIP_E_UNSUPPORTED);
    assert_non_null(strstr(error.message, "down_proj.weight has rows of 71 values"));
    convert_shape(&odd, &(struct storage){ "F32", 1, false }, CONVERT_INT8, FOLDER "/a.bin");
    check_model(&odd, FOLDER "/a.bin");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_storage_is_one_model),
        cmocka_unit_test(test_every_shape_runs),
        cmocka_unit_test(test_reference_backend),
        cmocka_unit_test(test_odd_rows),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
