/* probe.h: runs a few tokens on a device, without a session. */
#ifndef QP_PROBE_H
#define QP_PROBE_H

#include "engine/device.h"

/* A device that no session uses now, and a sequence on it. */
struct probe {
    struct device *device;
    struct sequence *sequence;
    quip_token *context; // [n_context]
    bool owns_rows;      // device->rows and the capacity are the probe's
};

/* Close the probe on failure, too. Batches have at most n_rows rows. */
quip_status qp_probe_open(struct probe *p, struct device *d, int n_rows, int n_context,
                          quip_error *error);
void qp_probe_close(struct probe *p);
/* Begin to run n tokens (0: none), and to find the most likely next one (draws) or its logits. */
quip_status qp_probe_begin(struct probe *p, const quip_token *tokens, int n, bool draws,
                           quip_error *error);
/* What was begun: the token, or the logits [vocab_size]. Without `wait` it may return QP_NOT_YET:
 * call again. */
quip_status qp_probe_end(struct probe *p, bool wait, float *logits, quip_token *best,
                         quip_error *error);
/* Run n tokens, and wait for the most likely next one, or, if `best` is NULL, for its logits. */
quip_status qp_probe_run(struct probe *p, const quip_token *tokens, int n, float *logits,
                         quip_token *best, quip_error *error);
/* The i-th of tokens that are spread over the vocabulary. */
quip_token qp_probe_token(const struct config *c, int i);

#endif
