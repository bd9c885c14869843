/* quip_web.h: the functions that a WebAssembly module has beside those of quip.h.
 * JavaScript calls quip.h directly. What it cannot do is pass a path or a function, so functions
 * that take one are not exported; the functions here replace them.
 *
 * Calls:
 * - A pointer, a handle and a size_t are numbers: unsigned 32-bit ones (in JavaScript `value >>>
 * 0`), or BigInts in a module with 64-bit memory. Layouts of structs differ between the two.
 *   tools/abi.py computes both, and lists the functions, from these headers.
 * - Memory may grow in every call. A view of it from before the call is then invalid.
 * - One worker makes all calls. Other threads may only store to a session's cancel flag
 *   (quip_session_cancel_flag).
 *
 * - A model on the GPU: nothing waits in a page. quip_session_run and quip_session_next return
 *   QUIP_WEB_NOT_YET, and quip_session_logits NULL, while the GPU works. Wait for what was mapped
 *   and make the same call again, before any other call but quip_session_cancel. So does
 *   quip_web_session_check. quip_embed and calls that run a whole prompt are for the CPU.
 *
 * Imports: env.now() -> f64, milliseconds, never decreasing; env.random(pointer, n), n random
 * bytes; gpu.*, the calls of src/webgpu/device_web.c, which return 0 where there is no GPU. A
 * module with threads also imports env.memory: shared, with the maximum that the import declares
 * (65536 or 262144 pages). Without threads it exports `memory`.
 *
 * Modules: quip-{simd,relaxed}{,-mt}{,-64}.wasm: without and with relaxed SIMD, without and with
 * threads, with 32-bit and 64-bit memory (at most 16 GiB). All of them compute the same bits.
 * Before the first use of a relaxed one, call quip_backend_check: an engine whose relaxed dot
 * products are not as the specification says must load the simd module instead.
 *
 * Threads (web_threads.h): a model uses the workers that wait when it is opened; there may be fewer
 * than its n_threads. */
#ifndef QUIP_WEB_H
#define QUIP_WEB_H

#include "quip.h"

/* A status beside those of quip.h: call again. */
enum quip_web_status {
    QUIP_WEB_NOT_YET = 1
};

/* quip_memory_alloc of a module returns whole pages of 64 KiB. A block may be freed in parts of
 * whole pages, and neighbouring blocks may be freed together. */

/* Memory for arguments. NULL if there is not enough. */
QUIP_API void *quip_web_malloc(size_t n);
QUIP_API void quip_web_free(void *p);

/* The fingerprint of these headers (tools/abi.py). JavaScript with another one must not use the
 * module: its layouts of structs are others. */
QUIP_API int quip_web_abi(void);

/* Open a model file of n bytes in memory of quip_memory_alloc(n). The memory remains the caller's,
 * who frees it after the last model that uses it and the last session of that are closed. */
QUIP_API quip_status quip_web_model_open(quip_model **model, const void *file, size_t n,
                                         const quip_model_options *options, quip_error *error);

/* Open a model without weights (no_weights) from the first n of the file_bytes bytes of its file.
 * The bytes may be freed afterwards. Fails with QUIP_E_IO if more bytes are needed. */
QUIP_API quip_status quip_web_model_open_head(quip_model **model, const void *head, size_t n,
                                              double file_bytes, const quip_model_options *options,
                                              quip_error *error);

/* quip_adapter_open_source for the n bytes of a file, which may be freed afterwards. `name` ends
 * with NUL. */
QUIP_API quip_status quip_web_adapter_open(quip_adapter **adapter, quip_model *model,
                                           const void *file, size_t n, const char *name,
                                           quip_error *error);

/* Compare the device of a session that has run nothing with the CPU, as opening one does natively:
 * QUIP_E_UNSUPPORTED if it computes something else. May return QUIP_WEB_NOT_YET. */
QUIP_API quip_status quip_web_session_check(quip_session *session, quip_error *error);

#endif
