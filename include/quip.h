/* quip.h: run language models on the device that holds them. This header is the manual.
 *
 * A model is a file of weights with its tokenizer. It never changes after it was opened, and any
 * number of threads may share it. A session is one conversation with a model; one thread at a time
 * may use it. An adapter is a fine-tune (LoRA) that sessions apply beside the weights of a model.
 *
 *     quip_model *model = NULL;
 *     quip_session *chat = NULL;
 *     quip_error error = { 0 };
 *     const char *prompt = "Why is the sky blue?";
 *     if (quip_model_open(&model, "gemma.bin", NULL, &error) ||
 *         quip_session_open(&chat, model, NULL, &error) ||
 *         quip_session_generate(chat, prompt, strlen(prompt), on_text, NULL, NULL, &error))
 *         fprintf(stderr, "%s\n", error.message);
 *     quip_session_close(chat);
 *     quip_model_close(model);
 *
 * These rules hold for the whole header:
 * - Options are a struct. All-zero bytes mean the defaults, and a NULL pointer means all-zero.
 *   `reserved` is for later options: it must be zero.
 * - A struct that the library fills begins with `struct_size`. Set it to the struct's sizeof before
 *   the call. The library writes no further, so a program keeps working with a newer library. A
 *   field that an older library does not know becomes 0.
 * - An enum in a struct is an int32_t; its comment names the enum. Later versions may add values,
 *   and the comment of the enum says how to treat an unknown one.
 * - A function that can fail returns a quip_status. Its last parameter is a quip_error, which may
 *   be NULL. A failed call leaves everything as it was, unless its comment says otherwise.
 * - The library never prints, exits or aborts.
 * - A NULL handle is allowed: `close` and `cancel` ignore it, functions with a status return
 *   QUIP_E_ARGUMENT, and all other functions return 0 or NULL.
 * - Each `open` has one `close`, and the order of closing does not matter. The caller frees nothing
 *   else. A comment says how long a returned pointer stays valid.
 * - Callbacks run on the thread that made the call. They must not call functions on the handle that
 *   is running, except quip_session_cancel.
 * - Text is UTF-8. Text from the library consists of whole characters.
 * - The same model, prompt, options and seed give the same answer on every CPU and with any number
 *   of threads.
 *
 * "Prefill" means running the tokens of a prompt, many at a time. "Decode" means generating the
 * tokens of an answer, one at a time.
 *
 * Version 0.x: releases with the same minor version have the same binary interface. The name of the
 * shared library contains both numbers (libquip.so.0.1).
 */
#ifndef QUIP_H
#define QUIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(QUIP_SHARED)
#define QUIP_API __declspec(dllexport)
#elif defined(__GNUC__)
#define QUIP_API __attribute__((visibility("default")))
#else
#define QUIP_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define QUIP_VERSION "0.1.0"

/* The version of the library that is running; QUIP_VERSION is that of the header. */
QUIP_API const char *quip_version(void);

/* ---- errors ---- */

/* Treat an unknown value as a failure. */
typedef enum quip_status {
    QUIP_OK = 0,
    QUIP_E_ARGUMENT = -1,     // the caller passed an invalid argument
    QUIP_E_MEMORY = -2,       // an allocation failed
    QUIP_E_IO = -3,           // a file could not be read or written
    QUIP_E_FORMAT = -4,       // a file is damaged, or is not of the expected kind
    QUIP_E_UNSUPPORTED = -5,  // valid, but this build or this machine cannot do it
    QUIP_E_CONTEXT_FULL = -6, // the tokens do not fit into the session's n_context
    QUIP_E_CANCELLED = -7,    // quip_session_cancel was called
    QUIP_E_DEVICE = -8        // the GPU failed or was removed; open the model again
} quip_status;

/* What went wrong, in one sentence: the thing, what was found, what is expected. The caller owns
 * the struct. Its size is fixed for all versions. */
typedef struct quip_error {
    int32_t status;    // enum quip_status
    char message[508]; // ends with NUL
} quip_error;

/* A short constant name: "ok", "argument", "memory", "io", "format", "unsupported", "context_full",
 * "cancelled", "device"; "unknown" for any other value. */
