package com.quip

import android.content.Context
import android.content.res.AssetFileDescriptor
import android.net.Uri
import android.os.ParcelFileDescriptor
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException

/**
 * A language model: a file of weights with its tokenizer. It never changes after it was opened, and
 * any number of sessions may use it.
 *
 *     val model = Model.open(context, uri)
 *     model.session { chat -> chat.say("Why is the sky blue?").collect { print(it) } }
 *     model.close()
 *
 * The weights are used directly from the mapped file: opening takes milliseconds.
 */
class Model private constructor(private val handle: Handle, val info: ModelInfo) : AutoCloseable {
    init {
        handle.closeWith(this)
    }

    private val lane = Lane() // for calls that are not of a session

    /**
     * While true, the model's sessions use half of their threads, from their next piece on.
     * [followSystem] sets it on signals of the system.
     */
    @Volatile
    var background: Boolean = false

    // ---- sessions ----

    /** Begin a conversation. Close it, or use [session]. */
    suspend fun openSession(options: SessionOptions = SessionOptions()): Session =
        lane.run({}, Session::close) { sessionNow(options) }

    /** Begin a conversation that ends with the block. */
    suspend fun <T> session(options: SessionOptions = SessionOptions(), block: suspend (Session) -> T): T =
        openSession(options).use { block(it) }

    /** [openSession] for Java. Not for the main thread. */
    @JvmOverloads
    fun openSessionBlocking(options: SessionOptions = SessionOptions()): Session =
        lane.block { sessionNow(options) }

    private fun sessionNow(options: SessionOptions): Session {
        val o = options.copy()
        val pointer = handle.use { Native.openSession(it, o.image(), o.texts(), o.stops(), o.biases()) }
        return Session(this, pointer, o)
    }

    // ---- adapters ----

    /** Load LoRA weights: a PEFT folder or a MediaPipe LoRA file. */
    suspend fun openAdapter(path: File): Adapter = lane.run({}, Adapter::close) { adapterNow(path) }

    /** Load LoRA weights that another app provides: a MediaPipe LoRA file or a safetensors file. */
    suspend fun openAdapter(context: Context, uri: Uri): Adapter =
        lane.run({}, Adapter::close) { descriptor(context, uri).use { adapterNow(it, uri.toString()) } }

    fun openAdapterBlocking(path: File): Adapter = lane.block { adapterNow(path) }

    private fun adapterNow(path: File) =
        handle.use { Adapter(Native.openAdapter(it, path.path.toByteArray())) }

    private fun adapterNow(file: AssetFileDescriptor, name: String) =
        handle.use { Adapter(Native.openAdapterFd(it, file.parcelFileDescriptor.fd, file.startOffset, file.length, name.toByteArray())) }

    // ---- tokens, plans, embeddings ----

    /** Token ids of a text. With [withSpecial], control tokens spelled out in it become their ids. */
    suspend fun tokenize(text: String, withSpecial: Boolean = false): IntArray =
        lane.run({}) { tokenizeBlocking(text, withSpecial) }

    fun tokenizeBlocking(text: String, withSpecial: Boolean): IntArray =
        handle.use { Native.tokenize(it, text.toByteArray(), withSpecial) }

    suspend fun detokenize(tokens: IntArray): String =
        lane.run({}) { handle.use { Native.text(Native.detokenize(it, tokens)) } }

    /** The memory that the model and a session with these options need. */
    suspend fun plan(options: SessionOptions = SessionOptions()): Plan =
        lane.run({}) { handle.use { Plan.read(it, options) } }

    /** The embeddings of texts. One call for many texts is faster than many calls. */
    suspend fun embed(texts: List<String>, options: EmbedOptions = EmbedOptions()): List<FloatArray> =
        lane.run({}) { embedBlocking(texts, options) }

    fun embedBlocking(texts: List<String>, options: EmbedOptions): List<FloatArray> {
        val width = if (options.nDimensions > 0) options.nDimensions else info.nEmbedding
        val names = arrayOf(Native.utf8(options.prompt), Native.utf8(options.prefix))
        val inputs = texts.map { it.toByteArray() }.toTypedArray()
        val all = handle.use { Native.embed(it, inputs, options.image(), names, width) }
        return List(texts.size) { all.copyOfRange(it * width, (it + 1) * width) }
    }

    // ---- the system ----

    /**
     * Listen to the system until the returned object is closed: [background] is true while memory is
     * low, the app is not visible, or the device is hot.
     */
    fun followSystem(context: Context): AutoCloseable = SystemSignals(context, this)

