/* quip.h: run language models on the device that holds them. This header is the manual.
 *
 * Three nouns: a model (immutable once open, shared by any number of threads), a session (one
 * conversation; one thread at a time) and an error. The calls come easy first:
 *
 *     quip_model *model = NULL;
 *     quip_session *chat = NULL;
 *     quip_error error = { 0 };
 *     if (quip_model_open(&model, "gemma.bin", NULL, &error) ||
 *         quip_session_open(&chat, model, NULL, &error) ||
 *         quip_generate(chat, "Why is the sky blue?", 20, on_text, NULL, NULL, &error))
 *         fprintf(stderr, "%s\n", error.message);
 *     quip_session_close(chat);
 *     quip_model_close(model);
 *
 * Everywhere:
 * - An option struct whose bytes are all zero, or NULL in its place, means the defaults.
 * - What can fail returns a quip_status (0 is fine) and fills the caller's quip_error, which may be
 *   NULL. The library never prints, exits or aborts, and a failed call leaves things as they were
 *   unless it says otherwise.
 * - Text is UTF-8. Text that comes out is made of whole characters.
 * - The same model, prompt, options and seed give the same answer on every CPU, with any number of
 *   threads.
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

/* ---- errors ---- */

typedef enum quip_status {
    QUIP_OK = 0,
    QUIP_E_ARGUMENT = -1,     // the caller passed something that cannot be
    QUIP_E_MEMORY = -2,       // an allocation failed
    QUIP_E_IO = -3,           // a file could not be read or written
    QUIP_E_FORMAT = -4,       // a file is not what it claims to be
    QUIP_E_UNSUPPORTED = -5,  // well-formed, but not something this build can do
    QUIP_E_CONTEXT_FULL = -6, // the tokens do not fit in the session's n_context
    QUIP_E_CANCELLED = -7     // quip_session_cancel was called
} quip_status;

/* What went wrong: one sentence that names the thing, what was found, what was expected. Owned by
 * the caller; nothing to free. */
typedef struct quip_error {
    quip_status status;
    char message[508];
} quip_error;

/* A short constant name: "ok", "argument", "memory", "io", "format", "unsupported",
 * "context_full", "cancelled". */
QUIP_API const char *quip_status_name(quip_status status);

/* The library's version, QUIP_VERSION of the build. */
QUIP_API const char *quip_version(void);

/* ---- models ---- */

typedef struct quip_model quip_model;
typedef int32_t quip_token;

typedef struct quip_model_options {
    bool no_mmap; // read the weights into memory instead of mapping the file
    uint64_t reserved[8];
} quip_model_options;

/* A file that is not a path: an asset inside a package, a browser's file handle. read_at copies
 * exactly n bytes at `offset` to `buffer` and returns true, or false when it cannot. It is called
 * during open only, on the calling thread. */
typedef struct quip_source {
    void *user;
    uint64_t size; // of the whole file, in bytes
    bool (*read_at)(void *user, uint64_t offset, void *buffer, size_t n);
    const char *name; // for messages; NULL is "model"
} quip_source;

/* Open a model file. The weights are used where they lie in the mapped file: opening takes
 * milliseconds, and processes that open the same file share its pages. Do not change the file
 * while it is open. Close with quip_model_close. */
QUIP_API quip_status quip_model_open(quip_model **model, const char *path,
                                     const quip_model_options *options, quip_error *error);

/* The same from a caller's source. The weights are read into memory. */
QUIP_API quip_status quip_model_open_source(quip_model **model, const quip_source *source,
                                            const quip_model_options *options, quip_error *error);

/* The same from n bytes of a model file that are in memory: the weights are used where they lie,
 * and the bytes stay as they are until release(user) is called, by whichever close is the last: the
 * model's or that of a session of it. `release` may be NULL. On failure it is not called. Best
 * begin at a multiple of 64; an address that is no multiple of 4 is refused. */
