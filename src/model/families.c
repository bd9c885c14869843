/* families.c: the table of model families, and that of MediaPipe's model types.
 * A new family is a row here, a row of families_convert.c, and a golden test. If it needs a step
 * that no other family has, the step is a field of struct traits whose zero means "absent". */
#include "model/families.h"

#include <assert.h>
#include <string.h>

/* The fields that most families share. */
#define LLAMA_TRAITS .act = ACT_SILU, .is_gated = true
#define GEMMA_TRAITS                                                                               \
    .norm = NORM_RMS_PLUS_1, .act = ACT_GELU_TANH, .is_gated = true, .norm_eps = 1e-6
#define LAYER_NORM_TRAITS .norm = NORM_LAYER, .rope_theta = 1e4, .norm_eps = 1e-5

// clang-format off
static const struct family families[N_FAMILIES] = {
    [FAMILY_LLAMA] = { .name = "llama", .traits = { LLAMA_TRAITS, .rope_theta = 1e4, .norm_eps = 1e-5 } },
    [FAMILY_GEMMA] = { "gemma", { GEMMA_TRAITS, .rope_theta = 1e4 }, .embed_sqrt_d = true },
    [FAMILY_GEMMA2] = { "gemma2", { GEMMA_TRAITS, .rope_theta = 1e4, .post_norm = true,
                                    .local_per_global = 1, .window = 4096,
                                    .attention_cap = 50, .logits_cap = 30 },
                        .embed_sqrt_d = true },
    [FAMILY_GEMMA3] = { "gemma3", { GEMMA_TRAITS, .post_norm = true, .qk_norm = QK_NORM_HEAD,
                                    .local_per_global = 5, .window = 512,
                                    .rope_theta = 1e6, .rope_local_theta = 1e4 },
                        .embed_sqrt_d = true },
    [FAMILY_PHI2] = { "phi2", { LAYER_NORM_TRAITS, .act = ACT_GELU_TANH,
                                .residual = RESIDUAL_PARALLEL },
                      .rope_fraction = 0.4f },
    [FAMILY_FALCON] = { .name = "falcon", .traits = { LAYER_NORM_TRAITS, .act = ACT_GELU_ERF,
                                                      .has_alibi = true } },
    [FAMILY_STABLELM] = { "stablelm", { LAYER_NORM_TRAITS, .act = ACT_SILU, .is_gated = true },
                          .rope_fraction = 0.25f },
    [FAMILY_BERT] = { "bert", { .norm = NORM_LAYER, .act = ACT_GELU_ERF, .norm_eps = 1e-12,
                                .rope_theta = 1e4, .residual = RESIDUAL_POST_NORM,
                                .no_pre_norm = true, .post_norm = true, .has_positions = true,
                                .embed_norm = true, .no_final_norm = true,
                                .is_bidirectional = true },
                      .has_no_rope = true, .revision = 1 },
    [FAMILY_QWEN2] = { "qwen2", { LLAMA_TRAITS, .rope_theta = 1e6, .norm_eps = 1e-6 },
                       .revision = 1 },
    [FAMILY_QWEN3] = { "qwen3", { LLAMA_TRAITS, .rope_theta = 1e6, .norm_eps = 1e-6,
                                  .qk_norm = QK_NORM_HEAD },
                       .revision = 1 },
    [FAMILY_SMOLLM3] = { "smollm3", { LLAMA_TRAITS, .rope_theta = 2e6, .norm_eps = 1e-6 },
                         .revision = 1 },
    [FAMILY_PHI3] = { "phi3", { LLAMA_TRAITS, .rope_theta = 1e4, .norm_eps = 1e-5 },
                      .rope_fraction = 1, .revision = 1 },
    [FAMILY_OLMO2] = { "olmo2", { LLAMA_TRAITS, .rope_theta = 1e4, .norm_eps = 1e-5,
                                  .no_pre_norm = true, .post_norm = true,
                                  .qk_norm = QK_NORM_WIDTH },
                       .revision = 1 },
    [FAMILY_GRANITE] = { "granite", { LLAMA_TRAITS, .rope_theta = 1e4, .norm_eps = 1e-5 },
                         .revision = 1 },
    [FAMILY_GPT2] = { "gpt2", { LAYER_NORM_TRAITS, .act = ACT_GELU_TANH, .has_positions = true },
                      .revision = 1, .has_no_rope = true },
    [FAMILY_GPTNEOX] = { "gptneox", { LAYER_NORM_TRAITS, .act = ACT_GELU_ERF,
                                      .residual = RESIDUAL_PARALLEL_NORMS },
                         .rope_fraction = 0.25f, .revision = 1 },
    [FAMILY_STARCODER2] = { "starcoder2", { LAYER_NORM_TRAITS, .act = ACT_GELU_TANH },
                            .revision = 1 },
    [FAMILY_COHERE] = { "cohere", { .norm = NORM_LAYER, .no_norm_bias = true, .norm_eps = 1e-5,
                                    .rope_theta = 5e5, .act = ACT_SILU, .is_gated = true,
                                    .residual = RESIDUAL_PARALLEL },
                        .revision = 1, .pairs_rope = true },
    [FAMILY_LFM2] = { "lfm2", { .act = ACT_SILU, .is_gated = true, .norm_eps = 1e-5,
                                .qk_norm = QK_NORM_HEAD, .rope_theta = 1e6 }, .revision = 1 },
    [FAMILY_QWEN2MOE] = { "qwen2moe", { .act = ACT_SILU, .is_gated = true, .norm_eps = 1e-6,
                                        .rope_theta = 1e4, .has_shared_gate = true }, .revision = 1 },
    [FAMILY_QWEN3MOE] = { "qwen3moe", { .act = ACT_SILU, .is_gated = true, .norm_eps = 1e-6,
                                        .qk_norm = QK_NORM_HEAD, .rope_theta = 1e4 }, .revision = 1 },
    [FAMILY_GEMMA4] = { "gemma4", { .act = ACT_GELU_TANH, .is_gated = true, .norm_eps = 1e-6,
                                    .post_norm = true, .qk_norm = QK_NORM_HEAD, .v_norm = true,
                                    .has_layer_scale = true, .local_per_global = 5, .window = 512,
                                    .rope_theta = 1e6, .rope_local_theta = 1e4 },
                        .embed_sqrt_d = true, .revision = 1 },
    [FAMILY_NOMIC_BERT] = { "nomic-bert", { .norm = NORM_LAYER, .act = ACT_SILU, .is_gated = true,
                                            .norm_eps = 1e-12, .rope_theta = 1e4,
                                            .residual = RESIDUAL_POST_NORM, .no_pre_norm = true,
                                            .post_norm = true, .embed_norm = true,
                                            .no_final_norm = true, .is_bidirectional = true },
                            .revision = 1 },
};
// clang-format on

