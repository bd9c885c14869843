// experts.wgsl: products with the matrices of the experts that each row chose.
// In:  a slab of the rows of all experts, n_out of each; CHOSEN (choose.wgsl).
//      STEP 0 and 1: X [n, x_stride vec4s]; STEP 2: X [n * n_used, x_stride vec4s], of pairs of a row
//      and one of its experts.
// Out: of each pair  STEP 0: OUT = gate x; STEP 1: OUT = act(OUT) * (up x);
//      of each row   STEP 2: OUT = the sum of weight * (down x); with ADDS added to what is there.
//
// Rows that are not in this slab are those of another dispatch. As in matvec.wgsl, x is rounded to
// int8 in blocks of 64, and 32 threads share a row. Each pair is computed alone, and a row adds up its
// experts by their numbers.

struct Params {
    m: Matrix,
    x_stride: u32,
    out_stride: u32,
    n_out: u32, // rows of an expert
    n_used: u32,
    first: u32, // pair or row
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> X: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> CHOSEN: array<u32>;
@group(0) @binding(4) var<storage, read_write> OUT: array<f32>;

const SIZE = 128u;
const LANES = 32u; // threads that share a row
const CHUNK = SIZE * 16u;
var<workgroup> x8: array<vec4<u32>, SIZE>; // 16 numbers each
var<workgroup> scales: array<f32, SIZE / 4u>;
var<workgroup> largest: array<f32, SIZE>;
var<workgroup> sums: array<vec2<f32>, SIZE>;

// Inputs [4 i, 4 i + 4) of row t.
fn input(t: u32, i: u32) -> vec4<f32> {
    let v = X[t * p.x_stride + i];
    let index = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), v, index < vec4<u32>(p.m.n_in));
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

// A thread's part of a row's product with a chunk, and of the sum of the inputs.
fn chunk_product(r: u32, first: u32, lane: u32) -> vec2<f32> {
    var y = vec2<f32>(0.0);
    for (var k = lane; k < SIZE && first + 16u * k < p.m.n_in; k += LANES) {
        let x = x8[k];
        y.x += scales[k / 4u] * f32(dot16(weights16(p.m, r, first / 16u + k), x));
        if (HAS_ZEROS) {
            y.y += scales[k / 4u] * f32(dot16(vec4<u32>(0x01010101u), x));
        }
    }
    return y;
}

// Row r of the slab times row t of x, in the first of its threads.
fn product(r: u32, is_row: bool, t: u32, thread: u32) -> f32 {
    let lane = thread % LANES;
    var mine = vec2<f32>(0.0);
    if (TYPE == F32) {
        for (var k = lane; is_row && 4u * k < p.m.n_in; k += LANES) {
            mine.x += dot(bitcast<vec4<f32>>(W[r * p.m.row_vecs + k]), input(t, k));
        }
    } else {
        for (var first = 0u; first < p.m.n_in; first += CHUNK) {
            round_chunk(t, first, thread);
            if (is_row) {
                mine += chunk_product(r, first, lane);
            }
            workgroupBarrier();
        }
    }
    sums[thread] = mine;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) {
            sums[thread] += sums[thread + step];
        }
    }
    var y = 0.0;
    if (lane == 0u && is_row) {
        y = finish(p.m, r, row_scale(p.m, r), sums[thread].x, sums[thread].y);
    }
    workgroupBarrier();
    return y;
}

// Where the row of this thread is in the slab, for one of the experts of row t.
fn slab_row(t: u32, slot: u32, row: u32) -> u32 {
    return CHOSEN[t * (2u * p.n_used + 1u) + slot] * p.n_out + row - p.m.first;
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.x * (SIZE / LANES) + thread / LANES; // of an expert
    let is_first = thread % LANES == 0u;
    if (STEP < 2) {
        let pair = p.first + group.y;
        let t = pair / p.n_used;
        let r = slab_row(t, pair % p.n_used, row);
        let is_row = row < p.n_out && r < p.m.n_rows;
        var y = product(r, is_row, t, thread);
        if (is_first && is_row) {
            let at = pair * p.out_stride + row;
            if (STEP == 1) {
                y *= activate(OUT[at]);
            }
            OUT[at] = y;
        }
        return;
    }
    let t = p.first + group.y;
    var sum = 0.0;
    for (var slot = 0u; slot < p.n_used; slot++) {
        let r = slab_row(t, slot, row);
        let is_row = row < p.n_out && r < p.m.n_rows;
        let y = product(r, is_row, t * p.n_used + slot, thread);
        sum += bitcast<f32>(CHOSEN[t * (2u * p.n_used + 1u) + p.n_used + slot]) * y;
    }
    if (is_first && row < p.n_out) {
        let at = t * p.out_stride + row;
        if (ADDS) {
            sum += OUT[at];
        }
        OUT[at] = sum;
    }
}
