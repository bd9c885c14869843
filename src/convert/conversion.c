/* conversion.c: a checkpoint -> a model file.
 * In:  a GGUF file, or safetensors or PyTorch files with config.json and a tokenizer.
 * Out: declared tensors and metadata; then the bytes of the tensors, in slabs of rows.
 *
 *     open checkpoint -> hparams -> tokenizer -> plan (every tensor checked) -> declare -> stream
 *
 * Everything but the values of the weights is checked before anything is written. */
#include "convert/conversion.h"
#include "convert/chat_source.h"
#include "convert/embedding_inputs.h"
#include "convert/embedding_source.h"
#include "convert/head.h"
#include "convert/json.h"
#include "convert/prompt_tokens.h"
#include "convert/rows.h"
#include "convert/sampling_source.h"
#include "convert/tokenizer_folder.h"
#include "convert/tokenizer_import.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_NAME = 160,
};

struct conversion {
    const char *in, *out;
    const struct convert_options *options;
    quip_error *error;
    struct checkpoint checkpoint;
    struct hparams hparams;
    struct imported_tokenizer imported;
    struct tokenizer *tokenizer;
    struct chat_sources chat;
    struct chat_spelling spelling;
    struct plan plan;
    struct embedding_source *embedding; // NULL: a model that generates text
    struct embedding_inputs *inputs;    // of its matrices; NULL: not needed
    struct tflite_writer *writer;       // borrowed
    struct lora_merge *merge;
    struct row_reader rows;
    struct slab slab;
    uint64_t done_bytes, total_bytes;
    int n_layer_matrices, n_zero_matrices; // written so far; those of them that have only zeros
};

/* ---- tokenizer ---- */

static bool is_own_gguf(const struct conversion *v)
{
    return v->checkpoint.is_gguf && !v->options->tokenizer;
}

/* Import the tokenizer. */
static quip_status import_tokenizer(struct conversion *v)
{
    const struct convert_options *o = v->options;
    const struct checkpoint *c = &v->checkpoint;
    const struct tokenizer_request request = {
        .path = o->tokenizer ? o->tokenizer : c->sources.folder,
        .config = c->tokenizer_config,
        .is_foreign = o->tokenizer != NULL,
        .vocab_size = v->hparams.raw.vocab_size,
    };
    return is_own_gguf(v) ? qp_import_tokenizer_gguf(&c->shards[0].format, &v->imported.spm,
                                                     &v->imported.bpe, v->error)
                          : qp_import_tokenizer(&v->imported, &request, v->error);
}

static void add_stop_piece(struct conversion *v, const char *piece)
{
    qp_hparams_add_stop(&v->hparams, qp_tokenizer_find(v->tokenizer, piece, strlen(piece)));
}

/* The checkpoint's own template goes into the file as it is. Readers that know no Jinja get its
 * prefixes and suffixes, or those of the named template that it resembles. */
static quip_status read_template(struct conversion *v)
{
    quip_status status = qp_chat_sources_read(&v->chat, &v->checkpoint, v->tokenizer, v->error);
    if (!status)
        status = qp_chat_probe(&v->spelling, &v->chat, v->tokenizer, v->error);
    const struct bytes *own = qp_chat_sources_own(&v->chat);
    if (!status && own)
        v->hparams.chat = qp_chat_recognise((const char *)own->data);
    if (!status && own && v->spelling.is_empty) // the named template that it resembles remains
        qp_chat_sources_drop_own(&v->chat);
    else if (!status && own)
        v->hparams.spelling = &v->spelling;
    if (!status && v->spelling.stop[0])
        add_stop_piece(v, v->spelling.stop);
    return status;
}

