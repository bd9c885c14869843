/* few_rows.c: products of few rows of a batch on the GPU, row by row (matvec.wgsl) or together
 * (matrows_subgroups.wgsl), with the same bits.
 * In:  a buffer of the batch, or what is pending and makes it; the slabs of a product.
 * Out: another buffer. */
#include "webgpu/few_rows.h"

#include <assert.h>
#include <string.h>

enum {
    GROUP_SIZE = 256,    // threads of a workgroup
    LARGE_GROUP = 512,   // of one that adds up parts of attention
    MANY_GROUPS = 264,   // as many as a large GPU runs at once; more compute their input for less
    MIN_LANES = 8,       // that share a row of a matrix
    FEW_LANES = 32,      // where there are few rows
    MANY_SLOTS = 4,      // 16 bytes of a row, for each of its lanes; then more lanes share it
    MANY_SLOTS_INT4 = 2, // of int4, which needs more registers
    MAX_SLOTS = 8,       // that matvec.wgsl has
    LANES_BYTES = 5120,  // of a workgroup, for sums over threads
    MIN_TILE = 4,        // rows of x that matrows_subgroups.wgsl multiplies together
    MAX_TILE = 16,
    STORES_ROW = 3, // of STORES of input_norm.wgsl: x, or its norm,
    STORES_BEST = 4 // or candidates
};

/* ---- row by row ---- */

/* struct Input of input_plain.wgsl, input_norm.wgsl and input_parts.wgsl */
union input_parameters {
    uint32_t stride;
    struct norm_parameters norm;
    struct {
        uint32_t n_heads, n_parts;
    } parts;
};

/* struct Params of matvec.wgsl */
struct matvec_parameters {
    struct matrix_parameters matrix;
    uint32_t out_stride, out_at, n_gate, first_t;
    float scale, cap;
    uint32_t n_turns, n_groups;
    union input_parameters input;
};

/* How a matrix is divided among threads (matvec.wgsl). */
struct division {
    int size, lanes, slots, n_chunks;
    bool is_pair, reads_ahead;
    uint32_t n_turns, n_groups;
};

/* Many lanes for a row where there are few rows, so that all of a GPU has work. */
static int lanes_of(int n_vecs, int n_rows, int many_slots)
{
    int lanes = MIN_LANES;
    while (lanes < GROUP_SIZE && (n_vecs + lanes - 1) / lanes > many_slots)
        lanes *= 2;
    while (lanes < FEW_LANES && n_rows * lanes < MANY_GROUPS * GROUP_SIZE && lanes < n_vecs)
        lanes *= 2;
    return lanes;
}

static struct division divide_floats(const struct gpu_slab *w, bool is_gate)
{
    enum {
        SIZE = 128,
        LANES = 32
    };
    const uint32_t rows = SIZE / LANES, n = (uint32_t)(is_gate ? w->n_rows / 2 : w->n_rows);
    return (struct division){ .size = SIZE,
                              .lanes = LANES,
                              .slots = 1,
                              .n_chunks = 4,
                              .is_pair = is_gate,
                              .n_turns = 1,
                              .n_groups = (n + rows - 1) / rows };
}

static struct division divide(const struct gpu_slab *w, bool is_gate)
{
    const int n_chunks = (int)qp_round_up((size_t)w->n_in, ROW_UNIT) / 16;
    const int n_vecs = w->dtype == DTYPE_I8 ? n_chunks : n_chunks / 2; // of 16 bytes
    struct division d = { .size = GROUP_SIZE, .n_chunks = n_chunks };
    if (w->dtype == DTYPE_F32)
        return divide_floats(w, is_gate);
    d.lanes = lanes_of(n_vecs, w->n_rows, w->dtype == DTYPE_I8 ? MANY_SLOTS : MANY_SLOTS_INT4);
    d.slots = (n_vecs + d.lanes - 1) / d.lanes;
    const int rows = d.size / d.lanes;
    d.is_pair = is_gate || w->n_rows / rows > 2 * MANY_GROUPS;
    const int n = d.is_pair ? (w->n_rows + 1) / 2 : w->n_rows, n_turns = (n + rows - 1) / rows;
    d.n_turns = (uint32_t)((n_turns + MANY_GROUPS - 1) / MANY_GROUPS);
    d.n_groups = ((uint32_t)n_turns + d.n_turns - 1) / d.n_turns;
    // int8 with a barrier in each turn is slower with it
    d.reads_ahead = d.n_turns > 1 && (w->dtype != DTYPE_I8 || d.lanes < GROUP_SIZE);
    return d;
}

