/* quip.c: the public functions. Each checks its arguments and calls the engine. */
#include "engine/engine.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- structs of quip.h ---- */

/* Programs and bindings rely on these sizes. The second one is for 32-bit pointers, where uint64_t
 * is aligned to 8 bytes (wasm32, ARM); 32-bit x86 aligns it to 4. */
struct alignment_probe {
    char c;
    uint64_t u;
};
#define IS_ALIGNED_TO_4 (offsetof(struct alignment_probe, u) == 4)
#define ASSERT_SIZE(type, on_64, on_32)                                                            \
    _Static_assert(IS_ALIGNED_TO_4 || sizeof(type) == (sizeof(void *) == 8 ? (on_64) : (on_32)),   \
                   "the size of " #type " is part of the binary interface")

ASSERT_SIZE(quip_error, 512, 512);
ASSERT_SIZE(quip_source, 64, 56);
ASSERT_SIZE(quip_model_options, 88, 80);
ASSERT_SIZE(quip_model_info, 144, 136);
ASSERT_SIZE(quip_session_options, 152, 128);
ASSERT_SIZE(quip_logit_bias, 8, 8);
ASSERT_SIZE(quip_result, 64, 64);
ASSERT_SIZE(quip_piece, 40, 24);
ASSERT_SIZE(quip_plan, 56, 56);
ASSERT_SIZE(quip_embed_options, 72, 64);
ASSERT_SIZE(quip_embed_input, 32, 16);
_Static_assert(sizeof(atomic_bool) == 1, "quip_session_cancel_flag is the address of one byte");

#define MAX_STRUCT_SIZE 1024                      // a larger struct_size is not initialized
#define MIN_RESULT offsetof(quip_result, backend) // of version 0.1

static quip_status missing(quip_error *error, const char *what)
{
    return qp_fail(error, QUIP_E_ARGUMENT, "%s is NULL", what);
}

/* Check a struct that the library fills. min_size is its size in version 0.1. */
static quip_status check_output(const void *to, const char *name, size_t min_size,
                                quip_error *error)
{
    uint32_t size;
    if (!to)
        return missing(error, name);
    memcpy(&size, to, sizeof size);
    if (size < min_size || size > MAX_STRUCT_SIZE)
        return qp_fail(error, QUIP_E_ARGUMENT, "%s->struct_size is %u; must be %zu to %d", name,
                       (unsigned)size, min_size, MAX_STRUCT_SIZE);
    return QUIP_OK;
}

/* Copy a struct of from_size bytes to the caller's, except its struct_size. The caller's struct may
 * be shorter, or longer: then its other fields become 0. */
static void fill_output(void *to, const void *from, size_t from_size)
{
    uint32_t size;
    memcpy(&size, to, sizeof size);
    assert(size >= sizeof size && size <= MAX_STRUCT_SIZE && from_size >= sizeof size);
    const size_t n = size < from_size ? size : from_size;
    memcpy((char *)to + sizeof size, (const char *)from + sizeof size, n - sizeof size);
    memset((char *)to + n, 0, size - n);
}

/* ---- library ---- */

const char *quip_version(void)
{
    return QUIP_VERSION;
}

quip_status quip_backend_check(quip_backend backend, quip_error *error)
{
    return qp_backend_check((int32_t)backend, error);
}

void *quip_memory_alloc(size_t n)
{
    return n ? qp_alloc_pages(n) : NULL;
}

void quip_memory_free(void *memory, size_t n)
{
    if (memory)
        qp_free_pages(memory, n);
}

/* ---- models ---- */

static bool is_copied(const quip_model_options *options)
{
    return options && options->no_mmap && !options->no_weights;
}

/* Open a model that its backend can run; for auto, choose the backend. */
static quip_status open_runnable(quip_model **model, struct file *file,
                                 const quip_model_options *options, quip_error *error)
{
    quip_status status = qp_model_open(model, file, options, error);
    if (!status && (status = qp_backend_check_model(*model, error))) {
        qp_model_release(*model);
        *model = NULL;
    }
    if (!status && (!options || options->backend == QUIP_BACKEND_AUTO))
        qp_auto_choose(*model);
    return status;
}

quip_status quip_model_open(quip_model **model, const char *path, const quip_model_options *options,
                            quip_error *error)
{
    struct file file;
    quip_status status;
    if (!model || !path)
        return missing(error, model ? "path" : "model");
    *model = NULL;
    if ((status = qp_options_check_model(options, error)))
        return status;
    if (qp_path_is_folder(path))
        return qp_fail(error, QUIP_E_IO,
                       "%s: is a folder, not a model file; if it contains a checkpoint, convert "
                       "it first: quip convert %s model.bin",
                       path, path);
    status = is_copied(options) ? qp_file_open_copy(&file, path, error)
                                : qp_file_open(&file, path, error);
    if (status)
        return status;
    return open_runnable(model, &file, options, error);
}

quip_status quip_model_open_fd(quip_model **model, int fd, uint64_t offset, uint64_t size,
                               const quip_model_options *options, quip_error *error)
{
    struct file file;
    quip_status status;
    if (!model)
        return missing(error, "model");
    *model = NULL;
    if ((status = qp_options_check_model(options, error)))
        return status;
    const struct file_part part = { .fd = fd,
                                    .offset = offset,
                                    .size = size,
                                    .name = options && options->name ? options->name : "model" };
    if (offset % sizeof(float) && !is_copied(options))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "%s: offset is %" PRIu64 "; must be a multiple of 4, as zipalign makes it",
                       part.name, offset);
    if ((status = qp_file_open_fd(&file, &part, is_copied(options), error)))
        return status;
    return open_runnable(model, &file, options, error);
}

