/* values.c: Java's arrays and exceptions for C; see values.h. */
#include "values.h"

#include <stdlib.h>
#include <string.h>

void *alloc(JNIEnv *env, size_t n_bytes)
{
    void *p = calloc(1, n_bytes + 1);
    jclass kind = p ? NULL : (*env)->FindClass(env, "java/lang/OutOfMemoryError");
    if (kind)
        (*env)->ThrowNew(env, kind, "no memory in the native library");
    return p;
}

bool open_text(JNIEnv *env, jbyteArray array, struct text *text)
{
    *text = (struct text){ 0 };
    if (!array)
        return true;
    text->n = (size_t)(*env)->GetArrayLength(env, array);
    text->data = alloc(env, text->n);
    if (text->data)
        (*env)->GetByteArrayRegion(env, array, 0, (jsize)text->n, (jbyte *)text->data);
    return text->data != NULL;
}

void close_text(struct text *text)
{
    free(text->data);
    *text = (struct text){ 0 };
}

bool open_texts(JNIEnv *env, jobjectArray array, struct texts *texts)
{
    *texts = (struct texts){ 0 };
    const int n = array ? (*env)->GetArrayLength(env, array) : 0;
    texts->items = alloc(env, (size_t)n * sizeof *texts->items);
    texts->data = texts->items ? alloc(env, (size_t)n * sizeof *texts->data) : NULL;
    bool ok = texts->data != NULL;
    for (int i = 0; ok && i < n; i++) {
        jbyteArray item = (*env)->GetObjectArrayElement(env, array, i);
        ok = open_text(env, item, &texts->items[i]);
        texts->data[i] = texts->items[i].data;
        texts->n = i + 1;
        (*env)->DeleteLocalRef(env, item);
    }
    if (!ok)
        close_texts(texts);
    return ok;
}

void close_texts(struct texts *texts)
{
    for (int i = 0; i < texts->n; i++)
        close_text(&texts->items[i]);
    free(texts->items);
    free(texts->data);
    *texts = (struct texts){ 0 };
}

jbyteArray new_bytes(JNIEnv *env, const void *data, size_t n)
{
    jbyteArray array = (*env)->NewByteArray(env, (jsize)n);
    if (array)
        (*env)->SetByteArrayRegion(env, array, 0, (jsize)n, data);
    return array;
}

jbyteArray new_text(JNIEnv *env, const char *text)
{
    return text ? new_bytes(env, text, strlen(text)) : NULL;
}

void read_image(JNIEnv *env, jbyteArray image, void *options, size_t n_bytes)
{
    memset(options, 0, n_bytes);
    if (image && (size_t)(*env)->GetArrayLength(env, image) == n_bytes)
        (*env)->GetByteArrayRegion(env, image, 0, (jsize)n_bytes, options);
}

/* The message is passed as bytes: it may quote a file name that is not valid UTF-8. */
void raise_error(JNIEnv *env, jclass native, const quip_error *error)
{
    jmethodID method = (*env)->GetStaticMethodID(env, native, "raise", "(I[B)V");
    jbyteArray message = method ? new_text(env, error->message) : NULL;
    if (message)
        (*env)->CallStaticVoidMethod(env, native, method, (jint)error->status, message);
}
