/* embedding_source.c: what a checkpoint says about embeddings.
 * In:  a sentence-transformers folder: modules.json, the folders of its modules, and what
 *      embedding_texts.c reads. Or a GGUF file with a pooling type, and its dense layers.
 * Out: the metadata `quip.embedding` (docs/model-format.md), and the dense layers.
 *
 * What is not understood is an error, because an embedding that is nearly right is wrong. */
#include "convert/embedding_source.h"
#include "convert/embedding_texts.h"
#include "convert/gguf_keys.h"
#include "convert/json.h"

#include <stdlib.h>
#include <string.h>

/* A dense layer: where its tensors are, and where they go. */
struct dense_source {
    struct file file; // of a module of its own
    struct format format;
    const struct format *from;          // `format`, or that of the checkpoint's GGUF file
    const struct tensor *weight, *bias; // bias: NULL if it has none
    int weight_index, bias_index;       // in the writer
};

struct embedding_source {
    const struct checkpoint *checkpoint;
    const struct hparams *hparams;
    quip_error *error;
    struct bytes text; // quip.embedding
    struct dense_source dense[MAX_DENSE];
    int n_dense, width; // width: behind the dense layers so far
    bool has_pooling, has_normalize;
    bool is_pooling_said; // by the caller
};

static quip_status fail_source(const struct embedding_source *s, const char *file, const char *what)
{
    return qp_fail(s->error, QUIP_E_UNSUPPORTED, "%s/%s: %s", s->checkpoint->sources.folder, file,
                   what);
}

static quip_status fail_source_memory(const struct embedding_source *s)
{
    return qp_fail_memory(s->error, "quip.embedding", s->text.n);
}

/* ---- files of a module ---- */

/* The file `name` in the folder `path` of the checkpoint's; NULL if there is not enough memory. */
static char *module_path(const struct embedding_source *s, const char *path, const char *name)
{
    char *folder = qp_path_join(s->checkpoint->sources.folder, path);
    char *file = folder ? qp_path_join(folder, name) : NULL;
    free(folder);
    return file;
}

static quip_status read_module_json(const struct embedding_source *s, const char *path,
                                    cJSON **json)
{
    char *file = module_path(s, path, "config.json");
    *json = NULL;
    if (!file)
        return fail_source_memory(s);
    const quip_status status = qp_json_read(json, file, s->error);
    free(file);
    return status;
}

/* Whether a module reads or writes the embedding, as it does by default. */
static bool is_embedding(const cJSON *json, const char *key)
{
    const char *name = qp_json_text(json, key);
    return !*name || strcmp(name, "sentence_embedding") == 0;
}

/* ---- pooling ---- */

/* The name of a pooling mode in the metadata; NULL if it is not supported. */
static const char *pooling_name(const char *mode)
{
    static const char *const names[][2] = {
        { "mean", "mean" },      { "pooling_mode_mean_tokens", "mean" },
        { "cls", "first" },      { "pooling_mode_cls_token", "first" },
        { "lasttoken", "last" }, { "pooling_mode_lasttoken", "last" },
    };
    for (size_t i = 0; i < QP_COUNT(names); i++)
        if (strcmp(names[i][0], mode) == 0)
            return names[i][1];
    return NULL;
}

static quip_status put_pooling(struct embedding_source *s, const char *name)
{
    s->has_pooling = true;
    return qp_bytes_printf(&s->text, "pooling %s\n", name) ? QUIP_OK : fail_source_memory(s);
}

