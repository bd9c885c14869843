/* tiny_model.c: writes a model file like the converter's, from sizes and a seed. */
#include "support/tiny_model.h"

#include "format/protobuf.h"
#include "format/tflite_writer.h"
#include "model/families.h"
#include "model/matrix.h"
#include "tokenizer/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct tiny_model tiny_gemma3 = {
    .architecture = "gemma3",
    .attention = DTYPE_I8,
    .feed_forward = DTYPE_I4,
    .embedding = DTYPE_I8,
    .n_layers = 7, // one of them global
    .d_model = 88,
    .d_ff = 150,
    .n_heads = 6,
    .n_kv_heads = 2,
    .head_dim = 20,
    .window = 9,
    .seed = 1,
};
const struct tiny_model tiny_llama = {
    .architecture = "llama",
    .attention = DTYPE_I8,
    .feed_forward = DTYPE_I8,
    .embedding = DTYPE_I8,
    .n_layers = 2,
    .d_model = 70,
    .d_ff = 130,
    .n_heads = 3,
    .n_kv_heads = 1,
    .head_dim = 24,
    .seed = 2,
};
const struct tiny_model tiny_lfm2 = {
    .architecture = "lfm2",
    .attention = DTYPE_I8,
    .feed_forward = DTYPE_I8,
    .embedding = DTYPE_I8,
    .n_layers = 5,
    .d_model = 70,
    .d_ff = 94,
    .n_heads = 3,
    .n_kv_heads = 1,
    .head_dim = 26,
    .seed = 5,
    .layer_types = "CGCGC",
    .conv_width = 4,
};
const struct tiny_model tiny_experts = {
    .architecture = "qwen3moe",
    .attention = DTYPE_I8,
    .feed_forward = DTYPE_I8,
    .embedding = DTYPE_I8,
    .n_layers = 4,
    .d_model = 66,
    .d_ff = 70,
    .n_heads = 4,
    .n_kv_heads = 2,
    .head_dim = 18,
    .seed = 6,
    .ff_types = "EDEE",
    .n_experts = 11,
    .n_experts_used = 3,
    .d_ff_expert = 134,
};
const struct tiny_model tiny_shared_experts = {
    .architecture = "qwen2moe",
    .attention = DTYPE_I8,
    .feed_forward = DTYPE_I8,
    .embedding = DTYPE_I8,
    .n_layers = 3,
    .d_model = 130,
    .d_ff = 38,
    .n_heads = 2,
    .n_kv_heads = 2,
    .head_dim = 30,
    .seed = 7,
    .ff_types = "EED",
    .n_experts = 5,
    .n_experts_used = 2,
    .d_ff_expert = 34,
    .d_ff_shared = 70,
    .has_shared_gate = true,
};
const struct tiny_model tiny_normed_experts = {
    .architecture = "qwen3moe",
    .attention = DTYPE_I8,
    .feed_forward = DTYPE_I4,
    .embedding = DTYPE_I8,
    .n_layers = 2,
    .d_model = 62,
    .d_ff = 46,
    .n_heads = 2,
    .n_kv_heads = 1,
    .head_dim = 22,
    .seed = 8,
    .ff_types = "EE",
    .n_experts = 4,
    .n_experts_used = 4,
    .d_ff_expert = 66,
    .d_ff_shared = 46,
    .has_expert_norms = true,
    .config = "experts_normalized 1\n",
};
const struct tiny_model tiny_gemma4 = {
    .architecture = "gemma4",
    .attention = DTYPE_I8,
    .feed_forward = DTYPE_I4,
    .embedding = DTYPE_I8,
    .n_layers = 7,
    .d_model = 88,
    .d_ff = 150,
    .n_heads = 6,
    .n_kv_heads = 2,
    .head_dim = 20,
    .window = 9,
    .seed = 4,
    .layer_types = "LGLGLLG",
    .global_head_dim = 70,
    .global_kv_heads = 3,
    .n_shared = 3,
    .shared_d_ff = 230,
    .d_ple = 10,
};
const struct tiny_model tiny_smallest = {
    .architecture = "gemma3",
    .attention = DTYPE_I8,
    .feed_forward = DTYPE_I4,
    .embedding = DTYPE_I8,
    .n_layers = 2,
    .d_model = 18,
    .d_ff = 22,
    .n_heads = 2,
    .n_kv_heads = 1,
    .head_dim = 6,
    .window = 5,
    .seed = 3,
    .config = "layer_types LG\n",
};

