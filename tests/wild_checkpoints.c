/* wild_checkpoints.c (test): checkpoints as people have them. Each case is one small model, written
 * in a way that some program writes it. It becomes the file that the plain model becomes, or is
 * refused in a sentence that says what it is. */
#include "convert/convert.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "support/sample_checkpoint.h"
#include "support/shared.h"

static const struct folder_options plain;

/* ---- writing ---- */

/* How the names and numbers of a file differ from those of the sample. */
struct variant {
    const char *prefix;    // before every name
    const char *from, *to; // one tensor has another name; "" drops it
    const char *dtype;     // "F32" (if NULL), "F64", "F16"
    const char *poisoned;  // a tensor whose first value is `poison`
    float poison;
    const char *extra, *extra_as; // one more tensor, and its type and shape: "F32\",\"shape\":[2]"
    size_t extra_bytes;
    int n_heads;      // of q, k, v and the output projection; 0: as in the sample
    const char *head; // "equal" or "other": an lm_head.weight as the embedding, or another
    const char *metadata;
};

struct wild_writer {
    const struct variant *v;
    struct bytes header, data;
};

static void put_number(struct wild_writer *w, float x)
{
    const char *dtype = w->v->dtype ? w->v->dtype : "F32";
    if (strcmp(dtype, "F64") == 0) {
        const double wide = x;
        put_bytes(&w->data, &wide, 8);
    } else if (strcmp(dtype, "F16") == 0) {
        const uint16_t half = qp_half_bits(x);
        put_bytes(&w->data, &half, 2);
    } else {
        put_bytes(&w->data, &x, 4);
    }
}

static void put_entry(struct wild_writer *w, const char *name, const char *type_and_shape,
                      size_t begin)
{
    assert_true(qp_bytes_printf(&w->header,
                                "%s\"%s%s\":{\"dtype\":\"%s,\"data_offsets\":[%zu,%zu]}",
                                w->header.n ? "," : "", w->v->prefix ? w->v->prefix : "", name,
                                type_and_shape, begin, w->data.n));
}

static void put_tensor(struct wild_writer *w, const struct sample_tensor *t, const char *name,
                       float add)
{
    char shape[80];
    int rows = t->rows, cols = t->cols;
    if (w->v->n_heads && strstr(name, "self_attn.o_proj"))
        cols = w->v->n_heads * HEAD_DIM;
    else if (w->v->n_heads && strstr(name, "self_attn."))
        rows = w->v->n_heads * HEAD_DIM;
    const size_t begin = w->data.n;
    const bool is_poisoned = w->v->poisoned && strcmp(name, w->v->poisoned) == 0;
    for (int i = 0; i < rows * cols; i++)
        put_number(w, is_poisoned && i == 0 ? w->v->poison : t->values[i] + add);
    const char *dtype = w->v->dtype ? w->v->dtype : "F32";
    if (t->row->cols == EXTENT_NONE)
        snprintf(shape, sizeof shape, "%s\",\"shape\":[%d]", dtype, rows);
    else
        snprintf(shape, sizeof shape, "%s\",\"shape\":[%d,%d]", dtype, rows, cols);
    put_entry(w, name, shape, begin);
}

static void wild_tensor(void *user, const struct sample_tensor *t)
{
    struct wild_writer *w = user;
    const bool is_renamed = w->v->from && strcmp(t->hf, w->v->from) == 0;
    const char *name = is_renamed ? w->v->to : t->hf;
    if (*name)
        put_tensor(w, t, name, 0);
    if (w->v->head && strcmp(t->hf, "model.embed_tokens.weight") == 0)
        put_tensor(w, t, "lm_head.weight", strcmp(w->v->head, "equal") == 0 ? 0.0f : 0.25f);
}

