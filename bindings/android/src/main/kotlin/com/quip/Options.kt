package com.quip

/**
 * How a model is opened: the fields of quip_model_options in quip.h. Zero and false mean the default.
 */
data class ModelOptions @JvmOverloads constructor(
    /** 0: one for each processor that the app may use, without the small ones. */
    @JvmField val nThreads: Int = 0,
    /** Leave the processor to other apps: half the threads, low priority. */
    @JvmField val background: Boolean = false,
    /** Read the weights into memory instead of mapping the file. */
    @JvmField val noMmap: Boolean = false,
    /** Read only the header and the tokenizer, for plans and token counts. */
    @JvmField val noWeights: Boolean = false,
) {
    internal fun image(): ByteArray =
        Image(Abi.MODEL_OPTIONS_BYTES)
            .put(Abi.MODEL_OPTIONS__N_THREADS, nThreads)
            .put(Abi.MODEL_OPTIONS__BACKGROUND, background)
            .put(Abi.MODEL_OPTIONS__NO_MMAP, noMmap)
            .put(Abi.MODEL_OPTIONS__NO_WEIGHTS, noWeights)
            .bytes
}

/**
 * How a session answers: the fields of quip_session_options in quip.h. Zero, null and false mean the
 * default. Kotlin names the arguments; Java sets the fields of a new object.
 */