/* Set the chat template and the stop tokens, whose texts are looked up in the vocabulary. */
static quip_status settle_turns(struct conversion *v)
{
    const quip_status status = v->options->chat ? QUIP_OK : read_template(v);
    if (status)
        return qp_fail_in(v->error, status, v->in);
    if (v->options->chat)
        v->hparams.chat = v->options->chat;
    const struct chat_template *chat = qp_chat_find(v->hparams.chat);
    if (!chat)
        return qp_fail(v->error, QUIP_E_ARGUMENT, "unknown chat template \"%s\"", v->hparams.chat);
    for (const char *const *stop = chat->stops; *stop; stop++)
        add_stop_piece(v, *stop);
    for (const char *const *stop = v->hparams.source->stops; *stop; stop++)
        add_stop_piece(v, *stop);
    // a tune for chats may name its end of a turn only in tokenizer_config.json
    const char *eos = qp_token_text(v->checkpoint.tokenizer_config, "eos_token");
    if (eos && (cJSON_HasObjectItem(v->checkpoint.tokenizer_config, "chat_template") ||
                strcmp(v->hparams.chat, "none") != 0))
        add_stop_piece(v, eos);
    if (v->hparams.n_stops == 0) // then use the checkpoint's eos, which may be wrong
        qp_hparams_add_stop(&v->hparams, v->hparams.eos);
    if (v->hparams.has_more_stops)
        return qp_fail(v->error, QUIP_E_UNSUPPORTED,
                       "%s: more than %d tokens end an answer (eos_token_id)", v->in,
                       HPARAMS_MAX_STOPS);
    for (int i = 0; i < v->hparams.n_stops; i++)
        if (v->hparams.stops[i] >= v->hparams.raw.vocab_size)
            return qp_fail(v->error, QUIP_E_FORMAT, "%s: stop token %d is not in the vocabulary",
                           v->in, v->hparams.stops[i]);
    if (v->hparams.bos >= v->hparams.raw.vocab_size)
        return qp_fail(v->error, QUIP_E_FORMAT,
                       "%s: beginning-of-sequence token %d is not in the vocabulary", v->in,
                       v->hparams.bos);
    return QUIP_OK;
}

static struct prompt_tokens prompt_of(const struct conversion *v)
{
    return (struct prompt_tokens){ .in = v->in,
                                   .options = v->options,
                                   .checkpoint = &v->checkpoint,
                                   .imported = &v->imported,
                                   .tokenizer = v->tokenizer,
                                   .spelling = &v->spelling };
}

static quip_status load_tokenizer(struct conversion *v)
{
    quip_status status = import_tokenizer(v);
    if (status)
        return status;
    const struct prompt_tokens prompt = prompt_of(v);
    qp_settle_bos(&v->hparams, &prompt);
    // open it now, so that errors appear before an hour of writing
    status = qp_tokenizer_open(&v->tokenizer, v->imported.spm.data, v->imported.spm.n,
                               v->imported.bpe.n ? v->imported.bpe.data : NULL, v->imported.bpe.n,
                               v->error);
    if (status)
        return qp_fail_in(v->error, status, v->options->tokenizer ? v->options->tokenizer : v->in);
    if (qp_tokenizer_n_tokens(v->tokenizer) > v->hparams.raw.vocab_size)
        return qp_fail(
            v->error, QUIP_E_FORMAT,
            "%s: its tokenizer has %d pieces; must be at most %d, the rows of its embedding", v->in,
            qp_tokenizer_n_tokens(v->tokenizer), v->hparams.raw.vocab_size);
    return settle_turns(v);
}

/* ---- declare ---- */

/* The name of the job's tensor in the model file. */
static void print_target(char name[MAX_NAME], const struct job *job)
{
    const int n = snprintf(name, MAX_NAME, "params.lm.");
    snprintf(name + n, MAX_NAME - (size_t)n, job->row->target, job->layer);
}

/* Whether what rounding leaves of the matrix is stored, too. The first tokens of a causal text
 * have the largest numbers, and all others attend to them. A small error there may change whether a
 * token has such numbers, and then the whole embedding (docs/embeddings.md). */
