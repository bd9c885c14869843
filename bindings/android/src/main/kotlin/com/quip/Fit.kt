package com.quip

import android.app.ActivityManager
import android.content.Context
import java.io.File
import java.io.RandomAccessFile

/** Whether a model fits into the memory of this device. */
data class Fit(
    val fits: Boolean,
    /** Why not, in one sentence; empty if it fits. */
    val reason: String,
    val info: ModelInfo,
    val plan: Plan,
) {
    internal companion object {
        fun of(context: Context, head: Head, options: SessionOptions): Fit {
            val pointer = head.open()
            val info: ModelInfo
            val plan: Plan
            try {
                info = ModelInfo.read(pointer)
                plan = Plan.read(pointer, options)
            } finally {
                Native.closeModel(pointer)
            }
            val memory = ActivityManager.MemoryInfo()
            (context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager).getMemoryInfo(memory)
            return of(info, plan, memory.totalMem)
        }

        /** A token reads the whole file but its lookup tables: more than the memory is too slow. */
        fun of(info: ModelInfo, plan: Plan, totalBytes: Long): Fit {
            val needed = plan.ownBytes + plan.fileBytes - plan.lookupBytes
            val reason = when {
                needed <= totalBytes -> ""
                else -> "with a context of ${plan.nContext} tokens the model needs ${gigabytes(needed)} of memory; " +
                    "this device has ${gigabytes(totalBytes)}"
            }
            return Fit(reason.isEmpty(), reason, info, plan)
        }

        private fun gigabytes(bytes: Long) = String.format(java.util.Locale.ROOT, "%.2f GB", bytes / 1e9)
    }
}

/** The beginning of a model file; [read] reads the first bytes of it. */
internal class Head(private val name: String, private val size: Long, private val read: (Int) -> ByteArray) {
    /** A model without weights. What precedes the weights may be large: a tokenizer. */
    fun open(): Long {
        var n = FIRST_BYTES
        while (true) {
            val bytes = read(minOf(n.toLong(), size).toInt())
            try {
                return Native.openHead(bytes, size, name.toByteArray())
            } catch (e: QuipException) {
                if (e.status != QuipException.Status.IO || bytes.size >= size || n >= MOST_BYTES) throw e
            }
            n *= 4
        }
    }

    companion object {
        private const val FIRST_BYTES = 4 shl 20
        private const val MOST_BYTES = 256 shl 20

        fun of(file: File): Head = Head(file.path, file.length()) { n ->
            RandomAccessFile(file, "r").use { ByteArray(n).also(it::readFully) }
        }

        fun of(url: String): Head = Head(url, Http.size(url)) { n -> Http.read(url, n) }
    }
}
