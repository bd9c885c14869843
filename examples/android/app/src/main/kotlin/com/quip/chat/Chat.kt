package com.quip.chat

import com.quip.Loading
import com.quip.Model
import com.quip.QuipException
import com.quip.Result
import com.quip.Session
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.flow.update
import kotlinx.coroutines.launch
import kotlinx.coroutines.withContext

data class Message(val isUser: Boolean, val text: String)

data class ChatState(
    val phase: Phase = Phase.NO_MODEL,
    /** Of opening the model: 0 to 1. */
    val progress: Float = 0f,
    val messages: List<Message> = emptyList(),
    /** Of the last answer. */
    val result: Result? = null,
    /** A sentence for the user. */
    val error: String? = null,
) {
    enum class Phase { NO_MODEL, OPENING, READY, ANSWERING }
}

/** The conversation behind the screen. It knows nothing of Android's views, so a test can run it. */
class Chat(private val scope: CoroutineScope) {
    private val mutableState = MutableStateFlow(ChatState())
    val state: StateFlow<ChatState> = mutableState.asStateFlow()

    var model: Model? = null
        private set
    private var session: Session? = null
    private var answer: Job? = null

    /** Replace the model and begin a conversation with it. */
    fun open(loading: Loading, onOpen: (Model) -> Unit = {}) {
        close()
        mutableState.value = ChatState(ChatState.Phase.OPENING)
        scope.launch {
            val progress = launch {
                loading.progress.collect { p -> mutableState.update { it.copy(progress = p.fraction) } }
            }
            failing(ChatState.Phase.NO_MODEL) {
                val opened = loading.run()
                model = opened
                onOpen(opened)
                session = opened.openSession()
                mutableState.update { it.copy(phase = ChatState.Phase.READY) }
            }
            progress.cancel()
        }
    }

    /** Forget the messages and keep the model. */
    fun begin() {
        val current = model ?: return
        session?.close()
        scope.launch {
            failing(ChatState.Phase.NO_MODEL) {
                session = current.openSession()
                mutableState.value = ChatState(ChatState.Phase.READY)
            }
        }
    }

    fun send(prompt: String) {
        val chat = session ?: return
        if (state.value.phase != ChatState.Phase.READY || prompt.isBlank()) return
        mutableState.update {
            val messages = it.messages + Message(true, prompt) + Message(false, "")
            it.copy(phase = ChatState.Phase.ANSWERING, messages = messages, result = null, error = null)
        }
        answer = scope.launch {
            failing(ChatState.Phase.READY) {
                try {
                    chat.say(prompt).collect(::append)
                } finally {
                    val result = withContext(NonCancellable) { runCatching { chat.result() }.getOrNull() }
                    mutableState.update { it.copy(phase = ChatState.Phase.READY, result = result) }
                }
            }
        }
    }

    /** End the answer and keep its text. */
    fun stop() {
        answer?.cancel()
    }

    fun close() {
        answer?.cancel()
        session?.close()
        model?.close()
        session = null
        model = null
        mutableState.value = ChatState()
    }

    private fun append(piece: String) = mutableState.update {
        val last = it.messages.last()
        it.copy(messages = it.messages.dropLast(1) + last.copy(text = last.text + piece))
    }

    private suspend fun failing(phase: ChatState.Phase, work: suspend () -> Unit) {
        try {
            work()
        } catch (e: CancellationException) {
            throw e
        } catch (e: QuipException) {
            mutableState.update { it.copy(phase = phase, error = e.message) }
        } catch (e: IllegalStateException) { // closed meanwhile
            mutableState.update { it.copy(error = e.message) }
        }
    }
}