static bool keeps_rest(const struct conversion *v, const struct job *job)
{
    const struct convert_options *o = v->options;
    const enum weight_class weight_class = job->row->weight_class;
    return v->embedding && !v->hparams.raw.traits.is_bidirectional &&
           job->stored.dtype == DTYPE_I8 && !o->is_original && !o->is_mse &&
           !(job->row->needs & IF_EXPERTS) &&
           (weight_class == CLASS_ATTENTION || weight_class == CLASS_FEED_FORWARD ||
            weight_class == CLASS_EMBEDDING);
}

static quip_status declare_tensor(struct conversion *v, struct job *job)
{
    char name[MAX_NAME];
    const bool is_layer_norm =
        job->row->weight_class == CLASS_NORM && v->hparams.raw.traits.norm == NORM_LAYER;
    print_target(name, job);
    job->stored.has_rest = keeps_rest(v, job);
    v->total_bytes += qp_stored_bytes(&job->stored);
    const quip_status status =
        job->row->cols == EXTENT_NONE
            ? qp_store_declare_vector(v->writer, &job->stored, name, is_layer_norm, v->error)
            : qp_store_declare(v->writer, &job->stored, name, v->error);
    return qp_fail_in(v->error, status, v->in);
}

static quip_status declare_chat(struct conversion *v)
{
    quip_status status = QUIP_OK;
    char name[100] = "quip.chat_tokens";
    if (v->chat.n > 0)
        status = qp_tflite_writer_metadata(v->writer, name, v->chat.tokens.data, v->chat.tokens.n,
                                           v->error);
    for (int i = 0; i < v->chat.n && !status; i++) {
        const struct chat_source *source = &v->chat.list[i];
        snprintf(name, sizeof name, "quip.chat_template%s%s", source->name[0] ? "." : "",
                 source->name);
        if (source->source.n)
            status = qp_tflite_writer_metadata(v->writer, name, source->source.data,
                                               source->source.n, v->error);
    }
    return status;
}

static quip_status declare_metadata(struct conversion *v, uint32_t model_type)
{
    struct bytes parameters = { 0 }, config = { 0 }, sampling = { 0 };
    const struct sampling_defaults draws =
        v->embedding ? qp_sampling_absent() : qp_sampling_of_checkpoint(&v->checkpoint);
    quip_status status = QUIP_OK;
    if (!qp_write_llm_parameters(&v->hparams, v->tokenizer, v->options->for_gpu, &parameters) ||
        !qp_write_quip_config(&v->hparams, &config) || !qp_write_quip_sampling(&draws, &sampling))
        status = qp_fail_memory(v->error, "the metadata", parameters.n + config.n);
    const struct {
        const char *name;
        const void *data;
        size_t n;
    } entries[] = {
        { "odml.infra.proto.LlmParameters", parameters.data, parameters.n },
        { "backend", v->options->for_gpu ? "gpu" : "cpu", 3 },
        { "quip.config", config.data, config.n },
        { "quip.sampling", sampling.data, sampling.n },
        { "spm_vocab_model", v->imported.spm.data, v->imported.spm.n },
        { "quip.tokenizer", v->imported.bpe.data, v->imported.bpe.n },
    };
    if (!status)
        status = qp_tflite_writer_value(v->writer, "odml.infra.LlmModelType", model_type, v->error);
    for (size_t i = 0; i < QP_COUNT(entries) && !status; i++)
        if (entries[i].n)
            status = qp_tflite_writer_metadata(v->writer, entries[i].name, entries[i].data,
                                               entries[i].n, v->error);
    if (!status)
        status = declare_chat(v);
    qp_bytes_close(&parameters);
    qp_bytes_close(&config);
    qp_bytes_close(&sampling);
    return status;
}