quip_status quip_model_open_source(quip_model **model, const quip_source *source,
                                   const quip_model_options *options, quip_error *error)
{
    struct file file;
    quip_status status;
    if (!model)
        return missing(error, "model");
    *model = NULL;
    if ((status = qp_options_check_model(options, error)) ||
        (status = qp_options_check_source(source, error)) ||
        (status = qp_file_open_source(&file, source, error)))
        return status;
    return open_runnable(model, &file, options, error);
}

quip_status quip_model_open_memory(quip_model **model, const void *bytes, size_t n,
                                   quip_on_release *release, void *user,
                                   const quip_model_options *options, quip_error *error)
{
    struct file file;
    quip_status status;
    if (!model)
        return missing(error, "model");
    *model = NULL;
    if (!bytes)
        return missing(error, "bytes");
    if ((status = qp_options_check_model(options, error)))
        return status;
    if ((uintptr_t)bytes % sizeof(float))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "the model's bytes start at address %p; must be a multiple of 4, best of 64",
                       bytes);
    const char *name = options && options->name ? options->name : "model";
    char *copy = malloc(strlen(name) + 1);
    if (!copy)
        return qp_fail_memory(error, "a model's name", strlen(name) + 1);
    strcpy(copy, name);
    qp_file_open_memory(&file, bytes, n, copy);
    if ((status = open_runnable(model, &file, options, error))) {
        free(copy);
        return status;
    }
    (*model)->name = copy;
    (*model)->file.release = release;
    (*model)->file.release_user = user;
    return QUIP_OK;
}

void quip_model_close(quip_model *model)
{
    qp_model_release(model);
}

quip_status quip_model_get_info(const quip_model *model, quip_model_info *info, quip_error *error)
{
    static const quip_model_info empty;
    const quip_status status =
        check_output(info, "info", offsetof(quip_model_info, n_experts), error);
    if (status)
        return status;
    fill_output(info, &empty, sizeof empty);
    if (!model)
        return missing(error, "model");
    const quip_model_info found = qp_model_info(model);
    fill_output(info, &found, sizeof found);
    return QUIP_OK;
}

quip_status quip_model_plan(const quip_model *model, const quip_session_options *options,
                            quip_plan *plan, quip_error *error)
{
    quip_plan found = { 0 };
    quip_status status = check_output(plan, "plan", sizeof(quip_plan), error);
    if (status)
        return status;
    status = model ? qp_session_measure(model, options, &found, error) : missing(error, "model");
    fill_output(plan, &found, sizeof found);
    return status;
}

