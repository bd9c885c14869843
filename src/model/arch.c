/* arch.c: the table of architectures. A new family is a row here and, if its tensors have other
 * names, a row in weights.c. */
#include "model/model.h"

#include <string.h>

/* Model types: odml.infra.proto.LlmModelType. */
static const struct arch archs[] = {
    { .name = "gemma3",
      .model_types = { 27, 28, 29, 30, 38, 47 }, // 1B, 4B, 12B, 27B, 270M, FunctionGemma 270M
      .norm = NORM_RMS_PLUS_1,
      .act = ACT_GELU_TANH,
      .qk_norm = true,
      .post_norm = true,
      .embed_sqrt_d = true,
      .local_per_global = 5,
      .window = 512,
      .rope_theta = 1e6f,
      .rope_local_theta = 1e4f,
      .norm_eps = 1e-6f,
      .chat = "gemma" },
    { .name = "llama",
      .norm = NORM_RMS,
      .act = ACT_SILU,
      .rope_theta = 1e4f,
      .rope_local_theta = 1e4f,
      .norm_eps = 1e-5f,
      .chat = "none" },
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
