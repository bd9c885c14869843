package com.quip

import java.io.File
import kotlinx.coroutines.runBlocking
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test

/** What is not closed is freed when the garbage collector finds it. */
class ForgottenTest {
    private val file = File.createTempFile("quip", ".bin").also { Fixtures.tiny.copyTo(it, overwrite = true) }

    @After
    fun remove() {
        file.delete()
    }

    /** Collect garbage until the file is not mapped; false after a minute. */
    private fun isUnmapped(): Boolean {
        repeat(600) {
            if (!Fixtures.isMapped(file)) return true
            System.gc()
            Thread.sleep(100)
        }
        return false
    }

    private fun forget(use: (Model, Session) -> Unit) {
        val model = Model.openBlocking(file)
        val session = model.openSessionBlocking(Fixtures.greedy)
        session.setAdapterBlocking(model.openAdapterBlocking(Fixtures.adapter), 1f)
        use(model, session)
        assertTrue(Fixtures.isMapped(file))
    }

    @Test
    fun modelSessionAndAdapter() {
        forget { _, session -> runBlocking { assertFalse(session.ask(Fixtures.PROMPT).isEmpty()) } }
        assertTrue(isUnmapped())
    }

    /** A session needs its model, whoever holds that. */
    @Test
    fun aSessionKeepsItsModel() {
        val sessions = mutableListOf<Session>()
        forget { _, session -> sessions += session }
        repeat(3) {
            System.gc()
            Thread.sleep(50)
        }
        runBlocking { assertFalse(sessions[0].ask(Fixtures.PROMPT).isEmpty()) }
        assertTrue(Fixtures.isMapped(file))
        sessions.clear()
        assertTrue(isUnmapped())
    }

    @Test
    fun anAnswerInTheMiddle() {
        forget { _, session -> runBlocking { session.append("the") } }
        assertTrue(isUnmapped())
    }

    /** A call of a forgotten object runs to its end; a closed one's is interrupted. */
    @Test
    fun callsThatAreRunning() {
        for (isForgotten in listOf(true, false)) {
            val events = mutableListOf<String>()
            val handle = Handle("thing", 7, { events += "free $it" }, { events += "interrupt $it" })
            handle.use { handle.close(isForgotten) }
            assertEquals(if (isForgotten) listOf("free 7") else listOf("interrupt 7", "free 7"), events)
        }
    }

    @Test
    fun closingFrees() {
        val model = Model.openBlocking(file)
        model.openSessionBlocking().close()
        assertTrue(Fixtures.isMapped(file))
        model.close()
        repeat(600) { if (Fixtures.isMapped(file)) Thread.sleep(100) }
        assertFalse(Fixtures.isMapped(file))
    }
}
