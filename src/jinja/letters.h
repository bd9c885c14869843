/* letters.h: tables of letters that only src/jinja uses; unicode.h of the tokenizer has the others.
 */
#ifndef QP_JINJA_LETTERS_H
#define QP_JINJA_LETTERS_H

#include "base/base.h"

extern const uint8_t qp_printable_runs[];
extern const int qp_n_printable_runs;
extern const uint8_t qp_cased_runs[];
extern const int qp_n_cased_runs;
extern const int32_t qp_upper_case_singles[][2];
extern const int qp_n_upper_case_singles;
extern const char qp_upper_case_special[];

#endif
