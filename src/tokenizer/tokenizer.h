/* tokenizer.h: text <-> token ids, exactly as the model's own tokenizer does it.
 * In:  a SentencePiece ModelProto (the vocabulary of every model file), and for byte-level BPE
 *      models Quip's own `quip.tokenizer` blob (docs/model-format.md).
 * Out: ids for text, text for ids (streaming, in whole UTF-8 characters), chat templates. */
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

/* Pieces are bytes in GPT-2's spelling, not text. */
bool qp_tokenizer_is_byte_level(const struct tokenizer *t);
int qp_tokenizer_n_tokens(const struct tokenizer *t);

/* Append the ids of text to `out`. No bos. With `with_special`, control tokens spelled out in the
 * text are found as such; in SentencePiece models each section between them is then encoded as a
 * text of its own. Malformed UTF-8 becomes U+FFFD: one a byte in SentencePiece models, one for each
 * maximal malformed part in byte-level BPE. Thread-safe on a shared tokenizer. On failure `out` is
 * as it was. */
quip_status qp_tokenizer_encode(const struct tokenizer *t, const char *text, size_t n,
                                bool with_special, struct tokens *out, quip_error *error);

/* The same for text that goes on where other text ended: without the space that some models put in
 * front of a text. */
quip_status qp_tokenizer_encode_more(const struct tokenizer *t, const char *text, size_t n,
                                     bool with_special, struct tokens *out, quip_error *error);

/* Where the last control token that is spelled out in text[0, n) ends; 0 when there is none. */
size_t qp_tokenizer_special_end(const struct tokenizer *t, const char *text, size_t n);

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
    const char *name;
    struct turn_text user, model, system;
    /* What stands before an answer that the model is to write, where model.prefix ends with a
     * space: tokens begin with theirs, so the model writes it itself. NULL: model.prefix. */
    const char *answer_prefix;
    const char *default_system; // used as system turn when none is given; NULL for none
    /* No system role: the first user text is system.prefix, the system text, this, the user's. */
    const char *system_joiner; // NULL: it has a system role
    bool trim;                 // white space around each message is dropped
    const char *stops[4];      // pieces that end a turn, ending with NULL
    const char *stop_text;     // and a text that does; NULL for none
};
/* By name; NULL when there is none. */
const struct chat_template *qp_chat_find(const char *name);
/* The name of the i-th; NULL past the last, which is "none". */
const char *qp_chat_name(int i);
/* The name of the template that a checkpoint's Jinja source is, by its markers; "none" if unknown.
 */
const char *qp_chat_recognise(const char *jinja);

/* ---- Quip's own blob (bpe_blob.c): written by convert, read by open ----
 * What a tokenizer.json says beside its pieces, for byte-level BPE and for whatever else
 * SentencePiece cannot express. */

enum pre_tokenizer { // regular expressions of docs/model-format.md, by number
    PRE_NONE = 0,
    PRE_GPT2 = 1,
    PRE_LLAMA3 = 2,
    PRE_QWEN2 = 3,
    PRE_DIGITS_GPT2 = 4, // every numeric character alone, then GPT2 (SmolLM2)
    PRE_METASPACE = 5,   // each space symbol begins a word
    PRE_CLIP = 6,        // white space is left out
    PRE_PUNCTUATION = 7  // punctuation alone, numbers apart from the rest, white space left out
};

/* What is done to text before it is cut into words, in the order of bpe_spec.steps. */
enum text_step {
    STEP_NFC = 1,
    STEP_NFD = 2,
    STEP_NFKC = 3,
    STEP_LOWER_CASE = 4,
    STEP_STRIP_ACCENTS = 5,  // marks go
    STEP_SQUEEZE_WHITE = 6,  // a run of white space becomes one space
    STEP_SQUEEZE_SPACES = 7, // a run of spaces becomes one
    STEP_PREPEND_SYMBOL = 8, // a space symbol in front
    STEP_SPACE_SYMBOLS = 9,  // spaces become space symbols
    STEP_CHARSMAP = 10       // of the SentencePiece proto, as Hugging Face applies it
};
enum {
    MAX_TEXT_STEPS = 8
};

/* Where PRE_METASPACE and its like put a space symbol in front. */
enum symbol_prefix {
    PREFIX_NEVER = 0,
    PREFIX_FIRST = 1, // of the section that the text begins with
    PREFIX_ALWAYS = 2 // of each section between added tokens
};

/* How text becomes of the pieces of a model of characters. */
enum piece_joining {
    JOIN_SYMBOLS = 0,       // space symbols are spaces
    JOIN_DROP_ONE = 1,      // the same, without the first character of a text if it is one
    JOIN_DROP_IN_FIRST = 2, // the same, without those of the first piece
    JOIN_SPACED = 3         // a space between any two pieces
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
    bool nfc; // before all steps
    bool ignore_merges, add_prefix_space;
    uint8_t steps[MAX_TEXT_STEPS]; // enum text_step
    int n_steps;
    struct bpe_merge *merges; // in rank order
    int n_merges;
    struct bpe_added *added; // their text is the piece of that id in the SentencePiece proto
    int n_added;

    /* Of characters, not bytes: pieces are spelled as they are. What is no piece becomes byte
     * pieces if the proto has byte_fallback, else unknown. */
    bool is_text;
    bool fuse_unknown;  // a run of unknown characters is one token
    bool space_symbols; // spaces become space symbols after added tokens were found
    enum symbol_prefix prefix;
    enum piece_joining joining;
    const double
        *scores; // [n_scores] of Hugging Face's unigram models, by id; the proto's are floats
    int n_scores;
    const char *continues, *ends; // in front of pieces that continue a word, behind those that end
                                  // one; NULL is ""
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
    const void *charsmap; // precompiled; may be NULL
    size_t n_charsmap;
    bool is_bpe, byte_fallback, add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces;
    int vocab_size, unk_id, bos_id, eos_id, pad_id;
};
bool qp_spm_write_piece(struct bytes *out, const char *piece, size_t n, float score,
                        enum piece_type type);
bool qp_spm_write_options(struct bytes *out, const struct spm_options *options);

#endif
