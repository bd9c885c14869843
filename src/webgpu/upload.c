/* upload.c: the weights of a model as buffers of the GPU.
 * In:  matrices in the mapped file.
 * Out: products: the matrices that have one input, row after row. They are in one buffer if they
 *      have one type and a shader can have it bound; otherwise in several slabs.
 *
 * A slab has, from its beginning: its rows as the file has them, each padded with zeros to a
 * multiple of ROW_UNIT weights; of int4 in blocks the fifth bits, which the GPU makes (split.wgsl),
 * and the multipliers; the scales; the biases; the zero points. All of it is streamed from the
 * mapping, a few megabytes at a time. */
#include "webgpu/webgpu_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((size_t)8 << 20) // written between two submits

/* ---- layout ---- */

/* The type of the matrix on the GPU. With a rest it is floats: all its products are exact. */
static int dtype_of(const struct matrix *m)
{
    return m->rest ? DTYPE_F32 : m->dtype;
}

static bool has_scales(const struct matrix *m)
{
    return m->scales && !m->rest;
}

static size_t padded_row_bytes(const struct matrix *m)
{
    const size_t n = qp_round_up((size_t)m->n_in, ROW_UNIT);
    const int dtype = dtype_of(m);
    return dtype == DTYPE_F32 ? 4 * n : dtype == DTYPE_I8 ? n : n / 2;
}

static size_t multiplier_bytes(const struct matrix *m)
{
    return m->dtype == DTYPE_I4_BLOCK ? qp_multiplier_bytes(m->n_in) : 0;
}

/* A bit of each weight. */
static size_t fifth_bit_bytes(const struct matrix *m)
{
    return m->dtype == DTYPE_I4_BLOCK ? padded_row_bytes(m) / 4 : 0;
}

/* Bytes of a row in a slab, with everything that belongs to it. */
static uint64_t bytes_per_row(const struct matrix *m, bool has_bias)
{
    return padded_row_bytes(m) + fifth_bit_bytes(m) + multiplier_bytes(m) +
           sizeof(float) * ((size_t)has_scales(m) + has_bias + (m->zeros != NULL));
}

/* Fill the layout of a slab of n_rows rows like those of `m`. */
static void lay_out(struct gpu_slab *p, const struct matrix *m, int n_rows, bool has_bias)
{
    uint64_t at = (uint64_t)n_rows * (padded_row_bytes(m) + fifth_bit_bytes(m)) / 4; // in words
    const uint32_t n = (uint32_t)n_rows;
    p->dtype = dtype_of(m);
    p->n_in = m->n_in;
    p->n_rows = n_rows;
    p->has_zeros = m->zeros != NULL;
    p->row_vecs = (uint32_t)(padded_row_bytes(m) / 16);
    p->multiplier_at = p->scale_at = p->bias_at = p->zero_at = NO_INDEX;
    if (multiplier_bytes(m) > 0) {
        p->multiplier_at = (uint32_t)at;
        at += n * multiplier_bytes(m) / 4;
    }
    if (has_scales(m)) {
        p->scale_at = (uint32_t)at;
        at += n;
    }
    if (has_bias) {
        p->bias_at = (uint32_t)at;
        at += n;
    }
    if (m->zeros) {
        p->zero_at = (uint32_t)at;
        at += n;
    }
    p->n_bytes = qp_round_up((size_t)at * 4, 16);
}

/* ---- writing ---- */

/* Bytes on their way to a buffer. `d` without a GPU only measures. */
struct writer {
    struct webgpu_device *d;
    uint8_t *chunk; // [CHUNK_BYTES]
    size_t n_pending;
    quip_error *error;
};

static void write_bytes(struct writer *w, struct gpu_buffer *to, uint64_t at, const void *from,
                        size_t n)
{
    while (n > 0) {
        const size_t n_now = n < CHUNK_BYTES ? n : CHUNK_BYTES;
        qp_gpu_write(w->d->gpu, to, at, from, n_now);
        w->n_pending += n_now;
        if (w->n_pending >= CHUNK_BYTES) { // what was written waits in memory of the host
            qp_gpu_submit(w->d->gpu);
            w->n_pending = 0;
        }
        from = (const uint8_t *)from + n_now;
        at += n_now;
        n -= n_now;
    }
}

