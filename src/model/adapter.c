/* adapter.c: named LoRA tensors -> struct quip_adapter.
 * Two passes: every tensor finds its place in the model by name and shape, or is an error that
 * names it; then memory for all of them is taken at once and filled.
 */
#include "model/adapter.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RANK 65536

/* ---- names ---- */

/* The matrices of a layer that an adapter may change: how PEFT calls them in the families' own
 * code, how the original's file does, and where they are. */
struct module {
    const char *name, *original;
    enum layer_matrix matrix;
    int part; // of PARTS that a fused matrix has for each head: q, k, v
};
#define PARTS 3
#define MODULE(name, original, matrix)                                                             \
    {                                                                                              \
        name, original, matrix, -1                                                                 \
    }
#define FUSED(matrix, part)                                                                        \
    {                                                                                              \
        "self_attention.query_key_value", NULL, matrix, part                                       \
    }
static const struct module adapter_modules[] = {
    MODULE("self_attn.q_proj", "self_attention.q", MATRIX_Q),
    MODULE("self_attn.k_proj", "self_attention.k", MATRIX_K),
    MODULE("self_attn.v_proj", "self_attention.v", MATRIX_V),
    MODULE("self_attn.o_proj", "self_attention.post", MATRIX_O),
    MODULE("mlp.gate_proj", NULL, MATRIX_GATE),
    MODULE("mlp.up_proj", NULL, MATRIX_UP),
    MODULE("mlp.down_proj", NULL, MATRIX_DOWN),
    MODULE("self_attn.dense", NULL, MATRIX_O), // Phi-2
    MODULE("mlp.fc1", NULL, MATRIX_UP),
    MODULE("mlp.fc2", NULL, MATRIX_DOWN),
    FUSED(MATRIX_Q, 0), // Falcon
    FUSED(MATRIX_K, 1),
    FUSED(MATRIX_V, 2),
    MODULE("self_attention.dense", NULL, MATRIX_O),
    MODULE("mlp.dense_h_to_4h", NULL, MATRIX_UP),
    MODULE("mlp.dense_4h_to_h", NULL, MATRIX_DOWN),
};
#define N_MODULES ((int)QP_COUNT(adapter_modules))
#define MODULE_NAMES "q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj and their like"

/* What else PEFT puts into the file, and what it means. */
static const struct {
    const char *part, *what;
} refused_tensors[] = {
    { ".lora_magnitude_vector", "DoRA" },     { ".lora_embedding_", "LoRA of the embedding" },
    { ".modules_to_save", "a whole module" }, { "embed_tokens", "weights of the embedding" },
    { "lm_head", "weights of the head" },     { ".lora_B.bias", "a bias" },
};

/* The pair of tensors of one module. */
struct lora_pair {
    const struct tensor *a, *b;
};

struct adapter_reader {
    quip_adapter *adapter;
    struct format format;
    struct peft_config config;
    bool is_original;        // tiled matrices, their alpha in b
    bool is_post_like_q;     // original: the output projection has left and right as q, k, v do
    int rank;                // original: of all matrices
    struct lora_pair *pairs; // [n_layers, N_MODULES]
    quip_error *error;
};

/* If the text begins with `prefix`, what comes behind it. */
static const char *after(const char *text, const char *prefix)
{
    const size_t n = strlen(prefix);
    return strncmp(text, prefix, n) == 0 ? text + n : NULL;
}

/* "0.rest" -> 0 and "rest"; NULL when it is something else. */
static const char *read_layer(const char *text, int *l)
{
    *l = 0;
    if (*text < '0' || *text > '9')
        return NULL;
    for (; *text >= '0' && *text <= '9'; text++)
        *l = *l > 99999 ? *l : *l * 10 + (*text - '0');
    return *text == '.' ? text + 1 : NULL;
}

/* A tensor's place, taken from its name. */
struct adapter_place {
    int l;
    const char *module; // n bytes, behind the layer
    size_t n;
    bool is_b;
};

