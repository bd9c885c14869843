package com.quip

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** The bytes of a struct of quip.h; [Abi] has the offsets of its fields. */
internal class Image(val bytes: ByteArray) {
    constructor(size: Int) : this(ByteArray(size))

    private val buffer = ByteBuffer.wrap(bytes).order(ByteOrder.nativeOrder())

    fun int(at: Int) = buffer.getInt(at)

    fun long(at: Int) = buffer.getLong(at)

    fun bool(at: Int) = bytes[at].toInt() != 0

    fun put(at: Int, value: Int) = apply { buffer.putInt(at, value) }

    fun put(at: Int, value: Long) = apply { buffer.putLong(at, value) }

    fun put(at: Int, value: Float) = apply { buffer.putFloat(at, value) }

    fun put(at: Int, value: Boolean) = apply { bytes[at] = if (value) 1 else 0 }
}
