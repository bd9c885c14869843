/* memory_stream.c */
#include "support/memory_stream.h"

#include <string.h>

bool memory_stream_write(void *stream, void *bytes, size_t n)
{
    return qp_bytes_append(&((struct memory_stream *)stream)->bytes, bytes, n);
}

bool memory_stream_read(void *stream, void *bytes, size_t n)
{
    struct memory_stream *m = stream;
    if (n > m->bytes.n - m->at)
        return false;
    if (n > 0)
        memcpy(bytes, m->bytes.data + m->at, n);
    m->at += n;
    return true;
}
