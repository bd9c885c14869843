package com.quip

import android.content.ContentProvider
import android.content.ContentValues
import android.content.res.AssetFileDescriptor
import android.net.Uri
import android.os.ParcelFileDescriptor
import java.io.File

/** Another app with two documents: a model file, and a model in the middle of a file. */
class ModelProvider : ContentProvider() {
    override fun openAssetFile(uri: Uri, mode: String): AssetFileDescriptor {
        val isPart = uri.lastPathSegment == "part"
        val file = ParcelFileDescriptor.open(if (isPart) part else Fixtures.tiny, ParcelFileDescriptor.MODE_READ_ONLY)
        return if (isPart) AssetFileDescriptor(file, OFFSET.toLong(), Fixtures.tiny.length())
        else AssetFileDescriptor(file, 0, AssetFileDescriptor.UNKNOWN_LENGTH)
    }

    override fun onCreate() = true
    override fun getType(uri: Uri): String? = null
    override fun query(uri: Uri, columns: Array<String>?, where: String?, arguments: Array<String>?, order: String?) = null
    override fun insert(uri: Uri, values: ContentValues?): Uri? = null
    override fun delete(uri: Uri, where: String?, arguments: Array<String>?) = 0
    override fun update(uri: Uri, values: ContentValues?, where: String?, arguments: Array<String>?) = 0

    /** Of Robolectric's ContentProvider, for its shadow. */
    override fun `$$robo$getData`(): Any = this

    companion object {
        const val AUTHORITY = "com.quip.test"
        private const val OFFSET = 4096
        val part: File by lazy { Fixtures.tinyInAFile(OFFSET).apply { deleteOnExit() } }
    }
}