/* The same for the product behind attention. Every workgroup reads all parts, so large ones, which
 * are fewer, read less. */
static struct division divide_parts(const struct webgpu_device *d, const struct gpu_slab *w)
{
    struct division v = divide(w, false);
    if (d->subgroup >= 8 && qp_gpu_info(d->gpu)->group_size >= LARGE_GROUP && v.n_turns == 1 &&
        v.n_groups > MANY_GROUPS / 2) {
        v.size = LARGE_GROUP;
        v.n_groups = (v.n_groups + 1) / 2;
    }
    return v;
}

/* Do rows of n_in numbers fit in a workgroup of matvec.wgsl, whose input needs n_more bytes? */
static bool fits(const struct webgpu_device *d, const struct gpu_product *w, size_t n_more)
{
    const size_t n_bytes = qp_round_up((size_t)w->n_in, ROW_UNIT) * 17 / 16 + n_more;
    for (int i = 0; i < w->n_slabs; i++)
        if (w->slabs[i].dtype != DTYPE_F32 &&
            (divide(&w->slabs[i], false).slots > MAX_SLOTS ||
             n_bytes + LANES_BYTES > qp_gpu_info(d->gpu)->group_memory))
            return false;
    return true;
}

/* The shader, and what it needs for its input. */
static void bind_input(const struct webgpu_device *d, const struct matvec *m, struct call *call,
                       struct matvec_parameters *p)
{
    if (m->step) {
        const struct gpu_range bindings[] = { slab_range(m->slab),
                                              range_of(&d->mem.x),
                                              range_of(&d->mem.y),
                                              range_of(&d->vector_memory),
                                              range_of(m->out),
                                              m->new_x.buffer ? m->new_x : range_of(&d->mem.next_x),
                                              range_of(m->finds_best ? &d->mem.candidates
                                                                     : &d->mem.xn) };
        call->shader = SHADER_MATVEC_NORM;
        memcpy(call->bindings, bindings, sizeof bindings);
        qp_webgpu_norm_constants(d, m->step, call->constants + N_MATVEC_CONSTANTS);
        call->constants[N_MATVEC_CONSTANTS + N_NORM_CONSTANTS] = m->stores;
        call->constants[N_MATVEC_CONSTANTS + N_NORM_CONSTANTS + 1] =
            m->slab->dtype != DTYPE_F32 && m->slab->n_in <= 16 * call->constants[7];
        p->input.norm = qp_webgpu_norm_parameters(d, m->step);
        return;
    }
    call->bindings[0] = slab_range(m->slab);
    call->bindings[1] = range_of(m->parts ? &d->mem.parts : m->in);
    call->bindings[2] = range_of(m->out);
    if (!m->parts) {
        call->shader = m->is_rounded ? SHADER_MATVEC_ROUNDED : SHADER_MATVEC;
        p->input.stride = (uint32_t)m->in->stride / 4;
        return;
    }
    call->shader = SHADER_MATVEC_PARTS;
    call->constants[N_MATVEC_CONSTANTS] = m->parts->head_dim;
    call->constants[N_MATVEC_CONSTANTS + 1] = qp_webgpu_part_words(true, m->parts->head_dim);
    p->input.parts.n_heads = (uint32_t)d->base.config->n_heads;
    p->input.parts.n_parts = (uint32_t)m->parts->n_parts;
}

quip_status qp_webgpu_matvec(struct webgpu_device *d, const struct matvec *m)
{
    const struct gpu_slab *p = m->slab;
    const int n_out = m->gate == GATE_PAIR ? p->n_rows / 2 : p->n_rows;
    const uint32_t max = qp_gpu_info(d->gpu)->max_groups;
    struct matvec_parameters parameters = { .matrix = qp_webgpu_describe(p),
                                            .out_stride = (uint32_t)m->out->stride,
                                            .out_at = (uint32_t)m->at,
                                            .n_gate = (uint32_t)n_out,
                                            .first_t = (uint32_t)m->first_t,
                                            .scale = m->scale,
                                            .cap = m->cap };
    const struct division v = m->parts ? divide_parts(d, p) : divide(p, m->gate == GATE_PAIR);
    parameters.n_turns = v.n_turns;
    parameters.n_groups = v.n_groups;
    if (m->finds_best)
        parameters.n_gate = (uint32_t)d->n_candidates;
    struct call call = { .constants = { p->n_in % 16 == 0, qp_webgpu_type(p), p->has_zeros,
                                        (int)m->gate, m->cap > 0, m->accumulates,
                                        (int)d->base.config->act, v.size, v.lanes, v.slots,
                                        v.n_chunks, v.is_pair, v.reads_ahead, m->rounds },
                         .parameters = &parameters,
                         .n_parameters = sizeof parameters,
                         .z = (uint32_t)m->n,
                         .name = m->name,
                         .n_weight = p->n_bytes };
    bind_input(d, m, &call, &parameters);
    const uint32_t n_groups = parameters.n_groups + ((m->stores & STORES_ROW) != 0);
    if (m->finds_best)
        d->n_candidates += (int)parameters.n_groups;
    call.y = (n_groups + max - 1) / max;
    call.x = (n_groups + call.y - 1) / call.y;
    return qp_webgpu_dispatch(d, &call);
}

