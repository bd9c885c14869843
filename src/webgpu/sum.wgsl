// sum.wgsl: a sum over a workgroup; before shaders that need one.
// In:  SIZE, the threads of a workgroup: 64, 128 or 256.

var<workgroup> summands: array<vec4<f32>, SIZE / 4u>;
var<workgroup> partial_sums: array<vec4<f32>, SIZE / 64u>;

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// The sum of x over all threads, in one order. All threads call it.
fn add_up(x: f32, thread: u32) -> f32 {
    summands[thread / 4u][thread % 4u] = x;
    workgroupBarrier();
    if (thread < SIZE / 16u) {
        let i = 4u * thread;
        partial_sums[thread / 4u][thread % 4u] =
            total((summands[i] + summands[i + 1u]) + (summands[i + 2u] + summands[i + 3u]));
    }
    workgroupBarrier();
    var sum = partial_sums[0];
    for (var i = 1u; i < SIZE / 64u; i++) {
        sum += partial_sums[i];
    }
    return total(sum);
}
