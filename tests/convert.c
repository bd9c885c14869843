/* convert.c (test): checkpoints -> model files. One small model, made here from a seed, is written
 * as a GGUF and as a Hugging Face folder. Both must become the same model file. Then come the
 * defects that a checkpoint can have. tests/convert_mediapipe.c has MediaPipe's own files,
 * tests/tokenizer_import.c the vocabularies. */
#include "convert/convert.h"
#include "convert/hparams.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/alloc_fault.h"
#include "support/sample_checkpoint.h"
#include "support/shared.h"

static const struct folder_options plain;

/* ---- comparing ---- */

static void convert_ok(const char *in, const char *out, enum convert_weights weights)
{
    quip_error error = { 0 };
    const struct convert_options options = { .weights = weights };
    if (qp_convert(in, out, &options, &error))
        fail_msg("%s", error.message);
}

/* The conversion of hf/ fails with a message that contains `part`, and leaves no output. */
static const char *convert_fails(enum convert_weights weights, quip_status status)
{
    static quip_error error;
    const struct convert_options options = { .weights = weights };
    error = (quip_error){ 0 };
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error), status);
    assert_no_output();
    return error.message;
}

static void assert_contains(const char *message, const char *part)
{
    if (!strstr(message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, message);
}

struct reopened {
    struct file file;
    struct format format;
    bool has_layer_norm;
    int n_found;
};

static void reopen(struct reopened *r, const char *path)
{
    quip_error error = { 0 };
    *r = (struct reopened){ 0 };
    if (qp_file_open(&r->file, path, &error) || qp_format_open(&r->format, &r->file, &error))
        fail_msg("%s", error.message);
}

static void close_reopened(struct reopened *r)
{
    qp_format_close(&r->format);
    qp_file_close(&r->file);
}

static const char *metadata_of(struct reopened *r, const char *name, size_t *n)
{
    const struct metadata *m = qp_format_find_metadata(&r->format, name);
    const uint8_t *data;
    if (!m || m->type != METADATA_BYTES)
        return NULL;
    assert_int_equal(qp_format_bytes(&r->format, m, &data, n, NULL), 0);
    return (const char *)data;
}

/* In a float32 file every tensor is equal to the sample. */
static void check_f32_tensor(void *user, const struct sample_tensor *t)
{
    struct reopened *r = user;
    const struct tensor *found = qp_format_find(&r->format, t->target);
    const uint8_t *data;
    assert_non_null(found);
    assert_int_equal(found->dtype, DTYPE_F32);
    bool is_layer_norm = t->row->weight_class == CLASS_NORM && r->has_layer_norm;
    assert_int_equal(found->n_dims, is_layer_norm ? 3 : t->row->cols == EXTENT_NONE ? 1 : 2);
    assert_int_equal(found->dims[is_layer_norm ? 2 : 0], t->rows);
    assert_int_equal(qp_format_tensor_bytes(&r->format, found, &data, NULL), 0);
    assert_memory_equal(data, t->values, (size_t)(t->rows * t->cols) * sizeof(float));
    r->n_found++;
}

/* ---- the same model in different checkpoints ---- */

static void check_equal(const struct sample *s)
{
    struct reopened r;
    write_gguf(s);
    write_folder(s, &plain);
    for (int w = CONVERT_INT8; w <= CONVERT_F32; w++) {
        convert_ok(in_folder("in.gguf"), in_folder("a.bin"), (enum convert_weights)w);
        convert_ok(in_folder("hf"), in_folder("b.bin"), (enum convert_weights)w);
        assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    }
    reopen(&r, in_folder("a.bin"));
    r.has_layer_norm = has_layer_norm(s);
    each_sample_tensor(s, check_f32_tensor, &r);
    assert_int_equal(r.n_found, r.format.n_tensors);
    close_reopened(&r);
}

static void test_gguf_and_folder_are_equal(void **state)
{
    (void)state;
    check_equal(&sample_llama_tied);
    check_equal(&sample_llama_untied);
    check_equal(&sample_gemma3);
    check_equal(&sample_phi2);
    check_equal(&sample_stablelm);
}

/* llama.cpp's files of Phi-2 before 2024, and those that its converter makes with --fuse-qkv. */
static void test_fused_gguf(void **state)
{
    (void)state;
    static const struct sample qwen2 = { "qwen2", FAMILY_QWEN2, true };
    const struct sample *const samples[] = { &sample_phi2, &sample_llama_untied, &sample_gemma3,
                                             &qwen2 };
    for (size_t i = 0; i < QP_COUNT(samples); i++) {
        write_gguf(samples[i]);
        convert_ok(in_folder("in.gguf"), in_folder("a.bin"), CONVERT_F32);
        write_gguf_as(samples[i], &(struct gguf_options){ .fuses_qkv = true });
        convert_ok(in_folder("in.gguf"), in_folder("b.bin"), CONVERT_F32);
        assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    }
}

static void test_dtypes(void **state)
{
    (void)state;
    static const enum dtype wanted[4][3] = { { DTYPE_I8, DTYPE_I8, DTYPE_I8 },
                                             { DTYPE_I8, DTYPE_I4, DTYPE_I8 },
                                             { DTYPE_I4, DTYPE_I4, DTYPE_I4 },
                                             { DTYPE_F32, DTYPE_F32, DTYPE_F32 } };
    static const char *const names[] = {
        "params.lm.transformer.x_layers_1.self_attention.v.w",
        "params.lm.transformer.x_layers_1.ff_layer.ffn_layer2.w",
        "params.lm.softmax.logits_ffn.w",
    };
    static const char *const words[] = { "int8", "mixed", "int4", "f32" };
    write_folder(&sample_gemma3, &plain);
    for (int w = 0; w < 4; w++) {
        enum convert_weights weights;
        struct reopened r;
        assert_true(qp_convert_weights_find(words[w], &weights));
        assert_int_equal(weights, w);
        convert_ok(in_folder("hf"), in_folder("a.bin"), weights);
        reopen(&r, in_folder("a.bin"));
        for (size_t i = 0; i < QP_COUNT(names); i++) {
            char scales[120];
            const struct tensor *t = qp_format_find(&r.format, names[i]);
            assert_non_null(t);
            assert_int_equal(t->dtype, wanted[w][i]);
            // int4 is block-wise, and cannot be confused with MediaPipe's
            snprintf(scales, sizeof scales, "%s_quantized_scale", names[i]);
            assert_int_equal(qp_format_find(&r.format, scales) != NULL, t->dtype == DTYPE_I8);
            snprintf(scales, sizeof scales, "%s_block_scale", names[i]);
            assert_int_equal(qp_format_find(&r.format, scales) != NULL, t->dtype == DTYPE_I4);
            snprintf(scales, sizeof scales, "%s_block_multiplier", names[i]);
            assert_int_equal(qp_format_find(&r.format, scales) != NULL, t->dtype == DTYPE_I4);
        }
        close_reopened(&r);
    }
    enum convert_weights weights;
    assert_false(qp_convert_weights_find("int5", &weights));
}

/* True if two files of the same size differ. */
static bool differ(const char *a, const char *b)
{
    struct file one = { 0 }, other = { 0 };
    assert_int_equal(qp_file_open(&one, a, NULL), QUIP_OK);
    assert_int_equal(qp_file_open(&other, b, NULL), QUIP_OK);
    assert_int_equal(one.size, other.size);
    const bool result = memcmp(one.data, other.data, (size_t)one.size) != 0;
    qp_file_close(&one);
    qp_file_close(&other);
    return result;
}

static bool stop_in_text(void *user, uint64_t done, uint64_t total, const char *what)
{
    (void)user;
    return done < total / 2 || !strstr(what, "text");
}

/* A calibration text changes the int4 weights, in the same way each time, also from int8 weights.
 */
static void test_calibration(void **state)
{
    (void)state;
    static const enum convert_weights sources[] = { CONVERT_F32, CONVERT_INT8 };
    write_folder(&sample_gemma3, &plain);
    write_text("text", "the an the the be an the thean");
    write_text("nothing", "");
    struct convert_options options = { .weights = CONVERT_INT4, .calibrate = in_folder("text") };
    quip_error error = { 0 };
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("b.bin"), &options, &error),
                     QUIP_E_UNSUPPORTED);
    assert_contains(error.message, "calibrate that file");
    for (size_t i = 0; i < QP_COUNT(sources); i++) {
        convert_ok(in_folder("hf"), in_folder("a.bin"), sources[i]);
        convert_ok(in_folder("a.bin"), in_folder("b.bin"), CONVERT_INT4);
        options.calibrate = in_folder("text");
        if (qp_convert(in_folder("a.bin"), in_folder("c.bin"), &options, &error))
            fail_msg("%s", error.message);
        assert_true(differ(in_folder("b.bin"), in_folder("c.bin")));
        options.calibrate = in_folder("text");
        assert_int_equal(qp_convert(in_folder("a.bin"), in_folder("b.bin"), &options, &error),
                         QUIP_OK);
        assert_false(differ(in_folder("b.bin"), in_folder("c.bin")));
    }
    options.calibrate = in_folder("text");
    options.on_progress = stop_in_text;
    unlink(in_folder("b.bin"));
    assert_int_equal(qp_convert(in_folder("a.bin"), in_folder("b.bin"), &options, &error),
                     QUIP_E_CANCELLED);
    options.on_progress = NULL;
    options.calibrate = in_folder("nothing");
    assert_int_equal(qp_convert(in_folder("a.bin"), in_folder("b.bin"), &options, &error),
                     QUIP_E_FORMAT);
    options.calibrate = in_folder("no-such-text");
    assert_int_equal(qp_convert(in_folder("a.bin"), in_folder("b.bin"), &options, &error),
                     QUIP_E_IO);
}

