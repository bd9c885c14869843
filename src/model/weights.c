/* weights.c: the weights of a model.
 * In:  the tensors of its file, by name, and the config.
 * Out: struct weights, which points into the file. Each tensor has the shape that the config
 *      requires; an error names the tensor that is missing or wrong. */
#include "model/tensor_names.h"

#include <assert.h>
#include <string.h>

struct binder {
    quip_model *model;
    quip_error *error;
    quip_status status; // the first failure; later calls do nothing
    int n_i8, n_i4, n_f32;
    uint64_t n_parameters;
    bool is_gpu; // the file is for GPUs: shapes are byte counts, matrices are tiled
    char name[128];
};

static const struct tensor *find(struct binder *b, const char *name)
{
    char full[160];
    snprintf(full, sizeof full, "params.lm.%s", name);
    return qp_format_find(&b->model->format, full);
}

/* The tensor's bytes. In a model that is opened without weights, a pointer that must not be read.
 */
static const uint8_t *tensor_bytes(struct binder *b, const struct tensor *t)
{
    static const float none = 0;
    const uint8_t *data = (const uint8_t *)&none;
    if (!b->model->options.no_weights)
        b->status = qp_format_tensor_bytes(&b->model->format, t, &data, b->error);
    return data;
}

quip_status qp_check_aligned(const quip_model *m, const struct tensor *t, const uint8_t *data,
                             quip_error *error)
{
    const uint64_t begin = m->weights_file.begin;
    if ((uintptr_t)data % sizeof(float) == 0)
        return QUIP_OK;
    return qp_fail(error, QUIP_E_FORMAT, "%s: %s is at offset %llu, which is not a multiple of 4%s",
                   m->file.name, t->name, (unsigned long long)(begin + t->offset),
                   begin ? "; quip bundle writes bundles in which it is" : "");
}

/* The tensor's bytes as floats: it must have n of them, at an address for floats. */
static const float *floats(struct binder *b, const struct tensor *t, int64_t n)
{
    const char *file = b->model->file.name;
    int64_t n_elements = 1;
    for (int i = 0; i < t->n_dims; i++)
        n_elements *= t->dims[i];
    if (b->is_gpu)
        n_elements /= (int64_t)sizeof(float);
    if (t->dtype != DTYPE_F32 || n_elements != n) {
        b->status =
            qp_fail(b->error, QUIP_E_FORMAT, "%s: %s has %lld %s values, expected %lld f32", file,
                    t->name, (long long)n_elements, qp_dtype_name(t->dtype), (long long)n);
        return NULL;
    }
    const uint8_t *data = tensor_bytes(b, t);
    if (!b->status)
        b->status = qp_check_aligned(b->model, t, data, b->error);
    return b->status ? NULL : (const float *)(const void *)data;
}

/* A vector, which must exist. */
static const float *bind_vector(struct binder *b, const char *name, int n)
{
    assert(n > 0);
    if (b->status)
        return NULL;
    const struct tensor *t = find(b, name);
    b->n_parameters += (uint64_t)n;
    if (t)
        return floats(b, t, n);
    b->status = qp_fail(b->error, QUIP_E_FORMAT, "%s: tensor params.lm.%s is missing",
                        b->model->file.name, name);
    return NULL;
}

/* The weights of a norm, and the bias of a NORM_LAYER if the model has them. */
static void bind_norm(struct binder *b, struct norm_weights *w, const char *name, int n)
{
    char full[128];
    snprintf(full, sizeof full, "%s.scale", name);
    w->scale = bind_vector(b, full, n);
    if (b->model->config.norm_has_bias) {
        snprintf(full, sizeof full, "%s.bias", name);
        w->bias = bind_vector(b, full, n);
    }
}

/* The tensor <name><suffix> that belongs to a quantized matrix; NULL if there is none. */
static const struct tensor *find_companion(const struct binder *b, const struct tensor *w,
                                           const char *suffix)
{
    char name[200];
    snprintf(name, sizeof name, "%s%s", w->name, suffix);
    return qp_format_find(&b->model->format, name);
}