QUIP_API quip_status quip_model_open_memory(quip_model **model, const void *bytes, size_t n,
                                            void (*release)(void *user), void *user,
                                            const quip_model_options *options, quip_error *error);

/* Close; NULL is fine. Sessions that are still open keep what they need of the model. */
QUIP_API void quip_model_close(quip_model *model);

/* Facts of a model. Strings are valid while the model is open. */
typedef struct quip_model_info {
    const char *architecture; // "gemma3", "llama", ...
    const char *weights;      // "int8", "int4", "mixed" or "f32"
    uint64_t n_parameters;
    uint64_t file_bytes;
    int n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab_size;
    int n_context_max; // positions the model was trained for; 0 when the file does not say
    quip_token bos;    // put in front of a prompt; -1 for none
    bool has_template; // false for base models: text goes in as it is
} quip_model_info;
QUIP_API void quip_model_get_info(const quip_model *model, quip_model_info *info);

/* ---- adapters: fine-tunes beside a model ---- */

typedef struct quip_adapter quip_adapter;

/* Load LoRA weights for a model: a PEFT folder (adapter_config.json and adapter_model.safetensors)
 * or a LoRA file of the original. Shared by any number of sessions of that model, each with a scale
 * of its own; the model's weights stay one copy. An adapter that does not fit the model is an error
 * that names what does not. Keeps the model alive. Close with quip_adapter_close. */
QUIP_API quip_status quip_adapter_open(quip_adapter **adapter, quip_model *model, const char *path,
                                       quip_error *error);

/* The same from a caller's source, one file: a LoRA file of the original, or safetensors, whose
 * lora_alpha comes from its own metadata; without it nothing is scaled. */
QUIP_API quip_status quip_adapter_open_source(quip_adapter **adapter, quip_model *model,
                                              const quip_source *source, quip_error *error);

/* Close; NULL is fine. Sessions that use it keep what they need. */
QUIP_API void quip_adapter_close(quip_adapter *adapter);

/* ---- sessions ---- */

typedef struct quip_session quip_session;

typedef struct quip_session_options {
    int n_context;           // prompt and answer together, in tokens; 0 is 4096 or the model's own
                             // maximum, whichever is smaller
    int n_threads;           // 0 is one per processor that this process may use
    int max_output_tokens;   // of one answer; 0 is as many as the context holds
    uint64_t seed;           // 0 draws one, which quip_result.seed reports
    float temperature;       // 0 is greedy: always the likeliest token
    int top_k;               // draw from the k likeliest; 0 is no limit; 1 is greedy
    float top_p;             // then from the shortest run of those whose probabilities reach p;
                             // 0 is 1: no limit. Order: top_k, temperature, top_p
    const char *const *stop; // texts that end an answer, beside the model's own: at most 64, each
    int n_stop;              // of 1 to 1024 bytes; copied
    const char *system;  // system prompt, put before the first turn by the model's template; copied
    bool no_template;    // text goes in as it is, even if the model has a template
    bool no_speculation; // run one token at a time instead of guessing ahead from the context; the
                         // answer is the same
    /* How turns are spelled, by name: "gemma", "smollm2", "qwen2", "qwen2.5", "chatml", "llama2",
     * "llama3", "zephyr", "phi2" or "none"; NULL is as the model's file says. */
    const char *chat_template;
    quip_adapter *adapter; // weights beside the model's, as if merged into it; NULL is none
    float adapter_scale;   // 0 is 1
    /* Leave the processor to others, on a phone or beside a user's work: without n_threads half the
     * processors, all threads but the caller's at low priority, and no waiting in a spin. Slower,
     * more so where others are busy; the answer is the same. */
    bool polite;
    uint64_t reserved[4];
} quip_session_options;

/* A process that was forked opens sessions of its own: those of its parent have threads that only
 * the parent has, and are neither used nor closed. Models are shared. */
QUIP_API quip_status quip_session_open(quip_session **session, quip_model *model,
                                       const quip_session_options *options, quip_error *error);
