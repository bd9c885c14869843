// argmax.wgsl: the most likely token of each row of logits; of equal ones that with the lower id.
// In:  X [n, x_stride] logits; or with IS_LAST the candidates of the first pass, a value and an id.
// Out: BEST [n, best_stride]: the candidates of each workgroup; with IS_LAST the token of each row.

struct Params {
    n: u32, // of a row: logits, or candidates
    x_at: u32,
    x_stride: u32,
    best_at: u32, // of the first row
    best_stride: u32, // candidates
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<u32>;
@group(0) @binding(2) var<storage, read_write> BEST: array<u32>;

const SIZE = 256u;
const PER_GROUP = 1024u; // logits of a workgroup
var<workgroup> values: array<f32, SIZE>;
var<workgroup> ids: array<u32, SIZE>;

fn is_better(x: f32, id: u32, than: f32, than_id: u32) -> bool {
    return x > than || (x == than && id < than_id);
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = p.x_at + group.y * p.x_stride;
    var best = -3.0e38;
    var best_id = 0xffffffffu;
    let begin = select(group.x * PER_GROUP, 0u, IS_LAST);
    let end = select(min(p.n, begin + PER_GROUP), p.n, IS_LAST);
    for (var i = begin + thread; i < end; i += SIZE) {
        var x = 0.0;
        var id = i;
        if (IS_LAST) {
            x = bitcast<f32>(X[row + 2u * i]);
            id = X[row + 2u * i + 1u];
        } else {
            x = bitcast<f32>(X[row + i]);
        }
        if (is_better(x, id, best, best_id)) {
            best = x;
            best_id = id;
        }
    }
    values[thread] = best;
    ids[thread] = best_id;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step &&
            is_better(values[thread + step], ids[thread + step], values[thread], ids[thread])) {
            values[thread] = values[thread + step];
            ids[thread] = ids[thread + step];
        }
    }
    if (thread == 0u) {
        if (IS_LAST) {
            BEST[p.best_at + group.y] = select(ids[0], 0u, ids[0] == 0xffffffffu);
        } else {
            BEST[group.y * p.best_stride + 2u * group.x] = bitcast<u32>(values[0]);
            BEST[group.y * p.best_stride + 2u * group.x + 1u] = ids[0];
        }
    }
}
