/* sysroot.c: do the C library functions of the 64-bit WebAssembly modules (bindings/web/sysroot) do
 * what the functions of the host do? They are compiled as sys_* (tests/web/sysroot_names.h). A
 * failure prints the seed of its case. */
#include <errno.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

void *sys_memcpy(void *to, const void *from, size_t n);
void *sys_memmove(void *to, const void *from, size_t n);
void *sys_memset(void *to, int c, size_t n);
int sys_memcmp(const void *a, const void *b, size_t n);
void *sys_memchr(const void *in, int c, size_t n);
size_t sys_strlen(const char *s);
char *sys_strcpy(char *to, const char *from);
int sys_strcmp(const char *a, const char *b);
int sys_strncmp(const char *a, const char *b, size_t n);
char *sys_strchr(const char *s, int c);
char *sys_strstr(const char *s, const char *part);
void *sys_bsearch(const void *key, const void *base, size_t n, size_t size,
                  int (*compare)(const void *, const void *));
void sys_qsort(void *base, size_t n, size_t size, int (*compare)(const void *, const void *));
long sys_lrintf(float x);
__int128 sys_multi3(__int128 a, __int128 b);
void *sys_malloc(size_t n);
void *sys_calloc(size_t count, size_t size);
void *sys_realloc(void *p, size_t n);
void sys_free(void *p);
int sys_snprintf(char *to, size_t size, const char *format, ...);
int sys_clock_gettime(clockid_t clock, struct timespec *t);
time_t sys_time(time_t *t);
int sys_sched_yield(void);
FILE *sys_fopen(const char *path, const char *mode);
size_t sys_fread(void *to, size_t size, size_t n, FILE *in);
int sys_fclose(FILE *in);
int sys_setvbuf(FILE *in, char *buffer, int mode, size_t n);
int sys_fseek(FILE *in, long offset, int from);
long sys_ftell(FILE *in);
char *sys_strerror(int number);
char *sys_getenv(const char *name);

enum {
    N_CASES = 20000,
    N_FORMATS = 3000, // of which each makes several calls
    MAX_LENGTH = 100,
};

static uint64_t random_state;

static uint64_t random64(void) // xorshift64*, Vigna 2016
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 2685821657736338717u;
}

/* 0 <= result < n */
static int below(int n)
{
    return (int)(random64() >> 33) % n;
}

static void seed(int i)
{
    random_state = (uint64_t)i * 2 + 1;
    for (int k = 0; k < 4; k++)
        random64();
}

static int sign(int x)
{
    return (x > 0) - (x < 0);
}

#define expect(condition, i)                                                                       \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail_msg("seed %d: not true: %s", (i), #condition);                                    \
    } while (0)

/* ---- string.h ---- */

/* A buffer of MAX_LENGTH bytes that ends where memory ends: reading past it is a fault. */
static unsigned char *at_end_of_memory(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    unsigned char *p =
        mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED && !mprotect(p + page, page, PROT_NONE));
    return p + page - MAX_LENGTH;
}

/* n random bytes at the end of `buffer`: few different ones, of both signs, so that they repeat. */
static unsigned char *random_bytes(unsigned char *buffer, int n, int first)
{
    static const unsigned char alphabet[] = { 0, 'a', 'b', 0x7f, 0x80, 0xff };
    unsigned char *p = buffer + MAX_LENGTH - n;
    for (int i = 0; i < n; i++)
        p[i] = alphabet[first + below((int)sizeof alphabet - first)];
    return p;
}

static char *random_text(unsigned char *buffer, int max)
{
    char *p = (char *)random_bytes(buffer, below(max) + 1, 1);
    buffer[MAX_LENGTH - 1] = 0;
    return p;
}