static void write_rows(struct writer *w, const struct gpu_slab *p, int first,
                       const struct matrix *m)
{
    const size_t padded = padded_row_bytes(m);
    const uint64_t at = (uint64_t)first * padded;
    if (padded == m->row_bytes && !m->rest) {
        write_bytes(w, p->buffer, at, m->data, (size_t)m->n_out * padded);
        return;
    }
    const int zero = m->dtype == DTYPE_I4 || m->dtype == DTYPE_I4_BLOCK ? 0x88 : 0;
    const int n_fit = (int)(CHUNK_BYTES / padded);
    assert(n_fit > 0);
    for (int r = 0; r < m->n_out; r += n_fit) {
        const int n = qp_min(n_fit, m->n_out - r);
        memset(w->chunk, zero, (size_t)n * padded);
        for (int i = 0; i < n && !m->rest; i++)
            memcpy(w->chunk + (size_t)i * padded, qp_matrix_row(m, r + i), m->row_bytes);
        for (int i = 0; i < n && m->rest; i++)
            qp_matrix_read_row(m, r + i, (float *)(void *)(w->chunk + (size_t)i * padded));
        write_bytes(w, p->buffer, at + (uint64_t)r * padded, w->chunk, (size_t)n * padded);
    }
}

/* Rows of a matrix that become rows [first, first + m->n_out) of a slab. */
static void write_matrix(struct writer *w, const struct gpu_slab *p, int first,
                         const struct matrix *m)
{
    const size_t n_floats = (size_t)m->n_out * sizeof(float), at = (size_t)first * sizeof(float);
    write_rows(w, p, first, m);
    if (p->multiplier_at != NO_INDEX)
        write_bytes(w, p->buffer,
                    4 * (uint64_t)p->multiplier_at + (uint64_t)first * multiplier_bytes(m),
                    m->multipliers, (size_t)m->n_out * multiplier_bytes(m));
    if (p->scale_at != NO_INDEX)
        write_bytes(w, p->buffer, 4 * (uint64_t)p->scale_at + at, m->scales, n_floats);
    if (m->bias) // a buffer begins as zeros
        write_bytes(w, p->buffer, 4 * (uint64_t)p->bias_at + at, m->bias, n_floats);
    if (p->zero_at != NO_INDEX)
        write_bytes(w, p->buffer, 4 * (uint64_t)p->zero_at + at, m->zeros, n_floats);
}

/* Split the codes of a slab of int4 in blocks, once they are written. */
static quip_status split_codes(struct writer *w, const struct gpu_slab *p)
{
    enum {
        GROUP_SIZE = 256 // of split.wgsl
    };
    const uint32_t n = (uint32_t)p->n_rows * p->row_vecs,
                   n_groups = (n + GROUP_SIZE - 1) / GROUP_SIZE,
                   max = qp_gpu_info(w->d->gpu)->max_groups;
    struct call call = { .shader = SHADER_SPLIT, .bindings = { slab_range(p) } };
    if (p->dtype != DTYPE_I4_BLOCK)
        return QUIP_OK;
    call.y = (n_groups + max - 1) / max;
    call.x = (n_groups + call.y - 1) / call.y;
    const uint32_t parameters[] = { n, call.x * GROUP_SIZE };
    call.parameters = parameters;
    call.n_parameters = sizeof parameters;
    const quip_status status = qp_webgpu_dispatch(w->d, &call);
    qp_webgpu_flush(w->d);
    if (status && w->error)
        *w->error = w->d->base.error;
    return status;
}

static struct matrix float_matrix(const float *data, int n_out, int n_in)
{
    return (struct matrix){ .dtype = DTYPE_F32,
                            .n_out = n_out,
                            .n_in = n_in,
                            .row_bytes = (size_t)n_in * sizeof *data,
                            .data = data };
}

/* ---- products ---- */

enum {
    MAX_MATRICES = 3,
    MAX_SLABS = 64
};

/* Rows of the matrices of a product that are in one slab: rows [row, row + n) of matrix i. */
struct row_span {
    int i, row, n;
};

static bool is_alike(const struct matrix *a, const struct matrix *b)
{
    return dtype_of(a) == dtype_of(b) && a->n_in == b->n_in && !a->zeros == !b->zeros;
}

static uint64_t max_slab_bytes(const struct webgpu_device *d)
{
    const struct gpu_info *info = qp_gpu_info(d->gpu);
    return (info->max_binding < info->max_buffer ? info->max_binding : info->max_buffer) - 64;
}

