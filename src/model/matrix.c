/* matrix.c: weights as the numbers that they stand for, whatever the file's layout and type: for
 * those who look at a model, not for those who run it. */
#include "model/model.h"

#include <string.h>

static const struct matrix *find_in_layer(const struct layer_weights *w, const char *name)
{
    const struct matrix *all[] = { &w->wq, &w->wk, &w->wv, &w->wo, &w->gate, &w->up, &w->down };
    for (size_t i = 0; i < QP_COUNT(all); i++)
        if (all[i]->name && strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

const struct matrix *qp_weights_find(const quip_model *m, const char *name)
{
    const struct weights *w = &m->weights;
    const struct matrix *found = NULL;
    if (strcmp(w->embed.name, name) == 0)
        return &w->embed;
    if (strcmp(w->head.name, name) == 0)
        return &w->head;
    for (int l = 0; l < m->config.n_layers && !found; l++)
        found = find_in_layer(&w->layers[l], name);
    return found;
}

/* The integer at place i of row r. */
static int matrix_integer(const struct matrix *m, const void *row, int i)
{
    if (m->dtype == DTYPE_I8)
        return ((const int8_t *)row)[i];
    return (((const uint8_t *)row)[i / 2] >> (i % 2 * 4) & 15) - 8;
}

void qp_matrix_read_row(const struct matrix *m, int r, float *to)
{
    const void *row = qp_matrix_row(m, r);
    if (m->dtype == DTYPE_F32) {
        memcpy(to, row, (size_t)m->n_in * sizeof *to);
        return;
    }
    const float zero = m->zeros ? m->zeros[r] : 0;
    for (int i = 0; i < m->n_in; i++)
        to[i] = ((float)matrix_integer(m, row, i) - zero) * m->scales[r];
}
