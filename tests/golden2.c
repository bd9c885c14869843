/* golden2.c: tiny checkpoints of the newer families have the logits and the greedy continuations
 * of the reference implementation, in both layouts of config.json, as GGUF, and with an adapter.
 * Each detail of a family matters: without it, its golden fails. */
#include "support/golden2.h"
#include "model/model.h"
#include "support/reference_backend.h"
#include "support/wrong_rows.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct fixture fixtures[] = {
    { .name = "qwen2", .has_gguf = true, .has_lora = true },
    { .name = "qwen2-untied" },
    { .name = "qwen3", .has_gguf = true },
    { .name = "llama3", .has_gguf = true, .has_lora = true },
    { .name = "llama-bias" },
    { .name = "mistral" },
    { .name = "smollm3" },
    { .name = "mistral-nemo" },
    { .name = "phi3", .has_gguf = true, .has_long_factors = true, .n_short_context = 48 },
    { .name = "phi4-mini", .has_gguf = true, .has_long_factors = true, .n_short_context = 48 },
    { .name = "olmo2" },
    { .name = "granite" },
    { .name = "stablelm2" },
    { .name = "stablelm2-bias" },
    { .name = "falcon7b" },
    { .name = "gpt2" },
    { .name = "gptneox" },
    { .name = "starcoder2" },
    { .name = "cohere" },
    { .name = "lfm2", .has_gguf = true },
    { .name = "qwen3-moe" },
    { .name = "qwen2-moe" },
    { .name = "gemma4-e2b",
      .tolerance = 5e-4f,
      .has_gguf = true,
      .has_lora = true,
      .no_gpu = "has per-layer embeddings" },
    { .name = "gemma4-dense" },
    { .name = "gemma4-moe" },
};

static void test_fixture(void **state)
{
    const struct fixture *f = *state;
    check_layouts(f);
    quip_model *model = open_fixture(f, LAYOUT_PUBLISHED);
    check_fixture(f, model);
    if (f->has_lora)
        check_fixture_lora(f, model);
    quip_model_close(model);
    check_fixture_int8(f);
    if (f->no_gpu)
        check_fixture_without_gpu(f, f->no_gpu);
    else
        check_fixture_gpu(f);
    model = open_fixture(f, LAYOUT_V5);
    model->backend = &reference_backend;
    check_fixture(f, model);
    quip_model_close(model);
    if (f->has_gguf) {
        model = open_fixture_gguf(f);
        check_fixture_gguf(f, model);
        quip_model_close(model);
    }
}

/* ---- which details the goldens detect ---- */

static void no_rope(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].rope = ROPE_NONE;
}
static void rope_everywhere(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].rope = ROPE_GLOBAL;
}
static void no_divisors(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].divisors[0] = m->config.ropes[ROPE_GLOBAL].divisors[1] = NULL;
}
static void swapped_divisors(quip_model *m)
{
    struct rope *rope = &m->config.ropes[ROPE_GLOBAL];
    const float *first = rope->divisors[0];
    rope->divisors[0] = rope->divisors[1];
    rope->divisors[1] = first;
}
static void no_amplitude(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].amplitude = 1;
}
/* llama3 without interpolation: a frequency is divided by the whole factor, or not at all. */
static void no_smoothing(quip_model *m)
{
    static float divisors[8];
    const float *given = m->config.ropes[ROPE_GLOBAL].divisors[0];
    assert_int_equal(m->config.ropes[ROPE_GLOBAL].dim, 16);
    for (int i = 0; i < 8; i++)
        divisors[i] = given[i] > 1 && given[i] < 7.9f ? 1 : given[i];
    m->config.ropes[ROPE_GLOBAL].divisors[0] = divisors;
}
static void no_window(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].window = 0;
}
static void wider_window(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        if (m->config.layers[l].window)
            m->config.layers[l].window++;
}
static void window_everywhere(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].window = 8;
}
static void no_bias(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        for (int i = 0; i < N_MATRICES; i++)
            m->weights.layers[l].m[i].bias = NULL;
}
static void no_qk_norm(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].q_norm.scale = m->weights.layers[l].k_norm.scale = NULL;
}
static void swapped_gate_up(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++) {
        struct layer_weights *w = &m->weights.layers[l];
        const struct matrix gate = w->m[MATRIX_GATE];
        w->m[MATRIX_GATE] = w->m[MATRIX_UP];
        w->m[MATRIX_UP] = gate;
    }
}

