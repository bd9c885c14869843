// rope.wgsl: norm and rotate the queries and keys of a batch; append keys and values to the cache.
// In:  X [n, x_stride]: queries, keys and values side by side; V: weights of norms; ROPE: cos and
//      sin of each position.
// Out: Q [n, q_stride]; KV, the cache of one layer of one sequence (sequence.c has its layout).
//
// A workgroup has one head of one row: query heads, then those of keys, then those of values.

struct Params {
    n_heads: u32,
    n_kv_heads: u32,
    x_stride: u32,
    q_stride: u32,
    half: u32, // pairs that rotate
    rope_at: u32,
    q_norm_at: u32,
    k_norm_at: u32,
    first_row: u32, // in ROWS
    first_t: u32,   // in X and Q
    n_blocks: u32,  // of a head in KV
    values_at: u32, // word of KV
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> X: array<f32>;
@group(0) @binding(3) var<storage, read> V: array<f32>;
@group(0) @binding(4) var<storage, read> ROPE: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> Q: array<f32>;
@group(0) @binding(6) var<storage, read_write> KV: array<u32>;

const SIZE = 128u;
const NONE = 0xffffffffu;
var<workgroup> head: array<f32, HEAD_DIM>;
var<workgroup> gains: array<f32, HEAD_DIM>;        // weights of its norm
var<workgroup> turns: array<vec2<f32>, HEAD_DIM>;  // cos and sin

// What a norm subtracts and multiplies by, over X[at, at + n).
fn statistics(at: u32, n: u32, is_layer_norm: bool, thread: u32) -> vec2<f32> {
    var mean = 0.0;
    if (is_layer_norm) {
        var sum = 0.0;
        for (var i = thread; i < n; i += SIZE) {
            sum += X[at + i];
        }
        mean = add_up(sum, thread) / f32(n);
    }
    var squares = 0.0;
    for (var i = thread; i < n; i += SIZE) {
        let d = X[at + i] - mean;
        squares += d * d;
    }
    return vec2<f32>(mean, inverseSqrt(add_up(squares, thread) / f32(n) + p.eps));
}

// Word w of the head as it is stored: a float, or a pair of binary16.
fn word_of(w: u32) -> u32 {
    if (KV_F16) {
        return pack2x16float(vec2<f32>(head[2u * w], head[2u * w + 1u]));
    }
    return bitcast<u32>(head[w]);
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let t = p.first_t + group.y;
    let pos = ROWS[p.first_row + group.y].y;
    let is_query = group.x < p.n_heads;
    let is_value = group.x >= p.n_heads + p.n_kv_heads;
    var h = group.x; // among the heads of its kind
    var n = p.n_heads;
    var kind_at = t * p.x_stride; // of the heads of its kind in X
    var norm_at = p.q_norm_at;
    if (!is_query) {
        h -= p.n_heads;
        kind_at += p.n_heads * HEAD_DIM;
        n = p.n_kv_heads;
        norm_at = p.k_norm_at;
    }
    if (is_value) {
        h -= p.n_kv_heads;
        kind_at += select(p.n_kv_heads * HEAD_DIM, 0u, V_IS_K);
        norm_at = NONE;
    }
    let at = kind_at + h * HEAD_DIM;
    // all that is read, at once
    for (var i = thread; i < HEAD_DIM; i += SIZE) {
        head[i] = X[at + i];
        if (QK_NORM > 0 && norm_at != NONE) {
            gains[i] = V[norm_at + select(h * HEAD_DIM, 0u, QK_NORM == 1) + i];
        }
    }
    for (var i = thread; i < p.half && !is_value; i += SIZE) {
        turns[i] = ROPE[p.rope_at + pos * p.half + i];
    }
    if (QK_NORM > 0 && norm_at != NONE) {
        var s = vec2<f32>(0.0);
        if (QK_NORM == 3) {
            s = statistics(kind_at, n * HEAD_DIM, IS_LAYER_NORM, thread);
        } else {
            s = statistics(at, HEAD_DIM, IS_LAYER_NORM, thread);
        }
        for (var i = thread; i < HEAD_DIM; i += SIZE) {
            head[i] = (head[i] - s.x) * s.y * (gains[i] + select(0.0, 1.0, IS_PLUS_1));
        }
    }
    if (V_NORM && is_value) {
        let s = statistics(at, HEAD_DIM, false, thread);
        for (var i = thread; i < HEAD_DIM; i += SIZE) {
            head[i] *= s.y;
        }
    }
    workgroupBarrier();
    if (!is_value) {
        for (var i = thread; i < p.half; i += SIZE) {
            let turn = turns[i];
            let a = head[i];
            let b = head[i + p.half];
            head[i] = a * turn.x - b * turn.y;
            head[i + p.half] = b * turn.x + a * turn.y;
        }
    }
    workgroupBarrier();
    if (is_query) {
        for (var i = thread; i < HEAD_DIM; i += SIZE) {
            Q[t * p.q_stride + h * HEAD_DIM + i] = head[i];
        }
        return;
    }
    let slot = pos % (64u * p.n_blocks); // layers with a window keep the last blocks
    let n_words = select(HEAD_DIM, HEAD_DIM / 2u, KV_F16); // WORDS are whole vec4s
    for (var w = thread; w < n_words; w += SIZE) {
        if (is_value) {
            KV[p.values_at + (h * p.n_blocks * 64u + slot) * WORDS + w] = word_of(w);
        } else {
            let block = (h * p.n_blocks + slot / 64u) * WORDS;
            KV[(block + w / 4u * 4u) * 64u + slot % 64u * 4u + w % 4u] = word_of(w);
        }
    }
}
