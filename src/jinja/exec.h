/* exec.h: what eval.c, exec.c and loop.c share. */
#ifndef QP_JINJA_EXEC_H
#define QP_JINJA_EXEC_H

#include "jinja/jinja_impl.h"

void qp_exec_for(struct run *r, const struct node *n, struct scope *s, struct text_out *out);
struct value qp_loop_method(struct run *r, int method, struct loop *loop, const struct args *args);
/* `more` is one more keyword, or NULL. */
bool qp_eval_args(struct run *r, const struct node *n, struct scope *s, const struct keyword *more,
                  struct args *args);

#endif
