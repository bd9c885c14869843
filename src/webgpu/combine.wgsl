// combine.wgsl: adds up the parts of an attention whose keys were split (attend_few.wgsl).
// In:  PARTS [n, n_heads, n_parts, PITCH]: the weighted values, with IS_HALF two as binary16 in a word,
//      and in the last four words the largest score, the sum of the weights, and what they all are to
//      be multiplied by.
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
@group(0) @binding(1) var<storage, read> PARTS: array<u32>;
@group(0) @binding(2) var<storage, read_write> OUT: array<f32>;

const SIZE = 64u;
var<workgroup> largest: array<f32, 128>;
var<workgroup> sums: array<f32, 128>;
var<workgroup> scales: array<f32, 128>;

// Dimension d of the part at `at`.
fn value(at: u32, d: u32) -> f32 {
    if (IS_HALF) {
        return unpack2x16float(PARTS[at + d / 2u])[d % 2u];
    }
    return bitcast<f32>(PARTS[at + d]);
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) n_groups: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let head = group.x;
    let d = group.y * SIZE + thread;
    let first = (group.z * n_groups.x + head) * p.n_parts;
    for (var i = thread; i < p.n_parts; i += SIZE) {
        largest[i] = bitcast<f32>(PARTS[(first + i) * PITCH + PITCH - 4u]);
        sums[i] = bitcast<f32>(PARTS[(first + i) * PITCH + PITCH - 3u]);
        scales[i] = bitcast<f32>(PARTS[(first + i) * PITCH + PITCH - 2u]);
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
        let factor = exp(largest[i] - most) * scales[i];
        sum = fma(factor, sums[i], sum); // input_parts.wgsl rounds the same
        x = fma(factor, value((first + i) * PITCH, d), x);
    }
    OUT[(p.first_t + group.z) * p.out_stride + head * HEAD_DIM + d] = x / sum;
}