QUIP_API const char *quip_status_name(quip_status status);

/* ---- models ---- */

typedef struct quip_model quip_model;
typedef int32_t quip_token; // an index into the model's vocabulary

/* The implementation that runs a model. Treat an unknown value in a quip_model_info as a new kind
 * of hardware. */
typedef enum quip_backend {
    QUIP_BACKEND_AUTO = 0, // the GPU, if there is one that runs the model, computes what the CPU
                           // computes, and decodes no slower; otherwise the CPU. The first open of
                           // a kind of model on a GPU takes about a second longer to measure that.
                           // quip_model_info.backend_reason says what was found
    QUIP_BACKEND_CPU = 1,
    QUIP_BACKEND_GPU = 2 // a GPU through WebGPU; docs/notes/gpu.md has what it refuses
} quip_backend;

/* Check whether models can run on a backend here. Fails with QUIP_E_UNSUPPORTED if the backend is
 * not built, if there is no such hardware, if the library that finds a GPU is missing, or if the
 * hardware does not compute as this build requires (relaxed SIMD of a WebAssembly engine). Opening
 * a model does the same check, and fails if the backend does not run this model. */
QUIP_API quip_status quip_backend_check(quip_backend backend, quip_error *error);

typedef struct quip_model_options {
    int32_t backend;  // enum quip_backend
    int n_threads;    // threads that the model's sessions use, at most 256; 0: one for each
                      // processor that this process may use, without the slow ones of phones.
                      // On Linux, fewer of them run while other programs keep processors busy
    bool background;  // leave the processor to other programs: half the threads if n_threads is 0,
                      // low priority, no busy waiting. Slower, but the answers are the same
    bool no_mmap;     // copy the file into memory instead of mapping it. Slower to open and not
                      // shared, but the file may change afterwards
    bool no_weights;  // read only the header and the tokenizer. Such a model has no sessions and no
                      // adapters; use it for quip_model_plan, quip_tokenize and quip_detokenize
    const char *name; // quip_model_open_memory, quip_model_open_fd: how messages call the model;
                      // copied; NULL: "model"
    uint64_t reserved[8];
} quip_model_options;

/* Open a model file. The weights are used directly from the mapped file: opening takes
 * milliseconds, and processes that open the same file share its memory. Close with
 * quip_model_close.
 * No program may write to the file while it is open. To replace it, write another and rename that:
 * the open model keeps the old one. Every call that runs the model looks at the file's size and
 * time first, and fails with QUIP_E_IO if they have changed. But a file that is truncated during
 * the call raises SIGBUS. Where that could happen, use no_mmap. */
QUIP_API quip_status quip_model_open(quip_model **model, const char *path,
                                     const quip_model_options *options, quip_error *error);

/* Open a model from `size` bytes at `offset` of an open file: an asset of an Android package, a
 * document of another app. The bytes are mapped, not copied. The caller may close `fd` afterwards.
 * `size` 0 means up to the end of the file. `offset` must be a multiple of 4, unless no_mmap is
 * set; a multiple of 64 is faster. Messages call the file by the name in the options. Fails with
 * QUIP_E_IO if it is not a regular file (a pipe), and with QUIP_E_UNSUPPORTED where files cannot be
 * mapped. */
QUIP_API quip_status quip_model_open_fd(quip_model **model, int fd, uint64_t offset, uint64_t size,
                                        const quip_model_options *options, quip_error *error);

/* Copy exactly n bytes at `offset` of a file to `buffer`. Return false if that fails. */
typedef bool quip_on_read(void *user, uint64_t offset, void *buffer, size_t n);

/* A file that has no path: a part of a package, or a file handle of a browser. */
typedef struct quip_source {
    void *user;            // first argument of read_at
    uint64_t size;         // of the whole file, in bytes
    quip_on_read *read_at; // called during open only
    const char *name;      // how messages call the file; copied; NULL: "model"
    uint64_t reserved[4];
} quip_source;

/* Open a model from a source. The weights are read into memory. With no_weights only what precedes
 * them is read, at least in files that Quip or MediaPipe wrote: the rest of the file need not be
 * there yet. */