/* base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight */
static bool parse_peft_name(const char *name, struct adapter_place *p)
{
    static const char *const wrappings[] = { "base_model.model.", "model.language_model.",
                                             "language_model.", "model.", "transformer." };
    const char *rest;
    for (size_t i = 0; i < QP_COUNT(wrappings); i++)
        if ((rest = after(name, wrappings[i])))
            name = rest;
    if (!(rest = after(name, "layers.")) && !(rest = after(name, "h.")))
        return false;
    if (!(p->module = read_layer(rest, &p->l)))
        return false;
    return qp_peft_side(p->module, &p->n, &p->is_b);
}

/* params.lm.transformer.x_layers_0.self_attention.q.w_prime_left: a is what x meets first, which
 * is the left one, but for the output projection of most models. */
static bool parse_original_name(const struct adapter_reader *r, const char *name,
                                struct adapter_place *p)
{
    const char *rest = after(name, "params.lm.transformer.x_layers_");
    const char *end = rest ? strstr(rest, ".w_prime_") : NULL;
    if (!end || !(p->module = read_layer(rest, &p->l)) || p->module > end)
        return false;
    p->n = (size_t)(end - p->module);
    const bool is_left = strcmp(end, ".w_prime_left") == 0;
    if (!is_left && strcmp(end, ".w_prime_right") != 0)
        return false;
    const bool is_post = p->n == strlen("self_attention.post") &&
                         strncmp(p->module, "self_attention.post", p->n) == 0;
    p->is_b = is_post && !r->is_post_like_q ? is_left : !is_left;
    return true;
}

static quip_status refuse_tensor(const struct adapter_reader *r, const char *name)
{
    const char *file = r->format.file->name;
    for (size_t i = 0; i < QP_COUNT(refused_tensors); i++)
        if (strstr(name, refused_tensors[i].part))
            return qp_fail(r->error, QUIP_E_UNSUPPORTED,
                           "%s: %s is %s, not LoRA weights of a layer's matrix; merge the adapter "
                           "into its model, and convert that",
                           file, name, refused_tensors[i].what);
    return qp_fail(r->error, QUIP_E_FORMAT,
                   "%s: %s has no place: LoRA weights are named …layers.0.self_attn.q_proj."
                   "lora_A.weight and …lora_B.weight, for " MODULE_NAMES,
                   file, name);
}

/* ---- places ---- */

static const struct matrix *base_matrix(const struct adapter_reader *r, int l, int module)
{
    return &r->adapter->model->weights.layers[l].m[adapter_modules[module].matrix];
}

static struct lora *adapter_slot(struct layer_adapter *a, int module)
{
    return &a->m[adapter_modules[module].matrix];
}

static struct lora_pair *lora_pair(const struct adapter_reader *r, int l, int module)
{
    return &r->pairs[(size_t)l * N_MODULES + (size_t)module];
}

/* Put the tensor into the pair of every module that has this name: a fused one has three. */
static quip_status place_tensor(struct adapter_reader *r, const struct tensor *t)
{
    struct adapter_place p;
    bool is_placed = false;
    const int n_layers = r->adapter->model->config.n_layers;
    if (!(r->is_original ? parse_original_name(r, t->name, &p) : parse_peft_name(t->name, &p)))
        return refuse_tensor(r, t->name);
    if (p.l >= n_layers)
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: %s is for layer %d, but the model has layers 0 to %d; is the adapter "
                       "for another model?",
                       r->format.file->name, t->name, p.l, n_layers - 1);
    for (int m = 0; m < N_MODULES; m++) {
        const struct module *module = &adapter_modules[m];
        const char *name = r->is_original ? module->original : module->name;
        if (!name || strlen(name) != p.n || strncmp(name, p.module, p.n) != 0)
            continue;
        if (!base_matrix(r, p.l, m)->data)
            break;
        struct lora_pair *pair = lora_pair(r, p.l, m);
        const struct tensor **at = p.is_b ? &pair->b : &pair->a;
        if (*at)
            return qp_fail(r->error, QUIP_E_FORMAT, "%s: %s and %s are the same matrix",
                           r->format.file->name, (*at)->name, t->name);
        *at = t;
        is_placed = true;
    }
    if (is_placed)
        return QUIP_OK;
    if (strstr(t->name, "embed_tokens") || strstr(t->name, "lm_head"))
        return refuse_tensor(r, t->name);
    return qp_fail(r->error, QUIP_E_FORMAT,
                   "%s: %s is for \"%.*s\", which this %s model does not have; is the adapter for "
                   "another model?",
                   r->format.file->name, t->name, (int)(p.n < 80 ? p.n : 80), p.module,
                   r->adapter->model->config.arch->name);
}