static void test_metadata(void **state)
{
    (void)state;
    struct reopened r;
    size_t n;
    static const char want[] = "architecture gemma3\nnorm_eps 1e-05\nrope_theta 500000\n"
                               "rope_scaling 1\nrope_dim 8\nquery_scale 0.35355338\n"
                               "rope_local_theta 10000\nn_context_max 512\nwindow 16\n"
                               "layer_types LL\nchat none\nstop_ids 1,5\nbos 2\ntied 1\n";
    write_folder(&sample_gemma3, &plain);
    convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_INT8);
    reopen(&r, in_folder("a.bin"));
    assert_string_equal(r.format.subgraph_name, "GEMMA3");
    const char *text = metadata_of(&r, "quip.config", &n);
    assert_true(n > strlen(want));
    assert_memory_equal(text, want, strlen(want));
    text = metadata_of(&r, "backend", &n);
    assert_int_equal(n, 3);
    assert_memory_equal(text, "cpu", 3);
    assert_null(metadata_of(&r, "quip.tokenizer", &n));
    close_reopened(&r);
}

/* BF16 has fewer bits, so both sides get values that fit. */
static void test_shards_and_bf16(void **state)
{
    (void)state;
    write_folder(&sample_llama_untied, &(struct folder_options){ .dtype = "BF16" });
    convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_INT8);
    write_safetensors(&sample_llama_untied, "hf/one.safetensors",
                      &(struct folder_options){ .dtype = "BF16", .n_parts = 2, .part = 0 });
    write_safetensors(&sample_llama_untied, "hf/two.safetensors",
                      &(struct folder_options){ .dtype = "BF16", .n_parts = 2, .part = 1 });
    unlink(in_folder("hf/model.safetensors"));
    write_text("hf/model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\", "
               "\"c\": \"one.safetensors\"}}");
    convert_ok(in_folder("hf"), in_folder("b.bin"), CONVERT_INT8);
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    unlink(in_folder("hf/model.safetensors.index.json"));
    convert_ok(in_folder("hf"), in_folder("b.bin"), CONVERT_INT8); // all files of the folder
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    convert_ok(in_folder("hf/[ot]*.safetensors"), in_folder("b.bin"), CONVERT_INT8);
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    assert_int_equal(rename(in_folder("hf/one.safetensors"), in_folder("hf/one")), 0);
    quip_error error = { 0 };
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("b.bin"), NULL, &error), QUIP_E_FORMAT);
    assert_contains(error.message, "missing: ");
    assert_int_equal(rename(in_folder("hf/one"), in_folder("hf/one.safetensors")), 0);
    unlink(in_folder("a.bin"));
    unlink(in_folder("b.bin"));

    write_text("hf/model.safetensors.index.json", "{\"weight_map\": {\"a\": \"../x\"}}");
    assert_contains(convert_fails(CONVERT_INT8, QUIP_E_FORMAT), "has no file name of this folder");
    write_safetensors(&sample_llama_untied, "hf/two.safetensors", &plain);
    write_text("hf/model.safetensors.index.json",
               "{\"weight_map\": {\"a\": \"one.safetensors\", \"b\": \"two.safetensors\"}}");
    assert_contains(convert_fails(CONVERT_INT8, QUIP_E_FORMAT),
                    "there twice: model.embed_tokens.weight, ");
}

