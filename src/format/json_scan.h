/* json_scan.h: a strict scanner for JSON of known shape (json_scan.c). */
#ifndef QP_JSON_SCAN_H
#define QP_JSON_SCAN_H

#include "base/base.h"

/* A piece of JSON text: of a string what is between the quotes, escapes not decoded. */
struct json_text {
    const char *raw; // valid UTF-8 not guaranteed
    size_t n;
    bool has_escapes;
};

struct json_scan {
    const char *begin, *p, *end;
    bool is_malformed; // sticky; every call then gives false or zero
};
void qp_json_open(struct json_scan *j, const char *text, size_t n);
/* Step over `{`, `[`, ... after spaces; anything else is malformed. */
void qp_json_expect(struct json_scan *j, char c);
/* The next member of an object or item of an array: false at its `close`, which is stepped over.
 * `index` counts the calls, from 0. */
bool qp_json_more(struct json_scan *j, int index, char close);
struct json_text qp_json_string(struct json_scan *j);
/* A string and the colon behind it. */
struct json_text qp_json_key(struct json_scan *j);
uint64_t qp_json_uint(struct json_scan *j); // digits only; a sign, point or exponent is malformed
double qp_json_number(struct json_scan *j);
/* Step over any value; its text, of a string with the quotes. */
struct json_text qp_json_skip(struct json_scan *j);
/* Only spaces are left. */
void qp_json_close(struct json_scan *j);
bool qp_json_is(struct json_text t, const char *text);
/* Decode escapes to `out`, which has room for t.n bytes. Returns the length, or SIZE_MAX for a
 * malformed escape. */
size_t qp_json_decode(struct json_text t, char *out);

#endif
