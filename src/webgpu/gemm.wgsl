// gemm.wgsl: y = w x + bias for many rows of x: prefill.
// In:  a part of a matrix; X as float weights need it [n, x_stride vec4s], or as quantize.wgsl
//      writes it, with the scales S.
// Out: Y[t, y_at + first + r].
//
// A workgroup computes 64 rows of x times 64 rows of w, a thread 4 x 4 of these. Each step loads
// four vec4s of each row: 64 int8 weights, which share a scale of x, or 16 floats.

struct Params {
    m: Matrix,
    n: u32,        // rows of x
    x_stride: u32, // vec4s
    y_stride: u32,
    y_at: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> X: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> S: array<f32>;
@group(0) @binding(4) var<storage, read_write> Y: array<f32>;

const TILE = 64u;
const PITCH = 5u; // vec4s from row to row of a tile: with 4 the threads would hit the same banks
var<workgroup> xs: array<vec4<u32>, TILE * PITCH>;
var<workgroup> ws: array<vec4<u32>, TILE * PITCH>;
var<workgroup> scales: array<f32, TILE>;

fn load_x(t: u32, k: u32) -> vec4<u32> {
    if (t >= p.n) {
        return vec4<u32>(0u);
    }
    let v = X[t * p.x_stride + k];
    if (TYPE != F32 || IS_ALIGNED) {
        return v;
    }
    let index = vec4<u32>(4u * k) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<u32>(0u), v, index < vec4<u32>(p.m.n_in));
}

fn load_w(r: u32, k: u32) -> vec4<u32> {
    if (r >= p.m.n_rows) {
        return vec4<u32>(0u);
    }
    if (TYPE == F32) {
        return W[r * p.m.row_vecs + k];
    }
    return weights16(p.m, r, k);
}

fn dot16(a: vec4<u32>, b: vec4<u32>) -> i32 {
    return dot4I8Packed(a.x, b.x) + dot4I8Packed(a.y, b.y) + dot4I8Packed(a.z, b.z) +
           dot4I8Packed(a.w, b.w);
}

// One row of x times four of w.
fn dots(a: vec4<u32>, b0: vec4<u32>, b1: vec4<u32>, b2: vec4<u32>, b3: vec4<u32>) -> vec4<i32> {
    return vec4<i32>(dot16(a, b0), dot16(a, b1), dot16(a, b2), dot16(a, b3));
}

fn float_dots(a: vec4<u32>, b0: vec4<u32>, b1: vec4<u32>, b2: vec4<u32>,
              b3: vec4<u32>) -> vec4<f32> {
    let x = bitcast<vec4<f32>>(a);
    return vec4<f32>(dot(x, bitcast<vec4<f32>>(b0)), dot(x, bitcast<vec4<f32>>(b1)),
                     dot(x, bitcast<vec4<f32>>(b2)), dot(x, bitcast<vec4<f32>>(b3)));
}

fn sum16(a: vec4<u32>) -> i32 {
    return dot16(a, vec4<u32>(0x01010101u));
}

fn store(t: u32, r: u32, y: f32, sum: f32) {
    if (t < p.n && r < p.m.n_rows) {
        Y[t * p.y_stride + p.y_at + p.m.first + r] = finish(p.m, r, row_scale(p.m, r), y, sum);
    }
}

fn store_row(t: u32, r: u32, y: vec4<f32>, sum: f32) {
    store(t, r, y.x, sum);
    store(t, r + 16u, y.y, sum);
    store(t, r + 32u, y.z, sum);
    store(t, r + 48u, y.w, sum);
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let r0 = group.x * TILE;
    let t0 = group.y * TILE;
    let tx = thread % 16u;
    let ty = thread / 16u;
    let row = thread / 4u; // that this thread loads
    let vec = thread % 4u;
    let n_steps = (p.m.n_in + select(63u, 15u, TYPE == F32)) / select(64u, 16u, TYPE == F32);
    var y0 = vec4<f32>(0.0);
    var y1 = vec4<f32>(0.0);
    var y2 = vec4<f32>(0.0);
    var y3 = vec4<f32>(0.0);
    var sums = vec4<f32>(0.0); // of the inputs of this thread's rows
    for (var step = 0u; step < n_steps; step++) {
        xs[row * PITCH + vec] = load_x(t0 + row, 4u * step + vec);
        ws[row * PITCH + vec] = load_w(r0 + row, 4u * step + vec);
        if (TYPE != F32 && thread < TILE) {
            scales[thread] = 0.0;
            if (t0 + thread < p.n) {
                scales[thread] = S[(t0 + thread) * (p.x_stride / 4u) + step];
            }
        }
        workgroupBarrier();
        var i0 = vec4<i32>(0);
        var i1 = vec4<i32>(0);
        var i2 = vec4<i32>(0);
        var i3 = vec4<i32>(0);
        var s = vec4<i32>(0);
        for (var k = 0u; k < 4u; k++) {
            let a0 = xs[ty * PITCH + k];
            let a1 = xs[(ty + 16u) * PITCH + k];
            let a2 = xs[(ty + 32u) * PITCH + k];
            let a3 = xs[(ty + 48u) * PITCH + k];
            let b0 = ws[tx * PITCH + k];
            let b1 = ws[(tx + 16u) * PITCH + k];
            let b2 = ws[(tx + 32u) * PITCH + k];
            let b3 = ws[(tx + 48u) * PITCH + k];
            if (TYPE == F32) {
                y0 += float_dots(a0, b0, b1, b2, b3);
                y1 += float_dots(a1, b0, b1, b2, b3);
                y2 += float_dots(a2, b0, b1, b2, b3);
                y3 += float_dots(a3, b0, b1, b2, b3);
            } else {
                i0 += dots(a0, b0, b1, b2, b3);
                i1 += dots(a1, b0, b1, b2, b3);
                i2 += dots(a2, b0, b1, b2, b3);
                i3 += dots(a3, b0, b1, b2, b3);
                if (HAS_ZEROS) {
                    s += vec4<i32>(sum16(a0), sum16(a1), sum16(a2), sum16(a3));
                }
            }
        }
        if (TYPE != F32) {
            let c = vec4<f32>(scales[ty], scales[ty + 16u], scales[ty + 32u], scales[ty + 48u]);
            y0 += c.x * vec4<f32>(i0);
            y1 += c.y * vec4<f32>(i1);
            y2 += c.z * vec4<f32>(i2);
            y3 += c.w * vec4<f32>(i3);
            sums += c * vec4<f32>(s);
        }
        workgroupBarrier();
    }
    store_row(t0 + ty, r0 + tx, y0, sums.x);
    store_row(t0 + ty + 16u, r0 + tx, y1, sums.y);
    store_row(t0 + ty + 32u, r0 + tx, y2, sums.z);
    store_row(t0 + ty + 48u, r0 + tx, y3, sums.w);
}
