// top_k.wgsl: the k most likely tokens of each row of logits, in order; of equal ones the lower id
//      comes first. Each workgroup sorts N of them and keeps k, until one workgroup has the rest.
// In:  X [n, x_stride] logits; DRAWS [n, draw_stride]: listed tokens, and which tokens are allowed.
//      In passes that are not IS_FIRST, C: pairs of a key and a token.
//      TOKENS: those that were drawn before in the batch are listed, too, if the row is ahead.
// Out: C: pairs of a key and a token, without the listed tokens; with IS_FIRST their logits.

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
    first_draw: u32,
    n_ahead: u32, // tokens of the batch that were drawn before, the last of them before first_draw
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> X: array<u32>;
@group(0) @binding(2) var<storage, read> DRAWS: array<u32>;
@group(0) @binding(3) var<storage, read> TOKENS: array<u32>;
@group(0) @binding(4) var<storage, read_write> C: array<u32>;

const LIST = 32u; // of DRAWS: the first listed token

// Logits of this workgroup.
fn load_logits(row: u32, begin: u32, thread: u32) {
    let draw = (p.first_draw + row) * p.draw_stride;
    let n_listed = DRAWS[draw];
    let mask_at = DRAWS[draw + 1u];
    for (var i = thread; i < N; i += SIZE) {
        let id = begin + i;
        var key = 0u;
        if (id < p.n) {
            let is_allowed =
                mask_at == NONE || ((DRAWS[draw + mask_at + id / 32u] >> (id & 31u)) & 1u) == 1u;
            key = key_of(X[row * p.x_stride + id], is_allowed);
        }
        keys[i] = key;
        ids[i] = id;
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
