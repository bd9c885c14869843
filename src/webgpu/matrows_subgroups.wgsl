// matrows_subgroups.wgsl: y = w x + bias for up to 64 rows of x: batches of sessions, short prompts.
// In:  a slab of integers (upload.c); Q and S, rows of x as round_rows.wgsl writes them.
// Out: as matvec.wgsl says, with the same bits.
//
// A workgroup has TILE rows of x: 4, 8 or 16. SHARE of its threads, which are in one subgroup, are a
// team: they share N_ROWS rows of the matrix. In each step a thread reads 16 bytes of these and
// multiplies them with its part of all rows of x. Parts of x go through the memory of the workgroup, a
// step ahead. What LANES threads of matvec.wgsl add up, a team adds up in the same order: a lane is
// thread i of share j.

struct Params {
    m: Matrix,
    out_stride: u32,
    out_at: u32,
    n_gate: u32, // rows of the gate, and of up behind it
    n: u32,      // rows of x
    scale: f32,
    cap: f32,
}

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read> Q: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> S: array<f32>;
@group(0) @binding(4) var<storage, read_write> OUT: array<u32>;

const SHARE = select(LANES, SUBGROUP, SUBGROUP < LANES);
const N_TEAMS = SIZE / SHARE; // threads that share rows of the matrix
const N_STEPS = LANES / SHARE * SLOTS;
const N_EACH = TILE / min(TILE, SHARE); // rows of x whose sums a thread of a team has
const REST = 2u * SHARE / TILE; // half of the threads that have sums of the same four rows of x
const HAS_MORE = TILE * SHARE > SIZE; // parts than threads
const IS_WHOLE = false; // a step ahead of the last one, it is read
const PER_VEC = select(1u, 2u, IS_INT4); // chunks of x
var<workgroup> tiles: array<vec4<u32>, 2u * PER_VEC * TILE * SHARE>;
var<workgroup> tile_scales: array<f32, 2u * TILE * SHARE>; // of each vec

// Of TILE rows of x. Named, because an array with an index would not be in registers.
struct Sums {
    a: vec4<f32>,
    b: vec4<f32>,
    c: vec4<f32>,
    d: vec4<f32>,
}

// One of N_ROWS rows of the matrix each.
struct Four {
    a: Vec,
    b: Vec,
    c: Vec,
    d: Vec,
}

// Row number i of those of a team; with a gate the odd ones are rows of up.
fn row_of(team: u32, i: u32) -> u32 {
    if (GATE == 1) {
        return min(team * (N_ROWS / 2u) + i / 2u, p.n_gate - 1u) + (i & 1u) * p.n_gate;
    }
    return min(team * N_ROWS + i, p.m.n_rows - 1u);
}

// 16 bytes of a lane in each step: of all its slots, then those of the lane of the next share.
fn vec_of(step: u32, thread: u32) -> u32 {
    return step / SLOTS * SHARE + thread % SHARE + step % SLOTS * LANES;
}

fn read_four(team: u32, k: u32) -> Four {
    var f = Four();
    f.a = read_vec(row_of(team, 0u), k);
    if (N_ROWS > 1u) {
        f.b = read_vec(row_of(team, 1u), k);
    }
    if (N_ROWS > 2u) {
        f.c = read_vec(row_of(team, 2u), k);
        f.d = read_vec(row_of(team, 3u), k);
    }
    return f;
}

// A vec of x.
struct Part {
    v: vec4<u32>,
    w: vec4<u32>,
    scale: f32,
}

// Part number `at` of the tile of a step. Behind the end of a row its last numbers are read, with a
// scale of 0.
fn read_part(step: u32, first: u32, at: u32) -> Part {
    let row = min(first + at / SHARE, p.n - 1u);
    let k = vec_of(step, at % SHARE);
    let i = PER_VEC * min(k, N_VECS - 1u);
    var x = Part();
    x.v = Q[row * N_CHUNKS + i];
    if (IS_INT4) {
        x.w = Q[row * N_CHUNKS + i + 1u];
    }
    x.scale = select(0.0, S[row * (N_CHUNKS / 4u) + i / 4u], k < N_VECS);
    return x;
}

fn keep_part(step: u32, at: u32, x: Part) {
    let to = step % 2u * TILE * SHARE + at;
    if (at < TILE * SHARE) {
        tiles[PER_VEC * to] = x.v;
        if (IS_INT4) {
            tiles[2u * to + 1u] = x.w;
        }
        tile_scales[to] = x.scale;
    }
}

