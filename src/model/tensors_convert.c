/* tensors_convert.c: the tensors of a model file, and what checkpoints call them. */
#include "model/families_convert.h"

#include <assert.h>
#include <string.h>

/* In the order in which the tensors are used. Targets lack their common "params.lm.". */
// clang-format off

/* A norm: its weights, and its bias if norms have one. */
#define NORM(namings, needs, target, hf, gguf, size) \
    { namings, needs, target ".scale", hf ".weight", gguf ".weight", \
      CLASS_NORM, size, EXTENT_NONE, false, PART_ALL }, \
    { namings, (needs) | IF_NORM_BIAS, target ".bias", hf ".bias", gguf ".bias", \
      CLASS_NORM, size, EXTENT_NONE, false, PART_ALL }
/* A norm of q or k, which has no bias. */
#define QK_NORM(namings, needs, target, hf, gguf, size) \
    { namings, (needs) | IF_ATTENTION, target ".scale", hf ".weight", gguf ".weight", \
      CLASS_NORM, size, EXTENT_NONE, true, PART_ALL }
/* A matrix, and its bias if it has one; some of MediaPipe's families write ".linear.w". */
#define MATRIX_AS(suffix, namings, needs, bias, target, hf, gguf, class, rows, cols, rope, part) \
    { namings, needs, target suffix, hf ".weight", gguf ".weight", class, rows, cols, rope, part }, \
    { namings, (needs) | (bias), target ".bias.b", hf ".bias", gguf ".bias", \
      CLASS_BIAS, rows, EXTENT_NONE, rope, part }
#define MATRIX(...) MATRIX_AS(".w", __VA_ARGS__)
#define LINEAR(...) MATRIX_AS(".linear.w", __VA_ARGS__)
#define EMBEDDING(namings, needs, target, hf, gguf) \
    { namings, needs, target, hf, gguf, \
      CLASS_EMBEDDING, EXTENT_VOCAB, EXTENT_MODEL, false, PART_ALL }

/* Rows of q, k or v in the one tensor that llama.cpp's converter makes of them with --fuse-qkv.
 * Checkpoints of Hugging Face that have one call it differently. */
#define FUSED(needs, target, rows, rope, part) \
    { NAMES_LLAMA | NAMES_BERT, needs, LAYER(target) ".w", NULL, GGUF("attn_qkv") ".weight", \
      CLASS_ATTENTION, rows, EXTENT_MODEL, rope, part }, \
    { NAMES_LLAMA | NAMES_BERT, (needs) | IF_QKV_BIAS, LAYER(target) ".bias.b", NULL, GGUF("attn_qkv") ".bias", \
      CLASS_BIAS, rows, EXTENT_NONE, rope, part }

/* A matrix of per-layer embeddings. */
#define PLE(target, hf, gguf, rows, cols) \
    { NAMES_LLAMA, IF_PLE, target ".w", hf ".weight", gguf ".weight", \
      CLASS_EMBEDDING, rows, cols, false, PART_ALL }

#define LAYER(target) LAYER_MEDIAPIPE target
#define HF(name) LAYER_HF name
#define GPT(name) LAYER_HF_GPT name
#define NEOX(name) LAYER_HF_NEOX name
#define GGUF(name) LAYER_GGUF name
#define NORMED (NAMES_LLAMA | NAMES_PHI)

#define BERT(name) "encoder.layer.%d." name
/* A norm under its new and its old name. */
#define BERT_NORM(target, hf, gguf) \
    NORM(NAMES_BERT, 0, target, hf, gguf, EXTENT_MODEL), \
    { NAMES_BERT, 0, target ".scale", hf ".gamma", NULL, CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, false, PART_ALL }, \
    { NAMES_BERT, 0, target ".bias", hf ".beta", NULL, CLASS_NORM, EXTENT_MODEL, EXTENT_NONE, false, PART_ALL }

