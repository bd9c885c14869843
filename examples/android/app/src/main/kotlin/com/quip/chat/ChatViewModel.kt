package com.quip.chat

import android.app.Application
import android.content.Intent
import android.net.Uri
import androidx.lifecycle.AndroidViewModel
import androidx.lifecycle.viewModelScope
import com.quip.Loading

/** Keeps the conversation when the screen is turned. */
class ChatViewModel(private val app: Application) : AndroidViewModel(app) {
    private val preferences = app.getSharedPreferences("chat", 0)
    private var signals: AutoCloseable? = null
    val chat = Chat(viewModelScope)

    init {
        preferences.getString("model", null)?.let { open(Uri.parse(it)) }
    }

    fun open(uri: Uri) = chat.open(Loading(app, uri)) { model ->
        signals?.close()
        signals = model.followSystem(app)
        preferences.edit().putString("model", uri.toString()).apply()
    }

    /** The permission for the file outlives the process. */
    fun pick(uri: Uri) {
        app.contentResolver.takePersistableUriPermission(uri, Intent.FLAG_GRANT_READ_URI_PERMISSION)
        open(uri)
    }

    override fun onCleared() {
        signals?.close()
        chat.close()
    }
}