/* ---- adapters ---- */

static quip_status check_has_weights(const quip_model *model, quip_error *error)
{
    if (model->options.no_weights)
        return qp_fail(error, QUIP_E_ARGUMENT, "%s: was opened with no_weights; open it without",
                       model->file.name);
    return QUIP_OK;
}

quip_status quip_adapter_open(quip_adapter **adapter, quip_model *model, const char *path,
                              quip_error *error)
{
    if (!adapter)
        return missing(error, "adapter");
    *adapter = NULL;
    if (!model || !path)
        return missing(error, model ? "path" : "model");
    const quip_status status = check_has_weights(model, error);
    return status ? status : qp_adapter_load(adapter, model, path, error);
}

quip_status quip_adapter_open_source(quip_adapter **adapter, quip_model *model,
                                     const quip_source *source, quip_error *error)
{
    struct file file;
    quip_status status;
    if (!adapter)
        return missing(error, "adapter");
    *adapter = NULL;
    if (!model)
        return missing(error, "model");
    if ((status = check_has_weights(model, error)) ||
        (status = qp_options_check_source(source, error)) ||
        (status = qp_file_open_source(&file, source, error)))
        return status;
    return qp_adapter_load_file(adapter, model, &file, error);
}

void quip_adapter_close(quip_adapter *adapter)
{
    qp_adapter_release(adapter);
}

/* ---- embeddings ---- */

quip_status quip_embed(quip_model *model, const quip_embed_input *inputs, int n,
                       const quip_embed_options *options, float *embeddings, size_t capacity,
                       quip_error *error)
{
    if (!model || (n > 0 && (!inputs || !embeddings)))
        return missing(error, !model ? "model" : !inputs ? "inputs" : "embeddings");
    if (n < 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "n is %d; must not be negative", n);
    for (int i = 0; i < n; i++)
        if (!inputs[i].tokens && !inputs[i].text && inputs[i].n_text)
            return qp_fail(error, QUIP_E_ARGUMENT, "inputs[%d].text is NULL", i);
    const quip_status status = check_has_weights(model, error);
    return status ? status : qp_embed(model, inputs, n, options, NULL, embeddings, capacity, error);
}

const char *quip_model_prompt_name(const quip_model *model, int index)
{
    return model && index >= 0 && index < model->embedding.n_prompts
               ? model->embedding.prompts[index].name
               : NULL;
}

/* ---- sessions ---- */

quip_status quip_session_open(quip_session **session, quip_model *model,
                              const quip_session_options *options, quip_error *error)
{
    if (!session)
        return missing(error, "session");
    *session = NULL;
    if (!model)
        return missing(error, "model");
    quip_status status = check_has_weights(model, error);
    if (!status && options && options->draft)
        status = check_has_weights(options->draft, error);
    return status ? status : qp_session_open(session, model, options, error);
}

void quip_session_close(quip_session *session)
{
    qp_session_close(session);
}

quip_status quip_session_clone(quip_session **copy, const quip_session *session, quip_error *error)
{
    if (!copy)
        return missing(error, "copy");
    *copy = NULL;
    if (!session)
        return missing(error, "session");
    return qp_session_clone(copy, session, error);
}

quip_status quip_session_set_options(quip_session *session, const quip_session_options *options,
                                     quip_error *error)
{
    if (!session)
        return missing(error, "session");
    return qp_session_set_options(session, options, error);
}

quip_status quip_session_set_adapter(quip_session *session, quip_adapter *adapter, float scale,
                                     quip_error *error)
{
    if (!session)
        return missing(error, "session");
    session->has_begun_step = false;
    return qp_session_set_adapter(session, adapter, scale, error);
}

int quip_session_position(const quip_session *session)
{
    return session ? session->n : 0;
}

int quip_session_n_context(const quip_session *session)
{
    return session ? session->options.n_context : 0;
}

int quip_session_n_threads(const quip_session *session)
{
    return session ? qp_session_n_threads(session) : 0;
}

