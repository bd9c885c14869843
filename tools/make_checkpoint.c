/* make_checkpoint.c: a Hugging Face checkpoint with the dimensions of a real model, or with any
 * others, and meaningless weights, to measure what conversion and inference cost. It is one file:
 *
 *     cc -O2 -o make_checkpoint tools/make_checkpoint.c
 *     ./make_checkpoint phi2 family=phi random=1
 *     ./make_checkpoint big layers=32 d_model=4096 d_ff=14336 heads=32 kv_heads=8 vocab=128000
 *     /usr/bin/time -v quip convert big big.bin
 *
 * It writes config.json, model.safetensors (float16) and a tokenizer.model that has only bytes. The
 * weights are zeros, as a hole in the file that needs no disk space. With random=1 they are noise.
 * The noise of a tensor depends on its name and size, so a checkpoint with fewer layers has the
 * first layers of a larger one, and with faint layers it is a draft model for that:
 *
 *     ./make_checkpoint large layers=24 faint_from=1 faint_by=5 random=1
 *     ./make_checkpoint draft layers=1 random=1
 */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- model families ---- */

enum {
    LAYERS,
    D_MODEL,
    D_FF,
    HEADS,
    KV_HEADS,
    HEAD_DIM,
    VOCAB,
    EXPERTS,
    EXPERTS_USED,
    /* Gemma 4: 0 in other families. */
    GLOBAL_EVERY,    // every such layer is global
    GLOBAL_HEAD_DIM, // of these layers
    SHARED_LAYERS,   // the last ones, whose feed-forward is twice as wide
    D_PLE,           // width of the per-layer embeddings
    RANDOM,
    FAINT_FROM, // with random=1: layers from this one on change little, by 2^-faint_by;
    FAINT_BY,   // 0: no layer does
    N_SETTINGS
};
static const char *const names[N_SETTINGS] = {
    "layers", "d_model", "d_ff",         "heads",        "kv_heads",        "head_dim",
    "vocab",  "experts", "experts_used", "global_every", "global_head_dim", "shared_layers",
    "d_ple",  "random",  "faint_from",   "faint_by"
};

/* A size is a letter: d_model, d_ff, q (heads * head_dim), k (kv_heads * head_dim), three times q,
 * s (q and twice k), vocab, two times d_ff, head_dim, p (d_ple), l (layers * d_ple), one, x
 * (experts), g and m (the rows of all experts' gate and up, and of their down); 0 is a
 * vector. In names, %d is the layer. */
struct tensor {
    const char *name;
    char rows, cols;
};
#define LAYER "model.layers.%d."
#define FALCON "transformer.h.%d."