/* ---- shapes ---- */

static quip_status wrong_shape(const struct adapter_reader *r, const struct tensor *t, int64_t rows,
                               int64_t cols)
{
    const char *file = r->format.file->name;
    if (r->is_original)
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: %s has %llu bytes, needed are %lld x %lld values of 2 or 4 bytes; is "
                       "the adapter for another model?",
                       file, t->name, (unsigned long long)t->n_bytes, (long long)cols,
                       (long long)rows);
    return qp_fail(r->error, QUIP_E_FORMAT,
                   "%s: %s has shape [%lld, %lld], needed is [%lld, %lld]; is the adapter for "
                   "another model?",
                   file, t->name, (long long)t->dims[0], (long long)t->dims[1], (long long)rows,
                   (long long)cols);
}

/* A matrix [rows, cols]: of the original a list of bytes in tiles of 4 by 4. */
static bool has_shape(const struct adapter_reader *r, const struct tensor *t, int64_t rows,
                      int64_t cols)
{
    if (!r->is_original)
        return t->n_dims == 2 && t->dims[0] == rows && t->dims[1] == cols;
    const uint64_t n = (uint64_t)rows * (uint64_t)cols;
    return rows % 4 == 0 && cols % 4 == 0 && (t->n_bytes == 2 * n || t->n_bytes == 4 * n);
}

/* Is the pair whole, and does it fit its matrix? Then *rank is what they have in common. */
static quip_status check_pair(const struct adapter_reader *r, int l, int module, int *rank)
{
    const struct lora_pair *p = lora_pair(r, l, module);
    const struct matrix *w = base_matrix(r, l, module);
    const int64_t n_parts = adapter_modules[module].part >= 0 ? PARTS : 1;
    const char *file = r->format.file->name;
    if (!p->a || !p->b)
        return qp_fail(r->error, QUIP_E_FORMAT, "%s: %s is there, but not its other half, %s", file,
                       p->a ? p->a->name : p->b->name, p->a ? "lora_B" : "lora_A");
    const int64_t wanted = r->is_original ? r->rank : p->a->n_dims == 2 ? p->a->dims[0] : 0;
    if (wanted < 1 || wanted > MAX_RANK)
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: %s has rank %lld; possible are matrices of rank 1 to %d", file,
                       p->a->name, (long long)wanted, MAX_RANK);
    if (!r->is_original && !r->config.has_rank_pattern && r->config.rank > 0 &&
        (double)wanted != r->config.rank)
        return qp_fail(r->error, QUIP_E_FORMAT, "%s: %s has rank %lld, but the config says r = %g",
                       file, p->a->name, (long long)wanted, r->config.rank);
    if (!has_shape(r, p->a, wanted, w->n_in))
        return wrong_shape(r, p->a, wanted, w->n_in);
    if (!has_shape(r, p->b, n_parts * w->n_out, wanted))
        return wrong_shape(r, p->b, n_parts * w->n_out, wanted);
    *rank = (int)wanted;
    return QUIP_OK;
}

/* ---- memory ---- */

