package com.quip

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.io.RandomAccessFile
import java.net.HttpURLConnection
import java.net.URL
import java.security.MessageDigest
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.asStateFlow
import kotlinx.coroutines.job
import kotlin.coroutines.coroutineContext

/**
 * Downloads a model file. One that broke, or whose coroutine was cancelled, continues where it ended.
 * The file appears under its name when it is complete; until then it is `<name>.part`.
 *
 *     val download = Download(url, File(context.filesDir, "gemma.bin"), sha256)
 *     download.run()
 */
class Download @JvmOverloads constructor(
    private val url: String,
    private val target: File,
    /** Of the whole file, in hexadecimal; any other file is an error. null: it is not checked. */
    private val sha256: String? = null,
) {
    private val state = MutableStateFlow(Progress(0, -1, false))
    val progress: StateFlow<Progress> = state.asStateFlow()

    private val part = File(target.path + ".part")
    private val version = File(target.path + ".part.etag") // of the file that `part` is a part of

    /** Returns the file, at once if it is there. */
    suspend fun run(): File {
        val job = coroutineContext.job
        val lane = Lane()
        return lane.run(::disconnect) { runNow { job.ensureActive() } }
    }

    @Volatile
    private var connection: HttpURLConnection? = null

    private fun disconnect() {
        connection?.let { Workers.pool.execute(it::disconnect) } // not on the main thread
    }

    private fun runNow(checkCancelled: () -> Unit): File {
        if (target.exists()) {
            state.value = Progress(target.length(), target.length(), true)
            return target
        }
        try {
            val http = open()
            connection = http
            try {
                receive(http, checkCancelled)
            } finally {
                http.disconnect()
                connection = null
            }
        } catch (e: IOException) {
            checkCancelled()
            throw QuipException(QuipException.Status.IO, "$url: ${e.message ?: e.javaClass.simpleName}")
        }
        checkHash(checkCancelled)
        if (!part.renameTo(target))
            throw QuipException(QuipException.Status.IO, "$target: cannot be renamed from $part")
        version.delete()
        state.value = Progress(target.length(), target.length(), true)
        return target
    }

    /** Ask for the rest if the server can tell that the file is still the same. */
    private fun open(): HttpURLConnection {
        val http = Http.open(url)
        val tag = if (version.exists()) version.readText() else ""
        if (part.length() > 0 && tag.isNotEmpty()) {
            http.setRequestProperty("Range", "bytes=${part.length()}-")
            http.setRequestProperty("If-Range", tag)
        }
        return http
    }

    private fun receive(http: HttpURLConnection, checkCancelled: () -> Unit) {
        val code = http.responseCode
        if (code == HTTP_RANGE) { // nothing is left, or the file has become shorter
            part.delete()
            throw IOException("the file has changed; try again")
        }
        if (code != HttpURLConnection.HTTP_OK && code != HttpURLConnection.HTTP_PARTIAL)
            throw IOException("HTTP $code")
        val begin = if (code == HttpURLConnection.HTTP_PARTIAL) part.length() else 0L
        val length = http.contentLengthLong
        val total = if (length < 0) -1 else begin + length
        target.absoluteFile.parentFile?.let {
            it.mkdirs()
            if (length > it.usableSpace)
                throw QuipException(QuipException.Status.IO, "$target: needs $length bytes, the disk has ${it.usableSpace}")
        }
        version.writeText(http.getHeaderField("ETag")?.takeUnless { it.startsWith("W/") }.orEmpty())
        RandomAccessFile(part, "rw").use { out ->
            out.setLength(begin)
            out.seek(begin)
            http.inputStream.use { copy(it, out, begin, total, checkCancelled) }
        }
        if (total >= 0 && part.length() != total)
            throw IOException("ended after ${part.length()} of $total bytes")
    }

    private fun copy(from: InputStream, to: RandomAccessFile, begin: Long, total: Long, checkCancelled: () -> Unit) {
        val buffer = ByteArray(1 shl 16)
        var n = begin
        while (true) {
            checkCancelled()
            val got = from.read(buffer)
            if (got < 0) break
            to.write(buffer, 0, got)
            n += got
            state.value = Progress(n, total, false)
        }
    }

    private fun checkHash(checkCancelled: () -> Unit) {
        if (sha256 == null) return
        val digest = MessageDigest.getInstance("SHA-256")
        part.inputStream().use {
            val buffer = ByteArray(1 shl 16)
            while (true) {
                checkCancelled()
                val got = it.read(buffer)
                if (got < 0) break
                digest.update(buffer, 0, got)
            }
        }
        val found = digest.digest().joinToString("") { String.format("%02x", it) }
        if (found.equals(sha256, ignoreCase = true)) return
        part.delete()
        version.delete()
        throw QuipException(QuipException.Status.FORMAT, "$url: has SHA-256 $found, expected $sha256")
    }

    private companion object {
        const val HTTP_RANGE = 416
    }
}

/** The requests of this package. */
internal object Http {
    private const val TIMEOUT_MS = 30_000

    fun open(url: String): HttpURLConnection {
        val http = URL(url).openConnection() as HttpURLConnection
        http.connectTimeout = TIMEOUT_MS
        http.readTimeout = TIMEOUT_MS
        http.setRequestProperty("Accept-Encoding", "identity") // sizes are those of the file
        return http
    }

    fun size(url: String): Long = request(url) { http ->
        http.requestMethod = "HEAD"
        expect(http, HttpURLConnection.HTTP_OK)
        http.contentLengthLong
    }

    /** The first n bytes. The server may ignore the range. */
    fun read(url: String, n: Int): ByteArray = request(url) { http ->
        http.setRequestProperty("Range", "bytes=0-${n - 1}")
        expect(http, HttpURLConnection.HTTP_OK, HttpURLConnection.HTTP_PARTIAL)
        val bytes = ByteArray(n)
        var done = 0
        http.inputStream.use {
            while (done < n) {
                val got = it.read(bytes, done, n - done)
                if (got < 0) throw IOException("ended after $done of $n bytes")
                done += got
            }
        }
        bytes
    }

    private fun expect(http: HttpURLConnection, vararg codes: Int) {
        if (http.responseCode !in codes) throw IOException("HTTP ${http.responseCode}")
    }

    private fun <T> request(url: String, use: (HttpURLConnection) -> T): T {
        try {
            val http = open(url)
            try {
                return use(http)
            } finally {
                http.disconnect()
            }
        } catch (e: IOException) {
            throw QuipException(QuipException.Status.IO, "$url: ${e.message ?: e.javaClass.simpleName}")
        }
    }
}
