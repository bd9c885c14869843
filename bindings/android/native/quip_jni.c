/* quip_jni.c: the native methods of com.quip.Native.
 * In:  handles as long, texts as byte[] of UTF-8, option structs as byte[] images of quip.h's.
 * Out: new arrays and handles; a failure becomes a Java exception.
 *
 * Java objects own the handles: they pass no handle after its close, and one thread at a time uses
 * a session. This file keeps no reference, calls no listener and starts no thread, so nothing of
 * Java can fail inside the library. */
#include "values.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- models ---- */

static jbyteArray version(JNIEnv *env, jclass native)
{
    (void)native;
    return new_text(env, quip_version());
}

static jlong open_path(JNIEnv *env, jclass native, jbyteArray path, jbyteArray image)
{
    quip_model *model = NULL;
    quip_error error = { 0 };
    quip_model_options options;
    struct text name;
    if (!open_text(env, path, &name))
        return 0;
    read_image(env, image, &options, sizeof options);
    if (quip_model_open(&model, name.data, &options, &error))
        raise_error(env, native, &error);
    close_text(&name);
    return handle(model);
}

static jlong open_fd(JNIEnv *env, jclass native, jint fd, jlong offset, jlong size, jbyteArray name,
                     jbyteArray image)
{
    quip_model *model = NULL;
    quip_error error = { 0 };
    quip_model_options options;
    struct text text;
    if (!open_text(env, name, &text))
        return 0;
    read_image(env, image, &options, sizeof options);
    options.name = text.data;
    if (quip_model_open_fd(&model, fd, (uint64_t)offset, (uint64_t)size, &options, &error))
        raise_error(env, native, &error);
    close_text(&text);
    return handle(model);
}

static bool read_head(void *user, uint64_t offset, void *buffer, size_t n)
{
    const struct text *head = user;
    if (offset > head->n || n > head->n - offset)
        return false;
    memcpy(buffer, head->data + offset, n);
    return true;
}

/* A model without weights from the first bytes of a file with `size` bytes. Fails with QUIP_E_IO if
 * they are too few. */
static jlong open_head(JNIEnv *env, jclass native, jbyteArray bytes, jlong size, jbyteArray name)
{
    quip_model *model = NULL;
    quip_error error = { 0 };
    const quip_model_options options = { .no_weights = true };
    struct text head = { 0 }, text = { 0 };
    if (open_text(env, bytes, &head) && open_text(env, name, &text)) {
        const quip_source source = {
            .user = &head, .size = (uint64_t)size, .read_at = read_head, .name = text.data
        };
        if (quip_model_open_source(&model, &source, &options, &error))
            raise_error(env, native, &error);
    }
    close_text(&head);
    close_text(&text);
    return handle(model);
}

static void close_model(JNIEnv *env, jclass native, jlong model)
{
    (void)env, (void)native;
    quip_model_close(pointer(model));
}

static jbyteArray model_info(JNIEnv *env, jclass native, jlong model)
{
    quip_error error = { 0 };
    quip_model_info info = { .struct_size = sizeof info };
    if (quip_model_get_info(pointer(model), &info, &error)) {
        raise_error(env, native, &error);
        return NULL;
    }
    info.architecture = info.weights = NULL; // model_text has them
    return new_bytes(env, &info, sizeof info);
}

/* 0: the architecture, 1: the type of the weights, 2 and more: task prompts; null past the last. */
static jbyteArray model_text(JNIEnv *env, jclass native, jlong model, jint which)
{
    (void)native;
    quip_model_info info = { .struct_size = sizeof info };
    if (which > 1)
        return new_text(env, quip_model_prompt_name(pointer(model), which - 2));
    if (quip_model_get_info(pointer(model), &info, NULL))
        return NULL;
    return new_text(env, which ? info.weights : info.architecture);
}

static jintArray tokenize(JNIEnv *env, jclass native, jlong model, jbyteArray bytes,
                          jboolean with_special)
{
    quip_error error = { 0 };
    struct text text;
    int n = 0;
    jintArray array = NULL;
    if (!open_text(env, bytes, &text))
        return NULL;
    quip_token *tokens = NULL;
    quip_status status =
        quip_tokenize(pointer(model), text.data, text.n, with_special, NULL, 0, &n, &error);
    if (!status && (tokens = alloc(env, (size_t)n * sizeof *tokens)))
        status =
            quip_tokenize(pointer(model), text.data, text.n, with_special, tokens, n, &n, &error);
    if (status)
        raise_error(env, native, &error);
    else if (tokens && (array = (*env)->NewIntArray(env, n)))
        (*env)->SetIntArrayRegion(env, array, 0, n, tokens);
    free(tokens);
    close_text(&text);
    return array;
}