/* The floats of such a tensor, one for each row; NULL if there is none. */
static const float *bind_companion(struct binder *b, const struct tensor *w, const char *suffix,
                                   int n_out)
{
    const struct tensor *t = find_companion(b, w, suffix);
    return t ? floats(b, t, n_out) : NULL;
}

static void bind_multipliers(struct binder *b, struct matrix *m, const struct tensor *t)
{
    const int64_t row_bytes = (int64_t)qp_multiplier_bytes(m->n_in);
    if (t->dtype != DTYPE_I8 || t->n_dims != 2 || t->dims[0] != m->n_out ||
        t->dims[1] != row_bytes) {
        b->status = qp_fail(b->error, QUIP_E_FORMAT,
                            "%s: %s is %s [%lld, %lld], expected I8 [%d, %lld]: a 4-bit multiplier "
                            "for each %d weights",
                            b->model->file.name, t->name, qp_dtype_name(t->dtype),
                            (long long)t->dims[0], (long long)(t->n_dims > 1 ? t->dims[1] : 0),
                            m->n_out, (long long)row_bytes, I4_BLOCK);
        return;
    }
    m->dtype = DTYPE_I4_BLOCK;
    m->multipliers = tensor_bytes(b, t);
}

/* What rounding left of int8 weights, if the file has it. */
static void bind_weight_rest(struct binder *b, struct matrix *m, const struct tensor *weights)
{
    const struct tensor *t = find_companion(b, weights, "_rest");
    if (!t || b->status)
        return;
    if (t->dtype != DTYPE_I8 || t->n_dims != 2 || t->dims[0] != m->n_out || t->dims[1] != m->n_in) {
        b->status =
            qp_fail(b->error, QUIP_E_FORMAT, "%s: %s is %s [%lld, %lld], expected i8 [%d, %d]",
                    b->model->file.name, t->name, qp_dtype_name(t->dtype), (long long)t->dims[0],
                    (long long)(t->n_dims > 1 ? t->dims[1] : 0), m->n_out, m->n_in);
        return;
    }
    m->rest = (const int8_t *)tensor_bytes(b, t);
    b->model->weights.has_rest = true;
}

/* The scales of a quantized matrix; multipliers if it is block-wise int4; zero points in files for
 * GPUs, if there are any. */
static void bind_scales(struct binder *b, struct matrix *m, const struct tensor *t)
{
    const struct tensor *multipliers =
        t->dtype == DTYPE_I4 && !b->is_gpu ? find_companion(b, t, "_block_multiplier") : NULL;
    const char *suffix = multipliers ? "_block_scale" : "_quantized_scale";
    m->scales = bind_companion(b, t, suffix, m->n_out);
    if (!b->status && !m->scales)
        b->status = qp_fail(b->error, QUIP_E_FORMAT, "%s: %s is %s, but %s%s is missing",
                            b->model->file.name, t->name, qp_dtype_name(t->dtype), t->name, suffix);
    if (!b->status && multipliers)
        bind_multipliers(b, m, multipliers);
    if (!b->status && b->is_gpu)
        m->zeros = bind_companion(b, t, "_quantized_zp", m->n_out);
    else if (t->dtype == DTYPE_I8)
        bind_weight_rest(b, m, t);
}

/* Set the bytes of a row, and *n_bytes of the tensor; false for a type that a matrix cannot have.
 */
static bool matrix_layout(const struct binder *b, struct matrix *m, uint64_t *n_bytes)
{
    size_t row_bytes = (size_t)m->n_in;
    switch (m->dtype) {
    case DTYPE_F32:
        m->row_bytes = row_bytes * sizeof(float);
        *n_bytes = (uint64_t)m->n_out * row_bytes * (b->is_gpu ? sizeof(uint16_t) : sizeof(float));
        return true;
    case DTYPE_I8:
        m->row_bytes = row_bytes;
        break;
    case DTYPE_I4:
        m->row_bytes = row_bytes / 2;
        if (m->n_in % 2)
            return false;
        break;
    default:
        return false;
    }
    *n_bytes = (uint64_t)m->n_out * m->row_bytes;
    return true;
}