#define SIZES(layers, width) .n_layers = layers, .d_model = width

/* Of types with the same sizes, the first is the one that sizes mean. */
// clang-format off
static const struct model_type model_types[] = {
    { .id = 6, .title = "GEMMA_2B", .family = FAMILY_GEMMA, SIZES(18, 2048) },
    { .id = 12, .title = "GEMMA_7B", .family = FAMILY_GEMMA, SIZES(28, 3072) },
    { .id = 18, .title = "GEMMA2_2B", .family = FAMILY_GEMMA2, SIZES(26, 2304) },
    { .id = 38, .title = "GEMMA3_300M", .family = FAMILY_GEMMA3, SIZES(18, 640) },
    { .id = 27, .title = "GEMMA3_1B", .family = FAMILY_GEMMA3, SIZES(26, 1152) },
    { .id = 28, .title = "GEMMA3_4B", .family = FAMILY_GEMMA3, SIZES(34, 2560) },
    { .id = 29, .title = "GEMMA3_12B", .family = FAMILY_GEMMA3, SIZES(48, 3840) },
    { .id = 30, .title = "GEMMA3_27B", .family = FAMILY_GEMMA3, SIZES(62, 5376) },
    { .id = 47, .title = "FUNCTIONGEMMA3_300M", .family = FAMILY_GEMMA3, SIZES(18, 640) },
    { .id = 11, .title = "PHI_2", .family = FAMILY_PHI2, SIZES(32, 2560),
      .spells_bytes = true, .lora_is_f32 = true, .lora_post_is_like_q = true },
    { .id = 5, .title = "FALCON_RW_1B", .family = FAMILY_FALCON, SIZES(24, 2048),
      .spells_bytes = true, .lora_is_f32 = true },
    { .id = 8, .title = "STABLELM_4E1T_3B", .family = FAMILY_STABLELM, SIZES(32, 2560),
      .spells_bytes = true },
};
// clang-format on

const struct family *qp_family(enum family_id id)
{
    assert((unsigned)id < N_FAMILIES);
    return &families[id];
}

enum family_id qp_family_id(const struct family *f)
{
    assert(f >= families && f < families + N_FAMILIES);
    return (enum family_id)(f - families);
}

const struct family *qp_family_named(const char *name)
{
    for (int i = 0; i < N_FAMILIES; i++)
        if (strcmp(families[i].name, name) == 0)
            return &families[i];
    return NULL;
}

void qp_list_name(char *to, size_t size, const char *name, bool is_last)
{
    const size_t n = strlen(to);
    assert(n < size);
    snprintf(to + n, size - n, "%s%s", n == 0 ? "" : is_last ? " and " : ", ", name);
}

void qp_family_list(char *to, size_t size)
{
    *to = 0;
    for (int i = 0; i < N_FAMILIES; i++)
        qp_list_name(to, size, families[i].name, i == N_FAMILIES - 1);
}

const struct model_type *qp_model_type(int id)
{
    for (size_t i = 0; i < QP_COUNT(model_types); i++)
        if (model_types[i].id == id)
            return &model_types[i];
    return NULL;
}

const struct model_type *qp_model_type_named(const char *title)
{
    for (size_t i = 0; i < QP_COUNT(model_types); i++)
        if (strcmp(model_types[i].title, title) == 0)
            return &model_types[i];
    return NULL;
}

const struct model_type *qp_model_type_sized(enum family_id family, int n_layers, int d_model)
{
    for (size_t i = 0; i < QP_COUNT(model_types); i++) {
        const struct model_type *t = &model_types[i];
        if (t->family == family && t->n_layers == n_layers && t->d_model == d_model)
            return t;
    }
    return NULL;
}

const struct model_type *qp_model_type_of_file(const struct format *f)
{
    const struct metadata *type = qp_format_find_metadata(f, "odml.infra.LlmModelType");
    return type && type->type == METADATA_INT && type->i >= 0 && type->i <= INT32_MAX
               ? qp_model_type((int)type->i)
               : NULL;
}
