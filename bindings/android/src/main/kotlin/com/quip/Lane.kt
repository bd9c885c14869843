package com.quip

import java.util.ArrayDeque
import java.util.concurrent.Callable
import java.util.concurrent.CompletableFuture
import java.util.concurrent.CompletionException
import java.util.concurrent.Executor
import java.util.concurrent.ExecutorService
import java.util.concurrent.SynchronousQueue
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicInteger
import kotlinx.coroutines.CancellableContinuation
import kotlinx.coroutines.ExperimentalCoroutinesApi
import kotlinx.coroutines.suspendCancellableCoroutine
import kotlin.coroutines.resumeWithException

/** The threads of this package. They end when they have had nothing to do for ten seconds. */
internal object Workers {
    private val number = AtomicInteger()

    val pool: ExecutorService =
        ThreadPoolExecutor(0, Int.MAX_VALUE, 10, TimeUnit.SECONDS, SynchronousQueue()) { task ->
            Thread(task, "quip-${number.incrementAndGet()}").apply { isDaemon = true }
        }
}

/**
 * Runs tasks one after another, on threads of [Workers]. A session has one: whatever thread calls
 * it, native code runs one call at a time, in order.
 */
internal class Lane : Executor {
    private val tasks = ArrayDeque<Runnable>()
    private var isActive = false
    private var current: Any? = null // the caller of the task that is running

    override fun execute(task: Runnable) {
        synchronized(this) {
            tasks.add(task)
            if (isActive) return
            isActive = true
        }
        Workers.pool.execute(::drain)
    }

    private fun drain() {
        while (true) {
            val task = synchronized(this) {
                tasks.poll() ?: run {
                    isActive = false
                    return
                }
            }
            task.run() // tasks deliver their exceptions to their callers
        }
    }

    /** Run a task and wait for it. If the coroutine is cancelled meanwhile, so is the native call. */
    suspend fun <T> run(cancel: () -> Unit, discard: (T) -> Unit = {}, task: () -> T): T =
        suspendCancellableCoroutine { caller ->
            caller.invokeOnCancellation { synchronized(this) { if (current === caller) cancel() } }
            execute { runFor(caller, discard, task) }
        }

    @OptIn(ExperimentalCoroutinesApi::class)
    private fun <T> runFor(caller: CancellableContinuation<T>, discard: (T) -> Unit, task: () -> T) {
        synchronized(this) {
            if (!caller.isActive) return
            current = caller
        }
        val result = runCatching(task)
        synchronized(this) { current = null }
        result.fold(
            { value -> caller.resume(value) { discard(value) } },
            { error -> caller.resumeWithException(error) },
        )
    }

    /** The same for a thread that may block. */
    fun <T> block(task: Callable<T>): T {
        val future = CompletableFuture<T>()
        execute {
            runCatching(task::call).fold(future::complete, future::completeExceptionally)
        }
        try {
            return future.join()
        } catch (e: CompletionException) {
            throw e.cause ?: e
        }
    }
}