static const struct tensor llama_tensors[] = {
    { "model.embed_tokens.weight", 'v', 'd' },
    { LAYER "input_layernorm.weight", 'd', 0 },
    { LAYER "self_attn.q_proj.weight", 'q', 'd' },
    { LAYER "self_attn.k_proj.weight", 'k', 'd' },
    { LAYER "self_attn.v_proj.weight", 'k', 'd' },
    { LAYER "self_attn.o_proj.weight", 'd', 'q' },
    { LAYER "post_attention_layernorm.weight", 'd', 0 },
    { LAYER "mlp.gate_proj.weight", 'f', 'd' },
    { LAYER "mlp.up_proj.weight", 'f', 'd' },
    { LAYER "mlp.down_proj.weight", 'd', 'f' },
    { "model.norm.weight", 'd', 0 },
    { "lm_head.weight", 'v', 'd' }, // last: a tied model omits it
    { 0 },
};
static const struct tensor stablelm_tensors[] = {
    { "model.embed_tokens.weight", 'v', 'd' },
    { LAYER "input_layernorm.weight", 'd', 0 },
    { LAYER "input_layernorm.bias", 'd', 0 },
    { LAYER "self_attn.q_proj.weight", 'q', 'd' },
    { LAYER "self_attn.k_proj.weight", 'k', 'd' },
    { LAYER "self_attn.v_proj.weight", 'k', 'd' },
    { LAYER "self_attn.o_proj.weight", 'd', 'q' },
    { LAYER "post_attention_layernorm.weight", 'd', 0 },
    { LAYER "post_attention_layernorm.bias", 'd', 0 },
    { LAYER "mlp.gate_proj.weight", 'f', 'd' },
    { LAYER "mlp.up_proj.weight", 'f', 'd' },
    { LAYER "mlp.down_proj.weight", 'd', 'f' },
    { "model.norm.weight", 'd', 0 },
    { "model.norm.bias", 'd', 0 },
    { "lm_head.weight", 'v', 'd' },
    { 0 },
};
static const struct tensor phi_tensors[] = {
    { "model.embed_tokens.weight", 'v', 'd' },
    { LAYER "input_layernorm.weight", 'd', 0 },
    { LAYER "input_layernorm.bias", 'd', 0 },
    { LAYER "self_attn.q_proj.weight", 'q', 'd' },
    { LAYER "self_attn.q_proj.bias", 'q', 0 },
    { LAYER "self_attn.k_proj.weight", 'k', 'd' },
    { LAYER "self_attn.k_proj.bias", 'k', 0 },
    { LAYER "self_attn.v_proj.weight", 'k', 'd' },
    { LAYER "self_attn.v_proj.bias", 'k', 0 },
    { LAYER "self_attn.dense.weight", 'd', 'q' },
    { LAYER "self_attn.dense.bias", 'd', 0 },
    { LAYER "mlp.fc1.weight", 'f', 'd' },
    { LAYER "mlp.fc1.bias", 'f', 0 },
    { LAYER "mlp.fc2.weight", 'd', 'f' },
    { LAYER "mlp.fc2.bias", 'd', 0 },
    { "model.final_layernorm.weight", 'd', 0 },
    { "model.final_layernorm.bias", 'd', 0 },
    { "lm_head.bias", 'v', 0 },
    { "lm_head.weight", 'v', 'd' },
    { 0 },
};
static const struct tensor falcon_tensors[] = {
    { "transformer.word_embeddings.weight", 'v', 'd' },
    { FALCON "input_layernorm.weight", 'd', 0 },
    { FALCON "input_layernorm.bias", 'd', 0 },
    { FALCON "self_attention.query_key_value.weight", '3', 'd' },
    { FALCON "self_attention.query_key_value.bias", '3', 0 },
    { FALCON "self_attention.dense.weight", 'd', 'q' },
    { FALCON "self_attention.dense.bias", 'd', 0 },
    { FALCON "post_attention_layernorm.weight", 'd', 0 },
    { FALCON "post_attention_layernorm.bias", 'd', 0 },
    { FALCON "mlp.dense_h_to_4h.weight", 'f', 'd' },
    { FALCON "mlp.dense_h_to_4h.bias", 'f', 0 },
    { FALCON "mlp.dense_4h_to_h.weight", 'd', 'f' },
    { FALCON "mlp.dense_4h_to_h.bias", 'd', 0 },
    { "transformer.ln_f.weight", 'd', 0 },
    { "transformer.ln_f.bias", 'd', 0 },
    { "lm_head.weight", 'v', 'd' },
    { 0 },
};

/* d_ff is the width of an expert. */
static const struct tensor qwen3_moe_tensors[] = {
    { "model.embed_tokens.weight", 'v', 'd' },
    { LAYER "input_layernorm.weight", 'd', 0 },
    { LAYER "self_attn.q_proj.weight", 'q', 'd' },
    { LAYER "self_attn.k_proj.weight", 'k', 'd' },
    { LAYER "self_attn.v_proj.weight", 'k', 'd' },
    { LAYER "self_attn.q_norm.weight", 'h', 0 },
    { LAYER "self_attn.k_norm.weight", 'h', 0 },
    { LAYER "self_attn.o_proj.weight", 'd', 'q' },
    { LAYER "post_attention_layernorm.weight", 'd', 0 },
    { LAYER "mlp.gate.weight", 'x', 'd' },
    { LAYER "mlp.experts.gate_up_proj", 'g', 'd' },
    { LAYER "mlp.experts.down_proj", 'm', 'f' },
    { "model.norm.weight", 'd', 0 },
    { "lm_head.weight", 'v', 'd' },
    { 0 },
};

