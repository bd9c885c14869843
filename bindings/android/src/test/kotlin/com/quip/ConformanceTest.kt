package com.quip

import java.io.File
import kotlinx.coroutines.test.runTest
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** The list of tests/conformance.txt, which every binding runs. */
class ConformanceTest {
    private fun unescape(text: String) =
        Regex("""\\u([0-9a-f]{4})""").replace(text) { it.groupValues[1].toInt(16).toChar().toString() }

    private fun options(text: String): SessionOptions {
        val o = SessionOptions()
        for (option in text.split(" ").filter(String::isNotEmpty)) {
            val (name, value) = unescape(option).split("=", limit = 2)
            when (name) {
                "n_context" -> o.nContext = value.toInt()
                "max_output_tokens" -> o.maxOutputTokens = value.toInt()
                "greedy" -> o.greedy = true
                "temperature" -> o.temperature = value.toFloat()
                "top_k" -> o.topK = value.toInt()
                "top_p" -> o.topP = value.toFloat()
                "min_p" -> o.minP = value.toFloat()
                "repeat_penalty" -> o.repeatPenalty = value.toFloat()
                "no_repeat_ngram" -> o.noRepeatNgram = value.toInt()
                "seed" -> o.seed = value.toLong()
                "system" -> o.system = value
                "chat_template" -> o.chatTemplate = value
                "no_template" -> o.noTemplate = true
                "stop" -> o.stop = listOf(value)
                else -> error("unknown option $name")
            }
        }
        return o
    }

    private suspend fun answer(model: Model, options: SessionOptions, prompt: String): String =
        try {
            model.session(options) { chat ->
                val text = chat.ask(prompt)
                val r = chat.result()
                "${r.finishReason.name.lowercase()} ${r.nPromptTokens} ${r.nOutputTokens} $text"
            }
        } catch (e: QuipException) {
            e.message!!
        }

    @Test
    fun theList() = runTest {
        val models = mapOf("llama" to Model.open(Fixtures.tiny), "gemma3" to Model.open(Fixtures.gemma3))
        val lines = File(System.getProperty("quip.cases")).readLines().filter { it.isNotEmpty() && it[0] != '#' }
        for (line in lines) {
            val (kind, name, options, text, expected) = line.split("\t")
            val model = models.getValue(name)
            val found = if (kind == "tokens") model.tokenize(unescape(text)).joinToString(" ")
            else answer(model, options(options), unescape(text))
            assertEquals(line, unescape(expected), found)
        }
        assertTrue(lines.size > 20)
        models.values.forEach(Model::close)
    }
}
