// attend_matrices.wgsl: what attend.wgsl does, with matrices of 16 x 16 that a subgroup multiplies,
// where keys and values are binary16.
// In:  Q [n, q_stride], KV (sequence.c), ROWS: what each row attends to.
// Out: OUT [n, out_stride].
//
// A workgroup has 32 lanes (attention.wgsl) and goes through the keys 64 at a time, twice: first for
// the largest score of each lane, then for the weights, as binary16, and their products with values.
// So no sum is scaled again. Scores and sums are float32.

struct Params {
    n: u32, // rows
    first_row: u32, // in ROWS
    first_t: u32,   // in Q and OUT
    q_stride: u32,
    out_stride: u32,
    n_blocks: u32, // of a head in KV
    values_at: u32,
    window: u32,  // 0: none
    alibi_at: u32, // slopes in V
    window_after: u32, // 0
    scale: f32,
    cap: f32,
}

alias Numbers = f32; // of one lane
alias Indices = u32;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> Q: array<f32>;
@group(0) @binding(3) var<storage, read> KV: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> V: array<f32>;
@group(0) @binding(5) var<storage, read_write> OUT: array<f32>;

alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Sums = subgroup_matrix_result<f32, 16, 16>;

const SIZE = 256u; // threads: each of their 8 subgroups has 16 lanes, and a quarter of the keys, or
                   // each fourth 16 dimensions
const LANES = 32u;
const KEYS = 64u;
const DIMS = select(64u, 128u, HEAD_DIM % 128u == 0u); // of keys or values that are in memory
const N_PARTS = HEAD_DIM / DIMS;
const Q_PITCH = HEAD_DIM / 4u + 2u; // vec4s from row to row
const KV_PITCH = DIMS / 4u + 2u;
const S_PITCH = KEYS + 8u; // numbers
const W_PITCH = KEYS / 4u + 2u; // vec4s
var<workgroup> queries: array<vec4<f16>, LANES * Q_PITCH>;
var<workgroup> kvs: array<vec4<f16>, KEYS * KV_PITCH>;
var<workgroup> products: array<f32, LANES * S_PITCH>;
var<workgroup> weights: array<vec4<f16>, LANES * W_PITCH>;
var<workgroup> sums: array<f32, LANES>;

fn row_of_batch(t: u32, first: u32) -> vec4<u32> {
    return ROWS[first + t];
}

fn load_queries(first_lane: u32, kv_head: u32, thread: u32) {
    for (var i = thread; i < LANES * (HEAD_DIM / 4u); i += SIZE) {
        let lane = i / (HEAD_DIM / 4u);
        let dim = i % (HEAD_DIM / 4u) * 4u;
        let t = (first_lane + lane) / GROUP;
        let head = kv_head * GROUP + (first_lane + lane) % GROUP;
        var x = vec4<f32>(0.0);
        if (t < p.n) {
            let at = (p.first_t + t) * p.q_stride + head * HEAD_DIM + dim;
            x = vec4<f32>(Q[at], Q[at + 1u], Q[at + 2u], Q[at + 3u]);
        }
        queries[lane * Q_PITCH + dim / 4u] = vec4<f16>(x);
    }
}

