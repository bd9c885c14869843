/* triangle.h: the lower triangle of a symmetric matrix, and its factor (triangle.c). */
#ifndef QP_TRIANGLE_H
#define QP_TRIANGLE_H

#include "base/base.h"

/* h [n, n]; above the diagonal are numbers without a meaning. */
struct triangle {
    float *h;
    int n;
    struct pool *pool;
    float *left, *right; // panels (triangle.c)
};
/* h = 0. The pool stays the caller's. False: too little memory; close it nevertheless. */
bool qp_triangle_open(struct triangle *t, int n, struct pool *pool);
/* h[i, j] += x[r, i] * x[r, j] for ascending r, x [n_rows, n]. */
void qp_triangle_add(struct triangle *t, const float *x, int n_rows);
/* h = (U + I) D (U + I)', where U is strictly upper triangular and D diagonal. h[k, j], j < k,
 * becomes U[j, k]; the diagonal becomes D. First `damping` times its mean is added to the diagonal,
 * or 1 if the mean is 0. False if a number of D is not positive and finite. */
bool qp_triangle_factor(struct triangle *t, float damping);
void qp_triangle_close(struct triangle *t); // also one of zeros

#endif