fn slot(t: u32, at: u32) -> Slot {
    let i = at + t * SHARE;
    var s = Slot();
    s.v = tiles[PER_VEC * i];
    if (IS_INT4) {
        s.w = tiles[2u * i + 1u];
        s.sums = vec2<i32>(dot16(s.v, ONES), dot16(s.w, ONES));
    }
    s.scale = tile_scales[i];
    return s;
}

fn plus_products(y: vec4<f32>, w: Vec, x: Slot, z: Slot, u: Slot, v: Slot) -> vec4<f32> {
    return vec4<f32>(plus_product(y.x, w, x), plus_product(y.y, w, z), plus_product(y.z, w, u),
                     plus_product(y.w, w, v));
}

// A number of each of two threads `distance` apart, added up: of a, or for the second of them of b.
fn fold(a: vec4<f32>, b: vec4<f32>, is_second: bool, distance: u32) -> vec4<f32> {
    return select(a, b, is_second) + subgroupShuffleXor(select(b, a, is_second), distance);
}

// The sums over the threads of a team, in the order of lanes_add. Each thread has those of N_EACH rows
// of x, from first_of on.
fn add_lanes(s: Sums, thread: u32) -> vec4<f32> {
    let is_upper = (thread & (SHARE / 2u)) != 0u;
    var y = s.a;
    if (TILE == 8u) {
        y = fold(s.a, s.b, is_upper, SHARE / 2u);
    }
    if (TILE == 16u) {
        y = fold(fold(s.a, s.c, is_upper, SHARE / 2u), fold(s.b, s.d, is_upper, SHARE / 2u),
                 (thread & (SHARE / 4u)) != 0u, SHARE / 4u);
    }
    if (REST >= 1u) {
        y = fold(y, y.zwzw, (thread & REST) != 0u, REST);
    }
    if (REST >= 2u) {
        y = fold(y, y.yyyy, (thread & (REST / 2u)) != 0u, REST / 2u);
    }
    for (var i = REST / 4u; i > 0u; i /= 2u) {
        y += subgroupShuffleXor(y, i);
    }
    return y;
}

fn bit(thread: u32, mask: u32) -> u32 {
    return select(0u, 1u, (thread & mask) != 0u);
}

fn first_of(thread: u32) -> u32 {
    var four = 0u;
    if (TILE == 8u) {
        four = bit(thread, SHARE / 2u);
    }
    if (TILE == 16u) {
        four = 2u * bit(thread, SHARE / 2u) + bit(thread, SHARE / 4u);
    }
    return 4u * four + 2u * bit(thread, REST) + bit(thread, REST / 2u);
}

fn store(r: u32, t: u32, value: f32) {
    let at = place_of(r, t);
    OUT[at] = bitcast<u32>(output_of(at, value));
}

fn store_at(r: u32, t: u32, scale: f32, y: f32) {
    if (t < p.n) {
        store(r, t, finish(p.m, r, scale, y, 0.0));
    }
}

fn store_row(r: u32, t: u32, y: vec4<f32>) {
    let scale = row_scale(p.m, r);
    store_at(r, t, scale, y.x);
    if (N_EACH > 1u) {
        store_at(r, t + 1u, scale, y.y);
    }
    if (N_EACH > 2u) {
        store_at(r, t + 2u, scale, y.z);
        store_at(r, t + 3u, scale, y.w);
    }
}

fn store_gated_at(r: u32, t: u32, scale: vec2<f32>, gate: f32, up: f32) {
    if (t < p.n) {
        let g = activate(finish(p.m, r, scale.x, gate, 0.0));
        store(r, t, g * finish(p.m, r + p.n_gate, scale.y, up, 0.0));
    }
}

fn store_gated(r: u32, t: u32, gate: vec4<f32>, up: vec4<f32>) {
    let scale = vec2<f32>(row_scale(p.m, r), row_scale(p.m, r + p.n_gate));
    store_gated_at(r, t, scale, gate.x, up.x);
    if (N_EACH > 1u) {
        store_gated_at(r, t + 1u, scale, gate.y, up.y);
    }
    if (N_EACH > 2u) {
        store_gated_at(r, t + 2u, scale, gate.z, up.z);
        store_gated_at(r, t + 3u, scale, gate.w, up.w);
    }
}