data class SessionOptions(
    /** Tokens of all prompts and answers; 0: 4096, or the model's maximum. */
    @JvmField var nContext: Int = 0,
    /** Use at most this many of the model's threads; 0: all. */
    @JvmField var nThreads: Int = 0,
    /** Of one answer; 0: no limit but nContext. */
    @JvmField var maxOutputTokens: Int = 0,
    /**
     * 1: the model's probabilities; less: likely tokens become more likely still; 0: as the model file
     * says, or else the library's default, as for topK to minP, penaltyWindow, repeatPenalty and
     * noRepeatNgram.
     */
    @JvmField var temperature: Float = 0f,
    /** Draw from the k most likely tokens; 0: default; -1: no limit. */
    @JvmField var topK: Int = 0,
    /** Then from the fewest tokens whose probabilities add up to p; 0: default; 1: no limit. */
    @JvmField var topP: Float = 0f,
    /** Then from those at least p times as likely as the best; 0: default; -1: no limit. */
    @JvmField var minP: Float = 0f,
    /** null: the library draws one, which [Result.seed] reports. */
    @JvmField var seed: Long? = null,
    /** System prompt. */
    @JvmField var system: String? = null,
    /** Texts that end an answer, in addition to the model's own. */
    @JvmField var stop: List<String> = emptyList(),
    /** How turns are marked, by name; null: as the model file says. */
    @JvmField var chatTemplate: String? = null,
    /** What the model's own template reads: a JSON object such as {"enable_thinking": false}. */
    @JvmField var templateVariables: String? = null,
    /** Pass text on as it is, even if the model has a template. */
    @JvmField var noTemplate: Boolean = false,
    /** Do not run guesses of the next tokens. Slower, but the answer is the same. */
    @JvmField var noSpeculation: Boolean = false,
    /** Always the most likely token, without the penalties that are defaults. */
    @JvmField var greedy: Boolean = false,
    /** Added to the logit of a token; negative infinity: never. */
    @JvmField var logitBias: Map<Int, Float> = emptyMap(),
    /** How many of the last tokens the penalties count; 0: default; -1: all. */
    @JvmField var penaltyWindow: Int = 0,
    @JvmField var repeatPenalty: Float = 0f,
    @JvmField var presencePenalty: Float = 0f,
    @JvmField var frequencyPenalty: Float = 0f,
    @JvmField var dryMultiplier: Float = 0f,
    @JvmField var dryBase: Float = 0f,
    @JvmField var dryAllowedLength: Int = 0,
    @JvmField var noRepeatNgram: Int = 0,
) {
    internal fun image(): ByteArray =
        Image(Abi.SESSION_OPTIONS_BYTES)
            .put(Abi.SESSION_OPTIONS__N_CONTEXT, nContext)
            .put(Abi.SESSION_OPTIONS__N_THREADS, nThreads)
            .put(Abi.SESSION_OPTIONS__MAX_OUTPUT_TOKENS, maxOutputTokens)
            .put(Abi.SESSION_OPTIONS__TEMPERATURE, temperature)
            .put(Abi.SESSION_OPTIONS__TOP_K, topK)
            .put(Abi.SESSION_OPTIONS__TOP_P, topP)
            .put(Abi.SESSION_OPTIONS__MIN_P, minP)
            .put(Abi.SESSION_OPTIONS__SEED, seed ?: 0L)
            .put(Abi.SESSION_OPTIONS__HAS_SEED, seed != null)
            .put(Abi.SESSION_OPTIONS__NO_TEMPLATE, noTemplate)
            .put(Abi.SESSION_OPTIONS__NO_SPECULATION, noSpeculation)
            .put(Abi.SESSION_OPTIONS__GREEDY, greedy)
            .put(Abi.SESSION_OPTIONS__PENALTY_WINDOW, penaltyWindow)
            .put(Abi.SESSION_OPTIONS__REPEAT_PENALTY, repeatPenalty)
            .put(Abi.SESSION_OPTIONS__PRESENCE_PENALTY, presencePenalty)
            .put(Abi.SESSION_OPTIONS__FREQUENCY_PENALTY, frequencyPenalty)
            .put(Abi.SESSION_OPTIONS__DRY_MULTIPLIER, dryMultiplier)
            .put(Abi.SESSION_OPTIONS__DRY_BASE, dryBase)
            .put(Abi.SESSION_OPTIONS__DRY_ALLOWED_LENGTH, dryAllowedLength)
            .put(Abi.SESSION_OPTIONS__NO_REPEAT_NGRAM, noRepeatNgram)
            .bytes

    internal fun texts(): Array<ByteArray?> =
        arrayOf(Native.utf8(system), Native.utf8(chatTemplate), Native.utf8(templateVariables))

    internal fun stops(): Array<ByteArray> = stop.map { it.toByteArray() }.toTypedArray()

    internal fun biases(): ByteArray {
        val image = Image(logitBias.size * Abi.LOGIT_BIAS_BYTES)
        logitBias.entries.forEachIndexed { i, (token, bias) ->
            image.put(i * Abi.LOGIT_BIAS_BYTES + Abi.LOGIT_BIAS__TOKEN, token)
            image.put(i * Abi.LOGIT_BIAS_BYTES + Abi.LOGIT_BIAS__BIAS, bias)
        }
        return image.bytes
    }
}

/** How texts become embeddings: the fields of quip_embed_options in quip.h. */
data class EmbedOptions(
    /** Name of a task prompt of the model, such as "query" or "document". */
    @JvmField var prompt: String? = null,
    /** Put before each text instead of a prompt; "": no prompt. */
    @JvmField var prefix: String? = null,
    /** Keep only the first numbers of each embedding; 0: all. */
    @JvmField var nDimensions: Int = 0,
    /** Tokens of a text; 0: as the model file says. */
    @JvmField var nTokensMax: Int = 0,
    @JvmField var noNormalize: Boolean = false,
    @JvmField var noTruncation: Boolean = false,
) {
    internal fun image(): ByteArray =
        Image(Abi.EMBED_OPTIONS_BYTES)
            .put(Abi.EMBED_OPTIONS__N_DIMENSIONS, nDimensions)
            .put(Abi.EMBED_OPTIONS__N_TOKENS_MAX, nTokensMax)
            .put(Abi.EMBED_OPTIONS__NO_NORMALIZE, noNormalize)
            .put(Abi.EMBED_OPTIONS__NO_TRUNCATION, noTruncation)
            .bytes
}