static void bind_tensor(struct binder *b, struct matrix *m, const struct tensor *t, int n_out,
                        int n_in)
{
    const char *file = b->model->file.name;
    uint64_t n_bytes;
    assert(n_out > 0 && n_in > 0);
    *m = (struct matrix){ .dtype = t->dtype, .n_out = n_out, .n_in = n_in, .name = t->name };
    if (!matrix_layout(b, m, &n_bytes)) {
        b->status = qp_fail(b->error, QUIP_E_UNSUPPORTED,
                            "%s: %s is %s [%d, %d]; must be i8, i4 (with rows of even length) or "
                            "f32",
                            file, t->name, qp_dtype_name(t->dtype), n_out, n_in);
        return;
    }
    if (t->n_bytes != n_bytes ||
        (!b->is_gpu && (t->n_dims != 2 || t->dims[0] != n_out || t->dims[1] != n_in)) ||
        (b->is_gpu && (n_out % 4 || n_in % 4))) {
        b->status = qp_fail(
            b->error, QUIP_E_FORMAT,
            "%s: %s has shape [%lld, %lld] and %llu bytes, expected [%d, %d] and %llu", file,
            t->name, (long long)t->dims[0], (long long)(t->n_dims > 1 ? t->dims[1] : 0),
            (unsigned long long)t->n_bytes, n_out, n_in, (unsigned long long)n_bytes);
        return;
    }
    *(t->dtype == DTYPE_F32 ? &b->n_f32 : t->dtype == DTYPE_I8 ? &b->n_i8 : &b->n_i4) += 1;
    b->n_parameters += (uint64_t)n_out * (uint64_t)n_in;
    if (t->dtype == DTYPE_F32 && !b->is_gpu) {
        m->data = floats(b, t, (int64_t)n_out * n_in);
        return;
    }
    m->data = tensor_bytes(b, t);
    if (b->status)
        return;
    if (b->is_gpu && !b->model->options.no_weights)
        qp_untile(m, qp_arena_alloc(&b->model->untiled, qp_untiled_bytes(t)), m->data);
    if (t->dtype != DTYPE_F32)
        bind_scales(b, m, t);
}

/* A matrix under either of MediaPipe's names for it, name.w or name.linear.w, and its bias. */
static void bind_matrix(struct binder *b, struct matrix *m, const char *name, int n_out, int n_in)
{
    char full[128];
    if (b->status)
        return;
    snprintf(full, sizeof full, "%s.w", name);
    const struct tensor *t = find(b, full);
    if (!t) {
        snprintf(full, sizeof full, "%s.linear.w", name);
        t = find(b, full);
    }
    if (!t) {
        b->status = qp_fail(b->error, QUIP_E_FORMAT, "%s: tensor params.lm.%s.w is missing",
                            b->model->file.name, name);
        return;
    }
    bind_tensor(b, m, t, n_out, n_in);
    snprintf(full, sizeof full, "%s.bias.b", name);
    if (!b->status && (t = find(b, full))) {
        m->bias = floats(b, t, n_out);
        b->n_parameters += (uint64_t)n_out;
    }
}

/* MediaPipe's name of a layer's tensor, without "params.lm."; valid until the next call. */
static const char *layer_name(struct binder *b, int l, const char *name)
{
    snprintf(b->name, sizeof b->name, LAYER_MEDIAPIPE "%s", l, name);
    return b->name;
}

static void bind_layer_matrix(struct binder *b, int l, enum layer_matrix m, int n_out, int n_in)
{
    bind_matrix(b, &b->model->weights.layers[l].m[m], layer_name(b, l, qp_matrix_name(m)), n_out,
                n_in);
}

/* A norm of q or k, which has no bias; n_heads is of this one. */
static void bind_qk_norm(struct binder *b, struct norm_weights *w, int l, const char *name,
                         int n_heads)
{
    const struct config *c = &b->model->config;
    const int head_dim = c->layers[l].head_dim;
    w->scale = bind_vector(b, layer_name(b, l, name),
                           c->qk_norm == QK_NORM_HEAD ? head_dim : n_heads * head_dim);
}

