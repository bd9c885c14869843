/* adapter.c: tensors of a LoRA file -> the pairs of an adapter.
 * Each tensor is assigned to a matrix of the model by its name. Then each pair is checked: both
 * halves are there and have the shapes that the matrix needs. An error names the tensor. */
#include "model/adapter.h"
#include "format/peft.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MODULE_NAMES "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj and their like"

/* Other tensors that PEFT writes, and what they mean. */
static const struct {
    const char *part, *what;
} refused_tensors[] = {
    { ".lora_magnitude_vector", "DoRA" },     { ".lora_embedding_", "LoRA of the embedding" },
    { ".modules_to_save", "a whole module" }, { "embed_tokens", "weights of the embedding" },
    { "lm_head", "weights of the head" },     { ".lora_B.bias", "a bias" },
};

static quip_status refuse_tensor(const struct adapter *a, const char *name, quip_error *error)
{
    const char *file = a->files.file.name;
    for (size_t i = 0; i < QP_COUNT(refused_tensors); i++)
        if (strstr(name, refused_tensors[i].part))
            return qp_fail(error, QUIP_E_UNSUPPORTED,
                           "%s: %s is %s, not LoRA weights of a layer's matrix; merge the adapter "
                           "into its model, and convert that",
                           file, name, refused_tensors[i].what);
    return qp_fail(error, QUIP_E_FORMAT,
                   "%s: %s is not a LoRA weight; expected names …layers.0.self_attn.q_proj."
                   "lora_A.weight and …lora_B.weight, for " MODULE_NAMES,
                   file, name);
}

/* ---- names ---- */

/* What a tensor's name says. */
struct half_name {
    int l;
    const char *module; // n bytes, behind the layer
    size_t n;
    bool is_b;
};

/* base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight */
static bool parse_peft_name(const char *name, struct half_name *h)
{
    h->module = qp_name_after_layer(name, &h->l);
    return h->module && qp_peft_side(h->module, &h->n, &h->is_b);
}

/* params.lm.transformer.x_layers_0.self_attention.q.w_prime_left: a is the left matrix, except in
 * the output projection of most models, where it is the right one. */
static bool parse_mediapipe_name(const struct adapter *a, const char *name, struct half_name *h)
{
    h->module = qp_name_after_layer(name, &h->l);
    const char *end = h->module ? strstr(h->module, ".w_prime_") : NULL;
    if (!end)
        return false;
    const bool is_left = strcmp(end, ".w_prime_left") == 0;
    if (!is_left && strcmp(end, ".w_prime_right") != 0)
        return false;
    h->n = (size_t)(end - h->module);
    const char *post = qp_matrix_name(MATRIX_O);
    const bool is_post = h->n == strlen(post) && strncmp(h->module, post, h->n) == 0;
    h->is_b = is_post && !a->is_post_like_q ? is_left : !is_left;
    return true;
}

static bool is_text(const char *text, const char *name, size_t n)
{
    return strlen(text) == n && memcmp(text, name, n) == 0;
}

static const struct matrix *base_matrix(const struct adapter *a, int l, enum layer_matrix m)
{
    return &a->model->weights.layers[l].m[m];
}

static struct lora_pair *pair_at(const struct adapter *a, int l, enum layer_matrix m)
{
    assert(l >= 0 && l < a->model->config.n_layers && m >= 0 && m < N_MATRICES);
    return &a->pairs[(size_t)l * N_MATRICES + (size_t)m];
}

/* The tensor is one half of the pair of this matrix. */
static quip_status set_half(struct adapter *a, const struct half_name *h, enum layer_matrix m,
                            const struct module *module, const struct tensor *t, quip_error *error)
{
    struct lora_pair *pair = pair_at(a, h->l, m);
    const struct tensor **half = h->is_b ? &pair->b : &pair->a;
    const struct tensor *other = h->is_b ? pair->a : pair->b;
    const struct tensor *same = *half ? *half : pair->module != module ? other : NULL;
    if (same)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %s and %s are the same matrix",
                       a->files.file.name, same->name, t->name);
    *half = t;
    pair->module = module;
    return QUIP_OK;
}

