/* kv_pool.c: the buffers of the keys and values of sequences.
 * In:  sequences; batches of them.
 * Out: a buffer for each layer.
 *
 * A sequence begins with buffers of its own. Sequences that decode in one batch move to common
 * ones, so that one dispatch can attend for all of them: the layer of each is at its slot. They
 * stay there. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <stdlib.h>

static void close_pool(struct webgpu_device *d, struct kv_pool *pool)
{
    for (int l = 0; pool->layers && l < d->base.config->n_layers; l++)
        qp_webgpu_free(d, &pool->layers[l]);
    free(pool->layers);
    free(pool->members);
    free(pool);
}

static quip_status open_pool(struct kv_pool **opened, struct webgpu_device *d, int n_context,
                             int n_slots, quip_error *error)
{
    const struct config *c = d->base.config;
    struct kv_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return qp_fail_memory(error, "a sequence", sizeof *pool);
    pool->n_slots = n_slots;
    pool->layers = calloc((size_t)c->n_layers, sizeof *pool->layers);
    pool->members = calloc((size_t)n_slots, sizeof(struct webgpu_sequence *));
    quip_status status = pool->layers && pool->members
                             ? QUIP_OK
                             : qp_fail_memory(error, "the layers of a sequence",
                                              (size_t)c->n_layers * sizeof *pool->layers);
    for (int l = 0; l < c->n_layers && !status; l++) {
        const uint64_t n_bytes = qp_webgpu_layer_bytes(c, l, d->kv_is_f16, n_context);
        if (owns_keys(c, l))
            status =
                qp_webgpu_alloc(d, &pool->layers[l], (uint64_t)n_slots * n_bytes / 256, 64, error);
    }
    if (status)
        close_pool(d, pool);
    else
        *opened = pool;
    return status;
}

static void enter_pool(struct webgpu_sequence *s, struct kv_pool *pool)
{
    s->pool = pool;
    s->slot = pool->n++;
    pool->members[s->slot] = s;
}

quip_status qp_webgpu_kv_open(struct webgpu_sequence *s, quip_error *error)
{
    struct kv_pool *pool;
    const quip_status status =
        open_pool(&pool, webgpu_of(s->base.device), s->base.n_context, 1, error);
    if (!status)
        enter_pool(s, pool);
    return status;
}

static void leave_pool(struct webgpu_device *d, struct kv_pool *pool, int slot)
{
    bool is_used = false;
    pool->members[slot] = NULL;
    for (int i = 0; i < pool->n; i++)
        is_used = is_used || pool->members[i];
    if (!is_used)
        close_pool(d, pool);
}

void qp_webgpu_kv_close(struct webgpu_sequence *s)
{
    if (s->pool)
        leave_pool(webgpu_of(s->base.device), s->pool, s->slot);
    s->pool = NULL;
    webgpu_of(s->base.device)->refused_pool = 0; // there is more memory now
}

struct gpu_range qp_webgpu_kv_range(const struct webgpu_sequence *s, int l)
{
    const struct webgpu_device *d = webgpu_of(s->base.device);
    const struct config *c = d->base.config;
    const int from = c->layers[l].kv_layer;
    const uint64_t n_bytes = qp_webgpu_layer_bytes(c, from, d->kv_is_f16, s->base.n_context);
    return (struct gpu_range){ s->pool->layers[from].buffer, (uint64_t)s->slot * n_bytes, n_bytes };
}

void qp_webgpu_kv_copy(const struct webgpu_sequence *to, const struct webgpu_sequence *from)
{
    struct webgpu_device *d = webgpu_of(to->base.device);
    for (int l = 0; l < d->base.config->n_layers; l++) {
        if (!owns_keys(d->base.config, l))
            continue;
        const struct gpu_range a = qp_webgpu_kv_range(to, l), b = qp_webgpu_kv_range(from, l);
        qp_gpu_copy(d->gpu, a.buffer, a.offset, b.buffer, b.offset, b.n_bytes);
    }
}

/* ---- batches ---- */

/* Are these single rows of sequences with a cache of one size? */
static bool can_gather(const struct rows *rows)
{
    const struct sequence *first = rows->row[0].sequence;
    const int n_context = first->n_context;
    if (rows->n < 2 || rows->n > LOGITS_ROWS || n_context == 0)
        return false;
    for (int t = 1; t < rows->n; t++)
        if (rows->row[t].sequence == rows->row[t - 1].sequence ||
            rows->row[t].sequence->n_context != n_context)
            return false;
    return true;
}

bool qp_webgpu_is_gathered(const struct rows *rows)
{
    if (!can_gather(rows))
        return false;
    for (int t = 1; t < rows->n; t++)
        if (webgpu_sequence_of(rows->row[t].sequence)->pool !=
            webgpu_sequence_of(rows->row[0].sequence)->pool)
            return false;
    return true;
}

static int n_members(const struct kv_pool *pool)
{
    int n = 0;
    for (int i = 0; i < pool->n; i++)
        n += pool->members[i] != NULL;
    return n;
}

/* Move all members of a pool to another one. */
static void move_members(struct webgpu_device *d, struct kv_pool *from, struct kv_pool *to)
{
    const int n = from->n;
    for (int i = 0; i < n; i++) {
        struct webgpu_sequence *s = from->members[i];
        if (!s)
            continue;
        const struct webgpu_sequence old = *s;
        enter_pool(s, to);
        qp_webgpu_kv_copy(s, &old);
    }
    qp_webgpu_flush(d); // before the buffers are closed
    close_pool(d, from);
}

/* The pools of the sequences move as a whole, so that batches in turns do not move sequences back
 * and forth. Without memory, or a binding that is large enough, they stay where they are, and this
 * is tried again after a sequence has closed. */
void qp_webgpu_gather(struct webgpu_device *d, const struct rows *rows)
{
    struct kv_pool *pools[LOGITS_ROWS], *to;
    int n_pools = 0, n_slots = 0;
    quip_error error;
    if (!can_gather(rows) || qp_webgpu_is_gathered(rows))
        return;
    for (int t = 0; t < rows->n; t++) {
        struct kv_pool *pool = webgpu_sequence_of(rows->row[t].sequence)->pool;
        bool is_new = true;
        for (int i = 0; i < n_pools; i++)
            is_new = is_new && pools[i] != pool;
        if (!is_new)
            continue;
        pools[n_pools++] = pool;
        n_slots += n_members(pool);
    }
    const int n_context = rows->row[0].sequence->n_context;
    const uint64_t n_bytes =
        (uint64_t)n_slots * qp_webgpu_kv_bytes(d->base.config, d->kv_is_f16, n_context);
    if (n_slots > MAX_ROW_NUMBERS || (d->refused_pool > 0 && n_bytes >= d->refused_pool))
        return;
    if (open_pool(&to, d, n_context, n_slots, &error)) {
        d->refused_pool = n_bytes;
        return;
    }
    for (int i = 0; i < n_pools; i++)
        move_members(d, pools[i], to);
}