/* Say what a session will not do although the checkpoint recommends it. */
static quip_status note_sampling(const struct conversion *v)
{
    struct bytes names = { 0 };
    if (v->embedding)
        return QUIP_OK;
    const bool ok = qp_sampling_left_out(&v->checkpoint, &names);
    if (ok && names.n > 0)
        qp_convert_note(v->options,
                        "%s: tokens are drawn without its %.*s, which Quip does not have",
                        v->checkpoint.path, (int)names.n, (const char *)names.data);
    qp_bytes_close(&names);
    return ok ? QUIP_OK : qp_fail_memory(v->error, "a note", names.n);
}

static quip_status declare(struct conversion *v, struct tflite_writer **writer)
{
    const struct hparams *h = &v->hparams;
    const struct model_type *type =
        v->options->model_type
            ? qp_model_type_named(v->options->model_type)
            : qp_model_type_sized(qp_family_id(h->raw.family), h->raw.n_layers, h->raw.d_model);
    if (type && qp_family(type->family) != h->raw.family)
        return qp_fail(v->error, QUIP_E_ARGUMENT, "%s: is a %s model, not a %s", v->in,
                       h->raw.family->name, type->title);
    quip_status status =
        qp_tflite_writer_open(writer, v->out, type ? type->title : h->source->title, v->error);
    v->writer = *writer;
    if (!status && v->options->for_gpu)
        qp_tflite_writer_for_gpu(v->writer);
    for (int i = 0; i < v->plan.n_jobs && !status; i++)
        status = declare_tensor(v, &v->plan.jobs[i]);
    if (!status && v->embedding)
        status = qp_embedding_source_declare(v->embedding, v->writer, v->error);
    if (!status)
        status = declare_metadata(v, type ? (uint32_t)type->id : 0);
    return status ? status : note_sampling(v);
}

/* ---- zeros ----
 * An incomplete download may have its full size, with zeros where bytes are missing. A model may
 * have single matrices of zeros, but neither its embedding nor all matrices of its layers are. */

static bool are_zero(const float *values, int64_t n)
{
    int64_t i = 0;
    while (i < n && values[i] == 0)
        i++;
    return i == n;
}

static quip_status fail_zeros(const struct conversion *v, const struct job *job, const char *what)
{
    return qp_fail(v->error, QUIP_E_FORMAT,
                   "%s: %s%s (%s) has only zeros; is the download incomplete? Download the file "
                   "again",
                   v->in, what, job->stored.source, qp_dtype_name(job->entry->tensor->dtype));
}

static quip_status count_zeros(struct conversion *v, const struct job *job, bool is_zero)
{
    const enum weight_class weight_class = job->row->weight_class;
    if (weight_class == CLASS_EMBEDDING && is_zero)
        return fail_zeros(v, job, "");
    if (weight_class == CLASS_ATTENTION || weight_class == CLASS_FEED_FORWARD) {
        v->n_layer_matrices++;
        v->n_zero_matrices += is_zero;
    }
    return QUIP_OK;
}

/* After the last tensor. */
static quip_status check_layers(const struct conversion *v)
{
    const struct job *job = v->plan.jobs;
    if (v->n_layer_matrices == 0 || v->n_zero_matrices < v->n_layer_matrices)
        return QUIP_OK;
    while (job->row->weight_class != CLASS_ATTENTION &&
           job->row->weight_class != CLASS_FEED_FORWARD)
        job++;
    return fail_zeros(v, job, "each matrix of its layers, such as ");
}

/* ---- stream ---- */

/* Embeddings of short texts suffer from rounding. So int8 matrices of a layer are rounded for the
 * inputs that they have. */
static quip_status find_factor(struct conversion *v, struct job *job)
{
    const struct convert_options *o = v->options;
    const enum weight_class weight_class = job->row->weight_class;
    char name[MAX_NAME];
    quip_status status = QUIP_OK;
    if (!v->embedding || job->stored.dtype != DTYPE_I8 || o->is_original || o->is_mse ||
        (weight_class != CLASS_ATTENTION && weight_class != CLASS_FEED_FORWARD))
        return QUIP_OK;
    if (!v->inputs)
        status = qp_embedding_inputs_open(&v->inputs, v->in, v->out, o, v->error);
    print_target(name, job);
    return status ? status
                  : qp_embedding_inputs_find(v->inputs, name, &job->stored.factor, v->error);
}

