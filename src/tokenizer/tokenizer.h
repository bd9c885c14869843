/* tokenizer.h: text <-> token ids, exactly as the model's own tokenizer does it.
 * In:  a SentencePiece ModelProto, which every model file has; for models that it cannot describe,
 *      also Quip's own `quip.tokenizer` blob (docs/model-format.md).
 * Out: ids for text, text for ids (streaming, in whole UTF-8 characters), chat templates. */
#ifndef QP_TOKENIZER_H
#define QP_TOKENIZER_H

#include "base/base.h"

/* Types as in sentencepiece_model.proto. */
enum piece_type {
    PIECE_NORMAL = 1,
    PIECE_UNKNOWN = 2,
    PIECE_CONTROL = 3,
    PIECE_USER_DEFINED = 4,
    PIECE_UNUSED = 5,
    PIECE_BYTE = 6
};

/* The score of a control piece that is an added token only, and no piece of the model: a Unigram or
 * WordPiece model does not find it in text. */
#define OUTSIDE_SCORE (-3e38f)

struct tokenizer;

/* A growing list of ids. All-zero is empty. Free it with qp_tokens_close. */
struct tokens {
    quip_token *ids;
    int n, capacity;
};
bool qp_tokens_append(struct tokens *t, quip_token id);
void qp_tokens_close(struct tokens *t);

/* The tokenizer reads from both blobs, which must outlive it. `bpe` is NULL for SentencePiece
 * models. */
quip_status qp_tokenizer_open(struct tokenizer **t, const void *spm, size_t n_spm, const void *bpe,
                              size_t n_bpe, quip_error *error);
/* Right after open: the pieces are spelled in GPT-2's alphabet of bytes. MediaPipe's converter
 * writes byte-level BPE models this way, without their merges. Every text is spelled so before
 * SentencePiece reads it. Does nothing if the tokenizer has a blob. */
void qp_tokenizer_spell_bytes(struct tokenizer *t);
void qp_tokenizer_close(struct tokenizer *t);
size_t qp_tokenizer_memory(const struct tokenizer *t); // bytes it owns, for the memory plan

/* Whether pieces are bytes in GPT-2's spelling, not text. */
bool qp_tokenizer_is_byte_level(const struct tokenizer *t);
int qp_tokenizer_n_tokens(const struct tokenizer *t);

/* Append the ids of text to `out`, without bos. If `with_special` is set, control tokens that are
 * spelled out in the text become those tokens; in SentencePiece models each section between them is
 * then a text of its own. Malformed UTF-8 becomes U+FFFD: one for each byte in SentencePiece
 * models, one for each maximal malformed part in byte-level BPE. Threads may share a tokenizer. On
 * failure `out` is unchanged. */
quip_status qp_tokenizer_encode(const struct tokenizer *t, const char *text, size_t n,
                                bool with_special, struct tokens *out, quip_error *error);

/* The same for text that continues other text: without the space that some models put before a
 * text. */
quip_status qp_tokenizer_encode_more(const struct tokenizer *t, const char *text, size_t n,
                                     bool with_special, struct tokens *out, quip_error *error);

/* Does text[0, n) begin with a token that divides it from any text before it, such as a control
 * token? */
bool qp_tokenizer_divides(const struct tokenizer *t, const char *text, size_t n);

/* Where the last control token that is spelled out in text[0, n) ends; 0 if there is none. */
size_t qp_tokenizer_special_end(const struct tokenizer *t, const char *text, size_t n);

/* The control or user-defined piece that text[0, n) begins with, the longest: its length, and its
 * id in *id. 0 if there is none. */
size_t qp_tokenizer_piece_at(const struct tokenizer *t, const char *text, size_t n, quip_token *id);

/* The id of the piece that the vocabulary spells exactly like this, or -1. */
quip_token qp_tokenizer_find(const struct tokenizer *t, const char *piece, size_t n);
/* The piece as the vocabulary spells it; NULL if there is no such id. */
const char *qp_tokenizer_piece(const struct tokenizer *t, quip_token id, size_t *n);
bool qp_tokenizer_is_control(const struct tokenizer *t, quip_token id);
enum piece_type qp_tokenizer_piece_type(const struct tokenizer *t, quip_token id); // 0: no such id
bool qp_tokenizer_has_dummy_prefix(const struct tokenizer *t); // of a SentencePiece proto
/* From SentencePiece's trainer_spec; -1 if absent. */
quip_token qp_tokenizer_bos(const struct tokenizer *t);
quip_token qp_tokenizer_eos(const struct tokenizer *t);

/* The state of detokenizing a sequence of ids, one at a time. All-zero is the start of a text. It
 * keeps the bytes of a character that is not complete yet. */
struct detokenizer {
    uint8_t pending[8];
    int n_pending;
    bool has_started; // some text was written; a dummy prefix was dropped
};
/* Append the text that `id` completes; nothing if there is no such id. False if there is not enough
 * memory; nothing has changed then. */
bool qp_detokenize(const struct tokenizer *t, struct detokenizer *d, quip_token id,
                   struct bytes *out);
/* Append the bytes that are kept, malformed ones as U+FFFD. */
bool qp_detokenize_end(const struct tokenizer *t, struct detokenizer *d, struct bytes *out);

/* ---- chat templates (chat.c) ---- */

struct turn_text {
    const char *prefix, *suffix; // around the text of one turn; never NULL
};

/* How a model spells conversations. Between a turn of the role `last` and one of the role `next` is
 * the text suffix(last) + prefix(next). */