static void test_memory_functions(void **state)
{
    (void)state;
    unsigned char *x = at_end_of_memory(), *y = at_end_of_memory(), z[MAX_LENGTH];
    for (int i = 0; i < N_CASES; i++) {
        seed(i);
        const int n = below(MAX_LENGTH + 1), c = below(600) - 300;
        const unsigned char *a = random_bytes(x, n, 0);
        unsigned char *b = random_bytes(y, n, 0);
        if (below(2)) // the same up to some byte
            memcpy(b, a, (size_t)below(n + 1));
        expect(sign(sys_memcmp(a, b, (size_t)n)) == sign(memcmp(a, b, (size_t)n)), i);
        expect(sys_memchr(a, c, (size_t)n) == memchr(a, c, (size_t)n), i);
        expect(sys_memcpy(b, a, (size_t)n) == b && !memcmp(a, b, (size_t)n), i);

        // overlapping
        const int n_moved = below(n + 1), from = below(n - n_moved + 1),
                  to = below(n - n_moved + 1);
        memcpy(z, b, (size_t)n);
        memmove(z + to, z + from, (size_t)n_moved);
        expect(sys_memmove(b + to, b + from, (size_t)n_moved) == b + to, i);
        expect(!memcmp(b, z, (size_t)n), i);

        memset(z + from, c, (size_t)n_moved);
        memcpy(b, z, (size_t)n);
        expect(sys_memset(b + from, c, (size_t)n_moved) == b + from && !memcmp(b, z, (size_t)n), i);
    }
}

static void test_text_functions(void **state)
{
    (void)state;
    unsigned char *x = at_end_of_memory(), *y = at_end_of_memory();
    for (int i = 0; i < N_CASES; i++) {
        seed(i);
        const char *a = random_text(x, MAX_LENGTH), *b = random_text(y, i % 2 ? 5 : MAX_LENGTH);
        if (below(2) && strlen(b) >= strlen(a)) // one begins with the other
            b = strcpy((char *)y + MAX_LENGTH - 1 - strlen(a), a);
        const size_t n = (size_t)below(MAX_LENGTH);
        const int c = below(600) - 300;
        char copy[MAX_LENGTH];
        expect(sys_strlen(a) == strlen(a), i);
        expect(sys_strcpy(copy, a) == copy && !strcmp(copy, a), i);
        expect(sign(sys_strcmp(a, b)) == sign(strcmp(a, b)), i);
        expect(sign(sys_strncmp(a, b, n)) == sign(strncmp(a, b, n)), i);
        expect(sys_strchr(a, c) == strchr(a, c), i);
        expect(sys_strchr(a, 0) == a + strlen(a), i);
        expect(sys_strstr(a, b) == strstr(a, b), i);
    }
    assert_ptr_equal(sys_strstr("", ""), "");
    assert_null(sys_strstr("", "a"));
}

/* ---- sorted arrays ---- */

static size_t item_size; // at most 24

static int compare_items(const void *a, const void *b)
{
    return memcmp(a, b, item_size);
}

/* Equal items have equal bytes, so that every correct order is the same. */
static void test_sort_and_search(void **state)
{
    (void)state;
    static unsigned char a[300 * 24], b[sizeof a];
    for (int i = 0; i < 3000; i++) {
        seed(i);
        const size_t n = (size_t)below(i % 10 ? 20 : 300);
        item_size = 1 + (size_t)below(24);
        for (size_t k = 0; k < n * item_size; k++)
            a[k] = (unsigned char)below(i % 3 ? 256 : 2);
        if (i % 4 == 0) // sorted
            qsort(a, n, item_size, compare_items);
        memcpy(b, a, sizeof b);
        qsort(a, n, item_size, compare_items);
        sys_qsort(b, n, item_size, compare_items);
        expect(!memcmp(a, b, sizeof b), i);
        for (size_t k = 0; k < n; k++) {
            const void *found = sys_bsearch(a + k * item_size, a, n, item_size, compare_items);
            expect(found && !memcmp(found, a + k * item_size, item_size), i);
        }
        for (int k = 0; k < 5; k++) {
            unsigned char key[24];
            for (size_t j = 0; j < item_size; j++)
                key[j] = (unsigned char)below(256);
            const void *found = sys_bsearch(key, a, n, item_size, compare_items);
            expect(!found == !bsearch(key, a, n, item_size, compare_items), i);
            expect(!found || !memcmp(found, key, item_size), i);
        }
    }
}

/* ---- numbers ---- */

static void test_numbers(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        seed(i);
        const float x = (float)ldexp((double)(int32_t)random64(), below(60) - 40);
        const float half = (float)(below(2000) - 1000) + 0.5f;
        expect(sys_lrintf(x) == lrintf(x), i);
        expect(sys_lrintf(half) == lrintf(half), i);
        const __int128 a = (__int128)((unsigned __int128)random64() << 64 | random64());
        const __int128 b =
            (__int128)((unsigned __int128)random64() << 64 | random64()) >> below(128);
        expect(sys_multi3(a, b) == (__int128)((unsigned __int128)a * (unsigned __int128)b), i);
    }
}

/* ---- printf ---- */

