/* quip_web.h: what the WebAssembly module exports: quip.h for callers that have numbers only.
 *
 * Everywhere:
 * - A pointer, a handle and a size is an unsigned 32-bit number (in JavaScript: `value >>> 0`), in
 *   the builds with 64-bit memory a 64-bit one (a BigInt). In a struct it takes 8 bytes in both.
 *   Text is UTF-8: a pointer and a length, no NUL; the few NUL-terminated ones say so.
 * - A call that makes something returns its handle, or 0 when it fails. Any other call that can
 * fail returns a quip_status: 0, or a negative number. What went wrong then lies at
 * quip_web_error(): { i32 status; char message[508], NUL-terminated }. A file has no name here: the
 * message says "{file}" for it.
 * - Memory may grow in every call: take views of it anew afterwards.
 * - All calls are made by one thread, the host worker, except quip_web_thread_run and the stores to
 *   a session's cancel flag.
 *
 * Imports: env.now() -> f64, milliseconds that only grow; env.random(pointer, n): n random bytes;
 * in a build with threads also env.memory, shared, of at least the pages and exactly the maximum
 * that the module's import declares (65536 or 262144). A build without threads exports `memory`.
 *
 * Builds: quip-{simd,relaxed}{,-mt}{,-64}.wasm: with relaxed dot products or without, with threads
 * or without, with 64-bit memory (16 GiB at most) for large models or without. All give the same
 * bits, provided that quip_web_relaxed_ok() says 1 in a relaxed one.
 *
 * Threads (-mt): the host starts workers. Each instantiates the module on the same memory, calls
 * quip_web_thread_enter(stack), with 64 KiB that the host took by quip_web_pages_alloc, and then
 * quip_web_thread_run(index), with a number from 0 to 63 of its own; that call does not
 * return. A session takes n_threads - 1 of the workers that wait there, until it is closed; when
 * there are fewer it runs with those. */
#ifndef QUIP_WEB_H
#define QUIP_WEB_H

#include "quip.h"

#include <web_threads.h> // quip_web_thread_*

/* ---- module ---- */

const char *WEB_EXPORT(quip_web_version)(void); // NUL-terminated
const quip_error *WEB_EXPORT(quip_web_error)(void);
/* 1 when this engine computes relaxed dot products as the specification bounds them, or when the
 * build has none; 0: load the simd build instead. */
int32_t WEB_EXPORT(quip_web_relaxed_ok)(void);

/* Small memory, for arguments; 0 when there is none. */
void *WEB_EXPORT(quip_web_malloc)(size_t n);
void WEB_EXPORT(quip_web_free)(void *p);
/* Pages, for model files: zeroed, aligned to 64 KiB. Free with the same size. */
void *WEB_EXPORT(quip_web_pages_alloc)(size_t n);
void WEB_EXPORT(quip_web_pages_free)(void *p, size_t n);

/* ---- models ---- */

/* A model over a file of n bytes that lies in quip_web_pages_alloc(n). On success the pages belong
 * to the model, which frees them when it and its last session are closed; on failure they stay the
 * caller's. */
quip_model *WEB_EXPORT(quip_web_model_open)(void *file, size_t n);
void WEB_EXPORT(quip_web_model_close)(quip_model *model);
/* JSON, NUL-terminated, valid until the next call: { "architecture", "weights", "nParameters",
 * "fileBytes", "nLayers", "dModel", "dFf", "nHeads", "nKvHeads", "headDim", "vocabSize",
 * "nContextMax", "bos", "hasTemplate" }, as quip_model_info. */
const char *WEB_EXPORT(quip_web_model_info)(const quip_model *model);

/* ---- adapters ---- */

/* quip_adapter_open_source over n bytes of a LoRA file, which may be freed afterwards. */
quip_adapter *WEB_EXPORT(quip_web_adapter_open)(quip_model *model, const void *file, size_t n);
void WEB_EXPORT(quip_web_adapter_close)(quip_adapter *adapter);

/* ---- sessions ---- */

/* quip_session_options; all-zero bytes, or 0 for a pointer to this, mean the defaults. */
struct web_session_options {
    int32_t n_context;                     //  0
    int32_t n_threads;                     //  4
    int32_t max_output_tokens;             //  8
    int32_t top_k;                         // 12
    float temperature;                     // 16
    float top_p;                           // 20
    uint32_t seed_low, seed_high;          // 24, 28
    uint32_t flags;                        // 32: enum web_session_flag
    int32_t n_stop;                        // 36
    _Alignas(8) const char *system;        // 40: NUL-terminated, or 0
    _Alignas(8) const char *chat_template; // 48: NUL-terminated, or 0
    _Alignas(8) const char *const *stop;   // 56: pointers to NUL-terminated texts, or 0
    _Alignas(8) quip_adapter *adapter;     // 64: or 0
    _Alignas(8) float adapter_scale;       // 72: 0 is 1; 80 bytes in all
};
enum web_session_flag {
    WEB_NO_TEMPLATE = 1,
    WEB_NO_SPECULATION = 2,
};

