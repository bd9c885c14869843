/* logits.c: keeps the logits of a text, and compares those of two backends. */
#include "logits.h"

#include "check.h"
#include "golden.h"
#include "models.h"

#include "engine/engine.h"

#include <math.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

/* Of a logit of models whose weights are integers, times the root mean square of the logits. The
 * CPU backend rounds activations, keys and values to int8. The reference backend rounds none of
 * them, the GPU backend the activations in the same way, and keys and values to binary16. */
#define INT8_TOLERANCE 0.5f

struct rows_of_logits {
    float *rows;
    size_t vocab_size;
};

static bool keep_logits(void *user, int position, const float *logits)
{
    const struct rows_of_logits *to = user;
    memcpy(to->rows + (size_t)position * to->vocab_size, logits, to->vocab_size * sizeof *logits);
    return true;
}

void logits_prefill(quip_session *s, const quip_token *tokens, int n, int piece, float *rows)
{
    struct rows_of_logits to = { rows, (size_t)s->model->config.vocab_size };
    quip_error error = { 0 };
    for (int at = 0; at < n; at += piece)
        check(quip_session_prefill_logits(s, tokens + at, qp_min(piece, n - at), keep_logits, &to,
                                          &error),
              &error);
}

int logits_best(const float *logits, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

float logits_margin(const float *logits, int n)
{
    const int best = logits_best(logits, n);
    float second = -INFINITY;
    for (int i = 0; i < n; i++)
        if (i != best && logits[i] > second)
            second = logits[i];
    return logits[best] - second;
}

float logits_rms(const float *logits, size_t n)
{
    double sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += (double)logits[j] * (double)logits[j];
    return (float)sqrt(sum / (double)n);
}

float logits_tolerance(int i, const float *logits, size_t n)
{
    return models_is_float(i) ? GOLDEN_TOLERANCE : INT8_TOLERANCE * logits_rms(logits, n);
}

float logits_difference(const float *a, const float *b, size_t n)
{
    float worst = 0;
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= worst))
            worst = fabsf(a[i] - b[i]);
    return worst;
}

uint64_t logits_hash(const float *logits, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &logits[i], sizeof bits);
        for (int shift = 0; shift < 32; shift += 8)
            hash = (hash ^ (bits >> shift & 255)) * 0x100000001b3;
    }
    return hash;
}
