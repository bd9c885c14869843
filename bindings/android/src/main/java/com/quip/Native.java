package com.quip;

import java.nio.charset.StandardCharsets;

/**
 * The functions of quip_jni.c. Texts are UTF-8, options are images of the structs of quip.h.
 *
 * <p>A handle that was closed must not be passed, and one thread at a time may use a session: {@link
 * Handle} and {@link Lane} see to that. Only {@link #cancel} may be called at any time.
 */
final class Native {
    static {
        System.loadLibrary("quip_jni"); // reads a file: the first call is made by a worker thread
    }

    private Native() {}

    /** Called by native code: throws the exception of a failed call. */
    static void raise(int status, byte[] message) {
        throw new QuipException(
                QuipException.Status.of(status), new String(message, StandardCharsets.UTF_8));
    }

    static byte[] utf8(String text) {
        return text == null ? null : text.getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] utf8) {
        return utf8 == null ? null : new String(utf8, StandardCharsets.UTF_8);
    }

    static native byte[] version();

    static native long openPath(byte[] path, byte[] options);

    static native long openFd(int fd, long offset, long size, byte[] name, byte[] options);

    static native long openHead(byte[] head, long size, byte[] name);

    static native void closeModel(long model);

    static native byte[] modelInfo(long model);

    static native byte[] modelText(long model, int which);

    static native byte[] modelPlan(
            long model, byte[] options, byte[][] texts, byte[][] stop, byte[] biases);

    static native int[] tokenize(long model, byte[] text, boolean withSpecial);

    static native byte[] detokenize(long model, int[] tokens);

    static native long openAdapter(long model, byte[] path);

    static native long openAdapterFd(long model, int fd, long offset, long size, byte[] name);

    static native void closeAdapter(long adapter);

    static native long openSession(
            long model, byte[] options, byte[][] texts, byte[][] stop, byte[] biases);

    static native void setOptions(
            long session, byte[] options, byte[][] texts, byte[][] stop, byte[] biases);

    static native void closeSession(long session);

    static native long cloneSession(long session);

    static native void append(long session, int role, byte[] text);

    static native byte[] next(long session);

    static native void cancel(long session);

    static native byte[] result(long session);

    static native int position(long session);

    static native int nContext(long session);

    static native int nThreads(long session);

    static native void rewind(long session, int position);

    static native void undo(long session);

    static native void setAdapter(long session, long adapter, float scale);

    static native int countTokens(long session, int role, byte[] text);

    static native float[] embed(
            long model, byte[][] texts, byte[] options, byte[][] names, int width);
}
