/* matrix.c: rows of a matrix; the values of weights, for inspection and conversion; not on the
 * inference path.
 * In:  a matrix of any type.
 * Out: rows of floats. */
#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static const struct matrix *find_in_layer(const struct layer_weights *w, const char *name)
{
    for (int i = 0; i < N_MATRICES; i++)
        if (w->m[i].name && strcmp(w->m[i].name, name) == 0)
            return &w->m[i];
    return NULL;
}

const struct matrix *qp_weights_find(const quip_model *m, const char *name)
{
    const struct weights *w = &m->weights;
    const struct matrix *found = NULL;
    assert(w->embed.name && w->head.name);
    const struct matrix *const of_model[] = { &w->embed, &w->head, &w->ple, &w->ple_context };
    for (size_t i = 0; i < QP_COUNT(of_model); i++)
        if (of_model[i]->name && strcmp(of_model[i]->name, name) == 0)
            return of_model[i];
    for (int l = 0; l < m->config.n_layers && !found; l++)
        found = find_in_layer(&w->layers[l], name);
    return found;
}

uint64_t qp_matrix_bytes(const struct matrix *w)
{
    const uint64_t n = (uint64_t)w->n_out;
    return n * w->row_bytes + (w->scales ? n * sizeof *w->scales : 0) +
           (w->multipliers ? n * qp_multiplier_bytes(w->n_in) : 0) +
           (w->rest ? n * (uint64_t)w->n_in : 0);
}

struct matrix qp_matrix_part(const struct matrix *w, int row, int n_rows)
{
    struct matrix part = *w;
    assert(row >= 0 && n_rows > 0 && row + n_rows <= w->n_out);
    part.n_out = n_rows;
    part.data = (const uint8_t *)w->data + (size_t)row * w->row_bytes;
    part.scales = w->scales ? w->scales + row : NULL;
    part.multipliers = w->multipliers ? qp_matrix_multipliers(w, row) : NULL;
    part.rest = w->rest ? w->rest + (size_t)row * (size_t)w->n_in : NULL;
    part.bias = w->bias ? w->bias + row : NULL;
    part.zeros = w->zeros ? w->zeros + row : NULL;
    return part;
}

// clang-format off
const int8_t qp_i4_block_values[16][16] = {
    { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 },
    { -15, -12, -10, -8, -6, -4, -2, -1, 0, 1, 2, 4, 6, 8, 11, 14 },
    { -30, -24, -20, -16, -12, -8, -4, -2, 0, 2, 4, 8, 12, 16, 22, 28 },
    { -45, -36, -30, -24, -18, -12, -6, -3, 0, 3, 6, 12, 18, 24, 33, 42 },
    { -60, -48, -40, -32, -24, -16, -8, -4, 0, 4, 8, 16, 24, 32, 44, 56 },
    { -75, -60, -50, -40, -30, -20, -10, -5, 0, 5, 10, 20, 30, 40, 55, 70 },
    { -90, -72, -60, -48, -36, -24, -12, -6, 0, 6, 12, 24, 36, 48, 66, 84 },
    { -105, -84, -70, -56, -42, -28, -14, -7, 0, 7, 14, 28, 42, 56, 77, 98 },
    { 120, 96, 80, 64, 48, 32, 16, 8, 0, -8, -16, -32, -48, -64, -88, -112 },
    { 105, 84, 70, 56, 42, 28, 14, 7, 0, -7, -14, -28, -42, -56, -77, -98 },
    { 90, 72, 60, 48, 36, 24, 12, 6, 0, -6, -12, -24, -36, -48, -66, -84 },
    { 75, 60, 50, 40, 30, 20, 10, 5, 0, -5, -10, -20, -30, -40, -55, -70 },
    { 60, 48, 40, 32, 24, 16, 8, 4, 0, -4, -8, -16, -24, -32, -44, -56 },
    { 45, 36, 30, 24, 18, 12, 6, 3, 0, -3, -6, -12, -18, -24, -33, -42 },
    { 30, 24, 20, 16, 12, 8, 4, 2, 0, -2, -4, -8, -12, -16, -22, -28 },
    { 15, 12, 10, 8, 6, 4, 2, 1, 0, -1, -2, -4, -6, -8, -11, -14 },
};
// clang-format on

/* Integer i of row r. */
static int matrix_integer(const struct matrix *m, int r, int i)
{
    const uint8_t *row = qp_matrix_row(m, r);
    if (m->dtype == DTYPE_I8)
        return ((const int8_t *)row)[i];
    const int nibble = row[i / 2] >> (i % 2 * 4) & 15;
    return m->dtype == DTYPE_I4
               ? nibble - 8
               : qp_i4_block_values[qp_block_multiplier(qp_matrix_multipliers(m, r), i)][nibble];
}

void qp_matrix_read_row(const struct matrix *m, int r, float *to)
{
    assert(m->data && r >= 0 && r < m->n_out);
    if (m->dtype == DTYPE_F32) {
        memcpy(to, qp_matrix_row(m, r), (size_t)m->n_in * sizeof *to);
        return;
    }
    const float zero = m->zeros ? m->zeros[r] : 0;
    for (int i = 0; i < m->n_in; i++)
        to[i] = ((float)matrix_integer(m, r, i) - zero) * m->scales[r];
    for (int i = 0; m->rest && i < m->n_in; i++)
        to[i] += (float)m->rest[(size_t)r * (size_t)m->n_in + (size_t)i] *
                 (m->scales[r] * (1.0f / REST_STEPS));
}

void qp_mix_row(float *x, int n)
{
    for (int block = MIX_BLOCK, i = 0; i < n; i += block) {
        while (block > n - i)
            block /= 2;
        for (int stride = 1; stride < block; stride *= 2)
            for (int k = i; k < i + block; k++)
                if (!((k - i) & stride)) {
                    const float a = x[k], b = x[k + stride];
                    x[k] = a + b;
                    x[k + stride] = a - b;
                }
        const float factor = 1.0f / sqrtf((float)block);
        for (int k = i; k < i + block; k++)
            x[k] *= factor;
    }
}