static void write_variant(const struct sample *s, const char *name, const struct variant *v)
{
    struct wild_writer w = { .v = v };
    struct bytes all = { 0 };
    if (v->metadata)
        assert_true(qp_bytes_printf(&w.header, "\"__metadata__\":%s", v->metadata));
    each_sample_tensor(s, wild_tensor, &w);
    if (v->extra) {
        const size_t begin = w.data.n;
        for (size_t i = 0; i < v->extra_bytes; i++)
            put_bytes(&w.data, "", 1);
        put_entry(&w, v->extra, v->extra_as, begin);
    }
    put_u64(&all, w.header.n + 2);
    put_bytes(&all, "{", 1);
    put_bytes(&all, w.header.data, w.header.n);
    put_bytes(&all, "}", 1);
    put_bytes(&all, w.data.data, w.data.n);
    write_file(name, all.data, all.n);
    qp_bytes_close(&w.header);
    qp_bytes_close(&w.data);
    qp_bytes_close(&all);
}

/* config.json of the sample with more members; the last of a name counts. */
static void write_more_config(const struct sample *s, const char *more)
{
    size_t n;
    write_config(s);
    char *text = read_whole(in_folder("hf/config.json"), &n), *all = malloc(n + strlen(more) + 3);
    assert_non_null(all);
    while (n > 0 && text[n - 1] != '}')
        n--;
    sprintf(all, "%.*s, %s}", (int)(n - 1), text, more);
    write_text("hf/config.json", all);
    free(all);
    free(text);
}

/* ---- converting ---- */

/* out.bin has this line in its quip.config. */
static void assert_config_line(const char *line)
{
    size_t n;
    char *data = read_whole(in_folder("out.bin"), &n);
    bool is_there = false;
    for (size_t i = 0; i + strlen(line) <= n && !is_there; i++)
        is_there = memcmp(data + i, line, strlen(line)) == 0;
    free(data);
    if (!is_there)
        fail_msg("quip.config has no line \"%s\"", line);
}

static void convert_to(const char *out)
{
    quip_error error = { 0 };
    const struct convert_options options = { .weights = CONVERT_F32 };
    if (qp_convert(in_folder("hf"), in_folder(out), &options, &error))
        fail_msg("%s", error.message);
}

/* The folder becomes the same file as the plain sample. */
static void assert_as_plain(const char *what)
{
    size_t n_a, n_b;
    convert_to("out.bin");
    char *a = read_whole(in_folder("plain.bin"), &n_a), *b = read_whole(in_folder("out.bin"), &n_b);
    if (n_a != n_b || memcmp(a, b, n_a) != 0)
        fail_msg("%s: becomes another file than the plain model", what);
    free(a);
    free(b);
    unlink(in_folder("out.bin"));
}

static const char *refusal_of(const char *path, const struct convert_options *options)
{
    static quip_error error;
    error = (quip_error){ 0 };
    if (!qp_convert(path, in_folder("out.bin"), options, &error))
        fail_msg("%s is converted", path);
    assert_int_not_equal(access(in_folder("out.bin"), F_OK), 0);
    return error.message;
}