/* A checkpoint without config.json, with a model type whose sizes are known: this checkpoint has
 * other sizes. With config.json, the model type only has to be of the same family. */
static void test_model_types(void **state)
{
    (void)state;
    quip_error error = { 0 };
    struct reopened r;
    struct convert_options options = { .model_type = "GEMMA3_1B" };
    write_folder(&sample_gemma3, &plain);
    if (qp_convert(in_folder("hf"), in_folder("a.bin"), &options, &error))
        fail_msg("%s", error.message);
    reopen(&r, in_folder("a.bin"));
    assert_string_equal(r.format.subgraph_name, "GEMMA3_1B");
    close_reopened(&r);
    unlink(in_folder("a.bin"));
    options.model_type = "GEMMA_2B";
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("a.bin"), &options, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "is a gemma3 model, not a GEMMA_2B");
    options.model_type = "GEMMA_3B";
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("a.bin"), &options, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "unknown model type GEMMA_3B");

    unlink(in_folder("hf/config.json"));
    static const char *const types[] = { "GEMMA_2B",   "GEMMA_7B",     "GEMMA2_2B",
                                         "GEMMA3_1B",  "GEMMA3_300M",  "GEMMA3_4B",
                                         "GEMMA3_12B", "GEMMA3_27B",   "FUNCTIONGEMMA3_300M",
                                         "PHI_2",      "FALCON_RW_1B", "STABLELM_4E1T_3B" };
    for (size_t i = 0; i < QP_COUNT(types); i++) {
        struct checkpoint c;
        struct hparams h;
        options.model_type = types[i];
        if (qp_checkpoint_open(&c, in_folder("hf"), &options, &error) ||
            qp_hparams_from_hf(&h, &c, &error))
            fail_msg("%s: %s", types[i], error.message);
        const struct model_type *t = qp_model_type_named(types[i]);
        assert_ptr_equal(h.raw.family, qp_family(t->family));
        assert_int_equal(h.raw.n_layers, t->n_layers);
        assert_int_equal(h.raw.d_model, t->d_model);
        qp_checkpoint_close(&c);
        assert_int_equal(qp_convert(in_folder("hf"), in_folder("a.bin"), &options, &error),
                         QUIP_E_FORMAT);
    }
    assert_no_output();
}