static const struct tensor gemma4_tensors[] = {
    { "model.embed_tokens.weight", 'v', 'd' },
    { "model.embed_tokens_per_layer.weight", 'v', 'l' },
    { "model.per_layer_model_projection.weight", 'l', 'd' },
    { "model.per_layer_projection_norm.weight", 'p', 0 },
    { LAYER "input_layernorm.weight", 'd', 0 },
    { LAYER "self_attn.q_proj.weight", 'q', 'd' },
    { LAYER "self_attn.k_proj.weight", 'k', 'd' },
    { LAYER "self_attn.v_proj.weight", 'k', 'd' },
    { LAYER "self_attn.q_norm.weight", 'h', 0 },
    { LAYER "self_attn.k_norm.weight", 'h', 0 },
    { LAYER "self_attn.o_proj.weight", 'd', 'q' },
    { LAYER "post_attention_layernorm.weight", 'd', 0 },
    { LAYER "pre_feedforward_layernorm.weight", 'd', 0 },
    { LAYER "mlp.gate_proj.weight", 'f', 'd' },
    { LAYER "mlp.up_proj.weight", 'f', 'd' },
    { LAYER "mlp.down_proj.weight", 'd', 'f' },
    { LAYER "post_feedforward_layernorm.weight", 'd', 0 },
    { LAYER "per_layer_input_gate.weight", 'p', 'd' },
    { LAYER "per_layer_projection.weight", 'd', 'p' },
    { LAYER "post_per_layer_input_norm.weight", 'd', 0 },
    { LAYER "layer_scalar", '1', 0 },
    { "model.norm.weight", 'd', 0 },
    { 0 },
};
static const struct tensor gemma3_tensors[] = {
    { "model.embed_tokens.weight", 'v', 'd' },
    { LAYER "input_layernorm.weight", 'd', 0 },
    { LAYER "self_attn.q_proj.weight", 'q', 'd' },
    { LAYER "self_attn.k_proj.weight", 'k', 'd' },
    { LAYER "self_attn.v_proj.weight", 'k', 'd' },
    { LAYER "self_attn.q_norm.weight", 'h', 0 },
    { LAYER "self_attn.k_norm.weight", 'h', 0 },
    { LAYER "self_attn.o_proj.weight", 'd', 'q' },
    { LAYER "post_attention_layernorm.weight", 'd', 0 },
    { LAYER "pre_feedforward_layernorm.weight", 'd', 0 },
    { LAYER "mlp.gate_proj.weight", 'f', 'd' },
    { LAYER "mlp.up_proj.weight", 'f', 'd' },
    { LAYER "mlp.down_proj.weight", 'd', 'f' },
    { LAYER "post_feedforward_layernorm.weight", 'd', 0 },
    { "model.norm.weight", 'd', 0 },
    { 0 },
};
static const struct tensor phi3_tensors[] = {
    { "model.embed_tokens.weight", 'v', 'd' },
    { LAYER "input_layernorm.weight", 'd', 0 },
    { LAYER "self_attn.qkv_proj.weight", 's', 'd' },
    { LAYER "self_attn.o_proj.weight", 'd', 'q' },
    { LAYER "post_attention_layernorm.weight", 'd', 0 },
    { LAYER "mlp.gate_up_proj.weight", '2', 'd' },
    { LAYER "mlp.down_proj.weight", 'd', 'f' },
    { "model.norm.weight", 'd', 0 },
    { 0 },
};

