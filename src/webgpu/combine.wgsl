// combine.wgsl: adds up the parts of an attention whose keys were split (attend_few.wgsl).
// In:  PARTS [n, n_heads, n_parts, PITCH]: the weighted values, and in the last four numbers the
//      largest score and the sum of the weights.
// Out: OUT [n, out_stride].
//
// A workgroup has 64 dimensions of a head. Parts are added one after the other: so parts without keys,
// which rows have whose batch has longer sequences, change no bit.

struct Params {
    first_t: u32,
    out_stride: u32,
    n_parts: u32, // at most 128
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> PARTS: array<f32>;
@group(0) @binding(2) var<storage, read_write> OUT: array<f32>;

const SIZE = 64u;
var<workgroup> largest: array<f32, 128>;
var<workgroup> sums: array<f32, 128>;

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let head = group.x;
    let d = group.y * SIZE + thread;
    let first = (group.z * n_groups.x + head) * p.n_parts;
    for (var i = thread; i < p.n_parts; i += SIZE) {
        largest[i] = PARTS[(first + i) * PITCH + PITCH - 4u];
        sums[i] = PARTS[(first + i) * PITCH + PITCH - 3u];
    }
    workgroupBarrier();
    var most = -3.0e38;
    for (var i = 0u; i < p.n_parts; i++) {
        most = max(most, largest[i]);
    }
    if (d >= HEAD_DIM) {
        return;
    }
    var sum = 0.0;
    var x = 0.0;
    for (var i = 0u; i < p.n_parts; i++) {
        let factor = exp(largest[i] - most);
        sum = fma(factor, sums[i], sum); // input_parts.wgsl rounds the same
        x = fma(factor, PARTS[(first + i) * PITCH + d], x);
    }
    OUT[(p.first_t + group.z) * p.out_stride + head * HEAD_DIM + d] = x / sum;
}