static void assert_has(const char *message, const char *part)
{
    if (!strstr(message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, message);
}

static void assert_wild_refused(const char *part)
{
    const struct convert_options options = { .weights = CONVERT_F32 };
    assert_has(refusal_of(in_folder("hf"), &options), part);
}

static void write_plain(const struct sample *s)
{
    write_folder(s, &plain);
    convert_to("plain.bin");
}

/* ---- heads ---- */

static void test_heads(void **state)
{
    (void)state;
    const struct sample *s = &sample_llama_tied;
    write_plain(s);
    write_variant(s, "hf/model.safetensors", &(struct variant){ .head = "equal" });
    assert_as_plain("an equal head");
    write_variant(s, "hf/model.safetensors",
                  &(struct variant){ .from = "model.embed_tokens.weight", .to = "lm_head.weight" });
    assert_as_plain("only the head");
    // without the key, the head decides, too
    write_variant(s, "hf/model.safetensors", &(struct variant){ .head = "equal" });
    write_more_config(s, "\"tie_word_embeddings\": true, \"text_config\": null");
    assert_as_plain("no text_config");
    // a head of its own is used, whatever the config says
    write_variant(s, "hf/model.safetensors", &(struct variant){ .head = "other" });
    convert_to("tied.bin");
    write_more_config(s, "\"tie_word_embeddings\": false");
    convert_to("untied.bin");
    size_t n_a, n_b;
    char *a = read_whole(in_folder("tied.bin"), &n_a),
         *b = read_whole(in_folder("untied.bin"), &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(a, b, n_a);
    free(a);
    free(b);
    // an untied model without a head is not one
    write_variant(s, "hf/model.safetensors", &(struct variant){ 0 });
    assert_wild_refused("missing: lm_head.weight");
}

/* ---- names ---- */

static void test_names(void **state)
{
    (void)state;
    static const struct {
        const char *what;
        struct variant v;
    } cases[] = {
        { "torch.compile", { .prefix = "_orig_mod." } },
        { "DistributedDataParallel", { .prefix = "module." } },
        { "both", { .prefix = "module._orig_mod." } },
        { "PEFT", { .prefix = "base_model.model." } },
        { "rope's frequencies",
          { .extra = "model.layers.0.self_attn.rotary_emb.inv_freq",
            .extra_as = "F32\",\"shape\":[2]",
            .extra_bytes = 8 } },
        { "rope's frequencies of the model",
          { .extra = "model.rotary_emb.inv_freq",
            .extra_as = "F32\",\"shape\":[2]",
            .extra_bytes = 8 } },
        { "scales of a KV cache",
          { .extra = "model.layers.1.self_attn.k_scale",
            .extra_as = "F32\",\"shape\":[1]",
            .extra_bytes = 4 } },
        { "a vision tower",
          { .extra = "model.vision_tower.x.weight",
            .extra_as = "F32\",\"shape\":[1]",
            .extra_bytes = 4 } },
        { "float64", { .dtype = "F64" } },
        { "metadata", { .metadata = "{\"format\":\"pt\",\"x\":\"\\u0041\\\"\"}" } },
        { "metadata that is empty", { .metadata = "{}" } },
    };
    write_plain(&sample_llama_tied);
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_variant(&sample_llama_tied, "hf/model.safetensors", &cases[i].v);
        assert_as_plain(cases[i].what);
    }
}

static void test_refused_tensors(void **state)
{
    (void)state;
#define Q0 "model.layers.0.self_attn.q_proj"
#define MORE(name, type, shape, n)                                                                 \
    .extra = name, .extra_as = type "\",\"shape\":" shape, .extra_bytes = n
    static const struct {
        const char *config;
        struct variant v;
        const char *message;
    } cases[] = {
        { "\"quantization_config\": {\"quant_method\": \"bitsandbytes\", \"load_in_4bit\": true}",
          { MORE(Q0 ".weight.absmax", "U8", "[4]", 4) },
          "its weights are quantized already (bitsandbytes, 4 bits); take the model in BF16" },
        { "\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 4}",
          { .from = Q0 ".weight", .to = Q0 ".qweight" },
          "quantized already (gptq, 4 bits)" },
        { "\"quantization\": {\"group_size\": 64, \"bits\": 4}",
          { MORE(Q0 ".biases", "F16", "[2]", 4) },
          "quantized already (MLX, 4 bits)" },
        { "\"x\": 0", { MORE(Q0 ".SCB", "F32", "[2]", 8) }, "(bitsandbytes, 8 bits)" },
        { "\"x\": 0", { MORE(Q0 ".weight_packed", "I32", "[2]", 8) }, "(compressed-tensors)" },
        { "\"x\": 0", { MORE(Q0 ".weight_scale_inv", "F32", "[2]", 8) }, "(FP8 in blocks)" },
        { "\"x\": 0",
          { MORE("model.layers.0.mlp.gate_up_proj_blocks", "U8", "[4]", 4) },
          "(MXFP4)" },
        { "\"quantization_config\": {\"quant_method\": \"fp8\"}",
          { .from = Q0 ".weight", .to = "", MORE(Q0 ".weight", "F8_E4M3", "[32,24]", 768) },
          "(fp8, tensors of type F8_E4M3)" },
        { "\"x\": 0",
          { .from = Q0 ".weight", .to = "", MORE(Q0 ".weight", "F8_E5M2", "[32,24]", 768) },
          "(FP8, tensors of type F8_E5M2)" },
        { "\"x\": 0",
          { .from = Q0 ".weight", .to = "", MORE(Q0 ".weight", "I64", "[32,24]", 6144) },
          "unreadable: " Q0 ".weight (I64)" },
        { "\"x\": 0",
          { .from = Q0 ".weight", .to = "", MORE(Q0 ".weight", "C64", "[32,24]", 6144) },
          "unreadable: " Q0 ".weight (C64)" },
        { "\"x\": 0",
          { .from = Q0 ".weight", .to = "", MORE(Q0 ".weight", "F4", "[32,24]", 384) },
          "unreadable: " Q0 ".weight (F4)" },
        { "\"x\": 0",
          { .from = Q0 ".weight", .to = Q0 ".base_layer.weight" },
          "has an adapter beside its weights (" Q0 ".base_layer.weight); merge it with PEFT's" },
        { "\"x\": 0",
          { MORE(Q0 ".lora_A.default.weight", "F32", "[2]", 8) },
          "has an adapter beside its weights" },
        { "\"x\": 0",
          { .from = Q0 ".weight", .to = "layers.0.attention.wq.weight" },
          "in the format of the model's vendor" },
        { "\"x\": 0",
          { .from = Q0 ".weight", .to = Q0 ".parametrizations.weight.original0" },
          "has weights in parts" },
        { "\"x\": 0",
          { MORE("v_head.summary.weight", "F32", "[2]", 8) },
          "not known: v_head.summary.weight" },
        { "\"num_hidden_layers\": 1", { 0 }, "not known: model.layers.1." },
        { "\"num_hidden_layers\": 3", { 0 }, "missing: model.layers.2." },
        { "\"vocab_size\": 279", { 0 }, "model.embed_tokens.weight is [280, 24], not [279, 24]" },
        { "\"architectures\": [\"LlamaForSequenceClassification\"]",
          { 0 },
          "the model is a LlamaForSequenceClassification, which scores texts" },
    };
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_folder(&sample_llama_tied, &plain);
        write_more_config(&sample_llama_tied, cases[i].config);
        write_variant(&sample_llama_tied, "hf/model.safetensors", &cases[i].v);
        assert_wild_refused(cases[i].message);
    }
    // plain weights stay plain, although the config says that they were quantized in training
    write_plain(&sample_llama_tied);
    write_more_config(&sample_llama_tied,
                      "\"quantization_config\": {\"quant_method\": \"bitsandbytes\"}");
    assert_as_plain("a merged model of QLoRA");
}