/* The mode is a text or a list in newer files; in older ones each mode is a switch. */
static quip_status read_pooling(struct embedding_source *s, const char *path)
{
    cJSON *json;
    quip_status status = read_module_json(s, path, &json);
    if (status)
        return status;
    const cJSON *mode = qp_json_item(json, "pooling_mode"), *found = NULL;
    int n = 0;
    if (cJSON_IsArray(mode) && cJSON_GetArraySize(mode) == 1)
        mode = mode->child;
    for (const cJSON *i = mode ? NULL : json->child; i; i = i->next)
        if (strncmp(i->string, "pooling_mode_", 13) == 0 && cJSON_IsTrue(i)) {
            found = i;
            n++;
        }
    const char *text = mode ? cJSON_GetStringValue(mode) : found ? found->string : NULL;
    const char *name = text && n <= 1 ? pooling_name(text) : NULL;
    if (!name)
        status = qp_fail(s->error, QUIP_E_UNSUPPORTED,
                         "%s/%s/config.json: its pooling is %.60s; must be one of mean, cls and "
                         "lasttoken",
                         s->checkpoint->sources.folder, path,
                         n > 1 || cJSON_IsArray(mode) ? "a combination"
                         : text                       ? text
                                                      : "not said");
    else
        status = put_pooling(s, name);
    const bool has_prompts = qp_json_flag(json, "include_prompt", true);
    if (!status && !has_prompts && strcmp(name, "first") == 0)
        status = qp_fail(s->error, QUIP_E_UNSUPPORTED,
                         "%s/%s/config.json: include_prompt is false for the pooling cls, which is "
                         "not supported: versions of sentence-transformers differ in which token "
                         "is the first; write true",
                         s->checkpoint->sources.folder, path);
    if (!status && !has_prompts && !qp_bytes_append_text(&s->text, "no_prompt_pooling 1\n"))
        status = fail_source_memory(s);
    cJSON_Delete(json);
    return status;
}

/* ---- dense layers ---- */

static bool has_shape(const struct tensor *t, int64_t rows, int64_t cols)
{
    return t && t->dims[0] == rows &&
           (cols ? t->n_dims == 2 && t->dims[1] == cols : t->n_dims == 1);
}

static quip_status open_dense(struct embedding_source *s, const char *path, const cJSON *json)
{
    static const char *const names[] = { "model.safetensors", "pytorch_model.bin" };
    struct dense_source *d = &s->dense[s->n_dense];
    quip_status status = QUIP_E_IO;
    for (size_t i = 0; i < QP_COUNT(names) && !d->file.name; i++) {
        char *file = module_path(s, path, names[i]);
        if (!file)
            return fail_source_memory(s);
        if (qp_path_exists(file)) {
            status = qp_file_open(&d->file, file, s->error);
            if (!status)
                status = qp_format_open_with(&d->format, &d->file, &qp_pytorch_reader, s->error);
            free(file);
            break;
        }
        free(file);
    }
    s->n_dense++;
    if (!d->format.tensors)
        return status != QUIP_E_IO ? status : fail_source(s, path, "has no model.safetensors");
    const cJSON *in = qp_json_item(json, "in_features"), *out = qp_json_item(json, "out_features");
    const int n_in = cJSON_IsNumber(in) ? in->valueint : 0;
    const int n_out = cJSON_IsNumber(out) ? out->valueint : 0;
    d->from = &d->format;
    d->weight = qp_format_find(&d->format, "linear.weight");
    d->bias = qp_json_flag(json, "bias", true) ? qp_format_find(&d->format, "linear.bias") : NULL;
    const bool fits = n_in == s->width && n_out > 0 && has_shape(d->weight, n_out, n_in) &&
                      (!qp_json_flag(json, "bias", true) || has_shape(d->bias, n_out, 0));
    s->width = n_out;
    return fits ? QUIP_OK
                : fail_source(s, path,
                              "its sizes are not those of its tensors, or do not continue "
                              "the module before");
}

static quip_status read_dense_module(struct embedding_source *s, const char *path)
{
    cJSON *json;
    if (s->n_dense == MAX_DENSE || !s->has_pooling || s->has_normalize)
        return fail_source(s, "modules.json",
                           "its dense layers are not 1 to 4 between Pooling and Normalize");
    quip_status status = read_module_json(s, path, &json);
    const char *act = qp_json_text(json, "activation_function");
    const char *dot = strrchr(act, '.'), *name = dot ? dot + 1 : act;
    const char *own = strncmp(act, "torch.", 6) != 0  ? NULL // not PyTorch's own
                      : strcmp(name, "Tanh") == 0     ? "tanh"
                      : strcmp(name, "Identity") == 0 ? "identity"
                                                      : NULL;
    const char *input = qp_json_text(json, "module_input_name");
    if (!status && (!own || !is_embedding(json, "module_input_name") ||
                    !is_embedding(json, "module_output_name")))
        status = qp_fail(s->error, QUIP_E_UNSUPPORTED,
                         "%s/%s/config.json: a dense layer with the activation \"%.60s\" %s is not "
                         "supported; must be PyTorch's Tanh or Identity on the embedding",
                         s->checkpoint->sources.folder, path, act, input);
    if (!status && qp_json_flag(json, "use_residual", false))
        status = qp_fail(s->error, QUIP_E_UNSUPPORTED,
                         "%s/%s/config.json: use_residual is true, a dense layer that is added to "
                         "its input, which is not supported",
                         s->checkpoint->sources.folder, path);
    if (!status)
        status = open_dense(s, path, json);
    if (!status && !qp_bytes_printf(&s->text, "dense %d %s%s\n", s->width, own,
                                    s->dense[s->n_dense - 1].bias ? " bias" : ""))
        status = fail_source_memory(s);
    cJSON_Delete(json);
    return status;
}

