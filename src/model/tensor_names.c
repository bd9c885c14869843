/* tensor_names.c: the grammar of tensor names, and the names of a layer's matrices. */
#include "model/tensor_names.h"

#include <assert.h>
#include <string.h>

#define MAX_LAYER 1000000

/* What follows `prefix`; NULL when the text does not begin with it. */
static const char *after(const char *text, const char *prefix)
{
    const size_t n = strlen(prefix);
    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

const char *qp_name_unwrap(const char *name)
{
    static const char *const wrappings[] = {
        "model.",  "language_model.", "base_model.",          "bert.", "transformer.", "gpt_neox.",
        "module.", "_orig_mod.",      "_fsdp_wrapped_module."
    };
    for (size_t i = 0; i < QP_COUNT(wrappings); i++) {
        const char *rest = after(name, wrappings[i]);
        if (rest) {
            name = rest;
            i = (size_t)-1; // from the first again
        }
    }
    return name;
}

/* What follows the words before the number of a layer. */
static const char *after_layers(const char *name)
{
    const char *rest = after(name, "params.lm.transformer.x_layers_");
    if (rest)
        return rest;
    name = qp_name_unwrap(name);
    rest = after(name, "layers.");
    return rest ? rest : after(name, "h.");
}

const char *qp_name_after_layer(const char *name, int *l)
{
    const char *p = after_layers(name);
    int layer = 0;
    if (!p || *p < '0' || *p > '9')
        return NULL;
    for (; *p >= '0' && *p <= '9'; p++)
        layer = qp_min(layer * 10 + (*p - '0'), MAX_LAYER);
    *l = layer;
    return *p == '.' ? p + 1 : NULL;
}

const char *qp_matrix_name(enum layer_matrix m)
{
    static const char *const names[] = {
        [MATRIX_Q] = "self_attention.q",
        [MATRIX_K] = "self_attention.k",
        [MATRIX_V] = "self_attention.v",
        [MATRIX_O] = "self_attention.post",
        [MATRIX_GATE] = "ff_layer.ffn_layer1_gate",
        [MATRIX_UP] = "ff_layer.ffn_layer1",
        [MATRIX_DOWN] = "ff_layer.ffn_layer2",
        [MATRIX_PLE_GATE] = "ple.gate",
        [MATRIX_PLE_CONTEXT] = "ple.context", // rows of a matrix of all layers
        [MATRIX_PLE_OUT] = "ple.out",
        [MATRIX_EXPERT_GATE] = "ff_layer.experts.ffn_layer1_gate",
        [MATRIX_EXPERT_UP] = "ff_layer.experts.ffn_layer1",
        [MATRIX_EXPERT_DOWN] = "ff_layer.experts.ffn_layer2",
    };
    assert(m >= 0 && m < N_MATRICES);
    return names[m];
}

bool qp_module_is_of(const struct module *module, const struct layer_config *layer)
{
    const bool is_conv = after(module->name, CONV_MODULE) != NULL;
    return module->matrix > MATRIX_O || is_conv == (layer->mixer == MIXER_CONV);
}

const struct module *qp_module(int i)
{
    static const struct module modules[] = {
        { "self_attn.q_proj", MATRIX_Q, PART_ALL },
        { "self_attn.k_proj", MATRIX_K, PART_ALL },
        { "self_attn.v_proj", MATRIX_V, PART_ALL },
        { "self_attn.o_proj", MATRIX_O, PART_ALL },
        { "mlp.gate_proj", MATRIX_GATE, PART_ALL },
        { "mlp.up_proj", MATRIX_UP, PART_ALL },
        { "mlp.down_proj", MATRIX_DOWN, PART_ALL },
        // Phi-3
        { "self_attn.qkv_proj", MATRIX_Q, BLOCK_Q },
        { "self_attn.qkv_proj", MATRIX_K, BLOCK_K },
        { "self_attn.qkv_proj", MATRIX_V, BLOCK_V },
        { "mlp.gate_up_proj", MATRIX_GATE, BLOCK_GATE },
        { "mlp.gate_up_proj", MATRIX_UP, BLOCK_UP },
        { "per_layer_input_gate", MATRIX_PLE_GATE, PART_ALL },
        { "per_layer_projection", MATRIX_PLE_OUT, PART_ALL },
        // Phi-2
        { "self_attn.dense", MATRIX_O, PART_ALL },
        { "mlp.fc1", MATRIX_UP, PART_ALL },
        { "mlp.fc2", MATRIX_DOWN, PART_ALL },
        // Falcon
        { "self_attention.query_key_value", MATRIX_Q, PART_Q },
        { "self_attention.query_key_value", MATRIX_K, PART_K },
        { "self_attention.query_key_value", MATRIX_V, PART_V },
        { "self_attention.dense", MATRIX_O, PART_ALL },
        { "mlp.dense_h_to_4h", MATRIX_UP, PART_ALL },
        { "mlp.dense_4h_to_h", MATRIX_DOWN, PART_ALL },
        // GPT-NeoX; the rest as in Falcon
        { "attention.query_key_value", MATRIX_Q, PART_Q },
        { "attention.query_key_value", MATRIX_K, PART_K },
        { "attention.query_key_value", MATRIX_V, PART_V },
        { "attention.dense", MATRIX_O, PART_ALL },
        // GPT-2; its feed-forward and StarCoder2's
        { "attn.c_attn", MATRIX_Q, BLOCK_Q },
        { "attn.c_attn", MATRIX_K, BLOCK_K },
        { "attn.c_attn", MATRIX_V, BLOCK_V },
        { "attn.c_proj", MATRIX_O, PART_ALL },
        { "mlp.c_fc", MATRIX_UP, PART_ALL },
        { "mlp.c_proj", MATRIX_DOWN, PART_ALL },
        // LFM2
        { "self_attn.out_proj", MATRIX_O, PART_ALL },
        { CONV_MODULE "in_proj", MATRIX_Q, BLOCK_Q },
        { CONV_MODULE "in_proj", MATRIX_K, BLOCK_K },
        { CONV_MODULE "in_proj", MATRIX_V, BLOCK_V },
        { CONV_MODULE "out_proj", MATRIX_O, PART_ALL },
        { "feed_forward.w1", MATRIX_GATE, PART_ALL },
        { "feed_forward.w3", MATRIX_UP, PART_ALL },
        { "feed_forward.w2", MATRIX_DOWN, PART_ALL },
        // the dense feed-forward beside the experts of Qwen 2 MoE
        { "mlp.shared_expert.gate_proj", MATRIX_GATE, PART_ALL },
        { "mlp.shared_expert.up_proj", MATRIX_UP, PART_ALL },
        { "mlp.shared_expert.down_proj", MATRIX_DOWN, PART_ALL },
    };
    assert(i >= 0);
    return i < (int)QP_COUNT(modules) ? &modules[i] : NULL;
}
