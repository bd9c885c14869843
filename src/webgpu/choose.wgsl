// choose.wgsl: the experts of each row, and their weights (backend.h, route).
// In:  SCORES [n, scores_stride]: of each expert; behind them that of the dense feed-forward.
//      V: expert_scale.
// Out: CHOSEN [n, 2 * n_used + 1]: the numbers of the experts, ascending; their weights; that of the
//      dense feed-forward.

struct Params {
    n_used: u32,
    scores_stride: u32,
    scale_at: u32, // of V; NONE: there is none
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> SCORES: array<f32>;
@group(0) @binding(2) var<storage, read> V: array<f32>;
@group(0) @binding(3) var<storage, read_write> CHOSEN: array<u32>;

const SIZE = 64u;
const NONE = 0xffffffffu;
const MOST = 3.402823e38;
var<workgroup> scores: array<f32, N>;
var<workgroup> is_chosen: array<u32, N>;
var<workgroup> sums: array<vec2<f32>, SIZE>;
var<workgroup> largest: array<f32, SIZE>;

// A finite number; -MOST for a NaN. Bits, because a compiler may assume that there are no NaNs.
fn bounded(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return -MOST;
    }
    return clamp(x, -MOST, MOST);
}

// How many experts come before expert e.
fn rank_of(e: u32) -> u32 {
    var rank = 0u;
    for (var i = 0u; i < N; i++) {
        if (scores[i] > scores[e] || (scores[i] == scores[e] && i < e)) {
            rank++;
        }
    }
    return rank;
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let at = group.x * p.scores_stride;
    let to = group.x * (2u * p.n_used + 1u);
    var most = -MOST;
    for (var e = thread; e < N; e += SIZE) {
        scores[e] = bounded(SCORES[at + e]);
        most = max(most, scores[e]);
    }
    largest[thread] = most;
    workgroupBarrier();
    for (var i = 0u; i < SIZE; i++) {
        most = max(most, largest[i]);
    }
    var sum = vec2<f32>(0.0); // of all experts, and of those that are chosen
    for (var e = thread; e < N; e += SIZE) {
        let x = exp(scores[e] - most);
        is_chosen[e] = select(0u, 1u, rank_of(e) < p.n_used);
        sum += vec2<f32>(x, x * f32(is_chosen[e]));
    }
    sums[thread] = sum;
    workgroupBarrier();
    sum = vec2<f32>(0.0);
    for (var i = 0u; i < SIZE; i++) {
        sum += sums[i];
    }
    for (var e = thread; e < N; e += SIZE) {
        if (is_chosen[e] == 0u) {
            continue;
        }
        var slot = 0u;
        for (var i = 0u; i < e; i++) {
            slot += is_chosen[i];
        }
        var weight = exp(scores[e] - most) / select(sum.x, sum.y, IS_NORMALIZED);
        if (p.scale_at != NONE) {
            weight *= V[p.scale_at + e];
        }
        CHOSEN[to + slot] = e;
        CHOSEN[to + p.n_used + slot] = bitcast<u32>(weight);
    }
    if (thread == 0u) {
        var weight = 1.0;
        if (HAS_SHARED_GATE) {
            weight = 1.0 / (1.0 + exp(-SCORES[at + N]));
        }
        CHOSEN[to + 2u * p.n_used] = bitcast<u32>(weight);
    }
}
