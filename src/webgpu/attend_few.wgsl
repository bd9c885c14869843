// attend_few.wgsl: attention for a few rows of one sequence: decode, draft tokens.
// In:  X [n, x_stride]: queries, keys and values of the rows side by side, as their product left
//      them, or only queries; V: weights of norms, slopes; ROPE: cos and sin of each position.
// Out: KV: with APPENDS the keys and values of the rows, in the cache; OUT [n, out_stride], or with
//      IS_SPLIT the parts of combine.wgsl.
//
// A workgroup has four lanes and n_split keys. It norms and rotates its queries, and those keys of
// the batch that are among its own. It appends them, as every workgroup does that reads them: they
// all write the same bits. Then it goes through its keys 64 at a time with an online softmax (Milakov
// and Gimelshein 2018).
//
// If more than four query heads of the rows share a kv head, several workgroups write the same words.
// Formally that is a data race, whose result Vulkan's memory model, and so WGSL, leaves undefined. It
// is accepted here, because nothing depends on its order: a workgroup reads these words behind its own
// write and a barrier, and all writes of a word are equal.

struct Params {
    n: u32, // rows
    first_row: u32, // in ROWS
    first_t: u32,   // in X and OUT
    x_stride: u32,
    out_stride: u32,
    n_kv_heads: u32,
    n_blocks: u32,  // of a head in KV
    values_at: u32, // word of KV
    window: u32,    // 0: none
    n_split: u32,   // keys of a part
    n_parts: u32,   // a row has this many, of which the last may have no keys
    parts_t: u32,   // row of the first part
    alibi_at: u32, // index of V, as are the next two
    q_norm_at: u32,
    k_norm_at: u32,
    half: u32, // pairs of dimensions that rotate
    scale: f32,
    cap: f32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> X: array<f32>;
@group(0) @binding(3) var<storage, read> V: array<f32>;
@group(0) @binding(4) var<storage, read> ROPE: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> KV: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> OUT: array<f32>;

const TILE = 64u;             // keys
const PER_KEY = SIZE / TILE;  // threads that share a key
const N_SHARES = SIZE / QUADS; // threads that share a quad of values
const DIMS = QUADS * PER_QUAD;
const NONE = 0xffffffffu;

var<workgroup> weights: array<vec4<f32>, TILE>;
var<workgroup> maxima: array<vec4<f32>, 16>;
var<workgroup> reduced: array<vec4<f32>, 2u * SIZE>;

// The sum over all threads.
fn add_up(x: vec4<f32>, thread: u32) -> vec4<f32> {
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

// ---- queries and new keys: four heads at a time ----

fn gather(at: vec4<u32>, i: u32) -> vec4<f32> {
    return vec4<f32>(X[at.x + i], X[at.y + i], X[at.z + i], X[at.w + i]);
}

// What norms subtract and multiply by, over n numbers of X from each `at` on.
struct Statistics {
    mean: vec4<f32>,
    scale: vec4<f32>,
}

fn statistics(at: vec4<u32>, n: u32, is_layer_norm: bool, thread: u32) -> Statistics {
    var s = Statistics();
    if (is_layer_norm) {
        var sum = vec4<f32>(0.0);
        for (var i = thread; i < n; i += SIZE) {
            sum += gather(at, i);
        }
        s.mean = add_up(sum, thread) / f32(n);
    }
    var squares = vec4<f32>(0.0);
    for (var i = thread; i < n; i += SIZE) {
        let d = gather(at, i) - s.mean;
        squares += d * d;
    }
    s.scale = inverseSqrt(add_up(squares, thread) / f32(n) + p.eps);
    return s;
}

// Load q from four heads, normed if norm_at is not NONE. They are heads `head` of rows that begin,
// with n_heads of their kind, at `row_at`.
fn load_heads(row_at: vec4<u32>, head: vec4<u32>, n_heads: u32, norm_at: u32, thread: u32) {
    let at = row_at + head * HEAD_DIM;
    var s = Statistics(vec4<f32>(0.0), vec4<f32>(1.0));
    if (QK_NORM == 3 && norm_at != NONE) {
        s = statistics(row_at, n_heads * HEAD_DIM, IS_LAYER_NORM, thread);
    } else if (QK_NORM > 0 && norm_at != NONE) {
        s = statistics(at, HEAD_DIM, IS_LAYER_NORM, thread);
    }
    for (var i = thread; i < DIMS; i += SIZE) {
        var x = vec4<f32>(0.0);
        if (i < HEAD_DIM) {
            x = gather(at, i);
            if (QK_NORM > 0 && norm_at != NONE) {
                let g = norm_at + i + select(head * HEAD_DIM, vec4<u32>(0u), QK_NORM == 1);
                let gain = vec4<f32>(V[g.x], V[g.y], V[g.z], V[g.w]);
                x = (x - s.mean) * s.scale * (gain + select(0.0, 1.0, IS_PLUS_1));
            }
        }
        q[i] = x;
    }
    workgroupBarrier();
}

// Rotate the heads in q by their positions.
fn rotate(pos: vec4<u32>, thread: u32) {
    for (var i = thread; i < p.half; i += SIZE) {
        let at = pos * p.half + i;
        let u = ROPE[at.x];
        let v = ROPE[at.y];
        let w = ROPE[at.z];
        let z = ROPE[at.w];
        let cosine = vec4<f32>(u.x, v.x, w.x, z.x);
        let sine = vec4<f32>(u.y, v.y, w.y, z.y);
        let a = q[i];
        let b = q[i + p.half];
        q[i] = a * cosine - b * sine;
        q[i + p.half] = b * cosine + a * sine;
    }
    workgroupBarrier();
}

// A quad of the head in the first component of q, as it is stored.
fn packed(quad: u32) -> vec4<u32> {
    let i = quad * PER_QUAD;
    if (KV_F16) {
        return vec4<u32>(pack2x16float(vec2<f32>(q[i].x, q[i + 1u].x)),
                         pack2x16float(vec2<f32>(q[i + 2u].x, q[i + 3u].x)),
                         pack2x16float(vec2<f32>(q[i + 4u].x, q[i + 5u].x)),
                         pack2x16float(vec2<f32>(q[i + 6u].x, q[i + 7u].x)));
    }
    return bitcast<vec4<u32>>(vec4<f32>(q[i].x, q[i + 1u].x, q[i + 2u].x, q[i + 3u].x));
}

// Append the key and the value of row t, at position pos.
fn append(t: u32, pos: u32, kv_head: u32, thread: u32) {
    let keys_at = vec4<u32>((p.first_t + t) * p.x_stride + N_HEADS * HEAD_DIM);
    let values_at = keys_at + select(p.n_kv_heads * HEAD_DIM, 0u, V_IS_K);
    let head = vec4<u32>(kv_head);
    let slot = slot_of(pos);
    load_heads(keys_at, head, p.n_kv_heads, p.k_norm_at, thread);
    rotate(vec4<u32>(pos), thread);
    for (var i = thread; i < QUADS; i += SIZE) {
        KV[((kv_head * p.n_blocks + slot / 64u) * QUADS + i) * 64u + slot % 64u] = packed(i);
    }
    workgroupBarrier();
    load_heads(values_at, head, p.n_kv_heads, NONE, thread);
    if (V_NORM) {
        let s = statistics(values_at + head * HEAD_DIM, HEAD_DIM, false, thread);
        for (var i = thread; i < HEAD_DIM; i += SIZE) {
            q[i] *= s.scale;
        }
        workgroupBarrier();
    }
    for (var i = thread; i < QUADS; i += SIZE) {
        KV[p.values_at / 4u + (kv_head * p.n_blocks * 64u + slot) * QUADS + i] = packed(i);
    }
    workgroupBarrier();
}

// Row and position of a lane; those of the last row if it has none.
fn row_of(lane: Lane) -> u32 {
    return min(lane.t, p.n - 1u);
}

fn load_queries(a: Lane, b: Lane, c: Lane, d: Lane, thread: u32) {
    let t = vec4<u32>(row_of(a), row_of(b), row_of(c), row_of(d));
    let head = vec4<u32>(a.head, b.head, c.head, d.head);
    load_heads((p.first_t + t) * p.x_stride, head, N_HEADS, p.q_norm_at, thread);
    rotate(vec4<u32>(ROWS[p.first_row + t.x].y, ROWS[p.first_row + t.y].y,
                     ROWS[p.first_row + t.z].y, ROWS[p.first_row + t.w].y),
           thread);
}

// ---- scores ----

// A thread's share of the products of a key. Four loads are on their way at once.
fn share_of_scores(kv_head: u32, key: u32, share: u32) -> vec4<f32> {
    let at = (kv_head * p.n_blocks + slot_of(key) / 64u) * QUADS * 64u + key % 64u;
    var s = vec4<f32>(0.0);
    var i = share;
    for (; i + 3u * PER_KEY < QUADS; i += 4u * PER_KEY) {
        let a = KV[at + i * 64u];
        let b = KV[at + (i + PER_KEY) * 64u];
        let c = KV[at + (i + 2u * PER_KEY) * 64u];
        let d = KV[at + (i + 3u * PER_KEY) * 64u];
        s += quad_scores(a, i) + quad_scores(b, i + PER_KEY) + quad_scores(c, i + 2u * PER_KEY) +
             quad_scores(d, i + 3u * PER_KEY);
    }
    for (; i < QUADS; i += PER_KEY) {
        s += quad_scores(KV[at + i * 64u], i);
    }
    return s;
}

// The score of a key from the products of its threads, in `reduced`.
fn score(key: u32, thread: u32, slopes: vec4<f32>) -> vec4<f32> {
    var s = reduced[thread];
    for (var i = 1u; i < PER_KEY; i++) {
        s += reduced[thread + i * TILE];
    }
    return score_of(s, key, slopes);
}

// The largest score of a tile or before it; its scores are in `weights`.
fn largest(before: vec4<f32>, thread: u32) -> vec4<f32> {
    if (thread < 16u) {
        maxima[thread] = max(max(weights[thread], weights[thread + 16u]),
                             max(weights[thread + 32u], weights[thread + 48u]));
    }
    workgroupBarrier();
    var most = before;
    for (var i = 0u; i < 16u; i++) {
        most = max(most, maxima[i]);
    }
    return most;
}

// ---- output ----

struct Output {
    a: Lane,
    b: Lane,
    c: Lane,
    d: Lane,
    part: u32,
    most: vec4<f32>,
    sum: vec4<f32>,
}

fn store(lane: Lane, part: u32, i: u32, x: f32, most: f32, sum: f32) {
    if (lane.t >= p.n) {
        return;
    }
    if (!IS_SPLIT) {
        OUT[(p.first_t + lane.t) * p.out_stride + lane.head * HEAD_DIM + i] = x / sum;
        return;
    }
    let at = (((p.parts_t + lane.t) * N_HEADS + lane.head) * p.n_parts + part) * PITCH;
    OUT[at + i] = x;
    if (i == 0u) {
        OUT[at + PITCH - 4u] = most;
        OUT[at + PITCH - 3u] = sum;
    }
}

// The sum of all shares of dimensions `dim` and dim + 1 of each quad.
fn store_pair(o: Output, dim: u32, x: vec4<f32>, y: vec4<f32>, thread: u32) {
    workgroupBarrier();
    reduced[thread] = x;
    reduced[SIZE + thread] = y;
    workgroupBarrier();
    for (var i = thread; i < 2u * QUADS; i += SIZE) {
        let at = i / QUADS * SIZE + i % QUADS;
        let d = i % QUADS * PER_QUAD + dim + i / QUADS;
        var sum = reduced[at];
        for (var share = 1u; share < N_SHARES; share++) {
            sum += reduced[at + share * QUADS];
        }
        if (d < HEAD_DIM) {
            store(o.a, o.part, d, sum.x, o.most.x, o.sum.x);
            store(o.b, o.part, d, sum.y, o.most.y, o.sum.y);
            store(o.c, o.part, d, sum.z, o.most.z, o.sum.z);
            store(o.d, o.part, d, sum.w, o.most.w, o.sum.w);
        }
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let kv_head = group.y;
    let a = lane_of(4u * group.x, kv_head);
    let b = lane_of(4u * group.x + 1u, kv_head);
    let c = lane_of(4u * group.x + 2u, kv_head);
    let d = lane_of(4u * group.x + 3u, kv_head);
    let begin = vec4<u32>(a.begin, b.begin, c.begin, d.begin);
    let end = vec4<u32>(a.end, b.end, c.end, d.end);
    // parts begin at multiples of their size, whatever the lanes attend to
    let first = min(min(begin.x, begin.y), min(begin.z, begin.w)) / p.n_split * p.n_split +
                group.z * p.n_split;
    let last = min(max(max(end.x, end.y), max(end.z, end.w)), first + p.n_split);
    if (APPENDS) {
        for (var t = 0u; t < p.n; t++) {
            let pos = ROWS[p.first_row + t].y;
            if (pos >= first && pos < last) {
                append(t, pos, kv_head, thread);
            }
        }
        storageBarrier();
    }
    load_queries(a, b, c, d, thread);
    var slopes = vec4<f32>(0.0);
    if (HAS_ALIBI) {
        slopes = vec4<f32>(slope(a), slope(b), slope(c), slope(d));
    }

    let quad = thread % QUADS;
    let share = thread / QUADS;
    var x = Quad();
    var most = vec4<f32>(LEAST);
    var sum = vec4<f32>(0.0); // of the weights of this thread's share
    for (var tile = first; tile < last; tile += TILE) {
        let key = tile + thread % TILE;
        let is_visible = (vec4<u32>(key) >= begin) & (vec4<u32>(key) < end) &
                         vec4<bool>(key < last);
        var s = vec4<f32>(0.0);
        if (any(is_visible)) {
            s = share_of_scores(kv_head, key, thread / TILE);
        }
        reduced[thread] = s;
        workgroupBarrier();
        if (thread < TILE) {
            s = select(vec4<f32>(LEAST), score(key, thread, slopes), is_visible);
            weights[thread] = s;
        }
        workgroupBarrier();
        let now = largest(most, thread);
        let factor = exp(most - now);
        most = now;
        if (thread < TILE) {
            weights[thread] = select(vec4<f32>(0.0), exp(s - now), is_visible);
        }
        workgroupBarrier();
        let n_keys = min(TILE, last - tile);
        x = scaled(x, factor);
        sum *= factor;
        if (share < N_SHARES) {
            let at = p.values_at / 4u + (kv_head * p.n_blocks * 64u + slot_of(tile)) * QUADS + quad;
            var j = share;
            for (; j + 3u * N_SHARES < n_keys; j += 4u * N_SHARES) {
                let v0 = KV[at + j * QUADS];
                let v1 = KV[at + (j + N_SHARES) * QUADS];
                let v2 = KV[at + (j + 2u * N_SHARES) * QUADS];
                let v3 = KV[at + (j + 3u * N_SHARES) * QUADS];
                sum += (weights[j] + weights[j + N_SHARES]) +
                       (weights[j + 2u * N_SHARES] + weights[j + 3u * N_SHARES]);
                x = plus(x, v0, weights[j]);
                x = plus(x, v1, weights[j + N_SHARES]);
                x = plus(x, v2, weights[j + 2u * N_SHARES]);
                x = plus(x, v3, weights[j + 3u * N_SHARES]);
            }
            for (; j < n_keys; j += N_SHARES) {
                sum += weights[j];
                x = plus(x, KV[at + j * QUADS], weights[j]);
            }
        }
        workgroupBarrier();
    }
    reduced[thread] = sum;
    workgroupBarrier();
    sum = reduced[0];
    for (var i = 1u; i < N_SHARES; i++) {
        sum += reduced[i * QUADS];
    }
    let out = Output(a, b, c, d, group.z, most, sum);
    store_pair(out, 0u, x.a, x.b, thread);
    store_pair(out, 2u, x.c, x.d, thread);
    if (KV_F16) {
        store_pair(out, 4u, x.e, x.f, thread);
        store_pair(out, 6u, x.g, x.h, thread);
    }
}
