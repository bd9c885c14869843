/* convert.h: a published checkpoint -> a model file.
 * In:  a GGUF file; a Hugging Face checkpoint (config.json, safetensors or PyTorch files,
 * tokenizer) given by its folder, one of its files or a pattern of file names; or a model file, to
 * change the type of its weights.
 * Out: MediaPipe's model file, which quip_model_open reads (docs/model-format.md).
 *
 * Tensors stream from file to file in slabs of rows, so a conversion needs a few megabytes besides
 * the vocabulary, for models of any size. The core library does not include this folder. */
#ifndef QP_CONVERT_H
#define QP_CONVERT_H

#include "format/format.h"

/* How matrices are stored; vectors stay float32. int8 has one scale per output row; int4 has a
 * multiplier for each 16 values (docs/model-format.md), unless the options ask for a file that
 * MediaPipe reads. */
enum convert_weights {
    CONVERT_INT8,  // everything int8
    CONVERT_MIXED, // attention int8, feed-forward int4, embedding and head int8
    CONVERT_INT4,  // everything int4
    CONVERT_F32,   // not quantized
};
/* By name: "int8", "mixed", "int4", "f32". False if there is no such name. */
bool qp_convert_weights_find(const char *name, enum convert_weights *weights);

/* `done` of `total` bytes of the model file are written; `what` is the current tensor. During
 * calibration they are tokens of the text, and `what` is its path. Return false to stop: the
 * conversion then fails with QUIP_E_CANCELLED. */
typedef bool convert_on_progress(void *user, uint64_t done, uint64_t total, const char *what);

/* A sentence about something in the checkpoint that the model file cannot have, although the
 * conversion succeeds. */
typedef void convert_on_note(void *user, const char *sentence);

/* All-zero means the defaults, and NULL means all-zero. */
struct convert_options {
    enum convert_weights weights;
    /* Bits of one class of matrices, 8 or 4; 0: as `weights` says. */
    int attention_bits, feed_forward_bits, embedding_bits; // the last: embedding and head
    /* Path of a text. For block-wise int4 from a model file: the error of a column is weighted by
     * how much the model uses it while it reads the text. NULL: all columns are equal. */
    const char *calibrate;
    bool is_original; // int4 has one scale for each row, so that MediaPipe can read the file
    /* MediaPipe's other ways to quantize, with the same numbers as its converter. */
    bool is_asymmetric; // a zero point for each row; only for_gpu, CPU files cannot store it
    bool is_mse;        // the scale is computed from the root mean square of a row, not its maximum
    /* 32 or 128, as in MediaPipe's converter. Quip's int4 has smaller blocks anyway; files for
     * MediaPipe have none, so the option is an error there. 0: not given. */
    int block_size;
    bool for_gpu; // MediaPipe's layout for GPUs; false: for CPUs
    /* One of MediaPipe's model types ("GEMMA_2B"), for a checkpoint without config.json. With a
     * config.json, they must agree. NULL: only config.json. */
    const char *model_type;
    /* "safetensors", "pytorch" or "gguf": the format that the checkpoint must have, and which files
     * of a folder are used. NULL: any format. */
    const char *format;
    /* A SentencePiece model, a tokenizer.json or a folder with one of them. NULL: the checkpoint's
     * own tokenizer. */
    const char *tokenizer;
    /* "mean", "first" or "last": the pooling of an embedding model whose checkpoint has no
     * modules.json. NULL: none. */
    const char *pooling;
    const char *merge_adapter; // folder of a PEFT adapter to add to the weights; NULL: none
    /* Compare the new file with the checkpoint: all tensors, and the predictions for verify_text if
     * it is not NULL. Store the report in the file. */
    bool verify;
    const char *verify_text; // path
    const char *chat;        // name of a chat template (tokenizer.h); NULL: the checkpoint's own
    convert_on_progress *on_progress;
    convert_on_note *on_note; // may be NULL
    void *user;
};
/* Say a sentence of at most 600 bytes to on_note, if there is one. */
void qp_convert_note(const struct convert_options *options, const char *format, ...)
    QP_PRINTF(2, 3);

/* Convert the checkpoint or model file `in` to the model file `out`, which appears when it is
 * complete. Every tensor is checked before anything is written; one message names all that are
 * missing, misshapen, doubled or unknown. */
