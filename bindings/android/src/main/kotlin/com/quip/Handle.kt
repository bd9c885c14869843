package com.quip

/**
 * A native object. It is freed when it was closed and no call uses it any more, so a close on one
 * thread does no harm to a call on another.
 */
internal class Handle(private val what: String, private val pointer: Long, private val free: (Long) -> Unit) {
    private var users = 0
    private var isClosed = false

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

    /** False if it was closed before. */
    fun close(): Boolean {
        val isFree = synchronized(this) {
            if (isClosed) return false
            isClosed = true
            users == 0
        }
        if (isFree) Workers.pool.execute { free(pointer) } // unmapping takes a while
        return true
    }
}