/* Options that MediaPipe's converter accepts although its files cannot store the result. */
static void test_refused_options(void **state)
{
    (void)state;
    static const struct {
        struct convert_options options;
        const char *words;
    } wrong[] = {
        { { .block_size = 16 }, "block_size is 16; must be 0 (off), 32 or 128" },
        { { .block_size = 32, .for_gpu = true }, "which reads one scale for each row" },
        { { .block_size = 128, .is_original = true }, "which reads one scale for each row" },
        { { .is_asymmetric = true }, "which have no zero points" },
        { { .is_asymmetric = true, .is_mse = true, .for_gpu = true }, "symmetric weights only" },
        { { .format = "onnx" }, "unknown checkpoint format onnx" },
        { { .calibrate = "text" }, "needs block-wise int4" },
        { { .weights = CONVERT_INT4, .is_original = true, .calibrate = "text" },
          "needs block-wise" },
        { { .format = "pytorch" }, "has no pytorch weights" },
    };
    write_folder(&sample_gemma3, &plain);
    for (size_t i = 0; i < QP_COUNT(wrong); i++) {
        quip_error error = { 0 };
        assert_int_not_equal(
            qp_convert(in_folder("hf"), in_folder("out.bin"), &wrong[i].options, &error), QUIP_OK);
        assert_contains(error.message, wrong[i].words);
        assert_no_output();
    }
    quip_error error = { 0 };
    const struct convert_options blocks = { .weights = CONVERT_INT4, .block_size = 32 };
    convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_INT4);
    if (qp_convert(in_folder("hf"), in_folder("b.bin"), &blocks, &error))
        fail_msg("%s", error.message);
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
}