/* Assign the tensor to every matrix that its module holds. *n counts them. */
static quip_status assign_to_matrices(struct adapter *a, const struct half_name *h,
                                      const struct tensor *t, int *n, quip_error *error)
{
    const struct module *module;
    quip_status status = QUIP_OK;
    if (a->is_mediapipe) { // its engine has LoRA of the attention only
        for (int m = MATRIX_Q; m <= MATRIX_O && !status; m++)
            if (is_text(qp_matrix_name(m), h->module, h->n)) {
                status = set_half(a, h, m, NULL, t, error);
                ++*n;
            }
        return status;
    }
    for (int i = 0; (module = qp_module(i)) && !status; i++)
        if (is_text(module->name, h->module, h->n) &&
            qp_module_is_of(module, &a->model->config.layers[h->l]) &&
            base_matrix(a, h->l, module->matrix)->data) {
            status = set_half(a, h, module->matrix, module, t, error);
            ++*n;
        }
    return status;
}

static quip_status assign_tensor(struct adapter *a, const struct tensor *t, quip_error *error)
{
    struct half_name h;
    int n = 0;
    const int n_layers = a->model->config.n_layers;
    if (!(a->is_mediapipe ? parse_mediapipe_name(a, t->name, &h) : parse_peft_name(t->name, &h)))
        return refuse_tensor(a, t->name, error);
    if (h.l >= n_layers)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: %s is for layer %d, but the model has layers 0 to %d; is the adapter "
                       "for another model?",
                       a->files.file.name, t->name, h.l, n_layers - 1);
    const quip_status status = assign_to_matrices(a, &h, t, &n, error);
    if (status || n > 0)
        return status;
    if (strstr(h.module, ".experts.") || strncmp(h.module, "mlp.gate.", 9) == 0)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: %s is for experts or their router, for which there is no LoRA; train "
                       "an adapter for attention and shared experts",
                       a->files.file.name, t->name);
    if (strstr(t->name, "embed_tokens") || strstr(t->name, "lm_head"))
        return refuse_tensor(a, t->name, error);
    return qp_fail(error, QUIP_E_FORMAT,
                   "%s: %s is for \"%.*s\", which this %s model does not have; is the adapter for "
                   "another model?",
                   a->files.file.name, t->name, (int)(h.n < 80 ? h.n : 80), h.module,
                   a->model->config.family->name);
}

/* ---- shapes ---- */

/* Where the rows of a matrix are in b. */
static struct row_map map_of(const struct adapter *a, const struct lora_pair *p)
{
    const struct config *c = &a->model->config;
    const enum layer_matrix m = p->module ? p->module->matrix : MATRIX_O;
    if (p->module && strncmp(p->module->name, CONV_MODULE, strlen(CONV_MODULE)) ==
                         0) // its blocks have one width
        return (struct row_map){
            .part = p->module->part, .n_heads = 1, .n_kv_heads = 1, .head_dim = c->d_model
        };
    return (struct row_map){
        .part = p->module ? p->module->part : PART_ALL,
        .is_paired = c->family->pairs_rope && (m == MATRIX_Q || m == MATRIX_K),
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .rope_dim = c->head_dim,
        .d_ff = c->d_ff,
    };
}

static quip_status wrong_shape(const struct adapter *a, const struct tensor *t, int64_t rows,
                               int64_t cols, quip_error *error)
{
    const char *file = a->files.file.name;
    if (a->is_mediapipe)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: %s has %llu bytes, expected %lld x %lld values of 2 or 4 bytes; is "
                       "the adapter for another model?",
                       file, t->name, (unsigned long long)t->n_bytes, (long long)cols,
                       (long long)rows);
    return qp_fail(error, QUIP_E_FORMAT,
                   "%s: %s has shape [%lld, %lld], expected [%lld, %lld]; is the adapter for "
                   "another model?",
                   file, t->name, (long long)t->dims[0], (long long)t->dims[1], (long long)rows,
                   (long long)cols);
}

/* Whether the tensor is a matrix [rows, cols]. In MediaPipe's files it is a list of bytes: tiles of
 * 4 x 4 values. */
