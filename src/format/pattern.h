/* pattern.h: regular expressions of an adapter's configuration (pattern.c). */
#ifndef QP_PATTERN_H
#define QP_PATTERN_H

#include "base/base.h"

enum {
    MAX_PATTERN_STEPS = 600
};

/* One step of a compiled expression; jumps are relative to it. */
struct pattern_step {
    uint8_t op;
    int16_t x, y;
    uint8_t set[32]; // of bytes
};
struct pattern {
    struct pattern_step steps[MAX_PATTERN_STEPS];
    int n;
};
/* Python's syntax without look-around, back-references, flags and word boundaries. False if the
 * expression has one of those, is malformed or too long. */
bool qp_pattern_compile(struct pattern *p, const char *text, size_t n);
/* Whether the expression matches the whole text. */
bool qp_pattern_matches(const struct pattern *p, const char *text, size_t n);

#endif
