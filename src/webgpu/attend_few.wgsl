// attend_few.wgsl: attention for a few rows of one sequence: decode, draft tokens.
// In:  X [n, x_stride]: queries, keys and values of the rows side by side, as their product left
//      them, or only queries; V: weights of norms, slopes; ROPE: cos and sin of each position.
// Out: KV: with APPENDS the keys and values of the rows, in the cache; OUT [n, out_stride], or with
//      IS_SPLIT the parts of combine.wgsl.
//
// A workgroup has n_split keys and the lanes of few_four.wgsl or few_two.wgsl. It norms and rotates
// its queries, and those keys of the batch that are among its own. It appends them, as every
// workgroup does that reads them: they all write the same bits. Then it goes through its keys 64 at
// a time with an online softmax (Milakov and Gimelshein 2018). What is added up over threads is in
// few_memory.wgsl or few_subgroups.wgsl.
//
// If a kv head has more query heads than a workgroup has lanes, several workgroups write the same
// words. Formally that is a data race, whose result Vulkan's memory model, and so WGSL, leaves
// undefined. It is accepted here, because nothing depends on its order: a workgroup keeps what it
// made, or reads it behind its own write and a barrier, and all writes of a word are equal.

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
    slot_vecs: u32, // from sequence to sequence in KV
    pos: u32, // of a single row, as is the next: a read of ROWS would be before all others
    visible_end: u32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> X: array<f32>;
@group(0) @binding(3) var<storage, read> V: array<f32>;
@group(0) @binding(4) var<storage, read> ROPE: array<vec2<f32>>;
@group(0) @binding(5) var<storage, read_write> KV: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> OUT: array<u32>;

const TILE = 64u;            // keys
const PER_KEY = SIZE / TILE; // neighbours that share a key
const DIMS = QUADS * PER_QUAD;
const NONE = 0xffffffffu;

var<workgroup> weights: array<Numbers, TILE>;
// The key and the value that were appended last.
var<workgroup> appended: array<vec4<u32>, select(1u, 2u * QUADS, IS_READ_FIRST)>;

// Row t, as ROWS has it.
fn row_of_batch(t: u32, first: u32) -> vec4<u32> {
    if (IS_ONE_ROW) {
        return vec4<u32>(0u, p.pos, p.visible_end, 0u);
    }
    return ROWS[first + t];
}

// With IS_BATCH the dispatch has single rows of several sequences: this is one, and its sequence's
// place in KV.
var<private> row_at: u32;
var<private> kv_at: u32;

fn first_row() -> u32 {
    return p.first_row + row_at;
}

fn first_t() -> u32 {
    return p.first_t + row_at;
}

// ---- new keys ----

// A quad of a head in q, as it is stored: that in the first component, or in the second.
fn packed(quad: u32, is_second: bool) -> vec4<u32> {
    let i = quad * PER_QUAD;
    let a = vec4<f32>(part(i, is_second), part(i + 1u, is_second), part(i + 2u, is_second),
                      part(i + 3u, is_second));
    if (KV_F16) {
        return vec4<u32>(pack2x16float(a.xy), pack2x16float(a.zw),
                         pack2x16float(vec2<f32>(part(i + 4u, is_second), part(i + 5u, is_second))),
                         pack2x16float(vec2<f32>(part(i + 6u, is_second), part(i + 7u, is_second))));
    }
    return bitcast<vec4<u32>>(a);
}

// Append those in q at position pos.
fn append(pos: u32, kv_head: u32, thread: u32) {
    let slot = slot_of(pos);
    let keys_at = (kv_head * p.n_blocks + slot / 64u) * QUADS * 64u + slot % 64u;
    let values_at = p.values_at / 4u + (kv_head * p.n_blocks * 64u + slot) * QUADS;
    for (var i = thread; i < 2u * QUADS; i += SIZE) {
        let is_value = i >= QUADS;
        let quad = i % QUADS;
        let v = packed(quad, is_value);
        KV[kv_at + select(keys_at + quad * 64u, values_at + quad, is_value)] = v;
        if (IS_READ_FIRST) {
            appended[i] = v;
        }
        if (2u * QUADS <= SIZE) {
            break;
        }
    }
    workgroupBarrier();
}