/* Compare one call, for buffers of every size up to the length and one that is larger. */
#define check_printf(i, format, ...)                                                               \
    do {                                                                                           \
        const char *const f = (format);                                                            \
        char want[1200], got[1200];                                                                \
        const int n_want = snprintf(want, sizeof want, f, __VA_ARGS__);                            \
        memset(got, '#', sizeof got);                                                              \
        const int n_got = sys_snprintf(got, sizeof got, f, __VA_ARGS__);                           \
        if (n_want != n_got || strcmp(want, got))                                                  \
            fail_msg("seed %d: \"%s\" gives \"%s\" (%d), expected \"%s\" (%d)", (i), f, got,       \
                     n_got, want, n_want);                                                         \
        const size_t size = (size_t)below(n_want + 2);                                             \
        memset(got, '#', sizeof got);                                                              \
        expect(sys_snprintf(size ? got : NULL, size, f, __VA_ARGS__) == n_want, (i));              \
        snprintf(want, size, f, __VA_ARGS__);                                                      \
        expect(!size || !strcmp(want, got), (i));                                                  \
        expect(got[size] == '#', (i));                                                             \
    } while (0)

/* A number with few or many bits. */
static uint64_t random_integer(void)
{
    static const uint64_t edges[] = { 0, 1, 9, 10, 255, 256, INT_MAX, UINT_MAX, LONG_MAX };
    const uint64_t n = below(4) ? random64() >> below(64) : edges[below(9)];
    return below(2) ? n : -n;
}

static double random_double(void)
{
    static const double edges[] = {
        0,        0.5,      1,        1.5,   2.5,   9.5,          99.95,
        1e5,      999999,   999999.5, 1e6,   1e-4,  9.9999995e-5, 1e-5,
        1e15,     1e16,     1e22,     1e23,  0.1,   DBL_MAX,      DBL_MIN,
        4.9e-324, INFINITY, NAN,      0.125, 0.375, 123456.5,     1e300
    };
    double x;
    const uint64_t bits = random64();
    switch (below(4)) {
    case 0:
        x = edges[below((int)(sizeof edges / sizeof *edges))];
        break;
    case 1: // as options have them
        x = (double)below(100000) / (double[]){ 1, 10, 1000, 4096 }[below(4)];
        break;
    case 2: // around 1
        x = ldexp((double)(int64_t)random64(), below(120) - 120);
        break;
    default:
        memcpy(&x, &bits, sizeof x);
    }
    return below(2) ? x : -x;
}

/* "%-08.3" and the like, then `letter`. */
static const char *random_format(const char *letter, bool has_zero_flag)
{
    static char format[40];
    char width[4] = "", precision[4] = "";
    if (below(2))
        snprintf(width, sizeof width, "%d", 1 + below(30));
    if (below(2))
        snprintf(precision, sizeof precision, ".%d", below(20));
    snprintf(format, sizeof format, "<%%%s%s%s%s%s%s>", below(4) ? "" : "-", below(4) ? "" : "+",
             below(4) ? "" : " ", has_zero_flag && !below(3) ? "0" : "", width, precision);
    snprintf(format + strlen(format) - 1, 8, "%s>", letter);
    return format;
}

#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-security"

static void test_integers_as_text(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMATS; i++) {
        seed(i);
        const uint64_t n = random_integer();
        check_printf(i, random_format("d", true), (int)n);
        check_printf(i, random_format("i", true), (int)n);
        check_printf(i, random_format("hd", true), (int)n);
        check_printf(i, random_format("hhd", true), (int)n);
        check_printf(i, random_format("ld", true), (long)n);
        check_printf(i, random_format("lld", true), (long long)n);
        check_printf(i, random_format("jd", true), (intmax_t)n);
        check_printf(i, random_format("td", true), (ptrdiff_t)n);
        check_printf(i, random_format("u", true), (unsigned)n);
        check_printf(i, random_format("x", true), (unsigned)n);
        check_printf(i, random_format("X", true), (unsigned)n);
        check_printf(i, random_format("hhx", true), (unsigned)n);
        check_printf(i, random_format("lu", true), (unsigned long)n);
        check_printf(i, random_format("llX", true), (unsigned long long)n);
        check_printf(i, random_format("zu", true), (size_t)n);
    }
}

