/* sample_checkpoint.h: one small model, made from a seed, written like published checkpoints: a
 * GGUF, or a Hugging Face folder with safetensors and a SentencePiece tokenizer. */
#ifndef SAMPLE_CHECKPOINT_H
#define SAMPLE_CHECKPOINT_H

#include "model/families_convert.h"

enum {
    N_LAYERS = 2,
    D_MODEL = 24,
    D_FF = 40,
    N_HEADS = 4,
    N_KV_HEADS = 2,
    HEAD_DIM = 8,
    ROPE_DIM = 4, // if not all of HEAD_DIM
    VOCAB = 280,  // rows of the embedding; the tokenizer has fewer pieces
    MAX_VALUES = VOCAB * D_MODEL,
};

/* Its variants: the architecture, and whether the head is tied to the embedding. */
struct sample {
    const char *architecture;
    enum family_id family;
    bool is_tied;
};
extern const struct sample sample_llama_tied;
extern const struct sample sample_llama_untied;
extern const struct sample sample_gemma3;
extern const struct sample sample_phi2;
extern const struct sample sample_stablelm;
bool has_layer_norm(const struct sample *s);

/* One tensor of the sample, with Hugging Face's names and values. */
struct sample_tensor {
    const struct tensor_row *row;
    char hf[80], gguf[80], target[120];
    int rows, cols;
    float values[MAX_VALUES];
};

typedef void on_sample_tensor(void *user, const struct sample_tensor *t);
/* Call fn for every tensor of the sample. */
void each_sample_tensor(const struct sample *s, on_sample_tensor *fn, void *user);

/* ---- its files ---- */

/* Before and after a test: a folder for the test, with an empty folder hf in it. */
int make_sample_folder(void **state);
int drop_sample_folder(void **state);
/* A path in the test's folder, valid until the fourth call from now. */
const char *in_folder(const char *name);
void write_file(const char *name, const void *data, size_t n);
void write_text(const char *name, const char *text);
/* Fail if the folder contains anything except in.gguf and hf, such as a temporary file. */
void assert_no_output(void);

/* How a GGUF file differs from the sample. */
struct gguf;
struct gguf_options {
    const char *name; // of the file; in.gguf if NULL
    const char *skip; // keys of the sample that are left out, each between commas: ",a,b,"
    const char *skip_tensor;
    bool zeroes_layers;           // every matrix of the layers
    bool fuses_qkv;               // q, k and v of a layer are one tensor
    void (*more)(struct gguf *g); // adds entries and tensors; may be NULL
    int part, n_parts; // write the tensors of this part only; parts after the first have no
                       // metadata but split.*
};

/* in.gguf, with the peculiarities of real files: norms with 1 added, llama's q and k rows in pairs.
 */
void write_gguf(const struct sample *s);
void write_gguf_as(const struct sample *s, const struct gguf_options *options);

/* How the folder differs from the sample. */
struct folder_options {
    const char *dtype;           // "F32" (if NULL) or "BF16"
    const char *skip, *misshape; // names of tensors
    const char *extra;           // name of one more tensor, [2]
    int part, n_parts;           // write only every n_parts-th tensor, starting with `part`
};

/* hf/: all of config.json, tokenizer.model and model.safetensors, or only one of them. */
void write_folder(const struct sample *s, const struct folder_options *options);
void write_config(const struct sample *s);
void write_safetensors(const struct sample *s, const char *name,
                       const struct folder_options *options);

/* ---- a GGUF by hand ---- */

enum {
    GGUF_TYPE_U32 = 4,
    GGUF_TYPE_I32 = 5,
    GGUF_TYPE_F32 = 6,
    GGUF_TYPE_BOOL = 7,
    GGUF_TYPE_TEXT = 8,
    GGUF_TYPE_LIST = 9
};

struct gguf {
    struct bytes metadata, infos, data;
    int n_metadata, n_tensors, n_seen;
    const struct sample *sample;
    const struct gguf_options *options;
    size_t entry_begin;
    bool is_skipped; // the entry that begins there
    bool has_all;    // the sample's own entries; nothing after them is skipped
};

void gguf_u32(struct gguf *g, const char *key, uint32_t value);
void gguf_f32(struct gguf *g, const char *key, float value);
void gguf_bool(struct gguf *g, const char *key, bool value);
void gguf_text(struct gguf *g, const char *key, const char *value);
void gguf_list(struct gguf *g, const char *key, uint32_t type, int n);
/* A tensor of zeros [rows, cols] ([rows] if cols is 0) of a ggml_type with n_bytes bytes. */
void gguf_zeros(struct gguf *g, const char *name, int rows, int cols, uint32_t type,
                size_t n_bytes);
/* A tensor of floats. */
void gguf_floats(struct gguf *g, const char *name, int rows, int cols, const float *values);
/* Write the file and empty `g`. */
void save_gguf(struct gguf *g, const char *path);
/* Little endian, like the machines that run the tests. */
void put_bytes(struct bytes *b, const void *data, size_t n);
void put_u32(struct bytes *b, uint32_t x);
void put_u64(struct bytes *b, uint64_t x);
void put_text(struct bytes *b, const char *text);

#endif
