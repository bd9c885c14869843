/* quip_web.c: quip_web.h in terms of quip.h: numbers in, numbers out; the last error in one place.
 */
#include "quip_web.h"

#include "cpu/kernels.h"
#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

struct web_session {
    quip_session *session;
    struct mark before; // the last append
};

static quip_error last_error;
static char text_buffer[1024];
static double figures[8];

/* ---- module ---- */

const char *quip_web_version(void)
{
    return QUIP_VERSION;
}

const quip_error *quip_web_error(void)
{
    return &last_error;
}

void *quip_web_malloc(size_t n)
{
    return malloc(n);
}

void quip_web_free(void *p)
{
    free(p);
}

void *quip_web_pages_alloc(size_t n)
{
    return qp_alloc_pages(n);
}

void quip_web_pages_free(void *p, size_t n)
{
    qp_free_pages(p, n);
}

int32_t quip_web_relaxed_ok(void)
{
    return qp_relaxed_dot_is_right();
}

/* ---- models ---- */

/* The host knows what a file is called, and writes it here. */
static const char file_name[] = "{file}";

/* Whose file it is says how many pages. */
static void free_file(void *user)
{
    struct file *file = user;
    qp_free_pages((void *)file->data, (size_t)file->size);
}

quip_model *quip_web_model_open(void *file, size_t n)
{
    const quip_model_options options = { .n_threads = 64 }; // a session's n_threads is a limit
    struct file bytes;
    quip_model *model;
    qp_file_open_memory(&bytes, file, n, file_name);
    if (qp_model_open(&model, &bytes, &options, &last_error))
        return NULL;
    model->file.release = free_file;
    model->file.release_user = &model->file;
    return model;
}

void quip_web_model_close(quip_model *model)
{
    quip_model_close(model);
}

const char *quip_web_model_info(const quip_model *model)
{
    quip_model_info i = { .struct_size = sizeof i };
    quip_model_get_info(model, &i, NULL);
    snprintf(text_buffer, sizeof text_buffer,
             "{\"architecture\":\"%s\",\"weights\":\"%s\",\"nParameters\":%llu,\"fileBytes\":%llu,"
             "\"nLayers\":%d,\"dModel\":%d,\"dFf\":%d,\"nHeads\":%d,\"nKvHeads\":%d,\"headDim\":%d,"
             "\"vocabSize\":%d,\"nContextMax\":%d,\"bos\":%d,\"hasTemplate\":%s}",
             i.architecture, i.weights, (unsigned long long)i.n_parameters,
             (unsigned long long)i.file_bytes, i.n_layers, i.d_model, i.d_ff, i.n_heads,
             i.n_kv_heads, i.head_dim, i.vocab_size, i.n_context_max, i.bos,
             i.has_template ? "true" : "false");
    return text_buffer;
}

/* ---- adapters ---- */

/* The first bytes of a file, or all of them, as a source. */
struct file_head {
    const uint8_t *data;
    size_t n;
};

static bool read_head(void *user, uint64_t offset, void *buffer, size_t n)
{
    const struct file_head *head = user;
    if (offset > head->n || n > head->n - offset)
        return false;
    memcpy(buffer, head->data + offset, n);
    return true;
}

quip_adapter *quip_web_adapter_open(quip_model *model, const void *file, size_t n)
{
    struct file_head user = { file, n };
    const quip_source source = {
        .user = &user, .size = n, .read_at = read_head, .name = file_name
    };
    quip_adapter *adapter;
    return quip_adapter_open_source(&adapter, model, &source, &last_error) ? NULL : adapter;
}

void quip_web_adapter_close(quip_adapter *adapter)
{
    quip_adapter_close(adapter);
}

/* ---- sessions ---- */

static quip_session_options read_options(const struct web_session_options *o)
{
    if (!o)
        return (quip_session_options){ 0 };
    return (quip_session_options){
        .n_context = o->n_context,
        .n_threads = o->n_threads ? o->n_threads : 1,
        .max_output_tokens = o->max_output_tokens,
        .seed = (uint64_t)o->seed_high << 32 | o->seed_low,
        .has_seed = o->seed_high || o->seed_low,
        .temperature = o->temperature,
        .top_k = o->top_k,
        .top_p = o->top_p,
        .stop = o->stop,
        .n_stop = o->n_stop,
        .system = o->system,
        .no_template = o->flags & WEB_NO_TEMPLATE,
        .no_speculation = o->flags & WEB_NO_SPECULATION,
        .chat_template = o->chat_template,
    };
}

static struct web_session *new_session(void)
{
    struct web_session *s = calloc(1, sizeof *s);
    if (!s)
        qp_fail_memory(&last_error, "a session", sizeof *s);
    return s;
}

struct web_session *quip_web_session_open(quip_model *model,
                                          const struct web_session_options *options)
{
    const quip_session_options o = read_options(options);
    struct web_session *s = new_session();
    const float scale = options && options->adapter_scale != 0 ? options->adapter_scale : 1;
    quip_adapter *adapter = options ? options->adapter : NULL;
    if (!s || quip_session_open(&s->session, model, &o, &last_error) ||
        quip_session_set_adapter(s->session, adapter, scale, &last_error)) {
        quip_web_session_close(s);
        return NULL;
    }
    s->before = qp_session_mark(s->session);
    return s;
}

void quip_web_session_close(struct web_session *s)
{
    if (s)
        quip_session_close(s->session);
    free(s);
}

struct web_session *quip_web_session_clone(const struct web_session *s)
{
    struct web_session *copy = new_session();
    if (!copy || quip_session_clone(&copy->session, s->session, &last_error)) {
        free(copy);
        return NULL;
    }
    copy->before = qp_session_mark(copy->session);
    return copy;
}