static quip_status stream_tensor(struct conversion *v, struct job *job)
{
    assert(v->writer);
    const struct convert_options *o = v->options;
    const int64_t step = qp_rows_at_a_time(job);
    const struct stored *s = &job->stored;
    bool is_zero = true;
    const quip_status found = find_factor(v, job);
    if (found)
        return found;
    for (int64_t begin = 0; begin < s->rows; begin += step) {
        const int64_t n = s->rows - begin < step ? s->rows - begin : step;
        const float *values;
        quip_status status = qp_rows_read(&v->rows, job, begin, n, &values, v->error);
        if (!status)
            status = qp_fail_in(v->error,
                                qp_store_floats(v->writer, s, &v->slab, begin, n, values, v->error),
                                v->in);
        if (status)
            return status;
        is_zero = is_zero && are_zero(values, n * s->cols);
        v->done_bytes += qp_stored_bytes(s) / (uint64_t)s->rows * (uint64_t)n;
        if (o->on_progress && !o->on_progress(o->user, v->done_bytes, v->total_bytes, s->source))
            return qp_fail(v->error, QUIP_E_CANCELLED, "the conversion was stopped");
    }
    return count_zeros(v, job, is_zero);
}

quip_status qp_conversion_write(struct conversion *v)
{
    assert(v->plan.n_jobs > 0 && v->rows.max_values > 0);
    quip_status status = qp_slab_open(&v->slab, v->rows.max_values, v->rows.max_rows, v->error);
    for (int i = 0; i < v->plan.n_jobs && !status; i++)
        status = stream_tensor(v, &v->plan.jobs[i]);
    if (!status)
        status = check_layers(v);
    if (!status && v->embedding)
        status = qp_embedding_source_write(v->embedding, v->writer, v->error);
    return status ? status : qp_checkpoint_check(&v->checkpoint, v->error);
}

/* ---- open and close ---- */

static quip_status check_sources(const struct sources *s, const char *out, quip_error *error)
{
    for (int i = 0; i < s->n; i++)
        if (qp_path_is_same(s->paths[i], out))
            return qp_fail(error, QUIP_E_ARGUMENT,
                           "%s: is a file of the checkpoint; write to another file", out);
    return QUIP_OK;
}

/* Fill a conversion whose first fields are set. */
static quip_status read_checkpoint(struct conversion *v)
{
    quip_status status = qp_checkpoint_open(&v->checkpoint, v->in, v->options, v->error);
    if (!status)
        status = check_sources(&v->checkpoint.sources, v->out, v->error);
    if (!status)
        status = v->checkpoint.is_gguf ? qp_hparams_from_gguf(&v->hparams, &v->checkpoint, v->error)
                                       : qp_hparams_from_hf(&v->hparams, &v->checkpoint, v->error);
    if (!status && !v->checkpoint.is_gguf)
        status = qp_settle_head(&v->checkpoint, &v->hparams, v->error);
    if (!status)
        status = load_tokenizer(v);
    if (!status)
        status = qp_embedding_source_open(&v->embedding, &v->checkpoint, &v->hparams, v->options,
                                          v->error);
    const struct prompt_tokens prompt = prompt_of(v);
    if (!status && !v->embedding)
        status = qp_check_prompt(&v->hparams, &prompt, v->error);
    if (!status)
        qp_note_special_tokens(&prompt);
    if (!status && v->embedding)
        qp_settle_no_head(&v->checkpoint, &v->hparams);
    v->hparams.raw.traits.mixes_inputs =
        v->embedding && v->options->weights != CONVERT_F32; // before integers
    if (!status && v->embedding && v->options->for_gpu)
        status = qp_fail(v->error, QUIP_E_UNSUPPORTED,
                         "%s: is an embedding model, which MediaPipe's GPU engines cannot run; "
                         "convert it without --backend gpu",
                         v->in);
    if (!status && v->hparams.raw.d_ple > 0 && v->options->for_gpu)
        status = qp_fail(v->error, QUIP_E_UNSUPPORTED,
                         "%s: has per-layer embeddings, which files for GPUs cannot have; convert "
                         "it without --backend gpu",
                         v->in);
    if (!status)
        status = qp_plan_make(&v->plan, &v->checkpoint, &v->hparams, v->options, v->error);
    if (!status && v->options->merge_adapter)
        status = qp_lora_merge_open(&v->merge, v->options->merge_adapter, &v->plan, &v->hparams,
                                    v->error);
    if (!status)
        status = qp_rows_open(&v->rows, &v->checkpoint, &v->hparams, &v->plan, v->merge, v->error);
    return status;
}