struct tiny_model tiny_with(struct tiny_model base, enum dtype dtype)
{
    base.attention = base.feed_forward = base.embedding = dtype;
    return base;
}

static uint64_t next_random(uint64_t *state) // xorshift64*
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1du;
}

static float uniform(uint64_t *state) // [-1, 1)
{
    return (float)((double)(next_random(state) >> 11) * 0x1p-52 - 1);
}

/* ---- vocabulary ---- */

static bool write_vocabulary(struct bytes *spm, int n_pieces, int letter_bytes)
{
    static const char *const special[] = { "<pad>", "<eos>", "<bos>", "<unk>", "<turn>", "<end>" };
    static const enum piece_type types[] = {
        PIECE_CONTROL, PIECE_CONTROL,      PIECE_CONTROL,
        PIECE_UNKNOWN, PIECE_USER_DEFINED, PIECE_USER_DEFINED
    };
    static const char *const words[] = { "th", "he",      "\xe2\x96\x81", "\xe2\x96\x81the",
                                         "an", "\xc3\xa9" };
    bool ok = true;
    int id = 0;
    for (; id < 6; id++)
        ok = ok && qp_spm_write_piece(spm, special[id], strlen(special[id]), 0, types[id]);
    for (int byte = 0; byte < 256; byte++, id++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", byte);
        ok = ok && qp_spm_write_piece(spm, piece, strlen(piece), 0, PIECE_BYTE);
    }
    char letters[8192];
    for (char c = 'a'; c <= 'z'; c++, id++) {
        memset(letters, c, sizeof letters);
        ok = ok && qp_spm_write_piece(spm, letters, (size_t)letter_bytes, (float)-id, PIECE_NORMAL);
    }
    for (int i = 0; id < n_pieces; i++, id++) {
        char filler[16];
        snprintf(filler, sizeof filler, "word%d", i);
        const char *piece = i < (int)QP_COUNT(words) ? words[i] : filler;
        ok = ok && qp_spm_write_piece(spm, piece, strlen(piece), (float)-id, PIECE_NORMAL);
    }
    struct spm_options options = { .is_bpe = true,
                                   .byte_fallback = true,
                                   .escape_whitespaces = true,
                                   .vocab_size = n_pieces,
                                   .unk_id = TINY_UNK,
                                   .bos_id = TINY_BOS,
                                   .eos_id = TINY_EOS,
                                   .pad_id = TINY_PAD };
    return ok && qp_spm_write_options(spm, &options);
}

/* ---- metadata ---- */

static int vocab_of(const struct tiny_model *m)
{
    return m->vocab_size ? m->vocab_size : TINY_VOCAB;
}

static bool write_parameters(const struct tiny_model *m, struct bytes *out)
{
    struct bytes t = { 0 };
    float lie;
    uint32_t bits = (uint32_t)m->lie_value;
    memcpy(&lie, &bits, sizeof lie);
    bool ok = qp_proto_put_varint(&t, 3, (uint64_t)m->d_model) &&
              qp_proto_put_varint(&t, 4, (uint64_t)m->d_ff) &&
              qp_proto_put_varint(&t, 5, (uint64_t)m->head_dim) &&
              qp_proto_put_varint(&t, 6, (uint64_t)m->n_heads) &&
              qp_proto_put_varint(&t, 7, (uint64_t)m->n_layers) &&
              qp_proto_put_varint(&t, 9, (uint64_t)m->n_kv_heads) &&
              (!m->lie || m->lie_is_float ||
               qp_proto_put_varint(&t, m->lie, m->lie_value)) && // a reader uses the last one
              (!m->lie || !m->lie_is_float || qp_proto_put_float(&t, m->lie, lie)) &&
              qp_proto_put_bytes(out, 1, t.data, t.n) &&
              qp_proto_put_varint(out, 2, (uint64_t)vocab_of(m)) &&
              qp_proto_put_varint(out, 4, TINY_BOS) && qp_proto_put_bytes(out, 5, "<eos>", 5);
    qp_bytes_close(&t);
    return ok;
}

