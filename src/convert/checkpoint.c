/* checkpoint.c: a checkpoint on disk.
 * In:  a path that sources.c understands: GGUF, or safetensors or PyTorch files with config.json
 *      beside them.
 * Out: its tensors as one sorted list, and the JSON files beside them.
 *
 * Weights are read, not mapped: the pages of a mapped checkpoint would count as memory of this
 * process, and converting a large model would seem to need as much memory as loading it. */
#define _POSIX_C_SOURCE 200809L // pread
#define _FILE_OFFSET_BITS 64    // past 2 GB on 32-bit machines
#include "convert/checkpoint.h"
#include "convert/json.h"
#include "model/families_convert.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

bool qp_path_is_model_file(const char *path)
{
    char head[8] = "";
    FILE *f = qp_path_is_folder(path) ? NULL : fopen(path, "rb");
    bool is_read = f && fread(head, sizeof head, 1, f) == 1;
    if (f)
        fclose(f);
    return is_read && memcmp(head + 4, "TFL3", 4) == 0;
}

/* ---- shards ---- */

static bool read_shard(void *user, uint64_t offset, void *buffer, size_t n)
{
    const struct shard *s = user;
    uint8_t *to = buffer;
    while (n > 0) {
        ssize_t got = pread(s->fd, to, n, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        to += got;
        offset += (uint64_t)got;
        n -= (size_t)got;
    }
    return true;
}

quip_status qp_shard_open(struct shard *s, const char *path, quip_error *error)
{
    struct stat st;
    *s = (struct shard){ .fd =
                             open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK) }; // a FIFO may not wait
    if (s->fd < 0 || fstat(s->fd, &st) < 0)
        return qp_fail_open(error, path);
    if (!S_ISREG(st.st_mode))
        return qp_fail(error, QUIP_E_IO, "%s: is not a regular file", path);
    s->stamp = qp_file_stamp(s->fd);
    quip_source source = {
        .user = s, .size = (uint64_t)st.st_size, .read_at = read_shard, .name = path
    };
    quip_status status = qp_file_open_source(&s->file, &source, error);
    return status ? status : qp_format_open_with(&s->format, &s->file, &qp_pytorch_reader, error);
}

void qp_shard_close(struct shard *s)
{
    qp_format_close(&s->format);
    qp_file_close(&s->file);
    if (s->fd >= 0)
        close(s->fd);
    *s = (struct shard){ .fd = -1 };
}

/* Whether a file can be part of a checkpoint, and has the format that the options name. */
static quip_status check_kind(const struct checkpoint *c, const struct shard *s, const char *format,
                              quip_error *error)
{
    static const char *const names[] = {
        [FORMAT_GGUF] = "gguf", [FORMAT_SAFETENSORS] = "safetensors", [FORMAT_PYTORCH] = "pytorch"
    };
    if (s->format.kind == FORMAT_LITERTLM)
        return qp_litertlm_refuse(&s->format, error);
    if (s->format.kind == FORMAT_TFLITE)
        return qp_fail(error, QUIP_E_FORMAT, "%s: is a model file, expected a file of a checkpoint",
                       s->file.name);
    if (s->format.kind != FORMAT_GGUF && c->shards[0].format.kind == FORMAT_GGUF)
        return qp_fail(error, QUIP_E_FORMAT, "%s: is %s, expected GGUF as the first file",
                       s->file.name, names[s->format.kind]);
    if (format && strcmp(names[s->format.kind], format) != 0)
        return qp_fail(error, QUIP_E_ARGUMENT, "%s: is %s, expected %s as in the options",
                       s->file.name, names[s->format.kind], format);
    return QUIP_OK;
}

static quip_status open_shards(struct checkpoint *c, const char *format, quip_error *error)
{
    quip_status status = QUIP_OK;
    const size_t n = (size_t)c->sources.n;
    c->shards = calloc(n, sizeof *c->shards);
    if (!c->shards)
        return qp_fail_memory(error, "the list of files", n * sizeof *c->shards);
    while (c->n_shards < c->sources.n && !status) {
        struct shard *s = &c->shards[c->n_shards++];
        status = qp_shard_open(s, c->sources.paths[c->n_shards - 1], error);
        if (!status)
            status = check_kind(c, s, format, error);
        if (!status && s->format.kind == FORMAT_GGUF)
            status = qp_check_gguf_types(&s->format, error);
    }
    c->is_gguf = !status && n > 0 && c->shards[0].format.kind == FORMAT_GGUF;
    return status;
}

/* The JSON beside the weights; config.json may be a model type's own. */
static quip_status read_folder_json(struct checkpoint *c, const char *model_type, quip_error *error)
{
    const char *folder = c->sources.folder;
    quip_status status;
    if ((status = qp_json_in_folder(&c->config, folder, "config.json", error)) ||
        (status =
             qp_json_in_folder(&c->generation_config, folder, "generation_config.json", error)) ||
        (status = qp_json_in_folder(&c->tokenizer_config, folder, "tokenizer_config.json", error)))
        return status;
    if (!c->config && model_type)
        c->config = cJSON_Parse(qp_model_type_config(model_type));
    if (c->config)
        return QUIP_OK;
    return qp_fail(
        error, QUIP_E_FORMAT,
        "%s: has no config.json; a checkpoint is a GGUF file or a Hugging Face folder, or "
        "else its --model-type must be given",
        folder);
}

/* ---- the list of tensors ---- */

/* Whether the key is `name`, or ends with it after a dot. */
static bool is_last_name(const char *key, const char *name)
{
    const size_t n = strlen(key), n_name = strlen(name);
    return n >= n_name && strcmp(key + n - n_name, name) == 0 &&
           (n == n_name || key[n - n_name - 1] == '.');
}

