/* convert.h: a published checkpoint -> a model file.
 * In:  a GGUF file; a Hugging Face checkpoint (config.json, safetensors or PyTorch files,
 * tokenizer) by its folder, by one of its files or by a pattern of file names; or a model file, to
 * change the type of its weights. Out: the original's CPU model file, which quip_model_open reads
 * (docs/model-format.md). Tensors stream from one file to the other in slabs of rows: memory stays
 * at a few megabytes beside the vocabulary, whatever the model's size. The core library never
 * includes this room. */
#ifndef QP_CONVERT_H
#define QP_CONVERT_H

#include "format/format.h"

/* How matrices are stored; vectors stay float32. int8 has one scale per output row; int4 has a
 * multiplier for each 16 values beside it (docs/model-format.md), unless the options ask for what
 * the original's engine reads. */
enum convert_weights {
    CONVERT_INT8,  // everything int8
    CONVERT_MIXED, // attention int8, feed-forward int4, embedding and head int8
    CONVERT_INT4,  // everything int4
    CONVERT_F32,   // not quantized
};
/* By name: "int8", "mixed", "int4", "f32". False: no such. */
bool qp_convert_weights_find(const char *name, enum convert_weights *weights);

/* `done` of `total` bytes of the model file are written; `what` is the tensor in work. While a text
 * is read first, tokens of it; `what` is its path. Return false to stop: the conversion fails with
 * QUIP_E_CANCELLED. */
typedef bool convert_on_progress(void *user, uint64_t done, uint64_t total, const char *what);

/* All-zero, or NULL in its place, means the defaults. */
struct convert_options {
    enum convert_weights weights;
    /* Bits of one class of matrices, 8 or 4; 0: as `weights` says. */
    int attention_bits, feed_forward_bits, embedding_bits; // the last: embedding and head
    /* A text that int4 is chosen for: columns count as much as the model uses them while it reads
     * it. Only from a model file; NULL: all columns alike. */
    const char *calibrate;
    bool is_original; // int4 has one scale per row, which is all that the original's engine reads
    /* The original's other ways to quantize; each gives the numbers that it gives. */
    bool is_asymmetric; // a zero point per row: only for_gpu, CPU files have no place for it
    bool is_mse;        // the scale comes from the root mean square of a row, not from its maximum
    /* 32 or 128, which the original's converter takes: int4 has finer blocks than these anyway, and
     * files for its engines have none, which is an error. 0: not asked for. */
    int block_size;
    bool for_gpu; // in the original's layout for GPUs; false: for CPUs
    /* One of the original's model types ("GEMMA_2B"), for a checkpoint without config.json; NULL:
     * config.json says everything. With both, they must agree. */
    const char *model_type;
    /* "safetensors", "pytorch" or "gguf": what the checkpoint must be, and of what is taken from a
     * folder that has several; NULL: whatever it is. */
    const char *format;
    /* A SentencePiece model, a tokenizer.json or a folder with either, in place of the
     * checkpoint's own; NULL: its own. */
    const char *tokenizer;
    const char *merge_adapter; // folder of a PEFT adapter to add to the weights; NULL: none
    /* Compare the new file with the checkpoint, tensor by tensor and on this text if it is not
     * NULL, and store the report in it. */
    bool verify;
    const char *verify_text; // path
    const char *chat;        // name of a chat template (tokenizer.h); NULL: the checkpoint's own
    convert_on_progress *on_progress;
    void *user;
};

/* Convert the checkpoint at `in`, or a model file (also one in the original's layout for GPUs), to
 * the model file `out`, which appears when it is complete and not before. Every tensor is checked
 * before anything is written: one sentence names those that are missing, misshapen, doubled or not
 * known. */
quip_status qp_convert(const char *in, const char *out, const struct convert_options *options,
                       quip_error *error);

/* Convert a PEFT adapter (or another LoRA file) for the model file `model` to a LoRA file of the
 * original for its GPU engine. That holds q, k, v and the output projection alone; an adapter with
 * more is an error that names it. Alpha goes into the weights. */
quip_status qp_convert_adapter(const char *in, const char *out, const char *model,
                               quip_error *error);

/* ---- how far a conversion is from its source (verify.c) ---- */

/* One tensor, by its name in files for CPUs. Errors are found minus wanted. */
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
    int n_tokens, n_same;   // positions; those whose likeliest next token is the same
    double mean_kl, max_kl; // KL(first || second), nats
};
struct verify_options {
    const struct convert_options *reading; // how a checkpoint was read; NULL: as it is
    const char *text;                      // path; NULL: tensors only
    int window, n_windows;                 // of tokens of the text; 0: 512, 4
    convert_on_progress *on_progress;      // in tensors, then in positions of the text
    void *user;
};
/* Compare a model file or checkpoint `a` with the model file `b`. For a text a checkpoint is made a
 * float32 file beside `b` for so long. Close the report when this succeeds. */
quip_status qp_verify(const char *a, const char *b, const struct verify_options *options,
                      struct verify_report *report, quip_error *error);
void qp_verify_report_close(struct verify_report *report);
/* The report in a few lines of "key value", as a model file stores it; returns its length. */
int qp_verify_summary(char *to, size_t size, const struct verify_report *r);

/* Reads PyTorch checkpoints, for qp_format_open_with. */
extern const struct format_reader qp_pytorch_reader;

/* The tokenizer alone, as a model file stores it: a SentencePiece ModelProto, and for byte-level
 * BPE the `quip.tokenizer` blob, else nothing in `bpe`. Both start empty, and are closed by the
 * caller whatever happens. A tokenizer_config.json beside the JSON file is read too. */
quip_status qp_import_tokenizer_json(const char *path, struct bytes *spm, struct bytes *bpe,
                                     quip_error *error);
quip_status qp_import_tokenizer_gguf(struct format *gguf, struct bytes *spm, struct bytes *bpe,
                                     quip_error *error);

/* ---- .task bundles (bundle.c) ---- */

struct bundle_turn {
    const char *prefix, *suffix; // NULL is ""
};
/* Fields are those of the original's bundler. All-zero, or NULL in its place: the model's own
 * tokenizer, start and stop tokens and template. */
struct bundle_options {
    const char *tokenizer;   // path of a SentencePiece model
    const char *start_token; // a piece of it; "" is none
    const char *const *stop_tokens;
    int n_stop_tokens;
    bool bytes_to_unicode;     // text is spelled in GPT-2's characters before it is encoded
    const char *system_prompt; // text in front of everything; not together with `system`
    struct bundle_turn user, model, system;
    const char *user_role_token, *system_role_token, *model_role_token, *end_role_token;
    const char *embedder, *per_layer_embedder, *vision_encoder, *vision_adapter; // paths of graphs
    convert_on_progress *on_progress; // counts the bytes of one entry after the other
    void *user_data;
};
/* Put the model file at `model_path` into the bundle `out`, which appears when it is complete. */
quip_status qp_bundle_write(const char *model_path, const char *out,
                            const struct bundle_options *options, quip_error *error);
/* Write the entries of a bundle, one file each under its name, into `folder`, made if need be. A
 * file appears when it is complete; on_progress is as for writing, and may be NULL. */
quip_status qp_bundle_extract(const char *path, const char *folder,
                              convert_on_progress *on_progress, void *user, quip_error *error);

#endif
