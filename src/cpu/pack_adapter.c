/* pack_adapter.c: an adapter in the layout of the kernels.
 * In:  the pairs of an adapter, as floats (model/adapter.h).
 * Out: a and b of every pair in the numbers of the matrix beside them: floats beside floats, int8
 *      in groups of 16 rows (struct low_rank) beside int8 and int4. The pairs of a layer follow
 * each other in the order of use. */
#include "cpu/cpu_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static void shape_lora(struct lora *to, int rank, const struct matrix *w)
{
    *to = (struct lora){ .rank = rank };
    if (w->dtype == DTYPE_F32) {
        const size_t n = sizeof(float);
        to->a = (struct matrix){ DTYPE_F32, rank, w->n_in, .row_bytes = n * (size_t)w->n_in };
        to->b = (struct matrix){ DTYPE_F32, w->n_out, rank, .row_bytes = n * (size_t)rank };
    } else {
        to->low_rank_a = (struct low_rank){ .n_out = rank, .n_in = w->n_in };
        to->low_rank_b = (struct low_rank){ .n_out = w->n_out, .n_in = rank };
    }
}

/* Allocate a or b, as floats or in groups: the one that has a shape. */
static void alloc_half(struct arena *a, struct matrix *floats, struct low_rank *packed)
{
    const size_t n = (size_t)(packed->n_out ? qp_low_rank_n_groups(packed) : floats->n_out);
    size_t n_bytes;
    if (!qp_mul_size(n, packed->n_out ? qp_low_rank_group_bytes(packed) : floats->row_bytes,
                     &n_bytes))
        n_bytes = SIZE_MAX;
    if (packed->n_out)
        packed->groups = qp_arena_alloc(a, n_bytes);
    else if (floats->n_out)
        floats->data = qp_arena_alloc(a, n_bytes);
}

/* All of a layer in the order of use, so that reading goes on from one to the next: of each
 * operation (forward.c) the a of its products, then their b. */
static void alloc_pairs(struct arena *arena, struct layer_adapter *layer)
{
    static const int operations[][2] = { { MATRIX_Q, MATRIX_V },
                                         { MATRIX_O, MATRIX_O },
                                         { MATRIX_GATE, MATRIX_UP },
                                         { MATRIX_DOWN, MATRIX_DOWN },
                                         { MATRIX_PLE_GATE, MATRIX_PLE_GATE },
                                         { MATRIX_PLE_OUT, MATRIX_PLE_OUT } };
    struct lora *m = layer->m;
    for (size_t i = 0; i < QP_COUNT(operations); i++) {
        for (int p = operations[i][0]; p <= operations[i][1]; p++)
            alloc_half(arena, &m[p].a, &m[p].low_rank_a);
        for (int p = operations[i][0]; p <= operations[i][1]; p++)
            alloc_half(arena, &m[p].b, &m[p].low_rank_b);
    }
}

/* Allocate everything from the arena, or measure it. */
static void alloc_adapter(struct device_adapter *to, const struct adapter *from, struct arena *a)
{
    const struct weights *weights = &from->model->weights;
    const int n_layers = from->model->config.n_layers;
    to->layers = qp_arena_alloc(a, (size_t)n_layers * sizeof *to->layers);
    for (int l = 0; l < n_layers; l++) {
        struct layer_adapter layer = { 0 };
        for (int m = 0; m < N_MATRICES; m++) {
            const int rank = qp_adapter_pair(from, l, m)->rank;
            if (rank)
                shape_lora(&layer.m[m], rank, &weights->layers[l].m[m]);
        }
        alloc_pairs(a, &layer);
        if (to->layers)
            to->layers[l] = layer;
    }
}

/* ---- values ---- */

/* Row r of w, [n_in], as integers with a scale, which is returned; negative when a value is not a
 * finite number. `row` has a capacity of n_in. */
