/* thin_scalar.c: matrices of few columns, plain (kernels.h). */
#include "cpu/kernels.h"

static float thin_row_sum(const int8_t *row, const struct act_row *x, int n_in)
{
    float sum = 0.0f;
    for (int i = 0, b = 0; i < n_in; i += ACT_BLOCK, b++) {
        const int end = n_in - i < ACT_BLOCK ? n_in : i + ACT_BLOCK;
        int32_t dot = 0;
        for (int k = i; k < end; k++)
            dot += row[k / 2 * 32 + k % 2] * x->q[k];
        sum += x->scales[b] * (float)dot;
    }
    return sum;
}

static void add_thin_scalar(float *y, const struct thin *w, const struct act_row *x, int begin,
                            int end)
{
    for (int r = begin; r < end; r++) {
        const int8_t *rows = w->data + (size_t)(r / 16) * qp_thin_bytes(16, w->n_in);
        y[r - begin] += thin_row_sum(rows + r % 16 * 2, x, w->n_in) * w->scales[r];
    }
}

void qp_thin_kernels_scalar(struct kernels *k)
{
    k->add_thin = add_thin_scalar;
}
