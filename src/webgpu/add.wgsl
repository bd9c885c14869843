// add.wgsl: x += y, and the norms before and after.
// In:  X, Y [n, stride]; V: the weights of norms.
// Out: X and XN, one row for each workgroup:
//      POST 1: y = norm(y) first. ADDS: x += residual_scale * y. POST 2: then x = norm(x).
//      SCALES: x *= the number at factor_at. NEXT 1: xn = x. NEXT 2: xn = norm(x).

struct Params {
    n: u32,
    stride: u32,
    post_scale_at: u32, // indices of V; NONE: it has none
    post_bias_at: u32,
    next_scale_at: u32,
    next_bias_at: u32,
    factor_at: u32,
    eps: f32,
    residual_scale: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> V: array<f32>;
@group(0) @binding(2) var<storage, read_write> X: array<f32>;
@group(0) @binding(3) var<storage, read_write> Y: array<f32>;
@group(0) @binding(4) var<storage, read_write> XN: array<f32>;

const NONE = 0xffffffffu;
const SIZE = 256u;
var<workgroup> sums: array<f32, SIZE>;

// The sum over all threads.
fn add_up(x: f32, thread: u32) -> f32 {
    workgroupBarrier();
    sums[thread] = x;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            sums[thread] += sums[thread + step];
        }
    }
    workgroupBarrier();
    return sums[0];
}

// What norm subtracts and what it multiplies by, of a row whose sum and sum of squares a thread
// has a part of.
fn statistics_of(sum: f32, squares: f32, thread: u32) -> vec2<f32> {
    let n = f32(p.n);
    if (!IS_LAYER_NORM) {
        return vec2<f32>(0.0, inverseSqrt(add_up(squares, thread) / n + p.eps));
    }
    return vec2<f32>(add_up(sum, thread) / n, 0.0);
}

// The same for the row of X or Y; the variance is that of a second pass.
fn statistics(is_y: bool, at: u32, thread: u32) -> vec2<f32> {
    var sum = 0.0;
    var squares = 0.0;
    for (var i = thread; i < p.n; i += SIZE) {
        let x = value(is_y, at + i);
        sum += x;
        squares += x * x;
    }
    var s = statistics_of(sum, squares, thread);
    if (IS_LAYER_NORM) {
        squares = 0.0;
        for (var i = thread; i < p.n; i += SIZE) {
            let d = value(is_y, at + i) - s.x;
            squares += d * d;
        }
        s.y = inverseSqrt(add_up(squares, thread) / f32(p.n) + p.eps);
    }
    return s;
}

fn value(is_y: bool, at: u32) -> f32 {
    if (is_y) {
        return Y[at];
    }
    return X[at];
}

fn normed(x: f32, s: vec2<f32>, i: u32, scale_at: u32, bias_at: u32) -> f32 {
    var y = (x - s.x) * s.y * (V[scale_at + i] + select(0.0, 1.0, IS_PLUS_1));
    if (bias_at != NONE) {
        y += V[bias_at + i];
    }
    return y;
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = group.x * p.stride;
    var s = vec2<f32>(0.0);
    if (POST == 1) {
        s = statistics(true, at, thread);
    }
    if (ADDS || SCALES) {
        for (var i = thread; i < p.n; i += SIZE) {
            var x = X[at + i];
            if (ADDS) {
                var y = Y[at + i];
                if (POST == 1) {
                    y = normed(y, s, i, p.post_scale_at, p.post_bias_at);
                }
                x += p.residual_scale * y;
            }
            if (SCALES) {
                x *= V[p.factor_at];
            }
            X[at + i] = x;
        }
    }
    // a thread reads below only what it has written itself
    if (POST == 2) {
        s = statistics(false, at, thread);
        for (var i = thread; i < p.n; i += SIZE) {
            X[at + i] = normed(X[at + i], s, i, p.post_scale_at, p.post_bias_at);
        }
    }
    if (NEXT == 2) {
        s = statistics(false, at, thread);
    }
    if (NEXT > 0) {
        for (var i = thread; i < p.n; i += SIZE) {
            var x = X[at + i];
            if (NEXT == 2) {
                x = normed(x, s, i, p.next_scale_at, p.next_bias_at);
            }
            XN[at + i] = x;
        }
    }
}