static void bind_attention(struct binder *b, int l)
{
    const struct config *c = &b->model->config;
    const struct layer_config *lc = &c->layers[l];
    struct layer_weights *w = &b->model->weights.layers[l];
    const int q_width = c->n_heads * lc->head_dim, kv_width = lc->n_kv_heads * lc->head_dim;
    const bool has_keys = lc->kv_layer == l;
    bind_layer_matrix(b, l, MATRIX_Q, q_width, c->d_model);
    if (has_keys)
        bind_layer_matrix(b, l, MATRIX_K, kv_width, c->d_model);
    if (has_keys && !lc->v_is_k)
        bind_layer_matrix(b, l, MATRIX_V, kv_width, c->d_model);
    bind_layer_matrix(b, l, MATRIX_O, c->d_model, q_width);
    if (c->qk_norm == QK_NORM_NONE)
        return;
    bind_qk_norm(b, &w->q_norm, l, "self_attention.q_norm.scale", c->n_heads);
    if (has_keys)
        bind_qk_norm(b, &w->k_norm, l, "self_attention.k_norm.scale", lc->n_kv_heads);
}

/* The optional end of a layer: per-layer embeddings, and its scale. */
static void bind_layer_end(struct binder *b, int l)
{
    const struct config *c = &b->model->config;
    struct weights *weights = &b->model->weights;
    struct layer_weights *w = &weights->layers[l];
    if (c->d_ple > 0 && !b->status) {
        bind_layer_matrix(b, l, MATRIX_PLE_GATE, c->d_ple, c->d_model);
        bind_layer_matrix(b, l, MATRIX_PLE_OUT, c->d_model, c->d_ple);
        bind_norm(b, &w->ple_post_norm, layer_name(b, l, "ple.post_norm"), c->d_model);
        w->m[MATRIX_PLE_CONTEXT] = qp_matrix_part(&weights->ple_context, l * c->d_ple, c->d_ple);
    }
    if (c->has_layer_scale)
        w->scale = bind_vector(b, layer_name(b, l, "layer_scale"), 1);
}

/* Each token reads one row of the table. */
static void advise_ple(const struct binder *b)
{
    const struct matrix *w = &b->model->weights.ple;
    if (b->model->file.is_borrowed || !b->model->file.data) // not a mapped file
        return;
    qp_want_no_readahead(w->data, (size_t)w->n_out * w->row_bytes);
    if (w->scales)
        qp_want_no_readahead(w->scales, (size_t)w->n_out * sizeof *w->scales);
}

/* What per-layer embeddings have for all layers. */
static void bind_ple(struct binder *b)
{
    const struct config *c = &b->model->config;
    struct weights *w = &b->model->weights;
    if (c->d_ple == 0)
        return;
    if (b->is_gpu) {
        b->status = qp_fail(b->error, QUIP_E_UNSUPPORTED,
                            "%s: is a file for GPUs with per-layer embeddings; convert the model "
                            "to a file for CPUs",
                            b->model->file.name);
        return;
    }
    bind_matrix(b, &w->ple, "ple.embedding", c->vocab_size * c->n_layers, c->d_ple);
    if (!b->status && !b->model->options.no_weights)
        advise_ple(b);
    bind_matrix(b, &w->ple_context, "ple.context", c->n_layers * c->d_ple, c->d_model);
    bind_norm(b, &w->ple_norm, "ple.context_norm", c->d_ple);
}

/* A convolution has two gates b and c, and its input x, where attention has q, k and v. */
static void bind_conv(struct binder *b, int l)
{
    static const char *const names[] = { "conv.b", "conv.c", "conv.x", "conv.out" };
    const struct config *c = &b->model->config;
    struct layer_weights *w = &b->model->weights.layers[l];
    for (int i = 0; i < (int)QP_COUNT(names); i++)
        bind_matrix(b, &w->m[MATRIX_Q + i], layer_name(b, l, names[i]), c->d_model, c->d_model);
    w->conv = bind_vector(b, layer_name(b, l, "conv.kernel"), c->conv_width * c->d_model);
    if (!b->status && find(b, layer_name(b, l, "conv.bias")))
        w->conv_bias = bind_vector(b, b->name, c->d_model);
}