/* ---- normalization ---- */

/* Quip does it anyway, unless an option says otherwise. Older files have no config.json. */
static quip_status read_normalize(struct embedding_source *s, const char *path)
{
    cJSON *json = NULL;
    char *folder = qp_path_join(s->checkpoint->sources.folder, path);
    quip_status status =
        folder ? qp_json_in_folder(&json, folder, "config.json", s->error) : fail_source_memory(s);
    if (!status && *path &&
        !(is_embedding(json, "module_input_name") && is_embedding(json, "module_output_name")))
        status = fail_source(s, path,
                             "normalizes something else than the embedding, which is not "
                             "supported");
    s->has_normalize = true;
    cJSON_Delete(json);
    free(folder);
    return status;
}

/* Embeddings that are compared otherwise than by their angle need their length. */
static quip_status note_length(const struct embedding_source *s,
                               const struct convert_options *options)
{
    cJSON *json = NULL;
    const quip_status status = qp_json_in_folder(&json, s->checkpoint->sources.folder,
                                                 "config_sentence_transformers.json", s->error);
    const char *name = qp_json_text(json, "similarity_fn_name");
    if (*name && strcmp(name, "cosine") != 0 && !s->has_normalize)
        qp_convert_note(options,
                        "%s: its embeddings are not normalized, and its similarity is \"%.20s\"; "
                        "for the same embeddings say quip embed --no-normalize (no_normalize)",
                        s->checkpoint->path, name);
    cJSON_Delete(json);
    return status;
}

/* ---- modules.json ---- */

static quip_status read_module(struct embedding_source *s, const cJSON *module, int index)
{
    const char *type = qp_json_text(module, "type"), *path = qp_json_text(module, "path");
    const char *dot = strrchr(type, '.'), *name = dot ? dot + 1 : type;
    if (*path == '/' || strstr(path, ".."))
        return fail_source(s, "modules.json", "a path leaves the folder");
    if (strncmp(type, "sentence_transformers.", 22) != 0)
        name = ""; // code of its own, whatever it is called
    if (strcmp(name, "Transformer") == 0 && index == 0 && !*path)
        return QUIP_OK;
    if (strcmp(name, "Pooling") == 0 && !s->has_pooling && index == 1)
        return read_pooling(s, path);
    if (strcmp(name, "Dense") == 0)
        return read_dense_module(s, path);
    if (strcmp(name, "Normalize") == 0 && s->has_pooling)
        return read_normalize(s, path);
    if (strcmp(name, "Dropout") == 0) // in training only
        return QUIP_OK;
    return qp_fail(s->error, QUIP_E_UNSUPPORTED,
                   "%s/modules.json: module %d is \"%.80s\" in \"%.40s\"; supported are "
                   "Transformer in the folder itself, then Pooling, then Dense and Normalize",
                   s->checkpoint->sources.folder, index, type, path);
}

/* Of modules with one name, sentence-transformers keeps one. */
static quip_status check_name(const struct embedding_source *s, const cJSON *modules,
                              const cJSON *module)
{
    const char *name = cJSON_GetStringValue(qp_json_item(module, "name"));
    for (const cJSON *i = modules->child; i != module && name; i = i->next) {
        const char *other = cJSON_GetStringValue(qp_json_item(i, "name"));
        if (other && strcmp(other, name) == 0)
            return qp_fail(s->error, QUIP_E_UNSUPPORTED,
                           "%s/modules.json: two modules have the name \"%.40s\"; give each its "
                           "own",
                           s->checkpoint->sources.folder, name);
    }
    return QUIP_OK;
}

