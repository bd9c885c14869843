package com.quip

import com.quip.QuipException.Status
import com.sun.net.httpserver.HttpExchange
import com.sun.net.httpserver.HttpServer
import java.io.File
import java.net.InetSocketAddress
import java.security.MessageDigest
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test

class DownloadTest {
    private val content = ByteArray(3_000_000) { (it * 31 shr 5).toByte() }
    private val hash = MessageDigest.getInstance("SHA-256").digest(content).joinToString("") { "%02x".format(it) }
    private val folder = File.createTempFile("quip", "").also { it.delete() }
    private val target = File(folder, "model.bin")
    private val server = HttpServer.create(InetSocketAddress("127.0.0.1", 0), 0)
    private val url get() = "http://127.0.0.1:${server.address.port}/model.bin"
    private val ranges = mutableListOf<String?>()
    private var tag = "\"1\""
    private var breaksAfter = Int.MAX_VALUE

    @Before
    fun start() {
        server.createContext("/model.bin", ::answer)
        server.executor = Workers.pool
        server.start()
    }

    @After
    fun stop() {
        server.stop(0)
        folder.deleteRecursively()
    }

    private fun answer(http: HttpExchange) {
        val range = http.requestHeaders.getFirst("Range")
        ranges += range
        val isCurrent = http.requestHeaders.getFirst("If-Range") == tag
        val begin = if (isCurrent) range!!.removePrefix("bytes=").substringBefore("-").toInt() else 0
        http.responseHeaders.add("ETag", tag)
        http.sendResponseHeaders(if (isCurrent) 206 else 200, (content.size - begin).toLong())
        try {
            val end = minOf(content.size.toLong(), begin + breaksAfter.toLong()).toInt()
            http.responseBody.write(content, begin, end - begin)
            if (end == content.size) http.responseBody.close()
        } catch (_: java.io.IOException) { // the client has gone
        }
        http.close()
    }

    private fun download(sha256: String? = hash) = Download(url, target, sha256)

    @Test
    fun aFileWithItsHash() = runBlocking {
        val download = download()
        assertEquals(target, download.run())
        assertArrayEquals(content, target.readBytes())
        assertEquals(Progress(3_000_000, 3_000_000, true), download.progress.value)
        assertEquals(listOf("model.bin"), folder.list()!!.toList())
        download().run()
        assertEquals(1, ranges.size) // the file was there
    }

    @Test
    fun aBrokenDownloadContinues() = runBlocking {
        breaksAfter = 1_000_000
        val e = assertThrows(QuipException::class.java) { runBlocking { download().run() } }
        assertEquals(Status.IO, e.status)
        assertFalse(target.exists())
        val there = File(folder, "model.bin.part").length()
        assertTrue(there in 1..1_000_000)
        breaksAfter = Int.MAX_VALUE
        download().run()
        assertArrayEquals(content, target.readBytes())
        assertEquals(listOf(null, "bytes=$there-"), ranges)
    }

    @Test
    fun aChangedFileBeginsAgain() = runBlocking {
        breaksAfter = 1_000_000
        assertThrows(QuipException::class.java) { runBlocking { download().run() } }
        breaksAfter = Int.MAX_VALUE
        tag = "\"2\""
        download().run()
        assertArrayEquals(content, target.readBytes())
    }

    @Test
    fun anotherFileIsAnError() = runBlocking {
        val e = assertThrows(QuipException::class.java) { runBlocking { download("00" + hash.drop(2)).run() } }
        assertEquals(Status.FORMAT, e.status)
        assertTrue(e.message!!.contains(hash))
        assertEquals(0, folder.list()!!.size)
    }

    @Test
    fun cancellingEndsTheRequest() = runBlocking {
        val download = download()
        val job = launch(Dispatchers.IO) { download.run() }
        download.progress.first { it.bytes > 0 }
        job.cancelAndJoin()
        if (!target.exists()) assertTrue(File(folder, "model.bin.part").exists())
        download().run()
        assertArrayEquals(content, target.readBytes())
    }

    @Test
    fun errorsNameTheUrl() {
        val absent = Download(url.replace("model", "absent"), target)
        val e = assertThrows(QuipException::class.java) { runBlocking { absent.run() } }
        assertEquals(Status.IO, e.status)
        assertTrue(e.message, e.message!!.endsWith("HTTP 404"))
    }
}
