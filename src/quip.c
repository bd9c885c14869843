/* quip.c: the public functions: the story, file to text. They check arguments and call. */
#include "engine/engine.h"

#include <string.h>

const char *quip_version(void)
{
    return QUIP_VERSION;
}

static quip_status missing(quip_error *error, const char *what)
{
    return qp_fail(error, QUIP_E_ARGUMENT, "%s is NULL", what);
}

/* ---- models ---- */

quip_status quip_model_open(quip_model **model, const char *path, const quip_model_options *options,
                            quip_error *error)
{
    struct file file;
    quip_status status;
    if (!model || !path)
        return missing(error, model ? "path" : "model");
    *model = NULL;
    if (qp_path_is_folder(path))
        return qp_fail(error, QUIP_E_IO,
                       "%s: is a folder, not a model file; if a checkpoint is in it, convert that "
                       "first: quip convert %s model.bin",
                       path, path);
    if ((status = qp_file_open(&file, path, error)))
        return status;
    return qp_model_open(model, &file, options, error);
}

quip_status quip_model_open_source(quip_model **model, const quip_source *source,
                                   const quip_model_options *options, quip_error *error)
{
    struct file file;
    quip_status status;
    if (!model || !source || !source->read_at)
        return missing(error, !model ? "model" : !source ? "source" : "source->read_at");
    *model = NULL;
    if ((status = qp_file_open_source(&file, source, error)))
        return status;
    return qp_model_open(model, &file, options, error);
}

quip_status quip_model_open_memory(quip_model **model, const void *bytes, size_t n,
                                   void (*release)(void *user), void *user,
                                   const quip_model_options *options, quip_error *error)
{
    struct file file;
    quip_status status;
    if (!model || !bytes)
        return missing(error, model ? "bytes" : "model");
    *model = NULL;
    if ((uintptr_t)bytes % sizeof(float))
        return qp_fail(error, QUIP_E_ARGUMENT,
                       "the bytes of the model begin at an address that is no multiple of 4; "
                       "align them, best to 64");
    qp_file_open_memory(&file, bytes, n, "model");
    if ((status = qp_model_open(model, &file, options, error)))
        return status;
    (*model)->file.release = release;
    (*model)->file.release_user = user;
    return QUIP_OK;
}

void quip_model_close(quip_model *model)
{
    qp_model_release(model);
}

void quip_model_get_info(const quip_model *model, quip_model_info *info)
{
    const struct config *c = &model->config;
    *info = (quip_model_info){
        .architecture = c->family->name,
        .weights = model->weights_name,
        .n_parameters = model->n_parameters,
        .file_bytes = model->file.size,
        .n_layers = c->n_layers,
        .d_model = c->d_model,
        .d_ff = c->d_ff,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .vocab_size = c->vocab_size,
        .n_context_max = c->n_context_max,
        .bos = c->bos,
        .has_template = model->chat != NULL,
    };
}

/* `file` is open and is taken over. */
static quip_status plan_memory(quip_plan *plan, struct file *file,
                               const quip_session_options *options, quip_error *error)
{
    quip_model *model;
    quip_status status = qp_model_open_header(&model, file, error);
    if (status)
        return status;
    status = qp_session_measure(model, options, plan, error);
    quip_model_close(model);
    return status;
}

quip_status quip_plan_memory(quip_plan *plan, const char *path,
                             const quip_model_options *model_options,
                             const quip_session_options *session_options, quip_error *error)
{
    struct file file;
    (void)model_options; // none of them changes a number
    if (!plan || !path)
        return missing(error, plan ? "path" : "plan");
    const quip_status status = qp_file_open(&file, path, error);
    return status ? status : plan_memory(plan, &file, session_options, error);
}

quip_status quip_plan_memory_source(quip_plan *plan, const quip_source *source,
                                    const quip_model_options *model_options,
                                    const quip_session_options *session_options, quip_error *error)
{
    struct file file;
    (void)model_options;
    if (!plan || !source)
        return missing(error, plan ? "source" : "plan");
    const quip_status status = qp_file_open_source(&file, source, error);
    return status ? status : plan_memory(plan, &file, session_options, error);
}