QUIP_API quip_status quip_model_open_source(quip_model **model, const quip_source *source,
                                            const quip_model_options *options, quip_error *error);

/* Called once, when the library no longer uses the memory of a quip_model_open_memory. */
typedef void quip_on_release(void *user);

/* Open a model from n bytes in memory. The weights are used directly from there, so the bytes must
 * not change until release(user) is called. The last close does that: of the model or of one of its
 * sessions. `release` may be NULL, and is not called if this function fails. The address must be a
 * multiple of 4; a multiple of 64 is faster. */
QUIP_API quip_status quip_model_open_memory(quip_model **model, const void *bytes, size_t n,
                                            quip_on_release *release, void *user,
                                            const quip_model_options *options, quip_error *error);

/* n zeroed bytes, aligned to 64, for quip_model_open_memory: for callers that download or decrypt a
 * model file. NULL if there is not enough memory. Free with the same n; NULL is ignored. */
QUIP_API void *quip_memory_alloc(size_t n);
QUIP_API void quip_memory_free(void *memory, size_t n);

/* Close the model. Sessions and adapters that are still open keep what they need of it. */
QUIP_API void quip_model_close(quip_model *model);

/* Properties of a model. */
typedef struct quip_model_info {
    uint32_t struct_size;     // sizeof(quip_model_info), set by the caller
    int32_t backend;          // enum quip_backend that runs the model, never QUIP_BACKEND_AUTO
    const char *architecture; // "gemma3", "llama", ...; valid while the model is open
    const char *weights;      // "int8", "int4", "mixed" or "f32"; valid while the model is open
    uint64_t n_parameters;
    uint64_t file_bytes;
    int n_layers;
    int d_model;        // width of a token's vector between layers
    int d_ff;           // width inside the feed-forward; of an expert if a layer has only experts
    int n_heads;        // query heads of a layer
    int n_kv_heads;     // key and value heads of a layer
    int head_dim;       // width of a head
    int vocab_size;     // token ids are 0 to vocab_size - 1
    int n_context_max;  // largest n_context; 0: the file does not limit it
    quip_token bos;     // the token that begins every context; -1: the model has none
    int n_threads;      // threads that its sessions use, the caller's included
    bool has_template;  // turns are marked with the model's template; false: a base model
    bool is_embedding;  // an embedding model, for quip_embed; sessions cannot be opened
    int n_embedding;    // numbers of an embedding of quip_embed
    int n_experts;      // of a layer with a mixture of experts; 0: the model has none
    int n_experts_used; // of these, those that a token uses
    uint64_t n_active_parameters; // that a token uses: without the other experts
    /* What a session draws with where its options are 0; 0 here: no limit, no effect. */
    bool has_sampling;         // the model file has values of its own; false: the library's
    float default_temperature; // 0: greedy
    int default_top_k;
    float default_top_p; // 1: no limit
    float default_min_p;
    float default_repeat_penalty; // 1: none
    int default_penalty_window;   // -1: all
    int default_no_repeat_ngram;
    const char *backend_reason; // one sentence: why auto chose `backend`; valid while the model is
                                // open; NULL: the options named the backend
} quip_model_info;

QUIP_API quip_status quip_model_get_info(const quip_model *model, quip_model_info *info,
                                         quip_error *error);

/* ---- sessions ---- */

typedef struct quip_session quip_session;

/* A number to add to the logit of a token. */
typedef struct quip_logit_bias {
    quip_token token;
    float bias; // -INFINITY: never
} quip_logit_bias;

/* Options of a session.
 * The tokens of an answer are drawn, as top_k, top_p, temperature, min_p, repeat_penalty,
 * penalty_window and no_repeat_ngram say. One of these that is 0 has its default: that of the model
 * file if that says how to draw (quip_model_info.has_sampling), or else the library's: temperature
 * 0.5, top_k 40, top_p 0.95, min_p 0.05, repeat_penalty 1.1, penalty_window 256. With them the
 * answers of small models end; greedy ones often do not (docs/notes/text.md). `greedy` is the most
 * likely token, always. */