QUIP_API void quip_session_close(quip_session *session);

/* Why an answer ended. */
typedef enum quip_finish_reason {
    QUIP_FINISH_NONE = 0,      // it has not
    QUIP_FINISH_STOP = 1,      // the model ended its turn, or a stop text came up
    QUIP_FINISH_LENGTH = 2,    // max_output_tokens reached
    QUIP_FINISH_CONTEXT = 3,   // n_context reached
    QUIP_FINISH_CANCELLED = 4, // quip_session_cancel
    QUIP_FINISH_CALLBACK = 5   // the callback returned false
} quip_finish_reason;

/* What an answer cost. Times are in nanoseconds. */
typedef struct quip_result {
    quip_finish_reason finish_reason;
    int n_prompt_tokens; // fed by this call (or since the last answer), template included
    int n_output_tokens; // sampled, the one that ended the answer included
    uint64_t prefill_ns, decode_ns;
    uint64_t first_token_ns; // from the call to the first sampled token
    uint64_t seed;           // what the session draws from; the same seed gives the same text
} quip_result;

/* Receives a piece of the answer: n bytes of whole UTF-8 characters, not NUL-terminated. Runs on
 * the thread that called. Return false to end the answer. */
typedef bool quip_on_text(void *user, const char *text, size_t n);

/* Ask and answer: append `prompt` as the user's turn, then generate the model's. `on_text` and
 * `result` may be NULL. The conversation stays in the session: call again for the next turn. When
 * the prompt does not fit it fails with QUIP_E_CONTEXT_FULL, when it is cancelled before the answer
 * begins with QUIP_E_CANCELLED; the session is then as before. */
QUIP_API quip_status quip_generate(quip_session *session, const char *prompt, size_t n,
                                   quip_on_text *on_text, void *user, quip_result *result,
                                   quip_error *error);

/* ---- the same in pieces ---- */

typedef enum quip_role {
    QUIP_ROLE_NONE = 0, // text as it is, no template
    QUIP_ROLE_USER = 1,
    QUIP_ROLE_MODEL = 2,
    QUIP_ROLE_SYSTEM = 3
} quip_role;

/* Append text to the conversation and run the model over it. Text of one role may come in several
 * calls; when the role changes, the model's template text goes in between. The tokens are those of
 * each call's text encoded on its own. The beginning-of-sequence token is put in front once. */
QUIP_API quip_status quip_append(quip_session *session, quip_role role, const char *text, size_t n,
                                 quip_error *error);

/* Pull the next piece of the answer: *text is n bytes of whole characters, valid until the next
 * call on this session. At the end *n is 0 and *reason says why; until then it is QUIP_FINISH_NONE.
 * The first call after an append begins the model's turn. One that failed may be made again: the
 * answer goes on where it was. */
QUIP_API quip_status quip_next(quip_session *session, const char **text, size_t *n,
                               quip_finish_reason *reason, quip_error *error);

/* Figures of the answer so far. */
QUIP_API void quip_session_get_result(const quip_session *session, quip_result *result);

/* End the call that is running on this session, in prefill or decode, within about one layer's
 * time. The only call allowed from another thread at any time. A cancelled quip_append fails with
 * QUIP_E_CANCELLED and leaves the session as before it; a cancelled answer ends with
 * QUIP_FINISH_CANCELLED and keeps what was said, also when the cancel comes between the calls that
 * pull it. Before and after that it does nothing. */
QUIP_API void quip_session_cancel(quip_session *session);

/* A second session that continues from the same point: same options, same context, same state of
 * the random generator. */
QUIP_API quip_status quip_session_clone(quip_session **copy, const quip_session *session,
                                        quip_error *error);

/* Forget everything from token `position` on (0 <= position <= quip_session_position). Layers that
 * see a window keep little more than it: when more than 512 tokens were run behind `position`, the
 * next call may first run the text up to it again, with the same result. To come back to a point
 * again and again, continue from it in clones. */
