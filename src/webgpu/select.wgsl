// select.wgsl: the most likely tokens of each row of logits, and the sum of the weights of all, in
//      three passes. Tokens that are listed or not allowed do not count. A workgroup has N logits.
// In:  X [n, x_stride] logits; DRAWS [n, draw_stride]: listed tokens, allowed ones, how many tokens
//      to select (0: as many as fit); TOKENS: those that were drawn before in the batch are listed, too, if the row is
//      ahead.
// Out: C [n, result_stride]: how many tokens were selected, how many there are, the largest key, 0;
//      pairs of a key and a token, in any order; logits of listed tokens; sums of weights.
//
// Pass 1 finds the largest key of each workgroup, and the logits of listed tokens. Pass 2 adds up
// weights, exp((logit - largest) / temperature), and counts the tokens in bins by how far they are
// below the largest. Pass 3 selects the tokens in the first bins: enough of them for the number to
// select, or as many as fit. So no other token is more likely than a selected one.

struct Params {
    n: u32, // logits of a row
    x_stride: u32,
    draw_stride: u32,
    first_draw: u32,
    n_ahead: u32, // tokens of the batch that were drawn before, the last of them before first_draw
    n_groups: u32, // workgroups of a row
    result_stride: u32,
    found_at: u32, // logits of listed tokens, in a result
    sums_at: u32,
    work_at: u32, // in C [n, work_stride]: the largest keys, then counts of bins
    work_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<u32>;
@group(0) @binding(2) var<storage, read> DRAWS: array<u32>;
@group(0) @binding(3) var<storage, read> TOKENS: array<u32>;
@group(0) @binding(4) var<storage, read_write> C: array<atomic<u32>>;

const PAIRS = 4u;     // in a result
const N_BINS = 256u;  // as many as threads
var<workgroup> counts: array<atomic<u32>, N_BINS>;
var<workgroup> words: array<u32, SIZE>;
var<workgroup> sums: array<f32, SIZE>;
var<workgroup> end: atomic<u32>;

// The keys of this workgroup.
fn load(row: u32, begin: u32, thread: u32) {
    let draw = (p.first_draw + row) * p.draw_stride;
    let x = (p.first_draw + row) * p.x_stride;
    let found = (p.first_draw + row) * p.result_stride + p.found_at;
    let n_listed = DRAWS[draw];
    let mask_at = DRAWS[draw + 1u];
    for (var i = thread; i < N; i += SIZE) {
        let id = begin + i;
        var key = 0u;
        if (id < p.n &&
            (mask_at == NONE || ((DRAWS[draw + mask_at + id / 32u] >> (id & 31u)) & 1u) == 1u)) {
            key = key_of(X[x + id], true);
        }
        keys[i] = key;
    }
    workgroupBarrier();
    for (var i = thread; i < n_listed + p.n_ahead; i += SIZE) {
        var id = 0u;
        if (i < n_listed) {
            id = DRAWS[draw + LIST + i];
        } else {
            id = TOKENS[p.first_draw - p.n_ahead + i - n_listed];
        }
        if (id >= begin && id - begin < N && id < p.n) {
            if (PASS == 1) {
                atomicStore(&C[found + i], X[x + id]);
            }
            keys[id - begin] = 0u;
        }
    }
    workgroupBarrier();
}

// The largest of all threads.
fn largest(mine: u32, thread: u32) -> u32 {
    words[thread] = mine;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            words[thread] = max(words[thread], words[thread + step]);
        }
    }
    workgroupBarrier();
    let most = words[0];
    workgroupBarrier();
    return most;
}

fn largest_of_row(work: u32, thread: u32) -> u32 {
    var most = 0u;
    for (var i = thread; i < p.n_groups; i += SIZE) {
        most = max(most, atomicLoad(&C[work + i]));
    }
    return largest(most, thread);
}

// How far a logit is below the largest. Drivers reassociate sums, but not through `max`.
fn distance_of(key: u32, most: u32) -> f32 {
    return max(logit_of(most) - logit_of(key), 0.0);
}