static void test_values(void **state)
{
    (void)state;
    static const char name[] = "model.layers.1.mlp.up_proj.weight";
    static const struct variant variants[] = {
        { .poisoned = name, .poison = INFINITY, .dtype = "F16" },
        { .poisoned = name, .poison = NAN },
        { .poisoned = name, .poison = -INFINITY, .dtype = "F64" },
    };
    for (size_t i = 0; i < QP_COUNT(variants); i++) {
        write_folder(&sample_llama_tied, &plain);
        write_variant(&sample_llama_tied, "hf/model.safetensors", &variants[i]);
        assert_wild_refused(name);
    }
}

/* ---- configs ---- */

static void test_configs(void **state)
{
    (void)state;
    static const struct {
        const char *more, *message; // NULL: as the plain model
    } cases[] = {
        { "\"head_dim\": 8, \"torch_dtype\": \"float16\", \"dtype\": \"bfloat16\"", NULL },
        { "\"auto_map\": {\"AutoModel\": \"x.py\"}, \"_name_or_path\": \"/x/y\"", NULL },
        { "\"pad_token_id\": 1", NULL },
        { "\"use_cache\": false, \"attention_dropout\": 0.1, \"pretraining_tp\": 1", NULL },
        { "\"hidden_act\": \"swish\"", NULL },
        { "\"hidden_act\": \"mish\"", "hidden_act is \"mish\"" },
        { "\"model_type\": \"gemma\", \"hidden_act\": \"mish\"", "hidden_act is \"mish\"" },
        { "\"model_type\": \"gemma\", \"hidden_act\": \"gelu\", \"hidden_activation\": \"gelu\"",
          "hidden_activation is another activation than hidden_act" },
        { "\"is_causal\": true", NULL },
        { "\"is_causal\": false", "is an encoder: its attention is bidirectional" },
        { "\"use_bidirectional_attention\": true", "is an encoder" },
        { "\"num_attention_heads\": 0", "number of heads is 0; must be" },
        { "\"num_key_value_heads\": 3", "4 heads are not a multiple of its 3" },
        { "\"hidden_size\": \"24\"", "hidden_size is not a number" },
        { "\"model_type\": \"lamma\"", "model_type \"lamma\" cannot be converted" },
        { "\"model_type\": null", "model_type \"\" cannot be converted" },
    };
    write_plain(&sample_llama_tied);
    for (size_t i = 0; i < QP_COUNT(cases); i++) {
        write_more_config(&sample_llama_tied, cases[i].more);
        if (cases[i].message)
            assert_wild_refused(cases[i].message);
        else
            assert_as_plain(cases[i].more);
    }
}

