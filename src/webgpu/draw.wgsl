// draw.wgsl: a guess of the token that the sampler will draw, so that the GPU can run it before.
// In:  C: what top_k.wgsl found: pairs, and logits of listed tokens; DRAWS: these tokens, and those
//      that no penalty changes; TOKENS: listed tokens that were drawn before in this batch.
// Out: TOKENS[p.draw].
//
// It does what sampler.c does, in floats and without DRY and n-grams. The number of the generator
// is the same, so a difference is rare.

struct Params {
    draw: u32,
    n_ahead: u32, // tokens of the batch that were drawn before
    draw_at: u32, // in DRAWS
    best_at: u32, // in C: pairs,
    found_at: u32, // and logits of listed tokens
    k: u32,
    window: u32,
    seed_low: u32,
    seed_high: u32,
    index: u32,
    temperature: f32, // 0: greedy
    top_p: f32,       // of all: 1
    min_p: f32,
    repeat: f32,
    presence: f32,
    frequency: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> DRAWS: array<u32>;
@group(0) @binding(2) var<storage, read> C: array<u32>;
@group(0) @binding(3) var<storage, read_write> TOKENS: array<u32>;

const ENDS = 8u;  // of DRAWS: tokens that end an answer, n of them at ENDS - 1
const LIST = 32u; // of DRAWS: the first listed token
var<workgroup> listed: array<u32, N>;
var<workgroup> sums: array<f32, SIZE>; // of weights up to this one
var<workgroup> n_kept: atomic<u32>;
var<workgroup> chosen: atomic<u32>;

// ---- Philox4x32-10 (sampler.c) ----

fn multiply_high(a: u32, b: u32) -> u32 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let mid = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let mid2 = (a & 0xffffu) * (b >> 16u) + (mid & 0xffffu);
    return (a >> 16u) * (b >> 16u) + (mid >> 16u) + (mid2 >> 16u);
}

// In [0, 1): the first 24 of the 53 bits.
fn uniform_number() -> f32 {
    var c = vec4<u32>(p.index, 0u, 0u, 0u);
    var key = vec2<u32>(p.seed_low, p.seed_high);
    for (var round = 0u; round < 10u; round++) {
        let a = vec2<u32>(multiply_high(0xD2511F53u, c.x), 0xD2511F53u * c.x);
        let b = vec2<u32>(multiply_high(0xCD9E8D57u, c.z), 0xCD9E8D57u * c.z);
        c = vec4<u32>(b.x ^ c.y ^ key.x, b.y, a.x ^ c.w ^ key.y, a.y);
        key += vec2<u32>(0x9E3779B9u, 0xBB67AE85u);
    }
    return f32(c.y >> 8u) / 16777216.0;
}

// ---- logits ----

fn logit_of(key: u32) -> f32 {
    return bitcast<f32>(select(~key, key ^ 0x80000000u, key >= 0x80000000u));
}

fn is_end(id: u32) -> bool {
    for (var i = 0u; i < DRAWS[p.draw_at + ENDS - 1u]; i++) {
        if (DRAWS[p.draw_at + ENDS + i] == id) {
            return true;
        }
    }
    return false;
}

// The key of listed token i after the penalties; 0 if it is listed before.
fn penalized_key(i: u32, n: u32) -> u32 {
    let id = listed[i];
    let begin = n - min(p.window, n);
    var count = 0u;
    for (var j = 0u; j < n; j++) {
        let is_same = listed[j] == id;
        if (is_same && j < i) {
            return 0u;
        }
        count += select(0u, 1u, is_same && j >= begin);
    }
    let bits = C[p.found_at + i];
    if (count == 0u || is_end(id)) {
        return key_of(bits, true);
    }
    let logit = bitcast<f32>(bits);
    let scaled = select(logit * p.repeat, logit / p.repeat, logit > 0.0);
    return key_of(bitcast<u32>(scaled - (f32(count) * p.frequency + p.presence)), true);
}

fn load(thread: u32) {
    let n_listed = DRAWS[p.draw_at];
    let n = n_listed + p.n_ahead;
    for (var i = thread; i < n; i += SIZE) {
        if (i < n_listed) {
            listed[i] = DRAWS[p.draw_at + LIST + i];
        } else {
            listed[i] = TOKENS[p.draw - p.n_ahead + i - n_listed];
        }
    }
    workgroupBarrier();
    for (var i = thread; i < N; i += SIZE) {
        var key = 0u;
        var id = NONE;
        if (i < p.k) {
            key = C[p.best_at + 2u * i];
            id = C[p.best_at + 2u * i + 1u];
        } else if (i - p.k < n) {
            key = penalized_key(i - p.k, n);
            id = listed[i - p.k];
        }
        keys[i] = key;
        ids[i] = id;
    }
}

// ---- the draw ----

// sums = the sums of the weights of the first k tokens; returns this thread's weight.
fn add_weights(thread: u32) -> f32 {
    var weight = 0.0;
    if (thread < p.k && keys[thread] != 0u) {
        let below = (logit_of(keys[thread]) - logit_of(keys[0])) / p.temperature;
        weight = exp(max(below, -80.0));
    }
    sums[thread] = weight;
    for (var step = 1u; step < SIZE; step *= 2u) {
        workgroupBarrier();
        let before = sums[max(thread, step) - step];
        workgroupBarrier();
        if (thread >= step) {
            sums[thread] += before;
        }
    }
    workgroupBarrier();
    return weight;
}

@compute @workgroup_size(SIZE)
fn main(@builtin(local_invocation_index) thread: u32) {
    load(thread);
    sort(thread);
    if (p.temperature == 0.0) {
        if (thread == 0u) {
            TOKENS[p.draw] = ids[0];
        }
        return;
    }
    if (thread == 0u) {
        atomicStore(&n_kept, 1u);
        atomicStore(&chosen, p.k);
    }
    let weight = add_weights(thread);
    let before = sums[max(thread, 1u) - 1u];
    if (thread > 0u && thread < p.k && before < p.top_p * sums[p.k - 1u] && weight >= p.min_p) {
        atomicMax(&n_kept, thread + 1u);
    }
    workgroupBarrier();
    let end = atomicLoad(&n_kept);
    if (thread < end && sums[thread] > uniform_number() * sums[end - 1u]) {
        atomicMin(&chosen, thread);
    }
    workgroupBarrier();
    if (thread == 0u) {
        TOKENS[p.draw] = ids[min(atomicLoad(&chosen), end - 1u)];
    }
}
