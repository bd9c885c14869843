/* few_rows.h: products of few rows of a batch (few_rows.c). */
#ifndef QP_WEBGPU_FEW_ROWS_H
#define QP_WEBGPU_FEW_ROWS_H

#include "webgpu/webgpu_impl.h"

enum gate {
    GATE_NONE,
    GATE_PAIR,  // act(gate) * up
    GATE_SINGLE // act(up)
};

/* Rows [first_t, first_t + n) of `in` times a slab. */
struct matvec {
    const struct gpu_slab *slab;
    const char *name; // for profiles
    const struct scratch *in, *out;
    int first_t, n, at; // at: column of the product's first row
    enum gate gate;
    float scale, cap; // cap 0: none
    bool accumulates;
    bool is_rounded;             // `in` is what a product with `rounds` left
    int rounds;                  // ROUNDS of matvec.wgsl: 0 no, 1 for int8, 2 for int4
    const struct add_step *step; // that makes `in`; NULL: it is there,
    const struct parts *parts;   // or a sum of these
    int stores;                  // what the step leaves in memory (input_norm.wgsl)
    struct gpu_range new_x;      // where it leaves X; no buffer: in NEXT_X
    bool finds_best;             // if it can, it leaves candidates for the largest output
};

enum way {
    ROW_BY_ROW, // matvec.wgsl
    TOGETHER,   // matrows_subgroups.wgsl, with the same bits
    IN_TILES    // gemm.wgsl
};

/* How the n rows of the batch are multiplied. The bits of a row depend on how many rows its own
 * sequence has, not on those of others. */
enum way qp_webgpu_way_of(const struct webgpu_device *d, const struct gpu_product *w, int n);
/* Is it possible, and faster, to multiply n rows together? */
bool qp_webgpu_multiplies_together(const struct webgpu_device *d, const struct gpu_product *w,
                                   int n);
/* How gate and up of n rows leave h for the product behind them: `rounds` of struct matvec. */
int qp_webgpu_rounds_of(const struct webgpu_device *d, const struct layer_products *layer, int n);

/* One slab, row by row. */
quip_status qp_webgpu_matvec(struct webgpu_device *d, const struct matvec *m);
/* `m` of each slab of a product: row by row, or together. They do what is pending, if it makes
 * their input; with keeps_input the input is in memory after it, for adapters. */
quip_status qp_webgpu_matvecs(struct webgpu_device *d, const struct gpu_product *w, struct matvec m,
                              bool keeps_input);
quip_status qp_webgpu_matrows(struct webgpu_device *d, const struct gpu_product *w, struct matvec m,
                              bool keeps_input);

/* Many rows with matrices of subgroups (gemm_matrices.wgsl): rows of x as binary16, in d->mem, and
 * a slab times these. */
struct matrices_kind {
    int tile; // rows: 64 or 128
    enum gate gate;
    int act;
};
quip_status qp_webgpu_halve_rows(struct webgpu_device *d, const struct scratch *in, int n_in,
                                 int n);
quip_status qp_webgpu_gemm_matrices(struct webgpu_device *d, const struct gpu_slab *p,
                                    const struct scratch *out, int n,
                                    const struct matrices_kind *kind);

#endif