static jbyteArray detokenize(JNIEnv *env, jclass native, jlong model, jintArray ids)
{
    quip_error error = { 0 };
    const jint n_ids = ids ? (*env)->GetArrayLength(env, ids) : 0;
    size_t n = 0;
    jbyteArray array = NULL;
    quip_token *tokens = alloc(env, (size_t)n_ids * sizeof *tokens);
    if (!tokens)
        return NULL;
    if (n_ids)
        (*env)->GetIntArrayRegion(env, ids, 0, n_ids, tokens);
    char *text = NULL;
    quip_status status = quip_detokenize(pointer(model), tokens, n_ids, NULL, 0, &n, &error);
    if (!status && (text = alloc(env, n)))
        status = quip_detokenize(pointer(model), tokens, n_ids, text, n, &n, &error);
    if (status)
        raise_error(env, native, &error);
    else if (text)
        array = new_bytes(env, text, n);
    free(text);
    free(tokens);
    return array;
}

/* ---- options of sessions ---- */

/* texts: system, chat_template, template_variables; each may be null. */
struct session_texts {
    struct texts named, stop;
    struct text biases; // quip_logit_bias[]
};

static void close_options(struct session_texts *t)
{
    close_texts(&t->named);
    close_texts(&t->stop);
    close_text(&t->biases);
}

static bool open_options(JNIEnv *env, jbyteArray image, jobjectArray named, jobjectArray stop,
                         jbyteArray biases, struct session_texts *t, quip_session_options *options)
{
    *t = (struct session_texts){ 0 };
    read_image(env, image, options, sizeof *options);
    if (!open_texts(env, named, &t->named) || !open_texts(env, stop, &t->stop) ||
        !open_text(env, biases, &t->biases)) {
        close_options(t);
        return false;
    }
    if (t->named.n == 3) {
        options->system = t->named.data[0];
        options->chat_template = t->named.data[1];
        options->template_variables = t->named.data[2];
    }
    options->n_stop = t->stop.n;
    options->stop = t->stop.data;
    options->n_logit_bias = (int)(t->biases.n / sizeof(quip_logit_bias));
    options->logit_bias = (const quip_logit_bias *)(const void *)t->biases.data;
    return true;
}

static jbyteArray model_plan(JNIEnv *env, jclass native, jlong model, jbyteArray image,
                             jobjectArray named, jobjectArray stop, jbyteArray biases)
{
    quip_error error = { 0 };
    quip_session_options options;
    quip_plan plan = { .struct_size = sizeof plan };
    struct session_texts texts;
    if (!open_options(env, image, named, stop, biases, &texts, &options))
        return NULL;
    const quip_status status = quip_model_plan(pointer(model), &options, &plan, &error);
    close_options(&texts);
    if (status)
        raise_error(env, native, &error);
    return status ? NULL : new_bytes(env, &plan, sizeof plan);
}

/* ---- adapters ---- */

static jlong open_adapter(JNIEnv *env, jclass native, jlong model, jbyteArray path)
{
    quip_adapter *adapter = NULL;
    quip_error error = { 0 };
    struct text name;
    if (!open_text(env, path, &name))
        return 0;
    if (quip_adapter_open(&adapter, pointer(model), name.data, &error))
        raise_error(env, native, &error);
    close_text(&name);
    return handle(adapter);
}

struct part {
    int fd;
    jlong offset;
};

static bool read_part(void *user, uint64_t offset, void *buffer, size_t n)
{
    const struct part *part = user;
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(part->fd, (char *)buffer + done, n - done,
                                  (off_t)(offset + done) + (off_t)part->offset);
        if (got <= 0)
            return false;
        done += (size_t)got;
    }
    return true;
}

static jlong open_adapter_fd(JNIEnv *env, jclass native, jlong model, jint fd, jlong offset,
                             jlong size, jbyteArray name)
{
    quip_adapter *adapter = NULL;
    quip_error error = { 0 };
    struct part part = { fd, offset };
    struct text text;
    if (!open_text(env, name, &text))
        return 0;
    const quip_source source = {
        .user = &part, .size = (uint64_t)size, .read_at = read_part, .name = text.data
    };
    if (quip_adapter_open_source(&adapter, pointer(model), &source, &error))
        raise_error(env, native, &error);
    close_text(&text);
    return handle(adapter);
}