/* ---- tensors ---- */

struct entry { // one tensor to write
    int index, rows, cols;
    enum dtype dtype;
    int scales;      // index of its scales, or -1
    int multipliers; // of I4_BLOCK, or -1
    float least;     // values are at least this; 0: of either sign
};
struct writer {
    struct tflite_writer *w;
    struct entry entries[256];
    int n;
    quip_status status;
    quip_error *error;
};

static int declare(struct writer *w, const char *name, enum dtype dtype, int rows, int cols)
{
    char full[160];
    int index = -1;
    int64_t dims[2] = { rows, cols };
    snprintf(full, sizeof full, "params.lm.%s", name);
    if (!w->status) // cols == 0 is a vector
        w->status =
            qp_tflite_writer_tensor(w->w, full, dtype, cols ? 2 : 1, dims, &index, w->error);
    return index;
}

static void matrix(struct writer *w, const char *name, enum dtype dtype, int rows, int cols)
{
    char scales[128], multipliers[128];
    const bool is_block = dtype == DTYPE_I4_BLOCK;
    snprintf(scales, sizeof scales, "%s%s", name, is_block ? "_block_scale" : "_quantized_scale");
    snprintf(multipliers, sizeof multipliers, "%s_block_multiplier", name);
    struct entry *e = &w->entries[w->n++];
    *e = (struct entry){
        declare(w, name, is_block ? DTYPE_I4 : dtype, rows, cols), rows, cols, dtype, -1, -1, 0
    };
    if (dtype != DTYPE_F32)
        e->scales = declare(w, scales, DTYPE_F32, rows, 0);
    if (is_block)
        e->multipliers = declare(w, multipliers, DTYPE_I8, rows, (int)qp_multiplier_bytes(cols));
}

static void vector(struct writer *w, const char *name, int n)
{
    w->entries[w->n++] =
        (struct entry){ declare(w, name, DTYPE_F32, n, 0), n, 0, DTYPE_F32, -1, -1, 0 };
}

/* Values from `least` to twice that. */
static void positive_vector(struct writer *w, const char *name, int n, float least)
{
    vector(w, name, n);
    w->entries[w->n - 1].least = least;
}

/* ---- layers of Gemma 4 ---- */

static bool is_global(const struct tiny_model *m, int l)
{
    return m->global_head_dim > 0 && m->layer_types[l] == 'G';
}

static int head_dim_of(const struct tiny_model *m, int l)
{
    return is_global(m, l) ? m->global_head_dim : m->head_dim;
}

static int kv_heads_of(const struct tiny_model *m, int l)
{
    return is_global(m, l) ? m->global_kv_heads : m->n_kv_heads;
}

static bool has_experts(const struct tiny_model *m, int l)
{
    return m->ff_types && m->ff_types[l] == 'E';
}

/* The width of the dense feed-forward of layer l, 0: there is none. */
static int dense_width(const struct tiny_model *m, int l)
{
    return has_experts(m, l) ? m->d_ff_shared : m->d_ff;
}

static int d_ff_of(const struct tiny_model *m, int l)
{
    return l < m->n_layers - m->n_shared ? dense_width(m, l) : m->shared_d_ff;
}

/* The layer whose keys it attends to: the last of its type before those that share. */
static int kv_layer_of(const struct tiny_model *m, int l)
{
    int from = l;
    if (l >= m->n_layers - m->n_shared)
        for (from = m->n_layers - m->n_shared - 1; m->layer_types[from] != m->layer_types[l];)
            from--;
    return from;
}

/* A line of quip.config with a number for each layer. */
static int print_layers(char *to, size_t size, const char *key, const struct tiny_model *m,
                        int (*value)(const struct tiny_model *m, int l))
{
    int n = snprintf(to, size, "%s ", key);
    for (int l = 0; l < m->n_layers; l++)
        n += snprintf(to + n, size - (size_t)n, l ? ",%d" : "%d", value(m, l));
    return n + snprintf(to + n, size - (size_t)n, "\n");
}