const struct tensor_row qp_tensor_rows[] = {
    EMBEDDING(NAMES_LLAMA, IF_TIED, "softmax.logits_ffn.w", "model.embed_tokens.weight", "token_embd.weight"),
    EMBEDDING(NAMES_PHI, IF_TIED, "softmax.logits_ffn.linear.w", "model.embed_tokens.weight", "token_embd.weight"),
    EMBEDDING(NORMED, IF_UNTIED, "token_embedding.w", "model.embed_tokens.weight", "token_embd.weight"),
    EMBEDDING(NAMES_FALCON, 0, "token_embedding.w", "transformer.word_embeddings.weight", "token_embd.weight"),
    EMBEDDING(NAMES_GPT2, IF_TIED, "softmax.logits_ffn.w", "transformer.wte.weight", "token_embd.weight"),
    EMBEDDING(NAMES_GPT2, IF_UNTIED, "token_embedding.w", "transformer.wte.weight", "token_embd.weight"),
    EMBEDDING(NAMES_NEOX, IF_TIED, "softmax.logits_ffn.w", "gpt_neox.embed_in.weight", "token_embd.weight"),
    EMBEDDING(NAMES_NEOX, IF_UNTIED, "token_embedding.w", "gpt_neox.embed_in.weight", "token_embd.weight"),
    { NAMES_GPT2, 0, "position_embedding.w", "transformer.wpe.weight", "position_embd.weight",
      CLASS_POSITIONS, EXTENT_POSITIONS, EXTENT_MODEL, false, PART_ALL },

    EMBEDDING(NAMES_BERT, 0, "softmax.logits_ffn.w", "embeddings.word_embeddings.weight", "token_embd.weight"),
    { NAMES_BERT, IF_POSITIONS, "position_embedding.w", "embeddings.position_embeddings.weight", "position_embd.weight",
      CLASS_POSITIONS, EXTENT_POSITIONS, EXTENT_MODEL, false, PART_ALL },
    BERT_NORM("embedding_norm", "embeddings.LayerNorm", "token_embd_norm"),
    PLE("ple.embedding", "model.embed_tokens_per_layer", "per_layer_token_embd", EXTENT_PLE_ROWS, EXTENT_PLE),
    PLE("ple.context", "model.per_layer_model_projection", "per_layer_model_proj", EXTENT_PLE_LAYERS, EXTENT_MODEL),
    NORM(NAMES_LLAMA, IF_PLE, "ple.context_norm", "model.per_layer_projection_norm", "per_layer_proj_norm", EXTENT_PLE),

    /* ---- attention ---- */
    NORM(NAMES_LFM2, IF_PRE_NORM, LAYER("pre_layer_norm"), HF("operator_norm"), GGUF("attn_norm"), EXTENT_MODEL),
    NORM(NORMED, IF_PRE_NORM, LAYER("pre_layer_norm"), HF("input_layernorm"), GGUF("attn_norm"), EXTENT_MODEL),
    NORM(NAMES_FALCON, IF_PRE_NORM, LAYER("pre_layer_norm"), GPT("ln_attn"), GGUF("attn_norm_2"), EXTENT_MODEL),
    NORM(NAMES_FALCON, IF_PRE_NORM, LAYER("pre_layer_norm"), GPT("input_layernorm"), GGUF("attn_norm"), EXTENT_MODEL),
    NORM(NAMES_GPT2, IF_PRE_NORM, LAYER("pre_layer_norm"), GPT("ln_1"), GGUF("attn_norm"), EXTENT_MODEL),
    NORM(NAMES_NEOX, IF_PRE_NORM, LAYER("pre_layer_norm"), NEOX("input_layernorm"), GGUF("attn_norm"), EXTENT_MODEL),
#define Q(row, namings, bias, hf, gguf, part) \
    row(namings, IF_ATTENTION, bias, LAYER("self_attention.q"), hf, gguf, CLASS_ATTENTION, EXTENT_Q, EXTENT_MODEL, true, part)
#define K(row, namings, bias, hf, gguf, part) \
    row(namings, IF_KEYS, bias, LAYER("self_attention.k"), hf, gguf, CLASS_ATTENTION, EXTENT_KV, EXTENT_MODEL, true, part)
#define V(row, namings, bias, hf, gguf, part) \
    row(namings, IF_VALUES, bias, LAYER("self_attention.v"), hf, gguf, CLASS_ATTENTION, EXTENT_KV, EXTENT_MODEL, false, part)
    Q(MATRIX, NAMES_FUSED | NAMES_NOMIC, IF_QKV_BIAS, HF("self_attn.qkv_proj"), GGUF("attn_qkv"), BLOCK_Q),
    Q(MATRIX, NAMES_LLAMA, IF_QKV_BIAS, HF("self_attn.q_proj"), GGUF("attn_q"), PART_ALL),
    Q(LINEAR, NAMES_PHI, IF_QKV_BIAS, HF("self_attn.q_proj"), GGUF("attn_q"), PART_ALL),
    Q(LINEAR, NAMES_PHI, IF_QKV_BIAS, HF("self_attn.qkv_proj"), GGUF("attn_qkv"), BLOCK_Q), // GGUF before 2024
    Q(LINEAR, NAMES_FALCON, IF_QKV_BIAS, GPT("self_attention.query_key_value"), GGUF("attn_qkv"), PART_Q),
    Q(MATRIX, NAMES_BERT, IF_QKV_BIAS, BERT("attention.self.query"), GGUF("attn_q"), PART_ALL),
    Q(MATRIX, NAMES_GPT2, IF_QKV_BIAS, GPT("attn.c_attn"), GGUF("attn_qkv"), BLOCK_Q),
    Q(MATRIX, NAMES_NEOX, IF_QKV_BIAS, NEOX("attention.query_key_value"), GGUF("attn_qkv"), PART_Q),
    FUSED(IF_ATTENTION, "self_attention.q", EXTENT_Q, true, BLOCK_Q),
    K(MATRIX, NAMES_FUSED | NAMES_NOMIC, IF_QKV_BIAS, HF("self_attn.qkv_proj"), GGUF("attn_qkv"), BLOCK_K),
    K(MATRIX, NAMES_LLAMA, IF_QKV_BIAS, HF("self_attn.k_proj"), GGUF("attn_k"), PART_ALL),
    K(LINEAR, NAMES_PHI, IF_QKV_BIAS, HF("self_attn.k_proj"), GGUF("attn_k"), PART_ALL),
    K(LINEAR, NAMES_PHI, IF_QKV_BIAS, HF("self_attn.qkv_proj"), GGUF("attn_qkv"), BLOCK_K), // GGUF before 2024
    K(LINEAR, NAMES_FALCON, IF_QKV_BIAS, GPT("self_attention.query_key_value"), GGUF("attn_qkv"), PART_K),
    K(MATRIX, NAMES_BERT, IF_QKV_BIAS, BERT("attention.self.key"), GGUF("attn_k"), PART_ALL),
    K(MATRIX, NAMES_GPT2, IF_QKV_BIAS, GPT("attn.c_attn"), GGUF("attn_qkv"), BLOCK_K),
    K(MATRIX, NAMES_NEOX, IF_QKV_BIAS, NEOX("attention.query_key_value"), GGUF("attn_qkv"), PART_K),
    FUSED(IF_KEYS, "self_attention.k", EXTENT_KV, true, BLOCK_K),
    V(MATRIX, NAMES_FUSED | NAMES_NOMIC, IF_QKV_BIAS, HF("self_attn.qkv_proj"), GGUF("attn_qkv"), BLOCK_V),
    V(MATRIX, NAMES_LLAMA, IF_QKV_BIAS, HF("self_attn.v_proj"), GGUF("attn_v"), PART_ALL),
    V(LINEAR, NAMES_PHI, IF_QKV_BIAS, HF("self_attn.v_proj"), GGUF("attn_v"), PART_ALL),
    V(LINEAR, NAMES_PHI, IF_QKV_BIAS, HF("self_attn.qkv_proj"), GGUF("attn_qkv"), BLOCK_V), // GGUF before 2024
    V(LINEAR, NAMES_FALCON, IF_QKV_BIAS, GPT("self_attention.query_key_value"), GGUF("attn_qkv"), PART_V),
    V(MATRIX, NAMES_BERT, IF_QKV_BIAS, BERT("attention.self.value"), GGUF("attn_v"), PART_ALL),
    V(MATRIX, NAMES_GPT2, IF_QKV_BIAS, GPT("attn.c_attn"), GGUF("attn_qkv"), BLOCK_V),
    V(MATRIX, NAMES_NEOX, IF_QKV_BIAS, NEOX("attention.query_key_value"), GGUF("attn_qkv"), PART_V),
    FUSED(IF_VALUES, "self_attention.v", EXTENT_KV, false, BLOCK_V),
    QK_NORM(NAMES_LFM2, IF_QK_NORM_HEAD, LAYER("self_attention.q_norm"), HF("self_attn.q_layernorm"), GGUF("attn_q_norm"), EXTENT_HEAD),
    QK_NORM(NAMES_LFM2, IF_QK_NORM_HEAD, LAYER("self_attention.k_norm"), HF("self_attn.k_layernorm"), GGUF("attn_k_norm"), EXTENT_HEAD),
    QK_NORM(NAMES_LLAMA, IF_QK_NORM_HEAD, LAYER("self_attention.q_norm"), HF("self_attn.q_norm"), GGUF("attn_q_norm"), EXTENT_HEAD),
    QK_NORM(NAMES_LLAMA, IF_QK_NORM_WIDE, LAYER("self_attention.q_norm"), HF("self_attn.q_norm"), GGUF("attn_q_norm"), EXTENT_Q),
    QK_NORM(NAMES_LLAMA, IF_QK_NORM_WIDE, LAYER("self_attention.q_norm"), HF("self_attn.q_layernorm.norms.%d"), GGUF("attn_q_norm"), EXTENT_Q),
    QK_NORM(NAMES_LLAMA, IF_KEYS | IF_QK_NORM_HEAD, LAYER("self_attention.k_norm"), HF("self_attn.k_norm"), GGUF("attn_k_norm"), EXTENT_HEAD),
    QK_NORM(NAMES_LLAMA, IF_KEYS | IF_QK_NORM_WIDE, LAYER("self_attention.k_norm"), HF("self_attn.k_norm"), GGUF("attn_k_norm"), EXTENT_KV),
    QK_NORM(NAMES_LLAMA, IF_KEYS | IF_QK_NORM_WIDE, LAYER("self_attention.k_norm"), HF("self_attn.k_layernorm.norms.%d"), GGUF("attn_k_norm"), EXTENT_KV),
#define O(row, namings, hf) \
    row(namings, IF_ATTENTION, IF_O_BIAS, LAYER("self_attention.post"), hf, GGUF("attn_output"), \
        CLASS_ATTENTION, EXTENT_MODEL, EXTENT_Q, false, PART_ALL)
    O(MATRIX, NAMES_LFM2, HF("self_attn.out_proj")),
    O(MATRIX, NAMES_LLAMA, HF("self_attn.o_proj")),
    O(LINEAR, NAMES_PHI, HF("self_attn.dense")),
    O(LINEAR, NAMES_FALCON, GPT("self_attention.dense")),
    O(MATRIX, NAMES_BERT, BERT("attention.output.dense")),
    BERT_NORM(LAYER("sum_norm"), BERT("attention.output.LayerNorm"), GGUF("attn_output_norm")),
    O(MATRIX, NAMES_GPT2, GPT("attn.c_proj")),
    O(MATRIX, NAMES_NEOX, NEOX("attention.dense")),
    NORM(NAMES_LLAMA, IF_POST_NORM, LAYER("post_layer_norm"), HF("post_attention_layernorm"), GGUF("post_attention_norm"), EXTENT_MODEL),

    /* ---- a convolution instead of attention ---- */
#define CONV(target, hf, gguf, part) \
    MATRIX(NAMES_LFM2, IF_CONV, IF_CONV_BIAS, LAYER(target), HF(hf), GGUF(gguf), CLASS_ATTENTION, EXTENT_MODEL, EXTENT_MODEL, false, part)
    CONV("conv.b", "conv.in_proj", "shortconv.in_proj", BLOCK_Q),
    CONV("conv.c", "conv.in_proj", "shortconv.in_proj", BLOCK_K),
    CONV("conv.x", "conv.in_proj", "shortconv.in_proj", BLOCK_V),
    { NAMES_LFM2, IF_CONV, LAYER("conv.kernel"), HF("conv.conv.weight"), GGUF("shortconv.conv.weight"),
      CLASS_BIAS, EXTENT_CONV, EXTENT_MODEL, false, PART_ALL },
    { NAMES_LFM2, IF_CONV | IF_CONV_BIAS, LAYER("conv.bias"), HF("conv.conv.bias"), GGUF("shortconv.conv.bias"),
      CLASS_BIAS, EXTENT_MODEL, EXTENT_NONE, false, PART_ALL },
    CONV("conv.out", "conv.out_proj", "shortconv.out_proj", PART_ALL),

    /* ---- feed-forward ----
     * Gemma 2 and 3 moved a name: what was this norm is now the one after attention. */
#define FF_NORM LAYER("ff_layer.pre_layer_norm")
    NORM(NAMES_LFM2, IF_FF_NORM, FF_NORM, HF("ffn_norm"), GGUF("ffn_norm"), EXTENT_MODEL),
    NORM(NAMES_LLAMA, IF_FF_NORM | UNLESS_POST_NORM, FF_NORM, HF("post_attention_layernorm"), GGUF("ffn_norm"), EXTENT_MODEL),
    NORM(NAMES_LLAMA, IF_FF_NORM | IF_POST_NORM, FF_NORM, HF("pre_feedforward_layernorm"), GGUF("ffn_norm"), EXTENT_MODEL),
    NORM(NAMES_FALCON, IF_FF_NORM, FF_NORM, GPT("ln_mlp"), GGUF("attn_norm"), EXTENT_MODEL),
    NORM(NAMES_FALCON, IF_FF_NORM, FF_NORM, GPT("post_attention_layernorm"), GGUF("ffn_norm"), EXTENT_MODEL),
    NORM(NAMES_GPT2, IF_FF_NORM, FF_NORM, GPT("ln_2"), GGUF("ffn_norm"), EXTENT_MODEL),
    NORM(NAMES_NEOX, IF_FF_NORM, FF_NORM, NEOX("post_attention_layernorm"), GGUF("ffn_norm"), EXTENT_MODEL),
#define GATE(row, namings, hf, gguf, part) \
    row(namings, IF_GATED | IF_DENSE, IF_FF_BIAS, LAYER("ff_layer.ffn_layer1_gate"), hf, gguf, CLASS_FEED_FORWARD, EXTENT_FF, EXTENT_MODEL, false, part)
#define UP_AS(row, namings, needs, hf, gguf, part) \
    row(namings, (needs) | IF_DENSE, IF_FF_BIAS, LAYER("ff_layer.ffn_layer1"), hf, gguf, CLASS_FEED_FORWARD, EXTENT_FF, EXTENT_MODEL, false, part)
#define UP(row, namings, needs, hf, part) UP_AS(row, namings, needs, hf, GGUF("ffn_up"), part)
#define DOWN_AS(row, namings, hf, gguf) \
    row(namings, IF_DENSE, IF_FF_BIAS, LAYER("ff_layer.ffn_layer2"), hf, gguf, CLASS_FEED_FORWARD, EXTENT_MODEL, EXTENT_FF, false, PART_ALL)
#define DOWN(row, namings, hf) DOWN_AS(row, namings, hf, GGUF("ffn_down"))
    { NAMES_EXPERTS, IF_EXPERTS, LAYER("ff_layer.router"), HF("mlp.gate.weight"), GGUF("ffn_gate_inp.weight"),
      CLASS_BIAS, EXTENT_EXPERTS, EXTENT_MODEL, false, PART_ALL },
    { NAMES_EXPERTS, IF_EXPERTS | IF_SHARED_GATE | IF_DENSE, LAYER("ff_layer.shared_gate"), HF("mlp.shared_expert_gate.weight"), GGUF("ffn_gate_inp_shexp.weight"),
      CLASS_BIAS, EXTENT_MODEL, EXTENT_NONE, false, PART_ALL },
#define EXPERTS_AS(namings, target, hf, gguf, rows, cols, part) \
    { namings, IF_EXPERTS, LAYER("ff_layer.experts." target ".w"), HF(hf), gguf, \
      CLASS_FEED_FORWARD, rows, cols, false, part }
#define EXPERTS(target, hf, gguf, rows, cols, part) \
    EXPERTS_AS(NAMES_EXPERTS, target, "mlp.experts." hf, gguf, rows, cols, part)
#define GEMMA_EXPERTS(target, hf, class, rows, cols) \
    { NAMES_GEMMA_EXPERTS, IF_EXPERTS | IF_EXPERT_NORMS, LAYER("ff_layer." target), HF(hf), NULL, \
      class, rows, cols, false, PART_ALL }
    GEMMA_EXPERTS("router", "router.proj.weight", CLASS_BIAS, EXTENT_EXPERTS, EXTENT_MODEL),
    GEMMA_EXPERTS("router_norm.scale", "router.scale", CLASS_ROUTER_NORM, EXTENT_MODEL, EXTENT_NONE),
    GEMMA_EXPERTS("expert_scale", "router.per_expert_scale", CLASS_BIAS, EXTENT_EXPERTS, EXTENT_NONE),
    GEMMA_EXPERTS("expert_pre_norm.scale", "pre_feedforward_layernorm_2.weight", CLASS_NORM, EXTENT_MODEL, EXTENT_NONE),
    GEMMA_EXPERTS("expert_post_norm.scale", "post_feedforward_layernorm_2.weight", CLASS_NORM, EXTENT_MODEL, EXTENT_NONE),
    GEMMA_EXPERTS("dense_post_norm.scale", "post_feedforward_layernorm_1.weight", CLASS_NORM, EXTENT_MODEL, EXTENT_NONE),
    EXPERTS_AS(NAMES_GEMMA_EXPERTS, "ffn_layer1_gate", "experts.gate_up_proj", NULL, EXTENT_ALL_FF, EXTENT_MODEL, EXPERT_GATE),
    EXPERTS_AS(NAMES_GEMMA_EXPERTS, "ffn_layer1", "experts.gate_up_proj", NULL, EXTENT_ALL_FF, EXTENT_MODEL, EXPERT_UP),
    EXPERTS_AS(NAMES_GEMMA_EXPERTS, "ffn_layer2", "experts.down_proj", NULL, EXTENT_ALL_MODEL, EXTENT_EXPERT_FF, PART_ALL),
    EXPERTS("ffn_layer1_gate", "%d.gate_proj.weight", GGUF("ffn_gate_exps.weight"), EXTENT_ALL_FF, EXTENT_MODEL, PART_ALL),
    EXPERTS("ffn_layer1_gate", "gate_up_proj", NULL, EXTENT_ALL_FF, EXTENT_MODEL, EXPERT_GATE),
    EXPERTS("ffn_layer1", "%d.up_proj.weight", GGUF("ffn_up_exps.weight"), EXTENT_ALL_FF, EXTENT_MODEL, PART_ALL),
    EXPERTS("ffn_layer1", "gate_up_proj", NULL, EXTENT_ALL_FF, EXTENT_MODEL, EXPERT_UP),
    EXPERTS("ffn_layer2", "%d.down_proj.weight", GGUF("ffn_down_exps.weight"), EXTENT_ALL_MODEL, EXTENT_EXPERT_FF, PART_ALL),
    EXPERTS("ffn_layer2", "down_proj", NULL, EXTENT_ALL_MODEL, EXTENT_EXPERT_FF, PART_ALL),
    GATE(MATRIX, NAMES_EXPERTS, HF("mlp.shared_expert.gate_proj"), GGUF("ffn_gate_shexp"), PART_ALL),
    GATE(MATRIX, NAMES_LFM2, HF("feed_forward.w1"), GGUF("ffn_gate"), PART_ALL),
    GATE(MATRIX, NAMES_LLAMA | NAMES_NOMIC, HF("mlp.gate_proj"), GGUF("ffn_gate"), PART_ALL),
    GATE(MATRIX, NAMES_FUSED, HF("mlp.gate_up_proj"), GGUF("ffn_up"), BLOCK_GATE),
    UP_AS(MATRIX, NAMES_EXPERTS, IF_GATED, HF("mlp.shared_expert.up_proj"), GGUF("ffn_up_shexp"), PART_ALL),
    UP(MATRIX, NAMES_LFM2, IF_GATED, HF("feed_forward.w3"), PART_ALL),
    UP(MATRIX, NAMES_STARCODER, 0, HF("mlp.c_fc"), PART_ALL),
    UP(MATRIX, NAMES_LLAMA, 0, HF("mlp.up_proj"), PART_ALL),
    UP(MATRIX, NAMES_FUSED, IF_GATED, HF("mlp.gate_up_proj"), BLOCK_UP),
    UP(LINEAR, NAMES_PHI, 0, HF("mlp.fc1"), PART_ALL),
    UP(LINEAR, NAMES_FALCON, 0, GPT("mlp.dense_h_to_4h"), PART_ALL),
    UP(MATRIX, NAMES_GPT2, 0, GPT("mlp.c_fc"), PART_ALL),
    UP(MATRIX, NAMES_NEOX, 0, NEOX("mlp.dense_h_to_4h"), PART_ALL),
    DOWN_AS(MATRIX, NAMES_EXPERTS, HF("mlp.shared_expert.down_proj"), GGUF("ffn_down_shexp")),
    DOWN(MATRIX, NAMES_LFM2, HF("feed_forward.w2")),
    DOWN(MATRIX, NAMES_STARCODER, HF("mlp.c_proj")),
    DOWN(MATRIX, NAMES_LLAMA, HF("mlp.down_proj")),
    DOWN(LINEAR, NAMES_PHI, HF("mlp.fc2")),
    DOWN(LINEAR, NAMES_FALCON, GPT("mlp.dense_4h_to_h")),
    UP(MATRIX, NAMES_BERT, 0, BERT("intermediate.dense"), PART_ALL),
    DOWN(MATRIX, NAMES_BERT, BERT("output.dense")),
    BERT_NORM(LAYER("ff_layer.sum_norm"), BERT("output.LayerNorm"), GGUF("layer_output_norm")),
    DOWN(MATRIX, NAMES_GPT2, GPT("mlp.c_proj")),
    DOWN(MATRIX, NAMES_NEOX, NEOX("mlp.dense_4h_to_h")),
    NORM(NAMES_LLAMA, IF_POST_NORM, LAYER("ff_layer.post_layer_norm"), HF("post_feedforward_layernorm"), GGUF("post_ffw_norm"), EXTENT_MODEL),

    /* ---- the end of a layer ---- */
    PLE(LAYER("ple.gate"), HF("per_layer_input_gate"), GGUF("inp_gate"), EXTENT_PLE, EXTENT_MODEL),
    PLE(LAYER("ple.out"), HF("per_layer_projection"), GGUF("proj"), EXTENT_MODEL, EXTENT_PLE),
    NORM(NAMES_LLAMA, IF_PLE, LAYER("ple.post_norm"), HF("post_per_layer_input_norm"), GGUF("post_norm"), EXTENT_MODEL),
    { NAMES_LLAMA, IF_LAYER_SCALE, LAYER("layer_scale"), HF("layer_scalar"), GGUF("layer_output_scale.weight"),
      CLASS_NORM, EXTENT_ONE, EXTENT_NONE, false, PART_ALL },

    /* ---- head ---- */
    NORM(NAMES_LFM2, 0, "final_ln", "model.embedding_norm", "token_embd_norm", EXTENT_MODEL),
    NORM(NAMES_LLAMA, 0, "final_ln", "model.norm", "output_norm", EXTENT_MODEL),
    NORM(NAMES_PHI, 0, "final_ln", "model.final_layernorm", "output_norm", EXTENT_MODEL),
    NORM(NAMES_FALCON | NAMES_GPT2, 0, "final_ln", "transformer.ln_f", "output_norm", EXTENT_MODEL),
    NORM(NAMES_NEOX, 0, "final_ln", "gpt_neox.final_layer_norm", "output_norm", EXTENT_MODEL),
    EMBEDDING(NAMES_LLAMA | NAMES_GPT2, IF_UNTIED, "softmax.logits_ffn.w", "lm_head.weight", "output.weight"),
    EMBEDDING(NAMES_NEOX, IF_UNTIED, "softmax.logits_ffn.w", "embed_out.weight", "output.weight"),
    EMBEDDING(NAMES_PHI, IF_UNTIED, "softmax.logits_ffn.linear.w", "lm_head.weight", "output.weight"),
    { NORMED, IF_HEAD_BIAS, "softmax.logits_ffn.bias.b", "lm_head.bias", "output.bias",
      CLASS_BIAS, EXTENT_VOCAB, EXTENT_NONE, false, PART_ALL },
    EMBEDDING(NAMES_FALCON, IF_TIED, "softmax.logits_ffn.w", "transformer.word_embeddings.weight", "token_embd.weight"),
    EMBEDDING(NAMES_FALCON, IF_UNTIED, "softmax.logits_ffn.w", "lm_head.weight", "output.weight"),
};
// clang-format on
const int qp_n_tensor_rows = QP_COUNT(qp_tensor_rows);