static void close_adapter(JNIEnv *env, jclass native, jlong adapter)
{
    (void)env, (void)native;
    quip_adapter_close(pointer(adapter));
}

/* ---- sessions ---- */

static jlong open_session(JNIEnv *env, jclass native, jlong model, jbyteArray image,
                          jobjectArray named, jobjectArray stop, jbyteArray biases)
{
    quip_session *session = NULL;
    quip_error error = { 0 };
    quip_session_options options;
    struct session_texts texts;
    if (!open_options(env, image, named, stop, biases, &texts, &options))
        return 0;
    if (quip_session_open(&session, pointer(model), &options, &error))
        raise_error(env, native, &error);
    close_options(&texts);
    return handle(session);
}

static void set_options(JNIEnv *env, jclass native, jlong session, jbyteArray image,
                        jobjectArray named, jobjectArray stop, jbyteArray biases)
{
    quip_error error = { 0 };
    quip_session_options options;
    struct session_texts texts;
    if (!open_options(env, image, named, stop, biases, &texts, &options))
        return;
    if (quip_session_set_options(pointer(session), &options, &error))
        raise_error(env, native, &error);
    close_options(&texts);
}

static void close_session(JNIEnv *env, jclass native, jlong session)
{
    (void)env, (void)native;
    quip_session_close(pointer(session));
}

static jlong clone_session(JNIEnv *env, jclass native, jlong session)
{
    quip_session *copy = NULL;
    quip_error error = { 0 };
    if (quip_session_clone(&copy, pointer(session), &error))
        raise_error(env, native, &error);
    return handle(copy);
}

static void append(JNIEnv *env, jclass native, jlong session, jint role, jbyteArray bytes)
{
    quip_error error = { 0 };
    struct text text;
    if (!open_text(env, bytes, &text))
        return;
    if (quip_session_append(pointer(session), (quip_role)role, text.data, text.n, &error))
        raise_error(env, native, &error);
    close_text(&text);
}

/* The next text of the answer; null when it has ended. */
static jbyteArray next(JNIEnv *env, jclass native, jlong session)
{
    quip_error error = { 0 };
    quip_piece piece = { .struct_size = sizeof piece };
    if (quip_session_next(pointer(session), &piece, &error)) {
        raise_error(env, native, &error);
        return NULL;
    }
    return piece.n_text ? new_bytes(env, piece.text, piece.n_text) : NULL;
}

static void cancel(JNIEnv *env, jclass native, jlong session)
{
    (void)env, (void)native;
    quip_session_cancel(pointer(session));
}

static jbyteArray session_result(JNIEnv *env, jclass native, jlong session)
{
    quip_error error = { 0 };
    quip_result result = { .struct_size = sizeof result };
    if (quip_session_get_result(pointer(session), &result, &error)) {
        raise_error(env, native, &error);
        return NULL;
    }
    return new_bytes(env, &result, sizeof result);
}

static jint session_position(JNIEnv *env, jclass native, jlong session)
{
    (void)env, (void)native;
    return quip_session_position(pointer(session));
}

static jint session_n_context(JNIEnv *env, jclass native, jlong session)
{
    (void)env, (void)native;
    return quip_session_n_context(pointer(session));
}

static jint session_n_threads(JNIEnv *env, jclass native, jlong session)
{
    (void)env, (void)native;
    return quip_session_n_threads(pointer(session));
}

static void session_rewind(JNIEnv *env, jclass native, jlong session, jint position)
{
    quip_error error = { 0 };
    if (quip_session_rewind(pointer(session), position, &error))
        raise_error(env, native, &error);
}

static void session_undo(JNIEnv *env, jclass native, jlong session)
{
    quip_error error = { 0 };
    if (quip_session_undo(pointer(session), &error))
        raise_error(env, native, &error);
}

static void set_adapter(JNIEnv *env, jclass native, jlong session, jlong adapter, jfloat scale)
{
    quip_error error = { 0 };
    if (quip_session_set_adapter(pointer(session), pointer(adapter), scale, &error))
        raise_error(env, native, &error);
}

/* How many tokens an append of this text would add. */
static jint count_tokens(JNIEnv *env, jclass native, jlong session, jint role, jbyteArray bytes)
{
    quip_error error = { 0 };
    struct text text;
    int n = 0;
    if (!open_text(env, bytes, &text))
        return 0;
    if (quip_session_tokenize(pointer(session), (quip_role)role, text.data, text.n, NULL, 0, &n,
                              &error))
        raise_error(env, native, &error);
    close_text(&text);
    return n;
}

