// combine.wgsl: adds up the parts of an attention whose keys were split.
// In:  PARTS [n, n_heads, n_parts, head_dim + 2]: the weighted values, the largest score, the sum
//      of the weights.
// Out: OUT [n, out_stride].

struct Params {
    first_t: u32,
    out_stride: u32,
    n_parts: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> PARTS: array<f32>;
@group(0) @binding(2) var<storage, read_write> OUT: array<f32>;

const PITCH = HEAD_DIM + 2u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let first = (group.y * n_groups.x + group.x) * p.n_parts;
    var most = -3.0e38;
    for (var i = 0u; i < p.n_parts; i++) {
        most = max(most, PARTS[(first + i) * PITCH + HEAD_DIM]);
    }
    var sum = 0.0;
    for (var i = 0u; i < p.n_parts; i++) {
        let at = (first + i) * PITCH + HEAD_DIM;
        sum += exp(PARTS[at] - most) * PARTS[at + 1u];
    }
    for (var d = thread; d < HEAD_DIM; d += 64u) {
        var x = 0.0;
        for (var i = 0u; i < p.n_parts; i++) {
            let at = (first + i) * PITCH;
            x += exp(PARTS[at + HEAD_DIM] - most) * PARTS[at + d];
        }
        OUT[(p.first_t + group.y) * p.out_stride + group.x * HEAD_DIM + d] = x / sum;
    }
}
