package com.quip

import com.quip.Fixtures.status
import com.quip.QuipException.Status
import java.io.File
import java.io.FileDescriptor
import java.io.FileInputStream
import java.io.RandomAccessFile
import kotlinx.coroutines.runBlocking
import kotlinx.coroutines.test.runTest
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Test

class ModelTest {
    @Test
    fun infoAndPlan() = runTest {
        Model.open(Fixtures.tiny).use { model ->
            assertEquals("llama", model.info.architecture)
            assertEquals(Fixtures.tiny.length(), model.info.fileBytes)
            assertTrue(model.info.nLayers > 0 && model.info.nParameters > 0 && model.info.nThreads > 0)
            val small = model.plan(SessionOptions(nContext = 128))
            val large = model.plan(SessionOptions(nContext = 512))
            assertEquals(128, small.nContext)
            assertTrue(small.kvBytes in 1 until large.kvBytes)
        }
        assertTrue(Regex("""\d+\.\d+\.\d+""").matches(Model.version()))
    }

    @Test
    fun tokensAndBack() = runTest {
        Model.open(Fixtures.tiny, ModelOptions(noWeights = true)).use { model ->
            val text = "the hen ⌘ über"
            val tokens = model.tokenize(text)
            assertTrue(tokens.isNotEmpty())
            assertArrayEquals(tokens, model.tokenizeBlocking(text, false))
            assertTrue(model.detokenize(tokens).endsWith("the hen ⌘ über"))
            assertEquals("", model.detokenize(IntArray(0)))
            assertEquals(Status.ARGUMENT, status { runBlocking { model.detokenize(intArrayOf(-7)) } })
            assertEquals(Status.ARGUMENT, status { model.openSessionBlocking() }) // no weights
        }
    }

    @Test
    fun failuresHaveAStatusAndASentence() {
        val e = assertThrows(QuipException::class.java) { Model.openBlocking(File("/absent/gemma.bin")) }
        assertEquals(Status.IO, e.status)
        assertTrue(e.message, e.message!!.contains("/absent/gemma.bin"))
        val garbage = File.createTempFile("quip", ".bin").apply { writeBytes(ByteArray(9999) { 7 }) }
        assertEquals(Status.FORMAT, status { Model.openBlocking(garbage) })
        assertEquals(Status.ARGUMENT, status { Model.openBlocking(garbage, ModelOptions(nThreads = 1000)) })
        garbage.delete()
        Model.openBlocking(Fixtures.tiny).use { model ->
            assertEquals(Status.ARGUMENT, status { model.openSessionBlocking(SessionOptions(temperature = -1f)) })
            assertEquals(Status.IO, status { model.openAdapterBlocking(File("/absent")) })
            assertEquals(Status.UNSUPPORTED, status { model.embedBlocking(listOf("a"), EmbedOptions()) })
        }
    }

    /** A file name may be anything; a message that quotes it is still a text. */
    @Test
    fun messagesOfStrangeNames() {
        val e = assertThrows(QuipException::class.java) { Model.openBlocking(File("/absent/\uD83D\uDE00\uD800é")) }
        assertTrue(e.message, e.message!!.contains("é"))
    }

    @Test
    fun aClosedModelIsAnError() = runTest {
        val model = Model.open(Fixtures.tiny)
        val session = model.openSession(Fixtures.greedy)
        val adapter = model.openAdapter(Fixtures.adapter)
        model.close()
        model.close()
        assertThrows(IllegalStateException::class.java) { runBlocking { model.tokenize("a") } }
        assertThrows(IllegalStateException::class.java) { model.openSessionBlocking() }
        assertEquals(Fixtures.answer, session.ask(Fixtures.PROMPT)) // it keeps what it needs
        adapter.close()
        assertThrows(IllegalStateException::class.java) { session.setAdapterBlocking(adapter, 1f) }
        session.close()
    }

    /** An asset is a part of the package's file. */
    @Test
    fun aPartOfAFile() {
        val before = 20484
        val apk = Fixtures.tinyInAFile(before)
        val size = Fixtures.tiny.length()
        FileInputStream(apk).use { file ->
            val fd = number(file.fd)
            val name = "app.apk".toByteArray()
            assertEquals(Status.ARGUMENT, status { Native.openFd(fd, before + 1L, size, name, null) })
            assertEquals(Status.FORMAT, status { Native.openFd(fd, before + 200L, size, name, null) })
            val pointer = Native.openFd(fd, before.toLong(), size, name, ModelOptions().image())
            assertEquals("llama", ModelInfo.read(pointer).architecture)
            Native.closeModel(pointer)
        }
        apk.delete()
    }

    @Test
    fun adaptersFromAPathAndFromAFile() {
        Model.openBlocking(Fixtures.tiny).use { model ->
            val adapter = model.openAdapterBlocking(Fixtures.adapter)
            val session = model.openSessionBlocking(Fixtures.greedy)
            session.setAdapterBlocking(adapter, 3f)
            val changed = runBlocking { session.ask(Fixtures.PROMPT) }
            assertFalse(changed == Fixtures.answer)
            session.setAdapterBlocking(null, 0f)
            runBlocking { session.rewind(0) }
            assertEquals(Fixtures.answer, runBlocking { session.ask(Fixtures.PROMPT) })
            session.close()
            adapter.close()
            RandomAccessFile(File(Fixtures.adapter, "adapter_model.safetensors"), "r").use { file ->
                val pointer = Native.openPath(Native.utf8(Fixtures.tiny.path), null)
                val size = file.length()
                Native.closeAdapter(Native.openAdapterFd(pointer, number(file.fd), 0, size, null))
                assertEquals(
                    Status.FORMAT,
                    status { Native.openAdapterFd(pointer, number(file.fd), 8, size - 8, null) },
                )
                Native.closeModel(pointer)
            }
        }
    }

    /** Native code checks what Java classes never pass. */
    @Test
    fun nativeMethodsRefuseNothing() {
        assertEquals(Status.ARGUMENT, status { Native.openPath(null, null) })
        assertEquals(Status.ARGUMENT, status { Native.modelInfo(0) })
        assertEquals(Status.ARGUMENT, status { Native.append(0, 1, null) })
        assertEquals(Status.ARGUMENT, status { Native.next(0) })
        assertEquals(Status.ARGUMENT, status { Native.openSession(0, null, null, null, null) })
        assertEquals(Status.ARGUMENT, status { Native.tokenize(0, null, false) })
        assertEquals(Status.ARGUMENT, status { Native.embed(0, null, null, null, 3) })
        assertEquals(null, Native.modelText(0, 0))
        Native.cancel(0)
        Native.closeSession(0)
        Native.closeModel(0)
    }

    private fun number(fd: FileDescriptor): Int =
        FileDescriptor::class.java.getDeclaredField("fd").apply { isAccessible = true }.getInt(fd)
}