/* The piece after `last` of matrices that have n of them, and whether it begins a slab of its own,
 * where the slab before has n_bytes. */
static bool next_piece(const struct matrix *const *m, int n, bool has_bias, uint64_t max,
                       struct row_span *last, uint64_t *n_bytes, bool *is_new)
{
    struct row_span p = { last->i, last->row + last->n, 0 };
    if (p.i < n && p.row == m[p.i]->n_out)
        p = (struct row_span){ p.i + 1, 0, 0 };
    if (p.i == n)
        return false;
    const uint64_t per_row = bytes_per_row(m[p.i], has_bias);
    const uint64_t whole = per_row * (uint64_t)(m[p.i]->n_out - p.row);
    *is_new = p.row > 0 || p.i == 0 || !is_alike(m[p.i], m[p.i - 1]) || *n_bytes + whole > max;
    if (*is_new)
        *n_bytes = 0;
    p.n = whole <= max ? m[p.i]->n_out - p.row : (int)(max / per_row);
    *n_bytes += per_row * (uint64_t)p.n;
    *last = p;
    return p.n > 0;
}

static quip_status open_slab(struct writer *w, struct gpu_slab *p)
{
    w->d->weight_bytes += p->n_bytes;
    return qp_gpu_buffer_open(&p->buffer, w->d->gpu, GPU_STORAGE, p->n_bytes, w->error);
}

/* The pieces of a slab begin at `piece`; write them. */
static quip_status fill_slab(struct writer *w, struct gpu_product *to,
                             const struct matrix *const *m, const struct row_span *piece,
                             int n_pieces, bool has_bias)
{
    struct gpu_slab *p = &to->slabs[to->n_slabs];
    int n_rows = 0;
    for (int i = 0; i < n_pieces; i++)
        n_rows += piece[i].n;
    *p = (struct gpu_slab){ .first = to->n_out };
    lay_out(p, m[piece->i], n_rows, has_bias);
    const quip_status status = open_slab(w, p);
    to->n_slabs++;
    to->n_out += n_rows;
    for (int i = 0, first = 0; i < n_pieces && !status; first += piece[i++].n) {
        const struct matrix rows = qp_matrix_part(m[piece[i].i], piece[i].row, piece[i].n);
        write_matrix(w, p, first, &rows);
    }
    return status ? status : split_codes(w, p);
}

static quip_status upload_product(struct writer *w, struct gpu_product *to,
                                  const struct matrix *const *m, int n)
{
    struct row_span pieces[MAX_SLABS + MAX_MATRICES], last = { 0, 0, 0 };
    bool begins[MAX_SLABS + MAX_MATRICES], has_bias = false;
    uint64_t n_bytes = 0;
    int n_pieces = 0, n_slabs = 0;
    for (int i = 0; i < n; i++)
        has_bias = has_bias || m[i]->bias;
    while (n_pieces < MAX_SLABS &&
           next_piece(m, n, has_bias, max_slab_bytes(w->d), &last, &n_bytes, &begins[n_pieces])) {
        n_slabs += begins[n_pieces];
        pieces[n_pieces++] = last;
    }
    if (n_pieces == 0 || last.i + 1 < n || last.row + last.n < m[n - 1]->n_out)
        return qp_fail(w->error, QUIP_E_UNSUPPORTED,
                       "a matrix of %d rows of %zu bytes needs more than %d buffers, because this "
                       "GPU binds at most %llu bytes of one; use the cpu",
                       m[0]->n_out, padded_row_bytes(m[0]), MAX_SLABS,
                       (unsigned long long)max_slab_bytes(w->d));
    to->n_in = m[0]->n_in;
    to->slabs = calloc((size_t)n_slabs, sizeof *to->slabs);
    if (!to->slabs)
        return qp_fail_memory(w->error, "the slabs of a matrix", sizeof *to->slabs);
    quip_status status = QUIP_OK;
    for (int i = 0, end; i < n_pieces && !status; i = end) {
        for (end = i + 1; end < n_pieces && !begins[end];)
            end++;
        status = fill_slab(w, to, m, pieces + i, end - i, has_bias);
    }
    return status;
}