static quip_status read_modules(struct embedding_source *s, const cJSON *modules)
{
    quip_status status = QUIP_OK;
    int index = 0;
    for (const cJSON *i = modules->child; i && !status; i = i->next) {
        status = check_name(s, modules, i);
        if (!status)
            status = read_module(s, i, index++);
    }
    if (!status && !s->has_pooling)
        status = fail_source(s, "modules.json", "has no pooling");
    return status;
}

/* ---- GGUF ---- */

static quip_status read_gguf_dense(struct embedding_source *s, const char *name, struct entry *e)
{
    struct dense_source *d = &s->dense[s->n_dense++];
    const struct tensor *t = e->tensor;
    const int n_out = t->dims[0] > 0 && t->dims[0] <= 1 << 16 ? (int)t->dims[0] : 0;
    const char *arch = qp_source_gguf_name(s->hparams->source);
    const struct {
        const char *end;
        int expected;
    } sizes[] = { { "in", s->width }, { "out", n_out } };
    bool fits = n_out > 0 && has_shape(t, n_out, s->width);
    for (size_t i = 0; i < QP_COUNT(sizes); i++) {
        char key[40];
        snprintf(key, sizeof key, "%s_feat_%s", name, sizes[i].end);
        fits = fits && qp_entry_number(qp_arch_entry(&s->checkpoint->shards[0].format, arch, key),
                                       sizes[i].expected) == sizes[i].expected;
    }
    if (!fits)
        return qp_fail(s->error, QUIP_E_FORMAT,
                       "%s: the sizes of %s.weight are not those of its metadata, or do not "
                       "continue the layer before",
                       s->checkpoint->path, name);
    e->is_used = true;
    d->weight = t;
    d->from = e->format;
    s->width = n_out;
    return qp_bytes_printf(&s->text, "dense %d identity\n", n_out) ? QUIP_OK
                                                                   : fail_source_memory(s);
}

/* EmbeddingGemma's dense layers have no activation and no bias. Files that were converted without
 * them make other embeddings than the model, unless the caller says the pooling. */
static quip_status read_gguf_layers(struct embedding_source *s)
{
    const struct checkpoint *c = s->checkpoint;
    struct entry *first = qp_checkpoint_find(c, "dense_2.weight");
    struct entry *second = qp_checkpoint_find(c, "dense_3.weight");
    if (!c->is_gguf || !s->hparams->source->gguf_is_encoder)
        return QUIP_OK;
    if (!first && !second && s->is_pooling_said)
        return QUIP_OK;
    if (!first || !second)
        return qp_fail(s->error, QUIP_E_UNSUPPORTED,
                       "%s: has no %s, a dense layer behind the pooling of EmbeddingGemma; take a "
                       "file that was made with --sentence-transformers-dense-modules%s",
                       c->path, first ? "dense_3.weight" : "dense_2.weight",
                       first || second ? ""
                                       : ", or say --pooling mean for embeddings without the "
                                         "dense layers");
    const quip_status status = read_gguf_dense(s, "dense_2", first);
    return status ? status : read_gguf_dense(s, "dense_3", second);
}

/* ---- open, close ---- */

static quip_status read_source(struct embedding_source *s, const cJSON *modules,
                               const char *pooling, const char *tokenizer)
{
    quip_status status =
        modules                 ? read_modules(s, modules)
        : pooling_name(pooling) ? put_pooling(s, pooling)
        : strcmp(pooling, "first") == 0 || strcmp(pooling, "last") == 0
            ? put_pooling(s, pooling)
            : qp_fail(s->error, QUIP_E_ARGUMENT,
                      "the pooling is \"%.40s\"; must be mean, first or last", pooling);
    if (!status)
        status = read_gguf_layers(s);
    return status
               ? status
               : qp_embedding_texts_read(&s->text, s->checkpoint, s->hparams, tokenizer, s->error);
}

/* NULL if there is no modules.json. */
static quip_status read_list(cJSON **modules, const struct checkpoint *c, quip_error *error)
{
    char *path = qp_path_join(c->sources.folder, "modules.json");
    quip_status status = QUIP_OK;
    if (!path)
        return qp_fail_memory(error, "a path", strlen(c->sources.folder));
    if (qp_path_exists(path))
        status = qp_json_read_any(modules, path, error);
    if (!status && *modules && !cJSON_IsArray(*modules))
        status = qp_fail(error, QUIP_E_FORMAT, "%s: is not a list", path);
    free(path);
    return status;
}

