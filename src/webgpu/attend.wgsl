// attend.wgsl: attention of many rows over the keys and values of one sequence.
// In:  Q [n, q_stride], KV (sequence.c), ROWS: what each row attends to.
// Out: OUT [n, out_stride].
//
// A workgroup has four lanes (attention.wgsl). It goes through the keys 128 at a time with an online
// softmax (Milakov and Gimelshein 2018).

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
    window_after: u32, // as `window`, behind a row; 0: none
    scale: f32,
    cap: f32,
}

alias Numbers = vec4<f32>; // one for each lane
alias Indices = vec4<u32>;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> Q: array<f32>;
@group(0) @binding(3) var<storage, read> KV: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> V: array<f32>;
@group(0) @binding(5) var<storage, read_write> OUT: array<f32>;

fn row_of_batch(t: u32, first: u32) -> vec4<u32> {
    return ROWS[first + t];
}

const SIZE = 128u;
const N_SHARES = SIZE / QUADS; // threads that share a quad of values

var<workgroup> weights: array<vec4<f32>, SIZE>;
var<workgroup> reduced: array<vec4<f32>, SIZE>;

// What all threads have together: the largest, or the sum.
fn reduce(x: vec4<f32>, is_max: bool, thread: u32) -> vec4<f32> {
    reduced[thread] = x;
    for (var step = SIZE / 2u; step > 0u; step /= 2u) {
        workgroupBarrier();
        if (thread < step) {
            let a = reduced[thread];
            let b = reduced[thread + step];
            reduced[thread] = select(a + b, max(a, b), is_max);
        }
    }
    workgroupBarrier();
    let y = reduced[0];
    workgroupBarrier();
    return y;
}

// A lane; in a text that is read in both directions a window ends behind the row.
fn text_lane(i: u32, kv_head: u32) -> Lane {
    var lane = lane_of(i, kv_head, p.first_row);
    if (p.window_after > 0u && lane.t < p.n) {
        lane.end = min(lane.end, row_of_batch(lane.t, p.first_row).y + p.window_after);
    }
    return lane;
}

fn query(lane: Lane, i: u32) -> f32 {
    if (lane.t >= p.n || i >= HEAD_DIM) {
        return 0.0;
    }
    return Q[(p.first_t + lane.t) * p.q_stride + lane.head * HEAD_DIM + i];
}

// The scores of a key, one for each lane. Four loads are on their way at once.
fn scores(kv_head: u32, key: u32, slopes: vec4<f32>) -> vec4<f32> {
    let at = (kv_head * p.n_blocks + slot_of(key) / 64u) * QUADS * 64u + key % 64u;
    var s = vec4<f32>(0.0);
    var i = 0u;
    for (; i + 4u <= QUADS; i += 4u) {
        let a = KV[at + i * 64u];
        let b = KV[at + (i + 1u) * 64u];
        let c = KV[at + (i + 2u) * 64u];
        let d = KV[at + (i + 3u) * 64u];
        s += quad_scores(a, i) + quad_scores(b, i + 1u) + quad_scores(c, i + 2u) +
             quad_scores(d, i + 3u);
    }
    for (; i < QUADS; i++) {
        s += quad_scores(KV[at + i * 64u], i);
    }
    return score_of(s, key, slopes);
}

fn store(lane: Lane, i: u32, x: f32, sum: f32) {
    if (lane.t < p.n) {
        OUT[(p.first_t + lane.t) * p.out_stride + lane.head * HEAD_DIM + i] = x / sum;
    }
}

// In the first share: the sum of all shares of a quad.
fn all_shares(x: vec4<f32>, thread: u32) -> vec4<f32> {
    if (N_SHARES == 1u) {
        return x;
    }
    workgroupBarrier();
    reduced[thread] = x;
    workgroupBarrier();
    var sum = x;
    for (var i = 1u; thread < QUADS && i < N_SHARES; i++) {
        sum += reduced[thread + i * QUADS];
    }
    return sum;
}

struct Output {
    a: Lane,
    b: Lane,
    c: Lane,
    d: Lane,
    sum: vec4<f32>,
}

