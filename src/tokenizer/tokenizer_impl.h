/* tokenizer_impl.h: what the files of this room share.
 *
 *     open:    spm.c reads the ModelProto, bpe_blob.c Quip's own blob; both fill struct tokenizer
 *     encode:  normalizer.c -> spm_encode.c (bpe, char, word) or unigram.c
 *              or pipeline.c -> text_steps.c -> pre_tokenizer.c -> words.c, for models with a blob
 *              merge.c is the merging that all kinds of BPE do
 *     decode:  detokenizer.c */
#ifndef QP_TOKENIZER_IMPL_H
#define QP_TOKENIZER_IMPL_H

#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define SPACE_SYMBOL "\xe2\x96\x81" // U+2581, how SentencePiece spells a space
#define SPACE_SYMBOL_BYTES 3
#define GPT2_SPACE "\xc4\xa0"      // U+0120, how GPT-2 does
#define REPLACEMENT "\xef\xbf\xbd" // U+FFFD, in place of bytes that are not UTF-8
#define REPLACEMENT_BYTES 3
#define NO_TOKEN (-1)

/* ---- the vocabulary ---- */

struct piece {
    uint32_t offset;           // of its text in the proto
    uint32_t order;            // of its score: merging takes the lowest first
    uint32_t n : 29, type : 3; // bytes of its text; enum piece_type
};

/* The score, as a number that falls while the score rises: the bits of a float, turned about so
 * that they compare as integers. Equal scores have equal orders. */
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
    uint32_t *slots;    // [slot_mask + 1], of all pieces' texts: (id + 1) << tag_bits | part of the
    uint32_t slot_mask; // text's hash, which saves most looks at the wrong piece; 0 is free
    int tag_bits;
    bool joins_space[256]; // some piece has a space past its front, after this byte
    atomic_bool is_built;
    pthread_mutex_t lock; // of the one who builds
};
/* From the arena (NULL while it is measured); empty until it is asked. */
struct piece_index *qp_piece_index_alloc(struct arena *a, int n_pieces);

enum spm_model {
    SPM_UNIGRAM = 1,
    SPM_BPE = 2,
    SPM_WORD = 3,
    SPM_CHAR = 4
}; // trainer_spec

/* The normalizer_spec, and what makes it fast. */
struct normalizer {
    const uint8_t *charsmap; // a double array of little-endian uint32 units ...
    uint32_t n_units;
    const char *pool; // ... whose values are offsets of strings here; each ends with a NUL
    uint32_t n_pool;
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_is_suffix;
    bool plain[256]; // bytes that are copied as they are: nothing but themselves begins with them
};

struct merge_slot {
    uint64_t pair; // (left << 32 | right) + 1; 0 is a free slot
    uint32_t rank;
    quip_token result;
};

/* What the blob says. */
struct rules {
    struct merge_slot *slots; // [mask + 1]
    uint32_t mask;
    enum pre_tokenizer pre;
    bool ignore_merges, add_prefix_space, is_text, fuse_unknown, space_symbols;
    enum symbol_prefix prefix;
    enum piece_joining joining;
    uint8_t steps[MAX_TEXT_STEPS + 1]; // ending with 0
    const char *continues, *ends;      // not NUL-terminated
    size_t n_continues, n_ends;
    const uint8_t *scores; // of unigram models: [n_pieces] little-endian doubles; NULL: the proto's
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
    struct trie special; // control and unknown pieces: found in text only where asked for
    struct normalizer normalizer;
    const char *space; // how its pieces spell a space, where words begin
    uint32_t n_space;

    struct trie all; // unigram: every piece that text can become
    float min_score, max_score;

    bool spells_bytes;   // SentencePiece over text in GPT-2's alphabet
    struct rules *rules; // NULL for plain SentencePiece models
};

static inline const char *qp_piece_text(const struct tokenizer *t, quip_token id)
{
    return t->spm + t->pieces[id].offset;
}

/* spm.c. Reserved pieces (unknown, control, byte) are a vocabulary of their own: text never becomes
 * one by merging. */
quip_status qp_spm_open(struct tokenizer *t, const void *spm, size_t n, bool has_blob,
                        quip_error *error);