// What a thread loads of 64 keys or values and DIMS of their dimensions, while the part before is
// multiplied.
struct Part {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

// Of part i of the keys from `key` on: neighbours load neighbouring keys.
fn part_of_keys(kv_head: u32, key: u32, i: u32, thread: u32) -> Part {
    let at = ((kv_head * p.n_blocks + slot_of(key) / KEYS) * QUADS + i * (DIMS / 8u)) * KEYS +
             thread;
    var part = Part(KV[at], KV[at + SIZE], vec4<u32>(0u), vec4<u32>(0u));
    if (DIMS == 128u) {
        part.c = KV[at + 2u * SIZE];
        part.d = KV[at + 3u * SIZE];
    }
    return part;
}

const ROW_QUADS = DIMS / 8u; // in memory
const ROWS_APART = SIZE / ROW_QUADS; // values that all threads together load at once

fn part_of_values(kv_head: u32, key: u32, i: u32, thread: u32) -> Part {
    let at = p.values_at / 4u + i * ROW_QUADS + thread % ROW_QUADS +
             (kv_head * p.n_blocks * 64u + slot_of(key) + thread / ROW_QUADS) * QUADS;
    var part = Part(KV[at], KV[at + ROWS_APART * QUADS], vec4<u32>(0u), vec4<u32>(0u));
    if (DIMS == 128u) {
        part.c = KV[at + 2u * ROWS_APART * QUADS];
        part.d = KV[at + 3u * ROWS_APART * QUADS];
    }
    return part;
}

fn put(row: u32, quad: u32, v: vec4<u32>) {
    kvs[row * KV_PITCH + 2u * quad] = bitcast<vec4<f16>>(v.xy);
    kvs[row * KV_PITCH + 2u * quad + 1u] = bitcast<vec4<f16>>(v.zw);
}

fn put_keys(part: Part, thread: u32) {
    let key = thread % KEYS;
    let quad = thread / KEYS;
    workgroupBarrier();
    put(key, quad, part.a);
    put(key, quad + SIZE / KEYS, part.b);
    if (DIMS == 128u) {
        put(key, quad + 2u * (SIZE / KEYS), part.c);
        put(key, quad + 3u * (SIZE / KEYS), part.d);
    }
    workgroupBarrier();
}

fn put_values(part: Part, thread: u32) {
    let row = thread / ROW_QUADS;
    let quad = thread % ROW_QUADS;
    workgroupBarrier();
    put(row, quad, part.a);
    put(row + ROWS_APART, quad, part.b);
    if (DIMS == 128u) {
        put(row + 2u * ROWS_APART, quad, part.c);
        put(row + 3u * ROWS_APART, quad, part.d);
    }
    workgroupBarrier();
}

// The products of the queries and the keys from `key` on; `part` is their first, and becomes the
// first of the keys from `next` on, or of the values of these keys.
fn multiply_keys(kv_head: u32, key: u32, next: u32, part: ptr<function, Part>, thread: u32,
                 group: u32) {
    let row = group % 2u * 16u;
    let column = group / 2u * 16u;
    var s: Sums;
    for (var i = 0u; i < N_PARTS; i++) {
        put_keys(*part, thread);
        if (i + 1u < N_PARTS) {
            *part = part_of_keys(kv_head, key, i + 1u, thread);
        } else if (next == key) {
            *part = part_of_values(kv_head, key, 0u, thread);
        } else {
            *part = part_of_keys(kv_head, next, 0u, thread);
        }
        for (var k = 0u; k < DIMS / 4u; k += 4u) {
            let a = subgroupMatrixLoad<Left, row_major>(
                &queries, row * Q_PITCH + i * (DIMS / 4u) + k, Q_PITCH);
            let b = subgroupMatrixLoad<Right, col_major>(&kvs, column * KV_PITCH + k, KV_PITCH);
            s = subgroupMatrixMultiplyAccumulate(a, b, s);
        }
    }
    subgroupMatrixStore<row_major>(&products, row * S_PITCH + column, s, S_PITCH);
    workgroupBarrier();
}

// Eight threads share a lane.
fn largest_of_lane(x: f32) -> f32 {
    var y = x;
    for (var i = 1u; i < 8u; i *= 2u) {
        y = max(y, subgroupShuffleXor(y, i));
    }
    return y;
}

fn sum_of_lane(x: f32) -> f32 {
    var y = x;
    for (var i = 1u; i < 8u; i *= 2u) {
        y += subgroupShuffleXor(y, i);
    }
    return y;
}

fn is_visible(lane: Lane, key: u32) -> bool {
    return key >= lane.begin && key < lane.end;
}

// Of key i of a tile.
fn weight(lane: Lane, own: u32, tile: u32, i: u32, slopes: f32, most: f32) -> f32 {
    if (!is_visible(lane, tile + i)) {
        return 0.0;
    }
    return exp(score_of(products[own * S_PITCH + i], tile + i, slopes) - most);
}

fn times_values(sums: Sums, row: u32, column: u32) -> Sums {
    var y = sums;
    for (var k = 0u; k < KEYS; k += 16u) {
        let a = subgroupMatrixLoad<Left, row_major>(&weights, row * W_PITCH + k / 4u, W_PITCH);
        let b = subgroupMatrixLoad<Right, row_major>(&kvs, k * KV_PITCH + column / 4u, KV_PITCH);
        y = subgroupMatrixMultiplyAccumulate(a, b, y);
    }
    return y;
}

// 16 lanes times 16 dimensions.
fn store(y: Sums, first_lane: u32, kv_head: u32, dim: u32, group: u32, thread: u32) {
    workgroupBarrier();
    subgroupMatrixStore<row_major>(&products, 256u * group, y, 16u);
    workgroupBarrier();
    for (var i = thread % 32u; i < 256u; i += 32u) {
        let row = group % 2u * 16u + i / 16u;
        let t = (first_lane + row) / GROUP;
        let head = kv_head * GROUP + (first_lane + row) % GROUP;
        if (t < p.n) {
            OUT[(p.first_t + t) * p.out_stride + head * HEAD_DIM + dim + i % 16u] =
                products[256u * group + i] / sums[row];
        }
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) thread: u32,
        @builtin(subgroup_id) group: u32) {
    let first_lane = id.x * LANES;
    let kv_head = id.y;
    let own = thread / 8u; // lane of this thread
    let lane = lane_of(first_lane + own, kv_head, p.first_row);
    var slopes = 0.0;
    if (HAS_ALIBI) {
        slopes = slope(lane);
    }
    var first = 0xffffffffu; // keys of all lanes
    var last = 0u;
    for (var i = 0u; i < LANES; i++) {
        let other = lane_of(first_lane + i, kv_head, p.first_row);
        first = min(first, other.begin);
        last = max(last, other.end);
    }
    first = first / KEYS * KEYS;
    load_queries(first_lane, kv_head, thread);

    var most = LEAST;
    var part = part_of_keys(kv_head, first, 0u, thread);
    for (var tile = first; tile < last; tile += KEYS) {
        let next = select(first, tile + KEYS, tile + KEYS < last);
        multiply_keys(kv_head, tile, next, &part, thread, group);
        for (var i = thread % 8u; i < KEYS; i += 8u) {
            let s = score_of(products[own * S_PITCH + i], tile + i, slopes);
            most = select(most, max(most, s), is_visible(lane, tile + i));
        }
    }
    most = largest_of_lane(most);

    var sum = 0.0;
    var y0: Sums;
    var y1: Sums;
    var y2: Sums;
    var y3: Sums;
    let row = group % 2u * 16u;
    let column = group / 2u * 16u;
    part = part_of_keys(kv_head, first, 0u, thread);
    for (var tile = first; tile < last; tile += KEYS) {
        let next = select(first, tile + KEYS, tile + KEYS < last);
        multiply_keys(kv_head, tile, tile, &part, thread, group);
        for (var i = thread % 8u * 4u; i < KEYS; i += 32u) {
            let w = vec4<f32>(weight(lane, own, tile, i, slopes, most),
                              weight(lane, own, tile, i + 1u, slopes, most),
                              weight(lane, own, tile, i + 2u, slopes, most),
                              weight(lane, own, tile, i + 3u, slopes, most));
            sum += (w.x + w.y) + (w.z + w.w);
            weights[own * W_PITCH + i / 4u] = vec4<f16>(w);
        }
        put_values(part, thread);
        if (N_PARTS == 1u) {
            part = part_of_keys(kv_head, next, 0u, thread);
        } else {
            part = part_of_values(kv_head, tile, 1u, thread);
        }
        y0 = times_values(y0, row, column);
        if (DIMS == 128u) {
            y1 = times_values(y1, row, column + 64u);
        }
        if (N_PARTS > 1u) {
            put_values(part, thread);
            if (N_PARTS == 2u) {
                part = part_of_keys(kv_head, next, 0u, thread);
                y2 = times_values(y2, row, column);
                y3 = times_values(y3, row, column + 64u);
            } else {
                part = part_of_values(kv_head, tile, 2u, thread);
                y1 = times_values(y1, row, column);
                put_values(part, thread);
                part = part_of_keys(kv_head, next, 0u, thread);
                y2 = times_values(y2, row, column);
            }
        }
    }
    sum = sum_of_lane(sum);
    if (thread % 8u == 0u) {
        sums[own] = sum;
    }
    store(y0, first_lane, kv_head, column, group, thread);
    if (HEAD_DIM > 64u) {
        store(y1, first_lane, kv_head, column + 64u, group, thread);
    }
    if (HEAD_DIM > 128u) {
        store(y2, first_lane, kv_head, column + 128u, group, thread);
    }
    if (HEAD_DIM > 192u) {
        store(y3, first_lane, kv_head, column + 192u, group, thread);
    }
}