typedef struct quip_session_options {
    int n_context;           // capacity of the context: tokens of all prompts and answers; 0: 4096,
                             // or n_context_max if that is smaller. Models with longrope (Phi-3)
                             // have other numbers for sessions beyond their original context
    int n_threads;           // use at most this many of the model's threads; 0: all
    int max_output_tokens;   // of one answer; 0: no limit but n_context
    int top_k;               // draw from the k most likely tokens; 0: default; -1: no limit; 1: as
                             // `greedy`
    float top_p;             // then from the fewest tokens whose probabilities add up to p; 0:
                             // default; 1: no limit. The order is top_k, temperature, top_p, min_p
    float temperature;       // 1: the model's probabilities; less: likely tokens become more likely
                             // still; 0: default; see `greedy`
    uint64_t seed;           // used if has_seed is true. The random number for a token depends only
                             // on the seed and on the token's position
    bool has_seed;           // false: the library draws a seed; quip_result reports it
    bool no_template;        // pass text on as it is, even if the model has a template
    bool no_speculation;     // do not run guesses of the next tokens. Slower, but the answer is the
                             // same
    bool greedy;             // always the most likely token: nothing is drawn, and no penalty is a
                             // default
    int n_stop;              // number of texts in `stop`, at most 64
    const char *const *stop; // texts that end an answer, in addition to those of the model, each
                             // of 1 to 1024 bytes; copied
    const char *system;      // system prompt, placed before the first turn; copied; NULL: that of
                             // the template, if it has one
    const char *chat_template; // how turns are marked: "gemma", "smollm2", "qwen2", "qwen2.5",
                               // "chatml", "llama2", "llama3", "zephyr", "phi2" or "none", or the
                               // name of another template in the model file, such as "tool_use";
                               // NULL: as the model file says

    float min_p; // then from the tokens at least this likely, as a part of the best one's
                 // probability, at most 1; 0: default; -1: no limit

    /* Penalties change the logits before top_k. Their order is that of transformers and llama.cpp:
     * logit_bias, repeat_penalty, frequency_penalty and presence_penalty, DRY, no_repeat_ngram.
     * They cost no pass over the vocabulary. No penalty changes a token that ends an answer. */
    int n_logit_bias;                  // number of entries in logit_bias, at most 1024
    const quip_logit_bias *logit_bias; // copied
    int penalty_window;      // how many of the last tokens count, prompts included; 0: default;
                             // -1: all
    float repeat_penalty;    // divides the logit of a token of the window if it is positive, else
                             // multiplies it; 0: default; 1: none
    float presence_penalty;  // subtracted from the logit of a token of the window
    float frequency_penalty; // subtracted for each of its occurrences
    /* DRY: a token that would lengthen a repetition of n >= dry_allowed_length tokens loses
     * dry_multiplier * dry_base^(n - dry_allowed_length). A repetition ends at a line end, a colon,
     * a quote or a star that is a token by itself; it counts up to 64 tokens. */
    float dry_multiplier;   // 0: none
    float dry_base;         // at least 1; 0: 1.75
    int dry_allowed_length; // 0: 2
    int no_repeat_ngram; // no n tokens in a row come twice in the window; 0: default; -1: they may

    const char *template_variables; // what the model's own chat template reads: a JSON object such
                                    // as {"enable_thinking": false, "tools": []}; copied; NULL: {}
    quip_model *draft; // a smaller model with the same vocabulary. It guesses the next tokens, and
                       // the model runs several of them at once: faster where it guesses right,
                       // and the answer is the same. The session keeps what it needs of it, so it
                       // may be closed; NULL: none
    uint64_t reserved[3];
} quip_session_options;

/* Begin a conversation. Close it with quip_session_close. Sessions of one model may run on
 * different threads at once: they take turns on the model's threads. After fork(), a child process
 * may share the models of its parent, but must open its own sessions: the threads of the parent's
 * sessions do not exist in the child. */
QUIP_API quip_status quip_session_open(quip_session **session, quip_model *model,
                                       const quip_session_options *options, quip_error *error);
QUIP_API void quip_session_close(quip_session *session);

