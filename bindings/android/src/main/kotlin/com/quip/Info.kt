package com.quip

/** Properties of a model: quip_model_info in quip.h. */
data class ModelInfo(
    val architecture: String,
    /** "int8", "int4", "mixed" or "f32". */
    val weights: String,
    val nParameters: Long,
    val fileBytes: Long,
    val nLayers: Int,
    val vocabSize: Int,
    /** The largest nContext; 0: the file does not limit it. */
    val nContextMax: Int,
    val nThreads: Int,
    /** Turns are marked with the model's template; false: a base model. */
    val hasTemplate: Boolean,
    /** A model for [Model.embed]; it has no sessions. */
    val isEmbedding: Boolean,
    /** Numbers of an embedding. */
    val nEmbedding: Int,
) {
    internal companion object {
        fun read(model: Long): ModelInfo {
            val image = Image(Native.modelInfo(model))
            return ModelInfo(
                architecture = Native.text(Native.modelText(model, 0)).orEmpty(),
                weights = Native.text(Native.modelText(model, 1)).orEmpty(),
                nParameters = image.long(Abi.MODEL_INFO__N_PARAMETERS),
                fileBytes = image.long(Abi.MODEL_INFO__FILE_BYTES),
                nLayers = image.int(Abi.MODEL_INFO__N_LAYERS),
                vocabSize = image.int(Abi.MODEL_INFO__VOCAB_SIZE),
                nContextMax = image.int(Abi.MODEL_INFO__N_CONTEXT_MAX),
                nThreads = image.int(Abi.MODEL_INFO__N_THREADS),
                hasTemplate = image.bool(Abi.MODEL_INFO__HAS_TEMPLATE),
                isEmbedding = image.bool(Abi.MODEL_INFO__IS_EMBEDDING),
                nEmbedding = image.int(Abi.MODEL_INFO__N_EMBEDDING),
            )
        }
    }
}

/** The memory that a model and one session need, in bytes: quip_plan in quip.h. */
data class Plan(
    val nContext: Int,
    /** The file, which is mapped: the system can take its pages away and read them again. */
    val fileBytes: Long,
    /** What an open model needs beside the file. */
    val modelBytes: Long,
    /** Keys and values of a full context. */
    val kvBytes: Long,
    /** Everything else. */
    val scratchBytes: Long,
    /** The part of fileBytes of which each token reads one row. */
    val lookupBytes: Long,
) {
    /** Memory of the app itself, without the mapped file. */
    val ownBytes: Long get() = modelBytes + kvBytes + scratchBytes

    internal companion object {
        fun read(model: Long, o: SessionOptions): Plan {
            val image = Image(Native.modelPlan(model, o.image(), o.texts(), o.stops(), o.biases()))
            return Plan(
                nContext = image.int(Abi.PLAN__N_CONTEXT),
                fileBytes = image.long(Abi.PLAN__FILE_BYTES),
                modelBytes = image.long(Abi.PLAN__MODEL_BYTES),
                kvBytes = image.long(Abi.PLAN__KV_BYTES),
                scratchBytes = image.long(Abi.PLAN__SCRATCH_BYTES),
                lookupBytes = image.long(Abi.PLAN__LOOKUP_BYTES),
            )
        }
    }
}

/** Why an answer ended. */
enum class FinishReason(internal val code: Int) {
    /** It has not ended. */
    NONE(Abi.FINISH_NONE),

    /** The model ended its turn, or produced a stop text. */
    STOP(Abi.FINISH_STOP),

    /** maxOutputTokens was reached. */
    LENGTH(Abi.FINISH_LENGTH),

    /** nContext was reached. */
    CONTEXT(Abi.FINISH_CONTEXT),
    CANCELLED(Abi.FINISH_CANCELLED),
}

/** What an answer has taken so far: quip_result in quip.h. */
data class Result(
    val finishReason: FinishReason,
    val nPromptTokens: Int,
    val nOutputTokens: Int,
    val prefillNanos: Long,
    val decodeNanos: Long,
    val firstTokenNanos: Long,
    val seed: Long,
) {
    /** Of the answer after its first token; 0 if there was no second one. */
    val tokensPerSecond: Double
        get() = if (nOutputTokens > 1 && decodeNanos > 0) (nOutputTokens - 1) * 1e9 / decodeNanos else 0.0

    internal companion object {
        fun read(session: Long): Result {
            val image = Image(Native.result(session))
            val reason = image.int(Abi.RESULT__FINISH_REASON)
            return Result(
                finishReason = FinishReason.values().find { it.code == reason } ?: FinishReason.STOP,
                nPromptTokens = image.int(Abi.RESULT__N_PROMPT_TOKENS),
                nOutputTokens = image.int(Abi.RESULT__N_OUTPUT_TOKENS),
                prefillNanos = image.long(Abi.RESULT__PREFILL_NS),
                decodeNanos = image.long(Abi.RESULT__DECODE_NS),
                firstTokenNanos = image.long(Abi.RESULT__FIRST_TOKEN_NS),
                seed = image.long(Abi.RESULT__SEED),
            )
        }
    }
}

/** Whose text it is: quip_role in quip.h. */
enum class Role(internal val code: Int) {
    /** No role, no template. Control tokens spelled out in the text are recognized. */
    NONE(Abi.ROLE_NONE),
    USER(Abi.ROLE_USER),
    MODEL(Abi.ROLE_MODEL),
    SYSTEM(Abi.ROLE_SYSTEM),
}