static float store_low_rank_row(struct low_rank *to, int r, const float *w, int8_t *row)
{
    uint8_t *group = (uint8_t *)qp_low_rank_group(to, r);
    float scale;
    assert(r >= 0 && r < to->n_out);
    if (!qp_quantize_i8(w, 1, to->n_in, row, &scale))
        return -1;
    ((float *)(void *)group)[r % LOW_RANK_ROWS] = scale;
    for (int k = 0; k < to->n_in; k++)
        group[qp_low_rank_offset(r, k)] = (uint8_t)row[k];
    return scale;
}

/* Every row of a gets the same scale. The columns of b are multiplied by what that leaves, so that
 * the elements of a x have similar sizes and lose little when they are quantized together. Changes
 * b; false when a value is not a finite number. */
static bool store_low_rank(struct lora *to, const float *a, float *b, int8_t *row)
{
    const int n_in = to->low_rank_a.n_in, n_out = to->low_rank_b.n_out;
    for (int k = 0; k < to->rank; k++) {
        const float scale =
            store_low_rank_row(&to->low_rank_a, k, a + (size_t)k * (size_t)n_in, row);
        if (scale < 0)
            return false;
        for (int i = 0; i < n_out; i++)
            b[(size_t)i * (size_t)to->rank + (size_t)k] *= scale * 127;
        ((float *)(void *)qp_low_rank_group(&to->low_rank_a, k))[k % LOW_RANK_ROWS] = 1.0f / 127;
    }
    for (int i = 0; i < n_out; i++)
        if (store_low_rank_row(&to->low_rank_b, i, b + (size_t)i * (size_t)to->rank, row) < 0)
            return false;
    return true;
}

static quip_status pack_pair(struct lora *to, struct adapter *from, int l, enum layer_matrix m,
                             quip_error *error)
{
    const struct lora_pair *p = qp_adapter_pair(from, l, m);
    const struct matrix *w = &from->model->weights.layers[l].m[m];
    const size_t rank = (size_t)p->rank, n_in = (size_t)w->n_in, n_out = (size_t)w->n_out;
    if (w->dtype == DTYPE_F32)
        return qp_adapter_read(from, l, m, (float *)to->a.data, (float *)to->b.data, error);
    float *a = malloc(rank * n_in * sizeof *a), *b = malloc(n_out * rank * sizeof *b);
    int8_t *row = malloc(rank > n_in ? rank : n_in);
    quip_status status = a && b && row
                             ? qp_adapter_read(from, l, m, a, b, error)
                             : qp_fail_memory(error, p->a->name, rank * (n_in + n_out) * sizeof *a);
    if (!status && !store_low_rank(to, a, b, row))
        status = qp_adapter_fail_finite(from, p, error);
    free(a);
    free(b);
    free(row);
    return status;
}

static quip_status pack_adapter(struct device_adapter *to, struct adapter *from, quip_error *error)
{
    struct arena measured = { 0 };
    alloc_adapter(to, from, &measured);
    quip_status status = qp_arena_open(&to->arena, measured.used, "an adapter", error);
    if (status)
        return status;
    qp_want_large_pages(to->arena.base, to->arena.size);
    alloc_adapter(to, from, &to->arena);
    for (int l = 0; l < from->model->config.n_layers && !status; l++)
        for (int m = 0; m < N_MATRICES && !status; m++)
            if (to->layers[l].m[m].rank)
                status = pack_pair(&to->layers[l].m[m], from, l, m, error);
    return status;
}

quip_status qp_cpu_adapter_open(struct device_adapter **packed, struct device *device,
                                struct adapter *adapter, quip_error *error)
{
    struct device_adapter *to = calloc(1, sizeof *to);
    (void)device;
    *packed = NULL;
    if (!to)
        return qp_fail_memory(error, "an adapter", sizeof *to);
    const quip_status status = pack_adapter(to, adapter, error);
    if (status)
        qp_cpu_adapter_close(to);
    else
        *packed = to;
    return status;
}

void qp_cpu_adapter_close(struct device_adapter *packed)
{
    if (!packed)
        return;
    qp_arena_close(&packed->arena);
    free(packed);
}
