@file:Suppress("DEPRECATION") // levels that only older devices send

package com.quip

import android.app.Activity
import android.app.ActivityManager
import android.app.Application
import android.content.ComponentCallbacks2
import android.content.Context
import android.content.res.AssetManager
import android.net.Uri
import android.os.Looper
import android.os.ParcelFileDescriptor
import android.os.PowerManager
import com.quip.QuipException.Status
import com.sun.net.httpserver.HttpServer
import java.io.File
import java.net.InetSocketAddress
import java.util.zip.CRC32
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlinx.coroutines.runBlocking
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config

/** What needs Android's classes, in Robolectric. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], manifest = Config.NONE)
class AndroidTest {
    private val context: Application = RuntimeEnvironment.getApplication()

    private fun setMemory(bytes: Long) {
        val manager = context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager
        shadowOf(manager).setMemoryInfo(ActivityManager.MemoryInfo().apply { totalMem = bytes })
    }

    @Test
    fun aModelThatFitsAndOneThatDoesNot() = runBlocking {
        setMemory(4_000_000_000)
        assertTrue(Model.check(context, Fixtures.tiny).fits)
        setMemory(1_000_000)
        val fit = Model.check(context, Fixtures.tiny)
        assertFalse(fit.fits)
        assertTrue(fit.reason, fit.reason.contains("this device has 0.00 GB"))
        assertEquals("llama", fit.info.architecture)
    }

    @Test
    fun aCheckBeforeTheDownload() = runBlocking {
        setMemory(4_000_000_000)
        val bytes = Fixtures.slow.readBytes()
        val server = HttpServer.create(InetSocketAddress("127.0.0.1", 0), 0)
        var sent = 0
        server.createContext("/slow.bin") { http ->
            if (http.requestMethod == "HEAD") {
                http.responseHeaders.add("Content-Length", bytes.size.toString())
                http.sendResponseHeaders(200, -1)
            } else {
                val end = http.requestHeaders.getFirst("Range").substringAfter("-").toInt() + 1
                http.sendResponseHeaders(206, end.toLong())
                http.responseBody.write(bytes, 0, end)
                sent += end
            }
            http.close()
        }
        server.start()
        val url = "http://127.0.0.1:${server.address.port}/slow.bin"
        val fit = Model.check(context, url, SessionOptions(nContext = 1024))
        server.stop(0)
        assertTrue(fit.fits)
        assertEquals(bytes.size.toLong(), fit.info.fileBytes)
        assertTrue(sent < bytes.size || bytes.size < 4 shl 20)
    }

    @Test
    fun signalsOfTheSystem() {
        Model.openBlocking(Fixtures.tiny).use { model ->
            val power = shadowOf(context.getSystemService(Context.POWER_SERVICE) as PowerManager)
            val signals = model.followSystem(context)
            context.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_RUNNING_MODERATE)
            assertFalse(model.background)
            context.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_UI_HIDDEN)
            assertTrue(model.background)
            Robolectric.buildActivity(Activity::class.java).setup() // visible again
            assertFalse(model.background)
            power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_CRITICAL)
            shadowOf(Looper.getMainLooper()).idle()
            assertTrue(model.background)
            power.setCurrentThermalStatus(PowerManager.THERMAL_STATUS_LIGHT)
            shadowOf(Looper.getMainLooper()).idle()
            assertFalse(model.background)
            signals.close()
            context.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_COMPLETE)
            assertFalse(model.background)
            model.onTrimMemory(ComponentCallbacks2.TRIM_MEMORY_COMPLETE)
            assertTrue(model.background)
        }
    }

    /** The answer is right, and the weights are used from the file: the process has mapped it. */
    private suspend fun assertAnswers(model: Model, file: File) {
        assertTrue(Fixtures.isMapped(file))
        assertEquals(Fixtures.tiny.length(), model.info.fileBytes)
        assertEquals(Fixtures.answer, model.session(Fixtures.greedy) { it.ask(Fixtures.PROMPT) })
        model.close()
    }

    @Test
    fun anOpenFile() = runBlocking {
        val apk = Fixtures.tinyInAFile(20_484)
        val file = ParcelFileDescriptor.open(apk, ParcelFileDescriptor.MODE_READ_ONLY)
        val model = Model.open(file, 20_484, Fixtures.tiny.length())
        file.close()
        assertAnswers(model, apk)
        apk.delete()
        ParcelFileDescriptor.open(Fixtures.tiny, ParcelFileDescriptor.MODE_READ_ONLY).use { whole ->
            assertAnswers(Model.open(whole), Fixtures.tiny)
        }
    }

    /** A document of another app: a file, or a part of one. */
    @Test
    fun aContentUri() = runBlocking {
        Robolectric.setupContentProvider(ModelProvider::class.java, ModelProvider.AUTHORITY)
        for (name in listOf("whole", "part")) {
            val uri = Uri.parse("content://${ModelProvider.AUTHORITY}/$name")
            val file = if (name == "part") ModelProvider.part else Fixtures.tiny
            assertAnswers(Model.open(context, uri), file)
            val loading = Loading(context, uri)
            assertAnswers(loading.run(), file)
            val size = Fixtures.tiny.length()
            assertEquals(Progress(size, size, true), loading.progress.value)
        }
    }

    /** An asset that is stored, and one that is compressed. */
    @Test
    fun anAsset(): Unit = runBlocking {
        val apk = File.createTempFile("quip", ".apk")
        val tiny = Fixtures.tiny.readBytes()
        ZipOutputStream(apk.outputStream()).use { zip ->
            val stored = ZipEntry("assets/tiny.bin").apply {
                method = ZipEntry.STORED
                size = tiny.size.toLong()
                crc = CRC32().apply { update(tiny) }.value
                extra = ByteArray(HEADER_PADDING) // as zipalign does
            }
            for (entry in listOf(stored, ZipEntry("assets/small.bin"))) {
                zip.putNextEntry(entry)
                zip.write(tiny)
            }
        }
        AssetManager::class.java.getMethod("addAssetPath", String::class.java).invoke(context.assets, apk.path)
        assertAnswers(Model.openAsset(context, "tiny.bin"), apk)
        val e = assertThrows(QuipException::class.java) { Model.openAssetBlocking(context, "small.bin") }
        assertTrue(e.message, e.message!!.contains("noCompress"))
        apk.deleteOnExit()
    }

    @Test
    fun assetsAndUrisThatAreMissing() {
        val asset = assertThrows(QuipException::class.java) { Model.openAssetBlocking(context, "absent.bin") }
        assertEquals(Status.IO, asset.status)
        assertTrue(asset.message, asset.message!!.contains("absent.bin"))
        val uri = Uri.parse("content://com.example.absent/model")
        val absent = assertThrows(QuipException::class.java) { Model.openBlocking(context, uri) }
        assertEquals(Status.IO, absent.status)
        assertTrue(absent.message, absent.message!!.contains("com.example.absent"))
    }

    private companion object {
        /** A local header has 30 bytes and the name; the data must begin at a multiple of 4. */
        val HEADER_PADDING = 4 - (30 + "assets/tiny.bin".length) % 4
    }
}
