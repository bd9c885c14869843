package com.quip;

/** Constants and struct layouts of quip.h. Made by tools/abi.py. */
final class Abi {
    static final int OK = 0;
    static final int E_ARGUMENT = -1;
    static final int E_MEMORY = -2;
    static final int E_IO = -3;
    static final int E_FORMAT = -4;
    static final int E_UNSUPPORTED = -5;
    static final int E_CONTEXT_FULL = -6;
    static final int E_CANCELLED = -7;
    static final int E_DEVICE = -8;

    static final int BACKEND_AUTO = 0;
    static final int BACKEND_CPU = 1;
    static final int BACKEND_GPU = 2;

    static final int FINISH_NONE = 0;
    static final int FINISH_STOP = 1;
    static final int FINISH_LENGTH = 2;
    static final int FINISH_CONTEXT = 3;
    static final int FINISH_CANCELLED = 4;
    static final int FINISH_CALLBACK = 5;

    static final int ROLE_NONE = 0;
    static final int ROLE_USER = 1;
    static final int ROLE_MODEL = 2;
    static final int ROLE_SYSTEM = 3;

    static final int POOLING_MODEL = 0;
    static final int POOLING_MEAN = 1;
    static final int POOLING_FIRST = 2;
    static final int POOLING_LAST = 3;

    static final int MODEL_OPTIONS_BYTES = 88;
    static final int MODEL_OPTIONS__BACKEND = 0;
    static final int MODEL_OPTIONS__N_THREADS = 4;
    static final int MODEL_OPTIONS__BACKGROUND = 8;
    static final int MODEL_OPTIONS__NO_MMAP = 9;
    static final int MODEL_OPTIONS__NO_WEIGHTS = 10;
    static final int MODEL_OPTIONS__NAME = 16;
    static final int MODEL_OPTIONS__RESERVED = 24;

    static final int MODEL_INFO_BYTES = 144;
    static final int MODEL_INFO__STRUCT_SIZE = 0;
    static final int MODEL_INFO__BACKEND = 4;
    static final int MODEL_INFO__ARCHITECTURE = 8;
    static final int MODEL_INFO__WEIGHTS = 16;
    static final int MODEL_INFO__N_PARAMETERS = 24;
    static final int MODEL_INFO__FILE_BYTES = 32;
    static final int MODEL_INFO__N_LAYERS = 40;
    static final int MODEL_INFO__D_MODEL = 44;
    static final int MODEL_INFO__D_FF = 48;
    static final int MODEL_INFO__N_HEADS = 52;
    static final int MODEL_INFO__N_KV_HEADS = 56;
    static final int MODEL_INFO__HEAD_DIM = 60;
    static final int MODEL_INFO__VOCAB_SIZE = 64;
    static final int MODEL_INFO__N_CONTEXT_MAX = 68;
    static final int MODEL_INFO__BOS = 72;
    static final int MODEL_INFO__N_THREADS = 76;
    static final int MODEL_INFO__HAS_TEMPLATE = 80;
    static final int MODEL_INFO__IS_EMBEDDING = 81;
    static final int MODEL_INFO__N_EMBEDDING = 84;
    static final int MODEL_INFO__N_EXPERTS = 88;
    static final int MODEL_INFO__N_EXPERTS_USED = 92;
    static final int MODEL_INFO__N_ACTIVE_PARAMETERS = 96;
    static final int MODEL_INFO__HAS_SAMPLING = 104;
    static final int MODEL_INFO__DEFAULT_TEMPERATURE = 108;
    static final int MODEL_INFO__DEFAULT_TOP_K = 112;
    static final int MODEL_INFO__DEFAULT_TOP_P = 116;
    static final int MODEL_INFO__DEFAULT_MIN_P = 120;
    static final int MODEL_INFO__DEFAULT_REPEAT_PENALTY = 124;
    static final int MODEL_INFO__DEFAULT_PENALTY_WINDOW = 128;
    static final int MODEL_INFO__DEFAULT_NO_REPEAT_NGRAM = 132;
    static final int MODEL_INFO__BACKEND_REASON = 136;