quip_status qp_conversion_open(struct conversion **conversion, struct tflite_writer **writer,
                               const char *in, const char *out,
                               const struct convert_options *options, quip_error *error)
{
    struct conversion *v = *conversion = calloc(1, sizeof *v);
    if (!v)
        return qp_fail_memory(error, "a conversion", sizeof *v);
    v->in = in;
    v->out = out;
    v->options = options;
    v->error = error;
    const quip_status status = read_checkpoint(v);
    return status ? status : declare(v, writer);
}

void qp_conversion_close(struct conversion *v)
{
    if (!v)
        return;
    qp_tokenizer_close(v->tokenizer);
    qp_chat_sources_close(&v->chat);
    qp_bytes_close(&v->spelling.text);
    qp_bytes_close(&v->imported.spm);
    qp_bytes_close(&v->imported.bpe);
    qp_checkpoint_close(&v->checkpoint);
    qp_plan_close(&v->plan);
    qp_embedding_source_close(v->embedding);
    qp_embedding_inputs_close(v->inputs);
    qp_rows_close(&v->rows);
    qp_lora_merge_close(v->merge);
    qp_slab_close(&v->slab);
    free(v);
}

quip_status qp_conversion_run(const char *in, const char *out,
                              const struct convert_options *options, quip_error *error)
{
    struct conversion *v = NULL;
    struct tflite_writer *writer = NULL;
    quip_status status = qp_conversion_open(&v, &writer, in, out, options, error);
    if (!status)
        status = qp_tflite_writer_begin(writer, error);
    if (!status)
        status = qp_conversion_write(v);
    if (!status)
        status = qp_tflite_writer_commit(writer, error);
    qp_tflite_writer_close(writer);
    qp_conversion_close(v);
    return status;
}

struct convert_options qp_conversion_reading(const struct convert_options *options)
{
    return (struct convert_options){ .weights = CONVERT_F32,
                                     .model_type = options->model_type,
                                     .format = options->format,
                                     .tokenizer = options->tokenizer,
                                     .pooling = options->pooling,
                                     .merge_adapter = options->merge_adapter,
                                     .chat = options->chat };
}

quip_status qp_conversion_open_floats(quip_model **model, const char *in, const char *out,
                                      const struct convert_options *options, quip_error *error)
{
    const size_t n = strlen(out) + sizeof ".reference";
    char *path = malloc(n);
    struct convert_options o = qp_conversion_reading(options);
    quip_status status = QUIP_OK;
    o.on_progress = options->on_progress;
    o.user = options->user;
    if (!path)
        return qp_fail_memory(error, "a path", n);
    snprintf(path, n, "%s.reference", out);
    if (qp_path_exists(path))
        status = qp_fail(
            error, QUIP_E_IO,
            "%s: exists, but the temporary float32 file needs this name; move or remove it", path);
    else if (!(status = qp_conversion_run(in, path, &o, error))) {
        status = quip_model_open(model, path, &(quip_model_options){ .backend = QUIP_BACKEND_CPU },
                                 error);
        unlink(path);
    }
    free(path);
    return status;
}
