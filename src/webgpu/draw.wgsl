// draw.wgsl: a guess of the token that the sampler will draw, so that the GPU can run it before.
// In:  C: what select.wgsl found; DRAWS: listed tokens, biases, tokens that no penalty changes;
//      TOKENS: listed tokens that were drawn before in this batch.
// Out: TOKENS[p.draw].
//
// It does what sampler.c does, in floats and without DRY and n-grams. The number of the generator
// is the same, so a difference is rare.

struct Params {
    draw: u32,
    n_ahead: u32, // tokens of the batch that were drawn before
    vocab_size: u32,
    draw_at: u32, // in DRAWS
    bias_at: u32, // biases of the first n_bias listed tokens
    n_bias: u32,
    result_at: u32, // in C
    found_at: u32, // logits of listed tokens
    sums_at: u32,
    n_groups: u32, // sums
    k: u32,        // the draw is among this many; 0: all
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
const PAIRS = 4u; // of a result
const LISTED = 0x80000000u; // of an id: the token is listed
const EACH = N / SIZE;      // tokens of a thread
var<workgroup> words: array<u32, N>; // listed tokens; then floats: weights up to each token
var<workgroup> sums: array<f32, SIZE>;
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

fn is_end(id: u32) -> bool {
    for (var i = 0u; i < DRAWS[p.draw_at + ENDS - 1u]; i++) {
        if (DRAWS[p.draw_at + ENDS + i] == id) {
            return true;
        }
    }
    return false;
}

// The key of listed token i after biases and penalties; 0 if it is listed before, or not a token.
fn penalized_key(i: u32, n: u32) -> u32 {
    let id = words[i];
    let begin = max(p.n_bias, n - min(p.window, n));
    var logit = bitcast<f32>(C[p.found_at + i]);
    var count = 0u;
    for (var j = 0u; j < n; j++) {
        let is_same = words[j] == id;
        if (is_same && j < i) {
            return 0u;
        }
        if (is_same && j < p.n_bias) {
            logit += bitcast<f32>(DRAWS[p.bias_at + j]);
        }
        count += select(0u, 1u, is_same && j >= begin);
    }
    if (id >= p.vocab_size) {
        return 0u;
    }
    if (count > 0u && !is_end(id)) {
        logit = select(logit * p.repeat, logit / p.repeat, logit > 0.0) -
                (f32(count) * p.frequency + p.presence);
    }
    return key_of(bitcast<u32>(logit), true);
}

fn load(thread: u32) {
    let n_listed = DRAWS[p.draw_at];
    let n = n_listed + p.n_ahead;
    let n_found = min(C[p.result_at], DRAWS[p.draw_at + 4u]);
    for (var i = thread; i < n; i += SIZE) {
        if (i < n_listed) {
            words[i] = DRAWS[p.draw_at + LIST + i];
        } else {
            words[i] = TOKENS[p.draw - p.n_ahead + i - n_listed];
        }
    }
    workgroupBarrier();
    for (var i = thread; i < N; i += SIZE) {
        var key = 0u;
        var id = NONE;
        if (i < n_found) {
            key = C[p.result_at + PAIRS + 2u * i];
            id = C[p.result_at + PAIRS + 2u * i + 1u];
        } else if (i - n_found < n) {
            key = penalized_key(i - n_found, n);
            id = words[i - n_found] | LISTED;
        }
        keys[i] = key;
        ids[i] = id;
    }
}

// ---- the draw ----

fn weight(key: u32) -> f32 {
    let below = (logit_of(key) - logit_of(keys[0])) / p.temperature;
    return select(0.0, exp(max(below, -80.0)), key > MINUS_INF);
}

// The weight of sorted token i; 0 if it is not among the k.
fn weight_of(i: u32) -> f32 {
    if (p.k > 0u && i >= p.k) {
        return 0.0;
    }
    return weight(keys[i]);
}

// The sum of all threads.
fn add_up(x: f32, thread: u32) -> f32 {
    workgroupBarrier();
    sums[thread] = x;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            sums[thread] += sums[thread + step];
        }
    }
    workgroupBarrier();
    return sums[0];
}

// The sum of all weights, also of the tokens that are not here.
fn total(thread: u32) -> f32 {
    var sum = 0.0;
    for (var i = thread; i < p.n_groups && p.k == 0u; i += SIZE) {
        sum += bitcast<f32>(C[p.sums_at + i]);
    }
    sum *= weight(C[p.result_at + 2u]);
    for (var i = thread; i < N; i += SIZE) {
        if (p.k > 0u || ids[i] >= LISTED) {
            sum += weight_of(i);
        }
    }
    return add_up(sum, thread);
}

// words = the sums of the weights up to each token.
fn add_weights(thread: u32) {
    var sum = 0.0;
    for (var i = EACH * thread; i < EACH * (thread + 1u); i++) {
        sum += weight_of(i);
        words[i] = bitcast<u32>(sum);
    }
    workgroupBarrier();
    sums[thread] = sum;
    for (var step = 1u; step < SIZE; step *= 2u) {
        workgroupBarrier();
        let before = select(0.0, sums[max(thread, step) - step], thread >= step);
        workgroupBarrier();
        sums[thread] += before;
    }
    workgroupBarrier();
    for (var i = EACH * thread; i < EACH * (thread + 1u) && thread > 0u; i++) {
        words[i] = bitcast<u32>(bitcast<f32>(words[i]) + sums[thread - 1u]);
    }
    workgroupBarrier();
}

fn up_to(i: u32) -> f32 {
    return bitcast<f32>(words[i]);
}

@compute @workgroup_size(SIZE)
fn main(@builtin(local_invocation_index) thread: u32) {
    load(thread);
    sort(thread);
    if (p.temperature == 0.0) {
        if (thread == 0u) {
            TOKENS[p.draw] = ids[0] & ~LISTED;
        }
        return;
    }
    if (thread == 0u) {
        atomicStore(&n_kept, 1u);
        atomicStore(&chosen, N);
    }
    let all = total(thread);
    add_weights(thread);
    for (var i = max(thread, 1u); i < N; i += SIZE) {
        if (keys[i] > 0u && up_to(i - 1u) < p.top_p * all && weight_of(i) >= p.min_p) {
            atomicMax(&n_kept, i + 1u);
        }
    }
    workgroupBarrier();
    let end = atomicLoad(&n_kept);
    let is_limited = p.top_p < 1.0 || p.min_p > 0.0;
    let left = uniform_number() * select(all, up_to(end - 1u), is_limited);
    for (var i = thread; i < end; i += SIZE) {
        if (up_to(i) > left) {
            atomicMin(&chosen, i);
        }
    }
    workgroupBarrier();
    if (thread == 0u) {
        TOKENS[p.draw] = ids[min(atomicLoad(&chosen), end - 1u)] & ~LISTED;
    }
}
