// few_subgroups.wgsl: what attend_few.wgsl adds up over threads, where SUBGROUP neighbours are a
// subgroup: at least 8.

const N_SUBGROUPS = SIZE / SUBGROUP;
const N_SHARES = 8u; // neighbours that share a quad of values
const ROUND = SIZE / N_SHARES; // quads

var<workgroup> maxima: array<Numbers, N_SUBGROUPS>;
var<workgroup> sums: array<Numbers, N_SUBGROUPS>;

fn quad_of(thread: u32) -> u32 {
    return min(thread / N_SHARES, QUADS - 1u);
}

// TILE: this thread has no values.
fn share_of(thread: u32) -> u32 {
    return select(thread % N_SHARES, TILE, thread >= N_SHARES * QUADS);
}

// The sum over all threads.
fn add_up(x: Numbers, thread: u32) -> Numbers {
    var share = x;
    for (var i = SUBGROUP / 2u; i > 0u; i /= 2u) {
        share += subgroupShuffleXor(share, i);
    }
    workgroupBarrier();
    if (thread % SUBGROUP == 0u) {
        sums[thread / SUBGROUP] = share;
    }
    workgroupBarrier();
    var sum = sums[0];
    for (var i = 1u; i < N_SUBGROUPS; i++) {
        sum += sums[i];
    }
    return sum;
}

var<workgroup> fours: array<vec4<f32>, N_SUBGROUPS>;

// The same of four numbers, for few_row.wgsl.
fn add_four(x: vec4<f32>, thread: u32) -> vec4<f32> {
    var share = x;
    for (var i = SUBGROUP / 2u; i > 0u; i /= 2u) {
        share += subgroupShuffleXor(share, i);
    }
    workgroupBarrier();
    if (thread % SUBGROUP == 0u) {
        fours[thread / SUBGROUP] = share;
    }
    workgroupBarrier();
    var sum = fours[0];
    for (var i = 1u; i < N_SUBGROUPS; i++) {
        sum += fours[i];
    }
    return sum;
}

// The sum over the threads of a key.
fn key_sum(x: Numbers, thread: u32) -> Numbers {
    var sum = x;
    for (var i = 1u; i < PER_KEY; i *= 2u) {
        sum += subgroupShuffleXor(sum, i);
    }
    return sum;
}

// The largest over all threads.
fn largest(x: Numbers, thread: u32) -> Numbers {
    var share = x;
    for (var i = PER_KEY; i < SUBGROUP; i *= 2u) {
        share = max(share, subgroupShuffleXor(share, i));
    }
    if (thread % SUBGROUP == 0u) { // the barrier behind the weights is between two turns
        maxima[thread / SUBGROUP] = share;
    }
    workgroupBarrier();
    var most = maxima[0];
    for (var i = 1u; i < N_SUBGROUPS; i++) {
        most = max(most, maxima[i]);
    }
    return most;
}

// Two numbers of each thread of a pair, added up: one thread has the sum of a, the other that of b.
fn fold(a: Numbers, b: Numbers, is_second: bool, distance: u32) -> Numbers {
    return select(a, b, is_second) + subgroupShuffleXor(select(b, a, is_second), distance);
}

// Add up the shares of all quads: each thread of a quad has one dimension, or every other one.
fn store_values(o: Output, quad: u32, share: u32, x: Quad, thread: u32) {
    let i = thread % N_SHARES;
    let is_odd = (i & 1u) != 0u;
    let is_upper = (i & 2u) != 0u;
    let ab = fold(x.a, x.b, is_odd, 1u);
    let cd = fold(x.c, x.d, is_odd, 1u);
    let first = fold(ab, cd, is_upper, 2u); // dimension i % 4
    var sum = first;
    if (KV_F16) {
        let ef = fold(x.e, x.f, is_odd, 1u);
        let gh = fold(x.g, x.h, is_odd, 1u);
        sum = fold(first, fold(ef, gh, is_upper, 2u), (i & 4u) != 0u, 4u);
    } else {
        sum += subgroupShuffleXor(first, 4u);
    }
    if (IS_HALF) {
        let next = subgroupShuffleXor(sum, 1u);
        if (share < TILE && !is_odd) {
            store_halves(o, quad * PER_QUAD + i, sum, next);
        }
        return;
    }
    if (share < TILE && i < PER_QUAD) {
        store_lanes(o, quad * PER_QUAD + i, sum);
    }
}