static void print_gemma4(char *to, size_t size, const struct tiny_model *m)
{
    int n = snprintf(to, size,
                     "global_v_is_k 1\nd_ple %d\nquery_scale 1\nrope_dim %d\n"
                     "rope_local_dim %d\nrope_divisors 1\n",
                     m->d_ple, m->global_head_dim, m->head_dim);
    n += print_layers(to + n, size - (size_t)n, "head_dims", m, head_dim_of);
    n += print_layers(to + n, size - (size_t)n, "kv_heads", m, kv_heads_of);
    n += print_layers(to + n, size - (size_t)n, "d_ffs", m, d_ff_of);
    print_layers(to + n, size - (size_t)n, "kv_layers", m, kv_layer_of);
}

/* What the family of the model says; a hostile name has that of Llama. */
static const struct traits *traits_of(const struct tiny_model *m)
{
    const struct family *family = qp_family_named(m->architecture);
    return family ? &family->traits : &qp_family_named("llama")->traits;
}

#define NAME(name) (snprintf(s, sizeof s, "transformer.x_layers_%d." name, l), s)

static void declare_attention(struct writer *w, const struct tiny_model *m, int l)
{
    char s[128];
    const bool has_keys = kv_layer_of(m, l) == l;
    const int head_dim = head_dim_of(m, l), q = m->n_heads * head_dim;
    const int kv = kv_heads_of(m, l) * head_dim;
    matrix(w, NAME("self_attention.q.w"), m->attention, q, m->d_model);
    if (has_keys)
        matrix(w, NAME("self_attention.k.w"), m->attention, kv, m->d_model);
    if (has_keys && !is_global(m, l))
        matrix(w, NAME("self_attention.v.w"), m->attention, kv, m->d_model);
    matrix(w, NAME("self_attention.post.w"), m->attention, m->d_model, q);
    if (traits_of(m)->qk_norm != QK_NORM_NONE) {
        vector(w, NAME("self_attention.q_norm.scale"), head_dim);
        if (has_keys)
            vector(w, NAME("self_attention.k_norm.scale"), head_dim);
    }
}

static void declare_conv(struct writer *w, const struct tiny_model *m, int l)
{
    char s[128];
    matrix(w, NAME("conv.b.w"), m->attention, m->d_model, m->d_model);
    matrix(w, NAME("conv.c.w"), m->attention, m->d_model, m->d_model);
    matrix(w, NAME("conv.x.w"), m->attention, m->d_model, m->d_model);
    matrix(w, NAME("conv.kernel"), DTYPE_F32, m->conv_width, m->d_model);
    if (l == 0)
        vector(w, NAME("conv.bias"), m->d_model);
    matrix(w, NAME("conv.out.w"), m->attention, m->d_model, m->d_model);
}

static void declare_experts(struct writer *w, const struct tiny_model *m, int l)
{
    char s[128];
    const int n_ff = m->n_experts * m->d_ff_expert, n_model = m->n_experts * m->d_model;
    matrix(w, NAME("ff_layer.router"), DTYPE_F32, m->n_experts, m->d_model);
    matrix(w, NAME("ff_layer.experts.ffn_layer1_gate.w"), m->feed_forward, n_ff, m->d_model);
    matrix(w, NAME("ff_layer.experts.ffn_layer1.w"), m->feed_forward, n_ff, m->d_model);
    matrix(w, NAME("ff_layer.experts.ffn_layer2.w"), m->feed_forward, n_model, m->d_ff_expert);
    if (m->has_shared_gate)
        vector(w, NAME("ff_layer.shared_gate"), m->d_model);
    if (m->has_expert_norms) {
        vector(w, NAME("ff_layer.router_norm.scale"), m->d_model);
        vector(w, NAME("ff_layer.expert_scale"), m->n_experts);
        vector(w, NAME("ff_layer.expert_pre_norm.scale"), m->d_model);
        vector(w, NAME("ff_layer.expert_post_norm.scale"), m->d_model);
        vector(w, NAME("ff_layer.dense_post_norm.scale"), m->d_model);
    }
}

