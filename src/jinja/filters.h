/* filters.h: the filters of Jinja2, by number. */
#ifndef QP_JINJA_FILTERS_H
#define QP_JINJA_FILTERS_H

#include "jinja/jinja_impl.h"

/* The order of the table in filters.c. Generators come first. */
enum filter {
    FILTER_MAP,
    FILTER_SELECT,
    FILTER_REJECT,
    FILTER_SELECTATTR,
    FILTER_REJECTATTR,
    FILTER_BATCH,
    FILTER_ITEMS,
    FILTER_SLICE,
    FILTER_UNIQUE,
    FILTER_REVERSE,
    FILTER_ABS, // not a generator from here on
    FILTER_ATTR,
    FILTER_CAPITALIZE,
    FILTER_CENTER,
    FILTER_COUNT,
    FILTER_D,
    FILTER_DEFAULT,
    FILTER_DICTSORT,
    FILTER_E,
    FILTER_ESCAPE,
    FILTER_FIRST,
    FILTER_FLOAT,
    FILTER_FORCEESCAPE,
    FILTER_FORMAT,
    FILTER_GROUPBY,
    FILTER_INDENT,
    FILTER_INT,
    FILTER_JOIN,
    FILTER_LAST,
    FILTER_LENGTH,
    FILTER_LIST,
    FILTER_LOWER,
    FILTER_MAX,
    FILTER_MIN,
    FILTER_REPLACE,
    FILTER_ROUND,
    FILTER_SAFE,
    FILTER_SORT,
    FILTER_STRING,
    FILTER_STRIPTAGS,
    FILTER_SUM,
    FILTER_TITLE,
    FILTER_TOJSON,
    FILTER_TRIM,
    FILTER_TRUNCATE,
    FILTER_UPPER,
    FILTER_URLENCODE,
    FILTER_WORDCOUNT,
    FILTER_UNSUPPORTED // Jinja2 has it, we do not
};

/* Each part of the filters: v is the value, a[1] ... the other arguments by the table. */
struct value qp_list_filter(struct run *r, int filter, struct value v, const struct args *args);
struct value qp_sequence_filter(struct run *r, int filter, const struct value *a);
struct value qp_text_filter(struct run *r, int filter, const struct value *a);
struct value qp_number_filter(struct run *r, int filter, const struct value *a);

#endif
