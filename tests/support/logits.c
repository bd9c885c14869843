/* logits.c: compares the logits of two backends. */
#include "logits.h"

#include "golden.h"
#include "models.h"

#include <math.h>

/* Of a logit of models whose weights are integers, times the root mean square of the logits. The
 * CPU backend rounds activations, keys and values to int8. The reference backend rounds none of
 * them, the GPU backend the activations in the same way, and keys and values to binary16. */
#define INT8_TOLERANCE 0.5f

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

float logits_tolerance(int i, const float *logits, size_t n)
{
    double sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += (double)logits[j] * (double)logits[j];
    return models_is_float(i) ? GOLDEN_TOLERANCE : INT8_TOLERANCE * (float)sqrt(sum / (double)n);
}

float logits_difference(const float *a, const float *b, size_t n)
{
    float worst = 0;
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(a[i] - b[i]) <= worst))
            worst = fabsf(a[i] - b[i]);
    return worst;
}
