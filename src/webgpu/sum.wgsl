// sum.wgsl: a sum over a workgroup; before shaders that need one.
// In:  SIZE, the threads of a workgroup: 64, 128 or 256.

var<workgroup> summands: array<f32, SIZE>;
var<workgroup> partial_sums: array<f32, 16>;

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// The sum of x over all threads, in one order. All threads call it.
fn add_up(x: f32, thread: u32) -> f32 {
    summands[thread] = x;
    workgroupBarrier();
    if (thread < 16u) {
        var sum = x;
        for (var i = thread + 16u; i < SIZE; i += 16u) {
            sum += summands[i];
        }
        partial_sums[thread] = sum;
    }
    workgroupBarrier();
    var sum = partial_sums[0];
    for (var i = 1u; i < 16u; i++) {
        sum += partial_sums[i];
    }
    return sum;
}