static void declare_layer(struct writer *w, const struct tiny_model *m, int l)
{
    char s[128];
    const int d_ff = d_ff_of(m, l);
    vector(w, NAME("pre_layer_norm.scale"), m->d_model);
    if (m->layer_types && m->layer_types[l] == 'C')
        declare_conv(w, m, l);
    else
        declare_attention(w, m, l);
    if (traits_of(m)->post_norm) {
        vector(w, NAME("post_layer_norm.scale"), m->d_model);
        vector(w, NAME("ff_layer.post_layer_norm.scale"), m->d_model);
    }
    vector(w, NAME("ff_layer.pre_layer_norm.scale"), m->d_model);
    if (has_experts(m, l))
        declare_experts(w, m, l);
    if (d_ff > 0) {
        matrix(w, NAME("ff_layer.ffn_layer1_gate.w"), m->feed_forward, d_ff, m->d_model);
        matrix(w, NAME("ff_layer.ffn_layer1.w"), m->feed_forward, d_ff, m->d_model);
        matrix(w, NAME("ff_layer.ffn_layer2.w"), m->feed_forward, m->d_model, d_ff);
    }
    if (m->d_ple > 0) {
        matrix(w, NAME("ple.gate.w"), m->embedding, m->d_ple, m->d_model);
        matrix(w, NAME("ple.out.w"), m->embedding, m->d_model, m->d_ple);
        vector(w, NAME("ple.post_norm.scale"), m->d_model);
        positive_vector(w, NAME("layer_scale"), 1, 0.6f);
    }
}
#undef NAME

/* The lines of quip.config. */
static bool write_config(const struct tiny_model *m, struct bytes *out)
{
    bool ok = qp_bytes_printf(out, "architecture %s\nchat none\nn_context_max 2048\nwindow %d\n",
                              m->architecture, m->window);
    if (m->layer_types)
        ok = ok && qp_bytes_printf(out, "layer_types %s\n", m->layer_types);
    if (m->conv_width > 0)
        ok = ok && qp_bytes_printf(out, "conv_width %d\n", m->conv_width);
    if (m->d_ple > 0) {
        char gemma4[512];
        print_gemma4(gemma4, sizeof gemma4, m);
        ok = ok && qp_bytes_printf(out, "%s", gemma4);
    }
    if (m->ff_types)
        ok = ok && qp_bytes_printf(out,
                                   "ff_types %s\nn_experts %d\nn_experts_used %d\nd_ff_expert %d\n"
                                   "has_shared_gate %d\nhas_expert_norms %d\n",
                                   m->ff_types, m->n_experts, m->n_experts_used, m->d_ff_expert,
                                   m->has_shared_gate, m->has_expert_norms);
    for (int l = 0; m->ff_types && l < m->n_layers; l++)
        ok = ok && qp_bytes_printf(out, l == 0 ? "d_ffs %d" : ",%d", dense_width(m, l));
    return ok && qp_bytes_printf(out, "\n%s", m->config ? m->config : "");
}

static void write_multipliers(struct writer *w, const struct entry *e, uint64_t *random)
{
    const size_t n = (size_t)e->rows * qp_multiplier_bytes(e->cols);
    uint8_t *bytes = malloc(n);
    if (!bytes)
        w->status = qp_fail_memory(w->error, "tiny multipliers", n);
    for (size_t i = 0; bytes && i < n; i++)
        bytes[i] = (uint8_t)next_random(random);
    if (!w->status)
        w->status = qp_tflite_writer_write(w->w, e->multipliers, 0, bytes, n, w->error);
    free(bytes);
}

