// matvec.wgsl: y = w x + bias for a few rows of x: decode, draft tokens, logits.
// In:  a slab of a matrix (upload.c); the function `input` of input_*.wgsl, which is x.
// Out: OUT[t, out_at + first + r]; with GATE 1 act(gate) * up, where the gate's rows come first;
//      with GATE 2 act(y); with CAPS soft-capped; with ACCUMULATES added to what is there.
//
// A workgroup rounds a row of x to int8, in blocks of 64 that share a scale, as the CPU does, CHUNK
// numbers at a time. LANES of its threads share a row of the matrix. If x is one chunk, the workgroup
// goes on to other rows of the matrix with it. Each row of x is computed alone, in the same order
// however many there are, so draft tokens do not change a number.

struct Params {
    m: Matrix,
    out_stride: u32,
    out_at: u32,
    n_gate: u32, // rows of the gate, and of up behind it
    first_t: u32, // the first row of x and OUT
    scale: f32,
    cap: f32,
    n_loops: u32, // rows of the matrix for each LANES threads
    n_groups: u32, // workgroups that have rows of the matrix
    input: Input,
}

@group(0) @binding(0) var<uniform> p: Params;

const CHUNK = SIZE * 16u; // numbers of x that are rounded together
const LANES = SIZE / 4u;   // threads that share a row of the matrix
const ROWS = SIZE / LANES; // of the matrix, that a workgroup has at a time
var<workgroup> x8: array<vec4<u32>, SIZE>; // 16 numbers each
var<workgroup> scales: array<f32, SIZE / 4u>;
var<workgroup> largest: array<f32, SIZE / 4u>; // of each block
// Of each four numbers: the largest, as bits; then the four as int8. Words, because a write of one
// component of a vector may touch the others.
var<workgroup> words: array<u32, 4u * SIZE>;
var<workgroup> lane_sums: array<vec3<f32>, SIZE>;

// A thread's part of the product of row r.
fn float_product(r: u32, t: u32, lane: u32) -> f32 {
    var y = 0.0;
    for (var k = lane; 4u * k < p.m.n_in; k += LANES) {
        y += dot(bitcast<vec4<f32>>(W[r * p.m.row_vecs + k]), input(t, k));
    }
    return y;
}

fn largest_of(v: vec4<f32>) -> f32 {
    let a = abs(v);
    return max(max(a.x, a.y), max(a.z, a.w));
}

fn round4(v: vec4<f32>, inverse: f32) -> u32 {
    return pack4xI8(vec4<i32>(round(clamp(v * inverse, vec4<f32>(-127.0), vec4<f32>(127.0)))));
}

// Numbers 4 (thread + SIZE j) of a chunk and the next three; 0 behind the end of the row.
fn chunk_input(t: u32, first: u32, j: u32, thread: u32) -> vec4<f32> {
    let i = first / 4u + j * SIZE + thread;
    if (4u * i < p.m.n_in) {
        return input(t, i);
    }
    return vec4<f32>(0.0);
}

// The largest of block i, whose 16 words begin at a multiple of 16. Neighbours begin at different
// words, which are in different banks.
fn largest_of_block(i: u32) -> f32 {
    var most = 0u; // bits of numbers that are not negative are ordered as these are
    for (var k = 0u; k < 16u; k++) {
        most = max(most, words[16u * i + (i + k) % 16u]);
    }
    return bitcast<f32>(most);
}

fn inverse_of(j: u32, thread: u32) -> f32 {
    let most = largest[(j * SIZE + thread) / 16u];
    return select(0.0, 127.0 / most, most > 0.0);
}