static void shape_lora(struct lora *to, bool is_float, int rank, const struct matrix *w)
{
    *to = (struct lora){ .rank = rank };
    if (is_float) {
        const size_t n = sizeof(float);
        to->a = (struct matrix){ DTYPE_F32, rank, w->n_in, .row_bytes = n * (size_t)w->n_in };
        to->b = (struct matrix){ DTYPE_F32, w->n_out, rank, .row_bytes = n * (size_t)rank };
    } else {
        to->thin_a = (struct thin){ .n_out = rank, .n_in = w->n_in };
        to->thin_b = (struct thin){ .n_out = w->n_out, .n_in = rank };
    }
}

/* Room for a or b, as floats or thin: the one that has a shape. */
static void take_half(struct arena *a, struct matrix *floats, struct thin *thin)
{
    const size_t n = (size_t)(thin->n_out ? qp_thin_n_groups(thin) : floats->n_out);
    size_t n_bytes;
    if (!qp_mul_size(n, thin->n_out ? qp_thin_group_bytes(thin) : floats->row_bytes, &n_bytes))
        n_bytes = SIZE_MAX;
    if (thin->n_out)
        thin->groups = qp_arena_alloc(a, n_bytes);
    else if (floats->n_out)
        floats->data = qp_arena_alloc(a, n_bytes);
}

/* All of a layer in the order of use, so that reading goes on from one to the next: of each
 * operation (forward.c) the a of its products, then their b. */
static void take_layer(struct arena *arena, struct layer_adapter *layer)
{
    static const int operations[][2] = { { MATRIX_Q, MATRIX_V },
                                         { MATRIX_O, MATRIX_O },
                                         { MATRIX_GATE, MATRIX_UP },
                                         { MATRIX_DOWN, MATRIX_DOWN } };
    struct lora *m = layer->m;
    for (size_t i = 0; i < QP_COUNT(operations); i++) {
        for (int p = operations[i][0]; p <= operations[i][1]; p++)
            take_half(arena, &m[p].a, &m[p].thin_a);
        for (int p = operations[i][0]; p <= operations[i][1]; p++)
            take_half(arena, &m[p].b, &m[p].thin_b);
    }
}

/* Take everything from the arena, or measure it. */
static quip_status take_adapter(struct adapter_reader *r, struct arena *a)
{
    quip_adapter *adapter = r->adapter;
    const int n_layers = adapter->model->config.n_layers;
    adapter->layers = qp_arena_alloc(a, (size_t)n_layers * sizeof *adapter->layers);
    for (int l = 0; l < n_layers; l++) {
        struct layer_adapter layer = { 0 };
        for (int m = 0; m < N_MODULES; m++) {
            const struct matrix *w = base_matrix(r, l, m);
            int rank = 0;
            if (!lora_pair(r, l, m)->a && !lora_pair(r, l, m)->b)
                continue;
            const quip_status status = check_pair(r, l, m, &rank);
            if (status)
                return status;
            shape_lora(adapter_slot(&layer, m), adapter->is_float || w->dtype == DTYPE_F32, rank,
                       w);
            adapter->max_rank = rank > adapter->max_rank ? rank : adapter->max_rank;
        }
        take_layer(a, &layer);
        if (adapter->layers)
            adapter->layers[l] = layer;
    }
    return adapter->max_rank
               ? QUIP_OK
               : qp_fail(r->error, QUIP_E_FORMAT, "%s: has no LoRA weights for " MODULE_NAMES,
                         r->format.file->name);
}

/* ---- values ---- */

/* What the update is multiplied by. */
static double lora_scale(const struct adapter_reader *r, const struct lora_pair *p, int rank)
{
    const char *end = strstr(p->a->name, ".lora_A");
    if (r->is_original || !r->config.has_alpha || !end)
        return 1;
    const double alpha = qp_peft_alpha(&r->config, p->a->name, (size_t)(end - p->a->name));
    return alpha / (r->config.is_rank_stabilized ? sqrt(rank) : rank);
}