static bool has_shape(const struct adapter *a, const struct tensor *t, int64_t rows, int64_t cols)
{
    if (!a->is_mediapipe)
        return t->n_dims == 2 && t->dims[0] == rows && t->dims[1] == cols;
    const uint64_t n = (uint64_t)rows * (uint64_t)cols;
    return rows % 4 == 0 && cols % 4 == 0 && (t->n_bytes == 2 * n || t->n_bytes == 4 * n);
}

/* Is the pair whole, and does it fit its matrix? Sets its rank. */
static quip_status check_pair(struct adapter *a, struct lora_pair *p, const struct matrix *w,
                              quip_error *error)
{
    const char *file = a->files.file.name;
    if (!p->a || !p->b)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %s is there, but not its other half, %s", file,
                       p->a ? p->a->name : p->b->name, p->a ? "lora_B" : "lora_A");
    const int64_t rank = a->is_mediapipe ? a->file_rank : p->a->n_dims == 2 ? p->a->dims[0] : 0;
    if (rank < 1 || rank > MAX_RANK)
        return qp_fail(error, QUIP_E_FORMAT, "%s: %s has rank %lld; must be 1 to %d", file,
                       p->a->name, (long long)rank, MAX_RANK);
    const quip_status status =
        a->is_mediapipe ? QUIP_OK : qp_peft_check_pair(&a->files, p->a->name, rank, error);
    if (status)
        return status;
    if (!has_shape(a, p->a, rank, w->n_in))
        return wrong_shape(a, p->a, rank, w->n_in, error);
    const struct row_map map = map_of(a, p);
    const int64_t b_rows = qp_row_map_rows(&map, w->n_out);
    if (!has_shape(a, p->b, b_rows, rank))
        return wrong_shape(a, p->b, b_rows, rank, error);
    p->rank = (int)rank;
    return QUIP_OK;
}

static quip_status check_pairs(struct adapter *a, quip_error *error)
{
    for (int l = 0; l < a->model->config.n_layers; l++)
        for (int m = 0; m < N_MATRICES; m++) {
            struct lora_pair *p = pair_at(a, l, m);
            const quip_status status =
                p->a || p->b ? check_pair(a, p, base_matrix(a, l, m), error) : QUIP_OK;
            if (status)
                return status;
            a->max_rank = p->rank > a->max_rank ? p->rank : a->max_rank;
        }
    return a->max_rank ? QUIP_OK
                       : qp_fail(error, QUIP_E_FORMAT, "%s: has no LoRA weights for " MODULE_NAMES,
                                 a->files.file.name);
}

/* ---- open and close ---- */

/* The metadata of a MediaPipe LoRA file has its rank and the type of its model. */
static quip_status read_mediapipe_header(struct adapter *a, quip_error *error)
{
    const struct format *f = &a->files.format;
    const struct metadata *rank = qp_format_find_metadata(f, "lora_rank");
    const struct metadata *type = qp_format_find_metadata(f, "odml.infra.LlmModelType");
    const struct metadata *base =
        qp_format_find_metadata(&a->model->format, "odml.infra.LlmModelType");
    if (!rank || rank->type != METADATA_INT || rank->i < 1 || rank->i > MAX_RANK)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has no lora_rank: it is a model file, not LoRA weights for one",
                       f->file->name);
    if (type && base && type->type == METADATA_INT && base->type == METADATA_INT &&
        type->i != base->i)
        return qp_fail(error, QUIP_E_FORMAT, "%s: is for %s, but the model is %s", f->file->name,
                       f->subgraph_name, a->model->format.subgraph_name);
    a->is_mediapipe = true;
    a->file_rank = (int)rank->i;
    const struct model_type *known = qp_model_type_of_file(f);
    a->is_post_like_q = known && known->lora_post_is_like_q;
    return QUIP_OK;
}

/* Everything after its files are open. */
static quip_status read_adapter(struct adapter *a, quip_error *error)
{
    const size_t n_layers = (size_t)a->model->config.n_layers;
    const struct format *f = &a->files.format;
    quip_status status = QUIP_OK;
    if (f->kind == FORMAT_GGUF)
        return qp_fail(error, QUIP_E_UNSUPPORTED,
                       "%s: is GGUF; adapters are PEFT folders or MediaPipe LoRA files",
                       f->file->name);
    if (f->kind == FORMAT_TFLITE && (status = read_mediapipe_header(a, error)))
        return status;
    if (!(a->pairs = calloc(n_layers * N_MATRICES, sizeof *a->pairs)))
        return qp_fail_memory(error, "an adapter's tensors",
                              n_layers * N_MATRICES * sizeof *a->pairs);
    for (int i = 0; i < f->n_tensors && !status; i++)
        status = assign_tensor(a, &f->tensors[i], error);
    return status ? status : check_pairs(a, error);
}