/* The router, and behind it the row of the shared gate. */
static quip_status upload_router(struct writer *w, struct gpu_slab *slab, const quip_model *model,
                                 const struct layer_weights *lw)
{
    const struct matrix rows = float_matrix(lw->router, model->config.experts.n,
                                            model->config.d_model),
                        gate = float_matrix(lw->shared_gate, 1, model->config.d_model);
    lay_out(slab, &rows, rows.n_out + 1, false);
    const quip_status status = open_slab(w, slab);
    if (status)
        return status;
    write_matrix(w, slab, 0, &rows);
    if (lw->shared_gate)
        write_matrix(w, slab, rows.n_out, &gate);
    return QUIP_OK;
}

/* The matrices [first, first + n) of a layer that it has. */
static quip_status upload_layer_product(struct writer *w, struct gpu_product *to,
                                        const struct layer_weights *lw, enum layer_matrix first,
                                        int n)
{
    const struct matrix *m[MAX_MATRICES];
    int n_present = 0;
    for (int i = 0; i < n; i++)
        if (lw->m[(int)first + i].data)
            m[n_present++] = &lw->m[(int)first + i];
    return n_present ? upload_product(w, to, m, n_present) : QUIP_OK;
}

/* What only some models have. */
static quip_status upload_more(struct writer *w, const quip_model *model, int l)
{
    const struct layer_weights *lw = &model->weights.layers[l];
    struct layer_products *to = &w->d->layers[l];
    quip_status status = upload_layer_product(w, &to->ple_gate, lw, MATRIX_PLE_GATE, 1);
    if (!status)
        status = upload_layer_product(w, &to->ple_out, lw, MATRIX_PLE_OUT, 1);
    if (!status)
        status = upload_layer_product(w, &to->expert_gate, lw, MATRIX_EXPERT_GATE, 1);
    if (!status)
        status = upload_layer_product(w, &to->expert_up, lw, MATRIX_EXPERT_UP, 1);
    if (!status)
        status = upload_layer_product(w, &to->expert_down, lw, MATRIX_EXPERT_DOWN, 1);
    if (!status && lw->router)
        status = upload_router(w, &to->router, model, lw);
    to->ple_gate.name = "per-layer gate";
    to->ple_out.name = "per-layer output";
    to->expert_gate.name = "experts' gate";
    to->expert_up.name = "experts' up";
    to->expert_down.name = "experts' down";
    return status;
}

static quip_status upload_layer(struct writer *w, const quip_model *model, int l)
{
    const struct layer_weights *lw = &model->weights.layers[l];
    struct layer_products *to = &w->d->layers[l];
    const bool has_keys = model->config.layers[l].kv_layer == l;
    quip_status status = upload_layer_product(w, &to->qkv, lw, MATRIX_Q, has_keys ? 3 : 1);
    if (!status)
        status = upload_layer_product(w, &to->o, lw, MATRIX_O, 1);
    if (!status)
        status = upload_layer_product(w, &to->gate_up, lw, MATRIX_GATE, 2);
    if (!status)
        status = upload_layer_product(w, &to->down, lw, MATRIX_DOWN, 1);
    if (!status)
        status = upload_more(w, model, l);
    to->qkv.name = "q, k, v";
    to->o.name = "o";
    to->gate_up.name = "gate, up";
    to->down.name = "down";
    to->is_fused = to->gate_up.n_slabs == 1;
    return status;
}

static bool is_same_matrix(const struct matrix *a, const struct matrix *b)
{
    return a->data == b->data && a->bias == b->bias && a->scales == b->scales;
}

static quip_status upload_matrices(struct writer *w, const quip_model *model)
{
    struct webgpu_device *d = w->d;
    const struct matrix *const embed = &model->weights.embed, *const head = &model->weights.head,
                               *const context = &model->weights.ple_context;
    d->layers = calloc((size_t)model->config.n_layers, sizeof *d->layers);
    if (!d->layers)
        return qp_fail_memory(w->error, "the layers of a device", sizeof *d->layers);
    quip_status status = upload_product(w, &d->embed, &embed, 1);
    if (!status && !is_same_matrix(embed, head))
        status = upload_product(w, &d->head, &head, 1);
    if (!status && context->data)
        status = upload_product(w, &d->ple_context, &context, 1);
    d->embed.name = d->head.name = "logits";
    d->ple_context.name = "per-layer contexts";
    for (int i = 0; i < model->weights.n_dense && !status; i++) {
        const struct matrix *const dense = &model->weights.dense[i].w;
        status = upload_product(w, &d->dense[i], &dense, 1);
    }
    for (int l = 0; l < model->config.n_layers && !status; l++)
        status = upload_layer(w, model, l);
    return status;
}