/* ---- adapters ---- */

quip_status quip_adapter_open(quip_adapter **adapter, quip_model *model, const char *path,
                              quip_error *error)
{
    if (!adapter || !model || !path)
        return missing(error, "adapter, model or path");
    return qp_adapter_load(adapter, model, path, error);
}

quip_status quip_adapter_open_source(quip_adapter **adapter, quip_model *model,
                                     const quip_source *source, quip_error *error)
{
    struct file file;
    if (!adapter || !model || !source)
        return missing(error, "adapter, model or source");
    *adapter = NULL;
    const quip_status status = qp_file_open_source(&file, source, error);
    return status ? status : qp_adapter_load_file(adapter, model, &file, error);
}

void quip_adapter_close(quip_adapter *adapter)
{
    qp_adapter_release(adapter);
}

/* ---- sessions ---- */

quip_status quip_session_open(quip_session **session, quip_model *model,
                              const quip_session_options *options, quip_error *error)
{
    if (!session || !model)
        return missing(error, session ? "model" : "session");
    return qp_session_open(session, model, options, error);
}

void quip_session_close(quip_session *session)
{
    qp_session_close(session);
}

quip_status quip_session_clone(quip_session **copy, const quip_session *session, quip_error *error)
{
    if (!copy || !session)
        return missing(error, copy ? "session" : "copy");
    return qp_session_clone(copy, session, error);
}

quip_status quip_session_rewind(quip_session *session, int position, quip_error *error)
{
    if (!session)
        return missing(error, "session");
    if (position < 0 || position > session->n)
        return qp_fail(error, QUIP_E_ARGUMENT, "cannot rewind to position %d: the context has %d",
                       position, session->n);
    qp_answer_end(session);
    qp_session_rewind(session, position);
    return QUIP_OK;
}

int quip_session_position(const quip_session *session)
{
    return session->n;
}

int quip_session_n_context(const quip_session *session)
{
    return session->options.n_context;
}

void quip_session_get_result(const quip_session *session, quip_result *result)
{
    *result = session->result;
}

void quip_session_cancel(quip_session *session)
{
    if (session)
        atomic_store(&session->cancelled, true);
}

quip_status quip_session_set_adapter(quip_session *session, quip_adapter *adapter, float scale,
                                     quip_error *error)
{
    if (!session)
        return missing(error, "session");
    return qp_session_set_adapter(session, adapter, scale, error);
}

/* ---- text ---- */

quip_status quip_append(quip_session *session, quip_role role, const char *text, size_t n,
                        quip_error *error)
{
    if (!session || (!text && n))
        return missing(error, session ? "text" : "session");
    if ((int)role < QUIP_ROLE_NONE || role > QUIP_ROLE_SYSTEM)
        return qp_fail(error, QUIP_E_ARGUMENT, "role is %d; possible is 0 to 3", (int)role);
    qp_turn_begin_input(session);
    return qp_turn_append(session, role, text ? text : "", n, error);
}

quip_status quip_next(quip_session *session, const char **text, size_t *n,
                      quip_finish_reason *reason, quip_error *error)
{
    if (!session || !text || !n || !reason)
        return missing(error, "session, text, n or reason");
    return qp_answer_next(session, text, n, reason, error);
}

quip_status quip_generate(quip_session *session, const char *prompt, size_t n,
                          quip_on_text *on_text, void *user, quip_result *result, quip_error *error)
{
    quip_finish_reason reason = QUIP_FINISH_NONE;
    const char *text;
    size_t n_text;
    if (!session)
        return missing(error, "session");
    const struct place before = qp_session_place(session);
    quip_status status = quip_append(session, QUIP_ROLE_USER, prompt, n, error);
    while (!status && !reason) {
        status = quip_next(session, &text, &n_text, &reason, error);
        if (status && !session->answer.is_open) // no room for the template's text before the answer
            qp_session_return(session, &before);
        if (!status && n_text && on_text && !on_text(user, text, n_text)) {
            qp_answer_end(session);
            reason = session->result.finish_reason = QUIP_FINISH_CALLBACK;
            session->start_ns = 0;
        }
    }
    if (result)
        *result = session->result;
    return status;
}