static void test_doubles_as_text(void **state)
{
    (void)state;
    for (int i = 0; i < N_FORMATS; i++) {
        seed(i);
        const double x = random_double();
        check_printf(i, "%g", x);
        check_printf(i, random_format("g", true), x);
        check_printf(i, random_format("f", true), x);
        check_printf(i, random_format("e", true), x);
        check_printf(i, "%g", (double)(float)x);
    }
    for (int precision = 0; precision <= 60; precision++) {
        check_printf(precision, "%.*f", precision, DBL_MAX);
        check_printf(precision, "%.*g", precision, 4.9e-324);
        check_printf(precision, "%.*g", precision, 0.0001);
        check_printf(precision, "%.*e", precision, 1.0 / 3);
    }
}

static void test_texts_as_text(void **state)
{
    (void)state;
    unsigned char *x = at_end_of_memory(), *y = at_end_of_memory();
    for (int i = 0; i < N_FORMATS; i++) {
        seed(i);
        const char *text = random_text(x, 40);
        const int c = below(255) + 1, n = below(40), width = below(60) - 30;
        check_printf(i, random_format("s", false), text);
        check_printf(i, random_format("c", false), c);
        const char *bytes = (char *)random_bytes(y, n, 1); // not terminated: the precision ends it
        check_printf(i, "%.*s|", n, bytes);
        check_printf(i, "%*s|%-*s", width, "ab", n, "c");
        check_printf(i, "%.*s", -1 - n, "a negative precision is none");
        check_printf(i, "%0*d|%+.*f", width, i, n / 4 - 4, i / 8.0);
        check_printf(i, "%s: %d of %zu%% (%g)\n", text, c, (size_t)n, n / 4.0);
    }
    char got[20];
    const char *nothing = NULL, *cut = "ab%";
    assert_int_equal(sys_snprintf(got, sizeof got, "%s", nothing), 6);
    assert_string_equal(got, "(null)");
    assert_int_equal(sys_snprintf(got, sizeof got, cut), 2); // does not read past the end
    assert_string_equal(got, "ab");
}

/* ---- malloc ---- */

/* Pages for malloc.c, of which there is a limited number of bytes. */
static size_t pages_left;
static int n_pages_live;

void *sys_memory_alloc(size_t n_bytes);
void *sys_memory_alloc(size_t n_bytes)
{
    if (n_bytes > pages_left)
        return NULL;
    void *p = NULL;
    assert_int_equal(posix_memalign(&p, 64, n_bytes), 0);
    pages_left -= n_bytes;
    n_pages_live++;
    return memset(p, 0, n_bytes);
}

void sys_memory_free(void *p, size_t n_bytes);
void sys_memory_free(void *p, size_t n_bytes)
{
    pages_left += n_bytes;
    n_pages_live--;
    free(p);
}

static struct held {
    unsigned char *p;
    size_t n;
    unsigned char fill;
} held[200];

static size_t random_size(void)
{
    static const size_t edges[] = { 0, 1, 16, 17, 48, 49, 32752, 32753, 65520, 65521 };
    return below(8) ? (size_t)random64() % ((size_t)1 << below(18)) : edges[below(10)];
}

/* Nothing else wrote to the block. */
static void check_held(const struct held *h, size_t n, int i)
{
    for (size_t k = 0; k < n; k++)
        expect(h->p[k] == h->fill, i);
}

static void fill_held(struct held *h, void *p, size_t n, int i)
{
    expect((uintptr_t)p % 16 == 0, i);
    *h = (struct held){ p, n, (unsigned char)(1 + below(255)) };
    if (p)
        memset(p, h->fill, n);
}

static void random_step(int i)
{
    struct held *h = &held[below((int)(sizeof held / sizeof *held))];
    const size_t n = random_size();
    const int choice = below(4);
    if (!h->p && choice == 0) {
        const size_t size = 1 + (size_t)below(9);
        unsigned char *p = sys_calloc(n / size, size);
        for (size_t k = 0; p && k < n / size * size; k++)
            expect(p[k] == 0, i);
        fill_held(h, p, n / size * size, i);
    } else if (!h->p && choice == 1) {
        fill_held(h, sys_realloc(NULL, n), n, i);
    } else if (!h->p) {
        fill_held(h, sys_malloc(n), n, i);
    } else if (choice == 0) {
        check_held(h, h->n, i);
        void *p = sys_realloc(h->p, n);
        expect(p || n > h->n, i); // a block can always become smaller
        if (p) {
            h->p = p;
            check_held(h, n < h->n ? n : h->n, i);
            fill_held(h, p, n, i);
        } else {
            check_held(h, h->n, i);
        }
    } else {
        check_held(h, h->n, i);
        sys_free(h->p);
        h->p = NULL;
    }
}

