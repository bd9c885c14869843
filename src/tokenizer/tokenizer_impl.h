/* tokenizer_impl.h: what the files of this folder share.
 *
 *     open:        spm.c reads the ModelProto, bpe_blob.c Quip's own blob; both fill struct
 * tokenizer tokenize:    without a blob: normalizer.c -> spm_encode.c (bpe, char, word) or
 * unigram.c with a blob: pipeline.c -> text_steps.c -> pre_tokenizer.c -> words.c merge.c has the
 * merging that all kinds of BPE share detokenize:  detokenizer.c */
#ifndef QP_TOKENIZER_IMPL_H
#define QP_TOKENIZER_IMPL_H

#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define SPACE_SYMBOL "\xe2\x96\x81" // U+2581, how SentencePiece spells a space
#define SPACE_SYMBOL_BYTES 3
#define GPT2_SPACE "\xc4\xa0"      // U+0120, how GPT-2 spells it
#define REPLACEMENT "\xef\xbf\xbd" // U+FFFD, replaces bytes that are not UTF-8
#define REPLACEMENT_BYTES 3
#define NO_TOKEN (-1)

/* ---- the vocabulary ---- */

struct piece {
    uint32_t offset;           // of its text in the proto
    uint32_t order;            // of its score: the lowest is merged first
    uint32_t n : 29, type : 3; // bytes of its text; enum piece_type
};

/* The score as an integer that is lower for a higher score, made from the bits of the float. Equal
 * scores have equal orders. */
static inline uint32_t qp_score_order(float score)
{
    float s = score + 0.0f; // -0 becomes 0
    uint32_t bits;
    memcpy(&bits, &s, sizeof bits);
    return bits & 0x80000000u ? bits : 0x7fffffffu - bits;
}

