// matvec.wgsl: y = w x + bias for a few rows of x: decode, draft tokens, logits.
// In:  a slab of a matrix (upload.c); the functions of input_*.wgsl, which make x.
// Out: OUT[t, out_at + first + r]; with GATE 1 act(gate) * up, where the gate's rows come first;
//      with GATE 2 act(y); with CAPS soft-capped; with ACCUMULATES added to what is there. With
//      ROUNDS not the numbers but what input_rounded.wgsl reads: each workgroup has 64 of them.
//
// A workgroup rounds a row of x to int8, in blocks of 64 that share a scale, as the CPU does. LANES
// of its threads share a row of the matrix: each one keeps its part of x, SLOTS times 16 bytes of the
// matrix wide, and goes with it through its rows; with IS_PAIR, two rows at a time. Each row of x is
// computed alone, in the same order however many there are, so draft tokens do not change a number.

struct Params {
    m: Matrix,
    out_stride: u32,
    out_at: u32,
    n_gate: u32, // rows of the gate, and of up behind it; with FINDS_BEST the first candidate
    first_t: u32, // the first row of x and OUT
    scale: f32,
    cap: f32,
    n_turns: u32, // of each LANES threads: rows of the matrix, or pairs
    n_groups: u32, // workgroups that have rows of the matrix
    input: Input,
}

@group(0) @binding(0) var<uniform> p: Params;

const FINDS_BEST = (STORES & 4) != 0; // of a single row of x

const IS_WHOLE = N_VECS == LANES * SLOTS;
const ROWS = SIZE / LANES; // or pairs, that a workgroup has at a time

// Chunk i of x, and its scale.
fn chunk(t: u32, i: u32) -> vec4<u32> {
    if (IS_ROUNDED) {
        return rounded_input(t, i);
    }
    return chunk_of_x8(i);
}

fn chunk_scale(t: u32, i: u32) -> f32 {
    if (IS_ROUNDED) {
        return rounded_scale(t, i / 4u);
    }
    return scales[i / 4u];
}

fn slot(t: u32, k: u32) -> Slot {
    var s = Slot();
    if (IS_WHOLE || k < N_VECS) {
        let i = select(k, 2u * k, IS_INT4);
        s.v = chunk(t, i);
        s.scale = chunk_scale(t, i);
        s.sums.x = dot16(s.v, ONES);
        if (IS_INT4) {
            s.w = chunk(t, i + 1u);
            s.sums.y = dot16(s.w, ONES);
        }
    }
    return s;
}

struct Slots {
    a: Slot,
    b: Slot,
    c: Slot,
    d: Slot,
    e: Slot,
    f: Slot,
    g: Slot,
    h: Slot,
}

fn slots(t: u32, lane: u32) -> Slots {
    var s = Slots();
    s.a = slot(t, lane);
    if (SLOTS > 1u) {
        s.b = slot(t, lane + LANES);
    }
    if (SLOTS > 2u) {
        s.c = slot(t, lane + 2u * LANES);
    }
    if (SLOTS > 3u) {
        s.d = slot(t, lane + 3u * LANES);
    }
    if (SLOTS > 4u) {
        s.e = slot(t, lane + 4u * LANES);
    }
    if (SLOTS > 5u) {
        s.f = slot(t, lane + 5u * LANES);
    }
    if (SLOTS > 6u) {
        s.g = slot(t, lane + 6u * LANES);
    }
    if (SLOTS > 7u) {
        s.h = slot(t, lane + 7u * LANES);
    }
    return s;
}

// ---- rows of the matrix ----

struct Row {
    a: Vec,
    b: Vec,
    c: Vec,
    d: Vec,
    e: Vec,
    f: Vec,
    g: Vec,
    h: Vec,
    scale: f32,
}