static void free_held(void)
{
    for (size_t k = 0; k < sizeof held / sizeof *held; k++)
        sys_free(held[k].p);
    memset(held, 0, sizeof held);
}

static void test_malloc_blocks(void **state)
{
    (void)state;
    pages_left = SIZE_MAX / 2;
    int n_chunks[3];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < N_CASES; i++) {
            seed(i); // the same in each round
            random_step(i);
        }
        free_held();
        n_chunks[round] = n_pages_live;
    }
    assert_int_equal(n_chunks[1], n_chunks[0]); // the small blocks are used again
    assert_int_equal(n_chunks[2], n_chunks[0]); // and the pages of large ones were freed
}

static void test_malloc_limits(void **state)
{
    (void)state;
    pages_left = SIZE_MAX / 2;
    static const size_t too_large[] = { SIZE_MAX,
                                        SIZE_MAX - 15,
                                        SIZE_MAX - 16,
                                        (size_t)PTRDIFF_MAX,
                                        (size_t)PTRDIFF_MAX + 1,
                                        (size_t)PTRDIFF_MAX - 15 };
    for (size_t i = 0; i < sizeof too_large / sizeof *too_large; i++) {
        assert_null(sys_malloc(too_large[i]));
        assert_null(sys_calloc(1, too_large[i]));
        void *p = sys_malloc(1);
        assert_null(sys_realloc(p, too_large[i]));
        sys_free(p);
    }
    assert_null(sys_calloc(SIZE_MAX / 2, 3));
    assert_null(sys_calloc((size_t)1 << 32, (size_t)1 << 32));
    void *zero = sys_calloc(0, SIZE_MAX);
    assert_non_null(zero);
    sys_free(zero);
    sys_free(NULL);

    pages_left = 3 << 16; // memory that runs out: NULL, and what is allocated stays
    for (int i = 0; i < N_CASES; i++) {
        seed(i);
        random_step(i);
    }
    free_held();
}

/* ---- system.c ---- */

static double page_clock;

double web_now(void);
double web_now(void)
{
    return page_clock;
}

void web_random(void *to, size_t n);
void web_random(void *to, size_t n)
{
    memset(to, 0xa5, n);
}

static void test_clock(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        seed(i);
        struct timespec t;
        page_clock = ldexp((double)(random64() >> 11), below(24) - 36); // up to 2^41 ms
        if (i % 3 == 0)                                                 // beside a whole second
            page_clock = nextafter(1000.0 * (double)(random64() >> 33), below(2) ? 0 : INFINITY);
        expect(sys_clock_gettime(CLOCK_MONOTONIC, &t) == 0, i);
        expect(t.tv_nsec >= 0 && t.tv_nsec < 1000000000, i);
        const double back = (double)t.tv_sec * 1000 + (double)t.tv_nsec / 1e6;
        expect(fabs(back - page_clock) <= 2e-6 + page_clock * DBL_EPSILON, i);
        time_t seconds;
        expect(sys_time(NULL) == t.tv_sec && sys_time(&seconds) == seconds, i);
    }
}

static void test_system(void **state)
{
    (void)state;
    unsigned char bytes[8] = { 0 };
    assert_null(sys_fopen("/etc/passwd", "rb"));
    assert_true(strlen(sys_strerror(ENOENT)) > 0);
    FILE *in = sys_fopen("/dev/urandom", "rb");
    assert_non_null(in);
    assert_int_equal(sys_setvbuf(in, NULL, _IONBF, 0), 0);
    assert_int_equal(sys_fread(bytes, 2, 3, in), 3);
    assert_int_equal(bytes[5], 0xa5);
    assert_int_equal(bytes[6], 0);
    assert_int_equal(sys_fseek(in, 0, SEEK_END), -1);
    assert_int_equal(sys_ftell(in), -1);
    assert_int_equal(sys_fclose(in), 0);
    assert_null(sys_getenv("PATH"));
    assert_int_equal(sys_sched_yield(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_functions), cmocka_unit_test(test_text_functions),
        cmocka_unit_test(test_sort_and_search),  cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_integers_as_text), cmocka_unit_test(test_doubles_as_text),
        cmocka_unit_test(test_texts_as_text),    cmocka_unit_test(test_malloc_blocks),
        cmocka_unit_test(test_malloc_limits),    cmocka_unit_test(test_clock),
        cmocka_unit_test(test_system),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
