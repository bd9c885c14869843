// lanes_subgroups.wgsl: what lanes.wgsl has, where SUBGROUP neighbouring threads are a subgroup: at
// least 8.
// In:  SIZE, the threads of a workgroup; LANES, a power of two, at least 4; SUBGROUP, another.

const SHARE = select(LANES, SUBGROUP, SUBGROUP < LANES); // threads that add up without memory
const N_SHARES = SIZE / SHARE;
var<workgroup> shares: array<vec2<f32>, 2u * N_SHARES>; // of this turn and the one before

// The sum over LANES threads, in one order; only the first of them has it. All threads call it, with
// turns 0, 1, 2, ...
fn lanes_add(x: vec2<f32>, turn: u32, thread: u32) -> vec2<f32> {
    var sum = x;
    for (var i = SHARE / 2u; i > 0u; i /= 2u) {
        sum += subgroupShuffleXor(sum, i);
    }
    if (SHARE == LANES) {
        return sum;
    }
    let at = turn % 2u * N_SHARES + thread / SHARE;
    if (thread % SHARE == 0u) {
        shares[at] = sum;
    }
    workgroupBarrier();
    if (thread % LANES == 0u) {
        for (var i = 1u; i < LANES / SHARE; i++) {
            sum += shares[at + i];
        }
    }
    return sum;
}

// The largest of each eight neighbours. All threads call it.
fn max_of_8(x: f32, thread: u32) -> f32 {
    var most = x;
    for (var i = 1u; i < 8u; i *= 2u) {
        most = max(most, subgroupShuffleXor(most, i));
    }
    return most;
}