/* The matrices of all experts, and what chooses among them. */
static void bind_experts(struct binder *b, int l)
{
    const struct config *c = &b->model->config;
    const struct expert_config *e = &c->experts;
    struct layer_weights *w = &b->model->weights.layers[l];
    w->router = bind_vector(b, layer_name(b, l, "ff_layer.router"), e->n * c->d_model);
    w->router_norm = w->ff_norm;
    if (e->has_norms) {
        bind_norm(b, &w->router_norm, layer_name(b, l, "ff_layer.router_norm"), c->d_model);
        w->expert_scale = bind_vector(b, layer_name(b, l, "ff_layer.expert_scale"), e->n);
        bind_norm(b, &w->expert_norm, layer_name(b, l, "ff_layer.expert_pre_norm"), c->d_model);
        bind_norm(b, &w->expert_post_norm, layer_name(b, l, "ff_layer.expert_post_norm"),
                  c->d_model);
        if (c->layers[l].d_ff > 0)
            bind_norm(b, &w->dense_post_norm, layer_name(b, l, "ff_layer.dense_post_norm"),
                      c->d_model);
    }
    if (e->has_shared_gate && c->layers[l].d_ff > 0)
        w->shared_gate = bind_vector(b, layer_name(b, l, "ff_layer.shared_gate"), c->d_model);
    bind_layer_matrix(b, l, MATRIX_EXPERT_GATE, e->n * e->d_ff, c->d_model);
    bind_layer_matrix(b, l, MATRIX_EXPERT_UP, e->n * e->d_ff, c->d_model);
    bind_layer_matrix(b, l, MATRIX_EXPERT_DOWN, e->n * c->d_model, e->d_ff);
}

static void bind_feed_forward(struct binder *b, int l)
{
    const struct config *c = &b->model->config;
    const int d_ff = c->layers[l].d_ff;
    if (c->layers[l].has_experts)
        bind_experts(b, l);
    if (d_ff == 0)
        return;
    if (c->is_gated)
        bind_layer_matrix(b, l, MATRIX_GATE, d_ff, c->d_model);
    bind_layer_matrix(b, l, MATRIX_UP, d_ff, c->d_model);
    bind_layer_matrix(b, l, MATRIX_DOWN, c->d_model, d_ff);
}

static void bind_layer(struct binder *b, int l)
{
    const struct config *c = &b->model->config;
    struct layer_weights *w = &b->model->weights.layers[l];
    // files for GPUs have another name for it in Falcon and StableLM
    const char *ff_norm =
        b->is_gpu && c->norm == NORM_LAYER ? "post_layer_norm" : "ff_layer.pre_layer_norm";
    if (c->pre_norm)
        bind_norm(b, &w->attn_norm, layer_name(b, l, "pre_layer_norm"), c->d_model);
    if (c->layers[l].mixer == MIXER_CONV)
        bind_conv(b, l);
    else
        bind_attention(b, l);
    if (c->has_ff_norm)
        bind_norm(b, &w->ff_norm, layer_name(b, l, ff_norm), c->d_model);
    bind_feed_forward(b, l);
    if (c->post_norm) {
        const char *names[] = { c->norms_sum ? "sum_norm" : "post_layer_norm",
                                c->norms_sum ? "ff_layer.sum_norm" : "ff_layer.post_layer_norm" };
        bind_norm(b, &w->attn_post_norm, layer_name(b, l, names[0]), c->d_model);
        bind_norm(b, &w->ff_post_norm, layer_name(b, l, names[1]), c->d_model);
    }
    bind_layer_end(b, l);
}

/* The divisors of a rope: infinite, or in a range that keeps every angle below 2^31. */
static const float *bind_divisors(struct binder *b, const struct rope *rope, const char *name)
{
    const int n = rope->dim / 2;
    const float *x = bind_vector(b, name, n);
    b->n_parameters -= (uint64_t)n; // they are computed
    for (int i = 0; x && !b->status && !b->model->options.no_weights && i < n; i++)
        if (!(x[i] * rope->scale >= 1e-3f))
            b->status = qp_fail(
                b->error, QUIP_E_FORMAT, "%s: params.lm.%s: value %d is %g; must be at least %g",
                b->model->file.name, name, i, (double)x[i], 1e-3 / (double)rope->scale);
    return x;
}

