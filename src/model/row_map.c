/* row_map.c: see row_map.h */
#include "model/row_map.h"

#include <assert.h>

/* Row r of a matrix whose heads are in halves, in one whose heads are in pairs. */
static int64_t paired_row(const struct row_map *m, int64_t r)
{
    const int64_t d = r % m->head_dim, half = m->rope_dim / 2;
    return d < 2 * half ? r - d + 2 * (d % half) + d / half : r;
}

/* Groups: head h of queries, or the key or value head of group h. */
static int64_t grouped_row(const struct row_map *m, int64_t r)
{
    const int64_t per_group = m->n_heads / m->n_kv_heads, h = r / m->head_dim;
    const int64_t head = m->part == PART_Q ? h / per_group * (per_group + 2) + h % per_group
                                           : h * (per_group + 2) + per_group + (m->part == PART_V);
    return head * m->head_dim + r % m->head_dim;
}

int64_t qp_row_map_at(const struct row_map *m, int64_t r)
{
    const int64_t q = (int64_t)m->n_heads * m->head_dim, kv = (int64_t)m->n_kv_heads * m->head_dim;
    assert(r >= 0 && (m->part == PART_ALL || m->part >= BLOCK_GATE || m->n_kv_heads > 0));
    if (m->is_paired)
        r = paired_row(m, r);
    switch (m->part) {
    case PART_Q:
    case PART_K:
    case PART_V:
        return grouped_row(m, r);
    case BLOCK_K:
        return q + r;
    case BLOCK_V:
        return q + kv + r;
    case BLOCK_UP:
        return m->d_ff + r;
    case EXPERT_GATE:
    case EXPERT_UP:
        return r + (r / m->d_ff + (m->part == EXPERT_UP)) * m->d_ff;
    case PART_ALL:
    case BLOCK_Q:
    case BLOCK_GATE:
        break;
    }
    return r;
}

int64_t qp_row_map_run(const struct row_map *m, int64_t r, int64_t n)
{
    int64_t run = 1;
    assert(n > 0);
    if (m->part >= EXPERT_GATE) { // to the end of the expert
        const int64_t left = m->d_ff - r % m->d_ff;
        return left < n ? left : n;
    }
    if (!m->is_paired && (m->part == PART_ALL || m->part >= BLOCK_Q))
        return n;
    while (run < n && qp_row_map_at(m, r + run) == qp_row_map_at(m, r + run - 1) + 1)
        run++;
    return run;
}

int64_t qp_row_map_rows(const struct row_map *m, int64_t n)
{
    if (m->part == PART_ALL)
        return n;
    if (m->part >= EXPERT_GATE)
        return 2 * n;
    return m->part >= BLOCK_GATE ? 2 * (int64_t)m->d_ff
                                 : (m->n_heads + 2 * (int64_t)m->n_kv_heads) * m->head_dim;
}