fn store_all(team: u32, t: u32, a: vec4<f32>, b: vec4<f32>, c: vec4<f32>, d: vec4<f32>) {
    let first = team * select(N_ROWS, N_ROWS / 2u, GATE == 1);
    if (GATE == 1) {
        if (first < p.n_gate) {
            store_gated(first, t, a, b);
        }
        if (N_ROWS > 2u && first + 1u < p.n_gate) {
            store_gated(first + 1u, t, c, d);
        }
        return;
    }
    if (first < p.m.n_rows) {
        store_row(first, t, a);
    }
    if (N_ROWS > 1u && first + 1u < p.m.n_rows) {
        store_row(first + 1u, t, b);
    }
    if (N_ROWS > 2u && first + 2u < p.m.n_rows) {
        store_row(first + 2u, t, c);
    }
    if (N_ROWS > 2u && first + 3u < p.m.n_rows) {
        store_row(first + 3u, t, d);
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
    let team = group.y * N_TEAMS + thread / SHARE;
    let t = group.x * TILE;
    var a = Sums();
    var b = Sums();
    var c = Sums();
    var d = Sums();
    var all_a = vec4<f32>(0.0);
    var all_b = vec4<f32>(0.0);
    var all_c = vec4<f32>(0.0);
    var all_d = vec4<f32>(0.0);
    var next = read_four(team, vec_of(0u, thread));
    keep_part(0u, thread, read_part(0u, t, thread));
    if (HAS_MORE) {
        keep_part(0u, thread + SIZE, read_part(0u, t, thread + SIZE));
    }
    workgroupBarrier();
    for (var step = 0u; step < N_STEPS; step++) {
        let w = next;
        let at = step % 2u * TILE * SHARE + thread % SHARE;
        next = read_four(team, vec_of(step + 1u, thread));
        let part = read_part(step + 1u, t, thread);
        var more = Part();
        if (HAS_MORE) {
            more = read_part(step + 1u, t, thread + SIZE);
        }
        let x0 = slot(0u, at);
        let y0 = slot(1u, at);
        let z0 = slot(2u, at);
        let u0 = slot(3u, at);
        a.a = plus_products(a.a, w.a, x0, y0, z0, u0);
        if (N_ROWS > 1u) {
            b.a = plus_products(b.a, w.b, x0, y0, z0, u0);
        }
        if (N_ROWS > 2u) {
            c.a = plus_products(c.a, w.c, x0, y0, z0, u0);
            d.a = plus_products(d.a, w.d, x0, y0, z0, u0);
        }
        if (TILE > 4u) {
            let x1 = slot(4u, at);
            let y1 = slot(5u, at);
            let z1 = slot(6u, at);
            let u1 = slot(7u, at);
            a.b = plus_products(a.b, w.a, x1, y1, z1, u1);
            if (N_ROWS > 1u) {
                b.b = plus_products(b.b, w.b, x1, y1, z1, u1);
            }
            if (N_ROWS > 2u) {
                c.b = plus_products(c.b, w.c, x1, y1, z1, u1);
                d.b = plus_products(d.b, w.d, x1, y1, z1, u1);
            }
        }
        if (TILE > 8u) {
            let x2 = slot(8u, at);
            let y2 = slot(9u, at);
            let z2 = slot(10u, at);
            let u2 = slot(11u, at);
            a.c = plus_products(a.c, w.a, x2, y2, z2, u2);
            if (N_ROWS > 1u) {
                b.c = plus_products(b.c, w.b, x2, y2, z2, u2);
            }
            if (N_ROWS > 2u) {
                c.c = plus_products(c.c, w.c, x2, y2, z2, u2);
                d.c = plus_products(d.c, w.d, x2, y2, z2, u2);
            }
            let x3 = slot(12u, at);
            let y3 = slot(13u, at);
            let z3 = slot(14u, at);
            let u3 = slot(15u, at);
            a.d = plus_products(a.d, w.a, x3, y3, z3, u3);
            if (N_ROWS > 1u) {
                b.d = plus_products(b.d, w.b, x3, y3, z3, u3);
            }
            if (N_ROWS > 2u) {
                c.d = plus_products(c.d, w.c, x3, y3, z3, u3);
                d.d = plus_products(d.d, w.d, x3, y3, z3, u3);
            }
        }
        if (step % SLOTS == SLOTS - 1u) { // a share is complete
            all_a += add_lanes(a, thread);
            a = Sums();
            if (N_ROWS > 1u) {
                all_b += add_lanes(b, thread);
                b = Sums();
            }
            if (N_ROWS > 2u) {
                all_c += add_lanes(c, thread);
                all_d += add_lanes(d, thread);
                c = Sums();
                d = Sums();
            }
        }
        keep_part(step + 1u, thread, part);
        if (HAS_MORE) {
            keep_part(step + 1u, thread + SIZE, more);
        }
        workgroupBarrier();
    }
    if (SHARE <= TILE || thread % (SHARE / TILE) == 0u) {
        store_all(team, t + first_of(thread), all_a, all_b, all_c, all_d);
    }
}