/* Whether a tensor does not belong to the language model, or is not a weight: what follows from the
 * config, the causal mask, and the scales of a quantized KV cache. transformers skips them, too. */
static bool is_ignored(const char *key, const struct tensor *t)
{
    static const char *const prefixes[] = {
        "vision_tower.", "vision_model.", "multi_modal_projector.",
        "audio_tower.",  "embed_vision.", "embed_audio.",
        "pooler.",       "cls.",          "embeddings.position_ids"
    };
    static const char *const names[] = { "rotary_emb.inv_freq",   "rotary_emb.cos_cached",
                                         "rotary_emb.sin_cached", "masked_bias",
                                         "self_attn.k_scale",     "self_attn.v_scale",
                                         "k_proj.output_scale",   "v_proj.output_scale" };
    for (size_t i = 0; i < QP_COUNT(prefixes); i++)
        if (strncmp(key, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    for (size_t i = 0; i < QP_COUNT(names); i++)
        if (is_last_name(key, names[i]))
            return true;
    return t->n_dims == 4 &&
           (is_last_name(key, "attn.bias") || is_last_name(key, "attention.bias"));
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->key, ((const struct entry *)b)->key);
}

static quip_status list_entries(struct checkpoint *c, quip_error *error)
{
    size_t n = 0;
    for (int i = 0; i < c->n_shards; i++)
        n += (size_t)c->shards[i].format.n_tensors;
    c->entries = calloc(n ? n : 1, sizeof *c->entries);
    if (!c->entries)
        return qp_fail_memory(error, "the list of tensors", n * sizeof *c->entries);
    for (int i = 0; i < c->n_shards; i++) {
        const struct format *f = &c->shards[i].format;
        for (int j = 0; j < f->n_tensors; j++) {
            const struct tensor *t = &f->tensors[j];
            const char *key = c->is_gguf ? t->name : qp_name_unwrap(t->name);
            if (c->is_gguf || !is_ignored(key, t))
                c->entries[c->n_entries++] = (struct entry){ .key = key, .tensor = t, .format = f };
        }
    }
    qsort(c->entries, (size_t)c->n_entries, sizeof *c->entries, compare_entries);
    return QUIP_OK;
}

struct entry *qp_checkpoint_find(const struct checkpoint *c, const char *name)
{
    assert(c->entries);
    struct entry key = { .key = c->is_gguf ? name : qp_name_unwrap(name) };
    return bsearch(&key, c->entries, (size_t)c->n_entries, sizeof *c->entries, compare_entries);
}

void qp_checkpoint_rename(struct checkpoint *c, struct entry *e, const char *name)
{
    assert(e >= c->entries && e < c->entries + c->n_entries);
    e->key = c->is_gguf ? name : qp_name_unwrap(name);
    qsort(c->entries, (size_t)c->n_entries, sizeof *c->entries, compare_entries);
}

/* transformers would load the adapter too, and its base from elsewhere. */
static quip_status check_adapter_beside(const struct checkpoint *c,
                                        const struct convert_options *options, quip_error *error)
{
    static const char *const weights[] = { "adapter_model.safetensors", "adapter_model.bin" };
    bool has_adapter = false;
    if (options->merge_adapter || c->is_gguf || !qp_path_is_folder(c->path))
        return QUIP_OK;
    for (size_t i = 0; i < QP_COUNT(weights); i++) {
        char *path = qp_path_join(c->path, weights[i]);
        if (!path)
            return qp_fail_memory(error, "a path", strlen(c->path));
        has_adapter |= qp_path_exists(path);
        free(path);
    }
    if (!has_adapter)
        return QUIP_OK;
    return qp_fail(error, QUIP_E_UNSUPPORTED,
                   "%s: has a model and an adapter for it; add --merge-adapter %s, or move the "
                   "adapter to a folder of its own",
                   c->path, c->path);
}

quip_status qp_checkpoint_open(struct checkpoint *c, const char *path,
                               const struct convert_options *options, quip_error *error)
{
    *c = (struct checkpoint){ .path = path };
    quip_status status = qp_sources_find(&c->sources, path, options->format, error);
    if (!status)
        status = qp_choose_gguf(&c->sources, error);
    if (!status)
        status = open_shards(c, options->format, error);
    if (!status)
        status = check_adapter_beside(c, options, error);
    if (!status && !c->is_gguf)
        status = read_folder_json(c, options->model_type, error);
    if (!status)
        status = list_entries(c, error);
    if (status)
        qp_checkpoint_close(c);
    return status;
}

/* Programs that download into a file of its final size would otherwise give zeros as weights. */
quip_status qp_checkpoint_check(const struct checkpoint *c, quip_error *error)
{
    for (int i = 0; i < c->n_shards; i++) {
        const struct file_stamp now = qp_file_stamp(c->shards[i].fd);
        if (qp_file_stamp_differs(&c->shards[i].stamp, &now))
            return qp_fail(
                error, QUIP_E_IO,
                "%s: another program wrote to it during the conversion; is it still being "
                "downloaded?",
                c->shards[i].file.name);
    }
    return QUIP_OK;
}

void qp_checkpoint_close(struct checkpoint *c)
{
    for (int i = 0; i < c->n_shards; i++)
        qp_shard_close(&c->shards[i]);
    qp_sources_close(&c->sources);
    free(c->shards);
    free(c->entries);
    cJSON_Delete(c->config);
    cJSON_Delete(c->generation_config);
    cJSON_Delete(c->tokenizer_config);
    *c = (struct checkpoint){ 0 };
}
