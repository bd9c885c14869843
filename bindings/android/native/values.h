/* values.h: Java's arrays and exceptions for C.
 * An `open` copies an array to the heap, and its `close` frees the copy. A function that fails has
 * thrown a Java exception. */
#ifndef QUIP_JNI_VALUES_H
#define QUIP_JNI_VALUES_H

#include "quip.h"

#include <jni.h>

/* A byte[]; a null array becomes NULL. */
struct text {
    char *data; // n bytes and a NUL
    size_t n;
};
bool open_text(JNIEnv *env, jbyteArray array, struct text *text);
void close_text(struct text *text);

/* A byte[][]; a null array becomes an empty list. */
struct texts {
    struct text *items;
    const char **data; // of the items
    int n;
};
bool open_texts(JNIEnv *env, jobjectArray array, struct texts *texts);
void close_texts(struct texts *texts);

/* n_bytes zeroed bytes, to be freed with free(); NULL with an OutOfMemoryError. */
void *alloc(JNIEnv *env, size_t n_bytes);

/* A new byte[]; NULL with an OutOfMemoryError, and for a NULL text. */
jbyteArray new_bytes(JNIEnv *env, const void *data, size_t n);
jbyteArray new_text(JNIEnv *env, const char *text);

/* An option struct from its image; zero if the image is null. Its pointers are set afterwards. */
void read_image(JNIEnv *env, jbyteArray image, void *options, size_t n_bytes);

/* Throw the exception of a failed call of the library. */
void raise_error(JNIEnv *env, jclass native, const quip_error *error);

/* A handle of Java is the address of the object. */
static inline void *pointer(jlong handle)
{
    return (void *)(intptr_t)handle;
}

static inline jlong handle(const void *pointer)
{
    return (jlong)(intptr_t)pointer;
}

#endif
