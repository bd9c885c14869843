/* calibrate.h: which columns of a matrix are important for a text (calibrate.c). */
#ifndef QP_CALIBRATE_H
#define QP_CALIBRATE_H

#include "convert/convert.h"

/* Run the model over the text that the options name, and record the inputs of its matrices. The
 * caller closes the calibration, also after a failure. */
struct calibration;
quip_status qp_calibrate(struct calibration **calibration, quip_model *model,
                         const struct convert_options *options, quip_error *error);
/* The importance of a matrix's columns [n_in]; NULL if c is NULL or there is no such matrix. */
const float *qp_calibration_find(const struct calibration *c, const char *name);
void qp_calibration_close(struct calibration *c); // NULL is fine

#endif