// Row and position of a lane; those of the last row if it has none.
fn row_of(lane: Lane) -> u32 {
    return min(lane.t, p.n - 1u);
}

// ---- scores ----

// The quads of a thread's key and of its values in a tile. Named, as in Quad.
struct Tile {
    ka: vec4<u32>,
    kb: vec4<u32>,
    kc: vec4<u32>,
    kd: vec4<u32>,
    ke: vec4<u32>,
    kf: vec4<u32>,
    kg: vec4<u32>,
    kh: vec4<u32>,
    va: vec4<u32>,
    vb: vec4<u32>,
    vc: vec4<u32>,
    vd: vec4<u32>,
    ve: vec4<u32>,
    vf: vec4<u32>,
    vg: vec4<u32>,
    vh: vec4<u32>,
}

const IN_TILE = 8u; // quads of each kind
const HAS_MORE_KEYS = QUADS > IN_TILE * PER_KEY;
const IS_FULL = QUADS >= IN_TILE * PER_KEY; // no thread has quads behind the end of a key
// The tile can be read before the batch appends to it: it has all that it needs.
const IS_READ_FIRST = !HAS_MORE_KEYS && IN_TILE * N_SHARES >= TILE;

fn key_quad(at: u32, i: u32) -> vec4<u32> {
    if (IS_FULL) {
        return KV[at + i * 64u];
    }
    return KV[at + min(i, QUADS - 1u) * 64u];
}

// Behind the end of a tile the last value is read; its weight is 0.
fn read_tile(kv_head: u32, tile: u32, n_keys: u32, thread: u32) -> Tile {
    let slot = slot_of(tile);
    let k = kv_at + (kv_head * p.n_blocks + slot / 64u) * QUADS * 64u + thread / PER_KEY;
    let i = thread % PER_KEY;
    let v = kv_at + p.values_at / 4u + (kv_head * p.n_blocks * 64u + slot) * QUADS + quad_of(thread);
    let j = share_of(thread);
    let last = n_keys - 1u;
    return Tile(key_quad(k, i), key_quad(k, i + PER_KEY), key_quad(k, i + 2u * PER_KEY),
                key_quad(k, i + 3u * PER_KEY), key_quad(k, i + 4u * PER_KEY),
                key_quad(k, i + 5u * PER_KEY), key_quad(k, i + 6u * PER_KEY),
                key_quad(k, i + 7u * PER_KEY), KV[v + min(j, last) * QUADS],
                KV[v + min(j + N_SHARES, last) * QUADS],
                KV[v + min(j + 2u * N_SHARES, last) * QUADS],
                KV[v + min(j + 3u * N_SHARES, last) * QUADS],
                KV[v + min(j + 4u * N_SHARES, last) * QUADS],
                KV[v + min(j + 5u * N_SHARES, last) * QUADS],
                KV[v + min(j + 6u * N_SHARES, last) * QUADS],
                KV[v + min(j + 7u * N_SHARES, last) * QUADS]);
}

// The tile with what was appended, which belongs to its key `index`.
fn with_new_key(old: Tile, index: u32, thread: u32) -> Tile {
    var tile = old;
    if (thread / PER_KEY == index) {
        let i = thread % PER_KEY;
        tile.ka = new_key(i);
        tile.kb = new_key(i + PER_KEY);
        tile.kc = new_key(i + 2u * PER_KEY);
        tile.kd = new_key(i + 3u * PER_KEY);
        tile.ke = new_key(i + 4u * PER_KEY);
        tile.kf = new_key(i + 5u * PER_KEY);
        tile.kg = new_key(i + 6u * PER_KEY);
        tile.kh = new_key(i + 7u * PER_KEY);
    }
    let j = share_of(thread);
    if (j <= index && (index - j) % N_SHARES == 0u) {
        let value = appended[QUADS + quad_of(thread)];
        let i = (index - j) / N_SHARES;
        tile.va = select(tile.va, value, i == 0u);
        tile.vb = select(tile.vb, value, i == 1u);
        tile.vc = select(tile.vc, value, i == 2u);
        tile.vd = select(tile.vd, value, i == 3u);
        tile.ve = select(tile.ve, value, i == 4u);
        tile.vf = select(tile.vf, value, i == 5u);
        tile.vg = select(tile.vg, value, i == 6u);
        tile.vh = select(tile.vh, value, i == 7u);
    }
    return tile;
}