/* Why an answer ended. Treat an unknown value as QUIP_FINISH_STOP. */
typedef enum quip_finish_reason {
    QUIP_FINISH_NONE = 0,      // it has not ended
    QUIP_FINISH_STOP = 1,      // the model ended its turn, or produced a stop text
    QUIP_FINISH_LENGTH = 2,    // max_output_tokens was reached
    QUIP_FINISH_CONTEXT = 3,   // n_context was reached
    QUIP_FINISH_CANCELLED = 4, // by quip_session_cancel
    QUIP_FINISH_CALLBACK = 5   // the callback returned false
} quip_finish_reason;

/* What an answer took. */
typedef struct quip_result {
    uint32_t struct_size;    // sizeof(quip_result), set by the caller
    int32_t finish_reason;   // enum quip_finish_reason
    int n_prompt_tokens;     // added to the context since the previous answer, template included
    int n_output_tokens;     // sampled, including the one that ended the answer
    uint64_t prefill_ns;     // nanoseconds spent on the prompt
    uint64_t decode_ns;      // nanoseconds spent on the answer after its first token
    uint64_t first_token_ns; // nanoseconds from the first call to the first token
    uint64_t seed;           // of the random numbers
    int32_t backend;         // enum quip_backend that ran it, never QUIP_BACKEND_AUTO
    int n_draft_tokens;      // guesses of tokens that the model ran; see no_speculation and draft
    int n_draft_right;       // of these, those that were right
} quip_result;

/* Receives a part of an answer: n bytes of whole characters, without a final NUL, valid during the
 * call. Return false to end the answer. */
typedef bool quip_on_text(void *user, const char *text, size_t n);

/* Append `prompt` (n bytes) as the user's turn, then generate the model's. The conversation stays
 * in the session, so the next call continues it. `on_text` and `result` may be NULL.
 * Fails with QUIP_E_CONTEXT_FULL if the prompt does not fit, and with QUIP_E_CANCELLED if it is
 * cancelled before the answer begins. A cancelled answer is not a failure: it ends with
 * QUIP_FINISH_CANCELLED. `result` is filled on failure, too. */
QUIP_API quip_status quip_session_generate(quip_session *session, const char *prompt, size_t n,
                                           quip_on_text *on_text, void *user, quip_result *result,
                                           quip_error *error);

/* End the call that is running on this session, in prefill or decode, within about the time of one
 * layer on the CPU, or of one step on a GPU (a batch of the prompt, or a few tokens). This is the
 * only function that other threads may call at any time. A cancelled prefill fails with
 * QUIP_E_CANCELLED. A cancelled answer ends with QUIP_FINISH_CANCELLED and keeps its text; that
 * also holds if the cancel arrives between two calls of quip_session_next. At any other
 * time this has no effect. */
QUIP_API void quip_session_cancel(quip_session *session);

/* The byte that quip_session_cancel sets to 1, valid while the session is open. For hosts that
 * share the memory but cannot call the library from another thread, such as a page that cancels a
 * WebAssembly worker: an atomic store of 1 there is a cancel. */
QUIP_API void *quip_session_cancel_flag(quip_session *session);

/* ---- turns in pieces ---- */

/* Whose text it is. */
typedef enum quip_role {
    QUIP_ROLE_NONE = 0, // no role: no template. Control tokens spelled out in it are recognized
    QUIP_ROLE_USER = 1,
    QUIP_ROLE_MODEL = 2,
    QUIP_ROLE_SYSTEM = 3
} quip_role;

/* Append text to the conversation and run the model over it. The text of one role may come in
 * several calls. When the role changes, the template's markers are inserted. Each call's text is
 * tokenized on its own. The first call also inserts the token that begins a context.
 * If the model has a template of its own (docs/chat-templates.md), that is rendered for the whole
 * conversation. It may change what it wrote before, so the context can become shorter. Fails with
 * QUIP_E_ARGUMENT and the template's own message if it rejects the conversation. */
QUIP_API quip_status quip_session_append(quip_session *session, quip_role role, const char *text,
                                         size_t n, quip_error *error);