struct web_session;
struct web_session *WEB_EXPORT(quip_web_session_open)(quip_model *model,
                                                      const struct web_session_options *options);
void WEB_EXPORT(quip_web_session_close)(struct web_session *session);
struct web_session *WEB_EXPORT(quip_web_session_clone)(const struct web_session *session);
int32_t WEB_EXPORT(quip_web_session_rewind)(struct web_session *session, int32_t position);
int32_t WEB_EXPORT(quip_web_session_position)(const struct web_session *session);
int32_t WEB_EXPORT(quip_web_session_n_context)(const struct web_session *session);
int32_t WEB_EXPORT(quip_web_session_n_threads)(const struct web_session *session);
/* quip_session_set_adapter; 0 drops the one there is. */
int32_t WEB_EXPORT(quip_web_session_set_adapter)(struct web_session *session, quip_adapter *adapter,
                                                 float scale);
/* The address of a byte: 1 stored there (from any thread, by Atomics.store on an Int8Array) ends
 * the call that is running, as quip_session_cancel does. */
void *WEB_EXPORT(quip_web_session_cancel_flag)(struct web_session *session);

/* quip_append. `role` is enum quip_role: 0 none, 1 user, 2 model, 3 system. */
int32_t WEB_EXPORT(quip_web_append)(struct web_session *session, int32_t role, const char *text,
                                    size_t n);
/* The same in steps, for a host that must look at its messages in between: begin puts the tokens in
 * the context and returns how many are to be run, a step runs at most n_tokens of them and returns
 * how many are left; negative is a status. When a step fails (cancelled, say) the session is as
 * before begin. Steps of 32 and more are as fast as all at once, within a tenth. */
int32_t WEB_EXPORT(quip_web_append_begin)(struct web_session *session, int32_t role,
                                          const char *text, size_t n);
int32_t WEB_EXPORT(quip_web_append_step)(struct web_session *session, int32_t n_tokens);
/* Back to where the session was before the last append or append_begin: to drop one half run, or a
 * prompt whose answer's first quip_web_next failed. */
void WEB_EXPORT(quip_web_append_undo)(struct web_session *session);

/* quip_next. The piece lies at quip_web_piece(): { u64 text; u64 n; i32 reason }; at the end n is 0
 * and reason is enum quip_finish_reason: 1 stop, 2 length, 3 context, 4 cancelled. */
int32_t WEB_EXPORT(quip_web_next)(struct web_session *session);
const void *WEB_EXPORT(quip_web_piece)(void);

/* quip_session_get_result, as eight f64: finish reason, prompt tokens, output tokens, prefill,
 * decode and first token in milliseconds, low and high half of the seed. Valid until the next
 * call. */
const double *WEB_EXPORT(quip_web_result)(const struct web_session *session);

/* ---- tokens and logits ---- */

/* quip_encode: ids at most `capacity` of them; returns the full count, or a status. */
int32_t WEB_EXPORT(quip_web_encode)(const quip_model *model, const char *text, size_t n,
                                    int32_t with_special, quip_token *tokens, int32_t capacity);
/* quip_decode: at most `capacity` bytes; returns the full length, or a status. */
int32_t WEB_EXPORT(quip_web_decode)(const quip_model *model, const quip_token *tokens,
                                    int32_t n_tokens, char *text, size_t capacity);
int32_t WEB_EXPORT(quip_web_prefill)(struct web_session *session, const quip_token *tokens,
                                     int32_t n);
/* f32 [vocabSize] after the last token, or 0; valid until the next call on this session. */
const float *WEB_EXPORT(quip_web_logits)(const struct web_session *session);

/* ---- planning ---- */

/* What a model and a session will take, before the model is there: from the first n of its
 * file_bytes bytes. In a file that Quip or the original wrote the header and the tokenizer come
 * first; when n is too small for them this fails with QUIP_E_IO: fetch more. Five f64, valid until
 * the next call: bytes of the file, of keys and values, of all else the session owns, of the open
 * model's own; tokens of context. 0 on failure. */
const double *WEB_EXPORT(quip_web_plan)(const void *head, size_t n, double file_bytes,
                                        const struct web_session_options *options);
/* A model without weights from the same bytes, for quip_web_encode, quip_web_decode and
 * quip_web_model_info alone: what counts tokens needs no weights. */
quip_model *WEB_EXPORT(quip_web_header_open)(const void *head, size_t n, double file_bytes);

#endif