fn read_row(r: u32, lane: u32) -> Row {
    var row = Row();
    row.a = read_vec(r, lane);
    if (SLOTS > 1u) {
        row.b = read_vec(r, lane + LANES);
    }
    if (SLOTS > 2u) {
        row.c = read_vec(r, lane + 2u * LANES);
    }
    if (SLOTS > 3u) {
        row.d = read_vec(r, lane + 3u * LANES);
    }
    if (SLOTS > 4u) {
        row.e = read_vec(r, lane + 4u * LANES);
    }
    if (SLOTS > 5u) {
        row.f = read_vec(r, lane + 5u * LANES);
    }
    if (SLOTS > 6u) {
        row.g = read_vec(r, lane + 6u * LANES);
    }
    if (SLOTS > 7u) {
        row.h = read_vec(r, lane + 7u * LANES);
    }
    row.scale = row_scale(p.m, r);
    return row;
}

// A thread's part of the product of a row.
fn row_product(w: Row, x: Slots) -> f32 {
    var y = plus_product(0.0, w.a, x.a);
    if (SLOTS > 1u) {
        y = plus_product(y, w.b, x.b);
    }
    if (SLOTS > 2u) {
        y = plus_product(y, w.c, x.c);
    }
    if (SLOTS > 3u) {
        y = plus_product(y, w.d, x.d);
    }
    if (SLOTS > 4u) {
        y = plus_product(y, w.e, x.e);
    }
    if (SLOTS > 5u) {
        y = plus_product(y, w.f, x.f);
    }
    if (SLOTS > 6u) {
        y = plus_product(y, w.g, x.g);
    }
    if (SLOTS > 7u) {
        y = plus_product(y, w.h, x.h);
    }
    return y;
}

fn slot_sum(x: Slot) -> f32 {
    return x.scale * f32(x.sums.x + x.sums.y);
}

// A thread's part of the sum of x.
fn sum_of(x: Slots) -> f32 {
    return ((slot_sum(x.a) + slot_sum(x.b)) + (slot_sum(x.c) + slot_sum(x.d))) +
           ((slot_sum(x.e) + slot_sum(x.f)) + (slot_sum(x.g) + slot_sum(x.h)));
}

// ---- output ----

var<workgroup> outputs: array<f32, 64>; // of ROUNDS
var<private> best: Best = LEAST_BEST; // of a thread's outputs

fn store(r: u32, t: u32, value: f32) {
    let at = place_of(r, t);
    if (ROUNDS > 0) {
        outputs[r % 64u] = output_of(at, value);
        return;
    }
    let y = output_of(at, value);
    OUT[at] = bitcast<u32>(y);
    if (FINDS_BEST) {
        best = better(best, Best(y, p.m.first + r));
    }
}

fn four_outputs(i: u32) -> vec4<f32> {
    return vec4<f32>(outputs[i], outputs[i + 1u], outputs[i + 2u], outputs[i + 3u]);
}

// Store the outputs as int8, and behind all of the row the scale of these.
fn store_rounded(group: u32, t: u32, thread: u32) {
    workgroupBarrier();
    let i = thread % 8u;
    let x = Eight(four_outputs(8u * i), four_outputs(8u * i + 4u));
    let most = max_of_8(largest_of_8(x), thread);
    let at = t * p.out_stride;
    if (thread < 8u) {
        let v = rounded8(x, select(0.0, 127.0 / most, most > 0.0), ROUNDS == 2);
        OUT[at + 16u * group + 2u * i] = v.x;
        OUT[at + 16u * group + 2u * i + 1u] = v.y;
    }
    if (thread == 0u) {
        OUT[at + n_rows() / 4u + group] = bitcast<u32>(most / 127.0);
    }
}

// Rows of the output.
fn n_rows() -> u32 {
    return select(p.m.n_rows, p.n_gate, GATE == 1);
}

// The rows of the matrix of a turn: the second is that of up, or of the second half.
fn rows_of(turn: u32) -> vec2<u32> {
    if (GATE == 1) {
        let r = min(turn, p.n_gate - 1u);
        return vec2<u32>(r, r + p.n_gate);
    }
    let half = (p.m.n_rows + 1u) / 2u;
    return min(vec2<u32>(turn, turn + half), vec2<u32>(p.m.n_rows - 1u));
}