    /** For apps that receive onTrimMemory themselves. */
    fun onTrimMemory(level: Int) {
        background = SystemSignals.isLow(level)
    }

    /** Close the model. Sessions and adapters that are still open keep what they need of it. */
    override fun close() = handle.close()

    companion object {
        private val opening = Lane()

        /** Open a file of the app's own storage. */
        suspend fun open(file: File, options: ModelOptions = ModelOptions()): Model =
            opening.run({}, Model::close) { openNow(file, options) }

        /** Open a file that another app provides, such as the document picker. It is not copied. */
        suspend fun open(context: Context, uri: Uri, options: ModelOptions = ModelOptions()): Model =
            opening.run({}, Model::close) { openNow(context, uri, options) }

        /**
         * Open an asset of the app. It must not be compressed: `androidResources { noCompress += "bin" }`.
         */
        suspend fun openAsset(context: Context, name: String, options: ModelOptions = ModelOptions()): Model =
            opening.run({}, Model::close) { openAssetNow(context, name, options) }

        /** Open an open file, which may be closed afterwards; a [size] of 0 means up to its end. */
        suspend fun open(
            file: ParcelFileDescriptor,
            offset: Long = 0,
            size: Long = 0,
            options: ModelOptions = ModelOptions(),
        ): Model = opening.run({}, Model::close) { openNow(file, offset, size, "model", options) }

        /** [open] for Java. Not for the main thread. */
        @JvmStatic
        @JvmOverloads
        fun openBlocking(file: File, options: ModelOptions = ModelOptions()): Model =
            opening.block { openNow(file, options) }

        @JvmStatic
        @JvmOverloads
        fun openBlocking(context: Context, uri: Uri, options: ModelOptions = ModelOptions()): Model =
            opening.block { openNow(context, uri, options) }

        @JvmStatic
        @JvmOverloads
        fun openAssetBlocking(context: Context, name: String, options: ModelOptions = ModelOptions()): Model =
            opening.block { openAssetNow(context, name, options) }

        /** Whether a model and a session fit into this device's memory, from the head of a file. */
        suspend fun check(context: Context, file: File, options: SessionOptions = SessionOptions()): Fit =
            opening.run({}) { Fit.of(context, Head.of(file), options) }

        /** The same before a download. Reads the first megabytes from the server. */
        suspend fun check(context: Context, url: String, options: SessionOptions = SessionOptions()): Fit =
            Lane().run({}) { Fit.of(context, Head.of(url), options) }

        /** The version of the native library. */
        suspend fun version(): String = opening.run({}) { Native.text(Native.version()) }

        internal fun openNow(file: File, options: ModelOptions) =
            model(Native.openPath(file.path.toByteArray(), options.image()))

        internal fun openNow(context: Context, uri: Uri, options: ModelOptions): Model =
            descriptor(context, uri).use {
                openNow(it.parcelFileDescriptor, it.startOffset, size(it), uri.toString(), options)
            }

        private fun openAssetNow(context: Context, name: String, options: ModelOptions): Model {
            val file = try {
                context.assets.openFd(name)
            } catch (e: FileNotFoundException) { // also for a compressed asset
                throw QuipException(
                    QuipException.Status.IO,
                    "$name: is not an asset, or is compressed (${e.message}); add its suffix to noCompress",
                )
            }
            return file.use { openNow(it.parcelFileDescriptor, it.startOffset, size(it), name, options) }
        }

        private fun openNow(
            file: ParcelFileDescriptor,
            offset: Long,
            size: Long,
            name: String,
            options: ModelOptions,
        ) = model(Native.openFd(file.fd, offset, size, name.toByteArray(), options.image()))

        private fun model(pointer: Long): Model {
            val handle = Handle("model", pointer, Native::closeModel)
            return Model(handle, handle.use(ModelInfo::read))
        }

        private fun size(file: AssetFileDescriptor) =
            if (file.declaredLength == AssetFileDescriptor.UNKNOWN_LENGTH) 0 else file.declaredLength

        internal fun descriptor(context: Context, uri: Uri): AssetFileDescriptor =
            try {
                context.contentResolver.openAssetFileDescriptor(uri, "r")
            } catch (e: IOException) {
                throw QuipException(QuipException.Status.IO, "$uri: ${e.message}")
            } ?: throw QuipException(QuipException.Status.IO, "$uri: its app provides no file")
    }
}
