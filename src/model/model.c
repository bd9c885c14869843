/* model.c: open and close a model.
 * In:  a model file, or a bundle that contains one.
 * Out: its header, tokenizer, config and weights, which are read in this order. */
#include "model/model.h"
#include "format/bundle.h"

#include <stdlib.h>
#include <string.h>

/* The parts of a bundle are used directly from its file. */
static quip_status find_weights(quip_model *m, quip_error *error)
{
    const struct file *f = &m->file;
    if (!qp_bundle_matches(f)) {
        m->weights_file = *f; // one file; only m->file is closed
        return QUIP_OK;
    }
    quip_status status = qp_bundle_open(&m->bundle, f, error);
    m->weights_file = m->bundle.model;
    return status;
}

static quip_status open_format(quip_model *m, quip_error *error)
{
    quip_status status = qp_format_open(&m->format, &m->weights_file, error);
    if (status)
        return status;
    if (m->format.kind == FORMAT_TFLITE) {
        if (qp_format_find_metadata(&m->format, "lora_rank"))
            return qp_fail(error, QUIP_E_FORMAT,
                           "%s: has LoRA weights, not a model; open it as an adapter of its model",
                           m->file.name);
        return QUIP_OK;
    }
    if (m->format.kind == FORMAT_LITERTLM)
        return qp_litertlm_refuse(&m->format, error);
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s is a %s checkpoint, not a model file; convert it first: quip convert %s "
                   "model.bin --weights int8",
                   m->file.name, m->format.kind == FORMAT_GGUF ? "GGUF" : "safetensors",
                   m->file.name);
}

/* MediaPipe's files of byte-level BPE models have no merges, only the pieces in GPT-2's spelling.
 * Only the model type says so. */
static bool spells_bytes(const quip_model *m)
{
    const struct model_type *type = qp_model_type_of_file(&m->format);
    return type && type->spells_bytes;
}

struct blob {
    const uint8_t *data;
    size_t n;
};

/* A metadata entry of the model file as bytes; blob->data is NULL if there is none. */
static quip_status find_blob(quip_model *m, const char *name, struct blob *blob, quip_error *error)
{
    const struct metadata *entry = qp_format_find_metadata(&m->format, name);
    *blob = (struct blob){ 0 };
    if (!entry || entry->type != METADATA_BYTES)
        return QUIP_OK;
    return qp_format_bytes(&m->format, entry, &blob->data, &blob->n, error);
}

/* The tokenizer of a bundle replaces that of its model file. `quip.tokenizer` of the model file is
 * used only with the model file's own vocabulary. */
static quip_status open_tokenizer(quip_model *m, quip_error *error)
{
    const struct file *bundled = &m->bundle.tokenizer;
    struct blob spm, bpe;
    quip_status status;
    if ((status = find_blob(m, "spm_vocab_model", &spm, error)) ||
        (status = find_blob(m, "quip.tokenizer", &bpe, error)))
        return status;
    if (bundled->data &&
        !(spm.data && spm.n == bundled->size && memcmp(spm.data, bundled->data, spm.n) == 0)) {
        spm = (struct blob){ bundled->data, (size_t)bundled->size };
        bpe = (struct blob){ 0 };
    }
    if (!spm.data)
        return qp_fail(error, QUIP_E_FORMAT,
                       "%s: has no spm_vocab_model metadata (the tokenizer); convert it with "
                       "--tokenizer, or put it into a bundle with one",
                       m->file.name);
    status = qp_tokenizer_open(&m->tokenizer, spm.data, spm.n, bpe.data, bpe.n, error);
    return qp_fail_in(error, status, m->file.name);
}

static quip_status read_sampling(quip_model *m, quip_error *error)
{
    struct blob text;
    const quip_status status = find_blob(m, "quip.sampling", &text, error);
    return status || !text.data ? status
                                : qp_sampling_read(&m->sampling, (const char *)text.data, text.n,
                                                   m->file.name, error);
}

quip_status qp_model_open(quip_model **model, struct file *file, const quip_model_options *options,
                          quip_error *error)
{
    quip_model *m = calloc(1, sizeof *m);
    quip_status status;
    *model = NULL;
    if (!m) {
        qp_file_close(file);
        return qp_fail_memory(error, "a model", sizeof *m);
    }
    m->n_references = 1;
    m->file = *file;
    if (options)
        m->options = *options;
    if (m->options.backend == QUIP_BACKEND_AUTO)
        m->options.backend = QUIP_BACKEND_CPU; // until the engine chooses (engine/auto.c)
    m->options.name = NULL;                    // the caller's text may be freed
    const bool is_loaded = !m->options.no_weights && !file->data;
    if ((status = is_loaded ? qp_file_load(&m->file, error) : QUIP_OK) ||
        (status = find_weights(m, error)) || (status = open_format(m, error)) ||
        (status = open_tokenizer(m, error)) || (status = qp_config_read(m, error)) ||
        (status = qp_model_read_template(m, error)) || (status = qp_weights_bind(m, error)) ||
        (status = qp_embedding_read(m, error)) || (status = read_sampling(m, error)) ||
        (status = qp_file_check(&m->file, error))) {
        qp_model_release(m);
        return status;
    }
    if (m->prompts.spells_bytes || spells_bytes(m))
        qp_tokenizer_spell_bytes(m->tokenizer);
    *model = m;
    return QUIP_OK;
}

void qp_model_retain(quip_model *model)
{
    atomic_fetch_add(&model->n_references, 1);
}

void qp_model_release(quip_model *m)
{
    if (!m || atomic_fetch_sub(&m->n_references, 1) != 1)
        return;
    if (m->device)
        m->close_device(m->device);
    qp_tokenizer_close(m->tokenizer);
    qp_format_close(&m->format);
    qp_arena_close(&m->arena);
    qp_arena_close(&m->untiled);
    qp_bytes_close(&m->chat_text);
    qp_jinja_close(m->jinja);
    qp_bytes_close(&m->jinja_tokens);
    qp_embedding_close(&m->embedding);
    qp_bytes_close(&m->prompts.stop_texts);
    qp_bundle_close(&m->bundle);
    qp_file_close(&m->file);
    free(m->name);
    free(m);
}