// Round the numbers [first, first + CHUNK) of row t.
fn round_chunk(t: u32, first: u32, thread: u32) {
    let a = chunk_input(t, first, 0u, thread);
    let b = chunk_input(t, first, 1u, thread);
    let c = chunk_input(t, first, 2u, thread);
    let d = chunk_input(t, first, 3u, thread);
    words[thread] = bitcast<u32>(largest_of(a));
    words[SIZE + thread] = bitcast<u32>(largest_of(b));
    words[2u * SIZE + thread] = bitcast<u32>(largest_of(c));
    words[3u * SIZE + thread] = bitcast<u32>(largest_of(d));
    workgroupBarrier();
    if (thread < SIZE / 4u) {
        largest[thread] = largest_of_block(thread);
        scales[thread] = largest[thread] / 127.0;
    }
    workgroupBarrier();
    words[thread] = round4(a, inverse_of(0u, thread));
    words[SIZE + thread] = round4(b, inverse_of(1u, thread));
    words[2u * SIZE + thread] = round4(c, inverse_of(2u, thread));
    words[3u * SIZE + thread] = round4(d, inverse_of(3u, thread));
    workgroupBarrier();
    let at = 4u * thread;
    x8[thread] = vec4<u32>(words[at], words[at + 1u], words[at + 2u], words[at + 3u]);
    workgroupBarrier();
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) +
           dot4I8Packed(a.w, b.w);
}

