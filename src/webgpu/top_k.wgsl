// top_k.wgsl: the k most likely tokens of each row of logits, in order; of equal ones the lower id
//      comes first. Each workgroup sorts N of them and keeps k, until one workgroup has the rest.
// In:  X [n, x_stride] logits; DRAWS [n, draw_stride]: listed tokens, and which tokens are allowed.
//      In passes that are not IS_FIRST, C: pairs of a key and a token.
// Out: C: pairs, without the listed tokens; with IS_FIRST the logits of these.
//
// A key is a number without a sign that is ordered as the logit is. A NaN and a token that is not
// allowed have the key of -inf. Key 0 is none.

struct Params {
    n: u32, // of a row: logits, or pairs
    k: u32,
    x_stride: u32,
    draw_stride: u32,
    from_at: u32, // pairs in C
    from_stride: u32,
    to_at: u32,
    to_stride: u32,
    found_at: u32, // logits of listed tokens in C
    found_stride: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<u32>;
@group(0) @binding(2) var<storage, read> DRAWS: array<u32>;
@group(0) @binding(3) var<storage, read_write> C: array<u32>;

const SIZE = 256u;
const N = 1024u; // of a workgroup
const LIST = 4u; // of DRAWS: the first listed token
const NONE = 0xffffffffu;
var<workgroup> keys: array<u32, N>;
var<workgroup> ids: array<u32, N>;

fn key_of(bits: u32, is_allowed: bool) -> u32 {
    let is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    if (is_nan || !is_allowed) {
        return 0x007fffffu;
    }
    if (bits == 0x80000000u) { // -0 is 0
        return 0x80000000u;
    }
    return bits ^ select(0x80000000u, NONE, bits >= 0x80000000u);
}

fn comes_before(a: u32, b: u32) -> bool {
    return keys[a] > keys[b] || (keys[a] == keys[b] && ids[a] < ids[b]);
}

// Bitonic sort: Batcher 1968.
fn sort(thread: u32) {
    for (var size = 2u; size <= N; size *= 2u) {
        for (var step = size / 2u; step > 0u; step /= 2u) {
            workgroupBarrier();
            for (var t = thread; t < N / 2u; t += SIZE) {
                let i = 2u * t - (t & (step - 1u));
                let j = i + step;
                if (comes_before(j, i) == ((i & size) == 0u)) {
                    let key = keys[i];
                    let id = ids[i];
                    keys[i] = keys[j];
                    ids[i] = ids[j];
                    keys[j] = key;
                    ids[j] = id;
                }
            }
        }
    }
    workgroupBarrier();
}

// Logits of this workgroup.
fn load_logits(row: u32, begin: u32, thread: u32) {
    let draw = row * p.draw_stride;
    let n_listed = DRAWS[draw];
    let mask_at = DRAWS[draw + 1u];
    for (var i = thread; i < N; i += SIZE) {
        let id = begin + i;
        var key = 0u;
        if (id < p.n) {
            let is_allowed =
                mask_at == NONE || (DRAWS[draw + mask_at + id / 32u] >> (id & 31u) & 1u) == 1u;
            key = key_of(X[row * p.x_stride + id], is_allowed);
        }
        keys[i] = key;
        ids[i] = id;
    }
    workgroupBarrier();
    for (var i = thread; i < n_listed; i += SIZE) {
        let id = DRAWS[draw + LIST + i];
        if (id >= begin && id - begin < N && id < p.n) {
            C[p.found_at + row * p.found_stride + i] = X[row * p.x_stride + id];
            keys[id - begin] = 0u;
        }
    }
}

fn load_pairs(row: u32, begin: u32, thread: u32) {
    for (var i = thread; i < N; i += SIZE) {
        keys[i] = 0u;
        ids[i] = NONE;
        if (begin + i < p.n) {
            let at = p.from_at + row * p.from_stride + 2u * (begin + i);
            keys[i] = C[at];
            ids[i] = C[at + 1u];
        }
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let row = group.y;
    if (IS_FIRST) {
        load_logits(row, group.x * N, thread);
    } else {
        load_pairs(row, group.x * N, thread);
    }
    sort(thread);
    for (var i = thread; i < p.k; i += SIZE) {
        let at = p.to_at + row * p.to_stride + 2u * (group.x * p.k + i);
        C[at] = keys[i];
        C[at + 1u] = ids[i];
    }
}
