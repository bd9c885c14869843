// input_parts.wgsl: the input of matvec.wgsl is the output of attention, whose parts every workgroup
// adds up in the order of combine.wgsl.
// In:  PARTS, as combine.wgsl says with IS_HALF; HEAD_DIM is a multiple of 8.

struct Input {
    n_heads: u32, // at most 64
    n_parts: u32, // n_heads * n_parts is at most 768
}

@group(0) @binding(2) var<storage, read> PARTS: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> OUT: array<u32>;

const STORES = 0;
const HOLDS = 2u * N_CHUNKS <= SIZE; // a thread has eight numbers of the row
const N_HELD = select(2u * N_CHUNKS, 1u, HOLDS);
var<workgroup> largest_scores: array<f32, 768>; // of the parts
var<workgroup> weight_sums: array<f32, 768>;
var<workgroup> factors: array<f32, 768>;
var<workgroup> sums_of_parts: array<Eight, N_HELD>;
var<private> held: Eight;

// Parts that are on their way at once.
struct Four {
    a: vec4<u32>,
    b: vec4<u32>,
    c: vec4<u32>,
    d: vec4<u32>,
}

var<private> sums_read: vec4<f32>; // of part `thread`
var<private> begun: Four; // with HOLDS, the first parts of a thread's numbers

// Where the parts of row t begin.
fn row_at(t: u32) -> u32 {
    return t * p.input.n_heads * p.input.n_parts * (PITCH / 4u);
}

fn sums_of(row: u32, i: u32) -> vec4<f32> {
    return bitcast<vec4<f32>>(PARTS[row + (i + 1u) * (PITCH / 4u) - 1u]);
}

fn fetch(t: u32, thread: u32) {
    let row = row_at(t);
    sums_read = sums_of(row, min(thread, p.input.n_heads * p.input.n_parts - 1u));
    if (HOLDS && 8u * thread < p.m.n_in) {
        begun = four_parts(first_at(row, thread), 0u);
    }
}

fn prepare(t: u32, thread: u32) {
    let n = p.input.n_heads * p.input.n_parts;
    let row = row_at(t);
    for (var i = thread; i < n; i += SIZE) {
        var s = sums_read;
        if (i != thread) {
            s = sums_of(row, i);
        }
        largest_scores[i] = s.x;
        weight_sums[i] = s.y;
        factors[i] = s.z;
    }
    workgroupBarrier();
    for (var i = thread; i < n; i += SIZE) {
        let first = i / p.input.n_parts * p.input.n_parts;
        let last = first + p.input.n_parts - 1u;
        var most = largest_scores[i];
        for (var k = first; k <= last; k += 4u) { // four at once
            most = max(max(most, largest_scores[k]),
                       max(max(largest_scores[min(k + 1u, last)], largest_scores[min(k + 2u, last)]),
                           largest_scores[min(k + 3u, last)]));
        }
        factors[i] *= exp(largest_scores[i] - most);
    }
    workgroupBarrier();
    if (HOLDS) {
        if (8u * thread < p.m.n_in) {
            held = add_parts(row, thread, begun);
        }
        return;
    }
    for (var i = thread; 8u * i < p.m.n_in; i += SIZE) {
        sums_of_parts[i] = add_parts(row, i, four_parts(first_at(row, i), 0u));
    }
    workgroupBarrier();
}

// Sums of values and of weights.
struct Sums {
    x: Eight,
    weights: f32,
}

fn part_of(at: u32, k: u32) -> vec4<u32> {
    return PARTS[at + min(k, p.input.n_parts - 1u) * (PITCH / 4u)];
}

fn plus_part(s: Sums, first: u32, k: u32, part: vec4<u32>) -> Sums {
    if (k >= p.input.n_parts) {
        return s;
    }
    let factor = factors[first + k];
    let f = vec4<f32>(factor);
    return Sums(Eight(fma(f, vec4<f32>(unpack2x16float(part.x), unpack2x16float(part.y)), s.x.a),
                      fma(f, vec4<f32>(unpack2x16float(part.z), unpack2x16float(part.w)), s.x.b)),
                fma(factor, weight_sums[first + k], s.weights));
}

fn four_parts(at: u32, k: u32) -> Four {
    return Four(part_of(at, k), part_of(at, k + 1u), part_of(at, k + 2u), part_of(at, k + 3u));
}

// Numbers [8 i, 8 i + 8) of the first part.
fn first_at(row: u32, i: u32) -> u32 {
    let head = 8u * i / HEAD_DIM;
    return row + head * p.input.n_parts * (PITCH / 4u) + i - head * (HEAD_DIM / 8u);
}

// Numbers [8 i, 8 i + 8) of all parts, of which the first are there.
fn add_parts(row: u32, i: u32, first_parts: Four) -> Eight {
    let first = 8u * i / HEAD_DIM * p.input.n_parts;
    let at = first_at(row, i);
    var s = Sums();
    var next = first_parts;
    for (var k = 0u; k < p.input.n_parts; k += 4u) {
        let now = next;
        if (k + 4u < p.input.n_parts) {
            next = four_parts(at, k + 4u);
        }
        s = plus_part(plus_part(s, first, k, now.a), first, k + 1u, now.b);
        s = plus_part(plus_part(s, first, k + 2u, now.c), first, k + 3u, now.d);
    }
    return Eight(s.x.a / s.weights, s.x.b / s.weights);
}

fn keep(t: u32, thread: u32) {}

fn keep_best(i: u32, best: vec4<f32>) {}

fn held8(i: u32) -> Eight {
    return held;
}

fn input(t: u32, i: u32) -> vec4<f32> {
    let x = sums_of_parts[min(i / 2u, N_HELD - 1u)];
    return select(x.a, x.b, i % 2u == 1u);
}

const IS_ROUNDED = false;

fn rounded_input(t: u32, chunk: u32) -> vec4<u32> {
    return vec4<u32>(0u);
}

fn rounded_scale(t: u32, block: u32) -> f32 {
    return 0.0;
}
