/* llm_parameters.h: field numbers of MediaPipe's LlmParameters proto, which a model file has in its
 * metadata. docs/model-format.md describes them; the names are MediaPipe's, where it has others
 * than this project. */
#ifndef QP_LLM_PARAMETERS_H
#define QP_LLM_PARAMETERS_H

/* LlmParameters */
enum {
    LLM_TRANSFORMER = 1,
    LLM_VOCAB_SIZE = 2,
    LLM_START_TOKEN_ID = 4,
    LLM_STOP_TOKENS = 5,
    LLM_START_TOKEN = 6,
    LLM_NORMALIZATIONS = 7,
    LLM_PROMPT_TEMPLATE = 8,
    LLM_PROMPT_TEMPLATES = 17,
    LLM_STOP_TOKEN_IDS = 18
};
enum {
    NORMALIZATION_GPT2 = 1 // text is in GPT-2's spelling of bytes
};

/* TransformerParameters */
enum {
    TRANSFORMER_BATCH_SIZE = 1,
    TRANSFORMER_D_MODEL = 3,
    TRANSFORMER_D_FF = 4,
    TRANSFORMER_HEAD_DIM = 5,
    TRANSFORMER_N_HEADS = 6,
    TRANSFORMER_N_LAYERS = 7,
    TRANSFORMER_N_KV_HEADS = 9, // 0: n_heads
    TRANSFORMER_FEED_FORWARD = 11,
    TRANSFORMER_HEAD = 12,
    TRANSFORMER_PRE_NORM = 13,
    TRANSFORMER_POST_NORM = 14,
    TRANSFORMER_FINAL_NORM = 15,
    TRANSFORMER_ATTENTION = 16,
    TRANSFORMER_SKIP_ABSOLUTE_POSITIONS = 18,
    TRANSFORMER_LOCAL_PER_GLOBAL = 19,
    TRANSFORMER_GPU_23 = 23, // not published; 1 in files for GPUs
    TRANSFORMER_GPU_24 = 24,
    TRANSFORMER_QUERY_RESCALE = 25,
    TRANSFORMER_ROPE_THETA = 32,
    TRANSFORMER_ROPE_SCALING = 33,
    TRANSFORMER_GEMMA3_BFLOAT16_FIX = 36
};

/* FeedForwardParameters */
enum {
    FEED_FORWARD_NO_BIAS = 1,
    FEED_FORWARD_ACTIVATION = 2,
    FEED_FORWARD_PRE_NORM = 3,
    FEED_FORWARD_POST_NORM = 4
};
enum {
    PROTO_ACTIVATION_GELU = 1,
    PROTO_ACTIVATION_SILU = 2
};
enum {
    PROTO_NORM_NONE = 1,
    PROTO_NORM_RMS = 2,
    PROTO_NORM_LAYER = 3
};

/* FinalProjectParameters */
enum {
    HEAD_NO_BIAS = 1,
    HEAD_SOFT_CAP = 2
};

/* SelfAttentionParameters */
enum {
    ATTENTION_QKV_NO_BIAS = 1,
    ATTENTION_O_NO_BIAS = 2,
    ATTENTION_MASK = 3,
    ATTENTION_SOFT_CAP = 4,
    ATTENTION_SCALE = 5,
    ATTENTION_WINDOW = 6,
    ATTENTION_QK_NORM = 7,
    ATTENTION_QK_NORM_HAS_SCALE = 8
};
enum {
    MASK_CAUSAL = 1
};
enum {
    SCALE_INV_SQRT_HEAD = 2,    // 1 / sqrt(head_dim)
    SCALE_INV_SQRT_D_PER_N = 3, // 1 / sqrt(d_model / n_heads)
    SCALE_RESCALE_FACTOR = 4    // query_rescale / head_dim
};

/* PromptTemplates, and the PromptTemplate of each role */
enum {
    TEMPLATES_USER = 1,
    TEMPLATES_MODEL = 2,
    TEMPLATES_SYSTEM = 3
};
enum {
    TEMPLATE_SESSION_PREFIX = 1,
    TEMPLATE_PREFIX = 2,
    TEMPLATE_SUFFIX = 3
};

#endif