quip_status qp_embedding_source_open(struct embedding_source **source, const struct checkpoint *c,
                                     const struct hparams *h, const struct convert_options *options,
                                     quip_error *error)
{
    cJSON *modules = NULL;
    const char *pooling = options->pooling;
    quip_status status = QUIP_OK;
    *source = NULL;
    if (!c->is_gguf)
        status = read_list(&modules, c, error);
    else if (!pooling)
        status =
            qp_gguf_pooling(&c->shards[0].format, qp_source_gguf_name(h->source), &pooling, error);
    if (!status && !modules && !pooling && h->raw.traits.is_bidirectional)
        status = qp_fail(error, QUIP_E_UNSUPPORTED,
                         "%s: is an encoder: its attention is bidirectional, so it is not a causal "
                         "language model, and generates no text; to convert it for quip embed, it "
                         "needs %s, or say --pooling",
                         c->path,
                         c->is_gguf ? "the pooling_type in its metadata"
                                    : "its modules.json and what that names");
    struct embedding_source *s = status || !(modules || pooling) ? NULL : calloc(1, sizeof *s);
    if (!status && (modules || pooling) && !s)
        status = qp_fail_memory(error, "quip.embedding", sizeof *s);
    if (s) {
        *s = (struct embedding_source){
            .checkpoint = c,
            .hparams = h,
            .error = error,
            .width = h->raw.d_model,
            .is_pooling_said = options->pooling != NULL,
        };
        status = read_source(s, modules, pooling, options->tokenizer);
        if (!status && modules)
            status = note_length(s, options);
    }
    cJSON_Delete(modules);
    *source = s;
    return status;
}

void qp_embedding_source_close(struct embedding_source *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n_dense; i++) {
        qp_format_close(&s->dense[i].format);
        qp_file_close(&s->dense[i].file);
    }
    qp_bytes_close(&s->text);
    free(s);
}

/* ---- write ---- */

quip_status qp_embedding_source_declare(struct embedding_source *s, struct tflite_writer *w,
                                        quip_error *error)
{
    quip_status status =
        qp_tflite_writer_metadata(w, "quip.embedding", s->text.data, s->text.n, error);
    for (int i = 0; i < s->n_dense && !status; i++) {
        struct dense_source *d = &s->dense[i];
        char name[80];
        snprintf(name, sizeof name, "params.lm.embedding.dense_%d.w", i);
        status = qp_tflite_writer_tensor(w, name, DTYPE_F32, 2, d->weight->dims, &d->weight_index,
                                         error);
        snprintf(name, sizeof name, "params.lm.embedding.dense_%d.bias.b", i);
        if (!status && d->bias)
            status = qp_tflite_writer_tensor(w, name, DTYPE_F32, 1, d->bias->dims, &d->bias_index,
                                             error);
    }
    return status;
}

/* Write a tensor as floats, a row at a time. */
static quip_status write_floats(const struct dense_source *d, const struct tensor *t, int index,
                                struct tflite_writer *w, quip_error *error)
{
    const uint64_t cols = (uint64_t)t->dims[t->n_dims - 1];
    const uint64_t rows = t->n_dims == 2 ? (uint64_t)t->dims[0] : 1;
    float *row = malloc((size_t)cols * sizeof *row);
    quip_status status = row ? QUIP_OK : qp_fail_memory(error, "a dense layer", (size_t)cols);
    for (uint64_t r = 0; r < rows && !status; r++) {
        status = qp_format_read_f32(d->from, t, r * cols, (size_t)cols, row, error);
        if (!status)
            status = qp_tflite_writer_write(w, index, r * cols * sizeof *row, row,
                                            (size_t)cols * sizeof *row, error);
    }
    free(row);
    return status;
}

quip_status qp_embedding_source_write(const struct embedding_source *s, struct tflite_writer *w,
                                      quip_error *error)
{
    quip_status status = QUIP_OK;
    for (int i = 0; i < s->n_dense && !status; i++) {
        const struct dense_source *d = &s->dense[i];
        status = write_floats(d, d->weight, d->weight_index, w, error);
        if (!status && d->bias)
            status = write_floats(d, d->bias, d->bias_index, w, error);
    }
    return status;
}