/* If a folder has several kinds of files, the requested kind is used. */
static void test_format(void **state)
{
    (void)state;
    quip_error error = { 0 };
    const struct convert_options safetensors = { .format = "safetensors" };
    const struct convert_options pytorch = { .format = "pytorch" };
    write_folder(&sample_gemma3, &plain);
    FILE *f = fopen(in_folder("hf/pytorch_model.bin"), "wb");
    assert_non_null(f);
    fclose(f);
    if (qp_convert(in_folder("hf"), in_folder("a.bin"), &safetensors, &error))
        fail_msg("%s", error.message);
    assert_int_not_equal(qp_convert(in_folder("hf"), in_folder("b.bin"), &pytorch, &error),
                         QUIP_OK);
    assert_contains(error.message, "pytorch_model.bin");
    unlink(in_folder("hf/pytorch_model.bin"));
    assert_int_equal(
        qp_convert(in_folder("hf/model.safetensors"), in_folder("b.bin"), &pytorch, &error),
        QUIP_E_ARGUMENT);
    assert_contains(error.message, "is safetensors, expected pytorch");
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("hf/model.safetensors"), NULL, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "is a file of the checkpoint");
    write_text("hf/config.json", "{\"model_type\": \"gemma3\"}");
    assert_int_equal(
        qp_convert(in_folder("hf/model.safetensors"), in_folder("b.bin"), NULL, &error),
        QUIP_E_FORMAT);
    assert_contains(error.message, "hf/config.json: has no ");
}

static void test_other_tokenizer(void **state)
{
    (void)state;
    quip_error error = { 0 };
    write_folder(&sample_gemma3, &plain);
    convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_INT8);
    assert_int_equal(rename(in_folder("hf/tokenizer.model"), in_folder("spm")), 0);
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("b.bin"), NULL, &error), QUIP_E_IO);
    assert_contains(error.message, "give its path with --tokenizer");
    const struct convert_options options = { .tokenizer = in_folder("spm") };
    if (qp_convert(in_folder("hf"), in_folder("b.bin"), &options, &error))
        fail_msg("%s", error.message);
    assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
}

/* ---- defects ---- */

static void test_wrong_tensors(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied,
                 &(struct folder_options){ .skip = "model.layers.1.self_attn.k_proj.weight",
                                           .misshape = "model.layers.0.mlp.up_proj.weight",
                                           .extra = "model.layers.0.self_attn.q_proj.bias" });
    const char *message = convert_fails(CONVERT_INT8, QUIP_E_FORMAT);
    assert_contains(message, "missing: model.layers.1.self_attn.k_proj.weight");
    assert_contains(message,
                    "misshapen: model.layers.0.mlp.up_proj.weight is [960, 1], not [40, 24]");
    assert_contains(message, "not known: model.layers.0.self_attn.q_proj.bias");

    write_folder(&sample_llama_tied, &plain); // tied, although the config says untied
    write_config(&sample_llama_untied);
    assert_contains(convert_fails(CONVERT_INT8, QUIP_E_FORMAT), "missing: lm_head.weight");
    write_folder(&sample_llama_untied,
                 &plain); // the reverse: a second copy of the head is allowed
    write_config(&sample_llama_tied);
    convert_ok(in_folder("hf"), in_folder("out.bin"), CONVERT_INT8);
}

static void replace_in_config(const char *from, const char *to)
{
    size_t n;
    char *text = read_whole(in_folder("hf/config.json"), &n);
    char *at = strstr(text, from);
    struct bytes out = { 0 };
    assert_non_null(at);
    assert_true(qp_bytes_printf(&out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)));
    write_file("hf/config.json", out.data, out.n);
    qp_bytes_close(&out);
    free(text);
}

