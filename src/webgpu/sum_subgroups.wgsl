// sum_subgroups.wgsl: what sum.wgsl has, where SUBGROUP neighbouring threads are a subgroup.
// In:  SIZE, the threads of a workgroup: 64, 128 or 256.

const N_PARTIAL = SIZE / SUBGROUP;
var<workgroup> partial_sums: array<f32, N_PARTIAL>;

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// The sum of x over all threads, in one order. All threads call it.
fn add_up(x: f32, thread: u32) -> f32 {
    var share = x;
    for (var i = SUBGROUP / 2u; i > 0u; i /= 2u) {
        share += subgroupShuffleXor(share, i);
    }
    workgroupBarrier();
    if (thread % SUBGROUP == 0u) {
        partial_sums[thread / SUBGROUP] = share;
    }
    workgroupBarrier();
    var sum = partial_sums[0];
    for (var i = 1u; i < N_PARTIAL; i++) {
        sum += partial_sums[i];
    }
    return sum;
}