/* ---- Gemma 4 ---- */

static void norm_plus_1(quip_model *m)
{
    m->config.norm = NORM_RMS_PLUS_1;
}
static void no_embed_scale(quip_model *m)
{
    m->config.embed_scale = 1;
}
static void embed_scale_for_head(quip_model *m)
{
    m->config.logits_scale *= m->config.embed_scale;
}
static void no_residual_scale(quip_model *m)
{
    m->config.residual_scale = 1;
}
static void no_query_scale(quip_model *m)
{
    m->config.query_scale = 1 / sqrtf((float)m->config.layers[0].head_dim);
}
static void no_logits_scale(quip_model *m)
{
    m->config.logits_scale = 1;
}
static void whole_rope(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].dim = m->config.layers[0].head_dim;
}
static void norm_of_each_head(quip_model *m)
{
    m->config.qk_norm = QK_NORM_HEADS;
}
static void same_norm_for_all_heads(quip_model *m)
{
    m->config.qk_norm = QK_NORM_HEAD;
}
static void rms_norm(quip_model *m)
{
    m->config.norm = NORM_RMS;
}
static void sequential(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers && !m->config.has_ff_norm; l++)
        m->weights.layers[l].ff_norm = m->weights.layers[l].attn_norm;
    m->config.is_parallel = false;
    m->config.has_ff_norm = true;
}
static void parallel(quip_model *m)
{
    m->config.is_parallel = true;
}
static void one_norm(quip_model *m)
{
    m->config.has_ff_norm = false;
}
static void norm_in_front(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++) {
        struct layer_weights *w = &m->weights.layers[l];
        w->attn_norm = w->attn_post_norm;
        w->ff_norm = w->ff_post_norm;
        w->attn_post_norm.scale = w->ff_post_norm.scale = NULL;
    }
}
static void no_positions(quip_model *m)
{
    m->weights.positions = NULL;
}
static void next_positions(quip_model *m)
{
    m->weights.positions += m->config.d_model;
}
static void no_v_norm(quip_model *m)
{
    m->config.v_norm = false;
}
static void no_layer_scale(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].scale = NULL;
}
static void one_rope_base(quip_model *m)
{
    m->config.ropes[ROPE_GLOBAL].theta = 1e4f;
}
static void no_logits_cap(quip_model *m)
{
    m->config.logits_cap = 0;
}
static void other_gelu(quip_model *m)
{
    m->config.act = m->config.act == ACT_GELU_ERF ? ACT_GELU_TANH : ACT_GELU_ERF;
}
static void no_norm_bias(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].attn_norm.bias = m->weights.layers[l].ff_norm.bias = NULL;
}
/* Partial rotation, of the first dimensions of a head. */
static void partial_rope(quip_model *m)
{
    struct rope *rope = &m->config.ropes[ROPE_GLOBAL];
    rope->dim /= 4;
    rope->divisors[0] = NULL;
}
static void no_ple(quip_model *m)
{
    m->config.d_ple = 0;
}
/* Zeros instead of the table, or instead of the norm of the context. */
static const float zeros[384 * 64];
static void no_ple_of_token(quip_model *m)
{
    assert_true((size_t)m->weights.ple.n_out * (size_t)m->weights.ple.n_in <= QP_COUNT(zeros));
    m->weights.ple.data = zeros;
}
static void no_ple_of_context(quip_model *m)
{
    m->weights.ple_norm.scale = zeros;
}
static void no_token_scale(quip_model *m)
{
    static float table[QP_COUNT(zeros)];
    const float *given = m->weights.ple.data;
    assert_true((size_t)m->weights.ple.n_out * (size_t)m->weights.ple.n_in <= QP_COUNT(table));
    for (int i = 0; i < m->weights.ple.n_out * m->weights.ple.n_in; i++)
        table[i] = given[i] / sqrtf((float)m->config.d_ple);
    m->weights.ple.data = table;
}
static void no_context_scale(quip_model *m)
{
    static float scale[8];
    for (int i = 0; i < m->config.d_ple; i++)
        scale[i] = m->weights.ple_norm.scale[i] * 3;
    m->weights.ple_norm.scale = scale;
}
/* Sharing layers attend to the first layer of their kind, not to the last. */
static void other_shared_keys(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        if (m->config.layers[l].kv_layer != l)
            m->config.layers[l].kv_layer = m->config.layers[l].window ? 0 : 2;
}

