// lanes.wgsl: sums and maxima of neighbouring threads, through the workgroup's memory; before
// shaders that need them.
// In:  SIZE, the threads of a workgroup; LANES, a power of two, at least 4.

var<workgroup> lane_sums: array<vec2<f32>, SIZE>;
var<workgroup> lane_maxima: array<f32, SIZE>;

// The sum over LANES threads, in one order; only the first of them has it. All threads call it.
fn lanes_add(x: vec2<f32>, turn: u32, thread: u32) -> vec2<f32> {
    let lane = thread % LANES;
    workgroupBarrier();
    lane_sums[thread] = x;
    workgroupBarrier();
    var sum = x;
    if (lane < 4u) {
        for (var i = 4u; i < LANES; i += 4u) {
            sum += lane_sums[thread + i];
        }
        lane_sums[thread] = sum; // which no other lane reads above
    }
    workgroupBarrier();
    if (lane == 0u) {
        sum = (sum + lane_sums[thread + 1u]) + (lane_sums[thread + 2u] + lane_sums[thread + 3u]);
    }
    return sum;
}

// The largest of each eight neighbours. All threads call it.
fn max_of_8(x: f32, thread: u32) -> f32 {
    workgroupBarrier();
    lane_maxima[thread] = x;
    workgroupBarrier();
    let first = thread & ~7u;
    var most = lane_maxima[first];
    for (var i = 1u; i < 8u; i++) {
        most = max(most, lane_maxima[first + i]);
    }
    return most;
}