quip_status qp_adapter_open(struct adapter *a, quip_model *model, const char *path,
                            quip_error *error)
{
    *a = (struct adapter){ .model = model };
    quip_status status = qp_adapter_files_open(&a->files, path, error);
    if (!status && (status = read_adapter(a, error)))
        qp_adapter_close(a);
    return status;
}

quip_status qp_adapter_open_file(struct adapter *a, quip_model *model, struct file *file,
                                 quip_error *error)
{
    *a = (struct adapter){ .model = model };
    quip_status status = qp_adapter_files_open_file(&a->files, file, error);
    if (!status && (status = read_adapter(a, error)))
        qp_adapter_close(a);
    return status;
}

void qp_adapter_close(struct adapter *a)
{
    free(a->pairs);
    qp_adapter_files_close(&a->files);
    *a = (struct adapter){ 0 };
}

const struct lora_pair *qp_adapter_pair(const struct adapter *a, int l, enum layer_matrix m)
{
    return pair_at(a, l, m);
}

/* ---- values ---- */

/* Rows of a MediaPipe matrix [rows, cols]. */
static quip_status read_tiles(struct adapter *a, const struct tensor *t, float *to, size_t rows,
                              size_t cols, quip_error *error)
{
    const uint8_t *data;
    const quip_status status = qp_format_tensor_bytes(&a->files.format, t, &data, error);
    if (!status)
        qp_untile_floats(to, data, rows, cols, t->n_bytes == 2 * rows * cols);
    return status;
}

/* The rows of b that belong to a matrix of n_out rows. */
static quip_status read_b(const struct adapter *a, const struct lora_pair *p, float *to, int n_out,
                          quip_error *error)
{
    const struct row_map map = map_of(a, p);
    const int64_t rank = p->rank;
    quip_status status = QUIP_OK;
    for (int64_t r = 0, run; r < n_out && !status; r += run) {
        run = qp_row_map_run(&map, r, n_out - r);
        status =
            qp_format_read_f32(&a->files.format, p->b, (uint64_t)(qp_row_map_at(&map, r) * rank),
                               (size_t)(run * rank), to + r * rank, error);
    }
    return status;
}

static bool is_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(x[i] - x[i] == 0))
            return false;
    return true;
}

quip_status qp_adapter_fail_finite(const struct adapter *a, const struct lora_pair *pair,
                                   quip_error *error)
{
    return qp_fail(error, QUIP_E_FORMAT,
                   "%s: %s or its other half has a value that is not a finite number",
                   a->files.file.name, pair->a->name);
}

quip_status qp_adapter_read(struct adapter *adapter, int l, enum layer_matrix m, float *a, float *b,
                            quip_error *error)
{
    const struct lora_pair *p = pair_at(adapter, l, m);
    const struct matrix *w = base_matrix(adapter, l, m);
    const size_t rank = (size_t)p->rank, n_in = (size_t)w->n_in, n_out = (size_t)w->n_out;
    const struct format *f = &adapter->files.format;
    quip_status status;
    assert(p->rank > 0);
    if (adapter->is_mediapipe) {
        if (!(status = read_tiles(adapter, p->a, a, rank, n_in, error)))
            status = read_tiles(adapter, p->b, b, n_out, rank, error);
    } else if (!(status = qp_format_read_f32(f, p->a, 0, rank * n_in, a, error))) {
        status = read_b(adapter, p, b, w->n_out, error);
    }
    if (status)
        return status;
    const double scale =
        adapter->is_mediapipe ? 1 : qp_peft_scale(&adapter->files.config, p->a->name, p->rank);
    for (size_t i = 0; i < n_out * rank; i++)
        b[i] = (float)(b[i] * scale);
    return is_finite(a, rank * n_in) && is_finite(b, n_out * rank)
               ? QUIP_OK
               : qp_adapter_fail_finite(adapter, p, error);
}
