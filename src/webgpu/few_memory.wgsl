// few_memory.wgsl: what attend_few.wgsl adds up over threads, through the workgroup's memory.

const N_SHARES = SIZE / QUADS; // threads that share a quad of values

var<workgroup> maxima: array<Numbers, 16>;
var<workgroup> reduced: array<Numbers, 2u * SIZE>;

fn quad_of(thread: u32) -> u32 {
    return thread % QUADS;
}

// N_SHARES or more: this thread has no values.
fn share_of(thread: u32) -> u32 {
    return select(thread / QUADS, TILE, thread >= N_SHARES * QUADS);
}

// The sum over all threads.
fn add_up(x: Numbers, thread: u32) -> Numbers {
    workgroupBarrier();
    reduced[thread] = x;
    workgroupBarrier();
    if (thread < 16u) {
        var sum = x;
        for (var i = thread + 16u; i < SIZE; i += 16u) {
            sum += reduced[i];
        }
        reduced[thread] = sum; // which no other thread reads above
    }
    workgroupBarrier();
    var sum = reduced[0];
    for (var i = 1u; i < 16u; i++) {
        sum += reduced[i];
    }
    return sum;
}

var<workgroup> fours: array<vec4<f32>, SIZE>;

// The same of four numbers, for few_row.wgsl.
fn add_four(x: vec4<f32>, thread: u32) -> vec4<f32> {
    workgroupBarrier();
    fours[thread] = x;
    workgroupBarrier();
    if (thread < 16u) {
        var sum = x;
        for (var i = thread + 16u; i < SIZE; i += 16u) {
            sum += fours[i];
        }
        fours[thread] = sum;
    }
    workgroupBarrier();
    var sum = fours[0];
    for (var i = 1u; i < 16u; i++) {
        sum += fours[i];
    }
    return sum;
}

// The sum over the threads of a key.
fn key_sum(x: Numbers, thread: u32) -> Numbers {
    let first = thread / PER_KEY * PER_KEY;
    reduced[thread] = x;
    workgroupBarrier();
    var sum = reduced[first];
    for (var i = 1u; i < PER_KEY; i++) {
        sum += reduced[first + i];
    }
    workgroupBarrier();
    return sum;
}

// The largest over all threads.
fn largest(x: Numbers, thread: u32) -> Numbers {
    reduced[thread] = x;
    workgroupBarrier();
    if (thread < 16u) {
        var most = x;
        for (var i = thread + 16u; i < SIZE; i += 16u) {
            most = max(most, reduced[i]);
        }
        maxima[thread] = most;
    }
    workgroupBarrier();
    var most = maxima[0];
    for (var i = 1u; i < 16u; i++) {
        most = max(most, maxima[i]);
    }
    return most;
}

fn sum_of_shares(at: u32) -> Numbers {
    var sum = reduced[at];
    for (var share = 1u; share < N_SHARES; share++) {
        sum += reduced[at + share * QUADS];
    }
    return sum;
}

// The sum of all shares of dimensions `dim` and dim + 1 of each quad.
fn store_pair(o: Output, dim: u32, x: Numbers, y: Numbers, thread: u32) {
    workgroupBarrier();
    reduced[thread] = x;
    reduced[SIZE + thread] = y;
    workgroupBarrier();
    if (IS_HALF) {
        for (var i = thread; i < QUADS; i += SIZE) {
            store_halves(o, i * PER_QUAD + dim, sum_of_shares(i), sum_of_shares(SIZE + i));
        }
        return;
    }
    for (var i = thread; i < 2u * QUADS; i += SIZE) {
        store_lanes(o, i % QUADS * PER_QUAD + dim + i / QUADS,
                    sum_of_shares(i / QUADS * SIZE + i % QUADS));
    }
}

// Add up the shares of all quads.
fn store_values(o: Output, quad: u32, share: u32, x: Quad, thread: u32) {
    store_pair(o, 0u, x.a, x.b, thread);
    store_pair(o, 2u, x.c, x.d, thread);
    if (KV_F16) {
        store_pair(o, 4u, x.e, x.f, thread);
        store_pair(o, 6u, x.g, x.h, thread);
    }
}
