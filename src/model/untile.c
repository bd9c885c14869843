/* untile.c: the rows of matrices that are stored in tiles.
 * In:  a matrix of one of MediaPipe's files for GPUs: W[n_out, n_in] as tiles of 4 x 4, dims
 *      [n_in / 4][n_out / 4][4 in][4 out]. Int8 is stored plus 128, int4 plus 8, and an unquantized
 *      matrix is binary16 although its type says float32 (docs/model-format.md).
 * Out: rows, as kernels need them. So these files, and no others, cost a copy of their weights. */
#include "model/model.h"

#include <assert.h>
#include <string.h>

/* Index of element (o, i) in the tiled order. */
static size_t tiled(size_t o, size_t i, size_t n_out)
{
    return ((i / 4) * (n_out / 4) + o / 4) * 16 + (i % 4) * 4 + o % 4;
}

/* Row r, for each type. */

static void untile_i8(int8_t *row, const uint8_t *from, size_t r, size_t n_out, size_t n_in)
{
    for (size_t i = 0; i < n_in; i++)
        row[i] = (int8_t)(from[tiled(r, i, n_out)] ^ 0x80);
}

static void untile_i4(uint8_t *row, const uint8_t *from, size_t r, size_t n_out, size_t n_in)
{
    for (size_t i = 0; i < n_in; i++) {
        const size_t at = tiled(r, i, n_out);
        const unsigned q = from[at / 2] >> (at % 2 * 4) & 15u;
        row[i / 2] = (uint8_t)(i % 2 ? row[i / 2] | q << 4 : q);
    }
}

static void untile_f16(float *row, const uint8_t *from, size_t r, size_t n_out, size_t n_in)
{
    for (size_t i = 0; i < n_in; i++)
        row[i] = qp_half_value(from + 2 * tiled(r, i, n_out));
}

size_t qp_untiled_bytes(const struct tensor *t)
{
    return qp_round_up((size_t)t->n_bytes * (t->dtype == DTYPE_F32 ? 2 : 1), 64);
}

void qp_untile(struct matrix *m, void *rows, const uint8_t *from)
{
    const size_t n_out = (size_t)m->n_out, n_in = (size_t)m->n_in;
    assert(n_out % 4 == 0 && n_in % 4 == 0);
    for (size_t r = 0; r < n_out; r++) {
        void *row = (char *)rows + r * m->row_bytes;
        if (m->dtype == DTYPE_I8)
            untile_i8(row, from, r, n_out, n_in);
        else if (m->dtype == DTYPE_I4)
            untile_i4(row, from, r, n_out, n_in);
        else
            untile_f16(row, from, r, n_out, n_in);
    }
    m->data = rows;
}

void qp_untile_floats(float *to, const uint8_t *from, size_t n_out, size_t n_in, bool is_half)
{
    assert(n_out % 4 == 0 && n_in % 4 == 0);
    for (size_t o = 0; o < n_out; o++)
        for (size_t i = 0; i < n_in; i++) {
            const size_t at = tiled(o, i, n_out);
            if (is_half)
                to[o * n_in + i] = qp_half_value(from + 2 * at);
            else
                memcpy(&to[o * n_in + i], from + 4 * at, sizeof *to);
        }
}