static void swapped_gates(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++) {
        struct layer_weights *w = &m->weights.layers[l];
        const struct matrix b = w->m[MATRIX_Q];
        if (m->config.layers[l].mixer != MIXER_CONV)
            continue;
        w->m[MATRIX_Q] = w->m[MATRIX_K];
        w->m[MATRIX_K] = b;
    }
}
static void reversed_kernel(quip_model *m)
{
    static float kernels[8][3 * 32];
    assert_true(m->config.n_layers <= 8 && m->config.conv_width == 3 && m->config.d_model == 32);
    for (int l = 0; l < m->config.n_layers; l++) {
        const float *given = m->weights.layers[l].conv;
        for (int i = 0; given && i < 3 * 32; i++)
            kernels[l][i] = given[(2 - i / 32) * 32 + i % 32];
        m->weights.layers[l].conv = kernels[l];
    }
}
static void other_normalization(quip_model *m)
{
    m->config.experts.is_normalized = !m->config.experts.is_normalized;
}
static void one_expert_less(quip_model *m)
{
    m->config.experts.n_used--;
}
static void no_shared_expert(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->config.layers[l].d_ff = 0;
}
static void no_shared_gate(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].shared_gate = NULL;
}

static void no_expert_scale(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].expert_scale = NULL;
}
static void no_dense_post_norm(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].dense_post_norm.scale = NULL;
}
static void router_reads_the_norm(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].router_norm = m->weights.layers[l].ff_norm;
}
static void experts_read_the_dense_norm(quip_model *m)
{
    for (int l = 0; l < m->config.n_layers; l++)
        m->weights.layers[l].expert_norm.scale = NULL;
}