quip_status quip_session_get_result(const quip_session *session, quip_result *result,
                                    quip_error *error)
{
    quip_result found = { 0 };
    const quip_status status = check_output(result, "result", MIN_RESULT, error);
    if (status)
        return status;
    if (session) {
        found = session->result;
        found.backend = session->model->options.backend;
    }
    fill_output(result, &found, sizeof found);
    return session ? QUIP_OK : missing(error, "session");
}

void quip_session_cancel(quip_session *session)
{
    if (session)
        atomic_store(&session->cancelled, true);
}

void *quip_session_cancel_flag(quip_session *session)
{
    return session ? &session->cancelled : NULL;
}

/* ---- append ---- */

static quip_status check_text(const quip_session *s, quip_role role, const char *text, size_t n,
                              quip_error *error)
{
    if (!s || (!text && n))
        return missing(error, s ? "text" : "session");
    if ((int)role < QUIP_ROLE_NONE || role > QUIP_ROLE_SYSTEM)
        return qp_fail(error, QUIP_E_ARGUMENT, "role is %d; must be 0 to 3", (int)role);
    return QUIP_OK;
}

static quip_status check_tokens(const quip_session *s, const quip_token *tokens, int n,
                                quip_error *error)
{
    if (!s || (!tokens && n > 0))
        return missing(error, s ? "tokens" : "session");
    if (n < 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "n is %d; must not be negative", n);
    return QUIP_OK;
}

quip_status quip_session_append(quip_session *session, quip_role role, const char *text, size_t n,
                                quip_error *error)
{
    const quip_status status = check_text(session, role, text, n, error);
    if (status)
        return status;
    return qp_input_text(session, role, text ? text : "", n, error);
}

quip_status quip_session_prefill(quip_session *session, const quip_token *tokens, int n,
                                 quip_error *error)
{
    const quip_status status = check_tokens(session, tokens, n, error);
    return status ? status : qp_input_tokens(session, tokens, n, error);
}

quip_status quip_session_prefill_logits(quip_session *session, const quip_token *tokens, int n,
                                        quip_on_logits *on_logits, void *user, quip_error *error)
{
    const quip_status status = check_tokens(session, tokens, n, error);
    return status ? status : qp_input_tokens_logits(session, tokens, n, on_logits, user, error);
}

const float *quip_session_logits(quip_session *session)
{
    return session ? qp_session_logits(session) : NULL;
}

/* ---- append in steps ---- */

quip_status quip_session_begin_append(quip_session *session, quip_role role, const char *text,
                                      size_t n, int *n_left, quip_error *error)
{
    int ignored;
    const quip_status status = check_text(session, role, text, n, error);
    if (status)
        return status;
    return qp_input_begin_text(session, role, text ? text : "", n, n_left ? n_left : &ignored,
                               error);
}

quip_status quip_session_begin_prefill(quip_session *session, const quip_token *tokens, int n,
                                       int *n_left, quip_error *error)
{
    int ignored;
    const quip_status status = check_tokens(session, tokens, n, error);
    if (status)
        return status;
    return qp_input_begin_tokens(session, tokens, n, n_left ? n_left : &ignored, error);
}

quip_status quip_session_run(quip_session *session, int max_tokens, int *n_left, quip_error *error)
{
    int ignored;
    if (!session)
        return missing(error, "session");
    if (max_tokens < 1)
        return qp_fail(error, QUIP_E_ARGUMENT, "max_tokens is %d; must be at least 1", max_tokens);
    return qp_input_run(session, max_tokens, n_left ? n_left : &ignored, error);
}

quip_status quip_session_undo(quip_session *session, quip_error *error)
{
    if (!session)
        return missing(error, "session");
    qp_input_undo(session);
    return QUIP_OK;
}

quip_status quip_session_rewind(quip_session *session, int position, quip_error *error)
{
    if (!session)
        return missing(error, "session");
    if (position < 0 || position > session->n)
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "position is %d; must be 0 to %d, the end of the context", position,
                       session->n);
    qp_input_rewind(session, position);
    return QUIP_OK;
}

/* ---- answers ---- */

