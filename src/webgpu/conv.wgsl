// conv.wgsl: a short convolution between two gates, of rows of one sequence at consecutive
//      positions; and the columns that its sequence keeps (engine/columns.h).
// In:  X [n, x_stride]: b, c and x of each row side by side; V: the weights, the oldest column
//      first; COLUMNS: the slots of the sequence.
// Out: Y [n, y_stride] = c * (bias + sum of weights times columns). With KEEPS: COLUMNS.
//
// A thread has one channel of n_rows rows, one after the other. Many rows are computed by many
// workgroups before one dispatch keeps their columns.

struct Params {
    d_model: u32,
    n: u32, // rows
    n_rows: u32, // of a workgroup
    first_t: u32, // in X and Y
    x_stride: u32,
    y_stride: u32,
    column_stride: u32,
    pos: i32, // of the first row
    mark: i32, // that has the columns before the first row; -1: the ring has them
    needs_start: u32,
    weights_at: u32,
    bias_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<f32>;
@group(0) @binding(2) var<storage, read> V: array<f32>;
@group(0) @binding(3) var<storage, read_write> Y: array<f32>;
@group(0) @binding(4) var<storage, read_write> COLUMNS: array<f32>;

const NONE = 0xffffffffu;
const BEFORE = WIDTH - 1; // columns that a position reads before its own

fn ring_slot(pos: i32) -> i32 {
    return pos % RING;
}

fn mark_slot(number: i32, at: i32, pos: i32) -> i32 {
    return RING + number * BEFORE + pos - (at - BEFORE);
}

// Column `pos` of channel i, of the rows or before them.
fn column(pos: i32, i: u32) -> f32 {
    if (pos < 0) {
        return 0.0;
    }
    if (pos >= p.pos) {
        let at = (p.first_t + u32(pos - p.pos)) * p.x_stride + i;
        return X[at] * X[at + 2u * p.d_model];
    }
    var slot = ring_slot(pos);
    if (p.mark >= 0) {
        slot = mark_slot(p.mark, p.pos, pos);
    }
    return COLUMNS[u32(slot) * p.column_stride + i];
}

fn keep(slot: i32, pos: i32, i: u32) {
    COLUMNS[u32(slot) * p.column_stride + i] = column(pos, i);
}

// Keep the columns before position `at` as a mark.
fn keep_mark(number: i32, at: i32, i: u32) {
    for (var pos = max(0, at - BEFORE); pos < at; pos++) {
        keep(mark_slot(number, at, pos), pos, i);
    }
}

// Marks and what they are made of are read before the ring is overwritten.
fn keep_columns(i: u32) {
    let end = p.pos + i32(p.n);
    if (p.mark >= 0) {
        for (var pos = max(0, p.pos - BEFORE); pos < p.pos; pos++) {
            keep(ring_slot(pos), pos, i);
        }
    }
    if (p.needs_start != 0u) {
        keep_mark(0, p.pos, i);
    }
    for (var at = (p.pos / CHUNK + 1) * CHUNK; at <= end; at += CHUNK) {
        keep_mark(at / CHUNK, at, i);
    }
    for (var pos = max(p.pos, end - RING); pos < end; pos++) {
        keep(ring_slot(pos), pos, i);
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let i = group.x * 64u + thread;
    if (i >= p.d_model) {
        return;
    }
    let end = min(p.n, (group.y + 1u) * p.n_rows);
    for (var t = group.y * p.n_rows; t < end; t++) {
        var y = 0.0;
        if (p.bias_at != NONE) {
            y = V[p.bias_at + i];
        }
        for (var k = 0; k < WIDTH; k++) {
            y += V[p.weights_at + u32(k) * p.d_model + i] *
                 column(p.pos + i32(t) - BEFORE + k, i);
        }
        let gate = X[(p.first_t + t) * p.x_stride + p.d_model + i];
        Y[(p.first_t + t) * p.y_stride + i] = gate * y;
    }
    if (KEEPS) {
        keep_columns(i);
    }
}
