/* head.c: whether the head of a checkpoint is its embedding.
 * In:  what config.json says, and the tensors. They can disagree: a head that was trained beside a
 *      tied config, a file that kept the head and dropped the embedding.
 * Out: hparams.is_tied, and a list of tensors that fits it. As in transformers, the tensors decide:
 *      two that differ are not tied, and of two that are tied either one may be in the file. */
#include "convert/head.h"

#include <assert.h>
#include <string.h>

enum {
    COMPARED_VALUES = 4096
};

/* The entry of the embedding or of a head of its own, and the name that it must have. */
static struct entry *find_embedding(const struct checkpoint *c, const struct hparams *h,
                                    bool is_head, const char **name)
{
    const unsigned has = qp_tensor_conditions(&h->raw.traits, h->biases, false);
    const char *target = is_head ? "softmax." : "token_embedding";
    *name = NULL;
    for (int i = 0; i < qp_n_tensor_rows; i++) {
        const struct tensor_row *row = &qp_tensor_rows[i];
        if (!qp_tensor_row_applies(i, h->source->namings, has) || !row->hf ||
            row->weight_class != CLASS_EMBEDDING ||
            strncmp(row->target, target, strlen(target)) != 0)
            continue;
        struct entry *e = qp_checkpoint_find(c, row->hf);
        if (!*name)
            *name = row->hf;
        if (e)
            return e;
    }
    return NULL;
}

/* Whether two tensors have the same shape and values. Types that cannot be read are an error, which
 * the plan reports better. */
static quip_status compare_entries_values(const struct entry *a, const struct entry *b,
                                          bool *are_equal, quip_error *error)
{
    const struct tensor *x = a->tensor, *y = b->tensor;
    float values[2][COMPARED_VALUES];
    uint64_t n = 1;
    quip_status status = QUIP_OK;
    *are_equal = x->n_dims == y->n_dims;
    for (int i = 0; i < x->n_dims && *are_equal; i++) {
        *are_equal = x->dims[i] == y->dims[i];
        n *= (uint64_t)x->dims[i];
    }
    if (x->dtype == DTYPE_OTHER || y->dtype == DTYPE_OTHER)
        return QUIP_OK;
    for (uint64_t i = 0; i < n && *are_equal && !status; i += COMPARED_VALUES) {
        const size_t k = n - i < COMPARED_VALUES ? (size_t)(n - i) : COMPARED_VALUES;
        status = qp_format_read_f32(a->format, x, i, k, values[0], error);
        if (!status)
            status = qp_format_read_f32(b->format, y, i, k, values[1], error);
        *are_equal = !status && memcmp(values[0], values[1], k * sizeof(float)) == 0;
    }
    return status;
}

quip_status qp_settle_head(struct checkpoint *c, struct hparams *h, quip_error *error)
{
    const char *embedding_name, *head_name;
    struct entry *embedding = find_embedding(c, h, false, &embedding_name);
    struct entry *head = find_embedding(c, h, true, &head_name);
    assert(!c->is_gguf);
    if (!h->is_tied || !head || !embedding_name)
        return QUIP_OK;
    if (!embedding) {
        qp_checkpoint_rename(c, head, embedding_name);
        return QUIP_OK;
    }
    bool are_equal;
    const quip_status status = compare_entries_values(embedding, head, &are_equal, error);
    h->is_tied = are_equal;
    head->is_used |= are_equal;
    return status;
}

void qp_settle_no_head(const struct checkpoint *c, struct hparams *h)
{
    const char *name;
    if (!c->is_gguf && !find_embedding(c, h, true, &name))
        h->is_tied = true;
}
