/* tensor_names.h: how files name the tensors of a layer.
 *
 *     MediaPipe      params.lm.transformer.x_layers_<l>.<tensor>
 *     Hugging Face   model.layers.<l>.<tensor>, transformer.h.<l>.<tensor> or
 *                    gpt_neox.layers.<l>.<tensor>
 *     PEFT           the same inside base_model.model.
 *     GGUF           blk.<l>.<tensor> */
#ifndef QP_TENSOR_NAMES_H
#define QP_TENSOR_NAMES_H

#include "model/model.h"
#include "model/row_map.h"

/* Patterns of names; "%d" is the layer. Those of MediaPipe follow "params.lm.". */
#define LAYER_MEDIAPIPE "transformer.x_layers_%d."
#define LAYER_HF "model.layers.%d."
#define LAYER_HF_GPT "transformer.h.%d."
#define LAYER_HF_NEOX "gpt_neox.layers.%d."
#define LAYER_GGUF "blk.%d."

/* The name without the modules around the language model: "model.", "language_model.",
 * "transformer.", "gpt_neox.", those of PEFT ("base_model."), torch.compile ("_orig_mod.") and
 * training on several devices ("module."), however often they occur. */
const char *qp_name_unwrap(const char *name);

/* Split a name that MediaPipe, Hugging Face or PEFT gives to a tensor of a layer: the number of the
 * layer (at most 10^6; larger ones are cut), and what follows it. NULL when it is another name. */
const char *qp_name_after_layer(const char *name, int *l);

/* MediaPipe's name of a weight matrix, as "self_attention.q". */
const char *qp_matrix_name(enum layer_matrix m);

/* What the names of modules of a convolution begin with. */
#define CONV_MODULE "conv."

/* A module of Hugging Face's layers, and a weight matrix that it holds. */
struct module {
    const char *name; // "self_attn.q_proj"
    enum layer_matrix matrix;
    enum part part;
};
/* All that are known; NULL after the last. A fused module comes three times. */
const struct module *qp_module(int i);
/* Whether a layer of this kind can have the module: those of a convolution are not attention's. */
bool qp_module_is_of(const struct module *module, const struct layer_config *layer);

#endif