static const struct detail {
    const char *fixture, *name;
    void (*leave_out)(quip_model *);
} details[] = {
    { "qwen2", "no biases of q, k and v", no_bias },
    { "qwen2", "no rope", no_rope },
    { "qwen2", "a window that is not used", window_everywhere },
    { "qwen2-untied", "no biases of q, k and v", no_bias },
    { "qwen2-untied", "no sliding window", no_window },
    { "qwen2-untied", "window one too wide", wider_window },
    { "qwen3", "no norms of q and k", no_qk_norm },
    { "llama3", "no rope scaling", no_divisors },
    { "llama3", "no smoothing of rope scaling", no_smoothing },
    { "llama-bias", "no biases", no_bias },
    { "mistral", "no sliding window", no_window },
    { "mistral", "window one too wide", wider_window },
    { "smollm3", "rope in every layer", rope_everywhere },
    { "mistral-nemo", "no rope", no_rope },
    { "phi4-mini", "long factors instead of short ones", swapped_divisors },
    { "phi4-mini", "no amplitude", no_amplitude },
    { "phi4-mini", "no rope scaling", no_divisors },
    { "phi4-mini", "gate and up swapped", swapped_gate_up },
    { "phi3", "long factors instead of short ones", swapped_divisors },
    { "phi3", "no amplitude", no_amplitude },
    { "phi3", "no rope scaling", no_divisors },
    { "phi3", "gate and up swapped", swapped_gate_up },
    { "phi3", "no sliding window", no_window },
    { "phi3", "window one too wide", wider_window },
    { "olmo2", "no norms of q and k", no_qk_norm },
    { "olmo2", "a norm of each head of q and k", norm_of_each_head },
    { "olmo2", "norms before the branches", norm_in_front },
    { "olmo2", "no rope", no_rope },
    { "granite", "no scale of embeddings", no_embed_scale },
    { "granite", "no scale of scores", no_query_scale },
    { "granite", "no scale of branches", no_residual_scale },
    { "granite", "no scale of logits", no_logits_scale },
    { "granite", "no rope", no_rope },
    { "stablelm2", "no norms of q and k", no_qk_norm },
    { "stablelm2", "the first head's norm for all heads", same_norm_for_all_heads },
    { "stablelm2", "rms instead of LayerNorm", rms_norm },
    { "stablelm2", "sequential halves", sequential },
    { "stablelm2", "rope on the whole head", whole_rope },
    { "stablelm2-bias", "no biases of q, k and v", no_bias },
    { "stablelm2-bias", "no biases of norms", no_norm_bias },
    { "stablelm2-bias", "parallel halves", parallel },
    { "stablelm2-bias", "rope on the whole head", whole_rope },
    { "falcon7b", "sequential halves", sequential },
    { "falcon7b", "no rope", no_rope },
    { "falcon7b", "other form of GELU", other_gelu },
    { "gpt2", "no positions", no_positions },
    { "gpt2", "positions from 1", next_positions },
    { "gpt2", "other form of GELU", other_gelu },
    { "gpt2", "no biases", no_bias },
    { "gptneox", "sequential halves", sequential },
    { "gptneox", "one norm for both halves", one_norm },
    { "gptneox", "rope on the whole head", whole_rope },
    { "gptneox", "other form of GELU", other_gelu },
    { "gptneox", "no biases", no_bias },
    { "starcoder2", "no biases", no_bias },
    { "starcoder2", "no sliding window", no_window },
    { "starcoder2", "window one too wide", wider_window },
    { "starcoder2", "other form of GELU", other_gelu },
    { "starcoder2", "no rope", no_rope },
    { "cohere", "no scale of logits", no_logits_scale },
    { "cohere", "no norms of q and k", no_qk_norm },
    { "cohere", "the first head's norm for all heads", same_norm_for_all_heads },
    { "cohere", "rms instead of LayerNorm", rms_norm },
    { "cohere", "sequential halves", sequential },
    { "cohere", "no rope", no_rope },
    { "gemma4-moe", "no scale of each expert", no_expert_scale },
    { "gemma4-moe", "no norm of the dense output", no_dense_post_norm },
    { "gemma4-moe", "the router reads the dense norm", router_reads_the_norm },
    { "gemma4-moe", "experts read the dense norm", experts_read_the_dense_norm },
    { "lfm2", "gates swapped", swapped_gates },
    { "lfm2", "kernel reversed", reversed_kernel },
    { "lfm2", "no norms of q and k", no_qk_norm },
    { "lfm2", "no rope", no_rope },
    { "qwen3-moe", "weights of experts not normalized", other_normalization },
    { "qwen3-moe", "one expert less", one_expert_less },
    { "qwen3-moe", "no norms of q and k", no_qk_norm },
    { "qwen3-moe", "no rope", no_rope },
    { "qwen2-moe", "weights of experts normalized", other_normalization },
    { "qwen2-moe", "no shared expert", no_shared_expert },
    { "qwen2-moe", "no gate of the shared expert", no_shared_gate },
    { "qwen2-moe", "no biases of q, k and v", no_bias },
    { "qwen2-moe", "a window that is not used", window_everywhere },
    { "qwen2-moe", "no rope", no_rope },
    { "gemma4-e2b", "norm weight with + 1", norm_plus_1 },
    { "gemma4-e2b", "no embedding scale", no_embed_scale },
    { "gemma4-e2b", "1/sqrt(head_dim) as scale", no_query_scale },
    { "gemma4-e2b", "no norms of q and k", no_qk_norm },
    { "gemma4-e2b", "no norm of values", no_v_norm },
    { "gemma4-e2b", "no scale of layers", no_layer_scale },
    { "gemma4-e2b", "partial instead of proportional rope", partial_rope },
    { "gemma4-e2b", "whole heads rotate", no_divisors },
    { "gemma4-e2b", "one base of rope", one_rope_base },
    { "gemma4-e2b", "no cap on logits", no_logits_cap },
    { "gemma4-e2b", "other form of GELU", other_gelu },
    { "gemma4-e2b", "no rope", no_rope },
    { "gemma4-e2b", "no sliding window", no_window },
    { "gemma4-e2b", "window one too wide", wider_window },
    { "gemma4-e2b", "no per-layer embeddings", no_ple },
    { "gemma4-e2b", "no per-layer embeddings of tokens", no_ple_of_token },
    { "gemma4-e2b", "no context of per-layer embeddings", no_ple_of_context },
    { "gemma4-e2b", "wrong scale of that context", no_context_scale },
    { "gemma4-e2b", "keys shared with another layer", other_shared_keys },
    { "gemma4-dense", "1/sqrt(head_dim) as scale", no_query_scale },
    { "gemma4-dense", "no norm of values", no_v_norm },
    { "gemma4-dense", "no scale of layers", no_layer_scale },
    { "gemma4-dense", "partial instead of proportional rope", partial_rope },
    { "gemma4-dense", "one base of rope", one_rope_base },
    { "gemma4-dense", "no cap on logits", no_logits_cap },
    { "gemma4-dense", "other form of GELU", other_gelu },
    { "gemma4-dense", "window one too wide", wider_window },
    { "qwen2-untied", "no rope", no_rope },
    { "qwen3", "no rope", no_rope },
    { "llama3", "no rope", no_rope },
    { "llama-bias", "no rope", no_rope },
    { "mistral", "no rope", no_rope },
    { "smollm3", "no rope", no_rope },
    { "phi3", "no rope", no_rope },
    { "phi4-mini", "no rope", no_rope },
    { "stablelm2", "no rope", no_rope },
    { "stablelm2-bias", "no rope", no_rope },
    { "gptneox", "no rope", no_rope },
    { "gemma4-dense", "no rope", no_rope },
    { "gemma4-moe", "no rope", no_rope },
    { "gemma4-dense", "norm weight with + 1", norm_plus_1 },
    { "gemma4-dense", "no embedding scale", no_embed_scale },
    { "gemma4-dense", "no norms of q and k", no_qk_norm },
    { "gemma4-dense", "no sliding window", no_window },
    { "gemma4-moe", "norm weight with + 1", norm_plus_1 },
    { "gemma4-moe", "no embedding scale", no_embed_scale },
    { "gemma4-moe", "1/sqrt(head_dim) as scale", no_query_scale },
    { "gemma4-moe", "no norms of q and k", no_qk_norm },
    { "gemma4-moe", "no norm of values", no_v_norm },
    { "gemma4-moe", "no scale of layers", no_layer_scale },
    { "gemma4-moe", "partial instead of proportional rope", partial_rope },
    { "gemma4-moe", "one base of rope", one_rope_base },
    { "gemma4-moe", "no cap on logits", no_logits_cap },
    { "gemma4-moe", "other form of GELU", other_gelu },
    { "gemma4-moe", "no sliding window", no_window },
    { "gemma4-moe", "window one too wide", wider_window },
    { "qwen2", "adjacent pairs turn", take_halves_for_pairs },
    { "qwen2-untied", "adjacent pairs turn", take_halves_for_pairs },
    { "qwen3", "adjacent pairs turn", take_halves_for_pairs },
    { "llama3", "adjacent pairs turn", take_halves_for_pairs },
    { "llama-bias", "adjacent pairs turn", take_halves_for_pairs },
    { "mistral", "adjacent pairs turn", take_halves_for_pairs },
    { "mistral-nemo", "adjacent pairs turn", take_halves_for_pairs },
    { "smollm3", "adjacent pairs turn", take_halves_for_pairs },
    { "phi3", "adjacent pairs turn", take_halves_for_pairs },
    { "phi4-mini", "adjacent pairs turn", take_halves_for_pairs },
    { "gemma4-e2b", "adjacent pairs turn", take_halves_for_pairs },
    { "gemma4-dense", "adjacent pairs turn", take_halves_for_pairs },
    { "gemma4-moe", "adjacent pairs turn", take_halves_for_pairs },
    { "lfm2", "adjacent pairs turn", take_halves_for_pairs },
    { "olmo2", "adjacent pairs turn", take_halves_for_pairs },
    { "granite", "adjacent pairs turn", take_halves_for_pairs },
    { "stablelm2", "adjacent pairs turn", take_halves_for_pairs },
    { "stablelm2-bias", "adjacent pairs turn", take_halves_for_pairs },
    { "falcon7b", "adjacent pairs turn", take_halves_for_pairs },
    { "gptneox", "adjacent pairs turn", take_halves_for_pairs },
    { "starcoder2", "adjacent pairs turn", take_halves_for_pairs },
    { "qwen3-moe", "adjacent pairs turn", take_halves_for_pairs },
    { "qwen2-moe", "adjacent pairs turn", take_halves_for_pairs },
    { "cohere", "adjacent pairs turn", take_halves_for_pairs },
    { "falcon7b", "rows of q behind those of k and v", take_q_for_last },
    { "phi3", "fused rows in groups", take_blocks_for_groups },
    { "phi4-mini", "fused rows in groups", take_blocks_for_groups },
    { "gpt2", "fused columns in groups", take_blocks_for_groups },
    { "gptneox", "fused rows in blocks", take_groups_for_blocks },
    { "gemma4-dense", "values are normed keys", take_normed_keys_for_values },
    { "gemma4-moe", "values are normed keys", take_normed_keys_for_values },
    { "gemma4-moe", "one expert less", one_expert_less },
    { "qwen2-moe", "one expert less", one_expert_less },
    { "gemma4-e2b", "no scale of those of tokens", no_token_scale },
    { "granite", "the head has the scale of embeddings", embed_scale_for_head },
};

