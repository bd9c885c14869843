/* tensors.h: which rows of the converter's table of tensors a family's own checkpoints have. */
#ifndef TEST_TENSORS_H
#define TEST_TENSORS_H

#include "model/families_convert.h"

/* Each tensor once, by the first of its names. */
static inline bool family_has_row(int i, const struct family *family, bool is_tied)
{
    const struct family_source *source = qp_family_source(family);
    const unsigned has = qp_tensor_conditions(&family->traits, source->biases, is_tied);
    return qp_tensor_row_applies(i, source->namings, has) &&
           !qp_tensor_row_is_alternative(i, source->namings, has);
}

#endif
