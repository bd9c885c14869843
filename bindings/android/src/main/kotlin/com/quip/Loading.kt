package com.quip

import android.content.Context
import android.net.Uri
import java.io.File
import java.io.FileInputStream
import java.io.IOException
import java.io.InputStream
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.job
import kotlin.coroutines.coroutineContext

/** How far a [Download] or a [Loading] is, in bytes; a total of -1 is not known. */
data class Progress(val bytes: Long, val totalBytes: Long, val isComplete: Boolean) {
    /** 0 to 1. */
    val fraction: Float get() = if (totalBytes > 0) bytes.toFloat() / totalBytes else 0f
}

/**
 * Opens a model and reads its file once, so that the first answer does not wait for the storage.
 * [Model.open] returns at once instead, and the system reads the weights when the first prompt needs
 * them.
 *
 *     val loading = Loading(context, uri)
 *     val model = loading.run() // while loading.progress says how far it is
 */
class Loading private constructor(
    private val name: String,
    private val open: () -> Model,
    private val openBytes: () -> InputStream,
) {
    /** A file of the app's own storage. */
    @JvmOverloads
    constructor(file: File, options: ModelOptions = ModelOptions()) :
        this(file.path, { Model.openNow(file, options) }, { FileInputStream(file) })

    /** A file that another app provides. */
    @JvmOverloads
    constructor(context: Context, uri: Uri, options: ModelOptions = ModelOptions()) : this(
        uri.toString(),
        { Model.openNow(context, uri, options) },
        { Model.descriptor(context, uri).createInputStream() },
    )

    private val state = MutableStateFlow(Progress(0, -1, false))
    val progress: StateFlow<Progress> = state.asStateFlow()

    /** Returns the model. If the coroutine is cancelled meanwhile, the model is closed. */
    suspend fun run(): Model {
        val job = coroutineContext.job
        return Lane().run({}, Model::close) { runNow { job.ensureActive() } }
    }

    private fun runNow(checkCancelled: () -> Unit): Model {
        val model = open()
        try {
            val total = model.info.fileBytes
            openBytes().use { read(it, total, checkCancelled) }
            state.value = Progress(total, total, true)
            return model
        } catch (e: Throwable) {
            model.close()
            throw if (e is IOException) QuipException(QuipException.Status.IO, "$name: ${e.message}") else e
        }
    }

    /** What is read stays in the system's page cache, where the mapped weights find it. */
    private fun read(from: InputStream, total: Long, checkCancelled: () -> Unit) {
        val buffer = ByteArray(1 shl 20)
        var n = 0L
        while (n < total) {
            checkCancelled()
            val got = from.read(buffer)
            if (got < 0) break
            n += got
            state.value = Progress(minOf(n, total), total, false)
        }
    }
}