fn store_dim(o: Output, dim: u32, x: vec4<f32>, share: u32) {
    if (share == 0u && dim < HEAD_DIM) {
        store(o.a, dim, x.x, o.sum.x);
        store(o.b, dim, x.y, o.sum.y);
        store(o.c, dim, x.z, o.sum.z);
        store(o.d, dim, x.w, o.sum.w);
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let kv_head = group.y;
    let a = text_lane(4u * group.x, kv_head);
    let b = text_lane(4u * group.x + 1u, kv_head);
    let c = text_lane(4u * group.x + 2u, kv_head);
    let d = text_lane(4u * group.x + 3u, kv_head);
    let begin = vec4<u32>(a.begin, b.begin, c.begin, d.begin);
    let end = vec4<u32>(a.end, b.end, c.end, d.end);
    // tiles begin at multiples of their size, whatever the lanes attend to
    let first = min(min(begin.x, begin.y), min(begin.z, begin.w)) / SIZE * SIZE;
    let last = max(max(end.x, end.y), max(end.z, end.w));
    for (var i = thread; i < QUADS * PER_QUAD; i += SIZE) {
        q[place(i)] = vec4<f32>(query(a, i), query(b, i), query(c, i), query(d, i));
    }
    workgroupBarrier();
    var slopes = vec4<f32>(0.0);
    if (HAS_ALIBI) {
        slopes = vec4<f32>(slope(a), slope(b), slope(c), slope(d));
    }

    let quad = thread % QUADS;
    let share = thread / QUADS;
    var x = Quad();
    var most = vec4<f32>(LEAST);
    var sum = vec4<f32>(0.0); // of this thread's keys
    for (var tile = first; tile < last; tile += SIZE) {
        let key = tile + thread;
        let is_visible = (vec4<u32>(key) >= begin) & (vec4<u32>(key) < end) &
                         vec4<bool>(key < last);
        var s = vec4<f32>(LEAST);
        if (any(is_visible)) {
            s = select(s, scores(kv_head, key, slopes), is_visible);
        }
        let now = max(most, reduce(s, true, thread));
        let factor = exp(most - now);
        let w = select(vec4<f32>(0.0), exp(s - now), is_visible);
        most = now;
        sum = sum * factor + w;
        weights[thread] = w;
        workgroupBarrier();
        let n_keys = min(SIZE, last - tile);
        x = scaled(x, factor);
        if (share < N_SHARES) {
            let at = p.values_at / 4u + (kv_head * p.n_blocks * 64u + slot_of(tile)) * QUADS + quad;
            var j = share;
            for (; j + 3u * N_SHARES < n_keys; j += 4u * N_SHARES) {
                let v0 = KV[at + j * QUADS];
                let v1 = KV[at + (j + N_SHARES) * QUADS];
                let v2 = KV[at + (j + 2u * N_SHARES) * QUADS];
                let v3 = KV[at + (j + 3u * N_SHARES) * QUADS];
                x = plus(x, v0, weights[j]);
                x = plus(x, v1, weights[j + N_SHARES]);
                x = plus(x, v2, weights[j + 2u * N_SHARES]);
                x = plus(x, v3, weights[j + 3u * N_SHARES]);
            }
            for (; j < n_keys; j += N_SHARES) {
                x = plus(x, KV[at + j * QUADS], weights[j]);
            }
        }
        workgroupBarrier();
    }
    sum = reduce(sum, false, thread);
    let out = Output(a, b, c, d, sum);
    let dim = quad * PER_QUAD;
    store_dim(out, dim, all_shares(x.a, thread), share);
    store_dim(out, dim + 1u, all_shares(x.b, thread), share);
    store_dim(out, dim + 2u, all_shares(x.c, thread), share);
    store_dim(out, dim + 3u, all_shares(x.d, thread), share);
    if (KV_F16) {
        store_dim(out, dim + 4u, all_shares(x.e, thread), share);
        store_dim(out, dim + 5u, all_shares(x.f, thread), share);
        store_dim(out, dim + 6u, all_shares(x.g, thread), share);
        store_dim(out, dim + 7u, all_shares(x.h, thread), share);
    }
}