/* ---- vectors ---- */

static int compare_vectors(const void *a, const void *b)
{
    const struct vector_at *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

static void add_vector(struct webgpu_device *d, const float *from, int n)
{
    if (from)
        d->vectors[d->n_vectors++] = (struct vector_at){ .from = from, .n = (uint32_t)n };
}

static void add_norm(struct webgpu_device *d, const struct norm_weights *w, int n)
{
    add_vector(d, w->scale, n);
    add_vector(d, w->bias, n);
}

static void add_layer_vectors(struct webgpu_device *d, const quip_model *model, int l)
{
    const struct config *c = &model->config;
    const struct layer_weights *w = &model->weights.layers[l];
    const int head_dim = c->layers[l].head_dim;
    const bool is_shared = c->qk_norm == QK_NORM_HEAD;
    add_norm(d, &w->attn_norm, c->d_model);
    add_norm(d, &w->attn_post_norm, c->d_model);
    add_norm(d, &w->ff_norm, c->d_model);
    add_norm(d, &w->ff_post_norm, c->d_model);
    add_norm(d, &w->ple_post_norm, c->d_model);
    add_vector(d, w->q_norm.scale, is_shared ? head_dim : c->n_heads * head_dim);
    add_vector(d, w->k_norm.scale, is_shared ? head_dim : c->layers[l].n_kv_heads * head_dim);
    add_vector(d, w->scale, 1);
    add_vector(d, w->conv, c->conv_width * c->d_model);
    add_vector(d, w->conv_bias, c->d_model);
    if (c->experts.n == 0)
        return;
    if (w->router_norm.scale != w->ff_norm.scale) // each vector is there once
        add_norm(d, &w->router_norm, c->d_model);
    add_norm(d, &w->expert_norm, c->d_model);
    add_norm(d, &w->expert_post_norm, c->d_model);
    add_norm(d, &w->dense_post_norm, c->d_model);
    add_vector(d, w->expert_scale, c->experts.n);
}

uint32_t qp_webgpu_vector(const struct webgpu_device *d, const float *from)
{
    if (!from)
        return NO_INDEX;
    const struct vector_at key = { .from = from };
    const struct vector_at *found =
        bsearch(&key, d->vectors, (size_t)d->n_vectors, sizeof key, compare_vectors);
    assert(found);
    return found->at;
}

/* Slopes of the heads, behind the vectors. */
static void write_slopes(struct writer *w, const struct config *c)
{
    for (int h = 0; h < c->n_heads && c->has_alibi; h++) {
        const float slope = qp_webgpu_alibi_slope(h, c->n_heads);
        write_bytes(w, w->d->vector_memory.buffer, 4 * ((uint64_t)w->d->alibi_at + (uint64_t)h),
                    &slope, sizeof slope);
    }
}

static quip_status upload_vectors(struct writer *w, const quip_model *model)
{
    struct webgpu_device *d = w->d;
    const struct config *c = &model->config;
    const size_t max = 27 * (size_t)c->n_layers + 6;
    d->vectors = calloc(max, sizeof *d->vectors);
    if (!d->vectors)
        return qp_fail_memory(w->error, "the vectors of a device", max * sizeof *d->vectors);
    add_norm(d, &model->weights.final_norm, c->d_model);
    add_norm(d, &model->weights.embed_norm, c->d_model);
    add_norm(d, &model->weights.ple_norm, c->d_ple);
    for (int l = 0; l < c->n_layers; l++)
        add_layer_vectors(d, model, l);
    assert((size_t)d->n_vectors <= max);
    qsort(d->vectors, (size_t)d->n_vectors, sizeof *d->vectors, compare_vectors);
    uint32_t n = 0;
    for (int i = 0; i < d->n_vectors; i++) {
        d->vectors[i].at = n;
        n += (uint32_t)stride_of((int)d->vectors[i].n); // shaders read four at once
    }
    d->alibi_at = n;
    quip_status status =
        qp_webgpu_alloc(d, &d->vector_memory, 1, stride_of((int)n + c->n_heads), w->error);
    for (int i = 0; i < d->n_vectors && !status; i++)
        write_bytes(w, d->vector_memory.buffer, 4 * (uint64_t)d->vectors[i].at, d->vectors[i].from,
                    d->vectors[i].n * sizeof(float));
    if (!status)
        write_slopes(w, c);
    if (status || !model->weights.positions)
        return status;
    status =
        qp_webgpu_alloc(d, &d->position_memory, (uint64_t)c->n_context_max, c->d_model, w->error);
    if (!status)
        write_bytes(w, d->position_memory.buffer, 0, model->weights.positions,
                    (size_t)c->n_context_max * (size_t)c->d_model * sizeof(float));
    return status;
}

/* ---- all of it ---- */

quip_status qp_webgpu_upload(struct webgpu_device *d, const quip_model *model, quip_error *error)
{
    struct writer w = { .d = d, .chunk = malloc(CHUNK_BYTES), .error = error };
    if (!w.chunk)
        return qp_fail_memory(error, "a part of the weights", CHUNK_BYTES);
    quip_status status = upload_vectors(&w, model);
    if (!status)
        status = upload_matrices(&w, model);
    qp_gpu_submit(d->gpu);
    free(w.chunk);
    return status ? status : qp_gpu_failure(d->gpu, error);
}

quip_status qp_webgpu_upload_floats(struct webgpu_device *d, struct gpu_slab *slab,
                                    const float *rows, int n_rows, int n_in, quip_error *error)
{
    const struct matrix m = float_matrix(rows, n_rows, n_in);
    struct writer w = { .d = d, .chunk = malloc(CHUNK_BYTES), .error = error };
    if (!w.chunk)
        return qp_fail_memory(error, "a part of an adapter", CHUNK_BYTES);
    *slab = (struct gpu_slab){ 0 };
    lay_out(slab, &m, n_rows, false);
    const quip_status status = open_slab(&w, slab);
    if (!status)
        write_matrix(&w, slab, 0, &m);
    free(w.chunk);
    return status ? status : qp_gpu_failure(d->gpu, error);
}

void qp_webgpu_free_slab(struct webgpu_device *d, struct gpu_slab *slab)
{
    if (!slab->buffer)
        return;
    qp_webgpu_unbind(d, slab->buffer);
    qp_gpu_buffer_close(d->gpu, slab->buffer);
    *slab = (struct gpu_slab){ 0 };
}

static void free_product(struct webgpu_device *d, struct gpu_product *p)
{
    for (int i = 0; i < p->n_slabs; i++)
        qp_webgpu_free_slab(d, &p->slabs[i]);
    free(p->slabs);
}

void qp_webgpu_free_weights(struct webgpu_device *d)
{
    for (int l = 0; d->layers && l < d->base.config->n_layers; l++) {
        free_product(d, &d->layers[l].qkv);
        free_product(d, &d->layers[l].o);
        free_product(d, &d->layers[l].gate_up);
        free_product(d, &d->layers[l].down);
        free_product(d, &d->layers[l].ple_gate);
        free_product(d, &d->layers[l].ple_out);
        free_product(d, &d->layers[l].expert_gate);
        free_product(d, &d->layers[l].expert_up);
        free_product(d, &d->layers[l].expert_down);
        qp_webgpu_free_slab(d, &d->layers[l].router);
    }
    free_product(d, &d->embed);
    free_product(d, &d->head);
    free_product(d, &d->ple_context);
    for (int i = 0; i < MAX_DENSE; i++)
        free_product(d, &d->dense[i]);
    qp_webgpu_free(d, &d->vector_memory);
    qp_webgpu_free(d, &d->position_memory);
    free(d->layers);
    free(d->vectors);
}

static uint64_t matrix_bytes(const struct matrix *m)
{
    return m->n_out > 0 ? (uint64_t)m->n_out * bytes_per_row(m, m->bias != NULL) : 0;
}

uint64_t qp_webgpu_weight_bytes(const quip_model *model)
{
    const struct weights *w = &model->weights;
    uint64_t n = matrix_bytes(&w->embed);
    if (!is_same_matrix(&w->embed, &w->head) || !w->embed.data)
        n += model->config.tied ? 0 : matrix_bytes(&w->head);
    for (int i = 0; i < model->config.n_layers * N_MATRICES; i++)
        n += matrix_bytes(&w->layers[i / N_MATRICES].m[i % N_MATRICES]);
    return n;
}
