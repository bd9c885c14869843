/* logits.h: keeps the logits of a text, and compares those of two backends (logits.c). */
#ifndef TEST_LOGITS_H
#define TEST_LOGITS_H

#include "quip.h"

#include <stddef.h>
#include <stdint.h>

/* Append n tokens to a session, at most `piece` per call. The logits after the token at position p
 * become rows[p] of `rows`, [n_context, vocab_size]. */
void logits_prefill(quip_session *s, const quip_token *tokens, int n, int piece, float *rows);

int logits_best(const float *logits, int n);
/* By how much the best of the logits is above all others. */
float logits_margin(const float *logits, int n);
/* Their root mean square. */
float logits_rms(const float *logits, size_t n);
/* Largest difference of a logit that is allowed for model i of models.h, where the CPU's are these.
 */
float logits_tolerance(int i, const float *logits, size_t n);
/* Largest difference of two arrays; NaN where there is one. */
float logits_difference(const float *a, const float *b, size_t n);
/* FNV-1a over the bits of all logits, low byte first. */
uint64_t logits_hash(const float *logits, size_t n);

#endif