fn new_key(quad: u32) -> vec4<u32> {
    if (IS_FULL) {
        return appended[quad];
    }
    return appended[min(quad, QUADS - 1u)];
}

fn scores_if(v: vec4<u32>, quad: u32) -> Numbers {
    if (IS_FULL || quad < QUADS) {
        return quad_scores(v, quad);
    }
    return Numbers(0.0);
}

// A thread's share of the products of its key.
fn share_of_scores(v: Tile, kv_head: u32, key: u32, thread: u32) -> Numbers {
    let i = thread % PER_KEY;
    var s = ((scores_if(v.ka, i) + scores_if(v.kb, i + PER_KEY)) +
             (scores_if(v.kc, i + 2u * PER_KEY) + scores_if(v.kd, i + 3u * PER_KEY))) +
            ((scores_if(v.ke, i + 4u * PER_KEY) + scores_if(v.kf, i + 5u * PER_KEY)) +
             (scores_if(v.kg, i + 6u * PER_KEY) + scores_if(v.kh, i + 7u * PER_KEY)));
    if (HAS_MORE_KEYS) {
        let at = kv_at + (kv_head * p.n_blocks + slot_of(key) / 64u) * QUADS * 64u + key % 64u;
        for (var k = i + IN_TILE * PER_KEY; k < QUADS; k += PER_KEY) {
            s += quad_scores(KV[at + k * 64u], k);
        }
    }
    return s;
}

fn weight(key: u32) -> Numbers {
    if (key < TILE) {
        return weights[key];
    }
    return Numbers(0.0);
}

// ---- output ----

struct Output {
    lanes: Lanes,
    part: u32,
    most: Numbers,
    sum: Numbers,
}

fn store(lane: Lane, part: u32, i: u32, x: f32, most: f32, sum: f32) {
    if (lane.t >= p.n) {
        return;
    }
    if (!IS_SPLIT) {
        OUT[(first_t() + lane.t) * p.out_stride + lane.head * HEAD_DIM + i] = bitcast<u32>(x / sum);
        return;
    }
    let at = part_at(lane, part);
    OUT[at + i] = bitcast<u32>(x);
    if (i == 0u) {
        store_sums(at, most, sum, 1.0);
    }
}

fn part_at(lane: Lane, part: u32) -> u32 {
    return (((p.parts_t + row_at + lane.t) * N_HEADS + lane.head) * p.n_parts + part) * PITCH;
}

fn store_sums(at: u32, most: f32, sum: f32, factor: f32) {
    OUT[at + PITCH - 4u] = bitcast<u32>(most);
    OUT[at + PITCH - 3u] = bitcast<u32>(sum);
    OUT[at + PITCH - 2u] = bitcast<u32>(factor);
}

