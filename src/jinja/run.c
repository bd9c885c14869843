/* run.c: the state of a rendering or a parse: memory, limits, the first failure.
 * In:  requests for memory, steps and depth.
 * Out: what was requested; a failure with its message when a limit is reached.
 *
 * The heap is a list of chunks that is freed as a whole. */
#include "jinja/jinja_impl.h"

#include <stdlib.h>

#define CHUNK_BYTES 16384

const struct value qp_nothing = { .kind = V_MISSING };

void qp_run_fail_memory(struct run *r)
{
    if (r->has_failed)
        return;
    r->has_failed = true;
    r->status = QUIP_E_MEMORY;
    r->message.n = 0;
}

static bool add_chunk(struct run *r, size_t n_bytes)
{
    size_t size = n_bytes > CHUNK_BYTES / 4 ? n_bytes : CHUNK_BYTES;
    if (size > JINJA_MAX_MEMORY - r->n_bytes) {
        qp_run_refuse(r, "it needs more than %d MiB of memory", JINJA_MAX_MEMORY >> 20);
        return false;
    }
    struct heap_chunk *chunk = malloc(sizeof *chunk + size);
    if (!chunk) {
        qp_run_fail_memory(r);
        return false;
    }
    *chunk = (struct heap_chunk){ .next = r->chunks, .size = size };
    r->chunks = chunk;
    r->n_bytes += size;
    r->top = (char *)(chunk + 1);
    r->end = r->top + size;
    return true;
}

void *qp_run_alloc(struct run *r, size_t n_bytes)
{
    if (r->has_failed)
        return NULL;
    if (n_bytes > JINJA_MAX_MEMORY) {
        qp_run_refuse(r, "it needs more than %d MiB of memory", JINJA_MAX_MEMORY >> 20);
        return NULL;
    }
    n_bytes = qp_round_up(n_bytes ? n_bytes : 1, 16);
    if ((size_t)(r->end - r->top) < n_bytes && !add_chunk(r, n_bytes))
        return NULL;
    void *p = r->top;
    r->top += n_bytes;
    return memset(p, 0, n_bytes);
}

void qp_run_close(struct run *r)
{
    for (struct heap_chunk *next; r->chunks; r->chunks = next) {
        next = r->chunks->next;
        free(r->chunks);
    }
    qp_bytes_close(&r->message);
}

bool qp_run_step(struct run *r, size_t n)
{
    r->steps -= (int64_t)n;
    if (r->steps < 0 && !r->has_failed)
        qp_run_refuse(r, "it runs for more than %d million steps", JINJA_MAX_STEPS / 1000000);
    return !r->has_failed;
}

bool qp_run_enter(struct run *r)
{
    if (++r->depth > MAX_RUN_DEPTH)
        qp_run_refuse(r, "its calls are nested too deeply");
    return qp_run_step(r, 1);
}

void qp_run_leave(struct run *r)
{
    r->depth--;
}

static struct value fail_with(struct run *r, quip_status status, const char *format, va_list args)
{
    char text[400];
    if (r->has_failed)
        return qp_nothing;
    r->has_failed = true;
    r->status = status;
    r->message.n = 0;
    vsnprintf(text, sizeof text, format, args);
    const size_t n = qp_utf8_complete(text, strlen(text));
    if ((r->line > 0 && !qp_bytes_printf(&r->message, "line %d of the template: ", r->line)) ||
        !qp_bytes_append(&r->message, text, n))
        r->status = QUIP_E_MEMORY;
    return qp_nothing;
}

struct value qp_run_fail(struct run *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (!r->has_failed)
        r->may_retry = true;
    fail_with(r, QUIP_E_FORMAT, format, args);
    va_end(args);
    return qp_nothing;
}

struct value qp_run_refuse(struct run *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fail_with(r, QUIP_E_UNSUPPORTED, format, args);
    va_end(args);
    return qp_nothing;
}

struct value qp_run_raise(struct run *r, struct value message)
{
    if (r->has_failed)
        return qp_nothing;
    r->has_failed = true;
    r->status = QUIP_E_ARGUMENT;
    r->message.n = 0;
    if (!qp_bytes_append(&r->message, message.text, message.n))
        r->status = QUIP_E_MEMORY;
    return qp_nothing;
}

struct value qp_fail_undefined(struct run *r, const struct value *v)
{
    const int n = v->n < 200 ? (int)v->n : 200;
    if (v->sub == WHY_NAME)
        return qp_run_fail(r, "'%.*s' is not defined", n, v->text);
    if (v->sub == WHY_KEY)
        return qp_run_fail(r, "a value has no attribute '%.*s'", n, v->text);
    if (v->sub == WHY_UNSAFE)
        return qp_run_fail(r, "attribute '%.*s' is not allowed", n, v->text);
    return qp_run_fail(r, "%.*s", n, v->text);
}

/* ---- texts under construction ---- */

static bool grow_text(struct text_out *o, size_t n)
{
    struct run *r = o->run;
    size_t capacity = o->capacity < 48 ? 96 : o->capacity * 2;
    if (capacity < o->n + n)
        capacity = qp_round_up(o->n + n, 16);
    if (o->data && o->data + o->capacity == r->top &&
        (size_t)(r->end - r->top) >= capacity - o->capacity) {
        r->top += capacity - o->capacity; // it is the last on the heap
        o->capacity = capacity;
        return true;
    }
    char *data = qp_run_alloc(r, capacity);
    if (!data)
        return false;
    if (o->n)
        memcpy(data, o->data, o->n);
    o->data = data;
    o->capacity = qp_round_up(capacity, 16);
    return true;
}

void qp_put(struct text_out *o, const char *text, size_t n)
{
    struct run *r = o->run;
    if (!qp_run_step(r, n / 64) || n == 0)
        return;
    if (n > JINJA_MAX_OUTPUT || o->n + n > JINJA_MAX_OUTPUT) {
        qp_run_refuse(r, "a text has more than %d MiB", JINJA_MAX_OUTPUT >> 20);
        return;
    }
    if (o->capacity - o->n < n && !grow_text(o, n))
        return;
    memcpy(o->data + o->n, text, n);
    o->n += n;
}

void qp_put_fill(struct text_out *o, const char *text, size_t n, int64_t count)
{
    if (count > JINJA_MAX_OUTPUT)
        qp_run_refuse(o->run, "a text has more than %d MiB", JINJA_MAX_OUTPUT >> 20);
    for (; count > 0 && qp_run_step(o->run, 1); count--)
        qp_put(o, text, n);
}

void qp_put_text(struct text_out *o, const char *text)
{
    qp_put(o, text, strlen(text));
}

void qp_put_char(struct text_out *o, int32_t c)
{
    char text[4];
    qp_put(o, text, (size_t)qp_utf8_encode(c, text));
}

/* At least `width` characters, filled on the left; width 0: as they are. */
void qp_put_int(struct text_out *o, int64_t i, int width, char fill)
{
    char digits[20];
    int n = 0;
    uint64_t rest = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    do
        digits[n++] = (char)('0' + rest % 10);
    while (rest /= 10);
    if (i < 0)
        qp_put(o, "-", 1);
    for (int k = n; k < width; k++)
        qp_put(o, &fill, 1);
    while (n > 0)
        qp_put(o, &digits[--n], 1);
}

struct value qp_text_of(const struct text_out *o)
{
    return qp_text(o->data ? o->data : "", o->n);
}
