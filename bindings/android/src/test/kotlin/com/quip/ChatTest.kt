package com.quip

import com.quip.chat.Chat
import com.quip.chat.ChatState.Phase
import java.io.File
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.withTimeout
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

/** The conversation of the sample app, examples/android. */
@OptIn(ExperimentalCoroutinesApi::class)
class ChatTest {
    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default.limitedParallelism(1))
    private val chat = Chat(scope)

    @After
    fun end() {
        chat.close()
        scope.cancel()
    }

    private suspend fun until(phase: Phase) = withTimeout(60_000) { chat.state.first { it.phase == phase } }

    @Test
    fun messagesAndTheirAnswers() = runBlocking {
        chat.open(Loading(Fixtures.tiny))
        assertEquals(1f, until(Phase.READY).progress)
        chat.send(" ")
        assertEquals(0, chat.state.value.messages.size)
        chat.send("Why?")
        val (question, answer) = until(Phase.READY).messages
        assertTrue(question.isUser && question.text == "Why?")
        assertTrue(!answer.isUser && answer.text.isNotEmpty())
        assertTrue(chat.state.value.result!!.nOutputTokens > 0)
        chat.begin()
        withTimeout(60_000) { chat.state.first { it.messages.isEmpty() } }
        assertEquals(Phase.READY, chat.state.value.phase)
    }

    @Test
    fun stopKeepsTheText() = runBlocking {
        chat.open(Loading(Fixtures.slow))
        until(Phase.READY)
        chat.send("Why?")
        withTimeout(60_000) { chat.state.first { it.messages.lastOrNull()?.text.orEmpty().length > 3 } }
        chat.stop()
        assertTrue(until(Phase.READY).messages.last().text.length > 3)
    }

    @Test
    fun aFileThatIsNotAModel() = runBlocking {
        chat.open(Loading(File("/absent")))
        val state = withTimeout(60_000) { chat.state.first { it.error != null } }
        assertEquals(Phase.NO_MODEL, state.phase)
        assertTrue(state.error!!.contains("/absent"))
    }
}
