/* memory_stream.h: an exported sequence in memory. */
#ifndef TEST_MEMORY_STREAM_H
#define TEST_MEMORY_STREAM_H

#include "base/base.h"

struct memory_stream {
    struct bytes bytes;
    size_t at; // of the next byte to read
};

/* The calls of a struct stream (engine/backend.h) whose `user` is a struct memory_stream. */
bool memory_stream_write(void *stream, void *bytes, size_t n);
bool memory_stream_read(void *stream, void *bytes, size_t n);

#endif