/* ---- tokens and logits ---- */

quip_status quip_encode(const quip_model *model, const char *text, size_t n, bool with_special,
                        quip_token *tokens, int capacity, int *n_tokens, quip_error *error)
{
    struct tokens list = { 0 };
    if (!model || (!text && n) || !n_tokens || (!tokens && capacity > 0))
        return missing(error, "model, text, tokens or n_tokens");
    quip_status status =
        qp_tokenizer_encode(model->tokenizer, text ? text : "", n, with_special, &list, error);
    if (!status) {
        const int n_copied = list.n < capacity ? list.n : capacity;
        if (n_copied > 0)
            memcpy(tokens, list.ids, (size_t)n_copied * sizeof *tokens);
        *n_tokens = list.n;
    }
    qp_tokens_close(&list);
    return status;
}

quip_status quip_decode(const quip_model *model, const quip_token *tokens, int n_tokens, char *text,
                        size_t capacity, size_t *n, quip_error *error)
{
    struct detokenizer state = { 0 };
    struct bytes out = { 0 };
    if (!model || (!tokens && n_tokens > 0) || (!text && capacity) || !n)
        return missing(error, "model, tokens, text or n");
    const int n_vocab = model->config.vocab_size;
    bool ok = true;
    for (int i = 0; i < n_tokens; i++)
        if (tokens[i] < 0 || tokens[i] >= n_vocab)
            return qp_fail(error, QUIP_E_ARGUMENT, "token %d is %d; ids of this model are 0 to %d",
                           i, tokens[i], n_vocab - 1);
    for (int i = 0; ok && i < n_tokens; i++)
        ok = qp_detokenize(model->tokenizer, &state, tokens[i], &out);
    ok = ok && qp_detokenize_end(model->tokenizer, &state, &out);
    if (ok && out.n && capacity)
        memcpy(text, out.data, out.n < capacity ? out.n : capacity);
    *n = ok ? out.n : 0;
    qp_bytes_close(&out);
    return ok ? QUIP_OK : qp_fail_memory(error, "decoded text", (size_t)n_tokens);
}

static quip_status prefill(quip_session *s, const quip_token *tokens, int n, bool all,
                           quip_on_logits *on_logits, void *user, quip_error *error)
{
    if (!s || (!tokens && n > 0) || n < 0)
        return missing(error, s ? "tokens" : "session");
    qp_turn_begin_input(s);
    const struct place before = qp_session_place(s);
    const uint64_t start_ns = qp_now_ns();
    quip_status status = all ? qp_session_feed(s, error) : QUIP_OK; // only the new ones are shown
    if (!status)
        status = qp_session_push(s, tokens, n, QUIP_ROLE_NONE, error);
    if (!status && n > 0)
        status = all ? qp_session_feed_all(s, on_logits, user, error) : qp_session_feed(s, error);
    if (status) {
        qp_session_return(s, &before);
        return status;
    }
    s->has_begun = true;
    s->role = QUIP_ROLE_NONE;
    s->result.n_prompt_tokens += n;
    s->result.prefill_ns += qp_now_ns() - start_ns;
    return QUIP_OK;
}

quip_status quip_prefill(quip_session *session, const quip_token *tokens, int n, quip_error *error)
{
    return prefill(session, tokens, n, false, NULL, NULL, error);
}

quip_status quip_prefill_logits(quip_session *session, const quip_token *tokens, int n,
                                quip_on_logits *on_logits, void *user, quip_error *error)
{
    return prefill(session, tokens, n, true, on_logits, user, error);
}

const float *quip_logits(const quip_session *session)
{
    return qp_session_logits(session);
}
