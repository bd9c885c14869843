/* check.h: calls of the library that must not fail. */
#ifndef TEST_CHECK_H
#define TEST_CHECK_H

#include "quip.h"

/* Fail the test at this line, with the message of the call. */
#define check(status, error)                                                                       \
    do {                                                                                           \
        const quip_status check_status = (status);                                                 \
        if (check_status)                                                                          \
            fail_msg("%s: %s", quip_status_name(check_status), (error)->message);                  \
    } while (0)

#endif