static inline bool qp_is_reserved(const struct piece *piece)
{
    return piece->type == PIECE_UNKNOWN || piece->type == PIECE_CONTROL ||
           piece->type == PIECE_BYTE;
}
/* piece_index.c */
quip_token qp_spm_find(const struct tokenizer *t, const char *text, size_t n, bool reserved);
/* PieceToId of the original: reserved pieces first; NO_TOKEN when it is neither. */
quip_token qp_spm_find_any(const struct tokenizer *t, const char *text, size_t n);
/* piece_index.joins_space, [256]. */
const bool *qp_spm_joins(const struct tokenizer *t);
/* Words begin at this spelling of a space from now on. */
void qp_spm_set_space(struct tokenizer *t, const char *space);

/* The byte that a byte piece, spelled <0x0A>, stands for; -1 for other texts. */
int qp_spm_byte(const char *text, size_t n);

/* merge.c. */
/* Enter a merge into b->slots, which has room. */
void qp_merge_add(struct rules *b, const struct bpe_merge *merge, uint32_t rank);

/* bpe_blob.c */
double qp_rules_score(const struct rules *rules, quip_token id); // rules->scores is there
quip_status qp_bpe_blob_open(struct tokenizer *t, const void *blob, size_t n, quip_error *error);

/* normalizer.c */
quip_status qp_normalizer_open(struct normalizer *z, const uint8_t *charsmap, size_t n,
                               const struct trie *user_defined, quip_error *error);
/* Append the normalized text to `out`; is_more: it goes on where other text ended. False: no
 * memory. */
bool qp_normalize(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                  struct bytes *out);

/* Length of the character that begins with this byte, by the byte alone, as SentencePiece steps
 * through normalized text; at most n. */
static inline size_t qp_char_length(const char *text, size_t n)
{
    static const uint8_t lengths[16] = { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 3, 4 };
    size_t length = lengths[(uint8_t)*text >> 4];
    return length < n ? length : n;
}

/* Length of the maximal part of text[0, n), which does not begin with a valid character, that
 * counts as one mistake where the WHATWG encoding standard replaces malformed UTF-8. */
size_t qp_malformed_length(const char *text, size_t n);

/* ---- tokens.c ---- */

/* Ids for the parts of a normalized text, in order: unknown ones become bytes, or one unknown token
 * for each run of them. */
struct id_sink {
    struct tokens *out;
    bool was_unknown;
};
bool qp_sink_put(const struct tokenizer *t, struct id_sink *sink, const char *text, size_t n,
                 quip_token id);

/* ---- the encoders; false: no memory ---- */

bool qp_spm_encode(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                   struct tokens *out);
/* pipeline.c: for models with a blob. */
bool qp_pipeline_encode(const struct tokenizer *t, const char *text, size_t n, bool is_more,
                        bool with_special, struct tokens *out);

/* unigram.c */
bool qp_unigram_encode(const struct tokenizer *t, const char *text, size_t n, struct id_sink *sink);

/* ---- text steps and words, for models with a blob ---- */

/* pre_tokenizer.c. Length of the pre-token at the start of text[0, n), n > 0. White space may be
 * one that PRE_CLIP and PRE_PUNCTUATION leave out. */
size_t qp_pre_token(enum pre_tokenizer pre, const char *text, size_t n);

/* normalizer.c. Append text[0, n) as Hugging Face applies a charsmap. False: no memory. */
bool qp_charsmap_apply(const struct normalizer *z, const char *text, size_t n, struct bytes *out);

/* text_steps.c. Replace `text` by what the steps make of it. False: no memory. */
bool qp_text_steps(const struct tokenizer *t, bool is_more, struct bytes *text);
/* Append text[0, n) with space symbols for its spaces. False: no memory. */
bool qp_put_space_symbols(const char *text, size_t n, struct bytes *out);

/* byte_level.c. The byte that a character of GPT-2's alphabet stands for; -1 for others. */
int qp_gpt2_byte(int32_t c);
/* Append bytes as GPT-2 spells them. False: no memory. */
bool qp_gpt2_spell(const char *bytes, size_t n, struct bytes *out);
/* Fill rules->byte_ids from the vocabulary. */
void qp_find_byte_tokens(struct tokenizer *t);

#endif