    static final int SESSION_OPTIONS_BYTES = 152;
    static final int SESSION_OPTIONS__N_CONTEXT = 0;
    static final int SESSION_OPTIONS__N_THREADS = 4;
    static final int SESSION_OPTIONS__MAX_OUTPUT_TOKENS = 8;
    static final int SESSION_OPTIONS__TOP_K = 12;
    static final int SESSION_OPTIONS__TOP_P = 16;
    static final int SESSION_OPTIONS__TEMPERATURE = 20;
    static final int SESSION_OPTIONS__SEED = 24;
    static final int SESSION_OPTIONS__HAS_SEED = 32;
    static final int SESSION_OPTIONS__NO_TEMPLATE = 33;
    static final int SESSION_OPTIONS__NO_SPECULATION = 34;
    static final int SESSION_OPTIONS__GREEDY = 35;
    static final int SESSION_OPTIONS__N_STOP = 36;
    static final int SESSION_OPTIONS__STOP = 40;
    static final int SESSION_OPTIONS__SYSTEM = 48;
    static final int SESSION_OPTIONS__CHAT_TEMPLATE = 56;
    static final int SESSION_OPTIONS__MIN_P = 64;
    static final int SESSION_OPTIONS__N_LOGIT_BIAS = 68;
    static final int SESSION_OPTIONS__LOGIT_BIAS = 72;
    static final int SESSION_OPTIONS__PENALTY_WINDOW = 80;
    static final int SESSION_OPTIONS__REPEAT_PENALTY = 84;
    static final int SESSION_OPTIONS__PRESENCE_PENALTY = 88;
    static final int SESSION_OPTIONS__FREQUENCY_PENALTY = 92;
    static final int SESSION_OPTIONS__DRY_MULTIPLIER = 96;
    static final int SESSION_OPTIONS__DRY_BASE = 100;
    static final int SESSION_OPTIONS__DRY_ALLOWED_LENGTH = 104;
    static final int SESSION_OPTIONS__NO_REPEAT_NGRAM = 108;
    static final int SESSION_OPTIONS__TEMPLATE_VARIABLES = 112;
    static final int SESSION_OPTIONS__DRAFT = 120;
    static final int SESSION_OPTIONS__RESERVED = 128;

    static final int LOGIT_BIAS_BYTES = 8;
    static final int LOGIT_BIAS__TOKEN = 0;
    static final int LOGIT_BIAS__BIAS = 4;

    static final int RESULT_BYTES = 64;
    static final int RESULT__STRUCT_SIZE = 0;
    static final int RESULT__FINISH_REASON = 4;
    static final int RESULT__N_PROMPT_TOKENS = 8;
    static final int RESULT__N_OUTPUT_TOKENS = 12;
    static final int RESULT__PREFILL_NS = 16;
    static final int RESULT__DECODE_NS = 24;
    static final int RESULT__FIRST_TOKEN_NS = 32;
    static final int RESULT__SEED = 40;
    static final int RESULT__BACKEND = 48;
    static final int RESULT__N_DRAFT_TOKENS = 52;
    static final int RESULT__N_DRAFT_RIGHT = 56;

    static final int PLAN_BYTES = 56;
    static final int PLAN__STRUCT_SIZE = 0;
    static final int PLAN__N_CONTEXT = 4;
    static final int PLAN__FILE_BYTES = 8;
    static final int PLAN__MODEL_BYTES = 16;
    static final int PLAN__KV_BYTES = 24;
    static final int PLAN__SCRATCH_BYTES = 32;
    static final int PLAN__SHARED_BYTES = 40;
    static final int PLAN__LOOKUP_BYTES = 48;

    static final int EMBED_OPTIONS_BYTES = 72;
    static final int EMBED_OPTIONS__PROMPT = 0;
    static final int EMBED_OPTIONS__PREFIX = 8;
    static final int EMBED_OPTIONS__POOLING = 16;
    static final int EMBED_OPTIONS__N_DIMENSIONS = 20;
    static final int EMBED_OPTIONS__N_TOKENS_MAX = 24;
    static final int EMBED_OPTIONS__N_THREADS = 28;
    static final int EMBED_OPTIONS__NO_NORMALIZE = 32;
    static final int EMBED_OPTIONS__NO_TRUNCATION = 33;
    static final int EMBED_OPTIONS__RESERVED = 40;

    private Abi() {}
}
