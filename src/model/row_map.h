/* row_map.h: where the rows of a weight matrix are in the tensor of a checkpoint.
 * In:  how the tensor holds the matrix: alone or fused with others, and in which order a head's
 *      rows are.
 * Out: for each row of the matrix, the row of the tensor.
 *
 * The matrix is as the engine reads it: heads one after the other, and in each head the rotated
 * dimensions in two halves, of which i and i + rope_dim / 2 turn together. */
#ifndef QP_ROW_MAP_H
#define QP_ROW_MAP_H

#include <stdbool.h>
#include <stdint.h>

/* Which rows of a tensor or a module belong to a matrix. A fused one is of one of two kinds:
 *   groups   for each head of keys: its query heads, one key head, one value head
 *   blocks   all rows of one matrix, then all rows of the next: q, k, v; or gate, up */
enum part {
    PART_ALL, // not fused
    PART_Q,   // of groups
    PART_K,
    PART_V,
    BLOCK_Q, // of blocks
    BLOCK_K,
    BLOCK_V,
    BLOCK_GATE,
    BLOCK_UP,
    EXPERT_GATE, // of a block of gate and one of up for each expert
    EXPERT_UP
};

struct row_map {
    enum part part;
    bool is_paired; // a head's rows are in pairs that turn together: (0, 1), (2, 3), ...
    int n_heads, n_kv_heads, head_dim, rope_dim, d_ff;
};

/* The row of the tensor that is row r of the matrix. */
int64_t qp_row_map_at(const struct row_map *m, int64_t r);
/* How many rows from r on, at most n, follow one another in the tensor too. */
int64_t qp_row_map_run(const struct row_map *m, int64_t r, int64_t n);
/* The rows that the tensor has, where the matrix has n. */
int64_t qp_row_map_rows(const struct row_map *m, int64_t n);

#endif
