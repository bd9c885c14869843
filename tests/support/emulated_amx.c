/* emulated_amx.c: the AMX files of src/cpu/x86/ with functions instead of the instructions for
 * tiles. In, out: those of the instructions, for tiles of 16 rows of 64 bytes. */
#include "emulated_amx.h"

#if defined(__x86_64__)

#include <assert.h>
#include <immintrin.h>
#include <string.h>

static uint8_t registers[8][16][64];
static bool is_configured;

static void configure_tiles(bool is_on)
{
    memset(registers, is_on ? 0 : 0x55, sizeof registers);
    is_configured = is_on;
}

static void load_tile(int tile, const void *from, size_t stride)
{
    assert(is_configured);
    for (size_t i = 0; i < 16; i++)
        memcpy(registers[tile][i], (const uint8_t *)from + i * stride, 64);
}

static void store_tile_at(int tile, void *to, size_t stride)
{
    assert(is_configured);
    for (size_t i = 0; i < 16; i++)
        memcpy((uint8_t *)to + i * stride, registers[tile][i], 64);
}

/* sums[m][n] += the sum over k of a[m][k] * b[k / 4][4 * n + k % 4]; a is signed. */
static void multiply_tiles(int sums, int a, int b, bool is_b_signed)
{
    assert(is_configured);
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            int32_t sum;
            memcpy(&sum, &registers[sums][m][4 * n], sizeof sum);
            for (int k = 0; k < 64; k++) {
                const uint8_t factor = registers[b][k / 4][4 * n + k % 4];
                sum += (int8_t)registers[a][m][k] * (is_b_signed ? (int8_t)factor : factor);
            }
            memcpy(&registers[sums][m][4 * n], &sum, sizeof sum);
        }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbsud
#define _tile_loadconfig(config) ((void)(config), configure_tiles(true))
#define _tile_release() configure_tiles(false)
#define _tile_zero(tile) memset(registers[tile], 0, sizeof registers[tile])
#define _tile_loadd(tile, from, stride) load_tile(tile, from, stride)
#define _tile_stored(tile, to, stride) store_tile_at(tile, to, stride)
#define _tile_dpbssd(sums, a, b) multiply_tiles(sums, a, b, true)
#define _tile_dpbsud(sums, a, b) multiply_tiles(sums, a, b, false)
#define qp_linear_kernels_amx emulated_linear_kernels
#define qp_attention_kernels_amx emulated_attention_kernels
#include "cpu/x86/attention_amx.c"
#include "cpu/x86/linear_amx.c"

void emulated_amx_kernels(struct kernels *k)
{
    emulated_linear_kernels(k);
    emulated_attention_kernels(k);
}

void intel_kernels(struct kernels *k)
{
    qp_cpu_intel(k);
}

void zen4_gemm(struct kernels *k)
{
    k->gemm = qp_gemm_zen4;
}

#else

void intel_kernels(struct kernels *k)
{
    (void)k;
}

void zen4_gemm(struct kernels *k)
{
    (void)k;
}

void emulated_amx_kernels(struct kernels *k)
{
    (void)k;
}

#endif