static void test_wrong_configs(void **state)
{
    (void)state;
    static const struct {
        const char *from, *to, *message;
        quip_status status;
    } cases[] = {
        { "\"llama\"", "\"mamba\"", "model_type \"mamba\" cannot be", QUIP_E_UNSUPPORTED },
        { "\"silu\"", "\"quick_gelu\"", "hidden_act is \"quick_gelu\"", QUIP_E_UNSUPPORTED },
        { "hidden_size", "hiden_size", "has no hidden_size", QUIP_E_FORMAT },
        { ": 24", ": \"24\"", "hidden_size is not a number", QUIP_E_FORMAT },
        { ": 24", ": 24.5", "hidden_size is 24.5", QUIP_E_FORMAT },
        { ": 24", ": 1e300", "hidden_size is 1e+300", QUIP_E_FORMAT },
        { ": 24", ": -24", "hidden_size is -24", QUIP_E_FORMAT },
        { "\"head_dim\": 8", "\"head_dim\": 7", "7 dimensions of a head of 7; must be an even",
          QUIP_E_FORMAT },
        { "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3",
          "4 heads are not a multiple of", QUIP_E_FORMAT },
        { "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 100000", "must be at most 512",
          QUIP_E_FORMAT },
        { "\"rope_theta\": 500000", "\"rope_theta\": 0", "not all in range", QUIP_E_FORMAT },
        { "\"bos_token_id\": 2", "\"bos_token_id\": 280", "is not in the vocabulary",
          QUIP_E_FORMAT },
        { "\"rope_theta\"",
          "\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}, \"rope_theta\"",
          "low_freq_factor and high_freq_factor of rope are 0 and 0", QUIP_E_FORMAT },
        { "\"rope_theta\"", "\"partial_rotary_factor\": 0.5, \"rope_theta\"",
          "a llama model rotates whole heads", QUIP_E_UNSUPPORTED },
        { "{", "[", "is not JSON", QUIP_E_FORMAT },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_folder(&sample_llama_tied, &plain);
        replace_in_config(cases[i].from, cases[i].to);
        assert_contains(convert_fails(CONVERT_INT8, cases[i].status), cases[i].message);
    }
    unlink(in_folder("hf/config.json"));
    assert_contains(convert_fails(CONVERT_INT8, QUIP_E_FORMAT), "has no config.json");
}

static void nan_tensor(void *user, const struct sample_tensor *t)
{
    *(float *)user = t->values[0];
}

static void test_values_that_are_not_finite(void **state)
{
    (void)state;
    size_t n;
    float first = 0;
    const float nan_value = NAN;
    write_folder(&sample_llama_untied, &plain);
    each_sample_tensor(&sample_llama_untied, nan_tensor, &first); // the last tensor: lm_head
    char *data = read_whole(in_folder("hf/model.safetensors"), &n);
    memcpy(data + n - 4, &nan_value, 4);
    write_file("hf/model.safetensors", data, n);
    free(data);
    assert_contains(convert_fails(CONVERT_INT4, QUIP_E_FORMAT),
                    "lm_head.weight has a value that is not a finite number");
}

static bool stop_half_way(void *user, uint64_t done, uint64_t total, const char *what)
{
    (void)what;
    uint64_t *last = user;
    assert_true(done > *last && done <= total);
    *last = done;
    return done < total / 2;
}

static bool go_on(void *user, uint64_t done, uint64_t total, const char *what)
{
    (void)what;
    uint64_t *last = user;
    last[0] = done;
    last[1] = total;
    return true;
}

static void test_progress_and_cancel(void **state)
{
    (void)state;
    quip_error error = { 0 };
    uint64_t seen[2] = { 0 };
    struct convert_options options = { .on_progress = stop_half_way, .user = seen };
    write_folder(&sample_llama_tied, &plain);
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error),
                     QUIP_E_CANCELLED);
    assert_no_output();
    options.on_progress = go_on;
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error), 0);
    assert_true(seen[0] == seen[1]);
    options.chat = "klingon";
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "unknown chat template \"klingon\"");
}

/* Another program writes to the checkpoint: as long a text at another time. */
static bool touch(void *user, uint64_t done, uint64_t total, const char *what)
{
    (void)done, (void)total, (void)what;
    const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = 1 } };
    assert_int_equal(utimensat(AT_FDCWD, user, times, 0), 0);
    return true;
}

static void test_a_checkpoint_that_changes(void **state)
{
    (void)state;
    quip_error error = { 0 };
    char path[256];
    write_folder(&sample_llama_tied, &plain);
    snprintf(path, sizeof path, "%s", in_folder("hf/model.safetensors"));
    const struct convert_options options = { .on_progress = touch, .user = path };
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), &options, &error),
                     QUIP_E_IO);
    assert_contains(error.message, "model.safetensors: another program wrote to it");
    assert_no_output();
}

