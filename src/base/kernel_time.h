/* kernel_time.h: what the batches of a session run, and how long it takes; for measuring.
 * In:  a session.
 * Out: a line for each kernel. */
#ifndef QP_KERNEL_TIME_H
#define QP_KERNEL_TIME_H

#include "base/base.h"

/* What a backend does again and again in a batch, such as a kernel of a GPU. */
struct kernel_time {
    const char *name;
    int n;             // times
    uint64_t ns;       // all together; 0: not known
    uint64_t n_weight; // bytes of weights that they read
};

/* Measure what the device of a session runs from now on, which slows it down (`times` NULL, returns
 * 0); or end that, and return how many kernels there were: at most `max` are in `times`, in the
 * order of their first use. Returns 0 if the backend does not measure. It is in
 * engine/session.c. */
int qp_session_profile(quip_session *session, struct kernel_time *times, int max);

#endif