/* Can n_groups workgroups add up these parts of attention (input_parts.wgsl)? What all of them read
 * together is limited. */
static bool can_add_parts(const struct webgpu_device *d, const struct gpu_product *w,
                          const struct parts *parts, int n_groups)
{
    enum {
        MAX_HEADS = 64,
        MAX_PARTS = 768,        // of all heads
        MAX_NUMBERS = 16 << 20, // of the parts, that all workgroups read
    };
    const int n_heads = d->base.config->n_heads;
    const size_t n_bytes = ((size_t)3 * MAX_PARTS + qp_round_up((size_t)w->n_in, ROW_UNIT)) * 4;
    for (int i = 0; i < w->n_slabs; i++)
        if (w->slabs[i].dtype == DTYPE_F32)
            return false;
    return qp_webgpu_has_half_parts(d, parts->head_dim) && n_heads <= MAX_HEADS &&
           n_heads * parts->n_parts <= MAX_PARTS &&
           (int64_t)n_groups * w->n_in * parts->n_parts <= MAX_NUMBERS && fits(d, w, n_bytes);
}

/* The step that is pending, if it makes the n rows of XN that a product reads: the product does it.
 * False: there is none, and XN is in memory once the next dispatch is recorded. */
static bool take_step(struct webgpu_device *d, const struct scratch *in, int n,
                      struct add_step *step)
{
    if (in->buffer != d->mem.xn.buffer || d->pending.n_rows != n || !d->pending.step.next)
        return false;
    *step = d->pending.step;
    d->pending.n_rows = 0;
    return true;
}

/* Does a step change X? */
static bool changes_x(const struct add_step *s)
{
    return s->adds || s->scales || s->post == 2;
}

/* After the products that did a step: X is what the first of them wrote. */
static void finish_step(struct webgpu_device *d, const struct add_step *step)
{
    const struct scratch x = d->mem.x;
    if (!changes_x(step))
        return;
    d->mem.x = d->mem.next_x;
    d->mem.next_x = x;
}

/* What is pending, where a product makes its input of it. */
struct taken {
    struct add_step step;
    struct parts parts;
};

/* Do all workgroups of a product together leave at most MAX_CANDIDATES? */
static bool has_few_groups(const struct gpu_product *w)
{
    uint32_t n = 0;
    for (int i = 0; i < w->n_slabs; i++)
        n += divide(&w->slabs[i], false).n_groups;
    return n <= MAX_CANDIDATES;
}

/* Let m->step and m->parts be what is pending, if it makes the input of a product, and m->stores
 * what the step leaves. n_groups workgroups would add up the parts. */
static void take_pending(struct webgpu_device *d, const struct gpu_product *w, struct matvec *m,
                         struct taken *taken, bool keeps_input, int n_groups)
{
    taken->parts = d->pending.parts;
    const bool has_step = take_step(d, m->in, m->n, &taken->step);
    const bool has_parts = !keeps_input && m->in->buffer == d->mem.att.buffer &&
                           taken->parts.n_rows == m->n &&
                           can_add_parts(d, w, &taken->parts, n_groups);
    if (has_parts)
        d->pending.parts.n_rows = 0;
    m->name = w->name;
    m->step = has_step ? &taken->step : NULL;
    m->parts = has_parts ? &taken->parts : NULL;
    m->stores = has_step ? changes_x(&taken->step) + 2 * keeps_input : 0;
    m->finds_best = m->finds_best && has_step && !keeps_input && m->n == 1 && has_few_groups(w);
    if (m->finds_best)
        m->stores |= STORES_BEST;
}