/* A part of an answer. Its pointers are valid until the next call on the session. */
typedef struct quip_piece {
    uint32_t struct_size;     // sizeof(quip_piece), set by the caller
    int32_t finish_reason;    // enum quip_finish_reason: QUIP_FINISH_NONE until the answer ends
    const char *text;         // whole characters, without a final NUL
    size_t n_text;            // in bytes; 0 exactly when the answer has ended
    const quip_token *tokens; // that were sampled since the previous piece
    int n_tokens;             // 0 is possible
} quip_piece;

/* Generate the next piece of the model's turn. The first call after an append begins an answer.
 * When the answer has ended, n_text is 0 and finish_reason says why; the call after that begins a
 * new answer.
 * `tokens` are all tokens that were sampled, also the one that ended the answer: their number adds
 * up to quip_result.n_output_tokens. `text` may lag behind them, because it contains only whole
 * characters, and because text that may become a stop text is held back. So the tokens of a piece
 * are not exactly those of its text.
 * A call that failed may be repeated: the answer continues where it was. */
QUIP_API quip_status quip_session_next(quip_session *session, quip_piece *piece, quip_error *error);

/* What the answer has taken so far. */
QUIP_API quip_status quip_session_get_result(const quip_session *session, quip_result *result,
                                             quip_error *error);

/* ---- change a session ---- */

/* Replace the options of a session, for what it does next. All of them change together, or none
 * if the call fails.
 * - max_output_tokens, stop, no_speculation, n_threads and how tokens are drawn get the new values;
 *   0 means the default, as in quip_session_open.
 * - With has_seed the seed changes. Without it the session keeps its seed.
 * - n_context, no_template, chat_template and draft cannot change: pass zero, or the same value as
 *   before.
 * - `system` can change while the context is empty. After that, pass NULL or the same text.
 * Fails with QUIP_E_ARGUMENT if an option is invalid or cannot change. */
QUIP_API quip_status quip_session_set_options(quip_session *session,
                                              const quip_session_options *options,
                                              quip_error *error);

/* Open a second session that continues from the same point: same options, context, adapter and
 * seed. It shares nothing with the first one but the model and the adapter. */
QUIP_API quip_status quip_session_clone(quip_session **copy, const quip_session *session,
                                        quip_error *error);

/* Remove all tokens from `position` on, with 0 <= position <= quip_session_position().
 * A sliding-window layer keeps the keys and values of its window and of 512 more tokens. If more
 * tokens are removed, the next call runs the remaining text again, with the same result. To return
 * to one point many times, clone the session there. */
QUIP_API quip_status quip_session_rewind(quip_session *session, int position, quip_error *error);

/* Return to the state before the last call that appended a text or tokens, and remove everything
 * since then, such as the answer. The options, the adapter and the seed stay: to get another answer
 * to the same prompt, set another seed. No effect if nothing was appended since the session was
 * opened, rewound or undone. */
QUIP_API quip_status quip_session_undo(quip_session *session, quip_error *error);

QUIP_API int quip_session_position(const quip_session *session);  // tokens in the context
QUIP_API int quip_session_n_context(const quip_session *session); // its capacity
QUIP_API int quip_session_n_threads(const quip_session *session); // threads that it uses

/* ---- adapters ---- */

typedef struct quip_adapter quip_adapter;

/* Load LoRA weights for a model: a PEFT folder (adapter_config.json and adapter_model.safetensors)
 * or a MediaPipe LoRA file. Any number of sessions of that model may share the adapter. The weights
 * of the model are not copied. If the adapter does not fit the model, the message says which tensor
 * does not. */
QUIP_API quip_status quip_adapter_open(quip_adapter **adapter, quip_model *model, const char *path,
                                       quip_error *error);

/* Load an adapter from a source: one MediaPipe LoRA file or one safetensors file. lora_alpha is
 * read from the metadata of the safetensors file; without it the weights are not scaled. */
QUIP_API quip_status quip_adapter_open_source(quip_adapter **adapter, quip_model *model,
                                              const quip_source *source, quip_error *error);

/* Close the adapter. Sessions that use it keep what they need of it. */
QUIP_API void quip_adapter_close(quip_adapter *adapter);

/* Use an adapter in a session from now on, instead of the one in use if there is one. NULL: none.
 * Its effect is multiplied by `scale`: 1 is as trained, 0 has no effect, negative values are
 * allowed. The text in the context stays. The next call runs it again with the new weights, so the
 * result is that of a session that used the adapter from the beginning. */
