package com.quip

/**
 * What went wrong, in one sentence, and its kind. It is an [IllegalStateException] because
 * MediaPipe's errors are.
 */
class QuipException(val status: Status, message: String) : IllegalStateException(message) {
    /** The quip_status of quip.h. */
    enum class Status(internal val code: Int) {
        ARGUMENT(Abi.E_ARGUMENT),
        MEMORY(Abi.E_MEMORY),
        IO(Abi.E_IO),
        FORMAT(Abi.E_FORMAT),
        UNSUPPORTED(Abi.E_UNSUPPORTED),
        CONTEXT_FULL(Abi.E_CONTEXT_FULL),
        CANCELLED(Abi.E_CANCELLED),
        DEVICE(Abi.E_DEVICE),

        /** A status of a newer library. */
        UNKNOWN(0);

        internal companion object {
            @JvmStatic
            fun of(code: Int): Status = values().find { it.code == code } ?: UNKNOWN
        }
    }
}
