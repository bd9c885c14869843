// norm.wgsl: x += y, and the norms before and after; before add.wgsl, and before products that do
// it themselves (matvec.wgsl).
// In:  X, Y [n, stride vec4s]; V: the weights of norms.
//      POST 1: y = norm(y) first. ADDS: x += residual_scale * y. SCALES: x *= the number at
//      factor_at. POST 2: then x = norm(x). NEXT 1: xn = x. NEXT 2: xn = norm(x). NEXT 3: xn = norm
//      of the x before all this, for a parallel block.
// Out: x and xn of a row, four numbers at a time, after a call of prepare.

struct Input {
    n: u32,
    stride: u32,
    post_scale_at: u32, // indices of floats of V, multiples of 4; ABSENT: it has none. Only layer norms
    // have biases.
    post_bias_at: u32,
    next_scale_at: u32,
    next_bias_at: u32,
    factor_at: u32,
    eps: f32,
    residual_scale: f32,
}

const ABSENT = 0xffffffffu;
const OF_Y = 0;
const OF_SUM = 1;
const OF_X = 2;

// What a norm subtracts, and what it multiplies by.
var<private> post: vec2<f32>;
var<private> next: vec2<f32>;

// Numbers [4 i, 4 i + 4) of a row; 0 behind its end.
fn inside(v: vec4<f32>, i: u32) -> vec4<f32> {
    if (IS_ALIGNED) {
        return v;
    }
    let index = vec4<u32>(4u * i) + vec4<u32>(0u, 1u, 2u, 3u);
    return select(vec4<f32>(0.0), v, index < vec4<u32>(p.input.n));
}

fn post_weights(i: u32) -> vec4<f32> {
    if (POST == 0) {
        return vec4<f32>(0.0);
    }
    return V[p.input.post_scale_at / 4u + i] + vec4<f32>(select(0.0, 1.0, IS_PLUS_1));
}

fn next_weights(i: u32) -> vec4<f32> {
    if (NEXT < 2) {
        return vec4<f32>(0.0);
    }
    return V[p.input.next_scale_at / 4u + i] + vec4<f32>(select(0.0, 1.0, IS_PLUS_1));
}

fn normed(x: vec4<f32>, s: vec2<f32>, i: u32, weights: vec4<f32>, bias_at: u32) -> vec4<f32> {
    var y = (x - s.x) * s.y * weights;
    if (IS_LAYER_NORM && bias_at != ABSENT) {
        y += V[bias_at / 4u + i];
    }
    return y;
}

// Numbers [4 i, 4 i + 4) of a row, from those of X and Y and the weights of the norms: x before the
// norm of POST 2,
fn summed(x0: vec4<f32>, y0: vec4<f32>, i: u32, weights: vec4<f32>) -> vec4<f32> {
    var x = x0;
    if (ADDS) {
        var y = y0;
        if (POST == 1) {
            y = normed(y, post, i, weights, p.input.post_bias_at);
        }
        x += p.input.residual_scale * y;
    }
    if (SCALES) {
        x *= V[p.input.factor_at / 4u].x;
    }
    return x;
}

// x from that,
fn posted(x: vec4<f32>, i: u32, weights: vec4<f32>) -> vec4<f32> {
    if (POST == 2) {
        return normed(x, post, i, weights, p.input.post_bias_at);
    }
    return x;
}

// and xn from x, or of NEXT 3 from the x before all this.
fn nexted(x: vec4<f32>, i: u32, weights: vec4<f32>) -> vec4<f32> {
    if (NEXT >= 2) {
        return normed(x, next, i, weights, p.input.next_bias_at);
    }
    return x;
}

fn new_sum(t: u32, i: u32) -> vec4<f32> {
    let at = t * p.input.stride + i;
    var y = vec4<f32>(0.0);
    if (ADDS) {
        y = Y[at];
    }
    return summed(X[at], y, i, post_weights(i));
}

fn new_x(t: u32, i: u32) -> vec4<f32> {
    return posted(new_sum(t, i), i, post_weights(i));
}

// xn before the norm of NEXT
fn next_input(t: u32, i: u32) -> vec4<f32> {
    if (NEXT == 3) {
        return X[t * p.input.stride + i];
    }
    return new_x(t, i);
}

fn new_xn(t: u32, i: u32) -> vec4<f32> {
    return nexted(next_input(t, i), i, next_weights(i));
}

fn value(kind: i32, t: u32, i: u32) -> vec4<f32> {
    if (kind == OF_Y) {
        return Y[t * p.input.stride + i];
    }
    if (kind == OF_SUM) {
        return new_sum(t, i);
    }
    return next_input(t, i);
}

// The variance of a layer norm is that of a second pass.
fn statistics(kind: i32, t: u32, thread: u32) -> vec2<f32> {
    let n = f32(p.input.n);
    var sum = vec4<f32>(0.0);
    var squares = vec4<f32>(0.0);
    for (var i = thread; 4u * i < p.input.n; i += SIZE) {
        let x = inside(value(kind, t, i), i);
        sum += x;
        squares += x * x;
    }
    if (!IS_LAYER_NORM) {
        return vec2<f32>(0.0, inverseSqrt(add_up(total(squares), thread) / n + p.input.eps));
    }
    let mean = add_up(total(sum), thread) / n;
    squares = vec4<f32>(0.0);
    for (var i = thread; 4u * i < p.input.n; i += SIZE) {
        let d = inside(value(kind, t, i) - mean, i);
        squares += d * d;
    }
    return vec2<f32>(mean, inverseSqrt(add_up(total(squares), thread) / n + p.input.eps));
}

// Read X and Y as often as they are needed.
fn prepare_row(t: u32, thread: u32) {
    if (POST == 1) {
        post = statistics(OF_Y, t, thread);
    }
    if (POST == 2) {
        post = statistics(OF_SUM, t, thread);
    }
    if (NEXT >= 2) {
        next = statistics(OF_X, t, thread);
    }
}