static void bind_rope(struct binder *b)
{
    struct config *c = &b->model->config;
    struct rope *rope = &c->ropes[ROPE_GLOBAL];
    if (c->n_rope_divisors > 0)
        rope->divisors[0] = bind_divisors(b, rope, "rope.divisors");
    if (c->n_rope_divisors > 1)
        rope->divisors[1] = bind_divisors(b, rope, "rope.long_divisors");
}

/* The learned vectors of positions, which are floats in any file. */
static void bind_positions(struct binder *b)
{
    const struct config *c = &b->model->config;
    const struct tensor *t;
    if (!c->has_positions || b->status)
        return;
    b->n_parameters += (uint64_t)c->n_context_max * (uint64_t)c->d_model;
    if ((t = find(b, "position_embedding.w")))
        b->model->weights.positions = floats(b, t, (int64_t)c->n_context_max * c->d_model);
    else
        b->status =
            qp_fail(b->error, QUIP_E_FORMAT, "%s: tensor params.lm.position_embedding.w is missing",
                    b->model->file.name);
}

/* Memory for the rows of every matrix of a file for GPUs. */
static void open_untiled(struct binder *b)
{
    const struct format *f = &b->model->format;
    size_t size = 0;
    for (int i = 0; i < f->n_tensors; i++)
        if (!qp_add_size(size, qp_untiled_bytes(&f->tensors[i]), &size))
            size = SIZE_MAX; // fails below
    if (b->model->options.no_weights)
        b->model->untiled.size = size; // for the plan
    else
        b->status = qp_arena_open(&b->model->untiled, size, "the rows of a GPU file", b->error);
}

/* Read which backend of MediaPipe the file is for: "cpu" or "gpu". */
static void read_backend(struct binder *b)
{
    const struct metadata *entry = qp_format_find_metadata(&b->model->format, "backend");
    const uint8_t *text;
    size_t n;
    if (!entry || entry->type != METADATA_BYTES ||
        (b->status = qp_format_bytes(&b->model->format, entry, &text, &n, b->error)))
        return;
    b->is_gpu = n == 3 && memcmp(text, "gpu", 3) == 0;
    if (b->is_gpu)
        open_untiled(b);
}

/* The parameters of the experts that a token does not use. */
static uint64_t idle_parameters(const struct config *c)
{
    const uint64_t of_expert = 3 * (uint64_t)c->experts.d_ff * (uint64_t)c->d_model;
    uint64_t n = 0;
    for (int l = 0; l < c->n_layers; l++)
        if (c->layers[l].has_experts)
            n += of_expert * (uint64_t)(c->experts.n - c->experts.n_used);
    return n;
}

quip_status qp_weights_bind(quip_model *m, quip_error *error)
{
    struct binder b = { .model = m, .error = error };
    const struct config *c = &m->config;
    assert(c->n_layers > 0 && m->weights.layers);
    read_backend(&b);
    bind_matrix(&b, &m->weights.head, "softmax.logits_ffn", c->vocab_size, c->d_model);
    if (!b.status && find(&b, "token_embedding.w"))
        bind_matrix(&b, &m->weights.embed, "token_embedding", c->vocab_size, c->d_model);
    else
        m->weights.embed = m->weights.head;
    bind_rope(&b);
    bind_ple(&b);
    bind_positions(&b);
    if (c->embed_norm)
        bind_norm(&b, &m->weights.embed_norm, "embedding_norm", c->d_model);
    if (c->has_final_norm)
        bind_norm(&b, &m->weights.final_norm, "final_ln", c->d_model);
    for (int l = 0; l < c->n_layers && !b.status; l++)
        bind_layer(&b, l);
    if (b.status)
        return b.status;
    m->weights.has_float = b.n_f32 > 0;
    m->weights.has_integer = b.n_i8 + b.n_i4 > 0;
    m->n_parameters = b.n_parameters;
    m->n_active_parameters = b.n_parameters - idle_parameters(c);
    const char *name = b.n_i8 && b.n_i4 ? "mixed" : b.n_i8 ? "int8" : b.n_i4 ? "int4" : "f32";
    snprintf(m->weights_name, sizeof m->weights_name, "%s", name);
    return QUIP_OK;
}
