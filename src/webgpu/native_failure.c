/* native_failure.c: what has gone wrong on a GPU.
 * In:  what the callbacks of wgpu-native report.
 * Out: the first failure, as a status and a sentence.
 *
 * wgpu-native 29 reports a lack of memory and a lost GPU as errors of validation; only their
 * messages differ. */
#include "webgpu/native_failure.h"

#include <string.h>

void qp_wgpu_failures_open(struct native_failures *f)
{
    pthread_mutex_init(&f->lock, NULL);
}

void qp_wgpu_failures_close(struct native_failures *f)
{
    pthread_mutex_destroy(&f->lock);
}

/* ---- messages ---- */

static bool is_line(const char *text, size_t n, const char *other)
{
    return n == strlen(other) && memcmp(text, other, n) == 0;
}

/* The lines go from what was done to what went wrong. "Validation Error" and "Caused by:" are left
 * out. */
void qp_wgpu_join_lines(char *to, size_t max, struct wgpu_text message)
{
    const char *line = message.data, *const end = line ? line + message.n : NULL;
    size_t n = 0;
    to[0] = 0;
    while (line < end && n < max) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const char *const next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        while (line < stop && *line == ' ')
            line++;
        while (stop > line && (stop[-1] == '.' || stop[-1] == ' '))
            stop--;
        const size_t length = (size_t)(stop - line);
        if (length > 0 && !is_line(line, length, "Validation Error") &&
            !is_line(line, length, "Caused by:"))
            n += (size_t)snprintf(to + n, max - n, "%s%.*s", n ? ": " : "", (int)length, line);
        line = next;
    }
}

static bool has_words(struct wgpu_text message, const char *words)
{
    const size_t n = strlen(words);
    for (size_t at = 0; message.data && at + n <= message.n; at++)
        if (memcmp(message.data + at, words, n) == 0)
            return true;
    return false;
}

/* ---- kinds ---- */

enum failure_kind {
    REFUSED,
    OUT_OF_MEMORY,
    LOST
};

static enum failure_kind kind_of_error(uint32_t type, struct wgpu_text message)
{
    if (has_words(message, "device is lost"))
        return LOST;
    if (type == WGPU_OUT_OF_MEMORY || has_words(message, "Not enough memory"))
        return OUT_OF_MEMORY;
    return REFUSED;
}

static void keep_failure(struct native_failures *f, enum failure_kind kind, const char *what,
                         struct wgpu_text message)
{
    char why[300];
    qp_wgpu_join_lines(why, sizeof why, message);
    pthread_mutex_lock(&f->lock);
    f->is_lost = f->is_lost || kind == LOST;
    if (kind == OUT_OF_MEMORY && f->is_allocating)
        f->is_short = true;
    else if (!f->first.status && !f->is_closing)
        qp_fail(&f->first, kind == OUT_OF_MEMORY ? QUIP_E_MEMORY : QUIP_E_DEVICE, "%s%s%s", what,
                why[0] ? ": " : "", why);
    pthread_mutex_unlock(&f->lock);
}

void qp_wgpu_on_error(void *const *device, uint32_t type, struct wgpu_text message, void *a,
                      void *b)
{
    static const char *const whats[] = { [REFUSED] = "the GPU refused a call",
                                         [OUT_OF_MEMORY] = "out of memory on the GPU",
                                         [LOST] = "the GPU was lost" };
    const enum failure_kind kind = kind_of_error(type, message);
    (void)device, (void)b;
    keep_failure(a, kind, whats[kind], message);
}

/* wgpu-native 29 always gives the `reason` of a device that was destroyed on purpose. */
void qp_wgpu_on_lost(void *const *device, uint32_t reason, struct wgpu_text message, void *a,
                     void *b)
{
    (void)device, (void)reason, (void)b;
    keep_failure(a, LOST, "the GPU was lost", message);
}

void qp_wgpu_fail_map(struct native_failures *f, struct wgpu_text message)
{
    keep_failure(f, kind_of_error(0, message), "the GPU did not map a buffer", message);
}

/* ---- what is asked ---- */

quip_status qp_wgpu_failure(struct native_failures *f, quip_error *error)
{
    pthread_mutex_lock(&f->lock);
    const quip_status status = (quip_status)f->first.status;
    if (status && error)
        *error = f->first;
    pthread_mutex_unlock(&f->lock);
    return status;
}

bool qp_wgpu_is_lost(struct native_failures *f)
{
    pthread_mutex_lock(&f->lock);
    const bool is_lost = f->is_lost;
    pthread_mutex_unlock(&f->lock);
    return is_lost;
}

bool qp_wgpu_forgive(struct native_failures *f)
{
    pthread_mutex_lock(&f->lock);
    const bool is_lost = f->is_lost;
    if (!is_lost)
        f->first = (quip_error){ 0 };
    pthread_mutex_unlock(&f->lock);
    return !is_lost;
}

void qp_wgpu_failures_stop(struct native_failures *f)
{
    pthread_mutex_lock(&f->lock);
    f->is_closing = true;
    pthread_mutex_unlock(&f->lock);
}

void qp_wgpu_begin_allocation(struct native_failures *f)
{
    pthread_mutex_lock(&f->lock);
    f->is_allocating = true;
    f->is_short = false;
    pthread_mutex_unlock(&f->lock);
}

bool qp_wgpu_end_allocation(struct native_failures *f)
{
    pthread_mutex_lock(&f->lock);
    const bool is_short = f->is_short;
    f->is_allocating = false;
    pthread_mutex_unlock(&f->lock);
    return is_short;
}