#define FACTORS_8 "1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0"
#define FACTORS_48                                                                                 \
    FACTORS_8 ", " FACTORS_8 ", " FACTORS_8 ", " FACTORS_8 ", " FACTORS_8 ", " FACTORS_8

struct family {
    const char *name; // model_type in config.json
    const struct tensor *tensors;
    int is_tied;
    long sizes[RANDOM];
    const char *config; // lines of config.json that only this family has
};
static const struct family families[] = {
    { "llama",
      llama_tensors,
      0,
      { 16, 2048, 8192, 32, 8, 64, 128000 },
      "\"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-05, \"rope_theta\": 500000.0,\n"
      " \"max_position_embeddings\": 8192" },
    { "gemma",
      llama_tensors,
      1,
      { 18, 2048, 16384, 8, 1, 256, 256000 }, // 2B
      "\"hidden_activation\": \"gelu_pytorch_tanh\", \"rms_norm_eps\": 1e-06,\n"
      " \"rope_theta\": 10000.0, \"max_position_embeddings\": 8192" },
    { "phi",
      phi_tensors,
      0,
      { 32, 2560, 10240, 32, 32, 80, 51200 }, // Phi-2
      "\"hidden_act\": \"gelu_new\", \"layer_norm_eps\": 1e-05, \"rope_theta\": 10000.0,\n"
      " \"partial_rotary_factor\": 0.4, \"max_position_embeddings\": 2048" },
    { "falcon",
      falcon_tensors,
      1,
      { 24, 2048, 8192, 32, 32, 64, 50304 }, // RW-1B
      "\"activation\": \"gelu\", \"layer_norm_epsilon\": 1e-05, \"alibi\": true, \"bias\": true,\n"
      " \"multi_query\": false, \"parallel_attn\": false, \"new_decoder_architecture\": false,\n"
      " \"max_position_embeddings\": 2048" },
    { "stablelm",
      stablelm_tensors,
      0,
      { 32, 2560, 6912, 32, 32, 80, 50304 }, // 3B-4E1T
      "\"hidden_act\": \"silu\", \"layer_norm_eps\": 1e-05, \"rope_theta\": 10000.0,\n"
      " \"partial_rotary_factor\": 0.25, \"max_position_embeddings\": 4096" },
    { "qwen3_moe",
      qwen3_moe_tensors,
      0,
      { 48, 2048, 768, 32, 4, 128, 151936, 128, 8 }, // 30B-A3B
      "\"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0,\n"
      " \"norm_topk_prob\": true, \"max_position_embeddings\": 40960" },
    { "gemma3_text",
      gemma3_tensors,
      1,
      { 18, 640, 2048, 4, 1, 256, 262144 }, // 270M
      "\"hidden_activation\": \"gelu_pytorch_tanh\", \"rms_norm_eps\": 1e-06,\n"
      " \"sliding_window\": 512, \"sliding_window_pattern\": 6, \"query_pre_attn_scalar\": 256,\n"
      " \"rope_theta\": 1000000.0, \"rope_local_base_freq\": 10000.0,\n"
      " \"max_position_embeddings\": 32768" },
    { "gemma4_text",
      gemma4_tensors,
      1,
      { 35, 1536, 6144, 8, 1, 256, 262144, 0, 0, 5, 512, 20, 256 }, // E2B
      "\"hidden_activation\": \"gelu_pytorch_tanh\", \"rms_norm_eps\": 1e-06,\n"
      " \"sliding_window\": 512, \"use_double_wide_mlp\": true, \"attention_k_eq_v\": false,\n"
      " \"final_logit_softcapping\": 30.0, \"max_position_embeddings\": 131072,\n"
      " \"rope_parameters\": {\"full_attention\": {\"rope_type\": \"proportional\",\n"
      " \"partial_rotary_factor\": 0.25, \"rope_theta\": 1000000.0},\n"
      " \"sliding_attention\": {\"rope_type\": \"default\", \"rope_theta\": 10000.0}}" },
    { "phi3",
      phi3_tensors,
      1,
      { 32, 3072, 8192, 24, 8, 128, 200064 }, // Phi-4-mini
      "\"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0,\n"
      " \"partial_rotary_factor\": 0.75, \"max_position_embeddings\": 131072,\n"
      " \"original_max_position_embeddings\": 4096, \"sliding_window\": 262144,\n"
      " \"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [" FACTORS_48 "],\n"
      " \"long_factor\": [" FACTORS_48 "]}" },
};
enum {
    N_FAMILIES = sizeof families / sizeof families[0]
};