quip_status qp_webgpu_matvecs(struct webgpu_device *d, const struct gpu_product *w, struct matvec m,
                              bool keeps_input)
{
    struct taken taken;
    quip_status status = QUIP_OK;
    take_pending(d, w, &m, &taken, keeps_input, qp_min(w->n_out / 4, MANY_GROUPS));
    for (int i = 0; i < w->n_slabs && !status; i++) {
        m.slab = &w->slabs[i];
        status = qp_webgpu_matvec(d, &m);
        m.stores &= STORES_BEST;
    }
    if (m.step && !m.new_x.buffer)
        finish_step(d, m.step);
    return status;
}

/* ---- together ---- */

/* Are the weights of all slabs int8, or all int4, which have x in another order? */
static bool is_one_kind(const struct gpu_product *w)
{
    for (int i = 0; i < w->n_slabs; i++)
        if (w->slabs[i].dtype == DTYPE_F32 ||
            (w->slabs[i].dtype == DTYPE_I8) != (w->slabs[0].dtype == DTYPE_I8))
            return false;
    return true;
}

/* Can rows of x be multiplied together, with the bits that they have alone? */
static bool can_multiply_together(const struct webgpu_device *d, const struct gpu_product *w)
{
    for (int i = 0; i < w->n_slabs; i++)
        if (w->slabs[i].has_zeros)
            return false;
    return is_one_kind(w) && d->subgroup > 1 && d->subgroup <= 32 && fits(d, w, 0);
}

/* Is that faster for n rows? Of few rows it is if they read that much more one by one that rounding
 * them before costs less. A matrix with few rows for their length has work for few teams, which
 * costs more. */
bool qp_webgpu_multiplies_together(const struct webgpu_device *d, const struct gpu_product *w,
                                   int n)
{
    uint64_t n_bytes = 0;
    for (int i = 0; i < w->n_slabs; i++)
        n_bytes += w->slabs[i].n_bytes;
    const int n_more = n - (w->n_out > w->n_in ? 2 : 6);
    const bool is_large = n_more > 0 && (uint64_t)n_more * n_bytes >= d->large_reads;
    return (n > FEW_ROWS || is_large) && can_multiply_together(d, w);
}

enum way qp_webgpu_way_of(const struct webgpu_device *d, const struct gpu_product *w, int n)
{
    const int most = can_multiply_together(d, w) ? SOME_ROWS : FEW_ROWS;
    if (d->has_texts || d->longest_run > most || !fits(d, w, 0))
        return IN_TILES;
    return qp_webgpu_multiplies_together(d, w, n) ? TOGETHER : ROW_BY_ROW;
}

/* Rows of x that a workgroup has: all n if possible, but its memory has to hold two steps. */
static int tile_of(const struct webgpu_device *d, const struct gpu_slab *p, int n)
{
    const size_t step_bytes = (size_t)d->subgroup * (p->dtype == DTYPE_I8 ? 16 + 4 : 32 + 4);
    int tile = MAX_TILE;
    while (tile > MIN_TILE &&
           (tile / 2 >= n || 2 * (size_t)tile * step_bytes > qp_gpu_info(d->gpu)->group_memory))
        tile /= 2;
    return tile;
}

/* struct Params of round_rows.wgsl */
struct round_parameters {
    uint32_t n_in, unused[3];
    union input_parameters input;
};

/* Round the rows of x of a product. */
static quip_status round_rows(struct webgpu_device *d, const struct matvec *m)
{
    const struct gpu_slab *p = m->slab;
    const struct gpu_range quantized = range_of(&d->mem.quantized),
                           scales = range_of(&d->mem.scales);
    struct round_parameters parameters = { .n_in = (uint32_t)p->n_in };
    struct call call = {
        .shader = SHADER_ROUND,
        .constants = { p->n_in % 16 == 0, p->dtype != DTYPE_I8, GROUP_SIZE, MIN_LANES,
                       (int)qp_round_up((size_t)p->n_in, ROW_UNIT) / 16, 4 },
        .parameters = &parameters,
        .n_parameters = sizeof parameters,
        .bindings = { range_of(&d->vector_memory), range_of(m->parts ? &d->mem.parts : m->in),
                      scales, quantized },
        .x = (uint32_t)m->n
    };
    int32_t *more = call.constants + N_ROUND_CONSTANTS;
    if (m->step) {
        const struct gpu_range bindings[] = { range_of(&d->vector_memory),
                                              range_of(&d->mem.x),
                                              range_of(&d->mem.y),
                                              range_of(&d->vector_memory),
                                              scales,
                                              range_of(&d->mem.next_x),
                                              range_of(&d->mem.xn),
                                              quantized };
        call.shader = SHADER_ROUND_NORM;
        call.constants[5] = QP_COUNT(bindings);
        memcpy(call.bindings, bindings, sizeof bindings);
        qp_webgpu_norm_constants(d, m->step, more);
        more[N_NORM_CONSTANTS] = m->stores;
        more[N_NORM_CONSTANTS + 1] = p->n_in <= 16 * GROUP_SIZE;
        parameters.input.norm = qp_webgpu_norm_parameters(d, m->step);
    } else if (m->parts) {
        call.shader = SHADER_ROUND_PARTS;
        more[0] = m->parts->head_dim;
        more[1] = qp_webgpu_part_words(true, m->parts->head_dim);
        parameters.input.parts.n_heads = (uint32_t)d->base.config->n_heads;
        parameters.input.parts.n_parts = (uint32_t)m->parts->n_parts;
    } else {
        parameters.input.stride = (uint32_t)m->in->stride / 4;
        call.y = (uint32_t)(2 * call.constants[4] + GROUP_SIZE - 1) / GROUP_SIZE;
    }
    return qp_webgpu_dispatch(d, &call);
}