/* All of a tensor, as rows. */
static quip_status read_lora_tensor(struct adapter_reader *r, const struct tensor *t, float *to,
                                    size_t rows, size_t cols)
{
    const uint8_t *data;
    if (!r->is_original)
        return qp_format_read_f32(&r->format, t, 0, rows * cols, to, r->error);
    const quip_status status = qp_format_tensor_bytes(&r->format, t, &data, r->error);
    if (!status)
        qp_untile_floats(to, data, rows, cols, t->n_bytes == 2 * rows * cols);
    return status;
}

/* Of b's rows, those of one part of a fused matrix, [head][part][head_dim], to the front. */
static void gather_part(float *b, const struct matrix *w, int part, int head_dim, int rank)
{
    const size_t n = (size_t)head_dim * (size_t)rank;
    for (int head = 0; head < w->n_out / head_dim; head++)
        memmove(b + (size_t)head * n, b + (size_t)(head * PARTS + part) * n, n * sizeof *b);
}

static bool is_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(x[i] - x[i] == 0))
            return false;
    return true;
}

/* Row r of w, [n_in], as integers with a scale, which is returned; negative when a value is not a
 * finite number. `row` is room for n_in. */
static float put_thin_row(struct thin *to, int r, const float *w, int8_t *row)
{
    uint8_t *group = (uint8_t *)qp_thin_group(to, r);
    float scale;
    if (!qp_quantize_i8(w, 1, to->n_in, row, &scale))
        return -1;
    ((float *)(void *)group)[r % THIN_ROWS] = scale;
    for (int k = 0; k < to->n_in; k++)
        group[qp_thin_offset(r, k)] = (uint8_t)row[k];
    return scale;
}

/* As integers, every row of a gets the same scale and the columns of b what that leaves: so the
 * rank's elements of a x are of like size, and lose little when they are quantized together. */
static bool store_thin(struct lora *to, const float *a, float *b, int8_t *row)
{
    const int n_in = to->thin_a.n_in, n_out = to->thin_b.n_out;
    for (int k = 0; k < to->rank; k++) {
        const float scale = put_thin_row(&to->thin_a, k, a + (size_t)k * (size_t)n_in, row);
        if (scale < 0)
            return false;
        for (int i = 0; i < n_out; i++)
            b[(size_t)i * (size_t)to->rank + (size_t)k] *= scale * 127;
        ((float *)(void *)qp_thin_group(&to->thin_a, k))[k % THIN_ROWS] = 1.0f / 127;
    }
    for (int i = 0; i < n_out; i++)
        if (put_thin_row(&to->thin_b, i, b + (size_t)i * (size_t)to->rank, row) < 0)
            return false;
    return true;
}

/* Store a and b, which is changed. False when a value is not a finite number. */
static bool store_lora(struct lora *to, const float *a, float *b, double scale, int8_t *row)
{
    const size_t n_b = (size_t)(to->thin_b.n_out + to->b.n_out) * (size_t)to->rank;
    const size_t n_a = (size_t)to->rank * (size_t)to->a.n_in;
    for (size_t i = 0; i < n_b; i++)
        b[i] = (float)(b[i] * scale);
    if (to->thin_a.n_out)
        return store_thin(to, a, b, row);
    memcpy((void *)to->a.data, a, n_a * sizeof *a);
    memcpy((void *)to->b.data, b, n_b * sizeof *b);
    return is_finite(a, n_a) && is_finite(b, n_b);
}

