package com.quip

import android.app.Application
import android.net.Uri
import com.sun.net.httpserver.HttpServer
import java.io.File
import java.io.FileDescriptor
import java.net.InetSocketAddress
import java.security.Permission
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config

/**
 * What StrictMode finds on a device: work of this package that reads, writes, connects or loads a
 * library on the main thread. Robolectric's files are those of the JVM, where StrictMode does not look,
 * so the JVM's security manager reports them.
 */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], manifest = Config.NONE)
@Suppress("DEPRECATION", "REMOVAL")
class MainThreadTest {
    private class Guard(private val main: Thread) : SecurityManager() {
        val found = mutableListOf<String>()

        private var isInside = false // of a note, which loads classes itself

        private fun note(what: String) {
            if (Thread.currentThread() !== main || isInside) return
            isInside = true
            val ours = Throwable().stackTrace.find { it.className.startsWith("com.quip.") && "Test" !in it.className }
            if (ours != null && !what.endsWith(".jar") && !what.endsWith(".class")) found += "$what in $ours"
            isInside = false
        }

        override fun checkPermission(permission: Permission) {}
        override fun checkRead(file: String) = note("reads $file")
        override fun checkRead(file: FileDescriptor) = note("reads a file")
        override fun checkWrite(file: String) = note("writes $file")
        override fun checkDelete(file: String) = note("deletes $file")
        override fun checkConnect(host: String, port: Int) = note("connects to $host")
        override fun checkLink(library: String) = note("loads $library")
    }

    private val context: Application = RuntimeEnvironment.getApplication()
    private val guard = Guard(Thread.currentThread())
    private val server = HttpServer.create(InetSocketAddress("127.0.0.1", 0), 0)
    private val folder = File.createTempFile("quip", "").also { it.delete() }

    @Before
    fun start() {
        server.createContext("/tiny.bin") { http ->
            val bytes = Fixtures.tiny.readBytes()
            if (http.requestMethod == "HEAD") http.responseHeaders.add("Content-Length", bytes.size.toString())
            http.sendResponseHeaders(200, if (http.requestMethod == "HEAD") -1 else bytes.size.toLong())
            if (http.requestMethod != "HEAD") http.responseBody.write(bytes)
            http.close()
        }
        server.start()
        guard.checkRead("") // loads the classes that it needs
        System.setSecurityManager(guard)
    }

    @After
    fun stop() {
        System.setSecurityManager(null)
        server.stop(0)
        folder.deleteRecursively()
    }

    /** The guard itself: the same work without a worker is found. */
    @Test
    fun theGuardFindsFilesAndConnections() {
        val url = "http://127.0.0.1:${server.address.port}/tiny.bin"
        Head.of(Fixtures.tiny)
        assertEquals(1, guard.found.size)
        assertTrue(guard.found[0], guard.found[0].startsWith("reads ${Fixtures.tiny}"))
        Http.size(url)
        assertTrue(guard.found.toString(), guard.found.any { it.startsWith("connects to 127.0.0.1") })
    }

    @Test
    fun everyCallOfKotlinRunsOnWorkers() = runBlocking {
        Robolectric.setupContentProvider(ModelProvider::class.java, ModelProvider.AUTHORITY)
        val uri = Uri.parse("content://${ModelProvider.AUTHORITY}/part")
        val url = "http://127.0.0.1:${server.address.port}/tiny.bin"
        Model.version()
        Model.check(context, Fixtures.tiny)
        Model.check(context, url)
        val file = Download(url, File(folder, "tiny.bin")).run()
        Loading(file).run().close()
        Model.open(context, uri).close()
        val model = Model.open(file)
        val signals = model.followSystem(context)
        model.plan()
        model.detokenize(model.tokenize("the hen"))
        model.openAdapter(Fixtures.adapter).use { adapter ->
            model.session(Fixtures.greedy) { chat ->
                chat.setAdapter(adapter)
                chat.say(Fixtures.PROMPT).take(3).toList()
                chat.cancel()
                chat.copy().use { it.ask("and?") }
                chat.countTokens("the hen")
                chat.undo()
                chat.rewind(0)
                chat.result()
            }
        }
        signals.close()
        model.close()
        assertEquals(emptyList<String>(), guard.found)
    }
}
