/* bundle.h: reads a .task bundle (bundle.c). */
#ifndef QP_BUNDLE_H
#define QP_BUNDLE_H

#include "base/base.h"

#define BUNDLE_MODEL "TF_LITE_PREFILL_DECODE"
#define BUNDLE_TOKENIZER "TOKENIZER_MODEL"
#define BUNDLE_METADATA "METADATA"

struct bundle {
    struct file model, tokenizer, metadata; // parts of the bundle's file
};
bool qp_bundle_matches(const struct file *file); // by its first bytes
/* Find the three parts that every bundle has, and read tokenizer and metadata into memory. `file`
 * must outlive the bundle. */
quip_status qp_bundle_open(struct bundle *b, const struct file *file, quip_error *error);
void qp_bundle_close(struct bundle *b); // all-zero is fine

#endif