static void test_wrong_inputs(void **state)
{
    (void)state;
    quip_error error = { 0 };
    assert_int_equal(qp_convert(in_folder("none"), in_folder("out.bin"), NULL, &error), QUIP_E_IO);
    write_text("in.gguf", "GGUX and so on");
    assert_int_equal(qp_convert(in_folder("in.gguf"), in_folder("out.bin"), NULL, &error),
                     QUIP_E_FORMAT);
    write_folder(&sample_llama_tied, &plain);
    unlink(in_folder("hf/config.json"));
    assert_int_equal(
        qp_convert(in_folder("hf/model.safetensors"), in_folder("out.bin"), NULL, &error),
        QUIP_E_FORMAT);
    assert_contains(error.message, "hf: has no config.json");
    assert_int_equal(qp_convert(in_folder("hf/*.pth"), in_folder("out.bin"), NULL, &error),
                     QUIP_E_IO);
    assert_contains(error.message, "no file matches this pattern");
    write_config(&sample_llama_tied);
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("hf"), NULL, &error), QUIP_E_ARGUMENT);
    assert_int_equal(qp_convert(in_folder("in.gguf"), in_folder("in.gguf"), NULL, &error),
                     QUIP_E_ARGUMENT);
    assert_contains(error.message, "is the checkpoint itself");
    unlink(in_folder("hf/tokenizer.model"));
    assert_int_equal(qp_convert(in_folder("hf"), in_folder("out.bin"), NULL, &error), QUIP_E_IO);
    write_text("hf/tokenizer.model", "nonsense");
    assert_true(qp_convert(in_folder("hf"), in_folder("out.bin"), NULL, &error) != 0);
    assert_no_output();
}

/* A GGUF that ends early, anywhere in its header and at some offsets after it. */
static void test_truncated_gguf(void **state)
{
    (void)state;
    size_t n;
    quip_error error;
    write_gguf(&sample_llama_tied);
    char *data = read_whole(in_folder("in.gguf"), &n);
    for (size_t cut = 0; cut < n; cut += cut < 1024 ? 1 : 997) {
        write_file("in.gguf", data, cut);
        assert_true(qp_convert(in_folder("in.gguf"), in_folder("out.bin"), NULL, &error) != 0);
    }
    free(data);
    assert_no_output();
}

/* Bits flipped at random, mostly in the header: an error or a model, never a crash. */
static void test_flipped_bits(void **state)
{
    (void)state;
    size_t n;
    uint32_t seed = 7;
    write_gguf(&sample_gemma3);
    char *data = read_whole(in_folder("in.gguf"), &n);
    for (int round = 0; round < 400; round++) {
        seed = seed * 1664525u + 1013904223u;
        size_t at = (seed >> 4) % (round % 8 ? 9000 : n);
        char bit = (char)(1 << (seed >> 29));
        data[at] ^= bit;
        write_file("in.gguf", data, n);
        qp_convert(in_folder("in.gguf"), in_folder("out.bin"), NULL, NULL);
        unlink(in_folder("out.bin"));
        data[at] ^= bit;
    }
    free(data);
    assert_no_output();
}

static void fail_each_allocation(const char *name)
{
    char in[256];
    strcpy(in, in_folder(name));
    const int before = alloc_fault_live();
    for (int n = 0;; n++) {
        quip_error error = { 0 };
        alloc_fault_set(n);
        quip_status status = qp_convert(in, in_folder("out.bin"), NULL, &error);
        bool has_failed = alloc_fault_clear();
        assert_int_equal(alloc_fault_live(), before);
        if (!has_failed) {
            assert_int_equal(status, 0);
            print_message("%s: %d allocations\n", in, n);
            break;
        }
        if (status != QUIP_E_MEMORY && status != QUIP_E_FORMAT) // cJSON does not distinguish them
            fail_msg("allocation %d failed, the status was %s: %s", n, quip_status_name(status),
                     error.message);
        assert_true(*error.message);
        assert_no_output();
    }
    unlink(in_folder("out.bin"));
}

static void test_failing_allocations(void **state)
{
    (void)state;
    if (!alloc_fault_is_here())
        skip();
    write_gguf(&sample_gemma3);
    write_folder(&sample_llama_untied, &plain);
    cJSON_InitHooks(&(cJSON_Hooks){ malloc, free }); // its allocations are in another library
    fail_each_allocation("in.gguf");
    fail_each_allocation("hf");
    write_folder(&sample_phi2, &plain);
    fail_each_allocation("hf");
    convert_ok(in_folder("hf"), in_folder("in.gguf"),
               CONVERT_F32); // a model file, despite its name
    fail_each_allocation("in.gguf");
    cJSON_InitHooks(NULL);
}

