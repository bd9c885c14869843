// attention.wgsl: what the shaders of attention share: lanes, and arithmetic with quads, the vec4s
// of the cache (sequence.c). The lanes of a workgroup share a kv head: query heads of one row, or
// also of the next rows.
// In:  Numbers, Indices: types with a number and an index for each lane.

const QUADS = WORDS / 4u;                // of a head
const PER_QUAD = select(4u, 8u, KV_F16); // dimensions in one
const LEAST = -3.0e38;

// Queries: a component for each lane. The quads are one number apart, so that neighbours which read
// different quads read different banks of the memory.
var<workgroup> q: array<Numbers, QUADS * (PER_QUAD + 1u)>;

fn place(dim: u32) -> u32 {
    return dim + dim / PER_QUAD;
}

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

// To bfloat16 and back, to nearest even.
fn bfloat16(x: Numbers) -> Numbers {
    let bits = bitcast<Indices>(x);
    return bitcast<Numbers>((bits + Indices(0x7fffu) + ((bits >> Indices(16u)) & Indices(1u))) &
                            Indices(0xffff0000u));
}

// Where a key is: layers with a window keep the last blocks.
fn slot_of(key: u32) -> u32 {
    if (p.window == 0u) {
        return key;
    }
    return key % (64u * p.n_blocks);
}

struct Lane {
    t: u32, // row; n: this lane has none
    head: u32,
    begin: u32, // the keys that it attends to
    end: u32,
}

fn lane_of(i: u32, kv_head: u32, first_row: u32) -> Lane {
    var lane = Lane(i / GROUP, kv_head * GROUP + i % GROUP, 0xffffffffu, 0u);
    if (lane.t < p.n) {
        let row = row_of_batch(lane.t, first_row);
        lane.begin = select(0u, row.y + 1u - p.window, p.window > 0u && row.y + 1u > p.window);
        lane.end = row.z;
    }
    return lane;
}

fn slope(lane: Lane) -> f32 {
    return V[p.alibi_at + min(lane.head, N_HEADS - 1u)];
}

fn bias(slopes: Numbers, key: u32) -> Numbers {
    return p.scale * bfloat16(slopes * f32(key));
}

fn dot4(v: vec4<f32>, i: u32) -> Numbers {
    let at = place(i);
    return v.x * q[at] + v.y * q[at + 1u] + v.z * q[at + 2u] + v.w * q[at + 3u];
}

// What a quad of a key adds to the scores.
fn quad_scores(v: vec4<u32>, quad: u32) -> Numbers {
    let s = dot4(first_of(v), quad * PER_QUAD);
    if (KV_F16) {
        return s + dot4(last_of(v), quad * PER_QUAD + 4u);
    }
    return s;
}

// The scores of a key from its products with q.
fn score_of(products: Numbers, key: u32, slopes: Numbers) -> Numbers {
    var s = products * p.scale;
    if (CAPS) {
        let y = s / p.cap; // soft_cap of each
        let e = exp(-2.0 * abs(y));
        s = p.cap * sign(y) * (1.0 - e) / (1.0 + e);
    }
    if (HAS_ALIBI) {
        s += bias(slopes, key);
    }
    return s;
}

// What the values of a quad's dimensions add up to, for each lane. Named, because an array with an
// index would not be in registers.
struct Quad {
    a: Numbers,
    b: Numbers,
    c: Numbers,
    d: Numbers,
    e: Numbers, // of binary16
    f: Numbers,
    g: Numbers,
    h: Numbers,
}

fn scaled(x: Quad, by: Numbers) -> Quad {
    return Quad(x.a * by, x.b * by, x.c * by, x.d * by, x.e * by, x.f * by, x.g * by, x.h * by);
}

fn plus(x: Quad, v: vec4<u32>, w: Numbers) -> Quad {
    let u = first_of(v);
    if (!KV_F16) {
        return Quad(x.a + u.x * w, x.b + u.y * w, x.c + u.z * w, x.d + u.w * w, x.e, x.f, x.g, x.h);
    }
    let l = last_of(v);
    return Quad(x.a + u.x * w, x.b + u.y * w, x.c + u.z * w, x.d + u.w * w, x.e + l.x * w,
                x.f + l.y * w, x.g + l.z * w, x.h + l.w * w);
}
