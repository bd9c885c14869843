package com.quip

import java.io.File

/** The models that tests/android_java.sh wrote, and the answer of the native program. */
object Fixtures {
    private val folder = File(System.getProperty("quip.models") ?: error("quip.models is not set"))

    const val PROMPT = "Why is the sky blue?"
    const val N_TOKENS = 40

    val tiny = File(folder, "tiny.bin")

    val gemma3 = File(folder, "gemma3.bin")

    /** Needs seconds for a long prompt. */
    val slow = File(folder, "slow.bin")

    /** LoRA weights for [tiny]. */
    val adapter = File(folder, "adapter")

    /** The program's greedy answer to [PROMPT] with [N_TOKENS] tokens. */
    val answer: String get() = File(folder, "answer.txt").readText()

    val greedy get() = SessionOptions(maxOutputTokens = N_TOKENS, nContext = 512, greedy = true)

    /** A new file with [tiny] at an offset, as an asset is a part of a package. */
    fun tinyInAFile(offset: Int): File {
        val file = File.createTempFile("quip", ".apk")
        file.writeBytes(ByteArray(offset) + tiny.readBytes() + ByteArray(99))
        return file
    }

    /** Whether this process has mapped the file: its weights are used, not copied. */
    fun isMapped(file: File): Boolean = File("/proc/self/maps").useLines { lines -> lines.any { file.path in it } }

    fun status(block: () -> Unit): QuipException.Status? =
        try {
            block()
            null
        } catch (e: QuipException) {
            e.status
        }
}