/* ---- embeddings ---- */

/* named: the options' prompt and prefix; each may be null. */
static jfloatArray embed(JNIEnv *env, jclass native, jlong model, jobjectArray inputs,
                         jbyteArray image, jobjectArray named, jint width)
{
    quip_error error = { 0 };
    quip_embed_options options;
    struct texts texts = { 0 }, names = { 0 };
    jfloatArray array = NULL;
    read_image(env, image, &options, sizeof options);
    if (!open_texts(env, inputs, &texts) || !open_texts(env, named, &names)) {
        close_texts(&texts);
        return NULL;
    }
    if (names.n == 2) {
        options.prompt = names.data[0];
        options.prefix = names.data[1];
    }
    const size_t n_floats = (size_t)texts.n * (size_t)width;
    quip_embed_input *list = alloc(env, (size_t)texts.n * sizeof *list);
    float *floats = list ? alloc(env, n_floats * sizeof *floats) : NULL;
    if (floats) {
        for (int i = 0; i < texts.n; i++)
            list[i] = (quip_embed_input){ .text = texts.items[i].data, .n_text = texts.items[i].n };
        if (quip_embed(pointer(model), list, texts.n, &options, floats, n_floats, &error))
            raise_error(env, native, &error);
        else if ((array = (*env)->NewFloatArray(env, (jsize)n_floats)))
            (*env)->SetFloatArrayRegion(env, array, 0, (jsize)n_floats, floats);
    }
    free(floats);
    free(list);
    close_texts(&texts);
    close_texts(&names);
    return array;
}

/* ---- registration ---- */

// clang-format off
#define METHOD(name, signature, function) { (char *)(name), (char *)(signature), (void *)(function) }
static const JNINativeMethod methods[] = {
    METHOD("version", "()[B", version),
    METHOD("openPath", "([B[B)J", open_path),
    METHOD("openFd", "(IJJ[B[B)J", open_fd),
    METHOD("openHead", "([BJ[B)J", open_head),
    METHOD("closeModel", "(J)V", close_model),
    METHOD("modelInfo", "(J)[B", model_info),
    METHOD("modelText", "(JI)[B", model_text),
    METHOD("modelPlan", "(J[B[[B[[B[B)[B", model_plan),
    METHOD("tokenize", "(J[BZ)[I", tokenize),
    METHOD("detokenize", "(J[I)[B", detokenize),
    METHOD("openAdapter", "(J[B)J", open_adapter),
    METHOD("openAdapterFd", "(JIJJ[B)J", open_adapter_fd),
    METHOD("closeAdapter", "(J)V", close_adapter),
    METHOD("openSession", "(J[B[[B[[B[B)J", open_session),
    METHOD("setOptions", "(J[B[[B[[B[B)V", set_options),
    METHOD("closeSession", "(J)V", close_session),
    METHOD("cloneSession", "(J)J", clone_session),
    METHOD("append", "(JI[B)V", append),
    METHOD("next", "(J)[B", next),
    METHOD("cancel", "(J)V", cancel),
    METHOD("result", "(J)[B", session_result),
    METHOD("position", "(J)I", session_position),
    METHOD("nContext", "(J)I", session_n_context),
    METHOD("nThreads", "(J)I", session_n_threads),
    METHOD("rewind", "(JI)V", session_rewind),
    METHOD("undo", "(J)V", session_undo),
    METHOD("setAdapter", "(JJF)V", set_adapter),
    METHOD("countTokens", "(JI[B)I", count_tokens),
    METHOD("embed", "(J[[B[B[[BI)[F", embed),
};
// clang-format on

JNIEXPORT jint JNICALL JNI_OnLoad(JavaVM *vm, void *reserved)
{
    (void)reserved;
    void *found = NULL;
    if ((*vm)->GetEnv(vm, &found, JNI_VERSION_1_6) != JNI_OK)
        return JNI_ERR;
    JNIEnv *env = found;
    jclass native = (*env)->FindClass(env, "com/quip/Native");
    if (!native)
        return JNI_ERR;
    const jint n = (jint)(sizeof methods / sizeof methods[0]);
    return (*env)->RegisterNatives(env, native, methods, n) ? JNI_ERR : JNI_VERSION_1_6;
}
