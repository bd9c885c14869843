// scores.wgsl: the scores of experts: a matrix of floats times norm(x); the norms are RMS norms.
// In:  X [n, x_stride vec4s]; V: the weights of the norm.
// Out: Y [n, y_stride].
//
// 32 threads share a row of the matrix. Each workgroup norms its row of x itself.

struct Params {
    m: Matrix,
    x_stride: u32,
    y_stride: u32,
    norm_at: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> X: array<f32>;
@group(0) @binding(3) var<storage, read> V: array<f32>;
@group(0) @binding(4) var<storage, read_write> Y: array<f32>;

const SIZE = 128u;
const LANES = 32u;
var<workgroup> sums: array<f32, SIZE>;

// The sum over `n` consecutive threads, in the first of them.
fn add_up(x: f32, thread: u32, n: u32) -> f32 {
    workgroupBarrier();
    sums[thread] = x;
    for (var step = n / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread % n < step) {
            sums[thread] += sums[thread + step];
        }
    }
    workgroupBarrier();
    return sums[thread / n * n];
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = group.y * p.x_stride;
    let r = group.x * (SIZE / LANES) + thread / LANES;
    var squares = 0.0;
    for (var i = thread; i < p.m.n_in; i += SIZE) {
        squares += X[at + i] * X[at + i];
    }
    let factor = inverseSqrt(add_up(squares, thread, SIZE) / f32(p.m.n_in) + p.eps);
    var y = 0.0;
    for (var i = thread % LANES; i < p.m.n_in && r < p.m.n_rows; i += LANES) {
        let gain = V[p.norm_at + i] + select(0.0, 1.0, IS_PLUS_1);
        y += number(4u * r * p.m.row_vecs + i) * (X[at + i] * (factor * gain));
    }
    y = add_up(y, thread, LANES);
    if (thread % LANES == 0u && r < p.m.n_rows) {
        Y[group.y * p.y_stride + r] = y;
    }
}
