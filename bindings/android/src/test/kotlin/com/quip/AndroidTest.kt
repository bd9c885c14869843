@file:Suppress("DEPRECATION") // levels that only older devices send

package com.quip

import android.app.Activity
import android.app.ActivityManager
import android.app.Application
import android.content.ComponentCallbacks2
import android.content.Context
import android.net.Uri
import android.os.Looper
import android.os.ParcelFileDescriptor
import android.os.PowerManager
import com.quip.QuipException.Status
import com.sun.net.httpserver.HttpServer
import java.net.InetSocketAddress
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

    /** What content: addresses and assets are opened with. The file may be closed afterwards. */
    @Test
    fun anOpenFile() = runBlocking {
        val file = ParcelFileDescriptor.open(Fixtures.tiny, ParcelFileDescriptor.MODE_READ_ONLY)
        val model = Model.open(file)
        file.close()
        assertEquals(Fixtures.answer, model.session(Fixtures.greedy) { it.ask(Fixtures.PROMPT) })
        model.close()
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
}
