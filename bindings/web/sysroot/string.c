/* string.c: functions of string.h, stdlib.h, math.h and the compiler's runtime library, for the
 * modules with 64-bit memory.
 * Compile with -fno-builtin: the compiler must not replace a loop by a call of the same function.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The builtins are the instructions memory.copy, which handles overlap, and memory.fill. */
void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    return __builtin_memcpy(to, from, n);
}

void *memmove(void *to, const void *from, size_t n)
{
    return __builtin_memmove(to, from, n);
}

void *memset(void *to, int c, size_t n)
{
    return __builtin_memset(to, c, n);
}

size_t strlen(const char *s)
{
    size_t n = 0;
    while (s[n])
        n++;
    return n;
}

char *strcpy(char *restrict to, const char *restrict from)
{
    return memcpy(to, from, strlen(from) + 1);
}

int strncmp(const char *a, const char *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i] || !a[i])
            return (unsigned char)a[i] - (unsigned char)b[i];
    return 0;
}

int strcmp(const char *a, const char *b)
{
    return strncmp(a, b, SIZE_MAX);
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            return x[i] - y[i];
    return 0;
}

void *memchr(const void *in, int c, size_t n)
{
    const unsigned char *x = in;
    for (size_t i = 0; i < n; i++)
        if (x[i] == (unsigned char)c)
            return (void *)(x + i);
    return NULL;
}

char *strchr(const char *s, int c)
{
    return memchr(s, c, strlen(s) + 1);
}

char *strstr(const char *s, const char *part)
{
    const size_t n = strlen(part);
    for (; *s || !n; s++)
        if (!strncmp(s, part, n))
            return (char *)s;
    return NULL;
}

/* ---- sorted arrays ---- */

void *bsearch(const void *key, const void *base, size_t n, size_t size,
              int (*compare)(const void *, const void *))
{
    const char *from = base;
    while (n) {
        const char *middle = from + n / 2 * size;
        const int order = compare(key, middle);
        if (!order)
            return (void *)middle;
        if (order > 0) {
            from = middle + size;
            n--;
        }
        n /= 2;
    }
    return NULL;
}

static void swap(char *a, char *b, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const char c = a[i];
        a[i] = b[i];
        b[i] = c;
    }
}

/* Heap sort: it allocates nothing, and no input is slow. Like every qsort it is not stable. */
void qsort(void *base, size_t n, size_t size, int (*compare)(const void *, const void *))
{
    char *a = base;
    size_t n_roots = n / 2; // first build the heap from the last root; then move its top behind it
    while (n > 1) {
        if (n_roots)
            n_roots--;
        else
            swap(a, a + --n * size, size);
        for (size_t at = n_roots, child; (child = 2 * at + 1) < n; at = child) {
            if (child + 1 < n && compare(a + child * size, a + (child + 1) * size) < 0)
                child++;
            if (compare(a + at * size, a + child * size) >= 0)
                break;
            swap(a + at * size, a + child * size, size);
        }
    }
}

/* ---- numbers ---- */

/* Round to nearest, ties to even, by one instruction. */
long lrintf(float x)
{
    return (long)__builtin_rintf(x);
}

/* The compiler calls this for a 128-bit product. It multiplies 32-bit halves, because a 128-bit
 * product here would call it again. */
__int128 __multi3(__int128 a, __int128 b);
__int128 __multi3(__int128 a, __int128 b)
{
    const uint64_t al = (uint64_t)a, bl = (uint64_t)b, mask = UINT32_MAX;
    const uint64_t low = (al & mask) * (bl & mask);
    const uint64_t middle = (al >> 32) * (bl & mask) + (low >> 32);
    const uint64_t middle2 = (al & mask) * (bl >> 32) + (middle & mask);
    const uint64_t high = (al >> 32) * (bl >> 32) + (middle >> 32) + (middle2 >> 32) +
                          (uint64_t)(a >> 64) * bl + al * (uint64_t)(b >> 64);
    return (__int128)((unsigned __int128)high << 64 | middle2 << 32 | (low & mask));
}