static quip_status fill_lora(struct adapter_reader *r, int l, int module)
{
    const struct lora_pair *p = lora_pair(r, l, module);
    const struct matrix *w = base_matrix(r, l, module);
    struct lora *to = adapter_slot(&r->adapter->layers[l], module);
    const int part = adapter_modules[module].part;
    const size_t rank = (size_t)to->rank, n_in = (size_t)w->n_in;
    const size_t b_rows = (size_t)w->n_out * (part >= 0 ? PARTS : 1);
    float *a = malloc(rank * n_in * sizeof *a), *b = malloc(b_rows * rank * sizeof *b);
    int8_t *row = malloc(rank > n_in ? rank : n_in);
    quip_status status =
        a && b && row ? QUIP_OK : qp_fail_memory(r->error, p->a->name, rank * n_in * sizeof *a);
    if (!status)
        status = read_lora_tensor(r, p->a, a, rank, n_in);
    if (!status)
        status = read_lora_tensor(r, p->b, b, b_rows, rank);
    if (!status && part >= 0)
        gather_part(b, w, part, r->adapter->model->config.head_dim, to->rank);
    if (!status && !store_lora(to, a, b, lora_scale(r, p, to->rank), row))
        status = qp_fail(r->error, QUIP_E_FORMAT,
                         "%s: %s or its other half has a value that is not a finite number",
                         r->format.file->name, p->a->name);
    free(a);
    free(b);
    free(row);
    return status;
}

/* ---- files ---- */

/* A LoRA file of the original has its rank in the metadata, and the type of its model. */
static quip_status read_original_header(struct adapter_reader *r)
{
    const struct format *f = &r->format;
    const struct metadata *rank = qp_format_find_metadata(f, "lora_rank");
    const struct metadata *type = qp_format_find_metadata(f, "odml.infra.LlmModelType");
    const struct metadata *base =
        qp_format_find_metadata(&r->adapter->model->format, "odml.infra.LlmModelType");
    if (!rank || rank->type != METADATA_INT || rank->i < 1 || rank->i > MAX_RANK)
        return qp_fail(r->error, QUIP_E_FORMAT,
                       "%s: has no lora_rank: it is a model file, not LoRA weights for one",
                       f->file->name);
    if (type && base && type->type == METADATA_INT && base->type == METADATA_INT &&
        type->i != base->i)
        return qp_fail(r->error, QUIP_E_FORMAT, "%s: is for %s, but the model is %s", f->file->name,
                       f->subgraph_name, r->adapter->model->format.subgraph_name);
    r->is_original = true;
    r->rank = (int)rank->i;
    r->is_post_like_q = type && type->type == METADATA_INT && type->i == 11; // PHI_2
    return QUIP_OK;
}

static quip_status read_adapter(struct adapter_reader *r)
{
    const int n_layers = r->adapter->model->config.n_layers;
    struct arena measured = { 0 }, *arena = &r->adapter->arena;
    quip_status status = QUIP_OK;
    if (r->format.kind == FORMAT_GGUF)
        return qp_fail(r->error, QUIP_E_UNSUPPORTED,
                       "%s: is GGUF; adapters are PEFT folders or LoRA files of the original",
                       r->format.file->name);
    if (r->format.kind == FORMAT_TFLITE && (status = read_original_header(r)))
        return status;
    if (!r->config.has_alpha)
        qp_peft_read_metadata(&r->config, &r->format);
    r->pairs = calloc((size_t)n_layers * (size_t)N_MODULES, sizeof *r->pairs);
    if (!r->pairs)
        return qp_fail_memory(r->error, "an adapter's tensors", (size_t)n_layers);
    for (int i = 0; i < r->format.n_tensors && !status; i++)
        status = place_tensor(r, &r->format.tensors[i]);
    if (status || (status = take_adapter(r, &measured)) ||
        (status = qp_arena_open(arena, measured.used, "an adapter", r->error)))
        return status;
    qp_want_large_pages(arena->base, arena->size);
    if ((status = take_adapter(r, arena)))
        return status;
    for (int l = 0; l < n_layers; l++)
        for (int m = 0; m < N_MODULES; m++)
            if (lora_pair(r, l, m)->a && (status = fill_lora(r, l, m)))
                return status;
    return QUIP_OK;
}