QUIP_API quip_status quip_session_set_adapter(quip_session *session, quip_adapter *adapter,
                                              float scale, quip_error *error);

/* ---- tokens and logits ---- */

/* Convert text to token ids. At most `capacity` ids are written; `tokens` may be NULL if capacity
 * is 0. *n_tokens becomes the full count. No template and no first token are added. If
 * `with_special` is true, control tokens that are spelled out in the text ("<|im_end|>") become
 * their ids; otherwise they are ordinary text. */
QUIP_API quip_status quip_tokenize(const quip_model *model, const char *text, size_t n,
                                   bool with_special, quip_token *tokens, int capacity,
                                   int *n_tokens, quip_error *error);

/* Convert token ids to text. At most `capacity` bytes are written, without a final NUL; `text` may
 * be NULL if capacity is 0. *n becomes the full length. Control tokens have no text. Bytes that are
 * not valid UTF-8 become U+FFFD. Fails with QUIP_E_ARGUMENT if the model has no such id. */
QUIP_API quip_status quip_detokenize(const quip_model *model, const quip_token *tokens,
                                     int n_tokens, char *text, size_t capacity, size_t *n,
                                     quip_error *error);

/* The token ids that quip_session_append would add to the context for this text now, template
 * included. Otherwise like quip_tokenize. The session does not change. */
QUIP_API quip_status quip_session_tokenize(const quip_session *session, quip_role role,
                                           const char *text, size_t n, quip_token *tokens,
                                           int capacity, int *n_tokens, quip_error *error);

/* Run the model over n tokens, which follow those already in the context. Two calls give the same
 * logits as one call with all tokens. Fails with QUIP_E_CONTEXT_FULL if the context would exceed
 * n_context tokens. */
QUIP_API quip_status quip_session_prefill(quip_session *session, const quip_token *tokens, int n,
                                          quip_error *error);

/* Receives the logits [vocab_size] that follow the token at `position`, valid during the call.
 * Return false to stop. */
typedef bool quip_on_logits(void *user, int position, const float *logits);

/* Like quip_session_prefill, but report the logits after every token, in order. Slower, because the
 * output matrix runs for every token. Fails with QUIP_E_CANCELLED if the callback returns false. */
QUIP_API quip_status quip_session_prefill_logits(quip_session *session, const quip_token *tokens,
                                                 int n, quip_on_logits *on_logits, void *user,
                                                 quip_error *error);

/* The logits [vocab_size] after the last token, valid until the next call on the session. NULL if
 * the model has not run that token: before the first token, after a rewind or a change of the
 * adapter, and during an answer, whose last token runs when the next one is requested. */
QUIP_API const float *quip_session_logits(quip_session *session);

/* ---- prefill in steps ---- */

/* Like quip_session_append and quip_session_prefill, but only add the tokens to the context.
 * *n_left becomes the number of tokens that quip_session_run has to run; NULL is allowed. Any other
 * call that needs these tokens runs what is left of them. For event loops that must not block:
 *
 *     int n_left;
 *     status = quip_session_begin_append(session, QUIP_ROLE_USER, text, n, &n_left, &error);
 *     while (!status && n_left > 0)
 *         status = quip_session_run(session, 64, &n_left, &error); // and look at other events
 */
QUIP_API quip_status quip_session_begin_append(quip_session *session, quip_role role,
                                               const char *text, size_t n, int *n_left,
                                               quip_error *error);
QUIP_API quip_status quip_session_begin_prefill(quip_session *session, const quip_token *tokens,
                                                int n, int *n_left, quip_error *error);

/* Run at most max_tokens of the tokens that have not run yet. *n_left becomes the number of those
 * that are left; NULL is allowed. The size of the steps does not change the result. Steps of 64
 * tokens and more take about as long as one call for all. If a step fails or is cancelled, the
 * session is as before the begin. quip_session_undo also stops a prefill that has begun. */
QUIP_API quip_status quip_session_run(quip_session *session, int max_tokens, int *n_left,
                                      quip_error *error);

/* ---- embeddings ---- */

