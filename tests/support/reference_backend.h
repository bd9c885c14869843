/* reference_backend.h: a second backend, as simple as the engine allows: an example for whoever
 * writes one, and a test that engine/backend.h is all that the engine needs.
 *
 * Set model->backend = &reference_backend before the first session of a model opens. It computes
 * with dequantized weights and float keys, so for float weights its logits are those of the CPU
 * backend up to rounding. */
#ifndef REFERENCE_BACKEND_H
#define REFERENCE_BACKEND_H

#include "engine/backend.h"

extern const struct backend reference_backend;

/* How it behaves. All-zero is a device that is always ready and never fails. */
struct reference_knobs {
    int n_not_yet;        // a batch is done at this many polls after the first; not while waiting
    bool cannot_wait;     // not while waiting, either, as in a page
    int fail_in;          // the n-th call from now that can fail, fails, once; 0: none
    quip_status failure;  // with this status
    bool fails_when_run;  // count operations when they run, not when they are recorded
    const char *failed;   // out: which call failed; NULL: none
    int n_calls, n_polls; // out: calls that could fail; polls that were not yet done
};
extern struct reference_knobs reference_knobs;

#endif