struct chat_template {
    const char *name;
    struct turn_text user, model, system;
    /* The text before an answer, if model.prefix ends with a space: tokens begin with their space,
     * so the model writes it itself. NULL: model.prefix. */
    const char *answer_prefix;
    const char *default_system; // system text if the caller gives none; NULL for none
    /* For a template without a system role: the first user turn is system.prefix, the system text,
     * this text, the user's text. NULL: it has a system role. */
    const char *system_joiner;
    bool trim;             // drop white space around each message
    const char *stops[4];  // pieces that end a turn; ends with NULL
    const char *stop_text; // a text that ends a turn; NULL for none
};
/* By name; NULL if there is none. */
const struct chat_template *qp_chat_find(const char *name);
/* The name of the i-th; NULL past the last, which is "none". */
const char *qp_chat_name(int i);
/* The name of the template for a checkpoint's Jinja source, found by its markers; "none" if it is
 * unknown. */
const char *qp_chat_recognise(const char *jinja);

/* ---- Quip's own blob (bpe_blob.c): convert writes it, qp_tokenizer_open reads it ----
 * The rules of a tokenizer.json, for byte-level BPE and everything else that SentencePiece cannot
 * express. */

enum pre_tokenizer { // regular expressions of docs/model-format.md, by number
    PRE_NONE = 0,
    PRE_GPT2 = 1,
    PRE_LLAMA3 = 2,
    PRE_QWEN2 = 3,
    PRE_DIGITS_GPT2 = 4,   // each numeric character is a word; the rest as in GPT2 (SmolLM2)
    PRE_METASPACE = 5,     // each space symbol begins a word
    PRE_CLIP = 6,          // white space is dropped
    PRE_PUNCTUATION = 7,   // punctuation and numbers are words of their own; white space is dropped
    PRE_FALCON = 8,        // runs of punctuation, then GPT2, then three digits
    PRE_BERT = 9,          // punctuation is alone; white space is dropped
    PRE_O200K = 10,        // words end where lower case becomes upper case; numbers of 3 digits
    PRE_TEKKEN = 11,       // the same with single digits and without contractions
    PRE_QWEN35 = 12,       // QWEN2 with marks as letters
    PRE_DEEPSEEK_LLM = 13, // these three: pre_deepseek.c
    PRE_DEEPSEEK_CODER = 14,
    PRE_DEEPSEEK3 = 15,
    PRE_WORDS = 16 // words between white space, each with a space symbol before it; METASPACE
};

/* Changes of a text before it is divided into words, in the order of bpe_spec.steps. */
enum text_step {
    STEP_NFC = 1,
    STEP_NFD = 2,
    STEP_NFKC = 3,
    STEP_LOWER_CASE = 4,
    STEP_STRIP_ACCENTS = 5,  // drop marks
    STEP_SQUEEZE_WHITE = 6,  // a run of white space becomes one space
    STEP_SQUEEZE_SPACES = 7, // a run of spaces becomes one
    STEP_PREPEND_SYMBOL = 8, // a space symbol before the text
    STEP_SPACE_SYMBOLS = 9,  // spaces become space symbols
    STEP_CHARSMAP = 10,      // of the SentencePiece proto, as Hugging Face applies it
    STEP_BERT_CLEAN = 11,    // drop control characters; white space becomes spaces
    STEP_BERT_CHINESE = 12,  // spaces around Chinese characters
    STEP_BERT_ACCENTS = 13   // drop nonspacing marks
};
enum {
    MAX_TEXT_STEPS = 8
};

/* Which sections get a space symbol before them, if spaces are symbols. */
enum symbol_prefix {
    PREFIX_NEVER = 0,
    PREFIX_FIRST = 1, // the first section of the text
    PREFIX_ALWAYS = 2 // each section between added tokens
};

/* How the pieces of a text model (bpe_spec.is_text) become text. */
enum piece_joining {
    JOIN_SYMBOLS = 0,        // space symbols are spaces
    JOIN_DROP_ONE = 1,       // the same; a space symbol that begins the text is dropped
    JOIN_DROP_IN_FIRST = 2,  // the same; the space symbols of the first piece are dropped
    JOIN_SPACED = 3,         // a space between any two pieces
    JOIN_WORDPIECE = 4,      // a space before pieces that do not continue a word or end a sentence
    JOIN_WORDPIECE_PLAIN = 5 // a space before pieces that do not continue a word
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

    /* The pieces are characters, not bytes in GPT-2's alphabet. Text that is not a piece becomes
     * byte pieces if the proto has byte_fallback, or else the unknown piece. */
    bool is_text;
    /* Only the added tokens are the blob's: the sections between them are texts of their own for
     * the SentencePiece proto. `prefix` says which of them begin with its dummy prefix. */
    bool is_spm;
    bool fuse_unknown;  // a run of unknown characters is one token
    bool space_symbols; // spaces become space symbols, after the search for added tokens
    enum symbol_prefix prefix;
    enum piece_joining joining;
    const double
        *scores; // [n_scores] of Hugging Face's unigram models, by id; the proto's are floats
    int n_scores;
    const char *continues, *ends; // text before pieces that continue a word, and after pieces that
                                  // end one; NULL is ""
    uint32_t max_word_chars; // of WordPiece models: longer words are unknown; 0: merges, as above
};
bool qp_bpe_blob_write(const struct bpe_spec *spec, struct bytes *out);

/* ---- a SentencePiece ModelProto (spm_writer.c) ---- */

/* Append one to `out`: all pieces, then the options. Convert uses it to give every
 * model file a vocabulary that MediaPipe can read. */
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