static const struct family *family = &families[0];
static long settings[N_SETTINGS];

static int is_global(long layer)
{
    return settings[GLOBAL_EVERY] > 0 && (layer + 1) % settings[GLOBAL_EVERY] == 0;
}

/* In a layer; it does not matter which one for tensors of the model. */
static long size_of(char letter, long layer)
{
    const long head_dim = is_global(layer) ? settings[GLOBAL_HEAD_DIM] : settings[HEAD_DIM];
    const long q = settings[HEADS] * head_dim, k = settings[KV_HEADS] * head_dim;
    const int is_shared = layer >= settings[LAYERS] - settings[SHARED_LAYERS];
    switch (letter) {
    case 'd':
        return settings[D_MODEL];
    case 'f':
        return settings[D_FF] * (is_shared ? 2 : 1);
    case '2':
        return 2 * settings[D_FF];
    case 'q':
        return q;
    case '3':
        return 3 * q;
    case 'k':
        return k;
    case 's':
        return q + 2 * k;
    case 'h':
        return head_dim;
    case 'v':
        return settings[VOCAB];
    case 'x':
        return settings[EXPERTS];
    case 'g':
        return settings[EXPERTS] * 2 * settings[D_FF];
    case 'm':
        return settings[EXPERTS] * settings[D_MODEL];
    case 'p':
        return settings[D_PLE];
    case 'l':
        return settings[LAYERS] * settings[D_PLE];
    default:
        return 1;
    }
}

/* ---- files ---- */

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static FILE *create(const char *folder, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f)
        die(path);
    return f;
}

static void finish(FILE *f, const char *name)
{
    if (ferror(f) || fclose(f))
        die(name);
}

static void write_config(const char *folder)
{
    FILE *f = create(folder, "config.json");
    fprintf(
        f,
        "{\"model_type\": \"%s\", \"torch_dtype\": \"float16\", \"tie_word_embeddings\": %s,\n"
        " \"num_hidden_layers\": %ld, \"hidden_size\": %ld, \"intermediate_size\": %ld,\n"
        " \"ffn_hidden_size\": %ld, \"num_attention_heads\": %ld, \"num_key_value_heads\": %ld,\n"
        " \"head_dim\": %ld, \"vocab_size\": %ld, \"bos_token_id\": 1, \"eos_token_id\": 2,\n"
        " \"moe_intermediate_size\": %ld, \"num_experts\": %ld, \"num_experts_per_tok\": %ld,\n"
        " %s",
        family->name, family->is_tied ? "true" : "false", settings[LAYERS], settings[D_MODEL],
        settings[D_FF], settings[D_FF], settings[HEADS], settings[KV_HEADS], settings[HEAD_DIM],
        settings[VOCAB], settings[D_FF], settings[EXPERTS], settings[EXPERTS_USED], family->config);
    if (settings[GLOBAL_EVERY]) {
        fprintf(f,
                ",\n \"global_head_dim\": %ld, \"num_kv_shared_layers\": %ld,\n"
                " \"hidden_size_per_layer_input\": %ld, \"vocab_size_per_layer_input\": %ld,\n"
                " \"layer_types\": [",
                settings[GLOBAL_HEAD_DIM], settings[SHARED_LAYERS], settings[D_PLE],
                settings[VOCAB]);
        for (long l = 0; l < settings[LAYERS]; l++)
            fprintf(f, "%s\"%s_attention\"", l ? ", " : "", is_global(l) ? "full" : "sliding");
        fputc(']', f);
    }
    fputs("}\n", f);
    finish(f, "config.json");
}

