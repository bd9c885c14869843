/* error.c: what went wrong, in one sentence.
 * In:  a status and a printf format.
 * Out: a filled quip_error, whose message always ends with NUL; the status is returned, so that a
 *      failing function fails in one line. */
#include "base.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

static const struct {
    quip_status status;
    const char *name;
} status_names[] = {
    { QUIP_OK, "ok" },
    { QUIP_E_ARGUMENT, "argument" },
    { QUIP_E_MEMORY, "memory" },
    { QUIP_E_IO, "io" },
    { QUIP_E_FORMAT, "format" },
    { QUIP_E_UNSUPPORTED, "unsupported" },
    { QUIP_E_CONTEXT_FULL, "context_full" },
    { QUIP_E_CANCELLED, "cancelled" },
    { QUIP_E_DEVICE, "device" },
};

const char *quip_status_name(quip_status status)
{
    for (size_t i = 0; i < QP_COUNT(status_names); i++)
        if (status_names[i].status == status)
            return status_names[i].name;
    return "unknown";
}

/* A message is cut before a character that does not fit completely, so it stays UTF-8. It may quote
 * a hostile file: control characters and bytes that are not UTF-8 become '?'. */
static void make_printable(char *message)
{
    size_t n = qp_utf8_complete(message, strlen(message));
    message[n] = 0;
    for (size_t i = 0; i < n;) {
        int32_t c;
        int length = qp_utf8_decode(message + i, n - i, &c);
        if (c < ' ' || c == 127)
            message[i] = '?';
        i += (size_t)length;
    }
}

quip_status qp_fail(quip_error *error, quip_status status, const char *format, ...)
{
    assert(status != QUIP_OK);
    if (!error)
        return status;
    error->status = status;
    va_list args;
    va_start(args, format);
    if (vsnprintf(error->message, sizeof error->message, format, args) < 0)
        error->message[0] = 0;
    va_end(args);
    make_printable(error->message);
    return status;
}

quip_status qp_fail_open(quip_error *error, const char *path)
{
    if (!path[0])
        return qp_fail(error, QUIP_E_IO, "the name of a file is empty");
    return strstr(path, "://")
               ? qp_fail(error, QUIP_E_IO, "%s: is an address, not a file; download it first", path)
               : qp_fail(error, QUIP_E_IO, "%s: %s", path, strerror(errno));
}

quip_status qp_fail_in(quip_error *error, quip_status status, const char *where)
{
    if (!error || !status)
        return status;
    const quip_error inner = *error;
    return qp_fail(error, status, "%s: %s", where, inner.message);
}

quip_status qp_fail_memory(quip_error *error, const char *what, size_t n_bytes)
{
    return qp_fail(error, QUIP_E_MEMORY, "out of memory: %zu bytes for %s", n_bytes, what);
}
