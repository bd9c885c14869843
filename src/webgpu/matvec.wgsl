// matvec.wgsl: y = w x + bias for a few rows of x: decode, draft tokens, logits.
// In:  a part of a matrix, X [n, x_stride vec4s].
// Out: Y[t, y_at + first + r]; with GATE 1 act(gate) * up, where the gate's rows come first; with
//      GATE 2 act(y); with CAPS soft-capped; with ADDS added to what is there.
//
// LANES threads share a row of the matrix. Each row of x is computed alone, in the same order
// however many there are, so draft tokens do not change a number.

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

fn floats(w: u32) -> vec4<f32> {
    return vec4<f32>(unpack4xI8(w));
}

// A thread's part of the product of row r, and of the sum of inputs.
fn partial(r: u32, t: u32, lane: u32) -> vec2<f32> {
    var y = 0.0;
    var sum = 0.0;
    if (TYPE == F32) {
        for (var k = lane; 4u * k < p.m.n_in; k += LANES) {
            y += dot(bitcast<vec4<f32>>(W[r * p.m.row_vecs + k]), input(t, k));
        }
        return vec2<f32>(y, sum);
    }
    for (var k = lane; 16u * k < p.m.n_in; k += LANES) {
        let w = weights16(p.m, r, k);
        let x0 = input(t, 4u * k);
        let x1 = input(t, 4u * k + 1u);
        let x2 = input(t, 4u * k + 2u);
        let x3 = input(t, 4u * k + 3u);
        y += dot(floats(w.x), x0) + dot(floats(w.y), x1) + dot(floats(w.z), x2) +
             dot(floats(w.w), x3);
        if (HAS_ZEROS) {
            sum += dot(x0 + x1 + x2 + x3, vec4<f32>(1.0));
        }
    }
    return vec2<f32>(y, sum);
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let r = (group.y * n_groups.x + group.x) * (SIZE / LANES) + thread / LANES;
    let t = p.first_t + group.z;
    let lane = thread % LANES;
    let n = select(p.m.n_rows, p.n_gate, GATE == 1);
    var mine = vec3<f32>(0.0);
    if (r < n) {
        if (GATE == 1) {
            mine = vec3<f32>(partial(r + p.n_gate, t, lane), partial(r, t, lane).x);
        } else {
            mine = vec3<f32>(partial(r, t, lane), 0.0);
        }
    }
    sums[thread] = mine;
    for (var step = LANES / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (lane < step) {
            sums[thread] += sums[thread + step];
        }
    }
    if (lane != 0u || r >= n) {
        return;
    }
    let sum = sums[thread];
    let at = t * p.y_stride + p.y_at + p.m.first + r;
    var y = finish(p.m, select(r, r + p.n_gate, GATE == 1), sum.x, sum.y);
    if (GATE == 1) {
        y *= activate(finish(p.m, r, sum.z, sum.y));
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