unsigned qp_tensor_conditions(const struct traits *t, unsigned biases, bool is_tied)
{
    unsigned has =
        biases | (is_tied ? IF_TIED : IF_UNTIED) | IF_ATTENTION | IF_KEYS | IF_VALUES | IF_DENSE;
    has |= t->post_norm ? IF_POST_NORM : UNLESS_POST_NORM;
    if (!t->no_pre_norm)
        has |= IF_PRE_NORM;
    if (!t->no_pre_norm && t->residual != RESIDUAL_PARALLEL)
        has |= IF_FF_NORM;
    if (t->norm == NORM_LAYER && !t->no_norm_bias)
        has |= IF_NORM_BIAS;
    if (t->qk_norm != QK_NORM_NONE)
        has |= t->qk_norm == QK_NORM_HEAD ? IF_QK_NORM_HEAD : IF_QK_NORM_WIDE;
    if (t->is_gated)
        has |= IF_GATED;
    if (t->has_layer_scale)
        has |= IF_LAYER_SCALE;
    if (t->has_positions)
        has |= IF_POSITIONS;
    return has;
}

bool qp_tensor_row_applies(int i, unsigned namings, unsigned has)
{
    assert(i >= 0 && i < qp_n_tensor_rows);
    const struct tensor_row *row = &qp_tensor_rows[i];
    return (row->namings & namings) && !(row->needs & ~has);
}

bool qp_tensor_row_is_alternative(int i, unsigned namings, unsigned has)
{
    for (int k = 0; k < i; k++)
        if (qp_tensor_row_applies(k, namings, has) &&
            strcmp(qp_tensor_rows[k].target, qp_tensor_rows[i].target) == 0)
            return true;
    return false;
}

bool qp_tensor_row_is_of_head(const struct tensor_row *row, bool is_gguf)
{
    const char *pattern = is_gguf ? row->gguf : row->hf;
    const char *layer = pattern ? strstr(pattern, "%d") : NULL;
    return layer && strstr(layer + 2, "%d");
}

bool qp_tensor_row_is_layered(const struct tensor_row *row)
{
    return strstr(row->target, "%d") != NULL;
}
