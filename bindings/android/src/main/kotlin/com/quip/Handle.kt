package com.quip

import java.lang.ref.PhantomReference
import java.lang.ref.ReferenceQueue
import java.util.Collections

/**
 * A native object. It is freed when it was closed and no call uses it any more, so a close on one
 * thread does no harm to a call on another.
 */
internal class Handle(
    private val what: String,
    private val pointer: Long,
    private val free: (Long) -> Unit,
    /** Ends the calls that are running; called once, while there are any. */
    private val interrupt: (Long) -> Unit = {},
) {
    private var users = 0
    private var isClosed = false
    private var reference: Forgotten? = null

    fun <T> use(task: (Long) -> T): T {
        synchronized(this) {
            check(!isClosed) { "the $what is closed" }
            users++
        }
        try {
            return task(pointer)
        } finally {
            val isLast = synchronized(this) { --users == 0 && isClosed }
            if (isLast) free(pointer)
        }
    }

    /** Run a short task unless the object was closed. */
    fun ifOpen(task: (Long) -> Unit) = synchronized(this) { if (!isClosed) task(pointer) }

    fun close() = close(isForgotten = false)

    /** The calls of a forgotten object run to their end: a garbage collector may be that early. */
    fun close(isForgotten: Boolean) {
        val isUnused = synchronized(this) {
            if (isClosed) return
            isClosed = true
            if (users > 0 && !isForgotten) interrupt(pointer)
            users == 0
        }
        reference?.drop()
        if (isUnused) Workers.pool.execute { free(pointer) } // unmapping takes a while
    }

    /** Close when the garbage collector finds that the owner is not used any more. */
    fun closeWith(owner: Any) = apply { reference = Forgotten.watch(owner, this) }
}

/** An object that holds a handle. If it is collected before it was closed, its handle is closed. */
internal class Forgotten private constructor(owner: Any, private val handle: Handle) :
    PhantomReference<Any>(owner, queue) {

    fun drop() {
        watched.remove(this)
    }

    companion object {
        private val queue = ReferenceQueue<Any>()
        private val watched = Collections.synchronizedSet(HashSet<Forgotten>()) // keeps them alive

        init {
            Thread(::closeForgotten, "quip-cleaner").apply { isDaemon = true }.start()
        }

        fun watch(owner: Any, handle: Handle) = Forgotten(owner, handle).also(watched::add)

        private fun closeForgotten() {
            while (true) {
                val found = queue.remove() as Forgotten
                found.drop()
                found.handle.close(isForgotten = true)
            }
        }
    }
}