// Bins are narrow near the largest: 32 of them up to a distance of 1, 3, 7, 15, ... The bits of 1 +
// distance are ordered as distances are.
fn bin_of(key: u32, most: u32) -> u32 {
    if (key == MINUS_INF || most == PLUS_INF) {
        return N_BINS - 1u;
    }
    return min((bitcast<u32>(1.0 + distance_of(key, most)) - 0x3f800000u) >> 18u, N_BINS - 1u);
}

fn weight_of(key: u32, most: u32, factor: f32) -> f32 {
    if (key <= MINUS_INF || most == PLUS_INF) {
        return 0.0;
    }
    let x = distance_of(key, most) * factor;
    return select(0.0, exp(-x), x < 87.0);
}

fn find_largest(work: u32, result: u32, group: u32, thread: u32) {
    var most = 0u;
    for (var i = thread; i < N; i += SIZE) {
        most = max(most, keys[i]);
    }
    most = largest(most, thread);
    if (thread == 0u) {
        atomicStore(&C[work + group], most);
    }
    if (group == 0u) {
        atomicStore(&C[work + p.n_groups + thread], 0u);
        if (thread == 0u) {
            atomicStore(&C[result], 0u);
        }
    }
}

fn count(work: u32, result: u32, group: u32, factor: f32, thread: u32) {
    let most = largest_of_row(work, thread);
    atomicStore(&counts[thread], 0u);
    workgroupBarrier();
    var sum = 0.0;
    for (var i = thread; i < N; i += SIZE) {
        if (keys[i] != 0u) {
            atomicAdd(&counts[bin_of(keys[i], most)], 1u);
            sum += weight_of(keys[i], most, factor);
        }
    }
    sums[thread] = sum;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            sums[thread] += sums[thread + step];
        }
    }
    workgroupBarrier();
    let n = atomicLoad(&counts[thread]);
    if (n > 0u) {
        atomicAdd(&C[work + p.n_groups + thread], n);
    }
    if (thread == 0u) {
        atomicStore(&C[result + p.sums_at + group], bitcast<u32>(sums[0]));
        if (group == 0u) {
            atomicStore(&C[result + 2u], most);
        }
    }
}

// How many bins are selected. words [N_BINS] = how many tokens are in each bin and those before it.
fn selected_bins(work: u32, n_least: u32, capacity: u32, thread: u32) -> u32 {
    words[thread] = atomicLoad(&C[work + p.n_groups + thread]);
    for (var step = 1u; step < N_BINS; step *= 2u) {
        workgroupBarrier();
        let before = select(0u, words[max(thread, step) - step], thread >= step);
        workgroupBarrier();
        words[thread] += before;
    }
    if (thread == 0u) {
        atomicStore(&end, select(N_BINS, 0u, n_least == 0u));
    }
    workgroupBarrier();
    if (n_least > 0u && words[thread] >= n_least) {
        atomicMin(&end, thread + 1u);
    }
    if (n_least == 0u && words[thread] <= capacity) {
        atomicMax(&end, thread + 1u);
    }
    workgroupBarrier();
    return atomicLoad(&end);
}

fn gather(work: u32, result: u32, draw: u32, begin: u32, thread: u32) {
    let most = largest_of_row(work, thread);
    let capacity = DRAWS[draw + 4u];
    let n_bins = selected_bins(work, DRAWS[draw + 2u], capacity, thread);
    for (var i = thread; i < N; i += SIZE) {
        if (keys[i] == 0u || bin_of(keys[i], most) >= n_bins) {
            continue;
        }
        let at = atomicAdd(&C[result], 1u);
        if (at < capacity) {
            atomicStore(&C[result + PAIRS + 2u * at], keys[i]);
            atomicStore(&C[result + PAIRS + 2u * at + 1u], begin + i);
        }
    }
    if (begin == 0u && thread == 0u) {
        atomicStore(&C[result + 1u], words[N_BINS - 1u]);
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    let draw = (p.first_draw + row) * p.draw_stride;
    let result = (p.first_draw + row) * p.result_stride;
    let work = p.work_at + row * p.work_stride;
    load(row, group.x * N, thread);
    if (PASS == 1) {
        find_largest(work, result, group.x, thread);
    } else if (PASS == 2) {
        count(work, result, group.x, bitcast<f32>(DRAWS[draw + 3u]), thread);
    } else {
        gather(work, result, draw, group.x * N, thread);
    }
}
