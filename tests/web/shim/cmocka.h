/* cmocka.h: the part of cmocka that the tests of kernels use. WebAssembly has no longjmp, so the
 * first failure ends the program with status 1. */
#ifndef QUIP_TEST_WEB_CMOCKA_H
#define QUIP_TEST_WEB_CMOCKA_H

#include <stdio.h>
#include <stdlib.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(f)                                                                        \
    {                                                                                              \
#f, f                                                                                      \
    }
#define cmocka_run_group_tests(tests, setup, teardown)                                             \
    run_tests(tests, sizeof(tests) / sizeof(tests)[0])

static inline int run_tests(const struct CMUnitTest *tests, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        printf("%s\n", tests[i].name);
        tests[i].run(NULL);
    }
    return 0;
}

#define print_message printf
#define print_error printf
#define skip() exit(77)
#define fail_msg(...) (printf(__VA_ARGS__), printf("\n"), exit(1))
#define fail() fail_msg("failed")
#define assert_true(c) ((c) ? (void)0 : fail_msg("%s:%d: not true: %s", __FILE__, __LINE__, #c))
#define assert_int_equal(a, b) assert_true((a) == (b))
#define assert_non_null(p) assert_true((p) != NULL)

#endif