/* Keys that are null or absent: the reference computes them. */
static void test_absent_keys(void **state)
{
    (void)state;
    static const char *const configs[] = {
        "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 24, "
        "\"intermediate_size\": 40, \"num_attention_heads\": 3, \"num_key_value_heads\": 3, "
        "\"head_dim\": 8, \"vocab_size\": 280, \"rms_norm_eps\": 1e-6, \"rope_theta\": 10000, "
        "\"max_position_embeddings\": null, \"tie_word_embeddings\": true}",
        "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 24, "
        "\"intermediate_size\": 40, \"num_attention_heads\": 3, \"num_key_value_heads\": null, "
        "\"head_dim\": null, \"vocab_size\": 280, \"rope_scaling\": null, "
        "\"hidden_act\": null, \"tie_word_embeddings\": true}",
    };
    size_t n[2];
    char *files[2];
    write_folder(&sample_llama_tied, &plain);
    for (int i = 0; i < 2; i++) {
        write_text("hf/config.json", configs[i]);
        // three heads of 8 need other matrices of attention
        write_variant(&sample_llama_tied, "hf/model.safetensors",
                      &(struct variant){ .n_heads = 3 });
        convert_to(i ? "b.bin" : "a.bin");
        files[i] = read_whole(in_folder(i ? "b.bin" : "a.bin"), &n[i]);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(files[0], files[1], n[0]);
    free(files[0]);
    free(files[1]);
}

/* The end of a turn that only tokenizer_config.json names ends an answer too. */
static void test_stop_of_tokenizer_config(void **state)
{
    (void)state;
    write_folder(&sample_llama_tied, &plain);
    write_text("hf/added_tokens.json", "{\"<|end|>\": 270}");
    write_text("hf/generation_config.json", "{\"eos_token_id\": [1, 5, 1]}");
    write_text("hf/tokenizer_config.json", "{\"eos_token\": \"<|end|>\"}");
    convert_to("out.bin");
    assert_config_line("stop_ids 1,5\n");
    write_text("hf/tokenizer_config.json",
               "{\"eos_token\": {\"content\": \"<|end|>\"}, \"chat_template\": \"{{ x }}\"}");
    convert_to("out.bin");
    assert_config_line("stop_ids 1,5,270\n");
    // a list that is long, and one that is too long
    write_text("hf/generation_config.json", "{\"eos_token_id\": [1,2,3,4,5,6,7,8,9,10,11,12]}");
    convert_to("out.bin");
    assert_config_line("stop_ids 1,2,3,4,5,6,7,8,9,10,11,12,270\n");
    write_text("hf/generation_config.json",
               "{\"eos_token_id\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]}");
    unlink(in_folder("out.bin"));
    assert_wild_refused("more than 16 tokens end an answer");
}

/* ---- which files count ---- */

static void write_index(const char *name, const char *file)
{
    char text[200];
    snprintf(text, sizeof text, "{\"weight_map\": {\"model.norm.weight\": \"%s\"}}", file);
    write_text(name, text);
}

static void test_files(void **state)
{
    (void)state;
    const struct sample *s = &sample_llama_tied;
    const struct variant other = { .poisoned = "model.norm.weight", .poison = 7 };
    write_plain(s);
    write_index("hf/model.safetensors.index.json", "model-00001-of-00001.safetensors");
    write_variant(s, "hf/model-00001-of-00001.safetensors", &other);
    assert_as_plain("an index beside a newer single file");
    unlink(in_folder("hf/model.safetensors"));
    write_variant(s, "hf/model-00001-of-00001.safetensors", &(struct variant){ 0 });
    assert_as_plain("an index of one part");
    unlink(in_folder("hf/model.safetensors.index.json"));
    assert_as_plain("one part without an index");
    write_variant(s, "hf/consolidated.safetensors", &other);
    write_variant(s, "hf/optimizer.safetensors", &other);
    assert_as_plain("Mistral's own file beside the others");
    unlink(in_folder("hf/consolidated.safetensors"));
    unlink(in_folder("hf/optimizer.safetensors"));

    write_index("hf/model.safetensors.index.json", "model-00001-of-00001.safetensors");
    write_text("hf/pytorch_model.bin", "not read");
    assert_as_plain("pytorch_model.bin beside safetensors");
    unlink(in_folder("hf/pytorch_model.bin"));
    unlink(in_folder("hf/model.safetensors.index.json"));
    assert_int_equal(rename(in_folder("hf/model-00001-of-00001.safetensors"),
                            in_folder("hf/model-00001-of-00002.safetensors")),
                     0);
    assert_wild_refused("is part 1 of 2, and only 1 are there");
    const struct convert_options options = { .weights = CONVERT_F32 };
    assert_has(refusal_of(in_folder("hf/model-00001-of-00002.safetensors"), &options),
               "is part 1 of 2");
    write_index("hf/model.safetensors.index.json", "model-00001-of-00001.safetensors");
    assert_wild_refused("names model-00001-of-00001.safetensors, which is not there");
    unlink(in_folder("hf/model.safetensors.index.json"));
    unlink(in_folder("hf/model-00001-of-00002.safetensors"));

    assert_wild_refused("has no weights");
    write_text("hf/flax_model.msgpack", "x");
    assert_wild_refused("has weights only as flax_model.msgpack");
    write_text("hf/adapter_config.json", "{}");
    assert_wild_refused("is an adapter, not a checkpoint");
    write_text("hf/adapter_model.bin", "x");
    assert_wild_refused("is an adapter, not a checkpoint");
    write_variant(s, "hf/model.safetensors", &(struct variant){ 0 });
    assert_wild_refused("has a model and an adapter for it");
    unlink(in_folder("hf/adapter_model.bin"));
    assert_as_plain("the config of an adapter alone");

    write_text("hf/model.safetensors", "");
    assert_wild_refused("model.safetensors: is empty");
}

/* The cache of huggingface_hub: links to files that are named after their hash. */
static void test_links_and_names(void **state)
{
    (void)state;
    write_plain(&sample_llama_tied);
    assert_int_equal(mkdir(in_folder("hf/blobs"), 0777), 0);
    assert_int_equal(rename(in_folder("hf/model.safetensors"), in_folder("hf/blobs/0f4a")), 0);
    assert_int_equal(rename(in_folder("hf/config.json"), in_folder("hf/blobs/77aa")), 0);
    assert_int_equal(symlink("blobs/0f4a", in_folder("hf/model.safetensors")), 0);
    assert_int_equal(symlink("blobs/77aa", in_folder("hf/config.json")), 0);
    assert_as_plain("links");
    assert_int_equal(rename(in_folder("hf"), in_folder("h\xc3\xa9 f [1]*")), 0);
    quip_error error = { 0 };
    const struct convert_options options = { .weights = CONVERT_F32 };
    if (qp_convert(in_folder("h\xc3\xa9 f [1]*"), in_folder("out.bin"), &options, &error))
        fail_msg("%s", error.message);
    assert_int_equal(rename(in_folder("h\xc3\xa9 f [1]*"), in_folder("hf")), 0);
    unlink(in_folder("hf/blobs/0f4a"));
    unlink(in_folder("out.bin"));
    assert_wild_refused("hf/model.safetensors: No such file or directory"); // a link to nothing
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_sample_folder, drop_sample_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_heads),           TEST(test_names),       TEST(test_refused_tensors),
        TEST(test_values),          TEST(test_configs),     TEST(test_files),
        TEST(test_links_and_names), TEST(test_absent_keys), TEST(test_stop_of_tokenizer_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
