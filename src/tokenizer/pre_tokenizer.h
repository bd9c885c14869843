/* pre_tokenizer.h: what the files with the expressions of pre-tokenizers share.
 * In:  UTF-8 text[0, n), n > 0.
 * Out: kinds of characters; the length of the first word of an expression. */
#ifndef QP_PRE_TOKENIZER_H
#define QP_PRE_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

/* The kinds of characters in the expressions. They are bits, so a run may have several kinds. */
enum kind {
    KIND_LETTER = 1, // \p{L}
    KIND_NUMBER = 2, // \p{N}
    KIND_SPACE = 4,  // \s
    KIND_OTHER = 8   // [^\s\p{L}\p{N}]
};
/* The kind of the character at text[i], and its length; both 0 at the end. */
unsigned qp_kind_at(const char *text, size_t n, size_t i, size_t *length);
/* Length of 's|'t|'re|'ve|'m|'ll|'d at the start of the text, or 0. Folded: (?i:...), which also
 * matches the long s, U+017F. */
size_t qp_contraction(const char *text, size_t n, bool folded);
/* \p{N}{1,max_digits}| ?[^\s\p{L}\p{N}]+[closers]*|\s*[\r\n]+|\s+(?!\S)|\s+ at the start of the
 * text, which is not a letter. */
size_t qp_word_without_letters(const char *text, size_t n, int max_digits, const char *closers);

/* pre_cased.c */
size_t qp_cased_word(const char *text, size_t n, int max_digits, bool has_contractions);
size_t qp_marked_word(const char *text, size_t n);
/* pre_deepseek.c */
bool qp_deepseek_is_letters(const char *regex); // \s?[…]+ with the letters of DeepSeek LLM
size_t qp_deepseek_word(const char *text, size_t n, bool is_coder);
size_t qp_deepseek3_word(const char *text, size_t n);

#endif