int32_t quip_web_session_rewind(struct web_session *s, int32_t position)
{
    const quip_status status = quip_session_rewind(s->session, position, &last_error);
    if (!status)
        s->before = qp_session_mark(s->session);
    return status;
}

int32_t quip_web_session_position(const struct web_session *s)
{
    return quip_session_position(s->session);
}

int32_t quip_web_session_n_context(const struct web_session *s)
{
    return quip_session_n_context(s->session);
}

int32_t quip_web_session_n_threads(const struct web_session *s)
{
    return qp_session_n_threads(s->session);
}

int32_t quip_web_session_set_adapter(struct web_session *s, quip_adapter *adapter, float scale)
{
    return quip_session_set_adapter(s->session, adapter, scale, &last_error);
}

void *quip_web_session_cancel_flag(struct web_session *s)
{
    return &s->session->cancelled;
}

int32_t quip_web_append(struct web_session *s, int32_t role, const char *text, size_t n)
{
    s->before = qp_session_mark(s->session);
    return quip_session_append(s->session, (quip_role)role, text, n, &last_error);
}

int32_t quip_web_append_begin(struct web_session *s, int32_t role, const char *text, size_t n)
{
    quip_session *session = s->session;
    if (role < QUIP_ROLE_NONE || role > QUIP_ROLE_SYSTEM)
        return qp_fail(&last_error, QUIP_E_ARGUMENT, "role is %d; possible is 0 to 3", role);
    s->before = qp_session_mark(session);
    qp_answer_begin_input(session);
    const quip_status status = qp_turn_push(session, (quip_role)role, text, n, &last_error);
    return status ? status : session->n - session->sequence->pos;
}

int32_t quip_web_append_step(struct web_session *s, int32_t n_tokens)
{
    quip_session *session = s->session;
    if (session->n == session->sequence->pos)
        return 0;
    const quip_status status = qp_turn_run(session, n_tokens > 0 ? n_tokens : 1, &last_error);
    if (status)
        qp_session_return(session, &s->before);
    return status ? status : session->n - session->sequence->pos;
}

void quip_web_append_undo(struct web_session *s)
{
    qp_answer_end(s->session);
    qp_session_return(s->session, &s->before);
}

static struct web_piece {
    _Alignas(8) const char *text;
    _Alignas(8) size_t n;
    _Alignas(8) int32_t reason;
} piece;

int32_t quip_web_next(struct web_session *s)
{
    quip_piece p = { .struct_size = sizeof p };
    const quip_status status = quip_session_next(s->session, &p, &last_error);
    piece = (struct web_piece){ p.text, p.n_text, p.finish_reason };
    return status;
}

const void *quip_web_piece(void)
{
    return &piece;
}

const double *quip_web_result(const struct web_session *s)
{
    quip_result r = { .struct_size = sizeof r };
    quip_session_get_result(s->session, &r, NULL);
    figures[0] = r.finish_reason;
    figures[1] = r.n_prompt_tokens;
    figures[2] = r.n_output_tokens;
    figures[3] = (double)r.prefill_ns / 1e6;
    figures[4] = (double)r.decode_ns / 1e6;
    figures[5] = (double)r.first_token_ns / 1e6;
    figures[6] = (uint32_t)r.seed;
    figures[7] = (double)(r.seed >> 32);
    return figures;
}

/* ---- tokens and logits ---- */

int32_t quip_web_encode(const quip_model *model, const char *text, size_t n, int32_t with_special,
                        quip_token *tokens, int32_t capacity)
{
    int n_tokens = 0;
    const quip_status status =
        quip_tokenize(model, text, n, with_special != 0, tokens, capacity, &n_tokens, &last_error);
    return status ? status : n_tokens;
}

int32_t quip_web_decode(const quip_model *model, const quip_token *tokens, int32_t n_tokens,
                        char *text, size_t capacity)
{
    size_t n = 0;
    const quip_status status =
        quip_detokenize(model, tokens, n_tokens, text, capacity, &n, &last_error);
    return status ? status : (int32_t)n;
}

int32_t quip_web_prefill(struct web_session *s, const quip_token *tokens, int32_t n)
{
    return quip_session_prefill(s->session, tokens, n, &last_error);
}

const float *quip_web_logits(const struct web_session *s)
{
    return quip_session_logits(s->session);
}

/* ---- planning ---- */

const double *quip_web_plan(const void *head, size_t n, double file_bytes,
                            const struct web_session_options *options)
{
    struct file_head user = { head, n };
    const quip_source source = {
        .user = &user, .size = (uint64_t)file_bytes, .read_at = read_head, .name = file_name
    };
    const quip_session_options o = read_options(options);
    const quip_model_options header = { .no_weights = true };
    quip_model *model;
    quip_plan plan = { .struct_size = sizeof plan };
    if (quip_model_open_source(&model, &source, &header, &last_error))
        return NULL;
    const quip_status status = quip_model_plan(model, &o, &plan, &last_error);
    quip_model_close(model);
    if (status)
        return NULL;
    figures[0] = (double)plan.file_bytes;
    figures[1] = (double)plan.kv_bytes;
    figures[2] = (double)plan.scratch_bytes;
    figures[3] = (double)plan.model_bytes;
    figures[4] = plan.n_context;
    return figures;
}

quip_model *quip_web_header_open(const void *head, size_t n, double file_bytes)
{
    struct file_head user = { head, n };
    const quip_source source = {
        .user = &user, .size = (uint64_t)file_bytes, .read_at = read_head, .name = file_name
    };
    const quip_model_options header = { .no_weights = true };
    quip_model *model;
    return quip_model_open_source(&model, &source, &header, &last_error) ? NULL : model;
}