static inline float qp_order_score(uint32_t order)
{
    uint32_t bits = order & 0x80000000u ? order : 0x7fffffffu - order;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

/* ---- piece_index.c ---- */

struct piece_index {
    uint32_t *slots; // [slot_mask + 1]: (id + 1) << tag_bits | a tag, some bits of the text's hash,
                     // which avoids most comparisons with a wrong piece; 0 is free
    uint32_t slot_mask;
    int tag_bits;
    bool joins_space[256]; // some piece has a space inside, after this byte
    atomic_bool is_built;
    pthread_mutex_t lock; // held while the index is built
};
/* Allocate an empty index; NULL while the arena is measured. It is built when it is first used. */
struct piece_index *qp_piece_index_alloc(struct arena *a, int n_pieces);

enum spm_model {
    SPM_UNIGRAM = 1,
    SPM_BPE = 2,
    SPM_WORD = 3,
    SPM_CHAR = 4
}; // trainer_spec

/* The normalizer_spec, and a table that makes it fast. */
struct normalizer {
    const uint8_t *charsmap; // a double array of little-endian uint32 units ...
    uint32_t n_units;
    const char *pool; // ... whose values are offsets of strings here; each ends with a NUL
    uint32_t n_pool;
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_is_suffix;
    bool plain[256]; // bytes that are copied unchanged: no rule and no piece begins with them
};

struct merge_slot {
    uint64_t pair; // (left << 32 | right) + 1; 0 is a free slot
    uint32_t rank;
    quip_token result;
};

/* The contents of the blob. */
struct rules {
    struct merge_slot *slots; // [mask + 1]
    uint32_t mask;
    enum pre_tokenizer pre;
    bool ignore_merges, add_prefix_space, is_text, is_spm, fuse_unknown, space_symbols;
    enum symbol_prefix prefix;
    enum piece_joining joining;
    uint8_t steps[MAX_TEXT_STEPS + 1]; // ending with 0
    const char *continues, *ends;      // not NUL-terminated
    size_t n_continues, n_ends;
    uint32_t max_word_chars; // of WordPiece models; 0: another model
    const uint8_t
        *scores; // of unigram models: [n_pieces] little-endian doubles; NULL: use the proto
    double min_score;
    struct bpe_added *added; // [n_added]
    int n_added;
    struct trie raw,
        normalized;           // added tokens by bpe_added.normalized; values are indices of added
    quip_token byte_ids[256]; // NO_TOKEN: the vocabulary has no such byte
};

struct tokenizer {
    struct arena vocabulary, merges; // the blocks of spm.c and bpe_blob.c
    const char *spm;                 // the proto, borrowed
    struct piece *pieces;
    int n_pieces;
    struct piece_index *index;
    uint32_t max_piece_bytes; // the longest piece that merging can make

    enum spm_model model;
    bool byte_fallback, has_unused;
    quip_token unk, bos, eos;
    const char *unk_surface; // decoded text of an unknown piece
    size_t n_unk_surface;
    quip_token byte_ids[256]; // byte pieces, <0x00> to <0xFF>
    struct trie user_defined;
    struct trie special; // control and unknown pieces; found in text only if the caller asks for it
    struct normalizer normalizer;
    const char *space; // how the pieces spell a space, which begins a word
    uint32_t n_space;

    struct trie all; // unigram models: every piece that text can become
    float min_score, max_score;

    bool spells_bytes;   // SentencePiece over text in GPT-2's alphabet
    struct rules *rules; // NULL for SentencePiece models
    struct rules *added; // the added tokens of a SentencePiece model, if it has a blob
};

static inline const char *qp_piece_text(const struct tokenizer *t, quip_token id)
{
    return t->spm + t->pieces[id].offset;
}

/* spm.c. Reserved pieces (unknown, control, byte) are a separate vocabulary: text never becomes one
 * of them by merging. */
quip_status qp_spm_open(struct tokenizer *t, const void *spm, size_t n, bool has_blob,
                        quip_error *error);
static inline bool qp_is_reserved(const struct piece *piece)
{
    return piece->type == PIECE_UNKNOWN || piece->type == PIECE_CONTROL ||
           piece->type == PIECE_BYTE;
}
static inline bool qp_is_outside(const struct piece *piece)
{
    return piece->type == PIECE_CONTROL && qp_order_score(piece->order) <= OUTSIDE_SCORE;
}
/* piece_index.c */
quip_token qp_spm_find(const struct tokenizer *t, const char *text, size_t n, bool reserved);
/* SentencePiece's PieceToId: reserved pieces first; NO_TOKEN if there is no such piece. */
quip_token qp_spm_find_any(const struct tokenizer *t, const char *text, size_t n);
/* piece_index.joins_space, [256]. */
const bool *qp_spm_joins(const struct tokenizer *t);
/* From now on, words begin at this spelling of a space. */
void qp_spm_set_space(struct tokenizer *t, const char *space);

/* spm.c. The byte of a byte piece, which is spelled <0x0A>; -1 for any other text. */
int qp_spm_byte(const char *text, size_t n);

/* merge.c. Insert a merge into b->slots, which must have a free slot. */
void qp_merge_add(struct rules *b, const struct bpe_merge *merge, uint32_t rank);

/* bpe_blob.c */
double qp_rules_score(const struct rules *rules, quip_token id); // needs rules->scores
quip_status qp_bpe_blob_open(struct tokenizer *t, const void *blob, size_t n, quip_error *error);
bool qp_bpe_blob_is_spm(const void *blob, size_t n); // bpe_spec.is_spm

/* normalizer.c */
quip_status qp_normalizer_open(struct normalizer *z, const uint8_t *charsmap, size_t n,
                               const struct trie *user_defined, quip_error *error);
/* Append the normalized text to `out`. is_more: it continues other text. False if there is not
 * enough memory, here and below. */
bool qp_normalize(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                  struct bytes *out);

/* Length of the character that begins with this byte, at most n. SentencePiece looks only at this
 * byte when it goes through normalized text. */
static inline size_t qp_char_length(const char *text, size_t n)
{
    static const uint8_t lengths[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4 };
    size_t length = lengths[(uint8_t)*text >> 4];
    return length < n ? length : n;
}

/* pipeline.c. text[0, n) does not begin with a valid character. Length of the part that the WHATWG
 * encoding standard replaces by one U+FFFD. */
size_t qp_malformed_length(const char *text, size_t n);

/* ---- tokens.c ---- */

/* Receives the parts of a normalized text, in order. Unknown parts become byte pieces, or one
 * unknown token for each run of them. */
struct id_sink {
    struct tokens *out;
    bool was_unknown;
};
bool qp_sink_append(const struct tokenizer *t, struct id_sink *sink, const char *text, size_t n,
                    quip_token id);

/* ---- the encoders ---- */

bool qp_spm_encode(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                   struct tokens *out);
/* tokenizer.c. The same with control pieces that are spelled out in the text. */
bool qp_encode_with_special(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                            struct tokens *out);
/* pipeline.c: for models with a blob. */
bool qp_pipeline_encode(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                        bool with_special, struct tokens *out);

/* unigram.c */
bool qp_unigram_encode(const struct tokenizer *t, const char *text, size_t n, struct id_sink *sink);

/* ---- text steps and words, for models with a blob ---- */

/* pre_tokenizer.c. Length of the first word of text[0, n), n > 0. It may be white space that
 * PRE_CLIP and PRE_PUNCTUATION drop. */
size_t qp_pre_token(enum pre_tokenizer pre, const char *text, size_t n);
/* Length of the first part of such a word; parts are encoded one by one. Only PRE_FALCON divides
 * words, where it may be inside of a character. */
size_t qp_pre_token_part(enum pre_tokenizer pre, const char *word, size_t n);

/* normalizer.c. Append text[0, n) after applying a charsmap as Hugging Face does. */
bool qp_charsmap_apply(const struct normalizer *z, const char *text, size_t n, struct bytes *out);

/* wordpiece.c: text steps of BERT; append text[0, n) after one of them. */
bool qp_bert_clean(const char *text, size_t n, struct bytes *out);
bool qp_bert_space_chinese(const char *text, size_t n, struct bytes *out);
bool qp_bert_strip_accents(const char *text, size_t n, struct bytes *out);
/* Length of the first word of PRE_BERT; it may be white space. */
size_t qp_bert_word(const char *text, size_t n);

/* text_steps.c. Apply all steps to `text`. */
bool qp_text_steps(const struct tokenizer *t, bool is_more, struct bytes *text);
/* Append text[0, n) with space symbols instead of spaces. */
bool qp_append_space_symbols(const char *text, size_t n, struct bytes *out);

/* byte_level.c. The byte that a character of GPT-2's alphabet spells; -1 for other characters. */
int qp_gpt2_byte(int32_t c);
/* Append bytes as GPT-2 spells them. */
bool qp_gpt2_spell(const char *bytes, size_t n, struct bytes *out);
/* Fill rules->byte_ids from the vocabulary. */
void qp_find_byte_tokens(struct tokenizer *t);

#endif