/* ---- tokenizer.model: <unk>, <s>, </s> and the 256 bytes ---- */

/* ModelProto.pieces: 1 piece, 3 type. Texts are short, so every length is one byte. */
static void put_piece(FILE *f, const char *text, int type)
{
    int n = (int)strlen(text);
    fputc(0x0a, f);
    fputc(n + 4, f);
    fputc(0x0a, f);
    fputc(n, f);
    fputs(text, f);
    fputc(0x18, f);
    fputc(type, f);
}

static void write_tokenizer(const char *folder)
{
    // trainer_spec: model_type = BPE, byte_fallback; normalizer_spec: no dummy prefix, no trimming
    static const unsigned char options[] = { 0x12, 5, 0x18, 2, 0x98, 0x02, 1,
                                             0x1a, 4, 0x18, 0, 0x20, 0 };
    FILE *f = create(folder, "tokenizer.model");
    put_piece(f, "<unk>", 2);
    put_piece(f, "<s>", 3);
    put_piece(f, "</s>", 3);
    for (int i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        put_piece(f, text, 6);
    }
    fwrite(options, 1, sizeof options, f);
    finish(f, "tokenizer.model");
}

/* ---- model.safetensors ---- */

/* Calls fn for every tensor, in the order of the file. */
typedef void on_tensor(void *user, const char *name, const struct tensor *t, long layer);
static void each_tensor(on_tensor *fn, void *user)
{
    const struct tensor *t = family->tensors;
    for (const struct tensor *end; t->name; t = end) {
        char name[120];
        const int is_layered = strchr(t->name, '%') != NULL;
        for (end = t + 1; is_layered && end->name && strchr(end->name, '%');)
            end++;
        if (family->is_tied && strcmp(t->name, "lm_head.weight") == 0)
            continue;
        for (int l = 0; l < (is_layered ? settings[LAYERS] : 1); l++)
            for (const struct tensor *i = t; i < end; i++) {
                snprintf(name, sizeof name, i->name, l);
                fn(user, name, i, l);
            }
    }
}

static uint64_t n_elements(const struct tensor *t, long layer)
{
    return (uint64_t)size_of(t->rows, layer) * (uint64_t)size_of(t->cols, layer);
}

struct header {
    char *text;
    size_t n, capacity;
    uint64_t n_bytes; // of tensors so far
};

static void put_tensor(void *user, const char *name, const struct tensor *t, long layer)
{
    struct header *h = user;
    if (h->capacity - h->n < 256) {
        h->capacity = h->capacity * 2 + 4096;
        h->text = realloc(h->text, h->capacity);
        if (!h->text)
            die("memory");
    }
    char shape[64];
    uint64_t begin = h->n_bytes;
    h->n_bytes += 2 * n_elements(t, layer);
    snprintf(shape, sizeof shape, t->cols ? "%ld, %ld" : "%ld", size_of(t->rows, layer),
             size_of(t->cols, layer));
    h->n += (size_t)snprintf(h->text + h->n, h->capacity - h->n,
                             "%c\"%s\":{\"dtype\":\"F16\",\"shape\":[%s],\"data_offsets\":[%llu,"
                             "%llu]}",
                             h->n ? ',' : '{', name, shape, (unsigned long long)begin,
                             (unsigned long long)h->n_bytes);
}

/* float16 numbers of either sign, 2^-7 to 2^-5 in magnitude, times 2^-faint, from xorshift64, four
 * at a time. */
static void fill_noise(uint64_t *state, uint64_t *block, size_t n, long faint)
{
    for (size_t i = 0; i < n; i++) {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        block[i] = (*state & 0x87ff87ff87ff87ffu) | 0x2000200020002000u;
        block[i] -= (uint64_t)faint * 0x0400040004000400u; // of the exponents
    }
}

