/* forward.h: the forward pass of a batch. */
#ifndef QP_FORWARD_H
#define QP_FORWARD_H

#include "engine/backend.h"

#include <stdatomic.h>

/* Looks at the inputs of products, for calibration: `in` holds n_rows rows for the matrices w. It
 * may read the buffer. A status other than QUIP_OK ends the forward pass. */
struct observer {
    quip_status (*on_input)(void *user, struct device *device, struct matrix_set w, enum buffer in,
                            int n_rows);
    void *user;
};

/* State of one forward pass. */
struct forward {
    const struct backend *backend;
    struct device *device;
    struct rows rows, outputs;       // the rows in work; those of them whose output is kept
    const struct observer *observer; // or NULL
};

/* Run a batch; rows may be device->rows. Between two layers it looks at *cancelled (may be NULL):
 * QUIP_E_CANCELLED. Only on success do the positions of the sequences move. */
quip_status qp_forward(struct device *d, const struct rows *rows, const atomic_bool *cancelled,
                       const struct observer *observer);
/* BUF_LOGITS = the logits of n outputs, n <= LOGITS_ROWS. */
quip_status qp_forward_logits(struct device *d, const struct output *outputs, int n,
                              const struct observer *observer);

#endif