/* Rows of the matrix that the threads of a row have together: many where all of a GPU has work and
 * each is multiplied with many rows of x. */
static int team_rows(const struct gpu_slab *p, int n_teams, int tile, bool is_gate)
{
    int n = tile > MIN_TILE ? 4 : 2;
    while (n > (is_gate ? 2 : 1) && p->n_rows / (n * n_teams) < MANY_GROUPS / 2 - 4)
        n /= 2;
    return n;
}

static quip_status run_matrows(struct webgpu_device *d, const struct matvec *m)
{
    const struct gpu_slab *p = m->slab;
    const bool is_gate = m->gate == GATE_PAIR;
    const struct division v = divide(p, is_gate);
    const int n_teams = GROUP_SIZE / qp_min(v.lanes, d->subgroup), tile = tile_of(d, p, m->n);
    const int n_rows = team_rows(p, n_teams, tile, is_gate), per_group = n_teams * n_rows;
    const struct parameters {
        struct matrix_parameters matrix;
        uint32_t out_stride, out_at, n_gate, n;
        float scale, cap;
    } parameters = { qp_webgpu_describe(p),
                     (uint32_t)m->out->stride,
                     (uint32_t)m->at,
                     (uint32_t)(is_gate ? p->n_rows / 2 : p->n_rows),
                     (uint32_t)m->n,
                     m->scale,
                     m->cap };
    return qp_webgpu_dispatch(
        d, &(struct call){ .shader = SHADER_MATROWS,
                           .constants = { qp_webgpu_type(p), false, (int)m->gate, m->cap > 0, false,
                                          (int)d->base.config->act, GROUP_SIZE, v.lanes, v.slots,
                                          v.n_chunks, n_rows, tile },
                           .parameters = &parameters,
                           .n_parameters = sizeof parameters,
                           .bindings = { slab_range(p), range_of(&d->mem.quantized),
                                         range_of(&d->mem.scales), range_of(m->out) },
                           .x = (uint32_t)((m->n + tile - 1) / tile),
                           .y = (uint32_t)((p->n_rows + per_group - 1) / per_group),
                           .name = m->name,
                           .n_weight = p->n_bytes });
}

quip_status qp_webgpu_matrows(struct webgpu_device *d, const struct gpu_product *w, struct matvec m,
                              bool keeps_input)
{
    struct taken taken;
    take_pending(d, w, &m, &taken, keeps_input, m.n);
    m.slab = &w->slabs[0];
    quip_status status = round_rows(d, &m);
    if (m.step)
        finish_step(d, m.step);
    for (int i = 0; i < w->n_slabs && !status; i++) {
        m.slab = &w->slabs[i];
        status = run_matrows(d, &m);
    }
    return status;
}

/* ---- h ---- */

/* Rounded, if each workgroup of gate and up has 64 numbers of h. Then no workgroup of the product
 * behind them has to round all of it. */
int qp_webgpu_rounds_of(const struct webgpu_device *d, const struct layer_products *layer, int n)
{
    const struct gpu_slab *w = layer->gate_up.slabs;
    const struct gpu_product *down = &layer->down;
    const struct division v = divide(w, true);
    if (w->dtype == DTYPE_F32 || d->base.config->mixes_inputs ||
        qp_webgpu_way_of(d, down, n) != ROW_BY_ROW ||
        v.n_turns * (uint32_t)(v.size / v.lanes) != 64 || down->n_in % 64 != 0 ||
        !is_one_kind(down))
        return 0;
    return down->slabs[0].dtype == DTYPE_I8 ? 1 : 2;
}