/* `file` is the weights; config NULL: what their own metadata says, or no scale. */
static quip_status open_adapter(quip_adapter **adapter, quip_model *model, struct file *file,
                                const struct peft_config *config, bool is_float, quip_error *error)
{
    struct adapter_reader r = { .error = error };
    quip_status status;
    *adapter = NULL;
    if (config)
        r.config = *config;
    if (!(r.adapter = calloc(1, sizeof *r.adapter))) {
        qp_file_close(file);
        return qp_fail_memory(error, "an adapter", sizeof *r.adapter);
    }
    r.adapter->n_references = 1;
    r.adapter->model = model;
    r.adapter->is_float = is_float;
    qp_model_retain(model);
    if (!(status = qp_format_open(&r.format, file, error))) {
        status = read_adapter(&r);
        qp_format_close(&r.format);
    }
    free(r.pairs);
    qp_file_close(file);
    if (status)
        qp_adapter_release(r.adapter);
    else
        *adapter = r.adapter;
    return status;
}

quip_status qp_adapter_open_file(quip_adapter **adapter, quip_model *model, struct file *file,
                                 quip_error *error)
{
    return open_adapter(adapter, model, file, NULL, false, error);
}

/* "<first n bytes of folder>/<name>", on the heap. */
static char *file_in_folder(const char *folder, size_t n, const char *name)
{
    const size_t size = n + strlen(name) + 2;
    char *path = malloc(size);
    if (path)
        snprintf(path, size, "%.*s/%s", (int)n, folder, name);
    return path;
}

/* The config, which is there, and then the weights. */
static quip_status open_with_config(quip_adapter **adapter, quip_model *model,
                                    const char *config_path, const char *path, bool is_float,
                                    quip_error *error)
{
    struct file text, file;
    struct peft_config config;
    quip_status status = qp_file_open(&text, config_path, error);
    if (status)
        return status;
    status = qp_peft_read(&config, (const char *)text.data, (size_t)text.size, text.name, error);
    if (!status && !(status = qp_file_open(&file, path, error)))
        status = open_adapter(adapter, model, &file, &config, is_float, error);
    qp_file_close(&text);
    return status;
}

static quip_status open_alone(quip_adapter **adapter, quip_model *model, const char *path,
                              bool is_float, quip_error *error)
{
    struct file file;
    const quip_status status = qp_file_open(&file, path, error);
    return status ? status : open_adapter(adapter, model, &file, NULL, is_float, error);
}

static quip_status open_adapter_path(quip_adapter **adapter, quip_model *model, const char *path,
                                     bool is_float, quip_error *error)
{
    const bool is_folder = qp_path_is_folder(path);
    const char *slash = strrchr(path, '/');
    const char *folder = is_folder ? path : slash ? path : ".";
    const size_t n = is_folder || !slash ? strlen(folder) : (size_t)(slash - path);
    char *config = file_in_folder(folder, n, "adapter_config.json");
    char *weights = file_in_folder(folder, n, "adapter_model.safetensors");
    quip_status status;
    *adapter = NULL;
    if (!config || !weights)
        status = qp_fail_memory(error, path, n);
    else if (is_folder)
        status = open_with_config(adapter, model, config, weights, is_float, error);
    else if (strcmp(slash ? slash + 1 : path, "adapter_model.safetensors") == 0)
        status = open_with_config(adapter, model, config, path, is_float, error);
    else
        status = open_alone(adapter, model, path, is_float, error);
    free(config);
    free(weights);
    return status;
}

quip_status qp_adapter_open(quip_adapter **adapter, quip_model *model, const char *path,
                            quip_error *error)
{
    return open_adapter_path(adapter, model, path, false, error);
}

quip_status qp_adapter_open_floats(quip_adapter **adapter, quip_model *model, const char *path,
                                   quip_error *error)
{
    return open_adapter_path(adapter, model, path, true, error);
}

void qp_adapter_retain(quip_adapter *adapter)
{
    if (adapter)
        atomic_fetch_add(&adapter->n_references, 1);
}

void qp_adapter_release(quip_adapter *adapter)
{
    if (!adapter || atomic_fetch_sub(&adapter->n_references, 1) != 1)
        return;
    qp_arena_close(&adapter->arena);
    qp_model_release(adapter->model);
    free(adapter);
}
