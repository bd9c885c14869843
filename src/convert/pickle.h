/* pickle.h: a Python pickle as data.
 * In:  the bytes of one pickle, protocol 2 to 5.
 * Out: its values. A pickle is a program that calls functions. Nothing is called here: a call is a
 *      value that says what Python would call. */
#ifndef QP_PICKLE_H
#define QP_PICKLE_H

#include "base/base.h"

enum pickle_kind {
    PICKLE_NONE,
    PICKLE_NUMBER,     // .number: integers and booleans; the value of a float is not kept
    PICKLE_TEXT,       // .text: text or bytes
    PICKLE_LIST,       // tuples, lists and sets: items
    PICKLE_DICT,       // items: key, value, key, value …
    PICKLE_NAME,       // a name in a module: .module, .text
    PICKLE_CALL,       // .callee(.args…), with the items that were added to the result
    PICKLE_PERSISTENT, // .args: an object that the writer stores outside of the pickle
    PICKLE_MARK        // never in a result
};

/* Text in the pickle's bytes. */
struct pickle_text {
    const char *p;
    size_t n;
};

struct pickle_value {
    enum pickle_kind kind;
    int callee, args;         // values by index
    int first, last, n_items; // links by index; -1: none
    int64_t number;
    struct pickle_text text, module;
};

struct pickle_link {
    int value, next;
};

struct pickle {
    struct pickle_value *values;
    struct pickle_link *links;
    int n_values, n_links;
    int result; // the value of the whole
};

/* `name` is for messages; the bytes must outlive the pickle. */
quip_status qp_pickle_read(struct pickle *p, const void *data, size_t n, const char *name,
                           quip_error *error);
void qp_pickle_close(struct pickle *p);

bool qp_pickle_is(struct pickle_text t, const char *text);
/* Item i of a list, or NULL. Takes as many steps as i. */
const struct pickle_value *qp_pickle_item(const struct pickle *p, const struct pickle_value *list,
                                          int i);

#endif
