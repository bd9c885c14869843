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
@group(0) @binding(3) var<storage, read> KV: array<vec4<u32>>;
@group(0) @binding(4) var<storage, read> V: array<f32>;
@group(0) @binding(5) var<storage, read_write> OUT: array<f32>;

const SIZE = 128u;
const QUADS = WORDS / 4u;                // vec4s of a head
const PER_QUAD = select(4u, 8u, KV_F16); // dimensions in one
const N_SHARES = SIZE / QUADS;           // threads that share a quad of values
const LEAST = -3.0e38;

var<workgroup> q: array<vec4<f32>, QUADS * PER_QUAD>; // a component for each lane
var<workgroup> weights: array<vec4<f32>, SIZE>;
var<workgroup> reduced: array<vec4<f32>, SIZE>;

// The first four dimensions of a quad; of binary16, also the last four.
fn first_of(v: vec4<u32>) -> vec4<f32> {
    if (KV_F16) {
        return vec4<f32>(unpack2x16float(v.x), unpack2x16float(v.y));
    }
    return bitcast<vec4<f32>>(v);
}

fn last_of(v: vec4<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(v.z), unpack2x16float(v.w));
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
    if (lane.t >= p.n || i >= HEAD_DIM) {
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

fn dot4(v: vec4<f32>, i: u32) -> vec4<f32> {
    return v.x * q[i] + v.y * q[i + 1u] + v.z * q[i + 2u] + v.w * q[i + 3u];
}

// What a quad of a key adds to the scores.
fn quad_scores(v: vec4<u32>, quad: u32) -> vec4<f32> {
    let s = dot4(first_of(v), quad * PER_QUAD);
    if (KV_F16) {
        return s + dot4(last_of(v), quad * PER_QUAD + 4u);
    }
    return s;
}

// The scores of a key, one for each lane. Four loads are on their way at once.
fn scores(kv_head: u32, key: u32, slopes: vec4<f32>) -> vec4<f32> {
    let at = (kv_head * p.n_blocks + key / 64u) * QUADS * 64u + key % 64u;
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

// What the values of a quad's dimensions add up to, for each lane. Named, because an array with an
// index would not be in registers.
struct Quad {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
    e: vec4<f32>, // of binary16
    f: vec4<f32>,
    g: vec4<f32>,
    h: vec4<f32>,
}

fn scaled(x: Quad, by: vec4<f32>) -> Quad {
    return Quad(x.a * by, x.b * by, x.c * by, x.d * by, x.e * by, x.f * by, x.g * by, x.h * by);
}

fn plus(x: Quad, v: vec4<u32>, w: vec4<f32>) -> Quad {
    let u = first_of(v);
    if (!KV_F16) {
        return Quad(x.a + u.x * w, x.b + u.y * w, x.c + u.z * w, x.d + u.w * w, x.e, x.f, x.g, x.h);
    }
    let l = last_of(v);
    return Quad(x.a + u.x * w, x.b + u.y * w, x.c + u.z * w, x.d + u.w * w, x.e + l.x * w,
                x.f + l.y * w, x.g + l.z * w, x.h + l.w * w);
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
    part: u32,
    most: vec4<f32>,
    sum: vec4<f32>,
}

fn store_dim(o: Output, dim: u32, x: vec4<f32>, share: u32) {
    if (share == 0u && dim < HEAD_DIM) {
        store(o.a, o.part, dim, x.x, o.most.x, o.sum.x);
        store(o.b, o.part, dim, x.y, o.most.y, o.sum.y);
        store(o.c, o.part, dim, x.z, o.most.z, o.sum.z);
        store(o.d, o.part, dim, x.w, o.most.w, o.sum.w);
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
    for (var i = thread; i < QUADS * PER_QUAD; i += SIZE) {
        q[i] = vec4<f32>(query(a, i), query(b, i), query(c, i), query(d, i));
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
            let at = p.values_at / 4u + (kv_head * p.n_blocks * 64u + tile) * QUADS + quad;
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
    let out = Output(a, b, c, d, group.z, most, sum);
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
