package com.quip

import com.quip.QuipException.Status
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.collect
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.runTest
import kotlinx.coroutines.withContext
import org.junit.AfterClass
import org.junit.Assert.assertEquals
import org.junit.Assert.assertNotEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Assert.fail
import org.junit.BeforeClass
import org.junit.Test

class SessionTest {
    @Test
    fun theAnswerIsThatOfTheProgram() = runTest {
        val text = model.session(Fixtures.greedy) { chat ->
            val pieces = chat.say(Fixtures.PROMPT).toList()
            val result = chat.result()
            assertTrue(pieces.size > 1)
            assertEquals(Fixtures.N_TOKENS, result.nOutputTokens)
            assertEquals(FinishReason.LENGTH, result.finishReason)
            assertTrue(result.firstTokenNanos > 0 && result.tokensPerSecond > 0)
            assertTrue(chat.position() >= result.nPromptTokens)
            pieces.joinToString("")
        }
        assertEquals(Fixtures.answer, text)
    }

    @Test
    fun aSeedRepeatsAnAnswer() = runTest {
        suspend fun answer(seed: Long?) =
            model.session(SessionOptions(maxOutputTokens = 20, temperature = 1f, seed = seed)) {
                it.ask("the") to it.result().seed
            }
        val (text, seed) = answer(null)
        assertEquals(text to seed, answer(seed))
        assertNotEquals(answer(1).first, answer(2).first)
    }

    @Test
    fun turnsUndoRewindAndCopies() = runTest {
        model.session(Fixtures.greedy) { chat ->
            val first = chat.ask("the hen")
            val position = chat.position()
            val n = chat.countTokens("and then?")
            chat.append("and then?")
            assertTrue(chat.position() >= position + n)
            chat.copy().use { copy -> assertEquals(copy.answer().toList(), chat.answer().toList()) }
            chat.undo()
            assertEquals(position, chat.position())
            chat.rewind(0)
            assertEquals(first, chat.ask("the hen"))
            chat.setOptions(SessionOptions(maxOutputTokens = 3, greedy = true))
            chat.ask("more")
            assertEquals(3, chat.result().nOutputTokens)
        }
    }

    @Test
    fun optionsReachTheLibrary() = runTest {
        val plain = model.session(Fixtures.greedy) { it.ask("the") }
        val stop = plain.substring(2, 4)
        val o = Fixtures.greedy.copy(stop = listOf(stop), logitBias = emptyMap())
        model.session(o) { assertEquals(plain.substringBefore(stop), it.ask("the")) }
        val first = model.tokenize(plain).first { model.detokenize(intArrayOf(it)).isNotBlank() }
        val biased = Fixtures.greedy.copy(logitBias = mapOf(first to Float.NEGATIVE_INFINITY), repeatPenalty = 1.5f)
        model.session(biased) { assertNotEquals(plain, it.ask("the")) }
    }

    @Test
    fun textsOfEveryKind() = runTest {
        model.session(SessionOptions(maxOutputTokens = 2)) { chat ->
            for (text in listOf("", "\u0000", "\uD83D\uDE00", "half a pair \uD83D", "\u0000a\u0000", "é".repeat(300))) {
                chat.say(text).collect()
            }
        }
    }

    @Test
    fun aFullContextIsAnErrorAndTheSessionGoesOn() = runTest {
        model.session(SessionOptions(nContext = 64, maxOutputTokens = 4)) { chat ->
            try {
                chat.ask("hen ".repeat(500))
                fail()
            } catch (e: QuipException) {
                assertEquals(Status.CONTEXT_FULL, e.status)
            }
            assertEquals(0, chat.position())
            chat.ask("hen")
        }
    }

    /** The model runs only while a piece is requested. */
    @Test
    fun leavingTheFlowEndsTheWork() = runTest {
        model.session(SessionOptions(nContext = 512, greedy = true)) { chat ->
            assertEquals(2, chat.say("the").take(2).toList().size)
            val position = chat.position()
            assertEquals(position, chat.position())
            assertTrue(position < 100)
            chat.say("the").take(1).collect()
        }
    }

    /** A cancelled scope ends a prompt that would take long, and the session can be used again. */
    @Test
    fun cancellingTheScopeEndsThePrompt() = runBlocking {
        Model.open(Fixtures.slow).use { slow ->
            val chat = slow.openSession(SessionOptions(nContext = 40_000))
            val begin = System.nanoTime()
            val job = launch(Dispatchers.Default) { chat.append("hen ".repeat(12_000)) }
            delay(200)
            job.cancelAndJoin()
            assertEquals(0, chat.position()) // waits until the call has ended
            assertTrue((System.nanoTime() - begin) / 1e9 < 20)
            chat.append("hen")
            assertTrue(chat.position() > 0)
            chat.close()
        }
    }