// The weights of a chunk of row r that a thread multiplies; the reads are on their way at once.
struct Weights {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

fn weights_or_none(r: u32, k: u32) -> vec4<u32> {
    if (16u * k < p.m.n_in) {
        return weights16(p.m, r, k);
    }
    return vec4<u32>(0u);
}

fn read_weights(r: u32, first: u32, lane: u32) -> Weights {
    let k = first / 16u + lane;
    return Weights(weights_or_none(r, k), weights_or_none(r, k + LANES),
                   weights_or_none(r, k + 2u * LANES), weights_or_none(r, k + 3u * LANES));
}

fn product(w: Weights, lane: u32) -> f32 {
    let k = lane;
    return scales[k / 4u] * f32(dot16(w.a, x8[k])) +
           scales[(k + LANES) / 4u] * f32(dot16(w.b, x8[k + LANES])) +
           scales[(k + 2u * LANES) / 4u] * f32(dot16(w.c, x8[k + 2u * LANES])) +
           scales[(k + 3u * LANES) / 4u] * f32(dot16(w.d, x8[k + 3u * LANES]));
}

// The scales of row r: of up and of the gate.
fn scales_of(r: u32) -> vec2<f32> {
    if (GATE == 1) {
        return vec2<f32>(row_scale(p.m, r + p.n_gate), row_scale(p.m, r));
    }
    return vec2<f32>(row_scale(p.m, r), 0.0);
}

fn store(r: u32, t: u32, scale: vec2<f32>, sum: vec3<f32>) {
    let at = t * p.out_stride + p.out_at + p.m.first + r;
    var y = finish(p.m, select(r, r + p.n_gate, GATE == 1), scale.x, sum.x, sum.y);
    if (GATE == 1) {
        y *= activate(finish(p.m, r, scale.y, sum.z, sum.y));
    }
    if (GATE == 2) {
        y = activate(y);
    }
    y *= p.scale;
    if (CAPS) {
        y = soft_cap(y, p.cap);
    }
    if (ACCUMULATES) {
        y += OUT[at];
    }
    OUT[at] = y;
}

// The weights of a chunk of a row, or of a row of up and one of the gate.
struct RowWeights {
    up: Weights,
    gate: Weights,
}

fn read_row(r: u32, first: u32, lane: u32) -> RowWeights {
    var w = RowWeights();
    if (r < n_rows()) {
        w.up = read_weights(r + select(0u, p.n_gate, GATE == 1), first, lane);
        if (GATE == 1) {
            w.gate = read_weights(r, first, lane);
        }
    }
    return w;
}

// A thread's part of the products with a chunk: (up, sum of the inputs, gate).
fn products(w: RowWeights, lane: u32) -> vec3<f32> {
    var y = vec3<f32>(product(w.up, lane), 0.0, 0.0);
    if (GATE == 1) {
        y.z = product(w.gate, lane);
    }
    if (HAS_ZEROS) {
        let ones = vec4<u32>(0x01010101u);
        y.y = product(Weights(ones, ones, ones, ones), lane);
    }
    return y;
}

fn float_products(r: u32, t: u32, lane: u32) -> vec3<f32> {
    var gate = 0.0;
    if (GATE == 1) {
        gate = float_product(r, t, lane);
    }
    return vec3<f32>(float_product(r + select(0u, p.n_gate, GATE == 1), t, lane), 0.0, gate);
}

// Rows of the output.
fn n_rows() -> u32 {
    return select(p.m.n_rows, p.n_gate, GATE == 1);
}

// Add up a row's parts and store it.
fn finish_row(r: u32, t: u32, lane: u32, thread: u32, mine: vec3<f32>, scale: vec2<f32>) {
    workgroupBarrier();
    lane_sums[thread] = mine;
    workgroupBarrier();
    var sum = mine;
    if (lane < 4u) {
        for (var i = 4u; i < LANES; i += 4u) {
            sum += lane_sums[thread + i];
        }
        lane_sums[thread] = sum; // which no other lane reads above
    }
    workgroupBarrier();
    if (lane == 0u && r < n_rows()) {
        store(r, t, scale, (sum + lane_sums[thread + 1u]) +
                           (lane_sums[thread + 2u] + lane_sums[thread + 3u]));
    }
}

fn row_scales(r: u32, lane: u32) -> vec2<f32> {
    if (lane == 0u && r < n_rows()) {
        return scales_of(r);
    }
    return vec2<f32>(0.0);
}

// Rows r, r + step, ... of the matrix, with an x of one chunk. What is read is on its way while x is
// rounded, or the row before is added up.
fn multiply_rows(first_r: u32, step: u32, t: u32, lane: u32, thread: u32) {
    var r = first_r;
    var w = read_row(r, 0u, lane);
    var scale = row_scales(r, lane);
    prepare(t, thread);
    round_chunk(t, 0u, thread);
    for (var i = 0u; i < p.n_loops; i++) {
        let next_w = read_row(select(r + step, NONE, i + 1u == p.n_loops), 0u, lane);
        let next_scale = row_scales(select(r + step, NONE, i + 1u == p.n_loops), lane);
        finish_row(r, t, lane, thread, products(w, lane), scale);
        w = next_w;
        scale = next_scale;
        r += step;
    }
}

// One row, with an x of several chunks.
fn multiply_chunks(r: u32, t: u32, lane: u32, thread: u32) {
    var w = read_row(r, 0u, lane);
    let scale = row_scales(r, lane);
    var y = vec3<f32>(0.0);
    prepare(t, thread);
    for (var first = 0u; first < p.m.n_in; first += CHUNK) {
        let next_w = read_row(r, first + CHUNK, lane);
        round_chunk(t, first, thread);
        y += products(w, lane);
        w = next_w;
        workgroupBarrier();
    }
    finish_row(r, t, lane, thread, y, scale);
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let t = p.first_t + id.z;
    var group = id.y * size.x + id.x;
    if (STORES != 0) {
        if (group == 0u) {
            prepare(t, thread);
            keep(t, thread);
            return;
        }
        group -= 1u;
    }
    if (group >= p.n_groups) { // of the last y
        return;
    }
    let r = group * ROWS + thread / LANES;
    let lane = thread % LANES;
    if (TYPE == F32) {
        var mine = vec3<f32>(0.0);
        let scale = row_scales(r, lane);
        prepare(t, thread);
        if (r < n_rows()) {
            mine = float_products(r, t, lane);
        }
        finish_row(r, t, lane, thread, mine, scale);
    } else if (IS_SHORT) {
        multiply_rows(r, p.n_groups * ROWS, t, lane, thread);
    } else {
        multiply_chunks(r, t, lane, thread);
    }
}
