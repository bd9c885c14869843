/* unicode.h: character classes, normalization forms and lower case. */
#ifndef QP_UNICODE_H
#define QP_UNICODE_H

#include "base/base.h"

enum char_class {
    CHAR_OTHER,
    CHAR_LETTER,     // \p{L}
    CHAR_DIGIT,      // \p{Nd}, \p{Nl}
    CHAR_NUMERIC,    // \p{No}
    CHAR_SPACE,      // White_Space
    CHAR_WORD,       // the rest of \w: joiners, circled letters
    CHAR_MARK,       // \p{M}, which is in \w
    CHAR_CONNECTOR,  // \p{Pc}, which is in \w
    CHAR_PUNCTUATION // the rest of \p{P}, and all of it in ASCII
};
/* What some expressions ask in addition. Letters without case, and marks, count as both cases. */
enum char_detail {
    DETAIL_NONE,
    DETAIL_UPPER,   // \p{Lu}, \p{Lt}
    DETAIL_LOWER,   // \p{Ll}
    DETAIL_NO_CASE, // \p{Lm}, \p{Lo}, \p{M}
    DETAIL_SYMBOL   // \p{S}
};
extern const uint8_t qp_ascii_class[128];
extern const uint32_t qp_class_runs[];
extern const int qp_n_class_runs;
extern const uint32_t qp_detail_runs[];
extern const int qp_n_detail_runs;
extern const uint32_t qp_mark_runs[];
extern const int qp_n_mark_runs;
extern const uint32_t qp_accent_runs[];
extern const int qp_n_accent_runs;
extern const uint64_t qp_decompositions[];
extern const int qp_n_decompositions;
extern const uint16_t qp_compositions[];
extern const int qp_n_compositions;
extern const uint32_t qp_compatibility[];
extern const int qp_n_compatibility;
extern const uint8_t qp_compatibility_pool[];
extern const int32_t qp_lower_case_runs[][4];
extern const int qp_n_lower_case_runs;
extern const uint32_t qp_bert_runs[];
extern const int qp_n_bert_runs;

/* The value of the run that contains c. A run is its first code point << shift | value. */
static inline uint32_t qp_run_value(const uint32_t *runs, int n, int shift, uint32_t c)
{
    assert(n > 0 && runs[0] >> shift == 0);
    int low = 0, high = n; // the last run that begins at or before c
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (runs[middle] >> shift <= c)
            low = middle;
        else
            high = middle;
    }
    return runs[low] & ((1u << shift) - 1);
}

/* pre_tokenizer.c. Decode the character at text[0, n), n > 0, and class it. Malformed bytes are
 * CHAR_OTHER. */
enum char_class qp_char_class(const char *text, size_t n, size_t *length);

/* unicode_forms.c. Append text[0, n), valid UTF-8, in a normalization form of Unicode, or in lower
 * case. False if there is not enough memory. */
enum unicode_form {
    FORM_C,
    FORM_D,
    FORM_KC
};
bool qp_unicode_form(const char *text, size_t n, enum unicode_form form, struct bytes *out);
bool qp_lower_case(const char *text, size_t n, struct bytes *out);

#endif
