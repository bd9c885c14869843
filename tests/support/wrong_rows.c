/* wrong_rows.c: see wrong_rows.h */
#include "support/wrong_rows.h"

#include "model/model.h"
#include "model/row_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* ---- copies ---- */

static float copies[1 << 17];
static size_t n_copied;

static float *new_copy(size_t n)
{
    assert_true(n_copied + n <= QP_COUNT(copies));
    n_copied += n;
    return copies + n_copied - n;
}

/* Floats [n_rows, n_in], of which row r is row source(r, where) of what is given. */
static const float *copy_rows(const float *given, int n_rows, int n_in,
                              int (*source)(int r, const void *where), const void *where)
{
    float *copy = new_copy((size_t)n_rows * (size_t)n_in);
    for (int r = 0; r < n_rows; r++)
        memcpy(copy + (size_t)r * (size_t)n_in, given + (size_t)source(r, where) * (size_t)n_in,
               (size_t)n_in * sizeof *copy);
    return copy;
}

/* ---- pairs ---- */

static int row_of_pair(int r, const void *where)
{
    return (int)qp_row_map_at(where, r);
}

static void pair_rows(struct matrix *w, struct norm_weights *norm, const struct row_map *map,
                      enum qk_norm kind)
{
    if (!w->data)
        return;
    const int n_norm = kind == QK_NORM_HEAD ? map->head_dim : w->n_out;
    w->data = copy_rows(w->data, w->n_out, w->n_in, row_of_pair, map);
    if (w->bias)
        w->bias = copy_rows(w->bias, w->n_out, 1, row_of_pair, map);
    if (norm->scale)
        norm->scale = copy_rows(norm->scale, n_norm, 1, row_of_pair, map);
}

void take_halves_for_pairs(quip_model *m)
{
    n_copied = 0;
    for (int l = 0; l < m->config.n_layers; l++) {
        const struct layer_config *c = &m->config.layers[l];
        struct layer_weights *w = &m->weights.layers[l];
        if (c->mixer == MIXER_CONV || c->rope == ROPE_NONE)
            continue;
        const struct row_map map = { .is_paired = true,
                                     .head_dim = c->head_dim,
                                     .rope_dim = m->config.ropes[c->rope].dim };
        if (c->v_is_k) { // values do not turn
            w->m[MATRIX_V] = w->m[MATRIX_K];
            m->config.layers[l].v_is_k = false;
        }
        pair_rows(&w->m[MATRIX_Q], &w->q_norm, &map, m->config.qk_norm);
        pair_rows(&w->m[MATRIX_K], &w->k_norm, &map, m->config.qk_norm);
    }
}

/* ---- fused rows ---- */

typedef int fused_row(const struct config *c, int part, int r); // part: 0 q, 1 k, 2 v

static int mapped_row(const struct config *c, enum part part, int r)
{
    const struct row_map map = {
        .part = part, .n_heads = c->n_heads, .n_kv_heads = c->n_kv_heads, .head_dim = c->head_dim
    };
    return (int)qp_row_map_at(&map, r);
}
static int row_of_blocks(const struct config *c, int part, int r)
{
    return mapped_row(c, BLOCK_Q + (enum part)part, r);
}
static int row_of_groups(const struct config *c, int part, int r)
{
    return mapped_row(c, PART_Q + (enum part)part, r);
}
static int row_with_q_last(const struct config *c, int part, int r)
{
    const int kv = c->n_kv_heads * c->head_dim;
    return part == 0 ? 2 * kv + r : (part - 1) * kv + r;
}

/* Fuse q, k and v of each layer in the right order, and divide them in the wrong one. */
static void divide_fused(quip_model *m, fused_row *right, fused_row *wrong)
{
    const struct config *c = &m->config;
    const int n_in = c->d_model, n_q = c->n_heads * c->head_dim, n_kv = c->n_kv_heads * c->head_dim;
    const int rows[3] = { n_q, n_kv, n_kv };
    n_copied = 0;
    float *fused = new_copy((size_t)(n_q + 2 * n_kv) * (size_t)n_in);
    float *fused_bias = new_copy((size_t)(n_q + 2 * n_kv));
    for (int l = 0; l < c->n_layers; l++) {
        struct matrix *w = &m->weights.layers[l].m[MATRIX_Q];
        for (int part = 0; part < 3; part++)
            for (int r = 0; r < rows[part]; r++) {
                const int at = right(c, part, r);
                memcpy(fused + at * n_in, qp_matrix_row(&w[part], r), w[part].row_bytes);
                fused_bias[at] = w[part].bias ? w[part].bias[r] : 0;
            }
        for (int part = 0; part < 3; part++) {
            float *data = new_copy((size_t)(rows[part] * n_in)),
                  *bias = new_copy((size_t)rows[part]);
            for (int r = 0; r < rows[part]; r++) {
                const int at = wrong(c, part, r);
                memcpy(data + r * n_in, fused + at * n_in, w[part].row_bytes);
                bias[r] = fused_bias[at];
            }
            w[part].data = data;
            w[part].bias = w[part].bias ? bias : NULL;
        }
    }
}

void take_blocks_for_groups(quip_model *m)
{
    divide_fused(m, row_of_blocks, row_of_groups);
}

void take_groups_for_blocks(quip_model *m)
{
    divide_fused(m, row_of_groups, row_of_blocks);
}

void take_q_for_last(quip_model *m)
{
    divide_fused(m, row_of_blocks, row_with_q_last);
}

/* ---- values that are keys ---- */

/* A norm without weights behind them undoes what the norm of the keys does, except its weights. */
void take_normed_keys_for_values(quip_model *m)
{
    n_copied = 0;
    for (int l = 0; l < m->config.n_layers; l++) {
        struct layer_weights *w = &m->weights.layers[l];
        const struct matrix *k = &w->m[MATRIX_K];
        const size_t n_in = (size_t)k->n_in;
        if (!m->config.layers[l].v_is_k)
            continue;
        float *data = new_copy((size_t)k->n_out * n_in);
        for (size_t i = 0; i < (size_t)k->n_out * n_in; i++)
            data[i] = ((const float *)k->data)[i] *
                      w->k_norm.scale[i / n_in % (size_t)m->config.layers[l].head_dim];
        w->m[MATRIX_V] = *k;
        w->m[MATRIX_V].data = data;
        m->config.layers[l].v_is_k = false;
    }
}
