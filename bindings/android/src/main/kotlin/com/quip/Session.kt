package com.quip

import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow

/**
 * One conversation with a model. Its calls may come from any thread; they run one after another on a
 * worker thread.
 *
 *     session.say("Why is the sky blue?").collect { print(it) }
 *
 * The model runs only while a piece of the answer is requested, so leaving the flow ends the work,
 * and the text so far stays in the conversation.
 */
class Session internal constructor(
    private val model: Model,
    pointer: Long,
    private var sessionOptions: SessionOptions,
) : AutoCloseable {
    private val lane = Lane()
    private val handle = Handle("session", pointer, Native::closeSession, Native::cancel).closeWith(this)
    private var wasInBackground = false // used on the lane

    // ---- for Kotlin ----

    /** Append the user's turn and generate the model's, piece by piece. */
    fun say(prompt: String): Flow<String> = flow {
        append(prompt)
        while (true) emit(next() ?: break)
    }

    /** The same as one text. */
    suspend fun ask(prompt: String): String {
        val text = StringBuilder()
        say(prompt).collect(text::append)
        return text.toString()
    }

    /** Generate the model's turn without a new prompt, for turns that [append] built. */
    fun answer(): Flow<String> = flow {
        while (true) emit(next() ?: break)
    }

    /** Append text of a role and run the model over it. */
    suspend fun append(text: String, role: Role = Role.USER) = run { appendNow(it, role, text) }

    /** What the last answer took, and why it ended. */
    suspend fun result(): Result = run(Result::read)

    /** Threads that it uses now; fewer while the model is in the background. */
    suspend fun nThreads(): Int = run {
        followBackground(it)
        Native.nThreads(it)
    }

    /** Tokens in the context. */
    suspend fun position(): Int = run(Native::position)

    /** Remove all tokens from [position] on. */
    suspend fun rewind(position: Int) = run { Native.rewind(it, position) }

    /** Return to the state before the last append. */
    suspend fun undo() = run(Native::undo)

    /** How many tokens an append of this text would add. */
    suspend fun countTokens(text: String, role: Role = Role.USER): Int =
        run { Native.countTokens(it, role.code, text.toByteArray()) }

    /** Replace the options for what the session does next. */
    suspend fun setOptions(options: SessionOptions) = run { setOptionsNow(it, options) }

    /** Use an adapter from now on; null: none. The conversation stays. */
    suspend fun setAdapter(adapter: Adapter?, scale: Float = 1f) = run { setAdapterNow(it, adapter, scale) }

    /** A second session that continues from the same point. */
    suspend fun copy(): Session = lane.run(::cancel, Session::close) { copyNow() }

    private suspend fun next(): String? = run(::nextNow)

    private suspend fun <T> run(task: (Long) -> T): T = lane.run(::cancel) { handle.use(task) }

    // ---- for Java: the same calls, which wait ----

    /** [append]; waits until the model has run. Not for the main thread. */
    fun appendBlocking(role: Role, text: String) = block { appendNow(it, role, text) }

    /** The next piece of the answer; null when it has ended. Not for the main thread. */
    fun nextBlocking(): String? = block(::nextNow)

    fun resultBlocking(): Result = block(Result::read)

    fun countTokensBlocking(role: Role, text: String): Int =
        block { Native.countTokens(it, role.code, text.toByteArray()) }

    fun setOptionsBlocking(options: SessionOptions) = block { setOptionsNow(it, options) }

    fun setAdapterBlocking(adapter: Adapter?, scale: Float) = block { setAdapterNow(it, adapter, scale) }

    fun copyBlocking(): Session = lane.block { copyNow() }

    private fun <T> block(task: (Long) -> T): T = lane.block { handle.use(task) }

    // ---- for both ----

    /** End the call that is running. A cancelled answer keeps its text. */
    fun cancel() = handle.ifOpen(Native::cancel)

    /** Ends what is running. Safe on any thread, also during an answer. */
    override fun close() = handle.close()

    // ---- on the lane ----

    private fun appendNow(session: Long, role: Role, text: String) {
        followBackground(session)
        Native.append(session, role.code, text.toByteArray())
    }

    private fun nextNow(session: Long): String? {
        followBackground(session)
        return Native.text(Native.next(session))
    }

    private fun setOptionsNow(session: Long, o: SessionOptions) {
        Native.setOptions(session, o.image(), o.texts(), o.stops(), o.biases())
        sessionOptions = o.copy()
        wasInBackground = false
    }

    private fun setAdapterNow(session: Long, adapter: Adapter?, scale: Float) {
        if (adapter == null) Native.setAdapter(session, 0, 0f)
        else adapter.handle.use { Native.setAdapter(session, it, scale) }
    }

    private fun copyNow(): Session = Session(model, handle.use(Native::cloneSession), sessionOptions.copy())

    /** Use half the threads while the model is in the background. */
    private fun followBackground(session: Long) {
        if (wasInBackground == model.background) return
        wasInBackground = !wasInBackground
        val o = sessionOptions
        val n = if (o.nThreads > 0) o.nThreads else model.info.nThreads
        val changed = if (wasInBackground) o.copy(nThreads = (n + 1) / 2, seed = null) else o.copy(seed = null)
        Native.setOptions(session, changed.image(), changed.texts(), changed.stops(), changed.biases())
    }
}

/** LoRA weights, for any number of sessions of the model that opened it. */
class Adapter internal constructor(pointer: Long) : AutoCloseable {
    internal val handle = Handle("adapter", pointer, Native::closeAdapter).closeWith(this)

    override fun close() = handle.close()
}