/* FNV-1a. */
static uint64_t hash(const char *text)
{
    uint64_t h = 14695981039346656037u;
    for (; *text; text++)
        h = (h ^ (unsigned char)*text) * 1099511628211u;
    return h;
}

/* What a layer adds to the residual stream comes from these. */
static long faintness(const char *name, long layer)
{
    const int is_output = strstr(name, "o_proj.") || strstr(name, "down_proj.");
    return is_output && layer >= settings[FAINT_FROM] ? settings[FAINT_BY] : 0;
}

/* Noise, and ones for the scales of norms, so that activations keep their size. */
static void write_values(void *user, const char *name, const struct tensor *t, long layer)
{
    FILE *f = user;
    static uint64_t block[1 << 14];
    uint64_t state = hash(name);
    const int is_scale = !t->cols && !strstr(name, ".bias") && strcmp(family->name, "gemma") != 0;
    for (uint64_t left = 2 * n_elements(t, layer); left > 0;) {
        size_t n = left < sizeof block ? (size_t)left : sizeof block;
        fill_noise(&state, block, (n + 7) / 8, faintness(name, layer));
        for (size_t i = 0; is_scale && i < (n + 7) / 8; i++)
            block[i] = 0x3c003c003c003c00u;
        if (fwrite(block, 1, n, f) != n)
            die("model.safetensors");
        left -= n;
    }
}

static void write_weights(const char *folder)
{
    struct header h = { 0 };
    FILE *f = create(folder, "model.safetensors");
    each_tensor(put_tensor, &h);
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)((uint64_t)(h.n + 1) >> 8 * i);
    fwrite(length, 1, sizeof length, f);
    fwrite(h.text, 1, h.n, f);
    fputc('}', f);
    if (settings[RANDOM])
        each_tensor(write_values, f);
    else if (fflush(f) || ftruncate(fileno(f), (off_t)(9 + h.n + h.n_bytes)))
        die("model.safetensors");
    finish(f, "model.safetensors");
    printf("%s: %.2f billion parameters, %.2f GB\n", folder, (double)h.n_bytes / 2e9,
           (double)h.n_bytes / 1e9);
    free(h.text);
}

/* ---- the command line ---- */

static int set_family(const char *name)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i].name, name) == 0) {
            family = &families[i];
            memcpy(settings, family->sizes, sizeof family->sizes);
            return 1;
        }
    return 0;
}

/* "name=value" */
static int set(const char *word)
{
    if (strncmp(word, "family=", 7) == 0)
        return set_family(word + 7);
    for (int i = 0; i < N_SETTINGS; i++) {
        size_t n = strlen(names[i]);
        if (strncmp(word, names[i], n) == 0 && word[n] == '=') {
            settings[i] = strtol(word + n + 1, NULL, 10);
            return settings[i] >= 0 && settings[i] < 1 << 24 && settings[FAINT_BY] < 8;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    set_family("llama");
    for (int i = 2; i < argc; i++)
        if (!set(argv[i])) {
            fprintf(stderr, "unexpected argument \"%s\"\n", argv[i]);
            argc = 0;
        }
    if (argc < 2) {
        fprintf(stderr, "usage: make_checkpoint FOLDER [family=");
        for (int i = 0; i < N_FAMILIES; i++)
            fprintf(stderr, i ? "|%s" : "%s", families[i].name);
        fprintf(stderr, "]");
        for (int i = 0; i < N_SETTINGS; i++)
            fprintf(stderr, " [%s=%ld]", names[i], settings[i]);
        fprintf(stderr, "\nA family sets the sizes of its model; put other sizes after it.\n");
        return 2;
    }
    mkdir(argv[1], 0777); // an existing folder is fine
    write_config(argv[1]);
    write_tokenizer(argv[1]);
    write_weights(argv[1]);
    return 0;
}
