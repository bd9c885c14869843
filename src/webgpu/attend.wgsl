// attend.wgsl: attention over the keys and values of one sequence.
// In:  Q [n, q_stride], KV (sequence.c), ROWS: what each row attends to.
// Out: OUT [n, out_stride], or with IS_SPLIT the parts of combine.wgsl.
//
// A workgroup has four lanes, which share a kv head: query heads of one row, or also of the next
// rows. It goes through the keys 128 at a time with an online softmax (Milakov and Gimelshein
// 2018). With IS_SPLIT it has n_split keys, and combine.wgsl adds up the parts.

struct Params {
    n: u32, // rows
    first_row: u32, // in ROWS
    first_t: u32,   // in Q and OUT
    q_stride: u32,
    out_stride: u32,
    n_blocks: u32, // of a head in KV
    values_at: u32,
    window: u32,  // 0: none
    n_split: u32, // keys of a part
    n_parts: u32,
    alibi_at: u32, // slopes in V
    scale: f32,
    cap: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ROWS: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> Q: array<f32>;
@group(0) @binding(3) var<storage, read> KV: array<u32>;
@group(0) @binding(4) var<storage, read> V: array<f32>;
@group(0) @binding(5) var<storage, read_write> OUT: array<f32>;

const SIZE = 128u;
const PAIRS = HEAD_DIM / 2u;
const WORDS = select(HEAD_DIM, PAIRS, KV_F16);  // of a position
const N_OWN = (PAIRS + SIZE - 1u) / SIZE;       // pairs of dimensions of a thread
const N_SHARES = max(1u, SIZE / PAIRS);         // threads that share a pair
const LEAST = -3.0e38;

var<workgroup> q: array<vec4<f32>, HEAD_DIM>; // a component for each lane
var<workgroup> weights: array<vec4<f32>, SIZE>;
var<workgroup> reduced: array<vec4<f32>, SIZE>;

fn pair_at(at: u32, step: u32) -> vec2<f32> {
    if (KV_F16) {
        return unpack2x16float(KV[at]);
    }
    return vec2<f32>(bitcast<f32>(KV[at]), bitcast<f32>(KV[at + step]));
}

fn word_of(pair: u32) -> u32 {
    return select(2u * pair, pair, KV_F16);
}

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

// To bfloat16 and back, to nearest even.
fn bfloat16(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    return bitcast<f32>((bits + 0x7fffu + ((bits >> 16u) & 1u)) & 0xffff0000u);
}

struct Lane {
    t: u32, // row; n: this lane has none
    head: u32,
    begin: u32, // the keys that it attends to
    end: u32,
}

fn lane_of(i: u32, kv_head: u32) -> Lane {
    var lane = Lane(i / GROUP, kv_head * GROUP + i % GROUP, 0xffffffffu, 0u);
    if (lane.t < p.n) {
        let row = ROWS[p.first_row + lane.t];
        lane.begin = select(0u, row.y + 1u - p.window, p.window > 0u && row.y + 1u > p.window);
        lane.end = row.z;
    }
    return lane;
}

fn query(lane: Lane, i: u32) -> f32 {
    if (lane.t >= p.n) {
        return 0.0;
    }
    return Q[(p.first_t + lane.t) * p.q_stride + lane.head * HEAD_DIM + i];
}

fn slope(lane: Lane) -> f32 {
    return V[p.alibi_at + min(lane.head, N_HEADS - 1u)];
}

fn bias(slopes: vec4<f32>, key: u32) -> vec4<f32> {
    let b = slopes * f32(key);
    return p.scale * vec4<f32>(bfloat16(b.x), bfloat16(b.y), bfloat16(b.z), bfloat16(b.w));
}

// The scores of a key, one for each lane.
fn scores(kv_head: u32, key: u32, slopes: vec4<f32>) -> vec4<f32> {
    let at = (kv_head * p.n_blocks + key / 64u) * WORDS * 64u + key % 64u;
    var s = vec4<f32>(0.0);
    for (var i = 0u; i < PAIRS; i++) {
        let k = pair_at(at + word_of(i) * 64u, 64u);
        s += k.x * q[2u * i] + k.y * q[2u * i + 1u];
    }
    s *= p.scale;
    if (CAPS) {
        s = vec4<f32>(soft_cap(s.x, p.cap), soft_cap(s.y, p.cap), soft_cap(s.z, p.cap),
                      soft_cap(s.w, p.cap));
    }
    if (HAS_ALIBI) {
        s += bias(slopes, key);
    }
    return s;
}

fn store(lane: Lane, part: u32, i: u32, x: f32, most: f32, sum: f32) {
    if (lane.t >= p.n) {
        return;
    }
    if (!IS_SPLIT) {
        OUT[(p.first_t + lane.t) * p.out_stride + lane.head * HEAD_DIM + i] = x / sum;
        return;
    }
    let at = (lane.t * N_HEADS + lane.head) * p.n_parts + part;
    OUT[at * (HEAD_DIM + 2u) + i] = x;
    if (i == 0u) {
        OUT[at * (HEAD_DIM + 2u) + HEAD_DIM] = most;
        OUT[at * (HEAD_DIM + 2u) + HEAD_DIM + 1u] = sum;
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
    // tiles and parts begin at multiples of their size, whatever the lanes attend to
    var first = min(min(begin.x, begin.y), min(begin.z, begin.w)) / SIZE * SIZE;
    var last = max(max(end.x, end.y), max(end.z, end.w));
    if (IS_SPLIT) {
        first = first / p.n_split * p.n_split + group.z * p.n_split;
        last = min(last, first + p.n_split);
    }
    for (var i = thread; i < HEAD_DIM; i += SIZE) {
        q[i] = vec4<f32>(query(a, i), query(b, i), query(c, i), query(d, i));
    }
    workgroupBarrier();
    var slopes = vec4<f32>(0.0);
    if (HAS_ALIBI) {
        slopes = vec4<f32>(slope(a), slope(b), slope(c), slope(d));
    }

    let share = thread / PAIRS;
    var x: array<vec4<f32>, N_OWN>; // of the first dimension of a pair
    var y: array<vec4<f32>, N_OWN>; // of the second
    for (var o = 0u; o < N_OWN; o++) {
        x[o] = vec4<f32>(0.0);
        y[o] = vec4<f32>(0.0);
    }
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
        for (var o = 0u; o < N_OWN; o++) {
            let pair = thread % PAIRS + o * SIZE;
            x[o] *= factor;
            y[o] *= factor;
            if (share < N_SHARES && pair < PAIRS) {
                let at = p.values_at + (kv_head * p.n_blocks * 64u + tile) * WORDS + word_of(pair);
                for (var j = share; j < n_keys; j += N_SHARES) {
                    let v = pair_at(at + j * WORDS, 1u);
                    x[o] += v.x * weights[j];
                    y[o] += v.y * weights[j];
                }
            }
        }
        workgroupBarrier();
    }
    sum = reduce(sum, false, thread);
    for (var o = 0u; o < N_OWN; o++) {
        var u = x[o];
        var v = y[o];
        if (N_SHARES > 1u) {
            reduced[thread] = u;
            weights[thread] = v;
            workgroupBarrier();
            if (share == 0u) {
                for (var i = 1u; i < N_SHARES; i++) {
                    u += reduced[thread + i * PAIRS];
                    v += weights[thread + i * PAIRS];
                }
            }
        }
        let pair = thread % PAIRS + o * SIZE;
        if (share == 0u && pair < PAIRS) {
            store(a, group.z, 2u * pair, u.x, most.x, sum.x);
            store(a, group.z, 2u * pair + 1u, v.x, most.x, sum.x);
            store(b, group.z, 2u * pair, u.y, most.y, sum.y);
            store(b, group.z, 2u * pair + 1u, v.y, most.y, sum.y);
            store(c, group.z, 2u * pair, u.z, most.z, sum.z);
            store(c, group.z, 2u * pair + 1u, v.z, most.z, sum.z);
            store(d, group.z, 2u * pair, u.w, most.w, sum.w);
            store(d, group.z, 2u * pair + 1u, v.w, most.w, sum.w);
        }
    }
}
