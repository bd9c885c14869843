/* tokenizer.h: text <-> token ids, exactly as the model's own tokenizer does it.
 * In:  a SentencePiece ModelProto (the vocabulary of every model file), and for byte-level BPE
 *      models Quip's own `quip.tokenizer` blob (merges, pre-tokenizer, added tokens;
 * docs/model-format.md). Out: ids for text, text for ids (streaming, in whole UTF-8 characters),
 * chat templates. */
#ifndef QP_TOKENIZER_H
#define QP_TOKENIZER_H

#include "base/base.h"

struct tokenizer;

/* A growing list of ids. All-zero is empty; free with qp_tokens_close. */
struct tokens {
    quip_token *ids;
    int n, capacity;
};
bool qp_tokens_append(struct tokens *t, quip_token id);
void qp_tokens_close(struct tokens *t);

/* Both blobs are borrowed and must outlive the tokenizer; `bpe` is NULL for SentencePiece models.
 */
quip_status qp_tokenizer_open(struct tokenizer **t, const void *spm, size_t n_spm, const void *bpe,
                              size_t n_bpe, quip_error *error);
/* Right after open: the pieces are spelled in GPT-2's alphabet of bytes, as the original's
 * converter leaves byte-level BPE models whose merges it dropped, and so is every text before
 * SentencePiece sees it. No effect on a tokenizer with a blob. */
void qp_tokenizer_spell_bytes(struct tokenizer *t);
void qp_tokenizer_close(struct tokenizer *t);
size_t qp_tokenizer_memory(const struct tokenizer *t); // bytes it owns, for the memory plan

int qp_tokenizer_n_tokens(const struct tokenizer *t);

/* Append the ids of text to `out`. No bos. With `with_special`, control tokens spelled out in the
 * text are found as such; in SentencePiece models each section between them is then encoded as a
 * text of its own. Malformed UTF-8 becomes U+FFFD: one a byte in SentencePiece models, one for each
 * maximal malformed part in byte-level BPE. Thread-safe on a shared tokenizer. On failure `out` is
 * as it was. */
quip_status qp_tokenizer_encode(const struct tokenizer *t, const char *text, size_t n,
                                bool with_special, struct tokens *out, quip_error *error);

/* The id whose piece is exactly this text as the vocabulary spells it, or -1. */
quip_token qp_tokenizer_find(const struct tokenizer *t, const char *piece, size_t n);
/* The piece as the vocabulary spells it; NULL out of range. */
const char *qp_tokenizer_piece(const struct tokenizer *t, quip_token id, size_t *n);
bool qp_tokenizer_is_control(const struct tokenizer *t, quip_token id);
/* From the SentencePiece trainer_spec: -1 when absent. */
quip_token qp_tokenizer_bos(const struct tokenizer *t);
quip_token qp_tokenizer_eos(const struct tokenizer *t);

/* Text of a sequence of ids, one id at a time. All-zero is the start of a text. Bytes of a
 * character that is not complete yet are held back. */
struct detokenizer {
    uint8_t pending[8];
    int n_pending;
    bool has_started; // something was decoded: a dummy prefix has been dropped
};
/* Append the text that `id` completes. False: no memory; then all is as before. Ids out of range
 * add nothing. */
bool qp_detokenize(const struct tokenizer *t, struct detokenizer *d, quip_token id,
                   struct bytes *out);
/* Append what is still held back, malformed bytes as U+FFFD. */
bool qp_detokenize_end(const struct tokenizer *t, struct detokenizer *d, struct bytes *out);

/* ---- chat templates (chat.c) ---- */

struct turn_text {
    const char *prefix, *suffix; // around the text of one turn; never NULL
};

/* How a model's conversations are spelled. When the role changes from `last` to `next`, the text
 * between is suffix(last) + prefix(next). */
struct chat_template {
    const char *name; // "gemma", "smollm2", "chatml", "llama2", "llama3", "none"
    struct turn_text user, model, system;
    const char *default_system; // used as system turn when none is given; NULL for none
    /* No system role: the first user text is system.prefix, the system text, this, the user's. */
    const char *system_joiner; // NULL: it has a system role
    bool trim;                 // white space around each message is dropped
    const char *stops[4];      // pieces that end a turn, ending with NULL
};
/* By name; NULL when there is none. */
const struct chat_template *qp_chat_find(const char *name);
/* The name of the template that a checkpoint's Jinja source is, by its markers; "none" if unknown.
 */
const char *qp_chat_recognise(const char *jinja);

/* ---- Quip's own blob for byte-level BPE (bpe_blob.c): written by convert, read by open ---- */

enum pre_tokenizer { // regular expressions of docs/model-format.md, by number
    PRE_NONE = 0,
    PRE_GPT2 = 1,
    PRE_LLAMA3 = 2,
    PRE_QWEN2 = 3,
    PRE_DIGITS_GPT2 = 4 // every numeric character alone, then GPT2 (SmolLM2)
};

struct bpe_merge {
    quip_token left, right, result;
};
struct bpe_added {
    quip_token id;
    bool is_special, normalized, lstrip, rstrip, single_word;
};
struct bpe_spec {
    enum pre_tokenizer pre;
    bool nfc, ignore_merges, add_prefix_space;
    struct bpe_merge *merges; // in rank order
    int n_merges;
    struct bpe_added *added; // their text is the piece of that id in the SentencePiece proto
    int n_added;
};
bool qp_bpe_blob_write(const struct bpe_spec *spec, struct bytes *out);

/* Append a SentencePiece ModelProto, piece by piece, then its tail. Used by convert to give every
 * model file a vocabulary that old readers understand. Types as in sentencepiece_model.proto. */
enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER_DEFINED = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6
};
struct spm_options {
    bool is_bpe, byte_fallback, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    int vocab_size, unk_id, bos_id, eos_id, pad_id;
};
bool qp_spm_write_piece(struct bytes *out, const char *piece, size_t n, float score,
                        enum piece_type type);
bool qp_spm_write_options(struct bytes *out, const struct spm_options *options);

#endif