quip_status qp_convert(const char *in, const char *out, const struct convert_options *options,
                       quip_error *error);

/* Convert a PEFT adapter (or another LoRA file) for the model file `model` to a LoRA file for
 * MediaPipe on GPUs. It can change only q, k, v and the output projection; other matrices in the
 * adapter are an error that names them. Alpha is multiplied into the weights. */
quip_status qp_convert_adapter(const char *in, const char *out, const char *model,
                               quip_error *error);

/* ---- the distance of a model file from its source (verify.c) ---- */

/* One tensor, by its name in files for CPUs. Errors are found minus expected. */
struct verify_tensor {
    char name[256];
    int64_t rows, cols;
    double max, rms;
    double relative; // root of the sum of squared errors over that of squared values
    double cosine;
};
struct verify_report {
    struct verify_tensor *tensors;
    int n_tensors;
    double relative; // of all matrices together
    /* Over a text; n_tokens is 0 without. */
    int n_tokens, n_same;   // positions; positions with the same most likely next token
    double mean_kl, max_kl; // KL(first || second), nats
};
struct verify_options {
    const struct convert_options *reading; // how a checkpoint was read; NULL: the defaults
    const char *text;                      // path; NULL: tensors only
    int window, n_windows;                 // of tokens of the text; 0: 512, 4
    convert_on_progress *on_progress;      // in tensors, then in positions of the text
    void *user;
};
/* Compare a model file or checkpoint `a` with the model file `b`. For a text, a checkpoint is
 * converted to a temporary float32 file beside `b`. Close the report after success. */
quip_status qp_verify(const char *a, const char *b, const struct verify_options *options,
                      struct verify_report *report, quip_error *error);
void qp_verify_report_close(struct verify_report *report);
/* The report in a few lines of "key value", as a model file stores it; returns its length. */
int qp_verify_summary(char *to, size_t size, const struct verify_report *r);

/* ---- parts of a checkpoint (pytorch.c, tokenizer_json.c, tokenizer_gguf.c) ---- */

/* Reads PyTorch checkpoints, for qp_format_open_with. */
extern const struct format_reader qp_pytorch_reader;

/* Import only the tokenizer, as a model file stores it: a SentencePiece ModelProto, and in `bpe`
 * the `quip.tokenizer` blob if the model needs one. Both start empty; the caller closes them, also
 * after a failure. A tokenizer_config.json beside the JSON file is read, too. */
quip_status qp_import_tokenizer_json(const char *path, struct bytes *spm, struct bytes *bpe,
                                     quip_error *error);
quip_status qp_import_tokenizer_gguf(struct format *gguf, struct bytes *spm, struct bytes *bpe,
                                     quip_error *error);
/* Whether a prompt begins with bos: what the metadata says, or else what llama.cpp does for such a
 * tokenizer. */
quip_status qp_gguf_adds_bos(struct format *gguf, bool *adds_bos, quip_error *error);

/* ---- .task bundles (bundle.c) ---- */

struct bundle_turn {
    const char *prefix, *suffix; // NULL is ""
};
/* The fields of MediaPipe's bundler. All-zero or NULL: the model's own tokenizer, start and stop
 * tokens and template. */
struct bundle_options {
    const char *tokenizer;   // path of a SentencePiece model
    const char *start_token; // a piece of it; "" is none
    const char *const *stop_tokens;
    int n_stop_tokens;
    bool bytes_to_unicode;     // text is spelled in GPT-2's characters before it is tokenized
    const char *system_prompt; // text before everything; cannot be combined with `system`
    struct bundle_turn user, model, system;
    const char *user_role_token, *system_role_token, *model_role_token, *end_role_token;
    const char *embedder, *per_layer_embedder, *vision_encoder, *vision_adapter; // paths of graphs
    convert_on_progress *on_progress; // counts the bytes of one entry after the other
    void *user_data;
};
/* Put the model file at `model_path` into the bundle `out`, which appears when it is complete. */
quip_status qp_bundle_write(const char *model_path, const char *out,
                            const struct bundle_options *options, quip_error *error);
/* Write each entry of a bundle to a file of its name in `folder`, which is created if necessary. A
 * file appears when it is complete. on_progress may be NULL. */
quip_status qp_bundle_extract(const char *path, const char *folder,
                              convert_on_progress *on_progress, void *user, quip_error *error);

#endif