/* Each file of a folder cut short, and bits flipped in its headers. */
static void test_damaged_folder(void **state)
{
    (void)state;
    static const char *const names[] = { "hf/config.json", "hf/model.safetensors",
                                         "hf/tokenizer.model" };
    uint32_t seed = 11;
    quip_error error;
    write_folder(&sample_llama_tied, &plain);
    for (size_t i = 0; i < QP_COUNT(names); i++) {
        size_t n, n_converted = 0;
        char *data = read_whole(in_folder(names[i]), &n);
        for (size_t cut = 0; cut < n; cut += cut < 600 ? 7 : 1997) {
            write_file(names[i], data, cut);
            n_converted += !qp_convert(in_folder("hf"), in_folder("out.bin"), NULL, &error);
            unlink(in_folder("out.bin"));
        }
        if (n_converted && i < 2) // a vocabulary may end between two pieces
            fail_msg("%s: cut short, it was converted", names[i]);
        for (int round = 0; round < 200; round++) {
            seed = seed * 1664525u + 1013904223u;
            size_t at = (seed >> 4) % (n < 1500 ? n : 1500);
            char bit = (char)(1 << (seed >> 29));
            data[at] ^= bit;
            write_file(names[i], data, n);
            if (qp_convert(in_folder("hf"), in_folder("out.bin"), NULL, &error))
                assert_true(*error.message);
            unlink(in_folder("out.bin"));
            data[at] ^= bit;
        }
        write_file(names[i], data, n);
        free(data);
    }
    assert_no_output();
}

/* ---- reference data ---- */

static void copy_shared(const char *name, const char *to)
{
    size_t n;
    need_shared(name);
    char *data = read_whole(shared_path(name), &n);
    write_file(to, data, n);
    free(data);
}

/* Both layouts of config.json describe the same model. */
static void test_config_layouts(void **state)
{
    (void)state;
    static const struct {
        const char *name, *tokenizer;
    } models[] = {
        { "gemma3", "tokenizer.model" },  { "gemma3-linear", "tokenizer.model" },
        { "gemma", "tokenizer.model" },   { "gemma2", "tokenizer.model" },
        { "phi2", "tokenizer.json" },     { "falcon-rw", "tokenizer.json" },
        { "stablelm", "tokenizer.json" }, { "smollm2", "tokenizer.model" },
    };
    static const char *const files[] = { "config.json", "model.safetensors",
                                         "tokenizer_config.json", "generation_config.json" };
    for (size_t i = 0; i < QP_COUNT(models); i++) {
        char name[200], to[60];
        for (size_t j = 0; j < QP_COUNT(files); j++) {
            snprintf(name, sizeof name, "data/golden/%s/%s", models[i].name, files[j]);
            snprintf(to, sizeof to, "hf/%s", files[j]);
            copy_shared(name, to);
        }
        unlink(in_folder("hf/tokenizer.model"));
        snprintf(name, sizeof name, "data/golden/%s/%s", models[i].name, models[i].tokenizer);
        snprintf(to, sizeof to, "hf/%s", models[i].tokenizer);
        copy_shared(name, to);
        convert_ok(in_folder("hf"), in_folder("a.bin"), CONVERT_MIXED);
        snprintf(name, sizeof name, "data/golden/%s/config_v5.json", models[i].name);
        copy_shared(name, "hf/config.json");
        convert_ok(in_folder("hf"), in_folder("b.bin"), CONVERT_MIXED);
        assert_same_file(in_folder("a.bin"), in_folder("b.bin"));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_sample_folder, drop_sample_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_gguf_and_folder_are_equal),
        TEST(test_fused_gguf),
        TEST(test_dtypes),
        TEST(test_calibration),
        TEST(test_metadata),
        TEST(test_shards_and_bf16),
        TEST(test_model_types),
        TEST(test_refused_options),
        TEST(test_format),
        TEST(test_other_tokenizer),
        TEST(test_wrong_tensors),
        TEST(test_wrong_configs),
        TEST(test_values_that_are_not_finite),
        TEST(test_progress_and_cancel),
        TEST(test_a_checkpoint_that_changes),
        TEST(test_wrong_inputs),
        TEST(test_truncated_gguf),
        TEST(test_flipped_bits),
        TEST(test_failing_allocations),
        TEST(test_damaged_folder),
        TEST(test_config_layouts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