QUIP_API quip_status quip_session_rewind(quip_session *session, int position, quip_error *error);

/* Switch, scale or drop (NULL) a session's adapter; a scale of 0 is 1. The context's text stays:
 * the next call runs it again, with the new weights, so that the result is that of a session opened
 * with them. */
QUIP_API quip_status quip_session_set_adapter(quip_session *session, quip_adapter *adapter,
                                              float scale, quip_error *error);

QUIP_API int quip_session_position(const quip_session *session);  // tokens in the context
QUIP_API int quip_session_n_context(const quip_session *session); // tokens it can hold

/* ---- tokens and logits ---- */

/* Encode text to at most `capacity` ids (tokens may be NULL with capacity 0) and set *n_tokens to
 * the full count. No template, no beginning-of-sequence token. With `with_special`, control tokens
 * spelled out in the text ("<|im_end|>") become their ids; otherwise they are ordinary text. */
QUIP_API quip_status quip_encode(const quip_model *model, const char *text, size_t n,
                                 bool with_special, quip_token *tokens, int capacity, int *n_tokens,
                                 quip_error *error);

/* The text of a sequence of ids: at most `capacity` bytes are written (text may be NULL with
 * capacity 0), no NUL; *n is the full length. Control tokens have no text. Bytes that are no UTF-8
 * become U+FFFD. An id that the model does not have is an error. */
QUIP_API quip_status quip_decode(const quip_model *model, const quip_token *tokens, int n_tokens,
                                 char *text, size_t capacity, size_t *n, quip_error *error);

/* Run the model over `tokens`, which follow those already in the context; the position is then n
 * higher. May be called in pieces: two calls leave the same logits as one. On failure the session
 * is as it was before. QUIP_E_CONTEXT_FULL when the position would pass n_context. */
QUIP_API quip_status quip_prefill(quip_session *session, const quip_token *tokens, int n,
                                  quip_error *error);

/* Receives the logits [vocab_size] that follow the token at `position`; valid during the call.
 * Return false to stop. */
typedef bool quip_on_logits(void *user, int position, const float *logits);

/* quip_prefill that shows the logits of every position, in order. Slower: the vocabulary projection
 * runs for every token. */
QUIP_API quip_status quip_prefill_logits(quip_session *session, const quip_token *tokens, int n,
                                         quip_on_logits *on_logits, void *user, quip_error *error);

/* The logits [vocab_size] after the last token, valid until the next call on this session; NULL
 * when that token has not been run: before the first, after a rewind, and in an answer, whose last
 * token runs when the next one is wanted. */
QUIP_API const float *quip_logits(const quip_session *session);

/* ---- planning ---- */

/* What a model and a context will take, in bytes. */
typedef struct quip_plan {
    uint64_t file_bytes;    // the file: mapped, its pages are shared between processes; with
                            // no_mmap or from a source, in memory of its own
    uint64_t kv_bytes;      // keys and values when the context is full; a layer that sees a window
                            // keeps that and a few blocks of positions
    uint64_t scratch_bytes; // everything else a session owns
    uint64_t model_bytes;   // memory the open model owns beside the mapping
    int n_context;          // that the numbers are for
} quip_plan;

/* Compute a plan, before any weight is read: of the model only the header and the tokenizer are
 * looked at, the session's memory is added up. */
QUIP_API quip_status quip_plan_memory(quip_plan *plan, const char *path,
                                      const quip_model_options *model_options,
                                      const quip_session_options *session_options,
                                      quip_error *error);

/* The same from a caller's source. In a file that Quip or the original wrote, what is read lies
 * before the weights: the rest of the file need not be there yet. */
QUIP_API quip_status quip_plan_memory_source(quip_plan *plan, const quip_source *source,
                                             const quip_model_options *model_options,
                                             const quip_session_options *session_options,
                                             quip_error *error);

#ifdef __cplusplus
}
#endif
#endif
