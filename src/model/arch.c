/* arch.c: the table of architectures. A new family is a row here and, if its tensors have other
 * names, a row in weights.c. */
#include "model/model.h"

#include <string.h>

/* Model types: odml.infra.proto.LlmModelType. */
static const struct arch archs[] = {
    { .name = "gemma",
      .model_types = { 6, 12 }, // 2B, 7B
      .norm = NORM_RMS_PLUS_1,
      .act = ACT_GELU_TANH,
      .is_gated = true,
      .embed_sqrt_d = true,
      .rope_theta = 1e4f,
      .norm_eps = 1e-6f },
    { .name = "gemma2",
      .model_types = { 18 },
      .norm = NORM_RMS_PLUS_1,
      .act = ACT_GELU_TANH,
      .is_gated = true,
      .post_norm = true,
      .embed_sqrt_d = true,
      .local_per_global = 1,
      .window = 4096,
      .rope_theta = 1e4f,
      .rope_local_theta = 1e4f,
      .norm_eps = 1e-6f,
      .attention_cap = 50,
      .logits_cap = 30 },
    { .name = "gemma3",
      .model_types = { 27, 28, 29, 30, 38, 47 }, // 1B, 4B, 12B, 27B, 270M, FunctionGemma 270M
      .norm = NORM_RMS_PLUS_1,
      .act = ACT_GELU_TANH,
      .is_gated = true,
      .qk_norm = true,
      .post_norm = true,
      .embed_sqrt_d = true,
      .local_per_global = 5,
      .window = 512,
      .rope_theta = 1e6f,
      .rope_local_theta = 1e4f,
      .norm_eps = 1e-6f },
    { .name = "phi2",
      .model_types = { 11 },
      .norm = NORM_LAYER,
      .act = ACT_GELU_TANH,
      .is_parallel = true,
      .rope_fraction = 0.4f,
      .rope_theta = 1e4f,
      .norm_eps = 1e-5f },
    { .name = "falcon", // RW
      .model_types = { 5 },
      .norm = NORM_LAYER,
      .act = ACT_GELU_ERF,
      .has_alibi = true,
      .norm_eps = 1e-5f },
    { .name = "stablelm",
      .model_types = { 8 },
      .norm = NORM_LAYER,
      .act = ACT_SILU,
      .is_gated = true,
      .rope_fraction = 0.25f,
      .rope_theta = 1e4f,
      .norm_eps = 1e-5f },
    { .name = "llama",
      .norm = NORM_RMS,
      .act = ACT_SILU,
      .is_gated = true,
      .rope_theta = 1e4f,
      .norm_eps = 1e-5f },
};

const struct arch *qp_arch_find(const char *name)
{
    for (size_t i = 0; i < QP_COUNT(archs); i++)
        if (strcmp(archs[i].name, name) == 0)
            return &archs[i];
    return NULL;
}

const struct arch *qp_arch_find_type(int model_type)
{
    for (size_t i = 0; i < QP_COUNT(archs); i++)
        for (const int *t = archs[i].model_types; *t; t++)
            if (*t == model_type)
                return &archs[i];
    return NULL;
}