static void write_entry(struct writer *w, const struct entry *e, uint64_t *random)
{
    const size_t n = (size_t)e->rows * (size_t)(e->cols ? e->cols : 1);
    const float spread = e->cols ? 1.7f / sqrtf((float)e->cols) : 0.3f;
    float *floats = calloc(n, sizeof *floats), *scales = calloc((size_t)e->rows, sizeof *scales);
    uint8_t *bytes = calloc(n, 1);
    const bool is_nibbles = e->dtype == DTYPE_I4 || e->dtype == DTYPE_I4_BLOCK;
    const int max = is_nibbles ? 7 : 127;
    if (!floats || !scales || !bytes)
        w->status = qp_fail_memory(w->error, "a tiny tensor", n);
    for (size_t i = 0; !w->status && i < n; i++) {
        const float x = uniform(random);
        const int q = (int)lrintf(x * (float)max);
        floats[i] = e->least > 0 ? e->least * (1 + fabsf(x)) : x * spread;
        if (is_nibbles)
            bytes[i / 2] |= (uint8_t)((q + 8) << (i % 2 * 4));
        else
            bytes[i] = (uint8_t)q;
    }
    for (int r = 0; !w->status && r < e->rows; r++)
        scales[r] = spread / (float)(e->multipliers < 0 ? max : 64) * (1 + 0.2f * uniform(random));
    const size_t n_bytes = e->dtype == DTYPE_F32 ? n * 4 : is_nibbles ? n / 2 : n;
    const void *data = e->dtype == DTYPE_F32 ? (void *)floats : (void *)bytes;
    if (!w->status)
        w->status = qp_tflite_writer_write(w->w, e->index, 0, data, n_bytes, w->error);
    if (!w->status && e->scales >= 0)
        w->status =
            qp_tflite_writer_write(w->w, e->scales, 0, scales, (size_t)e->rows * 4, w->error);
    if (!w->status && e->multipliers >= 0)
        write_multipliers(w, e, random);
    free(floats);
    free(scales);
    free(bytes);
}

quip_status tiny_model_write(const char *path, const struct tiny_model *m, quip_error *error)
{
    struct writer w = { .error = error };
    struct bytes spm = { 0 }, parameters = { 0 }, config = { 0 };
    uint64_t random = m->seed * 0x9e3779b97f4a7c15u + 1;
    const int vocab_size = vocab_of(m);
    if (!write_vocabulary(&spm, m->n_pieces ? m->n_pieces : vocab_size,
                          m->letter_bytes ? m->letter_bytes : 1) ||
        !write_parameters(m, &parameters) || !write_config(m, &config))
        w.status = qp_fail_memory(error, "a tiny vocabulary", spm.n);
    if (!w.status)
        w.status = qp_tflite_writer_open(&w.w, path, "TINY", error);
    if (!w.status)
        w.status = qp_tflite_writer_value(w.w, "odml.infra.LlmModelType", 0, error);
    if (!w.status)
        w.status = qp_tflite_writer_metadata(w.w, "backend", "cpu", 3, error);
    if (!w.status)
        w.status = qp_tflite_writer_metadata(w.w, "spm_vocab_model", spm.data, spm.n, error);
    if (!w.status)
        w.status = qp_tflite_writer_metadata(w.w, "odml.infra.proto.LlmParameters", parameters.data,
                                             parameters.n, error);
    if (!w.status)
        w.status = qp_tflite_writer_metadata(w.w, "quip.config", config.data, config.n, error);
    if (!w.status) {
        matrix(&w, "softmax.logits_ffn.w", m->embedding, vocab_size, m->d_model);
        if (m->d_ple > 0) {
            matrix(&w, "ple.embedding.w", m->embedding, vocab_size * m->n_layers, m->d_ple);
            matrix(&w, "ple.context.w", m->embedding, m->n_layers * m->d_ple, m->d_model);
            vector(&w, "ple.context_norm.scale", m->d_ple);
            positive_vector(&w, "rope.divisors", m->global_head_dim / 2, 1);
        }
        for (int l = 0; l < m->n_layers; l++)
            declare_layer(&w, m, l);
        vector(&w, "final_ln.scale", m->d_model);
    }
    if (!w.status)
        w.status = qp_tflite_writer_begin(w.w, error);
    for (int i = 0; i < w.n && !w.status; i++)
        write_entry(&w, &w.entries[i], &random);
    if (!w.status)
        w.status = qp_tflite_writer_commit(w.w, error);
    qp_tflite_writer_close(w.w);
    qp_bytes_close(&spm);
    qp_bytes_close(&parameters);
    qp_bytes_close(&config);
    return w.status;
}