fn store_turn(turn: u32, t: u32, y: vec2<f32>, scale: vec2<f32>, sum: f32) {
    let r = rows_of(turn);
    let first = finish(p.m, r.x, scale.x, y.x, sum);
    if (GATE == 1) {
        if (turn < p.n_gate) {
            store(turn, t, activate(first) * finish(p.m, r.y, scale.y, y.y, sum));
        }
        return;
    }
    let end = select(p.m.n_rows, (p.m.n_rows + 1u) / 2u, IS_PAIR);
    if (turn < end) {
        store(turn, t, first);
    }
    if (IS_PAIR && turn < end && turn + end < p.m.n_rows) {
        store(turn + end, t, finish(p.m, r.y, scale.y, y.y, sum));
    }
}

// ---- turns ----

struct Pair {
    a: Row,
    b: Row,
}

fn read_pair(turn: u32, lane: u32) -> Pair {
    let r = rows_of(turn);
    var rows = Pair();
    rows.a = read_row(r.x, lane);
    if (IS_PAIR) {
        rows.b = read_row(r.y, lane);
    }
    return rows;
}

// Turns first, first + step, ...; what is read is on its way while x is made. What that needs is
// read before: reads come back in order.
fn multiply(first: u32, step: u32, t: u32, lane: u32, thread: u32) {
    fetch(t, thread);
    var rows = read_pair(first, lane);
    prepare(t, thread);
    round_x(t, thread);
    let x = slots(t, lane);
    var sum = 0.0;
    if (HAS_ZEROS) {
        sum = lanes_add(vec2<f32>(sum_of(x), 0.0), 1u, thread).x;
    }
    var turn = first;
    for (var i = 0u; i < p.n_turns; i++) {
        if (i > 0u && !READS_AHEAD) {
            rows = read_pair(turn, lane);
        }
        let now = rows;
        if (READS_AHEAD) {
            if (i + 1u < p.n_turns) {
                rows = read_pair(turn + step, lane);
            }
        }
        var y = vec2<f32>(row_product(now.a, x), 0.0);
        if (IS_PAIR) {
            y.y = row_product(now.b, x);
        }
        y = lanes_add(y, i, thread);
        if (lane == 0u) {
            store_turn(turn, t, y, vec2<f32>(now.a.scale, now.b.scale), sum);
        }
        turn += step;
    }
    if (ROUNDS > 0) {
        store_rounded(first / 64u, t, thread);
    }
}

// ---- float32 ----

fn float_product(r: u32, t: u32, lane: u32) -> f32 {
    var y = 0.0;
    for (var k = lane; 4u * k < p.m.n_in; k += LANES) {
        y += dot(bitcast<vec4<f32>>(W[r * p.m.row_vecs + k]), input(t, k));
    }
    return y;
}

fn multiply_floats(turn: u32, t: u32, lane: u32, thread: u32) {
    fetch(t, thread);
    prepare(t, thread);
    let r = rows_of(turn);
    var y = vec2<f32>(float_product(r.x, t, lane), 0.0);
    if (IS_PAIR) {
        y.y = float_product(r.y, t, lane);
    }
    y = lanes_add(y, 0u, thread);
    if (lane == 0u) {
        store_turn(turn, t, y, vec2<f32>(1.0), 0.0);
    }
}

@compute @workgroup_size(SIZE)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) size: vec3<u32>,
        @builtin(local_invocation_index) thread: u32) {
    let t = p.first_t + id.z;
    var group = id.y * size.x + id.x;
    if ((STORES & 3) != 0) {
        if (group == 0u) {
            fetch(t, thread);
            prepare(t, thread);
            keep(t, thread);
            return;
        }
        group -= 1u;
    }
    if (group >= p.n_groups) { // of the last y
        return;
    }
    let lane = thread % LANES;
    if (ROUNDS > 0) { // 64 turns of its own
        multiply(64u * group + thread / LANES, ROWS, t, lane, thread);
        return;
    }
    let first = group * ROWS + thread / LANES;
    if (TYPE == F32) {
        multiply_floats(first, t, lane, thread);
    } else {
        multiply(first, p.n_groups * ROWS, t, lane, thread);
    }
    if (FINDS_BEST) {
        let found = best_of_all(best, thread);
        if (thread == 0u) {
            keep_best(p.n_gate + group, packed_best(found));
        }
    }
}