static const struct fixture *find_fixture(const char *name)
{
    for (size_t i = 0; i < QP_COUNT(fixtures); i++)
        if (strcmp(fixtures[i].name, name) == 0)
            return &fixtures[i];
    fail_msg("no fixture %s", name);
    return NULL;
}

static void test_every_detail_matters(void **state)
{
    (void)state;
    for (size_t i = 0; i < QP_COUNT(details); i++) {
        const struct fixture *f = find_fixture(details[i].fixture);
        quip_model *model = open_fixture(f, LAYOUT_PUBLISHED);
        details[i].leave_out(model);
        const float worst = fixture_difference(f, model);
        printf("  %-14s %-36s %.4f\n", f->name, details[i].name, (double)worst);
        assert_true(worst > 9 * GOLDEN2_TOLERANCE);
        quip_model_close(model);
    }
}

int main(void)
{
    struct CMUnitTest tests[QP_COUNT(fixtures) + 1];
    for (size_t i = 0; i < QP_COUNT(fixtures); i++)
        tests[i] = (struct CMUnitTest){ .name = fixtures[i].name,
                                        .test_func = test_fixture,
                                        .initial_state = (void *)(uintptr_t)&fixtures[i] };
    tests[QP_COUNT(fixtures)] = (struct CMUnitTest)cmocka_unit_test(test_every_detail_matters);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
