// argmax.wgsl: the most likely token of each row of logits; of equal ones that with the lower id.
// In:  X [n, x_stride] logits; or with IS_LAST the candidates of the first pass, or of matvec.wgsl.
// Out: BEST [n, best_stride]: the candidates of each workgroup; with IS_LAST the token of each row.

struct Params {
    n: u32, // of a row: logits, or candidates
    x_at: u32,
    x_stride: u32,
    best_at: u32, // of the first row
    best_stride: u32, // candidates
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<f32>;
@group(0) @binding(2) var<storage, read_write> BEST: array<u32>;

const SIZE = 256u;
const PER_GROUP = 1024u; // logits of a workgroup

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = p.x_at + group.y * p.x_stride;
    var best = LEAST_BEST;
    let begin = select(group.x * PER_GROUP, 0u, IS_LAST);
    let end = select(min(p.n, begin + PER_GROUP), p.n, IS_LAST);
    for (var i = begin + thread; i < end; i += SIZE) {
        var x = Best(X[row + i], i);
        if (IS_LAST) {
            x = unpacked_best(vec4<f32>(X[row + 4u * i], X[row + 4u * i + 1u], 0.0, 0.0));
        }
        best = better(best, x);
    }
    best = best_of_all(best, thread);
    if (thread == 0u) {
        if (IS_LAST) {
            BEST[p.best_at + group.y] = token_of(best);
        } else {
            let v = packed_best(best);
            let at = group.y * p.best_stride + 4u * group.x;
            BEST[at] = bitcast<u32>(v.x);
            BEST[at + 1u] = bitcast<u32>(v.y);
        }
    }
}