quip_status quip_session_next(quip_session *session, quip_piece *piece, quip_error *error)
{
    quip_piece next = { 0 };
    quip_status status = check_output(piece, "piece", sizeof(quip_piece), error);
    if (status)
        return status;
    if (session) {
        session->has_begun_step = false;
        status = qp_answer_next(session, true, &next, error);
    } else {
        status = missing(error, "session");
    }
    fill_output(piece, &next, sizeof next);
    return status;
}

quip_status quip_session_generate(quip_session *session, const char *prompt, size_t n,
                                  quip_on_text *on_text, void *user, quip_result *result,
                                  quip_error *error)
{
    quip_status status = result ? check_output(result, "result", MIN_RESULT, error) : QUIP_OK;
    if (status)
        return status;
    status = quip_session_append(session, QUIP_ROLE_USER, prompt, n, error);
    if (!status)
        status = qp_answer_generate(session, on_text, user, error);
    if (result)
        quip_session_get_result(session, result, NULL);
    return status;
}

/* ---- tokens ---- */

/* Copy ids to a caller's array; *n_tokens is the full count. */
static void copy_ids(const struct tokens *list, quip_token *tokens, int capacity, int *n_tokens)
{
    assert(n_tokens && (tokens || capacity <= 0));
    const int n = qp_min(list->n, capacity);
    if (n > 0)
        memcpy(tokens, list->ids, (size_t)n * sizeof *tokens);
    *n_tokens = list->n;
}

quip_status quip_tokenize(const quip_model *model, const char *text, size_t n, bool with_special,
                          quip_token *tokens, int capacity, int *n_tokens, quip_error *error)
{
    struct tokens list = { 0 };
    if (!model || (!text && n))
        return missing(error, model ? "text" : "model");
    if (!n_tokens || (!tokens && capacity > 0))
        return missing(error, n_tokens ? "tokens" : "n_tokens");
    const quip_status status =
        qp_tokenizer_encode(model->tokenizer, text ? text : "", n, with_special, &list, error);
    if (!status)
        copy_ids(&list, tokens, capacity, n_tokens);
    qp_tokens_close(&list);
    return status;
}

quip_status quip_session_tokenize(const quip_session *session, quip_role role, const char *text,
                                  size_t n, quip_token *tokens, int capacity, int *n_tokens,
                                  quip_error *error)
{
    struct tokens list = { 0 };
    quip_status status = check_text(session, role, text, n, error);
    if (status)
        return status;
    if (!n_tokens || (!tokens && capacity > 0))
        return missing(error, n_tokens ? "tokens" : "n_tokens");
    quip_session *s = (quip_session *)session;
    const size_t n_system = s->system.n;
    status = qp_turn_tokens(s, qp_session_has_roles(s) ? role : QUIP_ROLE_NONE, text ? text : "", n,
                            &list, error);
    s->system.n = n_system; // a system text that waits for the user's is not added
    if (!status)
        copy_ids(&list, tokens, capacity, n_tokens);
    qp_tokens_close(&list);
    return status;
}

quip_status quip_detokenize(const quip_model *model, const quip_token *tokens, int n_tokens,
                            char *text, size_t capacity, size_t *n, quip_error *error)
{
    struct detokenizer state = { 0 };
    struct bytes out = { 0 };
    if (!model || (!tokens && n_tokens > 0))
        return missing(error, model ? "tokens" : "model");
    if (!n || (!text && capacity))
        return missing(error, n ? "text" : "n");
    const int vocab_size = model->config.vocab_size;
    bool ok = true;
    for (int i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= vocab_size)
            return qp_fail(error, QUIP_E_ARGUMENT, "token %d is %d; must be 0 to %d", i, tokens[i],
                           vocab_size - 1);
    for (int i = 0; ok && i < n_tokens; i++)
        ok = qp_detokenize(model->tokenizer, &state, tokens[i], &out);
    ok = ok && qp_detokenize_end(model->tokenizer, &state, &out);
    if (ok && out.n && capacity)
        memcpy(text, out.data, out.n < capacity ? out.n : capacity);
    *n = ok ? out.n : 0;
    qp_bytes_close(&out);
    return ok ? QUIP_OK : qp_fail_memory(error, "a text", (size_t)n_tokens);
}