/* Which tokens of a text its embedding is made of. Unknown values are QUIP_E_ARGUMENT. */
typedef enum quip_pooling {
    QUIP_POOLING_MODEL = 0, // as the model file says
    QUIP_POOLING_MEAN = 1,  // the mean of all tokens
    QUIP_POOLING_FIRST = 2, // the first one, such as [CLS]
    QUIP_POOLING_LAST = 3   // the last one
} quip_pooling;

typedef struct quip_embed_options {
    const char *prompt; // name of a task prompt of the model, such as "query" or "document", whose
                        // text is put before each text; NULL: the model's default, if it has one
    const char *prefix; // put before each text instead of a prompt; "": no prompt; NULL: `prompt`
    int32_t pooling;    // enum quip_pooling. A model that is not an embedding model needs one
    int n_dimensions;   // keep only the first ones of each embedding, for models that were trained
                        // so (Matryoshka); 0: all
    int n_tokens_max;   // tokens of a text, at most n_context_max; 0: as the model file says
    int n_threads;      // use at most this many of the model's threads; 0: all
    bool no_normalize;  // false: each embedding has length 1, so that the cosine of two embeddings
                        // is the sum of their products
    bool no_truncation; // a longer text is an error; false: it is cut, see quip_embed
    uint64_t reserved[4];
} quip_embed_options;

/* What is embedded: a text, or token ids if `tokens` is not NULL. */
typedef struct quip_embed_input {
    const char *text; // n_text bytes of UTF-8. Control tokens that are spelled out are recognized
    size_t n_text;
    const quip_token *tokens; // as they are: no prompt, and no token before or behind them
    int n_tokens;
} quip_embed_input;

/* Compute the embeddings of n texts: embeddings[i * n_dimensions], for n_dimensions of the options
 * or else n_embedding of the model. `capacity` is the number of floats in `embeddings`. The texts
 * run together, so one call for many texts is faster than many calls, with the same result.
 * The tokens of a text are those that begin every text ([CLS]), then prompt and text, then those
 * that end every text ([SEP]). If they are more than n_tokens_max, the last tokens of the text are
 * dropped; those that end every text stay. Token ids of an input are never cut.
 * Fails with QUIP_E_UNSUPPORTED if the model makes no embeddings, and with QUIP_E_CONTEXT_FULL if
 * ids, or with no_truncation a text, are too long. Threads may call this at once: they take turns.
 */
QUIP_API quip_status quip_embed(quip_model *model, const quip_embed_input *inputs, int n,
                                const quip_embed_options *options, float *embeddings,
                                size_t capacity, quip_error *error);

/* The name of a task prompt of the model, valid while the model is open. NULL if `index` is not
 * from 0 to the number of prompts - 1. */
QUIP_API const char *quip_model_prompt_name(const quip_model *model, int index);

/* ---- planning ---- */

/* The memory that a model and one session need, in bytes. */
typedef struct quip_plan {
    uint32_t struct_size;   // sizeof(quip_plan), set by the caller
    int n_context;          // that the numbers are for
    uint64_t file_bytes;    // the file. If it is mapped, processes share its memory
    uint64_t model_bytes;   // what an open model needs beside the file
    uint64_t kv_bytes;      // keys and values of a full context
    uint64_t scratch_bytes; // everything else
    uint64_t shared_bytes;  // the part of scratch_bytes that all sessions of the model share
    uint64_t lookup_bytes;  // the part of file_bytes of which each token reads one row: per-layer
                            // embeddings. A mapped file need not fit in memory with them
} quip_plan;

/* Compute the memory that a model and a session with these options need; with a draft model, all
 * numbers but n_context are sums for both. To plan for a file before it is loaded, open its path or
 * source with no_weights:
 *
 *     const quip_model_options header = { .no_weights = true };
 *     quip_plan plan = { .struct_size = sizeof plan };
 *     if (quip_model_open(&model, path, &header, &error) ||
 *         quip_model_plan(model, &session_options, &plan, &error))
 */
QUIP_API quip_status quip_model_plan(const quip_model *model, const quip_session_options *options,
                                     quip_plan *plan, quip_error *error);

#ifdef __cplusplus
}
#endif
#endif
