// matvec.wgsl: y = w x + bias for a few rows of x: decode, draft tokens, logits.
// In:  a slab of a matrix (upload.c), X [n, x_stride vec4s].
// Out: Y[t, y_at + first + r]; with GATE 1 act(gate) * up, where the gate's rows come first; with
//      GATE 2 act(y); with CAPS soft-capped; with ADDS added to what is there.
//
// A workgroup rounds a row of x to int8, in blocks of 64 that share a scale, as the CPU does, 2048
// numbers at a time. 32 of its threads share a row of the matrix. Each row of x is computed alone, in
// the same order however many there are, so draft tokens do not change a number.

struct Params {
    m: Matrix,
    x_stride: u32,
    y_stride: u32,
    y_at: u32,
    n_gate: u32, // rows of the gate, and of up behind it
    first_t: u32, // the first row of X and Y
    scale: f32,
    cap: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> X: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> Y: array<f32>;

const SIZE = 128u;
const LANES = 32u; // threads that share a row
const CHUNK = SIZE * 16u; // numbers of x that are rounded together
var<workgroup> x8: array<vec4<u32>, SIZE>;  // 16 numbers each
var<workgroup> scales: array<f32, SIZE / 4u>;
var<workgroup> largest: array<f32, SIZE>;
var<workgroup> sums: array<vec3<f32>, SIZE>;

// Inputs [4 i, 4 i + 4) of row t.
fn input(t: u32, i: u32) -> vec4<f32> {
    let v = X[t * p.x_stride + i];
    if (IS_ALIGNED) {
        return v;
    }
    let index = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), v, index < vec4<u32>(p.m.n_in));
}

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

// Round the numbers [first, first + CHUNK) of row t.
fn round_chunk(t: u32, first: u32, thread: u32) {
    var a = vec4<f32>(0.0);
    var b = vec4<f32>(0.0);
    var c = vec4<f32>(0.0);
    var d = vec4<f32>(0.0);
    let i = first + 16u * thread;
    if (i < p.m.n_in) {
        a = input(t, i / 4u);
        b = input(t, i / 4u + 1u);
        c = input(t, i / 4u + 2u);
        d = input(t, i / 4u + 3u);
    }
    largest[thread] = max(max(largest_of(a), largest_of(b)), max(largest_of(c), largest_of(d)));
    workgroupBarrier();
    let block = thread / 4u * 4u;
    let most = max(max(largest[block], largest[block + 1u]),
                   max(largest[block + 2u], largest[block + 3u]));
    let inverse = select(0.0, 127.0 / most, most > 0.0);
    x8[thread] = vec4<u32>(round4(a, inverse), round4(b, inverse), round4(c, inverse),
                           round4(d, inverse));
    if (thread % 4u == 0u) {
        scales[thread / 4u] = most / 127.0;
    }
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
    let at = t * p.y_stride + p.y_at + p.m.first + r;
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
    if (ADDS) {
        y += Y[at];
    }
    Y[at] = y;
}

// A thread's part of a row, or of a row of the gate and one of up: (up, sum of the inputs, gate).
fn rounded_products(r: u32, t: u32, lane: u32, thread: u32, is_row: bool) -> vec3<f32> {
    var y = vec3<f32>(0.0);
    let ones = vec4<u32>(0x01010101u);
    for (var first = 0u; first < p.m.n_in; first += CHUNK) {
        var up = Weights();
        var gate = Weights();
        if (is_row) { // before x is rounded, which takes as long as the reads
            up = read_weights(r + select(0u, p.n_gate, GATE == 1), first, lane);
            if (GATE == 1) {
                gate = read_weights(r, first, lane);
            }
        }
        round_chunk(t, first, thread);
        y.x += product(up, lane);
        if (GATE == 1) {
            y.z += product(gate, lane);
        }
        if (HAS_ZEROS) {
            y.y += product(Weights(ones, ones, ones, ones), lane);
        }
        workgroupBarrier();
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

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let r = (group.y * n_groups.x + group.x) * (SIZE / LANES) + thread / LANES;
    let t = p.first_t + group.z;
    let lane = thread % LANES;
    let is_row = r < select(p.m.n_rows, p.n_gate, GATE == 1);
    var row_scales = vec2<f32>(0.0); // needed last, and read first
    if (lane == 0u && is_row) {
        row_scales = scales_of(r);
    }
    var mine = vec3<f32>(0.0);
    if (TYPE != F32) {
        mine = rounded_products(r, t, lane, thread, is_row);
    } else if (is_row) {
        mine = float_products(r, t, lane);
    }
    sums[thread] = mine;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) {
            sums[thread] += sums[thread + step];
        }
    }
    if (lane == 0u && is_row) {
        store(r, t, row_scales, sums[thread]);
    }
}
