/* json_scan.h: a strict scanner for JSON of known shape (json_scan.c). */
#ifndef QP_JSON_SCAN_H
#define QP_JSON_SCAN_H

#include "base/base.h"

/* A piece of JSON text. Of a string, it is the text between the quotes with its escapes. */
struct json_text {
    const char *raw; // may be invalid UTF-8
    size_t n;
    bool has_escapes;
};

struct json_scan {
    const char *begin, *p, *end;
    bool is_malformed; // stays set; every call then returns false or zero
};
void qp_json_open(struct json_scan *j, const char *text, size_t n);
/* Skip spaces and the character c; anything else is malformed. */
void qp_json_expect(struct json_scan *j, char c);
/* Whether an object or array has another member; false at `close`, which is skipped. `index` counts
 * the calls, from 0. */
bool qp_json_more(struct json_scan *j, int index, char close);
struct json_text qp_json_string(struct json_scan *j);
/* A string and the colon after it. */
struct json_text qp_json_key(struct json_scan *j);
uint64_t qp_json_uint(struct json_scan *j); // digits only; a sign, point or exponent is malformed
double qp_json_number(struct json_scan *j);
/* Skip any value. Returns its text; of a string, with the quotes. */
struct json_text qp_json_skip(struct json_scan *j);
/* Anything but spaces that is left is malformed. */
void qp_json_close(struct json_scan *j);
bool qp_json_is(struct json_text t, const char *text);
/* Decode escapes to `out`, which has a capacity of t.n bytes. Returns the length, or SIZE_MAX if an
 * escape is malformed. */
size_t qp_json_decode(struct json_text t, char *out);

#endif