// With IS_HALF: dimensions i and i + 1. They and the sum of weights are divided by a power of two that
// makes the sum at most 1, so no value is too large.
fn store_half(lane: Lane, part: u32, i: u32, x: f32, y: f32, most: f32, sum: f32) {
    if (lane.t >= p.n) {
        return;
    }
    let exponent = bitcast<u32>(sum) >> 23u;
    let inverse = bitcast<f32>((253u - exponent) << 23u);
    let at = part_at(lane, part);
    OUT[at + i / 2u] = pack2x16float(vec2<f32>(x, y) * inverse);
    if (i == 0u) {
        store_sums(at, most, sum * inverse, bitcast<f32>((exponent + 1u) << 23u));
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    var kv_head = group.y;
    if (IS_BATCH) {
        row_at = group.y / p.n_kv_heads;
        kv_head = group.y % p.n_kv_heads;
        kv_at = (ROWS[first_row()].w >> 16u) * p.slot_vecs;
    }
    // not first_row(): barriers depend on it, and no compiler knows that threads agree on a private one
    let begin_row = p.first_row + select(0u, group.y / p.n_kv_heads, IS_BATCH);
    let lanes = lanes_of(group.x, kv_head, begin_row);
    let begin = begins(lanes);
    let end = ends(lanes);
    // parts begin at multiples of their size, whatever the lanes attend to
    let n_split = select(p.n_split, TILE, IS_ONE_TILE);
    let first = smallest_of(begin) / n_split * n_split + group.z * n_split;
    let last = min(largest_of(end), first + n_split);
    let reads = read_heads(lanes, kv_head, thread);
    let has_keys = first < last;
    var tile_now = Tile();
    if (IS_READ_FIRST && has_keys) {
        tile_now = read_tile(kv_head, first, min(TILE, last - first), thread);
    }
    tile_now = make_heads(reads, kv_head, begin_row, first, last, tile_now, thread);
    var slopes = Numbers(0.0);
    if (HAS_ALIBI) {
        slopes = slopes_of(lanes);
    }

    let share = share_of(thread);
    var x = Quad();
    var most = Numbers(LEAST);
    var sum = Numbers(0.0); // of the weights of this thread's keys
    for (var tile = first; tile < last; tile += TILE) {
        let key = tile + thread / PER_KEY;
        let is_visible = (Indices(key) >= begin) & (Indices(key) < end) & Flags(key < last);
        let n_keys = min(TILE, last - tile);
        if (!IS_READ_FIRST || tile > first) {
            tile_now = read_tile(kv_head, tile, n_keys, thread);
        }
        var s = Numbers(0.0);
        if (any(is_visible)) {
            s = share_of_scores(tile_now, kv_head, key, thread);
        }
        s = select(Numbers(LEAST), score_of(key_sum(s, thread), key, slopes), is_visible);
        let now = max(most, largest(s, thread));
        if (!IS_ONE_TILE) {
            let factor = exp(most - now);
            sum *= factor;
            x = scaled(x, factor);
        }
        most = now;
        s = select(Numbers(0.0), exp(s - now), is_visible);
        if (thread % PER_KEY == 0u) {
            weights[thread / PER_KEY] = s;
            sum += s;
        }
        workgroupBarrier();
        x = plus(x, tile_now.va, weight(share));
        x = plus(x, tile_now.vb, weight(share + N_SHARES));
        x = plus(x, tile_now.vc, weight(share + 2u * N_SHARES));
        x = plus(x, tile_now.vd, weight(share + 3u * N_SHARES));
        x = plus(x, tile_now.ve, weight(share + 4u * N_SHARES));
        x = plus(x, tile_now.vf, weight(share + 5u * N_SHARES));
        x = plus(x, tile_now.vg, weight(share + 6u * N_SHARES));
        x = plus(x, tile_now.vh, weight(share + 7u * N_SHARES));
        if (IN_TILE * N_SHARES < TILE) {
            let at = kv_at + p.values_at / 4u +
                     (kv_head * p.n_blocks * 64u + slot_of(tile)) * QUADS + quad_of(thread);
            for (var j = share + IN_TILE * N_SHARES; j < n_keys; j += N_SHARES) {
                x = plus(x, KV[at + j * QUADS], weights[j]);
            }
        }
        workgroupBarrier();
        if (IS_ONE_TILE) {
            break;
        }
    }
    sum = add_up(sum, thread);
    store_values(Output(lanes, group.z, most, sum), quad_of(thread), share, x, thread);
}
