// merge.wgsl: y = what the experts add up to, and a dense feed-forward beside them; the norms are RMS
//      norms.
// In:  EXPERTS [n, stride]; CHOSEN [n, chosen_stride], of which the last is the weight of y; V.
// Out: Y [n, stride].

struct Params {
    n: u32,
    stride: u32,
    chosen_stride: u32,
    expert_norm_at: u32, // of V; NONE: no norm
    dense_norm_at: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> EXPERTS: array<f32>;
@group(0) @binding(2) var<storage, read> CHOSEN: array<u32>;
@group(0) @binding(3) var<storage, read> V: array<f32>;
@group(0) @binding(4) var<storage, read_write> Y: array<f32>;

const SIZE = 256u;
const NONE = 0xffffffffu;
var<workgroup> sums: array<vec2<f32>, SIZE>;

fn normed(x: f32, factor: f32, at: u32, i: u32) -> f32 {
    if (at == NONE) {
        return x;
    }
    return x * factor * (V[at + i] + select(0.0, 1.0, IS_PLUS_1));
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = group.x * p.stride;
    let weight = bitcast<f32>(CHOSEN[(group.x + 1u) * p.chosen_stride - 1u]);
    var squares = vec2<f32>(0.0);
    for (var i = thread; i < p.n; i += SIZE) {
        let x = vec2<f32>(EXPERTS[at + i], Y[at + i]);
        squares += x * x;
    }
    sums[thread] = squares;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            sums[thread] += sums[thread + step];
        }
    }
    workgroupBarrier();
    let factor = inverseSqrt(sums[0] / f32(p.n) + vec2<f32>(p.eps));
    for (var i = thread; i < p.n; i += SIZE) {
        var y = normed(EXPERTS[at + i], factor.x, p.expert_norm_at, i);
        if (HAS_DENSE) {
            y += weight * normed(Y[at + i], factor.y, p.dense_norm_at, i);
        }
        Y[at + i] = y;
    }
}
