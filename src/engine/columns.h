/* columns.h: what a sequence keeps of a short convolution, so that it can go on and back.
 * In:  the positions of the rows that run.
 * Out: the slots of the columns (backend.h, conv) that later positions read.
 *
 * A convolution of width w reads the w - 1 columns before its position. To be able to go back, a
 * layer keeps, in slots that begin with the ring,
 *   a ring:  the last COLUMN_RING columns; position p is in slot p % COLUMN_RING
 *   a mark:  the w - 1 columns before the last batch that was longer than the ring
 *   marks:   the w - 1 columns before positions PREFILL_CHUNK, 2 * PREFILL_CHUNK, ...
 * So draft tokens, failed batches and short rewinds lose nothing, and a longer rewind runs less
 * than a chunk of text again. LFM2 1.2B needs 3.1 MB for 4096 positions; columns of a whole chunk
 * would be 42 MB.
 *
 * struct columns describes what a layer has stored, also of a batch that failed between two layers.
 * Going back changes nothing here: the next batch restores the ring. */
#ifndef QP_COLUMNS_H
#define QP_COLUMNS_H

#include "engine/backend.h"

#include <assert.h>

#define COLUMN_RING 32
/* Draws of a batch, all tokens of which can be rejected. */
#define COLUMN_DRAWS (COLUMN_RING - MAX_CONV_WIDTH + 1)
static_assert(COLUMN_DRAWS >= SEQUENCE_OUTPUTS, "draft tokens can be rejected");

struct columns {
    int width;      // of the convolution
    int begin, end; // those of positions [begin, end) are in the ring
    int start;      // where the last batch began that was longer than the ring; -1: there was none
};

static inline struct columns qp_columns(int width)
{
    return (struct columns){ .width = width, .start = -1 };
}

/* Slots of a sequence of n_context positions. */
static inline int qp_columns_slots(int width, int n_context)
{
    return COLUMN_RING + (1 + n_context / PREFILL_CHUNK) * (width - 1);
}

static inline int qp_ring_slot(int pos)
{
    assert(pos >= 0);
    return pos % COLUMN_RING;
}

/* The slot of column `pos` in the mark before position `at`: number 0 is that of a batch, number k
 * that of position k * PREFILL_CHUNK. */
static inline int qp_mark_slot(const struct columns *c, int number, int at, int pos)
{
    const int n = c->width - 1;
    assert(number >= 0 && pos >= at - n && pos < at);
    return COLUMN_RING + number * n + pos - (at - n);
}

/* The first column that a convolution at `pos` reads. */
static inline int qp_first_column(const struct columns *c, int pos)
{
    return qp_max(0, pos - (c->width - 1));
}

static inline bool qp_is_in_ring(const struct columns *c, int pos)
{
    return qp_first_column(c, pos) >= c->begin && pos <= c->end;
}

static inline bool qp_columns_go_on(const struct columns *c, int pos)
{
    return pos == 0 || qp_is_in_ring(c, pos) || pos == c->start ||
           (pos % PREFILL_CHUNK == 0 && pos <= c->end);
}

/* The mark that has the columns before `at`, which are not in the ring. */
static inline int qp_columns_mark(const struct columns *c, int at)
{
    return at == c->start ? 0 : at / PREFILL_CHUNK;
}

/* The slot of the kept column `pos` of those that a convolution at `at` reads. */
static inline int qp_kept_slot(const struct columns *c, int at, int pos)
{
    assert(qp_columns_go_on(c, at) && pos >= qp_first_column(c, at) && pos < at);
    return qp_is_in_ring(c, at) ? qp_ring_slot(pos)
                                : qp_mark_slot(c, qp_columns_mark(c, at), at, pos);
}

/* Is a batch of n rows longer than the ring? */
static inline bool qp_columns_need_start(const struct columns *c, int n)
{
    return n + c->width - 1 > COLUMN_RING;
}

/* n rows from `pos` on have run: their columns, and the marks among them, are kept. */
static inline void qp_columns_advance(struct columns *c, int pos, int n)
{
    const int end = pos + n;
    if (!qp_is_in_ring(c, pos)) // restored
        c->begin = qp_first_column(c, pos);
    c->begin = qp_max(c->begin, end - COLUMN_RING);
    if (qp_columns_need_start(c, n))
        c->start = pos;
    else if (c->start > pos)
        c->start = -1; // of a text that is gone
    c->end = end;
}

/* What is stored after an import up to `pos`: the marks, and behind the last one the columns before
 * `pos` in the ring. */
static inline void qp_columns_imported(struct columns *c, int pos)
{
    c->begin = pos % PREFILL_CHUNK ? qp_first_column(c, pos) : pos;
    c->end = pos;
    c->start = -1;
}

/* Where column `pos` of those before position `at` is stored, or goes in an import: in the marks,
 * then in the ring. */
static inline int qp_stored_slot(const struct columns *c, int at, int pos, bool is_import)
{
    if (at % PREFILL_CHUNK == 0)
        return qp_mark_slot(c, at / PREFILL_CHUNK, at, pos);
    if (is_import || qp_is_in_ring(c, at))
        return qp_ring_slot(pos);
    assert(at == c->start);
    return qp_mark_slot(c, 0, at, pos);
}

#endif
