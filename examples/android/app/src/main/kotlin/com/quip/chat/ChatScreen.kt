package com.quip.chat

import androidx.activity.compose.rememberLauncherForActivityResult
import androidx.activity.result.contract.ActivityResultContracts
import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.Row
import androidx.compose.foundation.layout.fillMaxSize
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.imePadding
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.lazy.LazyColumn
import androidx.compose.foundation.lazy.items
import androidx.compose.foundation.lazy.rememberLazyListState
import androidx.compose.foundation.text.KeyboardActions
import androidx.compose.foundation.text.KeyboardOptions
import androidx.compose.foundation.text.selection.SelectionContainer
import androidx.compose.material.icons.Icons
import androidx.compose.material.icons.automirrored.filled.Send
import androidx.compose.material.icons.filled.Add
import androidx.compose.material.icons.filled.Close
import androidx.compose.material3.Button
import androidx.compose.material3.Card
import androidx.compose.material3.CardDefaults
import androidx.compose.material3.ExperimentalMaterial3Api
import androidx.compose.material3.Icon
import androidx.compose.material3.IconButton
import androidx.compose.material3.LinearProgressIndicator
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.OutlinedTextField
import androidx.compose.material3.Scaffold
import androidx.compose.material3.Text
import androidx.compose.material3.TopAppBar
import androidx.compose.runtime.Composable
import androidx.compose.runtime.LaunchedEffect
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.saveable.rememberSaveable
import androidx.compose.runtime.setValue
import androidx.compose.ui.Alignment
import androidx.compose.ui.Modifier
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.semantics.LiveRegionMode
import androidx.compose.ui.semantics.contentDescription
import androidx.compose.ui.semantics.liveRegion
import androidx.compose.ui.semantics.semantics
import androidx.compose.ui.text.input.ImeAction
import androidx.compose.ui.unit.dp
import androidx.lifecycle.compose.collectAsStateWithLifecycle
import com.quip.Result
import com.quip.chat.ChatState.Phase

@OptIn(ExperimentalMaterial3Api::class)
@Composable
fun ChatScreen(viewModel: ChatViewModel) {
    val chat = viewModel.chat
    val state by chat.state.collectAsStateWithLifecycle()
    val picker = rememberLauncherForActivityResult(ActivityResultContracts.OpenDocument()) { uri ->
        uri?.let(viewModel::pick)
    }
    Scaffold(
        topBar = {
            TopAppBar(
                title = { Text(stringResource(R.string.app_name)) },
                actions = {
                    if (state.messages.isNotEmpty()) {
                        IconButton(onClick = chat::begin) {
                            Icon(Icons.Filled.Add, stringResource(R.string.new_chat))
                        }
                    }
                },
            )
        },
    ) { padding ->
        Column(Modifier.padding(padding).imePadding().fillMaxSize().padding(horizontal = 16.dp)) {
            Messages(state, Modifier.weight(1f))
            state.error?.let { Text(it, color = MaterialTheme.colorScheme.error) }
            when (state.phase) {
                Phase.NO_MODEL -> Picker { picker.launch(arrayOf("*/*")) }
                Phase.OPENING -> {
                    val label = stringResource(R.string.opening)
                    LinearProgressIndicator({ state.progress }, Modifier.fillMaxWidth().semantics { contentDescription = label })
                }
                else -> Prompt(state.phase == Phase.ANSWERING, chat::send, chat::stop)
            }
        }
    }
}

@Composable
private fun Picker(pick: () -> Unit) {
    Column(Modifier.fillMaxWidth().padding(vertical = 16.dp)) {
        Text(stringResource(R.string.no_model))
        Button(pick, Modifier.padding(top = 8.dp)) { Text(stringResource(R.string.pick_model)) }
    }
}

/** Text sizes follow the system's font size: nothing here has a fixed height. */
@Composable
private fun Messages(state: ChatState, modifier: Modifier) {
    val list = rememberLazyListState()
    LaunchedEffect(state.messages.size, state.messages.lastOrNull()?.text?.length) {
        if (state.messages.isNotEmpty()) list.scrollToItem(state.messages.size - 1, Int.MAX_VALUE / 2)
    }
    LazyColumn(modifier.fillMaxWidth(), list, verticalArrangement = Arrangement.spacedBy(8.dp)) {
        items(state.messages) { message -> Bubble(message, isNew = message === state.messages.last()) }
        item { state.result?.let { Figures(it) } }
    }
}

@Composable
private fun Bubble(message: Message, isNew: Boolean) {
    val name = stringResource(if (message.isUser) R.string.you else R.string.model)
    val colors = MaterialTheme.colorScheme
    Card(
        Modifier.fillMaxWidth().semantics {
            contentDescription = "$name: ${message.text}"
            if (isNew && !message.isUser) liveRegion = LiveRegionMode.Polite // TalkBack reads it
        },
        colors = CardDefaults.cardColors(if (message.isUser) colors.primaryContainer else colors.surfaceVariant),
    ) {
        SelectionContainer { Text(message.text.ifEmpty { "…" }, Modifier.padding(12.dp)) }
    }
}

@Composable
private fun Figures(result: Result) {
    val seconds = result.firstTokenNanos / 1e9
    Text(
        stringResource(R.string.figures, result.nOutputTokens, result.tokensPerSecond, seconds),
        style = MaterialTheme.typography.bodySmall,
    )
}

@Composable
private fun Prompt(isAnswering: Boolean, send: (String) -> Unit, stop: () -> Unit) {
    var text by rememberSaveable { mutableStateOf("") }
    fun submit() {
        if (isAnswering) return
        send(text)
        text = ""
    }
    Row(Modifier.padding(vertical = 8.dp), verticalAlignment = Alignment.CenterVertically) {
        OutlinedTextField(
            text,
            { text = it },
            Modifier.weight(1f),
            label = { Text(stringResource(R.string.prompt)) },
            keyboardOptions = KeyboardOptions(imeAction = ImeAction.Send),
            keyboardActions = KeyboardActions(onSend = { submit() }),
            maxLines = 6,
        )
        if (isAnswering) {
            IconButton(stop) { Icon(Icons.Filled.Close, stringResource(R.string.stop)) }
        } else {
            IconButton(::submit, enabled = text.isNotBlank()) {
                Icon(Icons.AutoMirrored.Filled.Send, stringResource(R.string.send))
            }
        }
    }
}
