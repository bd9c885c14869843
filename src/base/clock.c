/* clock.c: the time, and a random seed.
 * Out: nanoseconds of a clock that never goes back; 64 bits from the system. */
#include "base.h"

#include <time.h>

uint64_t qp_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t qp_random_seed(void)
{
    uint64_t seed = 0;
    FILE *in = fopen("/dev/urandom", "rb");
    if (in) {
        setvbuf(in, NULL, _IONBF, 0); // read eight bytes, not a whole buffer
        if (fread(&seed, sizeof seed, 1, in) != 1)
            seed = 0;
        fclose(in);
    }
    if (!seed) // no such device: clock and address bits, mixed with the constant of splitmix64
        seed = (qp_now_ns() ^ (uint64_t)(uintptr_t)&seed) * 0x9e3779b97f4a7c15u + (uint64_t)time(0);
    return seed ? seed : 1;
}