    @Test
    fun cancelKeepsTheText() = runBlocking {
        model.session(SessionOptions(nContext = 512, greedy = true)) { chat ->
            val pieces = mutableListOf<String>()
            chat.say("the").collect {
                pieces += it
                if (pieces.size == 3) chat.cancel()
            }
            assertEquals(3, pieces.size)
            assertEquals(FinishReason.CANCELLED, chat.result().finishReason)
        }
    }

    /** Calls of several coroutines run one after another, whatever thread they come from. */
    @Test
    fun oneSessionOnManyThreads() = runBlocking {
        model.session(SessionOptions(nContext = 2048, maxOutputTokens = 3)) { chat ->
            withContext(Dispatchers.IO) {
                List(40) { async { chat.append("hen $it"); chat.position() } }.awaitAll()
            }
            assertTrue(chat.position() > 40)
        }
    }

    @Test
    fun manySessionsAtOnce() = runBlocking {
        withContext(Dispatchers.IO) {
            val texts = List(8) { async { model.session(Fixtures.greedy) { it.ask(Fixtures.PROMPT) } } }.awaitAll()
            assertEquals(setOf(Fixtures.answer), texts.toSet())
        }
    }

    @Test
    fun aClosedSessionIsAnError() = runBlocking {
        val chat = model.openSession()
        chat.close()
        chat.close()
        chat.cancel()
        val calls = listOf<suspend () -> Any?>(
            { chat.ask("a") }, { chat.position() }, { chat.copy() }, { chat.result() }, { chat.undo() },
        )
        for (call in calls) {
            assertThrows(IllegalStateException::class.java) { runBlocking { call() } }
        }
    }

    /** A close during an answer ends it; nothing crashes. */
    @Test
    fun closingWhileAnswering() = runBlocking {
        repeat(20) { i ->
            val chat = model.openSession(SessionOptions(nContext = 2048, greedy = true)) // drawn, it can be empty
            val started = CompletableDeferred<Unit>()
            val job = launch(Dispatchers.IO) {
                try {
                    chat.say("the").collect { started.complete(Unit) }
                } catch (e: IllegalStateException) {
                    assertEquals("the session is closed", e.message)
                }
            }
            started.await()
            delay(i.toLong() % 4)
            chat.close()
            job.join()
        }
    }

    /** Every piece is a local reference in native code. -Xcheck:jni reports those that are left. */
    @Test
    fun tenThousandPieces() {
        model.openSessionBlocking(SessionOptions(nContext = 512, temperature = 2f, seed = 1)).use { chat ->
            var n = 0
            while (n < 10_000) {
                runBlocking { chat.rewind(0) }
                chat.appendBlocking(Role.USER, "the")
                while (chat.nextBlocking() != null) n++
            }
        }
    }

    /** No native call is made by the caller's thread, which may be the main thread. */
    @Test
    fun nativeCallsRunOnWorkers() = runBlocking {
        val lane = Lane()
        assertTrue(lane.run({}) { Thread.currentThread().name }.startsWith("quip-"))
        assertTrue(lane.block { Thread.currentThread().name }.startsWith("quip-"))
    }

    @Test
    fun inTheBackgroundASessionHasHalfOfItsThreads() = runTest {
        Model.open(Fixtures.tiny, ModelOptions(nThreads = 5)).use { own ->
            own.openSession().use { chat ->
                val few = own.openSession(SessionOptions(nThreads = 2))
                assertEquals(listOf(5, 2), listOf(chat.nThreads(), few.nThreads()))
                own.background = true
                assertEquals(listOf(3, 1), listOf(chat.nThreads(), few.nThreads()))
                own.background = false
                assertEquals(listOf(5, 2), listOf(chat.nThreads(), few.nThreads()))
            }
        }
    }

    @Test
    fun inTheBackgroundTheAnswerIsTheSame() = runTest {
        Model.open(Fixtures.tiny).use { own ->
            own.session(Fixtures.greedy) { chat ->
                var n = 0
                val text = StringBuilder()
                chat.say(Fixtures.PROMPT).collect {
                    own.background = n++ % 3 == 0
                    text.append(it)
                }
                assertEquals(Fixtures.answer, text.toString())
            }
        }
    }

    companion object {
        private lateinit var model: Model

        @BeforeClass
        @JvmStatic
        fun open() {
            model = Model.openBlocking(Fixtures.tiny)
        }

        @AfterClass
        @JvmStatic
        fun close() = model.close()
    }
}
